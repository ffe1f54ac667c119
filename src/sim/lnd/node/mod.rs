//! The simulated LND's mind: invoices, HTLC sets, block height. Time is an input; no I/O, no async.
//!
//! Called by `super::engine`, which holds it under the one registry mutex, writes each change to the
//! log and tells subscribers. Must stay true: SETTLED and CANCELED are never left; a customer's money is
//! in exactly one of held, settled, refunded. Source: fact sheet on LND, sections 1, 3 and 4.

mod add;
mod channel;
mod error;
mod finality;
mod htlc;
pub mod record;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

pub use add::{AddHold, Terms};
pub use channel::Channel;
pub use error::Refusal;
pub use finality::{Finality, Resolution};

use crate::ids::{PaymentHash, Preimage};
use crate::time::UnixMs;
use record::{Cause, Entry, FailReason, HistoryEntry, HtlcState, InvoiceRecord, InvoiceState, PayOrder, Payment};

/// Settings of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeOptions {
    /// An ACCEPTED invoice is canceled when an HTLC of it expires within so many blocks. LND's
    /// `holdexpirydelta`: 18 from v0.21, 12 before.
    pub hold_expiry_delta: u32,
    /// HTLCs its channel holds at most.
    pub max_htlcs: u32,
    /// All money in its channel, in satoshi.
    pub capacity_sat: u64,
    /// What finally becomes of HTLCs is stored.
    pub final_resolutions: bool,
}

impl Default for NodeOptions {
    fn default() -> Self {
        Self {
            hold_expiry_delta: 18,
            max_htlcs: 483 * 32,
            // All the bitcoin there will ever be: no bound unless one is asked for.
            capacity_sat: 2_100_000_000_000_000,
            final_resolutions: true,
        }
    }
}

/// What a call changed, for the log and the subscribers.
#[derive(Debug, Default)]
pub struct Changes {
    invoices: BTreeSet<PaymentHash>,
    payments: BTreeSet<u64>,
    height: bool,
    announced: Vec<InvoiceRecord>,
    finals: Vec<(u64, Resolution)>,
}

/// The simulated node.
#[derive(Debug)]
pub struct Node {
    options: NodeOptions,
    /// The watchers of time and height run: the node is SERVER_ACTIVE.
    watching: bool,
    height: u32,
    invoices: BTreeMap<PaymentHash, InvoiceRecord>,
    payments: BTreeMap<u64, Payment>,
    /// When an invoice has to be looked at: its expiry, or the end of a partial HTLC. May be stale.
    timers: BTreeSet<(UnixMs, PaymentHash)>,
    /// The height from which an ACCEPTED invoice is canceled. May be stale.
    heights: BTreeSet<(u32, PaymentHash)>,
    /// Payments not yet sent.
    due: BTreeSet<(UnixMs, u64)>,
    flow: channel::Flow,
    /// Settled HTLCs that are not at their end, by their expiry height.
    unresolved: BTreeSet<(u32, u64, PaymentHash)>,
    /// What became of HTLCs, by their index.
    resolutions: BTreeMap<u64, Resolution>,
    /// The peer that the payments come from is there.
    peer_online: bool,
    add_index: u64,
    settle_index: u64,
    htlc_index: u64,
    seq: u64,
    changes: Changes,
}

impl Node {
    /// A node without history at `height`.
    #[must_use]
    pub fn new(options: NodeOptions, height: u32) -> Self {
        Self {
            options,
            watching: true,
            height,
            invoices: BTreeMap::new(),
            payments: BTreeMap::new(),
            timers: BTreeSet::new(),
            heights: BTreeSet::new(),
            due: BTreeSet::new(),
            flow: channel::Flow::default(),
            unresolved: BTreeSet::new(),
            resolutions: BTreeMap::new(),
            peer_online: true,
            add_index: 0,
            settle_index: 0,
            htlc_index: 0,
            seq: 0,
            changes: Changes::default(),
        }
    }

    /// Takes over a record read from the log; a later one replaces an earlier one.
    pub fn restore(&mut self, entry: Entry) {
        match entry {
            Entry::Height(height) => self.height = height,
            Entry::Invoice(record) => {
                self.invoices.insert(record.hash, *record);
            }
            Entry::Payment(payment) => {
                self.payments.insert(payment.id, payment);
            }
        }
    }

