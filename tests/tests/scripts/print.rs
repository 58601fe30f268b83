//! Commands and verdicts as lines.

use crate::{names::Names, words::name};
use soma_sync_core::{
    Command, Config, Counters, PeerStatus, Status, Timestamp,
    certify::CertifiedFault,
    command::{Batch, Halt, Notice, ServePlan, Stall},
    job::{BlockOutcome, CertifyVerdict, Job, ObserveVerdict, Verdict},
    request::{CommitInfoQuery, FetchCommits, Request, ResponsePart},
    types::CommitRange,
};
use std::time::Duration;

/// Turns what the machine says into lines.
pub(crate) struct Printer<'a> {
    pub(crate) names: &'a Names,
    pub(crate) config: &'a Config,
    pub(crate) now: Timestamp,
}

/// `4`, or `1..=4`.
fn range(range: CommitRange) -> String {
    if range.count() == 1 { range.start().to_string() } else { range.to_string() }
}

/// `commit 4`, or `commits 1..=4`.
fn commits(of: CommitRange) -> String {
    if of.count() == 1 { format!("commit {}", of.start()) } else { format!("commits {of}") }
}

/// A moment after the start, in whole milliseconds.
pub(crate) fn moment(at: Timestamp) -> String {
    length(Duration::from_millis(at.as_micros() / 1_000))
}

fn length(time: Duration) -> String {
    format!("{time:?}")
}

/// `3 blocks`, `1 block`.
fn count(number: usize, what: &str) -> String {
    if number == 1 { format!("1 {what}") } else { format!("{number} {what}s") }
}

