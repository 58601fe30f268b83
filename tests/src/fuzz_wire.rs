//! What is drawn from bytes goes over the wire and comes back the same; and where a stream is cut into chunks makes no
//! difference to what is read from it.

use arbitrary::{Result, Unstructured};
use bytes::Bytes;
use soma_sync_core::{
    payload::Payload,
    request::{CommitInfoQuery, FetchBlocks, FetchCommits, RefuseReason, Request, ResponsePart},
    types::{BlockRef, ChainId, CommitIndex, CommitRef},
};
use soma_sync_proto::{
    frame::{FrameDecoder, FrameError},
    message::{
        BlocksPart, CommitsPart, Method, RequestLimits, ResponseLimits, decode_request, decode_response,
        encode_refusal, encode_request, encode_response, read_status,
    },
};
use std::time::Duration;

const REQUEST_LIMITS: RequestLimits = RequestLimits { max_refs: 8 };
const RESPONSE_LIMITS: ResponseLimits =
    ResponseLimits { max_message_bytes: 1 << 20, max_commits: 8, max_certifiers: 8, max_blocks: 8 };

/// What is read from a stream to its end.
#[derive(Debug, PartialEq, Eq)]
struct Read {
    messages: Vec<Vec<u8>>,
    end: std::result::Result<(), FrameError>,
}

/// A stream of frames, cut in three ways and read by a plain reader, is the same messages and the same end.
///
/// The first byte is the limit of a message, the second says how many of the following ones are lengths of chunks; what
/// is left is the stream, whose end is the last chunk.
pub fn framing(bytes: &[u8]) {
    let [limit, count, rest @ ..] = bytes else { return };
    let (lengths, stream) = rest.split_at(usize::from(*count).min(rest.len()));
    let limit = u64::from(*limit);
    let expected = read_plainly(stream, limit);
    assert_eq!(read([stream].into_iter(), limit), expected, "in one chunk");
    assert_eq!(read(stream.chunks(1), limit), expected, "byte by byte");
    let mut left = stream;
    let chunks = lengths.iter().map(|length| {
        let (chunk, rest) = left.split_at(usize::from(*length).min(left.len()));
        left = rest;
        chunk
    });
    let mut chunks: Vec<_> = chunks.collect();
    chunks.push(left);
    assert_eq!(read(chunks.into_iter(), limit), expected, "in chunks of {lengths:?}");
}

fn read<'a>(chunks: impl Iterator<Item = &'a [u8]>, limit: u64) -> Read {
    let mut decoder = FrameDecoder::new();
    let mut messages = Vec::new();
    for chunk in chunks {
        decoder.push(Bytes::copy_from_slice(chunk));
        loop {
            match decoder.message(limit) {
                Ok(Some(message)) => messages.push(message.to_vec()),
                Ok(None) => break,
                Err(error) => return Read { messages, end: Err(error) },
            }
        }
    }
    Read { messages, end: decoder.finish() }
}

/// The same of a stream that is all there, without a decoder that remembers anything.
fn read_plainly(mut stream: &[u8], limit: u64) -> Read {
    let mut messages = Vec::new();
    while !stream.is_empty() {
        let (len, rest) = match plain_varint(stream) {
            Ok(Some(read)) => read,
            Ok(None) => return Read { messages, end: Err(FrameError::Truncated) },
            Err(error) => return Read { messages, end: Err(error) },
        };
        if len > limit {
            return Read { messages, end: Err(FrameError::Oversize { len, limit }) };
        }
        let Some((message, rest)) = rest.split_at_checked(len as usize) else {
            return Read { messages, end: Err(FrameError::Truncated) };
        };
        messages.push(message.to_vec());
        stream = rest;
    }
    Read { messages, end: Ok(()) }
}

/// A number of at most 32 bits in its shortest form, and what is behind it; `None` where it is cut off.
fn plain_varint(stream: &[u8]) -> std::result::Result<Option<(u64, &[u8])>, FrameError> {
    let last = stream.iter().take(5).position(|byte| *byte < 0x80);
    let Some(last) = last else {
        return if stream.len() < 5 { Ok(None) } else { Err(FrameError::BadLength) };
    };
    let (varint, rest) = stream.split_at(last + 1);
    let value = varint.iter().rev().fold(0, |value, byte| value << 7 | u64::from(byte & 0x7f));
    let shortest = last == 0 || varint[last] != 0;
    if shortest && value <= u64::from(u32::MAX) {
        Ok(Some((value, rest)))
    } else {
        Err(FrameError::BadLength)
    }
}

