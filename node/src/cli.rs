//! What can be typed.

use crate::{chain::ChainCommand, demo, node, sim, trace::TraceCommand};
use clap::{CommandFactory, Parser, Subcommand, error::ErrorKind};
use std::fmt::Display;

/// Peer-to-peer state synchronization of the Soma blockchain.
#[derive(Debug, Parser)]
#[command(name = "soma-sync", version, max_term_width = 100)]
pub(crate) struct Cli {
    /// What to do; without one, `demo`.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Show it all on this machine: nodes that serve a chain, and a fresh one that syncs it from them.
    Demo(demo::Arguments),
    /// Make, import, export and verify chain files.
    #[command(subcommand)]
    Chain(ChainCommand),
    /// Run a node: fetch from peers, serve to peers.
    Node(node::Arguments),
    /// Look at what a node has recorded, and replay it.
    #[command(subcommand)]
    Trace(TraceCommand),
    /// Run whole networks in virtual time, each drawn from a seed with what goes wrong in it.
    Sim(sim::Arguments),
}

impl Cli {
    /// What is to be done: the demo as it is, where nothing was typed.
    pub(crate) fn chosen(self) -> Command {
        self.command.unwrap_or_else(|| Command::Demo(demo::Arguments::default()))
    }
}

/// Ends the program as wrong usage: for arguments that only together cannot be.
pub(crate) fn wrong_usage(reason: impl Display) -> ! {
    Cli::command().error(ErrorKind::ValueValidation, reason).exit()
}

/// Wrong usage that only shows when the command runs; the program ends with its code.
#[derive(Debug)]
pub(crate) struct WrongUsage(pub(crate) String);

impl Display for WrongUsage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for WrongUsage {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_declared_without_contradictions() {
        Cli::command().debug_assert();
    }
}
