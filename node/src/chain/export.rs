//! `chain export`.

use super::{Output, StoreDirectory, progress};
use crate::{
    interrupt::Interrupt,
    output::{NewChainFile, about, commit_json, print_result},
};
use anyhow::{Context, Result, bail};
use clap::Args;
use soma_sync_core::{
    committee::Committee,
    payload::Payload,
    types::{CommitIndex, CommitRef, Epoch},
};
use soma_sync_proto::chain_file::ChainWriter;
use soma_sync_runtime_tokio::store::{CommitHead, RedbOptions, RedbStore, Store};
use std::{io::Write, path::PathBuf, sync::Arc};

/// Arguments of `chain export`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  soma-sync chain export --store ./data --out chain.bin --to 1000")]
pub(crate) struct Arguments {
    #[command(flatten)]
    store: StoreDirectory,
    /// The file to write. It appears once it is whole, and replaces a chain file that stands there.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// The last commit to write, which must be certifiable; the highest one that is, if not given. 0 writes a genesis
    /// file.
    #[arg(long, value_name = "INDEX")]
    to: Option<u32>,
    #[command(flatten)]
    output: Output,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let interrupt = Interrupt::install()?;
    let store = RedbStore::open_read_only(&arguments.store.path, RedbOptions::default())?;
    let last = last_commit(&store, arguments.to.map(CommitIndex::new))?;
    let bar = progress::commits("exporting", last.index.get());
    let mut blocks = 0;
    let file = write(&store, last.index, NewChainFile::create(&arguments.out)?, |named| {
        blocks += named as u64;
        bar.inc(1);
        interrupt.check()
    });
    let bytes = file
        .map_err(|error| about(format_args!("cannot write {}", arguments.out.display()), error))?
        .finish()?;
    bar.finish_and_clear();
    let commits = last.index.get();
    let object = serde_json::json!({
        "commits": commits, "blocks": blocks, "bytes": bytes, "tip": commit_json(&last),
    });
    let out = arguments.out.display();
    let text = format!(
        "{out}: {commits} commits, {blocks} blocks, {bytes} bytes, tip {} {}",
        last.index, last.digest
    );
    print_result(arguments.output.json, &object, &text)
}

/// The commit to end with: the one asked for, or the highest certifiable one.
fn last_commit(store: &RedbStore, to: Option<CommitIndex>) -> Result<CommitRef> {
    let start = store.start()?;
    if start.lowest_available > CommitIndex::new(1) {
        bail!(
            "the store gave up the commits below {}, and a chain file begins with the first",
            start.lowest_available
        );
    }
    let Some(to) = to else { return Ok(start.certifiable) };
    let mut index = to.min(start.tip.reference.index);
    let certifiable = loop {
        if index == CommitIndex::GENESIS {
            break CommitRef::GENESIS;
        }
        let head = head(store, index)?;
        if store.certificate(&head.reference)?.is_some() {
            break head.reference;
        }
        index = index.saturating_sub(1);
    };
    if certifiable.index != to {
        bail!("commit {to} is not certifiable; the nearest lower one that is: {}", certifiable.index);
    }
    Ok(certifiable)
}

/// Writes the chain up to `last` as a chain file, and gives the output back, flushed. `each` is told for every commit
/// how many blocks it has, and ends the work by an error.
///
/// Certifiers stand only with the last commit of each epoch and with `last`, so that equal stores give equal bytes.
pub(super) fn write<W: Write>(
    store: &RedbStore,
    last: CommitIndex,
    output: W,
    mut each: impl FnMut(usize) -> Result<()>,
) -> Result<W> {
    let mut writer = ChainWriter::new(output, genesis(store)?.encoding(), last.get())?;
    for index in (1..=last.get()).map(CommitIndex::new) {
        let head = head(store, index)?;
        let commit = store.commit(index)?.with_context(|| format!("commit {index} is not in the store"))?;
        each(commit.blocks.len())?;
        let blocks = commit.blocks.iter().map(|block| {
            let payload = store.block(block)?;
            payload.with_context(|| format!("{block} of commit {index} is not in the store"))
        });
        let blocks = blocks.collect::<Result<Vec<_>>>()?;
        let certifiers =
            if head.ends_epoch || index == last { certifiers(store, &commit.reference)? } else { Vec::new() };
        writer.write(commit.payload.bytes(), &encodings(&blocks), &encodings(&certifiers))?;
    }
    Ok(writer.finish()?)
}

/// The committee of the first epoch.
fn genesis(store: &RedbStore) -> Result<Arc<Committee>> {
    store.committee(Epoch::ZERO)?.context("the genesis committee is not in the store")
}

fn head(store: &RedbStore, index: CommitIndex) -> Result<CommitHead> {
    store.head(index)?.with_context(|| format!("commit {index} is not in the store"))
}

fn certifiers(store: &RedbStore, commit: &CommitRef) -> Result<Vec<Payload>> {
    store.certifiers(commit)?.with_context(|| format!("the store holds no quorum of votes for {commit}"))
}

fn encodings(payloads: &[Payload]) -> Vec<&[u8]> {
    payloads.iter().map(|payload| &**payload.bytes()).collect()
}
