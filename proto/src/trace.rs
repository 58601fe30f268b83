//! Trace files: what happened to a machine and what came of it, so that it can happen again.
//!
//! A machine is a function of what it was made of and of its events. A trace has both, and of each command what names it
//! and a hash; [`Replay`] makes the machine again, tells it the same, and holds each command against the hash. Payloads
//! need not be in a trace, since the machine never reads them: a *thin* trace has their lengths and fingerprints and the
//! verdicts on them. A *full* one has the bytes too, once, where they came in.
//!
//! ```text
//! "SOMATRC2"
//! per frame:
//!   u32       length of the body                                              numbers are little-endian
//!   u32       length of what the body unpacks to
//!   u64       XXH3-64 of these eight bytes, its seed the frame's number
//!   bytes     body: LZ4 (one block) of items, each behind its length as a varint
//!   u64       check: XXH3-64 of the body, its seed XXH3-64 of the sixteen bytes with the check before as seed
//! ```
//!
//! Items are the protobuf messages of `proto/trace.proto`. The first frame holds the header, and where the trace does not
//! begin with its machine, that machine's state, of one layout ([`SyncMachine::save`]); those after it entries, an
//! event each, and a digest of all commands so far; the last one why the trace ends. A file that was cut off is read up
//! to its last whole frame, and [`Ending::Torn`] says so; one with a byte changed, left out or moved is refused there.
//! Reading is bounded: by [`ITEM_BYTES_MAX`] for a frame, and by a number of messages within an item.

mod convert;
mod frame;
#[allow(missing_docs, unreachable_pub, clippy::large_enum_variant, reason = "generated as for a public module")]
#[rustfmt::skip]
mod generated;
mod hash;
mod header;
mod judge;
mod limits;
mod mark;
mod reader;
mod replay;
mod writer;

pub use frame::FrameError;
pub use hash::fingerprint;
pub use header::TraceHeader;
pub use judge::Judge;
pub use mark::{CommandKind, Mark};
pub use reader::{Ending, TraceEntry, TraceError, TraceReader};
pub use replay::{Difference, Replay, ReplayError, Step, Watch};
pub use writer::{Chunk, EntryEncoder, TooLarge, TraceFile, TraceWriter, framed, header_items, record};

use generated as pb;
#[cfg(doc)]
use soma_sync_core::SyncMachine;

/// The version of the items that this crate writes, and the one that it reads.
pub const VERSION: u32 = 1;
/// What a trace file begins with.
pub const MAGIC: [u8; 8] = *b"SOMATRC2";
/// Most bytes of one item, and about the most of a frame: 64 MiB. An event that is larger with the bytes of its payloads
/// is kept without them; one that is larger without them cannot be recorded.
pub const ITEM_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Most bytes of a machine's state in a header: half an item.
pub const STATE_BYTES_MAX: usize = ITEM_BYTES_MAX / 2;

/// Why a trace ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum EndReason {
    /// The node was stopped.
    #[error("the node was stopped")]
    Stopped,
    /// The machine halted.
    #[error("the machine halted")]
    Halted,
    /// The machine or its driver panicked.
    #[error("the node panicked")]
    Panicked,
    /// The disk took less than there was to write: what came after is not recorded.
    #[error("the disk was too slow: what came after is not recorded")]
    FellBehind,
    /// Writing failed.
    #[error("writing failed: what came after is not recorded")]
    WriteFailed,
    /// An event was too large to be recorded.
    #[error("an event was too large: it and what came after are not recorded")]
    TooLarge,
    /// Somebody asked for what there was.
    #[error("it was asked for while the node ran")]
    Asked,
}
