//! Chains of the maker against the verification of the core.

use soma_sync_core::{
    config::{BlockVerification, Limits},
    job::{BlockOutcome, CertifyJob, CertifyVerdict, CheckJob, EpochEnd, Job, Verdict},
    types::{CommitIndex, CommitRef, Epoch, Round},
};
use soma_sync_proto::chain_check::{ChainChecker, CheckOptions};
use soma_sync_sim::chain::{ChainMaker, ChainSpec, MadeCommit, SpecError, write_chain_file};
use std::{collections::BTreeSet, error::Error, sync::Arc};

const SMALL: ChainSpec =
    ChainSpec { commits: 30, blocks_per_commit: 10, payload_bytes: 64, committee: 4, epochs: 3, seed: 1 };

/// The chain of a spec.
fn make(spec: ChainSpec) -> Vec<MadeCommit> {
    let maker = ChainMaker::new(spec).expect("the spec is within its bounds");
    maker.take(spec.commits as usize).collect()
}

fn certify(commits: &[MadeCommit]) -> CertifyVerdict {
    let (first, last) = (&commits[0], &commits[commits.len() - 1]);
    let job = Job::Certify(Box::new(CertifyJob {
        start: first.header.reference.index,
        last: last.header.reference.index,
        committee: Arc::clone(&first.committee),
        commits: commits.iter().map(|made| made.header.payload.clone()).collect(),
        certifiers: last.certifiers.iter().map(|block| block.payload.clone()).collect(),
        limits: Limits::default(),
    }));
    match job.run([1; 32]) {
        Verdict::Certify(verdict) => verdict,
        other => panic!("a certify job gave {other:?}"),
    }
}

/// Every commit with its own certificate, and every block in full, as a node would.
fn verify(chain: &[MadeCommit]) {
    for made in chain {
        let CertifyVerdict::Certified(range) = certify(std::slice::from_ref(made)) else {
            panic!("{} is not certified: {:?}", made.header.reference, certify(std::slice::from_ref(made)));
        };
        assert_eq!(range.bad_certifiers, 0);
        assert_eq!(range.commits, std::slice::from_ref(&made.header));
        assert_eq!(range.certifiers, *made.certifiers);
        let job = Job::Check(Box::new(CheckJob {
            refs: made.header.blocks.to_vec(),
            blocks: made.blocks.iter().map(|block| block.payload.clone()).collect(),
            committee: Arc::clone(&made.committee),
            mode: BlockVerification::Full,
            limits: Limits::default(),
        }));
        let Verdict::Check(outcomes) = job.run([2; 32]) else { panic!("a check job gives outcomes") };
        assert_eq!(outcomes.len(), made.blocks.len());
        for (outcome, block) in outcomes.into_iter().zip(&made.blocks) {
            match outcome {
                BlockOutcome::Good(good) => assert_eq!(*good, *block),
                bad @ (BlockOutcome::Bad(_) | BlockOutcome::CertifiedInvalid(_)) => panic!("{bad:?}"),
            }
        }
    }
}

/// Links, indexes, epochs, timestamps and sizes.
fn check_shape(spec: ChainSpec, chain: &[MadeCommit]) {
    assert_eq!(chain.len(), spec.commits as usize);
    let (mut tip, mut timestamp_ms, mut epoch) = (CommitRef::GENESIS, 0, Epoch::ZERO);
    let mut committee = Arc::clone(ChainMaker::new(spec).expect("a valid spec").genesis());
    let mut named = BTreeSet::new();
    for made in chain {
        let header = &made.header;
        assert_eq!((header.previous, Some(header.reference.index)), (tip.digest, tip.index.next()));
        assert_eq!((header.epoch, &made.committee), (epoch, &committee));
        assert_eq!(header.blocks.len(), spec.blocks_per_commit as usize);
        assert_eq!(header.blocks.last(), Some(&header.leader));
        assert!(header.timestamp_ms >= timestamp_ms);
        assert!(header.blocks.iter().all(|block| named.insert(*block)), "a block is in two commits");
        let ends: Vec<_> = made.blocks.iter().filter_map(|block| block.epoch_end.as_ref()).collect();
        let next = made.next_committee.clone();
        assert_eq!(ends, next.clone().map(EpochEnd::Next).iter().collect::<Vec<_>>());
        assert_eq!(
            next.is_some(),
            spec.last_commit_of(u32::try_from(epoch.get()).unwrap()) == Some(header.reference.index.get())
        );
        if let Some(next) = next {
            epoch = next.epoch();
            committee = next;
        }
        (tip, timestamp_ms) = (header.reference, header.timestamp_ms);
    }
    assert_eq!(epoch, Epoch::new(u64::from(spec.epochs) - 1));
}

