//! What must be true: in each state of an item, at each act towards the world, between the items of the machine.
//!
//! Called by the model and the exploration. Source: DESIGN.md section 1. Must stay true: an act is judged by what is durable
//! and by what really is, never by what tellerd has in memory.

use tellerd::actors::item::Machine;
use tellerd::cashout::{self, CashOut, Event, Phase, UnknownPolicy};
use tellerd::hardware::{CassetteReport, DispenseOrder};
use tellerd::invoice::{self, InvoicePhase};
use tellerd::money::{Funds, Minor};

use super::item::{Item, Lnd, Money, Motion};
use super::model::{AMOUNT, DECIDED, Model, loaded, order_number, out};

type Fault = Option<String>;

fn broken(rule: &str, found: impl std::fmt::Display) -> Fault {
    Some(format!("{rule}: {found}"))
}

/// Decided by the operator's policy with nothing known.
fn is_decided(cashout: &CashOut) -> bool {
    let unaccounted = cashout.notes.iter().any(|notes| notes.unaccounted > 0);
    let canceled = matches!(
        &cashout.phase,
        Phase::Canceling { reason } | Phase::Canceled { reason } if reason == DECIDED
    );
    let settle = cashout.quote.policy.unknown_at_deadline == UnknownPolicy::Settle;
    canceled || (unaccounted && settle && cashout.books.delivered == AMOUNT)
}

/// What nobody knows is decided when its time or its blocks are up, and after the device was asked.
pub fn unlawful_decision(before: &CashOut, event: &Event, after: &CashOut) -> Fault {
    let its_time = matches!(before.phase, Phase::OutcomeUnknown { .. })
        && matches!(event, Event::DeadlinePassed { .. } | Event::WindowClosing { .. });
    let human = matches!(event, Event::OperatorResolved { .. });
    let open = open_order(before).is_some() && is_decided(after);
    (open && !its_time && !human).then(|| {
        format!(
            "unknown is a state: decided in {} by {}",
            before.phase.name(),
            event.name()
        )
    })
}

fn open_order(cashout: &CashOut) -> Option<&DispenseOrder> {
    match &cashout.phase {
        Phase::Dispensing { intent } | Phase::OutcomeUnknown { intent, .. } => Some(&intent.order),
        _ => None,
    }
}

impl Model {
    /// A command is about to leave for order `number`.
    pub fn unlawful_command(&self, item: &Item, number: usize) -> Fault {
        let Some(cashout) = self.cashout(item) else {
            return broken("write before act", "a command for a cash-out that is not durable");
        };
        if open_order(cashout).is_none() || order_number(cashout) != number {
            return broken(
                "write before act",
                format_args!("a command while the journal says {}", cashout.phase.name()),
            );
        }
        if item.motions[number] != Motion::None {
            return broken("at most once", "the order was commanded before");
        }
        if item.motions.iter().any(|motion| motion.notes() > 0) {
            return broken("at most once", "notes left for an earlier order");
        }
        if item.lnd != Lnd::Accepted {
            return broken(
                "no dispense without a hold",
                format_args!("LND's invoice is {:?}", item.lnd),
            );
        }
        let committed = self
            .invoice(item)
            .is_some_and(|i| matches!(i.phase, InvoicePhase::Committed { .. }));
        if !committed {
            return broken(
                "no dispense without a hold",
                "the invoice is not committed: its deadline may end the hold",
            );
        }
        None
    }

    pub fn unlawful_add(&self, item: &Item) -> Fault {
        let durable = self.cashout(item).is_some() && self.invoice(item).is_some();
        (!durable).then(|| "write before act: an invoice is added before its record".to_owned())
    }

    /// `SettleInvoice` is about to leave.
    pub fn unlawful_settle(&self, item: &Item) -> Fault {
        let cashout = self.cashout(item)?;
        if cashout.books.delivered == Minor::ZERO || open_order(cashout).is_some() {
            let state = cashout.phase.name();
            return broken(
                "write before act",
                format_args!("a settle while the journal says {state}"),
            );
        }
        (out(item.motions).1 == Minor::ZERO && !is_decided(cashout))
            .then(|| "no settle at proven zero: no note left".to_owned())
    }

    /// `CancelInvoice` is about to leave.
    pub fn unlawful_cancel(&self, item: &Item) -> Fault {
        let ordered = self
            .invoice(item)
            .is_some_and(|i| matches!(i.phase, InvoicePhase::Canceling(_)));
        (!ordered)
            .then(|| "write before act: a cancel that is not durable".to_owned())
            .or_else(|| self.unlawful_end(item))
    }

