//! Why a commit is where it is, for people.

use super::{
    SyncMachine,
    requests::{Asked, InFlight},
};
use crate::{
    event::RequestId,
    explain::{self, Ability, Ask, Blocks, Explanation, Obstacle, Stage, Timer},
    ledger::Claimant,
    peers::{Avoided, Link, Peer},
    schedule::{Purpose, share},
    time::Timestamp,
    types::{CommitIndex, PeerId},
    window::{Body, Slot, Span},
};
use alloc::vec::Vec;

impl SyncMachine {
    /// Why the commit at `index` is where it is: its stage, who is asked for it, who could be and why others are not,
    /// what is in the way, and what time will bring. True as of the last event. Any index may be asked about; the work
    /// is bounded by the requests in flight, the peers on record and the look-ahead.
    pub fn explain(&self, index: CommitIndex) -> Explanation {
        let tip = self.tip.reference.index;
        let on_record = || self.peers.iter();
        let shown = |peer: &Peer| peer.link != Link::Down || peer.banned_until() > self.now;
        let avoids = |peer: &Peer| self.avoided(index, peer).map(|avoided| avoided.until);
        Explanation {
            index,
            now: self.now,
            stage: self.stage(index),
            queued: tip,
            awaited: self.window.complete_through(tip).saturating_add(1),
            requests: self
                .requests
                .iter()
                .filter_map(|(id, asked)| self.asks_for(index, id, asked))
                .collect(),
            failed: on_record().filter_map(|(id, peer)| Some((id, avoids(peer)?))).collect(),
            peers: on_record()
                .filter(|(_, peer)| shown(peer))
                .map(|(id, peer)| (id, self.ability(index, peer)))
                .collect(),
            obstacles: self.obstacles(index),
            next: self.next_timer(),
        }
    }

    fn stage(&self, index: CommitIndex) -> Stage {
        let horizon = self.horizon();
        match self.window.span_at(index) {
            _ if index < self.lowest_available => Stage::Pruned { lowest: self.lowest_available },
            _ if index <= self.durable => Stage::Stored {
                certifiable: index <= self.certifiable().index,
                delivered: index <= self.delivered,
            },
            _ if index <= self.tip.reference.index => Stage::Storing,
            Some((_, Span::Requested { .. })) => Stage::Requested,
            Some((_, Span::Certifying { .. })) => Stage::Certifying,
            Some((_, Span::Certified(_))) => {
                Stage::Certified(self.window.body(index).map(Blocks::of).unwrap_or_default())
            }
            None if index > horizon => Stage::Beyond { horizon },
            None => Stage::Missing,
        }
    }

    /// The request, if it asks for the commit or for blocks of it that have not come.
    fn asks_for(&self, index: CommitIndex, id: RequestId, in_flight: &InFlight) -> Option<Ask> {
        let (what, second) = match &in_flight.asked {
            Asked::Chain | Asked::Availability | Asked::Push => return None,
            Asked::Commits(asked) => {
                if !asked.range.contains(index) {
                    return None;
                }
                match asked.purpose {
                    Purpose::Fetch => (explain::Asked::Commit, false),
                    Purpose::Hedge => (explain::Asked::Commit, true),
                    Purpose::Follow => (explain::Asked::CommitToCome, false),
                    Purpose::Votes => (explain::Asked::Votes, false),
                }
            }
            Asked::Blocks(asked) => {
                let rest = asked.positions.iter().skip(asked.answered);
                let count = rest.filter(|(of, _)| *of == index).count();
                if count == 0 {
                    return None;
                }
                (explain::Asked::Blocks(count), asked.hedge)
            }
        };
        let InFlight { peer, sent, received, .. } = *in_flight;
        Some(Ask { id, peer, sent, deadline: in_flight.expires(), received, what, second })
    }

    fn ability(&self, index: CommitIndex, peer: &Peer) -> Ability {
        let ahead = |until: Timestamp| until > self.now;
        let limit = peer.limit.min(share(&self.peers, &self.config));
        let awaited = self.tip.reference.index.next() == Some(index);
        match (peer.claim, self.avoided(index, peer)) {
            _ if ahead(peer.banned_until()) => Ability::Banned { until: peer.banned_until() },
            _ if peer.link != Link::Checked => Ability::NotChecked,
            _ if ahead(peer.backoff_until) => Ability::Resting { until: peer.backoff_until },
            (None, _) => Ability::NoClaim,
            (Some(claim), _) if claim.highest < index => {
                Ability::NotClaimed { highest: claim.highest, cut: claim.cut }
            }
            (Some(claim), _) if claim.lowest > index => Ability::Pruned { lowest: claim.lowest },
            _ if peer.in_flight >= limit => Ability::Full { in_flight: peer.in_flight, limit },
            (_, Some(avoided)) if awaited && !ahead(avoided.at_least_until) => {
                Ability::AtNeed { until: avoided.until }
            }
            (_, Some(avoided)) => Ability::Avoided { until: avoided.until },
            (Some(_), None) => Ability::Able,
        }
    }

