//! Writing traces: encoding entries where they happen, and writing them where that may take time.

use super::{
    EndReason, ITEM_BYTES_MAX, TraceHeader,
    convert::event,
    frame::FrameWriter,
    hash::CommandHasher,
    mark::{Columns, Mark},
    pb,
};
use blake2::{Blake2b256, Digest};
use prost::Message;
use soma_sync_core::{command::Command, event::Event, time::Timestamp};
use std::{
    io::{self, Write},
    mem,
    panic::{self, AssertUnwindSafe},
};

/// An event is too large to be kept, even without the bytes of its payloads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event of {bytes} bytes is too large for a trace, which takes {max}")]
pub struct TooLarge {
    /// How large.
    pub bytes: usize,
    /// The limit.
    pub max: usize,
}

/// Encoded entries, in order, that have not been written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chunk {
    /// The items.
    bytes: Vec<u8>,
    /// What the digest is over.
    hashes: Vec<u8>,
    events: u64,
    commands: u64,
}

impl Chunk {
    /// Whether there is nothing in it.
    pub const fn is_empty(&self) -> bool {
        self.events == 0
    }
    /// About how many bytes it keeps in memory.
    pub const fn len(&self) -> usize {
        self.bytes.len().saturating_add(self.hashes.len())
    }
    /// What its frame unpacks to, but for the digest at the end.
    pub fn items(&self) -> &[u8] {
        &self.bytes
    }
    /// How many events are in it.
    pub const fn events(&self) -> u64 {
        self.events
    }
}

/// Encodes what happens to a machine: [`begin`](Self::begin) with each event before the machine is told,
/// [`command`](Self::command) with each command that comes of it, then [`finish`](Self::finish). What has gathered is
/// [taken](Self::take) from time to time. It does no more than encode, so that it can be where the machine is.
#[derive(Debug)]
pub struct EntryEncoder {
    full: bool,
    chunk: Chunk,
    begun: Option<pb::Entry>,
    columns: Columns,
    hasher: CommandHasher,
}

impl EntryEncoder {
    /// Begins with nothing; `full` keeps the bytes of payloads where they come in.
    pub fn new(full: bool) -> Self {
        Self {
            full,
            chunk: Chunk::default(),
            begun: None,
            columns: Columns::default(),
            hasher: CommandHasher::default(),
        }
    }

    /// An event that the machine is about to be told at `at`.
    ///
    /// # Errors
    /// Where it is too large. Nothing after it may be kept then: the trace would lack it.
    pub fn begin(&mut self, at: Timestamp, event: &Event) -> Result<(), TooLarge> {
        // What is left belongs to commands.
        const EVENT_BYTES_MAX: usize = ITEM_BYTES_MAX / 2;
        let entry = |full| pb::Entry {
            at_us: at.as_micros(),
            event: Some(event::write(event, full)),
            ..pb::Entry::default()
        };
        let mut begun = entry(self.full);
        if self.full && begun.encoded_len() > EVENT_BYTES_MAX {
            begun = entry(false);
        }
        // Without payloads' bytes, few events are ever this large, and only these are measured twice.
        let bytes = begun.encoded_len();
        if bytes > EVENT_BYTES_MAX {
            return Err(TooLarge { bytes, max: EVENT_BYTES_MAX });
        }
        self.begun = Some(begun);
        Ok(())
    }

    /// A command that came of the event.
    pub fn command(&mut self, command: &Command) {
        Mark::hashed(command, &mut self.hasher).write(&mut self.columns);
    }

    /// A command that came of the event, as a trace has it.
    pub fn mark(&mut self, mark: &Mark) {
        mark.write(&mut self.columns);
    }

    /// There are no more commands: the entry is complete.
    ///
    /// # Errors
    /// Where so many commands came of the event that they are too large.
    pub fn finish(&mut self) -> Result<(), TooLarge> {
        let Some(mut entry) = self.begun.take() else { return Ok(()) };
        let hashes = self.columns.hashes();
        let count = u32::try_from(hashes.len()).unwrap_or(u32::MAX);
        self.chunk.hashes.extend(count.to_le_bytes());
        self.chunk.hashes.extend(hashes.iter().flat_map(|hash| hash.to_le_bytes()));
        self.chunk.commands += hashes.len() as u64;
        entry.commands = self.columns.take();
        self.push(entry)
    }

