//! The one thread that writes to storage: batch after batch, and after a failure whatever it takes to have the store
//! open again.

use crate::{
    pool::panic_message,
    store::{Store, StoreError},
};
use soma_sync_core::{command::Batch, event::Event, start::Start};
use std::{
    collections::VecDeque,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};
use tokio::sync::oneshot;

/// What the writing thread is told.
enum Order {
    Apply(Arc<Batch>),
    /// The machine has learnt that the store failed: what was ordered before this is not to be stored, and after it
    /// nothing is ordered until the machine learns that the store is there again.
    Reopen,
}

/// Hands batches to the writing thread. Dropped, it lets the thread store what it was given, and end.
pub(crate) struct Writer {
    orders: mpsc::SyncSender<Order>,
    /// Orders for which there was no room. The machine's own limits keep this empty but for bursts of votes.
    waiting: VecDeque<Order>,
}

impl Writer {
    /// Starts the thread, for which up to `capacity` batches wait. `stored` sees each batch once it is durable;
    /// `report` takes the events for the machine. A store that failed is opened again after a pause of the first of
    /// `backoff`, which doubles up to the second until a batch is stored. The receiver resolves when the thread has
    /// ended.
    pub(crate) fn start<S: Store>(
        store: Arc<S>,
        capacity: usize,
        backoff: (Duration, Duration),
        stored: impl Fn(&Batch) + Send + 'static,
        report: impl Fn(Event) + Send + 'static,
    ) -> io::Result<(Self, oneshot::Receiver<()>)> {
        let (orders, incoming) = mpsc::sync_channel(capacity.saturating_add(1));
        let (ended, at_end) = oneshot::channel();
        thread::Builder::new().name("soma-sync-store".to_owned()).spawn(move || {
            write(&*store, &incoming, backoff, &stored, &report);
            // The store may be closed with this.
            drop((store, stored, report));
            // Nobody may be waiting for it.
            let _ = ended.send(());
        })?;
        Ok((Self { orders, waiting: VecDeque::new() }, at_end))
    }

    /// Orders a batch to be stored.
    pub(crate) fn apply(&mut self, batch: Arc<Batch>) {
        self.waiting.push_back(Order::Apply(batch));
        self.flush();
    }

    /// Orders the store to be opened again, once the machine knows that it failed.
    pub(crate) fn reopen(&mut self) {
        self.waiting.push_back(Order::Reopen);
        self.flush();
    }

    /// Hands over what there is room for.
    pub(crate) fn flush(&mut self) {
        while let Some(order) = self.waiting.pop_front() {
            match self.orders.try_send(order) {
                Ok(()) => {}
                Err(mpsc::TrySendError::Full(order)) => return self.waiting.push_front(order),
                Err(mpsc::TrySendError::Disconnected(_)) => tracing::error!("the store's thread is gone"),
            }
        }
    }
}

/// The thread: stores batch after batch until there are no more orders.
fn write<S: Store>(
    store: &S,
    incoming: &mpsc::Receiver<Order>,
    backoff: (Duration, Duration),
    stored: &impl Fn(&Batch),
    report: &impl Fn(Event),
) {
    let mut failed = false;
    // Doubled until something is stored again: a full disk is found open, and full, every time.
    let mut pause = backoff.0;
    while let Ok(order) = incoming.recv() {
        match order {
            Order::Apply(_) if failed => {}
            Order::Apply(batch) => match contained(|| store.apply(&batch)) {
                Ok(()) => {
                    pause = backoff.0;
                    stored(&batch);
                    report(Event::Stored { through: batch.id });
                }
                Err(error) => {
                    tracing::error!("batch {:?} was not stored: {error}", batch.id);
                    failed = true;
                    report(Event::StoreFailed { from: batch.id });
                }
            },
            Order::Reopen => {
                let Some(start) = reopen(store, incoming, &mut pause, backoff.1) else { return };
                failed = false;
                report(Event::StoreReopened { start: Box::new(start) });
            }
        }
    }
}

