//! Proof, in the type, that something went through a verification job.

use crate::job::{CertifiedRange, CheckedBlock, CommitHeader};
#[cfg(feature = "trace")]
use crate::saved::{RestoreError, Restorer, Saved, Saver};
use alloc::vec::Vec;
use core::ops::Deref;

/// A value that a verification job of this crate has made: the only way into storage.
///
/// There is no public constructor. The one hatch, `Verified::from_trace`, is for replaying a recorded verdict, alone or
/// within a machine's saved state; it is built with the feature `trace` only, and a search for its name shows every use.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Verified<T>(T);

impl<T> Verified<T> {
    #[cfg(feature = "verify")]
    pub(crate) const fn new(value: T) -> Self {
        Self(value)
    }
    /// Takes a verdict's value from a trace on trust. For replaying traces; never for anything that came from a peer.
    #[cfg(feature = "trace")]
    pub const fn from_trace(value: T) -> Self {
        Self(value)
    }
    /// The value, without its proof.
    pub fn into_inner(self) -> T {
        self.0
    }
}

/// The state that it is read from was saved by a machine, and is taken on trust like a trace.
#[cfg(feature = "trace")]
impl<T: Saved> Saved for Verified<T> {
    fn save(&self, to: &mut Saver) {
        self.0.save(to);
    }
    fn restore(from: &mut Restorer<'_>) -> Result<Self, RestoreError> {
        T::restore(from).map(Self::from_trace)
    }
}

impl Verified<CertifiedRange> {
    /// The commits and the certifiers, each with its proof.
    pub fn into_parts(self) -> (Vec<Verified<CommitHeader>>, Vec<Verified<CheckedBlock>>) {
        let CertifiedRange { commits, certifiers, bad_certifiers: _ } = self.0;
        (commits.into_iter().map(Verified).collect(), certifiers.into_iter().map(Verified).collect())
    }
}

impl<T> Deref for Verified<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}
