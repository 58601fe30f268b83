//! Our requests to peers: one stream each, from the request to the end of the answer. What arrives is decoded within
//! the limits of what was asked for and handed on message by message; whether it is true is not known here.

use crate::{
    mailbox::{Input, Mailbox},
    transport::{Connection, StreamReceiver, StreamSender, TransportError},
};
use soma_sync_core::{
    config::Config,
    event::{Event, RequestId},
    request::{Request, RequestFailure},
};
use soma_sync_proto::{
    message::encode_request,
    stream::{AnswerError, AnswerReader},
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
    read_answer(receiver, AnswerReader::new(config, request), id, mailbox).await
}

/// Reads an answer to its end.
async fn read_answer(
    mut receiver: impl StreamReceiver,
    mut reader: AnswerReader,
    id: RequestId,
    mailbox: &Mailbox,
) -> Result<(), RequestFailure> {
    loop {
        while let Some(part) = reader.next_part().map_err(unusable)? {
            let part = Input::Event(Event::ResponsePart { id, part });
            mailbox.send(part).await.map_err(|_| RequestFailure::Local)?;
        }
        match receiver.receive(RECEIVE_BYTES_MAX).await.map_err(|error| failure(&error))? {
            Some(chunk) => reader.push(chunk),
            None => return reader.finish().map_err(unusable),
        }
    }
}

fn unusable(error: AnswerError) -> RequestFailure {
    tracing::debug!("an answer is of no use: {error}");
    error.into()
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
        request::{FetchBlocks, RefuseReason, ResponsePart},
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
