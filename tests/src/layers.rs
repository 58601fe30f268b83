//! The layers of tests that seeded bugs are held against, the cheapest first (`bug.rs` of the core; the program
//! `seeded_bugs`).
//!
//! A layer is test binaries, or a function that is told one seed after the other: what else can tell whether a seed
//! found something wrong becomes a layer with one line in [`LAYERS`].

use crate::{fuzz::seeded, fuzz_machine::machine_inputs_then_completion};

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

/// All of them.
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
            tests("messages"),
            tests("differential"),
        ]),
    },
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
    Layer {
        name: "threats",
        cases: Cases::Tests(&[tests("threats"), tests("seed_defects"), tests("boundaries")]),
    },
];

/// A random sequence of events, and its completion without faults.
fn sequence(seed: u64) -> Result<(), String> {
    const LENGTHS: [usize; 5] = [400, 3_000, 150, 1_000, 60];
    let length = LENGTHS.into_iter().cycle().nth((seed % 5) as usize).unwrap_or(400);
    let outcome = machine_inputs_then_completion(&seeded(seed, length), false);
    outcome.map_or(Ok(()), |outcome| outcome.map(|_| ()))
}
