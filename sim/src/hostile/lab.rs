//! What colluding peers have to work with: the chain, others like it, and keys.

use crate::chain::{ChainMaker, ChainSpec, MadeCommit, SpecError, authorities::Authorities};
use blake2::{Blake2b256, Digest};
use bytes::Bytes;
use soma_sync_core::{
    block::{Block, BlockView},
    commit::Commit,
    committee::Committee,
    config::Limits,
    job::CheckedBlock,
    payload::Payload,
    types::{AuthorityIndex, BlockRef, CommitDigest, CommitIndex, CommitRef, Epoch},
};
use std::sync::Arc;

/// A chain with the keys that made it, and two chains that are not it.
#[derive(Debug)]
pub struct Lab {
    spec: ChainSpec,
    genesis: Arc<Committee>,
    chain: Vec<MadeCommit>,
    fork: Vec<MadeCommit>,
    foreign: Vec<MadeCommit>,
}

impl Lab {
    /// A lab for this chain.
    ///
    /// # Errors
    ///
    /// When the spec is out of its bounds.
    pub fn new(spec: ChainSpec) -> Result<Self, SpecError> {
        let make = |spec: ChainSpec| -> Result<_, SpecError> {
            let mut maker = ChainMaker::new(spec)?;
            let commits: Vec<_> = maker.by_ref().take(spec.commits as usize).collect();
            Ok((maker.genesis().clone(), commits))
        };
        let (genesis, chain) = make(spec)?;
        let (_, fork) = make(ChainSpec { payload_bytes: spec.payload_bytes + 1, ..spec })?;
        let (_, foreign) = make(ChainSpec { seed: spec.seed + 1, ..spec })?;
        Ok(Self { spec, genesis, chain, fork, foreign })
    }

    /// The committee that the chain begins with.
    pub const fn genesis(&self) -> &Arc<Committee> {
        &self.genesis
    }

    /// The chain.
    pub fn chain(&self) -> &[MadeCommit] {
        &self.chain
    }

    /// A chain of the same committees with other transactions: they have signed both.
    pub fn fork(&self) -> &[MadeCommit] {
        &self.fork
    }

    /// A chain of other committees.
    pub fn foreign(&self) -> &[MadeCommit] {
        &self.foreign
    }

    /// A commit of the chain.
    pub fn made(&self, index: CommitIndex) -> Option<&MadeCommit> {
        self.chain.get(index.get().checked_sub(1)? as usize)
    }

    /// The commits from `start` to `end`, or to the end of its epoch before that, after `change` was made to the first;
    /// linked among one another and to what comes before them. The last one's reference is given too.
    pub fn forged(
        &self,
        start: CommitIndex,
        end: CommitIndex,
        change: impl FnOnce(&mut Commit),
    ) -> Option<(CommitRef, Vec<Payload>)> {
        let epoch = self.made(start)?.header.epoch;
        let mut change = Some(change);
        let (mut last, mut forged) = (None, Vec::new());
        for index in start.get()..=end.get() {
            let Some(made) = self.made(CommitIndex::new(index)).filter(|made| made.header.epoch == epoch)
            else {
                break;
            };
            let mut commit = made.header.to_commit();
            if let Some(CommitRef { digest, .. }) = last {
                commit.previous = digest;
            }
            if let Some(change) = change.take() {
                change(&mut commit);
            }
            let (reference, bytes) = commit.encode();
            last = Some(reference);
            forged.push(Payload::new(Bytes::from(bytes)));
        }
        Some((last?, forged))
    }

    /// What names these bytes as the commit at `index`, whether or not they are one.
    pub fn name(index: CommitIndex, bytes: &Payload) -> CommitRef {
        CommitRef { index, digest: CommitDigest::new(Blake2b256::digest(bytes.bytes()).into()) }
    }

