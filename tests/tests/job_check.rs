//! The checking job, the jobs for what our own consensus made, and committees: every way in which they can fail.

use bytes::Bytes;
use soma_sync_core::{
    block::{
        Block, BlockError, BlockView, DecodeError, EndOfEpochData, EndOfEpochError, InvalidNextCommittee,
        Items,
    },
    certify::CertifiedFault,
    commit::Commit,
    committee::{Committee, CommitteeError, StakeTally, ValidatorSet},
    config::{BlockVerification, Limits},
    job::{
        BlockOutcome, CheckJob, EpochEnd, Job, ObserveError, ObserveJob, ObserveVerdict, Verdict, VotesJob,
    },
    payload::Payload,
    types::{AuthorityIndex, BlockRef, CommitDigest, CommitIndex, CommitRef, Epoch, Round, Stake},
};
use soma_sync_tests::fixture::{
    EPOCH, authority, block, committee, key, reference, sign, sign_set, validators,
};

fn job(blocks: &[(BlockRef, Bytes)]) -> CheckJob {
    CheckJob {
        refs: blocks.iter().map(|(reference, _)| *reference).collect(),
        blocks: blocks.iter().map(|(_, bytes)| Payload::new(bytes.clone())).collect(),
        committee: committee(),
        mode: BlockVerification::Full,
        limits: Limits::default(),
    }
}

fn run(job: CheckJob) -> Vec<BlockOutcome> {
    match Job::Check(Box::new(job)).run([1; 32]) {
        Verdict::Check(outcomes) => outcomes,
        other => panic!("a verdict of another kind: {other:?}"),
    }
}

fn run_one(job: CheckJob) -> BlockOutcome {
    let mut outcomes = run(job);
    assert_eq!(outcomes.len(), 1);
    outcomes.remove(0)
}

