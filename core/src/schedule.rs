//! Whom to ask for what, next: a pure function over window, peers and clock.
//!
//! Work is driven from the frontier, the commit after the tip: lowest first, whether what is missing there is a commit
//! or a block of one. Nothing here changes anything; [`SyncMachine`](crate::SyncMachine) carries out what is chosen.

use crate::{
    config::Config,
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
    /// The last commit handed to storage.
    pub(crate) tip: CommitIndex,
    /// The last commit that may be asked for.
    pub(crate) horizon: CommitIndex,
    /// The stored tip, where its votes are wanted.
    pub(crate) uncertified: Option<CommitIndex>,
    /// A commit whose votes did not fit the usual answer, and the bytes to allow for it.
    pub(crate) enlarged: Option<(CommitIndex, u64)>,
}

/// For how many commits peers are looked for in one choice. What lies behind is left for the next event.
const MOST_TRIED: usize = 64;

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
    /// Whether the commits are stored already, and only their votes are wanted.
    pub(crate) stored: bool,
}

/// Blocks to ask a peer for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BlocksWanted {
    pub(crate) peer: PeerId,
    /// Commit and position in it of each.
    pub(crate) positions: Vec<(CommitIndex, usize)>,
    pub(crate) max_bytes: u64,
}

impl Wanted {
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
        let reach = able.filter_map(|(_, peer)| peer.claim.map(|claim| claim.highest)).max()?;
        let blocks = self.next_blocks(reach);
        let commits = self.next_commits(reach);
        match (blocks, commits) {
            (Some(blocks), Some(commits)) if commits.lowest() < blocks.lowest() => Some(commits),
            (Some(blocks), _) => Some(blocks),
            (None, commits) => commits.or_else(|| self.votes_of_tip()),
        }
    }

    /// Commits that nobody is asked for, from the lowest of them that a peer can serve.
    fn next_commits(&self, reach: CommitIndex) -> Option<Wanted> {
        let mut from = self.tip.next()?;
        for _ in 0..MOST_TRIED {
            let gap = self.window.first_gap(CommitRange::new(from, self.horizon.min(reach))?)?;
            if let Some((peer, known)) = self.choose(gap.start()) {
                let most = gap.start().saturating_add(self.config.commit_sync_batch_size.saturating_sub(1));
                let claimed = known.claim.map_or(gap.start(), |claim| claim.highest);
                let range = CommitRange::new(gap.start(), gap.end().min(most).min(claimed))?;
                return Some(self.commits(peer, range, false));
            }
            // Another peer may claim to have what lies behind a gap that nobody can fill just now.
            let step = self.config.commit_sync_batch_size;
            from = gap.start().saturating_add(step).min(gap.end().next()?);
        }
        None
    }

    /// The votes for the stored tip, from a peer that says it can certify it.
    fn votes_of_tip(&self) -> Option<Wanted> {
        let tip = self.uncertified?;
        let (peer, _) = self.choose(tip)?;
        Some(self.commits(peer, CommitRange::single(tip), true))
    }

    fn commits(&self, peer: PeerId, range: CommitRange, stored: bool) -> Wanted {
        let enlarged = self.enlarged.filter(|(start, _)| *start == range.start()).map(|(_, bytes)| bytes);
        let max_bytes = enlarged.unwrap_or(self.config.answer_bytes());
        Wanted::Commits(CommitsWanted { peer, range, max_bytes, stored })
    }

    /// Blocks that nobody is asked for, from those of the lowest commit for which a peer can be asked.
    fn next_blocks(&self, reach: CommitIndex) -> Option<Wanted> {
        let mut open = self.window.open_commits().take_while(|index| *index <= reach).take(MOST_TRIED);
        let (lowest, (peer, known)) = open.find_map(|index| Some((index, self.choose(index)?)))?;
        let max =
            usize::try_from(self.config.max_blocks_per_fetch).unwrap_or(usize::MAX).min(known.max_blocks);
        let mut positions = self.window.missing_blocks(lowest, max);
        let claimed = known.claim.map_or(lowest, |claim| claim.highest);
        positions.retain(|(index, _)| *index <= claimed);
        Some(Wanted::Blocks(BlocksWanted { peer, positions, max_bytes: self.config.answer_bytes() }))
    }

    /// The peer from which `start` is expected soonest.
    fn choose(&self, start: CommitIndex) -> Option<(PeerId, &Peer)> {
        let able = self.peers.iter().filter(|(_, peer)| peer.has_room() && peer.can_serve(start, self.now));
        able.min_by_key(|(id, peer)| (peer.cost(), *id))
    }
}
