//! What can be wrong with a block.

use crate::{
    bcs::DecodeError,
    types::{AuthorityIndex, BlockRef, Epoch, Round, Stake},
};

/// Why a block is not valid, or not the one asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum BlockError {
    /// It does not decode.
    #[error("it does not decode: {0}")]
    Decode(DecodeError),
    /// Its digest is not the one asked for.
    #[error("it is {found}, which was not asked for")]
    OtherBlock {
        /// What it is.
        found: BlockRef,
    },
    /// It has the digest that the reference names, and another round, author or epoch: whoever made the reference is
    /// at fault.
    #[error("it is {found}, and a reference to the same digest says otherwise")]
    OtherReference {
        /// What it is.
        found: BlockRef,
    },
    /// It is not of the committee's epoch.
    #[error("it is of epoch {found}, not {expected}")]
    Epoch {
        /// The committee's.
        expected: Epoch,
        /// The block's.
        found: Epoch,
    },
    /// It is of round 0: genesis blocks are made from the committee, never sent.
    #[error("it is of round 0")]
    GenesisRound,
    /// Its author is not in the committee.
    #[error("its author {author} is not in the committee")]
    Author {
        /// The author.
        author: AuthorityIndex,
    },
    /// Its signature is not 64 bytes long.
    #[error("its signature has {length} bytes, not 64")]
    SignatureLength {
        /// Bytes that it has.
        length: usize,
    },
    /// Its author did not sign it.
    #[error("its author did not sign it")]
    Signature,
    /// It has more ancestors than the committee has authorities.
    #[error("it has {count} ancestors in a committee of {max}")]
    TooManyAncestors {
        /// Ancestors.
        count: usize,
        /// Authorities.
        max: usize,
    },
    /// The author of an ancestor is not in the committee.
    #[error("the author {author} of an ancestor is not in the committee")]
    AncestorAuthor {
        /// The ancestor's author.
        author: AuthorityIndex,
    },
    /// The first ancestor is not the author's own block, or another one is.
    #[error("the ancestor at position {position} must not be by {author}")]
    AncestorPosition {
        /// Where it stands.
        position: usize,
        /// Who proposed it.
        author: AuthorityIndex,
    },
    /// An ancestor's round is not below the block's.
    #[error("an ancestor of round {ancestor} is not below round {block}")]
    AncestorRound {
        /// The ancestor's round.
        ancestor: Round,
        /// The block's.
        block: Round,
    },
    /// An ancestor of round 0 is not the genesis block of its author.
    #[error("{ancestor} is not a genesis block of the epoch")]
    GenesisAncestor {
        /// The ancestor.
        ancestor: BlockRef,
    },
    /// An ancestor is of another epoch.
    #[error("an ancestor is of epoch {found}")]
    AncestorEpoch {
        /// The ancestor's epoch.
        found: Epoch,
    },
    /// Two ancestors are by one author.
    #[error("two ancestors are by {author}")]
    DuplicateAncestor {
        /// The author.
        author: AuthorityIndex,
    },
    /// The ancestors of the round just before are no quorum; a block without ancestors has none.
    #[error("the ancestors of the round before have stake {stake}, which is no quorum")]
    ParentStake {
        /// Their stake.
        stake: Stake,
    },
    /// A transaction was refused by the embedder's check.
    #[error("the transaction at position {position} is not acceptable")]
    Transaction {
        /// Where it stands.
        position: usize,
    },
    /// Its end-of-epoch data cannot be.
    #[error("its end-of-epoch data is invalid: {0}")]
    EndOfEpoch(EndOfEpochError),
}
saved! { enum BlockError {
    0 => Decode(it), 1 => OtherBlock { found }, 2 => OtherReference { found }, 3 => Epoch { expected, found },
    4 => GenesisRound, 5 => Author { author }, 6 => SignatureLength { length }, 7 => Signature,
    8 => TooManyAncestors { count, max }, 9 => AncestorAuthor { author },
    10 => AncestorPosition { position, author }, 11 => AncestorRound { ancestor, block },
    12 => GenesisAncestor { ancestor }, 13 => AncestorEpoch { found }, 14 => DuplicateAncestor { author },
    15 => ParentStake { stake }, 16 => Transaction { position }, 17 => EndOfEpoch(it),
} }

/// What is wrong with end-of-epoch data: fields that cannot stand beside one another; with the feature `bls` also BLS
/// signatures that do not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum EndOfEpochError {
    /// The author signed a validator set that is not there.
    #[error("an author's signature without a validator set")]
    SignatureWithoutSet,
    /// An aggregate signature covers a validator set that is not there.
    #[error("an aggregate signature without a validator set")]
    AggregateWithoutSet,
    /// There is an aggregate signature, and the author has not signed.
    #[error("an aggregate signature without the author's")]
    AggregateWithoutSignature,
    /// The author's signature is no point of the group, or the neutral one. Found only with the feature `bls`.
    #[error("the author's signature on the validator set is no point of the group")]
    SignaturePoint,
    /// The author did not sign the validator set. Found only with the feature `bls`.
    #[error("the author did not sign the validator set")]
    Signature,
    /// The aggregate signature is no point of the group, or the neutral one. Found only with the feature `bls`.
    #[error("the aggregate signature is no point of the group")]
    AggregatePoint,
    /// No quorum that the block could know of made the aggregate signature. Found only with the feature `bls`.
    #[error("no quorum among the authors of its ancestors signed the validator set together")]
    Aggregate,
}
saved! { enum EndOfEpochError {
    0 => SignatureWithoutSet, 1 => AggregateWithoutSet, 2 => AggregateWithoutSignature, 3 => SignaturePoint,
    4 => Signature, 5 => AggregatePoint, 6 => Aggregate,
} }

impl From<DecodeError> for BlockError {
    fn from(error: DecodeError) -> Self {
        Self::Decode(error)
    }
}
