//! How the effects of a cash-out are done: the life of one cash-out, effect by effect.
//!
//! Called by the loop in `drive.rs`. An invoice's answers come in as [`InvoiceSeen`], whoever asked. What must stay
//! true: the hold is read anew at LND between the device's check and the commitment, and notes are commanded only in
//! [`dispense`], which the loop starts once for each committed order.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::super::drive::{Done, Work};
use super::super::hardware::{Dispense, Prepare, Recover};
use super::super::invoice::{InvoiceCall, InvoiceSeen, Kept, Order, OrderError, Reply};
use super::super::shared::{Seat, Shared};
use super::Atm;
use crate::cashout::ledger::Stock;
use crate::cashout::mix::mix;
use crate::cashout::{CashOut, Effect, Event, Phase};
use crate::hardware::{DeviceError, DispenseIntent, DispenseOrder, DispenseReport, Marker, Recovery};
use crate::ids::CashOutId;
use crate::invoice::{InvoiceSpec, Owner};
use crate::metrics::ActorKind;
use crate::time::UnixMs;

/// Before something that did not succeed is tried again.
const RETRY: Duration = Duration::from_millis(500);
/// An owner asks for its invoice's state so often, in case a notice was lost.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// The same for a settled invoice whose money is on its way: many may be, and nobody waits at the machine.
const ASK_FOR_FUNDS: Duration = Duration::from_secs(60);
/// For effects that are done once and stay done.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);
/// Notes are not commanded on a hold that was read at LND longer ago than this: it may be gone.
const CHECK_AGE: Duration = Duration::from_secs(10);
/// How often a dispenser that does not answer is asked before the customer is refunded.
const CHECKS: u32 = 5;

fn nothing(again: Duration) -> Done<Event> {
    Done {
        events: Vec::new(),
        again,
    }
}

fn one(event: Event) -> Done<Event> {
    Done {
        events: vec![event],
        again: RETRY,
    }
}

impl Atm {
    /// Starts an effect.
    pub(super) fn begin(&mut self, id: CashOutId, effect: Effect) -> Work<Event> {
        let Some(cashout) = self.items.get(&id).map(|item| item.state().clone()) else {
            return Box::pin(async { nothing(RETRY) });
        };
        let (shared, seat) = (Arc::clone(&self.shared), Arc::clone(&self.seat));
        match effect {
            Effect::OpenInvoice => {
                let spec = Box::new(self.spec(&cashout));
                Box::pin(async move { tell(&shared, &seat, &cashout, Order::Open(spec)).await })
            }
            Effect::AwaitFunds => Box::pin(async move {
                let done = tell(&shared, &seat, &cashout, Order::Look).await;
                Done {
                    again: done.again.max(ASK_FOR_FUNDS),
                    ..done
                }
            }),
            Effect::WatchInvoice => Box::pin(async move { tell(&shared, &seat, &cashout, Order::Look).await }),
            Effect::Prepare => {
                let order = self.next_order(&cashout);
                Box::pin(async move { prepare(&shared, &seat, &cashout, order).await })
            }
            Effect::Dispense => {
                let checked = self.checked.remove(&id);
                let fresh = checked.and_then(|at| fresh_for(at, shared.clock.now()));
                let until = fresh.map(|left| Instant::now() + left);
                Box::pin(async move { dispense(&shared, &seat, &cashout, until).await })
            }
            Effect::Recover => Box::pin(async move { recover(&shared, &seat, &cashout).await }),
            Effect::Settle => {
                let preimage = cashout.quote.preimage.clone();
                Box::pin(async move { tell(&shared, &seat, &cashout, Order::Settle(preimage)).await })
            }
            Effect::Cancel => Box::pin(async move { cancel(&shared, &seat, &cashout).await }),
            Effect::Alert => Box::pin(async { nothing(NEVER) }),
        }
    }

    fn spec(&self, cashout: &CashOut) -> InvoiceSpec {
        let quote = &cashout.quote;
        InvoiceSpec {
            hash: quote.hash,
            owner: Owner::Atm {
                atm: quote.atm.clone(),
                cashout: cashout.id,
            },
            amount: quote.price,
            memo: format!("ATM {} cash-out {}", quote.atm, cashout.id),
            pay_by: quote.pay_by,
            hold_ms: quote.policy.hold_ms,
            cltv_expiry: quote.policy.cltv_expiry,
            hold_expiry_delta: quote.policy.hold_expiry_delta,
            min_blocks_left: quote.policy.min_blocks_left,
            private_route_hints: self.shared.terms.private_route_hints,
        }
    }

