//! What the API shows of cash-outs and machines.
//!
//! What must stay true: a preimage is never copied, and whatever waits for an operator says what to do, with the
//! command that tells tellerd of it.

use crate::actors::fleet::AtmStatus;
use crate::api::{AtmView, CashOutView, CassetteView};
use crate::cashout::ledger::Cassette;
use crate::cashout::{CashOut, Phase, UnknownPolicy, deadline};
use crate::money::{Funds, Minor};

/// One cash-out.
#[must_use]
pub fn cashout(cashout: &CashOut) -> CashOutView {
    let quote = &cashout.quote;
    CashOutView {
        id: cashout.id,
        atm: quote.atm.clone(),
        state: cashout.phase.name().to_owned(),
        reason: reason(cashout),
        ended: cashout.has_ended(),
        operator_action: operator_action(cashout),
        amount_minor: quote.amount,
        fee_minor: quote.fee,
        currency: quote.currency,
        price_msat: quote.price,
        paid_msat: cashout.books.paid,
        payment_request: cashout.payment_request.clone(),
        payment_hash: quote.hash.to_string(),
        created_unix_ms: quote.at,
        pay_by_unix_ms: quote.pay_by,
        deadline_unix_ms: deadline(cashout),
        delivered_minor: cashout.books.delivered,
        claim_minor: cashout.books.claim,
        loss_minor: cashout.books.loss,
        settled: cashout.books.settled,
        funds: cashout.funds(),
    }
}

fn reason(cashout: &CashOut) -> Option<String> {
    let lost = "the hold was lost: LND has canceled the invoice";
    match &cashout.phase {
        Phase::OutcomeUnknown { reason, .. } if cashout.hold_lost => Some(format!("{reason}; {lost}")),
        Phase::OutcomeUnknown { reason, .. } | Phase::Canceling { reason } | Phase::Canceled { reason } => {
            Some(reason.clone())
        }
        Phase::NeedsOperator { why } => Some(why.clone()),
        Phase::Dispensing { .. } if cashout.hold_lost => Some(lost.to_owned()),
        Phase::Held { .. } if cashout.orders > 0 => {
            Some("no note came out at first; other cassettes are tried".to_owned())
        }
        Phase::ClaimOwed => Some("not all notes came out and the payment was taken".to_owned()),
        _ => None,
    }
}

fn operator_action(cashout: &CashOut) -> Option<String> {
    let (id, atm, currency) = (cashout.id, &cashout.quote.atm, cashout.quote.currency);
    match &cashout.phase {
        Phase::OutcomeUnknown {
            at_least, no_evidence, ..
        } => {
            let first = if *no_evidence {
                ""
            } else {
                "The dispenser is being asked. If it can not tell: "
            };
            let bound = match *at_least {
                Minor::ZERO => String::new(),
                value => format!(" At least {value} {currency} came out."),
            };
            let policy = match cashout.quote.policy.unknown_at_deadline {
                _ if *at_least >= cashout.quote.amount => "takes the payment, for all notes are out",
                UnknownPolicy::Cancel => "gives the customer the money back",
                UnknownPolicy::Settle => "takes the notes as delivered",
            };
            Some(format!(
                "{first}Find out what {atm} gave the customer (count its cassettes and reject tray), then: tellerd resolve {id} \
                 --delivered AMOUNT, with 0 for nothing.{bound} At the deadline the policy {policy}."
            ))
        }
        Phase::ClaimOwed => {
            let wait = match cashout.books.funds {
                Funds::Pending => ". His own payment is not final yet: you may wait for that.",
                _ => "",
            };
            Some(format!(
                "Pay the customer {} {currency}, then: tellerd resolve {id} --claim-paid{wait}",
                cashout.books.claim
            ))
        }
        Phase::NeedsOperator { .. } if cashout.books.funds == Funds::Lost => {
            // The claim was void when the money was seen to be lost; it may have been paid before.
            let owed = cashout.quote.amount.saturating_sub(cashout.books.delivered);
            let paid = match owed > cashout.books.claim {
                true => format!(" If you gave him the {owed} {currency} owed: --claim-paid first."),
                false => String::new(),
            };
            // Short: a service shows 256 characters of it.
            Some(format!(
                "The customer has the money back. LND's log and `lncli closedchannels` may tell why; ask him for it. Then close \
                 it with the loss in the books: tellerd resolve {id} --close --note TEXT.{paid}"
            ))
        }
        Phase::NeedsOperator { .. } => Some(format!(
            "No rule fits. Look at it (tellerd journal show --data DATA_DIR {id}), make good outside of tellerd what has to \
             be, then close it with the books as they are: tellerd resolve {id} --close --note TEXT"
        )),
        _ => None,
    }
}

/// One machine.
#[must_use]
pub fn atm(atm: &AtmStatus) -> AtmView {
    let cassettes = &atm.book.notes.cassettes;
    AtmView {
        id: atm.id.clone(),
        name: atm.name.clone(),
        state: atm.state.as_str().to_owned(),
        reason: atm.reason.clone(),
        cassettes: cassettes.iter().map(|c| cassette(c, &atm.open)).collect(),
        open: atm.open.iter().map(|cashout| cashout.id).collect(),
    }
}

fn cassette(cassette: &Cassette, open: &[CashOut]) -> CassetteView {
    let orders = open.iter().filter_map(CashOut::reserved);
    let promised = orders.flat_map(|order| &order.cassettes);
    let here = promised.filter(|promised| promised.position == cassette.position);
    CassetteView {
        position: cassette.position,
        denomination_minor: cassette.denomination,
        loaded: cassette.loaded,
        delivered: cassette.delivered,
        rejected: cassette.rejected,
        retracted: cassette.retracted,
        unaccounted: cassette.unaccounted,
        remaining: cassette.remaining,
        reserved: here.fold(0, |sum, promised| sum.saturating_add(promised.notes)),
    }
}
