//! Bytes as what happens to a machine: which events come, when, in what order, and what is in them. Verdicts are made
//! up, so that thousands of sequences run in a second; what they say is a chain that always is the same one, or lies.
//!
//! After every event all invariants hold, the byte budget above all; nothing panics; and a second machine that is told
//! the same gives the same commands.

use crate::fixture;
use arbitrary::{Result, Unstructured};
use soma_sync_core::{
    Command, Config, Event, Status, SyncMachine, Timestamp,
    certify::{CertifiedFault, CertifyError, CommitRule},
    command::{Batch, BatchId},
    committee::Committee,
    config::Limits,
    event::{InboundId, JobId, RequestId},
    job::{
        BlockOutcome, CertifiedRange, CertifyVerdict, CheckedBlock, CommitHeader, EpochEnd, Job,
        ObserveVerdict, Verdict,
    },
    payload::Payload,
    request::{
        CommitInfoQuery, FetchBlocks, FetchCommits, RefuseReason, Request, RequestFailure, ResponsePart,
    },
    start::{Start, StoredVotes, Tip},
    types::{
        AuthorityIndex, BlockDigest, BlockRef, CommitDigest, CommitIndex, CommitRef, Epoch, PeerId, Round,
    },
    verified::Verified,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, OnceLock},
    time::Duration,
};

/// Commits in an epoch of the made-up chain.
const EPOCH_COMMITS: u32 = 13;
const BLOCKS_PER_COMMIT: u32 = 3;

/// A machine that everything goes through twice, and what it waits for.
struct Subject {
    machine: SyncMachine,
    twin: SyncMachine,
    now: Timestamp,
    requests: BTreeMap<RequestId, Request>,
    /// Those of them that have had a message.
    answered: BTreeSet<RequestId>,
    jobs: BTreeMap<JobId, Job>,
    batches: Vec<Arc<Batch>>,
    serving: Vec<InboundId>,
    durable: Durable,
    /// The last commit that was handed to consumers.
    broadcast: CommitIndex,
    next_inbound: u64,
    committees: &'static [Arc<Committee>],
    most_commands: usize,
    max_jobs: usize,
    /// Whether the store refused batches and was not opened again.
    store_failed: bool,
    /// Events so far, for the report of a wedge.
    log: Vec<String>,
    /// Which kinds of trouble this sequence has, a bit each: with all of them in every one, none would get far.
    troubles: u16,
}

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

/// What became of a sequence.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Events.
    pub events: usize,
    /// The most commands that one event led to.
    pub most_commands: usize,
    /// The machine at the end.
    pub status: Status,
}

/// Runs a machine through what the bytes say. `None` where they do not even make a configuration.
pub fn machine_inputs(bytes: &[u8]) -> Option<Outcome> {
    let mut input = Unstructured::new(bytes);
    let mut subject = Subject::new(&mut input).ok()?;
    let mut events = 0;
    while !input.is_empty() {
        let Ok(event) = subject.draw_event(&mut input) else { break };
        subject.handle(event);
        events += 1;
    }
    assert_eq!(subject.twin, subject.machine, "the same events led to another state");
    Some(Outcome { events, most_commands: subject.most_commands, status: subject.machine.status() })
}

/// Commits that the honest peer of the last phase has beyond the machine's tip.
const HONEST_LEAD: u32 = 45;
/// Events in which the last phase must be over. A commit costs a few; what is more is a loop.
const MOST_COMPLETION_EVENTS: usize = 5_000;
/// Virtual time in which it must be over: the longest rests and bans of the default configuration do not add up to it.
const MOST_COMPLETION_TIME: Duration = Duration::from_secs(600);

