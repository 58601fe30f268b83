//! Requests of ours: sent, in flight, given up.

use super::SyncMachine;
use crate::{
    bug::{Bug, has},
    command::{Command, Offence},
    defence::{Defence, stands},
    event::RequestId,
    payload::Payload,
    peers::{Answer, Link, PROGRESS_BYTES_PER_SECOND, Peer},
    request::{CommitInfoQuery, FetchBlocks, FetchCommits, Request},
    schedule::{BlocksWanted, CommitsWanted, Purpose},
    time::{Timestamp, micros},
    types::{BlockRef, CommitIndex, CommitRange, Epoch, PeerId},
    window::Slot,
};
use alloc::vec::Vec;
use core::time::Duration;

/// A request that has not finished.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct InFlight {
    pub(super) peer: PeerId,
    pub(super) sent: Timestamp,
    /// When it is over, whatever came of it.
    pub(super) deadline: Timestamp,
    /// When it is over unless something comes of it before.
    pub(super) progress_deadline: Timestamp,
    /// Bytes that its answer may still take, set aside in the ledger.
    pub(super) reserved: u64,
    /// When the first part of its answer came.
    pub(super) began: Option<Timestamp>,
    /// Bytes that came.
    pub(super) received: u64,
    pub(super) asked: Asked,
}
saved! { struct InFlight { peer, sent, deadline, progress_deadline, reserved, began, received, asked } }

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Asked {
    Chain,
    Availability,
    Push,
    Commits(CommitsAsked),
    Blocks(BlocksAsked),
}
saved! { enum Asked { 0 => Chain, 1 => Availability, 2 => Push, 3 => Commits(it), 4 => Blocks(it) } }

/// A request for commits, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct CommitsAsked {
    pub(super) range: CommitRange,
    /// The epoch that we expect.
    pub(super) epoch: Epoch,
    pub(super) max_bytes: u64,
    pub(super) commits: Vec<Payload>,
    pub(super) certifiers: Vec<Payload>,
    pub(super) blocks: Vec<Payload>,
    pub(super) purpose: Purpose,
}
saved! { struct CommitsAsked { range, epoch, max_bytes, commits, certifiers, blocks, purpose } }

/// A request for blocks, and how far its answer is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct BlocksAsked {
    /// Commit and position in it of each block, in the order asked for. All are of one epoch.
    pub(super) positions: Vec<(CommitIndex, usize)>,
    pub(super) refs: Vec<BlockRef>,
    /// How many positions have been answered.
    pub(super) answered: usize,
    /// How many of these were answered with a block, and the commit of the first that the server lacks.
    pub(super) delivered: usize,
    pub(super) lacking: Option<CommitIndex>,
    /// Whether another peer has been asked for them, too.
    pub(super) hedge: bool,
}
saved! { struct BlocksAsked { positions, refs, answered, delivered, lacking, hedge } }

/// How long nothing is fetched after something failed on our side.
pub(super) const LOCAL_REST: Duration = Duration::from_millis(100);

/// Bytes that an answer for commits takes in memory for each byte on the wire: the encoding, and the decoded
/// references, which are as many bytes again.
pub(super) const DECODED_FACTOR: u64 = 2;

impl CommitsAsked {
    /// Whether the blocks are to come in the same answer: where it is for one commit at the tip.
    pub(super) fn with_blocks(&self) -> bool {
        match self.purpose {
            Purpose::Follow => true,
            Purpose::Hedge => self.range.count() == 1,
            Purpose::Fetch | Purpose::Votes => false,
        }
    }
}

impl InFlight {
    /// Whether its answer comes at least as fast as any answer must.
    pub(super) fn is_at_speed(&self, now: Timestamp) -> bool {
        let least =
            micros(now.saturating_since(self.sent)).saturating_mul(PROGRESS_BYTES_PER_SECOND) / 1_000_000;
        self.received > 0 && self.received >= least
    }

    /// What has come of it, if anything.
    pub(super) fn answer(&self) -> Option<Answer> {
        let began = self.began.filter(|_| self.received > 0)?;
        Some(Answer { sent: self.sent, began, received: self.received })
    }

