//! A site without LND, whose payments are held by a service it reaches over a relay alone: cash-outs to their end, jams,
//! relay outages at each step, a restart, and what the service's lists show of the site.
//!
//! What must stay true: each test ends with nothing held at LND.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;

use tellerd::app;
use tellerd::cashout::CashOut;
use tellerd::config::Config;
use tellerd::hardware::puloon::emulator::{EmulatorHandle, Fault, Setup};
use tellerd::ids::CashOutId;
use tellerd::metrics::AtmState;
use tellerd::money::{Funds, Minor};
use tellerd::nostr::method::{Call, PairingToken};
use tellerd::sim::lnd::node::record::InvoiceState;
use tellerd::sim::lnd::{Fault as LndFault, Finality, PayOptions};
use tellerd::sim::relay::RelayFaults;

use super::fleet_rig::{Disk, id, machine, switch_on, until};
use super::nostr_rig::{Plan, Service, alice, bring_up, run_in};

struct Site {
    up: app::Up,
    dispenser: EmulatorHandle,
}

const SERVICE: Plan = Plan {
    policy: "",
    service: "commit_deadline = '65m'",
};

fn write_key(home: &Path, keys: &nostr::Keys) {
    std::fs::create_dir_all(home).unwrap();
    let key = home.join("nostr.key");
    std::fs::write(&key, keys.secret_key().to_secret_hex()).unwrap();
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
}

/// The site of client alice, whose key is in its own file.
async fn site(dir: &Path, service: &Service) -> Site {
    site_of(dir, service, "").await
}

/// The same with lines of a policy.
async fn site_of(dir: &Path, service: &Service, policy: &str) -> Site {
    let home = dir.join("site");
    if !home.join("nostr.key").exists() {
        write_key(&home, &alice());
    }
    let link = home.join("left");
    // Slow enough to be met while dispensing.
    let setup = Setup {
        note_ms: 200,
        ..machine()
    };
    let dispenser = switch_on(setup, &link);
    until("the pty", async || link.exists()).await;
    let text = format!(
        "data_dir = 'data'\npayments = 'nostr'\n[nostr]\nkey_file = 'nostr.key'\nrelays = ['{}']\n\
         [site]\nservice = '{}'\ndeadline = '1s'\n[rate]\ncurrency = 'EUR'\nper_btc = '95000.00'\n\
         [policy]\n{policy}\n[[atm]]\nid = 'left'\nmodel = 'puloon-lcdm4000'\npath = 'left'\nmin_amount = '20.00'\nmax_amount = '500.00'\n\
         [atm.timings]\nack_ms = 500\nreply_ms = 3000\nreset_ms = 10\n\
         [[atm.cassette]]\nposition = 1\ndenomination = '20.00'\nnotes = 100\n\
         [[atm.cassette]]\nposition = 2\ndenomination = '50.00'\nnotes = 100\n",
        service.relay.url(),
        service.key.to_hex(),
    );
    let config = Config::parse(&text, &home.join("site.toml")).unwrap();
    let up = bring_up(&config, &Arc::new(Disk::default())).await;
    let site = Site { up, dispenser };
    site.ready().await;
    site
}

impl Site {
    async fn ready(&self) {
        until("the machine to be ready", async || {
            self.up.fleet.atm(&id("left")).await.unwrap().state == AtmState::Ready
        })
        .await;
    }

    async fn start(&self) -> CashOut {
        self.ready().await;
        let cashout = self.up.fleet.start(&id("left"), Minor(6_000)).await.unwrap();
        assert_eq!(cashout.phase.name(), "awaiting_payment", "{cashout:?}");
        cashout
    }

    async fn reaches(&self, cashout: CashOutId, phase: &str) -> CashOut {
        until(&format!("{cashout} to be {phase}"), async || {
            self.up.fleet.cashout(cashout).await.unwrap().phase.name() == phase
        })
        .await;
        self.up.fleet.cashout(cashout).await.unwrap()
    }

    fn notes(&self) -> u32 {
        self.dispenser.totals().iter().map(|total| total.delivered).sum()
    }
}

fn pay(service: &Service, cashout: &CashOut) -> u64 {
    let request = cashout.payment_request.as_ref().unwrap();
    service.lnd.pay(request, &PayOptions::default()).unwrap()
}

fn run(test: impl AsyncFnOnce(&Service, &Site)) {
    run_of("", test);
}

