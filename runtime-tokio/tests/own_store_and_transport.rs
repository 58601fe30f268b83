//! The example with a store and a transport of its own, run.

#[path = "../examples/own_store_and_transport/main.rs"]
#[allow(dead_code, reason = "the test has a main function of its own")]
mod example;

use soma_sync_sim::chain::{ChainMaker, ChainSpec};

#[tokio::test(flavor = "multi_thread")]
async fn a_node_on_a_store_and_a_transport_of_its_own_does_not_sync() {
    let (tip, blocks) = example::sync(60).await.expect("a sync");
    let spec =
        ChainSpec { commits: 60, blocks_per_commit: 4, payload_bytes: 64, committee: 4, epochs: 2, seed: 7 };
    let made = ChainMaker::new(spec).expect("a chain").nth(59).expect("60 commits");
    assert_eq!((tip, blocks), (made.header.reference, 240));
}
