//! The transitions and effects of a cash-out: every rule about money and notes is on this page, but what follows from a
//! settlement is in `settled.rs`.

use std::time::Duration;

use thiserror::Error;

use super::assess::{Assessed, assess};
use super::event::{CancelBy, Event, Resolution};
use super::{CashOut, PartialPolicy, Phase, UnknownPolicy, settled};
use crate::hardware::{CassetteReport, DispenseIntent, DispenseReport};
use crate::money::{Funds, Minor, Msat};
use crate::time::UnixMs;

/// A decision has to reach whoever keeps the hold before it is given up.
const ORDER_ON_ITS_WAY: Duration = Duration::from_secs(120);

/// What has to be done in a state. Each may be started again after a crash, but `Dispense`:
/// an interruption leaves `Dispensing` before effects are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Have the invoice added.
    OpenInvoice,
    /// Follow the invoice.
    WatchInvoice,
    /// Check dispenser and hold, then commit an order.
    Prepare,
    /// Command the order. Motion.
    Dispense,
    /// Ask the device what became of the order.
    Recover,
    /// Have the invoice settled, until it is.
    Settle,
    /// Have the invoice canceled, until it is.
    Cancel,
    /// Name it to the operator.
    Alert,
    /// Ask the invoice's actor again, in case its word on the settled money was lost.
    AwaitFunds,
}

/// An event that may not happen in the cash-out's state.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("a cash-out that is {state} can not take `{event}`: {why}")]
pub struct Illegal {
    /// The state's name.
    pub state: &'static str,
    /// The event's name.
    pub event: &'static str,
    /// Why not.
    pub why: String,
}

/// What is to be done for `cashout` now.
#[must_use]
pub fn effects(cashout: &CashOut) -> &'static [Effect] {
    let pending = cashout.books.funds == Funds::Pending;
    match &cashout.phase {
        Phase::Quoted => &[Effect::OpenInvoice],
        Phase::AwaitingPayment => &[Effect::WatchInvoice],
        Phase::Held { .. } => &[Effect::Prepare],
        Phase::Dispensing { .. } => &[Effect::Dispense],
        Phase::OutcomeUnknown { no_evidence: false, .. } => &[Effect::Recover, Effect::Alert],
        Phase::ClaimOwed | Phase::NeedsOperator { .. } if pending => &[Effect::Alert, Effect::AwaitFunds],
        Phase::OutcomeUnknown { .. } | Phase::ClaimOwed | Phase::NeedsOperator { .. } => &[Effect::Alert],
        Phase::Settling => &[Effect::Settle],
        Phase::Canceling { .. } => &[Effect::Cancel],
        Phase::Completed if pending => &[Effect::AwaitFunds],
        Phase::Completed | Phase::Canceled { .. } => &[],
    }
}

/// When `DeadlinePassed` is due.
#[must_use]
pub fn deadline(cashout: &CashOut) -> Option<UnixMs> {
    match &cashout.phase {
        Phase::Quoted | Phase::AwaitingPayment => Some(cashout.quote.pay_by),
        Phase::Held { until, .. } | Phase::OutcomeUnknown { until, .. } => Some(*until),
        _ => None,
    }
}

type Next = Result<Option<CashOut>, Illegal>;

