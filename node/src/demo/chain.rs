//! The chain that the demo syncs: what there is at first, put into the servers' stores, and what is made while they run.

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use soma_sync_core::{
    command::{Batch, BatchId},
    config::Limits,
    job::{CheckedBlock, CommitHeader, Job, ObserveJob, ObserveVerdict, Verdict, VotesJob},
    payload::Payload,
    types::{CommitIndex, CommitRef},
    verified::Verified,
};
use soma_sync_runtime_tokio::store::{RedbStore, Store, StoreError};
use soma_sync_sim::chain::{ChainMaker, MadeCommit};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// A batch is stored once its blocks have this many bytes.
const BATCH_BYTES: usize = 8 * 1024 * 1024;
/// One commit is made in this time while the servers run, or fewer where that were more bytes than these in a second: a
/// node that catches up must be faster than its chain.
const LIVE_INTERVAL: Duration = Duration::from_millis(50);
const LIVE_BYTES_PER_S: f64 = 4e6;
/// Commits that wait until every server has them, at most; so many bytes of them at most, or one commit.
const WAITING_MAX: usize = 64;
const WAITING_BYTES_MAX: usize = 64 * 1024 * 1024;

/// Puts the maker's next `commits` commits into every store, as what their own consensus made. `each` is told after
/// each commit, and ends the work by an error. Gives the last one.
pub(super) fn fill(
    stores: &[Arc<RedbStore>],
    maker: &mut ChainMaker,
    commits: u32,
    mut each: impl FnMut() -> Result<()>,
) -> Result<CommitRef> {
    let mut tip = CommitRef::GENESIS;
    let mut batch = empty_batch(0);
    let mut bytes = 0;
    for made in maker.take(commits as usize) {
        each()?;
        tip = made.header.reference;
        // As in a chain file: blocks in later commits certify what is in between.
        let is_last = made.next_committee.is_some() || tip.index.get() == commits;
        let certifiers = if is_last { &*made.certifiers } else { &[] };
        let (commit, blocks) = observe(&made)?;
        batch.blocks.extend(blocks);
        batch.blocks.extend(votes(certifiers)?);
        batch.commits.push(commit);
        batch.committees.extend(made.next_committee);
        bytes += made.blocks.iter().map(|block| block.payload.len()).sum::<usize>();
        if bytes >= BATCH_BYTES {
            store(stores, &batch)?;
            batch = empty_batch(batch.id.get() + 1);
            bytes = 0;
        }
    }
    if !batch.commits.is_empty() {
        store(stores, &batch)?;
    }
    Ok(tip)
}

fn empty_batch(id: u64) -> Batch {
    Batch { id: BatchId::new(id), blocks: Vec::new(), commits: Vec::new(), committees: Vec::new() }
}

/// Stores a batch in every store at once.
fn store(stores: &[Arc<RedbStore>], batch: &Batch) -> Result<()> {
    thread::scope(|scope| {
        let apply = |store: &Arc<RedbStore>| {
            let store = Arc::clone(store);
            scope.spawn(move || store.apply(batch))
        };
        let applying: Vec<_> = stores.iter().map(apply).collect();
        let join = |applied: thread::ScopedJoinHandle<'_, Result<(), StoreError>>| {
            applied.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        applying.into_iter().try_for_each(join)
    })
    .context("cannot store the chain")
}

fn payloads(blocks: &[CheckedBlock]) -> Vec<Payload> {
    blocks.iter().map(|block| block.payload.clone()).collect()
}

/// A made commit with its blocks, by the job for what our own consensus made.
fn observe(made: &MadeCommit) -> Result<(Verified<CommitHeader>, Vec<Verified<CheckedBlock>>)> {
    let job = ObserveJob {
        commit: made.header.payload.clone(),
        blocks: payloads(&made.blocks),
        limits: Limits::default(),
    };
    match run(Job::Observe(Box::new(job))) {
        Verdict::Observe(ObserveVerdict::Observed { commit, blocks }) => Ok((commit, blocks)),
        other => bail!("{} was made, and is refused: {other:?}", made.header.reference),
    }
}

fn votes(certifiers: &[CheckedBlock]) -> Result<Vec<Verified<CheckedBlock>>> {
    let job = VotesJob { blocks: payloads(certifiers), limits: Limits::default() };
    match run(Job::Votes(Box::new(job))) {
        Verdict::Votes(blocks) => Ok(blocks),
        other => bail!("certifiers were made, and are refused: {other:?}"),
    }
}

/// Runs a job that verifies no signatures, and so needs no entropy.
fn run(job: Job) -> Verdict {
    job.run([0; 32])
}

/// A commit as consensus hands it to its node.
#[derive(Debug)]
pub(super) struct LiveCommit {
    pub(super) reference: CommitRef,
    pub(super) commit: Bytes,
    pub(super) blocks: Vec<Bytes>,
    pub(super) certifiers: Vec<Bytes>,
    bytes: usize,
}

impl LiveCommit {
    fn new(made: &MadeCommit) -> Self {
        let encodings = |blocks: &[CheckedBlock]| -> Vec<Bytes> {
            blocks.iter().map(|block| block.payload.bytes().clone()).collect()
        };
        let (blocks, certifiers) = (encodings(&made.blocks), encodings(&made.certifiers));
        let commit = made.header.payload.bytes().clone();
        let bytes = blocks.iter().chain(&certifiers).chain([&commit]).map(Bytes::len).sum();
        Self { reference: made.header.reference, commit, blocks, certifiers, bytes }
    }
}

