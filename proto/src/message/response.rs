//! Answers as bytes.

use super::{Method, ResponseLimits, frame};
use crate::{
    frame::varint_len,
    generated as pb,
    wire::{Field, MessageError},
};
use bytes::Bytes;
use soma_sync_core::{
    payload::Payload,
    request::ResponsePart,
    types::{ChainId, CommitIndex, CommitRef},
};

/// Bytes of a chain's identity.
const CHAIN_ID_BYTES: u64 = 32;

/// One message of an answer as it travels: length and message.
pub fn encode_response(part: &ResponsePart) -> Bytes {
    match part {
        ResponsePart::CommitInfo { commit, chain_id } => frame(
            None,
            &pb::GetCommitInfoResponse {
                commit: commit.map(|commit| Bytes::copy_from_slice(&commit.to_bytes())),
                chain_id: chain_id.map(|id| Bytes::copy_from_slice(id.as_bytes())),
            },
        ),
        ResponsePart::Availability { highest, lowest } => frame(
            None,
            &pb::GetCommitAvailabilityResponse {
                highest_synced_commit: highest.get(),
                lowest_available_commit: lowest.get(),
            },
        ),
        ResponsePart::Commits { commits, certifiers, blocks, buffer_bytes: _ } => frame(
            None,
            &pb::FetchCommitsResponse {
                commits: to_bytes(commits),
                certifier_blocks: to_bytes(certifiers),
                blocks: to_bytes(blocks),
            },
        ),
        ResponsePart::Blocks { blocks, missing, buffer_bytes: _ } => {
            frame(None, &pb::FetchBlocksResponse { blocks: to_bytes(blocks), missing: missing.clone() })
        }
        ResponsePart::Push { timestamp_ms } => {
            frame(None, &pb::PushCommitResponse { timestamp_ms: *timestamp_ms })
        }
    }
}

/// Decodes one message of the answer to a request by `method`. Payloads are slices of `message`, whose length is the
/// part's `buffer_bytes`.
///
/// # Errors
///
/// Where it is no such message, or has more items than `limits` allow.
pub fn decode_response(
    method: Method,
    message: Bytes,
    limits: &ResponseLimits,
) -> Result<ResponsePart, MessageError> {
    let buffer_bytes = message.len() as u64;
    match method {
        Method::GetCommitInfo => {
            let known = [Field::exactly(1, CommitRef::BYTES as u64), Field::exactly(2, CHAIN_ID_BYTES)];
            let info: pb::GetCommitInfoResponse = super::decode(message, &known)?;
            Ok(ResponsePart::CommitInfo {
                commit: info
                    .commit
                    .map(|bytes| fixed(1, &bytes))
                    .transpose()?
                    .map(|id| CommitRef::from_bytes(&id)),
                chain_id: info.chain_id.map(|bytes| fixed(2, &bytes)).transpose()?.map(ChainId::new),
            })
        }
        Method::GetCommitAvailability => {
            let claim: pb::GetCommitAvailabilityResponse =
                super::decode(message, &[Field::uint32(1), Field::uint32(2)])?;
            Ok(ResponsePart::Availability {
                highest: CommitIndex::new(claim.highest_synced_commit),
                lowest: CommitIndex::new(claim.lowest_available_commit),
            })
        }
        Method::FetchCommits => {
            let known = [
                Field::items(1, limits.max_commits),
                Field::items(2, limits.max_certifiers),
                Field::items(16, limits.max_blocks),
            ];
            let part: pb::FetchCommitsResponse = super::decode(message, &known)?;
            Ok(ResponsePart::Commits {
                commits: to_payloads(part.commits),
                certifiers: to_payloads(part.certifier_blocks),
                blocks: to_payloads(part.blocks),
                buffer_bytes,
            })
        }
        Method::FetchBlocks => {
            let known = [Field::items(1, limits.max_blocks), Field::numbers(16, limits.max_blocks)];
            let part: pb::FetchBlocksResponse = super::decode(message, &known)?;
            Ok(ResponsePart::Blocks { blocks: to_payloads(part.blocks), missing: part.missing, buffer_bytes })
        }
        Method::PushCommit => {
            let pb::PushCommitResponse { timestamp_ms } = super::decode(message, &[Field::uint64(1)])?;
            Ok(ResponsePart::Push { timestamp_ms })
        }
    }
}

