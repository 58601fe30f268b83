//! Whose turn it is to be served, beside a plain model: turns that come one by one.
#![allow(clippy::arithmetic_side_effects, reason = "a model that overflows fails its test")]

use super::*;
use crate::{
    rng::Rng,
    types::{CommitIndex, CommitRange},
};
use alloc::collections::BTreeMap;

const PEERS: u64 = 5;
const SLOTS_PER_PEER: u32 = 2;

/// A peer's requests that wait, each with what it may cost; those being served; and its credit.
#[derive(Default)]
struct Known {
    queue: VecDeque<(InboundId, u64)>,
    serving: usize,
    credit: u64,
}

struct Model {
    turn: u64,
    slots: usize,
    /// Peers with requests that wait; the first one's turn it is.
    turns: VecDeque<PeerId>,
    peers: BTreeMap<PeerId, Known>,
    serving: BTreeMap<InboundId, (PeerId, u64)>,
}

impl Model {
    fn first(&mut self) -> Option<&mut Known> {
        self.turns.front().and_then(|peer| self.peers.get_mut(peer))
    }

    /// A turn begins: it brings credit to who has too little.
    fn begin_turn(&mut self) {
        let turn = self.turn;
        if let Some(known) = self.first()
            && known.queue[0].1 > known.credit
        {
            known.credit += turn;
        }
    }

    fn ask(&mut self, peer: PeerId, id: InboundId, cost: u64) {
        let known = self.peers.entry(peer).or_default();
        known.queue.push_back((id, cost));
        if known.queue.len() == 1 {
            self.turns.push_back(peer);
            if self.turns.len() == 1 {
                self.begin_turn();
            }
        }
    }

    /// Turn by turn, until it is that of one who has credit for its next request, and a slot.
    fn begin(&mut self) -> Option<InboundId> {
        let (turn, free) = (self.turn, self.slots - self.serving.len());
        let per_peer = usize::try_from(SLOTS_PER_PEER).unwrap().min(free);
        self.peers.values().find(|known| !known.queue.is_empty() && known.serving < per_peer)?;
        loop {
            let peer = *self.turns.front()?;
            let known = self.peers.get_mut(&peer)?;
            let (id, cost) = known.queue[0];
            if known.serving < per_peer && cost <= known.credit {
                known.queue.pop_front();
                known.credit -= cost;
                known.serving += 1;
                self.serving.insert(id, (peer, cost));
                if known.queue.is_empty() {
                    known.credit = 0;
                    self.turns.pop_front();
                    self.begin_turn();
                }
                return Some(id);
            }
            self.turns.rotate_left(1);
            let next = self.first()?;
            // Who has as many slots as it may have gets no credit for turns that it cannot use.
            if next.serving < per_peer {
                next.credit += turn;
            }
        }
    }

    /// What an answer did not need of what it might have had comes back, while there is more to be served.
    fn finish(&mut self, id: InboundId, bytes: u64) {
        let (peer, cost) = self.serving.remove(&id).unwrap();
        let known = self.peers.get_mut(&peer).unwrap();
        known.serving -= 1;
        let back = cost - bytes.clamp(LEAST_COST, cost);
        if !known.queue.is_empty() {
            known.credit = known.credit.max((known.credit + back).min(self.turn * TURNS_SAVED));
        }
    }

    fn withdraw(&mut self, peer: PeerId, which: impl Fn(InboundId) -> bool) {
        let Some(known) = self.peers.get_mut(&peer) else { return };
        known.queue.retain(|(id, _)| !which(*id));
        if known.queue.is_empty() && self.turns.contains(&peer) {
            known.credit = 0;
            let was_first = self.turns[0] == peer;
            self.turns.retain(|other| *other != peer);
            if was_first {
                self.begin_turn();
            }
        }
    }
}

/// Plays a number of steps with so many slots, answers of up to so many turns, and each peer asking as it pleases.
fn play(max_serving: u32, turns: u64, seed: u8) {
    let config = Config { max_serving, max_serving_per_peer: SLOTS_PER_PEER, ..Config::default() };
    let turn = config.answer_bytes();
    let mut serve = Serve::new(&config);
    let slots = usize::try_from(max_serving).unwrap();
    let mut model =
        Model { turn, slots, turns: VecDeque::new(), peers: BTreeMap::new(), serving: BTreeMap::new() };
    let mut rng = Rng::new([seed; 32]);
    let mut now = Timestamp::ZERO;
    for step in 1..4_000 {
        now = now.saturating_add(Duration::from_secs(1));
        let id = InboundId::new(step);
        let peer = PeerId::new([u8::try_from(rng.below(PEERS)).unwrap(); 32]);
        match rng.below(16) {
            0..8 => {
                let start = CommitIndex::new(u32::try_from(step).unwrap());
                let max_bytes = rng.below(turn * turns);
                let range = CommitRange::single(start);
                let plan = ServePlan::Commits { range, last: start, max_bytes, with_blocks: false };
                if serve.admit(id, peer, plan, now).is_ok() {
                    model.ask(peer, id, max_bytes.max(LEAST_COST));
                }
            }
            8..15 => {
                let at = usize::try_from(rng.below(max_serving.into())).unwrap();
                let Some(id) = model.serving.keys().nth(at).copied() else { continue };
                let bytes = rng.below(turn * turns);
                serve.finished(id, bytes, Duration::ZERO, now);
                model.finish(id, bytes);
            }
            _ if rng.below(2) == 0 => {
                serve.gone(peer);
                model.withdraw(peer, |_| true);
            }
            _ => {
                let Some((id, _)) = model.peers.get(&peer).and_then(|known| known.queue.back()).copied()
                else {
                    continue;
                };
                serve.finished(id, 0, Duration::ZERO, now);
                model.withdraw(peer, |other| other == id);
            }
        }
        loop {
            let begun = serve.begin(now).map(|begun| begun.id);
            assert_eq!(begun, model.begin(), "slots {max_serving}, turns {turns}, seed {seed}, step {step}");
            if begun.is_none() {
                break;
            }
        }
    }
}

#[test]
fn turns_come_in_another_order_than_one_by_one() {
    for seed in 0..4 {
        for (max_serving, turns) in [(1, 1), (1, 20), (2, 3), (3, 1), (3, 8), (9, 4)] {
            play(max_serving, turns, seed);
        }
    }
}
