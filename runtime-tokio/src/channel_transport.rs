//! A transport within one process: nodes of a [`ChannelNetwork`] reach one another over bounded channels. For tests,
//! and for embedders that run several nodes side by side. Identity is taken on trust; everything else behaves as a
//! network transport does, with backpressure, resets and lost connections.

use crate::transport::{Connection, StreamReceiver, StreamSender, Transport, TransportError};
use bytes::Bytes;
use soma_sync_core::types::PeerId;
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// Most bytes of one piece on a stream; larger ones are cut, not copied.
const MAX_PIECE_BYTES: usize = 64 * 1024;
/// Pieces that wait on a stream for their reader: together with [`MAX_PIECE_BYTES`] the stream's window.
const MAX_PIECES: usize = 4;
/// Streams and connections that wait to be accepted.
const MAX_WAITING: usize = 64;

/// What the nodes of one network know of one another.
#[derive(Clone, Default)]
pub struct ChannelNetwork {
    nodes: Arc<Mutex<BTreeMap<SocketAddr, Node>>>,
}

/// Where to reach one node.
struct Node {
    peer: PeerId,
    arrivals: mpsc::Sender<ChannelConnection>,
}

impl ChannelNetwork {
    /// An empty network.
    pub fn new() -> Self {
        Self::default()
    }

