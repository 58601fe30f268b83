//! Verification jobs handed out, and what their verdicts lead to.

use super::SyncMachine;
use crate::{
    bug::{Bug, has},
    command::{Command, Halt, Offence},
    defence::{Defence, stands},
    event::JobId,
    job::{
        BlockOutcome, CertifiedRange, CertifyVerdict, CheckedBlock, CommitHeader, Job, ObserveJob, Verdict,
    },
    ledger::BufferId,
    machine::answers::Matched,
    payload::Payload,
    schedule::Purpose,
    types::{CommitIndex, CommitRange, CommitRef, Epoch, PeerId},
    verified::Verified,
    window::{Below, Body, Slot},
};
use alloc::{
    boxed::Box,
    collections::{BTreeMap, VecDeque},
    vec::Vec,
};

/// The jobs: those that workers have, and those that wait until one of these is done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Jobs {
    /// What to do with each verdict. An abandoned job stays until it is done: it cannot be taken back.
    pub(super) records: BTreeMap<JobId, JobRecord>,
    pub(super) waiting: VecDeque<(JobId, Job)>,
    running: u32,
}
saved! { struct Jobs { records, waiting, running } }

/// What a job is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum JobRecord {
    Certify(CertifyRecord),
    Check(CheckRecord),
    Observe(ObserveRecord),
    Votes { buffer: BufferId },
}
saved! { enum JobRecord { 0 => Certify(it), 1 => Check(it), 2 => Observe(it), 3 => Votes { buffer } } }

/// An answer of commits that is being certified.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct CertifyRecord {
    pub(super) peer: PeerId,
    pub(super) range: CommitRange,
    /// The epoch whose committee it is held against.
    pub(super) epoch: Epoch,
    pub(super) buffer: BufferId,
    /// Blocks that came with them, in commit order.
    pub(super) blocks: Vec<Payload>,
    pub(super) purpose: Purpose,
}
saved! { struct CertifyRecord { peer, range, epoch, buffer, blocks, purpose } }

/// A commit of our own consensus that is being decoded. Nobody else may have it, so it is kept until that is done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct ObserveRecord {
    pub(super) buffer: BufferId,
    pub(super) job: Box<ObserveJob>,
    /// How often a worker has died over it.
    pub(super) failures: u32,
}
saved! { struct ObserveRecord { buffer, job, failures } }

/// Blocks of one message that are being checked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct CheckRecord {
    pub(super) peer: PeerId,
    /// Charged with one kept payload for each slot.
    pub(super) buffer: BufferId,
    pub(super) slots: Vec<(CommitIndex, usize)>,
}
saved! { struct CheckRecord { peer, buffer, slots } }

impl Jobs {
    /// Takes a job to be handed out.
    pub(super) fn submit(&mut self, id: JobId, record: JobRecord, job: Job) {
        self.records.insert(id, record);
        self.waiting.push_back((id, job));
    }

    /// The next job to hand out, if fewer than `max` are.
    pub(super) fn start(&mut self, max: u32) -> Option<(JobId, Job)> {
        if self.running >= max {
            return None;
        }
        let next = self.waiting.pop_front()?;
        self.running = self.running.saturating_add(1);
        Some(next)
    }

    /// A job is done. Jobs that wait were never handed out, so no verdict can be about one.
    fn done(&mut self, id: JobId) -> Option<JobRecord> {
        // Ids ascend, and jobs are handed out in their order.
        if self.waiting.front().is_some_and(|(next, _)| *next <= id) {
            return None;
        }
        let record = self.records.remove(&id)?;
        self.running = self.running.saturating_sub(if has(Bug::JobSlotFreedTwice) { 2 } else { 1 });
        Some(record)
    }

    /// Whether any job is handed out or waits.
    pub(super) fn is_idle(&self) -> bool {
        self.records.is_empty()
    }

    pub(super) fn running(&self) -> u32 {
        self.running
    }

    /// Buffers that jobs keep, one for each kept payload.
    pub(super) fn buffers(&self) -> impl Iterator<Item = BufferId> {
        self.records.values().flat_map(JobRecord::buffers)
    }
}

/// Every block of certified commits, in commit order, by commit and position in it.
fn blocks_in_order(certified: &CertifiedRange) -> Vec<(CommitIndex, usize)> {
    let commits = certified.commits.iter();
    commits.flat_map(|commit| (0..commit.blocks.len()).map(|slot| (commit.reference.index, slot))).collect()
}

