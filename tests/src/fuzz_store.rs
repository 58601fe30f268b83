//! The durable store: held against the one in memory through orders that bytes say; and opened on files that bytes
//! changed.

use crate::fuzz::rarely;
use arbitrary::{Result, Unstructured};
use soma_sync_core::{
    command::{Batch, BatchId},
    committee::Committee,
    job::CheckedBlock,
    start::Start,
    types::{CommitIndex, Epoch},
    verified::Verified,
};
use soma_sync_runtime_tokio::store::{
    Certifier, CommitHead, MemoryStore, RedbOptions, RedbStore, Store, StoreError, StoredCommit,
};
use soma_sync_sim::chain::{ChainMaker, ChainSpec, MadeCommit};
use std::{
    fs,
    sync::{Arc, OnceLock},
};
use tempfile::TempDir;

/// Commits of the chain.
const COMMITS: u32 = 12;
/// Orders in one run: each reads both stores from end to end.
const MOST_ORDERS: usize = 30;

/// The chain, and the file of a store that holds it.
struct Chain {
    genesis: Arc<Committee>,
    commits: Vec<MadeCommit>,
    name: std::ffi::OsString,
    file: Vec<u8>,
}

fn chain() -> &'static Chain {
    static CHAIN: OnceLock<Chain> = OnceLock::new();
    CHAIN.get_or_init(|| {
        let spec = ChainSpec {
            commits: COMMITS,
            blocks_per_commit: 4,
            payload_bytes: 24,
            committee: 4,
            epochs: 3,
            seed: 4,
        };
        let mut maker = ChainMaker::new(spec).expect("a sound spec");
        let commits: Vec<_> = maker.by_ref().take(COMMITS as usize).collect();
        let mut chain =
            Chain { genesis: maker.genesis().clone(), commits, name: Default::default(), file: Vec::new() };
        let directory = TempDir::new().expect("a directory");
        let store = RedbStore::open(directory.path(), Some(&chain.genesis)).expect("a new store");
        for first in (1..=COMMITS).step_by(4) {
            store.apply(&chain.batch(first, first + 3, usize::MAX, true)).expect("it follows");
        }
        let path = store.path().to_owned();
        drop(store);
        chain.file = fs::read(&path).expect("the file");
        chain.name = path.file_name().expect("a file has a name").to_owned();
        chain
    })
}

impl Chain {
    fn at(&self, index: u32) -> &MadeCommit {
        &self.commits[index as usize - 1]
    }

    /// The commits from `first` to `last` with the first so many of their blocks, and the certifiers of the last.
    fn batch(&self, first: u32, last: u32, blocks: usize, certified: bool) -> Batch {
        let made = || (first..=last).map(|index| self.at(index));
        let mut batch = loose(made().flat_map(|made| &made.blocks).take(blocks));
        if certified {
            batch.blocks.extend(loose(self.at(last).certifiers.iter()).blocks);
        }
        batch.commits = made().map(|made| Verified::from_trace(made.header.clone())).collect();
        batch.committees = made().filter_map(|made| made.next_committee.clone()).collect();
        batch
    }
}

/// Blocks that no commit of the batch names.
fn loose<'a>(blocks: impl Iterator<Item = &'a CheckedBlock>) -> Batch {
    let blocks = blocks.cloned().map(Verified::from_trace).collect();
    Batch { id: BatchId::new(0), blocks, commits: Vec::new(), committees: Vec::new() }
}

/// Runs both stores through the orders that the bytes say: both must do the same and then hold the same. The commits that
/// are held at the end.
///
/// # Panics
///
/// When the stores differ, or the durable one is another after it was opened again.
pub fn store_model(bytes: &[u8]) -> u32 {
    let mut input = Unstructured::new(bytes);
    let directory = TempDir::new().expect("a directory");
    let mut durable = RedbStore::open(directory.path(), Some(&chain().genesis)).expect("a new store");
    let memory = MemoryStore::new(chain().genesis.clone());
    for _ in 0..MOST_ORDERS {
        let tip = memory.start().expect("a read").tip.reference.index.get();
        if input.is_empty() {
            break;
        }
        if rarely(&mut input, 8).unwrap_or_default() {
            drop(durable);
            durable = RedbStore::open(directory.path(), None).expect("the same store");
            memory.reopen().expect("it is memory");
        }
        let Ok(order) = draw_order(&mut input, tip) else { break };
        let (did, should) = (order.carry_out(&durable), order.carry_out(&memory));
        assert_eq!(did, should, "{order:?}");
        assert_eq!(Everything::of(&durable), Everything::of(&memory), "after {order:?}");
    }
    drop(durable);
    let durable = RedbStore::open(directory.path(), Some(&chain().genesis)).expect("the same store");
    assert_eq!(Everything::of(&durable), Everything::of(&memory), "after the end");
    memory.start().expect("a read").tip.reference.index.get()
}

