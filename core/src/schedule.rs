//! Whom to ask for what, next: a pure function over window, peers and clock.
//!
//! Work is driven from the frontier, the commit after the tip: lowest first, whether what is missing there is a commit
//! or a block of one. Nothing here changes anything; [`SyncMachine`](crate::SyncMachine) carries out what is chosen.

#[cfg(test)]
mod tests;

use crate::{
    config::Config,
    defence::{Defence, stands},
    peers::{Peer, PeerBook},
    time::Timestamp,
    types::{CommitIndex, CommitRange, PeerId},
    window::Window,
};
use alloc::vec::Vec;

/// What there is to choose from.
pub(crate) struct View<'a> {
    pub(crate) config: &'a Config,
    pub(crate) window: &'a Window,
    pub(crate) peers: &'a PeerBook,
    pub(crate) now: Timestamp,
    /// Drawn anew for each choice.
    pub(crate) draw: u64,
    /// The last commit handed to storage.
    pub(crate) tip: CommitIndex,
    /// The last commit that may be asked for.
    pub(crate) horizon: CommitIndex,
    /// How many requests wait at peers for what is to come.
    pub(crate) following: usize,
    /// Whether requests may wait at peers for what is to come: not where our own consensus tells us of it, nor where
    /// nobody has what comes before.
    pub(crate) follow: bool,
    /// The stored tip, where its votes are wanted.
    pub(crate) uncertified: Option<CommitIndex>,
    /// A commit whose votes did not fit the usual answer, and the bytes to allow for it.
    pub(crate) enlarged: Option<(CommitIndex, u64)>,
}

/// For how many commits peers are looked for in one choice. What lies behind is left for the next event.
const MOST_TRIED: usize = 64;

/// Among how many peers, the cheapest, one is chosen.
const CHOSEN_FROM: usize = 5;
/// One choice in so many is among all peers.
const EXPLORED_IN: u64 = 10;
/// What a cost of one weighs.
const WEIGHT_WHOLE: u64 = 1 << 40;
/// At how many peers requests wait for what is to come.
const FOLLOWED_PEERS: usize = 2;
/// How many commits a peer may lie behind the highest claim and still be followed.
const FOLLOWED_BEHIND_MAX: u32 = 10;

/// What to ask for next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    Commits(CommitsWanted),
    Blocks(BlocksWanted),
}

/// Commits to ask a peer for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct CommitsWanted {
    pub(crate) peer: PeerId,
    pub(crate) range: CommitRange,
    pub(crate) max_bytes: u64,
    pub(crate) purpose: Purpose,
}

/// What a request for commits is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Purpose {
    /// What a peer says that it has.
    Fetch,
    /// The votes for commits that are stored already.
    Votes,
    /// A commit that does not exist yet, with its blocks: the request waits at the peer until it does.
    Follow,
    /// What another peer has been asked for and has not delivered.
    Hedge,
}
saved! { enum Purpose { 0 => Fetch, 1 => Votes, 2 => Follow, 3 => Hedge } }

/// Blocks to ask a peer for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BlocksWanted {
    pub(crate) peer: PeerId,
    /// Commit and position in it of each.
    pub(crate) positions: Vec<(CommitIndex, usize)>,
    pub(crate) max_bytes: u64,
    /// Whether another peer has been asked for them and has not delivered.
    pub(crate) hedge: bool,
}

impl Wanted {
    /// Whether a peer is said to have it.
    pub(crate) fn exists(&self) -> bool {
        match self {
            Self::Commits(commits) => commits.purpose != Purpose::Follow,
            Self::Blocks(_) => true,
        }
    }

    /// The lowest commit that it serves.
    pub(crate) fn lowest(&self) -> Option<CommitIndex> {
        match self {
            Self::Commits(commits) => Some(commits.range.start()),
            Self::Blocks(blocks) => blocks.positions.first().map(|(index, _)| *index),
        }
    }
}

