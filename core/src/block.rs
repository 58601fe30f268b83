//! Blocks: the bytes, read in place and written; digests; the message that an author signs.
//!
//! A signed block is the block's encoding and then its signature as a byte string, so the signed bytes are a prefix
//! and one pass gives both digests (formats: Encoding).

mod error;

use crate::{
    bcs::{Cursor, Writer},
    committee::ValidatorSet,
    config::Limits,
    defence::{Defence, stands},
    digest,
    types::{AuthorityIndex, BlockDigest, BlockRef, CommitRef, Epoch, Round},
};
pub use crate::{
    bcs::{DecodeError, Items, MAX_LENGTH},
    committee::InvalidNextCommittee,
};
use alloc::{boxed::Box, vec::Vec};
use bytes::Bytes;
pub use error::{BlockError, EndOfEpochError};

/// Bytes of the message that an author signs: the intent and the inner digest.
pub const SIGNING_MESSAGE_BYTES: usize = 35;

/// Scope consensus block, version 0, application consensus.
const INTENT: [u8; 3] = [1, 0, 0];

impl BlockRef {
    /// Bytes of an encoded reference.
    pub const BYTES: usize = 48;

    /// The encoding: round, author, digest, epoch.
    pub fn to_bytes(&self) -> [u8; Self::BYTES] {
        let [r0, r1, r2, r3] = self.round.get().to_le_bytes();
        let [a0, a1, a2, a3] = self.author.get().to_le_bytes();
        let mut bytes = [0; Self::BYTES];
        let (author_and_round, rest) = bytes.split_at_mut(8);
        author_and_round.copy_from_slice(&[r0, r1, r2, r3, a0, a1, a2, a3]);
        let (digest, epoch) = rest.split_at_mut(32);
        digest.copy_from_slice(self.digest.as_bytes());
        epoch.copy_from_slice(&self.epoch.get().to_le_bytes());
        bytes
    }

    /// The reference that these bytes encode. Any 48 bytes do.
    pub const fn from_bytes(bytes: &[u8; Self::BYTES]) -> Self {
        let &[r0, r1, r2, r3, a0, a1, a2, a3, digest @ .., e0, e1, e2, e3, e4, e5, e6, e7] = bytes;
        Self {
            round: Round::new(u32::from_le_bytes([r0, r1, r2, r3])),
            author: AuthorityIndex::new(u32::from_le_bytes([a0, a1, a2, a3])),
            digest: BlockDigest::new(digest),
            epoch: Epoch::new(u64::from_le_bytes([e0, e1, e2, e3, e4, e5, e6, e7])),
        }
    }
}

/// A signed block, decoded in place: reading it allocates nothing unless it carries end-of-epoch data.
#[derive(Clone, Debug)]
pub struct BlockView<'a> {
    /// The signed bytes.
    block: &'a [u8],
    /// What follows them: the signature with its length.
    tail: &'a [u8],
    epoch: Epoch,
    round: Round,
    author: AuthorityIndex,
    timestamp_ms: u64,
    ancestors: &'a [u8],
    transaction_count: u32,
    transactions: &'a [u8],
    votes: &'a [u8],
    end_of_epoch: Option<Box<EndOfEpochData>>,
    signature: &'a [u8],
}

