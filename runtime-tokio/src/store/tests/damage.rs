//! Files that changed at rest: every read is right, or an error.

use super::*;
use crate::store::{RedbOptions, redb::FILE_NAME};
use soma_sync_core::types::{CommitIndex, Epoch};
use std::fs;

const UNCHECKED: RedbOptions = RedbOptions { cache_bytes: 64 * 1024 * 1024, check_up_to_bytes: 0 };

/// Reads everything of a chain's store that may be damaged; counts the reads that fail.
fn read_all(store: &dyn Store, chain: &Chain) -> usize {
    let mut failures = 0;
    let mut right = |result: Result<bool, StoreError>| match result {
        Ok(right) => assert!(right, "a read gives what was never stored"),
        Err(error) => {
            assert!(matches!(error, StoreError::Damaged { .. } | StoreError::Io { .. } | StoreError::Failed));
            failures += 1;
        }
    };
    let tip = chain.commits.last().expect("a chain");
    right(store.start().map(|start| {
        start.tip.reference == tip.header.reference
            && start.tip.timestamp_ms == tip.header.timestamp_ms
            && start.committee == tip.committee
            && start.certifiable <= tip.header.reference
            && start.lowest_available == CommitIndex::GENESIS
    }));
    for made in &chain.commits {
        let CommitHeader { reference, epoch, payload, blocks, .. } = &made.header;
        right(store.head(reference.index).map(|head| {
            head.is_some_and(|head| {
                (head.reference, head.epoch) == (*reference, *epoch)
                    && head.ends_epoch == made.next_committee.is_some()
            })
        }));
        right(store.commit(reference.index).map(|commit| {
            commit.is_some_and(|commit| {
                commit.payload.bytes() == payload.bytes()
                    && commit.blocks == *blocks
                    && commit.epoch == *epoch
            })
        }));
        // A vote may be lost; none may appear.
        let certificate = store.certificate(reference).map(|certificate| {
            certificate.iter().flatten().all(|certifier| {
                let mut known =
                    chain.commits.iter().flat_map(|made| made.blocks.iter().chain(&*made.certifiers));
                known.any(|block| block.reference == certifier.block && block.votes.contains(reference))
            })
        });
        right(certificate);
        for block in made.blocks.iter().chain(&*made.certifiers) {
            let stored = store.block(&block.reference);
            right(stored.map(|stored| stored.is_none_or(|stored| stored.bytes() == block.payload.bytes())));
        }
    }
    for epoch in 0..3 {
        let expected = chain.commits.iter().find(|made| made.header.epoch == Epoch::new(epoch));
        let known = store.committee(Epoch::new(epoch));
        right(
            known.map(|known| known.is_none_or(|known| expected.is_some_and(|made| made.committee == known))),
        );
    }
    failures
}

#[test]
fn flipped_bits_give_wrong_data_or_a_panic() {
    let chain = Chain::small();
    let original = TempDir::new().expect("a directory");
    let store = RedbStore::open(original.path(), Some(&chain.genesis)).expect("a new store");
    for first in (1..=30).step_by(5) {
        store.apply(&chain.batch(first, first + 4)).expect("it follows");
    }
    let path = store.path().to_owned();
    assert_eq!(read_all(&store, &chain), 0);
    drop(store);
    let bytes = fs::read(path).expect("the file");

    let (mut unopened, mut failed, mut detected) = (0, 0, 0);
    let flips = 200;
    for flip in 0..flips {
        // Spread over the file, at another bit each time; the odd step visits every offset within a page.
        let position = (flip * (bytes.len() / flips) + flip * 97) % bytes.len();
        let mut flipped = bytes.clone();
        flipped[position] ^= 1 << (flip % 8);
        let directory = TempDir::new().expect("a directory");
        fs::write(directory.path().join(FILE_NAME), &flipped).expect("a file");
        // Unchecked, as a file is that is larger than what is checked.
        match RedbStore::open_read_only(directory.path(), UNCHECKED) {
            Ok(store) => failed += usize::from(read_all(&store, &chain) > 0),
            Err(_) => unopened += 1,
        }
        if let Ok(store) = RedbStore::open_read_only(directory.path(), RedbOptions::default()) {
            assert_eq!(read_all(&store, &chain), 0, "the check at opening missed a flip");
        }
        let file = directory.path().join(FILE_NAME);
        assert!(fs::read(file).expect("the file") == flipped, "a store that is only read was written to");
        match RedbStore::open(directory.path(), None) {
            Ok(store) => assert_eq!(read_all(&store, &chain), 0, "the check at opening missed a flip"),
            Err(_) => detected += 1,
        }
    }
    assert!(unopened + failed > flips / 20, "hardly any flip hit what is read: {unopened}, {failed}");
    assert!(detected > flips / 20, "the check at opening found only {detected}");
}

#[test]
fn a_file_that_was_cut_short_gives_wrong_data_or_a_panic() {
    let chain = Chain::small();
    let original = TempDir::new().expect("a directory");
    let store = RedbStore::open(original.path(), Some(&chain.genesis)).expect("a new store");
    store.apply(&chain.batch(1, 30)).expect("it follows");
    let path = store.path().to_owned();
    drop(store);
    let bytes = fs::read(path).expect("the file");
    for cut in (1..20).map(|twentieths| bytes.len() * twentieths / 20) {
        let directory = TempDir::new().expect("a directory");
        fs::write(directory.path().join(FILE_NAME), &bytes[..cut]).expect("a file");
        let unchecked = RedbStore::open_read_only(directory.path(), UNCHECKED);
        _ = unchecked.map(|store| read_all(&store, &chain));
        let read_only = RedbStore::open_read_only(directory.path(), RedbOptions::default());
        for opened in [read_only, RedbStore::open(directory.path(), None)] {
            assert!(opened.is_err(), "the check at opening missed a cut to {cut} bytes");
        }
    }
}
