//! Who owns the [`Store`], a thread of its own: folds acknowledged records in, and answers questions about the state.
//!
//! sled blocks, so it stays off the arbiters. Called by the journal's writer (records, in order) and by the
//! journal actor (questions). A question asked after [`crate::journal::Appender::barrier`] sees every record
//! acknowledged before. Simulations, which must be repeatable, have it do its work wherever it is called.

use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::sync::oneshot;

use super::{Folded, Store, StoreError, View};
use crate::journal::Record;

/// Changes are gathered for so long: what a crash keeps from sled is folded in again from the journal.
const GATHER: Duration = Duration::from_millis(50);
/// And at most so many keys.
const GATHERED: usize = 4096;

type Question = Box<dyn FnOnce(&Folded, &View) + Send>;

enum Job {
    Fold(Vec<Record>),
    Answer(Question),
    Write,
}

/// The next thing to do; `None` at the end.
fn next(work: &mpsc::Receiver<Job>, store: &Store, written: Instant) -> Option<Job> {
    if store.waiting() == 0 {
        return work.recv().ok();
    }
    match work.recv_timeout(GATHER.saturating_sub(written.elapsed())) {
        Ok(job) => Some(job),
        Err(mpsc::RecvTimeoutError::Timeout) => Some(Job::Write),
        Err(mpsc::RecvTimeoutError::Disconnected) => None,
    }
}

/// The follower is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the state store's thread has ended")]
pub struct FollowerGone;

/// Asks the follower. Cheap to clone; the thread ends when the last clone and the journal's writer are gone.
#[derive(Clone)]
pub struct Follower {
    jobs: Jobs,
}

#[derive(Clone)]
enum Jobs {
    Thread(mpsc::Sender<Job>),
    Here(Arc<Mutex<Here>>),
}

/// Works at once, on the caller's thread.
struct Here {
    store: Store,
    failed: Box<dyn FnMut(StoreError) + Send>,
}

impl Here {
    fn work(&mut self, job: Job) {
        let worked = match job {
            Job::Fold(records) => self.store.follow(&records).map(drop),
            Job::Answer(question) => {
                question(self.store.folded(), &self.store.view());
                Ok(())
            }
            Job::Write => self.store.write(),
        };
        if let Err(error) = worked {
            (self.failed)(error);
        }
    }
}

impl Jobs {
    fn send(&self, job: Job) -> Result<(), FollowerGone> {
        match self {
            Self::Thread(jobs) => jobs.send(job).map_err(|_| FollowerGone),
            Self::Here(here) => {
                here.lock().unwrap_or_else(PoisonError::into_inner).work(job);
                Ok(())
            }
        }
    }
}

impl Follower {
    /// Starts the thread. `failed` hears, on that thread, of all that could not be folded in or stored.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn start(
        mut store: Store,
        mut failed: impl FnMut(StoreError) + Send + 'static,
    ) -> std::io::Result<(Self, JoinHandle<()>)> {
        let (jobs, work) = mpsc::channel();
        let thread = std::thread::Builder::new().name("store".into()).spawn(move || {
            let view = store.view();
            let mut written = Instant::now();
            while let Some(job) = next(&work, &store, written) {
                match job {
                    Job::Fold(records) => {
                        if store.waiting() == 0 {
                            written = Instant::now();
                        }
                        if let Err(error) = store.fold(&records) {
                            failed(error);
                        }
                    }
                    Job::Answer(question) => question(store.folded(), &view),
                    Job::Write => {}
                }
                if written.elapsed() >= GATHER || store.waiting() >= GATHERED {
                    written = Instant::now();
                    if let Err(error) = store.write() {
                        failed(error);
                    }
                }
            }
            if let Err(error) = store.write() {
                failed(error);
            }
        })?;
        let jobs = Jobs::Thread(jobs);
        Ok((Self { jobs }, thread))
    }

    /// Without a thread: each call does its work itself. A question must not ask another one.
    pub fn here(store: Store, failed: impl FnMut(StoreError) + Send + 'static) -> Self {
        let failed = Box::new(failed);
        let jobs = Jobs::Here(Arc::new(Mutex::new(Here { store, failed })));
        Self { jobs }
    }

    /// What the journal's writer calls with each acknowledged batch.
    #[must_use]
    pub fn sink(&self) -> crate::journal::Follower {
        let jobs = self.jobs.clone();
        // After the thread's end the state is folded anew at the next start; the journal goes on.
        Box::new(move |records| _ = jobs.send(Job::Fold(records)))
    }

    /// Asks a question of the state as it is now. It is dropped when the thread has ended.
    pub fn tell(&self, question: impl FnOnce(&Folded, &View) + Send + 'static) {
        // Whoever waits for an answer hears of the end by it.
        _ = self.jobs.send(Job::Answer(Box::new(question)));
    }
    /// Asks a question of the state as it is now.
    ///
    /// # Errors
    /// When the thread has ended.
    pub async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&Folded, &View) -> T + Send + 'static,
    ) -> Result<T, FollowerGone> {
        let (answer, answered) = oneshot::channel();
        let job = Job::Answer(Box::new(move |folded, view| drop(answer.send(question(folded, view)))));
        self.jobs.send(job)?;
        answered.await.map_err(|_| FollowerGone)
    }
}