impl SyncMachine {
    /// A worker finished a job.
    pub(super) fn verified(&mut self, id: JobId, verdict: Verdict) {
        let Some(record) = self.jobs.done(id) else {
            self.counters.stale = self.counters.stale.saturating_add(1);
            return;
        };
        match (record, verdict) {
            (JobRecord::Certify(record), Verdict::Certify(verdict)) => {
                self.certify_verdict(id, record, verdict);
            }
            (JobRecord::Check(record), Verdict::Check(outcomes)) => self.check_verdict(id, record, outcomes),
            (JobRecord::Observe(record), Verdict::Observe(verdict)) => {
                self.observe_verdict(record.buffer, verdict);
            }
            (JobRecord::Votes { buffer }, Verdict::Votes(blocks)) => self.votes_verdict(buffer, blocks),
            // The worker died, or its verdict is about another kind of job: a local fault. The work is done again.
            (record, _) => self.worker_failed(id, record),
        }
    }

    fn worker_failed(&mut self, id: JobId, record: JobRecord) {
        self.counters.worker_failures = self.counters.worker_failures.saturating_add(1);
        let buffers: Vec<_> = match &record {
            JobRecord::Observe(_) => Vec::new(),
            JobRecord::Certify(_) | JobRecord::Check(_) | JobRecord::Votes { .. } => {
                record.buffers().collect()
            }
        };
        if !has(Bug::LeakOnDeadWorker) {
            self.release(buffers);
        }
        match record {
            JobRecord::Certify(record) => self.window.forget_job(record.range.start(), id),
            JobRecord::Check(record) => {
                self.window.forget_slots(&record.slots, &Slot::Checking(id));
            }
            JobRecord::Observe(record) => self.observe_again(record),
            JobRecord::Votes { .. } => {}
        }
    }

    fn certify_verdict(&mut self, id: JobId, record: CertifyRecord, verdict: CertifyVerdict) {
        let CertifyRecord { peer, range, epoch, buffer, blocks, purpose } = record;
        let start = range.start();
        self.window.forget_job(start, id);
        match verdict {
            CertifyVerdict::Certified(certified) => {
                let held = blocks_in_order(&certified);
                self.certified(peer, start, buffer, certified);
                self.came_with(peer, buffer, held, blocks);
                if let Some(known) = self.peers.get_mut(&peer).filter(|_| purpose == Purpose::Follow) {
                    known.follow_succeeded();
                    self.counters.followed = self.counters.followed.saturating_add(1);
                }
            }
            CertifyVerdict::OtherEpoch { found } => self.other_epoch(peer, range, epoch, found),
            CertifyVerdict::Refused(_) => self.offence(peer, Offence::BadCommits),
            // Keys of an epoch that is over prove nothing about the next.
            CertifyVerdict::CertifiedInvalid(_) if self.epoch_below(start) != epoch => {}
            CertifyVerdict::CertifiedInvalid(fault) => self.halt(Halt::CertifiedInvalid(Box::new(fault))),
        }
        // The job's own hold on the answer; what the window keeps of it has been counted beside it.
        self.ledger.release(buffer);
        if has(Bug::ReleasedTwice) {
            self.ledger.release(buffer);
        }
    }

    /// Blocks that came in one answer with the commits that name them, in that order: those that are still missing
    /// are checked.
    fn came_with(
        &mut self,
        peer: PeerId,
        buffer: BufferId,
        order: Vec<(CommitIndex, usize)>,
        blocks: Vec<Payload>,
    ) {
        if blocks.len() > order.len() {
            return self.offence(peer, Offence::TooMuch);
        }
        let mut matched = Matched::default();
        for ((index, slot), block) in order.into_iter().zip(blocks) {
            if self.window.slot(index, slot) == Some(&Slot::Missing)
                && let Some(reference) = self.window.body(index).and_then(|body| body.header.blocks.get(slot))
            {
                matched.push(*reference, (index, slot), block);
            }
        }
        self.ledger.keep_more(buffer, matched.blocks.len());
        self.check(peer, buffer, matched);
    }

