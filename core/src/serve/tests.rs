use super::*;
use crate::types::{CommitIndex, CommitRange};

const SECOND: u64 = 1_000_000;

/// A server, its clock, and an endless supply of answers that nobody has had before.
struct Server {
    serve: Serve,
    now: Timestamp,
    next: u32,
}

impl Server {
    fn new(config: &Config) -> Self {
        Self { serve: Serve::new(config), now: Timestamp::ZERO, next: 0 }
    }

    fn with_slots(max_serving: u32, max_serving_per_peer: u32) -> Self {
        Self::new(&Config { max_serving, max_serving_per_peer, ..Config::default() })
    }

    fn pass(&mut self, micros: u64) {
        self.now = self.now.saturating_add(Duration::from_micros(micros));
    }

    /// One more request for an answer of at most so many bytes, and what became of it.
    fn ask(&mut self, from: PeerId, max_bytes: u64) -> Result<InboundId, Refused> {
        self.next = self.next.saturating_add(1);
        self.ask_for(from, plan(self.next, max_bytes))
    }

    fn ask_for(&mut self, from: PeerId, plan: ServePlan) -> Result<InboundId, Refused> {
        self.next = self.next.saturating_add(1);
        let id = InboundId::new(u64::from(self.next));
        self.serve.asked(from, Kind::Data, self.now)?;
        self.serve.admit(id, from, plan, self.now)?;
        Ok(id)
    }

    /// Those that are served now, and were not before.
    fn begun(&mut self) -> Vec<InboundId> {
        let now = self.now;
        let begun = core::iter::from_fn(|| self.serve.begin(now)).map(|begun| begun.id).collect();
        assert_eq!(self.serve.check_invariants(), Ok(()));
        begun
    }

    fn done(&mut self, id: InboundId, bytes: u64) -> Finished {
        self.serve.finished(id, bytes, Duration::ZERO, self.now)
    }

    /// An answer is over for which its peer was waited for so many seconds.
    fn left(&mut self, id: InboundId, bytes: u64, seconds: u64) -> Finished {
        self.serve.finished(id, bytes, Duration::from_secs(seconds), self.now)
    }

    fn of(&self, peer: PeerId) -> usize {
        self.serve.clients.get(&peer).map_or(0, |client| client.serving)
    }
}

fn peer(number: u8) -> PeerId {
    PeerId::new([number; 32])
}

fn plan(start: u32, max_bytes: u64) -> ServePlan {
    let start = CommitIndex::new(start);
    ServePlan::Commits { range: CommitRange::single(start), last: start, max_bytes, with_blocks: false }
}

#[test]
fn an_honest_client_at_full_speed_is_refused() {
    let mut server = Server::new(&Config::default());
    let max_bytes = Config::default().answer_bytes();
    let mut under_way = VecDeque::new();
    // 4,000 answers of 125,000 bytes in a second, sixteen at a time, over five seconds.
    for _ in 0..20_000 {
        if under_way.len() == 16 {
            let id = under_way.pop_front().unwrap();
            assert_eq!(server.done(id, 125_000), Finished::Served);
        }
        server.serve.asked(peer(1), Kind::Small, server.now).unwrap();
        under_way.push_back(server.ask(peer(1), max_bytes).unwrap());
        server.begun();
        server.pass(SECOND / 4_000);
    }
    // Even where all sixteen are the largest that there are.
    under_way.drain(..).for_each(|id| assert_eq!(server.done(id, 125_000), Finished::Served));
    for _ in 0..16 {
        server.ask(peer(1), Config::default().certified_answer_bytes()).unwrap();
        assert_eq!(server.begun().len(), 1);
    }
}

#[test]
fn requests_pass_their_rate_or_one_kind_takes_from_the_other() {
    let config =
        Config { max_data_requests_per_second: 5, max_small_requests_per_second: 7, ..Config::default() };
    let mut server = Server::new(&config);
    let mut let_in = |kind, peer| {
        (0..50).filter(|_| server.serve.asked(peer, kind, Timestamp::from_micros(SECOND)).is_ok()).count()
    };
    assert_eq!((let_in(Kind::Data, peer(1)), let_in(Kind::Small, peer(1))), (5, 7));
    assert_eq!(let_in(Kind::Data, peer(2)), 5, "peers have nothing to do with one another");
}

