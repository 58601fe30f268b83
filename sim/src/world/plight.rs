//! What befalls single nodes: crashes, pauses, clocks that run wrong, disks and workers that fail.

use super::{ChainStore, NodeId, Occurrence, World};
use crate::fault::Fault;
use soma_sync_core::{
    Command, Event, Timestamp,
    types::{CommitIndex, PeerId},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// A clock that may run too fast or too slow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Clock {
    /// Microseconds that it gains in a million.
    ppm: i64,
    /// A moment of the world, and what it showed then.
    since: (Timestamp, Timestamp),
}

impl Clock {
    /// What it shows.
    pub(super) fn local(self, now: Timestamp) -> Timestamp {
        if self.ppm == 0 && self.since.0 == self.since.1 {
            return now;
        }
        let passed = now.saturating_since(self.since.0).as_micros() as i128;
        let shown = passed + passed * i128::from(self.ppm) / 1_000_000;
        self.since.1.saturating_add(Duration::from_micros(shown as u64))
    }

    /// The first moment of the world at which it shows this.
    pub(super) fn when(self, local: Timestamp) -> Timestamp {
        if self.ppm == 0 && self.since.0 == self.since.1 {
            return local;
        }
        let left = local.saturating_since(self.since.1).as_micros();
        let takes = (left * 1_000_000).div_ceil((1_000_000 + self.ppm) as u128) as u64;
        let mut at = self.since.0.saturating_add(Duration::from_micros(takes));
        while self.local(at) < local {
            at = at.saturating_add(Duration::from_micros(1));
        }
        at
    }

    fn set(&mut self, now: Timestamp, ppm: i64) {
        *self = Self { ppm, since: (now, self.local(now)) };
    }
}

/// Between which two things a node is to crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// A verdict, and what follows from it.
    AfterVerify,
    /// A batch's being handed over, and its being durable.
    BeforeStored,
    /// A batch's being durable, and its being broadcast.
    AfterStored,
    /// A broadcast, and its being taken.
    AfterBroadcast,
}

impl Step {
    /// All of them.
    pub const ALL: [Self; 4] =
        [Self::AfterVerify, Self::BeforeStored, Self::AfterStored, Self::AfterBroadcast];

    /// The fault that a crash there is.
    pub const fn fault(self) -> Fault {
        match self {
            Self::AfterVerify => Fault::CrashAfterVerify,
            Self::BeforeStored => Fault::CrashBeforeStored,
            Self::AfterStored => Fault::CrashAfterStored,
            Self::AfterBroadcast => Fault::CrashAfterBroadcast,
        }
    }

    /// Whether the crash comes before anything is done about what the machine said.
    pub(super) const fn is_at_once(self) -> bool {
        match self {
            Self::AfterVerify | Self::AfterStored => true,
            Self::BeforeStored | Self::AfterBroadcast => false,
        }
    }

    fn is_at(self, event: &Event, commands: &[Command]) -> bool {
        match self {
            Self::AfterVerify => matches!(event, Event::Verified { .. }),
            Self::AfterStored => matches!(event, Event::Stored { .. }),
            Self::BeforeStored => {
                commands.iter().any(|command| matches!(command, Command::StoreBatch { .. }))
            }
            Self::AfterBroadcast => {
                commands.iter().any(|command| matches!(command, Command::Broadcast { .. }))
            }
        }
    }
}

/// What befalls a node.
#[derive(Debug, Default)]
pub(super) struct Plight {
    pub(super) clock: Clock,
    /// It has crashed, and has not been started again.
    pub(super) down: bool,
    /// Until when it does nothing.
    pub(super) paused: Timestamp,
    /// Its timers come at multiples of this only, where that is not zero.
    grain: Duration,
    /// Until when no timer comes.
    ticks_stalled: Timestamp,
    /// How much later consumers take what is broadcast, and when they have taken all so far.
    lag: Duration,
    consumed: Timestamp,
    /// Where it is to crash, and for how long it is down then.
    trap: Option<(Step, Duration)>,
    /// Commits that cannot be read.
    pub(super) rotten: BTreeSet<CommitIndex>,
    /// Whether writing down the next batch is to fail, although it is written.
    pub(super) fsync_fails: bool,
    /// Until when it does not connect to a peer that it has banned.
    pub(super) banned: BTreeMap<PeerId, Timestamp>,
    /// Whether its storage is not what it left there.
    replaced: bool,
    /// What it is called when its store fails.
    pub(super) store_fault: Option<Fault>,
}

