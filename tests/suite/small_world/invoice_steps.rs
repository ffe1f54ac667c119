//! What the invoice's actor may do next.
//!
//! Written after `actors/invoice.rs`, `invoice_work.rs` and `funds.rs`. Must stay true: what LND was asked and what it told
//! are two steps, and so are an event and its record.

use tellerd::cashout::Event;
use tellerd::invoice::{self, Effect, Invoice, InvoiceEvent, InvoicePhase};
use tellerd::money::Funds;

use super::broken::Broken;
use super::item::{EXPIRY_HEIGHT, Item, Lnd, Money, Prepare, Window};
use super::model::{AT, LATE, Model, PAID, Who, name_of};
use super::steps::Moves;
use super::table::Told;

impl Model {
    pub fn invoice_steps(&mut self, item: &Item, moves: &mut Moves) {
        if item.invoice.writes != 0 {
            self.append_invoice(item, moves);
        }
        let Some(invoice) = self.invoice(item).cloned() else {
            return;
        };
        if invoice::deadline(&invoice).is_some() && !item.unarmed[1] {
            let event = InvoiceEvent::DeadlinePassed { at: LATE };
            self.hear(item, "the invoice's deadline passes", event, moves);
        }
        if item.window != Window::Plenty {
            let height = item.window.height();
            self.hear(
                item,
                "the invoice's actor sees a block",
                InvoiceEvent::BlockSeen { height },
                moves,
            );
        }
        for effect in invoice::effects(&invoice) {
            match effect {
                Effect::Add => self.add(item, moves),
                Effect::Watch => self.watch(item, &invoice, moves),
                Effect::Settle => self.settle(item, moves),
                Effect::Cancel => self.cancel(item, moves),
                Effect::FollowFunds => self.follow(item, moves),
            }
        }
        if matches!(item.prepare, Prepare::Reading | Prepare::Orphan) {
            self.commit(item, moves);
        }
    }

    fn hear(&mut self, item: &Item, what: &str, event: InvoiceEvent, moves: &mut Moves) {
        let name = name_of(&event);
        let fact = is_fact(&event);
        let Some((to, told)) = self.tell_invoice(item, event) else {
            return;
        };
        let fault = (fact && told == Told::Refused).then(|| format!("the invoice refused the fact `{name}`"));
        if to != *item || fault.is_some() {
            self.push_with(moves, Who::Teller, format!("{what}: {name}"), to, fault);
        }
    }

    fn append_invoice(&mut self, item: &Item, moves: &mut Moves) {
        let event = self.invoices.get_event(item.invoice.writes).cloned();
        let Some(event) = event else { return };
        let name = name_of(&event);
        let what = format!("the invoice's `{name}` is durable");
        let mut to = *item;
        to.unarmed[1] = false;
        if let InvoiceEvent::Requested { spec } = event {
            to.invoice.writes = 0;
            let refused = to;
            to.invoice.state = self.invoices.id(Invoice::requested(spec));
            self.push(moves, Who::Teller, what, to);
            return self.push(moves, Who::Disk, "the disk refuses the invoice", refused);
        }
        let committed = matches!(event, InvoiceEvent::Committed { .. });
        let (half, behind) = self.invoices.adopt(item.invoice);
        to.invoice = half;
        let (to, fault) = self.verdicts(to, committed, behind);
        self.push_with(moves, Who::Teller, what, to, fault);
        if self.invoices.perishes(item.invoice.writes) {
            let (half, behind) = self.invoices.forget(item.invoice);
            let mut to = Item { invoice: half, ..*item };
            // Whoever waited hears no verdict, and asks anew.
            if to.prepare == Prepare::Recording {
                to.prepare = Prepare::Idle;
            }
            let (to, fault) = self.verdicts(to, false, behind);
            let what = format!("the disk refuses the invoice's `{name}`, which is void then");
            self.push_with(moves, Who::Disk, what, to, fault);
        }
    }

    /// Whoever waits for a commitment hears what became of it, whether it was written or waited behind another record.
    fn verdicts(
        &mut self,
        mut to: Item,
        committed: bool,
        behind: Option<(super::table::Id, Told)>,
    ) -> (Item, Option<String>) {
        if committed && to.prepare == Prepare::Recording {
            to.prepare = Prepare::Answered;
        }
        let Some((event, told)) = behind else {
            return (to, None);
        };
        let event = self.invoices.get_event(event).cloned();
        if let Some(InvoiceEvent::Committed { .. }) = event
            && to.prepare == Prepare::Recording
        {
            match told {
                Told::Refused => return (self.refuse(to), None),
                Told::Unchanged => to.prepare = Prepare::Answered,
                Told::Writing | Told::Waiting => {}
            }
        }
        let lost = told == Told::Refused && event.as_ref().is_some_and(is_fact);
        (to, lost.then(|| "the invoice refused a fact that waited".to_owned()))
    }

    /// The check of the hold failed: the cash-out hears it.
    fn refuse(&mut self, item: Item) -> Item {
        let to = Item {
            prepare: Prepare::Idle,
            ..item
        };
        let reason = String::new();
        self.tell_cashout(&to, Event::CheckRefused { reason })
            .map_or(to, |(to, _)| to)
    }

