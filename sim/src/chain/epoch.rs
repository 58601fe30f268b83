//! One epoch's blocks, round by round, and the commits that come of them.
//!
//! ```text
//!   round      1     2     3     4     5     6     7
//!   author 0   o-----o-----o-----L-----o-----o-----v      o  a block: its first ancestor is its author's own latest
//!   author 1   o-----o-----o-----o-----o     o-----v         block, the others are all blocks of the round before
//!   author 2   o-----o-----o     o-----o-----L-----v      L  a leader: its commit is itself and the oldest blocks
//!   author 3         o-----o-----o-----o-----o-----v         before it that are in no commit
//!                                                         v  votes for the commit of a leader three rounds before
//! ```

use super::{
    ChainSpec,
    authorities::Authorities,
    bls_key::BlsKey,
    draw::{Draws, Site, first_u64},
    maker::{Carried, MadeCommit},
    pace::Pace,
};
use bytes::Bytes;
use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore, SeedableRng},
};
use soma_sync_core::{
    block::{Block, EndOfEpochData},
    commit::Commit,
    committee::{Committee, StakeTally, ValidatorSet},
    job::{CheckedBlock, CommitHeader, EpochEnd},
    payload::Payload,
    types::{AuthorityIndex, BlockRef, CommitRef, Epoch, Round},
};
use std::{collections::VecDeque, sync::Arc};

/// Rounds from a leader to the blocks that vote for its commit: one to vote for the leader, one to see that a quorum
/// did, and the next one.
const VOTE_DELAY: u32 = 3;
/// Milliseconds from one round to the next.
const ROUND_MS: u64 = 100;
/// A block is proposed less than this many milliseconds after its round began, so never before its ancestors.
const PROPOSAL_SPREAD_MS: u64 = 50;
/// Most transactions that a block's payload is split into.
const MAX_TRANSACTIONS: u64 = 4;

/// The blocks of one epoch.
#[derive(Debug)]
pub(crate) struct EpochDag {
    spec: ChainSpec,
    draws: Draws,
    authorities: Authorities,
    pace: Pace,
    start_ms: u64,
    /// Index of the epoch's last commit; `None` where the epoch does not end.
    last_commit: Option<u32>,
    /// The next epoch's authorities, once this epoch's last commit is made.
    next: Option<Authorities>,
    /// The last round that was made.
    round: Round,
    /// How far the turns of staying absent have come.
    absent_from: u32,
    /// Every authority's latest block, or its genesis block.
    latest: Vec<BlockRef>,
    /// Blocks in no commit, by round and author.
    open: VecDeque<CheckedBlock>,
    tip: CommitRef,
    timestamp_ms: u64,
    /// Commits that no votes were made for yet, their certifiers missing.
    uncertified: VecDeque<MadeCommit>,
    /// Commits that blocks may still vote for, with the rounds of their leaders.
    votable: VecDeque<(Round, CommitRef)>,
}

impl EpochDag {
    pub(crate) fn new(spec: ChainSpec, epoch: u32, authorities: Authorities, carried: Carried) -> Self {
        let draws = Draws::new(spec.seed);
        let committee = &authorities.committee;
        let latest = committee.authorities().filter_map(|(index, _)| committee.genesis(index)).collect();
        let first_absent =
            draws.below(Site::FirstAbsent, [u64::from(epoch), 0, 0], u64::from(spec.committee));
        Self {
            pace: Pace {
                committee: authorities.count(),
                quorum: authorities.quorum_size,
                blocks_per_commit: spec.blocks_per_commit,
            },
            spec,
            draws,
            start_ms: carried.start_ms,
            last_commit: spec.last_commit_of(epoch),
            next: None,
            round: Round::ZERO,
            absent_from: u32::try_from(first_absent).expect("below a u32"),
            latest,
            open: VecDeque::new(),
            tip: carried.tip,
            timestamp_ms: carried.timestamp_ms,
            uncertified: VecDeque::new(),
            votable: VecDeque::new(),
            authorities,
        }
    }

    /// Makes the next round, and gives the commits that its blocks certify. `None` when there are no more numbers.
    pub(crate) fn make_round(&mut self) -> Option<Vec<MadeCommit>> {
        self.round = self.round.next()?;
        let (proposers, leaders) = self.sizes();
        let authors = self.draw_authors(proposers);
        let leaders = self.draw_leaders(&authors, leaders);
        if !self.ended() && leaders.len() == self.commits_left() as usize {
            let next = u32::try_from(self.epoch().get()).ok()?.checked_add(1)?;
            self.next = Some(Authorities::draw(&self.spec, next));
        }
        let blocks = self.make_blocks(&authors, leaders.last().copied());
        let certified = self.certify(&blocks);
        self.commit(blocks, &leaders)?;
        Some(certified)
    }

    /// The next epoch's authorities and what is carried over, once this epoch's last commit is certified.
    pub(crate) fn take_next_epoch(&mut self) -> Option<(Authorities, Carried)> {
        if !self.uncertified.is_empty() {
            return None;
        }
        let start_ms = self.round_ms(self.round) + ROUND_MS;
        let carried = Carried { tip: self.tip, timestamp_ms: self.timestamp_ms, start_ms };
        self.next.take().map(|authorities| (authorities, carried))
    }

