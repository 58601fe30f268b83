//! What our own consensus makes: commits and accepted blocks.

use super::{
    SyncMachine,
    verdicts::{JobRecord, ObserveRecord},
};
use crate::{
    bug::{Bug, has},
    command::{Command, Halt, Notice},
    defence::{Defence, stands},
    job::{CheckedBlock, CommitHeader, Job, ObserveJob, ObserveVerdict, VotesJob},
    ledger::{BufferId, Claimant},
    payload::Payload,
    types::{CommitIndex, CommitRef},
    verified::Verified,
    window::{Body, Slot},
};
use alloc::{
    boxed::Box,
    collections::{BTreeSet, VecDeque},
    vec::Vec,
};

/// How often a commit of our own is decoded again after a worker died over it.
const OBSERVE_RETRIES: u32 = 2;

/// Commits from our own consensus on their way in. One is decoded at a time, so that workers cannot change their
/// order; those that wait are within the byte budget.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Observing {
    decoding: bool,
    waiting: VecDeque<(ObserveJob, BufferId)>,
}
saved! { struct Observing { decoding, waiting } }

impl Observing {
    /// The one that was being decoded is done.
    pub(super) fn finish(&mut self) {
        self.decoding = false;
    }

    /// Buffers of those that wait, one for each kept payload.
    pub(super) fn buffers(&self) -> impl Iterator<Item = BufferId> {
        self.waiting.iter().map(|(_, buffer)| *buffer)
    }

    /// The same, to rename them.
    pub(super) fn buffers_mut(&mut self) -> impl Iterator<Item = &mut BufferId> {
        self.waiting.iter_mut().map(|(_, buffer)| buffer)
    }

    /// Whether none waits or is decoded.
    pub(super) fn is_idle(&self) -> bool {
        !self.decoding && self.waiting.is_empty()
    }
}

/// Bytes that payloads from our own consensus are charged with: each one's, and as much again for what is decoded.
fn charge<'a>(payloads: impl IntoIterator<Item = &'a Payload>) -> u64 {
    payloads.into_iter().fold(0u64, |sum, payload| {
        let bytes = u64::try_from(payload.len()).unwrap_or(u64::MAX);
        sum.saturating_add(bytes.saturating_mul(2))
    })
}

impl SyncMachine {
    /// Sets bytes aside for something of our own, giving up what was fetched ahead where that is needed.
    fn hold_local(&mut self, bytes: u64) -> Option<BufferId> {
        let bytes = bytes.max(1);
        let frontier = self.tip.reference.index.next()?;
        while !self.ledger.reserve(bytes, Claimant::Frontier) {
            let body = self.window.pop_back(frontier)?;
            self.release(body.buffers());
        }
        self.ledger.hold(bytes, 1)
    }

    pub(super) fn commit_observed(&mut self, commit: Payload, blocks: Vec<Payload>) {
        if self.halted.is_some() {
            return;
        }
        self.observed_at = Some(self.now);
        self.abandon_following();
        // Where there is no room it is a hint that came to nothing: peers will have the commit.
        let Some(buffer) = self.hold_local(charge(blocks.iter().chain([&commit]))) else {
            self.counters.dropped_local = self.counters.dropped_local.saturating_add(1);
            return;
        };
        self.observing.waiting.push_back((ObserveJob { commit, blocks, limits: self.config.limits }, buffer));
        self.observe_next();
    }

    pub(super) fn observe_next(&mut self) {
        if self.observing.decoding {
            return;
        }
        let Some((job, buffer)) = self.observing.waiting.pop_front() else { return };
        self.observing.decoding = true;
        self.decode(ObserveRecord { buffer, job: Box::new(job), failures: 0 });
    }

    fn decode(&mut self, record: ObserveRecord) {
        let id = self.new_job_id();
        let job = record.job.clone();
        self.jobs.submit(id, JobRecord::Observe(record), Job::Observe(job));
    }

    /// A worker died over a commit of our own. Another one is given it, unless it may be what they die of.
    pub(super) fn observe_again(&mut self, mut record: ObserveRecord) {
        record.failures = record.failures.saturating_add(1);
        if record.failures <= OBSERVE_RETRIES && self.halted.is_none() {
            return self.decode(record);
        }
        self.observing.finish();
        self.ledger.release(record.buffer);
        self.push(Command::Notify(Notice::ObservedLost { failures: record.failures }));
        self.observe_next();
    }

    pub(super) fn votes_observed(&mut self, blocks: Vec<Payload>) {
        if blocks.is_empty() || self.halted.is_some() {
            return;
        }
        let Some(buffer) = self.hold_local(charge(&blocks)) else {
            self.counters.dropped_local = self.counters.dropped_local.saturating_add(1);
            return;
        };
        let id = self.new_job_id();
        let job = VotesJob { blocks, limits: self.config.limits };
        self.jobs.submit(id, JobRecord::Votes { buffer }, Job::Votes(Box::new(job)));
    }

