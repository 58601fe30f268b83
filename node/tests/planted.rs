//! What `soma-sync sim` leaves behind where a bug was put into the core: a trace that breaks the same again.

mod common;

use common::{Bench, stderr};
use serde_json::Value;
use soma_sync_core::bug::{BUG, Bug};
use std::process::Output;

/// Runs a command of the program with a bug, or without any.
fn run(bench: &Bench, arguments: &str, bug: Option<Bug>) -> Output {
    let mut command = bench.command(arguments);
    command.env_remove(BUG).envs(bug.map(|bug| (BUG, bug.name())));
    command.output().expect("the program runs")
}

fn last_line(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(text.lines().last().unwrap_or_default()).unwrap_or_else(|error| {
        panic!("{error}: {text}{}", stderr(output));
    })
}

/// Follows what a violation left behind; how many events there are in it once it is shrunk.
fn breaks_it_again(bench: &Bench, bug: Bug, failure: &Value, said: &str) -> u64 {
    let (seed, trace) = (&failure["seed"], failure["trace"].as_str().expect("it has a trace"));
    assert!(bench.path(trace).exists(), "{trace}");
    let invariant = failure["invariant"].as_str().expect("a name");
    let expected = format!("trace: {trace} of node {}", failure["node"]);
    assert!(said.contains(&format!("seed {seed}: {invariant}")) && said.contains(&expected), "{said}");

    let again = run(bench, &format!("trace replay {trace} --check"), Some(bug));
    let words = format!("{}{}", String::from_utf8_lossy(&again.stdout), stderr(&again));
    assert!(words.contains("an invariant does not hold"), "{bug:?}: {words}");
    let small = format!("small-{seed}.trace");
    let shrunk = run(bench, &format!("trace shrink {trace} --out {small} --json"), Some(bug));
    assert_eq!(shrunk.status.code(), Some(0), "{bug:?}: {}", stderr(&shrunk));
    let sound = run(bench, &format!("trace shrink {small} --out none.trace"), None);
    assert!(stderr(&sound).contains("ends well"), "{bug:?}: {}", stderr(&sound));
    last_line(&shrunk)["events"].as_u64().expect("a number")
}

#[test]
fn a_violation_leaves_no_trace_or_one_that_does_not_break_it_again() {
    // One that the machine notices itself, and one that shows in what is handed to consumers.
    for (bug, invariant) in [(Bug::ReleasedTwice, "machine"), (Bug::BroadcastTwice, "broadcast")] {
        let bench = Bench::new();
        let found = run(&bench, "sim --seeds 0..12 --nodes 4 --commits 16 --json", Some(bug));
        assert_eq!(found.status.code(), Some(1), "{}", stderr(&found));
        let failures = last_line(&found)["failures"].clone();
        let failures = failures.as_array().expect("a list").iter();
        // The first ten leave traces.
        let of_it: Vec<_> = failures.take(10).filter(|failure| failure["invariant"] == invariant).collect();
        let few = of_it.iter().filter(|failure| breaks_it_again(&bench, bug, failure, &stderr(&found)) <= 25);
        let (few, all) = (few.count(), of_it.len());
        assert!(all > 0 && few * 10 >= all * 9, "{bug:?}: {few} of {all} became small");
    }
}

#[test]
fn the_node_that_is_asked_for_is_not_traced() {
    let bench = Bench::new();
    let arguments = "sim --seed 2 --nodes 4 --commits 16 --traces";
    let violated = run(&bench, &format!("{arguments} ."), Some(Bug::ReleasedTwice));
    assert_eq!(violated.status.code(), Some(1), "{}", stderr(&violated));
    // Named by hand, it is the only one.
    let named = run(
        &bench,
        &format!("{arguments} none --trace named.trace --trace-node 0"),
        Some(Bug::ReleasedTwice),
    );
    assert!(stderr(&named).contains("trace: named.trace of node 0"), "{}", stderr(&named));
    assert!(bench.path("named.trace").exists());
}
