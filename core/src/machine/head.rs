//! The head of line: the commit after the tip, for which everything behind it waits. Where nothing comes of what was
//! asked for it, or it comes much slower than from another peer, a second one is asked for the same (scheduling:
//! Deadlines, Hedging). Whichever answer comes first counts; the other request is given up, and its peer remembered as
//! slow and not blamed.
//!
//! Bounded: one such request at a time, and a tenth of all bytes beside a first answer.

use super::{
    SyncMachine,
    in_flight::InFlights,
    requests::{Asked, InFlight},
};
use crate::{
    bug::{Bug, has},
    defence::{Defence, stands},
    event::RequestId,
    ledger::Claimant,
    normal::Frame,
    peers::{Answer, Peer},
    schedule::{BlocksWanted, CommitsWanted, Purpose},
    time::Timestamp,
    types::{CommitIndex, CommitRange, PeerId},
    window::{Body, Slot, Span},
};
use alloc::vec::Vec;
use core::time::Duration;

/// How long nothing may come for the head of line. The same however often a second peer was asked: one that is silent
/// costs nothing, and what the others cost is bounded in bytes.
const STALL: Duration = Duration::from_secs(2);
/// The same where the peer has not delivered anything yet. Where another has, that could be asked, no longer than the
/// other may be expected to take.
const STALL_UNPROVEN: Duration = Duration::from_millis(500);
/// How often the same is doubled at most for a second peer that comes in place of another.
const DOUBLINGS_MAX: u32 = 4;
/// How long, beyond two round trips, an answer may take of which it is known that it could be there.
const GRACE: Duration = Duration::from_millis(50);

/// What is known of the head of line.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Head {
    /// Which commit it is, and how many of its blocks have not come; `None` before it is certified.
    state: (CommitIndex, Option<usize>),
    /// Since when it is as it is, waits for a peer, and another could be asked.
    since: Timestamp,
    /// The second request, if there is one.
    second: Option<RequestId>,
    /// How many second requests were given up since anything came of it, as far as it matters.
    given_up: u32,
    /// Bytes of answers of commits and blocks, and those of second requests among them.
    fetched_bytes: u64,
    second_bytes: u64,
    /// When a second peer is to be asked.
    wake: Option<Timestamp>,
}
saved! { struct Head { state, since, second, given_up, fetched_bytes, second_bytes, wake } }

/// A request that the head of line waits for.
struct Awaited {
    /// Who has been asked.
    peer: PeerId,
    /// For how long is waited for something to come of it.
    patience: Duration,
    /// What has come of it, if anything.
    answer: Option<Answer>,
    what: What,
}

/// What was asked for.
enum What {
    Commits(CommitRange),
    /// By this request.
    Blocks(RequestId),
}

impl Head {
    /// When a second peer is to be asked.
    pub(super) fn wake(&self) -> Option<Timestamp> {
        self.wake
    }

    /// The normal form. How much was fetched is forgotten.
    pub(super) fn normalise(&mut self, frame: &Frame) {
        frame.moment(&mut self.since);
        if let Some(wake) = &mut self.wake {
            frame.moment(wake);
        }
        if let Some(second) = &mut self.second {
            frame.request(second);
        }
        (self.fetched_bytes, self.second_bytes) = (0, 0);
    }

    /// Whether the second request, if there is one, is among these.
    pub(super) fn is_known(&self, requests: &InFlights) -> bool {
        self.second.is_none_or(|second| requests.get(second).is_some())
    }

    /// A request for commits or blocks is over.
    pub(super) fn finished(&mut self, id: RequestId, received: u64) {
        self.fetched_bytes = self.fetched_bytes.saturating_add(received);
        if self.second == Some(id) {
            self.second = None;
            self.second_bytes = self.second_bytes.saturating_add(received);
        }
    }
}

impl SyncMachine {
    /// Asks a second peer for what the head of line waits for, when it has waited too long.
    pub(super) fn watch_head(&mut self) {
        self.head.wake = None;
        let Some(index) = self.tip.reference.index.next() else { return };
        if !stands(Defence::Hedging) {
            return;
        }
        let state = (index, self.window.body(index).map(Body::pending));
        if state != self.head.state {
            (self.head.state, self.head.since, self.head.given_up) = (state, self.now, 0);
        }
        let awaited = self.head_awaits(index);
        let awaited = awaited.filter(|awaited| self.seconds(index, awaited.peer).next().is_some());
        let Some(awaited) = awaited else {
            self.head.since = self.now;
            return;
        };
        if let Some(second) = self.head.second {
            self.head.since = self.now;
            return self.watch_second(index, second, awaited);
        }
        let stalled = self.head.since.saturating_add(awaited.patience);
        let due = self.outpaced_from(index, &awaited).map_or(stalled, |outpaced| outpaced.min(stalled));
        if due > self.now {
            self.head.wake = Some(due);
        } else if self.second_is_affordable() {
            self.ask_second(index, awaited, stalled > self.now);
        }
    }

