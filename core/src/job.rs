//! The work that the machine hands out because it costs time: certifying commits, checking blocks, taking in what our
//! own consensus made. A job carries all that it needs; [`Job::run`] is pure, and whoever embeds the machine chooses
//! the thread. What comes back is a [`Verdict`].

use crate::{
    block::{BlockError, BlockView, DecodeError, EndOfEpochData, InvalidNextCommittee},
    certify::{CertifiedFault, CertifyError},
    committee::Committee,
    config::{BlockVerification, Limits},
    payload::Payload,
    types::{BlockRef, CommitIndex, CommitRef, Epoch},
    verified::Verified,
};
use alloc::{boxed::Box, sync::Arc, vec::Vec};

/// A verification job. Boxed, because commands and events that carry none should stay small.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Job {
    /// Are these commits a chain that a quorum voted for?
    Certify(Box<CertifyJob>),
    /// Are these the blocks that certified commits name?
    Check(Box<CheckJob>),
    /// What does the commit say that our own consensus made?
    Observe(Box<ObserveJob>),
    /// Which votes are in these blocks, that our own consensus accepted?
    Votes(Box<VotesJob>),
}
saved! { enum Job { 0 => Certify(it), 1 => Check(it), 2 => Observe(it), 3 => Votes(it) } }

/// A whole answer to `FetchCommits`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CertifyJob {
    /// The first index that was asked for; the answer must begin there.
    pub start: CommitIndex,
    /// The highest index that the answer may reach.
    pub last: CommitIndex,
    /// The committee of the epoch that we expect.
    pub committee: Arc<Committee>,
    /// The commits, as they came.
    pub commits: Vec<Payload>,
    /// The certifiers, as they came.
    pub certifiers: Vec<Payload>,
    /// Bounds that decoding applies before it allocates.
    pub limits: Limits,
}
saved! { struct CertifyJob { start, last, committee, commits, certifiers, limits } }

/// Some blocks of an answer to `FetchBlocks`, each beside the reference that it must match.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CheckJob {
    /// What was asked for, from certified commits of one epoch; as many as `blocks`.
    pub refs: Vec<BlockRef>,
    /// What came.
    pub blocks: Vec<Payload>,
    /// The committee of the commits' epoch.
    pub committee: Arc<Committee>,
    /// How much is checked beyond the digest.
    pub mode: BlockVerification,
    /// Bounds that decoding applies before it allocates.
    pub limits: Limits,
}
saved! { struct CheckJob { refs, blocks, committee, mode, limits } }

/// A commit with its blocks from our own consensus. Decoded and matched to one another; no signatures are checked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ObserveJob {
    /// The commit.
    pub commit: Payload,
    /// Its blocks, in commit order.
    pub blocks: Vec<Payload>,
    /// Bounds that decoding applies before it allocates.
    pub limits: Limits,
}
saved! { struct ObserveJob { commit, blocks, limits } }

/// Blocks that our own consensus has accepted, committed or not.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VotesJob {
    /// The signed blocks.
    pub blocks: Vec<Payload>,
    /// Bounds that decoding applies before it allocates.
    pub limits: Limits,
}
saved! { struct VotesJob { blocks, limits } }

/// What a job found out.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// Of a [`Job::Certify`].
    Certify(CertifyVerdict),
    /// Of a [`Job::Check`]: one outcome per block, in the job's order.
    Check(Vec<BlockOutcome>),
    /// Of a [`Job::Observe`].
    Observe(ObserveVerdict),
    /// Of a [`Job::Votes`]: the blocks that decode.
    Votes(Vec<Verified<CheckedBlock>>),
    /// The worker died, whatever the job was. A local fault: nobody is blamed, and the work is done again.
    WorkerFailed,
}

/// What became of an answer to `FetchCommits`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CertifyVerdict {
    /// A chain that a quorum of the expected epoch's committee voted for.
    Certified(Verified<CertifiedRange>),
    /// The commits say that they are of another epoch than we expect. Whether that is an offence, the machine knows.
    OtherEpoch {
        /// The epoch of the first commit.
        found: Epoch,
    },
    /// Not certified, and provably the sender's fault.
    Refused(CertifyError),
    /// A quorum voted for a chain that breaks the protocol's rules. The committee's fault, not the sender's.
    CertifiedInvalid(CertifiedFault),
}

/// Consecutive commits of one epoch, and the quorum of votes for the last of them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CertifiedRange {
    /// The commits in index order; never empty.
    pub commits: Vec<CommitHeader>,
    /// Good certifiers, at most one an author, by author; their stake reaches the quorum.
    pub certifiers: Vec<CheckedBlock>,
    /// How many certifiers were dropped because they are bad: each one is its sender's fault.
    pub bad_certifiers: u32,
}

/// A decoded commit. Together with its encoding, because that is what is stored and served.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CommitHeader {
    /// Index, and digest of the encoding.
    pub reference: CommitRef,
    /// Digest of the commit before.
    pub previous: crate::types::CommitDigest,
    /// Milliseconds since the Unix epoch, as the committee agreed; never falls along the chain.
    pub timestamp_ms: u64,
    /// Epoch of the commit and of all its blocks.
    pub epoch: Epoch,
    /// The leader; one of `blocks`.
    pub leader: BlockRef,
    /// The blocks in the order in which they are applied.
    pub blocks: Arc<[BlockRef]>,
    /// The encoding.
    pub payload: Payload,
}
saved! { struct CommitHeader { reference, previous, timestamp_ms, epoch, leader, blocks, payload } }

