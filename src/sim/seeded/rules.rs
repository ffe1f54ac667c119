//! The rules of DESIGN.md section 1, checked at each step against what is durable and what physically happened.
//!
//! Called by the doubles, through the scene. What must stay true: the durable side is folded from the bytes that this simulation saw
//! synced (by the daemon's own fold), the physical side comes from the machines' own ledgers and from the node; the daemon is not
//! asked, and what it says is no excuse.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::cashout::{self, CashOut, Event, Phase};
use crate::hardware::Outcome;
use crate::hardware::puloon::emulator::What;
use crate::ids::{AtmId, CashOutId, PaymentHash};
use crate::invoice::{self, Invoice, InvoiceEvent, InvoicePhase};
use crate::money::{Funds, Minor};
use crate::record::{Body, Record};
use crate::sim::fleet::setup::DENOMINATIONS;
use crate::sim::lnd::node::record::{Cause, HistoryEntry, HtlcState, InvoiceState};
use crate::store::{Change, Folded};
use crate::time::UnixMs;

use super::decisions::Decisions;
use super::scene::NodeSide;

/// What is due is done within this time, when nothing is in the way.
const LATEST: Duration = Duration::from_secs(60);
/// A hold is settled or canceled within this time, when nothing is in the way.
const ENDS: Duration = Duration::from_secs(180);
/// Commands that move notes without an order, and overwrite the last result: purge and reset.
const OVERWRITES: [u8; 2] = [0x51, 0x44];
/// For so long after it was read at LND a hold is acted upon, and the command may take on its way.
const CHECK_AGE_MS: u64 = 12_000;

/// A broken rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    /// Its name.
    pub rule: &'static str,
    /// What was found.
    pub found: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.found)
    }
}

/// Shorthand.
pub fn broken<T>(rule: &'static str, found: String) -> Result<T, Broken> {
    Err(Broken { rule, found })
}

/// One cash-out's notes.
#[derive(Debug, Clone, Default)]
struct Notes {
    commanded: u32,
    out: Minor,
}

/// What is durable, and what left the machines.
#[derive(Debug, Default)]
pub struct Books {
    /// The fold of every record that was synced.
    pub durable: Folded,
    /// How many these are.
    pub records: u64,
    /// Written and not synced: a crash keeps a part of them from the first on, or none.
    pub unsynced: Vec<Record>,
    cashouts: BTreeMap<PaymentHash, CashOut>,
    invoices: BTreeMap<PaymentHash, Invoice>,
    notes: BTreeMap<PaymentHash, Notes>,
    /// When an invoice was last read at LND.
    pub read: BTreeMap<PaymentHash, UnixMs>,
    /// Since when a hold is to be settled or canceled.
    ending: BTreeMap<CashOutId, UnixMs>,
    /// What was decided without anything that told.
    pub decisions: Decisions,
    /// Whose dispense a machine is at.
    serves: BTreeMap<AtmId, PaymentHash>,
    /// Dispenses whose hold LND gave up between the check and the command, and whose they were.
    pub excused: Vec<(AtmId, UnixMs, PaymentHash)>,
}

impl Books {
    /// A record is durable.
    ///
    /// # Errors
    /// When it does not follow from those before it, says what is not so, or its books do not balance.
    pub fn synced(&mut self, record: &Record, now: UnixMs, side: &NodeSide) -> Result<(), Broken> {
        self.records += 1;
        let before = match &record.body {
            Body::CashOut { id, .. } => self.durable.cashouts.get(id).cloned(),
            _ => None,
        };
        let change = self.durable.add(record);
        let change = change.or_else(|error| broken("illegal_record", error.to_string()))?;
        match change {
            Some(Change::CashOut(cashout)) => {
                if let Body::CashOut { event, .. } = &record.body {
                    self.decisions.made(before.as_ref(), &cashout, event, now, side)?;
                    self.reported(&cashout, event)?;
                }
                match cashout.phase {
                    Phase::Settling | Phase::Canceling { .. } => drop(self.ending.entry(cashout.id).or_insert(now)),
                    _ => drop(self.ending.remove(&cashout.id)),
                }
                if cashout.drift() != 0 {
                    return broken("conservation", format!("{} drifts by {}", cashout.id, cashout.drift()));
                }
                if let Some(book) = self.durable.atms.get(&cashout.quote.atm)
                    && book.notes.drift() != 0
                {
                    return broken("conservation", format!("notes of {} drift", cashout.quote.atm));
                }
                self.cashouts.insert(cashout.quote.hash, *cashout);
            }
            Some(Change::Invoice(invoice)) => drop(self.invoices.insert(invoice.spec.hash, *invoice)),
            _ => {}
        }
        Ok(())
    }

