//! Handing an event to a machine, and carrying out the commands that come of it.

use super::{
    NodeId, Occurrence, World,
    node::{Asked, Kind},
};
use soma_sync_core::{
    Command, Event,
    command::Batch,
    event::RequestId,
    request::{Request, RequestFailure, ResponsePart},
    types::PeerId,
};
use std::{sync::Arc, time::Duration};

impl World {
    pub(super) fn handle(&mut self, id: NodeId, event: Event) {
        let now = self.now;
        self.history.event(now, id, &event);
        let node = &mut self.nodes[id.0];
        node.events += 1;
        if let Some(recorded) = &mut node.recorded {
            recorded.push((now, event.clone()));
        }
        let oracle = self.oracle.as_mut().filter(|_| !node.hostile);
        if let (Event::Broadcasted { through }, Some(oracle)) = (&event, oracle) {
            oracle.delivered(id.0, *through);
        }
        let is_tick = matches!(event, Event::Tick);
        node.machine.handle(now, event);
        let commands: Vec<_> = std::iter::from_fn(|| node.machine.poll_command()).collect();
        if self.check
            && let Err(broken) = node.machine.check_invariants()
        {
            panic!("node {id:?} at {now:?}: {broken}");
        }
        node.most_commands = node.most_commands.max(commands.len());
        node.note_progress(now, is_tick, commands.len());
        self.history.commands(&commands);
        for command in commands {
            self.carry_out(id, command);
        }
        let node = &mut self.nodes[id.0];
        node.timer = node.machine.poll_timeout();
        if let Some(at) = node.timer {
            assert!(at > now, "node {id:?} asks to be woken in the past");
            self.schedule_at(at, Occurrence::Tick(id));
        }
    }

    fn carry_out(&mut self, id: NodeId, command: Command) {
        match command {
            Command::SendRequest { id: request_id, peer, request, deadline: _ } => {
                self.ask_for_machine(id, request_id, peer, request);
            }
            Command::CancelRequest { id: request_id } => self.cancel_request(id, request_id),
            Command::Verify { id: job_id, job } => {
                let verdict = job.run([0; 32]);
                let takes = self.nodes[id.0].job;
                self.schedule_event(takes, id, Event::Verified { id: job_id, verdict });
            }
            Command::StoreBatch { batch } => self.store_batch(id, batch),
            Command::Broadcast { range } => {
                if let Some(oracle) = self.judge(id) {
                    oracle.broadcast(id.0, range);
                }
                let through = range.end();
                self.schedule_event(Duration::ZERO, id, Event::Broadcasted { through });
            }
            Command::Respond { id: inbound, response } => {
                if let ResponsePart::Availability { highest, .. } = response {
                    self.announced(id, highest);
                }
                self.reply(id, inbound, Ok(vec![response]), None);
            }
            Command::Refuse { id: inbound, reason } => self.reply(id, inbound, Err(reason), None),
            Command::Serve { id: inbound, plan, deadline } => {
                let parts = self.nodes[id.0].store.serve(&plan);
                self.reply(id, inbound, parts, Some(deadline));
            }
            Command::Disconnect { peer, offence, ban: _ } => {
                let other = self.node_of(peer);
                let honest = other.is_some_and(|other| !self.nodes[other.0].hostile);
                if honest && let Some(oracle) = self.judge(id) {
                    oracle.blamed_honest(id.0, offence);
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

    fn announced(&mut self, id: NodeId, index: soma_sync_core::types::CommitIndex) {
        let node = &self.nodes[id.0];
        if let Some(oracle) = self.oracle.as_mut().filter(|_| !node.hostile) {
            oracle.announced(id.0, index, &node.store);
        }
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
        node.asked.insert(request_id, Asked { to, kind });
        let in_flight = node.in_flight(to);
        if let Some(oracle) = self.oracle.as_mut().filter(|_| !node.hostile) {
            oracle.in_flight(id.0, in_flight, &node.config);
        }
        self.send_request(id, to, request_id, request);
    }

    fn store_batch(&mut self, id: NodeId, batch: Arc<Batch>) {
        let now = self.now;
        let node = &mut self.nodes[id.0];
        node.store_busy = node.store_busy.max(now).saturating_add(node.store_time);
        let (at, life) = (node.store_busy, node.life);
        if node.store_fails {
            let failed = Event::StoreFailed { from: batch.id };
            return self.schedule_at(at, Occurrence::Event { node: id, life, event: failed });
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
            let status = node.machine.status();
            oracle.stored(id.0, batch, &node.store);
            oracle.within_budget(id.0, status.buffered_bytes_peak, node.config.max_buffered_bytes);
        }
    }

    /// Opens a store that failed again, after what is still on its way from the store as it was.
    pub(super) fn reopen_store(&mut self, id: NodeId) {
        let at = self.nodes[id.0].store_busy.max(self.now);
        let life = self.nodes[id.0].life;
        let mut after = self.nodes[id.0].store.clone();
        for batch in &self.nodes[id.0].storing {
            after.apply(batch);
        }
        let event = Event::StoreReopened { start: Box::new(after.start()) };
        self.schedule_at(at, Occurrence::Event { node: id, life, event });
    }
}