impl Plight {
    /// Whether it is to crash somewhere.
    pub(super) const fn is_trapped(&self) -> bool {
        self.trap.is_some()
    }
}

impl World {
    /// What a node's clock shows.
    pub(super) fn local(&self, node: NodeId) -> Timestamp {
        self.nodes[node.0].plight.clock.local(self.now)
    }

    /// Lets a node's clock gain so many microseconds in a million from now on; more than a million cannot be lost.
    pub fn skew_clock(&mut self, node: NodeId, ppm: i32) {
        let now = self.now;
        self.nodes[node.0].plight.clock.set(now, i64::from(ppm).max(-999_999));
        self.arm_timer(node);
    }

    /// Has a node's timers come at multiples of this only; at any time where it is zero.
    pub fn coalesce_timers(&mut self, node: NodeId, grain: Duration) {
        self.nodes[node.0].plight.grain = grain;
    }

    /// Lets no timer of a node come until then.
    pub fn stall_ticks(&mut self, node: NodeId, until: Timestamp) {
        self.nodes[node.0].plight.ticks_stalled = until;
    }

    /// Has a node do nothing for a while. What comes meanwhile is handled after it, in order.
    pub fn pause(&mut self, node: NodeId, lasts: Duration) {
        let until = self.now.saturating_add(lasts);
        let plight = &mut self.nodes[node.0].plight;
        plight.paused = plight.paused.max(until);
    }

    /// Ends a pause.
    pub fn resume(&mut self, node: NodeId) {
        self.nodes[node.0].plight.paused = Timestamp::ZERO;
    }

    /// Has a node's consumers take what is broadcast so much later.
    pub fn lag_consumers(&mut self, node: NodeId, lag: Duration) {
        self.nodes[node.0].plight.lag = lag;
    }

    /// Has a node crash the next time that it comes there, and start again after a while; or never mind.
    pub fn crash_at(&mut self, node: NodeId, step: Option<Step>, down: Duration) {
        self.nodes[node.0].plight.trap = step.map(|step| (step, down));
    }

    /// Makes a stored commit unreadable.
    pub fn rot(&mut self, node: NodeId, index: CommitIndex) {
        self.nodes[node.0].plight.rotten.insert(index);
    }

    /// Makes everything that is stored readable again.
    pub fn mend(&mut self, node: NodeId) {
        self.nodes[node.0].plight.rotten.clear();
    }

    /// Has the next batch be reported as not stored, although it is.
    pub fn fail_next_sync(&mut self, node: NodeId) {
        self.nodes[node.0].plight.fsync_fails = true;
    }

    /// Has a node's store refuse batches as a fault that is counted at each.
    pub fn fail_store_as(&mut self, node: NodeId, fault: Fault) {
        self.nodes[node.0].plight.store_fault = Some(fault);
        self.fail_store(node, true);
    }

    /// Has streams of a node be lost, or not any more.
    pub fn lose_streams(&mut self, node: NodeId, lost: bool) {
        self.links.set_lossy(node, lost);
    }

    /// Holds up what a node sends until then.
    pub fn clog(&mut self, node: NodeId, until: Timestamp) {
        self.links.clog(node, until);
    }

    /// Ends all that befalls a node: it is up, and works at this pace. Its clock shows what it shows. No more trouble
    /// befalls what is between it and others who are relieved.
    pub fn relieve(&mut self, node: NodeId, job: Duration, store: Duration) {
        self.start(node);
        self.resume(node);
        self.crash_at(node, None, Duration::ZERO);
        if self.nodes[node.0].plight.clock != Clock::default() {
            self.skew_clock(node, 0);
        }
        self.coalesce_timers(node, Duration::ZERO);
        self.stall_ticks(node, Timestamp::ZERO);
        self.lag_consumers(node, Duration::ZERO);
        self.nodes[node.0].plight.consumed = Timestamp::ZERO;
        self.nodes[node.0].plight.fsync_fails = false;
        self.fail_store(node, false);
        self.mend(node);
        self.set_pace(node, job, store);
        self.lose_streams(node, false);
        self.clog(node, Timestamp::ZERO);
        self.spare(node);
        self.arm_timer(node);
    }

    /// How many batches a node's store is busy with.
    pub fn under_way(&self, node: NodeId) -> usize {
        self.nodes[node.0].storing.len()
    }

    /// Whether a node's store refuses batches.
    pub fn store_has_failed(&self, node: NodeId) -> bool {
        self.nodes[node.0].store_fails
    }

    /// Whether a node has crashed and was not started again.
    pub fn is_down(&self, node: NodeId) -> bool {
        self.nodes[node.0].plight.down
    }

