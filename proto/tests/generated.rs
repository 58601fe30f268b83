//! The checked-in Rust of the protobuf messages is what their definitions generate.

use std::{env, fs, path::Path};

/// Run with `SOMA_SYNC_REGENERATE=1` to write the generated files anew after a change to a definition.
#[test]
fn checked_in_messages_are_what_the_definitions_generate() {
    generated("soma_sync", "src/generated.rs");
    generated("trace", "src/trace/generated.rs");
}

/// Holds the Rust in `checked_in` against what `proto/{definition}.proto` generates.
fn generated(definition: &str, checked_in: &str) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = tempfile::tempdir().expect("a temporary directory");
    let descriptors = protox::compile([format!("{definition}.proto")], [root.join("proto")])
        .expect("the definition compiles");
    let package = descriptors.file.last().map(|file| file.package().to_owned()).expect("it has a package");
    prost_build::Config::new()
        .bytes(["."])
        .out_dir(out.path())
        .compile_fds(descriptors)
        .expect("Rust is generated");
    let fresh =
        fs::read_to_string(out.path().join(format!("{package}.rs"))).expect("the generated file is there");

    let path = root.join(checked_in);
    if env::var_os("SOMA_SYNC_REGENERATE").is_some() {
        fs::write(&path, &fresh).expect("the generated file is written");
    }
    let found = fs::read_to_string(&path).expect("the generated file is checked in");
    assert!(found == fresh, "{checked_in} is stale: run this test with SOMA_SYNC_REGENERATE=1");
}
