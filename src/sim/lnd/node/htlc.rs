//! HTLCs: how a payment's parts are offered, collected into a set, and resolved. Fact sheet, section 3.

use super::Node;
use super::record::{Cause, FailReason, Htlc, HtlcState, InvoiceRecord, InvoiceState, Outcome, PayOrder, PayerHtlc};
use crate::ids::{PaymentHash, Preimage};
use crate::time::UnixMs;

/// How long a part of an incomplete set is held.
const MPP_TIMEOUT_MS: u64 = 120_000;
/// LND's own lower bound for the blocks left to an HTLC when it arrives.
const MIN_FINAL_CLTV: u32 = 19;

/// One HTLC on its way to the node.
struct Offer<'a> {
    order: &'a PayOrder,
    payment_id: u64,
    amount_msat: u64,
    expiry_height: u32,
}

impl InvoiceRecord {
    /// Gives every held HTLC that `pick`s its final state; returns them.
    pub(super) fn resolve_htlcs(&mut self, state: HtlcState, now: UnixMs, pick: impl Fn(&Htlc) -> bool) -> Vec<Htlc> {
        let held = self
            .htlcs
            .iter_mut()
            .filter(|htlc| htlc.state == HtlcState::Accepted && pick(htlc));
        held.map(|htlc| {
            htlc.state = state;
            htlc.resolved_at_unix_ms = Some(now);
            htlc.clone()
        })
        .collect()
    }

    fn held_msat(&self) -> u64 {
        let held = self.htlcs.iter().filter(|htlc| htlc.state == HtlcState::Accepted);
        held.fold(0, |sum, htlc| sum.saturating_add(htlc.amount_msat))
    }
}

impl Node {
    /// Sends the parts of a payment that is due.
    pub(super) fn send(&mut self, id: u64, now: UnixMs) {
        let Some(order) = self.payments.get(&id).map(|payment| payment.order.clone()) else {
            return;
        };
        let expiry_height = self.height.saturating_add(order.final_cltv_delta);
        for amount_msat in arriving_parts(&order) {
            let offer = Offer {
                order: &order,
                payment_id: id,
                amount_msat,
                expiry_height,
            };
            let (htlc_index, outcome) = match self.accept(&offer, now) {
                Ok(index) => (Some(index), Outcome::Held),
                Err(reason) => (
                    None,
                    Outcome::Refunded {
                        at_unix_ms: now,
                        reason,
                    },
                ),
            };
            if let Some(payment) = self.payments.get_mut(&id) {
                payment.htlcs.push(PayerHtlc {
                    amount_msat,
                    sent_at_unix_ms: now,
                    htlc_index,
                    outcome,
                });
            }
        }
        self.changes.payments.insert(id);
    }

    /// Accepts one HTLC or says why not; the last one of a set makes the invoice ACCEPTED.
    fn accept(&mut self, offer: &Offer, now: UnixMs) -> Result<u64, FailReason> {
        let hash = offer.order.hash;
        let record = self.invoices.get(&hash).ok_or(FailReason::UnknownInvoice)?;
        check(record, offer, self.height)?;
        self.enter_channel(offer.amount_msat)?;
        self.htlc_index += 1;
        let record = self.invoices.get_mut(&hash).ok_or(FailReason::UnknownInvoice)?;
        record.htlcs.push(Htlc {
            htlc_index: self.htlc_index,
            payment_id: offer.payment_id,
            amount_msat: offer.amount_msat,
            mpp_total_msat: offer.order.amount_msat,
            accept_height: self.height,
            expiry_height: offer.expiry_height,
            accepted_at_unix_ms: now,
            resolved_at_unix_ms: None,
            state: HtlcState::Accepted,
        });
        self.changes.invoices.insert(hash);
        if record.held_msat() >= offer.order.amount_msat {
            let lowest = record.lowest_expiry_height().unwrap_or(offer.expiry_height);
            let cancel_from = lowest.saturating_sub(self.options.hold_expiry_delta);
            self.heights.insert((cancel_from, hash));
            self.enter(hash, InvoiceState::Accepted, Cause::Paid, now);
        } else {
            self.timers.insert((mpp_end(now), hash));
        }
        Ok(self.htlc_index)
    }

