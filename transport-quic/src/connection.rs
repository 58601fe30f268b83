//! A connection to a peer, and its streams.

use crate::config::varint;
use bytes::Bytes;
use quinn::{ConnectionError, ReadError, RecvStream, SendStream, VarInt, WriteError};
use soma_sync_core::types::PeerId;
use soma_sync_runtime_tokio::transport::{Connection, StreamReceiver, StreamSender, TransportError};
use std::{
    fmt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

/// Why we close a connection. The code tells what kind of reason it is; the text beside it is for people.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub(crate) enum CloseCode {
    /// Nobody here uses the connection any more.
    Unused = 0,
    /// The layer above closed it, and gave its reason.
    Asked = 1,
    /// The whole transport is closed.
    Shutdown = 2,
}

impl From<CloseCode> for VarInt {
    fn from(code: CloseCode) -> Self {
        Self::from_u32(code as u32)
    }
}

/// Sent with a stream that its sender abandoned.
const RESET_ABANDONED: VarInt = VarInt::from_u32(0);

/// Characters of a reason that are sent, and of one that are reported.
const REASON_MAX: usize = 200;

/// An authenticated QUIC connection. It is closed when the last of its clones and streams is dropped.
#[derive(Clone, Debug)]
pub struct QuicConnection {
    link: Arc<Link>,
}

/// What a connection's clones and streams share.
#[derive(Debug)]
struct Link {
    connection: quinn::Connection,
    peer: PeerId,
    window: Window,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.connection.close(CloseCode::Unused.into(), b"not used any more");
    }
}

/// How much the peer may send on all streams before it is read: see the crate's documentation.
#[derive(Debug)]
struct Window {
    max: u64,
    /// Set once `max` is granted, so that from then on nothing is locked.
    wide: AtomicBool,
    state: Mutex<WindowState>,
}

#[derive(Debug)]
struct WindowState {
    granted: u64,
    delivered: u64,
}

impl Window {
    fn new(min: u64, max: u64) -> Self {
        let state = Mutex::new(WindowState { granted: min, delivered: 0 });
        Self { max, wide: AtomicBool::new(min >= max), state }
    }

    /// Counts bytes of answers that were read, and gives the next window to `grant` when there is one: twice the last,
    /// as often as half of it has been delivered, so that it always stays ahead of how fast a sender speeds up.
    fn delivered(&self, bytes: usize, grant: impl FnOnce(u64)) {
        if self.wide.load(Ordering::Relaxed) {
            return;
        }
        // Granted under the lock, so that a smaller window never follows a larger one.
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.delivered = state.delivered.saturating_add(bytes as u64);
        if state.delivered < state.granted / 2 || state.granted >= self.max {
            return;
        }
        state.granted = state.granted.saturating_mul(2).min(self.max);
        grant(state.granted);
        self.wide.store(state.granted >= self.max, Ordering::Relaxed);
    }
}

impl QuicConnection {
    pub(crate) fn new(connection: quinn::Connection, peer: PeerId, window: (u64, u64)) -> Self {
        Self { link: Arc::new(Link { connection, peer, window: Window::new(window.0, window.1) }) }
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.link.connection.close_reason().is_some()
    }

    fn stream(&self, halves: (SendStream, RecvStream), answer: bool) -> (QuicSender, QuicReceiver) {
        let (sender, receiver) = halves;
        (
            QuicSender { stream: sender, finished: false, _link: Arc::clone(&self.link) },
            QuicReceiver { stream: receiver, answer, link: Arc::clone(&self.link) },
        )
    }
}

impl Connection for QuicConnection {
    type Sender = QuicSender;
    type Receiver = QuicReceiver;

    fn peer(&self) -> PeerId {
        self.link.peer
    }

    async fn open(&self) -> Result<(QuicSender, QuicReceiver), TransportError> {
        let halves = self.link.connection.open_bi().await.map_err(|error| closed(&error))?;
        Ok(self.stream(halves, true))
    }

    async fn accept(&self) -> Result<(QuicSender, QuicReceiver), TransportError> {
        let halves = self.link.connection.accept_bi().await.map_err(|error| closed(&error))?;
        Ok(self.stream(halves, false))
    }

    fn close(&self, reason: &str) {
        let reason: String = reason.chars().take(REASON_MAX).collect();
        self.link.connection.close(CloseCode::Asked.into(), reason.as_bytes());
    }

    async fn closed(&self) {
        self.link.connection.closed().await;
    }
}