/// What a store is told to do.
#[derive(Debug)]
enum Order {
    /// Blocks and commits, which may fit or not.
    Apply(Batch),
    Prune(CommitIndex),
    Reopen,
}

fn draw_order(input: &mut Unstructured<'_>, tip: u32) -> Result<Order> {
    let any = |input: &mut Unstructured<'_>| input.int_in_range(1..=COMMITS);
    let next = (tip + 1).min(COMMITS);
    Ok(match input.int_in_range(0..=11u8)? {
        0..=4 => {
            let last = (next + input.int_in_range(0..=3)?).min(COMMITS);
            let blocks = if rarely(input, 8)? { input.int_in_range(0..=15)? } else { usize::MAX };
            Order::Apply(chain().batch(next, last, blocks, input.arbitrary()?))
        }
        5 => {
            let first = any(input)?;
            Order::Apply(chain().batch(first, first, usize::MAX, true))
        }
        6 | 7 => {
            // Staged ahead of their commit, or again.
            let (commit, count) = (any(input)?, input.int_in_range(0..=5)?);
            Order::Apply(loose(chain().at(commit).blocks.iter().take(count)))
        }
        8 | 9 => {
            let (commit, count) = (any(input)?, input.int_in_range(0..=5)?);
            Order::Apply(loose(chain().at(commit).certifiers.iter().take(count)))
        }
        10 => Order::Prune(CommitIndex::new(input.int_in_range(0..=COMMITS + 1)?)),
        _ => Order::Reopen,
    })
}

impl Order {
    /// Success, or the failure in words.
    fn carry_out(&self, store: &dyn Store) -> std::result::Result<(), String> {
        let done = match self {
            Self::Apply(batch) => store.apply(batch),
            Self::Prune(lowest) => store.prune(*lowest),
            Self::Reopen => store.reopen().map(drop),
        };
        done.map_err(|error| error.to_string())
    }
}

/// All that can be read.
#[derive(Debug, PartialEq)]
struct Everything {
    start: Start,
    committees: Vec<Option<Arc<Committee>>>,
    heads: Vec<Option<CommitHead>>,
    commits: Vec<Option<StoredCommit>>,
    certificates: Vec<Option<Vec<Certifier>>>,
    blocks: Vec<Option<bytes::Bytes>>,
}

impl Everything {
    fn of(store: &dyn Store) -> Self {
        let made = || chain().commits.iter();
        let blocks = made().flat_map(|made| made.blocks.iter().chain(made.certifiers.iter()));
        let indexes = || (0..COMMITS + 2).map(CommitIndex::new);
        let read = "a read";
        Self {
            start: store.start().expect(read),
            committees: (0..4).map(|epoch| store.committee(Epoch::new(epoch)).expect(read)).collect(),
            heads: indexes().map(|at| store.head(at).expect(read)).collect(),
            commits: indexes().map(|at| store.commit(at).expect(read)).collect(),
            certificates: made().map(|made| store.certificate(&made.header.reference).expect(read)).collect(),
            blocks: blocks
                .map(|block| store.block(&block.reference).expect(read).map(|block| block.bytes().clone()))
                .collect(),
        }
    }
}

/// What became of a store whose file was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// It was not opened.
    Not,
    /// All that was read was as it had been stored, by the last batch or one before it.
    Whole,
}

/// Opens a store on a file that the bytes changed, and reads everything. With the first byte odd it is opened for
/// writing, else to be read only.
///
/// # Panics
///
/// When a read gives what was never stored, the check at opening misses what a read then finds, or a store that is only
/// read changes its file.
pub fn store_open(bytes: &[u8]) -> Opened {
    let mut input = Unstructured::new(bytes);
    let read_only = input.arbitrary::<u8>().unwrap_or_default().is_multiple_of(2);
    let mut file = chain().file.clone();
    // One that was cut down to nothing cannot be changed any more.
    while !input.is_empty() && !file.is_empty() && change(&mut input, &mut file).is_ok() {}
    let directory = TempDir::new().expect("a directory");
    let path = directory.path().join(&chain().name);
    fs::write(&path, &file).expect("a file");
    if !read_only {
        return all_read(RedbStore::open(directory.path(), None));
    }
    let opened = all_read(RedbStore::open_read_only(directory.path(), RedbOptions::default()));
    assert!(fs::read(&path).expect("the file") == file, "a store that is only read was written to");
    opened
}

