//! Verifies a chain file from its genesis on, however long it is.
//!
//! Nothing in a file is believed. Commits are linked to one another and certified by the votes in the file, blocks are
//! matched to certified commits and fully checked, and each epoch's committee comes from the last commit of the epoch
//! before. A file is taken more strictly than a peer's answer: every certifier in it must be a good vote for its
//! commit, one an author (cli: chain).
//!
//! A certificate may stand many commits after what it certifies, so the file is read by two cursors. The first goes
//! ahead to the next commit with certifiers, keeping nothing of the commits on the way but their digests; once they
//! are certified, the second follows it, and gives out one commit after the other with its blocks. What is given out
//! stays good, whatever stands after it. Held are 32 bytes for each commit between two certificates, and a batch of
//! blocks.

use crate::chain_file::{ChainFileError, ChainReader, ChainRecord, Place};
use soma_sync_core::{
    block::{BlockError, BlockView, InvalidNextCommittee},
    certify::{
        CertifiedDigests, CertifiedDigestsError, CertifiedFault, CertifierError, CertifyError, CommitDigests,
        NotCertified,
    },
    committee::{Committee, CommitteeError},
    config::{BlockVerification, Limits},
    job::{BlockOutcome, CheckJob, CheckedBlock, CommitHeader, EpochEnd, Job, Verdict},
    payload::Payload,
    types::{BlockRef, CommitRef, Epoch},
    verified::Verified,
};
use std::{
    collections::VecDeque,
    io::{self, Read},
    num::NonZeroUsize,
    sync::Arc,
    thread,
};

/// Blocks whose signatures one thread verifies together.
const BATCH_BLOCKS_PER_THREAD: usize = 256;
/// A batch ends once its blocks have this many bytes.
const BATCH_BYTES: usize = 16 * 1024 * 1024;

/// How to verify a chain file.
#[derive(Clone, Copy, Debug)]
pub struct CheckOptions {
    /// Bounds of the formats.
    pub limits: Limits,
    /// How much is checked of a block beyond its digest.
    pub mode: BlockVerification,
    /// Threads that check blocks.
    pub threads: NonZeroUsize,
}

impl Default for CheckOptions {
    /// Everything, on as many threads as the machine runs at once.
    fn default() -> Self {
        Self {
            limits: Limits::default(),
            mode: BlockVerification::Full,
            threads: thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
        }
    }
}

/// A commit of a chain file, verified with all that belongs to it.
#[derive(Clone, Debug)]
pub struct CheckedRecord {
    /// The commit.
    pub commit: Verified<CommitHeader>,
    /// Its blocks, in its order.
    pub blocks: Vec<Verified<CheckedBlock>>,
    /// A quorum of votes for it, one an author, by author; or none, where a later commit's certify it.
    pub certifiers: Vec<Verified<CheckedBlock>>,
    /// What follows it, where it is its epoch's last commit.
    pub epoch_end: Option<EpochEnd>,
}

