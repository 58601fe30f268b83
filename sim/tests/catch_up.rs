//! Real machines on both ends of simulated links. Invariants are checked after every event.

mod common;

use bytes::Bytes;
use common::{Chain, MINUTE, certifiable, must_reach, observed, small_requests, world};
use soma_sync_core::{
    Config, Event,
    command::{Halt, Notice, Offence, Stall},
    config::Limits,
    payload::Payload,
    request::{Request, RequestFailure, ResponsePart},
    types::{CommitDigest, CommitIndex, CommitRef},
};
use soma_sync_sim::{
    chain::{ChainSpec, MadeCommit},
    world::{NodeId, Pace, Reply, World},
};
use std::time::Duration;

fn stalled(world: &World, node: NodeId, is: impl Fn(&Stall) -> bool) -> bool {
    world.notices(node).iter().any(|notice| matches!(notice, Notice::Stalled(stall) if is(stall)))
}

#[test]
fn every_gap_around_a_batch_is_closed() {
    let chain = Chain::of(42, 2);
    let config = Config { commit_sync_batch_size: 10, look_ahead_commits: 20, ..Config::default() };
    for held in [0, 1, 2, 19, 20, 21, 22, 23, 31, 32, 33, 41, 42] {
        let (mut world, client, _) = world(&chain, config.clone(), held, 1);
        must_reach(&mut world, client, chain.tip());
        assert!(world.disconnected(client).is_empty(), "an honest server was blamed at {held}");
    }
}

#[test]
fn a_node_says_that_it_is_synced_only_when_it_is() {
    let chain = Chain::of(30, 1);
    let (mut world, client, _) = world(&chain, Config::default(), 0, 2);
    assert!(world.run_until(MINUTE, |world| world.machine(client).status().synced));
    assert_eq!(certifiable(&world, client), chain.tip());
    assert!(world.notices(client).contains(&Notice::Synced { tip: chain.tip() }));
}

#[test]
fn epochs_of_few_commits_are_crossed() {
    let chain = Chain::of(24, 8);
    let config = Config { commit_sync_batch_size: 2, look_ahead_commits: 24, ..Config::default() };
    let (mut world, client, _) = world(&chain, config, 0, 3);
    must_reach(&mut world, client, chain.tip());
    assert!(world.disconnected(client).is_empty(), "{:?}", world.disconnected(client));
}

#[test]
fn many_servers_share_the_work() {
    let chain = Chain::of(200, 1);
    let config = Config { commit_sync_batch_size: 10, max_blocks_per_fetch: 50, ..Config::default() };
    let (mut world, client, _) = world(&chain, config, 0, 4);
    must_reach(&mut world, client, chain.tip());
    let status = world.machine(client).status();
    assert!(status.peers.iter().all(|peer| peer.served_bytes > 0), "{:#?}", status.peers);
}

#[test]
fn a_silent_server_beside_an_honest_one_only_costs_time() {
    let chain = Chain::of(120, 1);
    let (mut world, client, servers) = world(&chain, small_requests(), 0, 2);
    world.tamper(servers[0], |request, reply| match request {
        Request::Commits(_) | Request::Blocks(_) => Reply::Stuck(Vec::new()),
        Request::CommitInfo(_) | Request::Availability { .. } | Request::Push { .. } => reply,
    });
    must_reach(&mut world, client, chain.tip());
    assert!(world.disconnected(client).is_empty(), "silence proves nothing");
}

#[test]
fn an_inflated_claim_keeps_nobody_from_being_asked() {
    let chain = Chain::of(120, 1);
    let (mut world, client, servers) = world(&chain, Config::default(), 0, 2);
    world.tamper(servers[0], |request, reply| match request {
        Request::Availability { .. } => {
            let highest = CommitIndex::MAX;
            Reply::Parts(vec![ResponsePart::Availability { highest, lowest: CommitIndex::GENESIS }])
        }
        _ => reply,
    });
    must_reach(&mut world, client, chain.tip());
}

