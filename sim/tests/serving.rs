//! Servers under load: floods, the same dear request again and again, and many who ask at once.

mod common;

use common::{Chain, MINUTE, certifiable, observed};
use soma_sync_core::{
    Config, Counters, Event, Status,
    request::{FetchBlocks, FetchCommits, Request},
    types::{BlockRef, CommitIndex},
};
use soma_sync_sim::{
    chain::ChainSpec,
    world::{Link, NodeId, Pace, World},
};
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    time::Duration,
};

const SECOND: Duration = Duration::from_secs(1);

/// What a server admits of one peer in a second, in the tests of floods.
const RATE: u32 = 200;

/// A chain of some megabytes.
fn large_chain() -> Chain {
    Chain::make(ChainSpec {
        commits: 200,
        blocks_per_commit: 5,
        payload_bytes: 20_000,
        committee: 4,
        epochs: 1,
        seed: 1,
    })
}

/// A world where a second is long: answers take their time.
fn slow_world() -> World {
    World::new(Pace { bandwidth: 10_000_000, ..Pace::default() })
}

fn server_config() -> Config {
    Config {
        max_serving: 64,
        max_data_requests_per_second: RATE,
        max_small_requests_per_second: RATE,
        ..Config::default()
    }
}

fn slow_link() -> Link {
    Link { bandwidth: 50_000, ..Link::from(Pace::default()) }
}

/// All blocks of some commits.
fn refs(chain: &Chain, first: usize, commits: usize) -> Vec<BlockRef> {
    chain.commits[first..first + commits].iter().flat_map(|made| made.header.blocks.iter().copied()).collect()
}

/// A node that asks `server` for what `request` says, so many times in a second, from the first moment on.
fn flooder(
    world: &mut World,
    server: NodeId,
    link: Link,
    per_second: u32,
    mut request: impl FnMut(u32) -> Request + 'static,
) -> NodeId {
    let flooder = world.add(Config::default(), world.store(server).clone());
    world.set_hostile(flooder);
    world.set_link(server, flooder, link);
    world.connect(flooder, server);
    let mut asked = 0;
    world.act(Duration::ZERO, move |world| {
        world.ask(flooder, server, request(asked));
        asked += 1;
        Some(SECOND / per_second)
    });
    flooder
}

/// A different dear request each time.
fn dear(chain: &Chain) -> impl FnMut(u32) -> Request + use<> {
    let refs = refs(chain, 0, 100);
    move |count| {
        let refs = refs.iter().copied().cycle().skip(count as usize % 500).take(200).collect();
        Request::Blocks(FetchBlocks { refs, max_bytes: u64::MAX })
    }
}

/// Looks at a server every millisecond, and keeps the most that ever was served and waited at once.
fn watch(world: &mut World, server: NodeId) -> Rc<Cell<(usize, usize)>> {
    let most = Rc::new(Cell::new((0, 0)));
    let seen = Rc::clone(&most);
    world.act(Duration::ZERO, move |world| {
        let Status { serving, serve_queue, .. } = world.machine(server).status();
        let (most_serving, most_queued) = seen.get();
        seen.set((most_serving.max(serving), most_queued.max(serve_queue)));
        Some(Duration::from_millis(1))
    });
    most
}

/// How long a client takes beside so many flooders that read slowly, and the most that the server did at once.
fn time_beside(flooders: usize) -> (Duration, (usize, usize)) {
    let chain = large_chain();
    let mut world = slow_world();
    let server = world.add(server_config(), chain.all());
    for _ in 0..flooders {
        flooder(&mut world, server, slow_link(), 10 * RATE, dear(&chain));
    }
    let most = watch(&mut world, server);
    world.run_until(SECOND, |_| false);
    let client = world.add(Config::default(), chain.first(0));
    world.connect(client, server);
    let begun = world.now();
    assert!(world.run_until(10 * MINUTE, |world| certifiable(world, client) == chain.tip()));
    (world.now().saturating_since(begun), most.get())
}

#[test]
fn flooders_that_hold_on_to_their_answers_keep_an_honest_client_waiting() {
    let (alone, _) = time_beside(0);
    for flooders in [1, 6] {
        let (beside, (serving, queued)) = time_beside(flooders);
        assert!(beside.mul_f64(0.8) <= alone, "{beside:?} beside {flooders}, and {alone:?} alone");
        // What waits is what may, and of what is served there is as much left as each of them has.
        let most = usize::try_from(server_config().max_queued_per_peer).unwrap();
        assert!((flooders * most..=(flooders + 1) * most).contains(&queued), "{queued} wait");
        assert!((32..=64).contains(&serving), "{serving} are served");
    }
}

