//! The window beside a plain model of it: a list with a place for each commit.
#![allow(
    clippy::arithmetic_side_effects,
    clippy::cast_possible_truncation,
    reason = "a model that overflows fails its test"
)]

use super::{Body, Slot, Span, Window};
use crate::{
    committee::InvalidNextCommittee,
    event::{JobId, RequestId},
    job::{CheckedBlock, CommitHeader, EpochEnd},
    ledger::{BufferId, Claimant, Ledger},
    payload::Payload,
    types::{
        AuthorityIndex, BlockDigest, BlockRef, CommitDigest, CommitIndex, CommitRange, CommitRef, Epoch,
        Round,
    },
    verified::Verified,
};
use alloc::{boxed::Box, collections::VecDeque, vec, vec::Vec};
use core::ops::RangeInclusive;
use proptest::prelude::*;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};

/// Commits ahead of genesis, and blocks in each.
const COMMITS: u32 = 8;
const BLOCKS: usize = 3;
/// Commits in an epoch.
const EPOCH: u32 = 3;

/// Where a commit is. Spans are known by the number of what they came with.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    Missing,
    Requested(u64),
    Certifying(u64),
    Certified(Vec<At>),
}

/// Where a block is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Missing,
    Requested(u64),
    Checking(u64),
    Held,
    Staged,
}

#[derive(Clone, Debug)]
struct Model {
    tip: u32,
    /// Those of commits 1, 2 and so on.
    places: Vec<Place>,
    /// A number for each operation.
    next: u64,
}

#[derive(Clone, Debug)]
enum Operation {
    /// Asks for the first gap of a range.
    Request(u32, u32),
    /// The request at a commit comes to nothing.
    ForgetRequest(u32),
    /// The answer to the request at a commit is verified, as far as this.
    Certifying(u32, u32),
    ForgetJob(u32),
    /// Commits are certified wherever none is.
    Certified(u32, u32),
    SetSlot(u32, usize, At),
    ForgetSlot(u32, usize),
    PopFront,
    PopBack(u32),
    StageHeld(u32),
    Clear,
}

impl Model {
    fn place(&self, index: u32) -> &Place {
        &self.places[index as usize - 1]
    }

    fn set(&mut self, index: u32, place: Place) {
        self.places[index as usize - 1] = place;
    }

    fn slots(&self, index: u32) -> Option<&Vec<At>> {
        match self.place(index) {
            Place::Certified(slots) => Some(slots),
            _ => None,
        }
    }

    /// The run of commits in the same unverified stage that begins at `index`.
    fn run(&self, index: u32) -> RangeInclusive<u32> {
        let place = self.place(index);
        let end = (index..=COMMITS).take_while(|at| self.place(*at) == place).last().unwrap();
        index..=end
    }

    /// Whether `index` is the first of an unverified run.
    fn begins(&self, index: u32) -> bool {
        index == 1 || self.place(index - 1) != self.place(index)
    }

    fn gap(&self, from: u32, to: u32) -> Option<RangeInclusive<u32>> {
        let missing = |index: &u32| *self.place(*index) == Place::Missing;
        let start = (from..=to).find(missing)?;
        let end = (start..=to).take_while(missing).last()?;
        Some(start..=end)
    }

    /// As a window that was told to end unverified work at a commit does: what lies behind it in the same run is missing.
    fn cut(&mut self, index: u32) {
        if matches!(self.place(index), Place::Requested(_) | Place::Certifying(_)) {
            for at in self.run(index) {
                self.set(at, Place::Missing);
            }
        }
    }

    fn missing(&self, index: u32) -> usize {
        self.slots(index).map_or(0, |slots| slots.iter().filter(|at| **at == At::Missing).count())
    }

    fn is_complete(&self, index: u32) -> bool {
        self.slots(index).is_some_and(|slots| slots.iter().all(|at| matches!(at, At::Held | At::Staged)))
    }

    /// The last complete commit that follows the tip without a gap.
    fn complete_through(&self) -> u32 {
        (self.tip + 1..=COMMITS).take_while(|index| self.is_complete(*index)).last().unwrap_or(self.tip)
    }
}

impl ReferenceStateMachine for Model {
    type State = Self;
    type Transition = Operation;

    fn init_state() -> BoxedStrategy<Self> {
        Just(Self { tip: 0, places: vec![Place::Missing; COMMITS as usize], next: 0 }).boxed()
    }

