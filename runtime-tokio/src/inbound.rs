//! Streams that peers open to us: a request each, and its answer.
//!
//! Held for one connection: at most `max_streams_per_connection` streams, one request that is still arriving or waits
//! for the driver (the others wait: whoever sends slowly, or much, holds up nobody but himself), and one message of the
//! answer to each that is being served.

use crate::{
    config::RuntimeConfig,
    mailbox::{Input, Mailbox, Reply},
    serve::{Answer, PART_BYTES},
    store::Store,
    transport::{Connection, StreamReceiver, StreamSender, TransportError},
};
use bytes::Bytes;
use soma_sync_core::{
    command::ServePlan,
    event::{Event, InboundId},
    request::{RefuseReason, Request},
    types::PeerId,
};
use soma_sync_proto::{
    message::{RequestLimits, answered_status, encode_refusal, encode_response},
    stream::RequestReader,
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::{Instant, timeout, timeout_at},
};
use tokio_util::task::TaskTracker;

/// Most bytes of a request taken from the transport at a time.
const RECEIVE_BYTES_MAX: usize = 16 * 1024;

/// What every stream needs.
pub(crate) struct Inbound<S> {
    pub(crate) store: Arc<S>,
    pub(crate) limits: RequestLimits,
    pub(crate) config: RuntimeConfig,
    pub(crate) mailbox: Mailbox,
    /// The number of the next request.
    pub(crate) next_id: AtomicU64,
    /// Knows every task here that may hold the store.
    pub(crate) tasks: TaskTracker,
}

impl<S: Store> Inbound<S> {
    /// Accepts streams until the connection is closed, and says then that it is lost.
    pub(crate) async fn run<C: Connection>(self: Arc<Self>, connection: C, generation: u64) {
        let peer = connection.peer();
        let streams = Arc::new(Semaphore::new(self.config.max_streams_per_connection));
        let accept_all = async {
            while let Ok(permit) = Arc::clone(&streams).acquire_owned().await {
                let (sender, mut receiver) = connection.accept().await?;
                let stream = Stream { peer, sender, _permit: permit };
                // Requests are read in the order in which the peer sends them: the window that their streams share may
                // not be filled by those behind.
                if let Some(asked) = self.hear(peer, generation, &mut receiver).await {
                    self.tasks.spawn(Arc::clone(&self).answer(stream, receiver, asked));
                }
            }
            Ok::<_, TransportError>(())
        };
        tokio::select! {
            () = connection.closed() => {}
            result = accept_all => {
                tracing::debug!(?peer, "no more streams: {result:?}");
                connection.close("no more streams");
            }
        }
        // Without a driver there is nobody to tell.
        let _ = self.mailbox.send(Input::Lost { peer, generation }).await;
    }

    /// Reads a stream's request and tells the driver. `None` where it does not come in time, or breaks off: then it is
    /// none.
    async fn hear(
        &self,
        peer: PeerId,
        generation: u64,
        receiver: &mut impl StreamReceiver,
    ) -> Option<(InboundId, oneshot::Receiver<Reply>)> {
        let reading = timeout(self.config.request_timeout, read_request(receiver, &self.limits));
        let request = reading.await.ok()?.ok()?;
        let (reply, replied) = oneshot::channel();
        let id = InboundId::new(self.next_id.fetch_add(1, Ordering::Relaxed));
        let asked = Input::Asked { id, peer, generation, request, reply };
        // Only one at a time waits for room there: whoever asks much does not stand in line before all others.
        self.mailbox.send(asked).await.ok()?;
        Some((id, replied))
    }

    /// One stream from when its request is known to the driver to the end of its answer.
    async fn answer<W: StreamSender>(
        self: Arc<Self>,
        mut stream: Stream<W>,
        // Kept to the end: dropped sooner, it would tell the peer that its request was not wanted.
        _receiver: impl StreamReceiver,
        (id, mut replied): (InboundId, oneshot::Receiver<Reply>),
    ) {
        let reply = tokio::select! {
            biased;
            reply = &mut replied => reply.ok(),
            () = stream.sender.stopped() => {
                // The peer has gone away; the driver may have answered at this very moment.
                replied.close();
                let reply = replied.try_recv().ok();
                if reply.is_none() {
                    // Without a driver there is nobody to tell.
                    let _ = self.mailbox.send(Input::Withdrawn(id)).await;
                }
                reply
            }
        };
        match reply {
            Some(Reply::Respond(part)) => {
                stream
                    .send_whole([answered_status(), encode_response(&part)], self.config.request_timeout)
                    .await;
            }
            Some(Reply::Refuse(reason)) => {
                stream.send_whole([encode_refusal(reason)], self.config.request_timeout).await;
            }
            Some(Reply::Serve { id, plan, deadline }) => self.serve(stream, id, plan, deadline).await,
            None => {}
        }
    }

