//! A node's storage: plain maps in memory, with the certificates that a server needs. Written apart from the stores of
//! the runtime, and slower, so that the two can be held against one another.

use crate::chain::MadeCommit;
use soma_sync_core::{
    command::{Batch, ServePlan},
    committee::{Committee, StakeTally},
    job::{CheckedBlock, CommitHeader},
    payload::Payload,
    request::{RefuseReason, ResponsePart},
    start::{Start, StoredVotes, Tip},
    types::{AuthorityIndex, BlockRef, ChainId, CommitIndex, CommitRange, CommitRef, Epoch, Round},
};
use std::{collections::BTreeMap, sync::Arc};

/// Bytes of blocks in one message of an answer.
const PART_BYTES: u64 = 256 * 1024;

/// Commits, blocks, votes and committees of one chain.
#[derive(Clone, Debug)]
pub struct ChainStore {
    chain_id: ChainId,
    committees: BTreeMap<Epoch, Arc<Committee>>,
    commits: BTreeMap<CommitIndex, CommitHeader>,
    /// Commits that end their epoch.
    ends: Vec<CommitIndex>,
    blocks: BTreeMap<BlockRef, CheckedBlock>,
    /// The first vote of each author for a commit in blocks of an epoch.
    votes: BTreeMap<(CommitRef, Epoch), BTreeMap<AuthorityIndex, (Round, BlockRef)>>,
    lowest: CommitIndex,
}

impl ChainStore {
    /// A store that holds nothing but its genesis committee.
    pub fn new(genesis: Arc<Committee>) -> Self {
        Self {
            chain_id: genesis.chain_id(),
            committees: BTreeMap::from([(genesis.epoch(), genesis)]),
            commits: BTreeMap::new(),
            ends: Vec::new(),
            blocks: BTreeMap::new(),
            votes: BTreeMap::new(),
            lowest: CommitIndex::GENESIS,
        }
    }

    /// A store that holds these commits and what certifies each.
    pub fn of(genesis: Arc<Committee>, commits: &[MadeCommit]) -> Self {
        let mut store = Self::new(genesis);
        for made in commits {
            for block in made.blocks.iter().chain(made.certifiers.iter()) {
                store.put_block(block.clone());
            }
            if let Some(next) = &made.next_committee {
                store.committees.insert(next.epoch(), next.clone());
                store.ends.push(made.header.reference.index);
            }
            store.commits.insert(made.header.reference.index, made.header.clone());
        }
        store
    }

    /// Forgets the commits below `lowest`, and their blocks.
    pub fn prune(&mut self, lowest: CommitIndex) {
        let kept = self.commits.split_off(&lowest);
        for header in std::mem::replace(&mut self.commits, kept).values() {
            for block in header.blocks.iter() {
                self.blocks.remove(block);
            }
        }
        self.lowest = lowest;
    }

    /// The stored commits, lowest first.
    pub fn commits(&self) -> impl Iterator<Item = &CommitHeader> {
        self.commits.values()
    }

    /// A stored commit.
    pub fn commit(&self, index: CommitIndex) -> Option<&CommitHeader> {
        self.commits.get(&index)
    }

    /// The lowest commit that was not pruned; 0 where none was.
    pub fn lowest(&self) -> CommitIndex {
        self.lowest
    }

    /// The stored blocks, by reference.
    pub fn blocks(&self) -> impl Iterator<Item = &CheckedBlock> {
        self.blocks.values()
    }

    /// A stored block.
    pub fn block(&self, reference: &BlockRef) -> Option<&CheckedBlock> {
        self.blocks.get(reference)
    }

    /// The last stored commit.
    pub fn tip(&self) -> CommitRef {
        self.commits.last_key_value().map_or(CommitRef::GENESIS, |(_, header)| header.reference)
    }

    fn put_block(&mut self, block: CheckedBlock) {
        let BlockRef { author, round, epoch, .. } = block.reference;
        for vote in &block.votes {
            let of_epoch = self.votes.entry((*vote, epoch)).or_default();
            let first = of_epoch.entry(author).or_insert((round, block.reference));
            if round < first.0 {
                *first = (round, block.reference);
            }
        }
        self.blocks.insert(block.reference, block);
    }

