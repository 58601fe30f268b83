//! What a machine says about one commit, and why.

mod common;

use common::{Chain, MINUTE, certifiable, observed, small_requests, world};
use soma_sync_core::{
    Command, Config, Event, SyncMachine, Timestamp,
    command::{Halt, Stall},
    config::Limits,
    event::RequestId,
    explain::{Ability, Ask, Asked, Blocks, Explanation, Obstacle, Stage, Timer},
    request::{Request, RequestFailure, ResponsePart},
    types::{CommitDigest, CommitIndex, CommitRef, PeerId},
};
use soma_sync_sim::world::{Pace, Reply, World};
use std::{cell::RefCell, collections::BTreeSet, time::Duration};

fn at(index: u32) -> CommitIndex {
    CommitIndex::new(index)
}

fn name(stage: Stage) -> &'static str {
    match stage {
        Stage::Pruned { .. } => "pruned",
        Stage::Stored { .. } => "stored",
        Stage::Storing => "storing",
        Stage::Beyond { .. } => "beyond",
        Stage::Missing => "missing",
        Stage::Requested => "requested",
        Stage::Certifying => "certifying",
        Stage::Certified(_) => "certified",
    }
}

/// What must hold of any explanation.
fn check(machine: &SyncMachine, told: &Explanation) {
    let first = |ask: &&Ask| !ask.second && ask.what == Asked::Commit;
    let index = told.index;
    assert_eq!(told.next.map(|(at, _)| at), machine.poll_timeout(), "{told}");
    assert!(told.requests.iter().all(|ask| ask.sent <= told.now && ask.deadline > told.now), "{told}");
    assert!(told.failed.iter().all(|(_, until)| *until > told.now), "{told}");
    match told.stage {
        Stage::Pruned { lowest } => assert!(index < lowest),
        Stage::Stored { .. } | Stage::Storing => assert!(index <= told.queued),
        Stage::Beyond { horizon } => assert!(index > horizon),
        Stage::Missing => assert_eq!(told.requests.iter().find(first), None, "{told}"),
        Stage::Requested => {
            assert!(told.requests.iter().any(|ask| ask.what <= Asked::CommitToCome), "{told}");
        }
        Stage::Certifying => assert!(index > told.queued),
        Stage::Certified(blocks) => {
            let asked = told.requests.iter().any(|ask| matches!(ask.what, Asked::Blocks(_)));
            assert!(blocks.requested == 0 || asked, "{told}");
            let complete = blocks.held + blocks.staged == blocks.total();
            assert!(complete || index >= told.awaited, "{told}");
        }
    }
}

#[test]
fn a_stage_is_never_reported_or_contradicts_what_is_under_way() {
    let chain = Chain::of(60, 3);
    let config = Config { look_ahead_commits: 20, ..small_requests() };
    let (mut world, client, _) = world(&chain, config, 0, 2);
    let seen: RefCell<BTreeSet<&str>> = RefCell::default();
    let blocks: RefCell<Blocks> = RefCell::default();
    assert!(world.run_until(MINUTE, |world| {
        let machine = world.machine(client);
        for index in (0..=70).chain([u32::MAX]).map(CommitIndex::new) {
            let told = machine.explain(index);
            check(machine, &told);
            seen.borrow_mut().insert(name(told.stage));
            if let Stage::Certified(now) = told.stage {
                let mut most = blocks.borrow_mut();
                most.missing = most.missing.max(now.missing);
                most.requested = most.requested.max(now.requested);
                most.checking = most.checking.max(now.checking);
                most.held = most.held.max(now.held);
                assert_eq!(now.total(), 5);
            }
        }
        certifiable(world, client) == chain.tip() && machine.status().delivered == chain.tip().index
    }));
    let expected = ["beyond", "certified", "certifying", "missing", "requested", "stored", "storing"];
    assert_eq!(seen.into_inner().into_iter().collect::<Vec<_>>(), expected);
    let most = blocks.into_inner();
    assert!(most.requested > 0 && most.checking > 0 && most.held > 0, "{most:?}");
    let machine = world.machine(client);
    let stored = Stage::Stored { certifiable: true, delivered: true };
    assert_eq!(machine.explain(chain.tip().index).stage, stored);
    assert_eq!(machine.explain(chain.tip().index).obstacles, []);
    assert_eq!(machine.explain(at(81)).stage, Stage::Beyond { horizon: at(80) });
}

