//! Defects found in review: each test fails on the machine as reviewed.

mod common;

use bytes::Bytes;
use common::{
    Chain, MINUTE, broadcasts, certifiable, drive_past, must_reach, observed, small_requests, world,
};
use soma_sync_core::{
    Command, Config, Event, SyncMachine, Timestamp,
    command::Notice,
    config::Limits,
    event::JobId,
    job::{Job, Verdict},
    payload::Payload,
    request::{Request, RequestFailure, ResponsePart},
    types::{CommitDigest, CommitIndex, CommitRef},
};
use soma_sync_sim::{
    chain::ChainSpec,
    world::{NodeId, Pace, Reply, World},
};
use std::{cell::Cell, rc::Rc, time::Duration};

/// Counts requests that `is` is true of, of which a server hears.
fn counting(
    world: &mut World,
    server: NodeId,
    is: impl Fn(&Request) -> bool + 'static,
    reply_to: impl Fn(&Request, Reply) -> Reply + 'static,
) -> Rc<Cell<u32>> {
    let count = Rc::new(Cell::new(0));
    let counted = count.clone();
    world.tamper(server, move |request, reply| {
        if is(request) {
            counted.set(counted.get() + 1);
        }
        reply_to(request, reply)
    });
    count
}

/// Certifiers that together pass one answer's bytes never fit, and nothing else is ever tried.
#[test]
fn certifiers_larger_together_than_one_answer_are_still_fetched() {
    let chain = Chain::make(ChainSpec {
        commits: 12,
        blocks_per_commit: 5,
        payload_bytes: 40_000,
        committee: 4,
        epochs: 1,
        seed: 1,
    });
    let limits = Limits { max_block_bytes: 64 * 1024, max_blocks_per_commit: 100, ..Limits::default() };
    let config = Config { limits, max_fetch_response_bytes: 64 * 1024, ..Config::default() };
    let mut world = World::new(Pace::default());
    let client = world.add(config.clone(), chain.first(0));
    let server = world.add(config, chain.all());
    world.connect(client, server);
    must_reach(&mut world, client, chain.tip());
}

/// A link on which the first byte takes longer than five seconds never works: late answers are dropped, so the
/// latency is never learnt.
#[test]
fn a_slow_link_is_slow_and_not_dead() {
    let chain = Chain::of(20, 1);
    let mut world = World::new(Pace { latency: Duration::from_millis(2_600), ..Pace::default() });
    let client = world.add(Config::default(), chain.first(0));
    let server = world.add(Config::default(), chain.all());
    world.connect(client, server);
    assert!(
        world.run_until(60 * MINUTE, |world| certifiable(world, client) == chain.tip()),
        "{:#?}",
        world.machine(client).status()
    );
}

/// A link that carries 40 KB/s, where one message takes longer than five seconds.
#[test]
fn a_narrow_link_is_slow_and_not_dead() {
    let chain = Chain::make(ChainSpec {
        commits: 20,
        blocks_per_commit: 5,
        payload_bytes: 8_000,
        committee: 4,
        epochs: 1,
        seed: 1,
    });
    let mut world = World::new(Pace { bandwidth: 40_000, ..Pace::default() });
    let client = world.add(Config::default(), chain.first(0));
    let server = world.add(Config::default(), chain.all());
    world.connect(client, server);
    assert!(
        world.run_until(60 * MINUTE, |world| certifiable(world, client) == chain.tip()),
        "{:#?}",
        world.machine(client).status()
    );
}

/// Batches of votes take all the places of batches in storage, and commits wait behind them for ever.
#[test]
fn votes_of_our_own_do_not_keep_commits_from_storage() {
    let chain = Chain::of(200, 1);
    let (mut world, client, _) = world(&chain, small_requests(), 0, 1);
    // Accepted blocks come as fast as a batch is stored, two at a time.
    let far = chain.commits.last().unwrap();
    let begun = world.now();
    for _ in 0..10_000 {
        for block in far.certifiers.iter() {
            world.inject(client, Event::VotesObserved { blocks: vec![block.payload.clone()] });
        }
        world.run_until(Duration::from_millis(1), |_| false);
        if world.store(client).tip() == chain.tip() {
            break;
        }
    }
    let took = world.now().saturating_since(begun);
    assert_eq!(world.store(client).tip(), chain.tip(), "after {took:?}");
}

