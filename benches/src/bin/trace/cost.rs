//! What recording costs beside a sync over real QUIC.

use crate::{Chain, usage::cpu_seconds};
use anyhow::{Context, Result};
use soma_sync_core::{
    command::{Batch, BatchId},
    committee::Committee,
    types::{CommitRef, PeerId},
    verified::Verified,
};
use soma_sync_runtime_tokio::{
    node::{Node, NodeHandle},
    record::{Keep, TraceConfig},
    store::{RedbStore, Store},
};
use soma_sync_transport_quic::{Identity, QuicConfig, QuicTransport};
use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

/// How often is looked whether the node is there.
const LOOK: Duration = Duration::from_millis(5);

/// One sync.
struct Run {
    cpu: f64,
    seconds: f64,
    trace_bytes: u64,
}

/// Prints a line for each pair, and the median.
pub(crate) fn measure(chain: &Chain, pairs: u32, full: bool, keep: Keep) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let home = tempfile::Builder::new().prefix("soma-sync-trace-").tempdir()?;
    let origin = home.path().join("origin");
    fill(&origin, chain)?;
    let tip = chain.commits.last().context("a chain has commits")?.header.reference;
    println!("recording, {}:", if full { "full" } else { "thin" });
    let mut costs = Vec::new();
    for pair in 0..=pairs {
        let run = |name: &str, trace: Option<(bool, Keep)>| {
            let directory = home.path().join(name);
            let run = runtime.block_on(sync(&origin, &directory, chain.maker.genesis(), tip, trace));
            fs::remove_dir_all(&directory)?;
            run
        };
        // Whoever comes second may find things warm.
        let (without, with) = if pair % 2 == 0 {
            let without = run("without", None)?;
            (without, run("with", Some((full, keep)))?)
        } else {
            let with = run("with", Some((full, keep)))?;
            (run("without", None)?, with)
        };
        // The first pair warms up.
        if pair == 0 {
            continue;
        }
        let cost = (with.cpu / without.cpu - 1.0) * 100.0;
        println!(
            "  pair {pair}: {:.2} s of processor without, {:.2} s with: {cost:+.1} %; {:.2} s and {:.2} s on the clock; \
             {} bytes written",
            without.cpu, with.cpu, without.seconds, with.seconds, with.trace_bytes
        );
        costs.push(cost);
    }
    costs.sort_by(f64::total_cmp);
    println!("  median: {:+.1} %", costs[costs.len() / 2]);
    Ok(())
}

/// Fills a store with the chain.
fn fill(directory: &Path, chain: &Chain) -> Result<()> {
    let store = RedbStore::open(directory, Some(chain.maker.genesis()))?;
    for (id, commits) in (0..).zip(chain.commits.chunks(100)) {
        let blocks = commits.iter().flat_map(|commit| commit.blocks.iter().chain(commit.certifiers.iter()));
        store.apply(&Batch {
            id: BatchId::new(id),
            // We have made them.
            blocks: blocks.cloned().map(Verified::from_trace).collect(),
            commits: commits.iter().map(|commit| Verified::from_trace(commit.header.clone())).collect(),
            committees: commits.iter().flat_map(|commit| commit.next_committee.clone()).collect(),
        })?;
    }
    Ok(())
}

/// Syncs a fresh node from a serving one; with a trace of each, where `trace` says whether it is a full one, and how much of
/// it is kept.
async fn sync(
    origin: &Path,
    directory: &Path,
    genesis: &Committee,
    tip: CommitRef,
    trace: Option<(bool, Keep)>,
) -> Result<Run> {
    fs::create_dir_all(directory)?;
    let files: [PathBuf; 2] = ["server.trace", "client.trace"].map(|name| directory.join(name));
    let recording =
        |file: &PathBuf| trace.map(|(full, keep)| TraceConfig { full, keep, ..TraceConfig::new(file) });
    let (cpu, began) = (cpu_seconds().context("the system does not say processor time")?, Instant::now());
    let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let identity = Identity::from_seed([1; 32]);
    let transport = QuicTransport::bind(&identity, Some(any_port), QuicConfig::default())?;
    let contact = (identity.peer_id(), transport.local_addr());
    let server = start(RedbStore::open(origin, None)?, transport, None, recording(&files[0])).await?;
    let transport = QuicTransport::bind(&Identity::from_seed([2; 32]), None, QuicConfig::default())?;
    let store = RedbStore::open(&directory.join("store"), Some(genesis))?;
    let client = start(store, transport, Some(contact), recording(&files[1])).await?;
    while client.status().await?.machine.certifiable != tip {
        tokio::time::sleep(LOOK).await;
    }
    let seconds = began.elapsed().as_secs_f64();
    client.shutdown().await?;
    server.shutdown().await?;
    let cpu = cpu_seconds().context("the system does not say processor time")? - cpu;
    let written = files.iter().filter_map(|file| fs::metadata(file).ok());
    Ok(Run { cpu, seconds, trace_bytes: written.map(|file| file.len()).sum() })
}

async fn start(
    store: RedbStore,
    transport: QuicTransport,
    peer: Option<(PeerId, SocketAddr)>,
    trace: Option<TraceConfig>,
) -> Result<NodeHandle> {
    let mut node = Node::builder(Arc::new(store), transport).peers(peer);
    if let Some(trace) = trace {
        node = node.trace(trace);
    }
    Ok(node.spawn().await?)
}