    /// Stores a batch.
    ///
    /// # Panics
    ///
    /// When its commits do not follow the tip, or a block of them is in neither the batch nor the store: the machine
    /// must never ask for that.
    pub fn apply(&mut self, batch: &Batch) {
        for block in &batch.blocks {
            self.put_block((**block).clone());
        }
        for header in &batch.commits {
            let tip = self.tip();
            assert_eq!(
                Some(header.reference.index),
                tip.index.next(),
                "a commit that does not follow the tip"
            );
            assert_eq!(header.previous, tip.digest, "a commit that is not linked to the tip");
            for block in header.blocks.iter() {
                let stored = self.blocks.get(block).expect("every block of a stored commit");
                if stored.epoch_end.is_some() && self.ends.last() != Some(&header.reference.index) {
                    self.ends.push(header.reference.index);
                }
            }
            self.commits.insert(header.reference.index, (**header).clone());
        }
        for committee in &batch.committees {
            self.committees.insert(committee.epoch(), committee.clone());
        }
    }

    /// What a machine starts from.
    pub fn start(&self) -> Start {
        let Some((_, tip)) = self.commits.last_key_value() else {
            let genesis = self.committees.first_key_value().expect("the genesis committee").1;
            return Start::genesis(self.chain_id, genesis.clone());
        };
        let index = tip.reference.index;
        let ends_epoch = self.ends.last() == Some(&index);
        let certifiable = self.commits.values().rev().find(|header| self.certifiers(header).is_some());
        let certifiable = certifiable.map_or(CommitRef::GENESIS, |header| header.reference);
        let above = self.commits.values().filter(|header| header.reference.index > certifiable.index);
        let votes = above.map(|header| StoredVotes {
            commit: header.reference,
            epoch: header.epoch,
            voters: self
                .votes
                .get(&(header.reference, header.epoch))
                .map(|by| by.keys().copied().collect())
                .unwrap_or_default(),
        });
        Start {
            chain_id: self.chain_id,
            tip: Tip {
                reference: tip.reference,
                timestamp_ms: tip.timestamp_ms,
                epoch: tip.epoch,
                ends_epoch,
            },
            certifiable,
            lowest_available: self.lowest,
            committee: self.committees[&tip.epoch].clone(),
            next_committee: tip
                .epoch
                .next()
                .and_then(|next| self.committees.get(&next))
                .filter(|_| ends_epoch)
                .cloned(),
            votes: votes.collect(),
        }
    }

    /// The shortest prefix of voters that is a quorum for this commit, by author.
    fn certifiers(&self, header: &CommitHeader) -> Option<Vec<&CheckedBlock>> {
        let committee = self.committees.get(&header.epoch)?;
        let mut tally = StakeTally::new();
        let mut quorum = Vec::new();
        for (author, (_, block)) in self.votes.get(&(header.reference, header.epoch))? {
            if tally.add(*author, committee) {
                quorum.push(self.blocks.get(block)?);
            }
            if tally.reached_quorum() {
                return Some(quorum);
            }
        }
        None
    }

    /// Carries out a plan, all at once.
    ///
    /// # Errors
    ///
    /// Why nothing can be sent.
    pub fn serve(&self, plan: &ServePlan) -> Result<Vec<ResponsePart>, RefuseReason> {
        match plan {
            ServePlan::CommitInfo { index } => {
                let commit = self.commits.get(index).map(|header| header.reference);
                Ok(vec![ResponsePart::CommitInfo { commit, chain_id: None }])
            }
            ServePlan::Commits { range, last, max_bytes, with_blocks } => {
                self.serve_commits(*range, *last, *max_bytes, *with_blocks)
            }
            ServePlan::Blocks { refs, max_bytes } => Ok(self.serve_blocks(refs, *max_bytes)),
        }
    }