    /// Derives counters and timers after the last [`Node::restore`].
    pub fn restored(&mut self) {
        for record in self.invoices.values() {
            self.add_index = self.add_index.max(record.add_index);
            self.settle_index = self.settle_index.max(record.settle_index);
            for entry in &record.history {
                self.seq = self.seq.max(entry.seq);
            }
            for htlc in &record.htlcs {
                self.htlc_index = self.htlc_index.max(htlc.htlc_index);
            }
            match record.state {
                // Looking at once arms the timers of partial HTLCs too.
                InvoiceState::Open => _ = self.timers.insert((UnixMs(0), record.hash)),
                InvoiceState::Accepted => {
                    if let Some(height) = record.lowest_expiry_height() {
                        let from = height.saturating_sub(self.options.hold_expiry_delta);
                        self.heights.insert((from, record.hash));
                    }
                }
                InvoiceState::Settled | InvoiceState::Canceled => {}
            }
        }
        self.restore_flow();
        self.restore_finality();
        let waiting = self.payments.values().filter(|payment| payment.htlcs.is_empty());
        self.due = waiting
            .map(|payment| (payment.order.due_at_unix_ms, payment.id))
            .collect();
    }

    /// Everything, for compacting the log.
    pub fn entries(&self) -> impl Iterator<Item = Entry> {
        let invoices = self.invoices.values().cloned().map(Box::new).map(Entry::Invoice);
        let payments = self.payments.values().cloned().map(Entry::Payment);
        std::iter::once(Entry::Height(self.height))
            .chain(invoices)
            .chain(payments)
    }

    /// Best block height.
    #[must_use]
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Switches the watchers of time and height: off while LND is not fully started.
    pub fn set_watching(&mut self, watching: bool) {
        self.watching = watching;
    }

    /// All invoices.
    pub fn invoices(&self) -> impl Iterator<Item = &InvoiceRecord> {
        self.invoices.values()
    }

    /// All payments.
    pub fn payments(&self) -> impl Iterator<Item = &Payment> {
        self.payments.values()
    }

    /// One payment.
    #[must_use]
    pub fn payment(&self, id: u64) -> Option<&Payment> {
        self.payments.get(&id)
    }

    /// The invoice with this hash, if there is one.
    #[must_use]
    pub fn invoice(&self, hash: &PaymentHash) -> Option<&InvoiceRecord> {
        self.invoices.get(hash)
    }

    /// LookupInvoice.
    pub fn lookup(&self, hash: &[u8]) -> Result<&InvoiceRecord, Refusal> {
        let hash = match hash.len() {
            // LND takes nothing for a hash of zeros.
            0 => PaymentHash([0; 32]),
            other => hash_of(hash).map_err(|_| Refusal::LookupHashLength(other))?,
        };
        if self.invoices.is_empty() {
            return Err(Refusal::NoInvoices);
        }
        self.invoices.get(&hash).ok_or(Refusal::NotFound)
    }

    /// SettleInvoice. OK when it is settled already.
    pub fn settle(&mut self, preimage: &[u8], now: UnixMs) -> Result<(), Refusal> {
        let bytes: [u8; 32] = preimage
            .try_into()
            .map_err(|_| Refusal::PreimageLength(preimage.len()))?;
        let preimage = Preimage::from_bytes(bytes);
        let hash = preimage.hash();
        let record = self.invoices.get_mut(&hash).ok_or(Refusal::NotLocated)?;
        match record.state {
            InvoiceState::Open => return Err(Refusal::StillOpen),
            InvoiceState::Canceled => return Err(Refusal::AlreadyCanceled),
            InvoiceState::Settled => return Ok(()),
            InvoiceState::Accepted => {}
        }
        self.settle_index += 1;
        record.settle_index = self.settle_index;
        record.preimage = Some(preimage.clone());
        let resolved = record.resolve_htlcs(HtlcState::Settled, now, |_| true);
        self.enter(hash, InvoiceState::Settled, Cause::SettleCall, now);
        for htlc in resolved {
            self.settle_htlc(hash, &htlc, now);
        }
        Ok(())
    }

