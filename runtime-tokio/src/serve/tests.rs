//! Answers are read as a peer would read them, and given to the job that checks them.

use super::*;
use crate::store::{
    MemoryStore, RedbStore,
    tests::{Chain, index, votes, voting},
};
use soma_sync_core::{
    config::{Config, Limits},
    job::{CertifyJob, CertifyVerdict, Job, Verdict},
    payload::Payload,
    request::{FetchBlocks, FetchCommits, Request},
    types::{Epoch, Round},
};
use soma_sync_proto::{
    frame::FrameDecoder,
    message::{Method, ResponseLimits, decode_response},
};
use soma_sync_sim::chain::ChainSpec;
use std::time::Duration;

/// What a peer gets.
#[derive(Debug, Default, PartialEq)]
struct Got {
    commits: Vec<Bytes>,
    certifiers: Vec<Bytes>,
    blocks: Vec<Bytes>,
    missing: Vec<u32>,
    /// Bytes of each message, without its length.
    messages: Vec<u64>,
}

impl Got {
    fn bytes(&self) -> u64 {
        self.messages.iter().sum()
    }
}

fn to_bytes(payloads: Vec<Payload>) -> impl Iterator<Item = Bytes> {
    payloads.into_iter().map(|payload| payload.bytes().clone())
}

