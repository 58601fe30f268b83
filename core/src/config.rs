//! The machine's configuration: a plain struct with defaults, checked once.

use crate::{
    defence::{Defence, stands},
    types::CommitRef,
};
use alloc::vec::Vec;
use core::time::Duration;

/// One binary kilobyte and megabyte, in bytes.
const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// Everything that can be set. Take the default and change fields; [`Config::validate`] is called by
/// [`SyncMachine::new`](crate::SyncMachine::new).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    /// Most commits in one request, at least 1 and at most 10,000. Larger ranges need fewer certificates; smaller
    /// ones spread over peers sooner. Seed parameter.
    pub commit_sync_batch_size: u32,
    /// Most blocks in one request, at least 1 and at most 100,000. Seed parameter.
    pub max_blocks_per_fetch: u32,
    /// Most bytes in one message of an answer, at least 64 KiB and at most 1 GiB. Also what a request for blocks or
    /// commits reserves in the byte budget, unless the largest block needs more. Seed parameter.
    pub max_fetch_response_bytes: u64,
    /// Upper bound on any request, at least 1 ms and at most an hour. Seed parameter.
    pub timeout: Duration,
    /// How long until peers are looked at again when none can serve, at least 1 ms and at most an hour. Seed parameter.
    pub wait_interval_when_no_peer_to_sync_content: Duration,
    /// Bytes of untrusted or not yet stored data held at any time. At least what [`Config::frontier_bytes`] needs,
    /// twice. More lets more requests be in flight.
    pub max_buffered_bytes: u64,
    /// How many commits above the stored tip are worked on at once, and how far consumers may lag behind the stored
    /// tip before fetching stops. At least `commit_sync_batch_size`, at most 1,000,000.
    pub look_ahead_commits: u32,
    /// Most requests in flight to one peer, at least 1 and at most 1,000.
    pub max_requests_per_peer: u32,
    /// Most requests in flight in all, at least 1 and at most 10,000. Where a second peer is asked for the commit that
    /// everything waits for, that request comes on top.
    pub max_requests: u32,
    /// Most verification jobs handed out at once, at least 1 and at most 10,000. As many as there are workers, and a
    /// few to keep them busy.
    pub max_verify_jobs: u32,
    /// Most batches handed to storage and not yet durable, at least 1 and at most 100.
    pub max_store_batches: u32,
    /// Most bytes of blocks in one batch for storage, at least 64 KiB; a batch of one commit may be larger.
    pub max_store_batch_bytes: u64,
    /// Most peers that the machine keeps a record of, connected or not, at least 1 and at most 100,000.
    pub max_peers: u32,
    /// Interval of asking a peer how far it is when we are level, at least 1 ms and at most an hour.
    pub poll_interval_level: Duration,
    /// The same when we are behind.
    pub poll_interval_behind: Duration,
    /// How long the same peer is not asked for the same range after it failed to deliver, at most an hour.
    pub retry_same_peer_after: Duration,
    /// How long a peer is kept out after a provable offence; doubled with each further one, up to 64 times. At least
    /// 1 ms and at most an hour.
    pub ban: Duration,
    /// Most inbound requests being served at once for one peer, at least 1 and at most 1,000. No peer is served more
    /// at once than could be served beside it, so that there is always a place for who comes next.
    pub max_serving_per_peer: u32,
    /// Most inbound requests being served at once in all, at least 1 and at most 100,000.
    pub max_serving: u32,
    /// Most inbound requests of one peer that wait to be served, at most 1,000. More smooth bursts; fewer send a peer to
    /// others sooner. None: what cannot be served at once is refused.
    pub max_queued_per_peer: u32,
    /// The same of all peers, at most 100,000. Each may hold as many block references as `max_blocks_per_fetch`, of
    /// about 50 bytes.
    pub max_queued: u32,
    /// Most requests for commits and blocks that one peer may send in a second, at least 1 and at most 1,000,000. What
    /// it does not use is saved up for a second. Fewer protect the disk; a peer that catches up over small blocks needs
    /// some thousands.
    pub max_data_requests_per_second: u32,
    /// The same for requests that a short message answers: which commit, how far, and pushes.
    pub max_small_requests_per_second: u32,
    /// Most bytes of commits and blocks that one peer is sent in a second, at least 64 KiB and at most 1 TiB; a single
    /// answer may pass it, and the next one waits for that. Charged with all that an answer may have when it is
    /// admitted, and with what it had when it is sent. Fewer keep the uplink for others; a peer on a fast link takes
    /// longer.
    pub max_served_bytes_per_second: u64,
    /// How long an inbound request may take once it is being served, at least 1 ms and at most an hour.
    pub serve_timeout: Duration,
    /// Most requests for commits that are not there yet and wait here for them, of one peer; at most 1,000. None: a
    /// request for what is not there is refused at once, and nobody can follow us but by asking again and again.
    pub max_parked_per_peer: u32,
    /// The same of all peers, at most 100,000.
    pub max_parked: u32,
    /// Longest that a request waits, whatever it asks for; at least 1 ms and at most an hour.
    pub max_park: Duration,
    /// How many requests of ours wait at peers for the next commits while we are at the tip, at most 100: one for each
    /// of as many commits. More help where commits come faster than round trips. None: the tip is followed by asking
    /// for what peers say they have.
    pub follow_requests: u32,
    /// How long such a request is to wait; at least 1 ms and at most an hour.
    pub follow_wait: Duration,
    /// How many invalid requests a peer may send before it is disconnected, at least 1.
    pub max_invalid_requests: u32,
    /// How much is checked of a block beyond its digest.
    pub block_verification: BlockVerification,
    /// Bounds of the formats.
    pub limits: Limits,
    /// Commits that must be on the chain, given by the operator; ascending, one per index, at most 10,000.
    pub pinned_commits: Vec<CommitRef>,
}
saved! { struct Config {
    commit_sync_batch_size, max_blocks_per_fetch, max_fetch_response_bytes, timeout,
    wait_interval_when_no_peer_to_sync_content, max_buffered_bytes, look_ahead_commits, max_requests_per_peer,
    max_requests, max_verify_jobs, max_store_batches, max_store_batch_bytes, max_peers, poll_interval_level,
    poll_interval_behind, retry_same_peer_after, ban, max_serving_per_peer, max_serving, max_queued_per_peer,
    max_queued, max_data_requests_per_second, max_small_requests_per_second, max_served_bytes_per_second,
    serve_timeout, max_parked_per_peer, max_parked, max_park, follow_requests, follow_wait,
    max_invalid_requests, block_verification, limits, pinned_commits,
} }