    /// The notes promised at first, another mix without the cassettes that failed after that.
    fn next_order(&self, cashout: &CashOut) -> Option<DispenseOrder> {
        if cashout.orders == 0 {
            return Some(cashout.quote.mix.clone());
        }
        let others = self
            .items
            .values()
            .map(super::Item::state)
            .filter(|other| other.id != cashout.id);
        let stock = self.book.notes.available(others.filter_map(CashOut::reserved));
        let usable = stock
            .into_iter()
            .filter(|stock| !cashout.excluded.contains(&stock.position));
        mix(
            cashout.quote.amount,
            &usable.collect::<Vec<Stock>>(),
            self.seat.config.max_notes,
        )
    }

    /// Names a state that waits for a human.
    pub(super) fn alert(&self, cashout: &CashOut) {
        let (id, atm) = (cashout.id, &cashout.quote.atm);
        match &cashout.phase {
            Phase::OutcomeUnknown { reason, .. } => {
                tracing::error!(cashout = %id, %atm, %reason, "it is not known whether notes came out");
            }
            Phase::ClaimOwed => {
                tracing::error!(cashout = %id, %atm, claim = %cashout.books.claim, "the customer is owed notes");
            }
            Phase::NeedsOperator { why } => tracing::error!(cashout = %id, %atm, %why, "an operator has to decide"),
            _ => {}
        }
    }
}

/// Asks the invoice's actor, through the supervisor, who knows where it is.
async fn ask(shared: &Shared, cashout: &CashOut, order: Order) -> Result<Reply, OrderError> {
    let later = || OrderError::Later("the supervisor does not answer".into());
    let supervisor = shared.supervisor.get().ok_or_else(later)?;
    let hash = cashout.quote.hash;
    supervisor
        .send(InvoiceCall { hash, order })
        .await
        .map_err(|_| later())?
}

/// Gives an order, and passes the invoice's state on to the machine's actor.
async fn tell(shared: &Shared, seat: &Seat, cashout: &CashOut, order: Order) -> Done<Event> {
    let invoice = match ask(shared, cashout, order).await {
        Ok(reply) => reply.invoice,
        Err(OrderError::Refused { why, invoice }) => {
            tracing::warn!(cashout = %cashout.id, why, "the invoice's actor refuses");
            *invoice
        }
        Err(error) => {
            tracing::debug!(cashout = %cashout.id, %error, "asked again later");
            return nothing(RETRY);
        }
    };
    if seat
        .atm
        .get()
        .is_none_or(|atm| atm.try_send(InvoiceSeen(invoice)).is_err())
    {
        shared.metrics.message_refused(ActorKind::Atm);
        return nothing(RETRY);
    }
    nothing(ASK_AGAIN)
}

async fn cancel(shared: &Shared, seat: &Seat, cashout: &CashOut) -> Done<Event> {
    let Phase::Canceling { reason } = &cashout.phase else {
        return nothing(RETRY);
    };
    // An invoice that was never asked for can not have been paid.
    if let Err(OrderError::Unknown) = ask(shared, cashout, Order::Look).await {
        return one(Event::InvoiceCanceled { reason: reason.clone() });
    }
    tell(shared, seat, cashout, Order::Cancel(reason.clone())).await
}

/// Checks the device, then the hold, and commits the order.
async fn prepare(shared: &Shared, seat: &Seat, cashout: &CashOut, order: Option<DispenseOrder>) -> Done<Event> {
    let refused = |reason: String| one(Event::CheckRefused { reason });
    let Some(order) = order else {
        return refused("no other mix of notes makes up the amount".into());
    };
    // A daemon that is about to end leaves the hold to its next life, or to its deadline.
    let _ = shared.stopping.subscribe().wait_for(|stopping| !stopping).await;
    let marker = match check(seat, &order).await {
        Ok(marker) => marker,
        Err(error) => return refused(error.to_string()),
    };
    // The invoice's actor reads the hold, then writes a record, which may take long: the check counts from here on.
    let at = shared.clock.now();
    match ask(shared, cashout, Order::Commit).await {
        Ok(_) if fresh_for(at, shared.clock.now()).is_none() => {
            tracing::warn!(cashout = %cashout.id, "the check of the hold took too long, it is made anew");
            nothing(RETRY)
        }
        Ok(Reply {
            kept: Some(Kept { blocks_left, until }),
            ..
        }) => one(Event::DispenseCommitted {
            intent: DispenseIntent { order, marker },
            blocks_left,
            kept_until: until,
            at,
        }),
        Ok(_) => nothing(RETRY),
        Err(OrderError::Later(why)) => {
            tracing::debug!(cashout = %cashout.id, why, "not committed yet");
            nothing(RETRY)
        }
        Err(error) => refused(error.to_string()),
    }
}

