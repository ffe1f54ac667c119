//! What the daemon's own work costs: `cargo bench --bench core`.
//!
//! Each figure stands beside a limit that is measured in the same run. After `--`, `journal`, `instant`, `cashouts`,
//! `startup` or `restart` runs one part, and `quick` makes it short; a number is that of the finished cash-outs of `startup`,
//! each of which takes about 10 KiB of the disk. Results are kept in docs/BENCHMARKS.md.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod bare;
mod cashouts;
mod child;
mod daemon;
mod disk;
mod history;
mod instant;
mod journal;
mod machines;
#[allow(dead_code, reason = "shared with the benchmark of requests over Nostr")]
#[path = "../nostr_rpc/meter.rs"]
mod meter;
mod node;
mod restart;
mod startup;

fn main() {
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with("--"))
        .collect();
    let has = |word: &str| words.iter().any(|one| one == word);
    let quick = has("quick");
    let finished = words.iter().find_map(|word| word.parse().ok());
    let startup = move |quick| startup::run(quick, finished);
    let parts: [(&str, &dyn Fn(bool)); 5] = [
        ("journal", &journal::run),
        ("instant", &instant::run),
        ("cashouts", &cashouts::run),
        ("restart", &restart::run),
        ("startup", &startup),
    ];
    let all = !parts.iter().any(|(part, _)| has(part));
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("{}, load {}", meter::machine(), load.trim());
    for (_, run) in parts.iter().filter(|(part, _)| all || has(part)) {
        run(quick);
    }
}
