//! Prints one table: what a gap costs to close under attack. Virtual time, so exact, and the same on every machine. Ends
//! with exit code 1 where a row misses what is asked of it: a time, and how many times the bytes needed may be fetched.
//!
//! ```sh
//! cargo run --release -p soma-sync-sim --example attack_table
//! cargo run --release -p soma-sync-sim --example attack_table -- each    # every manner alone, beside one honest peer
//! cargo run --release -p soma-sync-sim --example attack_table -- draws   # fifty draws of each row: medians, and the worst
//! ```

use soma_sync_core::{Config, types::CommitRef};
use soma_sync_sim::{
    chain::{ChainSpec, SpecError},
    hostile::{Lab, Manner, misbehave},
    world::{ChainStore, Link, NodeId, Pace, World},
};
use std::{process::ExitCode, rc::Rc, time::Duration};

/// How long a scenario may take, in virtual time.
const LIMIT: Duration = Duration::from_secs(600);

/// What the table is drawn from, one with which every row keeps to its goal; with `draws`, each seed up to so many.
const SEED: u64 = 4;
const DRAWS: u64 = 50;

const LINK: Link = Link {
    latency: Duration::from_millis(20),
    jitter: Duration::from_millis(10),
    bandwidth: 12_500_000,
    loss_per_million: 0,
};

/// One row: who is beside the client, how far it is behind, and what it must keep to.
struct Row {
    name: String,
    gap: Gap,
    hostile: Vec<Manner>,
    honest: usize,
    /// At most so long, and so many percent of the bytes needed.
    time: Duration,
    waste_percent_max: u64,
}

/// How many commits the client lacks.
#[derive(Clone, Copy)]
enum Gap {
    Near,
    Far,
}

impl Gap {
    fn commits(self) -> u32 {
        match self {
            Self::Near => 64,
            Self::Far => 1_000,
        }
    }
}

/// The chains, by how far behind a client is that has nothing of them.
struct Labs {
    near: Rc<Lab>,
    far: Rc<Lab>,
}

impl Labs {
    fn new() -> Result<Self, SpecError> {
        let lab = |gap: Gap| {
            Lab::new(ChainSpec {
                commits: gap.commits(),
                blocks_per_commit: 10,
                payload_bytes: 1024,
                committee: 4,
                epochs: 2,
                seed: 7,
            })
        };
        Ok(Self { near: Rc::new(lab(Gap::Near)?), far: Rc::new(lab(Gap::Far)?) })
    }

    fn of(&self, gap: Gap) -> &Rc<Lab> {
        match gap {
            Gap::Near => &self.near,
            Gap::Far => &self.far,
        }
    }
}

