//! What must be true after one cash-out has come to rest, whatever was killed on its way.
//!
//! Used by the crash test. It trusts nothing that tellerd says: notes are counted by the emulator, money by the simulated
//! LND; tellerd's own words are compared with both. Source: DESIGN.md section 1.

#![allow(clippy::unwrap_used)]

use tellerd::api::{AtmView, CashOutView};
use tellerd::hardware::puloon::emulator::What;
use tellerd::money::{Funds, Minor};
use tellerd::sim::lnd::Ledger;
use tellerd::sim::lnd::node::record::InvoiceState;

use super::rig::Rig;

/// Values of the notes in positions 1 and 2.
const DENOMINATIONS: [u64; 2] = [2_000, 5_000];

/// What happened in the world.
pub struct Truth {
    /// Notes that left, for each dispense command.
    dispenses: Vec<[u32; 2]>,
    ledger: Ledger,
}

impl Truth {
    pub fn read(rig: &Rig) -> Self {
        let mut dispenses = Vec::new();
        for event in rig.machines[0].events() {
            match event.what {
                What::DispenseStarted { .. } => dispenses.push([0, 0]),
                What::NoteDelivered { position, .. } => dispenses.last_mut().unwrap()[usize::from(position) - 1] += 1,
                _ => {}
            }
        }
        let ledger = rig.lnd.ledger().unwrap();
        Self { dispenses, ledger }
    }

    fn notes(&self) -> [u32; 2] {
        let sum = |index: usize| self.dispenses.iter().map(|notes| notes[index]).sum();
        [sum(0), sum(1)]
    }

    /// Value of the notes that left the machine.
    pub fn delivered(&self) -> Minor {
        let values = self.notes().into_iter().zip(DENOMINATIONS);
        Minor(values.map(|(notes, value)| u64::from(notes) * value).sum())
    }

    fn invoice(&self) -> Option<InvoiceState> {
        self.ledger.invoices.first().map(|invoice| invoice.state)
    }
}

/// Everything that is wrong.
pub fn violations(truth: &Truth, cashouts: &[CashOutView], atm: &AtmView) -> Vec<String> {
    let mut found = Vec::new();
    let mut must = |holds: bool, what: &str| {
        if !holds {
            found.push(what.to_owned());
        }
    };
    let delivered = truth.delivered();
    let moving = truth.dispenses.iter().filter(|notes| **notes != [0, 0]).count();
    must(moving <= 1, "two dispenses delivered notes");
    let beaten = truth.dispenses.iter().rev().skip(1).any(|notes| *notes != [0, 0]);
    must(!beaten, "a dispense was commanded after one that had delivered notes");
    must(cashouts.len() <= 1, "there is more than one cash-out");
    must(truth.ledger.invoices.len() <= 1, "there is more than one invoice");
    let Some(cashout) = cashouts.first() else {
        must(truth.dispenses.is_empty(), "a dispense without a cash-out");
        must(truth.invoice().is_none(), "an invoice without a cash-out");
        return found;
    };
    let named = cashout.operator_action.is_some()
        && matches!(
            cashout.state.as_str(),
            "outcome_unknown" | "needs_operator" | "claim_owed"
        );
    match truth.invoice() {
        Some(InvoiceState::Settled) => {
            must(delivered > Minor::ZERO, "settled, and no note left the machine");
            let part = delivered < cashout.amount_minor;
            must(
                !part || named,
                "settled, a part of the notes is missing, and nobody is told",
            );
            let owed = Minor(cashout.amount_minor.0.saturating_sub(delivered.0));
            must(cashout.claim_minor == owed, "the claim is not what is missing");
        }
        Some(InvoiceState::Accepted) => must(named, "money is held and no open item names it"),
        Some(InvoiceState::Open) => must(!cashout.ended, "it has ended and its invoice can still be paid"),
        Some(InvoiceState::Canceled) | None => {
            must(
                delivered == Minor::ZERO || named,
                "notes left the machine, nothing was settled, and nobody is told",
            );
            must(
                cashout.state != "completed",
                "completed, and the customer has the money back",
            );
        }
    }
    // The payer's side says where the money is; the node's "settled" is not asked.
    let arrived = truth.ledger.money.settled_msat >= cashout.price_msat.0;
    let funded = cashout.funds == Some(Funds::Final);
    must(
        funded == arrived,
        "tellerd and the payer disagree about whether the money came",
    );
    must(
        cashout.settled == (truth.invoice() == Some(InvoiceState::Settled)),
        "tellerd and LND disagree about the settlement",
    );
    let told = cashout.state == "outcome_unknown" || cashout.delivered_minor == delivered;
    must(told, "tellerd and the machine disagree about the notes");
    let in_books = |index: usize| atm.cassettes[index].delivered + atm.cassettes[index].unaccounted;
    let counted = truth.notes();
    let right = (0..2).all(|index| in_books(index) >= counted[index]);
    must(
        cashout.state == "outcome_unknown" || right,
        "the cassettes' books lack notes that left",
    );
    must(
        truth.ledger.money.held_msat == 0 || named,
        "the customer's money is locked and no open item names it",
    );
    found
}
