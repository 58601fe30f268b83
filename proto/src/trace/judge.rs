//! What must hold of a machine that is told what was recorded, whatever that is.

use super::{TraceHeader, Watch};
use soma_sync_core::{
    SyncMachine, Timestamp,
    command::{BatchId, Command},
    event::{Event, JobId},
    request::{Request, ResponsePart},
    types::{CommitIndex, PeerId},
};
use std::collections::{BTreeMap, BTreeSet};

/// Looks on while a machine is told events, and says what it breaks: what the machine itself says must hold between any
/// two of them ([`SyncMachine::check_invariants`]), that commits are handed to storage in order, and to consumers in
/// order, each once, and not before storage has them, that peers are told of nothing that cannot be certified, that nothing
/// is sent to who is not connected or was thrown out, that workers have no more jobs than they may, and that no timer is in
/// the past.
#[derive(Clone, Debug)]
pub struct Judge {
    /// When the last event was.
    now: Timestamp,
    /// The last commit that storage has, by its own word.
    durable: CommitIndex,
    /// The last commit of each batch that storage was handed.
    batches: BTreeMap<BatchId, CommitIndex>,
    /// The last commit that storage was handed.
    handed: CommitIndex,
    /// Peers that requests may be sent to.
    connected: BTreeSet<PeerId>,
    /// Jobs that workers have, and how many they may have.
    jobs: BTreeSet<JobId>,
    most_jobs: u32,
    /// The last commit that was handed to consumers, if that was seen.
    broadcast: Option<CommitIndex>,
    /// The highest commit of which a peer was told since the last judgement.
    announced: CommitIndex,
    broken: Option<&'static str>,
}

impl Judge {
    /// Before the first event of a trace with this header, whose [machine](TraceHeader::machine) this is.
    ///
    /// Of one that is in the midst of things, batches that storage has count as one, jobs that workers have do not count,
    /// and what is handed to consumers first may begin anywhere.
    pub fn new(header: &TraceHeader, machine: &SyncMachine) -> Self {
        let status = machine.status();
        let handed = status.queued.index;
        let connected = status.peers.iter().filter(|peer| peer.connected).map(|peer| peer.id);
        Self {
            now: Timestamp::ZERO,
            durable: status.durable,
            batches: BTreeMap::from([(BatchId::new(0), handed)]),
            handed,
            connected: connected.collect(),
            jobs: BTreeSet::new(),
            most_jobs: header.config.max_verify_jobs,
            broadcast: header.state.is_none().then_some(header.start.tip.reference.index),
            announced: CommitIndex::GENESIS,
            broken: None,
        }
    }

    /// After an event, all commands of which were [seen](Watch::command): what the machine broke.
    ///
    /// # Errors
    /// The first thing that does not hold, in words.
    pub fn judge(&mut self, machine: &SyncMachine) -> Result<(), &'static str> {
        machine.check_invariants()?;
        let announced = std::mem::replace(&mut self.announced, CommitIndex::GENESIS);
        if announced > CommitIndex::GENESIS && announced > machine.status().certifiable.index {
            return Err("peers are told of a commit that is not certifiable");
        }
        if machine.poll_timeout().is_some_and(|at| at <= self.now) {
            return Err("a timer is in the past");
        }
        self.broken.take().map_or(Ok(()), Err)
    }
}

impl Watch for Judge {
    fn event(&mut self, at: Timestamp, event: &Event) {
        self.now = at;
        match event {
            Event::Stored { through } => {
                let later = self.batches.split_off(through);
                let stored = std::mem::replace(&mut self.batches, later).into_values().max();
                let last = self.batches.remove(through);
                self.durable = self.durable.max(stored.max(last).unwrap_or(CommitIndex::GENESIS));
            }
            Event::StoreReopened { start } => {
                self.durable = start.tip.reference.index;
                self.handed = self.durable;
                self.batches.clear();
            }
            Event::Verified { id, .. } => _ = self.jobs.remove(id),
            Event::PeerConnected { peer } => _ = self.connected.insert(*peer),
            Event::PeerDisconnected { peer } => _ = self.connected.remove(peer),
            Event::Tick
            | Event::CommitObserved { .. }
            | Event::VotesObserved { .. }
            | Event::CommitteeKnown { .. }
            | Event::RequestReceived { .. }
            | Event::ResponsePart { .. }
            | Event::RequestFinished { .. }
            | Event::StoreFailed { .. }
            | Event::Pruned { .. }
            | Event::Broadcasted { .. }
            | Event::Served { .. } => {}
        }
    }

    fn command(&mut self, command: &Command) {
        if let Command::SendRequest { peer, .. } = command
            && !self.connected.contains(peer)
        {
            self.broken = Some("a request is sent to a peer that is not connected");
        }
        match command {
            Command::Disconnect { peer, .. } => _ = self.connected.remove(peer),
            Command::StoreBatch { batch } => {
                for commit in &batch.commits {
                    let index = commit.reference.index;
                    if self.handed.next() != Some(index) {
                        self.broken = Some("commits are handed to storage out of order");
                    }
                    self.handed = index;
                }
                self.batches.insert(batch.id, self.handed);
            }
            Command::Broadcast { range } => {
                if range.end() > self.durable {
                    self.broken = Some("commits are handed to consumers that are not durable");
                }
                if self.broadcast.is_some_and(|last| last.next() != Some(range.start())) {
                    self.broken = Some("commits are handed to consumers out of order");
                }
                self.broadcast = Some(range.end());
            }
            Command::Respond { response: ResponsePart::Availability { highest: index, .. }, .. }
            | Command::SendRequest { request: Request::Push { index }, .. } => {
                self.announced = self.announced.max(*index);
            }
            Command::Verify { id, .. } => {
                self.jobs.insert(*id);
                if self.jobs.len() > self.most_jobs as usize {
                    self.broken = Some("workers have more jobs than they may");
                }
            }
            Command::SendRequest { .. }
            | Command::CancelRequest { .. }
            | Command::Respond { .. }
            | Command::Refuse { .. }
            | Command::Serve { .. }
            | Command::Notify(_) => {}
        }
    }
}
