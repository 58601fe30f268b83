//! The kinds of fault that a network can have, by name, and how often each took effect.

use std::{cell::Cell, fmt, str::FromStr};

macro_rules! faults {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)*) => {
        /// A kind of fault. Each is on or off for a seed, and counts where it takes effect.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Fault {
            $($(#[$doc])* $variant,)*
        }

        impl Fault {
            /// All of them, in the order in which they are reported.
            pub const ALL: &[Self] = &[$(Self::$variant),*];

            /// What it is called.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }
        }
    };
}

faults! {
    /// A request vanishes on its way, and nobody is told.
    Loss = "loss",
    /// For a while every stream of a node is lost, and whoever asked is told.
    BurstLoss = "burst-loss",
    /// A completion, or a request, is delivered twice within two seconds.
    Duplicate = "duplicate",
    /// A part of an answer or a completion comes once more long after all is over.
    Replay = "replay",
    /// A request is held up, and others overtake it.
    Reorder = "reorder",
    /// Links with up to 300 ms each way, and as much jitter.
    Delay = "delay",
    /// Links of some tens of KiB a second.
    Bandwidth = "bandwidth",
    /// Nothing that a node sends arrives for a while, and then everything at once.
    Clog = "clog",
    /// Two halves of the network hear nothing of one another for a while.
    Partition = "partition",
    /// What one node sends to another is lost for a while, and not what comes back.
    OneWayPartition = "one-way-partition",
    /// Each node hears only its two neighbours for a while.
    RingPartition = "ring-partition",
    /// An answer is reset after some of its messages.
    Reset = "reset",
    /// A connection stands, and nothing arrives over it; after a while it is found out.
    HalfOpen = "half-open",
    /// An answer stops after some of its messages, without an end.
    Truncate = "truncate",
    /// A connection is lost, and made again a little later.
    Disconnect = "disconnect",

    /// A node crashes and starts again after a while.
    Crash = "crash",
    /// A node crashes again shortly after each start.
    CrashLoop = "crash-loop",
    /// A node does nothing for a while, and then everything that came meanwhile.
    Pause = "pause",
    /// Jobs and batches of a node take many times as long.
    SlowNode = "slow-node",
    /// A node outside of the core crashes and is never seen again.
    Death = "death",
    /// A node starts again with nothing stored.
    EmptyDisk = "empty-disk",
    /// A node starts again with what it had stored some time ago.
    OlderImage = "older-image",

    /// A node's clock runs up to a fifth too fast or too slow.
    SkewedClock = "skewed-clock",
    /// A node is not woken for a while, whatever its timers say.
    StalledTicks = "stalled-ticks",
    /// A node's timers come only at multiples of up to 500 ms.
    CoalescedTimers = "coalesced-timers",

    /// The store refuses batches for a while and is then opened again.
    StoreFailure = "store-failure",
    /// The store refuses batches for many seconds.
    DiskFull = "disk-full",
    /// Writing a batch down fails once, and it is there all the same when the store is opened again.
    FsyncOnce = "fsync-once",
    /// A crash, after which some of the batches that were under way are there, in order.
    TornWrite = "torn-write",
    /// A stored commit cannot be read any more; the store says so.
    BitRot = "bit-rot",
    /// Batches take half a second and more.
    SlowDisk = "slow-disk",
    /// A crash between a verdict and what follows from it.
    CrashAfterVerify = "crash-after-verify",
    /// A crash between a batch's being handed over and its being durable.
    CrashBeforeStored = "crash-before-stored",
    /// A crash between a batch's being durable and its being broadcast.
    CrashAfterStored = "crash-after-stored",
    /// A crash between a broadcast and its being taken.
    CrashAfterBroadcast = "crash-after-broadcast",

    /// Consumers take what is broadcast seconds later.
    LaggingConsumer = "lagging-consumer",
    /// The byte budget is as small as it may be.
    TinyBudget = "tiny-budget",
    /// One job at a time, and each takes long.
    SaturatedVerifier = "saturated-verifier",
    /// Few and small requests, and a short look-ahead.
    SmallWindows = "small-windows",
    /// A worker dies over a job.
    WorkerDeath = "worker-death",

    /// Claims the highest index that there is.
    InflatedHeight = "inflated-height",
    /// Lowers its claim in mid-sync.
    LoweringHeight = "lowering-height",
    /// Raises the lowest commit that it claims in mid-sync.
    RaisingLowest = "raising-lowest",
    /// Claims a lowest commit above its highest.
    InvertedAvailability = "inverted-availability",
    /// Answers polls only.
    Silent = "silent",
    /// Sends an answer item by item, seconds apart.
    Trickle = "trickle",
    /// Is always just above the threshold of progress.
    BytesPerSecond = "bytes-per-second",
    /// Gives empty answers.
    EmptyAnswers = "empty-answers",
    /// Says that it lacks each block.
    LacksBlocks = "lacks-blocks",
    /// Names another chain.
    ForeignChain = "foreign-chain",
    /// Certifies with keys of another epoch.
    WrongEpochKeys = "wrong-epoch-keys",
    /// Certifies with votes of another epoch.
    WrongEpochVotes = "wrong-epoch-votes",
    /// Sends commits of an epoch far away.
    FarEpoch = "far-epoch",
    /// Certifies with one vote many times.
    DuplicateCertifiers = "duplicate-certifiers",
    /// Certifies with many votes by one author.
    ManyByOneAuthor = "many-by-one-author",
    /// Certifies with votes for another digest.
    WrongDigestVotes = "wrong-digest-votes",
    /// Certifies with one vote too few.
    ShortOfQuorum = "short-of-quorum",
    /// Sends each message twice.
    Duplicates = "duplicates",
    /// Answers with another kind of answer.
    WrongKind = "wrong-kind",
    /// Sends every item twice.
    TooMany = "too-many",
    /// Sends half of the items.
    TooFew = "too-few",
    /// Sends items in the opposite order.
    Reordered = "reordered",
    /// Begins where nobody asked.
    OtherStart = "other-start",
    /// Sends items of another chain.
    ForeignItems = "foreign-items",
    /// Flips a bit of each block.
    BadBlocks = "bad-blocks",
    /// Adds a bad certifier to good ones.
    BadCertifier = "bad-certifier",
    /// Flips a bit of one block among many.
    OneBadBlock = "one-bad-block",
    /// Flips a bit of each commit.
    BadCommits = "bad-commits",
    /// Advertises what it has pruned.
    PrunedButAdvertised = "pruned-but-advertised",
    /// Is always busy.
    Busy = "busy",
    /// Loses every stream half-way.
    Resets = "resets",
    /// Puts a byte behind each item.
    TrailingByte = "trailing-byte",
    /// Behaves until a commit is asked for, and then sends bad blocks.
    Turns = "turns",
    /// Pushes at full speed, with ever higher indexes.
    FloodPushes = "flood-pushes",
    /// Asks for the dearest ranges again and again.
    FloodRequests = "flood-requests",
    /// Connects again at once, ban or no ban.
    KeepReconnecting = "keep-reconnecting",
    /// Certifies with votes in blocks that stand on no block of the round before.
    ShortOfParents = "short-of-parents",
    /// Writes lengths in blocks and certifiers with a byte more than they need.
    LongLengths = "long-lengths",
}

