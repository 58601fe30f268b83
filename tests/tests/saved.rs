//! A machine's state as bytes: what was saved is restored, in this version and in later ones of its layout, and what is
//! damaged is refused.

use soma_sync_core::{
    Config, Event, RestoreError, SyncMachine, Timestamp,
    start::{Start, StoredVotes, Tip},
    types::{AuthorityIndex, CommitDigest, CommitIndex, CommitRef, PeerId},
};
use soma_sync_proto::trace::fingerprint;
use soma_sync_tests::{fuzz::seeded, fuzz_machine::machine_after, trace_samples};
use std::{collections::BTreeSet, env, fs, path::Path};

/// Machines in the midst of things, some of them halted.
fn machines() -> impl Iterator<Item = SyncMachine> {
    (0..400).filter_map(|seed| machine_after(&seeded(seed, 1_500)))
}

fn save(machine: &SyncMachine) -> Vec<u8> {
    machine.save().expect("no commands wait")
}

#[test]
fn a_state_is_read_otherwise_than_it_was_saved_though_its_layout_has_the_same_number() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/states");
    if env::var_os("SOMA_SYNC_REGENERATE").is_some() {
        fs::create_dir_all(&folder).unwrap();
        let halted = machines().find(|machine| machine.status().halted.is_some());
        let largest = machines().max_by_key(|machine| save(machine).len());
        let busiest = machines().max_by_key(|machine| machine.status().jobs_running);
        for (name, machine) in [("halted", halted), ("largest", largest), ("busiest", busiest)] {
            fs::write(folder.join(name), save(&machine.unwrap())).unwrap();
        }
    }
    let texts: Vec<_> = ["halted", "largest", "busiest"]
        .into_iter()
        .map(|name| {
            let state = fs::read(folder.join(name)).unwrap();
            let machine = SyncMachine::restore(&state).unwrap_or_else(|error| {
                panic!("{name}: {error}: give the layout another number and write the files anew")
            });
            assert!(save(&machine) == state, "{name}: give the layout another number");
            // Fields that changed places are seen by their names.
            fingerprint(format!("{machine:?}").as_bytes())
        })
        .collect();
    assert_eq!(texts, GOLDEN, "a field has another value: give the layout another number");
}

/// Of the machines' texts.
const GOLDEN: [u64; 3] = [5_000_767_412_379_952_374, 5_842_867_192_661_451_369, 6_667_018_026_515_722_919];

#[test]
fn damage_makes_a_machine_that_is_not_sound_or_an_error_never_happens() {
    let small =
        machines().map(|machine| save(&machine)).filter(|state| (2_500..4_000).contains(&state.len()));
    let mut seen = BTreeSet::new();
    let mut taken = 0;
    for state in small.take(2) {
        for place in 0..state.len() {
            assert!(SyncMachine::restore(&state[..place]).is_err(), "cut at {place}");
            for change in [1 << (place % 8), 0xff] {
                let mut damaged = state.clone();
                damaged[place] ^= change;
                match SyncMachine::restore(&damaged) {
                    Ok(machine) => {
                        taken += 1;
                        assert_eq!(machine.check_invariants(), Ok(()));
                        assert!(save(&machine) == damaged, "another encoding of the same at {place}");
                    }
                    Err(error) => _ = seen.insert(variant(&error)),
                }
            }
        }
        let longer = [&state[..], &[0]].concat();
        assert!(matches!(SyncMachine::restore(&longer), Err(RestoreError::Decode(_))));
    }
    println!("{taken} damaged states are sound");
    assert_eq!(seen.len(), 6, "{seen:?}");
}

const fn variant(error: &RestoreError) -> &'static str {
    match error {
        RestoreError::Layout { .. } => "layout",
        RestoreError::Decode(_) => "decode",
        RestoreError::Damaged(_) => "damaged",
        RestoreError::Committee(_) => "committee",
        RestoreError::Config(_) => "config",
        RestoreError::Inconsistent(_) => "inconsistent",
    }
}

/// A machine of which many stored commits wait for votes.
fn waiting(commits: u32) -> SyncMachine {
    let commit = |index| CommitRef { index: CommitIndex::new(index), digest: CommitDigest::new([1; 32]) };
    let start = trace_samples::start();
    let epoch = start.tip.epoch;
    let votes = (1..=commits)
        .map(|index| StoredVotes { commit: commit(index), epoch, voters: vec![AuthorityIndex::ZERO] })
        .collect();
    let tip = Tip { reference: commit(commits), ..start.tip };
    let (certifiable, lowest_available) = (CommitRef::GENESIS, CommitIndex::GENESIS);
    let start = Start { tip, certifiable, lowest_available, votes, next_committee: None, ..start };
    SyncMachine::new(Config::default(), start, Timestamp::ZERO, [1; 32]).unwrap()
}

#[test]
fn a_committee_is_kept_once_for_each_commit_that_waits_for_votes() {
    let (few, many) = (save(&waiting(1)), save(&waiting(101)));
    let each = (many.len() - few.len()) / 100;
    assert!(each < 64, "{each} bytes");
}

#[test]
fn a_state_of_another_layout_is_taken() {
    let mut state = save(&waiting(1));
    let expected = SyncMachine::STATE_LAYOUT;
    state[..4].copy_from_slice(&(expected + 1).to_le_bytes());
    let refused = RestoreError::Layout { found: expected + 1, expected };
    assert_eq!(SyncMachine::restore(&state), Err(refused));
}

#[test]
fn commands_that_wait_are_lost_from_a_state() {
    let mut machine = waiting(1);
    machine.handle(Timestamp::ZERO, Event::PeerConnected { peer: PeerId::new([1; 32]) });
    assert_eq!(machine.save(), None);
    while machine.poll_command().is_some() {}
    assert_eq!(SyncMachine::restore(&save(&machine)), Ok(machine));
}
