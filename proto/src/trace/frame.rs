//! Frames: pieces of a trace file, each packed and checked, and chained to the one before.

use super::{ITEM_BYTES_MAX, MAGIC, hash};
use bytes::Bytes;
use std::io::{self, Read, Write};

/// Most bytes that a frame unpacks to: the largest item, and a chunk that was almost full before it.
pub(super) const FRAME_BYTES_MAX: usize = ITEM_BYTES_MAX + 1024 * 1024;
const HEAD_BYTES: usize = 16;
const CHECK_BYTES: usize = 8;
/// The first piece of a body's buffer; what follows is allocated as it arrives.
const BODY_BYTES_FIRST: usize = 64 * 1024;

/// Why bytes are no frames.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// They could not be read.
    #[error("it cannot be read")]
    Io(#[from] io::Error),
    /// The file begins with something else.
    #[error("it is no trace: it begins with {found:02x?}")]
    NoTrace {
        /// What it begins with.
        found: [u8; 8],
    },
    /// A frame is not the one that was written there.
    #[error("frame {frame}, at byte {offset}, is damaged")]
    Damaged {
        /// Its number; the header's is 0.
        frame: u64,
        /// Where it begins.
        offset: u64,
    },
}

/// The check of a frame.
type Check = [u8; CHECK_BYTES];

/// Against damage, and quick: whoever changes a trace on purpose can compute any check that has no key.
fn check(previous: &Check, head: &[u8; HEAD_BYTES], body: &[u8]) -> Check {
    let place = hash::seeded(u64::from_le_bytes(*previous), head);
    hash::seeded(place, body).to_le_bytes()
}

fn head(frame: u64, body: u32, unpacked: u32) -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    head[..4].copy_from_slice(&body.to_le_bytes());
    head[4..8].copy_from_slice(&unpacked.to_le_bytes());
    let sum = hash::seeded(frame, &head[..8]);
    head[8..].copy_from_slice(&sum.to_le_bytes());
    head
}

/// Writes frames.
#[derive(Debug)]
pub(super) struct FrameWriter<W> {
    output: W,
    frame: u64,
    previous: Check,
    body: Vec<u8>,
    written: u64,
}

impl<W: Write> FrameWriter<W> {
    pub(super) fn new(mut output: W) -> io::Result<Self> {
        output.write_all(&MAGIC)?;
        Ok(Self {
            output,
            frame: 0,
            previous: [0; CHECK_BYTES],
            body: Vec::new(),
            written: MAGIC.len() as u64,
        })
    }

    /// Writes one frame that unpacks to `items`. Nothing of it counts where writing fails.
    pub(super) fn write(&mut self, items: &[u8]) -> io::Result<()> {
        let too_large = || io::Error::new(io::ErrorKind::InvalidInput, "a frame is too large");
        let unpacked = u32::try_from(items.len()).map_err(|_| too_large())?;
        self.body.resize(lz4_flex::block::get_maximum_output_size(items.len()), 0);
        let len = lz4_flex::block::compress_into(items, &mut self.body).map_err(io::Error::other)?;
        let body = &self.body[..len];
        let head = head(self.frame, u32::try_from(len).map_err(|_| too_large())?, unpacked);
        let check = check(&self.previous, &head, body);
        self.output.write_all(&head)?;
        self.output.write_all(body)?;
        self.output.write_all(&check)?;
        self.output.flush()?;
        self.written += (HEAD_BYTES + len + CHECK_BYTES) as u64;
        (self.previous, self.frame) = (check, self.frame + 1);
        Ok(())
    }

    /// Bytes of all whole frames, and of what is before them.
    pub(super) const fn written(&self) -> u64 {
        self.written
    }

    pub(super) const fn output_mut(&mut self) -> &mut W {
        &mut self.output
    }

    pub(super) fn into_output(self) -> W {
        self.output
    }
}

/// What comes next in a file.
pub(super) enum Next {
    /// A frame, unpacked.
    Frame(Bytes),
    /// Nothing.
    End,
    /// The beginning of a frame, of so many bytes.
    Torn { bytes: u64 },
}

/// Reads frames.
#[derive(Debug)]
pub(super) struct FrameReader<R> {
    input: R,
    frame: u64,
    offset: u64,
    previous: Check,
}

impl<R: Read> FrameReader<R> {
    pub(super) fn open(mut input: R) -> Result<Self, FrameError> {
        let mut found = [0; 8];
        let read = read_up_to(&mut input, &mut found)?;
        if found != MAGIC || read < found.len() {
            return Err(FrameError::NoTrace { found });
        }
        Ok(Self { input, frame: 0, offset: MAGIC.len() as u64, previous: [0; CHECK_BYTES] })
    }

    /// The number of the next frame.
    pub(super) const fn frame(&self) -> u64 {
        self.frame
    }
    /// Where the next frame begins.
    pub(super) const fn offset(&self) -> u64 {
        self.offset
    }

    pub(super) fn next(&mut self) -> Result<Next, FrameError> {
        let damaged = FrameError::Damaged { frame: self.frame, offset: self.offset };
        let mut found = [0; HEAD_BYTES];
        let read = read_up_to(&mut self.input, &mut found)?;
        if read < HEAD_BYTES {
            return Ok(if read == 0 { Next::End } else { Next::Torn { bytes: read as u64 } });
        }
        let [l0, l1, l2, l3, u0, u1, u2, u3, ..] = found;
        let (len, unpacked) = (u32::from_le_bytes([l0, l1, l2, l3]), u32::from_le_bytes([u0, u1, u2, u3]));
        if found != head(self.frame, len, unpacked) || unpacked as usize > FRAME_BYTES_MAX {
            return Err(damaged);
        }
        let len = len as usize;
        if len > lz4_flex::block::get_maximum_output_size(FRAME_BYTES_MAX) {
            return Err(damaged);
        }
        let mut body = Vec::with_capacity((len + CHECK_BYTES).min(BODY_BYTES_FIRST));
        (&mut self.input).take((len + CHECK_BYTES) as u64).read_to_end(&mut body)?;
        if body.len() < len + CHECK_BYTES {
            return Ok(Next::Torn { bytes: (HEAD_BYTES + body.len()) as u64 });
        }
        let (body, found_check) = body.split_at(len);
        let check = check(&self.previous, &found, body);
        if found_check != check {
            return Err(damaged);
        }
        let mut items = vec![0; unpacked as usize];
        if lz4_flex::block::decompress_into(body, &mut items).ok() != Some(items.len()) {
            return Err(damaged);
        }
        self.offset += (HEAD_BYTES + len + CHECK_BYTES) as u64;
        (self.previous, self.frame) = (check, self.frame + 1);
        Ok(Next::Frame(items.into()))
    }
}

/// Reads until the buffer is full or the input ends; how many bytes.
fn read_up_to(input: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match input.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
