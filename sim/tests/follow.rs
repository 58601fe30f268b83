//! At the tip: requests that wait at peers for what is to come.

mod common;

use common::{Chain, MINUTE, certifiable, must_reach, observed};
use soma_sync_core::{
    Config, Event,
    command::Notice,
    request::{FetchCommits, RefuseReason, Request, RequestFailure, ResponsePart},
    types::{CommitIndex, PeerId},
};
use soma_sync_sim::{
    chain::MadeCommit,
    world::{NodeId, Pace, Reply, World},
};
use std::{cell::RefCell, rc::Rc, time::Duration};

const SECOND: Duration = Duration::from_secs(1);
/// One way, as the default pace has it.
const LATENCY: Duration = Duration::from_millis(10);

/// What our own consensus knows once a commit has its votes.
fn votes(made: &MadeCommit) -> Event {
    Event::VotesObserved { blocks: made.certifiers.iter().map(|block| block.payload.clone()).collect() }
}

/// Makes the nodes' consensus go on with the chain from commit `first + 1` on, a commit every `interval`.
fn produce(world: &mut World, producers: &[NodeId], chain: &Chain, first: u32, interval: Duration) {
    let rest: Vec<_> = chain.commits.iter().skip(first as usize).cloned().collect();
    let mut rest = rest.into_iter();
    let producers = producers.to_vec();
    world.act(interval, move |world| {
        let made = rest.next()?;
        for producer in &producers {
            world.inject(*producer, observed(&made));
            world.inject(*producer, votes(&made));
        }
        Some(interval)
    });
}

/// Followers and producers that all hold the first `held` commits, everybody connected to every producer.
fn at_the_tip(
    chain: &Chain,
    held: u32,
    producers: usize,
    followers: &[Config],
) -> (World, Vec<NodeId>, Vec<NodeId>) {
    let mut world = World::new(Pace::default());
    world.judged_by(&chain.commits);
    let producers: Vec<_> = (0..producers).map(|_| world.add(Config::default(), chain.first(held))).collect();
    let followers: Vec<_> =
        followers.iter().map(|config| world.add(config.clone(), chain.first(held))).collect();
    for follower in &followers {
        for producer in &producers {
            world.connect(*follower, *producer);
        }
    }
    (world, producers, followers)
}

/// Runs until the last follower has everything; how far, and for how long at the longest, one was behind the producer.
fn run_to_the_end(
    world: &mut World,
    producer: NodeId,
    followers: &[NodeId],
    chain: &Chain,
) -> (u32, Duration) {
    let worst = Rc::new(RefCell::new((0, Duration::ZERO)));
    let (last, followers) = (chain.tip(), followers.to_vec());
    let mut behind_since = vec![None; followers.len()];
    let seen = Rc::clone(&worst);
    let watched = followers.clone();
    world.act(Duration::ZERO, move |world| {
        let tip = certifiable(world, producer).index;
        let now = world.now();
        for (follower, since) in watched.iter().zip(&mut behind_since) {
            let lag = tip.get() - certifiable(world, *follower).index.get().min(tip.get());
            let began = *since.get_or_insert(now);
            if lag == 0 {
                *since = None;
            }
            let mut worst = seen.borrow_mut();
            *worst = (worst.0.max(lag), worst.1.max(now.saturating_since(began)));
        }
        Some(Duration::from_millis(1))
    });
    let done = world
        .run_until(MINUTE, |world| followers.iter().all(|follower| certifiable(world, *follower) == last));
    assert!(done, "{:#?}", world.machine(followers[0]).status());
    *worst.borrow()
}

fn asked_to_wait(world: &World, node: NodeId) -> u64 {
    world.traffic(node).waiting_requests
}

#[test]
fn a_commit_takes_more_than_half_a_round_trip_and_the_work_to_reach_a_follower() {
    let chain = Chain::of(40, 1);
    let (mut world, producers, followers) = at_the_tip(&chain, 10, 1, &[Config::default()]);
    world.run_until(SECOND, |_| false);
    produce(&mut world, &producers, &chain, 10, Duration::from_millis(100));
    let (lag, behind) = run_to_the_end(&mut world, producers[0], &followers, &chain);
    // One way, two jobs of 1 ms, a batch of 2 ms, and less than that for the bytes themselves.
    assert!(behind <= LATENCY + Duration::from_millis(6), "{behind:?}");
    assert_eq!(lag, 1);
    assert_eq!(world.traffic(followers[0]).block_requests, 0);
}

