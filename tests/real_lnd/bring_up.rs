//! The rig itself: what every other test stands on.

use tellerd::hardware::puloon::driver::Variant;
use tellerd::hardware::puloon::emulator::Setup;
use tellerd::money::Funds;
use tellerd::proto::invoicesrpc::AddHoldInvoiceRequest;
use tellerd::proto::invoicesrpc::invoices_client::InvoicesClient;
use tellerd::proto::invoicesrpc::{CancelInvoiceMsg, SettleInvoiceMsg};
use tellerd::proto::lnrpc::PaymentHash;
use tellerd::proto::lnrpc::invoice::InvoiceState;
use tellerd::proto::lnrpc::payment::PaymentStatus;

use crate::harness::{Group, test};
use crate::rig::payer::{Bill, Part, hash_of};
use crate::rig::{Authed, Net, PUSHED_SATS, until};
use crate::site::Machine;
use crate::teller::Teller;

/// These tests.
pub const GROUP: Group = Group {
    name: "bring_up",
    merchant: &["--store-final-htlc-resolutions"],
    tests: &[
        test("money_is_held_settled_and_refunded", |net| {
            Box::pin(money_is_held_settled_and_refunded(net))
        }),
        test("a_part_alone_is_not_enough", |net| {
            Box::pin(a_part_alone_is_not_enough(net))
        }),
        test("a_customer_cashes_out", |net| Box::pin(a_customer_cashes_out(net))),
        test("nodes_come_back", |net| Box::pin(nodes_come_back(net))),
    ],
};

async fn invoices(net: &Net) -> InvoicesClient<Authed> {
    let channel = net.merchant.channel().await.unwrap();
    InvoicesClient::with_interceptor(channel, net.merchant.macaroon("admin.macaroon"))
}

async fn add(net: &Net, preimage: &[u8; 32], value: i64) -> String {
    let request = AddHoldInvoiceRequest {
        hash: hash_of(preimage).to_vec(),
        value,
        cltv_expiry: 80,
        ..AddHoldInvoiceRequest::default()
    };
    invoices(net)
        .await
        .add_hold_invoice(request)
        .await
        .unwrap()
        .into_inner()
        .payment_request
}

async fn state_is(net: &Net, preimage: &[u8; 32], wanted: InvoiceState) {
    let hash = hash_of(preimage).to_vec();
    until(&format!("the invoice is {wanted:?}"), async || {
        let mut client = net.merchant.lightning().await.unwrap();
        let seen = client
            .lookup_invoice(PaymentHash { r_hash: hash.clone() })
            .await
            .unwrap();
        seen.into_inner().state() == wanted
    })
    .await;
}

async fn money_is_held_settled_and_refunded(net: &mut Net) {
    let whole = net.customer_sats().await;
    let (kept, returned) = ([1; 32], [2; 32]);
    for preimage in [&kept, &returned] {
        let request = add(net, preimage, 50_000).await;
        drop(net.pay(&request, None).await);
        state_is(net, preimage, InvoiceState::Accepted).await;
    }
    let settle = SettleInvoiceMsg {
        preimage: kept.to_vec(),
    };
    invoices(net).await.settle_invoice(settle).await.unwrap();
    let cancel = CancelInvoiceMsg {
        payment_hash: hash_of(&returned).to_vec(),
    };
    invoices(net).await.cancel_invoice(cancel).await.unwrap();
    net.payment_is(hash_of(&kept), PaymentStatus::Succeeded).await;
    net.payment_is(hash_of(&returned), PaymentStatus::Failed).await;
    let told = async || (net.customer_sats().await, net.merchant_sats().await);
    until("the balances are told", async || {
        told().await == (whole - 50_000, i64::try_from(PUSHED_SATS).unwrap() + 50_000)
    })
    .await;
}

async fn a_part_alone_is_not_enough(net: &mut Net) {
    let preimage = [3; 32];
    let bill = Bill::read(&add(net, &preimage, 40_000).await);
    let half = Part {
        amount_msat: bill.amount_msat / 2,
        total_msat: bill.amount_msat,
        cltv: bill.min_final_cltv + 3,
    };
    let first = net.send_part(&bill, half).await;
    net.payment_is(bill.hash, PaymentStatus::InFlight).await;
    state_is(net, &preimage, InvoiceState::Open).await;
    let second = net.send_part(&bill, half).await;
    state_is(net, &preimage, InvoiceState::Accepted).await;
    let settle = SettleInvoiceMsg {
        preimage: preimage.to_vec(),
    };
    invoices(net).await.settle_invoice(settle).await.unwrap();
    for part in [first, second] {
        assert_eq!(part.await.unwrap().unwrap().preimage, preimage);
    }
}

async fn a_customer_cashes_out(net: &mut Net) {
    let machine = Machine {
        variant: Variant::Standard,
        setup: Setup::default(),
    };
    let teller = Teller::open(net, net.merchant.macaroons().join("admin.macaroon"), &[machine], "");
    teller.ready("atm1").await;
    let cashout = teller.start("atm1", 6_000).await;
    let payment = net.pay(&cashout.payment_request.unwrap(), None).await;
    let cashout = teller.reaches(cashout.id, &["completed"]).await;
    assert_eq!(payment.await.unwrap().unwrap().status(), PaymentStatus::Succeeded);
    assert_eq!((teller.cash_out(0), cashout.delivered_minor.0), (6_000, 6_000));
    teller.funds_are(cashout.id, Funds::Final).await;
}

async fn nodes_come_back(net: &mut Net) {
    net.merchant.kill();
    net.merchant.start();
    net.synced().await;
    net.customer.stop().await;
    net.customer.start();
    net.synced().await;
    net.reconnect().await;
    net.lane_is_up().await;
    let preimage = [4; 32];
    let request = add(net, &preimage, 1_000).await;
    drop(net.pay(&request, Some(400_000)).await);
    state_is(net, &preimage, InvoiceState::Accepted).await;
}
