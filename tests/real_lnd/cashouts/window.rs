//! Blocks that go by: the time that LND leaves between a hold and its own cancel.
//!
//! What tellerd says of it (`tellerd_lowest_blocks_left`) is compared with the expiry of the HTLCs at the merchant's node.

use tellerd::api::{CashOutView, Decision};
use tellerd::hardware::puloon::emulator::Target;
use tellerd::proto::lnrpc::htlc_attempt::HtlcStatus;
use tellerd::proto::lnrpc::invoice::InvoiceState;
use tellerd::proto::lnrpc::payment::PaymentStatus;
use tellerd::proto::lnrpc::{InvoiceHtlc, PaymentHash};

use super::{alone, bill, is_refunded, is_served, request, slow, teller};
use crate::audit::Audit;
use crate::rig::payer::{Bill, Part};
use crate::rig::{Net, until};
use crate::teller::Teller;

/// lnd's `holdexpirydelta`, which tellerd takes for granted unless it is told otherwise.
const DELTA: i64 = 18;

async fn htlcs(net: &Net, cashout: &CashOutView) -> Vec<InvoiceHtlc> {
    let mut client = net.merchant.lightning().await.unwrap();
    let r_hash = bill(cashout).hash.to_vec();
    let invoice = client.lookup_invoice(PaymentHash { r_hash }).await.unwrap();
    invoice.into_inner().htlcs
}

/// Blocks before LND cancels, from the HTLCs of the cash-out's invoice at the merchant's node and the chain.
async fn blocks_left(net: &Net, cashout: &CashOutView) -> i64 {
    let all = htlcs(net, cashout).await;
    let expiry = all.iter().map(|htlc| htlc.expiry_height).min().unwrap();
    i64::from(expiry) - DELTA - i64::from(net.chain.height().await)
}

/// Returns once tellerd says the same of the only hold.
async fn told_is(net: &Net, teller: &Teller, cashout: &CashOutView) -> i64 {
    let left = blocks_left(net, cashout).await;
    until(&format!("tellerd says that {left} blocks are left"), async || {
        let told = teller.metric("tellerd_lowest_blocks_left").await;
        told.is_some_and(|told| (told - left as f64).abs() < 0.5)
    })
    .await;
    left
}

pub async fn closes_before_the_dispense(net: &mut Net) {
    // A wallet adds a few blocks to the 80 of the invoice; 18 are LND's.
    let teller = teller(net, slow(), "[policy]\nmin_blocks_left = 60\n").await;
    let audit = Audit::begin(net, &teller).await;
    let cashout = teller.start("atm1", 12_000).await;
    teller.site.machines[0].hold_at(Some(Target::Status));
    drop(net.pay(request(&cashout), None).await);
    teller.reaches(cashout.id, &["held"]).await;
    let left = told_is(net, &teller, &cashout).await;
    net.mine(u32::try_from(left - 60).unwrap()).await;
    assert_eq!(told_is(net, &teller, &cashout).await, 60);
    teller.reaches(cashout.id, &["held"]).await;
    net.mine(1).await;
    let fate = alone(&audit, net, &teller).await;
    is_refunded(&fate);
    assert_eq!(
        fate.view.reason.as_deref(),
        Some("too few blocks left before LND cancels")
    );
    teller.site.machines[0].hold_at(None);
    teller.ready("atm1").await;
    assert!(alone(&audit, net, &teller).await.dispenses.is_empty());
}

/// What was begun is finished, and settled in the last block that LND leaves.
pub async fn blocks_during_the_dispense(net: &mut Net) {
    let teller = teller(net, slow(), "").await;
    let audit = Audit::begin(net, &teller).await;
    let cashout = teller.start("atm1", 12_000).await;
    teller.site.machines[0].hold_at(Some(Target::Dispense));
    drop(net.pay(request(&cashout), None).await);
    teller.reaches(cashout.id, &["dispensing"]).await;
    let left = told_is(net, &teller, &cashout).await;
    net.mine(u32::try_from(left - 1).unwrap()).await;
    assert_eq!(told_is(net, &teller, &cashout).await, 1);
    teller.reaches(cashout.id, &["dispensing"]).await;
    teller.site.machines[0].hold_at(None);
    let fate = alone(&audit, net, &teller).await;
    is_served(&fate, cashout.price_msat.0);
}

