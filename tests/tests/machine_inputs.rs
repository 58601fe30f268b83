//! The machine, driven by random sequences of events, without any runtime.

use soma_sync_tests::{
    fuzz::seeded,
    fuzz_machine::{Outcome, machine_inputs, machine_inputs_then_completion},
};

/// How many times as many sequences are run as in the ordinary test run: `SOMA_SYNC_SEQUENCES_TIMES`.
fn times() -> u64 {
    let times = std::env::var("SOMA_SYNC_SEQUENCES_TIMES").ok();
    times.map_or(1, |times| times.parse().expect("a number of times"))
}

#[test]
fn no_sequence_of_events_breaks_an_invariant() {
    let outcomes: Vec<Outcome> =
        (0..5_000 * times()).filter_map(|seed| machine_inputs(&seeded(seed, 3_000))).collect();
    let events: usize = outcomes.iter().map(|outcome| outcome.events).sum();
    let commands = outcomes.iter().map(|outcome| outcome.most_commands).max().unwrap_or(0);
    let count = |of: fn(&Outcome) -> bool| outcomes.iter().filter(|outcome| of(outcome)).count();
    println!("{} sequences, {events} events, at most {commands} commands for one", outcomes.len());
    assert!(commands <= 200, "{commands} commands for one event");

    // What the sequences must come upon, or they test little.
    let reached = [
        ("an epoch's end was passed", count(|outcome| outcome.status.counters.stored_commits > 13)),
        ("a commit became certifiable", count(|outcome| outcome.status.certifiable.index.get() > 0)),
        ("the machine halted", count(|outcome| outcome.status.halted.is_some())),
        ("the machine stalled", count(|outcome| outcome.status.stall.is_some())),
        ("a peer offended", count(|outcome| outcome.status.counters.offences > 0)),
        ("a request timed out", count(|outcome| outcome.status.counters.timeouts > 0)),
        ("a second peer was asked", count(|outcome| outcome.status.counters.hedges > 0)),
        ("a request that waited was answered", count(|outcome| outcome.status.counters.followed > 0)),
        ("a worker died", count(|outcome| outcome.status.counters.worker_failures > 0)),
        ("commits were given up to make room", count(|outcome| outcome.status.counters.evicted > 0)),
    ];
    for (what, how_often) in reached {
        println!("{what} in {how_often} sequences");
        assert!(how_often > 0, "never: {what}");
    }
}

#[test]
fn once_faults_stop_one_honest_peer_is_enough_to_reach_its_tip() {
    let (mut runs, mut reached, mut wedges) = (0, 0, Vec::new());
    for len in [60, 150, 400, 1_000, 3_000] {
        for seed in 0..3_000 * times() {
            let bytes = seeded(seed, len);
            match machine_inputs_then_completion(&bytes, false) {
                None => {}
                Some(Ok(outcome)) => {
                    runs += 1;
                    reached += usize::from(outcome.status.halted.is_none());
                }
                Some(Err(why)) => {
                    runs += 1;
                    wedges.push((len, seed, why));
                }
            }
        }
    }
    println!("{runs} sequences, {reached} reached the tip, {} wedged", wedges.len());
    assert!(reached > runs / 4, "most sequences halted: the completion tests little");
    if let Some((len, seed, why)) = wedges.first() {
        for (len, seed, why) in &wedges {
            println!("len {len} seed {seed}: {}", why.lines().next().unwrap_or_default());
        }
        let full = machine_inputs_then_completion(&seeded(*seed, *len), true);
        std::fs::write(
            std::env::temp_dir().join("wedge.txt"),
            format!("{:?}", full.map(Result::err)).replace("\\n", "\n"),
        )
        .ok();
        panic!("{} wedges; the first, of seed {seed} and length {len}: {why}", wedges.len());
    }
}