fn run_of(policy: &str, test: impl AsyncFnOnce(&Service, &Site)) {
    let dir = tempfile::tempdir().unwrap();
    run_in(dir.path(), SERVICE, async |service| {
        let site = site_of(dir.path(), service, policy).await;
        test(service, &site).await;
        let ledger = service.lnd.ledger().unwrap();
        assert_eq!(ledger.money.held_msat, 0, "{ledger:?}");
        assert_eq!(
            ledger.money.sent_msat,
            ledger.money.settled_msat + ledger.money.refunded_msat
        );
        assert_eq!(service.metric("tellerd_held_sats ").await, 0.0);
    });
}

#[test]
fn a_site_hears_from_its_service_whether_the_money_came() {
    run(async |service, site| {
        let finality = |order| service.lnd.inject(LndFault::Finality(order)).unwrap();
        let funds = async |id, funds| {
            until(&format!("money of {id} to be {funds:?}"), async || {
                site.up.fleet.cashout(id).await.unwrap().funds() == Some(funds)
            })
            .await;
        };
        finality(Finality::Hold);
        let cashout = site.start().await;
        pay(service, &cashout);
        site.reaches(cashout.id, "completed").await;
        funds(cashout.id, Funds::Pending).await;
        assert_eq!(service.metric("tellerd_settled_not_final_invoices ").await, 1.0);
        finality(Finality::Release);
        funds(cashout.id, Funds::Final).await;
        // And one that never comes is a loss at the site.
        finality(Finality::Hold);
        let cashout = site.start().await;
        pay(service, &cashout);
        site.reaches(cashout.id, "completed").await;
        finality(Finality::Lose);
        let lost = site.reaches(cashout.id, "needs_operator").await;
        assert_eq!((lost.books.loss, lost.books.settled), (Minor(6_000), false));
    });
}

#[test]
fn a_cash_out_is_paid_for_and_a_jam_is_refunded() {
    run(async |service, site| {
        let cashout = site.start().await;
        let payment = pay(service, &cashout);
        let done = site.reaches(cashout.id, "completed").await;
        assert_eq!(done.books.delivered, Minor(6_000));
        assert!(service.lnd.ended_payment(payment).await.unwrap().preimage.is_some());
        assert_eq!(site.notes(), 3);
        let jam = Fault::JamOnPath {
            after_notes: 0,
            hard: false,
        };
        site.dispenser.inject(jam.next());
        let jammed = site.start().await;
        let payment = pay(service, &jammed);
        site.reaches(jammed.id, "canceled").await;
        assert!(service.lnd.ended_payment(payment).await.unwrap().preimage.is_none());
        assert_eq!(site.notes(), 3, "nothing came out");
        service.reaches(jammed.quote.hash, InvoiceState::Canceled).await;
    });
}

#[test]
fn a_relay_that_loses_delays_and_repeats_changes_nothing() {
    run(async |service, site| {
        service.relay.set(RelayFaults {
            duplicate: 0.3,
            delay: 0.5,
            delay_max: std::time::Duration::from_millis(300),
            drop: 0.2,
            lose_ok: 0.2,
            rate_limit: 0.1,
            ..RelayFaults::default()
        });
        for _ in 0..4 {
            let cashout = site.start().await;
            let payment = pay(service, &cashout);
            site.reaches(cashout.id, "completed").await;
            assert!(service.lnd.ended_payment(payment).await.unwrap().preimage.is_some());
        }
        assert_eq!(site.notes(), 12);
        service.relay.set(RelayFaults::default());
    });
}

#[test]
fn a_settlement_waits_for_a_relay_that_is_away() {
    run(async |service, site| {
        let cashout = site.start().await;
        pay(service, &cashout);
        site.reaches(cashout.id, "dispensing").await;
        service.relay.stop().await;
        site.reaches(cashout.id, "settling").await;
        assert_eq!(service.state_at_lnd(cashout.quote.hash), Some(InvoiceState::Accepted));
        service.relay.restart().await.unwrap();
        site.reaches(cashout.id, "completed").await;
        service.reaches(cashout.quote.hash, InvoiceState::Settled).await;
    });
}

