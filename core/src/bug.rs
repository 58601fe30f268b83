//! Bugs that can be put into the core, to see that a test notices (`switch.rs`): mistakes that an implementer would
//! make. What a hostile peer gains by a missing check is among the defences.
#![cfg_attr(
    not(all(feature = "defence-switches", feature = "verify")),
    allow(dead_code, unreachable_pub, reason = "only tests look at the switches")
)]

use crate::switch::switches;

/// The environment variable that names the bug which a process is to have.
#[cfg(feature = "defence-switches")]
pub const BUG: &str = "SOMA_SYNC_BUG";

switches! {
    /// A mistake, each at one place.
    Bug:

    /// A length may be longer than its shortest form, so that an object has many encodings.
    LongLengths,
    /// A third of the stake and a little is taken for a quorum: f + 1 in place of 2f + 1.
    QuorumOfAThird,
    /// The stake that makes a quorum is not enough: above in place of at least. Seen by the jobs' tests alone: in no
    /// made chain do votes sum to exactly that stake.
    QuorumAndOne,
    /// A commit's votes are counted whatever epoch the voters' blocks are of. Seen by hand and in drawn networks: what
    /// our own consensus accepts is of the right epoch everywhere else.
    VotesOfAnyEpoch,
    /// Ancestors of any round count as parents of a block, not only those of the round before.
    ParentsOfAnyRound,
    /// A commit with the timestamp of the one before is a certified fault.
    EqualTimesRefused,
    /// Of the votes in a certifier only the first is looked at.
    FirstVoteOnly,
    /// A block that does not decode is its sender's fault, though a quorum certified it.
    UndecodableIsTheSenders,
    /// Results of signatures are matched with blocks by position, though some blocks have none to verify. Seen by
    /// the jobs' tests alone: no sender elsewhere mixes what does not decode with signatures that do not hold.
    SignaturesByPosition,
    /// What is missing is taken to end at the first commit that is there, not before it.
    GapOneLonger,
    /// Room for the commit after the tip is made by giving up that commit.
    EvictedFrontier,
    /// A commit that ends its epoch and is not stored yet is followed by one of the same epoch.
    EpochEndUnseen,
    /// What ends an epoch is what the last block says that came, not the first in the commit. Seen by hand alone:
    /// honest authors agree on how their epoch ends.
    LastEpochEnd,
    /// Blocks of two epochs are asked for together, and checked with the committee of the first. Seen by sequences
    /// alone: the embedder must have supplied the next committee while the epoch goes on.
    BlocksOfTwoEpochs,
    /// When a worker dies, what its job kept is never given back.
    LeakOnDeadWorker,
    /// What the certifying of an answer kept is given back twice.
    ReleasedTwice,
    /// A ban never ends.
    BanForEver,
    /// The pause after a failure begins anew, at its shortest, after eight failures in a row. Seen by unit tests
    /// alone: nothing else fails so often in a row.
    BackoffStartsAgain,
    /// What was pushed to a peer counts as pushed after it has connected again.
    PushedOverReconnect,
    /// No timer is armed for when a peer may be asked again for what it failed to deliver. Seen by unit tests alone:
    /// polls wake the machine soon enough for anything else.
    AvoidedWithoutTimer,
    /// A claim that was cut is never believed again.
    CutForEver,
    /// Commits that were said to be of a later epoch are not asked for, even when that has begun.
    LaterEpochForEver,
    /// A poll stays in flight when its answer has come.
    PollNeverOver,
    /// The first block of a request that failed is never asked for again.
    LostBlock,
    /// No timer is armed for the end of the rest after a failure on our side.
    RestWithoutTimer,
    /// Who is overtaken by the second peer that was asked is banned for it.
    LoserBlamed,
    /// An answer that waited at a peer is held against the committee of when it was asked for. Seen by hand alone:
    /// elsewhere what was refused is asked for again at once.
    FollowKeepsEpoch,
    /// Blocks are matched with what was asked for as if none were missing before them.
    MissingShiftsBlocks,
    /// A verdict on blocks is taken though they are no longer being checked by that job.
    StaleVerdict,
    /// The place of a job that is done is freed twice.
    JobSlotFreedTwice,
    /// Another certified commit at exactly the tip's index is no fork.
    ForkAtTipMissed,
    /// Votes in an answer about commits that are here already are dropped.
    VotesOfKnownDropped,
    /// Commits count as durable when they are handed to storage.
    DurableBeforeStored,
    /// Each broadcast begins with the last commit of the one before.
    BroadcastTwice,
    /// A store that was opened again is handed its batches in reverse order.
    BatchesReversed,
    /// Votes are kept over a store that was opened as an older copy of itself.
    VotesOverRewind,
    /// An epoch's committee is forgotten with its last commit, though votes for that are to come.
    CommitteeForgottenEarly,
    /// The committee that an epoch's end makes is not handed to storage.
    CommitteeNotStored,
    /// Votes that our own consensus accepts are not counted.
    OwnVotesIgnored,
    /// Peers are told of commits that storage has not confirmed.
    PushedBeforeDurable,
    /// Peers are told, when they ask, of commits that we cannot certify yet.
    AnnouncedBeforeCertifiable,
    /// Commits that are pruned are served.
    PrunedServed,
    /// One commit more than a batch is served in one answer.
    BatchOneLonger,
    /// The deadline of a request that waits here is compared the wrong way.
    ParkedRefusedAtOnce,
    /// The place of an answer that was sent is never freed.
    ServingNeverFreed,
    /// After a start the first new commit is not handed to consumers.
    RestartSkipsOne,
    /// At a start the votes that storage holds are not counted.
    StoredVotesIgnored,
    /// A peer's word of before the chain last grew is enough to be synced.
    SyncedByOldClaims,
}

/// Whether the bug is in the core.
#[cfg(not(feature = "defence-switches"))]
#[inline(always)]
pub(crate) const fn has(_: Bug) -> bool {
    false
}

/// Whether the bug is in the core.
#[cfg(feature = "defence-switches")]
pub(crate) fn has(bug: Bug) -> bool {
    static PUT_IN: std::sync::OnceLock<Option<Bug>> = std::sync::OnceLock::new();
    *PUT_IN.get_or_init(|| crate::environment::switch(BUG, Bug::named)) == Some(bug)
}
