//! The last commits that were handed to storage, by which a fork below the tip is known. Bounded: so many, and no more.

use crate::types::{CommitDigest, CommitIndex, CommitRef, Epoch};
use alloc::collections::VecDeque;

/// How many are remembered. What lies deeper is in storage only, and is not compared with anything.
const REMEMBERED: usize = 1_024;

/// Consecutive commits of our chain; the highest is the tip, or lies above it where the store was opened again as an
/// older copy of itself. Never empty.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Recent {
    first: CommitIndex,
    commits: VecDeque<(CommitDigest, Epoch)>,
}
saved! { struct Recent { first, commits } }

impl Recent {
    /// Nothing but a tip is known.
    pub(crate) fn new(tip: CommitRef, epoch: Epoch) -> Self {
        Self { first: tip.index, commits: VecDeque::from([(tip.digest, epoch)]) }
    }

    /// The commit after the tip was handed to storage, perhaps once more.
    pub(crate) fn push(&mut self, commit: CommitRef, epoch: Epoch) {
        if self.get(commit.index).is_some() {
            return;
        }
        self.commits.push_back((commit.digest, epoch));
        if self.commits.len() > REMEMBERED
            && let Some(next) = self.first.next()
        {
            self.commits.pop_front();
            self.first = next;
        }
    }

    /// The commit of our chain at an index, and its epoch, if it is remembered.
    pub(crate) fn get(&self, index: CommitIndex) -> Option<(CommitRef, Epoch)> {
        let position = index.get().checked_sub(self.first.get())?;
        let (digest, epoch) = *self.commits.get(usize::try_from(position).ok()?)?;
        Some((CommitRef { index, digest }, epoch))
    }

    /// What must always hold: the tip is remembered, and no more than may be.
    pub(crate) fn check_invariants(&self, tip: CommitRef) -> Result<(), &'static str> {
        match self.get(tip.index) {
            Some((ours, _)) if ours != tip => Err("recent: another commit than the tip at its index"),
            Some(_) if self.commits.len() > REMEMBERED => Err("recent: too many commits"),
            Some(_) => Ok(()),
            None => Err("recent: the tip is not remembered"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commit(index: u32) -> CommitRef {
        let [a, b, c, d] = index.to_le_bytes();
        let mut digest = [1; 32];
        digest[..4].copy_from_slice(&[a, b, c, d]);
        CommitRef { index: CommitIndex::new(index), digest: CommitDigest::new(digest) }
    }

    #[test]
    fn a_commit_is_forgotten_too_early_or_kept_too_long() {
        let epoch = Epoch::new(3);
        let mut recent = Recent::new(commit(7), epoch);
        for index in 8..=7 + 1_024 {
            recent.push(commit(index), epoch);
        }
        assert_eq!(recent.get(CommitIndex::new(7)), None);
        for index in 8..=7 + 1_024 {
            assert_eq!(recent.get(CommitIndex::new(index)), Some((commit(index), epoch)));
        }
        assert_eq!(recent.get(CommitIndex::new(8 + 1_024)), None);
        assert_eq!(recent.check_invariants(commit(7 + 1_024)), Ok(()));
        assert!(recent.check_invariants(commit(9 + 1_024)).is_err());
    }

    #[test]
    fn a_commit_that_is_taken_again_is_remembered_twice() {
        let mut recent = Recent::new(commit(0), Epoch::ZERO);
        recent.push(commit(1), Epoch::ZERO);
        let once = recent.clone();
        recent.push(commit(1), Epoch::ZERO);
        assert_eq!(recent, once);
    }
}
