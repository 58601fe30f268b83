//! What peers say to one another, as bytes: core's [`Request`] and
//! [`ResponsePart`](soma_sync_core::request::ResponsePart) to protobuf messages and back.
//!
//! One stream carries one request and its answer; how messages lie on it is in [`frame`](crate::frame). First comes
//! the number of the [`Method`], then the request. The answer begins with a status, 0 or the code of a
//! [`RefuseReason`], and a refusal is no more than that. `FetchCommits` and `FetchBlocks` are answered by any number of
//! messages, the others by one.
//!
//! Everything decoded here is untrusted. A message is walked before it is decoded, so that what decoding allocates is
//! bounded by caps that the caller gives: [`RequestLimits`] and [`ResponseLimits`]. Payloads of a decoded answer are
//! slices of its message.
//!
//! **Counting bytes.** `max_bytes` of a request counts the answer's messages without their length prefixes and without
//! the status. [`encoded_len`](BlocksPart::encoded_len) of a part is what the server counts, and `buffer_bytes` of the
//! decoded [`ResponsePart`](soma_sync_core::request::ResponsePart) what the client does; they are equal.

mod request;
mod response;

pub use self::{
    request::{decode_request, encode_request},
    response::{BlocksPart, CommitsPart, decode_response, encode_response},
};
pub use crate::wire::MessageError;

use crate::{
    frame::{put_varint, varint_len},
    wire::{Field, scan},
};
use bytes::Bytes;
use soma_sync_core::{
    config::Config,
    request::{RefuseReason, Request},
    types::BlockRef,
};

/// Room for the fixed fields of a message, and for some that later versions add.
const SMALL_MESSAGE_BYTES: u64 = 1024;
/// No commit or block of an honest chain is shorter: each has a digest or a signature, and a reference of 48 bytes.
const ITEM_BYTES_MIN: u64 = 128;
/// Most bytes of a protobuf tag and length before an item.
const ITEM_OVERHEAD_BYTES: u64 = 12;

/// What a request asks for; its number is the first thing on the stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Method {
    /// Which commit stands at an index.
    GetCommitInfo,
    /// From where to where the peer can serve.
    GetCommitAvailability,
    /// Consecutive commits and the votes for the last of them.
    FetchCommits,
    /// Blocks by reference.
    FetchBlocks,
    /// How far the sender is.
    PushCommit,
}

impl Method {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::GetCommitInfo,
        Self::GetCommitAvailability,
        Self::FetchCommits,
        Self::FetchBlocks,
        Self::PushCommit,
    ];

    /// The method that `request` is sent by.
    pub const fn of(request: &Request) -> Self {
        match request {
            Request::CommitInfo(_) => Self::GetCommitInfo,
            Request::Availability { .. } => Self::GetCommitAvailability,
            Request::Commits(_) => Self::FetchCommits,
            Request::Blocks(_) => Self::FetchBlocks,
            Request::Push { .. } => Self::PushCommit,
        }
    }

    /// Its number on the wire.
    pub const fn number(self) -> u32 {
        match self {
            Self::GetCommitInfo => 1,
            Self::GetCommitAvailability => 2,
            Self::FetchCommits => 3,
            Self::FetchBlocks => 4,
            Self::PushCommit => 5,
        }
    }

    /// The method of this number, or `None` where there is none.
    pub fn from_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|method| method.number() == number)
    }

    /// Most bytes of a request, without its length prefix.
    pub fn request_bytes_max(self, limits: &RequestLimits) -> u64 {
        match self {
            Self::FetchBlocks => {
                let item = BlockRef::BYTES as u64 + ITEM_OVERHEAD_BYTES;
                u64::from(limits.max_refs).saturating_mul(item).saturating_add(SMALL_MESSAGE_BYTES)
            }
            Self::GetCommitInfo | Self::GetCommitAvailability | Self::FetchCommits | Self::PushCommit => {
                SMALL_MESSAGE_BYTES
            }
        }
    }

    /// Most bytes of one message of an answer, without its length prefix: what a stream's decoder is to be given.
    pub fn response_bytes_max(self, limits: &ResponseLimits) -> u64 {
        match self {
            Self::FetchCommits | Self::FetchBlocks => limits.max_message_bytes,
            Self::GetCommitInfo | Self::GetCommitAvailability | Self::PushCommit => SMALL_MESSAGE_BYTES,
        }
    }

    /// Whether an answer may have more than one message.
    pub const fn is_streaming(self) -> bool {
        match self {
            Self::FetchCommits | Self::FetchBlocks => true,
            Self::GetCommitInfo | Self::GetCommitAvailability | Self::PushCommit => false,
        }
    }
}