#[test]
fn bytes_that_were_never_sent_are_paid_for_or_bytes_that_were_are_not() {
    let mib = 1024 * 1024;
    let config = Config { max_served_bytes_per_second: 10 * mib, ..Config::default() };
    let let_in = |sent: u64| {
        let mut server = Server::new(&config);
        let mut bytes = 0;
        for _ in 0..1_000 {
            if let Ok(id) = server.ask(peer(1), 4 * mib) {
                assert_eq!(server.begun(), [id]);
                server.pass(SECOND / 100);
                server.done(id, sent);
                bytes += sent;
            } else {
                server.pass(SECOND / 100);
            }
        }
        bytes
    };
    // Ten seconds, the one that was saved up, and an answer that was begun within it.
    assert!((105 * mib..=114 * mib).contains(&let_in(4 * mib)), "{}", let_in(4 * mib) / mib);
    assert_eq!(let_in(100_000), 100_000 * 1_000);
}

#[test]
fn the_same_answer_is_given_again_and_again() {
    let mut server = Server::new(&Config::default());
    for number in [1, 2] {
        let mut ask = || server.ask_for(peer(number), plan(1, 1_000));
        assert!(ask().is_ok() && ask().is_ok());
        assert_eq!([ask(), ask()], [Err(Refused::Repeated); 2]);
    }
    assert_eq!(server.begun().len(), 4);
    assert!(server.ask(peer(1), 1_000).is_ok());
}

#[test]
fn an_answer_that_was_cheap_or_broken_off_or_never_begun_counts_as_given() {
    let serve_timeout = Duration::from_secs(1);
    let config = Config { max_serving_per_peer: 1, serve_timeout, ..Config::default() };
    let mut server = Server::new(&config);
    let same = plan(1, 1_000);
    for (finish_after, bytes) in [(SECOND - 1, DEAR + 1), (SECOND - 1, DEAR), (SECOND, DEAR + 1)] {
        server.pass(10 * SECOND);
        let begun = server.ask_for(peer(1), same.clone()).unwrap();
        for _ in 0..3 {
            let waits = server.ask_for(peer(1), same.clone()).unwrap();
            assert_eq!(server.done(waits, 0), Finished::Waited);
        }
        let other = server.ask_for(peer(1), same.clone()).unwrap();
        assert_eq!(server.begun(), [begun]);
        server.pass(finish_after);
        server.done(begun, bytes);
        assert_eq!(server.begun(), [other]);
        let again = server.ask_for(peer(1), same.clone());
        assert_eq!(again.is_err(), finish_after < SECOND && bytes > DEAR, "{again:?}");
        server.done(other, DEAR + 1);
        server.begun().into_iter().for_each(|id| assert_eq!(server.done(id, 10), Finished::Served));
    }
}

#[test]
fn one_peer_takes_the_slot_of_the_next() {
    let mut server = Server::with_slots(12, 8);
    for _ in 0..8 {
        server.ask(peer(1), 1_000).unwrap();
        server.begun();
    }
    assert_eq!((server.of(peer(1)), server.serve.queued()), (6, 2), "as many as are free beside it");
    for number in 2..8 {
        server.ask(peer(number), 1_000).unwrap();
        server.begun();
        assert_eq!(server.of(peer(number)), 1);
    }
    assert_eq!(server.serve.free(), 0);
    server.ask(peer(9), 1_000).unwrap();
    assert_eq!(server.begun(), []);
    // Who holds more than its share gets no more before it has given some back.
    let held: Vec<_> = server.serve.serving.iter().map(|(id, of)| (*id, of.peer)).collect();
    for (id, _) in held.iter().filter(|(_, of)| *of == peer(1)).take(1) {
        server.done(*id, 1_000);
    }
    server.begun();
    assert_eq!((server.of(peer(1)), server.of(peer(9))), (5, 1));
}

