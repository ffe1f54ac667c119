//! The hold-invoice service over an embedded relay: whole lives, idempotency, ownership, limits, replay, deadlines,
//! restarts, a bad disk, a panic.

use tellerd::actors::child::ChildId;
use tellerd::nostr::caller::CallError;
use tellerd::nostr::method::{Call, CommittedInvoice, Enrolled, HoldState, PairingToken, ServiceInfo};
use tellerd::nostr::wire::{Code, Version};
use tellerd::sim::lnd::PayOptions;
use tellerd::sim::lnd::node::record::InvoiceState;

use super::fleet_rig::until;
use super::nostr_rig::{Client, Plan, Service, alice, bob, code, preimage, run, run_in, wanted};

async fn commit(client: &Client, hash: tellerd::ids::PaymentHash) -> Result<CommittedInvoice, CallError> {
    client
        .caller
        .ask(&Call::CommitHoldInvoice(hash), CommittedInvoice::read)
        .await
}

#[test]
fn an_invoice_lives_from_create_to_settle_and_to_cancel_in_both_encryptions() {
    run(Plan::default(), async |service| {
        for (version, first) in [(Version::V1, 1), (Version::V2, 11)] {
            let client = service.client_of(alice(), version).await;
            let info = client
                .caller
                .ask(&Call::GetServiceInfo, ServiceInfo::read)
                .await
                .unwrap();
            assert!(info.node_up && info.can_create && info.client == "alice", "{info:?}");
            let mut pushes = client.caller.pushes();
            client.caller.call(&Call::SubscribeHoldInvoices).await.unwrap();
            let secret = preimage(first);
            let (hash, payment) = client.held(service, &secret).await;
            assert_eq!(pushes.recv().await.unwrap(), hash, "a change was pushed");
            let committed = commit(&client, hash).await.unwrap();
            assert_eq!((committed.state, committed.blocks_left), (HoldState::Accepted, 62));
            assert_eq!(commit(&client, hash).await.unwrap(), committed, "again the same");
            client.settle(&secret).await.unwrap();
            client.sees(hash, HoldState::Settled).await;
            client.settle(&secret).await.unwrap();
            assert_eq!(code(client.cancel(hash).await), Code::AlreadySettled);
            let paid = service.lnd.ended_payment(payment).await.unwrap();
            assert_eq!(paid.preimage, Some(secret));

            let (hash, payment) = client.held(service, &preimage(first + 1)).await;
            assert_eq!(client.cancel(hash).await.unwrap().state, HoldState::Canceled);
            client.cancel(hash).await.unwrap();
            assert_eq!(code(client.settle(&preimage(first + 1)).await), Code::AlreadyCanceled);
            assert_eq!(code(commit(&client, hash).await), Code::AlreadyCanceled);
            assert!(service.lnd.ended_payment(payment).await.unwrap().preimage.is_none());
            service.reaches(hash, InvoiceState::Canceled).await;
        }
    });
}

#[test]
fn a_repeated_create_is_the_same_invoice_and_nobody_elses() {
    run(Plan::default(), async |service| {
        let (client, other) = (service.client(alice()).await, service.client(bob()).await);
        let asked = wanted(&preimage(1), 1_000);
        let first = client.create(&asked).await.unwrap();
        assert_eq!(client.create(&asked).await.unwrap(), first);
        assert_eq!(
            code(client.create(&wanted(&preimage(1), 1_001)).await),
            Code::AlreadyExists
        );
        assert_eq!(code(other.create(&asked).await), Code::AlreadyExists);
        assert_eq!(code(other.get(asked.hash).await), Code::NotFound);
        assert_eq!(code(other.cancel(asked.hash).await), Code::NotFound);
        assert_eq!(code(other.settle(&preimage(1)).await), Code::NotFound);
        assert_eq!(code(client.settle(&preimage(1)).await), Code::StillOpen);
        assert_eq!(code(commit(&client, asked.hash).await), Code::StillOpen);
        assert_eq!(
            code(client.settle(&preimage(9)).await),
            Code::NotFound,
            "a preimage that fits nothing"
        );
        client.cancel(asked.hash).await.unwrap();
        assert_eq!(code(client.create(&asked).await), Code::AlreadyCanceled);
    });
}

