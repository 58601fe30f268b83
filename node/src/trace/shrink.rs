//! `soma-sync trace shrink`.

mod rerun;

use super::{Output, TraceFileArgument, is_free, open, unreadable};
use crate::output::{about, print_result};
use anyhow::{Context, Result, bail};
use rerun::{Outcome, Recorded, Rerun};
use serde_json::json;
use soma_sync_proto::trace::record;
use std::{
    fs::{self, File},
    io::BufWriter,
    panic,
    path::PathBuf,
    time::{Duration, Instant},
};

/// Arguments of `trace shrink`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Events are left out as long as the machine still ends in the same panic, the same broken invariant or the same kind of
halt. What is left is recorded anew, so that it replays.

Example:
  soma-sync trace shrink node.trace --out small.trace")]
pub(crate) struct Arguments {
    #[command(flatten)]
    file: TraceFileArgument,
    /// Where the smaller trace is written.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// How long to go on trying.
    #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = crate::units::parse_duration)]
    time: Duration,
    #[command(flatten)]
    output: Output,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let path = &arguments.file.path;
    is_free(&arguments.out)?;
    let mut reader = open(path)?;
    let mut header = reader.header().clone();
    let first = Rerun::new(&header).with_context(|| format!("{} cannot be replayed", path.display()))?;
    let mut events = Vec::new();
    let mut recorded = Recorded::default();
    while let Some(entry) = reader.next_entry().map_err(|error| unreadable(path, error))? {
        recorded.learn(&entry.commands);
        events.push((entry.at, entry.event));
    }
    let all = events.len();
    let silenced = Silenced::new();
    let Some((outcome, through)) = first.clone().run(&events, &recorded) else {
        bail!("the machine ends well: no invariant is broken, nothing panics, nothing halts");
    };
    events.truncate(through + 1);
    let deadline = Instant::now() + arguments.time;
    let whole = shrink(&mut events, &first, &recorded, &outcome, deadline);
    let mut told = first.keeping_events();
    told.run(&events, &recorded);
    let events = told.into_events();
    header.build.push_str(", shrunk");
    let write = || -> std::io::Result<()> {
        let output = BufWriter::new(File::create(&arguments.out)?);
        record(output, &header, events.iter().cloned())?
            .into_inner()
            .map_err(std::io::IntoInnerError::into_error)?
            .sync_all()
    };
    write().map_err(|error| about(format_args!("cannot write {}", arguments.out.display()), error))?;
    drop(silenced);
    let bytes = fs::metadata(&arguments.out).context("the file is gone")?.len();
    let object = json!({
        "outcome": outcome.to_string(), "events_before": all, "events": events.len(), "bytes": bytes, "finished": whole,
    });
    let rest = if whole { "" } else { "; there was no time to try everything" };
    let text = format!("{outcome}: {all} events became {}{rest}", events.len());
    print_result(arguments.output.json, &object, &text)
}

/// Leaves out events as long as the outcome is the same: first large runs of them, then smaller ones, then single ones,
/// until none can go. Whether it came to that before the deadline.
fn shrink(
    events: &mut Vec<rerun::Told>,
    first: &Rerun,
    recorded: &Recorded,
    outcome: &Outcome,
    deadline: Instant,
) -> bool {
    let mut run = events.len().div_ceil(2).max(1);
    loop {
        let before = events.len();
        // What comes before the run that is tried is always the same: the machine need not be told it again.
        let mut prefix = first.clone();
        let mut position = 0;
        while position < events.len() {
            if Instant::now() >= deadline {
                return false;
            }
            let end = (position + run).min(events.len());
            let rest: Vec<_> = events[end..].to_vec();
            match prefix.clone().run(&rest, recorded) {
                Some((found, through)) if found == *outcome => {
                    events.truncate(position);
                    events.extend(rest.into_iter().take(through + 1));
                }
                Some(_) | None => {
                    // The last run ends in the outcome, and nothing comes after it.
                    prefix.run(&events[position..end], recorded);
                    position = end;
                }
            }
        }
        if run == 1 && events.len() == before {
            return true;
        }
        run = (run / 2).max(1);
    }
}

/// While it lives, panics say nothing: they are what is looked for.
struct Silenced;

impl Silenced {
    fn new() -> Self {
        panic::set_hook(Box::new(|_| {}));
        Self
    }
}

impl Drop for Silenced {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            drop(panic::take_hook());
        }
    }
}
