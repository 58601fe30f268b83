//! The book of peers beside a plain model of it: everything that happened to each peer, from which what is to be known
//! of it is worked out anew each time.
#![allow(clippy::arithmetic_side_effects, reason = "a model that overflows fails its test")]

use super::{Claim, Link, PeerBook};
use crate::{
    command::Offence,
    config::Config,
    rng::Rng,
    time::Timestamp,
    types::{CommitIndex, PeerId},
};
use alloc::{collections::BTreeMap, vec::Vec};
use core::time::Duration;
use proptest::prelude::*;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};

/// Peers that come, and records that there are.
const PEERS: u8 = 4;
const RECORDS: u32 = 3;
/// Commits that are asked for.
const COMMITS: u32 = 4;
const SEED: [u8; 32] = [5; 32];

/// What happens to one peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Happening {
    Connected,
    Checked,
    Disconnected,
    /// It claims the commits from one to another.
    Claimed(u32, u32),
    Failed(u32),
    Succeeded,
    Delivered(u32),
    Offended,
    FollowFailed,
    FollowSucceeded,
}

/// All that happened to a peer, each with when.
type History = [(u64, Happening)];

#[derive(Clone, Debug)]
enum Operation {
    Happens(u8, Happening),
    Wait(u64),
}

/// What happened, by peer, each with when; what was evicted is gone. Times are milliseconds.
#[derive(Clone, Debug, Default)]
struct Model {
    now: u64,
    peers: BTreeMap<u8, Vec<(u64, Happening)>>,
}

fn config() -> Config {
    Config { max_peers: RECORDS, ..Config::default() }
}

/// `base` doubled so often.
fn doubled(base: u64, times: usize) -> u64 {
    base << times
}

/// How many of these there are at the end of the history with none of those after them.
fn in_a_row(history: &History, what: Happening, ended_by: Happening) -> usize {
    let since = history.iter().rev().take_while(|(_, happening)| *happening != ended_by);
    since.filter(|(_, happening)| *happening == what).count()
}

/// How many failures there are since the last success.
fn failures(history: &History) -> usize {
    let since = history.iter().rev().take_while(|(_, happening)| *happening != Happening::Succeeded);
    since.filter(|(_, happening)| matches!(happening, Happening::Failed(_))).count()
}

/// When the last of these was, and what was before and with it.
fn last(history: &History, is: impl Fn(Happening) -> bool) -> Option<(u64, Happening, &History)> {
    let at = history.iter().rposition(|(_, happening)| is(*happening))?;
    Some((history[at].0, history[at].1, &history[..=at]))
}

fn link(history: &History) -> Link {
    let is =
        |happening| matches!(happening, Happening::Connected | Happening::Checked | Happening::Disconnected);
    match last(history, is).map(|(_, happening, _)| happening) {
        Some(Happening::Checked) => Link::Checked,
        Some(Happening::Connected) => Link::Unchecked,
        _ => Link::Down,
    }
}

/// Until when it is banned: a minute from the last offence, doubled with each before it.
fn banned_until(history: &History) -> u64 {
    let offence = last(history, |happening| happening == Happening::Offended);
    offence.map_or(0, |(at, _, up_to)| {
        let before = up_to.iter().filter(|(_, happening)| *happening == Happening::Offended).count() - 1;
        at + doubled(60_000, before.min(6))
    })
}

/// Until when it rests after its last failure, in microseconds: jitter is drawn from the one seed.
fn rests_until(history: &History) -> u64 {
    let failure = last(history, |happening| matches!(happening, Happening::Failed(_)));
    failure.map_or(0, |(at, _, up_to)| {
        let pause = doubled(100, (failures(up_to) - 1).min(16)).min(10_000) * 1_000;
        at * 1_000 + pause + Rng::new(SEED).below(pause / 4)
    })
}

/// Until when it is not asked for a commit at all, and until when only at need.
fn avoided_until(history: &History, start: u32) -> (u64, u64) {
    let failure = last(history, |happening| happening == Happening::Failed(start));
    failure.map_or((0, 0), |(at, failed, up_to)| {
        // What fails within five seconds of the failure before it counts with that.
        let failed: Vec<_> =
            up_to.iter().filter(|(_, happening)| *happening == failed).map(|of| of.0).collect();
        let times = failed.windows(2).filter(|two| two[1] >= two[0] + 5_000).count();
        (at + 5_000, at + doubled(5_000, times.min(6)))
    })
}

fn delivered(history: &History) -> u32 {
    let delivered = history.iter().map(|(_, happening)| match happening {
        Happening::Delivered(index) => *index,
        _ => 0,
    });
    delivered.max().unwrap_or(0)
}

