//! The one writer: takes all waiting appends, writes once, syncs once, answers all (group commit).
//!
//! Runs on its own OS thread, started by `Journal::start`; holds the lock on the data directory until it ends.
//! A position is adopted only after the sync; until then the file may be cut back to the adopted length.

use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::appender::{AppendError, Reached, Request};
use super::file::{self, Active, WrapFile};
use super::{Position, Record, frame};

/// At most this many bytes are gathered into one batch before it is written; one request may exceed it alone.
const BATCH_BYTES: usize = 4 * 1024 * 1024;

/// At most this many barriers wait for one batch.
const BATCH_BARRIERS: usize = 4096;

/// Receives every acknowledged batch in order, on the writer's thread: must be quick and must not panic.
pub type Follower = Box<dyn FnMut(Vec<Record>) + Send>;

/// Receives the figures of every batch, on the writer's thread.
pub type OnBatch = Box<dyn FnMut(BatchStats) + Send>;

/// How long a disk takes, for a writer that is a task of a simulation.
pub type Pause = Box<dyn FnMut() -> Pin<Box<dyn Future<Output = ()>>>>;

/// One acknowledged batch, for the metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchStats {
    /// Records in it.
    pub records: usize,
    /// Their bytes in the file, frames included.
    pub bytes: usize,
    /// Time the write took.
    pub write: Duration,
    /// Time the sync took.
    pub sync: Duration,
}

/// What the writer owns.
pub(super) struct Writer {
    pub folder: PathBuf,
    pub active: Active,
    pub last: Position,
    pub segment_bytes: u64,
    pub wrap: WrapFile,
    pub follower: Follower,
    pub on_batch: OnBatch,
    pub poisoned: Option<Arc<str>>,
}

/// A caller waiting for its positions.
struct Waiting {
    done: oneshot::Sender<Result<Vec<Position>, AppendError>>,
    positions: Vec<Position>,
}

/// The appends that go into one write, and the barriers between them: those wait for all of it, because one that
/// ended the batch would cost a sync of its own.
#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    records: Vec<Record>,
    waiting: Vec<Waiting>,
    barriers: Vec<Reached>,
}

impl Batch {
    /// Adds one caller's records after `last`; all of them or, at a record that cannot be framed, none.
    fn add(
        &mut self,
        last: Position,
        records: Vec<(u8, Vec<u8>)>,
        done: oneshot::Sender<Result<Vec<Position>, AppendError>>,
    ) {
        let (bytes_before, records_before) = (self.bytes.len(), self.records.len());
        let mut at = self.records.last().map_or(last, Record::position);
        let mut positions = Vec::with_capacity(records.len());
        for (version, payload) in records {
            let Some(next) = frame::encode(at, version, &payload, &mut self.bytes) else {
                self.bytes.truncate(bytes_before);
                self.records.truncate(records_before);
                let _ = done.send(Err(AppendError::TooLong { len: payload.len() }));
                return;
            };
            at = next;
            positions.push(at);
            self.records.push(Record {
                seq: at.seq,
                hash: at.hash,
                version,
                payload,
            });
        }
        self.waiting.push(Waiting { done, positions });
    }
}

impl Writer {
    /// Serves the queue until every appender is gone.
    pub fn run(mut self, mut queue: mpsc::Receiver<Request>) {
        while let Some(first) = queue.blocking_recv() {
            let batch = self.gather(first, &mut queue);
            self.commit(batch);
        }
    }

    /// As [`Writer::run`], as a task; `before` is awaited before each batch is gathered.
    pub async fn serve(mut self, mut queue: mpsc::Receiver<Request>, mut before: Pause) {
        while let Some(first) = queue.recv().await {
            before().await;
            let batch = self.gather(first, &mut queue);
            self.commit(batch);
        }
    }

