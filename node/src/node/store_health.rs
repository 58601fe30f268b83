//! Whether a store that fails is worth waiting for.

use soma_sync_core::{
    command::{Notice, Stall},
    types::CommitIndex,
};
use std::time::{Duration, Instant};
use tokio::sync::broadcast::Receiver;

/// How often a store may fail without having stored anything in between.
const FAILURES_MAX: u32 = 5;
/// How long it may stay closed.
const CLOSED_MAX: Duration = Duration::from_secs(10);

/// What a store's failures so far come to.
pub(super) struct StoreHealth {
    notices: Receiver<Notice>,
    /// What was durable at the last failure, or since.
    durable: CommitIndex,
    failures: u32,
    closed_since: Option<Instant>,
}

impl StoreHealth {
    pub(super) fn new(notices: Receiver<Notice>) -> Self {
        Self { notices, durable: CommitIndex::GENESIS, failures: 0, closed_since: None }
    }

    /// Takes in what has happened since the last call. Whether the store works, or may work soon.
    pub(super) fn look(&mut self, now: Instant, durable: CommitIndex, stall: Option<Stall>) -> bool {
        if durable > self.durable {
            self.durable = durable;
            self.failures = 0;
        }
        // Notices that were missed are no reason to give up.
        while let Ok(notice) = self.notices.try_recv() {
            if notice == Notice::Stalled(Stall::Storage) {
                self.failures = self.failures.saturating_add(1);
            }
        }
        if stall == Some(Stall::Storage) {
            let since = *self.closed_since.get_or_insert(now);
            if now.saturating_duration_since(since) >= CLOSED_MAX {
                return false;
            }
        } else {
            self.closed_since = None;
        }
        self.failures < FAILURES_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::broadcast::channel;

    const FAILED: Notice = Notice::Stalled(Stall::Storage);

    #[test]
    fn a_store_that_stores_something_between_failures_is_given_up() {
        let (notify, notices) = channel(100);
        let (mut health, now) = (StoreHealth::new(notices), Instant::now());
        for durable in 1..20 {
            for _ in 1..FAILURES_MAX {
                notify.send(FAILED).unwrap();
                notify.send(Notice::Resumed).unwrap();
            }
            assert!(health.look(now, CommitIndex::new(durable - 1), None));
            assert!(health.look(now, CommitIndex::new(durable), None));
        }
    }

    #[test]
    fn a_store_that_fails_whatever_is_tried_is_waited_for() {
        let (notify, notices) = channel(100);
        let (mut health, now) = (StoreHealth::new(notices), Instant::now());
        for failure in 1..=FAILURES_MAX {
            notify.send(FAILED).unwrap();
            assert_eq!(health.look(now, CommitIndex::new(3), None), failure < FAILURES_MAX);
        }
    }

    #[test]
    fn a_store_that_stays_closed_is_waited_for() {
        let (_notify, notices) = channel(1);
        let (mut health, now) = (StoreHealth::new(notices), Instant::now());
        let closed = Some(Stall::Storage);
        assert!(health.look(now, CommitIndex::GENESIS, closed));
        assert!(health.look(now + CLOSED_MAX / 2, CommitIndex::GENESIS, None));
        assert!(health.look(now + CLOSED_MAX, CommitIndex::GENESIS, closed));
        assert!(!health.look(now + CLOSED_MAX * 2, CommitIndex::GENESIS, closed));
    }
}
