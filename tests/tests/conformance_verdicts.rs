//! Every negative vector of the original implementation: the same verdict, or a difference that the table lists.

use bytes::Bytes;
use soma_sync_core::{
    block::{BlockError, BlockView, EndOfEpochError},
    certify::{CertifiedFault, CertifierError, CertifyError},
    committee::Committee,
    config::{BlockVerification, Limits},
    job::{BlockOutcome, CertifyJob, CertifyVerdict, CheckJob, EpochEnd, Job, Verdict},
    payload::Payload,
    types::{BlockRef, CommitIndex},
};
use soma_sync_tests::{
    differences::Comparison,
    vectors::{Vectors, block_ref, list, number_u32, outcome, text, unhex},
};
use std::{collections::BTreeMap, sync::Arc};

/// Verdicts do not depend on it, so any will do here.
const ENTROPY: [u8; 32] = [7; 32];

/// The original's name for what is wrong with a block; ours where it has none.
fn block_error_name(error: &BlockError) -> &'static str {
    match error {
        BlockError::Decode(_) => "MalformedBlock",
        BlockError::OtherBlock { .. } => "UnexpectedBlockForCommit",
        BlockError::OtherReference { .. } => "OtherReference",
        BlockError::Epoch { .. } => "WrongEpoch",
        BlockError::GenesisRound => "UnexpectedGenesisBlock",
        BlockError::Author { .. } | BlockError::AncestorAuthor { .. } => "InvalidAuthorityIndex",
        BlockError::SignatureLength { .. } => "MalformedSignature",
        BlockError::Signature => "SignatureVerificationFailure",
        BlockError::TooManyAncestors { .. } => "TooManyAncestors",
        BlockError::AncestorPosition { .. } => "InvalidAncestorPosition",
        BlockError::AncestorRound { .. } => "InvalidAncestorRound",
        BlockError::GenesisAncestor { .. } => "InvalidGenesisAncestor",
        BlockError::AncestorEpoch { .. } => "AncestorEpoch",
        BlockError::DuplicateAncestor { .. } => "DuplicatedAncestorsAuthority",
        BlockError::ParentStake { .. } => "InsufficientParentStakes",
        BlockError::Transaction { .. } => "InvalidTransaction",
        BlockError::EndOfEpoch(EndOfEpochError::Signature) => "SignatureVerificationFailure",
        BlockError::EndOfEpoch(EndOfEpochError::SignaturePoint | EndOfEpochError::AggregatePoint) => {
            "MalformedBlock"
        }
        BlockError::EndOfEpoch(
            EndOfEpochError::SignatureWithoutSet
            | EndOfEpochError::AggregateWithoutSet
            | EndOfEpochError::AggregateWithoutSignature
            | EndOfEpochError::Aggregate,
        ) => "InvalidEndOfEpoch",
    }
}

fn check(job: CheckJob) -> Vec<BlockOutcome> {
    match Job::Check(Box::new(job)).run(ENTROPY) {
        Verdict::Check(outcomes) => outcomes,
        other => panic!("a verdict of another kind: {other:?}"),
    }
}

/// What the checking job says of bytes for which a certified commit names the reference that they have.
fn verdict_on_block(bytes: &Bytes, committee: &Arc<Committee>) -> String {
    let limits = Limits::default();
    let reference =
        BlockView::decode(bytes, &limits).map_or(BlockRef::from_bytes(&[0; 48]), |view| view.reference());
    let [outcome] = &check(CheckJob {
        refs: vec![reference],
        blocks: vec![Payload::new(bytes.clone())],
        committee: Arc::clone(committee),
        mode: BlockVerification::Full,
        limits,
    })[..] else {
        panic!("not one outcome")
    };
    match outcome {
        BlockOutcome::Good(block) => match &block.epoch_end {
            Some(EpochEnd::Invalid(reason)) => format!("ok, then InvalidNextCommittee: {reason}"),
            Some(EpochEnd::Next(_)) | None => "ok".to_owned(),
        },
        BlockOutcome::Bad(error) | BlockOutcome::CertifiedInvalid(CertifiedFault::Block { error, .. }) => {
            block_error_name(error).to_owned()
        }
        BlockOutcome::CertifiedInvalid(CertifiedFault::Commit { .. }) => panic!("there is no commit"),
    }
}

