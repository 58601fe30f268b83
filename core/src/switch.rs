//! Switches for tests: a defence of the core taken away, or a bug put into it, to see that a test notices.
//!
//! For tests only. The feature `defence-switches` is off by default and belongs in no release: with it, a variable of
//! the environment changes the protocol for the whole process. Without it every switch is a constant, and nothing of
//! this is in the build.

/// An enum of switches, each with its name as it is written.
macro_rules! switches {
    ($(#[$doc:meta])* $switches:ident: $($(#[$each:meta])* $name:ident,)*) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum $switches {
            $($(#[$each])* $name,)*
        }

        #[cfg(feature = "defence-switches")]
        impl $switches {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$name),*];

            /// The one of this name.
            pub fn named(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|switch| switch.name() == name)
            }

            /// Its name, as it is written here.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }
        }
    };
}
pub(crate) use switches;
