//! Recording: what the machine is told and what it says, into a trace file.
//!
//! The driver encodes each event before it tells the machine, and what names each command after. A thread of its own packs
//! and writes. Where the disk takes less than there is to write, the recording ends, and says so; the node goes on.

use bytes::Bytes;
use soma_sync_core::{
    SyncMachine,
    command::{Command, Notice},
    event::Event,
    payload::Payload,
    request::ResponsePart,
    time::Timestamp,
};
use soma_sync_proto::trace::{
    Chunk, EndReason, EntryEncoder, STATE_BYTES_MAX, TraceFile, TraceHeader, fingerprint,
};
use std::{
    collections::VecDeque,
    ffi::OsString,
    fs::{self, File},
    io::{self, Seek, SeekFrom},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tokio::sync::oneshot;

/// What of a node's life is recorded, and where to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceConfig {
    /// The file. One that is there is kept, its name followed by `.old`.
    pub file: PathBuf,
    /// Who records, for people: program, version, features.
    pub build: String,
    /// Whether the bytes of payloads are kept. Without them a trace is small and replays as well; with them the jobs can be
    /// run again, too.
    pub full: bool,
    /// All of it as it happens, or the last part when somebody wants it.
    pub keep: Keep,
    /// Most bytes that wait for the disk; where there would be more, the recording ends.
    pub queue_bytes: usize,
}

/// How much is recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Everything, written as it happens.
    All,
    /// About the last so many bytes, in memory. Written when the machine halts, when the driver panics, when the node stops
    /// and when it is [asked for](crate::node::NodeHandle::write_trace), each time anew. Where the beginning is missing,
    /// the trace begins with the machine's state and replays from there. A state of more than a quarter of the bytes is not
    /// kept: then it can be looked at and not be replayed.
    Last {
        /// How many bytes, states among them.
        bytes: usize,
    },
}

impl TraceConfig {
    /// A thin trace of everything, in `file`.
    pub fn new(file: impl Into<PathBuf>) -> Self {
        Self {
            file: file.into(),
            build: concat!("soma-sync-runtime-tokio ", env!("CARGO_PKG_VERSION")).to_owned(),
            full: false,
            keep: Keep::All,
            queue_bytes: 64 * 1024 * 1024,
        }
    }
}

/// Most bytes that gather before they are handed over.
const CHUNK_BYTES: usize = 256 * 1024;
/// How many pieces what is held in memory has at least, of which the oldest goes at once.
const RING_CHUNKS: usize = 16;
/// Which part of what is held in memory a state of the machine may take: beside it there is room for as many events and a
/// second one, so that the first can go and leave a trace that replays.
const RING_STATES: usize = 4;
/// How long, at most, while anything happens: what a process that is killed has lost.
const CHUNK_TIME: Duration = Duration::from_secs(1);

/// Records what the driver does. Dropped, it ends the recording.
pub(crate) struct Recorder {
    encoder: EntryEncoder,
    /// Since when what has gathered does so.
    since: Timestamp,
    chunk_bytes: usize,
    queue_bytes: usize,
    sink: Sink,
    halted: bool,
    /// Something was said that is not to be lost with the process.
    urgent: bool,
}

/// Where chunks go.
enum Sink {
    /// To the thread that writes, and how many bytes are on their way to it.
    Thread { orders: mpsc::Sender<Order>, waiting: Arc<AtomicUsize> },
    /// Nowhere, until somebody asks.
    Ring(Box<Ring>),
    /// The recording has ended.
    Ended,
}

enum Order {
    Write(Chunk),
    End(EndReason),
}

/// The last chunks, some of them with the state of the machine before them. What is dropped makes such a one the first.
///
/// A state is saved once as many bytes of events have come as the one before had: so states take at most half of the
/// memory, and saving them at most as much work as recording.
struct Ring {
    header: TraceHeader,
    file: PathBuf,
    pieces: VecDeque<Piece>,
    /// The machine before what is gathered now, where it was saved.
    state: Option<Bytes>,
    /// How long the state saved last is, and how many bytes of events came since.
    state_bytes: usize,
    bytes_since: usize,
    bytes: usize,
    bytes_max: usize,
}

struct Piece {
    state: Option<Bytes>,
    chunk: Chunk,
}

