//! Requests, ours and those of peers to us, each from when it began to what became of it.

use super::collect::Peers;
use serde_json::{Value, json};
use soma_sync_core::{
    SyncMachine,
    command::Command,
    event::{Event, RequestId},
    job::{CertifiedRange, CertifyVerdict, Verdict},
    request::{CommitInfoQuery, Request, RequestFailure, ResponsePart},
    time::Timestamp,
    types::{BlockRef, CommitIndex},
};
use soma_sync_proto::trace::{CommandKind, Mark};
use std::{collections::BTreeMap, mem};

/// Most requests that are kept.
pub(super) const REQUESTS_MAX: usize = 60_000;
/// Most blocks whose commit is kept in mind.
const NAMED_MAX: usize = 1_000_000;

/// What is asked for. The numbers are those of the page.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Info = 0,
    Availability = 1,
    Commits = 2,
    /// For a commit that is to come, so that the request waits at the peer.
    Follow = 3,
    Blocks = 4,
    Push = 5,
    /// It could not be decoded.
    Invalid = 6,
}

/// What became of a request. The numbers are those of the page.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    /// It was under way when the trace ended.
    Open = 0,
    Answered = 1,
    Refused = 2,
    TimedOut = 3,
    Cancelled = 4,
    /// Another request for the same brought it.
    Outrun = 5,
    Malformed = 6,
    ConnectionLost = 7,
    FailedHere = 8,
}

struct Bar {
    lane: usize,
    inbound: bool,
    kind: Kind,
    id: u64,
    from: u64,
    to: u64,
    first: u64,
    last: u64,
    amount: u64,
    bytes: u64,
    outcome: Outcome,
    second: bool,
}

/// A request that is under way, by its place among the bars.
struct Open {
    place: usize,
    deadline: u64,
}

/// All requests.
#[derive(Default)]
pub(super) struct Requests {
    bars: Vec<Bar>,
    ours: BTreeMap<u64, Open>,
    theirs: BTreeMap<u64, usize>,
    /// Ours that were sent at the last event, for [`Requests::explain`].
    sent: Vec<u64>,
    /// The commit that each block belongs to, of commits that were certified.
    named: BTreeMap<BlockRef, u64>,
    /// How many timed out so far, and how many of those cancelled next did, both as the machine counts; `None` where
    /// there is none to ask.
    timeouts: u64,
    expired: Option<u64>,
    bytes: u64,
    left_out: u64,
}

impl Requests {
    pub(super) fn event(&mut self, event: &Event, at: u64, peers: &mut Peers) {
        match event {
            Event::RequestReceived { id, peer, request } => {
                let Some(lane) = peers.lane(peer) else { return };
                let mut bar = Bar::new(lane, id.get(), at, true);
                match request {
                    Ok(request) => bar.asks(request),
                    Err(_) => bar.kind = Kind::Invalid,
                }
                if let Some(place) = self.add(bar) {
                    self.theirs.insert(id.get(), place);
                }
            }
            Event::Served { id, bytes, .. } => {
                self.close_theirs(id.get(), at, Outcome::Answered, *bytes);
            }
            Event::ResponsePart { id, part } => {
                let bytes = bytes_of(part);
                self.bytes = self.bytes.saturating_add(bytes);
                let place = self.ours.get(&id.get()).map(|open| open.place);
                if let Some(bar) = place.and_then(|place| self.bars.get_mut(place)) {
                    bar.bytes = bar.bytes.saturating_add(bytes);
                }
            }
            Event::RequestFinished { id, result } => {
                let outcome = match result {
                    Ok(()) => Outcome::Answered,
                    Err(RequestFailure::Refused(_)) => Outcome::Refused,
                    Err(RequestFailure::Malformed | RequestFailure::Oversize) => Outcome::Malformed,
                    Err(RequestFailure::Disconnected | RequestFailure::Reset) => Outcome::ConnectionLost,
                    Err(RequestFailure::Local) => Outcome::FailedHere,
                };
                if let Some(open) = self.ours.remove(&id.get()) {
                    self.close(open.place, at, outcome);
                }
            }
            Event::Verified { verdict: Verdict::Certify(CertifyVerdict::Certified(range)), .. } => {
                self.learn(range);
            }
            Event::Verified { .. }
            | Event::Tick
            | Event::CommitObserved { .. }
            | Event::VotesObserved { .. }
            | Event::CommitteeKnown { .. }
            | Event::PeerConnected { .. }
            | Event::PeerDisconnected { .. }
            | Event::Stored { .. }
            | Event::StoreFailed { .. }
            | Event::StoreReopened { .. }
            | Event::Pruned { .. }
            | Event::Broadcasted { .. } => {}
        }
    }

