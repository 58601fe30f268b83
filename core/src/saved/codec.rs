//! How values are written one after the other, and read back.

use crate::{
    bcs::{Cursor, DecodeError},
    committee::{Committee, CommitteeError, InvalidNextCommittee},
    config::{Config, ConfigError, Limits},
    payload::Payload,
    types::{BlockRef, CommitRange, Epoch},
};
use alloc::{
    boxed::Box,
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    vec::Vec,
};
use core::time::Duration;

/// Why bytes are not taken for a machine's state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// They were saved by a version whose machine is laid out differently.
    #[error("the state is of layout {found}, and this version reads layout {expected}")]
    Layout {
        /// Its layout.
        found: u32,
        /// Ours.
        expected: u32,
    },
    /// They do not decode.
    #[error("the state does not decode: {0}")]
    Decode(#[from] DecodeError),
    /// They decode to what no state has.
    #[error("the state is damaged: {0}")]
    Damaged(&'static str),
    /// They hold a committee that is none.
    #[error("the state holds an invalid committee: {0}")]
    Committee(InvalidNextCommittee),
    /// The configuration in them cannot work.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The machine would not be sound: what [`check_invariants`](crate::SyncMachine::check_invariants) says.
    #[error("the state does not hang together: {0}")]
    Inconsistent(&'static str),
}

type Restored<T> = Result<T, RestoreError>;

/// What has an encoding in a state.
pub(crate) trait Saved: Sized {
    fn save(&self, to: &mut Saver);
    fn restore(from: &mut Restorer<'_>) -> Restored<Self>;
}

/// Writes values one after the other.
#[derive(Default)]
pub(crate) struct Saver {
    bytes: Vec<u8>,
    /// The committees that were written, and which number each has.
    committees: BTreeMap<(Epoch, [u8; 32]), u64>,
}

/// Reads values one after the other.
pub(crate) struct Restorer<'a> {
    cursor: Cursor<'a>,
    /// The committees that were read, by number, and which they are.
    committees: Vec<Arc<Committee>>,
    known: BTreeSet<(Epoch, [u8; 32])>,
    config: Config,
}

impl Saver {
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Which variant comes next.
    pub(crate) fn tag(&mut self, tag: u8) {
        self.bytes.push(tag);
    }

    fn number(&mut self, mut rest: u64) {
        loop {
            let [low, ..] = rest.to_le_bytes();
            rest >>= 7;
            if rest == 0 {
                return self.bytes.push(low);
            }
            self.bytes.push(low | 0x80);
        }
    }

    fn items<'i, T: Saved + 'i>(&mut self, items: impl ExactSizeIterator<Item = &'i T>) {
        items.len().save(self);
        items.for_each(|item| item.save(self));
    }
}

impl<'a> Restorer<'a> {
    /// What derives from the configuration is made of `config`.
    pub(crate) const fn new(cursor: Cursor<'a>, config: Config) -> Self {
        Self { cursor, committees: Vec::new(), known: BTreeSet::new(), config }
    }

    pub(crate) const fn config(&self) -> &Config {
        &self.config
    }

    pub(crate) fn tag(&mut self) -> Restored<u8> {
        Ok(self.cursor.byte()?)
    }

    /// That nothing is left over.
    pub(crate) fn finish(self) -> Restored<()> {
        Ok(self.cursor.finish()?)
    }

    fn number(&mut self) -> Restored<u64> {
        let mut value = 0_u64;
        for shift in (0_u32..64).step_by(7) {
            let byte = self.cursor.byte()?;
            let digit = u64::from(byte & 0x7f);
            let placed = digit.wrapping_shl(shift);
            if placed.wrapping_shr(shift) != digit || byte == 0 && shift > 0 {
                return Err(RestoreError::Damaged("a number is not in its shortest form"));
            }
            value |= placed;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(RestoreError::Damaged("a number is too long"))
    }

    /// Items behind their number. They are taken in as they are read, never set aside by their number: each of them has a
    /// byte at least.
    fn items<T: Saved>(&mut self, mut take: impl FnMut(T) -> Restored<()>) -> Restored<()> {
        for _ in 0..self.number()? {
            take(T::restore(self)?)?;
        }
        Ok(())
    }

    /// Items that ascend.
    fn ascending<T: Saved, K: Ord + Copy>(&mut self, key: impl Fn(&T) -> K) -> Restored<Vec<T>> {
        let mut items = Vec::new();
        let mut last = None;
        self.items(|item| {
            let this = Some(key(&item));
            if this <= last {
                return Err(RestoreError::Damaged("keys do not ascend"));
            }
            last = this;
            items.push(item);
            Ok(())
        })?;
        Ok(items)
    }
}

impl Saved for u64 {
    fn save(&self, to: &mut Saver) {
        to.number(*self);
    }
    fn restore(from: &mut Restorer<'_>) -> Restored<Self> {
        from.number()
    }
}

/// Numbers that a `u64` holds.
macro_rules! narrow {
    ($($number:ty),*) => {$(
        impl Saved for $number {
            fn save(&self, to: &mut Saver) {
                // No platform has more than 64 bits.
                to.number(*self as u64);
            }
            fn restore(from: &mut Restorer<'_>) -> Restored<Self> {
                from.number()?.try_into().map_err(|_| RestoreError::Damaged("a number is too large"))
            }
        }
    )*};
}
narrow!(u8, u32, usize);

impl Saved for u128 {
    fn save(&self, to: &mut Saver) {
        to.raw(&self.to_le_bytes());
    }
    fn restore(from: &mut Restorer<'_>) -> Restored<Self> {
        Ok(Self::from_le_bytes(from.cursor.array()?))
    }
}

impl Saved for bool {
    fn save(&self, to: &mut Saver) {
        to.tag(u8::from(*self));
    }
    fn restore(from: &mut Restorer<'_>) -> Restored<Self> {
        match from.tag()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(RestoreError::Damaged("neither true nor false")),
        }
    }
}

impl<const N: usize> Saved for [u8; N] {
    fn save(&self, to: &mut Saver) {
        to.raw(self);
    }
    fn restore(from: &mut Restorer<'_>) -> Restored<Self> {
        Ok(from.cursor.array()?)
    }
}

impl Saved for [u64; 4] {
    fn save(&self, to: &mut Saver) {
        self.iter().for_each(|word| to.raw(&word.to_le_bytes()));
    }
    fn restore(from: &mut Restorer<'_>) -> Restored<Self> {
        let mut words = [0; 4];
        for word in &mut words {
            *word = from.cursor.u64()?;
        }
        Ok(words)
    }
}

impl Saved for Duration {
    fn save(&self, to: &mut Saver) {
        self.as_secs().save(to);
        self.subsec_nanos().save(to);
    }
    fn restore(from: &mut Restorer<'_>) -> Restored<Self> {
        let (seconds, nanos) = Saved::restore(from)?;
        if nanos >= 1_000_000_000 {
            return Err(RestoreError::Damaged("a second of more than a second"));
        }
        Ok(Self::new(seconds, nanos))
    }
}

impl<T: Saved> Saved for Option<T> {
    fn save(&self, to: &mut Saver) {
        self.is_some().save(to);
        self.iter().for_each(|some| some.save(to));
    }
    fn restore(from: &mut Restorer<'_>) -> Restored<Self> {
        bool::restore(from)?.then(|| T::restore(from)).transpose()
    }
}

impl<T: Saved> Saved for Box<T> {
    fn save(&self, to: &mut Saver) {
        T::save(self, to);
    }
    fn restore(from: &mut Restorer<'_>) -> Restored<Self> {
        T::restore(from).map(Self::new)
    }
}

impl<A: Saved, B: Saved> Saved for (A, B) {
    fn save(&self, to: &mut Saver) {
        self.0.save(to);
        self.1.save(to);
    }
    fn restore(from: &mut Restorer<'_>) -> Restored<Self> {
        Ok((A::restore(from)?, B::restore(from)?))
    }
}

impl<A: Saved, B: Saved, C: Saved> Saved for (A, B, C) {
    fn save(&self, to: &mut Saver) {
        self.0.save(to);
        self.1.save(to);
        self.2.save(to);
    }
    fn restore(from: &mut Restorer<'_>) -> Restored<Self> {
        Ok((A::restore(from)?, B::restore(from)?, C::restore(from)?))
    }
}

impl<T: Saved> Saved for Vec<T> {
    fn save(&self, to: &mut Saver) {
        to.items(self.iter());
    }
    fn restore(from: &mut Restorer<'_>) -> Restored<Self> {
        let mut items = Self::new();
        from.items(|item| {
            items.push(item);
            Ok(())
        })?;
        Ok(items)
    }
}

impl<T: Saved> Saved for VecDeque<T> {
    fn save(&self, to: &mut Saver) {
        to.items(self.iter());
    }
    fn restore(from: &mut Restorer<'_>) -> Restored<Self> {
        Vec::restore(from).map(Self::from)
    }
}

impl<K: Saved + Ord + Copy, V: Saved> Saved for BTreeMap<K, V> {
    fn save(&self, to: &mut Saver) {
        self.len().save(to);
        for (key, value) in self {
            key.save(to);
            value.save(to);
        }
    }
    fn restore(from: &mut Restorer<'_>) -> Restored<Self> {
        Ok(from.ascending(|(key, _): &(K, V)| *key)?.into_iter().collect())
    }
}

impl<T: Saved + Ord + Copy> Saved for BTreeSet<T> {
    fn save(&self, to: &mut Saver) {
        to.items(self.iter());
    }
    fn restore(from: &mut Restorer<'_>) -> Restored<Self> {
        Ok(from.ascending(|item: &T| *item)?.into_iter().collect())
    }
}

/// References of a commit's blocks.
impl Saved for Arc<[BlockRef]> {
    fn save(&self, to: &mut Saver) {
        to.items(self.iter());
    }
    fn restore(from: &mut Restorer<'_>) -> Restored<Self> {
        Vec::restore(from).map(Self::from)
    }
}

/// By what committees are told apart.
fn name(committee: &Committee) -> (Epoch, [u8; 32]) {
    (committee.epoch(), *committee.chain_id().as_bytes())
}

/// Written out where it first occurs, and named by its number from then on.
impl Saved for Arc<Committee> {
    fn save(&self, to: &mut Saver) {
        let next = u64::try_from(to.committees.len()).unwrap_or(u64::MAX);
        let number = *to.committees.entry(name(self)).or_insert(next);
        number.save(to);
        if number == next {
            self.epoch().save(to);
            self.encoding().len().save(to);
            to.raw(self.encoding());
        }
    }
    fn restore(from: &mut Restorer<'_>) -> Restored<Self> {
        let number = usize::restore(from)?;
        if let Some(known) = from.committees.get(number) {
            return Ok(Self::clone(known));
        }
        if number != from.committees.len() {
            return Err(RestoreError::Damaged("a committee that does not occur"));
        }
        let (epoch, len) = Saved::restore(from)?;
        let validators = from.cursor.take(len)?;
        // Whoever made the machine has taken it, of whatever size: its bytes are there.
        let limits = Limits { max_ancestors: u32::MAX, ..Limits::default() };
        let committee = Committee::decode(epoch, validators, &limits).map_err(|error| match error {
            CommitteeError::Decode(error) => RestoreError::Decode(error),
            CommitteeError::Invalid(error) => RestoreError::Committee(error),
        })?;
        if committee.encoding() != validators {
            return Err(RestoreError::Damaged("a committee that is not in order"));
        }
        if !from.known.insert(name(&committee)) {
            return Err(RestoreError::Damaged("a committee that occurs twice"));
        }
        let committee = Self::new(committee);
        from.committees.push(Self::clone(&committee));
        Ok(committee)
    }
}

/// A batch is shared with whoever stores it.
impl Saved for Arc<crate::command::Batch> {
    fn save(&self, to: &mut Saver) {
        crate::command::Batch::save(self, to);
    }
    fn restore(from: &mut Restorer<'_>) -> Restored<Self> {
        Saved::restore(from).map(Self::new)
    }
}

/// Its length and fingerprint: what equality sees of it.
impl Saved for Payload {
    fn save(&self, to: &mut Saver) {
        self.len().save(to);
        to.raw(&self.fingerprint().to_le_bytes());
    }
    fn restore(from: &mut Restorer<'_>) -> Restored<Self> {
        Ok(Self::absent(usize::restore(from)?, from.cursor.u64()?))
    }
}

impl Saved for CommitRange {
    fn save(&self, to: &mut Saver) {
        self.start().save(to);
        self.end().save(to);
    }
    fn restore(from: &mut Restorer<'_>) -> Restored<Self> {
        let (start, end) = Saved::restore(from)?;
        Self::new(start, end).ok_or(RestoreError::Damaged("a range that ends before it starts"))
    }
}
