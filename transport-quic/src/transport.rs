//! The endpoint: one UDP socket on which peers are dialled and accepted.

use crate::{
    admission::{Admission, Place, Verdict},
    config::{QuicConfig, QuicConfigError},
    connection::{CloseCode, QuicConnection, describe},
    identity::Identity,
    socket::{self, SocketBuffers},
    tls,
};
use quinn::{ClientConfig, Connecting, Endpoint, EndpointConfig, Incoming, ServerConfig, TransportConfig};
use rustls::pki_types::CertificateDer;
use soma_sync_core::types::PeerId;
use soma_sync_runtime_tokio::transport::{Transport, TransportError};
use std::{fmt, io, net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    runtime::Handle,
    sync::{Mutex, mpsc},
    time::timeout,
};

/// Said in the place where TLS wants a host's name; it is not sent, and nobody looks at it.
const SERVER_NAME: &str = "soma-sync";

/// QUIC as a [`Transport`]. Dropping it closes every connection at once; [`Transport::close`] also waits until the
/// peers have heard of it.
pub struct QuicTransport {
    endpoint: Endpoint,
    peer_id: PeerId,
    local_address: SocketAddr,
    buffers: SocketBuffers,
    dialler: tls::Dialler,
    transport: Arc<TransportConfig>,
    windows: (u64, u64),
    handshake_timeout: Duration,
    close_timeout: Duration,
    accepted: Mutex<mpsc::Receiver<QuicConnection>>,
}

/// Why there is no transport.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// A setting cannot work.
    #[error(transparent)]
    Config(#[from] QuicConfigError),
    /// `bind` was called outside of a tokio runtime.
    #[error("a QUIC transport needs a tokio runtime: call `bind` inside of one")]
    NoRuntime,
    /// The socket cannot be had.
    #[error("cannot use the UDP address {address}: choose a free port of an address of this machine")]
    Socket {
        /// The address asked for; the unspecified one where none was.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The TLS library refused our configuration.
    #[error("cannot set up TLS")]
    Tls(#[from] rustls::Error),
}

impl QuicTransport {
    /// Takes a UDP socket at `listen` and accepts connections there; port 0 takes a free one. Without `listen`, a
    /// socket that only dials. To be called inside of a tokio runtime.
    ///
    /// # Errors
    ///
    /// [`BindError::Config`], [`BindError::NoRuntime`], [`BindError::Socket`] and [`BindError::Tls`], as they say.
    pub fn bind(
        identity: &Identity,
        listen: Option<SocketAddr>,
        config: QuicConfig,
    ) -> Result<Self, BindError> {
        config.validate()?;
        Handle::try_current().map_err(|_| BindError::NoRuntime)?;
        let transport = Arc::new(config.transport());
        let server = match listen {
            Some(_) => Some(server_config(identity, &config, &transport)?),
            None => None,
        };
        let socket_error = |source| {
            let address = listen.unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0)));
            BindError::Socket { address, source }
        };
        let (socket, buffers) = socket::bind(listen, config.socket_buffer_bytes).map_err(socket_error)?;
        let runtime = Arc::new(quinn::TokioRuntime);
        let endpoint =
            Endpoint::new(EndpointConfig::default(), server, socket, runtime).map_err(socket_error)?;
        let local_address = endpoint.local_addr().map_err(socket_error)?;
        let dialler = tls::Dialler::new(identity)?;
        let windows = (config.connection_window_bytes_min, config.connection_window_bytes_max);
        // As many as there are places. Those that closed before anybody took them stay in the queue and hold up new
        // ones, so it never grows beyond.
        let (queue, accepted) = mpsc::channel(config.max_connections as usize);
        let door = Door {
            admission: Admission::new(config.max_connections, config.max_connections_per_address),
            handshake_timeout: config.handshake_timeout,
            windows,
            queue,
        };
        tokio::spawn(door.keep(endpoint.clone()));
        Ok(Self {
            endpoint,
            peer_id: identity.peer_id(),
            local_address,
            buffers,
            dialler,
            transport,
            windows,
            handshake_timeout: config.handshake_timeout,
            close_timeout: config.close_timeout,
            accepted: Mutex::new(accepted),
        })
    }

    /// The address of the socket, with the port that it really has.
    pub fn local_addr(&self) -> SocketAddr {
        self.local_address
    }

    /// What the system granted for the socket's buffers.
    pub fn socket_buffers(&self) -> SocketBuffers {
        self.buffers
    }
}

