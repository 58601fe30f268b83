//! Which of our commits we can certify to others: votes counted by commit, each author's stake once.
//!
//! Bounded by the look-ahead: at most that many stored commits are waited on, and at most four times as many votes
//! for commits that are not stored yet are remembered.

#[cfg(test)]
mod model;

#[cfg(feature = "trace")]
use crate::saved::{RestoreError, Restorer, Saved, Saver};
use crate::{
    bug::{Bug, has},
    command::Batch,
    committee::{Committee, StakeTally},
    start::StoredVotes,
    types::{AuthorityIndex, CommitDigest, CommitIndex, CommitRef, Epoch},
};
use alloc::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

/// Votes for commits above the highest certifiable one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct VoteBook {
    certifiable: CommitRef,
    /// Durable commits above `certifiable`.
    waiting: BTreeMap<CommitIndex, Waiting>,
    /// Durable votes for commits that are not durable, or not of that digest.
    early: BTreeSet<(CommitRef, Epoch, AuthorityIndex)>,
    max_waiting: usize,
    max_early: usize,
}

/// But for its bounds, which the configuration says.
#[cfg(feature = "trace")]
impl Saved for VoteBook {
    fn save(&self, to: &mut Saver) {
        let Self { certifiable, waiting, early, max_waiting: _, max_early: _ } = self;
        certifiable.save(to);
        waiting.save(to);
        early.save(to);
    }
    fn restore(from: &mut Restorer<'_>) -> Result<Self, RestoreError> {
        let (certifiable, waiting, early) = Saved::restore(from)?;
        Ok(Self { waiting, early, ..Self::new(certifiable, from.config().look_ahead_commits) })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Waiting {
    digest: CommitDigest,
    committee: Arc<Committee>,
    tally: StakeTally,
}
saved! { struct Waiting { digest, committee, tally } }

impl VoteBook {
    /// A book in which nothing above `certifiable` has a vote.
    pub(crate) fn new(certifiable: CommitRef, look_ahead: u32) -> Self {
        let max_waiting = usize::try_from(look_ahead).unwrap_or(usize::MAX);
        Self {
            certifiable,
            waiting: BTreeMap::new(),
            early: BTreeSet::new(),
            max_waiting,
            max_early: max_waiting.saturating_mul(4),
        }
    }

    /// The highest durable commit with a quorum of durable votes.
    pub(crate) fn certifiable(&self) -> CommitRef {
        self.certifiable
    }

    /// Takes in the votes that storage held at the start.
    pub(crate) fn restore(&mut self, stored: &StoredVotes, committee: &Arc<Committee>) {
        self.wait_on(stored.commit, committee);
        for voter in &stored.voters {
            self.count(stored.commit, stored.epoch, *voter);
        }
    }

    /// A batch is durable: its commits, then the votes in its blocks. Commits whose committee `committee` does not
    /// know are not waited on.
    pub(crate) fn stored(&mut self, batch: &Batch, committee: impl Fn(Epoch) -> Option<Arc<Committee>>) {
        for commit in &batch.commits {
            if let Some(committee) = committee(commit.epoch) {
                self.wait_on(commit.reference, &committee);
            }
        }
        for block in &batch.blocks {
            for vote in &block.votes {
                self.count(*vote, block.reference.epoch, block.reference.author);
            }
        }
    }

    fn wait_on(&mut self, commit: CommitRef, committee: &Arc<Committee>) {
        if commit.index <= self.certifiable.index {
            return;
        }
        let waiting =
            Waiting { digest: commit.digest, committee: committee.clone(), tally: StakeTally::new() };
        self.waiting.insert(commit.index, waiting);
        if self.waiting.len() > self.max_waiting {
            self.waiting.pop_first();
        }
        let of_commit =
            (commit, Epoch::ZERO, AuthorityIndex::ZERO)..=(commit, Epoch::MAX, AuthorityIndex::MAX);
        let early: alloc::vec::Vec<_> = self.early.range(of_commit).copied().collect();
        for vote in early {
            self.early.remove(&vote);
            self.count(vote.0, vote.1, vote.2);
        }
    }

    fn count(&mut self, commit: CommitRef, epoch: Epoch, author: AuthorityIndex) {
        if commit.index <= self.certifiable.index {
            return;
        }
        let Some(waiting) =
            self.waiting.get_mut(&commit.index).filter(|waiting| waiting.digest == commit.digest)
        else {
            return self.remember(commit, epoch, author);
        };
        if waiting.committee.epoch() != epoch && !has(Bug::VotesOfAnyEpoch) {
            return;
        }
        waiting.tally.add(author, &waiting.committee);
        if waiting.tally.reached_quorum() {
            self.certifiable = commit;
            self.waiting = commit.index.next().map(|next| self.waiting.split_off(&next)).unwrap_or_default();
            self.early.retain(|(vote, _, _)| vote.index > commit.index);
        }
    }

    fn remember(&mut self, commit: CommitRef, epoch: Epoch, author: AuthorityIndex) {
        self.early.insert((commit, epoch, author));
        if self.early.len() > self.max_early {
            self.early.pop_last();
        }
    }

    /// What must always hold: the caps, and nothing kept for what is certifiable already.
    pub(crate) fn check_invariants(&self) -> Result<(), &'static str> {
        let above = |index: Option<CommitIndex>| index.is_none_or(|index| index > self.certifiable.index);
        match () {
            () if self.waiting.len() > self.max_waiting || self.early.len() > self.max_early => {
                Err("votes: too many")
            }
            () if !above(self.waiting.keys().next().copied()) => {
                Err("votes: waiting on a certifiable commit")
            }
            () if !above(self.early.first().map(|vote| vote.0.index)) => Err("votes: an early vote is late"),
            () => Ok(()),
        }
    }
}
