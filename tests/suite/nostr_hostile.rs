//! The hold-invoice service against clients that want what is not theirs, and operators that change their minds.

#![allow(clippy::expect_used)]

use std::time::Duration;

use tellerd::clients::Who;
use tellerd::ids::NostrKey;
use tellerd::lnd::{HoldInvoiceRequest, Lightning};
use tellerd::money::Msat;
use tellerd::nostr::method::{Call, HoldState, PairingToken};
use tellerd::nostr::wire::Code;
use tellerd::sim::lnd::PayOptions;
use tellerd::sim::lnd::node::record::InvoiceState;

use super::nostr_rig::{Client, Plan, Service, alice, code, preimage, run, run_in, wanted};

#[test]
fn an_invoice_that_lnd_has_from_another_program_becomes_no_clients() {
    run(Plan::default(), async |service| {
        let foreign = preimage(1);
        let request = HoldInvoiceRequest {
            hash: foreign.hash(),
            amount: Msat(1_000_000),
            memo: "a shop's".into(),
            expiry: Duration::from_secs(600),
            cltv_expiry: 80,
            private_route_hints: false,
        };
        service.node.add_hold_invoice(&request).await.unwrap();
        // Whoever was shown the invoice knows its hash and amount.
        let client = service.client(alice()).await;
        let taken = client.create(&wanted(&foreign, 1_000)).await;
        assert_eq!(code(taken), Code::AlreadyExists);
        assert_eq!(code(client.cancel(foreign.hash()).await), Code::NotFound);
        assert_eq!(service.state_at_lnd(foreign.hash()), Some(InvoiceState::Open));
    });
}

async fn invite(service: &Service, name: &str) -> String {
    let invitation = service
        .fleet
        .invite(name.parse().expect("a name"), "ada".into())
        .await
        .expect("invited");
    let (_, token) = invitation.pairing.rsplit_once(':').expect("a token");
    token.to_owned()
}

async fn enroll(client: &Client, token: &str) -> Result<(), Code> {
    let call = Call::EnrollClient(PairingToken::read_text(token).expect("a token"));
    match client.caller.call(&call).await {
        Ok(_) => Ok(()),
        failed => Err(code(failed)),
    }
}

fn key(keys: &nostr::Keys) -> NostrKey {
    NostrKey(keys.public_key().to_bytes())
}

#[test]
fn a_key_that_is_no_client_any_more_is_no_stranger_while_its_invoice_is_open() {
    let dir = tempfile::tempdir().unwrap();
    let keys = nostr::Keys::generate();
    let nobody = |service: &Service| {
        let roster = service.fleet.roster();
        let roster = roster.borrow();
        assert_eq!(roster.who(&key(&keys)), Who::default());
        // Strangers share a bound, which any of them can use up.
        roster.knows(&key(&keys))
    };
    run_in(dir.path(), Plan::default(), async |service| {
        let client = service.client(keys.clone()).await;
        enroll(&client, &invite(service, "kiosk").await).await.unwrap();
        client.held(service, &preimage(1)).await;
        let name = "kiosk".parse().unwrap();
        service.fleet.revoke(name, "ada".into()).await.unwrap();
        assert!(nobody(service));
    });
    run_in(dir.path(), Plan::default(), async |service| {
        assert!(nobody(service), "also after a restart");
        let client = service.client(keys.clone()).await;
        client.settle(&preimage(1)).await.unwrap();
        client.sees(preimage(1).hash(), HoldState::Settled).await;
    });
    run_in(dir.path(), Plan::default(), async |service| {
        assert!(!nobody(service), "nothing is left to it");
    });
}

#[test]
fn a_token_that_was_answered_with_ok_is_void() {
    run(Plan::default(), async |service| {
        let token = invite(service, "kiosk").await;
        let other = service.client(alice()).await;
        assert_eq!(
            enroll(&other, &token).await,
            Err(Code::NotAllowed),
            "alice is a client of another name"
        );
        let client = service.client(nostr::Keys::generate()).await;
        enroll(&client, &token).await.unwrap();
        let again = invite(service, "kiosk").await;
        enroll(&client, &again).await.unwrap();
        let thief = service.client(nostr::Keys::generate()).await;
        assert_eq!(enroll(&thief, &again).await, Err(Code::NotAllowed));
        enroll(&client, &again).await.unwrap();
    });
}

#[test]
fn what_was_paid_above_the_amount_counts_as_held() {
    let plan = Plan {
        service: "max_amount_sats = 5000\nmax_held_sats = 10000",
        ..Plan::default()
    };
    run(plan, async |service| {
        let client = service.client(alice()).await;
        let paid = wanted(&preimage(1), 3_000);
        let created = client.create(&paid).await.unwrap();
        let twice = PayOptions {
            amount_msat: Some(6_000_000),
            ..PayOptions::default()
        };
        service.lnd.pay(&created.invoice, &twice).unwrap();
        client.sees(paid.hash, HoldState::Accepted).await;
        client.create(&wanted(&preimage(2), 3_000)).await.unwrap();
        let over = client.create(&wanted(&preimage(3), 3_000)).await;
        assert_eq!(code(over), Code::OverLimit, "6,000 are held, 3,000 may be any moment");
    });
}
