//! What every store does alike: whether a batch follows, who votes for a commit, what a machine starts from.
//!
//! A store of your own implements [`View`] over one consistent state of itself, a few reads by key, and has
//! [`start`] and [`certificate`] from it. `examples/own_store_and_transport` does.

use super::{Certifier, CommitHead, StoreError};
use soma_sync_core::{
    block::BlockView,
    committee::{Committee, StakeTally},
    config::Limits,
    job::CommitHeader,
    payload::Payload,
    start::{Start, StoredVotes, Tip},
    types::{AuthorityIndex, BlockRef, ChainId, CommitIndex, CommitRef, Epoch},
};
use std::sync::Arc;

/// No limits: what comes back from storage has passed them on its way in, and is checked against its digest.
pub(super) const UNLIMITED: Limits = Limits {
    max_block_bytes: u64::MAX,
    max_blocks_per_commit: u32::MAX,
    max_ancestors: u32::MAX,
    max_votes_per_block: u32::MAX,
    max_transactions_per_block: u32::MAX,
};

/// How far a store is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct State {
    /// Which chain it holds.
    pub chain_id: ChainId,
    /// The epoch of the first commit.
    pub genesis_epoch: Epoch,
    /// The last stored commit.
    pub tip: CommitRef,
    /// The lowest stored commit; 0 where nothing was pruned.
    pub lowest: CommitIndex,
}

impl State {
    /// A store that holds nothing but its genesis committee.
    pub fn genesis(committee: &Committee) -> Self {
        Self {
            chain_id: committee.chain_id(),
            genesis_epoch: committee.epoch(),
            tip: CommitRef::GENESIS,
            lowest: CommitIndex::GENESIS,
        }
    }

    /// Whether a commit must be there.
    pub fn holds(&self, index: CommitIndex) -> bool {
        index > CommitIndex::GENESIS && self.lowest <= index && index <= self.tip.index
    }

    /// The commits to give up so that `lowest` is the lowest, first and last; `None` where there are none.
    pub fn pruned_by(&self, lowest: CommitIndex) -> Option<(CommitIndex, CommitIndex)> {
        let first = self.lowest.max(CommitIndex::new(1));
        let last = lowest.min(self.tip.index).previous()?;
        (first <= last).then_some((first, last))
    }
}

/// One consistent state of a store.
pub trait View {
    /// How far it is.
    fn state(&self) -> State;
    /// See [`Store::head`](super::Store::head).
    fn head(&self, index: CommitIndex) -> Result<Option<CommitHead>, StoreError>;
    /// See [`Store::committee`](super::Store::committee).
    fn committee(&self, epoch: Epoch) -> Result<Option<Arc<Committee>>, StoreError>;
    /// Of the blocks of `epoch` that vote for `commit` and whose author is `from` or above, the one with the lowest
    /// author, round and digest, in this order.
    fn next_vote(
        &self,
        commit: &CommitRef,
        epoch: Epoch,
        from: AuthorityIndex,
    ) -> Result<Option<Certifier>, StoreError>;
}

/// The error for something that was stored and is not there, or not what it was.
pub(super) fn damaged(what: impl Into<String>) -> StoreError {
    StoreError::Damaged { what: what.into() }
}

/// The error for a commit that is stored and not there.
pub(super) fn gone(index: CommitIndex) -> StoreError {
    damaged(format!("commit {index} is gone"))
}

/// Refuses commits that do not follow the tip, one after the other.
///
/// # Errors
///
/// [`StoreError::NotNext`] of the first that does not.
pub fn check_links<'a>(
    tip: CommitRef,
    commits: impl IntoIterator<Item = &'a CommitHeader>,
) -> Result<(), StoreError> {
    commits.into_iter().try_fold(tip, |previous, commit| {
        let next =
            Some(commit.reference.index) == previous.index.next() && commit.previous == previous.digest;
        let not_next = StoreError::NotNext { commit: commit.reference, previous };
        if next { Ok(commit.reference) } else { Err(not_next) }
    })?;
    Ok(())
}

/// The error for a commit whose block is neither in its batch nor stored.
pub(super) fn missing_block(commit: &CommitRef, block: &BlockRef) -> StoreError {
    StoreError::Inconsistent { what: format!("{commit} names {block}, which is not there") }
}

/// The error for a commit of an epoch whose committee is not known.
pub(super) fn missing_committee(commit: &CommitRef, epoch: Epoch) -> StoreError {
    StoreError::Inconsistent { what: format!("the committee of epoch {epoch}, of {commit}, is not known") }
}

/// The error for a committee other than the one known.
pub(super) fn other_committee(epoch: Epoch) -> StoreError {
    StoreError::Inconsistent { what: format!("another committee of epoch {epoch} is stored") }
}

/// What is known of a commit without reading it.
///
/// # Errors
///
/// Where its encoding is longer than 4 GiB, which no verified commit is.
pub fn head_of(commit: &CommitHeader, ends_epoch: bool) -> Result<CommitHead, StoreError> {
    let bytes = u32::try_from(commit.payload.len()).map_err(|_| StoreError::Inconsistent {
        what: format!("{} is longer than 4 GiB", commit.reference),
    })?;
    let (epoch, timestamp_ms) = (commit.epoch, commit.timestamp_ms);
    Ok(CommitHead { reference: commit.reference, epoch, timestamp_ms, ends_epoch, bytes })
}

