//! What befalls nodes and links for a while: drawn, and played.

use super::plan::{Plan, Role};
use crate::{
    draw::Draws,
    fault::{Fault, FaultSet},
    world::{ChainStore, NodeId, Step, World},
};
use soma_sync_core::{Timestamp, types::CommitIndex};
use std::{rc::Rc, time::Duration};

/// A fault that befalls a node, or two, for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Episode {
    /// What.
    pub fault: Fault,
    /// From when on.
    pub at: Duration,
    /// Until when; an hour where it never ends.
    pub until: Duration,
    /// Whom.
    pub node: usize,
    /// Who is at the other end, where there is one.
    pub other: usize,
    /// A number drawn for how.
    pub how: u64,
}

/// When what never ends would end.
const FOR_EVER: Duration = Duration::from_secs(3_600);

/// Episodes of the faults that are on, for nodes with these roles.
pub(super) fn draw(
    draws: Draws,
    on: FaultSet,
    roles: &[Role],
    edges: &[(usize, usize)],
    calm: Duration,
) -> Vec<Episode> {
    let nodes = roles.len() as u64;
    let often = 1 + nodes / 16;
    let mut episodes = Vec::new();
    for fault in on.iter().filter(|fault| fault.is_episode()) {
        let count = draws.between("episodes", [fault as u64, 0], 0, 1, 3) * often;
        for nth in 0..count {
            let about = [fault as u64, nth];
            // Most befall the core, which is at the front.
            let front = if draws.draw("whom", about, 0) % 4 < 3 { (nodes / 4).max(2) } else { nodes };
            let node = draws.draw("node", about, 0) % front;
            let mut node = node as usize;
            if fault == Fault::Death {
                let Some(doomed) = roles.iter().rposition(|role| matches!(role, Role::Outsider { .. }))
                else {
                    continue;
                };
                node = doomed;
            }
            let neighbours = edges.iter().filter_map(|(a, b)| match node {
                _ if *a == node => Some(*b),
                _ if *b == node => Some(*a),
                _ => None,
            });
            let neighbours: Vec<_> = neighbours.collect();
            let other = draws.draw("other", about, 0) as usize % neighbours.len().max(1);
            let other = neighbours.get(other).copied().unwrap_or(node);
            let at = draws.between("at", about, 0, 0, calm.as_micros() as u64 * 9 / 10);
            let at = Duration::from_micros(at);
            let lasts = draws.millis("lasts", about, 0, 100, longest(fault));
            let never_ends = !roles[node].is_core() && draws.draw("for ever", about, 0).is_multiple_of(2);
            let until = if never_ends { FOR_EVER } else { (at + lasts).min(calm) };
            episodes.push(Episode { fault, at, until, node, other, how: draws.draw("how", about, 0) });
        }
    }
    episodes
}

/// How long an episode may last, in milliseconds.
const fn longest(fault: Fault) -> u64 {
    match fault {
        Fault::Clog | Fault::BurstLoss | Fault::Crash | Fault::Disconnect | Fault::StoreFailure => 2_000,
        Fault::Pause | Fault::StalledTicks => 3_000,
        _ => 8_000,
    }
}

/// Has an episode take place in a world.
pub(super) fn stage(world: &mut World, plan: &Rc<Plan>, episode: Episode, empty: &Rc<ChainStore>) {
    let (plan, empty) = (Rc::clone(plan), Rc::clone(empty));
    let mut play = Play { episode, plan, empty, image: None, turns: 0 };
    world.act(episode.at, move |world| {
        play.turns += 1;
        play.turn(world)
    });
}

/// An episode under way.
struct Play {
    episode: Episode,
    plan: Rc<Plan>,
    empty: Rc<ChainStore>,
    /// What the node had stored at the beginning.
    image: Option<ChainStore>,
    turns: u32,
}

