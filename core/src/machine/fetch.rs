//! Requests of ours in flight, and what comes back.

use super::SyncMachine;
use crate::{
    command::{Command, Offence},
    event::RequestId,
    job::{CertifyJob, CheckJob, Job},
    ledger::Claimant,
    machine::verdicts::{CertifyRecord, CheckRecord, JobRecord},
    payload::Payload,
    peers::{Claim, Link},
    request::{
        COMMITS_BEYOND_MAX, CommitInfoQuery, FetchBlocks, FetchCommits, RefuseReason, Request,
        RequestFailure, ResponsePart,
    },
    schedule::{BlocksWanted, CommitsWanted},
    time::Timestamp,
    types::{BlockRef, ChainId, CommitIndex, CommitRange, CommitRef, Epoch, PeerId},
    window::Slot,
};
use alloc::{boxed::Box, vec::Vec};
use core::{iter::repeat_n, time::Duration};

/// A request that has not finished.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct InFlight {
    pub(super) peer: PeerId,
    sent: Timestamp,
    /// When it is over, whatever came of it.
    deadline: Timestamp,
    /// When it is over unless something comes of it before.
    progress_deadline: Timestamp,
    /// Bytes that its answer may still take, set aside in the ledger.
    pub(super) reserved: u64,
    /// Bytes that came.
    received: u64,
    pub(super) asked: Asked,
}

/// What was asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Asked {
    Chain,
    Availability,
    Push,
    Commits(CommitsAsked),
    Blocks(BlocksAsked),
}

/// A request for commits, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct CommitsAsked {
    pub(super) range: CommitRange,
    /// The epoch that we expect, and whether our chain proves it.
    epoch: Epoch,
    max_bytes: u64,
    commits: Vec<Payload>,
    certifiers: Vec<Payload>,
}

/// A request for blocks, and how far its answer is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct BlocksAsked {
    /// Commit and position in it of each block, in the order asked for. All are of one epoch.
    pub(super) positions: Vec<(CommitIndex, usize)>,
    refs: Vec<BlockRef>,
    epoch: Epoch,
    /// How many positions have been answered.
    answered: usize,
    /// How many of these were answered with a block, and the commit of the first that the server lacks.
    delivered: usize,
    lacking: Option<CommitIndex>,
}

/// How long nothing is fetched after a request failed on our side.
const LOCAL_REST: Duration = Duration::from_millis(100);

/// Bytes that an answer for commits takes in memory for each byte on the wire: the encoding, and the decoded
/// references, which are as many bytes again.
const DECODED_FACTOR: u64 = 2;

impl InFlight {
    /// When it is over if nothing comes of it.
    pub(super) fn expires(&self) -> Timestamp {
        self.deadline.min(self.progress_deadline)
    }

    /// Where what it asked for begins.
    fn start(&self) -> Option<CommitIndex> {
        match &self.asked {
            Asked::Chain | Asked::Availability | Asked::Push => None,
            Asked::Commits(commits) => Some(commits.range.start()),
            Asked::Blocks(blocks) => blocks.positions.get(blocks.answered).map(|(index, _)| *index),
        }
    }
}

