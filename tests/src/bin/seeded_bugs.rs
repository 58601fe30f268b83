//! Puts each seeded bug into the core in turn and prints which layers of tests catch it, and after how many cases: tests
//! or seeds, as the layer has them.
//!
//! Builds the test binaries once, with the switches. Every layer must pass without a bug; then each is run with each bug
//! as a process of its own, until its first case fails. A case that does not end in time counts as having caught it.

use soma_sync_core::{
    bug::{BUG, Bug},
    defence::{Defence, WITHOUT},
};
use soma_sync_tests::{
    layers::{Binary, Cases, LAYERS, Layer, SWARM, UNSEEN_BY_SWARM, WIDE},
    processes::{Ended, build, in_parallel, run, tests_in},
};
use std::{
    collections::BTreeMap,
    env,
    panic::{catch_unwind, set_hook},
    path::PathBuf,
    process::{Command, ExitCode},
    sync::Mutex,
    time::{Duration, Instant},
};

const USAGE: &str = "\
Puts each seeded bug in, and prints which layers of tests catch it, and after how many cases.

Usage: seeded_bugs [--only NAME]... [--layer NAME]... [--wide] [--seeds N] [--first] [--defences] [--limit SECONDS]

  --only NAME      only this bug, by its name; may be given more than once
  --layer NAME     only this layer; may be given more than once
  --wide           the layers that take minutes for each bug, too
  --seeds N        so many seeds in each layer of seeds, in place of its own number
  --first          only up to the first layer that catches it
  --defences       each defence of the core, taken away, in place of each bug
  --limit SECONDS  how long a case may take before it counts as having caught the bug (120)

Layers of seeds run in this program, several times as fast with cargo's --release; tests are built as `cargo test` does.
Which bugs whole networks do not find is written down with the reason: bugs of which that is not true are printed.

Exit status: 0 when each bug was caught by a layer, 1 when one was not, or a layer fails without a bug, or what is written down
of whole networks is not true; 2 when the arguments are wrong or the tests cannot be built.
";

/// What is told to this program when it is to be a layer of seeds.
const SEEDS: &str = "--layer-of-seeds";
/// What such a process says of the seed that failed, before the reason.
const CAUGHT: &str = "caught: ";

struct Options {
    only: Vec<String>,
    layers: Vec<&'static Layer>,
    seeds: Option<u64>,
    first: bool,
    defences: bool,
    limit: Duration,
}

/// What each layer made of a switch, as far as they were run.
struct Row {
    name: &'static str,
    caught: Vec<Caught>,
}

/// Something that is wrong with the core of a process: a variable of its environment, and its value.
type Switch = (&'static str, &'static str);

/// What a layer made of a bug.
struct Caught {
    /// Cases up to the one that failed, that one among them; `None` where none did.
    after: Option<u64>,
    /// Which that was.
    by: String,
    hung: bool,
}

/// What there is to run.
struct Layers {
    /// This program. Where it was before the tests were built, since that may put another copy in its place.
    program: PathBuf,
    /// The tests of each binary, in their order.
    binaries: BTreeMap<Binary, (PathBuf, Vec<String>)>,
    limit: Duration,
    /// How many seeds layers of seeds have, where not their own number.
    seeds: Option<u64>,
}

fn main() -> ExitCode {
    let mut arguments = env::args().skip(1);
    if arguments.next().as_deref() == Some(SEEDS) {
        let name = arguments.next().unwrap_or_default();
        run_seeds(&name, arguments.next().and_then(|count| count.parse().ok()));
        return ExitCode::SUCCESS;
    }
    match run_all() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("seeded_bugs: {error}");
            ExitCode::from(2)
        }
    }
}

fn run_all() -> Result<bool, String> {
    let Some(options) = options(env::args().skip(1))? else {
        print!("{USAGE}");
        return Ok(true);
    };
    let switches = options.switches()?;
    let layers = Layers::find(&options)?;
    let began = Instant::now();
    let sound = in_parallel(&options.layers, |layer| layers.run(layer, None));
    for (layer, caught) in options.layers.iter().zip(&sound) {
        if caught.after.is_some() {
            eprintln!("{}: {} fails without any bug", layer.name, caught.by);
        }
    }
    if sound.iter().any(|caught| caught.after.is_some()) {
        return Ok(false);
    }
    eprintln!("every layer passes without a bug ({:.0?})", began.elapsed());
    let names: Vec<_> = options.layers.iter().map(|layer| layer.name).collect();
    println!("| bug | {} | first caught by |\n|{}", names.join(" | "), " --- |".repeat(names.len() + 2));
    let lines = Mutex::new(Lines { at: 0, waiting: BTreeMap::new() });
    let numbered: Vec<_> = switches.iter().copied().enumerate().collect();
    let rows = in_parallel(&numbered, |(at, switch)| {
        let mut row = Vec::new();
        for layer in &options.layers {
            row.push(layers.run(layer, Some(*switch)));
            if options.first && row.last().is_some_and(|caught| caught.after.is_some()) {
                break;
            }
        }
        lines.lock().expect("nobody panics with it").print(*at, line(switch.1, &names, &row));
        Row { name: switch.1, caught: row }
    });
    let is_caught = |row: &&Row| row.caught.iter().any(|caught| caught.after.is_some());
    let count = rows.iter().filter(is_caught).count();
    let as_written = options.defences || judge_swarm(&names, &rows, options.seeds.is_none());
    eprintln!("{count} of {} were caught ({:.0?})", switches.len(), began.elapsed());
    Ok(count == switches.len() && as_written)
}

