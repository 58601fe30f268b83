//! Clients that ask in ways that nobody may, beside an honest one.

use crate::scene::{Chain, Honest, Raw, Settings, ask, encoded, of, small};
use bytes::Bytes;
use soma_sync_core::{
    command::Offence,
    request::{CommitInfoQuery, FetchBlocks, RefuseReason, Request},
};
use soma_sync_proto::frame::put_varint;
use soma_sync_runtime_tokio::transport::{Connection, StreamReceiver, StreamSender, TransportError};
use std::time::Duration;

/// Has an honest client get everything from the server, and everybody go.
async fn serves_on(chain: &Chain, server: Honest, hostile: Raw) {
    let store = chain.empty();
    let client = Honest::start(1, &store, small()).await;
    client.dial(server.place).await;
    client.reaches(chain).await;
    chain.check(&store);
    client.stop().await;
    hostile.leave().await;
    server.is_alone_again().await;
    server.stop().await;
}

fn patient_for(millis: u64) -> Settings {
    let mut settings = small();
    settings.runtime.request_timeout = Duration::from_millis(millis);
    settings
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_05_a_request_a_byte_at_a_time_holds_its_stream_for_ever() {
    let chain = Chain::new(60, 100);
    let server = Honest::start(2, &chain.full(), patient_for(100)).await;
    let hostile = Raw::new(9, small().quic);
    let connection = hostile.dial(server.place).await;
    // The first sends a byte now and then; the others one, and nothing more.
    let mut streams = Vec::new();
    for _ in 0..small().runtime.max_streams_per_connection {
        let (mut sender, receiver) = connection.open().await.expect("there are so many");
        sender.send(Bytes::from_static(&[4])).await.expect("it is open");
        streams.push((sender, receiver));
    }
    let mut pace = tokio::time::interval(Duration::from_millis(10));
    let length = [0x80, 0x08];
    let mut bytes = length.into_iter().chain(std::iter::repeat(0));
    let (first, _) = streams.first_mut().expect("there are many");
    let error = loop {
        pace.tick().await;
        let byte = bytes.next().expect("without end");
        if let Err(error) = first.send(vec![byte].into()).await {
            break error;
        }
    };
    assert_eq!(error, TransportError::Reset);
    // Each has its turn, and its time.
    for (_sender, mut receiver) in streams {
        assert_eq!(receiver.receive(100).await, Err(TransportError::Reset));
    }
    let status = server.until_peer(hostile.place().0, |peer| peer.connected).await;
    assert_eq!(status.offences, 0, "slowness proves nothing: {status:?}");
    // The connection can be used for better things.
    let how_far = encoded(&Request::Availability { timestamp_ms: 0 });
    assert!(ask(&connection, how_far).await.expect("it stands").is_ok());
    serves_on(&chain, server, hostile).await;
}

/// A window that holds a part of what is asked at once: it must not be taken by requests behind the one that is read.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_that_share_a_window_wait_for_each_other_for_ever() {
    let chain = Chain::new(200, 10);
    let mut settings = patient_for(3_600_000);
    settings.machine.commit_sync_batch_size = 200;
    settings.machine.look_ahead_commits = 200;
    settings.machine.max_blocks_per_fetch = 300;
    settings.machine.timeout = Duration::from_secs(3_600);
    settings.quic.connection_window_bytes_min = 16 * 1024;
    settings.quic.connection_window_bytes_max = 16 * 1024;
    let server = Honest::start(2, &chain.full(), settings.clone()).await;
    let store = chain.empty();
    let client = Honest::start(1, &store, settings).await;
    client.dial(server.place).await;
    client.reaches(&chain).await;
    chain.check(&store);
    client.stop().await;
    server.is_alone_again().await;
    server.stop().await;
}

