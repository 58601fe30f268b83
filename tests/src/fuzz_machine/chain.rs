//! The made-up chain, of which there is only one: its commits and blocks, its committees, and what of it is stored.

use crate::fixture;
use soma_sync_core::{
    command::Batch,
    committee::Committee,
    config::Limits,
    job::{CheckedBlock, CommitHeader, EpochEnd},
    payload::Payload,
    start::{Start, StoredVotes, Tip},
    types::{AuthorityIndex, BlockDigest, BlockRef, CommitDigest, CommitIndex, CommitRef, Epoch, Round},
};
use std::{
    collections::BTreeSet,
    sync::{Arc, OnceLock},
};

/// Commits in an epoch of the made-up chain.
pub(super) const EPOCH_COMMITS: u32 = 13;
pub(super) const BLOCKS_PER_COMMIT: u32 = 3;

/// The committees of the first epochs; what is further ahead is never reached.
pub(super) fn committees() -> &'static [Arc<Committee>] {
    static COMMITTEES: OnceLock<Vec<Arc<Committee>>> = OnceLock::new();
    COMMITTEES.get_or_init(|| {
        let of = |epoch| Committee::new(Epoch::new(epoch), fixture::validators(), &Limits::default());
        (0..40).map(|epoch| Arc::new(of(epoch).expect("valid validators"))).collect()
    })
}

pub(super) fn payload(bytes: usize) -> Payload {
    Payload::absent(bytes, 0)
}

/// The commit at `index` of the one chain; another variant is a lie.
pub(super) fn header(index: u32, variant: u8) -> CommitHeader {
    let digest = |index: u32, variant: u8| {
        let mut bytes = [variant; 32];
        bytes[..4].copy_from_slice(&index.to_be_bytes());
        if index == 0 { CommitDigest::ZERO } else { CommitDigest::new(bytes) }
    };
    let epoch = Epoch::new(u64::from((index.max(1) - 1) / EPOCH_COMMITS));
    let block = |slot: u32| {
        let mut bytes = [variant; 32];
        bytes[..4].copy_from_slice(&index.to_be_bytes());
        bytes[4] = slot as u8;
        BlockRef {
            round: Round::new(index),
            author: AuthorityIndex::new(slot),
            digest: BlockDigest::new(bytes),
            epoch,
        }
    };
    let blocks: Arc<[BlockRef]> = (0..BLOCKS_PER_COMMIT).map(block).collect();
    CommitHeader {
        reference: CommitRef { index: CommitIndex::new(index), digest: digest(index, variant) },
        previous: digest(index - 1, 0),
        timestamp_ms: u64::from(index),
        epoch,
        leader: blocks[0],
        blocks,
        payload: payload(250),
    }
}

/// A block of the one chain; that of position 0 of an epoch's last commit ends the epoch.
pub(super) fn checked(reference: BlockRef, committees: &[Arc<Committee>]) -> CheckedBlock {
    let ends =
        reference.round.get().is_multiple_of(EPOCH_COMMITS) && reference.author == AuthorityIndex::ZERO;
    let next = committees.get(reference.epoch.get() as usize + 1).filter(|_| ends);
    CheckedBlock {
        reference,
        votes: Vec::new(),
        epoch_end: next.map(|next| EpochEnd::Next(next.clone())),
        payload: payload(100),
    }
}

/// A block that votes for the commit at `index` of the one chain.
pub(super) fn voter(index: u32, author: u32, payload: Payload) -> CheckedBlock {
    let commit = header(index, 0);
    let reference = BlockRef {
        round: Round::new(index + 3),
        author: AuthorityIndex::new(author),
        digest: BlockDigest::new([200 + author as u8; 32]),
        epoch: commit.epoch,
    };
    CheckedBlock { reference, votes: vec![commit.reference], epoch_end: None, payload }
}

/// What storage holds.
#[derive(Default)]
pub(super) struct Durable {
    pub(super) commits: Vec<CommitHeader>,
    blocks: BTreeSet<BlockRef>,
}

impl Durable {
    pub(super) fn tip(&self) -> CommitIndex {
        self.commits.last().map_or(CommitIndex::GENESIS, |header| header.reference.index)
    }

    /// Stores a batch: its commits follow one another and the chain, and all their blocks are here, or the machine is
    /// at fault.
    pub(super) fn append(&mut self, batch: &Batch) {
        self.blocks.extend(batch.blocks.iter().map(|block| block.reference));
        for commit in &batch.commits {
            let tip = self.commits.last().map_or(CommitRef::GENESIS, |header| header.reference);
            assert_eq!(
                Some(commit.reference.index),
                tip.index.next(),
                "a commit that does not follow the stored tip"
            );
            assert_eq!(commit.previous, tip.digest, "a commit that is not linked to the stored tip");
            assert!(
                commit.blocks.iter().all(|block| self.blocks.contains(block)),
                "a commit without its blocks"
            );
            self.commits.push((**commit).clone());
        }
    }

    /// What a machine is told that starts from here.
    pub(super) fn start(&self, committees: &[Arc<Committee>]) -> Start {
        let genesis = Start::genesis(committees[0].chain_id(), committees[0].clone());
        let Some(tip) = self.commits.last() else { return genesis };
        let ends_epoch = tip.reference.index.get() % EPOCH_COMMITS == 0;
        let committee = |epoch: Epoch| committees[epoch.get() as usize].clone();
        let certifiable = self.commits.len().checked_sub(2).and_then(|at| self.commits.get(at));
        Start {
            tip: Tip {
                reference: tip.reference,
                timestamp_ms: tip.timestamp_ms,
                epoch: tip.epoch,
                ends_epoch,
            },
            certifiable: certifiable.map_or(CommitRef::GENESIS, |header| header.reference),
            committee: committee(tip.epoch),
            next_committee: ends_epoch.then(|| committee(tip.epoch.saturating_add(1))),
            votes: vec![StoredVotes {
                commit: tip.reference,
                epoch: tip.epoch,
                voters: vec![AuthorityIndex::new(0)],
            }],
            ..genesis
        }
    }
}