#[test]
fn a_commit_that_was_given_up_counts_as_stored() {
    let chain = Chain::of(10, 1);
    let mut store = chain.all();
    store.prune(at(5));
    let mut world = World::new(Pace::default());
    let node = world.add(Config::default(), store);
    let stage = |index| world.machine(node).explain(at(index)).stage;
    assert_eq!(stage(4), Stage::Pruned { lowest: at(5) });
    assert_eq!(stage(5), Stage::Stored { certifiable: true, delivered: true });
}

#[test]
fn a_silent_peer_is_not_named_for_what_it_was_asked() {
    let chain = Chain::of(30, 1);
    let (mut world, client, servers) = world(&chain, small_requests(), 0, 1);
    world.tamper(servers[0], |request, reply| match request {
        Request::Commits(_) => Reply::Stuck(Vec::new()),
        _ => reply,
    });
    let asked = |world: &World| world.machine(client).explain(at(7)).stage == Stage::Requested;
    assert!(world.run_until(MINUTE, asked));
    let told = world.machine(client).explain(at(7));
    let [ask] = told.requests[..] else { panic!("{told}") };
    assert_eq!(
        (ask.peer, ask.what, ask.second, ask.received),
        (world.peer(servers[0]), Asked::Commit, false, 0)
    );
    // Its time is up, and it is not asked again at once.
    assert!(world.run_until(MINUTE, |world| world.machine(client).status().counters.timeouts > 0));
    let told = world.machine(client).explain(at(1));
    assert_eq!((told.stage, told.now), (Stage::Missing, ask.deadline));
    let server = world.peer(servers[0]);
    assert!(matches!(told.failed[..], [(peer, until)] if peer == server && until > told.now), "{told}");
    assert!(matches!(told.peers[..], [(_, Ability::Resting { .. })]), "{told}");
    assert!(told.to_string().contains("did not deliver it"), "{told}");
}

#[test]
fn it_is_not_said_that_a_second_peer_was_asked() {
    let chain = Chain::of(4, 1);
    let (mut world, client, servers) = world(&chain, small_requests(), 0, 2);
    for server in servers {
        world.tamper(server, |request, reply| match request {
            Request::Blocks(_) => Reply::Stuck(Vec::new()),
            _ => reply,
        });
    }
    assert!(world.run_until(MINUTE, |world| world.machine(client).status().counters.hedges > 0));
    let told = world.machine(client).explain(at(1));
    let second: Vec<_> = told.requests.iter().map(|ask| (ask.second, ask.what)).collect();
    assert_eq!(second, [(false, Asked::Blocks(5)), (true, Asked::Blocks(5))]);
    assert_eq!(told.stage, Stage::Certified(Blocks { requested: 5, ..Blocks::default() }));
}

/// A machine driven by hand.
struct Hand {
    machine: SyncMachine,
    now: Timestamp,
    asked: Vec<(RequestId, PeerId, Request)>,
}

impl Hand {
    fn new(chain: &Chain, config: Config) -> Self {
        let now = Timestamp::from_micros(1_000_000);
        let machine = SyncMachine::new(config, chain.first(0).start(), now, [7; 32]).unwrap();
        Self { machine, now, asked: Vec::new() }
    }

    fn tell(&mut self, event: Event) {
        self.machine.handle(self.now, event);
        while let Some(command) = self.machine.poll_command() {
            if let Command::SendRequest { id, peer, request, .. } = command {
                self.asked.push((id, peer, request));
            }
        }
    }

    fn finish(&mut self, id: RequestId, part: Option<ResponsePart>) {
        if let Some(part) = part {
            self.tell(Event::ResponsePart { id, part });
        }
        self.tell(Event::RequestFinished { id, result: Ok(()) });
    }

