//! The honest client.

use crate::{Arguments, server};
use anyhow::{Context, Result, bail};
use soma_sync_core::{committee::Committee, types::CommitIndex};
use soma_sync_runtime_tokio::{node::Node, store::MemoryStore};
use soma_sync_sim::chain::ChainMaker;
use soma_sync_transport_quic::{Identity, QuicConfig, QuicTransport};
use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

/// After so long without its end a run has failed.
const PATIENCE: Duration = Duration::from_secs(120);

/// What there is to get, and where.
pub(crate) struct Places {
    genesis: Arc<Committee>,
    commits: u32,
    blocks: f64,
    at: SocketAddr,
}

impl Places {
    pub(crate) fn new(arguments: &Arguments, at: SocketAddr) -> Result<Self> {
        let genesis = Arc::clone(ChainMaker::new(arguments.spec())?.genesis());
        let blocks = f64::from(arguments.commits) * f64::from(arguments.blocks_per_commit);
        Ok(Self { genesis, commits: arguments.commits, blocks, at })
    }
}

/// How fast the client of this number gets the chain.
pub(crate) async fn blocks_per_second(places: &Places, number: u32) -> Result<f64> {
    let mut seed = *b"soma-sync siege, honest one 0000";
    let (_, place) = seed.split_at_mut(28);
    place.copy_from_slice(&number.to_be_bytes());
    let transport = QuicTransport::bind(&Identity::from_seed(seed), None, QuicConfig::default())?;
    let store = Arc::new(MemoryStore::new(Arc::clone(&places.genesis)));
    let began = Instant::now();
    let server = (server::identity().peer_id(), places.at);
    let node = Node::builder(store, transport).peers([server]).spawn().await?;
    while node.status().await?.machine.certifiable.index < CommitIndex::new(places.commits) {
        if began.elapsed() > PATIENCE {
            bail!("an honest client does not get the chain: {:#?}", node.status().await?.machine);
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let rate = places.blocks / began.elapsed().as_secs_f64();
    node.shutdown().await.context("an honest client does not stop")?;
    Ok(rate)
}
