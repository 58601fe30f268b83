//! `chain inspect`: a readable view, of which nothing is verified.

mod commit;
mod summary;

use super::Output;
use crate::{
    cli::wrong_usage,
    output::{about, print_result},
};
use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::Value;
use soma_sync_core::{
    committee::Committee,
    config::Limits,
    job::CommitHeader,
    payload::Payload,
    types::{BlockRef, CommitIndex},
};
use soma_sync_proto::chain_file::{ChainReader, ChainRecord};
use soma_sync_runtime_tokio::store::{RedbOptions, RedbStore, Store};
use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Arguments of `chain inspect`.
#[derive(Debug, Args)]
#[command(
    override_usage = "soma-sync chain inspect [OPTIONS] (--store DIR | FILE) [INDEX]",
    after_help = "\
Nothing is verified but what a store checks by itself when it is read: `chain verify` does that.

Examples:
  soma-sync chain inspect chain.bin
  soma-sync chain inspect chain.bin 42
  soma-sync chain inspect --store ./data 42 --json"
)]
pub(crate) struct Arguments {
    /// The chain file, where there is no --store; then the commit to show. Without one, the whole chain is summed up.
    #[arg(value_name = "FILE|INDEX", num_args = 0..=2)]
    words: Vec<PathBuf>,
    /// The store's directory.
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

/// A commit with what belongs to it.
struct Shown {
    header: CommitHeader,
    blocks: Vec<Payload>,
    /// Blocks that certify it. None where a later commit's certify it too, or none were seen yet.
    certifiers: Vec<(BlockRef, Payload)>,
    committee: Option<Arc<Committee>>,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let (text, object) = match (&arguments.store, &*arguments.words) {
        (Some(store), []) => summary::of_store(&open_store(store)?)?,
        (Some(store), [index]) => show(&in_store(&open_store(store)?, parse_index(index))?)?,
        (None, [file]) => summary::of_file(file)?,
        (None, [file, index]) => show(&in_file(file, parse_index(index))?)?,
        (None, []) => wrong_usage("give a chain file or --store"),
        (_, [_, _, ..]) => wrong_usage("give a chain file or --store, and one index"),
    };
    print_result(arguments.output.json, &object, text.trim_end())
}

fn show(shown: &Shown) -> Result<(String, Value)> {
    commit::show(shown)
}

fn open_store(directory: &Path) -> Result<RedbStore> {
    Ok(RedbStore::open_read_only(directory, RedbOptions::default())?)
}

fn open_file(path: &Path) -> Result<ChainReader<File>> {
    let file =
        File::open(path).map_err(|error| about(format_args!("cannot open {}", path.display()), error))?;
    ChainReader::open(file, Limits::default()).map_err(|error| refused(path, error))
}

fn refused(path: &Path, error: impl Into<anyhow::Error>) -> anyhow::Error {
    about(format_args!("{} cannot be read", path.display()), error)
}

fn parse_index(word: &Path) -> CommitIndex {
    let index = word.to_str().and_then(|word| word.parse().ok());
    match index {
        Some(index) => CommitIndex::new(index),
        None => wrong_usage(format_args!("{:?} is no index of a commit", word.display().to_string())),
    }
}

fn in_store(store: &RedbStore, index: CommitIndex) -> Result<Shown> {
    let Some(stored) = store.commit(index)? else {
        let start = store.start()?;
        let lowest = start.lowest_available.max(CommitIndex::new(1));
        bail!("commit {index} is not in the store, which has {lowest} to {}", start.tip.reference.index);
    };
    let header = CommitHeader::decode(stored.payload, &Limits::default())
        .with_context(|| format!("commit {index} cannot be decoded"))?;
    let block = |reference: &BlockRef| {
        store.block(reference)?.with_context(|| format!("{reference} is not in the store"))
    };
    let certificate = store.certificate(&stored.reference)?.unwrap_or_default();
    Ok(Shown {
        blocks: stored.blocks.iter().map(block).collect::<Result<_>>()?,
        certifiers: certificate
            .iter()
            .map(|certifier| Ok((certifier.block, block(&certifier.block)?)))
            .collect::<Result<_>>()?,
        committee: store.committee(stored.epoch)?,
        header,
    })
}

fn in_file(path: &Path, index: CommitIndex) -> Result<Shown> {
    let mut reader = open_file(path)?;
    let commits = reader.commits();
    if index == CommitIndex::GENESIS || index.get() > commits {
        bail!("commit {index} is not in {}, which has 1 to {commits}", path.display());
    }
    let mut committees = summary::Committees::of_genesis(reader.genesis())?;
    while let Some(record) = reader.next_record().map_err(|error| refused(path, error))? {
        let header = header(path, &record)?;
        committees.enter(header.epoch)?;
        if record.number == index.get() {
            let certifiers = record.certifiers.into_iter().map(|payload| {
                let reference = commit::decode(&payload)?.reference();
                Ok((reference, payload))
            });
            let certifiers = certifiers.collect::<Result<_>>()?;
            let committee = committees.last().cloned();
            return Ok(Shown { header, blocks: record.blocks, certifiers, committee });
        }
        committees.look_at(&record)?;
    }
    bail!("{} ends before commit {index}", path.display())
}

fn header(path: &Path, record: &ChainRecord) -> Result<CommitHeader> {
    CommitHeader::decode(record.commit.clone(), &Limits::default()).with_context(|| {
        format!("{}: commit {} at byte {} cannot be decoded", path.display(), record.number, record.offset)
    })
}
