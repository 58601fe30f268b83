use super::*;
use soma_sync_core::{
    config::Config,
    event::{InboundId, RequestId},
    request::{CommitInfoQuery, Request},
    start::Start,
    types::{ChainId, CommitIndex, PeerId},
};
use soma_sync_proto::trace::{Ending, Replay, Step, TraceEntry, TraceReader};
use soma_sync_sim::chain::{ChainMaker, ChainSpec};
use std::sync::Arc as Shared;
use tempfile::TempDir;

/// A directory for a trace, and what it begins with.
struct Bench {
    directory: TempDir,
    header: TraceHeader,
}

impl Bench {
    fn new() -> Self {
        let spec = ChainSpec {
            commits: 1,
            blocks_per_commit: 4,
            payload_bytes: 8,
            committee: 4,
            epochs: 1,
            seed: 1,
        };
        let genesis = Shared::clone(ChainMaker::new(spec).unwrap().genesis());
        let header = TraceHeader {
            build: String::new(),
            full: false,
            config: Config::default(),
            start: Start::genesis(ChainId::new([1; 32]), genesis),
            seed: [1; 32],
            started: Timestamp::ZERO,
            started_unix_ms: 0,
            skipped_events: 0,
            state: None,
        };
        Self { directory: TempDir::new().unwrap(), header }
    }

    fn config(&self) -> TraceConfig {
        TraceConfig::new(self.directory.path().join("node.trace"))
    }

    fn start(&self, config: &TraceConfig) -> (Recorder, oneshot::Receiver<()>) {
        Recorder::start(config, self.header.clone()).unwrap()
    }

    /// What is in the file once all of it is written.
    fn read(&self) -> (TraceHeader, Vec<TraceEntry>, Ending) {
        let file = File::open(self.config().file).unwrap();
        let mut reader = TraceReader::open(file).unwrap();
        let mut entries = Vec::new();
        while let Some(entry) = reader.next_entry().unwrap() {
            entries.push(entry);
        }
        (reader.header().clone(), entries, reader.ending().unwrap())
    }
}

/// Tells a machine, as a driver does.
fn tell(recorder: &mut Recorder, machine: &mut SyncMachine, at: u64, mut event: Event) {
    let at = Timestamp::from_micros(at);
    recorder.event(at, &mut event);
    machine.handle(at, event);
    while let Some(command) = machine.poll_command() {
        recorder.command(&command);
    }
    recorder.finished(at, machine);
}

/// An event of a machine that does not matter.
fn record(recorder: &mut Recorder, at: u64, event: Event) {
    tell(recorder, &mut Bench::new().header.machine().unwrap(), at, event);
}

#[test]
fn a_recording_loses_its_last_events_or_an_earlier_file() {
    let bench = Bench::new();
    fs::write(bench.config().file, b"an earlier one").unwrap();
    let (mut recorder, written) = bench.start(&bench.config());
    (0..5).for_each(|at| record(&mut recorder, at, Event::Tick));
    drop(recorder);
    written.blocking_recv().unwrap();
    let (header, entries, ending) = bench.read();
    assert_eq!((entries.len(), ending), (5, Ending::Whole(EndReason::Stopped)));
    assert!(header.build.contains("soma-sync") && header.started_unix_ms > 0);
    let old = bench.directory.path().join("node.trace.old");
    assert_eq!(fs::read(old).unwrap(), b"an earlier one");
}

#[test]
fn what_was_recorded_stays_in_memory_while_time_passes() {
    let bench = Bench::new();
    let (mut recorder, written) = bench.start(&bench.config());
    record(&mut recorder, 0, Event::Tick);
    let second = u64::try_from(CHUNK_TIME.as_micros()).unwrap();
    record(&mut recorder, second, Event::Tick);
    assert_eq!(recorder.encoder.gathered(), 0, "it was not handed over");
    record(&mut recorder, second + 1, Event::Tick);
    assert!(recorder.encoder.gathered() > 0, "each event makes a frame");
    drop(recorder);
    written.blocking_recv().unwrap();
    assert_eq!(bench.read().1.len(), 3);
}

#[test]
fn a_payload_is_recorded_without_its_fingerprint() {
    let bench = Bench::new();
    let (mut recorder, written) = bench.start(&bench.config());
    let part = ResponsePart::Blocks {
        blocks: vec![Payload::new(bytes::Bytes::from_static(b"a block"))],
        missing: Vec::new(),
        buffer_bytes: 9,
    };
    let mut event = Event::ResponsePart { id: RequestId::new(0), part };
    recorder.event(Timestamp::ZERO, &mut event);
    recorder.finished(Timestamp::ZERO, &bench.header.machine().unwrap());
    let Event::ResponsePart { part: ResponsePart::Blocks { blocks, .. }, .. } = &event else { panic!() };
    assert_eq!(blocks[0].fingerprint(), fingerprint(b"a block"), "the machine is told another one");
    drop(recorder);
    written.blocking_recv().unwrap();
    assert_eq!(bench.read().1[0].event, event);
}

