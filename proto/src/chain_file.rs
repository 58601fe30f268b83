//! Chain files: a genesis and the commits from the first on, with their blocks and certifiers (formats: Chain files).
//!
//! ```text
//! "SOMACHN1"
//! bytes   ValidatorSet of the genesis committee             bytes: u32 length, little-endian, and as many bytes
//! u32     number of commits
//! per commit:
//!   bytes                 Commit
//!   u32 n,  n × bytes     its blocks, in its order
//!   u32 m,  m × bytes     certifiers; m = 0 where a later commit's certify this one too
//! ```
//!
//! A genesis file is a chain file of no commits. Both directions stream: the reader holds one commit with its blocks
//! and certifiers, or only the commit and the certifiers. What it reads is bounded by [`Limits`] before it is
//! allocated, and allocated only as it arrives. Whether any of it is true, [`chain_check`](crate::chain_check) says.

use bytes::Bytes;
use soma_sync_core::{config::Limits, payload::Payload};
use std::{
    fmt,
    io::{self, BufRead, BufReader, Read, Write},
};

/// What a chain file of this version begins with.
pub const MAGIC: [u8; 8] = *b"SOMACHN1";
/// What chain files of all versions begin with.
const MAGIC_FAMILY: &[u8; 7] = b"SOMACHN";

/// Bytes that the input and the output are buffered by.
const BUFFER_BYTES: usize = 256 * 1024;
/// The first piece of an item's buffer; what follows is allocated as it arrives.
const ITEM_BYTES_FIRST: usize = 64 * 1024;
/// Most bytes of one authority in a validator set. Keys, stake and name take 269; the rest is for addresses.
const AUTHORITY_BYTES_MAX: u64 = 4096;

/// Where in a chain file.
///
/// Commits are counted from 1. A chain file begins with the first commit, so this is the commit's index, too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Place {
    /// The magic, the genesis or the number of commits.
    Header,
    /// A commit, or the number of its blocks or certifiers.
    Commit {
        /// Which.
        commit: u32,
    },
    /// A block of a commit.
    Block {
        /// Which commit.
        commit: u32,
        /// Position among its blocks, from 0.
        position: u32,
    },
    /// A certifier of a commit.
    Certifier {
        /// Which commit.
        commit: u32,
        /// Position among its certifiers, from 0.
        position: u32,
    },
    /// After the last commit.
    End,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Header => f.write_str("the header"),
            Self::Commit { commit } => write!(f, "commit {commit}"),
            Self::Block { commit, position } => write!(f, "block {position} of commit {commit}"),
            Self::Certifier { commit, position } => write!(f, "certifier {position} of commit {commit}"),
            Self::End => f.write_str("the end"),
        }
    }
}

/// Why a chain file cannot be read on, and where.
#[derive(Debug, thiserror::Error)]
#[error("chain file: {place}, at byte {offset}: {reason}")]
pub struct ChainFileError {
    /// In terms of the chain.
    pub place: Place,
    /// Bytes from the start of the file.
    pub offset: u64,
    /// Why.
    pub reason: ChainFileReason,
}

/// Why a chain file cannot be read on.
#[derive(Debug, thiserror::Error)]
pub enum ChainFileReason {
    /// Reading failed.
    #[error("reading failed: {0}")]
    Io(io::Error),
    /// The file ends too early.
    #[error("the file ends too early")]
    Truncated,
    /// It is no chain file.
    #[error("no chain file: it begins with {found:02x?}")]
    NoChainFile {
        /// What it begins with.
        found: [u8; 8],
    },
    /// It is a chain file of a version that this program does not know.
    #[error("a chain file of version {:?}, and only version '1' is known", char::from(*version))]
    Version {
        /// The version's character, the last one of the magic.
        version: u8,
    },
    /// An item is longer than the limits allow.
    #[error("{len} bytes, and at most {limit} are allowed")]
    TooLong {
        /// Its length in bytes.
        len: u32,
        /// The limit.
        limit: u64,
    },
    /// More blocks or certifiers than the limits allow.
    #[error("{count} items, and at most {limit} are allowed")]
    TooMany {
        /// How many.
        count: u32,
        /// The limit.
        limit: u32,
    },
    /// There are bytes after the last commit.
    #[error("there are bytes after the last commit")]
    Trailing,
}

/// A commit of a chain file with what belongs to it, as read; nothing about it is verified.
#[derive(Clone, Debug)]
pub struct ChainRecord {
    /// Which commit of the file, from 1.
    pub number: u32,
    /// Where the record begins, in bytes from the start of the file.
    pub offset: u64,
    /// The encoded commit.
    pub commit: Payload,
    /// Its encoded blocks, in its order; empty where they were [skipped](ChainReader::next_without_blocks).
    pub blocks: Vec<Payload>,
    /// Encoded blocks that vote for it.
    pub certifiers: Vec<Payload>,
}

/// Reads a chain file from front to back. After an error it is of no further use.
#[derive(Debug)]
pub struct ChainReader<R> {
    input: BufReader<R>,
    offset: u64,
    limits: Limits,
    genesis: Bytes,
    commits: u32,
    commits_read: u32,
}

