//! What to send next: polls, pushes, requests for commits and blocks, jobs for workers.

use super::{
    SyncMachine,
    requests::{Asked, InFlight},
};
use crate::{
    bug::{Bug, has},
    command::Stall,
    defence::{Defence, stands},
    ledger::Claimant,
    peers::Link,
    schedule::{CommitsWanted, Purpose, View, Wanted},
    time::{Timestamp, micros},
    types::{CommitIndex, PeerId},
};
use alloc::vec::Vec;
use core::time::Duration;

/// The shortest pause between two polls of one peer.
const POLL_PAUSE: Duration = Duration::from_millis(100);
/// For how long after a commit of our own consensus' the next ones are expected from there.
const OWN_CONSENSUS_FRESH: Duration = Duration::from_secs(10);

impl SyncMachine {
    /// Sends whatever there is to send now.
    pub(super) fn dispatch(&mut self) {
        self.poll_peers();
        self.push_to_peers();
        self.fetch();
        self.watch_head();
        self.start_jobs();
    }

    /// When a peer that has just been polled is to be polled again.
    pub(super) fn next_poll(&mut self) -> Timestamp {
        let level = self.peers.highest_claim().is_none_or(|highest| highest <= self.certifiable().index);
        let level = level || self.halted.is_some();
        let interval = match (level, self.peers.checked().next().is_some()) {
            (true, true) => self.config.poll_interval_level,
            (false, true) => self.config.poll_interval_behind,
            (_, false) => self.config.wait_interval_when_no_peer_to_sync_content,
        };
        // A tenth of jitter, so that nodes that began together do not ask together for ever.
        let most = if stands(Defence::PollJitter) { micros(interval) / 10 } else { 0 };
        let jitter = Duration::from_micros(self.rng.below(most));
        self.now.saturating_add(interval).saturating_add(jitter)
    }

    /// Brings polls forward once everything that was claimed is here: whether there is more is news that we want.
    fn poll_sooner(&mut self) {
        // Requests that wait at peers bring the news as soon as there is any.
        if self.synced && self.requests.following() > 0 {
            return;
        }
        if self.peers.highest_claim().is_none_or(|highest| highest > self.certifiable().index) {
            return;
        }
        let grown = self.grown;
        for (_, peer) in self.peers.iter_mut() {
            if peer.claim.is_some_and(|claim| claim.polled < grown) {
                peer.next_poll = peer.next_poll.min(peer.last_poll.saturating_add(POLL_PAUSE));
            }
        }
    }

    /// Asks peers whose turn it is which chain they are on, or how far they are. One poll in flight a peer.
    fn poll_peers(&mut self) {
        self.poll_sooner();
        let now = self.now;
        let due: Vec<(PeerId, Link)> = self
            .peers
            .iter_mut()
            .filter(|(_, peer)| peer.link != Link::Down)
            .filter(|(_, peer)| !peer.poll_in_flight || !stands(Defence::SinglePoll))
            .filter(|(_, peer)| now >= peer.next_poll && now >= peer.banned_until())
            .map(|(id, peer)| {
                peer.poll_in_flight = true;
                peer.last_poll = now;
                (id, peer.link)
            })
            .collect();
        for (peer, link) in due {
            match link {
                Link::Down => {}
                Link::Unchecked => self.ask_chain(peer),
                Link::Checked => self.ask_availability(peer),
            }
        }
    }

    /// Tells peers that we believe to be lower how far we are: one message in flight a peer, the newest index wins.
    fn push_to_peers(&mut self) {
        let told = if has(Bug::PushedBeforeDurable) { self.tip.reference } else { self.certifiable() };
        let index = told.index;
        let lower: Vec<PeerId> = self
            .peers
            .iter_mut()
            .filter(|(_, peer)| peer.link == Link::Checked && !peer.push_in_flight && peer.pushed < index)
            .filter(|(_, peer)| peer.claim.is_some_and(|claim| claim.highest < index))
            .map(|(id, peer)| {
                peer.push_in_flight = true;
                peer.pushed = index;
                id
            })
            .collect();
        for peer in lower {
            self.push_commit(peer, index);
        }
    }

    /// Why nothing may be fetched now, if so.
    pub(super) fn blocked(&self) -> Option<Stall> {
        let lag = self.tip.reference.index.get().saturating_sub(self.delivered.get());
        if lag >= self.config.look_ahead_commits {
            return Some(Stall::Consumers { delivered: self.delivered });
        }
        self.stall_ahead()
    }