    /// The hold is given up by a cancel of ours.
    pub fn unlawful_end(&self, item: &Item) -> Fault {
        let cashout = self.cashout(item)?;
        let (_, value) = out(item.motions);
        if item.lnd != Lnd::Accepted || (value == Minor::ZERO && item.device_is_idle()) {
            return None;
        }
        let booked = matches!(cashout.phase, Phase::Canceling { .. } | Phase::Canceled { .. })
            && (cashout.books.loss == value || (is_decided(cashout) && cashout.books.loss <= value));
        (!booked || !item.device_is_idle()).then(|| {
            format!(
                "no cancel after cash: {value} are out, a loss of {} is booked",
                cashout.books.loss
            )
        })
    }

    /// What is wrong with a state.
    pub fn fault(&self, item: &Item) -> Fault {
        let cashout = self.cashout(item)?;
        note_fault(&[&self.notes(item)])
            .or_else(|| self.books_are_true(item, cashout))
            .or_else(|| self.money_is_owned(item, cashout))
            .or_else(|| self.end_is_true(item, cashout))
            .or_else(|| self.invoice_end_is_true(item))
            .or_else(|| self.has_deadlines(item, cashout))
    }

    fn books_are_true(&self, item: &Item, cashout: &CashOut) -> Fault {
        let (_, value) = out(item.motions);
        if value > AMOUNT {
            return broken("at most once", format_args!("{value} are out for {AMOUNT}"));
        }
        if cashout.drift() != 0 {
            return broken(
                "conservation",
                format_args!("the books of a cash-out drift by {}", cashout.drift()),
            );
        }
        let books = &cashout.books;
        if open_order(cashout).is_some() || books.delivered == value {
            return None;
        }
        let by_policy = is_decided(cashout) && (books.delivered <= value || books.delivered == AMOUNT);
        (!by_policy).then(|| format!("conservation: {value} are out, {} are booked", books.delivered))
    }

    /// LND's word against the notes.
    fn money_is_owned(&self, item: &Item, cashout: &CashOut) -> Fault {
        let (_, value) = out(item.motions);
        if item.lnd == Lnd::Settled && value == Minor::ZERO && !is_decided(cashout) {
            return broken("no settle at proven zero", "LND has settled, no note left");
        }
        if cashout.books.settled && item.lnd != Lnd::Settled {
            return broken(
                "truthful",
                format_args!("booked as settled, LND's invoice is {:?}", item.lnd),
            );
        }
        None
    }

    fn end_is_true(&self, item: &Item, cashout: &CashOut) -> Fault {
        let books = &cashout.books;
        let (_, value) = out(item.motions);
        let lnd = item.lnd;
        let known = matches!(
            (books.funds, item.money),
            (Funds::NotFollowed | Funds::Pending, _) | (Funds::Final, Money::Final) | (Funds::Lost, Money::Lost)
        );
        if !known {
            return broken(
                "truthful",
                format_args!("money {:?} is told as {:?}", item.money, books.funds),
            );
        }
        let lost = item.money == Money::Lost;
        // Nobody can pay what was never shown.
        let never_held =
            matches!(lnd, Lnd::None | Lnd::Canceled) || (lnd == Lnd::Open && cashout.payment_request.is_none());
        let right = match &cashout.phase {
            Phase::Completed | Phase::ClaimOwed => lnd == Lnd::Settled,
            Phase::Canceled { .. } => never_held || (lnd == Lnd::Settled && books.funds == Funds::Lost && lost),
            Phase::NeedsOperator { .. } => lnd.is_final(),
            _ => true,
        };
        if !right {
            return broken(
                "truthful",
                format_args!("{} while LND's invoice is {lnd:?}", cashout.phase.name()),
            );
        }
        let given_away = matches!(cashout.phase, Phase::Canceled { .. }) && !lost;
        let by_policy = is_decided(cashout) && (books.loss <= value || books.loss == books.delivered);
        if given_away && books.loss != value && !by_policy {
            return broken(
                "no cancel after cash",
                format_args!("canceled, {value} are out, a loss of {} is booked", books.loss),
            );
        }
        let owed = AMOUNT.saturating_sub(value);
        let settled = matches!(cashout.phase, Phase::Completed | Phase::ClaimOwed);
        (settled && books.claim != owed && !is_decided(cashout))
            .then(|| format!("conservation: {value} are out, a claim of {} is booked", books.claim))
    }