/// Asks a device that does not answer a few times: its port is opened anew meanwhile.
async fn check(seat: &Seat, order: &DispenseOrder) -> Result<Marker, DeviceError> {
    let mut tries = 1;
    loop {
        let answer = match seat.hardware.get() {
            None => Err(DeviceError::LinkLost("its actor is being restarted".into())),
            Some(hardware) => match hardware.send(Prepare(order.clone())).await {
                Ok(answer) => answer,
                Err(error) => Err(DeviceError::LinkLost(error.to_string())),
            },
        };
        match answer {
            Ok(marker) => return Ok(marker),
            Err(error @ (DeviceError::Fault(_) | DeviceError::NotReady(_) | DeviceError::BadOrder(_))) => {
                return Err(error);
            }
            Err(error) if tries == CHECKS => return Err(error),
            Err(_) => tokio::time::sleep(RETRY * tries).await,
        }
        tries += 1;
    }
}

/// For how long a check made at `at` may still be acted upon. A check from the future is of a clock that was set back.
fn fresh_for(at: UnixMs, now: UnixMs) -> Option<Duration> {
    if now < at {
        return None;
    }
    CHECK_AGE.checked_sub(now.since(at)).filter(|left| !left.is_zero())
}

/// Commands the order, `until` then at the latest. The only place that does.
async fn dispense(shared: &Shared, seat: &Seat, cashout: &CashOut, until: Option<Instant>) -> Done<Event> {
    let Phase::Dispensing { intent } = &cashout.phase else {
        return nothing(RETRY);
    };
    let report: Option<DispenseReport> = match (until, seat.hardware.get()) {
        // It was lost while the commitment was being written down.
        _ if cashout.hold_lost => Some(intent.not_commanded("the payment is not held any more")),
        (None, _) => Some(intent.not_commanded("the check of the hold became too old")),
        (Some(until), Some(hardware)) => {
            let intent = intent.clone();
            hardware.send(Dispense { intent, until }).await.ok()
        }
        (Some(_), None) => None,
    };
    let at = shared.clock.now();
    let event = match report {
        Some(report) => Event::DispenseReported { report, at },
        // Its actor died over it: whatever it had sent, it had sent.
        None => Event::Interrupted { at },
    };
    // Never commanded twice, whatever becomes of the event.
    Done {
        events: vec![event],
        again: NEVER,
    }
}

/// Asks the device what became of the order.
async fn recover(shared: &Shared, seat: &Seat, cashout: &CashOut) -> Done<Event> {
    let Phase::OutcomeUnknown { intent, .. } = &cashout.phase else {
        return nothing(RETRY);
    };
    let Some(hardware) = seat.hardware.get() else {
        return nothing(RETRY);
    };
    match hardware.send(Recover(intent.clone())).await {
        Ok(Ok(Recovery::Evidence(report))) => one(Event::EvidenceFound {
            report,
            at: shared.clock.now(),
        }),
        Ok(Ok(Recovery::NoEvidence(reason))) => one(Event::EvidenceMissing { reason }),
        Ok(Err(error)) => {
            tracing::debug!(cashout = %cashout.id, %error, "the device does not tell yet");
            nothing(RETRY)
        }
        Err(_) => nothing(RETRY),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_is_acted_upon_only_for_a_while_and_never_across_a_clock_set_back() {
        let at = UnixMs(100_000);
        assert_eq!(fresh_for(at, at), Some(CHECK_AGE));
        assert_eq!(fresh_for(at, UnixMs(109_999)), Some(Duration::from_millis(1)));
        assert_eq!(fresh_for(at, UnixMs(110_000)), None);
        assert_eq!(fresh_for(at, UnixMs(99_999)), None);
    }
}