/// Why a chain file is not good.
#[derive(Debug, thiserror::Error)]
pub enum ChainCheckError {
    /// It cannot be read.
    #[error(transparent)]
    File(#[from] ChainFileError),
    /// The file could not be opened.
    #[error("the chain file could not be opened: {0}")]
    Open(io::Error),
    /// What stands in it is not a chain.
    #[error("{place}, in the record at byte {offset}: {reason}")]
    Chain {
        /// In terms of the chain.
        place: Place,
        /// Where the commit's record begins, in bytes from the start of the file; of the genesis, 0.
        offset: u64,
        /// Why.
        reason: Box<ChainCheckReason>,
    },
}

/// Why what stands in a chain file is not a chain.
#[derive(Debug, thiserror::Error)]
pub enum ChainCheckReason {
    /// The genesis is no committee.
    #[error("the genesis is no committee: {0}")]
    Genesis(CommitteeError),
    /// The validators of the genesis are not in index order.
    #[error("the validators of the genesis are not in index order")]
    GenesisOrder,
    /// A commit does not decode, or does not follow the one before it.
    #[error("{0}")]
    Sequence(CertifyError),
    /// A commit is not of the epoch that is to go on here.
    #[error("it is of epoch {found}, and no commit with certifiers has ended epoch {expected}")]
    Epoch {
        /// The epoch that goes on.
        expected: Epoch,
        /// The commit's.
        found: Epoch,
    },
    /// Votes are no quorum, or what they vote for breaks a rule.
    #[error("not certified: {0}")]
    NotCertified(NotCertified),
    /// No commit from here to the end of the file has certifiers.
    #[error("no certifiers follow for it")]
    NoCertifiers,
    /// A certifier is no good vote for its commit.
    #[error("{0}")]
    Certifier(CertifierError),
    /// The author has another certifier beside this one.
    #[error("a second certifier by its author")]
    CertifierTwice,
    /// A commit that a certificate covers is not what was certified, or breaks a rule.
    #[error("{0}")]
    Commit(CertifiedDigestsError),
    /// There are more or fewer blocks than the commit names.
    #[error("the commit names {named} blocks, and {found} follow it")]
    BlockCount {
        /// Blocks that the commit names.
        named: usize,
        /// Blocks in the file.
        found: usize,
    },
    /// A block is not the one that the commit names, or breaks a rule.
    #[error("{0}")]
    Block(BlockError),
    /// A commit of an epoch follows the epoch's last commit.
    #[error("it ends epoch {epoch}, and has no certifiers of its own")]
    EpochGoesOn {
        /// The epoch.
        epoch: Epoch,
    },
    /// The epoch before ended with a validator set that no committee can be made of.
    #[error("the validator set that ends the epoch before is invalid: {0}")]
    NextCommittee(InvalidNextCommittee),
    /// The file changed while it was read.
    #[error("the file changed while it was read")]
    Changed,
}

/// Verifies a chain file, commit by commit. After an error it is of no further use.
pub struct ChainChecker<R> {
    options: CheckOptions,
    entropy: Box<dyn FnMut() -> [u8; 32] + Send>,
    genesis: Arc<Committee>,
    /// Goes ahead to the next certificate.
    ahead: ChainReader<R>,
    /// Follows, with the blocks.
    behind: ChainReader<R>,
    /// The committee of the next commit, or why there is none.
    committee: Result<Arc<Committee>, InvalidNextCommittee>,
    /// The last commit that was verified, and its timestamp.
    tip: CommitRef,
    tip_ms: u64,
    run: Option<Run>,
    ready: VecDeque<CheckedRecord>,
}

/// Commits that are certified and not given out yet.
struct Run {
    digests: CertifiedDigests,
    left: usize,
    certifiers: Vec<Verified<CheckedBlock>>,
}

/// Commits whose blocks are checked together.
struct Batch {
    records: Vec<(ChainRecord, Verified<CommitHeader>)>,
    refs: Vec<BlockRef>,
    blocks: Vec<Payload>,
    bytes: usize,
}

impl<R: Read> ChainChecker<R> {
    /// Reads the genesis. `open` opens the file from its start; it is called twice. `entropy` gives fresh bytes from a
    /// cryptographic generator: whoever could predict them could pass off bad signatures.
    ///
    /// # Errors
    ///
    /// Where the file cannot be opened, is no chain file, or has a genesis that no committee can be made of.
    pub fn open(
        mut open: impl FnMut() -> io::Result<R>,
        options: CheckOptions,
        entropy: impl FnMut() -> [u8; 32] + Send + 'static,
    ) -> Result<Self, ChainCheckError> {
        let mut reader = || -> Result<_, ChainCheckError> {
            Ok(ChainReader::open(open().map_err(ChainCheckError::Open)?, options.limits)?)
        };
        let (ahead, behind) = (reader()?, reader()?);
        let bad =
            |reason| ChainCheckError::Chain { place: Place::Header, offset: 0, reason: Box::new(reason) };
        let genesis = Committee::decode(Epoch::ZERO, ahead.genesis(), &options.limits)
            .map_err(|error| bad(ChainCheckReason::Genesis(error)))?;
        if genesis.encoding() != ahead.genesis() {
            return Err(bad(ChainCheckReason::GenesisOrder));
        }
        if ahead.genesis() != behind.genesis() {
            return Err(bad(ChainCheckReason::Changed));
        }
        let genesis = Arc::new(genesis);
        Ok(Self {
            options,
            entropy: Box::new(entropy),
            committee: Ok(Arc::clone(&genesis)),
            genesis,
            ahead,
            behind,
            tip: CommitRef::GENESIS,
            tip_ms: 0,
            run: None,
            ready: VecDeque::new(),
        })
    }

