//! `soma-sync trace show`.

pub(super) mod line;

use super::{TraceFileArgument, ending, open, seconds, unreadable, work::Work};
use anyhow::{Context, Result};
use line::event_line;
use soma_sync_core::{
    event::Event,
    request::{CommitInfoQuery, Request},
    types::PeerId,
};
use soma_sync_proto::trace::{Mark, TraceEntry};
use std::{
    collections::BTreeMap,
    io::{self, BufWriter, ErrorKind, Write},
    ops::RangeInclusive,
};

/// Arguments of `trace show`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  soma-sync trace show node.trace --from 12.5 --to 13
  soma-sync trace show node.trace --peer 5a3f --index 1204")]
pub(crate) struct Arguments {
    #[command(flatten)]
    file: TraceFileArgument,
    /// Only what is about this peer; the beginning of its id is enough.
    #[arg(long, value_name = "PEER_ID", value_parser = parse_peer)]
    peer: Option<String>,
    /// Only what is about this commit.
    #[arg(long, value_name = "INDEX")]
    index: Option<u32>,
    /// Only what happened from then on, in seconds of the machine's clock.
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    from: Option<u64>,
    /// Only what happened up to then.
    #[arg(long, value_name = "SECONDS", value_parser = parse_seconds)]
    to: Option<u64>,
}

pub(super) fn run(arguments: &Arguments) -> Result<()> {
    let path = &arguments.file.path;
    let mut reader = open(path)?;
    let mut output = BufWriter::new(io::stdout().lock());
    let mut known = Known::default();
    let written = loop {
        let Some(entry) = reader.next_entry().map_err(|error| unreadable(path, error))? else {
            let ending = ending(reader.ending());
            break writeln!(output, "the trace ends: {ending}").and_then(|()| output.flush());
        };
        if arguments.to.is_some_and(|to| entry.at.as_micros() > to) {
            break output.flush();
        }
        known.learn(&entry);
        if arguments.wants(&known, &entry)
            && let Err(error) = print(&mut output, &entry)
        {
            break Err(error);
        }
        known.forget(&entry.event);
    };
    match written {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.context("cannot write to stdout"),
    }
}

fn print(output: &mut impl Write, entry: &TraceEntry) -> io::Result<()> {
    writeln!(output, "{:>8} {:>14} {}", entry.number, seconds(entry.at), event_line(&entry.event))?;
    if entry.unfinished {
        writeln!(output, "{:>25} the machine did not come back from it", "!")?;
    }
    entry.commands.iter().try_for_each(|mark| writeln!(output, "{:>25} {mark}", "->"))
}

/// What began the work that is under way.
#[derive(Default)]
struct Known(BTreeMap<Work, Mark>);

impl Known {
    fn learn(&mut self, entry: &TraceEntry) {
        let begun = entry.commands.iter().filter_map(|mark| Some((Work::begun_by(mark)?, *mark)));
        self.0.extend(begun);
    }

    fn forget(&mut self, event: &Event) {
        match Work::of(event) {
            // Batches end in their order.
            Some(Work::Batch(through)) if matches!(event, Event::Stored { .. }) => {
                let stored = Work::Batch(0)..=Work::Batch(through);
                while let Some(batch) = self.0.range(stored.clone()).next().map(|(batch, _)| *batch) {
                    self.0.remove(&batch);
                }
            }
            Some(work) if matches!(event, Event::RequestFinished { .. } | Event::Verified { .. }) => {
                self.0.remove(&work);
            }
            Some(_) | None => {}
        }
    }

    /// What began that which an event ends, or is a part of.
    fn mark(&self, event: &Event) -> Option<&Mark> {
        self.0.get(&Work::of(event)?)
    }
}

