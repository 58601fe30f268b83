//! `soma-sync trace info`.

use super::{Output, TraceFileArgument, ending, open, seconds, unreadable};
use crate::output::print_result;
use anyhow::{Context, Result};
use serde_json::json;
use soma_sync_core::time::Timestamp;
use soma_sync_proto::trace::{CommandKind, Ending, TraceHeader};
use std::{collections::BTreeMap, fmt::Write, fs};

/// Arguments of `trace info`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Example:
  soma-sync trace info node.trace")]
pub(crate) struct Arguments {
    #[command(flatten)]
    file: TraceFileArgument,
    #[command(flatten)]
    output: Output,
}

/// What was counted.
#[derive(Default)]
struct Counts {
    commands: BTreeMap<CommandKind, u64>,
    last: Timestamp,
    most_commands: usize,
    unfinished: bool,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let path = &arguments.file.path;
    let mut reader = open(path)?;
    let mut counts = Counts { last: reader.header().started, ..Counts::default() };
    while let Some(entry) = reader.next_entry().map_err(|error| unreadable(path, error))? {
        counts.last = counts.last.max(entry.at);
        counts.most_commands = counts.most_commands.max(entry.commands.len());
        counts.unfinished |= entry.unfinished;
        for mark in &entry.commands {
            *counts.commands.entry(mark.kind).or_default() += 1;
        }
    }
    let bytes = fs::metadata(path).with_context(|| format!("cannot look at {}", path.display()))?.len();
    let header = reader.header();
    let digest = hex::encode(reader.digest());
    let torn = matches!(reader.ending(), Some(Ending::Torn { .. }));
    let kinds: serde_json::Map<_, _> =
        counts.commands.iter().map(|(kind, count)| (kind.to_string(), json!(count))).collect();
    let object = json!({
        "build": header.build,
        "full": header.full,
        "seed": hex::encode(header.seed),
        "chain_id": header.start.chain_id.to_string(),
        "start": header.start.tip.reference.index.get(),
        "started_unix_ms": header.started_unix_ms,
        "skipped_events": header.skipped_events,
        "state_bytes": header.state.as_ref().map(bytes::Bytes::len),
        "events": reader.events(),
        "commands": reader.commands(),
        "commands_by_kind": kinds,
        "microseconds": counts.last.saturating_since(header.started).as_micros() as u64,
        "bytes": bytes,
        "digest": digest,
        "ending": ending(reader.ending()),
        "torn": torn,
        "unfinished": counts.unfinished,
    });
    let mut text = describe(header);
    let _ = writeln!(text, "events       {}", reader.events());
    let _ =
        writeln!(text, "commands     {}, at most {} of an event", reader.commands(), counts.most_commands);
    for (kind, count) in &counts.commands {
        let _ = writeln!(text, "  {count:>10}  {kind}");
    }
    let _ = writeln!(text, "time         {} to {} s", seconds(header.started), seconds(counts.last));
    let _ = writeln!(text, "size         {bytes} bytes");
    let _ = writeln!(text, "digest       {digest}");
    let _ = write!(text, "ends         {}", ending(reader.ending()));
    print_result(arguments.output.json, &object, &text)
}

fn describe(header: &TraceHeader) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "recorded by  {}", header.build);
    let kept = if header.full { "full: with the bytes of payloads" } else { "thin: payloads by fingerprint" };
    let _ = writeln!(text, "kept         {kept}");
    let _ = writeln!(text, "chain        {}", header.start.chain_id);
    let _ = writeln!(text, "begins       after commit {}", header.start.tip.reference.index);
    if header.skipped_events > 0 {
        let _ = writeln!(text, "lacks        the first {} events", header.skipped_events);
    }
    if let Some(state) = &header.state {
        let _ = writeln!(text, "replays      from the machine's state after these, {} bytes", state.len());
    }
    text
}
