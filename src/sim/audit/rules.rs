//! The rules of the audit: what must never be, and what is open and says so.
//!
//! Pure. Each rule's name is in docs/SIMULATION.md (a test). What must stay true: a rule only excuses what the daemon
//! itself says openly, and the excuse is told.

use std::collections::{HashMap, HashSet};

use super::facts::Fact;
use super::{Evidence, Facts, OpenItem, Verdict, Violation};
use crate::api::{AtmView, CashOutView, CassetteView};
use crate::hardware::puloon::emulator::CassetteTotals;
use crate::ids::{AtmId, CashOutId};
use crate::money::{Funds, Minor};
use crate::sim::lnd::node::record::InvoiceState;

/// The daemon's reason for what its policy decided because nobody could tell in time. Its amount is a lower bound.
pub const DECIDED_AT_DEADLINE: &str = "outcome unknown at the deadline";

/// Applies every rule.
#[must_use]
pub fn judge(evidence: &Evidence, facts: &Facts) -> Verdict {
    let mut judge = Judge {
        verdict: Verdict::default(),
    };
    for (atm, dispense) in &facts.unheld {
        let found = format!(
            "dispense {} at {} began while no invoice of this machine was held; {} notes left ({})",
            dispense.number, dispense.at.0, dispense.notes, dispense.value
        );
        judge.violation("dispense_without_hold", Some(atm), None, found);
    }
    for strange in &facts.strange {
        judge.violation("strange_invoice", None, None, strange.clone());
    }
    let views: HashMap<CashOutId, &CashOutView> = evidence.statement.cashouts.iter().map(|v| (v.id, v)).collect();
    for fact in &facts.cashouts {
        judge.notes_and_money(fact);
        judge.money(fact, views.get(&fact.id).copied());
        match views.get(&fact.id) {
            Some(view) => judge.statement(fact, view),
            None => judge.about(
                fact,
                "unknown_to_daemon",
                "LND has its invoice, the daemon knows nothing of it",
            ),
        }
    }
    judge.without_invoice(evidence, facts);
    judge.customers(evidence, facts, &views);
    let atms: HashMap<&AtmId, &AtmView> = evidence.statement.atms.iter().map(|view| (&view.id, view)).collect();
    for machine in &evidence.machines {
        judge.notes(&machine.atm, &machine.totals, atms.get(&machine.atm).copied());
    }
    judge.verdict.violations.extend(super::sites::unheard(evidence));
    judge.verdict.open.sort_by_key(|item| item.id);
    judge.verdict
}

struct Judge {
    verdict: Verdict,
}

impl Judge {
    fn violation(&mut self, rule: &'static str, atm: Option<&AtmId>, id: Option<CashOutId>, found: impl Into<String>) {
        self.verdict.violations.push(Violation {
            rule,
            atm: atm.cloned(),
            cashout: id,
            found: found.into(),
        });
    }

    fn about(&mut self, fact: &Fact, rule: &'static str, found: impl Into<String>) {
        self.violation(rule, Some(&fact.atm), Some(fact.id), found);
    }

    /// What the two ledgers alone forbid.
    fn notes_and_money(&mut self, fact: &Fact) {
        let (delivered, amount) = (fact.delivered(), fact.amount);
        if delivered > amount {
            self.about(
                fact,
                "overdispensed",
                format!("{delivered} left the machine for {amount}"),
            );
        }
        let after_notes = fact.dispenses.iter().skip_while(|dispense| dispense.notes == 0).skip(1);
        if after_notes.count() > 0 {
            let found = format!(
                "notes left in one of {} dispenses, and another followed",
                fact.dispenses.len()
            );
            self.about(fact, "dispensed_again", found);
        }
        if fact.state == InvoiceState::Settled && delivered == Minor::ZERO {
            self.about(
                fact,
                "settled_without_cash",
                format!("{amount} settled, no note left the machine"),
            );
        }
    }

    /// Whether the money of a settled invoice came, by its payers. Excused is what the daemon says itself: that it is on
    /// its way, or that it never comes.
    fn money(&mut self, fact: &Fact, view: Option<&CashOutView>) {
        if fact.state != InvoiceState::Settled || fact.settled_msat >= fact.value_msat {
            return;
        }
        match view.and_then(|view| Some((view, view.funds?))) {
            Some((view, Funds::Pending)) if fact.held_msat > 0 => self.open(fact, view),
            Some((_, Funds::Lost)) if fact.held_msat == 0 => {}
            _ => {
                let (came, due) = (fact.settled_msat, fact.value_msat);
                let found = format!("SETTLED, but only {came} of {due} msat came");
                self.about(fact, "settled_without_money", found);
            }
        }
    }

