//! Requests and answers.

use super::{
    Converted, Malformed, array, block_refs, commit_ref, payloads, pb, read_commit_ref, read_payloads, rows,
};
use bytes::Bytes;
use pb::{part::Part, request::Kind};
use soma_sync_core::{
    event::RequestId,
    request::{
        CommitInfoQuery, FetchBlocks, FetchCommits, RefuseReason, Request, RequestFailure, ResponsePart,
    },
    types::{BlockRef, ChainId, CommitIndex},
};
use std::time::Duration;

pub(super) fn write(request: &Request) -> pb::Request {
    let kind = match request {
        Request::CommitInfo(CommitInfoQuery::Latest) => Kind::LatestCommitInfo(true),
        Request::CommitInfo(CommitInfoQuery::ByIndex(index)) => Kind::CommitInfo(index.get()),
        Request::Availability { timestamp_ms } => Kind::Availability(*timestamp_ms),
        Request::Commits(FetchCommits { start, end, max_bytes, wait, with_blocks }) => {
            Kind::Commits(pb::FetchCommits {
                start: start.get(),
                end: end.get(),
                max_bytes: *max_bytes,
                // A request's wait is of 32 bits of milliseconds on the wire, an hour at most in a configuration.
                wait_ns: u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX),
                with_blocks: *with_blocks,
            })
        }
        Request::Blocks(FetchBlocks { refs, max_bytes }) => {
            Kind::Blocks(pb::FetchBlocks { refs: block_refs(refs), max_bytes: *max_bytes })
        }
        Request::Push { index } => Kind::Push(index.get()),
    };
    pb::Request { kind: Some(kind) }
}

pub(super) fn read(request: &pb::Request) -> Converted<Request> {
    Ok(match request.kind.as_ref().ok_or(Malformed("a request of an unknown kind"))? {
        Kind::LatestCommitInfo(_) => Request::CommitInfo(CommitInfoQuery::Latest),
        Kind::CommitInfo(index) => Request::CommitInfo(CommitInfoQuery::ByIndex(CommitIndex::new(*index))),
        Kind::Availability(timestamp_ms) => Request::Availability { timestamp_ms: *timestamp_ms },
        Kind::Commits(fetch) => Request::Commits(FetchCommits {
            start: CommitIndex::new(fetch.start),
            end: CommitIndex::new(fetch.end),
            max_bytes: fetch.max_bytes,
            wait: Duration::from_nanos(fetch.wait_ns),
            with_blocks: fetch.with_blocks,
        }),
        Kind::Blocks(fetch) => Request::Blocks(FetchBlocks {
            refs: rows(&fetch.refs)?.iter().map(BlockRef::from_bytes).collect(),
            max_bytes: fetch.max_bytes,
        }),
        Kind::Push(index) => Request::Push { index: CommitIndex::new(*index) },
    })
}

pub(super) const fn write_refusal(reason: RefuseReason) -> pb::RefuseReason {
    match reason {
        RefuseReason::Busy => pb::RefuseReason::Busy,
        RefuseReason::InvalidRange => pb::RefuseReason::InvalidRange,
        RefuseReason::TooMany => pb::RefuseReason::TooMany,
        RefuseReason::InvalidReference => pb::RefuseReason::InvalidReference,
        RefuseReason::Malformed => pb::RefuseReason::Malformed,
        RefuseReason::Unavailable => pb::RefuseReason::Unavailable,
        RefuseReason::TooLarge => pb::RefuseReason::TooLarge,
        RefuseReason::Internal => pb::RefuseReason::Internal,
    }
}

pub(super) fn read_refusal(reason: i32) -> Converted<RefuseReason> {
    const UNKNOWN: Malformed = Malformed("an unknown reason to refuse");
    match pb::RefuseReason::try_from(reason).map_err(|_| UNKNOWN)? {
        pb::RefuseReason::Unknown => Err(UNKNOWN),
        pb::RefuseReason::Busy => Ok(RefuseReason::Busy),
        pb::RefuseReason::InvalidRange => Ok(RefuseReason::InvalidRange),
        pb::RefuseReason::TooMany => Ok(RefuseReason::TooMany),
        pb::RefuseReason::InvalidReference => Ok(RefuseReason::InvalidReference),
        pb::RefuseReason::Malformed => Ok(RefuseReason::Malformed),
        pb::RefuseReason::Unavailable => Ok(RefuseReason::Unavailable),
        pb::RefuseReason::TooLarge => Ok(RefuseReason::TooLarge),
        pb::RefuseReason::Internal => Ok(RefuseReason::Internal),
    }
}

