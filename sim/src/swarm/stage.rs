//! Playing a plan, and judging how it went.

use super::{
    cast::cast,
    consensus::produce,
    episode,
    plan::{Plan, Role},
};
use crate::{
    chain::ChainSpec,
    draw::Draws,
    fault::{Fault, Hits},
    hostile::Lab,
    oracle::Truth,
    trace::write_trace,
    violation::{Broken, Invariant, Violation},
    world::{ChainStore, NodeId, Pace, Verdicts, World},
};
use soma_sync_core::{Timestamp, command::Notice, config::Limits, job::CheckedBlock, types::CommitRef};
use std::{
    any::Any,
    cell::RefCell,
    collections::HashMap,
    fmt::Write as _,
    io::{self, Write},
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    time::Duration,
};

/// How often nodes dial those whom they have lost.
const DIAL: Duration = Duration::from_millis(300);

/// What many plans share: chains, and what is known of them. One for each thread.
#[derive(Debug, Default)]
pub struct Theatre {
    scenes: HashMap<ChainSpec, Rc<Scene>>,
}

/// One chain, and what is known of it.
#[derive(Debug)]
struct Scene {
    lab: Rc<Lab>,
    truth: Rc<Truth>,
    verdicts: Rc<RefCell<Verdicts>>,
    empty: Rc<ChainStore>,
    /// Stores that hold the first commits, by how many.
    stores: RefCell<HashMap<u32, ChainStore>>,
}

impl Theatre {
    fn scene(&mut self, spec: ChainSpec) -> Rc<Scene> {
        let made = self.scenes.entry(spec).or_insert_with(|| {
            // Plans have chains that can be made only.
            let lab = Rc::new(Lab::new(spec).unwrap_or_else(|error| unreachable!("{spec:?}: {error}")));
            let mut truth = Truth::new(lab.chain());
            let late = lab.chain().iter().flat_map(|made| lab.late_votes(made.header.reference.index));
            let late = late.filter_map(|vote| CheckedBlock::decode(vote, &Limits::default()).ok());
            late.for_each(|block| truth.learn_block(&block));
            let truth = Rc::new(truth);
            let verdicts = Rc::new(RefCell::new(Verdicts::new(Rc::clone(&truth))));
            let empty = Rc::new(ChainStore::new(lab.genesis().clone()));
            Rc::new(Scene { lab, truth, verdicts, empty, stores: RefCell::default() })
        });
        Rc::clone(made)
    }
}

impl Scene {
    fn store(&self, held: u32) -> ChainStore {
        let mut stores = self.stores.borrow_mut();
        let made = || ChainStore::of(self.lab.genesis().clone(), &self.lab.chain()[..held as usize]);
        stores.entry(held).or_insert_with(made).clone()
    }

    fn tip(&self) -> CommitRef {
        self.lab.chain().last().map_or(CommitRef::GENESIS, |made| made.header.reference)
    }
}

/// How a plan went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The first thing that must never happen, if anything of that did.
    pub violation: Option<Violation>,
    /// Time that passed in the world.
    pub simulated: Duration,
    /// Events that machines handled.
    pub events: u64,
    /// A hash over all of them and what came of each.
    pub hash: [u8; 32],
    /// How often each fault took effect.
    pub hits: Hits,
}

/// Plays a plan. A panic anywhere in it is a violation like others.
pub fn run(plan: &Plan, theatre: &mut Theatre) -> Outcome {
    perform(plan, theatre, None).0
}

/// The same, and writes as a trace what the machine of one node was told in the last of its lives; gives the output back.
///
/// # Errors
///
/// Where writing fails, or there is no such node.
pub fn run_recording<W: Write>(
    plan: &Plan,
    theatre: &mut Theatre,
    node: usize,
    output: W,
) -> io::Result<(Outcome, W)> {
    let (outcome, world) = perform(plan, theatre, Some(node));
    let node = world.as_ref().and_then(|world| Some((world, world.nodes().nth(node)?)));
    let (world, node) = node.ok_or_else(|| io::Error::other("there is no such node"))?;
    Ok((outcome, write_trace(output, world, node)?))
}

