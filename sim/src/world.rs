//! Networks in virtual time: real machines at both ends of every link, one clock, no thread.
//!
//! A [`World`] is a list of nodes and a queue of what will happen to them. Each step takes the earliest occurrence,
//! hands it to its node's machine, and carries out the machine's commands: messages travel with a delay, jobs and
//! storage take time, and their completions are occurrences again. Everything is a function of the arguments.

mod chain_store;

pub use chain_store::ChainStore;

use soma_sync_core::{
    Command, Config, Event, SyncMachine, Timestamp,
    command::{Notice, Offence},
    event::{InboundId, RequestId},
    request::{RefuseReason, Request, RequestFailure, ResponsePart},
    types::PeerId,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

/// A node of the world, by position.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(usize);

/// How fast things happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// From one node to another, one way.
    pub latency: Duration,
    /// Bytes per second that an answer travels with.
    pub bandwidth: u64,
    /// One verification job.
    pub job: Duration,
    /// One batch.
    pub store: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            latency: Duration::from_millis(10),
            bandwidth: 100_000_000,
            job: Duration::from_millis(1),
            store: Duration::from_millis(2),
        }
    }
}

/// What a node does to its answers before they travel. The default is to send them as they are.
pub type Tamper = Box<dyn FnMut(&Request, Reply) -> Reply>;

/// What comes back for a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// These messages, and the end of the answer.
    Parts(Vec<ResponsePart>),
    /// These messages, and then nothing more, ever.
    Stuck(Vec<ResponsePart>),
    /// These messages, and then the loss of the stream.
    Broken(Vec<ResponsePart>, RequestFailure),
}

struct Node {
    peer: PeerId,
    machine: SyncMachine,
    store: ChainStore,
    tamper: Option<Tamper>,
    links: BTreeSet<NodeId>,
    /// When the machine's timer is due, so that a tick that was overtaken does nothing.
    timer: Option<Timestamp>,
    notices: Vec<Notice>,
    disconnected: Vec<(PeerId, Offence)>,
    store_fails: bool,
    pending_inbound: BTreeMap<InboundId, (NodeId, RequestId, Request)>,
    events: u64,
    commands: u64,
    most_commands: usize,
    recorded: Option<Vec<(Timestamp, Event)>>,
}

enum Occurrence {
    Event(NodeId, Event),
    Tick(NodeId),
    Request { from: NodeId, to: NodeId, id: RequestId, request: Request },
}

/// Nodes, links and a clock.
pub struct World {
    now: Timestamp,
    pace: Pace,
    nodes: Vec<Node>,
    queue: BTreeMap<(Timestamp, u64), Occurrence>,
    sequence: u64,
    next_inbound: u64,
    check: bool,
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "World({} nodes, {:?}, {} to come)", self.nodes.len(), self.now, self.queue.len())
    }
}

impl World {
    /// A world without nodes, at time zero.
    pub fn new(pace: Pace) -> Self {
        Self {
            now: Timestamp::ZERO,
            pace,
            nodes: Vec::new(),
            queue: BTreeMap::new(),
            sequence: 0,
            next_inbound: 0,
            check: true,
        }
    }

    /// Leaves out the check of invariants after every event, which walks the machine's whole state.
    pub fn without_checks(mut self) -> Self {
        self.check = false;
        self
    }

    /// Adds a node that starts from what `store` holds.
    ///
    /// # Panics
    ///
    /// When the configuration cannot work, or the store does not hang together: a fault of the test.
    pub fn add(&mut self, config: Config, store: ChainStore) -> NodeId {
        let id = NodeId(self.nodes.len());
        let mut key = [0u8; 32];
        key[..8].copy_from_slice(&(self.nodes.len() as u64 + 1).to_be_bytes());
        let machine = SyncMachine::new(config, store.start(), self.now, key).expect("a node that can start");
        self.nodes.push(Node {
            peer: PeerId::new(key),
            machine,
            store,
            tamper: None,
            links: BTreeSet::new(),
            timer: None,
            notices: Vec::new(),
            disconnected: Vec::new(),
            store_fails: false,
            pending_inbound: BTreeMap::new(),
            events: 0,
            commands: 0,
            most_commands: 0,
            recorded: None,
        });
        self.schedule(Duration::ZERO, Occurrence::Event(id, Event::Tick));
        id
    }

    /// Makes a node do something to its answers before they travel.
    pub fn tamper(&mut self, node: NodeId, tamper: impl FnMut(&Request, Reply) -> Reply + 'static) {
        self.nodes[node.0].tamper = Some(Box::new(tamper));
    }

    /// Keeps every event that a node is handed from now on.
    pub fn record(&mut self, node: NodeId) {
        self.nodes[node.0].recorded = Some(Vec::new());
    }

    /// The events that a node was handed since it is recorded, in order.
    pub fn recorded(&self, node: NodeId) -> &[(Timestamp, Event)] {
        self.nodes[node.0].recorded.as_deref().unwrap_or_default()
    }

