//! From complete commits to storage, and from storage to consumers and the watermarks.

use super::SyncMachine;
use crate::{
    bug::{Bug, has},
    certify::{CertifiedFault, CommitRule},
    command::{Batch, BatchId, Command, Halt, Offence, Stall},
    committee::Committee,
    defence::{Defence, stands},
    job::{CheckedBlock, CommitHeader, EpochEnd},
    ledger::BufferId,
    recent::Recent,
    start::{Start, Tip},
    types::{BlockRef, CommitIndex, CommitRange, CommitRef},
    verified::Verified,
    votes::VoteBook,
};
use alloc::{boxed::Box, sync::Arc, vec::Vec};

/// A batch handed to storage and not yet durable. Kept whole, to be handed over again if the store fails.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Outstanding {
    pub(super) batch: Arc<Batch>,
    /// What its payloads keep, one buffer each.
    pub(super) buffers: Vec<BufferId>,
    /// The chain's end once the batch is stored.
    tip: Tip,
}
saved! { struct Outstanding { batch, buffers, tip } }

/// A batch that is being put together.
#[derive(Default)]
struct Draft {
    batch_bytes: u64,
    blocks: Vec<Verified<CheckedBlock>>,
    commits: Vec<Verified<CommitHeader>>,
    committees: Vec<Arc<Committee>>,
    buffers: Vec<BufferId>,
}

impl Draft {
    fn add_block(&mut self, (block, buffer): (Verified<CheckedBlock>, BufferId)) {
        let bytes = u64::try_from(block.payload.len()).unwrap_or(u64::MAX);
        self.batch_bytes = self.batch_bytes.saturating_add(bytes);
        self.blocks.push(block);
        self.buffers.push(buffer);
    }
}

impl SyncMachine {
    /// Hands complete commits at the front to storage.
    pub(super) fn advance(&mut self) {
        let max = usize::try_from(self.config.max_store_batches).unwrap_or(usize::MAX);
        while self.halted.is_none() && self.stall_ahead().is_none() && self.committing() < max {
            let mut draft = Draft::default();
            while draft.batch_bytes < self.config.max_store_batch_bytes && self.take_front(&mut draft) {}
            if draft.commits.is_empty() {
                break;
            }
            self.hand_over(draft);
        }
        // Votes go with commits where there are any; else a batch of them at a time.
        let alone = self.outstanding.iter().all(|outstanding| !outstanding.batch.commits.is_empty());
        if alone && !self.pending_votes.is_empty() && self.halted.is_none() {
            self.hand_over(Draft::default());
        }
    }

    /// Moves the commit after the tip into the draft, if it is complete and nothing is wrong with it.
    fn take_front(&mut self, draft: &mut Draft) -> bool {
        let Some(index) = self.tip.reference.index.next() else { return false };
        if self.halted.is_some() || self.stall_ahead().is_some() || !self.front_is_sound(index) {
            return false;
        }
        let Some(mut body) = self.window.pop_front(index) else { return false };
        self.tip = Tip {
            reference: body.header.reference,
            timestamp_ms: body.header.timestamp_ms,
            epoch: body.header.epoch,
            ends_epoch: body.epoch_end().is_some(),
        };
        self.recent.push(self.tip.reference, self.tip.epoch);
        self.epoch_ended(draft, body.epoch_end());
        draft.batch_bytes =
            draft.batch_bytes.saturating_add(u64::try_from(body.header.payload.len()).unwrap_or(u64::MAX));
        for block in body.take_held() {
            draft.add_block(block);
        }
        for certifier in body.certifiers.drain(..) {
            if !stands(Defence::KeptCertifiers) {
                self.ledger.release(certifier.1);
                continue;
            }
            draft.add_block(certifier);
        }
        draft.buffers.push(body.buffer);
        draft.commits.push(body.header);
        self.grown = self.now;
        self.forget_old_epochs();
        // The commit before settles of which epoch a commit is.
        if self.later_epoch_from.is_some_and(|from| Some(from) <= index.next())
            && !has(Bug::LaterEpochForEver)
        {
            self.later_epoch_from = None;
        }
        true
    }

    /// Learns the next epoch's committee from what ends the tip's epoch. One that the embedder supplied goes before it.
    fn epoch_ended(&mut self, draft: &mut Draft, end: Option<(BlockRef, &EpochEnd)>) {
        let Some((block, end)) = end else { return };
        let epoch = self.next_epoch();
        match end {
            EpochEnd::Next(next) => {
                self.committees.entry(epoch).or_insert_with(|| next.clone());
            }
            EpochEnd::Invalid(_) if !stands(Defence::InvalidCommittee) => {}
            EpochEnd::Invalid(reason) => self.invalid_committee = Some((block, *reason)),
        }
        draft
            .committees
            .extend(self.committees.get(&epoch).filter(|_| !has(Bug::CommitteeNotStored)).cloned());
    }

