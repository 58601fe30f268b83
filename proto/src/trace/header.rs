//! What a machine was made of.

use super::{
    ReplayError, STATE_BYTES_MAX, VERSION,
    convert::{self, Converted, Malformed},
    pb,
};
use bytes::Bytes;
use soma_sync_core::{SyncMachine, config::Config, start::Start, time::Timestamp};

/// What a trace begins with: all that the machine was made of, and who recorded it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceHeader {
    /// Who recorded: program, version, features. For people.
    pub build: String,
    /// Whether the bytes of payloads are kept where they come in.
    pub full: bool,
    /// The machine's configuration.
    pub config: Config,
    /// The state of storage that it began from.
    pub start: Start,
    /// What its random draws come from.
    pub seed: [u8; 32],
    /// When it was made, by its own clock.
    pub started: Timestamp,
    /// The same by the wall clock, in milliseconds since the Unix epoch; 0 where that is not known. Informative.
    pub started_unix_ms: u64,
    /// How many events came before the first one that is kept. Where there were any, and no [`state`](Self::state) is there,
    /// the trace cannot be replayed.
    pub skipped_events: u64,
    /// The machine before the first event that is kept, as [`SyncMachine::save`] has it; `None` where it is one that was just
    /// made. One of more than [`STATE_BYTES_MAX`] is left out when it is written.
    pub state: Option<Bytes>,
}

impl TraceHeader {
    /// The machine before the first event that is kept.
    ///
    /// # Errors
    /// Where none can be made of this, or events are missing and there is no state to go on from.
    pub fn machine(&self) -> Result<SyncMachine, ReplayError> {
        match &self.state {
            Some(state) => Ok(SyncMachine::restore(state)?),
            None if self.skipped_events > 0 => Err(ReplayError::Partial { skipped: self.skipped_events }),
            None => {
                let (config, start) = (self.config.clone(), self.start.clone());
                Ok(SyncMachine::new(config, start, self.started, self.seed)?)
            }
        }
    }

    pub(super) fn write(&self) -> pb::Header {
        pb::Header {
            version: VERSION,
            build: self.build.clone(),
            full: self.full,
            config: Some(convert::config::write(&self.config)),
            start: Some(convert::start::write(&self.start)),
            seed: Bytes::copy_from_slice(&self.seed),
            started_us: self.started.as_micros(),
            started_unix_ms: self.started_unix_ms,
            skipped_events: self.skipped_events,
            state: self.state.clone().filter(|state| state.len() <= STATE_BYTES_MAX).unwrap_or_default(),
        }
    }

    /// The header of a file of our version.
    pub(super) fn read(header: pb::Header) -> Converted<Self> {
        Ok(Self {
            build: header.build,
            full: header.full,
            config: convert::config::read(&header.config.ok_or(Malformed("no configuration"))?)?,
            start: convert::start::read(header.start.ok_or(Malformed("no start"))?)?,
            seed: convert::array(&header.seed)?,
            started: Timestamp::from_micros(header.started_us),
            started_unix_ms: header.started_unix_ms,
            skipped_events: header.skipped_events,
            state: Some(header.state).filter(|state| !state.is_empty()),
        })
    }
}