/// Runs a machine through what the bytes say, and then without any fault: everything outstanding is completed
/// honestly, the store works, and one honest peer, that is new, has the chain. `Err` where a machine that did not halt
/// does not come to that peer's tip within bounded work and time.
///
/// With `log`, the error names every event.
pub fn machine_inputs_then_completion(bytes: &[u8], log: bool) -> Option<Result<Outcome, String>> {
    let mut input = Unstructured::new(bytes);
    let mut subject = Subject::new(&mut input).ok()?;
    if log {
        subject.log.reserve(1);
    }
    let mut events = 0;
    while !input.is_empty() {
        let Ok(event) = subject.draw_event(&mut input) else { break };
        subject.handle(event);
        events += 1;
    }
    if log {
        subject.log.push("--- completion ---".into());
    }
    let result = subject.complete();
    let outcome = Outcome { events, most_commands: subject.most_commands, status: subject.machine.status() };
    Some(result.map(|()| outcome).map_err(|why| {
        format!(
            "{why}\n{}\n{:#?}\n{:#?}",
            subject.log.join("\n"),
            subject.machine.status(),
            log.then_some(&subject.machine)
        )
    }))
}

/// The committees of the first epochs; what is further ahead is never reached.
fn committees() -> &'static [Arc<Committee>] {
    static COMMITTEES: OnceLock<Vec<Arc<Committee>>> = OnceLock::new();
    COMMITTEES.get_or_init(|| {
        let of = |epoch| Committee::new(Epoch::new(epoch), fixture::validators(), &Limits::default());
        (0..40).map(|epoch| Arc::new(of(epoch).expect("valid validators"))).collect()
    })
}

fn peer(input: &mut Unstructured<'_>) -> Result<PeerId> {
    Ok(PeerId::new([input.int_in_range(0..=4)?; 32]))
}

fn payload(bytes: usize) -> Payload {
    Payload::absent(bytes, 0)
}

