//! What befalls messages on their way, each with a rate.

use super::{NodeId, Occurrence, World};
use crate::{draw::Draws, fault::Fault};
use soma_sync_core::{Event, event::RequestId, request::Request};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// How often, in a million, what befalls messages: loss, duplicates, replays, reordering, resets, truncation and the
/// death of workers. The default is never.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trouble(BTreeMap<Fault, u32>);

impl Trouble {
    /// Sets how often, in a million.
    pub fn set(&mut self, fault: Fault, per_million: u32) {
        self.0.insert(fault, per_million);
    }

    fn rate(&self, fault: Fault) -> u32 {
        self.0.get(&fault).copied().unwrap_or_default()
    }
}

/// The troubles of a world, and who is spared.
#[derive(Debug)]
pub(super) struct Troubles {
    draws: Draws,
    rates: Trouble,
    spared: BTreeSet<NodeId>,
    drawn: BTreeMap<(Fault, NodeId, NodeId), u64>,
}

impl Troubles {
    pub(super) fn new(draws: Draws) -> Self {
        Self { draws, rates: Trouble::default(), spared: BTreeSet::new(), drawn: BTreeMap::new() }
    }

    /// Whether a fault befalls this message from one node to another, or this affair of a node's own; a number drawn for
    /// how.
    fn befalls(&mut self, fault: Fault, from: NodeId, to: NodeId) -> Option<u64> {
        let rate = self.rates.rate(fault);
        if rate == 0 || self.spared.contains(&from) && self.spared.contains(&to) {
            return None;
        }
        let nth = self.drawn.entry((fault, from, to)).or_default();
        *nth += 1;
        let about = [from.0 as u64, to.0 as u64];
        let befalls = self.draws.happens(fault.name(), about, *nth, rate);
        befalls.then(|| self.draws.draw("how", [about[0] << 32 | about[1], fault as u64], *nth))
    }
}

/// A time between two numbers of milliseconds.
const fn millis(drawn: u64, low: u64, high: u64) -> Duration {
    Duration::from_micros(low * 1_000 + drawn % ((high - low) * 1_000 + 1))
}

impl World {
    /// Sets how often what befalls messages.
    pub fn set_trouble(&mut self, rates: Trouble) {
        self.troubles.rates = rates;
    }

    /// Spares a node: no trouble befalls what is between it and others who are spared, nor what is its own.
    pub fn spare(&mut self, node: NodeId) {
        self.troubles.spared.insert(node);
    }

    fn befalls(&mut self, fault: Fault, from: NodeId, to: NodeId) -> Option<u64> {
        let drawn = self.troubles.befalls(fault, from, to)?;
        self.hits.count(fault);
        Some(drawn)
    }

    /// Whether a request vanishes.
    pub(super) fn vanishes(&mut self, from: NodeId, to: NodeId) -> bool {
        self.befalls(Fault::Loss, from, to).is_some()
    }

    /// Whether the worker dies over a job of a node.
    pub(super) fn worker_dies(&mut self, node: NodeId) -> bool {
        self.befalls(Fault::WorkerDeath, node, node).is_some()
    }

    /// For how long a request is held up beyond its delay.
    pub(super) fn held_up(&mut self, from: NodeId, to: NodeId) -> Duration {
        self.befalls(Fault::Reorder, from, to).map_or(Duration::ZERO, |drawn| millis(drawn, 1, 500))
    }

    /// Has a request arrive a second time, perhaps; nobody waits for that answer.
    pub(super) fn perhaps_asks_again(
        &mut self,
        from: NodeId,
        to: NodeId,
        delay: Duration,
        request: &Request,
    ) {
        let Some(drawn) = self.befalls(Fault::Duplicate, from, to) else { return };
        let id = RequestId::new(self.next_own);
        self.next_own += 1;
        let request = request.clone();
        let stream = (from, self.nodes[from.0].life, id);
        self.schedule(delay + millis(drawn, 0, 2_000), Occurrence::Request { stream, to, request });
    }

    /// After how many of its messages an answer is reset, or stops without an end; if so.
    pub(super) fn breaks_off(&mut self, from: NodeId, to: NodeId, messages: usize) -> Option<(usize, Fault)> {
        let after = |drawn: u64| (drawn % messages.max(1) as u64) as usize;
        if let Some(drawn) = self.befalls(Fault::Reset, from, to) {
            return Some((after(drawn), Fault::Reset));
        }
        let drawn = self.befalls(Fault::Truncate, from, to)?;
        Some((after(drawn), Fault::Truncate))
    }

    /// Has an event that a node is handed come once more, soon or when all is over; perhaps. Only what may come late and
    /// unasked for: completions, and messages of answers.
    pub(super) fn perhaps_again(&mut self, node: NodeId, event: &Event) {
        let repeatable = match event {
            Event::Verified { .. }
            | Event::Stored { .. }
            | Event::Broadcasted { .. }
            | Event::Served { .. }
            | Event::ResponsePart { .. }
            | Event::RequestFinished { .. } => true,
            Event::Tick
            | Event::CommitObserved { .. }
            | Event::VotesObserved { .. }
            | Event::CommitteeKnown { .. }
            | Event::PeerConnected { .. }
            | Event::PeerDisconnected { .. }
            | Event::RequestReceived { .. }
            | Event::StoreFailed { .. }
            | Event::StoreReopened { .. }
            | Event::Pruned { .. } => false,
        };
        if !repeatable {
            return;
        }
        let life = self.nodes[node.0].life;
        for (fault, low, high) in [(Fault::Duplicate, 0, 2_000), (Fault::Replay, 2_000, 20_000)] {
            // Counted when it comes, not when it is drawn.
            if let Some(drawn) = self.troubles.befalls(fault, node, node) {
                let again = Occurrence::Again { node, life, event: event.clone(), fault };
                self.schedule(millis(drawn, low, high), again);
            }
        }
    }

    /// Something comes once more. What is still waited for may not: no transport delivers a part twice.
    pub(super) fn comes_again(&mut self, node: NodeId, life: u32, event: Event, fault: Fault) {
        let open = if let Event::ResponsePart { id, .. } | Event::RequestFinished { id, .. } = &event {
            self.nodes[node.0].asked.contains_key(id)
        } else {
            false
        };
        if !open && self.nodes[node.0].life == life {
            self.hits.count(fault);
            self.handle(node, event);
        }
    }
}
