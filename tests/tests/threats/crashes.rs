//! Crashes at every moment.

use crate::scene::{MINUTE, Scene, lab, small};

/// The oracle objects where an acknowledged commit is lost, where one is handed out twice in one life or out of turn,
/// and where what is stored is not the chain.
#[test]
fn threat_30_a_crash_at_some_event_loses_or_doubles_something() {
    let lab = lab(40, 3);
    let events = {
        let mut scene = Scene::new(&lab, small(), 2, Vec::new());
        scene.reach(MINUTE);
        scene.world.events_of(scene.client)
    };
    for at in 0..events {
        for kept in [0, 1, usize::MAX] {
            let mut scene = Scene::new(&lab, small(), 2, Vec::new());
            let client = scene.client;
            scene.world.run_until(MINUTE, |world| world.events_of(client) >= at);
            scene.world.restart(client, kept);
            for server in scene.honest.clone() {
                scene.world.connect(client, server);
            }
            scene.reach(MINUTE);
        }
    }
}

/// A node that crashes over and over gets on all the same, as long as a batch is stored now and then.
#[test]
fn threat_30_a_crash_loop_makes_no_progress() {
    let lab = lab(120, 3);
    let mut scene = Scene::new(&lab, small(), 2, Vec::new());
    let (client, servers) = (scene.client, scene.honest.clone());
    let period = std::time::Duration::from_millis(400);
    let mut left = 20;
    scene.world.act(period, move |world| {
        world.restart(client, 0);
        servers.iter().for_each(|server| world.connect(client, *server));
        left -= 1;
        (left > 0).then_some(period)
    });
    scene.reach(5 * MINUTE);
}
