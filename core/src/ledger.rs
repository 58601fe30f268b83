//! The byte budget. Bounded by `max_buffered_bytes`, at every moment, for every sequence of events.
//!
//! A request reserves the bytes of its whole answer before it is sent. As parts arrive, reserved bytes become held
//! bytes: one *buffer* a message, charged whole for as long as any payload in it is kept, because that is what a slice
//! keeps in memory. A part of the budget, the carve-out, is for the frontier only (the lowest commit not yet handed to
//! storage), so that what was fetched ahead can never keep the frontier from going on.

#[cfg(test)]
mod model;
mod normal;

use crate::defence::{Defence, stands};
#[cfg(feature = "trace")]
use crate::saved::{RestoreError, Restorer, Saved, Saver};
use alloc::collections::BTreeMap;

/// A message whose payloads are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct BufferId(u64);
saved! { struct BufferId(value) }

/// Who wants bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Claimant {
    /// Work on the lowest commit that is not yet handed to storage.
    Frontier,
    /// Work ahead of it.
    Ahead,
}

/// Reserved and held bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Ledger {
    capacity: u64,
    carve_out: u64,
    reserved: u64,
    held: u64,
    peak: u64,
    buffers: BTreeMap<BufferId, Buffer>,
    next_buffer: u64,
}

