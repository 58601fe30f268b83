//! Bytes on streams, and the ends of streams and connections.

use crate::{Pair, connect, dialling, hostile, hostile::Shows, identity, listening, pattern, ping, read_all};
use bytes::Bytes;
use soma_sync_runtime_tokio::transport::{
    Connection, StreamReceiver, StreamSender, Transport, TransportError,
};
use soma_sync_transport_quic::{QuicConfig, QuicConnection, QuicTransport};
use std::time::Duration;

/// Sends back what comes, on every stream that the peer opens, until the connection is closed.
async fn echo(connection: QuicConnection) {
    while let Ok((mut sender, mut receiver)) = connection.accept().await {
        tokio::spawn(async move {
            while let Some(bytes) = receiver.receive(256 * 1024).await? {
                sender.send(bytes).await?;
            }
            sender.finish()?;
            sender.stopped().await;
            Ok::<_, TransportError>(())
        });
    }
}

/// Sends `bytes` on a new stream and returns what comes back.
async fn asked(connection: &QuicConnection, bytes: Bytes) -> Result<Vec<u8>, TransportError> {
    let (mut sender, mut receiver) = connection.open().await?;
    let send = async {
        for start in (0..bytes.len()).step_by(256 * 1024) {
            sender.send(bytes.slice(start..bytes.len().min(start + 256 * 1024))).await?;
        }
        sender.finish()
    };
    let (sent, received) = tokio::join!(send, read_all(&mut receiver));
    sent?;
    received
}

#[tokio::test]
async fn many_bytes_arrive_whole_and_in_order() {
    let pair = Pair::new(QuicConfig::default()).await;
    tokio::spawn(echo(pair.accepted.clone()));
    let bytes = pattern(9 * 1024 * 1024 + 1);
    let back = asked(&pair.dialled, bytes.clone()).await.expect("it is echoed");
    assert!(back == bytes, "what was sent came back changed");
}

#[tokio::test]
async fn both_ends_can_ask_for_much_at_the_same_time() {
    let pair = Pair::new(QuicConfig::default()).await;
    let bytes = pattern(9 * 1024 * 1024 + 1);
    for connection in [&pair.dialled, &pair.accepted] {
        let (connection, bytes) = (connection.clone(), bytes.clone());
        tokio::spawn(async move {
            let (mut sender, mut receiver) = connection.accept().await?;
            read_all(&mut receiver).await?;
            sender.send(bytes).await?;
            sender.finish()?;
            sender.stopped().await;
            Ok::<_, TransportError>(())
        });
    }
    let question = Bytes::from_static(b"?");
    let (there, back) = tokio::join!(asked(&pair.dialled, question.clone()), asked(&pair.accepted, question));
    assert!(there.expect("it is answered") == bytes, "what the server sent arrived changed");
    assert!(back.expect("it is answered") == bytes, "what the client sent arrived changed");
}

#[tokio::test]
async fn more_streams_than_may_be_open_at_once_wait_their_turn() {
    let pair = Pair::new(QuicConfig { max_streams: 3, ..QuicConfig::default() }).await;
    tokio::spawn(echo(pair.accepted.clone()));
    let asking: Vec<_> = (0..200)
        .map(|n| {
            let (connection, bytes) = (pair.dialled.clone(), pattern(n));
            tokio::spawn(async move { (asked(&connection, bytes.clone()).await, bytes) })
        })
        .collect();
    for asked in asking {
        let (answer, bytes) = asked.await.expect("no panic");
        assert!(answer.expect("it is echoed") == bytes, "streams were mixed up");
    }
}

#[tokio::test]
async fn a_sender_that_is_dropped_resets_the_stream() {
    let pair = Pair::new(QuicConfig::default()).await;
    let (mut sender, _answer) = pair.dialled.open().await.expect("it is open");
    sender.send(Bytes::from_static(b"half of")).await.expect("it is open");
    let (_sender, mut receiver) = pair.accepted.accept().await.expect("it is open");
    assert_eq!(receiver.receive(100).await, Ok(Some(Bytes::from_static(b"half of"))));
    drop(sender);
    assert_eq!(receiver.receive(100).await, Err(TransportError::Reset));
    ping(&pair.dialled, &pair.accepted).await;
}

#[tokio::test]
async fn a_sender_that_is_dropped_after_it_finished_loses_nothing() {
    let pair = Pair::new(QuicConfig::default()).await;
    let (mut sender, _answer) = pair.dialled.open().await.expect("it is open");
    let bytes = pattern(50_000);
    sender.send(bytes.clone()).await.expect("it is open");
    sender.finish().expect("it is open");
    drop(sender);
    let (_sender, mut receiver) = pair.accepted.accept().await.expect("it is open");
    assert!(read_all(&mut receiver).await.expect("it is whole") == bytes);
    assert_eq!(receiver.receive(1).await, Ok(None), "the end stays the end");
}