/// Plays a plan with a node recorded. The world is as it was left at the end, or where something panicked.
fn perform(plan: &Plan, theatre: &mut Theatre, recorded: Option<usize>) -> (Outcome, Option<World>) {
    let scene = theatre.scene(plan.spec);
    let plan = Rc::new(plan.clone());
    let mut world = None;
    let played = catch_unwind(AssertUnwindSafe(|| {
        let world = world.insert(set(&plan, &scene));
        if let Some(node) = recorded.and_then(|node| world.nodes().nth(node)) {
            world.record(node);
        }
        play(world, &plan, scene.tip())
    }));
    let outcome = played.unwrap_or_else(|panic| {
        // What it was about to remember may be half done.
        theatre.scenes.clear();
        let violation = Violation {
            invariant: Invariant::Panic,
            at: world.as_ref().map_or(Timestamp::ZERO, World::now),
            node: world.as_ref().and_then(World::told),
            detail: message(&*panic),
        };
        Outcome {
            violation: Some(violation),
            simulated: Duration::ZERO,
            events: 0,
            hash: [0; 32],
            hits: Hits::default(),
        }
    });
    (outcome, world)
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without words").to_owned()
}

fn play(world: &mut World, plan: &Plan, tip: CommitRef) -> Outcome {
    let nodes: Vec<_> = world.nodes().collect();
    world.run_until(plan.calm, |_| false);
    let core: Vec<_> = (0..nodes.len()).filter(|at| plan.roles[*at].is_core()).collect();
    calm(world, plan, &nodes, &core);
    let left = plan.produced.saturating_sub(plan.calm) + plan.bound();
    let is_there = |world: &World, node: NodeId| {
        world.store(node).tip() == tip && world.machine(node).status().certifiable == tip
    };
    let done = world.run_until(left, |world| core.iter().all(|at| is_there(world, nodes[*at])));
    if !done && world.violation().is_none() {
        let stuck = core.iter().map(|at| nodes[*at]).filter(|node| !is_there(world, *node));
        let stuck: Vec<_> = stuck.collect();
        let detail = stuck.iter().map(|node| why(world, *node, tip)).collect::<String>();
        let detail = format!("not at {tip} after {:?}{detail}", plan.bound());
        if let Some(first) = stuck.first() {
            world.object(*first, Broken::new(Invariant::Liveness, detail));
        }
    }
    judge_the_end(world, plan, &nodes);
    Outcome {
        violation: world.violation().cloned(),
        simulated: world.now().saturating_since(Timestamp::ZERO),
        events: world.events(),
        hash: world.hash(),
        hits: (**world.hits()).clone(),
    }
}

/// The world as it is at the beginning.
fn set(plan: &Rc<Plan>, scene: &Scene) -> World {
    let world = World::seeded(Pace::default(), plan.seed).checked_every(plan.checked_every);
    let mut world = world.collecting().of_sound_committees();
    if !plan.verifies_anew {
        world = world.remembering(Rc::clone(&scene.verdicts));
    }
    world.judged_by_truth(Rc::clone(&scene.truth));
    world.set_trouble(plan.trouble.clone());
    let begun = plan.roles.iter().find_map(|role| match role {
        Role::Anchor { held } => Some(*held),
        Role::Victim { .. } | Role::Outsider { .. } | Role::Hostile { .. } => None,
    });
    let begun = begun.unwrap_or_default();
    let nodes = plan.roles.iter().enumerate().map(|(at, role)| {
        let held = match role {
            Role::Anchor { held } => *held,
            Role::Victim { held } | Role::Outsider { held, .. } => (*held).min(begun),
            Role::Hostile { .. } => plan.settings.commits,
        };
        world.add(plan.config(at), scene.store(held))
    });
    let nodes: Vec<_> = nodes.collect();
    for (at, node) in nodes.iter().enumerate() {
        let pace = plan.pace(at);
        world.set_pace(*node, pace.job, pace.store);
        cast(&mut world, plan, *node, at, &scene.lab);
        if let Role::Anchor { .. } | Role::Outsider { produces: true, .. } = plan.roles[at] {
            produce(&mut world, *node, plan, &scene.lab, begun);
        }
    }
    for (a, b) in &plan.edges {
        for (from, to) in [(*a, *b), (*b, *a)] {
            let link = plan.link(from, to);
            if link != plan.calm_link(from, to) {
                count_link(&world, plan, &link, from, to);
            }
            world.set_link(nodes[from], nodes[to], link);
        }
        world.connect(nodes[*a], nodes[*b]);
    }
    for episode in &plan.episodes {
        episode::stage(&mut world, plan, *episode, &scene.empty);
    }
    dial(&mut world, plan, nodes);
    world
}

