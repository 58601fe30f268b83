//! One state of the node under test and of what is under way around it, and what may happen to it next.

use super::{
    Budget, Scope, Sometimes,
    ground::{Durable, Ground, LIAR, PEERS, Say},
};
use soma_sync_core::{
    Command, Event, NORMAL_NOW, Renamed, SyncMachine, Timestamp,
    command::{Batch, BatchId, Notice},
    event::{JobId, RequestId},
    job::Verdict,
    request::{Request, RequestFailure, ResponsePart},
    types::CommitIndex,
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
    time::Duration,
};

/// The node and everything that it waits for.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct State {
    /// In its normal form, at [`NORMAL_NOW`].
    machine: SyncMachine,
    links: [Link; PEERS],
    asked: BTreeMap<RequestId, Asked>,
    jobs: BTreeMap<JobId, usize>,
    batches: VecDeque<(BatchId, Arc<Batch>)>,
    durable: Durable,
    store_failed: bool,
    /// The last commit that was handed to consumers in this life.
    handed_out: u32,
    /// Whether the liar has said in this life what it can be shown to have lied about.
    lied: bool,
    /// Whether votes may be stored that the machine does not count: those for commits that were not stored yet when it
    /// started, which no start names.
    uncounted: bool,
}

/// Whether a peer is connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Link {
    Down,
    Up,
    /// Thrown out, for good.
    Banned,
}

/// A request in flight.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Asked {
    peer: usize,
    request: Request,
    progress: Progress,
}

/// How far an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Progress {
    Waiting,
    /// Its message came; its end has not.
    Answered,
    /// Nothing will ever come of it.
    Lost,
}

/// Something that may happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Action {
    Connect(usize),
    Disconnect(usize),
    /// The peer answers. What is short comes whole; commits and blocks come first, and their end later.
    Answer(RequestId, Say),
    /// The end of an answer.
    Finish(RequestId),
    /// The request or its answer is lost, and nobody is told.
    Lose(RequestId),
    /// The stream breaks.
    Reset(RequestId),
    Verdict(JobId),
    WorkerDies(JobId),
    /// The first batch is durable.
    Stored,
    StoreFails,
    /// The store is opened again, and so many of the batches have become durable.
    Reopen(usize),
    /// The node crashes and starts again, and so many of the batches have become durable.
    Crash(usize),
    /// Time passes until the machine's timer is due.
    Timer,
}

/// A step that was taken.
pub(super) struct Step {
    pub(super) state: State,
    pub(super) seen: BTreeSet<Sometimes>,
}

/// What must never happen has.
pub(super) type Broken = String;

/// The seeds that a step is tried with.
fn seed(number: u8) -> [u8; 32] {
    [number.wrapping_mul(37).wrapping_add(7); 32]
}

/// A step under way.
struct Taking<'a> {
    ground: &'a mut Ground,
    state: State,
    now: Timestamp,
    events: VecDeque<Event>,
    seen: BTreeSet<Sometimes>,
    /// What failed in this step, to see that it is asked of another.
    failed: Option<Request>,
}

impl State {
    /// A node that holds nothing, and is connected to nobody.
    pub(super) fn first(ground: &Ground) -> Self {
        let durable = Durable::default();
        Self {
            machine: started(ground, durable),
            links: [Link::Down; PEERS],
            asked: BTreeMap::new(),
            jobs: BTreeMap::new(),
            batches: VecDeque::new(),
            durable,
            store_failed: false,
            handed_out: 0,
            lied: false,
            uncounted: false,
        }
    }

    /// Messages that are on their way.
    pub(super) fn messages(&self) -> usize {
        self.asked.values().filter(|asked| asked.progress != Progress::Lost).count()
    }

    /// Whether the whole chain is durable, certifiable and handed out.
    pub(super) fn is_at_tip(&self, ground: &Ground) -> bool {
        let all = ground.height();
        let certifiable = self.machine.status().certifiable.index.get();
        self.durable.commits == all && self.handed_out == all && certifiable == all
    }

