//! What a peer was served a short while ago, so that it is not served it again and again.

use crate::{command::ServePlan, time::Timestamp};
use alloc::collections::VecDeque;
use core::{
    hash::{Hash, Hasher},
    time::Duration,
};

/// How long an answer is remembered. An honest peer that lost one asks another peer first, and this one again after
/// five seconds.
const WHILE: Duration = Duration::from_secs(4);
/// How often the same answer is given within that time.
const MOST: usize = 2;
/// Answers remembered of one peer. Whoever goes round more than these pays for them out of its rates.
const REMEMBERED: usize = 64;

/// An answer, by a hash of what is read and sent for it, and when it was admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Answered {
    at: Timestamp,
    fingerprint: u64,
}
saved! { struct Answered { at, fingerprint } }

/// The last answers to one peer, the oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Recent(VecDeque<Answered>);
saved! { struct Recent(value) }

impl Answered {
    pub(super) fn new(plan: &ServePlan, at: Timestamp) -> Self {
        let mut hasher = Fingerprint::default();
        plan.hash(&mut hasher);
        Self { at, fingerprint: hasher.finish() }
    }
}

impl Recent {
    /// Whether the peer has been given this answer as often as it may be.
    pub(super) fn is_repeated(&mut self, answer: Answered) -> bool {
        while self.0.front().is_some_and(|first| answer.at.saturating_since(first.at) >= WHILE) {
            self.0.pop_front();
        }
        self.0.iter().filter(|given| given.fingerprint == answer.fingerprint).count() >= MOST
    }

    pub(super) fn remember(&mut self, answer: Answered) {
        if self.0.len() >= REMEMBERED {
            self.0.pop_front();
        }
        self.0.push_back(answer);
    }

    /// The answer was not given after all.
    pub(super) fn forget(&mut self, answer: Answered) {
        if let Some(position) = self.0.iter().position(|given| *given == answer) {
            self.0.remove(position);
        }
    }

    /// What must always hold: the cap.
    pub(super) fn check_invariants(&self) -> Result<(), &'static str> {
        if self.0.len() <= REMEMBERED { Ok(()) } else { Err("serve: too many answers are remembered") }
    }
}

/// A hash that is the same on every platform. Not for secrets: whoever makes two answers collide is refused one. Every
/// request for a thousand blocks goes through it, so it is not the machine's cryptographic one.
#[derive(Default)]
struct Fingerprint(u64);

impl Fingerprint {
    /// The odd multiplier of the golden ratio, after a rotation that brings what it mixed best back down.
    fn add(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(26) ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    }
}

impl Hasher for Fingerprint {
    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            self.add(chunk.iter().rev().fold(0, |word, byte| (word << 8) | u64::from(*byte)));
        }
    }
    fn write_u8(&mut self, value: u8) {
        self.add(u64::from(value));
    }
    fn write_u16(&mut self, value: u16) {
        self.add(u64::from(value));
    }
    fn write_u32(&mut self, value: u32) {
        self.add(u64::from(value));
    }
    fn write_u64(&mut self, value: u64) {
        self.add(value);
    }
    // Lengths and variants come as these, and are as wide as the platform has them.
    fn write_usize(&mut self, value: usize) {
        self.add(u64::try_from(value).unwrap_or(u64::MAX));
    }
    fn write_isize(&mut self, value: isize) {
        self.add(i64::try_from(value).unwrap_or(i64::MAX).cast_unsigned());
    }
    fn finish(&self) -> u64 {
        self.0 ^ (self.0 >> 32)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{AuthorityIndex, BlockDigest, BlockRef, CommitIndex, CommitRange, Epoch, Round};
    use alloc::{collections::BTreeSet, vec::Vec};

    fn commits(start: u32, max_bytes: u64, with_blocks: bool) -> ServePlan {
        let (start, last) = (CommitIndex::new(start), CommitIndex::new(500));
        let range = CommitRange::new(start, last).unwrap();
        ServePlan::Commits { range, last, max_bytes, with_blocks }
    }

    fn blocks(first: u8, count: u8) -> ServePlan {
        let reference = |digest| BlockRef {
            round: Round::new(1),
            author: AuthorityIndex::new(0),
            digest: BlockDigest::new([digest; 32]),
            epoch: Epoch::ZERO,
        };
        ServePlan::Blocks {
            refs: (first..=u8::MAX).map(reference).take(usize::from(count)).collect(),
            max_bytes: 1,
        }
    }

    fn at(millis: u64) -> Timestamp {
        Timestamp::ZERO.saturating_add(Duration::from_millis(millis))
    }

    #[test]
    fn different_answers_have_one_fingerprint() {
        let mut plans: Vec<_> = (1..=400).map(|start| commits(start, 1, false)).collect();
        plans.extend((2..400).map(|bytes| commits(1, bytes, true)));
        plans.extend((0..200).map(|first| blocks(first, 1)));
        plans.extend((2..200).map(|count| blocks(0, count)));
        let fingerprint = |plan| Answered::new(plan, at(0)).fingerprint;
        let all: BTreeSet<_> = plans.iter().map(fingerprint).collect();
        assert_eq!(all.len(), plans.len());
    }

    #[test]
    fn a_fingerprint_is_another_one_from_one_build_to_the_next() {
        let fingerprint = |plan| Answered::new(&plan, at(0)).fingerprint;
        assert_eq!((fingerprint(commits(1, 1, true)), fingerprint(blocks(1, 2))), (GOLDEN[0], GOLDEN[1]));
    }

    #[test]
    fn the_same_answer_is_given_a_third_time_or_never_again() {
        let mut recent = Recent::default();
        let mut ask = |plan: &ServePlan, millis| {
            let answer = Answered::new(plan, at(millis));
            let given = !recent.is_repeated(answer);
            if given {
                recent.remember(answer);
            }
            given
        };
        let (one, other) = (commits(1, 1, false), commits(2, 1, false));
        assert_eq!([0, 10, 20, 3_999].map(|millis| ask(&one, millis)), [true, true, false, false]);
        assert!(ask(&other, 3_999), "others have nothing to do with it");
        assert_eq!([4_000, 4_001, 4_010].map(|millis| ask(&one, millis)), [true, false, true]);
    }

    #[test]
    fn what_was_not_given_counts_or_the_memory_grows() {
        let mut recent = Recent::default();
        let answer = Answered::new(&commits(1, 1, false), at(0));
        for _ in 0..3 {
            assert!(!recent.is_repeated(answer));
            recent.remember(answer);
            recent.remember(answer);
            assert!(recent.is_repeated(answer));
            recent.forget(answer);
            recent.forget(answer);
            recent.forget(answer);
        }
        for start in 1..=400 {
            recent.remember(Answered::new(&commits(start, 1, false), at(1)));
            assert_eq!(recent.check_invariants(), Ok(()));
        }
    }

    /// Computed by another implementation.
    const GOLDEN: [u64; 2] = [18_113_992_341_212_277_836, 10_690_054_925_688_987_787];
}
