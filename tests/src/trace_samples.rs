//! One of every kind of event, verdict, error and command: for tests that nothing of them is lost on its way into a trace
//! and back. Lists are matched against without a rest, so that a new kind does not compile before it is here.

use crate::fixture::{EPOCH, committee, reference};
use bytes::Bytes;
use soma_sync_core::{
    block::{BlockError, DecodeError, EndOfEpochError, InvalidNextCommittee, Items},
    certify::{CertifiedFault, CertifierError, CertifyError, CommitRule},
    command::{Batch, BatchId, Command, Halt, Notice, Offence, ServePlan, Stall},
    config::{BlockVerification, Limits},
    event::{Event, InboundId, JobId, RequestId},
    job::{
        BlockOutcome, CertifiedRange, CertifyJob, CertifyVerdict, CheckJob, CheckedBlock, CommitHeader,
        EpochEnd, Job, ObserveError, ObserveJob, ObserveVerdict, Verdict, VotesJob,
    },
    payload::Payload,
    request::{
        CommitInfoQuery, FetchBlocks, FetchCommits, RefuseReason, Request, RequestFailure, ResponsePart,
    },
    start::{Start, StoredVotes, Tip},
    time::Timestamp,
    types::{
        AuthorityIndex, ChainId, CommitDigest, CommitIndex, CommitRange, CommitRef, Epoch, PeerId, Round,
        Stake,
    },
    verified::Verified,
};
use std::{sync::Arc, time::Duration};

/// A peer.
pub const PEER: PeerId = PeerId::new([0xa7; 32]);

const fn index(index: u32) -> CommitIndex {
    CommitIndex::new(index)
}

fn commit(at: u32) -> CommitRef {
    CommitRef { index: index(at), digest: CommitDigest::new([9; 32]) }
}

fn author(at: u32) -> AuthorityIndex {
    AuthorityIndex::new(at)
}

/// Some bytes, as a driver that records hands them in.
fn payload(text: &'static str) -> Payload {
    let fingerprint = soma_sync_proto::trace::fingerprint(text.as_bytes());
    Payload::with_fingerprint(Bytes::from_static(text.as_bytes()), fingerprint)
}

/// A commit of so many blocks.
fn header(at: u32, blocks: u32) -> CommitHeader {
    CommitHeader {
        reference: commit(at),
        previous: CommitDigest::new([8; 32]),
        timestamp_ms: 1_700_000_000_000 + u64::from(at),
        epoch: EPOCH,
        leader: reference(1, 20),
        blocks: (0..blocks).map(|author| reference(author, 20)).collect(),
        payload: payload("a commit"),
    }
}

/// Blocks without votes, with some, and at the end of an epoch in both ways.
fn blocks() -> Vec<CheckedBlock> {
    let block = |author, votes: Vec<_>, epoch_end| CheckedBlock {
        reference: reference(author, 20),
        votes,
        epoch_end,
        payload: payload("a block"),
    };
    vec![
        block(0, vec![], None),
        block(1, vec![commit(1), commit(2)], Some(EpochEnd::Next(committee()))),
        block(2, vec![], Some(EpochEnd::Invalid(InvalidNextCommittee::Empty))),
        block(3, vec![commit(3)], None),
    ]
}

fn verified_blocks() -> Vec<Verified<CheckedBlock>> {
    blocks().into_iter().map(Verified::from_trace).collect()
}

/// All ways not to be decoded.
pub fn decode_errors() -> Vec<DecodeError> {
    let items = [Items::Ancestors, Items::Transactions, Items::Votes, Items::Blocks];
    let mut all = vec![
        DecodeError::UnexpectedEnd,
        DecodeError::Trailing { left: 3 },
        DecodeError::LengthNotCanonical,
        DecodeError::LengthOverflow,
        DecodeError::LengthTooLarge { length: 1 << 31 },
        DecodeError::OptionTag { tag: 7 },
        DecodeError::Utf8,
        DecodeError::FixedLength { expected: 32, found: 31 },
        DecodeError::TooLarge { bytes: 1 << 40, max: 1 << 20 },
    ];
    all.extend(items.map(|items| DecodeError::TooMany { items, count: 11, max: 10 }));
    all
}

