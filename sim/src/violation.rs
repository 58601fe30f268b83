//! What must never happen, and happened.

use crate::world::NodeId;
use soma_sync_core::Timestamp;
use std::fmt;

/// What must hold for every honest node (quality: Safety, Liveness).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Invariant {
    /// Stored commits are the one chain, without gap, with every block of it.
    OneChain,
    /// Only blocks that were made are stored, or found good.
    MadeOnly,
    /// What was said to be durable is there after a crash.
    Durable,
    /// Commits are handed to consumers once in a life, in order, and only when they are durable.
    Broadcast,
    /// What others are told is durable, and certified by a quorum of its own epoch.
    Announced,
    /// An honest peer is never blamed.
    HonestBlamed,
    /// Each provable offence is charged to its sender.
    Uncharged,
    /// Requests in flight, and jobs, are within their caps.
    InFlight,
    /// No answer is longer than a batch.
    Batch,
    /// Bytes held are within the budget.
    Budget,
    /// No node goes on for ever without progress.
    Spinning,
    /// What the machine says must hold between any two events.
    Machine,
    /// Nothing makes an honest node halt: its committees sign one chain.
    Halted,
    /// Once faults stop, every honest node of the core reaches the tip in time.
    Liveness,
    /// Nothing panics.
    Panic,
    /// The same seed goes the same way again.
    Repeats,
}

impl Invariant {
    /// What it is called.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OneChain => "one-chain",
            Self::MadeOnly => "made-only",
            Self::Durable => "durable",
            Self::Broadcast => "broadcast",
            Self::Announced => "announced",
            Self::HonestBlamed => "honest-blamed",
            Self::Uncharged => "uncharged",
            Self::InFlight => "in-flight",
            Self::Batch => "batch",
            Self::Budget => "budget",
            Self::Spinning => "spinning",
            Self::Machine => "machine",
            Self::Halted => "halted",
            Self::Liveness => "liveness",
            Self::Panic => "panic",
            Self::Repeats => "repeats",
        }
    }
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An invariant that does not hold, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Which.
    pub invariant: Invariant,
    /// What was seen, in words.
    pub detail: String,
}

impl Broken {
    /// `invariant` does not hold, as `detail` says.
    pub fn new(invariant: Invariant, detail: impl Into<String>) -> Self {
        Self { invariant, detail: detail.into() }
    }
}

/// `Err` unless something holds; the words are made only then.
pub(crate) fn hold(holds: bool, invariant: Invariant, detail: impl FnOnce() -> String) -> Result<(), Broken> {
    if holds { Ok(()) } else { Err(Broken::new(invariant, detail())) }
}

/// An invariant that broke in a world, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub invariant: Invariant,
    /// When, in the world's time.
    pub at: Timestamp,
    /// By which node; `None` where it was none's yet.
    pub node: Option<NodeId>,
    /// What was seen, in words; several lines where a node is stuck.
    pub detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { invariant, at, node: _, detail } = self;
        write!(
            f,
            "{invariant} at {}.{:06} s: {detail}",
            at.as_micros() / 1_000_000,
            at.as_micros() % 1_000_000
        )
    }
}
