//! The formats once more, as plain structs that `serde` and the `bcs` crate encode and decode: an independent opinion
//! on every byte. Also generators of arbitrary values, and a judge of what they hold.

pub mod judge;

use bytes::Bytes;
use proptest::{collection::vec, option, prelude::*};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use soma_sync_core::{
    block as ours,
    commit::Commit as OurCommit,
    committee as set,
    types::{self, AuthorityIndex, CommitIndex, Epoch, Round, Stake},
};

/// Bytes without a length, as a tuple of bytes has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Raw<const N: usize>(pub [u8; N]);

impl<const N: usize> Serialize for Raw<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeTuple as _;
        let mut tuple = serializer.serialize_tuple(N)?;
        for byte in &self.0 {
            tuple.serialize_element(byte)?;
        }
        tuple.end()
    }
}

impl<'de, const N: usize> Deserialize<'de> for Raw<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor<const N: usize>;
        impl<'de, const N: usize> serde::de::Visitor<'de> for Visitor<N> {
            type Value = Raw<N>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{N} bytes")
            }
            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut bytes: A) -> Result<Raw<N>, A::Error> {
                let mut raw = [0; N];
                for (position, byte) in raw.iter_mut().enumerate() {
                    let next = bytes.next_element()?;
                    *byte = next.ok_or_else(|| serde::de::Error::invalid_length(position, &self))?;
                }
                Ok(Raw(raw))
            }
        }
        deserializer.deserialize_tuple(N, Visitor)
    }
}

/// A byte string that must be `N` bytes long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sized<const N: usize>(pub [u8; N]);

impl<const N: usize> Serialize for Sized<N> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.to_vec().serialize(serializer)
    }
}

impl<'de, const N: usize> Deserialize<'de> for Sized<N> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let bytes = Vec::<u8>::deserialize(deserializer)?;
        let found = bytes.len();
        bytes.try_into().map(Self).map_err(|_| serde::de::Error::invalid_length(found, &"another length"))
    }
}

/// A block reference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockRef {
    round: u32,
    author: u32,
    digest: Raw<32>,
    epoch: u64,
}

/// A commit reference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitRef {
    index: u32,
    digest: Raw<32>,
}

/// How an authority is reached, and its keys.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NetworkMetadata {
    consensus_address: String,
    network_address: String,
    primary_address: String,
    protocol_key: Raw<32>,
    network_key: Raw<32>,
    authority_key: Raw<96>,
    hostname: String,
}

/// A validator set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ValidatorSet(Vec<(Sized<96>, u64, NetworkMetadata)>);

/// End-of-epoch data.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndOfEpochData {
    next_epoch_start_timestamp_ms: u64,
    next_validator_set: Option<ValidatorSet>,
    state_hash: Option<Sized<32>>,
    validator_set_signature: Option<Raw<48>>,
    aggregate_signature: Option<Raw<48>>,
}

/// A block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    epoch: u64,
    round: u32,
    author: u32,
    timestamp_ms: u64,
    ancestors: Vec<BlockRef>,
    transactions: Vec<Vec<u8>>,
    commit_votes: Vec<CommitRef>,
    end_of_epoch_data: Option<EndOfEpochData>,
}

/// A signed block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedBlock {
    /// The block.
    pub block: Block,
    /// The signature.
    pub signature: Vec<u8>,
}

/// A commit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    index: u32,
    previous_digest: Raw<32>,
    timestamp_ms: u64,
    leader: BlockRef,
    blocks: Vec<BlockRef>,
    epoch: u64,
}

impl From<types::BlockRef> for BlockRef {
    fn from(ours: types::BlockRef) -> Self {
        Self {
            round: ours.round.get(),
            author: ours.author.get(),
            digest: Raw(*ours.digest.as_bytes()),
            epoch: ours.epoch.get(),
        }
    }
}

impl From<types::CommitRef> for CommitRef {
    fn from(ours: types::CommitRef) -> Self {
        Self { index: ours.index.get(), digest: Raw(*ours.digest.as_bytes()) }
    }
}

impl From<&set::ValidatorSet> for ValidatorSet {
    fn from(ours: &set::ValidatorSet) -> Self {
        let authority = |authority: &set::Authority| {
            let metadata = authority.metadata.clone();
            let metadata = NetworkMetadata {
                consensus_address: metadata.consensus_address,
                network_address: metadata.network_address,
                primary_address: metadata.primary_address,
                protocol_key: Raw(metadata.protocol_key),
                network_key: Raw(metadata.network_key),
                authority_key: Raw(metadata.authority_key),
                hostname: metadata.hostname,
            };
            (Sized(*authority.name.as_bytes()), authority.stake.get(), metadata)
        };
        Self(ours.authorities.iter().map(authority).collect())
    }
}

impl From<&ours::EndOfEpochData> for EndOfEpochData {
    fn from(ours: &ours::EndOfEpochData) -> Self {
        Self {
            next_epoch_start_timestamp_ms: ours.next_epoch_start_timestamp_ms,
            next_validator_set: ours.next_validator_set.as_ref().map(ValidatorSet::from),
            state_hash: ours.state_hash.map(Sized),
            validator_set_signature: ours.validator_set_signature.map(Raw),
            aggregate_signature: ours.aggregate_signature.map(Raw),
        }
    }
}