fn get(store: &Arc<impl Store>, plan: ServePlan) -> Result<Got, RefuseReason> {
    let (request, max_bytes) = match &plan {
        ServePlan::Commits { range, max_bytes, with_blocks, .. } => {
            let (start, end) = (range.start(), range.end());
            let fetch = FetchCommits {
                start,
                end,
                max_bytes: *max_bytes,
                wait: Duration::ZERO,
                with_blocks: *with_blocks,
            };
            (Request::Commits(fetch), *max_bytes)
        }
        ServePlan::Blocks { refs, max_bytes } => {
            (Request::Blocks(FetchBlocks { refs: refs.clone(), max_bytes: *max_bytes }), *max_bytes)
        }
        ServePlan::CommitInfo { .. } => panic!("has an answer of another kind"),
    };
    let (method, limits) = (Method::of(&request), ResponseLimits::new(&Config::default(), &request));
    let mut answer = Answer::new(Arc::clone(store), plan);
    let mut got = Got::default();
    while let Some(frame) = answer.next_message()? {
        match decode_response(method, unframe(frame), &limits).expect("an answer") {
            ResponsePart::Commits { commits, certifiers, blocks, buffer_bytes } => {
                // Over all messages: commits, then certifiers, then blocks.
                assert!(commits.is_empty() || got.certifiers.is_empty() && got.blocks.is_empty());
                assert!(certifiers.is_empty() || got.blocks.is_empty());
                got.commits.extend(to_bytes(commits));
                got.certifiers.extend(to_bytes(certifiers));
                got.blocks.extend(to_bytes(blocks));
                got.messages.push(buffer_bytes);
            }
            ResponsePart::Blocks { blocks, missing, buffer_bytes } => {
                got.blocks.extend(to_bytes(blocks));
                got.missing.extend(missing);
                got.messages.push(buffer_bytes);
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(answer.next_message(), Ok(None), "after the end there is more");
    assert!(got.bytes() <= max_bytes, "{} bytes, and {max_bytes} allowed", got.bytes());
    Ok(got)
}

fn unframe(frame: Bytes) -> Bytes {
    let mut decoder = FrameDecoder::new();
    decoder.push(frame);
    let message = decoder.message(u64::MAX).expect("a frame").expect("a whole one");
    decoder.finish().expect("one message a frame");
    message
}

const MAX: u64 = 4 * 1024 * 1024;

fn commits(start: u32, end: u32, last: u32) -> ServePlan {
    let range = CommitRange::new(index(start), index(end)).expect("a range");
    ServePlan::Commits { range, last: index(last), max_bytes: MAX, with_blocks: false }
}

fn with_max(plan: ServePlan, max: u64, blocks: bool) -> ServePlan {
    match plan {
        ServePlan::Commits { range, last, .. } => {
            ServePlan::Commits { range, last, max_bytes: max, with_blocks: blocks }
        }
        ServePlan::Blocks { refs, .. } => ServePlan::Blocks { refs, max_bytes: max },
        ServePlan::CommitInfo { .. } => plan,
    }
}

/// A store of the small chain in which 4, 8, 10, 14, 20 and 30 can be certified, and no other commit of those above.
fn sparse() -> (Chain, Arc<MemoryStore>) {
    let chain = Chain::small();
    let store = MemoryStore::new(Arc::clone(&chain.genesis));
    let mut batch = chain.uncertified(1, 30);
    batch.blocks = batch
        .blocks
        .into_iter()
        .map(|block| {
            let block = soma_sync_core::job::CheckedBlock { votes: vec![], ..block.into_inner() };
            soma_sync_core::verified::Verified::from_trace(block)
        })
        .collect();
    store.apply(&batch).expect("it follows");
    for certified in [4, 8, 10, 14, 20, 30] {
        let made = chain.at(certified);
        let like = |author| BlockRef { author, round: Round::new(3_000 + certified), ..made.header.leader };
        let voters = made.committee.authorities().map(|(author, _)| author).take(5);
        let blocks: Vec<_> = voters.map(|author| voting(like(author), &[made.header.reference])).collect();
        store.apply(&votes(&blocks)).expect("only blocks");
    }
    (chain, Arc::new(store))
}

#[test]
fn a_range_ends_elsewhere_than_at_a_certifiable_commit() {
    let (chain, store) = sparse();
    let rows = [
        // start, end, last; where the answer ends
        (1, 30, 30, Ok(10)), // the epoch's last commit
        (1, 9, 30, Ok(8)),
        (1, 8, 8, Ok(8)),
        (1, 7, 30, Ok(4)),
        (4, 4, 4, Ok(4)),
        (5, 7, 30, Ok(8)), // none within: the next one
        (1, 2, 30, Ok(4)),
        (5, 7, 7, Err(RefuseReason::Unavailable)),
        (15, 16, 19, Err(RefuseReason::Unavailable)),
        (15, 16, 20, Ok(20)),
        (11, 30, 30, Ok(20)),
        (9, 9, 30, Ok(10)),
        (21, 22, 29, Err(RefuseReason::Unavailable)),
        (21, 22, 40, Ok(30)),
        (31, 40, 40, Err(RefuseReason::Unavailable)),
        (30, 40, 40, Ok(30)),
    ];
    for (start, end, last, expected) in rows {
        let got = get(&store, commits(start, end, last));
        let expected = expected.map(|end| {
            let made = (start..=end).map(|index| chain.at(index));
            made.map(|made| made.header.payload.bytes().clone()).collect::<Vec<_>>()
        });
        assert_eq!(got.map(|got| got.commits), expected, "{start}..={end}, up to {last}");
    }
}

#[test]
fn what_is_served_is_not_certified_to_whoever_asked() {
    let chain = Chain::small();
    let directory = tempfile::TempDir::new().expect("a directory");
    let store = Arc::new(RedbStore::open(directory.path(), Some(&chain.genesis)).expect("a new store"));
    for first in (1..=30).step_by(5) {
        store.apply(&chain.batch(first, first + 4)).expect("it follows");
    }
    for (start, end, served) in [(1, 30, 10), (11, 30, 20), (21, 30, 30), (3, 5, 5), (30, 30, 30)] {
        let got = get(&store, commits(start, end, end)).expect("an answer");
        assert_eq!(got.commits.len(), (start..=served).count());
        let job = CertifyJob {
            start: index(start),
            last: index(end),
            committee: Arc::clone(&chain.at(start).committee),
            commits: got.commits.into_iter().map(Payload::new).collect(),
            certifiers: got.certifiers.into_iter().map(Payload::new).collect(),
            limits: Limits::default(),
        };
        let verdict = Job::Certify(Box::new(job)).run([7; 32]);
        let Verdict::Certify(CertifyVerdict::Certified(range)) = verdict else { panic!("{verdict:?}") };
        assert_eq!(range.bad_certifiers, 0);
    }
}

#[test]
fn an_answer_is_larger_than_allowed_or_shorter_than_it_could_be() {
    let (_, store) = sparse();
    let ends: Vec<_> = [4_usize, 8, 10]
        .map(|end| {
            (end, get(&store, commits(1, u32::try_from(end).expect("fits"), 10)).expect("an answer").bytes())
        })
        .into();
    let longest = |max| get(&store, with_max(commits(1, 10, 10), max, false)).map(|got| got.commits.len());
    for pair in ends.windows(2) {
        let ((shorter, _), (longer, bytes)) = (pair[0], pair[1]);
        assert_eq!(longest(bytes), Ok(longer));
        assert_eq!(longest(bytes - 1), Ok(shorter));
    }
    assert_eq!(longest(ends[0].1), Ok(4));
    for max in [0, 1, ends[0].1 / 2, ends[0].1 - 1] {
        assert_eq!(longest(max), Err(RefuseReason::TooLarge));
    }
    // What goes on above the range is measured, too.
    let above = |max| get(&store, with_max(commits(1, 2, 10), max, false)).map(|got| got.commits.len());
    assert_eq!(above(ends[0].1), Ok(4));
    assert_eq!(above(ends[0].1 - 1), Err(RefuseReason::TooLarge));
}

#[test]
fn blocks_with_their_commits_are_not_a_prefix_in_order() {
    let (chain, store) = sparse();
    let whole = get(&store, with_max(commits(1, 4, 4), MAX, true)).expect("an answer");
    let expected: Vec<_> = (1..=4)
        .flat_map(|index| chain.at(index).blocks.iter().map(|block| block.payload.bytes().clone()))
        .collect();
    assert_eq!(whole.blocks, expected);
    let bare = get(&store, commits(1, 4, 4)).expect("an answer");
    assert_eq!((&bare.commits, &bare.certifiers, bare.blocks.len()), (&whole.commits, &whole.certifiers, 0));
    let mut room = 0;
    for (count, block) in expected.iter().enumerate() {
        let max = |room| with_max(commits(1, 4, 4), bare.bytes() + room, true);
        let exact = get(&store, max(room)).expect("an answer");
        assert_eq!(exact.blocks, expected[..count]);
        room += CommitsPart::block_cost(block.len()) as u64;
        assert_eq!(get(&store, max(room - 1)).expect("an answer").blocks, expected[..count]);
    }
}

/// Commits of 60 blocks with 20 KB each: several messages.
fn heavy() -> (Chain, Arc<MemoryStore>) {
    let spec = ChainSpec {
        commits: 3,
        blocks_per_commit: 60,
        payload_bytes: 20_000,
        committee: 20,
        epochs: 1,
        seed: 4,
    };
    let chain = Chain::new(spec);
    let store = MemoryStore::new(Arc::clone(&chain.genesis));
    store.apply(&chain.batch(1, 3)).expect("it follows");
    (chain, Arc::new(store))
}

#[test]
fn messages_are_larger_than_a_part_or_smaller_than_they_need_be() {
    let (chain, store) = heavy();
    let refs = chain.commits.iter().flat_map(|made| made.header.blocks.iter().copied()).collect();
    let by_ref = get(&store, ServePlan::Blocks { refs, max_bytes: MAX }).expect("an answer");
    let with_commits = get(&store, with_max(commits(1, 3, 3), MAX, true)).expect("an answer");
    let all: Vec<_> = chain.commits.iter().flat_map(|made| &made.blocks).collect();
    for got in [&by_ref, &with_commits] {
        assert_eq!(got.blocks.len(), 180);
        assert!(got.blocks.iter().eq(all.iter().map(|block| block.payload.bytes())));
        let largest = all.iter().map(|block| block.payload.len() as u64).max().expect("blocks") + 10;
        let part = PART_BYTES as u64;
        let (last, others) = got.messages.split_last().expect("messages");
        assert!(others.iter().all(|bytes| (part - largest..=part).contains(bytes)), "{:?}", got.messages);
        assert!(*last <= part);
    }
}

#[test]
fn an_item_larger_than_a_part_is_not_sent() {
    let spec = ChainSpec {
        commits: 1,
        blocks_per_commit: 4,
        payload_bytes: 600_000,
        committee: 4,
        epochs: 1,
        seed: 4,
    };
    let chain = Chain::new(spec);
    let store = MemoryStore::new(Arc::clone(&chain.genesis));
    store.apply(&chain.batch(1, 1)).expect("it follows");
    let store = Arc::new(store);
    let refs = chain.at(1).header.blocks.to_vec();
    let got = get(&store, ServePlan::Blocks { refs, max_bytes: MAX }).expect("an answer");
    assert_eq!((got.blocks.len(), got.messages.len()), (4, 4));
    // Certifiers are blocks as large: a message each, after that of the commit.
    let got = get(&store, with_max(commits(1, 1, 1), MAX, true)).expect("an answer");
    assert_eq!((got.certifiers.len(), got.messages.len()), (3, 1 + 3 + got.blocks.len()));
}

#[test]
fn blocks_are_in_another_order_or_missing_ones_are_skipped_silently() {
    let (chain, store) = sparse();
    let unknown = |round| {
        let like = BlockRef { round: Round::new(round), ..chain.at(1).header.leader };
        voting(like, &[]).reference
    };
    let known: Vec<_> = chain.at(3).blocks.iter().rev().collect();
    let refs = vec![
        unknown(5_000),
        known[0].reference,
        known[1].reference,
        unknown(5_001),
        unknown(5_002),
        known[2].reference,
        known[0].reference,
    ];
    let plan = ServePlan::Blocks { refs, max_bytes: MAX };
    let got = get(&store, plan.clone()).expect("an answer");
    assert_eq!(got.missing, [0, 3, 4]);
    let expected = [0, 1, 2, 0].map(|position: usize| known[position].payload.bytes().clone());
    assert_eq!(got.blocks, expected);
    for max in 0..got.bytes() {
        match get(&store, with_max(plan.clone(), max, false)) {
            Ok(part) => {
                assert!(got.blocks.starts_with(&part.blocks) && got.missing.starts_with(&part.missing));
                assert!(!part.blocks.is_empty() || !part.missing.is_empty());
            }
            Err(reason) => {
                assert_eq!(reason, RefuseReason::TooLarge);
                assert!(max < MISSING_BYTES_MAX as u64);
            }
        }
    }
}

#[test]
fn what_is_lost_meanwhile_is_left_out_silently() {
    let (chain, store) = heavy();
    let mut answer = Answer::new(Arc::clone(&store), with_max(commits(1, 3, 3), MAX, true));
    assert!(answer.next_message().expect("a message").is_some());
    store.prune(index(3)).expect("it can be pruned");
    let mut messages = 0;
    let end = loop {
        match answer.next_message() {
            Ok(Some(_)) => messages += 1,
            end => break end,
        }
    };
    assert_eq!(end, Err(RefuseReason::Unavailable));
    assert!(messages < 3, "blocks come from nowhere");
    assert_eq!(answer.next_message(), Ok(None), "an answer goes on after it broke off");
    assert_eq!(get(&store, commits(1, 2, 3)), Err(RefuseReason::Unavailable));
    assert!(get(&store, commits(3, 3, 3)).is_ok());
    let gone = ServePlan::Blocks { refs: vec![chain.at(1).header.leader], max_bytes: MAX };
    assert_eq!(get(&store, gone).expect("an answer").missing, [0]);
}

#[test]
fn the_genesis_commit_does_not_say_which_chain_it_is() {
    let (chain, store) = sparse();
    let info = |at| {
        let mut answer = Answer::new(Arc::clone(&store), ServePlan::CommitInfo { index: at });
        let message = unframe(answer.next_message().expect("an answer").expect("a message"));
        assert_eq!(answer.next_message(), Ok(None));
        let limits =
            ResponseLimits { max_message_bytes: 1000, max_commits: 0, max_certifiers: 0, max_blocks: 0 };
        match decode_response(Method::GetCommitInfo, message, &limits) {
            Ok(ResponsePart::CommitInfo { commit, chain_id }) => (commit, chain_id),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(info(CommitIndex::GENESIS), (Some(CommitRef::GENESIS), Some(chain.genesis.chain_id())));
    assert_eq!(info(index(7)), (Some(chain.at(7).header.reference), None));
    assert_eq!(info(index(31)), (None, None));
}

/// A store whose every read fails.
struct Broken;

impl Store for Broken {
    fn start(&self) -> Result<soma_sync_core::start::Start, StoreError> {
        Err(StoreError::Failed)
    }
    fn apply(&self, _: &soma_sync_core::command::Batch) -> Result<(), StoreError> {
        Err(StoreError::Failed)
    }
    fn reopen(&self) -> Result<soma_sync_core::start::Start, StoreError> {
        Err(StoreError::Failed)
    }
    fn chain_id(&self) -> soma_sync_core::types::ChainId {
        soma_sync_core::types::ChainId::ZERO
    }
    fn committee(&self, _: Epoch) -> Result<Option<Arc<soma_sync_core::committee::Committee>>, StoreError> {
        Err(StoreError::Failed)
    }
    fn head(&self, _: CommitIndex) -> Result<Option<CommitHead>, StoreError> {
        Err(StoreError::Failed)
    }
    fn commit(&self, _: CommitIndex) -> Result<Option<crate::store::StoredCommit>, StoreError> {
        Err(StoreError::Failed)
    }
    fn block(&self, _: &BlockRef) -> Result<Option<Payload>, StoreError> {
        Err(StoreError::Failed)
    }
    fn certificate(&self, _: &CommitRef) -> Result<Option<Vec<Certifier>>, StoreError> {
        Err(StoreError::Failed)
    }
    fn prune(&self, _: CommitIndex) -> Result<(), StoreError> {
        Err(StoreError::Failed)
    }
}

#[test]
fn a_store_that_fails_is_blamed_on_the_peer() {
    let store = Arc::new(Broken);
    let refs = vec![voting(Chain::small().at(1).header.leader, &[]).reference];
    for plan in [
        commits(1, 2, 2),
        ServePlan::Blocks { refs, max_bytes: MAX },
        ServePlan::CommitInfo { index: index(1) },
    ] {
        assert_eq!(Answer::new(Arc::clone(&store), plan).next_message(), Err(RefuseReason::Internal));
    }
}
