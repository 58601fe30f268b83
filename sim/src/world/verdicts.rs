//! Verdicts that are remembered, so that thousands of worlds of one chain verify each signature once.
//!
//! A verdict is a function of its job. A job over nothing but the chain's own bytes, as they lie in memory, is known by
//! all else that is in it and by where the bytes lie; whatever hostile nodes make is verified each time.

use crate::oracle::{Truth, place};
use soma_sync_core::{
    job::{CheckJob, Job, Verdict},
    payload::Payload,
};
use std::{collections::HashMap, rc::Rc};

/// Payloads in all jobs that are remembered. Beyond that all is forgotten, and verified anew.
const MOST_PAYLOADS: usize = 400_000;

/// Entropy of the simulator's workers: no sender here can predict it, and runs repeat.
const ENTROPY: [u8; 32] = [0; 32];

/// A job, and where its bytes lie.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Key {
    job: Job,
    places: Vec<(usize, usize)>,
}

/// What jobs over the bytes of one chain found.
#[derive(Debug)]
pub struct Verdicts {
    /// Keeps the chain's bytes where they are.
    truth: Rc<Truth>,
    found: HashMap<Key, Verdict>,
    payloads: usize,
}

impl Verdicts {
    /// None yet, of this chain.
    pub fn new(truth: Rc<Truth>) -> Self {
        Self { truth, found: HashMap::new(), payloads: 0 }
    }

    /// What a job finds.
    pub(super) fn of(&mut self, job: &Job) -> Verdict {
        match job {
            // Block by block: answers are cut differently in each world.
            Job::Check(check) => Verdict::Check(self.check(check)),
            Job::Certify(_) | Job::Observe(_) | Job::Votes(_) => self.recall(job.clone()),
        }
    }

    fn check(&mut self, job: &CheckJob) -> Vec<soma_sync_core::job::BlockOutcome> {
        let mut outcomes = Vec::with_capacity(job.blocks.len());
        for (reference, block) in job.refs.iter().zip(&job.blocks) {
            let single = CheckJob {
                refs: vec![*reference],
                blocks: vec![block.clone()],
                committee: job.committee.clone(),
                ..*job
            };
            if let Verdict::Check(outcome) = self.recall(Job::Check(Box::new(single))) {
                outcomes.extend(outcome);
            }
        }
        outcomes
    }

    fn recall(&mut self, job: Job) -> Verdict {
        let payloads = payloads(&job);
        if !payloads.iter().all(|payload| self.truth.lies_here(payload)) {
            return job.run(ENTROPY);
        }
        let places: Vec<_> = payloads.into_iter().map(place).collect();
        let key = Key { job, places };
        if let Some(found) = self.found.get(&key) {
            return found.clone();
        }
        let verdict = key.job.clone().run(ENTROPY);
        self.payloads += key.places.len();
        if self.payloads > MOST_PAYLOADS {
            self.found.clear();
            self.payloads = key.places.len();
        }
        self.found.insert(key, verdict.clone());
        verdict
    }
}

/// All that a job has bytes of.
fn payloads(job: &Job) -> Vec<&Payload> {
    match job {
        Job::Certify(job) => job.commits.iter().chain(&job.certifiers).collect(),
        Job::Check(job) => job.blocks.iter().collect(),
        Job::Observe(job) => [&job.commit].into_iter().chain(&job.blocks).collect(),
        Job::Votes(job) => job.blocks.iter().collect(),
    }
}

/// What a job finds, each time anew.
pub(super) fn verify(job: Job) -> Verdict {
    job.run(ENTROPY)
}
