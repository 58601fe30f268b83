//! The chain that the validator is told, made before the clock starts.

use anyhow::Result;
use bytes::Bytes;
use soma_sync_core::{
    committee::Committee,
    job::CheckedBlock,
    types::{CommitIndex, CommitRef},
};
use soma_sync_sim::chain::{ChainMaker, ChainSpec, MadeCommit};
use std::sync::Arc;

/// A chain from its first commit on.
pub(crate) struct Chain {
    /// The committee, of all of it.
    pub(crate) genesis: Arc<Committee>,
    pub(crate) commits: Vec<Commit>,
}

impl Chain {
    /// Index of the last commit.
    pub(crate) fn last(&self) -> CommitIndex {
        self.commits.last().map_or(CommitIndex::GENESIS, |commit| commit.reference.index)
    }
}

/// A commit as consensus hands it to its node: all of it encoded.
pub(crate) struct Commit {
    pub(crate) reference: CommitRef,
    pub(crate) commit: Bytes,
    pub(crate) blocks: Vec<Bytes>,
    /// Blocks that vote for it, a quorum.
    pub(crate) votes: Vec<Bytes>,
}

impl From<MadeCommit> for Commit {
    fn from(made: MadeCommit) -> Self {
        let encodings = |blocks: &[CheckedBlock]| -> Vec<Bytes> {
            blocks.iter().map(|block| block.payload.bytes().clone()).collect()
        };
        Self {
            reference: made.header.reference,
            commit: made.header.payload.bytes().clone(),
            blocks: encodings(&made.blocks),
            votes: encodings(&made.certifiers),
        }
    }
}

/// Makes the chain of this spec.
pub(crate) fn prepare(spec: ChainSpec) -> Result<Chain> {
    let maker = ChainMaker::new(spec)?;
    let genesis = Arc::clone(maker.genesis());
    Ok(Chain { genesis, commits: maker.take(spec.commits as usize).map(Commit::from).collect() })
}