impl View<'_> {
    /// The next request to send, or `None` where nothing is missing or nobody can be asked for it now.
    pub(crate) fn next(&self) -> Option<Wanted> {
        // What lies above any claim of those who could be asked is not worth looking at.
        let able = self.peers.checked().filter(|(_, peer)| peer.has_room() && peer.is_available(self.now));
        let reach = able.filter_map(|(_, peer)| peer.claim.map(|claim| claim.highest)).max();
        let blocks = reach.and_then(|reach| self.next_blocks(reach));
        let commits = reach.and_then(|reach| self.next_commits(reach));
        match (blocks, commits) {
            (Some(blocks), Some(commits)) if commits.lowest() < blocks.lowest() => Some(commits),
            (Some(blocks), _) => Some(blocks),
            (None, commits) => commits.or_else(|| self.votes_of_tip()).or_else(|| self.next_to_come()),
        }
    }

    /// While nobody has much that we lack: the next of the commits that nobody has, of one of the two peers from which
    /// it is expected soonest. Each commit is asked of one peer, so that none comes twice (scheduling: At the tip).
    fn next_to_come(&self) -> Option<Wanted> {
        let highest = self.peers.highest_claim()?.max(self.tip);
        let behind = highest.get().saturating_sub(self.tip.get());
        let waiting = usize::try_from(self.config.follow_requests).unwrap_or(usize::MAX);
        if !self.follow || behind > self.config.commit_sync_batch_size || self.following >= waiting {
            return None;
        }
        let last = highest.saturating_add(self.config.follow_requests).min(self.horizon);
        let start = self.window.first_gap(CommitRange::new(highest.next()?, last)?)?.start();
        let able = |peer: &Peer| {
            // Who is far behind will not be the first to have what comes.
            let near =
                peer.claim.is_some_and(|claim| claim.highest.saturating_add(FOLLOWED_BEHIND_MAX) >= highest);
            near && peer.can_be_followed(start, self.now)
        };
        let mut able: Vec<_> = self.peers.checked().filter(|(_, peer)| able(peer)).collect();
        able.sort_by_key(|(id, peer)| (peer.pace.latency_us(), *id));
        let (peer, _) = able.into_iter().take(FOLLOWED_PEERS).min_by_key(|(_, peer)| peer.following)?;
        Some(self.commits(peer, CommitRange::single(start), Purpose::Follow))
    }

    /// Commits that nobody is asked for, from the lowest of them that a peer can serve.
    fn next_commits(&self, reach: CommitIndex) -> Option<Wanted> {
        let mut from = self.tip.next()?;
        for _ in 0..MOST_TRIED {
            let gap = self.window.first_gap(CommitRange::new(from, self.horizon.min(reach))?)?;
            if let Some((peer, known)) = self.choose(gap.start()) {
                let batch = known.max_commits(self.config.commit_sync_batch_size);
                let most = gap.start().saturating_add(batch.saturating_sub(1));
                let claimed = known.claim.map_or(gap.start(), |claim| claim.highest);
                let range = CommitRange::new(gap.start(), gap.end().min(most).min(claimed))?;
                return Some(self.commits(peer, range, Purpose::Fetch));
            }
            // Another peer may claim to have what lies behind a gap that nobody can fill just now.
            let step = self.config.commit_sync_batch_size;
            from = gap.start().saturating_add(step).min(gap.end().next()?);
        }
        None
    }

    /// The votes for the stored tip, from a peer that says it can certify it.
    fn votes_of_tip(&self) -> Option<Wanted> {
        let tip = self.uncertified.filter(|_| stands(Defence::KeptCertifiers))?;
        let (peer, _) = self.choose(tip)?;
        Some(self.commits(peer, CommitRange::single(tip), Purpose::Votes))
    }

    fn commits(&self, peer: PeerId, range: CommitRange, purpose: Purpose) -> Wanted {
        let enlarged = self.enlarged.filter(|(start, _)| *start == range.start()).map(|(_, bytes)| bytes);
        let max_bytes = enlarged.unwrap_or(self.config.answer_bytes());
        Wanted::Commits(CommitsWanted { peer, range, max_bytes, purpose })
    }

    /// Blocks that nobody is asked for, from those of the lowest commit for which a peer can be asked.
    fn next_blocks(&self, reach: CommitIndex) -> Option<Wanted> {
        let mut open = self.window.open_commits().take_while(|index| *index <= reach).take(MOST_TRIED);
        let (lowest, (peer, known)) = open.find_map(|index| Some((index, self.choose(index)?)))?;
        let max = usize::try_from(self.config.max_blocks_per_fetch)
            .unwrap_or(usize::MAX)
            .min(known.max_blocks(self.now));
        let mut positions = self.window.missing_blocks(lowest, max);
        let claimed = known.claim.map_or(lowest, |claim| claim.highest);
        positions.retain(|(index, _)| *index <= claimed);
        Some(Wanted::Blocks(BlocksWanted {
            peer,
            positions,
            max_bytes: self.config.answer_bytes(),
            hedge: false,
        }))
    }

    /// A peer to ask for `start`: one of those that are expected to deliver it at the least cost, the less it costs the
    /// likelier; and now and then any other one, so that a peer can show that it has become better (scheduling: Choice).
    fn choose(&self, start: CommitIndex) -> Option<(PeerId, &Peer)> {
        let share = share(self.peers, self.config);
        let roomy = || self.peers.checked().filter(|(_, peer)| peer.has_room() && peer.in_flight < share);
        let mut able: Vec<_> = roomy().filter(|(_, peer)| peer.can_serve(start, self.now)).collect();
        if able.is_empty() && self.tip.next() == Some(start) {
            able = roomy().filter(|(_, peer)| peer.can_serve_at_need(start, self.now)).collect();
        }
        if able.len() < 2 {
            return able.pop();
        }
        if self.draw.is_multiple_of(EXPLORED_IN) {
            let count = u64::try_from(able.len()).unwrap_or(u64::MAX);
            let at = (self.draw / EXPLORED_IN).checked_rem(count).unwrap_or(0);
            return usize::try_from(at).ok().and_then(|at| able.get(at).copied());
        }
        able.sort_by_key(|(id, peer)| (peer.cost(self.now), *id));
        able.truncate(CHOSEN_FROM);
        let weight = |peer: &Peer| WEIGHT_WHOLE.checked_div(peer.cost(self.now)).unwrap_or(WEIGHT_WHOLE);
        let all = able.iter().fold(1u64, |sum, (_, peer)| sum.saturating_add(weight(peer)));
        let mut drawn = (self.draw / EXPLORED_IN).checked_rem(all).unwrap_or(0);
        for (id, peer) in &able {
            match drawn.checked_sub(weight(peer)) {
                Some(rest) => drawn = rest,
                None => return Some((*id, peer)),
            }
        }
        able.first().copied()
    }
}

/// Most requests in flight to one peer: a quarter of all where there are four or more, so that none can take all places.
pub(crate) fn share(peers: &PeerBook, config: &Config) -> u32 {
    let several = peers.checked().nth(3).is_some() && stands(Defence::ShareOfWork);
    if several { (config.max_requests / 4).max(1) } else { config.max_requests }
}
