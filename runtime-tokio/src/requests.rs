//! Our requests to peers: one stream each, from the request to the end of the answer. What arrives is decoded within
//! the limits of what was asked for and handed on message by message; whether it is true is not known here.

use crate::{
    mailbox::{Input, Mailbox},
    transport::{Connection, StreamReceiver, StreamSender, TransportError},
};
use soma_sync_core::{
    config::Config,
    event::{Event, RequestId},
    request::{Request, RequestFailure, ResponsePart},
};
use soma_sync_proto::{
    frame::{FrameDecoder, FrameError},
    message::{Method, ResponseLimits, decode_response, encode_request, read_status},
};
use std::sync::Arc;
use tokio::sync::Mutex;

/// Most bytes taken from the transport at a time.
const RECEIVE_BYTES_MAX: usize = 256 * 1024;

/// A connection on which requests are sent one after the other.
///
/// The peer reads them in the order of their streams, and all streams of a connection share what it lets us send before
/// it has read. So the first must be on its way as a whole before the second takes any of that, or it may wait for ever
/// behind parts of others.
#[derive(Clone, Debug)]
pub(crate) struct Line<C> {
    connection: C,
    turn: Arc<Mutex<()>>,
}

impl<C: Connection> Line<C> {
    pub(crate) fn new(connection: C) -> Self {
        Self { connection, turn: Arc::default() }
    }

    pub(crate) fn close(&self, reason: &str) {
        self.connection.close(reason);
    }

    /// Sends `request` on a stream of its own. Given up in between, it lets the next one have its turn.
    async fn send(&self, request: &Request) -> Result<(C::Sender, C::Receiver), TransportError> {
        let _turn = self.turn.lock().await;
        let (mut sender, receiver) = self.connection.open().await?;
        match sender.send(encode_request(request)).await.and_then(|()| sender.finish()) {
            // A server that refuses may have stopped reading: the answer says why.
            Ok(()) | Err(TransportError::Reset) => Ok((sender, receiver)),
            Err(error) => Err(error),
        }
    }
}

/// Sends `request` on a stream of its own and hands the answer on to the mailbox, message by message, waiting for room
/// there. Dropped in between, it resets the stream.
pub(crate) async fn ask<C: Connection>(
    line: &Line<C>,
    request: &Request,
    config: &Config,
    id: RequestId,
    mailbox: &Mailbox,
) -> Result<(), RequestFailure> {
    let (_sender, receiver) = line.send(request).await.map_err(|error| failure(&error))?;
    let answer = Answer {
        receiver,
        decoder: FrameDecoder::new(),
        method: Method::of(request),
        limits: ResponseLimits::new(config, request),
        bytes_left: answer_bytes_max(request, config),
    };
    answer.read(id, mailbox).await
}

/// Most bytes of all messages of an answer.
fn answer_bytes_max(request: &Request, config: &Config) -> u64 {
    match request {
        Request::Commits(fetch) => fetch.max_bytes,
        Request::Blocks(fetch) => fetch.max_bytes,
        Request::CommitInfo(_) | Request::Availability { .. } | Request::Push { .. } => {
            Method::of(request).response_bytes_max(&ResponseLimits::new(config, request))
        }
    }
}

/// An answer being read.
struct Answer<R> {
    receiver: R,
    decoder: FrameDecoder,
    method: Method,
    limits: ResponseLimits,
    bytes_left: u64,
}

impl<R: StreamReceiver> Answer<R> {
    async fn read(mut self, id: RequestId, mailbox: &Mailbox) -> Result<(), RequestFailure> {
        self.status().await?;
        let mut messages = 0_u64;
        while let Some(part) = self.message().await? {
            messages += 1;
            let part = Input::Event(Event::ResponsePart { id, part });
            mailbox.send(part).await.map_err(|_| RequestFailure::Local)?;
        }
        // Where there is one message to an answer, none is not an answer.
        if messages > 0 || self.method.is_streaming() { Ok(()) } else { Err(RequestFailure::Malformed) }
    }

