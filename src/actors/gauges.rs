//! The gauges that are read off the folded state at each scrape: always what the journal says, never a count kept
//! on the side.
//!
//! Called by the fleet's door. Its cost follows the open items.

use std::collections::HashMap;

use crate::cashout::{CashOut, Phase};
use crate::ids::AtmId;
use crate::invoice::{Invoice, InvoicePhase};
use crate::metrics::{Exposure, Machines, Metrics};
use crate::money::{Funds, Minor};
use crate::store::Folded;
use crate::time::UnixMs;

/// Sets every gauge that follows from `folded`; `height` is LND's, when it is known. The machines' notes go to `machines`.
pub(super) fn set(metrics: &Metrics, machines: &mut Machines, folded: &Folded, height: Option<u32>) {
    metrics.set_invoices_pending(folded.invoices.values().map(|invoice| &invoice.phase));
    metrics.set_cashouts_open(folded.cashouts.values().map(|cashout| &cashout.phase));
    metrics.set_exposure(&exposure(folded, height));
    let owed = folded.cashouts.values().filter(|c| matches!(c.phase, Phase::ClaimOwed));
    metrics.set_claims_owed(owed.map(|c| c.books.claim).sum());
    let notes = folded
        .atms
        .values()
        .fold(0_u64, |sum, book| sum.saturating_add(book.notes.drift()));
    let open = folded
        .cashouts
        .values()
        .fold(0_u64, |sum, c| sum.saturating_add(c.drift()));
    metrics.set_conservation_drift(notes, Minor(folded.totals.drift.saturating_add(open)));
    let promised = promised(folded);
    for (atm, book) in &folded.atms {
        for cassette in &book.notes.cassettes {
            let reserved = promised.get(&(atm, cassette.position));
            machines.cassette(atm, cassette, reserved.copied().unwrap_or(0));
        }
    }
}

fn exposure(folded: &Folded, height: Option<u32>) -> Exposure {
    let mut exposure = Exposure::default();
    for invoice in folded.invoices.values() {
        settlement(&mut exposure, invoice);
        let Some(hold) = invoice.hold() else { continue };
        exposure.held_sats = exposure.held_sats.saturating_add(hold.paid.sat_floor());
        if let Some(height) = height {
            let left = hold.blocks_left(invoice.spec.hold_expiry_delta, height);
            let lowest = exposure.lowest_blocks_left.map_or(left, |lowest| lowest.min(left));
            exposure.lowest_blocks_left = Some(lowest);
        }
        exposure.oldest_hold = older(exposure.oldest_hold, Some(hold.since));
    }
    let unsettled = folded.cashouts.values().filter(|c| matches!(c.phase, Phase::Settling));
    exposure.dispensed_unsettled_sats =
        unsettled.fold(0, |sum, c: &CashOut| sum.saturating_add(c.quote.price.sat_floor()));
    exposure
}

/// What is to be settled, and what is settled without its money being there.
fn settlement(exposure: &mut Exposure, invoice: &Invoice) {
    match &invoice.phase {
        InvoicePhase::Settling { since, hold, .. } => {
            // An older record does not tell; the hold is older than the order.
            let since = since.or(hold.map(|hold| hold.since));
            exposure.oldest_settling = older(exposure.oldest_settling, since);
        }
        InvoicePhase::Settled {
            paid,
            at,
            funds: Funds::Pending,
        } => {
            exposure.not_final_sats = exposure.not_final_sats.saturating_add(paid.sat_floor());
            exposure.not_final_invoices = exposure.not_final_invoices.saturating_add(1);
            exposure.oldest_not_final = older(exposure.oldest_not_final, *at);
        }
        _ => {}
    }
}

fn older(one: Option<UnixMs>, other: Option<UnixMs>) -> Option<UnixMs> {
    one.into_iter().chain(other).min()
}

/// Notes that open cash-outs keep, by machine and position.
fn promised(folded: &Folded) -> HashMap<(&AtmId, u8), u32> {
    let mut promised: HashMap<(&AtmId, u8), u32> = HashMap::new();
    for cashout in folded.cashouts.values() {
        for cassette in cashout.reserved().iter().flat_map(|order| &order.cassettes) {
            let sum = promised.entry((&cashout.quote.atm, cassette.position)).or_default();
            *sum = sum.saturating_add(cassette.notes);
        }
    }
    promised
}
