#![no_main]
//! What happens to a machine.

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    soma_sync_tests::fuzz_machine::machine_inputs(bytes);
});
