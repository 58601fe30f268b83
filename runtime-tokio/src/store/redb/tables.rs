//! The tables of the durable store, and the bytes of their records.
//!
//! The database does not notice bytes that changed in a file at rest. Commits and blocks are checked against their
//! digests; whatever else is read ends in a seal, eight bytes of a hash over the table's name, the key and the value.
//! Integers in values are little-endian. In keys of bytes they are big-endian, so that the order of keys is the order
//! in which records are written, or nearly.

use super::super::{
    Certifier, CommitHead, StoreError,
    rules::{State, UNLIMITED, damaged},
};
use blake2::{Blake2b256, Digest};
use bytes::Bytes;
use redb::{ReadableTable, TableDefinition};
use soma_sync_core::{
    committee::Committee,
    job::CommitHeader,
    payload::Payload,
    types::{
        AuthorityIndex, BlockDigest, BlockRef, ChainId, CommitDigest, CommitIndex, CommitRef, Epoch, Round,
    },
};
use std::fmt::Display;

/// The version of all that this file describes. A store of another one is refused.
pub(super) const VERSION: u32 = 1;

/// Version and state.
pub(super) const META: TableDefinition<&str, &[u8]> = TableDefinition::new("meta");
/// Epoch to validator set (BCS), sealed.
pub(super) const COMMITTEES: TableDefinition<u64, &[u8]> = TableDefinition::new("committees");
/// Index to head, sealed, and then the commit.
pub(super) const COMMITS: TableDefinition<u32, &[u8]> = TableDefinition::new("commits");
/// Reference to signed block.
pub(in crate::store) const BLOCKS: TableDefinition<&BlockKey, &[u8]> = TableDefinition::new("blocks");
/// References of blocks that no stored commit names.
pub(super) const LOOSE: TableDefinition<&BlockKey, ()> = TableDefinition::new("loose");
/// Every vote in a stored block, to the length of the block, sealed.
pub(in crate::store) const VOTES: TableDefinition<&VoteKey, &VoteValue> = TableDefinition::new("votes");

/// Epoch, round, author, digest.
pub(in crate::store) type BlockKey = [u8; 48];
/// Index and digest of the commit; epoch, author, round and digest of the block.
pub(in crate::store) type VoteKey = [u8; 84];
/// Length of the block, seal.
pub(in crate::store) type VoteValue = [u8; 12];

const VERSION_KEY: &str = "version";
const STATE_KEY: &str = "state";
const SEAL_BYTES: usize = 8;

/// What stands before a commit in its record: digest, epoch, timestamp, whether it ends its epoch, length, seal.
const HEAD_BYTES: usize = 32 + 8 + 8 + 1 + 4 + SEAL_BYTES;

/// The error for whatever the database reports.
pub(super) fn fault(error: impl Into<redb::Error>) -> StoreError {
    match error.into() {
        redb::Error::PreviousIo | redb::Error::DatabaseClosed => StoreError::Failed,
        redb::Error::Io(error) => StoreError::Io { path: super::FILE_NAME.into(), reason: error.to_string() },
        error => damaged(error.to_string()),
    }
}

fn seal(table: &str, key: &[u8], value: &[u8]) -> [u8; SEAL_BYTES] {
    let hash = Blake2b256::new().chain_update(table).chain_update(key).chain_update(value).finalize();
    std::array::from_fn(|position| hash[position])
}

/// The value before the seal that ends `sealed`.
fn unseal<'a>(table: &str, key: &[u8], sealed: &'a [u8], name: impl Display) -> Result<&'a [u8], StoreError> {
    match sealed.split_last_chunk::<SEAL_BYTES>() {
        Some((value, found)) if *found == seal(table, key, value) => Ok(value),
        _ => Err(damaged(format!("the record of {name} is not what was written"))),
    }
}

fn sealed(table: &str, key: &[u8], mut value: Vec<u8>) -> Vec<u8> {
    let seal = seal(table, key, &value);
    value.extend(seal);
    value
}

/// Takes fields off the front of a record.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    /// The next `N` bytes; zeros where the record is too short, which its length was checked for.
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let Some((field, rest)) = self.0.split_first_chunk::<N>() else { return [0; N] };
        self.0 = rest;
        *field
    }
}

pub(super) fn block_key(block: &BlockRef) -> BlockKey {
    let mut key = [0; 48];
    key[..8].copy_from_slice(&block.epoch.get().to_be_bytes());
    key[8..12].copy_from_slice(&block.round.get().to_be_bytes());
    key[12..16].copy_from_slice(&block.author.get().to_be_bytes());
    key[16..].copy_from_slice(block.digest.as_bytes());
    key
}