#[test]
fn who_reads_nothing_holds_many_slots_again() {
    let mut server = Server::new(&Config::default());
    let asked = |server: &mut Server, number| {
        let let_in: Vec<_> = (0..4).filter_map(|_| server.ask(peer(number), 1 << 20).ok()).collect();
        server.begun();
        let_in
    };
    let [left, read, slow] = [1, 2, 3].map(|number| asked(&mut server, number));
    server.pass(10 * SECOND);
    left.iter().for_each(|id| assert_eq!(server.left(*id, 60_000, 10), Finished::Served));
    // However long it took because of us, or of a narrow link.
    read.iter().for_each(|id| assert_eq!(server.left(*id, 0, 4), Finished::Served));
    slow.iter().for_each(|id| assert_eq!(server.left(*id, 10 * unread::LEAST_READ, 10), Finished::Served));
    assert_eq!([1, 2, 3].map(|number| asked(&mut server, number).len()), [1, 4, 4]);
    assert_eq!(server.ask(peer(1), 1 << 20), Err(Refused::Unread));
    // Going away does not help.
    server.serve.gone(peer(1));
    assert_eq!(server.ask(peer(1), 1 << 20), Err(Refused::Unread));
    server.pass(20 * SECOND);
    assert_eq!(asked(&mut server, 1).len(), 4);
}

#[test]
fn a_queue_grows_without_bound_or_is_not_used() {
    let config = Config { max_serving: 2, max_queued: 6, ..Config::default() };
    let mut server = Server::new(&config);
    let mut let_in = |number| {
        let count = (0..20).filter(|_| server.ask(peer(number), 1_000).map(|_| server.begun()).is_ok());
        count.count()
    };
    assert_eq!([let_in(1), let_in(2), let_in(3), let_in(4)], [1 + 4, 1 + 2, 0, 0]);
    assert_eq!((server.serve.serving(), server.serve.queued()), (2, 6));
}

/// Bytes that each of two peers is sent over one slot, where their answers have so many bytes and may have more.
fn shares(answers: [(u64, u64); 2]) -> [u64; 2] {
    let mut server = Server::with_slots(1, 1);
    let mut sent = [0; 2];
    let mut under_way = VecDeque::new();
    for _ in 0..4_000 {
        for (number, (_, max_bytes)) in answers.iter().enumerate() {
            while let Ok(id) = server.ask(peer(u8::try_from(number).unwrap()), *max_bytes) {
                under_way.push_back((id, number));
            }
        }
        let begun = server.begun();
        server.pass(SECOND / 100);
        let id = begun.first().copied().or_else(|| server.serve.serving.keys().next().copied()).unwrap();
        let (_, number) = under_way.iter().find(|(of, _)| *of == id).copied().unwrap();
        sent[number] = u64::saturating_add(sent[number], answers[number].0);
        server.done(id, answers[number].0);
        assert_eq!(server.begun().len(), 1);
    }
    sent
}

#[test]
fn large_answers_take_turns_from_small_ones() {
    let mib = 1024 * 1024;
    for answers in [
        [(4 * mib, 4 * mib), (mib, mib)],
        [(mib, mib), (4 * mib, 4 * mib)],
        [(60 * mib, 60 * mib), (4 * mib, 4 * mib)],
        // What an answer did not need of what it might have had is not counted.
        [(2 * mib, 4 * mib), (4 * mib, 4 * mib)],
    ] {
        let [one, other] = shares(answers);
        assert!(one.abs_diff(other) * 20 < one + other, "{answers:?}: {one} {other}");
    }
}

#[test]
fn newcomers_hold_up_who_waits_already() {
    let mut server = Server::with_slots(1, 1);
    server.ask(peer(0), 1 << 20).unwrap();
    let mut serving = server.begun();
    let patient = server.ask(peer(1), 60 << 20).unwrap();
    for number in 2..40 {
        // Each stays for one small answer, and another comes in its place.
        server.ask(peer(number), 1 << 20).unwrap();
        server.pass(SECOND / 10);
        server.done(serving.remove(0), 1 << 20);
        serving = server.begun();
        if serving == [patient] {
            return;
        }
    }
    panic!("the patient one was never served");
}

