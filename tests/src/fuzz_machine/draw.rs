//! What comes next, drawn from the bytes.

use super::{
    Subject,
    chain::{checked, header, payload, voter},
};
use arbitrary::{Result, Unstructured};
use soma_sync_core::{
    Config, Event,
    certify::{CertifiedFault, CertifyError, CommitRule},
    command::BatchId,
    config::Limits,
    event::{InboundId, JobId, RequestId},
    job::{
        BlockOutcome, CertifiedRange, CertifyVerdict, CheckedBlock, CommitHeader, Job, ObserveVerdict,
        Verdict,
    },
    payload::Payload,
    request::{
        CommitInfoQuery, FetchBlocks, FetchCommits, RefuseReason, Request, RequestFailure, ResponsePart,
    },
    types::{BlockRef, CommitIndex, Epoch, PeerId},
    verified::Verified,
};
use std::time::Duration;

/// A kind of trouble.
#[derive(Clone, Copy)]
enum Trouble {
    LeavingPeers,
    WildClaims,
    OtherChains,
    ShortAnswers,
    Failures,
    DeadWorkers,
    BadCommits,
    BadBlocks,
    CertifiedFaults,
    Store,
    LostStore,
    Local,
    /// None, but rare: the embedder supplies the next epoch's committee before the epoch has ended.
    EarlyCommittees,
}

pub(super) fn peer(input: &mut Unstructured<'_>) -> Result<PeerId> {
    Ok(PeerId::new([input.int_in_range(0..=4)?; 32]))
}

pub(super) fn config(input: &mut Unstructured<'_>) -> Result<Config> {
    let limits = Limits { max_block_bytes: 1024, max_blocks_per_commit: 10, ..Limits::default() };
    let batch = input.int_in_range(1..=8)?;
    let config = Config {
        limits,
        commit_sync_batch_size: batch,
        look_ahead_commits: input.int_in_range(batch..=40)?,
        max_blocks_per_fetch: input.int_in_range(1..=20)?,
        max_fetch_response_bytes: 64 * 1024,
        max_requests: input.int_in_range(1..=8)?,
        max_requests_per_peer: input.int_in_range(1..=4)?,
        max_verify_jobs: input.int_in_range(1..=3)?,
        max_store_batches: input.int_in_range(1..=3)?,
        max_peers: input.int_in_range(1..=4)?,
        max_serving: input.int_in_range(1..=3)?,
        max_serving_per_peer: input.int_in_range(1..=2)?,
        max_invalid_requests: 2,
        ..Config::default()
    };
    let tightness = input.int_in_range(2..=4u64)?;
    Ok(Config { max_buffered_bytes: config.frontier_bytes() * tightness, ..config })
}

/// What a peer asks, sound or not.
pub(super) fn draw_request(
    input: &mut Unstructured<'_>,
) -> Result<std::result::Result<Request, RefuseReason>> {
    let index = |input: &mut Unstructured<'_>| -> Result<CommitIndex> {
        Ok(CommitIndex::new(if input.ratio(1, 8)? { u32::MAX } else { input.int_in_range(0..=50)? }))
    };
    Ok(match input.int_in_range(0..=6u8)? {
        0 => Ok(Request::CommitInfo(CommitInfoQuery::Latest)),
        1 => Ok(Request::CommitInfo(CommitInfoQuery::ByIndex(index(input)?))),
        2 => Ok(Request::Availability { timestamp_ms: input.arbitrary()? }),
        3 => Ok(Request::Commits(FetchCommits {
            start: index(input)?,
            end: index(input)?,
            max_bytes: input.arbitrary()?,
            wait: Duration::from_millis(input.int_in_range(0..=100)?),
            with_blocks: input.arbitrary()?,
        })),
        4 => {
            let refs = vec![header(input.int_in_range(1..=50)?, 0).blocks[0]; input.int_in_range(0..=30)?];
            Ok(Request::Blocks(FetchBlocks { refs, max_bytes: input.arbitrary()? }))
        }
        5 => Ok(Request::Push { index: index(input)? }),
        _ => Err(RefuseReason::Malformed),
    })
}