/// A decoded block whose reference is known to be right.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CheckedBlock {
    /// What names it.
    pub reference: BlockRef,
    /// The commits that its author votes for in it.
    pub votes: Vec<CommitRef>,
    /// Present where the block has complete end-of-epoch data: its commit is the last of its epoch.
    pub epoch_end: Option<EpochEnd>,
    /// The signed block's encoding.
    pub payload: Payload,
}
saved! { struct CheckedBlock { reference, votes, epoch_end, payload } }

/// What follows the end of an epoch.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum EpochEnd {
    /// The committee of the next epoch.
    Next(Arc<Committee>),
    /// The block names a validator set that no committee can be made of. A local wait with evidence, no peer's fault.
    Invalid(InvalidNextCommittee),
}
saved! { enum EpochEnd { 0 => Next(it), 1 => Invalid(it) } }

/// What became of one block of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum BlockOutcome {
    /// It is the block asked for.
    Good(Verified<CheckedBlock>),
    /// It is not, which is the sender's fault.
    Bad(BlockError),
    /// It is the block that a certified commit names, and it breaks the rules: the committee's fault.
    CertifiedInvalid(CertifiedFault),
}

/// What became of a commit from our own consensus.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ObserveVerdict {
    /// It decodes, and the blocks are those that it names.
    Observed {
        /// The commit.
        commit: Verified<CommitHeader>,
        /// Its blocks, in commit order.
        blocks: Vec<Verified<CheckedBlock>>,
    },
    /// It does not hang together: a local fault.
    Refused(ObserveError),
}

/// Why a commit from our own consensus was not taken.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ObserveError {
    /// The commit does not decode.
    #[error("the observed commit does not decode: {0}")]
    Commit(DecodeError),
    /// There are more or fewer blocks than the commit names.
    #[error("the observed commit names {named} blocks, and {given} were given")]
    Count {
        /// Blocks that the commit names.
        named: usize,
        /// Blocks that came with it.
        given: usize,
    },
    /// A block does not decode, or is not the one named at its position.
    #[error("block {position} of the observed commit: {error}")]
    Block {
        /// Position within the commit.
        position: usize,
        /// What is wrong with it.
        error: BlockError,
    },
}

impl CheckedBlock {
    /// Decodes a signed block and computes what names it. Nothing is said about its validity, so this is no
    /// [`Verified`]: for reading back what is stored.
    ///
    /// # Errors
    ///
    /// Whatever is not the one encoding of a signed block within `limits`, with nothing left over.
    pub fn decode(payload: Payload, limits: &Limits) -> Result<Self, DecodeError> {
        let block = BlockView::decode(payload.bytes(), limits)?;
        let reference = block.reference();
        let content = block.into_content();
        Ok(Self::new(reference, content, payload, limits))
    }

    /// `content` is what [`BlockView::into_content`] gave for `payload`.
    pub(crate) fn new(
        reference: BlockRef,
        content: (Vec<CommitRef>, Option<Box<EndOfEpochData>>),
        payload: Payload,
        limits: &Limits,
    ) -> Self {
        let (votes, end_of_epoch) = content;
        let epoch_end = end_of_epoch.and_then(|data| EpochEnd::read(*data, reference.epoch, limits));
        Self { reference, votes, epoch_end, payload }
    }
}

impl EpochEnd {
    /// What complete end-of-epoch data says, in a block of `epoch`; `None` of data that is not complete.
    fn read(data: EndOfEpochData, epoch: Epoch, limits: &Limits) -> Option<Self> {
        let set = data.into_complete()?;
        let next = epoch.next().ok_or(InvalidNextCommittee::NoNextEpoch);
        let committee = next.and_then(|epoch| Committee::new(epoch, set, limits));
        Some(committee.map_or_else(Self::Invalid, |committee| Self::Next(Arc::new(committee))))
    }
}

#[cfg(feature = "verify")]
impl Job {
    /// Does the work: pure, so the same job and entropy give the same verdict, on any thread.
    ///
    /// `entropy` is for verifying signatures in a batch. It must come from a cryptographic generator of the worker's:
    /// a sender who can predict it can pass off bad signatures.
    pub fn run(self, entropy: [u8; 32]) -> Verdict {
        self.run_with(entropy, &|_| true)
    }

    /// As [`Job::run`], with a check of transactions: `transactions` says whether the bytes of one are acceptable.
    /// It must be what the chain's consensus applies, since a certified block that fails it halts the machine. It is
    /// applied to certifiers and, under [`BlockVerification::Full`], to fetched blocks.
    pub fn run_with(self, entropy: [u8; 32], transactions: &dyn Fn(&[u8]) -> bool) -> Verdict {
        match self {
            Self::Certify(job) => Verdict::Certify(crate::certify::run(*job, entropy, transactions)),
            Self::Check(job) => Verdict::Check(crate::check::run(*job, entropy, transactions)),
            Self::Observe(job) => Verdict::Observe(crate::observe::run(*job)),
            Self::Votes(job) => Verdict::Votes(crate::observe::run_votes(*job)),
        }
    }
}
