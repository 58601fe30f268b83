//! How a serving node behaves: a transport between the real one and the node, through which its answers go.

use bytes::Bytes;
use clap::ValueEnum;
use soma_sync_core::types::PeerId;
use soma_sync_runtime_tokio::transport::{Connection, StreamSender, Transport, TransportError};
use soma_sync_transport_quic::{QuicConnection, QuicReceiver, QuicSender, QuicTransport};
use std::{net::SocketAddr, time::Duration};

/// How long a slow node waits before each piece of an answer.
const SLOW_PAUSE: Duration = Duration::from_millis(150);
/// Pieces of data have at least so many bytes. What is shorter says which chain a node is on and how far it is: a lying
/// or silent node says that truly, so that it is asked for more.
const DATA_BYTES_MIN: usize = 128;

/// How a node answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Manner {
    /// As it should.
    Honest,
    /// Each piece of an answer comes late.
    Slow,
    /// It takes requests for data and never answers them.
    Silent,
    /// One bit of each piece of data is wrong.
    Lying,
}

impl Manner {
    /// What people call it, and type.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Honest => "honest",
            Self::Slow => "slow",
            Self::Silent => "silent",
            Self::Lying => "lying",
        }
    }

    /// Whether it serves what it has.
    pub(super) const fn is_honest(self) -> bool {
        match self {
            Self::Honest | Self::Slow => true,
            Self::Silent | Self::Lying => false,
        }
    }
}

const fn is_data(piece: &Bytes) -> bool {
    piece.len() >= DATA_BYTES_MIN
}

/// A piece of an answer, one bit of it wrong if it is data.
fn lie(piece: Bytes) -> Bytes {
    if !is_data(&piece) {
        return piece;
    }
    let mut lie = Vec::from(piece);
    let middle = lie.len() / 2;
    if let Some(byte) = lie.get_mut(middle) {
        *byte ^= 1;
    }
    lie.into()
}

/// How far a silent node is with an answer. Its first piece only says that an answer follows, or that none does: it is
/// held back until the second one shows whether the answer is data.
#[derive(Debug, Default, PartialEq, Eq)]
enum Silence {
    /// Nothing was to be sent yet.
    #[default]
    Unasked,
    /// This would have been the first piece.
    Held(Bytes),
    /// It says how far the node is, and goes out.
    Broken,
}

impl Silence {
    /// What is to be sent now of `piece` and of those before it. `None` where nothing ever is.
    fn take(&mut self, piece: Bytes) -> Option<Vec<Bytes>> {
        match std::mem::take(self) {
            Self::Unasked => {
                *self = Self::Held(piece);
                Some(Vec::new())
            }
            Self::Held(first) if is_data(&piece) => {
                *self = Self::Held(first);
                None
            }
            Self::Held(first) => {
                *self = Self::Broken;
                Some(vec![first, piece])
            }
            Self::Broken => {
                *self = Self::Broken;
                Some(vec![piece])
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
        Ok((MannerSender::new(quic, Manner::Honest), receiver))
    }

    async fn accept(&self) -> Result<(MannerSender, QuicReceiver), TransportError> {
        let (quic, receiver) = self.quic.accept().await?;
        Ok((MannerSender::new(quic, self.manner), receiver))
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
    silence: Silence,
}

impl MannerSender {
    fn new(quic: QuicSender, manner: Manner) -> Self {
        Self { quic, manner, silence: Silence::default() }
    }

    /// Sends what says how far the node is. Anything else only ends when the peer gives up or goes away.
    async fn send_unless_data(&mut self, piece: Bytes) -> Result<(), TransportError> {
        let Some(pieces) = self.silence.take(piece) else {
            self.quic.stopped().await;
            return Err(TransportError::Reset);
        };
        for piece in pieces {
            self.quic.send(piece).await?;
        }
        Ok(())
    }
}

impl StreamSender for MannerSender {
    async fn send(&mut self, piece: Bytes) -> Result<(), TransportError> {
        match self.manner {
            Manner::Honest => self.quic.send(piece).await,
            Manner::Slow => {
                tokio::time::sleep(SLOW_PAUSE).await;
                self.quic.send(piece).await
            }
            Manner::Silent => self.send_unless_data(piece).await,
            Manner::Lying => self.quic.send(lie(piece)).await,
        }
    }

    /// Not even an end comes of an answer that is held back.
    fn finish(&mut self) -> Result<(), TransportError> {
        match self.silence {
            Silence::Held(_) => Ok(()),
            Silence::Unasked | Silence::Broken => self.quic.finish(),
        }
    }

    async fn stopped(&mut self) {
        self.quic.stopped().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(len: usize) -> Bytes {
        vec![7; len].into()
    }

    #[test]
    fn a_lie_is_none_or_is_told_where_it_would_not_be_asked_for_more() {
        let (short, long) = (piece(DATA_BYTES_MIN - 1), piece(DATA_BYTES_MIN));
        assert_eq!(lie(short.clone()), short);
        let told = lie(long.clone());
        assert_eq!(told.iter().zip(&long).filter(|(a, b)| a != b).count(), 1);
        assert_eq!(told.len(), long.len());
    }

    #[test]
    fn a_silent_node_begins_an_answer_of_data_or_hides_how_far_it_is() {
        let (status, short, long) = (piece(1), piece(DATA_BYTES_MIN - 1), piece(DATA_BYTES_MIN));
        let mut data = Silence::default();
        assert_eq!(data.take(status.clone()), Some(Vec::new()));
        assert_eq!([data.take(long.clone()), data.take(long)], [None, None]);
        assert_eq!(data, Silence::Held(status.clone()));
        let mut height = Silence::default();
        assert_eq!(height.take(status.clone()), Some(Vec::new()));
        assert_eq!(height.take(short.clone()), Some(vec![status, short.clone()]));
        assert_eq!(height.take(short.clone()), Some(vec![short]));
    }

    #[test]
    fn a_manner_is_called_something_else_than_what_is_typed() {
        for manner in Manner::value_variants() {
            let typed = manner.to_possible_value().expect("none is hidden");
            assert_eq!(typed.get_name(), manner.name());
        }
    }
}