fn config(input: &mut Unstructured<'_>) -> Result<Config> {
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

/// The commit at `index` of the one chain; another variant is a lie.
fn header(index: u32, variant: u8) -> CommitHeader {
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

impl Subject {
    fn new(input: &mut Unstructured<'_>) -> Result<Self> {
        let committees = committees();
        let config = config(input)?;
        let seed = input.arbitrary()?;
        let troubles = input.arbitrary::<u16>()? & input.arbitrary::<u16>()?;
        let max_jobs = config.max_verify_jobs as usize;
        let start = Start::genesis(committees[0].chain_id(), committees[0].clone());
        let machine =
            SyncMachine::new(config, start, Timestamp::ZERO, seed).expect("a configuration that can work");
        Ok(Self {
            twin: machine.clone(),
            machine,
            now: Timestamp::ZERO,
            requests: BTreeMap::new(),
            answered: BTreeSet::new(),
            jobs: BTreeMap::new(),
            batches: Vec::new(),
            serving: Vec::new(),
            durable: Durable::default(),
            broadcast: CommitIndex::GENESIS,
            next_inbound: 0,
            committees,
            most_commands: 0,
            max_jobs,
            store_failed: false,
            log: Vec::new(),
            troubles,
        })
    }

    fn handle(&mut self, event: Event) {
        match &event {
            Event::StoreFailed { .. } => self.store_failed = true,
            Event::StoreReopened { .. } => self.store_failed = false,
            _ => {}
        }
        if self.log.capacity() > 0 {
            let text = format!("{event:?}");
            self.log.push(format!("{:?} {}", self.now, text.chars().take(400).collect::<String>()));
        }
        self.machine.handle(self.now, event.clone());
        self.twin.handle(self.now, event);
        let mut commands = 0;
        while let Some(command) = self.machine.poll_command() {
            assert_eq!(
                self.twin.poll_command().as_ref(),
                Some(&command),
                "the same events led to other commands"
            );
            commands += 1;
            self.note(command);
        }
        self.most_commands = self.most_commands.max(commands);
        if let Err(broken) = self.machine.check_invariants() {
            panic!("{broken}: {:#?}", self.machine);
        }
        assert!(self.machine.poll_timeout().is_none_or(|at| at > self.now), "a timer in the past");
    }

    /// The last phase, without faults.
    fn complete(&mut self) -> std::result::Result<(), String> {
        self.troubles = 0;
        let honest = PeerId::new([77; 32]);
        for id in 0..=4 {
            self.handle(Event::PeerDisconnected { peer: PeerId::new([id; 32]) });
        }
        if self.store_failed {
            self.batches.clear();
            let start = Box::new(self.start());
            self.handle(Event::StoreReopened { start });
        }
        // Requests of before are to peers that are gone.
        for id in std::mem::take(&mut self.requests).into_keys() {
            self.handle(Event::RequestFinished { id, result: Err(RequestFailure::Disconnected) });
        }
        let lead = if self.machine.status().halted.is_some() { 0 } else { HONEST_LEAD };
        let tip = CommitIndex::new(self.machine.status().queued.index.get() + lead);
        self.handle(Event::PeerConnected { peer: honest });
        let end = self.now.saturating_add(MOST_COMPLETION_TIME);
        for _ in 0..MOST_COMPLETION_EVENTS {
            let status = self.machine.status();
            let level =
                status.queued.index >= tip && status.delivered >= tip && status.certifiable.index >= tip;
            if status.halted.is_some() || level && status.synced && status.stall.is_none() {
                return Ok(());
            }
            if self.now > end {
                return Err(format!("not at {tip} after {MOST_COMPLETION_TIME:?}"));
            }
            let mut nothing = Unstructured::new(&[]);
            let events = self.honest_events(&mut nothing, tip).expect("draws without input");
            if events.is_empty() {
                match self.machine.poll_timeout() {
                    Some(at) => self.now = at,
                    None => return Err(format!("not at {tip}, and nothing will ever happen")),
                }
                self.handle(Event::Tick);
            }
            // A link and a disk take their time.
            self.now = self.now.saturating_add(Duration::from_millis(1));
            for event in events {
                self.handle(event);
            }
        }
        Err(format!("not at {tip} after {MOST_COMPLETION_EVENTS} rounds: a loop"))
    }

    /// What an honest world answers to everything that is outstanding.
    fn honest_events(&mut self, nothing: &mut Unstructured<'_>, tip: CommitIndex) -> Result<Vec<Event>> {
        let mut events = Vec::new();
        for (id, job) in std::mem::take(&mut self.jobs) {
            events.push(Event::Verified { id, verdict: self.verdict(nothing, job)? });
        }
        for batch in std::mem::take(&mut self.batches) {
            self.durable.append(&batch);
            events.push(Event::Stored { through: batch.id });
        }
        let status = self.machine.status();
        if status.delivered < status.durable {
            events.push(Event::Broadcasted { through: status.durable });
        }
        for id in std::mem::take(&mut self.serving) {
            events.push(Event::Served { id, bytes: 0 });
        }
        for (id, request) in std::mem::take(&mut self.requests) {
            let part = match request {
                Request::CommitInfo(_) => Some(ResponsePart::CommitInfo {
                    commit: None,
                    chain_id: Some(self.committees[0].chain_id()),
                }),
                Request::Availability { .. } => {
                    Some(ResponsePart::Availability { highest: tip, lowest: CommitIndex::GENESIS })
                }
                Request::Commits(fetch) if fetch.start > tip => None,
                Request::Commits(fetch) => {
                    // As an honest server does, it ends the range with the epoch.
                    let first = fetch.start.get();
                    let epoch_end = (first - 1) / EPOCH_COMMITS * EPOCH_COMMITS + EPOCH_COMMITS;
                    let last = fetch.end.min(tip).get().min(epoch_end);
                    Some(ResponsePart::Commits {
                        commits: vec![payload(250); (last - first) as usize + 1],
                        certifiers: vec![payload(300); 3],
                        blocks: Vec::new(),
                        buffer_bytes: u64::from(last - first + 1) * 250 + 900,
                    })
                }
                Request::Blocks(fetch) => Some(ResponsePart::Blocks {
                    blocks: vec![payload(100); fetch.refs.len()],
                    missing: Vec::new(),
                    buffer_bytes: fetch.refs.len() as u64 * 100,
                }),
                Request::Push { .. } => Some(ResponsePart::Push { timestamp_ms: 0 }),
            };
            let result = part.as_ref().map(|_| ()).ok_or(RequestFailure::Refused(RefuseReason::Unavailable));
            events.extend(part.map(|part| Event::ResponsePart { id, part }));
            events.push(Event::RequestFinished { id, result });
        }
        Ok(events)
    }

    /// Notes what a command asks for, so that later events can complete it.
    fn note(&mut self, command: Command) {
        match command {
            Command::SendRequest { id, request, .. } => {
                if let Request::Push { index } = request {
                    self.announced(index);
                }
                assert!(self.requests.insert(id, request).is_none(), "a request id twice");
            }
            Command::Verify { id, job } => {
                assert!(self.jobs.insert(id, job).is_none(), "a job id twice");
                assert!(self.jobs.len() <= self.max_jobs, "more jobs than workers may have");
            }
            Command::StoreBatch { batch } => self.batches.push(batch),
            Command::Serve { id, .. } => self.serving.push(id),
            Command::Broadcast { range } => {
                assert_eq!(Some(range.start()), self.broadcast.next(), "commits to consumers out of order");
                assert!(range.end() <= self.durable.tip(), "commits to consumers that are not durable");
                self.broadcast = range.end();
            }
            Command::Respond { response: ResponsePart::Availability { highest, .. }, .. } => {
                self.announced(highest);
            }
            Command::CancelRequest { .. }
            | Command::Respond { .. }
            | Command::Refuse { .. }
            | Command::Disconnect { .. }
            | Command::Notify(_) => {}
        }
    }

    /// A peer is told that we have this commit.
    fn announced(&self, index: CommitIndex) {
        let certifiable = self.machine.status().certifiable.index;
        assert!(index <= certifiable, "a peer is told of commit {index}, and {certifiable} is certifiable");
    }

    /// Whether trouble of a kind comes now: once in `odds`, in a sequence that has it.
    fn trouble(&self, input: &mut Unstructured<'_>, kind: Trouble, odds: u8) -> Result<bool> {
        Ok(self.troubles & 1 << kind as u16 != 0 && input.ratio(1, odds)?)
    }

    fn draw_event(&mut self, input: &mut Unstructured<'_>) -> Result<Event> {
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
        let index = |input: &mut Unstructured<'_>| -> Result<CommitIndex> {
            Ok(CommitIndex::new(if input.ratio(1, 8)? { u32::MAX } else { input.int_in_range(0..=50)? }))
        };
        let request = match input.int_in_range(0..=6u8)? {
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
                let refs =
                    vec![header(input.int_in_range(1..=50)?, 0).blocks[0]; input.int_in_range(0..=30)?];
                Ok(Request::Blocks(FetchBlocks { refs, max_bytes: input.arbitrary()? }))
            }
            5 => Ok(Request::Push { index: index(input)? }),
            _ => Err(RefuseReason::Malformed),
        };
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

    fn verdict(&self, input: &mut Unstructured<'_>, job: Job) -> Result<Verdict> {
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
        Ok(Event::StoreReopened { start: Box::new(self.start()) })
    }

    fn start(&self) -> Start {
        let genesis = Start::genesis(self.committees[0].chain_id(), self.committees[0].clone());
        let Some(tip) = self.durable.commits.last() else { return genesis };
        let ends_epoch = tip.reference.index.get() % EPOCH_COMMITS == 0;
        let committee = |epoch: Epoch| self.committees[epoch.get() as usize].clone();
        let certifiable =
            self.durable.commits.len().checked_sub(2).and_then(|at| self.durable.commits.get(at));
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

    fn draw_served(&mut self, input: &mut Unstructured<'_>) -> Result<Event> {
        let id = if self.serving.is_empty() {
            InboundId::new(3)
        } else {
            let at = input.choose_index(self.serving.len())?;
            self.serving.swap_remove(at)
        };
        Ok(Event::Served { id, bytes: input.arbitrary()? })
    }
}

/// A block of the one chain; that of position 0 of an epoch's last commit ends the epoch.
fn checked(reference: BlockRef, committees: &[Arc<Committee>]) -> CheckedBlock {
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
fn voter(index: u32, author: u32, payload: Payload) -> CheckedBlock {
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
struct Durable {
    commits: Vec<CommitHeader>,
    blocks: BTreeSet<BlockRef>,
}

impl Durable {
    fn tip(&self) -> CommitIndex {
        self.commits.last().map_or(CommitIndex::GENESIS, |header| header.reference.index)
    }

    /// Stores a batch: its commits follow one another and the chain, and all their blocks are here, or the machine is
    /// at fault.
    fn append(&mut self, batch: &Batch) {
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
}

/// So many bytes to draw a sequence of events from, by a seed.
pub fn machine_seed(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 24) as u8
    };
    (0..len).map(|_| next()).collect()
}