fn fixed<const N: usize>(field: u32, bytes: &[u8]) -> Result<[u8; N], MessageError> {
    bytes.try_into().map_err(|_| MessageError::OutOfBounds { field, value: bytes.len() as u64 })
}

fn to_bytes(payloads: &[Payload]) -> Vec<Bytes> {
    payloads.iter().map(|payload| payload.bytes().clone()).collect()
}

fn to_payloads(items: Vec<Bytes>) -> Vec<Payload> {
    items.into_iter().map(Payload::new).collect()
}

/// Bytes that an item of `len` bytes takes in a message, under the field of this number.
const fn item_cost(field: u32, len: usize) -> usize {
    varint_len((field as u64) << 3) + varint_len(len as u64) + len
}

/// A message of an answer to `FetchCommits` being filled. Holds slices; nothing is copied until it is encoded.
#[derive(Clone, Debug, Default)]
pub struct CommitsPart {
    message: pb::FetchCommitsResponse,
    encoded_len: usize,
}

impl CommitsPart {
    /// Bytes that a commit of `len` bytes adds to the message.
    pub const fn commit_cost(len: usize) -> usize {
        item_cost(1, len)
    }
    /// Bytes that a certifier of `len` bytes adds to the message.
    pub const fn certifier_cost(len: usize) -> usize {
        item_cost(2, len)
    }
    /// Bytes that a block of `len` bytes adds to the message.
    pub const fn block_cost(len: usize) -> usize {
        item_cost(16, len)
    }

    /// Adds a commit.
    pub fn push_commit(&mut self, commit: Bytes) {
        self.encoded_len += Self::commit_cost(commit.len());
        self.message.commits.push(commit);
    }
    /// Adds a certifier.
    pub fn push_certifier(&mut self, block: Bytes) {
        self.encoded_len += Self::certifier_cost(block.len());
        self.message.certifier_blocks.push(block);
    }
    /// Adds a block.
    pub fn push_block(&mut self, block: Bytes) {
        self.encoded_len += Self::block_cost(block.len());
        self.message.blocks.push(block);
    }

    /// Bytes of the message, without its length prefix: what counts towards the request's `max_bytes`.
    pub const fn encoded_len(&self) -> usize {
        self.encoded_len
    }
    /// Whether nothing was added.
    pub const fn is_empty(&self) -> bool {
        self.encoded_len == 0
    }
    /// The message behind its length, as it travels. Each payload is copied once.
    pub fn encode(&self) -> Bytes {
        frame(None, &self.message)
    }
}

/// A message of an answer to `FetchBlocks` being filled. Holds slices; nothing is copied until it is encoded.
#[derive(Clone, Debug, Default)]
pub struct BlocksPart {
    message: pb::FetchBlocksResponse,
    blocks_len: usize,
    missing_len: usize,
}

impl BlocksPart {
    /// Bytes that a block of `len` bytes adds to the message.
    pub const fn block_cost(len: usize) -> usize {
        item_cost(1, len)
    }

    /// Adds a block.
    pub fn push_block(&mut self, block: Bytes) {
        self.blocks_len += Self::block_cost(block.len());
        self.message.blocks.push(block);
    }
    /// Says that the server does not have the block at this position of the request.
    pub fn push_missing(&mut self, position: u32) {
        self.missing_len += varint_len(position.into());
        self.message.missing.push(position);
    }

    /// Bytes of the message, without its length prefix: what counts towards the request's `max_bytes`.
    pub const fn encoded_len(&self) -> usize {
        let missing = if self.missing_len == 0 { 0 } else { item_cost(16, self.missing_len) };
        self.blocks_len + missing
    }
    /// Whether nothing was added.
    pub const fn is_empty(&self) -> bool {
        self.encoded_len() == 0
    }
    /// The message behind its length, as it travels. Each payload is copied once.
    pub fn encode(&self) -> Bytes {
        frame(None, &self.message)
    }
}
