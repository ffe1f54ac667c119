//! The asynchronous side of writing: hands appends to the writer thread and waits for its answer.
//!
//! Called by whoever appends, from any task. An answer of `Ok` means durable.

use std::path::PathBuf;
use std::sync::Arc;

use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use super::{MAX_PAYLOAD, Position};

/// Why an append was not acknowledged.
#[derive(Debug, Clone, Error)]
pub enum AppendError {
    /// The record is definitely not in the journal; a later append may succeed.
    #[error("record not written to {}: {source}", file.display())]
    NotWritten {
        /// The segment.
        file: PathBuf,
        /// The operating system's error.
        source: Arc<std::io::Error>,
    },
    /// The payload is longer than [`MAX_PAYLOAD`]; nothing was written.
    #[error("record of {len} bytes not written: the limit is {MAX_PAYLOAD}")]
    TooLong {
        /// Its length in bytes.
        len: usize,
    },
    /// Too many records wait already; nothing was written.
    #[error("record not written: the journal's queue is full")]
    QueueFull,
    /// Whether the record is in the journal is unknown, and so it is for every later one until a restart.
    #[error("the journal cannot be written until tellerd is restarted: {why}")]
    Poisoned {
        /// What happened first, with the file.
        why: Arc<str>,
    },
}

/// One caller's records, to be written as one contiguous run.
pub(super) enum Request {
    Append {
        records: Vec<(u8, Vec<u8>)>,
        done: oneshot::Sender<Result<Vec<Position>, AppendError>>,
    },
    Barrier {
        done: Reached,
    },
}

/// Called on the writer's thread, with the journal's end, once everything queued before a barrier is answered.
pub(super) type Reached = Box<dyn FnOnce(Result<Position, AppendError>) + Send>;

/// Appends to the journal. The writer ends when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Appender {
    pub(super) queue: mpsc::Sender<Request>,
}

impl Appender {
    /// Appends one record; returns once it is durable.
    ///
    /// Dropping the future does not take the record back once it is queued.
    pub async fn append(&self, version: u8, payload: Vec<u8>) -> Result<Position, AppendError> {
        let positions = self.append_all(vec![(version, payload)]).await?;
        positions.first().copied().ok_or_else(ended)
    }

    /// Appends records next to each other, in one sync; returns their positions once all are durable.
    ///
    /// A crash before the answer may keep some of the first ones.
    pub async fn append_all(&self, records: Vec<(u8, Vec<u8>)>) -> Result<Vec<Position>, AppendError> {
        if let Some((_, long)) = records.iter().find(|(_, payload)| payload.len() > MAX_PAYLOAD) {
            return Err(AppendError::TooLong { len: long.len() });
        }
        let (done, answer) = oneshot::channel();
        self.queue
            .send(Request::Append { records, done })
            .await
            .map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }

    /// Queues one record now, before it returns; the future tells once it is durable.
    ///
    /// What is queued or asked for after this call comes after the record, whoever polls what first. Dropping
    /// the future does not take the record back.
    pub fn submit(&self, version: u8, payload: Vec<u8>) -> impl Future<Output = Result<Position, AppendError>> + use<> {
        let queued = self.queue_now(version, payload);
        async move {
            let positions = queued?.await.map_err(|_| ended())??;
            positions.first().copied().ok_or_else(ended)
        }
    }

    fn queue_now(&self, version: u8, payload: Vec<u8>) -> Result<oneshot::Receiver<Answer>, AppendError> {
        if payload.len() > MAX_PAYLOAD {
            return Err(AppendError::TooLong { len: payload.len() });
        }
        let (done, answer) = oneshot::channel();
        let records = vec![(version, payload)];
        let queued = self.queue.try_send(Request::Append { records, done });
        queued.map(|()| answer).map_err(refused)
    }

    /// As [`Appender::barrier`], for everything queued before this call returns. `reached` is called on the writer's
    /// thread, so it must be quick and must not panic.
    ///
    /// # Errors
    /// When it will not be called.
    pub fn barrier_then(
        &self,
        reached: impl FnOnce(Result<Position, AppendError>) + Send + 'static,
    ) -> Result<(), AppendError> {
        let done = Box::new(reached);
        self.queue.try_send(Request::Barrier { done }).map_err(refused)
    }

    /// Waits until everything queued before is answered and the follower has seen it; returns the journal's end.
    pub async fn barrier(&self) -> Result<Position, AppendError> {
        let (sender, answer) = oneshot::channel();
        let done = Box::new(|reached| drop(sender.send(reached)));
        self.queue.send(Request::Barrier { done }).await.map_err(|_| ended())?;
        answer.await.map_err(|_| ended())?
    }
}

/// What the writer answers to an append.
type Answer = Result<Vec<Position>, AppendError>;

fn refused<T>(error: mpsc::error::TrySendError<T>) -> AppendError {
    match error {
        mpsc::error::TrySendError::Full(_) => AppendError::QueueFull,
        mpsc::error::TrySendError::Closed(_) => ended(),
    }
}

/// The thread is gone, which it is only after a panic in the follower or in the metrics callback.
fn ended() -> AppendError {
    AppendError::Poisoned {
        why: "its writer has ended".into(),
    }
}
