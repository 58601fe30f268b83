//! What came of a demo: the object for scripts, and the summary for people.

use super::{manner::Manner, usage::Usage};
use crate::output::commit_json;
use indicatif::{HumanBytes, HumanCount};
use serde_json::{Value, json};
use soma_sync_core::{
    command::Offence,
    types::{CommitRef, PeerId},
};
use std::{fmt::Write, time::Duration};

/// Why a demo ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It came to its end.
    Done,
    /// Somebody ended it.
    Interrupted,
    /// Something stood in its way.
    Failed(String),
}

/// How the fresh node caught up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct CatchUp {
    pub(super) commits: u64,
    pub(super) blocks: u64,
    /// Of blocks, as their peers sent them.
    pub(super) bytes: u64,
    pub(super) time: Duration,
}

impl CatchUp {
    fn per_second(&self, count: u64) -> f64 {
        let seconds = self.time.as_secs_f64();
        if seconds > 0.0 { count as f64 / seconds } else { 0.0 }
    }
}

/// What the fresh node has to say about one serving node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PeerOutcome {
    pub(super) number: usize,
    pub(super) id: PeerId,
    pub(super) manner: Manner,
    /// Whether it was stopped and started again.
    pub(super) was_away: bool,
    pub(super) served_commits: u64,
    pub(super) served_bytes: u64,
    /// Requests to it whose time was up.
    pub(super) timeouts: u64,
    pub(super) offences: u32,
    pub(super) last_offence: Option<Offence>,
}

/// Everything that came of a demo.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Outcome {
    pub(super) end: End,
    /// The highest commit that the fresh node can certify, and the highest one that a serving node can.
    pub(super) tip: CommitRef,
    pub(super) server_tip: CommitRef,
    pub(super) catch_up: CatchUp,
    pub(super) max_buffered_bytes: u64,
    pub(super) peers: Vec<PeerOutcome>,
    /// What verifying the fresh node's store from genesis on has found, where it came to that.
    pub(super) verified: Option<Result<(), String>>,
    pub(super) usage: Usage,
}

impl Outcome {
    pub(super) fn is_synced(&self) -> bool {
        self.end == End::Done && self.tip == self.server_tip
    }

    pub(super) fn is_verified(&self) -> bool {
        matches!(self.verified, Some(Ok(())))
    }

    /// What went wrong, if something did.
    pub(super) fn failure(&self) -> Option<String> {
        match (&self.end, &self.verified) {
            (End::Failed(reason), _) => Some(reason.clone()),
            (_, Some(Err(reason))) => Some(reason.clone()),
            (End::Done, _) if !self.is_synced() => {
                Some(format!("the fresh node has {}, and the serving nodes {}", self.tip, self.server_tip))
            }
            (End::Done | End::Interrupted, _) => None,
        }
    }

    /// The object that a script reads.
    pub(super) fn json(&self) -> Value {
        let CatchUp { commits, blocks, bytes, time } = self.catch_up;
        json!({
            "synced": self.is_synced(),
            "tip": commit_json(&self.tip),
            "server_tip": commit_json(&self.server_tip),
            "commits": commits,
            "blocks": blocks,
            "bytes": bytes,
            "seconds": time.as_secs_f64(),
            "commits_per_s": self.catch_up.per_second(commits),
            "blocks_per_s": self.catch_up.per_second(blocks),
            "mb_per_s": self.catch_up.per_second(bytes) / 1e6,
            "cpu_seconds": self.usage.cpu_seconds,
            "peak_rss_bytes": self.usage.peak_rss_bytes,
            "max_buffered_bytes_seen": self.max_buffered_bytes,
            "peers": self.peers.iter().map(PeerOutcome::json).collect::<Vec<_>>(),
            "verified": self.is_verified(),
        })
    }

    /// The summary.
    pub(super) fn text(&self) -> String {
        let CatchUp { commits, blocks, bytes, time } = self.catch_up;
        let mut text = format!(
            "\n{}\n\
             caught up:   {} commits, {} blocks, {} in {:.2} s\n\
             \x20            {:.0} commits/s, {:.0} blocks/s, {:.1} MB/s\n\
             buffers:     at most {}, for what was asked for and what was not stored yet\n",
            self.headline(),
            HumanCount(commits),
            HumanCount(blocks),
            HumanBytes(bytes),
            time.as_secs_f64(),
            self.catch_up.per_second(commits),
            self.catch_up.per_second(blocks),
            self.catch_up.per_second(bytes) / 1e6,
            HumanBytes(self.max_buffered_bytes),
        );
        if let Usage { cpu_seconds: Some(cpu), peak_rss_bytes: Some(rss) } = self.usage {
            // Writing to a string does not fail.
            let _ = writeln!(
                text,
                "all nodes:   {cpu:.1} s of processor time, {} of memory at most",
                HumanBytes(rss)
            );
        }
        for peer in &self.peers {
            let _ = write!(text, "\n{}", peer.line());
        }
        text
    }

