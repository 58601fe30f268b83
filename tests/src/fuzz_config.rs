//! Bytes as the configuration of a node: any numbers in any field. It is refused for a field that is wrong, or it works.

use crate::{
    fuzz::rarely,
    fuzz_machine::{Outcome, machine_inputs_under},
};
use arbitrary::{Result, Unstructured};
use soma_sync_core::{
    Config,
    config::{BlockVerification, Limits},
    types::{CommitDigest, CommitIndex, CommitRef},
};
use soma_sync_runtime_tokio::config::RuntimeConfig;
use soma_sync_transport_quic::QuicConfig;
use std::{num::NonZeroUsize, time::Duration};

/// A kind of value that a field has.
trait Value: Sized {
    /// One like it: itself, something beside it, or anything.
    fn another(&self, input: &mut Unstructured<'_>) -> Result<Self>;
}

/// A number about as large, or at an end of what there is, or a power of two, or any.
fn another(input: &mut Unstructured<'_>, usual: u64) -> Result<u64> {
    Ok(match input.int_in_range(0..=9u8)? {
        0 => 0,
        1 => 1,
        2 => u64::MAX,
        3 => usual / 2,
        4 => usual.saturating_mul(2),
        5 => usual.saturating_sub(1),
        6 => usual.saturating_add(1),
        7 | 8 => (1 << input.int_in_range(0..=40u32)?) + input.int_in_range(0..=2)? - 1,
        _ => input.arbitrary()?,
    })
}

macro_rules! numbers {
    ($($kind:ty),+) => {$(
        impl Value for $kind {
            fn another(&self, input: &mut Unstructured<'_>) -> Result<Self> {
                Ok(<$kind>::try_from(another(input, *self as u64)?).unwrap_or(<$kind>::MAX))
            }
        }
    )+};
}

numbers!(u32, u64, usize);

impl Value for NonZeroUsize {
    fn another(&self, input: &mut Unstructured<'_>) -> Result<Self> {
        Ok(Self::new(self.get().another(input)?).unwrap_or(Self::MIN))
    }
}

impl Value for Duration {
    fn another(&self, input: &mut Unstructured<'_>) -> Result<Self> {
        let micros = u64::try_from(self.as_micros()).unwrap_or(u64::MAX);
        Ok(if rarely(input, 10)? { Self::MAX } else { Self::from_micros(another(input, micros)?) })
    }
}

impl Value for BlockVerification {
    fn another(&self, input: &mut Unstructured<'_>) -> Result<Self> {
        input.choose(&[Self::Full, Self::Digest]).copied()
    }
}

impl Value for Vec<CommitRef> {
    fn another(&self, input: &mut Unstructured<'_>) -> Result<Self> {
        let commit = |input: &mut Unstructured<'_>| -> Result<CommitRef> {
            // Not the first one: where that is wrong, a machine has nothing to begin with.
            let index = CommitIndex::new(input.int_in_range(1..=60)?);
            Ok(CommitRef { index, digest: CommitDigest::new([input.arbitrary()?; 32]) })
        };
        (0..input.int_in_range(0..=3)?).map(|_| commit(input)).collect()
    }
}

/// Draws fields of a configuration, and puts usual values back by name. Naming all of them is checked by the compiler.
macro_rules! fields {
    ($kind:ident { $($field:ident),+ } and { $($left:ident),* }) => {
        impl Fields for $kind {
            fn draw(mut self, input: &mut Unstructured<'_>, odds: u8) -> Result<Self> {
                let Self { $($field: _,)+ $($left: _),* } = &self;
                $(if rarely(input, odds)? {
                    self.$field = self.$field.another(input)?;
                })+
                Ok(self)
            }

            fn put_back(&mut self, field: &str) {
                let usual = Self::default();
                $(if field == stringify!($field) {
                    self.$field = usual.$field;
                    return;
                })+
            }
        }
    };
}

