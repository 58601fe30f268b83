//! What a trace keeps of a command: enough to name it, and a hash that tells whether another is the same.

use super::{
    convert::{Converted, Malformed, rows},
    hash::CommandHasher,
    pb,
};
use soma_sync_core::{
    command::{Command, Notice, ServePlan},
    job::Job,
    request::{CommitInfoQuery, FetchBlocks, FetchCommits, Request},
    types::PeerId,
};
use std::{fmt, time::Duration};

/// Defines the kinds, each with its code in traces and its words.
macro_rules! kinds {
    ($($(#[$doc:meta])* $code:literal => $kind:ident: $text:literal,)*) => {
        /// Which kind of command; those that carry a request, a job, a plan or a notice each by what they carry.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum CommandKind {
            $($(#[$doc])* $kind,)*
        }

        impl CommandKind {
            /// All kinds, in the order of their codes.
            pub const ALL: &[Self] = &[$(Self::$kind),*];

            const fn code(self) -> u8 {
                match self {
                    $(Self::$kind => $code,)*
                }
            }
            const fn from_code(code: u8) -> Option<Self> {
                match code {
                    $($code => Some(Self::$kind),)*
                    _ => None,
                }
            }
        }

        impl fmt::Display for CommandKind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $(Self::$kind => $text,)*
                })
            }
        }
    };
}

kinds! {
    /// Ask a peer which commit stands at an index.
    1 => AskCommitInfo: "ask for commit info",
    /// Ask a peer how far it is.
    2 => AskAvailability: "ask for availability",
    /// Ask a peer for commits.
    3 => AskCommits: "ask for commits",
    /// Ask a peer for blocks.
    4 => AskBlocks: "ask for blocks",
    /// Tell a peer how far we are.
    5 => Push: "push",
    /// Abandon a request.
    6 => Cancel: "cancel request",
    /// Certify commits.
    7 => Certify: "certify",
    /// Check blocks.
    8 => Check: "check blocks",
    /// Take in a commit of our own consensus.
    9 => Observe: "observe",
    /// Take in votes of our own consensus.
    10 => Votes: "look for votes",
    /// Store a batch.
    11 => Store: "store batch",
    /// Hand out commits.
    12 => Broadcast: "broadcast",
    /// Answer a peer with a message.
    13 => Respond: "respond",
    /// Refuse a peer's request.
    14 => Refuse: "refuse",
    /// Serve a commit's reference from storage.
    15 => ServeCommitInfo: "serve commit info",
    /// Serve commits from storage.
    16 => ServeCommits: "serve commits",
    /// Serve blocks from storage.
    17 => ServeBlocks: "serve blocks",
    /// Close the connection to a peer.
    18 => Disconnect: "disconnect",
    /// The chain is as far as any peer can show.
    19 => Synced: "synced",
    /// It is not, any more.
    20 => Behind: "behind",
    /// Nothing goes on.
    21 => Stalled: "stalled",
    /// What stalled goes on.
    22 => Resumed: "resumed",
    /// A committee is needed.
    23 => CommitteeWanted: "committee wanted",
    /// A commit of our own consensus was not taken.
    24 => ObservedRefused: "observed commit refused",
    /// A commit of our own consensus was lost.
    25 => ObservedLost: "observed commit lost",
    /// Nothing is applied any more.
    26 => Halted: "halted",
}

impl CommandKind {
    /// Whether it is about one peer.
    const fn has_peer(self) -> bool {
        match self {
            Self::AskCommitInfo
            | Self::AskAvailability
            | Self::AskCommits
            | Self::AskBlocks
            | Self::Push
            | Self::Disconnect => true,
            Self::Cancel
            | Self::Certify
            | Self::Check
            | Self::Observe
            | Self::Votes
            | Self::Store
            | Self::Broadcast
            | Self::Respond
            | Self::Refuse
            | Self::ServeCommitInfo
            | Self::ServeCommits
            | Self::ServeBlocks
            | Self::Synced
            | Self::Behind
            | Self::Stalled
            | Self::Resumed
            | Self::CommitteeWanted
            | Self::ObservedRefused
            | Self::ObservedLost
            | Self::Halted => false,
        }
    }
}

