//! What there is: the chain, who answers what, what storage holds. Plain and slow, and apart from the machine.

use super::Scope;
use crate::{
    chain::{ChainMaker, ChainSpec, MadeCommit},
    world::ChainStore,
};
use bytes::Bytes;
use soma_sync_core::{
    Config,
    command::{Batch, ServePlan},
    committee::Committee,
    config::Limits,
    job::{CheckedBlock, Job, Verdict},
    payload::Payload,
    request::{FetchBlocks, FetchCommits, RefuseReason, ResponsePart},
    start::{Start, StoredVotes, Tip},
    types::{AuthorityIndex, BlockRef, ChainId, CommitIndex, CommitRange, CommitRef, PeerId, Stake},
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::Duration,
};

/// Peers, by position: the honest ones and the one that lies.
pub(super) const PEERS: usize = 3;
/// The one that lies.
pub(super) const LIAR: usize = 2;
/// Stake that certifies a commit: more than two thirds of 10,000.
const QUORUM: u64 = 6_667;

/// What storage holds: so many commits, and blocks by their positions among all there are, a bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Durable {
    pub(super) commits: u32,
    blocks: u64,
}

/// What a peer says in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Say {
    /// What is true, or that it has not got it.
    Truth,
    /// That it is on another chain.
    OtherChain,
    /// That it has a commit more than there is.
    TooMuch,
    /// That its lowest commit is above its highest.
    Inverted,
    /// Nothing, and that this is all.
    Nothing,
    /// What is true, but for the last byte of the last item.
    Corrupt,
    /// Commits without votes.
    NoVotes,
    /// That it lacks every block.
    Lacking,
}

impl Say {
    /// Whether who says it can be shown to lie.
    pub(super) fn is_provable(self) -> bool {
        match self {
            Self::OtherChain | Self::Inverted | Self::Corrupt | Self::NoVotes => true,
            Self::Truth | Self::TooMuch | Self::Nothing | Self::Lacking => false,
        }
    }
}

/// The chain, and what follows from it.
pub(super) struct Ground {
    pub(super) config: Config,
    pub(super) chain_id: ChainId,
    genesis: Arc<Committee>,
    commits: Vec<MadeCommit>,
    /// Every block that was made, once each.
    blocks: Vec<CheckedBlock>,
    places: BTreeMap<BlockRef, usize>,
    server: ChainStore,
    jobs: Vec<Job>,
    job_names: HashMap<Job, usize>,
    verdicts: Vec<Option<Verdict>>,
}

/// A payload that can be told from others by its fingerprint.
fn stamped(bytes: Bytes) -> Payload {
    let fnv = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    let fingerprint = bytes.iter().fold(0xcbf2_9ce4_8422_2325, fnv);
    Payload::with_fingerprint(bytes, fingerprint)
}

fn stamp_block(block: &CheckedBlock) -> CheckedBlock {
    CheckedBlock { payload: stamped(block.payload.bytes().clone()), ..block.clone() }
}

fn stamp(made: MadeCommit) -> MadeCommit {
    let mut stamped_commit = MadeCommit {
        blocks: made.blocks.iter().map(stamp_block).collect(),
        certifiers: made.certifiers.iter().map(stamp_block).collect(),
        ..made
    };
    stamped_commit.header.payload = stamped(stamped_commit.header.payload.bytes().clone());
    stamped_commit
}

impl Ground {
    pub(super) fn new(scope: &Scope) -> Self {
        let spec = ChainSpec {
            commits: scope.commits,
            blocks_per_commit: scope.blocks,
            payload_bytes: 8,
            committee: 4,
            epochs: scope.epochs,
            seed: 1,
        };
        let mut maker = ChainMaker::new(spec).expect("a scope within the bounds of specs");
        let commits: Vec<_> = maker.by_ref().take(scope.commits as usize).map(stamp).collect();
        let genesis = maker.genesis().clone();
        let all = commits.iter().flat_map(|made| made.blocks.iter().chain(made.certifiers.iter()));
        let blocks: BTreeMap<_, _> = all.map(|block| (block.reference, block.clone())).collect();
        assert!(blocks.len() <= 64, "a bit for each block");
        let places = blocks.keys().copied().zip(0..).collect();
        Self {
            config: config(scope),
            chain_id: genesis.chain_id(),
            server: ChainStore::of(genesis.clone(), &commits),
            genesis,
            commits,
            blocks: blocks.into_values().collect(),
            places,
            jobs: Vec::new(),
            job_names: HashMap::new(),
            verdicts: Vec::new(),
        }
    }

