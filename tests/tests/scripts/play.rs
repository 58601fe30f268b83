//! The machine on its stage: told what happens, and what it wants done noted and printed.

use crate::{
    answers::{Reply, question, reply},
    names::{Chain, Names},
    print::{Printer, moment},
    words::{Words, name},
};
use soma_sync_core::{
    Command, Config, Event, SyncMachine, Timestamp,
    command::{Batch, BatchId},
    committee::Committee,
    event::{InboundId, JobId, RequestId},
    job::{Job, Verdict},
    request::{CommitInfoQuery, Request, RequestFailure, ResponsePart},
    types::{CommitIndex, CommitRef, PeerId},
};
use soma_sync_sim::world::ChainStore;
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    mem,
    sync::Arc,
    time::Duration,
};

/// Events that may follow from one line. What is more is a loop.
const MOST_EVENTS: usize = 10_000;

/// What happens by itself.
#[derive(Default)]
struct Auto {
    jobs: bool,
    storage: bool,
    consumers: bool,
    polls: bool,
}

/// A machine, its store, and what it waits for.
pub(crate) struct Play {
    names: Names,
    config: Config,
    machine: SyncMachine,
    now: Timestamp,
    store: ChainStore,
    auto: Auto,
    requests: BTreeMap<u64, (PeerId, Request)>,
    jobs: BTreeMap<u64, Job>,
    batches: BTreeMap<u64, Arc<Batch>>,
    claims: BTreeMap<PeerId, (CommitIndex, CommitIndex)>,
    peers: BTreeSet<PeerId>,
    /// Follows by itself from what was done last.
    follows: VecDeque<Event>,
    polls: u64,
    printed: Vec<String>,
}

impl Play {
    pub(crate) fn new(names: Names, config: Config, store: ChainStore) -> Result<Self, String> {
        let machine = SyncMachine::new(config.clone(), store.start(), Timestamp::ZERO, [0; 32]);
        Ok(Self {
            machine: machine.map_err(|error| error.to_string())?,
            names,
            config,
            now: Timestamp::ZERO,
            store,
            auto: Auto::default(),
            requests: BTreeMap::new(),
            jobs: BTreeMap::new(),
            batches: BTreeMap::new(),
            claims: BTreeMap::new(),
            peers: BTreeSet::new(),
            follows: VecDeque::new(),
            polls: 0,
            printed: Vec::new(),
        })
    }

    /// What was printed since this was last called.
    pub(crate) fn printed(&mut self) -> Result<Vec<String>, String> {
        match mem::take(&mut self.polls) {
            0 => {}
            1 => self.printed.push("(1 poll answered)".into()),
            polls => self.printed.push(format!("({polls} polls answered)")),
        }
        Ok(mem::take(&mut self.printed))
    }

