//! Which connection stands to which peer: at most one, whoever dialled it. Also who is kept out, and until when.
//!
//! Two nodes that dial each other at the same time have two connections for a moment. Both keep the one that the
//! smaller [`PeerId`] dialled, without a word. A connection that comes later than [`SIMULTANEOUS`] after the one in
//! use is taken instead of it: a peer dials again only when it has lost the old one, which we may not know yet.
//!
//! Bounded by the configuration: connections by `max_connections` and the peers to be dialled, these and bans by
//! `max_peers` each.

use crate::{requests::Line, transport::Connection};
use soma_sync_core::{command::Offence, time::Timestamp, types::PeerId};
use std::{collections::BTreeMap, time::Duration};
use tokio::sync::watch;

/// How long two connections between the same nodes may lie apart and still count as dialled at the same time.
const SIMULTANEOUS: Duration = Duration::from_secs(5);

/// What a task that dials one peer should do. The task ends when nobody can tell it any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DialState {
    /// Reach the peer, but not before this moment.
    Wanted { not_before: Timestamp },
    /// Nothing: there is a connection.
    Connected,
}

/// What became of a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    /// It is the one in use.
    Used {
        /// Tells connections to the same peer apart.
        generation: u64,
        /// Whether another one was in use, and has been closed for it.
        replaced: bool,
    },
    /// It is closed again, for this reason.
    Closed(&'static str),
}

/// A connection in use.
struct Active<C> {
    line: Line<C>,
    generation: u64,
    dialled: bool,
    since: Timestamp,
}

/// The table. It belongs to the driver; nothing here waits.
pub(crate) struct Peers<C> {
    local: PeerId,
    max_connections: usize,
    max_records: usize,
    next_generation: u64,
    active: BTreeMap<PeerId, Active<C>>,
    banned_until: BTreeMap<PeerId, Timestamp>,
    dialled: BTreeMap<PeerId, watch::Sender<DialState>>,
}

impl<C: Connection> Peers<C> {
    /// A table without peers for the node `local`, of at most `max_connections` connections beside those to peers that
    /// it dials, of which there are at most `max_records`, as there are of bans.
    pub(crate) const fn new(local: PeerId, max_connections: usize, max_records: usize) -> Self {
        Self {
            local,
            max_connections,
            max_records,
            next_generation: 0,
            active: BTreeMap::new(),
            banned_until: BTreeMap::new(),
            dialled: BTreeMap::new(),
        }
    }

    /// Adds a peer to be dialled, and returns what its task is to watch. `None` where it is being dialled already, or
    /// is ourselves, or there are too many.
    pub(crate) fn add_dialled(&mut self, now: Timestamp, peer: PeerId) -> Option<watch::Receiver<DialState>> {
        if peer == self.local || self.dialled.contains_key(&peer) || self.dialled.len() >= self.max_records {
            return None;
        }
        let state = if self.active.contains_key(&peer) {
            DialState::Connected
        } else {
            DialState::Wanted { not_before: self.banned_until.get(&peer).copied().unwrap_or(now) }
        };
        let (sender, receiver) = watch::channel(state);
        self.dialled.insert(peer, sender);
        Some(receiver)
    }

    /// Takes a new connection into use, or closes it.
    pub(crate) fn admit(&mut self, now: Timestamp, connection: C, dialled: bool) -> Admission {
        let peer = connection.peer();
        if let Err(reason) = self.admissible(now, peer, dialled) {
            connection.close(reason);
            return Admission::Closed(reason);
        }
        let generation = self.next_generation;
        self.next_generation += 1;
        let before =
            self.active.insert(peer, Active { line: Line::new(connection), generation, dialled, since: now });
        if let Some(before) = &before {
            before.line.close("there is a newer connection");
        }
        self.tell_dialler(peer, DialState::Connected);
        Admission::Used { generation, replaced: before.is_some() }
    }

