//! Runs groups of tests one after the other, each group on one network, and tells how it went.
//!
//! What must stay true: a failed test never keeps the others from running, nor a network from being taken down; the
//! network is brought up anew after a failure, since nobody knows what it left behind.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use futures_util::FutureExt;

use crate::rig::{Net, binaries};

/// The longest time one test may take.
const LONGEST: Duration = Duration::from_secs(600);

/// What a test does with its group's network.
pub type Body = for<'a> fn(&'a mut Net) -> Pin<Box<dyn Future<Output = ()> + 'a>>;

/// One test.
#[derive(Clone, Copy)]
pub struct Test {
    name: &'static str,
    body: Body,
}

/// A test of a group.
pub const fn test(name: &'static str, body: Body) -> Test {
    Test { name, body }
}

/// Tests that share a network.
#[derive(Clone, Copy)]
pub struct Group {
    /// Its name.
    pub name: &'static str,
    /// Options of the merchant's lnd.
    pub merchant: &'static [&'static str],
    /// In this order.
    pub tests: &'static [Test],
}

/// Runs those tests whose names contain one of the words of the command line, or all.
pub fn run(groups: &[Group]) -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let wanted = |group: &Group, test: &Test| {
        let name = format!("{}::{}", group.name, test.name);
        words.is_empty() || words.iter().any(|word| name.contains(word.as_str()))
    };
    if let Err(why) = binaries() {
        eprintln!("{why}");
        return ExitCode::FAILURE;
    }
    // One thread, and it is the main one: children are to die with it.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.expect("a runtime");
    let (mut passed, mut failed) = (0, Vec::new());
    for group in groups {
        let tests: Vec<Test> = group.tests.iter().filter(|test| wanted(group, test)).copied().collect();
        runtime.block_on(run_group(group, &tests, &mut passed, &mut failed));
    }
    for name in &failed {
        println!("failed: {name}");
    }
    println!("{passed} passed, {} failed", failed.len());
    ExitCode::from(u8::from(!failed.is_empty() || passed == 0))
}

async fn run_group(group: &Group, tests: &[Test], passed: &mut usize, failed: &mut Vec<String>) {
    let mut up: Option<Net> = None;
    for test in tests {
        let name = format!("{}::{}", group.name, test.name);
        let begun = Instant::now();
        let mut net = match up.take() {
            Some(net) => net,
            None => match AssertUnwindSafe(Net::up(group.merchant)).catch_unwind().await {
                Ok(net) => net,
                Err(_) => {
                    println!("test {name} ... FAILED: no network");
                    failed.push(name);
                    continue;
                }
            },
        };
        let body = AssertUnwindSafe(tokio::time::timeout(LONGEST, (test.body)(&mut net))).catch_unwind();
        let well = matches!(body.await, Ok(Ok(())));
        let seconds = begun.elapsed().as_secs_f64();
        println!(
            "test {name} ... {} ({seconds:.1} s)",
            if well { "ok" } else { "FAILED" }
        );
        if well {
            *passed += 1;
            up = Some(net);
        } else {
            failed.push(name);
            net.down(true).await;
        }
    }
    if let Some(net) = up {
        net.down(false).await;
    }
}
