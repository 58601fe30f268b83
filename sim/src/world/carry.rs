//! Handing an event to a machine, and carrying out the commands that come of it.

use super::{
    NodeId, Occurrence, World,
    charges::Sort,
    node::{Asked, Kind, Seen},
    verdicts,
};
use crate::{
    fault::Fault,
    violation::{Broken, Invariant},
};
use soma_sync_core::{
    Command, Event, Timestamp,
    command::{Batch, ServePlan},
    event::{JobId, RequestId},
    job::{Job, Verdict},
    request::{RefuseReason, Request, RequestFailure, ResponsePart},
    types::{CommitIndex, PeerId},
};
use std::{sync::Arc, time::Duration};

impl World {
    /// Hands an event to a node's machine, and carries out what comes of it.
    pub(super) fn handle(&mut self, id: NodeId, event: Event) {
        let (now, local) = (self.now, self.local(id));
        self.handled += 1;
        self.told = Some(id);
        self.history.event(now, id, &event);
        let mut guilty = Vec::new();
        let node = &mut self.nodes[id.0];
        node.events += 1;
        if let Event::Verified { id: job, .. } = &event {
            node.jobs = node.jobs.saturating_sub(1);
            guilty = self.charges.guilty(id, *job);
        }
        let node = &mut self.nodes[id.0];
        if let Some(recorded) = &mut node.recorded {
            recorded.events.push((local, event.clone()));
        }
        if let Event::PeerDisconnected { peer } = &event {
            // Paused, it may have asked over a connection of which it did not know yet that it is another one.
            self.node_of(*peer).into_iter().for_each(|other| self.nodes[id.0].forget_asked(other));
        }
        if let (Event::Broadcasted { through }, Some(oracle)) = (&event, self.judge(id)) {
            let judged = oracle.delivered(id.0, *through);
            self.note(judged);
        }
        let node = &mut self.nodes[id.0];
        let trapped = node.plight.is_trapped().then(|| event.clone());
        let seen = Seen::of(&event);
        node.machine.handle(local, event);
        let commands: Vec<_> = std::iter::from_fn(|| node.machine.poll_command()).collect();
        node.most_commands = node.most_commands.max(commands.len());
        let progress = node.note_progress(now, &seen, &commands);
        self.note(progress);
        self.history.commands(&commands);
        self.check(id, local);
        let crash = trapped.and_then(|event| self.springs(id, &event, &commands));
        if let Some((step, down)) = crash
            && step.is_at_once()
        {
            return self.crash_for(id, down);
        }
        for command in commands {
            self.carry_out(id, command);
        }
        for senders in &guilty {
            self.must_charge(id, senders);
        }
        match crash {
            Some((_, down)) => self.crash_for(id, down),
            None => self.arm_timer(id),
        }
    }

    /// Checks what must hold of a machine between two events.
    fn check(&mut self, id: NodeId, local: Timestamp) {
        let machine = &self.nodes[id.0].machine;
        if machine.poll_timeout().is_some_and(|at| at <= local) {
            let detail = format!("{id:?} asks to be woken in the past");
            return self.note(Err(Broken::new(Invariant::Spinning, detail)));
        }
        if self.check_every > 0
            && self.handled.is_multiple_of(self.check_every)
            && let Err(broken) = machine.check_invariants()
        {
            let detail = format!("{id:?}: {broken}");
            self.note(Err(Broken::new(Invariant::Machine, detail)));
        }
    }