    /// That the peer failed to deliver the commit lately, if so.
    fn avoided(&self, index: CommitIndex, peer: &Peer) -> Option<Avoided> {
        peer.avoided.get(&index).copied().filter(|avoided| avoided.until > self.now)
    }

    fn obstacles(&self, index: CommitIndex) -> Vec<Obstacle> {
        // What is durable has no way to go.
        if index <= self.durable {
            return Vec::new();
        }
        let data = self.requests.for_data();
        let limit = self.config.max_requests;
        let full = u32::try_from(data).map_or(true, |data| data >= limit);
        let batches = self.config.max_store_batches;
        let storing = u32::try_from(self.committing()).map_or(true, |storing| storing >= batches);
        let rest = self.local_rest_until;
        let obstacles = [
            self.halted.clone().map(Obstacle::Halted),
            self.stall.map(Obstacle::Stalled),
            (rest > self.now).then_some(Obstacle::LocalRest { until: rest }),
            self.later_epoch_from.filter(|from| *from <= index).map(|from| Obstacle::LaterEpoch { from }),
            self.lacks_bytes(index),
            full.then_some(Obstacle::Requests { limit }),
            storing.then_some(Obstacle::Storage { batches }),
        ];
        obstacles.into_iter().flatten().collect()
    }

    /// Whether the budget has no room for what would be asked for next about the commit.
    fn lacks_bytes(&self, index: CommitIndex) -> Option<Obstacle> {
        let ahead = index > self.tip.reference.index.saturating_add(1);
        let claimant = if ahead { Claimant::Ahead } else { Claimant::Frontier };
        let enlarged = self.enlarged.filter(|(of, _)| *of == index).map(|(_, bytes)| bytes);
        let needed = match self.stage(index) {
            Stage::Missing => Self::commits_reservation(enlarged.unwrap_or(self.config.answer_bytes())),
            Stage::Certified(blocks) if blocks.missing > 0 => self.config.answer_bytes(),
            Stage::Pruned { .. }
            | Stage::Stored { .. }
            | Stage::Storing
            | Stage::Beyond { .. }
            | Stage::Requested
            | Stage::Certifying
            | Stage::Certified(_) => return None,
        };
        let free = self.ledger.room(claimant);
        (free < needed).then_some(Obstacle::Budget { needed, free })
    }

    /// What [`poll_timeout`](Self::poll_timeout) waits for.
    fn next_timer(&self) -> Option<(Timestamp, Timer)> {
        let requests = self
            .requests
            .iter()
            .map(|(id, in_flight)| (in_flight.expires(), Timer::RequestExpires { id, peer: in_flight.peer }));
        let due = |(peer, known): (PeerId, &Peer)| Some((known.wake(self.now)?, Timer::PeerDue { peer }));
        let rest = Some(self.local_rest_until).filter(|until| *until > self.now);
        let timers = requests
            .chain(self.peers.iter().filter_map(due))
            .chain(rest.map(|at| (at, Timer::LocalRestOver)))
            .chain(self.parking.wake().map(|at| (at, Timer::ParkedExpires)))
            .chain(self.head.wake().map(|at| (at, Timer::SecondRequest)));
        let (_, timer) = timers.min_by_key(|(at, _)| *at)?;
        Some((self.poll_timeout()?, timer))
    }
}

impl Blocks {
    fn of(body: &Body) -> Self {
        body.slots().iter().fold(Self::default(), |mut blocks, slot| {
            let count = match slot {
                Slot::Missing => &mut blocks.missing,
                Slot::Requested(_) => &mut blocks.requested,
                Slot::Checking(_) => &mut blocks.checking,
                Slot::Held(_) => &mut blocks.held,
                Slot::Staged => &mut blocks.staged,
            };
            *count = count.saturating_add(1);
            blocks
        })
    }
}
