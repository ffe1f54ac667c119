//! A node that is away, slow, locked, forgetful or another one: each cash-out still comes to its right end.
#![allow(clippy::expect_used, clippy::panic)]

use std::sync::Arc;
use std::time::Duration;

use tellerd::cashout::{CancelBy, Resolution};
use tellerd::hardware::puloon::emulator::{self, Setup, Target};
use tellerd::metrics::AtmState;
use tellerd::money::Minor;
use tellerd::proto::lnrpc::WalletState;
use tellerd::sim::lnd::Fault;

use crate::fleet_rig::{Plan, Rig, machine, run, run_in, until};

fn restart() -> Fault {
    Fault::Restart {
        down: Duration::from_millis(200),
        startup: Duration::from_millis(200),
    }
}

fn method(name: &str) -> Option<String> {
    Some(name.to_owned())
}

/// The dispenser answers no status for about two seconds.
fn deafen(rig: &Rig) {
    for _ in 0..3 {
        let deaf = emulator::Fault::NoAck { carried_out: false };
        rig.dispensers["left"].inject(deaf.on(Target::Status));
    }
}

#[test]
fn a_node_that_is_away_at_the_start_is_waited_for() {
    let plan = Plan {
        lnd_up: false,
        ..Plan::default()
    };
    run(plan, async |rig| {
        until("a reason", async || {
            let lnd = rig.fleet.readiness().await.lnd;
            lnd.is_err_and(|why| why.contains("GetState") || why.contains("State"))
        })
        .await;
        rig.stands("left", AtmState::OutOfService, "State").await;
        rig.lnd_comes();
        rig.serve("left").await;
        let ready = rig.fleet.readiness().await;
        assert_eq!((ready.lnd, ready.journal, ready.atms_in_service), (Ok(()), true, 1));
    });
}

#[test]
fn a_locked_wallet_is_named_and_waited_for() {
    run(Plan::default(), async |rig| {
        let cashout = rig.start("left", 6000).await;
        rig.lnd.inject(Fault::SetState(WalletState::Locked)).expect("locked");
        until("the reason", async || {
            let lnd = rig.fleet.readiness().await.lnd;
            lnd.is_err_and(|why| why.contains("wallet is locked"))
        })
        .await;
        let payment = rig.pay(&cashout);
        rig.lnd
            .inject(Fault::SetState(WalletState::ServerActive))
            .expect("open");
        rig.reaches(cashout.id, "completed").await;
        assert!(rig.ended(payment).await.preimage.is_some());
    });
}

/// A machine that takes its time for each note.
fn slow() -> Plan {
    let setup = Setup {
        note_ms: 150,
        ..machine()
    };
    Plan {
        machines: vec![("left", setup)],
        ..Plan::default()
    }
}

#[test]
fn cash_that_is_out_is_settled_while_the_node_is_still_starting() {
    run(slow(), async |rig| {
        let cashout = rig.start("left", 6000).await;
        rig.pay(&cashout);
        rig.reaches(cashout.id, "dispensing").await;
        let state = |state| rig.lnd.inject(Fault::SetState(state)).expect("a state");
        state(WalletState::RpcActive);
        rig.reaches(cashout.id, "completed").await;
        rig.stands("left", AtmState::OutOfService, "LND is still starting")
            .await;
        state(WalletState::ServerActive);
        rig.serve("left").await;
    });
}

#[test]
fn it_may_restart_at_any_time() {
    run(slow(), async |rig| {
        // While the customer is awaited.
        let cashout = rig.start("left", 6000).await;
        rig.lnd.inject(restart()).expect("restart");
        rig.pay(&cashout);
        rig.reaches(cashout.id, "completed").await;
        // While the dispenser is checked.
        let cashout = rig.start("left", 6000).await;
        deafen(rig);
        rig.pay(&cashout);
        rig.reaches(cashout.id, "held").await;
        rig.lnd.inject(restart()).expect("restart");
        rig.reaches(cashout.id, "completed").await;
        // While notes move.
        let cashout = rig.start("left", 6000).await;
        rig.pay(&cashout);
        rig.reaches(cashout.id, "dispensing").await;
        rig.lnd.inject(restart()).expect("restart");
        rig.reaches(cashout.id, "completed").await;
        // While it is settled.
        let cashout = rig.start("left", 6000).await;
        let hang = Fault::Hang {
            time: None,
            method: method("SettleInvoice"),
        };
        rig.lnd.inject(hang).expect("hang");
        rig.pay(&cashout);
        until("the settle", async || rig.lnd.hanging_calls() > 0).await;
        rig.lnd.inject(restart()).expect("restart");
        rig.reaches(cashout.id, "completed").await;
    });
}

