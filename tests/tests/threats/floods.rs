//! Peers that ask and say too much.

use crate::scene::{MINUTE, SECOND, Scene, all, fetch, first, honest_time, index, lab, small, tip};
use soma_sync_core::{
    Config, Event,
    command::Offence,
    request::{CommitInfoQuery, FetchBlocks, RefuseReason, Request},
    types::{AuthorityIndex, BlockRef, CommitIndex, Epoch, Round},
};
use soma_sync_sim::{
    hostile::{flood_pushes, flood_requests, keep_reconnecting},
    world::{Link, NodeId, Pace, World},
};
use std::time::Duration;

fn blocks(refs: Vec<BlockRef>) -> Request {
    Request::Blocks(FetchBlocks { refs, max_bytes: u64::MAX })
}

#[test]
fn threat_16_pushes_at_full_speed_make_work_without_end() {
    let lab = lab(120, 1);
    let usual = honest_time(&lab, small(), 1);
    let mut scene = Scene::new(&lab, small(), 1, Vec::new());
    for _ in 0..3 {
        let from = scene.world.add(Config::default(), all(&lab));
        scene.world.connect(scene.client, from);
        flood_pushes(&mut scene.world, from, scene.client, Duration::from_millis(1));
    }
    let took = scene.reach(MINUTE);
    assert!(took <= 2 * usual, "{took:?}, and {usual:?} without them");
    // Each push is answered and makes nothing grow: what is asked of them is bounded by time.
    scene.pass(MINUTE);
    let before = scene.world.traffic(scene.client);
    scene.pass(MINUTE);
    let asked = scene.world.traffic(scene.client).requests - before.requests;
    assert!(asked <= 4 * 60 * 3, "{asked} requests in a minute, for 180,000 pushes");
    assert!(scene.world.most_commands(scene.client) <= 300, "{}", scene.world.most_commands(scene.client));
    assert!(scene.offences().is_empty());
}

/// How long an honest client takes to get the chain from one server that others flood.
fn beside_flooders(flooders: usize, read: bool) -> (World, NodeId, Vec<NodeId>, Duration) {
    let lab = lab(120, 1);
    let mut world = World::new(Pace::default());
    world.judged_by(lab.chain());
    let server = world.add(Config::default(), all(&lab));
    let client = world.add(small(), first(&lab, 0));
    let refs: Vec<_> = lab.chain().iter().flat_map(|made| made.header.blocks.to_vec()).take(600).collect();
    let mut flooding = Vec::new();
    for _ in 0..flooders {
        let from = world.add(Config::default(), first(&lab, 0));
        world.connect(server, from);
        world.set_reads(from, read);
        // Over a narrow link an answer takes long.
        let narrow = Link { bandwidth: 100_000, ..Link::from(Pace::default()) };
        world.set_link(server, from, narrow);
        let dear = vec![fetch(1, 120), blocks(refs.clone())];
        flood_requests(&mut world, from, server, Duration::from_millis(2), dear);
        flooding.push(from);
    }
    world.run_until(SECOND, |_| false);
    world.connect(client, server);
    let before = world.now();
    let tip = tip(&lab);
    let reached = world.run_until(5 * MINUTE, |world| world.machine(client).status().certifiable == tip);
    assert!(reached, "{:#?}", world.machine(client).status());
    let took = world.now().saturating_since(before);
    (world, server, flooding, took)
}

#[test]
fn threat_17_a_flood_of_requests_takes_the_service_of_honest_peers() {
    let (_, _, _, usual) = beside_flooders(0, true);
    let (world, server, flooding, took) = beside_flooders(10, true);
    // Four fifths of the service, so five quarters of the time.
    assert!(4 * took <= 5 * usual, "{took:?}, and {usual:?} alone");
    assert!(world.machine(server).status().serving <= Config::default().max_serving as usize);
    assert!(flooding.iter().all(|from| world.traffic(*from).requests > 0));
}

#[test]
fn threat_18_answers_that_nobody_reads_take_the_service_of_honest_peers() {
    let (_, _, _, usual) = beside_flooders(0, true);
    let (world, server, flooding, took) = beside_flooders(10, false);
    assert!(4 * took <= 5 * usual, "{took:?}, and {usual:?} alone");
    let per_peer = Config::default().max_serving_per_peer as usize;
    assert!(world.machine(server).status().serving <= per_peer * flooding.len());
}

