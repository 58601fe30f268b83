//! `soma-sync trace` and `node --trace`, on the real program: what real nodes record over real QUIC, while things go
//! wrong, replays exactly.

mod common;

use common::{Bench, last_line_json, part::last_part, running::Running};
use serde_json::Value;
use soma_sync_core::{
    Config,
    types::{CommitDigest, CommitIndex, CommitRef},
};
use soma_sync_proto::trace::{EndReason, EntryEncoder, TraceFile, TraceReader};
use soma_sync_sim::{
    chain::{ChainMaker, ChainSpec},
    trace::write_trace,
    world::{ChainStore, Pace, World},
};
use std::time::Duration;

/// Settings with which a node stores so little at a time that it can be met in the middle of its work.
const SLOWLY: &str = "--max-store-batch-bytes 64KiB --max-store-batches 1 --commit-sync-batch-size 10 \
                      --max-requests 4 --max-requests-per-peer 2 --look-ahead-commits 40";
const COMMITS: u64 = 300;

/// A directory with a chain in `chain.bin` and in the stores `first` and `second`, and another chain in `other`.
fn bench() -> Bench {
    let bench = Bench::new();
    let generate = "chain generate --blocks-per-commit 4 --payload-bytes 256 --epochs 3";
    bench.json(&format!("{generate} --commits {COMMITS} --seed 11 --out chain.bin"));
    bench.json(&format!("{generate} --commits 10 --seed 12 --out other.bin"));
    bench.json("chain import chain.bin --store first");
    bench.json("chain import chain.bin --store second");
    bench.json("chain import other.bin --store other");
    bench
}

/// That every command of a trace comes again when it is replayed.
fn assert_replays(bench: &Bench, name: &str) -> Value {
    let replayed = bench.json(&format!("trace replay {name} --check"));
    assert_eq!(replayed["same"], true, "{name}: {replayed}");
    assert!(replayed["events"].as_u64().expect("a number") > 10, "{name}: {replayed}");
    replayed
}

/// Ends a serving node.
#[cfg(unix)]
fn stop(server: Running) {
    server.signal("TERM");
    let ended = server.end();
    assert_eq!(ended.code, Some(0), "{ended:?}");
}

/// How many times as many sessions are run as in the ordinary test run: `SOMA_SYNC_SESSIONS_TIMES`.
#[cfg(unix)]
fn times() -> usize {
    let times = std::env::var("SOMA_SYNC_SESSIONS_TIMES").ok();
    times.map_or(1, |times| times.parse().expect("a number of times"))
}

/// What goes wrong while a node syncs.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Nothing,
    ServerDies,
    ServerStandsStill,
    ClientDies,
    StrangerAnswers,
}

#[cfg(unix)]
#[test]
fn a_session_over_quic_does_not_replay() {
    use Fault::{ClientDies, Nothing, ServerDies, ServerStandsStill, StrangerAnswers};
    let faults = [
        Nothing,
        ServerDies,
        ServerStandsStill,
        ClientDies,
        StrangerAnswers,
        ServerDies,
        ServerStandsStill,
        ClientDies,
        StrangerAnswers,
        Nothing,
    ];
    for time in 0..times() {
        // What sessions leave behind goes with the bench.
        let bench = bench();
        for (session, fault) in faults.into_iter().enumerate() {
            run_session(&bench, session, fault);
        }
        println!("{} sessions replay", (time + 1) * faults.len());
    }
}