    /// What the daemon says of a cash-out, against the ledgers.
    fn statement(&mut self, fact: &Fact, view: &CashOutView) {
        if view.atm != fact.atm || view.amount_minor != fact.amount || view.payment_hash != fact.hash.to_string() {
            let found = format!(
                "the daemon says {} at {}, LND {} at {}",
                view.amount_minor, view.atm, fact.amount, fact.atm
            );
            self.about(fact, "wrong_terms", found);
        }
        let expected = match view.state.as_str() {
            "completed" | "claim_owed" => Some(InvoiceState::Settled),
            "canceled" if view.funds != Some(Funds::Lost) => Some(InvoiceState::Canceled),
            _ => None,
        };
        if expected.is_some_and(|expected| expected != fact.state) {
            let found = format!("the daemon says {}, LND's invoice is {:?}", view.state, fact.state);
            let rule = match fact.state {
                InvoiceState::Accepted => "held_unnamed",
                _ => "wrong_end",
            };
            return self.about(fact, rule, found);
        }
        if !view.ended {
            self.open(fact, view);
        }
        match fact.state {
            InvoiceState::Settled => self.settled(fact, view),
            InvoiceState::Canceled => self.canceled(fact, view),
            InvoiceState::Open | InvoiceState::Accepted => {}
        }
    }

    fn settled(&mut self, fact: &Fact, view: &CashOutView) {
        let owed = fact.amount.saturating_sub(fact.delivered());
        // The daemon has not booked it before it has ended.
        if is_settled_end(view) && view.claim_minor != owed {
            let found = format!(
                "{} of {} left the machine, the daemon names a claim of {}",
                fact.delivered(),
                fact.amount,
                view.claim_minor
            );
            self.about(fact, "settled_with_wrong_claim", found);
        }
        // All that he was given; a claim may have been paid before it was known.
        let given = fact.delivered().0.saturating_add(view.claim_minor.0);
        if view.funds == Some(Funds::Lost) && view.loss_minor != Minor(given) {
            let found = format!(
                "its money is lost, {given} was given, the daemon books {}",
                view.loss_minor
            );
            self.about(fact, "canceled_with_wrong_loss", found);
        }
    }

    fn canceled(&mut self, fact: &Fact, view: &CashOutView) {
        let (left, loss) = (fact.delivered(), view.loss_minor);
        let by_policy = view.reason.as_deref() == Some(DECIDED_AT_DEADLINE);
        // Of an item for the operator too: LND may cancel a hold by itself while notes are on their way out, and what left
        // is then a loss that is named with its amount.
        let is_booked = matches!(view.state.as_str(), "canceled" | "needs_operator");
        if is_booked && loss == left {
            return;
        }
        if !view.ended && !is_booked {
            // Its end is still to be booked; it names itself as open.
            return;
        }
        if by_policy && loss < left {
            let excuse = format!(
                "{} at {}: canceled by policy at its deadline with a loss of at least {loss}; {left} left the machine",
                fact.id, fact.atm
            );
            return self.verdict.excused.push(excuse);
        }
        let found = format!("refunded, {left} left the machine, the daemon books a loss of {loss}");
        self.about(fact, "canceled_with_wrong_loss", found);
    }

    fn open(&mut self, fact: &Fact, view: &CashOutView) {
        let said = view.reason.clone().or_else(|| view.operator_action.clone());
        let why = format!(
            "{}; LND's invoice is {:?}, {} of {} left the machine{}",
            said.unwrap_or_else(|| "under way".into()),
            fact.state,
            fact.delivered(),
            fact.amount,
            match fact.at_exit() {
                0 => String::new(),
                notes => format!(", {notes} notes are at its exit"),
            }
        );
        self.verdict.open.push(OpenItem {
            id: fact.id,
            state: view.state.clone(),
            why,
        });
    }

    /// Cash-outs that the daemon knows and the node does not.
    fn without_invoice(&mut self, evidence: &Evidence, facts: &Facts) {
        let known: HashSet<CashOutId> = facts.cashouts.iter().map(|fact| fact.id).collect();
        for view in &evidence.statement.cashouts {
            if known.contains(&view.id) {
                continue;
            }
            if view.state != "canceled" && view.state != "canceling" && view.state != "quoted" {
                let found = format!("the daemon says {}, LND has no invoice of it", view.state);
                self.violation("no_invoice", Some(&view.atm), Some(view.id), found);
            } else if !view.ended {
                self.verdict.open.push(OpenItem {
                    id: view.id,
                    state: view.state.clone(),
                    why: "LND has no invoice of it yet".into(),
                });
            }
        }
    }