impl Play {
    /// Its next turn; after how long it has another one.
    fn turn(&mut self, world: &mut World) -> Option<Duration> {
        let Episode { fault, at, until, .. } = self.episode;
        let now = world.now().saturating_since(Timestamp::ZERO);
        let over = self.turns > 1 && now >= until;
        match fault {
            Fault::CrashLoop => return self.crash_loop(world, over),
            Fault::TornWrite => return self.torn_write(world, over),
            Fault::FsyncOnce => return self.fsync_once(world, over),
            _ if over => self.end(world),
            _ => self.begin(world),
        }
        (!over).then(|| until.saturating_sub(at))
    }

    fn node(&self, world: &World) -> NodeId {
        self.pick(world, self.episode.node)
    }

    fn pick(&self, world: &World, position: usize) -> NodeId {
        // Nodes are added in order, so there is one at every position of the plan.
        world
            .nodes()
            .nth(position)
            .unwrap_or_else(|| unreachable!("node {position} of {:?}", self.plan.settings))
    }

    fn begin(&mut self, world: &mut World) {
        let Episode { fault, until, how, .. } = self.episode;
        let node = self.node(world);
        let until = Timestamp::ZERO.saturating_add(until);
        let millis = |low: u64, high: u64| Duration::from_millis(low + how % (high - low + 1));
        let usual = self.plan.pace(self.episode.node);
        match fault {
            Fault::BurstLoss => world.lose_streams(node, true),
            Fault::Clog => world.clog(node, until),
            Fault::Partition | Fault::OneWayPartition | Fault::RingPartition | Fault::HalfOpen => {
                self.set_blocks(world, true);
            }
            Fault::Disconnect => {
                let other = self.pick(world, self.episode.other);
                if world.is_connected(node, other) {
                    world.hits().count(fault);
                    world.disconnect(node, other);
                }
            }
            Fault::Crash | Fault::Death | Fault::EmptyDisk => {
                self.crash(world, node);
                if fault == Fault::EmptyDisk {
                    world.replace_store(node, (*self.empty).clone());
                }
            }
            Fault::OlderImage => self.image = Some(world.store(node).clone()),
            Fault::Pause => world.pause(node, until.saturating_since(world.now())),
            Fault::SlowNode => {
                world.hits().count(fault);
                world.set_pace(node, millis(20, 100), millis(50, 200));
            }
            Fault::SlowDisk => {
                world.hits().count(fault);
                world.set_pace(node, usual.job, millis(300, 900));
            }
            Fault::SkewedClock => {
                let ppm = (how % 400_001) as i32 - 200_000;
                world.skew_clock(node, ppm);
            }
            Fault::StalledTicks => world.stall_ticks(node, until),
            Fault::CoalescedTimers => world.coalesce_timers(node, millis(50, 500)),
            Fault::StoreFailure | Fault::DiskFull => world.fail_store_as(node, fault),
            Fault::BitRot => {
                let tip = world.store(node).tip().index.get().max(1);
                (0..1 + how % 5).for_each(|nth| {
                    let index = 1 + (how.rotate_left(nth as u32 * 8) % u64::from(tip)) as u32;
                    world.rot(node, CommitIndex::new(index));
                });
            }
            Fault::CrashAfterVerify
            | Fault::CrashBeforeStored
            | Fault::CrashAfterStored
            | Fault::CrashAfterBroadcast => world.crash_at(node, step(fault), millis(50, 1_500)),
            Fault::LaggingConsumer => world.lag_consumers(node, millis(100, 4_000)),
            _ => {}
        }
    }