    /// Everything that may happen, and what it takes of the budget.
    pub(super) fn actions(&self, ground: &Ground, scope: &Scope, left: Budget) -> Vec<(Action, Budget)> {
        let mut actions = Vec::new();
        let free = |action| (action, left);
        for (peer, link) in self.links.iter().enumerate() {
            match link {
                Link::Down if self.may_connect(peer, scope) => actions.push(free(Action::Connect(peer))),
                Link::Up => actions.extend(left.disconnect().map(|left| (Action::Disconnect(peer), left))),
                Link::Down | Link::Banned => {}
            }
        }
        for (id, asked) in &self.asked {
            match asked.progress {
                Progress::Waiting => {
                    actions.extend(asked.says().map(|say| free(Action::Answer(*id, say))));
                    actions.extend(left.lose().map(|left| (Action::Lose(*id), left)));
                    actions.extend(left.lose().map(|left| (Action::Reset(*id), left)));
                }
                Progress::Answered => {
                    actions.push(free(Action::Finish(*id)));
                    actions.extend(left.lose().map(|left| (Action::Lose(*id), left)));
                }
                Progress::Lost => {}
            }
        }
        for id in self.jobs.keys() {
            actions.push(free(Action::Verdict(*id)));
            actions.extend(left.worker().map(|left| (Action::WorkerDies(*id), left)));
        }
        let under_way = self.batches.len();
        if self.store_failed {
            actions.extend((0..=under_way).map(|kept| free(Action::Reopen(kept))));
        } else if under_way > 0 {
            actions.push(free(Action::Stored));
            actions.extend(left.store().map(|left| (Action::StoreFails, left)));
        }
        if let Some(left) = left.crash() {
            actions.extend((0..=under_way).map(|kept| (Action::Crash(kept), left)));
        }
        // At the tip there is nothing to wait for but news.
        let may_pass = !scope.patient || self.fair() == Action::Timer;
        if may_pass && self.machine.poll_timeout().is_some() && !self.is_at_tip(ground) {
            actions.extend(left.timer().map(|left| (Action::Timer, left)));
        }
        actions
    }

    /// Where peers connect in turn, only the first that is down may.
    fn may_connect(&self, peer: usize, scope: &Scope) -> bool {
        !scope.connect_in_turn || self.links[..peer].iter().all(|link| *link != Link::Down)
    }

    /// What happens next where nothing goes wrong any more and the liar is silent; whichever can be done first, and a
    /// timer when there is nothing else.
    pub(super) fn fair(&self) -> Action {
        if let Some(id) = self.jobs.keys().next() {
            return Action::Verdict(*id);
        }
        if self.store_failed {
            return Action::Reopen(0);
        }
        if !self.batches.is_empty() {
            return Action::Stored;
        }
        if let Some(peer) = (0..LIAR).find(|peer| self.links[*peer] == Link::Down) {
            return Action::Connect(peer);
        }
        let honest = self.asked.iter().filter(|(_, asked)| asked.peer != LIAR);
        let answer = honest.filter_map(|(id, asked)| match asked.progress {
            Progress::Waiting => Some(Action::Answer(*id, Say::Truth)),
            Progress::Answered => Some(Action::Finish(*id)),
            Progress::Lost => None,
        });
        answer.into_iter().next().unwrap_or(Action::Timer)
    }

    /// Takes a step; what is drawn at random is drawn by the seed of this number.
    pub(super) fn step(&self, ground: &mut Ground, action: Action, number: u8) -> Result<Step, Broken> {
        let mut state = self.clone();
        if number > 0 {
            (state.machine, _) = self.machine.normalised(seed(number));
        }
        let mut taking = Taking {
            ground,
            state,
            now: NORMAL_NOW,
            events: VecDeque::new(),
            seen: BTreeSet::new(),
            failed: None,
        };
        taking.begin(action)?;
        taking.run()?;
        taking.end()
    }
}

/// A machine that starts from what is stored.
fn started(ground: &Ground, durable: Durable) -> SyncMachine {
    let start = ground.start(durable);
    let machine = SyncMachine::new(ground.config.clone(), start, NORMAL_NOW, seed(0));
    machine.expect("a configuration that works and a store that hangs together").normalised(seed(0)).0
}