    /// What is said to be out is out.
    fn reported(&self, cashout: &CashOut, event: &Event) -> Result<(), Broken> {
        let (Event::DispenseReported { report, .. } | Event::EvidenceFound { report, .. }) = event else {
            return Ok(());
        };
        let values = report
            .cassettes
            .iter()
            .filter_map(|c| c.denomination.times(c.delivered));
        let said: Minor = values.sum();
        let out = self.out(&cashout.quote.hash);
        let untrue = match report.outcome {
            Outcome::Unknown { .. } => said > out,
            _ => said != out,
        };
        match untrue {
            true => broken(
                "untrue_report",
                format!("{}: {said} is said to be out, {out} is", cashout.id),
            ),
            false => Ok(()),
        }
    }

    fn out(&self, hash: &PaymentHash) -> Minor {
        self.notes.get(hash).map_or(Minor::ZERO, |notes| notes.out)
    }

    /// The daemon says how an invoice ended at LND.
    ///
    /// # Errors
    /// When it did not.
    pub fn told(&self, record: &Record, side: &NodeSide) -> Result<(), Broken> {
        let Body::Invoice { hash, event } = &record.body else {
            return Ok(());
        };
        let state = side.node.invoice(hash).map(|invoice| invoice.state);
        // One whose text nobody was told may come into being late, and nobody can pay it.
        let shown = self.invoices.get(hash).is_some_and(|i| i.payment_request.is_some());
        let untrue = match event {
            InvoiceEvent::CanceledAtLnd => match state {
                Some(InvoiceState::Open) => shown,
                state => !matches!(state, None | Some(InvoiceState::Canceled)),
            },
            InvoiceEvent::SettledAtLnd { .. } => state != Some(InvoiceState::Settled),
            InvoiceEvent::FundsSeen {
                funds: Funds::Final, ..
            } => !has_come(side, hash),
            _ => false,
        };
        match untrue {
            true => broken(
                "untrue_end",
                format!("{hash} is {state:?}, written down is {}", event.name()),
            ),
            false => Ok(()),
        }
    }

    /// Nothing has been in the way of the daemon since `quiet`, and neither of its calls at LND since `heard`.
    ///
    /// # Errors
    /// When a deadline has passed, and nothing came of it; when a hold waits for its end.
    pub fn in_time(&self, quiet: UnixMs, heard: UnixMs, now: UnixMs) -> Result<(), Broken> {
        let waits = |(_, since): &(&CashOutId, &UnixMs)| (**since).max(quiet).max(heard).plus(ENDS) < now;
        if let Some((id, since)) = self.ending.iter().find(waits) {
            return broken(
                "end_late",
                format!("{id} is to be settled or canceled since {}", since.0),
            );
        }
        let missed = |due: Option<UnixMs>| due.is_some_and(|due| due.max(quiet).plus(LATEST) < now);
        let cashouts = self.durable.cashouts.values();
        let cashouts = cashouts.filter(|cashout| missed(cashout::deadline(cashout)));
        let cashouts = cashouts.map(|cashout| format!("{} is {}", cashout.id, cashout.phase.name()));
        let invoices = self.durable.invoices.values();
        let invoices = invoices.filter(|invoice| missed(invoice::deadline(invoice)));
        let mut invoices = invoices.map(|invoice| format!("{} is {}", invoice.spec.hash, invoice.phase.name()));
        match cashouts.chain(&mut invoices).next() {
            Some(found) => broken("deadline_missed", found),
            None => Ok(()),
        }
    }

    /// The daemon has read its journal again, and holds `state`.
    ///
    /// # Errors
    /// When that is not what was durable, with some of what was written and not yet synced.
    pub fn read_again(&mut self, state: &Folded, records: u64, now: UnixMs, side: &NodeSide) -> Result<(), Broken> {
        self.decisions.born = now;
        let unsynced = std::mem::take(&mut self.unsynced);
        let mut kept = unsynced.iter();
        while self.records < records {
            match kept.next() {
                Some(record) => self.synced(record, now, side)?,
                None => return broken("invented", format!("{records} records, {} were written", self.records)),
            }
        }
        if self.records > records {
            let found = format!("{} records were durable, {records} are read", self.records);
            return broken("lost", found);
        }
        match *state == self.durable {
            true => Ok(()),
            false => broken("other_state", "the state read is not what was durable".to_owned()),
        }
    }

