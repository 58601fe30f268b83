//! The machine's state as bytes and back (feature `trace`).

use super::SyncMachine;
use crate::{
    bcs::Cursor,
    config::Config,
    saved::{RestoreError, Restorer, Saved, Saver},
};
use alloc::vec::Vec;

impl SyncMachine {
    /// Which layout [`save`](Self::save) writes and [`restore`](Self::restore) reads: another number for each version
    /// of this crate whose machine has other fields, or the same ones in another order.
    pub const STATE_LAYOUT: u32 = 1;

    /// The whole state, to be kept until [`restore`](Self::restore) makes the same machine of it; `None` while commands
    /// wait to be [polled](Self::poll_command). For traces, and for this layout alone
    /// ([`STATE_LAYOUT`](Self::STATE_LAYOUT)): a node that starts anew begins from its store.
    ///
    /// Of payloads it has length and fingerprint, as equality does. It takes a few kilobytes, some hundred bytes a peer,
    /// each committee's encoding once, and about 48 bytes for each block of the commits ahead of the tip.
    pub fn save(&self) -> Option<Vec<u8>> {
        if !self.commands.is_empty() {
            return None;
        }
        let mut to = Saver::default();
        to.raw(&Self::STATE_LAYOUT.to_le_bytes());
        Saved::save(self, &mut to);
        Some(to.into_bytes())
    }

    /// The machine that was [saved](Self::save): equal to it, and from the same events on it says the same. Its payloads
    /// have no bytes, so that jobs over them cannot be run
    /// ([`Payload::absent`](crate::payload::Payload::absent)).
    ///
    /// Total: bytes that are damaged are refused, or make a machine of which
    /// [`check_invariants`](Self::check_invariants) holds; memory is bounded by a small multiple of them. What verdicts
    /// said before is taken on trust, as [`Verified::from_trace`](crate::verified::Verified::from_trace) does, so this is
    /// never for anything that came from a peer.
    ///
    /// # Errors
    /// Where the bytes are of another layout, are not all of one state, or make a machine that is not sound.
    pub fn restore(state: &[u8]) -> Result<Self, RestoreError> {
        let mut cursor = Cursor::new(state);
        let (found, expected) = (cursor.u32()?, Self::STATE_LAYOUT);
        if found != expected {
            return Err(RestoreError::Layout { found, expected });
        }
        // It comes first, and bounds of the rest derive from it.
        let config = Config::restore(&mut Restorer::new(cursor.clone(), Config::default()))?;
        config.validate()?;
        let mut from = Restorer::new(cursor, config);
        let machine = <Self as Saved>::restore(&mut from)?;
        from.finish()?;
        machine.check_invariants().map_err(RestoreError::Inconsistent)?;
        Ok(machine)
    }
}