    fn printer(&self) -> Printer<'_> {
        Printer { names: &self.names, config: &self.config, now: self.now }
    }

    /// Tells the machine what happened, and whatever follows by itself.
    pub(crate) fn handle(&mut self, event: Event) -> Result<(), String> {
        self.follows.push_back(event);
        self.go_on()
    }

    fn go_on(&mut self) -> Result<(), String> {
        for _ in 0..MOST_EVENTS {
            let Some(event) = self.follows.pop_front() else { return Ok(()) };
            self.machine.handle(self.now, event);
            while let Some(command) = self.machine.poll_command() {
                let line = self.printer().command(&command);
                if self.note(command) {
                    self.printed.push(line);
                }
            }
            self.machine.check_invariants().map_err(str::to_owned)?;
        }
        Err(format!("more than {MOST_EVENTS} events follow"))
    }

    /// Notes what is to be done, and does it where that is to happen by itself. Whether to print it.
    fn note(&mut self, command: Command) -> bool {
        match command {
            Command::SendRequest { id, peer, request, deadline: _ } => {
                let shown = !self.answer_poll(id, peer, &request);
                self.requests.insert(id.get(), (peer, request));
                return shown;
            }
            Command::Verify { id, job } => {
                if self.auto.jobs {
                    let verdict = job.run([0; 32]);
                    self.follows.push_back(Event::Verified { id, verdict });
                } else {
                    self.jobs.insert(id.get(), job);
                }
            }
            Command::StoreBatch { batch } => {
                if self.auto.storage {
                    self.store.apply(&batch);
                    self.follows.push_back(Event::Stored { through: batch.id });
                } else {
                    self.batches.insert(batch.id.get(), batch);
                }
            }
            Command::Broadcast { range } => {
                if self.auto.consumers {
                    self.follows.push_back(Event::Broadcasted { through: range.end() });
                }
            }
            Command::Disconnect { peer, .. } => self.follows.push_back(Event::PeerDisconnected { peer }),
            Command::CancelRequest { .. }
            | Command::Respond { .. }
            | Command::Refuse { .. }
            | Command::Serve { .. }
            | Command::Notify(_) => {}
        }
        true
    }

    /// Answers questions of how far a peer is, and takes note of how far we are, where that is to happen by itself.
    /// Whether the request need not be printed.
    fn answer_poll(&mut self, id: RequestId, peer: PeerId, request: &Request) -> bool {
        let Some((lowest, highest)) = self.claims.get(&peer).copied().filter(|_| self.auto.polls) else {
            return false;
        };
        let (part, shown) = match request {
            Request::Availability { .. } => (ResponsePart::Availability { highest, lowest }, false),
            Request::Push { .. } => (ResponsePart::Push { timestamp_ms: 0 }, true),
            Request::CommitInfo(CommitInfoQuery::ByIndex(_)) => {
                let chain_id = Some(self.names.lab.genesis().chain_id());
                (ResponsePart::CommitInfo { commit: Some(CommitRef::GENESIS), chain_id }, false)
            }
            Request::CommitInfo(CommitInfoQuery::Latest) | Request::Commits(_) | Request::Blocks(_) => {
                return false;
            }
        };
        self.follows.push_back(Event::ResponsePart { id, part });
        self.follows.push_back(Event::RequestFinished { id, result: Ok(()) });
        self.polls += u64::from(!shown);
        !shown
    }

    /// Lets things happen by themselves from now on, or not.
    pub(crate) fn set_auto(&mut self, words: &mut Words<'_>, on: bool) -> Result<(), String> {
        while let Some(word) = words.next() {
            match word {
                "jobs" => self.auto.jobs = on,
                "storage" => self.auto.storage = on,
                "consumers" => self.auto.consumers = on,
                "polls" => self.auto.polls = on,
                other => return Err(format!("unknown word '{other}'")),
            }
        }
        Ok(())
    }

    /// Lets time pass, with a tick whenever the machine asks for one.
    pub(crate) fn wait(&mut self, time: Duration) -> Result<(), String> {
        let until = self.now.saturating_add(time);
        for _ in 0..MOST_EVENTS {
            match self.machine.poll_timeout().filter(|at| *at <= until) {
                Some(at) => self.tick(at)?,
                None => {
                    self.now = until;
                    return Ok(());
                }
            }
        }
        Err(format!("more than {MOST_EVENTS} ticks in {time:?}"))
    }

    /// Lets time pass until the machine asks for a tick.
    pub(crate) fn wait_for_timer(&mut self) -> Result<(), String> {
        match self.machine.poll_timeout() {
            Some(at) => {
                self.tick(at)?;
                let line = format!("at {}", moment(at));
                if self.printed.first() != Some(&line) {
                    self.printed.insert(0, line);
                }
                Ok(())
            }
            None => Err("the machine waits for nothing".into()),
        }
    }

    fn tick(&mut self, at: Timestamp) -> Result<(), String> {
        if at <= self.now {
            return Err("a timer in the past".into());
        }
        self.now = at;
        let before = self.printed.len();
        self.handle(Event::Tick)?;
        if self.printed.len() > before {
            self.printed.insert(before, format!("at {}", moment(at)));
        }
        Ok(())
    }

    pub(crate) fn print_status(&mut self) {
        let lines = self.printer().status(&self.machine.status());
        self.printed.extend(lines);
    }

    pub(crate) fn print_peers(&mut self) {
        let lines = self.printer().peers(&self.machine.status());
        self.printed.extend(lines);
    }

    pub(crate) fn print_counters(&mut self) {
        self.printed.push(Printer::counters(&self.machine.status().counters));
    }

    pub(crate) fn print_explanation(&mut self, index: CommitIndex) {
        let mut text = self.machine.explain(index).to_string();
        for peer in &self.peers {
            text = text.replace(&peer.to_string(), &name(*peer));
        }
        self.printed.extend(text.lines().map(str::to_owned));
    }

    /// A peer connects; with a claim it also says at once which chain it is on, and that.
    pub(crate) fn connect(
        &mut self,
        peer: PeerId,
        claim: Option<(CommitIndex, CommitIndex)>,
    ) -> Result<(), String> {
        self.peers.insert(peer);
        let Some(claim) = claim else { return self.handle(Event::PeerConnected { peer }) };
        let polls = mem::replace(&mut self.auto.polls, true);
        self.claims.insert(peer, claim);
        self.handle(Event::PeerConnected { peer })?;
        self.auto.polls = polls;
        self.polls = 0;
        Ok(())
    }

    pub(crate) fn disconnect(&mut self, peer: PeerId) -> Result<(), String> {
        self.claims.remove(&peer);
        self.handle(Event::PeerDisconnected { peer })
    }

    /// What a peer says from now on when it is polled.
    pub(crate) fn claim(&mut self, peer: PeerId, claim: (CommitIndex, CommitIndex)) {
        self.claims.insert(peer, claim);
    }

    /// A peer sends something for a request that it was sent, in time or not, and ends the answer.
    pub(crate) fn answer(
        &mut self,
        peer: PeerId,
        id: u64,
        words: &mut Words<'_>,
        ends: bool,
    ) -> Result<(), String> {
        let request = self.sent_to(peer, id)?;
        let reply = reply(words, request, &self.names)?;
        words.end()?;
        let id = RequestId::new(id);
        let result = match reply {
            Reply::Part(part) => {
                self.follows.push_back(Event::ResponsePart { id, part });
                Ok(())
            }
            Reply::Failure(failure) => Err(failure),
        };
        if ends {
            self.follows.push_back(Event::RequestFinished { id, result });
        }
        self.go_on()
    }

    fn sent_to(&self, peer: PeerId, id: u64) -> Result<&Request, String> {
        match self.requests.get(&id) {
            Some((to, request)) if *to == peer => Ok(request),
            Some((to, _)) => Err(format!("r{id} was sent to {}", name(*to))),
            None => Err(format!("r{id} was never sent")),
        }
    }

    pub(crate) fn end(
        &mut self,
        peer: PeerId,
        id: u64,
        result: Result<(), RequestFailure>,
    ) -> Result<(), String> {
        self.sent_to(peer, id)?;
        self.handle(Event::RequestFinished { id: RequestId::new(id), result })
    }

    pub(crate) fn fail_request(&mut self, id: u64, failure: RequestFailure) -> Result<(), String> {
        let (peer, _) = self.requests.get(&id).ok_or_else(|| format!("r{id} was never sent"))?;
        self.end(*peer, id, Err(failure))
    }

    /// A worker does a job; what it found is printed before what comes of it.
    pub(crate) fn finish_job(&mut self, id: u64) -> Result<(), String> {
        let job = self.jobs.remove(&id).ok_or_else(|| format!("j{id} is not running"))?;
        let verdict = job.run([0; 32]);
        self.printed.push(format!("({})", self.printer().verdict(&verdict)));
        self.handle(Event::Verified { id: JobId::new(id), verdict })
    }

    pub(crate) fn kill_job(&mut self, id: u64) -> Result<(), String> {
        self.jobs.remove(&id).ok_or_else(|| format!("j{id} is not running"))?;
        self.handle(Event::Verified { id: JobId::new(id), verdict: Verdict::WorkerFailed })
    }

    /// All jobs are done that are running now, lowest first.
    pub(crate) fn finish_jobs(&mut self) -> Result<(), String> {
        let ids: Vec<_> = self.jobs.keys().copied().collect();
        ids.into_iter().try_for_each(|id| self.finish_job(id))
    }

    /// Everything up to this batch is durable.
    pub(crate) fn store(&mut self, id: u64) -> Result<(), String> {
        if !self.batches.contains_key(&id) {
            return Err(format!("b{id} is not being stored"));
        }
        let later = self.batches.split_off(&(id + 1));
        for batch in mem::replace(&mut self.batches, later).values() {
            self.store.apply(batch);
        }
        self.handle(Event::Stored { through: BatchId::new(id) })
    }

    pub(crate) fn fail_store(&mut self, id: u64) -> Result<(), String> {
        self.batches.clear();
        self.handle(Event::StoreFailed { from: BatchId::new(id) })
    }

    /// The store is opened again, as it is or as a copy that holds this many commits of a chain.
    pub(crate) fn reopen(&mut self, held: Option<(u32, Chain)>) -> Result<(), String> {
        if let Some((held, chain)) = held {
            self.names.made(chain, held)?;
            let commits = (1..=held).map(|index| self.names.made(chain, index).cloned());
            let commits = commits.collect::<Result<Vec<_>, _>>()?;
            self.store = ChainStore::of(self.names.lab.genesis().clone(), &commits);
        }
        self.handle(Event::StoreReopened { start: Box::new(self.store.start()) })
    }

    pub(crate) fn prune(&mut self, lowest: CommitIndex) -> Result<(), String> {
        self.store.prune(lowest);
        self.handle(Event::Pruned { lowest })
    }

    /// The process ends at once and begins again with what is stored. Time goes on.
    pub(crate) fn restart(&mut self) -> Result<(), String> {
        let machine = SyncMachine::new(self.config.clone(), self.store.start(), self.now, [0; 32]);
        self.machine = machine.map_err(|error| error.to_string())?;
        self.requests.clear();
        self.jobs.clear();
        self.batches.clear();
        self.claims.clear();
        self.handle(Event::Tick)
    }

    pub(crate) fn ask(&mut self, peer: PeerId, id: u64, words: &mut Words<'_>) -> Result<(), String> {
        let request = question(words, &self.names, self.config.answer_bytes())?;
        words.end()?;
        self.handle(Event::RequestReceived { id: InboundId::new(id), peer, request })
    }

    pub(crate) fn served(&mut self, id: u64, bytes: u64) -> Result<(), String> {
        self.handle(Event::Served { id: InboundId::new(id), bytes, waited: Duration::ZERO })
    }

    /// Our own consensus makes a commit.
    pub(crate) fn observed(&self, chain: Chain, index: u32) -> Result<Event, String> {
        let made = self.names.made(chain, index)?;
        let blocks = made.blocks.iter().map(|block| block.payload.clone()).collect();
        Ok(Event::CommitObserved { commit: made.header.payload.clone(), blocks })
    }

    /// Our own consensus accepts the blocks that certify a commit.
    pub(crate) fn votes(&self, index: u32) -> Result<Event, String> {
        let made = self.names.made(Chain::Ours, index)?;
        let blocks = made.certifiers.iter().map(|block| block.payload.clone()).collect();
        Ok(Event::VotesObserved { blocks })
    }

    /// The committee of an epoch of the chain.
    pub(crate) fn committee(&self, epoch: u64) -> Result<Arc<Committee>, String> {
        let made = self.names.lab.chain().iter().find(|made| made.header.epoch.get() == epoch);
        made.map(|made| made.committee.clone()).ok_or_else(|| format!("the chain has no epoch {epoch}"))
    }
}