/// How much is checked of a block that a certified commit names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BlockVerification {
    /// Digest, signature, author, epoch, ancestors, end-of-epoch fields.
    #[default]
    Full,
    /// Digest and decoding only. The digest ties the block to a quorum certificate.
    Digest,
}
saved! { enum BlockVerification { 0 => Full, 1 => Digest } }

/// Bounds that decoding applies before it allocates. A chain whose blocks pass them cannot be synced: keep them at
/// what the chain's own consensus allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Limits {
    /// Bytes of one signed block, at least 1 KiB and at most 1 GiB.
    pub max_block_bytes: u64,
    /// Blocks that one commit names, at least 1 and at most 1,000,000.
    pub max_blocks_per_commit: u32,
    /// Ancestors of one block, at least 1 and at most 10,000. Also the largest committee.
    pub max_ancestors: u32,
    /// Commit votes in one block, at least 1 and at most 1,000,000.
    pub max_votes_per_block: u32,
    /// Transactions in one block, at least 1 and at most 10,000,000.
    pub max_transactions_per_block: u32,
}
saved! { struct Limits {
    max_block_bytes, max_blocks_per_commit, max_ancestors, max_votes_per_block, max_transactions_per_block,
} }

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_block_bytes: 4 * MIB,
            max_blocks_per_commit: 10_000,
            max_ancestors: 1_000,
            max_votes_per_block: 10_000,
            max_transactions_per_block: 100_000,
        }
    }
}

impl Limits {
    /// Whether every bound can work.
    fn validate(&self) -> Result<(), ConfigError> {
        check(
            (KIB..=1024 * MIB).contains(&self.max_block_bytes),
            "max_block_bytes",
            "between 1 KiB and 1 GiB",
        )?;
        check(
            (1..=1_000_000).contains(&self.max_blocks_per_commit),
            "max_blocks_per_commit",
            "between 1 and 1,000,000",
        )?;
        check((1..=10_000).contains(&self.max_ancestors), "max_ancestors", "between 1 and 10,000")?;
        check(
            (1..=1_000_000).contains(&self.max_votes_per_block),
            "max_votes_per_block",
            "between 1 and 1,000,000",
        )?;
        check(
            (1..=10_000_000).contains(&self.max_transactions_per_block),
            "max_transactions_per_block",
            "between 1 and 10,000,000",
        )
    }

