//! Plain TCP, one connection a stream, beside one that stands for the peer's being connected.
//!
//! Whoever connects says what for, who it is and where it listens. Nobody proves that: for the world there is
//! `soma-sync-transport-quic`. Bytes travel in chunks behind their length, and a chunk of no bytes is the end, so that
//! a stream that broke off can be told from one that is finished. Two peers are connected once: only one of them dials.

use bytes::Bytes;
use soma_sync_core::types::PeerId;
use soma_sync_runtime_tokio::transport::{
    Connection, StreamReceiver, StreamSender, Transport, TransportError,
};
use std::{
    collections::BTreeMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc,
};
use tokio_util::sync::{CancellationToken, DropGuard};

/// How long a stranger may take to say who it is.
const GREETING_TIME: Duration = Duration::from_secs(5);
/// Most bytes of a chunk.
const CHUNK_BYTES_MAX: usize = 64 * 1024;
/// What a connection is for.
const FOR_PEER: u8 = 0;
const FOR_STREAM: u8 = 1;

/// A listening socket, and who is connected.
pub(crate) struct TcpTransport {
    hub: Arc<Hub>,
    arrivals: tokio::sync::Mutex<mpsc::Receiver<TcpConnection>>,
}

struct Hub {
    id: PeerId,
    address: SocketAddr,
    /// Where the streams go that a peer opens.
    streams: Mutex<BTreeMap<PeerId, mpsc::Sender<TcpStream>>>,
    stop: CancellationToken,
}

impl TcpTransport {
    /// Listens on a free port of this machine.
    pub(crate) async fn bind(id: PeerId) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let (address, stop) = (listener.local_addr()?, CancellationToken::new());
        let hub = Arc::new(Hub { id, address, streams: Mutex::default(), stop });
        let (arrived, arrivals) = mpsc::channel(16);
        tokio::spawn(Arc::clone(&hub).listen(listener, arrived));
        Ok(Self { hub, arrivals: tokio::sync::Mutex::new(arrivals) })
    }

    /// Where we listen.
    pub(crate) fn address(&self) -> SocketAddr {
        self.hub.address
    }
}

impl Hub {
    async fn listen(self: Arc<Self>, listener: TcpListener, arrived: mpsc::Sender<TcpConnection>) {
        let stop = self.stop.clone();
        while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
            let Ok((stream, from)) = accepted else { continue };
            let (hub, arrived) = (Arc::clone(&self), arrived.clone());
            // A stranger that does not greet is forgotten.
            tokio::spawn(tokio::time::timeout(GREETING_TIME, hub.greeted(stream, from, arrived)));
        }
    }

    /// Reads what a connection is for, and has it go there.
    async fn greeted(
        self: Arc<Self>,
        mut stream: TcpStream,
        from: SocketAddr,
        arrived: mpsc::Sender<TcpConnection>,
    ) -> io::Result<()> {
        stream.set_nodelay(true)?;
        let purpose = stream.read_u8().await?;
        let mut peer = [0; 32];
        stream.read_exact(&mut peer).await?;
        let (peer, port) = (PeerId::new(peer), stream.read_u16().await?);
        if purpose == FOR_PEER {
            stream.write_all(self.id.as_bytes()).await?;
            let connection = self.connected(peer, SocketAddr::new(from.ip(), port), stream);
            // Where nobody takes it, the transport is gone.
            let _ = arrived.send(connection).await;
        } else if let Some(streams) = self.streams_of(peer) {
            let _ = streams.send(stream).await;
        }
        Ok(())
    }

    fn streams_of(&self, peer: PeerId) -> Option<mpsc::Sender<TcpStream>> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner).get(&peer).cloned()
    }

    /// Connects, and says what for.
    async fn connect(&self, address: SocketAddr, purpose: u8) -> io::Result<TcpStream> {
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        stream.write_u8(purpose).await?;
        stream.write_all(self.id.as_bytes()).await?;
        stream.write_u16(self.address.port()).await?;
        Ok(stream)
    }

    /// A peer is connected as long as `link` stands.
    fn connected(self: &Arc<Self>, peer: PeerId, address: SocketAddr, mut link: TcpStream) -> TcpConnection {
        let (streams, opened) = mpsc::channel(16);
        self.streams.lock().unwrap_or_else(PoisonError::into_inner).insert(peer, streams);
        let closed = self.stop.child_token();
        let link_closed = closed.clone();
        tokio::spawn(async move {
            // Nothing is ever sent on it: whatever is read is its end.
            link_closed.run_until_cancelled(link.read_u8()).await;
            link_closed.cancel();
        });
        let opened = Arc::new(tokio::sync::Mutex::new(opened));
        TcpConnection { hub: Arc::clone(self), peer, address, opened, closed }
    }
}

impl Transport for TcpTransport {
    type Connection = TcpConnection;

    fn local_id(&self) -> PeerId {
        self.hub.id
    }

    async fn dial(&self, peer: PeerId, address: SocketAddr) -> Result<TcpConnection, TransportError> {
        let unreachable =
            |error: io::Error| TransportError::Unreachable { address, reason: error.to_string() };
        let mut link = self.hub.connect(address, FOR_PEER).await.map_err(unreachable)?;
        let mut found = [0; 32];
        link.read_exact(&mut found).await.map_err(unreachable)?;
        let found = PeerId::new(found);
        if found != peer {
            return Err(TransportError::WrongPeer { expected: peer, found });
        }
        Ok(self.hub.connected(peer, address, link))
    }

