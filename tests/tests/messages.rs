//! The fuzz bodies over messages and chain files, on the committed corpus, on damage to it, and on random bytes.

use proptest::{prelude::*, sample::Index};
use soma_sync_tests::fuzz_message::{decode_message, read_chain_file};
use std::{fs, path::Path};

/// The corpus that is committed for a fuzz target.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let files: Vec<_> =
        entries.map(|entry| fs::read(entry.expect("an entry").path()).expect("a file")).collect();
    assert!(files.len() >= 5, "{target}: a corpus of {}", files.len());
    files
}

#[test]
fn the_corpora_are_read_and_written_the_same() {
    corpus("decode_message").iter().for_each(|file| decode_message(file));
    corpus("read_chain_file").iter().for_each(|file| read_chain_file(file));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_messages_are_read_and_written_the_same(
        file in prop::sample::select(corpus("decode_message")), changes: Vec<(Index, u8)>,
    ) {
        decode_message(&damage(file, &changes));
    }

    #[test]
    fn damaged_chain_files_are_read_and_written_the_same(
        file in prop::sample::select(corpus("read_chain_file")), changes: Vec<(Index, u8)>,
    ) {
        read_chain_file(&damage(file, &changes));
    }

    #[test]
    fn random_messages_are_read_and_written_the_same(bytes: Vec<u8>) {
        decode_message(&bytes);
    }
}

/// Up to three bytes changed.
fn damage(mut file: Vec<u8>, changes: &[(Index, u8)]) -> Vec<u8> {
    for (at, byte) in changes.iter().take(3) {
        let at = at.index(file.len());
        file[at] = *byte;
    }
    file
}
