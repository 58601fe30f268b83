//! What peers say that they have.

use crate::scene::{MINUTE, SECOND, Scene, all, honest_time, index, lab, small};
use soma_sync_core::{
    Config, Event,
    command::{Notice, Offence, Stall},
    request::{Request, ResponsePart},
    types::CommitIndex,
};
use soma_sync_sim::{
    hostile::{Manner, misbehave},
    world::{ChainStore, Reply},
};
use std::cell::Cell;

#[test]
fn threat_01_an_inflated_height_makes_others_ineligible_or_is_believed_for_ever() {
    let lab = lab(120, 1);
    let mut scene = Scene::new(&lab, small(), 1, vec![Manner::InflatedHeight; 3]);
    let took = scene.reach(MINUTE);
    assert!(took <= 2 * honest_time(&lab, small(), 1), "{took:?}");
    let honest = scene.world.peer(scene.honest[0]);
    let status = scene.status();
    let served = status.peers.iter().find(|peer| peer.id == honest).map(|peer| peer.served_commits);
    assert!(served > Some(0), "the honest peer was not eligible");
    // What nobody delivers is not believed for long.
    scene.pass(MINUTE);
    let claims = scene.status().peers.into_iter().filter_map(|peer| peer.claim);
    let most = claims.map(|(highest, _)| highest).max();
    assert!(most < Some(index(200)), "{most:?} is believed of a peer that has delivered 120");
    assert!(scene.offences().is_empty(), "a claim is a hint and no offence");
    // Nor is it asked for again and again.
    let fetches = |scene: &Scene| {
        let traffic = scene.world.traffic(scene.client);
        traffic.data_requests - traffic.waiting_requests
    };
    let before = fetches(&scene);
    scene.pass(10 * MINUTE);
    let asked = fetches(&scene) - before;
    assert!(asked <= 40 * 3, "{asked} requests in ten minutes for what does not exist");
}

#[test]
fn threat_02_a_lowered_height_or_a_raised_lowest_wedges_the_sync() {
    let lab = lab(400, 1);
    for manner in [Manner::LoweringHeight(index(1)), Manner::RaisingLowest] {
        let slow = soma_sync_sim::world::Link {
            latency: 20 * SECOND / 1000,
            jitter: SECOND / 1000,
            bandwidth: 40_000,
            loss_per_million: 0,
        };
        let mut scene = Scene::new(&lab, small(), 1, vec![manner.clone(); 2]);
        scene.links(slow);
        scene.reach(5 * MINUTE);
        let fell =
            scene.status().peers.iter().any(|peer| {
                peer.claim.is_some_and(|(highest, lowest)| highest == index(1) || lowest == highest)
            });
        assert!(fell, "{manner:?} never took effect: {:#?}", scene.status().peers);
        assert!(scene.offences().is_empty(), "{manner:?} is allowed");
    }
}

#[test]
fn threat_03_a_lowest_above_the_highest_is_taken_for_a_claim() {
    let lab = lab(40, 1);
    let mut scene = Scene::new(&lab, small(), 1, vec![Manner::InvertedAvailability]);
    // A server that has nothing, and one that was never pruned, say that their lowest is 0: no offence.
    let empty = scene.world.add(Config::default(), ChainStore::new(lab.genesis().clone()));
    scene.world.connect(scene.client, empty);
    scene.reach(MINUTE);
    assert_eq!(scene.offences(), [Offence::InvertedAvailability]);
    assert!(scene.world.is_connected(scene.client, empty));
}

#[test]
fn threat_07_empty_answers_keep_a_claim_alive() {
    let lab = lab(120, 1);
    for manner in [Manner::EmptyAnswers, Manner::LacksBlocks] {
        let mut scene = Scene::new(&lab, small(), 1, vec![manner.clone(); 3]);
        let took = scene.reach(MINUTE);
        assert!(took <= 5 * honest_time(&lab, small(), 1), "{manner:?}: {took:?}");
        assert!(scene.offences().is_empty(), "{manner:?} proves nothing");
        // Without an honest peer there is nobody else to ask: still no loop, and nothing is believed to be synced.
        let mut alone = Scene::new(&lab, small(), 0, vec![manner.clone()]);
        alone.pass(MINUTE);
        let asked = alone.world.traffic(alone.client).data_requests;
        assert!(asked <= 200, "{manner:?}: {asked} requests in a minute");
        assert!(!alone.status().synced, "{manner:?}");
    }
}

#[test]
fn threat_20_what_is_pruned_and_advertised_stalls_the_sync_or_is_reported_falsely() {
    let lab = lab(120, 1);
    let mut scene = Scene::new(&lab, small(), 1, vec![Manner::PrunedButAdvertised; 3]);
    let took = scene.reach(MINUTE);
    assert!(took <= 5 * honest_time(&lab, small(), 1), "{took:?}");
    let no_provider = |scene: &Scene| {
        let notices = scene.world.notices(scene.client).iter();
        notices.filter(|notice| matches!(notice, Notice::Stalled(Stall::NoProvider { .. }))).count()
    };
    assert_eq!(no_provider(&scene), 0, "there was one all the time");

    // Where it is true it is said, once, with what is needed and what there is.
    let mut scene = Scene::new(&lab, small(), 0, Vec::new());
    let mut pruned = all(&lab);
    pruned.prune(index(50));
    let server = scene.world.add(Config::default(), pruned);
    scene.world.connect(scene.client, server);
    scene.pass(MINUTE);
    assert_eq!(no_provider(&scene), 1);
    let stall = Stall::NoProvider { next: CommitIndex::new(1), lowest_seen: index(50) };
    assert_eq!(scene.status().stall, Some(stall));
    let archive = scene.add_honest();
    scene.reach(MINUTE);
    assert!(scene.world.is_connected(scene.client, archive));
}

