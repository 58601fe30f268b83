//! `soma-sync node`, on the real program: real stores, real QUIC, real signals.

mod common;

use common::{Bench, running::Running, vectors};
use serde_json::Value;
use soma_sync_core::{config::Limits, types::PeerId};
use soma_sync_proto::chain_file::ChainReader;
use soma_sync_transport_quic::Identity;
use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
};

/// Settings with which a node stores so little at a time that it can be met in the middle of its work.
const SLOWLY: &str = "--max-store-batch-bytes 64KiB --max-store-batches 1 --commit-sync-batch-size 10 \
                      --max-requests 2 --max-requests-per-peer 2 --look-ahead-commits 40";

/// A directory with a generated chain of so many commits in `chain.bin`, and in the store `origin`.
fn bench_with_chain(commits: u64) -> Bench {
    let bench = Bench::new();
    bench.json(&format!(
        "chain generate --out chain.bin --commits {commits} --blocks-per-commit 4 --payload-bytes 256 --epochs 3 \
         --seed 11"
    ));
    bench.json("chain import chain.bin --store origin");
    bench
}

/// Runs a node until it is synced.
fn sync(bench: &Bench, store: &str, more: &str) -> Value {
    let arguments = format!("node --store {store} --genesis chain.bin --until synced --json {more}");
    Running::start(bench, &arguments).done()
}

/// That a store holds exactly the chain of the file that everybody began with.
fn assert_holds_the_chain(bench: &Bench, store: &str) {
    let out = format!("{store}.bin");
    bench.json(&format!("chain export --store {store} --out {out}"));
    assert!(bench.read(&out) == bench.read("chain.bin"), "{store} holds something else");
}

/// An identity in a file, and who that is.
fn identity(bench: &Bench, name: &str, seed: u8) -> PeerId {
    bench.write(name, format!("{}\n", format!("{seed:02x}").repeat(32)).as_bytes());
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(bench.path(name), fs::Permissions::from_mode(0o600)).expect("it is ours");
    }
    Identity::from_seed([seed; 32]).peer_id()
}

/// The encoded commits and blocks of a chain file.
fn commits_and_blocks(file: &[u8]) -> Vec<Vec<Vec<u8>>> {
    let mut reader = ChainReader::open(file, Limits::default()).expect("a chain file");
    let mut commits = Vec::new();
    while let Some(record) = reader.next_record().expect("a whole chain file") {
        let payloads = std::iter::once(&record.commit).chain(&record.blocks);
        commits.push(payloads.map(|payload| payload.bytes().to_vec()).collect());
    }
    commits
}

#[test]
fn the_originals_chain_changes_on_its_way_from_node_to_node() {
    let Some(vectors) = vectors() else { return };
    let bench = Bench::new();
    let original = fs::read(vectors.join("chain.bin")).expect("it is there");
    let facts: Value = serde_json::from_slice(&fs::read(vectors.join("chain.json")).unwrap()).unwrap();
    let last = facts["vectors"].as_array().and_then(|commits| commits.last()).expect("there are commits");
    bench.write("chain.bin", &original);
    let verified = bench.json("chain verify chain.bin");
    assert_eq!([&verified["ok"], &verified["commits"]], [&Value::Bool(true), &facts["commits"]]);
    assert_eq!([&verified["tip"]["index"], &verified["tip"]["digest"]], [&last["index"], &last["digest"]]);

    bench.json("chain import chain.bin --store first");
    let mut files = vec!["first.bin".to_owned()];
    bench.json("chain export --store first --out first.bin");
    for (from, to) in [("first", "second"), ("second", "third")] {
        let (server, address) = Running::serve(&bench, from, "");
        let synced = sync(&bench, to, &format!("--peer {address}"));
        drop(server);
        assert_eq!([&synced["synced"], &synced["tip"]], [&Value::Bool(true), &verified["tip"]]);
        assert_eq!(synced["commits"], facts["commits"]);
        assert_eq!(synced["peers"][0]["offences"], 0);
        assert_eq!(bench.json(&format!("chain verify --store {to}")), verified);
        bench.json(&format!("chain export --store {to} --out {to}.bin"));
        files.push(format!("{to}.bin"));
    }
    assert!(commits_and_blocks(&original) == commits_and_blocks(&bench.read("first.bin")));
    assert!(files.iter().all(|file| bench.read(file) == bench.read("first.bin")), "the exports differ");
}

/// Numbers that look random and are the same in every run.
struct Draw(u64);

impl Draw {
    /// From 1 to `most`.
    fn next(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        1 + (self.0 >> 33) % most
    }
}

