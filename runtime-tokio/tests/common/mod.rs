//! What the tests of whole nodes share: a chain, stores filled from it, and nodes on a network within the process.

use soma_sync_core::{
    Config,
    command::{Batch, BatchId},
    committee::Committee,
    job::CheckedBlock,
    types::{CommitIndex, PeerId},
    verified::Verified,
};
use soma_sync_runtime_tokio::{
    broadcast::{SubDag, Subscription},
    channel_transport::{ChannelNetwork, ChannelTransport},
    config::RuntimeConfig,
    node::{Node, NodeBuilder, NodeHandle, NodeStatus},
    store::{MemoryStore, Store},
};
use soma_sync_sim::chain::{ChainMaker, ChainSpec, MadeCommit};
use std::{net::SocketAddr, sync::Arc, time::Duration};

/// Commits of the chain.
pub(crate) const COMMITS: u32 = 60;

/// A chain of [`COMMITS`] commits in two epochs.
pub(crate) struct Chain {
    pub(crate) genesis: Arc<Committee>,
    pub(crate) commits: Vec<MadeCommit>,
}

impl Chain {
    pub(crate) fn new(payload_bytes: u32) -> Self {
        let spec = ChainSpec {
            commits: COMMITS,
            blocks_per_commit: 6,
            payload_bytes,
            committee: 4,
            epochs: 2,
            seed: 3,
        };
        let maker = ChainMaker::new(spec).unwrap();
        Self { genesis: Arc::clone(maker.genesis()), commits: maker.take(COMMITS as usize).collect() }
    }

    /// A store of the first `count` commits.
    pub(crate) fn store(&self, count: u32) -> Arc<MemoryStore> {
        let store = MemoryStore::new(Arc::clone(&self.genesis));
        for (id, commit) in (0_u64..).zip(self.commits.iter().take(count as usize)) {
            let blocks = commit.blocks.iter().chain(commit.certifiers.iter());
            store
                .apply(&Batch {
                    id: BatchId::new(id),
                    blocks: blocks.cloned().map(Verified::<CheckedBlock>::from_trace).collect(),
                    commits: vec![Verified::from_trace(commit.header.clone())],
                    committees: commit.next_committee.iter().cloned().collect(),
                })
                .unwrap();
        }
        Arc::new(store)
    }

    /// Whether this is the sub-dag that the chain has there.
    pub(crate) fn check(&self, sub_dag: &SubDag) {
        let made = &self.commits[sub_dag.reference.index.get() as usize - 1];
        assert_eq!(sub_dag.reference, made.header.reference);
        assert_eq!(sub_dag.timestamp_ms, made.header.timestamp_ms);
        assert_eq!(sub_dag.epoch, made.header.epoch);
        assert_eq!(sub_dag.leader, made.header.leader);
        assert_eq!(sub_dag.commit.bytes(), made.header.payload.bytes());
        assert_eq!(sub_dag.blocks.len(), made.blocks.len());
        for ((reference, payload), block) in sub_dag.blocks.iter().zip(&made.blocks) {
            assert_eq!((*reference, payload.bytes()), (block.reference, block.payload.bytes()));
        }
    }

    /// Takes the sub-dags from `first` to `last`, in order, each being the chain's.
    pub(crate) async fn take(&self, subscription: &mut Subscription, first: u32, last: u32) {
        for index in first..=last {
            let sub_dag = subscription.next().await.expect("the node runs").expect("the store can be read");
            assert_eq!(sub_dag.reference.index, CommitIndex::new(index));
            self.check(&sub_dag);
        }
    }

    /// Whether a store holds the chain up to its tip, whole, and returns the tip.
    pub(crate) fn check_store(&self, store: &impl Store) -> u32 {
        let tip = store.start().unwrap().tip.reference;
        for made in self.commits.iter().take(tip.index.get() as usize) {
            let commit = store.commit(made.header.reference.index).unwrap().expect("no gap");
            assert_eq!(commit.reference, made.header.reference);
            for block in &made.blocks {
                let stored = store.block(&block.reference).unwrap().expect("no block is missing");
                assert_eq!(stored.bytes(), block.payload.bytes());
            }
        }
        tip.index.get()
    }
}

pub(crate) fn peer(n: u8) -> PeerId {
    PeerId::new([n; 32])
}

/// A configuration that works in small steps, so that a short chain takes many of them.
pub(crate) fn small_steps() -> Config {
    Config {
        commit_sync_batch_size: 5,
        look_ahead_commits: 10,
        max_blocks_per_fetch: 7,
        max_store_batch_bytes: 64 * 1024,
        poll_interval_level: Duration::from_millis(100),
        poll_interval_behind: Duration::from_millis(50),
        wait_interval_when_no_peer_to_sync_content: Duration::from_millis(50),
        retry_same_peer_after: Duration::from_millis(50),
        ..Config::default()
    }
}

/// A node `n` that has not been started, and where it will be.
pub(crate) fn node<S: Store>(
    network: &ChannelNetwork,
    n: u8,
    store: &Arc<S>,
) -> (NodeBuilder<S, ChannelTransport>, (PeerId, SocketAddr)) {
    let transport = network.join(peer(n));
    let place = (peer(n), transport.address());
    let runtime = RuntimeConfig {
        dial_backoff_min: Duration::from_millis(1),
        dial_backoff_max: Duration::from_millis(50),
        reopen_backoff_min: Duration::from_millis(1),
        ..RuntimeConfig::default()
    };
    let builder = Node::builder(Arc::clone(store), transport);
    (builder.config(small_steps()).runtime_config(runtime).seed([n; 32]), place)
}

/// Waits until the node is as wanted. Every look is an event for its driver, and so the loop cannot outrun it.
pub(crate) async fn until(node: &NodeHandle, wanted: impl Fn(&NodeStatus) -> bool) -> NodeStatus {
    loop {
        let status = node.status().await.expect("the node runs");
        if wanted(&status) {
            return status;
        }
        tokio::task::yield_now().await;
    }
}
