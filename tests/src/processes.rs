//! Tests as processes of their own: how they are built, listed, run and waited for by the programs of this crate.

use crate::layers::Binary;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc::{RecvTimeoutError, channel},
    },
    thread,
    time::Duration,
};

/// Builds test binaries with the switches; where each is.
///
/// # Errors
///
/// Where cargo cannot be run, or cannot build them.
pub fn build(binaries: &BTreeSet<Binary>) -> Result<BTreeMap<Binary, PathBuf>, String> {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or("cargo".into()));
    cargo.args(["test", "--features", "defence-switches"]);
    cargo.args(["--no-run", "--message-format", "json-render-diagnostics"]);
    let packages: BTreeSet<_> = binaries.iter().map(|binary| binary.package).collect();
    cargo.args(packages.iter().flat_map(|package| ["--package", package]));
    if binaries.iter().any(|binary| binary.name.is_none()) {
        cargo.arg("--lib");
    }
    cargo.args(binaries.iter().filter_map(|binary| binary.name).flat_map(|name| ["--test", name]));
    let built = cargo.stderr(Stdio::inherit()).output().map_err(|error| format!("cargo: {error}"))?;
    if !built.status.success() {
        return Err("the tests cannot be built".to_owned());
    }
    let messages = built.stdout.split(|byte| *byte == b'\n');
    let mut paths = BTreeMap::new();
    for message in messages.filter_map(|line| serde_json::from_slice::<Value>(line).ok()) {
        let Some(path) = message["executable"].as_str() else { continue };
        let is_test = message["target"]["kind"][0] == "test";
        let target = message["target"]["name"].as_str().unwrap_or_default();
        let package = |binary: &&Binary| target == binary.package.replace('-', "_");
        let found = if is_test {
            binaries.iter().find(|binary| binary.name == Some(target))
        } else {
            binaries.iter().filter(|binary| binary.name.is_none()).find(package)
        };
        found.map(|binary| paths.insert(*binary, PathBuf::from(path)));
    }
    match binaries.iter().find(|binary| !paths.contains_key(binary)) {
        Some(missing) => Err(format!("cargo does not say where {missing:?} is")),
        None => Ok(paths),
    }
}

/// The tests in a binary, each with its path, in the order in which they are run.
///
/// # Errors
///
/// Where the binary cannot be run.
pub fn tests_in(binary: &Path) -> Result<Vec<String>, String> {
    let listed = Command::new(binary).args(["--list", "--format", "terse"]).output();
    let listed = listed.map_err(|error| format!("{}: {error}", binary.display()))?;
    let listed = String::from_utf8_lossy(&listed.stdout);
    Ok(listed.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// Well.
    Passed,
    /// Otherwise.
    Failed,
    /// It was stopped, since it took too long.
    Hung,
}

/// Runs a process and gives its lines to `line` until that says to stop. It is stopped, too, where it says nothing for
/// `limit`.
///
/// # Panics
///
/// Where it cannot be run.
pub fn run(mut command: Command, limit: Duration, mut line: impl FnMut(&str) -> bool) -> Ended {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let (said, lines) = channel();
    let output = BufReader::new(child.stdout.take().expect("it is piped"));
    let reader = thread::spawn(move || {
        for line in output.lines().map_while(Result::ok) {
            if said.send(line).is_err() {
                return;
            }
        }
    });
    let stopped = loop {
        match lines.recv_timeout(limit) {
            Ok(said) if line(&said) => {}
            Ok(_) => break Some(Ended::Failed),
            Err(RecvTimeoutError::Timeout) => break Some(Ended::Hung),
            Err(RecvTimeoutError::Disconnected) => break None,
        }
    };
    if stopped.is_some() {
        // It may have ended by itself meanwhile.
        let _ = child.kill();
    }
    let succeeded = wait(&mut child);
    reader.join().expect("it only reads");
    stopped.unwrap_or(if succeeded { Ended::Passed } else { Ended::Failed })
}

fn wait(child: &mut Child) -> bool {
    child.wait().is_ok_and(|status| status.success())
}

/// Does something with each item, as many at a time as there are processors; what came of each, in order.
///
/// # Panics
///
/// Where `work` does.
pub fn in_parallel<T: Sync, R: Send>(items: &[T], work: impl Fn(&T) -> R + Sync) -> Vec<R> {
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut done = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(at) else { return done };
            done.push((at, work(item)));
        }
    };
    let count = thread::available_parallelism().map_or(1, usize::from);
    let mut done: Vec<(usize, R)> = thread::scope(|scope| {
        let workers: Vec<_> = (0..count).map(|_| scope.spawn(worker)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("no worker panics")).collect()
    });
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, result)| result).collect()
}
