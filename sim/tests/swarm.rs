//! Networks drawn from seeds: that they repeat, that each fault takes effect, and that what is found is reported.

mod common;

use common::Chain;
use soma_sync_core::{Config, Event};
use soma_sync_sim::{
    fault::{Fault, FaultSet},
    swarm::{Plan, Role, Settings, Theatre, run, run_seeds},
    violation::Invariant,
    world::{NodeId, Pace, World},
};
use std::{sync::atomic::AtomicBool, time::Duration};

const SMALL: Settings = Settings { nodes: 4, commits: 16, faults: FaultSet::NONE };

fn all(settings: Settings) -> Settings {
    Settings { faults: FaultSet::all(), ..settings }
}

/// Changes whenever any of these networks goes another way, in any event or command; then, and only then, it is written
/// anew (`SOMA_SYNC_REGENERATE=1`). It is the same on every platform and in every profile. Chains with real BLS keys are
/// others, and so is what a core does that lacks a defence.
#[cfg(not(any(feature = "bls", feature = "defence-switches")))]
#[test]
fn networks_of_the_same_seeds_go_another_way() {
    let mut hashes = String::new();
    let mut theatre = Theatre::default();
    for (nodes, commits, seeds) in [(2, 8, 4), (4, 16, 12), (8, 64, 4)] {
        for seed in 0..seeds {
            let outcome = run(&Plan::draw(seed, all(Settings { nodes, commits, ..SMALL })), &mut theatre);
            let hex: String = outcome.hash.iter().map(|byte| format!("{byte:02x}")).collect();
            hashes.push_str(&format!("{nodes} {commits} {seed} {hex}\n"));
        }
    }
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/networks.txt");
    if std::env::var_os("SOMA_SYNC_REGENERATE").is_some() {
        std::fs::write(path, &hashes).unwrap();
    }
    let golden = std::fs::read_to_string(path).unwrap();
    for (found, expected) in hashes.lines().zip(golden.lines()) {
        assert_eq!(found, expected, "see CONTRIBUTING.md, how it is tested");
    }
    assert_eq!(hashes.lines().count(), golden.lines().count());
}

#[test]
fn what_was_verified_before_or_the_number_of_threads_changes_what_happens() {
    let stop = AtomicBool::new(false);
    let of = |jobs| run_seeds(20..32, all(SMALL), None, jobs, &stop, &mut |_| {});
    assert_eq!(of(1), of(3));
    let plan = Plan::draw(23, all(SMALL));
    let anew = Plan { verifies_anew: !plan.verifies_anew, ..plan.clone() };
    assert_eq!(run(&plan, &mut Theatre::default()), run(&anew, &mut Theatre::default()));
}

#[test]
fn a_run_that_is_stopped_says_more_than_it_ran() {
    let stop = AtomicBool::new(false);
    let mut seen = 0;
    let summary = run_seeds(0..1_000, SMALL, None, 2, &stop, &mut |report| {
        assert_eq!(report.seed, seen);
        seen += 1;
        stop.store(seen >= 3, std::sync::atomic::Ordering::Relaxed);
    });
    assert!(summary.runs >= 3 && summary.runs < 1_000 && summary.runs == seen, "{}", summary.runs);
}

#[test]
fn a_fault_never_takes_effect() {
    let settings = all(Settings { nodes: 6, commits: 24, ..SMALL });
    let summary = run_seeds(0..160, settings, None, 2, &AtomicBool::new(false), &mut |_| {});
    let idle: Vec<_> = Fault::ALL.iter().filter(|fault| summary.hits.of(**fault) == 0).collect();
    assert!(idle.is_empty(), "{idle:?}");
}

#[test]
fn a_fault_that_is_not_asked_for_takes_effect() {
    let summary = run_seeds(0..6, SMALL, None, 2, &AtomicBool::new(false), &mut |_| {});
    let active = Fault::ALL.iter().filter(|fault| summary.hits.of(**fault) > 0);
    // Workers may all be busy without anybody's doing anything about it.
    let active: Vec<_> = active.filter(|fault| **fault != Fault::SaturatedVerifier).collect();
    assert!(active.is_empty(), "{active:?}");
    assert_eq!(summary.violations, 0, "{:?}", summary.failures);
}

