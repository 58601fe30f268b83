//! The state of storage, and committees.

use super::{Converted, Malformed, array, commit_ref, pb, read_commit_ref};
use bytes::Bytes;
use soma_sync_core::{
    committee::Committee,
    config::Limits,
    start::{Start, StoredVotes, Tip},
    types::{AuthorityIndex, ChainId, CommitIndex, Epoch},
};
use std::sync::Arc;

pub(in super::super) fn write(start: &Start) -> pb::Start {
    let Start { chain_id, tip, certifiable, lowest_available, committee, next_committee, votes } = start;
    let Tip { reference, timestamp_ms, epoch, ends_epoch } = tip;
    let stored = |votes: &StoredVotes| {
        let StoredVotes { commit, epoch, voters } = votes;
        let voters = voters.iter().map(|voter| voter.get()).collect();
        pb::StoredVotes { commit: commit_ref(commit), epoch: epoch.get(), voters }
    };
    pb::Start {
        chain_id: Bytes::copy_from_slice(chain_id.as_bytes()),
        tip: commit_ref(reference),
        tip_timestamp_ms: *timestamp_ms,
        tip_epoch: epoch.get(),
        tip_ends_epoch: *ends_epoch,
        certifiable: commit_ref(certifiable),
        lowest_available: lowest_available.get(),
        committee: Some(write_committee(committee)),
        next_committee: next_committee.as_deref().map(write_committee),
        votes: votes.iter().map(stored).collect(),
    }
}

pub(in super::super) fn read(start: pb::Start) -> Converted<Start> {
    let stored = |votes: &pb::StoredVotes| {
        Ok(StoredVotes {
            commit: read_commit_ref(&votes.commit)?,
            epoch: Epoch::new(votes.epoch),
            voters: votes.voters.iter().copied().map(AuthorityIndex::new).collect(),
        })
    };
    Ok(Start {
        chain_id: ChainId::new(array(&start.chain_id)?),
        tip: Tip {
            reference: read_commit_ref(&start.tip)?,
            timestamp_ms: start.tip_timestamp_ms,
            epoch: Epoch::new(start.tip_epoch),
            ends_epoch: start.tip_ends_epoch,
        },
        certifiable: read_commit_ref(&start.certifiable)?,
        lowest_available: CommitIndex::new(start.lowest_available),
        committee: read_committee(&start.committee.ok_or(Malformed("a start without a committee"))?)?,
        next_committee: start.next_committee.as_ref().map(read_committee).transpose()?,
        votes: start.votes.iter().map(stored).collect::<Converted<_>>()?,
    })
}

pub(super) fn write_committee(committee: &Committee) -> pb::Committee {
    pb::Committee { epoch: committee.epoch().get(), validators: committee.encoding().clone() }
}

/// A committee of whatever size: its bytes are there.
pub(super) fn read_committee(committee: &pb::Committee) -> Converted<Arc<Committee>> {
    let limits = Limits { max_ancestors: u32::MAX, ..Limits::default() };
    Committee::decode(Epoch::new(committee.epoch), &committee.validators, &limits)
        .map(Arc::new)
        .map_err(|_| Malformed("a committee that is none"))
}
