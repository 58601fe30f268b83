//! The bytes of soma-sync: protobuf messages, framing, chain files.
#![forbid(unsafe_code)]

#[cfg(feature = "verify")]
pub mod chain_check;
pub mod chain_file;
pub mod frame;
#[allow(unreachable_pub, reason = "generated as for a public module")]
#[rustfmt::skip]
mod generated;
pub mod message;
mod wire;
