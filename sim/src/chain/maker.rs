//! The maker: an endless iterator over the commits of one chain.

use super::{ChainSpec, SpecError, authorities::Authorities, epoch::EpochDag};
use soma_sync_core::{
    committee::Committee,
    job::{CheckedBlock, CommitHeader},
    types::{ChainId, CommitRef},
};
use std::{collections::VecDeque, sync::Arc};

/// A commit that was made, with its blocks and a quorum of votes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MadeCommit {
    /// The commit.
    pub header: CommitHeader,
    /// Its blocks, in commit order.
    pub blocks: Vec<CheckedBlock>,
    /// Blocks that vote for it, of the third round after its leader's: ordered by author, the shortest prefix that is
    /// a quorum. Some are in later commits; those of an epoch's last commits are in none.
    pub certifiers: Arc<[CheckedBlock]>,
    /// Its epoch's committee.
    pub committee: Arc<Committee>,
    /// The next epoch's committee, where this commit is the last of its epoch.
    pub next_committee: Option<Arc<Committee>>,
}

/// Makes the commits of a chain, one after the other and without end: `take` as many as wanted.
///
/// The first [`ChainSpec::commits`] are the chain that the spec describes; what comes after them goes on in the last
/// epoch, as a chain in operation does. Memory holds a few rounds of blocks and about one commit, however long the
/// chain is. The iterator ends only when the numbers of rounds or commits do.
#[derive(Debug)]
pub struct ChainMaker {
    spec: ChainSpec,
    genesis: Arc<Committee>,
    epoch: u32,
    dag: EpochDag,
    /// Certified, not yet taken.
    ready: VecDeque<MadeCommit>,
}

/// What one epoch leaves to the next.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Carried {
    /// The last commit.
    pub(crate) tip: CommitRef,
    /// Its timestamp.
    pub(crate) timestamp_ms: u64,
    /// When round 0 of the next epoch is.
    pub(crate) start_ms: u64,
}

/// When round 0 of every chain is: 14 November 2023, in milliseconds since the Unix epoch.
const GENESIS_MS: u64 = 1_700_000_000_000;

impl ChainMaker {
    /// A maker of the chain that `spec` describes.
    ///
    /// # Errors
    ///
    /// When the spec is out of its bounds.
    pub fn new(spec: ChainSpec) -> Result<Self, SpecError> {
        spec.validate()?;
        let authorities = Authorities::draw(&spec, 0);
        let genesis = Arc::clone(&authorities.committee);
        let carried = Carried { tip: CommitRef::GENESIS, timestamp_ms: 0, start_ms: GENESIS_MS };
        let dag = EpochDag::new(spec, 0, authorities, carried);
        Ok(Self { spec, genesis, epoch: 0, dag, ready: VecDeque::new() })
    }

    /// The chain that is made.
    pub const fn spec(&self) -> ChainSpec {
        self.spec
    }

    /// The committee of the first epoch.
    pub const fn genesis(&self) -> &Arc<Committee> {
        &self.genesis
    }

    /// The chain's identity.
    pub fn chain_id(&self) -> ChainId {
        self.genesis.chain_id()
    }
}

impl Iterator for ChainMaker {
    type Item = MadeCommit;

    fn next(&mut self) -> Option<MadeCommit> {
        loop {
            if let Some(made) = self.ready.pop_front() {
                return Some(made);
            }
            if let Some((authorities, carried)) = self.dag.take_next_epoch() {
                self.epoch += 1;
                self.dag = EpochDag::new(self.spec, self.epoch, authorities, carried);
            }
            self.ready.extend(self.dag.make_round()?);
        }
    }
}