impl<R: Read> ChainReader<R> {
    /// Reads the header.
    ///
    /// # Errors
    ///
    /// Where it cannot be read, is no chain file of this version, or its genesis is longer than `limits` allow.
    pub fn open(input: R, limits: Limits) -> Result<Self, ChainFileError> {
        let input = BufReader::with_capacity(BUFFER_BYTES, input);
        let mut reader =
            Self { input, offset: 0, limits, genesis: Bytes::new(), commits: 0, commits_read: 0 };
        reader.read_magic()?;
        let genesis_bytes_max = u64::from(limits.max_ancestors).saturating_mul(AUTHORITY_BYTES_MAX);
        reader.genesis = reader.item(Place::Header, genesis_bytes_max)?;
        reader.commits = reader.number(Place::Header)?;
        Ok(reader)
    }

    /// The encoded validator set of the genesis committee.
    pub const fn genesis(&self) -> &Bytes {
        &self.genesis
    }
    /// How many commits the file says it has.
    pub const fn commits(&self) -> u32 {
        self.commits
    }
    /// How many bytes were read.
    pub const fn offset(&self) -> u64 {
        self.offset
    }

    /// The next commit; `None` after the last one, once it is sure that nothing follows it.
    ///
    /// # Errors
    ///
    /// Where the file cannot be read, ends too early, goes on after its last commit, or has more than the limits allow: at
    /// which place, and at which byte.
    pub fn next_record(&mut self) -> Result<Option<ChainRecord>, ChainFileError> {
        self.record(Self::item)
    }

    /// The next commit as by [`next_record`](Self::next_record), but its blocks are passed over.
    ///
    /// # Errors
    ///
    /// As [`next_record`](Self::next_record).
    pub fn next_without_blocks(&mut self) -> Result<Option<ChainRecord>, ChainFileError> {
        let record =
            self.record(|reader, place, limit| reader.skip_item(place, limit).map(|()| Bytes::new()))?;
        Ok(record.map(|record| ChainRecord { blocks: Vec::new(), ..record }))
    }

    /// The next commit, its blocks read by `read_block`.
    fn record(
        &mut self,
        mut read_block: impl FnMut(&mut Self, Place, u64) -> Result<Bytes, ChainFileError>,
    ) -> Result<Option<ChainRecord>, ChainFileError> {
        if self.commits_read == self.commits {
            return self.end().map(|()| None);
        }
        let number = self.commits_read + 1;
        let (place, offset, limits) = (Place::Commit { commit: number }, self.offset, self.limits);
        let commit = Payload::new(self.item(place, limits.max_commit_bytes())?);
        let count = self.count(place, limits.max_blocks_per_commit)?;
        let blocks = (0..count).map(|position| {
            let place = Place::Block { commit: number, position };
            read_block(self, place, limits.max_block_bytes).map(Payload::new)
        });
        let blocks = blocks.collect::<Result<_, _>>()?;
        let count = self.count(place, limits.max_ancestors)?;
        let certifiers = (0..count).map(|position| {
            let place = Place::Certifier { commit: number, position };
            self.item(place, limits.max_block_bytes).map(Payload::new)
        });
        let certifiers = certifiers.collect::<Result<_, _>>()?;
        self.commits_read = number;
        Ok(Some(ChainRecord { number, offset, commit, blocks, certifiers }))
    }

    fn read_magic(&mut self) -> Result<(), ChainFileError> {
        let found: [u8; 8] = self.array(Place::Header)?;
        let [family @ .., version] = &found;
        let reason = match found {
            MAGIC => return Ok(()),
            _ if family == MAGIC_FAMILY => ChainFileReason::Version { version: *version },
            _ => ChainFileReason::NoChainFile { found },
        };
        Err(ChainFileError { place: Place::Header, offset: 0, reason })
    }

    /// That nothing follows the last commit.
    fn end(&mut self) -> Result<(), ChainFileError> {
        loop {
            match self.input.fill_buf() {
                Ok([]) => return Ok(()),
                Ok(_) => return Err(self.error(Place::End, ChainFileReason::Trailing)),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(self.error(Place::End, ChainFileReason::Io(error))),
            }
        }
    }

    const fn error(&self, place: Place, reason: ChainFileReason) -> ChainFileError {
        ChainFileError { place, offset: self.offset, reason }
    }

    fn io_error(&self, place: Place, error: io::Error) -> ChainFileError {
        let truncated = error.kind() == io::ErrorKind::UnexpectedEof;
        self.error(place, if truncated { ChainFileReason::Truncated } else { ChainFileReason::Io(error) })
    }

    fn array<const N: usize>(&mut self, place: Place) -> Result<[u8; N], ChainFileError> {
        let mut bytes = [0; N];
        self.input.read_exact(&mut bytes).map_err(|error| self.io_error(place, error))?;
        self.offset += N as u64;
        Ok(bytes)
    }

    fn number(&mut self, place: Place) -> Result<u32, ChainFileError> {
        self.array(place).map(u32::from_le_bytes)
    }

