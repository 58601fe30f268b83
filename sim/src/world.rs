//! Networks in virtual time: real machines at both ends of every link, one clock, no thread.
//!
//! A [`World`] is a list of nodes and a queue of what will happen to them. Each step takes the earliest occurrence,
//! hands it to its node's machine, and carries out the machine's commands: messages travel over links with a latency,
//! a bandwidth and losses, jobs and storage take time, and their completions are occurrences again. Everything is a
//! function of the arguments and of the seed; [`World::hash`] says whether two runs were the same.
//!
//! [`Actor`]s do what no machine would: ask for anything, push anything, come and go. What a hostile node answers is
//! changed by its [`Tamper`]; [`hostile`](crate::hostile) has a library of both.

mod carry;
mod chain_store;
mod charges;
mod digest;
mod links;
mod node;
mod plight;
mod streams;
mod trouble;
mod verdicts;

pub use chain_store::ChainStore;
pub use links::{Link, Pace};
pub use node::{Recorded, Traffic};
pub use plight::Step;
pub use trouble::Trouble;
pub use verdicts::Verdicts;

use crate::{
    chain::MadeCommit,
    draw::Draws,
    fault::{Fault, Hits},
    oracle::{Oracle, Truth},
    violation::{Broken, Violation},
};
use charges::Charges;
use digest::History;
use links::Links;
use node::Node;
use soma_sync_core::{
    Config, Event, SyncMachine, Timestamp,
    command::{Batch, Notice, Offence},
    event::RequestId,
    request::{Request, RequestFailure, ResponsePart},
    types::PeerId,
};
use std::{cell::RefCell, collections::BTreeMap, fmt, rc::Rc, sync::Arc, time::Duration};
use streams::{Stream, StreamId, Unanswered};
use trouble::Troubles;

/// A node of the world, by position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(usize);

impl NodeId {
    /// Its position: nodes are counted from zero, in the order in which they were added.
    pub const fn position(self) -> usize {
        self.0
    }
}

/// What a node does to its answers before they travel. The default is to send them as they are.
pub type Tamper = Box<dyn FnMut(&Request, Reply) -> Reply>;

/// Acts on the world from time to time: says after how long its next turn is, or that there is none.
pub type Actor = Box<dyn FnMut(&mut World) -> Option<Duration>>;

/// What comes back for a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// These messages, and the end of the answer.
    Parts(Vec<ResponsePart>),
    /// These messages, and then nothing more, ever.
    Stuck(Vec<ResponsePart>),
    /// These messages, and then the loss of the stream.
    Broken(Vec<ResponsePart>, RequestFailure),
    /// These messages, each after a pause, and the end of the answer.
    Paced(Vec<(Duration, ResponsePart)>),
}

enum Occurrence {
    Event {
        node: NodeId,
        life: u32,
        event: Event,
    },
    /// Something that came already comes once more.
    Again {
        node: NodeId,
        life: u32,
        event: Event,
        fault: Fault,
    },
    /// A node's timer, and when it was to come.
    Tick(NodeId, Timestamp),
    Request {
        stream: StreamId,
        to: NodeId,
        request: Request,
    },
    Send {
        stream: StreamId,
    },
    Part {
        stream: StreamId,
        part: ResponsePart,
    },
    End {
        stream: StreamId,
        result: Result<(), RequestFailure>,
    },
    GiveUp {
        stream: StreamId,
    },
    Stored {
        node: NodeId,
        life: u32,
        batch: Arc<Batch>,
    },
    Reopened {
        node: NodeId,
        life: u32,
    },
    Act(usize),
    Start(NodeId),
}

/// Nodes, links and a clock.
pub struct World {
    /// What everything is drawn from, the machines' own draws among it.
    seed: u64,
    now: Timestamp,
    pace: Pace,
    nodes: Vec<Node>,
    links: Links,
    streams: BTreeMap<StreamId, Stream>,
    unanswered: Unanswered,
    actors: Vec<Option<Actor>>,
    queue: BTreeMap<(Timestamp, u64), Occurrence>,
    sequence: u64,
    next_inbound: u64,
    next_own: u64,
    /// Invariants are checked after every event of so many; never where it is zero.
    check_every: u64,
    handled: u64,
    /// The node whose machine was told something, or made, last.
    told: Option<NodeId>,
    oracle: Option<Oracle>,
    charges: Charges,
    /// The first violation, where they are collected and do not panic.
    found: Option<Violation>,
    collects: bool,
    verdicts: Option<Rc<RefCell<Verdicts>>>,
    troubles: Troubles,
    hits: Rc<Hits>,
    history: History,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "World({} nodes, {:?}, {} to come)", self.nodes.len(), self.now, self.queue.len())
    }
}

