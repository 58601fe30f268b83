//! Whole networks by the thousand, each drawn from a seed: what it is made of, what goes wrong in it, and when.
//!
//! [`Plan::draw`] says what a seed stands for, [`run`] plays it and judges it, and [`run_seeds`] does so for many seeds on
//! several threads. Each kind of fault is on or off for a seed, at a rate drawn for the seed. At a drawn moment faults
//! stop for the core: one honest server and the nodes that are behind. Everybody else misbehaves for ever, and every
//! node of the core must reach the tip within [`Plan::bound`] (quality: Simulation).
//!
//! ```
//! use soma_sync_sim::swarm::{Plan, Settings, Theatre, run};
//!
//! let settings = Settings { nodes: 4, commits: 10, faults: "loss,crash,silent".parse()? };
//! let mut theatre = Theatre::default();
//! let outcome = run(&Plan::draw(7, settings), &mut theatre);
//! assert_eq!(outcome.violation, None);
//! assert_eq!(outcome.hash, run(&Plan::draw(7, settings), &mut theatre).hash);
//! # Ok::<(), soma_sync_sim::fault::UnknownFault>(())
//! ```
//!
//! What cannot befall a node here: its wall clock's jumping, since nothing in a machine reads one, and a full mailbox,
//! which is the driver's.

mod cast;
mod consensus;
mod episode;
mod many;
mod plan;
mod stage;

pub use episode::Episode;
pub use many::{Progress, Report, Summary, needed_faults, run_seeds};
pub use plan::{Plan, Role, Settings, SettingsError};
pub use stage::{Outcome, Theatre, run, run_recording};