    /// What the machine counts of an event's commands, before they are looked at. It abandons what has expired before
    /// it does anything else, so those are the first that are cancelled.
    pub(super) fn count_expired(&mut self, commands: &[Mark], machine: Option<&SyncMachine>) {
        let cancels = commands.iter().any(|mark| mark.kind == CommandKind::Cancel);
        self.expired = machine.filter(|_| cancels).map(|machine| {
            let timeouts = machine.status().counters.timeouts;
            timeouts.saturating_sub(mem::replace(&mut self.timeouts, timeouts))
        });
    }

    /// A command, as it was recorded, and in full where the machine gave it again.
    pub(super) fn command(
        &mut self,
        mark: &Mark,
        command: Option<&Command>,
        now: Timestamp,
        at: u64,
        peers: &mut Peers,
    ) {
        match mark.kind {
            CommandKind::AskCommitInfo => self.send(mark, Kind::Info, command, at, peers),
            CommandKind::AskAvailability => self.send(mark, Kind::Availability, command, at, peers),
            CommandKind::AskCommits => self.send(mark, Kind::Commits, command, at, peers),
            CommandKind::AskBlocks => self.send(mark, Kind::Blocks, command, at, peers),
            CommandKind::Push => self.send(mark, Kind::Push, command, at, peers),
            CommandKind::Cancel => {
                let Some(open) = self.ours.remove(&mark.id) else { return };
                let late = self.expired.map_or(now.as_micros() >= open.deadline, |expired| expired > 0);
                self.expired = self.expired.map(|expired| expired.saturating_sub(1));
                let outcome = if late {
                    Outcome::TimedOut
                } else if self.is_outrun(open.place) {
                    Outcome::Outrun
                } else {
                    Outcome::Cancelled
                };
                self.close(open.place, at, outcome);
            }
            CommandKind::Respond => self.close_theirs(mark.id, at, Outcome::Answered, 0),
            CommandKind::Refuse => self.close_theirs(mark.id, at, Outcome::Refused, 0),
            CommandKind::Certify
            | CommandKind::Check
            | CommandKind::Observe
            | CommandKind::Votes
            | CommandKind::Store
            | CommandKind::Broadcast
            | CommandKind::ServeCommitInfo
            | CommandKind::ServeCommits
            | CommandKind::ServeBlocks
            | CommandKind::Disconnect
            | CommandKind::Synced
            | CommandKind::Behind
            | CommandKind::Stalled
            | CommandKind::Resumed
            | CommandKind::CommitteeWanted
            | CommandKind::ObservedRefused
            | CommandKind::ObservedLost
            | CommandKind::Halted => {}
        }
    }

    fn send(&mut self, mark: &Mark, kind: Kind, command: Option<&Command>, at: u64, peers: &mut Peers) {
        let Some(lane) = mark.peer.as_ref().and_then(|peer| peers.lane(peer)) else { return };
        let mut bar = Bar::new(lane, mark.id, at, false);
        (bar.kind, bar.first, bar.last, bar.amount) = (kind, mark.first, mark.last, mark.amount);
        if let Some(Command::SendRequest { request, .. }) = command {
            bar.asks(request);
            if let Request::Blocks(fetch) = request {
                (bar.first, bar.last) = self.range_of(&fetch.refs);
            }
        }
        if let Some(place) = self.add(bar) {
            self.ours.insert(mark.id, Open { place, deadline: mark.time_us });
            self.sent.push(mark.id);
        }
    }