    /// Ends the partial HTLCs of an OPEN invoice whose time is over, and the invoice itself when it expired.
    pub(super) fn check_time(&mut self, hash: PaymentHash, now: UnixMs) {
        let Some(record) = self.invoices.get(&hash) else { return };
        if record.state != InvoiceState::Open {
            return;
        }
        if record.expires_at() <= now {
            self.cancel_for(hash, Cause::Expired, FailReason::InvoiceExpired, now);
            return;
        }
        self.fail_htlcs(hash, FailReason::MppTimeout, now, |htlc| {
            mpp_end(htlc.accepted_at_unix_ms) <= now
        });
        let Some(record) = self.invoices.get(&hash) else { return };
        let held = record.htlcs.iter().filter(|htlc| htlc.state == HtlcState::Accepted);
        let ends = held.map(|htlc| mpp_end(htlc.accepted_at_unix_ms));
        let next = ends.fold(record.expires_at(), UnixMs::min);
        self.timers.insert((next, hash));
    }

    /// Fails the held HTLCs that `pick`s back to their payers.
    pub(super) fn fail_htlcs(
        &mut self,
        hash: PaymentHash,
        reason: FailReason,
        now: UnixMs,
        pick: impl Fn(&Htlc) -> bool,
    ) {
        let Some(record) = self.invoices.get_mut(&hash) else {
            return;
        };
        for htlc in record.resolve_htlcs(HtlcState::Canceled, now, pick) {
            let outcome = Outcome::Refunded {
                at_unix_ms: now,
                reason,
            };
            self.tell_payer(htlc.payment_id, htlc.htlc_index, outcome, None);
            self.changes.invoices.insert(hash);
        }
    }

    /// Notes in the customer's wallet what became of an HTLC.
    pub(super) fn tell_payer(
        &mut self,
        payment_id: u64,
        htlc_index: u64,
        outcome: Outcome,
        preimage: Option<&Preimage>,
    ) {
        self.resolved(htlc_index, outcome);
        let Some(payment) = self.payments.get_mut(&payment_id) else {
            return;
        };
        let settled = matches!(outcome, Outcome::Settled { .. });
        let mut amount_msat = 0;
        for htlc in payment
            .htlcs
            .iter_mut()
            .filter(|htlc| htlc.htlc_index == Some(htlc_index))
        {
            htlc.outcome = outcome;
            amount_msat = htlc.amount_msat;
        }
        if settled {
            payment.preimage = preimage.cloned();
        }
        self.leave_channel(amount_msat, settled);
        self.changes.payments.insert(payment_id);
    }
}

fn check(record: &InvoiceRecord, offer: &Offer, height: u32) -> Result<(), FailReason> {
    if record.payment_addr != offer.order.payment_addr {
        return Err(FailReason::UnknownInvoice);
    }
    if record.state != InvoiceState::Open {
        return Err(FailReason::InvoiceNotOpen);
    }
    if offer.order.amount_msat < record.value_msat {
        return Err(FailReason::AmountTooLow);
    }
    if offer.expiry_height < height.saturating_add(record.cltv_expiry.max(MIN_FINAL_CLTV)) {
        return Err(FailReason::ExpiryTooSoon);
    }
    let mut held = record.htlcs.iter().filter(|htlc| htlc.state == HtlcState::Accepted);
    if held.any(|htlc| htlc.mpp_total_msat != offer.order.amount_msat) {
        return Err(FailReason::SetTotalMismatch);
    }
    Ok(())
}

fn mpp_end(accepted: UnixMs) -> UnixMs {
    UnixMs(accepted.0.saturating_add(MPP_TIMEOUT_MS))
}

/// The amounts of the parts that arrive: equal shares, the remainder in the first, the last ones missing.
fn arriving_parts(order: &PayOrder) -> impl Iterator<Item = u64> + use<> {
    let parts = order.parts.max(1);
    let share = order.amount_msat / u64::from(parts);
    let first = share + order.amount_msat % u64::from(parts);
    let arriving = parts.saturating_sub(order.missing_parts);
    (0..arriving).map(move |part| if part == 0 { first } else { share })
}
