//! Names of work that is under way.

use core::fmt;

/// An id of work that the machine hands out. The machine makes them all, ascending, and never uses one twice.
macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(u64);
        saved! { struct $name(value) }

        impl $name {
            /// For the driver's own ids, and for reading ids back from a trace.
            pub const fn new(value: u64) -> Self {
                Self(value)
            }
            /// The plain number.
            pub const fn get(self) -> u64 {
                self.0
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "#{}", self.0)
            }
        }
    };
}
id! {
    /// A request of ours to a peer.
    RequestId
}
id! {
    /// A verification job.
    JobId
}
id! {
    /// A peer's request to us. The driver makes these; they need only be unique among those not yet finished.
    InboundId
}

id! {
    /// A batch for storage.
    BatchId
}
