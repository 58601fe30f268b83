//! `soma-sync sim`: whole networks in virtual time, by seed.

use crate::{
    cli,
    interrupt::Interrupt,
    output::{about, print_result},
};
use anyhow::Result;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use soma_sync_sim::{
    fault::{Fault, FaultSet},
    swarm::{self, Plan, Settings, Summary, Theatre},
    violation::Violation,
    world::NodeId,
};
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::File,
    io::{self, BufWriter, IntoInnerError},
    num::NonZeroU64,
    ops::Range,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

/// Of so many violations there are traces: a bug shows in thousands of seeds in a night.
const MOST_TRACES: u64 = 10;
/// The node of every network that has to catch up.
const CATCHES_UP: u32 = 1;

/// Where traces of violations are, by seed.
type Traces = BTreeMap<u64, PathBuf>;

/// Arguments of `sim`.
#[derive(Debug, Args)]
#[command(after_help = "\
Each seed stands for a network: real state machines, links, disks, clocks and hostile peers, and what goes wrong in it.
An oracle judges every step; at a drawn moment the faults of one honest server and of the nodes that are behind stop, and
these must reach the tip in time. Same arguments, same hash, on every machine and with any number of jobs.
Exit code 0 means that every seed was run and nothing was violated. A violation is printed with its seed, the invariant and
a trace of the node that broke it, for `soma-sync trace`; of the first ten violations there is one.

Examples:
  soma-sync sim
  soma-sync sim --seeds 0..5000 --nodes 8 --commits 64 --json
  soma-sync sim --seed 17 --faults loss,crash,trickle
  soma-sync sim --seed 17 --trace 17.trace && soma-sync trace view 17.trace --out 17.html")]
pub(crate) struct Arguments {
    /// Seeds to run, from the first up to and without the last.
    #[arg(long, value_name = "A..B", default_value = "0..1000", value_parser = parse_seeds)]
    seeds: Range<u64>,
    /// Run this one seed, and say what it stands for.
    #[arg(long, value_name = "S", conflicts_with = "seeds")]
    seed: Option<u64>,
    /// Write a trace of one node here: of the one that broke an invariant or, where none did, of node 1, which has to catch
    /// up. It is of the last of the node's lives.
    #[arg(long, value_name = "FILE", requires = "seed")]
    trace: Option<PathBuf>,
    /// Trace this node instead, whatever happens; they are counted from 0.
    #[arg(long, value_name = "N", requires = "trace")]
    trace_node: Option<u32>,
    /// The directory for traces of violations.
    #[arg(long, value_name = "DIR", default_value = ".")]
    traces: PathBuf,
    /// Nodes of a network, from 2 to 2,000.
    #[arg(long, value_name = "N", default_value_t = 8)]
    nodes: u32,
    /// Commits of the chain, from 1 to 10000.
    #[arg(long, value_name = "N", default_value_t = 64)]
    commits: u32,
    /// Faults that there may be: `all`, `none`, or names with commas between them.
    #[arg(long, value_name = "LIST", default_value = "all")]
    faults: FaultSet,
    /// Run each seed that N divides twice over, and compare what happened.
    #[arg(long, value_name = "N")]
    again: Option<NonZeroU64>,
    /// Threads; as many as there are processors where it is not given.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1_024))]
    jobs: Option<u16>,
    /// Print the result as one JSON object on the last line of stdout.
    #[arg(long)]
    json: bool,
}

/// `A..B`, of which A is below B.
fn parse_seeds(text: &str) -> Result<Range<u64>, String> {
    let parsed =
        text.split_once("..").and_then(|(first, last)| Some(first.parse().ok()?..last.parse().ok()?));
    let seeds = parsed.ok_or_else(|| format!("{text:?} is no range; give two numbers, as in 0..1000"))?;
    if seeds.is_empty() { Err(format!("{text} holds no seed")) } else { Ok(seeds) }
}

