//! The durable store's file: found, made, refused.

use super::*;
use crate::store::redb::{
    FILE_NAME, NEW_FILE_NAME, RedbOptions,
    tables::{BLOCKS, VOTES},
};
use redb::{ReadableDatabase, ReadableTable, ReadableTableMetadata};
use std::{fs, path::Path};

fn directory() -> TempDir {
    TempDir::new().expect("a directory")
}

#[test]
fn a_store_is_made_without_a_genesis() {
    let directory = directory();
    let result = RedbStore::open(directory.path(), None);
    assert!(matches!(&result, Err(StoreError::Missing { path }) if path.ends_with(FILE_NAME)), "{result:?}");
    assert_eq!(fs::read_dir(directory.path()).expect("a directory").count(), 0);
}

#[test]
fn a_store_is_not_made_in_a_directory_that_is_not_there_yet() {
    let (directory, chain) = (directory(), Chain::small());
    let deep = directory.path().join("a/b");
    let store = RedbStore::open(&deep, Some(&chain.genesis)).expect("a new store");
    assert_eq!(store.path(), deep.join(FILE_NAME));
    assert!(!deep.join(NEW_FILE_NAME).exists());
}

#[test]
fn an_open_store_opens_again() {
    let (directory, chain) = (directory(), Chain::small());
    let store = RedbStore::open(directory.path(), Some(&chain.genesis)).expect("a new store");
    let again = RedbStore::open(directory.path(), None);
    assert!(matches!(again, Err(StoreError::Locked { .. })), "{again:?}");
    drop(store);
    RedbStore::open(directory.path(), None).expect("it is closed");
}

#[test]
fn a_store_of_another_chain_is_taken() {
    let (directory, chain) = (directory(), Chain::small());
    drop(RedbStore::open(directory.path(), Some(&chain.genesis)).expect("a new store"));
    let spec =
        ChainSpec { commits: 2, blocks_per_commit: 4, payload_bytes: 0, committee: 4, epochs: 1, seed: 2 };
    let other = Chain::new(spec);
    let result = RedbStore::open(directory.path(), Some(&other.genesis));
    let (ours, theirs) = (chain.genesis.chain_id(), other.genesis.chain_id());
    assert!(
        matches!(result, Err(StoreError::OtherChain { expected, found, .. }) if (expected, found) == (theirs, ours)),
    );
    let same = RedbStore::open(directory.path(), Some(&chain.genesis)).expect("the same chain");
    assert_eq!(same.chain_id(), ours);
}

#[test]
fn a_file_that_is_no_store_is_taken() {
    type Make = fn(&Path);
    let chain = Chain::small();
    let make: [(&str, Make); 4] = [
        ("text", |path| fs::write(path, "hello, store").expect("a file")),
        ("nothing", |path| fs::write(path, "").expect("a file")),
        ("another program's", |path| drop(redb::Database::create(path).expect("a database"))),
        ("a later version's", |path| {
            let database = redb::Database::create(path).expect("a database");
            let transaction = database.begin_write().expect("a transaction");
            let meta = redb::TableDefinition::<&str, &[u8]>::new("meta");
            let mut table = transaction.open_table(meta).expect("a table");
            table.insert("version", [2, 0, 0, 0].as_slice()).expect("a record");
            drop(table);
            transaction.commit().expect("a commit");
        }),
    ];
    for (name, make) in make {
        let directory = directory();
        make(&directory.path().join(FILE_NAME));
        for genesis in [None, Some(&*chain.genesis)] {
            let result = RedbStore::open(directory.path(), genesis);
            assert!(matches!(result, Err(StoreError::Foreign { .. })), "{name}: {result:?}");
        }
    }
}

#[test]
fn a_half_made_store_keeps_a_new_one_from_being_made() {
    let chain = Chain::small();
    for leftover in [&b""[..], &[7; 5_000]] {
        let directory = directory();
        fs::write(directory.path().join(NEW_FILE_NAME), leftover).expect("a file");
        let store = RedbStore::open(directory.path(), Some(&chain.genesis)).expect("a new store");
        store.apply(&chain.batch(1, 3)).expect("it follows");
        assert!(!directory.path().join(NEW_FILE_NAME).exists());
    }
}

#[test]
fn a_path_that_cannot_be_used_is_not_an_error() {
    let (directory, chain) = (directory(), Chain::small());
    let file = directory.path().join("file");
    fs::write(&file, "no directory").expect("a file");
    let result = RedbStore::open(&file, Some(&chain.genesis));
    assert!(matches!(result, Err(StoreError::Io { .. })), "{result:?}");
}

#[test]
fn a_dropped_store_has_lost_something() {
    let (directory, chain) = (directory(), Chain::small());
    let options = RedbOptions { cache_bytes: 0, ..RedbOptions::default() };
    for last in (3..=30).step_by(3) {
        let store = RedbStore::open_with(directory.path(), Some(&chain.genesis), options).expect("a store");
        store.apply(&chain.batch(last - 2, last)).expect("it follows");
        drop(store);
        let store = RedbStore::open_with(directory.path(), None, options).expect("a store");
        assert_eq!(store.start().expect("a read").certifiable, chain.at(last).header.reference);
        chain.commits[..last as usize].iter().for_each(|made| assert_stored(&store, made));
    }
}

