//! A node: what an embedder starts, and the handle by which it is reached.

use crate::{
    broadcast::{Hub, Subscription},
    clock::Clock,
    config::{RuntimeConfig, RuntimeConfigError},
    driver::{Driver, Work},
    inbound::Inbound,
    mailbox::{Arrival, Input, Mailbox},
    peers::Peers,
    pool::{VerifyPool, run_job},
    record::{Recorder, TraceConfig},
    store::{Store, StoreError},
    transport::Transport,
    writer::Writer,
};
use bytes::Bytes;
use soma_sync_core::{
    NewError, Status, SyncMachine,
    command::Notice,
    committee::Committee,
    config::Config,
    event::Event,
    explain::Explanation,
    payload::Payload,
    start::Start,
    time::Timestamp,
    types::{CommitIndex, PeerId},
};
use soma_sync_proto::{message::RequestLimits, trace::TraceHeader};
use std::{
    future::Future,
    io,
    net::SocketAddr,
    path::PathBuf,
    pin::Pin,
    sync::{Arc, atomic::AtomicU64},
};
use tokio::{
    runtime::Handle,
    sync::{broadcast, mpsc, oneshot},
    task::JoinHandle,
};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

/// Connections that wait for the driver.
const ARRIVALS_CAPACITY: usize = 16;

/// Where a node begins: [`Node::builder`].
pub struct Node;

impl Node {
    /// A node on this store and this transport. The store is shared, so that an embedder can read it too; while the
    /// node runs, nobody else may write to it.
    pub fn builder<S: Store, T: Transport>(store: Arc<S>, transport: T) -> NodeBuilder<S, T> {
        NodeBuilder {
            store,
            transport,
            config: Config::default(),
            runtime: RuntimeConfig::default(),
            peers: Vec::new(),
            seed: None,
            trace: None,
        }
    }
}