/// The state after `event`; `None` when nothing changes (a duplicate, or a late one).
///
/// # Errors
/// When the event may not happen in this state. Nothing may then be done on its behalf.
pub fn apply(cashout: &CashOut, event: &Event) -> Next {
    let step = Step { cashout, event };
    match event {
        Event::Quoted { quote } if **quote == cashout.quote => Ok(None),
        Event::Quoted { .. } => step.illegal("it was promised with another content"),
        Event::InvoiceOpened { payment_request } => Ok(step.invoice_opened(payment_request)),
        Event::PaymentHeld { paid, at } => Ok(step.payment_held(*paid, *at)),
        Event::CancelRequested { by } => step.cancel_requested(by),
        Event::DeadlinePassed { at } => Ok(step.deadline_passed(*at)),
        Event::WindowClosing { blocks_left } => Ok(step.window_closing(*blocks_left)),
        Event::CheckRefused { reason } => Ok(step.check_refused(reason)),
        Event::DispenseCommitted {
            intent,
            blocks_left,
            kept_until,
            ..
        } => step.dispense_committed(intent, *blocks_left, *kept_until),
        Event::DispenseReported { report, at } | Event::EvidenceFound { report, at } => step.reported(report, *at),
        Event::Interrupted { at } => Ok(step.interrupted(*at)),
        Event::EvidenceMissing { reason } => step.evidence_missing(reason),
        Event::OperatorResolved { by, resolution, .. } => step.operator_resolved(by, resolution),
        Event::InvoiceSettled { paid, funds } => Ok(settled::invoice_settled(cashout, *paid, *funds)),
        Event::FundsSeen { funds } => Ok(settled::funds_seen(cashout, *funds)),
        Event::InvoiceCanceled { reason } => Ok(step.invoice_canceled(reason)),
    }
}

/// One state and the event that meets it.
struct Step<'a> {
    cashout: &'a CashOut,
    event: &'a Event,
}

