//! A complete embedding of `soma-sync-core` on plain threads and `std::net::TcpStream`: no runtime, no async.
//!
//! Two nodes in one process. A validator's own consensus makes the commits of a chain file, one after the other; a
//! fresh node, which knows only the genesis committee, asks it for them over TCP, verifies everything and stores it.
//!
//! ```sh
//! cargo run --release -p soma-sync-proto --example threads [CHAIN_FILE]
//! ```
//!
//! Read on from `Driver`: it is all that the machine asks of whoever embeds it. What it moves over sockets is in
//! `wire`, and what it keeps in `store`. Two things are left out that a node in the world needs: a disk, and proof of
//! who is at the other end (here a peer is whom it says it is; `soma-sync-transport-quic` proves it).

mod store;
mod wire;

use soma_sync_core::{
    Command, Config, Event, SyncMachine, Timestamp,
    committee::Committee,
    config::Limits,
    event::{InboundId, JobId, RequestId},
    job::{Job, Verdict},
    request::{RefuseReason, Request, RequestFailure},
    start::Start,
    types::{CommitRef, Epoch, PeerId},
};
use soma_sync_proto::{chain_file::ChainReader, message::RequestLimits};
use std::{
    collections::{BTreeMap, VecDeque},
    env,
    fs::File,
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, Receiver, RecvTimeoutError, Sender, SyncSender},
    },
    thread,
    time::{Duration, Instant},
};
use store::{Store, SubDag};

/// Whatever can go wrong at the start, or with the chain file.
pub(crate) type Error = Box<dyn std::error::Error>;

fn main() -> Result<(), Error> {
    let made_chain = concat!(env!("CARGO_MANIFEST_DIR"), "/examples/threads/chain.bin");
    let path = env::args_os().nth(1).unwrap_or_else(|| made_chain.into());
    let (tip, blocks) = sync(Path::new(&path))?;
    println!("synced, verified and stored up to {tip}: {blocks} blocks");
    Ok(())
}

/// Has one node make the commits of a chain file, and another sync them. Returns the last one that the other took, and
/// how many blocks there were in all.
pub(crate) fn sync(chain: &Path) -> Result<(CommitRef, usize), Error> {
    let mut chain = ChainReader::open(File::open(chain)?, Limits::default())?;
    let genesis = Arc::new(Committee::decode(Epoch::ZERO, chain.genesis(), &Limits::default())?);
    let listen = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let (ours, theirs) = (listen()?, listen()?);
    let [us, them] = [PeerId::new([1; 32]), PeerId::new([2; 32])];
    let (our_address, their_address) = (ours.local_addr()?, theirs.local_addr()?);
    let validator = Node::start(us, ours, (them, their_address), &genesis)?;
    let follower = Node::start(them, theirs, (us, our_address), &genesis)?;

    // What a validator's consensus does: hand in each commit with its blocks, and the blocks that vote.
    while let Some(record) = chain.next_record()? {
        validator.tell(Event::CommitObserved { commit: record.commit, blocks: record.blocks })?;
        validator.tell(Event::VotesObserved { blocks: record.certifiers })?;
        while validator.next_sub_dag()?.commit.index.get() < record.number {}
    }
    // What an application does: take sub-dags in order, each once.
    let (mut tip, mut blocks) = (CommitRef::GENESIS, 0);
    while tip.index.get() < chain.commits() {
        let sub_dag = follower.next_sub_dag()?;
        (tip, blocks) = (sub_dag.commit, blocks + sub_dag.blocks.len());
    }
    Ok((tip, blocks))
}

/// A running node.
struct Node {
    inbox: SyncSender<Input>,
    sub_dags: Receiver<SubDag>,
    address: SocketAddr,
    stopping: Arc<AtomicBool>,
}

/// What reaches the driver from other threads.
enum Input {
    /// Something for the machine.
    Event(Event),
    /// A peer asks. The command that says how to answer goes back to the thread that holds the connection.
    Asked { peer: PeerId, request: Result<Request, RefuseReason>, reply: Sender<Command> },
    /// The node is not wanted any more.
    Stop,
}

