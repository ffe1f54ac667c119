//! The deterministic simulation: fixed seeds, and that a seed is a history. Long runs: docs/RELIABILITY.md.

#![allow(clippy::unwrap_used)]

use std::process::Command;

use tellerd::sim::seeded::{Kind, Plan, many, run, shrink};

/// A few seconds' worth.
const SEEDS: u64 = 48;

#[test]
fn no_rule_is_broken_in_the_fixed_seeds() {
    let sum = many(1..SEEDS + 1, 2, 10, |_, _| {}).unwrap();
    assert!(sum.broken.is_empty(), "{sum}");
    assert_eq!(sum.histories, SEEDS);
    // They are worth something: every kind of fault befell them, the daemon died, and customers were served all the same.
    for kind in Kind::ALL {
        assert!(sum.faults.contains_key(kind.name()), "no `{}` in: {sum}", kind.name());
    }
    assert!(sum.lives > 2 * SEEDS, "{sum}");
    for end in ["completed", "canceled", "claim_owed"] {
        assert!(sum.ends.contains_key(end), "{end} in: {sum}");
    }
}

#[test]
fn the_same_seed_makes_the_same_history() {
    for seed in [1, 3, 16] {
        let [first, second] = [false, true].map(|traced| run(Plan::of(seed), traced).unwrap());
        assert_eq!(first.figures, second.figures, "seed {seed}");
        assert_eq!(second.trace.len() as u64, second.figures.steps, "seed {seed}");
        let other = run(Plan::of(seed + 1), false).unwrap();
        assert_ne!(first.figures.digest, other.figures.digest, "seed {seed}");
    }
}

#[test]
fn a_history_is_made_as_small_as_it_can_be() {
    // Not a failure, but as good as one: somebody got notes although the daemon died.
    let seed = (1..100).find(|seed| {
        let plan = Plan::of(*seed);
        plan.atms > 1 && plan.has(Kind::Kill) && plan.kinds.len() > 4
    });
    let plan = Plan::of(seed.unwrap());
    let died_and_served = |outcome: &tellerd::sim::seeded::Outcome| {
        outcome.figures.lives > 1 && outcome.figures.ends.contains_key("completed")
    };
    assert!(died_and_served(&run(plan.clone(), false).unwrap()), "{plan:?}");
    let small = shrink(plan, died_and_served).unwrap();
    assert!(died_and_served(&small.outcome));
    assert_eq!(small.plan.atms, 1, "{:?}", small.plan);
    assert!(small.plan.kinds.len() <= 2, "{:?}", small.plan);
    assert!(!small.outcome.trace.is_empty());
}

#[test]
fn the_command_replays_a_seed() {
    let replay = |more: &[&str]| {
        let program = Command::new(env!("CARGO_BIN_EXE_tellerd"))
            .args(["simulate", "--deterministic", "--seed", "2"])
            .args(more)
            .output()
            .unwrap();
        assert!(program.status.success(), "{}", String::from_utf8_lossy(&program.stderr));
        String::from_utf8(program.stdout).unwrap()
    };
    let (first, second) = (replay(&[]), replay(&[]));
    assert!(first.starts_with("seed 2, digest "), "{first}");
    assert_eq!(first, second);
    let traced = replay(&["--trace"]);
    assert!(traced.ends_with(&first), "{traced}");
    assert!(traced.contains("cash_out quoted"), "{traced}");
}
