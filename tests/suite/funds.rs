//! Settled means money: a cash-out whose HTLC has no final resolution yet, or ends without the money.
//!
//! What must stay true: the customer and the machine never wait for it; nothing is called funded whose payer still has the
//! money; a node that does not tell stops nobody.
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic)]

use std::time::Duration;

use futures_util::StreamExt;
use tellerd::api::{AtmView, CashOutList, CashOutView, StartCashOut};
use tellerd::cashout::{CashOut, Resolution};
use tellerd::hardware::puloon::driver::Variant;
use tellerd::ids::Preimage;
use tellerd::invoice::InvoiceEvent;
use tellerd::lnd::{FundsSeen, HtlcKey, Lightning, LnErrorKind, LndClient, LndConfig, LndLocation};
use tellerd::money::{Funds, Minor};
use tellerd::proto::lnrpc::Invoice;
use tellerd::record::Body;
use tellerd::sim::lnd::{ADMIN_MACAROON, Fault, Finality, PayOptions, TLS_CERT};

use crate::fleet_rig::{LIMIT, Plan, Rig, machine, run, until};
use crate::rig::{self, Machine, breath};
use crate::sim_lnd::Rig as SimRig;

const NONE: f64 = 0.0;

fn finality(rig: &Rig, order: Finality) {
    rig.lnd.inject(Fault::Finality(order)).expect("ordered");
}

/// `method` is refused as by a macaroon that lacks the right.
fn denied(method: &str) -> Fault {
    Fault::Fail {
        method: method.to_owned(),
        count: u32::MAX,
        code: 2,
        text: "permission denied".to_owned(),
    }
}

/// A node that answers its first calls like this.
fn before_the_first_call() -> Plan {
    Plan {
        lnd_up: false,
        ..Plan::default()
    }
}

/// A cash-out of 60.00 that is settled, and its money not there.
async fn pending(rig: &Rig) -> CashOut {
    let cashout = rig.start("left", 6000).await;
    rig.pay(&cashout);
    rig.reaches(cashout.id, "completed").await;
    rig.funds(cashout.id, Funds::Pending).await
}

async fn not_final(rig: &Rig) -> (f64, f64, bool) {
    let oldest = rig.metric("tellerd_oldest_settled_not_final_timestamp_seconds").await;
    (
        rig.metric("tellerd_settled_not_final_invoices").await,
        rig.metric("tellerd_settled_not_final_sats").await,
        oldest > NONE,
    )
}

#[test]
fn the_customer_goes_and_the_operator_sees_what_is_still_to_come() {
    run(Plan::default(), async |rig| {
        finality(rig, Finality::Hold);
        let cashout = pending(rig).await;
        assert!(cashout.has_ended() && !cashout.is_final());
        let sats = cashout.quote.price.sat_floor() as f64;
        assert_eq!(not_final(rig).await, (1.0, sats, true));
        let subscribed = "tellerd_lnd_request_duration_seconds_count{method=\"finals\",outcome=\"ok\"}";
        assert_eq!(rig.metric(subscribed).await, 1.0, "woken by events, too");
        rig.ready("left").await;
        let open = rig.fleet.atm(&crate::fleet_rig::id("left")).await.expect("atm").open;
        assert_eq!(
            open.iter().map(|c| c.id).collect::<Vec<_>>(),
            [cashout.id],
            "listed as open"
        );
        finality(rig, Finality::Release);
        assert!(rig.funds(cashout.id, Funds::Final).await.is_final());
        assert_eq!(not_final(rig).await, (NONE, NONE, false));
        let told = |body: &Body| {
            matches!(
                body,
                Body::Invoice {
                    event: InvoiceEvent::FundsSeen {
                        funds: Funds::Final,
                        ..
                    },
                    ..
                }
            )
        };
        assert_eq!(
            rig.journal().iter().filter(|body| told(body)).count(),
            1,
            "in the journal, once"
        );
        let unlisted = async || {
            rig.fleet
                .atm(&crate::fleet_rig::id("left"))
                .await
                .expect("atm")
                .open
                .is_empty()
        };
        until("it to leave the open ones", unlisted).await;
    });
}