impl Asked {
    /// What its peer may say.
    fn says(&self) -> impl Iterator<Item = Say> + use<> {
        let says: &[Say] = match &self.request {
            _ if self.peer != LIAR => &[Say::Truth],
            Request::CommitInfo(_) => &[Say::Truth, Say::OtherChain],
            Request::Availability { .. } => &[Say::Truth, Say::TooMuch, Say::Inverted],
            Request::Commits(_) => &[Say::Truth, Say::Nothing, Say::Corrupt, Say::NoVotes],
            Request::Blocks(_) => &[Say::Truth, Say::Corrupt, Say::Lacking],
            Request::Push { .. } => &[Say::Truth],
        };
        says.iter().copied()
    }
}

impl Taking<'_> {
    /// What an action comes to, in events.
    fn begin(&mut self, action: Action) -> Result<(), Broken> {
        match action {
            Action::Connect(peer) => {
                self.state.links[peer] = Link::Up;
                self.events.push_back(Event::PeerConnected { peer: Ground::peer(peer) });
            }
            Action::Disconnect(peer) => {
                self.state.links[peer] = Link::Down;
                self.state.asked.retain(|_, asked| asked.peer != peer);
                self.events.push_back(Event::PeerDisconnected { peer: Ground::peer(peer) });
            }
            Action::Answer(id, say) => self.answer(id, say),
            Action::Finish(id) => self.finish(id, Ok(())),
            Action::Lose(id) => {
                self.seen.insert(Sometimes::Lost);
                let asked = self.state.asked.get_mut(&id).ok_or("a request that is over is lost")?;
                asked.progress = Progress::Lost;
            }
            Action::Reset(id) => {
                self.seen.insert(Sometimes::Reset);
                self.finish(id, Err(RequestFailure::Reset));
            }
            Action::Verdict(id) => self.verdict(id)?,
            Action::WorkerDies(id) => {
                self.seen.insert(Sometimes::WorkerDied);
                self.state.jobs.remove(&id);
                self.events.push_back(Event::Verified { id, verdict: Verdict::WorkerFailed });
            }
            Action::Stored => {
                let through = self.store_first()?;
                self.events.push_back(Event::Stored { through });
            }
            Action::StoreFails => {
                let from = self.state.batches.front().ok_or("nothing is stored that could fail")?.0;
                self.state.store_failed = true;
                self.events.push_back(Event::StoreFailed { from });
            }
            Action::Reopen(kept) => {
                self.seen.insert(Sometimes::StoreReopened);
                self.store_prefix(kept)?;
                (self.state.store_failed, self.state.uncounted) = (false, true);
                let start = Box::new(self.ground.start(self.state.durable));
                self.events.push_back(Event::StoreReopened { start });
            }
            Action::Crash(kept) => self.crash(kept)?,
            Action::Timer => {
                let due = self.state.machine.poll_timeout().ok_or("no timer is set")?;
                if due <= self.now {
                    return Err("a timer that is due already".into());
                }
                self.now = due;
                self.events.push_back(Event::Tick);
            }
        }
        Ok(())
    }

    fn answer(&mut self, id: RequestId, say: Say) {
        let Some(asked) = self.state.asked.get_mut(&id) else { return };
        asked.progress = Progress::Answered;
        self.state.lied |= say.is_provable();
        let (height, mut small) = (self.ground.height(), true);
        let part = match &asked.request {
            Request::CommitInfo(_) => {
                let chain_id = (say == Say::Truth).then_some(self.ground.chain_id);
                Ok(ResponsePart::CommitInfo { commit: None, chain_id })
            }
            Request::Availability { .. } => {
                let highest = CommitIndex::new(height + u32::from(say == Say::TooMuch));
                let lowest = if say == Say::Inverted { height + 1 } else { 0 };
                Ok(ResponsePart::Availability { highest, lowest: CommitIndex::new(lowest) })
            }
            Request::Push { .. } => Ok(ResponsePart::Push { timestamp_ms: 0 }),
            Request::Commits(_) if say == Say::Nothing => return self.finish(id, Ok(())),
            Request::Commits(fetch) => {
                small = false;
                self.ground.commits(fetch, say)
            }
            Request::Blocks(fetch) => {
                small = false;
                Ok(self.ground.blocks(fetch, say))
            }
        };
        match part {
            Err(reason) => self.finish(id, Err(RequestFailure::Refused(reason))),
            Ok(part) => {
                self.events.push_back(Event::ResponsePart { id, part });
                if small {
                    self.finish(id, Ok(()));
                }
            }
        }
    }

    fn finish(&mut self, id: RequestId, result: Result<(), RequestFailure>) {
        let asked = self.state.asked.remove(&id);
        if result.is_err() {
            self.failed = asked.map(|asked| asked.request);
        }
        self.events.push_back(Event::RequestFinished { id, result });
    }

    fn verdict(&mut self, id: JobId) -> Result<(), Broken> {
        let name = self.state.jobs.remove(&id).ok_or("a job that is done")?;
        if self.ground.certifies_from(name).is_some_and(|start| start <= self.state.durable.commits) {
            self.seen.insert(Sometimes::DuplicateCompared);
        }
        let verdict = self.ground.verdict(name);
        self.events.push_back(Event::Verified { id, verdict });
        Ok(())
    }

    /// The first batch becomes durable.
    fn store_first(&mut self) -> Result<BatchId, Broken> {
        let (id, batch) = self.state.batches.pop_front().ok_or("no batch is on its way")?;
        self.state.durable = self.ground.store(self.state.durable, &batch)?;
        Ok(id)
    }

    /// So many batches become durable, and the others are lost.
    fn store_prefix(&mut self, kept: usize) -> Result<(), Broken> {
        for _ in 0..kept {
            self.store_first()?;
        }
        self.state.batches.clear();
        Ok(())
    }

    fn crash(&mut self, kept: usize) -> Result<(), Broken> {
        if kept < self.state.batches.len() {
            self.seen.insert(Sometimes::CrashLosesBatch);
        }
        if kept > 0 {
            self.seen.insert(Sometimes::CrashKeepsBatch);
        }
        self.store_prefix(kept)?;
        let durable = self.state.durable;
        let links = [Link::Down; PEERS];
        let first = State::first(self.ground);
        let machine = started(self.ground, durable);
        self.state = State { machine, links, durable, handed_out: durable.commits, uncounted: true, ..first };
        self.events.push_back(Event::Tick);
        Ok(())
    }

    /// Hands the events to the machine and carries out what it says.
    fn run(&mut self) -> Result<(), Broken> {
        while let Some(event) = self.events.pop_front() {
            let timeouts = self.state.machine.status().counters;
            self.state.machine.handle(self.now, event);
            while let Some(command) = self.state.machine.poll_command() {
                self.carry_out(command)?;
            }
            let counters = self.state.machine.status().counters;
            if counters.timeouts > timeouts.timeouts {
                self.seen.insert(Sometimes::TimedOut);
            }
            if counters.hedges > timeouts.hedges {
                self.seen.insert(Sometimes::Hedged);
            }
            self.state.machine.check_invariants()?;
            self.check()?;
        }
        Ok(())
    }

    fn carry_out(&mut self, command: Command) -> Result<(), Broken> {
        match command {
            Command::SendRequest { id, peer, request, deadline: _ } => {
                let peer = Ground::position(peer);
                self.send(id, peer, request)?;
            }
            Command::CancelRequest { id } => {
                self.failed = self.state.asked.remove(&id).map(|asked| asked.request).or(self.failed.take());
            }
            Command::Verify { id, job } => {
                let name = self.ground.job(job);
                self.state.jobs.insert(id, name);
            }
            Command::StoreBatch { batch } => {
                self.state.batches.push_back((batch.id, batch));
                if self.state.batches.len() > 1 {
                    self.seen.insert(Sometimes::TwoBatches);
                }
            }
            Command::Broadcast { range } => {
                if range.start().get() != self.state.handed_out + 1 {
                    return Err("commits are handed out twice, or one is left out".into());
                }
                self.state.handed_out = range.end().get();
                self.events.push_back(Event::Broadcasted { through: range.end() });
            }
            Command::Disconnect { peer, offence, ban: _ } => {
                let peer = Ground::position(peer);
                if peer != LIAR {
                    return Err(format!("an honest peer is thrown out: {offence}"));
                }
                if !self.state.lied {
                    return Err(format!("a peer is thrown out that has not lied: {offence}"));
                }
                self.seen.insert(Sometimes::LiarBanned);
                self.state.links[peer] = Link::Banned;
                self.state.asked.retain(|_, asked| asked.peer != peer);
                self.events.push_back(Event::PeerDisconnected { peer: Ground::peer(peer) });
            }
            Command::Notify(Notice::Halted(halt)) => return Err(format!("the node halts: {halt}")),
            Command::Notify(Notice::Synced { .. }) => {
                self.seen.insert(Sometimes::Synced);
            }
            Command::Notify(_) => {}
            Command::Respond { .. } | Command::Refuse { .. } | Command::Serve { .. } => {
                return Err("an answer to nobody's request".into());
            }
        }
        Ok(())
    }

    fn send(&mut self, id: RequestId, peer: usize, mut request: Request) -> Result<(), Broken> {
        if self.state.links[peer] != Link::Up {
            return Err("a request to a peer that is not connected".into());
        }
        match &mut request {
            Request::Availability { timestamp_ms } => *timestamp_ms = 0,
            Request::Commits(fetch) => fetch.wait = Duration::ZERO,
            Request::Push { index } => {
                self.seen.insert(Sometimes::Pushed);
                if *index > self.ground.certifiable(self.state.durable).index {
                    return Err("a commit is announced that is not durable and certified".into());
                }
            }
            Request::CommitInfo(_) | Request::Blocks(_) => {}
        }
        if self.failed.as_ref() == Some(&request) {
            self.seen.insert(Sometimes::Retried);
        }
        if self.state.asked.insert(id, Asked { peer, request, progress: Progress::Waiting }).is_some() {
            return Err("an id is used twice".into());
        }
        Ok(())
    }

    /// What the machine says of itself is what can be seen of it.
    fn check(&self) -> Result<(), Broken> {
        let (state, status) = (&self.state, self.state.machine.status());
        let certifiable = self.ground.certifiable(state.durable);
        match () {
            () if state.handed_out > state.durable.commits => {
                Err("a commit is handed out that is not durable")
            }
            () if status.certifiable.index > certifiable.index => {
                Err("a commit is said to be certifiable that is not durable and certified")
            }
            () if !state.store_failed && status.durable.get() != state.durable.commits => {
                Err("another commit is said to be durable than is")
            }
            () if !state.store_failed && !state.uncounted && status.certifiable != certifiable => {
                Err("a commit that is certified and durable is not said to be")
            }
            () if status.halted.is_some() => Err("the node halted"),
            () => Ok(()),
        }
        .map_err(Into::into)
    }

    /// Brings the state into its normal form.
    fn end(mut self) -> Result<Step, Broken> {
        let machine = &self.state.machine;
        if machine.poll_timeout().is_some_and(|due| due <= self.now) {
            return Err("a timer in the past".into());
        }
        let (machine, renamed) = machine.normalised(seed(0));
        self.state.machine = machine;
        let Renamed { requests, jobs, batches } = renamed;
        let asked = std::mem::take(&mut self.state.asked);
        let waiting = std::mem::take(&mut self.state.jobs);
        if !asked.keys().eq(requests.keys()) || !waiting.keys().eq(jobs.keys()) {
            return Err("the machine waits for what is not under way, or does not for what is".into());
        }
        self.state.asked = asked.into_iter().map(|(id, asked)| (requests[&id], asked)).collect();
        self.state.jobs = waiting.into_iter().map(|(id, name)| (jobs[&id], name)).collect();
        for (id, batch) in &mut self.state.batches {
            *id = *batches.get(id).ok_or("a batch is on its way that the machine does not wait for")?;
            Arc::make_mut(batch).id = *id;
        }
        if self.state.is_at_tip(self.ground) {
            self.seen.insert(Sometimes::TipReached);
        }
        Ok(Step { state: self.state, seen: self.seen })
    }
}
