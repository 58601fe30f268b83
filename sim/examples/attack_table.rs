//! Prints one table: what a gap costs to close under attack. Virtual time, so exact, and the same on every machine.
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
use std::{rc::Rc, time::Duration};

/// How long a scenario may take, in virtual time.
const LIMIT: Duration = Duration::from_secs(600);

const LINK: Link = Link {
    latency: Duration::from_millis(20),
    jitter: Duration::from_millis(10),
    bandwidth: 12_500_000,
    loss_per_million: 0,
};

fn main() -> Result<(), SpecError> {
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
            print(&format!("{manner:?} and 1 honest, gap 64"), run(&near, vec![manner], 1));
        }
        return Ok(());
    }
    let slow_loris = |count| vec![Manner::Trickle(Duration::from_secs(4)); count];
    let each_its_own = |count: usize, from: usize| {
        let manners = Manner::all();
        manners.into_iter().cycle().skip(from).take(count).collect::<Vec<_>>()
    };
    print("8 honest, gap 64", run(&near, Vec::new(), 8));
    print("8 honest, gap 1000", run(&far, Vec::new(), 8));
    print("1 honest, gap 64", run(&near, Vec::new(), 1));
    print("1 honest, gap 1000", run(&far, Vec::new(), 1));
    print("1 honest and 30 silent, gap 64", run(&near, vec![Manner::Silent; 30], 1));
    print("1 honest and 30 slow-loris, gap 64", run(&near, slow_loris(30), 1));
    for from in (0..Manner::all().len()).step_by(7) {
        let name = format!("1 honest and 7 hostile ({from}..), gap 64");
        print(&name, run(&near, each_its_own(7, from), 1));
    }
    let all = Manner::all().len();
    print(&format!("1 honest and {all} hostile, gap 64"), run(&near, each_its_own(all, 0), 1));
    print(&format!("1 honest and {all} hostile, gap 1000"), run(&far, each_its_own(all, 0), 1));
    Ok(())
}

struct Outcome {
    world: World,
    client: NodeId,
    reached: bool,
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

fn print(name: &str, Outcome { world, client, reached }: Outcome) {
    let (traffic, counters) = (world.traffic(client), world.machine(client).status().counters);
    let time = world.now().as_micros() as f64 / 1e6;
    let time = if reached { format!("{time:.3} s") } else { format!("> {time:.0} s") };
    // Of what was fetched, in bytes; where nothing was of use there is no ratio.
    let waste = match traffic.needed_bytes {
        0 => "-".to_owned(),
        needed => format!("{:.3}", traffic.fetched_bytes as f64 / needed as f64),
    };
    println!(
        "{name:<44} {time:>9} {waste:>6} {:>8} {:>8} {:>8} {:>8}",
        traffic.requests, counters.timeouts, traffic.cancelled, counters.offences
    );
}