impl Node {
    /// Starts the threads of a node that knows one peer.
    fn start(
        id: PeerId,
        listener: TcpListener,
        peer: (PeerId, SocketAddr),
        genesis: &Arc<Committee>,
    ) -> Result<Self, Error> {
        let (config, address) = (Config::default(), listener.local_addr()?);
        let start = Start::genesis(genesis.chain_id(), Arc::clone(genesis));
        let machine = SyncMachine::new(config.clone(), start, Timestamp::ZERO, random()?)?;
        let store = Arc::new(Mutex::new(Store::new(Arc::clone(genesis))));
        // Threads wait for room here. The driver waits for nobody: how many jobs and sub-dags can be under way is
        // bounded by the machine's configuration, so that their channels need no bound of their own.
        let (inbox, inputs) = mpsc::sync_channel(64);
        let (jobs, waiting) = mpsc::channel();
        let (consumer, sub_dags) = mpsc::channel();
        let waiting = Arc::new(Mutex::new(waiting));
        for _ in 0..2 {
            let (waiting, inbox) = (Arc::clone(&waiting), inbox.clone());
            thread::spawn(move || verify(&waiting, &inbox));
        }
        let clock = Clock(Instant::now());
        let stopping = Arc::new(AtomicBool::new(false));
        let server = wire::Server {
            limits: RequestLimits::new(&config),
            inbox: inbox.clone(),
            store: Arc::clone(&store),
            clock,
        };
        let until = Arc::clone(&stopping);
        thread::spawn(move || server.listen(&listener, &until));
        let mut driver = Driver {
            machine,
            clock,
            id,
            config: Arc::new(config),
            peers: BTreeMap::from([peer]),
            store,
            inbox: inbox.clone(),
            jobs,
            consumer,
            asked: BTreeMap::new(),
            next_inbound: 0,
            done: VecDeque::from([Event::PeerConnected { peer: peer.0 }]),
        };
        thread::spawn(move || driver.run(&inputs));
        Ok(Self { inbox, sub_dags, address, stopping })
    }

    /// Tells the machine something.
    fn tell(&self, event: Event) -> Result<(), Error> {
        self.inbox.send(Input::Event(event)).map_err(|_| "the node has stopped".into())
    }

    /// The next commit with its blocks. To take it is to say so: the machine fetches no further than its look-ahead
    /// beyond what consumers have taken.
    fn next_sub_dag(&self) -> Result<SubDag, Error> {
        let sub_dag = self.sub_dags.recv()?;
        self.tell(Event::Broadcasted { through: sub_dag.commit.index })?;
        Ok(sub_dag)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.inbox.send(Input::Stop);
        self.stopping.store(true, Ordering::Relaxed);
        // The listener looks when somebody connects.
        let _ = TcpStream::connect(self.address);
    }
}

/// Time as the machine wants it: since an origin, and never back.
#[derive(Clone, Copy)]
struct Clock(Instant);

impl Clock {
    fn now(self) -> Timestamp {
        Timestamp::ZERO.saturating_add(self.0.elapsed())
    }
    fn until(self, time: Timestamp) -> Duration {
        time.saturating_since(self.now())
    }
}

/// The thread that owns the machine, tells it what happens and has done what it says.
struct Driver {
    machine: SyncMachine,
    clock: Clock,
    id: PeerId,
    config: Arc<Config>,
    peers: BTreeMap<PeerId, SocketAddr>,
    store: Arc<Mutex<Store>>,
    inbox: SyncSender<Input>,
    jobs: Sender<(JobId, Job)>,
    consumer: Sender<SubDag>,
    /// Peers' requests that the machine has not decided about.
    asked: BTreeMap<InboundId, Sender<Command>>,
    next_inbound: u64,
    /// What the carrying out of commands has led to: told before anything else.
    done: VecDeque<Event>,
}

impl Driver {
    /// The contract's first two rules. Time never goes back, and a tick comes when the machine's one timer is due.
    /// After each event all commands are taken, and none is dropped.
    fn run(&mut self, inputs: &Receiver<Input>) {
        while let Some(event) = self.done.pop_front().or_else(|| self.wait(inputs)) {
            self.machine.handle(self.clock.now(), event);
            while let Some(command) = self.machine.poll_command() {
                self.carry_out(command);
            }
        }
    }