#[test]
fn a_fault_that_is_taken_away_changes_others() {
    let settings = all(Settings { nodes: 8, commits: 64, ..SMALL });
    for seed in 0..50 {
        let plan = Plan::draw(seed, settings);
        for fault in plan.on.iter().filter(|fault| !fault.is_hostile()) {
            let fewer = Settings { faults: settings.faults.without(fault), ..settings };
            let without = Plan::draw(seed, fewer);
            assert_eq!(without.roles, plan.roles);
            assert_eq!((without.calm, without.spec, &without.edges), (plan.calm, plan.spec, &plan.edges));
            let rest: Vec<_> = plan.episodes.iter().filter(|episode| episode.fault != fault).collect();
            assert_eq!(without.episodes.iter().collect::<Vec<_>>(), rest);
        }
    }
}

#[test]
fn a_fault_of_the_core_goes_on_when_faults_have_stopped() {
    for seed in 0..200 {
        let plan = Plan::draw(seed, all(Settings { nodes: 8, commits: 64, ..SMALL }));
        for episode in &plan.episodes {
            assert!(episode.at < episode.until && episode.at < plan.calm);
            assert!(episode.until <= plan.calm || !plan.roles[episode.node].is_core(), "{episode:?}");
            // The world's clock counts microseconds: an end between two of them would never be met.
            assert_eq!((episode.at.as_nanos() % 1_000, episode.until.as_nanos() % 1_000), (0, 0));
        }
    }
}

#[test]
fn the_core_has_no_server_or_nobody_to_serve() {
    for seed in 0..200 {
        for nodes in [2, 3, 8] {
            let plan = Plan::draw(seed, all(Settings { nodes, ..SMALL }));
            assert!(
                matches!(plan.roles[0], Role::Anchor { .. }) && matches!(plan.roles[1], Role::Victim { .. })
            );
            assert!(plan.edges.contains(&(0, 1)));
            let hostile = plan.roles.iter().filter(|role| role.is_hostile()).count();
            assert!(hostile <= nodes as usize - 2);
        }
    }
}

#[test]
fn the_time_that_a_core_may_take_is_another() {
    let bound = |nodes, commits| Plan::draw(1, Settings { nodes, commits, ..SMALL }).bound();
    assert_eq!(bound(2, 1), Duration::from_secs(30));
    assert_eq!(bound(8, 64), Duration::from_secs(30));
    assert_eq!(bound(64, 256), Duration::from_secs(60));
}

#[test]
fn a_violation_that_is_collected_ends_the_process_or_is_lost() {
    let (chain, other) = (Chain::of(20, 1), Chain::of(20, 2));
    let mut world = World::new(Pace::default()).collecting().of_sound_committees();
    world.judged_by(&other.commits);
    let client = world.add(Config::default(), chain.first(5));
    let server = world.add(Config::default(), chain.all());
    world.set_hostile(server);
    world.connect(client, server);
    assert!(!world.run_until(Duration::from_secs(60), |_| false));
    assert_eq!(world.violation().map(|violation| violation.invariant), Some(Invariant::MadeOnly));
    assert!(world.now().as_micros() < 1_000_000, "it went on");
}

/// A machine is a value: what is copied from it at any moment and told the same does the same.
#[test]
fn a_copy_of_a_machine_goes_another_way() {
    let chain = Chain::of(60, 3);
    for steps in [0, 1, 5, 12, 25] {
        let (mut world, client, _) = common::world(&chain, common::small_requests(), 0, 3);
        let handled = |world: &World, node: NodeId| world.events_of(node);
        world.run_until(Duration::from_secs(60), |world| handled(world, client) >= steps);
        let mut copy = world.machine(client).clone();
        assert_eq!(copy.state_hash(), world.machine(client).state_hash());
        world.record(client);
        common::must_reach(&mut world, client, chain.tip());
        let events: Vec<(_, Event)> = world.recorded(client).to_vec();
        assert!(!events.is_empty());
        for (at, event) in events {
            copy.handle(at, event);
            while copy.poll_command().is_some() {}
        }
        assert_eq!(copy.state_hash(), world.machine(client).state_hash(), "copied after {steps} events");
    }
}