/// But for its size, which the configuration says.
#[cfg(feature = "trace")]
impl Saved for Ledger {
    fn save(&self, to: &mut Saver) {
        let Self { capacity: _, carve_out: _, reserved, held, peak, buffers, next_buffer } = self;
        (*reserved, *held, *peak).save(to);
        buffers.save(to);
        next_buffer.save(to);
    }
    fn restore(from: &mut Restorer<'_>) -> Result<Self, RestoreError> {
        let (reserved, held, peak) = Saved::restore(from)?;
        let (buffers, next_buffer) = Saved::restore(from)?;
        let Self { capacity, carve_out, .. } =
            Self::new(from.config().max_buffered_bytes, from.config().frontier_bytes());
        Ok(Self { capacity, carve_out, reserved, held, peak, buffers, next_buffer })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Buffer {
    bytes: u64,
    /// Payloads of it that are still kept; at least 1.
    kept: u64,
}
saved! { struct Buffer { bytes, kept } }

impl Ledger {
    /// A budget of `capacity` bytes, of which `carve_out` only the frontier may use.
    pub(crate) fn new(capacity: u64, carve_out: u64) -> Self {
        Self { capacity, carve_out, reserved: 0, held: 0, peak: 0, buffers: BTreeMap::new(), next_buffer: 0 }
    }

    /// Bytes reserved and held.
    pub(crate) fn used(&self) -> u64 {
        self.reserved.saturating_add(self.held)
    }

    /// The most that was ever used.
    pub(crate) fn peak(&self) -> u64 {
        self.peak
    }

    /// Bytes that the claimant could set aside.
    pub(crate) fn room(&self, claimant: Claimant) -> u64 {
        let share = match claimant {
            Claimant::Frontier => self.capacity,
            Claimant::Ahead if stands(Defence::FrontierBytes) => self.capacity.saturating_sub(self.carve_out),
            Claimant::Ahead => self.capacity,
        };
        share.saturating_sub(self.used())
    }

    /// Sets `bytes` aside, or does nothing and says `false` where the claimant's share has no room for them.
    pub(crate) fn reserve(&mut self, bytes: u64, claimant: Claimant) -> bool {
        let fits = bytes <= self.room(claimant);
        if fits {
            self.reserved = self.reserved.saturating_add(bytes);
            self.peak = self.peak.max(self.used());
        }
        fits
    }

    /// Gives back bytes that were set aside.
    pub(crate) fn unreserve(&mut self, bytes: u64) {
        self.reserved = self.reserved.saturating_sub(bytes);
    }

    /// Turns `bytes` that were set aside into a held buffer of which `kept` payloads are kept; `None`, and the bytes
    /// given back, where none is.
    pub(crate) fn hold(&mut self, bytes: u64, kept: usize) -> Option<BufferId> {
        self.unreserve(bytes);
        let kept = u64::try_from(kept).unwrap_or(u64::MAX);
        if kept == 0 {
            return None;
        }
        let id = BufferId(self.next_buffer);
        self.next_buffer = self.next_buffer.saturating_add(1);
        self.held = self.held.saturating_add(bytes);
        self.buffers.insert(id, Buffer { bytes, kept });
        Some(id)
    }

    /// `more` payloads of the buffer are kept than were known of.
    pub(crate) fn keep_more(&mut self, id: BufferId, more: usize) {
        if let Some(buffer) = self.buffers.get_mut(&id) {
            buffer.kept = buffer.kept.saturating_add(u64::try_from(more).unwrap_or(u64::MAX));
        }
    }

    /// One payload of the buffer is no longer kept; with the last one, the buffer's bytes are given back.
    pub(crate) fn release(&mut self, id: BufferId) {
        let Some(buffer) = self.buffers.get_mut(&id) else { return };
        buffer.kept = buffer.kept.saturating_sub(1);
        if buffer.kept == 0 {
            self.held = self.held.saturating_sub(buffer.bytes);
            self.buffers.remove(&id);
        }
    }

    /// What must always hold: never over the budget, and held bytes are those of the buffers.
    pub(crate) fn check_invariants(
        &self,
        reserved_by_requests: u64,
        kept_payloads: u64,
    ) -> Result<(), &'static str> {
        let buffers = self.buffers.values();
        let bytes = buffers.clone().fold(0u64, |sum, buffer| sum.saturating_add(buffer.bytes));
        let kept = buffers.fold(0u64, |sum, buffer| sum.saturating_add(buffer.kept));
        match () {
            () if self.used() > self.capacity => Err("ledger: over the budget"),
            () if bytes != self.held => Err("ledger: held bytes are not those of the buffers"),
            () if self.reserved != reserved_by_requests => {
                Err("ledger: reserved bytes are not those of the requests")
            }
            () if kept != kept_payloads => Err("ledger: kept payloads are not those of the window"),
            () => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_fetched_ahead_cannot_take_the_frontiers_share() {
        let mut ledger = Ledger::new(100, 30);
        assert!(ledger.reserve(70, Claimant::Ahead));
        assert!(!ledger.reserve(1, Claimant::Ahead));
        assert!(ledger.reserve(30, Claimant::Frontier));
        assert!(!ledger.reserve(1, Claimant::Frontier));
        assert_eq!(ledger.used(), 100);
    }

    #[test]
    fn a_buffer_is_charged_whole_until_its_last_payload_goes() {
        let mut ledger = Ledger::new(100, 0);
        assert!(ledger.reserve(50, Claimant::Ahead));
        let buffer = ledger.hold(40, 2).unwrap();
        assert_eq!(ledger.used(), 50);
        ledger.release(buffer);
        assert_eq!(ledger.used(), 50);
        ledger.release(buffer);
        assert_eq!(ledger.used(), 10);
        ledger.unreserve(10);
        assert_eq!(ledger.check_invariants(0, 0), Ok(()));
    }

    #[test]
    fn a_message_of_which_nothing_is_kept_costs_nothing() {
        let mut ledger = Ledger::new(100, 0);
        assert!(ledger.reserve(50, Claimant::Ahead));
        assert_eq!(ledger.hold(50, 0), None);
        assert_eq!(ledger.used(), 0);
    }

    #[test]
    fn a_reservation_that_overflows_is_refused() {
        let mut ledger = Ledger::new(u64::MAX, 0);
        assert!(ledger.reserve(u64::MAX, Claimant::Frontier));
        assert!(!ledger.reserve(1, Claimant::Frontier));
    }
}