impl Arguments {
    pub(crate) fn run(&self) -> Result<ExitCode> {
        let settings = Settings { nodes: self.nodes, commits: self.commits, faults: self.faults };
        if let Err(error) = settings.validate() {
            cli::wrong_usage(error);
        }
        if let Some(node) = self.trace_node.filter(|node| *node >= self.nodes) {
            cli::wrong_usage(format_args!("there is no node {node} among {}", self.nodes));
        }
        if let Some(file) = self.trace.as_deref().filter(|file| file.exists()) {
            anyhow::bail!("{} exists; give another --trace", file.display());
        }
        let seeds = self.seed.map_or_else(|| self.seeds.clone(), |seed| seed..seed.saturating_add(1));
        let interrupt = Interrupt::install()?;
        if let (Some(seed), false) = (self.seed, self.json) {
            println!("{}", describe(&Plan::draw(seed, settings)));
        }
        let wanted = seeds.end - seeds.start;
        let (summary, traces) = self.run_seeds(seeds, settings, &interrupt);
        let done = summary.runs == wanted;
        if let (Some(seed), Some(file), 0, true) = (self.seed, &self.trace, summary.violations, done) {
            record(seed, settings, self.trace_node.unwrap_or(CATCHES_UP) as usize, file)?;
        }
        print_result(self.json, &json(&summary, &traces), &self.text(&summary, settings))?;
        if let (Some(seed), false, 1..) = (self.seed, self.json, summary.violations)
            && let Some(needed) = swarm::needed_faults(seed, settings, &mut Theatre::default())
        {
            println!("with no more than these it is the same: --faults {needed}");
        }
        if !done {
            anyhow::bail!("interrupted after {} of {wanted} seeds", summary.runs);
        }
        Ok(if summary.violations == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn run_seeds(&self, seeds: Range<u64>, settings: Settings, interrupt: &Interrupt) -> (Summary, Traces) {
        let bar = bar(seeds.end - seeds.start);
        let jobs = self.jobs.map_or_else(processors, usize::from);
        let stop = AtomicBool::new(false);
        let mut violations = 0u64;
        let mut traces = Traces::new();
        let summary = swarm::run_seeds(seeds, settings, self.again, jobs, &stop, &mut |report| {
            stop.fetch_or(interrupt.came(), Ordering::Relaxed);
            if let Some(violation) = &report.outcome.violation {
                violations += 1;
                bar.set_message(format!(", {violations} violations"));
                let mut text = self.failure(report.seed, violation);
                if violations <= MOST_TRACES {
                    match self.leave_trace(report.seed, settings, violation) {
                        Ok((file, node)) => {
                            // Writing into a string cannot fail.
                            let _ = write!(text, "\ntrace: {} of node {node}", file.display());
                            traces.insert(report.seed, file);
                        }
                        Err(error) => drop(write!(text, "\nno trace: {error:#}")),
                    }
                }
                // On stderr and at once: a run of a night must not keep to itself what it found in the evening.
                bar.suspend(|| eprintln!("{text}"));
            }
            bar.inc(1);
        });
        bar.finish_and_clear();
        (summary, traces)
    }

    /// Plays a seed again and writes what the node was told that broke an invariant; where, and which node that is.
    fn leave_trace(&self, seed: u64, settings: Settings, violation: &Violation) -> Result<(PathBuf, usize)> {
        let broken_by = violation.node.map_or(CATCHES_UP as usize, NodeId::position);
        let node = self.trace_node.map_or(broken_by, |node| node as usize);
        let name = || self.traces.join(format!("sim-{seed}-{}.trace", violation.invariant));
        let file = self.trace.clone().unwrap_or_else(name);
        record(seed, settings, node, &file)?;
        Ok((file, node))
    }

    /// What a violation says, and how to see it again.
    fn failure(&self, seed: u64, violation: &Violation) -> String {
        let Self { nodes, commits, faults, .. } = self;
        let again =
            format!("soma-sync sim --seed {seed} --nodes {nodes} --commits {commits} --faults {faults}");
        format!("seed {seed}: {violation}\nagain: {again}")
    }

    fn text(&self, summary: &Summary, settings: Settings) -> String {
        let mut text = hits_table(summary, settings.faults);
        let Summary { runs, violations, simulated, events, hash, .. } = summary;
        // Writing into a string cannot fail.
        let _ = write!(
            text,
            "{runs} networks of {} nodes and {} commits: {} simulated, {events} events, {violations} violations\nhash {}",
            settings.nodes,
            settings.commits,
            rounded(*simulated),
            hex::encode(hash),
        );
        for (seed, violation) in &summary.failures {
            let first = violation.detail.lines().next().unwrap_or_default();
            let _ = write!(text, "\nseed {seed}: {}: {first}", violation.invariant);
        }
        text
    }
}

/// Plays a seed and writes a trace of one of its nodes.
fn record(seed: u64, settings: Settings, node: usize, file: &Path) -> Result<()> {
    let write = || -> io::Result<()> {
        let output = BufWriter::new(File::create(file)?);
        let (_, output) =
            swarm::run_recording(&Plan::draw(seed, settings), &mut Theatre::default(), node, output)?;
        output.into_inner().map_err(IntoInnerError::into_error)?.sync_all()
    };
    write().map_err(|error| about(format_args!("cannot write {}", file.display()), error))
}

/// The result for programs.
fn json(summary: &Summary, traces: &Traces) -> serde_json::Value {
    let hits: serde_json::Map<_, _> =
        Fault::ALL.iter().map(|fault| (fault.name().to_owned(), summary.hits.of(*fault).into())).collect();
    let failure = |(seed, violation): &(u64, Violation)| {
        serde_json::json!({
            "seed": seed,
            "invariant": violation.invariant.name(),
            "node": violation.node.map(NodeId::position),
            "trace": traces.get(seed).map(|file| file.display().to_string()),
            "detail": violation.detail,
        })
    };
    serde_json::json!({
        "runs": summary.runs,
        "violations": summary.violations,
        "simulated_seconds": summary.simulated.as_secs_f64(),
        "events": summary.events,
        "hash": hex::encode(summary.hash),
        "hits": hits,
        "failures": summary.failures.iter().map(failure).collect::<Vec<_>>(),
    })
}

/// How often each fault took effect, in columns.
fn hits_table(summary: &Summary, faults: FaultSet) -> String {
    const COLUMNS: usize = 3;
    let mut text = String::new();
    let cells: Vec<_> =
        faults.iter().map(|fault| format!("{:<24}{:>9}", fault.name(), summary.hits.of(fault))).collect();
    for row in cells.chunks(COLUMNS) {
        text.push_str(&row.join("   "));
        text.push('\n');
    }
    text
}

fn rounded(duration: Duration) -> String {
    let seconds = duration.as_secs();
    if seconds < 600 { format!("{seconds} s") } else { format!("{} min", seconds / 60) }
}

/// What a seed stands for, for people.
fn describe(plan: &Plan) -> String {
    let mut text = format!("faults that are on: {}\n", plan.on);
    for (at, role) in plan.roles.iter().enumerate() {
        // Writing into a string cannot fail.
        let _ = writeln!(text, "node {at}: {role:?}");
    }
    for episode in &plan.episodes {
        let swarm::Episode { fault, at, until, node, other, how: _ } = episode;
        let _ = writeln!(
            text,
            "{:>8.3} s to {:>8.3} s: {fault}, node {node} (and {other})",
            at.as_secs_f64(),
            until.as_secs_f64()
        );
    }
    let _ = write!(text, "faults of the core stop at {:.3} s", plan.calm.as_secs_f64());
    text
}

fn processors() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

/// A bar on stderr that counts seeds. Hidden where stderr is no terminal.
fn bar(total: u64) -> ProgressBar {
    let style =
        ProgressStyle::with_template("{bar:40} {human_pos}/{human_len} networks, {per_sec}, {eta} left{msg}");
    ProgressBar::new(total).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}