    async fn status(&mut self) -> Result<(), RequestFailure> {
        loop {
            if let Some(status) = self.decoder.varint().map_err(malformed)? {
                return read_status(status).map_err(RequestFailure::Refused);
            }
            if !self.more().await? {
                return Err(RequestFailure::Malformed);
            }
        }
    }

    /// The next message; `None` at the end.
    async fn message(&mut self) -> Result<Option<ResponsePart>, RequestFailure> {
        let limit = self.method.response_bytes_max(&self.limits).min(self.bytes_left);
        loop {
            if let Some(message) = self.decoder.message(limit).map_err(malformed)? {
                // Also an empty message costs something, so that nobody can send them for ever.
                let cost = (message.len() as u64).max(1);
                self.bytes_left = self.bytes_left.checked_sub(cost).ok_or(RequestFailure::Oversize)?;
                let part = decode_response(self.method, message, &self.limits);
                return part.map(Some).map_err(|error| {
                    tracing::debug!("an answer does not decode: {error}");
                    RequestFailure::Malformed
                });
            }
            if !self.more().await? {
                return self.decoder.finish().map(|()| None).map_err(malformed);
            }
        }
    }

    /// Feeds the decoder; `false` at the end of the stream.
    async fn more(&mut self) -> Result<bool, RequestFailure> {
        let chunk = self.receiver.receive(RECEIVE_BYTES_MAX).await.map_err(|error| failure(&error))?;
        Ok(chunk.map(|chunk| self.decoder.push(chunk)).is_some())
    }
}

fn malformed(error: FrameError) -> RequestFailure {
    match error {
        FrameError::Oversize { .. } => RequestFailure::Oversize,
        FrameError::BadLength | FrameError::Truncated => RequestFailure::Malformed,
    }
}

