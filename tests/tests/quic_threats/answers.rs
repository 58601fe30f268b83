//! Servers that answer as they like, beside an honest one.

use crate::scene::{Chain, Honest, Question, Raw, of, pretend, small};
use bytes::Bytes;
use soma_sync_core::{
    command::{Offence, ServePlan},
    request::Request,
    types::{CommitIndex, CommitRange},
};
use soma_sync_proto::{
    frame::put_varint,
    message::{BlocksPart, answered_status},
};
use soma_sync_runtime_tokio::{
    serve::Answer,
    store::MemoryStore,
    transport::{Connection, StreamReceiver, StreamSender, TransportError},
};
use soma_sync_transport_quic::QuicConnection;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::mpsc::{self, UnboundedReceiver},
    task::JoinHandle,
};

/// A client that is behind and knows one server only: the script.
struct Scene {
    chain: Arc<Chain>,
    client: Honest,
    store: Arc<MemoryStore>,
    hostile: Raw,
    connection: QuicConnection,
    questions: UnboundedReceiver<Question>,
    script: JoinHandle<u64>,
}

impl Scene {
    async fn new() -> Self {
        let chain = Arc::new(Chain::new(60, 100));
        let store = chain.empty();
        let client = Honest::start(1, &store, small()).await;
        let hostile = Raw::new(9, small().quic);
        client.dial(hostile.place()).await;
        let connection = hostile.accept().await;
        let (sender, questions) = mpsc::unbounded_channel();
        let (tip, genesis) = (chain.tip(), Arc::clone(&chain.genesis));
        let script = tokio::spawn(pretend(connection.clone(), tip, genesis, sender));
        Self { chain, client, store, hostile, connection, questions, script }
    }

    /// The next that the client asks for commits or blocks.
    async fn asked(&mut self) -> Question {
        self.questions.recv().await.expect("the script goes on")
    }

    /// Has the client find an honest server, and waits until it has everything from there.
    async fn ends_well(self) {
        let server = Honest::start(2, &self.chain.full(), small()).await;
        self.client.dial(server.place).await;
        let status = self.client.reaches(&self.chain).await;
        self.chain.check(&self.store);
        assert_eq!(of(&status, server.place.0).map(|peer| peer.offences), Some(0), "{status:#?}");
        assert!(status.buffered_bytes_peak <= small().machine.max_buffered_bytes);
        server.stop().await;
        self.hostile.leave().await;
        self.client.holds_nothing().await;
        // The stream of questions ends with the connection; so does the script.
        drop(self.questions);
        self.script.await.expect("the script does not panic");
        self.client.stop().await;
    }

    /// Has the client find something to hold against its server.
    async fn ends_in_a_ban(self, name: &str, offence: Offence) {
        let id = self.hostile.place().0;
        let peer = self.client.until_peer(id, |peer| peer.offences > 0).await;
        assert_eq!((peer.last_offence, peer.offences), (Some(offence), 1), "{name}");
        self.connection.closed().await;
        let peer = self.client.until_peer(id, |peer| !peer.connected).await;
        assert!(peer.banned_until.is_some(), "{name}: {peer:?}");
        self.ends_well().await;
    }

