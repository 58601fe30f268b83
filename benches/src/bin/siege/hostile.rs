//! The hostile peers, each with an identity and a socket of its own, all in one process.

use crate::{Arguments, child, child::Child, server};
use anyhow::{Context, Result};
use bytes::Bytes;
use serde_json::json;
use soma_sync_core::{
    request::{FetchCommits, Request},
    types::CommitIndex,
};
use soma_sync_proto::message::encode_request;
use soma_sync_runtime_tokio::transport::{
    Connection, StreamReceiver, StreamSender, Transport, TransportError,
};
use soma_sync_transport_quic::{
    Identity, QuicConfig, QuicConnection, QuicReceiver, QuicSender, QuicTransport,
};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{Semaphore, mpsc},
    task::JoinSet,
    time::{MissedTickBehavior, interval},
};

/// Most requests of one peer whose answers are being read.
const READING_MAX: usize = 32;
/// Pause before a connection that is lost is made again.
const PAUSE: Duration = Duration::from_millis(200);
/// Handshakes at the same time.
const CONNECTING_MAX: usize = 16;

/// What a peer does, until the end.
#[derive(Clone, Copy, Debug)]
enum Manner {
    /// Asks for dear answers, all over the chain, and reads them.
    Floods,
    /// Asks for the same, and reads nothing.
    Deaf,
    /// Says that it has ever more.
    Pushes,
    /// Sends half of a request on each stream that it may open, and as many bytes behind it as are taken.
    Half,
    /// Sends a request a byte at a time.
    Drips,
    /// Sends what is no request.
    Garbage,
    /// Connects again and again.
    Reconnects,
}

impl Manner {
    const ALL: [Self; 7] =
        [Self::Floods, Self::Deaf, Self::Pushes, Self::Half, Self::Drips, Self::Garbage, Self::Reconnects];
}

/// What all of them did.
#[derive(Default)]
struct Counts {
    asked: AtomicU64,
    ended: AtomicU64,
    connections: AtomicU64,
}

struct Peer {
    transport: QuicTransport,
    manner: Manner,
    at: SocketAddr,
    /// Between one request and the next.
    period: Duration,
    commits: u32,
    counts: Arc<Counts>,
}

/// Starts the process. All are connected when this returns, or were.
pub(crate) fn start(at: SocketAddr) -> Result<Child> {
    Ok(Child::start(&["--role", "hostile", "--at", &at.to_string()])?.0)
}

/// What this process is when it is the hostile peers.
pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.context("cannot start the runtime")?;
    let counts = Arc::<Counts>::default();
    let mut peers = JoinSet::new();
    runtime.block_on(begin(arguments, &counts, &mut peers))?;
    let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
    child::serve(&json!({}), || {
        Ok(json!({
            "asked": read(&counts.asked),
            "ended": read(&counts.ended),
            "connections": read(&counts.connections),
        }))
    })?;
    // Whoever is at the other end finds out by itself: they do not even say that they go.
    runtime.shutdown_background();
    Ok(())
}

async fn begin(arguments: &Arguments, counts: &Arc<Counts>, peers: &mut JoinSet<()>) -> Result<()> {
    let at = arguments.at.context("where the server is is not said")?;
    let per_second = arguments.requests.saturating_mul(arguments.times).max(1);
    let connecting = Arc::new(Semaphore::new(CONNECTING_MAX));
    let (first, mut connected) = mpsc::unbounded_channel();
    for (number, manner) in (0..arguments.connections).zip(Manner::ALL.into_iter().cycle()) {
        let peer = Peer {
            transport: QuicTransport::bind(&identity(number), None, config(manner))?,
            manner,
            at,
            period: Duration::from_secs(1) / per_second,
            commits: arguments.commits,
            counts: Arc::clone(counts),
        };
        let (connecting, first) = (Arc::clone(&connecting), first.clone());
        peers.spawn(async move {
            let permit = connecting.acquire().await;
            let connection = peer.connect().await;
            drop(permit);
            // It may be that nobody waits.
            let _ = first.send(());
            drop(first);
            peer.go_on(connection).await;
        });
    }
    drop(first);
    while connected.recv().await.is_some() {}
    Ok(())
}

fn identity(number: u32) -> Identity {
    let mut seed = *b"soma-sync siege, hostile no 0000";
    let (_, place) = seed.split_at_mut(28);
    place.copy_from_slice(&number.to_be_bytes());
    Identity::from_seed(seed)
}

fn config(manner: Manner) -> QuicConfig {
    let window = match manner {
        Manner::Deaf => 16 * 1024,
        Manner::Floods
        | Manner::Pushes
        | Manner::Half
        | Manner::Drips
        | Manner::Garbage
        | Manner::Reconnects => 1024 * 1024,
    };
    QuicConfig {
        connection_window_bytes_min: window,
        connection_window_bytes_max: window,
        socket_buffer_bytes: 256 * 1024,
        ..QuicConfig::default()
    }
}

type Ended = Result<(), TransportError>;