fn server_config(
    identity: &Identity,
    config: &QuicConfig,
    transport: &Arc<TransportConfig>,
) -> Result<ServerConfig, BindError> {
    let mut server = ServerConfig::with_crypto(Arc::new(tls::server(identity, config.allow.clone())?));
    server.transport_config(Arc::clone(transport));
    // Connections are counted by address, so they keep the one that they came from.
    server.migration(false);
    // What arrives before the door has looked at an attempt; it looks at once.
    server.max_incoming(1_024).incoming_buffer_size(16 * 1024).incoming_buffer_size_total(1024 * 1024);
    Ok(server)
}

impl Transport for QuicTransport {
    type Connection = QuicConnection;

    fn local_id(&self) -> PeerId {
        self.peer_id
    }

    async fn dial(&self, peer: PeerId, address: SocketAddr) -> Result<QuicConnection, TransportError> {
        let unreachable = |reason: String| TransportError::Unreachable { address, reason };
        let (tls, wrong) = self.dialler.dial(peer).map_err(|error| unreachable(error.to_string()))?;
        let mut config = ClientConfig::new(Arc::new(tls));
        config.transport_config(Arc::clone(&self.transport));
        let connecting = self
            .endpoint
            .connect_with(config, address, SERVER_NAME)
            .map_err(|error| unreachable(error.to_string()))?;
        match timeout(self.handshake_timeout, connecting).await {
            Ok(Ok(connection)) => Ok(QuicConnection::new(connection, peer, self.windows)),
            Ok(Err(error)) => Err(match wrong.get() {
                Some(&found) => TransportError::WrongPeer { expected: peer, found },
                None => unreachable(describe(&error)),
            }),
            Err(_) => Err(unreachable(format!("no answer within {:?}", self.handshake_timeout))),
        }
    }

    async fn accept(&self) -> Option<QuicConnection> {
        let mut accepted = self.accepted.lock().await;
        loop {
            let connection = accepted.recv().await?;
            if !connection.is_closed() {
                return Some(connection);
            }
        }
    }

    async fn close(&self) {
        self.endpoint.close(CloseCode::Shutdown.into(), b"shutting down");
        // What is not heard in time is found out by the peer's idle time-out.
        let _ = timeout(self.close_timeout, self.endpoint.wait_idle()).await;
    }
}

impl Drop for QuicTransport {
    fn drop(&mut self) {
        self.endpoint.close(CloseCode::Shutdown.into(), b"shutting down");
    }
}

impl fmt::Debug for QuicTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuicTransport")
            .field("peer_id", &self.peer_id)
            .field("local_address", &self.local_address)
            .finish_non_exhaustive()
    }
}

/// Lets connections in.
struct Door {
    admission: Admission,
    handshake_timeout: Duration,
    windows: (u64, u64),
    queue: mpsc::Sender<QuicConnection>,
}

impl Door {
    /// Until the endpoint is closed.
    async fn keep(self, endpoint: Endpoint) {
        while let Some(incoming) = endpoint.accept().await {
            let (address, proven) = (incoming.remote_address(), incoming.remote_address_validated());
            match self.admission.decide(address.ip(), proven) {
                Verdict::Accept(place) => self.let_in(incoming, place),
                Verdict::ProveAddress => {
                    // It may always be asked for where the address is not proven; else dropping refuses.
                    let _ = incoming.retry();
                }
                Verdict::Refuse => {
                    tracing::debug!(%address, "connection refused: no place is free");
                    incoming.refuse();
                }
            }
        }
    }

    fn let_in(&self, incoming: Incoming, place: Place) {
        let Ok(connecting) = incoming.accept() else { return };
        let queue = self.queue.clone();
        tokio::spawn(host(connecting, place, self.handshake_timeout, self.windows, queue));
    }
}

/// Follows an inbound connection from its handshake to its end, so that its place is taken as long as it lives.
async fn host(
    connecting: Connecting,
    _place: Place,
    handshake_timeout: Duration,
    windows: (u64, u64),
    queue: mpsc::Sender<QuicConnection>,
) {
    let address = connecting.remote_address();
    let connection = match timeout(handshake_timeout, connecting).await {
        Ok(Ok(connection)) => connection,
        Ok(Err(error)) => {
            tracing::debug!(%address, error = describe(&error), "handshake failed");
            return;
        }
        Err(_) => {
            tracing::debug!(%address, "handshake took too long");
            return;
        }
    };
    let Some(peer) = proven_peer(&connection) else { return };
    if queue.send(QuicConnection::new(connection.clone(), peer, windows)).await.is_ok() {
        connection.closed().await;
    }
}

/// Whose key the handshake has proven.
fn proven_peer(connection: &quinn::Connection) -> Option<PeerId> {
    let keys = connection.peer_identity()?.downcast::<Vec<CertificateDer<'static>>>().ok()?;
    tls::peer_of_public_key(keys.first()?)
}