impl SyncMachine {
    fn send(&mut self, peer: PeerId, request: Request, asked: Asked, reserved: u64) -> RequestId {
        let id = self.new_request_id();
        let deadline = self.now.saturating_add(self.config.timeout);
        let first_byte = self
            .peers
            .get(&peer)
            .map_or(self.config.timeout, |peer| peer.first_byte_deadline(self.config.timeout));
        let in_flight = InFlight {
            peer,
            sent: self.now,
            deadline,
            progress_deadline: self.now.saturating_add(first_byte),
            reserved,
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
        self.send(peer, request, Asked::Chain, 0);
    }

    /// Asks a peer how far it is.
    pub(super) fn ask_availability(&mut self, peer: PeerId) {
        let request = Request::Availability { timestamp_ms: self.wall_ms() };
        self.send(peer, request, Asked::Availability, 0);
    }

    /// Tells a peer how far we are.
    pub(super) fn push_commit(&mut self, peer: PeerId, index: CommitIndex) {
        self.send(peer, Request::Push { index }, Asked::Push, 0);
    }

    /// Asks for commits. Their bytes have been reserved.
    pub(super) fn ask_commits(&mut self, wanted: CommitsWanted, epoch: Epoch) {
        let CommitsWanted { peer, range, max_bytes, stored } = wanted;
        let asked = CommitsAsked { range, epoch, max_bytes, commits: Vec::new(), certifiers: Vec::new() };
        let request = Request::Commits(FetchCommits {
            start: range.start(),
            end: range.end(),
            max_bytes,
            wait: Duration::ZERO,
            with_blocks: false,
        });
        let id = self.send(peer, request, Asked::Commits(asked), max_bytes.saturating_mul(DECODED_FACTOR));
        if !stored {
            self.window.request(range, id);
        }
        self.count_in_flight(peer);
    }

    /// Bytes to reserve for an answer of commits.
    pub(super) fn commits_reservation(max_bytes: u64) -> u64 {
        max_bytes.saturating_mul(DECODED_FACTOR)
    }

    /// Asks for blocks. Their bytes have been reserved.
    pub(super) fn ask_blocks(&mut self, wanted: BlocksWanted) {
        let BlocksWanted { peer, positions, max_bytes } = wanted;
        let Some(epoch) =
            positions.first().and_then(|(index, _)| Some(self.window.body(*index)?.header.epoch))
        else {
            return self.ledger.unreserve(max_bytes);
        };
        let block_at = |(index, slot): &(CommitIndex, usize)| {
            self.window.body(*index).and_then(|body| body.header.blocks.get(*slot).copied())
        };
        let refs: Vec<_> = positions.iter().filter_map(block_at).collect();
        let request = Request::Blocks(FetchBlocks { refs: refs.clone(), max_bytes });
        let asked = BlocksAsked {
            positions: positions.clone(),
            refs,
            epoch,
            answered: 0,
            delivered: 0,
            lacking: None,
        };
        let id = self.send(peer, request, Asked::Blocks(asked), max_bytes);
        for (index, slot) in positions {
            self.window.set_slot(index, slot, Slot::Requested(id));
        }
        self.count_in_flight(peer);
    }

    fn count_in_flight(&mut self, peer: PeerId) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            peer.in_flight = peer.in_flight.saturating_add(1);
        }
    }

    /// One message of an answer.
    pub(super) fn response_part(&mut self, id: RequestId, part: ResponsePart) {
        let Some(in_flight) = self.requests.get_mut(&id) else {
            self.counters.stale = self.counters.stale.saturating_add(1);
            return;
        };
        let peer = in_flight.peer;
        if in_flight.received == 0
            && let Some(known) = self.peers.get_mut(&peer)
        {
            known.answered(self.now.saturating_since(in_flight.sent));
        }
        let pause = self
            .peers
            .get(&peer)
            .map_or(self.config.timeout, |peer| peer.progress_deadline(self.config.timeout));
        in_flight.progress_deadline = self.now.saturating_add(pause);
        let taken = match (&in_flight.asked, part) {
            (Asked::Chain, ResponsePart::CommitInfo { chain_id, .. }) => {
                self.chain_answered(id, peer, chain_id)
            }
            (Asked::Availability, ResponsePart::Availability { highest, lowest }) => {
                self.availability_answered(id, peer, highest, lowest)
            }
            (Asked::Push, ResponsePart::Push { .. }) => Ok(()),
            (Asked::Commits(_), ResponsePart::Commits { commits, certifiers, blocks, buffer_bytes }) => {
                if blocks.is_empty() {
                    self.commits_part(id, commits, certifiers, buffer_bytes)
                } else {
                    Err(Offence::TooMuch)
                }
            }
            (Asked::Blocks(_), ResponsePart::Blocks { blocks, missing, buffer_bytes }) => {
                self.blocks_part(id, blocks, &missing, buffer_bytes)
            }
            (
                Asked::Chain | Asked::Availability | Asked::Push | Asked::Commits(_) | Asked::Blocks(_),
                ResponsePart::CommitInfo { .. }
                | ResponsePart::Availability { .. }
                | ResponsePart::Push { .. }
                | ResponsePart::Commits { .. }
                | ResponsePart::Blocks { .. },
            ) => Err(Offence::WrongKind),
        };
        if let Err(offence) = taken {
            self.cancel(id);
            self.offence(peer, offence);
        }
    }

    fn chain_answered(&mut self, id: RequestId, peer: PeerId, chain: Option<ChainId>) -> Result<(), Offence> {
        if chain != Some(self.chain_id) {
            return Err(Offence::OtherChain);
        }
        self.counted(id);
        if let Some(known) = self.peers.get_mut(&peer)
            && known.link == Link::Unchecked
        {
            known.link = Link::Checked;
            known.next_poll = self.now;
        }
        Ok(())
    }

    fn availability_answered(
        &mut self,
        id: RequestId,
        peer: PeerId,
        highest: CommitIndex,
        lowest: CommitIndex,
    ) -> Result<(), Offence> {
        if lowest > highest {
            return Err(Offence::InvertedAvailability);
        }
        self.counted(id);
        let polled = self.now;
        if let Some(known) = self.peers.get_mut(&peer) {
            known.claimed(Claim { highest, lowest, polled, cut: false }, polled);
        }
        Ok(())
    }

    /// Notes that something came, for requests whose messages are not counted in bytes.
    fn counted(&mut self, id: RequestId) {
        if let Some(in_flight) = self.requests.get_mut(&id) {
            in_flight.received = in_flight.received.saturating_add(1);
        }
    }

    fn commits_part(
        &mut self,
        id: RequestId,
        commits: Vec<Payload>,
        certifiers: Vec<Payload>,
        bytes: u64,
    ) -> Result<(), Offence> {
        let Some(in_flight) = self.requests.get_mut(&id) else { return Ok(()) };
        in_flight.received = in_flight.received.saturating_add(bytes);
        let Asked::Commits(asked) = &mut in_flight.asked else { return Ok(()) };
        if in_flight.received > asked.max_bytes {
            return Err(Offence::TooMuch);
        }
        // Commits come before certifiers, over the whole answer.
        if !commits.is_empty() && !asked.certifiers.is_empty() {
            return Err(Offence::Malformed);
        }
        asked.commits.extend(commits);
        asked.certifiers.extend(certifiers);
        let most = asked.range.count().saturating_add(u64::from(COMMITS_BEYOND_MAX));
        let voters = u64::from(self.config.limits.max_ancestors).saturating_mul(2);
        let count = |items: &Vec<Payload>| u64::try_from(items.len()).unwrap_or(u64::MAX);
        if count(&asked.commits) > most || count(&asked.certifiers) > voters {
            return Err(Offence::TooMuch);
        }
        Ok(())
    }

    fn blocks_part(
        &mut self,
        id: RequestId,
        blocks: Vec<Payload>,
        missing: &[u32],
        bytes: u64,
    ) -> Result<(), Offence> {
        let Some(in_flight) = self.requests.get_mut(&id) else { return Ok(()) };
        in_flight.received = in_flight.received.saturating_add(bytes);
        let peer = in_flight.peer;
        let Asked::Blocks(asked) = &mut in_flight.asked else { return Ok(()) };
        if bytes > in_flight.reserved {
            return Err(Offence::TooMuch);
        }
        let matched = asked.take(blocks, missing)?;
        in_flight.reserved = in_flight.reserved.saturating_sub(bytes);
        let committee = self.committees.get(&asked.epoch).cloned();
        // What came from elsewhere meanwhile, or is given up, needs no check.
        let matched =
            matched.retain(|index, slot| self.window.slot(index, slot) == Some(&Slot::Requested(id)));
        for (index, slot) in &matched.lacking {
            self.window.forget_slot(*index, *slot, &Slot::Requested(id));
        }
        let buffer = self.ledger.hold(bytes, matched.blocks.len());
        let (Some(committee), Some(buffer)) = (committee, buffer) else {
            self.release(buffer.into_iter().flat_map(|buffer| repeat_n(buffer, matched.blocks.len())));
            return Ok(());
        };
        let job = self.new_job_id();
        for (index, slot) in &matched.slots {
            self.window.set_slot(*index, *slot, Slot::Checking(job));
        }
        let record = JobRecord::Check(CheckRecord { peer, buffer, slots: matched.slots });
        let check = CheckJob {
            refs: matched.refs,
            blocks: matched.blocks,
            committee,
            mode: self.config.block_verification,
            limits: self.config.limits,
        };
        self.jobs.submit(job, record, Job::Check(Box::new(check)));
        Ok(())
    }

    /// A request is over.
    pub(super) fn request_finished(&mut self, id: RequestId, result: Result<(), RequestFailure>) {
        let Some(in_flight) = self.finish(id) else {
            self.counters.stale = self.counters.stale.saturating_add(1);
            return;
        };
        let peer = in_flight.peer;
        match result {
            Ok(()) => self.answer_complete(id, in_flight),
            Err(RequestFailure::Malformed | RequestFailure::Oversize) => {
                self.put_back(id, &in_flight);
                self.offence(peer, Offence::Malformed);
            }
            Err(RequestFailure::Refused(reason)) => self.refused(id, &in_flight, reason),
            Err(RequestFailure::Local) => {
                self.put_back(id, &in_flight);
                self.local_rest_until = self.now.saturating_add(LOCAL_REST);
            }
            Err(RequestFailure::Disconnected | RequestFailure::Reset) => self.not_delivered(id, &in_flight),
        }
    }

    /// Takes a request out of the books.
    fn finish(&mut self, id: RequestId) -> Option<InFlight> {
        let in_flight = self.requests.remove(&id)?;
        let next_poll = match in_flight.asked {
            Asked::Chain | Asked::Availability => self.next_poll(),
            Asked::Push | Asked::Commits(_) | Asked::Blocks(_) => self.now,
        };
        let Some(peer) = self.peers.get_mut(&in_flight.peer) else { return Some(in_flight) };
        match in_flight.asked {
            Asked::Chain | Asked::Availability => {
                peer.poll_in_flight = false;
                peer.next_poll = match (peer.link, peer.claim) {
                    // What the chain check has just opened is used at once.
                    (Link::Checked, None) if in_flight.received > 0 => self.now,
                    (Link::Checked | Link::Unchecked | Link::Down, _) => next_poll,
                };
            }
            Asked::Push => peer.push_in_flight = false,
            Asked::Commits(_) | Asked::Blocks(_) => peer.in_flight = peer.in_flight.saturating_sub(1),
        }
        Some(in_flight)
    }

    /// The whole answer came, as far as the server is concerned.
    fn answer_complete(&mut self, id: RequestId, in_flight: InFlight) {
        let (now, peer) = (self.now, in_flight.peer);
        let (reserved, received) = (in_flight.reserved, in_flight.received);
        match in_flight.asked {
            Asked::Chain | Asked::Availability | Asked::Push => {}
            Asked::Commits(asked) if asked.commits.is_empty() => {
                let empty = InFlight { asked: Asked::Commits(asked), ..in_flight };
                self.not_delivered(id, &empty);
            }
            Asked::Commits(asked) => {
                self.ledger.unreserve(reserved);
                self.certify(id, peer, asked, received);
            }
            Asked::Blocks(asked) => {
                let first = asked.positions.first().map(|(index, _)| *index);
                let (delivered, lacking) = (asked.delivered, asked.lacking);
                let rest = InFlight { asked: Asked::Blocks(asked), ..in_flight };
                self.put_back(id, &rest);
                let config = &self.config;
                let Some(known) = self.peers.get_mut(&peer) else { return };
                match (lacking.or(first), delivered) {
                    (Some(start), 0) => known.failed(start, now, config, &mut self.rng),
                    // It delivered what it has: it is asked for other commits meanwhile.
                    (Some(start), _) if lacking.is_some() => known.avoid(start, now, config),
                    (_, _) => known.succeeded(config),
                }
            }
        }
    }

    /// Hands an answer of commits to verification.
    fn certify(&mut self, id: RequestId, peer: PeerId, asked: CommitsAsked, received: u64) {
        let CommitsAsked { range, epoch, commits, certifiers, .. } = asked;
        let bytes = received.saturating_mul(DECODED_FACTOR);
        let reserved = self.ledger.reserve(bytes, Claimant::Frontier);
        let held = reserved.then(|| self.ledger.hold(bytes, 1)).flatten();
        let (Some(buffer), Some(committee)) = (held, self.committees.get(&epoch).cloned()) else {
            self.release(held);
            return self.window.forget_request(range.start(), id);
        };
        let count = u32::try_from(commits.len().saturating_sub(1)).unwrap_or(u32::MAX);
        let end = range.start().saturating_add(count);
        let job = self.new_job_id();
        self.window.certifying(range.start(), id, job, end);
        let last = range.end().saturating_add(COMMITS_BEYOND_MAX);
        let certify = CertifyJob {
            start: range.start(),
            last,
            committee,
            commits,
            certifiers,
            limits: self.config.limits,
        };
        let record = JobRecord::Certify(CertifyRecord { peer, range, epoch, buffer });
        self.jobs.submit(job, record, Job::Certify(Box::new(certify)));
    }

    /// What was asked for and has not come is missing again; what was set aside for it is free.
    fn put_back(&mut self, id: RequestId, in_flight: &InFlight) {
        self.ledger.unreserve(in_flight.reserved);
        match &in_flight.asked {
            Asked::Chain | Asked::Availability | Asked::Push => {}
            Asked::Commits(asked) => self.window.forget_request(asked.range.start(), id),
            Asked::Blocks(asked) => {
                for (index, slot) in &asked.positions {
                    self.window.forget_slot(*index, *slot, &Slot::Requested(id));
                }
            }
        }
    }

    /// A request ended without what it asked for, which may be nobody's fault: others are asked first.
    fn not_delivered(&mut self, id: RequestId, in_flight: &InFlight) {
        let start = in_flight.start();
        self.put_back(id, in_flight);
        let (now, config) = (self.now, &self.config);
        if let (Some(known), Some(start)) = (self.peers.get_mut(&in_flight.peer), start) {
            known.failed(start, now, config, &mut self.rng);
        }
    }

    fn refused(&mut self, id: RequestId, in_flight: &InFlight, reason: RefuseReason) {
        let claim = self.peers.get(&in_flight.peer).and_then(|peer| peer.claim);
        match (reason, &in_flight.asked) {
            // The votes for a single commit may need more than the usual answer allows.
            (RefuseReason::TooLarge, Asked::Commits(asked)) if self.enlarge(asked) => {
                self.put_back(id, in_flight);
            }
            // It is to be asked for fewer at a time.
            (RefuseReason::TooMany, Asked::Blocks(asked)) if asked.positions.len() > 1 => {
                self.put_back(id, in_flight);
                if let Some(known) = self.peers.get_mut(&in_flight.peer) {
                    known.max_blocks = asked.positions.len() / 2;
                }
            }
            // It does what it can: nothing is held against its word, and it is asked again after a rest.
            (RefuseReason::Busy, _) => {
                self.not_delivered(id, in_flight);
                if let Some(known) = self.peers.get_mut(&in_flight.peer) {
                    known.believe(claim);
                }
            }
            (
                RefuseReason::InvalidRange
                | RefuseReason::TooMany
                | RefuseReason::InvalidReference
                | RefuseReason::Malformed
                | RefuseReason::Unavailable
                | RefuseReason::TooLarge
                | RefuseReason::Internal,
                _,
            ) => self.not_delivered(id, in_flight),
        }
    }

    /// Allows twice the bytes for what did not fit; `false` where more cannot be allowed.
    fn enlarge(&mut self, asked: &CommitsAsked) -> bool {
        let start = asked.range.start();
        let most = self.config.certified_answer_bytes();
        let nearer = self.enlarged.is_none_or(|(of, _)| start <= of || of <= self.tip.reference.index);
        if asked.max_bytes >= most || !nearer {
            return false;
        }
        self.enlarged = Some((start, asked.max_bytes.saturating_mul(2).min(most)));
        true
    }

    /// Abandons requests whose time is up.
    pub(super) fn expire_requests(&mut self) {
        let now = self.now;
        let expired = self.requests.iter().filter(|(_, in_flight)| in_flight.expires() <= now);
        let expired: Vec<_> = expired.map(|(id, _)| *id).collect();
        for id in expired {
            self.counters.timeouts = self.counters.timeouts.saturating_add(1);
            self.push(Command::CancelRequest { id });
            if let Some(in_flight) = self.finish(id) {
                if let Some(known) = self.peers.get_mut(&in_flight.peer) {
                    known.timed_out();
                }
                self.not_delivered(id, &in_flight);
            }
        }
    }

    /// Abandons a request, nobody's fault.
    pub(super) fn cancel(&mut self, id: RequestId) {
        if let Some(in_flight) = self.finish(id) {
            self.push(Command::CancelRequest { id });
            self.put_back(id, &in_flight);
        }
    }

    /// Abandons all requests to a peer: it is gone, or is to go.
    pub(super) fn abandon_requests_to(&mut self, peer: PeerId, cancel: bool) {
        let to_peer = self.requests.iter().filter(|(_, in_flight)| in_flight.peer == peer);
        let ids: Vec<_> = to_peer.map(|(id, _)| *id).collect();
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
        let data = self.requests.iter().filter(|(_, in_flight)| match in_flight.asked {
            Asked::Commits(_) | Asked::Blocks(_) => true,
            Asked::Chain | Asked::Availability | Asked::Push => false,
        });
        let ids: Vec<_> = data.map(|(id, _)| *id).collect();
        for id in ids {
            self.cancel(id);
        }
    }

    /// Abandons requests for commits of which every one has come from elsewhere.
    pub(super) fn cancel_needless(&mut self) {
        let tip = self.tip.reference.index;
        let needless = self.requests.iter().filter(|(_, in_flight)| match &in_flight.asked {
            Asked::Commits(asked) => asked.range.end() <= tip,
            Asked::Blocks(asked) => asked.positions.iter().all(|(index, _)| *index <= tip),
            Asked::Chain | Asked::Availability | Asked::Push => false,
        });
        let ids: Vec<_> = needless.map(|(id, _)| *id).collect();
        for id in ids {
            self.cancel(id);
        }
    }

    /// Our highest certifiable commit.
    pub(super) fn certifiable(&self) -> CommitRef {
        self.votes.certifiable()
    }
}