    fn headline(&self) -> String {
        let state = match (&self.end, self.is_synced(), self.is_verified()) {
            (End::Interrupted, _, _) => "interrupted",
            (_, true, true) => "synced and verified from genesis",
            (_, true, false) => "synced, and NOT verified",
            (_, false, true) => "verified from genesis, and NOT synced",
            (_, false, false) => "NOT synced, NOT verified",
        };
        format!("{state}: tip {} {}", self.tip.index, self.tip.digest)
    }
}

impl PeerOutcome {
    fn json(&self) -> Value {
        json!({
            "id": self.id.to_string(),
            "manner": self.manner.name(),
            "served_commits": self.served_commits,
            "served_bytes": self.served_bytes,
            "timeouts": self.timeouts,
            "offences": self.offences,
            "last_offence": self.last_offence.map(|offence| offence.to_string()),
        })
    }

    fn line(&self) -> String {
        let mut remarks = Vec::new();
        if self.was_away {
            remarks.push("stopped half-way and started again".to_owned());
        }
        if let Some(offence) = self.last_offence {
            remarks.push(match self.offences {
                0 | 1 => format!("banned: {offence}"),
                offences => format!("banned {offences} times, the last time because {offence}"),
            });
        }
        let line = format!(
            "peer {:<2}  {:?}  {:<6}  {:>8} commits  {:>11}  {:>3} timeouts  {}",
            self.number + 1,
            self.id,
            self.manner.name(),
            HumanCount(self.served_commits).to_string(),
            HumanBytes(self.served_bytes).to_string(),
            HumanCount(self.timeouts).to_string(),
            remarks.join(", ")
        );
        line.trim_end().to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use soma_sync_core::types::{CommitDigest, CommitIndex};

    fn outcome() -> Outcome {
        let tip = CommitRef { index: CommitIndex::new(9), digest: CommitDigest::new([3; 32]) };
        Outcome {
            end: End::Done,
            tip,
            server_tip: tip,
            catch_up: CatchUp { commits: 8, blocks: 80, bytes: 4_000_000, time: Duration::from_secs(2) },
            max_buffered_bytes: 1,
            peers: Vec::new(),
            verified: Some(Ok(())),
            usage: Usage { cpu_seconds: None, peak_rss_bytes: None },
        }
    }

    #[test]
    fn a_demo_that_failed_says_that_it_is_synced_and_verified() {
        assert_eq!(outcome().failure(), None);
        let behind = Outcome { tip: CommitRef::GENESIS, ..outcome() };
        assert!(!behind.is_synced() && behind.failure().is_some());
        let same_index = CommitRef { digest: CommitDigest::ZERO, ..outcome().tip };
        assert!(!Outcome { tip: same_index, ..outcome() }.is_synced());
        let stuck = Outcome { end: End::Failed("stuck".to_owned()), ..outcome() };
        assert!(!stuck.is_synced() && stuck.failure().as_deref() == Some("stuck"));
        let bad = Outcome { verified: Some(Err("bad".to_owned())), ..outcome() };
        assert!(!bad.is_verified() && bad.failure().as_deref() == Some("bad"));
    }

    #[test]
    fn a_peer_did_something_else_than_its_line_says() {
        let peer = PeerOutcome {
            number: 1,
            id: PeerId::ZERO,
            manner: Manner::Lying,
            was_away: false,
            served_commits: 1_200,
            served_bytes: 0,
            timeouts: 3,
            offences: 1,
            last_offence: Some(Offence::BadBlock),
        };
        let line = peer.line();
        for words in ["peer 2 ", "lying ", " 1,200 commits", " 3 timeouts", "banned: it sent a block"] {
            assert!(line.contains(words), "{words}: {line}");
        }
        let json = peer.json();
        assert_eq!([&json["manner"], &json["timeouts"]], [&Value::from("lying"), &Value::from(3)]);
        assert_eq!(json["last_offence"], Offence::BadBlock.to_string());
        let twice = PeerOutcome { offences: 2, ..peer.clone() };
        assert!(twice.line().contains("banned 2 times"), "{}", twice.line());
        let good = PeerOutcome { offences: 0, last_offence: None, was_away: true, ..peer };
        assert!(good.line().ends_with("  stopped half-way and started again"), "{}", good.line());
        assert_eq!(good.json()["last_offence"], Value::Null);
    }

    #[test]
    fn rates_are_not_what_was_counted_by_the_time_it_took() {
        let json = outcome().json();
        assert_eq!([&json["commits_per_s"], &json["blocks_per_s"], &json["mb_per_s"]], [4.0, 40.0, 2.0]);
        assert_eq!([&json["cpu_seconds"], &json["peak_rss_bytes"]], [&Value::Null, &Value::Null]);
        assert_eq!(Outcome { catch_up: CatchUp::default(), ..outcome() }.json()["mb_per_s"], 0.0);
    }
}