/// Caps on a request from a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLimits {
    /// Most block references in one request.
    pub max_refs: u32,
}

impl RequestLimits {
    /// What a server of this configuration takes.
    pub const fn new(config: &Config) -> Self {
        Self { max_refs: config.max_blocks_per_fetch }
    }
}

/// Caps on one message of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseLimits {
    /// Most bytes of a message, without its length prefix.
    pub max_message_bytes: u64,
    /// Most commits in a message.
    pub max_commits: u32,
    /// Most certifiers in a message.
    pub max_certifiers: u32,
    /// Most blocks in a message, and most positions of missing ones.
    pub max_blocks: u32,
}

impl ResponseLimits {
    /// What a message of the answer to `request` may hold. How much the answer may hold in all, the machine says.
    pub fn new(config: &Config, request: &Request) -> Self {
        let max_message_bytes = config.answer_bytes();
        let fitting = u32::try_from(max_message_bytes / ITEM_BYTES_MIN).unwrap_or(u32::MAX);
        let none = Self { max_message_bytes, max_commits: 0, max_certifiers: 0, max_blocks: 0 };
        match request {
            Request::Commits(fetch) => Self {
                max_commits: fitting,
                max_certifiers: config.limits.max_ancestors,
                max_blocks: if fetch.with_blocks { fitting } else { 0 },
                ..none
            },
            Request::Blocks(fetch) => {
                Self { max_blocks: u32::try_from(fetch.refs.len()).unwrap_or(u32::MAX), ..none }
            }
            Request::CommitInfo(_) | Request::Availability { .. } | Request::Push { .. } => none,
        }
    }
}

/// The number of a refusal: the status that an answer's stream begins and ends with. 0 is no refusal.
pub const fn refusal_code(reason: RefuseReason) -> u32 {
    match reason {
        RefuseReason::Busy => 1,
        RefuseReason::InvalidRange => 2,
        RefuseReason::TooMany => 3,
        RefuseReason::InvalidReference => 4,
        RefuseReason::Malformed => 5,
        RefuseReason::Unavailable => 6,
        RefuseReason::TooLarge => 7,
        RefuseReason::Internal => 8,
    }
}

/// What a status says: an answer follows, or a refusal. A code that this version does not know is a failure of the
/// server's, [`RefuseReason::Internal`]: later versions may have more reasons, and to have one is no offence.
///
/// # Errors
///
/// The reason of a refusal.
pub const fn read_status(status: u32) -> Result<(), RefuseReason> {
    match status {
        0 => Ok(()),
        1 => Err(RefuseReason::Busy),
        2 => Err(RefuseReason::InvalidRange),
        3 => Err(RefuseReason::TooMany),
        4 => Err(RefuseReason::InvalidReference),
        5 => Err(RefuseReason::Malformed),
        6 => Err(RefuseReason::Unavailable),
        7 => Err(RefuseReason::TooLarge),
        _ => Err(RefuseReason::Internal),
    }
}

/// The whole of an answer's stream that is a refusal.
pub fn encode_refusal(reason: RefuseReason) -> Bytes {
    let mut out = Vec::with_capacity(1);
    put_varint(&mut out, refusal_code(reason));
    out.into()
}

/// The status before the messages of an answer that is none.
pub const fn answered_status() -> Bytes {
    Bytes::from_static(&[0])
}

/// `message` behind the varints `head` and its own length, in one allocation of the exact size.
fn frame(head: Option<u32>, message: &impl prost::Message) -> Bytes {
    let len = message.encoded_len();
    let head_len = head.map_or(0, |head| varint_len(head.into()));
    let mut out = Vec::with_capacity(head_len + varint_len(len as u64) + len);
    if let Some(head) = head {
        put_varint(&mut out, head);
    }
    prost::encoding::encode_varint(len as u64, &mut out);
    message.encode_raw(&mut out);
    out.into()
}

/// Decodes a message whose known fields are within these bounds.
fn decode<M: prost::Message + Default>(message: Bytes, known: &[Field]) -> Result<M, MessageError> {
    scan(&message, known)?;
    let len = message.len();
    M::decode(message).map_err(|_| MessageError::Malformed { offset: len })
}
