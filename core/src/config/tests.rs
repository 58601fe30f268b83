use super::*;
use crate::types::{CommitDigest, CommitIndex};
use alloc::vec;

/// Sets a field to what may be more than it can hold, which is then the most that it can.
type Set = fn(&mut Config, u64);

macro_rules! set {
    ($($field:ident).+) => {
        (|config: &mut Config, value: u64| config.$($field).+ = value.try_into().unwrap_or(u32::MAX.into())) as Set
    };
}

macro_rules! set_micros {
    ($field:ident) => {
        (|config: &mut Config, value: u64| config.$field = Duration::from_micros(value)) as Set
    };
}

const HOUR_IN_MICROS: u64 = 3_600_000_000;

/// Each field with its least and its most.
const BOUNDS: [(&str, Set, u64, u64); 35] = [
    ("commit_sync_batch_size", set!(commit_sync_batch_size), 1, 10_000),
    ("max_blocks_per_fetch", set!(max_blocks_per_fetch), 1, 100_000),
    ("max_fetch_response_bytes", set!(max_fetch_response_bytes), 65_536, 1_073_741_824),
    ("timeout", set_micros!(timeout), 1_000, HOUR_IN_MICROS),
    (
        "wait_interval_when_no_peer_to_sync_content",
        set_micros!(wait_interval_when_no_peer_to_sync_content),
        1_000,
        HOUR_IN_MICROS,
    ),
    ("look_ahead_commits", set!(look_ahead_commits), 100, 1_000_000),
    ("max_requests_per_peer", set!(max_requests_per_peer), 1, 1_000),
    ("max_requests", set!(max_requests), 1, 10_000),
    ("max_verify_jobs", set!(max_verify_jobs), 1, 10_000),
    ("max_store_batches", set!(max_store_batches), 1, 100),
    ("max_store_batch_bytes", set!(max_store_batch_bytes), 65_536, u64::MAX),
    ("max_peers", set!(max_peers), 1, 100_000),
    ("poll_interval_level", set_micros!(poll_interval_level), 1_000, HOUR_IN_MICROS),
    ("poll_interval_behind", set_micros!(poll_interval_behind), 1_000, HOUR_IN_MICROS),
    ("retry_same_peer_after", set_micros!(retry_same_peer_after), 1_000, HOUR_IN_MICROS),
    ("ban", set_micros!(ban), 1_000, HOUR_IN_MICROS),
    ("max_serving_per_peer", set!(max_serving_per_peer), 1, 1_000),
    ("max_serving", set!(max_serving), 1, 100_000),
    ("max_queued_per_peer", set!(max_queued_per_peer), 0, 1_000),
    ("max_queued", set!(max_queued), 0, 100_000),
    ("max_data_requests_per_second", set!(max_data_requests_per_second), 1, 1_000_000),
    ("max_small_requests_per_second", set!(max_small_requests_per_second), 1, 1_000_000),
    ("max_served_bytes_per_second", set!(max_served_bytes_per_second), 65_536, 1_099_511_627_776),
    ("serve_timeout", set_micros!(serve_timeout), 1_000, HOUR_IN_MICROS),
    ("max_parked_per_peer", set!(max_parked_per_peer), 0, 1_000),
    ("max_parked", set!(max_parked), 0, 100_000),
    ("max_park", set_micros!(max_park), 1_000, HOUR_IN_MICROS),
    ("follow_requests", set!(follow_requests), 0, 100),
    ("follow_wait", set_micros!(follow_wait), 1_000, HOUR_IN_MICROS),
    ("max_invalid_requests", set!(max_invalid_requests), 1, u64::MAX),
    ("max_block_bytes", set!(limits.max_block_bytes), 1_024, 1_073_741_824),
    ("max_blocks_per_commit", set!(limits.max_blocks_per_commit), 1, 1_000_000),
    ("max_ancestors", set!(limits.max_ancestors), 1, 10_000),
    ("max_votes_per_block", set!(limits.max_votes_per_block), 1, 1_000_000),
    ("max_transactions_per_block", set!(limits.max_transactions_per_block), 1, 10_000_000),
];

#[test]
fn a_field_takes_what_it_must_not_or_refuses_what_it_may_be() {
    for (field, set, least, most) in BOUNDS {
        let refused = |value: u64| {
            let mut config = Config::default();
            set(&mut config, value);
            config.validate().is_err_and(|error| error.field == field)
        };
        assert!(!refused(least) && !refused(most), "{field} is refused at a bound");
        assert!(least.checked_sub(1).is_none_or(refused), "{field} is taken below its least");
        assert!(most.checked_add(1).is_none_or(refused), "{field} is taken above its most");
    }
}

#[test]
fn a_budget_is_taken_that_does_not_hold_the_frontier_twice() {
    let needed = Config::default().frontier_bytes() * 2;
    let with = |max_buffered_bytes| Config { max_buffered_bytes, ..Config::default() }.validate();
    assert_eq!(with(needed), Ok(()));
    assert_eq!(with(needed - 1).unwrap_err().field, "max_buffered_bytes");
}

#[test]
fn pinned_commits_are_taken_twice_or_in_no_order_or_without_end() {
    let pin = |index| CommitRef { index: CommitIndex::new(index), digest: CommitDigest::new([1; 32]) };
    let refused = |pinned: Vec<u32>| {
        let pinned_commits = pinned.into_iter().map(pin).collect();
        Config { pinned_commits, ..Config::default() }.validate().err().map(|error| error.field)
    };
    assert_eq!(refused((1..=10_000).collect()), None);
    for pinned in [(1..=10_001).collect(), vec![1, 1], vec![2, 1]] {
        assert_eq!(refused(pinned), Some("pinned_commits"));
    }
}

/// The default: answers of 4 MiB, in which the largest block of 4 MiB has no room, and a budget of 128 MiB.
#[test]
fn what_is_set_aside_is_not_what_the_fields_say() {
    let config = Config::default();
    assert_eq!(config.limits.max_commit_bytes(), 10_000 * 48 + 105);
    assert_eq!(config.answer_bytes(), 4 * MIB + KIB);
    assert_eq!(config.frontier_bytes(), 3 * (4 * MIB + KIB) + 4 * MIB);
    // A thousand votes of the largest block each are more than what the budget leaves, of which it is half.
    assert_eq!(config.certified_answer_bytes(), (128 * MIB - 2 * (4 * MIB + KIB)) / 2);

    let few = Limits { max_ancestors: 8, ..Limits::default() };
    let config = Config { limits: few, ..config };
    assert_eq!(config.certified_answer_bytes(), 8 * (4 * MIB + KIB) + 480_105);

    let small = Limits { max_block_bytes: KIB, max_ancestors: 1, ..few };
    let config = Config { limits: small, ..config };
    assert_eq!(config.answer_bytes(), 4 * MIB);
    assert_eq!(config.certified_answer_bytes(), 4 * MIB);

    let config = Config { max_fetch_response_bytes: 64 * KIB, ..config };
    assert_eq!(config.answer_bytes(), 480_105 + KIB, "the largest commit");
}
