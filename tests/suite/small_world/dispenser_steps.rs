//! What becomes of an order that is durable: the effects Dispense and Recover, the dispenser's actor and its driver.
//!
//! Written after `actors/atm/work.rs` and `actors/hardware.rs`. Must stay true: the actor runs one command at a time, the
//! device answers to a question only after it is done with what was sent before, and what it counts is right.

use tellerd::cashout::{CashOut, Event, Phase};
use tellerd::hardware::{DispenseIntent, DispenseReport};

use super::broken::Broken;
use super::item::{Command, Item, Motion};
use super::model::{AT, Model, Who, order_number, told_truly, told_unsurely};
use super::steps::Moves;

impl Model {
    /// The effect begins once: an append in flight keeps it back.
    pub fn dispense(&mut self, item: &Item, cashout: &CashOut, moves: &mut Moves) {
        let Phase::Dispensing { intent } = &cashout.phase else {
            return;
        };
        if item.command != Command::Idle || item.cashout.writes != 0 {
            return;
        }
        let over = Item {
            command: Command::Over,
            ..*item
        };
        let held_back = |why| reported(intent.not_commanded(why));
        if cashout.hold_lost {
            return self.bring(
                moves,
                item,
                Who::Teller,
                "not commanded, the hold is lost",
                over,
                held_back("lost"),
            );
        }
        if !item.fresh && !self.is_broken(Broken::StaleCheck) {
            return self.bring(
                moves,
                item,
                Who::Teller,
                "not commanded, the check is old",
                over,
                held_back("old"),
            );
        }
        let to = Item {
            command: Command::Handed,
            ..*item
        };
        self.push(moves, Who::Teller, "the order goes to the dispenser's actor", to);
        let what = "the dispenser's actor is not there";
        self.bring(moves, item, Who::World, what, over, Event::Interrupted { at: AT });
    }

    /// The dispenser's actor with an order; it lives on when the ATM's actor dies.
    pub fn dispenser_actor(&mut self, item: &Item, cashout: &CashOut, moves: &mut Moves) {
        let (Phase::Dispensing { intent } | Phase::OutcomeUnknown { intent, .. }) = &cashout.phase else {
            return;
        };
        let alone = matches!(item.command, Command::HandedAlone | Command::SentAlone);
        let over = Item {
            command: if alone { Command::Idle } else { Command::Over },
            ..*item
        };
        let number = order_number(cashout);
        match item.command {
            Command::Handed | Command::HandedAlone => {
                if item.fresh || self.is_broken(Broken::StaleCheck) {
                    let command = if alone { Command::SentAlone } else { Command::Sent };
                    self.command(item, number, command, moves);
                } else {
                    let report = reported(intent.not_commanded("old"));
                    self.result(moves, item, alone, "the check is old by now", over, report);
                }
                let report = reported(told_unsurely(&intent.order, 0));
                self.result(moves, item, alone, "the port is not open", over, report);
                let what = "the dispenser's actor dies before the order";
                self.result(moves, item, alone, what, over, Event::Interrupted { at: AT });
            }
            Command::Sent | Command::SentAlone => {
                self.answers(item, intent, number, alone, over, moves);
                let what = "the dispenser's actor dies over the order";
                self.result(moves, item, alone, what, over, Event::Interrupted { at: AT });
            }
            Command::Idle | Command::Over => {}
        }
    }

    /// The command's first byte leaves: here the rules about commands are looked at.
    pub fn command(&mut self, item: &Item, number: usize, command: Command, moves: &mut Moves) {
        let mut to = Item { command, ..*item };
        to.motions[number] = Motion::Commanded;
        let fault = self.unlawful_command(item, number);
        self.push_with(moves, Who::Teller, "the command leaves on the serial line", to, fault);
    }

    /// What the driver makes of the answer, or of none.
    fn answers(
        &mut self,
        item: &Item,
        intent: &DispenseIntent,
        number: usize,
        alone: bool,
        over: Item,
        moves: &mut Moves,
    ) {
        let order = &intent.order;
        let lost = reported(told_unsurely(order, 0));
        let Motion::Done(notes) = item.motions[number] else {
            return self.result(
                moves,
                item,
                alone,
                "no answer in time, the device may still move",
                over,
                lost,
            );
        };
        if alone {
            return self.result(moves, item, alone, "the device has answered, nobody waits", over, lost);
        }
        let mut told = vec![told_truly(order, notes, true), told_unsurely(order, notes)];
        if notes == 0 {
            told.push(told_truly(order, notes, false));
        }
        for report in told {
            let what = format!("the device answers ({notes} notes counted)");
            self.result(moves, item, alone, &what, over, reported(report));
        }
        if notes > 0 {
            self.result(moves, item, alone, "the device's answer is lost", over, lost);
        }
        if self.is_broken(Broken::ResendMotion) {
            let mut to = *item;
            to.motions[number] = Motion::Commanded;
            let fault = self.unlawful_command(item, number);
            self.push_with(moves, Who::Teller, "no answer: the command is sent again", to, fault);
        }
    }

    /// An effect's result, for whoever waits.
    fn result(&mut self, moves: &mut Moves, item: &Item, alone: bool, what: &str, over: Item, event: Event) {
        if alone {
            return self.push(moves, Who::World, what, over);
        }
        self.bring(moves, item, Who::World, what, over, event);
    }

    /// The device is asked when it is done with what was sent before.
    pub fn recover(&mut self, item: &Item, cashout: &CashOut, moves: &mut Moves) {
        let Phase::OutcomeUnknown { intent, .. } = &cashout.phase else {
            return;
        };
        if !item.device_is_idle() {
            return;
        }
        let notes = item.motions[order_number(cashout)].notes();
        let found = |report| Event::EvidenceFound { report, at: AT };
        let truly = found(told_truly(&intent.order, notes, true));
        self.bring(moves, item, Who::World, "the device remembers", *item, truly);
        let unsurely = found(told_unsurely(&intent.order, notes));
        self.bring(moves, item, Who::World, "the device remembers a part", *item, unsurely);
        let missing = Event::EvidenceMissing { reason: String::new() };
        self.bring(moves, item, Who::World, "the device can not tell", *item, missing);
    }
}

fn reported(report: DispenseReport) -> Event {
    Event::DispenseReported { report, at: AT }
}