/// The blocks of a message, each beside what was asked for.
struct Matched {
    refs: Vec<BlockRef>,
    slots: Vec<(CommitIndex, usize)>,
    blocks: Vec<Payload>,
    lacking: Vec<(CommitIndex, usize)>,
}

impl Matched {
    /// Without the blocks of which `wanted` is not true.
    fn retain(self, wanted: impl Fn(CommitIndex, usize) -> bool) -> Self {
        let Self { refs, slots, blocks, lacking } = self;
        let mut kept = Self { refs: Vec::new(), slots: Vec::new(), blocks: Vec::new(), lacking };
        for ((reference, (index, slot)), block) in refs.into_iter().zip(slots).zip(blocks) {
            if wanted(index, slot) {
                kept.refs.push(reference);
                kept.slots.push((index, slot));
                kept.blocks.push(block);
            }
        }
        kept
    }
}

impl BlocksAsked {
    /// Lines up a message with the positions that have not been answered.
    fn take(&mut self, blocks: Vec<Payload>, missing: &[u32]) -> Result<Matched, Offence> {
        let mut matched =
            Matched { refs: Vec::new(), slots: Vec::new(), blocks: Vec::new(), lacking: Vec::new() };
        let mut missing = missing.iter().copied().peekable();
        let mut blocks = blocks.into_iter();
        loop {
            let lacks = missing.peek().is_some_and(|at| usize::try_from(*at) == Ok(self.answered));
            let block = if lacks { None } else { blocks.next() };
            if !lacks && block.is_none() {
                break;
            }
            let position = self.positions.get(self.answered).zip(self.refs.get(self.answered));
            let (position, reference) = position.ok_or(Offence::TooMuch)?;
            match block {
                Some(block) => {
                    matched.refs.push(*reference);
                    matched.slots.push(*position);
                    matched.blocks.push(block);
                    self.delivered = self.delivered.saturating_add(1);
                }
                None => {
                    missing.next();
                    self.lacking = self.lacking.or(Some(position.0));
                    matched.lacking.push(*position);
                }
            }
            self.answered = self.answered.saturating_add(1);
        }
        // What is left over names positions that were answered before, or out of turn.
        if missing.next().is_some() { Err(Offence::Malformed) } else { Ok(matched) }
    }
}
