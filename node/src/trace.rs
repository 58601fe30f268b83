//! `soma-sync trace`: what a node has recorded, looked at and told to a machine again.

mod diff;
mod info;
mod replay;
mod show;
mod shrink;
mod view;
mod work;

use crate::output::about;
use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use soma_sync_core::time::Timestamp;
use soma_sync_proto::trace::{Ending, TraceReader};
use std::{
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
    process::ExitCode,
};

/// The commands on traces.
#[derive(Debug, Subcommand)]
pub(crate) enum TraceCommand {
    /// Say what a trace holds: who recorded it, of what machine, how many events, how it ends.
    Info(info::Arguments),
    /// Tell a machine the same again, and hold what it says against what was recorded.
    Replay(replay::Arguments),
    /// Print what happened, an event a line with the commands that came of it.
    Show(show::Arguments),
    /// Say where two traces part.
    Diff(diff::Arguments),
    /// Find fewer events that still end in the same halt, panic or violation.
    Shrink(shrink::Arguments),
    /// Make a page of it that a browser shows, offline: heights, throughput, a lane per peer.
    View(view::Arguments),
}

impl TraceCommand {
    pub(crate) fn run(self) -> Result<ExitCode> {
        match self {
            Self::Info(arguments) => info::run(&arguments).map(|()| ExitCode::SUCCESS),
            Self::Replay(arguments) => replay::run(&arguments),
            Self::Show(arguments) => show::run(&arguments).map(|()| ExitCode::SUCCESS),
            Self::Diff(arguments) => diff::run(&arguments),
            Self::Shrink(arguments) => shrink::run(&arguments).map(|()| ExitCode::SUCCESS),
            Self::View(arguments) => view::run(&arguments).map(|()| ExitCode::SUCCESS),
        }
    }
}

/// Which trace.
#[derive(Clone, Debug, Args)]
struct TraceFileArgument {
    /// The trace file.
    #[arg(value_name = "FILE")]
    path: PathBuf,
}

/// How the result is printed.
#[derive(Clone, Copy, Debug, Args)]
struct Output {
    /// Print the result as one JSON object, the last line on stdout.
    #[arg(long)]
    json: bool,
}

type Reader = TraceReader<BufReader<File>>;

fn open(path: &Path) -> Result<Reader> {
    let file =
        File::open(path).map_err(|error| about(format_args!("cannot open {}", path.display()), error))?;
    TraceReader::open(BufReader::new(file)).map_err(|error| unreadable(path, error))
}

fn unreadable(path: &Path, error: impl Into<anyhow::Error>) -> anyhow::Error {
    about(format_args!("{} cannot be read", path.display()), error)
}

/// Refuses to write where something is already.
fn is_free(out: &Path) -> Result<()> {
    if out.exists() {
        bail!("{} exists; give another --out", out.display());
    }
    Ok(())
}

/// A moment of the machine's clock, in seconds.
fn seconds(at: Timestamp) -> String {
    format!("{}.{:06}", at.as_micros() / 1_000_000, at.as_micros() % 1_000_000)
}

/// How a trace ends, for people.
fn ending(ending: Option<Ending>) -> String {
    match ending {
        Some(Ending::Whole(reason)) => reason.to_string(),
        Some(Ending::Torn { bytes_lost: 0 }) => {
            "torn: it has no end mark, because the process was killed or is still recording".to_owned()
        }
        Some(Ending::Torn { bytes_lost }) => {
            format!("torn: {bytes_lost} bytes of a frame that is not whole are left out")
        }
        None => "not read to its end".to_owned(),
    }
}