    /// Connects two nodes.
    pub fn connect(&mut self, a: NodeId, b: NodeId) {
        for (this, other) in [(a, b), (b, a)] {
            if self.nodes[this.0].links.insert(other) {
                let peer = self.nodes[other.0].peer;
                self.schedule(Duration::ZERO, Occurrence::Event(this, Event::PeerConnected { peer }));
            }
        }
    }

    /// Cuts the connection of two nodes. What was on its way is lost.
    pub fn disconnect(&mut self, a: NodeId, b: NodeId) {
        for (this, other) in [(a, b), (b, a)] {
            if self.nodes[this.0].links.remove(&other) {
                let peer = self.nodes[other.0].peer;
                self.schedule(Duration::ZERO, Occurrence::Event(this, Event::PeerDisconnected { peer }));
            }
        }
    }

    /// Makes a node's storage refuse batches, or take them again from now on.
    pub fn fail_store(&mut self, node: NodeId, fails: bool) {
        let reopened = self.nodes[node.0].store_fails && !fails;
        self.nodes[node.0].store_fails = fails;
        if reopened {
            // After what is still on its way from the store as it was.
            let start = Box::new(self.nodes[node.0].store.start());
            self.schedule(self.pace.store, Occurrence::Event(node, Event::StoreReopened { start }));
        }
    }

    /// Hands an event to a node now, as its own consensus or its operator would.
    pub fn inject(&mut self, node: NodeId, event: Event) {
        self.schedule(Duration::ZERO, Occurrence::Event(node, event));
    }

    /// The time.
    pub fn now(&self) -> Timestamp {
        self.now
    }
    /// A node's machine.
    pub fn machine(&self, node: NodeId) -> &SyncMachine {
        &self.nodes[node.0].machine
    }
    /// A node's identity.
    pub fn peer(&self, node: NodeId) -> PeerId {
        self.nodes[node.0].peer
    }
    /// What a node has stored.
    pub fn store(&self, node: NodeId) -> &ChainStore {
        &self.nodes[node.0].store
    }
    /// What a node has told its operator.
    pub fn notices(&self, node: NodeId) -> &[Notice] {
        &self.nodes[node.0].notices
    }
    /// Whom a node has disconnected, and for what.
    pub fn disconnected(&self, node: NodeId) -> &[(PeerId, Offence)] {
        &self.nodes[node.0].disconnected
    }
    /// The most commands that one event of a node has led to.
    pub fn most_commands(&self, node: NodeId) -> usize {
        self.nodes[node.0].most_commands
    }
    /// Verdicts on their way to a node.
    pub fn pending_verdicts(&self, node: NodeId) -> Vec<Event> {
        let verdicts = self.queue.values().filter_map(|occurrence| match occurrence {
            Occurrence::Event(of, event @ Event::Verified { .. }) if *of == node => Some(event.clone()),
            Occurrence::Event(..) | Occurrence::Tick(_) | Occurrence::Request { .. } => None,
        });
        verdicts.collect()
    }
    /// Events handled by all nodes.
    pub fn events(&self) -> u64 {
        self.nodes.iter().map(|node| node.events).sum()
    }