fn failure(error: &TransportError) -> RequestFailure {
    match error {
        TransportError::Reset => RequestFailure::Reset,
        TransportError::Closed(_) | TransportError::WrongPeer { .. } | TransportError::Unreachable { .. } => {
            RequestFailure::Disconnected
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel_transport::ChannelConnection;
    use bytes::Bytes;
    use soma_sync_core::{
        request::{FetchBlocks, RefuseReason},
        types::{CommitIndex, PeerId},
    };
    use soma_sync_proto::message::{BlocksPart, answered_status, encode_refusal, encode_response};
    use std::future::Future;
    use tokio::sync::mpsc;

    /// Asks `request` of a peer that does `answer` with the stream.
    async fn asked<F: Future<Output = ()> + Send>(
        request: Request,
        answer: impl FnOnce(ChannelConnection, crate::channel_transport::ChannelSender) -> F,
    ) -> (Vec<ResponsePart>, Result<(), RequestFailure>) {
        let (near, far) = ChannelConnection::pair(PeerId::new([1; 32]), PeerId::new([2; 32]));
        let config = Config::default();
        let (mailbox, mut inputs) = mpsc::channel(1000);
        let line = Line::new(near);
        let asking = ask(&line, &request, &config, RequestId::new(0), &mailbox);
        let answering = async {
            let (sender, mut receiver) = far.accept().await.unwrap();
            while let Some(_request) = receiver.receive(1000).await.unwrap() {}
            answer(far.clone(), sender).await;
        };
        let (result, ()) = tokio::join!(asking, answering);
        let mut parts = Vec::new();
        while let Ok(Input::Event(Event::ResponsePart { part, .. })) = inputs.try_recv() {
            parts.push(part);
        }
        (parts, result)
    }

    fn availability() -> Request {
        Request::Availability { timestamp_ms: 0 }
    }

    fn blocks(max_bytes: u64) -> Request {
        Request::Blocks(FetchBlocks { refs: Vec::new(), max_bytes })
    }

    fn part() -> ResponsePart {
        ResponsePart::Availability { highest: CommitIndex::new(7), lowest: CommitIndex::new(3) }
    }

    /// A message of blocks, of `len` bytes with its tag and length.
    fn blocks_message(len: usize) -> Bytes {
        let mut part = BlocksPart::default();
        part.push_block(vec![0; len - 3].into());
        assert_eq!(part.encoded_len(), len);
        part.encode()
    }

    #[tokio::test]
    async fn an_answer_is_lost() {
        let (parts, result) = asked(availability(), async |_, mut sender| {
            sender.send(answered_status()).await.unwrap();
            sender.send(encode_response(&part())).await.unwrap();
            sender.finish().unwrap();
        })
        .await;
        assert_eq!((parts, result), (vec![part()], Ok(())));
    }

    #[tokio::test]
    async fn a_refusal_loses_its_reason() {
        let (parts, result) = asked(availability(), async |_, mut sender| {
            sender.send(encode_refusal(RefuseReason::Busy)).await.unwrap();
            sender.finish().unwrap();
        })
        .await;
        assert_eq!((parts, result), (vec![], Err(RequestFailure::Refused(RefuseReason::Busy))));
    }

    #[tokio::test]
    async fn an_answer_cut_off_counts_as_whole() {
        let cut = async |bytes: Bytes, finish: bool| {
            asked(availability(), async move |_, mut sender| {
                sender.send(bytes).await.unwrap();
                if finish {
                    sender.finish().unwrap();
                }
            })
            .await
            .1
        };
        let half = Bytes::from_static(&[0, 5, 1]);
        assert_eq!(cut(half.clone(), true).await, Err(RequestFailure::Malformed));
        assert_eq!(cut(half, false).await, Err(RequestFailure::Reset));
        assert_eq!(cut(answered_status(), true).await, Err(RequestFailure::Malformed));
        assert_eq!(cut(Bytes::new(), true).await, Err(RequestFailure::Malformed));
    }

    #[tokio::test]
    async fn a_lost_connection_counts_as_a_bad_answer() {
        let (_, result) = asked(availability(), async |connection, mut sender| {
            sender.send(answered_status()).await.unwrap();
            connection.close("power cut");
        })
        .await;
        assert_eq!(result, Err(RequestFailure::Disconnected));
    }

    #[tokio::test]
    async fn an_answer_may_be_larger_than_asked_for() {
        let served = async |max_bytes| {
            asked(blocks(max_bytes), async |_, mut sender| {
                sender.send(answered_status()).await.unwrap();
                // The reader may give up in between.
                for _ in 0..2 {
                    let _ = sender.send(blocks_message(1000)).await;
                }
                let _ = sender.finish();
            })
            .await
        };
        let (_, refs_exceeded) = served(2000).await;
        // The request names no blocks, so that a block is malformed here; the limit comes before decoding.
        assert_eq!(refs_exceeded, Err(RequestFailure::Malformed));
        assert_eq!(served(999).await, (vec![], Err(RequestFailure::Oversize)));
    }

    #[tokio::test]
    async fn empty_messages_go_on_for_ever() {
        let (parts, result) = asked(blocks(100), async |_, mut sender| {
            sender.send(answered_status()).await.unwrap();
            while sender.send(BlocksPart::default().encode()).await.is_ok() {}
        })
        .await;
        assert_eq!((parts.len(), result), (100, Err(RequestFailure::Oversize)));
    }

    #[tokio::test]
    async fn a_peer_goes_on_with_an_answer_that_nobody_wants() {
        let (near, far) = ChannelConnection::pair(PeerId::new([1; 32]), PeerId::new([2; 32]));
        let (mailbox, _inputs) = mpsc::channel(1);
        let asking = tokio::spawn(async move {
            ask(&Line::new(near), &blocks(1000), &Config::default(), RequestId::new(0), &mailbox).await
        });
        let (mut sender, _receiver) = far.accept().await.unwrap();
        asking.abort();
        sender.stopped().await;
        assert!(asking.await.unwrap_err().is_cancelled());
    }
}
