//! Boundary values that have broken others (threats: Boundary values), as tables. The oracle watches all of them.

mod scene;

use scene::{MINUTE, SECOND, Scene, all, first, index, lab, lab_of, small, tip};
use soma_sync_core::{
    Config,
    command::{Offence, ServePlan},
    config::Limits,
    request::{FetchBlocks, Request, ResponsePart},
    types::{CommitIndex, CommitRange, CommitRef, Epoch},
};
use soma_sync_sim::{
    chain::ChainSpec,
    hostile::Lab,
    world::{NodeId, Pace, Reply, World},
};
use std::rc::Rc;

/// From so many commits held, with batches and a window of such sizes, to the tip.
#[test]
fn a_gap_around_a_batch_or_the_window_is_not_closed() {
    let lab = lab(64, 2);
    for batch in [1, 7, 10] {
        let window = batch * 3;
        let gaps = [0, 1, batch - 1, batch, batch + 1, window - 1, window, window + 1, 64];
        for gap in gaps {
            let config = Config { commit_sync_batch_size: batch, look_ahead_commits: window, ..small() };
            let mut scene = Scene::from(&lab, config, 64 - gap, 1, Vec::new());
            scene.reach(MINUTE);
            assert!(scene.offences().is_empty(), "batch {batch}, gap {gap}");
        }
    }
}

/// The first commit after genesis; the last of an epoch and the first of the next; epochs of one commit; the tip.
#[test]
fn a_start_or_an_end_at_an_epochs_edge_is_not_got_over() {
    for (commits, epochs) in [(1, 1), (2, 2), (10, 10), (24, 3), (25, 8)] {
        let lab = lab(commits, epochs);
        for held in 0..=commits {
            for batch in [1, 3, 100] {
                let config = Config { commit_sync_batch_size: batch, ..small() };
                let mut scene = Scene::from(&lab, config, held, 1, Vec::new());
                scene.reach(MINUTE);
                assert!(scene.offences().is_empty(), "{commits} commits, {epochs} epochs, {held} held");
            }
        }
    }
}

/// Ranges are cut where the epoch ends, also to a single commit.
#[test]
fn an_answer_runs_over_the_end_of_an_epoch() {
    let lab = lab(24, 3);
    let served = |start: u32, end: u32| {
        let range = CommitRange::new(index(start), index(end)).unwrap();
        let plan = ServePlan::Commits { range, last: range.end(), max_bytes: u64::MAX, with_blocks: false };
        let parts = all(&lab).serve(&plan).unwrap();
        let commits = parts.iter().map(|part| match part {
            ResponsePart::Commits { commits, .. } => commits.len(),
            _ => 0,
        });
        commits.sum::<usize>()
    };
    let cases = [
        (1, 24, 8),
        (1, 8, 8),
        (1, 9, 8),
        (7, 9, 2),
        (8, 9, 1),
        (8, 8, 1),
        (9, 9, 1),
        (9, 24, 8),
        (17, 24, 8),
    ];
    for (start, end, count) in cases {
        assert_eq!(served(start, end), count, "{start}..={end}");
    }
}

/// Committees of few and of many, blocks of one and of many in a commit.
#[test]
fn a_committee_or_a_commit_of_some_size_is_not_synced() {
    for (committee, blocks_per_commit) in
        [(1, 1), (1, 50), (2, 3), (3, 5), (4, 1), (4, 1_500), (7, 10), (100, 100)]
    {
        let spec =
            ChainSpec { commits: 6, blocks_per_commit, payload_bytes: 1, committee, epochs: 2, seed: 3 };
        let mut scene = Scene::new(&lab_of(spec), Config::default(), 1, Vec::new());
        scene.reach(MINUTE);
        assert!(scene.offences().is_empty(), "{spec:?}");
    }
}

