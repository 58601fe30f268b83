//! Every fuzz target without a fuzzer: its body on the corpus that is committed for it, on that corpus damaged, and on
//! bytes drawn from seeds; and that none is left out.

use soma_sync_core::Counters;
use soma_sync_tests::{
    fuzz::{self, TARGETS, seeded},
    fuzz_config, fuzz_jobs,
    fuzz_machine::{self, serve::server_requests},
    fuzz_network::mini_network,
    fuzz_store::{Opened, store_model, store_open},
    mirror::judge::{Blame, Ruling},
};
use std::{collections::BTreeSet, fs, path::PathBuf};

fn fuzz_folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz")
}

/// The corpus that is committed for a target, by file name.
fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = fuzz_folder().join("corpus").join(target);
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<_> = entries
        .map(|entry| {
            let path = entry.expect("an entry").path();
            (path.display().to_string(), fs::read(&path).expect("a file"))
        })
        .collect();
    files.sort();
    files
}

/// Runs a body on its corpus; on `damaged` changes of it by a few bytes; and on `drawn` inputs of many lengths.
fn run(target: &str, damaged: u64, drawn: u64) {
    let corpus = corpus(target);
    for (name, file) in &corpus {
        println!("{name}");
        fuzz::run(target, file);
    }
    for seed in 0..damaged {
        let (_, file) = &corpus[seed as usize % corpus.len()];
        let mut file = file.clone();
        for change in seeded(seed, 9).chunks(3) {
            let [high, low, byte] = *change else { unreachable!("three bytes a change") };
            let at = usize::from(high) << 8 | usize::from(low);
            if let Some(changed) = at.checked_rem(file.len()).and_then(|at| file.get_mut(at)) {
                *changed = byte;
            }
        }
        fuzz::run(target, &file);
    }
    for seed in 0..drawn {
        let len = [8, 40, 150, 600][seed as usize % 4];
        fuzz::run(target, &seeded(seed, len));
    }
}

#[test]
fn a_target_is_not_in_the_table_or_is_in_it_only() {
    let named: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let targets = fs::read_dir(fuzz_folder().join("fuzz_targets")).expect("the targets");
    let files =
        targets.map(|entry| entry.expect("an entry").path().file_stem().unwrap().to_string_lossy().into());
    assert_eq!(files.collect::<BTreeSet<String>>(), named);
    let manifest = fs::read_to_string(fuzz_folder().join("Cargo.toml")).expect("its manifest");
    for name in &named {
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name} is not built");
    }
}

#[test]
fn a_target_has_no_corpus_or_an_unwieldy_one() {
    for (target, _) in TARGETS {
        let corpus = corpus(target);
        assert!((5..=40).contains(&corpus.len()), "{target}: a corpus of {} files", corpus.len());
        for (name, file) in corpus {
            assert!(file.len() <= 16 * 1024, "{name} has {} bytes", file.len());
        }
    }
}

#[test]
fn a_format_is_read_otherwise_than_by_the_independent_decoder() {
    run("decode_block", 1_000, 500);
    run("decode_commit", 1_000, 500);
    run("decode_validator_set", 1_000, 500);
}

#[test]
fn a_message_that_was_read_is_written_otherwise() {
    run("decode_message", 2_000, 1_000);
}

#[test]
fn a_chain_file_that_was_read_is_written_otherwise() {
    run("read_chain_file", 1_000, 100);
}

#[test]
fn a_sequence_of_events_that_was_kept_breaks_an_invariant() {
    run("machine_inputs", 100, 0);
}

#[test]
fn where_a_stream_is_cut_matters_to_what_is_read() {
    run("framing", 5_000, 5_000);
}

#[test]
fn a_message_is_not_read_as_it_was_written() {
    run("wire_round_trip", 3_000, 3_000);
}

#[test]
fn the_certifying_job_and_the_plain_judge_differ() {
    run("certify", 300, 200);
    let rulings: Vec<_> = (0..1_000).filter_map(|seed| fuzz_jobs::certify(&seeded(seed, 300)).ok()).collect();
    let count = |of: fn(&Ruling) -> bool| rulings.iter().filter(|ruling| of(ruling)).count();
    for (what, how_often) in [
        ("certified", count(|ruling| matches!(ruling, Ruling::Certified { bad: 0, .. }))),
        (
            "certified beside bad certifiers",
            count(|ruling| matches!(ruling, Ruling::Certified { bad: 1.., .. })),
        ),
        ("of another epoch", count(|ruling| matches!(ruling, Ruling::OtherEpoch(_)))),
        ("refused", count(|ruling| matches!(ruling, Ruling::Refused))),
        ("the committee's fault", count(|ruling| matches!(ruling, Ruling::CommitteesFault(_)))),
    ] {
        println!("{what}: {how_often}");
        assert!(how_often > 10, "hardly ever: {what}");
    }
}

