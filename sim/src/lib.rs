//! The deterministic world of soma-sync: everything in it is drawn from a seed.
//!
//! ```
//! use soma_sync_sim::chain::{ChainMaker, ChainSpec};
//!
//! let spec = ChainSpec { commits: 4, blocks_per_commit: 10, payload_bytes: 64, committee: 4, epochs: 2, seed: 7 };
//! let chain: Vec<_> = ChainMaker::new(spec)?.take(4).collect();
//! assert!(chain.windows(2).all(|pair| pair[1].header.previous == pair[0].header.reference.digest));
//! assert!(chain[1].next_committee.is_some());
//! # Ok::<(), soma_sync_sim::chain::SpecError>(())
//! ```
//!
//! [`world`] has whole networks in virtual time, [`hostile`] what some of their nodes do, and [`oracle`] the judge of
//! what the others do. `cargo run --release -p soma-sync-sim --example attack_table` prints what attacks cost.
#![forbid(unsafe_code)]

pub mod chain;
mod draw;
pub mod fault;
pub mod hostile;
pub mod oracle;
pub mod small_scope;
pub mod swarm;
pub mod trace;
pub mod violation;
pub mod world;
