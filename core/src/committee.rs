//! Committees: who may vote in an epoch, with how much stake and by which key.
//!
//! An authority's index is its position after sorting by name; stakes sum to [`TOTAL_STAKE`] and a quorum is
//! [`QUORUM_STAKE`], whatever the committee's size (formats: Committees).

#[cfg(test)]
pub(crate) mod tests;

use crate::{
    bcs::{Cursor, DecodeError, Writer},
    block::{Block, SIGNING_MESSAGE_BYTES, intent_message},
    bug::{Bug, has},
    config::Limits,
    defence::{Defence, stands},
    digest,
    types::{AuthorityIndex, BlockRef, ChainId, Epoch, Stake},
};
use alloc::{boxed::Box, string::String, vec::Vec};
use bytes::Bytes;
use core::{
    fmt,
    hash::{Hash, Hasher},
};

/// What the stakes of every committee sum to.
pub const TOTAL_STAKE: Stake = Stake::new(10_000);
/// The stake that makes a quorum: more than two thirds.
pub const QUORUM_STAKE: Stake = Stake::new(6_667);
/// The stake that holds at least one honest authority: more than a third.
pub const VALIDITY_STAKE: Stake = Stake::new(3_334);

/// Scope validator set, version 0, application consensus.
const INTENT: [u8; 3] = [6, 0, 0];

/// An authority's name: its BLS public key, 96 bytes. Authorities are ordered by it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AuthorityName([u8; 96]);

impl AuthorityName {
    /// Wraps the raw bytes. They need not be a point of the curve.
    pub const fn new(bytes: [u8; 96]) -> Self {
        Self(bytes)
    }
    /// The raw bytes.
    pub const fn as_bytes(&self) -> &[u8; 96] {
        &self.0
    }
}

/// The first four bytes: enough to tell two apart in a log.
impl fmt::Debug for AuthorityName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().take(4).try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// How an authority is reached, and its keys. Addresses are text that is not interpreted here.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NetworkMetadata {
    /// Where its consensus listens.
    pub consensus_address: String,
    /// Where its network service listens.
    pub network_address: String,
    /// Where its primary listens.
    pub primary_address: String,
    /// The ed25519 key that it signs blocks with.
    pub protocol_key: [u8; 32],
    /// The ed25519 key of its network identity.
    pub network_key: [u8; 32],
    /// Its BLS public key. Checked with the feature `bls` only.
    pub authority_key: [u8; 96],
    /// A name for people.
    pub hostname: String,
}

/// One member of a validator set.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Authority {
    /// Its name.
    pub name: AuthorityName,
    /// Its voting power.
    pub stake: Stake,
    /// How it is reached, and its keys.
    pub metadata: NetworkMetadata,
}

/// Validators as an encoding has them, in any order. Nothing about them is checked; [`Committee::new`] does that.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ValidatorSet {
    /// The members.
    pub authorities: Vec<Authority>,
}

impl ValidatorSet {
    /// Decodes a whole validator set. What it allocates is bounded by a small multiple of the bytes given.
    ///
    /// # Errors
    ///
    /// Whatever is not the one encoding of a validator set, with nothing left over.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut cursor = Cursor::new(bytes);
        let set = Self::read(&mut cursor)?;
        cursor.finish()?;
        Ok(set)
    }

    /// The encoding.
    pub fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::default();
        self.write(&mut writer);
        writer.into_bytes()
    }

    /// The message that an authority signs with its BLS key to agree that these are the next validators: the intent
    /// and the digest of the encoding.
    pub fn signing_message(&self) -> [u8; SIGNING_MESSAGE_BYTES] {
        intent_message(INTENT, &digest::hash(&self.encode()))
    }

    pub(crate) fn read(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        let count = cursor.length()?;
        // Grown as authorities are read, never by the count: each one stands for at least 269 bytes of input.
        let mut authorities = Vec::new();
        for _ in 0..count {
            authorities.push(Authority::read(cursor)?);
        }
        Ok(Self { authorities })
    }

    pub(crate) fn write(&self, writer: &mut Writer) {
        writer.items(&self.authorities, |writer, authority| authority.write(writer));
    }
}

impl Authority {
    fn read(cursor: &mut Cursor<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            name: AuthorityName(cursor.fixed_byte_string()?),
            stake: Stake::new(cursor.u64()?),
            metadata: NetworkMetadata {
                consensus_address: cursor.string()?.into(),
                network_address: cursor.string()?.into(),
                primary_address: cursor.string()?.into(),
                protocol_key: cursor.array()?,
                network_key: cursor.array()?,
                authority_key: cursor.array()?,
                hostname: cursor.string()?.into(),
            },
        })
    }

    fn write(&self, writer: &mut Writer) {
        let metadata = &self.metadata;
        writer.byte_string(&self.name.0);
        writer.u64(self.stake.get());
        writer.byte_string(metadata.consensus_address.as_bytes());
        writer.byte_string(metadata.network_address.as_bytes());
        writer.byte_string(metadata.primary_address.as_bytes());
        writer.raw(&metadata.protocol_key);
        writer.raw(&metadata.network_key);
        writer.raw(&metadata.authority_key);
        writer.byte_string(metadata.hostname.as_bytes());
    }
}

