//! What the whole-system tests share: the vectors of the original implementation, the table of deliberate differences
//! from it, a small committee that signs, mirrors of the formats for an independent decoder, the bodies of the fuzz targets,
//! what a machine was told, which tests hold which defence, and the layers that seeded bugs are held against.

#[cfg(feature = "defence-switches")]
pub mod defences;
pub mod differences;
pub mod fixture;
pub mod fuzz;
pub mod fuzz_config;
pub mod fuzz_identity;
pub mod fuzz_jobs;
pub mod fuzz_machine;
pub mod fuzz_message;
pub mod fuzz_network;
pub mod fuzz_store;
pub mod fuzz_trace;
pub mod fuzz_wire;
#[cfg(doctest)]
mod guide;
#[cfg(feature = "defence-switches")]
pub mod layers;
pub mod mirror;
#[cfg(feature = "defence-switches")]
pub mod processes;
pub mod told;
pub mod trace_samples;
pub mod vectors;