#[test]
fn a_killed_node_loses_what_it_had_stored_or_never_finishes() {
    const COMMITS: u64 = 3_000;
    const KILLS: u64 = 18;
    let bench = bench_with_chain(COMMITS);
    let (_server, address) = Running::serve(&bench, "origin", "");
    let arguments =
        format!("node --store fresh --genesis chain.bin --until synced --json --peer {address} {SLOWLY}");
    let (mut draw, mut reached) = (Draw(1), 0);
    for kill in 0..KILLS {
        let mut node = Running::start(&bench, &arguments);
        // What it says first is what it found; what it said before it was killed was durable.
        let found = node.stored(0).expect("it says what is stored");
        assert!(found >= reached, "kill {kill}: {reached} were stored, {found} are left");
        let goal = found + draw.next(COMMITS / KILLS / 2);
        reached = node.stored(goal).unwrap_or_else(|| panic!("it was done after {kill} kills"));
        node.kill();
    }
    assert_eq!(bench.json("chain verify --store fresh")["ok"], true);
    let done = Running::start(&bench, &arguments).done();
    assert_eq!([&done["synced"], &done["tip"]["index"]], [&Value::Bool(true), &Value::from(COMMITS)]);
    let first = done["status"]["first"].as_u64().expect("a number");
    assert!((reached..COMMITS).contains(&first), "{first} after {reached}");
    assert_eq!(done["commits"], COMMITS - first);
    assert_holds_the_chain(&bench, "fresh");
}

#[cfg(unix)]
#[test]
fn ctrl_c_in_the_middle_of_syncing_is_no_clean_end() {
    let bench = bench_with_chain(1_000);
    let (_server, address) = Running::serve(&bench, "origin", "");
    let arguments =
        format!("node --store fresh --genesis chain.bin --until synced --json --peer {address} {SLOWLY}");
    let mut node = Running::start(&bench, &arguments);
    node.stored(1).expect("it is not done before it has begun");
    node.signal("INT");
    let ended = node.end();
    assert_eq!(ended.code, Some(130), "{ended:?}");
    let result = ended.json();
    assert_eq!(result["synced"], false);
    let reached = result["status"]["durable"].as_u64().expect("a number");
    assert!((1..1_000).contains(&reached), "{reached}");

    assert_eq!(bench.json("chain verify --store fresh")["ok"], true);
    let done = Running::start(&bench, &arguments).done();
    assert_eq!(done["synced"], true);
    assert!(done["status"]["first"].as_u64().expect("a number") >= reached, "{done}");
    assert_holds_the_chain(&bench, "fresh");
}

#[cfg(unix)]
#[test]
fn a_serving_node_that_is_told_to_end_fails_or_leaves_its_store_open() {
    let bench = bench_with_chain(20);
    for signal in ["TERM", "INT"] {
        let (server, address) = Running::serve(&bench, "origin", "--json");
        sync(&bench, &format!("fresh-{signal}"), &format!("--peer {address}"));
        server.signal(signal);
        let ended = server.end();
        assert_eq!(ended.code, Some(0), "{ended:?}");
        assert!(ended.json()["status"]["sent_bytes"].as_u64().expect("a number") > 0);
        assert_eq!(bench.json("chain verify --store origin")["commits"], 20);
    }
}

#[test]
fn the_death_of_one_server_keeps_a_node_from_syncing_from_the_other() {
    let bench = bench_with_chain(1_000);
    let (dies, first) = Running::serve(&bench, "origin", "");
    sync(&bench, "copy", &format!("--peer {first}"));
    let (_stays, second) = Running::serve(&bench, "copy", "");
    let arguments = format!(
        "node --store fresh --genesis chain.bin --until synced --json --peer {first} --peer {second} {SLOWLY}"
    );
    let mut node = Running::start(&bench, &arguments);
    let reached = node.stored(1).expect("it is not done before it has begun");
    assert!(reached < 1_000);
    dies.kill();
    let done = node.done();
    assert_eq!([&done["synced"], &done["tip"]["index"]], [&Value::Bool(true), &1_000.into()]);
    assert_holds_the_chain(&bench, "fresh");
}

#[test]
fn a_node_ends_short_of_the_commit_that_it_was_to_reach() {
    let bench = bench_with_chain(40);
    let (_server, address) = Running::serve(&bench, "origin", "");
    let arguments = format!("node --store fresh --genesis chain.bin --json --peer {address}");
    let done = Running::start(&bench, &format!("{arguments} --until 25")).done();
    let certifiable = done["status"]["certifiable"]["index"].as_u64().expect("a number");
    assert!((25..=40).contains(&certifiable), "{certifiable}");
    // There already: it ends without anybody to fetch from.
    drop(_server);
    Running::start(&bench, &format!("{arguments} --until 25")).done();
}

#[cfg(unix)]
#[test]
fn somebody_else_at_a_peers_address_is_taken_for_the_peer() {
    let bench = bench_with_chain(20);
    let (_server, address) = Running::serve(&bench, "origin", "");
    let (found, socket) = address.split_once('@').expect("an id and an address");
    let wanted = Identity::from_seed([7; 32]).peer_id();
    let mut node = Running::start(
        &bench,
        &format!("node --store fresh --genesis chain.bin --until synced --json --peer {wanted}@{socket}"),
    );
    node.hear(|line| {
        (line.contains("WARN") && line.contains(&wanted.to_string()) && line.contains(found)).then_some(())
    });
    node.signal("INT");
    let ended = node.end();
    assert_eq!(ended.code, Some(130), "{ended:?}");
    let result = ended.json();
    assert_eq!([&result["synced"], &result["commits"]], [&Value::Bool(false), &0.into()]);
}

