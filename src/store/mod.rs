//! The state folded from the journal, kept in sled so that a start need not read all of history.
//!
//! Follows the journal: written after records are durable there, never before, with the journal
//! position it stands for in the same atomic batch, and a moment later, so that much is written as one. It is not the truth: when it is missing, behind
//! or damaged it is set aside and folded again. One writer ([`Store`]), any number of [`View`]s.
//!
//! Keys: `m` position and sums; `oc/ID`, `oi/HASH` open cash-outs and invoices, which a start reads side by side; `c/ID`, `i/HASH`
//! those that have ended; `a/ATM` notes; `ca/ATM/ID` cash-outs by ATM; `k/NAME` clients; `u/KEY` what a client has and had.

mod error;
pub mod fold;
mod follower;
mod open;
mod pending;
pub mod seen;
mod table;
mod verify;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::cashout::CashOut;
use crate::clients::Client;
use crate::ids::{AtmId, CashOutId, PaymentHash};
use crate::invoice::{Invoice, Owner};
use crate::journal::{self, Position};
use crate::record::Record;
pub use error::StoreError;
pub use follower::{Follower, FollowerGone};
pub use open::{Opened, StateError, open, open_in_memory, rebuild};
use pending::Pending;
pub use seen::{Seen, SeenError};
use table::Table;
pub use verify::{Verified, verify};

pub use fold::{AtmBook, Change, ClientUsage, FoldError, Folded, Totals};

/// Changes of the key or value layout; a store of another schema is folded again.
const SCHEMA: u32 = 4;

/// Name of sled's folder inside the data directory.
const FOLDER: &str = "state";

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Meta {
    schema: u32,
    position: Position,
    totals: Totals,
    node: Option<String>,
}

/// The writing side: one for each data directory.
#[derive(Debug)]
pub struct Store {
    view: View,
    folded: Folded,
    position: Option<Position>,
    /// See [`Store::witness`].
    witness: Option<Position>,
}

/// The reading side. Cheap to clone; reads block on the disk at worst, so not on an arbiter.
#[derive(Debug, Clone)]
pub struct View {
    db: Table,
    path: PathBuf,
    /// A write to sled failed. It is then left behind for good, to catch up at the next start: a later
    /// batch would claim a position whose changes it does not hold, and a reader would see the past.
    left_behind: Arc<AtomicBool>,
    /// What sled is to hold next.
    pending: Arc<Mutex<Pending>>,
}

impl Store {
    /// Opens `dir/state`; the caller holds the lock of `dir`. A store that sled can not open, or of another schema, is set aside as
    /// `state.damaged-N` and begun anew: [`Store::position`] is then `None` and the whole journal is due.
    ///
    /// # Errors
    /// When it can neither be opened nor set aside.
    pub fn open(dir: &Path) -> Result<(Self, Option<PathBuf>), StoreError> {
        let path = dir.join(FOLDER);
        match Self::load(&path) {
            Ok(store) => Ok((store, None)),
            Err(error) if error.is_not_damage() => Err(error),
            Err(_) => {
                let aside = set_aside(&path)?;
                Ok((Self::load(&path)?, Some(aside)))
            }
        }
    }

    /// Begins an empty store. A former one is kept as `state.damaged-N`, which is returned.
    ///
    /// # Errors
    /// When the former one can not be set aside or a new one not begun.
    pub fn begin_anew(dir: &Path) -> Result<(Self, Option<PathBuf>), StoreError> {
        let path = dir.join(FOLDER);
        let aside = path.exists().then(|| set_aside(&path)).transpose()?;
        Ok((Self::load(&path)?, aside))
    }

    /// An empty state in memory, for simulations; with a folder's name for its messages.
    #[must_use]
    pub fn in_memory(dir: &Path) -> Self {
        Self {
            view: View::of(Table::in_memory(), dir),
            folded: Folded::default(),
            position: None,
            witness: None,
        }
    }

    fn load(path: &Path) -> Result<Self, StoreError> {
        let mut store = Self::read(path)?;
        if store.witness.is_none() {
            // What is there without a position stands for nothing.
            store.clear()?;
        }
        Ok(store)
    }

    /// What is in `path`, as it is; empty when it has no position, or is of another schema.
    fn read(path: &Path) -> Result<Self, StoreError> {
        let sled = |source| StoreError::Sled {
            path: path.to_owned(),
            source,
        };
        let db = Table::open(path).map_err(sled)?;
        let view = View::of(db, path);
        let empty = |view, witness| Self {
            view,
            folded: Folded::default(),
            position: None,
            witness,
        };
        let Some(meta) = view.get::<Meta>("m")? else {
            return Ok(empty(view, None));
        };
        if meta.schema != SCHEMA {
            // It stays until the journal has shown all that it witnesses.
            return Ok(empty(view, Some(meta.position)));
        }
        let mut folded = Folded {
            totals: meta.totals,
            node: meta.node,
            ..Folded::default()
        };
        for (_, cashout) in view.entries::<CashOut>("oc/")? {
            folded.keep(cashout);
        }
        for (_, invoice) in view.entries::<Invoice>("oi/")? {
            folded.invoices.insert(invoice.spec.hash, invoice);
        }
        for (atm, book) in view.atms()? {
            folded.atms.insert(atm, book);
        }
        for (key, usage) in view.entries("u/")? {
            if let Ok(client) = key.parse() {
                folded.usage.insert(client, usage);
            }
        }
        for (key, client) in view.entries::<Client>("k/")? {
            if let Ok(name) = key.parse() {
                folded.clients.clients.insert(name, client);
            }
        }
        Ok(Self {
            view,
            folded,
            position: Some(meta.position),
            witness: Some(meta.position),
        })
    }

