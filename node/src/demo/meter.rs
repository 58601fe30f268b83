//! Rates, and what becomes of peers, from one look at the fresh node to the next.

use super::stage::Peer;
use soma_sync_core::{PeerStatus, Status, command::Offence};
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// What rates are averaged over.
const SPAN: Duration = Duration::from_secs(1);
/// A peer is slow that takes longer than this, and so many times as long as the fastest one.
const SLOW_US: u64 = 100_000;
const SLOW_FACTOR: u64 = 4;

/// How the fresh node sees a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Not met yet.
    Unmet,
    /// Connected.
    Good,
    /// Connected, and much slower than the fastest.
    Slow,
    /// Connected, and has let the time of requests pass, and given nothing.
    Silent,
    /// Kept out, after it did what is provably wrong.
    Banned,
    /// Not connected any more.
    Down,
}

/// A peer at one moment.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct PeerView {
    pub(super) name: String,
    pub(super) standing: Standing,
    pub(super) bytes_per_s: f64,
    pub(super) served_bytes: u64,
}

/// The fresh node at one moment.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct View {
    /// The highest commit that it can certify, and the highest that there is.
    pub(super) height: u32,
    pub(super) target: u32,
    pub(super) commits_per_s: f64,
    pub(super) bytes_per_s: f64,
    pub(super) peers: Vec<PeerView>,
}

struct Sample {
    at: Instant,
    height: u32,
    /// Bytes served by each peer, in the order of the peers.
    bytes: Vec<u64>,
}

/// Looks of the last second.
pub(super) struct Meter {
    peers: Vec<Peer>,
    samples: VecDeque<Sample>,
    standings: Vec<Standing>,
}

impl Meter {
    pub(super) fn new(peers: Vec<Peer>) -> Self {
        let standings = vec![Standing::Unmet; peers.len()];
        Self { peers, samples: VecDeque::new(), standings }
    }

    /// Takes a look; says in words what has become of peers since the last one.
    pub(super) fn look(&mut self, at: Instant, status: &Status, target: u32) -> (View, Vec<String>) {
        let record = |peer: &Peer| status.peers.iter().find(|record| record.id == peer.id);
        let records: Vec<_> = self.peers.iter().map(record).collect();
        let height = status.certifiable.index.get();
        let bytes = records.iter().map(|record| record.map_or(0, |record| record.served_bytes)).collect();
        let sample = Sample { at, height, bytes };
        while self.samples.len() > 1 && self.samples.get(1).is_some_and(|next| next.at + SPAN <= at) {
            self.samples.pop_front();
        }
        let first = self.samples.front().unwrap_or(&sample);
        let seconds = (at - first.at).as_secs_f64();
        let rate =
            |now: u64, then: u64| if seconds > 0.0 { now.saturating_sub(then) as f64 / seconds } else { 0.0 };
        let fastest =
            status.peers.iter().filter(|peer| peer.connected).filter_map(|peer| peer.latency_us).min();
        let mut peers = Vec::with_capacity(self.peers.len());
        let mut news = Vec::new();
        for (position, (peer, record)) in self.peers.iter().zip(&records).enumerate() {
            let (now, then) = (nth(&sample.bytes, position), nth(&first.bytes, position));
            let standing = standing(*record, fastest, self.standings[position]);
            let offence = record.and_then(|record| record.last_offence);
            news.extend(change(&peer.name(), self.standings[position], standing, offence));
            self.standings[position] = standing;
            peers.push(PeerView {
                name: peer.name(),
                standing,
                bytes_per_s: rate(now, then),
                served_bytes: now,
            });
        }
        let view = View {
            height,
            target: target.max(height),
            commits_per_s: rate(height.into(), first.height.into()),
            bytes_per_s: peers.iter().map(|peer| peer.bytes_per_s).sum(),
            peers,
        };
        self.samples.push_back(sample);
        (view, news)
    }
}

fn nth(bytes: &[u64], position: usize) -> u64 {
    bytes.get(position).copied().unwrap_or_default()
}