/// One block more, and nobody can give back what the customer holds in hand: the loss is booked, and an operator told.
pub async fn closes_during_the_dispense(net: &mut Net) {
    let teller = teller(net, slow(), "").await;
    let audit = Audit::begin(net, &teller).await;
    let cashout = teller.start("atm1", 12_000).await;
    teller.site.machines[0].hold_at(Some(Target::Dispense));
    drop(net.pay(request(&cashout), None).await);
    teller.reaches(cashout.id, &["dispensing"]).await;
    let left = told_is(net, &teller, &cashout).await;
    net.mine(u32::try_from(left).unwrap()).await;
    net.payment_is(bill(&cashout).hash, PaymentStatus::Failed).await;
    until("tellerd says that the hold is lost", async || {
        let view = teller.reaches(cashout.id, &["dispensing"]).await;
        view.reason.as_deref() == Some("the hold was lost: LND has canceled the invoice")
    })
    .await;
    teller.site.machines[0].hold_at(None);
    let fate = alone(&audit, net, &teller).await;
    assert_eq!((fate.view.state.as_str(), fate.notes()), ("needs_operator", 12_000));
    assert_eq!(fate.state(), Some(InvoiceState::Canceled));
    assert_eq!((fate.view.loss_minor.0, fate.paid_msat()), (12_000, 0));
    teller.resolve(cashout.id, Decision::Close).await;
    teller.reaches(cashout.id, &["canceled"]).await;
    let fate = alone(&audit, net, &teller).await;
    assert_eq!(fate.view.loss_minor.0, 12_000);
}

/// An HTLC that lives no longer than the invoice asks for leaves 80 - 18 blocks, and a set of parts what its oldest leaves.
pub async fn an_expiry_as_short_as_can_be(net: &mut Net) {
    let teller = teller(net, slow(), "[policy]\nmin_blocks_left = 61\n").await;
    let audit = Audit::begin(net, &teller).await;
    let cashout = teller.start("atm1", 12_000).await;
    let bill_of_one = bill(&cashout);
    let part = |bill: &Bill, parts: u64, cltv: u32| Part {
        amount_msat: bill.amount_msat / parts,
        total_msat: bill.amount_msat,
        cltv,
    };
    // LND itself takes nothing shorter.
    let shorter = part(&bill_of_one, 1, bill_of_one.min_final_cltv - 1);
    let refused = net.send_part(&bill_of_one, shorter).await.await.unwrap().unwrap();
    assert_eq!(refused.status(), HtlcStatus::Failed);
    let shortest = part(&bill_of_one, 1, bill_of_one.min_final_cltv);
    teller.site.machines[0].hold_at(Some(Target::Dispense));
    drop(net.send_part(&bill_of_one, shortest).await);
    teller.reaches(cashout.id, &["dispensing"]).await;
    assert_eq!(told_is(net, &teller, &cashout).await, 62);
    teller.site.machines[0].hold_at(None);
    is_served(&alone(&audit, net, &teller).await, cashout.price_msat.0);

    teller.ready("atm1").await;
    let audit = Audit::begin(net, &teller).await;
    let cashout = teller.start("atm1", 12_000).await;
    let bill_of_two = bill(&cashout);
    let half = part(&bill_of_two, 2, bill_of_two.min_final_cltv);
    drop(net.send_part(&bill_of_two, half).await);
    until("the first part is there", async || {
        !htlcs(net, &cashout).await.is_empty()
    })
    .await;
    net.mine(2).await;
    drop(net.send_part(&bill_of_two, half).await);
    let fate = alone(&audit, net, &teller).await;
    is_refunded(&fate);
    assert_eq!(
        fate.view.reason.as_deref(),
        Some("too few blocks left before LND cancels")
    );
    assert!(fate.dispenses.is_empty(), "nothing was commanded");
}
