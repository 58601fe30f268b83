//! Says whether what nodes do is right, without sharing any of their ways of finding out. Plain and slow.
//!
//! It knows the one chain that there is, byte by byte, because its maker made it ([`Truth`]). It keeps for each node what
//! it has seen the node do, and says so at the first thing that must never happen (quality: Safety).

use crate::{
    chain::MadeCommit,
    violation::{Broken, Invariant, hold},
    world::ChainStore,
};
use bytes::Bytes;
use soma_sync_core::{
    Config,
    command::{Batch, Offence},
    job::CheckedBlock,
    payload::Payload,
    types::{AuthorityIndex, BlockRef, ChainId, CommitIndex, CommitRange, CommitRef, Stake},
};
use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    rc::Rc,
};

/// Stake that certifies a commit: more than two thirds of 10,000.
const QUORUM: u64 = 6_667;

/// What there is: one chain, and all that its committees ever signed.
#[derive(Debug)]
pub struct Truth {
    chain: Vec<MadeCommit>,
    chain_id: Option<ChainId>,
    /// Every block that was ever made, committed or not, with its bytes.
    blocks: BTreeMap<BlockRef, Bytes>,
    /// Who voted for a commit in blocks of its epoch, and where.
    votes: BTreeMap<CommitRef, Vec<(AuthorityIndex, BlockRef)>>,
    /// The bytes of all commits and blocks.
    bytes: HashSet<Bytes>,
    /// Where they lie in memory: what lies there needs no comparison.
    places: HashSet<(usize, usize)>,
}

impl Truth {
    /// What there is where this is the chain.
    pub fn new(chain: &[MadeCommit]) -> Self {
        let mut truth = Self {
            chain: chain.to_vec(),
            chain_id: chain.first().map(|made| made.committee.chain_id()),
            blocks: BTreeMap::new(),
            votes: BTreeMap::new(),
            bytes: HashSet::new(),
            places: HashSet::new(),
        };
        for made in chain {
            truth.learn(&made.header.payload);
            for block in made.blocks.iter().chain(made.certifiers.iter()) {
                truth.learn_block(block);
            }
        }
        truth
    }

    /// Takes in a block that was made beside the chain. What it votes for counts where it is of the right epoch.
    pub fn learn_block(&mut self, block: &CheckedBlock) {
        self.learn(&block.payload);
        if self.blocks.insert(block.reference, block.payload.bytes().clone()).is_some() {
            return;
        }
        for vote in &block.votes {
            self.votes.entry(*vote).or_default().push((block.reference.author, block.reference));
        }
    }

    fn learn(&mut self, payload: &Payload) {
        self.bytes.insert(payload.bytes().clone());
        self.places.insert(place(payload));
    }

    /// Whether these are the bytes of a commit or block of the chain.
    pub fn is_made(&self, payload: &Payload) -> bool {
        self.lies_here(payload) || self.bytes.contains(payload.bytes())
    }

    /// Whether these are, as they lie in memory, the bytes of a commit or block of the chain. Cheap, and says no of a
    /// copy.
    pub(crate) fn lies_here(&self, payload: &Payload) -> bool {
        self.places.contains(&place(payload))
    }

    /// The chain's identity; none where it has no commits.
    pub const fn chain_id(&self) -> Option<ChainId> {
        self.chain_id
    }

    fn made(&self, index: CommitIndex) -> Option<&MadeCommit> {
        self.chain.get(index.get().checked_sub(1)? as usize)
    }
}

/// Where bytes lie in memory, and how many they are.
pub(crate) fn place(payload: &Payload) -> (usize, usize) {
    (payload.bytes().as_ptr() as usize, payload.bytes().len())
}

/// What there is, and what each node has done.
#[derive(Debug)]
pub struct Oracle {
    truth: Rc<Truth>,
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
    pub fn new(truth: Rc<Truth>) -> Self {
        Self { truth, nodes: BTreeMap::new() }
    }

    /// What there is.
    pub const fn truth(&self) -> &Rc<Truth> {
        &self.truth
    }

    fn seen(&mut self, node: usize) -> &mut Seen {
        self.nodes.entry(node).or_default()
    }

    /// A node stored a batch; its store is as it is now.
    ///
    /// # Errors
    ///
    /// When the store does not hold the one chain, without gap, with every block of it; or holds a block that nobody
    /// made.
    pub fn stored(&mut self, node: usize, batch: &Batch, store: &ChainStore) -> Result<(), Broken> {
        for block in &batch.blocks {
            let made = self.truth.blocks.get(&block.reference);
            let same = made.is_some_and(|bytes| bytes == block.payload.bytes());
            hold(same, Invariant::MadeOnly, || {
                format!("node {node} stored {}, which nobody made", block.reference)
            })?;
        }
        let tip = store.tip().index.get();
        let from = self.seen(node).durable;
        for index in from + 1..=tip {
            self.compare(node, CommitIndex::new(index), store)?;
        }
        self.seen(node).durable = tip.max(from);
        Ok(())
    }

    fn compare(&self, node: usize, index: CommitIndex, store: &ChainStore) -> Result<(), Broken> {
        let broken = |detail: String| Err(Broken::new(Invariant::OneChain, detail));
        let Some(made) = self.truth.made(index) else {
            return broken(format!("node {node} has commit {index}, which there is not"));
        };
        let Some(stored) = store.commit(index) else {
            // What it began with may have been pruned.
            return hold(index < store.lowest(), Invariant::OneChain, || {
                format!("node {node} has a gap at commit {index}")
            });
        };
        if stored.payload.bytes() != made.header.payload.bytes() {
            return broken(format!("node {node} has another commit {index}"));
        }
        for block in &made.blocks {
            let held = store.block(&block.reference).map(|held| held.payload.bytes());
            if held != Some(block.payload.bytes()) {
                return broken(format!("node {node} lacks {} of commit {index}", block.reference));
            }
        }
        Ok(())
    }

