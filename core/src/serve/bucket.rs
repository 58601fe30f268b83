//! A rate and what of it is used up.

use crate::time::{Timestamp, micros};

/// Millionths of a unit in one: what a rate of one unit a second gives back in a microsecond.
const MILLION: u64 = 1_000_000;

/// What one peer has used of one rate: it drains with time, and room is for as much as drains in a second. The last to
/// find room may go beyond it; it is the next who waits for that, so nothing is too large to be ever let in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Bucket {
    /// In millionths, so that nothing is lost however often it is looked at.
    used: u64,
    /// When `used` was true.
    at: Timestamp,
}
saved! { struct Bucket { used, at } }

impl Bucket {
    /// Whether anything more may be charged, at `rate` units a second.
    pub(super) fn has_room(&mut self, rate: u64, now: Timestamp) -> bool {
        let drained = micros(now.saturating_since(self.at)).saturating_mul(rate);
        self.used = self.used.saturating_sub(drained);
        self.at = self.at.max(now);
        self.used < rate.saturating_mul(MILLION)
    }

    pub(super) fn charge(&mut self, units: u64) {
        self.used = self.used.saturating_add(units.saturating_mul(MILLION));
    }

    /// Takes back a part of what was charged.
    pub(super) fn refund(&mut self, units: u64) {
        self.used = self.used.saturating_sub(units.saturating_mul(MILLION));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// How often one unit is let in from `from` to `until`, asked for every `step` microseconds.
    fn let_in(bucket: &mut Bucket, rate: u64, from: u64, until: u64, step: usize) -> u64 {
        let times = (from..until).step_by(step).map(Timestamp::from_micros);
        let let_in = times.filter(|now| {
            let room = bucket.has_room(rate, *now);
            if room {
                bucket.charge(1);
            }
            room
        });
        u64::try_from(let_in.count()).unwrap()
    }

    #[test]
    fn more_than_a_second_is_saved_up_or_a_rate_is_passed() {
        let mut bucket = Bucket::default();
        // The last one goes beyond it.
        assert_eq!(let_in(&mut bucket, 10, 0, 1_000, 1), 11);
        let hour = 3_600 * MILLION;
        assert_eq!(let_in(&mut bucket, 10, hour, hour + 1_000, 1), 11);
        let ten_seconds = let_in(&mut bucket, 10, hour + 1_000, hour + 10 * MILLION + 1_000, 10);
        assert!((99..=101).contains(&ten_seconds), "{ten_seconds}");
    }

    #[test]
    fn looking_often_slows_it_down() {
        let seldom = let_in(&mut Bucket::default(), 8_000, 0, 5 * MILLION, 50);
        let often = let_in(&mut Bucket::default(), 8_000, 0, 5 * MILLION, 7);
        assert!(seldom.abs_diff(often) <= 2 && often >= 6 * 8_000 - 2, "{seldom} {often}");
    }

    #[test]
    fn what_is_larger_than_the_rate_is_never_let_in_or_not_paid_for() {
        let mut bucket = Bucket::default();
        let at = |seconds: u64| Timestamp::from_micros(seconds * MILLION);
        assert!(bucket.has_room(10, at(0)));
        bucket.charge(100);
        assert!(!bucket.has_room(10, at(8)));
        assert!(!bucket.has_room(10, at(9)));
        assert!(bucket.has_room(10, at(10)));
        bucket.charge(u64::MAX);
        bucket.refund(u64::MAX);
        assert!(bucket.has_room(10, at(10)), "what is refunded is not used");
        assert!(bucket.has_room(10, at(3)), "time that goes back counts for nothing");
    }
}
