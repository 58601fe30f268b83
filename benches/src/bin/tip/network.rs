//! The nodes: a validator, and followers that know nobody else.

use crate::{Arguments, chain::Commit};
use anyhow::{Context, Result, bail};
use soma_sync_core::{
    Config, Status,
    committee::Committee,
    types::{CommitIndex, PeerId},
};
use soma_sync_runtime_tokio::{
    broadcast::Subscription,
    node::{Node, NodeHandle},
    store::{RedbOptions, RedbStore},
};
use soma_sync_transport_quic::{Identity, QuicConfig, QuicTransport};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// Any free port of this machine, for nobody outside of it.
pub(crate) const ANY_PORT: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// Several stores are open at once, and each is small.
const CACHE_BYTES: u64 = 16 * 1024 * 1024;
/// How often is looked whether followers are there.
const LOOK: Duration = Duration::from_millis(20);
/// After so long without any progress the run has failed.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// A validator and its followers, running.
pub(crate) struct Network {
    validator: NodeHandle,
    followers: Vec<NodeHandle>,
    /// Where the stores are; removed at the end.
    _home: TempDir,
}

impl Network {
    /// Starts all nodes, and waits until every follower has heard from the validator how far it is.
    pub(crate) async fn start(arguments: &Arguments, genesis: &Committee) -> Result<Self> {
        let home = tempfile::Builder::new().prefix("soma-sync-tip-").tempdir();
        let home = home.context("cannot make a temporary directory")?;
        let config = arguments.config();
        let identity = identity(0);
        let transport = QuicTransport::bind(&identity, Some(ANY_PORT), QuicConfig::default())?;
        let contact = (identity.peer_id(), transport.local_addr());
        let directory = home.path().join("validator");
        let validator = start(&directory, genesis, transport, config.clone(), None).await?;
        let mut followers = Vec::with_capacity(arguments.followers.into());
        for number in 1..=arguments.followers {
            let transport = QuicTransport::bind(&self::identity(number), None, QuicConfig::default())?;
            let directory = home.path().join(format!("follower-{number}"));
            followers.push(start(&directory, genesis, transport, config.clone(), Some(contact)).await?);
        }
        let network = Self { validator, followers, _home: home };
        network.wait_for_followers().await?;
        Ok(network)
    }

    async fn wait_for_followers(&self) -> Result<()> {
        let began = Instant::now();
        loop {
            let statuses = self.followers().await?;
            let has_heard =
                |status: &Status| status.peers.iter().any(|peer| peer.checked && peer.claim.is_some());
            if statuses.iter().all(has_heard) {
                return Ok(());
            }
            if began.elapsed() >= PATIENCE {
                bail!("a follower cannot reach the validator");
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// How the validator is.
    pub(crate) async fn validator(&self) -> Result<Status> {
        Ok(self.validator.status().await?.machine)
    }

    /// How each follower is.
    pub(crate) async fn followers(&self) -> Result<Vec<Status>> {
        let mut statuses = Vec::with_capacity(self.followers.len());
        for follower in &self.followers {
            statuses.push(follower.status().await?.machine);
        }
        Ok(statuses)
    }

    /// Everything that each follower hands on, from the first commit on.
    pub(crate) fn subscribe(&self) -> Vec<Subscription> {
        self.followers.iter().map(|follower| follower.subscribe(CommitIndex::GENESIS)).collect()
    }

    /// Tells the validator a commit, and the votes for it.
    pub(crate) async fn tell(&self, commit: &Commit) -> Result<()> {
        self.validator.observe_commit(commit.commit.clone(), commit.blocks.clone()).await?;
        Ok(self.validator.observe_votes(commit.votes.clone()).await?)
    }

    /// Waits until every follower has handed on what the validator can certify, or nothing goes on. Gives the last
    /// look at the validator and at the followers.
    pub(crate) async fn settle(&self) -> Result<(Status, Vec<Status>)> {
        let (mut progress, mut progress_at) = (Vec::new(), Instant::now());
        loop {
            let (validator, followers) = (self.validator().await?, self.followers().await?);
            let tip = validator.certifiable;
            let level = |status: &Status| status.certifiable == tip && status.delivered == tip.index;
            if followers.iter().all(level) || progress_at.elapsed() >= PATIENCE {
                return Ok((validator, followers));
            }
            let now: Vec<_> =
                followers.iter().map(|status| (status.certifiable.index, status.delivered)).collect();
            if now != progress {
                (progress, progress_at) = (now, Instant::now());
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Stops everything, all stores closed. Subscriptions end.
    pub(crate) async fn shutdown(self) -> Result<()> {
        for follower in self.followers {
            follower.shutdown().await.context("a follower did not stop")?;
        }
        self.validator.shutdown().await.context("the validator did not stop")
    }
}

fn identity(number: u8) -> Identity {
    let mut seed = *b"soma-sync tip, number of node: \0";
    let [.., place] = &mut seed;
    *place = number;
    Identity::from_seed(seed)
}

async fn start(
    directory: &Path,
    genesis: &Committee,
    transport: QuicTransport,
    config: Config,
    validator: Option<(PeerId, SocketAddr)>,
) -> Result<NodeHandle> {
    let options = RedbOptions { cache_bytes: CACHE_BYTES, ..RedbOptions::default() };
    let store = Arc::new(RedbStore::open_with(directory, Some(genesis), options)?);
    Ok(Node::builder(store, transport).config(config).peers(validator).spawn().await?)
}
