//! A store in memory: what batches bring, and answers to peers from it. A disk would differ in `apply` alone: there
//! each batch is one transaction.

use bytes::Bytes;
use soma_sync_core::{
    command::{Batch, ServePlan},
    committee::{Committee, StakeTally},
    job::CommitHeader,
    request::{RefuseReason, ResponsePart},
    types::{AuthorityIndex, BlockRef, CommitIndex, CommitRange, CommitRef, Epoch},
};
use soma_sync_proto::message::{BlocksPart, CommitsPart, encode_response};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Everything of one chain.
pub(crate) struct Store {
    commits: BTreeMap<CommitIndex, CommitHeader>,
    blocks: BTreeMap<BlockRef, Bytes>,
    /// Who votes for which commit, in which block. A vote counts in the committee of its block's epoch.
    votes: BTreeMap<(CommitRef, Epoch, AuthorityIndex), BlockRef>,
    committees: BTreeMap<Epoch, Arc<Committee>>,
}

/// A commit with its blocks, in the order in which they are applied: what consumers get.
pub(crate) struct SubDag {
    /// The commit.
    pub(crate) commit: CommitRef,
    /// The encoded blocks.
    pub(crate) blocks: Vec<Bytes>,
}

impl Store {
    /// A store that holds the genesis committee alone.
    pub(crate) fn new(genesis: Arc<Committee>) -> Self {
        let committees = BTreeMap::from([(genesis.epoch(), genesis)]);
        Self { commits: BTreeMap::new(), blocks: BTreeMap::new(), votes: BTreeMap::new(), committees }
    }

    /// Takes a batch: the machine gives them in order, and each follows what is stored. All of it is verified.
    pub(crate) fn apply(&mut self, batch: &Batch) {
        for block in &batch.blocks {
            let BlockRef { epoch, author, .. } = block.reference;
            for vote in &block.votes {
                self.votes.entry((*vote, epoch, author)).or_insert(block.reference);
            }
            self.blocks.insert(block.reference, block.payload.bytes().clone());
        }
        self.commits.extend(batch.commits.iter().map(|commit| (commit.reference.index, (**commit).clone())));
        self.committees.extend(batch.committees.iter().map(|known| (known.epoch(), Arc::clone(known))));
    }

    /// A stored commit with its blocks.
    pub(crate) fn sub_dag(&self, index: CommitIndex) -> Option<SubDag> {
        let commit = self.commits.get(&index)?;
        let blocks = commit.blocks.iter().map(|block| self.blocks.get(block).cloned());
        Some(SubDag { commit: commit.reference, blocks: blocks.collect::<Option<_>>()? })
    }

    /// The messages that a plan asks for, or why there are none.
    pub(crate) fn answer(&self, plan: &ServePlan) -> Result<Vec<Bytes>, RefuseReason> {
        match plan {
            ServePlan::CommitInfo { index } => {
                let commit = self.commits.get(index).map(|commit| commit.reference);
                Ok(vec![encode_response(&ResponsePart::CommitInfo { commit, chain_id: None })])
            }
            ServePlan::Commits { range, last, max_bytes, with_blocks } => {
                self.commits(*range, *last, *max_bytes, *with_blocks)
            }
            ServePlan::Blocks { refs, max_bytes } => self.blocks(refs, *max_bytes),
        }
    }

    /// The longest part of `range` whose last commit a quorum votes for; else the shortest that goes on, up to `last`.
    /// All of one epoch.
    fn commits(
        &self,
        range: CommitRange,
        last: CommitIndex,
        max_bytes: u64,
        with_blocks: bool,
    ) -> Result<Vec<Bytes>, RefuseReason> {
        let first = self.commits.get(&range.start()).ok_or(RefuseReason::Unavailable)?;
        let beyond = CommitRange::new(range.end(), last).into_iter().flat_map(CommitRange::iter);
        let ends = range.iter().rev().chain(beyond).filter_map(|index| self.commits.get(&index));
        let mut ends = ends.filter(|end| end.epoch == first.epoch);
        // The machine asks only where a commit can be certified: if none is found, it did not fit.
        let found = ends.find_map(|end| Some((end, self.certified(range.start(), end, max_bytes)?)));
        let (end, part) = found.ok_or(RefuseReason::TooLarge)?;
        let mut messages = vec![part.encode()];
        let mut bytes_left = max_bytes.saturating_sub(part.encoded_len() as u64);
        let commits = self.commits.range(range.start()..=end.reference.index);
        for block in commits.flat_map(|(_, commit)| commit.blocks.iter()).filter(|_| with_blocks) {
            let mut part = CommitsPart::default();
            part.push_block(self.blocks.get(block).ok_or(RefuseReason::Internal)?.clone());
            let Some(left) = bytes_left.checked_sub(part.encoded_len() as u64) else { break };
            bytes_left = left;
            messages.push(part.encode());
        }
        Ok(messages)
    }

    /// The commits from `start` to `end` and a quorum of votes for the last, if there is one and all of it fits.
    fn certified(&self, start: CommitIndex, end: &CommitHeader, max_bytes: u64) -> Option<CommitsPart> {
        let mut part = CommitsPart::default();
        for (_, commit) in self.commits.range(start..=end.reference.index) {
            part.push_commit(commit.payload.bytes().clone());
        }
        let committee = self.committees.get(&end.epoch)?;
        let mut tally = StakeTally::new();
        let votes = |author| (end.reference, end.epoch, author);
        for (vote, block) in self.votes.range(votes(AuthorityIndex::ZERO)..=votes(AuthorityIndex::MAX)) {
            if !tally.reached_quorum() && tally.add(vote.2, committee) {
                part.push_certifier(self.blocks.get(block)?.clone());
            }
        }
        (tally.reached_quorum() && part.encoded_len() as u64 <= max_bytes).then_some(part)
    }

    /// The blocks that are there, and the positions of those that are not, as far as they fit.
    fn blocks(&self, refs: &[BlockRef], max_bytes: u64) -> Result<Vec<Bytes>, RefuseReason> {
        let (mut messages, mut bytes_left) = (Vec::new(), max_bytes);
        for (position, reference) in (0..).zip(refs) {
            let mut part = BlocksPart::default();
            match self.blocks.get(reference) {
                Some(block) => part.push_block(block.clone()),
                None => part.push_missing(position),
            }
            let Some(left) = bytes_left.checked_sub(part.encoded_len() as u64) else { break };
            bytes_left = left;
            messages.push(part.encode());
        }
        if messages.is_empty() { Err(RefuseReason::TooLarge) } else { Ok(messages) }
    }
}

/// Locks, also where a thread panicked meanwhile: nothing here is half changed by that.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
