//! `chain prune`.

use super::{Output, StoreDirectory};
use crate::output::print_result;
use anyhow::Result;
use clap::Args;
use soma_sync_core::types::CommitIndex;
use soma_sync_runtime_tokio::store::{RedbStore, Store};

/// Arguments of `chain prune`.
#[derive(Debug, Args)]
#[command(after_help = "\
The last commit always stays, and so do the certifiers of what remains. The file does not shrink: room in it is used
again. A pruned store can neither be exported nor verified from genesis, and peers get nothing below INDEX from it.

Example:
  soma-sync chain prune --store ./data --below 100000")]
pub(crate) struct Arguments {
    #[command(flatten)]
    store: StoreDirectory,
    /// Commits below this one are given up.
    #[arg(long, value_name = "INDEX")]
    below: u32,
    #[command(flatten)]
    output: Output,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let store = RedbStore::open(&arguments.store.path, None)?;
    let before = store.start()?.lowest_available;
    store.prune(CommitIndex::new(arguments.below))?;
    let start = store.start()?;
    let (lowest, tip) = (start.lowest_available, start.tip.reference.index);
    let object = serde_json::json!({
        "lowest_available_before": before.get(), "lowest_available": lowest.get(), "tip": tip.get(),
    });
    let text = format!("{}: commits {lowest} to {tip} remain", store.path().display());
    print_result(arguments.output.json, &object, &text)
}
