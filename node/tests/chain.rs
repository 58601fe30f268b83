//! `soma-sync chain`, on the real program.

mod common;

use common::{Bench, last_line_json, stderr, vectors};
use serde_json::Value;
use soma_sync_core::config::Limits;
use soma_sync_proto::chain_file::ChainReader;
use soma_sync_sim::chain::{ChainMaker, ChainSpec};
use std::{
    fs,
    process::{Command, Stdio},
    thread,
};

/// A small chain of two epochs: commits 1 to 6, and 7 to 12.
const CHAIN: &str = "chain generate --out chain.bin --commits 12 --epochs 2 --payload-bytes 64 --seed 3";

/// The encoded commits and blocks of a chain file, and the numbers of its certifiers.
type Contents = (Vec<Vec<Vec<u8>>>, Vec<usize>);

fn contents(file: &[u8]) -> Contents {
    let mut reader = ChainReader::open(file, Limits::default()).expect("a chain file");
    let (mut commits, mut certifiers) = (Vec::new(), Vec::new());
    while let Some(record) = reader.next_record().expect("a whole chain file") {
        let payloads = std::iter::once(&record.commit).chain(&record.blocks);
        commits.push(payloads.map(|payload| payload.bytes().to_vec()).collect());
        certifiers.push(record.certifiers.len());
    }
    (commits, certifiers)
}

#[test]
fn a_generated_chain_comes_back_from_a_store_byte_for_byte() {
    for arguments in [
        "--commits 12 --epochs 3 --payload-bytes 64",
        "--commits 5 --committee 1 --blocks-per-commit 3 --epochs 5",
        "--commits 9 --committee 20 --payload-bytes 1KiB",
        "--commits 3 --committee 100 --blocks-per-commit 100 --epochs 2 --payload-bytes 0",
        "--commits 30 --blocks-per-commit 1 --committee 7 --epochs 2",
        "--commits 0",
    ] {
        let bench = Bench::new();
        let made = bench.json(&format!("chain generate --out chain.bin --seed 3 {arguments}"));
        let verified = bench.json("chain verify chain.bin");
        let imported = bench.json("chain import chain.bin --store store");
        let stored = bench.json("chain verify --store store");
        let exported = bench.json("chain export --store store --out again.bin");
        assert!(bench.read("chain.bin") == bench.read("again.bin"), "{arguments}");
        assert_eq!(made["bytes"], bench.read("chain.bin").len());
        for result in [&verified, &imported, &stored, &exported] {
            assert_eq!(
                [&result["commits"], &result["blocks"]],
                [&made["commits"], &made["blocks"]],
                "{arguments}"
            );
            assert_eq!(result["tip"], made["tip"]);
        }
        assert_eq!([&verified["ok"], &stored["ok"]], [true, true]);
        assert_eq!(verified["first_error"], Value::Null);
    }
}

#[test]
fn the_same_arguments_give_the_same_file_and_another_seed_another_one() {
    let bench = Bench::new();
    for (out, seed) in [("a", 1), ("b", 1), ("c", 2)] {
        bench.json(&format!("chain generate --out {out} --commits 4 --epochs 2 --seed {seed}"));
    }
    assert_eq!(bench.read("a"), bench.read("b"));
    assert_ne!(bench.read("a"), bench.read("c"));
}

#[test]
fn the_originals_chain_is_verified_imported_and_exported() {
    let Some(vectors) = vectors() else { return };
    let original = fs::read(vectors.join("chain.bin")).expect("it is there");
    let facts: Value = serde_json::from_slice(&fs::read(vectors.join("chain.json")).unwrap()).unwrap();
    let last = facts["vectors"].as_array().and_then(|commits| commits.last()).expect("there are commits");
    let bench = Bench::new();
    bench.write("chain.bin", &original);

    let verified = bench.json("chain verify chain.bin");
    assert_eq!(verified["ok"], true);
    assert_eq!([&verified["commits"], &verified["blocks"]], [&facts["commits"], &facts["blocks_in_commits"]]);
    assert_eq!(verified["tip"]["index"], last["index"]);
    assert_eq!(verified["tip"]["digest"], last["digest"]);

    bench.json("chain import chain.bin --store store");
    assert_eq!(bench.json("chain verify --store store"), verified);
    bench.json("chain export --store store --out again.bin");
    let (before, after) = (contents(&original), contents(&bench.read("again.bin")));
    assert!(before.0 == after.0, "commits or blocks differ");
    let certified: Vec<_> =
        (1..).zip(&after.1).filter(|(_, count)| **count > 0).map(|(index, _)| index).collect();
    assert_eq!(certified, [facts["epoch0_last_commit_index"].as_u64().unwrap(), 177]);
    assert_eq!(bench.json("chain verify again.bin"), verified);
}