fn standing(record: Option<&PeerStatus>, fastest_us: Option<u64>, before: Standing) -> Standing {
    let Some(record) = record else { return Standing::Unmet };
    if record.banned_until.is_some() {
        return Standing::Banned;
    }
    if !record.connected {
        return Standing::Down;
    }
    if record.timeouts > 0 && record.served_commits == 0 && record.served_bytes == 0 {
        return Standing::Silent;
    }
    let limit = fastest_us.unwrap_or(u64::MAX).saturating_mul(SLOW_FACTOR).max(SLOW_US);
    // Slow once is slow: nobody wants to read of every change around the limit.
    match record.latency_us {
        Some(latency) if latency > limit => Standing::Slow,
        _ if before == Standing::Slow => Standing::Slow,
        Some(_) | None => Standing::Good,
    }
}

/// What has become of a peer, if that is news.
fn change(name: &str, before: Standing, now: Standing, offence: Option<Offence>) -> Option<String> {
    if before == now {
        return None;
    }
    let was_connected = matches!(before, Standing::Good | Standing::Slow | Standing::Silent);
    Some(match now {
        Standing::Unmet => return None,
        Standing::Good | Standing::Slow | Standing::Silent if before == Standing::Unmet => {
            format!("{name} is connected")
        }
        Standing::Good | Standing::Slow | Standing::Silent if !was_connected => format!("{name} is back"),
        Standing::Good if before == Standing::Silent => format!("{name} answers"),
        Standing::Good => return None,
        Standing::Slow => format!("{name} is slow, and asked for less"),
        Standing::Silent => format!("{name} has let its time pass without an answer, and is asked for less"),
        Standing::Banned => match offence {
            Some(offence) => format!("{name} has sent what is provably wrong and is banned: {offence}"),
            None => format!("{name} is banned"),
        },
        Standing::Down => format!("{name} is gone"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use soma_sync_core::{time::Timestamp, types::PeerId};

    fn record(connected: bool, latency_us: u64) -> PeerStatus {
        PeerStatus {
            id: PeerId::ZERO,
            connected,
            checked: connected,
            claim: None,
            in_flight: 0,
            latency_us: Some(latency_us),
            served_commits: 0,
            served_bytes: 0,
            timeouts: 0,
            offences: 0,
            last_offence: None,
            banned_until: None,
        }
    }

    #[test]
    fn a_peer_is_said_to_be_what_it_is_not() {
        let cases = [
            (None, Standing::Unmet),
            (Some(record(true, 1_000)), Standing::Good),
            (Some(record(true, 99_000)), Standing::Good),
            (Some(record(true, 150_000)), Standing::Slow),
            (Some(PeerStatus { timeouts: 1, ..record(true, 1_000) }), Standing::Silent),
            (Some(PeerStatus { timeouts: 1, served_commits: 1, ..record(true, 1_000) }), Standing::Good),
            (Some(PeerStatus { timeouts: 1, ..record(false, 1_000) }), Standing::Down),
            (Some(PeerStatus { offences: 1, ..record(false, 1_000) }), Standing::Down),
            (
                Some(PeerStatus { banned_until: Some(Timestamp::ZERO), ..record(false, 1_000) }),
                Standing::Banned,
            ),
        ];
        for (record, expected) in cases {
            assert_eq!(standing(record.as_ref(), Some(1_000), Standing::Good), expected, "{record:?}");
        }
        // Where all are slow, none is.
        assert_eq!(standing(Some(&record(true, 150_000)), Some(140_000), Standing::Good), Standing::Good);
    }

    #[test]
    fn a_change_is_not_told_or_told_again() {
        let told = |before, now| change("peer 1", before, now, None).is_some();
        assert!(told(Standing::Unmet, Standing::Good) && told(Standing::Good, Standing::Down));
        assert!(told(Standing::Down, Standing::Good) && told(Standing::Good, Standing::Banned));
        assert!(told(Standing::Good, Standing::Silent) && told(Standing::Silent, Standing::Good));
        assert!(!told(Standing::Banned, Standing::Banned) && !told(Standing::Good, Standing::Good));
    }
}