impl Peer {
    async fn connect(&self) -> Result<QuicConnection, TransportError> {
        let connected = self.transport.dial(server::identity().peer_id(), self.at).await;
        self.counts.connections.fetch_add(u64::from(connected.is_ok()), Ordering::Relaxed);
        connected
    }

    /// Misbehaves for ever, on one connection after the other.
    async fn go_on(self, mut connection: Result<QuicConnection, TransportError>) {
        loop {
            if let Ok(connection) = connection {
                // Only a connection that is closed ends it.
                let _ = match self.manner {
                    Manner::Floods => self.ask(&connection, true, |n| self.dear(n)).await,
                    Manner::Deaf => self.ask(&connection, false, |n| self.dear(n)).await,
                    Manner::Pushes => self.ask(&connection, true, push).await,
                    Manner::Garbage => self.ask(&connection, true, garbage).await,
                    Manner::Half => self.half(&connection).await,
                    Manner::Drips => self.drip(&connection).await,
                    Manner::Reconnects => Ok(()),
                };
            }
            tokio::time::sleep(PAUSE).await;
            connection = self.connect().await;
        }
    }

    fn dear(&self, n: u32) -> Bytes {
        let start = n % self.commits.max(1) + 1;
        encode_request(&Request::Commits(FetchCommits {
            start: CommitIndex::new(start),
            end: CommitIndex::new(start.saturating_add(9).min(self.commits)),
            max_bytes: u64::MAX,
            wait: Duration::ZERO,
            with_blocks: true,
        }))
    }

    /// Asks at its pace, as far as streams can be opened.
    async fn ask(&self, connection: &QuicConnection, reads: bool, request: impl Fn(u32) -> Bytes) -> Ended {
        let mut pace = interval(self.period.max(Duration::from_millis(1)));
        pace.set_missed_tick_behavior(MissedTickBehavior::Skip);
        let at_once = (Duration::from_millis(1).as_secs_f64() / self.period.as_secs_f64()).round().max(1.0);
        let places = Arc::new(Semaphore::new(READING_MAX));
        let mut streams = JoinSet::new();
        let mut n = 0_u32;
        loop {
            pace.tick().await;
            for _ in 0..at_once as u32 {
                let Ok(permit) = Arc::clone(&places).acquire_owned().await else { return Ok(()) };
                let stream = send(connection, request(n)).await?;
                n = n.wrapping_add(1);
                self.counts.asked.fetch_add(1, Ordering::Relaxed);
                let counts = Arc::clone(&self.counts);
                streams.spawn(async move {
                    read(stream, reads).await;
                    counts.ended.fetch_add(1, Ordering::Relaxed);
                    drop(permit);
                });
            }
            while streams.try_join_next().is_some() {}
        }
    }

    /// Half of a request on every stream, and whatever else is taken.
    async fn half(&self, connection: &QuicConnection) -> Ended {
        let mut streams = JoinSet::new();
        loop {
            let (mut sender, mut receiver) = connection.open().await?;
            self.counts.asked.fetch_add(1, Ordering::Relaxed);
            streams.spawn(async move {
                // A request for blocks of 40 KB, of which the last byte never comes.
                sender.send(Bytes::from_static(&[4, 0xc0, 0xb8, 0x02])).await?;
                sender.send(vec![0; 39_999].into()).await?;
                while receiver.receive(1_000).await?.is_some() {}
                Ok::<_, TransportError>(())
            });
            while streams.try_join_next().is_some() {}
        }
    }

    async fn drip(&self, connection: &QuicConnection) -> Ended {
        let mut pace = interval(Duration::from_millis(20));
        loop {
            let (mut sender, _receiver) = connection.open().await?;
            self.counts.asked.fetch_add(1, Ordering::Relaxed);
            let mut byte = Bytes::from_static(&[4]);
            while sender.send(byte).await.is_ok() {
                pace.tick().await;
                byte = Bytes::from_static(&[0x80]);
            }
        }
    }
}

fn push(n: u32) -> Bytes {
    encode_request(&Request::Push { index: CommitIndex::new(1_000_000_u32.saturating_add(n)) })
}

fn garbage(n: u32) -> Bytes {
    [&[7_u8], n.to_be_bytes().as_slice(), &[0xa5; 200]].concat().into()
}

async fn send(
    connection: &QuicConnection,
    bytes: Bytes,
) -> Result<(QuicSender, QuicReceiver), TransportError> {
    let (mut sender, receiver) = connection.open().await?;
    match sender.send(bytes).await.and_then(|()| sender.finish()) {
        Ok(()) | Err(TransportError::Reset) => Ok((sender, receiver)),
        Err(error) => Err(error),
    }
}

/// Reads an answer to its end, or holds it unread until the server gives it up.
async fn read((mut sender, mut receiver): (QuicSender, QuicReceiver), reads: bool) {
    if !reads {
        // The server has the whole request now, and a place is taken for it.
        sender.stopped().await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        return;
    }
    while let Ok(Some(_)) = receiver.receive(256 * 1024).await {}
}
