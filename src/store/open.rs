//! Opening a data directory: lock, store, journal, and the store brought up to the journal's end.
//!
//! The order matters: nothing is touched before the lock is held, and the journal is the truth. A store
//! that is damaged, or whose state the journal's next records do not follow from, is set aside and folded
//! again from the first record; a journal that ends before the store, or tells another history, is refused.

use std::path::{Path, PathBuf};

use thiserror::Error;

use super::{Change, Folded, Store, StoreError};
use crate::journal::{self, DirLock, Journal, OpenError, Position, Reader, Record};

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

/// What [`verify`] compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// Records of the journal.
    pub records: u64,
    /// Of them, those that sled did not have yet.
    pub replayed: u64,
    /// Finished cash-outs and invoices that were looked up.
    pub finished: u64,
}

/// Compares the state that a start would find, sled's and the records after it, with a fold of the whole journal in memory:
/// `tellerd store verify`. Nothing is set aside, and sled stays where it is.
///
/// # Errors
/// As [`open`]'s; when the two differ; also when `dir` holds no journal.
pub fn verify(dir: &Path) -> Result<Verified, StateError> {
    if !dir.join(journal::FOLDER).is_dir() {
        return Err(StateError::NoJournal(dir.to_owned()));
    }
    let lock = DirLock::take(dir)?;
    let mut store = Store::load(&dir.join(super::FOLDER))?;
    if store.position().is_none() && store.witness().is_some() {
        let what = "the store is of another release of tellerd, and the next start folds it anew".to_owned();
        let dir = dir.to_owned();
        return Err(StateError::Differs { dir, what });
    }
    let mut replayed = 0_u64;
    drop(Journal::open(&lock, store.position(), |record| {
        replayed = replayed.saturating_add(1);
        store.fold(&[record]).map(drop)
    })?);
    let differs = |what: String| StateError::Differs {
        dir: dir.to_owned(),
        what,
    };
    let (view, mut fold, mut finished) = (store.view(), Folded::default(), 0_u64);
    let mut reader = Reader::open(dir).map_err(OpenError::from)?;
    for entry in reader.by_ref() {
        let entry = entry.map_err(OpenError::from)?;
        match fold_one(&mut fold, &entry)? {
            Some(Change::CashOut(ended)) if ended.is_final() => {
                finished = finished.saturating_add(1);
                if view.cashout(ended.id)?.as_ref() != Some(&*ended) {
                    return Err(differs(format!("cash-out {}", ended.id)));
                }
            }
            Some(Change::Invoice(ended)) if ended.is_final() => {
                finished = finished.saturating_add(1);
                if view.invoice(ended.spec.hash)?.as_ref() != Some(&*ended) {
                    return Err(differs(format!("invoice {}", ended.spec.hash)));
                }
            }
            _ => {}
        }
    }
    match store.folded().difference(&fold) {
        Some(what) => Err(differs(what.to_owned())),
        None => Ok(Verified {
            records: reader.reached().seq,
            replayed,
            finished,
        }),
    }
}

fn fold_one(fold: &mut Folded, entry: &Record) -> Result<Option<Change>, StoreError> {
    let seq = entry.seq;
    let record = crate::record::Record::decode(entry.version, &entry.payload);
    let record = record.map_err(|source| StoreError::Record { seq, source })?;
    fold.add(&record).map_err(|source| StoreError::Fold { seq, source })
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