#[test]
fn a_bad_block_is_refused_for_the_reason_that_the_original_gives() {
    let Some(vectors) = Vectors::find() else { return };
    let committees = vectors.committees();
    let mut comparison = Comparison::new("negative_blocks.json");
    for vector in list(&vectors.json("negative_blocks.json")) {
        let (name, bytes) = (text(&vector["name"]), unhex(&vector["signed_block_bcs"]));
        let committee = &committees[text(&vector["committee"])];
        let ours = verdict_on_block(&bytes, committee);
        comparison.record(name, &outcome(&vector["expect"]), &ours);

        if let Ok(view) = BlockView::decode(&bytes, &Limits::default()) {
            let alone = view.verify(committee, &|_| true);
            #[cfg(feature = "bls")]
            let alone = alone.and_then(|_| view.verify_bls(committee).map_err(BlockError::EndOfEpoch));
            let alone = alone.as_ref().map_or_else(block_error_name, |_| "ok");
            assert!(ours.starts_with(alone), "{name}: the job says {ours}, verifying it alone {alone}");
        }
    }
    comparison.finish(64);
}

fn certify(job: CertifyJob) -> CertifyVerdict {
    match Job::Certify(Box::new(job)).run(ENTROPY) {
        Verdict::Certify(verdict) => verdict,
        other => panic!("a verdict of another kind: {other:?}"),
    }
}

fn certify_error_name(error: &CertifyError) -> &'static str {
    match error {
        CertifyError::Empty => "NoCommitReceived",
        CertifyError::TooManyCommits { .. } => "TooManyCommits",
        CertifyError::TooManyCertifiers { .. } => "TooManyCertifiers",
        CertifyError::Commit { .. } => "MalformedCommit",
        CertifyError::Start { .. } => "UnexpectedStartCommit",
        CertifyError::Sequence { .. } | CertifyError::Link { .. } => "UnexpectedCommitSequence",
        CertifyError::EpochChange { .. } => "EpochChange",
        CertifyError::NoQuorum { first_bad: Some(CertifierError::Block(error)), .. } => {
            block_error_name(error)
        }
        CertifyError::NoQuorum { first_bad: Some(CertifierError::NoVote) | None, .. } => {
            "NotEnoughCommitVotes"
        }
    }
}

fn certify_name(verdict: &CertifyVerdict) -> String {
    match verdict {
        CertifyVerdict::Certified(range) if range.bad_certifiers > 0 => {
            format!("ok without {} bad certifiers", range.bad_certifiers)
        }
        CertifyVerdict::Certified(_) => "ok".to_owned(),
        // The machine runs a job under the committee that it expects; it may know others.
        CertifyVerdict::OtherEpoch { .. } => "NoCommitteeForEpoch".to_owned(),
        CertifyVerdict::Refused(error) => certify_error_name(error).to_owned(),
        CertifyVerdict::CertifiedInvalid(CertifiedFault::Commit { rule, .. }) => {
            format!("certified, but {rule}")
        }
        CertifyVerdict::CertifiedInvalid(CertifiedFault::Block { .. }) => panic!("no block was looked at"),
    }
}

/// The job that a machine makes of a vector: it expects epoch 1 from commit 93 on, where it knows that committee.
fn certify_job(vector: &serde_json::Value, committees: &BTreeMap<String, Arc<Committee>>) -> CertifyJob {
    let start = number_u32(&vector["request"]["start"]);
    let known: Vec<_> = list(&vector["known_committees"]).iter().map(text).collect();
    let expected = known.iter().rev().find(|name| **name == "chain_epoch0" || start >= 93).expect("known");
    let payloads = |key: &str| list(&vector[key]).iter().map(|bytes| Payload::new(unhex(bytes))).collect();
    CertifyJob {
        start: CommitIndex::new(start),
        last: CommitIndex::new(number_u32(&vector["request"]["end"])),
        committee: Arc::clone(&committees[*expected]),
        commits: payloads("commits"),
        certifiers: payloads("certifier_blocks"),
        limits: Limits::default(),
    }
}

