//! What the commands that make a chain are told alike.

use crate::units::parse_bytes;
use clap::Args;
use soma_sync_sim::chain::ChainSpec;

/// What the commits of a chain to make are like.
#[derive(Clone, Copy, Debug, Args)]
pub(crate) struct Shape {
    /// Blocks in every commit, at most 10,000.
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) blocks_per_commit: u32,
    /// Bytes of transactions in every block, at most 3 MiB.
    #[arg(long, value_name = "SIZE", default_value = "512", value_parser = parse_bytes)]
    payload_bytes: u32,
    /// Authorities in every committee, at most 1,000.
    #[arg(long, value_name = "N", default_value_t = 4)]
    committee: u32,
}

impl Shape {
    /// A chain of such commits.
    pub(crate) const fn spec(self, commits: u32, epochs: u32, seed: u64) -> ChainSpec {
        let Self { blocks_per_commit, payload_bytes, committee } = self;
        ChainSpec { commits, blocks_per_commit, payload_bytes, committee, epochs, seed }
    }
}
