//! Admission of what peers ask of us, before storage is touched (scheduling: Serving; threats: 17, 18, 27).
//!
//! A request passes three gates. Its peer may ask so often, and be sent so many bytes, in a second. It is not given
//! the same dear answer again and again. And it needs a slot, which it keeps until all is sent. Who leaves answers
//! unread is served one at a time for a while.
//!
//! Slots are shared out so that nobody's hunger is another's wait. A peer never holds more slots than are free: however
//! many are greedy, there is one for who comes next. Who gets none at once waits in a queue, and the queues take turns
//! by bytes (deficit round robin): each turn brings a credit of bytes, an answer costs as much credit as it may have
//! bytes, and what it did not need is given back when it is sent.
//!
//! Bounded: what is served by `max_serving`, what waits by `max_queued`, and records by the connected peers, those to
//! whom something is still being sent, and a thousand who read nothing.

mod bucket;
#[cfg(test)]
mod model;
mod recent;
mod unread;

#[cfg(feature = "trace")]
use crate::saved::{RestoreError, Restorer, Saved, Saver};
use crate::{
    bug::{Bug, has},
    command::ServePlan,
    config::Config,
    defence::{Defence, stands},
    event::InboundId,
    request::Request,
    time::Timestamp,
    types::PeerId,
};
use alloc::{
    collections::{BTreeMap, VecDeque},
    vec::Vec,
};
use bucket::Bucket;
use core::time::Duration;
use recent::{Answered, Recent};
use unread::Unread;

/// What an answer costs at least in credit, in bytes: looking it up is work, however little there is to send.
const LEAST_COST: u64 = 4 * 1024;
/// Bytes from which on an answer is dear: more than goes into one message. What is cheaper may be had again: an honest
/// peer asks anew for commits that run over the end of an epoch, until it knows the next committee.
const DEAR: u64 = 256 * 1024;
/// How many turns' credit a peer may save up.
const TURNS_SAVED: u64 = 4;

/// Peers' requests that are being served, or wait for it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Serve {
    limits: Limits,
    clients: BTreeMap<PeerId, Client>,
    serving: BTreeMap<InboundId, Serving>,
    /// Whose the requests are that wait.
    waiting: BTreeMap<InboundId, PeerId>,
    /// The peers that have requests waiting, the one whose turn it is first.
    turns: VecDeque<PeerId>,
    unread: Unread,
}

/// But for its limits, which the configuration says.
#[cfg(feature = "trace")]
impl Saved for Serve {
    fn save(&self, to: &mut Saver) {
        let Self { limits: _, clients, serving, waiting, turns, unread } = self;
        clients.save(to);
        serving.save(to);
        waiting.save(to);
        turns.save(to);
        unread.save(to);
    }
    fn restore(from: &mut Restorer<'_>) -> Result<Self, RestoreError> {
        let (clients, serving, waiting) = Saved::restore(from)?;
        let (turns, unread) = Saved::restore(from)?;
        Ok(Self { clients, serving, waiting, turns, unread, ..Self::new(from.config()) })
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Limits {
    slots: usize,
    slots_per_peer: usize,
    queue: usize,
    queue_per_peer: usize,
    data_requests: u64,
    small_requests: u64,
    bytes: u64,
    /// Credit that a turn brings: what an answer usually costs at most.
    turn: u64,
    timeout: Duration,
}

/// What is kept of a peer while it is connected, or something is being sent to it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Client {
    gone: bool,
    data_requests: Bucket,
    small_requests: Bucket,
    bytes: Bucket,
    recent: Recent,
    queue: VecDeque<Waiting>,
    serving: usize,
    /// Bytes that it may be sent in this turn.
    credit: u64,
}
saved! { struct Client { gone, data_requests, small_requests, bytes, recent, queue, serving, credit } }

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Waiting {
    id: InboundId,
    plan: ServePlan,
    answer: Option<Answered>,
}
saved! { struct Waiting { id, plan, answer } }

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Serving {
    peer: PeerId,
    /// The most that it may send.
    max_bytes: u64,
    answer: Option<Answered>,
    deadline: Timestamp,
}
saved! { struct Serving { peer, max_bytes, answer, deadline } }

/// Kinds of requests, each with its own rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// Commits and blocks.
    Data,
    /// What takes a message of a few bytes to answer.
    Small,
}

/// Why a request is not admitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Its peer asks more often, or for more bytes, than it may.
    Rate,
    /// Its peer was given the same dear answer, more than once, a short while ago, or is being given it.
    Repeated,
    /// As many are served and wait as may.
    Room,
    /// Its peer left answers unread, and is served one at a time for a while.
    Unread,
}

