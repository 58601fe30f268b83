//! What the driver needs of a transport: authenticated connections, and byte streams on them, one per request.
//!
//! A transport knows nothing of messages: framing and limits are applied above it, in one place for all transports.

use bytes::Bytes;
use soma_sync_core::types::PeerId;
use std::{future::Future, net::SocketAddr};

/// A way to reach peers and to be reached.
pub trait Transport: Send + Sync + 'static {
    /// A connection to one peer.
    type Connection: Connection;

    /// Who we are to others.
    fn local_id(&self) -> PeerId;

    /// Connects to `peer` at `address`. Whom one dials must be whom one meets: anybody else there is
    /// [`TransportError::WrongPeer`].
    fn dial(
        &self,
        peer: PeerId,
        address: SocketAddr,
    ) -> impl Future<Output = Result<Self::Connection, TransportError>> + Send;

    /// The next connection that a peer made to us, its identity proven; `None` once the transport is closed.
    fn accept(&self) -> impl Future<Output = Option<Self::Connection>> + Send;

    /// Closes every connection, telling the peers, and takes no more.
    fn close(&self) -> impl Future<Output = ()> + Send;
}

/// An authenticated connection. Clones are the same connection.
pub trait Connection: Clone + Send + Sync + 'static {
    /// The sending half of a stream.
    type Sender: StreamSender;
    /// The receiving half of a stream.
    type Receiver: StreamReceiver;

    /// Who is at the other end.
    fn peer(&self) -> PeerId;

    /// Opens a stream; waits while the peer's limit of open streams is reached.
    fn open(&self) -> impl Future<Output = Result<(Self::Sender, Self::Receiver), TransportError>> + Send;

    /// The next stream that the peer opened.
    fn accept(&self) -> impl Future<Output = Result<(Self::Sender, Self::Receiver), TransportError>> + Send;

    /// Closes the connection at once; `reason` is said to the peer.
    fn close(&self, reason: &str);

    /// Resolves when the connection is closed, by whomever.
    fn closed(&self) -> impl Future<Output = ()> + Send;
}

/// Sends bytes on a stream. Dropped before [`finish`](Self::finish), it resets the stream.
pub trait StreamSender: Send + 'static {
    /// Queues `bytes`, without copying them where the transport can; waits while the peer does not read.
    fn send(&mut self, bytes: Bytes) -> impl Future<Output = Result<(), TransportError>> + Send;

    /// Says that nothing more comes.
    fn finish(&mut self) -> Result<(), TransportError>;

    /// Resolves when the peer has received everything or wants no more of it. After [`finish`](Self::finish), this is
    /// when the bytes are flushed.
    fn stopped(&mut self) -> impl Future<Output = ()> + Send;
}

/// Receives bytes on a stream. Dropped before the end, it tells the peer to stop sending.
pub trait StreamReceiver: Send + 'static {
    /// The next bytes, at least one and at most `max`; `None` at the end of the stream.
    fn receive(&mut self, max: usize) -> impl Future<Output = Result<Option<Bytes>, TransportError>> + Send;
}

/// What can go wrong between us and a peer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// Somebody else than the peer that was dialled is at the address.
    #[error("{found} is at the address of {expected}")]
    WrongPeer {
        /// Who was dialled.
        expected: PeerId,
        /// Who is there.
        found: PeerId,
    },
    /// The peer could not be reached, or did not prove who it is.
    #[error("cannot connect to {address}: {reason}")]
    Unreachable {
        /// Where.
        address: SocketAddr,
        /// What happened.
        reason: String,
    },
    /// The connection is closed.
    #[error("the connection is closed: {0}")]
    Closed(String),
    /// The peer abandoned this stream.
    #[error("the peer reset the stream")]
    Reset,
}
