//! The machine's own randomness: jitter and exploration drawn from a seed, the same on every platform and for ever.

use core::hash::{Hash, Hasher};

/// xoshiro256++ by Blackman and Vigna, seeded by the embedder. Not for secrets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Rng {
    state: [u64; 4],
}
saved! { struct Rng { state } }

impl Hash for Rng {
    /// Word by word: slices of integers are hashed as the platform has them.
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.state.iter().for_each(|word| word.hash(state));
    }
}

impl Rng {
    /// A generator whose draws depend on `seed` alone.
    pub(crate) fn new(seed: [u8; 32]) -> Self {
        let mut state = [0u64; 4];
        for (word, bytes) in state.iter_mut().zip(seed.chunks_exact(8)) {
            *word = bytes.iter().rev().fold(0, |word, byte| (word << 8) | u64::from(*byte));
        }
        // The all-zero state is the generator's one fixed point.
        if state == [0; 4] {
            state = [0x9e37_79b9_7f4a_7c15, 0xbf58_476d_1ce4_e5b9, 0x94d0_49bb_1331_11eb, 1];
        }
        Self { state }
    }

    /// The next 64 bits.
    pub(crate) fn next_u64(&mut self) -> u64 {
        let [s0, s1, s2, s3] = &mut self.state;
        let result = s0.wrapping_add(*s3).rotate_left(23).wrapping_add(*s0);
        let shifted = *s1 << 17;
        *s2 ^= *s0;
        *s3 ^= *s1;
        *s1 ^= *s2;
        *s0 ^= *s3;
        *s2 ^= shifted;
        *s3 = s3.rotate_left(45);
        result
    }

    /// A number below `bound`; 0 where `bound` is 0. The bias is below `bound` in 2^64.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        let product = u128::from(self.next_u64()).wrapping_mul(u128::from(bound));
        u64::try_from(product >> 64).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_stay_the_same_for_ever() {
        let mut rng = Rng::new([7; 32]);
        let drawn = [rng.next_u64(), rng.next_u64(), rng.next_u64()];
        assert_eq!(drawn, GOLDEN);
    }

    #[test]
    fn a_zero_seed_does_not_stick_at_zero() {
        let mut rng = Rng::new([0; 32]);
        assert_ne!(rng.next_u64(), rng.next_u64());
    }

    #[test]
    fn below_stays_below() {
        let mut rng = Rng::new([1; 32]);
        assert_eq!(rng.below(0), 0);
        assert!((0..1000).all(|_| rng.below(7) < 7));
    }

    /// Computed by another implementation of the published algorithm.
    const GOLDEN: [u64; 3] =
        [1_012_762_419_733_073_422, 9_982_943_851_654_580_874, 8_102_099_357_864_587_376];
}