    fn cashout(&self, hash: &PaymentHash, what: &'static str) -> Result<&CashOut, Broken> {
        let known = self.cashouts.get(hash);
        known.ok_or_else(|| Broken {
            rule: "act_before_write",
            found: format!("{what} of {hash}, of which nothing is durable"),
        })
    }

    /// `AddHoldInvoice` takes effect.
    ///
    /// # Errors
    /// When the promise or the intent is not durable.
    pub fn adds(&self, hash: &PaymentHash) -> Result<(), Broken> {
        self.cashout(hash, "an invoice is added")?;
        match self.invoices.contains_key(hash) {
            true => Ok(()),
            false => broken(
                "act_before_write",
                format!("{hash} is added, and its intent is not durable"),
            ),
        }
    }

    /// `SettleInvoice` takes the money of a hold.
    ///
    /// # Errors
    /// When nothing durable says that notes are out.
    pub fn settles(&self, hash: &PaymentHash) -> Result<(), Broken> {
        let cashout = self.cashout(hash, "a hold is settled")?;
        let (id, phase) = (cashout.id, &cashout.phase);
        let settles = matches!(
            phase,
            Phase::Settling | Phase::Completed | Phase::ClaimOwed | Phase::NeedsOperator { .. }
        );
        if !settles {
            return broken(
                "settle_before_report",
                format!("{id} is {} and is settled", phase.name()),
            );
        }
        let decided = self.decisions.by_policy.contains(&id);
        if cashout.books.delivered == Minor::ZERO || (self.out(hash) == Minor::ZERO && !decided) {
            return broken("settle_at_zero", format!("{id} is settled with no note delivered"));
        }
        Ok(())
    }

    /// `CancelInvoice` gives the money of a hold back.
    ///
    /// # Errors
    /// When notes are out and no policy booked them, or nothing durable says that it ends so.
    pub fn cancels(&self, hash: &PaymentHash) -> Result<(), Broken> {
        let cashout = self.cashout(hash, "a hold is canceled")?;
        let (id, phase) = (cashout.id, &cashout.phase);
        // The invoice has a deadline of its own, as long as no dispense was committed.
        let by_itself = matches!(
            self.invoices.get(hash).map(|invoice| &invoice.phase),
            Some(InvoicePhase::Canceling(_) | InvoicePhase::Canceled(_))
        ) && matches!(phase, Phase::Quoted | Phase::AwaitingPayment | Phase::Held { .. });
        if !matches!(phase, Phase::Canceling { .. } | Phase::Canceled { .. }) && !by_itself {
            return broken(
                "cancel_before_decision",
                format!("{id} is {} and is canceled", phase.name()),
            );
        }
        let out = self.out(hash);
        if out > Minor::ZERO && cashout.books.loss != out && !self.decisions.by_policy.contains(&id) {
            let found = format!(
                "{id}: {out} left the machine, {} is booked as a loss",
                cashout.books.loss
            );
            return broken("cancel_after_cash", found);
        }
        Ok(())
    }