    /// A transport for `peer`, with an address of its own. The node stays reachable until the transport is closed.
    pub fn join(&self, peer: PeerId) -> ChannelTransport {
        let (arrivals, accepted) = mpsc::channel(MAX_WAITING);
        let mut nodes = self.lock();
        let used = |port: u16, nodes: &BTreeMap<SocketAddr, Node>| nodes.contains_key(&address(port));
        // Port 0 stands for "no free address": such a node can dial, and cannot be dialled.
        let port = (1..=u16::MAX).find(|port| !used(*port, &nodes)).unwrap_or(0);
        let address = address(port);
        nodes.insert(address, Node { peer, arrivals });
        drop(nodes);
        ChannelTransport {
            peer,
            address,
            network: self.clone(),
            accepted: tokio::sync::Mutex::new(accepted),
            closed: CancellationToken::new(),
            open: Mutex::new(Vec::new()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<SocketAddr, Node>> {
        // No code that can panic runs under this lock.
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn address(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

/// One node's end of a [`ChannelNetwork`].
pub struct ChannelTransport {
    peer: PeerId,
    address: SocketAddr,
    network: ChannelNetwork,
    accepted: tokio::sync::Mutex<mpsc::Receiver<ChannelConnection>>,
    closed: CancellationToken,
    open: Mutex<Vec<Arc<Link>>>,
}

impl ChannelTransport {
    /// Where others of the network reach this node. It names nothing outside the network.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Keeps a connection in the list of those to close, and forgets the ones closed since.
    fn remember(&self, link: &Arc<Link>) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|link| !link.closed.is_cancelled());
        open.push(Arc::clone(link));
    }
}

impl Transport for ChannelTransport {
    type Connection = ChannelConnection;

    fn local_id(&self) -> PeerId {
        self.peer
    }

    async fn dial(&self, peer: PeerId, address: SocketAddr) -> Result<ChannelConnection, TransportError> {
        let unreachable = |reason: &str| TransportError::Unreachable { address, reason: reason.to_owned() };
        if self.closed.is_cancelled() {
            return Err(TransportError::Closed("the transport is closed".to_owned()));
        }
        let (found, arrivals) = {
            let nodes = self.network.lock();
            let node = nodes.get(&address).ok_or_else(|| unreachable("nobody is there"))?;
            (node.peer, node.arrivals.clone())
        };
        if found != peer {
            return Err(TransportError::WrongPeer { expected: peer, found });
        }
        let (near, far) = ChannelConnection::pair(self.peer, peer);
        arrivals.send(far).await.map_err(|_| unreachable("the node has left"))?;
        self.remember(&near.link);
        Ok(near)
    }

    async fn accept(&self) -> Option<ChannelConnection> {
        let mut accepted = self.accepted.lock().await;
        let connection = tokio::select! {
            biased;
            () = self.closed.cancelled() => None,
            connection = accepted.recv() => connection,
        }?;
        self.remember(&connection.link);
        Some(connection)
    }

    async fn close(&self) {
        self.closed.cancel();
        self.network.lock().remove(&self.address);
        for link in self.open.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            link.close("the node has left");
        }
    }
}

impl Drop for ChannelTransport {
    fn drop(&mut self) {
        self.network.lock().remove(&self.address);
    }
}

/// What both ends of a connection share.
struct Link {
    closed: CancellationToken,
    reason: OnceLock<String>,
}

impl Link {
    fn close(&self, reason: &str) {
        // The first reason stands.
        let _ = self.reason.set(reason.to_owned());
        self.closed.cancel();
    }

    fn error(&self) -> TransportError {
        TransportError::Closed(self.reason.get().cloned().unwrap_or_default())
    }
}

/// Closes the connection with the last clone of one of its ends.
struct End(Arc<Link>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.close("the other end was dropped");
    }
}

type Halves = (ChannelSender, ChannelReceiver);

/// A connection between two nodes of a [`ChannelNetwork`].
#[derive(Clone)]
pub struct ChannelConnection {
    peer: PeerId,
    link: Arc<Link>,
    _end: Arc<End>,
    opened: mpsc::Sender<Halves>,
    accepted: Arc<tokio::sync::Mutex<mpsc::Receiver<Halves>>>,
}

impl ChannelConnection {
    /// The two ends of a new connection: the one that `near` holds, and the one that `far` holds.
    pub fn pair(near: PeerId, far: PeerId) -> (Self, Self) {
        let link = Arc::new(Link { closed: CancellationToken::new(), reason: OnceLock::new() });
        let (to_far, at_far) = mpsc::channel(MAX_WAITING);
        let (to_near, at_near) = mpsc::channel(MAX_WAITING);
        let end = |peer, opened, accepted| Self {
            peer,
            link: Arc::clone(&link),
            _end: Arc::new(End(Arc::clone(&link))),
            opened,
            accepted: Arc::new(tokio::sync::Mutex::new(accepted)),
        };
        (end(far, to_far, at_near), end(near, to_near, at_far))
    }
}

/// A stream between the two ends of `link`, in one direction.
fn one_way(link: &Arc<Link>) -> Halves {
    let (pieces, arriving) = mpsc::channel(MAX_PIECES);
    let sender = ChannelSender { link: Arc::clone(link), pieces };
    let receiver = ChannelReceiver { link: Arc::clone(link), arriving: Some(arriving), rest: Bytes::new() };
    (sender, receiver)
}

impl Connection for ChannelConnection {
    type Sender = ChannelSender;
    type Receiver = ChannelReceiver;

    fn peer(&self) -> PeerId {
        self.peer
    }

    async fn open(&self) -> Result<Halves, TransportError> {
        let (sender, at_peer) = one_way(&self.link);
        let (peer_sender, receiver) = one_way(&self.link);
        tokio::select! {
            biased;
            () = self.link.closed.cancelled() => Err(self.link.error()),
            sent = self.opened.send((peer_sender, at_peer)) => {
                sent.map(|()| (sender, receiver)).map_err(|_| self.link.error())
            }
        }
    }

    async fn accept(&self) -> Result<Halves, TransportError> {
        let mut accepted = self.accepted.lock().await;
        tokio::select! {
            biased;
            () = self.link.closed.cancelled() => Err(self.link.error()),
            halves = accepted.recv() => halves.ok_or_else(|| self.link.error()),
        }
    }

    fn close(&self, reason: &str) {
        self.link.close(reason);
    }

    async fn closed(&self) {
        self.link.closed.cancelled().await;
    }
}

/// What travels on a stream.
enum Piece {
    Bytes(Bytes),
    End,
}

/// The sending half of a stream of a [`ChannelConnection`].
pub struct ChannelSender {
    link: Arc<Link>,
    pieces: mpsc::Sender<Piece>,
}

impl StreamSender for ChannelSender {
    async fn send(&mut self, mut bytes: Bytes) -> Result<(), TransportError> {
        while !bytes.is_empty() {
            let piece = bytes.split_to(bytes.len().min(MAX_PIECE_BYTES));
            tokio::select! {
                biased;
                () = self.link.closed.cancelled() => return Err(self.link.error()),
                sent = self.pieces.send(Piece::Bytes(piece)) => sent.map_err(|_| TransportError::Reset)?,
            }
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), TransportError> {
        if self.link.closed.is_cancelled() {
            return Err(self.link.error());
        }
        match self.pieces.try_send(Piece::End) {
            Ok(()) => Ok(()),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(TransportError::Reset),
            Err(mpsc::error::TrySendError::Full(end)) => {
                let (pieces, link) = (self.pieces.clone(), Arc::clone(&self.link));
                // The end waits for room like everything else.
                tokio::spawn(async move {
                    tokio::select! {
                        () = link.closed.cancelled() => {}
                        // An error means that the reader is gone, and wants no end either.
                        _ = pieces.send(end) => {}
                    }
                });
                Ok(())
            }
        }
    }

    async fn stopped(&mut self) {
        tokio::select! {
            () = self.link.closed.cancelled() => {}
            () = self.pieces.closed() => {}
        }
    }
}

/// The receiving half of a stream of a [`ChannelConnection`].
pub struct ChannelReceiver {
    link: Arc<Link>,
    /// `None` after the end.
    arriving: Option<mpsc::Receiver<Piece>>,
    rest: Bytes,
}

impl StreamReceiver for ChannelReceiver {
    async fn receive(&mut self, max: usize) -> Result<Option<Bytes>, TransportError> {
        if self.rest.is_empty() {
            let Some(arriving) = &mut self.arriving else { return Ok(None) };
            let piece = tokio::select! {
                biased;
                () = self.link.closed.cancelled() => return Err(self.link.error()),
                piece = arriving.recv() => piece,
            };
            match piece {
                Some(Piece::Bytes(bytes)) => self.rest = bytes,
                Some(Piece::End) => {
                    self.arriving = None;
                    return Ok(None);
                }
                None => return Err(TransportError::Reset),
            }
        }
        Ok(Some(self.rest.split_to(self.rest.len().min(max.max(1)))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(n: u8) -> PeerId {
        PeerId::new([n; 32])
    }

    /// A connection in each direction, and a stream on it: what the dialler opened, what the other accepted.
    async fn stream() -> (ChannelConnection, ChannelConnection, Halves, Halves) {
        let (near, far) = ChannelConnection::pair(peer(1), peer(2));
        let (opened, accepted) = tokio::join!(near.open(), far.accept());
        (near, far, opened.unwrap(), accepted.unwrap())
    }

    #[tokio::test]
    async fn bytes_arrive_out_of_order_or_without_an_end() {
        let (_near, _far, (mut sender, _), (_, mut receiver)) = stream().await;
        let sent: Vec<u8> = (0..1_000_000_u32).map(|n| n.to_le_bytes()[1]).collect();
        let expected = sent.clone();
        let reading = tokio::spawn(async move {
            let mut got = Vec::new();
            while let Some(bytes) = receiver.receive(1000).await.unwrap() {
                assert!((1..=1000).contains(&bytes.len()));
                got.extend_from_slice(&bytes);
            }
            got
        });
        sender.send(Bytes::from(sent)).await.unwrap();
        sender.finish().unwrap();
        sender.stopped().await;
        assert_eq!(reading.await.unwrap(), expected);
    }

    #[tokio::test(start_paused = true)]
    async fn a_sender_goes_on_while_nobody_reads() {
        let (_near, _far, (mut sender, _), (_, mut receiver)) = stream().await;
        let window = Bytes::from(vec![0; MAX_PIECES * MAX_PIECE_BYTES]);
        sender.send(window).await.unwrap();
        let more = sender.send(Bytes::from_static(b"more"));
        assert!(tokio::time::timeout(std::time::Duration::from_secs(60), more).await.is_err());
        receiver.receive(usize::MAX).await.unwrap();
        sender.send(Bytes::from_static(b"more")).await.unwrap();
        sender.finish().unwrap();
        let mut left = 0;
        while let Some(bytes) = receiver.receive(usize::MAX).await.unwrap() {
            left += bytes.len();
        }
        assert_eq!(left, (MAX_PIECES - 1) * MAX_PIECE_BYTES + 4);
    }

    #[tokio::test]
    async fn a_sender_dropped_early_looks_like_the_end() {
        let (_near, _far, (mut sender, _), (_, mut receiver)) = stream().await;
        sender.send(Bytes::from_static(b"half")).await.unwrap();
        drop(sender);
        assert_eq!(receiver.receive(10).await, Ok(Some(Bytes::from_static(b"half"))));
        assert_eq!(receiver.receive(10).await, Err(TransportError::Reset));
    }

    #[tokio::test]
    async fn a_sender_does_not_notice_that_nobody_reads_any_more() {
        let (_near, _far, (mut sender, _), (_, receiver)) = stream().await;
        drop(receiver);
        sender.stopped().await;
        assert_eq!(sender.send(Bytes::from_static(b"x")).await, Err(TransportError::Reset));
    }

    #[tokio::test]
    async fn something_waits_on_a_closed_connection_for_ever() {
        let (near, far, _, (_, mut receiver)) = stream().await;
        near.close("enough");
        far.closed().await;
        assert_eq!(receiver.receive(1).await, Err(TransportError::Closed("enough".to_owned())));
        assert!(matches!(far.open().await, Err(TransportError::Closed(_))));
        assert!(matches!(near.accept().await, Err(TransportError::Closed(_))));
    }

    #[tokio::test]
    async fn one_meets_another_than_one_dialled() {
        let network = ChannelNetwork::new();
        let (one, two) = (network.join(peer(1)), network.join(peer(2)));
        let wrong = one.dial(peer(3), two.address()).await.err();
        assert_eq!(wrong, Some(TransportError::WrongPeer { expected: peer(3), found: peer(2) }));
        let (dialled, accepted) = tokio::join!(one.dial(peer(2), two.address()), two.accept());
        assert_eq!(dialled.unwrap().peer(), peer(2));
        let accepted = accepted.unwrap();
        assert_eq!(accepted.peer(), peer(1));
        one.close().await;
        accepted.closed().await;
        assert!(one.accept().await.is_none());
        assert!(matches!(two.dial(peer(1), one.address()).await, Err(TransportError::Unreachable { .. })));
    }
}