#[test]
fn many_whose_money_is_on_its_way_do_not_keep_the_machine_from_serving() {
    run(Plan::default(), async |rig| {
        finality(rig, Finality::Hold);
        let mut waiting = Vec::new();
        for _ in 0..6 {
            waiting.push(pending(rig).await.id);
        }
        assert!(not_final(rig).await.0 >= 6.0);
        assert_eq!(rig.metric("tellerd_messages_refused_total{actor=\"atm\"}").await, NONE);
        finality(rig, Finality::Release);
        for id in waiting {
            rig.funds(id, Funds::Final).await;
        }
        rig.serve("left").await;
    });
}

#[test]
fn asking_alone_finds_out_too() {
    run(before_the_first_call(), async |rig| {
        rig.lnd.inject(denied("SubscribeHtlcEvents")).expect("denied");
        finality(rig, Finality::Hold);
        rig.lnd_comes();
        let cashout = pending(rig).await;
        assert_eq!(rig.metric("tellerd_lnd_stores_resolutions").await, 1.0);
        finality(rig, Finality::Release);
        rig.funds(cashout.id, Funds::Final).await;
    });
}

#[test]
fn lnd_may_be_restarted_meanwhile() {
    run(Plan::default(), async |rig| {
        finality(rig, Finality::Hold);
        let cashout = pending(rig).await;
        let restart = Fault::Restart {
            down: Duration::from_millis(200),
            startup: Duration::from_millis(200),
        };
        rig.lnd.inject(restart).expect("restart");
        until("LND to be gone", async || {
            rig.metric("tellerd_lnd_connected").await == NONE
        })
        .await;
        rig.ready("left").await;
        rig.funds(cashout.id, Funds::Pending).await;
        finality(rig, Finality::Release);
        rig.funds(cashout.id, Funds::Final).await;
    });
}

#[test]
fn money_that_never_comes_is_named_to_the_operator_and_is_a_loss() {
    run(Plan::default(), async |rig| {
        finality(rig, Finality::Hold);
        let cashout = pending(rig).await;
        finality(rig, Finality::Lose);
        let lost = rig.reaches(cashout.id, "needs_operator").await;
        assert_eq!((lost.funds(), lost.books.settled), (Some(Funds::Lost), false));
        assert_eq!((lost.books.delivered, lost.books.loss), (Minor(6000), Minor(6000)));
        assert_eq!(rig.metric("tellerd_failures_total{reason=\"funds_lost\"}").await, 1.0);
        assert_eq!(not_final(rig).await, (NONE, NONE, false));
        assert_eq!(rig.metric("tellerd_conservation_drift_minor_units").await, NONE);
        let (by, note) = ("ada".to_owned(), "the peer took it back".to_owned());
        let closed = rig
            .fleet
            .resolve(cashout.id, by, Resolution::Close, note)
            .await
            .expect("closed");
        assert!(closed.is_final());
        assert_eq!(closed.phase.name(), "canceled", "the customer has the money back");
        assert_eq!(rig.metric("tellerd_losses_booked_minor_units_total").await, 6000.0);
        rig.serve("left").await;
    });
}

#[test]
fn a_node_that_does_not_store_resolutions_serves_all_the_same() {
    let plan = Plan {
        final_resolutions: false,
        ..Plan::default()
    };
    run(plan, async |rig| {
        rig.serve("left").await;
        let all = rig.fleet.cashouts(None, None, 10).await.expect("cash-outs");
        assert_eq!(all[0].funds(), Some(Funds::NotFollowed));
        assert!(all[0].is_final());
        assert_eq!(rig.metric("tellerd_lnd_stores_resolutions").await, NONE);
    });
}

#[test]
fn a_node_that_stores_none_any_more_ends_the_following() {
    run(Plan::default(), async |rig| {
        finality(rig, Finality::Hold);
        let cashout = pending(rig).await;
        rig.lnd.store_resolutions(false).expect("set");
        assert!(rig.funds(cashout.id, Funds::NotFollowed).await.is_final());
        finality(rig, Finality::Release);
        until("it to be seen", async || {
            rig.metric("tellerd_lnd_stores_resolutions").await == NONE
        })
        .await;
        // What is settled from now on is not followed from the start.
        rig.serve("left").await;
        assert_eq!(not_final(rig).await.0, NONE);
        rig.lnd.store_resolutions(true).expect("set");
        until("it to be seen", async || {
            rig.metric("tellerd_lnd_stores_resolutions").await == 1.0
        })
        .await;
    });
}