/// A node that has not been started.
pub struct NodeBuilder<S, T> {
    store: Arc<S>,
    transport: T,
    config: Config,
    runtime: RuntimeConfig,
    peers: Vec<(PeerId, SocketAddr)>,
    seed: Option<[u8; 32]>,
    trace: Option<TraceConfig>,
}

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// A field of [`RuntimeConfig`] cannot work.
    #[error(transparent)]
    Runtime(#[from] RuntimeConfigError),
    /// The machine refuses its configuration, or what the store holds.
    #[error(transparent)]
    Machine(#[from] NewError),
    /// The store cannot be read.
    #[error("the store cannot be read: {0}")]
    Store(#[from] StoreError),
    /// The system gives no thread.
    #[error("cannot start a thread: {0}")]
    Thread(#[from] io::Error),
    /// The trace file cannot be made.
    #[error("cannot record into {}", path.display())]
    Trace {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The system gives no random bytes for a seed.
    #[error("the system has no entropy: {0}")]
    Entropy(getrandom::Error),
}

impl<S: Store, T: Transport> NodeBuilder<S, T> {
    /// Sets the machine's configuration.
    pub fn config(mut self, config: Config) -> Self {
        self.config = config;
        self
    }

    /// Sets the runtime's own configuration.
    pub fn runtime_config(mut self, config: RuntimeConfig) -> Self {
        self.runtime = config;
        self
    }

    /// Adds peers to be dialled and kept connected. Further ones can be added later; at most as many as
    /// [`Config::max_peers`] are dialled. A node without any waits for others to connect to it.
    pub fn peers(mut self, peers: impl IntoIterator<Item = (PeerId, SocketAddr)>) -> Self {
        self.peers.extend(peers);
        self
    }

    /// Sets what the machine draws at random, so that a run can be repeated. By default the system gives it.
    pub fn seed(mut self, seed: [u8; 32]) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Records everything that the machine is told and says, so that it can be replayed. By default nothing is recorded.
    pub fn trace(mut self, trace: TraceConfig) -> Self {
        self.trace = Some(trace);
        self
    }

    /// Starts the node, within a tokio runtime that has its timers enabled. The handle can be used from anywhere.
    ///
    /// # Errors
    /// Where the configuration cannot work, the store cannot be read or does not hang together, the trace file cannot be
    /// made, or the system refuses threads or entropy. Nothing runs then.
    pub async fn spawn(self) -> Result<NodeHandle, SpawnError> {
        let Self { store, transport, config, runtime, peers, seed, trace } = self;
        runtime.validate()?;
        let seed = match seed {
            Some(seed) => seed,
            None => {
                let mut drawn = [0; 32];
                getrandom::fill(&mut drawn).map_err(SpawnError::Entropy)?;
                drawn
            }
        };
        let clock = Clock::start();
        let start = read(&Handle::current(), &store, Store::start).await?;
        let tip = start.tip.reference.index;
        let started = clock.now();
        let machine = SyncMachine::new(config.clone(), start.clone(), started, seed)?;
        let recorder = match trace {
            Some(trace) => Some(record(trace, config.clone(), start, started, seed).await?),
            None => None,
        };
        let wiring = Wiring::new(store, transport, config, runtime, tip);
        wiring.start(machine, recorder, clock, peers)
    }
}

/// Begins a recording, where that may block.
async fn record(
    trace: TraceConfig,
    config: Config,
    start: Start,
    started: Timestamp,
    seed: [u8; 32],
) -> Result<Recording, SpawnError> {
    let path = trace.file.clone();
    let header = TraceHeader {
        build: String::new(),
        full: trace.full,
        config,
        start,
        seed,
        started,
        started_unix_ms: 0,
        skipped_events: 0,
        state: None,
    };
    let begin = Handle::current().spawn_blocking(move || Recorder::start(&trace, header));
    let begun = begin.await.unwrap_or_else(|panic| Err(io::Error::other(panic)));
    begun.map_err(|source| SpawnError::Trace { path, source })
}

/// A recorder, and what resolves when all of it is written.
type Recording = (Recorder, oneshot::Receiver<()>);

/// Reads the store where that may block.
async fn read<S: Store, R: Send + 'static>(
    runtime: &Handle,
    store: &Arc<S>,
    read: impl FnOnce(&S) -> Result<R, StoreError> + Send + 'static,
) -> Result<R, StoreError> {
    let store = Arc::clone(store);
    runtime
        .spawn_blocking(move || read(&store))
        .await
        .unwrap_or_else(|panic| Err(StoreError::Damaged { what: panic.to_string() }))
}

/// What the parts of a node have in common, before they run.
struct Wiring<S, T> {
    store: Arc<S>,
    transport: Arc<T>,
    config: Config,
    runtime: RuntimeConfig,
    tasks: TaskTracker,
    stop: CancellationToken,
    hub: Arc<Hub<S>>,
    mailbox: Mailbox,
    inputs: mpsc::Receiver<Input>,
}

impl<S: Store, T: Transport> Wiring<S, T> {
    fn new(store: Arc<S>, transport: T, config: Config, runtime: RuntimeConfig, tip: CommitIndex) -> Self {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let (mailbox, inputs) = mpsc::channel(runtime.mailbox_capacity);
        let recent = runtime.recent_sub_dag_bytes;
        let hub = Hub::new(Arc::clone(&store), tip, config.limits, recent, tasks.clone(), stop.clone());
        Self { store, transport: Arc::new(transport), config, runtime, tasks, stop, hub, mailbox, inputs }
    }

    /// Starts threads and tasks.
    fn start(
        self,
        machine: SyncMachine,
        recording: Option<Recording>,
        clock: Clock,
        peers: Vec<(PeerId, SocketAddr)>,
    ) -> Result<NodeHandle, SpawnError> {
        let (recorder, recorded) = recording.unzip();
        let (pool, writer, writer_ended) = self.threads()?;
        let Self { store, transport, config, runtime, tasks, stop, hub, mailbox, inputs } = self;
        let (arrivals_sender, arrivals) = mpsc::channel(ARRIVALS_CAPACITY);
        tasks.spawn(Arc::clone(&hub).report_delivery(mailbox.clone()));
        tasks.spawn(accept(Arc::clone(&transport), arrivals_sender.clone(), stop.clone()));
        let limits = RequestLimits::new(&config);
        let tasks_of_streams = tasks.clone();
        let (inbound_config, inbound_mailbox) = (runtime.clone(), mailbox.clone());
        let inbound = Inbound {
            store: Arc::clone(&store),
            limits,
            config: inbound_config,
            mailbox: inbound_mailbox,
            next_id: AtomicU64::new(0),
            tasks: tasks_of_streams,
        };
        let max_records = usize::try_from(config.max_peers).unwrap_or(usize::MAX);
        let (notices, _) = broadcast::channel(runtime.notices_capacity);
        let local_id = transport.local_id();
        let mut driver = Driver {
            machine,
            clock,
            machine_config: Arc::new(config),
            config: runtime.clone(),
            transport: Arc::clone(&transport),
            mailbox: mailbox.clone(),
            inputs,
            arrivals_sender,
            arrivals,
            pool,
            writer,
            hub: Arc::clone(&hub),
            inbound: Arc::new(inbound),
            peers: Peers::new(local_id, runtime.max_connections, max_records),
            notices: notices.clone(),
            tasks: tasks.clone(),
            stop: stop.clone(),
            work: Work::default(),
            recorder,
        };
        for (peer, address) in peers {
            if !driver.dial(peer, address) {
                tracing::warn!(?peer, %address, "not dialled: it is this node, or listed before, or one too many");
            }
        }
        let node = Running {
            transport,
            tasks,
            stop: stop.clone(),
            writer_ended,
            recorded,
            runtime: runtime.clone(),
        };
        let capacity = runtime.synced_commit_broadcast_channel_capacity;
        let backend = Backend { hub, store, capacity, runtime: Handle::current() };
        let ended = tokio::spawn(node.run(driver.run()));
        let _stop = stop.clone().drop_guard();
        Ok(NodeHandle { local_id, mailbox, notices, backend: Box::new(backend), stop, ended, _stop })
    }

    fn threads(&self) -> Result<(VerifyPool, Writer, oneshot::Receiver<()>), io::Error> {
        let max = |field: u32| usize::try_from(field).unwrap_or(usize::MAX);
        let jobs = max(self.config.max_verify_jobs);
        let mailbox = self.mailbox.clone();
        // Workers and the store's thread wait for room in the mailbox; without a driver there is nobody to tell.
        let pool = VerifyPool::start(self.runtime.verify_workers, jobs, run_job, move |id, verdict| {
            let _ = mailbox.blocking_send(Input::Event(Event::Verified { id, verdict }));
        })?;
        let (hub, mailbox) = (Arc::clone(&self.hub), self.mailbox.clone());
        let (writer, ended) = Writer::start(
            Arc::clone(&self.store),
            // Beside batches of commits, each verified set of votes may become one.
            max(self.config.max_store_batches) + jobs,
            (self.runtime.reopen_backoff_min, self.runtime.reopen_backoff_max),
            move |batch| hub.remember(batch),
            move |event| {
                let _ = mailbox.blocking_send(Input::Event(event));
            },
        )?;
        Ok((pool, writer, ended))
    }
}

/// Takes connections that peers make to us.
async fn accept<T: Transport>(
    transport: Arc<T>,
    arrivals: mpsc::Sender<Arrival<T::Connection>>,
    stop: CancellationToken,
) {
    loop {
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = transport.accept() => accepted,
        };
        let Some(connection) = accepted else { return };
        if arrivals.send(Arrival { connection, decided: None }).await.is_err() {
            return;
        }
    }
}

/// What is left to end when the driver has ended.
struct Running<T> {
    transport: Arc<T>,
    tasks: TaskTracker,
    stop: CancellationToken,
    writer_ended: oneshot::Receiver<()>,
    recorded: Option<oneshot::Receiver<()>>,
    runtime: RuntimeConfig,
}

impl<T: Transport> Running<T> {
    /// Runs the driver to its end, then ends everything else in bounded time: connections closed, batches stored that
    /// were handed over, the store let go of. Whether all of it has ended.
    async fn run(self, driver: impl Future<Output = ()> + Send + 'static) -> bool {
        if let Err(error) = tokio::spawn(driver).await {
            tracing::error!("the driver failed: {error}");
        }
        self.stop.cancel();
        self.tasks.close();
        // An error of the thread's would mean that it is gone, too.
        let recorded = async {
            if let Some(recorded) = self.recorded {
                let _ = recorded.await;
            }
        };
        let end =
            async { tokio::join!(self.transport.close(), self.tasks.wait(), self.writer_ended, recorded) };
        let ended = tokio::time::timeout(self.runtime.shutdown_timeout, end).await.is_ok();
        tracing::info!(ended, "the node has stopped");
        ended
    }
}

/// The parts of a node that know its store, without its type.
trait Reach: Send + Sync {
    fn subscribe(&self, after: CommitIndex) -> Subscription;
    fn prune(
        &self,
        lowest: CommitIndex,
    ) -> Pin<Box<dyn Future<Output = Result<CommitIndex, StoreError>> + Send>>;
}

struct Backend<S> {
    hub: Arc<Hub<S>>,
    store: Arc<S>,
    capacity: usize,
    /// Whoever calls may be outside of it.
    runtime: Handle,
}

impl<S: Store> Reach for Backend<S> {
    fn subscribe(&self, after: CommitIndex) -> Subscription {
        self.hub.subscribe(after, self.capacity)
    }

    fn prune(
        &self,
        lowest: CommitIndex,
    ) -> Pin<Box<dyn Future<Output = Result<CommitIndex, StoreError>> + Send>> {
        let (store, runtime) = (Arc::clone(&self.store), self.runtime.clone());
        Box::pin(async move {
            read(&runtime, &store, move |store| {
                store.prune(lowest)?;
                Ok(store.start()?.lowest_available)
            })
            .await
        })
    }
}

/// How a node is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeStatus {
    /// What the machine says of itself.
    pub machine: Status,
    /// Live subscribers.
    pub subscribers: usize,
}

/// The node is not running any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the node has stopped")]
pub struct Stopped;

/// Why history was not given up.
#[derive(Debug, thiserror::Error)]
pub enum PruneError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The node is not running any more.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// The node did not stop in time: something of it is left behind, and the store may still be open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the node did not stop in time; what is left of it ends with the process")]
pub struct ShutdownTimeout;

/// A running node. Dropped, it stops the node, as [`NodeHandle::shutdown`] does, without waiting for it.
pub struct NodeHandle {
    local_id: PeerId,
    mailbox: Mailbox,
    notices: broadcast::Sender<Notice>,
    backend: Box<dyn Reach>,
    stop: CancellationToken,
    ended: JoinHandle<bool>,
    _stop: DropGuard,
}

impl NodeHandle {
    /// Who we are to others.
    pub const fn local_id(&self) -> PeerId {
        self.local_id
    }

    /// Everything after the commit `after`: what is stored already, then what comes, in index order, without gap or
    /// repeat. The node keeps no consumer's state: after a crash, say again where you are.
    ///
    /// While a subscriber does not read, at most
    /// [`synced_commit_broadcast_channel_capacity`](RuntimeConfig::synced_commit_broadcast_channel_capacity) sub-dags
    /// wait for it, and the node stops fetching when it is
    /// [`look_ahead_commits`](Config::look_ahead_commits) ahead of it.
    pub fn subscribe(&self, after: CommitIndex) -> Subscription {
        self.backend.subscribe(after)
    }

    /// Hands in a commit from our own consensus, encoded, with its encoded blocks in commit order. Waits for room, not
    /// for the commit to be stored. A commit above the one after the stored tip is a hint only, and not kept.
    ///
    /// # Errors
    ///
    /// Where the node has stopped.
    pub async fn observe_commit(&self, commit: Bytes, blocks: Vec<Bytes>) -> Result<(), Stopped> {
        let blocks = blocks.into_iter().map(Payload::new).collect();
        self.tell(Event::CommitObserved { commit: Payload::new(commit), blocks }).await
    }

    /// Hands in encoded signed blocks that our own consensus accepted, committed or not: they may hold votes. Waits for
    /// room.
    ///
    /// # Errors
    ///
    /// Where the node has stopped.
    pub async fn observe_votes(&self, blocks: Vec<Bytes>) -> Result<(), Stopped> {
        let blocks = blocks.into_iter().map(Payload::new).collect();
        self.tell(Event::VotesObserved { blocks }).await
    }

    /// Supplies the committee of an epoch, where [`Notice::CommitteeWanted`] asked for it.
    ///
    /// # Errors
    ///
    /// Where the node has stopped.
    pub async fn committee_known(&self, committee: Arc<Committee>) -> Result<(), Stopped> {
        self.tell(Event::CommitteeKnown { committee }).await
    }

    /// Gives up the commits below `lowest`. Returns the lowest commit that the store still has.
    ///
    /// # Errors
    ///
    /// Where the store fails, or the node has stopped; the store may have given up the commits all the same.
    pub async fn prune(&self, lowest: CommitIndex) -> Result<CommitIndex, PruneError> {
        let lowest = self.backend.prune(lowest).await?;
        self.tell(Event::Pruned { lowest }).await?;
        Ok(lowest)
    }

    /// Dials this peer too, and keeps it connected. `false` where it is being dialled already, is the node itself, or
    /// is one too many.
    ///
    /// # Errors
    ///
    /// Where the node has stopped.
    pub async fn add_peer(&self, peer: PeerId, address: SocketAddr) -> Result<bool, Stopped> {
        let (added, answer) = oneshot::channel();
        self.send(Input::AddPeer { peer, address, added }).await?;
        answer.await.map_err(|_| Stopped)
    }

    /// How the node is now.
    ///
    /// # Errors
    ///
    /// Where the node has stopped.
    pub async fn status(&self) -> Result<NodeStatus, Stopped> {
        let (reply, status) = oneshot::channel();
        self.send(Input::Status(reply)).await?;
        status.await.map_err(|_| Stopped)
    }

    /// Why the commit at `index` is where it is, and what is in its way. Any index may be asked about.
    ///
    /// # Errors
    ///
    /// Where the node has stopped.
    pub async fn explain(&self, index: CommitIndex) -> Result<Explanation, Stopped> {
        let (reply, explanation) = oneshot::channel();
        self.send(Input::Explain { index, reply }).await?;
        explanation.await.map_err(|_| Stopped)
    }

    /// Writes what a recording holds in memory ([`Keep::Last`](crate::record::Keep::Last)) into its file. `None` where
    /// nothing is held there: there is no recording, or it is written as it happens.
    pub async fn write_trace(&self) -> Result<Option<io::Result<()>>, Stopped> {
        let (reply, written) = oneshot::channel();
        self.send(Input::WriteTrace(reply)).await?;
        written.await.map_err(|_| Stopped)
    }

    /// What the operator should know, from now on. A receiver that lags behind by more than
    /// [`notices_capacity`](RuntimeConfig::notices_capacity) misses the oldest, and is told how many.
    pub fn notices(&self) -> broadcast::Receiver<Notice> {
        self.notices.subscribe()
    }

    /// Stops the node: nothing more is sent, what was handed to the store is stored, subscriptions end, connections and
    /// the store are closed. Takes at most [`shutdown_timeout`](RuntimeConfig::shutdown_timeout).
    ///
    /// # Errors
    /// Where it takes longer.
    pub async fn shutdown(self) -> Result<(), ShutdownTimeout> {
        let Self { backend, stop, ended, .. } = self;
        // It holds the store, which is to be closed.
        drop(backend);
        stop.cancel();
        if ended.await.unwrap_or(false) { Ok(()) } else { Err(ShutdownTimeout) }
    }

    async fn tell(&self, event: Event) -> Result<(), Stopped> {
        self.send(Input::Event(event)).await
    }

    async fn send(&self, input: Input) -> Result<(), Stopped> {
        self.mailbox.send(input).await.map_err(|_| Stopped)
    }
}
