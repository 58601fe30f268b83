//! What the machine wants done. Inert data; the doc of each command names the event that completes it.

pub use crate::id::BatchId;

use crate::{
    certify::CertifiedFault,
    committee::Committee,
    id::{InboundId, JobId, RequestId},
    job::{CheckedBlock, CommitHeader, Job},
    request::{RefuseReason, Request, ResponsePart},
    time::Timestamp,
    types::{BlockRef, CommitIndex, CommitRange, CommitRef, Epoch, PeerId},
    verified::Verified,
};
use alloc::{boxed::Box, sync::Arc, vec::Vec};
use core::time::Duration;

/// What to do next.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// Send a request. Completed by [`RequestFinished`](crate::Event::RequestFinished), at most once.
    SendRequest {
        /// Its id.
        id: RequestId,
        /// To whom.
        peer: PeerId,
        /// What.
        request: Request,
        /// When the machine gives up on it by itself. The driver need not watch it.
        deadline: Timestamp,
    },
    /// Abandon a request. Completed by nothing: what still comes of it is ignored.
    CancelRequest {
        /// The request.
        id: RequestId,
    },
    /// Run a job. Completed by [`Verified`](crate::Event::Verified), exactly once, even if the worker panics.
    Verify {
        /// Its id.
        id: JobId,
        /// The job.
        job: Job,
    },
    /// Store a batch, atomically and after the one before it. Completed by [`Stored`](crate::Event::Stored).
    StoreBatch {
        /// The batch.
        batch: Arc<Batch>,
    },
    /// Hand these commits to every subscriber, in order. They are durable, and follow the last ones that were handed
    /// out: none comes twice, whatever storage loses. Completed by [`Broadcasted`](crate::Event::Broadcasted).
    Broadcast {
        /// The commits.
        range: CommitRange,
    },
    /// Answer an inbound request with this one message. Completed by nothing.
    Respond {
        /// The request.
        id: InboundId,
        /// The answer.
        response: ResponsePart,
    },
    /// Refuse an inbound request. Completed by nothing.
    Refuse {
        /// The request.
        id: InboundId,
        /// Why.
        reason: RefuseReason,
    },
    /// Answer an inbound request from storage. Completed by [`Served`](crate::Event::Served), exactly once.
    Serve {
        /// The request.
        id: InboundId,
        /// What to read and send.
        plan: ServePlan,
        /// When to give up on a reader that does not read.
        deadline: Timestamp,
    },
    /// Close the connection to a peer and do not take it back for a while. Completed by
    /// [`PeerDisconnected`](crate::Event::PeerDisconnected).
    Disconnect {
        /// Who.
        peer: PeerId,
        /// What it did.
        offence: Offence,
        /// For how long it is not to be dialled or let in.
        ban: Duration,
    },
    /// Tell the operator. Completed by nothing.
    Notify(Notice),
}

/// What is stored in one transaction: all of it or nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Batch {
    /// Its id; ids ascend in the order in which batches are to be stored.
    pub id: BatchId,
    /// Blocks to keep, with the votes in them: those of `commits`, certifiers, blocks that our own consensus accepted,
    /// and blocks staged ahead of a commit too large to be held in memory. Until a stored commit names it, a block
    /// counts for its votes only.
    pub blocks: Vec<Verified<CheckedBlock>>,
    /// Commits to append, in index order, following the stored tip. All their blocks are in `blocks` or stored already.
    pub commits: Vec<Verified<CommitHeader>>,
    /// Committees that became known, by epoch.
    pub committees: Vec<Arc<Committee>>,
}
saved! { struct Batch { id, blocks, commits, committees } }

/// How to answer an inbound request from storage.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ServePlan {
    /// Answer with the reference of one stored commit, or none.
    CommitInfo {
        /// Which.
        index: CommitIndex,
    },
    /// Send commits from `range.start()` on, then certifiers for the last of them. The range ends at the highest
    /// certifiable index in `range`; where there is none, at the next one above it up to `last`; never past the last
    /// commit of the first one's epoch.
    Commits {
        /// What was asked for, cut to what we have.
        range: CommitRange,
        /// How far to look for a certifiable commit when there is none in `range`.
        last: CommitIndex,
        /// Most bytes over all messages.
        max_bytes: u64,
        /// Whether the blocks follow.
        with_blocks: bool,
    },
    /// Send blocks in this order, saying which are missing.
    Blocks {
        /// Which.
        refs: Vec<BlockRef>,
        /// Most bytes over all messages.
        max_bytes: u64,
    },
}
saved! { enum ServePlan {
    0 => CommitInfo { index }, 1 => Commits { range, last, max_bytes, with_blocks },
    2 => Blocks { refs, max_bytes },
} }