#[test]
fn it_may_hang_for_longer_than_a_call() {
    run(Plan::default(), async |rig| {
        let cashout = rig.start("left", 6000).await;
        let hang = |name| Fault::Hang {
            time: None,
            method: name,
        };
        rig.lnd.inject(hang(None)).expect("hang");
        until("its absence", async || rig.fleet.readiness().await.lnd.is_err()).await;
        let payment = rig.pay(&cashout);
        rig.lnd.inject(Fault::Release).expect("release");
        rig.reaches(cashout.id, "completed").await;
        assert!(rig.ended(payment).await.preimage.is_some());

        // What hung takes effect after its caller has gone: an invoice that is added twice.
        rig.lnd.inject(hang(method("AddHoldInvoice"))).expect("hang");
        rig.ready("left").await;
        let fleet = rig.fleet.clone();
        let starting = actix::spawn(async move {
            let left = crate::fleet_rig::id("left");
            fleet.start(&left, tellerd::money::Minor(6000)).await
        });
        until("a second try", async || rig.lnd.hanging_calls() > 1).await;
        rig.lnd.inject(Fault::Release).expect("release");
        let cashout = starting.await.expect("asked").expect("promised");
        rig.pay(&cashout);
        rig.reaches(cashout.id, "completed").await;
    });
}

#[test]
fn one_stream_follows_an_invoice_from_its_opening_to_its_end() {
    run(Plan::default(), async |rig| {
        rig.serve("left").await;
        for (method, calls) in [("watch", 1.0), ("lookup", 0.0), ("commit", 1.0)] {
            let name = format!("tellerd_lnd_request_duration_seconds_count{{method=\"{method}\",outcome=\"ok\"}}");
            assert_eq!(rig.metric(&name).await, calls, "{method}");
        }
        // What LND does while it holds the money is heard of on it too.
        let cashout = rig.start("left", 6000).await;
        deafen(rig);
        let payment = rig.pay(&cashout);
        rig.reaches(cashout.id, "held").await;
        assert_eq!(rig.lnd.invoice_streams(), 1);
        rig.lnd.advance_blocks(80).expect("blocks");
        rig.reaches(cashout.id, "canceled").await;
        assert!(rig.ended(payment).await.preimage.is_none());
        assert_eq!(rig.physical("left").1, 1);
    });
}

#[test]
fn a_stream_that_ends_is_not_an_answer() {
    run(Plan::default(), async |rig| {
        for error in [None, Some("stream closed".to_owned())] {
            let cashout = rig.start("left", 6000).await;
            rig.lnd.inject(Fault::DropStreams { error }).expect("dropped");
            let payment = rig.pay(&cashout);
            rig.reaches(cashout.id, "completed").await;
            assert!(rig.ended(payment).await.preimage.is_some());
        }
    });
}

#[test]
fn a_lost_reply_to_anything_is_asked_for_again() {
    run(Plan::default(), async |rig| {
        for name in ["AddHoldInvoice", "LookupInvoice", "SettleInvoice"] {
            rig.ready("left").await;
            let lose = Fault::LoseReply {
                method: name.into(),
                count: 2,
            };
            rig.lnd.inject(lose).expect("lose");
            let cashout = rig.start("left", 6000).await;
            let payment = rig.pay(&cashout);
            rig.reaches(cashout.id, "completed").await;
            assert!(rig.ended(payment).await.preimage.is_some());
        }
        let cashout = rig.start("left", 6000).await;
        deafen(rig);
        let payment = rig.pay(&cashout);
        rig.reaches(cashout.id, "held").await;
        let lose = Fault::LoseReply {
            method: "CancelInvoice".into(),
            count: 2,
        };
        rig.lnd.inject(lose).expect("lose");
        let canceled = rig.fleet.cancel(cashout.id, CancelBy::Customer).await;
        canceled.expect("canceled");
        rig.reaches(cashout.id, "canceled").await;
        assert!(rig.ended(payment).await.preimage.is_none());
        assert_eq!(rig.physical("left").1, 3);
    });
}

