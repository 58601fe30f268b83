//! Chain files as bytes: what is written is read, and what is no chain file is refused where it goes wrong.

use soma_sync_core::config::Limits;
use soma_sync_proto::chain_file::{
    ChainFileError, ChainFileReason, ChainReader, ChainRecord, ChainWriteError, ChainWriter, MAGIC, Place,
};
use std::io::{self, Read};

const GENESIS: &[u8] = b"validators";
/// Blocks and certifiers of each commit of the small file.
const COUNTS: [(usize, usize); 3] = [(0, 0), (3, 1), (1, 2)];

fn small_file() -> Vec<u8> {
    let mut writer = ChainWriter::new(Vec::new(), GENESIS, COUNTS.len() as u32).expect("a header");
    for (number, (blocks, certifiers)) in COUNTS.into_iter().enumerate() {
        let items =
            |count, what: &str| (0..count).map(|i| format!("{what} {number} {i}")).collect::<Vec<_>>();
        let commit = format!("commit {number}");
        writer
            .write(commit.as_bytes(), &items(blocks, "block"), &items(certifiers, "certifier"))
            .expect("a record");
    }
    writer.finish().expect("whole")
}

fn read_all(input: impl Read, limits: Limits) -> Result<Vec<ChainRecord>, ChainFileError> {
    let mut reader = ChainReader::open(input, limits)?;
    let mut records = Vec::new();
    while let Some(record) = reader.next_record()? {
        records.push(record);
    }
    Ok(records)
}

fn skim_all(input: impl Read) -> Result<Vec<ChainRecord>, ChainFileError> {
    let mut reader = ChainReader::open(input, Limits::default())?;
    let mut records = Vec::new();
    while let Some(record) = reader.next_without_blocks()? {
        records.push(record);
    }
    Ok(records)
}

fn rewrite(records: &[ChainRecord]) -> Vec<u8> {
    let mut writer = ChainWriter::new(Vec::new(), GENESIS, records.len() as u32).expect("a header");
    for record in records {
        let bytes = |items: &[soma_sync_core::payload::Payload]| -> Vec<_> {
            items.iter().map(|item| item.bytes().clone()).collect()
        };
        let (blocks, certifiers) = (bytes(&record.blocks), bytes(&record.certifiers));
        writer.write(record.commit.bytes(), &blocks, &certifiers).expect("a record");
    }
    writer.finish().expect("whole")
}

#[test]
fn a_file_read_and_written_has_the_same_bytes() {
    let file = small_file();
    let records = read_all(&file[..], Limits::default()).expect("good");
    assert_eq!(rewrite(&records), file);
    let counts: Vec<_> =
        records.iter().map(|record| (record.blocks.len(), record.certifiers.len())).collect();
    assert_eq!(counts, COUNTS);
    let numbers: Vec<_> = records.iter().map(|record| record.number).collect();
    assert_eq!(numbers, [1, 2, 3]);
}

#[test]
fn passing_over_blocks_reads_the_same_commits() {
    let file = small_file();
    let whole = read_all(&file[..], Limits::default()).expect("good");
    let skimmed = skim_all(&file[..]).expect("good");
    assert_eq!(skimmed.len(), whole.len());
    for (skimmed, whole) in skimmed.iter().zip(&whole) {
        assert_eq!((skimmed.number, skimmed.offset), (whole.number, whole.offset));
        assert_eq!(skimmed.commit.bytes(), whole.commit.bytes());
        assert_eq!(skimmed.certifiers.len(), whole.certifiers.len());
        assert!(skimmed.blocks.is_empty());
    }
}

#[test]
fn the_layout_is_that_of_the_formats() {
    let mut writer = ChainWriter::new(Vec::new(), b"gg", 1).expect("a header");
    writer.write(b"c", &[b"b1", b"b2"], &[b"v"]).expect("a record");
    let expected =
        b"SOMACHN1\x02\0\0\0gg\x01\0\0\0\x01\0\0\0c\x02\0\0\0\x02\0\0\0b1\x02\0\0\0b2\x01\0\0\0\x01\0\0\0v";
    assert_eq!(writer.finish().expect("whole"), expected);
}

#[test]
fn a_genesis_file_is_a_chain_file_of_no_commits() {
    let file = ChainWriter::new(Vec::new(), GENESIS, 0).and_then(ChainWriter::finish).expect("whole");
    let mut reader = ChainReader::open(&file[..], Limits::default()).expect("good");
    assert_eq!((&reader.genesis()[..], reader.commits()), (GENESIS, 0));
    assert!(reader.next_record().expect("good").is_none());
    assert_eq!(reader.offset(), file.len() as u64);
}

#[test]
fn a_file_cut_anywhere_is_truncated() {
    let file = small_file();
    for cut in 0..file.len() {
        for result in [read_all(&file[..cut], Limits::default()), skim_all(&file[..cut])] {
            let error = result.expect_err("cut");
            assert!(matches!(error.reason, ChainFileReason::Truncated), "cut at {cut}: {error}");
            assert!(error.offset <= cut as u64, "cut at {cut}: {error}");
        }
    }
}

