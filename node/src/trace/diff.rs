//! `soma-sync trace diff`.

use super::{Output, Reader, ending, open, seconds, show::line::event_line, unreadable};
use crate::output::print_result;
use anyhow::Result;
use serde_json::json;
use soma_sync_proto::trace::{TraceEntry, TraceHeader};
use std::{fmt::Write, path::PathBuf, process::ExitCode};

/// Arguments of `trace diff`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit code 0 where both hold the same events and commands, 1 where they part.

Example:
  soma-sync trace diff before.trace after.trace")]
pub(crate) struct Arguments {
    /// One trace.
    #[arg(value_name = "A")]
    a: PathBuf,
    /// The other one.
    #[arg(value_name = "B")]
    b: PathBuf,
    #[command(flatten)]
    output: Output,
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let (mut a, mut b) = (open(&arguments.a)?, open(&arguments.b)?);
    let made_of = header_differences(a.header(), b.header());
    let parting = loop {
        let next = |reader: &mut Reader, path| reader.next_entry().map_err(|error| unreadable(path, error));
        match (next(&mut a, &arguments.a)?, next(&mut b, &arguments.b)?) {
            (None, None) => break None,
            (a, b) if a == b => {}
            (a, b) => break Some((a, b)),
        }
    };
    let same = made_of.is_empty() && parting.is_none();
    let mut text = String::new();
    if !made_of.is_empty() {
        let _ = writeln!(text, "the machines differ in: {}", made_of.join(", "));
    }
    match &parting {
        None => {
            let _ = write!(text, "the same {} events and {} commands", a.events(), a.commands());
        }
        Some((in_a, in_b)) => {
            let _ = writeln!(
                text,
                "after the same {} events they part",
                a.events().min(b.events()).saturating_sub(1)
            );
            let _ = writeln!(text, "A: {}", side(in_a.as_ref(), &a));
            let _ = write!(text, "B: {}", side(in_b.as_ref(), &b));
        }
    }
    let object = json!({
        "same": same,
        "machines_differ_in": made_of,
        "parts_at": parting.map(|(in_a, in_b)| in_a.or(in_b).map(|entry| entry.number)),
        "events": [a.events(), b.events()],
    });
    print_result(arguments.output.json, &object, &text)?;
    Ok(if same { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn side(entry: Option<&TraceEntry>, reader: &Reader) -> String {
    let Some(entry) = entry else { return format!("nothing more; {}", ending(reader.ending())) };
    let mut text = format!("event {} at {} s: {}", entry.number, seconds(entry.at), event_line(&entry.event));
    for mark in &entry.commands {
        let _ = write!(text, "\n   -> {mark}");
    }
    if entry.unfinished {
        text.push_str("\n   the machine did not come back from it");
    }
    text
}

/// What the machines are made of differently, in words. Who recorded, and when, is no difference.
fn header_differences(a: &TraceHeader, b: &TraceHeader) -> Vec<&'static str> {
    let differences = [
        (a.config != b.config, "configuration"),
        (a.start != b.start, "what was stored"),
        (a.seed != b.seed, "seed"),
        (a.started != b.started, "when it was made"),
        (a.skipped_events != b.skipped_events, "how many events are missing"),
        (a.state != b.state, "the state that they begin with"),
    ];
    differences.into_iter().filter_map(|(differs, what)| differs.then_some(what)).collect()
}
