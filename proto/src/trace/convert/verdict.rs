//! Verdicts. Their payloads are kept without bytes, which came in before.

use super::{
    Converted, Malformed, block_refs, column, fault::Fault, payloads, pb, read_payloads, rows, start,
};
use pb::{bad_block, epoch_end, verified};
use soma_sync_core::{
    job::{
        BlockOutcome, CertifiedRange, CertifyVerdict, CheckedBlock, CommitHeader, EpochEnd, ObserveVerdict,
        Verdict,
    },
    types::{BlockRef, CommitDigest, CommitRef, Epoch},
    verified::Verified,
};

pub(super) fn write(verdict: &Verdict) -> verified::Verdict {
    match verdict {
        Verdict::Certify(CertifyVerdict::Certified(range)) => {
            let CertifiedRange { commits, certifiers, bad_certifiers } = &**range;
            verified::Verdict::Certified(pb::Certified {
                commits: Some(write_commits(commits.iter())),
                certifiers: Some(write_blocks(certifiers.iter())),
                bad_certifiers: *bad_certifiers,
            })
        }
        Verdict::Certify(CertifyVerdict::OtherEpoch { found }) => verified::Verdict::OtherEpoch(found.get()),
        Verdict::Certify(CertifyVerdict::Refused(error)) => verified::Verdict::CertifyRefused(error.write()),
        Verdict::Certify(CertifyVerdict::CertifiedInvalid(fault)) => {
            verified::Verdict::CertifiedInvalid(fault.write())
        }
        Verdict::Check(outcomes) => verified::Verdict::Checked(write_outcomes(outcomes)),
        Verdict::Observe(ObserveVerdict::Observed { commit, blocks }) => {
            verified::Verdict::Observed(pb::ObservedCommit {
                commit: Some(write_commits(std::iter::once(&**commit))),
                blocks: Some(write_blocks(blocks.iter().map(|block| &**block))),
            })
        }
        Verdict::Observe(ObserveVerdict::Refused(error)) => verified::Verdict::ObserveRefused(error.write()),
        Verdict::Votes(blocks) => verified::Verdict::Votes(write_blocks(blocks.iter().map(|block| &**block))),
        Verdict::WorkerFailed => verified::Verdict::WorkerFailed(true),
    }
}

pub(super) fn read(verdict: Option<verified::Verdict>) -> Converted<Verdict> {
    Ok(match verdict.ok_or(Malformed("a verdict of an unknown kind"))? {
        verified::Verdict::Certified(pb::Certified { commits, certifiers, bad_certifiers }) => {
            Verdict::Certify(CertifyVerdict::Certified(Verified::from_trace(CertifiedRange {
                commits: read_commits(commits)?,
                certifiers: read_blocks(certifiers)?,
                bad_certifiers,
            })))
        }
        verified::Verdict::OtherEpoch(found) => {
            Verdict::Certify(CertifyVerdict::OtherEpoch { found: Epoch::new(found) })
        }
        verified::Verdict::CertifyRefused(error) => {
            Verdict::Certify(CertifyVerdict::Refused(Fault::read(&error)?))
        }
        verified::Verdict::CertifiedInvalid(fault) => {
            Verdict::Certify(CertifyVerdict::CertifiedInvalid(Fault::read(&fault)?))
        }
        verified::Verdict::Checked(outcomes) => Verdict::Check(read_outcomes(outcomes)?),
        verified::Verdict::Observed(pb::ObservedCommit { commit, blocks }) => {
            let commit = read_commits(commit)?;
            let [commit] = <[_; 1]>::try_from(commit).map_err(|_| Malformed("not one commit observed"))?;
            let blocks = read_blocks(blocks)?.into_iter().map(Verified::from_trace).collect();
            Verdict::Observe(ObserveVerdict::Observed { commit: Verified::from_trace(commit), blocks })
        }
        verified::Verdict::ObserveRefused(error) => {
            Verdict::Observe(ObserveVerdict::Refused(Fault::read(&error)?))
        }
        verified::Verdict::Votes(blocks) => {
            Verdict::Votes(read_blocks(Some(blocks))?.into_iter().map(Verified::from_trace).collect())
        }
        verified::Verdict::WorkerFailed(_) => Verdict::WorkerFailed,
    })
}

