//! What a block must satisfy beyond decoding (formats: What a block must satisfy).

use crate::{
    block::{BlockError, BlockView, EndOfEpochData, EndOfEpochError},
    bug::{Bug, has},
    committee::{Committee, StakeTally},
    defence::{Defence, stands},
    signature::Claim,
    types::{BlockRef, Round, Stake},
};

impl BlockView<'_> {
    /// Verifies the block alone: epoch, round, author, signature, ancestors, transactions by the embedder's check, and
    /// which end-of-epoch fields stand beside which. BLS signatures are not checked; see `BlockView::verify_bls`.
    /// Where more than one thing is wrong, the first in this order is told.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn verify(
        &self,
        committee: &Committee,
        transactions: &dyn Fn(&[u8]) -> bool,
    ) -> Result<BlockRef, BlockError> {
        let parts = check_header(self, committee)?;
        let (reference, message) = self.reference_and_message();
        if !Claim::new(parts.key, &message, parts.signature).holds() {
            return Err(BlockError::Signature);
        }
        check_body(self, committee, transactions)?;
        Ok(reference)
    }

    /// Verifies the BLS signatures on the next validator set, which [`BlockView::verify`] leaves out: that of the author,
    /// where there is one, and the aggregate.
    ///
    /// An aggregate does not say who made it. It is refused where no quorum of the author and the authors of its
    /// ancestors can have; which ancestors carry a signature is not looked at. Where there are too many such quorums to
    /// try, about from 21 authorities on, it is let through.
    ///
    /// # Errors
    ///
    /// Which signature does not hold, or is no point.
    #[cfg(feature = "bls")]
    pub fn verify_bls(&self, committee: &Committee) -> Result<(), EndOfEpochError> {
        let others = self.ancestors().map(|ancestor| ancestor.author);
        self.end_of_epoch().map_or(Ok(()), |data| crate::bls::check(data, self.author(), others, committee))
    }
}

/// The BLS signatures of a block whose header and body are right, where the build can check them.
///
/// Only blocks that certified commits name are held against this, so what fails is the committee's fault. Certifiers
/// are not: a vote is worth what its author's ed25519 signature is, and a peer without the check serves them in good
/// faith.
#[cfg(feature = "bls")]
pub(crate) fn check_bls(block: &BlockView<'_>, committee: &Committee) -> Result<(), BlockError> {
    block.verify_bls(committee).map_err(BlockError::EndOfEpoch)
}

#[cfg(not(feature = "bls"))]
pub(crate) const fn check_bls(_block: &BlockView<'_>, _committee: &Committee) -> Result<(), BlockError> {
    Ok(())
}

/// Epoch, round and author, and the signature's length; what is left to verify is returned.
pub(crate) fn check_header<'a>(
    block: &BlockView<'a>,
    committee: &'a Committee,
) -> Result<SignatureParts<'a>, BlockError> {
    if block.epoch() != committee.epoch() && stands(Defence::BlockEpoch) {
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
        if ancestor.round.next() == Some(block.round()) || has(Bug::ParentsOfAnyRound) {
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
