//! Faults in every state of a cash-out, on real nodes: a table of state x fault, and what became of each pair.
//!
//! One machine stands in each state, then one fault befalls all of them; when everything is at rest the nodes are asked. What
//! must stay true: nothing is lost without being named, no HTLC is left behind, both nodes tell the same story.

mod points;
mod stage;
mod strike;
mod verdict;

use std::sync::Mutex;

use self::stage::{AMOUNT, Stage, State};
use self::strike::Fault;
use self::verdict::row;
use crate::audit::{Audit, Fate};
use crate::harness::{Group, test};
use crate::rig::Net;

/// These tests.
pub const GROUP: Group = Group {
    name: "faults",
    // The delta that tellerd takes for granted, also at an older LND.
    merchant: &["--store-final-htlc-resolutions", "--invoices.holdexpirydelta=18"],
    tests: &[
        test("lnd_killed", |net| Box::pin(befall(net, Fault::LndKilled))),
        test("tellerd_killed", |net| Box::pin(befall(net, Fault::TellerdKilled))),
        test("both_killed", |net| Box::pin(befall(net, Fault::BothKilled))),
        test("wallet_locked", |net| Box::pin(befall(net, Fault::WalletLocked))),
        test("certificate_rotated", |net| {
            Box::pin(befall(net, Fault::CertificateRotated))
        }),
        test("macaroon_replaced", |net| {
            Box::pin(befall(net, Fault::MacaroonReplaced))
        }),
        test("macaroon_revoked", |net| Box::pin(befall(net, Fault::MacaroonRevoked))),
        test("customer_away", |net| Box::pin(befall(net, Fault::CustomerAway))),
        test("outage_beyond_window", |net| {
            Box::pin(befall(net, Fault::OutageBeyondWindow))
        }),
        test("at_every_point", |net| Box::pin(points::at_every_point(net))),
        // These close the channel.
        test("customer_stays_away", |net| {
            Box::pin(befall(net, Fault::CustomerStaysAway))
        }),
        test("outage_beyond_expiry", |net| {
            Box::pin(befall(net, Fault::OutageBeyondExpiry))
        }),
        test("the_whole_table", |_| Box::pin(print())),
    ],
};

/// All rows so far.
static TABLE: Mutex<Vec<String>> = Mutex::new(Vec::new());

const HEAD: &str = "| fault | state | tellerd's end | cash out, cents | loss, cents | funds | invoice | HTLC, finally | customer's payment |\n\
                    |---|---|---|---|---|---|---|---|---|";

async fn befall(net: &mut Net, fault: Fault) {
    let file = fault.equip(net).await;
    let mut stage = Stage::open(net, file).await;
    let audit = Audit::begin(net, &stage.teller).await;
    let before = (net.customer_sats().await, net.merchant_sats().await);
    stage.fill(net).await;
    fault.freeze(net).await;
    stage.overtake().await;
    let reached = stage.states().await;
    fault.found(&reached);
    let seen = fault.strike(net, &mut stage).await;
    stage.rest(net, true, &[]).await;
    let fates = if fault.closes_the_channel() {
        audit.end_on_chain(net, &stage.teller).await
    } else {
        audit.end(net, &stage.teller).await
    };
    let mut rows = Vec::new();
    for state in &State::ALL {
        let id = stage.cell(*state).id;
        let fate = fates.iter().find(|fate| Some(fate.view.id) == id);
        rows.push(format!("| {fault:?} | {} | {}", state.name(), row(net, fate).await));
        let notes: u64 = fate.map_or(0, Fate::notes);
        assert!([0, AMOUNT].contains(&notes), "{state:?}: {notes} of {AMOUNT}");
        fault.outcome(*state, fate);
    }
    let earned = fates.iter().map(Fate::paid_msat).sum::<i64>() / 1000;
    let after = (net.customer_sats().await, net.merchant_sats().await);
    rows.push(format!(
        "| {fault:?} | *sats in channels* | customer {} -> {}, merchant {} -> {}; {earned} paid. {seen} | | | | | | |",
        before.0, after.0, before.1, after.1
    ));
    tell(rows);
}

/// Into the table.
fn tell(rows: Vec<String>) {
    println!("{HEAD}\n{}", rows.join("\n"));
    TABLE.lock().unwrap().extend(rows);
}

/// The table of all that ran.
async fn print() {
    let rows = TABLE.lock().unwrap().clone();
    println!("{HEAD}\n{}", rows.join("\n"));
    assert!(!rows.is_empty(), "no fault was tried");
}