    fn epoch(&self) -> Epoch {
        self.authorities.committee.epoch()
    }

    fn ended(&self) -> bool {
        self.next.is_some()
    }

    /// Commits that the epoch still lacks.
    fn commits_left(&self) -> u32 {
        self.last_commit.map_or(u32::MAX, |last| last - self.tip.index.get())
    }

    fn round_ms(&self, round: Round) -> u64 {
        self.start_ms + u64::from(round.get()) * ROUND_MS
    }

    /// How many authorities propose in the round, and how many of them lead a commit. After the epoch's last commit
    /// everyone proposes, to vote for it.
    fn sizes(&self) -> (u32, u32) {
        if self.ended() {
            return (self.pace.committee, 0);
        }
        let open = u32::try_from(self.open.len()).expect("about a commit and a round of blocks");
        let proposers = self.pace.proposers(open);
        (proposers, self.pace.leaders(proposers, open).min(self.commits_left()))
    }

    /// Who proposes, by index. Authorities are absent by turns, so that none misses two rounds in a row: at most a
    /// third of them miss one.
    fn draw_authors(&mut self, proposers: u32) -> Vec<AuthorityIndex> {
        let (committee, from) = (self.pace.committee, self.absent_from);
        let absent = committee - proposers;
        self.absent_from = (from + absent) % committee;
        (0..committee)
            .filter(|index| (index + committee - from) % committee >= absent)
            .map(AuthorityIndex::new)
            .collect()
    }

    /// The leaders of the round in commit order, each a position among `authors`.
    fn draw_leaders(&self, authors: &[AuthorityIndex], leaders: u32) -> Vec<usize> {
        let entities = [self.epoch().get(), u64::from(self.round.get()), 0];
        let first = self.draws.below(Site::Leader, entities, authors.len() as u64) as usize;
        (0..leaders as usize).map(|nth| (first + nth) % authors.len()).collect()
    }

    /// The round's blocks by author. If the epoch ends in this round, the block of its last leader says so.
    fn make_blocks(&mut self, authors: &[AuthorityIndex], last_leader: Option<usize>) -> Vec<CheckedBlock> {
        let before = Round::new(self.round.get() - 1);
        let parents: Vec<_> = self.latest.iter().filter(|latest| latest.round == before).copied().collect();
        let make = |(position, author): (usize, &AuthorityIndex)| {
            let next = self.next.as_ref().filter(|_| last_leader == Some(position));
            self.make_block(*author, &parents, next.map(|next| &next.committee))
        };
        let blocks: Vec<_> = authors.iter().enumerate().map(make).collect();
        for block in &blocks {
            self.latest[block.reference.author.position()] = block.reference;
        }
        blocks
    }

    fn make_block(
        &self,
        author: AuthorityIndex,
        parents: &[BlockRef],
        next: Option<&Arc<Committee>>,
    ) -> CheckedBlock {
        let own = self.latest[author.position()];
        let others = parents.iter().filter(|parent| parent.author != author);
        let drawn = self.draw_block(author);
        let votes = self.votes(own.round);
        let ancestors: Vec<_> = std::iter::once(&own).chain(others).copied().collect();
        let block = Block {
            epoch: self.epoch(),
            round: self.round,
            author,
            timestamp_ms: self.proposed_ms(&drawn),
            transactions: transactions(drawn, self.spec.payload_bytes),
            votes: votes.clone(),
            end_of_epoch: next.map(|next| self.end_of_epoch(&ancestors, next)),
            ancestors,
        };
        let (reference, bytes) = block.sign(|message| self.authorities.sign(author, message));
        CheckedBlock {
            reference,
            votes,
            epoch_end: next.map(|next| EpochEnd::Next(Arc::clone(next))),
            payload: Payload::new(bytes),
        }
    }

    fn draw_block(&self, author: AuthorityIndex) -> [u8; 32] {
        let entities = [self.epoch().get(), u64::from(self.round.get()), u64::from(author.get())];
        self.draws.bytes(Site::Block, entities)
    }

    /// When the block of the round that `drawn` was drawn for is proposed.
    fn proposed_ms(&self, drawn: &[u8; 32]) -> u64 {
        self.round_ms(self.round) + first_u64(drawn) % PROPOSAL_SPREAD_MS
    }

    /// The commits that an author votes for whose latest block is of round `latest`: each commit once.
    fn votes(&self, latest: Round) -> Vec<CommitRef> {
        let due = |since: Round, now: Round| since.saturating_add(VOTE_DELAY) <= now;
        let votable =
            self.votable.iter().filter(|(leader, _)| due(*leader, self.round) && !due(*leader, latest));
        votable.map(|(_, commit)| *commit).collect()
    }

