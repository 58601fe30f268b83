//! The ledger beside a plain model of it: a list of what is set aside and a list of what is held.
#![allow(clippy::arithmetic_side_effects, reason = "a model that overflows fails its test")]

use super::{BufferId, Claimant, Ledger};
use alloc::vec::Vec;
use proptest::prelude::*;
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest, prop_state_machine};

const CAPACITY: u64 = 100;
const CARVE_OUT: u64 = 30;

/// What should be so. Nothing is counted along the way: sums are taken anew each time.
#[derive(Clone, Debug, Default)]
struct Model {
    /// Bytes of each reservation that has not been given back.
    reserved: Vec<u64>,
    /// Bytes and kept payloads of each message, in the order in which they came; none kept, none held.
    held: Vec<(u64, usize)>,
    peak: u64,
    /// What the last one that asked for bytes was told.
    granted: bool,
}

#[derive(Clone, Debug)]
enum Operation {
    Reserve(u64, Claimant),
    Unreserve(usize),
    /// A reservation becomes a message of which so many payloads are kept.
    Hold(usize, usize),
    KeepMore(usize, usize),
    Release(usize),
}

impl Model {
    fn used(&self) -> u64 {
        let held = self.held.iter().filter(|(_, kept)| *kept > 0).map(|(bytes, _)| bytes);
        self.reserved.iter().chain(held).sum()
    }

    fn room(&self, claimant: Claimant) -> u64 {
        let share = match claimant {
            Claimant::Frontier => CAPACITY,
            Claimant::Ahead => CAPACITY - CARVE_OUT,
        };
        share.saturating_sub(self.used())
    }
}

impl ReferenceStateMachine for Model {
    type State = Self;
    type Transition = Operation;

    fn init_state() -> BoxedStrategy<Self> {
        Just(Self::default()).boxed()
    }

    fn transitions(_: &Self) -> BoxedStrategy<Operation> {
        let claimant = prop_oneof![Just(Claimant::Frontier), Just(Claimant::Ahead)];
        prop_oneof![
            3 => (0..60u64, claimant).prop_map(|(bytes, claimant)| Operation::Reserve(bytes, claimant)),
            1 => (0..6usize).prop_map(Operation::Unreserve),
            2 => (0..6usize, 0..3usize).prop_map(|(which, kept)| Operation::Hold(which, kept)),
            1 => (0..8usize, 0..3usize).prop_map(|(which, more)| Operation::KeepMore(which, more)),
            3 => (0..8usize).prop_map(Operation::Release),
        ]
        .boxed()
    }

    fn preconditions(model: &Self, operation: &Operation) -> bool {
        let is_kept = |which: &usize| model.held.get(*which).is_some_and(|(_, kept)| *kept > 0);
        match operation {
            Operation::Reserve(..) => true,
            Operation::Unreserve(which) | Operation::Hold(which, _) => *which < model.reserved.len(),
            Operation::KeepMore(which, _) => is_kept(which),
            // Also of what is gone already: that must change nothing.
            Operation::Release(which) => *which < model.held.len(),
        }
    }

    fn apply(mut model: Self, operation: &Operation) -> Self {
        match *operation {
            Operation::Reserve(bytes, claimant) => {
                model.granted = bytes <= model.room(claimant);
                if model.granted {
                    model.reserved.push(bytes);
                }
            }
            Operation::Unreserve(which) => {
                model.reserved.remove(which);
            }
            Operation::Hold(which, kept) => {
                let bytes = model.reserved.remove(which);
                model.held.push((bytes, kept));
            }
            Operation::KeepMore(which, more) => model.held[which].1 += more,
            Operation::Release(which) => model.held[which].1 = model.held[which].1.saturating_sub(1),
        }
        model.peak = model.peak.max(model.used());
        model
    }
}

/// The ledger, and what its buffers and reservations are called in the model.
struct Real {
    ledger: Ledger,
    reserved: Vec<u64>,
    buffers: Vec<Option<BufferId>>,
}

impl StateMachineTest for Real {
    type SystemUnderTest = Self;
    type Reference = Model;

    fn init_test(_: &Model) -> Self {
        Self { ledger: Ledger::new(CAPACITY, CARVE_OUT), reserved: Vec::new(), buffers: Vec::new() }
    }

    fn apply(mut real: Self, model: &Model, operation: Operation) -> Self {
        match operation {
            Operation::Reserve(bytes, claimant) => {
                assert_eq!(real.ledger.reserve(bytes, claimant), model.granted);
                if model.granted {
                    real.reserved.push(bytes);
                }
            }
            Operation::Unreserve(which) => real.ledger.unreserve(real.reserved.remove(which)),
            Operation::Hold(which, kept) => {
                let buffer = real.ledger.hold(real.reserved.remove(which), kept);
                assert_eq!(buffer.is_some(), kept > 0);
                assert!(buffer.is_none() || !real.buffers.contains(&buffer), "an id is used twice");
                real.buffers.push(buffer);
            }
            Operation::KeepMore(which, more) => real.ledger.keep_more(real.buffers[which].unwrap(), more),
            Operation::Release(which) => {
                if let Some(buffer) = real.buffers[which] {
                    real.ledger.release(buffer);
                }
            }
        }
        real
    }

    fn check_invariants(real: &Self, model: &Model) {
        let ledger = &real.ledger;
        assert_eq!((ledger.used(), ledger.peak()), (model.used(), model.peak));
        for claimant in [Claimant::Frontier, Claimant::Ahead] {
            assert_eq!(ledger.room(claimant), model.room(claimant), "{claimant:?}");
        }
        let kept: usize = model.held.iter().map(|(_, kept)| kept).sum();
        assert_eq!(ledger.check_invariants(model.reserved.iter().sum(), kept as u64), Ok(()));
    }
}

prop_state_machine! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_ledger_counts_other_bytes_than_are_set_aside_and_held(sequential 1..60 => Real);
}

#[test]
fn a_ledger_that_is_wrong_passes_for_a_right_one() {
    let mut ledger = Ledger::new(100, 10);
    assert!(ledger.reserve(90, Claimant::Ahead) && ledger.reserve(10, Claimant::Frontier));
    ledger.hold(60, 2).expect("two payloads are kept");
    assert_eq!(ledger.check_invariants(40, 2), Ok(()), "the budget may be used up");
    assert!(ledger.check_invariants(41, 2).is_err() && ledger.check_invariants(40, 1).is_err());
    let over = Ledger { reserved: 41, ..ledger.clone() };
    assert!(over.check_invariants(41, 2).is_err());
    let lost = Ledger { held: 59, ..ledger };
    assert!(lost.check_invariants(40, 2).is_err());
}
