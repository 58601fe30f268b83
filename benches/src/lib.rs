//! The headline figures: `cargo bench -p soma-sync-benches`.