    /// The machine did not come back from the event that was begun last and not finished; `false` where there is none.
    pub fn abandon(&mut self) -> bool {
        let Some(entry) = self.begun.take() else { return false };
        self.columns = Columns::default();
        self.chunk.hashes.extend(0_u32.to_le_bytes());
        // Its event alone has fitted before.
        self.push(pb::Entry { unfinished: true, ..entry }).is_ok()
    }

    fn push(&mut self, entry: pb::Entry) -> Result<(), TooLarge> {
        let item = pb::Item { kind: Some(pb::item::Kind::Entry(entry)) };
        let bytes = item.encoded_len();
        if bytes > ITEM_BYTES_MAX {
            return Err(TooLarge { bytes, max: ITEM_BYTES_MAX });
        }
        push_item(&mut self.chunk.bytes, &item);
        self.chunk.events += 1;
        Ok(())
    }

    /// About how many bytes have gathered.
    pub const fn gathered(&self) -> usize {
        self.chunk.len()
    }

    /// What has gathered, for [`TraceFile::write`].
    pub fn take(&mut self) -> Chunk {
        mem::take(&mut self.chunk)
    }
}

/// What the first frame of a file with this header unpacks to.
pub fn header_items(header: &TraceHeader) -> Vec<u8> {
    let mut items = Vec::new();
    push_item(&mut items, &pb::Item { kind: Some(pb::item::Kind::Header(header.write())) });
    items
}

/// A file whose frames unpack to this, whatever it is: for tests of readers, since no change to a file that was written
/// gets past its checks.
///
/// # Errors
/// Where a frame is longer than 32 bits can say.
pub fn framed(frames: &[&[u8]]) -> io::Result<Vec<u8>> {
    let mut writer = FrameWriter::new(Vec::new())?;
    frames.iter().try_for_each(|items| writer.write(items))?;
    Ok(writer.into_output())
}

fn push_item(bytes: &mut Vec<u8>, item: &pb::Item) {
    bytes.reserve(item.encoded_len().saturating_add(10));
    // A vector takes whatever there is.
    let _ = item.encode_length_delimited(bytes);
}

/// Writes a trace from front to back. It is whole once [`end`](Self::end) has returned.
#[derive(Debug)]
pub struct TraceFile<W> {
    frames: FrameWriter<W>,
    hasher: Blake2b256,
    events: u64,
    commands: u64,
}

impl<W: Write> TraceFile<W> {
    /// Writes the header.
    pub fn new(output: W, header: &TraceHeader) -> io::Result<Self> {
        let mut frames = FrameWriter::new(output)?;
        frames.write(&header_items(header))?;
        Ok(Self { frames, hasher: Blake2b256::new(), events: 0, commands: 0 })
    }

    /// Writes what has gathered, and flushes. Where this fails nothing more may be written but the
    /// [end](Self::end), after what was written of the frame is [cut off](Self::written).
    pub fn write(&mut self, chunk: Chunk) -> io::Result<()> {
        if chunk.is_empty() {
            return Ok(());
        }
        let Chunk { mut bytes, hashes, events, commands } = chunk;
        let (mut hasher, events, commands) =
            (self.hasher.clone(), self.events + events, self.commands + commands);
        hasher.update(&hashes);
        let check = check(&hasher, events, commands);
        push_item(&mut bytes, &pb::Item { kind: Some(pb::item::Kind::Check(check)) });
        self.frames.write(&bytes)?;
        (self.hasher, self.events, self.commands) = (hasher, events, commands);
        Ok(())
    }

