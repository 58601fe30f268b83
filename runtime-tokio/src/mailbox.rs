//! What the driver is told, through bounded channels.
//!
//! Whoever sends waits for room; the driver itself never waits for anybody who could be waiting here. What it has for
//! others goes through channels that have room by construction, or replaces what was there before.

use crate::node::NodeStatus;
use soma_sync_core::{
    command::ServePlan,
    event::{Event, InboundId},
    explain::Explanation,
    request::{RefuseReason, Request, ResponsePart},
    types::{CommitIndex, PeerId},
};
use std::{io, net::SocketAddr};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

/// Sends to the driver.
pub(crate) type Mailbox = mpsc::Sender<Input>;

/// Something that the driver is told.
pub(crate) enum Input {
    /// For the machine.
    Event(Event),
    /// A connection is closed.
    Lost { peer: PeerId, generation: u64 },
    /// A peer asks us something; the answer goes to `reply`.
    Asked {
        id: InboundId,
        peer: PeerId,
        generation: u64,
        request: Result<Request, RefuseReason>,
        reply: oneshot::Sender<Reply>,
    },
    /// A peer has gone away from a request that may not have been answered yet.
    Withdrawn(InboundId),
    /// A further peer to dial; whether it is one is told.
    AddPeer { peer: PeerId, address: SocketAddr, added: oneshot::Sender<bool> },
    /// Somebody wants to know how things are.
    Status(oneshot::Sender<NodeStatus>),
    /// Somebody wants what a recording holds in memory to be written; `None` where it holds nothing.
    WriteTrace(oneshot::Sender<Option<io::Result<()>>>),
    /// Somebody wants to know why a commit is where it is.
    Explain { index: CommitIndex, reply: oneshot::Sender<Explanation> },
}

/// A connection that stands, whoever dialled. These come through a channel of their own, because of their type.
pub(crate) struct Arrival<C> {
    pub(crate) connection: C,
    /// For one that we dialled: resolves when the connection is in use or closed.
    pub(crate) decided: Option<oneshot::Sender<()>>,
}

/// How a request of a peer's is answered.
pub(crate) enum Reply {
    /// With one message.
    Respond(ResponsePart),
    /// Not.
    Refuse(RefuseReason),
    /// From storage, until the deadline.
    Serve { id: InboundId, plan: ServePlan, deadline: Instant },
}