#[test]
fn threat_20_who_has_failed_to_deliver_is_asked_for_the_same_again_at_once() {
    let lab = lab(120, 1);
    let mut scene = Scene::new(&lab, small(), 0, vec![Manner::PrunedButAdvertised]);
    let hostile = scene.hostile[0];
    scene.world.record(hostile);
    scene.pass(30 * SECOND);
    // Requests that wait are for what it may have later.
    let asked = scene.world.recorded(hostile).iter().filter_map(|(at, event)| match event {
        Event::RequestReceived { request: Ok(Request::Commits(fetch)), .. } => {
            (fetch.start == index(1) && fetch.wait.is_zero()).then_some(*at)
        }
        _ => None,
    });
    let asked: Vec<_> = asked.collect();
    assert!(asked.len() >= 2, "{asked:?}: it is asked again some time");
    let again = Config::default().retry_same_peer_after;
    assert!(asked.windows(2).all(|pair| pair[1].saturating_since(pair[0]) >= again), "{asked:?}");
}

/// It delivers what comes after, so that its claim to have this as well stands.
#[test]
fn threat_20_one_commit_that_is_withheld_is_asked_for_again_at_once() {
    let lab = lab(120, 1);
    let mut scene = Scene::new(&lab, small(), 0, Vec::new());
    let hostile = scene.world.add(Config::default(), all(&lab));
    scene.world.set_hostile(hostile);
    let withholds =
        |request: &Request| matches!(request, Request::Commits(fetch) if fetch.start == index(61));
    scene.world.tamper(
        hostile,
        move |request, reply| {
            if withholds(request) { Reply::Parts(Vec::new()) } else { reply }
        },
    );
    scene.world.record(hostile);
    scene.world.connect(scene.client, hostile);
    scene.pass(30 * SECOND);
    assert_eq!(scene.status().certifiable.index, index(60));
    let asked = scene.world.recorded(hostile).iter().filter_map(|(at, event)| match event {
        Event::RequestReceived { request: Ok(request), .. } => withholds(request).then_some(*at),
        _ => None,
    });
    let asked: Vec<_> = asked.collect();
    assert!(asked.len() >= 2, "{asked:?}: it is asked again some time");
    let again = Config::default().retry_same_peer_after;
    assert!(asked.windows(2).all(|pair| pair[1].saturating_since(pair[0]) >= again), "{asked:?}");
}

#[test]
fn threat_02_ranges_of_a_peer_that_lowers_its_height_are_waited_for() {
    let lab = lab(64, 1);
    let mut scene = Scene::new(&lab, small(), 1, Vec::new());
    let hostile = scene.world.add(Config::default(), all(&lab));
    let manners = vec![Manner::LoweringHeight(index(1)), Manner::Silent];
    misbehave(&mut scene.world, hostile, manners, &lab);
    scene.world.connect(scene.client, hostile);
    let took = scene.reach(MINUTE);
    // It is polled each second while behind, and says so then.
    assert!(took <= 2 * SECOND, "{took:?}");
}

/// Its word is enough, however well it has served before: nothing else is waited for.
#[test]
fn threat_02_what_a_peer_no_longer_claims_is_waited_for() {
    let lab = lab(200, 1);
    let mut scene = Scene::new(&lab, small(), 1, Vec::new());
    let turning = scene.world.add(Config::default(), all(&lab));
    let left = Cell::new(6);
    scene.world.tamper(turning, move |request, reply| match request {
        Request::Commits(_) | Request::Blocks(_) if left.get() == 0 => Reply::Stuck(Vec::new()),
        Request::Commits(_) | Request::Blocks(_) => {
            left.set(left.get() - 1);
            reply
        }
        Request::Availability { .. } if left.get() == 0 => {
            Reply::Parts(vec![ResponsePart::Availability { highest: index(1), lowest: index(0) }])
        }
        Request::CommitInfo(_) | Request::Availability { .. } | Request::Push { .. } => reply,
    });
    scene.world.connect(scene.client, turning);
    let took = scene.reach(MINUTE);
    // It is polled each second while behind, and says so then.
    assert!(took <= 19 * SECOND / 10, "{took:?}");
}

/// Commits to come are asked for, too. Where a peer that claims the highest index does not bring one of those, its claim
/// must not be cut to the one before it, which nobody has either.
#[test]
fn threat_01_an_inflated_height_keeps_a_node_from_being_synced() {
    let lab = lab(120, 1);
    let mut scene = Scene::new(&lab, small(), 1, vec![Manner::InflatedHeight; 3]);
    scene.reach(MINUTE);
    // Each time that they are believed again, for as long as it takes to find out: for less and less of the time.
    let synced = (0..300).filter(|_| {
        scene.pass(SECOND);
        scene.status().synced
    });
    let synced = synced.count();
    assert!(synced >= 200, "{synced} of 300 seconds");
}
