//! Commits: the bytes, read and written, and the digest that links one to the next (formats: Encoding).

use crate::{
    bcs::{Cursor, DecodeError, Items, Writer},
    block::check_size,
    config::Limits,
    defence::{Defence, stands},
    digest,
    job::CommitHeader,
    payload::Payload,
    types::{BlockRef, CommitDigest, CommitIndex, CommitRef, Epoch},
};
use alloc::vec::Vec;

impl CommitRef {
    /// Bytes of an encoded reference.
    pub const BYTES: usize = 36;

    /// The encoding: index, digest.
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        let mut bytes = [0; Self::BYTES];
        let (index, digest) = bytes.split_at_mut(4);
        index.copy_from_slice(&self.index.get().to_le_bytes());
        digest.copy_from_slice(self.digest.as_bytes());
        bytes
    }

    /// The reference that these bytes encode. Any 36 bytes do.
    pub const fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        let &[i0, i1, i2, i3, digest @ ..] = bytes;
        Self {
            index: CommitIndex::new(u32::from_le_bytes([i0, i1, i2, i3])),
            digest: CommitDigest::new(digest),
        }
    }
}

impl CommitHeader {
    /// Decodes a whole commit and computes its digest. Nothing is said about whether anyone voted for it.
    ///
    /// # Errors
    ///
    /// Whatever is not the one encoding of a commit within `limits`, with nothing left over.
    pub fn decode(payload: Payload, limits: &Limits) -> Result<Self, DecodeError> {
        let bytes = payload.bytes();
        check_size(bytes, limits.max_commit_bytes())?;
        let mut cursor = Cursor::new(bytes);
        let index = CommitIndex::new(cursor.u32()?);
        let previous = CommitDigest::new(cursor.array()?);
        let timestamp_ms = cursor.u64()?;
        let leader = BlockRef::from_bytes(&cursor.array()?);
        let blocks = cursor.fixed_items(Items::Blocks, limits.max_blocks_per_commit, BlockRef::BYTES)?;
        let epoch = Epoch::new(cursor.u64()?);
        if stands(Defence::CommitEnd) {
            cursor.finish()?;
        }
        let (blocks, _) = blocks.as_chunks();
        let blocks = blocks.iter().map(BlockRef::from_bytes).collect();
        let reference = CommitRef { index, digest: CommitDigest::new(digest::hash(bytes)) };
        Ok(Self { reference, previous, timestamp_ms, epoch, leader, blocks, payload })
    }

    /// The same as a commit that can be changed and written again.
    pub fn to_commit(&self) -> Commit {
        Commit {
            index: self.reference.index,
            previous: self.previous,
            timestamp_ms: self.timestamp_ms,
            leader: self.leader,
            blocks: self.blocks.to_vec(),
            epoch: self.epoch,
        }
    }
}

/// A commit to be written: for whoever makes commits, such as a generator of chains. Nothing about it is checked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Commit {
    /// Position in the chain.
    pub index: CommitIndex,
    /// Digest of the commit before.
    pub previous: CommitDigest,
    /// Milliseconds since the Unix epoch.
    pub timestamp_ms: u64,
    /// The leader; one of `blocks`.
    pub leader: BlockRef,
    /// The blocks in the order in which they are applied.
    pub blocks: Vec<BlockRef>,
    /// Epoch of the commit and of all its blocks.
    pub epoch: Epoch,
}

impl Commit {
    /// The encoding, and what names it.
    pub fn encode(&self) -> (CommitRef, Vec<u8>) {
        let capacity = self.blocks.len().saturating_mul(BlockRef::BYTES).saturating_add(105);
        let mut writer = Writer::with_capacity(capacity);
        writer.u32(self.index.get());
        writer.raw(self.previous.as_bytes());
        writer.u64(self.timestamp_ms);
        writer.raw(&self.leader.to_bytes());
        writer.items(&self.blocks, |writer, block| writer.raw(&block.to_bytes()));
        writer.u64(self.epoch.get());
        let bytes = writer.into_bytes();
        (CommitRef { index: self.index, digest: CommitDigest::new(digest::hash(&bytes)) }, bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{AuthorityIndex, BlockDigest, Round};
    use alloc::vec;

    /// One block, from the original's vectors (`commit_1_1_blocks`).
    const COMMIT: &str = "01000000000000000000000000000000000000000000000000000000000000000000000041ea747f95010000\
        010000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000\
        01010000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000\
        0000000000000000";

    fn decode(bytes: &[u8], limits: &Limits) -> Result<CommitHeader, DecodeError> {
        CommitHeader::decode(Payload::new(bytes.to_vec().into()), limits)
    }

    #[test]
    fn a_commit_is_read_and_written_byte_for_byte() {
        let bytes = hex::decode(COMMIT).unwrap();
        let block = BlockRef {
            round: Round::new(1),
            author: AuthorityIndex::ZERO,
            digest: BlockDigest::ZERO,
            epoch: Epoch::ZERO,
        };
        let commit = Commit {
            index: CommitIndex::new(1),
            previous: CommitDigest::ZERO,
            timestamp_ms: 1_741_600_123_457,
            leader: block,
            blocks: vec![block],
            epoch: Epoch::ZERO,
        };
        let (reference, encoding) = commit.encode();
        assert_eq!(encoding, bytes);
        assert_eq!(
            hex::encode(reference.to_bytes()),
            "0100000050bf3babb68255f3e229b393a60a21293b957bc896ec4583e490a49a336b8cda"
        );
        assert_eq!(CommitRef::from_bytes(&reference.to_bytes()), reference);
        let header = decode(&bytes, &Limits::default()).unwrap();
        assert_eq!((header.reference, header.leader, &*header.blocks), (reference, block, &[block][..]));
    }

    #[test]
    fn no_proper_prefix_of_a_commit_decodes_and_nothing_may_follow_it() {
        let mut bytes = hex::decode(COMMIT).unwrap();
        for length in 0..bytes.len() {
            let refused = decode(&bytes[..length], &Limits::default()).unwrap_err();
            assert_eq!(refused, DecodeError::UnexpectedEnd, "{length}");
        }
        bytes.push(0);
        assert_eq!(decode(&bytes, &Limits::default()).unwrap_err(), DecodeError::Trailing { left: 1 });
    }

    #[test]
    fn a_commit_over_its_limit_is_refused_by_count_and_by_size() {
        let mut bytes = hex::decode(COMMIT).unwrap();
        let limits = Limits { max_blocks_per_commit: 0, ..Limits::default() };
        let refused = decode(&bytes, &limits).unwrap_err();
        assert_eq!(refused, DecodeError::TooLarge { bytes: 149, max: 105 });
        bytes.truncate(105);
        let refused = decode(&bytes, &limits).unwrap_err();
        assert_eq!(refused, DecodeError::TooMany { items: Items::Blocks, count: 1, max: 0 });
    }

    #[test]
    fn a_payload_whose_bytes_were_left_out_does_not_decode() {
        let absent = Payload::absent(149, 7);
        assert_eq!(CommitHeader::decode(absent, &Limits::default()).unwrap_err(), DecodeError::UnexpectedEnd);
    }
}
