//! `soma-sync trace view`: the page that it makes of a simulated node's trouble, by its bytes. What a browser makes of
//! it is tested by `.ci/view-test`, with the page that is left in the build's directory for temporary files.

mod common;

use common::{Bench, part::last_part};
use serde_json::Value;
use soma_sync_core::{Config, Event, command::Offence, types::PeerId};
use soma_sync_proto::trace::{CommandKind, TraceHeader, TraceReader};
use soma_sync_sim::{
    chain::ChainSpec,
    hostile::{Lab, Manner, misbehave},
    trace::write_trace,
    world::{ChainStore, Link, Pace, World},
};
use std::{collections::BTreeMap, path::Path, rc::Rc, time::Duration};

const COMMITS: u32 = 600;
const MILLISECOND: Duration = Duration::from_millis(1);

/// The first run by seed in which there is everything to be shown, whatever the scheduler has come to do.
fn troubled() -> (Vec<u8>, World) {
    let has_all = |(_, world): &(Vec<u8>, World)| {
        let client = world.nodes().next().expect("the first");
        let counters = world.machine(client).status().counters;
        counters.hedges > 0 && counters.timeouts > 0 && counters.offences > 0
    };
    (7..30).map(run).find(has_all).expect("one of them")
}

/// A node that catches up from good, slow, silent, busy and lying peers, while its store fails for a while.
fn run(seed: u64) -> (Vec<u8>, World) {
    let spec = ChainSpec {
        commits: COMMITS,
        blocks_per_commit: 5,
        payload_bytes: 700,
        committee: 4,
        epochs: 2,
        seed: 5,
    };
    let lab = Rc::new(Lab::new(spec).expect("a valid spec"));
    let genesis = lab.genesis().clone();
    let pace = Pace { bandwidth: 700_000, job: 3 * MILLISECOND, store: 9 * MILLISECOND, ..Pace::default() };
    let config = Config {
        commit_sync_batch_size: 8,
        look_ahead_commits: 120,
        timeout: 1_200 * MILLISECOND,
        ..Config::default()
    };
    let mut world = World::seeded(pace, seed);
    let client = world.add(config, ChainStore::of(genesis.clone(), &[]));
    world.record(client);
    let manners = [
        vec![],
        vec![],
        vec![Manner::Silent],
        vec![Manner::OneBadBlock],
        vec![Manner::Busy],
        vec![Manner::Resets],
        vec![Manner::BytesPerSecond(30_000)],
    ];
    for manner in manners {
        let server = world.add(Config::default(), ChainStore::of(genesis.clone(), lab.chain()));
        if !manner.is_empty() {
            world.set_hostile(server);
            misbehave(&mut world, server, manner, &lab);
        }
        let link = Link { jitter: 8 * MILLISECOND, loss_per_million: 20_000, ..Link::from(pace) };
        world.set_link(server, client, link);
        world.connect(client, server);
    }
    let mut fails = false;
    world.act(1_950 * MILLISECOND, move |world| {
        fails = !fails;
        world.fail_store(client, fails);
        fails.then_some(900 * MILLISECOND)
    });
    let done = |world: &World| world.machine(client).status().durable.get() == COMMITS;
    assert!(world.run_until(Duration::from_secs(120), done), "{:?}", world.machine(client).status());
    world.run_until(500 * MILLISECOND, |_| false);
    let trace = write_trace(Vec::new(), &world, client).expect("it can be written");
    (trace, world)
}

