//! Customers who pay late, twice, in parts, too little or too much.

use std::time::Duration;

use futures_util::future::join_all;
use tellerd::hardware::puloon::emulator::{Setup, Target};
use tellerd::proto::lnrpc::InvoiceHtlcState;
use tellerd::proto::lnrpc::htlc_attempt::HtlcStatus;
use tellerd::proto::lnrpc::invoice::InvoiceState;
use tellerd::proto::lnrpc::payment::PaymentStatus;
use tellerd::time::{Clock, SystemClock};

use super::{alone, bill, fleet, is_refunded, is_served, request, slow, teller};
use crate::audit::Audit;
use crate::rig::Net;
use crate::rig::payer::{Bill, Part};

/// "incorrect or unknown payment details", as LND counts the codes of BOLT 4. A timeout of parts has another.
const INCORRECT_DETAILS: u32 = 1;

/// One HTLC with everything.
fn whole(bill: &Bill) -> Part {
    Part {
        amount_msat: bill.amount_msat,
        total_msat: bill.amount_msat,
        cltv: bill.min_final_cltv + 3,
    }
}

pub async fn unpaid(net: &mut Net) {
    let teller = teller(net, Setup::default(), "[policy]\npayment_timeout = \"2s\"\n").await;
    let audit = Audit::begin(net, &teller).await;
    let cashout = teller.start("atm1", 12_000).await;
    let fate = alone(&audit, net, &teller).await;
    assert_eq!(fate.view.reason.as_deref(), Some("not paid in time"));
    assert_eq!((fate.state(), fate.notes()), (Some(InvoiceState::Canceled), 0));
    assert!(fate.payments.is_empty());
    // A wallet sees that it is too late. One that does not look is refused.
    let bill = bill(&cashout);
    let late = net.send_part(&bill, whole(&bill)).await.await.unwrap().unwrap();
    assert_eq!(late.failure.unwrap().code, INCORRECT_DETAILS);
    is_refunded(&alone(&audit, net, &teller).await);
}

/// Each machine has a customer who pays so many milliseconds before it is too late: served or refunded, which the audit
/// tells apart, and never a bit of both.
pub async fn paid_at_the_last_second(net: &mut Net) {
    const EARLY_MS: [i64; 8] = [300, 200, 170, 140, 110, 80, 50, -25];
    let teller = fleet(
        net,
        Setup::default(),
        EARLY_MS.len(),
        "[policy]\npayment_timeout = \"3s\"\n",
    )
    .await;
    let (mut served, mut refunded, mut reached) = (0, 0, 0);
    for _ in 0..3 {
        let audit = Audit::begin(net, &teller).await;
        let pay = async |number: usize, early: i64| {
            let name = format!("atm{}", number + 1);
            teller.ready(&name).await;
            let cashout = teller.start(&name, 6_000).await;
            let bill = bill(&cashout);
            let due = i64::try_from(cashout.pay_by_unix_ms.0).unwrap() - early;
            let now = i64::try_from(SystemClock.now().0).unwrap();
            tokio::time::sleep(Duration::from_millis(u64::try_from(due - now).unwrap_or(0))).await;
            drop(net.send_part(&bill, whole(&bill)).await);
        };
        join_all(EARLY_MS.iter().enumerate().map(|(number, early)| pay(number, *early))).await;
        for fate in audit.end(net, &teller).await {
            match fate.view.state.as_str() {
                "completed" => {
                    is_served(&fate, fate.view.price_msat.0);
                    served += 1;
                }
                _ => {
                    is_refunded(&fate);
                    refunded += 1;
                    reached += usize::from(!fate.invoice.unwrap().htlcs.is_empty());
                }
            }
        }
    }
    println!(
        "paid at the last second: {served} served, {refunded} refunded, {reached} of them from within the invoice"
    );
    assert_eq!(served + refunded, 3 * EARLY_MS.len());
}

pub async fn paid_twice(net: &mut Net) {
    let teller = teller(net, slow(), "").await;
    let audit = Audit::begin(net, &teller).await;
    let cashout = teller.start("atm1", 12_000).await;
    let bill = bill(&cashout);
    teller.site.machines[0].hold_at(Some(Target::Dispense));
    let first = net.pay(request(&cashout), None).await;
    teller.reaches(cashout.id, &["dispensing"]).await;
    // The customer's own node keeps it from doing so.
    let again = net.pay(request(&cashout), None).await.await.unwrap().unwrap_err();
    println!("paid again while it is held: {again}");
    let part = net.send_part(&bill, whole(&bill)).await.await.unwrap().unwrap_err();
    println!("a second HTLC of the same node: {part}");
    teller.site.machines[0].hold_at(None);
    assert_eq!(first.await.unwrap().unwrap().status(), PaymentStatus::Succeeded);
    let again = net.pay(request(&cashout), None).await.await.unwrap().unwrap_err();
    println!("paid again after it was settled: {again}");
    let fate = alone(&audit, net, &teller).await;
    is_served(&fate, cashout.price_msat.0);
    assert_eq!(fate.invoice.unwrap().htlcs.len(), 1);
}

