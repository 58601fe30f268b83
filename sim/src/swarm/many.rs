//! Many seeds, on several threads.

use super::{Outcome, Plan, Settings, Theatre, run};
use crate::{
    fault::{FaultSet, Hits},
    violation::{Invariant, Violation},
};
use blake2::{Blake2b256, Digest};
use soma_sync_core::Timestamp;
use std::{
    collections::BTreeMap,
    num::NonZeroU64,
    ops::Range,
    sync::{
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

/// Violations that are kept with their words; of further ones only the number is.
const MOST_KEPT: usize = 100;

/// How one seed went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// How it went.
    pub outcome: Outcome,
}

/// How many seeds went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// Seeds that were run.
    pub runs: u64,
    /// Seeds with a violation.
    pub violations: u64,
    /// The first hundred of them, in the order of seeds.
    pub failures: Vec<(u64, Violation)>,
    /// Time that passed in all worlds.
    pub simulated: Duration,
    /// Events that all machines handled.
    pub events: u64,
    /// A hash over the hashes of all seeds, in their order.
    pub hash: [u8; 32],
    /// How often each fault took effect.
    pub hits: Hits,
}

/// What is told of each seed, in the order of seeds.
pub type Progress<'a> = dyn FnMut(&Report) + 'a;

impl Summary {
    /// Takes in the next seed.
    pub fn take(&mut self, report: &Report) {
        let Report { seed, outcome } = report;
        self.runs += 1;
        if let Some(violation) = &outcome.violation {
            self.violations += 1;
            if self.failures.len() < MOST_KEPT {
                self.failures.push((*seed, violation.clone()));
            }
        }
        self.simulated += outcome.simulated;
        self.events += outcome.events;
        let mut hasher = Blake2b256::new_with_prefix(self.hash);
        hasher.update(seed.to_le_bytes());
        hasher.update(outcome.hash);
        self.hash = hasher.finalize().into();
        self.hits.merge(&outcome.hits);
    }
}

/// Runs seeds on `jobs` threads (one, where that is zero) until all are done or `stop` is set. What comes out does not
/// depend on the number of threads; where it was stopped, it is about the first seeds.
///
/// Those that `again` can be divided into are run twice, and go the same way both times.
pub fn run_seeds(
    seeds: Range<u64>,
    settings: Settings,
    again: Option<NonZeroU64>,
    jobs: usize,
    stop: &AtomicBool,
    progress: &mut Progress<'_>,
) -> Summary {
    let next = AtomicU64::new(seeds.start);
    let (sender, reports) = mpsc::channel();
    let mut summary = Summary::default();
    thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            let (sender, next, seeds) = (sender.clone(), &next, seeds.clone());
            scope.spawn(move || {
                let mut theatre = Theatre::default();
                while !stop.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if !seeds.contains(&seed) {
                        break;
                    }
                    let mut outcome = run(&Plan::draw(seed, settings), &mut theatre);
                    if again.is_some_and(|again| seed.is_multiple_of(again.get())) {
                        outcome = repeated(outcome, &Plan::draw(seed, settings));
                    }
                    if sender.send(Report { seed, outcome }).is_err() {
                        break;
                    }
                }
            });
        }
        drop(sender);
        let (mut early, mut due) = (BTreeMap::new(), seeds.start);
        for report in reports {
            early.insert(report.seed, report);
            while let Some(report) = early.remove(&due) {
                due += 1;
                summary.take(&report);
                progress(&report);
            }
        }
    });
    summary
}

/// How a plan went, if it goes so again where nothing is remembered of the first time; a violation if it does not.
fn repeated(first: Outcome, plan: &Plan) -> Outcome {
    let second = run(plan, &mut Theatre::default());
    if first == second {
        return first;
    }
    let detail = format!(
        "once {:02x?} at {:?}, then {:02x?} at {:?}",
        first.hash, first.simulated, second.hash, second.simulated
    );
    let violation = Violation { invariant: Invariant::Repeats, at: Timestamp::ZERO, node: None, detail };
    Outcome { violation: Some(violation), ..first }
}

/// Faults of which none can be left out if a seed is to violate what it violates: where it violates anything, those that
/// are on, less each that was not needed when it was its turn. Runs the seed some hundred times at most.
pub fn needed_faults(seed: u64, settings: Settings, theatre: &mut Theatre) -> Option<FaultSet> {
    let plan = Plan::draw(seed, settings);
    let broken = run(&plan, theatre).violation?.invariant;
    let mut needed = plan.on;
    loop {
        let before = needed;
        for fault in before.iter() {
            let fewer = Settings { faults: needed.without(fault), ..settings };
            let violation = run(&Plan::draw(seed, fewer), theatre).violation;
            if violation.is_some_and(|violation| violation.invariant == broken) {
                needed = fewer.faults;
            }
        }
        if needed == before {
            return Some(needed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_that_goes_another_way_again_is_none_that_breaks_something() {
        let settings = Settings { nodes: 3, commits: 4, faults: FaultSet::NONE };
        let plan = Plan::draw(1, settings);
        let first = run(&plan, &mut Theatre::default());
        assert_eq!(first.violation, None);
        assert_eq!(repeated(first.clone(), &plan), first);
        let other = Outcome { hash: [7; 32], ..first };
        let violation = repeated(other, &plan).violation.expect("it went another way");
        assert_eq!(violation.invariant, Invariant::Repeats, "{violation}");
    }
}
