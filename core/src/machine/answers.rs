//! What comes back for our requests.

use super::{
    SyncMachine,
    requests::{Asked, BlocksAsked, CommitsAsked, DECODED_FACTOR, InFlight, LOCAL_REST},
};
use crate::{
    bug::{Bug, has},
    command::Offence,
    defence::{Defence, stands},
    event::RequestId,
    job::{CertifyJob, CheckJob, Job},
    ledger::{BufferId, Claimant},
    machine::verdicts::{CertifyRecord, CheckRecord, JobRecord},
    payload::Payload,
    peers::{Claim, Link},
    request::{COMMITS_BEYOND_MAX, RefuseReason, RequestFailure, ResponsePart},
    schedule::Purpose,
    types::{BlockRef, ChainId, CommitIndex, CommitRange, PeerId},
    window::Slot,
};
use alloc::{boxed::Box, vec::Vec};
use core::{iter::repeat_n, time::Duration};

/// The shortest time after which a request that was to wait may be said to have waited.
const WAITED_MIN: Duration = Duration::from_millis(500);

impl SyncMachine {
    /// One message of an answer.
    pub(super) fn response_part(&mut self, id: RequestId, part: ResponsePart) {
        let Some(in_flight) = self.requests.get_mut(id) else {
            let counted = u64::from(stands(Defence::StaleAnswers));
            self.counters.stale = self.counters.stale.saturating_add(counted);
            return;
        };
        let peer = in_flight.peer;
        // How long a commit took to come about says nothing of the peer.
        if in_flight.received == 0
            && !in_flight.is_follow()
            && let Some(known) = self.peers.get_mut(&peer)
        {
            known.pace.answered(self.now.saturating_since(in_flight.sent));
        }
        self.heard = self.now;
        let began = *in_flight.began.get_or_insert(self.now);
        let received = in_flight.received.saturating_add(part.bytes());
        let timeout = self.config.timeout;
        let lasts = self.peers.get(&peer).map_or(timeout, |peer| peer.progress_deadline(received));
        let Some(in_flight) = self.requests.set_progress_deadline(id, began.saturating_add(lasts)) else {
            return;
        };
        let taken = match (&in_flight.asked, part) {
            (Asked::Chain, ResponsePart::CommitInfo { chain_id, .. }) => {
                self.chain_answered(id, peer, chain_id)
            }
            (Asked::Availability, ResponsePart::Availability { highest, lowest }) => {
                self.availability_answered(id, peer, highest, lowest)
            }
            (Asked::Push, ResponsePart::Push { .. }) => Ok(()),
            (Asked::Commits(_), ResponsePart::Commits { commits, certifiers, blocks, buffer_bytes }) => {
                self.commits_part(id, [commits, certifiers, blocks], buffer_bytes)
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
            ) => {
                if stands(Defence::AnswerKind) {
                    Err(Offence::WrongKind)
                } else {
                    Ok(())
                }
            }
        };
        if let Err(offence) = taken {
            self.cancel(id);
            self.offence(peer, offence);
        }
    }

