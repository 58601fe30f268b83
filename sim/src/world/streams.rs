//! Answers on their way: a stream for each request, its messages sent one after the other as the link takes them.

use super::{NodeId, Occurrence, Reply, World};
use crate::fault::Fault;
use soma_sync_core::{
    Event, Timestamp,
    event::{InboundId, RequestId},
    request::{RefuseReason, Request, RequestFailure, ResponsePart},
};
use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

/// A stream by who asked, in which of its lives, and that node's id for its request.
pub(super) type StreamId = (NodeId, u32, RequestId);

/// How an answer ends; never where this is none.
type End = Option<Result<(), RequestFailure>>;

/// Requests that have arrived and have not been answered: at whom, and that node's id for it.
pub(super) type Unanswered = BTreeMap<StreamId, (NodeId, InboundId)>;

/// What is left to send of an answer.
pub(super) struct Stream {
    server: NodeId,
    /// The server's id for the request, where its machine waits for the end of the answer.
    inbound: Option<InboundId>,
    /// The messages, each after a pause.
    parts: VecDeque<(Duration, ResponsePart)>,
    end: End,
    /// When the last message arrives: the next one does not overtake it.
    arrival: Timestamp,
    begun: Timestamp,
    sent: u64,
}

impl Stream {
    /// Who sends it.
    pub(super) const fn server(&self) -> NodeId {
        self.server
    }
}

impl World {
    /// Sends a request on its way.
    pub(super) fn send_request(&mut self, from: NodeId, to: NodeId, id: RequestId, request: Request) {
        if !self.nodes[from.0].links.contains(&to) {
            return self.finish(Duration::ZERO, from, id, Err(RequestFailure::Disconnected));
        }
        let delay = self.delay(from, to);
        if self.stops(from, to) || self.vanishes(from, to) {
            return;
        }
        if self.is_lost(from, to, 0).is_some() {
            return self.finish(delay * 2, from, id, Err(RequestFailure::Reset));
        }
        self.perhaps_asks_again(from, to, delay, &request);
        let delay = delay + self.held_up(from, to);
        let stream = (from, self.nodes[from.0].life, id);
        self.schedule(delay, Occurrence::Request { stream, to, request });
    }

    /// How long a message that is sent now is on its way.
    fn delay(&mut self, from: NodeId, to: NodeId) -> Duration {
        if self.links.clogged_until(from, self.now).is_some() {
            self.hits.count(Fault::Clog);
        }
        self.links.delay(self.now, from, to)
    }

    /// Whether nothing arrives in this direction; counts it.
    fn stops(&self, from: NodeId, to: NodeId) -> bool {
        let fault = self.links.blocked(from, to);
        fault.into_iter().for_each(|fault| self.hits.count(fault));
        fault.is_some()
    }

    /// Whether a stream is lost, and if so after how many of its messages.
    fn is_lost(&mut self, from: NodeId, to: NodeId, messages: usize) -> Option<usize> {
        let after = self.links.loss(from, to, messages)?;
        if self.links.is_lossy(from, to) {
            self.hits.count(Fault::BurstLoss);
        }
        Some(after)
    }

    pub(super) fn deliver_request(&mut self, stream: StreamId, to: NodeId, request: Request) {
        let from = stream.0;
        if !self.nodes[to.0].links.contains(&from) {
            return;
        }
        let inbound = InboundId::new(self.next_inbound);
        self.next_inbound += 1;
        let peer = self.nodes[from.0].peer;
        self.nodes[to.0].inbound.insert(inbound, (stream, request.clone()));
        self.unanswered.insert(stream, (to, inbound));
        self.handle(to, Event::RequestReceived { id: inbound, peer, request: Ok(request) });
    }

    /// Begins to send an answer, as the node chooses to answer. `until` is when the server gives up, where its machine
    /// waits for the end.
    pub(super) fn reply(
        &mut self,
        server: NodeId,
        inbound: InboundId,
        answer: Result<Vec<ResponsePart>, RefuseReason>,
        until: Option<Timestamp>,
    ) {
        let node = &mut self.nodes[server.0];
        let Some((id, request)) = node.inbound.remove(&inbound) else { return };
        let client = id.0;
        self.unanswered.remove(&id);
        let node = &mut self.nodes[server.0];
        let reply = match answer {
            Ok(parts) => Reply::Parts(parts),
            Err(reason) => {
                node.traffic.refused += 1;
                Reply::Broken(Vec::new(), RequestFailure::Refused(reason))
            }
        };
        let reply = match &mut node.tamper {
            Some(tamper) => tamper(&request, reply),
            None => reply,
        };
        let (mut parts, mut end) = reply.into_parts();
        if let Some(after) = self.is_lost(server, client, parts.len()) {
            parts.truncate(after);
            end = Some(Err(RequestFailure::Reset));
        }
        if let Some((after, fault)) = self.breaks_off(server, client, parts.len()) {
            parts.truncate(after);
            end = (fault == Fault::Reset).then_some(Err(RequestFailure::Reset));
        }
        let first = parts.front().map_or(Duration::ZERO, |(pause, _)| *pause);
        let inbound = until.is_some().then_some(inbound);
        let stream = Stream { server, inbound, parts, end, arrival: self.now, begun: self.now, sent: 0 };
        self.streams.insert(id, stream);
        if let Some(until) = until {
            self.schedule_at(until, Occurrence::GiveUp { stream: id });
        }
        self.schedule(first, Occurrence::Send { stream: id });
    }

