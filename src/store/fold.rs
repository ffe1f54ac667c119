//! The state that the records add up to: open items, the ATMs' notes, the fleet's totals.
//!
//! Pure. Finished cash-outs leave it, so its size follows what is open, not what has been.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::cashout::ledger::{Cassette, NoteLedger};
use crate::cashout::{self, CashOut, Event, Illegal, Phase};
use crate::clients::Book;
use crate::hardware::ClearedNotes;
use crate::ids::{AtmId, CashOutId, ClientName, NostrKey, PaymentHash};
use crate::invoice::{self, IllegalInvoiceEvent, Invoice, InvoiceEvent, InvoicePhase, Owner};
use crate::money::{Minor, Msat};
use crate::record::{AtmEvent, Body, Record};
use crate::time::UnixMs;

/// What is known of an ATM across restarts.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct AtmBook {
    /// Its notes.
    pub notes: NoteLedger,
    /// An operator has taken it out of service.
    pub drained: bool,
    /// Its dispenser's path was to be cleared, and what moved is not booked yet.
    #[serde(default)]
    pub clearing: bool,
    /// While it is: the notes of an earlier clearing that the dispenser remembered then.
    #[serde(default)]
    pub cleared_before: Option<Vec<ClearedNotes>>,
    /// Value of the notes that clearings pushed out of the machine: given away.
    #[serde(default)]
    pub cleared_out: Minor,
}

impl AtmBook {
    /// The books after `event`.
    pub fn apply(&mut self, event: &AtmEvent) {
        match event {
            AtmEvent::CassetteLoaded {
                position,
                denomination,
                notes,
                ..
            } => {
                self.notes.load(Cassette::loaded(*position, *denomination, *notes));
                // Whatever moved before, a human has counted now.
                self.clearing = false;
            }
            AtmEvent::Drained { .. } => self.drained = true,
            AtmEvent::Resumed { .. } => self.drained = false,
            AtmEvent::ClearBegun { before, .. } => {
                self.clearing = true;
                self.cleared_before.clone_from(before);
            }
            AtmEvent::Cleared { notes } => {
                let out = self.notes.cleared(notes);
                self.cleared_out = Minor(self.cleared_out.0.saturating_add(out.0));
                self.clearing = false;
            }
        }
    }
}

/// Sums over all finished cash-outs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Totals {
    /// Ended as completed.
    pub completed: u64,
    /// Ended as canceled.
    pub canceled: u64,
    /// Taken from customers.
    pub settled: Msat,
    /// Value of the notes that left.
    pub delivered: Minor,
    /// Given away, by policy or misfortune.
    pub losses: Minor,
    /// Claims that were paid out.
    pub claims_paid: Minor,
    /// How far the books of finished cash-outs are from balance.
    pub drift: u64,
}

/// The fold of the journal.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Folded {
    /// Cash-outs that have not ended; they come in and go out with `Folded::keep` and `let_go`.
    pub cashouts: BTreeMap<CashOutId, CashOut>,
    /// The same by machine: at a start each of thousands asks for its own.
    pub(super) at: BTreeMap<AtmId, BTreeSet<CashOutId>>,
    /// Invoices that have not ended.
    pub invoices: BTreeMap<PaymentHash, Invoice>,
    /// Every ATM that was ever heard of.
    pub atms: BTreeMap<AtmId, AtmBook>,
    /// Sums.
    pub totals: Totals,
    /// The Lightning node these invoices are at.
    pub node: Option<String>,
    /// Who was invited to the hold-invoice service.
    pub clients: Book,
    /// What each of its clients has and had.
    pub usage: BTreeMap<NostrKey, ClientUsage>,
}

/// What one client of the hold-invoice service has now, and had on its last day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ClientUsage {
    /// Invoices that are neither settled nor canceled.
    pub open: u32,
    /// Held by LND and neither settled nor canceled.
    pub held_sats: u64,
    /// Asked for by the invoices that are not at their end, or held by LND where that is more.
    pub pending_sats: u64,
    /// The day (UTC, since 1970) on which something was settled last.
    pub day: u64,
    /// Settled on that day.
    pub settled_sats: u64,
}