#[test]
fn a_disk_that_does_not_keep_up_stops_the_node_or_goes_unnoticed() {
    let bench = Bench::new();
    let (mut recorder, written) = bench.start(&TraceConfig { queue_bytes: 10, ..bench.config() });
    let second = u64::try_from(CHUNK_TIME.as_micros()).unwrap();
    (1..20).for_each(|at| record(&mut recorder, at * second, Event::Tick));
    drop(recorder);
    written.blocking_recv().unwrap();
    let (_, entries, ending) = bench.read();
    assert_eq!((entries.len(), ending), (0, Ending::Whole(EndReason::FellBehind)));
}

#[test]
fn the_event_that_the_machine_panics_on_is_lost() {
    let bench = Bench::new();
    let (mut recorder, written) = bench.start(&bench.config());
    record(&mut recorder, 0, Event::Tick);
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        recorder.event(Timestamp::ZERO, &mut Event::Pruned { lowest: CommitIndex::new(4) });
        std::panic::resume_unwind(Box::new("the machine"));
    }));
    assert!(panicked.is_err());
    written.blocking_recv().unwrap();
    let (_, entries, ending) = bench.read();
    assert_eq!(ending, Ending::Whole(EndReason::Panicked));
    assert_eq!(entries.iter().map(|entry| entry.unfinished).collect::<Vec<_>>(), [false, true]);
}

/// Peers that come, ask, are asked and go, for so many events; then the machine.
fn busy(bench: &Bench, recorder: &mut Recorder, events: u64, mut each: impl FnMut(&Recorder)) -> SyncMachine {
    let mut machine = bench.header.machine().unwrap();
    for number in 0..events {
        let peer = PeerId::new([u8::try_from(number / 4 % 5).unwrap(); 32]);
        let request = Ok(Request::CommitInfo(CommitInfoQuery::Latest));
        let event = match number % 4 {
            0 => Event::PeerConnected { peer },
            1 => Event::RequestReceived { id: InboundId::new(number), peer, request },
            2 => Event::Tick,
            _ => Event::PeerDisconnected { peer },
        };
        tell(recorder, &mut machine, number * 1_000, event);
        each(recorder);
    }
    machine
}

/// Bytes that a ring has in memory.
fn counted(recorder: &Recorder) -> usize {
    let Sink::Ring(ring) = &recorder.sink else { panic!() };
    let states = ring.pieces.iter().filter_map(|piece| piece.state.as_ref()).chain(&ring.state);
    let bytes = states.map(Bytes::len).chain(ring.pieces.iter().map(|piece| piece.chunk.len())).sum();
    assert_eq!(ring.bytes, bytes, "bytes are miscounted");
    bytes
}

#[test]
fn memory_grows_with_what_is_recorded_or_the_end_of_it_is_lost() {
    // Where there is no room for a state, and where there is.
    for (bytes, replays) in [(6_000, false), (40_000, true)] {
        let bench = Bench::new();
        let keep = Keep::Last { bytes };
        let (mut recorder, _written) = bench.start(&TraceConfig { keep, ..bench.config() });
        let events = 20_000;
        busy(&bench, &mut recorder, events, |recorder| assert!(counted(recorder) <= bytes));
        assert!(counted(&recorder) >= bytes / 4, "hardly anything is kept");
        assert!(recorder.write_ring(EndReason::Asked).unwrap().is_ok());
        let (header, entries, ending) = bench.read();
        assert_eq!(ending, Ending::Whole(EndReason::Asked));
        assert_eq!(entries.last().unwrap().number, events - 1);
        assert_eq!(header.skipped_events + entries.len() as u64, events);
        assert_eq!(header.state.is_some(), replays);
        // It goes on, and is written again at the end.
        record(&mut recorder, events * 1_000, Event::Tick);
        drop(recorder);
        let (_, entries, ending) = bench.read();
        assert_eq!(ending, Ending::Whole(EndReason::Stopped));
        assert_eq!(entries.last().map(|entry| &entry.event), Some(&Event::Tick));
    }
}

#[test]
fn a_ring_that_has_lost_its_beginning_does_not_replay() {
    let bench = Bench::new();
    let keep = Keep::Last { bytes: 40_000 };
    // Written at many moments, and each time it replays to the machine as it is then.
    for events in (1..40).map(|step| step * 150) {
        let (mut recorder, _written) = bench.start(&TraceConfig { keep, ..bench.config() });
        let machine = busy(&bench, &mut recorder, events, |_| {});
        assert!(recorder.write_ring(EndReason::Asked).unwrap().is_ok());
        let file = File::open(bench.config().file).unwrap();
        let mut replay = Replay::new(TraceReader::open(file).unwrap()).unwrap();
        while let step @ (Step::Same | Step::Different(_)) = replay.step().unwrap() {
            assert_eq!(step, Step::Same, "{events} events");
        }
        assert_eq!(*replay.machine(), machine);
        let skipped = replay.reader().header().skipped_events;
        assert_eq!(skipped + replay.reader().events(), events);
        assert!(skipped > 0 || events < 1_000, "{events} events, and none is missing");
    }
}