#[test]
fn every_block_and_every_certificate_of_a_made_chain_passes_full_verification() {
    let specs = [
        SMALL,
        ChainSpec { commits: 6, blocks_per_commit: 40, epochs: 2, ..SMALL },
        ChainSpec { commits: 9, committee: 20, ..SMALL },
        ChainSpec { commits: 4, committee: 100, blocks_per_commit: 100, epochs: 2, ..SMALL },
        ChainSpec { commits: 7, committee: 1, blocks_per_commit: 3, ..SMALL },
        ChainSpec { commits: 25, committee: 3, blocks_per_commit: 1, epochs: 5, ..SMALL },
        ChainSpec { commits: 3, committee: 4, epochs: 3, payload_bytes: 0, ..SMALL },
        ChainSpec { commits: 12, committee: 7, blocks_per_commit: 5, ..SMALL },
    ];
    for spec in specs {
        let chain = make(spec);
        check_shape(spec, &chain);
        verify(&chain);
    }
}

#[test]
fn the_largest_committee_makes_blocks_that_verify() {
    let spec = ChainSpec {
        commits: 2,
        committee: 1_000,
        blocks_per_commit: 700,
        epochs: 2,
        payload_bytes: 1,
        seed: 9,
    };
    let chain = make(spec);
    check_shape(spec, &chain);
    verify(&chain[..1]);
}

#[test]
fn one_certificate_certifies_a_whole_epoch() {
    let chain = make(SMALL);
    let epoch: Vec<_> = chain.into_iter().take(10).collect();
    assert!(epoch[9].next_committee.is_some());
    assert!(matches!(certify(&epoch), CertifyVerdict::Certified(range) if range.commits.len() == 10));
}

#[test]
fn a_commit_is_the_whole_uncommitted_history_of_its_leader_where_rounds_add_up() {
    let chain = make(ChainSpec { epochs: 1, ..SMALL });
    let mut committed = BTreeSet::new();
    for made in &chain {
        committed.extend(made.header.blocks.iter().copied());
        for block in &made.blocks {
            let view =
                soma_sync_core::block::BlockView::decode(block.payload.bytes(), &Limits::default()).unwrap();
            let missing = view
                .ancestors()
                .find(|ancestor| ancestor.round > Round::ZERO && !committed.contains(ancestor));
            assert_eq!(missing, None, "{}", made.header.reference);
        }
    }
}

#[test]
fn the_votes_of_an_epochs_last_commits_are_in_no_commit() {
    let chain = make(SMALL);
    let committed: BTreeSet<_> = chain.iter().flat_map(|made| made.header.blocks.iter().copied()).collect();
    for made in chain.iter().filter(|made| made.next_committee.is_some()) {
        assert!(made.certifiers.iter().all(|certifier| !committed.contains(&certifier.reference)));
    }
    assert!(chain[0].certifiers.iter().all(|certifier| committed.contains(&certifier.reference)));
}

#[test]
fn certifiers_are_the_shortest_quorum_by_author() {
    for made in make(SMALL) {
        let authors: Vec<_> = made.certifiers.iter().map(|block| block.reference.author.get()).collect();
        assert_eq!(authors.len(), 3);
        assert!(authors.is_sorted_by(|a, b| a < b));
        assert!(
            made.certifiers
                .iter()
                .all(|block| block.reference.round.get() == made.header.leader.round.get() + 3)
        );
    }
}

#[test]
fn a_block_carries_the_payload_asked_for() {
    for payload_bytes in [0, 1, 3, 512, 70_000] {
        let chain = make(ChainSpec { commits: 2, payload_bytes, epochs: 1, ..SMALL });
        for block in chain.iter().flat_map(|made| &made.blocks) {
            let view =
                soma_sync_core::block::BlockView::decode(block.payload.bytes(), &Limits::default()).unwrap();
            assert_eq!(view.transactions().map(<[u8]>::len).sum::<usize>(), payload_bytes as usize);
        }
    }
}

