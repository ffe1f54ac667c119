//! The transitions and effects of an invoice.

use thiserror::Error;

use super::{CancelReason, Hold, Invoice, InvoiceEvent, InvoicePhase, Owner};
use crate::money::{Funds, Msat};
use crate::time::UnixMs;

/// What has to be done in a state. Each may be started again after a crash.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Effect {
    /// `AddHoldInvoice`; on "already exists" look it up and compare.
    Add,
    /// Follow it at LND: look-up, stream, look-up again at the stream's end.
    Watch,
    /// `SettleInvoice`, until it is answered.
    Settle,
    /// `CancelInvoice`, until it is answered.
    Cancel,
    /// `LookupHtlcResolution` of its HTLCs, until all are at their end.
    FollowFunds,
}

/// An event that has no meaning in the invoice's state.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("an invoice that is {state} can not take `{event}`")]
pub struct IllegalInvoiceEvent {
    /// The state's name.
    pub state: &'static str,
    /// What is wrong with the event.
    pub event: String,
}

/// What is to be done for `invoice` now.
#[must_use]
pub fn effects(invoice: &Invoice) -> &'static [Effect] {
    match invoice.phase {
        InvoicePhase::Creating => &[Effect::Add],
        InvoicePhase::Open | InvoicePhase::Accepted(_) | InvoicePhase::Committed { .. } => &[Effect::Watch],
        InvoicePhase::Settling { .. } => &[Effect::Settle],
        InvoicePhase::Canceling(_) => &[Effect::Cancel],
        InvoicePhase::Settled {
            funds: Funds::Pending, ..
        } => &[Effect::FollowFunds],
        InvoicePhase::Settled { .. } | InvoicePhase::Canceled(_) => &[],
    }
}

/// When `DeadlinePassed` is due. An invoice committed by an ATM of this daemon has none: the cash-out decides.
#[must_use]
pub fn deadline(invoice: &Invoice) -> Option<UnixMs> {
    match &invoice.phase {
        InvoicePhase::Creating | InvoicePhase::Open => Some(invoice.spec.pay_by),
        InvoicePhase::Accepted(hold) => Some(invoice.hold_until(hold)),
        InvoicePhase::Committed { since, .. } => invoice.spec.owner.commit_deadline(*since),
        _ => None,
    }
}

/// The state after `event`; `None` when nothing changes (a duplicate, or a late one).
///
/// # Errors
/// When the event is impossible in this state. The state is then unchanged and nothing may be done for it.
pub fn apply(invoice: &Invoice, event: &InvoiceEvent) -> Result<Option<Invoice>, IllegalInvoiceEvent> {
    use InvoiceEvent as E;
    match event {
        E::Requested { spec } if *spec == invoice.spec => Ok(None),
        E::Requested { .. } => Err(illegal(invoice, "requested again with another content")),
        E::Opened { payment_request } => Ok(opened(invoice, payment_request)),
        E::AddRefused { reason } => Ok(in_creating(invoice, CancelReason::AddRefused(reason.clone()))),
        E::Accepted {
            paid,
            lowest_expiry_height,
            at,
        } => Ok(accepted(invoice, *paid, *lowest_expiry_height, *at)),
        E::Committed { at, height } => committed(invoice, *at, *height),
        E::SettleOrdered { preimage, at } => settle_ordered(invoice, preimage, *at),
        E::CancelOrdered { reason } => cancel_ordered(invoice, reason),
        E::DeadlinePassed { at } => Ok(deadline_passed(invoice, *at)),
        E::BlockSeen { height } => Ok(block_seen(invoice, *height)),
        E::SettledAtLnd { paid, at, follow } => settled_at_lnd(invoice, *paid, *at, *follow),
        E::FundsSeen { funds, .. } => funds_seen(invoice, *funds),
        E::CanceledAtLnd => canceled_at_lnd(invoice),
    }
}

fn next(invoice: &Invoice, phase: InvoicePhase) -> Option<Invoice> {
    Some(Invoice {
        phase,
        ..invoice.clone()
    })
}

fn illegal(invoice: &Invoice, event: &str) -> IllegalInvoiceEvent {
    IllegalInvoiceEvent {
        state: invoice.phase.name(),
        event: event.to_owned(),
    }
}

fn opened(invoice: &Invoice, payment_request: &str) -> Option<Invoice> {
    matches!(invoice.phase, InvoicePhase::Creating).then(|| Invoice {
        payment_request: Some(payment_request.to_owned()),
        phase: InvoicePhase::Open,
        ..invoice.clone()
    })
}

fn in_creating(invoice: &Invoice, reason: CancelReason) -> Option<Invoice> {
    matches!(invoice.phase, InvoicePhase::Creating).then(|| canceling(invoice, reason))
}

fn canceling(invoice: &Invoice, reason: CancelReason) -> Invoice {
    Invoice {
        phase: InvoicePhase::Canceling(reason),
        ..invoice.clone()
    }
}

fn accepted(invoice: &Invoice, paid: Msat, expiry: Option<u32>, at: UnixMs) -> Option<Invoice> {
    if !matches!(invoice.phase, InvoicePhase::Open) {
        return None;
    }
    let Some(lowest_expiry_height) = expiry else {
        let reason = CancelReason::BadHold("lnd named no expiry height".to_owned());
        return Some(canceling(invoice, reason));
    };
    if paid < invoice.spec.amount {
        let reason = CancelReason::BadHold(format!("{paid} came, {} was asked", invoice.spec.amount));
        return Some(canceling(invoice, reason));
    }
    next(
        invoice,
        InvoicePhase::Accepted(Hold {
            paid,
            lowest_expiry_height,
            since: at,
        }),
    )
}

