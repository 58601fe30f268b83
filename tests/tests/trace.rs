//! Trace files: nothing is lost on its way into one and back, nothing is taken from one that is damaged, and what was
//! recorded replays.

use proptest::{prelude::*, sample::Index};
use soma_sync_core::{
    Config, RestoreError, Timestamp, event::Event, payload::Payload, request::ResponsePart,
};
use soma_sync_proto::trace::{
    CommandKind, EndReason, Ending, EntryEncoder, FrameError, Judge, Mark, Replay, ReplayError,
    STATE_BYTES_MAX, Step, TraceEntry, TraceError, TraceFile, TraceHeader, TraceReader, TraceWriter, framed,
    header_items,
};
use soma_sync_sim::{
    chain::{ChainMaker, ChainSpec, MadeCommit},
    trace::write_trace,
    world::{ChainStore, Pace, World},
};
use soma_sync_tests::{
    fuzz_trace::{header, read_trace, write},
    trace_samples::{commands, events},
};
use std::{collections::BTreeSet, env, fs, path::Path, time::Duration};

/// All events in a row, with all commands behind each.
fn entries() -> Vec<TraceEntry> {
    let marks: Vec<_> = commands().iter().map(Mark::of).collect();
    let entry = |(number, event): (u64, Event)| TraceEntry {
        number,
        at: Timestamp::from_micros(number * 1_000_003),
        event,
        commands: if number % 2 == 0 { marks.clone() } else { Vec::new() },
        unfinished: false,
    };
    (0..).zip(events()).map(entry).collect()
}

/// Everything in a trace, and how it ends.
fn read(bytes: &[u8]) -> Result<(Vec<TraceEntry>, Ending), TraceError> {
    let mut reader = TraceReader::open(bytes)?;
    let mut entries = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        entries.push(entry);
    }
    Ok((entries, reader.ending().expect("it has ended")))
}

/// Every payload that comes in with an event.
fn payloads(event: &Event) -> Vec<&Payload> {
    match event {
        Event::CommitObserved { commit, blocks } => std::iter::once(commit).chain(blocks).collect(),
        Event::VotesObserved { blocks }
        | Event::ResponsePart { part: ResponsePart::Blocks { blocks, .. }, .. } => blocks.iter().collect(),
        Event::ResponsePart { part: ResponsePart::Commits { commits, certifiers, blocks, .. }, .. } => {
            commits.iter().chain(certifiers).chain(blocks).collect()
        }
        _ => Vec::new(),
    }
}

#[test]
fn an_event_comes_back_as_another() {
    let entries = entries();
    assert!(entries.len() > 100, "{}", entries.len());
    for full in [false, true] {
        let header = TraceHeader { full, ..header() };
        let written = write(&header, &entries);
        assert_eq!(*TraceReader::open(&written[..]).unwrap().header(), header);
        let (read, ending) = read(&written).unwrap();
        assert_eq!(ending, Ending::Whole(EndReason::Stopped));
        assert_eq!(read.len(), entries.len());
        for (read, entry) in read.iter().zip(&entries) {
            assert_eq!(read, entry);
            for (read, recorded) in payloads(&read.event).into_iter().zip(payloads(&entry.event)) {
                let kept: &[u8] = if full { recorded.bytes() } else { &[] };
                assert_eq!((&read.bytes()[..], read.len()), (kept, recorded.len()));
            }
        }
    }
}

#[test]
fn a_kind_of_command_has_no_mark_or_not_its_own() {
    let marks: Vec<_> = commands().iter().map(Mark::of).collect();
    let kinds: BTreeSet<_> = marks.iter().map(|mark| mark.kind).collect();
    assert_eq!(kinds, CommandKind::ALL.iter().copied().collect());
    let hashes: BTreeSet<_> = marks.iter().map(|mark| mark.hash).collect();
    assert_eq!(hashes.len(), marks.len(), "two commands have one hash");
    let texts: BTreeSet<_> = CommandKind::ALL.iter().map(ToString::to_string).collect();
    assert_eq!(texts.len(), CommandKind::ALL.len());
}

#[test]
fn an_event_that_the_machine_did_not_come_back_from_looks_finished() {
    let mut writer = TraceWriter::new(Vec::new(), &header()).unwrap();
    writer.write(Timestamp::ZERO, &Event::Tick, &[]).unwrap();
    writer.write_unfinished(Timestamp::from_micros(1), &Event::Tick).unwrap();
    let (entries, ending) = read(&writer.end(EndReason::Panicked).unwrap()).unwrap();
    assert_eq!(ending, Ending::Whole(EndReason::Panicked));
    assert_eq!(entries.iter().map(|entry| entry.unfinished).collect::<Vec<_>>(), [false, true]);
}

