//! The checked-in Rust of the protobuf messages is what their definition generates.

use std::{env, fs, path::Path};

/// Run with `SOMA_SYNC_REGENERATE=1` to write `src/generated.rs` anew after a change to `proto/soma_sync.proto`.
#[test]
fn checked_in_messages_are_what_the_definition_generates() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = tempfile::tempdir().expect("a temporary directory");
    let descriptors =
        protox::compile(["soma_sync.proto"], [root.join("proto")]).expect("the definition compiles");
    prost_build::Config::new()
        .bytes(["."])
        .out_dir(out.path())
        .compile_fds(descriptors)
        .expect("Rust is generated");
    let fresh = fs::read_to_string(out.path().join("soma_sync.rs")).expect("the generated file is there");

    let checked_in = root.join("src/generated.rs");
    if env::var_os("SOMA_SYNC_REGENERATE").is_some() {
        fs::write(&checked_in, &fresh).expect("the generated file is written");
    }
    let found = fs::read_to_string(&checked_in).expect("src/generated.rs is checked in");
    assert!(found == fresh, "src/generated.rs is stale: run this test with SOMA_SYNC_REGENERATE=1");
}