    /// A second peer that refuses is not asked again at once, whatever the reason: nothing would keep it from refusing as
    /// often as there is a round trip.
    pub(super) fn second_refused(&mut self, in_flight: &InFlight) {
        let second = match &in_flight.asked {
            Asked::Commits(asked) => asked.purpose == Purpose::Hedge,
            Asked::Blocks(asked) => asked.hedge,
            Asked::Chain | Asked::Availability | Asked::Push => false,
        };
        let (now, config) = (self.now, &self.config);
        let known = self.peers.get_mut(&in_flight.peer).filter(|_| second);
        if let Some((known, index)) = known.zip(self.tip.reference.index.next()) {
            known.avoid(index, now, config);
        }
    }

    /// Asks yet another peer in place of the second one, if that is as silent as the first.
    fn watch_second(&mut self, index: CommitIndex, second: RequestId, awaited: Awaited) {
        let Some(in_flight) = self.requests.get(second) else { return };
        let peer = in_flight.peer;
        let another = self.free_seconds(index, awaited.peer).any(|(id, _)| id != peer);
        if !another || in_flight.is_at_speed(self.now) {
            return;
        }
        // Longer each time: where all are slow, it is our own link, and what is on its way is lost.
        let doubled = 1u32.checked_shl(self.head.given_up).unwrap_or(1);
        let due = in_flight.sent.saturating_add(self.patience_with(index, in_flight).saturating_mul(doubled));
        if due > self.now {
            self.head.wake = Some(due);
            return;
        }
        self.cancel(second);
        self.head.given_up = self.head.given_up.saturating_add(1).min(DOUBLINGS_MAX);
        let (now, config) = (self.now, &self.config);
        if let Some(known) = self.peers.get_mut(&peer) {
            known.avoid(index, now, config);
        }
        self.ask_second(index, awaited, false);
    }

    /// Whether a second request is within the share of all bytes that such requests may take.
    fn second_is_affordable(&self) -> bool {
        let share = (self.head.fetched_bytes / 10).saturating_add(self.config.answer_bytes());
        self.head.second.is_none() && self.head.second_bytes < share
    }

    /// What the head of line waits for, where it waits for a peer.
    fn head_awaits(&self, index: CommitIndex) -> Option<Awaited> {
        if self.halted.is_some() || self.blocked().is_some() {
            return None;
        }
        let (range, span) = self.window.span_at(index)?;
        match span {
            Span::Requested { request, .. } => {
                let in_flight = self.requests.get(*request)?;
                let patience = self.patience_with(index, in_flight);
                let (peer, answer) = (in_flight.peer, in_flight.answer());
                Some(Awaited { peer, patience, answer, what: What::Commits(range) })
            }
            Span::Certifying { .. } => None,
            Span::Certified(_) => {
                let slots = self.window.body(index)?.slots().iter();
                let requests = slots.filter_map(|slot| match slot {
                    Slot::Requested(request) => Some(*request),
                    Slot::Missing | Slot::Checking(_) | Slot::Held(_) | Slot::Staged => None,
                });
                let request = requests.min()?;
                let in_flight = self.requests.get(request)?;
                let patience = self.patience_with(index, in_flight);
                let (peer, answer) = (in_flight.peer, in_flight.answer());
                Some(Awaited { peer, patience, answer, what: What::Blocks(request) })
            }
        }
    }

    /// How long is waited for an answer: not long for what is said to be there already, nor where the peer was asked
    /// before it was last overtaken.
    fn patience_with(&self, index: CommitIndex, in_flight: &InFlight) -> Duration {
        let Some(known) = self.peers.get(&in_flight.peer) else { return STALL };
        let grace = Duration::from_micros(known.pace.round_trip_us().saturating_mul(2)).saturating_add(GRACE);
        let suspect = known.overtaken_at.is_some_and(|at| in_flight.sent <= at);
        match (suspect, in_flight.is_follow()) {
            (true, _) => GRACE,
            (false, true) => grace.min(STALL),
            (false, false) if !known.is_proven() => {
                let free = self.free_seconds(index, in_flight.peer);
                let proven = free.filter(|(_, peer)| peer.is_proven());
                let quickest = proven.map(|(_, peer)| peer.pace.round_trip_us().saturating_mul(4)).min();
                let quickest = quickest.map(|us| GRACE.saturating_add(Duration::from_micros(us)));
                quickest.map_or(STALL_UNPROVEN, |quickest| quickest.min(STALL_UNPROVEN))
            }
            (false, false) => STALL,
        }
    }

    /// From when on another peer that could be asked is so much faster that it is not worth while to wait.
    fn outpaced_from(&self, index: CommitIndex, awaited: &Awaited) -> Option<Timestamp> {
        let answer = awaited.answer.filter(|_| stands(Defence::Outpaced))?;
        self.free_seconds(index, awaited.peer).filter_map(|(_, peer)| peer.outpaces_from(&answer)).min()
    }

    /// Peers that can be asked beside `first`.
    fn seconds(&self, index: CommitIndex, first: PeerId) -> impl Iterator<Item = (PeerId, &Peer)> {
        self.peers.checked().filter(move |(id, peer)| *id != first && peer.can_second(index, self.now))
    }

