//! What the tests share: a chain, nodes that have threads of their own, and peers that are a script.

use bytes::Bytes;
use soma_sync_core::{
    Config, PeerStatus, Status,
    command::{Batch, BatchId},
    committee::Committee,
    job::CheckedBlock,
    request::{CommitInfoQuery, RefuseReason, Request, ResponsePart},
    types::{CommitIndex, CommitRef, PeerId},
    verified::Verified,
};
use soma_sync_proto::{
    frame::FrameDecoder,
    message::{
        Method, RequestLimits, answered_status, decode_request, encode_request, encode_response, read_status,
    },
};
use soma_sync_runtime_tokio::{
    config::RuntimeConfig,
    node::{Node, NodeHandle},
    store::{MemoryStore, Store},
    transport::{Connection, StreamReceiver, StreamSender, Transport, TransportError},
};
use soma_sync_sim::chain::{ChainMaker, ChainSpec, MadeCommit};
use soma_sync_transport_quic::{
    Identity, QuicConfig, QuicConnection, QuicReceiver, QuicSender, QuicTransport,
};
use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{
    runtime::{Builder, Runtime},
    sync::mpsc,
};

/// Who a node is, and where.
pub(crate) type Place = (PeerId, SocketAddr);

/// A chain of one epoch, six blocks to a commit.
pub(crate) struct Chain {
    pub(crate) genesis: Arc<Committee>,
    pub(crate) commits: Vec<MadeCommit>,
}

impl Chain {
    pub(crate) fn new(commits: u32, payload_bytes: u32) -> Self {
        let spec =
            ChainSpec { commits, blocks_per_commit: 6, payload_bytes, committee: 4, epochs: 1, seed: 3 };
        let maker = ChainMaker::new(spec).expect("such chains are made");
        Self { genesis: Arc::clone(maker.genesis()), commits: maker.take(commits as usize).collect() }
    }

    pub(crate) fn tip(&self) -> CommitRef {
        self.commits.last().map_or(CommitRef::GENESIS, |commit| commit.header.reference)
    }

    /// A store of the whole chain.
    pub(crate) fn full(&self) -> Arc<MemoryStore> {
        let store = self.empty();
        for (id, commit) in (0_u64..).zip(&self.commits) {
            let blocks = commit.blocks.iter().chain(commit.certifiers.iter());
            let batch = Batch {
                id: BatchId::new(id),
                blocks: blocks.cloned().map(Verified::<CheckedBlock>::from_trace).collect(),
                commits: vec![Verified::from_trace(commit.header.clone())],
                committees: commit.next_committee.iter().cloned().collect(),
            };
            store.apply(&batch).expect("it follows");
        }
        store
    }

    /// A store of none of it.
    pub(crate) fn empty(&self) -> Arc<MemoryStore> {
        Arc::new(MemoryStore::new(Arc::clone(&self.genesis)))
    }

    /// Whether a store holds the chain, whole.
    pub(crate) fn check(&self, store: &MemoryStore) {
        for made in &self.commits {
            let commit = store.commit(made.header.reference.index).expect("it can be read").expect("no gap");
            assert_eq!(commit.reference, made.header.reference);
            for block in &made.blocks {
                let stored = store.block(&block.reference).expect("it can be read").expect("no block lacks");
                assert_eq!(stored.bytes(), block.payload.bytes());
            }
        }
    }
}

/// What a node is started with.
#[derive(Clone, Default)]
pub(crate) struct Settings {
    pub(crate) machine: Config,
    pub(crate) runtime: RuntimeConfig,
    pub(crate) quic: QuicConfig,
}

/// Small steps, so that a short chain takes many of them, and no waiting at the tip.
pub(crate) fn small() -> Settings {
    let millis = Duration::from_millis;
    Settings {
        machine: Config {
            commit_sync_batch_size: 5,
            look_ahead_commits: 20,
            max_blocks_per_fetch: 15,
            max_store_batch_bytes: 64 * 1024,
            poll_interval_level: millis(200),
            poll_interval_behind: millis(50),
            wait_interval_when_no_peer_to_sync_content: millis(50),
            retry_same_peer_after: millis(200),
            follow_requests: 0,
            ..Config::default()
        },
        runtime: RuntimeConfig {
            dial_backoff_min: millis(1),
            dial_backoff_max: millis(50),
            ..RuntimeConfig::default()
        },
        quic: QuicConfig::default(),
    }
}