    /// Blocks that vote for `commit`, each by an authority of `of` and signed with its keys, saying that they are of
    /// epoch `says`. A block for each of `authors`; where one is there twice, its blocks differ.
    pub fn votes(&self, commit: CommitRef, of: Epoch, says: Epoch, authors: &[u32]) -> Vec<Payload> {
        let vote = |(nth, author): (usize, &u32)| {
            let change = |block: &mut Block| {
                block.epoch = says;
                block.ancestors.iter_mut().for_each(|ancestor| ancestor.epoch = says);
                block.timestamp_ms = block.timestamp_ms.saturating_add(nth as u64);
                block.votes = vec![commit];
            };
            Some(self.block(*author, of, change)?.1)
        };
        authors.iter().enumerate().filter_map(vote).collect()
    }

    /// Blocks by all authorities of the epoch after that of `index`, if that is the last commit of its epoch, which vote
    /// for that commit: they are sound, and certify nothing.
    pub fn late_votes(&self, index: CommitIndex) -> Vec<Payload> {
        let of_last = |made: &&MadeCommit| made.next_committee.is_some();
        let Some(made) = self.made(index).filter(of_last) else { return Vec::new() };
        let next = made.header.epoch.saturating_add(1);
        let everyone: Vec<_> = (0..self.committee()).collect();
        self.votes(made.header.reference, next, next, &everyone)
    }

    /// Blocks by `authors` that vote for `commit`, each signed with its author's keys of `epoch` and a round later than
    /// its ancestors allow: none of them is of the round before.
    pub fn votes_without_parents(&self, commit: CommitRef, epoch: Epoch, authors: &[u32]) -> Vec<Payload> {
        let change = |block: &mut Block| {
            block.round = block.round.saturating_add(1);
            block.votes = vec![commit];
        };
        authors.iter().filter_map(|author| Some(self.block(*author, epoch, change)?.1)).collect()
    }

    /// A block like one that this author made, changed and then signed with the keys that it has in epoch `of`.
    pub fn block(
        &self,
        author: u32,
        of: Epoch,
        change: impl FnOnce(&mut Block),
    ) -> Option<(BlockRef, Payload)> {
        let authorities = Authorities::draw(&self.spec, u32::try_from(of.get()).ok()?);
        let author = AuthorityIndex::new(author);
        let first_epoch = self.chain.first()?.header.epoch;
        let mut block = self.block_by(author, of).or_else(|| self.block_by(author, first_epoch))?;
        change(&mut block);
        let (reference, bytes) = block.sign(|message| authorities.sign(author, message));
        Some((reference, Payload::new(bytes)))
    }

    /// A vote with a bad signature for what these certify, by an authority that is not among them.
    pub(super) fn bad_certifier(&self, certifiers: &[Payload]) -> Option<Payload> {
        let decoded = certifiers
            .iter()
            .filter_map(|block| CheckedBlock::decode(block.clone(), &Limits::default()).ok());
        let decoded: Vec<_> = decoded.collect();
        let first = decoded.first()?;
        let by_all = |vote: &&CommitRef| decoded.iter().all(|block| block.votes.contains(vote));
        let commit = *first.votes.iter().find(by_all)?;
        let voted = |author: &u32| decoded.iter().any(|block| block.reference.author.get() == *author);
        let other = (0..self.committee()).find(|author| !voted(author))?;
        let epoch = first.reference.epoch;
        let mut bad = self.votes(commit, epoch, epoch, &[other]).pop()?;
        super::parts::flip(&mut bad);
        Some(bad)
    }

    /// How many authorities each committee has.
    pub const fn committee(&self) -> u32 {
        self.spec.committee
    }

    /// A block of the chain by this author in this epoch, as something to make others after.
    fn block_by(&self, author: AuthorityIndex, epoch: Epoch) -> Option<Block> {
        let of_epoch = self.chain.iter().filter(|made| made.header.epoch == epoch);
        let mut blocks = of_epoch.flat_map(|made| made.blocks.iter().chain(made.certifiers.iter()));
        // One that is not built on genesis blocks, which no other epoch has.
        let usual = |block: &&CheckedBlock| block.reference.round.get() > 1 && block.epoch_end.is_none();
        let block = blocks.find(|block| block.reference.author == author && usual(block))?;
        let view = BlockView::decode(block.payload.bytes(), &Limits::default()).ok()?;
        Some(Block {
            epoch,
            round: view.round(),
            author,
            timestamp_ms: view.timestamp_ms(),
            ancestors: view.ancestors().collect(),
            ..Block::default()
        })
    }
}
