//! Dialling: a task for each peer that the node was told of. It tries for ever, with growing pauses, whenever the
//! driver says that a connection is wanted.

use crate::{
    clock::Clock,
    config::RuntimeConfig,
    mailbox::Arrival,
    peers::DialState,
    transport::{Transport, TransportError},
};
use soma_sync_core::types::PeerId;
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::Instant,
};

/// A connection that was lost sooner than this was not wanted at the other end.
const SHORT: Duration = Duration::from_secs(1);

/// Who is dialled where.
pub(crate) struct Dialler<T: Transport> {
    pub(crate) transport: Arc<T>,
    pub(crate) peer: PeerId,
    pub(crate) address: SocketAddr,
    pub(crate) clock: Clock,
    pub(crate) config: RuntimeConfig,
    pub(crate) arrivals: mpsc::Sender<Arrival<T::Connection>>,
}

impl<T: Transport> Dialler<T> {
    /// Dials whenever `state` says so, until the driver is gone.
    pub(crate) async fn run(self, mut state: watch::Receiver<DialState>) {
        let mut backoff = Backoff::new(&self.config);
        let mut said = None;
        loop {
            let wanted =
                state.wait_for(|state| matches!(state, DialState::Wanted { .. })).await.map(|state| *state);
            let Ok(DialState::Wanted { not_before }) = wanted else { return };
            let at = self.clock.instant(not_before).max(Instant::now()) + backoff.pause();
            tokio::select! {
                changed = state.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return,
                },
                () = tokio::time::sleep_until(at) => {}
            }
            backoff.failed();
            match self.dial().await {
                Ok(connection) => {
                    let (decided, decision) = oneshot::channel();
                    let arrival = Arrival { connection, decided: Some(decided) };
                    if self.arrivals.send(arrival).await.is_err() || decision.await.is_err() {
                        return;
                    }
                    let since = Instant::now();
                    if state.wait_for(|state| *state != DialState::Connected).await.is_err() {
                        return;
                    }
                    let lasted = since.elapsed();
                    backoff.lasted(lasted);
                    if lasted < SHORT {
                        let reason =
                            "the connection was lost at once; the peer may not allow us, or may be leaving";
                        self.say(reason.to_owned(), &mut said);
                    } else {
                        said = None;
                    }
                }
                Err(error) => self.say(format!("dialling failed: {error}"), &mut said),
            }
        }
    }

    /// Says why there is no connection: as a warning the first time that it is this reason, and not each time.
    fn say(&self, reason: String, said: &mut Option<String>) {
        let (peer, address) = (self.peer, self.address);
        if said.as_ref() == Some(&reason) {
            tracing::debug!(%peer, %address, "{reason}");
        } else {
            tracing::warn!(%peer, %address, "{reason}");
            *said = Some(reason);
        }
    }

    async fn dial(&self) -> Result<T::Connection, TransportError> {
        let address = self.address;
        tokio::time::timeout(self.config.dial_timeout, self.transport.dial(self.peer, address))
            .await
            .unwrap_or_else(|_| {
                Err(TransportError::Unreachable { address, reason: "no answer in time".to_owned() })
            })
    }
}

/// The pauses between attempts: none before the first, then doubling, each drawn from the upper half of its span so
/// that nodes that lost one another together do not come back together.
struct Backoff {
    min: Duration,
    max: Duration,
    next: Option<Duration>,
}

impl Backoff {
    const fn new(config: &RuntimeConfig) -> Self {
        Self { min: config.dial_backoff_min, max: config.dial_backoff_max, next: None }
    }

    fn pause(&self) -> Duration {
        self.next.map_or(Duration::ZERO, jittered)
    }

    /// An attempt was made; the next one waits, unless this one leads to a connection that lasts.
    fn failed(&mut self) {
        self.next = Some(self.next.map_or(self.min, |pause| pause.saturating_mul(2)).min(self.max));
    }

    /// A connection stood for so long. Only one that outlived the longest pause shows that the peer wants us.
    fn lasted(&mut self, duration: Duration) {
        if duration >= self.max {
            self.next = Some(self.min);
        }
    }
}

/// Between half of `pause` and all of it.
fn jittered(pause: Duration) -> Duration {
    // Without entropy every pause is the longest, which still works.
    let draw = getrandom::u32().unwrap_or(u32::MAX);
    pause / 2 + (pause / 2).mul_f64(f64::from(draw) / f64::from(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_do_not_grow_or_never_start_over() {
        let config = RuntimeConfig {
            dial_backoff_min: Duration::from_millis(100),
            dial_backoff_max: Duration::from_secs(1),
            ..RuntimeConfig::default()
        };
        let mut backoff = Backoff::new(&config);
        assert_eq!(backoff.pause(), Duration::ZERO);
        for expected_ms in [100, 200, 400, 800, 1000, 1000] {
            backoff.failed();
            let pause = backoff.pause();
            let expected = Duration::from_millis(expected_ms);
            assert!((expected / 2..=expected).contains(&pause), "{pause:?} for {expected:?}");
        }
        backoff.lasted(Duration::from_millis(999));
        assert!(backoff.pause() >= Duration::from_millis(500));
        backoff.lasted(Duration::from_secs(1));
        assert!(backoff.pause() <= Duration::from_millis(100));
    }
}
