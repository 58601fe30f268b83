//! `soma-sync sim`, as the real program.

mod common;

use common::{Bench, stderr};

#[test]
fn the_result_depends_on_the_number_of_jobs() {
    let bench = Bench::new();
    let of = |jobs: u32| bench.json(&format!("sim --seeds 0..6 --nodes 4 --commits 16 --jobs {jobs}"));
    let (one, three) = (of(1), of(3));
    assert_eq!(one, three);
    assert_eq!((&one["runs"], &one["violations"]), (&6.into(), &0.into()), "{one}");
    assert!(one["events"].as_u64() > Some(0) && one["simulated_seconds"].as_f64() > Some(0.0));
    assert_eq!(one["hash"].as_str().map(str::len), Some(64));
    assert!(one["hits"]["loss"].is_u64() && one["hits"]["keep-reconnecting"].is_u64());
    assert_ne!(one["hash"], bench.json("sim --seeds 0..6 --nodes 4 --commits 16 --faults none")["hash"]);
}

#[test]
fn one_seed_says_nothing_of_what_it_stands_for() {
    let bench = Bench::new();
    let output = bench.run("sim --seed 3 --nodes 3 --commits 8 --faults crash,silent");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}{}", stderr(&output));
    for words in ["node 0: Anchor", "1 networks of 3 nodes and 8 commits", "0 violations", "hash "] {
        assert!(said.contains(words), "{words}: {said}");
    }
}

#[test]
fn arguments_that_cannot_be_are_run() {
    let bench = Bench::new();
    let wrong = [
        ("sim --seeds 5", "no range"),
        ("sim --seeds 5..5", "no seed"),
        ("sim --nodes 1", "1"),
        ("sim --commits 0", "0"),
        ("sim --faults loss,bogus", "\"bogus\" is no fault"),
        ("sim --seed 1 --seeds 0..2", "cannot be used"),
        ("sim --jobs 0", "0"),
        ("sim --trace one.trace", "--seed"),
        ("sim --seed 1 --trace-node 1", "--trace"),
        ("sim --seed 1 --nodes 4 --trace one.trace --trace-node 4", "no node 4"),
    ];
    for (arguments, words) in wrong {
        let output = bench.run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments}: {}", stderr(&output));
        assert!(stderr(&output).contains(words), "{arguments}: {}", stderr(&output));
    }
}

#[test]
fn a_seed_is_not_traced_or_the_trace_does_not_replay() {
    let bench = Bench::new();
    let network = "sim --seed 3 --nodes 4 --commits 16";
    bench.json(&format!("{network} --trace one.trace"));
    bench.json(&format!("{network} --trace other.trace --trace-node 0"));
    for name in ["one.trace", "other.trace"] {
        let replayed = bench.json(&format!("trace replay {name} --check"));
        assert_eq!(replayed["same"], true, "{replayed}");
        assert!(replayed["events"].as_u64() > Some(20), "{replayed}");
    }
    assert_ne!(bench.read("one.trace"), bench.read("other.trace"));
    let refused = bench.run(&format!("{network} --trace one.trace"));
    assert_eq!(refused.status.code(), Some(1));
    assert!(stderr(&refused).contains("one.trace exists"), "{}", stderr(&refused));
    assert_eq!(bench.names(), ["one.trace", "other.trace"], "nothing else is left behind");
}