    /// The request of some kind to a peer that is in flight.
    fn request(&mut self, peer: u8, is: fn(&Request) -> bool) -> RequestId {
        let found = self.asked.iter().position(|(_, to, request)| *to == id_of(peer) && is(request));
        self.asked.remove(found.expect("it was asked")).0
    }

    /// A peer connects and says which chain it is on.
    fn connect(&mut self, chain: &Chain, peer: u8) {
        self.tell(Event::PeerConnected { peer: id_of(peer) });
        let id = self.request(peer, |request| matches!(request, Request::CommitInfo(_)));
        let chain_id = Some(chain.genesis.chain_id());
        self.finish(id, Some(ResponsePart::CommitInfo { commit: None, chain_id }));
    }

    /// And how far it is.
    fn claim(&mut self, peer: u8, lowest: u32, highest: u32) {
        let id = self.request(peer, |request| matches!(request, Request::Availability { .. }));
        self.finish(id, Some(ResponsePart::Availability { highest: at(highest), lowest: at(lowest) }));
    }

    fn ability(&self, peer: u8, index: u32) -> Ability {
        let told = self.machine.explain(at(index));
        check(&self.machine, &told);
        told.peers.into_iter().find(|(id, _)| *id == id_of(peer)).expect("it is shown").1
    }

    fn obstacles(&self, index: u32) -> Vec<Obstacle> {
        let told = self.machine.explain(at(index));
        check(&self.machine, &told);
        told.obstacles
    }
}

fn id_of(peer: u8) -> PeerId {
    PeerId::new([peer; 32])
}

fn is_commits(request: &Request) -> bool {
    matches!(request, Request::Commits(_))
}

#[test]
fn a_peer_that_is_not_asked_is_given_a_wrong_reason() {
    let chain = Chain::of(10, 1);
    let mut hand = Hand::new(&chain, Config { look_ahead_commits: 1_000, ..small_requests() });
    assert_eq!(hand.machine.explain(at(1)).peers, []);
    hand.tell(Event::PeerConnected { peer: id_of(1) });
    assert_eq!(hand.ability(1, 1), Ability::NotChecked);
    hand.connect(&chain, 2);
    assert_eq!(hand.ability(2, 1), Ability::NoClaim);
    hand.claim(2, 30, 50);
    assert_eq!(hand.ability(2, 29), Ability::Pruned { lowest: at(30) });
    assert_eq!(hand.ability(2, 51), Ability::NotClaimed { highest: at(50), cut: false });
    assert_eq!(
        hand.ability(2, 50),
        Ability::Full { in_flight: 2, limit: 2 },
        "two of ten each are in flight"
    );
    hand.connect(&chain, 3);
    hand.claim(3, 0, 10);
    assert_eq!(hand.ability(3, 10), Ability::Able, "somebody is asked for all that it has");

    // A request that comes to nothing.
    let lost = hand.request(3, is_commits);
    hand.tell(Event::RequestFinished { id: lost, result: Err(RequestFailure::Reset) });
    let Ability::Resting { until } = hand.ability(3, 10) else { panic!("{:?}", hand.ability(3, 10)) };
    hand.now = until;
    hand.tell(Event::Tick);
    assert_eq!(hand.ability(3, 10), Ability::NotClaimed { highest: at(0), cut: true });
    let claim = hand.machine.explain(at(1)).failed;
    assert!(matches!(claim[..], [(peer, until)] if peer == id_of(3) && until > hand.now), "{claim:?}");
    // It is believed again before it is asked for the same.
    hand.tell(Event::PeerDisconnected { peer: id_of(3) });
    hand.now = hand.now.saturating_add(Duration::from_secs(2));
    hand.connect(&chain, 3);
    hand.claim(3, 0, 10);
    assert!(matches!(hand.ability(3, 1), Ability::Avoided { .. }), "{:?}", hand.ability(3, 1));

    // A provable offence.
    let id = hand.asked.iter().rfind(|(_, peer, _)| *peer == id_of(2)).expect("it is asked for commits").0;
    hand.tell(Event::ResponsePart { id, part: ResponsePart::Push { timestamp_ms: 0 } });
    hand.tell(Event::PeerDisconnected { peer: id_of(2) });
    let until = hand.now.saturating_add(Config::default().ban);
    assert_eq!(hand.ability(2, 50), Ability::Banned { until }, "it is kept out, though not connected");
}