    /// Sends the next message of an answer, or ends it.
    pub(super) fn send_part(&mut self, id: StreamId) {
        let client = id.0;
        if !self.nodes[client.0].reads {
            return;
        }
        let Some(server) = self.streams.get(&id).map(Stream::server) else { return };
        let delay = self.delay(server, client);
        if self.stops(server, client) {
            return self.served(id);
        }
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let Some((_, part)) = stream.parts.pop_front() else {
            let arrival = self.now.saturating_add(delay).max(stream.arrival);
            if let Some(result) = stream.end {
                self.schedule_at(arrival, Occurrence::End { stream: id, result });
            }
            return self.served(id);
        };
        let bytes = bytes_of(&part);
        let out = self.links.transmit(self.now, server, client, bytes.max(64));
        stream.arrival = out.saturating_add(delay).max(stream.arrival);
        stream.sent += bytes;
        let (arrival, pause) = (stream.arrival, stream.parts.front().map_or(Duration::ZERO, |next| next.0));
        self.nodes[server.0].traffic.served_bytes += bytes;
        self.schedule_at(arrival, Occurrence::Part { stream: id, part });
        self.schedule_at(out.saturating_add(pause), Occurrence::Send { stream: id });
    }

    pub(super) fn part_arrives(&mut self, (client, life, id): StreamId, part: ResponsePart) {
        let node = &mut self.nodes[client.0];
        let bytes = bytes_of(&part);
        node.traffic.fetched_bytes += bytes;
        if node.life == life && node.asked.contains_key(&id) {
            // One that is told of the time late may give up the request before it looks at the answer.
            let local = self.local(client);
            let overdue = self.nodes[client.0].machine.poll_timeout().is_some_and(|at| at <= local);
            let wrong = self.inspect(client, id, &part).filter(|_| !overdue);
            let event = Event::ResponsePart { id, part };
            self.perhaps_again(client, &event);
            self.handle(client, event);
            if let Some(senders) = wrong {
                self.must_charge(client, &senders);
            }
        } else {
            node.traffic.late_bytes += bytes;
        }
    }

    pub(super) fn end_arrives(&mut self, (client, life, id): StreamId, result: Result<(), RequestFailure>) {
        if self.nodes[client.0].life == life && self.nodes[client.0].asked.remove(&id).is_some() {
            let event = Event::RequestFinished { id, result };
            self.perhaps_again(client, &event);
            self.handle(client, event);
        }
    }

    /// Ends a request after a while, without anything having travelled.
    fn finish(&mut self, after: Duration, node: NodeId, id: RequestId, result: Result<(), RequestFailure>) {
        let stream = (node, self.nodes[node.0].life, id);
        self.schedule(after, Occurrence::End { stream, result });
    }

    /// The one who asked has given up: what has not been sent will not be.
    pub(super) fn cancel_request(&mut self, client: NodeId, id: RequestId) {
        let node = &mut self.nodes[client.0];
        if let Some(asked) = node.asked.remove(&id) {
            node.traffic.cancelled += 1;
            let delay = self.delay(client, asked.to);
            let stream = (client, self.nodes[client.0].life, id);
            self.schedule(delay, Occurrence::GiveUp { stream });
        }
    }

    /// A stream is reset, whoever gave it up. A request that has not been answered yet is withdrawn.
    pub(super) fn give_up(&mut self, id: StreamId) {
        if let Some((server, inbound)) = self.unanswered.remove(&id)
            && self.nodes[server.0].inbound.remove(&inbound).is_some()
        {
            self.schedule_event(
                Duration::ZERO,
                server,
                Event::Served { id: inbound, bytes: 0, waited: Duration::ZERO },
            );
        }
        if let Some(stream) = self.streams.get(&id) {
            let server = stream.server;
            let delay = self.delay(server, id.0);
            let reset = Occurrence::End { stream: id, result: Err(RequestFailure::Reset) };
            self.schedule(delay, reset);
            self.served(id);
        }
    }

    /// An answer is sent as far as it will be.
    fn served(&mut self, id: StreamId) {
        let Some(Stream { server, inbound, sent, begun, .. }) = self.streams.remove(&id) else { return };
        if let Some(id) = inbound {
            // Reading from storage takes no time here.
            let waited = self.now.saturating_since(begun);
            self.schedule_event(Duration::ZERO, server, Event::Served { id, bytes: sent, waited });
        }
    }

    /// Drops the answers between two nodes.
    pub(super) fn drop_streams(&mut self, a: NodeId, b: NodeId) {
        let between = |(id, stream): (&StreamId, &Stream)| {
            let ends = (id.0, stream.server);
            (ends == (a, b) || ends == (b, a)).then_some(*id)
        };
        let ids: Vec<_> = self.streams.iter().filter_map(between).collect();
        for id in ids {
            self.served(id);
        }
    }
}

impl Reply {
    /// The messages, each after a pause, and how the answer ends.
    fn into_parts(self) -> (VecDeque<(Duration, ResponsePart)>, End) {
        let at_once =
            |parts: Vec<ResponsePart>| parts.into_iter().map(|part| (Duration::ZERO, part)).collect();
        match self {
            Self::Parts(parts) => (at_once(parts), Some(Ok(()))),
            Self::Stuck(parts) => (at_once(parts), None),
            Self::Broken(parts, failure) => (at_once(parts), Some(Err(failure))),
            Self::Paced(parts) => (parts.into(), Some(Ok(()))),
        }
    }
}

/// Bytes of a message that carries commits or blocks, as it travels.
fn bytes_of(part: &ResponsePart) -> u64 {
    match part {
        ResponsePart::Commits { buffer_bytes, .. } | ResponsePart::Blocks { buffer_bytes, .. } => {
            *buffer_bytes
        }
        ResponsePart::CommitInfo { .. } | ResponsePart::Availability { .. } | ResponsePart::Push { .. } => 0,
    }
}