#[test]
fn threat_18_answers_that_nobody_reads_hold_places_for_ever() {
    let lab = lab(120, 1);
    let config = Config::default();
    let mut world = World::new(Pace::default());
    world.judged_by(lab.chain());
    let server = world.add(config.clone(), all(&lab));
    let stranger = world.add(config.clone(), all(&lab));
    world.set_hostile(stranger);
    world.connect(server, stranger);
    world.run_until(SECOND, |_| false);
    world.set_reads(stranger, false);
    let before = world.traffic(server);
    for start in 1..=3 * config.max_serving_per_peer {
        world.ask(stranger, server, fetch(start, 120));
    }
    world.run_until(SECOND, |_| false);
    let serving = world.machine(server).status().serving;
    assert!((1..=config.max_serving_per_peer as usize).contains(&serving), "{serving}");
    // The connection stands; the answers are given up, and so are those that waited for their places, and hardly
    // anything was sent of them.
    world.run_until(2 * config.serve_timeout, |_| false);
    assert_eq!(world.machine(server).status().serving, 0);
    assert!(world.is_connected(server, stranger));
    assert_eq!(world.traffic(server).served_bytes, before.served_bytes);
}

/// Twenty identities fill nearly all places with answers that they do not read, and would again as soon as those are given up.
#[test]
fn threat_18_who_reads_nothing_holds_places_again_and_again() {
    let lab = lab(120, 1);
    let config = Config { serve_timeout: 10 * SECOND, ..Config::default() };
    let mut world = World::new(Pace::default());
    world.judged_by(lab.chain());
    let server = world.add(config.clone(), all(&lab));
    let client = world.add(small(), first(&lab, 0));
    let requests: Vec<_> = (1..=110).map(|start| fetch(start, 120)).collect();
    for _ in 0..20 {
        let from = world.add(Config::default(), first(&lab, 0));
        world.connect(server, from);
        world.set_reads(from, false);
        flood_requests(&mut world, from, server, Duration::from_millis(20), requests.clone());
    }
    world.run_until(5 * SECOND, |_| false);
    let serving = world.machine(server).status().serving;
    assert!(serving * 10 > config.max_serving as usize * 9, "{serving} at first");
    // Those are given up, and then those that waited for their places.
    world.run_until(6 * SECOND, |_| false);
    let serving = world.machine(server).status().serving;
    assert!(serving <= 20 * config.max_queued_per_peer as usize, "{serving} at second");
    world.run_until(10 * SECOND, |_| false);
    let serving = world.machine(server).status().serving;
    assert!(serving <= 20, "{serving} at last");
    world.connect(client, server);
    let tip = tip(&lab);
    let reached = world.run_until(5 * SECOND, |world| world.machine(client).status().certifiable == tip);
    assert!(reached, "at {} after five seconds", world.machine(client).status().queued);
    assert!(world.machine(server).status().counters.refused_unread > 0);
}

#[test]
fn threat_19_requests_that_make_no_sense_are_served() {
    let lab = lab(40, 2);
    let real = lab.chain()[39].header.blocks[0];
    let senseless = [
        (fetch(5, 4), RefuseReason::InvalidRange),
        (fetch(0, 5), RefuseReason::InvalidRange),
        (fetch(u32::MAX, 0), RefuseReason::InvalidRange),
        (fetch(u32::MAX, u32::MAX), RefuseReason::Unavailable),
        (fetch(41, u32::MAX), RefuseReason::Unavailable),
        (blocks(Vec::new()), RefuseReason::InvalidRange),
        (blocks(vec![real; 1_001]), RefuseReason::TooMany),
        (blocks(vec![BlockRef { round: Round::ZERO, ..real }]), RefuseReason::InvalidReference),
        (blocks(vec![BlockRef { author: AuthorityIndex::new(4), ..real }]), RefuseReason::InvalidReference),
        (blocks(vec![BlockRef { author: AuthorityIndex::MAX, ..real }]), RefuseReason::InvalidReference),
        (blocks(vec![BlockRef { epoch: Epoch::new(2), ..real }]), RefuseReason::InvalidReference),
        (blocks(vec![BlockRef { epoch: Epoch::MAX, ..real }]), RefuseReason::InvalidReference),
    ];
    for (request, reason) in senseless {
        let mut world = World::new(Pace::default());
        let server = world.add(Config::default(), all(&lab));
        let from = world.add(Config::default(), first(&lab, 0));
        world.set_hostile(from);
        world.connect(server, from);
        world.run_until(SECOND, |_| false);
        let (refused, peer) = (world.traffic(server).refused, world.peer(from));
        world.ask(from, server, request.clone());
        world.run_until(SECOND, |_| false);
        assert_eq!(world.traffic(server).refused, refused + 1, "{request:?}");
        // Who keeps at it is disconnected; who only asks for what is not there is not.
        for _ in 0..10 {
            world.ask(from, server, request.clone());
        }
        world.run_until(SECOND, |_| false);
        let offences = world.disconnected(server);
        if reason == RefuseReason::Unavailable {
            assert!(offences.is_empty(), "{request:?}");
        } else {
            assert_eq!(offences, [(peer, Offence::InvalidRequests)], "{request:?}");
        }
    }
    // The far ends of what makes sense are answered.
    let mut world = World::new(Pace::default());
    let server = world.add(Config::default(), all(&lab));
    let from = world.add(Config::default(), first(&lab, 0));
    world.connect(server, from);
    world.set_hostile(from);
    let refused = world.traffic(server).refused;
    world.ask(from, server, fetch(1, u32::MAX));
    world.ask(from, server, Request::CommitInfo(CommitInfoQuery::ByIndex(CommitIndex::MAX)));
    world.run_until(SECOND, |_| false);
    assert_eq!(world.traffic(server).refused, refused);
    assert!(world.traffic(server).served_bytes > 0);
}

