//! What the state of an invoice means for its cash-out.
//!
//! Pure; called by the ATM's actor each time an invoice is seen, as often as one likes: it reads levels, not edges. Public
//! for the test of the small world. What must stay true: a cash-out hears "canceled" only when LND has canceled, or when it
//! can still step back itself.

use crate::cashout::{CashOut, Event, Phase};
use crate::invoice::{CancelReason, Invoice, InvoicePhase};
use crate::time::UnixMs;

/// The events that lead `cashout` to where `invoice` is, in order.
#[must_use]
pub fn events(cashout: &CashOut, invoice: &Invoice, at: UnixMs) -> Vec<Event> {
    let mut events = Vec::new();
    let opened = invoice.payment_request.as_ref();
    if let (Phase::Quoted, Some(payment_request)) = (&cashout.phase, opened) {
        let payment_request = payment_request.clone();
        events.push(Event::InvoiceOpened { payment_request });
    }
    match &invoice.phase {
        InvoicePhase::Accepted(hold) | InvoicePhase::Committed { hold, .. } if is_waiting(cashout) => {
            events.push(Event::PaymentHeld { paid: hold.paid, at });
        }
        InvoicePhase::Settled { funds, .. } if cashout.books.settled => events.push(Event::FundsSeen { funds: *funds }),
        InvoicePhase::Settled { paid, funds, .. } => events.push(Event::InvoiceSettled {
            paid: *paid,
            funds: *funds,
        }),
        InvoicePhase::Canceled(why) => events.push(Event::InvoiceCanceled { reason: text(why) }),
        // It will be canceled, which a cash-out on its own way to the end hears when it is done.
        InvoicePhase::Canceling(why) if can_step_back(cashout) => {
            events.push(Event::InvoiceCanceled { reason: text(why) });
        }
        _ => {}
    }
    events
}

fn is_waiting(cashout: &CashOut) -> bool {
    matches!(cashout.phase, Phase::Quoted | Phase::AwaitingPayment)
}

fn can_step_back(cashout: &CashOut) -> bool {
    is_waiting(cashout) || matches!(cashout.phase, Phase::Held { .. })
}

fn text(why: &CancelReason) -> String {
    match why {
        CancelReason::NotPaid => "not paid in time".into(),
        CancelReason::HoldDeadline => "held too long without a dispense".into(),
        CancelReason::CommitDeadline => "committed too long ago".into(),
        CancelReason::WindowTooShort => "too few blocks left before LND cancels".into(),
        CancelReason::BadHold(why) => format!("the payment can not be used: {why}"),
        CancelReason::AddRefused(why) => format!("LND refuses the invoice: {why}"),
        CancelReason::Owner(why) => why.clone(),
        CancelReason::ByLnd => "canceled at LND".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cashout::tests::whole_history;
    use crate::ids::CashOutId;
    use crate::invoice::{Hold, InvoiceSpec, Owner};
    use crate::money::{Funds, Msat};

    fn cashout() -> CashOut {
        let Event::Quoted { quote } = whole_history().remove(0) else {
            panic!("the first event is the quote")
        };
        CashOut::quoted(CashOutId::new(UnixMs(1), 1), *quote)
    }

    fn invoice(cashout: &CashOut, phase: InvoicePhase) -> Invoice {
        let quote = &cashout.quote;
        let spec = InvoiceSpec {
            hash: quote.hash,
            owner: Owner::Atm {
                atm: quote.atm.clone(),
                cashout: cashout.id,
            },
            amount: quote.price,
            memo: String::new(),
            pay_by: quote.pay_by,
            hold_ms: 1,
            cltv_expiry: 80,
            hold_expiry_delta: 18,
            min_blocks_left: 12,
            private_route_hints: false,
        };
        Invoice {
            payment_request: Some("lnbc1".into()),
            phase,
            ..Invoice::requested(spec)
        }
    }

    fn names(cashout: &CashOut, phase: InvoicePhase) -> Vec<&'static str> {
        events(cashout, &invoice(cashout, phase), UnixMs(5))
            .iter()
            .map(Event::name)
            .collect()
    }

    #[test]
    fn a_cash_out_that_missed_the_opening_catches_up_with_the_payment() {
        let hold = Hold {
            paid: Msat(1),
            lowest_expiry_height: 9,
            since: UnixMs(2),
        };
        assert_eq!(
            names(&cashout(), InvoicePhase::Accepted(hold)),
            ["invoice_opened", "payment_held"]
        );
    }

    #[test]
    fn a_cancel_on_its_way_is_news_only_to_who_can_step_back() {
        let canceling = || InvoicePhase::Canceling(CancelReason::NotPaid);
        let mut cashout = cashout();
        assert_eq!(names(&cashout, canceling()), ["invoice_opened", "invoice_canceled"]);
        cashout.phase = Phase::Canceling { reason: "r".into() };
        assert!(names(&cashout, canceling()).is_empty());
        assert_eq!(
            names(&cashout, InvoicePhase::Canceled(CancelReason::NotPaid)),
            ["invoice_canceled"]
        );
        cashout.phase = Phase::Settling;
        assert!(names(&cashout, canceling()).is_empty());
    }

    #[test]
    fn a_settlement_is_told_first_and_then_what_became_of_its_money() {
        let settled = |funds| InvoicePhase::Settled {
            paid: Msat(1),
            at: None,
            funds,
        };
        let mut cashout = cashout();
        cashout.phase = Phase::Settling;
        let told = events(&cashout, &invoice(&cashout, settled(Funds::Final)), UnixMs(5));
        assert!(
            matches!(
                told[..],
                [Event::InvoiceSettled {
                    funds: Funds::Final,
                    ..
                }]
            ),
            "a notice was lost"
        );
        cashout.books.settled = true;
        cashout.phase = Phase::Completed;
        assert_eq!(names(&cashout, settled(Funds::Lost)), ["funds_seen"]);
    }
}
