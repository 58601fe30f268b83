//! Bytes as what happens to a machine: which events come, when, in what order, and what is in them. Verdicts are made
//! up, so that thousands of sequences run in a second; what they say is a chain that always is the same one, or lies.
//!
//! After every event all invariants hold, the byte budget above all; nothing panics; and a second machine that is told
//! the same gives the same commands.

mod chain;
mod draw;
pub mod serve;

use crate::{fuzz::rarely, told::Told};
use arbitrary::{Result, Unstructured};
use chain::{Durable, EPOCH_COMMITS, committees, payload};
use draw::config;
use soma_sync_core::{
    Command, Config, Event, Status, SyncMachine, Timestamp,
    command::Batch,
    committee::Committee,
    event::{InboundId, JobId, RequestId},
    job::Job,
    request::{RefuseReason, Request, RequestFailure, ResponsePart},
    start::Start,
    types::{CommitIndex, PeerId},
};
use std::{
    cell::RefCell,
    collections::{BTreeMap, BTreeSet},
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::Arc,
    time::Duration,
};

/// A machine that everything goes through twice, and what it waits for.
struct Subject {
    machine: SyncMachine,
    twin: SyncMachine,
    now: Timestamp,
    /// Peers that requests may be sent to.
    connected: BTreeSet<PeerId>,
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
    /// What the machine was made of and told; its events only where somebody wants them.
    told: Rc<RefCell<Told>>,
    keeps_events: bool,
    /// Which kinds of trouble this sequence has, a bit each: with all of them in every one, none would get far.
    troubles: u16,
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
    let config = config(&mut input).ok()?;
    machine_inputs_under(config, &mut input)
}

/// The same under this configuration, which must be one that can work.
pub(crate) fn machine_inputs_under(config: Config, input: &mut Unstructured<'_>) -> Option<Outcome> {
    let mut subject = Subject::with_config(config, input).ok()?;
    let mut events = 0;
    while !input.is_empty() {
        let Ok(event) = subject.draw_event(input) else { break };
        subject.handle(event);
        events += 1;
    }
    assert_eq!(subject.twin, subject.machine, "the same events led to another state");
    Some(Outcome { events, most_commands: subject.most_commands, status: subject.machine.status() })
}

/// Runs a machine through what the bytes say, and goes on from a copy of it time and again. A copy that was made between
/// any two events, out of bytes, or before the commands of one are taken, has the same hash, does the same, and comes to the
/// same state. Damaged bytes are refused or make a sound machine.
pub fn machine_snapshot(bytes: &[u8]) -> Option<Outcome> {
    let mut input = Unstructured::new(bytes);
    let mut subject = Subject::new(&mut input).ok()?;
    let (mut events, mut copies) = (0, 0);
    while !input.is_empty() {
        let Ok(event) = subject.draw_event(&mut input) else { break };
        let (before, within) = (rarely(&mut input, 8).ok()?, rarely(&mut input, 8).ok()?);
        if before {
            subject.copy();
        }
        subject.tell(event);
        if within {
            subject.copy();
        }
        subject.take_commands();
        events += 1;
        copies += usize::from(before) + usize::from(within);
    }
    subject.copy();
    Some(Outcome { events, most_commands: copies, status: subject.machine.status() })
}

/// Changes a bit of a saved state, and cuts it off, at a place that is drawn from `seed`: it is refused, or it is the state
/// of a machine that is sound.
fn restore_damaged(mut state: Vec<u8>, seed: [u8; 32]) {
    let [a, b, c, d, bit, ..] = seed;
    let place = u32::from_le_bytes([a, b, c, d]) as usize % state.len();
    assert!(SyncMachine::restore(&state[..place]).is_err(), "half a state is one");
    state[place] ^= 1 << (bit % 8);
    if let Ok(machine) = SyncMachine::restore(&state) {
        assert_eq!(machine.check_invariants(), Ok(()));
        assert_eq!(machine.save(), Some(state), "a state has two encodings");
    }
}

/// The machine that the bytes lead to, once its commands are taken.
pub fn machine_after(bytes: &[u8]) -> Option<SyncMachine> {
    let mut input = Unstructured::new(bytes);
    let mut subject = Subject::new(&mut input).ok()?;
    while !input.is_empty() {
        let Ok(event) = subject.draw_event(&mut input) else { break };
        subject.tell(event);
        subject.take_commands();
    }
    Some(subject.machine)
}

