//! A journal that can not be written: nothing happens that is not written down, and what was checked before is
//! checked again after.
#![allow(clippy::expect_used, clippy::panic)]

use std::sync::Arc;

use tellerd::actors::fleet::FleetError;
use tellerd::cashout::CancelBy;
use tellerd::hardware::puloon::emulator::{Fault, Target};
use tellerd::metrics::AtmState;
use tellerd::money::Minor;
use tellerd::sim::lnd;

use crate::fleet_rig::{Plan, id, run, run_in, until};

const FULL: &str = "No space left";
const FAILED: &str = "tellerd_journal_failures_total";
const NOTES: &str = "tellerd_cassette_notes{atm=\"left\",kind=\"loaded\",position=\"1\"}";

#[test]
fn a_promise_that_can_not_be_written_is_not_made() {
    run(Plan::default(), async |rig| {
        rig.ready("left").await;
        rig.disk.fill("");
        let refused = rig.fleet.start(&id("left"), Minor(6000)).await;
        let Err(FleetError::NotInService { reason, .. }) = refused else {
            panic!("{refused:?}")
        };
        assert!(reason.contains(FULL), "{reason}");
        rig.stands("left", AtmState::OutOfService, FULL).await;
        assert!(rig.lnd.ledger().expect("ledger").invoices.is_empty());
        rig.disk.free();
        rig.serve("left").await;
    });
}

#[test]
fn a_first_start_on_a_full_disk_goes_on_when_there_is_room() {
    let plan = Plan {
        lnd_up: false,
        ..Plan::default()
    };
    run(plan, async |rig| {
        // The actors have not run yet.
        rig.disk.fill("");
        rig.lnd_comes();
        rig.stands("left", AtmState::OutOfService, FULL).await;
        rig.disk.free();
        rig.serve("left").await;
        assert_eq!(rig.metric("tellerd_actor_restarts_total{actor=\"atm\"}").await, 0.0);
    });
}

/// Every record of a cash-out, one after the other, can not be written for a while.
#[test]
fn each_record_may_have_to_wait() {
    run(Plan::default(), async |rig| {
        for record in [
            "requested",
            "opened",
            "invoice_opened",
            "accepted",
            "payment_held",
            "committed",
            "dispense_committed",
            "dispense_reported",
            "settle_ordered",
            "settled_at_lnd",
            "invoice_settled",
        ] {
            rig.ready("left").await;
            rig.disk.fill(&format!("\"type\":\"{record}\""));
            let left = id("left");
            let before = rig.metric(FAILED).await;
            let starting = actix::spawn({
                let fleet = rig.fleet.clone();
                async move { fleet.start(&left, Minor(6000)).await }
            });
            let customer = async {
                let cashout = starting.await.expect("asked").expect("promised");
                let payment = rig.pay(&cashout);
                rig.reaches(cashout.id, "completed").await;
                assert!(rig.ended(payment).await.preimage.is_some());
            };
            let operator = async {
                until(record, async || rig.metric(FAILED).await > before).await;
                rig.disk.free();
            };
            tokio::join!(customer, operator);
        }
        assert_eq!(rig.physical("left").1, 11);
    });
}

/// The customer has gone while the commitment could not be written: no notes come out when it can.
#[test]
fn a_commitment_that_had_to_wait_is_checked_anew() {
    for record in ["committed", "dispense_committed"] {
        run(Plan::default(), async |rig| {
            let cashout = rig.start("left", 6000).await;
            rig.disk.fill(&format!("\"type\":\"{record}\""));
            let payment = rig.pay(&cashout);
            until(record, async || rig.metric(FAILED).await > 0.0).await;
            // The node's own hand cancels the hold: another wallet, an operator, the block rule.
            rig.lnd.advance_blocks(70).expect("blocks");
            assert!(rig.ended(payment).await.preimage.is_none());
            rig.disk.free();
            rig.reaches(cashout.id, "canceled").await;
            assert_eq!(rig.physical("left"), (0, 0), "{record}");
        });
    }
}

#[test]
fn a_cancel_that_had_to_wait_is_still_one() {
    run(Plan::default(), async |rig| {
        let cashout = rig.start("left", 6000).await;
        rig.disk.fill("cancel_requested");
        let cancel = rig.fleet.cancel(cashout.id, CancelBy::Customer);
        let room = async {
            rig.stands("left", AtmState::OutOfService, FULL).await;
            let payment = rig.pay(&cashout);
            rig.disk.free();
            payment
        };
        let (canceled, payment) = tokio::join!(cancel, room);
        canceled.expect("canceled");
        rig.reaches(cashout.id, "canceled").await;
        assert!(rig.ended(payment).await.preimage.is_none());
    });
}

/// The invoice is about to be canceled while the customer's own cancel waits for the disk: it has not ended before
/// the node has given the money back.
#[test]
fn canceled_means_that_the_money_is_back() {
    run(Plan::policy("hold_deadline = '1s'"), async |rig| {
        let cashout = rig.start("left", 6000).await;
        for _ in 0..40 {
            let deaf = Fault::NoAck { carried_out: false };
            rig.dispensers["left"].inject(deaf.on(Target::Status));
        }
        let hang = lnd::Fault::Hang {
            time: None,
            method: Some("CancelInvoice".into()),
        };
        rig.lnd.inject(hang).expect("hang");
        rig.disk.fill("\"type\":\"cancel_requested\"");
        let payment = rig.pay(&cashout);
        rig.reaches(cashout.id, "held").await;
        let cancel = rig.fleet.cancel(cashout.id, CancelBy::Customer);
        let room = async {
            // The invoice's own deadline passes.
            until("the cancel", async || rig.lnd.hanging_calls() > 0).await;
            rig.disk.free();
        };
        tokio::join!(cancel, room).0.expect("canceled");
        rig.reaches(cashout.id, "canceling").await;
        rig.lnd.inject(lnd::Fault::Release).expect("release");
        rig.reaches(cashout.id, "canceled").await;
        assert!(rig.ended(payment).await.preimage.is_none());
        assert_eq!(rig.physical("left"), (0, 0));
    });
}

#[test]
fn a_journal_whose_sync_failed_ends_the_daemon_and_the_next_one_goes_on() {
    let dir = Arc::new(tempfile::tempdir().expect("dir"));
    let mut open = None;
    run_in(&dir, Plan::default(), async |rig| {
        let cashout = rig.start("left", 6000).await;
        let notes = rig.metric(NOTES).await;
        assert!(notes > 0.0);
        rig.disk.break_sync();
        rig.pay(&cashout);
        let error = rig.fleet.journal_lost().await;
        assert!(error.to_string().contains("until tellerd is restarted"), "{error}");
        assert!(!rig.fleet.readiness().await.journal);
        assert_eq!(
            rig.metric(NOTES).await,
            notes,
            "old gauges stay, those of single machines too"
        );
        assert_eq!(rig.physical("left"), (0, 0));
        open = Some(cashout.id);
    });
    run_in(&dir, Plan::default(), async |rig| {
        rig.reaches(open.expect("promised"), "completed").await;
        rig.audit().await;
    });
}
