//! What the feature `bls` refuses at an epoch's end, and that it refuses nothing else: by blocks made here, and by the
//! original's vectors that its check beside the ancestors refuses.

use bytes::Bytes;
use soma_sync_core::{
    block::{Block, BlockError, BlockView, EndOfEpochData, EndOfEpochError, InvalidNextCommittee},
    certify::CertifiedFault,
    committee::{Committee, ValidatorSet},
    config::{BlockVerification, Limits},
    job::{
        BlockOutcome, CertifyVerdict, CheckJob, EpochEnd, Job, ObserveJob, ObserveVerdict, Verdict, VotesJob,
    },
    payload::Payload,
    types::{AuthorityIndex, BlockRef, Stake},
};
use soma_sync_tests::{
    differences::Comparison,
    fixture::{
        EPOCH, authority, block, certify_job, commits, committee, reference, sign, sign_set, validators, vote,
    },
    vectors::{Vectors, list, outcome, read_blocks, text, unhex},
};
use std::sync::Arc;

/// The neutral point of the group that signatures are in.
const NEUTRAL: [u8; 48] = {
    let mut bytes = [0; 48];
    bytes[0] = 0xc0;
    bytes
};
/// A point of the curve, and not of the group that signatures are in: x = 4.
const OUTSIDE_THE_GROUP: [u8; 48] = {
    let mut bytes = [0; 48];
    bytes[0] = 0x80;
    bytes[47] = 4;
    bytes
};
const NO_POINT: [u8; 48] = [0xff; 48];

/// Complete data by authority 0, with an aggregate by these.
fn end(signers: &[u32]) -> EndOfEpochData {
    EndOfEpochData {
        validator_set_signature: Some(sign_set(&validators(), &[0])),
        aggregate_signature: Some(sign_set(&validators(), signers)),
        next_validator_set: Some(validators()),
        ..EndOfEpochData::default()
    }
}

fn with(end: EndOfEpochData) -> Block {
    Block { end_of_epoch: Some(end), ..block(0, 7) }
}

fn check(
    block: &(BlockRef, Bytes),
    committee: Arc<Committee>,
    mode: BlockVerification,
) -> Result<Option<EpochEnd>, BlockError> {
    let job = CheckJob {
        refs: vec![block.0],
        blocks: vec![Payload::new(block.1.clone())],
        committee,
        mode,
        limits: Limits::default(),
    };
    let Verdict::Check(mut outcomes) = Job::Check(Box::new(job)).run([1; 32]) else { panic!("another kind") };
    match outcomes.remove(0) {
        BlockOutcome::Good(block) => Ok(block.into_inner().epoch_end),
        BlockOutcome::CertifiedInvalid(CertifiedFault::Block { reference, error, payload }) => {
            assert_eq!((reference, payload.bytes()), (block.0, &block.1));
            Err(error)
        }
        other => panic!("{other:?}"),
    }
}

fn verdict(block: &Block) -> Result<Option<EpochEnd>, BlockError> {
    check(&sign(block), committee(), BlockVerification::Full)
}

