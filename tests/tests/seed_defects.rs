//! Defects of the 2025 implementation that this project takes the place of, by their numbers (threats: Defects of the
//! system in the seed): ours is shown not to have them.
//!
//! What a number is about may live below the machine; these are shown beside the code that it is about:
//!
//! | # | test |
//! | --- | --- |
//! | 17 | `runtime-tokio`, `serve::tests::messages_are_larger_than_a_part_or_smaller_than_they_need_be`, and `an_item_larger_than_a_part_is_not_sent` |
//! | 18 | `soma-sync-proto`, `messages::a_reference_of_another_length_is_refused`, and `a_digest_of_another_length_is_refused` |
//! | 12, 22 (blocks in memory, certifiers in one message) | `runtime-tokio`, `serve::tests::an_answer_is_larger_than_allowed_or_shorter_than_it_could_be` |

mod scene;

use scene::{MINUTE, SECOND, Scene, all, fetch, first, honest_time, index, lab, lab_of, small, tip};
use soma_sync_core::{
    Config, Event,
    block::EndOfEpochData,
    command::{Halt, Offence, Stall},
    committee::ValidatorSet,
    config::Limits,
    request::{FetchBlocks, Request, ResponsePart},
    types::{AuthorityIndex, BlockDigest, BlockRef, CommitIndex, CommitRef, Epoch, Stake},
};
use soma_sync_sim::{
    chain::ChainSpec,
    hostile::{Lab, Manner, misbehave},
    world::{ChainStore, NodeId, Pace, Reply, World},
};
use std::{
    cell::{Cell, RefCell},
    collections::BTreeMap,
    rc::Rc,
};

/// Makes a server tell what it is asked, and answer as it would.
fn listen(world: &mut World, server: NodeId) -> Rc<RefCell<Vec<Request>>> {
    let heard = Rc::new(RefCell::new(Vec::new()));
    let hearing = Rc::clone(&heard);
    world.tamper(server, move |request, reply| {
        hearing.borrow_mut().push(request.clone());
        reply
    });
    heard
}

/// One answer of commits in one message.
fn commits_part(
    commits: Vec<soma_sync_core::payload::Payload>,
    certifiers: Vec<soma_sync_core::payload::Payload>,
) -> Reply {
    let buffer_bytes = commits.iter().chain(&certifiers).map(|payload| payload.len() as u64).sum();
    Reply::Parts(vec![ResponsePart::Commits { commits, certifiers, blocks: Vec::new(), buffer_bytes }])
}

/// A server that one stranger asks one thing; what the server refused, and the bytes that it sent.
fn asked(lab: &Lab, request: Request) -> (u64, u64) {
    let mut world = World::new(Pace::default());
    let server = world.add(Config::default(), all(lab));
    let stranger = world.add(Config::default(), all(lab));
    world.connect(server, stranger);
    world.run_until(SECOND, |_| false);
    let before = world.traffic(server);
    world.ask(stranger, server, request);
    world.run_until(SECOND, |_| false);
    let after = world.traffic(server);
    (after.refused - before.refused, after.served_bytes - before.served_bytes)
}

#[test]
fn seed_defect_01_one_inflated_claim_makes_every_honest_peer_ineligible() {
    let lab = lab(60, 1);
    // The one with the claim delivers nothing.
    let mut scene = Scene::new(&lab, small(), 1, Vec::new());
    let liar = scene.world.add(Config::default(), all(&lab));
    let manners = vec![Manner::InflatedHeight, Manner::PrunedButAdvertised];
    misbehave(&mut scene.world, liar, manners, &lab);
    scene.world.connect(scene.client, liar);
    let took = scene.reach(MINUTE);
    assert!(took <= 5 * honest_time(&lab, small(), 1), "{took:?}");
}

