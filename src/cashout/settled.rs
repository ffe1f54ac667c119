//! What follows from a settlement: the money that is taken, and whether it comes.
//!
//! Pure; called by the machine. LND's "settled" is its database only: a cash-out is funded when the HTLCs are at their end
//! with the money here. What must stay true: what is known of the money is told once and stays; money that never comes is
//! a loss in the books, and an operator hears of it.

use super::{CashOut, Phase};
use crate::money::{Funds, Minor, Msat};

/// LND settled the invoice.
pub(super) fn invoice_settled(cashout: &CashOut, paid: Msat, funds: Funds) -> Option<CashOut> {
    let mut next = cashout.clone();
    next.books.paid = paid;
    next.books.settled = true;
    next.books.funds = funds;
    match cashout.phase {
        Phase::Settling if next.books.claim > Minor::ZERO => next.phase = Phase::ClaimOwed,
        Phase::Settling => next.phase = Phase::Completed,
        Phase::Quoted | Phase::AwaitingPayment | Phase::Held { .. } | Phase::Canceling { .. } => {
            next.books.claim = cashout.quote.amount.saturating_sub(cashout.books.delivered);
            next.books.loss = Minor::ZERO;
            next.phase = Phase::NeedsOperator {
                why: "lnd settled an invoice that was not to be settled".into(),
            };
        }
        // An outcome in flight is finished first; the invoice's state is read again then.
        _ => return None,
    }
    Some(if funds == Funds::Lost { lost(next) } else { next })
}

/// It is known what became of the settled money.
pub(super) fn funds_seen(cashout: &CashOut, funds: Funds) -> Option<CashOut> {
    if cashout.books.funds != Funds::Pending || funds == Funds::Pending {
        return None;
    }
    let mut next = cashout.clone();
    next.books.funds = funds;
    Some(if funds == Funds::Lost { lost(next) } else { next })
}

/// The customer has the money back although LND calls the invoice settled. What he was given, notes and a claim that was
/// paid, is given away; a claim that was not paid is void.
fn lost(mut next: CashOut) -> CashOut {
    if !matches!(next.phase, Phase::Completed) {
        next.books.claim = Minor::ZERO;
    }
    next.books.settled = false;
    next.books.loss = Minor(next.books.delivered.0.saturating_add(next.books.claim.0));
    next.phase = Phase::NeedsOperator {
        why: "settled at LND, but an HTLC ended without the money".into(),
    };
    next
}