/// Votes that reach the quorum exactly, and that miss it by the last vote.
#[test]
fn a_quorum_is_reached_by_less_or_not_by_enough() {
    for committee in [1, 2, 4, 10] {
        let spec =
            ChainSpec { commits: 20, blocks_per_commit: 12, payload_bytes: 8, committee, epochs: 1, seed: 5 };
        let lab = lab_of(spec);
        // The shortest prefix of authorities that is a quorum, and one fewer.
        let stake = |of: &[u32]| {
            let committee = &lab.chain()[0].committee;
            let stakes =
                of.iter().filter_map(|of| committee.stake(soma_sync_core::types::AuthorityIndex::new(*of)));
            stakes.map(soma_sync_core::types::Stake::get).sum::<u64>()
        };
        let everyone: Vec<_> = (0..committee).collect();
        let enough = (1..=everyone.len()).find(|count| stake(&everyone[..*count]) >= 6_667).unwrap();
        for (voters, certified) in [(enough, true), (enough - 1, false)] {
            let (world, client, server) = certified_by(&lab, everyone[..voters].to_vec());
            let charged = world.disconnected(client);
            if certified {
                assert!(charged.is_empty(), "{charged:?} with {voters} of {committee}");
                assert!(world.machine(client).status().peers[0].served_commits > 0);
            } else {
                assert_eq!(charged, [(world.peer(server), Offence::BadCommits)], "{voters} of {committee}");
            }
        }
    }
}

/// A server that certifies its commits with the votes of just these.
fn certified_by(lab: &Rc<Lab>, voters: Vec<u32>) -> (World, NodeId, NodeId) {
    let mut world = World::new(Pace::default());
    let client = world.add(small(), first(lab, 0));
    let server = world.add(Config::default(), all(lab));
    let signer = Rc::clone(lab);
    world.tamper(server, move |request, reply| {
        let Request::Commits(fetch) = request else { return reply };
        let Some((last, commits)) = signer.forged(fetch.start, fetch.end, |_| {}) else { return reply };
        let certifiers = signer.votes(last, Epoch::ZERO, Epoch::ZERO, &voters);
        let buffer_bytes = commits.iter().chain(&certifiers).map(|payload| payload.len() as u64).sum();
        Reply::Parts(vec![ResponsePart::Commits { commits, certifiers, blocks: Vec::new(), buffer_bytes }])
    });
    world.connect(client, server);
    world.run_until(SECOND, |_| false);
    (world, client, server)
}

/// Blocks exactly at the limit, one byte under and one over. What a chain's own committee signed beyond our limits
/// cannot be synced, and that is a report and no crash.
#[test]
fn a_block_at_its_limit_is_refused_or_one_over_it_is_taken() {
    let spec = ChainSpec {
        commits: 8,
        blocks_per_commit: 5,
        payload_bytes: 2_000,
        committee: 4,
        epochs: 1,
        seed: 1,
    };
    let lab = lab_of(spec);
    let sizes = lab.chain().iter().flat_map(|made| made.blocks.iter().chain(made.certifiers.iter()));
    let largest = sizes.map(|block| block.payload.len() as u64).max().unwrap();
    for (limit, fits) in [(largest + 1, true), (largest, true), (largest - 1, false)] {
        let limits = Limits { max_block_bytes: limit, ..Limits::default() };
        if let Some(refused) = synced_or_refused(&lab, limits, fits) {
            let status = refused.status();
            assert!(
                status.certifiable != tip(&lab) && (status.halted.is_some() || status.counters.offences > 0)
            );
        }
    }
}

/// A node of these limits reaches the tip; where its server's data does not fit them, what has become of it in a minute.
fn synced_or_refused(lab: &Rc<Lab>, limits: Limits, fits: bool) -> Option<Scene> {
    let mut scene = Scene::new(lab, Config { limits, ..small() }, 1, Vec::new());
    if fits {
        scene.reach(MINUTE);
        return None;
    }
    // To this node what the server has is too large, whoever is right about that.
    scene.world.set_hostile(scene.honest[0]);
    scene.pass(MINUTE);
    Some(scene)
}

/// The same for the number of blocks in a commit.
#[test]
fn a_commit_at_its_limit_is_refused_or_one_over_it_is_taken() {
    let lab = lab(8, 1);
    for (limit, fits) in [(6, true), (5, true), (4, false)] {
        let limits = Limits { max_blocks_per_commit: limit, ..Limits::default() };
        if let Some(refused) = synced_or_refused(&lab, limits, fits) {
            assert_eq!(refused.status().queued, CommitRef::GENESIS);
            assert_eq!(refused.offences(), [Offence::BadCommits]);
        }
    }
}

