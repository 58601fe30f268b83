//! Every state that a node can come to in a small scope: the real machine, a few peers of which one lies, a few commits,
//! and a crash and a loss at any moment, in every order (quality: Exhaustive small scope).
//!
//! [`search`] goes breadth first. From each state it takes every step that may come next: a message arrives, or is lost;
//! a job is done; a batch is durable; a peer connects; the node crashes and starts again from what is durable; time
//! passes until the machine's timer is due. States are equal where their normal forms are
//! ([`SyncMachine::normalised`](soma_sync_core::SyncMachine::normalised)). In each one the machine's invariants hold, and
//! so does a plain account of what is stored, handed out and announced; and from each one the node comes to the tip
//! when nothing goes wrong any more and the liar falls silent.
//!
//! What is drawn at random, as jitter and the choice among peers are, is drawn anew in each step, from each of
//! [`Scope::seeds`] seeds. `cargo run --release -p soma-sync-sim --example small_scope` searches a larger scope than the
//! test does.

mod ground;
mod sometimes;
mod state;

pub use sometimes::Sometimes;

use ground::Ground;
use soma_sync_core::stable_hash::StableHasher;
use state::{Action, State};
use std::{
    collections::{BTreeMap, HashMap, HashSet, hash_map::Entry},
    fmt,
    hash::Hash,
};

/// How much there is, and how much may go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Scope {
    /// Commits of the chain.
    pub commits: u32,
    /// Blocks in each.
    pub blocks: u32,
    /// Epochs that the commits are spread over.
    pub epochs: u32,
    /// Most commits in one request.
    pub batch: u32,
    /// Most requests for commits and blocks in flight.
    pub requests: u32,
    /// A state with more messages in flight than this is checked, and not gone on from.
    pub messages: usize,
    /// With how many seeds each step is tried.
    pub seeds: u8,
    /// Whether peers connect one after the other, or in every order.
    pub connect_in_turn: bool,
    /// Whether time passes only where nothing is waited for but the liar and what is lost, or at any moment.
    pub patient: bool,
    /// How often what may go wrong does.
    pub budget: Budget,
}

impl Scope {
    /// Two commits, two honest peers and the liar, one request for commits or blocks at a time, and no faults.
    pub const BASE: Self = Self {
        commits: 2,
        blocks: 1,
        epochs: 1,
        batch: 2,
        requests: 1,
        messages: 4,
        seeds: 1,
        connect_in_turn: true,
        patient: true,
        budget: Budget {
            crashes: 0,
            losses: 0,
            disconnects: 0,
            store_failures: 0,
            worker_deaths: 0,
            timers: 0,
        },
    };

    /// A crash and a loss at any moment, while peers connect in every order.
    const CRASH_AND_LOSS: Self = Self {
        connect_in_turn: false,
        budget: Budget { crashes: 1, losses: 1, timers: 1, ..Self::BASE.budget },
        ..Self::BASE
    };

    /// What is searched with every change.
    pub fn ordinary() -> [Self; 4] {
        let with = |budget| Self { budget, ..Self::BASE };
        let none = Budget::default();
        [
            Self { requests: 2, ..Self::BASE },
            with(Budget { losses: 1, timers: 2, ..none }),
            with(Budget { store_failures: 1, worker_deaths: 1, ..none }),
            Self::CRASH_AND_LOSS,
        ]
    }

    /// What is searched before a larger change is called done: more faults beside one another, and two requests at a time,
    /// of which the search takes a quarter of an hour and 8 GiB of memory.
    pub fn full() -> [Self; 3] {
        let with = |budget| Self { budget, ..Self::BASE };
        let none = Budget::default();
        [
            with(Budget { crashes: 1, store_failures: 1, worker_deaths: 1, ..none }),
            with(Budget { disconnects: 1, ..none }),
            Self { requests: 2, ..Self::CRASH_AND_LOSS },
        ]
    }
}

/// How often what may go wrong still does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Budget {
    /// Crashes of the node.
    pub crashes: u8,
    /// Messages lost, or streams broken.
    pub losses: u8,
    /// Connections cut.
    pub disconnects: u8,
    /// Failures of the store.
    pub store_failures: u8,
    /// Workers that die.
    pub worker_deaths: u8,
    /// Waits for the machine's timer.
    pub timers: u8,
}

macro_rules! spend {
    ($($name:ident $field:ident)*) => {
        impl Budget {
            $(fn $name(mut self) -> Option<Self> {
                self.$field = self.$field.checked_sub(1)?;
                Some(self)
            })*
        }
    };
}
spend! {
    crash crashes
    lose losses
    disconnect disconnects
    store store_failures
    worker worker_deaths
    timer timers
}

/// What a search found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// States.
    pub states: usize,
    /// Steps from one to another.
    pub steps: usize,
    /// The longest of the shortest ways to a state.
    pub depth: usize,
    /// States that were not gone on from, because more messages were in flight than the scope has.
    pub crowded: usize,
    /// Steps without faults that were taken to see that the tip is reached from each state.
    pub fair_steps: usize,
    /// How many steps were seen to lead to each of what should be seen.
    pub seen: BTreeMap<Sometimes, usize>,
}

