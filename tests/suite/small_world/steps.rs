//! What the ATM's actor and the dispenser's may do next with one cash-out.
//!
//! Written after `actors/atm/mod.rs`, `work.rs`, `orders.rs`, `drive.rs`, `actors/hardware.rs`. Must stay true: a step is
//! what can happen with no crash and no other actor in between; effects are those that the real machine asks for.

use tellerd::actors::atm::seen;
use tellerd::actors::item::Machine;
use tellerd::cashout::{self, CancelBy, CashOut, Effect, Event, Phase, Resolution};
use tellerd::invoice::{Invoice, InvoiceEvent};
use tellerd::money::Funds;

use super::broken::Broken;
use super::item::{Command, Item, Lnd, Prepare, Window};
use super::model::{AT, LATE, Model, Move, Who, intent, name_of, order_number, told_truly};
use super::rules::unlawful_decision;
use super::table::{Id, Told};

/// The steps found so far.
pub type Moves = Vec<Move>;

impl Model {
    /// Adds a step.
    pub fn push(&self, moves: &mut Moves, who: Who, what: impl Into<String>, to: Item) {
        self.push_with(moves, who, what, to, None);
    }

    pub fn push_with(&self, moves: &mut Moves, who: Who, what: impl Into<String>, to: Item, fault: Option<String>) {
        let (what, to) = (what.into(), self.tidied(to));
        moves.push(Move { who, what, to, fault });
    }

    /// Offers `event` and adds the step, unless it is one that changes nothing.
    pub fn bring(&mut self, moves: &mut Moves, from: &Item, who: Who, what: &str, to: Item, event: Event) {
        let name = name_of(&event);
        let is_fact = is_fact(&event);
        let Some((to, told)) = self.tell_cashout(&to, event) else {
            return;
        };
        let fault = (told == Told::Refused && is_fact).then(|| format!("the fact `{name}` was refused"));
        if to != *from || fault.is_some() {
            self.push_with(moves, who, format!("{what}: {name}"), to, fault);
        }
    }

    pub fn cashout_steps(&mut self, item: &Item, moves: &mut Moves) {
        let Some(cashout) = self.cashout(item).cloned() else {
            let mut to = *item;
            to.cashout.state = self.promised;
            return self.push(moves, Who::Customer, "a customer is promised notes (durable)", to);
        };
        self.customer(item, &cashout, moves);
        self.operator(item, &cashout, moves);
        if item.cashout.writes != 0 {
            self.append(item, moves);
        }
        self.time(item, &cashout, moves);
        self.invoice_seen(item, &cashout, moves);
        for effect in cashout::effects(&cashout) {
            match effect {
                Effect::OpenInvoice => self.open_invoice(item, moves),
                Effect::Prepare => self.prepare(item, &cashout, moves),
                Effect::Dispense => self.dispense(item, &cashout, moves),
                Effect::Recover => self.recover(item, &cashout, moves),
                Effect::Settle => self.order_settle(item, &cashout, moves),
                Effect::Cancel => self.order_cancel(item, moves),
                // They ask, which is in `invoice_seen`, or tell a human.
                Effect::WatchInvoice | Effect::AwaitFunds | Effect::Alert => {}
            }
        }
        self.dispenser_actor(item, &cashout, moves);
        self.wrong_ways(item, &cashout, moves);
    }

    fn customer(&mut self, item: &Item, cashout: &CashOut, moves: &mut Moves) {
        if matches!(
            cashout.phase,
            Phase::Quoted | Phase::AwaitingPayment | Phase::Held { .. }
        ) {
            let by = CancelBy::Customer;
            self.bring(
                moves,
                item,
                Who::Customer,
                "the customer cancels",
                *item,
                Event::CancelRequested { by },
            );
        }
    }

    /// He counts right, and not before the motion is over.
    fn operator(&mut self, item: &Item, cashout: &CashOut, moves: &mut Moves) {
        let resolutions = match &cashout.phase {
            Phase::OutcomeUnknown { intent, .. } if item.device_is_idle() => {
                let notes = item.motions[order_number(cashout)].notes();
                vec![Resolution::Delivered(
                    told_truly(&intent.order, notes, false).delivered_value(),
                )]
            }
            Phase::ClaimOwed => vec![Resolution::ClaimPaid],
            Phase::NeedsOperator { .. } => vec![Resolution::Close, Resolution::ClaimPaid],
            _ => Vec::new(),
        };
        for resolution in resolutions {
            let event = Event::OperatorResolved {
                by: "ada".into(),
                resolution,
                note: String::new(),
            };
            self.bring(moves, item, Who::Operator, "the operator decides", *item, event);
        }
    }

