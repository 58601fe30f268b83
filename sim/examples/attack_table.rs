//! Prints one table: what a gap costs to close under attack. Virtual time, so exact, and the same on every machine. Ends
//! with exit code 1 where a row misses what is asked of it: a time, and how many times the bytes needed may be fetched.
//!
//! ```sh
//! cargo run --release -p soma-sync-sim --example attack_table
//! cargo run --release -p soma-sync-sim --example attack_table -- each    # every manner alone, beside one honest peer
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

const LINK: Link = Link {
    latency: Duration::from_millis(20),
    jitter: Duration::from_millis(10),
    bandwidth: 12_500_000,
    loss_per_million: 0,
};

/// What a row must keep to.
#[derive(Clone, Copy)]
struct Goal {
    time: Duration,
    waste_percent_max: u64,
}

fn main() -> Result<ExitCode, SpecError> {
    let spec = |commits| ChainSpec {
        commits,
        blocks_per_commit: 10,
        payload_bytes: 1024,
        committee: 4,
        epochs: 2,
        seed: 7,
    };
    let (near, far) = (Rc::new(Lab::new(spec(64))?), Rc::new(Lab::new(spec(1_000))?));
    println!(
        "{:<44} {:>9} {:>6} {:>8} {:>8} {:>8} {:>8}",
        "scenario", "time", "waste", "requests", "timeouts", "given up", "offences"
    );
    if std::env::args().any(|argument| argument == "each") {
        for manner in Manner::all() {
            print(&format!("{manner:?} and 1 honest, gap 64"), run(&near, vec![manner], 1), goal(LIMIT, 150));
        }
        return Ok(ExitCode::SUCCESS);
    }
    let slow_loris = |count| vec![Manner::Trickle(Duration::from_secs(4)); count];
    let each_its_own = |count: usize, from: usize| {
        let manners = Manner::all();
        manners.into_iter().cycle().skip(from).take(count).collect::<Vec<_>>()
    };
    let honest = run(&near, Vec::new(), 8);
    let usual = honest.time();
    let minute = Duration::from_secs(60);
    let mut good = print("8 honest, gap 64", honest, goal(minute, 105));
    good &= print("8 honest, gap 1000", run(&far, Vec::new(), 8), goal(minute, 105));
    good &= print("1 honest, gap 64", run(&near, Vec::new(), 1), goal(minute, 105));
    good &= print("1 honest, gap 1000", run(&far, Vec::new(), 1), goal(minute, 105));
    let silent = vec![Manner::Silent; 30];
    good &= print("1 honest and 30 silent, gap 64", run(&near, silent, 1), goal(minute, 150));
    good &= print("1 honest and 30 slow-loris, gap 64", run(&near, slow_loris(30), 1), goal(minute, 150));
    for from in (0..Manner::all().len()).step_by(7) {
        let name = format!("1 honest and 7 hostile ({from}..), gap 64");
        good &= print(&name, run(&near, each_its_own(7, from), 1), goal(5 * usual, 150));
    }
    let all = Manner::all().len();
    let name = |gap| format!("1 honest and {all} hostile, gap {gap}");
    good &= print(&name(64), run(&near, each_its_own(all, 0), 1), goal(minute, 150));
    good &= print(&name(1_000), run(&far, each_its_own(all, 0), 1), goal(minute, 150));
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

const fn goal(time: Duration, waste_percent_max: u64) -> Goal {
    Goal { time, waste_percent_max }
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
}

/// A client with nothing, hostile peers that each have their manner, and honest ones.
fn run(lab: &Rc<Lab>, hostile: Vec<Manner>, honest: usize) -> Outcome {
    let mut world = World::seeded(Pace::default(), 1).without_checks();
    world.judged_by(lab.chain());
    let all = ChainStore::of(lab.genesis().clone(), lab.chain());
    let client = world.add(Config::default(), ChainStore::new(lab.genesis().clone()));
    let mut peers = Vec::new();
    for manner in hostile {
        let node = world.add(Config::default(), all.clone());
        misbehave(&mut world, node, vec![manner], lab);
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

/// Prints a row; whether it keeps to its goal.
fn print(name: &str, outcome: Outcome, goal: Goal) -> bool {
    let took = outcome.time();
    let Outcome { world, client, reached } = outcome;
    let (traffic, counters) = (world.traffic(client), world.machine(client).status().counters);
    let time = format!("{}{:.3} s", if reached { "" } else { "> " }, took.as_secs_f64());
    // Of what was fetched, in bytes; where nothing was of use there is no ratio.
    let waste = match traffic.needed_bytes {
        0 => "-".to_owned(),
        needed => format!("{:.3}", traffic.fetched_bytes as f64 / needed as f64),
    };
    let frugal = traffic.fetched_bytes * 100 <= traffic.needed_bytes * goal.waste_percent_max;
    let good = reached && took <= goal.time && frugal;
    println!(
        "{name:<44} {time:>9} {waste:>6} {:>8} {:>8} {:>8} {:>8}{}",
        traffic.requests,
        counters.timeouts,
        traffic.cancelled,
        counters.offences,
        if good { "" } else { "  MISSED" }
    );
    good
}
