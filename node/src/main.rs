//! The `soma-sync` program: peer-to-peer state synchronization of the Soma blockchain.
//!
//! Exit codes: 0 done, 1 it failed, 2 wrong usage. What failed is said on stderr in one line, then its cause chain.
#![forbid(unsafe_code)]

mod chain;
mod cli;
mod demo;
mod interrupt;
mod node;
mod output;
mod shape;
mod sim;
mod trace;
mod units;

use clap::Parser;
use cli::{Cli, Command};
use std::{io::IsTerminal, process::ExitCode};
use tracing_subscriber::{EnvFilter, filter::LevelFilter};

fn main() -> ExitCode {
    let command = Cli::parse().chosen();
    log_to_stderr(&command);
    let done = match command {
        Command::Demo(arguments) => arguments.run(),
        Command::Chain(command) => command.run().map(|()| ExitCode::SUCCESS),
        Command::Node(arguments) => arguments.run(),
        Command::Sim(arguments) => arguments.run(),
        Command::Trace(command) => command.run(),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            output::print_error(&error);
            if error.is::<cli::WrongUsage>() { ExitCode::from(2) } else { ExitCode::FAILURE }
        }
    }
}

/// Logs go to stderr: warnings, or what `RUST_LOG` asks for. The demo says itself what goes wrong on purpose.
fn log_to_stderr(command: &Command) {
    let level = match command {
        Command::Demo(_) => LevelFilter::ERROR,
        Command::Chain(_) | Command::Node(_) | Command::Sim(_) | Command::Trace(_) => LevelFilter::WARN,
    };
    let wanted = EnvFilter::builder().with_default_directive(level.into()).from_env_lossy();
    let colours =
        std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|no| no.is_empty());
    let format = tracing_subscriber::fmt().with_ansi(colours).with_writer(std::io::stderr);
    format.with_env_filter(wanted).init();
}
