//! What a node says of itself: a line, a bar, a JSON object.

use crate::output::commit_json;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use soma_sync_core::{PeerStatus, types::CommitIndex};
use soma_sync_runtime_tokio::node::NodeStatus;
use std::time::Instant;

/// What figures are relative to.
#[derive(Clone, Copy, Debug)]
pub(super) struct Report {
    began: Instant,
    /// The stored tip at the start.
    first: CommitIndex,
}

impl Report {
    pub(super) fn new(began: Instant, first: CommitIndex) -> Self {
        Self { began, first }
    }

    /// A bar on stderr, hidden where that is no terminal.
    pub(super) fn bar(&self) -> ProgressBar {
        let style = ProgressStyle::with_template("{bar:40} {pos}/{len} commits, {per_sec}  {msg}");
        ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
    }

    pub(super) fn show(&self, bar: &ProgressBar, status: &NodeStatus) {
        let machine = &status.machine;
        let height = machine.certifiable.index;
        let target = machine.target.unwrap_or(height).max(height);
        bar.set_length(u64::from(target.get()));
        bar.set_position(u64::from(height.get()));
        let connected = machine.peers.iter().filter(|peer| peer.connected).count();
        let stall = machine.stall.map(|stall| format!(", stalled: {stall}")).unwrap_or_default();
        bar.set_message(format!("{connected} peers{stall}"));
    }

    /// Everything that matters, in one line.
    pub(super) fn line(&self, status: &NodeStatus) -> String {
        let machine = &status.machine;
        let seconds = self.began.elapsed().as_secs_f64();
        let counters = machine.counters;
        let state = match (&machine.halted, machine.stall, machine.synced) {
            (Some(halt), _, _) => format!("halted: {halt}"),
            (None, Some(stall), _) => format!("stalled: {stall}"),
            (None, None, true) => "synced".to_owned(),
            (None, None, false) => {
                let connected = machine.peers.iter().filter(|peer| peer.connected).count();
                format!("syncing from {connected} peers")
            }
        };
        format!(
            "{state}; at {}, {} commits and {} blocks stored in {seconds:.1} s",
            machine.queued, counters.stored_commits, counters.stored_blocks
        )
    }

    /// The object that a script reads.
    pub(super) fn json(&self, status: &NodeStatus) -> Value {
        let machine = &status.machine;
        let counters = machine.counters;
        json!({
            "synced": machine.synced,
            "tip": commit_json(&machine.queued),
            "commits": counters.stored_commits,
            "blocks": counters.stored_blocks,
            "bytes": machine.peers.iter().map(|peer| peer.served_bytes).sum::<u64>(),
            "seconds": self.began.elapsed().as_secs_f64(),
            "peers": machine.peers.iter().map(peer_json).collect::<Vec<_>>(),
            "status": {
                "chain_id": machine.chain_id.to_string(),
                "first": self.first.get(),
                "queued": machine.queued.index.get(),
                "durable": machine.durable.get(),
                "certifiable": commit_json(&machine.certifiable),
                "delivered": machine.delivered.get(),
                "lowest_available": machine.lowest_available.get(),
                "epoch": machine.epoch.get(),
                "target": machine.target.map(CommitIndex::get),
                "stall": machine.stall.map(|stall| stall.to_string()),
                "halted": machine.halted.as_ref().map(ToString::to_string),
                "buffered_bytes_peak": machine.buffered_bytes_peak,
                "sent_bytes": counters.sent_bytes,
                "timeouts": counters.timeouts,
                "evicted": counters.evicted,
            },
        })
    }
}

fn peer_json(peer: &PeerStatus) -> Value {
    json!({
        "id": peer.id.to_string(),
        "connected": peer.connected,
        "served_commits": peer.served_commits,
        "served_bytes": peer.served_bytes,
        "timeouts": peer.timeouts,
        "offences": peer.offences,
        "last_offence": peer.last_offence.map(|offence| offence.to_string()),
        "latency_us": peer.latency_us,
    })
}
