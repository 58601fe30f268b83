use super::*;
use soma_sync_core::{
    config::Config,
    event::RequestId,
    start::Start,
    types::{ChainId, CommitIndex, PeerId},
};
use soma_sync_proto::trace::{Ending, TraceEntry, TraceReader};
use soma_sync_sim::chain::{ChainMaker, ChainSpec};
use std::{sync::Arc as Shared, time::Duration};
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

fn record(recorder: &mut Recorder, at: u64, mut event: Event) {
    let at = Timestamp::from_micros(at);
    recorder.event(at, &mut event);
    recorder.finished(at);
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
    recorder.finished(Timestamp::ZERO);
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

#[test]
fn memory_grows_with_what_is_recorded_or_the_end_of_it_is_lost() {
    let bench = Bench::new();
    let keep = Keep::Last { bytes: 10_000 };
    let (mut recorder, _written) = bench.start(&TraceConfig { keep, ..bench.config() });
    let millisecond = u64::try_from(Duration::from_millis(1).as_micros()).unwrap();
    let peer = PeerId::new([1; 32]);
    let events = 100_000;
    for at in 0..events {
        record(&mut recorder, at * millisecond, Event::PeerConnected { peer });
        let Sink::Ring(ring) = &recorder.sink else { panic!() };
        assert!(ring.bytes <= 10_000, "{}", ring.bytes);
    }
    assert!(recorder.write_ring(EndReason::Asked).unwrap().is_ok());
    let (header, entries, ending) = bench.read();
    assert_eq!(ending, Ending::Whole(EndReason::Asked));
    assert_eq!(entries.last().unwrap().number, events - 1);
    assert_eq!(header.skipped_events + entries.len() as u64, events);
    // It goes on, and is written again at the end.
    record(&mut recorder, events * millisecond, Event::Tick);
    drop(recorder);
    let (_, entries, ending) = bench.read();
    assert_eq!(ending, Ending::Whole(EndReason::Stopped));
    assert_eq!(entries.last().map(|entry| &entry.event), Some(&Event::Tick));
}
