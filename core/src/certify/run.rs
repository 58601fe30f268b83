//! The certifying job itself.

use super::{CertifiedFault, CertifierError, CertifyError, CommitRule};
use crate::{
    block::{BlockError, BlockView, EndOfEpochData},
    bug::{Bug, has},
    committee::{Committee, StakeTally},
    config::Limits,
    defence::{Defence, stands},
    job::{CertifiedRange, CertifyJob, CertifyVerdict, CheckedBlock, CommitHeader},
    payload::Payload,
    rules,
    signature::{self, Claim},
    types::{BlockRef, CommitIndex, CommitRef, Round},
    verified::Verified,
};
use alloc::{boxed::Box, vec::Vec};

/// Runs the job.
pub(crate) fn run(
    job: CertifyJob,
    entropy: [u8; 32],
    transactions: &dyn Fn(&[u8]) -> bool,
) -> CertifyVerdict {
    certify(job, entropy, transactions).unwrap_or_else(CertifyVerdict::Refused)
}

fn certify(
    job: CertifyJob,
    entropy: [u8; 32],
    transactions: &dyn Fn(&[u8]) -> bool,
) -> Result<CertifyVerdict, CertifyError> {
    check_counts(&job)?;
    let CertifyJob { start, committee, commits, certifiers, limits, .. } = job;
    let commits = decode(commits, &limits)?;
    let last = check_links(&commits, start)?;
    let epoch = last.epoch;
    if let Some(other) = commits.iter().find(|commit| commit.epoch != epoch) {
        return Err(CertifyError::EpochChange { first: other.epoch, found: epoch });
    }
    if epoch != committee.epoch() {
        return Ok(CertifyVerdict::OtherEpoch { found: epoch });
    }
    let mut ballot = Ballot::new(last.reference, &committee, &limits);
    for certifier in certifiers {
        ballot.examine(certifier, transactions);
    }
    let (certifiers, bad_certifiers) = ballot.count(entropy)?;
    Ok(match find_fault(&commits, &committee) {
        Some(fault) => CertifyVerdict::CertifiedInvalid(fault),
        None => {
            CertifyVerdict::Certified(Verified::new(CertifiedRange { commits, certifiers, bad_certifiers }))
        }
    })
}

/// How many commits and certifiers there may be. Their sizes are checked as each is decoded.
fn check_counts(job: &CertifyJob) -> Result<(), CertifyError> {
    let count = job.commits.len();
    if count == 0 {
        return Err(CertifyError::Empty);
    }
    let max = u64::from(job.last.get()).saturating_add(1).saturating_sub(u64::from(job.start.get()));
    if u64::try_from(count).is_ok_and(|count| count > max) && stands(Defence::CommitCount) {
        return Err(CertifyError::TooManyCommits { count, max });
    }
    let (count, max) = (job.certifiers.len(), job.committee.size().saturating_mul(2));
    if count > max && stands(Defence::CertifierCount) {
        return Err(CertifyError::TooManyCertifiers { count, max });
    }
    Ok(())
}

fn decode(commits: Vec<Payload>, limits: &Limits) -> Result<Vec<CommitHeader>, CertifyError> {
    let decoded = commits.into_iter().enumerate().map(|(position, payload)| {
        CommitHeader::decode(payload, limits).map_err(|error| CertifyError::Commit { position, error })
    });
    decoded.collect()
}

/// That the commits begin at `start` and each names the one before. The last one is returned.
fn check_links(commits: &[CommitHeader], start: CommitIndex) -> Result<&CommitHeader, CertifyError> {
    let (first, rest) = commits.split_first().ok_or(CertifyError::Empty)?;
    if first.reference.index != start && stands(Defence::FirstCommit) {
        return Err(CertifyError::Start { expected: start, found: first.reference.index });
    }
    rest.iter().try_fold(first, |before, commit| {
        if !stands(Defence::CommitOrder) {
            return Ok(commit);
        }
        let (previous, found) = (before.reference.index, commit.reference.index);
        if previous.next() != Some(found) {
            return Err(CertifyError::Sequence { previous, found });
        }
        if commit.previous != before.reference.digest {
            return Err(CertifyError::Link { index: found });
        }
        Ok(commit)
    })
}

/// A certifier that is right as far as can be seen without verifying its signature. The committee that it may name is
/// not built before that: it would be work that anyone could cause.
struct Candidate {
    reference: BlockRef,
    content: (Vec<CommitRef>, Option<Box<EndOfEpochData>>),
    payload: Payload,
}

/// The votes for one commit: those that look right, until their signatures are verified together.
struct Ballot<'a> {
    commit: CommitRef,
    committee: &'a Committee,
    limits: &'a Limits,
    /// Who has a block in `candidates`.
    voters: StakeTally,
    candidates: Vec<Candidate>,
    /// One a candidate.
    claims: Vec<Claim>,
    bad: u32,
    first_bad: Option<CertifierError>,
}

