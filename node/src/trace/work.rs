//! What a machine hands out and is told the end of, by its id.

use soma_sync_core::event::Event;
use soma_sync_proto::trace::{CommandKind, Mark};

/// Work that is under way. Ids of requests, of jobs and of batches are counted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Work {
    /// A request to a peer.
    Request(u64),
    /// A verification job.
    Job(u64),
    /// A batch for storage.
    Batch(u64),
}

impl Work {
    /// What a command begins; `None` where that is nothing that has an end.
    pub(super) const fn begun_by(mark: &Mark) -> Option<Self> {
        match mark.kind {
            CommandKind::AskCommitInfo
            | CommandKind::AskAvailability
            | CommandKind::AskCommits
            | CommandKind::AskBlocks
            | CommandKind::Push => Some(Self::Request(mark.id)),
            CommandKind::Certify | CommandKind::Check | CommandKind::Observe | CommandKind::Votes => {
                Some(Self::Job(mark.id))
            }
            CommandKind::Store => Some(Self::Batch(mark.id)),
            CommandKind::Cancel
            | CommandKind::Broadcast
            | CommandKind::Respond
            | CommandKind::Refuse
            | CommandKind::ServeCommitInfo
            | CommandKind::ServeCommits
            | CommandKind::ServeBlocks
            | CommandKind::Disconnect
            | CommandKind::Synced
            | CommandKind::Behind
            | CommandKind::Stalled
            | CommandKind::Resumed
            | CommandKind::CommitteeWanted
            | CommandKind::ObservedRefused
            | CommandKind::ObservedLost
            | CommandKind::Halted => None,
        }
    }

    /// What an event ends, or is a part of.
    pub(super) const fn of(event: &Event) -> Option<Self> {
        match event {
            Event::ResponsePart { id, .. } | Event::RequestFinished { id, .. } => {
                Some(Self::Request(id.get()))
            }
            Event::Verified { id, .. } => Some(Self::Job(id.get())),
            Event::Stored { through } => Some(Self::Batch(through.get())),
            Event::StoreFailed { from } => Some(Self::Batch(from.get())),
            Event::Tick
            | Event::CommitObserved { .. }
            | Event::VotesObserved { .. }
            | Event::CommitteeKnown { .. }
            | Event::PeerConnected { .. }
            | Event::PeerDisconnected { .. }
            | Event::RequestReceived { .. }
            | Event::StoreReopened { .. }
            | Event::Pruned { .. }
            | Event::Broadcasted { .. }
            | Event::Served { .. } => None,
        }
    }

    /// Its id, whatever it is the id of.
    pub(super) const fn id(self) -> u64 {
        match self {
            Self::Request(id) | Self::Job(id) | Self::Batch(id) => id,
        }
    }
}