/// The committee after an epoch's end that is certified and not yet stored is not known, and commits beyond it
/// are asked for in a loop all the same.
#[test]
fn commits_of_an_epoch_whose_committee_is_not_known_are_not_asked_for_in_a_loop() {
    let chain = Chain::of(40, 2);
    let (mut world, client, _) = world(&chain, small_requests(), 0, 0);
    let first = chain.commits[0].header.blocks[0];
    let count = Rc::new(Cell::new(0));
    // One server is at the epoch's end; another one, further, comes later. Commit 1 is late.
    for held in [20, 40] {
        let server = world.add(Config::default(), chain.first(held));
        let counted = count.clone();
        world.tamper(server, move |request, reply| match request {
            Request::Blocks(fetch) if fetch.refs.contains(&first) => Reply::Stuck(Vec::new()),
            Request::Commits(fetch) => {
                counted.set(counted.get() + u32::from(fetch.start == CommitIndex::new(21)));
                reply
            }
            _ => reply,
        });
        world.connect(client, server);
        world.run_until(Duration::from_secs(2), |_| false);
    }
    assert!(count.get() <= 3, "asked {} times in two seconds", count.get());
}

/// A failure on our side is tried again at once, without end.
#[test]
fn a_request_that_fails_on_our_side_is_not_made_again_in_a_loop() {
    let chain = Chain::of(40, 1);
    let (mut world, _, servers) = world(&chain, small_requests(), 0, 1);
    let count = counting(
        &mut world,
        servers[0],
        |request| matches!(request, Request::Commits(_)),
        |request, reply| match request {
            Request::Commits(_) => Reply::Broken(Vec::new(), RequestFailure::Local),
            _ => reply,
        },
    );
    world.run_until(Duration::from_secs(10), |_| false);
    assert!(count.get() <= 200, "{} requests in ten seconds", count.get());
}

/// A server that says that it lacks every block is asked again at once, without end.
#[test]
fn a_server_that_lacks_everything_is_not_asked_in_a_loop() {
    let chain = Chain::of(400, 1);
    let (mut world, _, servers) = world(&chain, Config::default(), 0, 1);
    let count = counting(
        &mut world,
        servers[0],
        |request| matches!(request, Request::Blocks(_)),
        |request, reply| match request {
            Request::Blocks(fetch) => Reply::Parts(vec![ResponsePart::Blocks {
                blocks: Vec::new(),
                missing: (0..fetch.refs.len() as u32).collect(),
                buffer_bytes: 10,
            }]),
            _ => reply,
        },
    );
    world.run_until(Duration::from_secs(10), |_| false);
    assert!(count.get() <= 100, "{} requests for blocks in ten seconds", count.get());
}

/// One lost stream makes a node that has nothing say that it is synced.
#[test]
fn one_lost_answer_does_not_make_a_node_synced() {
    let chain = Chain::of(40, 1);
    let (mut world, client, servers) = world(&chain, Config::default(), 0, 1);
    let mut first = true;
    world.tamper(servers[0], move |request, reply| match request {
        Request::Commits(_) if std::mem::take(&mut first) => Reply::Broken(Vec::new(), RequestFailure::Reset),
        _ => reply,
    });
    must_reach(&mut world, client, chain.tip());
    assert!(world.run_until(MINUTE, |world| world.machine(client).status().synced));
    let synced: Vec<_> =
        world.notices(client).iter().filter(|notice| matches!(notice, Notice::Synced { .. })).collect();
    assert_eq!(synced, [&Notice::Synced { tip: chain.tip() }]);
}

/// A claim that is not backed by delivery is believed again at the next poll: synced, behind, synced, for ever.
#[test]
fn an_inflated_claim_does_not_make_a_synced_node_waver() {
    let chain = Chain::of(40, 1);
    let (mut world, client, servers) = world(&chain, Config::default(), 0, 2);
    world.tamper(servers[0], |request, reply| match request {
        Request::Availability { .. } => Reply::Parts(vec![ResponsePart::Availability {
            highest: CommitIndex::MAX,
            lowest: CommitIndex::GENESIS,
        }]),
        _ => reply,
    });
    must_reach(&mut world, client, chain.tip());
    world.run_until(MINUTE, |_| false);
    let before = world.notices(client).len();
    world.run_until(10 * MINUTE, |_| false);
    let said = world.notices(client).len() - before;
    assert!(said <= 20, "{said} notices in ten minutes at the tip");
}