#[test]
fn many_creates_of_one_hash_at_once_make_one_invoice() {
    run(Plan::default(), async |service| {
        let client = service.client(alice()).await;
        let asked = wanted(&preimage(1), 1_000);
        let all = futures_util::future::join_all((0..8).map(|_| client.create(&asked))).await;
        let made: Vec<_> = all.into_iter().filter_map(Result::ok).collect();
        assert!(!made.is_empty() && made.iter().all(|one| one == &made[0]), "{made:?}");
        let ledger = service.lnd.ledger().unwrap();
        assert_eq!(ledger.invoices.len(), 1);
    });
}

#[test]
fn limits_hold_also_for_many_at_once() {
    let plan = Plan {
        service: "max_amount_sats = 5000\nmax_held_sats = 10000\nmax_open = 3\nsats_per_day = 9000",
        ..Plan::default()
    };
    run(plan, async |service| {
        let client = service.client(alice()).await;
        assert_eq!(code(client.create(&wanted(&preimage(1), 5_001)).await), Code::OverLimit);
        let asked: Vec<_> = (1..=6).map(|byte| wanted(&preimage(byte), 100)).collect();
        let all = futures_util::future::join_all(asked.iter().map(|one| client.create(one))).await;
        let made = all.iter().filter(|one| one.is_ok()).count();
        assert!((1..=3).contains(&made), "{all:?}");
        for one in &asked {
            let _ = client.cancel(one.hash).await;
        }
        until("all to be canceled", async || {
            service.metric("tellerd_invoices_pending{state=\"canceling\"} ").await == 0.0
        })
        .await;
        client.create(&wanted(&preimage(11), 5_000)).await.unwrap();
        client.create(&wanted(&preimage(12), 4_000)).await.unwrap();
        let over = client.create(&wanted(&preimage(13), 1)).await;
        assert_eq!(code(over), Code::OverLimit, "9,000 sats are asked for today");
        let other = service.client(bob()).await;
        other.create(&wanted(&preimage(14), 1)).await.unwrap();
    });
}

/// How often settle, create and cancel were answered with OK.
async fn answered(service: &Service) -> [f64; 3] {
    let mut counts = [0.0; 3];
    for (method, count) in ["settleHoldInvoice", "createHoldInvoice", "cancelHoldInvoice"]
        .iter()
        .zip(&mut counts)
    {
        let name = format!("tellerd_nostr_request_duration_seconds_count{{method=\"{method}\",outcome=\"ok\"}} ");
        *count = service.metric(&name).await;
    }
    counts
}

/// Publishes an event again until the service says that it was seen before.
async fn replayed(service: &Service, client: &Client, event: nostr::Event) {
    let before = service.dropped("replay").await;
    let _ = client.publish(event).await;
    until("the replay to be refused", async || {
        service.dropped("replay").await > before
    })
    .await;
}

#[test]
fn a_replayed_event_has_no_second_effect_before_and_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut events = Vec::new();
    run_in(dir.path(), Plan::default(), async |service| {
        let client = service.client(alice()).await;
        let sender = service.client(alice()).await;
        let (settled, _) = client.held(service, &preimage(1)).await;
        client.settle(&preimage(1)).await.unwrap();
        events.push(client.last_sent());
        client.sees(settled, HoldState::Settled).await;
        let created = wanted(&preimage(2), 100);
        client.create(&created).await.unwrap();
        events.push(client.last_sent());
        client.cancel(created.hash).await.unwrap();
        events.push(client.last_sent());
        client.sees(created.hash, HoldState::Canceled).await;
        let before = answered(service).await;
        for event in &events {
            sender.publish(event.clone()).await;
        }
        // On the same way, after them.
        sender.get(settled).await.unwrap();
        assert_eq!(answered(service).await, before, "not even asked");
    });
    run_in(dir.path(), Plan::default(), async |service| {
        let client = service.client(alice()).await;
        for event in events {
            replayed(service, &client, event).await;
        }
        assert_eq!(answered(service).await, [0.0; 3]);
        assert_eq!(client.get(preimage(1).hash()).await.unwrap().state, HoldState::Settled);
        assert_eq!(client.get(preimage(2).hash()).await.unwrap().state, HoldState::Canceled);
    });
}