/// All ways to be no committee.
pub fn committee_errors() -> Vec<InvalidNextCommittee> {
    vec![
        InvalidNextCommittee::Empty,
        InvalidNextCommittee::TooMany { count: 1 << 33, max: 4 },
        InvalidNextCommittee::DuplicateName { second: author(2) },
        InvalidNextCommittee::Stake { sum: Stake::new(9_999) },
        InvalidNextCommittee::Key { authority: author(1) },
        InvalidNextCommittee::AuthorityKey { authority: author(3) },
        InvalidNextCommittee::NoNextEpoch,
    ]
}

/// All ways to be no block, or not the one asked for.
pub fn block_errors() -> Vec<BlockError> {
    let end_of_epoch = [
        EndOfEpochError::SignatureWithoutSet,
        EndOfEpochError::AggregateWithoutSet,
        EndOfEpochError::AggregateWithoutSignature,
        EndOfEpochError::SignaturePoint,
        EndOfEpochError::Signature,
        EndOfEpochError::AggregatePoint,
        EndOfEpochError::Aggregate,
    ];
    let mut all = vec![
        BlockError::OtherBlock { found: reference(1, 2) },
        BlockError::OtherReference { found: reference(2, 3) },
        BlockError::Epoch { expected: EPOCH, found: Epoch::MAX },
        BlockError::GenesisRound,
        BlockError::Author { author: author(9) },
        BlockError::SignatureLength { length: 63 },
        BlockError::Signature,
        BlockError::TooManyAncestors { count: 5, max: 4 },
        BlockError::AncestorAuthor { author: author(8) },
        BlockError::AncestorPosition { position: 1, author: author(2) },
        BlockError::AncestorRound { ancestor: Round::new(9), block: Round::new(8) },
        BlockError::GenesisAncestor { ancestor: reference(1, 0) },
        BlockError::AncestorEpoch { found: Epoch::new(4) },
        BlockError::DuplicateAncestor { author: author(1) },
        BlockError::ParentStake { stake: Stake::new(5_000) },
        BlockError::Transaction { position: 6 },
    ];
    all.extend(decode_errors().into_iter().map(BlockError::Decode));
    all.extend(end_of_epoch.map(BlockError::EndOfEpoch));
    all
}

/// All ways not to be certified.
pub fn certify_errors() -> Vec<CertifyError> {
    let no_quorum = |first_bad| CertifyError::NoQuorum { stake: Stake::new(6_666), first_bad };
    let mut all = vec![
        CertifyError::Empty,
        CertifyError::TooManyCommits { count: 11, max: 10 },
        CertifyError::TooManyCertifiers { count: 9, max: 8 },
        CertifyError::Commit { position: 2, error: DecodeError::UnexpectedEnd },
        CertifyError::Start { expected: index(5), found: index(6) },
        CertifyError::Sequence { previous: index(5), found: index(7) },
        CertifyError::Link { index: index(8) },
        CertifyError::EpochChange { first: EPOCH, found: Epoch::new(4) },
        no_quorum(None),
        no_quorum(Some(CertifierError::NoVote)),
    ];
    all.extend(block_errors().into_iter().map(|error| no_quorum(Some(CertifierError::Block(error)))));
    all
}

/// All ways to be certified and invalid.
pub fn certified_faults() -> Vec<CertifiedFault> {
    let block = reference(3, 7);
    let rules = [
        CommitRule::Timestamp { previous_ms: u64::MAX },
        CommitRule::NoBlocks,
        CommitRule::Leader,
        CommitRule::BlockTwice { block },
        CommitRule::BlockEpoch { block },
        CommitRule::BlockAuthor { block },
        CommitRule::BlockRound { block },
    ];
    let payload = payload("evidence");
    let commits =
        rules.map(|rule| CertifiedFault::Commit { reference: commit(4), rule, payload: payload.clone() });
    let blocks = block_errors().into_iter().map(|error| CertifiedFault::Block {
        reference: reference(2, 9),
        error,
        payload: payload.clone(),
    });
    commits.into_iter().chain(blocks).collect()
}