    /// What customers were told, against the ledgers and the daemon's memory.
    fn customers(&mut self, evidence: &Evidence, facts: &Facts, views: &HashMap<CashOutId, &CashOutView>) {
        let by_hash: HashMap<String, &Fact> = facts
            .cashouts
            .iter()
            .map(|fact| (fact.hash.to_string(), fact))
            .collect();
        for visit in &evidence.visits {
            let (atm, id) = (Some(&visit.atm), Some(visit.id));
            if !views.contains_key(&visit.id) {
                self.violation(
                    "forgotten",
                    atm,
                    id,
                    "a customer started it, the daemon knows nothing of it",
                );
            }
            let fact = by_hash.get(&visit.hash).copied();
            match fact {
                Some(fact) if fact.atm == visit.atm && fact.id == visit.id && fact.amount == visit.amount => {}
                Some(fact) => {
                    let found = format!(
                        "{} asked for at {}, the invoice is for {} at {}",
                        visit.amount, visit.atm, fact.amount, fact.atm
                    );
                    self.violation("wrong_terms", atm, id, found);
                }
                None if visit.shown_at.is_some() => {
                    self.violation(
                        "no_invoice",
                        atm,
                        id,
                        "a customer was shown an invoice that LND does not have",
                    );
                }
                None => {}
            }
        }
    }

    /// The notes in a machine, against the daemon's books.
    fn notes(&mut self, atm: &AtmId, totals: &[CassetteTotals; 4], view: Option<&AtmView>) {
        for totals in totals {
            let gone = [
                totals.remaining,
                totals.delivered,
                totals.rejected,
                totals.stuck,
                totals.at_exit,
            ];
            if gone.iter().sum::<u32>() != totals.loaded {
                let found = format!(
                    "cassette {} of the emulator does not balance: {totals:?}",
                    totals.position
                );
                self.violation("emulator_wrong", Some(atm), None, found);
            }
        }
        let Some(view) = view else {
            return self.violation("forgotten", Some(atm), None, "the daemon does not name this machine");
        };
        for totals in totals.iter().filter(|totals| totals.loaded > 0) {
            if !view.cassettes.iter().any(|books| books.position == totals.position) {
                let found = format!("the daemon does not name cassette {}", totals.position);
                self.violation("forgotten", Some(atm), None, found);
            }
        }
        let in_service = matches!(view.state.as_str(), "ready" | "busy");
        for books in &view.cassettes {
            let Some(totals) = totals.iter().find(|totals| totals.position == books.position) else {
                continue;
            };
            // No device counts a note that is stuck: it stays in the books until somebody counts, and nobody is served so long.
            let stuck = if in_service { 0 } else { totals.stuck };
            if let Some(found) = wrong_books(books, totals, stuck, !view.open.is_empty()) {
                self.violation("books_wrong", Some(atm), None, found);
            } else if books.remaining != totals.remaining {
                let excuse = format!(
                    "cassette {} of {atm}: {} notes in it, {} in the books with {} unaccounted for and {} promised",
                    books.position, totals.remaining, books.remaining, books.unaccounted, books.reserved
                );
                self.verdict.excused.push(excuse);
            }
        }
    }
}

fn is_settled_end(view: &CashOutView) -> bool {
    view.state == "completed" || view.state == "claim_owed"
}

/// Notes missing from the books or too many in them, beyond those that the books call unaccounted for, `stuck`, or promised
/// to a cash-out that is still open.
fn wrong_books(books: &CassetteView, totals: &CassetteTotals, stuck: u32, open: bool) -> Option<String> {
    let sum = [
        books.delivered,
        books.rejected,
        books.retracted,
        books.unaccounted,
        books.remaining,
    ]
    .iter()
    .fold(0_u64, |sum, notes| sum + u64::from(*notes));
    if sum != u64::from(books.loaded) {
        return Some(format!(
            "cassette {}: the books do not balance: {books:?}",
            books.position
        ));
    }
    let least = if open {
        // Of an open order notes may have left, also into the reject tray.
        books.remaining.saturating_sub(books.reserved.saturating_mul(2))
    } else {
        books.remaining
    };
    let least = least.saturating_sub(stuck);
    let most = books.remaining.saturating_add(books.unaccounted);
    let fits = (least..=most).contains(&totals.remaining);
    (!fits).then(|| {
        format!(
            "cassette {}: {} notes are in it, the books say {} and {} unaccounted for",
            books.position, totals.remaining, books.remaining, books.unaccounted
        )
    })
}
