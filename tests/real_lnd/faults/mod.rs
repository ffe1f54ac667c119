//! Faults in every state of a cash-out, on real nodes: a table of state x fault, and what became of each pair.
//!
//! One machine stands in each state, then one fault befalls all of them; when everything is at rest the nodes are asked. What
//! must stay true: nothing is lost without being named, no HTLC is left behind, both nodes tell the same story.

mod stage;
mod strike;
mod verdict;

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;

use crate::harness::{Group, test};
use crate::rig::{Net, breath};

use stage::{Stage, State};
use strike::Fault;
use verdict::Finding;

/// These tests.
pub const GROUP: Group = Group {
    name: "faults",
    merchant: &["--store-final-htlc-resolutions"],
    tests: &[
        test("lnd_killed", |net| Box::pin(befall(net, Fault::LndKilled))),
        test("tellerd_killed", |net| Box::pin(befall(net, Fault::TellerdKilled))),
        test("both_killed", |net| Box::pin(befall(net, Fault::BothKilled))),
        test("wallet_locked", |net| Box::pin(befall(net, Fault::WalletLocked))),
        test("certificate_rotated", |net| Box::pin(befall(net, Fault::CertificateRotated))),
        test("macaroon_replaced", |net| Box::pin(befall(net, Fault::MacaroonReplaced))),
        test("macaroon_revoked", |net| Box::pin(befall(net, Fault::MacaroonRevoked))),
        test("customer_away", |net| Box::pin(befall(net, Fault::CustomerAway))),
        test("outage_beyond_window", |net| Box::pin(befall(net, Fault::OutageBeyondWindow))),
        test("customer_stays_away", |net| Box::pin(befall(net, Fault::CustomerStaysAway))),
        test("outage_beyond_expiry", |net| Box::pin(befall(net, Fault::OutageBeyondExpiry))),
        test("the_whole_table", |_| Box::pin(print())),
    ],
};

/// All rows so far.
static TABLE: Mutex<Vec<String>> = Mutex::new(Vec::new());

const HEAD: &str = "| fault | state | tellerd's end | cash out, cents | loss, cents | invoice | HTLC, finally | customer's payment |\n\
                    |---|---|---|---|---|---|---|---|";

/// Sats in open channels: the customer's, then the merchant's.
async fn balances(net: &Net) -> (i64, i64) {
    (net.customer_sats().await, net.merchant_sats().await)
}

async fn befall(net: &mut Net, fault: Fault) {
    let before = balances(net).await;
    let file = fault.equip(net).await;
    let t = Instant::now();
    let mut stage = Stage::open(net, file).await;
    println!("open {:?}", t.elapsed());
    stage.fill(net).await;
    println!("fill {:?}", t.elapsed());
    fault.freeze(net).await;
    stage.overtake().await;
    println!("overtake {:?}", t.elapsed());
    let reached = stage.states().await;
    println!("states {:?}", t.elapsed());
    let seen = fault.strike(net, &mut stage).await;
    println!("strike {:?}", t.elapsed());
    stage.rest(net, true, &[]).await;
    println!("rest {:?}", t.elapsed());
    let mut findings = Vec::new();
    for state in State::ALL {
        findings.push(settled_down(net, &stage, state).await);
    }
    let mut rows: Vec<String> = Vec::new();
    let mut wrong = Vec::new();
    for (state, finding) in State::ALL.iter().zip(&findings) {
        rows.push(format!("| {fault:?} | {} | {} |", state.name(), finding.row()));
        wrong.extend(finding.wrong().into_iter().map(|what| format!("{}: {what}", state.name())));
    }
    let expected = State::ALL.map(State::name);
    // A customer may be refused when it is known already that nothing can be added.
    if reached[1..] != expected[1..] || ![expected[0], "refused", "canceling"].contains(&reached[0].as_str()) {
        wrong.push(format!("the fault found them as {reached:?}"));
    }
    let earned = findings.iter().map(Finding::earned_msat).sum::<u64>() / 1000;
    let after = balances(net).await;
    let on_chain = matches!(fault, Fault::CustomerStaysAway | Fault::OutageBeyondExpiry);
    let moved = i64::try_from(earned).unwrap();
    if !on_chain && after != (before.0 - moved, before.1 + moved) {
        wrong.push(format!("{before:?} became {after:?}, but {moved} sats were paid"));
    }
    rows.push(format!(
        "| {fault:?} | *balances* | customer {} -> {}, merchant {} -> {} sats in channels, {moved} sats earned; {seen} | | | | | |",
        before.0, after.0, before.1, after.1
    ));
    println!("{HEAD}\n{}", rows.join("\n"));
    TABLE.lock().unwrap().extend(rows);
    assert!(wrong.is_empty(), "{}\n{}", wrong.join("\n"), stage.teller.daemon.last_words());
}

/// Nodes need a moment after tellerd's last word: what they say once nothing is wrong, or after the longest wait.
async fn settled_down(net: &Net, stage: &Stage, state: State) -> Finding {
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let finding = Finding::read(net, stage, state).await;
        if finding.wrong().is_empty() || Instant::now() > end {
            return finding;
        }
        breath().await;
    }
}

/// The table of all that ran.
async fn print() {
    let rows = TABLE.lock().unwrap().clone();
    println!("{HEAD}\n{}", rows.join("\n"));
    assert!(!rows.is_empty(), "no fault was tried");
}