    /// The genesis committee, which says by its [`chain_id`](Committee::chain_id) which chain the file is of.
    pub const fn genesis(&self) -> &Arc<Committee> {
        &self.genesis
    }
    /// How many commits the file says it has.
    pub const fn commits(&self) -> u32 {
        self.ahead.commits()
    }

    /// The next commit, verified; `None` after the last one, when the file is good to its end.
    ///
    /// # Errors
    ///
    /// Where the file cannot be read on, or what it holds is not certified or breaks the rules: at which commit, and why.
    pub fn next_record(&mut self) -> Result<Option<CheckedRecord>, ChainCheckError> {
        if let Some(record) = self.ready.pop_front() {
            return Ok(Some(record));
        }
        let run = match self.run.take() {
            Some(run) => run,
            None => match self.certify_run()? {
                Some(run) => run,
                None => return self.end().map(|()| None),
            },
        };
        self.check_batch(run)?;
        Ok(self.ready.pop_front())
    }

    /// Reads ahead to the next commit with certifiers, and certifies all up to it; `None` at the end of the file.
    fn certify_run(&mut self) -> Result<Option<Run>, ChainCheckError> {
        let mut reading = None;
        let mut first = None;
        while let Some(record) = self.ahead.next_without_blocks()? {
            let digests = match &mut reading {
                Some(digests) => digests,
                None => {
                    let next = self.committee.clone();
                    let committee =
                        next.map_err(|reason| fault(&record, ChainCheckReason::NextCommittee(reason)))?;
                    reading.insert(CommitDigests::new(self.tip, committee, self.options.limits))
                }
            };
            let commit = digests.push(record.commit.clone()).map_err(|error| {
                fault(
                    &record,
                    match error {
                        CertifyError::EpochChange { first, found } => {
                            ChainCheckReason::Epoch { expected: first, found }
                        }
                        error => ChainCheckReason::Sequence(error),
                    },
                )
            })?;
            if !record.certifiers.is_empty() {
                return reading.map(|digests| self.certify(digests, commit, &record)).transpose();
            }
            first.get_or_insert(record);
        }
        first.map_or(Ok(None), |record| Err(fault(&record, ChainCheckReason::NoCertifiers)))
    }

    /// Certifies commits up to the one of `record` by its certifiers, each of which must be good.
    fn certify(
        &mut self,
        digests: CommitDigests,
        commit: CommitRef,
        record: &ChainRecord,
    ) -> Result<Run, ChainCheckError> {
        let certified = digests.certify(record.certifiers.clone(), (self.entropy)());
        let error = match certified {
            Ok((digests, certifiers, _)) if certifiers.len() == record.certifiers.len() => {
                return Ok(Run { left: digests.count(), digests, certifiers });
            }
            Ok(_) => None,
            Err(error) => Some(fault(record, ChainCheckReason::NotCertified(error))),
        };
        let committee = self.committee.clone().ok();
        let culprit = committee.and_then(|committee| self.find_bad_certifier(&committee, commit, record));
        Err(culprit.or(error).unwrap_or_else(|| fault(record, ChainCheckReason::CertifierTwice)))
    }