    /// Whether two nodes may connect: both are up, and neither has banned the other.
    pub fn may_connect(&self, a: NodeId, b: NodeId) -> bool {
        let bans = |this: NodeId, other: NodeId| {
            let until = self.nodes[this.0].plight.banned.get(&self.nodes[other.0].peer);
            until.is_some_and(|until| *until > self.now)
        };
        !self.is_down(a) && !self.is_down(b) && !bans(a, b) && !bans(b, a)
    }

    /// Crashes a node: everything is gone but what it was told is durable, and of the batches under way the first `kept`.
    /// Its connections are gone, too.
    pub fn crash(&mut self, node: NodeId, kept: usize) {
        if self.nodes[node.0].plight.down {
            return;
        }
        let others: Vec<_> = self.nodes[node.0].links.iter().copied().collect();
        for other in others {
            self.disconnect(node, other);
        }
        let under_way: Vec<_> = self.nodes[node.0].storing.iter().take(kept).cloned().collect();
        for batch in under_way {
            self.apply(node, &batch);
        }
        let crashed = &mut self.nodes[node.0];
        crashed.life += 1;
        crashed.plight.down = true;
        crashed.plight.trap = None;
        crashed.plight.banned.clear();
        crashed.timer = None;
        crashed.storing.clear();
        crashed.store_fails = false;
        self.charges.forget(node);
    }

    /// Gives a crashed node another store: an older image of its own, or an empty one.
    pub fn replace_store(&mut self, node: NodeId, store: ChainStore) {
        let node = &mut self.nodes[node.0];
        if node.plight.down {
            node.store = store;
            node.plight.replaced = true;
        }
    }

    /// Starts a crashed node from what its storage holds.
    pub fn start(&mut self, node: NodeId) {
        if !std::mem::take(&mut self.nodes[node.0].plight.down) {
            return;
        }
        let local = self.local(node);
        let now = self.now;
        self.told = Some(node);
        let started = &mut self.nodes[node.0];
        started.restart(now, local);
        let tip = started.store.tip().index;
        let replaced = std::mem::take(&mut started.plight.replaced);
        let judged = match &mut self.oracle {
            Some(oracle) if replaced => {
                oracle.replaced(node.0, tip);
                Ok(())
            }
            Some(oracle) => oracle.restarted(node.0, tip),
            None => Ok(()),
        };
        self.note(judged);
        self.schedule_event(Duration::ZERO, node, Event::Tick);
    }

    /// Where a node crashes now, and for how long, if it is to.
    pub(super) fn springs(
        &mut self,
        node: NodeId,
        event: &Event,
        commands: &[Command],
    ) -> Option<(Step, Duration)> {
        let (step, down) = self.nodes[node.0].plight.trap.filter(|(step, _)| step.is_at(event, commands))?;
        self.hits.count(step.fault());
        Some((step, down))
    }

    /// Crashes a node and has it start again after a while.
    pub(super) fn crash_for(&mut self, node: NodeId, down: Duration) {
        self.crash(node, 0);
        self.schedule(down, Occurrence::Start(node));
    }

    /// When consumers will have taken what is broadcast now.
    pub(super) fn consumed_at(&mut self, node: NodeId) -> Timestamp {
        let now = self.now;
        let plight = &mut self.nodes[node.0].plight;
        if !plight.lag.is_zero() {
            self.hits.count(Fault::LaggingConsumer);
        }
        plight.consumed = plight.consumed.max(now.saturating_add(plight.lag));
        plight.consumed
    }

    /// Schedules the tick that a node's machine asks for, as its clock and its host let it come.
    pub(super) fn arm_timer(&mut self, id: NodeId) {
        let now = self.now;
        let node = &mut self.nodes[id.0];
        let due = if node.plight.down { None } else { node.machine.poll_timeout() };
        let Some(due) = due else {
            node.timer = None;
            return;
        };
        let skewed = node.plight.clock != Clock::default();
        let asked = node.plight.clock.when(due).max(now);
        let grain = node.plight.grain.as_micros() as u64;
        let grained = Timestamp::from_micros(asked.as_micros().next_multiple_of(grain.max(1)));
        let at = grained.max(node.plight.ticks_stalled);
        if node.timer.replace(at) == Some(at) {
            return;
        }
        if skewed {
            self.hits.count(Fault::SkewedClock);
        }
        if grained > asked {
            self.hits.count(Fault::CoalescedTimers);
        }
        if at > grained {
            self.hits.count(Fault::StalledTicks);
        }
        self.schedule_at(at, Occurrence::Tick(id, at));
    }
}