impl Fault {
    /// Whether it is what a hostile node does.
    pub const fn is_hostile(self) -> bool {
        self as u32 >= Self::InflatedHeight as u32
    }

    /// Whether it befalls a node or a link for a while; else it befalls single messages, or is there all the time.
    pub const fn is_episode(self) -> bool {
        matches!(
            self,
            Self::BurstLoss
                | Self::Clog
                | Self::Partition
                | Self::OneWayPartition
                | Self::RingPartition
                | Self::HalfOpen
                | Self::Disconnect
                | Self::Crash
                | Self::CrashLoop
                | Self::Pause
                | Self::SlowNode
                | Self::Death
                | Self::EmptyDisk
                | Self::OlderImage
                | Self::SkewedClock
                | Self::StalledTicks
                | Self::CoalescedTimers
                | Self::StoreFailure
                | Self::DiskFull
                | Self::FsyncOnce
                | Self::TornWrite
                | Self::BitRot
                | Self::SlowDisk
                | Self::CrashAfterVerify
                | Self::CrashBeforeStored
                | Self::CrashAfterStored
                | Self::CrashAfterBroadcast
                | Self::LaggingConsumer
        )
    }
}

/// A name that is no fault's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no fault; they are: {names}", names = Fault::ALL.iter().map(|fault| fault.name()).collect::<Vec<_>>().join(", "))]
pub struct UnknownFault(pub String);