#[cfg(unix)]
#[test]
fn a_node_that_is_not_allowed_is_served_or_not_told_why() {
    let bench = bench_with_chain(20);
    let friend = identity(&bench, "friend", 1);
    identity(&bench, "stranger", 2);
    let (_server, address) = Running::serve(&bench, "origin", &format!("--allow {friend}"));
    let arguments = format!("node --genesis chain.bin --until synced --json --peer {address}");
    let mut refused = Running::start(&bench, &format!("{arguments} --store refused --identity stranger"));
    refused.hear(|line| (line.contains("WARN") && line.contains("allow")).then_some(()));
    refused.signal("INT");
    let ended = refused.end();
    assert_eq!(ended.code, Some(130), "{ended:?}");
    assert_eq!(ended.json()["commits"], 0);
    let served = Running::start(&bench, &format!("{arguments} --store served --identity friend")).done();
    assert_eq!([&served["synced"], &served["commits"]], [&Value::Bool(true), &20.into()]);
}

/// What is answered to a GET: the code, and the body.
fn get(address: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).expect("somebody listens");
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")
        .expect("it is taken");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("it is answered");
    let (head, body) = answer.split_once("\r\n\r\n").expect("an answer has a head");
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a code");
    (code, body.to_owned())
}

/// Where a node answers HTTP, which it says in its log.
fn metrics_address(node: &mut Running) -> String {
    node.hear(|line| Some(line.split_once("metrics at http://")?.1.trim().to_owned()))
}

#[test]
fn probes_and_metrics_say_something_else_than_the_node() {
    let bench = bench_with_chain(20);
    let (mut server, address) = Running::serve(&bench, "origin", "--metrics 127.0.0.1:0");
    let http = metrics_address(&mut server);
    assert_eq!(get(&http, "/healthz").0, 200);
    assert_eq!(get(&http, "/readyz").0, 200, "it has nobody to wait for");
    assert_eq!(get(&http, "/nonsense").0, 404);

    let nobody = Identity::from_seed([9; 32]).peer_id();
    let lonely =
        format!("node --store lonely --genesis chain.bin --metrics 127.0.0.1:0 --peer {nobody}@127.0.0.1:9");
    let mut lonely = Running::start(&bench, &lonely);
    let lonely_http = metrics_address(&mut lonely);
    assert_eq!([get(&lonely_http, "/healthz").0, get(&lonely_http, "/readyz").0], [200, 503]);

    let mut node = Running::start(
        &bench,
        &format!("node --store fresh --genesis chain.bin --metrics 127.0.0.1:0 --peer {address}"),
    );
    let http = metrics_address(&mut node);
    node.hear(|line| line.contains("synced; at commit 20").then_some(()));
    let (code, line) = get(&http, "/readyz");
    assert!(code == 200 && line.starts_with("synced; at commit 20 "), "{code} {line}");
    let status: Value = serde_json::from_str(&get(&http, "/status").1).expect("JSON");
    assert_eq!([&status["synced"], &status["tip"]["index"]], [&Value::Bool(true), &20.into()]);
    let of_peer = |key: &str| status["peers"][0][key].clone();
    assert_eq!([of_peer("timeouts"), of_peer("last_offence")], [Value::from(0), Value::Null]);
    let (code, text) = get(&http, "/explain?index=20");
    assert!(code == 200 && text.starts_with("commit 20: stored, certifiable"), "{code} {text}");
    let peer_id = address.split_once('@').expect("an id and an address").0;
    let (_, text) = get(&http, "/explain?index=21");
    assert!(text.contains(&format!("\npeer {peer_id}: claims only up to 20\n")), "{text}");
    for nonsense in ["/explain", "/explain?index=", "/explain?index=-1", "/explain?index=4294967296"] {
        let (code, text) = get(&http, nonsense);
        assert!(code == 400 && text.contains("/explain?index=N"), "{nonsense}: {code} {text}");
    }
    let (_, metrics) = get(&http, "/metrics");
    let peer = address.split_once('@').expect("an id and an address").0;
    for line in [
        "soma_sync_durable_index 20".to_owned(),
        "soma_sync_certifiable_index 20".to_owned(),
        "soma_sync_synced 1".to_owned(),
        "soma_sync_stalled 0".to_owned(),
        "soma_sync_stored_commits_total 20".to_owned(),
        format!("soma_sync_peer_served_commits_total{{peer=\"{peer}\"}} 20"),
        format!("soma_sync_peer_timeouts_total{{peer=\"{peer}\"}} 0"),
        format!("soma_sync_peer_offences_total{{peer=\"{peer}\"}} 0"),
        "# EOF".to_owned(),
    ] {
        assert!(metrics.lines().any(|found| found == line), "{line} is not in\n{metrics}");
    }
}