/// Runs a machine through what the bytes say, and gives what it was made of and told where that ends in a panic; which
/// includes that something does not hold.
pub fn machine_inputs_that_panic(bytes: &[u8]) -> Option<Told> {
    let mut input = Unstructured::new(bytes);
    let mut subject = Subject::new(&mut input).ok()?;
    subject.keeps_events = true;
    let told = Rc::clone(&subject.told);
    let ended = catch_unwind(AssertUnwindSafe(|| {
        while !input.is_empty() {
            let Ok(event) = subject.draw_event(&mut input) else { break };
            subject.handle(event);
        }
    }));
    ended.is_err().then(|| told.take())
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

impl Subject {
    fn new(input: &mut Unstructured<'_>) -> Result<Self> {
        let config = config(input)?;
        Self::with_config(config, input)
    }

    fn with_config(config: Config, input: &mut Unstructured<'_>) -> Result<Self> {
        let committees = committees();
        let seed = input.arbitrary()?;
        let troubles = input.arbitrary::<u16>()? & input.arbitrary::<u16>()?;
        let max_jobs = config.max_verify_jobs as usize;
        let start = Start::genesis(committees[0].chain_id(), committees[0].clone());
        let told = Told::nothing(config, start, seed);
        let machine = told.machine().expect("a configuration that can work");
        Ok(Self {
            twin: machine.clone(),
            machine,
            now: Timestamp::ZERO,
            requests: BTreeMap::new(),
            answered: BTreeSet::new(),
            connected: BTreeSet::new(),
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
            told: Rc::new(RefCell::new(told)),
            keeps_events: false,
            troubles,
        })
    }

    fn handle(&mut self, event: Event) {
        self.tell(event);
        self.take_commands();
    }

    /// Puts a copy of the machine in its twin's place, which must be in the same state. Where no commands wait, it is one
    /// that went through bytes.
    fn copy(&mut self) {
        assert_eq!(self.twin, self.machine, "a copy went another way");
        let hash = self.machine.state_hash();
        assert_eq!(self.twin.state_hash(), hash, "the same states have other hashes");
        self.twin = match self.machine.save() {
            Some(state) => {
                restore_damaged(state.clone(), hash);
                SyncMachine::restore(&state).expect("what was saved")
            }
            None => self.machine.clone(),
        };
        assert_eq!(self.twin, self.machine, "a copy is another machine");
        assert_eq!(self.twin.state_hash(), hash, "a copy has another hash");
        assert_eq!(self.twin.save(), self.machine.save(), "a copy is saved differently");
    }

    fn tell(&mut self, event: Event) {
        match &event {
            Event::StoreFailed { .. } => self.store_failed = true,
            Event::StoreReopened { .. } => self.store_failed = false,
            Event::PeerConnected { peer } => _ = self.connected.insert(*peer),
            Event::PeerDisconnected { peer } => _ = self.connected.remove(peer),
            _ => {}
        }
        if self.log.capacity() > 0 {
            let text = format!("{event:?}");
            self.log.push(format!("{:?} {}", self.now, text.chars().take(400).collect::<String>()));
        }
        if self.keeps_events {
            self.told.borrow_mut().events.push((self.now, event.clone()));
        }
        self.machine.handle(self.now, event.clone());
        self.twin.handle(self.now, event);
    }

    fn take_commands(&mut self) {
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
            let start = Box::new(self.durable.start(self.committees));
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
            events.push(Event::Served { id, bytes: 0, waited: Duration::ZERO });
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
            Command::SendRequest { id, peer, request, .. } => {
                assert!(self.connected.contains(&peer), "a request to a peer that is not connected");
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
            Command::Disconnect { peer, .. } => _ = self.connected.remove(&peer),
            Command::CancelRequest { .. }
            | Command::Respond { .. }
            | Command::Refuse { .. }
            | Command::Notify(_) => {}
        }
    }

    /// A peer is told that we have this commit.
    fn announced(&self, index: CommitIndex) {
        let certifiable = self.machine.status().certifiable.index;
        assert!(index <= certifiable, "a peer is told of commit {index}, and {certifiable} is certifiable");
    }
}