#[test]
fn a_peer_that_is_left_for_others_seems_able_or_out_of_reach() {
    let chain = Chain::of(10, 1);
    let (mut world, client, servers) = world(&chain, small_requests(), 0, 2);
    world.tamper(servers[0], |request, reply| match request {
        Request::Commits(_) => Reply::Broken(Vec::new(), RequestFailure::Reset),
        _ => reply,
    });
    world.tamper(servers[1], |request, reply| match request {
        Request::Commits(_) => Reply::Stuck(Vec::new()),
        _ => reply,
    });
    let ability = |world: &World| {
        let told = world.machine(client).explain(at(1));
        check(world.machine(client), &told);
        told.peers.iter().find(|(id, _)| *id == world.peer(servers[0])).map(|(_, ability)| *ability)
    };
    let left = |world: &World| matches!(ability(world), Some(Ability::AtNeed { .. }));
    assert!(world.run_until(10 * MINUTE, left), "{}", world.machine(client).explain(at(1)));
}

#[test]
fn what_blocks_everything_is_not_said() {
    let chain = Chain::of(40, 1);
    let fails = |world: &World, client, index| world.machine(client).explain(at(index)).obstacles;

    // Storage fails.
    let (mut world_, client, _) = world(&chain, small_requests(), 0, 1);
    world_.fail_store(client, true);
    world_.run_until(Duration::from_secs(1), |_| false);
    assert_eq!(
        fails(&world_, client, 39),
        [Obstacle::Stalled(Stall::Storage), Obstacle::Storage { batches: 2 }]
    );

    // A pinned commit is contradicted.
    let pinned = CommitRef { index: at(1), digest: CommitDigest::new([9; 32]) };
    let config = Config { pinned_commits: vec![pinned], ..Config::default() };
    let (mut world_, client, _) = world(&chain, config, 0, 0);
    world_.inject(client, observed(&chain.commits[0]));
    world_.run_until(Duration::from_secs(1), |_| false);
    let found = fails(&world_, client, 1);
    let [Obstacle::Halted(halt)] = &found[..] else { panic!("{found:?}") };
    assert!(matches!(**halt, Halt::PinnedContradicted { .. }));

    // Storage is slow.
    let (mut world_, client, _) = world(&chain, Config { max_store_batches: 1, ..small_requests() }, 0, 1);
    world_.set_pace(client, Duration::from_millis(1), Duration::from_secs(10));
    let stage = |world: &World| name(world.machine(client).explain(at(1)).stage);
    assert!(world_.run_until(Duration::from_secs(5), |world| stage(world) == "storing"));
    assert_eq!(fails(&world_, client, 39).last(), Some(&Obstacle::Storage { batches: 1 }));
    assert_eq!(fails(&world_, client, 0), [], "nothing is in the way of what is stored");
}

#[test]
fn what_keeps_us_from_asking_is_not_said() {
    let chain = Chain::of(40, 1);
    // Two requests in all, each about ten commits.
    let mut hand = Hand::new(&chain, Config { max_requests: 2, ..small_requests() });
    hand.connect(&chain, 1);
    hand.claim(1, 0, 40);
    assert_eq!(hand.obstacles(21), [Obstacle::Requests { limit: 2 }]);
    let local = hand.request(1, is_commits);
    hand.tell(Event::RequestFinished { id: local, result: Err(RequestFailure::Local) });
    let until = hand.now.saturating_add(Duration::from_millis(100));
    assert_eq!(hand.obstacles(1), [Obstacle::LocalRest { until }]);
    assert_eq!(hand.machine.explain(at(1)).next, Some((until, Timer::LocalRestOver)));

    // A budget in which there is room for one answer ahead of the frontier's share.
    let limits = Limits { max_block_bytes: 64 * 1024, max_blocks_per_commit: 100, ..Limits::default() };
    let tight = Config { limits, max_fetch_response_bytes: 64 * 1024, ..small_requests() };
    let tight = Config { max_buffered_bytes: tight.frontier_bytes() * 2, ..tight };
    let needed = tight.answer_bytes() * 2;
    let mut hand = Hand::new(&chain, tight.clone());
    hand.connect(&chain, 1);
    hand.claim(1, 0, 40);
    let free = tight.max_buffered_bytes - tight.frontier_bytes() - needed;
    assert_eq!(hand.obstacles(21), [Obstacle::Budget { needed, free }]);
    assert_eq!(hand.obstacles(5), [], "it is asked for");
}

