//! What a daemon that does nothing would break: all other rules hold for a fleet that serves nobody.
//!
//! Pure; called by the runner after the rules. What must stay true: the facts come from the ledgers; the daemon's words
//! only excuse what it openly leaves to a human.

use super::{Evidence, Facts, Violation};
use crate::sim::lnd::node::record::InvoiceState;
use crate::time::UnixMs;

/// So many customers do not all meet a fault: faults befall fewer dispenses than there are.
const MANY: usize = 10;

/// `patience_ms`: the longest hold that the daemon's policy allows, and some time for its end.
#[must_use]
pub fn liveness(evidence: &Evidence, facts: &Facts, now: UnixMs, patience_ms: u64) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut idle = |found: String| {
        violations.push(Violation {
            rule: "nothing_happened",
            atm: None,
            cashout: None,
            found,
        });
    };
    let held = facts.cashouts.iter().filter(|fact| fact.held_at.is_some());
    let dispensed = facts.cashouts.iter().any(|fact| !fact.dispenses.is_empty()) || !facts.unheld.is_empty();
    if evidence.visits.is_empty() {
        idle("no customer was given a cash-out: nothing to audit; try a longer --duration, else see the log".into());
    } else if !dispensed && held.clone().count() >= MANY {
        idle(format!(
            "{} customers paid, and no dispense was even begun",
            held.count()
        ));
    }
    for fact in &facts.cashouts {
        let lasted = now.0.saturating_sub(fact.since.0);
        let mut views = evidence.statement.cashouts.iter();
        let named = views.any(|view| view.id == fact.id && view.state == "needs_operator");
        if fact.state == InvoiceState::Accepted && lasted > patience_ms && !named {
            violations.push(Violation {
                rule: "held_too_long",
                atm: Some(fact.atm.clone()),
                cashout: Some(fact.id),
                found: format!("held for {lasted} ms, the policy allows {patience_ms} ms at most"),
            });
        }
    }
    violations
}