#[test]
fn a_server_on_another_chain_is_refused_at_the_link() {
    let chain = Chain::of(12, 1);
    let other = Chain::make(ChainSpec {
        commits: 12,
        blocks_per_commit: 5,
        payload_bytes: 64,
        committee: 4,
        epochs: 1,
        seed: 2,
    });
    let (mut world, client, _) = world(&chain, Config::default(), 0, 0);
    let foreign = world.add(Config::default(), other.all());
    world.connect(client, foreign);
    let peer = world.peer(foreign);
    assert!(world.run_until(MINUTE, |world| world.disconnected(client) == [(peer, Offence::OtherChain)]));
    assert_eq!(world.store(client).tip(), CommitRef::GENESIS);
}

#[test]
fn a_claim_of_a_lowest_above_the_highest_is_an_offence() {
    let chain = Chain::of(12, 1);
    let (mut world, client, servers) = world(&chain, Config::default(), 0, 1);
    world.tamper(servers[0], |request, reply| match request {
        Request::Availability { .. } => Reply::Parts(vec![ResponsePart::Availability {
            highest: CommitIndex::new(3),
            lowest: CommitIndex::new(4),
        }]),
        _ => reply,
    });
    let peer = world.peer(servers[0]);
    assert!(
        world
            .run_until(MINUTE, |world| world.disconnected(client) == [(peer, Offence::InvertedAvailability)])
    );
}

/// Makes a server change every message of its answers.
fn change_parts(world: &mut World, server: NodeId, change: impl Fn(&mut ResponsePart) + 'static) {
    world.tamper(server, move |_, reply| match reply {
        Reply::Parts(mut parts) => {
            parts.iter_mut().for_each(&change);
            Reply::Parts(parts)
        }
        other => other,
    });
}

/// Flips the last bit of the last payload.
fn flip(payloads: &mut [Payload]) {
    if let Some(payload) = payloads.last_mut() {
        let mut bytes = payload.bytes().to_vec();
        *bytes.last_mut().unwrap() ^= 1;
        *payload = Payload::new(Bytes::from(bytes));
    }
}

#[test]
fn one_bad_block_costs_its_sender_and_keeps_the_good_ones() {
    let chain = Chain::of(60, 1);
    let (mut world, client, servers) = world(&chain, small_requests(), 0, 2);
    change_parts(&mut world, servers[0], |part| {
        if let ResponsePart::Blocks { blocks, .. } = part {
            flip(blocks);
        }
    });
    must_reach(&mut world, client, chain.tip());
    assert_eq!(world.disconnected(client), [(world.peer(servers[0]), Offence::BadBlock)]);
    let from_liar =
        world.machine(client).status().peers.iter().find(|peer| peer.offences > 0).unwrap().served_bytes;
    assert!(from_liar > 0, "what was good in a bad answer is kept");
}

#[test]
fn commits_that_are_no_chain_cost_their_sender() {
    let chain = Chain::of(60, 1);
    let (mut world, client, servers) = world(&chain, small_requests(), 0, 2);
    change_parts(&mut world, servers[0], |part| {
        if let ResponsePart::Commits { commits, .. } = part {
            flip(commits);
        }
    });
    must_reach(&mut world, client, chain.tip());
    assert_eq!(world.disconnected(client), [(world.peer(servers[0]), Offence::BadCommits)]);
}

#[test]
fn an_answer_of_another_kind_is_an_offence() {
    let chain = Chain::of(20, 1);
    let (mut world, client, servers) = world(&chain, small_requests(), 0, 2);
    world.tamper(servers[0], |request, reply| match request {
        Request::Commits(_) => Reply::Parts(vec![ResponsePart::Push { timestamp_ms: 0 }]),
        _ => reply,
    });
    must_reach(&mut world, client, chain.tip());
    assert_eq!(world.disconnected(client), [(world.peer(servers[0]), Offence::WrongKind)]);
}

