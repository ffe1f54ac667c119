//! What happens beside tellerd: LND and its blocks, the customer's wallet, the dispenser's motors, time.
//!
//! Written after facts of LND (a hold ends by itself only at its block window's end, SETTLED and CANCELED are final, a call
//! may arrive when its caller is dead) and `hardware`. Must stay true: nothing here looks at what tellerd has in memory.

use tellerd::cashout::CashOut;

use super::item::{Item, Lnd, Money, Motion, Window};
use super::model::{Model, Who};
use super::steps::{Moves, can_pay};

/// Notes that may leave for each order: none, a part, all.
const OUTCOMES: [[u8; 3]; 2] = [[0, 1, 2], [0, 2, 4]];

impl Model {
    pub fn world_steps(&mut self, item: &Item, moves: &mut Moves) {
        self.calls_arrive(item, moves);
        self.lnd_by_itself(item, moves);
        if self
            .cashout(item)
            .is_some_and(|cashout: &CashOut| can_pay(item, cashout))
        {
            for (window, how) in [(Window::Plenty, ""), (Window::Short, ", with few blocks left")] {
                let to = Item {
                    lnd: Lnd::Accepted,
                    window,
                    ..*item
                };
                self.push(moves, Who::Customer, format!("the customer pays{how}"), to);
            }
        }
        if item.fresh {
            let to = Item { fresh: false, ..*item };
            self.push(moves, Who::World, "the check of the hold gets old", to);
        }
        for (number, outcomes) in OUTCOMES.iter().enumerate() {
            if item.motions[number] != Motion::Commanded {
                continue;
            }
            for notes in outcomes {
                let mut to = *item;
                to.motions[number] = Motion::Done(*notes);
                self.push(
                    moves,
                    Who::World,
                    format!("the device is done, {notes} notes are out"),
                    to,
                );
            }
        }
    }

    fn calls_arrive(&mut self, item: &Item, moves: &mut Moves) {
        let wire = item.wire;
        if wire.add {
            let mut to = *item;
            to.wire.add = false;
            to.lnd = Lnd::Open;
            self.push(moves, Who::World, "LND adds the invoice", to);
        }
        if wire.settle {
            let mut to = *item;
            to.wire.settle = false;
            if to.lnd == Lnd::Accepted {
                to.lnd = Lnd::Settled;
            }
            self.push(moves, Who::World, "LND takes the settle", to);
        }
        if wire.cancel {
            let mut to = *item;
            to.wire.cancel = false;
            if matches!(to.lnd, Lnd::Open | Lnd::Accepted) {
                to.lnd = Lnd::Canceled;
            }
            let fault = self.unlawful_end(item);
            self.push_with(moves, Who::World, "LND takes the cancel", to, fault);
        }
    }

    fn lnd_by_itself(&mut self, item: &Item, moves: &mut Moves) {
        match item.lnd {
            Lnd::Open => {
                let to = Item {
                    lnd: Lnd::Canceled,
                    ..*item
                };
                self.push(moves, Who::Chance, "the invoice expires at LND", to);
            }
            Lnd::Accepted => {
                self.blocks(item, moves);
                // Against one in the seconds between the check and the command nothing can be done.
                if !item.fresh {
                    let to = Item {
                        lnd: Lnd::Canceled,
                        ..*item
                    };
                    self.push(moves, Who::Chance, "another hand cancels at LND", to);
                }
            }
            Lnd::Settled if item.money == Money::Pending => {
                for (money, what) in [
                    (Money::Final, "the money is there"),
                    (Money::Lost, "the peer takes the money back on chain"),
                ] {
                    self.push(moves, Who::World, what, Item { money, ..*item });
                }
            }
            Lnd::None | Lnd::Settled | Lnd::Canceled => {}
        }
    }

    /// From one level to the next but one take longer than a check may be old and a motion may last.
    fn blocks(&mut self, item: &Item, moves: &mut Moves) {
        let mut to = *item;
        match item.window {
            Window::Plenty => to.window = Window::Short,
            Window::Short if item.device_is_idle() => {
                to.window = Window::Forced;
                to.fresh = false;
            }
            Window::Forced if item.device_is_idle() => {
                to.window = Window::Gone;
                to.fresh = false;
                to.lnd = Lnd::Canceled;
            }
            _ => return,
        }
        let left = self.blocks_left(to.window);
        self.push(
            moves,
            Who::Chance,
            format!("blocks are found, {left} are left for the hold"),
            to,
        );
    }
}