    /// The most bytes that an encoded commit can have: its fixed fields, a length and the block references.
    pub fn max_commit_bytes(&self) -> u64 {
        u64::from(self.max_blocks_per_commit).saturating_mul(48).saturating_add(105)
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            commit_sync_batch_size: 100,
            max_blocks_per_fetch: 1000,
            max_fetch_response_bytes: 4 * MIB,
            timeout: Duration::from_secs(30),
            wait_interval_when_no_peer_to_sync_content: Duration::from_secs(1),
            max_buffered_bytes: 128 * MIB,
            look_ahead_commits: 3_200,
            max_requests_per_peer: 16,
            max_requests: 64,
            max_verify_jobs: 16,
            max_store_batches: 2,
            max_store_batch_bytes: 8 * MIB,
            max_peers: 1_000,
            poll_interval_level: Duration::from_secs(5),
            poll_interval_behind: Duration::from_secs(1),
            retry_same_peer_after: Duration::from_secs(5),
            ban: Duration::from_secs(60),
            max_serving_per_peer: 32,
            max_serving: 256,
            max_queued_per_peer: 4,
            max_queued: 1_024,
            max_data_requests_per_second: 8_000,
            max_small_requests_per_second: 8_000,
            max_served_bytes_per_second: 1_024 * MIB,
            serve_timeout: Duration::from_secs(60),
            max_parked_per_peer: 8,
            max_parked: 1_024,
            max_park: Duration::from_secs(20),
            follow_requests: 4,
            follow_wait: Duration::from_secs(10),
            max_invalid_requests: 10,
            block_verification: BlockVerification::Full,
            limits: Limits::default(),
            pinned_commits: Vec::new(),
        }
    }
}

/// A field of [`Config`] that has a value which cannot work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("configuration: {field} must be {requirement}")]
pub struct ConfigError {
    /// The field's name.
    pub field: &'static str,
    /// What it must be.
    pub requirement: &'static str,
}

/// One duration in the range that every duration of the configuration has.
fn check_duration(field: &'static str, value: Duration) -> Result<(), ConfigError> {
    let bounds = Duration::from_millis(1)..=Duration::from_secs(3600);
    check(bounds.contains(&value), field, "between 1 ms and 1 h")
}

fn check(holds: bool, field: &'static str, requirement: &'static str) -> Result<(), ConfigError> {
    if holds { Ok(()) } else { Err(ConfigError { field, requirement }) }
}

impl Config {
    /// Bytes that a request for commits or blocks reserves: its answer is never allowed to be larger.
    pub fn answer_bytes(&self) -> u64 {
        // Room for the largest block, or the largest commit, and the message around it.
        let largest = self.limits.max_block_bytes.max(self.limits.max_commit_bytes());
        let least = if stands(Defence::LargestItem) { largest.saturating_add(KIB) } else { 0 };
        self.max_fetch_response_bytes.max(least)
    }

    /// The most bytes that an answer of commits may have: more than [`Config::answer_bytes`] where the votes for a single
    /// commit need it, as far as the budget allows.
    pub fn certified_answer_bytes(&self) -> u64 {
        let largest = self.limits.max_block_bytes.saturating_add(KIB);
        let votes = u64::from(self.limits.max_ancestors).saturating_mul(largest);
        let needed = votes.saturating_add(self.limits.max_commit_bytes());
        // An answer is charged twice, and beside it the frontier needs an answer of blocks and the largest block.
        let spare = self.max_buffered_bytes.saturating_sub(self.answer_bytes()).saturating_sub(largest);
        needed.min(spare / 2).max(self.answer_bytes())
    }

    /// Bytes of the budget that only the lowest unfinished commit may use, so that it can always go on: the answer that
    /// it came in, with what was decoded of it; an answer in flight; and the largest block.
    pub fn frontier_bytes(&self) -> u64 {
        self.answer_bytes().saturating_mul(3).saturating_add(self.limits.max_block_bytes)
    }