impl Recorder {
    /// Begins a recording. The receiver resolves when all of it is written.
    ///
    /// # Errors
    /// Where the file cannot be made, or the system gives no thread.
    pub(crate) fn start(
        config: &TraceConfig,
        mut header: TraceHeader,
    ) -> io::Result<(Self, oneshot::Receiver<()>)> {
        header.full = config.full;
        header.build.clone_from(&config.build);
        header.started_unix_ms = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX));
        keep_old(&config.file)?;
        let since = header.started;
        let (written, all_written) = oneshot::channel();
        let sink = match config.keep {
            Keep::All => {
                let file = TraceFile::new(File::create(&config.file)?, &header)?;
                let waiting = Arc::new(AtomicUsize::new(0));
                let (orders, received) = mpsc::channel();
                let (path, bytes) = (config.file.clone(), Arc::clone(&waiting));
                thread::Builder::new().name("soma-sync-trace".into()).spawn(move || {
                    if let Err(error) = write(file, &received, &bytes) {
                        tracing::error!(path = %path.display(), "the recording has ended: {error}");
                    }
                    // The node may have gone on without waiting.
                    let _ = written.send(());
                })?;
                Sink::Thread { orders, waiting }
            }
            Keep::Last { bytes } => Sink::Ring(Box::new(Ring {
                header,
                file: config.file.clone(),
                pieces: VecDeque::new(),
                state: None,
                state_bytes: 0,
                bytes_since: 0,
                bytes: 0,
                bytes_max: bytes,
            })),
        };
        let chunk_bytes = match config.keep {
            Keep::All => CHUNK_BYTES,
            Keep::Last { bytes } => CHUNK_BYTES.min(bytes / RING_CHUNKS),
        };
        let encoder = EntryEncoder::new(config.full);
        Ok((
            Self {
                encoder,
                since,
                chunk_bytes,
                queue_bytes: config.queue_bytes,
                sink,
                halted: false,
                urgent: false,
            },
            all_written,
        ))
    }

    /// The machine is about to be told. Its payloads get their fingerprints.
    pub(crate) fn event(&mut self, now: Timestamp, event: &mut Event) {
        if matches!(self.sink, Sink::Ended) {
            return;
        }
        for_each_payload(event, |payload| payload.set_fingerprint(fingerprint(payload.bytes())));
        if let Err(error) = self.encoder.begin(now, event) {
            tracing::error!("{error}");
            self.end(EndReason::TooLarge);
        }
    }

    /// What came of it.
    pub(crate) fn command(&mut self, command: &Command) {
        if !matches!(self.sink, Sink::Ended) {
            self.encoder.command(command);
            self.urgent |= matches!(command, Command::Notify(Notice::Halted(_)));
        }
    }

    /// Everything that came of it has been said by the machine, which is as it will be told the next one.
    pub(crate) fn finished(&mut self, now: Timestamp, machine: &SyncMachine) {
        if matches!(self.sink, Sink::Ended) {
            return;
        }
        if let Err(error) = self.encoder.finish() {
            tracing::error!("{error}");
            return self.end(EndReason::TooLarge);
        }
        let due =
            self.encoder.gathered() >= self.chunk_bytes || now.saturating_since(self.since) >= CHUNK_TIME;
        if due || self.urgent {
            self.hand_over(now);
            if let Sink::Ring(ring) = &mut self.sink {
                ring.save(machine);
            }
        }
        if self.urgent {
            (self.urgent, self.halted) = (false, true);
            self.write_ring(EndReason::Halted);
        }
    }

    /// Writes what a ring holds. `None` where there is no ring: what there is to write is written anyway.
    pub(crate) fn write_ring(&mut self, reason: EndReason) -> Option<io::Result<()>> {
        let Sink::Ring(ring) = &mut self.sink else { return None };
        ring.push(self.encoder.take());
        let written = ring.write(reason);
        match &written {
            Ok(()) => tracing::info!(path = %ring.file.display(), "trace written"),
            Err(error) => tracing::error!(path = %ring.file.display(), "the trace is not written: {error}"),
        }
        Some(written)
    }

    fn hand_over(&mut self, now: Timestamp) {
        self.since = now;
        let chunk = self.encoder.take();
        match &mut self.sink {
            Sink::Thread { orders, waiting } => {
                let len = chunk.len();
                let waits = waiting.fetch_add(len, Ordering::Relaxed).saturating_add(len);
                if waits > self.queue_bytes {
                    tracing::warn!(
                        "the recording ends: the disk does not keep up, {waits} bytes wait for it"
                    );
                    return self.end(EndReason::FellBehind);
                }
                if orders.send(Order::Write(chunk)).is_err() {
                    self.sink = Sink::Ended;
                }
            }
            Sink::Ring(ring) => ring.push(chunk),
            Sink::Ended => {}
        }
    }

    fn end(&mut self, reason: EndReason) {
        match std::mem::replace(&mut self.sink, Sink::Ended) {
            // The thread may be gone, and has said why.
            Sink::Thread { orders, .. } => drop(orders.send(Order::End(reason))),
            Sink::Ring(_) | Sink::Ended => {}
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let panicked = self.encoder.abandon() || thread::panicking();
        let reason = match (panicked, self.halted) {
            (true, _) => EndReason::Panicked,
            (false, true) => EndReason::Halted,
            (false, false) => EndReason::Stopped,
        };
        if self.write_ring(reason).is_none() {
            self.hand_over(self.since);
            self.end(reason);
        }
    }
}