/// What a trace keeps of a command. Two with the same hash are the same command, as far as a machine can tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Mark {
    /// Which kind.
    pub kind: CommandKind,
    /// The peer that it is about.
    pub peer: Option<PeerId>,
    /// Its id, where it has one; the epoch of a wanted committee.
    pub id: u64,
    /// The first commit that it is about; 0 where it is about none.
    pub first: u64,
    /// The last one.
    pub last: u64,
    /// How many blocks, commits or payloads it is about.
    pub amount: u64,
    /// A deadline by the machine's clock, or how long a ban lasts, in microseconds.
    pub time_us: u64,
    /// XXH3-64 of the whole command, its payloads by length and fingerprint.
    pub hash: u64,
}

impl Mark {
    /// Of a command.
    pub fn of(command: &Command) -> Self {
        Self::hashed(command, &mut CommandHasher::default())
    }

    pub(super) fn hashed(command: &Command, hasher: &mut CommandHasher) -> Self {
        Self { hash: hasher.hash(command), ..Self::unhashed(command) }
    }

    fn unhashed(command: &Command) -> Self {
        match command {
            Command::SendRequest { id, peer, request, deadline } => Self {
                peer: Some(*peer),
                id: id.get(),
                time_us: deadline.as_micros(),
                ..Self::of_request(request)
            },
            Command::CancelRequest { id } => Self::new(CommandKind::Cancel).with_id(id.get()),
            Command::Verify { id, job } => Self::of_job(job).with_id(id.get()),
            Command::StoreBatch { batch } => Self {
                amount: batch.blocks.len() as u64,
                ..Self::new(CommandKind::Store).with_id(batch.id.get()).with_range(
                    batch.commits.first().map_or(0, |commit| commit.reference.index.get()),
                    batch.commits.last().map_or(0, |commit| commit.reference.index.get()),
                )
            },
            Command::Broadcast { range } => {
                Self::new(CommandKind::Broadcast).with_range(range.start().get(), range.end().get())
            }
            Command::Respond { id, response: _ } => Self::new(CommandKind::Respond).with_id(id.get()),
            Command::Refuse { id, reason: _ } => Self::new(CommandKind::Refuse).with_id(id.get()),
            Command::Serve { id, plan, deadline } => {
                Self { id: id.get(), time_us: deadline.as_micros(), ..Self::of_plan(plan) }
            }
            Command::Disconnect { peer, offence: _, ban } => {
                Self { peer: Some(*peer), time_us: micros(*ban), ..Self::new(CommandKind::Disconnect) }
            }
            Command::Notify(notice) => Self::of_notice(notice),
        }
    }

    const fn new(kind: CommandKind) -> Self {
        Self { kind, peer: None, id: 0, first: 0, last: 0, amount: 0, time_us: 0, hash: 0 }
    }
    const fn with_id(self, id: u64) -> Self {
        Self { id, ..self }
    }
    fn with_range(self, first: u32, last: u32) -> Self {
        Self { first: first.into(), last: last.into(), ..self }
    }

    fn of_request(request: &Request) -> Self {
        match request {
            Request::CommitInfo(CommitInfoQuery::Latest) => Self::new(CommandKind::AskCommitInfo),
            Request::CommitInfo(CommitInfoQuery::ByIndex(index)) => {
                Self::new(CommandKind::AskCommitInfo).with_range(index.get(), index.get())
            }
            Request::Availability { timestamp_ms: _ } => Self::new(CommandKind::AskAvailability),
            Request::Commits(FetchCommits { start, end, max_bytes: _, wait: _, with_blocks: _ }) => {
                Self::new(CommandKind::AskCommits).with_range(start.get(), end.get())
            }
            Request::Blocks(FetchBlocks { refs, max_bytes: _ }) => {
                Self { amount: refs.len() as u64, ..Self::new(CommandKind::AskBlocks) }
            }
            Request::Push { index } => Self::new(CommandKind::Push).with_range(index.get(), index.get()),
        }
    }

    fn of_job(job: &Job) -> Self {
        match job {
            Job::Certify(job) => Self {
                amount: job.commits.len() as u64,
                ..Self::new(CommandKind::Certify).with_range(job.start.get(), job.last.get())
            },
            Job::Check(job) => Self { amount: job.refs.len() as u64, ..Self::new(CommandKind::Check) },
            Job::Observe(job) => Self { amount: job.blocks.len() as u64, ..Self::new(CommandKind::Observe) },
            Job::Votes(job) => Self { amount: job.blocks.len() as u64, ..Self::new(CommandKind::Votes) },
        }
    }