const SHORT: Plan = Plan {
    policy: "hold_deadline = '1s'\nunknown_deadline = '2s'",
    service: "commit_deadline = '3s'",
};

#[test]
fn what_a_vanished_client_leaves_behind_comes_to_its_end() {
    run(SHORT, async |service| {
        let client = service.client(alice()).await;
        let mut open = wanted(&preimage(1), 100);
        open.expiry_seconds = 1;
        client.create(&open).await.unwrap();
        let (held, _) = client.held(service, &preimage(2)).await;
        let (committed, payment) = client.held(service, &preimage(3)).await;
        let commitment = commit(&client, committed).await.unwrap();
        drop(client);
        service.reaches(open.hash, InvoiceState::Canceled).await;
        service.reaches(held, InvoiceState::Canceled).await;
        service.reaches(committed, InvoiceState::Canceled).await;
        let ended = service.lnd.ended_payment(payment).await.unwrap();
        assert!(ended.preimage.is_none(), "the customer has the money back");
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap()
            .as_secs();
        assert!(
            now >= commitment.commit_deadline_unix,
            "not before the commit's deadline"
        );
    });
}

#[test]
fn deadlines_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let (mut held, mut committed) = (None, None);
    run_in(dir.path(), SHORT, async |service| {
        let client = service.client(alice()).await;
        committed = Some(client.held(service, &preimage(3)).await.0);
        commit(&client, preimage(3).hash()).await.unwrap();
        held = Some(client.held(service, &preimage(2)).await.0);
    });
    run_in(dir.path(), SHORT, async |service| {
        service.reaches(held.unwrap(), InvoiceState::Canceled).await;
        service.reaches(committed.unwrap(), InvoiceState::Canceled).await;
    });
}

#[test]
fn settle_is_answered_only_when_the_preimage_is_durable() {
    run(Plan::default(), async |service| {
        let client = service.client(alice()).await;
        let (hash, _) = client.held(service, &preimage(1)).await;
        service.disk.fill("settle_ordered");
        let secret = preimage(1);
        let settle = client.settle(&secret);
        let journal = until("the journal to refuse", async || {
            service.metric("tellerd_journal_failures_total ").await > 0.0
        });
        let mut settle = Box::pin(settle);
        tokio::select! {
            answer = &mut settle => panic!("answered without its record: {answer:?}"),
            () = journal => {}
        }
        assert_eq!(
            service.state_at_lnd(hash),
            Some(InvoiceState::Accepted),
            "not settled without its record"
        );
        service.disk.free();
        settle.await.unwrap();
        client.sees(hash, HoldState::Settled).await;
    });
}

#[test]
fn blocks_close_the_window_of_what_a_client_committed() {
    run(Plan::default(), async |service| {
        let client = service.client(alice()).await;
        let (hash, _) = client.held(service, &preimage(1)).await;
        let (late, _) = client.held(service, &preimage(2)).await;
        let committed = commit(&client, hash).await.unwrap();
        service
            .lnd
            .advance_blocks(u32::try_from(committed.blocks_left).unwrap() - 11)
            .unwrap();
        service.reaches(late, InvoiceState::Canceled).await;
        assert_eq!(
            client.get(hash).await.unwrap().state,
            HoldState::Accepted,
            "committed ones wait longer"
        );
        let info = client.caller.ask(&Call::GetServiceInfo, ServiceInfo::read).await;
        assert_eq!(
            info.unwrap().force_blocks_left,
            Some(3),
            "half of what a site decides at"
        );
        service.lnd.advance_blocks(8).unwrap();
        until("three blocks to be left", async || {
            client.get(hash).await.unwrap().blocks_left == Some(3)
        })
        .await;
        assert_eq!(client.get(hash).await.unwrap().state, HoldState::Accepted);
        service.lnd.advance_blocks(1).unwrap();
        service.reaches(hash, InvoiceState::Canceled).await;
        assert_eq!(code(client.settle(&preimage(1)).await), Code::AlreadyCanceled);
    });
}

