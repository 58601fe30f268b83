//! Small traces in `golden/shrunk/`, each of a seeded bug by name that once broke something in a machine.
//! `cargo run -p soma-sync-tests --features defence-switches --bin planted_traces -- --keep tests/golden/shrunk` makes them.
//! Their committees have drawn bytes for BLS keys, which the feature `bls` refuses.
#![cfg(not(feature = "bls"))]

use soma_sync_tests::told::Told;
use std::{
    fs,
    path::{Path, PathBuf},
};

fn traces() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/shrunk");
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn told(path: &Path) -> Told {
    let bytes = fs::read(path).unwrap();
    Told::read(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn a_bug_that_was_found_once_is_back() {
    let traces = traces();
    assert!(traces.len() >= 10, "{}", traces.len());
    for path in traces {
        let told = told(&path);
        assert!((1..=25).contains(&told.events.len()), "{}: {} events", path.display(), told.events.len());
        match told.tell() {
            Ok(machine) => assert!(machine.status().halted.is_none(), "{} halts", path.display()),
            Err(broken) => panic!("{}: {broken}", path.display()),
        }
    }
}

#[cfg(feature = "defence-switches")]
mod with_bugs {
    use super::{told, traces};
    use soma_sync_core::bug::{BUG, Bug};
    use std::{
        env,
        process::{Command, Stdio},
    };

    /// Run by the test below with one bug after the other, each of which it is about by itself.
    #[test]
    fn the_trace_of_the_bug_that_is_put_in_breaks_something() {
        let bug = env::var(BUG).unwrap_or_default();
        let path = traces().into_iter().find(|path| path.file_stem().is_some_and(|name| *name == *bug));
        path.into_iter().for_each(|path| drop(told(&path).tell().unwrap()));
    }

    #[test]
    fn a_trace_shows_nothing_of_its_bug() {
        let passes = |bug: Option<&str>| {
            let mut command = Command::new(env::current_exe().unwrap());
            command.args(["--exact", "with_bugs::the_trace_of_the_bug_that_is_put_in_breaks_something"]);
            command.env_remove(BUG).envs(bug.map(|bug| (BUG, bug)));
            command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
        };
        assert!(passes(None));
        for path in traces() {
            let name = path.file_stem().and_then(|name| name.to_str()).unwrap();
            assert!(Bug::named(name).is_some(), "there is no bug {name}");
            assert!(!passes(Some(name)), "{name}");
        }
    }
}