    pub(super) fn height(&self) -> u32 {
        self.commits.len() as u32
    }

    pub(super) fn peer(position: usize) -> PeerId {
        PeerId::new([position as u8 + 1; 32])
    }

    pub(super) fn position(peer: PeerId) -> usize {
        (0..PEERS).find(|position| Self::peer(*position) == peer).expect("one of the peers")
    }

    /// The number that a job goes by, however often it is handed out.
    pub(super) fn job(&mut self, job: Job) -> usize {
        if let Some(name) = self.job_names.get(&job) {
            return *name;
        }
        let name = self.jobs.len();
        self.job_names.insert(job.clone(), name);
        self.jobs.push(job);
        self.verdicts.push(None);
        name
    }

    /// What a job comes to. The same each time, so it is run once.
    pub(super) fn verdict(&mut self, name: usize) -> Verdict {
        let verdict = self.verdicts[name].get_or_insert_with(|| self.jobs[name].clone().run([0; 32]));
        verdict.clone()
    }

    /// Where a job to certify an answer begins.
    pub(super) fn certifies_from(&self, name: usize) -> Option<u32> {
        match &self.jobs[name] {
            Job::Certify(job) => Some(job.start.get()),
            Job::Check(_) | Job::Observe(_) | Job::Votes(_) => None,
        }
    }