    fn serve_commits(
        &self,
        range: CommitRange,
        last: CommitIndex,
        max_bytes: u64,
        with_blocks: bool,
    ) -> Result<Vec<ResponsePart>, RefuseReason> {
        let epoch = self.commits.get(&range.start()).ok_or(RefuseReason::Unavailable)?.epoch;
        let can_end = |header: &&CommitHeader| header.epoch == epoch && self.certifiers(header).is_some();
        let up_to = |end: &CommitHeader| {
            let commits = self.commits.range(range.start()..=end.reference.index);
            let commits: Vec<_> = commits.map(|(_, header)| header.payload.clone()).collect();
            let certifiers = self.certifiers(end).unwrap_or_default();
            let certifiers: Vec<_> = certifiers.iter().map(|block| block.payload.clone()).collect();
            let left = max_bytes.checked_sub(bytes_of(&commits) + bytes_of(&certifiers))?;
            Some((end.reference.index, commits, certifiers, left))
        };
        let within = self.commits.range(range.start()..=range.end()).map(|(_, header)| header).rev();
        let above = self.commits.range(range.end()..=last).map(|(_, header)| header).find(can_end);
        let mut ends = within.filter(can_end).chain(above).peekable();
        ends.peek().ok_or(RefuseReason::Unavailable)?;
        let (end, commits, certifiers, left) = ends.find_map(up_to).ok_or(RefuseReason::TooLarge)?;
        let mut parts = vec![
            commits_part(commits, Vec::new(), Vec::new()),
            commits_part(Vec::new(), certifiers, Vec::new()),
        ];
        if with_blocks {
            parts.extend(self.blocks_of(range.start(), end, left));
        }
        Ok(parts)
    }

    /// The blocks of these commits, in commit order, up to the first that does not fit.
    fn blocks_of(&self, start: CommitIndex, end: CommitIndex, max_bytes: u64) -> Vec<ResponsePart> {
        let references = self.commits.range(start..=end).flat_map(|(_, header)| header.blocks.iter());
        let (mut parts, mut blocks, mut sent) = (Vec::new(), Vec::new(), 0);
        for block in references.map_while(|reference| self.blocks.get(reference)) {
            sent += block.payload.len() as u64;
            if sent > max_bytes {
                break;
            }
            blocks.push(block.payload.clone());
            if bytes_of(&blocks) >= PART_BYTES {
                parts.push(commits_part(Vec::new(), Vec::new(), std::mem::take(&mut blocks)));
            }
        }
        if !blocks.is_empty() {
            parts.push(commits_part(Vec::new(), Vec::new(), blocks));
        }
        parts
    }

    fn serve_blocks(&self, refs: &[BlockRef], max_bytes: u64) -> Vec<ResponsePart> {
        let mut parts = Vec::new();
        let (mut blocks, mut missing) = (Vec::new(), Vec::new());
        let mut sent = 0;
        for (position, reference) in refs.iter().enumerate() {
            match self.blocks.get(reference) {
                Some(block) => {
                    let bytes = block.payload.len() as u64;
                    if sent + bytes > max_bytes {
                        break;
                    }
                    sent += bytes;
                    blocks.push(block.payload.clone());
                }
                None => missing.push(position as u32),
            }
            if bytes_of(&blocks) >= PART_BYTES {
                parts.push(blocks_part(std::mem::take(&mut blocks), std::mem::take(&mut missing)));
            }
        }
        parts.push(blocks_part(blocks, missing));
        parts
    }
}

fn commits_part(commits: Vec<Payload>, certifiers: Vec<Payload>, blocks: Vec<Payload>) -> ResponsePart {
    let buffer_bytes = bytes_of(&commits) + bytes_of(&certifiers) + bytes_of(&blocks);
    ResponsePart::Commits { commits, certifiers, blocks, buffer_bytes }
}

fn blocks_part(blocks: Vec<Payload>, missing: Vec<u32>) -> ResponsePart {
    let buffer_bytes = bytes_of(&blocks);
    ResponsePart::Blocks { blocks, missing, buffer_bytes }
}

fn bytes_of(payloads: &[Payload]) -> u64 {
    payloads.iter().map(|payload| payload.len() as u64).sum()
}
