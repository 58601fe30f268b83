//! A serving node of the demo, with its store, its manner and its consensus.

use super::{
    chain::Consensus,
    manner::{Manner, MannerTransport},
};
use anyhow::{Context, Result};
use soma_sync_core::{
    Config,
    committee::Committee,
    types::{CommitIndex, CommitRef, PeerId},
};
use soma_sync_runtime_tokio::{
    node::{Node, NodeHandle, Stopped},
    store::{RedbOptions, RedbStore},
};
use soma_sync_transport_quic::{Identity, QuicConfig, QuicTransport};
use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::task::JoinHandle;

/// Several stores are open at once, and each is small.
const CACHE_BYTES: u64 = 16 * 1024 * 1024;
/// How often is looked at how far a server is.
const FEED_INTERVAL: Duration = Duration::from_millis(50);
/// After how long without progress it is told again what it has not taken.
const TELL_AGAIN: Duration = Duration::from_millis(500);
/// Most commits that it is told beyond what it can certify.
const TOLD_AHEAD_MAX: u32 = 8;
/// How often, and how many times, a port that was given up is asked for again.
const REBIND_PAUSE: Duration = Duration::from_millis(100);
const REBIND_ATTEMPTS: u32 = 50;

/// What a server is made of.
#[derive(Clone)]
pub(super) struct Setup {
    /// Position among the servers; people count from one.
    pub(super) number: usize,
    pub(super) identity: Identity,
    pub(super) manner: Manner,
    /// Where its store is.
    pub(super) directory: PathBuf,
    pub(super) config: Config,
    /// What its machine draws from.
    pub(super) seed: [u8; 32],
}

impl Setup {
    /// Opens its store, made from `genesis` where there is none.
    pub(super) fn open_store(&self, genesis: Option<&Committee>) -> Result<RedbStore> {
        let options = RedbOptions { cache_bytes: CACHE_BYTES, ..RedbOptions::default() };
        Ok(RedbStore::open_with(&self.directory, genesis, options)?)
    }

    /// Takes its socket; the address is the transport's.
    pub(super) fn bind(&self, address: SocketAddr) -> Result<QuicTransport> {
        Ok(QuicTransport::bind(&self.identity, Some(address), QuicConfig::default())?)
    }

    /// Takes the socket at an address that was in use a moment ago.
    async fn rebind(&self, address: SocketAddr) -> Result<QuicTransport> {
        for _ in 1..REBIND_ATTEMPTS {
            if let Ok(transport) = self.bind(address) {
                return Ok(transport);
            }
            tokio::time::sleep(REBIND_PAUSE).await;
        }
        self.bind(address)
    }
}

/// Any free port of this machine, for nobody outside of it.
pub(super) const ANY_PORT: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

/// A running server.
pub(super) struct Server {
    setup: Setup,
    address: SocketAddr,
    peers: Vec<(PeerId, SocketAddr)>,
    consensus: Arc<Consensus>,
    node: Arc<NodeHandle>,
    feeder: JoinHandle<()>,
}

impl Server {
    /// Starts a server that finds the other ones at `peers`.
    pub(super) async fn start(
        setup: Setup,
        transport: QuicTransport,
        store: Arc<RedbStore>,
        peers: Vec<(PeerId, SocketAddr)>,
        consensus: Arc<Consensus>,
    ) -> Result<Self> {
        let address = transport.local_addr();
        let node = Node::builder(store, MannerTransport::new(transport, setup.manner))
            .config(setup.config.clone())
            .seed(setup.seed)
            .peers(peers.iter().copied())
            .spawn()
            .await?;
        let node = Arc::new(node);
        let feeder = tokio::spawn(feed(Arc::clone(&node), Arc::clone(&consensus), setup.number));
        Ok(Self { setup, address, peers, consensus, node, feeder })
    }

    /// Where the server stands among the others.
    pub(super) const fn number(&self) -> usize {
        self.setup.number
    }

    pub(super) const fn manner(&self) -> Manner {
        self.setup.manner
    }

    /// The highest commit that it can certify to others.
    pub(super) async fn certifiable(&self) -> Result<CommitRef, Stopped> {
        Ok(self.node.status().await?.machine.certifiable)
    }

    /// Stops the server, stays away for `pause`, and starts it again from its store, at the same address.
    pub(super) async fn be_away(self, pause: Duration) -> Result<Self> {
        let (setup, address, peers, consensus) =
            (self.setup.clone(), self.address, self.peers.clone(), Arc::clone(&self.consensus));
        self.stop().await?;
        tokio::time::sleep(pause).await;
        let store = Arc::new(setup.open_store(None)?);
        let transport = setup.rebind(address).await?;
        Self::start(setup, transport, store, peers, consensus).await
    }

    /// Stops the server, its store closed.
    pub(super) async fn stop(self) -> Result<()> {
        self.feeder.abort();
        // Its end is all that matters: it was aborted.
        let _ = self.feeder.await;
        let number = self.setup.number + 1;
        let node = Arc::into_inner(self.node).context("somebody else still uses a serving node")?;
        node.shutdown().await.with_context(|| format!("serving node {number} did not stop"))
    }
}

/// Hands a server what its consensus makes, until the node is gone.
async fn feed(node: Arc<NodeHandle>, consensus: Arc<Consensus>, number: usize) {
    let mut tip = consensus.tip();
    let mut feeder =
        Feeder { node: &node, told: CommitIndex::GENESIS, has: CommitIndex::GENESIS, since: Instant::now() };
    while feeder.feed(&consensus, number).await.is_ok() {
        // No more news is a reason to look at how far the node is, too.
        let _ = tokio::time::timeout(FEED_INTERVAL, tip.changed()).await;
    }
}

/// How far the node of a server is with what its consensus makes.
struct Feeder<'a> {
    node: &'a NodeHandle,
    /// The last commit that it was told.
    told: CommitIndex,
    /// The last commit that it could certify, and since when.
    has: CommitIndex,
    since: Instant,
}

impl Feeder<'_> {
    /// Tells the node what is new, a few commits at once. What it has not taken after a while, because it had no room,
    /// it is told again.
    async fn feed(&mut self, consensus: &Consensus, number: usize) -> Result<(), Stopped> {
        let machine = self.node.status().await?.machine;
        let certifiable = machine.certifiable.index;
        if certifiable != self.has {
            (self.has, self.since) = (certifiable, Instant::now());
        } else if self.since.elapsed() >= TELL_AGAIN {
            (self.told, self.since) = (certifiable, Instant::now());
        }
        self.told = self.told.max(certifiable);
        let last = certifiable.saturating_add(TOLD_AHEAD_MAX);
        for live in consensus.wanted(number, certifiable) {
            let index = live.reference.index;
            if index > self.told && index <= last {
                if index > machine.queued.index {
                    self.node.observe_commit(live.commit.clone(), live.blocks.clone()).await?;
                }
                self.node.observe_votes(live.certifiers.clone()).await?;
                self.told = index;
            }
        }
        Ok(())
    }
}
