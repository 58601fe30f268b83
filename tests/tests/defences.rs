//! That every defence of the core is held by tests that there are; the program `defences` shows that they notice.

use soma_sync_core::defence::Defence;
use soma_sync_tests::defences::HELD;
use std::{fs, path::Path};

#[test]
fn a_defence_is_not_in_the_table_or_twice() {
    for defence in Defence::ALL {
        let times = HELD.iter().filter(|held| held.defence == *defence).count();
        assert_eq!(times, 1, "{}", defence.name());
    }
}

#[test]
fn a_row_of_the_threats_has_no_defence() {
    // The last but one is all of them at once.
    for row in (1..=30).filter(|row| *row != 29) {
        let row = format!("{row:02}");
        let named = |rows: &str| rows.split("; ").any(|part| part.split(", ").any(|number| number == row));
        assert!(HELD.iter().any(|held| named(held.rows)), "row {row}");
    }
}

#[test]
fn a_defence_is_held_by_a_test_that_there_is_not() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let threats = fs::read_dir(folder.join("threats")).unwrap().map(|entry| entry.unwrap().path());
    let others =
        ["seed_defects.rs", "boundaries.rs", "../../sim/tests/head.rs", "../../sim/tests/serving.rs"];
    let others = others.map(|name| folder.join(name));
    let sources: String = threats.chain(others).map(|path| fs::read_to_string(path).unwrap()).collect();
    for held in HELD {
        assert!(!held.tests.is_empty(), "{}", held.defence.name());
        for test in held.tests {
            assert!(sources.contains(&format!("#[test]\nfn {test}() {{")), "{}: {test}", held.defence.name());
        }
    }
}
