//! What a machine starts from: the state of storage, read in one go.

use crate::{
    committee::Committee,
    types::{AuthorityIndex, ChainId, CommitIndex, CommitRef, Epoch},
};
use alloc::{sync::Arc, vec::Vec};

/// The state of storage at start, or when it was opened again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Start {
    /// Which chain the store holds.
    pub chain_id: ChainId,
    /// The last stored commit.
    pub tip: Tip,
    /// The highest stored commit for which the store holds a quorum of votes; genesis where there is none.
    pub certifiable: CommitRef,
    /// The lowest commit that the store still has; 0 where nothing was pruned.
    pub lowest_available: CommitIndex,
    /// The committee of the tip's epoch.
    pub committee: Arc<Committee>,
    /// The committee of the epoch after it, where the tip ends its epoch and the committee is known.
    pub next_committee: Option<Arc<Committee>>,
    /// Stored commits above `certifiable`, ascending, up to the tip, with who has voted for them in stored blocks.
    pub votes: Vec<StoredVotes>,
}

/// The last stored commit, as far as what follows depends on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tip {
    /// Index and digest; [`CommitRef::GENESIS`] in an empty store.
    pub reference: CommitRef,
    /// Its timestamp, below which the next one's must not fall.
    pub timestamp_ms: u64,
    /// Its epoch; that of the first commit for genesis.
    pub epoch: Epoch,
    /// Whether the next commit is of the next epoch.
    pub ends_epoch: bool,
}
saved! { struct Tip { reference, timestamp_ms, epoch, ends_epoch } }

/// The votes in storage for one stored commit.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StoredVotes {
    /// The commit.
    pub commit: CommitRef,
    /// Its epoch, whose committee the voters belong to.
    pub epoch: Epoch,
    /// Who voted for it, ascending, each once.
    pub voters: Vec<AuthorityIndex>,
}

impl Start {
    /// The state of a store that holds nothing but its genesis committee.
    pub fn genesis(chain_id: ChainId, committee: Arc<Committee>) -> Self {
        Self {
            chain_id,
            tip: Tip {
                reference: CommitRef::GENESIS,
                timestamp_ms: 0,
                epoch: committee.epoch(),
                ends_epoch: false,
            },
            certifiable: CommitRef::GENESIS,
            lowest_available: CommitIndex::GENESIS,
            committee,
            next_committee: None,
            votes: Vec::new(),
        }
    }
}
