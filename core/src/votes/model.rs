//! The book of votes against a plain model of it.
#![allow(clippy::arithmetic_side_effects, reason = "a model that overflows fails its test")]

use super::*;
use crate::committee::tests::committee;
use alloc::{vec, vec::Vec};
use proptest::prelude::*;

/// How many commits are waited on, so few that there are often more.
const LOOK_AHEAD: u32 = 3;
const AUTHORITIES: u8 = 4;
const VOTERS_OF_A_QUORUM: usize = 3;

/// A commit of an index; there are two of each.
type Name = (u32, u8);
/// A vote for one, of an epoch and an author.
type Vote = (Name, u64, u32);

fn commit((index, digest): Name) -> CommitRef {
    CommitRef { index: CommitIndex::new(index), digest: CommitDigest::new([digest; 32]) }
}

/// The same, slowly.
#[derive(Debug, Default)]
struct Plain {
    certifiable: Name,
    waiting: Vec<(Name, Vec<u32>)>,
    early: Vec<Vote>,
}

impl Plain {
    fn wait_on(&mut self, name: Name) {
        if name.0 <= self.certifiable.0 {
            return;
        }
        self.waiting.retain(|(other, _)| other.0 != name.0);
        self.waiting.push((name, Vec::new()));
        self.waiting.sort();
        if self.waiting.len() > LOOK_AHEAD as usize {
            self.waiting.remove(0);
        }
        let (known, other): (Vec<_>, Vec<_>) = self.early.drain(..).partition(|vote| vote.0 == name);
        self.early = other;
        known.into_iter().for_each(|vote| self.count(vote));
    }

    fn count(&mut self, (name, epoch, author): Vote) {
        if name.0 <= self.certifiable.0 {
            return;
        }
        let Some((_, voters)) = self.waiting.iter_mut().find(|(other, _)| *other == name) else {
            if !self.early.contains(&(name, epoch, author)) {
                self.early.push((name, epoch, author));
            }
            self.early.sort();
            self.early.truncate(4 * LOOK_AHEAD as usize);
            return;
        };
        if epoch == 0 && !voters.contains(&author) {
            voters.push(author);
        }
        if voters.len() >= VOTERS_OF_A_QUORUM {
            self.certifiable = name;
            self.waiting.retain(|(other, _)| other.0 > name.0);
            self.early.retain(|(other, _, _)| other.0 > name.0);
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    WaitOn(Name),
    Count(Vote),
}

fn step() -> impl Strategy<Value = Step> {
    // Most of one commit of each index: else there would hardly be a quorum.
    let name = || (1..9u32, prop_oneof![4 => Just(1u8), 1 => Just(2u8)]);
    prop_oneof![
        1 => name().prop_map(Step::WaitOn),
        4 => (name(), prop_oneof![6 => Just(0u64), 1 => Just(1)], 0..u32::from(AUTHORITIES)).prop_map(Step::Count),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_book_says_other_than_what_was_voted_for(steps in proptest::collection::vec(step(), 1..120)) {
        let committee = committee(0, AUTHORITIES);
        let mut plain = Plain::default();
        let mut book = VoteBook::new(commit(plain.certifiable), LOOK_AHEAD);
        for step in steps {
            match step {
                Step::WaitOn(name) => {
                    plain.wait_on(name);
                    book.wait_on(commit(name), &committee);
                }
                Step::Count(vote) => {
                    plain.count(vote);
                    book.count(commit(vote.0), Epoch::new(vote.1), AuthorityIndex::new(vote.2));
                }
            }
            prop_assert_eq!(book.certifiable(), commit(plain.certifiable));
            let waiting = plain.waiting.iter().map(|(name, voters)| (commit(*name), voters.len() as u64 * 2_500));
            let found = book.waiting.iter().map(|(index, waiting)| {
                let CommitRef { index, digest } = CommitRef { index: *index, digest: waiting.digest };
                (CommitRef { index, digest }, waiting.tally.stake().get())
            });
            prop_assert_eq!(found.collect::<Vec<_>>(), waiting.collect::<Vec<_>>());
            let early = plain.early.iter().map(|(name, epoch, author)| {
                (commit(*name), Epoch::new(*epoch), AuthorityIndex::new(*author))
            });
            prop_assert_eq!(book.early.iter().copied().collect::<Vec<_>>(), early.collect::<Vec<_>>());
            prop_assert_eq!(book.check_invariants(), Ok(()));
        }
    }
}

#[test]
fn a_book_that_is_wrong_passes_for_a_right_one() {
    let committee = committee(0, AUTHORITIES);
    let full = || {
        let mut book = VoteBook::new(commit((4, 1)), LOOK_AHEAD);
        (5..8).for_each(|index| book.wait_on(commit((index, 1)), &committee));
        for (index, author) in
            (8..11).flat_map(|index| (0..u32::from(AUTHORITIES)).map(move |author| (index, author)))
        {
            book.count(commit((index, 1)), Epoch::ZERO, AuthorityIndex::new(author));
        }
        book
    };
    assert_eq!(full().check_invariants(), Ok(()), "the caps may be reached");
    assert_eq!((full().waiting.len(), full().early.len()), (3, 12));
    let waiting = |index| {
        let tally = StakeTally::new();
        let waiting = Waiting { digest: commit((index, 1)).digest, committee: Arc::clone(&committee), tally };
        (CommitIndex::new(index), waiting)
    };
    let early = |index| (commit((index, 1)), Epoch::ZERO, AuthorityIndex::new(9));
    let few = || VoteBook::new(commit((4, 1)), LOOK_AHEAD);
    let mut wrong = vec![full(), full(), few(), few()];
    let mut change = wrong.iter_mut();
    let mut next = || change.next().expect("another");
    next().waiting.extend([waiting(11)]);
    next().early.extend([early(11)]);
    next().waiting.extend([waiting(4)]);
    next().early.extend([early(4)]);
    for book in wrong {
        assert!(book.check_invariants().is_err(), "{book:?}");
    }
}