    /// Answers from storage and says so when it is over, whatever happened.
    async fn serve<W: StreamSender>(
        self: Arc<Self>,
        stream: Stream<W>,
        id: InboundId,
        plan: ServePlan,
        deadline: Instant,
    ) {
        let peer = stream.peer;
        let sent = Arc::new(Sent::default());
        let serving = {
            let (inbound, sent) = (Arc::clone(&self), Arc::clone(&sent));
            async move { timeout_at(deadline, inbound.send_answer(stream, plan, &sent)).await }
        };
        // In a task of its own, so that not even a panic leaves the request unfinished.
        match self.tasks.spawn(serving).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(error))) => tracing::debug!(?peer, ?id, "an answer broke off: {error}"),
            Ok(Err(_)) => tracing::debug!(?peer, ?id, "an answer was not read in time"),
            Err(error) => tracing::error!(?peer, ?id, "serving failed: {error}"),
        }
        let waited = Duration::from_micros(sent.waited_us.load(Ordering::Relaxed));
        let served = Event::Served { id, bytes: sent.bytes.load(Ordering::Relaxed), waited };
        // Without a driver there is nobody to tell.
        let _ = self.mailbox.send(Input::Event(served)).await;
    }

    /// Sends an answer message by message, each read when the one before has been taken. Over when the peer has it all.
    async fn send_answer<W: StreamSender>(
        &self,
        mut stream: Stream<W>,
        plan: ServePlan,
        sent: &Sent,
    ) -> Result<(), BrokenOff> {
        let patience = self.config.request_timeout;
        let mut answer = Answer::new(Arc::clone(&self.store), plan);
        let mut started = false;
        loop {
            let (rest, message) = read_message(answer, &self.tasks).await;
            match message {
                Ok(message) => {
                    if !started {
                        started = true;
                        stream.send_part(answered_status(), patience).await?;
                    }
                    let Some(mut message) = message else { break };
                    while !message.is_empty() {
                        let part = message.split_to(message.len().min(PART_BYTES));
                        let bytes = part.len() as u64;
                        sent.waiting(stream.send_part(part, patience)).await?;
                        sent.bytes.fetch_add(bytes, Ordering::Relaxed);
                    }
                }
                Err(reason) if !started => {
                    stream.send_part(encode_refusal(reason), patience).await?;
                    break;
                }
                // Dropped without its end, the stream says that the answer is not whole.
                Err(_) => return Ok(()),
            }
            let Some(rest) = rest else { return Ok(()) };
            answer = rest;
        }
        stream.sender.finish()?;
        sent.waiting(stream.sender.stopped()).await;
        Ok(())
    }
}

/// What has become of an answer so far.
#[derive(Default)]
struct Sent {
    bytes: AtomicU64,
    /// How long it had to wait for the peer, in microseconds.
    waited_us: AtomicU64,
}

impl Sent {
    /// Counts how long something takes, even where it is given up before it is done.
    async fn waiting<T>(&self, what: impl Future<Output = T>) -> T {
        struct Waiting<'a>(&'a Sent, Instant);
        impl Drop for Waiting<'_> {
            fn drop(&mut self) {
                let waited = u64::try_from(self.1.elapsed().as_micros()).unwrap_or(u64::MAX);
                self.0.waited_us.fetch_add(waited, Ordering::Relaxed);
            }
        }
        let _waiting = Waiting(self, Instant::now());
        what.await
    }
}

/// Why an answer ends before its end.
#[derive(Debug, thiserror::Error)]
enum BrokenOff {
    /// The stream or the connection failed.
    #[error(transparent)]
    Transport(#[from] TransportError),
    /// The peer reads more slowly than anybody who wants the answer.
    #[error("the peer does not read it")]
    Unread,
}

/// The half of a stream that the answer goes to.
struct Stream<W> {
    peer: PeerId,
    sender: W,
    _permit: OwnedSemaphorePermit,
}

impl<W: StreamSender> Stream<W> {
    /// Sends a part of a long answer, unless the peer takes longer than `patience` to make room for it.
    async fn send_part(&mut self, part: Bytes, patience: Duration) -> Result<(), BrokenOff> {
        Ok(timeout(patience, self.sender.send(part)).await.map_err(|_| BrokenOff::Unread)??)
    }