#[cfg(unix)]
fn run_session(bench: &Bench, session: usize, fault: Fault) {
    let name = |who: &str| format!("{who}-{session}.trace");
    let full = if session.is_multiple_of(2) { "--trace-full" } else { "" };
    let serve = |store: &str| Running::serve(bench, store, &format!("--trace {}", name(store)));
    let (first, first_at) = serve("first");
    let (second, second_at) = serve("second");
    let stranger = matches!(fault, Fault::StrangerAnswers).then(|| serve("other"));
    let stranger_at = stranger.as_ref().map_or_else(String::new, |(_, address)| format!("--peer {address}"));
    let client = format!(
        "node --store client-{session} --genesis chain.bin --until synced --json --timeout 500ms {SLOWLY} \
         --trace {} {full} --peer {first_at} --peer {second_at} {stranger_at}",
        name("client")
    );
    let mut node = Running::start(bench, &client);
    node.stored(1).expect("it is not done before it has begun");
    let mut first = Some(first);
    match fault {
        Fault::Nothing | Fault::StrangerAnswers => {}
        Fault::ServerDies => first.take().expect("it runs").kill(),
        Fault::ServerStandsStill => {
            first.as_ref().expect("it runs").signal("STOP");
            node.stored(COMMITS / 2).expect("the other one serves");
            first.as_ref().expect("it runs").signal("CONT");
        }
        Fault::ClientDies => {
            node.kill();
            node = Running::start(bench, &client);
        }
    }
    let done = node.done();
    assert_eq!([&done["synced"], &done["tip"]["index"]], [&Value::Bool(true), &COMMITS.into()]);
    first.into_iter().chain([second]).chain(stranger.map(|(server, _)| server)).for_each(stop);

    let replayed = assert_replays(bench, &name("client"));
    assert_eq!(replayed["stored"], COMMITS, "{fault:?}");
    assert_eq!(replayed["ending"], "the node was stopped");
    assert_replays(bench, &name("second"));
    let of_first = bench.json(&format!("trace replay {}", name("first")));
    assert_eq!(of_first["same"], true, "{of_first}");
    if matches!(fault, Fault::ClientDies) {
        let old = bench.json(&format!("trace replay {}.old", name("client")));
        assert_eq!(old["same"], true, "{old}");
    }
    let info = bench.json(&format!("trace info {}", name("client")));
    assert_eq!([&info["full"], &info["torn"]], [&Value::Bool(!full.is_empty()), &Value::Bool(false)]);
    assert_eq!(info["digest"], replayed["digest"]);
}

#[cfg(unix)]
#[test]
fn what_is_held_in_memory_is_not_written_when_asked_for() {
    let bench = bench();
    let arguments = "--trace last.trace --trace-last 64KiB";
    let mut command = bench.command(&format!("node --store first --listen 127.0.0.1:0 {arguments}"));
    let mut server = Running::spawn(command.env("RUST_LOG", "info"));
    let address = server.listening();
    let fetch = |store: &str| {
        let arguments =
            format!("node --store {store} --genesis chain.bin --until synced --json --peer {address}");
        Running::start(&bench, &format!("{arguments} {SLOWLY}")).done()
    };
    fetch("one");
    assert!(!bench.names().contains(&"last.trace".to_owned()), "nobody has asked");
    server.signal("USR1");
    server.hear(|line| line.contains("trace written").then_some(()));
    let asked = bench.json("trace info last.trace");
    assert_eq!(asked["ending"], "it was asked for while the node ran");
    fetch("two");
    stop(server);
    let info = bench.json("trace info last.trace");
    assert_eq!(info["ending"], "the node was stopped");
    assert!(info["events"].as_u64().expect("a number") > 10, "{info}");
}

#[test]
fn a_ring_that_lost_the_beginning_of_a_run_does_not_replay() {
    let bench = bench();
    let mut server = Running::start(&bench, "node --store first --listen 127.0.0.1:0");
    let address = server.listening();
    let arguments = "--trace last.trace --trace-last 160KiB --genesis chain.bin --until synced --json";
    Running::start(&bench, &format!("node --store client {arguments} --peer {address} {SLOWLY}")).done();
    stop(server);
    let info = bench.json("trace info last.trace");
    assert!(info["skipped_events"].as_u64().expect("a number") > 10, "{info}");
    assert!(info["state_bytes"].as_u64().expect("a number") > 1_000, "{info}");
    let replayed = assert_replays(&bench, "last.trace");
    assert_eq!([&replayed["stored"], &replayed["events"]], [&COMMITS.into(), &info["events"]]);
    let text = bench.run("trace info last.trace");
    assert!(String::from_utf8_lossy(&text.stdout).contains("from the machine's state"), "{text:?}");
    assert_eq!(bench.json("trace view last.trace --out last.html")["replayed"], true);
    assert_eq!(bench.json("trace diff last.trace last.trace")["same"], true);
    let said = bench.failure("trace shrink last.trace --out small.trace");
    assert!(said.contains("ends well"), "{said}");
}