#[test]
fn a_bit_flipped_anywhere_is_refused_with_place_and_reason() {
    let bench = Bench::new();
    bench.json(CHAIN);
    let whole = bench.read("chain.bin");
    let first_commit = genesis_bytes(&whole) + 4;
    for position in (first_commit..whole.len()).step_by(whole.len() / 40) {
        bench.write("flipped.bin", &flipped(&whole, position));
        let (result, first_error) = bench.verify_bad("flipped.bin");
        assert!(result["commits"].as_u64().unwrap() < 12, "{position}: {first_error}");
        assert!(
            first_error.contains("commit ") || first_error.contains("the header"),
            "{position}: {first_error}"
        );
        assert!(first_error.contains("byte "), "{position}: {first_error}");
    }
}

/// Nothing in a chain signs its validators' addresses: with other ones it is another chain, as good as the first.
#[test]
fn a_bit_flipped_in_the_genesis_is_refused_or_makes_another_chain() {
    let bench = Bench::new();
    bench.json(CHAIN);
    let whole = bench.read("chain.bin");
    let chain_id = bench.json("chain verify chain.bin")["chain_id"].clone();
    bench.json("chain import chain.bin --store store");
    for position in (0..genesis_bytes(&whole)).step_by(61) {
        bench.write("flipped.bin", &flipped(&whole, position));
        let output = bench.run("chain verify flipped.bin --json");
        let result = last_line_json(&output);
        assert_eq!(result["ok"], output.status.success());
        assert_ne!(result["chain_id"], chain_id, "{position}");
        bench.failure("chain import flipped.bin --store store");
    }
}

fn flipped(whole: &[u8], position: usize) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    bytes[position] ^= 0x10;
    bytes
}

/// Length of the magic and the validator set that a chain file begins with.
fn genesis_bytes(file: &[u8]) -> usize {
    12 + u32::from_le_bytes(file[8..12].try_into().unwrap()) as usize
}

#[test]
fn of_a_cut_file_nothing_is_stored_beyond_the_last_whole_certificate() {
    let bench = Bench::new();
    bench.json(CHAIN);
    let whole = bench.read("chain.bin");
    let cut = |length: usize, stored: Option<u64>| {
        bench.write("cut.bin", &whole[..length]);
        let said = bench.failure(&format!("chain import cut.bin --store cut-{length}"));
        assert!(said.contains("cut.bin is refused") && said.contains("ends too early"), "{said}");
        let (_, first_error) = bench.verify_bad("cut.bin");
        assert!(first_error.contains("at byte "), "{first_error}");
        let tip = bench.path(&format!("cut-{length}")).exists().then(|| {
            let stored = bench.json(&format!("chain verify --store cut-{length}"));
            stored["tip"]["index"].as_u64().unwrap()
        });
        assert_eq!(tip, stored);
    };
    cut(4, None);
    cut(whole.len() / 3, None);
    cut(whole.len() - 1, Some(6));
}

#[test]
fn an_import_goes_on_where_an_earlier_one_ended_and_repeating_it_changes_nothing() {
    let bench = Bench::new();
    bench.json(CHAIN);
    let whole = bench.read("chain.bin");
    bench.write("cut.bin", &whole[..whole.len() - 1]);
    bench.failure("chain import cut.bin --store store");
    let first = bench.json("chain import chain.bin --store store");
    assert_eq!([&first["already_stored"], &first["commits"]], [6, 6]);
    let second = bench.json("chain import chain.bin --store store");
    assert_eq!([&second["already_stored"], &second["commits"]], [12, 0]);
    bench.json("chain export --store store --out again.bin");
    assert!(bench.read("again.bin") == whole);
}

#[test]
fn another_chain_and_a_fork_of_the_same_one_are_refused_and_change_nothing() {
    let bench = Bench::new();
    bench.json(CHAIN);
    bench.json("chain import chain.bin --store store");
    bench.json("chain generate --out other.bin --commits 13 --seed 4");
    let said = bench.failure("chain import other.bin --store store");
    assert!(said.contains("holds chain"), "{said}");
    // The same authorities with other transactions: one genesis, two chains.
    bench.json("chain generate --out fork.bin --commits 13 --epochs 2 --payload-bytes 65 --seed 3");
    let said = bench.failure("chain import fork.bin --store store");
    assert!(said.contains("the store holds a fork: its commit 1 is"), "{said}");
    bench.json("chain export --store store --out again.bin");
    assert!(bench.read("again.bin") == bench.read("chain.bin"));
}