impl From<&ours::Block> for Block {
    fn from(ours: &ours::Block) -> Self {
        Self {
            epoch: ours.epoch.get(),
            round: ours.round.get(),
            author: ours.author.get(),
            timestamp_ms: ours.timestamp_ms,
            ancestors: ours.ancestors.iter().copied().map(BlockRef::from).collect(),
            transactions: ours.transactions.iter().map(|transaction| transaction.to_vec()).collect(),
            commit_votes: ours.votes.iter().copied().map(CommitRef::from).collect(),
            end_of_epoch_data: ours.end_of_epoch.as_ref().map(EndOfEpochData::from),
        }
    }
}

impl From<&ours::BlockView<'_>> for SignedBlock {
    fn from(view: &ours::BlockView<'_>) -> Self {
        Self { block: Block::from(&owned(view)), signature: view.signature().to_vec() }
    }
}

impl From<&OurCommit> for Commit {
    fn from(ours: &OurCommit) -> Self {
        Self {
            index: ours.index.get(),
            previous_digest: Raw(*ours.previous.as_bytes()),
            timestamp_ms: ours.timestamp_ms,
            leader: ours.leader.into(),
            blocks: ours.blocks.iter().copied().map(BlockRef::from).collect(),
            epoch: ours.epoch.get(),
        }
    }
}

/// A decoded block as one that can be written again.
pub fn owned(view: &ours::BlockView<'_>) -> ours::Block {
    let transactions: Vec<_> = view.transactions().map(Bytes::copy_from_slice).collect();
    assert_eq!(transactions.len(), view.transaction_count() as usize, "transactions lost");
    ours::Block {
        epoch: view.epoch(),
        round: view.round(),
        author: view.author(),
        timestamp_ms: view.timestamp_ms(),
        ancestors: view.ancestors().collect(),
        transactions,
        votes: view.votes().collect(),
        end_of_epoch: view.end_of_epoch().cloned(),
    }
}

/// Any block reference.
pub fn any_block_ref() -> impl Strategy<Value = types::BlockRef> {
    any::<[u8; 48]>().prop_map(|bytes| types::BlockRef::from_bytes(&bytes))
}

/// Any commit reference.
pub fn any_commit_ref() -> impl Strategy<Value = types::CommitRef> {
    any::<[u8; 36]>().prop_map(|bytes| types::CommitRef::from_bytes(&bytes))
}

/// Any validator set of at most three, valid or not.
pub fn any_validator_set() -> impl Strategy<Value = set::ValidatorSet> {
    let keys = (any::<[u8; 32]>(), any::<[u8; 32]>(), any::<[u8; 96]>());
    let addresses = (".{0,9}", ".{0,9}", ".{0,150}", ".{0,9}");
    let authority = (any::<[u8; 96]>(), any::<u64>(), keys, addresses).prop_map(
        |(
            name,
            stake,
            (protocol_key, network_key, authority_key),
            (consensus, network, primary, hostname),
        )| {
            set::Authority {
                name: set::AuthorityName::new(name),
                stake: Stake::new(stake),
                metadata: set::NetworkMetadata {
                    consensus_address: consensus,
                    network_address: network,
                    primary_address: primary,
                    protocol_key,
                    network_key,
                    authority_key,
                    hostname,
                },
            }
        },
    );
    vec(authority, 0..4).prop_map(|authorities| set::ValidatorSet { authorities })
}

/// Any end-of-epoch data.
pub fn any_end_of_epoch() -> impl Strategy<Value = ours::EndOfEpochData> {
    let signature = || option::of(any::<[u8; 48]>());
    let state_hash = option::of(any::<[u8; 32]>());
    (any::<u64>(), option::of(any_validator_set()), state_hash, signature(), signature()).prop_map(
        |(start, set, state_hash, signature, aggregate)| ours::EndOfEpochData {
            next_epoch_start_timestamp_ms: start,
            next_validator_set: set,
            state_hash,
            validator_set_signature: signature,
            aggregate_signature: aggregate,
        },
    )
}

/// Any block, valid or not.
pub fn any_block() -> impl Strategy<Value = ours::Block> {
    let header = (any::<u64>(), any::<u32>(), any::<u32>(), any::<u64>());
    let transactions = vec(vec(any::<u8>(), 0..200), 0..9);
    let votes = vec(any_commit_ref(), 0..9);
    (header, vec(any_block_ref(), 0..9), transactions, votes, option::of(any_end_of_epoch())).prop_map(
        |((epoch, round, author, timestamp_ms), ancestors, transactions, votes, end_of_epoch)| ours::Block {
            epoch: Epoch::new(epoch),
            round: Round::new(round),
            author: AuthorityIndex::new(author),
            timestamp_ms,
            ancestors,
            transactions: transactions.into_iter().map(Bytes::from).collect(),
            votes,
            end_of_epoch,
        },
    )
}

/// Any commit, valid or not.
pub fn any_commit() -> impl Strategy<Value = OurCommit> {
    let header = (any_commit_ref(), any::<u64>(), any_block_ref(), any::<u64>());
    (header, vec(any_block_ref(), 0..200)).prop_map(|((previous, timestamp_ms, leader, epoch), blocks)| {
        OurCommit {
            index: CommitIndex::new(previous.index.get()),
            previous: previous.digest,
            timestamp_ms,
            leader,
            blocks,
            epoch: Epoch::new(epoch),
        }
    })
}
