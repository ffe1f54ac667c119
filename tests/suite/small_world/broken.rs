//! Classic mistakes, to prove that the exploration finds them: one at a time, in the carriers or in the machine.
//!
//! Called by the model, which asks at the place of each. Must stay true: one that the rules do not find is no excuse to take
//! it off the list.

use tellerd::actors::item::Machine;
use tellerd::cashout::{self, CashOut, Event, Phase};
use tellerd::money::Minor;

use super::table::{Answer, Twist};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// The settle order leaves while the dispense report is still being written down.
    SettleBeforeReport,
    /// The order is commanded while its intent is still being written down.
    DispenseBeforeIntent,
    /// A restart takes a running dispense for one that was not started.
    DispenseAgainAfterRestart,
    /// The command is sent again when its answer is lost.
    ResendMotion,
    /// An unknown outcome is taken for none.
    CancelAfterUnknown,
    /// An outcome that a restart made unknown is decided by policy at once.
    DecidedAtOnce,
    /// A new mix is tried after an unknown outcome.
    NewMixAfterUnknown,
    /// The ATM's actor does not arm its timers when it takes up what another life began.
    DeadlineLostAtRestart,
    /// The same of the invoice's actor.
    HoldDeadlineLostAtRestart,
    /// The end of LND's stream is taken for the end of the invoice.
    StreamEndFinal,
    /// A lost answer to SettleInvoice is taken for success.
    LostAnswerIsSettled,
    /// The hold is not read anew at LND before a dispense.
    HoldNotReread,
    /// A check of the hold is acted upon however old it is.
    StaleCheck,
    /// The loss of an absorbed partial dispense is not booked.
    LossNotBooked,
    /// The notes of an order are booked twice.
    NotesBookedTwice,
    /// "Will be canceled" is taken for "is canceled" by a cash-out on its way to the end.
    CancelingIsCanceled,
    /// An owner waits for notices of its invoice, which may be lost, and never asks.
    NeverAsksAgain,
    /// The next customer is promised notes while the one before still has the machine.
    PromiseWhileBusy,
    /// What is settled too late, with the hold gone, is completed all the same.
    SettledWhateverLndSays,
}

impl Broken {
    /// The machine that is wrong, when it is the machine.
    pub fn cashout_twist(self) -> Option<Twist<CashOut>> {
        match self {
            Self::CancelAfterUnknown => Some(cancel_after_unknown),
            Self::DecidedAtOnce => Some(decided_at_once),
            Self::NewMixAfterUnknown => Some(new_mix_after_unknown),
            Self::LossNotBooked => Some(loss_not_booked),
            Self::NotesBookedTwice => Some(notes_booked_twice),
            Self::SettledWhateverLndSays => Some(settled_whatever_lnd_says),
            _ => None,
        }
    }
}

/// Changes the state that the real machine goes to.
fn changed(answer: Answer<CashOut>, change: impl FnOnce(&mut CashOut)) -> Answer<CashOut> {
    answer.map(|next| {
        next.map(|mut next| {
            change(&mut next);
            next
        })
    })
}

fn cancel_after_unknown(_: &CashOut, _: &Event, answer: Answer<CashOut>) -> Answer<CashOut> {
    changed(answer, |next| {
        if let Phase::OutcomeUnknown { .. } = next.phase {
            next.phase = Phase::Canceling { reason: String::new() };
        }
    })
}

fn decided_at_once(_: &CashOut, event: &Event, answer: Answer<CashOut>) -> Answer<CashOut> {
    let Event::Interrupted { at } = event else {
        return answer;
    };
    let decided = |unknown: CashOut| match cashout::deadline(&unknown) {
        Some(due) => unknown.apply(&Event::DeadlinePassed { at: due.max(*at) }),
        None => Ok(Some(unknown)),
    };
    match answer? {
        Some(unknown) => decided(unknown).map_err(|refusal| refusal.to_string()),
        None => Ok(None),
    }
}

fn new_mix_after_unknown(before: &CashOut, _: &Event, answer: Answer<CashOut>) -> Answer<CashOut> {
    changed(answer, |next| {
        if let (Phase::Dispensing { intent }, Phase::OutcomeUnknown { until, .. }) = (&before.phase, &next.phase) {
            next.excluded = intent.order.cassettes.iter().map(|c| c.position).collect();
            next.phase = Phase::Held { until: *until };
        }
    })
}

fn loss_not_booked(_: &CashOut, _: &Event, answer: Answer<CashOut>) -> Answer<CashOut> {
    changed(answer, |next| {
        if let Phase::Canceling { .. } = next.phase {
            next.books.loss = Minor::ZERO;
        }
    })
}

fn notes_booked_twice(before: &CashOut, _: &Event, answer: Answer<CashOut>) -> Answer<CashOut> {
    changed(answer, |next| {
        if next.notes.len() > before.notes.len() {
            next.notes.extend(next.notes.clone());
        }
    })
}

fn settled_whatever_lnd_says(before: &CashOut, event: &Event, answer: Answer<CashOut>) -> Answer<CashOut> {
    changed(answer, |next| {
        if let (Phase::Settling, Event::InvoiceCanceled { .. }) = (&before.phase, event) {
            *next = CashOut {
                phase: Phase::Completed,
                ..before.clone()
            };
        }
    })
}