    /// When it is over if nothing comes of it.
    pub(super) fn expires(&self) -> Timestamp {
        match (stands(Defence::TotalDeadline), stands(Defence::ProgressDeadline)) {
            (true, true) => self.deadline.min(self.progress_deadline),
            (true, false) => self.deadline,
            (false, _) => self.progress_deadline,
        }
    }

    /// Whether it asks for commits or blocks that a peer is said to have.
    pub(super) fn is_for_data(&self) -> bool {
        match &self.asked {
            Asked::Commits(asked) => asked.purpose != Purpose::Follow,
            Asked::Blocks(_) => true,
            Asked::Chain | Asked::Availability | Asked::Push => false,
        }
    }

    /// Whether it waits at the peer for what is to come.
    pub(super) fn is_follow(&self) -> bool {
        matches!(&self.asked, Asked::Commits(asked) if asked.purpose == Purpose::Follow)
    }

    /// Where what it asked for begins.
    pub(super) fn start(&self) -> Option<CommitIndex> {
        match &self.asked {
            Asked::Chain | Asked::Availability | Asked::Push => None,
            Asked::Commits(commits) => Some(commits.range.start()),
            Asked::Blocks(blocks) => blocks.positions.get(blocks.answered).map(|(index, _)| *index),
        }
    }
}

impl SyncMachine {
    /// `wait` is how long the peer may let us wait beyond the time that an answer takes.
    fn send(
        &mut self,
        peer: PeerId,
        request: Request,
        asked: Asked,
        reserved: u64,
        wait: Duration,
    ) -> RequestId {
        let id = self.new_request_id();
        let deadline = self.now.saturating_add(wait).saturating_add(self.config.timeout);
        let first_byte = self.peers.get(&peer).map_or(self.config.timeout, Peer::first_byte_deadline);
        let in_flight = InFlight {
            peer,
            sent: self.now,
            deadline,
            progress_deadline: self.now.saturating_add(wait).saturating_add(first_byte),
            reserved,
            began: None,
            received: 0,
            asked,
        };
        self.requests.insert(id, in_flight);
        self.push(Command::SendRequest { id, peer, request, deadline });
        id
    }

    /// The clock as peers are told it. Informative.
    pub(super) fn wall_ms(&self) -> u64 {
        self.now.as_micros() / 1000
    }

    /// Asks a peer which chain it is on.
    pub(super) fn ask_chain(&mut self, peer: PeerId) {
        let request = Request::CommitInfo(CommitInfoQuery::ByIndex(CommitIndex::GENESIS));
        self.send(peer, request, Asked::Chain, 0, Duration::ZERO);
    }

    /// Asks a peer how far it is.
    pub(super) fn ask_availability(&mut self, peer: PeerId) {
        let request = Request::Availability { timestamp_ms: self.wall_ms() };
        self.send(peer, request, Asked::Availability, 0, Duration::ZERO);
    }

    /// Tells a peer how far we are.
    pub(super) fn push_commit(&mut self, peer: PeerId, index: CommitIndex) {
        self.send(peer, Request::Push { index }, Asked::Push, 0, Duration::ZERO);
    }

    /// Asks for commits. Their bytes have been reserved.
    pub(super) fn ask_commits(&mut self, wanted: CommitsWanted, epoch: Epoch) -> RequestId {
        let CommitsWanted { peer, range, max_bytes, purpose } = wanted;
        let asked = CommitsAsked {
            range,
            epoch,
            max_bytes,
            commits: Vec::new(),
            certifiers: Vec::new(),
            blocks: Vec::new(),
            purpose,
        };
        let follow = purpose == Purpose::Follow;
        let wait = if follow { self.follow_wait() } else { Duration::ZERO };
        let request = Request::Commits(FetchCommits {
            start: range.start(),
            end: range.end(),
            max_bytes,
            wait,
            with_blocks: asked.with_blocks(),
        });
        let reserved = Self::commits_reservation(max_bytes);
        let id = self.send(peer, request, Asked::Commits(asked), reserved, wait);
        match purpose {
            Purpose::Fetch | Purpose::Follow if stands(Defence::MarkedWork) => self.window.request(range, id),
            Purpose::Fetch | Purpose::Follow | Purpose::Votes | Purpose::Hedge => {}
        }
        self.count_in_flight(peer, follow);
        id
    }