/// Changes with the format, and with what commands are made of; then a new version of the format may be due, and a new
/// file belongs here: `SOMA_SYNC_REGENERATE=1` writes it.
#[cfg(not(feature = "bls"))]
#[test]
fn a_trace_is_written_in_other_bytes() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/every_event.trace");
    let fresh = write(&header(), &entries());
    if env::var_os("SOMA_SYNC_REGENERATE").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, &fresh).unwrap();
    }
    let golden = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    assert_eq!(read(&golden).expect("files that were written can be read").0, entries());
    assert!(golden == fresh, "other bytes for the same events");
}

/// A chain, and the trace of a node that syncs it from two others while links break.
fn recorded(commits: u32) -> (Vec<MadeCommit>, Vec<u8>) {
    let spec =
        ChainSpec { commits, blocks_per_commit: 4, payload_bytes: 32, committee: 4, epochs: 2, seed: 5 };
    let mut maker = ChainMaker::new(spec).unwrap();
    let chain: Vec<_> = maker.by_ref().take(commits as usize).collect();
    let genesis = maker.genesis().clone();
    let config = Config { commit_sync_batch_size: 5, max_blocks_per_fetch: 7, ..Config::default() };
    let mut world = World::new(Pace::default());
    let client = world.add(config, ChainStore::of(genesis.clone(), &[]));
    world.record(client);
    let servers = [(); 2].map(|()| world.add(Config::default(), ChainStore::of(genesis.clone(), &chain)));
    servers.iter().for_each(|server| world.connect(client, *server));
    world.run_until(Duration::from_millis(70), |_| false);
    world.disconnect(client, servers[0]);
    world.run_until(Duration::from_millis(100), |_| false);
    world.connect(client, servers[0]);
    let tip = chain.last().unwrap().header.reference;
    assert!(
        world.run_until(Duration::from_secs(60), |world| world.machine(client).status().certifiable == tip)
    );
    let trace = write_trace(Vec::new(), &world, client).unwrap();
    let mut replay = Replay::new(TraceReader::open(&trace[..]).unwrap()).unwrap();
    while let Step::Same = replay.step().unwrap() {}
    assert_eq!(replay.machine(), world.machine(client), "the replayed machine is another one");
    (chain, trace)
}

#[test]
fn a_recorded_world_does_not_replay() {
    let (_, trace) = recorded(60);
    let mut replay = Replay::new(TraceReader::open(&trace[..]).unwrap()).unwrap();
    let mut events = 0;
    loop {
        match replay.step().unwrap() {
            Step::Same => events += 1,
            Step::Different(difference) => panic!("{difference:?}"),
            Step::Survived | Step::End => break,
        }
    }
    assert!(events > 100, "{events}");
    assert_eq!(replay.machine().check_invariants(), Ok(()));
    assert_eq!(replay.reader().ending(), Some(Ending::Whole(EndReason::Stopped)));
}

#[test]
fn another_command_is_not_noticed() {
    let (_, trace) = recorded(10);
    let mut reader = TraceReader::open(&trace[..]).unwrap();
    let header = reader.header().clone();
    let mut entries = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        entries.push(entry);
    }
    let marks: usize = entries.iter().map(|entry| entry.commands.len()).sum();
    let mut noticed = 0;
    for position in 0..entries.len() {
        for command in 0..entries[position].commands.len() {
            let mut changed = entries.clone();
            changed[position].commands[command].hash ^= 1;
            let trace = write(&header, &changed);
            let mut replay = Replay::new(TraceReader::open(&trace[..]).unwrap()).unwrap();
            let difference = loop {
                match replay.step().unwrap() {
                    Step::Same => {}
                    Step::Different(difference) => break difference,
                    Step::Survived | Step::End => {
                        panic!("command {command} of event {position} is not looked at")
                    }
                }
            };
            assert_eq!((difference.entry.number, difference.position), (position as u64, command));
            assert!(difference.recorded.unwrap().looks_like(&difference.replayed.unwrap().0));
            noticed += 1;
        }
    }
    assert_eq!(noticed, marks);
    // One more and one less than came of it.
    for (position, entry) in entries.iter().enumerate().filter(|(_, entry)| !entry.commands.is_empty()) {
        let mut fewer = entries.clone();
        let last = fewer[position].commands.pop();
        let mut more = entries.clone();
        more[position].commands.extend(last);
        for changed in [fewer, more] {
            let trace = write(&header, &changed);
            let mut replay = Replay::new(TraceReader::open(&trace[..]).unwrap()).unwrap();
            let different = (0..=position).any(|_| matches!(replay.step(), Ok(Step::Different(_))));
            assert!(different, "{entry:?}");
        }
    }
}

