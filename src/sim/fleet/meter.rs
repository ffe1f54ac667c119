//! What the daemon costs: its memory and its CPU time, for each 1,000 machines.
//!
//! Called by the stage and the runner. Memory and time come from the system's tables (proc(5)), never from the daemon. A daemon in
//! this process is what this process has more than before it: the threads that came since, and the memory that came since.

use std::collections::HashSet;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::Serialize;

/// One daemon.
#[derive(Debug, Clone)]
pub struct Meter {
    /// Its process, in /proc.
    process: PathBuf,
    /// Threads that are not its own.
    others: HashSet<OsString>,
    /// Memory that is not its own.
    others_kib: u64,
}

/// At one moment.
#[derive(Debug, Clone, Copy)]
pub struct Reading {
    at: Instant,
    memory_kib: u64,
    cpu_ns: u64,
}

/// Over a while.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Cost {
    /// How long it was measured.
    pub seconds: f64,
    /// Resident at the end, without what was there before the daemon.
    pub memory_kib: u64,
    /// The same for each 1,000 machines.
    pub memory_kib_per_1000_atms: f64,
    /// CPU time of all its threads, in percent of one core.
    pub cpu_percent: f64,
    /// The same for each 1,000 machines.
    pub cpu_percent_per_1000_atms: f64,
}

impl Meter {
    /// For a daemon that will be in this process, and is not there yet.
    #[must_use]
    pub fn inside() -> Self {
        let process = PathBuf::from("/proc/self");
        Self {
            others: threads(&process).into_iter().collect(),
            others_kib: memory_kib(&process).unwrap_or(0),
            process,
        }
    }

    /// For a process.
    #[must_use]
    pub fn of(process: u32) -> Self {
        Self {
            process: PathBuf::from(format!("/proc/{process}")),
            others: HashSet::new(),
            others_kib: 0,
        }
    }

    /// Now; `None` when it is gone.
    #[must_use]
    pub fn read(&self) -> Option<Reading> {
        let threads = threads(&self.process);
        let own = threads.into_iter().filter(|thread| !self.others.contains(thread));
        let spent = own.filter_map(|thread| cpu_ns(&self.process.join("task").join(thread)));
        Some(Reading {
            at: Instant::now(),
            memory_kib: memory_kib(&self.process)?.saturating_sub(self.others_kib),
            cpu_ns: spent.sum(),
        })
    }

    /// What it cost since `begun`.
    #[must_use]
    pub fn since(&self, begun: Reading, machines: usize) -> Option<Cost> {
        let now = self.read()?;
        let seconds = now.at.duration_since(begun.at).as_secs_f64();
        let cpu_percent = now.cpu_ns.saturating_sub(begun.cpu_ns) as f64 / 1e7 / seconds.max(1e-3);
        let thousands = machines as f64 / 1000.0;
        Some(Cost {
            seconds,
            memory_kib: now.memory_kib,
            memory_kib_per_1000_atms: now.memory_kib as f64 / thousands,
            cpu_percent,
            cpu_percent_per_1000_atms: cpu_percent / thousands,
        })
    }
}

fn threads(process: &Path) -> Vec<OsString> {
    let tasks = std::fs::read_dir(process.join("task")).into_iter().flatten().flatten();
    tasks.map(|task| task.file_name()).collect()
}

/// `VmRSS`.
fn memory_kib(process: &Path) -> Option<u64> {
    let status = std::fs::read_to_string(process.join("status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().trim_end_matches("kB").trim().parse().ok()
}

/// Time on a CPU, the first number of `schedstat`.
fn cpu_ns(thread: &Path) -> Option<u64> {
    let spent = std::fs::read_to_string(thread.join("schedstat")).ok()?;
    spent.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_threads_that_came_since_are_counted() {
        let meter = Meter::inside();
        let begun = meter.read().expect("this process");
        let seen = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let stop = std::sync::Arc::clone(&seen);
        let spin = std::thread::spawn(move || while !stop.load(std::sync::atomic::Ordering::Relaxed) {});
        // Ends: the thread goes on until it was seen.
        while meter.read().expect("reading").cpu_ns < begun.cpu_ns + 20_000_000 {}
        let cost = meter.since(begun, 500).expect("cost");
        seen.store(true, std::sync::atomic::Ordering::Relaxed);
        spin.join().expect("joined");
        assert!(
            cost.cpu_percent > 0.0 && cost.memory_kib_per_1000_atms >= 0.0,
            "{cost:?}"
        );
        let twice = cost.cpu_percent_per_1000_atms / cost.cpu_percent;
        assert!((twice - 2.0).abs() < 1e-9, "{twice}");
    }
}
