//! Messages from core's types to bytes and back, and what is refused on the way.

use bytes::Bytes;
use proptest::prelude::*;
use soma_sync_core::{
    config::Config,
    payload::Payload,
    request::{CommitInfoQuery, FetchBlocks, FetchCommits, RefuseReason, Request, ResponsePart},
    types::{
        AuthorityIndex, BlockDigest, BlockRef, ChainId, CommitDigest, CommitIndex, CommitRef, Epoch, Round,
    },
};
use soma_sync_proto::{
    frame::FrameDecoder,
    message::{
        BlocksPart, CommitsPart, MessageError, Method, RequestLimits, ResponseLimits, answered_status,
        decode_request, decode_response, encode_refusal, encode_request, encode_response, read_status,
    },
};
use std::time::Duration;

const REQUEST_LIMITS: RequestLimits = RequestLimits { max_refs: 20 };
const RESPONSE_LIMITS: ResponseLimits =
    ResponseLimits { max_message_bytes: 1 << 20, max_commits: 20, max_certifiers: 20, max_blocks: 20 };

fn block_ref() -> impl Strategy<Value = BlockRef> {
    any::<(u32, u32, [u8; 32], u64)>().prop_map(|(round, author, digest, epoch)| BlockRef {
        round: Round::new(round),
        author: AuthorityIndex::new(author),
        digest: BlockDigest::new(digest),
        epoch: Epoch::new(epoch),
    })
}

fn index() -> impl Strategy<Value = CommitIndex> {
    any::<u32>().prop_map(CommitIndex::new)
}

fn request() -> impl Strategy<Value = Request> {
    let fetch_commits = (index(), index(), any::<u64>(), any::<u32>(), any::<bool>());
    prop_oneof![
        Just(Request::CommitInfo(CommitInfoQuery::Latest)),
        index().prop_map(|index| Request::CommitInfo(CommitInfoQuery::ByIndex(index))),
        any::<u64>().prop_map(|timestamp_ms| Request::Availability { timestamp_ms }),
        fetch_commits.prop_map(|(start, end, max_bytes, wait_ms, with_blocks)| {
            let wait = Duration::from_millis(wait_ms.into());
            Request::Commits(FetchCommits { start, end, max_bytes, wait, with_blocks })
        }),
        (prop::collection::vec(block_ref(), 0..=20), any::<u64>())
            .prop_map(|(refs, max_bytes)| Request::Blocks(FetchBlocks { refs, max_bytes })),
        index().prop_map(|index| Request::Push { index }),
    ]
}

fn payloads() -> impl Strategy<Value = Vec<Payload>> {
    let payload = prop::collection::vec(any::<u8>(), 0..300).prop_map(|bytes| Payload::new(bytes.into()));
    prop::collection::vec(payload, 0..=20)
}

fn part() -> impl Strategy<Value = (Method, ResponsePart)> {
    let commit = any::<(u32, [u8; 32])>().prop_map(|(index, digest)| CommitRef {
        index: CommitIndex::new(index),
        digest: CommitDigest::new(digest),
    });
    let chain_id = any::<[u8; 32]>().prop_map(ChainId::new);
    prop_oneof![
        (prop::option::of(commit), prop::option::of(chain_id)).prop_map(|(commit, chain_id)| {
            (Method::GetCommitInfo, ResponsePart::CommitInfo { commit, chain_id })
        }),
        (index(), index()).prop_map(|(highest, lowest)| {
            (Method::GetCommitAvailability, ResponsePart::Availability { highest, lowest })
        }),
        (payloads(), payloads(), payloads()).prop_map(|(commits, certifiers, blocks)| {
            let part = ResponsePart::Commits { commits, certifiers, blocks, buffer_bytes: 0 };
            (Method::FetchCommits, part)
        }),
        (payloads(), prop::collection::vec(any::<u32>(), 0..=20)).prop_map(|(blocks, missing)| {
            (Method::FetchBlocks, ResponsePart::Blocks { blocks, missing, buffer_bytes: 0 })
        }),
        any::<u64>().prop_map(|timestamp_ms| (Method::PushCommit, ResponsePart::Push { timestamp_ms })),
    ]
}