#[test]
fn a_killed_process_loses_a_stored_batch() {
    let (directory, chain) = (directory(), Chain::small());
    let store = RedbStore::open(directory.path(), Some(&chain.genesis)).expect("a new store");
    for last in (3..=30).step_by(3) {
        store.apply(&chain.batch(last - 2, last)).expect("it follows");
        // What a process that dies now leaves: the file as it is, not closed.
        let killed = TempDir::new().expect("a directory");
        fs::copy(store.path(), killed.path().join(FILE_NAME)).expect("a copy");
        let killed = RedbStore::open(killed.path(), None).expect("a store");
        assert_eq!(killed.start().expect("a read"), store.start().expect("a read"));
        chain.commits[..last as usize].iter().for_each(|made| assert_stored(&killed, made));
    }
}

#[test]
fn votes_for_pruned_commits_or_in_pruned_blocks_stay_in_the_file() {
    let (directory, chain) = (directory(), Chain::small());
    let store = RedbStore::open(directory.path(), Some(&chain.genesis)).expect("a new store");
    for first in (1..=30).step_by(5) {
        store.apply(&chain.batch(first, first + 4)).expect("it follows");
    }
    // An old block that claims to vote for a commit to come.
    let (leader, made) = (chain.at(3).header.leader, chain.at(20).header.reference);
    let stray = voting(leader, &[CommitRef { digest: chain.at(19).header.reference.digest, ..made }]);
    store.apply(&votes(std::slice::from_ref(&stray))).expect("only blocks");
    store.prune(index(14)).expect("it can be pruned");
    assert_eq!(store.block(&stray.reference).expect("a read"), None);
    let path = store.path().to_owned();
    drop(store);
    let database = redb::Database::open(path).expect("a database");
    let transaction = database.begin_read().expect("a transaction");
    let stored_votes = transaction.open_table(VOTES).expect("a table");
    let blocks = transaction.open_table(BLOCKS).expect("a table");
    assert!(!stored_votes.is_empty().expect("a read"));
    for entry in stored_votes.iter().expect("a read") {
        let (key, _) = entry.expect("a read");
        let key = key.value();
        let commit = u32::from_be_bytes(key[..4].try_into().expect("four bytes"));
        assert!(commit >= 14, "a vote for commit {commit}");
        // Epoch, author, round, digest there; epoch, round, author, digest here.
        let block = [&key[36..44], &key[48..52], &key[44..48], &key[52..]].concat();
        let block: &[u8; 48] = block.as_slice().try_into().expect("a block's key");
        assert!(blocks.get(block).expect("a read").is_some(), "a vote in no block");
    }
}

#[test]
fn a_store_that_is_only_read_is_written_or_keeps_other_readers_out() {
    let (directory, chain) = (directory(), Chain::small());
    let missing = RedbStore::open_read_only(directory.path(), RedbOptions::default());
    assert!(matches!(missing, Err(StoreError::Missing { .. })), "{missing:?}");
    let store = RedbStore::open(directory.path(), Some(&chain.genesis)).expect("a new store");
    store.apply(&chain.batch(1, 3)).expect("it follows");
    let locked = RedbStore::open_read_only(directory.path(), RedbOptions::default());
    assert!(matches!(locked, Err(StoreError::Locked { .. })), "{locked:?}");
    // What a killed process leaves.
    let killed = self::directory();
    fs::copy(store.path(), killed.path().join(FILE_NAME)).expect("a copy");
    drop(store);
    for directory in [&directory, &killed] {
        let before = fs::read(directory.path().join(FILE_NAME)).expect("the file");
        let store = RedbStore::open_read_only(directory.path(), RedbOptions::default()).expect("a store");
        let other =
            RedbStore::open_read_only(directory.path(), RedbOptions::default()).expect("two may read");
        chain.commits[..3].iter().for_each(|made| assert_stored(&store, made));
        for refused in [store.apply(&chain.batch(4, 6)), store.prune(CommitIndex::new(2))] {
            assert!(matches!(refused, Err(StoreError::ReadOnly { .. })), "{refused:?}");
        }
        let writer = RedbStore::open(directory.path(), None);
        assert!(matches!(writer, Err(StoreError::Locked { .. })), "{writer:?}");
        assert_eq!(store.reopen().expect("the same store"), other.start().expect("a read"));
        drop((store, other));
        let after = fs::read(directory.path().join(FILE_NAME)).expect("the file");
        assert!(before == after, "a store that is only read was written to");
    }
}

#[test]
fn a_file_is_checked_that_is_larger_than_what_is_checked() {
    let (directory, chain) = (directory(), Chain::small());
    let store = RedbStore::open(directory.path(), Some(&chain.genesis)).expect("a new store");
    store.apply(&chain.batch(1, 30)).expect("it follows");
    let file = store.path().to_owned();
    drop(store);
    // Deep inside a block, which nothing but a check looks at when a store is opened.
    let block = chain.at(20).blocks.first().expect("a block").payload.bytes().clone();
    let mut bytes = fs::read(&file).expect("the file");
    let at = bytes.windows(block.len()).position(|window| *window == *block).expect("its bytes");
    bytes[at + block.len() / 2] ^= 1;
    let len = bytes.len() as u64;
    for (check_up_to_bytes, checked) in [(len - 1, false), (len, true)] {
        fs::write(&file, &bytes).expect("a file");
        let options = RedbOptions { check_up_to_bytes, ..RedbOptions::default() };
        let opened = RedbStore::open_with(directory.path(), None, options);
        assert_eq!(matches!(opened, Err(StoreError::Damaged { .. })), checked, "{opened:?}");
    }
}
