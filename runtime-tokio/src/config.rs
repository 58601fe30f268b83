//! The runtime's own configuration, beside the machine's.

use std::{num::NonZeroUsize, thread, time::Duration};

/// What can be set about how a node runs, as opposed to what it does: that is
/// [`Config`](soma_sync_core::config::Config). Take the default and change fields; it is checked when the node is
/// started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeConfig {
    /// Events waiting for the driver, at least 1 and at most 100,000. More smooths bursts, and holds more answers in
    /// memory. Seed parameter.
    pub mailbox_capacity: usize,
    /// Sub-dags waiting for one subscriber, at least 1 and at most 100,000. A full channel is backpressure, never loss.
    /// Seed parameter.
    pub synced_commit_broadcast_channel_capacity: usize,
    /// Most bytes of stored sub-dags kept in memory for subscribers that have not taken them; what is not kept is read
    /// from the store.
    pub recent_sub_dag_bytes: u64,
    /// Threads that verify, at most 1,000. By default as many as the machine has processors for us.
    pub verify_workers: NonZeroUsize,
    /// Most connections, at most 100,000; peers that we dial are let in beyond it.
    pub max_connections: usize,
    /// Most streams that one peer may have open to us, at least 1 and at most 10,000: requests that it sends, has
    /// waiting, or is being answered.
    pub max_streams_per_connection: usize,
    /// How long a peer may take to send a request on a stream that it opened, or to take 256 KiB of an answer, at least
    /// 1 ms and at most an hour. Less frees the places of those who do not read sooner; whoever gives up answers that
    /// are slower than 64 KiB/s, as the machine does, needs no more than the default.
    pub request_timeout: Duration,
    /// How long dialling may take, at least 1 ms and at most an hour.
    pub dial_timeout: Duration,
    /// Pause after the first failed attempt to reach a peer, at least 1 ms; doubled with each further one.
    pub dial_backoff_min: Duration,
    /// The longest such pause, at most an hour. A connection that stood for longer starts the pauses over.
    pub dial_backoff_max: Duration,
    /// Pause before the first attempt to open a store that failed again, at least 1 ms; doubled with each further one.
    pub reopen_backoff_min: Duration,
    /// The longest such pause, at most an hour.
    pub reopen_backoff_max: Duration,
    /// Notices that wait for one who reads them, at least 1 and at most 100,000; the oldest are dropped beyond it.
    pub notices_capacity: usize,
    /// How long stopping may take before what is still at work is left behind, at least 1 ms and at most an hour.
    pub shutdown_timeout: Duration,
}

impl Default for RuntimeConfig {
    fn default() -> Self {
        Self {
            mailbox_capacity: 50,
            synced_commit_broadcast_channel_capacity: 50,
            recent_sub_dag_bytes: 16 * 1024 * 1024,
            verify_workers: thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            max_connections: 1_000,
            max_streams_per_connection: 32,
            request_timeout: Duration::from_secs(10),
            dial_timeout: Duration::from_secs(10),
            dial_backoff_min: Duration::from_millis(250),
            dial_backoff_max: Duration::from_secs(30),
            reopen_backoff_min: Duration::from_millis(100),
            reopen_backoff_max: Duration::from_secs(10),
            notices_capacity: 1_000,
            shutdown_timeout: Duration::from_secs(10),
        }
    }
}

/// A field of [`RuntimeConfig`] that has a value which cannot work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("configuration: {field} must be {requirement}")]
pub struct RuntimeConfigError {
    /// The field's name.
    pub field: &'static str,
    /// What it must be.
    pub requirement: &'static str,
}

impl RuntimeConfig {
    /// Whether every field can work.
    ///
    /// # Errors
    ///
    /// The first field that cannot, and what it must be.
    pub fn validate(&self) -> Result<(), RuntimeConfigError> {
        let counts = [
            ("mailbox_capacity", self.mailbox_capacity),
            ("synced_commit_broadcast_channel_capacity", self.synced_commit_broadcast_channel_capacity),
            ("notices_capacity", self.notices_capacity),
        ];
        for (field, value) in counts {
            check((1..=100_000).contains(&value), field, "between 1 and 100,000")?;
        }
        check(self.verify_workers.get() <= 1_000, "verify_workers", "at most 1,000")?;
        check(self.max_connections <= 100_000, "max_connections", "at most 100,000")?;
        let streams = self.max_streams_per_connection;
        check((1..=10_000).contains(&streams), "max_streams_per_connection", "between 1 and 10,000")?;
        let durations = [
            ("request_timeout", self.request_timeout),
            ("dial_timeout", self.dial_timeout),
            ("dial_backoff_min", self.dial_backoff_min),
            ("dial_backoff_max", self.dial_backoff_max),
            ("reopen_backoff_min", self.reopen_backoff_min),
            ("reopen_backoff_max", self.reopen_backoff_max),
            ("shutdown_timeout", self.shutdown_timeout),
        ];
        let bounds = Duration::from_millis(1)..=Duration::from_secs(3600);
        for (field, value) in durations {
            check(bounds.contains(&value), field, "between 1 ms and 1 h")?;
        }
        check(
            self.dial_backoff_min <= self.dial_backoff_max,
            "dial_backoff_min",
            "at most dial_backoff_max",
        )?;
        check(
            self.reopen_backoff_min <= self.reopen_backoff_max,
            "reopen_backoff_min",
            "at most reopen_backoff_max",
        )
    }
}

fn check(holds: bool, field: &'static str, requirement: &'static str) -> Result<(), RuntimeConfigError> {
    if holds { Ok(()) } else { Err(RuntimeConfigError { field, requirement }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_is_refused() {
        assert_eq!(RuntimeConfig::default().validate(), Ok(()));
    }

    #[test]
    fn a_value_that_cannot_work_is_taken() {
        let refused = |change: fn(&mut RuntimeConfig)| {
            let mut config = RuntimeConfig::default();
            change(&mut config);
            config.validate().map_err(|error| error.field)
        };
        assert_eq!(refused(|c| c.mailbox_capacity = 0), Err("mailbox_capacity"));
        assert_eq!(refused(|c| c.notices_capacity = 100_001), Err("notices_capacity"));
        assert_eq!(refused(|c| c.max_connections = 100_001), Err("max_connections"));
        assert_eq!(refused(|c| c.max_streams_per_connection = 0), Err("max_streams_per_connection"));
        assert_eq!(refused(|c| c.verify_workers = NonZeroUsize::MAX), Err("verify_workers"));
        assert_eq!(refused(|c| c.dial_timeout = Duration::ZERO), Err("dial_timeout"));
        assert_eq!(refused(|c| c.dial_backoff_min = Duration::from_secs(31)), Err("dial_backoff_min"));
        assert_eq!(refused(|c| c.reopen_backoff_max = Duration::from_millis(99)), Err("reopen_backoff_min"));
    }
}