    /// Writes why the trace ends, and gives the output back. Whether its bytes are durable is the caller's concern.
    pub fn end(mut self, reason: EndReason) -> io::Result<W> {
        let reason = match reason {
            EndReason::Stopped => pb::end::Reason::Stopped,
            EndReason::Halted => pb::end::Reason::Halted,
            EndReason::Panicked => pb::end::Reason::Panicked,
            EndReason::FellBehind => pb::end::Reason::FellBehind,
            EndReason::WriteFailed => pb::end::Reason::WriteFailed,
            EndReason::TooLarge => pb::end::Reason::TooLarge,
            EndReason::Asked => pb::end::Reason::Asked,
        };
        let check = Some(check(&self.hasher, self.events, self.commands));
        let mut items = Vec::new();
        let end = pb::End { check, reason: reason.into() };
        push_item(&mut items, &pb::Item { kind: Some(pb::item::Kind::End(end)) });
        self.frames.write(&items)?;
        Ok(self.frames.into_output())
    }

    /// Bytes of all whole frames so far: where the file is to be cut when writing another one failed.
    pub const fn written(&self) -> u64 {
        self.frames.written()
    }

    /// The output, for cutting it.
    pub const fn output_mut(&mut self) -> &mut W {
        self.frames.output_mut()
    }
}

fn check(hasher: &Blake2b256, events: u64, commands: u64) -> pb::Check {
    let digest: [u8; 32] = hasher.clone().finalize().into();
    pb::Check { events, commands, digest: digest.to_vec().into() }
}

/// Bytes that gather before a frame is written.
const FRAME_BYTES: usize = 256 * 1024;

/// Records what the machine that `header` is of says to these events, and gives the output back. Where the machine panics,
/// the trace ends with the event that it did not come back from.
///
/// # Errors
/// Where writing fails, an event is too large, or no machine can be made of the header.
pub fn record<W: Write>(
    output: W,
    header: &TraceHeader,
    events: impl IntoIterator<Item = (Timestamp, Event)>,
) -> io::Result<W> {
    let mut machine = AssertUnwindSafe(header.machine().map_err(io::Error::other)?);
    let mut writer = TraceWriter::new(output, header)?;
    for (at, event) in events {
        let kept = event.clone();
        let told = panic::catch_unwind(move || {
            let mut machine = machine;
            machine.handle(at, event);
            let commands: Vec<_> = std::iter::from_fn(|| machine.poll_command()).collect();
            (machine, commands)
        });
        let Ok((after, commands)) = told else {
            writer.write_unfinished(at, &kept)?;
            return writer.end(EndReason::Panicked);
        };
        machine = after;
        writer.write(at, &kept, &commands)?;
    }
    let halted = machine.status().halted.is_some();
    writer.end(if halted { EndReason::Halted } else { EndReason::Stopped })
}

/// Encodes and writes in one, for whoever has time.
#[derive(Debug)]
pub struct TraceWriter<W> {
    encoder: EntryEncoder,
    file: TraceFile<W>,
}

impl<W: Write> TraceWriter<W> {
    /// Writes the header.
    pub fn new(output: W, header: &TraceHeader) -> io::Result<Self> {
        Ok(Self { encoder: EntryEncoder::new(header.full), file: TraceFile::new(output, header)? })
    }

    /// Writes an event and the commands that came of it.
    ///
    /// # Errors
    /// Where writing fails, or the event is too large.
    pub fn write<'a>(
        &mut self,
        at: Timestamp,
        event: &Event,
        commands: impl IntoIterator<Item = &'a Command>,
    ) -> io::Result<()> {
        self.encoder.begin(at, event).map_err(io::Error::other)?;
        commands.into_iter().for_each(|command| self.encoder.command(command));
        self.encoder.finish().map_err(io::Error::other)?;
        if self.encoder.gathered() >= FRAME_BYTES {
            self.file.write(self.encoder.take())?;
        }
        Ok(())
    }

    /// Writes an event that the machine did not come back from.
    pub fn write_unfinished(&mut self, at: Timestamp, event: &Event) -> io::Result<()> {
        self.encoder.begin(at, event).map_err(io::Error::other)?;
        self.encoder.abandon();
        Ok(())
    }

    /// Writes what is left and why the trace ends, and gives the output back.
    pub fn end(mut self, reason: EndReason) -> io::Result<W> {
        self.file.write(self.encoder.take())?;
        self.file.end(reason)
    }
}
