//! The job that checks fetched blocks against the references that certified commits name.
//!
//! The digest decides whose fault a bad block is. Where it differs from the one asked for, the sender sent something
//! else. Where it is the one that a quorum voted for, what is wrong with the block is the committee's fault.

use crate::{
    block::{BlockError, BlockView},
    bug::{Bug, has},
    certify::CertifiedFault,
    config::BlockVerification,
    defence::{Defence, stands},
    digest,
    job::{BlockOutcome, CheckJob, CheckedBlock},
    payload::Payload,
    rules,
    signature::{self, Claim},
    types::{BlockDigest, BlockRef},
    verified::Verified,
};
use alloc::vec::Vec;

/// Runs the job: one outcome a block. Signatures are verified together.
pub(crate) fn run(
    mut job: CheckJob,
    entropy: [u8; 32],
    transactions: &dyn Fn(&[u8]) -> bool,
) -> Vec<BlockOutcome> {
    let payloads = core::mem::take(&mut job.blocks);
    let mut outcomes = Vec::with_capacity(payloads.len());
    let mut claims = Vec::with_capacity(payloads.len());
    let mut claimants = Vec::with_capacity(payloads.len());
    for (position, (expected, payload)) in job.refs.iter().zip(payloads).enumerate() {
        let (outcome, claim) = examine(&job, expected, payload, transactions);
        outcomes.push(outcome);
        if let Some(claim) = claim {
            claims.push(claim);
            claimants.push(if has(Bug::SignaturesByPosition) {
                claims.len().saturating_sub(1)
            } else {
                position
            });
        }
    }
    for (position, holds) in claimants.into_iter().zip(signature::verify_each(claims, entropy)) {
        if !holds && let Some(outcome) = outcomes.get_mut(position) {
            refute(outcome);
        }
    }
    outcomes
}

/// What to say of a block if its signature holds, and the signature, where it is to be verified.
fn examine(
    job: &CheckJob,
    expected: &BlockRef,
    payload: Payload,
    transactions: &dyn Fn(&[u8]) -> bool,
) -> (BlockOutcome, Option<Claim>) {
    let block = match BlockView::decode(payload.bytes(), &job.limits) {
        Ok(block) => block,
        Err(error) => return (undecodable(expected, payload, error.into()), None),
    };
    let (found, message) = block.reference_and_message();
    if found.digest != expected.digest && stands(Defence::BlockDigests) {
        return (BlockOutcome::Bad(BlockError::OtherBlock { found }), None);
    }
    let invalid = |error, payload| {
        BlockOutcome::CertifiedInvalid(CertifiedFault::Block { reference: *expected, error, payload })
    };
    if found != *expected {
        return (invalid(BlockError::OtherReference { found }, payload), None);
    }
    let (claim, body) = match job.mode {
        BlockVerification::Digest => (None, Ok(())),
        BlockVerification::Full => match rules::check_header(&block, &job.committee) {
            Ok(parts) => {
                let claim = Claim::new(parts.key, &message, parts.signature);
                let body = rules::check_body(&block, &job.committee, transactions);
                (Some(claim), body.and_then(|()| rules::check_bls(&block, &job.committee)))
            }
            Err(error) => (None, Err(error)),
        },
    };
    let content = block.into_content();
    let outcome = match body {
        Ok(()) => BlockOutcome::Good(Verified::new(CheckedBlock::new(found, content, payload, &job.limits))),
        Err(error) => invalid(error, payload),
    };
    (outcome, claim)
}

/// What to say of bytes that do not decode: their digest is hashed all the same, since it says whose fault that is.
fn undecodable(expected: &BlockRef, payload: Payload, error: BlockError) -> BlockOutcome {
    if BlockDigest::new(digest::hash(payload.bytes())) == expected.digest
        && !has(Bug::UndecodableIsTheSenders)
    {
        BlockOutcome::CertifiedInvalid(CertifiedFault::Block { reference: *expected, error, payload })
    } else {
        BlockOutcome::Bad(error)
    }
}

/// Turns what was said on the condition that a signature holds into what is to be said since it does not. A bad
/// signature comes before whatever else is wrong with the block.
fn refute(outcome: &mut BlockOutcome) {
    let (reference, payload) = match outcome {
        BlockOutcome::Good(block) => (block.reference, block.payload.clone()),
        BlockOutcome::CertifiedInvalid(CertifiedFault::Block { reference, payload, .. }) => {
            (*reference, payload.clone())
        }
        BlockOutcome::CertifiedInvalid(CertifiedFault::Commit { .. }) | BlockOutcome::Bad(_) => return,
    };
    let error = BlockError::Signature;
    *outcome = BlockOutcome::CertifiedInvalid(CertifiedFault::Block { reference, error, payload });
}
