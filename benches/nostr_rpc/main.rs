//! What a request over Nostr costs, and how long it takes: `cargo bench --bench nostr_rpc`.
//!
//! Each figure stands beside a limit that is measured in the same run, so that another machine, or the same one on
//! another day, gives a ratio that can be compared. Results are kept in docs/BENCHMARKS.md. After `--`, `handled` or
//! `relayed` runs one half, and `quick` makes both short.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod clients;
mod collector;
mod daemon;
mod handled;
mod meter;
mod node;
mod relayed;

fn main() {
    let words: Vec<String> = std::env::args()
        .skip(1)
        .filter(|word| !word.starts_with("--"))
        .collect();
    let has = |word: &str| words.iter().any(|one| one == word);
    let both = !has("handled") && !has("relayed");
    println!("{}", meter::machine());
    if both || has("handled") {
        handled::run(if has("quick") { 500 } else { 3_000 });
    }
    if both || has("relayed") {
        relayed::run(if has("quick") { 2 } else { 10 });
    }
}