    async fn accept(&self) -> Option<TcpConnection> {
        let mut arrivals = self.arrivals.lock().await;
        self.hub.stop.run_until_cancelled(arrivals.recv()).await.flatten()
    }

    async fn close(&self) {
        self.hub.stop.cancel();
    }
}

/// A connected peer.
#[derive(Clone)]
pub(crate) struct TcpConnection {
    hub: Arc<Hub>,
    peer: PeerId,
    address: SocketAddr,
    opened: Arc<tokio::sync::Mutex<mpsc::Receiver<TcpStream>>>,
    closed: CancellationToken,
}

fn closed(reason: impl ToString) -> TransportError {
    TransportError::Closed(reason.to_string())
}

impl Connection for TcpConnection {
    type Sender = TcpSender;
    type Receiver = TcpReceiver;

    fn peer(&self) -> PeerId {
        self.peer
    }

    async fn open(&self) -> Result<(TcpSender, TcpReceiver), TransportError> {
        let connecting = self.hub.connect(self.address, FOR_STREAM);
        let stream = self.closed.run_until_cancelled(connecting).await;
        Ok(halves(stream.ok_or_else(|| closed("by us"))?.map_err(closed)?, &self.closed))
    }

    async fn accept(&self) -> Result<(TcpSender, TcpReceiver), TransportError> {
        let mut opened = self.opened.lock().await;
        let stream = self.closed.run_until_cancelled(opened.recv()).await.flatten();
        Ok(halves(stream.ok_or_else(|| closed("no more streams"))?, &self.closed))
    }

    fn close(&self, _reason: &str) {
        self.closed.cancel();
    }

    async fn closed(&self) {
        self.closed.cancelled().await;
    }
}

/// The two halves of a stream. It is over when either end has closed it, or the connection is.
fn halves(stream: TcpStream, connection: &CancellationToken) -> (TcpSender, TcpReceiver) {
    let (reader, writer) = stream.into_split();
    let over = connection.child_token();
    let (chunks, received) = mpsc::channel(4);
    let reading = over.clone();
    tokio::spawn(async move {
        reading.run_until_cancelled(read_chunks(reader, chunks)).await;
        reading.cancel();
    });
    let receiver =
        TcpReceiver { received, rest: Bytes::new(), finished: false, _unwanted: over.clone().drop_guard() };
    (TcpSender { writer: Some(writer), over }, receiver)
}

/// Hands on chunks to the end, `None` being it, and then waits for the peer to close the stream.
async fn read_chunks(mut reader: OwnedReadHalf, chunks: mpsc::Sender<Option<Bytes>>) {
    while let Ok(len) = reader.read_u32().await {
        let Some(len) = usize::try_from(len).ok().filter(|len| *len <= CHUNK_BYTES_MAX) else { return };
        let mut chunk = vec![0; len];
        if reader.read_exact(&mut chunk).await.is_err() {
            return;
        }
        if chunks.send((len > 0).then(|| chunk.into())).await.is_err() {
            return;
        }
    }
}

/// Sends chunks.
pub(crate) struct TcpSender {
    /// `None` after the end. Dropped before it, the stream ends without one, which is a reset.
    writer: Option<OwnedWriteHalf>,
    over: CancellationToken,
}

impl StreamSender for TcpSender {
    async fn send(&mut self, bytes: Bytes) -> Result<(), TransportError> {
        let Some(writer) = &mut self.writer else { return Err(closed("after its end")) };
        let writing = async {
            for chunk in bytes.chunks(CHUNK_BYTES_MAX) {
                writer.write_u32(chunk.len() as u32).await?;
                writer.write_all(chunk).await?;
            }
            Ok::<_, io::Error>(())
        };
        let written = self.over.run_until_cancelled(writing).await;
        written.is_some_and(|written| written.is_ok()).then_some(()).ok_or(TransportError::Reset)
    }

    fn finish(&mut self) -> Result<(), TransportError> {
        let mut writer = self.writer.take().ok_or_else(|| closed("after its end"))?;
        let over = self.over.clone();
        tokio::spawn(async move {
            // Kept open until the peer has read everything: it closes first.
            if writer.write_u32(0).await.is_ok() {
                over.cancelled().await;
            }
        });
        Ok(())
    }

    async fn stopped(&mut self) {
        self.over.cancelled().await;
    }
}

/// Receives chunks. Dropped, it closes the stream.
pub(crate) struct TcpReceiver {
    received: mpsc::Receiver<Option<Bytes>>,
    rest: Bytes,
    finished: bool,
    _unwanted: DropGuard,
}

impl StreamReceiver for TcpReceiver {
    async fn receive(&mut self, max: usize) -> Result<Option<Bytes>, TransportError> {
        if self.rest.is_empty() && !self.finished {
            match self.received.recv().await {
                Some(Some(chunk)) => self.rest = chunk,
                Some(None) => self.finished = true,
                None => return Err(TransportError::Reset),
            }
        }
        let next = self.rest.split_to(self.rest.len().min(max));
        Ok((!next.is_empty()).then_some(next))
    }
}
