//! One table of what LND answers, run against a real LND and against the simulated one.
//!
//! A module of both test binaries: `tests/suite` runs it on the simulated node, `tests/real_lnd` on both. What must stay
//! true: a case speaks to a [`World`] only, so that nothing in it can know which node answers; what is expected is what
//! the real one was seen to do. Source: fact sheet on LND, sections 3 and 6; results in docs/LND_CONFORMANCE.md.

#![allow(dead_code, reason = "each of the two binaries needs a part of it")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod calls;
pub mod payments;
pub mod rescue;
pub mod restarts;
mod script;
mod sim;
pub mod streams;

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use tonic::transport::Channel;

pub use script::Script;
pub use sim::Sim;

/// The longest wait for anything but a clock.
pub const PATIENCE: Duration = Duration::from_secs(100);
/// HTLCs that the channel of every world holds at most.
pub const MAX_HTLCS: u32 = 8;

/// One HTLC on its way to the node under test.
#[derive(Debug, Clone, Copy)]
pub struct Share {
    /// What the payer says it pays in all.
    pub total_msat: u64,
    /// It is one of so many equal HTLCs.
    pub of: u32,
    /// Blocks from now to its expiry.
    pub cltv: u32,
}

/// A state that the node is brought to from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// As by an operator.
    Clean,
    /// `kill -9`.
    Killed,
}

/// A node under test, its payer, and its chain.
#[async_trait(?Send)]
pub trait World {
    /// `real` or `simulated`.
    fn name(&self) -> &'static str;
    /// A new connection to the node, `None` while nothing listens.
    async fn channel(&self) -> Option<Channel>;
    /// One of the node's own macaroons, `admin.macaroon` or `readonly.macaroon`.
    async fn macaroon(&self, file: &str) -> Vec<u8>;
    /// The payer sends one HTLC and returns at once.
    async fn send(&self, payment_request: &str, share: Share);
    /// Each HTLC that the payer sent for this hash: `in flight`, `settled`, or the name of the failure on the wire.
    async fn sent(&self, hash: [u8; 32]) -> Vec<String>;
    /// Finds blocks; returns once the running nodes have seen them.
    async fn mine(&self, blocks: u32);
    /// The chain's height.
    async fn height(&self) -> u32;
    /// Lets time pass.
    async fn pass(&self, time: Duration);
    /// The node's process ends; returns once it is gone.
    async fn end(&self, how: Ending);
    /// The process starts again, the wallet stays locked.
    async fn start_locked(&self);
    /// The wallet is unlocked; returns at once.
    async fn unlock(&self);
    /// Returns once the node is fully started and the payer can send.
    async fn ready(&self);
    /// After its end: `blocks` are found, the node comes up and stays in RPC_ACTIVE.
    async fn rpc_active(&self, blocks: u32);
    /// It goes on from there.
    async fn go_on(&self);
    /// Finds blocks while the node is down; returns once the payer has seen them.
    async fn mine_alone(&self, blocks: u32);
    /// Finds blocks, a few at a time, until the payer has nothing in flight; returns also when that takes too many.
    async fn confirm(&self);
    /// The payer's node ends, when it is a node.
    async fn payer_stops(&self);
    /// And comes back; returns when it is connected.
    async fn payer_starts(&self);
}

/// What a case does and tells.
pub type Told<'a> = Pin<Box<dyn Future<Output = Vec<String>> + 'a>>;

/// One row of the table.
#[derive(Clone, Copy)]
pub struct Case {
    /// What is done, in the words of the sheet.
    pub name: &'static str,
    /// Does it.
    pub run: for<'a> fn(&'a Script<'a>) -> Told<'a>,
    /// What is told from v0.21 on.
    pub expected: &'static [&'static str],
    /// What v0.20 tells, when that differs.
    pub before_21: Option<&'static [&'static str]>,
    /// It waits for a clock, and runs beside the others where that clock is real.
    pub slow: bool,
}

impl Case {
    /// With what v0.20 tells.
    pub const fn before_21(mut self, told: &'static [&'static str]) -> Self {
        self.before_21 = Some(told);
        self
    }

    /// It waits for a clock.
    pub const fn slow(mut self) -> Self {
        self.slow = true;
        self
    }

    /// What is expected of `line`, such as `0.21`.
    pub fn expected_of(&self, line: &str) -> &'static [&'static str] {
        match self.before_21 {
            Some(told) if line == "0.20" => told,
            _ => self.expected,
        }
    }
}

/// A row. `run` returns one line for each thing seen.
pub const fn case(
    name: &'static str,
    run: for<'a> fn(&'a Script<'a>) -> Told<'a>,
    expected: &'static [&'static str],
) -> Case {
    Case {
        name,
        run,
        expected,
        before_21: None,
        slow: false,
    }
}

/// Runs one case; a panic in it is what it told.
pub async fn run(case: &Case, world: &dyn World, number: u16) -> Vec<String> {
    let script = Script::new(world, number).await;
    match AssertUnwindSafe((case.run)(&script)).catch_unwind().await {
        Ok(told) => told,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            vec![format!("panic: {}", text.unwrap_or_default())]
        }
    }
}

/// Runs cases on a simulated node each; the lines of those that told something unexpected.
pub async fn differences(cases: &[Case]) -> Vec<String> {
    let mut differences = Vec::new();
    for case in cases {
        let told = run(case, &Sim::new().await, 1).await;
        if told != case.expected {
            differences.push(format!(
                "{}\n  expected  {:?}\n  simulated {told:?}",
                case.name, case.expected
            ));
        }
    }
    differences
}