#[test]
fn seed_defect_02_a_peers_lowest_is_held_against_the_target_and_not_the_next_commit() {
    let lab = lab(60, 1);
    let mut scene = Scene::new(&lab, small(), 0, Vec::new());
    let mut pruned = all(&lab);
    pruned.prune(index(31));
    let short = scene.world.add(Config::default(), pruned);
    let heard = listen(&mut scene.world, short);
    scene.world.connect(scene.client, short);
    scene.add_honest();
    scene.reach(MINUTE);
    let below = |request: &Request| match request {
        Request::Commits(fetch) => fetch.start < index(31),
        Request::Blocks(fetch) => fetch
            .refs
            .iter()
            .any(|wanted| lab.chain()[..30].iter().any(|made| made.header.blocks.contains(wanted))),
        Request::CommitInfo(_) | Request::Availability { .. } | Request::Push { .. } => false,
    };
    assert!(!heard.borrow().iter().any(below), "it was asked for what it says it has not");
}

#[test]
fn seed_defect_03_the_same_work_is_begun_again_at_every_turn() {
    let lab = lab(100, 1);
    let mut scene = Scene::new(&lab, small(), 0, Vec::new());
    let server = scene.world.add(Config::default(), all(&lab));
    let heard = listen(&mut scene.world, server);
    scene.world.connect(scene.client, server);
    scene.reach(MINUTE);
    let mut asked = BTreeMap::new();
    for request in heard.borrow().iter() {
        match request {
            Request::Commits(fetch) => *asked.entry(format!("commits {}", fetch.start)).or_insert(0) += 1,
            Request::Blocks(fetch) => {
                fetch.refs.iter().for_each(|block| *asked.entry(format!("{block}")).or_insert(0) += 1);
            }
            Request::CommitInfo(_) | Request::Availability { .. } | Request::Push { .. } => {}
        }
    }
    let twice: Vec<_> = asked.iter().filter(|(_, times)| **times > 1).collect();
    assert!(asked.len() > 100 && twice.is_empty(), "{twice:?}");
}

#[test]
fn seed_defect_04_an_epoch_that_nobody_signed_makes_the_node_wait_on_the_same_peer() {
    let lab = lab(60, 2);
    let mut scene = Scene::new(&lab, small(), 1, vec![Manner::FarEpoch; 3]);
    let took = scene.reach(MINUTE);
    assert!(took <= 5 * honest_time(&lab, small(), 1), "{took:?}");
    assert!(scene.status().stall.is_none());
}

/// The committee of the epoch before is known, and has signed what is not of its epoch.
#[test]
fn seed_defect_05_certifiers_count_under_their_own_epochs_committee() {
    let lab = lab(40, 2);
    let mut world = World::new(Pace::default());
    world.judged_by(lab.chain());
    let client = world.add(small(), first(&lab, 20));
    let server = world.add(Config::default(), all(&lab));
    let forger = Rc::clone(&lab);
    world.tamper(server, move |request, reply| {
        let Request::Commits(fetch) = request else { return reply };
        let change = |commit: &mut soma_sync_core::commit::Commit| commit.timestamp_ms += 1;
        let Some((last, commits)) = forger.forged(fetch.start, fetch.start, change) else { return reply };
        let before = Epoch::ZERO;
        commits_part(commits, forger.votes(last, before, before, &[0, 1, 2, 3]))
    });
    world.connect(client, server);
    let peer = world.peer(server);
    assert!(world.run_until(MINUTE, |world| world.disconnected(client) == [(peer, Offence::BadCommits)]));
    assert_eq!(world.store(client).tip(), lab.chain()[19].header.reference);
}

#[test]
fn seed_defect_06_the_first_commit_of_an_answer_is_not_linked_to_our_tip() {
    let lab = lab(40, 1);
    let mut world = World::new(Pace::default());
    world.judged_by(lab.chain());
    let client = world.add(small(), first(&lab, 10));
    let server = world.add(Config::default(), ChainStore::of(lab.genesis().clone(), lab.fork()));
    world.set_hostile(server);
    world.connect(client, server);
    world.run_until(MINUTE, |_| false);
    let halted = world.machine(client).status().halted;
    assert!(
        matches!(halted.as_deref(), Some(Halt::Fork { ours, .. }) if *ours == lab.chain()[9].header.reference)
    );
}

