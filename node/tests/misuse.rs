//! Wrong use and a hostile machine, on the real program: one line that says what, where and what to do, and the right
//! exit code.

mod common;

use common::{Bench, last_line_json, running::Running, stderr};
use soma_sync_transport_quic::Identity;
use std::{
    net::{TcpListener, UdpSocket},
    process::{Command, Output},
};

/// A directory with a chain of 20 commits in `chain.bin`, and in the store `origin`.
fn bench() -> Bench {
    let bench = Bench::new();
    bench.json("chain generate --out chain.bin --commits 20 --epochs 2 --payload-bytes 64 --seed 5");
    bench.json("chain import chain.bin --store origin");
    bench
}

/// What a command says that ends with this code: one line, with these words in it.
fn refused(bench: &Bench, arguments: &str, code: i32, words: &[&str]) -> String {
    let output = bench.run(arguments);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(code), "{arguments}: {said}");
    let first = said.lines().next().unwrap_or_default();
    assert!(first.starts_with("error: "), "{arguments}: {said}");
    assert!(words.iter().all(|word| first.contains(word)), "{arguments}: {first}");
    assert!(!said.contains("panicked") && !said.contains("backtrace"), "{said}");
    // Causes, or how it is used: never a page.
    assert!(said.lines().count() <= 6, "{said}");
    said
}

#[test]
fn a_file_that_is_not_there_or_no_chain_file_is_taken_for_one() {
    let bench = bench();
    bench.write("notes.txt", b"not a chain file at all");
    let whole = bench.read("chain.bin");
    bench.write("cut.bin", &whole[..20]);
    bench.write("empty.bin", b"");
    for (file, word) in
        [("nothing.bin", "cannot open"), ("notes.txt", ""), ("cut.bin", "ends too early"), ("empty.bin", "")]
    {
        refused(&bench, &format!("node --store fresh --genesis {file}"), 1, &[file, word]);
        refused(&bench, &format!("chain inspect {file}"), 1, &[file, word]);
        refused(&bench, &format!("chain verify {file}"), 1, &[file, word]);
        refused(&bench, &format!("chain import {file} --store fresh"), 1, &[file, word]);
    }
    assert!(!bench.names().contains(&"fresh".to_owned()), "a store was made of nothing");
}

#[test]
fn a_store_of_another_chain_or_none_at_all_is_used() {
    let bench = bench();
    bench.json("chain generate --out other.bin --commits 1 --seed 6");
    refused(
        &bench,
        "node --store origin --genesis other.bin",
        1,
        &["origin", "holds chain", "use another directory"],
    );
    refused(&bench, "node --store nowhere", 1, &["there is no store at", "nowhere", "give a genesis file"]);
    refused(&bench, "chain inspect --store nowhere", 1, &["there is no store at", "nowhere"]);
    refused(&bench, "chain prune --store nowhere --below 3", 1, &["there is no store at", "nowhere"]);
    refused(&bench, "node", 2, &["--store DIR"]);
    bench.write("file", b"no directory");
    refused(&bench, "node --store file --genesis chain.bin", 1, &["file"]);
    assert!(!bench.names().contains(&"nowhere".to_owned()));
}

#[test]
fn a_store_that_another_process_has_open_is_opened_too() {
    let bench = bench();
    let (_server, _) = Running::serve(&bench, "origin", "");
    let words = ["open in another process", "stop that one first"];
    refused(&bench, "node --store origin", 1, &words);
    refused(&bench, "chain verify --store origin", 1, &words);
    refused(&bench, "chain import chain.bin --store origin", 1, &words);
}

#[test]
fn a_port_in_use_is_not_named() {
    let bench = bench();
    let udp = UdpSocket::bind("127.0.0.1:0").expect("there is a free port");
    let tcp = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let (udp, tcp) =
        (udp.local_addr().map(|a| (a, udp)).unwrap(), tcp.local_addr().map(|a| (a, tcp)).unwrap());
    let address = udp.0.to_string();
    let said = refused(
        &bench,
        &format!("node --store origin --listen {address}"),
        1,
        &[&address, "choose a free port"],
    );
    assert!(said.contains("in use"), "{said}");
    let address = tcp.0.to_string();
    let arguments = format!("node --store origin --metrics {address}");
    let said = refused(&bench, &arguments, 1, &[&address, "choose a free port"]);
    assert!(said.contains("in use"), "{said}");
}

#[cfg(unix)]
#[test]
fn an_identity_that_others_can_read_is_used() {
    use std::{fs, os::unix::fs::PermissionsExt};
    let bench = bench();
    bench.write("identity", format!("{}\n", "ab".repeat(32)).as_bytes());
    fs::set_permissions(bench.path("identity"), fs::Permissions::from_mode(0o644)).expect("it is ours");
    let words = ["identity", "0644", "chmod 600"];
    refused(&bench, "node --store origin --identity identity", 1, &words);
    bench.write("short", b"abcd");
    fs::set_permissions(bench.path("short"), fs::Permissions::from_mode(0o600)).expect("it is ours");
    refused(&bench, "node --store origin --identity short", 1, &["short", "4 bytes instead of 65"]);
    refused(&bench, "node --store origin --identity no/where", 1, &["no/where"]);
}