/// Prints what whole networks find, and who sees what they do not; whether that is as it is written down, which is looked
/// at only where they had all their seeds.
fn judge_swarm(layers: &[&str], rows: &[Row], had_all_seeds: bool) -> bool {
    let Some(at) = layers.iter().position(|layer| *layer == SWARM) else { return true };
    let run: Vec<_> = rows.iter().filter_map(|row| Some((row, row.caught.get(at)?))).collect();
    let mut seeds: Vec<_> = run.iter().filter_map(|(_, caught)| caught.after).collect();
    seeds.sort_unstable();
    if let (Some(median), Some(most)) = (seeds.get(seeds.len() / 2), seeds.last()) {
        let (found, all) = (seeds.len(), run.len());
        println!("the {SWARM} finds {found} of {all}, half of them within {median} seeds, all within {most}");
    }
    let mut as_written = true;
    for (row, caught) in run {
        let name = row.name;
        let why = UNSEEN_BY_SWARM.iter().find(|(bug, _)| bug.name() == name).map(|(_, why)| *why);
        match (caught.after, why) {
            (None, Some(why)) => println!("{name}: not by the {SWARM} ({why}); by {}", row.seen_by(layers)),
            (Some(_), None) => {}
            (Some(seed), Some(_)) if had_all_seeds => {
                as_written = false;
                println!(
                    "{name}: the {SWARM} finds it with seed {}, and it is written that it does not",
                    seed - 1
                );
            }
            (None, None) if had_all_seeds => {
                as_written = false;
                println!("{name}: the {SWARM} does not find it, and it is not written why");
            }
            (Some(_), Some(_)) | (None, None) => {}
        }
    }
    as_written
}

impl Row {
    /// The layers that caught it.
    fn seen_by(&self, layers: &[&str]) -> String {
        let named = self.caught.iter().zip(layers).filter(|(caught, _)| caught.after.is_some());
        let named: Vec<_> = named.map(|(_, name)| *name).collect();
        if named.is_empty() { "no layer".to_owned() } else { named.join(", ") }
    }
}

/// `None` where only the usage is wanted.
fn options(mut arguments: impl Iterator<Item = String>) -> Result<Option<Options>, String> {
    let mut options = Options {
        only: Vec::new(),
        layers: Vec::new(),
        seeds: None,
        first: false,
        defences: false,
        limit: Duration::from_secs(120),
    };
    let (mut layers, mut wide) = (Vec::new(), false);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            "--help" | "-h" => return Ok(None),
            "--first" => options.first = true,
            "--defences" => options.defences = true,
            "--wide" => wide = true,
            "--seeds" => {
                let count = value()?.parse().map_err(|error| format!("--seeds: {error}"))?;
                options.seeds = Some(count);
            }
            "--only" => options.only.push(value()?),
            "--layer" => {
                let name = value()?;
                let layer = LAYERS.iter().chain(WIDE).find(|layer| layer.name == name);
                layers.push(layer.ok_or(format!("there is no layer {name}"))?);
            }
            "--limit" => {
                let seconds = value()?.parse().map_err(|error| format!("--limit: {error}"))?;
                options.limit = Duration::from_secs(seconds);
            }
            other => return Err(format!("what is {other}? --help says what there is")),
        }
    }
    let all = LAYERS.iter().chain(WIDE.iter().filter(|_| wide));
    options.layers = if layers.is_empty() { all.collect() } else { layers };
    Ok(Some(options))
}

impl Options {
    fn switches(&self) -> Result<Vec<Switch>, String> {
        let all: Vec<Switch> = if self.defences {
            Defence::ALL.iter().map(|defence| (WITHOUT, defence.name())).collect()
        } else {
            Bug::ALL.iter().map(|bug| (BUG, bug.name())).collect()
        };
        if let Some(unknown) = self.only.iter().find(|only| !all.iter().any(|(_, name)| name == only)) {
            return Err(format!("there is no {unknown}"));
        }
        let is_chosen =
            |(_, name): &Switch| self.only.is_empty() || self.only.iter().any(|only| only == name);
        Ok(all.into_iter().filter(is_chosen).collect())
    }
}

