//! What a node of a world was told, as a trace file.

use crate::world::{ChainStore, NodeId, World};
use soma_sync_core::{Config, Timestamp};
use soma_sync_proto::trace::{TraceHeader, record};
use std::io::{self, Write};

/// Writes as a trace what a node has been told since it was added, and gives the output back. Its machine is told the
/// same again for it. The node must have been [recorded](World::record) from its first event on, not been restarted, and
/// added at time zero with this configuration and a store that held this.
///
/// # Errors
/// Where writing fails.
pub fn write_trace<W: Write>(
    output: W,
    world: &World,
    node: NodeId,
    config: Config,
    store: &ChainStore,
) -> io::Result<W> {
    let header = TraceHeader {
        build: concat!("soma-sync-sim ", env!("CARGO_PKG_VERSION")).to_owned(),
        full: false,
        config,
        start: store.start(),
        // A machine in its first life draws from its node's identity.
        seed: *world.peer(node).as_bytes(),
        started: Timestamp::ZERO,
        started_unix_ms: 0,
        skipped_events: 0,
    };
    record(output, &header, world.recorded(node).iter().cloned())
}
