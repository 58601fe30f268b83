//! An event in one line.

use soma_sync_core::{
    event::Event,
    job::{BlockOutcome, CertifyVerdict, ObserveVerdict, Verdict},
    request::{CommitInfoQuery, Request, ResponsePart},
};

/// What happened, for people.
pub(crate) fn event_line(event: &Event) -> String {
    match event {
        Event::Tick => "tick".to_owned(),
        Event::CommitObserved { commit, blocks } => {
            format!("commit observed, {} bytes, {} blocks", commit.len(), blocks.len())
        }
        Event::VotesObserved { blocks } => format!("votes observed, {} blocks", blocks.len()),
        Event::CommitteeKnown { committee } => format!("committee of epoch {} known", committee.epoch()),
        Event::PeerConnected { peer } => format!("peer {peer:?} connected"),
        Event::PeerDisconnected { peer } => format!("peer {peer:?} disconnected"),
        Event::RequestReceived { id, peer, request: Ok(request) } => {
            format!("peer {peer:?} asks {id:?}: {}", request_line(request))
        }
        Event::RequestReceived { id, peer, request: Err(reason) } => {
            format!("peer {peer:?} asks {id:?} for what cannot be: {reason}")
        }
        Event::ResponsePart { id, part } => format!("part of answer {id:?}: {}", part_line(part)),
        Event::RequestFinished { id, result: Ok(()) } => format!("request {id:?} is answered"),
        Event::RequestFinished { id, result: Err(failure) } => format!("request {id:?} failed: {failure}"),
        Event::Verified { id, verdict } => format!("job {id:?}: {}", verdict_line(verdict)),
        Event::Stored { through } => format!("stored through batch {through:?}"),
        Event::StoreFailed { from } => format!("the store failed from batch {from:?} on"),
        Event::StoreReopened { start } => format!("the store is open again, at {}", start.tip.reference),
        Event::Pruned { lowest } => format!("pruned, the lowest commit is {lowest}"),
        Event::Broadcasted { through } => format!("subscribers have taken commit {through}"),
        Event::Served { id, bytes, waited } => {
            format!("served {id:?}, {bytes} bytes, waited {waited:?} for the peer")
        }
    }
}

fn request_line(request: &Request) -> String {
    match request {
        Request::CommitInfo(CommitInfoQuery::Latest) => "latest commit info".to_owned(),
        Request::CommitInfo(CommitInfoQuery::ByIndex(index)) => format!("info on commit {index}"),
        Request::Availability { .. } => "availability".to_owned(),
        Request::Commits(fetch) => format!(
            "commits {} to {}{}{}",
            fetch.start,
            fetch.end,
            if fetch.with_blocks { " with blocks" } else { "" },
            if fetch.wait.is_zero() { String::new() } else { format!(", waiting {:?}", fetch.wait) },
        ),
        Request::Blocks(fetch) => format!("{} blocks", fetch.refs.len()),
        Request::Push { index } => format!("has commit {index}"),
    }
}

fn part_line(part: &ResponsePart) -> String {
    match part {
        ResponsePart::CommitInfo { commit: Some(commit), .. } => format!("{commit}"),
        ResponsePart::CommitInfo { commit: None, .. } => "no commit".to_owned(),
        ResponsePart::Availability { highest, lowest } => format!("has commits {lowest} to {highest}"),
        ResponsePart::Commits { commits, certifiers, blocks, buffer_bytes } => format!(
            "{} commits, {} certifiers, {} blocks, {buffer_bytes} bytes",
            commits.len(),
            certifiers.len(),
            blocks.len(),
        ),
        ResponsePart::Blocks { blocks, missing, buffer_bytes } => {
            format!("{} blocks, {} missing, {buffer_bytes} bytes", blocks.len(), missing.len())
        }
        ResponsePart::Push { .. } => "taken note".to_owned(),
    }
}

fn verdict_line(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Certify(CertifyVerdict::Certified(range)) => {
            let ends = range.commits.first().zip(range.commits.last());
            let ends = ends.map(|(first, last)| format!("{} to {}", first.reference.index, last.reference));
            format!("certified {}, {} certifiers", ends.unwrap_or_default(), range.certifiers.len())
        }
        Verdict::Certify(CertifyVerdict::OtherEpoch { found }) => format!("commits of epoch {found}"),
        Verdict::Certify(CertifyVerdict::Refused(error)) => format!("commits refused: {error}"),
        Verdict::Certify(CertifyVerdict::CertifiedInvalid(fault)) => {
            format!("certified, and invalid: {fault}")
        }
        Verdict::Check(outcomes) => {
            let good = outcomes.iter().filter(|outcome| matches!(outcome, BlockOutcome::Good(_))).count();
            let bad = outcomes.iter().find_map(|outcome| match outcome {
                BlockOutcome::Good(_) => None,
                BlockOutcome::Bad(error) => Some(format!(", a bad one: {error}")),
                BlockOutcome::CertifiedInvalid(fault) => {
                    Some(format!(", one certified and invalid: {fault}"))
                }
            });
            format!("{good} of {} blocks are good{}", outcomes.len(), bad.unwrap_or_default())
        }
        Verdict::Observe(ObserveVerdict::Observed { commit, blocks }) => {
            format!("observed {}, {} blocks", commit.reference, blocks.len())
        }
        Verdict::Observe(ObserveVerdict::Refused(error)) => error.to_string(),
        Verdict::Votes(blocks) => format!("{} blocks decode", blocks.len()),
        Verdict::WorkerFailed => "the worker died".to_owned(),
    }
}
