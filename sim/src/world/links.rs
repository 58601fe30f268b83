//! Links: how long what one node sends to another takes, and what of it is lost.

use super::{NodeId, Pace};
use blake2::{Blake2b256, Digest};
use soma_sync_core::Timestamp;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

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

/// What is drawn.
#[derive(Clone, Copy, Debug)]
enum Site {
    Jitter,
    Loss,
    LostAfter,
}

/// All links that are not as the world's pace says, and how far each pipe is taken.
#[derive(Debug)]
pub(super) struct Links {
    usual: Link,
    seed: u64,
    links: BTreeMap<(NodeId, NodeId), Link>,
    /// Directions in which nothing arrives.
    blocked: BTreeSet<(NodeId, NodeId)>,
    /// Until when a direction is busy with what was sent before.
    busy: BTreeMap<(NodeId, NodeId), Timestamp>,
    /// Draws made for a direction.
    drawn: BTreeMap<(NodeId, NodeId), u64>,
}

impl Links {
    pub(super) fn new(usual: Link, seed: u64) -> Self {
        Self {
            usual,
            seed,
            links: BTreeMap::new(),
            blocked: BTreeSet::new(),
            busy: BTreeMap::new(),
            drawn: BTreeMap::new(),
        }
    }

    pub(super) fn set(&mut self, from: NodeId, to: NodeId, link: Link) {
        self.links.insert((from, to), link);
    }

    fn get(&self, from: NodeId, to: NodeId) -> Link {
        self.links.get(&(from, to)).copied().unwrap_or(self.usual)
    }

    pub(super) fn block(&mut self, from: NodeId, to: NodeId, blocked: bool) {
        if blocked {
            self.blocked.insert((from, to));
        } else {
            self.blocked.remove(&(from, to));
        }
    }

    pub(super) fn is_blocked(&self, from: NodeId, to: NodeId) -> bool {
        self.blocked.contains(&(from, to))
    }

    /// A number drawn from the seed, what it is for, the direction, and how many were drawn for it before.
    fn draw(&mut self, site: Site, from: NodeId, to: NodeId) -> u64 {
        let count = self.drawn.entry((from, to)).or_default();
        *count += 1;
        let mut hasher = Blake2b256::new_with_prefix(b"soma-sync links 1");
        for word in [self.seed, site as u64, from.0 as u64, to.0 as u64, *count] {
            hasher.update(word.to_le_bytes());
        }
        let hash: [u8; 32] = hasher.finalize().into();
        let mut word = [0; 8];
        word.copy_from_slice(&hash[..8]);
        u64::from_le_bytes(word)
    }

    /// How long a message that is sent now is on its way, its bytes aside.
    pub(super) fn delay(&mut self, from: NodeId, to: NodeId) -> Duration {
        let Link { latency, jitter, .. } = self.get(from, to);
        if jitter.is_zero() {
            return latency;
        }
        let most = jitter.as_micros() as u64 + 1;
        latency + Duration::from_micros(self.draw(Site::Jitter, from, to) % most)
    }

    /// Whether a stream is lost in this direction, and if so after how many of its `messages`.
    pub(super) fn loss(&mut self, from: NodeId, to: NodeId, messages: usize) -> Option<usize> {
        let loss = u64::from(self.get(from, to).loss_per_million);
        if loss == 0 || self.draw(Site::Loss, from, to) % 1_000_000 >= loss {
            return None;
        }
        Some((self.draw(Site::LostAfter, from, to) % (messages as u64 + 1)) as usize)
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