#[test]
fn a_changed_byte_is_taken() {
    let (_, trace) = recorded(3);
    let whole = read(&trace).unwrap();
    for position in 0..trace.len() {
        for change in [1, 0x80, 0xff] {
            let mut changed = trace.clone();
            changed[position] ^= change;
            match read(&changed) {
                Err(TraceError::Frame(FrameError::Damaged { .. } | FrameError::NoTrace { .. })) => {}
                other => panic!("byte {position} ^ {change:#x}: {other:?}, not {:?}", whole.1),
            }
        }
    }
}

#[test]
fn what_is_left_of_a_torn_trace_cannot_be_read() {
    // Committees take long to read, again and again.
    let quick = |entry: &TraceEntry| {
        !matches!(
            entry.event,
            Event::Verified { .. } | Event::StoreReopened { .. } | Event::CommitteeKnown { .. }
        )
    };
    let quick: Vec<_> = entries().into_iter().filter(quick).collect();
    let frames: Vec<_> = quick.chunks(10).map(<[_]>::to_vec).collect();
    // Where frames end, and how many events come before.
    let mut file = TraceFile::new(Vec::new(), &header()).unwrap();
    let mut ends = vec![(file.written(), 0)];
    let mut events = 0;
    for entries in &frames {
        let mut encoder = EntryEncoder::new(true);
        for entry in entries {
            encoder.begin(entry.at, &entry.event).unwrap();
            entry.commands.iter().for_each(|mark| encoder.mark(mark));
            encoder.finish().unwrap();
        }
        file.write(encoder.take()).unwrap();
        events += entries.len();
        ends.push((file.written(), events));
    }
    let bytes = file.end(EndReason::Stopped).unwrap();
    for len in 0..bytes.len() {
        let whole = ends.iter().rev().find(|(end, _)| *end <= len as u64);
        match (read(&bytes[..len]), whole) {
            (Ok((entries, Ending::Torn { bytes_lost })), Some((end, events))) => {
                assert_eq!((entries.len(), bytes_lost), (*events, len as u64 - end), "cut at {len}");
            }
            (Err(TraceError::NoHeader | TraceError::Frame(FrameError::NoTrace { .. })), None) => {}
            (other, _) => panic!("cut at {len}: {other:?}"),
        }
    }
}

#[test]
fn frames_left_out_moved_or_added_are_taken() {
    let (_, trace) = recorded(3);
    let mut more = trace.clone();
    more.push(0);
    assert!(matches!(read(&more), Err(TraceError::Malformed { .. })), "something follows the end");
    let twice = [&trace[..], &trace[8..]].concat();
    assert!(read(&twice).is_err());
    let items = header_items(&header());
    assert!(matches!(read(&framed(&[&items, &items]).unwrap()), Err(TraceError::Malformed { frame: 1, .. })));
    assert!(matches!(read(&framed(&[b"\x00"]).unwrap()), Err(TraceError::Malformed { frame: 0, .. })));
}

#[test]
fn a_trace_without_its_beginning_is_replayed() {
    let header = TraceHeader { skipped_events: 7, ..header() };
    let written = write(&header, &entries());
    let (read, _) = read(&written).unwrap();
    assert_eq!(read[0].number, 7);
    let replay = Replay::new(TraceReader::open(&written[..]).unwrap());
    assert!(matches!(replay, Err(ReplayError::Partial { skipped: 7 })));
}

