//! Replaying: the same machine, told the same, must say the same.

use super::{Mark, TraceEntry, TraceError, TraceReader, hash::CommandHasher};
use soma_sync_core::{NewError, RestoreError, SyncMachine, Timestamp, command::Command, event::Event};
use std::io::Read;

/// Why a trace cannot be replayed, or not any further.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The trace cannot be read.
    #[error(transparent)]
    Trace(#[from] TraceError),
    /// It does not begin where the machine did, and has no state to go on from.
    #[error(
        "it lacks the first {skipped} events and the state after them: it can be looked at and not be replayed"
    )]
    Partial {
        /// How many events are missing.
        skipped: u64,
    },
    /// No machine can be made of its header.
    #[error("no machine can be made of what its header says")]
    New(#[from] NewError),
    /// It begins with a state that no machine can be made of.
    #[error("no machine can be made of the state that it begins with")]
    State(#[from] RestoreError),
}

/// The first command that is another one than what was recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// What the machine was told, and what came of it when it was recorded.
    pub entry: TraceEntry,
    /// Which of the event's commands, from 0.
    pub position: usize,
    /// What was recorded there; `None` where there was no more.
    pub recorded: Option<Mark>,
    /// What came of it now; `None` where there is no more.
    pub replayed: Option<(Mark, Command)>,
}

/// What became of one event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The same commands came of it.
    Same,
    /// When it was recorded the machine did not come back from it, and now it did.
    Survived,
    /// Other ones did.
    Different(Box<Difference>),
    /// There are no more events.
    End,
}

/// Looks on while a machine is told events. What does nothing is `()`.
pub trait Watch {
    /// The machine is about to be told this, at this time by its clock.
    fn event(&mut self, at: Timestamp, event: &Event);
    /// This came of it.
    fn command(&mut self, command: &Command);
}

impl Watch for () {
    fn event(&mut self, _: Timestamp, _: &Event) {}
    fn command(&mut self, _: &Command) {}
}

/// A machine that is told again what a trace has.
#[derive(Debug)]
pub struct Replay<R> {
    reader: TraceReader<R>,
    machine: SyncMachine,
    hasher: CommandHasher,
}

impl<R: Read> Replay<R> {
    /// Makes the machine.
    ///
    /// # Errors
    /// As [`TraceHeader::machine`](super::TraceHeader::machine).
    pub fn new(reader: TraceReader<R>) -> Result<Self, ReplayError> {
        let machine = reader.header().machine()?;
        Ok(Self { reader, machine, hasher: CommandHasher::default() })
    }

    /// Tells the machine the next event.
    ///
    /// # Panics
    /// Where the machine does: that may be what the trace is about.
    pub fn step(&mut self) -> Result<Step, ReplayError> {
        self.step_watched(&mut ())
    }

    /// The same, while somebody looks on. Where it is [`Step::Different`], what came after the difference is not seen.
    ///
    /// # Panics
    /// Where the machine does.
    pub fn step_watched(&mut self, watch: &mut impl Watch) -> Result<Step, ReplayError> {
        let Some(entry) = self.reader.next_entry()? else { return Ok(Step::End) };
        let TraceEntry { number: _, at, event, commands, unfinished } = entry;
        watch.event(at, &event);
        self.machine.handle(at, event);
        let mut position = 0;
        let difference = loop {
            let replayed = self.machine.poll_command();
            replayed.iter().for_each(|command| watch.command(command));
            let mark = replayed.as_ref().map(|command| Mark::hashed(command, &mut self.hasher));
            let recorded = commands.get(position).copied();
            if mark != recorded && !unfinished {
                break Some((recorded, mark.zip(replayed)));
            }
            if replayed.is_none() {
                break None;
            }
            position += 1;
        };
        let Some((recorded, replayed)) = difference else {
            return Ok(if unfinished { Step::Survived } else { Step::Same });
        };
        let entry = self.reader.last_entry()?;
        Ok(Step::Different(Box::new(Difference { entry, position, recorded, replayed })))
    }

    /// The machine, as it is after the events so far.
    pub const fn machine(&self) -> &SyncMachine {
        &self.machine
    }
    /// What the trace is read with.
    pub const fn reader(&self) -> &TraceReader<R> {
        &self.reader
    }
}