#[test]
fn a_hold_that_can_not_be_committed_is_not_dispensed_on() {
    run(async |service, site| {
        let cashout = site.start().await;
        service.relay.stop().await;
        pay(service, &cashout);
        service.reaches(cashout.quote.hash, InvoiceState::Accepted).await;
        until("the site to know that it is cut off", async || {
            site.up.fleet.readiness().await.lnd.is_err()
        })
        .await;
        assert_eq!(site.notes(), 0);
        service.relay.restart().await.unwrap();
        site.reaches(cashout.id, "completed").await;
        assert_eq!(site.notes(), 3, "its hold was good for long enough");
    });
}

#[test]
fn the_services_lists_show_the_site() {
    run(async |service, _| {
        until("a report", async || !service.fleet.sites().is_empty()).await;
        let sites = service.fleet.sites();
        assert_eq!(sites[0].site.as_str(), "alice");
        assert!(!sites[0].down && sites[0].report.atms[0].id == id("left"), "{sites:?}");
        assert_eq!(service.metric("tellerd_site_up{site=\"alice\"} ").await, 1.0);
        let notes = "tellerd_site_cassette_notes{atm=\"left\",position=\"1\",site=\"alice\"} ";
        assert_eq!(service.metric(notes).await, 100.0);
    });
}

#[test]
fn a_site_goes_on_after_its_own_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut paid = None::<CashOut>;
    run_in(dir.path(), SERVICE, async |service| {
        let site = site(dir.path(), service).await;
        let cashout = site.start().await;
        // Held, and nobody dispenses: the machine's actor is about to die with its process.
        site.up
            .fleet
            .make_panic(tellerd::actors::child::ChildId::Hardware(id("left")))
            .await;
        pay(service, &cashout);
        service.reaches(cashout.quote.hash, InvoiceState::Accepted).await;
        paid = Some(cashout);
    });
    run_in(dir.path(), SERVICE, async |service| {
        let site = site(dir.path(), service).await;
        let paid = paid.unwrap();
        let done = site.reaches(paid.id, "completed").await;
        assert_eq!(done.books.delivered, Minor(6_000));
        service.reaches(paid.quote.hash, InvoiceState::Settled).await;
    });
}

#[test]
fn a_site_decides_by_its_own_policy_before_the_service_gives_the_hold_up_for_want_of_blocks() {
    run_of("unknown_at_deadline = 'settle'", async |service, site| {
        site.dispenser.inject(
            Fault::PowerLost {
                after_notes: None,
                serial_kept: false,
            }
            .next(),
        );
        let cashout = site.start().await;
        let payment = pay(service, &cashout);
        site.reaches(cashout.id, "outcome_unknown").await;
        let hold = service.client(alice()).await.get(cashout.quote.hash).await.unwrap();
        let left = u32::try_from(hold.blocks_left.unwrap()).unwrap();
        service.lnd.advance_blocks(left - 5).unwrap();
        let done = site.reaches(cashout.id, "completed").await;
        assert_eq!(done.books.loss, Minor::ZERO);
        assert!(service.lnd.ended_payment(payment).await.unwrap().preimage.is_some());
    });
}

#[test]
fn a_site_that_is_revoked_while_notes_come_out_is_still_paid() {
    let dir = tempfile::tempdir().unwrap();
    run_in(dir.path(), SERVICE, async |service| {
        let (keys, kiosk) = (nostr::Keys::generate(), "kiosk".parse().unwrap());
        let invitation = service.fleet.invite(kiosk, "ada".into()).await.unwrap();
        let token = PairingToken::read_text(invitation.pairing.rsplit_once(':').unwrap().1).unwrap();
        let enroll = Call::EnrollClient(token);
        service.client(keys.clone()).await.caller.call(&enroll).await.unwrap();
        write_key(&dir.path().join("site"), &keys);
        let site = site(dir.path(), service).await;
        let cashout = site.start().await;
        let payment = pay(service, &cashout);
        site.reaches(cashout.id, "dispensing").await;
        // Its connection is a new one when it comes to settle.
        service.relay.stop().await;
        until("the site to know that it is cut off", async || {
            site.up.fleet.readiness().await.lnd.is_err()
        })
        .await;
        service
            .fleet
            .revoke("kiosk".parse().unwrap(), "ada".into())
            .await
            .unwrap();
        service.relay.restart().await.unwrap();
        site.reaches(cashout.id, "completed").await;
        assert!(service.lnd.ended_payment(payment).await.unwrap().preimage.is_some());
        until("the site to serve nobody any more", async || {
            site.up.fleet.atm(&id("left")).await.unwrap().state == AtmState::OutOfService
        })
        .await;
    });
}
