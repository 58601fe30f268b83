//! The job that certifies an answer to `FetchCommits`: are these commits a chain, and did a quorum vote for its end?
//!
//! Checked in the order that the protocol gives (protocol: The client's work, step 3), cheap before dear: what fails
//! before the quorum stands is the sender's fault; what fails under the quorum is the committee's.

#[cfg(feature = "verify")]
mod long;
#[cfg(feature = "verify")]
mod run;

#[cfg(feature = "verify")]
pub use long::{CertifiedDigests, CertifiedDigestsError, CommitDigests, NotCertified};
#[cfg(feature = "verify")]
pub(crate) use run::run;

use crate::{
    bcs::DecodeError,
    block::BlockError,
    payload::Payload,
    types::{BlockRef, CommitIndex, CommitRef, Epoch, Stake},
};

/// Why an answer does not show a certified chain. The sender's fault.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum CertifyError {
    /// It has no commits.
    #[error("no commits")]
    Empty,
    /// It has more commits than were asked for.
    #[error("{count} commits where at most {max} were asked for")]
    TooManyCommits {
        /// Commits that came.
        count: usize,
        /// Commits from the first to the last that was asked for.
        max: u64,
    },
    /// It has more certifiers than twice the number of authorities.
    #[error("{count} certifiers, and at most {max} are looked at")]
    TooManyCertifiers {
        /// Certifiers that came.
        count: usize,
        /// The limit.
        max: usize,
    },
    /// A commit does not decode.
    #[error("the commit at position {position} does not decode: {error}")]
    Commit {
        /// Position in the answer.
        position: usize,
        /// Why.
        error: DecodeError,
    },
    /// The first commit is not the one asked for.
    #[error("the first commit is {found}, not {expected}")]
    Start {
        /// The first index that was asked for.
        expected: CommitIndex,
        /// The first index that came.
        found: CommitIndex,
    },
    /// Indexes are not contiguous.
    #[error("commit {found} follows commit {previous}")]
    Sequence {
        /// An index.
        previous: CommitIndex,
        /// The one after it in the answer.
        found: CommitIndex,
    },
    /// A commit does not name the one before it in the answer.
    #[error("commit {index} does not name the one before it")]
    Link {
        /// Its index.
        index: CommitIndex,
    },
    /// The epoch changes within the answer.
    #[error("the epoch changes from {first} to {found} within the answer")]
    EpochChange {
        /// That of the first commit.
        first: Epoch,
        /// Another one.
        found: Epoch,
    },
    /// The good certifiers are no quorum.
    #[error("votes with stake {stake}, which is no quorum")]
    NoQuorum {
        /// Stake of the good ones.
        stake: Stake,
        /// What is wrong with the first of the bad ones.
        first_bad: Option<CertifierError>,
    },
}

/// Why a certifier does not count.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum CertifierError {
    /// It is not a valid block.
    #[error("not a valid block: {0}")]
    Block(BlockError),
    /// It does not vote for the last commit of the answer.
    #[error("no vote for the last commit")]
    NoVote,
}

/// Something that a quorum voted for and that breaks the protocol's rules: the evidence.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum CertifiedFault {
    /// A commit.
    #[error("{reference}: {rule}")]
    Commit {
        /// Which.
        reference: CommitRef,
        /// What rule it breaks.
        rule: CommitRule,
        /// Its encoding.
        payload: Payload,
    },
    /// A block that a certified commit names.
    #[error("{reference}: {error}")]
    Block {
        /// As the commit names it.
        reference: BlockRef,
        /// What is wrong with it.
        error: BlockError,
        /// Its encoding.
        payload: Payload,
    },
}
saved! { enum CertifiedFault {
    0 => Commit { reference, rule, payload }, 1 => Block { reference, error, payload },
} }

/// A rule that a certified commit breaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum CommitRule {
    /// Its timestamp is below that of the commit before.
    #[error("its timestamp is below {previous_ms} ms, that of the commit before")]
    Timestamp {
        /// Timestamp of the commit before, in milliseconds.
        previous_ms: u64,
    },
    /// It names no blocks.
    #[error("it names no blocks")]
    NoBlocks,
    /// Its leader is not among its blocks.
    #[error("its leader is not among its blocks")]
    Leader,
    /// It names a block twice.
    #[error("it names a block twice: {block}")]
    BlockTwice {
        /// The block.
        block: BlockRef,
    },
    /// It names a block of another epoch.
    #[error("it names a block of another epoch: {block}")]
    BlockEpoch {
        /// The block.
        block: BlockRef,
    },
    /// It names a block whose author is not in the committee.
    #[error("it names a block whose author is not in the committee: {block}")]
    BlockAuthor {
        /// The block.
        block: BlockRef,
    },
    /// It names a genesis block.
    #[error("it names a genesis block: {block}")]
    BlockRound {
        /// The block.
        block: BlockRef,
    },
}
saved! { enum CommitRule {
    0 => Timestamp { previous_ms }, 1 => NoBlocks, 2 => Leader, 3 => BlockTwice { block },
    4 => BlockEpoch { block }, 5 => BlockAuthor { block }, 6 => BlockRound { block },
} }