#[test]
fn seed_defect_07_a_fetch_has_no_deadline() {
    let lab = lab(60, 1);
    let mut scene = Scene::new(&lab, small(), 0, vec![Manner::Silent]);
    scene.pass(MINUTE);
    assert!(scene.status().counters.timeouts > 0);
    assert_eq!(scene.status().queued, CommitRef::GENESIS);
    scene.add_honest();
    scene.reach(MINUTE);
}

#[test]
fn seed_defect_08_what_legitimately_passes_a_message_is_thrown_away_for_ever() {
    let spec = ChainSpec {
        commits: 12,
        blocks_per_commit: 5,
        payload_bytes: 300_000,
        committee: 4,
        epochs: 1,
        seed: 1,
    };
    let lab = lab_of(spec);
    let limits = Limits { max_block_bytes: 512 * 1024, max_blocks_per_commit: 100, ..Limits::default() };
    let config = Config { limits, max_fetch_response_bytes: 64 * 1024, ..Config::default() };
    let mut scene = Scene::new(&lab, config, 1, Vec::new());
    scene.reach(MINUTE);
}

#[test]
fn seed_defect_09_the_byte_cap_is_for_each_message_and_not_for_all() {
    let lab = lab(60, 1);
    let mut scene = Scene::new(&lab, small(), 1, Vec::new());
    let hostile = scene.world.add(Config::default(), all(&lab));
    let made = Rc::clone(&lab);
    scene.world.tamper(hostile, move |request, reply| {
        let Request::Commits(fetch) = request else { return reply };
        let at = fetch.start.get() as usize - 1;
        // Each message is within its cap, and none of them is wrong.
        let parts = made.chain().iter().skip(at).take(10).map(|made| ResponsePart::Commits {
            commits: vec![made.header.payload.clone()],
            certifiers: Vec::new(),
            blocks: Vec::new(),
            buffer_bytes: 1 << 20,
        });
        Reply::Parts(parts.collect())
    });
    scene.world.connect(scene.client, hostile);
    scene.reach(MINUTE);
    assert_eq!(scene.offences(), [Offence::TooMuch]);
    assert!(scene.status().buffered_bytes_peak <= small().max_buffered_bytes);
}

#[test]
fn seed_defect_10_the_slowest_poll_holds_up_the_others_or_runs_many_times_over() {
    let lab = lab(60, 1);
    let mut scene = Scene::new(&lab, small(), 2, Vec::new());
    let slow = scene.world.add(Config::default(), all(&lab));
    let polls = Rc::new(Cell::new(0));
    let polled = Rc::clone(&polls);
    scene.world.tamper(slow, move |request, reply| match request {
        Request::Availability { .. } => {
            polled.set(polled.get() + 1);
            Reply::Stuck(Vec::new())
        }
        _ => reply,
    });
    scene.world.connect(scene.client, slow);
    let took = scene.reach(MINUTE);
    assert!(took <= 2 * honest_time(&lab, small(), 2), "{took:?}");
    let heard = listen(&mut scene.world, scene.honest[0]);
    polls.set(0);
    scene.pass(MINUTE);
    // The next one is sent when the one before is given up, after five seconds and more.
    assert!((1..=12).contains(&polls.get()), "{} polls in a minute", polls.get());
    let others =
        heard.borrow().iter().filter(|request| matches!(request, Request::Availability { .. })).count();
    assert!((10..=13).contains(&others), "{others} polls of another in a minute, every five seconds");
}

