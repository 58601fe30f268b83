//! Checking a block allocates next to nothing: the bytes are read where they are.

use bytes::Bytes;
use soma_sync_core::{
    block::Block,
    config::{BlockVerification, Limits},
    job::{BlockOutcome, CheckJob, Job, Verdict},
    payload::Payload,
};
use soma_sync_tests::fixture::{block, committee, reference, sign};
use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
};

/// The system's allocator, counting this thread's calls.
struct Counting;

thread_local! {
    static CALLS: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call is passed on unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        CALLS.with(|calls| calls.set(calls.get() + 1));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        CALLS.with(|calls| calls.set(calls.get() + 1));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Calls of the allocator a block, for checking 256 blocks of about 512 bytes.
fn calls_per_block(mode: BlockVerification) -> f64 {
    let blocks: Vec<_> = (0..256)
        .map(|number| {
            let transactions = (0..3).map(|_| Bytes::from(vec![7; 60])).collect();
            let votes = vec![soma_sync_core::types::CommitRef::GENESIS];
            sign(&Block {
                transactions,
                votes,
                timestamp_ms: number,
                ..block(u32::try_from(number % 4).unwrap(), 7)
            })
        })
        .collect();
    assert!(blocks.iter().all(|(_, bytes)| (480..560).contains(&bytes.len())));
    assert!(blocks.iter().all(|(named, _)| named.digest != reference(0, 7).digest));
    let job = CheckJob {
        refs: blocks.iter().map(|(reference, _)| *reference).collect(),
        blocks: blocks.iter().map(|(_, bytes)| Payload::new(bytes.clone())).collect(),
        committee: committee(),
        mode,
        limits: Limits::default(),
    };
    let job = Job::Check(Box::new(job));
    let before = CALLS.with(Cell::get);
    let Verdict::Check(outcomes) = job.run([1; 32]) else { panic!("another kind") };
    let calls = CALLS.with(Cell::get) - before;
    assert!(outcomes.iter().all(|outcome| matches!(outcome, BlockOutcome::Good(_))));
    f64::from(u32::try_from(calls).expect("few")) / 256.0
}

#[test]
fn checking_a_block_takes_no_more_than_three_allocations() {
    let full = calls_per_block(BlockVerification::Full);
    assert!(full <= 3.0, "{full} allocations a block");
    let digest = calls_per_block(BlockVerification::Digest);
    assert!(digest <= 1.5, "{digest} allocations a block by digest alone");
}