    /// What storage holds once a batch is stored, or why the batch is none that may be stored.
    pub(super) fn store(&self, durable: Durable, batch: &Batch) -> Result<Durable, &'static str> {
        let mut after = durable;
        for block in &batch.blocks {
            let place = self.places.get(&block.reference).filter(|place| self.blocks[**place] == **block);
            after.blocks |= 1 << place.ok_or("a block is stored that nobody made")?;
        }
        for commit in &batch.commits {
            let made =
                self.commits.get(after.commits as usize).ok_or("a commit is stored that nobody made")?;
            if made.header != **commit {
                return Err("a commit is stored that is not the next one of the chain");
            }
            if !made.blocks.iter().all(|block| after.blocks >> self.places[&block.reference] & 1 == 1) {
                return Err("a commit is stored without its blocks");
            }
            after.commits += 1;
        }
        Ok(after)
    }

    /// Who has voted for a commit, by what is stored.
    fn voters(&self, durable: Durable, commit: &MadeCommit) -> Vec<AuthorityIndex> {
        let stored = self.blocks.iter().enumerate().filter(|(place, _)| durable.blocks >> place & 1 == 1);
        let votes = stored.filter(|(_, block)| {
            block.reference.epoch == commit.header.epoch && block.votes.contains(&commit.header.reference)
        });
        let mut voters: Vec<_> = votes.map(|(_, block)| block.reference.author).collect();
        voters.sort_unstable();
        voters.dedup();
        voters
    }

    /// The highest stored commit with a quorum of stored votes.
    pub(super) fn certifiable(&self, durable: Durable) -> CommitRef {
        let is_certified = |commit: &&MadeCommit| {
            let voters = self.voters(durable, commit);
            let stakes = voters.iter().filter_map(|voter| commit.committee.stake(*voter));
            stakes.map(Stake::get).sum::<u64>() >= QUORUM
        };
        let stored = &self.commits[..durable.commits as usize];
        stored.iter().rev().find(is_certified).map_or(CommitRef::GENESIS, |commit| commit.header.reference)
    }

    /// What a machine starts from.
    pub(super) fn start(&self, durable: Durable) -> Start {
        let genesis = Start::genesis(self.chain_id, self.genesis.clone());
        let stored = &self.commits[..durable.commits as usize];
        let Some(last) = stored.last() else { return genesis };
        let certifiable = self.certifiable(durable);
        let above = stored.iter().filter(|commit| commit.header.reference.index > certifiable.index);
        Start {
            tip: Tip {
                reference: last.header.reference,
                timestamp_ms: last.header.timestamp_ms,
                epoch: last.header.epoch,
                ends_epoch: last.next_committee.is_some(),
            },
            certifiable,
            committee: last.committee.clone(),
            next_committee: last.next_committee.clone(),
            votes: above
                .map(|commit| StoredVotes {
                    commit: commit.header.reference,
                    epoch: commit.header.epoch,
                    voters: self.voters(durable, commit),
                })
                .collect(),
            ..genesis
        }
    }

    /// An answer to a request for commits in one message; why there is none.
    pub(super) fn commits(&self, fetch: &FetchCommits, say: Say) -> Result<ResponsePart, RefuseReason> {
        let last = CommitIndex::new(self.height());
        let range = CommitRange::new(fetch.start, fetch.end.min(last)).ok_or(RefuseReason::Unavailable)?;
        let plan =
            ServePlan::Commits { range, last, max_bytes: fetch.max_bytes, with_blocks: fetch.with_blocks };
        let mut items = [Vec::new(), Vec::new(), Vec::new()];
        for part in self.server.serve(&plan)? {
            if let ResponsePart::Commits { commits, certifiers, blocks, .. } = part {
                for (all, more) in items.iter_mut().zip([commits, certifiers, blocks]) {
                    all.extend(more);
                }
            }
        }
        let [mut commits, mut certifiers, blocks] = items;
        match say {
            Say::Corrupt => commits.last_mut().into_iter().for_each(corrupt),
            Say::NoVotes => certifiers.clear(),
            _ => {}
        }
        let buffer_bytes = bytes_of(&commits) + bytes_of(&certifiers) + bytes_of(&blocks);
        Ok(ResponsePart::Commits { commits, certifiers, blocks, buffer_bytes })
    }

    /// An answer to a request for blocks in one message.
    pub(super) fn blocks(&self, fetch: &FetchBlocks, say: Say) -> ResponsePart {
        if say == Say::Lacking {
            let missing = (0..fetch.refs.len() as u32).collect();
            return ResponsePart::Blocks { blocks: Vec::new(), missing, buffer_bytes: 0 };
        }
        let made = |reference| self.blocks[self.places[reference]].payload.clone();
        let mut blocks: Vec<_> = fetch.refs.iter().map(made).collect();
        if say == Say::Corrupt {
            blocks.last_mut().into_iter().for_each(corrupt);
        }
        let buffer_bytes = bytes_of(&blocks);
        ResponsePart::Blocks { blocks, missing: Vec::new(), buffer_bytes }
    }
}

fn corrupt(payload: &mut Payload) {
    let mut bytes = payload.bytes().to_vec();
    if let Some(last) = bytes.last_mut() {
        *last ^= 1;
    }
    *payload = stamped(Bytes::from(bytes));
}

fn bytes_of(payloads: &[Payload]) -> u64 {
    payloads.iter().map(|payload| payload.len() as u64).sum()
}

fn config(scope: &Scope) -> Config {
    let limits = Limits { max_block_bytes: 64 * 1024, max_blocks_per_commit: 16, ..Limits::default() };
    let config = Config {
        limits,
        commit_sync_batch_size: scope.batch,
        look_ahead_commits: scope.commits + 1,
        max_fetch_response_bytes: 64 * 1024,
        max_requests: scope.requests,
        max_peers: PEERS as u32,
        follow_requests: 0,
        timeout: Duration::from_secs(5),
        // Time passes for what was asked for, and not for asking how far peers are again and again.
        poll_interval_level: Duration::from_secs(10),
        poll_interval_behind: Duration::from_secs(10),
        ..Config::default()
    };
    Config { max_buffered_bytes: config.frontier_bytes() * 4, ..config }
}