#[test]
fn the_checking_job_and_the_plain_judge_differ() {
    run("check", 300, 200);
    let checked: Vec<_> = (0..1_000).filter_map(|seed| fuzz_jobs::check(&seeded(seed, 300)).ok()).collect();
    for blame in [Blame::Nobody, Blame::Sender, Blame::Committee] {
        let how_often = checked.iter().flatten().filter(|found| **found == blame).count();
        println!("{blame:?}: {how_often}");
        assert!(how_often > 100, "hardly ever: {blame:?}");
    }
}

#[test]
fn a_machine_goes_another_way_from_a_copy() {
    run("machine_snapshot", 100, 0);
    let copied = (0..300).filter_map(|seed| fuzz_machine::machine_snapshot(&seeded(seed, 3_000)));
    let copies: usize = copied.map(|outcome| outcome.most_commands).sum();
    println!("{copies} copies");
    assert!(copies > 10_000, "hardly any copy was made");
}

#[test]
fn a_request_is_answered_twice_or_never_or_too_often() {
    run("server_requests", 500, 0);
    let statuses: Vec<_> = (0..1_500).filter_map(|seed| server_requests(&seeded(seed, 2_000))).collect();
    let count = |of: fn(&Counters) -> u64| statuses.iter().map(|status| of(&status.counters)).sum::<u64>();
    for (what, how_often) in [
        ("a request waited", count(|counters| counters.queued_requests)),
        ("a peer asked too often or for too much", count(|counters| counters.refused_rate)),
        ("a peer asked for the same again", count(|counters| counters.refused_repeats)),
        ("there was no room", count(|counters| counters.refused_room)),
        ("a peer broke the rules too often", count(|counters| counters.offences)),
    ] {
        println!("{what}: {how_often}");
        assert!(how_often > 100, "hardly ever: {what}");
    }
    let grown = statuses.iter().filter(|status| status.certifiable.index.get() > 40).count();
    assert!(grown > 100, "the chain hardly ever grew");
}

#[test]
fn a_configuration_is_refused_for_nothing_or_does_not_work() {
    run("configuration", 1_000, 0);
    let ran = (0..1_500).filter_map(|seed| fuzz_config::configuration(&seeded(seed, 1_000)));
    let events: Vec<_> = ran.map(|outcome| outcome.events).collect();
    println!("{} of 1500 ran, {} events", events.len(), events.iter().sum::<usize>());
    assert!((150..1_350).contains(&events.len()), "nearly all are accepted, or nearly none");
}

#[test]
fn what_goes_wrong_in_a_network_breaks_a_rule_or_lasts() {
    run("mini_network", 40, 0);
    let ends: Vec<_> = (0..250).filter_map(|seed| mini_network(&seeded(seed, 120))).collect();
    let count = |of: fn(&Counters) -> u64| ends.iter().filter(|status| of(&status.counters) > 0).count();
    for (what, how_often) in [
        ("a peer offended", count(|counters| counters.offences)),
        ("a request timed out", count(|counters| counters.timeouts)),
    ] {
        println!("{what} in {how_often} of {} networks", ends.len());
        assert!(how_often > 20, "hardly ever: {what}");
    }
}

#[test]
fn the_durable_store_differs_from_the_one_in_memory() {
    run("store_model", 10, 0);
    let held: Vec<_> = (0..40).map(|seed| store_model(&seeded(seed, 120))).collect();
    assert!(held.iter().filter(|held| **held > 6).count() > 8, "hardly any commit is stored: {held:?}");
}

#[test]
fn a_changed_file_gives_what_was_never_stored_or_a_panic() {
    run("store_open", 20, 0);
    let opened: Vec<_> = (0..300).map(|seed| store_open(&seeded(seed, 4 + seed as usize % 12))).collect();
    let whole = opened.iter().filter(|opened| **opened == Opened::Whole).count();
    println!("{whole} of {} opened", opened.len());
    assert!(whole > 10 && opened.len() - whole > 10, "{whole} of {} opened", opened.len());
}

#[test]
fn a_key_or_an_identity_file_is_taken_for_another() {
    run("peer_key", 1_000, 500);
}
