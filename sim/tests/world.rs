//! The world itself: that it repeats, that its links do what they are told to, and that its oracle can object.

mod common;

use common::{Chain, MINUTE, certifiable, must_reach, small_requests};
use soma_sync_core::{
    Config,
    command::ServePlan,
    request::{Request, ResponsePart},
    types::{CommitIndex, CommitRange},
};
use soma_sync_sim::{
    chain::ChainSpec,
    world::{ChainStore, Link, NodeId, Pace, Reply, World, assert_repeats},
};
use std::time::Duration;

const JITTERY: Link = Link {
    latency: Duration::from_millis(20),
    jitter: Duration::from_millis(30),
    bandwidth: 5_000_000,
    loss_per_million: 50_000,
};

/// A client and servers over links of this kind, in both directions.
fn linked(chain: &Chain, link: Link, servers: usize, seed: u64) -> (World, NodeId, Vec<NodeId>) {
    let mut world = World::seeded(Pace::default(), seed);
    world.judged_by(&chain.commits);
    let client = world.add(small_requests(), chain.first(0));
    let servers: Vec<_> = (0..servers).map(|_| world.add(Config::default(), chain.all())).collect();
    for server in &servers {
        world.set_link(client, *server, link);
        world.set_link(*server, client, link);
        world.connect(client, *server);
    }
    (world, client, servers)
}

#[test]
fn the_same_world_goes_the_same_way_and_another_seed_another() {
    let chain = Chain::of(60, 2);
    let run = |seed| {
        let (mut world, client, _) = linked(&chain, JITTERY, 3, seed);
        must_reach(&mut world, client, chain.tip());
        world
    };
    let first = assert_repeats(|| run(1)).hash();
    assert_ne!(first, run(2).hash(), "nothing is drawn from the seed");
}

#[test]
fn lost_streams_are_seen_as_resets_and_made_up_for() {
    let chain = Chain::of(60, 2);
    let lossy = Link { loss_per_million: 300_000, ..JITTERY };
    let (mut world, client, _) = linked(&chain, lossy, 3, 7);
    must_reach(&mut world, client, chain.tip());
    let clean = {
        let (mut world, client, _) = linked(&chain, Link { loss_per_million: 0, ..JITTERY }, 3, 7);
        must_reach(&mut world, client, chain.tip());
        world
    };
    let requests = |world: &World| world.traffic(client).data_requests;
    assert!(requests(&world) > requests(&clean), "no stream was lost");
}

#[test]
fn nothing_arrives_over_a_partition_and_all_goes_on_after_it() {
    let chain = Chain::of(200, 1);
    let (mut world, client, _) = linked(&chain, JITTERY, 2, 3);
    assert!(world.run_until(MINUTE, |world| certifiable(world, client).index >= CommitIndex::new(20)));
    world.isolate(client, true);
    // What was on its way arrives.
    world.run_until(Duration::from_secs(5), |_| false);
    let before = certifiable(&world, client);
    world.run_until(MINUTE, |_| false);
    assert_eq!(certifiable(&world, client), before);
    world.isolate(client, false);
    assert!(world.run_until(3 * MINUTE, |world| certifiable(world, client) == chain.tip()));
}

#[test]
fn the_bandwidth_of_a_link_is_that_of_all_its_streams_together() {
    let chain = Chain::make(ChainSpec {
        commits: 50,
        blocks_per_commit: 5,
        payload_bytes: 10_000,
        committee: 4,
        epochs: 1,
        seed: 1,
    });
    let narrow = Link { jitter: Duration::ZERO, loss_per_million: 0, bandwidth: 1_000_000, ..JITTERY };
    let (mut world, client, _) = linked(&chain, narrow, 1, 0);
    must_reach(&mut world, client, chain.tip());
    let least = Duration::from_micros(world.traffic(client).needed_bytes);
    let took = Duration::from_micros(world.now().as_micros());
    assert!(took >= least, "{took:?} for what takes {least:?}");
}

/// A request that is given up stops its answer: what was not sent yet is not sent.
#[test]
fn a_cancelled_request_stops_the_rest_of_its_answer() {
    let chain = Chain::of(100, 1);
    let (mut world, client, servers) = linked(&chain, JITTERY, 1, 0);
    world.tamper(servers[0], |request, reply| match (request, reply) {
        // More messages than will ever be read: the first one is an offence, or the request's time is up.
        (Request::Blocks(_), Reply::Parts(parts)) => {
            let one = parts.first().cloned().into_iter().cycle().take(1_000);
            Reply::Paced(one.map(|part| (Duration::from_millis(1), part)).collect())
        }
        (_, other) => other,
    });
    world.run_until(Duration::from_secs(20), |_| false);
    let traffic = world.traffic(client);
    assert!(traffic.cancelled > 0 && traffic.late_bytes > 0, "{traffic:?}");
    assert!(traffic.late_bytes < traffic.fetched_bytes, "{traffic:?}");
}

