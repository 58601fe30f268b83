//! The normal form of the ledger.

use super::{BufferId, Ledger};
use crate::normal::ranks;
use alloc::collections::BTreeMap;
use core::mem;

impl Ledger {
    /// Numbers the buffers from zero on, and forgets what was used once. How each was renamed.
    pub(crate) fn normalise(&mut self) -> BTreeMap<BufferId, BufferId> {
        let names = ranks(self.buffers.keys().copied(), BufferId);
        let buffers = mem::take(&mut self.buffers).into_values().zip(0..);
        self.buffers = buffers.map(|(buffer, rank)| (BufferId(rank), buffer)).collect();
        self.next_buffer = u64::try_from(self.buffers.len()).unwrap_or(u64::MAX);
        self.peak = self.used();
        names
    }
}