impl FromStr for Fault {
    type Err = UnknownFault;

    fn from_str(name: &str) -> Result<Self, UnknownFault> {
        let named = Self::ALL.iter().find(|fault| fault.name() == name);
        named.copied().ok_or_else(|| UnknownFault(name.to_owned()))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A set of faults: which may be on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FaultSet(u128);

impl FaultSet {
    /// No fault at all.
    pub const NONE: Self = Self(0);

    /// Every fault.
    pub fn all() -> Self {
        Fault::ALL.iter().copied().collect()
    }

    /// Whether a fault is in it.
    pub const fn contains(self, fault: Fault) -> bool {
        self.0 & 1 << fault as u32 != 0
    }

    /// The same set without a fault.
    pub const fn without(self, fault: Fault) -> Self {
        Self(self.0 & !(1 << fault as u32))
    }

    /// The faults in it, in the order in which they are reported.
    pub fn iter(self) -> impl Iterator<Item = Fault> {
        Fault::ALL.iter().copied().filter(move |fault| self.contains(*fault))
    }
}

impl FromIterator<Fault> for FaultSet {
    fn from_iter<I: IntoIterator<Item = Fault>>(faults: I) -> Self {
        Self(faults.into_iter().fold(0, |set, fault| set | 1 << fault as u32))
    }
}

impl FromStr for FaultSet {
    type Err = UnknownFault;

    /// `all`, `none`, or names with commas between them.
    fn from_str(text: &str) -> Result<Self, UnknownFault> {
        match text {
            "all" => Ok(Self::all()),
            "none" => Ok(Self::default()),
            list => list.split(',').map(|name| name.trim().parse::<Fault>()).collect(),
        }
    }
}

impl fmt::Display for FaultSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::all() {
            return f.write_str("all");
        }
        if *self == Self::default() {
            return f.write_str("none");
        }
        let names: Vec<_> = self.iter().map(Fault::name).collect();
        f.write_str(&names.join(","))
    }
}

/// How often each fault took effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hits([Cell<u64>; Fault::ALL.len()]);

impl Default for Hits {
    fn default() -> Self {
        Self([const { Cell::new(0) }; Fault::ALL.len()])
    }
}

impl Hits {
    /// Counts one.
    pub fn count(&self, fault: Fault) {
        self.add(fault, 1);
    }

    fn add(&self, fault: Fault, times: u64) {
        let cell = &self.0[fault as usize];
        cell.set(cell.get().saturating_add(times));
    }

    /// How often one took effect.
    pub fn of(&self, fault: Fault) -> u64 {
        self.0[fault as usize].get()
    }

    /// Adds what was counted elsewhere.
    pub fn merge(&self, other: &Self) {
        for fault in Fault::ALL {
            self.add(*fault, other.of(*fault));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_does_not_fit_the_set_or_has_anothers_name() {
        assert!(Fault::ALL.len() <= 128);
        for fault in Fault::ALL {
            assert_eq!(fault.name().parse(), Ok(*fault));
            assert!(FaultSet::all().contains(*fault) && !FaultSet::all().without(*fault).contains(*fault));
        }
    }

    #[test]
    fn a_list_of_faults_is_read_as_another_one() {
        assert_eq!("all".parse(), Ok(FaultSet::all()));
        assert_eq!("none".parse(), Ok(FaultSet::default()));
        let two: FaultSet = "loss, crash".parse().unwrap();
        assert_eq!(two.iter().collect::<Vec<_>>(), [Fault::Loss, Fault::Crash]);
        assert_eq!(two.to_string().parse(), Ok(two));
        assert_eq!("loss,".parse::<FaultSet>(), Err(UnknownFault(String::new())));
    }
}
