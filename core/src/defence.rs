//! The defences of the core, each of which can be taken away to see that a test notices (`switch.rs`).
#![cfg_attr(
    not(all(feature = "defence-switches", feature = "verify")),
    allow(dead_code, unreachable_pub, reason = "only tests look at the switches")
)]

use crate::switch::switches;

/// The environment variable that names the defence which a process is to do without.
#[cfg(feature = "defence-switches")]
pub const WITHOUT: &str = "SOMA_SYNC_WITHOUT";

switches! {
    /// What keeps one way of going wrong away. Where two lines stand in for one another, they are one defence, and
    /// are removed together.
    Defence:

    /// A claim is cut to what its peer has shown, once it fails to deliver more (threats: 01).
    CutClaims,
    /// What a peer no longer claims is asked of others at once (threats: 02).
    AbandonUnclaimed,
    /// A lowest above the highest is an offence (threats: 03).
    InvertedClaims,
    /// Requests have deadlines (threats: 04).
    Deadlines,
    /// A second peer is asked for what the head of line waits for (threats: 04).
    Hedging,
    /// An answer must make progress. What is left without it is the deadline of the whole (threats: 05).
    ProgressDeadline,
    /// An answer has a time in which it must be whole, however well it goes on (threats: 06).
    TotalDeadline,
    /// Who was overtaken is dearer than others (threats: 06).
    Overtaken,
    /// Where the head of line comes slowly from one peer, a much faster one is asked (threats: 06).
    Outpaced,
    /// An empty answer is a failure to deliver (threats: 07).
    EmptyAnswers,
    /// A peer must name our chain (threats: 08).
    ChainCheck,
    /// A certified commit must follow our tip. Looked at where it comes in and where it is applied (threats: 08).
    LinkToTip,
    /// A block must be of its committee's epoch, a certifier too (threats: 09).
    BlockEpoch,
    /// An answer of an epoch that cannot follow is an offence, and nothing waits for it (threats: 10).
    ExpectedEpoch,
    /// Each author's stake counts once. The second block of an author is not looked at, nor counted (threats: 11).
    StakeOnce,
    /// A vote is for a commit's index and digest (threats: 11).
    ExactVotes,
    /// Votes must be a quorum (threats: 11).
    Quorum,
    /// Certifiers are counted before they are looked at, as they come and by the job (threats: 11).
    CertifierCount,
    /// No more commits are taken than were asked for, as they come and by the job (threats: 12).
    CommitCount,
    /// What does not decode, or is too large, is its sender's offence (threats: 12).
    MalformedAnswers,
    /// An answer of another kind is an offence (threats: 13).
    AnswerKind,
    /// What nobody waits for is counted (threats: 13).
    StaleAnswers,
    /// No more blocks are taken than were asked for (threats: 14).
    BlockCount,
    /// An answer begins at the commit that was asked for (threats: 14).
    FirstCommit,
    /// The commits of an answer follow one another, by index and digest (threats: 14).
    CommitOrder,
    /// A block has the digest that was asked for (threats: 14).
    BlockDigests,
    /// The good blocks of an answer are kept beside bad ones (threats: 15).
    GoodBlocks,
    /// Who has delivered no good block is asked for few of them at a time (threats: 15).
    SmallFirstRequests,
    /// A bad block is its sender's offence (threats: 15).
    BadBlocks,
    /// A bad certifier is its sender's offence (threats: 15).
    BadCertifiers,
    /// A push changes a claim, and makes no work (threats: 16).
    IdlePushes,
    /// A peer may ask so often in a second (threats: 17).
    RequestRate,
    /// A peer is served so many bytes in a second (threats: 17).
    ServedRate,
    /// A dear answer is not given to a peer over and over (threats: 17).
    RepeatedAnswers,
    /// Who leaves answers unread is served one at a time for a while (threats: 18).
    UnreadAnswers,
    /// A peer holds so many places, and never more than are left free (threats: 18).
    ServingPerPeer,
    /// Peers are served in turns, by bytes (threats: 17).
    FairTurns,
    /// An answer that nobody reads is given up (threats: 18).
    ServeDeadline,
    /// References in requests must be ones that a block can have (threats: 19).
    PossibleReferences,
    /// Genesis is no commit that can be asked for (threats: 19).
    GenesisRange,
    /// Who keeps asking for what makes no sense is disconnected (threats: 19).
    InvalidRequests,
    /// Who failed to deliver something is not asked for it again for a while (threats: 20).
    AvoidFailed,
    /// It is reported when all have pruned what we need (threats: 20).
    NoProvider,
    /// A request that timed out is nobody's offence (threats: 21).
    BlamelessTimeouts,
    /// An epoch that may follow is nobody's offence (threats: 21).
    BlamelessEpochs,
    /// Nothing is fetched or applied while the store has failed (threats: 22).
    StoreFailure,
    /// What failed on our side is not held against peers (threats: 22).
    LocalFailure,
    /// Our own link's failure is not held against peers (threats: 22).
    LinkOutage,
    /// Records of peers outlive connections (threats: 23).
    KeptRecords,
    /// A banned peer is not asked for anything (threats: 23).
    Bans,
    /// No peer has more than its share of the requests in flight (threats: 24).
    ShareOfWork,
    /// A part of the budget is for the frontier only, and what is furthest ahead makes room for it: the first for what is
    /// on its way, the second for what is here (threats: 25).
    FrontierBytes,
    /// Timestamps do not fall. Looked at within an answer and where a commit is applied (threats: 26).
    RisingTime,
    /// Polls have jitter (threats: 27).
    PollJitter,
    /// Requests that wait at peers have jitter (threats: 27).
    FollowJitter,
    /// Nothing stands behind a commit's encoding (threats: 28).
    CommitEnd,
    /// Nothing stands behind a block's encoding (threats: 28).
    BlockEnd,
    /// Consumers are told of what is durable, and of nothing else (threats: 30).
    DurableBroadcast,
    /// A peer's lowest is held against the next commit (threats: seed defect 02).
    LowestClaimed,
    /// What has been asked for is not asked for again (threats: seed defect 03).
    MarkedWork,
    /// An answer is as large as it may be, or larger where one item needs it (threats: seed defect 08).
    LargestItem,
    /// The byte cap is for all messages of an answer (threats: seed defect 09).
    AnswerBytes,
    /// One poll is in flight to a peer (threats: seed defect 10).
    SinglePoll,
    /// As many blocks as are allowed are served in one answer (threats: seed defect 12).
    ReferenceCount,
    /// A range past the tip is served up to the tip (threats: seed defect 13).
    ServedPrefix,
    /// A block that a server lacks is asked of another (threats: seed defect 16).
    MissingBlocks,
    /// Certifiers are stored, and fetched again where they are not there (threats: seed defect 19).
    KeptCertifiers,
    /// A served answer has no more bytes than are allowed (threats: seed defect 21).
    ServedBytes,
    /// Certifiers of one commit that do not fit are asked for with more bytes (threats: seed defect 22).
    EnlargedAnswers,
    /// A quorum of good certifiers counts, whatever is beside it (threats: seed defect 23).
    QuorumAmongBad,
    /// Commits of our own consensus enter as soon as the one before has (threats: seed defect 24).
    ObservedAtOnce,
    /// A validator set that is none is a stall, and no committee (threats: seed defect 25).
    InvalidCommittee,
}

/// Whether a defence has not been removed.
#[cfg(not(feature = "defence-switches"))]
#[inline(always)]
pub(crate) const fn stands(_: Defence) -> bool {
    true
}

/// Whether a defence has not been removed.
#[cfg(feature = "defence-switches")]
pub(crate) fn stands(defence: Defence) -> bool {
    static REMOVED: std::sync::OnceLock<Option<Defence>> = std::sync::OnceLock::new();
    *REMOVED.get_or_init(|| crate::environment::switch(WITHOUT, Defence::named)) != Some(defence)
}