/// What a server counts of a flood over five seconds.
fn flooded(request: impl FnMut(u32) -> Request + 'static) -> (Counters, u64) {
    let chain = large_chain();
    let mut world = World::new(Pace::default());
    let server = world.add(server_config(), chain.all());
    flooder(&mut world, server, Link::from(Pace::default()), 10 * RATE, request);
    world.run_until(SECOND * 5, |_| false);
    (world.machine(server).status().counters, world.traffic(server).refused)
}

#[test]
fn a_flood_is_answered_beyond_its_rate() {
    let small = |_| Request::Availability { timestamp_ms: 0 };
    let mut next = 0;
    let data = move |_| {
        next += 1;
        let (start, end) = (CommitIndex::new(next % 150 + 1), CommitIndex::new(next % 150 + 1));
        let max_bytes = 1 << 20;
        Request::Commits(FetchCommits { start, end, max_bytes, wait: Duration::ZERO, with_blocks: false })
    };
    for (counters, refused) in [flooded(small), flooded(data)] {
        // What may be asked in five seconds, in the one that was saved up, and what is still on its way.
        let asked = u64::from(RATE) * 50;
        let answered = asked - refused;
        assert!(answered <= u64::from(RATE) * 6 + 60, "{answered} of {asked}: {counters:?}");
        assert!(counters.refused_rate >= asked * 8 / 10, "{counters:?}");
    }
}

#[test]
fn a_peer_is_sent_more_bytes_in_a_second_than_it_may_be() {
    let chain = large_chain();
    let mut world = World::new(Pace::default());
    let rate = 4 << 20;
    let config = Config { max_served_bytes_per_second: rate, ..Config::default() };
    let server = world.add(config, chain.all());
    let greedy = flooder(&mut world, server, Link::from(Pace::default()), 50, dear(&chain));
    world.run_until(SECOND * 5, |_| false);
    // Five seconds, the one that was saved up, and the answer that used up the last of it.
    let fetched = world.traffic(greedy).fetched_bytes;
    assert!((rate..=7 * rate).contains(&fetched), "{fetched}");
}

#[test]
fn who_asks_for_much_at_once_is_served_more_or_less_than_who_asks_for_little() {
    let chain = large_chain();
    let mut world = slow_world();
    let config = Config { max_serving: 1, max_serving_per_peer: 1, ..Config::default() };
    let server = world.add(config, chain.all());
    let link = Link { bandwidth: 10_000_000, ..Link::from(Pace::default()) };
    let few = refs(&chain, 100, 100);
    let modest = move |count: u32| {
        let refs = few.iter().copied().cycle().skip(count as usize % 490).take(10).collect();
        Request::Blocks(FetchBlocks { refs, max_bytes: 256 * 1024 })
    };
    let greedy = flooder(&mut world, server, link, 50, dear(&chain));
    let modest = flooder(&mut world, server, link, 50, modest);
    world.run_until(SECOND * 30, |_| false);
    let [greedy, modest] = [greedy, modest].map(|node| world.traffic(node).fetched_bytes);
    assert!(greedy.abs_diff(modest) * 20 <= greedy + modest, "{greedy} and {modest}");
}

#[test]
fn the_same_dear_request_is_answered_again_and_again() {
    let chain = large_chain();
    let dearest = refs(&chain, 0, 40);
    let mut world = World::new(Pace::default());
    let server = world.add(Config::default(), chain.all());
    let again = Request::Blocks(FetchBlocks { refs: dearest, max_bytes: u64::MAX });
    let asked = again.clone();
    let asker = flooder(&mut world, server, Link::from(Pace::default()), 10, move |_| asked.clone());
    let answers = |world: &World| world.traffic(server).served_bytes / (200 * 20_000);
    world.run_until(SECOND * 3, |_| false);
    assert!(world.traffic(server).served_bytes > 0);
    assert!(answers(&world) <= 2, "{}", answers(&world));
    assert!(world.machine(server).status().counters.refused_repeats >= 25);
    // Anything else is none of that, and in the long run two come in four seconds.
    world.ask(asker, server, Request::Blocks(FetchBlocks { refs: refs(&chain, 1, 40), max_bytes: u64::MAX }));
    let before = world.traffic(server).served_bytes;
    world.run_until(SECOND / 2, |_| false);
    assert!(world.traffic(server).served_bytes - before > 200 * 20_000, "nothing else is answered");
    world.run_until(SECOND * 36, |_| false);
    assert!((18..=23).contains(&answers(&world)), "{}", answers(&world));
}

