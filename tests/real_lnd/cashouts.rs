//! Cash-outs on real Lightning: the daemon, emulated dispensers, two nodes; each audited from the world alone.
//!
//! Every test stands a daemon of its own beside the shared network. What must stay true: none asserts on the wall clock;
//! each that needs other rules sets them in its configuration.

mod payments;
mod window;

use tellerd::api::{CashOutView, Decision};
use tellerd::hardware::puloon::driver::Variant;
use tellerd::hardware::puloon::emulator::{Event, Fault, PlannedFault, Setup, Target, What};
use tellerd::proto::lnrpc::PaymentFailureReason;
use tellerd::proto::lnrpc::invoice::InvoiceState;
use tellerd::proto::lnrpc::payment::PaymentStatus;
use tellerd::time::UnixMs;

use crate::audit::{Audit, Fate};
use crate::harness::{Group, test};
use crate::rig::Net;
use crate::rig::payer::Bill;
use crate::site::Machine;
use crate::teller::Teller;

/// These tests.
pub const GROUP: Group = Group {
    name: "cashouts",
    // The rule that tellerd takes for granted, said to a node of an older line too.
    merchant: &["--store-final-htlc-resolutions", "--invoices.holdexpirydelta=18"],
    tests: &[
        test("a_success", |net| Box::pin(a_success(net))),
        test("a_jam_with_no_note_out", |net| Box::pin(a_jam_with_no_note_out(net))),
        test("a_jam_after_some_notes", |net| Box::pin(a_jam_after_some_notes(net))),
        test("held_too_long", |net| Box::pin(held_too_long(net))),
        test("unpaid", |net| Box::pin(payments::unpaid(net))),
        test("paid_at_the_last_second", |net| {
            Box::pin(payments::paid_at_the_last_second(net))
        }),
        test("paid_twice", |net| Box::pin(payments::paid_twice(net))),
        test("paid_by_two", |net| Box::pin(payments::paid_by_two(net))),
        test("paid_in_parts", |net| Box::pin(payments::paid_in_parts(net))),
        test("parts_that_never_complete", |net| {
            Box::pin(payments::parts_that_never_complete(net))
        }),
        test("paid_too_little", |net| Box::pin(payments::paid_too_little(net))),
        test("paid_too_much", |net| Box::pin(payments::paid_too_much(net))),
        test("window_closes_before_the_dispense", |net| {
            Box::pin(window::closes_before_the_dispense(net))
        }),
        test("blocks_during_the_dispense", |net| {
            Box::pin(window::blocks_during_the_dispense(net))
        }),
        test("window_closes_during_the_dispense", |net| {
            Box::pin(window::closes_during_the_dispense(net))
        }),
        test("an_expiry_as_short_as_can_be", |net| {
            Box::pin(window::an_expiry_as_short_as_can_be(net))
        }),
    ],
};

/// A daemon with `machines` machines, and these lines more of configuration.
async fn fleet(net: &Net, setup: Setup, machines: usize, more: &str) -> Teller {
    let machine = || Machine {
        variant: Variant::Standard,
        setup: setup.clone(),
    };
    let all: Vec<Machine> = std::iter::repeat_with(machine).take(machines).collect();
    let teller = Teller::open(net, net.merchant.macaroons().join("admin.macaroon"), &all, more);
    for number in 1..=machines {
        teller.ready(&format!("atm{number}")).await;
    }
    teller
}

/// A daemon with one machine.
async fn teller(net: &Net, setup: Setup, more: &str) -> Teller {
    fleet(net, setup, 1, more).await
}

/// A machine that can be held still for half a minute before tellerd takes its outcome for unknown: the host waits for
/// the notes as long as they could take.
fn slow() -> Setup {
    Setup {
        note_ms: 500,
        ..Setup::default()
    }
}

fn request(cashout: &CashOutView) -> &str {
    cashout.payment_request.as_deref().expect("an invoice")
}

fn bill(cashout: &CashOutView) -> Bill {
    Bill::read(request(cashout))
}

/// A note jams after so many were delivered.
fn jam(after_notes: u32) -> PlannedFault {
    let hard = false;
    Fault::JamOnPath { after_notes, hard }.next()
}

/// The audit's findings of the only cash-out.
async fn alone(audit: &Audit, net: &Net, teller: &Teller) -> Fate {
    let [fate] = audit.end(net, teller).await.try_into().ok().expect("one cash-out");
    fate
}

/// The customer has notes for the amount, the merchant the price; the customer's node says so too.
fn is_served(fate: &Fate, paid_msat: u64) {
    assert_eq!(fate.view.state, "completed", "{:?}", fate.view.reason);
    assert_eq!(fate.notes(), fate.view.amount_minor.0);
    assert_eq!(fate.state(), Some(InvoiceState::Settled));
    assert_eq!(u64::try_from(fate.paid_msat()), Ok(paid_msat));
}

