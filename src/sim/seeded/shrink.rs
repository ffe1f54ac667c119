//! A failing history made small: fewer machines, customers and kinds of faults, as long as a rule is broken.
//!
//! Called after a violation. What must stay true: what is left still fails, and its trace is the one of that run.

use super::SeededError;
use super::plan::Plan;
use super::run::{Outcome, run};

/// A small plan that fails, and its history with all steps.
#[derive(Debug)]
pub struct Small {
    /// The plan.
    pub plan: Plan,
    /// What came of it.
    pub outcome: Outcome,
}

/// Each way of taking something away from a plan.
fn smaller(plan: &Plan) -> Vec<Plan> {
    let mut found = Vec::new();
    let mut with = |change: &dyn Fn(&mut Plan)| {
        let mut next = plan.clone();
        change(&mut next);
        if next != *plan {
            found.push(next);
        }
    };
    with(&|plan| plan.atms = 1);
    with(&|plan| plan.customers = (plan.customers / 2).max(1));
    with(&|plan| plan.customers = plan.customers.saturating_sub(1).max(1));
    with(&|plan| plan.deaths = (plan.deaths / 2).max(1));
    for kind in &plan.kinds {
        with(&|plan| _ = plan.kinds.remove(kind));
    }
    found
}

/// Takes away what can be, one thing after the other, while what is left `fails`.
///
/// # Errors
/// As [`run`]'s.
pub fn shrink(plan: Plan, fails: impl Fn(&Outcome) -> bool) -> Result<Small, SeededError> {
    let mut plan = plan;
    'smaller: loop {
        for next in smaller(&plan) {
            if fails(&run(next.clone(), false)?) {
                plan = next;
                continue 'smaller;
            }
        }
        let outcome = run(plan.clone(), true)?;
        return Ok(Small { plan, outcome });
    }
}