    /// A number of items, at most `limit`.
    fn count(&mut self, place: Place, limit: u32) -> Result<u32, ChainFileError> {
        let offset = self.offset;
        let count = self.number(place)?;
        let reason = ChainFileReason::TooMany { count, limit };
        if count <= limit { Ok(count) } else { Err(ChainFileError { place, offset, reason }) }
    }

    /// The length of an item, at most `limit`.
    fn length(&mut self, place: Place, limit: u64) -> Result<u64, ChainFileError> {
        let offset = self.offset;
        let len = self.number(place)?;
        let reason = ChainFileReason::TooLong { len, limit };
        if u64::from(len) <= limit { Ok(len.into()) } else { Err(ChainFileError { place, offset, reason }) }
    }

    fn item(&mut self, place: Place, limit: u64) -> Result<Bytes, ChainFileError> {
        let len = self.length(place, limit)?;
        // A length may lie about a file of a few bytes: past the first piece, the buffer grows with what is read.
        let capacity = usize::try_from(len).unwrap_or(usize::MAX).min(ITEM_BYTES_FIRST);
        let mut bytes = Vec::with_capacity(capacity);
        let read = (&mut self.input).take(len).read_to_end(&mut bytes);
        self.offset += bytes.len() as u64;
        read.map_err(|error| self.io_error(place, error))?;
        if (bytes.len() as u64) < len {
            return Err(self.error(place, ChainFileReason::Truncated));
        }
        Ok(bytes.into())
    }

    fn skip_item(&mut self, place: Place, limit: u64) -> Result<(), ChainFileError> {
        let len = self.length(place, limit)?;
        let skipped = io::copy(&mut (&mut self.input).take(len), &mut io::sink());
        let skipped = skipped.map_err(|error| self.io_error(place, error))?;
        self.offset += skipped;
        if skipped < len {
            return Err(self.error(place, ChainFileReason::Truncated));
        }
        Ok(())
    }
}

/// Why a chain file cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum ChainWriteError {
    /// Writing failed.
    #[error("writing the chain file failed")]
    Io(#[from] io::Error),
    /// An item or a list is longer than 32 bits can say.
    #[error("a length of {len} does not fit a chain file")]
    TooLong {
        /// The length.
        len: usize,
    },
    /// More or fewer commits were written than announced.
    #[error("{announced} commits were announced, and not as many written")]
    Count {
        /// What the header says.
        announced: u32,
    },
}

/// Writes a chain file from front to back. A file is whole only once [`finish`](Self::finish) has returned.
#[derive(Debug)]
pub struct ChainWriter<W: Write> {
    output: io::BufWriter<W>,
    commits: u32,
    commits_left: u32,
}

impl<W: Write> ChainWriter<W> {
    /// Writes the header: the encoded validator set of the genesis committee, in index order, and how many commits
    /// will follow.
    ///
    /// # Errors
    ///
    /// Where writing fails, or the genesis is longer than 4 GiB.
    pub fn new(output: W, genesis: &[u8], commits: u32) -> Result<Self, ChainWriteError> {
        let output = io::BufWriter::with_capacity(BUFFER_BYTES, output);
        let mut writer = Self { output, commits, commits_left: commits };
        writer.output.write_all(&MAGIC)?;
        writer.item(genesis)?;
        writer.output.write_all(&commits.to_le_bytes())?;
        Ok(writer)
    }

    /// Writes the next commit with its blocks, in its order, and the certifiers, ordered by author, then round.
    ///
    /// # Errors
    ///
    /// Where writing fails, an item or a list is longer than 32 bits can say, or more commits are written than announced.
    pub fn write(
        &mut self,
        commit: &[u8],
        blocks: &[impl AsRef<[u8]>],
        certifiers: &[impl AsRef<[u8]>],
    ) -> Result<(), ChainWriteError> {
        let announced = self.commits;
        self.commits_left = self.commits_left.checked_sub(1).ok_or(ChainWriteError::Count { announced })?;
        self.item(commit)?;
        self.items(blocks)?;
        self.items(certifiers)
    }

    /// Flushes, and gives the output back. Whether its bytes are durable is the caller's concern.
    ///
    /// # Errors
    ///
    /// Where writing fails, or fewer commits were written than announced.
    pub fn finish(mut self) -> Result<W, ChainWriteError> {
        if self.commits_left > 0 {
            return Err(ChainWriteError::Count { announced: self.commits });
        }
        self.output.flush()?;
        self.output.into_inner().map_err(|error| error.into_error().into())
    }

    fn items(&mut self, items: &[impl AsRef<[u8]>]) -> Result<(), ChainWriteError> {
        self.length(items.len())?;
        items.iter().try_for_each(|item| self.item(item.as_ref()))
    }

    fn item(&mut self, item: &[u8]) -> Result<(), ChainWriteError> {
        self.length(item.len())?;
        Ok(self.output.write_all(item)?)
    }

    fn length(&mut self, len: usize) -> Result<(), ChainWriteError> {
        let encoded = u32::try_from(len).map_err(|_| ChainWriteError::TooLong { len })?;
        Ok(self.output.write_all(&encoded.to_le_bytes())?)
    }
}
