//! Requests of peers that wait here for a commit: the server's half of following the tip (protocol: The messages).
//!
//! Bounded: at most `max_parked` in all and `max_parked_per_peer` of one peer, each until its own time is up.

use crate::{
    bug::{Bug, has},
    event::InboundId,
    request::FetchCommits,
    time::Timestamp,
    types::{CommitIndex, PeerId},
};
use alloc::{
    collections::{BTreeMap, BTreeSet},
    vec::Vec,
};

/// The waiting requests, by the commit that they wait for, and first come, first served.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Parking {
    by_start: BTreeMap<(CommitIndex, InboundId), Parked>,
    by_end: BTreeSet<(Timestamp, CommitIndex, InboundId)>,
    /// What each waits for.
    by_id: BTreeMap<InboundId, CommitIndex>,
}
saved! { struct Parking { by_start, by_end, by_id } }

/// A request that waits.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Parked {
    pub(crate) peer: PeerId,
    pub(crate) fetch: FetchCommits,
    until: Timestamp,
}
saved! { struct Parked { peer, fetch, until } }

impl Parking {
    /// Lets a request wait.
    pub(crate) fn park(&mut self, id: InboundId, peer: PeerId, fetch: FetchCommits, until: Timestamp) {
        let start = fetch.start;
        if let Some(before) = self.by_start.insert((start, id), Parked { peer, fetch, until }) {
            self.by_end.remove(&(before.until, start, id));
        }
        self.by_end.insert((until, start, id));
        self.by_id.insert(id, start);
    }

    /// Requests that wait for `index` or a commit below it, each with what it waits for.
    pub(crate) fn ready(&self, index: CommitIndex) -> impl Iterator<Item = (CommitIndex, InboundId)> {
        self.by_start.range(..=(index, InboundId::new(u64::MAX))).map(|(key, _)| *key)
    }

    /// Takes out a request whose time is up.
    pub(crate) fn pop_expired(&mut self, now: Timestamp) -> Option<InboundId> {
        let (_, start, id) = self
            .by_end
            .first()
            .filter(|(until, ..)| (*until <= now) != has(Bug::ParkedRefusedAtOnce))
            .copied()?;
        self.take(start, id);
        Some(id)
    }

    /// Takes out a request that waits for `start`.
    pub(crate) fn take(&mut self, start: CommitIndex, id: InboundId) -> Option<Parked> {
        let parked = self.by_start.remove(&(start, id))?;
        self.by_end.remove(&(parked.until, start, id));
        self.by_id.remove(&id);
        Some(parked)
    }

    /// Takes out a request, whatever it waits for.
    pub(crate) fn withdraw(&mut self, id: InboundId) -> Option<Parked> {
        let start = self.by_id.get(&id).copied()?;
        self.take(start, id)
    }

    /// Takes out all requests of a peer.
    pub(crate) fn take_all_of(&mut self, peer: PeerId) -> Vec<InboundId> {
        let of_peer = self.by_start.iter().filter(|(_, parked)| parked.peer == peer);
        let keys: Vec<_> = of_peer.map(|(key, _)| *key).collect();
        for (start, id) in &keys {
            self.take(*start, *id);
        }
        keys.into_iter().map(|(_, id)| id).collect()
    }

    /// How many requests of a peer wait.
    pub(crate) fn count_of(&self, peer: PeerId) -> usize {
        self.by_start.values().filter(|parked| parked.peer == peer).count()
    }

    pub(crate) fn contains(&self, id: InboundId) -> bool {
        self.by_id.contains_key(&id)
    }

    pub(crate) fn len(&self) -> usize {
        self.by_start.len()
    }

    /// When the time of the first one is up.
    pub(crate) fn wake(&self) -> Option<Timestamp> {
        self.by_end.first().map(|(until, ..)| *until)
    }

    /// What must always hold: all orders name the same requests.
    pub(crate) fn check_invariants(&self) -> Result<(), &'static str> {
        let all = |(key, parked): (&(CommitIndex, InboundId), &Parked)| {
            self.by_end.contains(&(parked.until, key.0, key.1)) && self.by_id.get(&key.1) == Some(&key.0)
        };
        let many = self.by_start.len();
        let agree = self.by_end.len() == many && self.by_id.len() == many && self.by_start.iter().all(all);
        if agree { Ok(()) } else { Err("parking: the orders disagree") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::time::Duration;

    fn parked(parking: &mut Parking, id: u64, peer: u8, start: u32, until: u64) {
        let start = CommitIndex::new(start);
        let wait = Duration::from_secs(1);
        let fetch = FetchCommits { start, end: start, max_bytes: 1, wait, with_blocks: true };
        parking.park(InboundId::new(id), PeerId::new([peer; 32]), fetch, Timestamp::from_micros(until));
        assert_eq!(parking.check_invariants(), Ok(()));
    }

    fn four() -> Parking {
        let mut parking = Parking::default();
        parked(&mut parking, 1, 1, 9, 40);
        parked(&mut parking, 2, 2, 8, 30);
        parked(&mut parking, 3, 1, 8, 20);
        parked(&mut parking, 4, 2, 10, 10);
        parking
    }

    #[test]
    fn a_request_is_ready_before_its_commit_or_out_of_turn() {
        let parking = four();
        let ready = |index| -> Vec<_> { parking.ready(CommitIndex::new(index)).map(|(_, id)| id).collect() };
        assert_eq!(ready(7), []);
        assert_eq!(ready(8), [2, 3].map(InboundId::new));
        assert_eq!(ready(9), [2, 3, 1].map(InboundId::new));
    }

    #[test]
    fn a_request_waits_longer_than_it_may() {
        let mut parking = four();
        assert_eq!(parking.wake(), Some(Timestamp::from_micros(10)));
        let now = Timestamp::from_micros(20);
        let expired: Vec<_> = core::iter::from_fn(|| parking.pop_expired(now)).collect();
        assert_eq!(expired, [4, 3].map(InboundId::new));
        assert_eq!((parking.len(), parking.check_invariants()), (2, Ok(())));
    }

    #[test]
    fn what_is_withdrawn_or_of_a_lost_peer_stays() {
        let mut parking = four();
        assert_eq!(parking.take_all_of(PeerId::new([2; 32])), [2, 4].map(InboundId::new));
        assert!(parking.withdraw(InboundId::new(3)).is_some() && !parking.contains(InboundId::new(3)));
        assert_eq!(parking.withdraw(InboundId::new(3)), None);
        assert_eq!((parking.count_of(PeerId::new([1; 32])), parking.len()), (1, 1));
        assert_eq!(parking.check_invariants(), Ok(()));
    }
}