/// The operator had paid the claim when he heard that the money is lost: that is given away too. The outer `None`: there was
/// no claim; the inner: it is in the books already.
pub(super) fn paid_before_it_was_lost(cashout: &CashOut) -> Option<Option<CashOut>> {
    let books = &cashout.books;
    let claim = cashout.quote.amount.saturating_sub(books.delivered);
    if claim == Minor::ZERO || books.claim == claim {
        return (claim > Minor::ZERO).then_some(None);
    }
    let mut next = cashout.clone();
    next.books.claim = claim;
    next.books.loss = Minor(books.delivered.0.saturating_add(claim.0));
    Some(Some(next))
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::cashout::tests::{
        and, committed, fresh, held, opened, partial, played, reported, resolved, seen, settled_and,
    };
    use crate::cashout::{Books, CancelBy, Effect, Event, PartialPolicy, Resolution, UnknownPolicy, apply, effects};
    use crate::hardware::Outcome;

    /// A settled cash-out in every state that its money can be in.
    pub(in crate::cashout) fn states() -> Vec<(&'static str, CashOut)> {
        let to = |events: &[Event]| played(fresh(PartialPolicy::Owe, UnknownPolicy::Cancel), events);
        let whole = [opened(), held(), committed(), reported(&[2, 2], Outcome::Complete)];
        let part = [opened(), held(), committed(), reported(&[2, 1], partial())];
        vec![
            (
                "completed, money pending",
                to(&and(&whole, &[settled_and(Funds::Pending)])),
            ),
            (
                "completed, money final",
                to(&and(&whole, &[settled_and(Funds::Pending), seen(Funds::Final)])),
            ),
            (
                "needs_operator, completed and the money lost",
                to(&and(&whole, &[settled_and(Funds::Pending), seen(Funds::Lost)])),
            ),
            (
                "claim_owed, money pending",
                to(&and(&part, &[settled_and(Funds::Pending)])),
            ),
            (
                "completed, claim paid and money pending",
                to(&and(
                    &part,
                    &[settled_and(Funds::Pending), resolved(Resolution::ClaimPaid)],
                )),
            ),
            (
                "needs_operator, claim paid and the money lost",
                to(&and(
                    &part,
                    &[
                        settled_and(Funds::Pending),
                        resolved(Resolution::ClaimPaid),
                        seen(Funds::Lost),
                    ],
                )),
            ),
            (
                "needs_operator, claim owed and the money lost",
                to(&and(&part, &[settled_and(Funds::Pending), seen(Funds::Lost)])),
            ),
            ("needs_operator, settled without cash, money pending", {
                to(&[
                    opened(),
                    Event::CancelRequested { by: CancelBy::Customer },
                    settled_and(Funds::Pending),
                ])
            }),
        ]
    }

    /// Funded is final only with the money there; money that is lost is a loss that an operator has to see.
    pub(in crate::cashout) fn funds_rules(before: &CashOut, after: &CashOut) -> Result<(), TestCaseError> {
        let (was, is) = (before.books.funds, after.books.funds);
        if was != is {
            prop_assert!(was == Funds::Pending || was == Funds::NotFollowed && !before.books.settled);
        }
        if is == Funds::Pending {
            prop_assert!(!after.is_final() && after.books.settled && !after.occupies_atm());
            prop_assert!(
                effects(after).contains(&Effect::AwaitFunds),
                "a lost notice is asked for again"
            );
        }
        if is == Funds::Lost {
            prop_assert!(!after.books.settled, "it was not taken");
            prop_assert_eq!(
                after.books.loss.0,
                after.books.delivered.0 + after.books.claim.0,
                "all that was given is given away"
            );
            let told = matches!(after.phase, Phase::NeedsOperator { .. });
            prop_assert!(
                told || matches!(before.phase, Phase::NeedsOperator { .. }),
                "an operator saw it"
            );
        }
        Ok(())
    }

    #[test]
    fn a_cash_out_is_at_its_end_only_when_the_money_is_there() {
        let paid_out = |events: &[Event]| {
            let start = fresh(PartialPolicy::Owe, UnknownPolicy::Cancel);
            let whole = [opened(), held(), committed(), reported(&[2, 2], Outcome::Complete)];
            played(start, &and(&whole, events))
        };
        let pending = paid_out(&[settled_and(Funds::Pending)]);
        assert!(pending.has_ended() && !pending.is_final() && !pending.occupies_atm());
        assert_eq!(pending.reserved(), None, "its notes are gone, none is kept from others");
        assert!(paid_out(&[settled_and(Funds::Pending), seen(Funds::Final)]).is_final());
        assert!(paid_out(&[settled_and(Funds::Pending), seen(Funds::NotFollowed)]).is_final());
        let lost = paid_out(&[settled_and(Funds::Pending), seen(Funds::Lost)]);
        assert_eq!(
            (lost.phase.name(), lost.books.settled, lost.books.loss),
            ("needs_operator", false, Minor(6_000))
        );
        let closed = played(lost, &[resolved(Resolution::Close)]);
        assert!(closed.is_final());
        assert_eq!(
            (closed.phase.name(), closed.drift(), closed.funds()),
            ("canceled", 0, Some(Funds::Lost))
        );
    }

    /// He pays the customer at the machine, and the news that the money is lost comes before he says so.
    #[test]
    fn a_claim_that_was_paid_when_the_money_turned_out_to_be_lost_is_in_the_books() {
        let part = [opened(), held(), committed(), reported(&[2, 1], partial())];
        let paid = resolved(Resolution::ClaimPaid);
        let start = || fresh(PartialPolicy::Owe, UnknownPolicy::Cancel);
        let lost = played(start(), &and(&part, &[settled_and(Funds::Pending), seen(Funds::Lost)]));
        let told = apply(&lost, &paid).expect("it happened").expect("news");
        assert_eq!(told.phase, lost.phase, "an operator still has to look into it");
        assert_eq!((told.books.claim, told.books.loss), (Minor(1_000), Minor(6_000)));
        assert_eq!(apply(&told, &paid), Ok(None), "once");
        let closed = played(told, &[resolved(Resolution::Close)]);
        assert_eq!((closed.is_final(), closed.drift()), (true, 0));
        let whole = [opened(), held(), committed(), reported(&[2, 2], Outcome::Complete)];
        let lost = played(start(), &and(&whole, &[settled_and(Funds::Lost)]));
        assert!(apply(&lost, &paid).is_err(), "there was no claim");
    }

    /// Do not edit the JSON: data directories in the field hold these bytes.
    #[test]
    fn a_settlement_from_before_it_was_followed_ends_as_it_did() {
        let settling = played(
            fresh(PartialPolicy::Owe, UnknownPolicy::Cancel),
            &[opened(), held(), committed(), reported(&[2, 2], Outcome::Complete)],
        );
        let old: Event = serde_json::from_str(r#"{"type":"invoice_settled","paid":61000000}"#).unwrap();
        let completed = apply(&settling, &old).unwrap().unwrap();
        assert!(completed.is_final());
        let books = r#"{"paid":61000000,"settled":true,"delivered":6000,"claim":0,"loss":0}"#;
        assert_eq!(serde_json::to_string(&completed.books).unwrap(), books);
        assert_eq!(serde_json::from_str::<Books>(books).unwrap(), completed.books);
    }
}
