//! The `soma-sync` program: peer-to-peer state synchronization of the Soma blockchain.
//!
//! Exit codes: 0 done, 1 it failed, 2 wrong usage. What failed is said on stderr in one line, then its cause chain.
#![forbid(unsafe_code)]

mod chain;
mod cli;
mod interrupt;
mod output;
mod units;

use clap::Parser;
use cli::{Cli, Command};
use std::process::ExitCode;

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Chain(command) => command.run(),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            output::print_error(&error);
            ExitCode::FAILURE
        }
    }
}
