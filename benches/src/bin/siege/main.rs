//! A server under siege, measured: what an honest client gets of it beside hostile ones, and what it costs in memory.
//!
//! Three processes on one machine, real QUIC on loopback: the server, with its chain in a durable store; all hostile
//! peers; and this one, in which an honest client that has nothing gets the chain from the server, again and again.
#![forbid(unsafe_code)]

mod child;
mod honest;
mod hostile;
mod report;
mod server;

use anyhow::{Context, Result};
use clap::{Parser, ValueEnum, value_parser};
use honest::Places;
use report::Measured;
use soma_sync_sim::chain::ChainSpec;
use std::{
    io::Write,
    net::SocketAddr,
    process::ExitCode,
    thread::sleep,
    time::{Duration, Instant},
};

/// What an honest client gets of a server beside hostile ones, and what it costs in memory.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "siege",
    max_term_width = 100,
    after_help = "\
The rate is that of an honest client that has nothing, from the dial to the server's certifiable tip, in blocks a second:
the median of the runs alone, and of the runs under siege. Every client is a new one. Memory is the server's resident set.
Hostile peers take turns in what they do: they ask for dear answers and read them; ask and never read; push; send half of
a request on each stream, or a byte now and then; send what is no request; connect again and again.

Examples:
  cargo run --release -p soma-sync-benches --bin siege
  cargo run --release -p soma-sync-benches --bin siege -- --connections 1000 --seconds 60"
)]
struct Arguments {
    /// Hostile connections, at most 10,000.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = value_parser!(u32).range(0..=10_000))]
    connections: u32,
    /// How often a hostile peer asks in a second, as a multiple of what the server admits of one peer.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = value_parser!(u32).range(1..=1_000))]
    times: u32,
    /// Requests for commits and blocks that the server admits of one peer in a second.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = value_parser!(u32).range(1..=8_000))]
    requests: u32,
    /// MiB that the server sends one peer in a second.
    #[arg(long, value_name = "MIB", default_value_t = 16, value_parser = value_parser!(u32).range(1..=1_024))]
    served_mib: u32,
    /// For how long at least.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = value_parser!(u32).range(1..=3_600))]
    seconds: u32,
    /// Commits of the chain.
    #[arg(long, value_name = "N", default_value_t = 200)]
    commits: u32,
    /// Blocks in every commit.
    #[arg(long, value_name = "N", default_value_t = 40)]
    blocks_per_commit: u32,
    /// Bytes of transactions in every block.
    #[arg(long, value_name = "BYTES", default_value_t = 4096)]
    payload_bytes: u32,
    /// What the process is, of those that this one starts.
    #[arg(long, hide = true, value_enum, default_value_t = Role::Besieged)]
    role: Role,
    /// Where the server is, for a process that this one starts.
    #[arg(long, hide = true)]
    at: Option<SocketAddr>,
}

/// What a process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Role {
    /// Starts the others, and measures.
    Besieged,
    /// The server.
    Server,
    /// The hostile peers.
    Hostile,
}

impl Arguments {
    const fn spec(&self) -> ChainSpec {
        ChainSpec {
            commits: self.commits,
            blocks_per_commit: self.blocks_per_commit,
            payload_bytes: self.payload_bytes,
            committee: 4,
            epochs: 1,
            seed: 0,
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.role {
        Role::Besieged => run(&arguments),
        Role::Server => server::run(&arguments),
        Role::Hostile => hostile::run(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// How often an honest client gets the chain, alone and at least under siege.
const RUNS: usize = 5;
/// How long memory and tasks may take to come back.
const COMING_BACK: Duration = Duration::from_secs(30);

fn run(arguments: &Arguments) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.context("cannot start the runtime")?;
    let (mut server, at) = server::start()?;
    let places = Places::new(arguments, at)?;
    let mut clients = 0;
    let mut rate = || {
        clients += 1;
        runtime.block_on(honest::blocks_per_second(&places, clients))
    };
    // The first warms up.
    rate()?;
    let mut measured = Measured::default();
    let mut before = server.ask()?;
    for _ in 0..RUNS {
        measured.alone.push(rate()?);
        before = server.ask()?;
    }
    measured.before = before;
    let mut hostile = hostile::start(at)?;
    let began = Instant::now();
    while measured.besieged.len() < RUNS || began.elapsed() < Duration::from_secs(arguments.seconds.into()) {
        measured.besieged.push(rate()?);
        measured.saw(server.ask()?);
    }
    measured.hostile = hostile.ask()?;
    hostile.stop()?;
    let began = Instant::now();
    measured.after = server.ask()?;
    while !measured.is_back() && began.elapsed() < COMING_BACK {
        sleep(Duration::from_millis(200));
        measured.after = server.ask()?;
    }
    server.stop()?;
    writeln!(std::io::stdout(), "{}", measured.text(arguments)).context("cannot write to stdout")
}