/// A panic of the store's is an error like any other.
fn contained<R>(call: impl FnOnce() -> Result<R, StoreError>) -> Result<R, StoreError> {
    catch_unwind(AssertUnwindSafe(call))
        .unwrap_or_else(|panic| Err(StoreError::Damaged { what: panic_message(&*panic).to_owned() }))
}

/// Opens the store again, however often it takes; `None` where the node ends meanwhile.
fn reopen<S: Store>(
    store: &S,
    incoming: &mpsc::Receiver<Order>,
    pause: &mut Duration,
    longest: Duration,
) -> Option<Start> {
    loop {
        // Nothing is ordered now: this waits, and ends early with the node.
        if let Err(mpsc::RecvTimeoutError::Disconnected) = incoming.recv_timeout(*pause) {
            return None;
        }
        *pause = pause.saturating_mul(2).min(longest);
        match contained(|| store.reopen()) {
            Ok(start) => {
                tracing::info!("the store is open again, with {}", start.tip.reference);
                return Some(start);
            }
            Err(error) => tracing::warn!("the store does not open: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::MemoryStore;
    use soma_sync_core::command::BatchId;
    use soma_sync_sim::chain::{ChainMaker, ChainSpec};

    const BACKOFF: (Duration, Duration) = (Duration::from_millis(1), Duration::from_millis(1));

    fn store() -> Arc<MemoryStore> {
        let spec = ChainSpec {
            commits: 1,
            blocks_per_commit: 4,
            payload_bytes: 0,
            committee: 4,
            epochs: 1,
            seed: 1,
        };
        Arc::new(MemoryStore::new(Arc::clone(ChainMaker::new(spec).unwrap().genesis())))
    }

    fn batch(id: u64) -> Arc<Batch> {
        Arc::new(Batch { id: BatchId::new(id), blocks: vec![], commits: vec![], committees: vec![] })
    }

    /// A writer on `store`, and what it reports.
    fn writer(
        store: &Arc<MemoryStore>,
        capacity: usize,
    ) -> (Writer, mpsc::Receiver<Event>, oneshot::Receiver<()>) {
        let (report, events) = mpsc::channel();
        let store = Arc::clone(store);
        let started =
            Writer::start(store, capacity, BACKOFF, |_| {}, move |event| report.send(event).unwrap());
        let (writer, ended) = started.unwrap();
        (writer, events, ended)
    }

    #[test]
    fn a_batch_is_stored_out_of_order_or_after_a_failure() {
        let store = store();
        let (mut writer, events, ended) = writer(&store, 8);
        writer.apply(batch(0));
        assert_eq!(events.recv(), Ok(Event::Stored { through: BatchId::new(0) }));
        store.fail_next();
        for id in 1..4 {
            writer.apply(batch(id));
        }
        assert_eq!(events.recv(), Ok(Event::StoreFailed { from: BatchId::new(1) }));
        writer.reopen();
        assert!(matches!(events.recv(), Ok(Event::StoreReopened { .. })));
        writer.apply(batch(1));
        assert_eq!(events.recv(), Ok(Event::Stored { through: BatchId::new(1) }));
        drop(writer);
        ended.blocking_recv().unwrap();
        assert!(events.recv().is_err());
    }

    #[test]
    fn batches_handed_over_before_the_end_are_dropped() {
        let store = store();
        let (mut writer, events, ended) = writer(&store, 100);
        for id in 0..100 {
            writer.apply(batch(id));
        }
        drop(writer);
        ended.blocking_recv().unwrap();
        assert_eq!(events.iter().count(), 100);
    }

    #[test]
    fn more_batches_than_there_is_room_for_are_lost() {
        let store = store();
        let (mut writer, events, _ended) = writer(&store, 0);
        for id in 0..50 {
            writer.apply(batch(id));
        }
        for id in 0..50 {
            // Each event is an occasion to hand over what had to wait.
            assert_eq!(events.recv(), Ok(Event::Stored { through: BatchId::new(id) }));
            writer.flush();
        }
    }
}