    fn transitions(_: &Self) -> BoxedStrategy<Operation> {
        let index = || 1..=COMMITS;
        let at = prop_oneof![
            1 => Just(At::Missing),
            2 => Just(At::Requested(0)),
            1 => Just(At::Checking(0)),
            4 => Just(At::Held)
        ];
        prop_oneof![
            4 => (index(), index()).prop_map(|(from, to)| Operation::Request(from, to)),
            1 => index().prop_map(Operation::ForgetRequest),
            2 => (index(), index()).prop_map(|(start, end)| Operation::Certifying(start, end)),
            1 => index().prop_map(Operation::ForgetJob),
            4 => (index(), 1..4u32).prop_map(|(start, count)| Operation::Certified(start, count)),
            10 => (index(), 0..BLOCKS, at).prop_map(|(index, slot, at)| Operation::SetSlot(index, slot, at)),
            1 => (index(), 0..BLOCKS).prop_map(|(index, slot)| Operation::ForgetSlot(index, slot)),
            2 => Just(Operation::PopFront),
            1 => index().prop_map(Operation::PopBack),
            1 => index().prop_map(Operation::StageHeld),
            1 => Just(Operation::Clear),
        ]
        .boxed()
    }

    fn preconditions(model: &Self, operation: &Operation) -> bool {
        let ahead = |index: u32| index > model.tip;
        match *operation {
            Operation::Request(from, to) => ahead(from) && from <= to,
            Operation::ForgetRequest(at) => {
                matches!(model.place(at), Place::Requested(_)) && model.begins(at)
            }
            Operation::Certifying(start, end) => {
                matches!(model.place(start), Place::Requested(_)) && model.begins(start) && end >= start
            }
            Operation::ForgetJob(at) => matches!(model.place(at), Place::Certifying(_)) && model.begins(at),
            Operation::Certified(start, count) => {
                let end = start + count - 1;
                ahead(start) && end <= COMMITS && (start..=end).all(|index| model.slots(index).is_none())
            }
            Operation::SetSlot(index, ..) | Operation::ForgetSlot(index, _) => model.slots(index).is_some(),
            Operation::PopFront | Operation::PopBack(_) | Operation::StageHeld(_) | Operation::Clear => true,
        }
    }

    fn apply(mut model: Self, operation: &Operation) -> Self {
        model.next += 1;
        let name = model.next;
        match *operation {
            Operation::Request(from, to) => {
                for index in model.gap(from, to).into_iter().flatten() {
                    model.set(index, Place::Requested(name));
                }
            }
            Operation::ForgetRequest(at) | Operation::ForgetJob(at) => {
                for index in model.run(at) {
                    model.set(index, Place::Missing);
                }
            }
            Operation::Certifying(start, end) => {
                for index in model.run(start) {
                    model.set(index, if index <= end { Place::Certifying(name) } else { Place::Missing });
                }
            }
            Operation::Certified(start, count) => {
                for index in start..start + count {
                    model.cut(index);
                    model.set(index, Place::Certified(vec![At::Missing; BLOCKS]));
                }
            }
            Operation::SetSlot(index, slot, at) => {
                if let Place::Certified(slots) = &mut model.places[index as usize - 1] {
                    slots[slot] = at;
                }
            }
            Operation::ForgetSlot(index, slot) => {
                if let Place::Certified(slots) = &mut model.places[index as usize - 1]
                    && slots[slot] == At::Requested(0)
                {
                    slots[slot] = At::Missing;
                }
            }
            Operation::PopFront => {
                let next = model.tip + 1;
                if next <= COMMITS && model.slots(next).is_some() {
                    model.set(next, Place::Missing);
                    model.tip = next;
                }
            }
            Operation::PopBack(above) => {
                let last = (1..=COMMITS).rev().find(|index| model.slots(*index).is_some());
                if let Some(last) = last.filter(|last| *last > above) {
                    model.set(last, Place::Missing);
                }
            }
            Operation::StageHeld(index) => {
                if let Place::Certified(slots) = &mut model.places[index as usize - 1] {
                    slots.iter_mut().filter(|at| **at == At::Held).for_each(|at| *at = At::Staged);
                }
            }
            Operation::Clear => model.places.fill(Place::Missing),
        }
        model
    }
}

/// The window, and a number for each operation, as in the model.
struct Real {
    window: Window,
    tip: u32,
    next: u64,
    buffer: BufferId,
}

fn commit(index: u32) -> CommitIndex {
    CommitIndex::new(index)
}

pub(crate) fn header(index: u32) -> Verified<CommitHeader> {
    let blocks: Vec<_> = (0..BLOCKS as u32).map(|slot| block(index, slot)).collect();
    Verified::new(CommitHeader {
        reference: CommitRef { index: commit(index), digest: CommitDigest::new([index as u8; 32]) },
        previous: CommitDigest::new([index as u8 - 1; 32]),
        timestamp_ms: 0,
        epoch: epoch(index),
        leader: blocks[0],
        blocks: blocks.into(),
        payload: Payload::absent(1, 0),
    })
}

