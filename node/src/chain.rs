//! `soma-sync chain`: chain files and stores, one made of the other.

mod check;
mod export;
mod generate;
mod import;
mod inspect;
mod progress;
mod prune;
mod verify;

pub(crate) use check::read_genesis;
pub(crate) use verify::{Good, verify_store};

use anyhow::Result;
use clap::{Args, Subcommand};
use std::path::PathBuf;

/// The commands on chain files.
#[derive(Debug, Subcommand)]
pub(crate) enum ChainCommand {
    /// Write the chain file of a chain made from a seed: same arguments, same bytes, on every machine.
    Generate(generate::Arguments),
    /// Verify a chain file and store it.
    Import(import::Arguments),
    /// Write what a store holds as a chain file.
    Export(export::Arguments),
    /// Verify everything in a chain file or a store, from genesis on.
    Verify(verify::Arguments),
    /// Show what a chain file or a store holds, or one of its commits.
    Inspect(inspect::Arguments),
    /// Give up the beginning of the chain in a store.
    Prune(prune::Arguments),
}

impl ChainCommand {
    pub(crate) fn run(self) -> Result<()> {
        match self {
            Self::Generate(arguments) => generate::run(&arguments),
            Self::Import(arguments) => import::run(&arguments),
            Self::Export(arguments) => export::run(&arguments),
            Self::Verify(arguments) => verify::run(&arguments),
            Self::Inspect(arguments) => inspect::run(&arguments),
            Self::Prune(arguments) => prune::run(&arguments),
        }
    }
}

/// How the result is printed.
#[derive(Clone, Copy, Debug, Args)]
struct Output {
    /// Print the result as one JSON object, the last line on stdout.
    #[arg(long)]
    json: bool,
}

/// Where the store is.
#[derive(Clone, Debug, Args)]
struct StoreDirectory {
    /// The store's directory.
    #[arg(long = "store", value_name = "DIR")]
    path: PathBuf,
}