    fn chain_answered(&mut self, id: RequestId, peer: PeerId, chain: Option<ChainId>) -> Result<(), Offence> {
        if chain != Some(self.chain_id) && stands(Defence::ChainCheck) {
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
        if lowest > highest && stands(Defence::InvertedClaims) {
            return Err(Offence::InvertedAvailability);
        }
        self.counted(id);
        let polled = self.now;
        if let Some(known) = self.peers.get_mut(&peer) {
            known.claimed(Claim { highest, lowest, polled, cut: false }, polled);
        }
        if let Some(claimed) = CommitRange::new(lowest, highest)
            && stands(Defence::AbandonUnclaimed)
        {
            self.abandon_unclaimed(peer, claimed);
        }
        Ok(())
    }

    /// Notes that something came, for requests whose messages are not counted in bytes.
    fn counted(&mut self, id: RequestId) {
        if let Some(in_flight) = self.requests.get_mut(id) {
            in_flight.received = in_flight.received.saturating_add(1);
        }
    }

    fn commits_part(
        &mut self,
        id: RequestId,
        [commits, certifiers, blocks]: [Vec<Payload>; 3],
        bytes: u64,
    ) -> Result<(), Offence> {
        let Some(in_flight) = self.requests.get_mut(id) else { return Ok(()) };
        in_flight.received = in_flight.received.saturating_add(bytes);
        let Asked::Commits(asked) = &mut in_flight.asked else { return Ok(()) };
        let received = if stands(Defence::AnswerBytes) { in_flight.received } else { bytes };
        if received > asked.max_bytes {
            return Err(Offence::TooMuch);
        }
        if !blocks.is_empty() && !asked.with_blocks() {
            return Err(Offence::TooMuch);
        }
        // Commits come before certifiers, and these before blocks, over the whole answer.
        let begun = !asked.certifiers.is_empty() || !asked.blocks.is_empty();
        let late_commits = begun && !commits.is_empty();
        let late_certifiers = !certifiers.is_empty() && !asked.blocks.is_empty();
        if late_commits || late_certifiers {
            return Err(Offence::Malformed);
        }
        asked.commits.extend(commits);
        asked.certifiers.extend(certifiers);
        asked.blocks.extend(blocks);
        let most = asked.range.count().saturating_add(u64::from(COMMITS_BEYOND_MAX));
        let voters = u64::from(self.config.limits.max_ancestors).saturating_mul(2);
        let count = |items: &Vec<Payload>| u64::try_from(items.len()).unwrap_or(u64::MAX);
        let many_commits = count(&asked.commits) > most && stands(Defence::CommitCount);
        let many_certifiers = count(&asked.certifiers) > voters && stands(Defence::CertifierCount);
        if many_commits || many_certifiers {
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
        let Some(in_flight) = self.requests.get_mut(id) else { return Ok(()) };
        in_flight.received = in_flight.received.saturating_add(bytes);
        let peer = in_flight.peer;
        let Asked::Blocks(asked) = &mut in_flight.asked else { return Ok(()) };
        if bytes > in_flight.reserved {
            return Err(Offence::TooMuch);
        }
        let lacked = asked.lacking;
        let matched = asked.take(blocks, missing)?;
        in_flight.reserved = in_flight.reserved.saturating_sub(bytes);
        let (hedge, lacks) = (asked.hedge, asked.lacking.filter(|_| lacked.is_none()));
        // What it lacks is missing from now on, and not to be asked of it again.
        let (now, config) = (self.now, &self.config);
        if let (Some(start), Some(known)) = (lacks, self.peers.get_mut(&peer)) {
            known.avoid(start, now, config);
        }
        self.window.forget_slots(&matched.lacking, &Slot::Requested(id));
        // What came from elsewhere meanwhile, or is given up, needs no check.
        let matched = matched.retain(|index, slot| match self.window.slot(index, slot) {
            Some(Slot::Requested(of)) => hedge || *of == id,
            Some(Slot::Missing) => hedge,
            Some(Slot::Checking(_) | Slot::Held(_) | Slot::Staged) | None => false,
        });
        if let Some(buffer) = self.ledger.hold(bytes, matched.blocks.len()) {
            self.check(peer, buffer, matched);
        }
        if hedge {
            self.give_up_overtaken();
        }
        Ok(())
    }

    /// Hands blocks to verification, all of one epoch, each charged to the buffer.
    pub(super) fn check(&mut self, peer: PeerId, buffer: BufferId, matched: Matched) {
        let Matched { refs, slots, blocks, lacking: _ } = matched;
        let epoch = slots.first().and_then(|(index, _)| Some(self.window.body(*index)?.header.epoch));
        let Some(committee) = epoch.and_then(|epoch| self.committees.get(&epoch).cloned()) else {
            return self.release(repeat_n(buffer, blocks.len()));
        };
        let job = self.new_job_id();
        self.window.set_slots(&slots, &Slot::Checking(job));
        let record = JobRecord::Check(CheckRecord { peer, buffer, slots });
        let (mode, limits) = (self.config.block_verification, self.config.limits);
        let check = CheckJob { refs, blocks, committee, mode, limits };
        self.jobs.submit(job, record, Job::Check(Box::new(check)));
    }

    /// A request is over.
    pub(super) fn request_finished(&mut self, id: RequestId, result: Result<(), RequestFailure>) {
        let Some(in_flight) = self.finish(id) else {
            let counted = u64::from(stands(Defence::StaleAnswers));
            self.counters.stale = self.counters.stale.saturating_add(counted);
            return;
        };
        let peer = in_flight.peer;
        match result {
            Ok(()) => self.answer_complete(id, in_flight),
            Err(RequestFailure::Malformed | RequestFailure::Oversize) => {
                self.put_back(id, &in_flight);
                if stands(Defence::MalformedAnswers) {
                    self.offence(peer, Offence::Malformed);
                }
            }
            Err(RequestFailure::Refused(reason)) => self.refused(id, &in_flight, reason),
            Err(RequestFailure::Local) if !stands(Defence::LocalFailure) => {
                self.not_delivered(id, &in_flight);
            }
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
            Asked::Commits(asked) if asked.commits.is_empty() && stands(Defence::EmptyAnswers) => {
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
                let (count, cut) = (asked.positions.len(), asked.answered < asked.positions.len());
                let rest = InFlight { asked: Asked::Blocks(asked), ..in_flight };
                self.put_back(id, &rest);
                let config = &self.config;
                let Some(known) = self.peers.get_mut(&peer) else { return };
                known.answered_blocks(count, cut, now);
                match (first, lacking, delivered) {
                    (_, Some(start), 0) => known.fell_short(start, now, &mut self.rng),
                    (Some(start), None, 0) => known.failed(start, now, config, &mut self.rng),
                    // It delivered what it has: it is asked for other commits meanwhile.
                    (_, Some(_), _) => {}
                    (_, None, _) => known.succeeded(config),
                }
            }
        }
    }

    /// Hands an answer of commits to verification.
    fn certify(&mut self, id: RequestId, peer: PeerId, asked: CommitsAsked, received: u64) {
        let CommitsAsked { range, epoch, commits, certifiers, blocks, purpose, max_bytes: _ } = asked;
        // By now more may be known of the commits before it than when it was asked for.
        let epoch = match purpose {
            Purpose::Follow if !has(Bug::FollowKeepsEpoch) => self.epoch_below(range.start()),
            Purpose::Fetch | Purpose::Hedge if range.start() > self.tip.reference.index => {
                self.epoch_below(range.start())
            }
            Purpose::Fetch | Purpose::Follow | Purpose::Votes | Purpose::Hedge => epoch,
        };
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
        let record = JobRecord::Certify(CertifyRecord { peer, range, epoch, buffer, blocks, purpose });
        self.jobs.submit(job, record, Job::Certify(Box::new(certify)));
    }

    /// A request that waited at a peer came back with nothing. That no commit came about in the meantime is no
    /// failure.
    fn waited_in_vain(&mut self, id: RequestId, in_flight: &InFlight, reason: RefuseReason) {
        let waited = self.now.saturating_since(in_flight.sent);
        self.put_back(id, in_flight);
        let in_time =
            reason == RefuseReason::Unavailable && waited >= WAITED_MIN.min(self.config.follow_wait);
        let now = self.now;
        if let Some(known) = self.peers.get_mut(&in_flight.peer).filter(|_| !in_time) {
            known.follow_failed(now);
        }
    }

    fn refused(&mut self, id: RequestId, in_flight: &InFlight, reason: RefuseReason) {
        if in_flight.is_follow() {
            return self.waited_in_vain(id, in_flight, reason);
        }
        let claim = self.peers.get(&in_flight.peer).and_then(|peer| peer.claim);
        self.second_refused(in_flight);
        match (reason, &in_flight.asked) {
            // The votes for a single commit may need more than the usual answer allows.
            (RefuseReason::TooLarge, Asked::Commits(asked)) if self.enlarge(asked) => {
                self.put_back(id, in_flight);
            }
            // It is to be asked for fewer at a time.
            (RefuseReason::TooMany, Asked::Blocks(asked)) if asked.positions.len() > 1 => {
                self.put_back(id, in_flight);
                if let Some(known) = self.peers.get_mut(&in_flight.peer) {
                    known.set_max_blocks(asked.positions.len() / 2, self.now);
                }
            }
            // It does what it can: nothing is held against its word, and it is asked again after a rest.
            (RefuseReason::Busy, _) => {
                self.put_back(id, in_flight);
                let known = self.peers.get_mut(&in_flight.peer);
                if let Some((known, start)) = known.zip(in_flight.start()) {
                    known.fell_short(start, self.now, &mut self.rng);
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
        if asked.max_bytes >= most || !nearer || !stands(Defence::EnlargedAnswers) {
            return false;
        }
        self.enlarged = Some((start, asked.max_bytes.saturating_mul(2).min(most)));
        true
    }
}

/// The blocks of a message, each beside what was asked for.
#[derive(Default)]
pub(super) struct Matched {
    refs: Vec<BlockRef>,
    slots: Vec<(CommitIndex, usize)>,
    pub(super) blocks: Vec<Payload>,
    lacking: Vec<(CommitIndex, usize)>,
}

impl Matched {
    /// Of the blocks, those of which `wanted` is true.
    fn retain(self, wanted: impl Fn(CommitIndex, usize) -> bool) -> Self {
        if self.slots.iter().all(|(index, slot)| wanted(*index, *slot)) {
            return self;
        }
        let Self { refs, slots, blocks, lacking: _ } = self;
        let mut kept = Self::default();
        for ((reference, (index, slot)), block) in refs.into_iter().zip(slots).zip(blocks) {
            if wanted(index, slot) {
                kept.push(reference, (index, slot), block);
            }
        }
        kept
    }

    /// With room for so many blocks.
    fn with_capacity(count: usize) -> Self {
        Self {
            refs: Vec::with_capacity(count),
            slots: Vec::with_capacity(count),
            blocks: Vec::with_capacity(count),
            lacking: Vec::new(),
        }
    }

    pub(super) fn push(&mut self, reference: BlockRef, slot: (CommitIndex, usize), block: Payload) {
        self.refs.push(reference);
        self.slots.push(slot);
        self.blocks.push(block);
    }
}

impl BlocksAsked {
    /// Lines up a message with the positions that have not been answered.
    fn take(&mut self, blocks: Vec<Payload>, missing: &[u32]) -> Result<Matched, Offence> {
        if !missing.is_empty() && !stands(Defence::MissingBlocks) {
            return Err(Offence::Malformed);
        }
        // No more than what was asked for.
        let mut matched = Matched::with_capacity(blocks.len().min(self.positions.len()));
        let mut missing = missing.iter().copied().peekable();
        let mut blocks = blocks.into_iter();
        loop {
            let lacks = missing.peek().is_some_and(|at| usize::try_from(*at) == Ok(self.answered));
            let block = if lacks { None } else { blocks.next() };
            if !lacks && block.is_none() {
                break;
            }
            let position = self.positions.get(self.answered).zip(self.refs.get(self.answered));
            if position.is_none() && !stands(Defence::BlockCount) {
                break;
            }
            let (position, reference) = position.ok_or(Offence::TooMuch)?;
            match block {
                Some(block) => {
                    matched.push(*reference, *position, block);
                    self.delivered = self.delivered.saturating_add(1);
                }
                None => {
                    missing.next();
                    self.lacking = self.lacking.or(Some(position.0));
                    matched.lacking.push(*position);
                    if has(Bug::MissingShiftsBlocks) {
                        continue;
                    }
                }
            }
            self.answered = self.answered.saturating_add(1);
        }
        // What is left over names positions that were answered before, or out of turn.
        if missing.next().is_some() { Err(Offence::Malformed) } else { Ok(matched) }
    }
}