impl Subject {
    /// Whether trouble of a kind comes now: once in `odds`, in a sequence that has it.
    fn trouble(&self, input: &mut Unstructured<'_>, kind: Trouble, odds: u8) -> Result<bool> {
        Ok(self.troubles & 1 << kind as u16 != 0 && input.ratio(1, odds)?)
    }

    pub(super) fn draw_event(&mut self, input: &mut Unstructured<'_>) -> Result<Event> {
        let step =
            [0, 1, 1_000, 50_000, 600_000, 6_000_000][usize::from(input.int_in_range(0..=255u8)? / 50)];
        self.now = self.now.saturating_add(Duration::from_micros(step));
        if self.trouble(input, Trouble::LeavingPeers, 16)? {
            return Ok(Event::PeerDisconnected { peer: peer(input)? });
        }
        if self.trouble(input, Trouble::Store, 24)? {
            return self.draw_store_trouble(input);
        }
        if self.trouble(input, Trouble::Local, 8)? {
            return Ok(Event::CommitObserved { commit: payload(250), blocks: vec![payload(100); 3] });
        }
        if self.trouble(input, Trouble::EarlyCommittees, 16)? {
            let next = self.machine.status().epoch.get() + 1;
            let committee = self.committees[next as usize].clone();
            return Ok(Event::CommitteeKnown { committee });
        }
        match input.int_in_range(0..=15u8)? {
            0 => Ok(Event::Tick),
            1 => Ok(Event::PeerConnected { peer: peer(input)? }),
            2 => self.draw_inbound(input),
            3..=6 => self.draw_part(input),
            7 | 8 => self.draw_finished(input),
            9 | 10 => self.draw_verdict(input),
            11 => self.draw_stored(input),
            12 => Ok(Event::Broadcasted { through: CommitIndex::new(input.int_in_range(0..=200)?) }),
            13 => self.draw_served(input),
            14 if !self.jobs.is_empty() => self.draw_verdict(input),
            _ => Ok(Event::VotesObserved { blocks: vec![payload(100); input.int_in_range(0..=3)?] }),
        }
    }

    fn draw_inbound(&mut self, input: &mut Unstructured<'_>) -> Result<Event> {
        let id = InboundId::new(self.next_inbound);
        self.next_inbound += 1;
        let request = draw_request(input)?;
        Ok(Event::RequestReceived { id, peer: peer(input)?, request })
    }

    /// A message for a request that was made, mostly of the right kind; now and then for one that was not.
    fn draw_part(&mut self, input: &mut Unstructured<'_>) -> Result<Event> {
        let Some((id, request)) = self.pick_request(input)? else {
            let id = RequestId::new(input.int_in_range(0..=1000)?);
            return Ok(Event::ResponsePart { id, part: ResponsePart::Push { timestamp_ms: 0 } });
        };
        // A whole answer is in its first message, in a sequence without that trouble.
        if !self.answered.insert(id) && !self.trouble(input, Trouble::ShortAnswers, 2)? {
            self.requests.remove(&id);
            return Ok(Event::RequestFinished { id, result: Ok(()) });
        }
        let buffer_bytes = input.int_in_range(0..=60_000)?;
        let part = match request {
            Request::CommitInfo(_) => ResponsePart::CommitInfo {
                commit: None,
                chain_id: (!self.trouble(input, Trouble::OtherChains, 16)?)
                    .then(|| self.committees[0].chain_id()),
            },
            Request::Availability { .. } => {
                let wild = self.trouble(input, Trouble::WildClaims, 8)?;
                let highest = if wild { u32::MAX } else { input.int_in_range(100..=200)? };
                let lowest = if self.trouble(input, Trouble::WildClaims, 8)? {
                    input.int_in_range(0..=250)?
                } else {
                    0
                };
                ResponsePart::Availability {
                    highest: CommitIndex::new(highest),
                    lowest: CommitIndex::new(lowest),
                }
            }
            Request::Commits(fetch) => {
                let most = (fetch.end.get() - fetch.start.get()).min(10) as usize + 1;
                let count = if self.trouble(input, Trouble::ShortAnswers, 4)? {
                    input.int_in_range(0..=12)?
                } else {
                    most
                };
                let certifiers = vec![payload(300); input.int_in_range(0..=4)?];
                ResponsePart::Commits {
                    commits: vec![payload(250); count],
                    certifiers,
                    blocks: Vec::new(),
                    buffer_bytes,
                }
            }
            Request::Blocks(fetch) => {
                let count = if self.trouble(input, Trouble::ShortAnswers, 4)? {
                    input.int_in_range(0..=25)?
                } else {
                    fetch.refs.len()
                };
                let missing = if self.trouble(input, Trouble::ShortAnswers, 8)? {
                    vec![input.int_in_range(0..=25)?]
                } else {
                    Vec::new()
                };
                ResponsePart::Blocks { blocks: vec![payload(100); count], missing, buffer_bytes }
            }
            Request::Push { .. } => ResponsePart::Push { timestamp_ms: 0 },
        };
        Ok(Event::ResponsePart { id, part })
    }

