//! Clients that ask and say too much, or never read, beside an honest one.

use crate::scene::{Chain, Honest, Raw, Settings, ask, encoded, of, pretend, send, small};
use bytes::Bytes;
use soma_sync_core::{
    request::{FetchCommits, RefuseReason, Request},
    types::CommitIndex,
};
use soma_sync_runtime_tokio::transport::TransportError;
use soma_sync_transport_quic::{QuicConfig, QuicConnection, QuicReceiver};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    sync::mpsc,
    task::{JoinHandle, JoinSet},
};

/// How many streams a flood keeps busy.
const AT_ONCE: u32 = 16;

fn commits(start: u32, end: u32, with_blocks: bool) -> Bytes {
    encoded(&Request::Commits(FetchCommits {
        start: CommitIndex::new(start),
        end: CommitIndex::new(end),
        max_bytes: u64::MAX,
        wait: Duration::ZERO,
        with_blocks,
    }))
}

/// A flood that goes on until it is stopped or the connection is closed.
struct Flood {
    tasks: JoinSet<()>,
    answered: Arc<AtomicU64>,
    refused: Arc<AtomicU64>,
}

impl Flood {
    /// Asks at full speed what `request` says for one number after the other.
    fn start(connection: &QuicConnection, request: impl Fn(u32) -> Bytes + Send + Sync + 'static) -> Self {
        let (answered, refused) = (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
        let (request, next) = (Arc::new(request), Arc::<AtomicU32>::default());
        let mut tasks = JoinSet::new();
        for _ in 0..AT_ONCE {
            let (connection, request, next) = (connection.clone(), Arc::clone(&request), Arc::clone(&next));
            let (answered, refused) = (Arc::clone(&answered), Arc::clone(&refused));
            tasks.spawn(async move {
                loop {
                    match ask(&connection, request(next.fetch_add(1, Ordering::Relaxed))).await {
                        Ok(Ok(_)) => answered.fetch_add(1, Ordering::Relaxed),
                        Ok(Err(RefuseReason::Busy)) => refused.fetch_add(1, Ordering::Relaxed),
                        Ok(Err(reason)) => panic!("refused for {reason:?}"),
                        Err(TransportError::Reset) => 0,
                        Err(_) => return,
                    };
                }
            });
        }
        Self { tasks, answered, refused }
    }

    async fn stop(mut self) -> (u64, u64) {
        self.tasks.abort_all();
        while let Some(ended) = self.tasks.join_next().await {
            assert!(ended.is_ok() || ended.is_err_and(|error| error.is_cancelled()), "it panicked");
        }
        (self.answered.load(Ordering::Relaxed), self.refused.load(Ordering::Relaxed))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_16_pushes_at_full_speed_make_work_without_end() {
    let chain = Chain::new(60, 100);
    let server = Honest::start(2, &chain.full(), small()).await;
    let mut settings = small();
    settings.machine.poll_interval_level = Duration::from_secs(1);
    settings.machine.poll_interval_behind = Duration::from_secs(1);
    settings.machine.retry_same_peer_after = Duration::from_secs(1);
    settings.machine.max_small_requests_per_second = 500;
    let store = chain.empty();
    let client = Honest::start(1, &store, settings).await;
    let hostile = Raw::new(9, small().quic);
    let connection = hostile.dial(client.place).await;
    let began = Instant::now();
    let (sender, mut questions) = mpsc::unbounded_channel();
    let script = tokio::spawn(pretend(connection.clone(), chain.tip(), Arc::clone(&chain.genesis), sender));
    // It has nothing that it says it has.
    let refusing: JoinHandle<()> = tokio::spawn(async move { while questions.recv().await.is_some() {} });
    client.until_peer(hostile.place().0, |peer| peer.checked).await;
    let flood = Flood::start(&connection, |n| {
        encoded(&Request::Push { index: CommitIndex::new(1_000_000_u32.saturating_add(n)) })
    });
    client.until(|status| status.counters.refused_rate > 2_000).await;
    client.dial(server.place).await;
    client.reaches(&chain).await;
    chain.check(&store);
    let status = client.status().await;
    let seconds = began.elapsed().as_secs();
    let (answered, _) = flood.stop().await;
    assert!(answered > 0 && answered <= 500 * (seconds + 2), "{answered} in {seconds} s");
    assert_eq!(status.peers.len(), 2, "a record for each push: {status:#?}");
    assert_eq!(of(&status, hostile.place().0).map(|peer| peer.offences), Some(0));
    hostile.leave().await;
    let asked = script.await.expect("the script does not panic");
    refusing.await.expect("it ends with the script");
    assert!(asked <= 20 + 10 * seconds, "{asked} requests in {seconds} s, for {answered} pushes");
    server.stop().await;
    client.holds_nothing().await;
    client.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_17_requests_beyond_the_rate_are_served() {
    let chain = Chain::new(60, 100);
    let mut settings = small();
    settings.machine.max_data_requests_per_second = 50;
    let server = Honest::start(2, &chain.full(), settings).await;
    let hostile = Raw::new(9, small().quic);
    let connection = hostile.dial(server.place).await;
    let began = Instant::now();
    let flood = Flood::start(&connection, |n| commits(n % 60 + 1, 60, false));
    server.until(|status| status.counters.refused_rate > 2_000).await;
    // The honest one is served beside it, and does not pay for it.
    let store = chain.empty();
    let client = Honest::start(1, &store, small()).await;
    client.dial(server.place).await;
    client.reaches(&chain).await;
    chain.check(&store);
    let seconds = began.elapsed().as_secs();
    let (answered, refused) = flood.stop().await;
    assert!(refused > 1_000, "{refused}");
    assert!(answered > 0 && answered <= 50 * (seconds + 2), "{answered} in {seconds} s");
    client.stop().await;
    hostile.leave().await;
    server.is_alone_again().await;
    server.stop().await;
}

/// Commits of which a few are a dear answer.
fn dear() -> Chain {
    Chain::new(60, 16 * 1024)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_17_the_same_dear_answer_is_given_again_and_again() {
    let chain = dear();
    let server = Honest::start(2, &chain.full(), small()).await;
    let hostile = Raw::new(9, small().quic);
    let connection = hostile.dial(server.place).await;
    let began = Instant::now();
    let flood = Flood::start(&connection, |_| commits(1, 5, true));
    let status = server.until(|status| status.counters.refused_repeats > 500).await;
    let seconds = began.elapsed().as_secs();
    let (answered, _) = flood.stop().await;
    // Twice in four seconds, and a little more around the edges.
    assert!(answered <= 2 * (seconds / 4 + 2), "{answered} in {seconds} s: {status:#?}");
    let store = chain.empty();
    let client = Honest::start(1, &store, small()).await;
    client.dial(server.place).await;
    client.reaches(&chain).await;
    client.stop().await;
    hostile.leave().await;
    server.is_alone_again().await;
    server.stop().await;
}

/// Who reads nothing, and lets as little come as may be.
fn deaf() -> QuicConfig {
    QuicConfig {
        stream_window_bytes: 16 * 1024,
        connection_window_bytes_min: 16 * 1024,
        connection_window_bytes_max: 16 * 1024,
        ..QuicConfig::default()
    }
}

/// Asks for as many different dear answers as one may at once, and reads none.
async fn ask_and_do_not_read(connection: &QuicConnection) -> Vec<QuicReceiver> {
    let mut unread = Vec::new();
    for start in 1..=30 {
        unread.push(send(connection, commits(start, start + 4, true)).await.expect("it is open"));
    }
    unread
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_18_unread_answers_are_held_whole_or_for_ever() {
    let mut settings = small();
    settings.machine.serve_timeout = Duration::from_secs(1);
    unread_answers_are_given_up(settings).await;
}

/// Whatever an answer may take in all: a part of it that nobody reads is not waited for as long.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_18_one_unread_part_is_waited_for_as_long_as_a_whole_answer() {
    let mut settings = small();
    settings.machine.serve_timeout = Duration::from_secs(3_600);
    settings.runtime.request_timeout = Duration::from_secs(1);
    unread_answers_are_given_up(settings).await;
}

async fn unread_answers_are_given_up(settings: Settings) {
    let chain = dear();
    let server = Honest::start(2, &chain.full(), settings).await;
    let hostile = Raw::new(9, deaf());
    let connection = hostile.dial(server.place).await;
    let unread = ask_and_do_not_read(&connection).await;
    server.until(|status| status.serving > 1).await;
    // What is not read in time is given up, and what waited for its turn after it.
    let status = server.until(|status| status.serving + status.serve_queue == 0).await;
    assert_eq!(of(&status, hostile.place().0).map(|peer| (peer.connected, peer.offences)), Some((true, 0)));
    // Of all these answers a part or two left the store's side, whatever one of them comes to.
    let sent = status.counters.sent_bytes;
    let one: usize = chain.commits.iter().take(5).map(bytes_of).sum();
    assert!(sent <= one as u64, "{sent} bytes handed to a transport that nobody reads from");
    drop(unread);
    let store = chain.empty();
    let client = Honest::start(1, &store, small()).await;
    client.dial(server.place).await;
    client.reaches(&chain).await;
    chain.check(&store);
    client.stop().await;
    hostile.leave().await;
    server.is_alone_again().await;
    server.stop().await;
}

/// The server's adapter knows for how long it waited for a reader, and its machine does not wait for the same one so often.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_18_who_read_nothing_is_served_as_before() {
    let chain = dear();
    let mut settings = small();
    settings.machine.serve_timeout = Duration::from_secs(6);
    let server = Honest::start(2, &chain.full(), settings).await;
    let hostile = Raw::new(9, deaf());
    let connection = hostile.dial(server.place).await;
    let unread = ask_and_do_not_read(&connection).await;
    server.until(|status| status.serving > 1).await;
    server.until(|status| status.serving + status.serve_queue == 0).await;
    drop(unread);
    let again = ask_and_do_not_read(&connection).await;
    let status = server.until(|status| status.counters.refused_unread > 0).await;
    assert!(status.serving <= 1);
    drop(again);
    hostile.leave().await;
    server.is_alone_again().await;
    server.stop().await;
}

fn bytes_of(made: &soma_sync_sim::chain::MadeCommit) -> usize {
    made.blocks.iter().map(|block| block.payload.bytes().len()).sum()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threat_18_unread_answers_of_many_peers_leave_no_place() {
    let chain = dear();
    let mut settings = small();
    // As many places as one of them would like to have, and time enough for a test.
    settings.machine.max_serving = 32;
    settings.machine.serve_timeout = Duration::from_secs(3_600);
    let server = Honest::start(2, &chain.full(), settings).await;
    let mut hostile = Vec::new();
    for n in 10..13 {
        let raw = Raw::new(n, deaf());
        let connection = raw.dial(server.place).await;
        let unread = ask_and_do_not_read(&connection).await;
        hostile.push((raw, connection, unread));
    }
    server.until(|status| status.serving >= 24).await;
    let store = chain.empty();
    let client = Honest::start(1, &store, small()).await;
    client.dial(server.place).await;
    client.reaches(&chain).await;
    chain.check(&store);
    client.stop().await;
    for (raw, _connection, _unread) in hostile {
        raw.leave().await;
    }
    server.is_alone_again().await;
    server.stop().await;
}