    /// An answer says that its commits are of another epoch than we expect.
    fn other_epoch(&mut self, peer: PeerId, range: CommitRange, expected: Epoch, found: Epoch) {
        let start = range.start();
        // What lies at or below the tip has come from elsewhere: nothing waits for it.
        if start <= self.tip.reference.index {
            return;
        }
        // What was expected when the job began may be proven wrong by now; then nobody is at fault.
        let below = self.below(start);
        if found == below.epoch && found != expected {
            return;
        }
        // Epochs never fall, and nothing is before the epoch of a commit below it. Where the commit before is known to
        // end no epoch, or to end it, there is one epoch that can follow.
        let refused = (found < below.epoch || below.proven) && stands(Defence::ExpectedEpoch);
        if refused || !stands(Defence::BlamelessEpochs) {
            return self.offence(peer, Offence::WrongEpoch);
        }
        self.later_epoch_from = Some(self.later_epoch_from.map_or(start, |from| from.min(start)));
    }

    /// The epoch that a commit at `start` should have, by what is known of the commits below it.
    pub(super) fn below(&self, start: CommitIndex) -> Below {
        self.window.below(start, self.tip.reference.index, self.next_epoch())
    }

    /// The epoch that a commit at `start` should have, alone.
    pub(super) fn epoch_below(&self, start: CommitIndex) -> Epoch {
        self.window.epoch_below(start, self.next_epoch())
    }

    /// A range is certified: it goes into the window wherever nothing certified is there yet.
    fn certified(
        &mut self,
        peer: PeerId,
        start: CommitIndex,
        buffer: BufferId,
        certified: Verified<CertifiedRange>,
    ) {
        let bad_certifiers = certified.bad_certifiers > 0;
        let (headers, certifiers) = certified.into_parts();
        let last = headers.last().map_or(start, |header| header.reference.index);
        if self.halted.is_some() {
            return;
        }
        let count = u64::try_from(headers.len()).unwrap_or(u64::MAX);
        let mut admitted = Vec::new();
        for header in headers {
            match self.admit(&header) {
                Err(halt) => return self.halt(halt),
                Ok(true) => admitted.push(header),
                Ok(false) => {}
            }
        }
        self.insert_certified(peer, buffer, admitted, certifiers);
        self.give_up_overtaken();
        let config = &self.config;
        if let Some(known) = self.peers.get_mut(&peer) {
            known.delivered(last);
            known.served_commits = known.served_commits.saturating_add(count);
            known.succeeded(config);
        }
        if bad_certifiers && stands(Defence::BadCertifiers) {
            self.offence(peer, Offence::BadCertifier);
        }
    }

    /// Puts certified commits, ascending, into the window, run by run; the certifiers go with the last of them.
    fn insert_certified(
        &mut self,
        peer: PeerId,
        buffer: BufferId,
        admitted: Vec<Verified<CommitHeader>>,
        certifiers: Vec<Verified<CheckedBlock>>,
    ) {
        let Some(last) = admitted.last().map(|header| header.reference.index) else {
            // The commits are here already; their votes may be what we lack.
            let certifiable = self.certifiable().index;
            let useful = |block: &Verified<CheckedBlock>| {
                block.votes.iter().any(|vote| vote.index > certifiable) && !has(Bug::VotesOfKnownDropped)
            };
            let votes: Vec<_> = certifiers.into_iter().filter(useful).map(|block| (block, buffer)).collect();
            self.ledger.keep_more(buffer, votes.len());
            return self.pending_votes.extend(votes);
        };
        self.ledger.keep_more(buffer, admitted.len().saturating_add(certifiers.len()));
        let mut run: Option<(CommitIndex, VecDeque<Body>)> = None;
        let mut next = None;
        for header in admitted {
            let index = header.reference.index;
            self.window.cut_unverified(index);
            let body = Body::new(header, Some(peer), buffer);
            match &mut run {
                Some((_, bodies)) if next == Some(index) => bodies.push_back(body),
                Some(_) | None => {
                    if let Some((start, bodies)) = run.replace((index, VecDeque::from([body]))) {
                        self.window.certified(start, bodies);
                    }
                }
            }
            next = index.next();
        }
        if let Some((start, bodies)) = run {
            self.window.certified(start, bodies);
        }
        for certifier in certifiers {
            self.window.add_certifier(last, certifier, buffer);
        }
    }

