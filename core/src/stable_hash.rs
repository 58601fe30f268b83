//! A hash that is the same on every platform, in every build profile and in every process.

use blake2::{Blake2b256, Digest};
use core::hash::{Hash, Hasher};

/// Feeds derived [`Hash`] implementations into BLAKE2b with 32 bytes of output: every number in little-endian order,
/// `usize` and `isize` (lengths, and which variant an enum has) as 64 bits.
///
/// What is hashed must not hold slices of bare integers wider than a byte, which the standard library hands over as they
/// lie in memory; no state of the machine does. Which bytes a derived implementation gives is the compiler's choice, so
/// hashes are compared within one build of the sources, or pinned by a test.
#[derive(Clone, Debug)]
pub struct StableHasher(Blake2b256);

impl StableHasher {
    /// A hasher that has taken in `prefix`.
    pub fn new(prefix: &[u8]) -> Self {
        Self(Blake2b256::new_with_prefix(prefix))
    }

    /// The hash of one value.
    pub fn hash_of(value: &(impl Hash + ?Sized)) -> [u8; 32] {
        let mut hasher = Self::new(&[]);
        value.hash(&mut hasher);
        hasher.finalize()
    }

    /// The hash of all that was taken in, whole.
    pub fn finalize(self) -> [u8; 32] {
        self.0.finalize().into()
    }
}

impl Hasher for StableHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
    fn write_u16(&mut self, number: u16) {
        self.write(&number.to_le_bytes());
    }
    fn write_u32(&mut self, number: u32) {
        self.write(&number.to_le_bytes());
    }
    fn write_u64(&mut self, number: u64) {
        self.write(&number.to_le_bytes());
    }
    fn write_u128(&mut self, number: u128) {
        self.write(&number.to_le_bytes());
    }
    fn write_usize(&mut self, number: usize) {
        // No platform has more than 64 bits.
        self.write_u64(number as u64);
    }
    fn write_isize(&mut self, number: isize) {
        self.write(&(number as i64).to_le_bytes());
    }
    /// The first eight bytes of the hash so far.
    fn finish(&self) -> u64 {
        let whole: [u8; 32] = self.0.clone().finalize().into();
        whole.first_chunk().map_or(0, |first| u64::from_le_bytes(*first))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest;
    use alloc::vec::Vec;

    /// The bytes that reach the hash function.
    fn hashes_as(value: &(impl Hash + ?Sized), bytes: &[u8]) {
        assert_eq!(StableHasher::hash_of(value), digest::hash(bytes));
    }

    #[test]
    fn a_number_is_hashed_as_the_platform_has_it() {
        hashes_as(&0x0102_u16, &[2, 1]);
        hashes_as(&0x0102_0304_u32, &[4, 3, 2, 1]);
        hashes_as(&0x0102_0304_0506_0708_u64, &[8, 7, 6, 5, 4, 3, 2, 1]);
        hashes_as(&-2_i32, &[0xfe, 0xff, 0xff, 0xff]);
        hashes_as(&1_u128, &1_u128.to_le_bytes());
        hashes_as(&7_usize, &[7, 0, 0, 0, 0, 0, 0, 0]);
        hashes_as(&-1_isize, &[0xff; 8]);
        hashes_as(&[(1_u16, true)][..], &[1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 1]);
        hashes_as(&Some(3_u8), &[1, 0, 0, 0, 0, 0, 0, 0, 3]);
    }

    #[test]
    fn a_prefix_or_the_short_hash_is_of_other_bytes() {
        let mut hasher = StableHasher::new(b"ab");
        hasher.write(b"c");
        let whole = digest::hash(b"abc");
        assert_eq!(hasher.finish().to_le_bytes().to_vec(), whole.iter().copied().take(8).collect::<Vec<_>>());
        assert_eq!(hasher.finalize(), whole);
    }
}