/// The trace of a simulated node, that pins a commit which the chain contradicts: it ends in a halt.
fn halting_trace() -> Vec<u8> {
    let spec =
        ChainSpec { commits: 40, blocks_per_commit: 4, payload_bytes: 32, committee: 4, epochs: 1, seed: 3 };
    let mut maker = ChainMaker::new(spec).expect("a valid spec");
    let chain: Vec<_> = maker.by_ref().take(40).collect();
    let genesis = maker.genesis().clone();
    let pinned = CommitRef { index: CommitIndex::new(30), digest: CommitDigest::new([1; 32]) };
    let config = Config { commit_sync_batch_size: 5, pinned_commits: vec![pinned], ..Config::default() };
    let mut world = World::new(Pace::default());
    let client = world.add(config, ChainStore::of(genesis.clone(), &[]));
    world.record(client);
    for _ in 0..3 {
        let server = world.add(Config::default(), ChainStore::of(genesis.clone(), &chain));
        world.connect(client, server);
    }
    let halted = |world: &World| world.machine(client).status().halted.is_some();
    assert!(world.run_until(Duration::from_secs(60), halted));
    write_trace(Vec::new(), &world, client).expect("it can be written")
}

#[test]
fn a_shrunk_trace_is_no_smaller_or_ends_otherwise() {
    let bench = Bench::new();
    bench.write("halts.trace", &halting_trace());
    let replayed = bench.json("trace replay halts.trace");
    assert_eq!([&replayed["same"], &replayed["ending"]], [&Value::Bool(true), &"the machine halted".into()]);
    let shrunk = bench.json("trace shrink halts.trace --out small.trace");
    let events = shrunk["events"].as_u64().expect("a number");
    assert!(events <= 25 && events < replayed["events"].as_u64().expect("a number"), "{shrunk}");
    let small = bench.json("trace replay small.trace");
    assert_eq!([&small["same"], &small["halted"]], [&Value::Bool(true), &replayed["halted"]]);
    let again = bench.failure("trace shrink halts.trace --out small.trace");
    assert!(again.contains("exists"), "{again}");
}

#[test]
fn what_was_under_way_when_a_trace_begins_is_lost_when_it_is_shrunk() {
    let bench = Bench::new();
    let whole = halting_trace();
    bench.write("whole.trace", &whole);
    let events = bench.json("trace replay whole.trace --check")["events"].as_u64().expect("a number");
    for (number, from) in [events / 3, events / 2, events - 5].into_iter().enumerate() {
        bench.write("part.trace", &last_part(&whole, from, true, |_| {}));
        let replayed = bench.json("trace replay part.trace --check");
        assert_eq!([&replayed["same"], &replayed["events"]], [&Value::Bool(true), &(events - from).into()]);
        let shrunk = bench.json(&format!("trace shrink part.trace --out small{number}.trace"));
        assert!(shrunk["outcome"].as_str().expect("text").contains("halts"), "{shrunk}");
        assert!(shrunk["events"].as_u64() < Some(25), "{shrunk}");
        let small = bench.json(&format!("trace replay small{number}.trace"));
        assert_eq!([&small["same"], &small["halted"]], [&Value::Bool(true), &replayed["halted"]]);
    }
    bench.write("lost.trace", &last_part(&whole, events / 2, false, |_| {}));
    for command in ["replay lost.trace", "shrink lost.trace --out none.trace"] {
        let said = bench.failure(&format!("trace {command}"));
        assert!(said.contains("can be looked at and not be replayed"), "{said}");
    }
}