/// An answer whose turn it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Begun {
    pub(crate) id: InboundId,
    pub(crate) plan: ServePlan,
    /// When the reader's time is up.
    pub(crate) deadline: Timestamp,
}

/// What had become of a request that is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finished {
    /// It was being served.
    Served,
    /// It waited.
    Waited,
    /// It is not known.
    Unknown,
}

impl Kind {
    pub(crate) fn of(request: &Request) -> Self {
        match request {
            Request::Commits(_) | Request::Blocks(_) => Self::Data,
            Request::CommitInfo(_) | Request::Availability { .. } | Request::Push { .. } => Self::Small,
        }
    }
}

impl ServePlan {
    /// Most bytes that are sent for it; `None` where that is a message of a few bytes.
    fn max_bytes(&self) -> Option<u64> {
        match self {
            Self::CommitInfo { .. } => None,
            Self::Commits { max_bytes, .. } | Self::Blocks { max_bytes, .. } => Some(*max_bytes),
        }
    }
}

impl Waiting {
    /// Credit that it takes to begin it.
    fn cost(&self) -> u64 {
        self.plan.max_bytes().unwrap_or_default().max(LEAST_COST)
    }
}

impl Limits {
    fn new(config: &Config) -> Self {
        let count = |count: u32| usize::try_from(count).unwrap_or(usize::MAX);
        Self {
            slots: count(config.max_serving),
            slots_per_peer: count(config.max_serving_per_peer),
            queue: count(config.max_queued),
            queue_per_peer: count(config.max_queued_per_peer),
            data_requests: u64::from(config.max_data_requests_per_second),
            small_requests: u64::from(config.max_small_requests_per_second),
            bytes: config.max_served_bytes_per_second,
            turn: if stands(Defence::FairTurns) { config.answer_bytes() } else { u64::MAX },
            timeout: if stands(Defence::ServeDeadline) { config.serve_timeout } else { Duration::MAX },
        }
    }

    /// Whether a peer that holds `serving` slots may have one more, where so many are free.
    fn allow(&self, serving: usize, free: usize) -> bool {
        free > 0 && !stands(Defence::ServingPerPeer) || serving < self.slots_per_peer.min(free)
    }
}