/// A request and a message of an answer, drawn from the bytes, are read as they were written. No beginning of either
/// is taken for the whole.
pub fn wire_round_trip(bytes: &[u8]) {
    let mut input = Unstructured::new(bytes);
    let (Ok(request), Ok(part)) = (draw_request(&mut input), draw_part(&mut input)) else { return };
    request_round_trip(&request);
    part_round_trip(&part);
    let Ok(reason) = input.choose(&RefuseReason::ALL) else { return };
    let mut decoder = FrameDecoder::new();
    decoder.push(encode_refusal(*reason));
    assert_eq!(decoder.varint().map(|status| status.map(read_status)), Ok(Some(Err(*reason))));
    assert_eq!(decoder.finish(), Ok(()), "a refusal is no more than a status");
}

fn request_round_trip(request: &Request) {
    let method = Method::of(request);
    let stream = encode_request(request);
    let most = method.request_bytes_max(&RequestLimits { max_refs: REQUEST_LIMITS.max_refs + 1 });
    let read = |stream: Bytes| {
        let mut decoder = FrameDecoder::new();
        decoder.push(stream);
        let number = decoder.varint().expect("our own number");
        let message = decoder.message(most).expect("our own message is within its limit");
        (number, message, decoder.finish())
    };
    for end in 1..stream.len() {
        let (_, message, finish) = read(stream.slice(..end));
        assert_eq!((message, finish.is_ok()), (None, number_is_all(end)), "cut off at {end}");
    }
    let (number, message, finish) = read(stream);
    assert_eq!((number.and_then(Method::from_number), finish), (Some(method), Ok(())));
    let decoded = decode_request(method, message.expect("it is whole"), &REQUEST_LIMITS);
    match request {
        Request::Blocks(fetch) if fetch.refs.len() > REQUEST_LIMITS.max_refs as usize => {
            assert_eq!(decoded, Err(RefuseReason::TooMany));
        }
        _ => assert_eq!(decoded.as_ref(), Ok(request)),
    }
}

/// Between a request's number, of one byte, and its length a stream is whole as far as frames go.
const fn number_is_all(end: usize) -> bool {
    end == 1
}

fn part_round_trip(part: &ResponsePart) {
    let method = match part {
        ResponsePart::CommitInfo { .. } => Method::GetCommitInfo,
        ResponsePart::Availability { .. } => Method::GetCommitAvailability,
        ResponsePart::Commits { .. } => Method::FetchCommits,
        ResponsePart::Blocks { .. } => Method::FetchBlocks,
        ResponsePart::Push { .. } => Method::PushCommit,
    };
    let stream = encode_response(part);
    let limit = method.response_bytes_max(&RESPONSE_LIMITS);
    for end in [1, stream.len() / 2, stream.len() - 1] {
        if (1..stream.len()).contains(&end) {
            let cut = read([&stream[..end]].into_iter(), limit);
            assert_eq!(cut, Read { messages: Vec::new(), end: Err(FrameError::Truncated) }, "cut at {end}");
        }
    }
    let read = read([&*stream].into_iter(), limit);
    let [message] = &*read.messages else { panic!("not one message: {read:?}") };
    assert_eq!(read.end, Ok(()));
    assert_eq!(built(part).unwrap_or_else(|| (stream.clone(), message.len())), (stream, message.len()));
    let decoded = decode_response(method, Bytes::copy_from_slice(message), &RESPONSE_LIMITS);
    assert_eq!(decoded, Ok(with_buffer_bytes(part.clone(), message.len() as u64)));
}