/// As many references as one request may have, and one more.
#[test]
fn a_request_at_its_limit_is_refused_or_one_over_it_is_served() {
    let lab = lab(10, 1);
    let reference = lab.chain()[0].header.blocks[0];
    for (count, refused) in [(999, 0), (1_000, 0), (1_001, 1)] {
        let mut world = World::new(Pace::default());
        let server = world.add(Config::default(), all(&lab));
        let stranger = world.add(Config::default(), all(&lab));
        world.connect(server, stranger);
        world.run_until(SECOND, |_| false);
        let request = Request::Blocks(FetchBlocks { refs: vec![reference; count], max_bytes: u64::MAX });
        world.ask(stranger, server, request);
        world.run_until(SECOND, |_| false);
        assert_eq!(world.traffic(server).refused, refused, "{count} references");
    }
}

/// Each peer has one commit, every other one, and nobody has two.
#[test]
fn peers_that_have_exactly_one_commit_are_not_used() {
    let lab = lab(12, 1);
    let mut scene = Scene::new(&lab, small(), 0, Vec::new());
    for held in 1..=12 {
        let mut store = first(&lab, held);
        store.prune(index(held));
        let node = scene.world.add(Config::default(), store);
        scene.world.connect(scene.client, node);
    }
    scene.reach(MINUTE);
}

/// The highest index that there is, as a claim, as a push and as a question.
#[test]
fn the_last_index_that_there_is_overflows_something() {
    let lab = lab(20, 1);
    for highest in [u32::MAX, u32::MAX - 1, u32::MAX - 100, u32::MAX - 3_200] {
        let mut scene = Scene::new(&lab, Config::default(), 1, Vec::new());
        let node = scene.world.add(Config::default(), all(&lab));
        let (server, client) = (scene.honest[0], scene.client);
        scene.world.tamper(node, move |request, reply| match request {
            Request::Availability { .. } => Reply::Parts(vec![ResponsePart::Availability {
                highest: CommitIndex::new(highest),
                lowest: CommitIndex::new(highest),
            }]),
            _ => reply,
        });
        scene.world.connect(client, node);
        scene.reach(MINUTE);
        scene.world.ask(server, client, Request::Push { index: CommitIndex::new(highest) });
        scene.pass(MINUTE);
        assert_eq!(scene.status().queued, tip(&lab));
    }
}

/// Restarts: with nothing, at an epoch's end, and with blocks staged of a commit that never became whole.
#[test]
fn a_restart_from_some_store_does_not_go_on() {
    let lab = lab(24, 3);
    for held in [0, 1, 7, 8, 9, 16, 23, 24] {
        let mut scene = Scene::from(&lab, small(), held, 1, Vec::new());
        let (client, server) = (scene.client, scene.honest[0]);
        scene.pass(SECOND / 50);
        scene.world.restart(client, 0);
        scene.world.connect(client, server);
        scene.reach(MINUTE);
    }
}

#[test]
fn blocks_staged_of_a_commit_that_never_became_whole_are_in_the_way() {
    let spec = ChainSpec {
        commits: 4,
        blocks_per_commit: 200,
        payload_bytes: 3_000,
        committee: 4,
        epochs: 1,
        seed: 4,
    };
    let lab = lab_of(spec);
    let limits = Limits { max_block_bytes: 4096, max_blocks_per_commit: 300, ..Limits::default() };
    let config = Config { limits, max_fetch_response_bytes: 64 * 1024, ..Config::default() };
    let config = Config { max_buffered_bytes: config.frontier_bytes() * 2, ..config };
    let mut scene = Scene::new(&lab, config, 1, Vec::new());
    let (client, server) = (scene.client, scene.honest[0]);
    let staged = |world: &World| world.store(client).blocks().next().is_some();
    assert!(scene.world.run_until(MINUTE, staged), "nothing is staged");
    assert_eq!(scene.world.store(client).tip(), CommitRef::GENESIS, "its commit is whole");
    scene.world.restart(client, 0);
    scene.world.connect(client, server);
    scene.reach(MINUTE);
}