/// A lie about the epoch costs nothing and holds up everybody.
#[test]
fn a_lie_about_the_epoch_does_not_hold_up_the_sync() {
    let chain = Chain::of(2_000, 1);
    let next = Chain::of(2_000, 2_000);
    let honest_time = {
        let (mut world, client, _) = world(&chain, small_requests(), 0, 2);
        must_reach(&mut world, client, chain.tip());
        world.now()
    };
    let (mut world, client, servers) = world(&chain, small_requests(), 0, 2);
    // Any well-formed commit of a later epoch at the index asked for will do: nobody has to sign it. It lies only
    // where that cannot be seen at once, ahead of the tip (which it is told by pushes and polls).
    let tip = Rc::new(Cell::new(0u32));
    let seen = tip.clone();
    world.tamper(servers[0], move |request, reply| match request {
        Request::Commits(fetch) if fetch.start.get() > seen.get() + 12 => {
            let commits = vec![next.commits[fetch.start.get() as usize - 1].header.payload.clone()];
            let buffer_bytes = commits[0].len() as u64;
            Reply::Parts(vec![ResponsePart::Commits {
                commits,
                certifiers: Vec::new(),
                blocks: Vec::new(),
                buffer_bytes,
            }])
        }
        _ => reply,
    });
    let reached = world.run_until(60 * MINUTE, |world| {
        tip.set(world.machine(client).status().queued.index.get());
        certifiable(world, client) == chain.tip()
    });
    let took = world.now();
    let blamed = world.disconnected(client);
    println!("honest {honest_time:?}, with a liar {took:?}, blamed: {blamed:?}");
    assert!(
        reached && took.as_micros() <= 2 * honest_time.as_micros(),
        "honest {honest_time:?}, with a liar {took:?}, blamed: {blamed:?}"
    );
}

/// A server with another batch size goes on further than we take, and is banned for it.
#[test]
fn an_honest_server_with_larger_batches_is_not_blamed() {
    let chain = Chain::of(24, 1);
    let mut world = World::new(Pace::default());
    let source = world.add(Config::default(), chain.all());
    // It synced, so it holds the votes of committed blocks and those for the last commit of its one range.
    let server = world.add(Config::default(), chain.first(0));
    world.connect(server, source);
    must_reach(&mut world, server, chain.tip());
    world.disconnect(server, source);
    let client = world.add(Config { commit_sync_batch_size: 1, ..Config::default() }, chain.first(0));
    world.connect(client, server);
    let reached = world.run_until(MINUTE, |world| certifiable(world, client) == chain.tip());
    assert!(world.disconnected(client).is_empty(), "{:?}", world.disconnected(client));
    assert!(reached, "{:#?}", world.machine(client).status());
}

/// Batches smaller than the distance between certifiable commits can never be served.
#[test]
fn small_batches_do_not_keep_a_node_from_the_tip() {
    let chain = Chain::of(24, 1);
    let config = Config { commit_sync_batch_size: 1, ..Config::default() };
    let mut world = World::new(Pace::default());
    let source = world.add(Config::default(), chain.all());
    let server = world.add(Config::default(), chain.first(0));
    world.connect(server, source);
    must_reach(&mut world, server, chain.tip());
    world.disconnect(server, source);
    // The same store under a machine that has small batches too.
    let small = world.add(config.clone(), world.store(server).clone());
    let client = world.add(config, chain.first(0));
    world.connect(client, small);
    let reached = world.run_until(10 * MINUTE, |world| certifiable(world, client) == chain.tip());
    assert!(reached, "{:#?}", world.machine(client).status());
}

/// A server that takes fewer blocks in a request never gets a smaller one, and bans the client.
#[test]
fn a_server_that_takes_fewer_blocks_is_asked_for_fewer() {
    let chain = Chain::of(100, 1);
    let mut world = World::new(Pace::default());
    let client = world.add(Config::default(), chain.first(0));
    let server = world.add(Config { max_blocks_per_fetch: 100, ..Config::default() }, chain.all());
    world.connect(client, server);
    let reached = world.run_until(10 * MINUTE, |world| certifiable(world, client) == chain.tip());
    assert!(reached, "{:?}", world.disconnected(server));
}

