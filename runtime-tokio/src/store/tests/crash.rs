//! A disk that fails, and a machine that stops at any moment: over a backend that records what is written.

use super::*;
use crate::store::redb::{self as durable, RedbOptions};
use redb::StorageBackend;
use std::{
    io,
    path::PathBuf,
    sync::{Mutex, MutexGuard},
};

/// A change to the file.
#[derive(Clone, Debug)]
enum Change {
    Length(u64),
    Bytes(u64, Vec<u8>),
}

impl Change {
    fn make(&self, image: &mut Vec<u8>) {
        match self {
            Self::Length(len) => image.resize(usize::try_from(*len).expect("fits"), 0),
            Self::Bytes(offset, bytes) => {
                let start = usize::try_from(*offset).expect("fits");
                if image.len() < start + bytes.len() {
                    image.resize(start + bytes.len(), 0);
                }
                image[start..start + bytes.len()].copy_from_slice(bytes);
            }
        }
    }
}

#[derive(Debug, Default)]
struct State {
    /// What a reader sees.
    image: Vec<u8>,
    /// What is on the medium for certain.
    synced: Vec<u8>,
    /// What was changed since.
    unsynced: Vec<Change>,
    /// How many changes and syncs still succeed, where there is a limit.
    credit: Option<u32>,
    /// Every moment at which a machine could stop: what is certain then, and what may have been written, or not.
    moments: Option<Vec<(Vec<u8>, Vec<Change>)>>,
}

/// A disk of memory. Clones are the same disk.
#[derive(Clone, Debug, Default)]
struct Disk(Arc<Mutex<State>>);

impl Disk {
    fn holding(image: Vec<u8>) -> Self {
        let disk = Self::default();
        (disk.state().synced, disk.state().image) = (image.clone(), image);
        disk
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().expect("no test panics within")
    }

    fn spend(state: &mut State) -> io::Result<()> {
        match &mut state.credit {
            Some(0) => Err(io::Error::other("the disk is full")),
            Some(credit) => {
                *credit -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn change(&self, change: Change) -> io::Result<()> {
        let mut state = self.state();
        Self::spend(&mut state)?;
        change.make(&mut state.image);
        state.unsynced.push(change);
        let moment = (state.synced.clone(), state.unsynced.clone());
        if let Some(moments) = &mut state.moments {
            moments.push(moment);
        }
        Ok(())
    }

    /// A store on this disk.
    fn open(&self, genesis: &Committee) -> Result<RedbStore, StoreError> {
        let disk = self.clone();
        durable::open_on(
            PathBuf::from("disk"),
            Box::new(move || {
                let builder = durable::builder(RedbOptions::default(), u64::MAX);
                builder.create_with_backend(disk.clone()).map(durable::Handle::Database)
            }),
            genesis,
        )
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state().image.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state();
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let bytes = state.image.get(start..start + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.change(Change::Length(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state();
        Self::spend(&mut state)?;
        state.synced = state.image.clone();
        state.unsynced.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(Change::Bytes(offset, data.to_vec()))
    }
}

/// How many images are drawn for each moment at which a machine could stop.
const DRAWS: usize = 10;

fn tiny() -> Chain {
    Chain::new(ChainSpec {
        commits: 12,
        blocks_per_commit: 4,
        payload_bytes: 30,
        committee: 4,
        epochs: 2,
        seed: 3,
    })
}

#[test]
fn a_disk_error_at_some_operation_loses_or_invents_something() {
    let chain = tiny();
    let mut failures = 0;
    for credit in 0.. {
        let disk = Disk::default();
        let store = disk.open(&chain.genesis).expect("a new store");
        store.apply(&chain.batch(1, 3)).expect("it follows");
        disk.state().credit = Some(credit);
        let Err(error) = store.apply(&chain.batch(4, 7)) else { break };
        failures += 1;
        assert!(matches!(error, StoreError::Io { .. } | StoreError::Failed), "{error:?}");
        assert_failed(store.apply(&chain.batch(4, 7)));
        assert_failed(store.prune(index(2)));
        // With the disk still failing it may or may not open; whatever it says then, it is stored when it recovers.
        let reopened = store.reopen().is_ok();
        disk.state().credit = None;
        let start = store.reopen().unwrap_or_else(|error| panic!("after {credit}, {reopened}: {error}"));
        let tip = start.tip.reference.index.get();
        assert!(tip == 3 || tip == 7, "{tip}");
        chain.commits[..tip as usize].iter().for_each(|made| assert_stored(&store, made));
        assert_eq!(start.certifiable, start.tip.reference);
        store.apply(&chain.batch(tip + 1, 8)).expect("it follows, and the store was reopened");
    }
    assert!(failures >= 5, "only {failures} operations could fail");
}

#[test]
fn a_crash_at_some_moment_loses_an_acknowledged_batch() {
    let chain = tiny();
    let disk = Disk::default();
    let store = disk.open(&chain.genesis).expect("a new store");
    let mut random = 1_u64;
    let mut images = 0;
    for last in (2..=12).step_by(2) {
        let before = last - 2;
        disk.state().moments = Some(Vec::new());
        store.apply(&chain.batch(before + 1, last)).expect("it follows");
        if last == 8 {
            store.prune(index(4)).expect("it can be pruned");
        }
        let moments = disk.state().moments.take().expect("it was recorded");
        assert!(!moments.is_empty());
        for (synced, unsynced) in moments.iter().flat_map(|moment| std::iter::repeat_n(moment, DRAWS)) {
            let mut image = synced.clone();
            // Of what was not synced, any part may be on the medium; of the last write, any prefix.
            for (position, change) in unsynced.iter().enumerate() {
                random =
                    random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let last_one = position + 1 == unsynced.len();
                match (random >> 33) % 4 {
                    0 => {}
                    1 if last_one => torn(change, random).make(&mut image),
                    _ => change.make(&mut image),
                }
            }
            images += 1;
            let crashed = Disk::holding(image).open(&chain.genesis).expect("it opens after a crash");
            let start = crashed.start().expect("a read");
            let tip = start.tip.reference.index.get();
            assert!(tip == before || tip == last, "{tip} after a crash between {before} and {last}");
            assert_eq!(start.certifiable, start.tip.reference);
            let lowest = start.lowest_available.get().max(1);
            (lowest..=tip).for_each(|index| assert_stored(&crashed, chain.at(index)));
        }
    }
    assert!(images >= 1_000, "only {images} images");
}

/// A write of which only the first part was done.
fn torn(change: &Change, random: u64) -> Change {
    match change {
        Change::Length(len) => Change::Length(*len),
        Change::Bytes(offset, bytes) => {
            let sectors = bytes.len().div_ceil(512) as u64;
            let kept = usize::try_from((random >> 40) % (sectors + 1)).expect("fits") * 512;
            Change::Bytes(*offset, bytes[..kept.min(bytes.len())].to_vec())
        }
    }
}