    /// Runs until `done`, or until `limit` from now has passed; whether it was done.
    ///
    /// # Panics
    ///
    /// When a machine breaks an invariant.
    pub fn run_until(&mut self, limit: Duration, done: impl Fn(&Self) -> bool) -> bool {
        let end = self.now.saturating_add(limit);
        loop {
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
        let Some(((at, _), occurrence)) = self.queue.pop_first() else { return };
        self.now = self.now.max(at);
        match occurrence {
            Occurrence::Event(node, event) => self.handle(node, event),
            Occurrence::Tick(node) if self.nodes[node.0].timer == Some(at) => self.handle(node, Event::Tick),
            Occurrence::Tick(_) => {}
            Occurrence::Request { from, to, id, request } => self.deliver_request(from, to, id, request),
        }
    }

    fn schedule(&mut self, after: Duration, occurrence: Occurrence) {
        self.sequence += 1;
        self.queue.insert((self.now.saturating_add(after), self.sequence), occurrence);
    }

    fn handle(&mut self, id: NodeId, event: Event) {
        let now = self.now;
        let node = &mut self.nodes[id.0];
        node.events += 1;
        if let Some(recorded) = &mut node.recorded {
            recorded.push((now, event.clone()));
        }
        node.machine.handle(now, event);
        let commands: Vec<_> = std::iter::from_fn(|| node.machine.poll_command()).collect();
        if self.check
            && let Err(broken) = node.machine.check_invariants()
        {
            panic!("node {id:?} at {now:?}: {broken}");
        }
        node.commands += commands.len() as u64;
        node.most_commands = node.most_commands.max(commands.len());
        for command in commands {
            self.carry_out(id, command);
        }
        let node = &mut self.nodes[id.0];
        node.timer = node.machine.poll_timeout();
        if let Some(at) = node.timer {
            assert!(at > now, "node {id:?} asks to be woken in the past");
            self.sequence += 1;
            self.queue.insert((at, self.sequence), Occurrence::Tick(id));
        }
    }

    fn carry_out(&mut self, id: NodeId, command: Command) {
        let Pace { latency, job: job_time, store: store_time, .. } = self.pace;
        match command {
            Command::SendRequest { id: request_id, peer, request, deadline: _ } => {
                let to = self.nodes.iter().position(|node| node.peer == peer).map(NodeId);
                match to.filter(|to| self.nodes[id.0].links.contains(to)) {
                    Some(to) => {
                        self.schedule(latency, Occurrence::Request { from: id, to, id: request_id, request });
                    }
                    None => self.finish(Duration::ZERO, id, request_id, Err(RequestFailure::Disconnected)),
                }
            }
            Command::CancelRequest { .. } => {}
            Command::Verify { id: job_id, job } => {
                let verdict = job.run([0; 32]);
                self.schedule(job_time, Occurrence::Event(id, Event::Verified { id: job_id, verdict }));
            }
            Command::StoreBatch { batch } => {
                let node = &mut self.nodes[id.0];
                let event = if node.store_fails {
                    Event::StoreFailed { from: batch.id }
                } else {
                    node.store.apply(&batch);
                    Event::Stored { through: batch.id }
                };
                self.schedule(store_time, Occurrence::Event(id, event));
            }
            Command::Broadcast { range } => {
                let through = range.end();
                self.schedule(Duration::ZERO, Occurrence::Event(id, Event::Broadcasted { through }));
            }
            Command::Respond { id: inbound, response } => self.reply(id, inbound, Ok(vec![response])),
            Command::Refuse { id: inbound, reason } => self.reply(id, inbound, Err(reason)),
            Command::Serve { id: inbound, plan, deadline: _ } => {
                let parts = self.nodes[id.0].store.serve(&plan);
                self.schedule(latency, Occurrence::Event(id, Event::Served { id: inbound, bytes: 0 }));
                self.reply(id, inbound, parts);
            }
            Command::Disconnect { peer, offence, ban: _ } => {
                self.nodes[id.0].disconnected.push((peer, offence));
                if let Some(other) = self.nodes.iter().position(|node| node.peer == peer) {
                    self.disconnect(id, NodeId(other));
                }
            }
            Command::Notify(notice) => self.nodes[id.0].notices.push(notice),
        }
    }

    fn deliver_request(&mut self, from: NodeId, to: NodeId, id: RequestId, request: Request) {
        if !self.nodes[to.0].links.contains(&from) {
            return self.finish(Duration::ZERO, from, id, Err(RequestFailure::Disconnected));
        }
        let inbound = InboundId::new(self.next_inbound);
        self.next_inbound += 1;
        let peer = self.nodes[from.0].peer;
        self.nodes[to.0].pending_inbound.insert(inbound, (from, id, request.clone()));
        self.handle(to, Event::RequestReceived { id: inbound, peer, request: Ok(request) });
    }

    /// Sends an answer on its way, as the node chooses to answer.
    fn reply(&mut self, id: NodeId, inbound: InboundId, answer: Result<Vec<ResponsePart>, RefuseReason>) {
        let node = &mut self.nodes[id.0];
        let Some((from, request_id, request)) = node.pending_inbound.remove(&inbound) else { return };
        let reply = match answer {
            Ok(parts) => Reply::Parts(parts),
            Err(reason) => Reply::Broken(Vec::new(), RequestFailure::Refused(reason)),
        };
        let reply = match &mut node.tamper {
            Some(tamper) => tamper(&request, reply),
            None => reply,
        };
        let (parts, end) = match reply {
            Reply::Parts(parts) => (parts, Some(Ok(()))),
            Reply::Stuck(parts) => (parts, None),
            Reply::Broken(parts, failure) => (parts, Some(Err(failure))),
        };
        let mut after = self.pace.latency;
        for part in parts {
            after += self.travel_time(&part);
            self.schedule(after, Occurrence::Event(from, Event::ResponsePart { id: request_id, part }));
        }
        if let Some(result) = end {
            self.finish(after, from, request_id, result);
        }
    }

    fn finish(&mut self, after: Duration, node: NodeId, id: RequestId, result: Result<(), RequestFailure>) {
        self.schedule(after, Occurrence::Event(node, Event::RequestFinished { id, result }));
    }

    fn travel_time(&self, part: &ResponsePart) -> Duration {
        let bytes = match part {
            ResponsePart::Commits { buffer_bytes, .. } | ResponsePart::Blocks { buffer_bytes, .. } => {
                *buffer_bytes
            }
            ResponsePart::CommitInfo { .. }
            | ResponsePart::Availability { .. }
            | ResponsePart::Push { .. } => 64,
        };
        Duration::from_micros(bytes.saturating_mul(1_000_000) / self.pace.bandwidth.max(1))
    }
}