fn committed(invoice: &Invoice, at: UnixMs, height: u32) -> Result<Option<Invoice>, IllegalInvoiceEvent> {
    let hold = match &invoice.phase {
        InvoicePhase::Accepted(hold) | InvoicePhase::Committed { hold, .. } => *hold,
        _ => return Err(illegal(invoice, "committed")),
    };
    let left = hold.blocks_left(invoice.spec.hold_expiry_delta, height);
    if left < i64::from(invoice.spec.min_blocks_left) {
        return Err(illegal(invoice, &format!("committed with {left} blocks left")));
    }
    match invoice.phase {
        InvoicePhase::Committed { .. } => Ok(None),
        _ => Ok(next(invoice, InvoicePhase::Committed { hold, since: at })),
    }
}

fn settle_ordered(
    invoice: &Invoice,
    preimage: &crate::ids::Preimage,
    at: Option<UnixMs>,
) -> Result<Option<Invoice>, IllegalInvoiceEvent> {
    if preimage.hash() != invoice.spec.hash {
        return Err(illegal(invoice, "settle with a preimage of another hash"));
    }
    match &invoice.phase {
        InvoicePhase::Accepted(hold) | InvoicePhase::Committed { hold, .. } => {
            let phase = InvoicePhase::Settling {
                preimage: preimage.clone(),
                hold: Some(*hold),
                since: at,
            };
            Ok(next(invoice, phase))
        }
        InvoicePhase::Settling { .. } | InvoicePhase::Settled { .. } => Ok(None),
        _ => Err(illegal(invoice, "settle")),
    }
}

fn cancel_ordered(invoice: &Invoice, reason: &str) -> Result<Option<Invoice>, IllegalInvoiceEvent> {
    match invoice.phase {
        InvoicePhase::Settling { .. } | InvoicePhase::Settled { .. } => Err(illegal(invoice, "cancel")),
        InvoicePhase::Canceling(_) | InvoicePhase::Canceled(_) => Ok(None),
        _ => Ok(Some(canceling(invoice, CancelReason::Owner(reason.to_owned())))),
    }
}

fn deadline_passed(invoice: &Invoice, at: UnixMs) -> Option<Invoice> {
    if deadline(invoice).is_none_or(|due| at < due) {
        return None;
    }
    let reason = match invoice.phase {
        InvoicePhase::Accepted(_) => CancelReason::HoldDeadline,
        InvoicePhase::Committed { .. } => CancelReason::CommitDeadline,
        _ => CancelReason::NotPaid,
    };
    Some(canceling(invoice, reason))
}

/// The blocks that a hold must have left, when it must.
fn least_blocks(invoice: &Invoice) -> Option<(&Hold, u32)> {
    match (&invoice.phase, &invoice.spec.owner) {
        (InvoicePhase::Accepted(hold), _) => Some((hold, invoice.spec.min_blocks_left)),
        (InvoicePhase::Committed { hold, .. }, Owner::Remote { force_blocks_left, .. }) => {
            Some((hold, *force_blocks_left))
        }
        _ => None,
    }
}

fn block_seen(invoice: &Invoice, height: u32) -> Option<Invoice> {
    let (hold, least) = least_blocks(invoice)?;
    let left = hold.blocks_left(invoice.spec.hold_expiry_delta, height);
    (left < i64::from(least)).then(|| canceling(invoice, CancelReason::WindowTooShort))
}

fn settled_at_lnd(
    invoice: &Invoice,
    paid: Msat,
    at: Option<UnixMs>,
    follow: bool,
) -> Result<Option<Invoice>, IllegalInvoiceEvent> {
    let funds = if follow { Funds::Pending } else { Funds::NotFollowed };
    match invoice.phase {
        InvoicePhase::Settled { .. } => Ok(None),
        InvoicePhase::Canceled(_) => Err(illegal(invoice, &format!("settled at lnd ({paid})"))),
        _ => Ok(next(invoice, InvoicePhase::Settled { paid, at, funds })),
    }
}

/// Once it is known what became of the money, that stays.
fn funds_seen(invoice: &Invoice, funds: Funds) -> Result<Option<Invoice>, IllegalInvoiceEvent> {
    match invoice.phase {
        InvoicePhase::Settled {
            paid,
            at,
            funds: Funds::Pending,
        } if funds != Funds::Pending => Ok(next(invoice, InvoicePhase::Settled { paid, at, funds })),
        InvoicePhase::Settled { .. } => Ok(None),
        _ => Err(illegal(invoice, "what became of money that was not settled")),
    }
}

fn canceled_at_lnd(invoice: &Invoice) -> Result<Option<Invoice>, IllegalInvoiceEvent> {
    match &invoice.phase {
        InvoicePhase::Canceled(_) => Ok(None),
        InvoicePhase::Settled { .. } => Err(illegal(invoice, "canceled at lnd")),
        InvoicePhase::Canceling(reason) => Ok(next(invoice, InvoicePhase::Canceled(reason.clone()))),
        _ => Ok(next(invoice, InvoicePhase::Canceled(CancelReason::ByLnd))),
    }
}