/// What a page holds, as a browser's script reads it.
fn data_of(page: &str) -> Value {
    let (_, after) = page.split_once(r#"<script type="application/json" id="data">"#).expect("its data");
    let (data, _) = after.split_once("</script>").expect("its data ends");
    serde_json::from_str(data).unwrap_or_else(|error| panic!("{error}"))
}

fn page_of(bench: &Bench, trace: &[u8], name: &str) -> (String, Value) {
    bench.write(&format!("{name}.trace"), trace);
    let said = bench.json(&format!("trace view {name}.trace --out {name}.html"));
    let page = String::from_utf8(bench.read(&format!("{name}.html"))).expect("UTF-8");
    assert_eq!(said["bytes"], page.len());
    let data = data_of(&page);
    assert_eq!(said["events"], data["events"]);
    (page, data)
}

/// Leaves a page for the browser.
fn leave(name: &str, page: &str) {
    let place = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(place, page).expect("the directory can be written to");
}

fn numbers(value: &Value) -> Vec<u64> {
    value.as_array().expect("an array").iter().map(|number| number.as_u64().expect("a number")).collect()
}

/// What a trace holds, counted without the page's own code.
fn counted(trace: &[u8]) -> (u64, BTreeMap<CommandKind, usize>, BTreeMap<PeerId, usize>, usize) {
    let mut reader = TraceReader::open(trace).expect("a trace");
    let (mut kinds, mut peers, mut received) = (BTreeMap::new(), BTreeMap::new(), 0);
    while let Some(entry) = reader.next_entry().expect("a whole trace") {
        received += usize::from(matches!(entry.event, Event::RequestReceived { .. }));
        for mark in &entry.commands {
            *kinds.entry(mark.kind).or_default() += 1;
            if let (Some(peer), true) = (mark.peer, mark.kind != CommandKind::Disconnect) {
                *peers.entry(peer).or_default() += 1;
            }
        }
    }
    (reader.events(), kinds, peers, received)
}

#[test]
fn a_page_says_other_than_its_trace() {
    let bench = Bench::new();
    let (trace, world) = troubled();
    let client = world.nodes().next().expect("the first");
    let (page, data) = page_of(&bench, &trace, "troubled");
    let (events, kinds, asked_of, received) = counted(&trace);
    let status = world.machine(client).status();
    assert_eq!(data["events"], events);
    assert_eq!([&data["stored"], &data["replayed"]], [&COMMITS.into(), &Value::Bool(true)]);
    assert_eq!(data["chain"], status.chain_id.to_string());
    assert_eq!(data["notes"], Value::Array(Vec::new()));

    let requests = &data["requests"];
    let (lanes, inbound) = (numbers(&requests["peer"]), numbers(&requests["inbound"]));
    assert_eq!(inbound.iter().sum::<u64>(), received as u64);
    for (lane, peer) in data["peers"].as_array().expect("peers").iter().enumerate() {
        let ours = lanes.iter().zip(&inbound).filter(|(of, inbound)| **of == lane as u64 && **inbound == 0);
        let id = asked_of.iter().find(|(id, _)| peer["id"] == id.to_string());
        assert_eq!(Some(ours.count()), id.map(|(_, count)| *count), "{peer}");
    }
    let (from, to) = (numbers(&requests["from"]), numbers(&requests["to"]));
    assert!(from.iter().zip(&to).all(|(from, to)| from <= to && *to <= data["duration"].as_u64().unwrap()));
    let (kinds_asked, firsts) = (numbers(&requests["kind"]), numbers(&requests["first"]));
    let of_blocks = || {
        kinds_asked.iter().zip(&firsts).zip(&inbound).filter(|((kind, _), ours)| **kind == 4 && **ours == 0)
    };
    assert_eq!(of_blocks().count(), kinds[&CommandKind::AskBlocks]);
    assert!(of_blocks().all(|((_, first), _)| (1..=COMMITS.into()).contains(first)), "blocks of no commit");
    let outcomes = numbers(&requests["outcome"]);
    for (outcome, what) in [(1, "answered"), (2, "refused"), (3, "timed out"), (7, "lost")] {
        assert!(outcomes.contains(&outcome), "no request was {what}");
    }
    let seconds = numbers(&requests["second"]).iter().sum::<u64>();
    assert_eq!(seconds, status.counters.hedges, "second requests");
    let timeouts = outcomes.iter().filter(|outcome| **outcome == 3).count();
    assert_eq!(timeouts as u64, status.counters.timeouts, "timeouts");
    assert!(seconds > 0);

    let counts = &data["counts"];
    assert_eq!(counts["offence"], kinds[&CommandKind::Disconnect]);
    assert_eq!(counts["stall"], kinds[&CommandKind::Stalled]);
    let bad = data["incidents"].as_array().expect("incidents").iter().find(|one| one["kind"] == "offence");
    assert_eq!(bad.expect("a liar")["text"], Offence::BadBlock.to_string());
    let series = &data["series"];
    let buffered = numbers(&series["buffered"]);
    assert!(buffered.iter().any(|bytes| *bytes > 0));
    assert!(buffered.iter().all(|bytes| *bytes <= status.buffered_bytes_peak));
    let stored = numbers(&series["stored"]);
    assert!(stored.is_sorted() && stored.last() == Some(&COMMITS.into()), "{stored:?}");
    assert!(stored.len() <= 4_001, "{}", stored.len());
    leave("trace-view.html", &page);
}

#[test]
fn a_page_needs_the_network_or_is_not_one_document() {
    let bench = Bench::new();
    let (page, _) = page_of(&bench, &troubled().0, "one");
    for load in
        ["http:", "https:", "//cdn", " src=", "<link", "@import", "url(", "fetch(", "XMLHttp", "WebSocket"]
    {
        assert!(!page.contains(load), "{load}");
    }
    assert_eq!(page.matches("</script>").count(), 2);
    assert_eq!(page.matches("</html>").count(), 1);
}

#[test]
fn what_is_cut_or_strange_makes_no_page_or_one_that_does_not_say_so() {
    let bench = Bench::new();
    let (trace, _) = troubled();
    let (_, cut) = page_of(&bench, &trace[..trace.len() - 3], "cut");
    assert!(cut["ending"].as_str().expect("text").starts_with("torn"), "{}", cut["ending"]);
    let mut damaged = trace.clone();
    damaged[trace.len() / 2] ^= 1;
    bench.write("damaged.trace", &damaged);
    let said = bench.failure("trace view damaged.trace --out damaged.html");
    assert!(said.contains("damaged"), "{said}");
    assert!(!bench.names().contains(&"damaged.html".to_owned()), "a page of a part");
    let again = bench.failure("trace view cut.trace --out cut.html");
    assert!(again.contains("exists"), "{again}");
}

/// A name that would end the page's script.
fn with_markup(header: &mut TraceHeader) {
    header.build = "</script><script>document.body.remove()</script>".to_owned();
}

#[test]
fn what_cannot_be_replayed_is_not_shown_or_passes_for_whole() {
    let bench = Bench::new();
    let (trace, _) = troubled();
    let part = last_part(&trace, 900, false, with_markup);
    let (page, data) = page_of(&bench, &part, "part");
    assert_eq!(page.matches("</script>").count(), 2);
    assert!(data["build"].as_str().expect("text").contains("</script>"));
    assert_eq!(data["replayed"], false);
    let note = data["notes"][0].as_str().expect("a note");
    assert!(note.contains("lacks the first 900 events"), "{note}");
    assert_eq!(data["series"]["t"], Value::Array(Vec::new()));
    let (_, kinds, _, _) = counted(&part);
    let asked = numbers(&data["requests"]["kind"]).iter().filter(|kind| **kind == 4).count();
    assert!(asked >= kinds[&CommandKind::AskBlocks] && asked > 0);
    let duration = data["duration"].as_u64().expect("a number");
    assert!(numbers(&data["requests"]["to"]).iter().all(|to| *to <= duration));
    leave("trace-view-part.html", &page);
    let (_, data) = page_of(&bench, &last_part(&trace, 900, true, with_markup), "state");
    assert_eq!(data["replayed"], true);
    let note = data["notes"][0].as_str().expect("a note");
    assert!(note.contains("begins after 900 events"), "{note}");
    assert_eq!(data["stored"], page_of(&bench, &trace, "whole").1["stored"]);
}