/// What a peer provably did. Anything that could also be an accident, or our fault, is not in this list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Offence {
    /// It is on another chain.
    #[error("it is on another chain")]
    OtherChain,
    /// It says that its lowest commit is above its highest.
    #[error("it claims a lowest commit above its highest")]
    InvertedAvailability,
    /// It answered a request with an answer of another kind.
    #[error("it answered with an answer of another kind")]
    WrongKind,
    /// It sent more bytes or items than were asked for.
    #[error("it sent more than was asked for")]
    TooMuch,
    /// Its answer does not decode, or a message is over its limit.
    #[error("its answer is malformed")]
    Malformed,
    /// Its commits are not a certified chain from where we asked.
    #[error("its commits are not a certified chain")]
    BadCommits,
    /// Its commits are of an epoch that cannot follow our chain.
    #[error("its commits are of an epoch that does not follow our chain")]
    WrongEpoch,
    /// It sent a certifier that is no valid vote.
    #[error("it sent an invalid certifier")]
    BadCertifier,
    /// It sent a block that is not the one asked for.
    #[error("it sent a block that is not the one asked for")]
    BadBlock,
    /// It keeps sending requests that break the rules.
    #[error("it keeps sending invalid requests")]
    InvalidRequests,
}
saved! { enum Offence {
    0 => OtherChain, 1 => InvertedAvailability, 2 => WrongKind, 3 => TooMuch, 4 => Malformed, 5 => BadCommits,
    6 => WrongEpoch, 7 => BadCertifier, 8 => BadBlock, 9 => InvalidRequests,
} }

/// Something that the operator should know. Not a log: each one is said when it becomes true.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Notice {
    /// The chain reaches as far as any peer that answers can show.
    Synced {
        /// Our highest certifiable commit.
        tip: CommitRef,
    },
    /// It does not, any more.
    Behind {
        /// Our highest stored commit.
        tip: CommitIndex,
        /// The highest commit that a peer claims to have.
        target: CommitIndex,
    },
    /// Nothing can go on, for this reason, until something changes from outside.
    Stalled(Stall),
    /// What stalled goes on.
    Resumed,
    /// The committee of an epoch is needed and cannot be had from the chain.
    CommitteeWanted {
        /// Which.
        epoch: Epoch,
    },
    /// A commit from our own consensus was not taken, because it does not hang together.
    ObservedRefused(crate::job::ObserveError),
    /// A commit from our own consensus was not taken, because a worker died over it each time that it was tried. Peers
    /// will have it; else it has to be handed in again.
    ObservedLost {
        /// How many workers died.
        failures: u32,
    },
    /// The machine applies nothing more. It still serves what is stored.
    Halted(Box<Halt>),
}

/// Why nothing can go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum Stall {
    /// No connected peer still has the next commit.
    #[error(
        "no peer has commit {next}: the lowest that any of them still has is {lowest_seen}; \
         start from a snapshot, or connect an archive node"
    )]
    NoProvider {
        /// The commit that we need.
        next: CommitIndex,
        /// The lowest commit that any peer says it has.
        lowest_seen: CommitIndex,
    },
    /// The store failed; batches are kept and handed over again once it is reopened.
    #[error("the store failed and has not been reopened")]
    Storage,
    /// The committee of the next epoch is not known.
    #[error("the committee of epoch {epoch} is not known")]
    Committee {
        /// The epoch.
        epoch: Epoch,
    },
    /// The validator set that ends the epoch is one that no committee can be made of.
    #[error("the validator set for epoch {epoch} in {block} is invalid: {reason}")]
    InvalidCommittee {
        /// The epoch that it was to begin.
        epoch: Epoch,
        /// The block that names it.
        block: BlockRef,
        /// What is wrong with it.
        reason: crate::block::InvalidNextCommittee,
    },
    /// Consumers lag: nothing more is fetched until they catch up.
    #[error("consumers have taken commits only up to {delivered}")]
    Consumers {
        /// How far they are.
        delivered: CommitIndex,
    },
}
saved! { enum Stall {
    0 => NoProvider { next, lowest_seen }, 1 => Storage, 2 => Committee { epoch },
    3 => InvalidCommittee { epoch, block, reason }, 4 => Consumers { delivered },
} }

/// Why the machine stopped applying commits for good, with the evidence.
#[derive(Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Halt {
    /// A quorum voted for each of two different commits at one index, or for one that does not continue our chain.
    #[error("fork at commit {index}: {ours:?} is on our chain, and {theirs:?} is certified too")]
    Fork {
        /// Where.
        index: CommitIndex,
        /// The commit that we have there.
        ours: CommitRef,
        /// The other one.
        theirs: CommitRef,
        /// The certified commit that names or is the other one.
        evidence: Box<CommitHeader>,
    },
    /// The store was opened again, and holds another commit where our chain has one: it is the store of somebody whom a
    /// fork has led elsewhere, or damaged. What is not stored yet is not handed to it.
    #[error("the reopened store holds {stored:?} where our chain has {ours:?}")]
    StoreContradicted {
        /// The commit that we had stored or were storing.
        ours: CommitRef,
        /// The one that the store ends at.
        stored: CommitRef,
    },
    /// A certified commit contradicts one that the operator pinned.
    #[error("certified {certified} contradicts the pinned {pinned}")]
    PinnedContradicted {
        /// What the operator gave.
        pinned: CommitRef,
        /// What a quorum voted for.
        certified: CommitRef,
    },
    /// What a quorum voted for breaks the protocol's rules.
    #[error("certified, and invalid: {0}")]
    CertifiedInvalid(Box<CertifiedFault>),
}
saved! { enum Halt {
    0 => Fork { index, ours, theirs, evidence }, 1 => StoreContradicted { ours, stored },
    2 => PinnedContradicted { pinned, certified }, 3 => CertifiedInvalid(it),
} }

impl Offence {
    /// All of them, for tables and tests.
    pub const ALL: [Self; 10] = [
        Self::OtherChain,
        Self::InvertedAvailability,
        Self::WrongKind,
        Self::TooMuch,
        Self::Malformed,
        Self::BadCommits,
        Self::WrongEpoch,
        Self::BadCertifier,
        Self::BadBlock,
        Self::InvalidRequests,
    ];
}