    /// Whether every field can work, alone and together.
    ///
    /// # Errors
    ///
    /// The first field that cannot, and what it must be.
    pub fn validate(&self) -> Result<(), ConfigError> {
        check(
            (1..=10_000).contains(&self.commit_sync_batch_size),
            "commit_sync_batch_size",
            "between 1 and 10,000",
        )?;
        check(
            (1..=100_000).contains(&self.max_blocks_per_fetch),
            "max_blocks_per_fetch",
            "between 1 and 100,000",
        )?;
        let message = 64 * KIB..=1024 * MIB;
        check(
            message.contains(&self.max_fetch_response_bytes),
            "max_fetch_response_bytes",
            "between 64 KiB and 1 GiB",
        )?;
        check_duration("timeout", self.timeout)?;
        check_duration(
            "wait_interval_when_no_peer_to_sync_content",
            self.wait_interval_when_no_peer_to_sync_content,
        )?;
        check(
            (self.commit_sync_batch_size..=1_000_000).contains(&self.look_ahead_commits),
            "look_ahead_commits",
            "at least commit_sync_batch_size and at most 1,000,000",
        )?;
        check(
            (1..=1_000).contains(&self.max_requests_per_peer),
            "max_requests_per_peer",
            "between 1 and 1,000",
        )?;
        check((1..=10_000).contains(&self.max_requests), "max_requests", "between 1 and 10,000")?;
        check((1..=10_000).contains(&self.max_verify_jobs), "max_verify_jobs", "between 1 and 10,000")?;
        check((1..=100).contains(&self.max_store_batches), "max_store_batches", "between 1 and 100")?;
        check(self.max_store_batch_bytes >= 64 * KIB, "max_store_batch_bytes", "at least 64 KiB")?;
        check((1..=100_000).contains(&self.max_peers), "max_peers", "between 1 and 100,000")?;
        check_duration("poll_interval_level", self.poll_interval_level)?;
        check_duration("poll_interval_behind", self.poll_interval_behind)?;
        check_duration("retry_same_peer_after", self.retry_same_peer_after)?;
        check_duration("ban", self.ban)?;
        check(
            (1..=1_000).contains(&self.max_serving_per_peer),
            "max_serving_per_peer",
            "between 1 and 1,000",
        )?;
        check((1..=100_000).contains(&self.max_serving), "max_serving", "between 1 and 100,000")?;
        self.validate_serving()?;
        check(self.follow_requests <= 100, "follow_requests", "at most 100")?;
        check_duration("follow_wait", self.follow_wait)?;
        check(self.max_invalid_requests >= 1, "max_invalid_requests", "at least 1")?;
        self.limits.validate()?;
        check(
            self.max_buffered_bytes >= self.frontier_bytes().saturating_mul(2),
            "max_buffered_bytes",
            "at least twice what the frontier needs (three answers and the largest block)",
        )?;
        check(
            self.pinned_commits.len() <= 10_000 && self.pinned_commits.is_sorted_by(|a, b| a.index < b.index),
            "pinned_commits",
            "at most 10,000, ascending, one per index",
        )
    }

    /// The part of it that is about peers' requests beyond those being served.
    fn validate_serving(&self) -> Result<(), ConfigError> {
        check(self.max_queued_per_peer <= 1_000, "max_queued_per_peer", "at most 1,000")?;
        check(self.max_queued <= 100_000, "max_queued", "at most 100,000")?;
        let rates = [
            ("max_data_requests_per_second", self.max_data_requests_per_second),
            ("max_small_requests_per_second", self.max_small_requests_per_second),
        ];
        for (field, rate) in rates {
            check((1..=1_000_000).contains(&rate), field, "between 1 and 1,000,000")?;
        }
        check(
            (64 * KIB..=1024 * 1024 * MIB).contains(&self.max_served_bytes_per_second),
            "max_served_bytes_per_second",
            "between 64 KiB and 1 TiB",
        )?;
        check_duration("serve_timeout", self.serve_timeout)?;
        check(self.max_parked_per_peer <= 1_000, "max_parked_per_peer", "at most 1,000")?;
        check(self.max_parked <= 100_000, "max_parked", "at most 100,000")?;
        check_duration("max_park", self.max_park)
    }
}

#[cfg(test)]
mod tests;
