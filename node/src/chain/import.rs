//! `chain import`.

use super::{Output, StoreDirectory, check, progress};
use crate::{
    interrupt::Interrupt,
    output::{about, commit_json, print_result},
};
use anyhow::{Result, bail};
use clap::Args;
use soma_sync_core::{
    command::{Batch, BatchId},
    job::EpochEnd,
    types::{CommitIndex, CommitRef},
};
use soma_sync_proto::chain_check::CheckedRecord;
use soma_sync_runtime_tokio::store::{RedbStore, Store};
use std::{path::PathBuf, sync::Arc};

/// A batch is stored once its blocks have this many bytes.
const BATCH_BYTES: usize = 8 * 1024 * 1024;

/// Arguments of `chain import`.
#[derive(Debug, Args)]
#[command(after_help = "\
A store that holds the beginning of the same chain is continued, so an interrupted import can be repeated.
Of a file that is refused, what was certified before the first fault stays stored.

Example:
  soma-sync chain import chain.bin --store ./data")]
pub(crate) struct Arguments {
    /// The chain file.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    #[command(flatten)]
    store: StoreDirectory,
    #[command(flatten)]
    output: Output,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let interrupt = Interrupt::install()?;
    let mut checker = check::open_file(&arguments.file)?;
    let refused = |error| about(format_args!("{} is refused", arguments.file.display()), error);
    // Nothing is made on disk for a file whose first commits are not good.
    let mut next = checker.next_record().map_err(refused)?;
    let store = RedbStore::open(&arguments.store.path, Some(checker.genesis()))?;
    let mut import = Import::new(&store)?;
    let bar = progress::commits("importing", checker.commits());
    while let Some(record) = next {
        if let Err(interrupted) = interrupt.check() {
            import.flush()?;
            return Err(interrupted);
        }
        import.take(record)?;
        bar.inc(1);
        next = match checker.next_record() {
            Ok(next) => next,
            Err(error) => {
                import.flush()?;
                return Err(refused(error));
            }
        };
    }
    import.flush()?;
    bar.finish_and_clear();
    let object = serde_json::json!({
        "commits": import.commits,
        "blocks": import.blocks,
        "already_stored": import.already_stored,
        "tip": commit_json(&import.tip),
    });
    let text = format!(
        "{}: {} commits and {} blocks stored, {} commits were there; tip {} {}",
        store.path().display(),
        import.commits,
        import.blocks,
        import.already_stored,
        import.tip.index,
        import.tip.digest
    );
    print_result(arguments.output.json, &object, &text)
}

/// Verified commits on their way into a store.
struct Import<'a> {
    store: &'a RedbStore,
    /// The last commit that is stored or waits in the batch.
    tip: CommitRef,
    batch: Batch,
    batch_bytes: usize,
    commits: u64,
    blocks: u64,
    already_stored: u64,
}

impl<'a> Import<'a> {
    fn new(store: &'a RedbStore) -> Result<Self> {
        let tip = store.start()?.tip.reference;
        let batch =
            Batch { id: BatchId::new(0), blocks: Vec::new(), commits: Vec::new(), committees: Vec::new() };
        Ok(Self { store, tip, batch, batch_bytes: 0, commits: 0, blocks: 0, already_stored: 0 })
    }

    /// Takes the file's next commit.
    fn take(&mut self, record: CheckedRecord) -> Result<()> {
        if record.commit.reference.index <= self.tip.index {
            return self.compare(record);
        }
        self.tip = record.commit.reference;
        self.commits += 1;
        self.blocks += record.blocks.len() as u64;
        let blocks = record.blocks.iter().chain(&record.certifiers);
        self.batch_bytes += blocks.map(|block| block.payload.len()).sum::<usize>();
        self.batch.blocks.extend(record.blocks);
        self.batch.blocks.extend(record.certifiers);
        self.batch.commits.push(record.commit);
        if let Some(EpochEnd::Next(committee)) = record.epoch_end {
            self.batch.committees.push(Arc::clone(&committee));
        }
        if self.batch_bytes >= BATCH_BYTES { self.flush() } else { Ok(()) }
    }

    /// A commit that the store has already: it must be the same one. Votes that the store lacks are taken.
    fn compare(&mut self, record: CheckedRecord) -> Result<()> {
        let commit = record.commit.reference;
        self.already_stored += 1;
        let stored = self.store.head(commit.index)?.map(|head| head.reference);
        if let Some(stored) = stored.filter(|stored| *stored != commit) {
            bail!(
                "the store holds a fork: its commit {} is {}, the file's is {}",
                commit.index,
                stored.digest,
                commit.digest
            );
        }
        if stored.is_some() && !record.certifiers.is_empty() && self.store.certificate(&commit)?.is_none() {
            self.batch.blocks.extend(record.certifiers);
            self.flush()?;
        }
        Ok(())
    }

    /// Stores what waits.
    fn flush(&mut self) -> Result<()> {
        if self.batch.blocks.is_empty() {
            return Ok(());
        }
        let through = self.batch.commits.last().map_or(CommitIndex::GENESIS, |commit| commit.reference.index);
        self.store
            .apply(&self.batch)
            .map_err(|error| about(format_args!("cannot store the commits up to {through}"), error))?;
        self.batch.blocks.clear();
        self.batch.commits.clear();
        self.batch.committees.clear();
        self.batch.id = BatchId::new(self.batch.id.get() + 1);
        self.batch_bytes = 0;
        Ok(())
    }
}
