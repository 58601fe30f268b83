//! Faults that are ours or nobody's: whom they must not cost anything.

use crate::scene::{MINUTE, SECOND, Scene, honest_time, index, lab, small};
use soma_sync_core::{
    command::Stall,
    request::{Request, RequestFailure},
};
use soma_sync_sim::{
    hostile::Manner,
    world::{Link, Reply, World},
};
use std::time::Duration;

/// Colluding peers do all that they can while streams are lost and messages are late; the oracle objects to the first
/// honest peer that is blamed.
#[test]
fn threat_21_honest_peers_are_blamed_for_what_others_do() {
    let lab = lab(120, 3);
    for loss_per_million in [0, 100_000] {
        let link = Link {
            latency: Duration::from_millis(20),
            jitter: Duration::from_millis(40),
            bandwidth: 2_000_000,
            loss_per_million,
        };
        let mut scene = Scene::new(&lab, small(), 3, Manner::all());
        scene.links(link);
        scene.reach(10 * MINUTE);
        let honest: Vec<_> = scene.honest.iter().map(|node| scene.world.peer(*node)).collect();
        let blamed =
            scene.status().peers.into_iter().find(|peer| honest.contains(&peer.id) && peer.offences > 0);
        assert!(blamed.is_none(), "{blamed:?}");
    }
}

/// Somebody makes an honest peer's answers late: that costs it no ban, and it is used again.
#[test]
fn threat_21_time_outs_are_held_to_be_offences() {
    let lab = lab(200, 1);
    let mut scene = Scene::new(&lab, small(), 1, Vec::new());
    let (server, client) = (scene.honest[0], scene.client);
    let (mut blocked, mut turns) = (false, 100);
    scene.world.act(Duration::from_millis(50), move |world| {
        blocked = !blocked;
        world.block(server, client, blocked);
        turns -= 1;
        if turns == 0 {
            return None;
        }
        Some(if blocked { 6 * SECOND } else { Duration::from_millis(300) })
    });
    scene.pass(6 * MINUTE);
    assert!(scene.status().counters.timeouts > 0, "nothing was late");
    let took = scene.reach(5 * MINUTE);
    assert!(took <= 30 * SECOND, "{took:?} after that ended");
    assert!(scene.offences().is_empty());
}

#[test]
fn threat_22_a_failing_disk_costs_peers_their_standing() {
    let lab = lab(120, 2);
    let mut scene = Scene::new(&lab, small(), 2, Vec::new());
    let client = scene.client;
    let at = |index| {
        move |world: &World| world.machine(client).status().certifiable.index >= crate::scene::index(index)
    };
    assert!(scene.world.run_until(MINUTE, at(20)));
    let standing = |scene: &Scene| {
        let peers = scene.status().peers.into_iter();
        peers.map(|peer| (peer.connected, peer.claim, peer.offences, peer.timeouts)).collect::<Vec<_>>()
    };
    scene.world.fail_store(client, true);
    assert!(
        scene.world.run_until(MINUTE, |world| world.machine(client).status().stall == Some(Stall::Storage))
    );
    let before = standing(&scene);
    scene.pass(10 * MINUTE);
    assert_eq!(standing(&scene), before);
    let asked = scene.world.traffic(client).data_requests;
    scene.world.fail_store(client, false);
    let took = scene.reach(MINUTE);
    assert!(took <= 2 * honest_time(&lab, small(), 2), "{took:?} after {asked} requests");
    assert!(scene.offences().is_empty());
}

/// Requests that fail on our side are nobody's fault, whoever they were to.
#[test]
fn threat_22_our_own_failures_to_ask_cost_peers_their_standing() {
    let lab = lab(120, 1);
    let mut scene = Scene::new(&lab, small(), 2, Vec::new());
    for server in scene.honest.clone() {
        let mut failures = 20;
        scene.world.tamper(server, move |request, reply| match request {
            Request::Commits(_) | Request::Blocks(_) if failures > 0 => {
                failures -= 1;
                Reply::Broken(Vec::new(), RequestFailure::Local)
            }
            _ => reply,
        });
    }
    let took = scene.reach(MINUTE);
    let peers = scene.status().peers;
    assert!(
        peers.iter().all(|peer| peer.offences == 0 && peer.timeouts == 0 && peer.connected),
        "{peers:#?}"
    );
    assert!(took <= 20 * SECOND, "{took:?}");
}

/// All fail together, so it is ours: all goes on soon after it is back.
#[test]
fn threat_22_a_link_of_ours_that_was_down_costs_peers_their_standing() {
    let lab = lab(400, 1);
    let mut scene = Scene::new(&lab, small(), 4, Vec::new());
    let client = scene.client;
    let begun = |world: &World| world.machine(client).status().certifiable.index >= index(20);
    assert!(scene.world.run_until(MINUTE, begun));
    scene.world.isolate(client, true);
    scene.pass(2 * MINUTE);
    scene.world.isolate(client, false);
    let took = scene.reach(5 * MINUTE);
    assert!(took <= 8 * SECOND, "{took:?}, and {:?} undisturbed", honest_time(&lab, small(), 4));
}

/// For six seconds nothing comes from the one server, then for 0.3 s everything does, and so on. In each of these an
/// answer fits fifteen times over.
#[test]
fn threat_21_a_link_that_works_a_twentieth_of_the_time_is_never_used() {
    let lab = lab(200, 1);
    let mut scene = Scene::new(&lab, small(), 1, Vec::new());
    let (server, client) = (scene.honest[0], scene.client);
    let mut blocked = false;
    scene.world.act(SECOND / 20, move |world| {
        blocked = !blocked;
        world.block(server, client, blocked);
        Some(if blocked { 6 * SECOND } else { 3 * SECOND / 10 })
    });
    scene.reach(60 * MINUTE);
}
