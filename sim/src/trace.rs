//! What a node of a world was told, as a trace file.

use crate::world::{NodeId, Recorded, World};
use soma_sync_proto::trace::{TraceHeader, record};
use std::io::{self, Write};

/// Writes as a trace what a node has been told in its present life, and gives the output back. Its machine is told the
/// same again for it; where that panics the trace ends with the event that it did not come back from. The node must have
/// been [recorded](World::record) before its first event.
///
/// # Errors
/// Where writing fails, or the node is not recorded.
pub fn write_trace<W: Write>(output: W, world: &World, node: NodeId) -> io::Result<W> {
    let recorded = world.life(node).ok_or_else(|| io::Error::other("the node is not recorded"))?;
    let Recorded { config, start, seed, started, events } = recorded;
    let header = TraceHeader {
        build: concat!("soma-sync-sim ", env!("CARGO_PKG_VERSION")).to_owned(),
        full: false,
        config: config.clone(),
        start: start.clone(),
        seed: *seed,
        started: *started,
        started_unix_ms: 0,
        skipped_events: 0,
        state: None,
    };
    record(output, &header, events.iter().cloned())
}
