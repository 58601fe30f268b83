//! What others can take of us.

use crate::{Pair, any_port, connect, dialling, identity, listening, pattern, ping, read_all};
use bytes::Bytes;
use soma_sync_runtime_tokio::transport::{
    Connection, StreamReceiver, StreamSender, Transport, TransportError,
};
use soma_sync_transport_quic::{QuicConfig, QuicConnection, QuicSender, QuicTransport};
use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    time::Duration,
};
use tokio::task::JoinHandle;

/// Dials until there is a place.
async fn dial_until_let_in(client: &QuicTransport, server: &QuicTransport) -> QuicConnection {
    loop {
        match client.dial(server.local_id(), server.local_addr()).await {
            Ok(connection) => return connection,
            Err(error) => assert!(is_refusal(&error), "{error}"),
        }
    }
}

fn is_refusal(error: &TransportError) -> bool {
    matches!(error, TransportError::Unreachable { reason, .. } if reason.contains("refused"))
}

#[tokio::test]
async fn there_are_no_more_connections_than_configured_and_a_place_comes_back() {
    let config = QuicConfig { max_connections: 2, max_connections_per_address: 2, ..QuicConfig::default() };
    let server = listening(2, config);
    let (client, other) = (dialling(1), dialling(3));
    let (first, first_accepted) = connect(&client, &server).await;
    let (second, second_accepted) = connect(&client, &server).await;
    let error = other.dial(server.local_id(), server.local_addr()).await.expect_err("there is no place");
    assert!(is_refusal(&error), "{error}");
    ping(&second, &second_accepted).await;

    first.close("make room");
    first_accepted.closed().await;
    // What is closed takes no place, though its handles are still held.
    let third = dial_until_let_in(&other, &server).await;
    let accepted = server.accept().await.expect("the server is open");
    assert_eq!(accepted.peer(), identity(3).peer_id());
    ping(&third, &accepted).await;
    drop((first, first_accepted));
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn one_address_does_not_take_the_places_of_another() {
    let config = QuicConfig { max_connections_per_address: 1, ..QuicConfig::default() };
    let server = listening(2, config);
    // A transport that is dropped closes its connections.
    let first = dialling_from([127, 0, 0, 1], 1);
    let (_first, _accepted) = connect(&first, &server).await;
    let error = dialling_from([127, 0, 0, 1], 3).dial(server.local_id(), server.local_addr()).await;
    assert!(error.as_ref().is_err_and(is_refusal), "{error:?}");
    let elsewhere = dialling_from([127, 0, 0, 2], 4);
    let (_second, accepted) = connect(&elsewhere, &server).await;
    assert_eq!(accepted.peer(), identity(4).peer_id());
}

#[cfg(target_os = "linux")]
fn dialling_from(address: [u8; 4], n: u8) -> QuicTransport {
    let address = Some(SocketAddr::from((address, 0)));
    QuicTransport::bind(&identity(n), address, QuicConfig::default()).expect("a free port")
}

#[tokio::test]
async fn a_handshake_that_stops_half_way_gives_its_place_back() {
    let config = QuicConfig {
        max_connections: 2,
        max_connections_per_address: 1,
        handshake_timeout: Duration::from_millis(2_000),
        idle_timeout: Duration::from_secs(3_600),
        ..QuicConfig::default()
    };
    let stopping = QuicTransport::bind(&identity(1), None, config.clone()).expect("a free port");
    let server = listening(2, config);
    // The first packet of a dial reaches the server; no answer comes back.
    let middle = UdpSocket::bind(any_port()).expect("a free port");
    let middle_address = middle.local_addr().expect("it is bound");
    let server_address = server.local_addr();
    let forward = tokio::task::spawn_blocking(move || {
        let mut packet = [0; 2_048];
        let (length, _) = middle.recv_from(&mut packet).expect("a dial");
        middle
            .send_to(packet.get(..length).expect("as long as received"), server_address)
            .expect("it is there");
        middle
    });
    let id = server.local_id();
    let dial = tokio::spawn(async move { stopping.dial(id, middle_address).await });
    let _middle = forward.await.expect("no panic");

    let client = dialling(3);
    let error = client.dial(id, server_address).await.expect_err("the only place of this address is taken");
    assert!(is_refusal(&error), "{error}");
    dial_until_let_in(&client, &server).await;
    dial.abort();
}

/// Sends 4 MiB on a stream of its own; done as soon as all of it may be on its way.
fn send_unasked(connection: &QuicConnection) -> JoinHandle<Result<QuicSender, TransportError>> {
    let connection = connection.clone();
    tokio::spawn(async move {
        let (mut sender, _) = connection.open().await?;
        sender.send(pattern(4 * 1024 * 1024)).await?;
        sender.finish()?;
        Ok(sender)
    })
}

#[tokio::test]
async fn a_stranger_cannot_make_us_hold_more_than_the_small_window() {
    let pair = Pair::new(QuicConfig::default()).await;
    // What is read of it does not make it less of a stranger: nobody asked for it.
    for _ in 0..2 {
        let sending = send_unasked(&pair.dialled);
        let (_sender, mut receiver) = pair.accepted.accept().await.expect("it is open");
        // The other way, much is going on in the meantime.
        for _ in 0..20 {
            let (mut ask, _) = pair.accepted.open().await.expect("it is open");
            ask.send(Bytes::from_static(b"?")).await.expect("it is open");
            ask.finish().expect("it is open");
            let (_, mut asked) = pair.dialled.accept().await.expect("it is open");
            assert_eq!(read_all(&mut asked).await.expect("it is whole"), b"?");
            ask.stopped().await;
        }
        assert!(!sending.is_finished(), "all of it may come, though nothing is read");
        // It is held up, not lost.
        let read = read_all(&mut receiver).await.expect("it is whole");
        assert!(read == pattern(4 * 1024 * 1024));
        sending.await.expect("no panic").expect("it is open");
    }
}

#[tokio::test]
async fn requests_that_are_sent_and_read_in_order_need_no_room_for_all_of_them() {
    let smallest = QuicConfig { connection_window_bytes_min: 16 * 1024, ..QuicConfig::default() };
    let pair = Pair::new(smallest).await;
    // As many requests as a peer sends by default, each for as many blocks as it may name.
    let request = pattern(51_000);
    let asking = async {
        let mut streams = Vec::new();
        for _ in 0..16 {
            let (mut sender, answer) = pair.dialled.open().await?;
            sender.send(request.clone()).await?;
            sender.finish()?;
            streams.push((sender, answer));
        }
        Ok::<_, TransportError>(streams)
    };
    let reading = async {
        for _ in 0..16 {
            let (_sender, mut receiver) = pair.accepted.accept().await?;
            assert!(read_all(&mut receiver).await? == request);
        }
        Ok::<_, TransportError>(())
    };
    let (asked, read) = tokio::join!(asking, reading);
    assert_eq!(asked.expect("it is open").len(), 16);
    read.expect("it is open");
}

#[tokio::test]
async fn a_peer_that_delivers_may_send_more() {
    let pair = Pair::new(QuicConfig::default()).await;
    let serving = pair.accepted.clone();
    let served = tokio::spawn(async move {
        let (mut sender, mut receiver) = serving.accept().await?;
        assert_eq!(receiver.receive(1).await?, Some(Bytes::from_static(b"?")));
        sender.send(pattern(4 * 1024 * 1024)).await?;
        sender.finish()
    });
    let (mut sender, mut receiver) = pair.dialled.open().await.expect("it is open");
    sender.send(Bytes::from_static(b"?")).await.expect("it is open");
    sender.finish().expect("it is open");
    assert_eq!(read_all(&mut receiver).await.expect("it is whole").len(), 4 * 1024 * 1024);
    served.await.expect("no panic").expect("it is open");

    // Nothing of this is read, and yet it may all be on its way.
    send_unasked(&pair.accepted).await.expect("no panic").expect("it is open");
}

#[tokio::test]
async fn a_peer_cannot_open_streams_without_end() {
    let pair = Pair::new(QuicConfig { max_streams: 4, ..QuicConfig::default() }).await;
    let mut open = Vec::new();
    for _ in 0..4 {
        let (mut sender, receiver) = pair.dialled.open().await.expect("it is open");
        sender.send(Bytes::from_static(b"x")).await.expect("it is open");
        open.push((sender, receiver));
    }
    let waiting = pair.dialled.clone();
    let fifth = tokio::spawn(async move { waiting.open().await.map(drop) });
    let mut accepted = Vec::new();
    for _ in 0..4 {
        accepted.push(pair.accepted.accept().await.expect("it is open"));
    }
    ping(&pair.accepted, &pair.dialled).await;
    assert!(!fifth.is_finished(), "a fifth stream is open");
    drop((open, accepted));
    fifth.await.expect("no panic").expect("it is open");
}

#[tokio::test]
async fn the_socket_has_large_buffers_or_says_how_large() {
    let address = Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let config = QuicConfig { socket_buffer_bytes: 128 * 1024, ..QuicConfig::default() };
    let transport = QuicTransport::bind(&identity(1), address, config).expect("a free port");
    let granted = transport.socket_buffers();
    assert_eq!((granted.receive, granted.send), (128 * 1024, 128 * 1024));
}
