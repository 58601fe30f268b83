//! Time as an argument. Nothing here reads a clock: whoever drives the machine says what time it is.

use core::{fmt, time::Duration};

/// Microseconds since an origin that the driver chooses and never moves. Monotonic: it never goes back.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);
saved! { struct Timestamp(value) }

impl Timestamp {
    /// The driver's origin.
    pub const ZERO: Self = Self(0);

    /// `micros` microseconds after the origin.
    pub const fn from_micros(micros: u64) -> Self {
        Self(micros)
    }
    /// Microseconds since the origin.
    pub const fn as_micros(self) -> u64 {
        self.0
    }
    /// This moment and `delay` more; stops at the end of representable time (584,000 years).
    pub fn saturating_add(self, delay: Duration) -> Self {
        Self(self.0.saturating_add(micros(delay)))
    }
    /// How long after `earlier` this is; zero where it is not after it.
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

/// A duration in whole microseconds, saturating.
pub(crate) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}us", self.0)
    }
}