#[test]
fn more_blocks_than_were_asked_for_are_an_offence() {
    let chain = Chain::of(20, 1);
    let (mut world, client, servers) = world(&chain, small_requests(), 0, 2);
    change_parts(&mut world, servers[0], |part| {
        if let ResponsePart::Blocks { blocks, .. } = part {
            blocks.extend_from_within(..);
        }
    });
    must_reach(&mut world, client, chain.tip());
    assert_eq!(world.disconnected(client), [(world.peer(servers[0]), Offence::TooMuch)]);
}

#[test]
fn a_truncated_answer_is_kept_and_the_rest_is_asked_for_elsewhere() {
    let chain = Chain::of(60, 1);
    let (mut world, client, servers) = world(&chain, small_requests(), 0, 2);
    world.tamper(servers[0], |request, reply| match (request, reply) {
        (Request::Blocks(_), Reply::Parts(mut parts)) => {
            if let Some(ResponsePart::Blocks { blocks, .. }) = parts.last_mut() {
                blocks.truncate(blocks.len() / 2);
            }
            Reply::Broken(parts, RequestFailure::Reset)
        }
        (_, other) => other,
    });
    must_reach(&mut world, client, chain.tip());
    assert!(world.disconnected(client).is_empty());
    let status = world.machine(client).status();
    let truncating = status.peers.iter().find(|peer| peer.id == world.peer(servers[0])).unwrap();
    assert!(truncating.served_bytes > 0, "what came of a truncated answer was not kept");
}

#[test]
fn a_server_that_lacks_blocks_is_passed_over_without_blame() {
    let chain = Chain::of(60, 1);
    let (mut world, client, servers) = world(&chain, small_requests(), 0, 2);
    change_parts(&mut world, servers[0], |part| {
        if let ResponsePart::Blocks { blocks, missing, buffer_bytes } = part {
            *missing = (0..blocks.len() as u32).collect();
            blocks.clear();
            *buffer_bytes = 0;
        }
    });
    must_reach(&mut world, client, chain.tip());
    assert!(world.disconnected(client).is_empty());
}

#[test]
fn a_lost_peer_in_mid_sync_is_made_up_for() {
    let chain = Chain::of(200, 2);
    let config = Config { commit_sync_batch_size: 10, ..Config::default() };
    let (mut world, client, servers) = world(&chain, config, 0, 2);
    assert!(world.run_until(MINUTE, |world| certifiable(world, client).index >= CommitIndex::new(20)));
    world.disconnect(client, servers[0]);
    must_reach(&mut world, client, chain.tip());
}

#[test]
fn pruned_history_is_a_reported_stall_and_no_loop() {
    let chain = Chain::of(60, 1);
    let mut pruned = chain.all();
    pruned.prune(CommitIndex::new(30));
    let (mut world, client, _) = world(&chain, Config::default(), 10, 0);
    let server = world.add(Config::default(), pruned);
    world.connect(client, server);
    let stall = Stall::NoProvider { next: CommitIndex::new(11), lowest_seen: CommitIndex::new(30) };
    assert!(world.run_until(MINUTE, |world| stalled(world, client, |is| *is == stall)));
    let before = world.events();
    assert!(!world.run_until(MINUTE, |_| false));
    assert!(world.events() - before < 600, "it spins: {} events in a minute", world.events() - before);
    assert_eq!(world.machine(client).status().stall, Some(stall));

    let archive = world.add(Config::default(), chain.all());
    world.connect(client, archive);
    must_reach(&mut world, client, chain.tip());
    assert!(world.notices(client).contains(&Notice::Resumed));
}

#[test]
fn a_tiny_budget_is_kept_and_the_tip_is_still_reached() {
    let chain = Chain::make(ChainSpec {
        commits: 40,
        blocks_per_commit: 40,
        payload_bytes: 2048,
        committee: 4,
        epochs: 2,
        seed: 3,
    });
    let limits = Limits { max_block_bytes: 4096, max_blocks_per_commit: 100, ..Limits::default() };
    let config = Config {
        limits,
        max_fetch_response_bytes: 64 * 1024,
        max_store_batch_bytes: 64 * 1024,
        ..Config::default()
    };
    let config = Config { max_buffered_bytes: config.frontier_bytes() * 2, ..config };
    let (mut world, client, _) = world(&chain, config.clone(), 0, 2);
    must_reach(&mut world, client, chain.tip());
    let status = world.machine(client).status();
    assert!(status.buffered_bytes_peak <= config.max_buffered_bytes);
    assert!(
        status.buffered_bytes_peak > config.max_buffered_bytes / 2,
        "the budget was never put to the test"
    );
}