    /// Sends a short answer. A peer that does not read it in time does not get it.
    async fn send_whole<const N: usize>(mut self, messages: [Bytes; N], time: Duration) {
        let sending = async {
            for message in messages {
                self.sender.send(message).await?;
            }
            self.sender.finish()?;
            self.sender.stopped().await;
            Ok::<_, TransportError>(())
        };
        if !matches!(timeout(time, sending).await, Ok(Ok(()))) {
            tracing::debug!(peer = ?self.peer, "a short answer was not taken");
        }
    }
}

/// The next message of an answer, read where that may block. A panic takes the answer with it.
async fn read_message<S: Store>(
    mut answer: Answer<S>,
    tasks: &TaskTracker,
) -> (Option<Answer<S>>, Result<Option<Bytes>, RefuseReason>) {
    let reading = tasks.spawn_blocking(move || {
        let message = answer.next_message();
        (answer, message)
    });
    match reading.await {
        Ok((answer, message)) => (Some(answer), message),
        Err(error) => {
            tracing::error!("reading an answer failed: {error}");
            (None, Err(RefuseReason::Internal))
        }
    }
}

/// Reads a request; what cannot be one is told apart from a stream that breaks off.
async fn read_request(
    receiver: &mut impl StreamReceiver,
    limits: &RequestLimits,
) -> Result<Result<Request, RefuseReason>, TransportError> {
    let mut reader = RequestReader::new(*limits);
    loop {
        match reader.next_request() {
            Ok(Some(request)) => return Ok(Ok(request)),
            Ok(None) => {}
            Err(reason) => return Ok(Err(reason)),
        }
        match receiver.receive(RECEIVE_BYTES_MAX).await? {
            Some(chunk) => reader.push(chunk),
            None => return Ok(Err(RefuseReason::Malformed)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        channel_transport::{ChannelConnection, ChannelReceiver, ChannelSender},
        store::{Certifier, CommitHead, StoreError, StoredCommit},
    };
    use soma_sync_core::{
        command::Batch,
        committee::Committee,
        payload::Payload,
        request::{CommitInfoQuery, FetchBlocks},
        start::Start,
        types::{AuthorityIndex, BlockDigest, BlockRef, ChainId, CommitIndex, CommitRef, Epoch, Round},
    };
    use soma_sync_proto::message::encode_request;
    use tokio::sync::mpsc;

    /// Sends `bytes` in pieces of `piece` and reads them as a request.
    async fn read(bytes: Bytes, piece: usize) -> Result<Request, RefuseReason> {
        let (near, far) = ChannelConnection::pair(PeerId::new([1; 32]), PeerId::new([2; 32]));
        let (opened, accepted) = tokio::join!(near.open(), far.accept());
        let ((mut sender, _back), (_forth, mut receiver)) = (opened.unwrap(), accepted.unwrap());
        let sending = async move {
            for piece in bytes.chunks(piece) {
                // The reader may have heard enough.
                let _ = sender.send(Bytes::copy_from_slice(piece)).await;
            }
            let _ = sender.finish();
        };
        let (request, ()) =
            tokio::join!(read_request(&mut receiver, &RequestLimits { max_refs: 10 }), sending);
        request.unwrap()
    }

    fn blocks(refs: u32) -> Request {
        let reference = |n| BlockRef {
            round: Round::new(n),
            author: AuthorityIndex::new(0),
            digest: BlockDigest::ZERO,
            epoch: Epoch::new(0),
        };
        Request::Blocks(FetchBlocks { refs: (1..=refs).map(reference).collect(), max_bytes: 1000 })
    }

    #[tokio::test]
    async fn a_request_in_pieces_is_misread() {
        for request in [Request::CommitInfo(CommitInfoQuery::Latest), blocks(10)] {
            for piece in [1, 7, 10_000] {
                assert_eq!(read(encode_request(&request), piece).await, Ok(request.clone()));
            }
        }
    }

    #[tokio::test]
    async fn what_is_no_request_is_taken_or_refused_for_another_reason() {
        assert_eq!(read(encode_request(&blocks(11)), 1000).await, Err(RefuseReason::TooMany));
        // Over the limit for the message as a whole: refused by its length alone.
        assert_eq!(read(encode_request(&blocks(100)).slice(..5), 1000).await, Err(RefuseReason::TooMany));
        assert_eq!(read(Bytes::from_static(&[99, 0]), 1000).await, Err(RefuseReason::Malformed));
        assert_eq!(read(Bytes::new(), 1000).await, Err(RefuseReason::Malformed));
        let whole = encode_request(&blocks(3));
        assert_eq!(read(whole.slice(..whole.len() - 1), 1000).await, Err(RefuseReason::Malformed));
    }

    /// A store whose reading panics.
    struct Panics;

    impl Store for Panics {
        fn start(&self) -> Result<Start, StoreError> {
            panic!("a bug in a store")
        }
        fn apply(&self, _: &Batch) -> Result<(), StoreError> {
            panic!("a bug in a store")
        }
        fn reopen(&self) -> Result<Start, StoreError> {
            panic!("a bug in a store")
        }
        fn chain_id(&self) -> ChainId {
            panic!("a bug in a store")
        }
        fn committee(&self, _: Epoch) -> Result<Option<Arc<Committee>>, StoreError> {
            panic!("a bug in a store")
        }
        fn head(&self, _: CommitIndex) -> Result<Option<CommitHead>, StoreError> {
            panic!("a bug in a store")
        }
        fn commit(&self, _: CommitIndex) -> Result<Option<StoredCommit>, StoreError> {
            panic!("a bug in a store")
        }
        fn block(&self, _: &BlockRef) -> Result<Option<Payload>, StoreError> {
            panic!("a bug in a store")
        }
        fn certificate(&self, _: &CommitRef) -> Result<Option<Vec<Certifier>>, StoreError> {
            panic!("a bug in a store")
        }
        fn prune(&self, _: CommitIndex) -> Result<(), StoreError> {
            panic!("a bug in a store")
        }
    }

    /// A peer's connection to a node that serves from a store that panics, and what the driver is told.
    fn serving() -> (ChannelConnection, mpsc::Receiver<Input>) {
        let (near, far) = ChannelConnection::pair(PeerId::new([1; 32]), PeerId::new([2; 32]));
        let (mailbox, inputs) = mpsc::channel(10);
        let limits = RequestLimits { max_refs: 10 };
        let config = RuntimeConfig { max_streams_per_connection: 2, ..RuntimeConfig::default() };
        let inbound = Inbound {
            store: Arc::new(Panics),
            limits,
            config,
            mailbox,
            next_id: AtomicU64::new(0),
            tasks: TaskTracker::new(),
        };
        tokio::spawn(Arc::new(inbound).run(near, 7));
        (far, inputs)
    }

    /// Opens a stream and asks something on it.
    async fn open(peer: &ChannelConnection) -> (ChannelSender, ChannelReceiver) {
        let (mut sender, receiver) = peer.open().await.unwrap();
        let request = Request::CommitInfo(CommitInfoQuery::ByIndex(CommitIndex::new(3)));
        sender.send(encode_request(&request)).await.unwrap();
        sender.finish().unwrap();
        (sender, receiver)
    }

    async fn asked(inputs: &mut mpsc::Receiver<Input>) -> oneshot::Sender<Reply> {
        match inputs.recv().await {
            Some(Input::Asked { generation: 7, request: Ok(_), reply, .. }) => reply,
            _ => panic!("not a request"),
        }
    }

    fn serve() -> Reply {
        let plan = ServePlan::CommitInfo { index: CommitIndex::new(3) };
        Reply::Serve { id: InboundId::new(5), plan, deadline: Instant::now() + Duration::from_secs(3600) }
    }

    fn is_served(input: Option<Input>) -> bool {
        matches!(input, Some(Input::Event(Event::Served { id, bytes: 0, .. })) if id == InboundId::new(5))
    }

    #[tokio::test]
    async fn an_answer_whose_reading_panics_is_never_finished() {
        let (peer, mut inputs) = serving();
        let (_sender, mut receiver) = open(&peer).await;
        assert!(asked(&mut inputs).await.send(serve()).is_ok());
        assert_eq!(receiver.receive(100).await, Ok(Some(encode_refusal(RefuseReason::Internal))));
        assert_eq!(receiver.receive(100).await, Ok(None));
        assert!(is_served(inputs.recv().await));
    }

    #[tokio::test]
    async fn a_peer_that_goes_away_leaves_its_request_unfinished() {
        let (peer, mut inputs) = serving();
        let stream = open(&peer).await;
        let reply = asked(&mut inputs).await;
        drop(stream);
        // Either the answer finds nobody any more, or whoever took it says that it is over.
        if reply.send(serve()).is_ok() {
            assert!(is_served(inputs.recv().await));
        } else {
            assert!(matches!(inputs.recv().await, Some(Input::Withdrawn(_))));
        }
        peer.close("gone");
        assert!(matches!(inputs.recv().await, Some(Input::Lost { generation: 7, .. })));
    }

    #[tokio::test]
    async fn a_peer_opens_more_streams_than_it_may() {
        let (peer, mut inputs) = serving();
        let (_first, _second, _third) = (open(&peer).await, open(&peer).await, open(&peer).await);
        let (one, two) = (asked(&mut inputs).await, asked(&mut inputs).await);
        tokio::task::yield_now().await;
        assert!(inputs.try_recv().is_err());
        drop(one);
        let three = asked(&mut inputs).await;
        drop((two, three));
    }
}
