//! The headline figures. What each stage costs by itself: `cargo bench -p soma-sync-benches`. How far behind a validator
//! its followers are: `cargo run --release -p soma-sync-benches --bin tip`.

/// The README's Rust blocks, compiled as tests of the documentation: here, because everything that they use is here.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
mod readme {}