#[test]
fn a_macaroon_without_the_right_to_ask_serves_all_the_same() {
    run(before_the_first_call(), async |rig| {
        rig.lnd.inject(denied("LookupHtlcResolution")).expect("denied");
        rig.lnd_comes();
        rig.serve("left").await;
        let all = rig.fleet.cashouts(None, None, 10).await.expect("cash-outs");
        assert_eq!(all[0].funds(), Some(Funds::NotFollowed));
        assert_eq!(rig.metric("tellerd_lnd_stores_resolutions").await, NONE);
    });
}

#[test]
fn a_right_that_is_lost_meanwhile_ends_the_following() {
    run(Plan::default(), async |rig| {
        finality(rig, Finality::Hold);
        let cashout = pending(rig).await;
        rig.lnd.inject(denied("LookupHtlcResolution")).expect("denied");
        rig.funds(cashout.id, Funds::NotFollowed).await;
        finality(rig, Finality::Release);
        until("it to be seen", async || {
            rig.metric("tellerd_lnd_stores_resolutions").await == NONE
        })
        .await;
        rig.serve("left").await;
    });
}

#[test]
fn a_settle_that_lnd_keeps_refusing_shows_its_age() {
    run(Plan::default(), async |rig| {
        let refused = Fault::Fail {
            method: "SettleInvoice".to_owned(),
            count: 4,
            code: 2,
            text: "invoice still open".to_owned(),
        };
        let cashout = rig.start("left", 6000).await;
        rig.lnd.inject(refused).expect("refused");
        rig.pay(&cashout);
        let oldest = async || rig.metric("tellerd_oldest_settling_timestamp_seconds").await;
        until("its age", async || oldest().await > NONE).await;
        rig.reaches(cashout.id, "completed").await;
        until("no age", async || oldest().await.is_nan()).await;
    });
}

/// What tells the invoices' actors to ask at once: the client's stream against the simulated node's, key for key.
#[tokio::test]
async fn the_client_hears_of_the_end_of_each_htlc_and_of_nothing_else() {
    let mut sim = SimRig::new().await;
    let location = LndLocation::Files {
        address: sim.address.to_string(),
        tls_cert: sim.dir.path().join(TLS_CERT),
        macaroon: sim.dir.path().join(ADMIN_MACAROON),
    };
    let client = LndClient::new(&LndConfig::new(location)).unwrap();
    client.follows().await.unwrap();
    let mut finals = client.finals().await.unwrap();
    let of = |invoice: Invoice| HtlcKey {
        chan_id: invoice.htlcs[0].chan_id,
        htlc_index: invoice.htlcs[0].htlc_index,
    };
    let money = async |n: u8| client.funds(&Preimage::from_bytes([n; 32]).hash()).await.unwrap();
    for n in 1..=3 {
        sim.held(n).await;
    }
    sim.cancel(2).await.unwrap();
    let canceled = of(sim.lookup(2).await.unwrap());
    assert_eq!(
        finals.next().await.unwrap().unwrap(),
        canceled,
        "that it subscribed is no end"
    );
    sim.handle.inject(Fault::Finality(Finality::Hold)).unwrap();
    sim.settle(1).await.unwrap();
    let first = of(sim.lookup(1).await.unwrap());
    assert_eq!(money(1).await, FundsSeen::Pending(vec![first]));
    sim.handle.inject(Fault::Finality(Finality::Release)).unwrap();
    assert_eq!(finals.next().await.unwrap().unwrap(), first, "a settle event is no end");
    assert_eq!(money(1).await, FundsSeen::Final, "known by the time of the event");
    sim.handle.inject(Fault::Finality(Finality::Hold)).unwrap();
    sim.settle(3).await.unwrap();
    sim.handle.inject(Fault::Finality(Finality::Lose)).unwrap();
    assert_eq!(finals.next().await.unwrap().unwrap(), of(sim.lookup(3).await.unwrap()));
    assert_eq!(money(3).await, FundsSeen::Lost);
    let open = client.funds(&Preimage::from_bytes([2; 32]).hash()).await.unwrap_err();
    assert_eq!(
        open.kind,
        LnErrorKind::Other,
        "{open}: of a canceled one there is nothing to tell"
    );
    sim.handle.store_resolutions(false).unwrap();
    assert_eq!(client.follows().await.unwrap_err().kind, LnErrorKind::NotStored);
    assert!(matches!(money(1).await, FundsSeen::NotFollowed(why) if why.contains("lnd.conf")));
}