    /// Empties it, before the journal is folded in anew.
    fn clear(&mut self) -> Result<(), StoreError> {
        self.witness = None;
        self.view.db.clear().map_err(|source| self.view.sled(source))
    }

    /// Up to where it has seen the journal when it was opened, also one of another schema.
    #[must_use]
    pub fn witness(&self) -> Option<Position> {
        self.witness
    }

    /// Up to where the journal is folded in; `None` for a new store.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        self.position
    }

    /// The state.
    #[must_use]
    pub fn folded(&self) -> &Folded {
        &self.folded
    }

    /// For readers.
    #[must_use]
    pub fn view(&self) -> View {
        self.view.clone()
    }

    /// Folds in durable records, in order, and writes the outcome to sled.
    ///
    /// # Errors
    /// As [`Store::fold`] and [`Store::write`].
    pub fn follow(&mut self, records: &[journal::Record]) -> Result<Vec<Change>, StoreError> {
        let changes = self.fold(records)?;
        self.write()?;
        Ok(changes)
    }

    /// Folds in durable records, in order. Readers see the outcome at once, sled has it after [`Store::write`].
    ///
    /// # Errors
    /// When a record can not be read or folded. What sled will hold then stays the state before this call; the state
    /// in memory goes on where it can.
    pub fn fold(&mut self, records: &[journal::Record]) -> Result<Vec<Change>, StoreError> {
        let folded = self.fold_in(records);
        if folded.is_err() {
            self.view.left_behind.store(true, Ordering::Release);
        }
        folded
    }

    /// Writes what is folded in and not in sled yet.
    ///
    /// # Errors
    /// When sled can not write. The state on disk then stays as it is.
    pub fn write(&self) -> Result<(), StoreError> {
        self.view.catch_up()
    }

    /// How many keys [`Store::write`] would write.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.view.pending().len()
    }

    fn fold_in(&mut self, records: &[journal::Record]) -> Result<Vec<Change>, StoreError> {
        let mut news = Pending::default();
        let mut changes = Vec::new();
        for entry in records {
            let seq = entry.seq;
            let record =
                Record::decode(entry.version, &entry.payload).map_err(|source| StoreError::Record { seq, source })?;
            let change = self
                .folded
                .add(&record)
                .map_err(|source| StoreError::Fold { seq, source })?;
            self.position = Some(entry.position());
            if let Some(change) = change {
                self.note(&mut news, &change)?;
                changes.push(change);
            }
        }
        if let Some(position) = self.position {
            let Folded { totals, node, .. } = &self.folded;
            let meta = Meta {
                schema: SCHEMA,
                position,
                totals: *totals,
                node: node.clone(),
            };
            news.put("m".to_owned(), &meta)?;
        }
        if !self.view.left_behind.load(Ordering::Acquire) {
            self.view.pending().extend(news);
        }
        Ok(changes)
    }

    fn note(&self, news: &mut Pending, change: &Change) -> Result<(), StoreError> {
        match change {
            Change::CashOut(cashout) => {
                let (id, atm) = (cashout.id, &cashout.quote.atm);
                news.file(cashout.is_final(), format!("oc/{id}"), format!("c/{id}"), cashout)?;
                news.mark(format!("ca/{atm}/{id}"));
                if let Some(book) = self.folded.atms.get(atm) {
                    news.put(format!("a/{atm}"), book)?;
                }
            }
            Change::Invoice(invoice) => {
                let hash = invoice.spec.hash;
                news.file(invoice.is_final(), format!("oi/{hash}"), format!("i/{hash}"), invoice)?;
                if let Owner::Remote { client, .. } = &invoice.spec.owner
                    && let Some(usage) = self.folded.usage.get(client)
                {
                    news.put(format!("u/{client}"), usage)?;
                }
            }
            Change::Atm(atm) => {
                if let Some(book) = self.folded.atms.get(atm) {
                    news.put(format!("a/{atm}"), book)?;
                }
            }
            Change::Node => {}
            Change::Client(name) => {
                if let Some(client) = self.folded.clients.clients.get(name) {
                    news.put(format!("k/{name}"), client)?;
                }
            }
        }
        Ok(())
    }
}

impl View {
    fn of(db: Table, path: &Path) -> Self {
        Self {
            db,
            path: path.to_owned(),
            left_behind: Arc::default(),
            pending: Arc::default(),
        }
    }

    /// One cash-out, open or ended.
    ///
    /// # Errors
    /// When sled fails or the value can not be read.
    pub fn cashout(&self, id: CashOutId) -> Result<Option<CashOut>, StoreError> {
        self.open_or_ended(&format!("oc/{id}"), &format!("c/{id}"))
    }

