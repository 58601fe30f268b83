//! The certifying job: every way in which an answer to `FetchCommits` can be wrong, and whose fault it is.

use soma_sync_core::{
    block::{BlockError, DecodeError},
    certify::{CertifiedFault, CertifierError, CertifyError, CommitRule},
    commit::Commit,
    job::{CertifiedRange, CertifyJob, CertifyVerdict, Job, Verdict},
    payload::Payload,
    types::{CommitDigest, CommitIndex, CommitRef, Epoch, Stake},
};
use soma_sync_tests::fixture::{EPOCH, certify_job, commits, key, reference, relink, sign, vote};

fn run(job: CertifyJob) -> CertifyVerdict {
    let verdict = |entropy| Job::Certify(Box::new(job.clone())).run([entropy; 32]);
    let first = verdict(1);
    assert_eq!(first, verdict(2), "the verdict depends on the entropy");
    match first {
        Verdict::Certify(verdict) => verdict,
        other => panic!("a verdict of another kind: {other:?}"),
    }
}

fn certified(job: CertifyJob) -> CertifiedRange {
    match run(job) {
        CertifyVerdict::Certified(range) => range.into_inner(),
        other => panic!("{other:?}"),
    }
}

fn refused(job: CertifyJob) -> CertifyError {
    match run(job) {
        CertifyVerdict::Refused(error) => error,
        other => panic!("{other:?}"),
    }
}

fn last_ref(commits: &[Commit]) -> CommitRef {
    commits.last().expect("not empty").encode().0
}

fn voters(range: &CertifiedRange) -> Vec<u32> {
    range.certifiers.iter().map(|block| block.reference.author.get()).collect()
}

#[test]
fn a_linked_range_with_a_quorum_is_certified() {
    let range = certified(certify_job(&commits()));
    assert_eq!(range.commits.len(), 3);
    assert_eq!(range.commits[2].reference, last_ref(&commits()));
    assert_eq!((voters(&range), range.bad_certifiers), (vec![0, 1, 2], 0));
    assert_eq!(range.certifiers[0].votes, [last_ref(&commits())]);
}

#[test]
fn a_shorter_range_is_certified_too() {
    assert_eq!(certified(certify_job(&commits()[..1])).commits.len(), 1);
}

#[test]
fn certifiers_come_out_by_author_and_an_author_s_second_one_is_not_looked_at() {
    let mut job = certify_job(&commits());
    job.certifiers.reverse();
    // Its signature is bad, which nobody finds out.
    let again = vote(0, last_ref(&commits())).sign(|_| [0; 64]);
    job.certifiers.push(Payload::new(again.1));
    let range = certified(job);
    assert_eq!((voters(&range), range.bad_certifiers), (vec![0, 1, 2], 0));
}

#[test]
fn an_answer_of_the_wrong_size_is_refused_before_it_is_decoded() {
    let mut job = certify_job(&commits());
    job.commits.clear();
    assert_eq!(refused(job), CertifyError::Empty);

    let garbage = Payload::new(vec![0].into());
    let mut job = certify_job(&commits());
    job.commits = vec![garbage.clone(); 4];
    assert_eq!(refused(job), CertifyError::TooManyCommits { count: 4, max: 3 });

    let mut job = certify_job(&commits());
    job.certifiers = vec![garbage.clone(); 9];
    assert_eq!(refused(job), CertifyError::TooManyCertifiers { count: 9, max: 8 });

    // Two an authority are none too many: three good votes beside five bad ones are a quorum.
    let mut job = certify_job(&commits());
    job.certifiers.resize(8, garbage);
    assert_eq!(certified(job).bad_certifiers, 5);
}

#[test]
fn a_range_that_cannot_be_is_refused_whatever_is_in_it() {
    let mut job = certify_job(&commits());
    job.last = CommitIndex::new(3);
    assert_eq!(refused(job), CertifyError::TooManyCommits { count: 3, max: 0 });
}