impl Arguments {
    fn wants(&self, known: &Known, entry: &TraceEntry) -> bool {
        let marks = || entry.commands.iter().chain(known.mark(&entry.event));
        let of_peer = |prefix: &String| {
            let begins = |peer: &PeerId| peer.to_string().starts_with(prefix.as_str());
            peer_of(&entry.event).is_some_and(begins)
                || marks().any(|mark| mark.peer.as_ref().is_some_and(begins))
        };
        let of_commit = |index: &u32| {
            let is_in = |mark: &Mark| (mark.first..=mark.last).contains(&u64::from(*index));
            *index > 0
                && (marks().any(is_in) || commits_of(&entry.event).is_some_and(|range| range.contains(index)))
        };
        self.from.is_none_or(|from| entry.at.as_micros() >= from)
            && self.peer.as_ref().is_none_or(of_peer)
            && self.index.as_ref().is_none_or(of_commit)
    }
}

/// The peer that an event names.
const fn peer_of(event: &Event) -> Option<&PeerId> {
    match event {
        Event::PeerConnected { peer }
        | Event::PeerDisconnected { peer }
        | Event::RequestReceived { peer, .. } => Some(peer),
        Event::Tick
        | Event::CommitObserved { .. }
        | Event::VotesObserved { .. }
        | Event::CommitteeKnown { .. }
        | Event::ResponsePart { .. }
        | Event::RequestFinished { .. }
        | Event::Verified { .. }
        | Event::Stored { .. }
        | Event::StoreFailed { .. }
        | Event::StoreReopened { .. }
        | Event::Pruned { .. }
        | Event::Broadcasted { .. }
        | Event::Served { .. } => None,
    }
}

/// The commits that an event names.
fn commits_of(event: &Event) -> Option<RangeInclusive<u32>> {
    match event {
        Event::RequestReceived { request: Ok(request), .. } => match request {
            Request::Commits(fetch) => Some(fetch.start.get()..=fetch.end.get()),
            Request::CommitInfo(CommitInfoQuery::ByIndex(index)) | Request::Push { index } => {
                Some(index.get()..=index.get())
            }
            Request::CommitInfo(CommitInfoQuery::Latest)
            | Request::Availability { .. }
            | Request::Blocks(_) => None,
        },
        Event::Broadcasted { through: index } | Event::Pruned { lowest: index } => {
            Some(index.get()..=index.get())
        }
        Event::Tick
        | Event::CommitObserved { .. }
        | Event::VotesObserved { .. }
        | Event::CommitteeKnown { .. }
        | Event::PeerConnected { .. }
        | Event::PeerDisconnected { .. }
        | Event::RequestReceived { request: Err(_), .. }
        | Event::ResponsePart { .. }
        | Event::RequestFinished { .. }
        | Event::Verified { .. }
        | Event::Stored { .. }
        | Event::StoreFailed { .. }
        | Event::StoreReopened { .. }
        | Event::Served { .. } => None,
    }
}

fn parse_peer(text: &str) -> Result<String, String> {
    let is_prefix = (1..=64).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_prefix.then(|| text.to_ascii_lowercase()).ok_or_else(|| format!("{text:?} begins no peer id"))
}

/// Seconds, with at most six digits behind the point, in microseconds.
fn parse_seconds(text: &str) -> Result<u64, String> {
    let refused = || format!("{text:?} is no number of seconds");
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    if fraction.len() > 6 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(refused());
    }
    let whole: u64 = whole.parse().map_err(|_| refused())?;
    let micros: u64 = format!("{fraction:0<6}").parse().map_err(|_| refused())?;
    whole.checked_mul(1_000_000).and_then(|whole| whole.checked_add(micros)).ok_or_else(refused)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_read_as_they_are_printed() {
        assert_eq!(parse_seconds("12.5"), Ok(12_500_000));
        assert_eq!(parse_seconds("0.000001"), Ok(1));
        assert_eq!(parse_seconds("7"), Ok(7_000_000));
        let refused = ["", ".5", "1.0000001", "-1", "1.x", "99999999999999999999", "18446744073710"];
        assert!(refused.iter().all(|text| parse_seconds(text).is_err()));
    }

    #[test]
    fn the_beginning_of_a_peer_id_is_hex() {
        assert_eq!(parse_peer("5A3f"), Ok("5a3f".to_owned()));
        assert!(["", "xyz", &"a".repeat(65)].iter().all(|text| parse_peer(text).is_err()));
    }
}
