//! `tellerd simulate --deterministic`: the history of one seed, or of many.

use std::io::{IsTerminal, Write, stderr};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use clap::Args;

use crate::sim::seeded::{SeededError, many, one};

/// Cash-outs between two words on the progress.
const PROGRESS: u64 = 1_000;

#[derive(Debug, Args)]
pub(super) struct Seeded {
    /// The real daemon in a world of one thread, in which time is made up: the same seed makes the same history. Only --seed,
    /// --seeds and --threads count then.
    #[arg(long)]
    deterministic: bool,
    /// With --deterministic: tell every step of the history.
    #[arg(long, requires = "deterministic", conflicts_with = "seeds")]
    trace: bool,
    /// With --deterministic: so many seeds, from --seed on.
    #[arg(long, requires = "deterministic")]
    seeds: Option<u64>,
    /// With --seeds: on so many threads at once. Without it: as many as the machine has cores.
    #[arg(long, requires = "seeds")]
    threads: Option<usize>,
    /// With --seeds: end after so many violations.
    #[arg(long, requires = "seeds", default_value_t = 10)]
    violations: usize,
}

impl Seeded {
    /// Does it, if it is asked for.
    pub(super) fn run(&self, seed: u64) -> Result<Option<ExitCode>, SeededError> {
        if !self.deterministic {
            return Ok(None);
        }
        // A thread that no runtime lives on: each history has its own.
        let good = std::thread::scope(|scope| {
            let work = scope.spawn(|| self.histories(seed));
            work.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })?;
        Ok(Some(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE }))
    }

    fn histories(&self, seed: u64) -> Result<bool, SeededError> {
        let Some(seeds) = self.seeds else {
            let told = one(seed, self.trace)?;
            println!("{}", told.text);
            return Ok(told.good);
        };
        let cores = || std::thread::available_parallelism().map_or(1, usize::from);
        let shown = AtomicU64::new(0);
        let progress = |histories: u64, cashouts: u64| {
            let step = cashouts / PROGRESS;
            if stderr().is_terminal() && shown.swap(step, Ordering::Relaxed) < step {
                // Who does not want to see it loses nothing.
                _ = write!(stderr(), "\r{histories} histories, {cashouts} cash-outs ");
            }
        };
        let last = seed.saturating_add(seeds);
        let threads = self.threads.unwrap_or_else(cores);
        let sum = many(seed..last, threads, self.violations, progress)?;
        println!("seeds {seed} to {}: {sum}", last.saturating_sub(1));
        for (seed, _) in sum.broken.iter().take(3) {
            println!("{}", one(*seed, false)?.text);
        }
        Ok(sum.broken.is_empty())
    }
}
