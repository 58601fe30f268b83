//! The Soma blockchain's state synchronization as a pure state machine.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

mod bcs;
pub mod block;
pub mod certify;
#[cfg(feature = "verify")]
mod check;
pub mod command;
pub mod commit;
pub mod committee;
pub mod config;
mod digest;
pub mod event;
pub mod job;
mod ledger;
mod machine;
#[cfg(feature = "verify")]
mod observe;
pub mod payload;
mod peers;
pub mod request;
mod rng;
#[cfg(feature = "verify")]
mod rules;
mod schedule;
#[cfg(feature = "verify")]
mod signature;
pub mod start;
pub mod time;
pub mod types;
pub mod verified;
mod votes;
mod window;

pub use command::Command;
pub use config::Config;
pub use event::Event;
pub use machine::{Counters, NewError, PeerStatus, Status, SyncMachine};
pub use time::Timestamp;
