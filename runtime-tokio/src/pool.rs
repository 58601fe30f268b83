//! Verification workers: plain threads, because the work is all processor time, which has no place among tasks that
//! must stay responsive.

use soma_sync_core::{
    event::JobId,
    job::{Job, Verdict},
};
use std::{
    any::Any,
    io,
    num::NonZeroUsize,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Mutex, PoisonError, mpsc},
    thread,
};

/// Runs jobs on threads of its own. Dropped, it lets the workers finish what they are at and end.
pub(crate) struct VerifyPool {
    jobs: mpsc::SyncSender<(JobId, Job)>,
}

impl VerifyPool {
    /// Starts `workers` threads. `run` does a job; `done` is told what became of it, exactly once a job, also when
    /// `run` panics. At most `capacity` jobs wait.
    pub(crate) fn start(
        workers: NonZeroUsize,
        capacity: usize,
        run: impl Fn(Job) -> Verdict + Send + Sync + 'static,
        done: impl Fn(JobId, Verdict) + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let (jobs, waiting) = mpsc::sync_channel(capacity);
        let shared = Arc::new((Mutex::new(waiting), run, done));
        for worker in 0..workers.get() {
            let shared = Arc::clone(&shared);
            thread::Builder::new().name(format!("soma-sync-verify-{worker}")).spawn(move || {
                let (waiting, run, done) = &*shared;
                while let Some((id, job)) = next_job(waiting) {
                    done(id, run_contained(run, job));
                }
            })?;
        }
        Ok(Self { jobs })
    }

    /// Hands over a job. The machine has no more jobs out than the pool was made for, so there is room; should there
    /// be none all the same, the job comes back and counts as failed.
    pub(crate) fn submit(&self, id: JobId, job: Job) -> Result<(), JobId> {
        self.jobs.try_send((id, job)).map_err(|refused| {
            tracing::error!(?id, "the verification pool took no job: {refused}");
            id
        })
    }
}

/// Waits for a job; `None` once the pool is dropped and nothing is left to do.
fn next_job(waiting: &Mutex<mpsc::Receiver<(JobId, Job)>>) -> Option<(JobId, Job)> {
    // The one worker that holds the lock waits for a job; the others wait for the lock. Nothing can panic under it.
    waiting.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
}

/// Runs a job so that a panic in it ends neither the worker nor the job.
fn run_contained(run: impl Fn(Job) -> Verdict, job: Job) -> Verdict {
    // What the job owned is dropped with it, so that nothing half changed can be seen afterwards.
    catch_unwind(AssertUnwindSafe(|| run(job))).unwrap_or_else(|panic| {
        tracing::error!("a verification job panicked: {}", panic_message(&*panic));
        Verdict::WorkerFailed
    })
}

/// What a panic said, where it said it in words.
pub(crate) fn panic_message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

/// Runs a job with fresh entropy of the system's, as batch signature checks need.
pub(crate) fn run_job(job: Job) -> Verdict {
    let mut entropy = [0; 32];
    match getrandom::fill(&mut entropy) {
        Ok(()) => job.run(entropy),
        Err(error) => {
            tracing::error!("no entropy for a verification job: {error}");
            Verdict::WorkerFailed
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use soma_sync_core::{config::Limits, job::VotesJob};
    use std::collections::BTreeMap;

    fn job(blocks: usize) -> Job {
        let blocks = vec![bytes::Bytes::from_static(b"no block").into(); blocks];
        Job::Votes(Box::new(VotesJob { blocks, limits: Limits::default() }))
    }

    /// Runs jobs `0..jobs` with `run` and returns the verdicts by job, once the pool is gone.
    fn run_all(
        jobs: u64,
        run: impl Fn(Job) -> Verdict + Send + Sync + 'static,
    ) -> BTreeMap<JobId, Vec<Verdict>> {
        let (done, verdicts) = mpsc::channel();
        let done = Mutex::new(done);
        let pool = VerifyPool::start(NonZeroUsize::new(2).unwrap(), 100, run, move |id, verdict| {
            done.lock().unwrap().send((id, verdict)).unwrap();
        })
        .unwrap();
        for id in 0..jobs {
            pool.submit(JobId::new(id), job(id as usize)).unwrap();
        }
        drop(pool);
        let mut by_job = BTreeMap::<_, Vec<_>>::new();
        for (id, verdict) in verdicts {
            by_job.entry(id).or_default().push(verdict);
        }
        by_job
    }

    #[test]
    fn a_panic_in_a_job_loses_it_or_others() {
        let verdicts = run_all(20, |job| match job {
            Job::Votes(votes) if votes.blocks.len() % 2 == 0 => panic!("a bug in a job"),
            _ => Verdict::Votes(Vec::new()),
        });
        assert_eq!(verdicts.len(), 20);
        for (id, verdicts) in verdicts {
            let expected = if id.get() % 2 == 0 { Verdict::WorkerFailed } else { Verdict::Votes(Vec::new()) };
            assert_eq!(verdicts, [expected]);
        }
    }

    #[test]
    fn a_full_pool_blocks_the_driver() {
        let gate = Arc::new(Mutex::new(()));
        let closed = gate.lock().unwrap();
        let run = {
            let gate = Arc::clone(&gate);
            move |_| {
                drop(gate.lock());
                Verdict::WorkerFailed
            }
        };
        let pool = VerifyPool::start(NonZeroUsize::MIN, 1, run, |_, _| {}).unwrap();
        // One is being run or waits, at most one more waits; a third finds no room.
        let taken = (0..3).map(|id| pool.submit(JobId::new(id), job(0))).collect::<Vec<_>>();
        assert!(taken.contains(&Err(JobId::new(2))) || taken.contains(&Err(JobId::new(1))));
        drop(closed);
    }

    #[test]
    fn a_job_of_the_core_fails_for_want_of_entropy() {
        assert_eq!(run_all(1, run_job)[&JobId::new(0)], [Verdict::Votes(Vec::new())]);
    }
}