#[test]
fn what_is_typed_wrong_is_run() {
    let bench = bench();
    let id = Identity::from_seed([1; 32]).peer_id();
    for (arguments, word) in [
        ("--peer nonsense".to_owned(), "PEER_ID@ADDR"),
        (format!("--peer {id}@localhost:1"), "IP:PORT"),
        ("--peer ab@127.0.0.1:1".to_owned(), "64 hex digits"),
        ("--allow xyz".to_owned(), "64 hex digits"),
        ("--listen here".to_owned(), "IP:PORT"),
        ("--metrics 1".to_owned(), "IP:PORT"),
        ("--until sometime".to_owned(), "synced"),
        ("--timeout 5".to_owned(), "give ms or s"),
        ("--max-buffered-bytes 1kb".to_owned(), "KiB"),
        ("--max-requests 0".to_owned(), "--max-requests must be between 1 and 10,000"),
        ("--quic-max-streams 0".to_owned(), "--quic-max-streams must be between 1 and 10,000"),
        ("--pinned-commit 5".to_owned(), "INDEX:DIGEST"),
        ("--verification none".to_owned(), "full"),
        ("--nonsense".to_owned(), "--nonsense"),
    ] {
        refused(&bench, &format!("node --store origin {arguments}"), 2, &[word]);
    }
    for arguments in
        ["chain inspect", "chain inspect a b c", "chain inspect --store s 1 2", "chain prune --store s"]
    {
        assert_eq!(bench.run(arguments).status.code(), Some(2), "{arguments}");
    }
}

#[test]
fn what_is_wrong_in_the_configuration_file_is_not_named() {
    let bench = bench();
    for (text, words) in [
        ("nonsense = 1", ["node.toml", "nonsense is unknown"]),
        ("[sync]\nmax_requests = 0", ["node.toml: sync.max_requests", "between 1 and 10,000"]),
        ("[quic]\nidle_timeout = \"1ms\"", ["node.toml: quic.idle_timeout", "between 20 ms and 1 h"]),
        ("store = 1\n[", ["node.toml: line 2", "no TOML"]),
    ] {
        bench.write("node.toml", text.as_bytes());
        let said = refused(&bench, "node --config node.toml", 2, &words);
        assert_eq!(said.lines().count(), 1, "{said}");
    }
    refused(&bench, "node --config nothing.toml", 1, &["nothing.toml"]);
}

#[test]
fn the_configuration_that_is_printed_is_not_the_one_that_is_used() {
    let bench = bench();
    let print = |arguments: &str| {
        let output = bench.run(&format!("node {arguments} --print-config"));
        assert_eq!(output.status.code(), Some(0), "{output:?}");
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let peer = format!("{}@127.0.0.1:7000", Identity::from_seed([1; 32]).peer_id());
    let printed =
        print(&format!("--store origin --until 5 --max-requests 9 --peer {peer} --runtime-dial-timeout 2s"));
    assert!(printed.contains("\nmax_requests = 9\n") && printed.contains(&peer), "{printed}");
    assert!(printed.contains("\ndial_timeout = \"2s\"\n"), "{printed}");
    bench.write("node.toml", printed.as_bytes());
    assert_eq!(print("--config node.toml"), printed);
    assert!(print("--config node.toml --max-requests 8").contains("\nmax_requests = 8\n"));
    // The store comes from the file, and has what is wanted already.
    let done = Running::start(&bench, "node --config node.toml --until 5 --json").done();
    assert_eq!(done["tip"]["index"], 20);
}

#[cfg(unix)]
#[test]
fn a_full_disk_hangs_a_node_or_costs_it_what_it_had() {
    let bench = Bench::new();
    bench.json("chain generate --out chain.bin --commits 600 --payload-bytes 1KiB --seed 5");
    bench.json("chain import chain.bin --store origin");
    bench.json("chain import chain.bin --store copy");
    let (_server, address) = Running::serve(&bench, "origin", "");
    // A limit on the size of files fails as a full disk does.
    let limited = |arguments: &str| -> Output {
        let program = env!("CARGO_BIN_EXE_soma-sync");
        let script = format!("trap '' XFSZ; ulimit -f 8000; exec {program} {arguments}");
        let mut command = Command::new("sh");
        command.args(["-c", &script]).current_dir(bench.path(".")).env("RUST_LOG", "warn");
        command.output().expect("there is a shell")
    };
    let arguments = format!(
        "node --store fresh --genesis chain.bin --peer {address} --until synced --json --max-store-batch-bytes 256KiB"
    );
    let full = limited(&arguments);
    let said = stderr(&full);
    assert_eq!(full.status.code(), Some(1), "{said}");
    assert!(said.contains("error: the store failed again and again") && !said.contains("panicked"), "{said}");
    let result = last_line_json(&full);
    assert_eq!(result["synced"], false);
    let reached = result["status"]["durable"].as_u64().expect("a number");
    assert!((1..600).contains(&reached), "{said}");

    let imported = limited("chain import chain.bin --store imported");
    assert_eq!(imported.status.code(), Some(1), "{}", stderr(&imported));
    let said = stderr(&imported);
    assert!(said.contains("error: cannot store the commits up to ") && !said.contains("panicked"), "{said}");
    let exported = limited("chain export --store copy --out out.bin");
    assert_eq!(exported.status.code(), Some(1), "{}", stderr(&exported));
    assert!(stderr(&exported).starts_with("error: cannot write out.bin"), "{}", stderr(&exported));
    assert!(!bench.names().iter().any(|name| name.starts_with("out.bin")), "{:?}", bench.names());

    let done = Running::start(&bench, &arguments).done();
    assert_eq!(done["status"]["first"], reached);
    bench.json("chain export --store fresh --out again.bin");
    assert!(bench.read("again.bin") == bench.read("chain.bin"));
}