pub(super) fn block_ref(key: &BlockKey) -> BlockRef {
    let mut fields = Fields(key);
    BlockRef {
        epoch: Epoch::new(u64::from_be_bytes(fields.take())),
        round: Round::new(u32::from_be_bytes(fields.take())),
        author: AuthorityIndex::new(u32::from_be_bytes(fields.take())),
        digest: BlockDigest::new(fields.take()),
    }
}

/// The first key that a block of this epoch and round can have.
pub(super) fn first_block_key(epoch: Epoch, round: Round) -> BlockKey {
    block_key(&BlockRef { epoch, round, author: AuthorityIndex::ZERO, digest: BlockDigest::ZERO })
}

pub(super) fn vote_key(vote: &CommitRef, block: &BlockRef) -> VoteKey {
    let mut key = [0; 84];
    key[..4].copy_from_slice(&vote.index.get().to_be_bytes());
    key[4..36].copy_from_slice(vote.digest.as_bytes());
    key[36..44].copy_from_slice(&block.epoch.get().to_be_bytes());
    key[44..48].copy_from_slice(&block.author.get().to_be_bytes());
    key[48..52].copy_from_slice(&block.round.get().to_be_bytes());
    key[52..].copy_from_slice(block.digest.as_bytes());
    key
}

/// The first key that a vote for a commit at or above `index` can have.
pub(super) fn first_vote_key(index: CommitIndex) -> VoteKey {
    let mut key = [0; 84];
    key[..4].copy_from_slice(&index.get().to_be_bytes());
    key
}

pub(super) fn vote_value(key: &VoteKey, block_bytes: u32) -> VoteValue {
    let mut value = [0; 12];
    let (len, end) = value.split_at_mut(4);
    len.copy_from_slice(&block_bytes.to_le_bytes());
    end.copy_from_slice(&seal("votes", key, len));
    value
}

/// See [`View::next_vote`](super::super::rules::View::next_vote).
pub(super) fn next_vote(
    table: &impl ReadableTable<&'static VoteKey, &'static VoteValue>,
    commit: &CommitRef,
    epoch: Epoch,
    from: AuthorityIndex,
) -> Result<Option<Certifier>, StoreError> {
    let first = BlockRef { round: Round::ZERO, author: from, digest: BlockDigest::ZERO, epoch };
    let last = BlockRef {
        round: Round::MAX,
        author: AuthorityIndex::MAX,
        digest: BlockDigest::new([0xff; 32]),
        epoch,
    };
    let (first, last) = (vote_key(commit, &first), vote_key(commit, &last));
    let Some(entry) = table.range::<&VoteKey>(&first..=&last).map_err(fault)?.next() else { return Ok(None) };
    let (key, value) = entry.map_err(fault)?;
    let (key, value) = (key.value(), value.value());
    let mut len = Fields(unseal("votes", key, value, format_args!("a vote for {commit}"))?);
    let mut fields = Fields(key.split_at(44).1);
    let (author, round, digest) = (fields.take(), fields.take(), fields.take());
    let block = BlockRef {
        round: Round::new(u32::from_be_bytes(round)),
        author: AuthorityIndex::new(u32::from_be_bytes(author)),
        digest: BlockDigest::new(digest),
        epoch,
    };
    Ok(Some(Certifier { block, bytes: u32::from_le_bytes(len.take()) }))
}

pub(super) fn commit_record(head: &CommitHead, commit: &[u8]) -> Vec<u8> {
    let mut record = Vec::with_capacity(HEAD_BYTES + commit.len());
    record.extend(head.reference.digest.as_bytes());
    record.extend(head.epoch.get().to_le_bytes());
    record.extend(head.timestamp_ms.to_le_bytes());
    record.push(u8::from(head.ends_epoch));
    record.extend(head.bytes.to_le_bytes());
    let mut record = sealed("commits", &head.reference.index.get().to_be_bytes(), record);
    record.extend(commit);
    record
}

/// The head in a commit's record, and the commit.
fn split_commit_record(index: CommitIndex, record: &[u8]) -> Result<(CommitHead, &[u8]), StoreError> {
    let Some((head, commit)) = record.split_at_checked(HEAD_BYTES) else {
        return Err(damaged(format!("the record of commit {index} is cut short")));
    };
    let mut fields =
        Fields(unseal("commits", &index.get().to_be_bytes(), head, format_args!("commit {index}"))?);
    let digest = CommitDigest::new(fields.take());
    let epoch = Epoch::new(u64::from_le_bytes(fields.take()));
    let timestamp_ms = u64::from_le_bytes(fields.take());
    let ends_epoch = fields.take() == [1];
    let bytes = u32::from_le_bytes(fields.take());
    let reference = CommitRef { index, digest };
    Ok((CommitHead { reference, epoch, timestamp_ms, ends_epoch, bytes }, commit))
}