    fn carry_out(&mut self, id: NodeId, command: Command) {
        match command {
            Command::SendRequest { id: request_id, peer, request, deadline: _ } => {
                self.ask_for_machine(id, request_id, peer, request);
            }
            Command::CancelRequest { id: request_id } => self.cancel_request(id, request_id),
            Command::Verify { id: job_id, job } => {
                let verdict = self.verdict(id, job_id, job);
                let takes = self.nodes[id.0].job;
                self.schedule_event(takes, id, Event::Verified { id: job_id, verdict });
            }
            Command::StoreBatch { batch } => self.store_batch(id, batch),
            Command::Broadcast { range } => {
                if let Some(oracle) = self.judge(id) {
                    let judged = oracle.broadcast(id.0, range);
                    self.note(judged);
                }
                let (through, at) = (range.end(), self.consumed_at(id));
                let life = self.nodes[id.0].life;
                let event = Event::Broadcasted { through };
                self.schedule_at(at, Occurrence::Event { node: id, life, event });
            }
            Command::Respond { id: inbound, response } => {
                if let ResponsePart::Availability { highest, .. } = response {
                    self.announced(id, highest);
                }
                self.reply(id, inbound, Ok(vec![response]), None);
            }
            Command::Refuse { id: inbound, reason } => self.reply(id, inbound, Err(reason), None),
            Command::Serve { id: inbound, plan, deadline } => {
                self.judge_plan(id, &plan);
                let parts = self.read(id, &plan);
                let until = self.nodes[id.0].plight.clock.when(deadline);
                self.reply(id, inbound, parts, Some(until));
            }
            Command::Disconnect { peer, offence, ban } => {
                let other = self.node_of(peer);
                let until = self.now.saturating_add(ban);
                self.nodes[id.0].plight.banned.insert(peer, until);
                if let Some(honest) = other.filter(|other| !self.nodes[other.0].hostile)
                    && let Some(oracle) = self.judge(id)
                {
                    let broken = oracle.blamed_honest(id.0, honest.0, offence);
                    self.note(Err(broken));
                }
                self.nodes[id.0].disconnected.push((peer, offence));
                if let Some(other) = other {
                    self.disconnect(id, other);
                }
            }
            Command::Notify(notice) => self.nodes[id.0].notices.push(notice),
        }
    }

    fn node_of(&self, peer: PeerId) -> Option<NodeId> {
        self.nodes.iter().position(|node| node.peer == peer).map(NodeId)
    }

    /// The oracle, where it watches this node.
    fn judge(&mut self, id: NodeId) -> Option<&mut crate::oracle::Oracle> {
        let honest = !self.nodes[id.0].hostile;
        self.oracle.as_mut().filter(|_| honest)
    }

    fn announced(&mut self, id: NodeId, index: CommitIndex) {
        let node = &self.nodes[id.0];
        if let Some(oracle) = self.oracle.as_mut().filter(|_| !node.hostile) {
            let judged = oracle.announced(id.0, index, &node.store);
            self.note(judged);
        }
    }

    /// What a job of a node finds, or that its worker died.
    fn verdict(&mut self, id: NodeId, job_id: JobId, job: Job) -> Verdict {
        let node = &mut self.nodes[id.0];
        node.jobs += 1;
        if node.jobs >= node.config.max_verify_jobs {
            self.hits.count(Fault::SaturatedVerifier);
        }
        if let Some(oracle) = self.oracle.as_ref().filter(|_| !node.hostile) {
            let judged = oracle.jobs(id.0, node.jobs, &node.config);
            self.note(judged);
        }
        if self.worker_dies(id) {
            return Verdict::WorkerFailed;
        }
        let verdict = match &self.verdicts {
            Some(remembered) => remembered.borrow_mut().of(&job),
            None => verdicts::verify(job.clone()),
        };
        self.inspect_verdict(id, job_id, &job, &verdict);
        verdict
    }

    fn judge_plan(&mut self, id: NodeId, plan: &ServePlan) {
        let node = &self.nodes[id.0];
        if let (ServePlan::Commits { range, .. }, Some(oracle), false) = (plan, &self.oracle, node.hostile) {
            let judged = oracle.served(id.0, *range, &node.config);
            self.note(judged);
        }
    }

    /// What a node reads from its storage for an answer, if it can be read.
    fn read(&mut self, id: NodeId, plan: &ServePlan) -> Result<Vec<ResponsePart>, RefuseReason> {
        let node = &self.nodes[id.0];
        if !node.plight.rotten.is_empty() {
            let rotten = |index: &CommitIndex| node.plight.rotten.contains(index);
            let header = |index: &CommitIndex| node.store.commit(*index);
            let unreadable = match plan {
                ServePlan::CommitInfo { index } => rotten(index),
                ServePlan::Commits { range, .. } => range.iter().any(|index| rotten(&index)),
                ServePlan::Blocks { refs, .. } => {
                    let mut blocks =
                        node.plight.rotten.iter().filter_map(header).flat_map(|header| header.blocks.iter());
                    blocks.any(|block| refs.contains(block))
                }
            };
            if unreadable {
                self.hits.count(Fault::BitRot);
                return Err(RefuseReason::Internal);
            }
        }
        node.store.serve(plan)
    }