#[test]
fn a_commit_of_an_epoch_that_has_not_begun_looks_merely_missing() {
    let (chain, next) = (Chain::of(40, 1), Chain::of(40, 40));
    let (mut world, client, servers) = world(&chain, small_requests(), 0, 1);
    world.tamper(servers[0], move |request, reply| match request {
        Request::Commits(fetch) if fetch.start == at(11) => {
            let commits = vec![next.commits[10].header.payload.clone()];
            let buffer_bytes = commits[0].len() as u64;
            let (certifiers, blocks) = (Vec::new(), Vec::new());
            Reply::Parts(vec![ResponsePart::Commits { commits, certifiers, blocks, buffer_bytes }])
        }
        Request::Commits(_) => Reply::Stuck(Vec::new()),
        _ => reply,
    });
    let later = |world: &World| world.machine(client).explain(at(11));
    let expected = Obstacle::LaterEpoch { from: at(11) };
    assert!(world.run_until(MINUTE, |world| later(world).obstacles.contains(&expected)));
    assert_eq!(later(&world).stage, Stage::Beyond { horizon: at(10) });
    assert!(!world.machine(client).explain(at(10)).obstacles.contains(&expected));
}

#[test]
fn the_text_leaves_something_out() {
    let peer = id_of(0xab);
    let now = Timestamp::from_micros(10_000_000);
    let after = |ms: u64| Timestamp::from_micros(10_000_000 + ms * 1_000);
    let told = Explanation {
        index: at(12),
        now,
        stage: Stage::Certified(Blocks { missing: 1, requested: 2, checking: 0, held: 3, staged: 4 }),
        queued: at(9),
        awaited: at(11),
        requests: vec![Ask {
            id: RequestId::new(4),
            peer,
            sent: Timestamp::from_micros(8_499_999),
            deadline: after(3_500),
            received: 70,
            what: Asked::Blocks(2),
            second: true,
        }],
        failed: vec![(peer, after(250))],
        peers: vec![(peer, Ability::Banned { until: after(60_000) })],
        obstacles: vec![Obstacle::Budget { needed: 9, free: 5 }, Obstacle::Stalled(Stall::Storage)],
        next: Some((after(20), Timer::PeerDue { peer })),
    };
    let expected = "\
commit 12: certified; of 10 blocks 7 are here, 1 are missing, 2 are asked for (4 in storage already)
handed to storage up to 9; the first that is not complete is 11
asked: 2 of its blocks of PEER 1.5s ago beside another peer; 70 bytes came; given up in 3.5s if no more comes
failed: PEER did not deliver it, and is asked for it again in 250ms
in the way: the byte budget: an answer needs 9, and 5 are free for it
in the way: stalled: the store failed and has not been reopened
peer PEER: kept out for an offence; back in 60s
next: PEER is polled, or its rest is over, in 20ms";
    assert_eq!(told.to_string(), expected.replace("PEER", &"ab".repeat(32)));
    let quiet = Explanation {
        requests: vec![],
        failed: vec![],
        peers: vec![],
        obstacles: vec![],
        next: None,
        ..told
    };
    assert!(
        quiet.to_string().ends_with("is 11\nno peer is connected\nnext: nothing, by time alone"),
        "{quiet}"
    );
}
