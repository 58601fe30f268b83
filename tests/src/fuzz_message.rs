//! Bodies of the fuzz targets over `soma-sync-proto`: messages, frames and chain files. What is read is written and
//! read again, and must be the same; what is refused must be refused without a panic.

use bytes::Bytes;
use soma_sync_core::{
    config::Limits,
    payload::Payload,
    request::{Request, ResponsePart},
};
use soma_sync_proto::{
    chain_file::{ChainReader, ChainWriter},
    frame::FrameDecoder,
    message::{
        Method, RequestLimits, ResponseLimits, decode_request, decode_response, encode_request,
        encode_response,
    },
};

/// Caps that bytes of a fuzzer's length can reach.
const REQUEST_LIMITS: RequestLimits = RequestLimits { max_refs: 8 };
const RESPONSE_LIMITS: ResponseLimits =
    ResponseLimits { max_message_bytes: 4096, max_commits: 8, max_certifiers: 8, max_blocks: 8 };

/// Bytes as a stream in chunks, whose first byte says how long these are: as a request, and as answers to every
/// method.
pub fn decode_message(bytes: &[u8]) {
    let Some((chunk, stream)) = bytes.split_first() else { return };
    let chunk = usize::from(*chunk).max(1);
    let mut decoder = FrameDecoder::new();
    let mut messages = Vec::new();
    for chunk in stream.chunks(chunk) {
        decoder.push(Bytes::copy_from_slice(chunk));
        while let Ok(Some(message)) = decoder.message(RESPONSE_LIMITS.max_message_bytes) {
            assert!(message.len() as u64 <= RESPONSE_LIMITS.max_message_bytes, "longer than its limit");
            messages.push(message);
        }
    }
    messages.push(Bytes::copy_from_slice(stream));
    for message in messages {
        for method in Method::ALL {
            decode_as_request(method, &message);
            decode_as_response(method, &message);
        }
    }
}

fn decode_as_request(method: Method, message: &Bytes) {
    let Ok(request) = decode_request(method, message.clone(), &REQUEST_LIMITS) else { return };
    assert_eq!(Method::of(&request), method);
    if let Request::Blocks(fetch) = &request {
        assert!(fetch.refs.len() <= REQUEST_LIMITS.max_refs as usize, "more references than the limit");
    }
    let mut decoder = FrameDecoder::new();
    decoder.push(encode_request(&request));
    assert_eq!(decoder.varint(), Ok(Some(method.number())));
    let again = decoder.message(method.request_bytes_max(&REQUEST_LIMITS));
    let again = again.expect("our own request is within its limit").expect("and whole");
    assert_eq!(decode_request(method, again, &REQUEST_LIMITS), Ok(request));
}

fn decode_as_response(method: Method, message: &Bytes) {
    let Ok(part) = decode_response(method, message.clone(), &RESPONSE_LIMITS) else { return };
    let mut decoder = FrameDecoder::new();
    decoder.push(encode_response(&part));
    let again = decoder.message(u64::MAX).expect("our own message").expect("whole");
    let again =
        decode_response(method, again, &RESPONSE_LIMITS).expect("our own message is within the limits");
    assert_eq!(payloads(&again), payloads(&part));
    let range = message.as_ptr_range();
    for payload in payloads(&part) {
        assert!(payload.is_empty() || range.contains(&payload.as_ptr()), "a payload was copied");
    }
}

/// The payloads of a part, list by list, each list within its cap.
fn payloads(part: &ResponsePart) -> Vec<Bytes> {
    let lists: [&[Payload]; 3] = match part {
        ResponsePart::Commits { commits, certifiers, blocks, .. } => [commits, certifiers, blocks],
        ResponsePart::Blocks { blocks, missing, .. } => {
            assert!(missing.len() <= RESPONSE_LIMITS.max_blocks as usize, "more positions than the limit");
            [blocks, &[], &[]]
        }
        ResponsePart::CommitInfo { .. } | ResponsePart::Availability { .. } | ResponsePart::Push { .. } => {
            [&[], &[], &[]]
        }
    };
    assert!(lists.iter().all(|list| list.len() <= 8), "more items than the limit");
    lists.into_iter().flatten().map(|payload| payload.bytes().clone()).collect()
}

/// Bytes as a chain file. One that is read to its end is written as the same bytes.
pub fn read_chain_file(bytes: &[u8]) {
    let Ok(mut reader) = ChainReader::open(bytes, Limits::default()) else { return };
    let commits = reader.commits();
    let mut writer = ChainWriter::new(Vec::new(), reader.genesis(), commits).expect("a header");
    loop {
        match reader.next_record() {
            Ok(Some(record)) => {
                let bytes =
                    |items: &[Payload]| items.iter().map(|item| item.bytes().clone()).collect::<Vec<_>>();
                let (blocks, certifiers) = (bytes(&record.blocks), bytes(&record.certifiers));
                writer.write(record.commit.bytes(), &blocks, &certifiers).expect("it was read");
            }
            Ok(None) => break,
            Err(_) => return,
        }
    }
    assert_eq!(writer.finish().expect("as many commits as were read"), bytes);
}