/// The method and the message of a request as it travels.
fn read_request(stream: Bytes) -> (Method, Bytes) {
    let mut decoder = FrameDecoder::new();
    decoder.push(stream);
    let method = decoder.varint().expect("good").and_then(Method::from_number).expect("a method");
    let message = decoder.message(method.request_bytes_max(&REQUEST_LIMITS)).expect("good").expect("whole");
    assert_eq!(decoder.finish(), Ok(()));
    (method, message)
}

/// The message of an answer's part as it travels.
fn read_part(stream: Bytes) -> Bytes {
    let mut decoder = FrameDecoder::new();
    decoder.push(stream);
    let message = decoder.message(u64::MAX).expect("good").expect("whole");
    assert_eq!(decoder.finish(), Ok(()));
    message
}

/// All payloads' bytes: equality of payloads does not see them.
fn bytes_of(part: &ResponsePart) -> Vec<Bytes> {
    let lists: Vec<&Vec<Payload>> = match part {
        ResponsePart::Commits { commits, certifiers, blocks, .. } => vec![commits, certifiers, blocks],
        ResponsePart::Blocks { blocks, .. } => vec![blocks],
        ResponsePart::CommitInfo { .. } | ResponsePart::Availability { .. } | ResponsePart::Push { .. } => {
            vec![]
        }
    };
    lists.into_iter().flatten().map(|payload| payload.bytes().clone()).collect()
}

fn with_buffer_bytes(part: ResponsePart, len: usize) -> ResponsePart {
    let buffer_bytes = len as u64;
    match part {
        ResponsePart::Commits { commits, certifiers, blocks, .. } => {
            ResponsePart::Commits { commits, certifiers, blocks, buffer_bytes }
        }
        ResponsePart::Blocks { blocks, missing, .. } => {
            ResponsePart::Blocks { blocks, missing, buffer_bytes }
        }
        other => other,
    }
}

proptest! {
    #[test]
    fn a_request_arrives_as_it_was_sent(request in request()) {
        let (method, message) = read_request(encode_request(&request));
        prop_assert_eq!(method, Method::of(&request));
        prop_assert_eq!(decode_request(method, message, &REQUEST_LIMITS), Ok(request));
    }

    #[test]
    fn a_part_arrives_as_it_was_sent_without_a_copy((method, part) in part()) {
        let message = read_part(encode_response(&part));
        let range = message.as_ptr_range();
        let decoded = decode_response(method, message.clone(), &RESPONSE_LIMITS).expect("good");
        prop_assert_eq!(bytes_of(&decoded), bytes_of(&part));
        for bytes in bytes_of(&decoded) {
            prop_assert!(bytes.is_empty() || range.contains(&bytes.as_ptr()), "a payload is copied");
        }
        prop_assert_eq!(decoded, with_buffer_bytes(part, message.len()));
    }

    #[test]
    fn server_and_client_count_the_same_bytes(
        commits in payloads(), certifiers in payloads(), blocks in payloads(), missing: Vec<u32>,
    ) {
        let mut part = CommitsPart::default();
        prop_assert!(part.is_empty());
        commits.iter().for_each(|payload| part.push_commit(payload.bytes().clone()));
        certifiers.iter().for_each(|payload| part.push_certifier(payload.bytes().clone()));
        blocks.iter().for_each(|payload| part.push_block(payload.bytes().clone()));
        prop_assert_eq!(read_part(part.encode()).len(), part.encoded_len());
        let expected = ResponsePart::Commits { commits, certifiers, blocks: blocks.clone(), buffer_bytes: 0 };
        prop_assert_eq!(part.encode(), encode_response(&expected));

        let mut part = BlocksPart::default();
        prop_assert!(part.is_empty());
        blocks.iter().for_each(|payload| part.push_block(payload.bytes().clone()));
        missing.iter().for_each(|position| part.push_missing(*position));
        prop_assert_eq!(read_part(part.encode()).len(), part.encoded_len());
        let expected = ResponsePart::Blocks { blocks, missing, buffer_bytes: 0 };
        prop_assert_eq!(part.encode(), encode_response(&expected));
    }

    #[test]
    fn bytes_at_random_do_not_break_a_decoder(bytes: Vec<u8>) {
        for method in Method::ALL {
            let _ = decode_request(method, bytes.clone().into(), &REQUEST_LIMITS);
            let _ = decode_response(method, bytes.clone().into(), &RESPONSE_LIMITS);
        }
    }

    #[test]
    fn a_changed_byte_of_a_message_does_not_break_a_decoder((method, part) in part(), at: usize, byte: u8) {
        let mut message = read_part(encode_response(&part)).to_vec();
        if !message.is_empty() {
            let at = at % message.len();
            message[at] = byte;
            let _ = decode_response(method, message.into(), &RESPONSE_LIMITS);
        }
    }
}