#[test]
fn an_export_ends_where_it_is_told_to_and_only_where_a_quorum_voted() {
    let bench = Bench::new();
    bench.json(CHAIN);
    bench.json("chain import chain.bin --store store");
    // The votes for commit 4 are in the blocks of commit 6; those for 5, made after the epoch's last leader, in none.
    let exported = bench.json("chain export --store store --out four.bin --to 4");
    assert_eq!([&exported["commits"], &exported["tip"]["index"]], [4, 4]);
    assert_eq!(bench.json("chain verify four.bin")["tip"], exported["tip"]);
    assert_eq!(bench.json("chain export --store store --out none.bin --to 0")["commits"], 0);
    assert_eq!(bench.json("chain verify none.bin")["ok"], true);
    for (to, nearest) in [(5, 4), (11, 10), (13, 12), (u32::MAX, 12)] {
        let said = bench.failure(&format!("chain export --store store --out no.bin --to {to}"));
        assert!(said.contains(&format!("the nearest lower one that is: {nearest}")), "{said}");
    }
    assert!(!bench.names().iter().any(|name| name.starts_with("no.bin")));
}

#[test]
fn a_file_that_is_no_chain_file_is_not_replaced_and_a_chain_file_is() {
    let bench = Bench::new();
    bench.write("notes.txt", b"mine");
    let said = bench.failure("chain generate --out notes.txt --commits 1");
    assert!(said.contains("notes.txt exists and is no chain file"), "{said}");
    assert_eq!(bench.read("notes.txt"), b"mine");
    bench.write("empty", b"");
    bench.json("chain generate --out empty --commits 1");
    bench.json("chain generate --out empty --commits 2");
    assert_eq!(bench.json("chain verify empty")["commits"], 2);
    assert_eq!(bench.names(), ["empty", "notes.txt"]);
}

#[test]
fn a_store_whose_file_changed_at_rest_does_not_verify() {
    let bench = Bench::new();
    bench.json(CHAIN);
    bench.json("chain import chain.bin --store store");
    let spec =
        ChainSpec { commits: 12, blocks_per_commit: 10, payload_bytes: 64, committee: 4, epochs: 2, seed: 3 };
    let made = ChainMaker::new(spec).unwrap().nth(7).expect("the maker is endless");
    let signature = &made.blocks[2].payload.bytes()[made.blocks[2].payload.len() - 64..];
    let file = format!(
        "store/{}",
        fs::read_dir(bench.path("store")).unwrap().next().unwrap().unwrap().file_name().display()
    );
    let mut bytes = bench.read(&file);
    let places: Vec<_> = (0..bytes.len()).filter(|place| bytes[*place..].starts_with(signature)).collect();
    assert!(!places.is_empty());
    for place in places {
        bytes[place] ^= 1;
    }
    bench.write(&file, &bytes);
    let (result, first_error) = bench.verify_bad("--store store");
    assert_eq!(result["commits"], 0, "the file is checked before anything is read");
    assert!(first_error.contains("store is damaged"), "{first_error}");
}

#[test]
fn a_file_and_a_store_of_the_same_chain_look_different() {
    let bench = Bench::new();
    bench.json(CHAIN);
    bench.json("chain import chain.bin --store store");
    let verified = bench.json("chain verify chain.bin");
    let (file, store) = (bench.json("chain inspect chain.bin"), bench.json("chain inspect --store store"));
    for summary in [&file, &store] {
        assert_eq!([&summary["chain_id"], &summary["tip"]], [&verified["chain_id"], &verified["tip"]]);
        let epochs = summary["epochs"].as_array().expect("a list");
        let spans: Vec<_> =
            epochs.iter().map(|epoch| (epoch["first"].as_u64(), epoch["last"].as_u64())).collect();
        assert_eq!(spans, [(Some(1), Some(6)), (Some(7), Some(12))]);
        let stake = |epoch: &Value| -> u64 {
            epoch["authorities"].as_array().unwrap().iter().map(|one| one["stake"].as_u64().unwrap()).sum()
        };
        assert!(epochs.iter().all(|epoch| stake(epoch) == 10_000 && epoch["quorum"] == 6_667));
    }
    assert_eq!(file["epochs"], store["epochs"]);
    assert_eq!([&file["blocks"], &file["certified_through"]], [&verified["blocks"], &verified["tip"]]);
    for index in [1, 6, 7, 12] {
        let mut seen = [
            bench.json(&format!("chain inspect chain.bin {index}")),
            bench.json(&format!("chain inspect --store store {index}")),
        ];
        // Where a later commit's certifiers stand for this one, the file has none; the store knows all votes.
        if index == 1 || index == 7 {
            let emptied = seen[1]["certifiers"].take();
            assert!(!emptied.as_array().expect("a list").is_empty());
            seen[1]["certifiers"] = Value::Array(Vec::new());
        }
        assert_eq!(seen[0], seen[1]);
        assert_eq!(seen[0]["commit"]["index"], index);
        assert_eq!(seen[0]["epoch"], u64::from(index > 6));
        let blocks = seen[0]["blocks"].as_array().expect("a list");
        assert_eq!(blocks.len(), 10);
        assert_eq!(blocks.iter().filter(|block| block["leader"] == true).count(), 1);
        assert_eq!(blocks.iter().any(|block| block["ends_epoch"] == true), index == 6);
        if index == 6 || index == 12 {
            let certifiers = seen[0]["certifiers"].as_array().expect("a list");
            let stake: u64 = certifiers.iter().map(|one| one["stake"].as_u64().unwrap()).sum();
            assert!(stake >= 6_667, "{stake}");
        }
    }
    let said = bench.failure("chain inspect chain.bin 13");
    assert!(said.contains("commit 13 is not in chain.bin, which has 1 to 12"), "{said}");
    let said = bench.failure("chain inspect --store store 13");
    assert!(said.contains("which has 1 to 12"), "{said}");
    let text = String::from_utf8(bench.run("chain inspect chain.bin 6").stdout).expect("UTF-8");
    assert!(
        text.contains("10 blocks") && text.contains("leader") && text.contains("6667 are a quorum"),
        "{text}"
    );
}

