//! From LND's word that a payment is held to the dispense command at the device.
//!
//! The first is taken from a stream of the benchmark's own at the same node, the second from the emulated device, which
//! notes when the whole command has come in; both by this machine's clock, in milliseconds. The floor is the two calls
//! with which tellerd reads hold and height anew before it commits, made bare.

use std::time::{Duration, Instant};

use tellerd::hardware::puloon::driver::Variant;
use tellerd::hardware::puloon::emulator::{Setup, What};
use tellerd::proto::invoicesrpc::SubscribeSingleInvoiceRequest;
use tellerd::proto::invoicesrpc::invoices_client::InvoicesClient;
use tellerd::proto::lnrpc::invoice::InvoiceState;
use tellerd::proto::lnrpc::{GetInfoRequest, PaymentHash};
use tellerd::time::{Clock, SystemClock, UnixMs};

use crate::meter::percentiles;
use crate::rig::Net;
use crate::rig::payer::Bill;
use crate::site::Machine;
use crate::teller::Teller;

pub async fn run(net: &Net, count: usize) {
    let machine = Machine {
        variant: Variant::Standard,
        setup: Setup::default(),
    };
    let macaroon = net.merchant.macaroons().join("admin.macaroon");
    let teller = Teller::open(net, macaroon, &[machine], "");
    let (mut waits, mut floors) = (Vec::new(), Vec::new());
    for _ in 0..count {
        teller.ready("atm1").await;
        let cashout = teller.start("atm1", 2_000).await;
        let invoice = cashout.payment_request.unwrap();
        let bill = Bill::read(&invoice);
        let accepted = tokio::spawn(accepted(invoices(net).await, bill.hash));
        drop(net.pay(&invoice, None).await);
        let held = accepted.await.unwrap();
        teller.reaches(cashout.id, &["completed"]).await;
        let begun = last_dispense(&teller);
        waits.push(Duration::from_millis(begun.0.saturating_sub(held.0)));
        floors.push(floor(net, bill.hash).await);
    }
    let ((median, p99), (floor, floor_p99)) = (percentiles(waits), percentiles(floors));
    println!("\nLND says ACCEPTED -> the dispense command is at the device, {count} cash-outs, ms");
    println!("| | median | p99 |\n|---|---|---|");
    println!("| accepted -> command | {median:.0} | {p99:.0} |");
    println!("| LookupInvoice and GetInfo, bare | {floor:.1} | {floor_p99:.1} |");
}

async fn invoices(net: &Net) -> InvoicesClient<crate::rig::Authed> {
    let channel = net.merchant.channel().await.unwrap();
    InvoicesClient::with_interceptor(channel, net.merchant.macaroon("admin.macaroon"))
}

/// When LND said it.
async fn accepted(mut client: InvoicesClient<crate::rig::Authed>, hash: [u8; 32]) -> UnixMs {
    let request = SubscribeSingleInvoiceRequest { r_hash: hash.to_vec() };
    let mut updates = client.subscribe_single_invoice(request).await.unwrap().into_inner();
    while let Some(invoice) = updates.message().await.unwrap() {
        if invoice.state() == InvoiceState::Accepted {
            return SystemClock.now();
        }
    }
    panic!("the stream ended before the payment was held")
}

fn last_dispense(teller: &Teller) -> UnixMs {
    let events = teller.site.machines[0].events();
    let started = events
        .iter()
        .rev()
        .find(|event| matches!(event.what, What::DispenseStarted { .. }));
    started.unwrap().at_unix_ms
}

/// The two calls, one after the other, on a connection that stands.
async fn floor(net: &Net, hash: [u8; 32]) -> Duration {
    let mut client = net.merchant.lightning().await.unwrap();
    client.get_info(GetInfoRequest {}).await.unwrap();
    let begun = Instant::now();
    client
        .lookup_invoice(PaymentHash { r_hash: hash.to_vec() })
        .await
        .unwrap();
    client.get_info(GetInfoRequest {}).await.unwrap();
    begun.elapsed()
}
