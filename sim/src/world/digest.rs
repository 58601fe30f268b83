//! A running hash of everything that happened: equal hashes, equal runs.

use super::NodeId;
use soma_sync_core::{Command, Event, Timestamp, stable_hash::StableHasher};
use std::hash::Hash;

/// The hash of all steps so far, each over the one before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct History([u8; 32]);

impl History {
    /// Takes in an event that a node is about to handle.
    pub(super) fn event(&mut self, now: Timestamp, node: NodeId, event: &Event) {
        self.take(&(now, node, event));
    }

    /// Takes in the commands that came of it.
    pub(super) fn commands(&mut self, commands: &[Command]) {
        self.take(commands);
    }

    fn take(&mut self, what: &(impl Hash + ?Sized)) {
        let mut hasher = StableHasher::new(&self.0);
        what.hash(&mut hasher);
        self.0 = hasher.finalize();
    }

    pub(super) const fn get(self) -> [u8; 32] {
        self.0
    }
}
