//! Numbers drawn from a seed by what they are for.
//!
//! Each is a hash of the seed, the site, whom it is about and a counter, and none depends on which others were drawn: a
//! fault that is taken away leaves the rest as it was.

use blake2::{Blake2b256, Digest};
use std::time::Duration;

/// A seed to draw from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Draws(u64);

impl Draws {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number by site, whom it is about, and the how-many-th it is.
    pub(crate) fn draw(self, site: &str, about: [u64; 2], nth: u64) -> u64 {
        let mut hasher = Blake2b256::new_with_prefix(b"soma-sync draw 1");
        hasher.update((site.len() as u64).to_le_bytes());
        hasher.update(site);
        for word in [self.0, about[0], about[1], nth] {
            hasher.update(word.to_le_bytes());
        }
        let hash: [u8; 32] = hasher.finalize().into();
        hash.first_chunk().map_or(0, |first| u64::from_le_bytes(*first))
    }

    /// A number from `low` to `high`, both possible.
    pub(crate) fn between(self, site: &str, about: [u64; 2], nth: u64, low: u64, high: u64) -> u64 {
        let span = high.saturating_sub(low).saturating_add(1);
        low + self.draw(site, about, nth) % span
    }

    /// Whether something happens that happens so often in a million times.
    pub(crate) fn happens(self, site: &str, about: [u64; 2], nth: u64, per_million: u32) -> bool {
        per_million > 0 && self.draw(site, about, nth) % 1_000_000 < u64::from(per_million)
    }

    /// A duration between two numbers of milliseconds.
    pub(crate) fn millis(self, site: &str, about: [u64; 2], nth: u64, low: u64, high: u64) -> Duration {
        Duration::from_micros(self.between(site, about, nth, low * 1_000, high * 1_000))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_for_different_things_are_the_same() {
        let draws = Draws::new(1);
        let mut all = vec![
            draws.draw("a", [0, 0], 0),
            draws.draw("b", [0, 0], 0),
            draws.draw("a", [1, 0], 0),
            draws.draw("a", [0, 1], 0),
            draws.draw("a", [0, 0], 1),
            Draws::new(2).draw("a", [0, 0], 0),
        ];
        assert_eq!(all[0], draws.draw("a", [0, 0], 0));
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 6);
    }

    #[test]
    fn a_draw_is_out_of_its_bounds() {
        let draws = Draws::new(3);
        let drawn: Vec<_> = (0..200).map(|nth| draws.between("x", [0, 0], nth, 5, 8)).collect();
        assert!((5..=8).all(|number| drawn.contains(&number)) && drawn.iter().all(|n| (5..=8).contains(n)));
        assert!((0..50).all(|nth| !draws.happens("x", [0, 0], nth, 0)));
        assert!((0..50).all(|nth| draws.happens("x", [0, 0], nth, 1_000_000)));
    }
}