#[test]
fn seed_defect_11_a_number_from_the_network_is_an_index_into_an_array() {
    let lab = lab(40, 1);
    let real = lab.chain()[0].header.blocks[0];
    for author in [4, 5, 1_000, u32::MAX] {
        let refs = vec![BlockRef { author: AuthorityIndex::new(author), ..real }];
        let request = Request::Blocks(FetchBlocks { refs, max_bytes: u64::MAX });
        assert_eq!(asked(&lab, request), (1, 0), "author {author}");
    }
    // The same in what a client is answered: a certifier by nobody.
    let mut scene = Scene::new(&lab, small(), 1, Vec::new());
    let hostile = scene.world.add(Config::default(), all(&lab));
    let forger = Rc::clone(&lab);
    scene.world.tamper(hostile, move |request, reply| {
        let Request::Commits(fetch) = request else { return reply };
        let same = |_: &mut soma_sync_core::commit::Commit| {};
        let Some((last, commits)) = forger.forged(fetch.start, fetch.end, same) else { return reply };
        let by_nobody = |author| {
            let change = |block: &mut soma_sync_core::block::Block| {
                (block.author, block.votes) = (AuthorityIndex::new(author), vec![last]);
            };
            Some(forger.block(0, Epoch::ZERO, change)?.1)
        };
        commits_part(commits, [4, 1_000, u32::MAX].into_iter().filter_map(by_nobody).collect())
    });
    scene.world.connect(scene.client, hostile);
    scene.reach(MINUTE);
    assert_eq!(scene.offences(), [Offence::BadCommits]);
}

#[test]
fn seed_defect_12_what_may_be_asked_for_has_no_limit_or_overflows() {
    let lab = lab(40, 1);
    let real = lab.chain()[0].header.blocks[0];
    let many = Request::Blocks(FetchBlocks { refs: vec![real; 1_001], max_bytes: u64::MAX });
    assert_eq!(asked(&lab, many), (1, 0));
    for (start, end) in [(u32::MAX, u32::MAX), (u32::MAX - 1, u32::MAX), (41, u32::MAX)] {
        assert_eq!(asked(&lab, fetch(start, end)), (1, 0), "{start}..={end}");
    }
    // The other way about: a client whose peers claim all that there is.
    let mut scene = Scene::new(&lab, small(), 0, vec![Manner::InflatedHeight]);
    scene.reach(MINUTE);
}

#[test]
fn seed_defect_13_a_range_past_the_tip_is_answered_with_nothing() {
    let lab = lab(40, 1);
    let (refused, bytes) = asked(&lab, fetch(38, 137));
    let least: usize = lab.chain()[37..].iter().map(|made| made.header.payload.len()).sum();
    assert_eq!(refused, 0);
    assert!(bytes as usize >= least, "{bytes} bytes, and the commits have {least}");
}

#[test]
fn seed_defect_14_votes_are_counted_by_index_whatever_their_digest() {
    let lab = lab(60, 1);
    let mut scene = Scene::new(&lab, small(), 1, vec![Manner::WrongDigestVotes]);
    scene.reach(MINUTE);
    assert_eq!(scene.offences(), [Offence::BadCommits]);
}

#[test]
fn seed_defect_15_every_chain_passes_the_chain_check() {
    let (lab, foreign) = (lab(40, 1), 40);
    let mut scene = Scene::new(&lab, small(), 1, Vec::new());
    // Another chain altogether, whose genesis commit has the digest that all have.
    let other = lab_of(ChainSpec {
        commits: foreign,
        blocks_per_commit: 5,
        payload_bytes: 64,
        committee: 4,
        epochs: 1,
        seed: 2,
    });
    let node = scene.world.add(Config::default(), all(&other));
    scene.world.set_hostile(node);
    scene.world.connect(scene.client, node);
    scene.reach(MINUTE);
    // Whichever of the two finds out first.
    let charged = [scene.client, node].map(|of| scene.world.disconnected(of).to_vec()).concat();
    assert!(charged.iter().any(|(_, offence)| *offence == Offence::OtherChain), "{charged:?}");
}

