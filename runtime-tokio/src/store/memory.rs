//! A store in memory: for tests, and for an embedder's first steps. Nothing survives the process.

use super::{
    Certifier, CommitHead, Store, StoreError, StoredCommit,
    rules::{self, State, View},
};
use soma_sync_core::{
    command::Batch,
    committee::Committee,
    job::{CheckedBlock, CommitHeader},
    payload::Payload,
    start::Start,
    types::{AuthorityIndex, BlockDigest, BlockRef, ChainId, CommitIndex, CommitRef, Epoch, Round},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// A store in memory. It behaves as the durable one does, failures included: [`MemoryStore::fail_next`] has the next
/// write refused as a full disk would.
#[derive(Debug)]
pub struct MemoryStore {
    chain_id: ChainId,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    state: State,
    committees: BTreeMap<Epoch, Arc<Committee>>,
    commits: BTreeMap<CommitIndex, (CommitHead, CommitHeader)>,
    blocks: BTreeMap<BlockKey, Payload>,
    /// Blocks that no stored commit names.
    loose: BTreeSet<BlockKey>,
    /// Every vote in a stored block, with the length of the block's encoding.
    votes: BTreeMap<VoteKey, u32>,
    fail_next: bool,
    failed: bool,
}

type BlockKey = (Epoch, Round, AuthorityIndex, BlockDigest);
type VoteKey = (CommitRef, Epoch, AuthorityIndex, Round, BlockDigest);

fn block_key(block: &BlockRef) -> BlockKey {
    (block.epoch, block.round, block.author, block.digest)
}

fn block_ref((epoch, round, author, digest): BlockKey) -> BlockRef {
    BlockRef { round, author, digest, epoch }
}

fn vote_key(vote: CommitRef, block: &BlockRef) -> VoteKey {
    (vote, block.epoch, block.author, block.round, block.digest)
}

impl MemoryStore {
    /// A store that holds nothing but the committee of the first epoch.
    pub fn new(genesis: Arc<Committee>) -> Self {
        let inner = Inner {
            state: State::genesis(&genesis),
            committees: BTreeMap::from([(genesis.epoch(), Arc::clone(&genesis))]),
            commits: BTreeMap::new(),
            blocks: BTreeMap::new(),
            loose: BTreeSet::new(),
            votes: BTreeMap::new(),
            fail_next: false,
            failed: false,
        };
        Self { chain_id: genesis.chain_id(), inner: Mutex::new(inner) }
    }

    /// Has the next write fail, and all after it, until the store is reopened.
    pub fn fail_next(&self) {
        self.inner().fail_next = true;
    }

    /// Runs `write`, unless it is told to fail, or an earlier write failed.
    fn write(&self, write: impl FnOnce(&mut Inner) -> Result<(), StoreError>) -> Result<(), StoreError> {
        let mut inner = self.inner();
        if inner.failed {
            return Err(StoreError::Failed);
        }
        let full = StoreError::Io { path: "memory".into(), reason: "told to fail".into() };
        let result = if inner.fail_next { Err(full) } else { write(&mut inner) };
        inner.failed = result.is_err();
        result
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MemoryStore {
    fn start(&self) -> Result<Start, StoreError> {
        rules::start(&*self.inner())
    }

    fn apply(&self, batch: &Batch) -> Result<(), StoreError> {
        self.write(|inner| inner.apply(batch))
    }

    fn reopen(&self) -> Result<Start, StoreError> {
        let mut inner = self.inner();
        (inner.failed, inner.fail_next) = (false, false);
        rules::start(&*inner)
    }

    fn chain_id(&self) -> ChainId {
        self.chain_id
    }

    fn committee(&self, epoch: Epoch) -> Result<Option<Arc<Committee>>, StoreError> {
        self.inner().committee(epoch)
    }

    fn head(&self, index: CommitIndex) -> Result<Option<CommitHead>, StoreError> {
        self.inner().head(index)
    }

    fn commit(&self, index: CommitIndex) -> Result<Option<StoredCommit>, StoreError> {
        Ok(self.inner().commits.get(&index).map(|(head, commit)| StoredCommit {
            reference: head.reference,
            epoch: head.epoch,
            blocks: Arc::clone(&commit.blocks),
            payload: commit.payload.clone(),
        }))
    }

    fn block(&self, reference: &BlockRef) -> Result<Option<Payload>, StoreError> {
        Ok(self.inner().blocks.get(&block_key(reference)).cloned())
    }

    fn certificate(&self, commit: &CommitRef) -> Result<Option<Vec<Certifier>>, StoreError> {
        rules::certificate(&*self.inner(), commit)
    }

    fn prune(&self, lowest: CommitIndex) -> Result<(), StoreError> {
        self.write(|inner| inner.prune(lowest))
    }
}

impl View for Inner {
    fn state(&self) -> State {
        self.state
    }

    fn head(&self, index: CommitIndex) -> Result<Option<CommitHead>, StoreError> {
        Ok(self.commits.get(&index).map(|(head, _)| *head))
    }

    fn committee(&self, epoch: Epoch) -> Result<Option<Arc<Committee>>, StoreError> {
        Ok(self.committees.get(&epoch).cloned())
    }

    fn next_vote(
        &self,
        commit: &CommitRef,
        epoch: Epoch,
        from: AuthorityIndex,
    ) -> Result<Option<Certifier>, StoreError> {
        let first = (*commit, epoch, from, Round::ZERO, BlockDigest::ZERO);
        let next = self.votes.range(first..).next();
        let next = next.filter(|((voted, of, ..), _)| voted == commit && *of == epoch);
        Ok(next.map(|((_, epoch, author, round, digest), bytes)| Certifier {
            block: block_ref((*epoch, *round, *author, *digest)),
            bytes: *bytes,
        }))
    }
}

impl Inner {
    /// Checks everything before it changes anything.
    fn apply(&mut self, batch: &Batch) -> Result<(), StoreError> {
        rules::check_links(self.state.tip, batch.commits.iter().map(|commit| &**commit))?;
        let committees = self.new_committees(&batch.committees)?;
        let given: BTreeMap<_, _> = batch.blocks.iter().map(|block| (block.reference, &**block)).collect();
        let mut commits = Vec::with_capacity(batch.commits.len());
        for commit in &batch.commits {
            if !self.committees.contains_key(&commit.epoch) && !committees.contains_key(&commit.epoch) {
                return Err(rules::missing_committee(&commit.reference, commit.epoch));
            }
            let ends_epoch = self.ends_epoch(commit, &given)?;
            commits.push((rules::head_of(commit, ends_epoch)?, CommitHeader::clone(commit)));
        }

        self.committees.extend(committees);
        given.values().for_each(|block| self.add_block(block));
        for (head, commit) in commits {
            self.state.tip = head.reference;
            for block in commit.blocks.iter() {
                self.loose.remove(&block_key(block));
            }
            self.commits.insert(head.reference.index, (head, commit));
        }
        Ok(())
    }

    fn new_committees(
        &self,
        committees: &[Arc<Committee>],
    ) -> Result<BTreeMap<Epoch, Arc<Committee>>, StoreError> {
        let mut new = BTreeMap::<_, Arc<Committee>>::new();
        for committee in committees {
            let epoch = committee.epoch();
            match self.committees.get(&epoch).or_else(|| new.get(&epoch)) {
                Some(known) if known != committee => return Err(rules::other_committee(epoch)),
                Some(_) => {}
                None => drop(new.insert(epoch, Arc::clone(committee))),
            }
        }
        Ok(new)
    }

    fn ends_epoch(
        &self,
        commit: &CommitHeader,
        given: &BTreeMap<BlockRef, &CheckedBlock>,
    ) -> Result<bool, StoreError> {
        let mut ends_epoch = false;
        for block in commit.blocks.iter() {
            ends_epoch |= match (given.get(block), self.blocks.get(&block_key(block))) {
                (Some(given), _) => given.epoch_end.is_some(),
                (None, Some(stored)) => rules::ends_epoch(block, stored)?,
                (None, None) => return Err(rules::missing_block(&commit.reference, block)),
            };
        }
        Ok(ends_epoch)
    }

    fn add_block(&mut self, block: &CheckedBlock) {
        let key = block_key(&block.reference);
        if self.blocks.insert(key, block.payload.clone()).is_some() {
            return;
        }
        self.loose.insert(key);
        let bytes = u32::try_from(block.payload.len()).unwrap_or(u32::MAX);
        self.votes.extend(block.votes.iter().map(|vote| (vote_key(*vote, &block.reference), bytes)));
    }

    fn prune(&mut self, lowest: CommitIndex) -> Result<(), StoreError> {
        let Some((_, last)) = self.state.pruned_by(lowest) else { return Ok(()) };
        let lowest = last.saturating_add(1);
        let kept = self.commits.split_off(&lowest);
        for (_, commit) in std::mem::replace(&mut self.commits, kept).into_values() {
            commit.blocks.iter().try_for_each(|block| self.remove_block(block))?;
        }
        self.state.lowest = lowest;
        if let Some((_, first)) = self.commits.get(&lowest) {
            let end = (first.epoch, first.leader.round, AuthorityIndex::ZERO, BlockDigest::ZERO);
            let loose: Vec<_> = self.loose.range(..end).copied().map(block_ref).collect();
            loose.iter().try_for_each(|block| self.prune_loose(block))?;
        }
        let first_vote = CommitRef { index: lowest, ..CommitRef::GENESIS };
        let first_vote = (first_vote, Epoch::ZERO, AuthorityIndex::ZERO, Round::ZERO, BlockDigest::ZERO);
        self.votes = self.votes.split_off(&first_vote);
        Ok(())
    }

    /// Removes a block that no commit names, unless it votes for a commit that remains.
    fn prune_loose(&mut self, block: &BlockRef) -> Result<(), StoreError> {
        let Some(payload) = self.blocks.get(&block_key(block)) else { return Ok(()) };
        let votes = rules::votes_in(block, payload)?;
        if rules::votes_count(&votes, block.epoch, |index| self.head(index))? {
            return Ok(());
        }
        self.loose.remove(&block_key(block));
        self.remove_block(block)
    }

    fn remove_block(&mut self, block: &BlockRef) -> Result<(), StoreError> {
        let Some(payload) = self.blocks.remove(&block_key(block)) else { return Ok(()) };
        for vote in rules::votes_in(block, &payload)? {
            self.votes.remove(&vote_key(vote, block));
        }
        Ok(())
    }
}
