//! See the body, which ordinary tests run too.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| soma_sync_tests::fuzz::run("read_trace", bytes));