fn identity(n: u8) -> Identity {
    Identity::from_seed([n; 32])
}

fn any_port() -> SocketAddr {
    (Ipv4Addr::LOCALHOST, 0).into()
}

/// A node on QUIC whose tasks are the only ones of its runtime.
pub(crate) struct Honest {
    pub(crate) place: Place,
    node: Option<NodeHandle>,
    runtime: Option<Runtime>,
    tasks_alone: usize,
}

impl Honest {
    pub(crate) async fn start<S: Store>(n: u8, store: &Arc<S>, settings: Settings) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let runtime = runtime.expect("there are threads");
        let store = Arc::clone(store);
        let started = runtime.spawn(async move {
            let transport = QuicTransport::bind(&identity(n), Some(any_port()), settings.quic);
            let transport = transport.expect("a free port");
            let place = (transport.local_id(), transport.local_addr());
            let node = Node::builder(store, transport).seed([n; 32]);
            let node = node.config(settings.machine).runtime_config(settings.runtime);
            (node.spawn().await.expect("it starts"), place)
        });
        let (node, place) = started.await.expect("it starts");
        let mut honest = Self { place, node: Some(node), runtime: Some(runtime), tasks_alone: 0 };
        // The task that started it may not have been reaped yet.
        honest.status().await;
        honest.tasks_alone = honest.settled_tasks().await;
        honest
    }

    fn node(&self) -> &NodeHandle {
        self.node.as_ref().expect("it is taken when it stops")
    }

    /// Dials this peer too.
    pub(crate) async fn dial(&self, place: Place) {
        assert!(self.node().add_peer(place.0, place.1).await.expect("it runs"));
    }

    pub(crate) async fn status(&self) -> Status {
        self.node().status().await.expect("it runs").machine
    }

    /// Waits until it is as wanted.
    pub(crate) async fn until(&self, wanted: impl Fn(&Status) -> bool) -> Status {
        loop {
            let status = self.status().await;
            if wanted(&status) {
                return status;
            }
            tokio::task::yield_now().await;
        }
    }

    /// Waits until it knows of `peer` what is wanted.
    pub(crate) async fn until_peer(&self, peer: PeerId, wanted: impl Fn(&PeerStatus) -> bool) -> PeerStatus {
        let status = self.until(|status| of(status, peer).is_some_and(&wanted)).await;
        of(&status, peer).cloned().expect("it is known")
    }

    /// Waits until it can certify the chain.
    pub(crate) async fn reaches(&self, chain: &Chain) -> Status {
        self.until(|status| status.certifiable == chain.tip()).await
    }

    fn tasks(&self) -> usize {
        self.runtime.as_ref().expect("it is taken when it stops").metrics().num_alive_tasks()
    }

    /// How many tasks there are, the same in two looks with the node's own turn between them.
    async fn settled_tasks(&self) -> usize {
        loop {
            let before = self.tasks();
            self.status().await;
            if self.tasks() == before {
                return before;
            }
        }
    }

    /// Waits until nothing is held for any peer: no place, no request, no byte.
    pub(crate) async fn holds_nothing(&self) {
        let status = |status: &Status| {
            status.peers.iter().all(|peer| !peer.connected && peer.in_flight == 0)
                && [status.serving, status.serve_queue, status.parked, status.requests_in_flight] == [0; 4]
                && status.buffered_bytes == 0
        };
        self.until(status).await;
    }

    /// The same of a node that dials nobody, and until no task is left of them.
    pub(crate) async fn is_alone_again(&self) {
        self.holds_nothing().await;
        while self.tasks() != self.tasks_alone {
            self.status().await;
        }
    }

    /// Stops it, and waits until all that it ever started has ended.
    pub(crate) async fn stop(mut self) {
        let node = self.node.take().expect("it is taken only here");
        node.shutdown().await.expect("it stops in time");
        while self.tasks() > 0 {
            tokio::task::yield_now().await;
        }
    }
}

impl Drop for Honest {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// What is known of a peer.
pub(crate) fn of(status: &Status, peer: PeerId) -> Option<&PeerStatus> {
    status.peers.iter().find(|known| known.id == peer)
}

/// A peer that keeps to no rules but those of QUIC.
pub(crate) struct Raw {
    transport: QuicTransport,
}

impl Raw {
    pub(crate) fn new(n: u8, quic: QuicConfig) -> Self {
        Self { transport: QuicTransport::bind(&identity(n), Some(any_port()), quic).expect("a free port") }
    }