fn main() -> Result<ExitCode, SpecError> {
    let labs = Labs::new()?;
    let argument = std::env::args().nth(1);
    let usual = run(&labs, &[], 8, Gap::Near, SEED).time();
    match argument.as_deref() {
        None => {
            headings();
            let missed = table(usual).iter().filter(|row| !print(&labs, row)).count();
            Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Some("each") => {
            headings();
            for manner in Manner::all() {
                let name = format!("{manner:?} and 1 honest");
                print(&labs, &row(&name, Gap::Near, vec![manner], 1, LIMIT, 150));
            }
            Ok(ExitCode::SUCCESS)
        }
        Some("draws") => {
            println!(
                "{:<44} {:>9} {:>9} {:>7} {:>7} {:>7}",
                format!("scenario, {DRAWS} draws"),
                "median",
                "worst",
                "waste",
                "worst",
                "missed"
            );
            let missed = table(usual).iter().filter(|row| !print_draws(&labs, row)).count();
            Ok(if missed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        Some(other) => {
            eprintln!("{other} is none of: each, draws");
            Ok(ExitCode::from(2))
        }
    }
}

/// The rows, where eight honest peers take so long.
fn table(usual: Duration) -> Vec<Row> {
    let minute = Duration::from_secs(60);
    let slow_loris = vec![Manner::Trickle(Duration::from_secs(4)); 30];
    let from_on = |from: usize, count: usize| {
        Manner::all().into_iter().cycle().skip(from).take(count).collect::<Vec<_>>()
    };
    let all = Manner::all().len();
    let mut rows = vec![
        row("8 honest", Gap::Near, Vec::new(), 8, minute, 105),
        row("8 honest", Gap::Far, Vec::new(), 8, minute, 105),
        row("1 honest", Gap::Near, Vec::new(), 1, minute, 105),
        row("1 honest", Gap::Far, Vec::new(), 1, minute, 105),
        row("1 honest and 30 silent", Gap::Near, vec![Manner::Silent; 30], 1, minute, 150),
        row("1 honest and 30 slow-loris", Gap::Near, slow_loris, 1, minute, 150),
    ];
    rows.extend((0..all).step_by(7).map(|from| {
        row(&format!("1 honest and 7 hostile ({from}..)"), Gap::Near, from_on(from, 7), 1, 5 * usual, 150)
    }));
    rows.extend(
        [Gap::Near, Gap::Far]
            .map(|gap| row(&format!("1 honest and {all} hostile"), gap, from_on(0, all), 1, minute, 150)),
    );
    rows
}

fn row(
    name: &str,
    gap: Gap,
    hostile: Vec<Manner>,
    honest: usize,
    time: Duration,
    waste_percent_max: u64,
) -> Row {
    Row { name: format!("{name}, gap {}", gap.commits()), gap, hostile, honest, time, waste_percent_max }
}

struct Outcome {
    world: World,
    client: NodeId,
    reached: bool,
}

impl Outcome {
    fn time(&self) -> Duration {
        Duration::from_micros(self.world.now().as_micros())
    }

    /// How many times what was needed was fetched, in bytes; where nothing was of use there is no ratio.
    fn waste(&self) -> Option<f64> {
        let traffic = self.world.traffic(self.client);
        (traffic.needed_bytes > 0).then(|| traffic.fetched_bytes as f64 / traffic.needed_bytes as f64)
    }
}

/// A client with nothing, hostile peers that each have their manner, and honest ones.
fn run(labs: &Labs, hostile: &[Manner], honest: usize, gap: Gap, seed: u64) -> Outcome {
    let lab = labs.of(gap);
    let mut world = World::seeded(Pace::default(), seed).without_checks();
    world.judged_by(lab.chain());
    let all = ChainStore::of(lab.genesis().clone(), lab.chain());
    let client = world.add(Config::default(), ChainStore::new(lab.genesis().clone()));
    let mut peers = Vec::new();
    for manner in hostile {
        let node = world.add(Config::default(), all.clone());
        misbehave(&mut world, node, vec![manner.clone()], lab);
        peers.push(node);
    }
    peers.extend((0..honest).map(|_| world.add(Config::default(), all.clone())));
    for peer in peers {
        world.set_link(client, peer, LINK);
        world.set_link(peer, client, LINK);
        world.connect(client, peer);
    }
    let tip = lab.chain().last().map_or(CommitRef::GENESIS, |made| made.header.reference);
    let reached = world.run_until(LIMIT, |world| world.machine(client).status().certifiable == tip);
    Outcome { world, client, reached }
}

impl Row {
    fn run(&self, labs: &Labs, seed: u64) -> Outcome {
        run(labs, &self.hostile, self.honest, self.gap, seed)
    }

    /// Whether it keeps to its goal.
    fn is_met_by(&self, outcome: &Outcome) -> bool {
        let traffic = outcome.world.traffic(outcome.client);
        let frugal = traffic.fetched_bytes * 100 <= traffic.needed_bytes * self.waste_percent_max;
        outcome.reached && outcome.time() <= self.time && frugal
    }
}

fn headings() {
    println!(
        "{:<44} {:>9} {:>6} {:>8} {:>8} {:>8} {:>8}",
        "scenario", "time", "waste", "requests", "timeouts", "given up", "offences"
    );
}

/// Prints a row; whether it keeps to its goal.
fn print(labs: &Labs, row: &Row) -> bool {
    let outcome = row.run(labs, SEED);
    let (took, good) = (outcome.time(), row.is_met_by(&outcome));
    let waste = outcome.waste().map_or("-".to_owned(), |waste| format!("{waste:.3}"));
    let Outcome { world, client, reached } = outcome;
    let (traffic, counters) = (world.traffic(client), world.machine(client).status().counters);
    let time = format!("{}{:.3} s", if reached { "" } else { "> " }, took.as_secs_f64());
    println!(
        "{:<44} {time:>9} {waste:>6} {:>8} {:>8} {:>8} {:>8}{}",
        row.name,
        traffic.requests,
        counters.timeouts,
        traffic.cancelled,
        counters.offences,
        if good { "" } else { "  MISSED" }
    );
    good
}

/// Prints what becomes of a row with other draws; whether its medians keep to its goal.
fn print_draws(labs: &Labs, row: &Row) -> bool {
    let outcomes: Vec<_> = (1..=DRAWS).map(|seed| row.run(labs, seed)).collect();
    let missed = outcomes.iter().filter(|outcome| !row.is_met_by(outcome)).count();
    let (time, slowest) = median_and_worst(outcomes.iter().map(|outcome| outcome.time().as_secs_f64()));
    let (waste, most) = median_and_worst(outcomes.iter().filter_map(Outcome::waste));
    let reached = outcomes.iter().all(|outcome| outcome.reached);
    let good = reached && time <= row.time.as_secs_f64() && waste * 100.0 <= row.waste_percent_max as f64;
    println!(
        "{:<44} {time:>7.3} s {slowest:>7.3} s {waste:>7.3} {most:>7.3} {missed:>7}{}",
        row.name,
        if good { "" } else { "  MISSED" }
    );
    good
}

fn median_and_worst(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    let at = |place: usize| values.get(place).copied().unwrap_or(f64::NAN);
    (at(values.len() / 2), at(values.len().saturating_sub(1)))
}