/// Why no committee can be made of a validator set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, thiserror::Error)]
pub enum InvalidNextCommittee {
    /// It has no members.
    #[error("it is empty")]
    Empty,
    /// It has more members than the limits allow ancestors in a block.
    #[error("it has {count} members, and at most {max} are allowed")]
    TooMany {
        /// Members.
        count: u64,
        /// The limit.
        max: u32,
    },
    /// Two members have one name.
    #[error("members {} and {second} have the same name", second.get().saturating_sub(1))]
    DuplicateName {
        /// Position of the second one, in the order of names.
        second: AuthorityIndex,
    },
    /// The stakes do not sum to [`TOTAL_STAKE`].
    #[error("the stakes sum to {sum}, not to 10000")]
    Stake {
        /// What they sum to; the largest number where it does not fit.
        sum: Stake,
    },
    /// An ed25519 key is no point of the curve. Found only where verification is built in.
    #[error("an ed25519 key of member {authority} is no point of the curve")]
    Key {
        /// Whose.
        authority: AuthorityIndex,
    },
    /// A BLS key is no point of the group, or the neutral one. Found only with the feature `bls`.
    #[error("the BLS key of member {authority} is no point of the group")]
    AuthorityKey {
        /// Whose.
        authority: AuthorityIndex,
    },
    /// There is no epoch after the one that it would follow.
    #[error("there is no epoch after the last one")]
    NoNextEpoch,
}
saved! { enum InvalidNextCommittee {
    0 => Empty, 1 => TooMany { count, max }, 2 => DuplicateName { second }, 3 => Stake { sum },
    4 => Key { authority }, 5 => AuthorityKey { authority }, 6 => NoNextEpoch,
} }

/// Why bytes are not a committee.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum CommitteeError {
    /// They are not the encoding of a validator set.
    #[error("the validator set does not decode: {0}")]
    Decode(DecodeError),
    /// No committee can be made of the validator set.
    #[error("the validator set is invalid: {0}")]
    Invalid(InvalidNextCommittee),
}

/// The authorities of one epoch, in index order.
///
/// Two committees are equal when epoch and validators are; equality and hashing look at the epoch and the digest of
/// the validators' encoding alone.
#[derive(Clone)]
pub struct Committee {
    epoch: Epoch,
    authorities: Box<[Authority]>,
    genesis: Box<[BlockRef]>,
    encoding: Bytes,
    digest: [u8; 32],
}

impl Committee {
    /// The committee of `epoch` that these validators make, in whatever order they are given.
    ///
    /// # Errors
    ///
    /// When it is empty or larger than `limits.max_ancestors`, when names repeat, stakes do not sum to
    /// [`TOTAL_STAKE`], an ed25519 key does not decompress (checked with the feature `verify` only), or a BLS key is no
    /// point of the group (with the feature `bls` only). A name is not checked beyond that it is the only one.
    pub fn new(epoch: Epoch, set: ValidatorSet, limits: &Limits) -> Result<Self, InvalidNextCommittee> {
        let mut set = set;
        let count = u64::try_from(set.authorities.len()).unwrap_or(u64::MAX);
        if count == 0 {
            return Err(InvalidNextCommittee::Empty);
        }
        if count > u64::from(limits.max_ancestors) {
            return Err(InvalidNextCommittee::TooMany { count, max: limits.max_ancestors });
        }
        set.authorities.sort_by_key(|authority| authority.name);
        check_members(&set.authorities)?;
        let encoding = set.encode();
        let genesis = (0..).map(AuthorityIndex::new).zip(&set.authorities);
        Ok(Self {
            epoch,
            genesis: genesis.map(|(author, _)| genesis_reference(epoch, author)).collect(),
            authorities: set.authorities.into_boxed_slice(),
            digest: digest::hash(&encoding),
            encoding: Bytes::from(encoding),
        })
    }

    /// The committee of `epoch` whose validators these bytes encode.
    ///
    /// # Errors
    ///
    /// When they do not decode, and whenever [`Committee::new`] fails.
    pub fn decode(epoch: Epoch, validator_set: &[u8], limits: &Limits) -> Result<Self, CommitteeError> {
        let set = ValidatorSet::decode(validator_set).map_err(CommitteeError::Decode)?;
        Self::new(epoch, set, limits).map_err(CommitteeError::Invalid)
    }

