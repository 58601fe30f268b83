//! What a round trip costs on this machine, under the same load: a few bytes on a QUIC stream, there and back.

use crate::network::ANY_PORT;
use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use soma_sync_runtime_tokio::transport::{
    Connection, StreamReceiver, StreamSender, Transport, TransportError,
};
use soma_sync_transport_quic::{Identity, QuicConfig, QuicConnection, QuicTransport};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How often one is measured.
const PAUSE: Duration = Duration::from_millis(50);
/// What goes there and back.
const MESSAGE: &[u8] = b"there and back";

/// Round trips that are measured until they are to stop.
pub(crate) struct RoundTrips {
    stop: CancellationToken,
    measuring: JoinHandle<Result<Vec<Duration>>>,
}

impl RoundTrips {
    /// Connects two ends of their own, and begins.
    pub(crate) async fn start() -> Result<Self> {
        let far_identity = Identity::from_seed(*b"soma-sync tip, far end of a trip");
        let near_identity = Identity::from_seed(*b"soma-sync tip, near end of trips");
        let far = QuicTransport::bind(&far_identity, Some(ANY_PORT), QuicConfig::default())?;
        let near = QuicTransport::bind(&near_identity, None, QuicConfig::default())?;
        let (connection, accepted) =
            tokio::join!(near.dial(far_identity.peer_id(), far.local_addr()), far.accept());
        let (connection, accepted) = (connection?, accepted.context("the far end is closed")?);
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let measuring = tokio::spawn(async move {
            let echo = tokio::spawn(echo(accepted));
            let measured = measure(&connection, &stopped).await;
            near.close().await;
            far.close().await;
            // It ends with the connection, whatever came of it.
            let _ = echo.await;
            measured
        });
        Ok(Self { stop, measuring })
    }

    /// Stops, and gives all that were measured.
    pub(crate) async fn stop(self) -> Result<Vec<Duration>> {
        self.stop.cancel();
        self.measuring.await.context("measuring round trips failed")?
    }
}

async fn measure(connection: &QuicConnection, stop: &CancellationToken) -> Result<Vec<Duration>> {
    let mut due = tokio::time::interval(PAUSE);
    let mut trips = Vec::new();
    loop {
        due.tick().await;
        if stop.is_cancelled() {
            return Ok(trips);
        }
        let began = Instant::now();
        let (mut sender, mut receiver) = connection.open().await?;
        sender.send(Bytes::from_static(MESSAGE)).await?;
        sender.finish()?;
        ensure!(read(&mut receiver).await? == MESSAGE, "something else came back");
        trips.push(began.elapsed());
    }
}

/// Sends back whatever comes, until the connection is closed.
async fn echo(connection: QuicConnection) -> Result<(), TransportError> {
    loop {
        let (mut sender, mut receiver) = connection.accept().await?;
        let message = read(&mut receiver).await?;
        sender.send(message.into()).await?;
        sender.finish()?;
    }
}

async fn read(receiver: &mut impl StreamReceiver) -> Result<Vec<u8>, TransportError> {
    let mut message = Vec::new();
    while message.len() < MESSAGE.len()
        && let Some(bytes) = receiver.receive(MESSAGE.len() - message.len()).await?
    {
        message.extend_from_slice(&bytes);
    }
    Ok(message)
}
