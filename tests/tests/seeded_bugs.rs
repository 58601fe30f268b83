//! That every bug that can be put into the core is in it, and some are caught; the program `seeded_bugs` shows that all
//! are.

use soma_sync_core::bug::{BUG, Bug};
use soma_sync_tests::{
    fuzz::seeded,
    fuzz_machine::machine_inputs,
    layers::{Binary, Cases, LAYERS, WIDE},
};
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

/// Every source of the core, one after the other.
fn core() -> String {
    fn collect(folder: &Path, into: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                collect(&path, into);
            } else {
                into.push(path);
            }
        }
    }
    let mut sources = Vec::new();
    collect(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../core/src"), &mut sources);
    sources.into_iter().map(|path| fs::read_to_string(path).unwrap()).collect()
}

#[test]
fn a_bug_is_nowhere_in_the_core_or_at_two_places() {
    assert!(Bug::ALL.len() >= 40, "{}", Bug::ALL.len());
    let core = core();
    for bug in Bug::ALL {
        let place = format!("has(Bug::{})", bug.name());
        assert_eq!(core.matches(&place).count(), 1, "{}", bug.name());
    }
}

#[test]
fn a_layer_names_a_test_binary_that_there_is_not() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for layer in LAYERS.iter().chain(WIDE) {
        let Cases::Tests(binaries) = layer.cases else { continue };
        for Binary { package, name } in binaries {
            let folder = root.join(package.trim_start_matches("soma-sync-"));
            let source = name.map_or("src/lib.rs".to_owned(), |name| format!("tests/{name}.rs"));
            assert!(folder.join(&source).is_file(), "{}: {package} has no {source}", layer.name);
        }
    }
}

/// Run by the test below, too, with bugs put in.
#[test]
fn a_few_sequences_find_something_wrong_without_a_bug() {
    for seed in 0..100 {
        machine_inputs(&seeded(seed, 3_000));
    }
}

#[test]
fn a_bug_is_not_put_in_or_not_caught() {
    let passes = |bug: Option<Bug>| {
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", "a_few_sequences_find_something_wrong_without_a_bug"]);
        command.env_remove(BUG).envs(bug.map(|bug| (BUG, bug.name())));
        command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
    };
    assert!(passes(None));
    for bug in [Bug::GapOneLonger, Bug::ReleasedTwice, Bug::DurableBeforeStored] {
        assert!(!passes(Some(bug)), "{}", bug.name());
    }
}
