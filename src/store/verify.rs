//! `tellerd store verify`: the state that a start would find, sled's and the records after it, beside a fold of the whole journal.
//!
//! Called by the command line. What must stay true: nothing is set aside, made or emptied, and sled stays where it is; what was
//! not compared is not called the same.

use std::collections::BTreeSet;
use std::path::Path;

use super::{Change, Folded, StateError, Store, StoreError, View};
use crate::cashout::CashOut;
use crate::invoice::Invoice;
use crate::journal::{self, DirLock, Journal, OpenError, Reader};

/// What [`verify`] compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verified {
    /// Records of the journal.
    pub records: u64,
    /// Of them, those that sled did not have yet.
    pub replayed: u64,
    /// Finished cash-outs and invoices that were looked up.
    pub finished: u64,
    /// There was a state to compare; else the next start folds it from the journal, whose records fit together.
    pub stored: bool,
}

/// Compares the state that a start would find with a fold of the whole journal in memory.
///
/// # Errors
/// As [`super::open`]'s; when the two differ; also when `dir` holds no journal.
pub fn verify(dir: &Path) -> Result<Verified, StateError> {
    if !dir.join(journal::FOLDER).is_dir() {
        return Err(StateError::NoJournal(dir.to_owned()));
    }
    let lock = DirLock::take(dir)?;
    let kept = kept(dir)?;
    let stored = kept.is_some();
    let mut store = kept.unwrap_or_else(|| Store::in_memory(dir));
    let mut replayed = 0_u64;
    drop(Journal::open(&lock, store.position(), |record| {
        replayed = replayed.saturating_add(1);
        store.fold(&[record]).map(drop)
    })?);
    let (records, finished) = compare(dir, &store)?;
    Ok(Verified {
        records,
        replayed,
        finished,
        stored,
    })
}

/// The store that a start would go on with.
fn kept(dir: &Path) -> Result<Option<Store>, StateError> {
    let path = dir.join(super::FOLDER);
    // sled makes what it does not find.
    if !path.join("db").is_file() {
        return Ok(None);
    }
    let store = Store::read(&path)?;
    match (store.position(), store.witness()) {
        (Some(_), _) => Ok(Some(store)),
        (None, None) => Ok(None),
        (None, Some(_)) => {
            let what = "the store is of another release of tellerd, and the next start folds it anew".to_owned();
            Err(differs(dir, what))
        }
    }
}

fn differs(dir: &Path, what: String) -> StateError {
    StateError::Differs {
        dir: dir.to_owned(),
        what,
    }
}

/// How many records there are, and how many finished items were looked up.
fn compare(dir: &Path, store: &Store) -> Result<(u64, u64), StateError> {
    let (mut found, mut fold) = (Found::new(store.view())?, Folded::default());
    let mut reader = Reader::open(dir).map_err(OpenError::from)?;
    for entry in reader.by_ref() {
        let entry = entry.map_err(OpenError::from)?;
        let difference = match fold_one(&mut fold, &entry)? {
            Some(Change::CashOut(ended)) if ended.is_final() => found.cashout(&ended)?,
            Some(Change::Invoice(ended)) if ended.is_final() => found.invoice(&ended)?,
            _ => None,
        };
        if let Some(what) = difference {
            return Err(differs(dir, what));
        }
    }
    let open = store.folded().difference(&fold).map(str::to_owned);
    match open.or_else(|| found.rest(&fold)) {
        Some(what) => Err(differs(dir, what)),
        None => Ok((reader.reached().seq, found.finished)),
    }
}

fn fold_one(fold: &mut Folded, entry: &journal::Record) -> Result<Option<Change>, StoreError> {
    let seq = entry.seq;
    let record = crate::record::Record::decode(entry.version, &entry.payload);
    let record = record.map_err(|source| StoreError::Record { seq, source })?;
    fold.add(&record).map_err(|source| StoreError::Fold { seq, source })
}

/// What is looked for in the store. Each look tells what differs.
struct Found {
    view: View,
    /// The index's entries, `ATM/ID`, that were not looked for yet.
    index: BTreeSet<String>,
    finished: u64,
}

impl Found {
    fn new(view: View) -> Result<Self, StoreError> {
        let index = view.index()?;
        Ok(Self {
            view,
            index,
            finished: 0,
        })
    }

    fn cashout(&mut self, ended: &CashOut) -> Result<Option<String>, StoreError> {
        self.finished = self.finished.saturating_add(1);
        if self.view.cashout(ended.id)?.as_ref() != Some(ended) {
            return Ok(Some(format!("cash-out {}", ended.id)));
        }
        Ok(self.listed(ended))
    }

    fn invoice(&mut self, ended: &Invoice) -> Result<Option<String>, StoreError> {
        self.finished = self.finished.saturating_add(1);
        let same = self.view.invoice(ended.spec.hash)?.as_ref() == Some(ended);
        Ok((!same).then(|| format!("invoice {}", ended.spec.hash)))
    }

    fn listed(&mut self, cashout: &CashOut) -> Option<String> {
        let key = format!("{}/{}", cashout.quote.atm, cashout.id);
        let listed = self.index.remove(&key);
        (!listed).then(|| format!("the index lacks {key}"))
    }

    /// The open cash-outs' entries, and those of no cash-out.
    fn rest(&mut self, fold: &Folded) -> Option<String> {
        let missing = fold.cashouts.values().find_map(|open| self.listed(open));
        let more = || {
            self.index
                .first()
                .map(|key| format!("the index has {key}, and there is no such cash-out"))
        };
        missing.or_else(more)
    }
}