impl<'a> BlockView<'a> {
    /// Decodes a whole signed block.
    ///
    /// # Errors
    ///
    /// Whatever is not the one encoding of a signed block within `limits`, with nothing left over.
    pub fn decode(bytes: &'a [u8], limits: &Limits) -> Result<Self, DecodeError> {
        check_size(bytes, limits.max_block_bytes)?;
        let mut cursor = Cursor::new(bytes);
        let epoch = Epoch::new(cursor.u64()?);
        let round = Round::new(cursor.u32()?);
        let author = AuthorityIndex::new(cursor.u32()?);
        let timestamp_ms = cursor.u64()?;
        let ancestors = cursor.fixed_items(Items::Ancestors, limits.max_ancestors, BlockRef::BYTES)?;
        let transaction_count = cursor.count(Items::Transactions, limits.max_transactions_per_block)?;
        let before = cursor.rest();
        for _ in 0..transaction_count {
            cursor.byte_string()?;
        }
        let transactions = consumed(before, &cursor);
        let votes = cursor.fixed_items(Items::Votes, limits.max_votes_per_block, CommitRef::BYTES)?;
        let end_of_epoch = cursor.option(|cursor| EndOfEpochData::read(cursor).map(Box::new))?;
        let block = consumed(bytes, &cursor);
        let tail = cursor.rest();
        let signature = cursor.byte_string()?;
        if stands(Defence::BlockEnd) {
            cursor.finish()?;
        }
        Ok(Self {
            block,
            tail,
            epoch,
            round,
            author,
            timestamp_ms,
            ancestors,
            transaction_count,
            transactions,
            votes,
            end_of_epoch,
            signature,
        })
    }

    /// Epoch whose committee the author belongs to.
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }
    /// Round that it was proposed in.
    pub const fn round(&self) -> Round {
        self.round
    }
    /// Who proposed it.
    pub const fn author(&self) -> AuthorityIndex {
        self.author
    }
    /// Milliseconds since the Unix epoch, as its author says.
    pub const fn timestamp_ms(&self) -> u64 {
        self.timestamp_ms
    }
    /// The blocks that it builds on, its author's own first.
    pub fn ancestors(&self) -> impl ExactSizeIterator<Item = BlockRef> + Clone + use<'a> {
        let (chunks, _) = self.ancestors.as_chunks();
        chunks.iter().map(BlockRef::from_bytes)
    }
    /// How many transactions it carries.
    pub const fn transaction_count(&self) -> u32 {
        self.transaction_count
    }
    /// Its transactions in order, as slices of the input. Where one shall outlive the view, `Bytes::slice_ref` makes
    /// it a slice that shares the block's buffer.
    pub const fn transactions(&self) -> Transactions<'a> {
        Transactions { cursor: Cursor::new(self.transactions) }
    }
    /// The commits that its author votes for.
    pub fn votes(&self) -> impl ExactSizeIterator<Item = CommitRef> + Clone + use<'a> {
        let (chunks, _) = self.votes.as_chunks();
        chunks.iter().map(CommitRef::from_bytes)
    }
    /// What it says about the end of its epoch.
    pub fn end_of_epoch(&self) -> Option<&EndOfEpochData> {
        self.end_of_epoch.as_deref()
    }
    /// The signature, of whatever length it has; 64 bytes in a valid block, none in a genesis block.
    pub const fn signature(&self) -> &'a [u8] {
        self.signature
    }
    /// The bytes that the signature covers: the encoding without the signature.
    pub const fn signed_bytes(&self) -> &'a [u8] {
        self.block
    }

    /// The votes, and what it says about the end of its epoch: what is kept of it beside its bytes.
    pub(crate) fn into_content(self) -> (Vec<CommitRef>, Option<Box<EndOfEpochData>>) {
        (self.votes().collect(), self.end_of_epoch)
    }

    /// What names the block.
    pub fn reference(&self) -> BlockRef {
        self.reference_and_message().0
    }

    /// What names the block and what its author signed, in one pass over the bytes.
    pub fn reference_and_message(&self) -> (BlockRef, [u8; SIGNING_MESSAGE_BYTES]) {
        let (inner, outer) = digest::hash_prefix_and_whole(self.block, self.tail);
        let reference = BlockRef {
            round: self.round,
            author: self.author,
            digest: BlockDigest::new(outer),
            epoch: self.epoch,
        };
        (reference, intent_message(INTENT, &inner))
    }
}

/// The transactions of a block, as slices of its encoding. Made by [`BlockView::transactions`].
#[derive(Clone, Debug)]
pub struct Transactions<'a> {
    cursor: Cursor<'a>,
}