/// All verdicts.
pub fn verdicts() -> Vec<Verdict> {
    let certified = |commits, certifiers| {
        let range = CertifiedRange { commits, certifiers, bad_certifiers: 2 };
        Verdict::Certify(CertifyVerdict::Certified(Verified::from_trace(range)))
    };
    let mut mixed = vec![BlockOutcome::Bad(BlockError::Signature)];
    for (error, fault) in block_errors().into_iter().zip(certified_faults()) {
        mixed.extend(verified_blocks().into_iter().map(BlockOutcome::Good));
        mixed.extend([BlockOutcome::Bad(error), BlockOutcome::CertifiedInvalid(fault)]);
    }
    let observed =
        ObserveVerdict::Observed { commit: Verified::from_trace(header(7, 4)), blocks: verified_blocks() };
    let not_observed = [
        ObserveError::Commit(DecodeError::Utf8),
        ObserveError::Count { named: 4, given: 3 },
        ObserveError::Block { position: 1, error: BlockError::Signature },
    ];
    let mut all = vec![
        certified(vec![header(5, 3), header(6, 0), header(7, 2)], blocks()),
        certified(vec![], vec![]),
        Verdict::Certify(CertifyVerdict::OtherEpoch { found: Epoch::new(7) }),
        Verdict::Check(mixed),
        Verdict::Check(vec![]),
        Verdict::Observe(observed),
        Verdict::Votes(verified_blocks()),
        Verdict::WorkerFailed,
    ];
    all.extend(certify_errors().into_iter().map(|error| Verdict::Certify(CertifyVerdict::Refused(error))));
    all.extend(
        certified_faults().into_iter().map(|fault| Verdict::Certify(CertifyVerdict::CertifiedInvalid(fault))),
    );
    all.extend(committee_errors().into_iter().map(|error| {
        let block = CheckedBlock { epoch_end: Some(EpochEnd::Invalid(error)), ..blocks().remove(0) };
        Verdict::Votes(vec![Verified::from_trace(block)])
    }));
    all.extend(not_observed.map(|error| Verdict::Observe(ObserveVerdict::Refused(error))));
    all
}

/// All requests.
pub fn requests() -> Vec<Request> {
    vec![
        Request::CommitInfo(CommitInfoQuery::Latest),
        Request::CommitInfo(CommitInfoQuery::ByIndex(index(0))),
        Request::Availability { timestamp_ms: 1_700_000_000_000 },
        Request::Commits(FetchCommits {
            start: index(5),
            end: index(104),
            max_bytes: 4 << 20,
            wait: Duration::from_micros(10_000_001),
            with_blocks: true,
        }),
        Request::Blocks(FetchBlocks {
            refs: (0..3).map(|author| reference(author, 20)).collect(),
            max_bytes: 1 << 20,
        }),
        Request::Push { index: index(77) },
    ]
}

/// All messages of answers.
pub fn parts() -> Vec<ResponsePart> {
    vec![
        ResponsePart::CommitInfo { commit: None, chain_id: None },
        ResponsePart::CommitInfo { commit: Some(commit(3)), chain_id: Some(ChainId::new([4; 32])) },
        ResponsePart::Availability { highest: index(900), lowest: index(0) },
        ResponsePart::Commits {
            commits: vec![payload("one"), payload("two")],
            certifiers: vec![payload("votes")],
            blocks: vec![payload(""), Payload::new(Bytes::from_static(b"no fingerprint"))],
            buffer_bytes: 300,
        },
        ResponsePart::Blocks {
            blocks: vec![payload("three")],
            missing: vec![0, 2, 70_000],
            buffer_bytes: 20,
        },
        ResponsePart::Blocks { blocks: vec![], missing: vec![], buffer_bytes: 0 },
        ResponsePart::Push { timestamp_ms: 5 },
    ]
}

/// What a store may hold.
pub fn start() -> Start {
    let next = committee();
    Start {
        chain_id: next.chain_id(),
        tip: Tip { reference: commit(9), timestamp_ms: 99, epoch: EPOCH, ends_epoch: true },
        certifiable: commit(8),
        lowest_available: index(2),
        committee: committee(),
        next_committee: Some(next),
        votes: vec![StoredVotes { commit: commit(9), epoch: EPOCH, voters: vec![author(0), author(3)] }],
    }
}

