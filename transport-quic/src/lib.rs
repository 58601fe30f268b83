//! QUIC for soma-sync: peers that prove who they are, and a stream of its own for each request.
//!
//! ```text
//!            QuicTransport ── bind(Identity, listen, QuicConfig)
//!             │         │
//!        dial │         │ accept           one UDP socket for both
//!             ▼         ▼
//!            QuicConnection ── peer()      mutual TLS 1.3 by raw ed25519 keys: a PeerId is a key
//!             │         │
//!        open │         │ accept           one bidirectional stream per request
//!             ▼         ▼
//!      QuicSender     QuicReceiver         dropped early: reset, stop
//! ```
//!
//! The crate implements the [`Transport`] traits of the runtime and knows nothing of messages.
//!
//! **Identity.** There are no certificates and no names. Both sides present a raw ed25519 public key (RFC 7250) and
//! sign the handshake with it; the [`PeerId`] is that key. A dialler says whom it expects and gets
//! [`TransportError::WrongPeer`] when somebody else proves to be there; an accepting side may be given a list of those
//! it lets in ([`QuicConfig::allow`]). Only TLS 1.3, only ed25519, only the ALPN [`ALPN`]; no resumption, no 0-RTT:
//! what is received has been sent by the peer, once, after the handshake. The accepting side checks the dialler last,
//! so one that it refuses may see its connection open and close at once.
//!
//! **Bounds.** Inbound connections are limited in all and per address, counted from their first packet on; from an
//! address that is already here, or once half of the places are taken, a first packet counts only after the address
//! has been proven. A peer may open a limited number of streams. What it may send before it is read starts at
//! [`QuicConfig::connection_window_bytes_min`] and grows only as answers that we asked for are read from it, up to
//! [`QuicConfig::connection_window_bytes_max`]: a crowd of strangers pins little memory, and a peer that delivers is
//! not slowed down. All streams of a connection share that window. So whoever asks sends one request as a whole before
//! the next, and whoever accepts streams reads each request to its end, in the order of the streams, before waiting for
//! anything else: what is left unread holds up the rest.
//!
//! ```
//! use bytes::Bytes;
//! use soma_sync_runtime_tokio::transport::{Connection, StreamReceiver, StreamSender, Transport};
//! use soma_sync_transport_quic::{Identity, QuicConfig, QuicTransport};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let listen = Some("127.0.0.1:0".parse()?);
//! let server = QuicTransport::bind(&Identity::generate()?, listen, QuicConfig::default())?;
//! let client = QuicTransport::bind(&Identity::generate()?, None, QuicConfig::default())?;
//!
//! // Both find the other to be who it should be.
//! let (dialled, accepted) = tokio::join!(client.dial(server.local_id(), server.local_addr()), server.accept());
//! let (dialled, accepted) = (dialled?, accepted.ok_or("the server was closed")?);
//! assert_eq!(dialled.peer(), server.local_id());
//! assert_eq!(accepted.peer(), client.local_id());
//!
//! // A request on a stream of its own.
//! let (mut request, _answer) = dialled.open().await?;
//! request.send(Bytes::from_static(b"how far are you?")).await?;
//! request.finish()?;
//!
//! let (_answer, mut request) = accepted.accept().await?;
//! assert_eq!(request.receive(64).await?, Some(Bytes::from_static(b"how far are you?")));
//! assert_eq!(request.receive(64).await?, None);
//!
//! client.close().await;
//! server.close().await;
//! # Ok(())
//! # }
//! ```
//!
//! [`PeerId`]: soma_sync_core::types::PeerId
//! [`Transport`]: soma_sync_runtime_tokio::transport::Transport
//! [`TransportError::WrongPeer`]: soma_sync_runtime_tokio::transport::TransportError::WrongPeer

#![forbid(unsafe_code)]

mod admission;
mod config;
mod connection;
mod identity;
mod socket;
mod tls;
mod transport;

pub use config::{QuicConfig, QuicConfigError};
pub use connection::{QuicConnection, QuicReceiver, QuicSender};
pub use identity::{Identity, IdentityError};
pub use socket::SocketBuffers;
pub use tls::{ALPN, peer_of_public_key};
pub use transport::{BindError, QuicTransport};