impl<'a> Iterator for Transactions<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        // Decoding the block has read all of them, so the only error left is the end.
        self.cursor.byte_string().ok()
    }
}

/// What a block says about the end of its epoch.
///
/// The BLS signatures and keys in it are carried as bytes and not checked here: the block's digest is in a commit
/// that a quorum certified, and honest authorities check them before they vote (formats: Digests and signatures).
/// `BlockView::verify_bls` checks the signatures, and verification jobs do, with the feature `bls`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct EndOfEpochData {
    /// When the next epoch starts, in milliseconds since the Unix epoch.
    pub next_epoch_start_timestamp_ms: u64,
    /// The next epoch's validators.
    pub next_validator_set: Option<ValidatorSet>,
    /// Digest of the state at the end of the epoch.
    pub state_hash: Option<[u8; 32]>,
    /// The author's BLS signature on the validator set, over [`ValidatorSet::signing_message`].
    pub validator_set_signature: Option<[u8; 48]>,
    /// The aggregate of a quorum's BLS signatures on the validator set, over the same message.
    pub aggregate_signature: Option<[u8; 48]>,
}

impl EndOfEpochData {
    /// The next validator set, if the data is complete: set, author's signature and aggregate are all there. A commit
    /// with such a block is the last of its epoch.
    pub const fn complete(&self) -> Option<&ValidatorSet> {
        match (&self.next_validator_set, &self.validator_set_signature, &self.aggregate_signature) {
            (Some(set), Some(_), Some(_)) => Some(set),
            (_, _, _) => None,
        }
    }

    /// As [`EndOfEpochData::complete`], by value.
    pub(crate) fn into_complete(self) -> Option<ValidatorSet> {
        self.complete()?;
        self.next_validator_set
    }

    fn read(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            next_epoch_start_timestamp_ms: cursor.u64()?,
            next_validator_set: cursor.option(ValidatorSet::read)?,
            state_hash: cursor.option(Cursor::fixed_byte_string)?,
            validator_set_signature: cursor.option(Cursor::array)?,
            aggregate_signature: cursor.option(Cursor::array)?,
        })
    }

    fn write(&self, writer: &mut Writer) {
        writer.u64(self.next_epoch_start_timestamp_ms);
        writer.option(self.next_validator_set.as_ref(), |writer, set| set.write(writer));
        writer.option(self.state_hash.as_ref(), |writer, hash| writer.byte_string(hash));
        writer.option(self.validator_set_signature.as_ref(), |writer, signature| writer.raw(signature));
        writer.option(self.aggregate_signature.as_ref(), |writer, signature| writer.raw(signature));
    }
}

/// A block to be written: for whoever proposes blocks, such as a generator of chains. Nothing about it is checked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Block {
    /// Epoch whose committee the author belongs to.
    pub epoch: Epoch,
    /// Round that it is proposed in.
    pub round: Round,
    /// Who proposes it.
    pub author: AuthorityIndex,
    /// Milliseconds since the Unix epoch.
    pub timestamp_ms: u64,
    /// The blocks that it builds on, its author's own first.
    pub ancestors: Vec<BlockRef>,
    /// Its transactions.
    pub transactions: Vec<Bytes>,
    /// The commits that its author votes for.
    pub votes: Vec<CommitRef>,
    /// What it says about the end of its epoch.
    pub end_of_epoch: Option<EndOfEpochData>,
}

impl Block {
    /// The bytes that its author signs: the encoding without a signature.
    pub fn encode(&self) -> Vec<u8> {
        self.write(0).into_bytes()
    }

    /// The signed block. `sign` is given the signing message and returns the ed25519 signature, R and then S.
    pub fn sign(&self, sign: impl FnOnce(&[u8; SIGNING_MESSAGE_BYTES]) -> [u8; 64]) -> (BlockRef, Bytes) {
        let mut writer = self.write(65);
        let signature = sign(&signing_message(writer.as_bytes()));
        self.finish(&mut writer, &signature)
    }