    /// Whether the commit after the tip is complete and follows the tip. What does not follow is dealt with here.
    fn front_is_sound(&mut self, index: CommitIndex) -> bool {
        let Some(body) = self.window.body(index) else { return false };
        if body.header.epoch != self.next_epoch() {
            let from = body.from;
            self.drop_from(index);
            if let Some(peer) = from {
                self.offence(peer, Offence::WrongEpoch);
            }
            return false;
        }
        if body.header.previous != self.tip.reference.digest && stands(Defence::LinkToTip) {
            let theirs = CommitRef { index: self.tip.reference.index, digest: body.header.previous };
            let evidence = Box::new((*body.header).clone());
            let ours = self.tip.reference;
            self.halt(Halt::Fork { index: ours.index, ours, theirs, evidence });
            return false;
        }
        if body.header.timestamp_ms < self.tip.timestamp_ms && stands(Defence::RisingTime) {
            let rule = CommitRule::Timestamp { previous_ms: self.tip.timestamp_ms };
            let (reference, payload) = (body.header.reference, body.header.payload.clone());
            let fault = CertifiedFault::Commit { reference, rule, payload };
            self.halt(Halt::CertifiedInvalid(Box::new(fault)));
            return false;
        }
        body.is_complete()
    }

    /// Drops the certified commits from `index` on.
    pub(super) fn drop_from(&mut self, index: CommitIndex) {
        let Some(below) = index.previous() else { return };
        while let Some(body) = self.window.pop_back(below) {
            self.release(body.buffers());
        }
    }

    fn hand_over(&mut self, mut draft: Draft) {
        for vote in core::mem::take(&mut self.pending_votes) {
            draft.add_block(vote);
        }
        let Draft { blocks, commits, committees, buffers, batch_bytes: _ } = draft;
        let batch = Arc::new(Batch { id: self.new_batch_id(), blocks, commits, committees });
        self.outstanding.push_back(Outstanding { batch: batch.clone(), buffers, tip: self.tip });
        if !self.store_failed {
            self.push(Command::StoreBatch { batch });
        }
        if has(Bug::DurableBeforeStored) {
            self.durable = self.tip.reference.index;
        }
        self.cancel_needless();
    }

    /// Hands blocks of a commit to storage that is too large to be held in memory.
    pub(super) fn store_blocks(&mut self, blocks: Vec<(Verified<CheckedBlock>, BufferId)>) {
        let mut draft = Draft::default();
        for block in blocks {
            draft.add_block(block);
        }
        self.hand_over(draft);
    }

    /// Hands a committee to storage whose epoch has ended before it was known.
    pub(super) fn store_committee(&mut self, committee: Arc<Committee>) {
        self.hand_over(Draft { committees: Vec::from([committee]), ..Draft::default() });
    }

    /// Everything up to this batch is durable.
    pub(super) fn stored(&mut self, through: BatchId) {
        while let Some(first) = self.outstanding.front()
            && first.batch.id <= through
            && let Some(done) = self.outstanding.pop_front()
        {
            self.settle(done);
        }
        self.hand_out();
    }

    /// Hands to subscribers what is durable and was not handed out before.
    fn hand_out(&mut self) {
        let last = if stands(Defence::DurableBroadcast) { self.durable } else { self.tip.reference.index };
        let first = if has(Bug::BroadcastTwice) { Some(self.broadcast) } else { self.broadcast.next() };
        if let Some(range) = first.and_then(|first| CommitRange::new(first, last)) {
            self.broadcast = last;
            self.push(Command::Broadcast { range });
        }
    }

    fn settle(&mut self, done: Outstanding) {
        let Outstanding { batch, buffers, tip: _ } = done;
        self.release(buffers);
        if let Some(last) = batch.commits.last() {
            self.durable = last.reference.index;
        }
        let committees = &self.committees;
        self.votes.stored(&batch, |epoch| committees.get(&epoch).cloned());
        self.counters.stored_commits = self
            .counters
            .stored_commits
            .saturating_add(u64::try_from(batch.commits.len()).unwrap_or(u64::MAX));
        self.counters.stored_blocks =
            self.counters.stored_blocks.saturating_add(u64::try_from(batch.blocks.len()).unwrap_or(u64::MAX));
    }

