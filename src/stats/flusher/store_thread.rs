//! The thread on which the flusher's store operations run, one after the other.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, Sender, bounded};
use mb_core::priority::give_way;
use mb_core::store::{StatsBatch, Store, StoreError};
use mb_core::{fault, supervise};

use crate::stats::download_dedup::Question;

/// Jobs that wait: a batch, and questions that were given up. A store that does not answer gets no more.
const JOBS_WAITING: usize = 4;

/// What the store is to do.
pub(super) enum Job {
    /// Add a batch.
    Add(Arc<StatsBatch>),
    /// Answer a question of the range deduplication.
    Ask(Question),
}

/// What the store did.
pub(super) enum Answer {
    /// It took a batch or had it already, or failed.
    Added {
        /// Whether it was new, or what went wrong.
        outcome: Result<bool, StoreError>,
        /// How long that took.
        took: Duration,
    },
    /// It answered a question, or failed.
    Answered {
        /// The number of the question.
        number: u64,
        /// Which of its entries are new, or what went wrong.
        outcome: Result<Vec<bool>, StoreError>,
    },
}

/// Asks the store. A panic in it is a failure like others: whether it has done what was asked is not known.
fn attempt<T>(operation: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    let operation = || {
        fault::point("statistics-store");
        let _busy = supervise::busy("statistics-store");
        operation()
    };
    let panicked = || Err(StoreError::Database("the access to the store panicked; please report this".to_owned()));
    supervise::attempt("statistics-store", operation).unwrap_or_else(panicked)
}

/// The thread, as the flusher sees it. It ends when this is dropped and its operation is over.
pub(super) struct StoreThread {
    jobs: Sender<Job>,
    /// Its answers, in the order of the jobs.
    pub(super) answers: Receiver<Answer>,
}

impl StoreThread {
    /// Starts it.
    pub(super) fn start(store: Arc<dyn Store>) -> std::io::Result<StoreThread> {
        let (jobs, todo) = bounded(JOBS_WAITING);
        let (done, answers) = bounded(2 * JOBS_WAITING);
        let work = move || {
            give_way();
            for job in todo {
                let answer = match job {
                    Job::Add(batch) => {
                        let started = Instant::now();
                        let outcome = attempt(|| store.add_stats(&batch));
                        Answer::Added { outcome, took: started.elapsed() }
                    }
                    Job::Ask(Question { number, sightings }) => {
                        Answer::Answered { number, outcome: attempt(|| store.note_sightings(&sightings)) }
                    }
                };
                if done.send(answer).is_err() {
                    break;
                }
            }
            // The store first: that nobody answers any more tells that it is let go.
            drop(store);
            drop(done);
        };
        std::thread::Builder::new().name("statistics-store".to_owned()).spawn(work)?;
        Ok(StoreThread { jobs, answers })
    }

    /// Ends it, and waits until it has let the store go or `deadline` has come: whoever closes a database last tidies it up.
    pub(super) fn end(self, deadline: Instant) {
        drop(self.jobs);
        while self.answers.recv_deadline(deadline).is_ok() {}
    }

    /// Hands a job over; `false` when too many wait already.
    pub(super) fn send(&self, job: Job) -> bool {
        self.jobs.try_send(job).is_ok()
    }
}
