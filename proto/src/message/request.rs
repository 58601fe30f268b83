//! Requests as bytes.

use super::{Method, RequestLimits, frame};
use crate::{
    generated as pb,
    wire::{Field, MessageError},
};
use bytes::Bytes;
use soma_sync_core::{
    request::{CommitInfoQuery, FetchBlocks, FetchCommits, RefuseReason, Request},
    types::{BlockRef, CommitIndex},
};
use std::time::Duration;

/// A whole request as it travels: method, length, message. A wait is rounded down to milliseconds and cut to what 32
/// bits hold of them.
pub fn encode_request(request: &Request) -> Bytes {
    let method = Some(Method::of(request).number());
    match request {
        Request::CommitInfo(CommitInfoQuery::Latest) => {
            frame(method, &pb::GetCommitInfoRequest { index: None })
        }
        Request::CommitInfo(CommitInfoQuery::ByIndex(index)) => {
            frame(method, &pb::GetCommitInfoRequest { index: Some(index.get()) })
        }
        Request::Availability { timestamp_ms } => {
            frame(method, &pb::GetCommitAvailabilityRequest { timestamp_ms: *timestamp_ms })
        }
        Request::Commits(fetch) => frame(
            method,
            &pb::FetchCommitsRequest {
                start: fetch.start.get(),
                end: fetch.end.get(),
                max_bytes: fetch.max_bytes,
                wait_ms: u32::try_from(fetch.wait.as_millis()).unwrap_or(u32::MAX),
                with_blocks: fetch.with_blocks,
            },
        ),
        Request::Blocks(fetch) => frame(
            method,
            &pb::FetchBlocksRequest { block_refs: encode_refs(&fetch.refs), max_bytes: fetch.max_bytes },
        ),
        Request::Push { index } => frame(method, &pb::PushCommitRequest { index: index.get() }),
    }
}

/// The references' encodings, all in one allocation.
fn encode_refs(refs: &[BlockRef]) -> Vec<Bytes> {
    let all = Bytes::from(refs.iter().flat_map(BlockRef::to_bytes).collect::<Vec<_>>());
    (0..refs.len())
        .map(|position| all.slice(position * BlockRef::BYTES..(position + 1) * BlockRef::BYTES))
        .collect()
}

/// Decodes the message of a request by `method`. More references than the limit are
/// [`TooMany`](RefuseReason::TooMany), everything else that it cannot be is [`Malformed`](RefuseReason::Malformed).
/// Whether what it asks for makes sense, the machine says.
///
/// # Errors
///
/// Those two reasons: what the machine is to be told in the request's place.
pub fn decode_request(
    method: Method,
    message: Bytes,
    limits: &RequestLimits,
) -> Result<Request, RefuseReason> {
    decode(method, message, limits).map_err(|error| match error {
        MessageError::TooMany { .. } => RefuseReason::TooMany,
        MessageError::Malformed { .. } | MessageError::OutOfBounds { .. } => RefuseReason::Malformed,
    })
}

fn decode(method: Method, message: Bytes, limits: &RequestLimits) -> Result<Request, MessageError> {
    match method {
        Method::GetCommitInfo => {
            let pb::GetCommitInfoRequest { index } = super::decode(message, &[Field::uint32(1)])?;
            let by_index = |index| CommitInfoQuery::ByIndex(CommitIndex::new(index));
            Ok(Request::CommitInfo(index.map_or(CommitInfoQuery::Latest, by_index)))
        }
        Method::GetCommitAvailability => {
            let pb::GetCommitAvailabilityRequest { timestamp_ms } =
                super::decode(message, &[Field::uint64(1)])?;
            Ok(Request::Availability { timestamp_ms })
        }
        Method::FetchCommits => {
            let known = [
                Field::uint32(1),
                Field::uint32(2),
                Field::uint64(16),
                Field::uint32(17),
                Field::boolean(18),
            ];
            let fetch: pb::FetchCommitsRequest = super::decode(message, &known)?;
            Ok(Request::Commits(FetchCommits {
                start: CommitIndex::new(fetch.start),
                end: CommitIndex::new(fetch.end),
                max_bytes: fetch.max_bytes,
                wait: Duration::from_millis(fetch.wait_ms.into()),
                with_blocks: fetch.with_blocks,
            }))
        }
        Method::FetchBlocks => {
            let known = [Field::items_of(1, limits.max_refs, BlockRef::BYTES as u64), Field::uint64(16)];
            let fetch: pb::FetchBlocksRequest = super::decode(message, &known)?;
            let refs = fetch.block_refs.iter().map(decode_ref).collect::<Result<_, _>>()?;
            Ok(Request::Blocks(FetchBlocks { refs, max_bytes: fetch.max_bytes }))
        }
        Method::PushCommit => {
            let pb::PushCommitRequest { index } = super::decode(message, &[Field::uint32(1)])?;
            Ok(Request::Push { index: CommitIndex::new(index) })
        }
    }
}

fn decode_ref(item: &Bytes) -> Result<BlockRef, MessageError> {
    let out_of_bounds = MessageError::OutOfBounds { field: 1, value: item.len() as u64 };
    <&[u8; BlockRef::BYTES]>::try_from(&item[..]).map(BlockRef::from_bytes).map_err(|_| out_of_bounds)
}