#[test]
fn a_peer_that_goes_away_leaves_something_behind() {
    let mut server = Server::with_slots(4, 4);
    let ids: Vec<_> = (0..4).map(|_| server.ask(peer(1), 1_000).unwrap()).collect();
    assert_eq!(server.begun(), ids[..2]);
    assert_eq!(server.serve.gone(peer(1)), ids[2..]);
    assert_eq!((server.serve.queued(), server.serve.clients()), (0, 1), "its slots are still taken");
    assert_eq!(server.serve.check_invariants(), Ok(()));
    assert_eq!(server.done(ids[2], 0), Finished::Unknown);
    assert_eq!([server.done(ids[0], 1), server.done(ids[1], 1)], [Finished::Served; 2]);
    assert_eq!((server.serve.clients(), server.serve.free()), (0, 4));
    // One that comes back meanwhile stays, and one of whom nothing was being sent is forgotten at once.
    let id = server.ask(peer(1), 1_000).unwrap();
    server.begun();
    server.serve.gone(peer(1));
    server.serve.asked(peer(1), Kind::Small, server.now).unwrap();
    server.done(id, 1);
    assert_eq!(server.serve.clients(), 1);
    server.serve.gone(peer(1));
    assert_eq!((server.serve.clients(), server.serve.check_invariants()), (0, Ok(())));
}

#[test]
fn a_request_is_taken_in_twice() {
    let mut server = Server::with_slots(4, 4);
    let id = server.ask(peer(1), 1_000).unwrap();
    let again = |server: &mut Server| server.serve.admit(id, peer(1), plan(900, 1), server.now);
    assert_eq!(again(&mut server), Err(Refused::Room));
    server.begun();
    assert_eq!(again(&mut server), Err(Refused::Room));
    assert_eq!(server.done(InboundId::new(1_000), 5), Finished::Unknown);
}

#[test]
fn some_order_of_events_breaks_the_books() {
    for (max_serving, max_serving_per_peer, max_queued) in [(1, 1, 3), (3, 2, 5), (8, 8, 4), (20, 3, 100)] {
        let config = Config { max_serving, max_serving_per_peer, max_queued, ..Config::default() };
        let mut server = Server::new(&config);
        let mut rng = crate::rng::Rng::new([1; 32]);
        let (mut waiting, mut serving) = (Vec::new(), Vec::new());
        for _ in 0..20_000 {
            server.pass(rng.below(SECOND / 10));
            let from = peer(u8::try_from(rng.below(6)).unwrap());
            match rng.below(8) {
                0 if rng.below(4) == 0 => {
                    let dropped = server.serve.gone(from);
                    waiting.retain(|id| !dropped.contains(id));
                }
                0..4 => waiting.extend(server.ask(from, rng.below(80 << 20))),
                4 => waiting.extend(server.ask_for(from, plan(1, 1_000))),
                5 => waiting
                    .extend(server.ask_for(from, ServePlan::CommitInfo { index: CommitIndex::GENESIS })),
                6 if !waiting.is_empty() => {
                    let at = usize::try_from(rng.below(waiting.len() as u64)).unwrap();
                    assert_eq!(server.done(waiting.swap_remove(at), 0), Finished::Waited);
                }
                _ if !serving.is_empty() => {
                    let at = usize::try_from(rng.below(serving.len() as u64)).unwrap();
                    let bytes = rng.next_u64() >> rng.below(64);
                    assert_eq!(server.done(serving.swap_remove(at), bytes), Finished::Served);
                }
                _ => {}
            }
            let begun = server.begun();
            waiting.retain(|id| !begun.contains(id));
            serving.extend(begun);
            assert_eq!((waiting.len(), serving.len()), (server.serve.queued(), server.serve.serving()));
        }
        // Whatever is left is served in the end, and nothing stays.
        for number in 0..6 {
            assert_eq!(server.serve.asked(peer(number), Kind::Small, server.now), Ok(()));
        }
        while let Some(id) = serving.pop() {
            server.done(id, 1);
            serving.extend(server.begun());
        }
        assert_eq!((server.serve.queued(), server.serve.serving()), (0, 0));
        (0..6).for_each(|number| assert!(server.serve.gone(peer(number)).is_empty()));
        assert_eq!(server.serve.clients(), 0);
    }
}
