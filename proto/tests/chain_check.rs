//! The original's own chain as a file: it is good as it is, and with anything in it changed it is not.

#![cfg(feature = "verify")]

use soma_sync_core::{
    block::BlockView,
    certify::CertifierError,
    config::{BlockVerification, Limits},
    job::EpochEnd,
    payload::Payload,
    types::CommitRef,
};
use soma_sync_proto::{
    chain_check::{ChainCheckError, ChainCheckReason, ChainChecker, CheckOptions, CheckedRecord},
    chain_file::{ChainFileReason, ChainReader, ChainRecord, ChainWriter, Place},
};
use std::{env, fs, num::NonZeroUsize, path::PathBuf, thread};

/// The last commit of the chain's first epoch (vectors: README).
const EPOCH_0_LAST: usize = 92;

/// A file of the vectors; `None` where there are none, which CI does not allow.
fn vector(name: &str) -> Option<Vec<u8>> {
    let beside = || PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors");
    let folder = env::var_os("SOMA_SYNC_VECTORS").map_or_else(beside, PathBuf::from);
    let found = fs::read(folder.join(name)).ok();
    assert!(found.is_some() || env::var_os("CI").is_none(), "no vectors at {}", folder.display());
    if found.is_none() {
        println!("not run: no vectors at {}; set SOMA_SYNC_VECTORS", folder.display());
    }
    found
}

/// The original's chain, taken apart.
fn chain() -> Option<(Vec<u8>, Vec<ChainRecord>)> {
    let file = vector("chain.bin")?;
    let mut reader = ChainReader::open(&file[..], Limits::default()).expect("a chain file");
    let mut records = Vec::new();
    while let Some(record) = reader.next_record().expect("a record") {
        records.push(record);
    }
    Some((reader.genesis().to_vec(), records))
}

fn write(genesis: &[u8], records: &[ChainRecord]) -> Vec<u8> {
    let mut writer = ChainWriter::new(Vec::new(), genesis, records.len() as u32).expect("a header");
    for record in records {
        let blocks: Vec<_> = record.blocks.iter().map(Payload::bytes).collect();
        let certifiers: Vec<_> = record.certifiers.iter().map(Payload::bytes).collect();
        writer.write(record.commit.bytes(), &blocks, &certifiers).expect("a record");
    }
    writer.finish().expect("whole")
}

fn options(threads: usize, mode: BlockVerification) -> CheckOptions {
    CheckOptions { mode, threads: NonZeroUsize::new(threads).expect("a thread"), ..CheckOptions::default() }
}

/// What is given out of a file, and what is wrong with it, if something is.
fn check_with(file: &[u8], options: CheckOptions) -> (Vec<CheckedRecord>, Option<ChainCheckError>) {
    let mut records = Vec::new();
    let mut checker = match ChainChecker::open(|| Ok(file), options, || [7; 32]) {
        Ok(checker) => checker,
        Err(error) => return (records, Some(error)),
    };
    loop {
        match checker.next_record() {
            Ok(Some(record)) => records.push(record),
            Ok(None) => return (records, None),
            Err(error) => return (records, Some(error)),
        }
    }
}

fn check(file: &[u8]) -> (Vec<CheckedRecord>, Option<ChainCheckError>) {
    check_with(file, options(1, BlockVerification::Full))
}

fn references(records: &[CheckedRecord]) -> Vec<CommitRef> {
    records.iter().map(|record| record.commit.reference).collect()
}

/// Why a file is refused, where in the chain, and after how many good commits.
fn refusal(file: &[u8]) -> (Place, ChainCheckReason, usize) {
    let (records, error) = check(file);
    match error {
        Some(ChainCheckError::Chain { place, reason, .. }) => (place, *reason, records.len()),
        other => panic!("not refused for what it says: {other:?}"),
    }
}

