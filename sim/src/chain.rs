//! The chain maker: committees, blocks, commits and votes of a whole chain, all from a seed.
//!
//! What it makes is what the formats ask for: blocks that pass full verification, commits that link, votes that
//! certify them, epochs that hand over to the next one's committee. Equal [specs](ChainSpec) make equal bytes, on
//! every machine and in every version that does not say otherwise in the changelog.
//!
//! Rules of the chains that are made:
//!
//! - Each round, a quorum of the authorities or more propose a block each. Its ancestors are the author's latest block
//!   and then all other blocks of the round before.
//! - A commit is its leader and the oldest blocks, by round and author, that are in no commit yet: exactly
//!   [`ChainSpec::blocks_per_commit`] of them in all, all in the leader's causal history. How many authorities propose
//!   is chosen so that this is the leader's whole uncommitted history, where rounds of a quorum or more can add up to
//!   that number. Where they cannot (10 blocks a commit with 20 authorities), the history is taken in several commits.
//! - Blocks vote for a commit from the third round after its leader's on, each author once. After an epoch's last
//!   commit three more rounds are made, whose blocks are in no commit.
//! - The leader of an epoch's last commit carries the next validator set. The BLS keys and signatures there are drawn
//!   bytes and no points of a curve, which only a build with the feature `bls` sees. With that feature of this crate they
//!   are real: the same chains otherwise, in other bytes.

pub(crate) mod authorities;
#[cfg(feature = "bls")]
mod bls_key;
#[cfg(not(feature = "bls"))]
#[path = "chain/drawn_bls_key.rs"]
mod bls_key;
mod draw;
mod epoch;
mod file;
mod maker;
mod pace;
mod spec;

pub use file::write_chain_file;
pub use maker::{ChainMaker, MadeCommit};
pub use spec::{
    ChainSpec, MAX_BLOCKS_PER_COMMIT, MAX_COMMIT_PAYLOAD_BYTES, MAX_COMMITTEE, MAX_PAYLOAD_BYTES, SpecError,
};