    /// The store works again, and holds this. Where it ends at another commit than our chain has there, as far as that is
    /// known, nothing goes on: consumers may have had ours, what follows the other one does not follow it, and of two
    /// certified chains none is picked (protocol: Forks).
    pub(super) fn store_reopened(&mut self, start: &Start) {
        if start.chain_id != self.chain_id || super::check_start(start).is_err() {
            return;
        }
        let stored = start.tip.reference;
        if let Some(ours) = self.handed_over(stored.index).filter(|ours| *ours != stored) {
            self.store_failed = true;
            return self.halt(Halt::StoreContradicted { ours, stored });
        }
        self.store_failed = false;
        let known = |outstanding: &Outstanding| outstanding.tip.reference == start.tip.reference;
        let is_durable = start.tip.reference.index == self.durable;
        match self.outstanding.iter().position(known) {
            // What it holds is what we had handed over up to there: the rest is handed over again.
            Some(first) => {
                let done = self.outstanding.get(first).map(|outstanding| outstanding.batch.id);
                if let Some(through) = done.filter(|_| !is_durable) {
                    self.stored(through);
                }
            }
            None if is_durable => {}
            None => return self.rewind(start),
        }
        let mut batches: Vec<_> =
            self.outstanding.iter().map(|outstanding| outstanding.batch.clone()).collect();
        if has(Bug::BatchesReversed) {
            batches.reverse();
        }
        for batch in batches {
            self.push(Command::StoreBatch { batch });
        }
    }

    /// The commit of our chain at an index, if it was handed to storage lately or is the last durable one.
    fn handed_over(&self, index: CommitIndex) -> Option<CommitRef> {
        let recent = self.recent.get(index).map(|(ours, _)| ours);
        recent.or_else(|| {
            // What is not durable yet may reach further back than what is remembered.
            let above = self.outstanding.iter().find_map(|outstanding| outstanding.batch.commits.first())?;
            (index == self.durable).then_some(CommitRef { index, digest: above.previous })
        })
    }

    /// The store holds something else than we knew of, an older copy perhaps: everything begins again from there. What
    /// is remembered of our chain above is held against what comes, since consumers have had it.
    fn rewind(&mut self, start: &Start) {
        self.abandon_data_requests();
        self.drop_window();
        while let Some(outstanding) = self.outstanding.pop_front() {
            self.release(outstanding.buffers);
        }
        self.tip = start.tip;
        if self.recent.get(start.tip.reference.index).is_none() {
            self.recent = Recent::new(start.tip.reference, start.tip.epoch);
        }
        self.durable = start.tip.reference.index;
        self.lowest_available = start.lowest_available;
        if !has(Bug::VotesOverRewind) {
            self.votes = VoteBook::new(start.certifiable, self.config.look_ahead_commits);
        }
        self.committees.clear();
        self.invalid_committee = None;
        self.enlarged = None;
        self.adopt(start);
        match self.check_pinned(start.tip.reference) {
            Ok(()) => self.hand_out(),
            Err(halt) => self.halt(halt),
        }
    }

    /// Committees of epochs that nothing depends on any more are forgotten.
    fn forget_old_epochs(&mut self) {
        let oldest = self.tip.epoch.saturating_sub(u64::from(!has(Bug::CommitteeForgottenEarly)));
        self.committees = self.committees.split_off(&oldest);
    }

    /// What keeps the commit after the tip from being fetched or applied, and only something outside can change.
    pub(super) fn stall_ahead(&self) -> Option<Stall> {
        if self.store_failed && stands(Defence::StoreFailure) {
            return Some(Stall::Storage);
        }
        let epoch = self.next_epoch();
        if self.committees.contains_key(&epoch) {
            return None;
        }
        Some(match self.invalid_committee {
            Some((block, reason)) => Stall::InvalidCommittee { epoch, block, reason },
            None => Stall::Committee { epoch },
        })
    }

    /// Makes room for the commit after the tip when what was fetched ahead fills the budget, or the commit itself is
    /// larger than the budget: what is furthest ahead is given up, and then the commit's blocks are staged in storage.
    /// Whether there is more room now.
    pub(super) fn make_room(&mut self, frontier: CommitIndex) -> bool {
        if stands(Defence::FrontierBytes)
            && let Some(body) = self.window.pop_back(frontier)
        {
            self.counters.evicted = self.counters.evicted.saturating_add(1);
            self.release(body.buffers());
            return true;
        }
        let busy = self.outstanding.iter().any(|outstanding| outstanding.batch.commits.is_empty());
        if !busy && !self.store_failed {
            let held = self.window.stage_held(frontier);
            if !held.is_empty() {
                self.counters.staged = self.counters.staged.saturating_add(1);
                self.store_blocks(held);
            }
        }
        false
    }
}

impl Outstanding {
    /// Buffers that it keeps, one for each kept payload.
    pub(super) fn buffers(&self) -> impl Iterator<Item = BufferId> {
        self.buffers.iter().copied()
    }
}
