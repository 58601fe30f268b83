//! Says whether what nodes do is right, without sharing any of their ways of finding out. Plain and slow.
//!
//! It knows the one chain that there is, byte by byte, because its maker made it. It keeps for each node what it has
//! seen the node do, and panics at the first thing that must never happen (quality: Safety).

use crate::{chain::MadeCommit, world::ChainStore};
use soma_sync_core::{
    Config,
    command::{Batch, Offence},
    types::{BlockRef, CommitIndex, CommitRange},
};
use std::collections::{BTreeMap, BTreeSet};

/// Stake that certifies a commit: more than two thirds of 10,000.
const QUORUM: u64 = 6_667;

/// What there is, and what each node has done.
#[derive(Debug)]
pub struct Oracle {
    chain: Vec<MadeCommit>,
    /// Every block that was ever made, committed or not, with its bytes.
    blocks: BTreeMap<BlockRef, Vec<u8>>,
    nodes: BTreeMap<usize, Seen>,
}

/// What one node has done.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    /// Its store has been compared with the chain up to here.
    durable: u32,
    /// The last commit that it broadcast in this life; none where it has not.
    broadcast: Option<u32>,
    /// What it last said that it can certify, and was found to be able to.
    announced: u32,
}

impl Oracle {
    /// An oracle for this chain.
    pub fn new(chain: &[MadeCommit]) -> Self {
        let made = chain.iter().flat_map(|made| made.blocks.iter().chain(made.certifiers.iter()));
        let blocks = made.map(|block| (block.reference, block.payload.bytes().to_vec())).collect();
        Self { chain: chain.to_vec(), blocks, nodes: BTreeMap::new() }
    }

    fn seen(&mut self, node: usize) -> &mut Seen {
        self.nodes.entry(node).or_default()
    }

    /// A node stored a batch; its store is as it is now.
    ///
    /// # Panics
    ///
    /// When the store does not hold the one chain, without gap, with every block of it; or holds a block that nobody
    /// made.
    pub fn stored(&mut self, node: usize, batch: &Batch, store: &ChainStore) {
        for block in &batch.blocks {
            let made = self.blocks.get(&block.reference);
            let same = made.is_some_and(|bytes| bytes.as_slice() == block.payload.bytes().as_ref());
            assert!(same, "node {node} stored {}, which nobody made", block.reference);
        }
        let tip = store.tip().index.get();
        let from = self.seen(node).durable;
        for index in from + 1..=tip {
            self.compare(node, index, store);
        }
        self.seen(node).durable = tip.max(from);
    }

    fn compare(&self, node: usize, index: u32, store: &ChainStore) {
        let made =
            self.chain.get(index as usize - 1).unwrap_or_else(|| panic!("node {node} has commit {index}"));
        let Some(stored) = store.commit(CommitIndex::new(index)) else {
            // What it began with may have been pruned.
            assert!(index < store.lowest().get(), "node {node} has a gap at commit {index}");
            return;
        };
        let bytes = stored.payload.bytes();
        assert_eq!(bytes, made.header.payload.bytes(), "node {node} has another commit {index}");
        for block in &made.blocks {
            let held = store.block(&block.reference).map(|held| held.payload.bytes());
            let made = Some(block.payload.bytes());
            assert_eq!(held, made, "node {node} lacks {} of commit {index}", block.reference);
        }
    }

    /// A node hands commits to its consumers.
    ///
    /// # Panics
    ///
    /// When they are not stored, or do not follow those that it handed out before.
    pub fn broadcast(&mut self, node: usize, range: CommitRange) {
        let seen = self.seen(node);
        let (start, end) = (range.start().get(), range.end().get());
        assert!(end <= seen.durable, "node {node} broadcasts {range}, and has stored up to {}", seen.durable);
        if let Some(last) = seen.broadcast {
            assert_eq!(start, last + 1, "node {node} broadcasts {range} after commit {last}");
        }
        seen.broadcast = Some(end);
    }

    /// A node's consumers took commits.
    ///
    /// # Panics
    ///
    /// When they were never handed out.
    pub fn delivered(&mut self, node: usize, through: CommitIndex) {
        let broadcast = self.seen(node).broadcast.unwrap_or_default();
        assert!(through.get() <= broadcast, "node {node}: commit {through} taken and never handed out");
    }

    /// A node tells others that it can certify a commit.
    ///
    /// # Panics
    ///
    /// When it has not stored it, or holds no quorum of votes for it.
    pub fn announced(&mut self, node: usize, index: CommitIndex, store: &ChainStore) {
        if index.get() <= self.seen(node).announced {
            return;
        }
        let tip = store.tip().index;
        assert!(index <= tip, "node {node} announces {index}, and has stored up to {tip}");
        let made = &self.chain[index.get() as usize - 1];
        let committee = &made.committee;
        let mut voters = BTreeSet::new();
        for block in store.blocks().filter(|block| block.reference.epoch == made.header.epoch) {
            if self.blocks.contains_key(&block.reference) && block.votes.contains(&made.header.reference) {
                voters.insert(block.reference.author);
            }
        }
        let stakes = voters.iter().filter_map(|author| committee.stake(*author));
        let stake: u64 = stakes.map(soma_sync_core::types::Stake::get).sum();
        assert!(stake >= QUORUM, "node {node} announces {index} on a stake of {stake}");
        self.seen(node).announced = index.get();
    }

    /// A node disconnects an honest one for an offence.
    ///
    /// # Panics
    ///
    /// Always.
    pub fn blamed_honest(&self, node: usize, offence: Offence) {
        panic!("node {node} blames an honest one: {offence}");
    }

    /// A node has so many requests for commits and blocks in flight, to one other and to all, and so many that wait for
    /// what is to come.
    ///
    /// # Panics
    ///
    /// When it has more than its configuration allows.
    pub fn in_flight(&self, node: usize, (to_one, to_all, waiting): (u32, u32, u32), config: &Config) {
        assert!(to_one <= config.max_requests_per_peer, "node {node} has {to_one} requests in flight to one");
        // One more where a second peer is asked for the head of line.
        assert!(to_all <= config.max_requests + 1, "node {node} has {to_all} requests in flight");
        assert!(waiting <= config.follow_requests, "node {node} has {waiting} requests that wait");
    }

    /// A node has held so many bytes.
    ///
    /// # Panics
    ///
    /// When that is over its budget.
    pub fn within_budget(&self, node: usize, bytes: u64, budget: u64) {
        assert!(bytes <= budget, "node {node} has held {bytes} of {budget} bytes");
    }

    /// A node was started again, from a store that ends at `tip`.
    ///
    /// # Panics
    ///
    /// When its store has lost what it had said to be durable.
    pub fn restarted(&mut self, node: usize, tip: CommitIndex) {
        let seen = self.seen(node);
        assert!(tip.get() >= seen.durable, "node {node} lost commits {tip} to {}", seen.durable);
        seen.durable = tip.get();
        seen.broadcast = Some(tip.get());
    }
}