fn count_link(world: &World, plan: &Plan, link: &crate::world::Link, from: usize, to: usize) {
    let calm = plan.calm_link(from, to);
    if link.latency != calm.latency {
        world.hits().count(Fault::Delay);
    }
    if link.bandwidth != calm.bandwidth {
        world.hits().count(Fault::Bandwidth);
    }
}

/// Has nodes dial those whom they have lost, for ever, as soon as they may.
fn dial(world: &mut World, plan: &Rc<Plan>, nodes: Vec<NodeId>) {
    let (plan, draws) = (Rc::clone(plan), Draws::new(plan.seed));
    let mut turn = 0;
    world.act(DIAL, move |world| {
        turn += 1;
        for (a, b) in &plan.edges {
            let (this, other) = (nodes[*a], nodes[*b]);
            let free = !world.is_connected(this, other) && world.may_connect(this, other);
            if free
                && !world.is_blocked(this, other)
                && draws.draw("dial", [*a as u64, *b as u64], turn).is_multiple_of(2)
            {
                world.connect(this, other);
            }
        }
        Some(DIAL)
    });
}

/// Ends what befalls the core.
fn calm(world: &mut World, plan: &Plan, nodes: &[NodeId], core: &[usize]) {
    for at in core {
        let pace = plan.pace(*at);
        world.relieve(nodes[*at], pace.job, pace.store);
        for other in core.iter().filter(|other| *other != at) {
            world.block_as(nodes[*at], nodes[*other], None);
            world.set_link(nodes[*at], nodes[*other], plan.calm_link(*at, *other));
        }
    }
    for (a, b) in plan.edges.iter().filter(|(a, b)| core.contains(a) && core.contains(b)) {
        world.connect(nodes[*a], nodes[*b]);
    }
}

/// Why a node is not at the tip.
fn why(world: &World, node: NodeId, tip: CommitRef) -> String {
    let machine = world.machine(node);
    let status = machine.status();
    let mut text = String::new();
    let next = status.queued.index.next().unwrap_or(tip.index);
    let awaited = if status.queued == tip { tip.index } else { next };
    // Writing into a string cannot fail.
    let _ = write!(
        text,
        "\n{node:?}: queued {}, durable {}, certifiable {}, delivered {}, {} jobs, stalled by {:?}, {:?}\n{}",
        status.queued,
        status.durable,
        status.certifiable,
        status.delivered,
        status.jobs_running,
        status.stall,
        status.counters,
        machine.explain(awaited),
    );
    text
}

/// What must hold at the end, and faults that show only then.
fn judge_the_end(world: &mut World, plan: &Plan, nodes: &[NodeId]) {
    for (at, node) in nodes.iter().enumerate().filter(|(at, _)| !plan.roles[*at].is_hostile()) {
        let halt = world.notices(*node).iter().find_map(|notice| match notice {
            Notice::Halted(halt) => Some(halt.to_string()),
            _ => None,
        });
        if let Some(halt) = halt {
            world.object(*node, Broken::new(Invariant::Halted, format!("{node:?} halts: {halt}")));
        }
        let (config, status) = (plan.config(at), world.machine(*node).status());
        if config.max_buffered_bytes < 1024 * 1024
            && status.buffered_bytes_peak >= config.max_buffered_bytes / 2
        {
            world.hits().count(Fault::TinyBudget);
        }
        if config.max_store_batches == 1
            && status.counters.stored_commits > u64::from(config.look_ahead_commits)
        {
            world.hits().count(Fault::SmallWindows);
        }
    }
}
