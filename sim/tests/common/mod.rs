//! What the tests of whole networks share: a chain, a client and honest servers.
#![allow(dead_code, unreachable_pub, reason = "each test binary uses a part of it")]

use soma_sync_core::{
    Command, Config, Event, SyncMachine, Timestamp, committee::Committee, types::CommitRef,
};
use soma_sync_sim::{
    chain::{ChainMaker, ChainSpec, MadeCommit},
    world::{ChainStore, NodeId, Pace, World},
};
use std::{collections::VecDeque, sync::Arc, time::Duration};

pub const MINUTE: Duration = Duration::from_secs(60);

pub struct Chain {
    pub genesis: Arc<Committee>,
    pub commits: Vec<MadeCommit>,
}

impl Chain {
    pub fn make(spec: ChainSpec) -> Self {
        let mut maker = ChainMaker::new(spec).unwrap();
        let commits = maker.by_ref().take(spec.commits as usize).collect();
        Self { genesis: maker.genesis().clone(), commits }
    }
    pub fn of(commits: u32, epochs: u32) -> Self {
        Self::make(ChainSpec {
            commits,
            blocks_per_commit: 5,
            payload_bytes: 64,
            committee: 4,
            epochs,
            seed: 1,
        })
    }
    /// A store that holds the first `count` commits.
    pub fn first(&self, count: u32) -> ChainStore {
        ChainStore::of(self.genesis.clone(), &self.commits[..count as usize])
    }
    pub fn all(&self) -> ChainStore {
        ChainStore::of(self.genesis.clone(), &self.commits)
    }
    pub fn tip(&self) -> CommitRef {
        self.commits.last().unwrap().header.reference
    }
}

/// A client with `config` and the first `held` commits, connected to that many honest servers.
pub fn world(chain: &Chain, config: Config, held: u32, servers: usize) -> (World, NodeId, Vec<NodeId>) {
    let mut world = World::new(Pace::default());
    let client = world.add(config, chain.first(held));
    let servers: Vec<_> = (0..servers).map(|_| world.add(Config::default(), chain.all())).collect();
    for server in &servers {
        world.connect(client, *server);
    }
    (world, client, servers)
}

pub fn certifiable(world: &World, node: NodeId) -> CommitRef {
    world.machine(node).status().certifiable
}

pub fn must_reach(world: &mut World, client: NodeId, tip: CommitRef) {
    let reached = world.run_until(MINUTE, |world| certifiable(world, client) == tip);
    assert!(reached, "not at {tip}: {:#?}", world.machine(client).status());
    assert_eq!(world.store(client).tip(), tip);
}

/// Small requests, so that every server is asked for something.
pub fn small_requests() -> Config {
    Config { commit_sync_batch_size: 10, max_blocks_per_fetch: 20, ..Config::default() }
}

pub fn observed(made: &MadeCommit) -> Event {
    Event::CommitObserved {
        commit: made.header.payload.clone(),
        blocks: made.blocks.iter().map(|block| block.payload.clone()).collect(),
    }
}

/// Runs a machine by hand: our own consensus makes commits up to `tip` while the certifying jobs that it has handed
/// out take long, and then they are done too. Storage and consumers are quick.
pub fn drive_past(world: &World, node: NodeId, chain: &Chain, tip: u32) -> SyncMachine {
    let mut machine = world.machine(node).clone();
    let now = world.now();
    let jobs = world.pending_verdicts(node);
    let mut events: VecDeque<Event> = chain.commits[..tip as usize].iter().map(observed).collect();
    let mut late: Vec<Event> = jobs;
    loop {
        let event = match events.pop_front() {
            Some(event) => event,
            None if late.is_empty() => return machine,
            None => late.remove(0),
        };
        machine.handle(now, event);
        carry_out(&mut machine, &mut events);
    }
}

/// Runs a machine by hand, with workers, storage and consumers that are done at once. What it hands to consumers.
pub fn broadcasts(machine: &mut SyncMachine, events: impl IntoIterator<Item = Event>) -> Vec<(u32, u32)> {
    let mut events: VecDeque<Event> = events.into_iter().collect();
    let mut ranges = Vec::new();
    while let Some(event) = events.pop_front() {
        machine.handle(Timestamp::from_micros(1), event);
        ranges.extend(carry_out(machine, &mut events));
    }
    ranges
}

/// Does at once what a machine asks of workers, storage and consumers: that it is done comes before `events`. What it
/// hands to consumers.
fn carry_out(machine: &mut SyncMachine, events: &mut VecDeque<Event>) -> Vec<(u32, u32)> {
    let mut ranges = Vec::new();
    while let Some(command) = machine.poll_command() {
        match command {
            Command::Verify { id, job } => {
                events.push_front(Event::Verified { id, verdict: job.run([0; 32]) });
            }
            Command::StoreBatch { batch } => events.push_front(Event::Stored { through: batch.id }),
            Command::Broadcast { range } => {
                ranges.push((range.start().get(), range.end().get()));
                events.push_front(Event::Broadcasted { through: range.end() });
            }
            _ => {}
        }
    }
    machine.check_invariants().unwrap();
    ranges
}
