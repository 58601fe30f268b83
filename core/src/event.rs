//! What the machine is told. Inert data: no handle, future or closure may enter it.

pub use crate::id::{InboundId, JobId, RequestId};

use crate::{
    committee::Committee,
    id::BatchId,
    job::Verdict,
    payload::Payload,
    request::{RefuseReason, Request, RequestFailure, ResponsePart},
    start::Start,
    types::{CommitIndex, PeerId},
};
use alloc::{boxed::Box, sync::Arc, vec::Vec};
use core::time::Duration;

/// What happened. Whatever it is, deadlines that have passed are expired first.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// Time passed; sent when [`poll_timeout`](crate::SyncMachine::poll_timeout) is due.
    Tick,
    /// Our own consensus made a commit. Not verified again, only decoded and linked.
    CommitObserved {
        /// The encoded commit.
        commit: Payload,
        /// Its encoded blocks, in commit order.
        blocks: Vec<Payload>,
    },
    /// Our own consensus accepted these blocks, committed or not: they may hold votes.
    VotesObserved {
        /// Encoded signed blocks.
        blocks: Vec<Payload>,
    },
    /// The embedder supplies the committee of an epoch.
    CommitteeKnown {
        /// The committee.
        committee: Arc<Committee>,
    },
    /// A connection to a peer stands, whoever dialled, and its identity is proven.
    PeerConnected {
        /// Who.
        peer: PeerId,
    },
    /// No connection to the peer stands any more.
    PeerDisconnected {
        /// Who.
        peer: PeerId,
    },
    /// A peer asks us something.
    RequestReceived {
        /// The driver's id for it.
        id: InboundId,
        /// Who asks.
        peer: PeerId,
        /// What, or why it could not be decoded.
        request: Result<Request, RefuseReason>,
    },
    /// One message of an answer to a request of ours, in order.
    ResponsePart {
        /// The request.
        id: RequestId,
        /// The message.
        part: ResponsePart,
    },
    /// A request of ours is over: its answer is complete, or there will be no more of it. At most once a request.
    RequestFinished {
        /// The request.
        id: RequestId,
        /// Whether the answer is complete.
        result: Result<(), RequestFailure>,
    },
    /// A worker finished a job. Exactly once a job, also when the worker died.
    Verified {
        /// The job.
        id: JobId,
        /// What it found.
        verdict: Verdict,
    },
    /// Everything in this batch and the ones before it is durable.
    Stored {
        /// The batch.
        through: BatchId,
    },
    /// This batch and those after it are not stored, and the store takes no more until it is reopened.
    StoreFailed {
        /// The first batch that is not stored.
        from: BatchId,
    },
    /// The store was opened again.
    StoreReopened {
        /// What it holds.
        start: Box<Start>,
    },
    /// The store gave up history.
    Pruned {
        /// The lowest commit that it still has.
        lowest: CommitIndex,
    },
    /// Every live subscriber has taken everything up to here.
    Broadcasted {
        /// The commit.
        through: CommitIndex,
    },
    /// An inbound request is finished with: served, whole or not; or withdrawn by the peer before it was answered.
    Served {
        /// The request.
        id: InboundId,
        /// Bytes that were sent.
        bytes: u64,
        /// How long, of the time that it took, there was something to send that the peer did not take in.
        waited: Duration,
    },
}
