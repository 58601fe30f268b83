//! Other chains than ours, of the same committee: from our own consensus, from peers, and in the store.

mod common;

use common::{Chain, MINUTE, broadcasts, drive_past, observed, world};
use soma_sync_core::{
    Config, Event, SyncMachine, Timestamp, command::Halt, request::Request, types::CommitIndex,
};
use soma_sync_sim::{
    chain::ChainSpec,
    world::{Pace, Reply, World},
};
use std::time::Duration;

/// The same committee's other chain.
fn other_chain(commits: u32) -> Chain {
    Chain::make(ChainSpec {
        commits,
        blocks_per_commit: 5,
        payload_bytes: 65,
        committee: 4,
        epochs: 1,
        seed: 1,
    })
}

/// Of stored commits only the tip was compared with what our own consensus says.
#[test]
fn another_commit_of_our_own_far_below_the_tip_is_a_fork() {
    let (chain, other) = (Chain::of(40, 1), other_chain(40));
    let (mut world, client, _) = world(&chain, Config::default(), 0, 0);
    for made in &chain.commits {
        world.inject(client, observed(made));
    }
    assert!(world.run_until(MINUTE, |world| world.store(client).tip() == chain.tip()));
    for made in &chain.commits {
        world.inject(client, observed(made));
    }
    world.run_until(MINUTE, |_| false);
    let status = world.machine(client).status();
    assert_eq!((status.halted, status.queued), (None, chain.tip()), "what is here already is no news");
    world.inject(client, observed(&other.commits[6]));
    assert!(world.run_until(MINUTE, |world| world.machine(client).status().halted.is_some()));
    let (ours, theirs) = (&chain.commits[6].header, &other.commits[6].header);
    let expected = Halt::Fork {
        index: CommitIndex::new(7),
        ours: ours.reference,
        theirs: theirs.reference,
        evidence: Box::new(theirs.clone()),
    };
    assert_eq!(world.machine(client).status().halted, Some(Box::new(expected)));
}

/// A client that has an answer about commits `start..` of a server with this chain under verification, while its own
/// consensus has gone on to commit 40 of ours.
fn with_late_answer(ours: &Chain, theirs: &Chain, start: u32) -> SyncMachine {
    let mut world = World::new(Pace { job: Duration::from_millis(200), ..Pace::default() });
    let config = Config { commit_sync_batch_size: 10, ..Config::default() };
    let client = world.add(config, ours.first(0));
    let server = world.add(Config::default(), theirs.all());
    world.tamper(server, move |request, reply| match request {
        Request::Commits(fetch) if fetch.start != CommitIndex::new(start) => Reply::Stuck(Vec::new()),
        _ => reply,
    });
    world.connect(client, server);
    assert!(world.run_until(MINUTE, |world| world.machine(client).status().jobs_running > 0));
    drive_past(&world, client, ours, 40)
}

/// Of stored commits only the tip was compared with what a quorum voted for.
#[test]
fn a_certified_commit_far_below_the_tip_is_a_fork() {
    let (chain, other) = (Chain::of(60, 1), other_chain(60));
    let halted = with_late_answer(&chain, &other, 11).status().halted;
    let (ours, theirs) = (&chain.commits[10].header, &other.commits[10].header);
    let expected = Halt::Fork {
        index: CommitIndex::new(11),
        ours: ours.reference,
        theirs: theirs.reference,
        evidence: Box::new(theirs.clone()),
    };
    assert_eq!(halted, Some(Box::new(expected)));
    let same = with_late_answer(&chain, &chain, 11).status();
    assert_eq!((same.halted, same.counters.offences), (None, 0), "what is here already is no news");
}

/// Keys of an epoch that is over certify what they like about the next: that is no fork.
#[test]
fn commits_signed_with_keys_of_an_epoch_that_is_over_do_not_halt_a_node() {
    let (chain, longer_epoch) = (Chain::of(60, 6), Chain::of(60, 1));
    let status = with_late_answer(&chain, &longer_epoch, 11).status();
    assert_eq!((status.halted, status.queued.index), (None, CommitIndex::new(40)));
}

/// A machine whose own consensus has made the first 20 commits of a chain, all stored and taken by consumers.
fn at_commit_20(chain: &Chain) -> SyncMachine {
    let start = chain.first(0).start();
    let mut machine = SyncMachine::new(Config::default(), start, Timestamp::ZERO, [7; 32]).unwrap();
    broadcasts(&mut machine, chain.commits[..20].iter().map(observed));
    assert_eq!(machine.status().delivered, CommitIndex::new(20));
    machine
}

/// The store was opened again, and this is what it holds.
fn reopened(chain: &Chain, held: u32) -> Event {
    Event::StoreReopened { start: Box::new(chain.first(held).start()) }
}

/// A store that is opened again as an older copy of itself makes consumers take the same commits once more.
#[test]
fn a_rewound_store_does_not_make_consumers_take_commits_twice() {
    let chain = Chain::of(25, 1);
    let mut machine = at_commit_20(&chain);
    assert_eq!(broadcasts(&mut machine, [reopened(&chain, 12)]), []);
    let status = machine.status();
    let at = [status.queued.index, status.durable, status.delivered].map(CommitIndex::get);
    assert_eq!((at, status.halted), ([12, 12, 20], None));
    let again = broadcasts(&mut machine, chain.commits[12..].iter().map(observed));
    let commits: Vec<u32> = again.into_iter().flat_map(|(start, end)| start..=end).collect();
    assert_eq!(commits, [21, 22, 23, 24, 25]);
    assert_eq!(machine.status().delivered, CommitIndex::new(25));
}

/// After a rewind another chain is gone on with than the one that consumers have had.
#[test]
fn a_rewound_store_does_not_make_what_consumers_have_had_forgotten() {
    let (chain, other) = (Chain::of(25, 1), other_chain(25));
    let mut machine = at_commit_20(&chain);
    broadcasts(&mut machine, [reopened(&chain, 0)]);
    assert_eq!(broadcasts(&mut machine, [observed(&other.commits[0])]), []);
    let halted = machine.status().halted.map(|halted| *halted);
    let ours = chain.commits[0].header.reference;
    assert!(matches!(halted, Some(Halt::Fork { ours: at, .. }) if at == ours), "{halted:?}");
}

/// A reopened store whose last commit has the index of our last durable one and another digest passes for ours.
#[test]
fn a_reopened_store_with_another_chain_is_not_gone_on_with() {
    let (chain, other) = (Chain::of(25, 1), other_chain(25));
    for held in [20, 7] {
        let mut machine = at_commit_20(&chain);
        machine.handle(Timestamp::from_micros(2), reopened(&other, held));
        let at = held as usize - 1;
        let (ours, stored) = (chain.commits[at].header.reference, other.commits[at].header.reference);
        let expected = Halt::StoreContradicted { ours, stored };
        assert_eq!(machine.status().halted, Some(Box::new(expected)));
        machine.check_invariants().unwrap();
    }
    let mut machine = at_commit_20(&chain);
    broadcasts(&mut machine, [reopened(&chain, 20)]);
    assert_eq!((machine.status().halted, machine.status().durable), (None, CommitIndex::new(20)));
}