/// What is wrong with a block that a certified commit names.
fn fault(block: (BlockRef, Bytes)) -> BlockError {
    let (named, bytes) = block.clone();
    match run_one(job(&[block])) {
        BlockOutcome::CertifiedInvalid(CertifiedFault::Block { reference, error, payload }) => {
            assert_eq!((reference, payload.bytes()), (named, &bytes));
            error
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_blocks_that_were_asked_for_are_good() {
    let blocks: Vec<_> = (0..4).map(|author| sign(&block(author, 7))).collect();
    for (outcome, (reference, bytes)) in run(job(&blocks)).into_iter().zip(&blocks) {
        let BlockOutcome::Good(good) = outcome else { panic!("{outcome:?}") };
        assert_eq!((good.reference, good.payload.bytes()), (*reference, bytes));
        assert_eq!(good.epoch_end, None);
    }
}

#[test]
fn another_block_is_the_sender_s_fault() {
    let (asked, other) = (sign(&block(0, 7)), sign(&block(1, 7)));
    let mut swapped = job(std::slice::from_ref(&asked));
    swapped.blocks = vec![Payload::new(other.1)];
    assert_eq!(run_one(swapped), BlockOutcome::Bad(BlockError::OtherBlock { found: other.0 }));

    let mut truncated = job(std::slice::from_ref(&asked));
    truncated.blocks = vec![Payload::new(asked.1.slice(..60))];
    assert_eq!(run_one(truncated), BlockOutcome::Bad(BlockError::Decode(DecodeError::UnexpectedEnd)));

    let mut absent = job(&[asked]);
    absent.blocks = vec![Payload::absent(300, 7)];
    assert_eq!(run_one(absent), BlockOutcome::Bad(BlockError::Decode(DecodeError::UnexpectedEnd)));
}

#[test]
fn a_block_with_the_certified_digest_that_does_not_decode_is_the_committee_s_fault() {
    let (named, bytes) = sign(&Block { votes: vec![CommitRef::GENESIS], ..block(0, 7) });
    let mut strict = job(&[(named, bytes)]);
    strict.limits.max_votes_per_block = 0;
    let outcome = run_one(strict);
    let BlockOutcome::CertifiedInvalid(CertifiedFault::Block { error, .. }) = outcome else {
        panic!("{outcome:?}")
    };
    assert_eq!(error, BlockError::Decode(DecodeError::TooMany { items: Items::Votes, count: 1, max: 0 }));
}

#[test]
fn a_certified_reference_that_no_block_can_match_is_not_the_sender_s_fault() {
    let (found, bytes) = sign(&block(0, 7));
    let named = BlockRef { round: Round::new(8), ..found };
    assert_eq!(fault((named, bytes)), BlockError::OtherReference { found });
}

#[test]
fn one_bad_signature_is_found_among_good_ones() {
    let mut blocks: Vec<_> = (0..4).map(|author| sign(&block(author, 7))).collect();
    blocks[2] = block(2, 7).sign(|message| key(3).sign(message).to_bytes());
    for (position, outcome) in run(job(&blocks)).into_iter().enumerate() {
        match outcome {
            BlockOutcome::Good(_) => assert_ne!(position, 2),
            BlockOutcome::CertifiedInvalid(CertifiedFault::Block { error, .. }) => {
                assert_eq!((position, error), (2, BlockError::Signature));
            }
            other => panic!("{other:?}"),
        }
    }
}

/// A block without a signature to verify stands before the one whose signature is bad.
#[test]
fn a_bad_signature_is_held_against_another_block_or_passes() {
    let mut blocks: Vec<_> = (0..4).map(|author| sign(&block(author, 7))).collect();
    blocks[2] = block(2, 7).sign(|message| key(3).sign(message).to_bytes());
    let mut job = job(&blocks);
    job.blocks[0] = Payload::new(Bytes::from_static(b"no block"));
    let outcomes = run(job);
    assert!(matches!(outcomes[0], BlockOutcome::Bad(_)), "{outcomes:?}");
    assert!(matches!(outcomes[1], BlockOutcome::Good(_)), "{outcomes:?}");
    assert!(matches!(outcomes[2], BlockOutcome::CertifiedInvalid(_)), "{outcomes:?}");
    assert!(matches!(outcomes[3], BlockOutcome::Good(_)), "{outcomes:?}");
}

#[test]
fn by_digest_alone_a_signature_is_not_looked_at() {
    let mut by_digest = job(&[block(0, 7).unsigned()]);
    by_digest.mode = BlockVerification::Digest;
    assert!(matches!(run_one(by_digest), BlockOutcome::Good(_)));
}

#[test]
fn every_rule_for_blocks_has_a_reason_of_its_own() {
    let changed = |change: fn(&mut Block)| {
        let mut block = block(1, 7);
        change(&mut block);
        sign(&block)
    };
    let author = AuthorityIndex::new;
    let cases: Vec<((BlockRef, Bytes), BlockError)> = vec![
        (changed(|b| b.epoch = Epoch::new(9)), BlockError::Epoch { expected: EPOCH, found: Epoch::new(9) }),
        (changed(|b| b.round = Round::ZERO), BlockError::GenesisRound),
        (changed(|b| b.author = AuthorityIndex::new(4)), BlockError::Author { author: author(4) }),
        (block(1, 7).unsigned(), BlockError::SignatureLength { length: 0 }),
        (block(1, 7).sign(|_| [0; 64]), BlockError::Signature),
        (changed(|b| b.ancestors.push(reference(0, 5))), BlockError::TooManyAncestors { count: 5, max: 4 }),
        (changed(|b| b.ancestors[3] = reference(4, 6)), BlockError::AncestorAuthor { author: author(4) }),
        (
            changed(|b| b.ancestors.swap(0, 1)),
            BlockError::AncestorPosition { position: 0, author: author(0) },
        ),
        (
            changed(|b| b.ancestors[3] = reference(1, 5)),
            BlockError::AncestorPosition { position: 3, author: author(1) },
        ),
        (
            changed(|b| b.ancestors[3].round = Round::new(7)),
            BlockError::AncestorRound { ancestor: Round::new(7), block: Round::new(7) },
        ),
        (
            changed(|b| b.ancestors[3].round = Round::ZERO),
            BlockError::GenesisAncestor { ancestor: reference(3, 0) },
        ),
        (changed(|b| b.ancestors[3].epoch = Epoch::ZERO), BlockError::AncestorEpoch { found: Epoch::ZERO }),
        (changed(|b| b.ancestors[3] = reference(0, 5)), BlockError::DuplicateAncestor { author: author(0) }),
        (changed(|b| b.ancestors.clear()), BlockError::ParentStake { stake: Stake::ZERO }),
        (changed(|b| b.ancestors.truncate(2)), BlockError::ParentStake { stake: Stake::new(5_000) }),
        (
            changed(|b| set_end(b, [false, true, false])),
            BlockError::EndOfEpoch(EndOfEpochError::SignatureWithoutSet),
        ),
        (
            changed(|b| set_end(b, [false, false, true])),
            BlockError::EndOfEpoch(EndOfEpochError::AggregateWithoutSet),
        ),
        (
            changed(|b| set_end(b, [true, false, true])),
            BlockError::EndOfEpoch(EndOfEpochError::AggregateWithoutSignature),
        ),
    ];
    for (block, expected) in cases {
        let alone = BlockView::decode(&block.1, &Limits::default())
            .expect("it decodes")
            .verify(&committee(), &|_| true);
        assert_eq!(alone, Err(expected.clone()));
        assert_eq!(fault(block), expected);
    }
}

/// Sets some of: validator set, author's signature on it, aggregate signature.
fn set_end(block: &mut Block, fields: [bool; 3]) {
    set_end_with(validators(), block, fields);
}

fn set_end_with(next: ValidatorSet, block: &mut Block, [set, signature, aggregate]: [bool; 3]) {
    let author = block.author.get();
    block.end_of_epoch = Some(EndOfEpochData {
        validator_set_signature: signature.then(|| sign_set(&next, &[author])),
        aggregate_signature: aggregate.then(|| sign_set(&next, &[0, 1, 2, 3])),
        next_validator_set: set.then_some(next),
        ..EndOfEpochData::default()
    });
}

#[test]
fn the_first_round_builds_on_this_epoch_s_genesis_blocks() {
    let mut first = block(1, 1);
    for ancestor in &mut first.ancestors {
        *ancestor = committee().genesis(ancestor.author).expect("in the committee");
    }
    assert!(matches!(run_one(job(&[sign(&first)])), BlockOutcome::Good(_)));
    first.ancestors[2].digest = first.ancestors[3].digest;
    let ancestor = first.ancestors[2];
    assert_eq!(fault(sign(&first)), BlockError::GenesisAncestor { ancestor });
}

#[test]
fn a_refused_transaction_is_told_by_its_position() {
    let transactions = vec![Bytes::from_static(b"good"), Bytes::from_static(b"bad")];
    let job = job(&[sign(&Block { transactions, ..block(0, 7) })]);
    assert!(matches!(run_one(job.clone()), BlockOutcome::Good(_)));
    let Verdict::Check(outcomes) = Job::Check(Box::new(job)).run_with([1; 32], &|bytes| bytes != b"bad")
    else {
        panic!("another kind")
    };
    let BlockOutcome::CertifiedInvalid(CertifiedFault::Block { error, .. }) = &outcomes[0] else {
        panic!("{outcomes:?}")
    };
    assert_eq!(*error, BlockError::Transaction { position: 1 });
}

/// How an epoch ends with this validator set.
fn epoch_end(set: ValidatorSet, limits: Limits) -> Option<EpochEnd> {
    let mut last = block(0, 7);
    set_end_with(set, &mut last, [true, true, true]);
    let mut job = job(&[sign(&last)]);
    job.limits = limits;
    match run_one(job) {
        BlockOutcome::Good(block) => block.into_inner().epoch_end,
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_complete_data_ends_an_epoch() {
    for fields in [[false, false, false], [true, false, false], [true, true, false]] {
        let mut unfinished = block(0, 7);
        set_end(&mut unfinished, fields);
        let BlockOutcome::Good(good) = run_one(job(&[sign(&unfinished)])) else { panic!("{fields:?}") };
        assert_eq!(good.epoch_end, None, "{fields:?}");
    }
}

#[test]
fn the_next_committee_is_that_of_the_validator_set_in_index_order() {
    let mut set = ValidatorSet { authorities: vec![authority(7, 4_000), authority(2, 6_000)] };
    let Some(EpochEnd::Next(next)) = epoch_end(set.clone(), Limits::default()) else {
        panic!("no next committee")
    };
    assert_eq!(next.epoch(), Epoch::new(4));
    assert_eq!(next.stake(AuthorityIndex::new(0)), Some(Stake::new(6_000)));
    set.authorities.reverse();
    assert_eq!(next.encoding()[..], set.encode());
}

#[test]
fn a_validator_set_that_makes_no_committee_is_told_with_its_reason() {
    let set = |authorities: &[(u32, u64)]| ValidatorSet {
        authorities: authorities.iter().map(|(index, stake)| authority(*index, *stake)).collect(),
    };
    let mut bad_protocol_key = validators();
    bad_protocol_key.authorities[1].metadata.protocol_key = [2; 32];
    bad_protocol_key.authorities[1].metadata.protocol_key[1..].fill(0);
    let mut bad_network_key = validators();
    bad_network_key.authorities[3].metadata.network_key =
        bad_protocol_key.authorities[1].metadata.protocol_key;
    let cases = [
        (set(&[]), InvalidNextCommittee::Empty),
        (set(&[(0, 1), (1, 1), (2, 1), (3, 1), (4, 1)]), InvalidNextCommittee::TooMany { count: 5, max: 4 }),
        (
            set(&[(1, 5_000), (1, 5_000)]),
            InvalidNextCommittee::DuplicateName { second: AuthorityIndex::new(1) },
        ),
        (set(&[(1, 9_999)]), InvalidNextCommittee::Stake { sum: Stake::new(9_999) }),
        (set(&[(1, u64::MAX), (2, 10_001)]), InvalidNextCommittee::Stake { sum: Stake::MAX }),
        (bad_protocol_key, InvalidNextCommittee::Key { authority: AuthorityIndex::new(1) }),
        (bad_network_key, InvalidNextCommittee::Key { authority: AuthorityIndex::new(3) }),
    ];
    let limits = Limits { max_ancestors: 4, ..Limits::default() };
    for (set, reason) in cases {
        assert_eq!(epoch_end(set, limits), Some(EpochEnd::Invalid(reason)));
    }
}

#[test]
fn there_is_no_committee_after_the_last_epoch() {
    let mut last = block(0, 7);
    last.epoch = Epoch::MAX;
    set_end(&mut last, [true, true, true]);
    let job = VotesJob { blocks: vec![Payload::new(sign(&last).1)], limits: Limits::default() };
    let Verdict::Votes(blocks) = Job::Votes(Box::new(job)).run([1; 32]) else { panic!("another kind") };
    assert_eq!(blocks[0].epoch_end, Some(EpochEnd::Invalid(InvalidNextCommittee::NoNextEpoch)));
}

#[test]
fn a_committee_that_does_not_decode_says_why() {
    let mut bytes = validators().encode();
    assert!(Committee::decode(EPOCH, &bytes, &Limits::default()).is_ok());
    bytes[1] = 95;
    let refused = Committee::decode(EPOCH, &bytes, &Limits::default()).expect_err("a name of 95 bytes");
    assert_eq!(refused, CommitteeError::Decode(DecodeError::FixedLength { expected: 96, found: 95 }));
}

#[test]
fn exactly_a_quorum_is_none_or_one_less_is_one() {
    for (stake, is_quorum) in [(3_334, false), (6_666, false), (6_667, true), (6_668, true)] {
        let set = ValidatorSet { authorities: vec![authority(0, stake), authority(1, 10_000 - stake)] };
        let committee = Committee::new(EPOCH, set, &Limits::default()).expect("valid validators");
        let mut tally = StakeTally::new();
        tally.add(AuthorityIndex::new(0), &committee);
        assert_eq!(tally.reached_quorum(), is_quorum, "{stake}");
    }
}

#[test]
fn a_tally_counts_each_member_once_and_no_stranger() {
    let committee = committee();
    let mut tally = StakeTally::new();
    for (author, counted, stake) in [(0, true, 2_500), (3, true, 5_000), (0, false, 5_000), (4, false, 5_000)]
    {
        assert_eq!(tally.add(AuthorityIndex::new(author), &committee), counted);
        assert_eq!(tally.stake(), Stake::new(stake));
        assert!(!tally.reached_quorum());
    }
    assert!(tally.contains(AuthorityIndex::new(3)) && !tally.contains(AuthorityIndex::new(1)));
    assert!(!tally.contains(AuthorityIndex::MAX));
    assert!(tally.add(AuthorityIndex::new(1), &committee) && tally.reached_quorum());
}

fn observed() -> (Commit, Vec<(BlockRef, Bytes)>) {
    let blocks: Vec<_> = (0..3).map(|author| sign(&block(author, 7))).collect();
    let commit = Commit {
        index: CommitIndex::new(5),
        previous: CommitDigest::ZERO,
        timestamp_ms: 1,
        leader: blocks[0].0,
        blocks: blocks.iter().map(|(reference, _)| *reference).collect(),
        epoch: EPOCH,
    };
    (commit, blocks)
}

fn observe(commit: &Commit, blocks: &[(BlockRef, Bytes)]) -> ObserveVerdict {
    let job = ObserveJob {
        commit: Payload::new(commit.encode().1.into()),
        blocks: blocks.iter().map(|(_, bytes)| Payload::new(bytes.clone())).collect(),
        limits: Limits::default(),
    };
    match Job::Observe(Box::new(job)).run([1; 32]) {
        Verdict::Observe(verdict) => verdict,
        other => panic!("a verdict of another kind: {other:?}"),
    }
}

#[test]
fn an_observed_commit_is_taken_with_exactly_its_blocks() {
    let (commit, blocks) = observed();
    let ObserveVerdict::Observed { commit: header, blocks: taken } = observe(&commit, &blocks) else {
        panic!("refused")
    };
    assert_eq!(header.reference, commit.encode().0);
    assert!(taken.iter().map(|block| block.reference).eq(commit.blocks.iter().copied()));

    let count = ObserveError::Count { named: 3, given: 2 };
    assert_eq!(observe(&commit, &blocks[..2]), ObserveVerdict::Refused(count));

    let mut swapped = blocks.clone();
    swapped.swap(1, 2);
    let error = BlockError::OtherBlock { found: swapped[1].0 };
    assert_eq!(
        observe(&commit, &swapped),
        ObserveVerdict::Refused(ObserveError::Block { position: 1, error })
    );

    let mut cut = blocks;
    cut[2].1.truncate(60);
    let error = BlockError::Decode(DecodeError::UnexpectedEnd);
    assert_eq!(observe(&commit, &cut), ObserveVerdict::Refused(ObserveError::Block { position: 2, error }));

    let job = ObserveJob { commit: Payload::absent(3, 0), blocks: Vec::new(), limits: Limits::default() };
    let refused = ObserveVerdict::Refused(ObserveError::Commit(DecodeError::UnexpectedEnd));
    assert_eq!(Job::Observe(Box::new(job)).run([1; 32]), Verdict::Observe(refused));
}

#[test]
fn blocks_that_do_not_decode_hold_no_votes() {
    let vote = CommitRef { index: CommitIndex::new(5), digest: CommitDigest::new([1; 32]) };
    let (reference, bytes) = sign(&Block { votes: vec![vote], ..block(0, 7) });
    let blocks = vec![Payload::new(bytes.slice(1..)), Payload::new(bytes)];
    let job = VotesJob { blocks, limits: Limits::default() };
    let Verdict::Votes(blocks) = Job::Votes(Box::new(job)).run([1; 32]) else { panic!("another kind") };
    assert_eq!(blocks.len(), 1);
    assert_eq!((blocks[0].reference, &blocks[0].votes[..]), (reference, &[vote][..]));
}

#[test]
fn parents_of_exactly_a_quorum_are_too_few_or_of_less_are_enough() {
    let outcome = |stake: u64| {
        let authorities =
            vec![authority(0, 5_000), authority(1, stake - 5_000), authority(2, 10_000 - stake)];
        let committee = Committee::new(EPOCH, ValidatorSet { authorities }, &Limits::default()).unwrap();
        let ancestors = vec![reference(0, 4), reference(1, 4)];
        let job = job(&[sign(&Block { ancestors, ..block(0, 5) })]);
        run_one(CheckJob { committee: committee.into(), ..job })
    };
    assert!(matches!(outcome(6_667), BlockOutcome::Good(_)));
    let BlockOutcome::CertifiedInvalid(CertifiedFault::Block { error, .. }) = outcome(6_666) else {
        panic!("parents of less than a quorum are enough")
    };
    assert_eq!(error, BlockError::ParentStake { stake: Stake::new(6_666) });
}
