//! `soma-sync demo`: the main job on this machine, in one command. Serving nodes over real QUIC with durable stores, a
//! chain that goes on growing, and a fresh node that catches up, verifies, stores and follows the tip.

mod chain;
mod manner;
mod meter;
mod outcome;
mod server;
mod show;
mod stage;
mod story;
mod usage;

use crate::{
    cli,
    interrupt::Interrupt,
    node::Verification,
    output::{about, print_result},
    shape::Shape,
};
use anyhow::{Context, Result, bail};
use clap::{Args, Parser, value_parser};
use manner::Manner;
use outcome::{End, Outcome};
use show::Screen;
use soma_sync_core::Config;
use soma_sync_sim::chain::ChainSpec;
use std::{fs, io::ErrorKind, path::Path, path::PathBuf, process::ExitCode};
use tempfile::TempDir;

/// Most serving nodes that can be asked for.
const SERVERS_MAX: u8 = 16;
/// What a shell says of a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// Arguments of `demo`.
#[derive(Clone, Debug, Args)]
#[command(after_help = "\
Ends by itself; the exit code is 0 only if the fresh node has the serving nodes' tip, and its store is good from genesis
on. With chaos, the first serving node is stopped half-way and started again, the last one is slow, and one more serves
garbage. The fresh node meets servers that are silent or lie first, and the others once it has found those out.
The commits, blocks, bytes, seconds and rates of the result are those of catching up: from the fresh node's start until
it is within a second of the tip. Processor time and memory are those of the whole program, serving nodes included.

Examples:
  soma-sync demo
  soma-sync demo --peers 5 --commits 20000 --payload-bytes 4KiB --no-chaos --json
  soma-sync demo --servers honest,silent,lying
  soma-sync demo --trace demo.trace && soma-sync trace view demo.trace --out demo.html")]
pub(crate) struct Arguments {
    /// Serving nodes that are honest, at most 16.
    #[arg(long, value_name = "N", default_value_t = 3,
          value_parser = value_parser!(u8).range(1..=i64::from(SERVERS_MAX)))]
    peers: u8,
    /// The manner of each serving node, one of them honest at least and at most 16 in all, instead of --peers and
    /// chaos. None of them is stopped.
    #[arg(long, value_name = "LIST", value_enum, value_delimiter = ',',
          conflicts_with_all = ["peers", "chaos", "no_chaos"])]
    servers: Vec<Manner>,
    /// Commits that there are when the fresh node starts.
    #[arg(long, value_name = "N", default_value_t = 2_000, value_parser = value_parser!(u32).range(1..))]
    commits: u32,
    #[command(flatten)]
    shape: Shape,
    /// Epochs that the commits are spread over, at most as many as commits.
    #[arg(long, value_name = "N", default_value_t = 2)]
    epochs: u32,
    /// How long the fresh node follows the growing tip once it has caught up, at most 3600 seconds.
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = value_parser!(u16).range(..=3600))]
    live_seconds: u16,
    /// Let serving nodes fail, be slow and lie. The default.
    #[arg(long, overrides_with = "no_chaos")]
    chaos: bool,
    /// Let all serving nodes do as they should.
    #[arg(long, overrides_with = "chaos")]
    no_chaos: bool,
    /// How much is checked of a block beyond its digest.
    #[arg(long, value_enum, default_value_t = Verification::Full)]
    verification: Verification,
    /// Where the stores are made, in a directory that is empty or not there. They stay. Where it is not given, they are
    /// in a temporary directory and removed at the end.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Record what the fresh node is told and what it says, for `soma-sync trace`. A file that is there is kept, its name
    /// followed by `.old`.
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// What everything is drawn from.
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Print the result as one JSON object, the last line on stdout. Progress goes to stderr.
    #[arg(long)]
    json: bool,
}

/// What stands where nothing is typed.
impl Default for Arguments {
    fn default() -> Self {
        #[derive(Parser)]
        struct Typed {
            #[command(flatten)]
            arguments: Arguments,
        }
        // Everything has a default, so nothing can be missing.
        Typed::parse_from(["demo"]).arguments
    }
}

impl Arguments {
    pub(crate) fn run(&self) -> Result<ExitCode> {
        if let Err(error) = self.spec().validate() {
            cli::wrong_usage(error);
        }
        if let Err(error) = self.validate_servers() {
            cli::wrong_usage(error);
        }
        let interrupt = Interrupt::install()?;
        let home = Home::new(self.dir.as_deref())?;
        let mut screen = Screen::new(self.json);
        let outcome = match story::tell(self, home.path(), &interrupt, &mut screen) {
            Ok(outcome) => outcome,
            // Before there is anything to say of it.
            Err(_) if interrupt.came() => return Ok(ExitCode::from(INTERRUPTED)),
            Err(error) => return Err(error),
        };
        self.conclude(&outcome)
    }

    const fn spec(&self) -> ChainSpec {
        self.shape.spec(self.commits, self.epochs, self.seed)
    }

    fn validate_servers(&self) -> Result<(), String> {
        match &*self.servers {
            [] => Ok(()),
            servers if servers.len() > SERVERS_MAX.into() => {
                Err(format!("there are at most {SERVERS_MAX} serving nodes, not {}", servers.len()))
            }
            servers if servers.contains(&Manner::Honest) => Ok(()),
            _ => Err("one serving node at least has to be honest".to_owned()),
        }
    }

    fn with_chaos(&self) -> bool {
        !self.no_chaos && self.servers.is_empty()
    }

    /// How every node of the demo works.
    fn config(&self) -> Config {
        Config { block_verification: self.verification.into(), ..Config::default() }
    }

    fn conclude(&self, outcome: &Outcome) -> Result<ExitCode> {
        print_result(self.json, &outcome.json(), &outcome.text())?;
        match (&outcome.end, outcome.failure()) {
            (_, Some(reason)) => bail!(reason),
            (End::Interrupted, None) => Ok(ExitCode::from(INTERRUPTED)),
            (End::Done | End::Failed(_), None) => Ok(ExitCode::SUCCESS),
        }
    }
}

/// Where the stores are.
enum Home {
    Given(PathBuf),
    /// Removed when it is dropped.
    Temporary(TempDir),
}

impl Home {
    fn new(given: Option<&Path>) -> Result<Self> {
        let Some(path) = given else {
            let made = tempfile::Builder::new().prefix("soma-sync-demo-").tempdir();
            return Ok(Self::Temporary(made.context("cannot make a temporary directory")?));
        };
        match fs::read_dir(path).map(|mut entries| entries.next().is_none()) {
            Ok(true) => {}
            Ok(false) => bail!("{} is not empty; give another --dir, or none", path.display()),
            Err(error) if error.kind() == ErrorKind::NotFound => fs::create_dir_all(path)
                .map_err(|error| about(format_args!("cannot make {}", path.display()), error))?,
            Err(error) => return Err(about(format_args!("cannot look into {}", path.display()), error)),
        }
        Ok(Self::Given(path.to_owned()))
    }

    fn path(&self) -> &Path {
        match self {
            Self::Given(path) => path,
            Self::Temporary(directory) => directory.path(),
        }
    }
}