    pub(super) fn votes_verdict(&mut self, buffer: BufferId, blocks: Vec<Verified<CheckedBlock>>) {
        let (certifiable, epoch) = (self.certifiable().index, self.tip.epoch);
        // Jobs end in any order, and no later epoch's votes certify the last commit of one: votes of an epoch that is
        // over by now may be all that there is for that.
        let useful = |block: &Verified<CheckedBlock>| {
            block.reference.epoch < epoch || block.votes.iter().any(|vote| vote.index > certifiable)
        };
        let useful: Vec<_> = blocks.into_iter().filter(useful).map(|block| (block, buffer)).collect();
        if !useful.is_empty() && self.halted.is_none() && !has(Bug::OwnVotesIgnored) {
            self.ledger.keep_more(buffer, useful.len());
            self.pending_votes.extend(useful);
        }
        self.ledger.release(buffer);
    }

    pub(super) fn observe_verdict(&mut self, buffer: BufferId, verdict: ObserveVerdict) {
        self.observing.finish();
        match verdict {
            ObserveVerdict::Observed { commit, blocks } => self.observed(buffer, commit, blocks),
            ObserveVerdict::Refused(error) => self.push(Command::Notify(Notice::ObservedRefused(error))),
        }
        self.ledger.release(buffer);
        if stands(Defence::ObservedAtOnce) {
            self.observe_next();
        }
    }

    /// A commit of our own: taken where everything below it is here, else it tells us no more than that it exists.
    fn observed(
        &mut self,
        buffer: BufferId,
        commit: Verified<CommitHeader>,
        blocks: Vec<Verified<CheckedBlock>>,
    ) {
        if self.halted.is_some() {
            return;
        }
        let index = commit.reference.index;
        let tip = self.tip.reference.index;
        let below = self.window.complete_through(tip);
        let follows = below.next().is_some_and(|next| index <= next);
        if !follows || index > tip.saturating_add(self.config.look_ahead_commits) {
            return;
        }
        if let Err(halt) = self.check_observed(&commit) {
            return self.halt(halt);
        }
        if index <= tip {
            return;
        }
        if self.window.body(index).is_none() {
            self.window.cut_unverified(index);
            self.ledger.keep_more(buffer, 1);
            let body = Body::new(commit, None, buffer);
            self.window.certified(index, VecDeque::from([body]));
        }
        self.fill(index, blocks, buffer);
    }

    /// Whether a commit of our own agrees with what is here; `Err` where it is a fork. Stored commits are compared as
    /// far as they are remembered, 1,024 deep.
    fn check_observed(&self, commit: &Verified<CommitHeader>) -> Result<(), Halt> {
        self.check_pinned(commit.reference)?;
        let CommitRef { index, digest } = commit.reference;
        let fork = |ours: CommitRef, theirs: CommitRef| {
            Err(Halt::Fork { index: ours.index, ours, theirs, evidence: Box::new((**commit).clone()) })
        };
        if let Some(ours) = self.ours_at(index)
            && ours.digest != digest
        {
            return fork(ours, commit.reference);
        }
        match index.previous().and_then(|below| self.ours_at(below)) {
            Some(below) if below.digest != commit.previous => {
                fork(below, CommitRef { index: below.index, digest: commit.previous })
            }
            Some(_) | None => Ok(()),
        }
    }

    /// The commit of our chain at an index: handed to storage lately, or ahead of the tip.
    pub(super) fn ours_at(&self, index: CommitIndex) -> Option<CommitRef> {
        let ahead = || self.window.body(index).map(|body| body.header.reference);
        self.recent.get(index).map(|(ours, _)| ours).or_else(ahead)
    }

    /// Puts blocks of our own into a commit wherever they have not come yet.
    fn fill(&mut self, index: CommitIndex, blocks: Vec<Verified<CheckedBlock>>, buffer: BufferId) {
        let Some(body) = self.window.body(index) else { return };
        let here = |slot: &Slot| matches!(slot, Slot::Held(_) | Slot::Staged);
        let here: BTreeSet<usize> =
            body.slots().iter().enumerate().filter(|(_, slot)| here(slot)).map(|(at, _)| at).collect();
        for (at, block) in blocks.into_iter().enumerate() {
            if !here.contains(&at) {
                self.ledger.keep_more(buffer, 1);
                self.window.set_slot(index, at, Slot::Held(Box::new((block, buffer))));
            }
        }
    }
}