/// When each of fifty clients that ask at the same moment has everything.
fn fifty_at_once() -> (Vec<Duration>, Counters) {
    let chain = large_chain();
    let mut world = slow_world().without_checks();
    let server = world.add(Config { max_serving: 32, ..Config::default() }, chain.all());
    let clients: Vec<_> = (0..50).map(|_| world.add(Config::default(), chain.first(0))).collect();
    clients.iter().for_each(|client| world.connect(*client, server));
    let (tip, watched) = (chain.tip(), clients.clone());
    let done = Rc::new(RefCell::new(vec![None; clients.len()]));
    let seen = Rc::clone(&done);
    world.act(Duration::ZERO, move |world| {
        for (client, done) in watched.iter().zip(seen.borrow_mut().iter_mut()) {
            if done.is_none() && certifiable(world, *client) == tip {
                *done = Some(world.now().saturating_since(Default::default()));
            }
        }
        Some(Duration::from_millis(10))
    });
    let all_done = |_: &World| done.borrow().iter().all(Option::is_some);
    assert!(world.run_until(MINUTE, all_done), "{:?}", done.borrow());
    let done = done.borrow().iter().copied().flatten().collect();
    (done, world.machine(server).status().counters)
}

#[test]
fn of_fifty_clients_that_ask_at_once_some_wait_for_ever_and_some_for_nothing() {
    let (done, counters) = fifty_at_once();
    let (first, last) = (done.iter().min().unwrap(), done.iter().max().unwrap());
    assert_eq!(done.len(), 50);
    assert!(counters.queued_requests > 0, "there is room for all: {counters:?}");
    assert!(*last <= first.mul_f64(1.5), "{first:?} to {last:?}: {counters:?}");
}

#[test]
fn who_hangs_up_keeps_slots_and_places() {
    let chain = large_chain();
    let mut world = World::new(Pace::default());
    let server = world.add(server_config(), chain.all());
    let gone = flooder(&mut world, server, slow_link(), 10 * RATE, dear(&chain));
    world.run_until(SECOND, |_| false);
    let served = |world: &World| {
        let Status { serving, serve_queue, .. } = world.machine(server).status();
        (serving, serve_queue)
    };
    assert_eq!(served(&world), (32, 4));
    world.disconnect(gone, server);
    world.run_until(Duration::from_millis(1), |_| false);
    assert_eq!(served(&world), (0, 0));
}

#[test]
fn requests_that_waited_for_a_commit_pass_those_that_wait_for_a_slot() {
    let chain = large_chain();
    let mut world = World::new(Pace::default());
    let config = Config { max_serving_per_peer: 1, ..Config::default() };
    let server = world.add(config, chain.first(10));
    let follower = world.add(Config { follow_requests: 0, ..Config::default() }, chain.first(10));
    world.set_link(server, follower, slow_link());
    world.connect(server, follower);
    let start = CommitIndex::new(11);
    // Eight may wait for a commit. Then one of them is served, four wait on, two find no room, and one asks for what
    // it has had twice.
    for max_bytes in [0, 0, 0, 1, 2, 3, 4, 5] {
        let (wait, max_bytes) = (SECOND * 10, (4 << 20) - max_bytes);
        let fetch = FetchCommits { start, end: start, max_bytes, wait, with_blocks: true };
        world.ask(follower, server, Request::Commits(fetch));
    }
    world.run_until(SECOND, |_| false);
    assert_eq!(world.machine(server).status().parked, 8);
    world.inject(server, observed(&chain.commits[10]));
    let votes = chain.commits[10].certifiers.iter().map(|block| block.payload.clone()).collect();
    world.inject(server, Event::VotesObserved { blocks: votes });
    world.run_until(SECOND / 10, |_| false);
    let status = world.machine(server).status();
    assert_eq!((status.parked, status.serving, status.serve_queue), (0, 1, 4));
    assert_eq!((status.counters.refused_room, status.counters.refused_repeats), (2, 1));
    assert!(world.run_until(MINUTE, |world| world.machine(server).status().serving == 0));
}