    fn pick_request(&self, input: &mut Unstructured<'_>) -> Result<Option<(RequestId, Request)>> {
        if self.requests.is_empty() || input.ratio(1, 32)? {
            return Ok(None);
        }
        let at = input.choose_index(self.requests.len())?;
        Ok(self.requests.iter().nth(at).map(|(id, request)| (*id, request.clone())))
    }

    fn draw_finished(&mut self, input: &mut Unstructured<'_>) -> Result<Event> {
        let id = self.pick_request(input)?.map_or(RequestId::new(7), |(id, _)| id);
        self.requests.remove(&id);
        let failures = [
            RequestFailure::Disconnected,
            RequestFailure::Reset,
            RequestFailure::Refused(RefuseReason::Busy),
            RequestFailure::Refused(RefuseReason::Unavailable),
            RequestFailure::Refused(RefuseReason::TooLarge),
            RequestFailure::Malformed,
            RequestFailure::Oversize,
            RequestFailure::Local,
        ];
        let result =
            if self.trouble(input, Trouble::Failures, 6)? { Err(*input.choose(&failures)?) } else { Ok(()) };
        Ok(Event::RequestFinished { id, result })
    }

    fn draw_verdict(&mut self, input: &mut Unstructured<'_>) -> Result<Event> {
        if self.jobs.is_empty() {
            return Ok(Event::Verified { id: JobId::new(9), verdict: Verdict::WorkerFailed });
        }
        let at = input.choose_index(self.jobs.len())?;
        let id = *self.jobs.keys().nth(at).expect("an index below the count");
        let job = self.jobs.remove(&id).expect("it was just found");
        let verdict = if self.trouble(input, Trouble::DeadWorkers, 24)? {
            Verdict::WorkerFailed
        } else {
            self.verdict(input, job)?
        };
        Ok(Event::Verified { id, verdict })
    }

    pub(super) fn verdict(&self, input: &mut Unstructured<'_>, job: Job) -> Result<Verdict> {
        Ok(match job {
            Job::Certify(job) => {
                let count = (job.commits.len() as u32).min(job.last.get() - job.start.get() + 1).max(1);
                Verdict::Certify(self.certify_verdict(
                    input,
                    job.start.get(),
                    count,
                    job.committee.epoch(),
                )?)
            }
            Job::Check(job) => {
                let epoch = job.committee.epoch();
                assert!(job.refs.iter().all(|block| block.epoch == epoch), "blocks under another committee");
                let mut outcomes = Vec::new();
                for (reference, payload) in job.refs.iter().zip(job.blocks) {
                    outcomes.push(self.outcome(input, *reference, payload)?);
                }
                if self.trouble(input, Trouble::DeadWorkers, 32)? {
                    outcomes.pop();
                }
                Verdict::Check(outcomes)
            }
            Job::Observe(_) => {
                let index = self.machine.status().queued.index.get() + input.int_in_range(0..=3)?;
                let commit = header(index.max(1), 0);
                let blocks =
                    commit.blocks.iter().map(|block| Verified::from_trace(checked(*block, self.committees)));
                let blocks = blocks.collect();
                Verdict::Observe(ObserveVerdict::Observed { commit: Verified::from_trace(commit), blocks })
            }
            Job::Votes(job) => {
                let index = self.machine.status().durable.get() + input.int_in_range(0..=2)?;
                let author = input.int_in_range(0..=4)?;
                let vote = |payload| Verified::from_trace(voter(index.max(1), author, payload));
                Verdict::Votes(job.blocks.into_iter().map(vote).collect())
            }
        })
    }

