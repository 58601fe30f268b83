//! What is printed of a run: the table for people, and the object for scripts.

use crate::{
    Arguments, Verification,
    measure::{Followed, Measured},
};
use serde_json::{Value, json};
use soma_sync_core::types::CommitRef;
use std::{fmt::Write, time::Duration};

/// How some times are distributed, in milliseconds. Percentiles are by nearest rank; all of it is 0 where there are no
/// times.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct Distribution {
    count: usize,
    min: f64,
    median: f64,
    p90: f64,
    p99: f64,
    max: f64,
}

impl Distribution {
    pub(crate) fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let count = times.len();
        let percentile = |percent: usize| {
            let rank = (count * percent).div_ceil(100).max(1);
            times.get(rank - 1).map_or(0.0, |time| time.as_secs_f64() * 1e3)
        };
        Self {
            count,
            min: percentile(0),
            median: percentile(50),
            p90: percentile(90),
            p99: percentile(99),
            max: percentile(100),
        }
    }

    fn json(&self) -> Value {
        let Self { count, min, median, p90, p99, max } = self;
        json!({ "count": count, "min": min, "median": median, "p90": p90, "p99": p99, "max": max })
    }

    fn row(&self, name: &str) -> String {
        let Self { count, min, median, p90, p99, max } = self;
        format!("{name:<12} {count:>8} {min:>9.2} {median:>9.2} {p90:>9.2} {p99:>9.2} {max:>9.2}")
    }
}

const fn name(verification: Verification) -> &'static str {
    match verification {
        Verification::Full => "full",
        Verification::Digest => "digest",
    }
}

/// The object that a script reads.
pub(crate) fn json(arguments: &Arguments, measured: &Measured) -> Value {
    let commit =
        |commit: CommitRef| json!({ "index": commit.index.get(), "digest": commit.digest.to_string() });
    let follower = |follower: &Followed| {
        json!({
            "tip": commit(follower.tip),
            "delivered": follower.delivered,
            "latency_ms": follower.latency.json(),
            "lag_max": follower.lag_max,
        })
    };
    json!({
        "level": measured.is_level(),
        "tip": commit(measured.tip),
        "commits": measured.commits,
        "commits_per_second": arguments.commits_per_second,
        "blocks_per_commit": arguments.blocks_per_commit,
        "payload_bytes": arguments.payload_bytes,
        "committee": arguments.committee,
        "verification": name(arguments.verification),
        "seconds": measured.time.as_secs_f64(),
        "cpu_seconds": measured.cpu_seconds,
        "sent_bytes": measured.sent_bytes,
        "round_trip_ms": measured.round_trip.json(),
        "certifying_ms": measured.certifying.json(),
        "latency_ms": measured.latency.json(),
        "lag_max": lag_max(measured),
        "followers": measured.followers.iter().map(follower).collect::<Vec<_>>(),
    })
}

fn lag_max(measured: &Measured) -> u32 {
    measured.followers.iter().map(|follower| follower.lag_max).max().unwrap_or_default()
}

/// The table.
pub(crate) fn text(arguments: &Arguments, measured: &Measured) -> String {
    let mut text = format!(
        "{} commits/s of {} blocks of {} bytes, a committee of {}, {} verification; times in ms\n\n\
         {:<12} {:>8} {:>9} {:>9} {:>9} {:>9} {:>9} {:>8}\n",
        arguments.commits_per_second,
        arguments.blocks_per_commit,
        arguments.payload_bytes,
        arguments.committee,
        name(arguments.verification),
        "",
        "count",
        "min",
        "median",
        "p90",
        "p99",
        "max",
        "lag max",
    );
    let mut line = |row: String| {
        // Writing to a string does not fail.
        let _ = writeln!(text, "{row}");
    };
    for (number, follower) in (1..).zip(&measured.followers) {
        let row = follower.latency.row(&format!("follower {number}"));
        line(format!("{row} {:>8}", follower.lag_max));
    }
    line(format!("{} {:>8}", measured.latency.row("all"), lag_max(measured)));
    line(measured.certifying.row("certifying"));
    line(measured.round_trip.row("round trip"));
    let cpu = measured.cpu_seconds.map_or_else(|| "?".to_owned(), |seconds| format!("{seconds:.2}"));
    line(format!(
        "\n{cpu} s of processor time in {:.2} s, {:.1} MB sent by the validator",
        measured.time.as_secs_f64(),
        measured.sent_bytes as f64 / 1e6
    ));
    text.push_str(&ending(measured));
    text
}

/// Where everybody ended.
fn ending(measured: &Measured) -> String {
    let tip = measured.tip;
    if measured.is_level() {
        return format!("every follower ended at the validator's certifiable tip, {tip}");
    }
    let mut text =
        format!("NOT level: the validator was told {} commits and can certify {tip}", measured.commits);
    for (number, follower) in (1..).zip(&measured.followers) {
        let _ = write!(
            text,
            "\n  follower {number} has delivered {} and can certify {}",
            follower.delivered, follower.tip
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use soma_sync_core::types::{CommitDigest, CommitIndex};

    #[test]
    fn a_percentile_is_not_the_time_of_its_rank() {
        let times = (1..=200).rev().map(Duration::from_millis).collect();
        let expected =
            Distribution { count: 200, min: 1.0, median: 100.0, p90: 180.0, p99: 198.0, max: 200.0 };
        assert_eq!(Distribution::of(times), expected);
        let one = Distribution::of(vec![Duration::from_millis(7)]);
        assert_eq!([one.min, one.median, one.p99, one.max], [7.0; 4]);
        assert_eq!(Distribution::of(Vec::new()), Distribution::default());
    }

    #[test]
    fn a_follower_that_is_elsewhere_or_has_missed_something_is_level() {
        let tip = CommitRef { index: CommitIndex::new(3), digest: CommitDigest::ZERO };
        let follower =
            |tip, delivered| Followed { tip, delivered, latency: Distribution::default(), lag_max: 1 };
        let measured = |tip, follower| Measured {
            commits: 3,
            tip,
            followers: vec![follower],
            latency: Distribution::default(),
            certifying: Distribution::default(),
            round_trip: Distribution::default(),
            time: Duration::ZERO,
            cpu_seconds: None,
            sent_bytes: 0,
        };
        assert!(measured(tip, follower(tip, 3)).is_level());
        let below = CommitRef { index: CommitIndex::new(2), ..tip };
        for other in [
            measured(tip, follower(below, 3)),
            measured(tip, follower(tip, 2)),
            measured(below, follower(below, 3)),
        ] {
            assert!(!other.is_level());
            assert!(ending(&other).starts_with("NOT level"));
        }
    }
}