#[test]
fn seed_defect_16_a_missing_block_or_a_gap_is_a_panic() {
    let lab = lab(40, 1);
    let real = lab.chain()[0].header.blocks[0];
    let unknown = BlockRef { digest: BlockDigest::new([7; 32]), ..real };
    let refs = vec![unknown, real, unknown];
    let (refused, bytes) = asked(&lab, Request::Blocks(FetchBlocks { refs, max_bytes: u64::MAX }));
    assert_eq!((refused, bytes as usize), (0, lab.chain()[0].blocks[0].payload.len()));
    // A client that is answered so, and one that is given commits with a gap.
    let mut scene = Scene::new(&lab, small(), 1, vec![Manner::LacksBlocks]);
    scene.reach(MINUTE);
    assert!(scene.offences().is_empty(), "to lack a block is no offence");
    let mut scene = Scene::new(&lab, small(), 0, Vec::new());
    let hostile = scene.world.add(Config::default(), all(&lab));
    scene.world.tamper(hostile, |_, reply| match reply {
        Reply::Parts(mut parts) => {
            for part in &mut parts {
                if let ResponsePart::Commits { commits, .. } = part
                    && commits.len() > 2
                {
                    commits.remove(1);
                }
            }
            Reply::Parts(parts)
        }
        other => other,
    });
    scene.world.connect(scene.client, hostile);
    scene.add_honest();
    scene.reach(MINUTE);
    assert_eq!(scene.offences(), [Offence::BadCommits]);
}

#[test]
fn seed_defect_19_a_node_that_has_just_synced_cannot_certify_its_last_commits() {
    let lab = lab(60, 3);
    let mut scene = Scene::new(&lab, small(), 1, Vec::new());
    scene.reach(MINUTE);
    let (from, client) = (scene.honest[0], scene.client);
    scene.world.disconnect(from, client);
    let third = scene.world.add(Config::default(), first(&lab, 0));
    scene.world.connect(third, client);
    let tip = tip(&lab);
    let reached = |world: &World| world.machine(third).status().certifiable == tip;
    assert!(scene.world.run_until(MINUTE, reached), "{:#?}", scene.world.machine(third).status());
}

#[test]
fn seed_defect_20_a_range_that_starts_above_its_end_crashes_the_server() {
    let lab = lab(40, 1);
    for (start, end) in [(2, 1), (40, 39), (u32::MAX, 0), (u32::MAX, u32::MAX - 1), (1, 0)] {
        assert_eq!(asked(&lab, fetch(start, end)), (1, 0), "{start}..={end}");
    }
}

#[test]
fn seed_defect_21_repeated_references_make_a_small_request_a_large_answer() {
    let lab = lab_of(ChainSpec {
        commits: 4,
        blocks_per_commit: 5,
        payload_bytes: 100_000,
        committee: 4,
        epochs: 1,
        seed: 1,
    });
    let refs = vec![lab.chain()[0].header.blocks[0]; 1_000];
    let (_, bytes) = asked(&lab, Request::Blocks(FetchBlocks { refs, max_bytes: u64::MAX }));
    // A hundred megabytes by count; the cap of one answer by bytes.
    assert!(bytes <= Config::default().answer_bytes(), "{bytes} bytes");
}

#[test]
fn seed_defect_22_the_certifiers_of_a_large_committee_never_fit() {
    let lab = lab_of(ChainSpec {
        commits: 8,
        blocks_per_commit: 40,
        payload_bytes: 20_000,
        committee: 40,
        epochs: 1,
        seed: 1,
    });
    let limits = Limits { max_block_bytes: 64 * 1024, max_blocks_per_commit: 100, ..Limits::default() };
    let config = Config { limits, max_fetch_response_bytes: 64 * 1024, ..Config::default() };
    assert!(27 * 20_000 > config.answer_bytes(), "they would fit");
    let mut scene = Scene::new(&lab, config, 1, Vec::new());
    scene.reach(MINUTE);
}