    fn admissible(&mut self, now: Timestamp, peer: PeerId, dialled: bool) -> Result<(), &'static str> {
        if peer == self.local {
            return Err("this is the node itself");
        }
        if self.banned_until.get(&peer).is_some_and(|until| *until > now) {
            return Err("the peer is kept out for a while");
        }
        self.banned_until.remove(&peer);
        if let Some(active) = self.active.get(&peer) {
            let simultaneous = now.saturating_since(active.since) < SIMULTANEOUS && active.dialled != dialled;
            let by_smaller = dialled == (self.local < peer);
            return if simultaneous && !by_smaller { Err("there is a connection already") } else { Ok(()) };
        }
        if self.active.len() >= self.max_connections && !self.dialled.contains_key(&peer) {
            return Err("there are too many connections");
        }
        Ok(())
    }

    /// The connection in use, if there is one, for our requests.
    pub(crate) fn connection(&self, peer: PeerId) -> Option<&Line<C>> {
        self.active.get(&peer).map(|active| &active.line)
    }

    /// Whether this connection to the peer is the one in use.
    pub(crate) fn is_current(&self, peer: PeerId, generation: u64) -> bool {
        self.active.get(&peer).is_some_and(|active| active.generation == generation)
    }

    /// A connection is lost. Whether it was the one in use.
    pub(crate) fn lost(&mut self, now: Timestamp, peer: PeerId, generation: u64) -> bool {
        let current = self.is_current(peer, generation);
        if current {
            self.remove(peer, now, "the connection was lost");
        }
        current
    }

    /// Closes the connection to a peer and keeps the peer out for a while. Whether there was one.
    pub(crate) fn ban(&mut self, now: Timestamp, peer: PeerId, offence: Offence, ban: Duration) -> bool {
        let until = now.saturating_add(ban);
        self.banned_until.retain(|_, until| *until > now);
        if self.banned_until.len() >= self.max_records {
            let soonest = self.banned_until.iter().min_by_key(|(_, until)| **until).map(|(peer, _)| *peer);
            soonest.and_then(|peer| self.banned_until.remove(&peer));
        }
        self.banned_until.insert(peer, until);
        self.remove(peer, until, &offence.to_string())
    }

    fn remove(&mut self, peer: PeerId, dial_after: Timestamp, reason: &str) -> bool {
        let active = self.active.remove(&peer);
        if let Some(active) = &active {
            active.line.close(reason);
        }
        self.tell_dialler(peer, DialState::Wanted { not_before: dial_after });
        active.is_some()
    }

    fn tell_dialler(&self, peer: PeerId, state: DialState) {
        if let Some(dialler) = self.dialled.get(&peer) {
            dialler.send_replace(state);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel_transport::ChannelConnection;

    const LOCAL: u8 = 5;
    const SMALLER: u8 = 1;
    const LARGER: u8 = 9;
    const BAN: Duration = Duration::from_secs(60);

    fn peer(n: u8) -> PeerId {
        PeerId::new([n; 32])
    }

    fn table() -> Peers<ChannelConnection> {
        Peers::new(peer(LOCAL), 3, 4)
    }

    /// A connection to `n`. The other end is given too, because the connection ends with it.
    fn connection(n: u8) -> (ChannelConnection, ChannelConnection) {
        ChannelConnection::pair(peer(LOCAL), peer(n))
    }

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    async fn is_closed(connection: &ChannelConnection) -> bool {
        tokio::select! {
            biased;
            () = connection.closed() => true,
            () = std::future::ready(()) => false,
        }
    }

    #[tokio::test]
    async fn of_two_connections_dialled_at_once_each_side_keeps_another_one() {
        for (other, ours_is_kept) in [(LARGER, true), (SMALLER, false)] {
            for ours_is_first in [true, false] {
                let mut peers = table();
                let ((ours, _a), (theirs, _b)) = (connection(other), connection(other));
                let mut admit = |dialled| {
                    let connection = if dialled { ours.clone() } else { theirs.clone() };
                    peers.admit(at(1), connection, dialled)
                };
                assert!(matches!(admit(ours_is_first), Admission::Used { replaced: false, .. }));
                let second = admit(!ours_is_first);
                let second_is_kept = ours_is_first != ours_is_kept;
                assert_eq!(matches!(second, Admission::Used { replaced: true, .. }), second_is_kept);
                assert_eq!((is_closed(&ours).await, is_closed(&theirs).await), (!ours_is_kept, ours_is_kept));
            }
        }
    }

    #[tokio::test]
    async fn a_peer_that_lost_its_connection_is_kept_out_by_the_dead_one() {
        let mut peers = table();
        let ((old, _a), (new, _b)) = (connection(LARGER), connection(LARGER));
        let Admission::Used { generation: first, .. } = peers.admit(at(0), old.clone(), true) else {
            panic!()
        };
        let second = peers.admit(at(0).saturating_add(SIMULTANEOUS), new, false);
        let Admission::Used { generation, replaced: true } = second else { panic!("{second:?}") };
        assert!(is_closed(&old).await);
        // The end of the old one, which is noticed later, is not the end of the new one.
        assert!(!peers.lost(at(6), peer(LARGER), first));
        assert!(peers.is_current(peer(LARGER), generation));
        assert!(peers.lost(at(7), peer(LARGER), generation));
        assert!(!peers.lost(at(7), peer(LARGER), generation));
    }

    #[tokio::test]
    async fn a_banned_peer_is_let_in_before_its_time() {
        let mut peers = table();
        let (first, _a) = connection(LARGER);
        let dialling = peers.add_dialled(at(0), peer(LARGER)).unwrap();
        peers.admit(at(0), first.clone(), true);
        assert_eq!(*dialling.borrow(), DialState::Connected);
        assert!(peers.ban(at(10), peer(LARGER), Offence::BadBlock, BAN));
        assert!(is_closed(&first).await);
        assert_eq!(*dialling.borrow(), DialState::Wanted { not_before: at(70) });
        let (early, _b) = connection(LARGER);
        assert!(matches!(peers.admit(at(69), early, false), Admission::Closed(_)));
        let (late, _c) = connection(LARGER);
        assert!(matches!(peers.admit(at(70), late, false), Admission::Used { replaced: false, .. }));
        assert_eq!(*dialling.borrow(), DialState::Connected);
    }

    #[tokio::test]
    async fn bans_pile_up_without_bound() {
        let mut peers = table();
        for n in 10..200 {
            assert!(!peers.ban(at(n.into()), peer(n), Offence::BadBlock, BAN));
            assert!(peers.banned_until.len() <= 4);
        }
        assert!(peers.banned_until.contains_key(&peer(199)));
        assert!(!peers.ban(at(1_000), peer(1), Offence::BadBlock, BAN));
        assert_eq!(peers.banned_until.len(), 1);
    }

    #[tokio::test]
    async fn strangers_fill_the_places_of_peers_that_are_dialled() {
        let mut peers = table();
        let _state = peers.add_dialled(at(0), peer(LARGER)).unwrap();
        let mut others = Vec::new();
        for n in 10..14 {
            let (near, far) = connection(n);
            others.push(far);
            let admitted = matches!(peers.admit(at(0), near, false), Admission::Used { .. });
            assert_eq!(admitted, n < 13, "peer {n}");
        }
        let (wanted, _far) = connection(LARGER);
        assert!(matches!(peers.admit(at(0), wanted, false), Admission::Used { .. }));
    }

    #[tokio::test]
    async fn a_node_talks_to_itself() {
        let mut peers = table();
        assert!(peers.add_dialled(at(0), peer(LOCAL)).is_none());
        let (near, _far) = connection(LOCAL);
        assert!(matches!(peers.admit(at(0), near, false), Admission::Closed(_)));
    }

    #[tokio::test]
    async fn a_peer_is_dialled_by_two_tasks_or_there_are_too_many() {
        let mut peers = table();
        let mut states = Vec::new();
        for n in 10..14 {
            states.push(peers.add_dialled(at(0), peer(n)).unwrap());
            assert!(peers.add_dialled(at(0), peer(n)).is_none());
        }
        assert!(peers.add_dialled(at(0), peer(14)).is_none());
    }
}
