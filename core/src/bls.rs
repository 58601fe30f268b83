//! BLS12-381 signatures on the next validator set, with public keys in G2 and signatures in G1; the only place that
//! knows which library does it.
//!
//! An aggregate does not say who made it. In the original, those are the author and every author of an ancestor that
//! carries a signature on the same set; but a block is checked alone here, often before its ancestors are there. So
//! what is verified is that *some* quorum of the author and the authors of its ancestors made it. All of them
//! together are tried first. If it is not all, every choice of absentees is tried that leaves a quorum, as long as
//! there are at most [`MAX_CHOICES`] of them: enough for any 20 authorities of equal stake. With more choices nothing
//! is proven either way, and the aggregate is let through: a wrong verdict would halt every node of a sound chain.
//!
//! Signers of one message can forge an aggregate by registering keys made from the keys of others. Proofs of
//! possession rule that out, and authorities show them when they register; the formats carry none.

use crate::{
    block::{EndOfEpochData, EndOfEpochError, SIGNING_MESSAGE_BYTES},
    committee::{Committee, InvalidNextCommittee, QUORUM_STAKE},
    types::AuthorityIndex,
};
use alloc::vec::Vec;
use blst::{
    BLST_ERROR, Pairing, blst_fp12, blst_p1_affine, blst_p2_affine,
    min_sig::{AggregatePublicKey, PublicKey, Signature},
};
use core::ops::Mul;

/// The suite: hashing to G1, no augmentation.
const SUITE: &[u8] = b"BLS_SIG_BLS12381G1_XMD:SHA-256_SSWU_RO_NUL_";

/// Most choices of absentees that are tried, at about two microseconds each.
const MAX_CHOICES: u32 = 100_000;

type Message = [u8; SIGNING_MESSAGE_BYTES];

/// Refuses the key of an authority that is no point of the group that keys are in, or the neutral one.
pub(crate) fn check_key(bytes: &[u8; 96], authority: AuthorityIndex) -> Result<(), InvalidNextCommittee> {
    match PublicKey::key_validate(bytes) {
        Ok(_) => Ok(()),
        Err(_) => Err(InvalidNextCommittee::AuthorityKey { authority }),
    }
}

/// The signatures in end-of-epoch data of a block by `author`. `others` are the authors of its ancestors, each once,
/// with or without `author`.
pub(crate) fn check(
    data: &EndOfEpochData,
    author: AuthorityIndex,
    others: impl Iterator<Item = AuthorityIndex>,
    committee: &Committee,
) -> Result<(), EndOfEpochError> {
    let (Some(set), Some(signature)) = (&data.next_validator_set, &data.validator_set_signature) else {
        return Ok(());
    };
    let signature = Signature::sig_validate(signature, true).map_err(|_| EndOfEpochError::SignaturePoint)?;
    let author_signer = Signer::of(author, committee).ok_or(EndOfEpochError::Signature)?;
    let message = set.signing_message();
    if !holds(&signature, &message, &author_signer.key) {
        return Err(EndOfEpochError::Signature);
    }
    let Some(aggregate) = &data.aggregate_signature else { return Ok(()) };
    let aggregate = Signature::sig_validate(aggregate, true).map_err(|_| EndOfEpochError::AggregatePoint)?;
    let others = others.filter(|other| *other != author).filter_map(|other| Signer::of(other, committee));
    if may_hold(&aggregate, &message, &author_signer, &others.collect::<Vec<_>>()) {
        Ok(())
    } else {
        Err(EndOfEpochError::Aggregate)
    }
}

/// Someone who may have signed.
struct Signer {
    key: PublicKey,
    stake: u64,
}

impl Signer {
    /// The keys of a committee are points of the group, so they need not be validated again.
    fn of(index: AuthorityIndex, committee: &Committee) -> Option<Self> {
        let authority = committee.authority(index)?;
        let key = PublicKey::uncompress(&authority.metadata.authority_key).ok()?;
        Some(Self { key, stake: authority.stake.get() })
    }
}

/// Whether a validated signature is that of `key` over the message.
fn holds(signature: &Signature, message: &Message, key: &PublicKey) -> bool {
    signature.verify(false, message, SUITE, &[], key, false) == BLST_ERROR::BLST_SUCCESS
}

/// Whether the author and some of the others, together a quorum, made the aggregate; also `true` where there are too
/// many choices to know.
fn may_hold(aggregate: &Signature, message: &Message, author: &Signer, others: &[Signer]) -> bool {
    let stakes = others.iter().map(|other| other.stake);
    let Some(slack) = stakes.fold(author.stake, u64::saturating_add).checked_sub(QUORUM_STAKE.get()) else {
        return false;
    };
    let mut all = AggregatePublicKey::from_public_key(&author.key);
    for other in others {
        all.add_aggregate(&AggregatePublicKey::from_public_key(&other.key));
    }
    if holds(aggregate, message, &all.to_public_key()) {
        return true;
    }
    let mut left = MAX_CHOICES;
    if !spend_choices(others, slack, &mut left) {
        return true;
    }
    let factors: Vec<_> = others.iter().map(|other| (factor(message, &other.key), other.stake)).collect();
    let whole = factor(message, &all.to_public_key());
    absentees_exist(&factors, slack, in_target_group(aggregate), &whole)
}

/// Takes one from `left` for each choice of absentees whose stake is at most `slack`; `false` if it does not suffice.
fn spend_choices(others: &[Signer], slack: u64, left: &mut u32) -> bool {
    let Some(rest) = left.checked_sub(1) else { return false };
    *left = rest;
    let mut others = others;
    while let Some((first, after)) = others.split_first() {
        if let Some(slack) = slack.checked_sub(first.stake)
            && !spend_choices(after, slack, left)
        {
            return false;
        }
        others = after;
    }
    true
}

/// Whether `product`, times the factors of some absentees whose stake is at most `slack`, is `whole`.
fn absentees_exist(factors: &[(blst_fp12, u64)], slack: u64, product: blst_fp12, whole: &blst_fp12) -> bool {
    if product == *whole {
        return true;
    }
    let mut factors = factors;
    while let Some(((factor, stake), after)) = factors.split_first() {
        if let Some(slack) = slack.checked_sub(*stake)
            && absentees_exist(after, slack, product.mul(*factor), whole)
        {
            return true;
        }
        factors = after;
    }
    false
}

/// What the signature of `key` on the message is worth in the target group, where aggregating is multiplying.
fn factor(message: &Message, key: &PublicKey) -> blst_fp12 {
    let mut pairing = Pairing::new(true, SUITE);
    let key: &blst_p2_affine = key.into();
    // Anything that is no signature stands for none.
    pairing.aggregate(key, false, &(), false, message, &[]);
    pairing.commit();
    pairing.as_fp12().final_exp()
}

/// What a signature is worth in the target group.
fn in_target_group(signature: &Signature) -> blst_fp12 {
    let mut value = blst_fp12::default();
    let point: &blst_p1_affine = signature.into();
    Pairing::aggregated(&mut value, point);
    value.final_exp()
}