pub(super) fn write_finished(id: RequestId, result: Result<(), RequestFailure>) -> pb::Finished {
    let mut refused = pb::RefuseReason::Unknown;
    let failure = result.err().map(|failure| match failure {
        RequestFailure::Disconnected => pb::Failure::Disconnected,
        RequestFailure::Reset => pb::Failure::Reset,
        RequestFailure::Refused(reason) => {
            refused = write_refusal(reason);
            pb::Failure::Refused
        }
        RequestFailure::Malformed => pb::Failure::Malformed,
        RequestFailure::Oversize => pb::Failure::Oversize,
        RequestFailure::Local => pb::Failure::Local,
    });
    pb::Finished { id: id.get(), failure: failure.map(i32::from), refused: refused.into() }
}

pub(super) fn read_finished(finished: &pb::Finished) -> Converted<Result<(), RequestFailure>> {
    const UNKNOWN: Malformed = Malformed("an unknown failure of a request");
    let Some(failure) = finished.failure else { return Ok(Ok(())) };
    Ok(Err(match pb::Failure::try_from(failure).map_err(|_| UNKNOWN)? {
        pb::Failure::Unknown => return Err(UNKNOWN),
        pb::Failure::Disconnected => RequestFailure::Disconnected,
        pb::Failure::Reset => RequestFailure::Reset,
        pb::Failure::Refused => RequestFailure::Refused(read_refusal(finished.refused)?),
        pb::Failure::Malformed => RequestFailure::Malformed,
        pb::Failure::Oversize => RequestFailure::Oversize,
        pb::Failure::Local => RequestFailure::Local,
    }))
}

pub(super) fn write_part(id: RequestId, part: &ResponsePart, full: bool) -> pb::Part {
    let part = match part {
        ResponsePart::CommitInfo { commit, chain_id } => Part::CommitInfo(pb::CommitInfoPart {
            commit: commit.as_ref().map(commit_ref),
            chain_id: chain_id.map(|id| Bytes::copy_from_slice(id.as_bytes())),
        }),
        ResponsePart::Availability { highest, lowest } => {
            Part::Availability(pb::AvailabilityPart { highest: highest.get(), lowest: lowest.get() })
        }
        ResponsePart::Commits { commits, certifiers, blocks, buffer_bytes } => {
            Part::Commits(pb::CommitsPart {
                commits: Some(payloads(commits.iter(), full)),
                certifiers: Some(payloads(certifiers.iter(), full)),
                blocks: Some(payloads(blocks.iter(), full)),
                buffer_bytes: *buffer_bytes,
            })
        }
        ResponsePart::Blocks { blocks, missing, buffer_bytes } => Part::Blocks(pb::BlocksPart {
            blocks: Some(payloads(blocks.iter(), full)),
            missing: missing.clone(),
            buffer_bytes: *buffer_bytes,
        }),
        ResponsePart::Push { timestamp_ms } => Part::Push(*timestamp_ms),
    };
    pb::Part { id: id.get(), part: Some(part) }
}

pub(super) fn read_part(part: Option<Part>) -> Converted<ResponsePart> {
    Ok(match part.ok_or(Malformed("an answer of an unknown kind"))? {
        Part::CommitInfo(pb::CommitInfoPart { commit, chain_id }) => ResponsePart::CommitInfo {
            commit: commit.as_deref().map(read_commit_ref).transpose()?,
            chain_id: chain_id.as_deref().map(array).transpose()?.map(ChainId::new),
        },
        Part::Availability(pb::AvailabilityPart { highest, lowest }) => ResponsePart::Availability {
            highest: CommitIndex::new(highest),
            lowest: CommitIndex::new(lowest),
        },
        Part::Commits(pb::CommitsPart { commits, certifiers, blocks, buffer_bytes }) => {
            ResponsePart::Commits {
                commits: read_payloads(commits)?,
                certifiers: read_payloads(certifiers)?,
                blocks: read_payloads(blocks)?,
                buffer_bytes,
            }
        }
        Part::Blocks(pb::BlocksPart { blocks, missing, buffer_bytes }) => {
            ResponsePart::Blocks { blocks: read_payloads(blocks)?, missing, buffer_bytes }
        }
        Part::Push(timestamp_ms) => ResponsePart::Push { timestamp_ms },
    })
}