    /// How long a request is to wait at a peer: up to a tenth less than configured, so that those who began together do
    /// not come again together for ever.
    fn follow_wait(&mut self) -> Duration {
        let wait = self.config.follow_wait;
        if !stands(Defence::FollowJitter) {
            return wait;
        }
        wait.saturating_sub(Duration::from_micros(self.rng.below(micros(wait) / 10)))
    }

    /// Bytes to reserve for an answer of commits.
    pub(super) fn commits_reservation(max_bytes: u64) -> u64 {
        max_bytes.saturating_mul(DECODED_FACTOR)
    }

    /// Asks for blocks. Their bytes have been reserved.
    pub(super) fn ask_blocks(&mut self, wanted: BlocksWanted) -> Option<RequestId> {
        let BlocksWanted { peer, positions, max_bytes, hedge } = wanted;
        let known = positions.first().is_some_and(|(index, _)| self.window.body(*index).is_some());
        if !known {
            self.ledger.unreserve(max_bytes);
            return None;
        }
        let refs = self.window.references(&positions);
        let request = Request::Blocks(FetchBlocks { refs: refs.clone(), max_bytes });
        let marked = if hedge { Vec::new() } else { positions.clone() };
        let asked = BlocksAsked { positions, refs, answered: 0, delivered: 0, lacking: None, hedge };
        let id = self.send(peer, request, Asked::Blocks(asked), max_bytes, Duration::ZERO);
        self.window.set_slots(&marked, &Slot::Requested(id));
        self.count_in_flight(peer, false);
        Some(id)
    }

    fn count_in_flight(&mut self, peer: PeerId, follow: bool) {
        let Some(peer) = self.peers.get_mut(&peer) else { return };
        let count = if follow { &mut peer.following } else { &mut peer.in_flight };
        *count = count.saturating_add(1);
    }

    /// Takes a request out of the books.
    pub(super) fn finish(&mut self, id: RequestId) -> Option<InFlight> {
        let in_flight = self.requests.remove(id)?;
        match in_flight.asked {
            Asked::Commits(_) | Asked::Blocks(_) => self.head.finished(id, in_flight.received),
            Asked::Chain | Asked::Availability | Asked::Push => {}
        }
        let took = self.now.saturating_since(in_flight.sent);
        let next_poll = match in_flight.asked {
            Asked::Chain | Asked::Availability => self.next_poll(),
            Asked::Push | Asked::Commits(_) | Asked::Blocks(_) => self.now,
        };
        let Some(peer) = self.peers.get_mut(&in_flight.peer) else { return Some(in_flight) };
        match in_flight.asked {
            Asked::Chain | Asked::Availability => {
                peer.poll_in_flight = has(Bug::PollNeverOver);
                peer.next_poll = match (peer.link, peer.claim) {
                    // What the chain check has just opened is used at once.
                    (Link::Checked, None) if in_flight.received > 0 => self.now,
                    (Link::Checked | Link::Unchecked | Link::Down, _) => next_poll,
                };
            }
            Asked::Push => peer.push_in_flight = false,
            Asked::Commits(CommitsAsked { purpose: Purpose::Follow, .. }) => {
                peer.following = peer.following.saturating_sub(1);
            }
            Asked::Commits(_) | Asked::Blocks(_) => {
                peer.in_flight = peer.in_flight.saturating_sub(1);
                peer.pace.brought(in_flight.received, took);
            }
        }
        Some(in_flight)
    }

    /// What was asked for and has not come is missing again; what was set aside for it is free.
    pub(super) fn put_back(&mut self, id: RequestId, in_flight: &InFlight) {
        self.ledger.unreserve(in_flight.reserved);
        match &in_flight.asked {
            Asked::Chain | Asked::Availability | Asked::Push => {}
            Asked::Commits(asked) => self.window.forget_request(asked.range.start(), id),
            Asked::Blocks(asked) => {
                let kept = asked.positions.get(usize::from(has(Bug::LostBlock))..).unwrap_or_default();
                self.window.forget_slots(kept, &Slot::Requested(id));
            }
        }
    }

    /// A request ended without what it asked for, which may be nobody's fault: others are asked first.
    pub(super) fn not_delivered(&mut self, id: RequestId, in_flight: &InFlight) {
        let start = in_flight.start();
        self.put_back(id, in_flight);
        let (now, config) = (self.now, &self.config);
        if let (Some(known), Some(start)) = (self.peers.get_mut(&in_flight.peer), start) {
            // What nobody has yet, a peer cannot fail to deliver.
            if in_flight.is_follow() {
                known.follow_failed(now);
            } else {
                known.failed(start, now, config, &mut self.rng);
            }
        }
    }

