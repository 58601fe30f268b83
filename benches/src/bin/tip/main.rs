//! The tip, measured: how long after a validator can certify a commit its followers have handed it on.
//!
//! One process, real QUIC on loopback, a durable store for every node. The chain is made before the clock starts; then
//! the validator is told a commit and the votes for it at a fixed rate, as its own consensus would. A commit's time is
//! counted from when the validator could certify it to when a subscriber of the follower has it, durable there.
#![forbid(unsafe_code)]

mod chain;
mod measure;
mod network;
mod report;
mod round_trip;
mod usage;

use anyhow::{Context, Result, ensure};
use clap::{CommandFactory, Parser, ValueEnum, error::ErrorKind, value_parser};
use soma_sync_core::{Config, config::BlockVerification};
use soma_sync_sim::chain::ChainSpec;
use std::{io::Write, process::ExitCode};

/// Most bytes of transactions in the whole chain, which is in memory before the clock starts.
const CHAIN_BYTES_MAX: u64 = 2 * 1024 * 1024 * 1024;

/// How long after a validator can certify a commit its followers have handed it on.
#[derive(Clone, Debug, Parser)]
#[command(
    name = "tip",
    max_term_width = 100,
    after_help = "\
Times are in milliseconds, from the last look at the validator that did not show the commit as certifiable to its delivery
to a subscriber of the follower. It is looked at every millisecond or two while a commit is on its way, so that times are
too long by no more than that. The lag is the validator's certifiable tip less the follower's, each time that the
validator's rises: 1 is a follower that has all but the newest. Certifying is the validator's own part, from being told a
commit to the first look that shows it as certifiable. The round trip is that of a few bytes on a QUIC stream of their own,
beside all the rest. Processor time is that of the whole process, from the first commit on.
The exit code is 0 only if every follower ended at the validator's certifiable tip.

Examples:
  cargo run --release -p soma-sync-benches --bin tip
  cargo run --release -p soma-sync-benches --bin tip -- --followers 8 --seconds 30 --json"
)]
struct Arguments {
    /// Nodes that follow the validator, each from it alone; at most 32.
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = value_parser!(u8).range(1..=32))]
    followers: u8,
    /// How many commits the validator is told in a second, at most 1,000.
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = value_parser!(u32).range(1..=1_000))]
    commits_per_second: u32,
    /// For how long, at most an hour.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = value_parser!(u32).range(1..=3_600))]
    seconds: u32,
    /// Blocks in every commit, at most 10,000.
    #[arg(long, value_name = "N", default_value_t = 40)]
    blocks_per_commit: u32,
    /// Bytes of transactions in every block, at most 3 MiB, and 2 GiB in the whole chain.
    #[arg(long, value_name = "BYTES", default_value_t = 1024)]
    payload_bytes: u32,
    /// Authorities in the committee, at most 1,000.
    #[arg(long, value_name = "N", default_value_t = 20)]
    committee: u32,
    /// How much followers check of a block beyond its digest.
    #[arg(long, value_enum, default_value_t = Verification::Full)]
    verification: Verification,
    /// What the chain is drawn from.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Print the result as one JSON object, in one line.
    #[arg(long)]
    json: bool,
}

/// How blocks are verified, as it is typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Verification {
    /// Signature, author, epoch, ancestors and end-of-epoch fields, beside the digest.
    Full,
    /// The digest, which a quorum's certificate ties to the chain.
    Digest,
}

impl Arguments {
    const fn spec(&self) -> ChainSpec {
        ChainSpec {
            commits: self.commits_per_second.saturating_mul(self.seconds),
            blocks_per_commit: self.blocks_per_commit,
            payload_bytes: self.payload_bytes,
            committee: self.committee,
            epochs: 1,
            seed: self.seed,
        }
    }

    fn validate(&self) -> Result<()> {
        let spec = self.spec();
        spec.validate()?;
        let blocks = u64::from(spec.commits) * u64::from(spec.blocks_per_commit);
        let bytes = blocks.saturating_mul(spec.payload_bytes.into());
        ensure!(bytes <= CHAIN_BYTES_MAX, "the chain has at most 2 GiB of transactions, not {bytes} bytes");
        Ok(())
    }

    fn config(&self) -> Config {
        let block_verification = match self.verification {
            Verification::Full => BlockVerification::Full,
            Verification::Digest => BlockVerification::Digest,
        };
        Config { block_verification, ..Config::default() }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Err(error) = arguments.validate() {
        Arguments::command().error(ErrorKind::ValueValidation, error).exit();
    }
    match run(&arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether every follower ended at the validator's tip.
fn run(arguments: &Arguments) -> Result<bool> {
    let chain = chain::prepare(arguments.spec())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.context("cannot start the runtime")?;
    let measured = runtime.block_on(measure::measure(arguments, chain))?;
    let text = if arguments.json {
        report::json(arguments, &measured).to_string()
    } else {
        report::text(arguments, &measured)
    };
    writeln!(std::io::stdout(), "{text}").context("cannot write to stdout")?;
    Ok(measured.is_level())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_declared_with_contradictions_or_their_defaults_are_refused() {
        Arguments::command().debug_assert();
        Arguments::parse_from(["tip"]).validate().expect("the defaults are good");
    }

    #[test]
    fn a_chain_that_does_not_fit_into_memory_is_made() {
        let large = ["tip", "--seconds", "3600", "--payload-bytes", "100000"];
        assert!(Arguments::parse_from(large).validate().is_err());
    }
}
