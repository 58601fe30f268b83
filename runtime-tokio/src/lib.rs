//! Runs the soma-sync state machine on tokio.
//!
//! `soma-sync-core` decides everything and does nothing; this crate does it. One task, the driver, owns the machine and
//! tells it what happens; what the machine wants done goes to those who can:
//!
//! ```text
//!             dialling, accepting            requests        peers' streams
//!                     │                      ▲     │            │      ▲
//!                     ▼                      │     ▼            ▼      │
//!   handle ──▶ ╔═══════════════ mailbox ═════╪═════════════════════╗   │ answers, read part by part
//!              ║           ┌───────────────────────┐               ║   │
//!              ╚══════════▶│ driver  [SyncMachine] │───────────────╫───┘
//!                          └──┬────────┬─────────┬─┘               ║
//!                        jobs ▼        ▼ batches ▼ released up to  ║
//!                       ┌─────────┐ ┌───────┐ ┌─────┐              ║
//!                       │ workers │ │ store │ │ hub │─▶ subscribers║
//!                       └────┬────┘ └───┬───┘ └──┬──┘              ║
//!                            └──────────┴────────┴─────────────────╝
//! ```
//!
//! Everything comes in through one bounded mailbox, and whoever has something for it waits for room. The driver itself
//! waits for nobody: jobs and batches go into channels as large as the machine lets their number grow, answers into
//! one-shot channels, the rest replaces what was there before. So nothing here can wait in a circle, and nothing grows
//! without bound.
//!
//! # Embedding
//!
//! Bring a [`Store`](store::Store) and a [`Transport`](transport::Transport), each a trait with one method for each
//! need. There are a durable store and one in memory in [`store`], a transport within the process in
//! [`channel_transport`], and QUIC in `soma-sync-transport-quic`.
//!
//! ```
//! use soma_sync_core::types::{CommitIndex, PeerId};
//! use soma_sync_runtime_tokio::{channel_transport::ChannelNetwork, node::Node, store::MemoryStore};
//! use std::sync::Arc;
//! # use soma_sync_sim::chain::{ChainMaker, ChainSpec};
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let spec = ChainSpec { commits: 1, blocks_per_commit: 4, payload_bytes: 8, committee: 4, epochs: 1, seed: 1 };
//! # let mut chain = ChainMaker::new(spec)?;
//! # let genesis = Arc::clone(chain.genesis());
//! # let made = chain.next().ok_or("a chain has commits")?;
//! # let commit = made.header.payload.bytes().clone();
//! # let blocks = made.blocks.iter().map(|block| block.payload.bytes().clone()).collect();
//! let network = ChannelNetwork::new();
//! // A validator: its own consensus makes commits.
//! let transport = network.join(PeerId::new([1; 32]));
//! let address = transport.address();
//! let validator = Node::builder(Arc::new(MemoryStore::new(genesis.clone())), transport).spawn().await?;
//! validator.observe_commit(commit, blocks).await?;
//! # let votes = made.certifiers.iter().map(|block| block.payload.bytes().clone()).collect();
//! validator.observe_votes(votes).await?;
//!
//! // A node that follows it, and a consumer that has seen nothing yet.
//! let transport = network.join(PeerId::new([2; 32]));
//! let follower = Node::builder(Arc::new(MemoryStore::new(genesis)), transport)
//!     .peers([(PeerId::new([1; 32]), address)])
//!     .spawn()
//!     .await?;
//! let mut sub_dags = follower.subscribe(CommitIndex::GENESIS);
//! let first = sub_dags.next().await.ok_or("the node runs")??;
//! assert_eq!(first.reference.index, CommitIndex::new(1));
//!
//! follower.shutdown().await?;
//! validator.shutdown().await?;
//! # Ok(())
//! # }
//! ```
#![forbid(unsafe_code)]

pub mod broadcast;
pub mod channel_transport;
mod clock;
pub mod config;
mod dial;
mod driver;
mod inbound;
mod mailbox;
pub mod node;
mod peers;
mod pool;
pub mod record;
mod requests;
pub mod serve;
pub mod store;
pub mod transport;
mod writer;