#[test]
fn the_originals_chain_is_good_to_its_tip() {
    let Some(file) = vector("chain.bin") else { return };
    let expected: serde_json::Value =
        serde_json::from_slice(&vector("chain.json").expect("beside chain.bin")).expect("JSON");
    let expected = expected["vectors"].as_array().expect("commits");
    for threads in [1, 3] {
        let (records, error) = check_with(&file, options(threads, BlockVerification::Full));
        assert!(error.is_none(), "{error:?}");
        assert_eq!(records.len(), expected.len());
        for (record, expected) in records.iter().zip(expected) {
            assert_eq!(expected["index"], record.commit.reference.index.get());
            assert_eq!(expected["digest"], hex::encode(record.commit.reference.digest.as_bytes()));
            assert_eq!(expected["blocks"].as_array().map(Vec::len), Some(record.blocks.len()));
            assert_eq!(expected["certifiers"].as_array().map(Vec::len), Some(record.certifiers.len()));
        }
        let ends: Vec<_> = (1..).zip(&records).filter(|(_, record)| record.epoch_end.is_some()).collect();
        let [(EPOCH_0_LAST, record)] = &ends[..] else { panic!("another end of epoch 0") };
        assert!(matches!(record.epoch_end, Some(EpochEnd::Next(_))));
    }
}

#[test]
fn the_originals_chain_is_written_as_the_same_bytes() {
    let Some(file) = vector("chain.bin") else { return };
    let (genesis, records) = chain().expect("it is there");
    assert!(write(&genesis, &records) == file);
}

#[test]
fn a_certificate_covers_the_commits_before_it() {
    let Some((genesis, mut records)) = chain() else { return };
    let expected = references(&check(&write(&genesis, &records)).0);
    let last = records.len();
    for (number, record) in (1..).zip(&mut records) {
        if number != EPOCH_0_LAST && number != last {
            record.certifiers.clear();
        }
    }
    for mode in [BlockVerification::Full, BlockVerification::Digest] {
        let (checked, error) = check_with(&write(&genesis, &records), options(2, mode));
        assert!(error.is_none(), "{error:?}");
        assert_eq!(references(&checked), expected);
        let certified = checked.iter().filter(|record| !record.certifiers.is_empty());
        assert_eq!(certified.count(), 2);
    }
}

#[test]
fn commits_that_no_certificate_covers_are_refused() {
    let Some((genesis, records)) = chain() else { return };
    let mut cut = records[..10].to_vec();
    cut[8..].iter_mut().for_each(|record| record.certifiers.clear());
    let (place, reason, good) = refusal(&write(&genesis, &cut));
    assert!(matches!(reason, ChainCheckReason::NoCertifiers), "{reason}");
    assert_eq!((place, good), (Place::Commit { commit: 9 }, 8));

    let mut unended = records;
    unended[EPOCH_0_LAST - 1].certifiers.clear();
    let (place, reason, good) = refusal(&write(&genesis, &unended));
    assert!(matches!(reason, ChainCheckReason::Epoch { .. }), "{reason}");
    let number = EPOCH_0_LAST as u32 + 1;
    assert_eq!((place, good), (Place::Commit { commit: number }, EPOCH_0_LAST - 1));
}

#[test]
fn a_certifier_that_is_no_good_vote_is_refused() {
    let Some((genesis, records)) = chain() else { return };
    let records = &records[..10];
    let with_certifiers = |change: &dyn Fn(&mut ChainRecord)| {
        let mut records = records.to_vec();
        change(&mut records[5]);
        refusal(&write(&genesis, &records))
    };
    let at = |position| Place::Certifier { commit: 6, position };

    let (place, reason, good) = with_certifiers(&|record| record.certifiers.truncate(2));
    assert!(matches!(reason, ChainCheckReason::NotCertified(_)), "{reason}");
    assert_eq!((place, good), (Place::Commit { commit: 6 }, 5));

    let (place, reason, good) =
        with_certifiers(&|record| record.certifiers[1] = record.certifiers[0].clone());
    assert!(matches!(reason, ChainCheckReason::CertifierTwice), "{reason}");
    assert_eq!((place, good), (at(1), 5));

    let other = records[0].certifiers[2].clone();
    let (place, reason, good) = with_certifiers(&|record| record.certifiers[2] = other.clone());
    assert!(matches!(reason, ChainCheckReason::Certifier(CertifierError::NoVote)), "{reason}");
    assert_eq!((place, good), (at(2), 5));

    let (place, reason, good) = with_certifiers(&|record| {
        let mut bytes = record.certifiers[3].bytes().to_vec();
        *bytes.last_mut().expect("a signature") ^= 1;
        record.certifiers[3] = bytes::Bytes::from(bytes).into();
    });
    assert!(matches!(reason, ChainCheckReason::Certifier(CertifierError::Block(_))), "{reason}");
    assert_eq!((place, good), (at(3), 5));
}