    pub(crate) fn place(&self) -> Place {
        (self.transport.local_id(), self.transport.local_addr())
    }

    pub(crate) async fn dial(&self, place: Place) -> QuicConnection {
        self.transport.dial(place.0, place.1).await.expect("it is there")
    }

    /// The next connection that somebody makes.
    pub(crate) async fn accept(&self) -> QuicConnection {
        self.transport.accept().await.expect("it is open")
    }

    /// Leaves, and lets the others know.
    pub(crate) async fn leave(self) {
        self.transport.close().await;
    }
}

/// Sends `bytes` on a stream of its own, and its end.
pub(crate) async fn send(connection: &QuicConnection, bytes: Bytes) -> Result<QuicReceiver, TransportError> {
    let (mut sender, receiver) = connection.open().await?;
    // Who refuses may have stopped reading.
    match sender.send(bytes).await.and_then(|()| sender.finish()) {
        Ok(()) | Err(TransportError::Reset) => Ok(receiver),
        Err(error) => Err(error),
    }
}

/// Asks, and reads the answer to its end: whether it was refused, and how many bytes it had.
pub(crate) async fn ask(
    connection: &QuicConnection,
    request: Bytes,
) -> Result<Result<u64, RefuseReason>, TransportError> {
    let mut receiver = send(connection, request).await?;
    let (mut decoder, mut bytes) = (FrameDecoder::new(), 0);
    let mut status = None;
    while let Some(chunk) = receiver.receive(256 * 1024).await? {
        bytes += chunk.len() as u64;
        if status.is_none() {
            decoder.push(chunk);
            status = decoder.varint().expect("a status is well-formed");
        }
    }
    let status = status.ok_or(TransportError::Reset)?;
    Ok(read_status(status).map(|()| bytes))
}

pub(crate) fn encoded(request: &Request) -> Bytes {
    encode_request(request)
}

/// What the honest node asks of a scripted one.
pub(crate) struct Question {
    pub(crate) request: Request,
    pub(crate) sender: QuicSender,
    /// Kept, or else the asker learns that its request is not wanted.
    pub(crate) _receiver: QuicReceiver,
}

/// Answers what is asked about the chain as if there were nothing wrong, and hands over what asks for commits and
/// blocks. Ends with the connection, and says how much was asked.
pub(crate) async fn pretend(
    connection: QuicConnection,
    tip: CommitRef,
    genesis: Arc<Committee>,
    questions: mpsc::UnboundedSender<Question>,
) -> u64 {
    let mut asked = 0;
    while let Ok((mut sender, mut receiver)) = connection.accept().await {
        asked += 1;
        let Some(request) = read_request(&mut receiver).await else { continue };
        let answer = match &request {
            Request::CommitInfo(CommitInfoQuery::ByIndex(CommitIndex::GENESIS)) => ResponsePart::CommitInfo {
                commit: Some(CommitRef::GENESIS),
                chain_id: Some(genesis.chain_id()),
            },
            Request::CommitInfo(_) => ResponsePart::CommitInfo { commit: Some(tip), chain_id: None },
            Request::Availability { timestamp_ms: _ } => {
                ResponsePart::Availability { highest: tip.index, lowest: CommitIndex::GENESIS }
            }
            Request::Push { index: _ } => ResponsePart::Push { timestamp_ms: 0 },
            Request::Commits(_) | Request::Blocks(_) => {
                // Whoever asked the questions may have heard enough.
                let _ = questions.send(Question { request, sender, _receiver: receiver });
                continue;
            }
        };
        let sent = async {
            sender.send(answered_status()).await?;
            sender.send(encode_response(&answer)).await?;
            sender.finish()
        };
        // Nobody may want it any more.
        let _ = sent.await;
    }
    asked
}

async fn read_request(receiver: &mut QuicReceiver) -> Option<Request> {
    let limits = RequestLimits::new(&Config::default());
    let mut decoder = FrameDecoder::new();
    while let Some(chunk) = receiver.receive(64 * 1024).await.ok()? {
        decoder.push(chunk);
    }
    let method = Method::from_number(decoder.varint().ok()??)?;
    let message = decoder.message(method.request_bytes_max(&limits)).ok()??;
    decode_request(method, message, &limits).ok()
}
