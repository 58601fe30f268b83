//! What a node says of itself over HTTP, to people, probes and Prometheus.

use super::report::Report;
use crate::output::about;
use anyhow::Result;
use axum::{
    Json, Router,
    extract::{RawQuery, State},
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
    serve::Listener,
};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use serde_json::Value;
use soma_sync_core::{PeerStatus, Status, explain::Explanation, types::CommitIndex};
use soma_sync_runtime_tokio::node::{NodeHandle, NodeStatus};
use std::{
    convert::Infallible,
    future::pending,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch},
    time::Sleep,
};

/// Most connections at once; further ones wait.
const CONNECTIONS_MAX: usize = 64;
/// How long a connection is kept, whatever it is used for, so that nobody holds a place for good.
const CONNECTION_LIFE: Duration = Duration::from_secs(60);

/// When a node counts as ready.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ready {
    /// How far it may be behind the highest commit that a peer claims.
    pub(super) look_ahead: u32,
    /// Whether it dials nobody, so that it needs to hear of nobody's height.
    pub(super) alone: bool,
}

impl Ready {
    fn is_met(self, status: &Status) -> bool {
        let reach = status.certifiable.index.saturating_add(self.look_ahead);
        let near = status.target.map_or(self.alone, |target| target <= reach);
        near && status.halted.is_none() && status.stall.is_none()
    }
}

/// Takes the address.
pub(super) async fn bind(address: SocketAddr) -> Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        about(
            format_args!("cannot answer HTTP at {address}: choose a free port of an address of this machine"),
            error,
        )
    })
}

/// Somebody wants to know why a commit is where it is.
pub(super) struct Question {
    index: CommitIndex,
    reply: oneshot::Sender<Explanation>,
}

/// A way for those who answer HTTP to ask the node, which ends with whoever runs it.
pub(super) fn questions() -> (mpsc::Sender<Question>, mpsc::Receiver<Question>) {
    mpsc::channel(CONNECTIONS_MAX)
}

/// Has the node answer questions, one at a time.
pub(super) async fn answer(node: &NodeHandle, mut questions: mpsc::Receiver<Question>) -> Infallible {
    while let Some(Question { index, reply }) = questions.recv().await {
        if let Ok(explanation) = node.explain(index).await {
            // Whoever asked may have gone away.
            let _ = reply.send(explanation);
        }
    }
    pending().await
}

#[derive(Clone)]
struct Answers {
    status: watch::Receiver<NodeStatus>,
    questions: mpsc::Sender<Question>,
    report: Report,
    ready: Ready,
}

/// Answers until the runtime ends.
pub(super) fn serve(
    listener: TcpListener,
    status: watch::Receiver<NodeStatus>,
    questions: mpsc::Sender<Question>,
    report: Report,
    ready: Ready,
) {
    let router = Router::new()
        .route("/status", get(json))
        .route("/explain", get(explain))
        .route("/healthz", get("the process lives\n"))
        .route("/readyz", get(readiness))
        .route("/metrics", get(metrics))
        .with_state(Answers { status, questions, report, ready });
    let listener = Limited { listener, places: Arc::new(Semaphore::new(CONNECTIONS_MAX)) };
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            tracing::error!("HTTP is not answered any more: {error}");
        }
    });
}

async fn json(State(answers): State<Answers>) -> Json<Value> {
    Json(answers.report.json(&answers.status.borrow()))
}

async fn explain(State(answers): State<Answers>, RawQuery(query): RawQuery) -> impl IntoResponse {
    let index = query.as_deref().and_then(|query| query.strip_prefix("index=")?.parse().ok());
    let Some(index) = index.map(CommitIndex::new) else {
        let usage = "say which commit: /explain?index=N, with N from 0 to 4294967295\n";
        return (StatusCode::BAD_REQUEST, usage.to_owned());
    };
    let (reply, explanation) = oneshot::channel();
    // Where the node is being stopped the question is dropped, and with it whom to tell.
    drop(answers.questions.send(Question { index, reply }).await);
    match explanation.await {
        Ok(explanation) => (StatusCode::OK, format!("{explanation}\n")),
        Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "the node is being stopped\n".to_owned()),
    }
}