    /// A node hands commits to its consumers.
    ///
    /// # Errors
    ///
    /// When they are not stored, or do not follow those that it handed out before.
    pub fn broadcast(&mut self, node: usize, range: CommitRange) -> Result<(), Broken> {
        let seen = self.seen(node);
        let (start, end) = (range.start().get(), range.end().get());
        hold(end <= seen.durable, Invariant::Broadcast, || {
            format!("node {node} broadcasts {range}, and has stored up to {}", seen.durable)
        })?;
        if let Some(last) = seen.broadcast {
            hold(start == last + 1, Invariant::Broadcast, || {
                format!("node {node} broadcasts {range} after commit {last}")
            })?;
        }
        seen.broadcast = Some(end);
        Ok(())
    }

    /// A node's consumers took commits.
    ///
    /// # Errors
    ///
    /// When they were never handed out.
    pub fn delivered(&mut self, node: usize, through: CommitIndex) -> Result<(), Broken> {
        let broadcast = self.seen(node).broadcast.unwrap_or_default();
        hold(through.get() <= broadcast, Invariant::Broadcast, || {
            format!("node {node}: commit {through} taken and never handed out")
        })
    }

    /// A node tells others that it can certify a commit.
    ///
    /// # Errors
    ///
    /// When it has not stored it, or holds no quorum of votes for it.
    pub fn announced(&mut self, node: usize, index: CommitIndex, store: &ChainStore) -> Result<(), Broken> {
        if index.get() <= self.seen(node).announced {
            return Ok(());
        }
        let tip = store.tip().index;
        hold(index <= tip, Invariant::Announced, || {
            format!("node {node} announces {index}, and has stored up to {tip}")
        })?;
        let Some(made) = self.truth.made(index) else { return Ok(()) };
        let votes = self.truth.votes.get(&made.header.reference).map_or(&[][..], Vec::as_slice);
        let of_epoch = votes.iter().filter(|(_, block)| block.epoch == made.header.epoch);
        let stored = of_epoch.filter(|(_, block)| store.block(block).is_some());
        let voters: BTreeSet<_> = stored.map(|(author, _)| *author).collect();
        let stakes = voters.iter().filter_map(|author| made.committee.stake(*author));
        let stake: u64 = stakes.map(Stake::get).sum();
        hold(stake >= QUORUM, Invariant::Announced, || {
            format!("node {node} announces {index} on a stake of {stake}")
        })?;
        self.seen(node).announced = index.get();
        Ok(())
    }

    /// A node disconnects an honest one for an offence: always wrong.
    pub fn blamed_honest(&self, node: usize, other: usize, offence: Offence) -> Broken {
        let detail = format!("node {node} blames node {other}, an honest one: {offence}");
        Broken::new(Invariant::HonestBlamed, detail)
    }

    /// A node has so many requests for commits and blocks in flight, to one other and to all, and so many that wait for
    /// what is to come.
    ///
    /// # Errors
    ///
    /// When it has more than its configuration allows, and the one beyond that which the head of line may have.
    pub fn in_flight(
        &self,
        node: usize,
        (to_one, to_all, waiting): (u32, u32, u32),
        config: &Config,
    ) -> Result<(), Broken> {
        let within = to_one <= config.max_requests_per_peer
            && to_all <= config.max_requests.saturating_add(1)
            && waiting <= config.follow_requests;
        hold(within, Invariant::InFlight, || {
            format!("node {node} has {to_one} requests in flight to one, {to_all} to all; {waiting} wait")
        })
    }

    /// A node's workers have so many jobs.
    ///
    /// # Errors
    ///
    /// When it has fewer workers.
    pub fn jobs(&self, node: usize, jobs: u32, config: &Config) -> Result<(), Broken> {
        hold(jobs <= config.max_verify_jobs, Invariant::InFlight, || {
            format!(
                "node {node} has given its workers {jobs} jobs, and has {} workers",
                config.max_verify_jobs
            )
        })
    }

    /// A node is to serve these commits in one answer.
    ///
    /// # Errors
    ///
    /// When they are more than a batch.
    pub fn served(&self, node: usize, range: CommitRange, config: &Config) -> Result<(), Broken> {
        let count = range.iter().count() as u64;
        hold(count <= u64::from(config.commit_sync_batch_size), Invariant::Batch, || {
            format!("node {node} serves {range} at once, with batches of {}", config.commit_sync_batch_size)
        })
    }

    /// A node has held so many bytes.
    ///
    /// # Errors
    ///
    /// When that is over its budget.
    pub fn within_budget(&self, node: usize, bytes: u64, budget: u64) -> Result<(), Broken> {
        hold(bytes <= budget, Invariant::Budget, || format!("node {node} has held {bytes} of {budget} bytes"))
    }

    /// A node was started again, from a store that ends at `tip`.
    ///
    /// # Errors
    ///
    /// When its store has lost what it had said to be durable.
    pub fn restarted(&mut self, node: usize, tip: CommitIndex) -> Result<(), Broken> {
        let seen = self.seen(node);
        hold(tip.get() >= seen.durable, Invariant::Durable, || {
            format!("node {node} lost commits {tip} to {}", seen.durable)
        })?;
        self.replaced(node, tip);
        Ok(())
    }

    /// A node was started again, from another store: an older image, or none at all. What it had said to be durable is
    /// lost through no fault of its own.
    pub fn replaced(&mut self, node: usize, tip: CommitIndex) {
        let tip = tip.get();
        *self.seen(node) = Seen { durable: tip, broadcast: Some(tip), announced: 0 };
    }
}