    fn certify_verdict(
        &self,
        input: &mut Unstructured<'_>,
        start: u32,
        count: u32,
        expected: Epoch,
    ) -> Result<CertifyVerdict> {
        let first = header(start, 0);
        if first.epoch != expected {
            return Ok(CertifyVerdict::OtherEpoch { found: first.epoch });
        }
        if self.trouble(input, Trouble::BadCommits, 32)? {
            return Ok(CertifyVerdict::Refused(CertifyError::Empty));
        }
        if self.trouble(input, Trouble::BadCommits, 32)? {
            return Ok(CertifyVerdict::OtherEpoch { found: Epoch::new(input.int_in_range(0..=5)?) });
        }
        if self.trouble(input, Trouble::CertifiedFaults, 64)? {
            let CommitHeader { reference, payload, .. } = first;
            let fault = CertifiedFault::Commit { reference, rule: CommitRule::NoBlocks, payload };
            return Ok(CertifyVerdict::CertifiedInvalid(fault));
        }
        let variant = u8::from(self.trouble(input, Trouble::CertifiedFaults, 64)?);
        let commits = (start..start + count).map(|index| header(index, variant));
        let commits: Vec<_> = commits.take_while(|commit| commit.epoch == expected).collect();
        let last = commits.last().expect("the first is of the epoch").reference.index.get();
        let certifiers = (0..3).map(|author| voter(last, author, payload(300))).collect();
        let bad_certifiers = u32::from(self.trouble(input, Trouble::BadCommits, 32)?);
        Ok(CertifyVerdict::Certified(Verified::from_trace(CertifiedRange {
            commits,
            certifiers,
            bad_certifiers,
        })))
    }

    fn outcome(
        &self,
        input: &mut Unstructured<'_>,
        block: BlockRef,
        payload: Payload,
    ) -> Result<BlockOutcome> {
        if self.trouble(input, Trouble::BadBlocks, 64)? {
            let error = soma_sync_core::block::BlockError::OtherBlock { found: block };
            return Ok(BlockOutcome::Bad(error));
        }
        let checked = CheckedBlock { payload, ..checked(block, self.committees) };
        Ok(BlockOutcome::Good(Verified::from_trace(checked)))
    }

    fn draw_stored(&mut self, input: &mut Unstructured<'_>) -> Result<Event> {
        if self.batches.is_empty() {
            return Ok(Event::Stored { through: BatchId::new(input.int_in_range(0..=3)?) });
        }
        let count = input.choose_index(self.batches.len())? + 1;
        let mut through = BatchId::new(0);
        for batch in self.batches.drain(..count) {
            through = batch.id;
            self.durable.append(&batch);
        }
        Ok(Event::Stored { through })
    }

    fn draw_store_trouble(&mut self, input: &mut Unstructured<'_>) -> Result<Event> {
        if input.arbitrary()? {
            return Ok(Event::StoreFailed {
                from: self.batches.first().map_or(BatchId::new(0), |batch| batch.id),
            });
        }
        // What was handed over and not said to be durable may be stored or not; or an old image was put back.
        let kept = if self.batches.is_empty() { 0 } else { input.choose_index(self.batches.len() + 1)? };
        for batch in self.batches.drain(..).take(kept) {
            self.durable.append(&batch);
        }
        if self.trouble(input, Trouble::LostStore, 8)? {
            let at = input.int_in_range(0..=self.durable.commits.len())?;
            self.durable.commits.truncate(at);
        }
        Ok(Event::StoreReopened { start: Box::new(self.durable.start(self.committees)) })
    }

    fn draw_served(&mut self, input: &mut Unstructured<'_>) -> Result<Event> {
        let id = if self.serving.is_empty() {
            InboundId::new(3)
        } else {
            let at = input.choose_index(self.serving.len())?;
            self.serving.swap_remove(at)
        };
        Ok(Event::Served { id, bytes: input.arbitrary()?, waited: Duration::from_micros(input.arbitrary()?) })
    }
}
