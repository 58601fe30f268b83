//! How a serving node behaves: a transport between the real one and the node, through which its answers go.

use bytes::Bytes;
use soma_sync_core::types::PeerId;
use soma_sync_runtime_tokio::transport::{Connection, StreamSender, Transport, TransportError};
use soma_sync_transport_quic::{QuicConnection, QuicReceiver, QuicSender, QuicTransport};
use std::{net::SocketAddr, time::Duration};

/// How long a slow node waits before each piece of an answer.
const SLOW_PAUSE: Duration = Duration::from_millis(150);
/// A lying node leaves shorter pieces as they are: which chain it is on and how far it is, it says truly, so that it
/// is asked for more.
const LIE_BYTES_MIN: usize = 128;

/// How a node answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Manner {
    /// As it should.
    Honest,
    /// Each piece of an answer comes late.
    Slow,
    /// One bit of each piece of data is wrong.
    Lying,
}

impl Manner {
    /// A piece of an answer as it is sent.
    async fn treat(self, piece: Bytes) -> Bytes {
        match self {
            Self::Honest => piece,
            Self::Slow => {
                tokio::time::sleep(SLOW_PAUSE).await;
                piece
            }
            Self::Lying if piece.len() < LIE_BYTES_MIN => piece,
            Self::Lying => {
                let mut lie = Vec::from(piece);
                let middle = lie.len() / 2;
                if let Some(byte) = lie.get_mut(middle) {
                    *byte ^= 1;
                }
                lie.into()
            }
        }
    }
}

/// A QUIC transport of a node with manners.
pub(super) struct MannerTransport {
    quic: QuicTransport,
    manner: Manner,
}

impl MannerTransport {
    pub(super) const fn new(quic: QuicTransport, manner: Manner) -> Self {
        Self { quic, manner }
    }

    fn connection(&self, quic: QuicConnection) -> MannerConnection {
        MannerConnection { quic, manner: self.manner }
    }
}

impl Transport for MannerTransport {
    type Connection = MannerConnection;

    fn local_id(&self) -> PeerId {
        self.quic.local_id()
    }

    async fn dial(&self, peer: PeerId, address: SocketAddr) -> Result<MannerConnection, TransportError> {
        self.quic.dial(peer, address).await.map(|quic| self.connection(quic))
    }

    async fn accept(&self) -> Option<MannerConnection> {
        self.quic.accept().await.map(|quic| self.connection(quic))
    }

    async fn close(&self) {
        self.quic.close().await;
    }
}

/// A connection of such a transport.
#[derive(Clone)]
pub(super) struct MannerConnection {
    quic: QuicConnection,
    manner: Manner,
}

impl Connection for MannerConnection {
    type Sender = MannerSender;
    type Receiver = QuicReceiver;

    fn peer(&self) -> PeerId {
        self.quic.peer()
    }

    /// What the node asks, it asks as it should.
    async fn open(&self) -> Result<(MannerSender, QuicReceiver), TransportError> {
        let (quic, receiver) = self.quic.open().await?;
        Ok((MannerSender { quic, manner: Manner::Honest }, receiver))
    }

    async fn accept(&self) -> Result<(MannerSender, QuicReceiver), TransportError> {
        let (quic, receiver) = self.quic.accept().await?;
        Ok((MannerSender { quic, manner: self.manner }, receiver))
    }

    fn close(&self, reason: &str) {
        self.quic.close(reason);
    }

    async fn closed(&self) {
        self.quic.closed().await;
    }
}

/// The sending half of a stream of such a connection.
pub(super) struct MannerSender {
    quic: QuicSender,
    manner: Manner,
}

impl StreamSender for MannerSender {
    async fn send(&mut self, bytes: Bytes) -> Result<(), TransportError> {
        let piece = self.manner.treat(bytes).await;
        self.quic.send(piece).await
    }

    fn finish(&mut self) -> Result<(), TransportError> {
        self.quic.finish()
    }

    async fn stopped(&mut self) {
        self.quic.stopped().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_honest_piece_is_changed_or_a_lying_one_is_not() {
        let (short, long) = (Bytes::from(vec![7; LIE_BYTES_MIN - 1]), Bytes::from(vec![7; LIE_BYTES_MIN]));
        assert_eq!(Manner::Honest.treat(long.clone()).await, long);
        assert_eq!(Manner::Lying.treat(short.clone()).await, short);
        let lie = Manner::Lying.treat(long.clone()).await;
        assert_eq!(lie.iter().zip(&long).filter(|(a, b)| a != b).count(), 1);
        assert_eq!(lie.len(), long.len());
    }
}
