//! Consumers: each gets every sub-dag after the index where it is, first from storage, then live, in order, without
//! gap or repeat. A consumer that is slow holds everything up (by way of `Broadcasted`) and loses nothing; one that
//! goes away stops counting.
//!
//! Every subscriber has a task that walks the chain from its own index, as far as the machine has released it. What
//! was stored lately is kept for all of them, within a number of bytes; anything else is read from the store.

use crate::{
    mailbox::{Input, Mailbox},
    store::{Store, StoreError},
};
use soma_sync_core::{
    command::Batch,
    config::Limits,
    event::Event,
    job::CommitHeader,
    payload::Payload,
    types::{BlockRef, CommitIndex, CommitRef, Epoch},
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    runtime::Handle,
    sync::{Notify, mpsc, watch},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long until a store that is being opened again is asked again.
const STORE_RETRY: Duration = Duration::from_millis(200);

/// A commit with its blocks, in the order in which they are applied: what a consumer receives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubDag {
    /// Index and digest of the commit.
    pub reference: CommitRef,
    /// Milliseconds since the Unix epoch, as the committee agreed; never falls along the chain.
    pub timestamp_ms: u64,
    /// Epoch of the commit and of its blocks.
    pub epoch: Epoch,
    /// The leader; one of the blocks.
    pub leader: BlockRef,
    /// The commit's encoding.
    pub commit: Payload,
    /// The signed blocks' encodings beside what names them, in commit order.
    pub blocks: Vec<(BlockRef, Payload)>,
}

impl SubDag {
    fn new(header: CommitHeader, blocks: Vec<(BlockRef, Payload)>) -> Self {
        let CommitHeader { reference, timestamp_ms, epoch, leader, payload: commit, .. } = header;
        Self { reference, timestamp_ms, epoch, leader, commit, blocks }
    }

    /// Encoded bytes of the commit and its blocks.
    pub fn bytes(&self) -> u64 {
        let bytes = self.blocks.iter().map(|(_, block)| block.len()).sum::<usize>() + self.commit.len();
        bytes as u64
    }
}

/// Why a subscription ends.
#[derive(Debug, thiserror::Error)]
pub enum SubscriptionError {
    /// The store no longer has the next commit.
    #[error(
        "commit {next} is not in the store any more: subscribe from a later index, or start from a snapshot"
    )]
    Pruned {
        /// The commit that the subscriber needs next.
        next: CommitIndex,
    },
    /// The store could not be read.
    #[error("the store cannot be read: {0}")]
    Store(#[source] StoreError),
}

/// What subscribers, the store's thread and the driver share.
pub(crate) struct Hub<S> {
    store: Arc<S>,
    limits: Limits,
    recent_bytes_max: u64,
    places: Arc<Places>,
    /// Knows every task here that may hold the store.
    tasks: TaskTracker,
    /// Where tasks run: subscribers may come from anywhere.
    runtime: Handle,
    stop: CancellationToken,
}

/// How far everybody is. Apart from the hub, so that a subscriber that lingers does not keep the store open.
struct Places {
    /// How far the machine has released the chain: everything up to here is durable.
    released: watch::Sender<CommitIndex>,
    progress: Mutex<Progress>,
    /// Something changed that may let the delivered index rise.
    changed: Notify,
}

impl Places {
    fn lock(&self) -> MutexGuard<'_, Progress> {
        // Should something have panicked under the lock, the places of subscribers are still whole.
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes who is where.
    fn update(&self, change: impl FnOnce(&mut Progress)) {
        let mut progress = self.lock();
        change(&mut progress);
        progress.forget_taken();
        drop(progress);
        self.changed.notify_one();
    }
}

#[derive(Default)]
struct Progress {
    next_id: u64,
    /// Where each live subscriber is.
    taken: BTreeMap<u64, CommitIndex>,
    /// Sub-dags stored lately that somebody still needs, and their bytes in all.
    recent: BTreeMap<CommitIndex, Arc<SubDag>>,
    recent_bytes: u64,
}

impl Progress {
    fn slowest(&self) -> Option<CommitIndex> {
        self.taken.values().min().copied()
    }

    fn remember(&mut self, sub_dag: SubDag, bytes_max: u64) {
        self.recent_bytes += sub_dag.bytes();
        if let Some(before) = self.recent.insert(sub_dag.reference.index, Arc::new(sub_dag)) {
            self.recent_bytes -= before.bytes();
        }
        while self.recent_bytes > bytes_max {
            self.forget_lowest();
        }
    }

    /// Forgets what every subscriber has taken.
    fn forget_taken(&mut self) {
        let slowest = self.slowest().unwrap_or(CommitIndex::MAX);
        while self.recent.first_key_value().is_some_and(|(index, _)| *index <= slowest) {
            self.forget_lowest();
        }
    }

