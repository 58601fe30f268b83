//! What comes back for our requests.

use super::{
    SyncMachine,
    requests::{Asked, BlocksAsked, CommitsAsked, DECODED_FACTOR, InFlight},
};
use crate::{
    command::Offence,
    event::RequestId,
    job::{CertifyJob, CheckJob, Job},
    ledger::Claimant,
    machine::verdicts::{CertifyRecord, CheckRecord, JobRecord},
    payload::Payload,
    peers::{Claim, Link},
    request::{COMMITS_BEYOND_MAX, RefuseReason, RequestFailure, ResponsePart},
    types::{BlockRef, ChainId, CommitIndex, PeerId},
    window::Slot,
};
use alloc::{boxed::Box, vec::Vec};
use core::{iter::repeat_n, time::Duration};

/// How long nothing is fetched after a request failed on our side.
const LOCAL_REST: Duration = Duration::from_millis(100);

impl SyncMachine {
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
