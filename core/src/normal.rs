//! A normal form of the machine's state, for searches through all states: equal where what can still happen is equal.
//!
//! Two orders of the same events lead to states that differ in what nothing depends on: by how much time has passed, by
//! numbers that ids happen to have, by statistics. [`SyncMachine::normalised`](crate::SyncMachine::normalised) takes that
//! away and gives a machine that can be driven on in place of the first one.

use crate::{
    id::{BatchId, JobId, RequestId},
    ledger::BufferId,
    time::Timestamp,
};
use alloc::collections::BTreeMap;

/// When now is in every normal form: a day after the origin, so that what is past can be told apart.
pub const NORMAL_NOW: Timestamp = Timestamp::from_micros(24 * 3600 * 1_000_000);

/// What the ids of work that is under way are in the normal form: counted from zero, in the same order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Renamed {
    /// Requests that have not finished.
    pub requests: BTreeMap<RequestId, RequestId>,
    /// Jobs that are not done.
    pub jobs: BTreeMap<JobId, JobId>,
    /// Batches that are not durable.
    pub batches: BTreeMap<BatchId, BatchId>,
}

/// How times and ids of one state become those of its normal form.
pub(crate) struct Frame {
    pub(crate) now: Timestamp,
    pub(crate) renamed: Renamed,
    pub(crate) buffers: BTreeMap<BufferId, BufferId>,
}

/// Numbers ids from zero on.
pub(crate) fn ranks<Id: Copy + Ord>(
    ids: impl IntoIterator<Item = Id>,
    make: impl Fn(u64) -> Id,
) -> BTreeMap<Id, Id> {
    ids.into_iter().zip(0..).map(|(id, rank)| (id, make(rank))).collect()
}

impl Frame {
    /// A moment: as far from now as it was.
    pub(crate) fn moment(&self, at: &mut Timestamp) {
        *at = if *at >= self.now {
            NORMAL_NOW.saturating_add(at.saturating_since(self.now))
        } else {
            let past =
                NORMAL_NOW.saturating_since(Timestamp::ZERO).saturating_sub(self.now.saturating_since(*at));
            Timestamp::ZERO.saturating_add(past)
        };
    }

    /// The end of something that is over once it has come: when that was does not matter then.
    pub(crate) fn end(&self, at: &mut Timestamp) {
        if *at <= self.now {
            *at = Timestamp::ZERO;
        } else {
            self.moment(at);
        }
    }

    /// A request. One that is over is like any other that is.
    pub(crate) fn request(&self, id: &mut RequestId) {
        *id = self.renamed.requests.get(id).copied().unwrap_or(RequestId::new(u64::MAX));
    }

    /// A job.
    pub(crate) fn job(&self, id: &mut JobId) {
        *id = self.renamed.jobs.get(id).copied().unwrap_or(JobId::new(u64::MAX));
    }

    /// A batch.
    pub(crate) fn batch(&self, id: &mut BatchId) {
        *id = self.renamed.batches.get(id).copied().unwrap_or(BatchId::new(u64::MAX));
    }

    /// A buffer.
    pub(crate) fn buffer(&self, id: &mut BufferId) {
        if let Some(name) = self.buffers.get(id) {
            *id = *name;
        }
    }
}
