//! The deterministic simulation: fixed seeds, and that a seed is a history. Long runs: docs/RELIABILITY.md.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::process::Command;

use tellerd::sim::seeded::{Kind, Outcome, Plan, many, run, shrink};

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

/// By these the bugs of tests/mutants were found that none of the first ones shows.
#[test]
fn no_rule_is_broken_in_the_seeds_that_found_bugs() {
    for seed in [448, 494, 634] {
        let sum = many(seed..seed + 1, 1, 10, |_, _| {}).unwrap();
        assert!(sum.broken.is_empty() && sum.histories == 1, "{sum}");
    }
}

#[test]
fn the_same_seed_makes_the_same_history() {
    for seed in [1, 3, 16] {
        let [first, second, third] = [false, true, true].map(|traced| run(Plan::of(seed), traced).unwrap());
        assert_eq!(first.figures, second.figures, "seed {seed}");
        assert_eq!(second.trace.len() as u64, second.figures.steps, "seed {seed}");
        // Word by word: ids, amounts, records.
        assert!(without_folders(&second) == without_folders(&third), "seed {seed}");
        let other = run(Plan::of(seed + 1), false).unwrap();
        assert_ne!(first.figures.digest, other.figures.digest, "seed {seed}");
    }
}

/// The trace, but for the scratch folder's name, which is another one for each history.
fn without_folders(outcome: &Outcome) -> Vec<(u64, String)> {
    let words = |text: &str| {
        let kept = text.split(' ').filter(|word| !word.contains("tellerd-seeded-"));
        kept.collect::<Vec<_>>().join(" ")
    };
    outcome.trace.iter().map(|(at, step)| (at.0, words(step))).collect()
}

/// The history of a seed in which only these kinds of faults may befall the fleet.
fn lived(seed: u64, kinds: &[Kind]) -> Outcome {
    let mut plan = Plan::of(seed);
    plan.kinds = kinds.iter().copied().collect();
    let outcome = run(plan, true).unwrap();
    assert!(outcome.broken.is_none(), "seed {seed}: {:?}", outcome.broken);
    outcome
}

/// The ids in the steps that `is` picks.
fn ids(outcome: &Outcome, is: impl Fn(&str) -> bool) -> BTreeSet<&str> {
    let steps = outcome.trace.iter().map(|(_, step)| step.as_str());
    // An id has 16 characters, without I, L, O and U.
    let id = |word: &&str| {
        word.len() == 16
            && word
                .bytes()
                .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit())
    };
    steps
        .filter(|step| is(step))
        .filter_map(|step| step.split(|c: char| !c.is_ascii_alphanumeric()).find(id))
        .collect()
}

#[test]
fn without_faults_everyone_who_pays_gets_his_notes() {
    for seed in 1..13 {
        let outcome = lived(seed, &[]);
        assert_eq!(outcome.figures.lives, 1, "seed {seed}");
        let ends: Vec<_> = outcome.figures.ends.keys().map(String::as_str).collect();
        assert!(
            ends.iter().all(|end| ["completed", "canceled"].contains(end)),
            "seed {seed}: {ends:?}"
        );
        let held = ids(&outcome, |step| {
            step.starts_with("node: ") && step.ends_with("is Accepted")
        });
        let settled = ids(&outcome, |step| {
            step.starts_with("node: ") && step.ends_with("is Settled")
        });
        let canceled = ids(&outcome, |step| {
            step.starts_with("cancels: ") && step.ends_with("Some(true)")
        });
        let forgotten: Vec<_> = held.difference(&settled).filter(|id| !canceled.contains(*id)).collect();
        assert!(forgotten.is_empty(), "seed {seed}: {forgotten:?} paid, and got nothing");
        assert!(!settled.is_empty(), "seed {seed}");
    }
}

#[test]
fn when_only_the_daemon_dies_the_machines_tell_what_came_of_it() {
    let (mut deaths, mut found) = (0, 0);
    for seed in 1..41 {
        let outcome = lived(seed, &[Kind::Kill]);
        deaths += outcome.figures.lives - 1;
        found += ids(&outcome, |step| step.contains("evidence_found")).len();
        // Nobody has to look into a machine that works.
        let ends = &outcome.figures.ends;
        assert!(!ends.contains_key("needs_operator"), "seed {seed}: {ends:?}");
        let missing = ids(&outcome, |step| step.contains("evidence_missing"));
        assert!(missing.is_empty(), "seed {seed}: {missing:?}");
    }
    assert!(deaths > 40 && found > 3, "{deaths} deaths, {found} times evidence");
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