/// Runs a world twice over and compares what happened.
///
/// # Panics
///
/// When the second run was another one.
pub fn assert_repeats(run: impl Fn() -> World) -> World {
    let (first, second) = (run(), run());
    assert_eq!(first.hash(), second.hash(), "the same world went another way");
    first
}

impl World {
    /// A world without nodes, at time zero.
    pub fn new(pace: Pace) -> Self {
        Self::seeded(pace, 0)
    }

    /// The same, where what is drawn (jitter, losses, what the machines draw) is drawn from `seed`.
    pub fn seeded(pace: Pace, seed: u64) -> Self {
        Self {
            seed,
            now: Timestamp::ZERO,
            pace,
            nodes: Vec::new(),
            links: Links::new(Link::from(pace), seed),
            streams: BTreeMap::new(),
            unanswered: Unanswered::default(),
            actors: Vec::new(),
            queue: BTreeMap::new(),
            sequence: 0,
            next_inbound: 0,
            next_own: u64::MAX / 2,
            check_every: 1,
            handled: 0,
            told: None,
            oracle: None,
            charges: Charges::default(),
            found: None,
            collects: false,
            verdicts: None,
            troubles: Troubles::new(Draws::new(seed)),
            hits: Rc::default(),
            history: History::default(),
        }
    }

    /// Leaves out the check of invariants after every event, which walks the machine's whole state.
    pub fn without_checks(self) -> Self {
        self.checked_every(0)
    }

    /// Checks invariants after one event of so many only; after none where it is zero.
    pub fn checked_every(mut self, events: u64) -> Self {
        self.check_every = events;
        self
    }

    /// Stops at the first thing that must never happen, where it would panic otherwise. See [`World::violation`].
    pub fn collecting(mut self) -> Self {
        self.collects = true;
        self
    }

    /// Holds it against a node if it takes for good what is not the chain's, whatever comes of it: committees sign nothing
    /// else here.
    pub fn of_sound_committees(mut self) -> Self {
        self.charges.sound_committees = true;
        self
    }

    /// Remembers what jobs over the chain's own bytes find, here and in other worlds of the same chain.
    pub fn remembering(mut self, verdicts: Rc<RefCell<Verdicts>>) -> Self {
        self.verdicts = Some(verdicts);
        self
    }

    /// Holds everything that honest nodes do from now on against this chain, which is the one that there is.
    pub fn judged_by(&mut self, chain: &[MadeCommit]) {
        self.judged_by_truth(Rc::new(Truth::new(chain)));
    }

    /// The same, with what is known of the chain already.
    pub fn judged_by_truth(&mut self, truth: Rc<Truth>) {
        self.oracle = Some(Oracle::new(truth));
    }

    /// What must never happen, and happened: the first of it.
    pub const fn violation(&self) -> Option<&Violation> {
        self.found.as_ref()
    }

    /// How often each fault took effect.
    pub const fn hits(&self) -> &Rc<Hits> {
        &self.hits
    }

    /// Takes in what was found of the node that was told something last.
    fn note(&mut self, judged: Result<(), Broken>) {
        let Err(Broken { invariant, detail }) = judged else { return };
        let violation = Violation { invariant, at: self.now, node: self.told, detail };
        assert!(self.collects, "{violation}");
        self.found.get_or_insert(violation);
    }

    /// Says that something must never happen, and did at this node: it counts as found here.
    pub fn object(&mut self, node: NodeId, broken: Broken) {
        self.told = Some(node);
        self.note(Err(broken));
    }

    /// The node whose machine was told something last, or was made last.
    pub const fn told(&self) -> Option<NodeId> {
        self.told
    }