#[test]
fn a_commit_larger_than_the_budget_is_staged_block_by_block() {
    let chain = Chain::make(ChainSpec {
        commits: 6,
        blocks_per_commit: 200,
        payload_bytes: 3000,
        committee: 4,
        epochs: 1,
        seed: 4,
    });
    let limits = Limits { max_block_bytes: 4096, max_blocks_per_commit: 300, ..Limits::default() };
    let config = Config { limits, max_fetch_response_bytes: 64 * 1024, ..Config::default() };
    let config = Config { max_buffered_bytes: config.frontier_bytes() * 2, ..config };
    assert!(config.max_buffered_bytes < 200 * 3000, "the commit must not fit");
    let (mut world, client, _) = world(&chain, config, 0, 1);
    must_reach(&mut world, client, chain.tip());
    assert!(world.machine(client).status().counters.staged > 0);
}

#[test]
fn a_store_that_fails_is_reported_and_gets_everything_again_once_reopened() {
    let chain = Chain::of(120, 2);
    let config = Config { commit_sync_batch_size: 10, ..Config::default() };
    let (mut world, client, _) = world(&chain, config, 0, 2);
    assert!(world.run_until(MINUTE, |world| certifiable(world, client).index >= CommitIndex::new(20)));
    world.fail_store(client, true);
    assert!(world.run_until(MINUTE, |world| world.machine(client).status().stall == Some(Stall::Storage)));
    world.fail_store(client, false);
    must_reach(&mut world, client, chain.tip());
    assert!(world.disconnected(client).is_empty(), "a local fault costs nobody anything");
}

#[test]
fn a_pinned_commit_that_the_chain_contradicts_halts() {
    let chain = Chain::of(40, 1);
    let pinned = CommitRef { index: CommitIndex::new(17), digest: CommitDigest::new([9; 32]) };
    let config = Config { pinned_commits: vec![pinned], ..Config::default() };
    let (mut world, client, _) = world(&chain, config, 0, 1);
    assert!(world.run_until(MINUTE, |world| world.machine(client).status().halted.is_some()));
    let halted = *world.machine(client).status().halted.unwrap();
    assert!(matches!(halted, Halt::PinnedContradicted { pinned: p, .. } if p == pinned), "{halted:?}");
    assert!(world.store(client).tip().index < pinned.index);
    assert!(world.disconnected(client).is_empty());
}

#[test]
fn a_pinned_commit_that_is_on_the_chain_changes_nothing() {
    let chain = Chain::of(40, 1);
    let config = Config { pinned_commits: vec![chain.commits[16].header.reference], ..Config::default() };
    let (mut world, client, _) = world(&chain, config, 0, 1);
    must_reach(&mut world, client, chain.tip());
}

fn votes(made: &MadeCommit) -> Event {
    Event::VotesObserved { blocks: made.certifiers.iter().map(|block| block.payload.clone()).collect() }
}

#[test]
fn what_our_own_consensus_makes_is_stored_served_and_followed() {
    let chain = Chain::of(60, 2);
    let mut world = World::new(Pace::default());
    let validator = world.add(Config::default(), chain.first(0));
    let follower = world.add(Config::default(), chain.first(0));
    world.connect(validator, follower);
    for made in &chain.commits {
        world.inject(validator, observed(made));
        world.inject(validator, votes(made));
        let index = made.header.reference.index;
        assert!(world.run_until(MINUTE, |world| certifiable(world, validator).index >= index));
    }
    must_reach(&mut world, follower, chain.tip());
}