#[test]
fn commits_and_blocks_that_do_not_belong_are_refused() {
    let Some((genesis, records)) = chain() else { return };
    let changed = |change: &dyn Fn(&mut Vec<ChainRecord>)| {
        let mut records = records[..10].to_vec();
        change(&mut records);
        refusal(&write(&genesis, &records))
    };
    let (place, reason, good) = changed(&|records| drop(records.remove(3)));
    assert!(matches!(reason, ChainCheckReason::Sequence(_)), "{reason}");
    assert_eq!((place, good), (Place::Commit { commit: 4 }, 3));

    let (place, reason, good) = changed(&|records| records[4].blocks.truncate(1));
    assert!(matches!(reason, ChainCheckReason::BlockCount { found: 1, .. }), "{reason}");
    assert_eq!((place, good), (Place::Commit { commit: 5 }, 4));

    let (place, reason, good) = changed(&|records| records[4].blocks.swap(1, 2));
    assert!(matches!(reason, ChainCheckReason::Block(_)), "{reason}");
    assert_eq!((place, good), (Place::Block { commit: 5, position: 1 }, 4));
}

#[test]
fn a_genesis_that_is_none_or_in_another_order_is_refused() {
    let Some((mut genesis, records)) = chain() else { return };
    let (place, reason, _) = refusal(&write(b"\x00", &records[..1]));
    assert!(matches!(reason, ChainCheckReason::Genesis(_)), "{reason}");
    assert_eq!(place, Place::Header);

    // One byte for the number of validators; as many follow, of one length.
    let (count, validators) = genesis.split_first_mut().expect("a validator set");
    let (first, rest) = validators.split_at_mut(validators.len() / usize::from(*count));
    first.swap_with_slice(&mut rest[..first.len()]);
    let (_, reason, _) = refusal(&write(&genesis, &records[..1]));
    assert!(matches!(reason, ChainCheckReason::GenesisOrder), "{reason}");
}

#[test]
fn a_file_that_changes_while_it_is_read_is_refused() {
    let Some((genesis, records)) = chain() else { return };
    let check_both = |files: [Vec<u8>; 2]| -> ChainCheckError {
        let mut files = files.into_iter().map(std::io::Cursor::new);
        let open = || files.next().ok_or_else(|| std::io::Error::other("gone"));
        let checker = ChainChecker::open(open, options(1, BlockVerification::Full), || [7; 32]);
        let read_all = |mut checker: ChainChecker<_>| loop {
            match checker.next_record() {
                Ok(Some(_)) => {}
                Ok(None) => panic!("taken"),
                Err(error) => return error,
            }
        };
        checker.map_or_else(|error| error, read_all)
    };
    let file = |records: &[ChainRecord]| write(&genesis, records);
    let is_changed = |error: &ChainCheckError| matches!(error, ChainCheckError::Chain { reason, .. } if matches!(**reason, ChainCheckReason::Changed));
    let mut swapped = records[..4].to_vec();
    swapped[0].certifiers.clear();
    let certified_together = file(&swapped);
    swapped.swap(0, 1);
    let error = check_both([certified_together, file(&swapped)]);
    assert!(is_changed(&error), "{error}");
    let error = check_both([file(&records[..4]), file(&records[..3])]);
    assert!(is_changed(&error), "{error}");
    let error = check_both([file(&records[..3]), file(&records[..4])]);
    assert!(is_changed(&error), "{error}");
    let other_genesis = write(b"\x00", &records[..4]);
    let error = check_both([file(&records[..4]), other_genesis]);
    assert!(is_changed(&error), "{error}");
    let mut other_commit = records[..4].to_vec();
    other_commit[2].commit = records[5].commit.clone();
    let error = check_both([file(&records[..4]), file(&other_commit)]);
    let ChainCheckError::Chain { reason, .. } = error else { panic!("{error}") };
    assert!(matches!(*reason, ChainCheckReason::Commit(_)), "{reason}");
}