#[test]
fn an_answer_with_commits_is_certified_or_refused_as_by_the_original() {
    let Some(vectors) = Vectors::find() else { return };
    let committees = vectors.committees();
    let mut comparison = Comparison::new("negative_commits.json");
    for vector in list(&vectors.json("negative_commits.json")["vectors"]) {
        let verdict = certify(certify_job(vector, &committees));
        if let CertifyVerdict::Certified(range) = &verdict {
            assert_eq!(
                range.commits.len() as u64,
                vector["expect"]["count"].as_u64().unwrap_or(10),
                "{}",
                vector["name"]
            );
            assert!(range.certifiers.is_sorted_by(|a, b| a.reference.author < b.reference.author));
        }
        comparison.record(text(&vector["name"]), &outcome(&vector["expect"]), &certify_name(&verdict));
    }
    comparison.finish(29);
}

#[test]
fn a_certified_commit_that_does_not_follow_ours_can_be_told_by_its_first_link() {
    let Some(vectors) = Vectors::find() else { return };
    let committees = vectors.committees();
    let json = vectors.json("negative_commits.json");
    let vector =
        |name: &str| list(&json["vectors"]).iter().find(|vector| vector["name"] == name).expect("it exists");
    let range = |name| match certify(certify_job(vector(name), &committees)) {
        CertifyVerdict::Certified(range) => range.into_inner(),
        other => panic!("{name}: {other:?}"),
    };
    let ours = range("control_1_to_10").commits[3].reference;
    assert_eq!(range("control_single").commits[0].previous, ours.digest);
    assert_ne!(range("ACCEPTED_first_commit_not_linked").commits[0].previous, ours.digest);
}

/// What the checking job makes of the blocks of an answer. Where there are fewer than were asked for, positions are
/// those that the server would have left after listing what it lacks.
fn verdict_on_answer(mut refs: Vec<BlockRef>, blocks: &[Bytes], committee: &Arc<Committee>) -> String {
    let (asked, limits) = (refs.len(), Limits::default());
    if blocks.len() < asked {
        let there = |reference: &BlockRef| {
            blocks.iter().any(|block| {
                BlockView::decode(block, &limits).is_ok_and(|view| view.reference() == *reference)
            })
        };
        refs.retain(there);
    }
    let surplus = blocks.len().saturating_sub(asked);
    let payloads = blocks.iter().take(asked).cloned().map(Payload::new).collect();
    let mode = BlockVerification::Full;
    let outcomes = check(CheckJob { refs, blocks: payloads, committee: Arc::clone(committee), mode, limits });
    let good = outcomes.iter().filter(|outcome| matches!(outcome, BlockOutcome::Good(_))).count();
    let bad = outcomes.iter().find_map(|outcome| match outcome {
        BlockOutcome::Bad(error) => Some(block_error_name(error)),
        BlockOutcome::CertifiedInvalid(fault) => panic!("blamed on the committee: {fault}"),
        BlockOutcome::Good(_) => None,
    });
    match bad {
        Some(error) => error.to_owned(),
        None if surplus > 0 => format!("{good} of {asked} are good, and {surplus} too many"),
        None if good < asked => format!("{good} of {asked} are good"),
        None => "ok".to_owned(),
    }
}

#[test]
fn an_answer_with_blocks_is_taken_or_refused_as_by_the_original() {
    let Some(vectors) = Vectors::find() else { return };
    let committees = vectors.committees();
    let mut comparison = Comparison::new("negative_fetch_blocks.json");
    for vector in list(&vectors.json("negative_fetch_blocks.json")["vectors"]) {
        let refs = list(&vector["refs"]).iter().map(block_ref).collect();
        let blocks: Vec<_> = list(&vector["messages"]).iter().flat_map(list).map(unhex).collect();
        let ours = verdict_on_answer(refs, &blocks, &committees["chain_epoch0"]);
        comparison.record(text(&vector["name"]), &outcome(&vector["expect"]), &ours);
    }
    comparison.finish(9);
}