impl Step<'_> {
    fn illegal(&self, why: impl Into<String>) -> Next {
        Err(Illegal {
            state: self.cashout.phase.name(),
            event: self.event.name(),
            why: why.into(),
        })
    }

    fn to(&self, phase: Phase) -> CashOut {
        CashOut {
            phase,
            ..self.cashout.clone()
        }
    }

    fn canceling(&self, reason: impl Into<String>) -> CashOut {
        self.to(Phase::Canceling { reason: reason.into() })
    }

    fn invoice_opened(&self, payment_request: &str) -> Option<CashOut> {
        matches!(self.cashout.phase, Phase::Quoted).then(|| CashOut {
            payment_request: Some(payment_request.to_owned()),
            ..self.to(Phase::AwaitingPayment)
        })
    }

    fn payment_held(&self, paid: Msat, at: UnixMs) -> Option<CashOut> {
        if !matches!(self.cashout.phase, Phase::AwaitingPayment) {
            return None;
        }
        let until = at.plus(Duration::from_millis(self.cashout.quote.policy.hold_ms));
        let mut next = self.to(Phase::Held { until });
        next.books.paid = paid;
        Some(next)
    }

    fn cancel_requested(&self, by: &CancelBy) -> Next {
        let who = match by {
            CancelBy::Customer => "the customer".to_owned(),
            CancelBy::Operator(name) => format!("operator {name}"),
        };
        match self.cashout.phase {
            Phase::Quoted | Phase::AwaitingPayment | Phase::Held { .. } => {
                Ok(Some(self.canceling(format!("canceled by {who}"))))
            }
            Phase::Canceling { .. } | Phase::Canceled { .. } => Ok(None),
            _ => self.illegal("the dispense has begun or the cash-out has ended"),
        }
    }

    fn deadline_passed(&self, at: UnixMs) -> Option<CashOut> {
        if deadline(self.cashout).is_none_or(|due| at < due) {
            return None;
        }
        match &self.cashout.phase {
            Phase::Quoted | Phase::AwaitingPayment => Some(self.canceling("not paid in time")),
            Phase::Held { .. } => Some(self.canceling("held too long without a dispense")),
            Phase::OutcomeUnknown { .. } => Some(self.decide_unknown()),
            _ => None,
        }
    }

    fn window_closing(&self, blocks_left: i64) -> Option<CashOut> {
        let policy = &self.cashout.quote.policy;
        match &self.cashout.phase {
            Phase::Held { .. } if blocks_left < i64::from(policy.min_blocks_left) => {
                Some(self.canceling("too few blocks left before LND cancels"))
            }
            // At zero LND has canceled, or does so now: there is no more haste, and an operator may still count the notes.
            Phase::OutcomeUnknown { .. } if (1..i64::from(policy.force_blocks_left)).contains(&blocks_left) => {
                Some(self.decide_unknown())
            }
            _ => None,
        }
    }

    fn check_refused(&self, reason: &str) -> Option<CashOut> {
        matches!(self.cashout.phase, Phase::Held { .. }).then(|| self.canceling(reason))
    }

    fn dispense_committed(&self, intent: &DispenseIntent, blocks_left: i64, kept_until: Option<UnixMs>) -> Next {
        if !matches!(self.cashout.phase, Phase::Held { .. }) {
            return self.illegal("no payment is held for it");
        }
        let policy = &self.cashout.quote.policy;
        if blocks_left < i64::from(policy.min_blocks_left) {
            return self.illegal(format!(
                "{blocks_left} blocks left, at least {} needed",
                policy.min_blocks_left
            ));
        }
        if intent.order.value() != self.cashout.quote.amount {
            return self.illegal(format!(
                "an order of {} for {}",
                intent.order.value(),
                self.cashout.quote.amount
            ));
        }
        if self.cashout.orders >= policy.max_orders {
            return self.illegal("no further order is allowed");
        }
        if intent
            .order
            .cassettes
            .iter()
            .any(|c| self.cashout.excluded.contains(&c.position))
        {
            return self.illegal("the order uses a cassette that failed before");
        }
        let mut next = self.to(Phase::Dispensing { intent: intent.clone() });
        next.orders = next.orders.saturating_add(1);
        next.kept_until = kept_until;
        Ok(Some(next))
    }

    fn interrupted(&self, at: UnixMs) -> Option<CashOut> {
        let Phase::Dispensing { intent } = &self.cashout.phase else {
            return None;
        };
        Some(self.unknown(intent, "interrupted while dispensing", Minor::ZERO, at))
    }

    fn unknown(&self, intent: &DispenseIntent, reason: &str, at_least: Minor, at: UnixMs) -> CashOut {
        self.to(Phase::OutcomeUnknown {
            intent: intent.clone(),
            reason: reason.to_owned(),
            until: self.decide_by(at),
            at_least,
            no_evidence: false,
        })
    }

    /// When the policy decides an outcome that is unknown since `at`: while the hold is kept, which an outage may have
    /// shortened. A hold that is gone is no reason for haste.
    fn decide_by(&self, at: UnixMs) -> UnixMs {
        let own = at.plus(Duration::from_millis(self.cashout.quote.policy.unknown_ms));
        let Some(kept_until) = self.cashout.kept_until.filter(|until| *until > at) else {
            return own;
        };
        // Of a short rest half is left for the device to tell.
        let left = kept_until.since(at);
        own.min(at.plus(left.saturating_sub(ORDER_ON_ITS_WAY.min(left / 2))))
    }

    fn reported(&self, report: &DispenseReport, at: UnixMs) -> Next {
        let (intent, recovering) = match &self.cashout.phase {
            Phase::Dispensing { intent } => (intent, false),
            Phase::OutcomeUnknown { intent, .. } => (intent, true),
            Phase::Quoted | Phase::AwaitingPayment | Phase::Held { .. } => {
                return self.illegal("no order was committed");
            }
            _ => return Ok(None),
        };
        let finish = |delivered| self.finish_order(report.cassettes.clone(), delivered);
        Ok(match assess(&intent.order, report) {
            Assessed::Complete => Some(finish(intent.order.value())),
            Assessed::Partial(delivered) => Some(finish(delivered)),
            Assessed::Nothing(_) if recovering => Some(finish(Minor::ZERO)),
            Assessed::Nothing(failed) => Some(self.nothing_delivered(report, &failed, at)),
            Assessed::Unknown { reason, at_least } => self.still_unknown(intent, &reason, at_least, at, recovering),
        })
    }

    /// Recovery that proves no more than a lower bound raises the bound, and keeps the first deadline.
    fn still_unknown(
        &self,
        intent: &DispenseIntent,
        reason: &str,
        at_least: Minor,
        at: UnixMs,
        recovering: bool,
    ) -> Option<CashOut> {
        let Phase::OutcomeUnknown {
            until, at_least: known, ..
        } = &self.cashout.phase
        else {
            return Some(self.unknown(intent, reason, at_least, at));
        };
        let phase = Phase::OutcomeUnknown {
            intent: intent.clone(),
            reason: reason.to_owned(),
            until: *until,
            at_least: at_least.max(*known),
            no_evidence: recovering,
        };
        (phase != self.cashout.phase).then(|| self.to(phase))
    }

    /// A proven zero: another mix is tried while the rules allow one, else the customer is refunded.
    /// Only in the running loop: after an interruption the customer may be gone.
    fn nothing_delivered(&self, report: &DispenseReport, failed: &[u8], at: UnixMs) -> CashOut {
        let policy = &self.cashout.quote.policy;
        let mut next = self.finish_order(report.cassettes.clone(), Minor::ZERO);
        if failed.is_empty() || self.cashout.hold_lost || self.cashout.orders >= policy.max_orders {
            return next;
        }
        for position in failed {
            if !next.excluded.contains(position) {
                next.excluded.push(*position);
            }
        }
        next.phase = Phase::Held {
            until: at.plus(Duration::from_millis(policy.hold_ms)),
        };
        next
    }

    /// Closes the order in flight with `notes` as its result and goes on by what was delivered.
    fn finish_order(&self, notes: Vec<CassetteReport>, delivered: Minor) -> CashOut {
        let quote = &self.cashout.quote;
        let mut next = self.cashout.clone();
        next.notes.extend(notes);
        next.books.delivered = delivered;
        let absorbed = match quote.policy.partial {
            PartialPolicy::Absorb { limit } => delivered <= limit && delivered < quote.amount,
            PartialPolicy::Owe => false,
        };
        if delivered == Minor::ZERO {
            next.phase = Phase::Canceling {
                reason: "no note was delivered".to_owned(),
            };
        } else if self.cashout.hold_lost {
            next.books.loss = delivered;
            next.phase = Phase::NeedsOperator {
                why: "notes left the machine after the hold was lost".to_owned(),
            };
        } else if absorbed {
            next.books.loss = delivered;
            next.phase = Phase::Canceling {
                reason: "partial dispense absorbed by the operator".to_owned(),
            };
        } else {
            next.books.claim = quote.amount.saturating_sub(delivered);
            next.books.loss = delivered.saturating_sub(quote.amount);
            next.phase = Phase::Settling;
        }
        next
    }

    fn evidence_missing(&self, reason: &str) -> Next {
        let Phase::OutcomeUnknown {
            intent,
            until,
            at_least,
            no_evidence,
            ..
        } = &self.cashout.phase
        else {
            return match self.cashout.phase {
                Phase::Quoted | Phase::AwaitingPayment | Phase::Held { .. } => self.illegal("no order was committed"),
                _ => Ok(None),
            };
        };
        if *no_evidence {
            return Ok(None);
        }
        Ok(Some(self.to(Phase::OutcomeUnknown {
            intent: intent.clone(),
            reason: reason.to_owned(),
            until: *until,
            at_least: *at_least,
            no_evidence: true,
        })))
    }

    /// The operator's policy for an outcome nobody could tell. Cash proven to be out in full is settled
    /// under either policy.
    fn decide_unknown(&self) -> CashOut {
        let Phase::OutcomeUnknown { intent, at_least, .. } = &self.cashout.phase else {
            return self.cashout.clone();
        };
        let quote = &self.cashout.quote;
        let settle = quote.policy.unknown_at_deadline == UnknownPolicy::Settle || *at_least >= quote.amount;
        if settle {
            return self.finish_order(unaccounted(intent), quote.amount);
        }
        let mut next = self.finish_order(unaccounted(intent), Minor::ZERO);
        next.books.delivered = *at_least;
        next.books.loss = *at_least;
        next.phase = Phase::Canceling {
            reason: "outcome unknown at the deadline".to_owned(),
        };
        next
    }

    fn operator_resolved(&self, by: &str, resolution: &Resolution) -> Next {
        match (&self.cashout.phase, resolution) {
            (Phase::OutcomeUnknown { intent, at_least, .. }, Resolution::Delivered(value)) => {
                if *value > intent.order.value() {
                    return self.illegal(format!("{value} is more than the {} ordered", intent.order.value()));
                }
                // No cancel after cash: what the device proves, no word takes back.
                if *value < (*at_least).min(intent.order.value()) {
                    return self.illegal(format!(
                        "{value} is less than the {at_least} that the device counted out"
                    ));
                }
                let all = *value == intent.order.value();
                let notes = if all {
                    delivered_in_full(intent)
                } else {
                    unaccounted(intent)
                };
                Ok(Some(self.finish_order(notes, *value)))
            }
            (Phase::ClaimOwed, Resolution::ClaimPaid) => Ok(Some(self.to(Phase::Completed))),
            (Phase::NeedsOperator { .. }, Resolution::ClaimPaid) if self.cashout.books.funds == Funds::Lost => {
                settled::paid_before_it_was_lost(self.cashout)
                    .map_or_else(|| self.illegal("this resolution does not fit the state"), Ok)
            }
            (Phase::NeedsOperator { .. }, Resolution::Close) => Ok(Some(self.close(by))),
            (Phase::Completed, Resolution::ClaimPaid) if self.cashout.books.claim > Minor::ZERO => Ok(None),
            _ => self.illegal("this resolution does not fit the state"),
        }
    }

    fn close(&self, by: &str) -> CashOut {
        if self.cashout.books.settled {
            return self.to(Phase::Completed);
        }
        self.to(Phase::Canceled {
            reason: format!("closed by operator {by}"),
        })
    }

    fn invoice_canceled(&self, reason: &str) -> Option<CashOut> {
        match &self.cashout.phase {
            Phase::Quoted | Phase::AwaitingPayment | Phase::Held { .. } => Some(self.canceling(reason)),
            Phase::Dispensing { .. } | Phase::OutcomeUnknown { .. } if !self.cashout.hold_lost => Some(CashOut {
                hold_lost: true,
                ..self.cashout.clone()
            }),
            Phase::Settling => {
                let mut next = self.to(Phase::NeedsOperator {
                    why: format!("cash is out and the invoice is canceled: {reason}"),
                });
                next.books.loss = next.books.delivered;
                next.books.claim = Minor::ZERO;
                Some(next)
            }
            Phase::Canceling { reason } => Some(self.to(Phase::Canceled { reason: reason.clone() })),
            _ => None,
        }
    }
}

/// The notes of an order whose fate nobody could tell by cassette.
fn unaccounted(intent: &DispenseIntent) -> Vec<CassetteReport> {
    per_cassette(intent, |notes| (0, notes))
}

fn delivered_in_full(intent: &DispenseIntent) -> Vec<CassetteReport> {
    per_cassette(intent, |notes| (notes, 0))
}

fn per_cassette(intent: &DispenseIntent, split: impl Fn(u32) -> (u32, u32)) -> Vec<CassetteReport> {
    let report = |c: &crate::hardware::CassetteOrder| {
        let (delivered, unaccounted) = split(c.notes);
        CassetteReport {
            position: c.position,
            denomination: c.denomination,
            requested: c.notes,
            delivered,
            rejected: 0,
            unaccounted,
        }
    };
    intent.order.cassettes.iter().map(report).collect()
}