    fn forget_lowest(&mut self) {
        let lowest = self.recent.pop_first();
        self.recent_bytes -= lowest.map_or(self.recent_bytes, |(_, sub_dag)| sub_dag.bytes());
    }
}

impl<S: Store> Hub<S> {
    /// A hub without subscribers, on a store whose tip is `tip`. At most `recent_bytes_max` bytes of sub-dags are
    /// kept in memory. Subscriptions end with `stop`. To be made within a tokio runtime.
    pub(crate) fn new(
        store: Arc<S>,
        tip: CommitIndex,
        limits: Limits,
        recent_bytes_max: u64,
        tasks: TaskTracker,
        stop: CancellationToken,
    ) -> Arc<Self> {
        let released = watch::Sender::new(tip);
        let places = Arc::new(Places { released, progress: Mutex::default(), changed: Notify::new() });
        Arc::new(Self { store, limits, recent_bytes_max, places, tasks, runtime: Handle::current(), stop })
    }

    /// How far the chain is released.
    fn released(&self) -> CommitIndex {
        *self.places.released.borrow()
    }

    /// Lets subscribers have everything up to `through`, which is durable.
    pub(crate) fn release(&self, through: CommitIndex) {
        self.places.released.send_modify(|released| *released = through.max(*released));
        self.places.changed.notify_one();
    }

    /// Keeps what was just stored for the subscribers that will ask for it, where its blocks are all at hand.
    pub(crate) fn remember(&self, batch: &Batch) {
        if self.subscribers() == 0 {
            return;
        }
        let blocks: HashMap<_, _> =
            batch.blocks.iter().map(|block| (block.reference, &block.payload)).collect();
        for header in &batch.commits {
            let payload = |reference: &BlockRef| Some((*reference, (*blocks.get(reference)?).clone()));
            let Some(blocks) = header.blocks.iter().map(payload).collect() else { continue };
            let sub_dag = SubDag::new((**header).clone(), blocks);
            self.places.lock().remember(sub_dag, self.recent_bytes_max);
        }
    }

    /// Where every live subscriber is at least: as far as the chain is released, where there is none.
    fn delivered(&self) -> CommitIndex {
        let released = self.released();
        self.places.lock().slowest().map_or(released, |slowest| slowest.min(released))
    }

    /// How many subscribers there are.
    pub(crate) fn subscribers(&self) -> usize {
        self.places.lock().taken.len()
    }

    /// Tells the mailbox how far every subscriber is, each time that this rises, until nobody listens any more.
    pub(crate) async fn report_delivery(self: Arc<Self>, mailbox: Mailbox) {
        let mut last = self.released();
        loop {
            let through = self.delivered();
            if through > last {
                last = through;
                if mailbox.send(Input::Event(Event::Broadcasted { through })).await.is_err() {
                    return;
                }
                continue;
            }
            tokio::select! {
                () = self.stop.cancelled() => return,
                () = self.places.changed.notified() => {}
            }
        }
    }

    /// Starts a subscription after `after`, with room for `capacity` sub-dags.
    pub(crate) fn subscribe(self: &Arc<Self>, after: CommitIndex, capacity: usize) -> Subscription {
        let (sender, receiver) = mpsc::channel(capacity);
        let id = {
            let mut progress = self.places.lock();
            let id = progress.next_id;
            progress.next_id += 1;
            progress.taken.insert(id, after);
            id
        };
        let hub = Arc::clone(self);
        let pump = async move {
            tokio::select! {
                () = hub.stop.cancelled() => {}
                () = hub.pump(after, &sender) => {}
            }
        };
        self.tasks.spawn_on(pump, &self.runtime);
        Subscription { receiver, place: Some(Place { id, places: Arc::clone(&self.places) }) }
    }

    /// Feeds one subscriber from `after` on, until it goes away or cannot be served.
    async fn pump(self: &Arc<Self>, after: CommitIndex, sender: &mpsc::Sender<Item>) {
        let mut released = self.places.released.subscribe();
        let mut last = after;
        while let Some(next) = last.next() {
            // Room first, so that no more is held in memory than waits in the channel.
            let Ok(room) = sender.reserve().await else { return };
            let is_released = tokio::select! {
                () = sender.closed() => return,
                is_released = released.wait_for(|released| *released >= next) => is_released.is_ok(),
            };
            if !is_released {
                return;
            }
            match self.sub_dag(next).await {
                Ok(sub_dag) => room.send(Ok(sub_dag)),
                Err(error) => return room.send(Err(error)),
            }
            last = next;
        }
    }