/// How many, as a column has it. What a job holds does not come near the end of 32 bits.
fn count(items: usize) -> u32 {
    u32::try_from(items).unwrap_or(u32::MAX)
}

fn write_commits<'a>(commits: impl Iterator<Item = &'a CommitHeader> + Clone) -> pb::Commits {
    let mut columns = pb::Commits {
        payloads: Some(payloads(commits.clone().map(|commit| &commit.payload), false)),
        leaders: block_refs(commits.clone().map(|commit| &commit.leader)),
        blocks: block_refs(commits.clone().flat_map(|commit| commit.blocks.iter())),
        ..pb::Commits::default()
    };
    let (mut references, mut previous_digests) = (Vec::new(), Vec::new());
    for commit in commits {
        let CommitHeader { reference, previous, timestamp_ms, epoch, leader: _, blocks, payload: _ } = commit;
        references.extend(reference.to_bytes());
        previous_digests.extend(previous.as_bytes());
        columns.timestamps_ms.push(*timestamp_ms);
        columns.epochs.push(epoch.get());
        columns.block_counts.push(count(blocks.len()));
    }
    columns.references = references.into();
    columns.previous = previous_digests.into();
    columns
}

fn read_commits(columns: Option<pb::Commits>) -> Converted<Vec<CommitHeader>> {
    let columns = columns.unwrap_or_default();
    let references = rows(&columns.references)?;
    let previous = rows(&columns.previous)?;
    let leaders = rows(&columns.leaders)?;
    let mut blocks = rows(&columns.blocks)?;
    let payloads = read_payloads(columns.payloads)?;
    let lengths = [
        previous.len(),
        leaders.len(),
        payloads.len(),
        columns.timestamps_ms.len(),
        columns.epochs.len(),
        columns.block_counts.len(),
    ];
    lengths.into_iter().try_for_each(|length| column(length, references.len()))?;
    let mut commits = Vec::with_capacity(references.len());
    for (position, payload) in payloads.into_iter().enumerate() {
        let named = usize::try_from(columns.block_counts[position]).unwrap_or(usize::MAX);
        let (own, rest) = blocks.split_at_checked(named).ok_or(Malformed("too few blocks of commits"))?;
        blocks = rest;
        commits.push(CommitHeader {
            reference: CommitRef::from_bytes(&references[position]),
            previous: CommitDigest::new(previous[position]),
            timestamp_ms: columns.timestamps_ms[position],
            epoch: Epoch::new(columns.epochs[position]),
            leader: BlockRef::from_bytes(&leaders[position]),
            blocks: own.iter().map(BlockRef::from_bytes).collect(),
            payload,
        });
    }
    column(blocks.len(), 0)?;
    Ok(commits)
}

fn write_blocks<'a>(blocks: impl Iterator<Item = &'a CheckedBlock> + Clone) -> pb::Blocks {
    let mut columns = pb::Blocks {
        references: block_refs(blocks.clone().map(|block| &block.reference)),
        payloads: Some(payloads(blocks.clone().map(|block| &block.payload), false)),
        ..pb::Blocks::default()
    };
    let mut votes_of_all = Vec::new();
    for (position, block) in blocks.enumerate() {
        let CheckedBlock { reference: _, votes, epoch_end, payload: _ } = block;
        columns.vote_counts.push(count(votes.len()));
        votes_of_all.extend(votes.iter().flat_map(CommitRef::to_bytes));
        columns.ends.extend(epoch_end.as_ref().map(|end| write_end(count(position), end)));
    }
    if votes_of_all.is_empty() {
        columns.vote_counts.clear();
    }
    columns.votes = votes_of_all.into();
    columns
}