    /// The last commit that may be asked for.
    pub(super) fn horizon(&self) -> CommitIndex {
        let horizon = self.tip.reference.index.saturating_add(self.config.look_ahead_commits);
        let known = self.later_epoch_from.and_then(CommitIndex::previous);
        known.map_or(horizon, |known| known.min(horizon))
    }

    /// Asks for commits and blocks as far as peers, budget and look-ahead allow.
    fn fetch(&mut self) {
        if self.halted.is_some() || self.blocked().is_some() || self.now < self.local_rest_until {
            return;
        }
        let Some(frontier) = self.tip.reference.index.next() else { return };
        let in_flight = u32::try_from(self.requests.for_data()).unwrap_or(u32::MAX);
        for _ in in_flight..self.config.max_requests {
            let draw = self.rng.next_u64();
            let uncertified = self.uncertified();
            if uncertified.is_none() && self.is_full(frontier) {
                break;
            }
            let view = View {
                config: &self.config,
                window: &self.window,
                peers: &self.peers,
                now: self.now,
                draw,
                tip: self.tip.reference.index,
                horizon: self.horizon(),
                following: self.requests.following(),
                follow: !self.has_own_consensus() && self.no_provider().is_none(),
                uncertified,
                enlarged: self.enlarged,
            };
            let Some(wanted) = view.next() else { break };
            let at_frontier = wanted.lowest().is_some_and(|lowest| lowest <= frontier);
            let claimant = if at_frontier && wanted.exists() { Claimant::Frontier } else { Claimant::Ahead };
            if !self.reserve(&wanted, claimant, frontier) {
                break;
            }
            match wanted {
                Wanted::Commits(commits) => self.fetch_commits(commits),
                Wanted::Blocks(blocks) => {
                    self.ask_blocks(blocks);
                }
            }
        }
    }

    /// Asks for commits, under the committee of the epoch that they should be of.
    fn fetch_commits(&mut self, commits: CommitsWanted) {
        let start = commits.range.start();
        let epoch = match commits.purpose {
            Purpose::Votes => self.tip.epoch,
            Purpose::Fetch | Purpose::Follow | Purpose::Hedge => self.epoch_below(start),
        };
        if self.committees.contains_key(&epoch) {
            self.ask_commits(commits, epoch);
            return;
        }
        // The epoch's end is here and not applied yet: until then there is nobody to hold the answer against.
        self.ledger.unreserve(Self::commits_reservation(commits.max_bytes));
        self.later_epoch_from = Some(self.later_epoch_from.map_or(start, |from| from.min(start)));
    }

    /// Whether there is no room for whatever might be wanted next: nothing of the frontier is, and what is left of the
    /// budget to what lies ahead of it is less than any answer needs.
    fn is_full(&self, frontier: CommitIndex) -> bool {
        let blocks = self.config.answer_bytes();
        let least = if self.window.has_missing_blocks() { blocks } else { Self::commits_reservation(blocks) };
        self.ledger.room(Claimant::Ahead) < least && self.window.is_under_way(frontier)
    }

    /// Whether our own consensus has told us of a commit lately: what is to come, we shall have from there.
    fn has_own_consensus(&self) -> bool {
        let fresh = |at: Timestamp| self.now.saturating_since(at) < OWN_CONSENSUS_FRESH;
        self.observed_at.is_some_and(fresh)
    }

    /// The stored tip, where we cannot certify it and have nothing under way that might change that.
    fn uncertified(&self) -> Option<CommitIndex> {
        let tip = self.tip.reference.index;
        let asked = |in_flight: &InFlight| match &in_flight.asked {
            Asked::Commits(asked) => asked.range.start() <= tip,
            Asked::Chain | Asked::Availability | Asked::Push | Asked::Blocks(_) => false,
        };
        let settled = self.durable == tip && self.certifiable().index < tip && self.pending_votes.is_empty();
        // What certifies the next commit certifies this one, too.
        let certified_next = || tip.next().is_some_and(|next| self.window.body(next).is_some());
        let idle = settled && self.outstanding.is_empty() && self.jobs.is_idle() && !certified_next();
        (idle && !self.requests.values().any(asked)).then_some(tip)
    }

    /// Sets the bytes of the answer aside.
    fn reserve(&mut self, wanted: &Wanted, claimant: Claimant, frontier: CommitIndex) -> bool {
        let bytes = match wanted {
            Wanted::Commits(commits) => Self::commits_reservation(commits.max_bytes),
            Wanted::Blocks(blocks) => blocks.max_bytes,
        };
        loop {
            if self.ledger.reserve(bytes, claimant) {
                return true;
            }
            if claimant == Claimant::Ahead || !self.make_room(frontier) {
                return false;
            }
        }
    }
}