async fn readiness(State(answers): State<Answers>) -> impl IntoResponse {
    let status = answers.status.borrow();
    let line = format!("{}\n", answers.report.line(&status));
    let met = answers.ready.is_met(&status.machine);
    (if met { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, line)
}

async fn metrics(State(answers): State<Answers>) -> impl IntoResponse {
    let status = answers.status.borrow().clone();
    let ready = answers.ready.is_met(&status.machine);
    let mut text = String::new();
    match encode(&mut text, &registry(&status, ready)) {
        Ok(()) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PeerLabel {
    peer: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OffenceLabel {
    peer: String,
    offence: String,
}

/// The figures, as they are now.
fn registry(status: &NodeStatus, ready: bool) -> Registry {
    let mut registry = Registry::with_prefix("soma_sync");
    let machine = &status.machine;
    let index = |index: CommitIndex| i64::from(index.get());
    let flag = |holds: bool| i64::from(holds);
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let count = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let connected = machine.peers.iter().filter(|peer| peer.connected).count();
    let gauges = [
        ("queued_index", "The last commit handed to storage", index(machine.queued.index)),
        ("durable_index", "The last commit that is durable", index(machine.durable)),
        (
            "certifiable_index",
            "The highest commit that can be certified to others",
            index(machine.certifiable.index),
        ),
        ("delivered_index", "The last commit that every subscriber has taken", index(machine.delivered)),
        ("lowest_available_index", "The lowest commit that is still stored", index(machine.lowest_available)),
        (
            "target_index",
            "The highest commit that a peer claims; 0 if none does",
            machine.target.map_or(0, index),
        ),
        ("epoch", "Epoch of the next commit", number(machine.epoch.get())),
        ("synced", "Whether no peer can show more", flag(machine.synced)),
        ("ready", "Whether it is within the look-ahead of every peer", flag(ready)),
        (
            "stalled",
            "Whether nothing can go on until something changes outside",
            flag(machine.stall.is_some()),
        ),
        ("halted", "Whether nothing is applied any more", flag(machine.halted.is_some())),
        ("buffered_bytes", "Bytes reserved and held", number(machine.buffered_bytes)),
        ("buffered_peak_bytes", "The most bytes ever reserved and held", number(machine.buffered_bytes_peak)),
        ("requests_in_flight", "Requests in flight", count(machine.requests_in_flight)),
        ("verify_jobs", "Verification jobs at work", i64::from(machine.jobs_running)),
        ("serving", "Inbound requests being served", count(machine.serving)),
        ("serve_queue", "Inbound requests that wait to be served", count(machine.serve_queue)),
        ("peers_connected", "Connected peers", count(connected)),
        ("subscribers", "Live subscribers", count(status.subscribers)),
    ];
    for (name, help, value) in gauges {
        let gauge = Gauge::<i64>::default();
        gauge.set(value);
        registry.register(name, help, gauge);
    }
    counters(&mut registry, machine);
    registry
}

fn counters(registry: &mut Registry, machine: &Status) {
    let counters = machine.counters;
    let counted = [
        ("stored_commits", "Commits that became durable", counters.stored_commits),
        ("stored_blocks", "Blocks that became durable, certifiers among them", counters.stored_blocks),
        ("timeouts", "Requests whose time was up", counters.timeouts),
        ("stale", "Completions of what was not outstanding", counters.stale),
        ("offences", "Provable offences of peers", counters.offences),
        ("worker_failures", "Verification jobs whose worker died", counters.worker_failures),
        ("evicted", "Certified commits given up to make room", counters.evicted),
        ("staged", "Commits of which blocks were staged in storage", counters.staged),
        ("dropped_local", "Own commits and votes without room", counters.dropped_local),
        ("sent_bytes", "Bytes sent in answers", counters.sent_bytes),
        ("queued_requests", "Inbound requests that had to wait to be served", counters.queued_requests),
        ("refused_rate", "Inbound requests over their peer's rate", counters.refused_rate),
        ("refused_repeats", "Inbound requests for the same dear answer again", counters.refused_repeats),
        ("refused_unread", "Inbound requests of peers that left answers unread", counters.refused_unread),
        ("refused_room", "Inbound requests for which there was no room", counters.refused_room),
    ];
    for (name, help, value) in counted {
        let counter = Counter::<u64>::default();
        counter.inc_by(value);
        registry.register(name, help, counter);
    }
    peer_counters(registry, &machine.peers);
}

fn peer_counters(registry: &mut Registry, peers: &[PeerStatus]) {
    type Count = fn(&PeerStatus) -> u64;
    let counted: [(&str, &str, Count); 4] = [
        ("peer_served_commits", "Certified commits that came from a peer", |peer| peer.served_commits),
        ("peer_served_bytes", "Bytes of good blocks that came from a peer", |peer| peer.served_bytes),
        ("peer_timeouts", "Requests to a peer whose time was up", |peer| peer.timeouts),
        ("peer_offences", "Provable offences of a peer", |peer| peer.offences.into()),
    ];
    for (name, help, value) in counted {
        let family = Family::<PeerLabel, Counter>::default();
        for peer in peers {
            family.get_or_create(&PeerLabel { peer: peer.id.to_string() }).inc_by(value(peer));
        }
        registry.register(name, help, family);
    }
    let last = Family::<OffenceLabel, Gauge>::default();
    for peer in peers {
        if let Some(offence) = peer.last_offence {
            let label = OffenceLabel { peer: peer.id.to_string(), offence: offence.to_string() };
            last.get_or_create(&label).set(1);
        }
    }
    registry.register("peer_last_offence", "What a peer did last that is provably wrong: always 1", last);
}

/// A listener with a bound on its connections.
struct Limited {
    listener: TcpListener,
    places: Arc<Semaphore>,
}

/// A connection, in its place.
struct Placed {
    stream: TcpStream,
    end: Pin<Box<Sleep>>,
    _place: OwnedSemaphorePermit,
}

impl Listener for Limited {
    type Io = Placed;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Placed, SocketAddr) {
        let place = Arc::clone(&self.places).acquire_owned().await.expect("the semaphore is never closed");
        // What axum does about errors of accepting: it waits, and goes on.
        let (stream, address) = Listener::accept(&mut self.listener).await;
        let end = Box::pin(tokio::time::sleep(CONNECTION_LIFE));
        (Placed { stream, end, _place: place }, address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

impl AsyncRead for Placed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.end.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Placed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