    /// The next thing that happens; `None` when the node is to stop.
    fn wait(&mut self, inputs: &Receiver<Input>) -> Option<Event> {
        let due = self.machine.poll_timeout().map_or(Duration::MAX, |at| self.clock.until(at));
        match inputs.recv_timeout(due) {
            Ok(Input::Event(event)) => Some(event),
            Ok(Input::Asked { peer, request, reply }) => {
                let id = InboundId::new(self.next_inbound);
                self.next_inbound += 1;
                self.asked.insert(id, reply);
                Some(Event::RequestReceived { id, peer, request })
            }
            Err(RecvTimeoutError::Timeout) => Some(Event::Tick),
            Ok(Input::Stop) | Err(RecvTimeoutError::Disconnected) => None,
        }
    }

    /// The other three: batches are stored in their order, each whole; every job and every serve is completed exactly
    /// once, whatever happens; a request of ours is finished at most once, after its parts.
    fn carry_out(&mut self, command: Command) {
        match command {
            Command::SendRequest { id, peer, request, deadline } => self.ask(id, peer, request, deadline),
            // What still comes of it is ignored. Its thread ends with the answer, or at the deadline.
            Command::CancelRequest { .. } => {}
            // The workers last as long as this driver.
            Command::Verify { id, job } => drop(self.jobs.send((id, job))),
            // A disk would have a thread of its own, which says `Stored` when the batch is durable.
            Command::StoreBatch { batch } => {
                store::lock(&self.store).apply(&batch);
                self.done.push_back(Event::Stored { through: batch.id });
            }
            Command::Broadcast { range } => {
                let store = store::lock(&self.store);
                let sub_dags = range.iter().filter_map(|index| store.sub_dag(index));
                sub_dags.for_each(|sub_dag| drop(self.consumer.send(sub_dag)));
            }
            command @ (Command::Respond { id, .. } | Command::Refuse { id, .. }) => {
                // Whoever asked may have gone away. Then nobody is to be answered, and nothing is owed to the machine.
                self.asked.remove(&id).map(|reply| reply.send(command));
            }
            command @ Command::Serve { id, .. } => {
                // A serve is owed to the machine: who has gone away was served, with nothing.
                if self.asked.remove(&id).is_none_or(|reply| reply.send(command).is_err()) {
                    self.done.push_back(Event::Served { id, bytes: 0, waited: Duration::ZERO });
                }
            }
            // Here for good. A node in the world lets the peer in again after the ban.
            Command::Disconnect { peer, offence, ban: _ } => {
                eprintln!("peer {peer:?} is banned: {offence}");
                self.peers.remove(&peer);
                self.done.push_back(Event::PeerDisconnected { peer });
            }
            Command::Notify(notice) => eprintln!("peer {:?} says: {notice:?}", self.id),
        }
    }

    /// Asks a peer, on a thread and a connection of the request's own.
    fn ask(&mut self, id: RequestId, peer: PeerId, request: Request, deadline: Timestamp) {
        let Some(address) = self.peers.get(&peer).copied() else {
            let result = Err(RequestFailure::Disconnected);
            return self.done.push_back(Event::RequestFinished { id, result });
        };
        let (us, config, inbox) = (self.id, Arc::clone(&self.config), self.inbox.clone());
        let time = self.clock.until(deadline);
        thread::spawn(move || {
            let tell = |event| drop(inbox.send(Input::Event(event)));
            let take = |part| tell(Event::ResponsePart { id, part });
            let result = wire::ask(us, address, &request, &config, time, take);
            tell(Event::RequestFinished { id, result });
        });
    }
}

/// A verification worker. A job that panics is completed, too: the machine has it done again.
fn verify(jobs: &Mutex<Receiver<(JobId, Job)>>, inbox: &SyncSender<Input>) {
    loop {
        // One worker waits for a job, the others wait for the lock.
        let Ok((id, job)) = store::lock(jobs).recv() else { return };
        let run = || random().map_or(Verdict::WorkerFailed, |entropy| job.run(entropy));
        let verdict = catch_unwind(AssertUnwindSafe(run)).unwrap_or(Verdict::WorkerFailed);
        if inbox.send(Input::Event(Event::Verified { id, verdict })).is_err() {
            return;
        }
    }
}

/// Random bytes that nobody can predict.
fn random() -> Result<[u8; 32], String> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(|error| error.to_string())?;
    Ok(bytes)
}