/// Long polls carry the blocks in the same answer: after the certifiers, in commit order, as many as fit.
#[test]
fn blocks_follow_the_commits_where_they_were_asked_for() {
    let chain = Chain::of(10, 1);
    let range = CommitRange::new(CommitIndex::new(3), CommitIndex::new(6)).unwrap();
    let plan =
        |max_bytes, with_blocks| ServePlan::Commits { range, last: range.end(), max_bytes, with_blocks };
    let sent = |plan: ServePlan| {
        let (mut sent, mut bytes, mut sums) = (Vec::new(), 0, [0; 2]);
        for part in chain.all().serve(&plan).unwrap() {
            let ResponsePart::Commits { commits, certifiers, blocks, buffer_bytes } = part else { panic!() };
            assert!(sent.is_empty() || commits.is_empty() && certifiers.is_empty(), "blocks come last");
            sums[0] += commits.len();
            sums[1] += certifiers.len();
            bytes += buffer_bytes;
            sent.extend(blocks);
        }
        (sent, bytes, sums)
    };
    let expected: Vec<_> = chain.commits[2..6].iter().flat_map(|made| &made.blocks).collect();
    let (all, bytes, [commits, _]) = sent(plan(u64::MAX, true));
    assert_eq!((all.len(), commits), (expected.len(), 4));
    assert!(all.iter().zip(&expected).all(|(sent, made)| sent.bytes() == made.payload.bytes()));
    let (fewer, less, _) = sent(plan(bytes - 1, true));
    assert_eq!(fewer.len(), all.len() - 1, "the last block does not fit");
    assert!(less < bytes);
    assert!(sent(plan(u64::MAX, false)).0.is_empty());
}

#[test]
fn a_restarted_node_begins_from_what_was_durable() {
    let chain = Chain::of(200, 3);
    for kept in 0..3 {
        let (mut world, client, servers) = linked(&chain, JITTERY, 2, 5);
        assert!(world.run_until(MINUTE, |world| certifiable(world, client).index >= CommitIndex::new(50)));
        let durable = world.store(client).tip();
        world.restart(client, kept);
        assert!(world.store(client).tip().index >= durable.index);
        assert_eq!(world.machine(client).status().queued, world.store(client).tip());
        servers.iter().for_each(|server| world.connect(client, *server));
        must_reach(&mut world, client, chain.tip());
    }
}

#[test]
#[should_panic(expected = "which nobody made")]
fn a_node_that_stores_another_chain_is_found_out() {
    let (chain, other) = (Chain::of(20, 1), Chain::of(20, 2));
    let mut world = World::new(Pace::default());
    world.judged_by(&other.commits);
    let client = world.add(Config::default(), ChainStore::of(chain.genesis.clone(), &chain.commits[..5]));
    let server = world.add(Config::default(), chain.all());
    world.set_hostile(server);
    world.connect(client, server);
    world.run_until(MINUTE, |_| false);
}

#[test]
fn a_slow_disk_and_slow_workers_take_their_time() {
    let chain = Chain::of(60, 2);
    let run = |job, store| {
        let clean = Link { loss_per_million: 0, ..JITTERY };
        let (mut world, client, _) = linked(&chain, clean, 2, 5);
        world.set_pace(client, Duration::from_millis(job), Duration::from_millis(store));
        must_reach(&mut world, client, chain.tip());
        world.now().as_micros() / 1_000
    };
    let usual = run(1, 2);
    assert!(run(500, 2) >= usual + 500, "jobs take no time");
    assert!(run(1, 1_000) >= 1_000 && run(1, 1_000) > usual, "storing takes no time");
}

/// Ids of requests begin anew in each life, so what was asked before must not be answered after.
#[test]
fn an_earlier_life_s_request_is_answered_in_the_next() {
    let chain = Chain::of(60, 2);
    for pause in [3, 7, 11, 15, 19, 23, 29, 37, 41] {
        let link = Link { latency: Duration::from_millis(9), ..JITTERY };
        let (mut world, client, servers) = linked(&chain, link, 2, pause);
        for _ in 0..20 {
            world.run_until(Duration::from_millis(pause), |_| false);
            world.restart(client, 0);
            servers.iter().for_each(|server| world.connect(client, *server));
        }
        must_reach(&mut world, client, chain.tip());
    }
}