#[test]
fn commits_that_are_no_chain_from_where_we_asked_are_refused() {
    let mut job = certify_job(&commits());
    let whole = job.commits[1].bytes().clone();
    job.commits[1] = Payload::new(whole.slice(..whole.len() - 1));
    assert_eq!(refused(job), CertifyError::Commit { position: 1, error: DecodeError::UnexpectedEnd });

    let mut job = certify_job(&commits()[..2]);
    job.start = CommitIndex::new(6);
    let expected = CertifyError::Start { expected: CommitIndex::new(6), found: CommitIndex::new(5) };
    assert_eq!(refused(job), expected);

    let mut gap = commits();
    gap.remove(1);
    let expected = CertifyError::Sequence { previous: CommitIndex::new(5), found: CommitIndex::new(7) };
    assert_eq!(refused(certify_job(&gap)), expected);

    let mut unlinked = commits();
    unlinked[2].previous = CommitDigest::ZERO;
    assert_eq!(refused(certify_job(&unlinked)), CertifyError::Link { index: CommitIndex::new(7) });
}

#[test]
fn an_answer_of_another_epoch_is_told_apart_from_one_whose_epoch_changes() {
    let mut other = commits();
    other.iter_mut().for_each(|commit| commit.epoch = Epoch::new(4));
    relink(&mut other);
    assert_eq!(run(certify_job(&other)), CertifyVerdict::OtherEpoch { found: Epoch::new(4) });

    other[0].epoch = EPOCH;
    relink(&mut other);
    let change = CertifyError::EpochChange { first: EPOCH, found: Epoch::new(4) };
    assert_eq!(refused(certify_job(&other)), change);
}

/// The job with its third certifier, that the quorum needs, replaced.
fn with_third(certifier: Payload) -> CertifyJob {
    let mut job = certify_job(&commits());
    job.certifiers[2] = certifier;
    job
}

#[test]
fn a_certifier_that_is_no_valid_vote_does_not_count() {
    let good = vote(2, last_ref(&commits()));
    let signed = |change: fn(&mut soma_sync_core::block::Block)| {
        let mut block = good.clone();
        change(&mut block);
        Payload::new(sign(&block).1)
    };
    let truncated = Payload::new(sign(&good).1.slice(..50));
    let author = soma_sync_core::types::AuthorityIndex::new(9);
    let cases = [
        (truncated, CertifierError::Block(BlockError::Decode(DecodeError::UnexpectedEnd))),
        (signed(|block| block.votes.clear()), CertifierError::NoVote),
        (signed(|block| block.votes[0].index = CommitIndex::new(6)), CertifierError::NoVote),
        (signed(|block| block.votes[0].digest = CommitDigest::ZERO), CertifierError::NoVote),
        (
            signed(|block| block.epoch = Epoch::new(4)),
            CertifierError::Block(BlockError::Epoch { expected: EPOCH, found: Epoch::new(4) }),
        ),
        (
            signed(|block| block.round = soma_sync_core::types::Round::ZERO),
            CertifierError::Block(BlockError::GenesisRound),
        ),
        (
            signed(|block| block.author = soma_sync_core::types::AuthorityIndex::new(9)),
            CertifierError::Block(BlockError::Author { author }),
        ),
        (
            signed(|block| block.ancestors.truncate(2)),
            CertifierError::Block(BlockError::ParentStake { stake: Stake::new(5_000) }),
        ),
        (
            Payload::new(good.sign(|message| key(3).sign(message).to_bytes()).1),
            CertifierError::Block(BlockError::Signature),
        ),
        (Payload::new(good.unsigned().1), CertifierError::Block(BlockError::SignatureLength { length: 0 })),
    ];
    for (certifier, reason) in cases {
        let alone = refused(with_third(certifier.clone()));
        assert_eq!(alone, CertifyError::NoQuorum { stake: Stake::new(5_000), first_bad: Some(reason) });

        let mut beside_a_quorum = certify_job(&commits());
        beside_a_quorum.certifiers[2] = Payload::new(sign(&vote(3, last_ref(&commits()))).1);
        beside_a_quorum.certifiers.insert(0, certifier);
        let range = certified(beside_a_quorum);
        assert_eq!((voters(&range), range.bad_certifiers), (vec![0, 1, 3], 1));
    }
}