    /// Those that have a place for one more request. More than it is trusted with is little to ask of a peer for what
    /// everything waits for.
    fn free_seconds(&self, index: CommitIndex, first: PeerId) -> impl Iterator<Item = (PeerId, &Peer)> {
        let most = self.config.max_requests_per_peer;
        self.seconds(index, first).filter(move |(_, peer)| peer.in_flight < most)
    }

    /// Where the first is only `slow`, one that outpaces it.
    fn ask_second(&mut self, index: CommitIndex, awaited: Awaited, slow: bool) {
        let outpaces = |peer: &Peer| {
            awaited.answer.and_then(|answer| peer.outpaces_from(&answer)).is_some_and(|from| from <= self.now)
        };
        let able = self.free_seconds(index, awaited.peer).filter(|(_, peer)| !slow || outpaces(peer));
        let doubted = |peer: &Peer| !peer.can_serve(index, self.now);
        let best = able.min_by_key(|(id, peer)| (doubted(peer), peer.cost(self.now), *id));
        let Some(peer) = best.map(|(id, _)| id) else {
            return;
        };
        let Some(known) = self.peers.get(&peer) else { return };
        let claimed = known.claim.map_or(index, |claim| claim.highest);
        let most = index.saturating_add(known.max_commits(u32::MAX).saturating_sub(1));
        let max_blocks = known.max_blocks(self.now);
        let max_bytes = self.config.answer_bytes();
        let id = match awaited.what {
            What::Commits(range) => {
                // Of whom more is claimed than is believed, all of it is asked.
                let end = if claimed < index { range.end() } else { range.end().min(claimed) };
                let Some(range) = CommitRange::new(index, end.min(most)) else { return };
                let epoch = self.epoch_below(index);
                let bytes = Self::commits_reservation(max_bytes);
                if !self.committees.contains_key(&epoch) || !self.ledger.reserve(bytes, Claimant::Frontier) {
                    return;
                }
                let purpose = Purpose::Hedge;
                self.ask_commits(CommitsWanted { peer, range, max_bytes, purpose }, epoch)
            }
            What::Blocks(first) => {
                let mut positions = self.still_awaited(first);
                positions.truncate(max_blocks);
                if positions.is_empty() || !self.ledger.reserve(max_bytes, Claimant::Frontier) {
                    return;
                }
                let wanted = BlocksWanted { peer, positions, max_bytes, hedge: true };
                let Some(id) = self.ask_blocks(wanted) else { return };
                id
            }
        };
        self.counters.hedges = self.counters.hedges.saturating_add(1);
        self.head.second = Some(id);
        if let Some(known) = self.peers.get_mut(&awaited.peer) {
            known.overtaken(self.now);
        }
        self.stop_following(awaited.peer);
    }

    /// The blocks that a request has not brought: what was asked for together with one that does not come will not come
    /// either.
    fn still_awaited(&self, request: RequestId) -> Vec<(CommitIndex, usize)> {
        let Some(Asked::Blocks(asked)) = self.requests.get(request).map(|in_flight| &in_flight.asked) else {
            return Vec::new();
        };
        let awaited = Slot::Requested(request);
        let awaits = |(index, slot): &(CommitIndex, usize)| self.window.slot(*index, *slot) == Some(&awaited);
        asked.positions.iter().copied().filter(awaits).collect()
    }

    /// What waits at a peer that does not bring what there is will not be brought either.
    fn stop_following(&mut self, peer: PeerId) {
        let now = self.now;
        if let Some(known) = self.peers.get_mut(&peer).filter(|known| known.following > 0) {
            known.follow_failed(now);
        }
        self.cancel_where(|_, in_flight| in_flight.peer == peer && in_flight.is_follow());
    }

    /// Gives up requests of which everything has come from elsewhere. That they took longer is remembered.
    pub(super) fn give_up_overtaken(&mut self) {
        let overtaken = |id: RequestId, in_flight: &InFlight| match &in_flight.asked {
            Asked::Commits(asked) => match asked.purpose {
                Purpose::Fetch | Purpose::Follow => !self.window.is_requested(asked.range.start(), id),
                Purpose::Votes | Purpose::Hedge => false,
            },
            Asked::Blocks(asked) => {
                let mut rest = asked.positions.iter().skip(asked.answered);
                let awaits = |(index, slot): &(CommitIndex, usize)| {
                    self.window.slot(*index, *slot) == Some(&Slot::Requested(id))
                };
                !asked.hedge && !rest.any(awaits)
            }
            Asked::Chain | Asked::Availability | Asked::Push => false,
        };
        let requests = self.requests.iter().filter(|(id, in_flight)| overtaken(*id, in_flight));
        let ids: Vec<_> = requests.map(|(id, _)| id).collect();
        for id in ids {
            if let Some(in_flight) = self.requests.get(id).filter(|in_flight| in_flight.is_for_data()) {
                let (peer, took) = (in_flight.peer, self.now.saturating_since(in_flight.sent));
                if let Some(known) = self.peers.get_mut(&peer) {
                    known.pace.took(took);
                }
                if has(Bug::LoserBlamed) {
                    self.offence(peer, crate::command::Offence::Malformed);
                }
            }
            self.cancel(id);
        }
    }
}