/// What the builders of parts make of the same items, and how long they say that its message is.
fn built(part: &ResponsePart) -> Option<(Bytes, usize)> {
    match part {
        ResponsePart::Commits { commits, certifiers, blocks, buffer_bytes: _ } => {
            let mut builder = CommitsPart::default();
            commits.iter().for_each(|item| builder.push_commit(item.bytes().clone()));
            certifiers.iter().for_each(|item| builder.push_certifier(item.bytes().clone()));
            blocks.iter().for_each(|item| builder.push_block(item.bytes().clone()));
            Some((builder.encode(), builder.encoded_len()))
        }
        ResponsePart::Blocks { blocks, missing, buffer_bytes: _ } => {
            let mut builder = BlocksPart::default();
            blocks.iter().for_each(|item| builder.push_block(item.bytes().clone()));
            missing.iter().for_each(|position| builder.push_missing(*position));
            Some((builder.encode(), builder.encoded_len()))
        }
        ResponsePart::CommitInfo { .. } | ResponsePart::Availability { .. } | ResponsePart::Push { .. } => {
            None
        }
    }
}

fn with_buffer_bytes(part: ResponsePart, len: u64) -> ResponsePart {
    match part {
        ResponsePart::Commits { commits, certifiers, blocks, buffer_bytes: _ } => {
            ResponsePart::Commits { commits, certifiers, blocks, buffer_bytes: len }
        }
        ResponsePart::Blocks { blocks, missing, buffer_bytes: _ } => {
            ResponsePart::Blocks { blocks, missing, buffer_bytes: len }
        }
        other @ (ResponsePart::CommitInfo { .. }
        | ResponsePart::Availability { .. }
        | ResponsePart::Push { .. }) => other,
    }
}

fn draw_request(input: &mut Unstructured<'_>) -> Result<Request> {
    let index = |input: &mut Unstructured<'_>| Ok(CommitIndex::new(input.arbitrary()?));
    Ok(match input.int_in_range(0..=5u8)? {
        0 => Request::CommitInfo(CommitInfoQuery::Latest),
        1 => Request::CommitInfo(CommitInfoQuery::ByIndex(index(input)?)),
        2 => Request::Availability { timestamp_ms: input.arbitrary()? },
        3 => Request::Commits(FetchCommits {
            start: index(input)?,
            end: index(input)?,
            max_bytes: input.arbitrary()?,
            wait: Duration::from_millis(input.arbitrary::<u32>()?.into()),
            with_blocks: input.arbitrary()?,
        }),
        4 => {
            let count = input.int_in_range(0..=9)?;
            let refs = (0..count).map(|_| Ok(BlockRef::from_bytes(&input.arbitrary()?)));
            let refs = refs.collect::<Result<_>>()?;
            Request::Blocks(FetchBlocks { refs, max_bytes: input.arbitrary()? })
        }
        _ => Request::Push { index: index(input)? },
    })
}

fn draw_part(input: &mut Unstructured<'_>) -> Result<ResponsePart> {
    let payloads = |input: &mut Unstructured<'_>| -> Result<Vec<Payload>> {
        let count = input.int_in_range(0..=8)?;
        let payload = |_| Ok(Payload::new(Bytes::copy_from_slice(input.arbitrary()?)));
        (0..count).map(payload).collect()
    };
    Ok(match input.int_in_range(0..=4u8)? {
        0 => {
            let commit: Option<[u8; 36]> = input.arbitrary()?;
            let chain_id: Option<[u8; 32]> = input.arbitrary()?;
            ResponsePart::CommitInfo {
                commit: commit.map(|bytes| CommitRef::from_bytes(&bytes)),
                chain_id: chain_id.map(ChainId::new),
            }
        }
        1 => ResponsePart::Availability {
            highest: CommitIndex::new(input.arbitrary()?),
            lowest: CommitIndex::new(input.arbitrary()?),
        },
        2 => ResponsePart::Commits {
            commits: payloads(input)?,
            certifiers: payloads(input)?,
            blocks: payloads(input)?,
            buffer_bytes: 0,
        },
        3 => {
            let missing = (0..input.int_in_range(0..=8)?).map(|_| input.arbitrary());
            let missing = missing.collect::<Result<_>>()?;
            ResponsePart::Blocks { blocks: payloads(input)?, missing, buffer_bytes: 0 }
        }
        _ => ResponsePart::Push { timestamp_ms: input.arbitrary()? },
    })
}
