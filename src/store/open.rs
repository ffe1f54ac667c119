//! Opening a data directory: lock, store, journal, and the store brought up to the journal's end.
//!
//! The order matters: nothing is touched before the lock is held, and the journal is the truth. A store
//! that is damaged, or whose state the journal's next records do not follow from, is set aside and folded
//! again from the first record; a journal that ends before the store, or tells another history, is refused.

use std::path::{Path, PathBuf};

use thiserror::Error;

use super::{Store, StoreError};
use crate::journal::{self, DirLock, Journal, OpenError, Position, Record};

/// Records folded in at once during replay.
const CHUNK: usize = 512;

/// A data directory that is ready to be written to.
pub struct Opened {
    /// The journal, not yet started.
    pub journal: Journal,
    /// The state at its end.
    pub store: Store,
    /// Where a store that could not be used was put.
    pub set_aside: Option<PathBuf>,
    /// Records that had to be folded in.
    pub replayed: u64,
}

/// Why a data directory can not be used.
#[derive(Debug, Error)]
pub enum StateError {
    /// The journal or its lock.
    #[error(transparent)]
    Journal(#[from] OpenError),
    /// The state store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// sled and the journal do not say the same.
    #[error("the state in {} differs from a fold of the journal: {what}; run `tellerd store rebuild`", dir.display())]
    Differs {
        /// The data directory.
        dir: PathBuf,
        /// What differs first.
        what: String,
    },
    /// Nothing to fold: most likely the wrong folder.
    #[error("{} holds no journal: give the data_dir of the configuration", .0.display())]
    NoJournal(PathBuf),
}

/// Opens `dir`, created if missing.
///
/// # Errors
/// When another process uses it, the journal is damaged or ends before the store, or the disk refuses.
pub fn open(dir: &Path) -> Result<Opened, StateError> {
    let lock = DirLock::take(dir)?;
    let (store, set_aside) = Store::open(dir)?;
    let known = store.position();
    match catch_up(&lock, store) {
        Err(StateError::Journal(OpenError::Replay { .. })) if known.is_some() => {
            let (store, set_aside) = Store::begin_anew(dir)?;
            catch_up(&lock, store).map(|opened| Opened { set_aside, ..opened })
        }
        opened => opened.map(|opened| Opened { set_aside, ..opened }),
    }
}

/// Sets the store aside and folds the whole journal again: `tellerd store rebuild`. The former store may be the only
/// witness of records that the journal has lost: then it stays.
///
/// # Errors
/// As [`open`]; also when `dir` holds no journal.
pub fn rebuild(dir: &Path) -> Result<Opened, StateError> {
    if !dir.join(journal::FOLDER).is_dir() {
        return Err(StateError::NoJournal(dir.to_owned()));
    }
    let lock = DirLock::take(dir)?;
    // One that can not be read witnesses nothing.
    let witnessed = match Store::open(dir) {
        Ok((store, Some(damaged))) => {
            let set_aside = Some(damaged);
            return catch_up(&lock, store).map(|opened| Opened { set_aside, ..opened });
        }
        Ok((store, None)) => store.witness(),
        Err(_) => None,
    };
    drop(Journal::open(&lock, witnessed, |_| Ok::<(), OpenError>(()))?);
    let (store, set_aside) = Store::begin_anew(dir)?;
    catch_up(&lock, store).map(|opened| Opened { set_aside, ..opened })
}

/// As [`open`], with the state in memory: all of the journal is read.
///
/// # Errors
/// As [`open`]'s.
pub fn open_in_memory(dir: &Path) -> Result<Opened, StateError> {
    let lock = DirLock::take(dir)?;
    catch_up(&lock, Store::in_memory(dir))
}

fn catch_up(lock: &DirLock, mut store: Store) -> Result<Opened, StateError> {
    if store.position().is_none()
        && let Some(witness) = store.witness()
    {
        // Of another release. The journal must have all that it has seen before it goes.
        drop(Journal::open(lock, Some(witness), |_| Ok::<(), OpenError>(()))?);
        store.clear()?;
    }
    let from: Option<Position> = store.position();
    let mut waiting: Vec<Record> = Vec::new();
    let mut replayed = 0_u64;
    let journal = Journal::open(lock, from, |record| {
        waiting.push(record);
        replayed = replayed.saturating_add(1);
        if waiting.len() < CHUNK {
            return Ok(());
        }
        store.follow(&std::mem::take(&mut waiting)).map(drop)
    })?;
    // The tail is part of the replay: an error in it means the same.
    let seq = journal.last().seq;
    store.follow(&waiting).map_err(|source| OpenError::Replay {
        seq,
        source: Box::new(source),
    })?;
    Ok(Opened {
        journal,
        store,
        set_aside: None,
        replayed,
    })
}