fn epoch(index: u32) -> Epoch {
    Epoch::new(u64::from((index - 1) / EPOCH))
}

fn block(index: u32, slot: u32) -> BlockRef {
    let digest = BlockDigest::new([slot as u8; 32]);
    BlockRef { round: Round::new(index), author: AuthorityIndex::new(slot), digest, epoch: epoch(index) }
}

fn checked(index: u32, at: usize) -> CheckedBlock {
    CheckedBlock {
        reference: block(index, at as u32),
        votes: Vec::new(),
        epoch_end: None,
        payload: Payload::absent(1, 0),
    }
}

fn slot(index: u32, at: usize, to: At, buffer: BufferId) -> Slot {
    match to {
        At::Missing => Slot::Missing,
        At::Requested(name) => Slot::Requested(RequestId::new(name)),
        At::Checking(name) => Slot::Checking(JobId::new(name)),
        At::Held => Slot::Held(Box::new((Verified::new(checked(index, at)), buffer))),
        At::Staged => Slot::Staged,
    }
}

/// Any buffer: the window does not look at which it is.
pub(crate) fn buffer() -> BufferId {
    let mut ledger = Ledger::new(1, 0);
    assert!(ledger.reserve(1, Claimant::Frontier));
    ledger.hold(1, 1).unwrap()
}

impl Real {
    /// What the span at a commit came with.
    fn name(&self, index: u32) -> u64 {
        match self.window.span_at(commit(index)).unwrap().1 {
            Span::Requested { request, .. } => request.get(),
            Span::Certifying { job, .. } => job.get(),
            Span::Certified(_) => panic!("commit {index} is certified"),
        }
    }

    fn certified(&mut self, start: u32, count: u32) {
        let mut bodies = VecDeque::new();
        for index in start..start + count {
            self.window.cut_unverified(commit(index));
            bodies.push_back(Body::new(header(index), None, self.buffer));
        }
        self.window.certified(commit(start), bodies);
    }
}

impl StateMachineTest for Real {
    type SystemUnderTest = Self;
    type Reference = Model;

    fn init_test(_: &Model) -> Self {
        Self { window: Window::default(), tip: 0, next: 0, buffer: buffer() }
    }

    fn apply(mut real: Self, _: &Model, operation: Operation) -> Self {
        real.next += 1;
        let name = real.next;
        match operation {
            Operation::Request(from, to) => {
                let range = CommitRange::new(commit(from), commit(to)).unwrap();
                if let Some(gap) = real.window.first_gap(range) {
                    real.window.request(gap, RequestId::new(name));
                }
            }
            Operation::ForgetRequest(at) => {
                // That of a request of before changes nothing.
                real.window.forget_request(commit(at), RequestId::new(u64::MAX));
                let request = RequestId::new(real.name(at));
                real.window.forget_request(commit(at), request);
            }
            Operation::Certifying(start, end) => {
                let (request, job) = (RequestId::new(real.name(start)), JobId::new(name));
                real.window.certifying(commit(start), RequestId::new(u64::MAX), job, commit(end));
                real.window.certifying(commit(start), request, job, commit(end));
            }
            Operation::ForgetJob(at) => {
                real.window.forget_job(commit(at), JobId::new(u64::MAX));
                let job = JobId::new(real.name(at));
                real.window.forget_job(commit(at), job);
            }
            Operation::Certified(start, count) => real.certified(start, count),
            Operation::SetSlot(index, at, to) => {
                let to = slot(index, at, to, real.buffer);
                if matches!(to, Slot::Held(_)) {
                    real.window.set_slot(commit(index), at, to);
                } else {
                    real.window.set_slots(&[(commit(index), at)], &to);
                }
            }
            Operation::ForgetSlot(index, at) => {
                let from = Slot::Requested(RequestId::new(0));
                real.window.forget_slot(commit(index), at, &from);
            }
            Operation::PopFront => {
                real.tip += u32::from(real.window.pop_front(commit(real.tip + 1)).is_some());
            }
            Operation::PopBack(above) => {
                real.window.pop_back(commit(above));
            }
            Operation::StageHeld(index) => {
                let held = real.window.stage_held(commit(index));
                assert!(held.iter().all(|(block, _)| block.reference.round == Round::new(index)));
            }
            Operation::Clear => {
                real.window.clear().for_each(drop);
            }
        }
        real
    }