    /// Adds a node that starts from what `store` holds.
    ///
    /// # Panics
    ///
    /// When the configuration cannot work, or the store does not hang together: a fault of the test.
    pub fn add(&mut self, config: Config, store: ChainStore) -> NodeId {
        let id = NodeId(self.nodes.len());
        let mut key = [0u8; 32];
        key[..4].copy_from_slice(&(self.nodes.len() as u32 + 1).to_be_bytes());
        key[4..12].copy_from_slice(&self.seed.to_be_bytes());
        self.nodes.push(Node::new(PeerId::new(key), config, store, self.now, self.pace));
        self.schedule_event(Duration::ZERO, id, Event::Tick);
        id
    }

    /// Makes a node do something to its answers before they travel. It counts as hostile from now on.
    pub fn tamper(&mut self, node: NodeId, tamper: impl FnMut(&Request, Reply) -> Reply + 'static) {
        self.nodes[node.0].tamper = Some(Box::new(tamper));
        self.set_hostile(node);
    }

    /// What a node does is not held against the rules any more, and it may be disconnected.
    pub fn set_hostile(&mut self, node: NodeId) {
        self.nodes[node.0].hostile = true;
    }

    /// Makes a node ask for answers and never read them, or read them again.
    pub fn set_reads(&mut self, node: NodeId, reads: bool) {
        self.nodes[node.0].reads = reads;
    }

    /// Sets how long a node's jobs and batches take from now on.
    pub fn set_pace(&mut self, node: NodeId, job: Duration, store: Duration) {
        let node = &mut self.nodes[node.0];
        (node.job, node.store_time) = (job, store);
    }

    /// Sets what one node's messages to another go through from now on.
    pub fn set_link(&mut self, from: NodeId, to: NodeId, link: Link) {
        self.links.set(from, to, link);
    }

    /// Lets nothing that one node sends arrive at another, or everything again. Connections stand; nobody is told.
    pub fn block(&mut self, from: NodeId, to: NodeId, blocked: bool) {
        self.block_as(from, to, blocked.then_some(Fault::OneWayPartition));
    }

    /// The same, as a fault that is counted at each message.
    pub fn block_as(&mut self, from: NodeId, to: NodeId, fault: Option<Fault>) {
        self.links.block(from, to, fault);
    }

    /// Whether something is blocked between two nodes.
    pub fn is_blocked(&self, a: NodeId, b: NodeId) -> bool {
        self.links.blocked(a, b).is_some() || self.links.blocked(b, a).is_some()
    }

    /// Cuts a node off from all others, in both directions, or ends that. Connections stand; nobody is told.
    pub fn isolate(&mut self, node: NodeId, isolated: bool) {
        for other in (0..self.nodes.len()).map(NodeId).filter(|other| *other != node) {
            self.block(node, other, isolated);
            self.block(other, node, isolated);
        }
    }

    /// Has an actor take its first turn after a while.
    pub fn act(&mut self, after: Duration, actor: impl FnMut(&mut Self) -> Option<Duration> + 'static) {
        self.actors.push(Some(Box::new(actor)));
        self.schedule(after, Occurrence::Act(self.actors.len() - 1));
    }

    /// Sends a request that the node's machine knows nothing of; its answer is counted and thrown away.
    pub fn ask(&mut self, from: NodeId, to: NodeId, request: Request) {
        let id = RequestId::new(self.next_own);
        self.next_own += 1;
        self.nodes[from.0].traffic.requests += 1;
        self.send_request(from, to, id, request);
    }

    /// Keeps every event that a node is handed from now on; when it is started again, those of its new life only.
    pub fn record(&mut self, node: NodeId) {
        let local = self.local(node);
        self.nodes[node.0].record(local);
    }

    /// The events that a node was handed since it is recorded, in order.
    pub fn recorded(&self, node: NodeId) -> &[(Timestamp, Event)] {
        self.life(node).map_or(&[], |recorded| &recorded.events)
    }

    /// What a node's machine was made of and told, if it is recorded.
    pub fn life(&self, node: NodeId) -> Option<&Recorded> {
        self.nodes[node.0].recorded.as_ref()
    }

    /// Connects two nodes, if both are up.
    pub fn connect(&mut self, a: NodeId, b: NodeId) {
        if self.is_down(a) || self.is_down(b) {
            return;
        }
        for (this, other) in [(a, b), (b, a)] {
            if self.nodes[this.0].links.insert(other) {
                let peer = self.nodes[other.0].peer;
                self.schedule_event(Duration::ZERO, this, Event::PeerConnected { peer });
            }
        }
    }