    /// Its epoch.
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }
    /// Number of authorities, at least 1.
    pub const fn size(&self) -> usize {
        self.authorities.len()
    }
    /// The authorities in index order.
    pub fn authorities(&self) -> impl ExactSizeIterator<Item = (AuthorityIndex, &Authority)> {
        // A committee has at most `Limits::max_ancestors` members, a u32.
        self.authorities.iter().enumerate().map(|(position, authority)| {
            (AuthorityIndex::new(u32::try_from(position).unwrap_or(u32::MAX)), authority)
        })
    }
    /// One authority.
    pub fn authority(&self, index: AuthorityIndex) -> Option<&Authority> {
        self.authorities.get(index.position())
    }
    /// An authority's stake.
    pub fn stake(&self, index: AuthorityIndex) -> Option<Stake> {
        self.authority(index).map(|authority| authority.stake)
    }
    /// The stake that makes a quorum.
    pub const fn quorum(&self) -> Stake {
        QUORUM_STAKE
    }
    /// The reference of an authority's genesis block: round 0, empty, unsigned, never sent.
    pub fn genesis(&self, index: AuthorityIndex) -> Option<BlockRef> {
        self.genesis.get(index.position()).copied()
    }
    /// The encoding of its validators in index order, as chain files and stores hold it.
    pub const fn encoding(&self) -> &Bytes {
        &self.encoding
    }
    /// The identity of the chain whose genesis committee this is: the hash of [`Committee::encoding`].
    pub const fn chain_id(&self) -> ChainId {
        ChainId::new(self.digest)
    }
}

/// Names, stakes and keys of authorities that are sorted by name.
fn check_members(authorities: &[Authority]) -> Result<(), InvalidNextCommittee> {
    let mut previous = None;
    let mut sum = Stake::ZERO;
    for (authority, index) in authorities.iter().zip((0..).map(AuthorityIndex::new)) {
        if previous == Some(authority.name) {
            return Err(InvalidNextCommittee::DuplicateName { second: index });
        }
        previous = Some(authority.name);
        sum = sum.saturating_add(authority.stake.get());
    }
    if sum != TOTAL_STAKE {
        return Err(InvalidNextCommittee::Stake { sum });
    }
    check_keys(authorities)
}

#[cfg(feature = "verify")]
fn check_keys(authorities: &[Authority]) -> Result<(), InvalidNextCommittee> {
    for (authority, index) in authorities.iter().zip((0..).map(AuthorityIndex::new)) {
        let keys = [&authority.metadata.protocol_key, &authority.metadata.network_key];
        if !keys.into_iter().all(crate::signature::is_key) {
            return Err(InvalidNextCommittee::Key { authority: index });
        }
        #[cfg(feature = "bls")]
        crate::bls::check_key(&authority.metadata.authority_key, index)?;
    }
    Ok(())
}

#[cfg(not(feature = "verify"))]
const fn check_keys(_authorities: &[Authority]) -> Result<(), InvalidNextCommittee> {
    Ok(())
}

fn genesis_reference(epoch: Epoch, author: AuthorityIndex) -> BlockRef {
    let (reference, _) = Block { epoch, author, ..Block::default() }.unsigned();
    reference
}

impl PartialEq for Committee {
    fn eq(&self, other: &Self) -> bool {
        (self.epoch, self.digest) == (other.epoch, other.digest)
    }
}
impl Eq for Committee {}

impl Hash for Committee {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.epoch, self.digest).hash(state);
    }
}

impl fmt::Debug for Committee {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Committee(epoch {}, {} authorities, {:?})", self.epoch, self.size(), self.chain_id())
    }
}

/// Stake of distinct authorities of one committee: each counts once, however often it is added.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StakeTally {
    /// A bit an authority, grown as far as needed; never longer than the committee.
    counted: Vec<u64>,
    stake: Stake,
}
saved! { struct StakeTally { counted, stake } }

impl Hash for StakeTally {
    /// Word by word: slices of integers are hashed as the platform has them.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.counted.len().hash(state);
        self.counted.iter().for_each(|word| word.hash(state));
        self.stake.hash(state);
    }
}

impl StakeTally {
    /// An empty tally.
    pub const fn new() -> Self {
        Self { counted: Vec::new(), stake: Stake::ZERO }
    }

    /// Counts an authority's stake. `false`, and nothing changes, if it was counted before or is not in the committee.
    pub fn add(&mut self, index: AuthorityIndex, committee: &Committee) -> bool {
        let Some(stake) = committee.stake(index) else {
            return false;
        };
        let (word, bit) = word_and_bit(index);
        if self.counted.len() <= word {
            self.counted.resize(word.saturating_add(1), 0);
        }
        match self.counted.get_mut(word) {
            Some(bits) if *bits & bit == 0 || !stands(Defence::StakeOnce) => {
                *bits |= bit;
                self.stake = self.stake.saturating_add(stake.get());
                true
            }
            Some(_) | None => false,
        }
    }

    /// Whether an authority has been counted.
    pub fn contains(&self, index: AuthorityIndex) -> bool {
        let (word, bit) = word_and_bit(index);
        self.counted.get(word).is_some_and(|bits| bits & bit != 0)
    }

    /// The stake of those counted.
    pub const fn stake(&self) -> Stake {
        self.stake
    }

    /// Whether those counted are a quorum.
    pub fn reached_quorum(&self) -> bool {
        let quorum = if has(Bug::QuorumOfAThird) { VALIDITY_STAKE } else { QUORUM_STAKE };
        self.stake >= quorum.saturating_add(u64::from(has(Bug::QuorumAndOne)))
    }
}

/// Where the bit of an authority is.
const fn word_and_bit(index: AuthorityIndex) -> (usize, u64) {
    (index.position() >> 6, 1_u64.wrapping_shl(index.get() & 63))
}
