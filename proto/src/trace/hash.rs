//! The hashes of traces: quick ones, which tell things apart and prove nothing.

use soma_sync_core::command::Command;
use std::hash::{Hash, Hasher};
use twox_hash::XxHash3_64;

/// The fingerprint that a recording driver gives a payload: XXH3-64 of its bytes.
pub fn fingerprint(bytes: &[u8]) -> u64 {
    XxHash3_64::oneshot(bytes)
}

/// XXH3-64 with a seed.
pub(super) fn seeded(seed: u64, bytes: &[u8]) -> u64 {
    XxHash3_64::oneshot_with_seed(seed, bytes)
}

/// Hashes commands: collects what their derived [`Hash`] hands over, every number as on a little-endian machine of 64
/// bits, and takes XXH3-64 of it. Payloads count by length and fingerprint, committees by epoch and digest.
///
/// A change to what commands are made of changes their hashes; a test pins them.
#[derive(Debug, Default)]
pub(super) struct CommandHasher {
    buffer: Vec<u8>,
}

impl CommandHasher {
    /// The hash of one command.
    pub(super) fn hash(&mut self, command: &Command) -> u64 {
        self.buffer.clear();
        command.hash(self);
        self.finish()
    }
}

impl Hasher for CommandHasher {
    fn write(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
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
        // No platform has more than 64 bits.
        self.write_u64(number as u64);
    }
    fn write_isize(&mut self, number: isize) {
        self.write(&(number as i64).to_le_bytes());
    }
    fn finish(&self) -> u64 {
        XxHash3_64::oneshot(&self.buffer)
    }
}
