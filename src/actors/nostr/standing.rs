//! An invoice as the hold-invoice service tells of it. Pure.
//!
//! What must stay true: only what is durable here is told; a hold that will be canceled is told as CANCELED, so that
//! nobody relies on it, but `done` only when LND has done it; one that will be settled is ACCEPTED until LND has settled it.

use crate::ids::NostrKey;
use crate::invoice::{Invoice, InvoicePhase, Owner};
use crate::nostr::method::{CommittedInvoice, HoldInvoice, HoldState};
use crate::nostr::wire::{Code, Failure};
use crate::time::UnixMs;

/// The client whose invoice it is; `None` for a cash-out of this daemon.
pub(super) fn client_of(invoice: &Invoice) -> Option<NostrKey> {
    match invoice.spec.owner {
        Owner::Remote { client, .. } => Some(client),
        Owner::Atm { .. } => None,
    }
}

pub(super) fn state(invoice: &Invoice) -> HoldState {
    match invoice.phase {
        InvoicePhase::Creating | InvoicePhase::Open => HoldState::Open,
        InvoicePhase::Accepted(_) | InvoicePhase::Committed { .. } | InvoicePhase::Settling { .. } => {
            HoldState::Accepted
        }
        InvoicePhase::Settled { .. } => HoldState::Settled,
        InvoicePhase::Canceling(_) | InvoicePhase::Canceled(_) => HoldState::Canceled,
    }
}

/// The answer to getHoldInvoice; `height` is LND's, when it is known.
pub(super) fn hold_invoice(invoice: &Invoice, height: Option<u32>) -> HoldInvoice {
    let hold = invoice.hold();
    let paid = match invoice.phase {
        InvoicePhase::Settled { paid, .. } => paid.sat_floor(),
        _ => hold.map_or(0, |hold| hold.paid.sat_floor()),
    };
    let settled = match invoice.phase {
        InvoicePhase::Settled { at, .. } => at,
        _ => None,
    };
    let until = match invoice.phase {
        InvoicePhase::Accepted(hold) => Some(invoice.hold_until(&hold)),
        InvoicePhase::Committed { since, .. } => invoice.spec.owner.commit_deadline(since),
        _ => None,
    };
    HoldInvoice {
        payment_hash: invoice.spec.hash,
        state: state(invoice),
        done: invoice.is_done(),
        invoice: invoice.payment_request.clone(),
        amount_sats: invoice.spec.amount.sat_floor(),
        amount_paid_sats: paid,
        accepted_at_unix: hold.map(|hold| hold.since.as_secs()),
        settled_at_unix: settled.map(UnixMs::as_secs),
        funds: invoice.funds(),
        htlc_expiry_height: hold.map(|hold| hold.lowest_expiry_height),
        blocks_left: hold.and_then(|hold| Some(hold.blocks_left(invoice.spec.hold_expiry_delta, height?))),
        hold_deadline_unix: until.map(UnixMs::as_secs),
    }
}

/// The answer to commitHoldInvoice, when the invoice is committed; `blocks_left` was read at LND just now.
pub(super) fn committed(invoice: &Invoice, blocks_left: i64) -> Option<CommittedInvoice> {
    let InvoicePhase::Committed { hold, since } = invoice.phase else {
        return None;
    };
    let deadline = invoice.spec.owner.commit_deadline(since)?;
    let height = i64::from(hold.lowest_expiry_height) - i64::from(invoice.spec.hold_expiry_delta) - blocks_left;
    Some(CommittedInvoice {
        payment_hash: invoice.spec.hash,
        state: HoldState::Accepted,
        commit_deadline_unix: deadline.as_secs(),
        blocks_left,
        amount_paid_sats: hold.paid.sat_floor(),
        htlc_expiry_height: hold.lowest_expiry_height,
        block_height: u32::try_from(height).unwrap_or(0),
    })
}

