//! A running hash of everything that happened: equal hashes, equal runs.

use super::NodeId;
use blake2::{Blake2b256, Digest};
use soma_sync_core::{Command, Event, Timestamp};
use std::hash::{Hash, Hasher};

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
        let mut hasher = Stable(Blake2b256::new_with_prefix(self.0));
        what.hash(&mut hasher);
        self.0 = hasher.0.finalize().into();
    }

    pub(super) const fn get(self) -> [u8; 32] {
        self.0
    }
}

/// Feeds a cryptographic hash, with every number in little-endian order and `usize` as 64 bits, so that the platform
/// does not matter.
struct Stable(Blake2b256);

impl Hasher for Stable {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }
    fn write_u16(&mut self, number: u16) {
        self.write(&number.to_le_bytes());
    }
    fn write_u32(&mut self, number: u32) {
        self.write(&number.to_le_bytes());
    }
    fn write_u64(&mut self, number: u64) {
        self.write(&number.to_le_bytes());
    }
    fn write_u128(&mut self, number: u128) {
        self.write(&number.to_le_bytes());
    }
    fn write_usize(&mut self, number: usize) {
        self.write_u64(number as u64);
    }
    fn write_isize(&mut self, number: isize) {
        self.write_u64(number as u64);
    }
    /// Nobody asks for it: the hash is taken whole.
    fn finish(&self) -> u64 {
        0
    }
}
