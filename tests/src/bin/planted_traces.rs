//! Puts each seeded bug into the core in turn, looks for a trace in which a machine by itself breaks something, and has
//! `soma-sync trace shrink` make it small; prints what came of it.
//!
//! Traces are of networks drawn from seeds (`soma-sync sim`), and where these have none, of random sequences of events.
//! Many bugs have none: what they do wrong is in the verification jobs, whose verdicts a trace takes on trust, or shows
//! only to somebody who knows the chain or the other nodes.

use serde_json::Value;
use soma_sync_core::bug::{BUG, Bug};
use soma_sync_tests::{fuzz::seeded, fuzz_machine::machine_inputs_that_panic, processes::in_parallel};
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    time::Instant,
};

const USAGE: &str = "\
Shrinks a trace of each seeded bug that breaks something in one machine.

Usage: planted_traces [--only NAME]... [--keep DIR]

  --only NAME  only this bug, by its name; may be given more than once
  --keep DIR   keep each small trace there, as NAME.trace

Exit status: 0 when nine of ten of the traces have at most 25 events, 1 when they have not or there is none, 2 when the
arguments are wrong or the program cannot be built.
";

/// What is told to this program when it is to look for a sequence, before where the trace goes.
const SEQUENCES: &str = "--sequences";
/// What a small trace has at most.
const FEW_EVENTS: u64 = 25;

struct Options {
    bugs: Vec<Bug>,
    keep: Option<PathBuf>,
}

/// A trace that was shrunk.
struct Shrunk {
    found_in: &'static str,
    outcome: String,
    before: u64,
    after: u64,
    seconds: f64,
}

fn main() -> ExitCode {
    let mut arguments = env::args().skip(1);
    let done = if arguments.next().as_deref() == Some(SEQUENCES) {
        look_among_sequences(Path::new(&arguments.next().unwrap_or_default())).map(|()| true)
    } else {
        run_all()
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("planted_traces: {error}");
            ExitCode::from(2)
        }
    }
}

fn run_all() -> Result<bool, String> {
    let Some(Options { bugs, keep }) = options(env::args().skip(1))? else {
        print!("{USAGE}");
        return Ok(true);
    };
    if let Some(keep) = &keep {
        fs::create_dir_all(keep).map_err(|error| format!("{}: {error}", keep.display()))?;
    }
    let program = build()?;
    let this = env::current_exe().map_err(|error| format!("this program: {error}"))?;
    let results = in_parallel(&bugs, |bug| shrunk(*bug, &program, &this, keep.as_deref()));
    println!(
        "| bug | found in | ends in | events | shrunk to | seconds |\n| --- | --- | --- | ---: | ---: | ---: |"
    );
    let (mut traces, mut small) = (0, 0);
    for (bug, result) in bugs.iter().zip(results) {
        let Some(Shrunk { found_in, outcome, before, after, seconds }) = result? else {
            println!("| {} | - | | | | |", bug.name());
            continue;
        };
        println!("| {} | {found_in} | {outcome} | {before} | {after} | {seconds:.1} |", bug.name());
        traces += 1;
        small += u32::from(after <= FEW_EVENTS);
    }
    println!(
        "{traces} of {} bugs break something in one machine; {small} of their traces became at most {FEW_EVENTS} events",
        bugs.len()
    );
    Ok(traces > 0 && small * 10 >= traces * 9)
}

/// `None` where only the usage is wanted.
fn options(mut arguments: impl Iterator<Item = String>) -> Result<Option<Options>, String> {
    let mut options = Options { bugs: Vec::new(), keep: None };
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            "--help" | "-h" => return Ok(None),
            "--only" => {
                let name = value()?;
                options.bugs.push(Bug::named(&name).ok_or(format!("there is no {name}"))?);
            }
            "--keep" => options.keep = Some(value()?.into()),
            other => return Err(format!("what is {other}? --help says what there is")),
        }
    }
    if options.bugs.is_empty() {
        options.bugs = Bug::ALL.to_vec();
    }
    Ok(Some(options))
}

