//! One node of the world, and what is counted of it.

use super::{ChainStore, NodeId, Tamper, charges::Sort, plight::Plight, streams::StreamId};
use crate::violation::{Broken, Invariant, hold};
use soma_sync_core::{
    Command, Config, Event, SyncMachine, Timestamp,
    command::{Batch, Notice, Offence},
    event::{InboundId, RequestId},
    request::Request,
    start::Start,
    types::PeerId,
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

/// What a node has fetched, and what it has needed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Requests sent, of all kinds.
    pub requests: u64,
    /// Of these, requests for commits or blocks.
    pub data_requests: u64,
    /// Of these, requests for blocks.
    pub block_requests: u64,
    /// And requests that may wait for what is to come.
    pub waiting_requests: u64,
    /// Requests given up before their end.
    pub cancelled: u64,
    /// Bytes of answers of commits and blocks that arrived, as they travelled.
    pub fetched_bytes: u64,
    /// Of these, what arrived after its request was given up.
    pub late_bytes: u64,
    /// Bytes of what its store took: each commit and each of its blocks once, no certifiers.
    pub needed_bytes: u64,
    /// Bytes of answers that it sent.
    pub served_bytes: u64,
    /// Requests of others that it refused.
    pub refused: u64,
}

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Commits or blocks that there are.
    Data,
    /// A commit to come: it may wait at the one who is asked.
    Waiting,
    /// Anything else.
    Other,
}

/// A request that a node has sent and has not seen the end of.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    pub(super) to: NodeId,
    pub(super) kind: Kind,
    /// What answers it.
    pub(super) sort: Sort,
}

/// Ticks that may lead to nothing within a second, in a row.
const MOST_IDLE_TICKS: u32 = 1_000;
/// Events that one node may handle at one instant: those of a thousand requests that all end at once, and some.
const MOST_AT_ONCE: u32 = 20_000;
/// Requests that a node may send in a second while nothing comes from anybody.
const MOST_IN_VAIN: u32 = 5_000;
const SECOND: Duration = Duration::from_secs(1);

/// What matters of an event for whether there is progress.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// It said no more than that time has passed.
    pub(super) is_tick: bool,
    /// Something came: from a peer, from storage or from our own consensus.
    pub(super) is_news: bool,
}

impl Seen {
    pub(super) fn of(event: &Event) -> Self {
        let is_news = match event {
            Event::Tick | Event::RequestFinished { result: Err(_), .. } | Event::Verified { .. } => false,
            Event::CommitObserved { .. }
            | Event::VotesObserved { .. }
            | Event::CommitteeKnown { .. }
            | Event::PeerConnected { .. }
            | Event::PeerDisconnected { .. }
            | Event::RequestReceived { .. }
            | Event::ResponsePart { .. }
            | Event::RequestFinished { result: Ok(()), .. }
            | Event::Stored { .. }
            | Event::StoreFailed { .. }
            | Event::StoreReopened { .. }
            | Event::Pruned { .. }
            | Event::Broadcasted { .. }
            | Event::Served { .. } => true,
        };
        Self { is_tick: matches!(event, Event::Tick), is_news }
    }
}

/// What makes a node's machine what it is: what it was made of in its present life, and what it was told since.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// How it is configured.
    pub config: Config,
    /// What was stored when it was made.
    pub start: Start,
    /// What it draws from.
    pub seed: [u8; 32],
    /// When it was made, by its own clock.
    pub started: Timestamp,
    /// What it was told, and when by its own clock.
    pub events: Vec<(Timestamp, Event)>,
}

/// A node.
pub(super) struct Node {
    pub(super) peer: PeerId,
    pub(super) config: Config,
    pub(super) machine: SyncMachine,
    pub(super) store: ChainStore,
    pub(super) tamper: Option<Tamper>,
    pub(super) hostile: bool,
    /// Whether it reads the answers that it asks for.
    pub(super) reads: bool,
    pub(super) links: BTreeSet<NodeId>,
    /// How often it was started. What was on its way to an earlier life is lost.
    pub(super) life: u32,
    /// When the machine's timer is due, so that a tick that was overtaken does nothing.
    pub(super) timer: Option<Timestamp>,
    pub(super) job: Duration,
    /// Jobs that its workers have.
    pub(super) jobs: u32,
    pub(super) store_time: Duration,
    /// Batches that the store is busy with, and until when.
    pub(super) storing: VecDeque<Arc<Batch>>,
    pub(super) store_busy: Timestamp,
    pub(super) store_fails: bool,
    pub(super) notices: Vec<Notice>,
    pub(super) disconnected: Vec<(PeerId, Offence)>,
    pub(super) inbound: BTreeMap<InboundId, (StreamId, Request)>,
    pub(super) asked: BTreeMap<RequestId, Asked>,
    /// Ids of requests that its machine has sent in this life.
    pub(super) issued: Vec<RequestId>,
    pub(super) traffic: Traffic,
    pub(super) events: u64,
    /// Ticks in a row that led to nothing, and when the first of them was.
    pub(super) idle_ticks: (u32, Timestamp),
    pub(super) most_commands: usize,
    pub(super) recorded: Option<Recorded>,
    pub(super) plight: Plight,
    /// Events at one instant, and that instant.
    at_once: (u32, Timestamp),
    /// Requests since anything came from anybody, and when the first of them was.
    in_vain: (u32, Timestamp),
}