#[test]
fn a_pruned_store_has_what_was_given_up_or_lacks_what_was_not() {
    let bench = Bench::new();
    bench.json(CHAIN);
    bench.json("chain import chain.bin --store store");
    let before = [8, 12].map(|index| bench.json(&format!("chain inspect --store store {index}")));
    let pruned = bench.json("chain prune --store store --below 8");
    assert_eq!([&pruned["lowest_available"], &pruned["tip"]], [8, 12]);
    assert_eq!([8, 12].map(|index| bench.json(&format!("chain inspect --store store {index}"))), before);
    let said = bench.failure("chain inspect --store store 7");
    assert!(said.contains("which has 8 to 12"), "{said}");
    let summary = bench.json("chain inspect --store store");
    assert_eq!(summary["lowest_available"], 8);
    assert_eq!([&summary["epochs"][0]["first"], &summary["epochs"][1]["first"]], [&Value::Null, &8.into()]);
    let said = bench.failure("chain export --store store --out out.bin");
    assert!(said.contains("gave up the commits below 8"), "{said}");
    // Less is given up than was before: nothing changes. More than there is: the tip stays.
    assert_eq!(bench.json("chain prune --store store --below 3")["lowest_available"], 8);
    assert_eq!(bench.json("chain prune --store store --below 4294967295")["lowest_available"], 12);
}

#[test]
fn what_is_not_there_is_told_in_one_line() {
    let bench = Bench::new();
    for arguments in [
        "chain verify nothing.bin",
        "chain import nothing.bin --store store",
        "chain export --store nowhere --out chain.bin",
        "chain verify --store nowhere",
        "chain generate --out nowhere/chain.bin --commits 1",
    ] {
        let said = bench.failure(arguments);
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(said.contains("nothing.bin") || said.contains("nowhere"), "{said}");
    }
    assert!(bench.names().is_empty(), "{:?}", bench.names());
}

#[test]
fn wrong_usage_ends_with_exit_code_2() {
    let bench = Bench::new();
    for arguments in [
        "chain",
        "chain nonsense",
        "chain verify",
        "chain verify a --store b",
        "chain import a",
        "chain generate",
        "chain generate --out a --committee 0",
        "chain generate --out a --committee 1001",
        "chain generate --out a --commits 1 --epochs 2",
        "chain generate --out a --blocks-per-commit 0",
        "chain generate --out a --payload-bytes 5GB",
        "chain generate --out a --payload-bytes 4MiB",
        "chain generate --out a --seed -1",
        "chain export --store s --out a --to x",
    ] {
        let output = bench.run(arguments);
        assert_eq!(output.status.code(), Some(2), "{arguments}: {output:?}");
    }
    assert!(bench.names().is_empty());
}

#[test]
fn every_command_explains_itself_with_an_example() {
    let bench = Bench::new();
    for command in ["generate", "import", "export", "verify", "inspect", "prune"] {
        let output = bench.run(&format!("chain {command} --help"));
        assert_eq!(output.status.code(), Some(0));
        let help = String::from_utf8(output.stdout).expect("UTF-8");
        assert!(help.contains("Example") && help.contains(&format!("soma-sync chain {command}")), "{help}");
    }
}

#[cfg(unix)]
#[test]
fn a_command_that_is_told_to_end_leaves_no_partial_file() {
    let bench = Bench::new();
    let mut child = bench
        .command("chain generate --out chain.bin --commits 400000000")
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    while bench.names().is_empty() {
        assert!(child.try_wait().expect("it is our child").is_none(), "it ended by itself");
        thread::yield_now();
    }
    let killed = Command::new("kill").args(["-TERM", &child.id().to_string()]).status().expect("kill runs");
    assert!(killed.success());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    assert!(stderr(&output).contains("interrupted"), "{output:?}");
    assert!(bench.names().is_empty(), "{:?}", bench.names());
}
