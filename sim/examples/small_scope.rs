//! Searches every state of a few small scopes, and prints how many there are: `cargo run --release -p soma-sync-sim
//! --example small_scope`. With `ordinary`, those that the test searches.

use soma_sync_sim::small_scope::{Report, Scope, search};
use std::process::ExitCode;

fn main() -> ExitCode {
    let ordinary = std::env::args().nth(1).is_some_and(|which| which == "ordinary");
    let scopes = if ordinary { Scope::ordinary().to_vec() } else { Scope::full().to_vec() };
    let mut reports = Vec::new();
    for scope in scopes {
        println!("{scope:?}");
        match search(scope) {
            Ok(report) => {
                println!("{report}");
                reports.push(report);
            }
            Err(violation) => {
                eprintln!("{violation}");
                return ExitCode::FAILURE;
            }
        }
    }
    let unseen = Report::unseen(&reports);
    println!("never seen: {unseen:?}");
    if unseen.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