    fn check_invariants(real: &Self, model: &Model) {
        let window = &real.window;
        assert_eq!(real.tip, model.tip);
        assert_eq!(window.check_invariants(commit(model.tip), COMMITS), Ok(()));
        for index in 1..=COMMITS {
            assert_eq!(place(window, index), *model.place(index), "commit {index}");
            for to in index..=COMMITS {
                let range = CommitRange::new(commit(index), commit(to)).unwrap();
                let gap = window.first_gap(range).map(|gap| gap.start().get()..=gap.end().get());
                assert_eq!(gap, model.gap(index, to), "the first gap of {range}");
            }
            let asked = match model.place(index) {
                Place::Missing => false,
                Place::Requested(_) | Place::Certifying(_) => true,
                Place::Certified(_) => model.missing(index) == 0,
            };
            assert_eq!(window.is_under_way(commit(index)), asked, "commit {index} is under way");
            let expected = missing_blocks(model, index, 5);
            assert_eq!(window.missing_blocks(commit(index), 5), expected, "missing from {index} on");
        }
        assert_eq!(window.complete_through(commit(model.tip)).get(), model.complete_through());
        let open: Vec<_> = window.open_commits().map(CommitIndex::get).collect();
        let expected: Vec<_> = (1..=COMMITS).filter(|index| model.missing(*index) > 0).collect();
        assert_eq!(open, expected, "commits with blocks that nobody is asked for");
        assert_eq!(window.has_missing_blocks(), !expected.is_empty());
        for index in 1..=COMMITS {
            let pending = model
                .slots(index)
                .map(|slots| slots.iter().filter(|at| !matches!(at, At::Held | At::Staged)).count());
            assert_eq!(window.body(commit(index)).map(Body::pending), pending, "commit {index}");
        }
        for index in model.tip + 1..=COMMITS {
            let below = window.below(commit(index), commit(model.tip), epoch(model.tip + 1));
            let nearest = (model.tip + 1..index).rev().find(|below| model.slots(*below).is_some());
            assert_eq!(below.epoch, nearest.map_or(epoch(model.tip + 1), epoch), "the epoch below {index}");
            let proven = (model.tip + 1..index).all(|below| model.is_complete(below));
            assert_eq!(below.proven, proven, "whether all is known below {index}");
        }
    }
}

/// Where a commit is by the window's word.
fn place(window: &Window, index: u32) -> Place {
    let Some((range, span)) = window.span_at(commit(index)) else { return Place::Missing };
    assert!(range.contains(commit(index)));
    let at = |slot: &Slot| match slot {
        Slot::Missing => At::Missing,
        Slot::Requested(request) => At::Requested(request.get()),
        Slot::Checking(job) => At::Checking(job.get()),
        Slot::Held(_) => At::Held,
        Slot::Staged => At::Staged,
    };
    match span {
        Span::Requested { request, .. } => Place::Requested(request.get()),
        Span::Certifying { job, .. } => Place::Certifying(job.get()),
        Span::Certified(_) => {
            let body = window.body(commit(index)).unwrap();
            assert_eq!(body.header.reference.index.get(), index);
            Place::Certified(body.slots().iter().map(at).collect())
        }
    }
}

/// The first blocks that nobody is asked for from a commit on, all of one epoch.
fn missing_blocks(model: &Model, from: u32, max: usize) -> Vec<(CommitIndex, usize)> {
    let Some(first) = (from..=COMMITS).find(|index| model.missing(*index) > 0) else { return Vec::new() };
    let mut missing = Vec::new();
    for index in (first..=COMMITS).filter(|index| epoch(*index) == epoch(first)) {
        for (slot, at) in model.slots(index).into_iter().flatten().enumerate() {
            if *at == At::Missing {
                missing.push((commit(index), slot));
            }
        }
    }
    missing.truncate(max);
    missing
}

prop_state_machine! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_window_says_other_than_where_each_commit_and_block_is(sequential 1..80 => Real);
}

#[test]
fn an_epochs_end_is_not_that_of_the_first_block_that_says_one() {
    let buffer = buffer();
    let held = |at: usize| {
        let end = EpochEnd::Invalid(InvalidNextCommittee::Empty);
        let block = CheckedBlock { epoch_end: Some(end), ..checked(1, at) };
        Slot::Held(Box::new((Verified::new(block), buffer)))
    };
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2], [1, 2, 0]] {
        let mut body = Body::new(header(1), None, buffer);
        let mut first = BLOCKS;
        for at in order {
            body.set(at, held(at));
            first = first.min(at);
            assert_eq!(body.epoch_end().map(|(block, _)| block), Some(block(1, first as u32)));
        }
    }
}
