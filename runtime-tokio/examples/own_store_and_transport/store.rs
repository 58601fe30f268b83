//! A store in maps. It keeps all history; a database would put each `apply` into one transaction.

use soma_sync_core::{
    command::Batch,
    committee::Committee,
    payload::Payload,
    start::Start,
    types::{AuthorityIndex, BlockDigest, BlockRef, ChainId, CommitIndex, CommitRef, Epoch, Round},
};
use soma_sync_runtime_tokio::store::{
    Certifier, CommitHead, Store, StoreError, StoredCommit,
    rules::{self, State, View},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Commits, blocks, votes and committees of one chain.
pub(crate) struct MapStore {
    chain_id: ChainId,
    maps: Mutex<Maps>,
}

struct Maps {
    state: State,
    committees: BTreeMap<Epoch, Arc<Committee>>,
    commits: BTreeMap<CommitIndex, (CommitHead, StoredCommit)>,
    blocks: BTreeMap<BlockRef, Payload>,
    /// Blocks that end their epoch.
    ends: BTreeSet<BlockRef>,
    /// Every vote in a stored block, in the order in which certifiers are looked for.
    votes: BTreeMap<(CommitRef, Epoch, AuthorityIndex, Round, BlockDigest), Certifier>,
}

impl MapStore {
    /// A store that holds the genesis committee alone.
    pub(crate) fn new(genesis: &Arc<Committee>) -> Self {
        let maps = Maps {
            state: State::genesis(genesis),
            committees: BTreeMap::from([(genesis.epoch(), Arc::clone(genesis))]),
            commits: BTreeMap::new(),
            blocks: BTreeMap::new(),
            ends: BTreeSet::new(),
            votes: BTreeMap::new(),
        };
        Self { chain_id: genesis.chain_id(), maps: Mutex::new(maps) }
    }

    fn maps(&self) -> MutexGuard<'_, Maps> {
        self.maps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for MapStore {
    fn start(&self) -> Result<Start, StoreError> {
        rules::start(&*self.maps())
    }

    fn apply(&self, batch: &Batch) -> Result<(), StoreError> {
        self.maps().apply(batch)
    }

    fn reopen(&self) -> Result<Start, StoreError> {
        self.start()
    }

    fn chain_id(&self) -> ChainId {
        self.chain_id
    }

    fn committee(&self, epoch: Epoch) -> Result<Option<Arc<Committee>>, StoreError> {
        self.maps().committee(epoch)
    }

    fn head(&self, index: CommitIndex) -> Result<Option<CommitHead>, StoreError> {
        self.maps().head(index)
    }

    fn commit(&self, index: CommitIndex) -> Result<Option<StoredCommit>, StoreError> {
        Ok(self.maps().commits.get(&index).map(|(_, commit)| commit.clone()))
    }

    fn block(&self, reference: &BlockRef) -> Result<Option<Payload>, StoreError> {
        Ok(self.maps().blocks.get(reference).cloned())
    }

    fn certificate(&self, commit: &CommitRef) -> Result<Option<Vec<Certifier>>, StoreError> {
        rules::certificate(&*self.maps(), commit)
    }

    /// An archive: it gives up nothing.
    fn prune(&self, _lowest: CommitIndex) -> Result<(), StoreError> {
        Ok(())
    }
}

impl View for Maps {
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
        Ok(next.map(|(_, certifier)| *certifier))
    }
}

impl Maps {
    fn apply(&mut self, batch: &Batch) -> Result<(), StoreError> {
        rules::check_links(self.state.tip, batch.commits.iter().map(|commit| &**commit))?;
        for block in &batch.blocks {
            let BlockRef { round, author, digest, epoch } = block.reference;
            let bytes = u32::try_from(block.payload.len()).unwrap_or(u32::MAX);
            for vote in &block.votes {
                let certifier = Certifier { block: block.reference, bytes };
                self.votes.insert((*vote, epoch, author, round, digest), certifier);
            }
            if block.epoch_end.is_some() {
                self.ends.insert(block.reference);
            }
            self.blocks.insert(block.reference, block.payload.clone());
        }
        self.committees.extend(batch.committees.iter().map(|known| (known.epoch(), Arc::clone(known))));
        for commit in &batch.commits {
            let ends_epoch = commit.blocks.iter().any(|block| self.ends.contains(block));
            let stored = StoredCommit {
                reference: commit.reference,
                epoch: commit.epoch,
                blocks: Arc::clone(&commit.blocks),
                payload: commit.payload.clone(),
            };
            self.commits.insert(commit.reference.index, (rules::head_of(commit, ends_epoch)?, stored));
            self.state.tip = commit.reference;
        }
        Ok(())
    }
}