    /// A released sub-dag, from memory or from the store. Waits while the store is being opened again.
    async fn sub_dag(self: &Arc<Self>, index: CommitIndex) -> Result<Arc<SubDag>, SubscriptionError> {
        loop {
            if let Some(sub_dag) = self.places.lock().recent.get(&index) {
                return Ok(Arc::clone(sub_dag));
            }
            let hub = Arc::clone(self);
            let read = self.tasks.spawn_blocking(move || hub.read(index)).await;
            match read.unwrap_or_else(|panic| Err(StoreError::Damaged { what: panic.to_string() })) {
                Ok(Some(sub_dag)) => return Ok(Arc::new(sub_dag)),
                Ok(None) => return Err(SubscriptionError::Pruned { next: index }),
                Err(StoreError::Failed) => tokio::time::sleep(STORE_RETRY).await,
                Err(error) => return Err(SubscriptionError::Store(error)),
            }
        }
    }

    /// Reads a sub-dag; `None` where the store has no such commit.
    fn read(&self, index: CommitIndex) -> Result<Option<SubDag>, StoreError> {
        let store = &*self.store;
        let Some(commit) = store.commit(index)? else { return Ok(None) };
        let damaged = |what: String| StoreError::Damaged { what };
        let header = CommitHeader::decode(commit.payload, &self.limits)
            .map_err(|error| damaged(format!("commit {index} does not decode: {error}")))?;
        let mut blocks = Vec::with_capacity(header.blocks.len());
        for reference in header.blocks.iter() {
            match store.block(reference)? {
                Some(block) => blocks.push((*reference, block)),
                // Pruned between the two readings, or never there.
                None if store.head(index)?.is_none() => return Ok(None),
                None => return Err(damaged(format!("commit {index} lacks {reference}"))),
            }
        }
        Ok(Some(SubDag::new(header, blocks)))
    }
}

type Item = Result<Arc<SubDag>, SubscriptionError>;

/// A subscriber's place. Dropped, the subscriber stops counting.
struct Place {
    id: u64,
    places: Arc<Places>,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.update(|progress| {
            progress.taken.remove(&self.id);
        });
    }
}

/// A consumer's end: sub-dags in index order, without gap or repeat. While it is not read, the node soon stops
/// fetching; drop it to stop counting.
pub struct Subscription {
    receiver: mpsc::Receiver<Item>,
    /// `None` after the end.
    place: Option<Place>,
}

impl Subscription {
    /// The next sub-dag. After an error, and when the node stops, nothing more comes: `None`.
    ///
    /// # Errors
    ///
    /// Where the store no longer has the next commit, or cannot be read.
    pub async fn next(&mut self) -> Option<Result<Arc<SubDag>, SubscriptionError>> {
        let item = self.receiver.recv().await;
        match (&item, &self.place) {
            (Some(Ok(sub_dag)), Some(place)) => place.places.update(|progress| {
                progress.taken.insert(place.id, sub_dag.reference.index);
            }),
            // A subscription that is over must not hold the others up.
            _ => self.place = None,
        }
        item
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use soma_sync_core::types::{AuthorityIndex, BlockDigest, Round};

    /// A sub-dag of 100 bytes.
    fn sub_dag(index: u32) -> SubDag {
        let epoch = Epoch::new(0);
        let leader = BlockRef {
            round: Round::new(1),
            author: AuthorityIndex::new(0),
            digest: BlockDigest::ZERO,
            epoch,
        };
        let payload = |len| Payload::new(Bytes::from(vec![0; len]));
        SubDag {
            reference: CommitRef { index: CommitIndex::new(index), ..CommitRef::GENESIS },
            timestamp_ms: 0,
            epoch,
            leader,
            commit: payload(40),
            blocks: vec![(leader, payload(60))],
        }
    }

    fn kept(progress: &Progress) -> Vec<u32> {
        let bytes: u64 = progress.recent.values().map(|sub_dag| sub_dag.bytes()).sum();
        assert_eq!(progress.recent_bytes, bytes);
        progress.recent.keys().map(|index| index.get()).collect()
    }

    #[test]
    fn more_is_kept_for_subscribers_than_allowed() {
        let mut progress = Progress::default();
        progress.taken.insert(0, CommitIndex::GENESIS);
        for index in 1..=10 {
            progress.remember(sub_dag(index), 350);
        }
        // Once more, as after a store that was opened again.
        progress.remember(sub_dag(10), 350);
        assert_eq!(kept(&progress), [8, 9, 10]);
        progress.remember(sub_dag(11), 99);
        assert_eq!(kept(&progress), [0; 0]);
    }

    #[test]
    fn what_everybody_has_taken_is_kept_or_what_somebody_needs_is_not() {
        let mut progress = Progress::default();
        progress.taken.extend([(0, CommitIndex::new(2)), (1, CommitIndex::new(4))]);
        for index in 1..=6 {
            progress.remember(sub_dag(index), 10_000);
        }
        progress.forget_taken();
        assert_eq!(kept(&progress), [3, 4, 5, 6]);
        progress.taken.remove(&0);
        progress.forget_taken();
        assert_eq!(kept(&progress), [5, 6]);
        progress.taken.remove(&1);
        progress.forget_taken();
        assert_eq!(kept(&progress), [0; 0]);
    }
}