/// A request that could not be decoded counts as one that breaks the rules.
#[test]
fn threat_19_malformed_requests_are_borne_for_ever() {
    let lab = lab(10, 1);
    let mut scene = Scene::new(&lab, small(), 1, Vec::new());
    let from = scene.world.peer(scene.honest[0]);
    scene.world.set_hostile(scene.honest[0]);
    scene.pass(SECOND);
    for id in 0..20 {
        let id = soma_sync_core::event::InboundId::new((1 << 40) + id);
        let request = Err(RefuseReason::Malformed);
        scene.world.inject(scene.client, Event::RequestReceived { id, peer: from, request });
    }
    scene.pass(SECOND);
    assert_eq!(scene.offences(), [Offence::InvalidRequests]);
}

#[test]
fn threat_23_reconnecting_launders_a_score() {
    let lab = lab(120, 1);
    let mut scene = Scene::new(&lab, small(), 1, vec![soma_sync_sim::hostile::Manner::BadBlocks]);
    let hostile = scene.hostile[0];
    keep_reconnecting(&mut scene.world, hostile, scene.client, Duration::from_millis(100));
    scene.reach(MINUTE);
    // Commits to come, for which it could be asked: none. What it did is known all the same.
    scene.pass(10 * MINUTE);
    let peer = scene.world.peer(hostile);
    let status = scene.status();
    let record = status.peers.iter().find(|of| of.id == peer).unwrap();
    assert!((1..=5).contains(&record.offences), "{record:?}");
    assert_eq!(status.peers.len(), 2, "a record for each connection");
}

/// While it is banned, a peer that is connected again is neither asked nor believed.
#[test]
fn threat_23_a_ban_ends_with_the_connection() {
    let lab = lab(120, 1);
    let mut scene = Scene::new(&lab, small(), 0, vec![soma_sync_sim::hostile::Manner::BadBlocks]);
    let hostile = scene.hostile[0];
    keep_reconnecting(&mut scene.world, hostile, scene.client, Duration::from_millis(100));
    scene.pass(5 * SECOND);
    assert_eq!(scene.offences(), [Offence::BadBlock]);
    let before = scene.world.traffic(scene.client).requests;
    scene.pass(50 * SECOND);
    assert_eq!(scene.world.traffic(scene.client).requests, before, "it was asked while it was banned");
}

/// Twenty identities with as many unread answers each as they may have, until `serve_timeout`: something must be kept for
/// those who have nothing.
#[test]
fn threat_18_unread_answers_of_many_identities_fill_all_places() {
    use soma_sync_core::{request::FetchCommits, types::CommitRef};
    use soma_sync_sim::hostile::flood_requests;
    use std::time::Duration;
    let lab = lab(120, 1);
    let mut world = World::new(Pace::default());
    let server = world.add(Config::default(), all(&lab));
    let client = world.add(small(), first(&lab, 0));
    for _ in 0..20 {
        let from = world.add(Config::default(), all(&lab));
        world.connect(server, from);
        world.set_reads(from, false);
        let dear = Request::Commits(FetchCommits {
            start: index(1),
            end: index(120),
            max_bytes: u64::MAX,
            wait: Duration::ZERO,
            with_blocks: false,
        });
        flood_requests(&mut world, from, server, Duration::from_millis(2), vec![dear]);
    }
    world.run_until(SECOND, |_| false);
    world.connect(client, server);
    let tip: CommitRef = tip(&lab);
    let reached = world.run_until(10 * SECOND, |world| world.machine(client).status().certifiable == tip);
    assert!(reached, "at {} after ten seconds", world.machine(client).status().queued);
}