/// Consensus of all servers at once: it goes on making commits, and keeps each until every server has it.
///
/// Bounded: when the slowest server lags behind by [`WAITING_MAX`] commits or [`WAITING_BYTES_MAX`] bytes, none is made.
pub(super) struct Consensus {
    waiting: Mutex<Waiting>,
    /// The last commit that was made.
    tip: watch::Sender<CommitRef>,
    stop: CancellationToken,
}

struct Waiting {
    commits: VecDeque<Arc<LiveCommit>>,
    /// How far each server is.
    servers: Vec<CommitIndex>,
}

impl Consensus {
    /// A consensus that has made the commits up to `tip`, which all of so many servers have.
    pub(super) fn new(tip: CommitRef, servers: usize) -> Self {
        let waiting = Waiting { commits: VecDeque::new(), servers: vec![tip.index; servers] };
        Self { waiting: Mutex::new(waiting), tip: watch::Sender::new(tip), stop: CancellationToken::new() }
    }

    /// The last commit that was made, and whatever will be.
    pub(super) fn tip(&self) -> watch::Receiver<CommitRef> {
        self.tip.subscribe()
    }

    /// Makes nothing more. A commit that is being made may still come.
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }

    /// Makes commits until it is stopped.
    pub(super) async fn run(&self, mut maker: ChainMaker) -> Result<()> {
        let mut pause = LIVE_INTERVAL;
        loop {
            tokio::select! {
                () = self.stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(pause) => {}
            }
            if self.waiting().is_full() {
                continue;
            }
            let making = tokio::task::spawn_blocking(move || {
                let made = maker.next();
                (maker, made)
            });
            let (back, made) = making.await.context("making a commit failed")?;
            maker = back;
            let made = made.context("the chain has no more numbers")?;
            let live = LiveCommit::new(&made);
            pause = LIVE_INTERVAL.max(Duration::from_secs_f64(live.bytes as f64 / LIVE_BYTES_PER_S));
            self.waiting().commits.push_back(Arc::new(live));
            self.tip.send_replace(made.header.reference);
        }
    }

    /// Notes that a server can certify the commits up to `certifiable`, and gives those that it still needs.
    pub(super) fn wanted(&self, server: usize, certifiable: CommitIndex) -> Vec<Arc<LiveCommit>> {
        let mut waiting = self.waiting();
        waiting.has(server, certifiable);
        waiting.commits.iter().filter(|live| live.reference.index > certifiable).cloned().collect()
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn is_full(&self) -> bool {
        let bytes: usize = self.commits.iter().map(|live| live.bytes).sum();
        self.commits.len() >= WAITING_MAX || bytes >= WAITING_BYTES_MAX
    }

    fn has(&mut self, server: usize, certifiable: CommitIndex) {
        if let Some(index) = self.servers.get_mut(server) {
            *index = certifiable.max(*index);
        }
        let everybody = self.servers.iter().min().copied().unwrap_or(certifiable);
        while self.commits.front().is_some_and(|live| live.reference.index <= everybody) {
            self.commits.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use soma_sync_sim::chain::ChainSpec;

    const SPEC: ChainSpec =
        ChainSpec { commits: 4, blocks_per_commit: 5, payload_bytes: 8, committee: 4, epochs: 2, seed: 9 };

    fn live(count: usize) -> Vec<LiveCommit> {
        ChainMaker::new(SPEC).expect("a good spec").take(count).map(|made| LiveCommit::new(&made)).collect()
    }

    #[test]
    fn a_commit_is_dropped_before_the_last_server_has_it_or_kept_after() {
        let consensus = Consensus::new(CommitRef::GENESIS, 2);
        consensus.waiting().commits.extend(live(5).into_iter().map(Arc::new));
        let wanted = |server, certifiable| -> Vec<u32> {
            let commits = consensus.wanted(server, CommitIndex::new(certifiable));
            commits.iter().map(|live| live.reference.index.get()).collect()
        };
        assert_eq!(wanted(0, 0), [1, 2, 3, 4, 5]);
        assert_eq!(wanted(0, 4), [5]);
        assert_eq!(wanted(1, 2), [3, 4, 5]);
        assert_eq!(consensus.waiting().commits.len(), 3);
        // A server that starts again says where it is; what another has had in the meantime is still there for it.
        assert_eq!(wanted(0, 5), [0; 0]);
        assert_eq!(wanted(1, 2), [3, 4, 5]);
        assert_eq!(wanted(1, 5), [0; 0]);
        assert!(consensus.waiting().commits.is_empty());
    }

    #[test]
    fn a_store_is_filled_with_another_chain_or_cannot_certify_its_tip() {
        let mut maker = ChainMaker::new(SPEC).expect("a good spec");
        let directory = tempfile::tempdir().expect("a directory");
        let open = |name| RedbStore::open(&directory.path().join(name), Some(maker.genesis()));
        let stores: Vec<_> = ["a", "b"].map(|name| Arc::new(open(name).expect("a new store"))).into();
        let tip = fill(&stores, &mut maker, SPEC.commits, || Ok(())).expect("stored");
        assert_eq!(tip, live(4).last().expect("four").reference);
        for store in stores {
            let start = store.start().expect("readable");
            assert_eq!((start.tip.reference, start.certifiable), (tip, tip));
        }
    }
}
