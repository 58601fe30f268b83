//! The headline figures. What each stage costs by itself: `cargo bench -p soma-sync-benches`. How far behind a validator
//! its followers are: `cargo run --release -p soma-sync-benches --bin tip`.