    /// Whether the event that is being written down may decide what it decides.
    fn decides(&self, item: &Item, next: Id) -> Option<String> {
        let (before, after) = (self.cashout(item)?, self.cashouts.get(next)?);
        unlawful_decision(before, self.cashouts.get_event(item.cashout.writes)?, after)
    }

    /// The record becomes durable and its state the item's; or the disk refuses one that perishes.
    fn append(&mut self, item: &Item, moves: &mut Moves) {
        let name = self
            .cashouts
            .get_event(item.cashout.writes)
            .map(name_of)
            .unwrap_or_default();
        let (cashout, behind) = self.cashouts.adopt(item.cashout);
        let fault = match behind {
            Some((event, Told::Refused)) if self.cashouts.get_event(event).is_some_and(is_fact) => {
                Some("a fact that waited was refused".to_owned())
            }
            _ => self.decides(item, cashout.state),
        };
        let mut to = Item { cashout, ..*item };
        to.unarmed[0] = false;
        self.push_with(
            moves,
            Who::Teller,
            format!("the cash-out's `{name}` is durable"),
            to,
            fault,
        );
        if self.cashouts.perishes(item.cashout.writes) {
            let (cashout, _) = self.cashouts.forget(item.cashout);
            let what = format!("the disk refuses the cash-out's `{name}`, which is void then");
            self.push(moves, Who::Disk, what, Item { cashout, ..*item });
        }
    }

    /// A motion is over long before the deadline of an unknown outcome, which is an hour.
    fn time(&mut self, item: &Item, cashout: &CashOut, moves: &mut Moves) {
        let unknown = matches!(cashout.phase, Phase::OutcomeUnknown { .. });
        if unknown && !item.device_is_idle() {
            return;
        }
        if cashout::deadline(cashout).is_some() && !item.unarmed[0] {
            let event = Event::DeadlinePassed { at: LATE };
            self.bring(moves, item, Who::Teller, "the cash-out's deadline passes", *item, event);
        }
        if (unknown || matches!(cashout.phase, Phase::Held { .. })) && item.window != Window::Plenty {
            let blocks_left = self.blocks_left(item.window);
            let what = format!("the ATM's actor sees {blocks_left} blocks left");
            self.bring(
                moves,
                item,
                Who::Teller,
                &what,
                *item,
                Event::WindowClosing { blocks_left },
            );
        }
    }

    /// The invoice's state reaches the ATM's actor: because it asks, where an effect asks, else by a notice that may be lost.
    fn invoice_seen(&mut self, item: &Item, cashout: &CashOut, moves: &mut Moves) {
        let asks = cashout::effects(cashout).iter().any(|effect| {
            matches!(
                effect,
                Effect::OpenInvoice | Effect::WatchInvoice | Effect::Settle | Effect::Cancel | Effect::AwaitFunds
            )
        });
        let asks = asks && !self.is_broken(Broken::NeverAsksAgain);
        let who = if asks { Who::Teller } else { Who::Notice };
        if Machine::is_final(cashout) {
            return;
        }
        if let Some(invoice) = self.invoice(item).cloned() {
            self.observe(item, *item, cashout, &invoice, who, moves);
            // A notice on a slow way, or one that finds an event of its cash-out being written down.
            if self.config.late && item.notice == 0 && !Machine::is_final(&invoice) {
                let to = Item {
                    notice: item.invoice.state,
                    ..*item
                };
                if self.tidied(to).notice != 0 {
                    self.push(moves, Who::Notice, "a notice of the invoice's actor is delayed", to);
                }
            }
        }
        if let Some(invoice) = self.invoices.get(item.notice).cloned() {
            let to = Item { notice: 0, ..*item };
            self.push(moves, Who::Notice, "the delayed notice is lost", to);
            self.observe(item, to, cashout, &invoice, Who::Notice, moves);
        }
    }

    fn observe(&mut self, item: &Item, to: Item, cashout: &CashOut, invoice: &Invoice, who: Who, moves: &mut Moves) {
        if !item.cashout.is_quiet() {
            return;
        }
        let mut events = seen::events(cashout, invoice, AT);
        if self.is_broken(Broken::CancelingIsCanceled)
            && let tellerd::invoice::InvoicePhase::Canceling(_) = invoice.phase
        {
            events.push(Event::InvoiceCanceled { reason: String::new() });
        }
        let (mut after, mut names, mut fault) = (to, Vec::new(), None);
        for event in events {
            let (name, fact) = (name_of(&event), is_fact(&event));
            let event = self.cashouts.event(event);
            let Some((half, told)) = self.cashouts.offer(after.cashout, event) else {
                continue;
            };
            if told == Told::Refused && fact {
                fault = Some(format!("the fact `{name}` was refused"));
            }
            after.cashout = half;
            names.push(name);
        }
        if after.cashout != item.cashout || fault.is_some() {
            let what = match who {
                Who::Teller => "the ATM's actor asks for its invoice",
                _ => "a notice of the invoice reaches the ATM's actor",
            };
            self.push_with(moves, who, format!("{what}: {}", names.join(", ")), after, fault);
        }
    }