/// Whether a stored block, known by its digest, has complete end-of-epoch data.
///
/// # Errors
///
/// [`StoreError::Damaged`] where it does not decode.
pub fn ends_epoch(reference: &BlockRef, payload: &Payload) -> Result<bool, StoreError> {
    let block = decode_block(reference, payload)?;
    Ok(block.end_of_epoch().is_some_and(|data| data.complete().is_some()))
}

/// The votes in a stored block, known by its digest.
///
/// # Errors
///
/// [`StoreError::Damaged`] where it does not decode.
pub fn votes_in(reference: &BlockRef, payload: &Payload) -> Result<Vec<CommitRef>, StoreError> {
    Ok(decode_block(reference, payload)?.votes().collect())
}

fn decode_block<'a>(reference: &BlockRef, payload: &'a Payload) -> Result<BlockView<'a>, StoreError> {
    BlockView::decode(payload.bytes(), &UNLIMITED).map_err(|error| damaged(format!("{reference}: {error}")))
}

/// Whether a block of `epoch` that no commit names votes for a stored commit of its epoch; `head` reads the stored ones.
/// Pruning keeps such a block.
///
/// # Errors
///
/// Those of `head`.
pub fn votes_count(
    votes: &[CommitRef],
    epoch: Epoch,
    head: impl Fn(CommitIndex) -> Result<Option<CommitHead>, StoreError>,
) -> Result<bool, StoreError> {
    for vote in votes {
        if head(vote.index)?.is_some_and(|head| head.reference == *vote && head.epoch == epoch) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// See [`Store::certificate`](super::Store::certificate).
///
/// # Errors
///
/// Those of `view`, and [`StoreError::Damaged`] where a committee is gone.
pub fn certificate(view: &impl View, commit: &CommitRef) -> Result<Option<Vec<Certifier>>, StoreError> {
    let Some(head) = view.head(commit.index)?.filter(|head| head.reference == *commit) else {
        return Ok(None);
    };
    let poll = poll(view, &head)?;
    Ok(poll.quorum.then_some(poll.certifiers))
}

/// Blocks that vote for a commit.
struct Poll {
    /// One a voter, by author; where they are a quorum, the shortest prefix that is.
    certifiers: Vec<Certifier>,
    quorum: bool,
}

fn poll(view: &impl View, head: &CommitHead) -> Result<Poll, StoreError> {
    let committee = view.committee(head.epoch)?;
    let committee =
        committee.ok_or_else(|| damaged(format!("the committee of epoch {} is gone", head.epoch)))?;
    let mut certifiers = Vec::new();
    let mut tally = StakeTally::new();
    let mut from = Some(AuthorityIndex::ZERO);
    while let (Some(author), false) = (from, tally.reached_quorum()) {
        let Some(vote) = view.next_vote(&head.reference, head.epoch, author)? else { break };
        // Authors ascend: one who is not in the committee is behind all who are.
        if !tally.add(vote.block.author, &committee) {
            break;
        }
        from = vote.block.author.next();
        certifiers.push(vote);
    }
    Ok(Poll { certifiers, quorum: tally.reached_quorum() })
}

/// See [`Store::start`](super::Store::start). Looks at the commits from the tip down to the highest certifiable one.
///
/// # Errors
///
/// Those of `view`, and [`StoreError::Damaged`] where a commit or committee that must be there is gone.
pub fn start(view: &impl View) -> Result<Start, StoreError> {
    let state = view.state();
    let tip = tip(view, &state)?;
    let committee = view.committee(tip.epoch)?;
    let committee =
        committee.ok_or_else(|| damaged(format!("the committee of epoch {} is gone", tip.epoch)))?;
    let next_committee = match (tip.ends_epoch, tip.epoch.next()) {
        (true, Some(next)) => view.committee(next)?,
        _ => None,
    };
    let mut certifiable = CommitRef::GENESIS;
    let mut votes = Vec::new();
    let mut index = tip.reference.index;
    while state.holds(index) {
        let head = view.head(index)?.ok_or_else(|| gone(index))?;
        let poll = poll(view, &head)?;
        if poll.quorum {
            certifiable = head.reference;
            break;
        }
        let voters = poll.certifiers.iter().map(|vote| vote.block.author).collect();
        votes.push(StoredVotes { commit: head.reference, epoch: head.epoch, voters });
        index = index.saturating_sub(1);
    }
    votes.reverse();
    let (chain_id, lowest_available) = (state.chain_id, state.lowest);
    Ok(Start { chain_id, tip, certifiable, lowest_available, committee, next_committee, votes })
}

fn tip(view: &impl View, state: &State) -> Result<Tip, StoreError> {
    let reference = state.tip;
    if reference == CommitRef::GENESIS {
        return Ok(Tip { reference, timestamp_ms: 0, epoch: state.genesis_epoch, ends_epoch: false });
    }
    let head = view.head(reference.index)?.filter(|head| head.reference == reference);
    let head = head.ok_or_else(|| damaged(format!("the tip, {reference}, is gone")))?;
    let (timestamp_ms, epoch, ends_epoch) = (head.timestamp_ms, head.epoch, head.ends_epoch);
    Ok(Tip { reference, timestamp_ms, epoch, ends_epoch })
}
