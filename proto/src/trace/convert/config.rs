//! The configuration.

use super::{Converted, Malformed, pb, rows};
use bytes::Bytes;
use soma_sync_core::{
    config::{BlockVerification, Config, Limits},
    types::CommitRef,
};
use std::time::Duration;

fn nanos(duration: Duration) -> u64 {
    // No valid configuration has more than an hour.
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Every field, as it is.
pub(in super::super) fn write(config: &Config) -> pb::Config {
    let Config {
        commit_sync_batch_size,
        max_blocks_per_fetch,
        max_fetch_response_bytes,
        timeout,
        wait_interval_when_no_peer_to_sync_content,
        max_buffered_bytes,
        look_ahead_commits,
        max_requests_per_peer,
        max_requests,
        max_verify_jobs,
        max_store_batches,
        max_store_batch_bytes,
        max_peers,
        poll_interval_level,
        poll_interval_behind,
        retry_same_peer_after,
        ban,
        max_serving_per_peer,
        max_serving,
        max_queued_per_peer,
        max_queued,
        max_data_requests_per_second,
        max_small_requests_per_second,
        max_served_bytes_per_second,
        serve_timeout,
        max_parked_per_peer,
        max_parked,
        max_park,
        follow_requests,
        follow_wait,
        max_invalid_requests,
        block_verification,
        limits,
        pinned_commits,
    } = config;
    let Limits {
        max_block_bytes,
        max_blocks_per_commit,
        max_ancestors,
        max_votes_per_block,
        max_transactions_per_block,
    } = *limits;
    pb::Config {
        commit_sync_batch_size: *commit_sync_batch_size,
        max_blocks_per_fetch: *max_blocks_per_fetch,
        max_fetch_response_bytes: *max_fetch_response_bytes,
        timeout_ns: nanos(*timeout),
        wait_interval_when_no_peer_to_sync_content_ns: nanos(*wait_interval_when_no_peer_to_sync_content),
        max_buffered_bytes: *max_buffered_bytes,
        look_ahead_commits: *look_ahead_commits,
        max_requests_per_peer: *max_requests_per_peer,
        max_requests: *max_requests,
        max_verify_jobs: *max_verify_jobs,
        max_store_batches: *max_store_batches,
        max_store_batch_bytes: *max_store_batch_bytes,
        max_peers: *max_peers,
        poll_interval_level_ns: nanos(*poll_interval_level),
        poll_interval_behind_ns: nanos(*poll_interval_behind),
        retry_same_peer_after_ns: nanos(*retry_same_peer_after),
        ban_ns: nanos(*ban),
        max_serving_per_peer: *max_serving_per_peer,
        max_serving: *max_serving,
        max_queued_per_peer: *max_queued_per_peer,
        max_queued: *max_queued,
        max_data_requests_per_second: *max_data_requests_per_second,
        max_small_requests_per_second: *max_small_requests_per_second,
        max_served_bytes_per_second: *max_served_bytes_per_second,
        serve_timeout_ns: nanos(*serve_timeout),
        max_parked_per_peer: *max_parked_per_peer,
        max_parked: *max_parked,
        max_park_ns: nanos(*max_park),
        follow_requests: *follow_requests,
        follow_wait_ns: nanos(*follow_wait),
        max_invalid_requests: *max_invalid_requests,
        digest_only: match block_verification {
            BlockVerification::Full => false,
            BlockVerification::Digest => true,
        },
        limit_block_bytes: max_block_bytes,
        limit_blocks_per_commit: max_blocks_per_commit,
        limit_ancestors: max_ancestors,
        limit_votes_per_block: max_votes_per_block,
        limit_transactions_per_block: max_transactions_per_block,
        pinned_commits: pinned_commits.iter().flat_map(CommitRef::to_bytes).collect::<Vec<_>>().into(),
    }
}

/// Refuses what no machine would take, either.
pub(in super::super) fn read(config: &pb::Config) -> Converted<Config> {
    let pinned: &Bytes = &config.pinned_commits;
    let read = Config {
        commit_sync_batch_size: config.commit_sync_batch_size,
        max_blocks_per_fetch: config.max_blocks_per_fetch,
        max_fetch_response_bytes: config.max_fetch_response_bytes,
        timeout: Duration::from_nanos(config.timeout_ns),
        wait_interval_when_no_peer_to_sync_content: Duration::from_nanos(
            config.wait_interval_when_no_peer_to_sync_content_ns,
        ),
        max_buffered_bytes: config.max_buffered_bytes,
        look_ahead_commits: config.look_ahead_commits,
        max_requests_per_peer: config.max_requests_per_peer,
        max_requests: config.max_requests,
        max_verify_jobs: config.max_verify_jobs,
        max_store_batches: config.max_store_batches,
        max_store_batch_bytes: config.max_store_batch_bytes,
        max_peers: config.max_peers,
        poll_interval_level: Duration::from_nanos(config.poll_interval_level_ns),
        poll_interval_behind: Duration::from_nanos(config.poll_interval_behind_ns),
        retry_same_peer_after: Duration::from_nanos(config.retry_same_peer_after_ns),
        ban: Duration::from_nanos(config.ban_ns),
        max_serving_per_peer: config.max_serving_per_peer,
        max_serving: config.max_serving,
        max_queued_per_peer: config.max_queued_per_peer,
        max_queued: config.max_queued,
        max_data_requests_per_second: config.max_data_requests_per_second,
        max_small_requests_per_second: config.max_small_requests_per_second,
        max_served_bytes_per_second: config.max_served_bytes_per_second,
        serve_timeout: Duration::from_nanos(config.serve_timeout_ns),
        max_parked_per_peer: config.max_parked_per_peer,
        max_parked: config.max_parked,
        max_park: Duration::from_nanos(config.max_park_ns),
        follow_requests: config.follow_requests,
        follow_wait: Duration::from_nanos(config.follow_wait_ns),
        max_invalid_requests: config.max_invalid_requests,
        block_verification: if config.digest_only {
            BlockVerification::Digest
        } else {
            BlockVerification::Full
        },
        limits: Limits {
            max_block_bytes: config.limit_block_bytes,
            max_blocks_per_commit: config.limit_blocks_per_commit,
            max_ancestors: config.limit_ancestors,
            max_votes_per_block: config.limit_votes_per_block,
            max_transactions_per_block: config.limit_transactions_per_block,
        },
        pinned_commits: rows(pinned)?.iter().map(CommitRef::from_bytes).collect(),
    };
    read.validate().map_err(|_| Malformed("a configuration that cannot work"))?;
    Ok(read)
}
