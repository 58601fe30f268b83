//! The original's real chain, through the jobs that a machine would run: it certifies, its blocks check, and its epoch
//! ends where the original says.

use soma_sync_core::{
    block::BlockView,
    committee::Committee,
    config::{BlockVerification, Limits},
    job::{
        BlockOutcome, CertifyJob, CertifyVerdict, CheckJob, CommitHeader, EpochEnd, Job, ObserveJob,
        ObserveVerdict, Verdict, VotesJob,
    },
    payload::Payload,
    types::{CommitDigest, CommitIndex, Epoch},
};
use soma_sync_tests::vectors::{Chain, ChainCommit, Vectors, read_blocks};
use std::sync::Arc;

const ENTROPY: [u8; 32] = [9; 32];

fn certify(committee: &Arc<Committee>, commits: &[ChainCommit], start: u32) -> CertifyVerdict {
    let count = u32::try_from(commits.len()).expect("few");
    let last = commits.last().expect("not empty");
    let job = CertifyJob {
        start: CommitIndex::new(start),
        last: CommitIndex::new(start + count - 1),
        committee: Arc::clone(committee),
        commits: commits.iter().map(|commit| Payload::new(commit.commit.clone())).collect(),
        certifiers: last.certifiers.iter().cloned().map(Payload::new).collect(),
        limits: Limits::default(),
    };
    match Job::Certify(Box::new(job)).run(ENTROPY) {
        Verdict::Certify(verdict) => verdict,
        other => panic!("a verdict of another kind: {other:?}"),
    }
}

fn check(
    committee: &Arc<Committee>,
    header: &CommitHeader,
    commit: &ChainCommit,
    mode: BlockVerification,
) -> Option<EpochEnd> {
    let job = CheckJob {
        refs: header.blocks.to_vec(),
        blocks: commit.blocks.iter().cloned().map(Payload::new).collect(),
        committee: Arc::clone(committee),
        mode,
        limits: Limits::default(),
    };
    let Verdict::Check(outcomes) = Job::Check(Box::new(job)).run(ENTROPY) else { panic!("another kind") };
    assert_eq!(outcomes.len(), header.blocks.len());
    let ends = outcomes.into_iter().filter_map(|outcome| match outcome {
        BlockOutcome::Good(block) => block.into_inner().epoch_end,
        BlockOutcome::Bad(error) => panic!("{}: {error}", header.reference),
        BlockOutcome::CertifiedInvalid(fault) => panic!("{}: {fault}", header.reference),
    });
    ends.fold(None, |first, end| first.or(Some(end)))
}

/// Checks every commit's blocks and certifies ranges of `batch` commits, following the chain's own committees.
fn sync(vectors: &Vectors, batch: usize, mode: BlockVerification) {
    let chain = Chain::read(&vectors.bytes("chain.bin"));
    assert_eq!(chain.commits.len(), 177);
    let mut committee = Arc::new(
        Committee::decode(Epoch::ZERO, &chain.validator_set, &Limits::default()).expect("a committee"),
    );
    assert_eq!(committee.encoding(), &chain.validator_set, "the file has it in index order");
    let (mut previous, mut done, mut epochs) = (CommitDigest::ZERO, 0, 0);
    while done < chain.commits.len() {
        // An answer ends with the epoch's last commit, 92.
        let end = if done < 92 { (done + batch).min(92) } else { (done + batch).min(chain.commits.len()) };
        let commits = &chain.commits[done..end];
        let range = match certify(&committee, commits, u32::try_from(done).expect("few") + 1) {
            CertifyVerdict::Certified(range) => range.into_inner(),
            other => panic!("commits {}..={end}: {other:?}", done + 1),
        };
        assert_eq!(range.bad_certifiers, 0);
        assert_eq!(range.commits[0].previous, previous, "it is linked to the chain before it");
        for (header, commit) in range.commits.iter().zip(commits) {
            previous = header.reference.digest;
            if let Some(end) = check(&committee, header, commit, mode) {
                assert_eq!(header.reference.index.get(), 92, "the epoch ends only there");
                let EpochEnd::Next(next) = end else { panic!("{end:?}") };
                committee = next;
                epochs += 1;
            }
        }
        done = end;
    }
    assert_eq!(epochs, 1);
    assert_eq!(committee, vectors.committees()["chain_epoch1"]);
}

#[test]
fn the_original_s_chain_is_certified_and_its_blocks_are_valid() {
    let Some(vectors) = Vectors::find() else { return };
    sync(&vectors, 100, BlockVerification::Full);
}

#[test]
fn every_single_commit_of_the_original_s_chain_is_certified() {
    let Some(vectors) = Vectors::find() else { return };
    sync(&vectors, 1, BlockVerification::Digest);
}

#[test]
fn every_block_that_the_original_accepted_is_valid() {
    let Some(vectors) = Vectors::find() else { return };
    let blocks = read_blocks(&vectors.bytes("chain_all_blocks.bin"));
    assert_eq!(blocks.len(), 787);
    let committees = vectors.committees();
    for bytes in &blocks {
        let view = BlockView::decode(bytes, &Limits::default()).expect("it decodes");
        let committee = &committees[&format!("chain_epoch{}", view.epoch())];
        view.verify(committee, &|_| true).unwrap_or_else(|error| panic!("{}: {error}", view.reference()));
    }
    let job = VotesJob { blocks: blocks.into_iter().map(Payload::new).collect(), limits: Limits::default() };
    let Verdict::Votes(votes) = Job::Votes(Box::new(job)).run(ENTROPY) else { panic!("another kind") };
    assert_eq!(votes.len(), 787);
}

#[test]
fn what_consensus_observed_is_taken_as_the_original_made_it() {
    let Some(vectors) = Vectors::find() else { return };
    let chain = Chain::read(&vectors.bytes("chain.bin"));
    for (index, commit) in (1..).zip(&chain.commits) {
        let job = ObserveJob {
            commit: Payload::new(commit.commit.clone()),
            blocks: commit.blocks.iter().cloned().map(Payload::new).collect(),
            limits: Limits::default(),
        };
        let Verdict::Observe(verdict) = Job::Observe(Box::new(job)).run(ENTROPY) else {
            panic!("another kind")
        };
        let ObserveVerdict::Observed { commit, blocks } = verdict else {
            panic!("commit {index}: {verdict:?}")
        };
        assert_eq!(commit.reference.index.get(), index);
        assert!(blocks.iter().map(|block| block.reference).eq(commit.blocks.iter().copied()));
    }
}