    /// `InvoiceActor::commit`: hold and height are read at LND, then the commitment is offered.
    fn commit(&mut self, item: &Item, moves: &mut Moves) {
        let waits = item.prepare == Prepare::Reading;
        let dropped = Item {
            prepare: Prepare::Idle,
            ..*item
        };
        self.push(moves, Who::World, "LND does not answer about the hold", dropped);
        let is_held = item.lnd == Lnd::Accepted && item.window == Window::Plenty;
        if !is_held && !self.is_broken(Broken::HoldNotReread) {
            let to = if waits { self.refuse(dropped) } else { dropped };
            return self.push(moves, Who::Teller, "the hold that LND tells is not fit", to);
        }
        let event = InvoiceEvent::Committed {
            at: AT,
            height: Window::Plenty.height(),
        };
        let Some((mut to, told)) = self.tell_invoice(item, event) else {
            return;
        };
        to.prepare = match told {
            _ if !waits => Prepare::Idle,
            Told::Unchanged => Prepare::Answered,
            Told::Writing | Told::Waiting => Prepare::Recording,
            Told::Refused => {
                let to = self.refuse(to);
                return self.push(moves, Who::Teller, "the invoice can not be committed", to);
            }
        };
        self.push(moves, Who::Teller, "LND holds the payment, with blocks enough", to);
    }

    fn add(&mut self, item: &Item, moves: &mut Moves) {
        if item.lnd != Lnd::None {
            let payment_request = "lnbcrt1".to_owned();
            return self.hear(
                item,
                "LND has the invoice",
                InvoiceEvent::Opened { payment_request },
                moves,
            );
        }
        let mut to = *item;
        to.wire.add = true;
        if to != *item {
            let fault = self.unlawful_add(item);
            self.push_with(moves, Who::Teller, "AddHoldInvoice is sent", to, fault);
        }
        let reason = String::new();
        self.hear(
            item,
            "LND refuses to add it",
            InvoiceEvent::AddRefused { reason },
            moves,
        );
    }

    fn watch(&mut self, item: &Item, invoice: &Invoice, moves: &mut Moves) {
        let accepted = |lowest_expiry_height| InvoiceEvent::Accepted {
            paid: PAID,
            lowest_expiry_height,
            at: AT,
        };
        let event = match item.lnd {
            Lnd::Accepted if matches!(invoice.phase, InvoicePhase::Open) => {
                self.hear(
                    item,
                    "LND tells of the invoice, but no expiry height",
                    accepted(None),
                    moves,
                );
                accepted(Some(EXPIRY_HEIGHT))
            }
            Lnd::Settled => self.settled(),
            Lnd::Canceled => InvoiceEvent::CanceledAtLnd,
            Lnd::None | Lnd::Open | Lnd::Accepted if self.is_broken(Broken::StreamEndFinal) => {
                InvoiceEvent::CanceledAtLnd
            }
            Lnd::None | Lnd::Open | Lnd::Accepted => return,
        };
        self.hear(item, "LND tells of the invoice", event, moves);
    }

    fn settle(&mut self, item: &Item, moves: &mut Moves) {
        let event = match item.lnd {
            Lnd::Settled => self.settled(),
            Lnd::Canceled => InvoiceEvent::CanceledAtLnd,
            Lnd::None | Lnd::Open | Lnd::Accepted => {
                let mut to = *item;
                to.wire.settle = true;
                if to != *item {
                    let fault = self.unlawful_settle(item);
                    self.push_with(moves, Who::Teller, "SettleInvoice is sent", to, fault);
                } else if self.is_broken(Broken::LostAnswerIsSettled) {
                    self.hear(item, "the answer is lost", self.settled(), moves);
                }
                return;
            }
        };
        self.hear(item, "LND answers to SettleInvoice", event, moves);
    }

    fn cancel(&mut self, item: &Item, moves: &mut Moves) {
        let mut to = *item;
        to.wire.cancel = true;
        if !item.lnd.is_final() && to != *item {
            let fault = self.unlawful_cancel(item);
            self.push_with(moves, Who::Teller, "CancelInvoice is sent", to, fault);
        }
        match item.lnd {
            Lnd::Settled => self.hear(item, "LND has settled it", self.settled(), moves),
            Lnd::Canceled => self.hear(item, "LND answers to CancelInvoice", InvoiceEvent::CanceledAtLnd, moves),
            Lnd::None => self.hear(item, "LND does not know it", InvoiceEvent::CanceledAtLnd, moves),
            Lnd::Open | Lnd::Accepted => {}
        }
    }

    fn settled(&self) -> InvoiceEvent {
        InvoiceEvent::SettledAtLnd {
            paid: PAID,
            at: Some(AT),
            follow: self.config.follow,
        }
    }

    fn follow(&mut self, item: &Item, moves: &mut Moves) {
        let seen = |funds| InvoiceEvent::FundsSeen { funds, at: AT };
        match item.money {
            Money::Pending => {}
            Money::Final => self.hear(item, "LND tells of the money", seen(Funds::Final), moves),
            Money::Lost => self.hear(item, "LND tells of the money", seen(Funds::Lost), moves),
        }
        self.hear(
            item,
            "LND will never tell of the money",
            seen(Funds::NotFollowed),
            moves,
        );
    }
}

fn is_fact(event: &InvoiceEvent) -> bool {
    matches!(
        event,
        InvoiceEvent::SettledAtLnd { .. } | InvoiceEvent::CanceledAtLnd | InvoiceEvent::FundsSeen { .. }
    )
}