/// A daemon of its own process, with what it says to customers and operators.
struct World {
    rig: rig::Rig,
    daemon: rig::Daemon,
}

impl World {
    fn new() -> Self {
        let (variant, setup) = (Variant::Standard, machine());
        let rig = rig::Rig::new(&[Machine { variant, setup }]);
        let daemon = rig.daemon(&[]);
        Self { rig, daemon }
    }

    async fn newest(&self) -> Option<CashOutView> {
        let list: CashOutList = self.daemon.get("/v1/cashouts").await?;
        list.cashouts.into_iter().next()
    }

    /// The newest cash-out, once it is as wanted.
    async fn sees(&self, what: &str, wanted: impl Fn(&CashOutView) -> bool) -> CashOutView {
        let seen = async {
            loop {
                if let Some(view) = self.newest().await.filter(|view| wanted(view)) {
                    return view;
                }
                breath().await;
            }
        };
        let seen = tokio::time::timeout(LIMIT, seen).await;
        seen.unwrap_or_else(|_| panic!("waited in vain for {what}\n{}", self.daemon.last_words()))
    }

    async fn pay_out(&self) -> CashOutView {
        until("readiness", async || self.daemon.is_ready().await).await;
        let (atm, amount_minor) = ("atm1".parse().unwrap(), Minor(6000));
        let _: Option<CashOutView> = self
            .daemon
            .post("/v1/cashouts", &StartCashOut { atm, amount_minor })
            .await;
        let shown = self.sees("an invoice", |view| view.payment_request.is_some()).await;
        let invoice = shown.payment_request.unwrap();
        self.rig.lnd.pay(&invoice, &PayOptions::default()).unwrap();
        self.sees("its end", |view| view.ended).await
    }
}

#[tokio::test]
async fn tellerd_may_be_restarted_meanwhile_and_tells_over_its_api() {
    let mut world = World::new();
    world.rig.lnd.inject(Fault::Finality(Finality::Hold)).unwrap();
    let ended = world.pay_out().await;
    assert_eq!(
        (ended.state.as_str(), ended.settled, ended.funds),
        ("completed", true, Some(Funds::Pending))
    );
    assert!(world.daemon.terminate().await.success());
    world.daemon = world.rig.daemon(&[]);
    let still = world.sees("the cash-out", |_| true).await;
    assert_eq!(still.funds, Some(Funds::Pending));
    let atm: AtmView = world.daemon.get("/v1/atms/atm1").await.unwrap();
    assert_eq!(atm.open, [still.id], "among the open ones");
    world.rig.lnd.inject(Fault::Finality(Finality::Release)).unwrap();
    world.sees("its money", |view| view.funds == Some(Funds::Final)).await;
    assert_eq!(world.rig.lnd.ledger().unwrap().money.held_msat, 0);
}

#[tokio::test]
async fn a_node_that_does_not_store_resolutions_is_named_once_with_its_setting() {
    let world = World::new();
    world.rig.lnd.store_resolutions(false).unwrap();
    let ended = world.pay_out().await;
    assert_eq!(ended.funds, Some(Funds::NotFollowed));
    let log = world.daemon.log();
    let named = log
        .lines()
        .filter(|line| line.contains("store-final-htlc-resolutions=true in lnd.conf"));
    assert!(named.clone().count() >= 1 && named.clone().count() <= 2, "{log}");
    assert!(named.clone().all(|line| line.contains("WARN")), "{log}");
}
