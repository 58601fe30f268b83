//! `tip`, on the real program, in small: counts only, for times depend on the machine.

use serde_json::Value;
use std::process::{Command, Output};

fn tip(arguments: &str) -> Output {
    let arguments = arguments.split_whitespace();
    Command::new(env!("CARGO_BIN_EXE_tip")).args(arguments).output().expect("the program runs")
}

const SMALL: &str = "--followers 2 --commits-per-second 5 --seconds 1 --blocks-per-commit 4 --payload-bytes 64 \
                     --committee 4";

#[test]
fn a_commit_at_the_tip_is_missed_or_counted_twice() {
    let output = tip(&format!("{SMALL} --json"));
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("text");
    assert_eq!(text.lines().count(), 1, "{text}");
    let result: Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!([&result["level"], &result["commits"]], [&Value::Bool(true), &5.into()], "{result}");
    assert_eq!([&result["tip"]["index"], &result["latency_ms"]["count"]], [5, 10], "{result}");
    assert_eq!(result["certifying_ms"]["count"], 5, "{result}");
    assert!(result["round_trip_ms"]["count"].as_u64() > Some(0), "{result}");
    let followers = result["followers"].as_array().expect("a list");
    assert_eq!(followers.len(), 2);
    for follower in followers {
        assert_eq!([&follower["delivered"], &follower["latency_ms"]["count"]], [5, 5], "{result}");
        assert_eq!(follower["tip"], result["tip"]);
        let lag = follower["lag_max"].as_u64().expect("a number");
        assert!(lag <= 5, "{result}");
    }
}

#[test]
fn the_table_leaves_somebody_out() {
    let output = tip(&format!("{SMALL} --verification digest"));
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let text = String::from_utf8(output.stdout).expect("text");
    for words in
        ["digest verification", "follower 1 ", "follower 2 ", "all ", "round trip ", "every follower ended"]
    {
        assert!(text.contains(words), "{words}: {text}");
    }
}

#[test]
fn what_cannot_be_is_no_wrong_usage() {
    for wrong in ["--followers 0", "--committee 0", "--seconds 3600 --payload-bytes 3000000", "more"] {
        assert_eq!(tip(wrong).status.code(), Some(2), "{wrong}");
    }
}