impl ClientUsage {
    /// Replaces what `before` adds by what `after` adds, which happened at `at`.
    fn turn(&mut self, before: Option<&Invoice>, after: &Invoice, at: UnixMs) {
        let adds = |invoice: &Invoice| match invoice.is_done() {
            true => (0, 0, 0),
            false => {
                let held = invoice.hold().map_or(0, |h| h.paid.sat_ceil());
                (1, held, invoice.spec.amount.sat_ceil().max(held))
            }
        };
        let (was, is) = (before.map_or((0, 0, 0), adds), adds(after));
        self.open = self.open.saturating_sub(was.0).saturating_add(is.0);
        self.held_sats = self.held_sats.saturating_sub(was.1).saturating_add(is.1);
        self.pending_sats = self.pending_sats.saturating_sub(was.2).saturating_add(is.2);
        // What became of its money later is no second settlement.
        let was_done = before.is_some_and(Invoice::is_done);
        if let InvoicePhase::Settled { paid, .. } = after.phase
            && !was_done
        {
            let day = day_of(at);
            let so_far = if day == self.day { self.settled_sats } else { 0 };
            self.day = day;
            self.settled_sats = so_far.saturating_add(paid.sat_ceil());
        }
    }

    /// Settled on the day of `now`, and everything that is not at its end.
    #[must_use]
    pub fn day_sats(&self, now: UnixMs) -> u64 {
        let settled = if self.day == day_of(now) { self.settled_sats } else { 0 };
        settled.saturating_add(self.pending_sats)
    }
}

fn day_of(at: UnixMs) -> u64 {
    at.0 / 86_400_000
}

/// What a record changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// A cash-out, open or just ended.
    CashOut(Box<CashOut>),
    /// An invoice, open or just ended.
    Invoice(Box<Invoice>),
    /// An ATM alone.
    Atm(AtmId),
    /// The node's identity.
    Node,
    /// A client of the hold-invoice service.
    Client(ClientName),
}

/// A record that does not follow from those before it.
#[derive(Debug, Error)]
pub enum FoldError {
    /// Of a cash-out.
    #[error("cash-out {id}: {source}")]
    CashOut {
        /// Which.
        id: CashOutId,
        /// Why.
        source: Illegal,
    },
    /// Of an invoice.
    #[error("invoice {hash}: {source}")]
    Invoice {
        /// Which.
        hash: PaymentHash,
        /// Why.
        source: IllegalInvoiceEvent,
    },
    /// An event of an item that was never begun, or has ended.
    #[error("{0} is not open, and this event does not begin it")]
    NotOpen(String),
}

impl Folded {
    /// Adds one record; `None` when it changes nothing.
    ///
    /// # Errors
    /// When the record does not follow from the state: the journal was not written by these machines.
    pub fn add(&mut self, record: &Record) -> Result<Option<Change>, FoldError> {
        match &record.body {
            Body::CashOut { id, event } => Ok(self.cashout(*id, event)?.map(|c| Change::CashOut(Box::new(c)))),
            Body::Invoice { hash, event } => {
                let invoice = self.invoice(*hash, event, record.at)?;
                Ok(invoice.map(|invoice| Change::Invoice(Box::new(invoice))))
            }
            Body::Atm { id, event } => {
                self.atms.entry(id.clone()).or_default().apply(event);
                Ok(Some(Change::Atm(id.clone())))
            }
            Body::Node { pubkey } => {
                self.node = Some(pubkey.clone());
                Ok(Some(Change::Node))
            }
            Body::Client { name, event } => {
                self.clients.apply(name, event);
                Ok(Some(Change::Client(name.clone())))
            }
            // For the record alone: what it did is in the records that follow.
            Body::Order { .. } => Ok(None),
        }
    }

