//! The families of the process itself, under the names that Prometheus' own client libraries use.
//!
//! Read off the kernel at each scrape by [`super::Metrics::render`]. What must stay true: what this system does not
//! tell is left as it was, and never ends a scrape. Source: proc_pid_status(5), clock_gettime(2), getrlimit(2).

use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus::{Counter, Gauge, IntGauge};
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use super::register::Register;
use super::signed;

pub(super) struct ProcessFamilies {
    cpu_seconds: Counter,
    /// Two scrapes at once do not count the same seconds twice.
    counting: Mutex<()>,
    resident_bytes: IntGauge,
    threads: IntGauge,
    open_fds: IntGauge,
    max_fds: IntGauge,
}

impl ProcessFamilies {
    pub fn new(make: &Register) -> Result<Self, prometheus::Error> {
        let begun: Gauge = make.real_gauge("process_start_time_seconds")?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        begun.set(now.unwrap_or_default().as_secs_f64());
        Ok(Self {
            cpu_seconds: make.real_counter("process_cpu_seconds_total")?,
            counting: Mutex::default(),
            resident_bytes: make.gauge("process_resident_memory_bytes")?,
            threads: make.gauge("process_threads")?,
            open_fds: make.gauge("process_open_fds")?,
            max_fds: make.gauge("process_max_fds")?,
        })
    }

    pub fn read(&self) {
        self.count_cpu();
        if let Ok(status) = std::fs::read_to_string("/proc/self/status") {
            let set = |gauge: &IntGauge, value: Option<u64>| value.map_or((), |value| gauge.set(signed(value)));
            let kibibytes = number(&status, "VmRSS");
            set(&self.resident_bytes, kibibytes.map(|kib| kib.saturating_mul(1024)));
            set(&self.threads, number(&status, "Threads"));
        }
        if let Ok(open) = std::fs::read_dir("/proc/self/fd") {
            // Less the one that is open for this look.
            self.open_fds.set(i64::try_from(open.count()).unwrap_or(i64::MAX) - 1);
        }
        let most = getrlimit(Resource::Nofile).current;
        self.max_fds.set(most.map_or(i64::MAX, signed));
    }

    fn count_cpu(&self) {
        let _one_at_a_time = self.counting.lock().unwrap_or_else(PoisonError::into_inner);
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let seconds = cpu.tv_sec as f64 + cpu.tv_nsec as f64 / 1e9;
        self.cpu_seconds.inc_by((seconds - self.cpu_seconds.get()).max(0.0));
    }
}

/// The number of one line of a status file: `Threads:\t3`, `VmRSS:\t  1234 kB`.
fn number(status: &str, key: &str) -> Option<u64> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_off_a_status_file() {
        let status = "Name:\tVmRSS: 7\nVmRSS:\t   45056 kB\nThreads:\t9\nVmRSSX:\t1\n";
        assert_eq!(number(status, "VmRSS"), Some(45_056));
        assert_eq!(number(status, "Threads"), Some(9));
        assert_eq!(number(status, "VmSize"), None);
        assert_eq!(number("Threads:\tmany\n", "Threads"), None);
        assert_eq!(number("Threads:", "Threads"), None);
    }
}