#[test]
fn seed_defect_23_one_bad_certifier_fails_the_whole_answer() {
    let lab = lab(60, 1);
    let mut scene = Scene::new(&lab, small(), 0, vec![Manner::BadCertifier]);
    scene.pass(5 * SECOND);
    assert_eq!(scene.offences(), [Offence::BadCertifier]);
    let status = scene.status();
    assert!(status.peers[0].served_commits > 0, "{status:#?}");
}

/// The oracle objects to a commit that is handed out twice, or out of order.
#[test]
fn seed_defect_24_commits_of_our_consensus_are_slow_or_delivered_again() {
    let lab = lab(100, 2);
    let mut scene = Scene::new(&lab, small(), 0, Vec::new());
    let client = scene.client;
    for made in lab.chain() {
        let blocks = made.blocks.iter().map(|block| block.payload.clone()).collect();
        let commit = made.header.payload.clone();
        scene.world.inject(client, Event::CommitObserved { commit, blocks });
    }
    // A job each, one after the other, and what storing takes.
    let done = |world: &World| world.machine(client).status().delivered == CommitIndex::new(100);
    assert!(scene.world.run_until(SECOND, done), "{:#?}", scene.status());
    assert_eq!(scene.world.store(client).tip(), tip(&lab));
}

/// The chain up to some commit, and then one that a quorum has signed and that ends the epoch with no committee.
#[test]
fn seed_defect_25_a_validator_set_that_is_none_crashes_the_node() {
    let lab = lab(20, 1);
    let genesis = lab.genesis().clone();
    let mut authorities: Vec<_> = genesis.authorities().map(|(_, authority)| authority.clone()).collect();
    authorities[0].stake = Stake::new(authorities[0].stake.get() - 1);
    let data = EndOfEpochData {
        next_epoch_start_timestamp_ms: 1,
        next_validator_set: Some(ValidatorSet { authorities }),
        state_hash: None,
        validator_set_signature: Some([1; 48]),
        aggregate_signature: Some([2; 48]),
    };
    let change = |block: &mut soma_sync_core::block::Block| block.end_of_epoch = Some(data);
    let (bad, payload) = lab.block(0, Epoch::ZERO, change).unwrap();

    let mut world = World::new(Pace::default());
    let client = world.add(small(), first(&lab, 10));
    let server = world.add(Config::default(), first(&lab, 11));
    let forger = Rc::clone(&lab);
    world.tamper(server, move |request, reply| match (request, reply) {
        (Request::Commits(fetch), reply) => {
            let name = |commit: &mut soma_sync_core::commit::Commit| commit.blocks.push(bad);
            let Some((last, commits)) = forger.forged(fetch.start, fetch.start, name) else { return reply };
            commits_part(commits, forger.votes(last, Epoch::ZERO, Epoch::ZERO, &[0, 1, 2, 3]))
        }
        (Request::Blocks(fetch), Reply::Parts(mut parts)) if fetch.refs.last() == Some(&bad) => {
            if let Some(ResponsePart::Blocks { blocks, missing, buffer_bytes }) = parts.last_mut() {
                missing.clear();
                blocks.push(payload.clone());
                *buffer_bytes += payload.len() as u64;
            }
            Reply::Parts(parts)
        }
        (_, reply) => reply,
    });
    world.connect(client, server);
    let told = |world: &World| {
        let status = world.machine(client).status();
        // A build that checks BLS signatures finds these wrong first, which is the committee's fault too.
        if cfg!(feature = "bls") {
            return matches!(status.halted.as_deref(), Some(Halt::CertifiedInvalid(_)));
        }
        matches!(status.stall, Some(Stall::InvalidCommittee { epoch, block, .. })
            if epoch == Epoch::new(1) && block == bad)
    };
    assert!(world.run_until(MINUTE, told), "{:#?}", world.machine(client).status());
    assert!(world.disconnected(client).is_empty(), "it is no peer's fault");
    let whole = if cfg!(feature = "bls") { index(10) } else { index(11) };
    let stored = |world: &World| world.store(client).tip().index == whole;
    assert!(world.run_until(MINUTE, stored), "the commit itself is good");
}