    /// Something happened in a machine.
    ///
    /// # Errors
    /// When notes are commanded without a durable order, more often than ordered, or without a hold.
    pub fn machine(&mut self, atm: &AtmId, what: &What, now: UnixMs, side: &NodeSide) -> Result<(), Broken> {
        match what {
            What::DispenseStarted { .. } => self.dispenses(atm, now, side),
            What::CommandReceived { command } => {
                self.decisions.command(atm, *command, now);
                match OVERWRITES.contains(command) {
                    true => self.overwrites(atm),
                    false => Ok(()),
                }
            }
            What::NoteDelivered { position, .. } => {
                let value = usize::from(*position)
                    .checked_sub(1)
                    .and_then(|index| DENOMINATIONS.get(index));
                if let (Some(hash), Some(value)) = (self.serves.get(atm), value) {
                    let notes = self.notes.entry(*hash).or_default();
                    notes.out = notes.out.checked_add(*value).unwrap_or(notes.out);
                    let promised = self.cashouts.get(hash).map_or(Minor::ZERO, |c| c.quote.amount);
                    if notes.out > promised {
                        return broken("overdispensed", format!("{} for {promised} at {atm}", notes.out));
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn overwrites(&self, atm: &AtmId) -> Result<(), Broken> {
        let asked = |cashout: &&CashOut| {
            let unread = matches!(cashout.phase, Phase::OutcomeUnknown { no_evidence: false, .. });
            unread && cashout.quote.atm == *atm
        };
        match self.durable.cashouts.values().find(asked) {
            Some(cashout) => broken(
                "evidence_overwritten",
                format!("the device was not yet read for {}", cashout.id),
            ),
            None => Ok(()),
        }
    }

    fn dispenses(&mut self, atm: &AtmId, now: UnixMs, side: &NodeSide) -> Result<(), Broken> {
        let ordered = |cashout: &&CashOut| {
            let orders = matches!(cashout.phase, Phase::Dispensing { .. } | Phase::OutcomeUnknown { .. });
            orders && cashout.quote.atm == *atm
        };
        let Some(cashout) = self.durable.cashouts.values().find(ordered) else {
            return broken(
                "dispense_before_intent",
                format!("{atm} dispenses, and no order is durable"),
            );
        };
        let (id, hash, orders) = (cashout.id, cashout.quote.hash, cashout.orders);
        let policy = &cashout.quote.policy;
        let notes = self.notes.entry(hash).or_default();
        notes.commanded += 1;
        if notes.commanded > orders {
            return broken(
                "commanded_twice",
                format!("{id}: {} commands for {orders} orders", notes.commanded),
            );
        }
        if notes.out > Minor::ZERO {
            return broken("dispensed_again", format!("{id}: {} were out already", notes.out));
        }
        self.serves.insert(atm.clone(), hash);
        let read = self.read.get(&hash).copied().unwrap_or_default();
        if now.since(read).as_millis() > u128::from(CHECK_AGE_MS) {
            return broken(
                "hold_not_read_anew",
                format!("{id} dispenses at {}, its hold was read at {}", now.0, read.0),
            );
        }
        let Some(invoice) = side.node.invoice(&hash) else {
            return broken("dispense_without_hold", format!("{id} has no invoice"));
        };
        // LND gives a hold up by itself, also right after it was read.
        let gave_up = |entry: &HistoryEntry| {
            entry.cause == Cause::BlockHeight && now.0.saturating_sub(entry.at_unix_ms.0) <= CHECK_AGE_MS
        };
        match invoice.state {
            InvoiceState::Accepted => {}
            InvoiceState::Canceled if invoice.history.last().is_some_and(gave_up) => {
                self.excused.push((atm.clone(), now, hash));
                return Ok(());
            }
            other => return broken("dispense_without_hold", format!("{id}: its invoice is {other:?}")),
        }
        if let Some(since) = side
            .unsynced
            .filter(|since| now.since(*since).as_millis() > u128::from(CHECK_AGE_MS))
        {
            let found = format!("{id} dispenses, LND is out of sync since {}", since.0);
            return broken("dispense_out_of_sync", found);
        }
        let known = |(at, _): &&(UnixMs, u32)| now.0.saturating_sub(at.0) >= CHECK_AGE_MS;
        let height = side.heights.iter().rev().find(known).map_or(0, |(_, height)| *height);
        let left = invoice
            .lowest_expiry_height()
            .map(|expiry| i64::from(expiry) - i64::from(policy.hold_expiry_delta) - i64::from(height));
        match left {
            Some(left) if left >= i64::from(policy.min_blocks_left) => Ok(()),
            _ => broken(
                "window_too_short",
                format!(
                    "{id} dispenses with {left:?} blocks left, {} are needed",
                    policy.min_blocks_left
                ),
            ),
        }
    }
}

/// The money of a settled invoice is there for good: each of its HTLCs has come to its end, and to a good one.
fn has_come(side: &NodeSide, hash: &PaymentHash) -> bool {
    let Some(invoice) = side.node.invoice(hash) else {
        return false;
    };
    let mut settled = invoice.htlcs.iter().filter(|htlc| htlc.state == HtlcState::Settled);
    settled.all(|htlc| matches!(side.node.resolution(htlc.htlc_index), Ok(Some(end)) if end.settled))
}

#[cfg(test)]
#[path = "rules_tests.rs"]
mod tests;
