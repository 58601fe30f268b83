//! Reading traces.

use super::{
    EndReason, FrameError, ITEM_BYTES_MAX, Mark, TraceHeader, VERSION,
    convert::{Malformed, event},
    frame::{FrameReader, Next},
    pb,
};
use blake2::{Blake2b256, Digest};
use bytes::{Buf, Bytes};
use pb::item::Kind;
use prost::Message;
use soma_sync_core::{event::Event, time::Timestamp};
use std::io::Read;

/// Why a trace is not read, or not any further.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// It cannot be read, is no trace, or is damaged.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// It is of a version that this program does not know.
    #[error("it is of version {version}; this program reads version {VERSION}")]
    Version {
        /// Its version.
        version: u32,
    },
    /// The file ends before its header does.
    #[error("it ends before its header does: nothing was recorded")]
    NoHeader,
    /// It is whole, and says what no recorder says.
    #[error("frame {frame} makes no sense: {what}")]
    Malformed {
        /// In which frame.
        frame: u64,
        /// What is wrong.
        what: &'static str,
    },
}

/// How a trace ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// With its end mark: this is why.
    Whole(EndReason),
    /// Without: it was cut off, or is still being written. All whole frames were read.
    Torn {
        /// Bytes of a frame that is not whole, and was not read.
        bytes_lost: u64,
    },
}

/// An event, and what came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceEntry {
    /// Its place among all events that the machine was told, from 0.
    pub number: u64,
    /// When the machine was told.
    pub at: Timestamp,
    /// What it was told.
    pub event: Event,
    /// The commands that came of it, in order.
    pub commands: Vec<Mark>,
    /// The machine did not come back from this event. What commands there were is not known.
    pub unfinished: bool,
}

/// Reads a trace from front to back, holding one frame. After an error it is of no further use.
#[derive(Debug)]
pub struct TraceReader<R> {
    frames: FrameReader<R>,
    header: TraceHeader,
    items: Bytes,
    hasher: Blake2b256,
    events: u64,
    commands: u64,
    /// What was hashed in this frame and not checked yet.
    unchecked: bool,
    unfinished: bool,
    /// The item of the entry read last.
    last: Bytes,
    ending: Option<Ending>,
}

