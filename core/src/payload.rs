//! Bytes that the machine carries and never reads.

use bytes::Bytes;
use core::{
    fmt,
    hash::{Hash, Hasher},
};

/// An encoded block or commit on its way from the network to a verification job or to storage.
///
/// The machine moves payloads; it learns what they hold only from verdicts. Equality, hashing and traces see the
/// length and the fingerprint alone, so the machine's state can be compared and a trace without payloads replays.
#[derive(Clone)]
pub struct Payload {
    bytes: Bytes,
    len: usize,
    fingerprint: u64,
}

impl Payload {
    /// Wraps bytes as they came. The fingerprint is zero: it costs a pass, and only recording needs it.
    pub const fn new(bytes: Bytes) -> Self {
        Self::with_fingerprint(bytes, 0)
    }
    /// Wraps bytes with a 64-bit fingerprint that the driver computed, because it records a trace.
    pub const fn with_fingerprint(bytes: Bytes, fingerprint: u64) -> Self {
        let len = bytes.len();
        Self { bytes, len, fingerprint }
    }
    /// What stands for a payload in a trace that left the bytes out. A job given one refuses it as malformed.
    pub const fn absent(len: usize, fingerprint: u64) -> Self {
        Self { bytes: Bytes::new(), len, fingerprint }
    }
    /// The bytes, for verification jobs and for storage.
    pub const fn bytes(&self) -> &Bytes {
        &self.bytes
    }
    /// Length in bytes, also of a payload whose bytes were left out.
    pub const fn len(&self) -> usize {
        self.len
    }
    /// Whether there are no bytes at all.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
    /// Sets the fingerprint, as [`Payload::with_fingerprint`] does: for a driver that records, before the machine is told.
    pub const fn set_fingerprint(&mut self, fingerprint: u64) {
        self.fingerprint = fingerprint;
    }
    /// The driver's fingerprint of the bytes, zero where none was computed.
    pub const fn fingerprint(&self) -> u64 {
        self.fingerprint
    }
}

impl From<Bytes> for Payload {
    fn from(bytes: Bytes) -> Self {
        Self::new(bytes)
    }
}

impl PartialEq for Payload {
    fn eq(&self, other: &Self) -> bool {
        (self.len(), self.fingerprint) == (other.len(), other.fingerprint)
    }
}
impl Eq for Payload {}

impl Hash for Payload {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (self.len(), self.fingerprint).hash(state);
    }
}

impl fmt::Debug for Payload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} B, {:016x})", self.len(), self.fingerprint)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_that_nobody_reads_decide_what_is_equal() {
        let payload = |bytes: &'static [u8], fingerprint| {
            Payload::with_fingerprint(Bytes::from_static(bytes), fingerprint)
        };
        assert_eq!(payload(b"one", 1), payload(b"two", 1));
        assert_eq!(payload(b"one", 1), Payload::absent(3, 1));
        assert_ne!(payload(b"one", 1), payload(b"one", 2));
        assert_ne!(payload(b"one", 1), payload(b"four", 1));
    }

    #[test]
    fn a_payload_without_its_bytes_is_of_another_length() {
        let mut payload = Payload::from(Bytes::from_static(b"four"));
        payload.set_fingerprint(7);
        let absent = Payload::absent(4, 7);
        assert_eq!((payload.len(), payload.fingerprint()), (absent.len(), absent.fingerprint()));
        assert!(!payload.is_empty() && !absent.is_empty());
        assert!(Payload::new(Bytes::new()).is_empty());
    }
}