#[test]
fn more_references_than_allowed_are_refused() {
    let message = [&[0x0a, 48][..], &[0; 48]].concat().repeat(21);
    let decode = |message: Vec<u8>| decode_request(Method::FetchBlocks, message.into(), &REQUEST_LIMITS);
    assert_eq!(decode(message.clone()), Err(RefuseReason::TooMany));
    assert!(decode(message[50..].to_vec()).is_ok());
}

#[test]
fn a_reference_of_another_length_is_refused() {
    for len in [0u8, 47, 49] {
        let message = [&[0x0a, len][..], &vec![0; len.into()]].concat();
        let decoded = decode_request(Method::FetchBlocks, message.into(), &REQUEST_LIMITS);
        assert_eq!(decoded, Err(RefuseReason::Malformed), "{len}");
    }
}

#[test]
fn a_flood_of_empty_items_in_an_answer_is_refused() {
    for (method, tag, field) in [
        (Method::FetchCommits, &[0x0a][..], 1),
        (Method::FetchCommits, &[0x12], 2),
        (Method::FetchCommits, &[0x82, 0x01], 16),
        (Method::FetchBlocks, &[0x0a], 1),
    ] {
        let flood = [tag, &[0]].concat().repeat(21);
        let refused = Err(MessageError::TooMany { field, limit: 20 });
        assert_eq!(decode_response(method, flood.into(), &RESPONSE_LIMITS), refused);
    }
    let missing = [&[0x82, 0x01, 21][..], &[1; 21]].concat();
    let refused = Err(MessageError::TooMany { field: 16, limit: 20 });
    assert_eq!(decode_response(Method::FetchBlocks, missing.into(), &RESPONSE_LIMITS), refused);
}

#[test]
fn an_index_of_more_than_32_bits_is_refused() {
    let message = Bytes::from_static(&[0x08, 0x80, 0x80, 0x80, 0x80, 0x10]);
    let refused = Err(MessageError::OutOfBounds { field: 1, value: 1 << 32 });
    assert_eq!(
        decode_request(Method::PushCommit, message.clone(), &REQUEST_LIMITS),
        Err(RefuseReason::Malformed)
    );
    assert_eq!(decode_response(Method::GetCommitAvailability, message, &RESPONSE_LIMITS), refused);
}

#[test]
fn a_digest_of_another_length_is_refused() {
    for (tag, field, len) in [(0x0a, 1, 35), (0x0a, 1, 0), (0x12, 2, 33), (0x12, 2, 0)] {
        let message = [&[tag, len][..], &vec![0; len.into()]].concat();
        let refused = Err(MessageError::OutOfBounds { field, value: len.into() });
        assert_eq!(decode_response(Method::GetCommitInfo, message.into(), &RESPONSE_LIMITS), refused);
    }
}

#[test]
fn a_field_that_a_later_version_adds_is_passed_over() {
    let message = Bytes::from_static(&[0x08, 7, 0xba, 0x06, 3, 1, 2, 3]);
    let expected = Ok(Request::Push { index: CommitIndex::new(7) });
    assert_eq!(decode_request(Method::PushCommit, message, &REQUEST_LIMITS), expected);
}