impl Printer<'_> {
    pub(crate) fn command(&self, command: &Command) -> String {
        match command {
            Command::SendRequest { id, peer, request, deadline } => {
                let wait = match request {
                    Request::Commits(fetch) => fetch.wait,
                    Request::CommitInfo(_)
                    | Request::Availability { .. }
                    | Request::Blocks(_)
                    | Request::Push { .. } => Duration::ZERO,
                };
                let usual = self.now.saturating_add(wait).saturating_add(self.config.timeout);
                let until =
                    if *deadline == usual { String::new() } else { format!(", until {}", moment(*deadline)) };
                format!("r{} -> {}: {}{until}", id.get(), name(*peer), self.request(request))
            }
            Command::CancelRequest { id } => format!("cancel r{}", id.get()),
            Command::Verify { id, job } => format!("j{}: {}", id.get(), self.job(job)),
            Command::StoreBatch { batch } => format!("b{}: store {}", batch.id.get(), self.batch(batch)),
            Command::Broadcast { range: of } => format!("consumers get {}", range(*of)),
            Command::Respond { id, response } => format!("i{}: {}", id.get(), self.response(response)),
            Command::Refuse { id, reason } => format!("i{}: refused, {reason}", id.get()),
            Command::Serve { id, plan, deadline } => {
                format!("i{}: serve {}, until {}", id.get(), self.plan(plan), moment(*deadline))
            }
            Command::Disconnect { peer, offence, ban } => {
                format!("disconnect {} for {}: {offence}", name(*peer), length(*ban))
            }
            Command::Notify(notice) => format!("notice: {}", self.notice(notice)),
        }
    }

    fn request(&self, request: &Request) -> String {
        match request {
            Request::CommitInfo(CommitInfoQuery::Latest) => "latest commit".into(),
            Request::CommitInfo(CommitInfoQuery::ByIndex(index)) if index.get() == 0 => "which chain".into(),
            Request::CommitInfo(CommitInfoQuery::ByIndex(index)) => format!("which commit {index}"),
            Request::Availability { timestamp_ms: _ } => "how far".into(),
            Request::Commits(fetch) => self.fetch_commits(fetch),
            Request::Blocks(fetch) => {
                let refs = &fetch.refs;
                let bytes = self.at_most(fetch.max_bytes);
                format!("{} of {}{bytes}", count(refs.len(), "block"), self.names.blocks(refs))
            }
            Request::Push { index } => format!("we have {index}"),
        }
    }

    fn fetch_commits(&self, fetch: &FetchCommits) -> String {
        let FetchCommits { start, end, max_bytes, wait, with_blocks } = fetch;
        let wanted = CommitRange::new(*start, *end).map_or_else(|| format!("{start}..={end}"), commits);
        let blocks = if *with_blocks { " with blocks" } else { "" };
        let wait = if wait.is_zero() {
            String::new()
        } else {
            format!(", waiting up to {}", length(Duration::from_millis(wait.as_millis() as u64)))
        };
        format!("{wanted}{blocks}{wait}{}", self.at_most(*max_bytes))
    }

    /// The byte limit of a request, where it is not the usual one.
    fn at_most(&self, bytes: u64) -> String {
        if bytes == self.config.answer_bytes() { String::new() } else { format!(", at most {bytes} bytes") }
    }

    fn job(&self, job: &Job) -> String {
        match job {
            Job::Certify(job) => {
                let commits = count(job.commits.len(), "commit");
                let votes = count(job.certifiers.len(), "vote");
                format!("certify {commits} from {}, {votes}, epoch {}", job.start, job.committee.epoch())
            }
            Job::Check(job) => {
                format!("check {} of {}", count(job.refs.len(), "block"), self.names.blocks(&job.refs))
            }
            Job::Observe(job) => format!("decode our own commit, {}", count(job.blocks.len(), "block")),
            Job::Votes(job) => format!("decode {} of our own", count(job.blocks.len(), "block")),
        }
    }

    fn batch(&self, batch: &Batch) -> String {
        let mut parts = Vec::new();
        if let (Some(first), Some(last)) = (batch.commits.first(), batch.commits.last())
            && let Some(range) = CommitRange::new(first.reference.index, last.reference.index)
        {
            parts.push(commits(range));
        }
        if !batch.blocks.is_empty() {
            parts.push(count(batch.blocks.len(), "block"));
        }
        parts.extend(batch.committees.iter().map(|committee| format!("committee {}", committee.epoch())));
        parts.join(", ")
    }

    fn response(&self, response: &ResponsePart) -> String {
        match response {
            ResponsePart::CommitInfo { commit, chain_id } => {
                let commit = commit.map_or("no commit".into(), |commit| self.names.commit(commit));
                let chain = if chain_id.is_some() { ", and our chain" } else { "" };
                format!("there is {commit}{chain}")
            }
            ResponsePart::Availability { highest, lowest } => format!("we have {lowest}..={highest}"),
            ResponsePart::Push { timestamp_ms: _ } => "noted".into(),
            ResponsePart::Commits { .. } | ResponsePart::Blocks { .. } => "data".into(),
        }
    }

    fn plan(&self, plan: &ServePlan) -> String {
        match plan {
            ServePlan::CommitInfo { index } => format!("the name of commit {index}"),
            ServePlan::Commits { range: of, last, max_bytes, with_blocks } => {
                let beyond = if *last > of.end() { format!(" or on to {last}") } else { String::new() };
                let blocks = if *with_blocks { " with blocks" } else { "" };
                format!("{}{beyond}{blocks}{}", commits(*of), self.at_most(*max_bytes))
            }
            ServePlan::Blocks { refs, max_bytes } => {
                let bytes = self.at_most(*max_bytes);
                format!("{} of {}{bytes}", count(refs.len(), "block"), self.names.blocks(refs))
            }
        }
    }

    fn notice(&self, notice: &Notice) -> String {
        match notice {
            Notice::Synced { tip } => format!("synced at {}", self.names.commit(*tip)),
            Notice::Behind { tip, target } => format!("behind, at {tip} of {target}"),
            Notice::Stalled(stall) => format!("stalled, {}", self.stall(stall)),
            Notice::Resumed => "resumed".into(),
            Notice::CommitteeWanted { epoch } => format!("the committee of epoch {epoch} is wanted"),
            Notice::ObservedRefused(error) => error.to_string(),
            Notice::ObservedLost { failures } => format!("our own commit is lost, {failures} workers died"),
            Notice::Halted(halt) => format!("halted, {}", self.halt(halt)),
        }
    }

    fn stall(&self, stall: &Stall) -> String {
        match stall {
            Stall::InvalidCommittee { epoch, block, reason } => {
                let block = self.names.blocks(&[*block]);
                format!("the validator set for epoch {epoch} in block {block} is invalid: {reason}")
            }
            Stall::NoProvider { .. } | Stall::Storage | Stall::Committee { .. } | Stall::Consumers { .. } => {
                stall.to_string()
            }
        }
    }

    fn halt(&self, halt: &Halt) -> String {
        let commit = |commit| self.names.commit(commit);
        match halt {
            Halt::Fork { index: _, ours, theirs, evidence } => {
                let [ours, theirs, evidence] = [*ours, *theirs, evidence.reference].map(commit);
                format!("fork: {ours} is ours, {theirs} is certified, evidence {evidence}")
            }
            Halt::StoreContradicted { ours, stored } => {
                format!("the store holds {} where we had {}", commit(*stored), commit(*ours))
            }
            Halt::PinnedContradicted { pinned, certified } => {
                format!("{} is certified, and {} is pinned", commit(*certified), commit(*pinned))
            }
            Halt::CertifiedInvalid(fault) => format!("certified and invalid: {}", self.fault(fault)),
        }
    }

    fn fault(&self, fault: &CertifiedFault) -> String {
        match fault {
            CertifiedFault::Commit { reference, rule, payload: _ } => {
                format!("commit {}: {rule}", self.names.commit(*reference))
            }
            CertifiedFault::Block { reference, error, payload: _ } => {
                format!("block {}: {error}", self.names.blocks(&[*reference]))
            }
        }
    }

    /// What a job found.
    pub(crate) fn verdict(&self, verdict: &Verdict) -> String {
        match verdict {
            Verdict::Certify(CertifyVerdict::Certified(certified)) => {
                let last = certified.commits.last().map(|commit| self.names.commit(commit.reference));
                let bad = match certified.bad_certifiers {
                    0 => String::new(),
                    bad => format!(", beside {}", count(bad as usize, "bad vote")),
                };
                format!("certified up to {}{bad}", last.unwrap_or_default())
            }
            Verdict::Certify(CertifyVerdict::OtherEpoch { found }) => format!("of epoch {found}"),
            Verdict::Certify(CertifyVerdict::Refused(error)) => error.to_string(),
            Verdict::Certify(CertifyVerdict::CertifiedInvalid(fault)) => {
                format!("certified and invalid: {}", self.fault(fault))
            }
            Verdict::Check(outcomes) => self.outcomes(outcomes),
            Verdict::Observe(ObserveVerdict::Observed { commit, blocks }) => {
                let commit = self.names.commit(commit.reference);
                format!("it is commit {commit} with {}", count(blocks.len(), "block"))
            }
            Verdict::Observe(ObserveVerdict::Refused(error)) => error.to_string(),
            Verdict::Votes(blocks) => format!("{} decode", count(blocks.len(), "block")),
            Verdict::WorkerFailed => "the worker died".into(),
        }
    }

    fn outcomes(&self, outcomes: &[BlockOutcome]) -> String {
        let mut good = 0;
        let mut wrong = Vec::new();
        for (at, outcome) in outcomes.iter().enumerate() {
            match outcome {
                BlockOutcome::Good(_) => good += 1,
                BlockOutcome::Bad(error) => wrong.push(format!("number {at} is bad: {error}")),
                BlockOutcome::CertifiedInvalid(fault) => {
                    wrong.push(format!("certified and invalid: {}", self.fault(fault)));
                }
            }
        }
        wrong.insert(0, format!("{good} good"));
        wrong.join("; ")
    }

    /// Where the machine is.
    pub(crate) fn status(&self, status: &Status) -> Vec<String> {
        let Status { queued, durable, certifiable, delivered, epoch, .. } = status;
        let state = match (&status.halted, &status.stall, status.synced) {
            (Some(halt), ..) => format!("halted, {}", self.halt(halt)),
            (None, Some(stall), _) => format!("stalled, {}", self.stall(stall)),
            (None, None, true) => "synced".into(),
            (None, None, false) => "not synced".into(),
        };
        let target = status.target.map_or_else(|| "none".to_owned(), |target| target.to_string());
        let [queued, certifiable] = [*queued, *certifiable].map(|commit| self.names.commit(commit));
        vec![
            format!("queued {queued}, durable {durable}, certifiable {certifiable}, delivered {delivered}"),
            format!("epoch {epoch}, target {target}, {state}"),
            format!(
                "{} bytes, {}, {}, {} served, {} queued, {} parked",
                status.buffered_bytes,
                count(status.requests_in_flight, "request"),
                count(status.jobs_running as usize, "job"),
                status.serving,
                status.serve_queue,
                status.parked
            ),
        ]
    }

    /// What was counted, as far as it was.
    pub(crate) fn counters(counters: &Counters) -> String {
        let all = [
            ("timeouts", counters.timeouts),
            ("followed", counters.followed),
            ("hedges", counters.hedges),
            ("stale", counters.stale),
            ("offences", counters.offences),
            ("worker failures", counters.worker_failures),
            ("evicted", counters.evicted),
            ("staged", counters.staged),
            ("dropped local", counters.dropped_local),
            ("sent bytes", counters.sent_bytes),
            ("queued", counters.queued_requests),
            ("refused for rate", counters.refused_rate),
            ("refused as repeated", counters.refused_repeats),
            ("refused to who reads nothing", counters.refused_unread),
            ("refused for room", counters.refused_room),
        ];
        let counted = all.iter().filter(|(_, number)| *number > 0);
        let counted: Vec<_> = counted.map(|(what, number)| format!("{what} {number}")).collect();
        if counted.is_empty() { "nothing".into() } else { counted.join(", ") }
    }

    /// What is known of each peer.
    pub(crate) fn peers(&self, status: &Status) -> Vec<String> {
        let line = |peer: &PeerStatus| {
            let link = match (peer.connected, peer.checked) {
                (true, true) => "on our chain",
                (true, false) => "connected",
                (false, _) => "gone",
            };
            let claim = peer.claim.map_or_else(
                || "claims nothing".to_owned(),
                |(highest, lowest)| format!("claims {lowest}..={highest}"),
            );
            let mut line = format!(
                "{}: {link}, {claim}, {} in flight, gave {}, {}, {}",
                name(peer.id),
                peer.in_flight,
                count(peer.served_commits as usize, "commit"),
                count(peer.timeouts as usize, "timeout"),
                count(peer.offences as usize, "offence")
            );
            if let Some(until) = peer.banned_until {
                line.push_str(&format!(", kept out until {}", moment(until)));
            }
            line
        };
        status.peers.iter().map(line).collect()
    }
}
