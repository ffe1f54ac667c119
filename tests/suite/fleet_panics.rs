//! Actors that die in the middle of a cash-out: it ends right, the others go on, and too many deaths show.
#![allow(clippy::expect_used, clippy::panic)]

use tellerd::actors::child::ChildId;
use tellerd::actors::fleet::{AtmOrder, FleetError};
use tellerd::cashout::{CancelBy, CashOut};
use tellerd::hardware::puloon::emulator::{Setup, What};
use tellerd::metrics::AtmState;
use tellerd::money::Minor;
use tellerd::sim::lnd::Fault;

use crate::fleet_rig::{Plan, Rig, id, machine, run, until};

/// Every actor that has to do with the cash-out, with its name in the metric.
fn actors(cashout: &CashOut) -> [(ChildId, &'static str); 5] {
    let atm = || cashout.quote.atm.clone();
    [
        (ChildId::Atm(atm()), "atm"),
        (ChildId::Hardware(atm()), "hardware"),
        (ChildId::Invoice(cashout.quote.hash), "invoice"),
        (ChildId::Lnd, "lnd"),
        (ChildId::Journal, "journal"),
    ]
}

async fn restarts(rig: &Rig, actor: &str) -> f64 {
    rig.metric(&format!("tellerd_actor_restarts_total{{actor=\"{actor}\"}}"))
        .await
}

/// Lets an actor die, once it lives.
async fn kill(rig: &Rig, (child, actor): (ChildId, &str)) {
    let before = restarts(rig, actor).await;
    until(&format!("the death of {actor}"), async || {
        // While it is on its way back nobody hears this; heard twice by one life, it dies once.
        rig.fleet.make_panic(child.clone()).await;
        tokio::task::yield_now().await;
        restarts(rig, actor).await > before
    })
    .await;
}

async fn until_dispensing(rig: &Rig, notes: usize) {
    until("notes to move", async || {
        let events = rig.dispensers["left"].events();
        let delivered = events.iter().filter(|e| matches!(e.what, What::NoteDelivered { .. }));
        delivered.count() >= notes
    })
    .await;
}

fn two(left: Setup) -> Plan {
    Plan {
        machines: vec![("left", left), ("right", machine())],
        ..Plan::default()
    }
}

fn slow() -> Setup {
    Setup {
        note_ms: 150,
        ..machine()
    }
}

#[test]
fn any_actor_may_die_while_the_customer_is_awaited() {
    run(two(machine()), async |rig| {
        for n in 0..5 {
            let cashout = rig.start("left", 6000).await;
            kill(rig, actors(&cashout)[n].clone()).await;
            rig.serve("right").await;
            let payment = rig.pay(&cashout);
            rig.reaches(cashout.id, "completed").await;
            assert!(rig.ended(payment).await.preimage.is_some());
        }
        assert_eq!(rig.physical("left").1, 5);
    });
}

#[test]
fn any_actor_may_die_while_notes_move() {
    run(two(slow()), async |rig| {
        for n in 0..5 {
            let cashout = rig.start("left", 6000).await;
            let payment = rig.pay(&cashout);
            until_dispensing(rig, n * 3 + 1).await;
            rig.fleet.make_panic(actors(&cashout)[n].0.clone()).await;
            rig.serve("right").await;
            rig.reaches(cashout.id, "completed").await;
            assert!(rig.ended(payment).await.preimage.is_some());
            let actor = actors(&cashout)[n].1;
            until(actor, async || restarts(rig, actor).await >= 1.0).await;
        }
        assert_eq!(rig.physical("left"), (30_000, 5));
    });
}

#[test]
fn any_actor_may_die_while_the_settle_hangs() {
    run(two(machine()), async |rig| {
        for n in 0..5 {
            let cashout = rig.start("left", 6000).await;
            let hang = Fault::Hang {
                time: None,
                method: Some("SettleInvoice".into()),
            };
            rig.lnd.inject(hang).expect("hang");
            let payment = rig.pay(&cashout);
            rig.reaches(cashout.id, "settling").await;
            until("the settle", async || rig.lnd.hanging_calls() > 0).await;
            kill(rig, actors(&cashout)[n].clone()).await;
            rig.lnd.inject(Fault::Release).expect("release");
            rig.reaches(cashout.id, "completed").await;
            assert!(rig.ended(payment).await.preimage.is_some());
        }
    });
}

#[test]
fn any_actor_may_die_while_the_cancel_hangs() {
    run(two(machine()), async |rig| {
        for n in 0..5 {
            let cashout = rig.start("left", 6000).await;
            let hang = Fault::Hang {
                time: None,
                method: Some("CancelInvoice".into()),
            };
            rig.lnd.inject(hang).expect("hang");
            let canceled = rig.fleet.cancel(cashout.id, CancelBy::Customer).await;
            canceled.expect("canceled");
            until("the cancel", async || rig.lnd.hanging_calls() > 0).await;
            // Too late: it is held, and given back.
            let payment = rig.pay(&cashout);
            kill(rig, actors(&cashout)[n].clone()).await;
            rig.lnd.inject(Fault::Release).expect("release");
            rig.reaches(cashout.id, "canceled").await;
            assert!(rig.ended(payment).await.preimage.is_none());
        }
        assert_eq!(rig.physical("left"), (0, 0));
    });
}

#[test]
fn an_actor_that_dies_too_often_takes_only_its_own_machine_out() {
    let plan = Plan {
        supervision: "max_restarts = 2\nwithin = '1h'",
        ..two(machine())
    };
    run(plan, async |rig| {
        for (child, actor) in [
            (ChildId::Atm(id("left")), "atm"),
            (ChildId::Hardware(id("left")), "hardware"),
        ] {
            rig.ready("left").await;
            let open = rig.start("left", 6000).await;
            for _ in 0..3 {
                kill(rig, (child.clone(), actor)).await;
            }
            rig.stands("left", AtmState::OutOfService, "died more than 2 times")
                .await;
            rig.serve("right").await;
            let refused = rig.fleet.start(&id("left"), Minor(6000)).await;
            let Err(FleetError::NotInService { reason, .. }) = refused else {
                panic!("{refused:?}")
            };
            assert!(reason.contains("died more than 2 times"), "{reason}");
            let resumed = rig.fleet.order(&id("left"), "anna".into(), AtmOrder::Resume).await;
            resumed.expect("resumed");
            let payment = rig.pay(&open);
            rig.reaches(open.id, "completed").await;
            assert!(rig.ended(payment).await.preimage.is_some());
            rig.serve("left").await;
        }
    });
}

#[test]
fn an_lnd_actor_that_stays_down_takes_the_machines_out_of_service() {
    let plan = Plan {
        supervision: "max_restarts = 0\nwithin = '2s'",
        ..two(machine())
    };
    run(plan, async |rig| {
        rig.ready("left").await;
        rig.fleet.make_panic(ChildId::Lnd).await;
        rig.stands("left", AtmState::OutOfService, "LND actor").await;
        let refused = rig.fleet.start(&id("left"), Minor(6000)).await;
        assert!(matches!(refused, Err(FleetError::NotInService { .. })), "{refused:?}");
        assert!(rig.fleet.readiness().await.lnd.is_err());
        rig.serve("left").await;
    });
}