    fn invoice_end_is_true(&self, item: &Item) -> Fault {
        let invoice = self.invoice(item)?;
        let shown = self.cashout(item).is_some_and(|c| c.payment_request.is_some());
        let right = match &invoice.phase {
            InvoicePhase::Settled { .. } => item.lnd == Lnd::Settled,
            InvoicePhase::Canceled(_) => {
                matches!(item.lnd, Lnd::None | Lnd::Canceled) || (item.lnd == Lnd::Open && !shown)
            }
            InvoicePhase::Creating => matches!(item.lnd, Lnd::None | Lnd::Open | Lnd::Canceled),
            _ => true,
        };
        (!right).then(|| {
            format!(
                "truthful: the invoice is {}, at LND {:?}",
                invoice.phase.name(),
                item.lnd
            )
        })
    }

    /// Whoever waits has a timer that ends it; held money is on its way to an end.
    fn has_deadlines(&self, item: &Item, cashout: &CashOut) -> Fault {
        let ticks = cashout::deadline(cashout).is_some() && !item.unarmed[0];
        let waits = cashout.occupies_atm() && !matches!(cashout.phase, Phase::Dispensing { .. });
        if waits && !ticks {
            return broken(
                "deadlines survive",
                format_args!("{} without one", cashout.phase.name()),
            );
        }
        let invoice = self.invoice(item)?;
        let ends = invoice::deadline(invoice).is_some() && !item.unarmed[1];
        match invoice.phase {
            InvoicePhase::Creating | InvoicePhase::Open | InvoicePhase::Accepted(_) if !ends => broken(
                "deadlines survive",
                format_args!("an invoice that is {} without one", invoice.phase.name()),
            ),
            InvoicePhase::Committed { .. } if item.lnd == Lnd::Accepted => {
                use cashout::Effect as E;
                let acts = cashout::effects(cashout).iter();
                let on_its_way = acts.clone().any(|e| matches!(e, E::Dispense | E::Settle | E::Cancel));
                (!ticks && !on_its_way).then(|| {
                    format!(
                        "deadlines survive: a committed hold, the cash-out is {}",
                        cashout.phase.name()
                    )
                })
            }
            _ => None,
        }
    }

    /// At its end, with nothing on its way that could change it. An invoice that came to LND after its cancel was answered
    /// with "unknown" was never shown to anybody: LND ends it at its expiry.
    pub fn is_at_end(&self, item: &Item) -> bool {
        let over = self.cashout(item).is_none_or(Machine::is_final) && self.invoice(item).is_none_or(Machine::is_final);
        let quiet = item.invoice.writes == 0 && !item.wire.settle && !item.wire.cancel;
        let shown = self.cashout(item).is_some_and(|c| c.payment_request.is_some());
        let payable = item.lnd == Lnd::Accepted || ((item.lnd == Lnd::Open || item.wire.add) && shown);
        over && quiet && !payable
    }

    /// Nothing is left that tellerd could do: it waits for an operator, by name.
    pub fn is_named(&self, item: &Item) -> bool {
        let waits = |c: &CashOut| matches!(c.phase, Phase::ClaimOwed | Phase::NeedsOperator { .. });
        item.lnd.is_final() && item.cashout.is_quiet() && self.cashout(item).is_some_and(waits)
    }

    /// An item's notes.
    pub fn notes(&self, item: &Item) -> Notes {
        let mut notes = Notes::default();
        if let Some(cashout) = self.cashout(item) {
            for cassette in cashout.reserved().iter().flat_map(|order| &order.cassettes) {
                notes.promised[usize::from(cassette.position) - 1] += cassette.notes;
            }
            notes.booked.clone_from(&cashout.notes);
            notes.left = out(item.motions).0;
        }
        notes
    }
}

/// An item's notes by cassette: what is booked, what really left, what is still promised.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Notes {
    booked: Vec<CassetteReport>,
    left: [u32; 2],
    pub promised: [u32; 2],
}

/// The machine's books, by the real ledger, against the notes that left.
pub fn note_fault(items: &[&Notes]) -> Fault {
    let mut ledger = loaded();
    for notes in items {
        ledger.book(&notes.booked);
    }
    if ledger.drift() != 0 {
        return broken(
            "conservation",
            format_args!("the machine's books drift by {}", ledger.drift()),
        );
    }
    for (place, cassette) in ledger.cassettes.iter().enumerate() {
        let left: u32 = items.iter().map(|notes| notes.left[place]).sum();
        let open: u32 = items.iter().map(|notes| notes.promised[place]).sum();
        let (delivered, unaccounted) = (cassette.delivered, cassette.unaccounted);
        if left < delivered || left > delivered + unaccounted + open {
            let position = cassette.position;
            let found = format_args!(
                "{left} notes left cassette {position}, {delivered} are booked, {unaccounted} lost sight of"
            );
            return broken("conservation", found);
        }
    }
    None
}