/// Has `asked` refused with `reason` until the server has enough of it.
async fn is_refused_and_banned(asked: Vec<(&str, Vec<u8>, RefuseReason)>) {
    let chain = Chain::new(60, 100);
    let server = Honest::start(2, &chain.full(), small()).await;
    let hostile = Raw::new(9, small().quic);
    let id = hostile.place().0;
    let connection = hostile.dial(server.place).await;
    server.until_peer(id, |peer| peer.connected).await;
    let most = small().machine.max_invalid_requests as usize;
    assert!(asked.len() <= most, "the last ones would not be answered");
    for (name, bytes, reason) in &asked {
        let answer = ask(&connection, bytes.clone().into()).await;
        assert_eq!(answer, Ok(Err(*reason)), "{name}");
    }
    let (_, bytes, _) = asked.first().expect("there is one");
    while ask(&connection, bytes.clone().into()).await.is_ok() {}
    connection.closed().await;
    let peer = server.until_peer(id, |peer| !peer.connected).await;
    assert_eq!((peer.offences, peer.last_offence), (1, Some(Offence::InvalidRequests)));
    // It is kept out, not only sent away.
    hostile.dial(server.place).await.closed().await;
    let status = server.status().await;
    assert_eq!(of(&status, id).map(|peer| peer.connected), Some(false), "{status:#?}");
    serves_on(&chain, server, hostile).await;
}

fn message(method: u32, len: u32, bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(&mut out, method);
    put_varint(&mut out, len);
    out.extend_from_slice(bytes);
    out
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_12_requests_over_their_limits_are_taken() {
    let chain = Chain::new(60, 100);
    let refs: Vec<_> = chain.commits.iter().flat_map(|made| made.header.blocks.to_vec()).collect();
    let max = small().machine.max_blocks_per_fetch as usize;
    let blocks = |count: usize| {
        let refs = refs.iter().take(count).copied().collect();
        encoded(&Request::Blocks(FetchBlocks { refs, max_bytes: u64::MAX })).to_vec()
    };
    let latest = encoded(&Request::CommitInfo(CommitInfoQuery::Latest)).to_vec();
    is_refused_and_banned(vec![
        ("a length of 4 GiB", message(4, u32::MAX, &[0; 5_000]), RefuseReason::TooMany),
        ("a small request of 5 KB", message(1, 5_000, &[0; 5_000]), RefuseReason::TooMany),
        ("one block too many", blocks(max + 1), RefuseReason::TooMany),
        ("far too many blocks", blocks(20 * max), RefuseReason::TooMany),
        ("no blocks", blocks(0), RefuseReason::InvalidRange),
        ("references that are none", message(4, 6, &[0x0a, 4, 1, 2, 3, 4]), RefuseReason::Malformed),
        ("a message cut short", message(3, 50, &[8, 1]), RefuseReason::Malformed),
        ("a length in six bytes", [&[1_u8][..], &[0xff; 6]].concat(), RefuseReason::Malformed),
        ("an index over 32 bits", message(1, 6, &[8, 0xff, 0xff, 0xff, 0xff, 0x7f]), RefuseReason::Malformed),
        ("a method and nothing", latest.into_iter().take(1).collect(), RefuseReason::Malformed),
    ])
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_13_streams_of_unknown_kind_are_borne_for_ever() {
    let unknown = |method| (message(method, 0, &[]), RefuseReason::Malformed);
    let asked = [0, 6, 127, 1 << 20, u32::MAX].map(unknown);
    let mut asked: Vec<_> = asked.into_iter().map(|(bytes, reason)| ("unknown", bytes, reason)).collect();
    asked.push(("nothing", Vec::new(), RefuseReason::Malformed));
    asked.push(("a method of 33 bits", vec![0x80, 0x80, 0x80, 0x80, 0x20, 0], RefuseReason::Malformed));
    asked.push(("a method in two bytes instead of one", vec![0x81, 0x00, 0], RefuseReason::Malformed));
    is_refused_and_banned(asked).await;
}