impl Report {
    /// What should be seen in these searches and was in none.
    pub fn unseen(reports: &[Self]) -> Vec<Sometimes> {
        let is_unseen =
            |sometimes: &Sometimes| reports.iter().all(|report| !report.seen.contains_key(sometimes));
        Sometimes::ALL.into_iter().filter(is_unseen).collect()
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { states, steps, depth, crowded, fair_steps, seen } = self;
        writeln!(f, "{states} states, {steps} steps, depth {depth}, {crowded} too crowded to go on from")?;
        writeln!(f, "the tip is reached from each of them, in {fair_steps} steps in all")?;
        seen.iter().try_for_each(|(sometimes, count)| writeln!(f, "{count:>10} {sometimes:?}"))
    }
}

/// What must not happen, and the way there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// What is wrong.
    pub what: String,
    /// Everything that happened, from the start.
    pub way: Vec<String>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}, after", self.what)?;
        self.way.iter().try_for_each(|action| writeln!(f, "  {action}"))
    }
}

/// Steps without faults in which the tip must be reached. A commit costs a few; what is more is a loop.
const FAIR_STEPS_MAX: usize = 400;

/// A state's name: a hash of it, of which two are never equal by chance.
type Key = [u8; 16];

fn key(value: &impl Hash) -> Key {
    let whole = StableHasher::hash_of(value);
    *whole.first_chunk().expect("32 bytes")
}

struct Search {
    scope: Scope,
    ground: Ground,
    /// How each state was come to.
    known: HashMap<Key, Option<(Key, Action)>>,
    /// States from which the tip is reached, whatever the budget.
    reaches_tip: HashSet<Key>,
    report: Report,
}

/// A state to go on from.
struct Open {
    key: Key,
    /// Without the budget.
    core: Key,
    state: State,
    left: Budget,
}

impl Open {
    fn new(state: State, left: Budget) -> Self {
        let core = key(&state);
        Self { key: key(&(core, left)), core, state, left }
    }
}

/// Searches all states of a scope.
///
/// # Errors
///
/// At the first state in which something is wrong, with a shortest way to it.
///
/// # Panics
///
/// When a chain of the scope cannot be made.
pub fn search(scope: Scope) -> Result<Report, Violation> {
    let ground = Ground::new(&scope);
    let first = Open::new(State::first(&ground), scope.budget);
    let report = Report { states: 1, ..Report::default() };
    let known = HashMap::from([(first.key, None)]);
    let mut search = Search { scope, ground, known, reaches_tip: HashSet::new(), report };
    let mut level = vec![first];
    while !level.is_empty() {
        let mut next = Vec::new();
        for open in level {
            search.visit(open, &mut next)?;
        }
        search.report.depth += usize::from(!next.is_empty());
        level = next;
    }
    Ok(search.report)
}

impl Search {
    /// Looks at a state, and at those that may follow it.
    fn visit(&mut self, open: Open, next: &mut Vec<Open>) -> Result<(), Violation> {
        self.reach_tip(&open)?;
        if open.state.messages() > self.scope.messages {
            self.report.crowded += 1;
            return Ok(());
        }
        for (action, left) in open.state.actions(&self.ground, &self.scope, open.left) {
            for number in 0..self.scope.seeds {
                let step = open.state.step(&mut self.ground, action, number);
                let step = step.map_err(|what| self.violation(what, open.key, Some(action), &[]))?;
                self.report.steps += 1;
                for sometimes in step.seen {
                    *self.report.seen.entry(sometimes).or_default() += 1;
                }
                let after = Open::new(step.state, left);
                if let Entry::Vacant(unknown) = self.known.entry(after.key) {
                    unknown.insert(Some((open.key, action)));
                    self.report.states += 1;
                    next.push(after);
                }
            }
        }
        Ok(())
    }

    /// Goes on without faults until the tip is reached, or a state from which it is known to be.
    fn reach_tip(&mut self, open: &Open) -> Result<(), Violation> {
        let (mut state, mut core) = (open.state.clone(), open.core);
        let mut way = Vec::new();
        let mut taken = Vec::new();
        while !state.is_at_tip(&self.ground) && !self.reaches_tip.contains(&core) {
            if way.len() > FAIR_STEPS_MAX {
                let what = format!("the tip is not reached in {FAIR_STEPS_MAX} steps without faults");
                return Err(self.violation(what, open.key, None, &taken));
            }
            let action = state.fair();
            way.push(core);
            taken.push(action);
            let step = state.step(&mut self.ground, action, 0);
            state = step.map_err(|what| self.violation(what, open.key, None, &taken))?.state;
            core = key(&state);
            self.report.fair_steps += 1;
        }
        self.reaches_tip.extend(way);
        self.reaches_tip.insert(core);
        Ok(())
    }

    fn violation(&self, what: String, at: Key, action: Option<Action>, fair: &[Action]) -> Violation {
        let before = std::iter::successors(self.known[&at], |(before, _)| self.known[before]);
        let mut way: Vec<_> = before.map(|(_, action)| format!("{action:?}")).collect();
        way.reverse();
        way.extend(action.map(|action| format!("{action:?}")));
        way.extend(fair.iter().map(|action| format!("without faults: {action:?}")));
        Violation { what, way }
    }
}
