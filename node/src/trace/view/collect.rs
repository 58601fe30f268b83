//! What a page shows of a trace, gathered in one pass over it.

use super::{
    incidents::Incidents,
    requests::{REQUESTS_MAX, Requests},
    series::Series,
    told::Told,
};
use serde_json::{Value, json};
use soma_sync_core::{event::Event, time::Timestamp, types::PeerId};
use soma_sync_proto::trace::{TraceEntry, TraceError, TraceReader};
use std::{collections::BTreeMap, io::Read};

/// Most peers that have a lane.
const PEERS_MAX: usize = 64;

/// How much there is in a trace, which must be known before it can be sampled.
pub(super) struct Extent {
    started: Timestamp,
    ended: Timestamp,
}

impl Extent {
    pub(super) fn of(mut reader: TraceReader<impl Read>) -> Result<Self, TraceError> {
        let started = reader.header().started;
        let mut extent = Self { started, ended: started };
        while let Some(entry) = reader.next_entry()? {
            extent.ended = extent.ended.max(entry.at);
            // The clock of a machine need not begin at zero; what came before the first event kept is not shown.
            if reader.header().skipped_events > 0 && reader.events() == 1 {
                extent.started = entry.at;
            }
        }
        Ok(extent)
    }

    /// A moment, in microseconds since the beginning.
    pub(super) const fn at(&self, at: Timestamp) -> u64 {
        at.as_micros().saturating_sub(self.started.as_micros())
    }
    /// Microseconds from the beginning to the last event.
    pub(super) const fn duration(&self) -> u64 {
        self.at(self.ended)
    }
}

/// The peers, in the order in which they appear.
#[derive(Default)]
pub(super) struct Peers {
    ids: Vec<PeerId>,
    lanes: BTreeMap<PeerId, usize>,
    without_lane: bool,
}

impl Peers {
    /// The peer's lane; `None` where too many others had one before it.
    pub(super) fn lane(&mut self, peer: &PeerId) -> Option<usize> {
        if let Some(lane) = self.lanes.get(peer) {
            return Some(*lane);
        }
        if self.ids.len() >= PEERS_MAX {
            self.without_lane = true;
            return None;
        }
        let lane = self.ids.len();
        self.ids.push(*peer);
        self.lanes.insert(*peer, lane);
        Some(lane)
    }
    /// The lane, if it has one already.
    pub(super) fn known(&self, peer: &PeerId) -> Option<usize> {
        self.lanes.get(peer).copied()
    }
    pub(super) const fn len(&self) -> usize {
        self.ids.len()
    }
}

/// All that a page shows.
pub(super) struct Collected {
    pub(super) peers: Peers,
    pub(super) series: Series,
    pub(super) requests: Requests,
    pub(super) incidents: Incidents,
    told: Told,
    /// How many events came before those that are there, where the machine goes on from its state after them.
    begun_before: Option<u64>,
}

impl Collected {
    pub(super) fn of(reader: &mut TraceReader<impl Read>, extent: &Extent) -> Result<Self, TraceError> {
        let mut collected = Self {
            peers: Peers::default(),
            series: Series::new(extent.duration()),
            requests: Requests::default(),
            incidents: Incidents::default(),
            told: Told::new(reader.header()),
            begun_before: reader.header().state.as_ref().map(|_| reader.header().skipped_events),
        };
        let peers = collected.told.machine().map(|machine| machine.status().peers).unwrap_or_default();
        for peer in peers.iter().filter(|peer| peer.connected) {
            collected.peers.lane(&peer.id);
        }
        while let Some(entry) = reader.next_entry()? {
            collected.take(&entry, extent.at(entry.at));
        }
        collected.sample();
        collected.requests.end(extent.duration());
        Ok(collected)
    }

    fn take(&mut self, entry: &TraceEntry, at: u64) {
        if self.series.is_due(at) {
            self.sample();
        }
        if let Event::PeerConnected { peer } = &entry.event {
            self.peers.lane(peer);
        }
        let commands = self.told.tell(entry);
        self.requests.event(&entry.event, at, &mut self.peers);
        self.requests.count_expired(&entry.commands, self.told.machine());
        self.incidents.event(entry, at, &mut self.peers);
        for (place, mark) in entry.commands.iter().enumerate() {
            let command = commands.get(place);
            self.requests.command(mark, command, entry.at, at, &mut self.peers);
            self.incidents.command(mark, command, at, &mut self.peers);
        }
        if let Some(machine) = self.told.machine() {
            self.requests.explain(machine);
        }
        self.series.told(at);
    }

    /// Notes down where the machine is.
    fn sample(&mut self) {
        let bytes = self.requests.bytes();
        if let Some(machine) = self.told.machine() {
            self.series.sample(machine, bytes, &self.peers);
        }
    }

    /// Whether the machine could be told everything again.
    pub(super) fn replayed(&self) -> bool {
        self.told.lost().is_none()
    }

    /// What the page does not show, for its reader.
    pub(super) fn notes(&self, extent: &Extent) -> Vec<String> {
        let lost = self.told.lost().map(|why| match self.series.until() {
            None => format!(
                "{why}: heights, claims, buffered bytes and the window are not shown, and second requests are not told \
                 from first ones."
            ),
            Some(until) => format!(
                "{why}: heights, claims, buffered bytes and the window are known up to {:.3} s only, and second \
                 requests are not told from first ones after it.",
                until.min(extent.duration()) as f64 / 1e6
            ),
        });
        let cut = (self.requests.left_out() > 0).then(|| {
            format!("{} requests after the first {REQUESTS_MAX} are not shown.", self.requests.left_out())
        });
        let incidents = (self.incidents.left_out() > 0)
            .then(|| format!("{} incidents after the first are not shown.", self.incidents.left_out()));
        let peers = self.peers.without_lane.then(|| {
            format!("Peers after the first {PEERS_MAX} have no lane, and their requests are not shown.")
        });
        let before = self.begun_before.map(|events| {
            format!("It begins after {events} events; requests that were under way then are not shown.")
        });
        [lost, before, cut, incidents, peers].into_iter().flatten().collect()
    }

    pub(super) fn peers_json(&self) -> Value {
        let peer = |(lane, id): (usize, &PeerId)| {
            let (at, highest) = self.series.claims(lane);
            json!({ "id": id.to_string(), "claim": { "t": at, "highest": highest } })
        };
        self.peers.ids.iter().enumerate().map(peer).collect()
    }
}
