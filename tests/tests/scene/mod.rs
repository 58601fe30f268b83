//! What the tests of whole networks share: one node that is behind, beside honest and hostile ones.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]

use soma_sync_core::{
    Config, Status,
    command::Offence,
    request::{FetchCommits, Request},
    types::{CommitIndex, CommitRef},
};
use soma_sync_sim::{
    chain::ChainSpec,
    hostile::{Lab, Manner, misbehave},
    world::{ChainStore, Link, NodeId, Pace, World},
};
use std::{rc::Rc, time::Duration};

pub const SECOND: Duration = Duration::from_secs(1);
pub const MINUTE: Duration = Duration::from_secs(60);

/// A chain of so many commits of five blocks each, over so many epochs.
pub fn lab(commits: u32, epochs: u32) -> Rc<Lab> {
    lab_of(ChainSpec { commits, blocks_per_commit: 5, payload_bytes: 64, committee: 4, epochs, seed: 1 })
}

pub fn lab_of(spec: ChainSpec) -> Rc<Lab> {
    Rc::new(Lab::new(spec).unwrap())
}

/// The first commits of the lab's chain.
pub fn first(lab: &Lab, count: u32) -> ChainStore {
    ChainStore::of(lab.genesis().clone(), &lab.chain()[..count as usize])
}

pub fn all(lab: &Lab) -> ChainStore {
    ChainStore::of(lab.genesis().clone(), lab.chain())
}

pub fn tip(lab: &Lab) -> CommitRef {
    lab.chain().last().map_or(CommitRef::GENESIS, |made| made.header.reference)
}

/// Small requests, so that every server is asked for something.
pub fn small() -> Config {
    Config { commit_sync_batch_size: 10, max_blocks_per_fetch: 20, ..Config::default() }
}

pub fn index(index: u32) -> CommitIndex {
    CommitIndex::new(index)
}

/// A request for these commits, to be answered at once and without their blocks.
pub fn fetch(start: u32, end: u32) -> Request {
    Request::Commits(FetchCommits {
        start: index(start),
        end: index(end),
        max_bytes: u64::MAX,
        wait: Duration::ZERO,
        with_blocks: false,
    })
}

/// A client that is behind, and those it is connected to, the hostile ones first.
pub struct Scene {
    pub world: World,
    pub lab: Rc<Lab>,
    pub client: NodeId,
    pub honest: Vec<NodeId>,
    pub hostile: Vec<NodeId>,
}

impl Scene {
    /// A client with nothing, and this many honest servers.
    pub fn new(lab: &Rc<Lab>, config: Config, honest: usize, hostile: Vec<Manner>) -> Self {
        Self::from(lab, config, 0, honest, hostile)
    }

    /// The same, where other things are drawn.
    pub fn drawn(seed: u64, lab: &Rc<Lab>, config: Config, honest: usize, hostile: Vec<Manner>) -> Self {
        Self::of(World::seeded(Pace::default(), seed), lab, config, 0, honest, hostile)
    }

    /// A client that holds the first `held` commits.
    pub fn from(lab: &Rc<Lab>, config: Config, held: u32, honest: usize, hostile: Vec<Manner>) -> Self {
        Self::of(World::new(Pace::default()), lab, config, held, honest, hostile)
    }

    fn of(
        mut world: World,
        lab: &Rc<Lab>,
        config: Config,
        held: u32,
        honest: usize,
        hostile: Vec<Manner>,
    ) -> Self {
        world.judged_by(lab.chain());
        let client = world.add(config, first(lab, held));
        let mut scene = Self { world, lab: Rc::clone(lab), client, honest: Vec::new(), hostile: Vec::new() };
        for manner in hostile {
            scene.add_hostile(manner);
        }
        for _ in 0..honest {
            scene.add_honest();
        }
        scene
    }

    pub fn add_honest(&mut self) -> NodeId {
        let node = self.world.add(Config::default(), all(&self.lab));
        self.world.connect(self.client, node);
        self.honest.push(node);
        node
    }

    pub fn add_hostile(&mut self, manner: Manner) -> NodeId {
        let node = self.world.add(Config::default(), all(&self.lab));
        misbehave(&mut self.world, node, vec![manner], &self.lab);
        self.world.connect(self.client, node);
        self.hostile.push(node);
        node
    }

    /// Gives the links of the client to all others this quality.
    pub fn links(&mut self, link: Link) {
        for other in self.world.nodes().filter(|other| *other != self.client) {
            self.world.set_link(self.client, other, link);
            self.world.set_link(other, self.client, link);
        }
    }

    pub fn status(&self) -> Status {
        self.world.machine(self.client).status()
    }

    /// Runs until the client can certify the whole chain; how long that took.
    #[track_caller]
    pub fn reach(&mut self, within: Duration) -> Duration {
        let (client, tip) = (self.client, tip(&self.lab));
        let before = self.world.now();
        let certifiable = |world: &World| world.machine(client).status().certifiable;
        let reached = self.world.run_until(within, |world| certifiable(world) == tip);
        assert!(reached, "not at {tip} within {within:?}: {:#?}", self.status());
        assert_eq!(self.world.store(client).tip(), tip);
        self.world.now().saturating_since(before)
    }

    /// Lets time pass.
    pub fn pass(&mut self, time: Duration) {
        self.world.run_until(time, |_| false);
    }

    /// What the client holds against its hostile peers, one after the other.
    pub fn offences(&self) -> Vec<Offence> {
        self.world.disconnected(self.client).iter().map(|(_, offence)| *offence).collect()
    }
}

/// How long it takes with honest servers only.
pub fn honest_time(lab: &Rc<Lab>, config: Config, servers: usize) -> Duration {
    Scene::new(lab, config, servers, Vec::new()).reach(10 * MINUTE)
}