    /// The first part in which another state differs from this one.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Option<&'static str> {
        let parts = [
            ("open cash-outs", self.cashouts == other.cashouts),
            ("open invoices", self.invoices == other.invoices),
            ("the machines' books", self.atms == other.atms),
            ("the totals", self.totals == other.totals),
            ("the node", self.node == other.node),
            ("the clients", self.clients == other.clients),
            ("what clients have", self.usage == other.usage),
        ];
        parts.iter().find(|(_, same)| !same).map(|(part, _)| *part)
    }

    /// The keys of clients with invoices that are not at their end, whatever the book says of them now: also a client whose
    /// money is on its way may still look.
    #[must_use]
    pub fn unfinished_clients(&self) -> BTreeSet<NostrKey> {
        let owners = self.invoices.values().map(|invoice| &invoice.spec.owner);
        let client = |owner: &Owner| match owner {
            Owner::Remote { client, .. } => Some(*client),
            Owner::Atm { .. } => None,
        };
        owners.filter_map(client).collect()
    }

    /// The open cash-outs of a machine, in the order of their ids.
    pub fn open_at(&self, atm: &AtmId) -> impl Iterator<Item = &CashOut> {
        let ids = self.at.get(atm).into_iter().flatten();
        ids.filter_map(|id| self.cashouts.get(id))
    }

    /// Takes in an open cash-out, or what became of it.
    pub(super) fn keep(&mut self, cashout: CashOut) {
        let atm = &cashout.quote.atm;
        match self.at.get_mut(atm) {
            Some(ids) => _ = ids.insert(cashout.id),
            None => _ = self.at.insert(atm.clone(), BTreeSet::from([cashout.id])),
        }
        self.cashouts.insert(cashout.id, cashout);
    }

    fn let_go(&mut self, ended: &CashOut) {
        let atm = &ended.quote.atm;
        if let Some(ids) = self.at.get_mut(atm) {
            ids.remove(&ended.id);
            if ids.is_empty() {
                self.at.remove(atm);
            }
        }
        self.cashouts.remove(&ended.id);
    }

    fn cashout(&mut self, id: CashOutId, event: &Event) -> Result<Option<CashOut>, FoldError> {
        let Some(before) = self.cashouts.get(&id) else {
            let Event::Quoted { quote } = event else {
                return Err(FoldError::NotOpen(format!("cash-out {id}")));
            };
            let begun = CashOut::quoted(id, (**quote).clone());
            self.keep(begun.clone());
            return Ok(Some(begun));
        };
        let after = cashout::apply(before, event).map_err(|source| FoldError::CashOut { id, source })?;
        let Some(after) = after else { return Ok(None) };
        let news = after.notes.get(before.notes.len()..).unwrap_or_default();
        if !news.is_empty() {
            self.atms.entry(after.quote.atm.clone()).or_default().notes.book(news);
        }
        if after.is_final() {
            self.totals.add(&after);
            self.let_go(&after);
        } else {
            self.keep(after.clone());
        }
        Ok(Some(after))
    }

    fn invoice(&mut self, hash: PaymentHash, event: &InvoiceEvent, at: UnixMs) -> Result<Option<Invoice>, FoldError> {
        let Some(before) = self.invoices.get(&hash) else {
            let InvoiceEvent::Requested { spec } = event else {
                return Err(FoldError::NotOpen(format!("invoice {hash}")));
            };
            let begun = Invoice::requested(spec.clone());
            count(&mut self.usage, None, &begun, at);
            self.invoices.insert(hash, begun.clone());
            return Ok(Some(begun));
        };
        let after = invoice::apply(before, event).map_err(|source| FoldError::Invoice { hash, source })?;
        let Some(after) = after else { return Ok(None) };
        count(&mut self.usage, Some(before), &after, at);
        if after.is_final() {
            self.invoices.remove(&hash);
        } else {
            self.invoices.insert(hash, after.clone());
        }
        Ok(Some(after))
    }
}

/// Books an invoice's change on its client, if it has one.
fn count(usage: &mut BTreeMap<NostrKey, ClientUsage>, before: Option<&Invoice>, after: &Invoice, at: UnixMs) {
    if let Owner::Remote { client, .. } = after.spec.owner {
        usage.entry(client).or_default().turn(before, after, at);
    }
}

impl Totals {
    fn add(&mut self, ended: &CashOut) {
        match ended.phase {
            Phase::Completed => self.completed = self.completed.saturating_add(1),
            _ => self.canceled = self.canceled.saturating_add(1),
        }
        let sum = |a: Minor, b: Minor| Minor(a.0.saturating_add(b.0));
        if ended.books.settled {
            self.settled = Msat(self.settled.0.saturating_add(ended.books.paid.0));
            self.claims_paid = sum(self.claims_paid, ended.books.claim);
        }
        self.delivered = sum(self.delivered, ended.books.delivered);
        self.losses = sum(self.losses, ended.books.loss);
        self.drift = self.drift.saturating_add(ended.drift());
    }
}
