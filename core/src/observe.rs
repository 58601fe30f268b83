//! The jobs for what our own consensus made. It is trusted, so no signature is verified: it is decoded, hashed, and
//! matched to what refers to it.

use crate::{
    block::BlockError,
    config::Limits,
    job::{CheckedBlock, CommitHeader, ObserveError, ObserveJob, ObserveVerdict, VotesJob},
    payload::Payload,
    types::BlockRef,
    verified::Verified,
};
use alloc::vec::Vec;

/// Takes in a commit with its blocks.
pub(crate) fn run(job: ObserveJob) -> ObserveVerdict {
    observe(job).unwrap_or_else(ObserveVerdict::Refused)
}

fn observe(job: ObserveJob) -> Result<ObserveVerdict, ObserveError> {
    let ObserveJob { commit, blocks, limits } = job;
    let commit = CommitHeader::decode(commit, &limits).map_err(ObserveError::Commit)?;
    let (named, given) = (commit.blocks.len(), blocks.len());
    if named != given {
        return Err(ObserveError::Count { named, given });
    }
    let pairs = commit.blocks.iter().zip(blocks).enumerate();
    let blocks = pairs.map(|(position, (expected, payload))| {
        match_block(expected, payload, &limits).map_err(|error| ObserveError::Block { position, error })
    });
    let blocks = blocks.collect::<Result<Vec<_>, _>>()?;
    Ok(ObserveVerdict::Observed { commit: Verified::new(commit), blocks })
}

fn match_block(
    expected: &BlockRef,
    payload: Payload,
    limits: &Limits,
) -> Result<Verified<CheckedBlock>, BlockError> {
    let block = CheckedBlock::decode(payload, limits)?;
    if block.reference != *expected {
        return Err(BlockError::OtherBlock { found: block.reference });
    }
    Ok(Verified::new(block))
}

/// Takes in blocks for the votes in them. Those that do not decode are left out.
pub(crate) fn run_votes(job: VotesJob) -> Vec<Verified<CheckedBlock>> {
    let VotesJob { blocks, limits } = job;
    blocks
        .into_iter()
        .filter_map(|payload| CheckedBlock::decode(payload, &limits).ok())
        .map(Verified::new)
        .collect()
}