    /// The first certifier that is no good vote for the commit of its record, if there is one.
    fn find_bad_certifier(
        &self,
        committee: &Committee,
        commit: CommitRef,
        record: &ChainRecord,
    ) -> Option<ChainCheckError> {
        let mut authors = Vec::with_capacity(record.certifiers.len());
        let check = |certifier: &Payload| {
            let block = |error| ChainCheckReason::Certifier(CertifierError::Block(error));
            let view = BlockView::decode(certifier.bytes(), &self.options.limits)
                .map_err(|error| block(BlockError::Decode(error)))?;
            if !view.votes().any(|vote| vote == commit) {
                return Err(ChainCheckReason::Certifier(CertifierError::NoVote));
            }
            view.verify(committee, &|_| true).map_err(block)?;
            if authors.contains(&view.author()) {
                return Err(ChainCheckReason::CertifierTwice);
            }
            authors.push(view.author());
            Ok(())
        };
        let bad = |(position, reason)| ChainCheckError::Chain {
            place: Place::Certifier { commit: record.number, position },
            offset: record.offset,
            reason: Box::new(reason),
        };
        let reasons = record.certifiers.iter().map(check);
        (0..).zip(reasons).find_map(|(position, result)| result.err().map(|reason| bad((position, reason))))
    }

    /// Reads the next certified commits again, with their blocks, checks these together, and makes them ready.
    fn check_batch(&mut self, mut run: Run) -> Result<(), ChainCheckError> {
        let blocks_max = self.options.threads.get().saturating_mul(BATCH_BLOCKS_PER_THREAD);
        let mut batch = Batch { records: Vec::new(), refs: Vec::new(), blocks: Vec::new(), bytes: 0 };
        while run.left > 0 && batch.blocks.len() < blocks_max && batch.bytes < BATCH_BYTES {
            self.read_certified(&run.digests, &mut batch)?;
            run.left -= 1;
        }
        let Batch { records, refs, blocks, .. } = batch;
        let mut outcomes = self.check_blocks(run.digests.committee(), &refs, blocks).into_iter();
        let count = records.len();
        for (position, (record, commit)) in records.into_iter().enumerate() {
            let blocks = take_blocks(&record, commit.blocks.len(), &mut outcomes)?;
            let epoch_end = blocks.iter().find_map(|block| block.epoch_end.clone());
            let is_last = run.left == 0 && position + 1 == count;
            match &epoch_end {
                Some(_) if !is_last => {
                    return Err(fault(&record, ChainCheckReason::EpochGoesOn { epoch: commit.epoch }));
                }
                Some(EpochEnd::Next(committee)) => self.committee = Ok(Arc::clone(committee)),
                Some(EpochEnd::Invalid(reason)) => self.committee = Err(*reason),
                None => {}
            }
            let certifiers = if is_last { std::mem::take(&mut run.certifiers) } else { Vec::new() };
            self.ready.push_back(CheckedRecord { commit, blocks, certifiers, epoch_end });
        }
        if run.left > 0 {
            self.run = Some(run);
        }
        Ok(())
    }

    /// Reads one commit again, which must be the one that was certified, with its blocks.
    fn read_certified(
        &mut self,
        digests: &CertifiedDigests,
        batch: &mut Batch,
    ) -> Result<(), ChainCheckError> {
        let Some(mut record) = self.behind.next_record()? else {
            return Err(self.changed());
        };
        let commit = digests
            .commit(record.commit.clone(), self.tip_ms)
            .map_err(|error| fault(&record, ChainCheckReason::Commit(error)))?;
        if self.tip.index.next() != Some(commit.reference.index) {
            return Err(fault(&record, ChainCheckReason::Changed));
        }
        let (named, found) = (commit.blocks.len(), record.blocks.len());
        if named != found {
            return Err(fault(&record, ChainCheckReason::BlockCount { named, found }));
        }
        batch.refs.extend_from_slice(&commit.blocks);
        batch.bytes += record.blocks.iter().map(Payload::len).sum::<usize>();
        batch.blocks.append(&mut record.blocks);
        (self.tip, self.tip_ms) = (commit.reference, commit.timestamp_ms);
        batch.records.push((record, commit));
        Ok(())
    }