    fn add(&mut self, bar: Bar) -> Option<usize> {
        if self.bars.len() >= REQUESTS_MAX {
            self.left_out += 1;
            return None;
        }
        self.bars.push(bar);
        Some(self.bars.len() - 1)
    }

    fn close(&mut self, place: usize, at: u64, outcome: Outcome) {
        if let Some(bar) = self.bars.get_mut(place) {
            bar.to = at.max(bar.from);
            bar.outcome = outcome;
        }
    }

    fn close_theirs(&mut self, id: u64, at: u64, outcome: Outcome, bytes: u64) {
        let Some(place) = self.theirs.remove(&id) else { return };
        self.close(place, at, outcome);
        if let Some(bar) = self.bars.get_mut(place) {
            bar.bytes = bytes;
        }
    }

    /// Whether there was another request for the same at the time, which has not failed.
    fn is_outrun(&self, place: usize) -> bool {
        let Some(bar) = self.bars.get(place) else { return false };
        let same = |other: &Bar| {
            !other.inbound
                && other.kind == bar.kind
                && other.lane != bar.lane
                && (other.second || bar.second)
                && other.first <= bar.last
                && other.last >= bar.first
                && (other.outcome == Outcome::Open && other.bytes > 0
                    || other.outcome == Outcome::Answered && other.to >= bar.from)
        };
        // Both were sent while the other was under way: not long ago.
        self.bars.iter().rev().take(1_000).any(same)
    }

    /// Asks the machine about the requests that it has just sent: whether somebody else was asked for the same before.
    pub(super) fn explain(&mut self, machine: &SyncMachine) {
        for id in mem::take(&mut self.sent) {
            let Some(bar) = self.ours.get(&id).and_then(|open| self.bars.get_mut(open.place)) else {
                continue;
            };
            if bar.first > 0 && matches!(bar.kind, Kind::Commits | Kind::Blocks) {
                let requests = machine.explain(index(bar.first)).requests;
                bar.second = requests.iter().any(|ask| ask.second && ask.id == RequestId::new(id));
            }
        }
    }

    /// Which commits these blocks belong to, from the first to the last; zeros where that is not known.
    fn range_of(&self, refs: &[BlockRef]) -> (u64, u64) {
        let commits = || refs.iter().filter_map(|block| self.named.get(block).copied());
        (commits().min().unwrap_or(0), commits().max().unwrap_or(0))
    }

    fn learn(&mut self, certified: &CertifiedRange) {
        if self.named.len() >= NAMED_MAX {
            self.named.clear();
        }
        for commit in &certified.commits {
            let of = commit.reference.index.get().into();
            self.named.extend(commit.blocks.iter().map(|block| (*block, of)));
        }
    }

    /// That the trace ends then.
    pub(super) fn end(&mut self, at: u64) {
        for bar in self.bars.iter_mut().filter(|bar| bar.outcome == Outcome::Open) {
            bar.to = at.max(bar.from);
        }
    }

    /// Bytes of the answers so far.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }
    /// How many requests there were, with those that are not shown.
    pub(super) fn count(&self) -> u64 {
        self.left_out.saturating_add(self.bars.len() as u64)
    }
    pub(super) const fn left_out(&self) -> u64 {
        self.left_out
    }

    pub(super) fn json(&self) -> Value {
        let column = |of: fn(&Bar) -> u64| -> Vec<u64> { self.bars.iter().map(of).collect() };
        json!({
            "peer": column(|bar| bar.lane as u64),
            "inbound": column(|bar| bar.inbound.into()),
            "kind": column(|bar| bar.kind as u64),
            "id": column(|bar| bar.id),
            "from": column(|bar| bar.from),
            "to": column(|bar| bar.to),
            "first": column(|bar| bar.first),
            "last": column(|bar| bar.last),
            "amount": column(|bar| bar.amount),
            "bytes": column(|bar| bar.bytes),
            "outcome": column(|bar| bar.outcome as u64),
            "second": column(|bar| bar.second.into()),
        })
    }
}