#[test]
fn an_invitation_makes_a_client_once_and_a_revoked_one_can_only_finish() {
    run(Plan::default(), async |service| {
        let keys = nostr::Keys::generate();
        let client = service.client(keys).await;
        let asked = wanted(&preimage(1), 100);
        assert_eq!(code(client.create(&asked).await), Code::NotAllowed);
        let invitation = service
            .fleet
            .invite("kiosk".parse().unwrap(), "ada".into())
            .await
            .unwrap();
        let (profile, token) = invitation.pairing.rsplit_once(':').unwrap();
        assert!(profile.starts_with("nprofile1"));
        let enroll = |token: &str| Call::EnrollClient(PairingToken::read_text(token).unwrap());
        assert_eq!(
            code(client.caller.call(&enroll(&"00".repeat(32))).await),
            Code::NotAllowed
        );
        for _ in 0..2 {
            let fields = client.caller.call(&enroll(token)).await.unwrap();
            let enrolled: Enrolled = serde_json::from_value(fields.into()).unwrap();
            assert_eq!(enrolled.client, "kiosk", "its answer may have been lost");
        }
        let thief = service.client(nostr::Keys::generate()).await;
        assert_eq!(code(thief.caller.call(&enroll(token)).await), Code::NotAllowed);
        let (hash, _) = client.held(service, &preimage(2)).await;
        service
            .fleet
            .revoke("kiosk".parse().unwrap(), "ada".into())
            .await
            .unwrap();
        assert_eq!(code(client.create(&asked).await), Code::NotAllowed);
        let info = Call::GetServiceInfo;
        assert_eq!(
            code(thief.caller.call(&info).await),
            Code::NotAllowed,
            "it never had any"
        );
        // A site asks this before it settles or cancels anything.
        let told = client.caller.ask(&info, ServiceInfo::read).await.unwrap();
        assert!(told.node_up && !told.can_create && told.client.is_empty(), "{told:?}");
        client.settle(&preimage(2)).await.unwrap();
        client.sees(hash, HoldState::Settled).await;
        client.caller.ask(&info, ServiceInfo::read).await.unwrap();
    });
}

#[test]
fn a_panic_of_the_nostr_actor_or_of_an_invoices_loses_nothing() {
    run(Plan::default(), async |service| {
        let client = service.client(alice()).await;
        let (hash, payment) = client.held(service, &preimage(1)).await;
        service.fleet.make_panic(ChildId::Nostr).await;
        service.fleet.make_panic(ChildId::Invoice(hash)).await;
        commit(&client, hash).await.unwrap();
        client.settle(&preimage(1)).await.unwrap();
        client.sees(hash, HoldState::Settled).await;
        assert!(service.lnd.ended_payment(payment).await.unwrap().preimage.is_some());
    });
}

#[test]
fn an_invoice_that_is_overpaid_tells_what_came() {
    run(Plan::default(), async |service| {
        let client = service.client(alice()).await;
        let asked = wanted(&preimage(1), 1_000);
        let created = client.create(&asked).await.unwrap();
        let more = PayOptions {
            amount_msat: Some(1_500_000),
            ..PayOptions::default()
        };
        service.lnd.pay(&created.invoice, &more).unwrap();
        let held = client.sees(asked.hash, HoldState::Accepted).await;
        assert_eq!((held.amount_sats, held.amount_paid_sats), (1_000, 1_500));
        assert_eq!(held.invoice, Some(created.invoice));
    });
}
