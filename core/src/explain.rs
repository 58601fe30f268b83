//! Why a commit is where it is: what [`SyncMachine::explain`](crate::SyncMachine::explain) says, for people.
//!
//! Plain data, and a text of a few lines. Times are the driver's; the text says how far they are from
//! [`Explanation::now`].

mod text;

use crate::{
    command::{Halt, Stall},
    event::RequestId,
    time::Timestamp,
    types::{CommitIndex, PeerId},
};
use alloc::{boxed::Box, vec::Vec};

/// Where one commit stands, who is asked for it, and what is in its way.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Explanation {
    /// Which commit.
    pub index: CommitIndex,
    /// When the machine was last told something: what is said here was true then.
    pub now: Timestamp,
    /// Where it stands.
    pub stage: Stage,
    /// The last commit handed to storage.
    pub queued: CommitIndex,
    /// The first commit above it that is not complete. Everything higher waits for it.
    pub awaited: CommitIndex,
    /// Requests in flight that ask for it or for blocks of it.
    pub requests: Vec<Ask>,
    /// Peers that failed to deliver it, connected or not, and until when they are not asked for it again. A request for
    /// several commits counts for the first of them.
    pub failed: Vec<(PeerId, Timestamp)>,
    /// Every peer that is connected or kept out, by id, and whether it could be asked for the commit now.
    pub peers: Vec<(PeerId, Ability)>,
    /// What keeps it from being asked for or applied, whoever has it. Empty where nothing does.
    pub obstacles: Vec<Obstacle>,
    /// What happens next if the machine is told nothing before, and when.
    pub next: Option<(Timestamp, Timer)>,
}

/// Where a commit stands. Each is in one stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Below what storage still has.
    Pruned {
        /// The lowest that it has.
        lowest: CommitIndex,
    },
    /// Durable.
    Stored {
        /// Whether we can certify it to others, by votes for it or for a later one.
        certifiable: bool,
        /// Whether every subscriber has taken it.
        delivered: bool,
    },
    /// Handed to storage, and not yet durable.
    Storing,
    /// Above what may be asked for: higher than the look-ahead, or of an epoch that is not known to have begun.
    Beyond {
        /// The last commit that may be asked for.
        horizon: CommitIndex,
    },
    /// Not here, and nobody is asked for it.
    Missing,
    /// A peer is asked for it, alone or together with others.
    Requested,
    /// It has come, and a quorum of votes for it is being verified.
    Certifying,
    /// It is certified; its blocks are being fetched, or it waits for commits below it.
    Certified(Blocks),
}

/// How far the blocks of a certified commit are. They sum to all that it names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Blocks {
    /// Nobody is asked for them.
    pub missing: usize,
    /// A peer is asked for them.
    pub requested: usize,
    /// They are being checked.
    pub checking: usize,
    /// They are here.
    pub held: usize,
    /// They are in storage or on their way, because the commit is too large to be held in memory.
    pub staged: usize,
}

impl Blocks {
    /// How many the commit names.
    pub fn total(&self) -> usize {
        [self.missing, self.requested, self.checking, self.held, self.staged]
            .iter()
            .fold(0, |sum: usize, count| sum.saturating_add(*count))
    }
}

/// A request in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ask {
    /// Its id.
    pub id: RequestId,
    /// Of whom.
    pub peer: PeerId,
    /// Since when.
    pub sent: Timestamp,
    /// When it is given up, unless something comes of it before.
    pub deadline: Timestamp,
    /// Bytes that came.
    pub received: u64,
    /// What it asks for.
    pub what: Asked,
    /// Whether it is beside a first request for the same, of which nothing came for too long.
    pub second: bool,
}

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Asked {
    /// The commit.
    Commit,
    /// The commit, once it exists: the request waits at the peer.
    CommitToCome,
    /// Votes for the commit, which is stored.
    Votes,
    /// So many of its blocks that have not come.
    Blocks(usize),
}

/// Whether a peer could be asked for a commit now, and else the first reason why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ability {
    /// It did what is provably wrong, and is kept out.
    Banned {
        /// Until when.
        until: Timestamp,
    },
    /// It has not said which chain it is on.
    NotChecked,
    /// It failed to deliver something, and is asked for nothing.
    Resting {
        /// Until when.
        until: Timestamp,
    },
    /// It has not said how far it is.
    NoClaim,
    /// It does not say that it has the commit.
    NotClaimed {
        /// The highest that it is believed to have.
        highest: CommitIndex,
        /// Whether it says more, and is not believed because it failed to deliver that.
        cut: bool,
    },
    /// It says that it has given the commit up.
    Pruned {
        /// The lowest that it has.
        lowest: CommitIndex,
    },
    /// It is asked for as much as it may be.
    Full {
        /// Requests for commits and blocks in flight to it.
        in_flight: u32,
        /// How many may be.
        limit: u32,
    },
    /// It failed to deliver this commit, and is asked for others.
    Avoided {
        /// Until when.
        until: Timestamp,
    },
    /// It failed to deliver this commit, for which everything waits: it is asked for it if nobody else can be.
    AtNeed {
        /// Until when.
        until: Timestamp,
    },
    /// It could be asked.
    Able,
}

/// What is in the way of a commit, whoever has it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Obstacle {
    /// Nothing is applied any more.
    Halted(Box<Halt>),
    /// Nothing can go on until something changes from outside.
    Stalled(Stall),
    /// Requests failed on our side, and none are sent for a while.
    LocalRest {
        /// Until when.
        until: Timestamp,
    },
    /// It is said to be of an epoch that is not known to have begun: it waits for the commit before `from`.
    LaterEpoch {
        /// The first commit of which this is said.
        from: CommitIndex,
    },
    /// The byte budget has no room for an answer about it.
    Budget {
        /// Bytes that an answer needs.
        needed: u64,
        /// Bytes that are free for a commit at its place. The commit after the tip may have what others give up.
        free: u64,
    },
    /// As many requests are in flight as may be.
    Requests {
        /// How many that is.
        limit: u32,
    },
    /// Storage has as many batches as it is given at once.
    Storage {
        /// How many that is.
        batches: u32,
    },
}

/// What time alone will bring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Timer {
    /// A request is given up.
    RequestExpires {
        /// The request.
        id: RequestId,
        /// Of whom.
        peer: PeerId,
    },
    /// A peer's rest or ban is over, or it is its turn to be polled.
    PeerDue {
        /// Who.
        peer: PeerId,
    },
    /// Requests may be sent again after some failed on our side.
    LocalRestOver,
    /// A request of a peer's has waited here for as long as it may.
    ParkedExpires,
    /// A second peer is asked for what everything waits for.
    SecondRequest,
}