/// Two wallets pay the same invoice, the second while the money of the first is held or at the same time: one of them pays.
pub async fn paid_by_two(net: &mut Net) {
    net.invite_stranger().await;
    let stranger = net.stranger.as_ref().unwrap();
    let teller = teller(net, slow(), "").await;
    for at_once in [false, true] {
        teller.ready("atm1").await;
        let audit = Audit::begin(net, &teller).await;
        let cashout = teller.start("atm1", 12_000).await;
        let bill = bill(&cashout);
        teller.site.machines[0].hold_at(Some(Target::Dispense));
        let first = net.send_part(&bill, whole(&bill)).await;
        if !at_once {
            teller.reaches(cashout.id, &["dispensing"]).await;
            let second = stranger.send_part(&bill, whole(&bill)).await.await.unwrap().unwrap();
            assert_eq!(second.failure.unwrap().code, INCORRECT_DETAILS);
        }
        let second = stranger.send_part(&bill, whole(&bill)).await;
        teller.site.machines[0].hold_at(None);
        let ends = [first, second].map(async |end| end.await.unwrap().unwrap().status());
        let mut ends = join_all(ends).await;
        ends.sort_unstable();
        assert_eq!(ends, [HtlcStatus::Succeeded, HtlcStatus::Failed]);
        let fate = alone(&audit, net, &teller).await;
        is_served(&fate, cashout.price_msat.0);
        assert_eq!(fate.payments.len(), 2);
    }
}

pub async fn paid_in_parts(net: &mut Net) {
    let teller = teller(net, Setup::default(), "").await;
    let audit = Audit::begin(net, &teller).await;
    let cashout = teller.start("atm1", 12_000).await;
    let shard = cashout.price_msat.0 / 3 + 1_000;
    drop(net.pay(request(&cashout), Some(shard)).await);
    let fate = alone(&audit, net, &teller).await;
    is_served(&fate, cashout.price_msat.0);
    let htlcs = fate.invoice.unwrap().htlcs;
    assert!(htlcs.len() > 1, "{htlcs:?}");
    assert!(htlcs.iter().all(|htlc| htlc.state() == InvoiceHtlcState::Settled));
}

/// Refunded at tellerd's deadline for the payment, which LND's two minutes for parts outlast.
pub async fn parts_that_never_complete(net: &mut Net) {
    let teller = teller(net, Setup::default(), "[policy]\npayment_timeout = \"3s\"\n").await;
    let audit = Audit::begin(net, &teller).await;
    let cashout = teller.start("atm1", 12_000).await;
    let bill = bill(&cashout);
    let part = Part {
        amount_msat: bill.amount_msat / 3,
        ..whole(&bill)
    };
    let parts = [net.send_part(&bill, part).await, net.send_part(&bill, part).await];
    for part in parts {
        let part = part.await.unwrap().unwrap();
        assert_eq!(part.status(), HtlcStatus::Failed);
        assert_eq!(part.failure.unwrap().code, INCORRECT_DETAILS);
    }
    let fate = alone(&audit, net, &teller).await;
    is_refunded(&fate);
    assert_eq!(fate.view.reason.as_deref(), Some("not paid in time"));
    assert_eq!(fate.invoice.unwrap().htlcs.len(), 2);
}

/// LND refuses a set that says itself that it is too small, and the invoice can still be paid.
pub async fn paid_too_little(net: &mut Net) {
    let teller = teller(net, Setup::default(), "").await;
    let audit = Audit::begin(net, &teller).await;
    let cashout = teller.start("atm1", 12_000).await;
    let bill = bill(&cashout);
    let little = Part {
        amount_msat: bill.amount_msat - 1_000,
        total_msat: bill.amount_msat - 1_000,
        ..whole(&bill)
    };
    let refused = net.send_part(&bill, little).await.await.unwrap().unwrap();
    assert_eq!(refused.failure.unwrap().code, INCORRECT_DETAILS);
    drop(net.pay(request(&cashout), None).await);
    let fate = alone(&audit, net, &teller).await;
    is_served(&fate, cashout.price_msat.0);
}

/// Notes are given for the amount that was asked for; LND takes all that came, and it is in the books.
pub async fn paid_too_much(net: &mut Net) {
    let teller = teller(net, Setup::default(), "").await;
    // The second comes in two HTLCs, each of them enough alone.
    for (factor, parts) in [(3, 1), (2, 2)] {
        teller.ready("atm1").await;
        let audit = Audit::begin(net, &teller).await;
        let cashout = teller.start("atm1", 6_000).await;
        let bill = bill(&cashout);
        let total_msat = factor * bill.amount_msat;
        let part = Part {
            amount_msat: total_msat / parts,
            total_msat,
            ..whole(&bill)
        };
        for _ in 0..parts {
            drop(net.send_part(&bill, part).await);
        }
        let fate = alone(&audit, net, &teller).await;
        is_served(&fate, total_msat);
        assert_eq!((fate.booked_msat, fate.view.paid_msat.0), (total_msat, total_msat));
    }
}