#[test]
fn requests_have_these_bytes_on_the_wire() {
    let refs = vec![BlockRef {
        round: Round::new(1),
        author: AuthorityIndex::new(2),
        digest: BlockDigest::new([3; 32]),
        epoch: Epoch::new(4),
    }];
    let reference = [&[1, 0, 0, 0, 2, 0, 0, 0][..], &[3; 32], &[4, 0, 0, 0, 0, 0, 0, 0]].concat();
    let commits = FetchCommits {
        start: CommitIndex::new(5),
        end: CommitIndex::new(300),
        max_bytes: 6,
        wait: Duration::from_millis(7),
        with_blocks: true,
    };
    let golden = [
        (Request::CommitInfo(CommitInfoQuery::Latest), vec![1, 0]),
        (Request::CommitInfo(CommitInfoQuery::ByIndex(CommitIndex::ZERO)), vec![1, 2, 0x08, 0]),
        (Request::Availability { timestamp_ms: 9 }, vec![2, 2, 0x08, 9]),
        (
            Request::Commits(commits),
            vec![3, 14, 0x08, 5, 0x10, 0xac, 0x02, 0x80, 0x01, 6, 0x88, 0x01, 7, 0x90, 0x01, 1],
        ),
        (
            Request::Blocks(FetchBlocks { refs, max_bytes: 8 }),
            [&[4, 53, 0x0a, 48][..], &reference, &[0x80, 0x01, 8]].concat(),
        ),
        (Request::Push { index: CommitIndex::new(9) }, vec![5, 2, 0x08, 9]),
    ];
    for (request, bytes) in golden {
        assert_eq!(encode_request(&request), bytes, "{request:?}");
    }
}

#[test]
fn a_refusal_arrives_as_it_was_sent() {
    let status = |bytes| {
        let mut decoder = FrameDecoder::new();
        decoder.push(bytes);
        read_status(decoder.varint().expect("good").expect("whole"))
    };
    for reason in RefuseReason::ALL {
        assert_eq!(status(encode_refusal(reason)), Err(reason));
    }
    assert_eq!(status(answered_status()), Ok(()));
    assert_eq!(read_status(9_999), Err(RefuseReason::Internal));
}

#[test]
fn every_method_has_a_number_of_its_own() {
    for method in Method::ALL {
        assert_eq!(Method::from_number(method.number()), Some(method));
    }
    assert_eq!([0, 6].map(Method::from_number), [None, None]);
}

#[test]
fn the_largest_request_of_our_own_is_within_its_limit() {
    let config = Config::default();
    let limits = RequestLimits::new(&config);
    let reference = BlockRef {
        round: Round::MAX,
        author: AuthorityIndex::MAX,
        digest: BlockDigest::new([0xff; 32]),
        epoch: Epoch::MAX,
    };
    let refs = vec![reference; config.max_blocks_per_fetch as usize];
    let request = Request::Blocks(FetchBlocks { refs, max_bytes: u64::MAX });
    let mut decoder = FrameDecoder::new();
    decoder.push(encode_request(&request));
    assert_eq!(decoder.varint(), Ok(Some(4)));
    let message = decoder.message(Method::FetchBlocks.request_bytes_max(&limits)).expect("small enough");
    assert_eq!(decode_request(Method::FetchBlocks, message.expect("whole"), &limits), Ok(request));
}

#[test]
fn an_answer_with_blocks_that_were_not_asked_for_is_refused() {
    let config = Config::default();
    let fetch = FetchCommits {
        start: CommitIndex::new(1),
        end: CommitIndex::new(100),
        max_bytes: config.max_fetch_response_bytes,
        wait: Duration::ZERO,
        with_blocks: false,
    };
    let with_block = Bytes::from_static(&[0x82, 0x01, 1, 0]);
    let decode = |fetch: FetchCommits| {
        let limits = ResponseLimits::new(&config, &Request::Commits(fetch));
        decode_response(Method::FetchCommits, with_block.clone(), &limits)
    };
    assert_eq!(decode(fetch.clone()), Err(MessageError::TooMany { field: 16, limit: 0 }));
    assert!(decode(FetchCommits { with_blocks: true, ..fetch }).is_ok());

    let limits = ResponseLimits::new(&config, &Request::Push { index: CommitIndex::ZERO });
    assert_eq!(Method::PushCommit.response_bytes_max(&limits), 1024);
    assert_eq!(Method::FetchBlocks.response_bytes_max(&limits), config.answer_bytes());
}
