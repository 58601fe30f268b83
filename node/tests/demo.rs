//! `soma-sync demo`, on the real program: several nodes over real QUIC, in small.

mod common;

use common::{Bench, last_line_json, running::Running, stderr};
use serde_json::Value;
use std::process::Output;

/// A demo of a small chain.
const SMALL: &str = "demo --commits 60 --blocks-per-commit 4 --payload-bytes 64 --live-seconds 0 --seed 3";

/// Checks what a demo that succeeded says of itself, and gives its peers' offences.
fn offences(result: &Value) -> Vec<u64> {
    assert_eq!([&result["synced"], &result["verified"]], [true, true], "{result}");
    assert_eq!(result["tip"], result["server_tip"]);
    let commits = result["commits"].as_u64().expect("a number");
    assert!((60..=result["tip"]["index"].as_u64().expect("a number")).contains(&commits), "{result}");
    assert_eq!(result["blocks"], 4 * commits);
    for figure in ["bytes", "seconds", "commits_per_s", "blocks_per_s", "mb_per_s", "max_buffered_bytes_seen"]
    {
        assert!(result[figure].as_f64().is_some_and(|value| value > 0.0), "{figure}: {result}");
    }
    for figure in ["cpu_seconds", "peak_rss_bytes"] {
        assert_eq!(result[figure].is_number(), cfg!(target_os = "linux"), "{figure}: {result}");
    }
    let peers = result["peers"].as_array().expect("a list");
    assert!(peers.iter().any(|peer| peer["served_commits"].as_u64() > Some(0)), "{result}");
    assert!(peers.iter().all(|peer| peer["id"].as_str().is_some_and(|id| id.len() == 64)), "{result}");
    peers.iter().map(|peer| peer["offences"].as_u64().expect("a number")).collect()
}

fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn with_chaos_the_tip_is_missed_or_the_liar_is_not_caught() {
    let bench = Bench::new();
    let result = bench.json(SMALL);
    // Three honest ones, and the liar.
    let offences = offences(&result);
    assert_eq!(offences.len(), 4);
    assert_eq!(offences[..3], [0; 3], "{result}");
    assert!(offences[3] > 0, "{result}");
    assert_eq!(result["peers"][3]["served_commits"], 0, "{result}");
}

#[test]
fn silence_or_a_lie_keeps_a_node_from_an_honest_server_or_is_laid_at_its_door() {
    let bench = Bench::new();
    let result = bench.json(&format!("{SMALL} --servers lying,silent,honest --trace demo.trace"));
    assert_eq!(bench.json("trace replay demo.trace --check")["same"], true, "its trace does not replay");
    let offences = offences(&result);
    assert!(offences[0] > 0 && offences[1..] == [0, 0], "{result}");
    let each = |key: &str| [0, 1, 2].map(|position| &result["peers"][position][key]);
    assert_eq!(each("manner"), ["lying", "silent", "honest"]);
    assert!(each("last_offence").map(Value::is_string) == [true, false, false], "{result}");
    assert!(each("timeouts")[1].as_u64() > Some(0), "{result}");
    assert_eq!([each("served_commits")[1], each("served_bytes")[1]], [0, 0], "{result}");
    assert!(each("served_commits")[2].as_u64() >= result["tip"]["index"].as_u64(), "{result}");
    assert_eq!(each("served_commits")[0], 0, "{result}");
}

#[test]
fn without_chaos_somebody_is_blamed() {
    let bench = Bench::new();
    for verification in ["full", "digest"] {
        let result =
            bench.json(&format!("{SMALL} --no-chaos --peers 2 --epochs 3 --verification {verification}"));
        assert_eq!(offences(&result), [0; 2]);
    }
}

#[test]
fn the_only_server_goes_away_for_good() {
    let bench = Bench::new();
    let output = bench.run(&format!("{SMALL} --peers 1 --committee 1 --json"));
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert_eq!(offences(&last_line_json(&output)).len(), 2);
    for happening in
        ["peer 1 is stopped", "peer 1 is started again", "peer 2 has sent what is provably wrong"]
    {
        assert!(said.contains(happening), "{said}");
    }
}