fn refused(end: EndOfEpochData) -> EndOfEpochError {
    match verdict(&with(end)) {
        Err(BlockError::EndOfEpoch(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_aggregate_by_any_quorum_with_the_author_ends_the_epoch() {
    for signers in [&[0, 1, 2, 3][..], &[0, 1, 2], &[3, 0, 1], &[0, 2, 3]] {
        let Ok(Some(EpochEnd::Next(next))) = verdict(&with(end(signers))) else { panic!("{signers:?}") };
        assert_eq!(next.encoding()[..], validators().encode());
    }
}

#[test]
fn the_point_outside_the_group_is_one_of_the_curve() {
    let point = blst::min_sig::Signature::uncompress(&OUTSIDE_THE_GROUP).expect("it is on the curve");
    assert!(!point.subgroup_check());
}

#[test]
fn the_author_s_signature_must_be_a_point_of_the_group_and_its_own() {
    let signed = |signature| EndOfEpochData { validator_set_signature: Some(signature), ..end(&[0, 1, 2]) };
    for bytes in [NEUTRAL, OUTSIDE_THE_GROUP, NO_POINT, [0; 48]] {
        assert_eq!(refused(signed(bytes)), EndOfEpochError::SignaturePoint, "{bytes:02x?}");
    }
    let mut other = validators();
    other.authorities[0].stake = Stake::new(2_499);
    let (by_another, over_another) = (sign_set(&validators(), &[1]), sign_set(&other, &[0]));
    for bytes in [by_another, over_another] {
        assert_eq!(refused(signed(bytes)), EndOfEpochError::Signature);
        let alone = EndOfEpochData { aggregate_signature: None, ..signed(bytes) };
        assert_eq!(refused(alone), EndOfEpochError::Signature, "it is checked before there is an aggregate");
    }
}

#[test]
fn the_aggregate_must_be_a_point_of_the_group_and_made_by_a_quorum_with_the_author() {
    let aggregated = |aggregate| EndOfEpochData { aggregate_signature: Some(aggregate), ..end(&[0]) };
    for bytes in [NEUTRAL, OUTSIDE_THE_GROUP, NO_POINT, [0; 48]] {
        assert_eq!(refused(aggregated(bytes)), EndOfEpochError::AggregatePoint, "{bytes:02x?}");
    }
    let no_quorum_with_the_author =
        [&[0][..], &[0, 1], &[1, 2, 3], &[0, 1, 2, 2], &[0, 1, 4], &[0, 1, 2, 3, 4]];
    for signers in no_quorum_with_the_author {
        assert_eq!(refused(end(signers)), EndOfEpochError::Aggregate, "{signers:?}");
    }
    let mut other = validators();
    other.authorities[0].stake = Stake::new(2_499);
    assert_eq!(refused(aggregated(sign_set(&other, &[0, 1, 2, 3]))), EndOfEpochError::Aggregate);
}

#[test]
fn who_is_no_ancestor_s_author_cannot_have_signed() {
    let mut narrow = with(end(&[0, 1, 2, 3]));
    narrow.ancestors.truncate(3);
    assert_eq!(verdict(&narrow), Err(BlockError::EndOfEpoch(EndOfEpochError::Aggregate)));
    narrow.end_of_epoch = Some(end(&[0, 1, 2]));
    assert!(matches!(verdict(&narrow), Ok(Some(EpochEnd::Next(_)))));
}

/// A committee of equal stakes, a block of its first authority on all the others, and the block's reference.
fn large(size: u32, signers: &[u32]) -> (Arc<Committee>, (BlockRef, Bytes)) {
    let share = |index| 10_000 / u64::from(size) + u64::from(u64::from(index) < 10_000 % u64::from(size));
    let set = ValidatorSet { authorities: (0..size).map(|index| authority(index, share(index))).collect() };
    let committee = Committee::new(EPOCH, set, &Limits::default()).expect("a valid committee");
    let ancestors = (0..size).map(|author| reference(author, 6)).collect();
    let block = sign(&Block { ancestors, ..with(end(signers)) });
    (Arc::new(committee), block)
}

#[test]
fn the_aggregate_of_a_committee_of_twenty_is_decided_and_of_a_larger_one_never_refused_wrongly() {
    let judge = |size, signers: &[u32]| {
        let (committee, block) = large(size, signers);
        check(&block, committee, BlockVerification::Full)
    };
    let wrong = Err(BlockError::EndOfEpoch(EndOfEpochError::Aggregate));
    let but = |size: u32, absent: &[u32]| -> Vec<_> {
        (0..size).filter(|signer| !absent.contains(signer)).collect()
    };
    assert!(judge(20, &but(20, &[1, 3, 7, 12, 18, 19])).is_ok(), "fourteen are a quorum");
    assert_eq!(judge(20, &but(20, &[1, 3, 7, 12, 17, 18, 19])), wrong, "thirteen are none");
    assert!(judge(30, &but(30, &[])).is_ok());
    assert!(judge(30, &but(30, &[1, 2, 3, 4, 5, 6, 7, 8, 9])).is_ok(), "there are too many choices to know");
}

#[test]
fn a_bad_ed25519_signature_is_told_before_a_bad_bls_one() {
    let signed = sign(&with(end(&[0])));
    let mut bytes = signed.1.to_vec();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    let reference = BlockView::decode(&bytes, &Limits::default()).expect("it decodes").reference();
    let found = check(&(reference, bytes.into()), committee(), BlockVerification::Full);
    assert_eq!(found, Err(BlockError::Signature));
}

#[test]
fn nothing_is_checked_where_blocks_are_taken_by_their_digests() {
    let block = sign(&with(end(&[0])));
    assert!(matches!(check(&block, committee(), BlockVerification::Digest), Ok(Some(EpochEnd::Next(_)))));
}

#[test]
fn a_bls_key_that_is_no_point_of_the_group_makes_no_committee() {
    let mut neutral = [0; 96];
    neutral[0] = 0xc0;
    for key in [neutral, [0xff; 96], [0; 96]] {
        let mut set = validators();
        set.authorities[2].metadata.authority_key = key;
        let last = with(EndOfEpochData {
            validator_set_signature: Some(sign_set(&set, &[0])),
            aggregate_signature: Some(sign_set(&set, &[0, 1, 2])),
            next_validator_set: Some(set),
            ..EndOfEpochData::default()
        });
        let reason = InvalidNextCommittee::AuthorityKey { authority: AuthorityIndex::new(2) };
        assert_eq!(verdict(&last), Ok(Some(EpochEnd::Invalid(reason))));
    }
}

#[test]
fn a_vote_counts_and_nobody_is_blamed_whatever_bls_signatures_stand_beside_it() {
    let commits = commits();
    let last = commits.last().expect("there are some").encode().0;
    let mut job = certify_job(&commits);
    job.certifiers[0] = Payload::new(sign(&Block { end_of_epoch: Some(end(&[0])), ..vote(0, last) }).1);
    let Verdict::Certify(CertifyVerdict::Certified(range)) = Job::Certify(Box::new(job)).run([1; 32]) else {
        panic!("not certified")
    };
    assert_eq!((range.certifiers.len(), range.bad_certifiers), (3, 0));
}

#[test]
fn what_our_own_consensus_made_is_not_checked_again() {
    let (reference, bytes) = sign(&with(end(&[0])));
    let mut commit = commits().remove(0);
    commit.blocks = vec![reference];
    commit.leader = reference;
    let observed = ObserveJob {
        commit: Payload::new(commit.encode().1.into()),
        blocks: vec![Payload::new(bytes.clone())],
        limits: Limits::default(),
    };
    let verdict = Job::Observe(Box::new(observed)).run([1; 32]);
    assert!(matches!(verdict, Verdict::Observe(ObserveVerdict::Observed { .. })), "{verdict:?}");
    let votes = VotesJob { blocks: vec![Payload::new(bytes)], limits: Limits::default() };
    let verdict = Job::Votes(Box::new(votes)).run([1; 32]);
    assert!(matches!(verdict, Verdict::Votes(blocks) if blocks.len() == 1));
}

#[test]
fn the_message_is_the_intent_and_the_digest_of_the_set_as_the_block_has_it() {
    let message = validators().signing_message();
    assert_eq!(message[..3], [6, 0, 0]);
    let mut reversed = validators();
    reversed.authorities.reverse();
    assert_ne!(reversed.signing_message(), message);
}

#[test]
fn an_aggregate_that_the_original_refuses_beside_its_ancestors_is_refused_by_the_block_alone() {
    let Some(vectors) = Vectors::find() else { return };
    let committees = vectors.committees();
    let mut comparison = Comparison::new("check_ancestors.json");
    for vector in list(&vectors.json("check_ancestors.json")) {
        let (name, bytes) = (text(&vector["name"]), unhex(&vector["signed_block_bcs"]));
        let committee = Arc::clone(&committees[text(&vector["committee"])]);
        let reference = BlockView::decode(&bytes, &Limits::default()).expect("it decodes").reference();
        let ours = match check(&(reference, bytes), committee, BlockVerification::Full) {
            Ok(_) => "ok",
            Err(BlockError::EndOfEpoch(EndOfEpochError::Aggregate)) => "InvalidEndOfEpoch",
            Err(other) => panic!("{name}: {other}"),
        };
        comparison.record(name, &outcome(&vector["expect"]), ours);
    }
    comparison.finish(7);
}

/// How many of these blocks hold, each with a next validator set that its author signed.
fn count_signed(blocks: &[Bytes], committee: impl Fn(&BlockView<'_>) -> Arc<Committee>) -> usize {
    let signed = blocks.iter().filter(|bytes| {
        let view = BlockView::decode(bytes, &Limits::default()).expect("it decodes");
        view.verify_bls(&committee(&view)).unwrap_or_else(|error| panic!("{}: {error}", view.reference()));
        view.end_of_epoch().is_some_and(|data| data.validator_set_signature.is_some())
    });
    signed.count()
}

#[test]
fn the_signatures_in_every_block_that_the_original_accepted_hold() {
    let Some(vectors) = Vectors::find() else { return };
    let committees = vectors.committees();
    let blocks = read_blocks(&vectors.bytes("chain_all_blocks.bin"));
    let of_epoch = |view: &BlockView<'_>| Arc::clone(&committees[&format!("chain_epoch{}", view.epoch())]);
    assert_eq!(count_signed(&blocks, of_epoch), 18);
    let json = vectors.json("blocks.json");
    let accepted = list(&json).iter().filter(|vector| outcome(&vector["verify"]) == "ok");
    let signed = accepted.map(|vector| {
        let committee = Arc::clone(&committees[text(&vector["committee"])]);
        count_signed(&[unhex(&vector["signed_block_bcs"])], |_| Arc::clone(&committee))
    });
    assert_eq!(signed.sum::<usize>(), 4);
}
