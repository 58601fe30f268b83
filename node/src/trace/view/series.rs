//! Where the machine was, sampled.

use super::collect::Peers;
use serde_json::{Value, json};
use soma_sync_core::{Status, SyncMachine, explain::Stage, types::CommitIndex};

/// About the most points of a series.
const POINTS_MAX: u64 = 4_000;
/// About the most moments at which the window is looked at.
const STAGES_MAX: u64 = 240;
/// How many commits of the window are looked at.
const WINDOW: u32 = 256;

/// What changes with time. All columns of a table are of one length; moments are in microseconds.
#[derive(Default)]
pub(super) struct Series {
    /// Time is cut in cells; each has one sample, of its last event.
    cell: u64,
    stages_cell: u64,
    last: Option<u64>,
    last_stages: Option<u64>,
    at: Vec<u64>,
    stored: Vec<u32>,
    certifiable: Vec<u32>,
    delivered: Vec<u32>,
    buffered: Vec<u64>,
    requests: Vec<usize>,
    jobs: Vec<u32>,
    bytes: Vec<u64>,
    claims: Vec<(Vec<u64>, Vec<u32>)>,
    stages: Vec<(u64, [u32; 6])>,
}

impl Series {
    pub(super) fn new(duration: u64) -> Self {
        Self {
            cell: (duration / POINTS_MAX).saturating_add(1),
            stages_cell: (duration / STAGES_MAX).saturating_add(1),
            ..Self::default()
        }
    }

    /// Whether an event then is in another cell than the one before it, which has to be sampled first.
    pub(super) fn is_due(&self, at: u64) -> bool {
        self.last.is_some_and(|last| last / self.cell != at / self.cell)
    }
    /// That there was an event then.
    pub(super) const fn told(&mut self, at: u64) {
        self.last = Some(at);
    }

    pub(super) fn sample(&mut self, machine: &SyncMachine, bytes: u64, peers: &Peers) {
        let Some(at) = self.last else { return };
        let status = machine.status();
        self.at.push(at);
        self.stored.push(status.durable.get());
        self.certifiable.push(status.certifiable.index.get());
        self.delivered.push(status.delivered.get());
        self.buffered.push(status.buffered_bytes);
        self.requests.push(status.requests_in_flight);
        self.jobs.push(status.jobs_running);
        self.bytes.push(bytes);
        for peer in &status.peers {
            if let Some((lane, claim)) = peers.known(&peer.id).zip(peer.claim) {
                self.claim(lane, at, claim.0.get());
            }
        }
        if self.last_stages.is_none_or(|last| last / self.stages_cell != at / self.stages_cell) {
            self.last_stages = Some(at);
            self.stages.push((at, stages(machine, &status)));
        }
    }

    fn claim(&mut self, lane: usize, at: u64, highest: u32) {
        if self.claims.len() <= lane {
            self.claims.resize_with(lane.saturating_add(1), Default::default);
        }
        if let Some((moments, claims)) = self.claims.get_mut(lane)
            && claims.last() != Some(&highest)
        {
            moments.push(at);
            claims.push(highest);
        }
    }

    /// What a peer claimed to have, and from when on.
    pub(super) fn claims(&self, lane: usize) -> (&[u64], &[u32]) {
        self.claims.get(lane).map_or((&[], &[]), |(moments, claims)| (moments, claims))
    }
    /// The last moment that is known.
    pub(super) fn until(&self) -> Option<u64> {
        self.at.last().copied()
    }
    /// The last commit that was stored, as far as is known.
    pub(super) fn stored(&self) -> Option<u32> {
        self.stored.last().copied()
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "t": self.at,
            "stored": self.stored,
            "certifiable": self.certifiable,
            "delivered": self.delivered,
            "buffered": self.buffered,
            "requests": self.requests,
            "jobs": self.jobs,
            "bytes": self.bytes,
        })
    }

    pub(super) fn stages_json(&self) -> Value {
        let at: Vec<_> = self.stages.iter().map(|(at, _)| at).collect();
        let counts: Vec<_> = self.stages.iter().map(|(_, counts)| counts).collect();
        json!({ "window": WINDOW, "t": at, "counts": counts })
    }
}

/// How many of the commits above the durable ones, up to the highest that a peer claims to have, are in each stage:
/// being stored, complete, lacking blocks, being certified, asked for, missing.
fn stages(machine: &SyncMachine, status: &Status) -> [u32; 6] {
    let mut counts = [0; 6];
    let first = status.durable.saturating_add(1).get();
    let known = status.target.unwrap_or_default().max(status.queued.index).get();
    for index in (first..=known.min(first.saturating_add(WINDOW - 1))).map(CommitIndex::new) {
        let count = match machine.explain(index).stage {
            // Above what may be asked for there can be commits that were asked for before that was known.
            Stage::Beyond { .. } | Stage::Pruned { .. } | Stage::Stored { .. } => continue,
            Stage::Storing => &mut counts[0],
            Stage::Certified(blocks) if blocks.held + blocks.staged == blocks.total() => &mut counts[1],
            Stage::Certified(_) => &mut counts[2],
            Stage::Certifying => &mut counts[3],
            Stage::Requested => &mut counts[4],
            Stage::Missing => &mut counts[5],
        };
        *count += 1;
    }
    counts
}