    /// The client waited in vain, gave up, and holds nothing against its server.
    async fn gave_up_in_peace(self) {
        let peer = self.client.until_peer(self.hostile.place().0, |peer| peer.timeouts > 0).await;
        assert_eq!((peer.offences, peer.served_commits, peer.connected), (0, 0, true), "{peer:?}");
        self.ends_well().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_04_a_server_that_never_answers_is_waited_for_for_ever() {
    let mut scene = Scene::new().await;
    let mut question = scene.asked().await;
    // It lets the stream go, and so the request.
    question.sender.stopped().await;
    scene.gave_up_in_peace().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_04_a_server_that_does_not_even_say_its_chain_is_asked_for_it() {
    let chain = Chain::new(60, 100);
    let store = chain.empty();
    let client = Honest::start(1, &store, small()).await;
    let hostile = Raw::new(9, small().quic);
    client.dial(hostile.place()).await;
    let connection = hostile.accept().await;
    let mut held = vec![connection.accept().await.expect("it asks for the chain")];
    let server = Honest::start(2, &chain.full(), small()).await;
    client.dial(server.place).await;
    let status = client.reaches(&chain).await;
    let peer = of(&status, hostile.place().0).expect("it is connected");
    assert_eq!((peer.checked, peer.offences, peer.claim), (false, 0, None), "{peer:?}");
    // Whatever else it is asked, it is given up.
    held[0].0.stopped().await;
    held.clear();
    server.stop().await;
    hostile.leave().await;
    client.holds_nothing().await;
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_05_an_answer_a_byte_at_a_time_is_waited_for_for_ever() {
    let mut scene = Scene::new().await;
    let mut question = scene.asked().await;
    let mut pace = tokio::time::interval(Duration::from_millis(10));
    let mut begin = vec![0];
    // A message that would be good if it ever came.
    put_varint(&mut begin, 1_000_000);
    let mut bytes = begin.into_iter().chain(std::iter::repeat(0));
    let error = loop {
        pace.tick().await;
        let byte = bytes.next().expect("without end");
        if let Err(error) = question.sender.send(vec![byte].into()).await {
            break error;
        }
    };
    assert_eq!(error, TransportError::Reset);
    scene.gave_up_in_peace().await;
}

/// Has every request for commits answered with these bytes.
async fn answered_with(name: &str, bytes: Bytes, offence: Offence) {
    let mut scene = Scene::new().await;
    let mut question = scene.asked().await;
    // The client may have heard enough before the end.
    let _ = question.sender.send(bytes).await.and_then(|()| question.sender.finish());
    question.sender.stopped().await;
    scene.ends_in_a_ban(name, offence).await;
}

fn frame(len: u32, message: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    put_varint(&mut out, len);
    out.extend_from_slice(message);
    out
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_12_an_answer_larger_than_any_may_be_is_taken() {
    let bytes = [answered_status().to_vec(), frame(u32::MAX, &[0; 100_000])].concat();
    answered_with("a length of 4 GiB", bytes.into(), Offence::Malformed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_12_an_answer_that_is_no_encoding_is_taken() {
    let cases = [
        ("random bytes", frame(64, &[0xa5; 64])),
        ("a length in six bytes", vec![0xff; 6]),
        ("a message cut short", frame(100, &[0; 10])),
        ("an item longer than its message", frame(4, &[0x0a, 0x7f, 0, 0])),
        ("as many items as fit", frame(200_000, &[0x0a, 0x00].repeat(100_000))),
    ];
    for (name, message) in cases {
        let bytes = [answered_status().to_vec(), message].concat();
        answered_with(name, bytes.into(), Offence::Malformed).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_12_an_answer_without_end_is_read_to_its_end() {
    let mut scene = Scene::new().await;
    let mut question = scene.asked().await;
    // The largest message, again and again.
    let message = Bytes::from(frame(200_000, &[0; 200_000]));
    let mut sent = question.sender.send(answered_status()).await;
    while sent.is_ok() {
        sent = question.sender.send(message.clone()).await;
    }
    scene.ends_in_a_ban("an answer without end", Offence::Malformed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_13_an_answer_of_another_kind_is_taken() {
    let mut part = BlocksPart::default();
    part.push_block(vec![7; 500].into());
    let bytes = [answered_status().to_vec(), part.encode().to_vec()].concat();
    answered_with("blocks for commits", bytes.into(), Offence::BadCommits).await;
}

/// A true answer to what the client asks.
fn true_answer(chain: &Chain, request: &Request) -> Vec<Bytes> {
    let Request::Commits(fetch) = request else { panic!("commits are asked for first: {request:?}") };
    let range = CommitRange::new(fetch.start, fetch.end).expect("it asks for something");
    let plan = ServePlan::Commits {
        range,
        last: CommitIndex::new(60),
        max_bytes: fetch.max_bytes,
        with_blocks: false,
    };
    let mut answer = Answer::new(chain.full(), plan);
    std::iter::from_fn(|| answer.next_message().expect("it has them")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_13_an_answer_twice_counts_twice() {
    let mut scene = Scene::new().await;
    let mut question = scene.asked().await;
    let messages = true_answer(&scene.chain, &question.request);
    for bytes in [vec![answered_status()], messages.clone(), messages].concat() {
        // The client may have heard enough.
        let _ = question.sender.send(bytes).await;
    }
    let _ = question.sender.finish();
    question.sender.stopped().await;
    scene.ends_in_a_ban("an answer twice", Offence::Malformed).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_13_a_late_answer_costs_something() {
    let mut scene = Scene::new().await;
    let mut question = scene.asked().await;
    let messages = true_answer(&scene.chain, &question.request);
    question.sender.stopped().await;
    let before = scene.client.until(|status| status.counters.timeouts > 0).await;
    for bytes in messages {
        assert_eq!(question.sender.send(bytes).await, Err(TransportError::Reset), "somebody reads it");
    }
    let after = scene.client.status().await;
    assert_eq!((after.counters.stale, after.queued), (before.counters.stale, before.queued));
    scene.gave_up_in_peace().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_13_answers_that_nobody_asked_for_are_borne_for_ever() {
    let mut scene = Scene::new().await;
    let question = scene.asked().await;
    let answer: Bytes =
        [vec![answered_status()], true_answer(&scene.chain, &question.request)].concat().concat().into();
    // On streams of its own making they are requests of no kind.
    let pushing = scene.connection.clone();
    let error = loop {
        let pushed = async {
            let (mut sender, mut receiver) = pushing.open().await?;
            sender.send(answer.clone()).await?;
            sender.finish()?;
            while receiver.receive(1_000).await?.is_some() {}
            Ok::<_, TransportError>(())
        };
        match pushed.await {
            Ok(()) | Err(TransportError::Reset) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(error, TransportError::Closed(_)), "{error}");
    scene.ends_in_a_ban("answers that nobody asked for", Offence::InvalidRequests).await;
}
