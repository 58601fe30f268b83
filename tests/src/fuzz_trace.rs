//! The body of the fuzz target over trace files. What is read is written and read again, and must be the same; what is
//! refused must be refused without a panic.

use crate::trace_samples;
use soma_sync_core::{Config, Timestamp};
use soma_sync_proto::trace::{
    EndReason, Ending, EntryEncoder, TraceEntry, TraceFile, TraceHeader, TraceReader, framed, header_items,
};

/// What stands in the traces here.
pub fn header() -> TraceHeader {
    TraceHeader {
        build: "a test".to_owned(),
        full: true,
        config: Config::default(),
        start: trace_samples::start(),
        seed: [3; 32],
        started: Timestamp::from_micros(5),
        started_unix_ms: 1_700_000_000_000,
        skipped_events: 0,
        state: None,
    }
}

/// Bytes as a trace file; and, since no change to one gets past its checks, as what the frames of one hold, too: its header,
/// or what comes after it.
pub fn read_trace(bytes: &[u8]) {
    read(bytes);
    let head = header_items(&header());
    for frames in [&[bytes][..], &[&head[..], bytes]] {
        read(&framed(frames).expect("a vector takes everything"));
    }
}

fn read(bytes: &[u8]) {
    let Ok(mut reader) = TraceReader::open(bytes) else { return };
    let mut entries = Vec::new();
    while let Ok(Some(entry)) = reader.next_entry() {
        entries.push(entry);
    }
    let again = write(reader.header(), &entries);
    let mut reader = TraceReader::open(&again[..]).expect("what was written is a trace");
    for entry in &entries {
        assert_eq!(reader.next_entry().expect("what was written can be read").as_ref(), Some(entry));
    }
    assert!(reader.next_entry().expect("it ends well").is_none());
    assert_eq!(reader.ending(), Some(Ending::Whole(EndReason::Stopped)));
}

/// A trace of these events and of what came of them.
pub fn write(header: &TraceHeader, entries: &[TraceEntry]) -> Vec<u8> {
    let mut file = TraceFile::new(Vec::new(), header).expect("a vector takes everything");
    let mut encoder = EntryEncoder::new(header.full);
    for entry in entries {
        encoder.begin(entry.at, &entry.event).expect("it was read, so it fits");
        if entry.unfinished {
            assert!(encoder.abandon());
        } else {
            entry.commands.iter().for_each(|mark| encoder.mark(mark));
            encoder.finish().expect("it was read, so it fits");
        }
    }
    file.write(encoder.take()).expect("a vector takes everything");
    file.end(EndReason::Stopped).expect("a vector takes everything")
}
