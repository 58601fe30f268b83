//! `chain generate`.

use super::{Output, progress};
use crate::{
    cli,
    interrupt::Interrupt,
    output::{NewChainFile, about, commit_json, print_result},
    shape::Shape,
};
use anyhow::Result;
use clap::Args;
use soma_sync_core::types::CommitRef;
use soma_sync_sim::chain::{ChainSpec, write_chain_file};
use std::path::PathBuf;

/// Arguments of `chain generate`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  soma-sync chain generate --out chain.bin --commits 2000 --payload-bytes 4KiB --seed 7"
)]
pub(crate) struct Arguments {
    /// The file to write. It appears once it is whole, and replaces a chain file that stands there.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Commits in all; 0 makes a genesis file.
    #[arg(long, value_name = "N", default_value_t = 2_000)]
    commits: u32,
    #[command(flatten)]
    shape: Shape,
    /// Epochs that the commits are spread over, at most as many as commits.
    #[arg(long, value_name = "N", default_value_t = 1)]
    epochs: u32,
    /// What everything is drawn from.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    #[command(flatten)]
    output: Output,
}

impl Arguments {
    const fn spec(&self) -> ChainSpec {
        self.shape.spec(self.commits, self.epochs, self.seed)
    }
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let spec = arguments.spec();
    if let Err(error) = spec.validate() {
        cli::wrong_usage(error);
    }
    let interrupt = Interrupt::install()?;
    let bar = progress::commits("making", spec.commits);
    let mut tip = CommitRef::GENESIS;
    let file = write_chain_file::<_, anyhow::Error>(spec, NewChainFile::create(&arguments.out)?, |made| {
        tip = made.header.reference;
        bar.inc(1);
        interrupt.check()
    });
    let bytes = file
        .map_err(|error| about(format_args!("cannot write {}", arguments.out.display()), error))?
        .finish()?;
    bar.finish_and_clear();
    let blocks = u64::from(spec.commits) * u64::from(spec.blocks_per_commit);
    let object = serde_json::json!({ "commits": spec.commits, "blocks": blocks, "bytes": bytes, "tip": commit_json(&tip) });
    let text = format!(
        "{}: {} commits, {blocks} blocks, {bytes} bytes, tip {} {}",
        arguments.out.display(),
        spec.commits,
        tip.index,
        tip.digest
    );
    print_result(arguments.output.json, &object, &text)
}
