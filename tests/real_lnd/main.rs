//! Tests against a real LND. Not part of `cargo test`: they need lnd and btcd, which tests/real_lnd/run.sh builds.
//!
//! One test after the other, each group on a network of its own; a harness of its own because the networks have to be
//! taken down in good order. Words on the command line pick the tests whose names contain one of them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod audit;
mod bring_up;
mod cashouts;
mod check;
mod conform;
#[path = "../conformance/mod.rs"]
mod conformance;
mod faults;
mod harness;
mod rig;
#[allow(dead_code, reason = "shared with tests/suite")]
#[path = "../suite/site.rs"]
mod site;
#[allow(dead_code)]
mod teller;

fn main() -> std::process::ExitCode {
    harness::run(&[
        bring_up::GROUP,
        check::GROUP,
        cashouts::GROUP,
        faults::GROUP,
        conform::GROUP,
        conform::CLAIM,
        conform::LATE,
    ])
}