/// All events, those that carry something once with each of what they carry.
pub fn events() -> Vec<Event> {
    let failures = [
        RequestFailure::Disconnected,
        RequestFailure::Reset,
        RequestFailure::Malformed,
        RequestFailure::Oversize,
        RequestFailure::Local,
    ];
    let failures = failures.into_iter().chain(RefuseReason::ALL.map(RequestFailure::Refused));
    let mut all = vec![
        Event::Tick,
        Event::CommitObserved { commit: payload("commit"), blocks: vec![payload("a"), payload("b")] },
        Event::VotesObserved { blocks: vec![payload("c")] },
        Event::CommitteeKnown { committee: committee() },
        Event::PeerConnected { peer: PEER },
        Event::PeerDisconnected { peer: PEER },
        Event::RequestFinished { id: RequestId::new(0), result: Ok(()) },
        Event::Stored { through: BatchId::new(0) },
        Event::StoreFailed { from: BatchId::new(u64::MAX) },
        Event::StoreReopened { start: Box::new(start()) },
        Event::Pruned { lowest: index(0) },
        Event::Broadcasted { through: index(u32::MAX) },
        Event::Served { id: InboundId::new(6), bytes: 1 << 40, waited: Duration::from_micros(2_500_000) },
    ];
    let received = |request| Event::RequestReceived { id: InboundId::new(300), peer: PEER, request };
    all.extend(requests().into_iter().map(|request| received(Ok(request))));
    all.extend(RefuseReason::ALL.map(|reason| received(Err(reason))));
    all.extend(parts().into_iter().map(|part| Event::ResponsePart { id: RequestId::new(8), part }));
    all.extend(
        failures.map(|failure| Event::RequestFinished { id: RequestId::new(9), result: Err(failure) }),
    );
    all.extend(verdicts().into_iter().map(|verdict| Event::Verified { id: JobId::new(11), verdict }));
    all
}

fn jobs() -> [Job; 4] {
    let limits = Limits::default();
    let (commits, blocks) = (vec![payload("commit")], vec![payload("block")]);
    [
        Job::Certify(Box::new(CertifyJob {
            start: index(5),
            last: index(9),
            committee: committee(),
            commits,
            certifiers: blocks.clone(),
            limits,
        })),
        Job::Check(Box::new(CheckJob {
            refs: vec![reference(0, 20)],
            blocks: blocks.clone(),
            committee: committee(),
            mode: BlockVerification::Full,
            limits,
        })),
        Job::Observe(Box::new(ObserveJob { commit: payload("commit"), blocks: blocks.clone(), limits })),
        Job::Votes(Box::new(VotesJob { blocks, limits })),
    ]
}

fn notices() -> Vec<Notice> {
    vec![
        Notice::Synced { tip: commit(5) },
        Notice::Behind { tip: index(5), target: index(9) },
        Notice::Stalled(Stall::Storage),
        Notice::Resumed,
        Notice::CommitteeWanted { epoch: EPOCH },
        Notice::ObservedRefused(ObserveError::Count { named: 1, given: 2 }),
        Notice::ObservedLost { failures: 3 },
        Notice::Halted(Box::new(Halt::PinnedContradicted { pinned: commit(1), certified: commit(2) })),
    ]
}

/// All commands, those that carry something once with each kind of what they carry.
pub fn commands() -> Vec<Command> {
    let deadline = Timestamp::from_micros(5_000_000);
    let id = InboundId::new(4);
    let range = CommitRange::new(index(3), index(12)).expect("a range");
    let plans = [
        ServePlan::CommitInfo { index: index(3) },
        ServePlan::Commits { range, last: index(20), max_bytes: 1 << 20, with_blocks: true },
        ServePlan::Blocks { refs: vec![reference(2, 20)], max_bytes: 100 },
    ];
    let batch = Batch {
        id: BatchId::new(2),
        blocks: verified_blocks(),
        commits: vec![Verified::from_trace(header(3, 2)), Verified::from_trace(header(4, 2))],
        committees: vec![committee()],
    };
    let mut all = vec![
        Command::CancelRequest { id: RequestId::new(12) },
        Command::StoreBatch { batch: Arc::new(batch) },
        Command::Broadcast { range },
        Command::Respond { id, response: ResponsePart::Push { timestamp_ms: 1 } },
        Command::Refuse { id, reason: RefuseReason::Busy },
        Command::Disconnect { peer: PEER, offence: Offence::BadBlock, ban: Duration::from_secs(60) },
    ];
    all.extend(requests().into_iter().map(|request| Command::SendRequest {
        id: RequestId::new(1),
        peer: PEER,
        request,
        deadline,
    }));
    all.extend(jobs().map(|job| Command::Verify { id: JobId::new(3), job }));
    all.extend(plans.map(|plan| Command::Serve { id, plan, deadline }));
    all.extend(notices().into_iter().map(Command::Notify));
    all
}
