//! Nodes on a store and a transport of their own: what an embedder with tokio brings along.
//!
//! `store` keeps everything in maps and has the rest from `store::rules`; `transport` is plain TCP. A validator's
//! consensus, which here is a made chain, hands in commits; a fresh node follows it over TCP.
//!
//! ```sh
//! cargo run -p soma-sync-runtime-tokio --example own_store_and_transport
//! ```

mod store;
mod transport;

use soma_sync_core::{
    job::CheckedBlock,
    types::{CommitIndex, CommitRef, PeerId},
};
use soma_sync_runtime_tokio::node::Node;
use soma_sync_sim::chain::{ChainMaker, ChainSpec};
use std::sync::Arc;
use store::MapStore;
use transport::TcpTransport;

/// Whatever can go wrong.
pub(crate) type Error = Box<dyn std::error::Error>;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let (tip, blocks) = sync(200).await?;
    println!("synced, verified and stored up to {tip}: {blocks} blocks");
    Ok(())
}

/// Has one node make a chain of so many commits and another follow it. Returns the last one that the other's consumer
/// was given, and how many blocks there were in all.
pub(crate) async fn sync(commits: u32) -> Result<(CommitRef, usize), Error> {
    let spec =
        ChainSpec { commits, blocks_per_commit: 4, payload_bytes: 64, committee: 4, epochs: 2, seed: 7 };
    let chain = ChainMaker::new(spec)?;
    let genesis = Arc::clone(chain.genesis());
    let [us, them] = [PeerId::new([1; 32]), PeerId::new([2; 32])];

    let transport = TcpTransport::bind(us).await?;
    let address = transport.address();
    let validator = Node::builder(Arc::new(MapStore::new(&genesis)), transport).spawn().await?;
    let transport = TcpTransport::bind(them).await?;
    let follower =
        Node::builder(Arc::new(MapStore::new(&genesis)), transport).peers([(us, address)]).spawn().await?;

    // Consensus: the next commit is made when the one before it is stored.
    let mut stored = validator.subscribe(CommitIndex::GENESIS);
    for made in chain.take(commits as usize) {
        let bytes = |block: &CheckedBlock| block.payload.bytes().clone();
        let commit = made.header.payload.bytes().clone();
        validator.observe_commit(commit, made.blocks.iter().map(bytes).collect()).await?;
        validator.observe_votes(made.certifiers.iter().map(bytes).collect()).await?;
        stored.next().await.ok_or("the validator has stopped")??;
    }

    // An application: it says where it is, and is given what follows.
    let mut sub_dags = follower.subscribe(CommitIndex::GENESIS);
    let (mut tip, mut blocks) = (CommitRef::GENESIS, 0);
    while tip.index.get() < commits {
        let sub_dag = sub_dags.next().await.ok_or("the follower has stopped")??;
        (tip, blocks) = (sub_dag.reference, blocks + sub_dag.blocks.len());
    }
    let status = follower.status().await?.machine;
    println!("{} commits are stored, {} requests timed out", status.durable, status.counters.timeouts);
    follower.shutdown().await?;
    validator.shutdown().await?;
    Ok((tip, blocks))
}