/// The customer has the money back and no note; the customer's node says so too.
fn is_refunded(fate: &Fate) {
    assert_eq!((fate.view.state.as_str(), fate.notes()), ("canceled", 0));
    assert_eq!(fate.state(), Some(InvoiceState::Canceled));
    assert!(!fate.payments.is_empty(), "somebody paid");
    for payment in &fate.payments {
        let reason = PaymentFailureReason::FailureReasonIncorrectPaymentDetails;
        assert_eq!(
            (payment.status(), payment.failure_reason()),
            (PaymentStatus::Failed, reason)
        );
    }
}

async fn a_success(net: &mut Net) {
    let teller = teller(net, Setup::default(), "").await;
    let audit = Audit::begin(net, &teller).await;
    let cashout = teller.start("atm1", 12_000).await;
    let payment = net.pay(request(&cashout), None).await.await.unwrap().unwrap();
    let fate = alone(&audit, net, &teller).await;
    is_served(&fate, cashout.price_msat.0);
    assert_eq!(payment.status(), PaymentStatus::Succeeded);
}

async fn a_jam_with_no_note_out(net: &mut Net) {
    const RUNS: usize = 7;
    // A machine that jams again and again is not cleared any more.
    let teller = fleet(net, Setup::default(), RUNS, "").await;
    let mut took = Vec::new();
    for (index, machine) in teller.site.machines.iter().enumerate() {
        let audit = Audit::begin(net, &teller).await;
        machine.inject(jam(0));
        let cashout = teller.start(&format!("atm{}", index + 1), 12_000).await;
        drop(net.pay(request(&cashout), None).await);
        let fate = alone(&audit, net, &teller).await;
        is_refunded(&fate);
        let stuck = |event: &&Event| matches!(event.what, What::NoteStuck { .. });
        let jammed = machine.events().iter().find(stuck).expect("a jam").at_unix_ms;
        let refunded = fate.attempts().map(|htlc| htlc.resolve_time_ns / 1_000_000).max();
        let refunded = UnixMs(u64::try_from(refunded.expect("an HTLC")).unwrap());
        took.push(refunded.since(jammed).as_millis());
    }
    took.sort_unstable();
    let (median, most) = (took[RUNS / 2], took[RUNS - 1]);
    println!("from the jam to the refund at the customer's node, {RUNS} runs: median {median} ms, max {most} ms");
}

async fn a_jam_after_some_notes(net: &mut Net) {
    let owing = teller(net, Setup::default(), "[policy]\npartial = \"owe\"\n").await;
    let audit = Audit::begin(net, &owing).await;
    owing.site.machines[0].inject(jam(1));
    let cashout = owing.start("atm1", 12_000).await;
    drop(net.pay(request(&cashout), None).await);
    let fate = alone(&audit, net, &owing).await;
    assert_eq!(fate.view.state, "claim_owed");
    assert_eq!(fate.state(), Some(InvoiceState::Settled));
    assert!(fate.notes() > 0 && fate.view.claim_minor.0 == 12_000 - fate.notes());
    owing.resolve(cashout.id, Decision::ClaimPaid).await;
    owing.reaches(cashout.id, &["completed"]).await;
    let fate = alone(&audit, net, &owing).await;
    assert!(fate.view.ended);
    drop(owing);

    let policy = "[policy]\npartial = \"absorb\"\nabsorb_limit = \"50.00\"\n";
    let absorbing = teller(net, Setup::default(), policy).await;
    let audit = Audit::begin(net, &absorbing).await;
    absorbing.site.machines[0].inject(jam(1));
    let cashout = absorbing.start("atm1", 12_000).await;
    drop(net.pay(request(&cashout), None).await);
    let fate = alone(&audit, net, &absorbing).await;
    assert_eq!((fate.view.state.as_str(), fate.paid_msat()), ("canceled", 0));
    assert!(fate.notes() > 0 && fate.view.loss_minor.0 == fate.notes());
    net.payment_is(bill(&cashout).hash, PaymentStatus::Failed).await;
}

async fn held_too_long(net: &mut Net) {
    let teller = teller(net, slow(), "[policy]\nhold_deadline = \"1500ms\"\n").await;
    let audit = Audit::begin(net, &teller).await;
    let cashout = teller.start("atm1", 12_000).await;
    teller.site.machines[0].hold_at(Some(Target::Status));
    drop(net.pay(request(&cashout), None).await);
    let fate = alone(&audit, net, &teller).await;
    is_refunded(&fate);
    assert_eq!(fate.view.reason.as_deref(), Some("held too long without a dispense"));
    // What is let go too late finds nothing to do.
    teller.site.machines[0].hold_at(None);
    teller.ready("atm1").await;
    assert!(alone(&audit, net, &teller).await.dispenses.is_empty());
}
