//! The server: a process of its own, so that its memory can be told from that of the others.

use crate::{Arguments, child, child::Child};
use anyhow::{Context, Result};
use serde_json::json;
use soma_sync_core::{
    Config,
    command::{Batch, BatchId},
    job::{CheckedBlock, CommitHeader},
    verified::Verified,
};
use soma_sync_runtime_tokio::{
    config::RuntimeConfig,
    node::Node,
    store::{RedbOptions, RedbStore, Store},
};
use soma_sync_sim::chain::ChainMaker;
use soma_sync_transport_quic::{Identity, QuicConfig, QuicTransport};
use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
};

const CACHE_BYTES: u64 = 16 * 1024 * 1024;
/// Room for all hostile peers and some honest ones.
const PLACES: u32 = 12_000;

pub(crate) fn identity() -> Identity {
    Identity::from_seed(*b"soma-sync siege: the server key0")
}

/// Starts the process, and says where it is.
pub(crate) fn start() -> Result<(Child, SocketAddr)> {
    let (child, ready) = Child::start(&["--role", "server"])?;
    let at = ready.get("at").and_then(|at| at.as_str()).context("the server does not say where it is")?;
    let at = at.parse().context("the server says where it is in other words")?;
    Ok((child, at))
}

/// What this process is when it is the server.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let home = tempfile::Builder::new().prefix("soma-sync-siege-").tempdir();
    let home = home.context("cannot make a temporary directory")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.context("cannot start the runtime")?;
    let store = Arc::new(fill(arguments, home.path())?);
    let config = Config {
        max_data_requests_per_second: arguments.requests,
        max_small_requests_per_second: arguments.requests,
        max_served_bytes_per_second: u64::from(arguments.served_mib) * 1024 * 1024,
        max_peers: PLACES,
        ..Config::default()
    };
    let limits = RuntimeConfig { max_connections: PLACES as usize, ..RuntimeConfig::default() };
    let quic =
        QuicConfig { max_connections: PLACES, max_connections_per_address: PLACES, ..QuicConfig::default() };
    let (node, at) = runtime.block_on(async {
        let transport = QuicTransport::bind(&identity(), Some((Ipv4Addr::LOCALHOST, 0).into()), quic)?;
        let at = transport.local_addr();
        let node = Node::builder(store, transport).config(config).runtime_config(limits).spawn().await?;
        Ok::<_, anyhow::Error>((node, at))
    })?;
    child::serve(&json!({ "at": at.to_string() }), || {
        let status = runtime.block_on(node.status())?.machine;
        let peers = status.peers.iter().filter(|peer| peer.connected).count();
        Ok(json!({
            "resident_kib": resident_kib(),
            "tasks": runtime.metrics().num_alive_tasks(),
            "connected": peers,
            "serving": status.serving,
            "queued": status.serve_queue,
            "parked": status.parked,
            "sent_bytes": status.counters.sent_bytes,
            "refused_rate": status.counters.refused_rate,
            "refused_repeats": status.counters.refused_repeats,
            "refused_unread": status.counters.refused_unread,
            "refused_room": status.counters.refused_room,
            "offences": status.counters.offences,
        }))
    })?;
    runtime.block_on(node.shutdown()).context("the server does not stop")
}

fn fill(arguments: &Arguments, directory: &Path) -> Result<RedbStore> {
    let maker = ChainMaker::new(arguments.spec())?;
    let options = RedbOptions { cache_bytes: CACHE_BYTES, ..RedbOptions::default() };
    let store = RedbStore::open_with(directory, Some(maker.genesis()), options)?;
    // It goes on after that for as long as it is asked.
    let mut chain = maker.take(arguments.commits as usize);
    for id in 0.. {
        let made: Vec<_> = chain.by_ref().take(20).collect();
        if made.is_empty() {
            break;
        }
        let blocks = made.iter().flat_map(|made| made.blocks.iter().chain(made.certifiers.iter()));
        let headers = made.iter().map(|made| made.header.clone());
        store.apply(&Batch {
            id: BatchId::new(id),
            blocks: blocks.cloned().map(Verified::<CheckedBlock>::from_trace).collect(),
            commits: headers.map(Verified::<CommitHeader>::from_trace).collect(),
            committees: made.iter().flat_map(|made| made.next_committee.iter().cloned()).collect(),
        })?;
    }
    Ok(store)
}

/// Resident memory of this process; 0 where the system does not say.
fn resident_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}
