//! Ranges of commits too long to be held in memory: read once to be certified, and a second time to be used.

use super::{CertifiedFault, CertifyError, run};
use crate::{
    bcs::DecodeError,
    committee::Committee,
    config::Limits,
    job::{CertifyJob, CertifyVerdict, CheckedBlock, CommitHeader},
    payload::Payload,
    types::{CommitDigest, CommitIndex, CommitRef},
    verified::Verified,
};
use alloc::{boxed::Box, sync::Arc, vec, vec::Vec};

/// Consecutive commits of one epoch, of which only the digests are kept: 32 bytes a commit, however many blocks they
/// name.
///
/// On the first reading each commit is [pushed](Self::push), and [`certify`](Self::certify) is given the votes for the
/// last of them. On the second, [`CertifiedDigests::commit`] takes each again and says whether it is the one that was
/// certified.
#[derive(Clone, Debug)]
pub struct CommitDigests {
    after: CommitRef,
    digests: Vec<CommitDigest>,
    last: Option<Payload>,
    committee: Arc<Committee>,
    limits: Limits,
}

/// Consecutive commits for the last of which a quorum of their epoch's committee voted.
#[derive(Clone, Debug)]
pub struct CertifiedDigests {
    start: CommitIndex,
    digests: Vec<CommitDigest>,
    committee: Arc<Committee>,
    limits: Limits,
}

/// Why a commit of the second reading is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertifiedDigestsError {
    /// It does not decode.
    #[error("it does not decode: {0}")]
    Decode(DecodeError),
    /// It is not the commit that was certified at its index.
    #[error("it is {found}, which was not certified")]
    NotCertified {
        /// What it is.
        found: CommitRef,
    },
    /// It is, and it breaks a rule: the committee's fault.
    #[error(transparent)]
    Fault(Box<CertifiedFault>),
}

/// Why the last commit of a range is not certified.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotCertified {
    /// The votes for it are no quorum.
    #[error(transparent)]
    Refused(CertifyError),
    /// They are, and the commit breaks a rule: the committee's fault.
    #[error(transparent)]
    Fault(Box<CertifiedFault>),
}

impl CommitDigests {
    /// No commits yet, to follow `after`, of the epoch of `committee`.
    pub const fn new(after: CommitRef, committee: Arc<Committee>, limits: Limits) -> Self {
        Self { after, digests: Vec::new(), last: None, committee, limits }
    }

    /// The last commit pushed, or the one before the first.
    pub fn tip(&self) -> CommitRef {
        let count = u32::try_from(self.digests.len()).unwrap_or(u32::MAX);
        let index = self.after.index.saturating_add(count);
        self.digests.last().map_or(self.after, |digest| CommitRef { index, digest: *digest })
    }

    /// Takes the next commit.
    ///
    /// # Errors
    ///
    /// When it does not decode, does not follow the tip, or is of another epoch; nothing is taken then.
    pub fn push(&mut self, commit: Payload) -> Result<CommitRef, CertifyError> {
        let position = self.digests.len();
        let header = CommitHeader::decode(commit, &self.limits)
            .map_err(|error| CertifyError::Commit { position, error })?;
        let (tip, found) = (self.tip(), header.reference.index);
        if tip.index.next() != Some(found) {
            return Err(CertifyError::Sequence { previous: tip.index, found });
        }
        if header.previous != tip.digest {
            return Err(CertifyError::Link { index: found });
        }
        if header.epoch != self.committee.epoch() {
            return Err(CertifyError::EpochChange { first: self.committee.epoch(), found: header.epoch });
        }
        self.digests.push(header.reference.digest);
        self.last = Some(header.payload);
        Ok(header.reference)
    }

    /// Certifies all commits pushed by votes for the last of them; also given are the good certifiers, by author, and
    /// how many were bad. `entropy` is as for [`Job::run`](crate::job::Job::run).
    ///
    /// # Errors
    ///
    /// When the votes are no quorum, or the last commit breaks a rule.
    pub fn certify(
        self,
        certifiers: Vec<Payload>,
        entropy: [u8; 32],
    ) -> Result<(CertifiedDigests, Vec<Verified<CheckedBlock>>, u32), NotCertified> {
        let tip = self.tip().index;
        let job = CertifyJob {
            start: tip,
            last: tip,
            committee: Arc::clone(&self.committee),
            commits: self.last.map_or_else(Vec::new, |last| vec![last]),
            certifiers,
            limits: self.limits,
        };
        let range = match run::run(job, entropy, &|_| true) {
            CertifyVerdict::Certified(range) => range,
            CertifyVerdict::CertifiedInvalid(fault) => return Err(NotCertified::Fault(Box::new(fault))),
            CertifyVerdict::Refused(error) => return Err(NotCertified::Refused(error)),
            CertifyVerdict::OtherEpoch { found } => {
                let first = self.committee.epoch();
                return Err(NotCertified::Refused(CertifyError::EpochChange { first, found }));
            }
        };
        let bad_certifiers = range.bad_certifiers;
        let (_, certifiers) = range.into_parts();
        let start = self.after.index.saturating_add(1);
        let certified =
            CertifiedDigests { start, digests: self.digests, committee: self.committee, limits: self.limits };
        Ok((certified, certifiers, bad_certifiers))
    }
}

impl CertifiedDigests {
    /// Number of commits, at least 1.
    pub const fn count(&self) -> usize {
        self.digests.len()
    }
    /// The committee that certified them.
    pub const fn committee(&self) -> &Arc<Committee> {
        &self.committee
    }

    /// Takes one of the commits again. Its timestamp must not be below `previous_ms`, that of the commit before.
    ///
    /// # Errors
    ///
    /// When it is not the one that was certified, or breaks a rule.
    pub fn commit(
        &self,
        commit: Payload,
        previous_ms: u64,
    ) -> Result<Verified<CommitHeader>, CertifiedDigestsError> {
        let header = CommitHeader::decode(commit, &self.limits).map_err(CertifiedDigestsError::Decode)?;
        let found = header.reference;
        let position =
            found.index.get().checked_sub(self.start.get()).and_then(|at| usize::try_from(at).ok());
        if position.and_then(|at| self.digests.get(at)) != Some(&found.digest) {
            return Err(CertifiedDigestsError::NotCertified { found });
        }
        match run::broken_rule(&header, previous_ms, &self.committee, &mut Vec::new()) {
            None => Ok(Verified::new(header)),
            Some(rule) => {
                let fault = CertifiedFault::Commit { reference: found, rule, payload: header.payload };
                Err(CertifiedDigestsError::Fault(Box::new(fault)))
            }
        }
    }
}