#[tokio::test]
async fn a_receiver_that_is_dropped_stops_the_sender() {
    let pair = Pair::new(QuicConfig::default()).await;
    let (mut sender, _answer) = pair.dialled.open().await.expect("it is open");
    sender.send(Bytes::from_static(b"the first of many")).await.expect("it is open");
    drop(pair.accepted.accept().await.expect("it is open").1);
    let stopped = loop {
        if let Err(error) = sender.send(pattern(64 * 1024)).await {
            break error;
        }
    };
    assert_eq!(stopped, TransportError::Reset);
    sender.stopped().await;
    ping(&pair.dialled, &pair.accepted).await;
}

#[tokio::test]
async fn stopped_tells_of_a_peer_that_wants_no_more_though_nothing_is_sent() {
    let pair = Pair::new(QuicConfig::default()).await;
    let (mut sender, _answer) = pair.dialled.open().await.expect("it is open");
    sender.send(Bytes::from_static(b"hello")).await.expect("it is open");
    drop(pair.accepted.accept().await.expect("it is open").1);
    sender.stopped().await;
    assert_eq!(sender.send(Bytes::from_static(b"still there?")).await, Err(TransportError::Reset));
}

#[tokio::test]
async fn nothing_is_sent_after_the_end() {
    let pair = Pair::new(QuicConfig::default()).await;
    let (mut sender, _answer) = pair.dialled.open().await.expect("it is open");
    sender.send(Bytes::new()).await.expect("nothing can always be sent");
    sender.finish().expect("it is open");
    assert!(matches!(sender.finish(), Err(TransportError::Closed(_))));
    assert!(matches!(sender.send(Bytes::from_static(b"late")).await, Err(TransportError::Closed(_))));
    let (_sender, mut receiver) = pair.accepted.accept().await.expect("it is open");
    assert_eq!(receiver.receive(100).await, Ok(None));
}

#[tokio::test]
async fn no_more_bytes_are_received_than_asked_for() {
    let pair = Pair::new(QuicConfig::default()).await;
    let (mut sender, _answer) = pair.dialled.open().await.expect("it is open");
    sender.send(Bytes::from_static(b"abc")).await.expect("it is open");
    sender.finish().expect("it is open");
    let (_sender, mut receiver) = pair.accepted.accept().await.expect("it is open");
    for (max, expected) in [(2, "ab"), (0, "c")] {
        assert_eq!(receiver.receive(max).await, Ok(Some(Bytes::from(expected))));
    }
    assert_eq!(receiver.receive(1).await, Ok(None));
}

#[tokio::test]
async fn a_closed_connection_is_closed_for_both_and_says_why() {
    let pair = Pair::new(QuicConfig::default()).await;
    let (mut sender, mut receiver) = pair.accepted.open().await.expect("it is open");
    pair.dialled.close("you lied about your height");
    pair.accepted.closed().await;
    pair.dialled.closed().await;
    let says_why = |error: TransportError| match error {
        TransportError::Closed(reason) => assert!(reason.contains("you lied about your height"), "{reason}"),
        TransportError::WrongPeer { .. } | TransportError::Unreachable { .. } | TransportError::Reset => {
            panic!("{error}")
        }
    };
    says_why(pair.accepted.open().await.expect_err("it is closed"));
    says_why(pair.accepted.accept().await.expect_err("it is closed"));
    says_why(receiver.receive(1).await.expect_err("it is closed"));
    says_why(sender.send(Bytes::from_static(b"why?")).await.expect_err("it is closed"));
    sender.stopped().await;
    assert!(matches!(pair.dialled.open().await, Err(TransportError::Closed(_))));
}

#[tokio::test]
async fn a_reason_of_any_length_can_be_given() {
    let pair = Pair::new(QuicConfig::default()).await;
    pair.dialled.close(&"\u{1f980}".repeat(100_000));
    pair.accepted.closed().await;
    let error = pair.accepted.open().await.expect_err("it is closed");
    assert!(error.to_string().contains('\u{1f980}'), "{error}");
}

#[tokio::test]
async fn a_connection_that_nobody_uses_is_closed() {
    let Pair { dialled, accepted, client, server } = Pair::new(QuicConfig::default()).await;
    let also = dialled.clone();
    drop(dialled);
    ping(&also, &accepted).await;
    drop(also);
    accepted.closed().await;

    let (dialled, accepted) = connect(&client, &server).await;
    drop(accepted);
    dialled.closed().await;
}

