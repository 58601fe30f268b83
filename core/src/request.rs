//! What peers ask one another, and what they answer. The bytes on the wire are the business of `soma-sync-proto`.

use crate::{
    payload::Payload,
    types::{BlockRef, ChainId, CommitIndex, CommitRef},
};
use alloc::vec::Vec;
use core::time::Duration;

/// A request, ours to a peer or a peer's to us. One that came from a peer is decoded, and nothing more: what it asks
/// for may make no sense, and [`SyncMachine`](crate::SyncMachine) is who says so.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Request {
    /// `GetCommitInfo`: which commit stands at an index.
    CommitInfo(CommitInfoQuery),
    /// `GetCommitAvailability`: how far, and from where on, the peer can serve.
    Availability {
        /// The sender's clock in milliseconds. Informative; nothing is scheduled by it.
        timestamp_ms: u64,
    },
    /// `FetchCommits`: consecutive commits, and the votes that certify the last of them.
    Commits(FetchCommits),
    /// `FetchBlocks`: blocks by reference.
    Blocks(FetchBlocks),
    /// `PushCommit`: "I am this far". A hint.
    Push {
        /// The sender's highest certifiable commit.
        index: CommitIndex,
    },
}

/// Which commit `GetCommitInfo` is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CommitInfoQuery {
    /// The highest certifiable one.
    Latest,
    /// The one at this index; index 0 asks which chain this is.
    ByIndex(CommitIndex),
}

/// How far above the end of what was asked for an answer may go on, in commits, where none in the range can be
/// certified. The same for everybody, whatever their configuration.
pub const COMMITS_BEYOND_MAX: u32 = 100;

/// Asks for the commits `start..=end`, or a shorter range from `start` on that can be certified.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FetchCommits {
    /// First commit.
    pub start: CommitIndex,
    /// Last commit wanted. Where the server can certify none in the range it goes on to the next that it can.
    pub end: CommitIndex,
    /// Most bytes that the whole answer may take, counted over its messages as they travel.
    pub max_bytes: u64,
    /// How long the server may hold the request until `start` is certifiable. Zero: answer at once.
    pub wait: Duration,
    /// Send the blocks of the commits after them, in the same answer.
    pub with_blocks: bool,
}
saved! { struct FetchCommits { start, end, max_bytes, wait, with_blocks } }

/// Asks for blocks, in this order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct FetchBlocks {
    /// The blocks wanted.
    pub refs: Vec<BlockRef>,
    /// Most bytes that the whole answer may take, counted over its messages as they travel.
    pub max_bytes: u64,
}

/// One message of an answer. Bytes in it are untrusted and opaque here.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ResponsePart {
    /// Answers [`Request::CommitInfo`].
    CommitInfo {
        /// The commit, or `None` where the server has none there.
        commit: Option<CommitRef>,
        /// Set when index 0 was asked for: which chain the server is on.
        chain_id: Option<ChainId>,
    },
    /// Answers [`Request::Availability`].
    Availability {
        /// The highest commit that the server can certify.
        highest: CommitIndex,
        /// The lowest commit that it still has; 0 where nothing was ever pruned.
        lowest: CommitIndex,
    },
    /// A piece of the answer to [`Request::Commits`]: over all parts first the commits, then certifiers, then blocks.
    Commits {
        /// Encoded commits, in index order.
        commits: Vec<Payload>,
        /// Encoded signed blocks that vote for the answer's last commit.
        certifiers: Vec<Payload>,
        /// Encoded signed blocks of the commits, in commit order; only where they were asked for.
        blocks: Vec<Payload>,
        /// Bytes of the message as it travelled: what keeping any of its payloads keeps in memory.
        buffer_bytes: u64,
    },
    /// A piece of the answer to [`Request::Blocks`].
    Blocks {
        /// Encoded signed blocks, in the order asked for, without those listed as missing.
        blocks: Vec<Payload>,
        /// Positions in the request, ascending, of blocks that the server does not have.
        missing: Vec<u32>,
        /// Bytes of the message as it travelled.
        buffer_bytes: u64,
    },
    /// Answers [`Request::Push`].
    Push {
        /// The receiver's clock in milliseconds. Informative.
        timestamp_ms: u64,
    },
}

impl ResponsePart {
    /// Bytes of data that the message brings; none where it has a few numbers only.
    pub(crate) fn bytes(&self) -> u64 {
        match self {
            Self::Commits { buffer_bytes, .. } | Self::Blocks { buffer_bytes, .. } => *buffer_bytes,
            Self::CommitInfo { .. } | Self::Availability { .. } | Self::Push { .. } => 0,
        }
    }
}

/// Why a server does not answer a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum RefuseReason {
    /// The server has as much to do as it admits. Ask later, or ask another.
    #[error("the server is busy")]
    Busy,
    /// The range has its start above its end, or begins at genesis.
    #[error("the range is not one")]
    InvalidRange,
    /// More commits or blocks than one request may ask for.
    #[error("too much was asked for at once")]
    TooMany,
    /// A block reference that no served block can have: round 0, or an author or epoch that does not exist.
    #[error("a reference names no block that can exist")]
    InvalidReference,
    /// The request could not be decoded.
    #[error("the request is malformed")]
    Malformed,
    /// The server pruned what was asked for, or never had it.
    #[error("the server does not have it")]
    Unavailable,
    /// The smallest answer needs more bytes than the request allows.
    #[error("the answer does not fit the byte limit of the request")]
    TooLarge,
    /// The server's storage failed.
    #[error("the server failed")]
    Internal,
}

impl RefuseReason {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Busy,
        Self::InvalidRange,
        Self::TooMany,
        Self::InvalidReference,
        Self::Malformed,
        Self::Unavailable,
        Self::TooLarge,
        Self::Internal,
    ];
}

/// Why a request of ours ended without its whole answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum RequestFailure {
    /// The connection to the peer was lost, or there was none.
    #[error("the connection was lost")]
    Disconnected,
    /// The peer abandoned the answer.
    #[error("the peer reset the answer")]
    Reset,
    /// The peer said no.
    #[error("refused: {0}")]
    Refused(RefuseReason),
    /// What came is not an encoding of an answer to this request.
    #[error("the answer is malformed")]
    Malformed,
    /// A message longer than this kind of answer allows.
    #[error("a message of the answer is over its limit")]
    Oversize,
    /// We could not carry it out, through no fault of the peer's.
    #[error("it failed on our side")]
    Local,
}