impl Node {
    /// A node in the first of its lives.
    pub(super) fn new(
        peer: PeerId,
        config: Config,
        store: ChainStore,
        now: Timestamp,
        pace: super::Pace,
    ) -> Self {
        let machine = Self::machine(peer, &config, &store, now, 0);
        Self {
            peer,
            config,
            machine,
            store,
            tamper: None,
            hostile: false,
            reads: true,
            links: BTreeSet::new(),
            life: 0,
            timer: None,
            job: pace.job,
            jobs: 0,
            store_time: pace.store,
            storing: VecDeque::new(),
            store_busy: Timestamp::ZERO,
            store_fails: false,
            notices: Vec::new(),
            disconnected: Vec::new(),
            inbound: BTreeMap::new(),
            asked: BTreeMap::new(),
            issued: Vec::new(),
            traffic: Traffic::default(),
            events: 0,
            idle_ticks: (0, Timestamp::ZERO),
            most_commands: 0,
            recorded: None,
            plight: Plight::default(),
            at_once: (0, Timestamp::ZERO),
            in_vain: (0, Timestamp::ZERO),
        }
    }

    fn machine(peer: PeerId, config: &Config, store: &ChainStore, now: Timestamp, life: u32) -> SyncMachine {
        SyncMachine::new(config.clone(), store.start(), now, seed(peer, life)).expect("a node that can start")
    }

    /// Keeps what its machine is told from now on, and what it is made of: of the present life, then of each later one.
    pub(super) fn record(&mut self, local: Timestamp) {
        self.recorded = Some(Recorded {
            config: self.config.clone(),
            start: self.store.start(),
            seed: seed(self.peer, self.life),
            started: local,
            events: Vec::new(),
        });
    }

    /// Loses everything but what is stored, and begins again from that.
    pub(super) fn restart(&mut self, now: Timestamp, local: Timestamp) {
        self.life += 1;
        self.machine = Self::machine(self.peer, &self.config, &self.store, local, self.life);
        self.timer = None;
        self.jobs = 0;
        self.storing.clear();
        self.store_busy = now;
        self.inbound.clear();
        self.asked.clear();
        self.issued.clear();
        self.links.clear();
        if self.recorded.is_some() {
            self.record(local);
        }
    }

    /// Forgets what it asked of another.
    pub(super) fn forget_asked(&mut self, other: NodeId) {
        self.asked.retain(|_, asked| asked.to != other);
    }

    /// Notes what came of an event.
    ///
    /// # Errors
    ///
    /// When the machine has itself woken over and over for nothing, or asks over and over and nothing comes of it, or
    /// has no end of things to do at one instant.
    pub(super) fn note_progress(
        &mut self,
        now: Timestamp,
        event: &Seen,
        commands: &[Command],
    ) -> Result<(), Broken> {
        let (count, since) = self.idle_ticks;
        let goes_on = event.is_tick && commands.is_empty() && now.saturating_since(since) < SECOND;
        self.idle_ticks = if goes_on { (count + 1, since) } else { (0, now) };
        let (count, at) = self.at_once;
        self.at_once = if at == now { (count + 1, at) } else { (1, now) };
        let (asked, since) = self.in_vain;
        let asks = commands.iter().filter(|command| matches!(command, Command::SendRequest { .. })).count();
        let asks = u32::try_from(asks).unwrap_or(u32::MAX);
        let fresh = event.is_news || now.saturating_since(since) >= SECOND;
        self.in_vain = if fresh { (asks, now) } else { (asked.saturating_add(asks), since) };
        let spins = |what: &str, count: u32, most: u32| {
            hold(count < most, Invariant::Spinning, || format!("{:?} spins: {count} {what}", self.peer))
        };
        spins("ticks for nothing", self.idle_ticks.0, MOST_IDLE_TICKS)?;
        spins("events at one instant", self.at_once.0, MOST_AT_ONCE)?;
        spins("requests in a second, and nothing came", self.in_vain.0, MOST_IN_VAIN)
    }

    /// Requests for commits and blocks in flight to one node, to all, and those that wait for what is to come.
    pub(super) fn in_flight(&self, to: NodeId) -> (u32, u32, u32) {
        let (mut one, mut all, mut waiting) = (0, 0, 0);
        for asked in self.asked.values() {
            let is_data = asked.kind == Kind::Data;
            all += u32::from(is_data);
            one += u32::from(is_data && asked.to == to);
            waiting += u32::from(asked.kind == Kind::Waiting);
        }
        (one, all, waiting)
    }
}

/// What a machine draws from in one of its node's lives.
fn seed(peer: PeerId, life: u32) -> [u8; 32] {
    let mut seed = *peer.as_bytes();
    seed[28..].copy_from_slice(&life.to_be_bytes());
    seed
}
