//! Keyed draws: each is a hash of the seed, of what is drawn, and of what it is drawn for. No draw depends on another
//! one, so that leaving something out changes nothing else.

use blake2::{Blake2b256, Digest};
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore, SeedableRng},
};

/// What is drawn.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Site {
    ProtocolKey,
    NetworkKey,
    AuthorityKey,
    Stake,
    Leader,
    FirstAbsent,
    Block,
    StateHash,
    #[cfg(not(feature = "bls"))]
    ValidatorSetSignature,
    #[cfg(not(feature = "bls"))]
    AggregateSignature,
}

/// The source of all draws.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Draws {
    seed: u64,
}

impl Draws {
    pub(crate) const fn new(seed: u64) -> Self {
        Self { seed }
    }

    /// Thirty-two bytes for these entities.
    pub(crate) fn bytes(self, site: Site, entities: [u64; 3]) -> [u8; 32] {
        let mut hasher = Blake2b256::new();
        hasher.update(b"soma-sync chain maker 1");
        hasher.update(self.seed.to_le_bytes());
        hasher.update((site as u64).to_le_bytes());
        for entity in entities {
            hasher.update(entity.to_le_bytes());
        }
        hasher.finalize().into()
    }

    /// A number below `bound`, which is not zero.
    pub(crate) fn below(self, site: Site, entities: [u64; 3], bound: u64) -> u64 {
        first_u64(&self.bytes(site, entities)) % bound
    }

    /// As many bytes as wanted.
    pub(crate) fn array<const N: usize>(self, site: Site, entities: [u64; 3]) -> [u8; N] {
        let mut array = [0; N];
        ChaCha8Rng::from_seed(self.bytes(site, entities)).fill_bytes(&mut array);
        array
    }
}

/// The first eight of drawn bytes as a number.
pub(crate) fn first_u64(drawn: &[u8; 32]) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&drawn[..8]);
    u64::from_le_bytes(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_differ_by_seed_site_and_every_entity() {
        let base = Draws::new(1).bytes(Site::Block, [1, 2, 3]);
        let others = [
            Draws::new(2).bytes(Site::Block, [1, 2, 3]),
            Draws::new(1).bytes(Site::Leader, [1, 2, 3]),
            Draws::new(1).bytes(Site::Block, [0, 2, 3]),
            Draws::new(1).bytes(Site::Block, [1, 0, 3]),
            Draws::new(1).bytes(Site::Block, [1, 2, 0]),
        ];
        assert!(others.iter().all(|other| *other != base));
        assert_eq!(Draws::new(1).bytes(Site::Block, [1, 2, 3]), base);
    }
}
