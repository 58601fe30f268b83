//! The guide in `docs/`: its Rust blocks are compiled and run as tests of the documentation.

#[doc = include_str!("../../docs/sync.md")]
mod sync {}

#[doc = include_str!("../../docs/transport.md")]
mod transport {}

#[doc = include_str!("../../docs/store.md")]
mod store {}

#[doc = include_str!("../../docs/verifier.md")]
mod verifier {}

#[doc = include_str!("../../docs/looking-inside.md")]
mod looking_inside {}
