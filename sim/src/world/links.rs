//! Links: how long what one node sends to another takes, and what of it is lost.

use super::NodeId;
use crate::{draw::Draws, fault::Fault};
use soma_sync_core::Timestamp;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// How fast things happen where nothing else is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// From one node to another, one way.
    pub latency: Duration,
    /// Bytes per second that answers of one node to another travel with.
    pub bandwidth: u64,
    /// One verification job.
    pub job: Duration,
    /// One batch.
    pub store: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            latency: Duration::from_millis(10),
            bandwidth: 100_000_000,
            job: Duration::from_millis(1),
            store: Duration::from_millis(2),
        }
    }
}

/// One direction of the link between two nodes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// One way.
    pub latency: Duration,
    /// What may come on top of the latency, drawn for each message.
    pub jitter: Duration,
    /// Bytes per second of all answers together; they share it message by message.
    pub bandwidth: u64,
    /// Streams lost, in a million: the one who asked sees a reset, with the answer perhaps begun.
    pub loss_per_million: u32,
}

impl From<Pace> for Link {
    fn from(pace: Pace) -> Self {
        let Pace { latency, bandwidth, job: _, store: _ } = pace;
        Self { latency, jitter: Duration::ZERO, bandwidth, loss_per_million: 0 }
    }
}

/// All links that are not as the world's pace says, and how far each pipe is taken.
#[derive(Debug)]
pub(super) struct Links {
    usual: Link,
    draws: Draws,
    links: BTreeMap<(NodeId, NodeId), Link>,
    /// Directions in which nothing arrives, and by which fault.
    blocked: BTreeMap<(NodeId, NodeId), Fault>,
    /// Until when a direction is busy with what was sent before.
    busy: BTreeMap<(NodeId, NodeId), Timestamp>,
    /// Nodes whose streams are all lost.
    lossy: BTreeSet<NodeId>,
    /// Until when what a node sends is held up.
    clogged: BTreeMap<NodeId, Timestamp>,
    /// Draws made for a direction, by what for.
    drawn: BTreeMap<(&'static str, NodeId, NodeId), u64>,
}

impl Links {
    pub(super) fn new(usual: Link, seed: u64) -> Self {
        Self {
            usual,
            draws: Draws::new(seed),
            links: BTreeMap::new(),
            blocked: BTreeMap::new(),
            busy: BTreeMap::new(),
            lossy: BTreeSet::new(),
            clogged: BTreeMap::new(),
            drawn: BTreeMap::new(),
        }
    }

    pub(super) fn set(&mut self, from: NodeId, to: NodeId, link: Link) {
        self.links.insert((from, to), link);
    }

    fn get(&self, from: NodeId, to: NodeId) -> Link {
        self.links.get(&(from, to)).copied().unwrap_or(self.usual)
    }

    pub(super) fn block(&mut self, from: NodeId, to: NodeId, fault: Option<Fault>) {
        match fault {
            Some(fault) => self.blocked.insert((from, to), fault),
            None => self.blocked.remove(&(from, to)),
        };
    }

    /// By which fault nothing arrives in this direction, if so.
    pub(super) fn blocked(&self, from: NodeId, to: NodeId) -> Option<Fault> {
        self.blocked.get(&(from, to)).copied()
    }

    /// Has all streams of a node lost, or ends that.
    pub(super) fn set_lossy(&mut self, node: NodeId, lossy: bool) {
        if lossy {
            self.lossy.insert(node);
        } else {
            self.lossy.remove(&node);
        }
    }

    /// Whether streams between these are lost whatever the links are like.
    pub(super) fn is_lossy(&self, a: NodeId, b: NodeId) -> bool {
        self.lossy.contains(&a) || self.lossy.contains(&b)
    }

    /// Holds up what a node sends until then.
    pub(super) fn clog(&mut self, node: NodeId, until: Timestamp) {
        self.clogged.insert(node, until);
    }

    /// Until when what a node sends is held up, if it is.
    pub(super) fn clogged_until(&self, node: NodeId, now: Timestamp) -> Option<Timestamp> {
        self.clogged.get(&node).copied().filter(|until| *until > now)
    }

    /// A number drawn for a direction, by what for and how many were drawn for it before.
    fn draw(&mut self, site: &'static str, from: NodeId, to: NodeId) -> u64 {
        let count = self.drawn.entry((site, from, to)).or_default();
        *count += 1;
        self.draws.draw(site, [from.0 as u64, to.0 as u64], *count)
    }

    /// How long a message that is sent now is on its way, its bytes aside.
    pub(super) fn delay(&mut self, now: Timestamp, from: NodeId, to: NodeId) -> Duration {
        let Link { latency, jitter, .. } = self.get(from, to);
        let held = self.clogged_until(from, now).map_or(Duration::ZERO, |until| until.saturating_since(now));
        if jitter.is_zero() {
            return latency + held;
        }
        let most = jitter.as_micros() as u64 + 1;
        latency + held + Duration::from_micros(self.draw("jitter", from, to) % most)
    }

    /// Whether a stream is lost in this direction, and if so after how many of its `messages`.
    pub(super) fn loss(&mut self, from: NodeId, to: NodeId, messages: usize) -> Option<usize> {
        let loss = u64::from(self.get(from, to).loss_per_million);
        let lost = loss > 0 && self.draw("loss", from, to) % 1_000_000 < loss;
        if !lost && !self.is_lossy(from, to) {
            return None;
        }
        Some((self.draw("lost after", from, to) % (messages as u64 + 1)) as usize)
    }

    /// Puts bytes into the pipe; when the last of them is in it.
    pub(super) fn transmit(&mut self, now: Timestamp, from: NodeId, to: NodeId, bytes: u64) -> Timestamp {
        let bandwidth = self.get(from, to).bandwidth.max(1);
        let busy = self.busy.entry((from, to)).or_default();
        let takes = Duration::from_micros(bytes.saturating_mul(1_000_000) / bandwidth);
        *busy = now.max(*busy).saturating_add(takes);
        *busy
    }
}
