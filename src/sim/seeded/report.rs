//! What is printed: the sum of many histories, and the trace of one that failed.
//!
//! Called by the command line. What must stay true: seeds are told, so that each can be repeated.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::SeededError;
use super::plan::Plan;
use super::rules::Broken;
use super::run::{Outcome, run};
use super::scene::Trace;
use super::shrink::shrink;
use crate::time::UnixMs;

/// Steps of a failed history that are told, from its end.
const TOLD: usize = 120;

/// Many histories together.
#[derive(Debug, Clone, Default)]
pub struct Sum {
    /// Histories.
    pub histories: u64,
    /// Cash-outs in them.
    pub cashouts: u64,
    /// Steps.
    pub steps: u64,
    /// Durable records.
    pub records: u64,
    /// Lives of the daemon.
    pub lives: u64,
    /// How long they were, in their own time.
    pub lasted: Duration,
    /// Faults by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Cash-outs by their ends.
    pub ends: BTreeMap<String, u64>,
    /// Seeds that broke a rule.
    pub broken: Vec<(u64, Broken)>,
}

impl Sum {
    /// Adds one.
    pub fn add(&mut self, seed: u64, outcome: Outcome) {
        let figures = outcome.figures;
        self.histories += 1;
        self.cashouts += figures.cashouts;
        self.steps += figures.steps;
        self.records += figures.records;
        self.lives += figures.lives;
        self.lasted += outcome.lasted;
        for (kind, count) in figures.faults {
            *self.faults.entry(kind).or_default() += count;
        }
        for (end, count) in figures.ends {
            *self.ends.entry(end).or_default() += count;
        }
        if let Some(broken) = outcome.broken {
            self.broken.push((seed, broken));
        }
    }
}

fn list<K: fmt::Display>(of: &BTreeMap<K, u64>) -> String {
    let items: Vec<String> = of.iter().map(|(name, count)| format!("{name} {count}")).collect();
    items.join(", ")
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} histories, {} h of their time",
            self.histories,
            self.lasted.as_secs() / 3600
        )?;
        writeln!(f, "  {} cash-outs: {}", self.cashouts, list(&self.ends))?;
        writeln!(
            f,
            "  {} steps, {} durable records, {} lives of the daemon",
            self.steps, self.records, self.lives
        )?;
        writeln!(f, "  faults: {}", list(&self.faults))?;
        for (seed, broken) in &self.broken {
            writeln!(f, "VIOLATION in seed {seed}: {broken}")?;
        }
        match self.broken.is_empty() {
            true => write!(f, "No violation."),
            false => write!(f, "{} violations.", self.broken.len()),
        }
    }
}

/// Lives through the histories of many seeds, on `threads` threads; ends early after so many `violations`.
///
/// # Errors
/// As [`run`]'s.
pub fn many(
    seeds: Range<u64>,
    threads: usize,
    violations: usize,
    progress: impl Fn(u64, u64) + Sync,
) -> Result<Sum, SeededError> {
    let (next, sum) = (AtomicU64::new(seeds.start), Mutex::new(Sum::default()));
    let work = || -> Result<(), SeededError> {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return Ok(());
            }
            let outcome = run(Plan::of(seed), false)?;
            let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
            sum.add(seed, outcome);
            progress(sum.histories, sum.cashouts);
            if sum.broken.len() >= violations {
                return Ok(());
            }
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..threads.max(1)).map(|_| scope.spawn(work)).collect();
        for worker in workers {
            // A panic in it is a violation that has no name: it goes on here.
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
        }
        Ok::<(), SeededError>(())
    })?;
    let mut sum = sum.into_inner().unwrap_or_else(PoisonError::into_inner);
    sum.broken.sort_by_key(|(seed, _)| *seed);
    Ok(sum)
}

/// One seed's history for a reader.
#[derive(Debug)]
pub struct Told {
    /// Whether no rule was broken.
    pub good: bool,
    /// The words.
    pub text: String,
}

/// Lives through one seed's history, `traced` with every step; one that fails is made small and told.
///
/// # Errors
/// As [`run`]'s.
pub fn one(seed: u64, traced: bool) -> Result<Told, SeededError> {
    let plan = Plan::of(seed);
    let outcome = run(plan.clone(), traced)?;
    let mut sum = Sum::default();
    sum.add(seed, outcome.clone());
    let mut text = steps(&outcome.trace, usize::MAX);
    text += &format!("seed {seed}, digest {:016x}: {sum}", outcome.figures.digest);
    if outcome.broken.is_none() {
        return Ok(Told { good: true, text });
    }
    let small = shrink(plan, |outcome| outcome.broken.is_some())?;
    let kinds: Vec<&str> = small.plan.kinds.iter().map(|kind| kind.name()).collect();
    text += &format!(
        "\nMade small: {} machines, {} customers each, faults: {}; the last steps:\n{}",
        small.plan.atms,
        small.plan.customers,
        kinds.join(", "),
        steps(&small.outcome.trace, TOLD)
    );
    Ok(Told { good: false, text })
}

/// The end of a trace, with times from its beginning.
fn steps(trace: &Trace, most: usize) -> String {
    let begun = trace.first().map_or(UnixMs(0), |(at, _)| *at);
    let left_out = trace.len().saturating_sub(most);
    let told = trace.iter().skip(left_out).map(|(at, what)| {
        let ms = at.0.saturating_sub(begun.0);
        let line: String = what.chars().take(400).collect();
        format!("{:>9}.{:03} {line}\n", ms / 1000, ms % 1000)
    });
    let told: String = told.collect();
    match left_out {
        0 => told,
        _ => format!("({left_out} steps before these)\n{told}"),
    }
}
