//! What traces cost: how fast one is replayed, how large it is, and how much processor time recording takes beside a sync.
#![forbid(unsafe_code)]

mod cost;
mod replay;
#[path = "../tip/usage.rs"]
mod usage;

use anyhow::Result;
use clap::{Parser, value_parser};
use soma_sync_runtime_tokio::record::Keep;
use soma_sync_sim::chain::{ChainMaker, ChainSpec, MadeCommit};

/// What traces cost: replaying, size, recording.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "trace",
    max_term_width = 100,
    after_help = "\
Replaying is told of a simulated node that syncs the chain: in large requests, as by default, and in small ones, which is
what following the tip looks like. Recording is measured in pairs, one sync without and one with a thin trace of both nodes,
one right after the other, over real QUIC with durable stores; processor time is that of the whole process.

Examples:
  cargo run --release -p soma-sync-benches --bin trace
  cargo run --release -p soma-sync-benches --bin trace -- --pairs 20 --commits 5000"
)]
struct Arguments {
    /// Commits in the chain, at most 100,000.
    #[arg(long, value_name = "N", default_value_t = 2_000, value_parser = value_parser!(u32).range(1..=100_000))]
    commits: u32,
    /// Blocks in every commit, at most 1,000.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = value_parser!(u32).range(1..=1_000))]
    blocks_per_commit: u32,
    /// Bytes of transactions in every block, at most 64 KiB.
    #[arg(long, value_name = "BYTES", default_value_t = 512, value_parser = value_parser!(u32).range(0..=65_536))]
    payload_bytes: u32,
    /// Pairs of syncs; none leaves recording out.
    #[arg(long, value_name = "N", default_value_t = 5)]
    pairs: u32,
    /// Record payloads' bytes, too.
    #[arg(long)]
    full: bool,
    /// Keep the last so many bytes in memory, with states of the machine, instead of writing everything.
    #[arg(long, value_name = "BYTES")]
    last: Option<usize>,
}

/// The chain that is synced.
struct Chain {
    maker: ChainMaker,
    commits: Vec<MadeCommit>,
}

fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let mut maker = ChainMaker::new(ChainSpec {
        commits: arguments.commits,
        blocks_per_commit: arguments.blocks_per_commit,
        payload_bytes: arguments.payload_bytes,
        committee: 4,
        epochs: 1,
        seed: 1,
    })?;
    let commits = maker.by_ref().take(arguments.commits as usize).collect();
    let chain = Chain { maker, commits };
    replay::measure(&chain)?;
    if arguments.pairs > 0 {
        let keep = arguments.last.map_or(Keep::All, |bytes| Keep::Last { bytes });
        cost::measure(&chain, arguments.pairs, arguments.full, keep)?;
    }
    Ok(())
}