impl<R: Read> TraceReader<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// Where this is no trace of our version, or its header is not whole.
    pub fn open(input: R) -> Result<Self, TraceError> {
        let mut frames = FrameReader::open(input)?;
        let mut items = match frames.next()? {
            Next::Frame(items) => items,
            Next::End | Next::Torn { .. } => return Err(TraceError::NoHeader),
        };
        let malformed = |what| TraceError::Malformed { frame: 0, what };
        let Some((Kind::Header(header), _)) =
            next_item(&mut items).map_err(|Malformed(what)| malformed(what))?
        else {
            return Err(malformed("it is no header"));
        };
        if header.version != VERSION {
            return Err(TraceError::Version { version: header.version });
        }
        if items.has_remaining() {
            return Err(malformed("more than a header"));
        }
        let header = TraceHeader::read(header).map_err(|Malformed(what)| malformed(what))?;
        Ok(Self {
            frames,
            header,
            items,
            hasher: Blake2b256::new(),
            events: 0,
            commands: 0,
            unchecked: false,
            unfinished: false,
            last: Bytes::new(),
            ending: None,
        })
    }

    /// What the machine was made of.
    pub const fn header(&self) -> &TraceHeader {
        &self.header
    }
    /// Events read so far.
    pub const fn events(&self) -> u64 {
        self.events
    }
    /// Commands that came of them.
    pub const fn commands(&self) -> u64 {
        self.commands
    }
    /// The digest of these commands, BLAKE2b-256.
    pub fn digest(&self) -> [u8; 32] {
        self.hasher.clone().finalize().into()
    }
    /// Whether the machine did not come back from the event read last, when it was recorded.
    pub const fn last_is_unfinished(&self) -> bool {
        self.unfinished
    }
    /// The event read last, once more: for whoever has given it away.
    ///
    /// # Errors
    /// Before the first event.
    pub fn last_entry(&self) -> Result<TraceEntry, TraceError> {
        let decode = || {
            let none = Malformed("no event was read");
            let Some(Kind::Entry(entry)) = pb::Item::decode(self.last.clone()).map_err(|_| none)?.kind else {
                return Err(none);
            };
            let commands = entry.commands.as_ref().map(Mark::read_all).transpose()?.unwrap_or_default();
            let before = self.events.saturating_sub(1);
            entry_of(self.header.skipped_events.saturating_add(before), entry, commands)
        };
        decode().map_err(|malformed| self.malformed(malformed))
    }
    /// Bytes of the file read so far, in whole frames.
    pub const fn offset(&self) -> u64 {
        self.frames.offset()
    }
    /// How the trace ends; `None` before [`next_entry`](Self::next_entry) has said that there are no more.
    pub const fn ending(&self) -> Option<Ending> {
        self.ending
    }

    /// The next event; `None` after the last one that is whole.
    pub fn next_entry(&mut self) -> Result<Option<TraceEntry>, TraceError> {
        loop {
            if self.ending.is_some() {
                return Ok(None);
            }
            let item = next_item(&mut self.items).map_err(|malformed| self.malformed(malformed))?;
            let (kind, bytes) = item.unzip();
            let taken = match kind {
                None => self.next_frame().map(|()| None)?,
                Some(Kind::Entry(entry)) => {
                    self.last = bytes.unwrap_or_default();
                    self.entry(entry).map_err(|malformed| self.malformed(malformed))?
                }
                Some(Kind::Check(check)) => {
                    self.check(&check).map_err(|malformed| self.malformed(malformed))?;
                    None
                }
                Some(Kind::End(end)) => self.end(&end).map(|()| None)?,
                Some(Kind::Header(_)) => return Err(self.malformed(Malformed("a second header"))),
            };
            if taken.is_some() {
                return Ok(taken);
            }
        }
    }

    const fn malformed(&self, Malformed(what): Malformed) -> TraceError {
        TraceError::Malformed { frame: self.frames.frame().saturating_sub(1), what }
    }

    fn next_frame(&mut self) -> Result<(), TraceError> {
        if self.unchecked {
            return Err(self.malformed(Malformed("entries without a check")));
        }
        match self.frames.next()? {
            Next::Frame(items) => self.items = items,
            Next::End => self.ending = Some(Ending::Torn { bytes_lost: 0 }),
            Next::Torn { bytes } => self.ending = Some(Ending::Torn { bytes_lost: bytes }),
        }
        Ok(())
    }

    fn entry(&mut self, entry: pb::Entry) -> Result<Option<TraceEntry>, Malformed> {
        let commands = entry.commands.as_ref().map(Mark::read_all).transpose()?.unwrap_or_default();
        let count = u32::try_from(commands.len()).map_err(|_| Malformed("too many commands"))?;
        self.hasher.update(count.to_le_bytes());
        commands.iter().for_each(|mark| self.hasher.update(mark.hash.to_le_bytes()));
        let number = self.header.skipped_events.saturating_add(self.events);
        self.events += 1;
        self.commands += u64::from(count);
        (self.unchecked, self.unfinished) = (true, entry.unfinished);
        entry_of(number, entry, commands).map(Some)
    }

    fn check(&mut self, check: &pb::Check) -> Result<(), Malformed> {
        self.unchecked = false;
        let digest = self.digest();
        if (check.events, check.commands, &check.digest[..]) == (self.events, self.commands, &digest[..]) {
            Ok(())
        } else {
            Err(Malformed("its digest is not that of its commands"))
        }
    }

    fn end(&mut self, end: &pb::End) -> Result<(), TraceError> {
        let reason = match end.reason() {
            pb::end::Reason::Unknown => None,
            pb::end::Reason::Stopped => Some(EndReason::Stopped),
            pb::end::Reason::Halted => Some(EndReason::Halted),
            pb::end::Reason::Panicked => Some(EndReason::Panicked),
            pb::end::Reason::FellBehind => Some(EndReason::FellBehind),
            pb::end::Reason::WriteFailed => Some(EndReason::WriteFailed),
            pb::end::Reason::TooLarge => Some(EndReason::TooLarge),
            pb::end::Reason::Asked => Some(EndReason::Asked),
        };
        let reason = reason.ok_or_else(|| self.malformed(Malformed("an end for an unknown reason")))?;
        let check = end.check.clone().unwrap_or_default();
        self.check(&check).map_err(|malformed| self.malformed(malformed))?;
        let trailing = Malformed("something follows the end");
        if self.items.has_remaining() {
            return Err(self.malformed(trailing));
        }
        match self.frames.next()? {
            Next::End => self.ending = Some(Ending::Whole(reason)),
            Next::Frame(_) | Next::Torn { .. } => return Err(self.malformed(trailing)),
        }
        Ok(())
    }
}

fn entry_of(number: u64, entry: pb::Entry, commands: Vec<Mark>) -> Result<TraceEntry, Malformed> {
    Ok(TraceEntry {
        number,
        at: Timestamp::from_micros(entry.at_us),
        event: event::read(entry.event.ok_or(Malformed("an event of an unknown kind"))?)?,
        commands,
        unfinished: entry.unfinished,
    })
}

/// The next item of a frame, and its bytes; `None` at its end.
fn next_item(items: &mut Bytes) -> Result<Option<(Kind, Bytes)>, Malformed> {
    if !items.has_remaining() {
        return Ok(None);
    }
    let cut = Malformed("an item ends too late");
    let len = prost::decode_length_delimiter(&mut *items).map_err(|_| cut)?;
    if len > items.len() {
        return Err(cut);
    }
    if len > ITEM_BYTES_MAX {
        return Err(Malformed("an item is too large"));
    }
    let item = items.split_to(len);
    super::limits::check(&item)?;
    let decoded = pb::Item::decode(item.clone()).map_err(|_| Malformed("an item does not decode"))?;
    let kind = decoded.kind.ok_or(Malformed("an item of an unknown kind"))?;
    Ok(Some((kind, item)))
}
