//! What happens at a moment, and to be seen: stalls, offences, halts, connections.

use super::collect::Peers;
use serde_json::{Value, json};
use soma_sync_core::{
    command::{Command, Notice},
    event::Event,
    types::PeerId,
};
use soma_sync_proto::trace::{CommandKind, Mark, TraceEntry};
use std::collections::BTreeMap;

/// Most incidents that are kept.
const INCIDENTS_MAX: usize = 20_000;

struct Incident {
    at: u64,
    lane: Option<usize>,
    kind: &'static str,
    /// How long a ban lasts, in microseconds; else 0.
    lasts: u64,
    text: String,
}

/// The incidents, in their order.
#[derive(Default)]
pub(super) struct Incidents {
    all: Vec<Incident>,
    counts: BTreeMap<&'static str, u64>,
    left_out: u64,
}

impl Incidents {
    fn push(&mut self, incident: Incident) {
        *self.counts.entry(incident.kind).or_default() += 1;
        if self.all.len() < INCIDENTS_MAX {
            self.all.push(incident);
        } else {
            self.left_out += 1;
        }
    }

    fn of_peer(&mut self, at: u64, peer: &PeerId, kind: &'static str, peers: &mut Peers) {
        if let Some(lane) = peers.lane(peer) {
            self.push(Incident { at, lane: Some(lane), kind, lasts: 0, text: String::new() });
        }
    }

    fn of_us(&mut self, at: u64, kind: &'static str, text: String) {
        self.push(Incident { at, lane: None, kind, lasts: 0, text });
    }

    pub(super) fn event(&mut self, entry: &TraceEntry, at: u64, peers: &mut Peers) {
        match &entry.event {
            Event::PeerConnected { peer } => self.of_peer(at, peer, "connected", peers),
            Event::PeerDisconnected { peer } => self.of_peer(at, peer, "disconnected", peers),
            Event::StoreFailed { .. } => self.of_us(at, "store-failed", String::new()),
            Event::StoreReopened { start } => {
                self.of_us(at, "store-reopened", format!("at {}", start.tip.reference));
            }
            Event::Pruned { lowest } => self.of_us(at, "pruned", format!("the lowest commit is {lowest}")),
            Event::Tick
            | Event::CommitObserved { .. }
            | Event::VotesObserved { .. }
            | Event::CommitteeKnown { .. }
            | Event::RequestReceived { .. }
            | Event::ResponsePart { .. }
            | Event::RequestFinished { .. }
            | Event::Verified { .. }
            | Event::Stored { .. }
            | Event::Broadcasted { .. }
            | Event::Served { .. } => {}
        }
        if entry.unfinished {
            self.of_us(at, "panic", format!("the machine did not come back from event {}", entry.number));
        }
    }

    /// A command, as it was recorded, and in full where the machine gave it again.
    pub(super) fn command(&mut self, mark: &Mark, command: Option<&Command>, at: u64, peers: &mut Peers) {
        let kind = match mark.kind {
            CommandKind::Disconnect => "offence",
            CommandKind::Synced => "synced",
            CommandKind::Behind => "behind",
            CommandKind::Stalled => "stall",
            CommandKind::Resumed => "resumed",
            CommandKind::CommitteeWanted => "committee-wanted",
            CommandKind::ObservedRefused => "observed-refused",
            CommandKind::ObservedLost => "observed-lost",
            CommandKind::Halted => "halt",
            CommandKind::AskCommitInfo
            | CommandKind::AskAvailability
            | CommandKind::AskCommits
            | CommandKind::AskBlocks
            | CommandKind::Push
            | CommandKind::Cancel
            | CommandKind::Certify
            | CommandKind::Check
            | CommandKind::Observe
            | CommandKind::Votes
            | CommandKind::Store
            | CommandKind::Broadcast
            | CommandKind::Respond
            | CommandKind::Refuse
            | CommandKind::ServeCommitInfo
            | CommandKind::ServeCommits
            | CommandKind::ServeBlocks => return,
        };
        let lasts = if mark.kind == CommandKind::Disconnect { mark.time_us } else { 0 };
        let text = command.and_then(text_of).unwrap_or_else(|| mark.to_string());
        let lane = mark.peer.as_ref().and_then(|peer| peers.lane(peer));
        self.push(Incident { at, lane, kind, lasts, text });
    }

    pub(super) const fn left_out(&self) -> u64 {
        self.left_out
    }
    pub(super) fn counts(&self) -> Value {
        json!(self.counts)
    }

    pub(super) fn json(&self) -> Value {
        let incident = |Incident { at, lane, kind, lasts, text }: &Incident| json!({ "t": at, "peer": lane, "kind": kind, "lasts": lasts, "text": text });
        self.all.iter().map(incident).collect()
    }
}

/// What a command says beyond its mark.
fn text_of(command: &Command) -> Option<String> {
    match command {
        Command::Disconnect { offence, .. } => Some(offence.to_string()),
        Command::Notify(notice) => Some(match notice {
            Notice::Synced { tip } => format!("at commit {}", tip.index),
            Notice::Behind { tip, target } => format!("at commit {tip}; a peer has {target}"),
            Notice::Stalled(stall) => stall.to_string(),
            Notice::Resumed => String::new(),
            Notice::CommitteeWanted { epoch } => format!("of epoch {epoch}"),
            Notice::ObservedRefused(error) => error.to_string(),
            Notice::ObservedLost { failures } => format!("{failures} workers died over it"),
            Notice::Halted(halt) => halt.to_string(),
        }),
        Command::SendRequest { .. }
        | Command::CancelRequest { .. }
        | Command::Verify { .. }
        | Command::StoreBatch { .. }
        | Command::Broadcast { .. }
        | Command::Respond { .. }
        | Command::Refuse { .. }
        | Command::Serve { .. } => None,
    }
}
