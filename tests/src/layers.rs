//! The layers of tests that seeded bugs are held against, the cheapest first (`bug.rs` of the core; the program
//! `seeded_bugs`).
//!
//! A layer is test binaries, or a function that is told one seed after the other: what else can tell whether a seed
//! found something wrong becomes a layer with one line in [`LAYERS`].

use crate::{fuzz::seeded, fuzz_machine::machine_inputs_then_completion};
use soma_sync_core::bug::Bug;
use soma_sync_sim::{
    fault::FaultSet,
    swarm::{Plan, Settings, Theatre, run},
};
use std::cell::RefCell;

/// A layer.
#[derive(Clone, Copy, Debug)]
pub struct Layer {
    /// What its column is called.
    pub name: &'static str,
    /// Its cases.
    pub cases: Cases,
}

/// What a layer's cases are.
#[derive(Clone, Copy, Debug)]
pub enum Cases {
    /// Tests, in this order, those of a binary by name.
    Tests(&'static [Binary]),
    /// Seeds from zero on.
    Seeds {
        /// How many.
        count: u64,
        /// Runs one. It panics, or says in an error, what was found to be wrong.
        run: fn(u64) -> Result<(), String>,
    },
}

/// A test binary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Binary {
    /// The package that it is of.
    pub package: &'static str,
    /// Its name; `None` for the unit tests of the library.
    pub name: Option<&'static str>,
}

/// Unit tests of the core.
pub const fn core_units() -> Binary {
    Binary { package: "soma-sync-core", name: None }
}
/// Tests of the simulator.
pub const fn sim(name: &'static str) -> Binary {
    Binary { package: "soma-sync-sim", name: Some(name) }
}
/// Tests of this crate.
pub const fn tests(name: &'static str) -> Binary {
    Binary { package: "soma-sync-tests", name: Some(name) }
}

/// Those that are always run.
pub const LAYERS: &[Layer] = &[
    Layer { name: "unit", cases: Cases::Tests(&[core_units()]) },
    Layer {
        name: "jobs",
        cases: Cases::Tests(&[
            tests("job_certify"),
            tests("job_check"),
            tests("conformance_formats"),
            tests("conformance_verdicts"),
            tests("conformance_chain"),
            tests("differential"),
        ]),
    },
    Layer { name: "scripts", cases: Cases::Tests(&[tests("scripts")]) },
    Layer { name: "by hand", cases: Cases::Tests(&[tests("by_hand")]) },
    Layer { name: "sequences", cases: Cases::Seeds { count: 2_000, run: sequence } },
    Layer {
        name: "worlds",
        cases: Cases::Tests(&[
            sim("world"),
            sim("catch_up"),
            sim("follow"),
            sim("head"),
            sim("fork"),
            sim("defects"),
            sim("explain"),
            sim("serving"),
        ]),
    },
    Layer { name: SWARM, cases: Cases::Seeds { count: 500, run: network } },
    Layer {
        name: "threats",
        cases: Cases::Tests(&[tests("threats"), tests("seed_defects"), tests("boundaries")]),
    },
];

/// Those that are run only when they are asked for: each bug takes them minutes.
pub const WIDE: &[Layer] = &[Layer { name: "small scopes", cases: Cases::Tests(&[sim("small_scope")]) }];

/// What the layer of whole networks is called.
pub const SWARM: &str = "swarm";

/// The bugs that no seed of the layer of whole networks finds, and why. The program says so where this is not true any
/// more: where a seed finds one of these, and where none finds another.
pub const UNSEEN_BY_SWARM: &[(Bug, &str)] = &[
    (Bug::QuorumAndOne, "in no made chain do votes sum to exactly a quorum"),
    (Bug::UndecodableIsTheSenders, "its committees are sound: they certify nothing that does not decode"),
    (
        Bug::SignaturesByPosition,
        "its committees are sound: what has the right digest has a signature that holds",
    ),
    (Bug::EvictedFrontier, "its blocks are so small that room for the commit after the tip is never short"),
    (Bug::LastEpochEnd, "its committees are sound: all authors say the same of how their epoch ends"),
    (Bug::BlocksOfTwoEpochs, "no embedder there supplies the next committee before the epoch is over"),
    (Bug::BackoffStartsAgain, "it costs a peer that fails requests, and nobody who is honest time"),
    (Bug::PushedOverReconnect, "whoever is not told by a push learns it by a poll, seconds later"),
    (Bug::AvoidedWithoutTimer, "polls wake the machine soon enough"),
    (Bug::RestWithoutTimer, "polls wake the machine soon enough"),
    (Bug::FollowKeepsEpoch, "what was refused is asked for again at once"),
    (Bug::ForkAtTipMissed, "its committees are sound: there is one chain"),
    (Bug::VotesOfKnownDropped, "our own consensus, or the next commit, brings votes too"),
    (
        Bug::VotesOverRewind,
        "a store that is opened again there while its node runs has all that it was given",
    ),
    (
        Bug::CommitteeForgottenEarly,
        "votes for an epoch's last commit come to be stored with it, or from others",
    ),
    (Bug::PrunedServed, "no node there prunes"),
    (Bug::ParkedRefusedAtOnce, "who is refused asks again, and polls: it costs delay at the tip alone"),
    (Bug::SyncedByOldClaims, "what a node says of itself is not judged there"),
];

/// A random sequence of events, and its completion without faults.
fn sequence(seed: u64) -> Result<(), String> {
    const LENGTHS: [usize; 5] = [400, 3_000, 150, 1_000, 60];
    let length = LENGTHS.into_iter().cycle().nth((seed % 5) as usize).unwrap_or(400);
    let outcome = machine_inputs_then_completion(&seeded(seed, length), false);
    outcome.map_or(Ok(()), |outcome| outcome.map(|_| ()))
}

/// A drawn network, judged as strictly as can be: invariants of machines are checked after each event, and every signature
/// verified where it comes, since a job over many blocks is not what is remembered of each.
fn network(seed: u64) -> Result<(), String> {
    thread_local!(static THEATRE: RefCell<Theatre> = RefCell::default());
    let settings = Settings { nodes: 8, commits: 64, faults: FaultSet::all() };
    let plan = Plan { verifies_anew: true, checked_every: 1, ..Plan::draw(seed, settings) };
    let outcome = THEATRE.with_borrow_mut(|theatre| run(&plan, theatre));
    outcome.violation.map_or(Ok(()), |violation| Err(violation.to_string()))
}
