//! An explanation as text: a line for each thing that matters.

use super::{Ability, Ask, Asked, Blocks, Explanation, Obstacle, Stage, Timer};
use crate::time::Timestamp;
use core::{cmp::Ordering, fmt, time::Duration};

/// A moment, by its distance from another one.
struct Seen {
    at: Timestamp,
    from: Timestamp,
}

impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Millionths of a second are noise to people.
        let whole = |distance: Duration| {
            Duration::from_millis(distance.as_micros().try_into().unwrap_or(u64::MAX) / 1_000)
        };
        match self.at.cmp(&self.from) {
            Ordering::Less => write!(f, "{:?} ago", whole(self.from.saturating_since(self.at))),
            Ordering::Equal => f.write_str("now"),
            Ordering::Greater => write!(f, "in {:?}", whole(self.at.saturating_since(self.from))),
        }
    }
}

impl fmt::Display for Explanation {
    /// Several lines, the last one without its end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seen = |at: Timestamp| Seen { at, from: self.now };
        writeln!(f, "commit {}: {}", self.index, self.stage)?;
        write!(
            f,
            "handed to storage up to {}; the first that is not complete is {}",
            self.queued, self.awaited
        )?;
        for ask in &self.requests {
            write!(f, "\nasked: {} of {} {}", ask.what, ask.peer, seen(ask.sent))?;
            ask.fmt_progress(f, &seen(ask.deadline))?;
        }
        for (peer, until) in &self.failed {
            write!(f, "\nfailed: {peer} did not deliver it, and is asked for it again {}", seen(*until))?;
        }
        for obstacle in &self.obstacles {
            f.write_str("\nin the way: ")?;
            obstacle.fmt(f, &seen)?;
        }
        if self.peers.is_empty() {
            f.write_str("\nno peer is connected")?;
        }
        for (peer, ability) in &self.peers {
            write!(f, "\npeer {peer}: ")?;
            ability.fmt(f, &seen)?;
        }
        match self.next {
            Some((at, timer)) => write!(f, "\nnext: {timer}, {}", seen(at)),
            None => f.write_str("\nnext: nothing, by time alone"),
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pruned { lowest } => write!(f, "given up; the lowest that is stored is {lowest}"),
            Self::Stored { certifiable, delivered } => {
                let certifiable =
                    if *certifiable { "certifiable" } else { "without enough votes to certify it" };
                let delivered =
                    if *delivered { "taken by all subscribers" } else { "not taken by all subscribers" };
                write!(f, "stored, {certifiable}, {delivered}")
            }
            Self::Storing => f.write_str("handed to storage, and not durable yet"),
            Self::Beyond { horizon } => write!(f, "above {horizon}, the last that may be asked for now"),
            Self::Missing => f.write_str("missing; nobody is asked for it"),
            Self::Requested => f.write_str("asked for"),
            Self::Certifying => f.write_str("here; its votes are being verified"),
            Self::Certified(blocks) => write!(f, "certified; {blocks}"),
        }
    }
}

impl fmt::Display for Blocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { missing, requested, checking, held, staged } = *self;
        let here = held.saturating_add(staged);
        write!(f, "of {} blocks {here} are here", self.total())?;
        let rest = [(missing, "are missing"), (requested, "are asked for"), (checking, "are being checked")];
        let mut rest = rest.iter().filter(|(count, _)| *count > 0);
        rest.try_for_each(|(count, are)| write!(f, ", {count} {are}"))?;
        if staged > 0 { write!(f, " ({staged} in storage already)") } else { Ok(()) }
    }
}

impl fmt::Display for Asked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Commit => f.write_str("the commit"),
            Self::CommitToCome => f.write_str("the commit, once it exists,"),
            Self::Votes => f.write_str("votes for it"),
            Self::Blocks(count) => write!(f, "{count} of its blocks"),
        }
    }
}

impl Ask {
    fn fmt_progress(&self, f: &mut fmt::Formatter<'_>, deadline: &Seen) -> fmt::Result {
        if self.second {
            f.write_str(" beside another peer")?;
        }
        match self.received {
            0 => write!(f, "; given up {deadline} if nothing comes"),
            received => write!(f, "; {received} bytes came; given up {deadline} if no more comes"),
        }
    }
}

impl Ability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>, seen: &dyn Fn(Timestamp) -> Seen) -> fmt::Result {
        match self {
            Self::Banned { until } => write!(f, "kept out for an offence; back {}", seen(*until)),
            Self::NotChecked => f.write_str("has not said which chain it is on"),
            Self::Resting { until } => write!(f, "rests after a failure; asked again {}", seen(*until)),
            Self::NoClaim => f.write_str("has not said how far it is"),
            Self::NotClaimed { highest, cut: false } => write!(f, "claims only up to {highest}"),
            Self::NotClaimed { highest, cut: true } => {
                write!(f, "is believed only up to {highest}, having failed to deliver more")
            }
            Self::Pruned { lowest } => write!(f, "has only what is above: its lowest is {lowest}"),
            Self::Avoided { until } => write!(f, "failed to deliver it; asked for it again {}", seen(*until)),
            Self::AtNeed { until } => {
                write!(f, "failed to deliver it; asked for it if nobody else can be, else {}", seen(*until))
            }
            Self::Full { in_flight, limit } => write!(f, "has {in_flight} of {limit} requests in flight"),
            Self::Able => f.write_str("could be asked"),
        }
    }
}

impl Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>, seen: &dyn Fn(Timestamp) -> Seen) -> fmt::Result {
        match self {
            Self::Halted(halt) => write!(f, "halted for good: {halt}"),
            Self::Stalled(stall) => write!(f, "stalled: {stall}"),
            Self::LocalRest { until } => {
                write!(f, "requests failed on our side; the next are sent {}", seen(*until))
            }
            Self::LaterEpoch { from } => {
                write!(f, "from {from} on it is said to be of a later epoch; the commit before must say so")
            }
            Self::Budget { needed, free } => {
                write!(f, "the byte budget: an answer needs {needed}, and {free} are free for it")
            }
            Self::Requests { limit } => write!(f, "all {limit} requests that may be in flight are"),
            Self::Storage { batches } => write!(f, "storage has {batches} batches, and is given no more"),
        }
    }
}

impl fmt::Display for Timer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RequestExpires { peer, .. } => write!(f, "a request to {peer} is given up"),
            Self::PeerDue { peer } => write!(f, "{peer} is polled, or its rest is over"),
            Self::LocalRestOver => f.write_str("requests are sent again"),
            Self::ParkedExpires => f.write_str("a peer's request has waited here for long enough"),
            Self::SecondRequest => f.write_str("a second peer is asked for what everything waits for"),
        }
    }
}
