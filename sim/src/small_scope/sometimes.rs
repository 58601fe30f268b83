//! What a search is to come across: where it does not, it searches less than it seems to.

/// What should be seen to happen, somewhere in the search.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Sometimes {
    /// The whole chain is durable, certifiable and handed out.
    TipReached,
    /// The node says that it is synced.
    Synced,
    /// The liar was thrown out.
    LiarBanned,
    /// The node crashed with a batch on its way, which was lost.
    CrashLosesBatch,
    /// The node crashed with a batch on its way, which was durable.
    CrashKeepsBatch,
    /// A request or its answer was lost.
    Lost,
    /// A request's time was up.
    TimedOut,
    /// A stream broke.
    Reset,
    /// A second peer was asked for what another one had not brought.
    Hedged,
    /// The same was asked of another peer after one had failed.
    Retried,
    /// A commit came that was stored already, and was compared with that.
    DuplicateCompared,
    /// A worker died.
    WorkerDied,
    /// The store failed with a batch on its way, and was opened again.
    StoreReopened,
    /// A peer was told how far we are.
    Pushed,
    /// More than one batch was on its way to storage.
    TwoBatches,
}

impl Sometimes {
    /// All of them.
    pub const ALL: [Self; 15] = [
        Self::TipReached,
        Self::Synced,
        Self::LiarBanned,
        Self::CrashLosesBatch,
        Self::CrashKeepsBatch,
        Self::Lost,
        Self::TimedOut,
        Self::Reset,
        Self::Hedged,
        Self::Retried,
        Self::DuplicateCompared,
        Self::WorkerDied,
        Self::StoreReopened,
        Self::Pushed,
        Self::TwoBatches,
    ];
}