impl Bar {
    const fn new(lane: usize, id: u64, at: u64, inbound: bool) -> Self {
        Self {
            lane,
            inbound,
            kind: Kind::Info,
            id,
            from: at,
            to: at,
            first: 0,
            last: 0,
            amount: 0,
            bytes: 0,
            outcome: Outcome::Open,
            second: false,
        }
    }

    fn asks(&mut self, request: &Request) {
        let range = |first: CommitIndex, last: CommitIndex| (first.get().into(), last.get().into());
        match request {
            Request::CommitInfo(query) => {
                self.kind = Kind::Info;
                if let CommitInfoQuery::ByIndex(of) = query {
                    (self.first, self.last) = range(*of, *of);
                }
            }
            Request::Availability { .. } => self.kind = Kind::Availability,
            Request::Commits(fetch) => {
                self.kind = if fetch.wait.is_zero() { Kind::Commits } else { Kind::Follow };
                (self.first, self.last) = range(fetch.start, fetch.end);
            }
            Request::Blocks(fetch) => {
                self.kind = Kind::Blocks;
                self.amount = fetch.refs.len() as u64;
            }
            Request::Push { index } => {
                self.kind = Kind::Push;
                (self.first, self.last) = range(*index, *index);
            }
        }
    }
}

fn index(number: u64) -> CommitIndex {
    CommitIndex::new(u32::try_from(number).unwrap_or(u32::MAX))
}

/// Bytes of data that a part of an answer brings.
const fn bytes_of(part: &ResponsePart) -> u64 {
    match part {
        ResponsePart::Commits { buffer_bytes, .. } | ResponsePart::Blocks { buffer_bytes, .. } => {
            *buffer_bytes
        }
        ResponsePart::CommitInfo { .. } | ResponsePart::Availability { .. } | ResponsePart::Push { .. } => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use soma_sync_core::types::PeerId;

    /// A push to a peer, which ends at a second.
    fn push(id: u64, peer: u8) -> Mark {
        let kind = CommandKind::Push;
        let peer = Some(PeerId::new([peer; 32]));
        Mark { kind, peer, id, first: 1, last: 1, amount: 0, time_us: 1_000_000, hash: 0 }
    }

    #[test]
    fn requests_or_peers_are_kept_without_bound() {
        let (mut requests, mut peers) = (Requests::default(), Peers::default());
        let sent = REQUESTS_MAX as u64 + 7;
        for id in 0..sent {
            requests.command(&push(id, 1), None, Timestamp::ZERO, 0, &mut peers);
        }
        for id in (0..sent).map(RequestId::new) {
            requests.event(&Event::RequestFinished { id, result: Ok(()) }, 5, &mut peers);
        }
        assert_eq!([requests.count(), requests.left_out()], [sent, 7]);
        assert_eq!(requests.bars.len(), REQUESTS_MAX);
        assert!(requests.bars.iter().all(|bar| bar.outcome == Outcome::Answered && bar.to == 5));
        for peer in 0..=255 {
            requests.command(&push(sent, peer), None, Timestamp::ZERO, 0, &mut peers);
        }
        assert_eq!(peers.len(), 64);
    }

    #[test]
    fn what_is_cancelled_in_time_passes_for_timed_out_or_the_other_way_round() {
        let (mut requests, mut peers) = (Requests::default(), Peers::default());
        for (id, now) in [(1, 999_999), (2, 1_000_000)] {
            requests.command(&push(id, 1), None, Timestamp::ZERO, 0, &mut peers);
            let cancel = Mark { kind: CommandKind::Cancel, peer: None, ..push(id, 1) };
            requests.command(&cancel, None, Timestamp::from_micros(now), now, &mut peers);
        }
        let outcomes: Vec<_> = requests.bars.iter().map(|bar| bar.outcome as u64).collect();
        assert_eq!(outcomes, [Outcome::Cancelled as u64, Outcome::TimedOut as u64]);
    }
}