#[test]
fn a_trace_that_begins_with_a_state_replays_otherwise_or_is_judged_by_what_came_before() {
    let (_, trace) = recorded(30);
    let mut reader = TraceReader::open(&trace[..]).unwrap();
    let mut entries = Vec::new();
    while let Some(entry) = reader.next_entry().unwrap() {
        entries.push(entry);
    }
    let mut whole = Replay::new(TraceReader::open(&trace[..]).unwrap()).unwrap();
    let mut parts = Vec::new();
    for skipped in 0..entries.len() {
        let state = whole.machine().save().map(Into::into);
        assert!(state.is_some(), "commands wait");
        let header = TraceHeader { skipped_events: skipped as u64, state, ..reader.header().clone() };
        parts.push(write(&header, &entries[skipped..]));
        assert_eq!(whole.step().unwrap(), Step::Same);
    }
    for (skipped, part) in parts.iter().enumerate() {
        let mut replay = Replay::new(TraceReader::open(&part[..]).unwrap()).unwrap();
        let mut judge = Judge::new(replay.reader().header(), replay.machine());
        loop {
            match replay.step_watched(&mut judge).unwrap() {
                Step::Same => {}
                Step::End => break,
                other => panic!("begun after {skipped} events: {other:?}"),
            }
            assert_eq!(judge.judge(replay.machine()), Ok(()), "begun after {skipped} events");
        }
        assert_eq!(replay.reader().events(), (entries.len() - skipped) as u64);
        assert_eq!(replay.machine(), whole.machine());
    }
    // A command that is another one is seen as in a whole trace.
    let skipped = entries.len() / 2;
    let position = skipped + entries[skipped..].iter().position(|entry| !entry.commands.is_empty()).unwrap();
    entries[position].commands[0].hash ^= 1;
    let header = TraceReader::open(&parts[skipped][..]).unwrap().header().clone();
    let part = write(&header, &entries[skipped..]);
    let mut replay = Replay::new(TraceReader::open(&part[..]).unwrap()).unwrap();
    let difference = loop {
        match replay.step().unwrap() {
            Step::Same => {}
            Step::Different(difference) => break difference,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!((difference.entry.number, difference.position), (position as u64, 0));
}

#[test]
fn a_state_that_is_damaged_or_too_large_is_taken() {
    let replay = |state: Vec<u8>| {
        let header = TraceHeader { skipped_events: 7, state: Some(state.into()), ..header() };
        let written = write(&header, &entries());
        Replay::new(TraceReader::open(std::io::Cursor::new(written)).unwrap())
    };
    assert!(matches!(replay(vec![0xff; 100]), Err(ReplayError::State(RestoreError::Layout { .. }))));
    let large = vec![0xff; STATE_BYTES_MAX + 1];
    assert!(matches!(replay(large), Err(ReplayError::Partial { skipped: 7 })));
}

#[test]
fn a_flood_of_empty_messages_is_decoded() {
    // An entry whose verdict has a million bad blocks of two bytes each.
    let field = |number: u8, content: &[u8]| {
        let mut bytes = vec![number << 3 | 2];
        prost_varint(&mut bytes, content.len());
        bytes.extend(content);
        bytes
    };
    let bad = [0x12, 0].repeat(1_000_000);
    let item = field(2, &field(11, &field(6, &bad)));
    let mut items = Vec::new();
    prost_varint(&mut items, item.len());
    items.extend(item);
    let refused = read(&framed(&[&header_items(&header()), &items]).unwrap());
    let Err(TraceError::Malformed { frame: 1, what }) = refused else { panic!("{refused:?}") };
    assert!(what.contains("too many"), "{what}");
}

/// A number as protobuf has it.
fn prost_varint(bytes: &mut Vec<u8>, mut number: usize) {
    while number >= 0x80 {
        bytes.push(u8::try_from(number & 0x7f).unwrap() | 0x80);
        number >>= 7;
    }
    bytes.push(u8::try_from(number).unwrap());
}

#[test]
fn a_corpus_of_traces_is_read_and_written_the_same() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/read_trace");
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let files: Vec<_> = entries.map(|entry| fs::read(entry.unwrap().path()).unwrap()).collect();
    assert!(files.len() >= 10, "a corpus of {}", files.len());
    files.iter().for_each(|file| read_trace(file));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn damaged_items_are_read_and_written_the_same(
        at in any::<Index>(), changes in prop::collection::vec((any::<Index>(), any::<u8>()), 1..4), cut in any::<Index>(),
    ) {
        let events = events();
        let mut encoder = EntryEncoder::new(true);
        encoder.begin(Timestamp::ZERO, &events[at.index(events.len())]).unwrap();
        commands().iter().for_each(|command| encoder.command(command));
        encoder.finish().unwrap();
        let mut items = encoder.take().items().to_vec();
        for (at, byte) in &changes {
            let at = at.index(items.len());
            items[at] = *byte;
        }
        read_trace(&items);
        read_trace(&items[..cut.index(items.len())]);
    }

    #[test]
    fn random_items_are_read_and_written_the_same(bytes: Vec<u8>) {
        read_trace(&bytes);
    }
}
