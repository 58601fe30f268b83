//! Traces that lack their beginning.

use soma_sync_proto::trace::{EndReason, EntryEncoder, Replay, Step, TraceFile, TraceHeader, TraceReader};

/// The trace from its event `from` on, with the machine's state before it or without, and what else `change` does to its
/// header.
pub fn last_part(
    trace: &[u8],
    from: u64,
    with_state: bool,
    change: impl FnOnce(&mut TraceHeader),
) -> Vec<u8> {
    let mut replay = Replay::new(TraceReader::open(trace).expect("a trace")).expect("a whole one");
    while replay.reader().events() < from {
        assert_eq!(replay.step().expect("it can be read"), Step::Same);
    }
    let mut reader = TraceReader::open(trace).expect("a trace");
    let mut header = reader.header().clone();
    header.skipped_events = from;
    header.state = with_state.then(|| replay.machine().save().expect("no commands wait").into());
    change(&mut header);
    let mut file = TraceFile::new(Vec::new(), &header).expect("a vector takes everything");
    let mut encoder = EntryEncoder::new(false);
    while let Some(entry) = reader.next_entry().expect("a whole trace") {
        if entry.number >= from {
            encoder.begin(entry.at, &entry.event).expect("it fitted before");
            entry.commands.iter().for_each(|mark| encoder.mark(mark));
            encoder.finish().expect("it fitted before");
        }
    }
    file.write(encoder.take()).expect("a vector takes everything");
    file.end(EndReason::Stopped).expect("a vector takes everything")
}
