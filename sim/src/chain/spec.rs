//! What a chain is asked to be like.

/// Most authorities in a committee: what the formats' default limits allow a block to have as ancestors.
pub const MAX_COMMITTEE: u32 = 1_000;
/// Most blocks in a commit: what the formats' default limits allow.
pub const MAX_BLOCKS_PER_COMMIT: u32 = 10_000;
/// Most bytes of transactions in a block; with the rest of it, a block stays below the default limit of 4 MiB.
pub const MAX_PAYLOAD_BYTES: u32 = 3 * 1024 * 1024;
/// Most bytes of transactions in a commit: the maker holds a few commits in memory at once.
pub const MAX_COMMIT_PAYLOAD_BYTES: u64 = 256 * 1024 * 1024;

/// A chain to make. Equal specs make equal bytes, on every machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ChainSpec {
    /// Commits in all, over all epochs. None at all is a chain of its genesis only.
    pub commits: u32,
    /// Blocks in every commit, from 1 to [`MAX_BLOCKS_PER_COMMIT`].
    pub blocks_per_commit: u32,
    /// Bytes of transactions in every block, at most [`MAX_PAYLOAD_BYTES`]; lengths and the rest of the block come on
    /// top.
    pub payload_bytes: u32,
    /// Authorities in every epoch's committee, from 1 to [`MAX_COMMITTEE`].
    pub committee: u32,
    /// Epochs that `commits` are spread over as evenly as can be, the first ones taking what is left over. From 1 to
    /// `commits`, or 1 where there are none. The last one does not end.
    pub epochs: u32,
    /// What everything is drawn from: keys, stakes, transactions, leaders.
    pub seed: u64,
}

/// A chain that cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// No authorities, or too many.
    #[error("a committee has from 1 to {MAX_COMMITTEE} authorities, not {0}")]
    Committee(u32),
    /// Commits of no blocks, or of too many.
    #[error("a commit has from 1 to {MAX_BLOCKS_PER_COMMIT} blocks, not {0}")]
    BlocksPerCommit(u32),
    /// Blocks that would pass the default limit.
    #[error("a block has at most {MAX_PAYLOAD_BYTES} bytes of payload, not {0}")]
    PayloadBytes(u32),
    /// Commits that would not fit into memory beside one another.
    #[error("a commit has at most {MAX_COMMIT_PAYLOAD_BYTES} bytes of payload, not {0}")]
    CommitBytes(u64),
    /// No epochs, or some without commits.
    #[error("{commits} commits are spread over at least 1 and at most {max} epochs, not {epochs}", max = commits.max(&1))]
    Epochs {
        /// Epochs asked for.
        epochs: u32,
        /// Commits asked for.
        commits: u32,
    },
    /// More blocks than there are round numbers for the smallest committee.
    #[error("a chain has at most {max} blocks, not {0}", max = u32::MAX - ROUNDS_TO_SPARE)]
    Blocks(u64),
}

/// Rounds of an epoch that may be made beyond one a block: before the first commit and after the last.
const ROUNDS_TO_SPARE: u32 = 1_000;

impl ChainSpec {
    /// Whether the chain can be made.
    ///
    /// # Errors
    ///
    /// The first field that is out of its bounds.
    pub fn validate(&self) -> Result<(), SpecError> {
        if !(1..=MAX_COMMITTEE).contains(&self.committee) {
            return Err(SpecError::Committee(self.committee));
        }
        if !(1..=MAX_BLOCKS_PER_COMMIT).contains(&self.blocks_per_commit) {
            return Err(SpecError::BlocksPerCommit(self.blocks_per_commit));
        }
        if self.payload_bytes > MAX_PAYLOAD_BYTES {
            return Err(SpecError::PayloadBytes(self.payload_bytes));
        }
        let commit_bytes = u64::from(self.payload_bytes) * u64::from(self.blocks_per_commit);
        if commit_bytes > MAX_COMMIT_PAYLOAD_BYTES {
            return Err(SpecError::CommitBytes(commit_bytes));
        }
        if !(1..=self.commits.max(1)).contains(&self.epochs) {
            return Err(SpecError::Epochs { epochs: self.epochs, commits: self.commits });
        }
        let blocks = u64::from(self.commits) * u64::from(self.blocks_per_commit);
        if blocks > u64::from(u32::MAX - ROUNDS_TO_SPARE) {
            return Err(SpecError::Blocks(blocks));
        }
        Ok(())
    }

    /// Index of the last commit of `epoch`; `None` for the last epoch, which does not end, and for those after it.
    pub fn last_commit_of(&self, epoch: u32) -> Option<u32> {
        let length = self.commits / self.epochs;
        let left_over = self.commits % self.epochs;
        (epoch < self.epochs - 1).then(|| length * (epoch + 1) + left_over.min(epoch + 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: ChainSpec = ChainSpec {
        commits: 11,
        blocks_per_commit: 10,
        payload_bytes: 512,
        committee: 4,
        epochs: 3,
        seed: 1,
    };

    #[test]
    fn arguments_out_of_bounds_are_refused_each_by_its_name() {
        let cases = [
            (ChainSpec { committee: 0, ..SPEC }, SpecError::Committee(0)),
            (ChainSpec { committee: 1_001, ..SPEC }, SpecError::Committee(1_001)),
            (ChainSpec { blocks_per_commit: 0, ..SPEC }, SpecError::BlocksPerCommit(0)),
            (ChainSpec { blocks_per_commit: 10_001, ..SPEC }, SpecError::BlocksPerCommit(10_001)),
            (ChainSpec { payload_bytes: u32::MAX, ..SPEC }, SpecError::PayloadBytes(u32::MAX)),
            (
                ChainSpec { payload_bytes: 1 << 20, blocks_per_commit: 257, ..SPEC },
                SpecError::CommitBytes(257 << 20),
            ),
            (ChainSpec { epochs: 0, ..SPEC }, SpecError::Epochs { epochs: 0, commits: 11 }),
            (ChainSpec { epochs: 12, ..SPEC }, SpecError::Epochs { epochs: 12, commits: 11 }),
            (ChainSpec { commits: 0, epochs: 2, ..SPEC }, SpecError::Epochs { epochs: 2, commits: 0 }),
            (ChainSpec { commits: u32::MAX, ..SPEC }, SpecError::Blocks(u64::from(u32::MAX) * 10)),
        ];
        for (spec, error) in cases {
            assert_eq!(spec.validate(), Err(error));
        }
        let edges = [
            SPEC,
            ChainSpec { commits: 0, epochs: 1, ..SPEC },
            ChainSpec { epochs: 11, ..SPEC },
            ChainSpec { committee: 1, blocks_per_commit: 1, payload_bytes: 0, ..SPEC },
            ChainSpec { committee: 1_000, blocks_per_commit: 10_000, ..SPEC },
        ];
        for spec in edges {
            assert_eq!(spec.validate(), Ok(()));
        }
    }

    #[test]
    fn epochs_share_the_commits_evenly_and_the_last_one_does_not_end() {
        let ends: Vec<_> = (0..4).map(|epoch| SPEC.last_commit_of(epoch)).collect();
        assert_eq!(ends, [Some(4), Some(8), None, None]);
    }
}