    /// The block with an empty signature, as genesis blocks have.
    pub fn unsigned(&self) -> (BlockRef, Bytes) {
        self.finish(&mut self.write(1), &[])
    }

    fn finish(&self, writer: &mut Writer, signature: &[u8]) -> (BlockRef, Bytes) {
        writer.byte_string(signature);
        let bytes = core::mem::take(writer).into_bytes();
        let digest = BlockDigest::new(digest::hash(&bytes));
        let reference = BlockRef { round: self.round, author: self.author, digest, epoch: self.epoch };
        (reference, Bytes::from(bytes))
    }

    /// The encoding, with room for `extra` more bytes in the usual case.
    fn write(&self, extra: usize) -> Writer {
        let transactions = self.transactions.iter().map(|transaction| transaction.len().saturating_add(5));
        let capacity = transactions
            .chain([64, extra])
            .chain([self.ancestors.len().saturating_mul(BlockRef::BYTES)])
            .chain([self.votes.len().saturating_mul(CommitRef::BYTES)])
            .fold(0, usize::saturating_add);
        let mut writer = Writer::with_capacity(capacity);
        writer.u64(self.epoch.get());
        writer.u32(self.round.get());
        writer.u32(self.author.get());
        writer.u64(self.timestamp_ms);
        writer.items(&self.ancestors, |writer, ancestor| writer.raw(&ancestor.to_bytes()));
        writer.items(&self.transactions, |writer, transaction| writer.byte_string(transaction));
        writer.items(&self.votes, |writer, vote| writer.raw(&vote.to_bytes()));
        writer.option(self.end_of_epoch.as_ref(), |writer, data| data.write(writer));
        writer
    }
}

/// The message that the author of a block signs, from the block's encoding without a signature.
pub fn signing_message(block: &[u8]) -> [u8; SIGNING_MESSAGE_BYTES] {
    intent_message(INTENT, &digest::hash(block))
}

pub(crate) fn intent_message(intent: [u8; 3], inner: &[u8; 32]) -> [u8; SIGNING_MESSAGE_BYTES] {
    let mut message = [0; SIGNING_MESSAGE_BYTES];
    let (scope, digest) = message.split_at_mut(intent.len());
    scope.copy_from_slice(&intent);
    digest.copy_from_slice(inner);
    message
}

/// That an encoding is no larger than its limit.
pub(crate) fn check_size(bytes: &[u8], max: u64) -> Result<(), DecodeError> {
    let found = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    if found <= max { Ok(()) } else { Err(DecodeError::TooLarge { bytes: found, max }) }
}