    /// Cuts the connection of two nodes. What was on its way is lost.
    pub fn disconnect(&mut self, a: NodeId, b: NodeId) {
        for (this, other) in [(a, b), (b, a)] {
            if self.nodes[this.0].links.remove(&other) {
                self.nodes[this.0].forget_asked(other);
                let peer = self.nodes[other.0].peer;
                self.schedule_event(Duration::ZERO, this, Event::PeerDisconnected { peer });
            }
        }
        self.drop_streams(a, b);
    }

    /// Crashes a node and starts it again from what its storage holds: everything that it was told is durable, and of
    /// the batches under way the first `kept`. Its connections are gone.
    pub fn restart(&mut self, node: NodeId, kept: usize) {
        self.crash(node, kept);
        self.start(node);
    }

    /// Makes a node's storage refuse batches, or take them again from now on.
    pub fn fail_store(&mut self, node: NodeId, fails: bool) {
        if fails {
            self.nodes[node.0].store_fails = true;
        } else if self.nodes[node.0].store_fails {
            self.reopen_store(node);
        }
    }

    /// Hands an event to a node now, as its own consensus or its operator would.
    pub fn inject(&mut self, node: NodeId, event: Event) {
        self.schedule_event(Duration::ZERO, node, event);
    }

    /// A hash over every event that any node handled and every command that came of it, in order.
    pub fn hash(&self) -> [u8; 32] {
        self.history.get()
    }
    /// The time.
    pub fn now(&self) -> Timestamp {
        self.now
    }
    /// All nodes.
    pub fn nodes(&self) -> impl Iterator<Item = NodeId> + use<> {
        (0..self.nodes.len()).map(NodeId)
    }
    /// A node's machine.
    pub fn machine(&self, node: NodeId) -> &SyncMachine {
        &self.nodes[node.0].machine
    }
    /// A node's identity.
    pub fn peer(&self, node: NodeId) -> PeerId {
        self.nodes[node.0].peer
    }
    /// What a node has stored: what it would find there after a crash.
    pub fn store(&self, node: NodeId) -> &ChainStore {
        &self.nodes[node.0].store
    }
    /// What a node has fetched and sent.
    pub fn traffic(&self, node: NodeId) -> Traffic {
        self.nodes[node.0].traffic
    }
    /// Requests of a node's machine that are over, whatever came of them.
    pub fn requests_over(&self, node: NodeId) -> Vec<RequestId> {
        let node = &self.nodes[node.0];
        node.issued.iter().copied().filter(|id| !node.asked.contains_key(id)).collect()
    }
    /// What a node has told its operator.
    pub fn notices(&self, node: NodeId) -> &[Notice] {
        &self.nodes[node.0].notices
    }
    /// Whom a node has disconnected, and for what.
    pub fn disconnected(&self, node: NodeId) -> &[(PeerId, Offence)] {
        &self.nodes[node.0].disconnected
    }
    /// Whether two nodes are connected.
    pub fn is_connected(&self, a: NodeId, b: NodeId) -> bool {
        self.nodes[a.0].links.contains(&b)
    }
    /// The most commands that one event of a node has led to.
    pub fn most_commands(&self, node: NodeId) -> usize {
        self.nodes[node.0].most_commands
    }
    /// Verdicts on their way to a node.
    pub fn pending_verdicts(&self, node: NodeId) -> Vec<Event> {
        let verdicts = self.queue.values().filter_map(|occurrence| match occurrence {
            Occurrence::Event { node: of, event: event @ Event::Verified { .. }, .. } if *of == node => {
                Some(event.clone())
            }
            Occurrence::Event { .. }
            | Occurrence::Again { .. }
            | Occurrence::Start(_)
            | Occurrence::Reopened { .. }
            | Occurrence::Tick(..)
            | Occurrence::Request { .. }
            | Occurrence::Send { .. }
            | Occurrence::Part { .. }
            | Occurrence::End { .. }
            | Occurrence::GiveUp { .. }
            | Occurrence::Stored { .. }
            | Occurrence::Act(_) => None,
        });
        verdicts.collect()
    }
    /// Events handled by all nodes.
    pub fn events(&self) -> u64 {
        self.nodes.iter().map(|node| node.events).sum()
    }
    /// Events handled by one node.
    pub fn events_of(&self, node: NodeId) -> u64 {
        self.nodes[node.0].events
    }

