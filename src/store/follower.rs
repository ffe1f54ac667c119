//! The thread that owns the [`Store`]: folds acknowledged records in, and answers questions about the state.
//!
//! sled blocks, so it stays off the arbiters. Called by the journal's writer (records, in order) and by the
//! journal actor (questions). A question asked after [`crate::journal::Appender::barrier`] sees every record
//! acknowledged before.

use std::sync::mpsc;
use std::thread::JoinHandle;

use thiserror::Error;
use tokio::sync::oneshot;

use super::{Folded, Store, StoreError, View};
use crate::journal::Record;

type Question = Box<dyn FnOnce(&Folded, &View) + Send>;

enum Job {
    Fold(Vec<Record>),
    Answer(Question),
}

/// The follower is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the state store's thread has ended")]
pub struct FollowerGone;

/// Asks the follower. Cheap to clone; the thread ends when the last clone and the journal's writer are gone.
#[derive(Clone)]
pub struct Follower {
    jobs: mpsc::Sender<Job>,
}

impl Follower {
    /// Starts the thread. `failed` hears, on that thread, of every batch that could not be stored.
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
            while let Ok(job) = work.recv() {
                match job {
                    Job::Fold(records) => {
                        if let Err(error) = store.follow(&records) {
                            failed(error);
                        }
                    }
                    Job::Answer(question) => question(store.folded(), &view),
                }
            }
        })?;
        Ok((Self { jobs }, thread))
    }

    /// What the journal's writer calls with each acknowledged batch.
    #[must_use]
    pub fn sink(&self) -> crate::journal::Follower {
        let jobs = self.jobs.clone();
        // After the thread's end the state is folded anew at the next start; the journal goes on.
        Box::new(move |records| drop(jobs.send(Job::Fold(records))))
    }

    /// Asks a question of the state as it is now. It is dropped when the thread has ended.
    pub fn tell(&self, question: impl FnOnce(&Folded, &View) + Send + 'static) {
        // Whoever waits for an answer hears of the end by it.
        drop(self.jobs.send(Job::Answer(Box::new(question))));
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
        self.jobs.send(job).map_err(|_| FollowerGone)?;
        answered.await.map_err(|_| FollowerGone)
    }
}