/// What a cursor has read since `before` was its rest.
fn consumed<'a>(before: &'a [u8], cursor: &Cursor<'a>) -> &'a [u8] {
    let count = before.len().saturating_sub(cursor.rest().len());
    before.get(..count).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    /// Two ancestors of round 9, nothing else, from the original's vectors (`unequal_two_parents_quorum`).
    const SIGNED: &str = "00000000000000000a0000000000000040ea747f9501000002\
        090000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000\
        090000000300000003030303030303030303030303030303030303030303030303030303030303030000000000000000\
        000000\
        408a40e0ec26e8306d24386e3f53da9c911395ce598bee8c3a3713067a0170bd4fa040d5b55d171540680f8fa7c69c11\
        9a093f96e73b2bd5748e1c078c725f4703";
    const SIGNED_REF: &str = "0a000000000000008059e68d93e6a4785c6b65058eab6a289c3678038ecef6a1a272413c4f55c6d4\
        0000000000000000";
    const MESSAGE: &str = "01000033599fdb8792334ed016f6eea6ee9b557190460256e38ac17e5beda49e8b8523";

    fn limits() -> Limits {
        Limits::default()
    }

    fn ancestor(author: u32) -> BlockRef {
        BlockRef {
            round: Round::new(9),
            author: AuthorityIndex::new(author),
            digest: BlockDigest::new([u8::try_from(author).unwrap(); 32]),
            epoch: Epoch::ZERO,
        }
    }

    #[test]
    fn a_reference_is_round_author_digest_epoch() {
        let bytes = hex::decode(
            "0403020105000000abababababababababababababababababababababababababababababababab8877665544332211",
        );
        let reference = BlockRef {
            round: Round::new(0x0102_0304),
            author: AuthorityIndex::new(5),
            digest: BlockDigest::new([0xab; 32]),
            epoch: Epoch::new(0x1122_3344_5566_7788),
        };
        assert_eq!(reference.to_bytes()[..], bytes.unwrap());
        assert_eq!(BlockRef::from_bytes(&reference.to_bytes()), reference);
    }

    #[test]
    fn a_signed_block_is_read_and_written_byte_for_byte() {
        let bytes = hex::decode(SIGNED).unwrap();
        let view = BlockView::decode(&bytes, &limits()).unwrap();
        assert_eq!(view.ancestors().collect::<Vec<_>>(), [ancestor(0), ancestor(3)]);
        let (reference, message) = view.reference_and_message();
        assert_eq!(hex::encode(reference.to_bytes()), SIGNED_REF);
        assert_eq!(hex::encode(message), MESSAGE);
        let block = Block {
            round: Round::new(10),
            timestamp_ms: 1_741_600_123_456,
            ancestors: vec![ancestor(0), ancestor(3)],
            ..Block::default()
        };
        let signature = view.signature().try_into().unwrap();
        let signed = block.sign(|signed| {
            assert_eq!(*signed, message);
            signature
        });
        assert_eq!(signed, (reference, Bytes::from(bytes.clone())));
    }

    #[test]
    fn a_genesis_block_has_29_bytes() {
        let (reference, bytes) = Block { author: AuthorityIndex::new(1), ..Block::default() }.unsigned();
        assert_eq!(hex::encode(&bytes), "0000000000000000000000000100000000000000000000000000000000");
        let digest = "f5e8af6583fd5b382c33573cd5b2e56472253b2a9b793a58e309ceca407a733f";
        assert_eq!(hex::encode(reference.digest.as_bytes()), digest);
    }

    #[test]
    fn no_proper_prefix_of_a_block_decodes_and_nothing_may_follow_it() {
        let mut bytes = hex::decode(SIGNED).unwrap();
        for length in 0..bytes.len() {
            let refused = BlockView::decode(&bytes[..length], &limits()).unwrap_err();
            assert_eq!(refused, DecodeError::UnexpectedEnd, "{length}");
        }
        bytes.push(0);
        assert_eq!(BlockView::decode(&bytes, &limits()).unwrap_err(), DecodeError::Trailing { left: 1 });
    }

    #[test]
    fn limits_are_applied_to_every_sequence_and_to_the_whole() {
        let block = Block {
            ancestors: vec![ancestor(0); 2],
            transactions: vec![Bytes::new(); 2],
            votes: vec![CommitRef::GENESIS; 2],
            ..Block::default()
        };
        let (_, bytes) = block.unsigned();
        let refused = |change: fn(&mut Limits)| {
            let mut limits = limits();
            change(&mut limits);
            BlockView::decode(&bytes, &limits).unwrap_err()
        };
        let too_many = |items| DecodeError::TooMany { items, count: 2, max: 1 };
        assert_eq!(refused(|limits| limits.max_ancestors = 1), too_many(Items::Ancestors));
        assert_eq!(refused(|limits| limits.max_transactions_per_block = 1), too_many(Items::Transactions));
        assert_eq!(refused(|limits| limits.max_votes_per_block = 1), too_many(Items::Votes));
        let too_large = DecodeError::TooLarge { bytes: 199, max: 198 };
        assert_eq!(refused(|limits| limits.max_block_bytes = 198), too_large);
    }
}