/// The tip of each with drawn bytes for BLS keys and signatures, and with real ones (feature `bls`). Whoever changes one
/// of these says so in the changelog: it breaks every reproduction by seed.
#[test]
fn the_chains_of_pinned_seeds_never_change() {
    let tips = [
        (
            SMALL,
            "b3db1f7aac55bd1084fa0b386026ddda745e415015c60d75a9546c3c0019b60e",
            "62245baf5ec1a5871164fed010c1d59677d7223f1fb14e10e92aa0f233f6adea",
        ),
        (
            ChainSpec { commits: 5, committee: 20, payload_bytes: 512, epochs: 1, seed: 42, ..SMALL },
            "4a821cae82012bf033ba55433a0183fa3859cd978c2c94fbc714df91b2686ece",
            "ac12fcbbc1814310703769769def23fcb66a285ff21e52f59039c66da34ef036",
        ),
        (
            ChainSpec { commits: 4, committee: 1, blocks_per_commit: 2, epochs: 2, seed: u64::MAX, ..SMALL },
            "1e42973842b4ea420ca0b59a46d33c03e470ec2f62dcd5546e4b1fc69bc2694c",
            "f76b071db5703e2b7835aa850f5923cb77465d2749ca1d389bfadf27e491f3c2",
        ),
    ];
    for (spec, drawn, real) in tips {
        let digest = if cfg!(feature = "bls") { real } else { drawn };
        let tip = make(spec).pop().expect("there are commits").header.reference;
        assert_eq!(tip.digest.to_string(), digest, "{spec:?}");
    }
}

#[test]
fn two_makers_of_one_spec_make_the_same_bytes_and_other_seeds_other_ones() {
    let bytes = |spec| -> Vec<_> {
        make(spec)
            .into_iter()
            .map(|made| {
                let payloads =
                    made.blocks.iter().chain(&*made.certifiers).map(|block| block.payload.bytes().clone());
                (made.header.payload.bytes().clone(), payloads.collect::<Vec<_>>())
            })
            .collect()
    };
    assert_eq!(bytes(SMALL), bytes(SMALL));
    assert_ne!(bytes(SMALL), bytes(ChainSpec { seed: 2, ..SMALL }));
}

#[test]
fn a_chain_goes_on_after_its_spec_as_if_it_had_not_ended() {
    let spec = ChainSpec { commits: 4, epochs: 2, ..SMALL };
    let more: Vec<_> = ChainMaker::new(spec).unwrap().take(40).collect();
    assert_eq!(more[..4], make(spec));
    verify(&more);
    assert!(more[4..].iter().all(|made| made.next_committee.is_none() && made.header.epoch == Epoch::new(1)));
    assert_eq!(more[39].header.reference.index, CommitIndex::new(40));
}

#[test]
fn a_spec_out_of_bounds_makes_no_maker() {
    let refused = ChainMaker::new(ChainSpec { committee: 0, ..SMALL });
    assert!(matches!(refused, Err(SpecError::Committee(0))));
}

#[test]
fn a_written_chain_file_passes_the_check_of_chain_files() {
    let spec = ChainSpec { commits: 7, epochs: 2, ..SMALL };
    let mut seen = 0;
    let file = write_chain_file::<_, Box<dyn Error>>(spec, Vec::new(), |_| {
        seen += 1;
        Ok(())
    });
    let file = file.expect("memory can be written to");
    let mut checker =
        ChainChecker::open(|| Ok(file.as_slice()), CheckOptions::default(), || [3; 32]).unwrap();
    let mut read = Vec::new();
    while let Some(record) = checker.next_record().expect("it is good") {
        read.push(record);
    }
    let made = make(spec);
    assert_eq!((seen, read.len()), (7, 7));
    for (record, made) in read.iter().zip(&made) {
        assert_eq!(*record.commit, made.header);
        let certified = made.next_committee.is_some() || made.header.reference.index == CommitIndex::new(7);
        assert_eq!(record.certifiers.is_empty(), !certified);
    }
}

#[test]
fn writing_a_chain_file_ends_with_the_first_error() {
    let mut seen = 0;
    let stopped = write_chain_file::<_, Box<dyn Error>>(SMALL, Vec::new(), |_| {
        seen += 1;
        if seen < 3 { Ok(()) } else { Err("enough".into()) }
    });
    assert_eq!(stopped.unwrap_err().to_string(), "enough");
    assert_eq!(seen, 3);
    let bad = write_chain_file::<_, Box<dyn Error>>(ChainSpec { epochs: 0, ..SMALL }, Vec::new(), |_| Ok(()));
    assert!(bad.unwrap_err().is::<SpecError>());
}
