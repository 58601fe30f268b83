//! Who leaves answers unread, so that it does not hold slots with them again and again (threats: 18).

use crate::{
    time::{Timestamp, micros},
    types::PeerId,
};
use alloc::collections::BTreeMap;
use core::time::Duration;

/// How long an answer may wait for its reader, however little of it is read.
const PATIENCE: Duration = Duration::from_secs(5);
/// Bytes a second below which an answer counts as unread: a quarter of what a requester itself puts up with. What
/// buffers on the way take in without a reader is less than that after [`PATIENCE`].
pub(super) const LEAST_READ: u64 = 16 * 1024;
/// How long one answer at a time is enough for who has left the first one unread. Each further one doubles it.
const REST: Duration = Duration::from_secs(20);
/// How often that is doubled at most: to some twenty minutes.
const MOST_DOUBLED: u8 = 6;
/// Peers that are remembered, connected or not. Of more, the one whose rest ends first is forgotten.
const REMEMBERED: usize = 1_024;

/// The peers that left answers unread, for as long as that is held against them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Unread(BTreeMap<PeerId, Rest>);
saved! { struct Unread(value) }

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Rest {
    until: Timestamp,
    doubled: u8,
}
saved! { struct Rest { until, doubled } }

impl Unread {
    /// Whether one answer at a time is enough for this peer now.
    pub(super) fn rests(&self, peer: PeerId, now: Timestamp) -> bool {
        self.0.get(&peer).is_some_and(|rest| now < rest.until)
    }

    /// An answer to this peer is over that had to wait for it so long, and of which so many bytes were sent.
    pub(super) fn judge(&mut self, peer: PeerId, waited: Duration, bytes: u64, now: Timestamp) {
        let least = micros(waited).saturating_mul(LEAST_READ) / 1_000_000;
        if waited < PATIENCE || bytes >= least {
            return;
        }
        let doubled = match self.0.get(&peer) {
            // Of answers that were left together, one counts.
            Some(rest) if now < rest.until => return,
            Some(rest) => rest.doubled.saturating_add(1).min(MOST_DOUBLED),
            None => 0,
        };
        let rest = REST.saturating_mul(1 << doubled);
        self.0.insert(peer, Rest { until: now.saturating_add(rest), doubled });
        if self.0.len() > REMEMBERED {
            let first = self.0.iter().min_by_key(|(peer, rest)| (rest.until, **peer)).map(|(peer, _)| *peer);
            first.and_then(|peer| self.0.remove(&peer));
        }
    }

    /// What must always hold: the cap.
    pub(super) fn check_invariants(&self) -> Result<(), &'static str> {
        if self.0.len() <= REMEMBERED {
            Ok(())
        } else {
            Err("serve: too many peers that read nothing are remembered")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::ZERO.saturating_add(Duration::from_secs(seconds))
    }

    fn peer(number: u16) -> PeerId {
        let mut id = [0; 32];
        id[..2].copy_from_slice(&number.to_be_bytes());
        PeerId::new(id)
    }

    /// When the rest of a peer ends that leaves an answer unread now, in seconds.
    fn leaves(unread: &mut Unread, peer: PeerId, now: u64) -> u64 {
        unread.judge(peer, PATIENCE, 0, at(now));
        (now..).find(|second| !unread.rests(peer, at(*second))).unwrap()
    }

    #[test]
    fn a_rest_never_grows_or_grows_without_end_or_grows_with_each_of_many() {
        let mut unread = Unread::default();
        assert_eq!(leaves(&mut unread, peer(1), 100), 120);
        assert_eq!(leaves(&mut unread, peer(1), 119), 120, "left together with the first");
        let mut now = 120;
        for rest in [40, 80, 160, 320, 640, 1_280, 1_280, 1_280] {
            assert_eq!(leaves(&mut unread, peer(1), now), now + rest);
            now += rest;
        }
        assert_eq!(leaves(&mut unread, peer(2), now), now + 20, "peers have nothing to do with one another");
    }

    #[test]
    fn a_slow_reader_is_taken_for_none() {
        let mut unread = Unread::default();
        for (waited, bytes, rests) in [
            (PATIENCE, 5 * LEAST_READ - 1, true),
            (PATIENCE, 5 * LEAST_READ, false),
            (PATIENCE - Duration::from_micros(1), 0, false),
            (Duration::MAX, u64::MAX / 1_000_000, false),
        ] {
            unread = Unread::default();
            unread.judge(peer(1), waited, bytes, at(7));
            assert_eq!(unread.rests(peer(1), at(7)), rests, "{waited:?} {bytes}");
        }
        unread.judge(peer(1), Duration::MAX, u64::MAX / 1_000_000 - 1, at(7));
        assert!(unread.rests(peer(1), at(7)));
    }

    #[test]
    fn more_and_more_peers_are_remembered() {
        let mut unread = Unread::default();
        for number in 0..=1_024 {
            // The second one's rest ends first.
            leaves(&mut unread, peer(number), if number == 1 { 50 } else { 51 + u64::from(number) });
            assert_eq!(unread.check_invariants(), Ok(()));
        }
        assert_eq!(unread.0.len(), REMEMBERED);
        assert!(!unread.0.contains_key(&peer(1)) && unread.0.contains_key(&peer(0)));
    }
}