impl Serve {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            limits: Limits::new(config),
            clients: BTreeMap::new(),
            serving: BTreeMap::new(),
            waiting: BTreeMap::new(),
            turns: VecDeque::new(),
            unread: Unread::default(),
        }
    }

    /// Counts a request of a connected peer, whatever it asks for.
    pub(crate) fn asked(&mut self, peer: PeerId, kind: Kind, now: Timestamp) -> Result<(), Refused> {
        let client = self.clients.entry(peer).or_default();
        client.gone = false;
        let (bucket, rate) = match kind {
            Kind::Data => (&mut client.data_requests, self.limits.data_requests),
            Kind::Small => (&mut client.small_requests, self.limits.small_requests),
        };
        if !bucket.has_room(rate, now) && stands(Defence::RequestRate) {
            return Err(Refused::Rate);
        }
        bucket.charge(1);
        Ok(())
    }

    /// Takes in a request of a connected peer that is to be answered like this. It is in the queue then, and
    /// [`begin`](Self::begin) says when it leaves it.
    pub(crate) fn admit(
        &mut self,
        id: InboundId,
        peer: PeerId,
        plan: ServePlan,
        now: Timestamp,
    ) -> Result<(), Refused> {
        let (free, known, queued) = (self.free(), self.contains(id), self.waiting.len());
        let client = self.clients.entry(peer).or_default();
        client.gone = false;
        let at_once = client.queue.is_empty() && self.limits.allow(client.serving, free);
        let room = client.queue.len() < self.limits.queue_per_peer && queued < self.limits.queue;
        if known || !at_once && !room {
            return Err(Refused::Room);
        }
        let busy = client.serving > 0 || !client.queue.is_empty();
        if busy && self.unread.rests(peer, now) && stands(Defence::UnreadAnswers) {
            return Err(Refused::Unread);
        }
        let answer = plan.max_bytes().map(|_| Answered::new(&plan, now));
        let repeated = answer.is_some_and(|answer| client.recent.is_repeated(answer));
        if repeated && stands(Defence::RepeatedAnswers) {
            return Err(Refused::Repeated);
        }
        if let Some(max_bytes) = plan.max_bytes() {
            if !client.bytes.has_room(self.limits.bytes, now) && stands(Defence::ServedRate) {
                return Err(Refused::Rate);
            }
            client.bytes.charge(max_bytes);
        }
        if let Some(answer) = answer {
            client.recent.remember(answer);
        }
        let joins = client.queue.is_empty();
        client.queue.push_back(Waiting { id, plan, answer });
        self.waiting.insert(id, peer);
        if joins {
            self.turns.push_back(peer);
            if self.turns.len() == 1 {
                self.next_turn();
            }
        }
        Ok(())
    }

    /// The next request to be served, if there is one and a slot for it.
    pub(crate) fn begin(&mut self, now: Timestamp) -> Option<Begun> {
        let peer = self.take_turn()?;
        let client = self.clients.get_mut(&peer)?;
        let Waiting { id, plan, answer } = client.queue.pop_front()?;
        let max_bytes = plan.max_bytes().unwrap_or_default();
        client.credit = client.credit.saturating_sub(max_bytes.max(LEAST_COST));
        client.serving = client.serving.saturating_add(1);
        if client.queue.is_empty() {
            client.credit = 0;
            self.turns.pop_front();
            self.next_turn();
        }
        self.waiting.remove(&id);
        let deadline = now.saturating_add(self.limits.timeout);
        self.serving.insert(id, Serving { peer, max_bytes, answer, deadline });
        Some(Begun { id, plan, deadline })
    }

    /// The turn of the one who is now the first begins.
    fn next_turn(&mut self) {
        let Some(client) = self.turns.front().and_then(|peer| self.clients.get_mut(peer)) else { return };
        // Who has enough already waits for a slot, not for a turn.
        if client.queue.front().is_some_and(|first| first.cost() > client.credit) {
            client.credit = client.credit.saturating_add(self.limits.turn);
        }
    }

    /// Finds the peer whose request is served next, puts it at the front, and gives the others the turns that they
    /// have had meanwhile.
    ///
    /// Whose turn it is goes on while its credit lasts; then the next one has its turn, which brings credit. What that
    /// comes to is computed at once, however many turns it takes.
    fn take_turn(&mut self) -> Option<PeerId> {
        let (free, turn) = (self.free(), self.limits.turn.max(1));
        if free == 0 {
            return None;
        }
        // The turns that each peer needs. The one whose turn it is may need none, and has its next after the others.
        let needed = |position: usize, client: &Client| {
            let cost = client.queue.front().map_or(0, Waiting::cost);
            let turns = cost.saturating_sub(client.credit).div_ceil(turn);
            match position {
                0 if turns > 0 => (turns, usize::MAX),
                0 => (0, 0),
                _ => (turns.max(1), position),
            }
        };
        let may_begin = |client: &Client| self.limits.allow(client.serving, free);
        let clients = self.turns.iter().enumerate().filter_map(|(position, peer)| {
            let client = self.clients.get(peer).filter(|client| may_begin(client))?;
            Some((needed(position, client), position))
        });
        // Most often it is the first one that can go on.
        let first = clients.clone().next().filter(|((turns, _), _)| *turns == 0);
        let ((turns, order), chosen) = first.or_else(|| clients.min())?;
        let limits = &self.limits;
        for (position, peer) in self.turns.iter().enumerate() {
            let Some(client) = self.clients.get_mut(peer) else { continue };
            if !limits.allow(client.serving, free) {
                continue;
            }
            let had = match position {
                0 if chosen != 0 => turns.saturating_sub(1),
                _ if position <= chosen || order == usize::MAX => turns,
                _ => turns.saturating_sub(1),
            };
            client.credit = client.credit.saturating_add(had.saturating_mul(turn));
        }
        self.turns.rotate_left(chosen);
        self.turns.front().copied()
    }

    /// A request is over: served as far as it will be, or withdrawn.
    pub(crate) fn finished(
        &mut self,
        id: InboundId,
        bytes: u64,
        waited: Duration,
        now: Timestamp,
    ) -> Finished {
        if let Some(peer) = self.waiting.get(&id).copied() {
            self.withdraw(peer, |waiting| waiting.id == id);
            return Finished::Waited;
        }
        let Some(Serving { peer, max_bytes, answer, deadline }) = self.serving.remove(&id) else {
            return Finished::Unknown;
        };
        self.unread.judge(peer, waited, bytes, now);
        if let Some(client) = self.clients.get_mut(&peer) {
            let spared = max_bytes.saturating_sub(bytes);
            client.serving = client.serving.saturating_sub(usize::from(!has(Bug::ServingNeverFreed)));
            client.bytes.refund(spared);
            if !client.queue.is_empty() {
                let most = self.limits.turn.saturating_mul(TURNS_SAVED);
                let back = max_bytes.max(LEAST_COST).saturating_sub(bytes.max(LEAST_COST));
                client.credit = client.credit.max(client.credit.saturating_add(back).min(most));
            }
            // Past the deadline it was we who broke it off.
            if let Some(answer) = answer.filter(|_| now >= deadline || bytes <= DEAR) {
                client.recent.forget(answer);
            }
            if client.gone && client.serving == 0 {
                self.clients.remove(&peer);
            }
        }
        Finished::Served
    }

    /// A peer is gone: its requests that wait here, to be refused. What is being sent keeps its slot until that is
    /// over.
    pub(crate) fn gone(&mut self, peer: PeerId) -> Vec<InboundId> {
        let dropped = self.withdraw(peer, |_| true);
        if let Some(client) = self.clients.get_mut(&peer) {
            client.gone = true;
            if client.serving == 0 {
                self.clients.remove(&peer);
            }
        }
        dropped
    }

    /// Takes requests of a peer out of its queue.
    fn withdraw(&mut self, peer: PeerId, which: impl Fn(&Waiting) -> bool) -> Vec<InboundId> {
        let Some(client) = self.clients.get_mut(&peer) else { return Vec::new() };
        let queue = core::mem::take(&mut client.queue);
        let (out, kept) = queue.into_iter().partition::<VecDeque<_>, _>(which);
        client.queue = kept;
        for waiting in &out {
            self.waiting.remove(&waiting.id);
            client.bytes.refund(waiting.plan.max_bytes().unwrap_or_default());
            if let Some(answer) = waiting.answer {
                client.recent.forget(answer);
            }
        }
        if client.queue.is_empty() {
            client.credit = 0;
            let first = self.turns.front() == Some(&peer);
            self.turns.retain(|of| *of != peer);
            if first {
                self.next_turn();
            }
        }
        out.into_iter().map(|waiting| waiting.id).collect()
    }

    /// Slots that are free.
    fn free(&self) -> usize {
        self.limits.slots.saturating_sub(self.serving.len())
    }

    pub(crate) fn contains(&self, id: InboundId) -> bool {
        self.serving.contains_key(&id) || self.waiting.contains_key(&id)
    }

    /// How many requests are being served.
    pub(crate) fn serving(&self) -> usize {
        self.serving.len()
    }

    /// How many requests wait to be served.
    pub(crate) fn queued(&self) -> usize {
        self.waiting.len()
    }

    /// What must hold between any two events: the caps, that the books agree, and that nobody waits who could be
    /// served.
    pub(crate) fn check_invariants(&self) -> Result<(), &'static str> {
        let (limits, clients) = (&self.limits, || self.clients.values());
        let queued: usize = clients().map(|client| client.queue.len()).sum();
        let serving = clients().fold(0usize, |sum, client| sum.saturating_add(client.serving));
        let in_turn = |peer: &PeerId| self.clients.get(peer).is_some_and(|client| !client.queue.is_empty());
        let could_begin = |client: &Client| limits.allow(client.serving, self.free());
        match () {
            () if self.serving.len() > limits.slots => Err("serve: too many requests are served"),
            () if self.waiting.len() > limits.queue => Err("serve: too many requests wait"),
            () if clients().any(|client| client.serving > limits.slots_per_peer) => {
                Err("serve: too many requests of one peer are served")
            }
            () if clients().any(|client| client.queue.len() > limits.queue_per_peer) => {
                Err("serve: too many requests of one peer wait")
            }
            () if queued != self.waiting.len() || serving != self.serving.len() => {
                Err("serve: the books disagree")
            }
            () if self.turns.len() != clients().filter(|client| !client.queue.is_empty()).count()
                || !self.turns.iter().all(in_turn) =>
            {
                Err("serve: not everybody who waits has a turn")
            }
            () if clients().any(|client| client.gone && client.serving == 0) => {
                Err("serve: a peer that is gone is remembered")
            }
            () if clients().any(|client| !client.queue.is_empty() && could_begin(client)) => {
                Err("serve: a request waits that could be served")
            }
            () => {
                self.unread.check_invariants()?;
                self.clients.values().try_for_each(|client| client.recent.check_invariants())
            }
        }
    }

    /// How many peers there are records of.
    pub(crate) fn clients(&self) -> usize {
        self.clients.len()
    }
}

#[cfg(test)]
mod tests;