#[test]
fn a_refusal_to_add_ends_the_cash_out_and_a_strange_error_is_asked_again() {
    run(Plan::default(), async |rig| {
        rig.ready("left").await;
        for (name, code, text) in [
            ("AddHoldInvoice", 14, "no disk"),
            ("LookupInvoice", 2, "database is locked"),
            ("SettleInvoice", 13, "panic in the node"),
            ("SettleInvoice", 2, "invoice still open"),
        ] {
            let fail = Fault::Fail {
                method: name.into(),
                count: 2,
                code,
                text: text.into(),
            };
            rig.lnd.inject(fail).expect("fail");
            let cashout = rig.start("left", 6000).await;
            rig.pay(&cashout);
            rig.reaches(cashout.id, "completed").await;
        }
    });
}

#[test]
fn another_node_tells_nothing_about_our_invoices() {
    let dir = Arc::new(tempfile::tempdir().expect("dir"));
    let at = |name: &str| dir.path().join(name);
    let plan = || Plan::policy("hold_deadline = '3s'");
    let (mut open, mut payment) = (None, None);
    run_in(&dir, plan(), async |rig| {
        let cashout = rig.start("left", 6000).await;
        for _ in 0..40 {
            deafen(rig);
        }
        payment = Some(rig.pay(&cashout));
        rig.reaches(cashout.id, "held").await;
        open = Some(cashout.id);
    });
    let (open, payment) = (open.expect("promised"), payment.expect("paid"));
    std::fs::rename(at("lnd"), at("ours")).expect("away");
    run_in(&dir, plan(), async |rig| {
        // Its hold deadline passes, and nobody can be asked to give it back.
        rig.reaches(open, "canceling").await;
        rig.stands("left", AtmState::OutOfService, "this LND is node").await;
        until("no conclusion", async || rig.fleet.readiness().await.lnd.is_err()).await;
        assert!(rig.lnd.ledger().expect("ledger").invoices.is_empty());
        let known = rig.fleet.cashout(open).await.expect("cash-out");
        assert_eq!(known.phase.name(), "canceling");
        assert_eq!(rig.physical("left"), (0, 0));
    });
    std::fs::rename(at("lnd"), at("another")).expect("away");
    std::fs::rename(at("ours"), at("lnd")).expect("back");
    run_in(&dir, plan(), async |rig| {
        rig.reaches(open, "canceled").await;
        assert!(rig.ended(payment).await.preimage.is_none());
        rig.serve("left").await;
        rig.audit().await;
    });
}

/// It comes back after it has to have canceled: no decision saves anything any more, and the operator can still count.
#[test]
fn an_outcome_that_outlives_its_hold_is_left_to_the_operator() {
    run(Plan::default(), async |rig| {
        let (cashout, payment) = rig.unknown_outcome("left").await;
        let state = |state| rig.lnd.inject(Fault::SetState(state)).expect("a state");
        state(WalletState::WaitingToStart);
        rig.lnd.advance_blocks(70).expect("blocks");
        state(WalletState::ServerActive);
        assert!(rig.ended(payment).await.preimage.is_none());
        until("the hold is known to be gone", async || {
            rig.fleet.cashout(cashout.id).await.expect("cash-out").hold_lost
        })
        .await;
        let counted = Resolution::Delivered(Minor(4_000));
        let by = || "anna".to_owned();
        let told = rig.fleet.resolve(cashout.id, by(), counted, "counted".into()).await;
        told.expect("it is still open");
        let named = rig.reaches(cashout.id, "needs_operator").await;
        assert_eq!((named.books.delivered, named.books.loss), (Minor(4_000), Minor(4_000)));
        let closed = rig.fleet.resolve(cashout.id, by(), Resolution::Close, String::new());
        closed.await.expect("closed");
    });
}
