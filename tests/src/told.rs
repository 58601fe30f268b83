//! What a machine was made of and told: as a trace, and told to a machine again.

use soma_sync_core::{Config, Event, SyncMachine, Timestamp, start::Start};
use soma_sync_proto::trace::{Judge, ReplayError, TraceError, TraceHeader, TraceReader, Watch, record};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What a machine was made of, and its events.
#[derive(Clone, Debug)]
pub struct Told {
    header: TraceHeader,
    /// What it was told, and when.
    pub events: Vec<(Timestamp, Event)>,
}

impl Default for Told {
    fn default() -> Self {
        Self { header: crate::fuzz_trace::header(), events: Vec::new() }
    }
}

impl Told {
    /// Nothing yet, of a machine that is made at time zero.
    pub fn nothing(config: Config, start: Start, seed: [u8; 32]) -> Self {
        let header = TraceHeader {
            build: "random events".to_owned(),
            full: false,
            config,
            start,
            seed,
            started: Timestamp::ZERO,
            started_unix_ms: 0,
            skipped_events: 0,
            state: None,
        };
        Self { header, events: Vec::new() }
    }

    /// What a trace holds.
    ///
    /// # Errors
    ///
    /// Where it cannot be read.
    pub fn read(trace: &[u8]) -> Result<Self, TraceError> {
        let mut reader = TraceReader::open(trace)?;
        let mut events = Vec::new();
        while let Some(entry) = reader.next_entry()? {
            events.push((entry.at, entry.event));
        }
        Ok(Self { header: reader.header().clone(), events })
    }

    /// As a trace, with what comes of each event in this process.
    ///
    /// # Panics
    ///
    /// Where no machine can be made of it.
    pub fn trace(&self) -> Vec<u8> {
        record(Vec::new(), &self.header, self.events.iter().cloned()).expect("a vector takes everything")
    }

    /// The machine before it was told anything.
    ///
    /// # Errors
    ///
    /// Where it cannot work.
    pub fn machine(&self) -> Result<SyncMachine, ReplayError> {
        self.header.machine()
    }

    /// Tells a machine all of it; gives the machine, if nothing was broken.
    ///
    /// # Errors
    ///
    /// What was broken, where something was, or that the machine panicked.
    pub fn tell(&self) -> Result<SyncMachine, String> {
        let mut machine = self.machine().map_err(|error| error.to_string())?;
        let mut judge = Judge::new(&self.header, &machine);
        for (position, (at, event)) in self.events.iter().enumerate() {
            judge.event(*at, event);
            let told = catch_unwind(AssertUnwindSafe(|| {
                machine.handle(*at, event.clone());
                while let Some(command) = machine.poll_command() {
                    judge.command(&command);
                }
                judge.judge(&machine)
            }));
            match told {
                Ok(Ok(())) => {}
                Ok(Err(broken)) => return Err(format!("event {position}: {broken}")),
                Err(_) => return Err(format!("event {position}: the machine panics")),
            }
        }
        Ok(machine)
    }
}
