//! `soma-sync trace replay`.

use super::{Output, TraceFileArgument, ending, open, seconds, show::line::event_line, unreadable};
use crate::output::print_result;
use anyhow::{Result, bail};
use serde_json::json;
use soma_sync_proto::trace::{Difference, Judge, Replay, ReplayError, Step};
use std::{
    fmt::Write,
    io::Read,
    panic::{self, AssertUnwindSafe},
    process::ExitCode,
    time::Instant,
};

/// Arguments of `trace replay`.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Exit code 0 where every command is the same as recorded. Else 1, and the first that is not is printed, with both sides.
A trace recorded by another build may differ only because commands are made of something else there.

Example:
  soma-sync trace replay node.trace")]
pub(crate) struct Arguments {
    #[command(flatten)]
    file: TraceFileArgument,
    /// Check after every event what must hold of the machine and of what it says, too. Slow.
    #[arg(long)]
    check: bool,
    #[command(flatten)]
    output: Output,
}

/// How a replay ended.
enum Found {
    Same,
    Different(Box<Difference>),
    /// The machine panicked; whether it did when it was recorded.
    Panicked {
        event: u64,
        recorded: bool,
    },
    /// When it was recorded it panicked, and now it did not.
    Survived {
        event: u64,
    },
    Violated {
        event: u64,
        invariant: &'static str,
    },
}

pub(super) fn run(arguments: &Arguments) -> Result<ExitCode> {
    let path = &arguments.file.path;
    let mut replay = Replay::new(open(path)?).map_err(|error| unreadable(path, error))?;
    let began = Instant::now();
    let found = find(&mut replay, arguments.check).map_err(|error| unreadable(path, error))?;
    let seconds = began.elapsed().as_secs_f64();
    let (events, commands) = (replay.reader().events(), replay.reader().commands());
    let (same, what) = match &found {
        Found::Same => (true, format!("{events} events led to the same {commands} commands")),
        Found::Different(difference) => (false, both_sides(difference)),
        Found::Panicked { event, recorded: true } => (
            true,
            format!("the machine panics at event {event}, as recorded; before it every command is the same"),
        ),
        Found::Panicked { event, recorded: false } => {
            (false, format!("the machine panics at event {event}; when it was recorded it did not"))
        }
        Found::Survived { event } => {
            (false, format!("when it was recorded the machine panicked at event {event}; now it does not"))
        }
        Found::Violated { event, invariant } => {
            (false, format!("after event {event} an invariant does not hold: {invariant}"))
        }
    };
    let status = replay.machine().status();
    let object = json!({
        "same": same,
        "events": events,
        "commands": commands,
        "seconds": seconds,
        "digest": hex::encode(replay.reader().digest()),
        "stored": status.durable.get(),
        "halted": status.halted.as_ref().map(ToString::to_string),
        "ending": ending(replay.reader().ending()),
        "what": what,
    });
    let mut text = what.clone();
    if same {
        let _ = write!(text, "\nthe trace ends: {}", ending(replay.reader().ending()));
        print_result(arguments.output.json, &object, &text)?;
        return Ok(ExitCode::SUCCESS);
    }
    if arguments.output.json {
        print_result(true, &object, &text)?;
    }
    bail!("{what}")
}

fn find(replay: &mut Replay<impl Read>, check: bool) -> Result<Found, ReplayError> {
    let mut judge = check.then(|| Judge::new(replay.reader().header(), replay.machine()));
    loop {
        let event = replay.reader().events();
        // Where the machine panicked nothing but the reader is looked at any more.
        let step = panic::catch_unwind(AssertUnwindSafe(|| match &mut judge {
            Some(judge) => replay.step_watched(judge),
            None => replay.step(),
        }));
        let Ok(step) = step else {
            return Ok(Found::Panicked { event, recorded: replay.reader().last_is_unfinished() });
        };
        match step? {
            Step::Survived => return Ok(Found::Survived { event }),
            Step::Same => {}
            Step::Different(difference) => return Ok(Found::Different(difference)),
            Step::End => return Ok(Found::Same),
        }
        if let Some(judge) = &mut judge
            && let Err(invariant) = judge.judge(replay.machine())
        {
            return Ok(Found::Violated { event, invariant });
        }
    }
}

/// The first command that is another one, as it was and as it is.
fn both_sides(difference: &Difference) -> String {
    let Difference { entry, position, recorded, replayed } = difference;
    let mut text = format!(
        "event {} at {} s leads to another command {position}\n  event:    {}",
        entry.number,
        seconds(entry.at),
        event_line(&entry.event),
    );
    let recorded_text = recorded.map_or_else(|| "nothing more".to_owned(), |mark| mark.to_string());
    let _ = write!(text, "\n  recorded: {recorded_text}");
    match replayed {
        None => text.push_str("\n  replayed: nothing more"),
        Some((mark, command)) => {
            let _ = write!(text, "\n  replayed: {mark}\n            {command:?}");
            if recorded.is_some_and(|recorded| recorded.looks_like(mark)) {
                text.push_str("\n  they differ in what a trace does not name");
            }
        }
    }
    text
}
