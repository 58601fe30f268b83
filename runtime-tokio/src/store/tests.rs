//! Both stores against chains from the chain maker.

mod contract;
mod crash;
mod damage;
mod file;
mod model;

use super::{MemoryStore, RedbStore, Store, StoreError};
use soma_sync_core::{
    block::Block,
    command::{Batch, BatchId},
    committee::{Committee, StakeTally},
    job::{CheckedBlock, CommitHeader},
    payload::Payload,
    types::{BlockRef, CommitIndex, CommitRef},
    verified::Verified,
};
use soma_sync_sim::chain::{ChainMaker, ChainSpec, MadeCommit};
use std::{collections::BTreeMap, sync::Arc};
use tempfile::TempDir;

/// A chain in memory.
pub(crate) struct Chain {
    pub(crate) genesis: Arc<Committee>,
    pub(crate) commits: Vec<MadeCommit>,
}

impl Chain {
    pub(crate) fn new(spec: ChainSpec) -> Self {
        let count = usize::try_from(spec.commits).expect("fits");
        let maker = ChainMaker::new(spec).expect("the spec is sound");
        Self { genesis: Arc::clone(maker.genesis()), commits: maker.take(count).collect() }
    }

    /// Thirty commits, ten in each of three epochs, by seven authorities.
    pub(crate) fn small() -> Self {
        Self::new(ChainSpec {
            commits: 30,
            blocks_per_commit: 7,
            payload_bytes: 40,
            committee: 7,
            epochs: 3,
            seed: 1,
        })
    }

    /// The commit at an index.
    pub(crate) fn at(&self, index: u32) -> &MadeCommit {
        &self.commits[usize::try_from(index).expect("fits") - 1]
    }

    /// The commits from `first` to `last`, with the certifiers of the last: what a sync stores.
    pub(crate) fn batch(&self, first: u32, last: u32) -> Batch {
        let mut batch = self.uncertified(first, last);
        batch.blocks.extend(verified(&self.at(last).certifiers));
        batch
    }

    /// The commits from `first` to `last`, with their blocks only.
    pub(crate) fn uncertified(&self, first: u32, last: u32) -> Batch {
        let made = || (first..=last).map(|index| self.at(index));
        Batch {
            blocks: made().flat_map(|made| verified(&made.blocks)).collect(),
            commits: made().map(|made| Verified::from_trace(made.header.clone())).collect(),
            committees: made().filter_map(|made| made.next_committee.clone()).collect(),
            ..empty()
        }
    }
}

pub(crate) fn empty() -> Batch {
    Batch { id: BatchId::new(0), blocks: Vec::new(), commits: Vec::new(), committees: Vec::new() }
}

/// Blocks that no commit of the batch names.
pub(crate) fn votes(blocks: &[CheckedBlock]) -> Batch {
    Batch { blocks: verified(blocks).collect(), ..empty() }
}

pub(crate) fn verified(blocks: &[CheckedBlock]) -> impl Iterator<Item = Verified<CheckedBlock>> {
    blocks.iter().cloned().map(Verified::from_trace)
}

/// A block that votes, made for the purpose and not signed.
pub(crate) fn voting(like: BlockRef, commits: &[CommitRef]) -> CheckedBlock {
    let block = Block {
        epoch: like.epoch,
        round: like.round,
        author: like.author,
        timestamp_ms: 0,
        ancestors: Vec::new(),
        transactions: Vec::new(),
        votes: commits.to_vec(),
        end_of_epoch: None,
    };
    let (reference, bytes) = block.unsigned();
    CheckedBlock { reference, votes: commits.to_vec(), epoch_end: None, payload: Payload::new(bytes) }
}

pub(crate) const fn index(index: u32) -> CommitIndex {
    CommitIndex::new(index)
}

/// Runs a test on an empty store of each kind.
fn with_each_store(genesis: &Arc<Committee>, test: impl Fn(&dyn Store)) {
    test(&MemoryStore::new(Arc::clone(genesis)));
    let directory = TempDir::new().expect("a directory");
    test(&RedbStore::open(directory.path(), Some(genesis)).expect("a new store"));
}

/// The shortest prefix, in order of author and then round, of blocks that vote for a commit and are a quorum: found
/// by looking at all of them.
fn quorum_by_hand(made: &MadeCommit, stored: &[CheckedBlock]) -> Option<Vec<BlockRef>> {
    let mut voters = BTreeMap::new();
    for block in stored.iter().filter(|block| block.reference.epoch == made.header.epoch) {
        if block.votes.contains(&made.header.reference) {
            let key = (block.reference.round, block.reference.digest);
            let first = voters.entry(block.reference.author).or_insert((key, block.reference));
            *first = (*first).min((key, block.reference));
        }
    }
    let mut tally = StakeTally::new();
    let mut prefix = Vec::new();
    for (author, (_, block)) in voters {
        tally.add(author, &made.committee);
        prefix.push(block);
        if tally.reached_quorum() {
            return Some(prefix);
        }
    }
    None
}

/// Reads a commit and all its blocks, which must be those of the chain.
fn assert_stored(store: &dyn Store, made: &MadeCommit) {
    let CommitHeader { reference, epoch, timestamp_ms, blocks, payload, .. } = &made.header;
    let head = store.head(reference.index).expect("a read").expect("a head");
    assert_eq!((head.reference, head.epoch, head.timestamp_ms), (*reference, *epoch, *timestamp_ms));
    assert_eq!(head.ends_epoch, made.next_committee.is_some());
    let commit = store.commit(reference.index).expect("a read").expect("a commit");
    assert_eq!((commit.reference, commit.epoch, &commit.blocks), (*reference, *epoch, blocks));
    assert_eq!(commit.payload.bytes(), payload.bytes());
    assert_eq!(head.bytes as usize, payload.len());
    for block in &made.blocks {
        let stored = store.block(&block.reference).expect("a read").expect("a block");
        assert_eq!(stored.bytes(), block.payload.bytes());
    }
}

/// The refs of a certificate.
fn certificate(store: &dyn Store, commit: &CommitRef) -> Option<Vec<BlockRef>> {
    let certificate = store.certificate(commit).expect("a read")?;
    Some(certificate.iter().map(|certifier| certifier.block).collect())
}

fn assert_failed(result: Result<(), StoreError>) {
    assert!(matches!(result, Err(StoreError::Failed)), "{result:?}");
}