    /// Runs until `done`, or until `limit` from now has passed; whether it was done.
    ///
    /// # Panics
    ///
    /// When a machine breaks an invariant, or the oracle finds something wrong; unless that is collected, and ends it.
    pub fn run_until(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) -> bool {
        let end = self.now.saturating_add(limit);
        loop {
            if self.found.is_some() {
                return false;
            }
            if done(self) {
                return true;
            }
            match self.queue.first_key_value() {
                Some(((at, _), _)) if *at <= end => self.step(),
                Some(_) | None => {
                    self.now = end;
                    return false;
                }
            }
        }
    }

    /// Takes the earliest occurrence.
    fn step(&mut self) {
        let Some(((at, sequence), occurrence)) = self.queue.pop_first() else { return };
        self.now = self.now.max(at);
        if let Some(node) = occurrence.whom(&self.streams) {
            let paused = self.nodes[node.0].plight.paused;
            if paused > self.now {
                self.hits.count(Fault::Pause);
                // The order in which they came about is kept; a store opens again after all that it has said.
                let last = matches!(occurrence, Occurrence::Reopened { .. });
                self.sequence += u64::from(last);
                let sequence = if last { self.sequence } else { sequence };
                self.queue.insert((paused, sequence), occurrence);
                return;
            }
        }
        match occurrence {
            Occurrence::Event { node, life, event } if self.nodes[node.0].life == life => {
                self.perhaps_again(node, &event);
                self.handle(node, event);
            }
            Occurrence::Event { .. } => {}
            Occurrence::Again { node, life, event, fault } => self.comes_again(node, life, event, fault),
            Occurrence::Tick(node, due) if self.nodes[node.0].timer == Some(due) => {
                self.nodes[node.0].timer = None;
                self.handle(node, Event::Tick);
            }
            Occurrence::Tick(..) => {}
            Occurrence::Request { stream, to, request } => self.deliver_request(stream, to, request),
            Occurrence::Send { stream } => self.send_part(stream),
            Occurrence::Part { stream, part } => self.part_arrives(stream, part),
            Occurrence::End { stream, result } => self.end_arrives(stream, result),
            Occurrence::GiveUp { stream } => self.give_up(stream),
            Occurrence::Stored { node, life, batch } if self.nodes[node.0].life == life => {
                self.stored(node, batch);
            }
            Occurrence::Stored { .. } => {}
            Occurrence::Reopened { node, life } if self.nodes[node.0].life == life => {
                self.store_reopened(node);
            }
            Occurrence::Reopened { .. } => {}
            Occurrence::Act(which) => self.take_turn(which),
            Occurrence::Start(node) => self.start(node),
        }
    }

    fn take_turn(&mut self, which: usize) {
        let Some(mut actor) = self.actors[which].take() else { return };
        if let Some(after) = actor(self) {
            self.actors[which] = Some(actor);
            self.schedule(after, Occurrence::Act(which));
        }
    }

    fn schedule(&mut self, after: Duration, occurrence: Occurrence) {
        self.schedule_at(self.now.saturating_add(after), occurrence);
    }

    fn schedule_at(&mut self, at: Timestamp, occurrence: Occurrence) {
        self.sequence += 1;
        self.queue.insert((at.max(self.now), self.sequence), occurrence);
    }

    fn schedule_event(&mut self, after: Duration, node: NodeId, event: Event) {
        let life = self.nodes[node.0].life;
        self.schedule(after, Occurrence::Event { node, life, event });
    }
}

impl Occurrence {
    /// Whom it waits for, if that one is paused.
    fn whom(&self, streams: &BTreeMap<StreamId, Stream>) -> Option<NodeId> {
        match self {
            Self::Event { node, .. }
            | Self::Again { node, .. }
            | Self::Tick(node, _)
            | Self::Stored { node, .. }
            | Self::Reopened { node, .. } => Some(*node),
            Self::Request { to, .. } => Some(*to),
            Self::Part { stream, .. } | Self::End { stream, .. } => Some(stream.0),
            Self::Send { stream } => streams.get(stream).map(Stream::server),
            Self::GiveUp { .. } | Self::Act(_) | Self::Start(_) => None,
        }
    }
}