#[test]
fn observed_commits_that_come_faster_than_they_are_decoded_keep_their_order() {
    let chain = Chain::of(60, 1);
    let (mut world, validator, _) = world(&chain, Config::default(), 0, 0);
    for made in &chain.commits {
        world.inject(validator, observed(made));
    }
    assert!(world.run_until(MINUTE, |world| world.store(validator).tip() == chain.tip()));
    let certifiable_before = certifiable(&world, validator);
    assert!(
        certifiable_before.index < chain.tip().index,
        "without the last votes the tip cannot be certified"
    );
    world.inject(validator, votes(chain.commits.last().unwrap()));
    must_reach(&mut world, validator, chain.tip());
}

#[test]
fn a_commit_seen_twice_is_stored_once_and_one_from_afar_is_a_hint() {
    let chain = Chain::of(20, 1);
    let (mut world, validator, _) = world(&chain, Config::default(), 10, 0);
    for at in [9, 10, 10, 9, 15, 11] {
        world.inject(validator, observed(&chain.commits[at]));
    }
    world.run_until(MINUTE, |_| false);
    assert_eq!(world.store(validator).tip(), chain.commits[11].header.reference);
}

#[test]
fn observing_while_fetching_the_same_commits_ends_in_the_one_chain() {
    let chain = Chain::of(100, 2);
    let config = Config { commit_sync_batch_size: 7, ..Config::default() };
    let (mut world, client, _) = world(&chain, config, 0, 2);
    for made in &chain.commits {
        world.inject(client, observed(made));
        world.run_until(Duration::from_millis(3), |_| false);
    }
    must_reach(&mut world, client, chain.tip());
    assert!(world.disconnected(client).is_empty());
}

#[test]
fn another_commit_of_our_own_at_a_stored_index_is_a_fork() {
    let chain = Chain::of(20, 1);
    let other = Chain::make(ChainSpec {
        commits: 20,
        blocks_per_commit: 5,
        payload_bytes: 65,
        committee: 4,
        epochs: 1,
        seed: 1,
    });
    let (mut world, validator, _) = world(&chain, Config::default(), 10, 0);
    world.inject(validator, observed(&other.commits[9]));
    assert!(world.run_until(MINUTE, |world| world.machine(validator).status().halted.is_some()));
    let halted = *world.machine(validator).status().halted.unwrap();
    assert!(
        matches!(halted, Halt::Fork { ours, .. } if ours == chain.commits[9].header.reference),
        "{halted:?}"
    );
}

#[test]
fn a_restart_goes_on_from_what_was_stored() {
    let chain = Chain::of(150, 3);
    let config = Config { commit_sync_batch_size: 10, ..Config::default() };
    let (mut world, client, servers) = world(&chain, config.clone(), 0, 1);
    assert!(world.run_until(MINUTE, |world| certifiable(world, client).index >= CommitIndex::new(40)));
    let stored = world.store(client).clone();
    let again = world.add(config, stored);
    world.connect(again, servers[0]);
    must_reach(&mut world, again, chain.tip());
}

#[test]
fn a_node_that_synced_serves_the_next_one_to_the_last_commit() {
    let chain = Chain::of(130, 2);
    let (mut world, client, servers) = world(&chain, Config::default(), 0, 1);
    must_reach(&mut world, client, chain.tip());
    world.disconnect(client, servers[0]);
    let third = world.add(Config::default(), chain.first(0));
    world.connect(third, client);
    must_reach(&mut world, third, chain.tip());
}

#[test]
fn the_same_events_lead_to_the_same_machine() {
    let chain = Chain::of(60, 2);
    let mut world = World::new(Pace::default());
    let client = world.add(small_requests(), chain.first(0));
    let before = world.machine(client).clone();
    world.record(client);
    for _ in 0..3 {
        let server = world.add(Config::default(), chain.all());
        world.connect(client, server);
    }
    must_reach(&mut world, client, chain.tip());
    let mut again = before;
    for (now, event) in world.recorded(client) {
        again.handle(*now, event.clone());
        while again.poll_command().is_some() {}
    }
    assert_eq!(&again, world.machine(client));
}
