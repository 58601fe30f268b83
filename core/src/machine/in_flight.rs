//! The requests in flight, and beside them what every event asks of all of them, so that none has to be looked at.

use super::requests::InFlight;
use crate::{event::RequestId, time::Timestamp};
use alloc::{collections::BTreeMap, vec::Vec};

/// The requests in flight, by id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct InFlights {
    by_id: BTreeMap<RequestId, InFlight>,
    /// How many ask for what a peer is said to have.
    for_data: usize,
    /// How many wait at peers for what is to come.
    following: usize,
    /// None of them is over by itself before this.
    none_expires_before: Timestamp,
}
saved! { struct InFlights { by_id, for_data, following, none_expires_before } }

impl InFlights {
    pub(super) fn len(&self) -> usize {
        self.by_id.len()
    }
    pub(super) fn get(&self, id: RequestId) -> Option<&InFlight> {
        self.by_id.get(&id)
    }
    /// A request, to be changed in anything but what it asks for and when it is over.
    pub(super) fn get_mut(&mut self, id: RequestId) -> Option<&mut InFlight> {
        self.by_id.get_mut(&id)
    }
    pub(super) fn values(&self) -> impl Iterator<Item = &InFlight> {
        self.by_id.values()
    }
    pub(super) fn iter(&self) -> impl Iterator<Item = (RequestId, &InFlight)> {
        self.by_id.iter().map(|(id, in_flight)| (*id, in_flight))
    }
    pub(super) fn into_entries(self) -> impl Iterator<Item = (RequestId, InFlight)> {
        self.by_id.into_iter()
    }

    /// How many ask for commits or blocks that a peer is said to have.
    pub(super) fn for_data(&self) -> usize {
        self.for_data
    }
    /// How many wait at peers for what is to come.
    pub(super) fn following(&self) -> usize {
        self.following
    }

    /// Takes in a request that was sent.
    pub(super) fn insert(&mut self, id: RequestId, in_flight: InFlight) {
        let none_before = if self.by_id.is_empty() { in_flight.expires() } else { self.none_expires_before };
        self.none_expires_before = none_before.min(in_flight.expires());
        self.for_data = self.for_data.saturating_add(usize::from(in_flight.is_for_data()));
        self.following = self.following.saturating_add(usize::from(in_flight.is_follow()));
        self.by_id.insert(id, in_flight);
    }

    /// Takes out a request.
    pub(super) fn remove(&mut self, id: RequestId) -> Option<InFlight> {
        let in_flight = self.by_id.remove(&id)?;
        self.for_data = self.for_data.saturating_sub(usize::from(in_flight.is_for_data()));
        self.following = self.following.saturating_sub(usize::from(in_flight.is_follow()));
        Some(in_flight)
    }

    /// Says until when something more must come of a request.
    pub(super) fn set_progress_deadline(&mut self, id: RequestId, at: Timestamp) -> Option<&InFlight> {
        let in_flight = self.by_id.get_mut(&id)?;
        in_flight.progress_deadline = at;
        self.none_expires_before = self.none_expires_before.min(in_flight.expires());
        Some(in_flight)
    }

    /// The requests whose time is up, which the caller takes out.
    pub(super) fn expired(&mut self, now: Timestamp) -> Vec<RequestId> {
        if now < self.none_expires_before {
            return Vec::new();
        }
        let later = self.by_id.values().map(InFlight::expires).filter(|at| *at > now);
        self.none_expires_before = later.min().unwrap_or(now);
        self.iter().filter(|(_, in_flight)| in_flight.expires() <= now).map(|(id, _)| id).collect()
    }

    /// When the first of them is over by itself.
    pub(super) fn expires(&self) -> Option<Timestamp> {
        self.values().map(InFlight::expires).min()
    }

    /// What must always hold: what is kept beside the requests is what they say.
    pub(super) fn check_invariants(&self) -> Result<(), &'static str> {
        let count = |of: fn(&InFlight) -> bool| self.values().filter(|in_flight| of(in_flight)).count();
        match () {
            () if self.for_data != count(InFlight::is_for_data) => Err("requests for data are miscounted"),
            () if self.following != count(InFlight::is_follow) => Err("requests that wait are miscounted"),
            () if self.expires().is_some_and(|first| first < self.none_expires_before) => {
                Err("a request expires before any does")
            }
            () => Ok(()),
        }
    }
}

impl FromIterator<(RequestId, InFlight)> for InFlights {
    fn from_iter<T: IntoIterator<Item = (RequestId, InFlight)>>(entries: T) -> Self {
        let mut requests = Self::default();
        entries.into_iter().for_each(|(id, in_flight)| requests.insert(id, in_flight));
        requests
    }
}