impl Ring {
    fn push(&mut self, chunk: Chunk) {
        if chunk.is_empty() {
            return;
        }
        self.bytes += chunk.len();
        self.bytes_since += chunk.len();
        self.pieces.push_back(Piece { state: self.state.take(), chunk });
        self.make_room();
    }

    /// Keeps the machine's state before what comes next, where it is time.
    fn save(&mut self, machine: &SyncMachine) {
        if self.bytes_since < self.state_bytes || self.state.is_some() {
            return;
        }
        let Some(state) = machine.save() else { return };
        (self.state_bytes, self.bytes_since) = (state.len(), 0);
        if state.len() <= STATE_BYTES_MAX.min(self.bytes_max / RING_STATES) {
            self.bytes += state.len();
            self.state = Some(state.into());
            self.make_room();
        }
    }

    /// Drops the oldest pieces, up to one that has a state if there is any.
    fn make_room(&mut self) {
        while self.bytes > self.bytes_max && self.pieces.len() > 1 {
            let with_state = self.pieces.iter().skip(1).position(|piece| piece.state.is_some());
            for Piece { state, chunk } in self.pieces.drain(..=with_state.unwrap_or(0)) {
                self.bytes -= chunk.len() + state.map_or(0, |state| state.len());
                self.header.skipped_events += chunk.events();
            }
        }
    }

    fn write(&self, reason: EndReason) -> io::Result<()> {
        let state = self.pieces.front().and_then(|piece| piece.state.clone());
        let header = TraceHeader { state, ..self.header.clone() };
        let mut file = TraceFile::new(File::create(&self.file)?, &header)?;
        self.pieces.iter().try_for_each(|piece| file.write(piece.chunk.clone()))?;
        file.end(reason)?.sync_all()
    }
}

/// The thread that writes: until it is told that this is the end, or nobody is left who could.
fn write(mut file: TraceFile<File>, orders: &mpsc::Receiver<Order>, waiting: &AtomicUsize) -> io::Result<()> {
    loop {
        match orders.recv() {
            Ok(Order::Write(chunk)) => {
                let len = chunk.len();
                if let Err(error) = file.write(chunk) {
                    return cut_off(file).and(Err(error));
                }
                waiting.fetch_sub(len, Ordering::Relaxed);
            }
            Ok(Order::End(reason)) => return file.end(reason)?.sync_all(),
            Err(mpsc::RecvError) => return file.end(EndReason::Panicked)?.sync_all(),
        }
    }
}

/// Ends a file after its last whole frame, in the room that what came after it has left.
fn cut_off(mut file: TraceFile<File>) -> io::Result<()> {
    let whole = file.written();
    file.output_mut().set_len(whole)?;
    file.output_mut().seek(SeekFrom::Start(whole))?;
    file.end(EndReason::WriteFailed)?.sync_all()
}

/// Keeps a file that is there under another name.
fn keep_old(path: &Path) -> io::Result<()> {
    let mut old = OsString::from(path);
    old.push(".old");
    match fs::rename(path, old) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Payloads that come in with an event. Those in verdicts came in before.
fn for_each_payload(event: &mut Event, mut each: impl FnMut(&mut Payload)) {
    match event {
        Event::CommitObserved { commit, blocks } => {
            each(commit);
            blocks.iter_mut().for_each(each);
        }
        Event::VotesObserved { blocks } => blocks.iter_mut().for_each(each),
        Event::ResponsePart { part, .. } => match part {
            ResponsePart::Commits { commits, certifiers, blocks, .. } => {
                commits.iter_mut().chain(certifiers).chain(blocks).for_each(each);
            }
            ResponsePart::Blocks { blocks, .. } => blocks.iter_mut().for_each(each),
            ResponsePart::CommitInfo { .. }
            | ResponsePart::Availability { .. }
            | ResponsePart::Push { .. } => {}
        },
        Event::Tick
        | Event::CommitteeKnown { .. }
        | Event::PeerConnected { .. }
        | Event::PeerDisconnected { .. }
        | Event::RequestReceived { .. }
        | Event::RequestFinished { .. }
        | Event::Verified { .. }
        | Event::Stored { .. }
        | Event::StoreFailed { .. }
        | Event::StoreReopened { .. }
        | Event::Pruned { .. }
        | Event::Broadcasted { .. }
        | Event::Served { .. } => {}
    }
}

#[cfg(test)]
mod tests;