    fn open_invoice(&mut self, item: &Item, moves: &mut Moves) {
        if item.invoice.state == 0 && item.invoice.writes == 0 {
            let mut to = *item;
            let spec = self.spec.clone();
            to.invoice.writes = self.invoices.event(InvoiceEvent::Requested { spec });
            self.push(moves, Who::Teller, "the invoice is asked for", to);
        }
    }

    /// The device is checked; then the invoice's actor reads the hold, which is in `invoice_steps.rs`.
    fn prepare(&mut self, item: &Item, cashout: &CashOut, moves: &mut Moves) {
        let refused = |reason: &str| Event::CheckRefused { reason: reason.into() };
        match (item.prepare, self.next_order(cashout)) {
            (Prepare::Idle, None) if item.cashout.is_quiet() => {
                self.bring(moves, item, Who::Teller, "no other mix", *item, refused("no other mix"));
            }
            (Prepare::Idle, Some(_)) if item.cashout.is_quiet() => {
                let to = Item {
                    prepare: Prepare::Reading,
                    fresh: true,
                    ..*item
                };
                self.push(moves, Who::Teller, "the dispenser is ready, the hold is to be read", to);
                self.bring(
                    moves,
                    item,
                    Who::World,
                    "the dispenser is not ready",
                    *item,
                    refused("not ready"),
                );
            }
            (Prepare::Answered, Some(order)) => {
                let to = Item {
                    prepare: Prepare::Idle,
                    ..*item
                };
                if !item.fresh && !self.is_broken(Broken::StaleCheck) {
                    return self.push(moves, Who::Teller, "the check of the hold took too long", to);
                }
                let event = Event::DispenseCommitted {
                    intent: intent(order),
                    blocks_left: self.blocks_left(Window::Plenty),
                    kept_until: None,
                    at: AT,
                };
                self.bring(moves, item, Who::Teller, "the order is to be committed", to, event);
            }
            _ => {}
        }
    }

    pub fn order_settle(&mut self, item: &Item, cashout: &CashOut, moves: &mut Moves) {
        let event = InvoiceEvent::SettleOrdered {
            preimage: cashout.quote.preimage.clone(),
            at: Some(AT),
        };
        self.order(item, event, "the settle is ordered", moves);
    }

    fn order_cancel(&mut self, item: &Item, moves: &mut Moves) {
        if item.invoice.state == 0 && item.invoice.writes == 0 {
            let event = Event::InvoiceCanceled { reason: String::new() };
            return self.bring(moves, item, Who::Teller, "there never was an invoice", *item, event);
        }
        if item.invoice.state != 0 {
            let reason = String::new();
            self.order(
                item,
                InvoiceEvent::CancelOrdered { reason },
                "the cancel is ordered",
                moves,
            );
        }
    }

    fn order(&mut self, item: &Item, event: InvoiceEvent, what: &str, moves: &mut Moves) {
        if item.invoice.state == 0 {
            return;
        }
        if let Some((to, _)) = self.tell_invoice(item, event)
            && to != *item
        {
            self.push(moves, Who::Teller, what, to);
        }
    }

    /// What only a daemon does that was broken on purpose.
    fn wrong_ways(&mut self, item: &Item, cashout: &CashOut, moves: &mut Moves) {
        if self.is_broken(Broken::SettleBeforeReport)
            && let Some(ahead) = self.ahead(item)
            && matches!(ahead.phase, Phase::Settling)
        {
            self.order_settle(item, &ahead, moves);
        }
        if self.is_broken(Broken::DispenseBeforeIntent)
            && item.command == Command::Idle
            && item.fresh
            && let Some(ahead) = self.ahead(item)
            && matches!(
                (&cashout.phase, &ahead.phase),
                (Phase::Held { .. }, Phase::Dispensing { .. })
            )
        {
            self.command(item, order_number(&ahead), Command::Sent, moves);
        }
    }
}

/// What happened in the world can not be argued with: a refusal would lose it.
fn is_fact(event: &Event) -> bool {
    matches!(
        event,
        Event::DispenseReported { .. }
            | Event::EvidenceFound { .. }
            | Event::EvidenceMissing { .. }
            | Event::Interrupted { .. }
            | Event::InvoiceSettled { .. }
            | Event::InvoiceCanceled { .. }
            | Event::FundsSeen {
                funds: Funds::Final | Funds::Lost
            }
    )
}

/// The customer can pay what he was shown.
pub fn can_pay(item: &Item, cashout: &CashOut) -> bool {
    item.lnd == Lnd::Open && cashout.payment_request.is_some()
}