    fn of_plan(plan: &ServePlan) -> Self {
        match plan {
            ServePlan::CommitInfo { index } => {
                Self::new(CommandKind::ServeCommitInfo).with_range(index.get(), index.get())
            }
            ServePlan::Commits { range, last: _, max_bytes: _, with_blocks: _ } => {
                Self::new(CommandKind::ServeCommits).with_range(range.start().get(), range.end().get())
            }
            ServePlan::Blocks { refs, max_bytes: _ } => {
                Self { amount: refs.len() as u64, ..Self::new(CommandKind::ServeBlocks) }
            }
        }
    }

    fn of_notice(notice: &Notice) -> Self {
        match notice {
            Notice::Synced { tip } => {
                Self::new(CommandKind::Synced).with_range(tip.index.get(), tip.index.get())
            }
            Notice::Behind { tip, target } => {
                Self::new(CommandKind::Behind).with_range(tip.get(), target.get())
            }
            Notice::Stalled(_) => Self::new(CommandKind::Stalled),
            Notice::Resumed => Self::new(CommandKind::Resumed),
            Notice::CommitteeWanted { epoch } => Self::new(CommandKind::CommitteeWanted).with_id(epoch.get()),
            Notice::ObservedRefused(_) => Self::new(CommandKind::ObservedRefused),
            Notice::ObservedLost { failures } => {
                Self { amount: (*failures).into(), ..Self::new(CommandKind::ObservedLost) }
            }
            Notice::Halted(_) => Self::new(CommandKind::Halted),
        }
    }

    /// Whether it is the same but for its hash: the difference is in what a mark does not name.
    pub fn looks_like(&self, other: &Self) -> bool {
        *self == Self { hash: self.hash, ..*other }
    }

    pub(super) fn write(&self, columns: &mut Columns) {
        columns.kinds.push(self.kind.code());
        columns.hashes.push(self.hash);
        columns.numbers.extend([self.id, self.first, self.last, self.amount, self.time_us]);
        if let Some(peer) = &self.peer {
            columns.peers.extend(peer.as_bytes());
        }
    }

    pub(super) fn read_all(columns: &pb::Commands) -> Converted<Vec<Self>> {
        const COLUMNS: Malformed = Malformed("columns of commands differ in length");
        let (numbers, rest) = columns.numbers.as_chunks();
        let count = columns.kinds.len();
        if !rest.is_empty() || numbers.len() != count || columns.hashes.len() != count {
            return Err(COLUMNS);
        }
        let mut peers = rows(&columns.peers)?.iter();
        let mut marks = Vec::with_capacity(count);
        for ((code, hash), numbers) in columns.kinds.iter().zip(&columns.hashes).zip(numbers) {
            let kind = CommandKind::from_code(*code).ok_or(Malformed("a command of an unknown kind"))?;
            let peer = if kind.has_peer() { Some(PeerId::new(*peers.next().ok_or(COLUMNS)?)) } else { None };
            let &[id, first, last, amount, time_us] = numbers;
            marks.push(Self { kind, peer, id, first, last, amount, time_us, hash: *hash });
        }
        if peers.len() > 0 { Err(COLUMNS) } else { Ok(marks) }
    }
}

pub(super) fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, peer, id, first, last, amount, time_us, hash } = self;
        write!(f, "{kind} #{id}")?;
        match (first, last) {
            (0, 0) => {}
            (first, last) if first == last => write!(f, ", commit {first}")?,
            (first, last) => write!(f, ", commits {first} to {last}")?,
        }
        if *amount > 0 {
            write!(f, ", {amount} items")?;
        }
        if let Some(peer) = peer {
            write!(f, ", peer {peer:?}")?;
        }
        if *time_us > 0 {
            write!(f, ", {}.{:06} s", time_us / 1_000_000, time_us % 1_000_000)?;
        }
        write!(f, ", hash {hash:016x}")
    }
}

/// The columns of an event's commands, while they are written.
#[derive(Debug, Default)]
pub(super) struct Columns {
    kinds: Vec<u8>,
    hashes: Vec<u64>,
    numbers: Vec<u64>,
    peers: Vec<u8>,
}

impl Columns {
    pub(super) fn hashes(&self) -> &[u64] {
        &self.hashes
    }

    /// The message, and empty columns again.
    pub(super) fn take(&mut self) -> Option<pb::Commands> {
        let Self { kinds, hashes, numbers, peers } = std::mem::take(self);
        let commands = pb::Commands { kinds: kinds.into(), hashes, numbers, peers: peers.into() };
        (!commands.kinds.is_empty()).then_some(commands)
    }
}
