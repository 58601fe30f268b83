//! The field's quantities and names, each a type of its own: an index is not a round, a digest of a block is not
//! a digest of a commit. All are plain integers or 32 bytes; arithmetic is checked or saturating.

use core::fmt;

/// An unsigned quantity with its own name.
macro_rules! quantity {
    ($(#[$doc:meta])* $name:ident($int:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name($int);
        saved! { struct $name(value) }

        impl $name {
            /// The smallest value.
            pub const ZERO: Self = Self(0);
            /// The largest value.
            pub const MAX: Self = Self(<$int>::MAX);

            /// Wraps the plain number.
            pub const fn new(value: $int) -> Self {
                Self(value)
            }
            /// The plain number.
            pub const fn get(self) -> $int {
                self.0
            }
            /// The value after this one, or `None` after [`Self::MAX`].
            pub const fn next(self) -> Option<Self> {
                match self.0.checked_add(1) {
                    Some(value) => Some(Self(value)),
                    None => None,
                }
            }
            /// The value before this one, or `None` before [`Self::ZERO`].
            pub const fn previous(self) -> Option<Self> {
                match self.0.checked_sub(1) {
                    Some(value) => Some(Self(value)),
                    None => None,
                }
            }
            /// `self + n`, stopping at [`Self::MAX`].
            pub const fn saturating_add(self, n: $int) -> Self {
                Self(self.0.saturating_add(n))
            }
            /// `self - n`, stopping at [`Self::ZERO`].
            pub const fn saturating_sub(self, n: $int) -> Self {
                Self(self.0.saturating_sub(n))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

quantity! {
    /// Position of a commit in the agreed order. Genesis is 0; indexes are contiguous and go on across epochs.
    CommitIndex(u32)
}
quantity! {
    /// Round of a block within its epoch. Genesis blocks are round 0; every epoch starts again from there.
    Round(u32)
}
quantity! {
    /// Position of an authority in its epoch's committee, sorted by authority name.
    AuthorityIndex(u32)
}
quantity! {
    /// Number of an epoch; each has one committee.
    Epoch(u64)
}
quantity! {
    /// Voting power. A committee's sums to [`TOTAL_STAKE`](crate::committee::TOTAL_STAKE).
    Stake(u64)
}

impl AuthorityIndex {
    /// The index as a position in a slice.
    pub const fn position(self) -> usize {
        // At least 32 bits on every platform this crate builds for; larger values would merely not be found.
        self.0 as usize
    }
}

impl CommitIndex {
    /// The commit before the first one: every chain starts from it.
    pub const GENESIS: Self = Self::ZERO;
}

/// Thirty-two bytes with a name.
macro_rules! bytes32 {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 32]);
        saved! { struct $name(value) }

        impl $name {
            /// All bytes zero.
            pub const ZERO: Self = Self([0; 32]);

            /// Wraps the raw bytes.
            pub const fn new(bytes: [u8; 32]) -> Self {
                Self(bytes)
            }
            /// The raw bytes.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }

        /// The first four bytes: enough to tell two apart in a log.
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.iter().take(4).try_for_each(|byte| write!(f, "{byte:02x}"))
            }
        }
    };
}

bytes32! {
    /// BLAKE2b-256 of a signed block's bytes, signature included.
    BlockDigest
}
bytes32! {
    /// BLAKE2b-256 of a commit's bytes. Genesis (commit 0) has 32 zero bytes on every chain.
    CommitDigest
}
bytes32! {
    /// Identity of a chain: BLAKE2b-256 of the BCS bytes of its genesis validator set (`formats.md`).
    ChainId
}
bytes32! {
    /// Identity of a peer: its ed25519 network key, proven by the transport.
    PeerId
}

/// What names a block: 48 bytes in BCS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockRef {
    /// Round that the block was proposed in.
    pub round: Round,
    /// Who proposed it.
    pub author: AuthorityIndex,
    /// Digest of the signed block.
    pub digest: BlockDigest,
    /// Epoch whose committee the author belongs to.
    pub epoch: Epoch,
}
saved! { struct BlockRef { round, author, digest, epoch } }

impl fmt::Display for BlockRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "block {:?} (round {}, author {}, epoch {})",
            self.digest, self.round, self.author, self.epoch
        )
    }
}

/// What names a commit, and what a vote for a commit is: 36 bytes in BCS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitRef {
    /// Position in the chain.
    pub index: CommitIndex,
    /// Digest of the commit.
    pub digest: CommitDigest,
}
saved! { struct CommitRef { index, digest } }

impl CommitRef {
    /// The commit before the first one, the same on every chain.
    pub const GENESIS: Self = Self { index: CommitIndex::GENESIS, digest: CommitDigest::ZERO };
}

impl fmt::Display for CommitRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "commit {} {:?}", self.index, self.digest)
    }
}

/// Consecutive commits, both ends included; never empty.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CommitRange {
    start: CommitIndex,
    end: CommitIndex,
}

impl CommitRange {
    /// The commits from `start` to `end`, or `None` when `start` is above `end`.
    pub const fn new(start: CommitIndex, end: CommitIndex) -> Option<Self> {
        if start.get() <= end.get() { Some(Self { start, end }) } else { None }
    }
    /// The range of one commit.
    pub const fn single(index: CommitIndex) -> Self {
        Self { start: index, end: index }
    }
    /// First commit.
    pub const fn start(self) -> CommitIndex {
        self.start
    }
    /// Last commit.
    pub const fn end(self) -> CommitIndex {
        self.end
    }
    /// Number of commits, at least 1.
    pub const fn count(self) -> u64 {
        // u32 differences fit u64, and `start <= end` holds by construction.
        (self.end.get() as u64).saturating_sub(self.start.get() as u64).saturating_add(1)
    }
    /// Whether `index` lies within.
    pub const fn contains(self, index: CommitIndex) -> bool {
        self.start.get() <= index.get() && index.get() <= self.end.get()
    }
    /// The commits in order.
    pub fn iter(self) -> impl DoubleEndedIterator<Item = CommitIndex> + Clone {
        (self.start.get()..=self.end.get()).map(CommitIndex::new)
    }
}

impl fmt::Display for CommitRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}..={}", self.start, self.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn what_people_read_does_not_name_the_commit_or_block() {
        let commit = CommitRef { index: CommitIndex::new(7), digest: CommitDigest::new([0xab; 32]) };
        let digest = "ab".repeat(4);
        assert_eq!(commit.to_string(), alloc::format!("commit 7 {digest}"));
        let range = CommitRange::new(CommitIndex::new(7), CommitIndex::new(9)).expect("a range");
        assert_eq!(range.to_string(), "7..=9");
        let block = BlockRef {
            round: Round::new(5),
            author: AuthorityIndex::new(2),
            digest: BlockDigest::new([0xcd; 32]),
            epoch: Epoch::new(1),
        };
        let digest = "cd".repeat(4);
        assert_eq!(block.to_string(), alloc::format!("block {digest} (round 5, author 2, epoch 1)"));
    }
}
