//! The normal form of a machine (see [`crate::normal`]).

use super::{
    Counters, SyncMachine,
    in_flight::InFlights,
    requests::InFlight,
    verdicts::{JobRecord, Jobs},
};
use crate::{
    id::{BatchId, JobId, RequestId},
    normal::{Frame, NORMAL_NOW, Renamed, ranks},
    rng::Rng,
};
use alloc::{collections::BTreeMap, sync::Arc};
use core::mem;

impl SyncMachine {
    /// The machine's normal form, and how ids of what is under way are renamed in it. For tests that search all states:
    /// of two states with equal normal forms, the same can still come.
    ///
    /// It may be driven on in place of this one, at [`NORMAL_NOW`]. Times are as far from now as they were, and those that
    /// are over are all the same; ids count from zero, in their order; statistics begin anew, and so does what is
    /// drawn at random, from `seed`: a search tries the seeds that it wants beside one another. Exact for machines
    /// that serve nobody, with fewer peers than records, fewer than eleven answers of blocks that were cut short, and
    /// less fetched a second time than one answer may have. Commands must have been polled.
    pub fn normalised(&self, seed: [u8; 32]) -> (Self, Renamed) {
        let mut normal = self.clone();
        let renamed = Renamed {
            requests: ranks(self.requests.iter().map(|(id, _)| id), RequestId::new),
            jobs: ranks(self.jobs.records.keys().copied(), JobId::new),
            batches: ranks(self.outstanding.iter().map(|outstanding| outstanding.batch.id), BatchId::new),
        };
        let frame = Frame { now: self.now, buffers: normal.ledger.normalise(), renamed };
        normal.rename(&frame);
        normal.peers.normalise(&frame, self.grown);
        normal.window.normalise(&frame);
        normal.head.normalise(&frame);
        normal.now = NORMAL_NOW;
        frame.moment(&mut normal.heard);
        frame.moment(&mut normal.grown);
        frame.end(&mut normal.local_rest_until);
        if let Some(at) = &mut normal.observed_at {
            frame.moment(at);
        }
        normal.rng = Rng::new(seed);
        normal.counters = Counters::default();
        (normal, frame.renamed)
    }

    /// Gives what is under way the normal form's ids.
    fn rename(&mut self, frame: &Frame) {
        let count = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        self.requests.normalise(frame);
        self.jobs.normalise(frame);
        for outstanding in &mut self.outstanding {
            frame.batch(&mut Arc::make_mut(&mut outstanding.batch).id);
            outstanding.buffers.iter_mut().for_each(|buffer| frame.buffer(buffer));
        }
        self.observing.buffers_mut().for_each(|buffer| frame.buffer(buffer));
        self.pending_votes.iter_mut().for_each(|(_, buffer)| frame.buffer(buffer));
        self.next_request = count(frame.renamed.requests.len());
        self.next_job = count(frame.renamed.jobs.len());
        self.next_batch = count(frame.renamed.batches.len());
    }
}

/// A map with other keys.
fn renamed<Id: Ord, Value>(map: BTreeMap<Id, Value>, rename: impl Fn(&mut Id)) -> BTreeMap<Id, Value> {
    let rename = |(mut id, value)| {
        rename(&mut id);
        (id, value)
    };
    map.into_iter().map(rename).collect()
}

impl InFlights {
    fn normalise(&mut self, frame: &Frame) {
        let named = |(mut id, mut in_flight): (RequestId, InFlight)| {
            frame.request(&mut id);
            in_flight.normalise(frame);
            (id, in_flight)
        };
        *self = mem::take(self).into_entries().map(named).collect();
    }
}

impl InFlight {
    fn normalise(&mut self, frame: &Frame) {
        frame.moment(&mut self.sent);
        frame.moment(&mut self.deadline);
        frame.moment(&mut self.progress_deadline);
        if let Some(began) = &mut self.began {
            frame.moment(began);
        }
    }
}

impl Jobs {
    fn normalise(&mut self, frame: &Frame) {
        for record in self.records.values_mut() {
            match record {
                JobRecord::Certify(record) => frame.buffer(&mut record.buffer),
                JobRecord::Check(record) => frame.buffer(&mut record.buffer),
                JobRecord::Observe(record) => frame.buffer(&mut record.buffer),
                JobRecord::Votes { buffer } => frame.buffer(buffer),
            }
        }
        self.records = renamed(mem::take(&mut self.records), |id| frame.job(id));
        self.waiting.iter_mut().for_each(|(id, _)| frame.job(id));
    }
}
