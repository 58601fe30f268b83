//! How quick a peer is: integers, smoothed over its last answers.

use crate::time::{Timestamp, micros};
use core::time::Duration;

/// Round trip assumed of a peer that has not answered anything yet.
pub(super) const PRIOR_LATENCY: Duration = Duration::from_millis(200);
/// How many times as fast a peer must be to be asked beside another one that is sending.
const OUTPACED_FACTOR: u64 = 4;
/// What is taken for the length of an answer to compare what peers take for it.
const TYPICAL_BYTES: u64 = 64 * 1024;
/// The fewest bytes of an answer that say how fast a peer is: of fewer the time is mostly the round trip.
pub(super) const RATE_BYTES_MIN: u64 = 16 * 1024;

/// How long it takes until a peer answers, and how fast it then is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Pace {
    /// Time from a request for data to the first part of its answer.
    latency_us: Option<u64>,
    /// The same of answers that came: what a time-out costs makes no deadline longer.
    round_trip_us: Option<u64>,
    /// Bytes per second of its answers, from the request to their end.
    rate: Option<u64>,
}
saved! { struct Pace { latency_us, round_trip_us, rate } }

impl Pace {
    /// Time to the first part of an answer, in microseconds, if it is known.
    pub(crate) fn known_latency_us(&self) -> Option<u64> {
        self.latency_us
    }

    /// The same, as far as it is known.
    pub(crate) fn latency_us(&self) -> u64 {
        self.latency_us.unwrap_or(micros(PRIOR_LATENCY)).max(1)
    }

    /// Time to the first part of an answer that comes, in microseconds, as far as it is known.
    pub(crate) fn round_trip_us(&self) -> u64 {
        self.round_trip_us.unwrap_or(micros(PRIOR_LATENCY)).max(1)
    }

    /// Time to the end of an answer, in microseconds. What is not known of it counts as no time.
    pub(crate) fn answer_us(&self) -> u64 {
        let transfer = self.rate.and_then(|rate| (TYPICAL_BYTES * 1_000_000).checked_div(rate));
        self.latency_us().saturating_add(transfer.unwrap_or(0))
    }

    /// The first part of an answer came `after` the request.
    pub(crate) fn answered(&mut self, after: Duration) {
        self.round_trip_us = Some(smoothed(self.round_trip_us, micros(after)));
        self.took(after);
    }

    /// It counts as having taken so long.
    pub(crate) fn took(&mut self, time: Duration) {
        self.latency_us = Some(smoothed(self.latency_us, micros(time)));
    }

    /// So many bytes of an answer have come in so long.
    pub(crate) fn brought(&mut self, bytes: u64, took: Duration) {
        if bytes >= RATE_BYTES_MIN {
            self.rate = Some(smoothed(self.rate, per_second(bytes, took)));
        }
    }

    /// From when on it outpaces another peer, if nothing more comes from that: asked together with it, it would have sent
    /// something by then, and it is four times as fast as what has come until then, so far since the other's answer began.
    pub(crate) fn outpaces_from(&self, answer: &Answer) -> Option<Timestamp> {
        let a_quarter = self.rate? / OUTPACED_FACTOR;
        let fed = Duration::from_micros(answer.received.saturating_mul(1_000_000).checked_div(a_quarter)?);
        let round_trips = Duration::from_micros(self.round_trip_us().saturating_mul(4));
        Some(answer.sent.saturating_add(round_trips).max(answer.began.saturating_add(fed)))
    }
}

/// What has come of a request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answer {
    /// When it was sent, and when the first part came.
    pub(crate) sent: Timestamp,
    pub(crate) began: Timestamp,
    pub(crate) received: u64,
}

/// Bytes per second, where so many came in so long.
fn per_second(bytes: u64, time: Duration) -> u64 {
    let per_second = bytes.saturating_mul(1_000_000).checked_div(micros(time));
    per_second.unwrap_or(u64::MAX)
}

/// An average over the last samples: an eighth is the newest.
fn smoothed(before: Option<u64>, sample: u64) -> u64 {
    before.map_or(sample, |before| before.saturating_mul(7).saturating_add(sample) / 8).max(1)
}
