//! The real LND as a world of the conformance table, and the table's run on both nodes.

use std::cell::RefCell;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use futures_util::future::join_all;
use tellerd::proto::lnrpc::htlc_attempt::HtlcStatus;
use tellerd::proto::lnrpc::state_client::StateClient;
use tellerd::proto::lnrpc::{HtlcAttempt, SubscribeStateRequest, WalletState};
use tokio::sync::RwLock;
use tokio::task::JoinHandle;
use tonic::Status;
use tonic::transport::Channel;

use crate::conformance::{Case, Ending, Share, Sim, World, calls, payments, rescue, restarts, run, streams};
use crate::harness::{Group, test};
use crate::rig::payer::{Bill, Part};
use crate::rig::{Net, breath};

/// These tests.
pub const GROUP: Group = Group {
    name: "conformance",
    merchant: &["--store-final-htlc-resolutions", "--default-remote-max-htlcs=8"],
    tests: &[
        test("calls", |net| {
            Box::pin(both(
                net,
                &[calls::EMPTY, calls::ADDS, calls::STATES, calls::NODE, payments::FULL],
            ))
        }),
        test("payments_and_streams", |net| {
            Box::pin(both(net, &[payments::ALL, streams::QUIET]))
        }),
        test("restarts", |net| Box::pin(both(net, &[streams::ENDS, restarts::ALL]))),
        test("rescue", |net| Box::pin(both(net, &[rescue::OPEN_CHANNEL]))),
    ],
};

/// A channel that is closed by the test.
pub const CLAIM: Group = Group {
    name: "conformance_claim",
    merchant: GROUP.merchant,
    tests: &[test("claim", |net| Box::pin(both(net, &[rescue::CLAIM])))],
};

/// And another.
pub const LATE: Group = Group {
    name: "conformance_late",
    merchant: GROUP.merchant,
    tests: &[test("late", |net| Box::pin(both(net, &[rescue::LATE])))],
};

/// Numbers the cases of this process.
static NUMBER: AtomicU16 = AtomicU16::new(1);

/// The merchant's node of a network.
struct Real<'a> {
    net: RwLock<&'a mut Net>,
    sent: RefCell<Vec<Sent>>,
}

/// One HTLC of the payer's: its hash, and what became of it.
struct Sent([u8; 32], Fate);

enum Fate {
    /// The payer's node has not answered.
    Pending(JoinHandle<Result<HtlcAttempt, Status>>),
    /// It has.
    Known(String),
    /// The payer's node ended before it answered: it has to be asked.
    Lost,
}

impl Fate {
    fn look(&mut self) {
        if let Self::Pending(call) = self
            && let Some(answer) = call.now_or_never()
        {
            *self = match answer.expect("the call does not panic") {
                Ok(htlc) => Self::Known(fate(&htlc)),
                Err(_) => Self::Lost,
            };
        }
    }
}

/// `in flight`, `settled`, or the failure.
fn fate(htlc: &HtlcAttempt) -> String {
    match htlc.status() {
        HtlcStatus::InFlight => "in flight".to_owned(),
        HtlcStatus::Succeeded => "settled".to_owned(),
        HtlcStatus::Failed => failure(htlc.failure.as_ref().map_or(0, |failure| failure.code)),
    }
}

/// Runs the cases on both nodes, prints the table, and fails when one told something unexpected.
async fn both(net: &mut Net, sets: &[&[Case]]) {
    let version = net.merchant.info().await.expect("the merchant's node answers").version;
    let line = if version.starts_with("0.20") { "0.20" } else { "0.21" };
    let real = Real {
        net: RwLock::new(net),
        sent: RefCell::default(),
    };
    // Invoices of all tests are on one node.
    let number = || NUMBER.fetch_add(1, Ordering::Relaxed);
    let numbered: Vec<(u16, &Case)> = sets.iter().copied().flatten().map(|case| (number(), case)).collect();
    let slow = numbered.iter().filter(|(_, case)| case.slow);
    let slow = join_all(slow.map(async |(number, case)| (*number, run(case, &real, *number).await)));
    let quick = async {
        let mut seen = Vec::new();
        for (number, case) in numbered.iter().filter(|(_, case)| !case.slow) {
            seen.push((*number, run(case, &real, *number).await));
        }
        seen
    };
    let (slow, quick) = tokio::join!(slow, quick);
    let mut differ = 0;
    for (number, case) in &numbered {
        let seen = slow.iter().chain(&quick).find(|(seen, _)| seen == number);
        let seen = &seen.expect("each case was run").1;
        let simulated = run(case, &Sim::new().await, 1).await;
        println!("{}", case.name);
        differ += usize::from(!agree(case.expected_of(line), seen, &simulated, line == "0.21"));
    }
    assert_eq!(differ, 0, "so many cases told something unexpected, lnd {version}");
}

