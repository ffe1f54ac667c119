//! The state folded from the journal, kept in sled so that a start need not read all of history.
//!
//! Follows the journal: written after records are durable there, never before, with the journal
//! position it stands for in the same atomic batch, and a moment later, so that much is written as one. It is not the truth: when it is missing, behind
//! or damaged it is set aside and folded again. One writer ([`Store`]), any number of [`View`]s.
//!
//! Keys: `m` position and sums; `c/ID` cash-outs; `i/HASH` invoices; `oc/ID`, `oi/HASH` the open ones
//! among them; `a/ATM` notes; `ca/ATM/ID` cash-outs by ATM; `k/NAME` clients; `u/KEY` what a client has and had.

pub mod fold;
mod follower;
mod open;
mod pending;
pub mod seen;
mod table;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::cashout::CashOut;
use crate::clients::Client;
use crate::ids::{AtmId, CashOutId, PaymentHash};
use crate::invoice::{Invoice, Owner};
use crate::journal::{self, Position};
use crate::record::{BadRecord, Record};
pub use follower::{Follower, FollowerGone};
pub use open::{Opened, StateError, Verified, open, open_in_memory, rebuild, verify};
use pending::Pending;
pub use seen::{Seen, SeenError};
use table::Table;

pub use fold::{AtmBook, Change, ClientUsage, FoldError, Folded, Totals};

/// Changes of the key or value layout; a store of another schema is folded again.
const SCHEMA: u32 = 3;

/// Name of sled's folder inside the data directory.
const FOLDER: &str = "state";

#[derive(Debug, Clone, Serialize, Deserialize)]
struct Meta {
    schema: u32,
    position: Position,
    totals: Totals,
    node: Option<String>,
}

/// Why the store can not be used.
#[derive(Debug, Error)]
pub enum StoreError {
    /// sled refuses.
    #[error("the state store {path} can not be used: {source}; run `tellerd store rebuild`")]
    Sled {
        /// Its folder.
        path: PathBuf,
        /// sled's words.
        source: sled::Error,
    },
    /// A value is not what was written.
    #[error("the state store holds a value that can not be read, key {key}: {source}; run `tellerd store rebuild`")]
    Value {
        /// The key.
        key: String,
        /// Why.
        source: serde_json::Error,
    },
    /// The folder can not be moved.
    #[error("the state store {path} can not be set aside: {source}")]
    SetAside {
        /// Its folder.
        path: PathBuf,
        /// The system's words.
        source: std::io::Error,
    },
    /// A write to sled failed earlier: what it holds is old, and not to be taken for the state.
    #[error("the state store is behind the journal since a write to it failed: start tellerd again")]
    LeftBehind,
    /// A journal record that can not be read.
    #[error("journal record {seq}: {source}")]
    Record {
        /// Its sequence number.
        seq: u64,
        /// Why.
        source: BadRecord,
    },
    /// A journal record that does not follow from those before it.
    #[error("journal record {seq} does not follow from those before it: {source}")]
    Fold {
        /// Its sequence number.
        seq: u64,
        /// Why.
        source: FoldError,
    },
}

impl StoreError {
    /// The disk or the rights to it are the trouble: another folder would fare no better.
    fn is_not_damage(&self) -> bool {
        use std::io::ErrorKind as K;
        let Self::Sled {
            source: sled::Error::Io(io),
            ..
        } = self
        else {
            return false;
        };
        matches!(
            io.kind(),
            K::PermissionDenied | K::StorageFull | K::ReadOnlyFilesystem | K::WouldBlock
        )
    }
}

/// The writing side: one for each data directory.
#[derive(Debug)]
pub struct Store {
    view: View,
    folded: Folded,
    position: Option<Position>,
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
        }
    }

    fn load(path: &Path) -> Result<Self, StoreError> {
        let sled = |source| StoreError::Sled {
            path: path.to_owned(),
            source,
        };
        let db = Table::open(path).map_err(sled)?;
        let view = View::of(db, path);
        let Some(meta) = view.get::<Meta>("m")?.filter(|m| m.schema == SCHEMA) else {
            view.db.clear().map_err(sled)?;
            return Ok(Self {
                view,
                folded: Folded::default(),
                position: None,
            });
        };
        let mut folded = Folded {
            totals: meta.totals,
            node: meta.node,
            ..Folded::default()
        };
        for key in view.keys("oc/")? {
            if let Some(cashout) = view.get::<CashOut>(&format!("c/{key}"))? {
                folded.cashouts.insert(cashout.id, cashout);
            }
        }
        for key in view.keys("oi/")? {
            if let Some(invoice) = view.get::<Invoice>(&format!("i/{key}"))? {
                folded.invoices.insert(invoice.spec.hash, invoice);
            }
        }
        for (atm, book) in view.atms()? {
            folded.atms.insert(atm, book);
        }
        for key in view.keys("u/")? {
            if let (Ok(client), Some(usage)) = (key.parse(), view.get(&format!("u/{key}"))?) {
                folded.usage.insert(client, usage);
            }
        }
        for key in view.keys("k/")? {
            if let (Ok(name), Some(client)) = (key.parse(), view.get::<Client>(&format!("k/{key}"))?) {
                folded.clients.clients.insert(name, client);
            }
        }
        Ok(Self {
            view,
            folded,
            position: Some(meta.position),
        })
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
                news.put(format!("c/{id}"), cashout)?;
                news.mark(format!("ca/{atm}/{id}"), true);
                news.mark(format!("oc/{id}"), !cashout.is_final());
                if let Some(book) = self.folded.atms.get(atm) {
                    news.put(format!("a/{atm}"), book)?;
                }
            }
            Change::Invoice(invoice) => {
                let hash = invoice.spec.hash;
                news.put(format!("i/{hash}"), invoice)?;
                news.mark(format!("oi/{hash}"), !invoice.is_final());
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
        self.get(&format!("c/{id}"))
    }

    /// One invoice, open or ended.
    ///
    /// # Errors
    /// When sled fails or the value can not be read.
    pub fn invoice(&self, hash: PaymentHash) -> Result<Option<Invoice>, StoreError> {
        self.get(&format!("i/{hash}"))
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
        let prefix = atm.map_or_else(|| "c/".to_owned(), |atm| format!("ca/{atm}/"));
        let end = before.map_or_else(|| format!("{prefix}~"), |id| format!("{prefix}{id}"));
        let mut found = Vec::new();
        let ids = self.db.last_keys(&prefix, &end, limit);
        for id in ids.map_err(|source| self.sled(source))? {
            found.extend(self.get::<CashOut>(&format!("c/{id}"))?);
        }
        Ok(found)
    }

    /// Every ATM that was ever heard of.
    ///
    /// # Errors
    /// When sled fails or a value can not be read.
    pub fn atms(&self) -> Result<Vec<(AtmId, AtmBook)>, StoreError> {
        let mut found = Vec::new();
        for key in self.keys("a/")? {
            if let (Ok(atm), Some(book)) = (key.parse(), self.get(&format!("a/{key}"))?) {
                found.push((atm, book));
            }
        }
        Ok(found)
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

    fn keys(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        self.catch_up()?;
        self.db.keys(prefix).map_err(|source| self.sled(source))
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
