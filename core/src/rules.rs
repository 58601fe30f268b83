//! What a block must satisfy beyond decoding (formats: What a block must satisfy), and how blocks fail it.

use crate::{
    bcs::DecodeError,
    block::{BlockView, EndOfEpochData},
    committee::{Committee, StakeTally},
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

/// Which combination of end-of-epoch fields cannot be.
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
}

impl From<DecodeError> for BlockError {
    fn from(error: DecodeError) -> Self {
        Self::Decode(error)
    }
}

/// Epoch, round and author, and the signature's length; what is left to verify is returned.
pub(crate) fn check_header<'a>(
    block: &BlockView<'a>,
    committee: &'a Committee,
) -> Result<SignatureParts<'a>, BlockError> {
    if block.epoch() != committee.epoch() {
        return Err(BlockError::Epoch { expected: committee.epoch(), found: block.epoch() });
    }
    if block.round() == Round::ZERO {
        return Err(BlockError::GenesisRound);
    }
    let author = block.author();
    let authority = committee.authority(author).ok_or(BlockError::Author { author })?;
    let signature = block.signature();
    let length = signature.len();
    let signature = signature.try_into().map_err(|_| BlockError::SignatureLength { length })?;
    Ok(SignatureParts { key: &authority.metadata.protocol_key, signature })
}

/// The key that must have made a signature, and the signature.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SignatureParts<'a> {
    pub(crate) key: &'a [u8; 32],
    pub(crate) signature: &'a [u8; 64],
}

/// Ancestors, transactions and end-of-epoch fields of a block whose header is right.
pub(crate) fn check_body(
    block: &BlockView<'_>,
    committee: &Committee,
    transactions: &dyn Fn(&[u8]) -> bool,
) -> Result<(), BlockError> {
    check_ancestors(block, committee)?;
    if let Some(position) = block.transactions().position(|transaction| !transactions(transaction)) {
        return Err(BlockError::Transaction { position });
    }
    block.end_of_epoch().map_or(Ok(()), check_end_of_epoch).map_err(BlockError::EndOfEpoch)
}

fn check_ancestors(block: &BlockView<'_>, committee: &Committee) -> Result<(), BlockError> {
    let ancestors = block.ancestors();
    let (count, max) = (ancestors.len(), committee.size());
    if count > max {
        return Err(BlockError::TooManyAncestors { count, max });
    }
    let mut seen = StakeTally::new();
    let mut parents = Stake::ZERO;
    for (position, ancestor) in ancestors.enumerate() {
        let author = ancestor.author;
        let stake = committee.stake(author).ok_or(BlockError::AncestorAuthor { author })?;
        if (position == 0) != (author == block.author()) {
            return Err(BlockError::AncestorPosition { position, author });
        }
        if ancestor.round >= block.round() {
            return Err(BlockError::AncestorRound { ancestor: ancestor.round, block: block.round() });
        }
        if ancestor.round == Round::ZERO && committee.genesis(author) != Some(ancestor) {
            return Err(BlockError::GenesisAncestor { ancestor });
        }
        if ancestor.epoch != block.epoch() {
            return Err(BlockError::AncestorEpoch { found: ancestor.epoch });
        }
        if !seen.add(author, committee) {
            return Err(BlockError::DuplicateAncestor { author });
        }
        if ancestor.round.next() == Some(block.round()) {
            parents = parents.saturating_add(stake.get());
        }
    }
    if parents < committee.quorum() {
        return Err(BlockError::ParentStake { stake: parents });
    }
    Ok(())
}

/// Which fields may stand beside which. BLS signatures are not checked.
const fn check_end_of_epoch(data: &EndOfEpochData) -> Result<(), EndOfEpochError> {
    let set = data.next_validator_set.is_some();
    let signature = data.validator_set_signature.is_some();
    let aggregate = data.aggregate_signature.is_some();
    match (set, signature, aggregate) {
        (false, true, _) => Err(EndOfEpochError::SignatureWithoutSet),
        (false, false, true) => Err(EndOfEpochError::AggregateWithoutSet),
        (true, false, true) => Err(EndOfEpochError::AggregateWithoutSignature),
        (_, false, false) | (true, true, _) => Ok(()),
    }
}
