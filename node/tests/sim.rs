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
    ];
    for (arguments, words) in wrong {
        let output = bench.run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments}: {}", stderr(&output));
        assert!(stderr(&output).contains(words), "{arguments}: {}", stderr(&output));
    }
}
