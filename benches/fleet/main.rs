//! What one more machine costs: memory, CPU of an idle fleet, start-up and scrape at 100, 1,000 and 10,000 machines:
//! `cargo bench --bench fleet`.
//!
//! Each size is measured in a process of its own, so that nothing is left of the one before; its figures come back as one line of
//! JSON. Beside each stands the same fleet without tellerd: as many drivers on as many lines, which ask their devices as often,
//! and the bytes of a scrape from a bare socket. Results are in docs/BENCHMARKS.md. After `--`: `quick` for one short round, or
//! sizes (`100 1000`).

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bare;
mod surroundings;
mod whole;

use std::process::{Command, Stdio};

use serde::{Deserialize, Serialize};

const SIZES: [usize; 3] = [100, 1_000, 10_000];
const ROUNDS: usize = 3;
/// Two rounds of asking every device, and three.
const QUICK_S: u64 = 10;
const IDLE_S: u64 = 15;

/// One process's findings. Times in seconds, memory in KiB, CPU in percent of a core.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Figures {
    pub config_s: f64,
    pub ready_s: f64,
    pub memory_kib: f64,
    pub cpu_percent: f64,
    pub scrape_s: f64,
    pub scrape_bytes: f64,
    pub scrape_series: f64,
    /// The same bytes from a bare socket.
    pub socket_s: f64,
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    if let [mode, size, idle_s] = words.as_slice()
        && let (Ok(size), Ok(idle_s)) = (size.parse(), idle_s.parse())
    {
        let figures = match mode.as_str() {
            "whole" => whole::measure(size, idle_s),
            _ => bare::measure(size, idle_s),
        };
        println!("{}", serde_json::to_string(&figures).unwrap());
        return;
    }
    let quick = words.iter().any(|word| word == "quick");
    let asked: Vec<usize> = words.iter().filter_map(|word| word.parse().ok()).collect();
    let sizes = if asked.is_empty() { SIZES.to_vec() } else { asked };
    let (rounds, idle_s) = if quick { (1, QUICK_S) } else { (ROUNDS, IDLE_S) };
    println!(
        "| machines | all ready after | memory | for each machine | idle CPU | drivers alone: memory, CPU | scrape | from a bare socket |"
    );
    println!("|---|---|---|---|---|---|---|---|");
    let mut before: Option<(usize, f64)> = None;
    for size in sizes {
        let of = |mode| median((0..rounds).map(|_| child(mode, size, idle_s)).collect());
        let (whole, bare) = (of("whole"), of("bare"));
        let more = before.map_or(String::new(), |(machines, memory)| {
            let each = (whole.memory_kib - memory) / (size as f64 - machines as f64);
            format!(" ({each:.1} for each more)")
        });
        println!(
            "| {size} | {:.1} s (file {:.2} s) | {:.0} MiB | {:.1} KiB{more} | {:.2} % | {:.1} KiB each, {:.2} % | {:.1} ms, {:.0} KiB, {} series | {:.1} ms |",
            whole.ready_s,
            whole.config_s,
            whole.memory_kib / 1024.0,
            whole.memory_kib / size as f64,
            whole.cpu_percent,
            bare.memory_kib / size as f64,
            bare.cpu_percent,
            whole.scrape_s * 1e3,
            whole.scrape_bytes / 1024.0,
            whole.scrape_series,
            whole.socket_s * 1e3,
        );
        before = Some((size, whole.memory_kib));
    }
}

fn child(mode: &str, size: usize, idle_s: u64) -> Figures {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([mode, &size.to_string(), &idle_s.to_string()]);
    let output = command.stderr(Stdio::inherit()).output().unwrap();
    assert!(output.status.success(), "{mode} {size}: {}", output.status);
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Figure by figure.
fn median(rounds: Vec<Figures>) -> Figures {
    let of = |figure: fn(&Figures) -> f64| {
        let mut values: Vec<f64> = rounds.iter().map(figure).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    Figures {
        config_s: of(|f| f.config_s),
        ready_s: of(|f| f.ready_s),
        memory_kib: of(|f| f.memory_kib),
        cpu_percent: of(|f| f.cpu_percent),
        scrape_s: of(|f| f.scrape_s),
        scrape_bytes: of(|f| f.scrape_bytes),
        scrape_series: of(|f| f.scrape_series),
        socket_s: of(|f| f.socket_s),
    }
}