#[test]
fn another_command_is_not_shown_with_both_sides() {
    let bench = Bench::new();
    let trace = halting_trace();
    bench.write("good.trace", &trace);
    let mut reader = TraceReader::open(&trace[..]).expect("a trace");
    let mut file = TraceFile::new(Vec::new(), reader.header()).expect("a vector takes everything");
    let mut encoder = EntryEncoder::new(false);
    while let Some(mut entry) = reader.next_entry().expect("a whole trace") {
        encoder.begin(entry.at, &entry.event).expect("it fitted before");
        if entry.number == 40 {
            entry.commands.iter_mut().for_each(|mark| mark.amount += 1);
            entry.commands.truncate(1);
        }
        entry.commands.iter().for_each(|mark| encoder.mark(mark));
        encoder.finish().expect("it fitted before");
    }
    file.write(encoder.take()).expect("a vector takes everything");
    bench.write("bad.trace", &file.end(EndReason::Stopped).expect("a vector takes everything"));

    let first_with_commands = |name: &str| bench.run(&format!("trace show {name}"));
    assert!(first_with_commands("bad.trace").status.success());
    let said = bench.failure("trace replay bad.trace");
    for part in ["event 40", "recorded: ", "replayed: "] {
        assert!(said.contains(part), "{said}");
    }
    let diff = bench.run("trace diff good.trace bad.trace --json");
    assert_eq!(diff.status.code(), Some(1));
    let diff = last_line_json(&diff);
    assert_eq!([&diff["same"], &diff["parts_at"]], [&Value::Bool(false), &40.into()]);
    assert_eq!(bench.json("trace diff good.trace good.trace")["same"], true);
}

#[test]
fn what_was_not_asked_for_is_shown() {
    let bench = Bench::new();
    bench.write("it.trace", &halting_trace());
    let lines = |more: &str| {
        let output = bench.run(&format!("trace show it.trace {more}"));
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        text.lines().map(ToOwned::to_owned).collect::<Vec<_>>()
    };
    let all = lines("");
    assert!(all.len() > 60, "{}", all.len());
    assert_eq!(all.last().map(String::as_str), Some("the trace ends: the machine halted"));
    // The second server's id begins with three zero bytes and a 3.
    let of_peer = lines("--peer 00000003");
    assert!(of_peer.len() > 5 && of_peer.len() < all.len(), "{}", of_peer.len());
    assert_eq!(lines("--peer ffff").len(), 1);
    let of_commit = lines("--index 12");
    assert!(of_commit.iter().any(|line| line.contains("certify")), "{of_commit:#?}");
    assert!(of_commit.len() < all.len());
    let later = lines("--from 0.05 --to 0.08");
    assert!(later.len() < all.len(), "{}", later.len());
    for line in later.iter().filter(|line| !line.contains("->") && !line.contains("ends")) {
        let at = line.split_whitespace().nth(1).and_then(|at| at.parse::<f64>().ok()).expect("a time");
        assert!((0.05..=0.08).contains(&at), "{line}");
    }
}

#[test]
fn a_file_that_is_no_trace_is_taken_or_makes_a_command_panic() {
    let bench = Bench::new();
    let trace = halting_trace();
    let mut damaged = trace.clone();
    damaged[trace.len() / 2] ^= 1;
    bench.write("damaged.trace", &damaged);
    bench.write("cut.trace", &trace[..trace.len() - 3]);
    bench.write("other.txt", b"something else, and long enough");
    bench.write("empty", b"");
    for command in ["info", "replay", "show", "shrink --out new.trace"] {
        for (file, why) in [("damaged.trace", "damaged"), ("other.txt", "no trace"), ("empty", "no trace")] {
            let said = bench.failure(&format!("trace {command} {file}"));
            assert!(said.contains(file) && said.contains(why), "{command}: {said}");
        }
    }
    assert!(bench.failure("trace info missing.trace").contains("missing.trace"));
    let cut = bench.json("trace replay cut.trace");
    assert_eq!(cut["same"], true);
    assert!(cut["ending"].as_str().expect("text").starts_with("torn"), "{cut}");
}