/// What is pinned is not held against commits of our own consensus.
#[test]
fn a_pinned_commit_is_held_against_our_own_consensus_too() {
    let chain = Chain::of(5, 1);
    let pinned = CommitRef { index: CommitIndex::new(1), digest: CommitDigest::new([9; 32]) };
    let config = Config { pinned_commits: vec![pinned], ..Config::default() };
    let (mut world, client, _) = world(&chain, config, 0, 0);
    world.inject(client, observed(&chain.commits[0]));
    world.run_until(MINUTE, |_| false);
    assert!(world.machine(client).status().halted.is_some());
}

/// Empty commits, each two bytes on the wire and forty in memory, are taken without count.
#[test]
fn more_commits_than_can_be_asked_for_are_refused_as_they_come() {
    let chain = Chain::of(40, 1);
    let (mut world, client, servers) = world(&chain, small_requests(), 0, 1);
    world.tamper(servers[0], |request, reply| match request {
        Request::Commits(_) => {
            let empty = Payload::new(Bytes::new());
            let part = || ResponsePart::Commits {
                commits: vec![empty.clone(); 20_000],
                certifiers: Vec::new(),
                blocks: Vec::new(),
                buffer_bytes: 40_000,
            };
            Reply::Stuck(vec![part(), part(), part()])
        }
        _ => reply,
    });
    world.run_until(Duration::from_secs(2), |_| false);
    assert_eq!(world.disconnected(client).len(), 1);
}

/// A commit that was made certifiable by an answer while our own consensus brought it: its votes are dropped.
#[test]
fn votes_in_an_answer_about_a_commit_that_is_here_already_are_kept() {
    let chain = Chain::of(20, 1);
    let (mut world, client, _) = world(&chain, Config::default(), 0, 0);
    for made in &chain.commits {
        world.inject(client, observed(made));
    }
    assert!(world.run_until(MINUTE, |world| world.store(client).tip() == chain.tip()));
    let server = world.add(Config::default(), chain.all());
    world.connect(client, server);
    must_reach(&mut world, client, chain.tip());
}

/// An empty payload of our own is charged with a byte that was never reserved.
#[test]
fn an_empty_payload_of_our_own_keeps_the_books_right() {
    let chain = Chain::of(40, 1);
    let (mut world, client, servers) = world(&chain, small_requests(), 0, 1);
    world.tamper(servers[0], |request, reply| match request {
        Request::Commits(_) => Reply::Stuck(Vec::new()),
        _ => reply,
    });
    world.run_until(Duration::from_secs(1), |_| false);
    world.inject(client, Event::VotesObserved { blocks: vec![Payload::new(Bytes::new())] });
    world.run_until(Duration::from_secs(1), |_| false);
}

/// A far claimed epoch in a late answer about what is stored already stops all fetching, or an honest answer is
/// held to be an offence.
fn late_other_epoch(server_epochs: u32, check: impl Fn(&World, NodeId, NodeId)) {
    // Ours has an epoch of ten commits each; the answer about commits 17.. is from a chain of other epochs.
    let chain = Chain::of(60, 6);
    let other = Chain::of(60, server_epochs);
    let mut world = World::new(Pace { job: Duration::from_millis(200), ..Pace::default() });
    let config = Config { commit_sync_batch_size: 16, ..Config::default() };
    let client = world.add(config, chain.first(0));
    let server = world.add(Config::default(), chain.all());
    world.tamper(server, move |request, reply| match request {
        Request::Commits(fetch) if fetch.start == CommitIndex::new(17) => {
            let commits = vec![other.commits[16].header.payload.clone()];
            let buffer_bytes = commits[0].len() as u64;
            Reply::Parts(vec![ResponsePart::Commits {
                commits,
                certifiers: Vec::new(),
                blocks: Vec::new(),
                buffer_bytes,
            }])
        }
        Request::Commits(_) => Reply::Stuck(Vec::new()),
        _ => reply,
    });
    world.connect(client, server);
    // Until the answer is being verified.
    assert!(world.run_until(MINUTE, |world| world.machine(client).status().jobs_running > 0));
    check(&world, client, server);
}

#[test]
fn a_late_lie_about_the_epoch_does_not_stop_all_fetching() {
    late_other_epoch(60, |world, client, _| {
        // The same machine, with its own consensus having gone past that answer meanwhile.
        let chain = Chain::of(60, 6);
        let machine = drive_past(world, client, &chain, 40);
        let status = machine.status();
        assert_eq!(status.queued.index, CommitIndex::new(40));
        let sent = asks(machine, world.now());
        assert!(sent, "nobody is asked for commits 41.. any more, though a peer has them");
    });
}

