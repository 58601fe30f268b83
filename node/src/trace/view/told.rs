//! A machine that is told what a trace holds, as long as it says what was recorded.

use soma_sync_core::{SyncMachine, command::Command};
use soma_sync_proto::trace::{Mark, ReplayError, TraceEntry, TraceHeader};
use std::panic::{self, AssertUnwindSafe};

/// The machine, or why there is none any more.
pub(super) struct Told {
    machine: Result<Box<SyncMachine>, String>,
}

impl Told {
    pub(super) fn new(header: &TraceHeader) -> Self {
        let why = |error| match error {
            ReplayError::Partial { skipped } => format!("It lacks the first {skipped} events"),
            ReplayError::New(error) => format!("No machine can be made of it ({error})"),
            ReplayError::State(error) => format!("It begins with a state that is not taken ({error})"),
            ReplayError::Trace(error) => format!("It cannot be read ({error})"),
        };
        Self { machine: header.machine().map(Box::new).map_err(why) }
    }

    /// Tells the machine an event. Gives the commands that came of it, each beside the mark that was recorded of it.
    pub(super) fn tell(&mut self, entry: &TraceEntry) -> Vec<Command> {
        let Ok(machine) = &mut self.machine else { return Vec::new() };
        let number = entry.number;
        if entry.unfinished {
            self.machine = Err(format!("The machine did not come back from event {number}"));
            return Vec::new();
        }
        let told = panic::catch_unwind(AssertUnwindSafe(|| {
            machine.handle(entry.at, entry.event.clone());
            std::iter::from_fn(|| machine.poll_command()).collect::<Vec<_>>()
        }));
        let Ok(commands) = told else {
            self.machine = Err(format!("When told again, the machine panics at event {number}"));
            return Vec::new();
        };
        if !commands.iter().map(Mark::of).eq(entry.commands.iter().copied()) {
            self.machine = Err(format!("When told again, the machine says something else at event {number}"));
            return Vec::new();
        }
        commands
    }

    pub(super) fn machine(&self) -> Option<&SyncMachine> {
        self.machine.as_deref().ok()
    }
    /// Why there is no machine any more.
    pub(super) fn lost(&self) -> Option<&str> {
        self.machine.as_ref().err().map(String::as_str)
    }
}