impl<'a> Ballot<'a> {
    const fn new(commit: CommitRef, committee: &'a Committee, limits: &'a Limits) -> Self {
        Self {
            commit,
            committee,
            limits,
            voters: StakeTally::new(),
            candidates: Vec::new(),
            claims: Vec::new(),
            bad: 0,
            first_bad: None,
        }
    }

    /// Everything about a certifier but its signature. A second one by the same author is not looked at any further:
    /// it could add no stake.
    fn examine(&mut self, certifier: Payload, transactions: &dyn Fn(&[u8]) -> bool) {
        let block = match BlockView::decode(certifier.bytes(), self.limits) {
            Ok(block) => block,
            Err(error) => return self.reject(CertifierError::Block(error.into())),
        };
        if self.voters.contains(block.author()) && stands(Defence::StakeOnce) {
            return;
        }
        match self.check(&block, transactions) {
            Ok((reference, claim)) => {
                self.voters.add(block.author(), self.committee);
                self.claims.push(claim);
                let content = block.into_content();
                self.candidates.push(Candidate { reference, content, payload: certifier });
            }
            Err(error) => self.reject(error),
        }
    }

    fn check(
        &self,
        block: &BlockView<'_>,
        transactions: &dyn Fn(&[u8]) -> bool,
    ) -> Result<(BlockRef, Claim), CertifierError> {
        let parts = rules::check_header(block, self.committee).map_err(CertifierError::Block)?;
        let exact = stands(Defence::ExactVotes);
        let is_for = |vote: CommitRef| vote == self.commit || !exact && vote.index == self.commit.index;
        let looked_at = if has(Bug::FirstVoteOnly) { 1 } else { usize::MAX };
        if !block.votes().take(looked_at).any(is_for) {
            return Err(CertifierError::NoVote);
        }
        rules::check_body(block, self.committee, transactions).map_err(CertifierError::Block)?;
        let (reference, message) = block.reference_and_message();
        Ok((reference, Claim::new(parts.key, &message, parts.signature)))
    }

    fn reject(&mut self, error: CertifierError) {
        self.bad = self.bad.saturating_add(1);
        self.first_bad.get_or_insert(error);
    }

    /// The certifiers whose signatures hold, by author, and how many were bad; if the good ones are a quorum.
    fn count(mut self, entropy: [u8; 32]) -> Result<(Vec<CheckedBlock>, u32), CertifyError> {
        let holds = signature::verify_each(core::mem::take(&mut self.claims), entropy);
        let mut tally = StakeTally::new();
        let mut good = Vec::with_capacity(self.candidates.len());
        for (candidate, holds) in core::mem::take(&mut self.candidates).into_iter().zip(holds) {
            if holds {
                let Candidate { reference, content, payload } = candidate;
                tally.add(reference.author, self.committee);
                good.push(CheckedBlock::new(reference, content, payload, self.limits));
            } else {
                self.reject(CertifierError::Block(BlockError::Signature));
            }
        }
        let spoilt = self.bad > 0 && !stands(Defence::QuorumAmongBad);
        if spoilt || !tally.reached_quorum() && stands(Defence::Quorum) {
            return Err(CertifyError::NoQuorum { stake: tally.stake(), first_bad: self.first_bad });
        }
        good.sort_unstable_by_key(|block| block.reference.author);
        Ok((good, self.bad))
    }
}

/// The first rule that commits break under their quorum.
fn find_fault(commits: &[CommitHeader], committee: &Committee) -> Option<CertifiedFault> {
    let mut previous_ms = 0;
    let mut scratch = Vec::new();
    for commit in commits {
        if let Some(rule) = broken_rule(commit, previous_ms, committee, &mut scratch) {
            let payload = commit.payload.clone();
            return Some(CertifiedFault::Commit { reference: commit.reference, rule, payload });
        }
        previous_ms = commit.timestamp_ms;
    }
    None
}

/// The first rule that a commit breaks. `scratch` is reused from commit to commit.
pub(super) fn broken_rule(
    commit: &CommitHeader,
    previous_ms: u64,
    committee: &Committee,
    scratch: &mut Vec<BlockRef>,
) -> Option<CommitRule> {
    if commit.timestamp_ms < previous_ms.saturating_add(u64::from(has(Bug::EqualTimesRefused)))
        && stands(Defence::RisingTime)
    {
        return Some(CommitRule::Timestamp { previous_ms });
    }
    if commit.blocks.is_empty() {
        return Some(CommitRule::NoBlocks);
    }
    if !commit.blocks.contains(&commit.leader) {
        return Some(CommitRule::Leader);
    }
    for &block in commit.blocks.iter() {
        if block.epoch != commit.epoch {
            return Some(CommitRule::BlockEpoch { block });
        }
        if committee.authority(block.author).is_none() {
            return Some(CommitRule::BlockAuthor { block });
        }
        if block.round == Round::ZERO {
            return Some(CommitRule::BlockRound { block });
        }
    }
    scratch.clear();
    scratch.extend_from_slice(&commit.blocks);
    scratch.sort_unstable();
    let mut previous = None;
    scratch
        .iter()
        .copied()
        .find(|block| previous.replace(*block) == Some(*block))
        .map(|block| CommitRule::BlockTwice { block })
}