    fn ask_for_machine(&mut self, id: NodeId, request_id: RequestId, peer: PeerId, request: Request) {
        let kind = match &request {
            Request::Commits(fetch) if !fetch.wait.is_zero() => Kind::Waiting,
            Request::Commits(_) | Request::Blocks(_) => Kind::Data,
            Request::CommitInfo(_) | Request::Availability { .. } => Kind::Other,
            Request::Push { index } => {
                self.announced(id, *index);
                Kind::Other
            }
        };
        let connected = self.node_of(peer).filter(|to| self.nodes[id.0].links.contains(to));
        let node = &mut self.nodes[id.0];
        node.traffic.requests += 1;
        node.traffic.data_requests += u64::from(kind != Kind::Other);
        node.traffic.block_requests += u64::from(matches!(request, Request::Blocks(_)));
        node.traffic.waiting_requests += u64::from(kind == Kind::Waiting);
        node.issued.push(request_id);
        let Some(to) = connected else {
            let lost = Event::RequestFinished { id: request_id, result: Err(RequestFailure::Disconnected) };
            return self.schedule_event(Duration::ZERO, id, lost);
        };
        node.asked.insert(request_id, Asked { to, kind, sort: Sort::of(&request) });
        let in_flight = node.in_flight(to);
        if let Some(oracle) = self.oracle.as_mut().filter(|_| !node.hostile) {
            let judged = oracle.in_flight(id.0, in_flight, &node.config);
            self.note(judged);
        }
        self.send_request(id, to, request_id, request);
    }

    fn store_batch(&mut self, id: NodeId, batch: Arc<Batch>) {
        let now = self.now;
        let node = &mut self.nodes[id.0];
        node.store_busy = node.store_busy.max(now).saturating_add(node.store_time);
        let (at, life) = (node.store_busy, node.life);
        // Nothing is written to a store that has failed already.
        let unsynced = !node.store_fails && std::mem::take(&mut node.plight.fsync_fails);
        if node.store_fails || unsynced {
            let failed = Event::StoreFailed { from: batch.id };
            let fault = node.plight.store_fault.unwrap_or(Fault::StoreFailure);
            self.hits.count(if unsynced { Fault::FsyncOnce } else { fault });
            self.schedule_at(at, Occurrence::Event { node: id, life, event: failed });
            if unsynced {
                // It is there all the same: the store that is opened again has it.
                self.nodes[id.0].store_fails = true;
                self.nodes[id.0].storing.push_back(batch);
            }
            return;
        }
        node.storing.push_back(batch.clone());
        self.schedule_at(at, Occurrence::Stored { node: id, life, batch });
    }

    /// A batch is durable.
    pub(super) fn stored(&mut self, id: NodeId, batch: Arc<Batch>) {
        self.nodes[id.0].storing.pop_front();
        self.apply(id, &batch);
        self.handle(id, Event::Stored { through: batch.id });
    }

    pub(super) fn apply(&mut self, id: NodeId, batch: &Batch) {
        let node = &mut self.nodes[id.0];
        node.store.apply(batch);
        for header in &batch.commits {
            let blocks = header.blocks.iter().filter_map(|block| node.store.block(block));
            let bytes = blocks.map(|block| block.payload.len() as u64).sum::<u64>();
            node.traffic.needed_bytes += header.payload.len() as u64 + bytes;
        }
        if let Some(oracle) = self.oracle.as_mut().filter(|_| !node.hostile) {
            let peak = node.machine.status().buffered_bytes_peak;
            let judged = oracle
                .stored(id.0, batch, &node.store)
                .and_then(|()| oracle.within_budget(id.0, peak, node.config.max_buffered_bytes));
            self.note(judged);
        }
    }

    /// Opens a store that failed again, after what is still on its way from the store as it was.
    pub(super) fn reopen_store(&mut self, id: NodeId) {
        let at = self.nodes[id.0].store_busy.max(self.now);
        let life = self.nodes[id.0].life;
        self.schedule_at(at, Occurrence::Reopened { node: id, life });
    }

    /// A store that failed is open again, once it has said of all that it was given what became of it. What was written
    /// and not reported as stored is there.
    pub(super) fn store_reopened(&mut self, id: NodeId) {
        if self.nodes[id.0].store_busy > self.now {
            return self.reopen_store(id);
        }
        // What is down notices nothing, and finds the store in order when it starts.
        if !std::mem::take(&mut self.nodes[id.0].store_fails) || self.is_down(id) {
            return;
        }
        let written: Vec<_> = self.nodes[id.0].storing.drain(..).collect();
        for batch in written {
            self.apply(id, &batch);
        }
        let start = Box::new(self.nodes[id.0].store.start());
        self.handle(id, Event::StoreReopened { start });
    }
}