fn all_read(opened: std::result::Result<RedbStore, StoreError>) -> Opened {
    match opened {
        Ok(store) => {
            let failed = failed_reads(&store);
            assert!(failed == 0, "the check at opening missed what {failed} reads found");
            Opened::Whole
        }
        Err(error) => {
            assert!(!matches!(error, StoreError::Missing { .. } | StoreError::Locked { .. }), "{error}");
            Opened::Not
        }
    }
}

/// Changes a file that is not empty: a byte or a few, in the header more often than it is large, or cuts the file off, or
/// fills a part with zeros.
fn change(input: &mut Unstructured<'_>, file: &mut Vec<u8>) -> Result<()> {
    let reach = *input.choose(&[file.len(), file.len(), file.len(), file.len().min(320)])?;
    let at = input.choose_index(reach)?;
    match input.int_in_range(0..=7u8)? {
        0 if rarely(input, 4)? => file.truncate(at),
        1 => {
            let len = input.int_in_range(1..=4096)?;
            file.iter_mut().skip(at).take(len).for_each(|byte| *byte = 0);
        }
        2 => {
            let from = input.choose_index(file.len())?;
            let len = (file.len() - from.max(at)).min(4096);
            file.copy_within(from..from + len, at);
        }
        3 | 4 => file[at] ^= 1 << input.int_in_range(0..=7u8)?,
        _ => {
            let other: [u8; 4] = input.arbitrary()?;
            file.iter_mut().skip(at).zip(other).for_each(|(byte, other)| *byte = other);
        }
    }
    Ok(())
}

/// Reads everything of the chain. Whatever is read must have been stored: by the last batch, or by one before it, since
/// a file holds two states and which of them counts can change.
fn failed_reads(store: &dyn Store) -> usize {
    let mut failures = 0;
    let mut right = |what: &str, result: std::result::Result<bool, StoreError>| match result {
        Ok(right) => assert!(right, "what was never stored: {what}"),
        Err(_) => failures += 1,
    };
    let made = || chain().commits.iter();
    right(
        "start",
        store.start().map(|start| {
            let tip = made().find(|made| made.header.reference == start.tip.reference);
            let genesis = start.tip.reference.index == CommitIndex::GENESIS;
            genesis
                || tip.is_some_and(|tip| {
                    tip.header.timestamp_ms == start.tip.timestamp_ms
                        && tip.committee == start.committee
                        && start.certifiable <= tip.header.reference
                })
        }),
    );
    for made in made() {
        let header = &made.header;
        right(
            "a head",
            store.head(header.reference.index).map(|head| {
                head.is_none_or(|head| {
                    (head.reference, head.epoch) == (header.reference, header.epoch)
                        && head.ends_epoch == made.next_committee.is_some()
                })
            }),
        );
        right(
            "a commit",
            store.commit(header.reference.index).map(|commit| {
                commit.is_none_or(|commit| {
                    commit.payload.bytes() == header.payload.bytes() && commit.blocks == header.blocks
                })
            }),
        );
        right(
            "a certificate",
            store.certificate(&header.reference).map(|certificate| {
                certificate.iter().flatten().all(|certifier| {
                    let made = chain().commits.iter();
                    let mut known = made.flat_map(|made| made.blocks.iter().chain(made.certifiers.iter()));
                    known.any(|block| {
                        block.reference == certifier.block && block.votes.contains(&header.reference)
                    })
                })
            }),
        );
        for block in made.blocks.iter().chain(made.certifiers.iter()) {
            let stored = store.block(&block.reference);
            right(
                "a block",
                stored.map(|stored| stored.is_none_or(|stored| stored.bytes() == block.payload.bytes())),
            );
        }
    }
    for epoch in (0..3).map(Epoch::new) {
        let expected = made().find(|made| made.header.epoch == epoch).map(|made| made.committee.clone());
        let known = store.committee(epoch);
        right("a committee", known.map(|known| known.is_none() || known == expected));
    }
    failures
}
