//! The head of line: what is done where one peer holds up everything.

mod common;

use common::{Chain, MINUTE, certifiable, must_reach, small_requests};
use soma_sync_core::{Config, request::Request};
use soma_sync_sim::world::{NodeId, Pace, Reply, World};
use std::time::Duration;

/// A client that lacks a chain, one honest server, and one that does as `manner` says.
fn with_one(chain: &Chain, manner: impl FnMut(&Request, Reply) -> Reply + 'static) -> (World, NodeId) {
    let mut world = World::new(Pace::default());
    world.judged_by(&chain.commits);
    let client = world.add(small_requests(), chain.first(0));
    // The first of two that are equally good is asked first.
    let (odd, honest) =
        (world.add(Config::default(), chain.all()), world.add(Config::default(), chain.all()));
    world.set_hostile(odd);
    world.tamper(odd, manner);
    for server in [odd, honest] {
        world.connect(client, server);
    }
    (world, client)
}

/// How long the client takes, and how often it asked a second peer.
fn time_to_tip(chain: &Chain, manner: impl FnMut(&Request, Reply) -> Reply + 'static) -> (Duration, u64) {
    let (mut world, client) = with_one(chain, manner);
    must_reach(&mut world, client, chain.tip());
    (world.now().saturating_since(Default::default()), world.machine(client).status().counters.hedges)
}

#[test]
fn a_peer_that_stops_sending_commits_or_blocks_holds_up_everything_until_its_time_is_up() {
    let chain = Chain::of(600, 1);
    let turns = |commits: bool| {
        let mut good = 3;
        time_to_tip(&chain, move |request, reply| match request {
            Request::Commits(_) if commits => served_or_stuck(&mut good, reply),
            Request::Blocks(_) if !commits => served_or_stuck(&mut good, reply),
            _ => reply,
        })
    };
    for (time, hedges) in [turns(true), turns(false)] {
        assert!(time < Duration::from_secs(5), "{time:?}");
        assert!(hedges > 0);
    }
}

fn served_or_stuck(good: &mut u32, reply: Reply) -> Reply {
    match good.checked_sub(1) {
        Some(left) => {
            *good = left;
            reply
        }
        None => Reply::Stuck(Vec::new()),
    }
}

#[test]
fn a_second_peer_is_asked_where_nobody_is_slow() {
    let chain = Chain::of(300, 2);
    let (time, hedges) = time_to_tip(&chain, |_, reply| reply);
    assert_eq!(hedges, 0, "{time:?}");
}

#[test]
fn who_was_overtaken_is_blamed() {
    let chain = Chain::of(300, 1);
    let (mut world, client) = with_one(&chain, |request, reply| match (request, reply) {
        (Request::Blocks(_), Reply::Parts(_)) => Reply::Stuck(Vec::new()),
        (_, reply) => reply,
    });
    world.run_until(MINUTE, |world| certifiable(world, client) == chain.tip());
    assert_eq!(world.disconnected(client), []);
}
