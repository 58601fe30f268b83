//! A machine that is told a part of what was recorded.
//!
//! Where events are left out the machine asks for less, and its ids are other ones. Answers find their requests by what
//! was asked: of whom, and for which commits.

use crate::trace::work::Work;
use soma_sync_core::{
    SyncMachine, Timestamp,
    command::{BatchId, Halt},
    event::{Event, JobId, RequestId},
    types::PeerId,
};
use soma_sync_proto::trace::{CommandKind, Judge, Mark, ReplayError, TraceHeader, Watch};
use std::{
    collections::{BTreeMap, VecDeque},
    fmt,
    panic::{self, AssertUnwindSafe},
};

/// An event, and when the machine was told.
pub(super) type Told = (Timestamp, Event);

/// What a run ends in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Violated(&'static str),
    Panicked(String),
    Halted(&'static str),
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Violated(invariant) => write!(f, "an invariant is broken ({invariant})"),
            Self::Panicked(message) => write!(f, "the machine panics ({message})"),
            Self::Halted(kind) => write!(f, "the machine halts ({kind})"),
        }
    }
}

/// What work is about, whatever its id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct About {
    kind: CommandKind,
    peer: Option<PeerId>,
    commits: (u64, u64),
    amount: u64,
}

impl About {
    const fn of(mark: &Mark) -> Self {
        Self { kind: mark.kind, peer: mark.peer, commits: (mark.first, mark.last), amount: mark.amount }
    }
}

/// What recorded ids stood for.
#[derive(Debug, Default)]
pub(super) struct Recorded(BTreeMap<Work, About>);

impl Recorded {
    pub(super) fn learn(&mut self, marks: &[Mark]) {
        self.0.extend(marks.iter().filter_map(|mark| Some((Work::begun_by(mark)?, About::of(mark)))));
    }
}

/// A machine, and which of its ids stand for recorded ones.
#[derive(Clone, Debug)]
pub(super) struct Rerun {
    machine: SyncMachine,
    judge: Judge,
    /// Whether the machine had handed out work before the trace began, whose ids are as recorded.
    begun_before: bool,
    /// Work that the machine has handed out and that no recorded id stands for.
    handed_out: BTreeMap<About, VecDeque<Work>>,
    assigned: BTreeMap<Work, Work>,
    told: Option<Vec<Told>>,
}

impl Rerun {
    pub(super) fn new(header: &TraceHeader) -> Result<Self, ReplayError> {
        let machine = header.machine()?;
        let judge = Judge::new(header, &machine);
        let (handed_out, assigned) = (BTreeMap::new(), BTreeMap::new());
        let begun_before = header.state.is_some();
        Ok(Self { machine, judge, begun_before, handed_out, assigned, told: None })
    }

    /// The same, which keeps what the machine was told, with the ids that it was told.
    pub(super) fn keeping_events(&self) -> Self {
        Self { told: Some(Vec::new()), ..self.clone() }
    }

    pub(super) fn into_events(self) -> Vec<Told> {
        self.told.unwrap_or_default()
    }

    /// Tells the machine these events, up to the first outcome, and says after which of them that is.
    pub(super) fn run(&mut self, events: &[Told], recorded: &Recorded) -> Option<(Outcome, usize)> {
        events.iter().enumerate().find_map(|(position, (at, event))| {
            let event = self.translate(event, recorded);
            if let Some(told) = &mut self.told {
                told.push((*at, event.clone()));
            }
            // After a panic the machine is not used again.
            let told = panic::catch_unwind(AssertUnwindSafe(|| self.tell(*at, event)));
            let outcome = told.unwrap_or_else(|panic| Some(Outcome::Panicked(message(&*panic))));
            outcome.map(|outcome| (outcome, position))
        })
    }

    fn tell(&mut self, at: Timestamp, event: Event) -> Option<Outcome> {
        self.judge.event(at, &event);
        self.machine.handle(at, event);
        let mut halted = None;
        while let Some(command) = self.machine.poll_command() {
            self.judge.command(&command);
            let mark = Mark::of(&command);
            if let Some(work) = Work::begun_by(&mark) {
                self.handed_out.entry(About::of(&mark)).or_default().push_back(work);
            }
            if mark.kind == CommandKind::Halted {
                halted = self.machine.status().halted.as_deref().map(kind_of_halt);
            }
        }
        let violated = self.judge.judge(&self.machine).err().map(Outcome::Violated);
        violated.or(halted.map(Outcome::Halted))
    }

    /// The event with the ids that stand for its own; with one that stands for nothing, where none does.
    fn translate(&mut self, event: &Event, recorded: &Recorded) -> Event {
        const NOTHING: u64 = u64::MAX;
        let mut event = event.clone();
        let Some(old) = Work::of(&event) else { return event };
        let id = self.assign(old, recorded).map_or(NOTHING, Work::id);
        match &mut event {
            Event::ResponsePart { id: request, .. } | Event::RequestFinished { id: request, .. } => {
                *request = RequestId::new(id);
            }
            Event::Verified { id: job, .. } => *job = JobId::new(id),
            // What is stored through such a batch is nothing, not everything.
            Event::Stored { .. } if id == NOTHING => return Event::Tick,
            Event::Stored { through: batch } | Event::StoreFailed { from: batch } => {
                *batch = BatchId::new(id);
            }
            Event::Tick
            | Event::CommitObserved { .. }
            | Event::VotesObserved { .. }
            | Event::CommitteeKnown { .. }
            | Event::PeerConnected { .. }
            | Event::PeerDisconnected { .. }
            | Event::RequestReceived { .. }
            | Event::StoreReopened { .. }
            | Event::Pruned { .. }
            | Event::Broadcasted { .. }
            | Event::Served { .. } => {}
        }
        event
    }

    fn assign(&mut self, old: Work, recorded: &Recorded) -> Option<Work> {
        if let Some(assigned) = self.assigned.get(&old) {
            return Some(*assigned);
        }
        let Some(about) = recorded.0.get(&old) else { return self.begun_before.then_some(old) };
        let assigned = self.handed_out.get_mut(about)?.pop_front()?;
        self.assigned.insert(old, assigned);
        Some(assigned)
    }
}

const fn kind_of_halt(halt: &Halt) -> &'static str {
    match halt {
        Halt::Fork { .. } => "fork",
        Halt::StoreContradicted { .. } => "the store contradicts the chain",
        Halt::PinnedContradicted { .. } => "a pinned commit is contradicted",
        Halt::CertifiedInvalid(_) => "what is certified is invalid",
    }
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| panic.downcast_ref::<String>().cloned()).unwrap_or_else(|| "without a message".to_owned())
}