    /// All that waits, as far as it fits into one batch.
    fn gather(&self, first: Request, queue: &mut mpsc::Receiver<Request>) -> Batch {
        let mut batch = Batch::default();
        let mut next = Some(first);
        while let Some(request) = next {
            match request {
                Request::Append { records, done } => batch.add(self.last, records, done),
                Request::Barrier { done } => batch.barriers.push(done),
            }
            let has_room = batch.bytes.len() < BATCH_BYTES && batch.barriers.len() < BATCH_BARRIERS;
            next = has_room.then(|| queue.try_recv().ok()).flatten();
        }
        batch
    }

    fn commit(&mut self, batch: Batch) {
        let result = match self.poison() {
            Some(error) => Err(error),
            None if batch.records.is_empty() => Ok(None),
            None => self.write(&batch).map(Some),
        };
        match result {
            Ok(stats) => {
                for waiting in batch.waiting {
                    let _ = waiting.done.send(Ok(waiting.positions));
                }
                if let Some(stats) = stats {
                    (self.on_batch)(stats);
                    (self.follower)(batch.records);
                }
            }
            Err(error) => {
                for waiting in batch.waiting {
                    let _ = waiting.done.send(Err(error.clone()));
                }
            }
        }
        for reached in batch.barriers {
            reached(self.poison().map_or(Ok(self.last), Err));
        }
    }

    /// Writes and syncs the batch, then adopts its end.
    fn write(&mut self, batch: &Batch) -> Result<BatchStats, AppendError> {
        self.rotate_if_full()?;
        let begun = Instant::now();
        if let Err(source) = self.active.file.append(&batch.bytes) {
            return Err(self.take_back(source));
        }
        let written = Instant::now();
        if let Err(source) = self.active.file.sync() {
            // After a failed fsync the kernel may drop the pages and still show their bytes, so a second sync
            // proves nothing. The cut is an attempt to keep a restart from believing them; it may fail too.
            let _ = self.active.file.truncate(self.active.len);
            return Err(self.poison_with(format!("sync of {} failed: {source}", self.active.path.display())));
        }
        let sync = written.elapsed();
        self.active.len = self.active.len.saturating_add(batch.bytes.len() as u64);
        self.last = batch.records.last().map_or(self.last, Record::position);
        let (records, bytes) = (batch.records.len(), batch.bytes.len());
        Ok(BatchStats {
            records,
            bytes,
            write: written.duration_since(begun),
            sync,
        })
    }

    /// Cuts off what a failed write left, durably: a whole record among it must not come back after a crash.
    fn take_back(&mut self, source: std::io::Error) -> AppendError {
        let file = self.active.path.clone();
        let cut = self
            .active
            .file
            .truncate(self.active.len)
            .and_then(|()| self.active.file.sync());
        match cut {
            Ok(()) => AppendError::NotWritten {
                file,
                source: Arc::new(source),
            },
            Err(cut) => {
                let file = file.display();
                self.poison_with(format!(
                    "write to {file} failed: {source}; and cutting it back failed: {cut}"
                ))
            }
        }
    }

    fn rotate_if_full(&mut self) -> Result<(), AppendError> {
        if self.active.len < self.segment_bytes {
            return Ok(());
        }
        match file::create(&self.folder, self.last, &self.wrap) {
            Ok(active) => {
                self.active = active;
                Ok(())
            }
            Err(e) if e.left_behind => {
                let file = e.path.display();
                Err(self.poison_with(format!(
                    "creating {file} failed: {}; and it could not be removed",
                    e.source
                )))
            }
            Err(e) => Err(AppendError::NotWritten {
                file: e.path,
                source: Arc::new(e.source),
            }),
        }
    }

    fn poison(&self) -> Option<AppendError> {
        self.poisoned.clone().map(|why| AppendError::Poisoned { why })
    }

    fn poison_with(&mut self, why: String) -> AppendError {
        let why: Arc<str> = why.into();
        self.poisoned = Some(why.clone());
        AppendError::Poisoned { why }
    }
}