    /// What the block on these ancestors, its author's own first, says at the end of the epoch. All of their authors
    /// sign.
    fn end_of_epoch(&self, ancestors: &[BlockRef], next: &Committee) -> EndOfEpochData {
        let author = ancestors[0].author;
        let entities = [self.epoch().get(), u64::from(author.get()), 0];
        let authorities = next.authorities().map(|(_, authority)| authority.clone()).collect();
        let set = ValidatorSet { authorities };
        let (signature, aggregate) = BlsKey::sign(
            self.draws,
            (self.epoch(), author),
            &set,
            |signer| self.authorities.bls_key(signer),
            ancestors.iter().skip(1).map(|ancestor| ancestor.author),
        );
        EndOfEpochData {
            next_epoch_start_timestamp_ms: self.round_ms(self.round.saturating_add(VOTE_DELAY + 1)),
            next_validator_set: Some(set),
            state_hash: Some(self.draws.array(Site::StateHash, entities)),
            validator_set_signature: Some(signature),
            aggregate_signature: Some(aggregate),
        }
    }

    /// Takes the commits that `blocks`, the round's, vote for with a quorum.
    fn certify(&mut self, blocks: &[CheckedBlock]) -> Vec<MadeCommit> {
        let due = |made: &MadeCommit| made.header.leader.round.saturating_add(VOTE_DELAY) == self.round;
        let count = self.uncertified.iter().take_while(|made| due(made)).count();
        if count == 0 {
            return Vec::new();
        }
        let certifiers = quorum(&self.authorities.committee, blocks);
        let certified = self.uncertified.drain(..count);
        certified.map(|made| MadeCommit { certifiers: Arc::clone(&certifiers), ..made }).collect()
    }

    /// Makes the commits that the round's leaders lead; the blocks that they do not take stay open.
    fn commit(&mut self, blocks: Vec<CheckedBlock>, leaders: &[usize]) -> Option<()> {
        while self
            .votable
            .front()
            .is_some_and(|(leader, _)| leader.saturating_add(VOTE_DELAY + 1) < self.round)
        {
            self.votable.pop_front();
        }
        let mut blocks: Vec<_> = blocks.into_iter().map(Some).collect();
        let others = self.spec.blocks_per_commit as usize - 1;
        for leader in leaders {
            let leader = blocks[*leader].take()?;
            let taken = self.open.drain(..others.min(self.open.len())).chain([leader]).collect();
            self.make_commit(taken)?;
        }
        if self.ended() {
            self.open.clear();
        } else {
            self.open.extend(blocks.into_iter().flatten());
        }
        Some(())
    }

    /// Makes the commit of these blocks, of which the last one is the leader.
    fn make_commit(&mut self, blocks: Vec<CheckedBlock>) -> Option<()> {
        let leader = blocks.last()?.reference;
        let timestamp_ms = self.timestamp_ms.max(self.proposed_ms(&self.draw_block(leader.author)));
        let commit = Commit {
            index: self.tip.index.next()?,
            previous: self.tip.digest,
            timestamp_ms,
            leader,
            blocks: blocks.iter().map(|block| block.reference).collect(),
            epoch: self.epoch(),
        };
        let (reference, bytes) = commit.encode();
        let header = CommitHeader {
            reference,
            previous: commit.previous,
            timestamp_ms,
            epoch: commit.epoch,
            leader,
            blocks: commit.blocks.into(),
            payload: Payload::new(Bytes::from(bytes)),
        };
        self.tip = reference;
        self.timestamp_ms = timestamp_ms;
        self.votable.push_back((leader.round, reference));
        let next = self.next.as_ref().filter(|_| self.commits_left() == 0);
        self.uncertified.push_back(MadeCommit {
            header,
            blocks,
            certifiers: Arc::default(),
            committee: Arc::clone(&self.authorities.committee),
            next_committee: next.map(|next| Arc::clone(&next.committee)),
        });
        Some(())
    }
}

/// The shortest prefix of these blocks, which are ordered by author, that is a quorum.
fn quorum(committee: &Committee, blocks: &[CheckedBlock]) -> Arc<[CheckedBlock]> {
    let mut tally = StakeTally::new();
    let before = blocks.iter().take_while(|block| {
        tally.add(block.reference.author, committee);
        !tally.reached_quorum()
    });
    let count = before.count() + 1;
    blocks.iter().take(count).cloned().collect()
}

/// A block's transactions: `bytes` drawn bytes, cut into a drawn number of nearly equal parts.
fn transactions(drawn: [u8; 32], bytes: u32) -> Vec<Bytes> {
    if bytes == 0 {
        return Vec::new();
    }
    let mut rng = ChaCha8Rng::from_seed(drawn);
    let parts = 1 + rng.next_u64() % MAX_TRANSACTIONS;
    let mut payload = vec![0; bytes as usize];
    rng.fill_bytes(&mut payload);
    let mut payload = Bytes::from(payload);
    let part = (bytes as usize).div_ceil(parts as usize);
    let mut transactions = Vec::with_capacity(parts as usize);
    while !payload.is_empty() {
        transactions.push(payload.split_to(part.min(payload.len())));
    }
    transactions
}
