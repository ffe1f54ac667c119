//! What is left after a death: of the whole daemon, of the ATM's actor, of an invoice's actor.
//!
//! Written after `load`, `take_up` and `load_invoice` of the actors, and `journal.rs`. Must stay true: what is durable stays,
//! what LND and the device were told stays told, everything in memory of the dead is gone.

use tellerd::cashout::{Event, Phase};
use tellerd::invoice::Invoice;

use super::broken::Broken;
use super::item::{Command, Item, Prepare};
use super::model::{AT, Model, Move, Who};

impl Model {
    /// The invoice's actor dies alone. What it had handed to the journal is loaded by its next life.
    pub fn invoice_actor_dies(&mut self, item: &Item) -> Option<Move> {
        if item.invoice.state == 0 || self.invoice(item).is_some_and(Invoice::is_final) {
            return None;
        }
        let mut to = *item;
        if item.invoice.writes != 0 {
            to.invoice.waits = 0;
            to.invoice = self.invoices.adopt(to.invoice).0;
        }
        if matches!(to.prepare, Prepare::Reading | Prepare::Recording | Prepare::Orphan) {
            to.prepare = Prepare::Idle;
        }
        to.unarmed[1] = self.is_broken(Broken::HoldDeadlineLostAtRestart);
        let to = self.tidied(to);
        (to != *item).then(|| Move {
            who: Who::Death,
            what: "the invoice's actor dies and comes back".into(),
            to,
            fault: None,
        })
    }

    /// Everything in memory is gone, the whole daemon or the ATM's actor alone, and is loaded from the journal. An actor's
    /// record that the journal has is in what its next life loads; the dispenser's and the invoice's actors live on.
    pub fn after_death(&mut self, item: &Item, whole: bool) -> Item {
        let mut to = *item;
        if whole {
            to.invoice.writes = 0;
            to.prepare = Prepare::Idle;
            to.fresh = false;
            to.unarmed[1] = self.is_broken(Broken::HoldDeadlineLostAtRestart);
        } else if to.cashout.writes != 0 {
            to.cashout.waits = 0;
            to.cashout = self.cashouts.adopt(to.cashout).0;
        }
        to.invoice.waits = if whole { 0 } else { to.invoice.waits };
        to.cashout.writes = 0;
        to.cashout.waits = 0;
        to.notice = 0;
        to.unarmed[0] = self.is_broken(Broken::DeadlineLostAtRestart);
        self.abandon(&mut to, whole);
        let dispensing = self
            .cashout(&to)
            .is_some_and(|c| matches!(c.phase, Phase::Dispensing { .. }));
        if dispensing && self.is_broken(Broken::DispenseAgainAfterRestart) {
            to.fresh = true;
        } else if to.has_begun() {
            let event = self.cashouts.event(Event::Interrupted { at: AT });
            if let Some((half, _)) = self.cashouts.offer(to.cashout, event) {
                to.cashout = half;
            }
        }
        self.tidied(to)
    }

    /// What the effects of a dead ATM's actor leave behind.
    fn abandon(&self, to: &mut Item, whole: bool) {
        to.command = match to.command {
            Command::Handed | Command::HandedAlone if !whole => Command::HandedAlone,
            Command::Sent | Command::SentAlone if !whole => Command::SentAlone,
            _ => Command::Idle,
        };
        to.prepare = match to.prepare {
            Prepare::Reading | Prepare::Orphan => Prepare::Orphan,
            _ => Prepare::Idle,
        };
        to.fresh &= to.command == Command::HandedAlone;
    }
}
