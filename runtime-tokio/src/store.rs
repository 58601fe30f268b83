//! What the driver needs of storage. Methods block, and are called from threads where that is allowed.

use soma_sync_core::{
    command::Batch,
    committee::Committee,
    payload::Payload,
    start::Start,
    types::{BlockRef, ChainId, CommitIndex, CommitRef, Epoch},
};
use std::{path::PathBuf, sync::Arc};

mod memory;
mod redb;
pub mod rules;
#[cfg(test)]
pub(crate) mod tests;

pub use self::{
    memory::MemoryStore,
    redb::{RedbOptions, RedbStore},
};

/// Durable storage of one chain: commits, their blocks, and the votes in all blocks that were ever handed to it.
///
/// Everything read back is checked against its digest, so that what is served or handed on is what was verified.
pub trait Store: Send + Sync + 'static {
    /// The state that a machine starts from, in one consistent read.
    fn start(&self) -> Result<Start, StoreError>;

    /// Stores a batch: all of it or nothing, and durable when this returns. Commits must follow the stored tip; after
    /// an error nothing more is taken until the store is reopened.
    fn apply(&self, batch: &Batch) -> Result<(), StoreError>;

    /// Closes the storage and opens it again, after an error or at any other time, and says what it holds. Calls made
    /// meanwhile wait. Where this fails, writes are [`StoreError::Failed`], and reads may be, until a further call
    /// succeeds.
    fn reopen(&self) -> Result<Start, StoreError>;

    /// Identity of the chain.
    fn chain_id(&self) -> ChainId;

    /// The committee of an epoch, where it is known. That of the genesis epoch always is.
    fn committee(&self, epoch: Epoch) -> Result<Option<Arc<Committee>>, StoreError>;

    /// What is known of a stored commit without reading it: cheap however large the commit is. `None` below the lowest
    /// commit that the store has, for genesis, and above the tip.
    fn head(&self, index: CommitIndex) -> Result<Option<CommitHead>, StoreError>;

    /// A stored commit. `None` where [`Store::head`] has none.
    fn commit(&self, index: CommitIndex) -> Result<Option<StoredCommit>, StoreError>;

    /// A stored block, committed or not.
    fn block(&self, reference: &BlockRef) -> Result<Option<Payload>, StoreError>;

    /// A quorum of stored blocks that vote for exactly this stored commit: one block an author, ordered by author,
    /// each author's lowest round, the shortest prefix that reaches the quorum. `None` where the store holds none, or
    /// has not this commit. Reads no block.
    fn certificate(&self, commit: &CommitRef) -> Result<Option<Vec<Certifier>>, StoreError>;

    /// The blocks of [`Store::certificate`].
    fn certifiers(&self, commit: &CommitRef) -> Result<Option<Vec<Payload>>, StoreError> {
        let Some(certificate) = self.certificate(commit)? else { return Ok(None) };
        let blocks = certificate.iter().map(|certifier| {
            self.block(&certifier.block)?.ok_or_else(|| StoreError::Damaged {
                what: format!("certifier {} of {commit} is not there", certifier.block),
            })
        });
        blocks.collect::<Result<Vec<_>, _>>().map(Some)
    }

    /// Gives up the commits below `lowest`, with their blocks and the votes for them, and blocks of those rounds that
    /// no commit ever named. Committees are kept, and so are the certifiers of what remains. The tip itself always
    /// stays. The lowest commit that the store has afterwards is what [`Store::start`] says.
    fn prune(&self, lowest: CommitIndex) -> Result<(), StoreError>;
}

/// What is known of a stored commit without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommitHead {
    /// Index and digest.
    pub reference: CommitRef,
    /// Epoch of the commit and of its blocks.
    pub epoch: Epoch,
    /// Milliseconds since the Unix epoch, as the committee agreed.
    pub timestamp_ms: u64,
    /// Whether the next commit is of the next epoch.
    pub ends_epoch: bool,
    /// Length of the encoding.
    pub bytes: u32,
}

/// A stored block that votes for a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Certifier {
    /// The block.
    pub block: BlockRef,
    /// Length of its encoding.
    pub bytes: u32,
}

/// A stored commit as it is served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredCommit {
    /// Index and digest.
    pub reference: CommitRef,
    /// Epoch of the commit and of its blocks.
    pub epoch: Epoch,
    /// The blocks that it names, in order.
    pub blocks: Arc<[BlockRef]>,
    /// The encoding.
    pub payload: Payload,
}

/// What can go wrong in storage.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The file cannot be opened, read or written.
    #[error("store {path}: {reason}")]
    Io {
        /// The store's file.
        path: PathBuf,
        /// What the system or the database says.
        reason: String,
    },
    /// Another process has the store open.
    #[error("store {path} is open in another process; stop that one first")]
    Locked {
        /// The store's file.
        path: PathBuf,
    },
    /// There is no store at the path, and no genesis to make one from.
    #[error("there is no store at {path}; give a genesis file to make one")]
    Missing {
        /// The store's file.
        path: PathBuf,
    },
    /// The store holds another chain than the genesis that it was opened with.
    #[error("store {path} holds chain {found}, not chain {expected}; use another directory")]
    OtherChain {
        /// The store's file.
        path: PathBuf,
        /// The chain of the genesis that was given.
        expected: ChainId,
        /// The chain in the store.
        found: ChainId,
    },
    /// The file is no store, or one of another version.
    #[error("{path} is not a store of this version: {reason}")]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// What was read back is not what was stored.
    #[error("store is damaged: {what}")]
    Damaged {
        /// Which record.
        what: String,
    },
    /// A commit of a batch does not follow the one before it, or the stored tip: in its index, or in the digest that
    /// it says the commit before it has.
    #[error("{commit} does not follow {previous}")]
    NotNext {
        /// The commit.
        commit: CommitRef,
        /// The one that it should follow.
        previous: CommitRef,
    },
    /// A batch does not hang together with what is stored.
    #[error("a batch does not fit what is stored: {what}")]
    Inconsistent {
        /// What is missing, or contradicts.
        what: String,
    },
    /// The store was opened to be read.
    #[error("store {path} was opened to be read only")]
    ReadOnly {
        /// The store's file.
        path: PathBuf,
    },
    /// An earlier write failed; the store must be reopened.
    #[error("the store failed earlier and has not been reopened")]
    Failed,
}
