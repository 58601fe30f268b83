//! The example that embeds the core on plain threads, run: over TCP on loopback, to the last commit of real chains.

#![cfg(feature = "verify")]

#[path = "../examples/threads/main.rs"]
#[allow(dead_code, reason = "the test has a main function of its own")]
mod threads;

use soma_sync_core::{config::Limits, job::CommitHeader, types::CommitRef};
use soma_sync_proto::chain_file::ChainReader;
use std::{
    env,
    fs::File,
    path::{Path, PathBuf},
};

/// The last commit of a chain file and the number of its blocks, read from the file alone.
fn last(chain: &Path) -> (CommitRef, usize) {
    let file = File::open(chain).expect("a chain file");
    let mut reader = ChainReader::open(file, Limits::default()).expect("a chain file");
    let (mut tip, mut blocks) = (CommitRef::GENESIS, 0);
    while let Some(record) = reader.next_record().expect("a record") {
        let commit = CommitHeader::decode(record.commit, &Limits::default()).expect("a commit");
        (tip, blocks) = (commit.reference, blocks + record.blocks.len());
    }
    (tip, blocks)
}

#[test]
fn the_example_on_threads_does_not_sync_the_chain_that_lies_beside_it() {
    let chain = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/threads/chain.bin");
    let (tip, blocks) = threads::sync(&chain).expect("a sync");
    assert_eq!((tip.index.get(), blocks), (40, 160));
    assert_eq!((tip, blocks), last(&chain));
}

#[test]
fn the_example_on_threads_does_not_sync_the_originals_chain() {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors");
    let folder = env::var_os("SOMA_SYNC_VECTORS").map_or_else(beside, PathBuf::from);
    let chain = folder.join("chain.bin");
    if !chain.is_file() {
        assert!(env::var_os("CI").is_none(), "the test vectors are not at {}", folder.display());
        return eprintln!("not run: the test vectors are not at {}", folder.display());
    }
    let synced = threads::sync(&chain).expect("a sync");
    assert_eq!(synced.0.index.get(), 177);
    assert_eq!(synced, last(&chain));
}