    /// Whether a certified commit is to go into the window; `Err` where it proves a fork.
    fn admit(&self, header: &Verified<CommitHeader>) -> Result<bool, Halt> {
        let CommitRef { index, digest } = header.reference;
        let tip = self.tip.reference.index;
        self.check_pinned(header.reference)?;
        let fork = |ours: CommitRef, theirs: CommitRef| Halt::Fork {
            index: ours.index,
            ours,
            theirs,
            evidence: Box::new((**header).clone()),
        };
        // At the index itself: what is here must be the same. What is stored is compared as far as it is remembered.
        if let Some(ours) = self
            .ours_at(index)
            .filter(|ours| ours.digest != digest && !(index == tip && has(Bug::ForkAtTipMissed)))
        {
            return if self.is_of_epoch_over(header) { Ok(false) } else { Err(fork(ours, header.reference)) };
        }
        let beyond = index > tip.saturating_add(self.config.look_ahead_commits);
        if index <= tip || beyond || self.window.body(index).is_some() {
            return Ok(false);
        }
        // Below it: the commit that it follows must be the one that is there.
        if let Some(ours) = index.previous().and_then(|below| self.ours_at(below))
            && ours.digest != header.previous
            && stands(Defence::LinkToTip)
            && !self.follows_wrong_epoch(header)
        {
            return Err(fork(ours, CommitRef { index: ours.index, digest: header.previous }));
        }
        // Above it: the commit that is there must follow this one.
        if let Some(above) = index.next().and_then(|above| self.window.body(above))
            && above.header.previous != digest
        {
            let ours = CommitRef { index, digest: above.header.previous };
            return Err(fork(ours, header.reference));
        }
        Ok(true)
    }

    /// Whether our stored commit at its index is of a later epoch. Then it is no evidence of a fork: keys of an epoch
    /// that is over prove nothing about the next.
    fn is_of_epoch_over(&self, header: &CommitHeader) -> bool {
        let index = header.reference.index;
        let stored = self.recent.get(index).filter(|_| index <= self.tip.reference.index);
        stored.is_some_and(|(_, epoch)| header.epoch < epoch)
    }

    /// Whether the commit is of an epoch that is proven not to follow; then it is its sender's offence when its turn
    /// comes, and no evidence of a fork: keys of an epoch that is over prove nothing about the next.
    fn follows_wrong_epoch(&self, header: &CommitHeader) -> bool {
        let below = self.below(header.reference.index);
        below.proven && below.epoch != header.epoch
    }

    pub(super) fn check_pinned(&self, certified: CommitRef) -> Result<(), Halt> {
        let pinned = self.config.pinned_commits.binary_search_by_key(&certified.index, |pinned| pinned.index);
        match pinned.ok().and_then(|at| self.config.pinned_commits.get(at)) {
            Some(pinned) if pinned.digest != certified.digest => {
                Err(Halt::PinnedContradicted { pinned: *pinned, certified })
            }
            Some(_) | None => Ok(()),
        }
    }

    fn check_verdict(&mut self, id: JobId, record: CheckRecord, outcomes: Vec<BlockOutcome>) {
        let CheckRecord { peer, buffer, slots } = record;
        let mut bad = false;
        let mut useful: u64 = 0;
        let mut fault = None;
        let mut outcomes = outcomes.into_iter();
        for (index, slot) in slots {
            let is_ours =
                self.window.slot(index, slot) == Some(&Slot::Checking(id)) || has(Bug::StaleVerdict);
            match outcomes.next() {
                Some(BlockOutcome::Good(block)) if is_ours && (!bad || stands(Defence::GoodBlocks)) => {
                    useful = useful.saturating_add(u64::try_from(block.payload.len()).unwrap_or(u64::MAX));
                    self.window.set_slot(index, slot, Slot::Held(Box::new((block, buffer))));
                    continue;
                }
                Some(BlockOutcome::Good(_)) | None => {}
                Some(BlockOutcome::Bad(_)) => bad = true,
                Some(BlockOutcome::CertifiedInvalid(found)) => fault = fault.or(Some(found)),
            }
            self.window.forget_slot(index, slot, &Slot::Checking(id));
            self.ledger.release(buffer);
        }
        if let Some(known) = self.peers.get_mut(&peer) {
            known.served_bytes = known.served_bytes.saturating_add(useful);
        }
        if bad && stands(Defence::BadBlocks) {
            self.offence(peer, Offence::BadBlock);
        }
        if let Some(fault) = fault {
            self.halt(Halt::CertifiedInvalid(Box::new(fault)));
        }
    }

    /// Hands out jobs while workers are free.
    pub(super) fn start_jobs(&mut self) {
        while let Some((id, job)) = self.jobs.start(self.config.max_verify_jobs) {
            self.push(Command::Verify { id, job });
        }
    }
}
