//! The machine's time: microseconds since the node was started, by tokio's monotonic clock.

use soma_sync_core::time::Timestamp;
use std::time::Duration;
use tokio::time::Instant;

/// A clock with its origin.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: Instant,
}

impl Clock {
    /// A clock that begins now.
    pub(crate) fn start() -> Self {
        Self { origin: Instant::now() }
    }

    /// The time.
    pub(crate) fn now(&self) -> Timestamp {
        let micros = self.origin.elapsed().as_micros();
        Timestamp::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
    }

    /// A moment for tokio's timers. Those too far away to be told from never lie a day ahead.
    pub(crate) fn instant(&self, at: Timestamp) -> Instant {
        const DAY: Duration = Duration::from_secs(24 * 3600);
        let ahead = at.saturating_since(self.now()).min(DAY);
        let since_origin = Duration::from_micros(at.as_micros());
        self.origin
            .checked_add(since_origin)
            .filter(|_| ahead < DAY)
            .unwrap_or_else(|| Instant::now() + ahead)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_moment_differs_between_the_two_times() {
        let clock = Clock::start();
        tokio::time::sleep_until(clock.instant(Timestamp::from_micros(1_500_000))).await;
        // Tokio's timers have a resolution of a millisecond.
        assert_eq!(clock.now().as_micros() / 1000, 1_500);
        let never = clock.instant(Timestamp::from_micros(u64::MAX));
        assert_eq!(never - Instant::now(), Duration::from_secs(24 * 3600));
    }
}
