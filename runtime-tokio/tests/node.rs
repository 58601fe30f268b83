//! Whole nodes on a network within the process.

mod common;

use common::{COMMITS, Chain, node, peer, small_steps, until};
use soma_sync_core::{
    Config,
    command::Stall,
    job::CheckedBlock,
    request::{CommitInfoQuery, FetchCommits, Request, ResponsePart},
    types::CommitIndex,
};
use soma_sync_proto::{
    frame::FrameDecoder,
    message::{Method, RequestLimits, answered_status, decode_request, encode_request, encode_response},
};
use soma_sync_runtime_tokio::{
    broadcast::{Subscription, SubscriptionError},
    channel_transport::{ChannelNetwork, ChannelTransport},
    config::RuntimeConfig,
    node::{NodeHandle, SpawnError},
    store::{MemoryStore, RedbStore, Store},
    transport::{Connection, StreamReceiver, StreamSender, Transport},
};
use std::{num::NonZeroUsize, sync::Arc, time::Duration};

const GENESIS: CommitIndex = CommitIndex::GENESIS;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_behind_does_not_catch_up() {
    let chain = Chain::new(100);
    let network = ChannelNetwork::new();
    let (server, place) = node(&network, 1, &chain.store(COMMITS));
    let server = server.spawn().await.unwrap();
    let store = chain.store(0);
    let client = node(&network, 2, &store).0.peers([place]).spawn().await.unwrap();
    let mut subscription = client.subscribe(GENESIS);
    chain.take(&mut subscription, 1, COMMITS).await;
    let status = until(&client, |status| status.machine.synced).await;
    assert_eq!(status.machine.certifiable, chain.commits.last().unwrap().header.reference);
    until(&client, |status| status.machine.delivered == CommitIndex::new(COMMITS)).await;
    assert_eq!(chain.check_store(&*store), COMMITS);
    client.shutdown().await.unwrap();
    assert!(subscription.next().await.is_none());
    // The store is closed: nobody else holds it.
    assert_eq!(Arc::strong_count(&store), 1);
    server.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_smallest_channels_let_a_node_wait_in_a_circle() {
    let chain = Chain::new(100);
    let network = ChannelNetwork::new();
    let runtime = RuntimeConfig {
        mailbox_capacity: 1,
        synced_commit_broadcast_channel_capacity: 1,
        recent_sub_dag_bytes: 0,
        notices_capacity: 1,
        verify_workers: NonZeroUsize::MIN,
        ..RuntimeConfig::default()
    };
    let config = || Config { max_verify_jobs: 1, max_store_batches: 1, ..small_steps() };
    let (server, place) = node(&network, 1, &chain.store(COMMITS));
    let _server = server.config(config()).runtime_config(runtime.clone()).spawn().await.unwrap();
    let client = node(&network, 2, &chain.store(0)).0.peers([place]);
    let client = client.config(config()).runtime_config(runtime).spawn().await.unwrap();
    let (mut one, mut two) = (client.subscribe(GENESIS), client.subscribe(GENESIS));
    tokio::join!(chain.take(&mut one, 1, COMMITS), chain.take(&mut two, 1, COMMITS));
    client.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_that_dial_each_other_keep_both_connections_or_none() {
    let chain = Chain::new(10);
    let network = ChannelNetwork::new();
    let store = chain.store(0);
    let (server, server_place) = node(&network, 1, &chain.store(COMMITS));
    let (client, client_place) = node(&network, 2, &store);
    let (server, client) =
        tokio::join!(server.peers([client_place]).spawn(), client.peers([server_place]).spawn());
    let (server, client) = (server.unwrap(), client.unwrap());
    until(&client, |status| status.machine.synced && status.machine.durable.get() == COMMITS).await;
    for node in [&server, &client] {
        let status = until(node, |status| status.machine.peers.iter().any(|peer| peer.connected)).await;
        assert_eq!(status.machine.peers.len(), 1);
        assert_eq!(status.machine.peers[0].offences, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn between_replay_and_live_a_commit_is_missed_or_repeated() {
    let chain = Chain::new(20);
    let network = ChannelNetwork::new();
    let validator = node(&network, 1, &chain.store(30)).0.spawn().await.unwrap();
    let mut early = validator.subscribe(CommitIndex::new(5));
    let mut ahead = validator.subscribe(CommitIndex::new(40));
    chain.take(&mut early, 6, 10).await;
    for (fed, made) in (31..).zip(&chain.commits[30..]) {
        let blocks = made.blocks.iter().map(|block| block.payload.bytes().clone()).collect();
        validator.observe_commit(made.header.payload.bytes().clone(), blocks).await.unwrap();
        let votes = made.certifiers.iter().map(|block| block.payload.bytes().clone()).collect();
        validator.observe_votes(votes).await.unwrap();
        until(&validator, |status| status.machine.durable.get() == fed).await;
        chain.take(&mut early, fed - 20, fed - 20).await;
    }
    let mut late = validator.subscribe(GENESIS);
    tokio::join!(
        chain.take(&mut early, COMMITS - 19, COMMITS),
        chain.take(&mut ahead, 41, COMMITS),
        chain.take(&mut late, 1, COMMITS),
    );
    let status = until(&validator, |status| status.machine.delivered.get() == COMMITS).await;
    assert_eq!(status.subscribers, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_below_what_is_stored_is_given_something_else() {
    let chain = Chain::new(20);
    let network = ChannelNetwork::new();
    let validator = node(&network, 1, &chain.store(COMMITS)).0.spawn().await.unwrap();
    assert_eq!(validator.prune(CommitIndex::new(20)).await.unwrap(), CommitIndex::new(20));
    let mut below = validator.subscribe(CommitIndex::new(18));
    let next = below.next().await.unwrap();
    assert!(matches!(next, Err(SubscriptionError::Pruned { next }) if next.get() == 19), "{next:?}");
    assert!(below.next().await.is_none());
    chain.take(&mut validator.subscribe(CommitIndex::new(19)), 20, COMMITS).await;
    until(&validator, |status| status.machine.lowest_available.get() == 20 && status.subscribers == 0).await;
}

/// A whole server and a client of it with room for one sub-dag, stalled because its subscriber took no more than three.
async fn lagging(chain: &Chain, network: &ChannelNetwork) -> (NodeHandle, NodeHandle, Subscription) {
    let (server, place) = node(network, 1, &chain.store(COMMITS));
    let server = server.spawn().await.unwrap();
    let runtime = RuntimeConfig { synced_commit_broadcast_channel_capacity: 1, ..RuntimeConfig::default() };
    let (client, _) = node(network, 2, &chain.store(0));
    let client = client.runtime_config(runtime).spawn().await.unwrap();
    let mut subscription = client.subscribe(GENESIS);
    assert!(client.add_peer(place.0, place.1).await.unwrap());
    chain.take(&mut subscription, 1, 3).await;
    let stall = Some(Stall::Consumers { delivered: CommitIndex::new(3) });
    until(&client, |status| status.machine.stall == stall).await;
    (server, client, subscription)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_subscriber_does_not_hold_the_node_up_or_loses_something() {
    let chain = Chain::new(20);
    let (_server, client, mut subscription) = lagging(&chain, &ChannelNetwork::new()).await;
    let status = client.status().await.unwrap();
    // What was fetched ahead when consumers began to lag is still stored.
    let most = 3 + 2 * small_steps().look_ahead_commits;
    assert!(status.machine.durable.get() <= most, "{status:?}");
    chain.take(&mut subscription, 4, COMMITS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_subscriber_that_is_gone_still_holds_the_node_up() {
    let chain = Chain::new(20);
    let (_server, client, subscription) = lagging(&chain, &ChannelNetwork::new()).await;
    drop(subscription);
    until(&client, |status| status.machine.durable.get() == COMMITS).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_stopped_in_the_middle_leaves_half_a_store() {
    let chain = Chain::new(100);
    let network = ChannelNetwork::new();
    let (server, place) = node(&network, 1, &chain.store(COMMITS));
    let server = server.spawn().await.unwrap();
    let store = chain.store(0);
    let mut next = 1;
    for stop_at in [1, 7, 20, 21, 40] {
        let client = node(&network, 2, &store).0.peers([place]).spawn().await.unwrap();
        let mut subscription = client.subscribe(CommitIndex::new(next - 1));
        chain.take(&mut subscription, next, next.max(stop_at)).await;
        client.shutdown().await.unwrap();
        assert_eq!(Arc::strong_count(&store), 1);
        next = chain.check_store(&*store).min(next.max(stop_at)) + 1;
    }
    let client = node(&network, 2, &store).0.peers([place]).spawn().await.unwrap();
    until(&client, |status| status.machine.durable.get() == COMMITS).await;
    assert_eq!(chain.check_store(&*store), COMMITS);
    drop(server);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_has_stopped_keeps_its_store_locked() {
    let chain = Chain::new(100);
    let network = ChannelNetwork::new();
    let (server, place) = node(&network, 1, &chain.store(COMMITS));
    let _server = server.spawn().await.unwrap();
    let directory = tempfile::tempdir().unwrap();
    for stop_at in [1, 30, COMMITS] {
        let store = RedbStore::open(directory.path(), Some(&chain.genesis)).unwrap();
        let before = chain.check_store(&store);
        let client = node(&network, 2, &Arc::new(store)).0.peers([place]).spawn().await.unwrap();
        let mut subscription = client.subscribe(CommitIndex::new(before));
        chain.take(&mut subscription, before + 1, stop_at).await;
        client.shutdown().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_handle_is_dropped_goes_on() {
    let chain = Chain::new(10);
    let network = ChannelNetwork::new();
    let (server, (id, address)) = node(&network, 1, &chain.store(COMMITS));
    let server = server.spawn().await.unwrap();
    let connection = network.join(peer(2)).dial(id, address).await.unwrap();
    drop(server);
    connection.closed().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_fails_once_ends_the_sync() {
    let chain = Chain::new(100);
    let network = ChannelNetwork::new();
    let (server, place) = node(&network, 1, &chain.store(COMMITS));
    let _server = server.spawn().await.unwrap();
    let store = chain.store(0);
    let client = node(&network, 2, &store).0.spawn().await.unwrap();
    let mut subscription = client.subscribe(GENESIS);
    client.add_peer(place.0, place.1).await.unwrap();
    for (first, last) in [(1, 10), (11, 25), (26, COMMITS)] {
        store.fail_next();
        chain.take(&mut subscription, first, last).await;
    }
    until(&client, |status| status.machine.delivered.get() == COMMITS).await;
    assert_eq!(chain.check_store(&*store), COMMITS);
}

/// A server that answers everything but breaks off every answer to a request for commits in the middle, with its
/// connection.
async fn breaks_off(
    transport: Arc<ChannelTransport>,
    store: Arc<MemoryStore>,
    broken: tokio::sync::mpsc::Sender<()>,
) {
    while let Some(connection) = transport.accept().await {
        while let Ok((mut sender, mut receiver)) = connection.accept().await {
            let mut decoder = FrameDecoder::new();
            while let Some(bytes) = receiver.receive(1000).await.unwrap_or_default() {
                decoder.push(bytes);
            }
            let method = decoder.varint().unwrap().and_then(Method::from_number).unwrap();
            let message = decoder.message(1_000_000).unwrap().unwrap();
            let request = decode_request(method, message, &RequestLimits { max_refs: 1000 }).unwrap();
            let part = match request {
                Request::CommitInfo(_) => {
                    let commit = soma_sync_core::types::CommitRef::GENESIS;
                    ResponsePart::CommitInfo { commit: Some(commit), chain_id: Some(store.chain_id()) }
                }
                Request::Availability { .. } => {
                    ResponsePart::Availability { highest: CommitIndex::new(COMMITS), lowest: GENESIS }
                }
                Request::Push { .. } => ResponsePart::Push { timestamp_ms: 0 },
                Request::Commits(_) | Request::Blocks(_) => {
                    let commit = store.commit(CommitIndex::new(1)).unwrap().unwrap();
                    let part = ResponsePart::Commits {
                        commits: vec![commit.payload],
                        certifiers: vec![],
                        blocks: vec![],
                        buffer_bytes: 0,
                    };
                    let whole = encode_response(&part);
                    let _ = sender.send(answered_status()).await;
                    let _ = sender.send(whole.slice(..whole.len() / 2)).await;
                    connection.close("power cut");
                    let _ = broken.send(()).await;
                    break;
                }
            };
            let _ = sender.send(answered_status()).await;
            let _ = sender.send(encode_response(&part)).await;
            let _ = sender.finish();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_vanishes_in_an_answer_stops_the_others() {
    let chain = Chain::new(50);
    let network = ChannelNetwork::new();
    let vanishing = Arc::new(network.join(peer(7)));
    let place = (peer(7), vanishing.address());
    let (broken, mut breaks) = tokio::sync::mpsc::channel(1);
    tokio::spawn(breaks_off(vanishing, chain.store(COMMITS), broken));
    let store = chain.store(0);
    let client = node(&network, 2, &store).0.peers([place]).spawn().await.unwrap();
    breaks.recv().await.unwrap();
    // It comes back, and breaks off again.
    breaks.recv().await.unwrap();
    tokio::spawn(async move { while breaks.recv().await.is_some() {} });
    let (server, place) = node(&network, 1, &chain.store(COMMITS));
    let _server = server.spawn().await.unwrap();
    client.add_peer(place.0, place.1).await.unwrap();
    let status = until(&client, |status| status.machine.durable.get() == COMMITS).await;
    assert_eq!(chain.check_store(&*store), COMMITS);
    // To be lost is no offence.
    assert_eq!(status.machine.counters.offences, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_does_not_read_is_served_for_ever() {
    // Large enough that an answer does not fit the window of a stream.
    let chain = Chain::new(4_000);
    let network = ChannelNetwork::new();
    let config = Config { serve_timeout: Duration::from_millis(50), ..Config::default() };
    let (server, (id, address)) = node(&network, 1, &chain.store(COMMITS));
    let server = server.config(config).spawn().await.unwrap();
    let transport = network.join(peer(2));
    let connection = transport.dial(id, address).await.unwrap();
    let mut streams = Vec::new();
    for first in 1..=3 {
        let (mut sender, receiver) = connection.open().await.unwrap();
        let request = Request::Commits(FetchCommits {
            start: CommitIndex::new(first),
            end: CommitIndex::new(COMMITS),
            max_bytes: u64::from(u32::MAX),
            wait: Duration::ZERO,
            with_blocks: true,
        });
        sender.send(encode_request(&request)).await.unwrap();
        // Not on a slow machine, where the answer may have been given up already.
        let _ = sender.finish();
        streams.push((sender, receiver));
    }
    for (_, receiver) in &mut streams {
        // The answer has begun, or been given up already; nothing further of it is read.
        if let Ok(status) = receiver.receive(1).await {
            assert_eq!(status.as_deref(), Some(&[0][..]));
        }
    }
    until(&server, |status| status.machine.serving == 0).await;
    for (_, receiver) in &mut streams {
        while let Ok(bytes) = receiver.receive(1_000_000).await {
            assert!(bytes.is_some(), "half an answer is not a whole one");
        }
    }
    // The connection still serves.
    let (mut sender, mut receiver) = connection.open().await.unwrap();
    let latest = Request::CommitInfo(CommitInfoQuery::Latest);
    sender.send(encode_request(&latest)).await.unwrap();
    // It may have been answered already.
    let _ = sender.finish();
    let mut answer = Vec::new();
    while let Some(bytes) = receiver.receive(1000).await.unwrap() {
        answer.extend_from_slice(&bytes);
    }
    assert_eq!(answer.first(), Some(&0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_of_another_chain_stays_connected_or_comes_back() {
    let chain = Chain::new(10);
    let network = ChannelNetwork::new();
    let (client, (id, address)) = node(&network, 2, &chain.store(0));
    let client = client.spawn().await.unwrap();
    let stranger = network.join(peer(7));
    let connection = stranger.dial(id, address).await.unwrap();
    let (mut sender, _receiver) = connection.accept().await.unwrap();
    let chain_id = Some(soma_sync_core::types::ChainId::new([9; 32]));
    let commit = Some(soma_sync_core::types::CommitRef::GENESIS);
    sender.send(answered_status()).await.unwrap();
    sender.send(encode_response(&ResponsePart::CommitInfo { commit, chain_id })).await.unwrap();
    // The answer may have been read and judged already.
    let _ = sender.finish();
    connection.closed().await;
    let again = stranger.dial(id, address).await.unwrap();
    again.closed().await;
    let status = client.status().await.unwrap();
    assert_eq!(status.machine.peers.len(), 1);
    assert_eq!((status.machine.peers[0].offences, status.machine.peers[0].connected), (1, false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_configuration_that_cannot_work_is_taken() {
    let chain = Chain::new(10);
    let network = ChannelNetwork::new();
    let store = chain.store(0);
    let runtime = RuntimeConfig { mailbox_capacity: 0, ..RuntimeConfig::default() };
    let refused = node(&network, 1, &store).0.runtime_config(runtime).spawn().await;
    assert!(matches!(refused.err(), Some(SpawnError::Runtime(error)) if error.field == "mailbox_capacity"));
    let config = Config { max_requests: 0, ..Config::default() };
    let refused = node(&network, 1, &store).0.config(config).spawn().await;
    assert!(matches!(refused.err(), Some(SpawnError::Machine(_))));
    assert_eq!(Arc::strong_count(&store), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_that_waits_is_kept_after_who_asked_has_gone() {
    let chain = Chain::new(10);
    let network = ChannelNetwork::new();
    let (server, (id, address)) = node(&network, 1, &chain.store(COMMITS));
    let server = server.spawn().await.unwrap();
    let connection = network.join(peer(7)).dial(id, address).await.unwrap();
    let (mut sender, receiver) = connection.open().await.unwrap();
    let next = CommitIndex::new(COMMITS + 1);
    let wait = Duration::from_secs(3600);
    let fetch = FetchCommits { start: next, end: next, max_bytes: 1 << 20, wait, with_blocks: true };
    sender.send(encode_request(&Request::Commits(fetch))).await.unwrap();
    sender.finish().unwrap();
    until(&server, |status| status.machine.parked == 1).await;
    drop((sender, receiver));
    until(&server, |status| status.machine.parked == 0).await;
    server.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_follower_waits_for_does_not_reach_it() {
    let chain = Chain::new(100);
    let network = ChannelNetwork::new();
    let (server, place) = node(&network, 1, &chain.store(COMMITS - 10));
    let server = server.spawn().await.unwrap();
    let follower = node(&network, 2, &chain.store(COMMITS - 10)).0.peers([place]).spawn().await.unwrap();
    let mut subscription = follower.subscribe(CommitIndex::new(COMMITS - 10));
    for made in chain.commits.iter().skip(COMMITS as usize - 10) {
        until(&server, |status| status.machine.parked > 0).await;
        let bytes =
            |blocks: &[CheckedBlock]| blocks.iter().map(|block| block.payload.bytes().clone()).collect();
        server.observe_commit(made.header.payload.bytes().clone(), bytes(&made.blocks)).await.unwrap();
        server.observe_votes(bytes(&made.certifiers)).await.unwrap();
        let index = made.header.reference.index.get();
        chain.take(&mut subscription, index, index).await;
    }
    follower.shutdown().await.unwrap();
    server.shutdown().await.unwrap();
}