impl Layers {
    fn find(options: &Options) -> Result<Self, String> {
        // All of them, so that one choice of layers is not built with other features than another.
        let named = LAYERS.iter().chain(WIDE).map(|layer| layer.cases).flat_map(|cases| match cases {
            Cases::Tests(binaries) => binaries.iter().copied(),
            Cases::Seeds { .. } => [].iter().copied(),
        });
        let program = env::current_exe().map_err(|error| format!("this program: {error}"))?;
        let mut binaries = BTreeMap::new();
        for (binary, path) in build(&named.collect())? {
            let tests = tests_in(&path)?;
            binaries.insert(binary, (path, tests));
        }
        Ok(Self { program, binaries, limit: options.limit, seeds: options.seeds })
    }

    fn run(&self, layer: &Layer, switch: Option<Switch>) -> Caught {
        match layer.cases {
            Cases::Tests(binaries) => self.run_tests(binaries, switch),
            Cases::Seeds { .. } => self.run_seeds(layer, switch),
        }
    }

    /// Runs the binaries one after the other, each its tests one after the other, until one fails.
    fn run_tests(&self, binaries: &[Binary], switch: Option<Switch>) -> Caught {
        let mut passed = 0;
        for binary in binaries {
            let (path, tests) = &self.binaries[binary];
            let mut command = Command::new(path);
            command.arg("--test-threads=1");
            let mut of_binary = 0;
            let ended = run(changed(command, switch), self.limit, |line| {
                let result = line.strip_prefix("test ").and_then(|test| test.rsplit_once(" ... "));
                match result {
                    Some((_, "ok")) => of_binary += 1,
                    Some((_, "FAILED")) => return false,
                    Some(_) | None => {}
                }
                true
            });
            passed += of_binary as u64;
            if ended != Ended::Passed {
                let by =
                    tests.get(of_binary).map_or("a test", |test| test.rsplit("::").next().unwrap_or(test));
                return Caught { after: Some(passed + 1), by: by.to_owned(), hung: ended == Ended::Hung };
            }
        }
        Caught { after: None, by: String::new(), hung: false }
    }

    fn run_seeds(&self, layer: &Layer, switch: Option<Switch>) -> Caught {
        let mut command = Command::new(&self.program);
        command.args([SEEDS, layer.name]).args(self.seeds.map(|count| count.to_string()));
        let (mut passed, mut by) = (0, String::new());
        let ended = run(changed(command, switch), self.limit, |line| {
            match line.strip_prefix(CAUGHT) {
                Some(why) => why.clone_into(&mut by),
                None => passed += 1,
            }
            by.is_empty()
        });
        let after = (ended != Ended::Passed).then_some(passed + 1);
        Caught { after, by: format!("seed {passed}: {by}"), hung: ended == Ended::Hung }
    }
}

/// A command that runs with this wrong with the core, and nothing else.
fn changed(mut command: Command, switch: Option<Switch>) -> Command {
    command.env_remove(BUG).env_remove(WITHOUT).envs(switch);
    command
}

/// Runs a layer of seeds, or `count` of them: a line for each that passes, and one for what is wrong with the first that does not.
fn run_seeds(name: &str, wanted: Option<u64>) {
    let layer = LAYERS.iter().find(|layer| layer.name == name);
    let Some(Layer { cases: Cases::Seeds { count, run }, .. }) = layer else {
        panic!("there is no layer of seeds {name}");
    };
    static SAID: Mutex<String> = Mutex::new(String::new());
    set_hook(Box::new(|panic| {
        let payload = panic.payload();
        let said = payload.downcast_ref::<String>().cloned();
        let said = said.or_else(|| payload.downcast_ref::<&str>().map(|said| (*said).to_owned()));
        *SAID.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = said.unwrap_or_default();
    }));
    for seed in 0..wanted.unwrap_or(*count) {
        let why = match catch_unwind(|| run(seed)) {
            Ok(Ok(())) => {
                println!("{seed}");
                continue;
            }
            Ok(Err(why)) => why,
            Err(_) => SAID.lock().unwrap_or_else(std::sync::PoisonError::into_inner).clone(),
        };
        let first: String = why.lines().next().unwrap_or_default().chars().take(80).collect();
        println!("{CAUGHT}{first} ");
        return;
    }
}

/// Prints lines in their order, each as soon as all before it are known.
struct Lines {
    at: usize,
    waiting: BTreeMap<usize, String>,
}

impl Lines {
    fn print(&mut self, at: usize, line: String) {
        self.waiting.insert(at, line);
        while let Some(line) = self.waiting.remove(&self.at) {
            println!("{line}");
            self.at += 1;
        }
    }
}

fn line(name: &str, layers: &[&str], row: &[Caught]) -> String {
    let cell = |caught: &Caught| match (caught.after, caught.hung) {
        (Some(after), false) => after.to_string(),
        (Some(after), true) => format!("{after} (did not end)"),
        (None, _) => "-".to_owned(),
    };
    let mut cells: Vec<_> = row.iter().map(cell).collect();
    cells.resize(layers.len(), String::new());
    let first = row.iter().zip(layers).find(|(caught, _)| caught.after.is_some());
    let first =
        first.map_or("NOT CAUGHT".to_owned(), |(caught, layer)| format!("{layer}: {}", caught.by.trim_end()));
    format!("| {name} | {} | {first} |", cells.join(" | "))
}