    fn end(&mut self, world: &mut World) {
        let node = self.node(world);
        let usual = self.plan.pace(self.episode.node);
        match self.episode.fault {
            Fault::BurstLoss => world.lose_streams(node, false),
            Fault::Partition | Fault::OneWayPartition | Fault::RingPartition => self.set_blocks(world, false),
            Fault::HalfOpen => {
                self.set_blocks(world, false);
                let other = self.pick(world, self.episode.other);
                world.disconnect(node, other);
            }
            Fault::Crash | Fault::EmptyDisk => world.start(node),
            Fault::OlderImage => {
                let image = self.image.take().filter(|image| image.tip() != world.store(node).tip());
                if let Some(image) = image {
                    self.crash(world, node);
                    world.replace_store(node, image);
                    world.start(node);
                }
            }
            Fault::SlowNode | Fault::SlowDisk => world.set_pace(node, usual.job, usual.store),
            Fault::SkewedClock => world.skew_clock(node, 0),
            Fault::CoalescedTimers => world.coalesce_timers(node, Duration::ZERO),
            Fault::StoreFailure | Fault::DiskFull => world.fail_store(node, false),
            Fault::BitRot => world.mend(node),
            Fault::CrashAfterVerify
            | Fault::CrashBeforeStored
            | Fault::CrashAfterStored
            | Fault::CrashAfterBroadcast => world.crash_at(node, None, Duration::ZERO),
            Fault::LaggingConsumer => world.lag_consumers(node, Duration::ZERO),
            _ => {}
        }
    }

    fn crash(&self, world: &mut World, node: NodeId) {
        if !world.is_down(node) {
            world.hits().count(self.episode.fault);
            world.crash(node, 0);
        }
    }

    /// Down for a while, up for a while, over and over.
    fn crash_loop(&mut self, world: &mut World, over: bool) -> Option<Duration> {
        let node = self.node(world);
        let how = self.episode.how;
        if over {
            world.start(node);
            return None;
        }
        if self.turns % 2 == 1 {
            self.crash(world, node);
            Some(Duration::from_millis(20 + how % 400))
        } else {
            world.start(node);
            Some(Duration::from_millis(50 + (how >> 16) % 1_500))
        }
    }

    /// Waits for batches to be under way, and crashes with some of them written.
    fn torn_write(&mut self, world: &mut World, over: bool) -> Option<Duration> {
        let node = self.node(world);
        let under_way = world.under_way(node);
        if under_way > 0 && !world.is_down(node) && !over {
            world.hits().count(Fault::TornWrite);
            world.crash(node, (self.episode.how % (under_way as u64 + 1)) as usize);
            world.start(node);
            return None;
        }
        (!over).then_some(Duration::from_millis(1))
    }

    /// One failure, after which the store is opened again.
    fn fsync_once(&mut self, world: &mut World, over: bool) -> Option<Duration> {
        let node = self.node(world);
        if self.turns == 1 {
            world.fail_next_sync(node);
        } else if over || world.store_has_failed(node) {
            world.fail_store(node, false);
            return None;
        }
        Some(Duration::from_millis(40))
    }

    /// Blocks what the fault blocks, or lets it through again.
    fn set_blocks(&self, world: &mut World, blocked: bool) {
        let Episode { fault, node, other, how, .. } = self.episode;
        let nodes = self.plan.roles.len();
        let half = |at: usize| how.rotate_left(at as u32) & 1;
        let blocks = |from: usize, to: usize| match fault {
            Fault::Partition => half(from) != half(to),
            Fault::RingPartition => {
                !matches!(from.abs_diff(to), distance if distance == 1 || distance == nodes - 1)
            }
            Fault::OneWayPartition => (from, to) == (node, other),
            Fault::HalfOpen => [(node, other), (other, node)].contains(&(from, to)),
            _ => false,
        };
        for from in 0..nodes {
            for to in (0..nodes).filter(|to| *to != from && blocks(from, *to)) {
                let (from, to) = (self.pick(world, from), self.pick(world, to));
                world.block_as(from, to, blocked.then_some(fault));
            }
        }
    }
}

/// Where a node crashes by a fault.
fn step(fault: Fault) -> Option<Step> {
    Step::ALL.into_iter().find(|step| step.fault() == fault)
}