/// Prints what was seen, line by line, and whether all of it is as expected. The simulated node plays v0.21.
fn agree(expected: &[&str], real: &[String], simulated: &[String], simulated_too: bool) -> bool {
    let mut agree = real == expected;
    for line in 0..real.len().max(expected.len()).max(simulated.len()) {
        let of = |lines: &[String]| lines.get(line).cloned().unwrap_or_else(|| "(nothing)".to_owned());
        let wanted = expected.get(line).copied().unwrap_or("(nothing)");
        let (real, simulated) = (of(real), of(simulated));
        if real == wanted && (simulated == wanted || !simulated_too) {
            println!("    ok         {wanted}");
        } else {
            println!("    expected   {wanted}\n    real       {real}\n    simulated  {simulated}");
        }
    }
    if simulated_too {
        agree &= simulated == expected;
    }
    agree
}

/// `lnrpc.Failure.FailureCode` by its number, as the simulated LND names it.
fn failure(code: u32) -> String {
    match code {
        1 => "INCORRECT_PAYMENT_DETAILS".to_owned(),
        15 => "TEMPORARY_CHANNEL_FAILURE".to_owned(),
        21 => "PERMANENT_CHANNEL_FAILURE".to_owned(),
        23 => "MPP_TIMEOUT".to_owned(),
        other => format!("failure {other}"),
    }
}

impl Real<'_> {
    /// An HTLC of the payer's is in flight.
    fn busy(&self) -> bool {
        let mut sent = self.sent.borrow_mut();
        sent.iter_mut().any(|sent| {
            sent.1.look();
            matches!(sent.1, Fate::Pending(_))
        })
    }
}

#[async_trait(?Send)]
impl World for Real<'_> {
    fn name(&self) -> &'static str {
        "real"
    }

    async fn channel(&self) -> Option<Channel> {
        self.net.read().await.merchant.channel().await.ok()
    }

    async fn macaroon(&self, file: &str) -> Vec<u8> {
        std::fs::read(self.net.read().await.merchant.macaroons().join(file)).expect("a macaroon")
    }

    async fn send(&self, payment_request: &str, share: Share) {
        let part = Part {
            amount_msat: share.total_msat / u64::from(share.of),
            total_msat: share.total_msat,
            cltv: share.cltv,
        };
        let net = self.net.read().await;
        let bill = Bill::read(payment_request);
        let call = net.send_part(&bill, part).await;
        self.sent.borrow_mut().push(Sent(bill.hash, Fate::Pending(call)));
    }

    async fn sent(&self, hash: [u8; 32]) -> Vec<String> {
        let mut known = Vec::new();
        let mut lost = false;
        for Sent(_, fate) in self.sent.borrow_mut().iter_mut().filter(|sent| sent.0 == hash) {
            fate.look();
            lost |= matches!(fate, Fate::Lost);
            known.push(match fate {
                Fate::Known(fate) => fate.clone(),
                _ => "in flight".to_owned(),
            });
        }
        if !lost {
            return known;
        }
        let payment = self.net.read().await.payment(hash).await;
        payment.map_or(known, |payment| payment.htlcs.iter().map(fate).collect())
    }

    async fn mine(&self, blocks: u32) {
        self.net.read().await.mine(blocks).await;
    }

    async fn height(&self) -> u32 {
        self.net.read().await.chain.height().await
    }

    async fn pass(&self, time: Duration) {
        tokio::time::sleep(time).await;
    }

    async fn end(&self, how: Ending) {
        let mut net = self.net.write().await;
        match how {
            Ending::Clean => net.merchant.stop().await,
            Ending::Killed => net.merchant.kill(),
        }
    }

    async fn start_locked(&self) {
        self.net.write().await.merchant.start_locked();
    }

    async fn unlock(&self) {
        self.net.read().await.merchant.unlock().await;
    }

    async fn ready(&self) {
        let net = self.net.read().await;
        net.synced().await;
        net.reconnect().await;
        net.lane_is_up().await;
    }

    async fn rpc_active(&self, blocks: u32) {
        let mut net = self.net.write().await;
        net.chain.generate(blocks).await;
        net.merchant.start_locked();
        net.merchant.reaches(WalletState::Locked).await;
        let channel = net.merchant.channel().await.expect("lnd answers");
        let states = StateClient::new(channel)
            .subscribe_state(SubscribeStateRequest {})
            .await;
        let mut states = states.expect("states").into_inner();
        net.merchant.unlock().await;
        while states.message().await.expect("a state").expect("no end").state() != WalletState::RpcActive {}
        // It looks once a second whether its wallet has caught up with the blocks.
        net.chain.pause();
    }

    async fn go_on(&self) {
        let net = self.net.read().await;
        let state = net.merchant.state().await;
        net.chain.resume();
        assert_eq!(state, Some(WalletState::RpcActive), "btcd was stopped too late");
    }

    async fn mine_alone(&self, blocks: u32) {
        self.mine(blocks).await;
    }

    async fn confirm(&self) {
        for _ in 0..30 {
            self.mine(1).await;
            if !self.busy() {
                return;
            }
            // The nodes need a moment for their next transaction, which the next block is to hold.
            for _ in 0..20 {
                if self.net.read().await.chain.has_transactions().await {
                    break;
                }
                breath().await;
            }
        }
    }

    async fn payer_stops(&self) {
        self.net.write().await.customer.stop().await;
    }

    async fn payer_starts(&self) {
        self.net.write().await.customer.start();
        self.ready().await;
    }
}
