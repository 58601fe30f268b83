//! The transport over real sockets of this machine. Nothing here sleeps: each test waits for what it is about.

mod hostile;
#[cfg(unix)]
mod identity;
mod limits;
mod streams;
mod tls;

use bytes::Bytes;
use soma_sync_runtime_tokio::transport::{
    Connection, StreamReceiver, StreamSender, Transport, TransportError,
};
use soma_sync_transport_quic::{Identity, QuicConfig, QuicConnection, QuicReceiver, QuicTransport};
use std::net::SocketAddr;

/// The identity number `n` of a test.
fn identity(n: u8) -> Identity {
    Identity::from_seed([n; 32])
}

fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

fn listening(n: u8, config: QuicConfig) -> QuicTransport {
    QuicTransport::bind(&identity(n), Some(any_port()), config).expect("a free port")
}

fn dialling(n: u8) -> QuicTransport {
    QuicTransport::bind(&identity(n), None, QuicConfig::default()).expect("a free port")
}

/// Two transports and the connection between them, seen from both ends.
struct Pair {
    client: QuicTransport,
    server: QuicTransport,
    dialled: QuicConnection,
    accepted: QuicConnection,
}

impl Pair {
    async fn new(server: QuicConfig) -> Self {
        let (client, server) = (dialling(1), listening(2, server));
        let (dialled, accepted) = connect(&client, &server).await;
        Self { client, server, dialled, accepted }
    }
}

async fn connect(client: &QuicTransport, server: &QuicTransport) -> (QuicConnection, QuicConnection) {
    let (dialled, accepted) =
        tokio::join!(client.dial(server.local_id(), server.local_addr()), server.accept());
    (dialled.expect("the server is there"), accepted.expect("the server is open"))
}

/// One small request and its answer: both ends are alive.
async fn ping(from: &QuicConnection, to: &QuicConnection) {
    let ask = async {
        let (mut sender, mut receiver) = from.open().await?;
        sender.send(Bytes::from_static(b"ping")).await?;
        sender.finish()?;
        assert_eq!(read_all(&mut receiver).await?, b"pong");
        Ok::<_, TransportError>(())
    };
    let answer = async {
        let (mut sender, mut receiver) = to.accept().await?;
        assert_eq!(read_all(&mut receiver).await?, b"ping");
        sender.send(Bytes::from_static(b"pong")).await?;
        sender.finish()?;
        sender.stopped().await;
        Ok::<_, TransportError>(())
    };
    let (asked, answered) = tokio::join!(ask, answer);
    asked.and(answered).expect("the connection is alive");
}

async fn read_all(receiver: &mut QuicReceiver) -> Result<Vec<u8>, TransportError> {
    let mut all = Vec::new();
    while let Some(bytes) = receiver.receive(64 * 1024).await? {
        assert!((1..=64 * 1024).contains(&bytes.len()), "{} bytes at once", bytes.len());
        all.extend_from_slice(&bytes);
    }
    Ok(all)
}

/// Bytes that would not be the same if some were lost, repeated or moved.
fn pattern(length: usize) -> Bytes {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..length).map(|_| next()).collect()
}