/// Why an order does not fit the invoice, from the state that it met.
pub(super) fn refusal(invoice: &Invoice, why: &str) -> Failure {
    let code = match invoice.phase {
        InvoicePhase::Creating | InvoicePhase::Open => Code::StillOpen,
        InvoicePhase::Accepted(_) | InvoicePhase::Committed { .. } => Code::TooLate,
        InvoicePhase::Settling { .. } | InvoicePhase::Settled { .. } => Code::AlreadySettled,
        InvoicePhase::Canceling(_) | InvoicePhase::Canceled(_) => Code::AlreadyCanceled,
    };
    Failure::new(code, why)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Preimage;
    use crate::invoice::{CancelReason, Hold, InvoiceSpec};
    use crate::money::{Funds, Msat};

    fn in_phase(phase: InvoicePhase) -> Invoice {
        let owner = Owner::Remote {
            client: NostrKey([3; 32]),
            commit_ms: 9_000,
            force_blocks_left: 6,
        };
        let spec = InvoiceSpec {
            hash: Preimage::from_bytes([1; 32]).hash(),
            owner,
            amount: Msat(60_000),
            memo: String::new(),
            pay_by: UnixMs(1_000),
            hold_ms: 5_000,
            cltv_expiry: 80,
            hold_expiry_delta: 18,
            min_blocks_left: 12,
            private_route_hints: false,
        };
        Invoice {
            phase,
            ..Invoice::requested(spec)
        }
    }

    #[test]
    fn nobody_relies_on_a_hold_that_will_be_canceled_and_nobody_is_refunded_before_lnd_did_it() {
        let hold = Hold {
            paid: Msat(61_000),
            lowest_expiry_height: 180,
            since: UnixMs(2_000),
        };
        let (preimage, reason) = (Preimage::from_bytes([1; 32]), CancelReason::HoldDeadline);
        let hold_of = Some(hold);
        let since = UnixMs(3_000);
        for (phase, said, until) in [
            (InvoicePhase::Open, (HoldState::Open, false), None),
            (InvoicePhase::Accepted(hold), (HoldState::Accepted, false), Some(7)),
            (
                InvoicePhase::Committed { hold, since },
                (HoldState::Accepted, false),
                Some(12),
            ),
            (
                InvoicePhase::Settling {
                    preimage,
                    hold: hold_of,
                    since: Some(since),
                },
                (HoldState::Accepted, false),
                None,
            ),
            (
                InvoicePhase::Settled {
                    paid: Msat(61_000),
                    at: Some(since),
                    funds: Funds::NotFollowed,
                },
                (HoldState::Settled, true),
                None,
            ),
            (
                InvoicePhase::Settled {
                    paid: Msat(61_000),
                    at: Some(since),
                    funds: Funds::Pending,
                },
                (HoldState::Settled, true),
                None,
            ),
            (
                InvoicePhase::Canceling(reason.clone()),
                (HoldState::Canceled, false),
                None,
            ),
            (InvoicePhase::Canceled(reason), (HoldState::Canceled, true), None),
        ] {
            let funds = in_phase(phase.clone()).funds();
            let told = hold_invoice(&in_phase(phase), Some(100));
            assert_eq!(told.funds, funds, "told beside `done`, which does not wait for it");
            assert_eq!(((told.state, told.done), told.hold_deadline_unix), (said, until));
        }
    }

    #[test]
    fn a_commit_tells_its_deadline_and_the_height_it_was_checked_at() {
        let hold = Hold {
            paid: Msat(61_000),
            lowest_expiry_height: 180,
            since: UnixMs(2_000),
        };
        let since = UnixMs(3_000);
        let told = committed(&in_phase(InvoicePhase::Committed { hold, since }), 62).unwrap();
        assert_eq!(
            (told.block_height, told.commit_deadline_unix, told.amount_paid_sats),
            (100, 12, 61)
        );
        assert_eq!(committed(&in_phase(InvoicePhase::Accepted(hold)), 62), None);
    }
}