    /// One invoice, open or ended.
    ///
    /// # Errors
    /// When sled fails or the value can not be read.
    pub fn invoice(&self, hash: PaymentHash) -> Result<Option<Invoice>, StoreError> {
        self.open_or_ended(&format!("oi/{hash}"), &format!("i/{hash}"))
    }

    /// At most `limit` cash-outs, the newest first, of one ATM or of all, older than `before`.
    ///
    /// # Errors
    /// When sled fails or a value can not be read.
    pub fn cashouts(
        &self,
        atm: Option<&AtmId>,
        before: Option<CashOutId>,
        limit: usize,
    ) -> Result<Vec<CashOut>, StoreError> {
        self.catch_up()?;
        let prefixes = match atm {
            Some(atm) => vec![format!("ca/{atm}/")],
            None => vec!["oc/".to_owned(), "c/".to_owned()],
        };
        let mut ids = Vec::new();
        for prefix in prefixes {
            let end = before.map_or_else(|| format!("{prefix}~"), |id| format!("{prefix}{id}"));
            let last = self.db.last_keys(&prefix, &end, limit);
            ids.extend(last.map_err(|source| self.sled(source))?);
        }
        ids.sort_unstable_by(|a, b| b.cmp(a));
        let mut found = Vec::new();
        for id in ids.iter().take(limit) {
            found.extend(self.open_or_ended(&format!("oc/{id}"), &format!("c/{id}"))?);
        }
        Ok(found)
    }

    /// Every ATM that was ever heard of.
    ///
    /// # Errors
    /// When sled fails or a value can not be read.
    pub fn atms(&self) -> Result<Vec<(AtmId, AtmBook)>, StoreError> {
        let books = self.entries("a/")?.into_iter();
        Ok(books
            .filter_map(|(key, book)| Some((key.parse().ok()?, book)))
            .collect())
    }

    /// In this order: what ends in between is found where it has gone.
    fn open_or_ended<T: DeserializeOwned>(&self, open: &str, ended: &str) -> Result<Option<T>, StoreError> {
        match self.get(open)? {
            Some(value) => Ok(Some(value)),
            None => self.get(ended),
        }
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Brings sled up to what is folded in: before its keys are listed, too.
    fn catch_up(&self) -> Result<(), StoreError> {
        if self.left_behind.load(Ordering::Acquire) {
            return Ok(());
        }
        let Some(batch) = self.pending().take() else {
            return Ok(());
        };
        self.db.apply(batch).map_err(|source| {
            self.left_behind.store(true, Ordering::Release);
            self.sled(source)
        })
    }

    /// The entries of the index by ATM, `ATM/ID`, with those that sled does not have yet; nothing is written.
    fn index(&self) -> Result<BTreeSet<String>, StoreError> {
        let stored = self.db.last_keys("ca/", "ca/~", usize::MAX);
        let mut index: BTreeSet<String> = stored.map_err(|source| self.sled(source))?.into_iter().collect();
        index.extend(self.pending().marked("ca/"));
        Ok(index)
    }

    /// What follows `prefix` in all keys that begin with it, and their values.
    fn entries<T: DeserializeOwned>(&self, prefix: &str) -> Result<Vec<(String, T)>, StoreError> {
        self.catch_up()?;
        if self.left_behind.load(Ordering::Acquire) {
            return Err(StoreError::LeftBehind);
        }
        let entries = self.db.entries(prefix).map_err(|source| self.sled(source))?;
        let read = |(key, bytes): (String, Vec<u8>)| match serde_json::from_slice(&bytes) {
            Ok(value) => Ok((key, value)),
            Err(source) => Err(StoreError::Value {
                key: format!("{prefix}{key}"),
                source,
            }),
        };
        entries.into_iter().map(read).collect()
    }

    fn get<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, StoreError> {
        if self.left_behind.load(Ordering::Acquire) {
            return Err(StoreError::LeftBehind);
        }
        let read = |bytes: &[u8]| {
            let value = serde_json::from_slice(bytes);
            value.map(Some).map_err(|source| StoreError::Value {
                key: key.to_owned(),
                source,
            })
        };
        if let Some(news) = self.pending().get(key) {
            return news.map_or(Ok(None), read);
        }
        let bytes = self.db.get(key).map_err(|source| self.sled(source))?;
        bytes.map_or(Ok(None), |bytes| read(&bytes))
    }

    fn sled(&self, source: sled::Error) -> StoreError {
        StoreError::Sled {
            path: self.path.clone(),
            source,
        }
    }
}

fn set_aside(path: &Path) -> Result<PathBuf, StoreError> {
    let free = (1_u32..)
        .map(|n| path.with_extension(format!("damaged-{n}")))
        .find(|aside| !aside.exists());
    let aside = free.unwrap_or_else(|| path.with_extension("damaged"));
    std::fs::rename(path, &aside).map_err(|source| StoreError::SetAside {
        path: path.to_owned(),
        source,
    })?;
    Ok(aside)
}

#[cfg(test)]
pub(crate) mod tests;