fn read_blocks(columns: Option<pb::Blocks>) -> Converted<Vec<CheckedBlock>> {
    let columns = columns.unwrap_or_default();
    let references = rows(&columns.references)?;
    let mut votes = rows(&columns.votes)?;
    let payloads = read_payloads(columns.payloads)?;
    column(payloads.len(), references.len())?;
    if !columns.vote_counts.is_empty() {
        column(columns.vote_counts.len(), references.len())?;
    }
    let mut ends = columns.ends.iter().peekable();
    let mut blocks = Vec::with_capacity(references.len());
    for (position, (reference, payload)) in references.iter().zip(payloads).enumerate() {
        let voted = columns.vote_counts.get(position).copied().unwrap_or(0);
        let voted = usize::try_from(voted).unwrap_or(usize::MAX);
        let (own, rest) = votes.split_at_checked(voted).ok_or(Malformed("too few votes"))?;
        votes = rest;
        let end = ends.next_if(|end| end.position == count(position));
        blocks.push(CheckedBlock {
            reference: BlockRef::from_bytes(reference),
            votes: own.iter().map(CommitRef::from_bytes).collect(),
            epoch_end: end.map(read_end).transpose()?,
            payload,
        });
    }
    column(votes.len(), 0)?;
    column(ends.len(), 0)?;
    Ok(blocks)
}

fn write_end(position: u32, end: &EpochEnd) -> pb::EpochEnd {
    let end = match end {
        EpochEnd::Next(committee) => epoch_end::End::Next(start::write_committee(committee)),
        EpochEnd::Invalid(reason) => epoch_end::End::Invalid(reason.write()),
    };
    pb::EpochEnd { position, end: Some(end) }
}

fn read_end(end: &pb::EpochEnd) -> Converted<EpochEnd> {
    match end.end.as_ref().ok_or(Malformed("an epoch that ends in an unknown way"))? {
        epoch_end::End::Next(committee) => start::read_committee(committee).map(EpochEnd::Next),
        epoch_end::End::Invalid(reason) => Fault::read(reason).map(EpochEnd::Invalid),
    }
}

fn write_outcomes(outcomes: &[BlockOutcome]) -> pb::Checked {
    let good = outcomes.iter().filter_map(|outcome| match outcome {
        BlockOutcome::Good(block) => Some(&**block),
        BlockOutcome::Bad(_) | BlockOutcome::CertifiedInvalid(_) => None,
    });
    let bad = outcomes.iter().enumerate().filter_map(|(position, outcome)| {
        let fault = match outcome {
            BlockOutcome::Good(_) => return None,
            BlockOutcome::Bad(error) => bad_block::Fault::Bad(error.write()),
            BlockOutcome::CertifiedInvalid(fault) => bad_block::Fault::CertifiedInvalid(fault.write()),
        };
        Some(pb::BadBlock { position: count(position), fault: Some(fault) })
    });
    pb::Checked { good: Some(write_blocks(good)), bad: bad.collect() }
}

fn read_outcomes(outcomes: pb::Checked) -> Converted<Vec<BlockOutcome>> {
    let mut good = read_blocks(outcomes.good)?.into_iter().map(Verified::from_trace);
    let mut bad = outcomes.bad.into_iter().peekable();
    let total = good.len().saturating_add(bad.len());
    let mut read = Vec::with_capacity(total);
    for position in 0..total {
        let outcome = match bad.next_if(|bad| bad.position == count(position)) {
            Some(bad) => match bad.fault.ok_or(Malformed("a block that is bad in an unknown way"))? {
                bad_block::Fault::Bad(error) => BlockOutcome::Bad(Fault::read(&error)?),
                bad_block::Fault::CertifiedInvalid(fault) => {
                    BlockOutcome::CertifiedInvalid(Fault::read(&fault)?)
                }
            },
            None => BlockOutcome::Good(good.next().ok_or(Malformed("bad blocks out of order"))?),
        };
        read.push(outcome);
    }
    Ok(read)
}
