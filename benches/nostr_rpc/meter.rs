//! Clocks, percentiles, and the machine's name.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// What passed since it was started: on the wall, and on all cores for this process.
pub struct Meter {
    wall: Instant,
    cpu: Duration,
}

impl Meter {
    pub fn start() -> Self {
        Self {
            wall: Instant::now(),
            cpu: cpu(),
        }
    }

    /// Wall time and CPU time in seconds.
    pub fn read(&self) -> (f64, f64) {
        let cpu = cpu() - self.cpu;
        (self.wall.elapsed().as_secs_f64(), cpu.as_secs_f64())
    }
}

/// All threads, in user and kernel.
fn cpu() -> Duration {
    let spent = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(
        u64::try_from(spent.tv_sec).unwrap(),
        u32::try_from(spent.tv_nsec).unwrap(),
    )
}

/// CPU time of each kind of thread so far, in seconds: the relays' thread is `nostr`, the main one the gate's here.
pub fn threads() -> BTreeMap<String, f64> {
    threads_of(std::process::id())
}

/// The same of another process.
pub fn threads_of(process: u32) -> BTreeMap<String, f64> {
    let mut spent = BTreeMap::new();
    let tasks = std::fs::read_dir(format!("/proc/{process}/task"))
        .into_iter()
        .flatten()
        .flatten();
    for task in tasks {
        let read = |name: &str| std::fs::read_to_string(task.path().join(name)).unwrap_or_default();
        let name = read("comm");
        let name = name.trim().trim_end_matches(|c: char| c.is_ascii_digit() || c == '-');
        let nanoseconds = read("schedstat")
            .split(' ')
            .next()
            .and_then(|first| first.parse::<f64>().ok());
        *spent.entry(name.to_owned()).or_default() += nanoseconds.unwrap_or(0.0) / 1e9;
    }
    spent
}

/// Median and 99th percentile in milliseconds.
pub fn percentiles(mut times: Vec<Duration>) -> (f64, f64) {
    times.sort();
    let at = |percent: usize| times[(times.len() * percent / 100).min(times.len() - 1)].as_secs_f64() * 1e3;
    (at(50), at(99))
}

/// Processor and number of cores, as Linux tells them.
pub fn machine() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let named = info.lines().find_map(|line| line.strip_prefix("model name"));
    let model = named.map_or("unknown processor", |rest| rest.trim_start_matches([' ', '\t', ':']));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    format!("{model}, {cores} cores")
}