#[test]
fn what_comes_at_the_tip_comes_twice() {
    let chain = Chain::of(60, 2);
    let fetched = |producers| {
        let (mut world, producers, followers) = at_the_tip(&chain, 10, producers, &[Config::default()]);
        world.run_until(SECOND, |_| false);
        produce(&mut world, &producers, &chain, 10, Duration::from_millis(100));
        run_to_the_end(&mut world, producers[0], &followers, &chain);
        world.traffic(followers[0]).fetched_bytes
    };
    assert_eq!(fetched(1), fetched(3));
}

#[test]
fn twenty_commits_a_second_leave_a_follower_behind() {
    let chain = Chain::of(210, 2);
    let (mut world, producers, followers) = at_the_tip(&chain, 10, 1, &vec![Config::default(); 4]);
    world.run_until(SECOND, |_| false);
    produce(&mut world, &producers, &chain, 10, Duration::from_millis(50));
    let (lag, behind) = run_to_the_end(&mut world, producers[0], &followers, &chain);
    assert!(lag <= 1 && behind <= Duration::from_millis(40), "{lag} {behind:?}");
    for follower in followers {
        let behind = world.notices(follower).iter().filter(|notice| matches!(notice, Notice::Behind { .. }));
        assert_eq!(behind.count(), 0, "{:?}", world.notices(follower));
    }
}

#[test]
fn commits_that_come_faster_than_round_trips_are_lost_from_sight() {
    let chain = Chain::of(210, 1);
    let (mut world, producers, followers) = at_the_tip(&chain, 10, 2, &[Config::default()]);
    world.run_until(SECOND, |_| false);
    produce(&mut world, &producers, &chain, 10, Duration::from_millis(3));
    let (lag, behind) = run_to_the_end(&mut world, producers[0], &followers, &chain);
    assert!(lag <= 30 && behind <= SECOND, "{lag} {behind:?}");
}

/// A server that lets requests wait and never comes back to them.
fn never_answers_what_waits(request: &Request, reply: Reply) -> Reply {
    match request {
        Request::Commits(FetchCommits { wait, .. }) if !wait.is_zero() => Reply::Stuck(Vec::new()),
        _ => reply,
    }
}

#[test]
fn a_server_that_lets_requests_wait_for_ever_holds_up_the_tip() {
    let chain = Chain::of(110, 1);
    let (mut world, producers, followers) = at_the_tip(&chain, 10, 2, &[Config::default()]);
    world.tamper(producers[0], never_answers_what_waits);
    world.set_hostile(producers[0]);
    world.run_until(SECOND, |_| false);
    produce(&mut world, &producers, &chain, 10, Duration::from_millis(50));
    let (_, behind) = run_to_the_end(&mut world, producers[1], &followers, &chain);
    assert!(behind <= Duration::from_millis(300), "{behind:?}");
}

#[test]
fn a_server_that_refuses_to_let_requests_wait_is_asked_in_a_loop() {
    let chain = Chain::of(60, 1);
    let (mut world, producers, followers) = at_the_tip(&chain, 10, 1, &[Config::default()]);
    world.tamper(producers[0], |request, reply| match request {
        Request::Commits(FetchCommits { wait, .. }) if !wait.is_zero() => {
            Reply::Broken(Vec::new(), RequestFailure::Refused(RefuseReason::Unavailable))
        }
        _ => reply,
    });
    world.run_until(SECOND * 10, |_| false);
    assert!(asked_to_wait(&world, followers[0]) <= 10, "{}", asked_to_wait(&world, followers[0]));
    produce(&mut world, &producers, &chain, 10, Duration::from_millis(100));
    run_to_the_end(&mut world, producers[0], &followers, &chain);
}