trait Fields: Sized {
    /// About one in `odds` fields changed.
    fn draw(self, input: &mut Unstructured<'_>, odds: u8) -> Result<Self>;
    /// Gives a field its usual value again; nothing happens where there is none of this name.
    fn put_back(&mut self, field: &str);
}

fields! { Limits {
    max_block_bytes, max_blocks_per_commit, max_ancestors, max_votes_per_block, max_transactions_per_block
} and {} }

fields! { Config {
    commit_sync_batch_size, max_blocks_per_fetch, max_fetch_response_bytes, timeout,
    wait_interval_when_no_peer_to_sync_content, max_buffered_bytes, look_ahead_commits, max_requests_per_peer,
    max_requests, max_verify_jobs, max_store_batches, max_store_batch_bytes, max_peers, poll_interval_level,
    poll_interval_behind, retry_same_peer_after, ban, max_serving_per_peer, max_serving, max_queued_per_peer,
    max_queued, max_data_requests_per_second, max_small_requests_per_second, max_served_bytes_per_second,
    serve_timeout, max_parked_per_peer, max_parked, max_park, follow_requests, follow_wait, max_invalid_requests,
    block_verification, pinned_commits
} and { limits } }

fields! { RuntimeConfig {
    mailbox_capacity, synced_commit_broadcast_channel_capacity, recent_sub_dag_bytes, verify_workers,
    max_connections, max_streams_per_connection, request_timeout, dial_timeout, dial_backoff_min,
    dial_backoff_max, reopen_backoff_min, reopen_backoff_max, notices_capacity, shutdown_timeout
} and {} }

fields! { QuicConfig {
    max_connections, max_connections_per_address, max_streams, stream_window_bytes, connection_window_bytes_min,
    connection_window_bytes_max, send_window_bytes, socket_buffer_bytes, handshake_timeout, keep_alive_interval,
    idle_timeout, close_timeout
} and { allow } }

/// A configuration of each kind, and a machine that runs under the first, where that is one that can work. `None` where
/// it is not.
///
/// # Panics
///
/// When a configuration is refused for something that is not wrong with it, or one is accepted under which a machine
/// breaks an invariant.
pub fn configuration(bytes: &[u8]) -> Option<Outcome> {
    let mut input = Unstructured::new(bytes);
    let odds = *input.choose(&[40, 8, 2]).ok()?;
    let limits = Limits::default().draw(&mut input, odds).ok()?;
    let config = Config::default().draw(&mut input, odds).ok()?;
    let config = Config { limits, ..config };
    repaired(RuntimeConfig::default().draw(&mut input, odds).ok()?, |config| {
        config.validate().map_err(|error| (error.field, error.to_string()))
    });
    repaired(QuicConfig::default().draw(&mut input, odds).ok()?, |config| {
        config.validate().map_err(|error| (error.field, error.to_string()))
    });
    repaired(Both(config.clone()), |Both(config)| {
        config.validate().map_err(|error| (error.field, error.to_string()))
    });
    config.validate().ok()?;
    let largest = config.limits.max_block_bytes.max(config.limits.max_commit_bytes());
    assert!(config.answer_bytes() > largest, "the largest item does not fit an answer");
    assert!(config.certified_answer_bytes() >= config.answer_bytes());
    assert!(config.frontier_bytes() <= config.max_buffered_bytes / 2, "the frontier takes more than half");
    machine_inputs_under(config, &mut input)
}

/// Whatever a configuration is refused for is put back, with what it is held against, until it is accepted: so what is
/// named is what is wrong, and nothing is twice.
fn repaired<T: Fields + std::fmt::Debug>(
    mut config: T,
    validate: impl Fn(&T) -> std::result::Result<(), (&'static str, String)>,
) {
    let mut named = Vec::new();
    while let Err((field, why)) = validate(&config) {
        assert!(why.contains(field) && !named.contains(&why), "{why}, after {named:?}: {config:?}");
        let words = why.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
        words.for_each(|word| config.put_back(word));
        named.push(why);
    }
}

/// The machine's configuration and the limits in it.
#[derive(Debug)]
struct Both(Config);

impl Fields for Both {
    fn draw(self, input: &mut Unstructured<'_>, odds: u8) -> Result<Self> {
        self.0.draw(input, odds).map(Self)
    }

    fn put_back(&mut self, field: &str) {
        self.0.limits.put_back(field);
        self.0.put_back(field);
        if field == "max_buffered_bytes" {
            // It is held against what the largest items need.
            self.0.limits = Limits::default();
            self.0.put_back("max_fetch_response_bytes");
        }
    }
}