#[tokio::test]
async fn a_stream_keeps_its_connection_open() {
    let Pair { dialled, accepted, client: _client, server: _server } = Pair::new(QuicConfig::default()).await;
    let (mut sender, receiver) = dialled.open().await.expect("it is open");
    drop((dialled, receiver));
    sender.send(Bytes::from_static(b"still here")).await.expect("it is open");
    sender.finish().expect("it is open");
    let (_sender, mut receiver) = accepted.accept().await.expect("it is open");
    assert_eq!(read_all(&mut receiver).await.expect("it is whole"), b"still here");
    drop(sender);
    accepted.closed().await;
}

#[tokio::test]
async fn a_closed_transport_tells_its_peers_and_takes_no_more() {
    let Pair { client, server, dialled, accepted } = Pair::new(QuicConfig::default()).await;
    let (closed, accepted_more) = tokio::join!(server.close(), server.accept());
    assert_eq!(closed, ());
    assert!(accepted_more.is_none(), "a closed transport accepts");
    dialled.closed().await;
    accepted.closed().await;
    let elsewhere = listening(3, QuicConfig::default());
    let error = server.dial(elsewhere.local_id(), elsewhere.local_addr()).await;
    assert!(matches!(error, Err(TransportError::Unreachable { .. })), "{error:?}");
    assert!(server.accept().await.is_none());
    // Twice is as good as once, and one that never had a connection closes, too.
    server.close().await;
    client.close().await;
    dialling(4).close().await;
}

#[tokio::test]
async fn a_dropped_transport_is_closed() {
    let Pair { server, dialled, accepted, client: _client } = Pair::new(QuicConfig::default()).await;
    drop((server, accepted));
    dialled.closed().await;
}

#[tokio::test]
async fn a_connection_that_ended_before_it_was_accepted_is_not_handed_out() {
    let server = listening(2, QuicConfig::default());
    let first = dialling(1);
    first
        .dial(server.local_id(), server.local_addr())
        .await
        .expect("the server is there")
        .close("never mind");
    first.close().await;
    let (_dialled, accepted) = connect(&dialling(3), &server).await;
    assert_eq!(accepted.peer(), identity(3).peer_id());
}

#[tokio::test]
async fn two_connections_to_the_same_peer_are_two() {
    let pair = Pair::new(QuicConfig::default()).await;
    let (second, accepted) = connect(&pair.client, &pair.server).await;
    pair.dialled.close("one is enough");
    pair.accepted.closed().await;
    ping(&second, &accepted).await;
}

#[test]
fn a_peer_that_vanishes_is_noticed() {
    let runtime = || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
    let (theirs, ours) = (runtime().expect("a runtime"), runtime().expect("a runtime"));
    let config = QuicConfig {
        idle_timeout: Duration::from_millis(300),
        keep_alive_interval: Duration::from_millis(100),
        ..QuicConfig::default()
    };
    let server = ours.block_on(async { listening(2, config) });
    let (id, address) = (server.local_id(), server.local_addr());
    let client = theirs.block_on(async { dialling(1) });
    let _dialled = theirs.block_on(client.dial(id, address)).expect("the server is there");
    let accepted = ours.block_on(server.accept()).expect("the server is open");
    // Its machine stops: nothing more is sent, not even a farewell.
    theirs.shutdown_background();
    ours.block_on(accepted.closed());
}

#[tokio::test]
async fn a_silent_connection_is_kept_alive() {
    let idle_timeout = Duration::from_millis(1_500);
    // The server sends nothing of itself for half an hour.
    let hour = Duration::from_secs(3_600);
    let server = listening(
        2,
        QuicConfig { idle_timeout: hour, keep_alive_interval: hour / 2, ..QuicConfig::default() },
    );
    let config = QuicConfig { idle_timeout, keep_alive_interval: idle_timeout / 20, ..QuicConfig::default() };
    let client = QuicTransport::bind(&identity(1), None, config).expect("a free port");
    let (dialled, accepted) = connect(&client, &server).await;

    // Two connections that nobody keeps alive are lost, one after the other: longer than the idle time-out.
    let mut silent = quinn::TransportConfig::default();
    silent.max_idle_timeout(Some(idle_timeout.try_into().expect("it is short")));
    let silent = std::sync::Arc::new(silent);
    for _ in 0..2 {
        let endpoint = hostile::endpoint();
        let mut config = hostile::quic(hostile::client(Some(Shows::raw(hostile::ed25519(9))), true));
        config.transport_config(std::sync::Arc::clone(&silent));
        let connecting =
            endpoint.connect_with(config, server.local_addr(), "soma-sync").expect("a valid dial");
        let connection = connecting.await.expect("the server is there");
        assert_eq!(connection.closed().await, quinn::ConnectionError::TimedOut);
    }
    ping(&dialled, &accepted).await;
}