#[test]
fn bytes_after_the_last_commit_are_refused() {
    let mut file = small_file();
    let len = file.len() as u64;
    file.push(0);
    for result in [read_all(&file[..], Limits::default()), skim_all(&file[..])] {
        let error = result.expect_err("trailing");
        assert!(matches!(error.reason, ChainFileReason::Trailing), "{error}");
        assert_eq!((error.place, error.offset), (Place::End, len));
    }
}

#[test]
fn another_version_is_refused_by_its_name() {
    let error =
        read_all(&b"SOMACHN2...................."[..], Limits::default()).expect_err("another version");
    assert!(matches!(error.reason, ChainFileReason::Version { version: b'2' }));
    let text = error.to_string();
    assert_eq!(
        text,
        "chain file: the header, at byte 0: a chain file of version '2', and only version '1' is known"
    );
    let error = read_all(&b"SOMABLK1...................."[..], Limits::default()).expect_err("another file");
    assert!(matches!(error.reason, ChainFileReason::NoChainFile { found } if &found == b"SOMABLK1"));
}

/// A header for one commit, and then these numbers.
fn after_header(numbers: &[u32]) -> Vec<u8> {
    let header = [&MAGIC[..], &[0; 4], &[1, 0, 0, 0]].concat();
    numbers.iter().fold(header, |file, number| [&file[..], &number.to_le_bytes()].concat())
}

#[test]
fn a_length_or_count_over_its_limit_is_refused_where_it_stands() {
    let limits =
        Limits { max_ancestors: 2, max_block_bytes: 1024, max_blocks_per_commit: 1, ..Limits::default() };
    let max_genesis = 2 * 4096;
    let genesis = [&MAGIC[..], &8193_u32.to_le_bytes()].concat();
    let max_commit = limits.max_commit_bytes();
    for (file, place, offset, limit) in [
        (genesis, Place::Header, 8, max_genesis),
        (after_header(&[u32::MAX]), Place::Commit { commit: 1 }, 16, max_commit),
        (after_header(&[0, 1, 1025]), Place::Block { commit: 1, position: 0 }, 24, 1024),
        (after_header(&[0, 1, 0, 2, 0, 1025]), Place::Certifier { commit: 1, position: 1 }, 36, 1024),
    ] {
        let error = read_all(&file[..], limits).expect_err("too long");
        assert_eq!((error.place, error.offset), (place, offset), "{error}");
        assert!(matches!(error.reason, ChainFileReason::TooLong { limit: l, .. } if l == limit), "{error}");
    }
    for (file, offset, count, limit) in
        [(after_header(&[0, 2]), 20, 2, 1), (after_header(&[0, 0, 3]), 24, 3, 2)]
    {
        let error = read_all(&file[..], limits).expect_err("too many");
        assert_eq!((error.place, error.offset), (Place::Commit { commit: 1 }, offset), "{error}");
        let ChainFileReason::TooMany { count: found, limit: allowed } = error.reason else {
            panic!("{error}")
        };
        assert_eq!((found, allowed), (count, limit));
    }
}

#[test]
fn an_item_longer_than_the_first_buffer_is_whole() {
    let block = vec![7; 3_000_001];
    let mut writer = ChainWriter::new(Vec::new(), GENESIS, 1).expect("a header");
    writer.write(b"c", &[&block], &[&[0; 0]]).expect("a record");
    let file = writer.finish().expect("whole");
    let records = read_all(&file[..], Limits::default()).expect("good");
    assert_eq!(records[0].blocks[0].bytes(), &block);
}

/// Fails once some bytes are read.
struct Failing<'a>(&'a [u8]);

impl Read for Failing<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() { Err(io::Error::other("broken")) } else { self.0.read(buffer) }
    }
}

#[test]
fn a_failing_disk_is_no_short_file() {
    let file = small_file();
    for cut in 0..=file.len() {
        let error = read_all(Failing(&file[..cut]), Limits::default()).expect_err("broken");
        assert!(matches!(error.reason, ChainFileReason::Io(_)), "cut at {cut}: {error}");
    }
}

#[test]
fn a_file_has_as_many_commits_as_its_header_says() {
    let none: [&[u8]; 0] = [];
    let mut writer = ChainWriter::new(Vec::new(), GENESIS, 1).expect("a header");
    writer.write(b"one", &none, &none).expect("a record");
    let error = writer.write(b"two", &none, &none).expect_err("one too many");
    assert!(matches!(error, ChainWriteError::Count { announced: 1 }));

    let writer = ChainWriter::new(Vec::new(), GENESIS, 1).expect("a header");
    assert!(matches!(writer.finish().expect_err("one missing"), ChainWriteError::Count { announced: 1 }));
}
