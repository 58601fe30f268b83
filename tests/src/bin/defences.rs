//! Takes each defence of the core away in turn and prints which tests notice: row of the table of threats, defence, tests.
//!
//! Builds the test binaries once, with the switches; then runs each named test as a process of its own, first without
//! any switch, when all must pass, and then without each defence, when one at least must fail. A test that does not end
//! in time counts as having noticed.

use serde_json::json;
use soma_sync_core::defence::WITHOUT;
use soma_sync_tests::{
    defences::{BINARIES, HELD, Held},
    processes::{self, Ended, build, in_parallel, tests_in},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    path::PathBuf,
    process::{Command, ExitCode},
    sync::Mutex,
    time::{Duration, Instant},
};

const USAGE: &str = "\
Takes each defence away in turn, and prints which tests notice.

Usage: defences [--only NAME]... [--json] [--limit SECONDS]

  --only NAME      only this defence, by its name; may be given more than once
  --json           one JSON object a line, in place of the table
  --limit SECONDS  how long a test may take without a defence before it counts as having noticed (120)

Exit status: 0 when a test noticed each defence that was gone, 1 when one was not noticed or a test fails with all of
them, 2 when the arguments are wrong or the tests cannot be built.
";

struct Options {
    only: Vec<String>,
    json: bool,
    limit: Duration,
}

/// A test, as its binary calls it.
struct Test {
    binary: PathBuf,
    path: String,
}

fn main() -> ExitCode {
    match run() {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("defences: {error}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<bool, String> {
    let Some(options) = options(env::args().skip(1))? else {
        print!("{USAGE}");
        return Ok(true);
    };
    let chosen: Vec<&Held> = HELD.iter().filter(|held| options.chooses(held)).collect();
    let tests = find_tests()?;
    let named: BTreeSet<&str> = chosen.iter().flat_map(|held| held.tests).copied().collect();
    if let Some(unknown) = named.iter().find(|name| !tests.contains_key(**name)) {
        return Err(format!("there is no test {unknown}"));
    }
    let began = Instant::now();
    let named: Vec<&str> = named.into_iter().collect();
    let before = in_parallel(&named, |name| run_test(&tests[*name], None, options.limit));
    let unsound: Vec<_> = named.iter().zip(before).filter(|(_, ended)| *ended != Ended::Passed).collect();
    for (name, ended) in &unsound {
        eprintln!("{name}: {ended:?} with every defence in its place");
    }
    if !unsound.is_empty() {
        return Ok(false);
    }
    eprintln!("{} tests pass with every defence in its place ({:.0?})", named.len(), began.elapsed());
    if !options.json {
        println!("| row | defence taken away | tests that noticed |\n| --- | --- | --- |");
    }
    let runs: Vec<(&Held, &str)> =
        chosen.iter().flat_map(|held| held.tests.iter().map(|test| (*held, *test))).collect();
    let report = Mutex::new(Report::new(&chosen, options.json));
    in_parallel(&runs, |(held, name)| {
        let ended = run_test(&tests[*name], Some(held.defence.name()), options.limit);
        report.lock().expect("nobody panics with it").ended(held, name, ended);
    });
    let caught = report.into_inner().expect("nobody panics with it").caught;
    eprintln!(
        "of {caught} of {} defences a test noticed that they were gone ({} runs, {:.0?})",
        chosen.len(),
        runs.len(),
        began.elapsed()
    );
    Ok(caught == chosen.len())
}

/// `None` where only the usage is wanted.
fn options(mut arguments: impl Iterator<Item = String>) -> Result<Option<Options>, String> {
    let mut options = Options { only: Vec::new(), json: false, limit: Duration::from_secs(120) };
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{argument} needs a value"));
        match argument.as_str() {
            "--help" | "-h" => return Ok(None),
            "--json" => options.json = true,
            "--only" => {
                let name = value()?;
                let is_known = HELD.iter().any(|held| held.defence.name() == name);
                options
                    .only
                    .push(is_known.then_some(name.clone()).ok_or(format!("there is no defence {name}"))?);
            }
            "--limit" => {
                let seconds = value()?.parse().map_err(|error| format!("--limit: {error}"))?;
                options.limit = Duration::from_secs(seconds);
            }
            other => return Err(format!("what is {other}? --help says what there is")),
        }
    }
    Ok(Some(options))
}

impl Options {
    fn chooses(&self, held: &Held) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == held.defence.name())
    }
}

/// Builds the binaries, and asks each for its tests; by the name of the function.
fn find_tests() -> Result<BTreeMap<String, Test>, String> {
    let mut tests = BTreeMap::new();
    for binary in build(&BINARIES.iter().copied().collect())?.into_values() {
        for path in tests_in(&binary)? {
            let name = path.rsplit("::").next().unwrap_or(&path).to_owned();
            tests.insert(name, Test { binary: binary.clone(), path });
        }
    }
    Ok(tests)
}

/// Runs one test in a process of its own.
fn run_test(test: &Test, without: Option<&str>, limit: Duration) -> Ended {
    let mut command = Command::new(&test.binary);
    command.args(["--exact", &test.path]).env_remove(WITHOUT).envs(without.map(|name| (WITHOUT, name)));
    processes::run(command, limit, |_| true)
}

/// What is known of the defences, in the order of the table, printed as soon as it is whole.
struct Report<'a> {
    /// Each defence, how its tests ended so far, and whether it has been printed.
    lines: Vec<(&'a Held, Vec<(&'static str, Ended)>)>,
    printed: usize,
    caught: usize,
    json: bool,
}

impl<'a> Report<'a> {
    fn new(chosen: &[&'a Held], json: bool) -> Self {
        let lines = chosen.iter().map(|held| (*held, Vec::new())).collect();
        Self { lines, printed: 0, caught: 0, json }
    }

    fn ended(&mut self, held: &Held, test: &'static str, ended: Ended) {
        let line = self.lines.iter_mut().find(|(of, _)| of.defence == held.defence);
        line.expect("a chosen defence").1.push((test, ended));
        while let Some((held, ended)) = self.lines.get(self.printed)
            && ended.len() == held.tests.len()
        {
            self.caught += usize::from(ended.iter().any(|(_, ended)| *ended != Ended::Passed));
            print_line(held, ended, self.json);
            self.printed += 1;
        }
    }
}

fn print_line(held: &Held, ended: &[(&str, Ended)], json: bool) {
    let noticed = |by: Ended| ended.iter().filter(move |(_, ended)| *ended == by).map(|(test, _)| *test);
    let (failed, hung): (Vec<_>, Vec<_>) = (noticed(Ended::Failed).collect(), noticed(Ended::Hung).collect());
    let name = held.defence.name();
    if json {
        println!("{}", json!({ "rows": held.rows, "defence": name, "failed": failed, "hung": hung }));
        return;
    }
    let hung = hung.into_iter().map(|test| format!("`{test}` (did not end)"));
    let all: Vec<_> = failed.into_iter().map(|test| format!("`{test}`")).chain(hung).collect();
    let all = if all.is_empty() { "NOT CAUGHT".to_owned() } else { all.join(", ") };
    println!("| {} | {name} | {all} |", held.rows);
}