    /// CancelInvoice. OK when it is canceled already.
    pub fn cancel(&mut self, hash: &[u8], now: UnixMs) -> Result<(), Refusal> {
        let hash = hash_of(hash)?;
        match self.invoices.get(&hash).ok_or(Refusal::NotLocated)?.state {
            InvoiceState::Settled => Err(Refusal::AlreadySettled),
            InvoiceState::Canceled => Ok(()),
            InvoiceState::Open | InvoiceState::Accepted => {
                self.cancel_for(hash, Cause::CancelCall, FailReason::InvoiceCanceled, now);
                Ok(())
            }
        }
    }

    /// Orders a payment; it is sent by the next [`Node::tick`] at or after its time. Returns its id.
    pub fn pay(&mut self, order: PayOrder) -> u64 {
        let id = self.payments.last_key_value().map_or(1, |(last, _)| last + 1);
        self.due.insert((order.due_at_unix_ms, id));
        self.payments.insert(
            id,
            Payment {
                id,
                order,
                htlcs: Vec::new(),
                preimage: None,
            },
        );
        self.changes.payments.insert(id);
        id
    }

    /// One more block.
    pub fn mine(&mut self, now: UnixMs) {
        self.height = self.height.saturating_add(1);
        self.changes.height = true;
        self.tick(now);
        self.take_back(now);
    }

    /// Does what is due: ends partial HTLCs and OPEN invoices whose time is over, sends payments, then cancels
    /// ACCEPTED invoices that are too close to an HTLC's expiry. Nothing while the watchers are off.
    pub fn tick(&mut self, now: UnixMs) {
        if !self.watching {
            return;
        }
        self.finish_settled(now);
        while let Some((at, hash)) = self.timers.first().copied().filter(|(at, _)| *at <= now) {
            self.timers.remove(&(at, hash));
            self.check_time(hash, now);
        }
        while let Some((at, id)) = self.due.first().copied().filter(|(at, _)| *at <= now) {
            self.due.remove(&(at, id));
            self.send(id, now);
        }
        while let Some((from, hash)) = self.heights.first().copied().filter(|(from, _)| *from <= self.height) {
            self.heights.remove(&(from, hash));
            if self
                .invoices
                .get(&hash)
                .is_some_and(|record| record.state == InvoiceState::Accepted)
            {
                self.cancel_for(hash, Cause::BlockHeight, FailReason::HoldExpired, now);
            }
        }
    }

    /// The records changed since the last call, and each announced state of an invoice in order.
    pub fn take_changes(&mut self) -> (Vec<Entry>, Vec<InvoiceRecord>) {
        let changes = std::mem::take(&mut self.changes);
        let mut entries = Vec::new();
        if changes.height {
            entries.push(Entry::Height(self.height));
        }
        let invoices = changes.invoices.iter().filter_map(|hash| self.invoices.get(hash));
        entries.extend(invoices.cloned().map(Box::new).map(Entry::Invoice));
        let payments = changes.payments.iter().filter_map(|id| self.payments.get(id));
        entries.extend(payments.cloned().map(Entry::Payment));
        (entries, changes.announced)
    }

    /// Cancels and fails all held HTLCs back.
    fn cancel_for(&mut self, hash: PaymentHash, cause: Cause, reason: FailReason, now: UnixMs) {
        self.fail_htlcs(hash, reason, now, |_| true);
        self.enter(hash, InvoiceState::Canceled, cause, now);
    }

    /// Notes a new state in the history and announces it to subscribers.
    fn enter(&mut self, hash: PaymentHash, state: InvoiceState, cause: Cause, now: UnixMs) {
        let Some(record) = self.invoices.get_mut(&hash) else {
            return;
        };
        debug_assert!(!record.state.is_final(), "a final state is never left");
        self.seq += 1;
        record.state = state;
        record.history.push(HistoryEntry {
            seq: self.seq,
            at_unix_ms: now,
            state,
            cause,
        });
        self.changes.invoices.insert(hash);
        self.changes.announced.push(record.clone());
    }
}

fn hash_of(bytes: &[u8]) -> Result<PaymentHash, Refusal> {
    bytes
        .try_into()
        .map(PaymentHash)
        .map_err(|_| Refusal::HashLength(bytes.len()))
}