#[test]
fn a_wait_in_vain_is_held_against_a_server() {
    let chain = Chain::of(20, 1);
    let (mut world, producers, followers) = at_the_tip(&chain, 10, 1, &[Config::default()]);
    world.run_until(MINUTE, |_| false);
    let status = world.machine(followers[0]).status();
    assert_eq!((status.counters.timeouts, status.peers[0].timeouts), (0, 0));
    assert_eq!(world.machine(producers[0]).status().parked, 4);
    assert!(status.synced);
    produce(&mut world, &producers, &chain, 10, Duration::from_millis(100));
    let (_, behind) = run_to_the_end(&mut world, producers[0], &followers, &chain);
    assert!(behind <= Duration::from_millis(40), "{behind:?}");
}

#[test]
fn a_follower_far_behind_waits_for_what_is_to_come() {
    let chain = Chain::of(900, 1);
    let mut world = World::new(Pace::default());
    let server = world.add(Config::default(), chain.all());
    let client = world.add(Config::default(), chain.first(0));
    world.connect(client, server);
    let early = Rc::new(RefCell::new(false));
    let seen = Rc::clone(&early);
    world.act(Duration::ZERO, move |world| {
        let far = world.machine(client).status().queued.index < CommitIndex::new(700);
        *seen.borrow_mut() |= far && asked_to_wait(world, client) > 0;
        far.then_some(Duration::from_millis(1))
    });
    must_reach(&mut world, client, chain.tip());
    assert!(!*early.borrow());
    world.run_until(SECOND, |_| false);
    assert!(asked_to_wait(&world, client) > 0);
}

#[test]
fn a_node_with_its_own_consensus_has_everything_sent_to_it_too() {
    let chain = Chain::of(110, 1);
    let (mut world, producers, _) = at_the_tip(&chain, 10, 2, &[]);
    world.connect(producers[0], producers[1]);
    world.run_until(SECOND, |_| false);
    produce(&mut world, &producers, &chain, 10, Duration::from_millis(50));
    run_to_the_end(&mut world, producers[0], &producers[1..], &chain);
    for producer in producers {
        let traffic = world.traffic(producer);
        assert!(traffic.fetched_bytes * 10 <= traffic.needed_bytes, "{traffic:?}");
    }
}

/// What a follower does to a server whose answers to requests that waited are changed by `tamper`.
fn offences_for(tamper: impl FnMut(Vec<ResponsePart>) -> Vec<ResponsePart> + 'static) -> usize {
    let chain = Chain::of(60, 1);
    let (mut world, producers, followers) = at_the_tip(&chain, 10, 2, &[Config::default()]);
    let mut tamper = tamper;
    world.set_hostile(producers[0]);
    world.tamper(producers[0], move |request, reply| match (request, reply) {
        (Request::Commits(FetchCommits { wait, .. }), Reply::Parts(parts)) if !wait.is_zero() => {
            Reply::Parts(tamper(parts))
        }
        (_, reply) => reply,
    });
    world.run_until(SECOND, |_| false);
    produce(&mut world, &producers, &chain, 10, Duration::from_millis(50));
    run_to_the_end(&mut world, producers[1], &followers, &chain);
    let liar: PeerId = world.peer(producers[0]);
    world.disconnected(followers[0]).iter().filter(|(peer, _)| *peer == liar).count()
}

#[test]
fn blocks_that_are_not_the_commits_own_or_too_many_pass() {
    let one_more = |mut parts: Vec<ResponsePart>| {
        if let Some(ResponsePart::Commits { blocks, .. }) = parts.last_mut() {
            blocks.extend(blocks.last().cloned());
        }
        parts
    };
    let swapped = |mut parts: Vec<ResponsePart>| {
        if let Some(ResponsePart::Commits { blocks, .. }) = parts.last_mut() {
            blocks.reverse();
        }
        parts
    };
    let before_commits = |mut parts: Vec<ResponsePart>| {
        parts.reverse();
        parts
    };
    assert_eq!(offences_for(one_more), 1);
    assert_eq!(offences_for(swapped), 1);
    assert_eq!(offences_for(before_commits), 1);
}

#[test]
fn blocks_that_did_not_fit_the_answer_are_never_fetched() {
    let without_last = |mut parts: Vec<ResponsePart>| {
        if let Some(ResponsePart::Commits { blocks, .. }) = parts.last_mut() {
            blocks.pop();
        }
        parts
    };
    assert_eq!(offences_for(without_last), 0);
}
