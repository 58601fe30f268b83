//! Readable scenarios: one real machine, told what happens line by line; what it wants done is printed below each line.
//!
//! The scripts are in `scripts/` of this crate, their language in its `README.md`. With `SOMA_SYNC_REWRITE=1` what the
//! machine does now is written into them, to be reviewed as a diff.
#![cfg(not(feature = "bls"))]

#[path = "scripts/answers.rs"]
mod answers;
#[path = "scripts/names.rs"]
mod names;
#[path = "scripts/play.rs"]
mod play;
#[path = "scripts/print.rs"]
mod print;
#[path = "scripts/script.rs"]
mod script;
#[path = "scripts/stage.rs"]
mod stage;
#[path = "scripts/words.rs"]
mod words;

use script::Script;
use std::{env, fs, path::Path};

const REWRITE: &str = "SOMA_SYNC_REWRITE";

#[test]
fn a_machine_does_something_else_than_a_script_says() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts");
    let entries = fs::read_dir(&folder).expect("the folder of scripts");
    let paths = entries.map(|entry| entry.expect("a readable folder").path());
    let mut paths: Vec<_> = paths.filter(|path| path.extension().is_some_and(|end| end == "txt")).collect();
    paths.sort();
    assert!(!paths.is_empty(), "no scripts in {}", folder.display());
    let rewrite = env::var_os(REWRITE).is_some_and(|value| value == "1");
    let mut wrong = Vec::new();
    for path in &paths {
        let text = fs::read_to_string(path).expect("a readable script");
        let name = path.strip_prefix(&folder).unwrap_or(path).display().to_string();
        let outcome = Script::parse(&name, &text).map(Script::play).and_then(|played| {
            if rewrite && played.text() != text {
                fs::write(path, played.text()).expect("a script that can be written");
            }
            if rewrite { played.finished() } else { played.compare() }
        });
        wrong.extend(outcome.err());
    }
    let count = wrong.len();
    let hint = format!("{count} of {} scripts; with {REWRITE}=1 they are written anew", paths.len());
    assert!(wrong.is_empty(), "{}\n\n{hint}", wrong.join("\n\n"));
}

/// What is said of a script whose second line is this.
fn said_of(line: &str) -> String {
    let text = format!("> chain 4 commits of 2 blocks\n{line}\n");
    let played = Script::parse("it.txt", &text).map(Script::play);
    played.and_then(|played| played.compare()).err().unwrap_or_default()
}

#[test]
fn a_script_that_makes_no_sense_is_played_or_its_line_is_not_named() {
    let cases = [
        ("> nonsense", "'nonsense' is a peer, and then comes what it does"),
        ("> a dances", "unknown word 'dances'"),
        ("> a connects twice", "unknown word 'twice'"),
        ("> a connects with 4..=x", "'4..=x' is no range"),
        ("> a answers r7 chain", "r7 was never sent"),
        ("> j3 done", "j3 is not running"),
        ("> b0 stored", "b0 is not being stored"),
        ("> explain five", "'five' is no number"),
        ("> wait soon", "'soon' is no time"),
        ("> consensus commits 5", "the chain has no commit 5"),
        ("> config colour 3", "there is no setting 'colour'"),
        ("> config commit_sync_batch_size 0\n> status", "commit_sync_batch_size must be"),
        ("dangling", "a line begins with '>', '#' or two spaces"),
        ("# a remark\n  printed below no line", "is printed below no line"),
    ];
    for (line, expected) in cases {
        let said = said_of(line);
        assert!(said.starts_with("it.txt:"), "{line}: {said}");
        assert!(said.contains(expected), "{line}: {said}");
    }
    assert!(said_of("> a dances").starts_with("it.txt:2: "));
}

#[test]
fn another_command_than_expected_passes_or_is_not_shown() {
    let said = said_of("> a connects\n  r0 -> a: how far");
    let expected = "it.txt:2: > a connects\n-   r0 -> a: how far\n+   r0 -> a: which chain";
    assert!(said.starts_with(expected), "{said}");
    assert_eq!(said_of("> a connects\n  r0 -> a: which chain"), "");
    let said = said_of("> a connects\n  r0 -> a: which chain\n  r1 -> a: how far");
    assert!(said.contains("-   r1 -> a: how far"), "{said}");
}

#[test]
fn writing_a_script_anew_loses_remarks_or_does_not_hold() {
    let text = "# Why.\n\n> chain 4 commits of 2 blocks\n\n> a connects\n  stale\n# After.\n> status\n";
    let written = Script::parse("it.txt", text).unwrap().play().text();
    let expected =
        "# Why.\n\n> chain 4 commits of 2 blocks\n\n> a connects\n  r0 -> a: which chain\n# After.\n";
    assert!(written.starts_with(expected), "{written}");
    let again = Script::parse("it.txt", &written).unwrap().play();
    assert_eq!(again.text(), written);
    assert_eq!(again.compare(), Ok(()));
}