/// What is believed of what it says since it connected: its lowest, its highest, and whether it said more.
fn claim(history: &History) -> Option<(u32, u32, bool)> {
    let mut claim = None;
    for (at, (now, happening)) in history.iter().enumerate() {
        let so_far = &history[..=at];
        match *happening {
            Happening::Connected | Happening::Disconnected => claim = None,
            Happening::Claimed(lowest, highest) => {
                claim = Some(believed(so_far, *now, (lowest, highest, false)));
            }
            Happening::Failed(_) => claim = claim.map(|claim| believed(so_far, *now, claim)),
            Happening::Delivered(index) => {
                claim = claim.map(|(lowest, highest, cut)| (lowest, highest.max(index), cut));
            }
            Happening::Checked
            | Happening::Succeeded
            | Happening::Offended
            | Happening::FollowFailed
            | Happening::FollowSucceeded => {}
        }
    }
    claim
}

/// What its claims are cut to by its last failure, and until when: what lies below the lowest of the ranges that it did
/// not deliver, each before the cut for the one before was over; or what it has shown.
fn cut(history: &History) -> Option<(u32, u64)> {
    let mut cut = None;
    for (at, (now, happening)) in history.iter().enumerate() {
        if let Happening::Failed(start) = happening {
            let so_far = &history[..=at];
            let standing = cut.filter(|(_, until)| now < until).map(|(most, _)| most);
            let most = standing.unwrap_or(u32::MAX).min(start - 1).max(delivered(so_far));
            cut = Some((most, now + doubled(500, failures(so_far).min(8)).min(120_000)));
        }
    }
    cut
}

/// A claim cut to what it has shown, while its last failure is fresh.
fn believed(history: &History, now: u64, (lowest, highest, cut): (u32, u32, bool)) -> (u32, u32, bool) {
    let Some((most, _)) = self::cut(history).filter(|(_, until)| now < *until) else {
        return (lowest, highest, cut);
    };
    let shown = most.max(delivered(history)).max(lowest);
    (lowest, highest.min(shown), cut || shown < highest)
}

/// How many requests may be in flight to it: one more after each success, half after each failure.
fn limit(history: &History) -> u32 {
    history.iter().fold(2, |limit, (_, happening)| match happening {
        Happening::Succeeded => (limit + 1).min(config().max_requests_per_peer),
        Happening::Failed(_) => (limit / 2).max(1),
        _ => limit,
    })
}

impl Model {
    /// Whose record makes room: of the disconnected, who is not banned before who is, the longest unseen.
    fn evicted(&self) -> Option<u8> {
        let down = self.peers.iter().filter(|(_, history)| link(history) == Link::Down);
        let is = |happening| matches!(happening, Happening::Connected | Happening::Disconnected);
        let seen = |history: &History| last(history, is).map_or(0, |(at, ..)| at);
        let order = |history: &History| (banned_until(history) > self.now, seen(history));
        down.min_by_key(|(id, history)| (order(history), **id)).map(|(id, _)| *id)
    }

    fn can_serve(&self, history: &History, start: u32) -> (bool, bool) {
        let rested = self.now * 1_000 >= rests_until(history) && self.now >= banned_until(history);
        let available = link(history) == Link::Checked && rested;
        let claims = claim(history).is_some_and(|(lowest, highest, _)| lowest <= start && start <= highest);
        let (at_need, freely) = avoided_until(history, start);
        let able = available && claims;
        (able && self.now >= at_need && self.now >= freely, able && self.now >= at_need)
    }

    fn follows(&self, history: &History, start: u32) -> bool {
        let failure = last(history, |happening| happening == Happening::FollowFailed);
        let rests_until = failure.map_or(0, |(at, failed, up_to)| {
            let times = in_a_row(up_to, failed, Happening::FollowSucceeded) - 1;
            at + doubled(1_000, times.min(10))
        });
        let rested = self.now * 1_000 >= self::rests_until(history) && self.now >= banned_until(history);
        let avoided = self.now < avoided_until(history, start).1;
        link(history) == Link::Checked && rested && self.now >= rests_until && !avoided
    }
}

impl ReferenceStateMachine for Model {
    type State = Self;
    type Transition = Operation;

    fn init_state() -> BoxedStrategy<Self> {
        Just(Self { now: 1, peers: BTreeMap::new() }).boxed()
    }

    fn transitions(_: &Self) -> BoxedStrategy<Operation> {
        let commit = || 1..=COMMITS;
        let happening = prop_oneof![
            4 => Just(Happening::Connected),
            4 => Just(Happening::Checked),
            1 => Just(Happening::Disconnected),
            4 => (0..3u32, 0..4u32).prop_map(|(lowest, more)| Happening::Claimed(lowest, lowest + more)),
            4 => commit().prop_map(Happening::Failed),
            2 => Just(Happening::Succeeded),
            1 => commit().prop_map(Happening::Delivered),
            1 => Just(Happening::Offended),
            1 => Just(Happening::FollowFailed),
            1 => Just(Happening::FollowSucceeded),
        ];
        let wait = prop_oneof![1..200u64, 400..2_000u64, 3_000..70_000u64];
        prop_oneof![
            4 => (0..PEERS, happening).prop_map(|(peer, happening)| Operation::Happens(peer, happening)),
            1 => wait.prop_map(Operation::Wait),
        ]
        .boxed()
    }