/// The sending half of a QUIC stream. Dropped before it is finished, it resets the stream.
pub struct QuicSender {
    stream: SendStream,
    finished: bool,
    _link: Arc<Link>,
}

impl StreamSender for QuicSender {
    /// A call that is dropped while it waits may have sent a part: only dropping the stream is sound then.
    async fn send(&mut self, bytes: Bytes) -> Result<(), TransportError> {
        if bytes.is_empty() {
            return Ok(());
        }
        self.stream.write_chunk(bytes).await.map_err(|error| match error {
            WriteError::Stopped(_) | WriteError::ZeroRttRejected => TransportError::Reset,
            WriteError::ConnectionLost(error) => closed(&error),
            WriteError::ClosedStream => TransportError::Closed("the stream is finished".to_owned()),
        })
    }

    fn finish(&mut self) -> Result<(), TransportError> {
        self.finished = true;
        self.stream.finish().map_err(|_| TransportError::Closed("the stream is finished".to_owned()))
    }

    async fn stopped(&mut self) {
        // Whether the peer has it all, wants no more, or is gone: each time, nothing is left to wait for.
        let _ = self.stream.stopped().await;
    }
}

impl Drop for QuicSender {
    fn drop(&mut self) {
        if !self.finished {
            // Fails where the stream or the connection is closed already, which is as good.
            let _ = self.stream.reset(RESET_ABANDONED);
        }
    }
}

impl fmt::Debug for QuicSender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuicSender").field("id", &self.stream.id()).finish_non_exhaustive()
    }
}

/// The receiving half of a QUIC stream. Dropped before its end, it tells the peer to stop.
pub struct QuicReceiver {
    stream: RecvStream,
    /// Whether we opened the stream: what comes on it is what we asked for.
    answer: bool,
    link: Arc<Link>,
}

impl StreamReceiver for QuicReceiver {
    /// The next bytes, not copied. A `max` of 0 counts as 1. A call that is dropped while it waits loses nothing.
    async fn receive(&mut self, max: usize) -> Result<Option<Bytes>, TransportError> {
        let chunk = self.stream.read_chunk(max.max(1), true).await.map_err(|error| match error {
            ReadError::ConnectionLost(error) => closed(&error),
            // The last three cannot come of what is done here; each would mean that there is nothing more to read.
            ReadError::Reset(_)
            | ReadError::ClosedStream
            | ReadError::IllegalOrderedRead
            | ReadError::ZeroRttRejected => TransportError::Reset,
        })?;
        let Some(chunk) = chunk else { return Ok(None) };
        if self.answer {
            self.link.window.delivered(chunk.bytes.len(), |window| {
                self.link.connection.set_receive_window(varint(window));
            });
        }
        Ok(Some(chunk.bytes))
    }
}

impl fmt::Debug for QuicReceiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QuicReceiver").field("id", &self.stream.id()).finish_non_exhaustive()
    }
}

fn closed(error: &ConnectionError) -> TransportError {
    TransportError::Closed(describe(error))
}

/// What happened, for people. It may hold text from the peer, so it is cut short, and nothing in it can control a
/// terminal or break a line of a log.
pub(crate) fn describe(error: &ConnectionError) -> String {
    let text = error.to_string();
    text.chars().take(REASON_MAX).flat_map(char::escape_debug).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use quinn::ApplicationClose;

    #[test]
    fn a_peers_reason_cannot_control_the_terminal_or_fill_the_log() {
        let reason = Bytes::from(format!("\x1b[2J\n{}", "x".repeat(10_000)));
        let error =
            ConnectionError::ApplicationClosed(ApplicationClose { error_code: VarInt::from_u32(1), reason });
        let text = describe(&error);
        assert!(text.contains("\\u{1b}[2J\\n"), "{text}");
        assert!(!text.contains(['\x1b', '\n']) && text.len() < 10 * REASON_MAX, "{text}");
    }

    #[test]
    fn a_window_grows_by_what_is_delivered_and_not_beyond_its_bound() {
        let window = Window::new(100, 350);
        let mut granted = Vec::new();
        for bytes in [49, 1, 49, 1, 99, 1, 1_000] {
            window.delivered(bytes, |next| granted.push(next));
        }
        assert_eq!(granted, [200, 350]);
    }

    #[test]
    fn a_window_that_is_wide_from_the_start_stays_as_it_is() {
        Window::new(100, 100).delivered(1_000, |next| panic!("{next} granted"));
    }
}