#[test]
fn the_stores_do_not_hold_what_the_demo_says() {
    let bench = Bench::new();
    let result = bench.json(&format!("{SMALL} --no-chaos --peers 2 --dir home"));
    for store in ["home/fresh", "home/peer-1", "home/peer-2"] {
        let stored = bench.json(&format!("chain verify --store {store}"));
        assert_eq!([&stored["ok"], &stored["tip"]], [&Value::Bool(true), &result["tip"]], "{store}");
    }
    let said = bench.failure(&format!("{SMALL} --dir home"));
    assert!(said.contains("home is not empty"), "{said}");
}

#[test]
fn temporary_stores_stay_behind() {
    let bench = Bench::new();
    let output = bench.command(SMALL).env("TMPDIR", bench.path("")).output().expect("the program runs");
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(bench.names(), [""; 0]);
}

#[test]
fn a_pipe_is_written_to_as_a_terminal_or_left_in_the_dark() {
    let bench = Bench::new();
    let output = bench.run(SMALL);
    let (said, logged) = (stdout(&output), stderr(&output));
    assert_eq!(output.status.code(), Some(0), "{said}{logged}");
    assert!(!said.contains(['\x1b', '\r']), "{said}");
    assert_eq!(logged, "");
    for words in
        ["a fresh node starts", "commits/s", "caught up", "synced and verified", " timeouts  banned: it"]
    {
        assert!(said.contains(words), "{words}: {said}");
    }
}

#[test]
fn with_json_stdout_has_more_than_the_result() {
    let output = Bench::new().run(&format!("{SMALL} --no-chaos --json"));
    assert_eq!(stdout(&output).lines().count(), 1);
    assert!(!stderr(&output).contains(['\x1b', '\r']));
    assert_eq!(offences(&last_line_json(&output)), [0; 3]);
}

const MANY_SERVERS: &str = "--servers honest,honest,honest,honest,honest,honest,honest,honest,honest,honest,honest,\
                            honest,honest,honest,honest,honest,honest";

#[test]
fn what_cannot_be_is_no_wrong_usage() {
    let bench = Bench::new();
    for wrong in [
        "--peers 0",
        "--peers 17",
        "--commits 0",
        "--commits x",
        "--committee 0",
        "--blocks-per-commit 0",
        "--epochs 0",
        "--commits 2 --epochs 3",
        "--payload-bytes 4MiB",
        "--payload-bytes 12XB",
        "--live-seconds 3601",
        "--verification none",
        "--servers silent,slow,lying",
        "--servers honest,unheard-of",
        "--servers honest,",
        "--servers honest --peers 2",
        "--servers honest --chaos",
        "--servers honest --no-chaos",
        MANY_SERVERS,
        "--seed -1",
        "--unheard-of",
        "more",
    ] {
        let output = bench.run(&format!("demo {wrong}"));
        assert_eq!(output.status.code(), Some(2), "{wrong}: {output:?}");
        assert!(stderr(&output).starts_with("error: "), "{wrong}");
    }
    assert_eq!(bench.names(), [""; 0]);
}

#[cfg(unix)]
#[test]
fn ctrl_c_leaves_a_store_open_or_goes_unheard() {
    let bench = Bench::new();
    for (signal, no_chaos) in [("INT", ""), ("TERM", "--no-chaos")] {
        let home = format!("home-{signal}");
        let arguments =
            SMALL.replace("--live-seconds 0", &format!("--live-seconds 3600 --dir {home} --json {no_chaos}"));
        let mut demo = Running::spawn(&mut bench.command(&arguments));
        demo.hear(|line| line.contains("caught up").then_some(()));
        demo.signal(signal);
        let ended = demo.end();
        assert_eq!(ended.code, Some(130), "{}", ended.stderr);
        let result = ended.json();
        assert_eq!([&result["synced"], &result["verified"]], [false, false], "{result}");
        assert!(result["commits"].as_u64() >= Some(60), "{result}");
        for store in ["fresh", "peer-1"] {
            let stored = bench.json(&format!("chain verify --store {home}/{store}"));
            assert_eq!(stored["ok"], true);
        }
    }
}