/// What is known of the commit at an index. Reads the front of its record.
pub(super) fn read_head(
    table: &impl ReadableTable<u32, &'static [u8]>,
    index: CommitIndex,
) -> Result<Option<CommitHead>, StoreError> {
    let Some(record) = table.get(index.get()).map_err(fault)? else { return Ok(None) };
    split_commit_record(index, record.value()).map(|(head, _)| Some(head))
}

/// The commit at an index, decoded, and found to have the digest that it was stored under.
pub(super) fn read_commit(
    table: &impl ReadableTable<u32, &'static [u8]>,
    index: CommitIndex,
) -> Result<Option<CommitHeader>, StoreError> {
    let Some(record) = table.get(index.get()).map_err(fault)? else { return Ok(None) };
    let (head, commit) = split_commit_record(index, record.value())?;
    let payload = Payload::new(Bytes::copy_from_slice(commit));
    match CommitHeader::decode(payload, &UNLIMITED) {
        Ok(commit) if commit.reference == head.reference => Ok(Some(commit)),
        _ => Err(damaged(format!("{} is not what was written", head.reference))),
    }
}

/// A block, found to have the digest that it was stored under.
pub(super) fn read_block(
    table: &impl ReadableTable<&'static BlockKey, &'static [u8]>,
    reference: &BlockRef,
) -> Result<Option<Payload>, StoreError> {
    let Some(block) = table.get(&block_key(reference)).map_err(fault)? else { return Ok(None) };
    let block = Bytes::copy_from_slice(block.value());
    if Blake2b256::digest(&block).as_slice() != reference.digest.as_bytes() {
        return Err(damaged(format!("{reference} is not what was written")));
    }
    Ok(Some(Payload::new(block)))
}

pub(super) fn committee_record(committee: &Committee) -> Vec<u8> {
    sealed("committees", &committee.epoch().get().to_be_bytes(), committee.encoding().to_vec())
}

/// The committee of an epoch, where it is known.
pub(super) fn read_committee(
    table: &impl ReadableTable<u64, &'static [u8]>,
    epoch: Epoch,
) -> Result<Option<Committee>, StoreError> {
    let Some(record) = table.get(epoch.get()).map_err(fault)? else { return Ok(None) };
    let name = format_args!("the committee of epoch {epoch}");
    let encoding = unseal("committees", &epoch.get().to_be_bytes(), record.value(), name)?;
    let committee = Committee::decode(epoch, encoding, &UNLIMITED);
    committee.map(Some).map_err(|error| damaged(format!("the committee of epoch {epoch}: {error}")))
}

pub(super) fn version_record() -> (&'static str, [u8; 4]) {
    (VERSION_KEY, VERSION.to_le_bytes())
}

/// The version that the store says it has.
pub(super) fn read_version(
    table: &impl ReadableTable<&'static str, &'static [u8]>,
) -> Result<Option<u32>, StoreError> {
    let record = table.get(VERSION_KEY).map_err(fault)?;
    Ok(record.and_then(|record| record.value().try_into().ok()).map(u32::from_le_bytes))
}

pub(super) fn state_record(state: &State) -> (&'static str, Vec<u8>) {
    let mut record = Vec::new();
    record.extend(state.chain_id.as_bytes());
    record.extend(state.genesis_epoch.get().to_le_bytes());
    record.extend(state.tip.to_bytes());
    record.extend(state.lowest.get().to_le_bytes());
    (STATE_KEY, sealed("meta", STATE_KEY.as_bytes(), record))
}

/// How far the store is.
pub(super) fn read_state(
    table: &impl ReadableTable<&'static str, &'static [u8]>,
) -> Result<State, StoreError> {
    let record = table.get(STATE_KEY).map_err(fault)?.ok_or_else(|| damaged("the store's state is gone"))?;
    let mut fields = Fields(unseal("meta", STATE_KEY.as_bytes(), record.value(), "the store's state")?);
    Ok(State {
        chain_id: ChainId::new(fields.take()),
        genesis_epoch: Epoch::new(u64::from_le_bytes(fields.take())),
        tip: CommitRef::from_bytes(&fields.take()),
        lowest: CommitIndex::new(u32::from_le_bytes(fields.take())),
    })
}