    fn preconditions(model: &Self, operation: &Operation) -> bool {
        let Operation::Happens(peer, happening) = operation else { return true };
        let link = model.peers.get(peer).map(|history| link(history));
        match happening {
            Happening::Connected => link.is_none_or(|link| link == Link::Down),
            Happening::Checked => link == Some(Link::Unchecked),
            Happening::Disconnected => link.is_some_and(|link| link != Link::Down),
            // Of an answer of before, also of who is gone.
            _ => link.is_some(),
        }
    }

    fn apply(mut model: Self, operation: &Operation) -> Self {
        match *operation {
            Operation::Wait(ms) => model.now += ms,
            Operation::Happens(peer, happening) => {
                if !model.peers.contains_key(&peer) && model.peers.len() == RECORDS as usize {
                    let Some(evicted) = model.evicted() else { return model };
                    model.peers.remove(&evicted);
                }
                model.peers.entry(peer).or_default().push((model.now, happening));
            }
        }
        model
    }
}

struct Real {
    book: PeerBook,
    now: u64,
}

fn id(peer: u8) -> PeerId {
    PeerId::new([peer; 32])
}

fn commit(index: u32) -> CommitIndex {
    CommitIndex::new(index)
}

fn at(ms: u64) -> Timestamp {
    Timestamp::ZERO.saturating_add(Duration::from_millis(ms))
}

impl Real {
    fn happens(&mut self, peer: u8, happening: Happening) {
        let (now, config) = (at(self.now), config());
        if happening == Happening::Connected {
            self.book.connect(id(peer), now);
            return;
        }
        let known = self.book.get_mut(&id(peer)).unwrap();
        match happening {
            Happening::Connected => {}
            Happening::Checked => known.link = Link::Checked,
            Happening::Disconnected => {
                (known.link, known.claim, known.seen) = (Link::Down, None, now);
            }
            Happening::Claimed(lowest, highest) => {
                let (lowest, highest) = (commit(lowest), commit(highest));
                known.claimed(Claim { highest, lowest, polled: now, cut: false }, now);
            }
            Happening::Failed(start) => known.failed(commit(start), now, &config, &mut Rng::new(SEED)),
            Happening::Succeeded => known.succeeded(&config),
            Happening::Delivered(index) => known.delivered(commit(index)),
            Happening::Offended => {
                let ban = known.offended(Offence::BadBlock, now, &config);
                assert_eq!(now.saturating_add(ban), known.banned_until());
            }
            Happening::FollowFailed => known.follow_failed(now),
            Happening::FollowSucceeded => known.follow_succeeded(),
        }
    }
}

impl StateMachineTest for Real {
    type SystemUnderTest = Self;
    type Reference = Model;

    fn init_test(_: &Model) -> Self {
        Self { book: PeerBook::new(&config()), now: 1 }
    }

    fn apply(mut real: Self, _: &Model, operation: Operation) -> Self {
        match operation {
            Operation::Wait(ms) => real.now += ms,
            Operation::Happens(peer, happening) => real.happens(peer, happening),
        }
        real
    }

    fn check_invariants(real: &Self, model: &Model) {
        let now = at(model.now);
        assert_eq!(real.book.check_invariants(&config()), Ok(()));
        let known: Vec<_> = real.book.iter().map(|(id, _)| id).collect();
        let expected: Vec<_> = model.peers.keys().map(|peer| id(*peer)).collect();
        assert_eq!(known, expected, "the records");
        let mut highest = None;
        for (peer, history) in &model.peers {
            let known = real.book.get(&id(*peer)).unwrap();
            assert_eq!(known.link, link(history));
            let claimed = known.claim.map(|claim| (claim.lowest.get(), claim.highest.get(), claim.cut));
            assert_eq!(claimed, claim(history), "what is believed of peer {peer}");
            assert_eq!(known.limit, limit(history), "the limit of peer {peer}");
            assert_eq!(known.banned_until(), at(banned_until(history)), "the ban of peer {peer}");
            for start in 1..=COMMITS {
                let able = (known.can_serve(commit(start), now), known.can_serve_at_need(commit(start), now));
                assert_eq!(able, model.can_serve(history, start), "whether peer {peer} can serve {start}");
                let followed = known.can_be_followed(commit(start), now);
                assert_eq!(followed, model.follows(history, start), "whether {peer} is followed for {start}");
            }
            let is_checked = link(history) == Link::Checked;
            highest = highest.max(claimed.filter(|_| is_checked).map(|(_, highest, _)| commit(highest)));
        }
        assert_eq!(real.book.highest_claim(), highest);
    }
}

prop_state_machine! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_peer_is_known_otherwise_than_by_what_happened_to_it(sequential 1..60 => Real);
}