    /// Abandons requests whose time is up.
    pub(super) fn expire_requests(&mut self) {
        let now = self.now;
        if !stands(Defence::Deadlines) {
            return;
        }
        for id in self.requests.expired(now) {
            self.counters.timeouts = self.counters.timeouts.saturating_add(1);
            self.push(Command::CancelRequest { id });
            let Some(in_flight) = self.finish(id) else { continue };
            if self.is_local_outage(&in_flight) {
                self.put_back(id, &in_flight);
                self.local_rest_until = now.saturating_add(LOCAL_REST);
                continue;
            }
            if let Some(known) = self.peers.get_mut(&in_flight.peer) {
                known.timed_out(self.config.timeout);
            }
            self.not_delivered(id, &in_flight);
            if !stands(Defence::BlamelessTimeouts) {
                self.offence(in_flight.peer, Offence::Malformed);
            }
        }
    }

    /// Whether nothing at all has come from anybody since the request was sent, though several peers are there: then it
    /// is our own link, and says nothing of the peer (scheduling: Blame needs proof).
    fn is_local_outage(&self, in_flight: &InFlight) -> bool {
        self.heard < in_flight.sent && self.peers.checked().nth(1).is_some() && stands(Defence::LinkOutage)
    }

    /// Abandons requests to a peer for what it no longer says that it has.
    pub(super) fn abandon_unclaimed(&mut self, peer: PeerId, claimed: CommitRange) {
        let outside = |in_flight: &InFlight| match &in_flight.asked {
            Asked::Commits(asked) if asked.purpose == Purpose::Follow => false,
            Asked::Commits(asked) => !claimed.contains(asked.range.start()),
            Asked::Blocks(asked) => asked.positions.iter().all(|(index, _)| !claimed.contains(*index)),
            Asked::Chain | Asked::Availability | Asked::Push => false,
        };
        self.cancel_where(|_, in_flight| in_flight.peer == peer && outside(in_flight));
    }

    /// Abandons a request, nobody's fault.
    pub(super) fn cancel(&mut self, id: RequestId) {
        if let Some(in_flight) = self.finish(id) {
            self.push(Command::CancelRequest { id });
            self.put_back(id, &in_flight);
        }
    }

    /// Abandons the requests of which `which` is true, nobody's fault.
    pub(super) fn cancel_where(&mut self, which: impl Fn(RequestId, &InFlight) -> bool) {
        let chosen = self.requests.iter().filter(|(id, in_flight)| which(*id, in_flight));
        let ids: Vec<_> = chosen.map(|(id, _)| id).collect();
        for id in ids {
            self.cancel(id);
        }
    }

    /// Abandons all requests to a peer: it is gone, or is to go.
    pub(super) fn abandon_requests_to(&mut self, peer: PeerId, cancel: bool) {
        let to_peer = self.requests.iter().filter(|(_, in_flight)| in_flight.peer == peer);
        let ids: Vec<_> = to_peer.map(|(id, _)| id).collect();
        for id in ids {
            if let Some(in_flight) = self.finish(id) {
                if cancel {
                    self.push(Command::CancelRequest { id });
                }
                self.put_back(id, &in_flight);
            }
        }
    }

    /// Abandons all requests for commits and blocks.
    pub(super) fn abandon_data_requests(&mut self) {
        self.cancel_where(|_, in_flight| in_flight.is_for_data() || in_flight.is_follow());
    }

    /// Abandons requests that wait at peers for what is to come.
    pub(super) fn abandon_following(&mut self) {
        self.cancel_where(|_, in_flight| in_flight.is_follow());
    }

    /// Abandons requests for commits of which every one has come from elsewhere.
    pub(super) fn cancel_needless(&mut self) {
        let tip = self.tip.reference.index;
        self.cancel_where(|_, in_flight| match &in_flight.asked {
            Asked::Commits(asked) => asked.range.end() <= tip,
            Asked::Blocks(asked) => asked.positions.iter().all(|(index, _)| *index <= tip),
            Asked::Chain | Asked::Availability | Asked::Push => false,
        });
    }
}
