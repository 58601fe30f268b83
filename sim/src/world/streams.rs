//! Answers on their way: a stream for each request, its messages sent one after the other as the link takes them.

use super::{NodeId, Occurrence, Reply, World};
use soma_sync_core::{
    Event, Timestamp,
    event::{InboundId, RequestId},
    request::{RefuseReason, Request, RequestFailure, ResponsePart},
};
use std::{collections::VecDeque, time::Duration};

/// A stream by who asked, and that node's id for its request.
pub(super) type StreamId = (NodeId, RequestId);

/// How an answer ends; never where this is none.
type End = Option<Result<(), RequestFailure>>;

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
    sent: u64,
}

impl World {
    /// Sends a request on its way.
    pub(super) fn send_request(&mut self, from: NodeId, to: NodeId, id: RequestId, request: Request) {
        if !self.nodes[from.0].links.contains(&to) {
            return self.finish(Duration::ZERO, from, id, Err(RequestFailure::Disconnected));
        }
        let delay = self.links.delay(from, to);
        if self.links.is_blocked(from, to) {
            return;
        }
        if self.links.loss(from, to, 0).is_some() {
            return self.finish(delay * 2, from, id, Err(RequestFailure::Reset));
        }
        self.schedule(delay, Occurrence::Request { from, to, id, request });
    }

    pub(super) fn deliver_request(&mut self, from: NodeId, to: NodeId, id: RequestId, request: Request) {
        if !self.nodes[to.0].links.contains(&from) {
            return;
        }
        let inbound = InboundId::new(self.next_inbound);
        self.next_inbound += 1;
        let peer = self.nodes[from.0].peer;
        self.nodes[to.0].inbound.insert(inbound, (from, id, request.clone()));
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
        let Some((client, id, request)) = node.inbound.remove(&inbound) else {
            // Whoever asked is gone: the slot that is kept for it is free again.
            if until.is_some() {
                self.schedule_event(Duration::ZERO, server, Event::Served { id: inbound, bytes: 0 });
            }
            return;
        };
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
        if let Some(after) = self.links.loss(server, client, parts.len()) {
            parts.truncate(after);
            end = Some(Err(RequestFailure::Reset));
        }
        let first = parts.front().map_or(Duration::ZERO, |(pause, _)| *pause);
        let inbound = until.is_some().then_some(inbound);
        let stream = Stream { server, inbound, parts, end, arrival: self.now, sent: 0 };
        self.streams.insert((client, id), stream);
        if let Some(until) = until {
            self.schedule_at(until, Occurrence::GiveUp { stream: (client, id) });
        }
        self.schedule(first, Occurrence::Send { stream: (client, id) });
    }

    /// Sends the next message of an answer, or ends it.
    pub(super) fn send_part(&mut self, id: StreamId) {
        let client = id.0;
        if !self.nodes[client.0].reads {
            return;
        }
        let Some(stream) = self.streams.get_mut(&id) else { return };
        let server = stream.server;
        let delay = self.links.delay(server, client);
        let Some((_, part)) = stream.parts.pop_front() else {
            let arrival = self.now.saturating_add(delay).max(stream.arrival);
            if let Some(result) = stream.end
                && !self.links.is_blocked(server, client)
            {
                self.schedule_at(arrival, Occurrence::End { stream: id, result });
            }
            return self.served(id);
        };
        if self.links.is_blocked(server, client) {
            return self.served(id);
        }
        let bytes = bytes_of(&part);
        let out = self.links.transmit(self.now, server, client, bytes.max(64));
        stream.arrival = out.saturating_add(delay).max(stream.arrival);
        stream.sent += bytes;
        let (arrival, pause) = (stream.arrival, stream.parts.front().map_or(Duration::ZERO, |next| next.0));
        self.nodes[server.0].traffic.served_bytes += bytes;
        self.schedule_at(arrival, Occurrence::Part { stream: id, part });
        self.schedule_at(out.saturating_add(pause), Occurrence::Send { stream: id });
    }

    pub(super) fn part_arrives(&mut self, (client, id): StreamId, part: ResponsePart) {
        let node = &mut self.nodes[client.0];
        let bytes = bytes_of(&part);
        node.traffic.fetched_bytes += bytes;
        if node.asked.contains_key(&id) {
            self.handle(client, Event::ResponsePart { id, part });
        } else {
            node.traffic.late_bytes += bytes;
        }
    }

    pub(super) fn end_arrives(&mut self, (client, id): StreamId, result: Result<(), RequestFailure>) {
        if self.nodes[client.0].asked.remove(&id).is_some() {
            self.handle(client, Event::RequestFinished { id, result });
        }
    }

    /// Ends a request after a while, without anything having travelled.
    fn finish(&mut self, after: Duration, node: NodeId, id: RequestId, result: Result<(), RequestFailure>) {
        self.schedule(after, Occurrence::End { stream: (node, id), result });
    }

    /// The one who asked has given up: what has not been sent will not be.
    pub(super) fn cancel_request(&mut self, client: NodeId, id: RequestId) {
        let node = &mut self.nodes[client.0];
        if let Some(asked) = node.asked.remove(&id) {
            node.traffic.cancelled += 1;
            let delay = self.links.delay(client, asked.to);
            self.schedule(delay, Occurrence::GiveUp { stream: (client, id) });
        }
    }

    /// A stream is reset, whoever gave it up. A request that has not been answered yet is withdrawn.
    pub(super) fn give_up(&mut self, id: StreamId) {
        let unanswered = self.nodes().find_map(|server| {
            let mut inbound = self.nodes[server.0].inbound.iter();
            let (inbound, _) = inbound.find(|(_, (client, request, _))| (*client, *request) == id)?;
            Some((server, *inbound))
        });
        if let Some((server, inbound)) = unanswered {
            self.nodes[server.0].inbound.remove(&inbound);
            self.schedule_event(Duration::ZERO, server, Event::Served { id: inbound, bytes: 0 });
        }
        if let Some(stream) = self.streams.get(&id) {
            let delay = self.links.delay(stream.server, id.0);
            self.finish(delay, id.0, id.1, Err(RequestFailure::Reset));
            self.served(id);
        }
    }

    /// An answer is sent as far as it will be.
    fn served(&mut self, id: StreamId) {
        let Some(Stream { server, inbound, sent, .. }) = self.streams.remove(&id) else { return };
        if let Some(inbound) = inbound {
            self.schedule_event(Duration::ZERO, server, Event::Served { id: inbound, bytes: sent });
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

    /// Loses all that was on its way of a node's requests, and of others' to it: in its next life it gives the same ids
    /// to other requests.
    pub(super) fn forget_requests_of(&mut self, node: NodeId) {
        self.queue.retain(|_, occurrence| match occurrence {
            Occurrence::Request { from, to, .. } => *from != node && *to != node,
            Occurrence::Send { stream }
            | Occurrence::Part { stream, .. }
            | Occurrence::End { stream, .. }
            | Occurrence::GiveUp { stream } => stream.0 != node,
            Occurrence::Event { .. }
            | Occurrence::Tick(_)
            | Occurrence::Stored { .. }
            | Occurrence::Act(_) => true,
        });
        for server in &mut self.nodes {
            server.inbound.retain(|_, (client, ..)| *client != node);
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