#[test]
fn a_file_that_cannot_be_opened_or_ends_early_is_refused() {
    let open = || Err::<&[u8], _>(std::io::Error::other("gone"));
    let error = ChainChecker::open(open, CheckOptions::default(), || [7; 32]).map(drop).expect_err("gone");
    assert!(matches!(error, ChainCheckError::Open(_)));

    let Some(file) = vector("chain.bin") else { return };
    let (records, error) = check(&file[..file.len() - 1]);
    let Some(ChainCheckError::File(error)) = error else { panic!("{error:?}") };
    assert!(matches!(error.reason, ChainFileReason::Truncated));
    assert_eq!(records.len(), 176);
}

/// Flips one bit of a file, and expects the commits that are wholly before it, and nothing else.
fn expect_refused(file: &mut [u8], position: usize, records: &[ChainRecord], expected: &[CommitRef]) {
    let bit = 1 << (position % 8);
    file[position] ^= bit;
    let (checked, error) = check(file);
    file[position] ^= bit;
    assert!(error.is_some(), "bit {bit} of byte {position} makes no difference");
    let whole = records.iter().filter(|record| record.offset <= position as u64).count().saturating_sub(1);
    assert_eq!(references(&checked), expected[..whole], "byte {position}: {error:?}");
}

/// Flips a bit at each position, on two threads, since it is the slowest of these tests.
fn expect_all_refused(genesis: &[u8], records: &[ChainRecord], positions: &[usize]) {
    let file = write(genesis, records);
    let expected = references(&check(&file).0);
    thread::scope(|scope| {
        for positions in positions.chunks(positions.len().div_ceil(2)) {
            let (mut file, expected) = (file.clone(), &expected);
            scope.spawn(move || {
                for position in positions {
                    expect_refused(&mut file, *position, records, expected);
                }
            });
        }
    });
}

#[test]
fn a_flipped_bit_anywhere_in_a_record_is_refused() {
    let Some((genesis, records)) = chain() else { return };
    // The first record is a small one; there is another behind it.
    let positions: Vec<_> = (records[0].offset as usize..records[1].offset as usize).collect();
    expect_all_refused(&genesis, &records[..2], &positions);
}

#[test]
fn a_flipped_bit_somewhere_in_the_chain_is_refused() {
    let Some((genesis, records)) = chain() else { return };
    // Steps that are prime to all sizes visit places of every kind: far apart in the whole chain, dense in its start.
    let (start, end) = (records[0].offset as usize, write(&genesis, &records).len());
    expect_all_refused(&genesis, &records, &(start..end).step_by(36_007).collect::<Vec<_>>());
    let end = records[12].offset as usize;
    expect_all_refused(&genesis, &records[..12], &(start..end).step_by(401).collect::<Vec<_>>());
}

#[test]
fn a_flipped_bit_in_a_number_of_the_header_is_refused() {
    let Some((genesis, records)) = chain() else { return };
    let mut file = write(&genesis, &records[..2]);
    let numbers = 8..12;
    let count = records[0].offset as usize - 4..records[0].offset as usize;
    for position in (0..8).chain(numbers).chain(count) {
        for bit in 0..8 {
            file[position] ^= 1 << bit;
            assert!(check(&file).1.is_some(), "bit {bit} of byte {position}");
            file[position] ^= 1 << bit;
        }
    }
}

#[test]
fn the_bytes_given_out_are_those_of_the_file() {
    let Some((genesis, records)) = chain() else { return };
    let records = &records[..20];
    let (checked, error) = check(&write(&genesis, records));
    assert!(error.is_none(), "{error:?}");
    for (checked, record) in checked.iter().zip(records) {
        assert_eq!(checked.commit.payload.bytes(), record.commit.bytes());
        for (checked, block) in checked.blocks.iter().zip(&record.blocks) {
            assert_eq!(checked.payload.bytes(), block.bytes());
            let view = BlockView::decode(block.bytes(), &Limits::default()).expect("a block");
            assert_eq!(checked.reference, view.reference());
        }
    }
}