#[test]
fn stake_counts_once_an_author() {
    let mut job = certify_job(&commits());
    let second = soma_sync_core::block::Block { timestamp_ms: 1, ..vote(1, last_ref(&commits())) };
    job.certifiers[2] = Payload::new(sign(&second).1);
    assert_eq!(refused(job), CertifyError::NoQuorum { stake: Stake::new(5_000), first_bad: None });
}

#[test]
fn nothing_certifies_a_range_without_certifiers() {
    let mut job = certify_job(&commits());
    job.certifiers.clear();
    assert_eq!(refused(job), CertifyError::NoQuorum { stake: Stake::ZERO, first_bad: None });
}

#[test]
fn certifiers_pass_the_embedder_s_check_of_transactions() {
    let mut job = certify_job(&commits());
    let block = soma_sync_core::block::Block {
        transactions: vec![bytes::Bytes::from_static(b"good"), bytes::Bytes::from_static(b"bad")],
        ..vote(2, last_ref(&commits()))
    };
    job.certifiers[2] = Payload::new(sign(&block).1);
    certified(job.clone());
    let Verdict::Certify(verdict) = Job::Certify(Box::new(job)).run_with([0; 32], &|bytes| bytes != b"bad")
    else {
        panic!("another kind")
    };
    let first_bad = Some(CertifierError::Block(BlockError::Transaction { position: 1 }));
    let expected = CertifyError::NoQuorum { stake: Stake::new(5_000), first_bad };
    assert_eq!(verdict, CertifyVerdict::Refused(expected));
}

#[test]
fn what_a_quorum_voted_for_and_breaks_a_rule_is_the_committee_s_fault() {
    let changed = |change: fn(&mut Commit)| {
        let mut commits = commits();
        change(&mut commits[1]);
        relink(&mut commits);
        commits
    };
    let mut genesis = reference(1, 0);
    genesis.round = soma_sync_core::types::Round::ZERO;
    let mut other_epoch = reference(2, 6);
    other_epoch.epoch = Epoch::new(2);
    let cases = [
        (changed(|commit| commit.timestamp_ms = 4_999), CommitRule::Timestamp { previous_ms: 5_000 }),
        (changed(|commit| commit.blocks.clear()), CommitRule::NoBlocks),
        (changed(|commit| commit.leader = reference(2, 6)), CommitRule::Leader),
        (
            changed(|commit| commit.blocks.push(reference(0, 6))),
            CommitRule::BlockTwice { block: reference(0, 6) },
        ),
        (
            changed(|commit| {
                let mut block = reference(2, 6);
                block.epoch = Epoch::new(2);
                commit.blocks.push(block);
            }),
            CommitRule::BlockEpoch { block: other_epoch },
        ),
        (
            changed(|commit| commit.blocks.push(reference(4, 6))),
            CommitRule::BlockAuthor { block: reference(4, 6) },
        ),
        (changed(|commit| commit.blocks.push(reference(1, 0))), CommitRule::BlockRound { block: genesis }),
    ];
    for (commits, broken) in cases {
        let mut without_quorum = certify_job(&commits);
        without_quorum.certifiers.truncate(2);
        assert!(
            matches!(refused(without_quorum), CertifyError::NoQuorum { .. }),
            "{broken}: blamed without a quorum"
        );

        let CertifyVerdict::CertifiedInvalid(fault) = run(certify_job(&commits)) else {
            panic!("{broken}: accepted")
        };
        let CertifiedFault::Commit { reference, rule, payload } = fault else { panic!("{broken}: {fault}") };
        assert_eq!((reference, rule), (commits[1].encode().0, broken));
        assert_eq!(payload.bytes()[..], commits[1].encode().1);
    }
}

#[test]
fn equal_timestamps_do_not_fall() {
    let mut level = commits();
    level.iter_mut().for_each(|commit| commit.timestamp_ms = 5_000);
    relink(&mut level);
    certified(certify_job(&level));
}