    /// What is to be said of each block, in order.
    fn check_blocks(
        &mut self,
        committee: &Arc<Committee>,
        refs: &[BlockRef],
        blocks: Vec<Payload>,
    ) -> Vec<BlockOutcome> {
        let per_thread = refs.len().div_ceil(self.options.threads.get()).max(1);
        let jobs = refs.chunks(per_thread).zip(blocks.chunks(per_thread)).map(|(refs, blocks)| {
            let job = CheckJob {
                refs: refs.to_vec(),
                blocks: blocks.to_vec(),
                committee: Arc::clone(committee),
                mode: self.options.mode,
                limits: self.options.limits,
            };
            (job, (self.entropy)())
        });
        let jobs: Vec<_> = jobs.collect();
        if refs.len() < BATCH_BLOCKS_PER_THREAD / 4 {
            return jobs.into_iter().flat_map(|(job, entropy)| run_check(job, entropy)).collect();
        }
        thread::scope(|scope| {
            let spawn = |(job, entropy)| scope.spawn(move || run_check(job, entropy));
            let workers: Vec<_> = jobs.into_iter().map(spawn).collect();
            let join = |worker: thread::ScopedJoinHandle<'_, _>| {
                worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
            };
            workers.into_iter().flat_map(join).collect()
        })
    }

    /// That both cursors are at the end.
    fn end(&mut self) -> Result<(), ChainCheckError> {
        if self.behind.next_record()?.is_none() { Ok(()) } else { Err(self.changed()) }
    }

    fn changed(&self) -> ChainCheckError {
        ChainCheckError::Chain {
            place: Place::End,
            offset: self.behind.offset(),
            reason: Box::new(ChainCheckReason::Changed),
        }
    }
}

/// Something wrong with the commit of a record.
fn fault(record: &ChainRecord, reason: ChainCheckReason) -> ChainCheckError {
    ChainCheckError::Chain {
        place: Place::Commit { commit: record.number },
        offset: record.offset,
        reason: Box::new(reason),
    }
}

fn run_check(job: CheckJob, entropy: [u8; 32]) -> Vec<BlockOutcome> {
    match Job::Check(Box::new(job)).run(entropy) {
        Verdict::Check(outcomes) => outcomes,
        // No other verdict is one of this job's; without outcomes, no block is good.
        Verdict::Certify(_) | Verdict::Observe(_) | Verdict::Votes(_) | Verdict::WorkerFailed => Vec::new(),
    }
}

/// The blocks of a record from the outcomes of a batch.
fn take_blocks(
    record: &ChainRecord,
    count: usize,
    outcomes: &mut impl Iterator<Item = BlockOutcome>,
) -> Result<Vec<Verified<CheckedBlock>>, ChainCheckError> {
    let bad = |position, reason| ChainCheckError::Chain {
        place: Place::Block { commit: record.number, position },
        offset: record.offset,
        reason: Box::new(reason),
    };
    let mut blocks = Vec::with_capacity(count);
    for (position, outcome) in (0..).zip(outcomes.take(count)) {
        match outcome {
            BlockOutcome::Good(block) => blocks.push(block),
            BlockOutcome::Bad(error)
            | BlockOutcome::CertifiedInvalid(CertifiedFault::Block { error, .. }) => {
                return Err(bad(position, ChainCheckReason::Block(error)));
            }
            BlockOutcome::CertifiedInvalid(evidence @ CertifiedFault::Commit { .. }) => {
                return Err(bad(
                    position,
                    ChainCheckReason::NotCertified(NotCertified::Fault(Box::new(evidence))),
                ));
            }
        }
    }
    let found = blocks.len();
    if found == count {
        Ok(blocks)
    } else {
        Err(fault(record, ChainCheckReason::BlockCount { named: count, found }))
    }
}
