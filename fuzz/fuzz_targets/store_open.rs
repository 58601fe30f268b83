//! See the body, which ordinary tests run too.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::panic;

// The database panics over some files, and the store takes that for damage; the fuzzer's own hook would end the process.
// A panic that comes as far as the fuzzer still does.
fuzz_target!(
    init: panic::set_hook(Box::new(|info| {
        if !info.location().is_some_and(|at| at.file().contains("/redb-")) {
            eprintln!("{info}");
        }
    })),
    |bytes: &[u8]| soma_sync_tests::fuzz::run("store_open", bytes)
);