#[test]
fn an_honest_answer_about_what_is_stored_already_is_no_offence() {
    late_other_epoch(6, |world, client, _| {
        let chain = Chain::of(60, 6);
        let machine = drive_past(world, client, &chain, 40);
        assert_eq!(machine.status().counters.offences, 0, "an honest server was blamed");
    });
}

/// Whether the machine asks for commits within a minute of nothing else happening but polls answered.
fn asks(mut machine: SyncMachine, mut now: Timestamp) -> bool {
    let end = now.saturating_add(MINUTE);
    let mut events = std::collections::VecDeque::new();
    while now < end {
        machine.handle(now, events.pop_front().unwrap_or(Event::Tick));
        while let Some(command) = machine.poll_command() {
            if let Command::SendRequest { id, request, .. } = command {
                match request {
                    Request::Commits(_) => return true,
                    Request::Availability { .. } => {
                        let part = ResponsePart::Availability {
                            highest: CommitIndex::new(60),
                            lowest: CommitIndex::GENESIS,
                        };
                        events.push_back(Event::ResponsePart { id, part });
                        events.push_back(Event::RequestFinished { id, result: Ok(()) });
                    }
                    _ => events.push_back(Event::RequestFinished { id, result: Ok(()) }),
                }
            }
        }
        if events.is_empty() {
            now = machine.poll_timeout().unwrap_or(end);
        }
    }
    false
}

/// What a machine wants done now: the one job, if there is one, and what it tells its operator.
fn drained(machine: &mut SyncMachine) -> (Option<(JobId, Job)>, Vec<Notice>) {
    let (mut jobs, mut notices) = (None, Vec::new());
    while let Some(command) = machine.poll_command() {
        match command {
            Command::Verify { id, job } => assert!(jobs.replace((id, job)).is_none()),
            Command::Notify(notice) => notices.push(notice),
            _ => {}
        }
    }
    (jobs, notices)
}

/// A worker that dies over a commit of our own keeps those that wait behind it waiting.
#[test]
fn a_worker_that_dies_over_an_observed_commit_does_not_hold_up_those_behind_it() {
    let chain = Chain::of(3, 1);
    let mut machine =
        SyncMachine::new(Config::default(), chain.first(0).start(), Timestamp::ZERO, [7; 32]).unwrap();
    machine.handle(Timestamp::ZERO, observed(&chain.commits[1]));
    let mut next = drained(&mut machine);
    machine.handle(Timestamp::ZERO, observed(&chain.commits[0]));
    for died in 1..=3 {
        let (Some((id, job)), []) = (next.0, &next.1[..]) else { panic!("not decoded again: {died}") };
        assert!(
            matches!(job, Job::Observe(job) if job.commit.bytes() == chain.commits[1].header.payload.bytes())
        );
        machine.handle(Timestamp::ZERO, Event::Verified { id, verdict: Verdict::WorkerFailed });
        machine.check_invariants().unwrap();
        next = drained(&mut machine);
    }
    assert_eq!(next.1, [Notice::ObservedLost { failures: 3 }]);
    let Some((id, job)) = next.0 else { panic!("commit 1 is never decoded: {:#?}", machine.status()) };
    let rest = Event::Verified { id, verdict: job.run([0; 32]) };
    broadcasts(&mut machine, [rest]);
    assert_eq!(machine.status().durable, CommitIndex::new(1));
    assert_eq!(machine.status().buffered_bytes, 0, "what was lost is still paid for");
}

/// A commit of our own over which a worker died once is lost.
#[test]
fn a_commit_of_our_own_is_not_lost_with_a_worker() {
    let chain = Chain::of(1, 1);
    let mut machine =
        SyncMachine::new(Config::default(), chain.first(0).start(), Timestamp::ZERO, [7; 32]).unwrap();
    machine.handle(Timestamp::ZERO, observed(&chain.commits[0]));
    for _ in 0..2 {
        let (Some((id, _)), _) = drained(&mut machine) else { panic!("not decoded") };
        machine.handle(Timestamp::ZERO, Event::Verified { id, verdict: Verdict::WorkerFailed });
    }
    let (Some((id, job)), notices) = drained(&mut machine) else { panic!("not decoded again") };
    broadcasts(&mut machine, [Event::Verified { id, verdict: job.run([0; 32]) }]);
    assert_eq!((notices, machine.status().durable), (Vec::new(), CommitIndex::new(1)));
}
