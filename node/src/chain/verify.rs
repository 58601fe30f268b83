//! `chain verify`.

use super::{Output, check, export, progress};
use crate::{
    interrupt::Interrupt,
    output::{about, commit_json, print_result},
};
use anyhow::{Result, bail};
use clap::Args;
use soma_sync_core::types::{ChainId, CommitIndex, CommitRef};
use soma_sync_proto::chain_check::ChainChecker;
use soma_sync_runtime_tokio::store::{RedbOptions, RedbStore, Store};
use std::{
    error::Error,
    io::{self, PipeReader, PipeWriter, Read},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    thread,
};

/// Arguments of `chain verify`.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit code 0 means that everything is good: every commit is linked to genesis and certified by a quorum of its epoch's
committee, and every block matches its commit and passes full verification. The tip is the last good commit.
A file's genesis can only be taken at its word: compare the chain's identity with the one that you expect.
Commits of a store for which it holds no quorum of votes yet are not looked at.

Examples:
  soma-sync chain verify chain.bin
  soma-sync chain verify --store ./data --json")]
pub(crate) struct Arguments {
    /// The chain file.
    #[arg(value_name = "FILE", required_unless_present = "store", conflicts_with = "store")]
    file: Option<PathBuf>,
    /// The store's directory.
    #[arg(long, value_name = "DIR")]
    store: Option<PathBuf>,
    #[command(flatten)]
    output: Output,
}

/// What was found good so far.
#[derive(Debug)]
pub(crate) struct Good {
    /// The chain, once its genesis was read.
    chain_id: Option<ChainId>,
    commits: u64,
    blocks: u64,
    /// The last commit, with everything before it.
    pub(crate) tip: CommitRef,
}

impl Good {
    /// Nothing yet.
    pub(crate) const NOTHING: Self = Self { chain_id: None, commits: 0, blocks: 0, tip: CommitRef::GENESIS };
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let interrupt = Interrupt::install()?;
    let mut good = Good::NOTHING;
    let verified = match (&arguments.file, &arguments.store) {
        (Some(file), _) => verify_file(file, &interrupt, &mut good),
        (None, Some(store)) => verify_store(store, &interrupt, &mut good),
        (None, None) => crate::cli::wrong_usage("give a chain file or --store"),
    };
    let object = serde_json::json!({
        "ok": verified.is_ok(),
        "chain_id": good.chain_id.map(|chain_id| chain_id.to_string()),
        "commits": good.commits,
        "blocks": good.blocks,
        "tip": commit_json(&good.tip),
        "first_error": verified.as_ref().err().map(ToString::to_string),
    });
    let what = if verified.is_ok() { "all good" } else { "good up to the first error" };
    let Good { chain_id, commits, blocks, tip } = good;
    let chain = chain_id.map_or_else(String::new, |chain_id| format!("chain {chain_id}, "));
    let text = format!("{what}: {chain}{commits} commits, {blocks} blocks, tip {} {}", tip.index, tip.digest);
    print_result(arguments.output.json, &object, &text)?;
    verified
}

fn verify_file(file: &Path, interrupt: &Interrupt, good: &mut Good) -> Result<()> {
    let checker = check::open_file(file)?;
    verify(checker, interrupt, good)
        .map_err(|error| about(format_args!("{} is not good", file.display()), error))
}

fn verify<R: Read>(mut checker: ChainChecker<R>, interrupt: &Interrupt, good: &mut Good) -> Result<()> {
    good.chain_id = Some(checker.genesis().chain_id());
    let bar = progress::commits("verifying", checker.commits());
    while let Some(record) = checker.next_record()? {
        interrupt.check()?;
        good.commits += 1;
        good.blocks += record.blocks.len() as u64;
        good.tip = record.commit.reference;
        bar.inc(1);
    }
    bar.finish_and_clear();
    Ok(())
}

/// Verifies what an export of the store would write, as a chain file is verified.
///
/// The checker reads a chain at two places, so the store is exported twice at once, each time into a pipe.
pub(crate) fn verify_store(directory: &Path, interrupt: &Interrupt, good: &mut Good) -> Result<()> {
    let store = RedbStore::open_read_only(directory, RedbOptions::default())?;
    let start = store.start()?;
    if start.lowest_available > CommitIndex::new(1) {
        bail!("the store gave up the commits below {}: nothing ties it to genesis", start.lowest_available);
    }
    let exports = Exports { store: &store, last: start.certifiable.index, fault: Mutex::new(None) };
    let verified = thread::scope(|scope| {
        let open = || {
            let (reader, writer) = io::pipe()?;
            scope.spawn(|| exports.write(writer));
            Ok(reader)
        };
        check::open(open).and_then(|checker: ChainChecker<PipeReader>| verify(checker, interrupt, good))
    });
    let fault = exports.fault.into_inner().unwrap_or_else(PoisonError::into_inner);
    // What broke an export is why the chain seemed to end too early.
    let verified = fault.map_or(verified, Err);
    verified.map_err(|error| about(format_args!("{} is not good", store.path().display()), error))
}

/// Exports of one store.
struct Exports<'a> {
    store: &'a RedbStore,
    last: CommitIndex,
    /// What the store could not give.
    fault: Mutex<Option<anyhow::Error>>,
}

impl Exports<'_> {
    fn write(&self, pipe: PipeWriter) {
        let Err(error) = export::write(self.store, self.last, pipe, |_| Ok(())) else { return };
        // A closed pipe only says that the checker has seen enough.
        if !error.chain().any(<dyn Error>::is::<io::Error>) {
            let mut fault = self.fault.lock().unwrap_or_else(PoisonError::into_inner);
            fault.get_or_insert(error);
        }
    }
}