/// Builds `soma-sync` with the switches; where it is.
fn build() -> Result<PathBuf, String> {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or("cargo".into()));
    cargo.args(["build", "--workspace", "--bin", "soma-sync"]);
    cargo.args(["--features", "soma-sync/defence-switches,soma-sync-tests/defence-switches"]);
    cargo.args(["--message-format", "json-render-diagnostics"]).stderr(Stdio::inherit());
    let built = cargo.output().map_err(|error| format!("cargo: {error}"))?;
    let messages = built.stdout.split(|byte| *byte == b'\n');
    let messages = messages.filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    let mut paths = messages.filter_map(|message| Some(PathBuf::from(message["executable"].as_str()?)));
    paths.next_back().filter(|_| built.status.success()).ok_or_else(|| "soma-sync cannot be built".to_owned())
}

/// Looks for traces of a bug, and shrinks the first that breaks something by itself.
fn shrunk(bug: Bug, program: &Path, this: &Path, keep: Option<&Path>) -> Result<Option<Shrunk>, String> {
    let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
    let run = |program: &Path, arguments: &str| {
        let mut command = Command::new(program);
        command.args(arguments.split_whitespace()).current_dir(folder.path()).env(BUG, bug.name());
        let output = command.stderr(Stdio::null()).stdin(Stdio::null()).output();
        output.map_err(|error| format!("{}: {error}", program.display()))
    };
    let shrink = |found_in, trace: &str| {
        let began = Instant::now();
        let output = run(program, &format!("trace shrink {trace} --out small.trace --time 60s --json"))?;
        let said = String::from_utf8_lossy(&output.stdout);
        let Ok(said) = serde_json::from_str::<Value>(said.lines().last().unwrap_or_default()) else {
            return Ok(None);
        };
        Ok::<_, String>(Some(Shrunk {
            found_in,
            outcome: said["outcome"].as_str().unwrap_or_default().to_owned(),
            before: said["events_before"].as_u64().unwrap_or(u64::MAX),
            after: said["events"].as_u64().unwrap_or(u64::MAX),
            seconds: began.elapsed().as_secs_f64(),
        }))
    };
    run(program, "sim --seeds 0..150 --nodes 5 --commits 24 --jobs 1")?;
    let mut result = None;
    for trace in traces_in(folder.path())? {
        result = shrink("a network", &trace)?;
        if result.is_some() {
            break;
        }
    }
    if result.is_none() {
        run(this, &format!("{SEQUENCES} sequence.trace"))?;
        result = shrink("a sequence", "sequence.trace")?;
    }
    if let (Some(keep), Some(_)) = (keep, &result) {
        let kept = keep.join(format!("{}.trace", bug.name()));
        fs::copy(folder.path().join("small.trace"), &kept)
            .map_err(|error| format!("{}: {error}", kept.display()))?;
    }
    Ok(result)
}

/// The traces in a directory by name, in their order.
fn traces_in(folder: &Path) -> Result<Vec<String>, String> {
    let entries = fs::read_dir(folder).map_err(|error| error.to_string())?;
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let mut names: Vec<_> = names.collect();
    names.sort();
    Ok(names)
}

/// Looks for a random sequence in which the machine by itself breaks something, and writes its trace.
fn look_among_sequences(file: &Path) -> Result<(), String> {
    const SEEDS: u64 = 4_000;
    const LENGTHS: [usize; 3] = [400, 1_000, 3_000];
    std::panic::set_hook(Box::new(|_| {}));
    let lengths = LENGTHS.into_iter().cycle();
    let mut found = (0..SEEDS).zip(lengths).filter_map(|(seed, length)| {
        let told = machine_inputs_that_panic(&seeded(seed, length))?;
        told.tell().is_err().then_some(told)
    });
    let Some(told) = found.next() else { return Ok(()) };
    fs::write(file, told.trace()).map_err(|error| format!("{}: {error}", file.display()))
}
