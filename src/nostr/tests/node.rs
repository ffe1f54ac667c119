//! The service taken for a Lightning node: what each answer, and each lost answer, comes to.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::fake::{Fake, Fault};
use super::ledger::{EXPIRY_HEIGHT, HEIGHT, bolt11};
use crate::ids::{PaymentHash, Preimage};
use crate::lnd::{FundsSeen, HoldInvoiceRequest, InvoiceState, Lightning, LnErrorKind, NodeState};
use crate::money::{Funds, Msat};
use crate::nostr::method::{HoldState, Method};
use crate::nostr::node::{NodeTimings, NostrNode, SiteTerms};
use crate::nostr::wire::{Code, Failure, Version};
use crate::time::Clock;

/// What the service of `ledger.rs` fits.
pub const TERMS: SiteTerms = SiteTerms {
    hold_expiry_delta: 18,
    min_blocks_left: 12,
    force_blocks_left: 6,
    hold_ms: 600_000,
    unknown_ms: 3_000_000,
};

pub fn node(fake: &Fake) -> NostrNode {
    NostrNode::new(fake.caller().clone(), TERMS, NodeTimings::default())
}

pub fn start() -> (Arc<Fake>, NostrNode) {
    let (fake, _) = Fake::start(Version::V2);
    let node = node(&fake);
    (fake, node)
}

pub fn secret(n: u8) -> Preimage {
    Preimage::from_bytes([n; 32])
}

pub fn request(n: u8) -> HoldInvoiceRequest {
    HoldInvoiceRequest {
        hash: secret(n).hash(),
        amount: Msat(60_000_000),
        memo: "ATM left".into(),
        expiry: Duration::from_secs(120),
        cltv_expiry: 80,
        private_route_hints: false,
    }
}

/// Adds invoice `n`.
pub async fn create(fake: &Fake, n: u8) -> PaymentHash {
    node(fake).add_hold_invoice(&request(n)).await.expect("added");
    secret(n).hash()
}

async fn held(fake: &Fake, n: u8) -> PaymentHash {
    let hash = create(fake, n).await;
    fake.world().ledger.set(hash, HoldState::Accepted);
    fake.take_asked();
    hash
}

#[tokio::test(start_paused = true)]
async fn an_invoice_is_added_once_whatever_is_lost() {
    let (fake, node) = start();
    fake.faults([Fault::LoseReply, Fault::LoseReply, Fault::Twice]);
    let text = node.add_hold_invoice(&request(1)).await.expect("added");
    assert_eq!(node.add_hold_invoice(&request(1)).await.expect("again"), text);
    let seen = node.lookup(&secret(1).hash()).await.expect("asked").expect("known");
    assert_eq!((seen.payment_request, seen.state), (text, InvoiceState::Open));
    assert_eq!(fake.world().ledger.entries.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_another_invoice_reaches_no_customer() {
    let (fake, node) = start();
    let (hash, now, day) = (secret(1).hash(), fake.clock.now(), Duration::from_secs(86_400));
    let long_ago = crate::time::UnixMs(now.0 - 1_000_000);
    for (text, says) in [
        (bolt11(PaymentHash([7; 32]), 60_000_000, now, day, 80), "asked for"),
        (
            bolt11(hash, 60_001_000, now, day, 80),
            "it is over 60001 sat, not 60000 sat",
        ),
        (
            bolt11(hash, 60_000_000, long_ago, Duration::from_secs(60), 80),
            "expired",
        ),
        (bolt11(hash, 60_000_000, now, day, 40), "final CLTV delta is 40, not 80"),
        ("lnbc1nonsense".to_owned(), "no BOLT11"),
    ] {
        fake.world().ledger.text = Some(text);
        let error = node.add_hold_invoice(&request(1)).await.expect_err("does not fit");
        assert_eq!(error.kind, LnErrorKind::Invalid);
        assert!(error.message.contains(says), "{error}");
    }
    fake.world().ledger.text = Some(bolt11(hash, 1_000, now, day, 80));
    let error = node.lookup(&hash).await.expect_err("another amount");
    assert_eq!(error.kind, LnErrorKind::Other, "{error}");
}

#[tokio::test(start_paused = true)]
async fn a_refused_quote_ends_and_one_that_may_come_later_does_not() {
    let (fake, node) = start();
    let mut odd = request(1);
    odd.amount = Msat(60_000_001);
    assert_eq!(
        node.add_hold_invoice(&odd).await.expect_err("msat").kind,
        LnErrorKind::Invalid
    );
    assert!(fake.take_asked().is_empty());
    for (code, kind) in [
        (Code::OverLimit, LnErrorKind::Invalid),
        (Code::BadRequest, LnErrorKind::Invalid),
        (Code::Other, LnErrorKind::Invalid),
        (Code::NotAllowed, LnErrorKind::Denied),
        (Code::AlreadyExists, LnErrorKind::AlreadyExists),
        (Code::RateLimited, LnErrorKind::NotReady),
        (Code::Unavailable, LnErrorKind::NotReady),
    ] {
        fake.world().ledger.fails = Some(Failure::new(code, "no"));
        let error = node.add_hold_invoice(&request(1)).await.expect_err("refused");
        assert_eq!(error.kind, kind, "{code:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn settled_means_settled() {
    let (fake, node) = start();
    let hash = held(&fake, 1).await;
    fake.world().ledger.quick = false;
    let settling = tokio::spawn(async move { node.settle(&secret(1)).await });
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(!settling.is_finished(), "ordered, not done");
    assert_eq!(fake.world().ledger.entries[&hash].ordered, Some(HoldState::Settled));
    fake.world().ledger.work();
    settling.await.unwrap().expect("settled");
    assert_eq!(fake.take_asked()[0], Method::SettleHoldInvoice);
}

#[tokio::test(start_paused = true)]
async fn an_order_that_takes_long_is_given_again() {
    let (fake, node) = start();
    let hash = held(&fake, 1).await;
    fake.world().ledger.quick = false;
    for _ in 0..2 {
        let error = node.settle(&secret(1)).await.expect_err("not done");
        assert_eq!(error.kind, LnErrorKind::NotReady, "{error}");
    }
    let error = node.cancel(&hash).await.expect_err("it will be settled");
    assert_eq!(error.kind, LnErrorKind::AlreadySettled);
    fake.world().ledger.work();
    fake.faults([Fault::LoseReply, Fault::LoseRequest, Fault::Twice]);
    node.settle(&secret(1)).await.expect("settled");
    node.settle(&secret(1)).await.expect("settled before");
}

#[tokio::test(start_paused = true)]
async fn a_settle_that_comes_too_late_says_so() {
    let (fake, node) = start();
    let hash = held(&fake, 1).await;
    fake.faults([Fault::LoseReply]);
    node.cancel(&hash).await.expect("canceled");
    node.cancel(&hash).await.expect("canceled before");
    let error = node.settle(&secret(1)).await.expect_err("canceled");
    assert_eq!(error.kind, LnErrorKind::AlreadyCanceled);
    for (n, unknown) in [(2, LnErrorKind::NotFound), (3, LnErrorKind::NotFound)] {
        assert_eq!(node.settle(&secret(n)).await.expect_err("unknown").kind, unknown);
        assert_eq!(node.cancel(&secret(n).hash()).await.expect_err("unknown").kind, unknown);
        assert_eq!(node.lookup(&secret(n).hash()).await.expect("asked"), None);
    }
    let open = create(&fake, 4).await;
    let error = node.settle(&secret(4)).await.expect_err("not paid");
    assert_eq!(error.kind, LnErrorKind::StillOpen);
    node.cancel(&open).await.expect("canceled unpaid");
}

#[tokio::test(start_paused = true)]
async fn an_order_without_an_answer_is_neither_done_nor_undone() {
    let (fake, node) = start();
    let hash = held(&fake, 1).await;
    fake.faults(vec![Fault::LoseReply; 4]);
    assert_eq!(
        node.settle(&secret(1)).await.expect_err("silent").kind,
        LnErrorKind::Timeout
    );
    fake.world().ledger.fails = Some(Failure::new(Code::Unavailable, "the journal is slow"));
    assert_eq!(
        node.settle(&secret(1)).await.expect_err("not now").kind,
        LnErrorKind::NotReady
    );
    let seen = node.lookup(&hash).await.expect_err("not now");
    assert_eq!(seen.kind, LnErrorKind::NotReady, "not \"not found\"");
}

#[tokio::test(start_paused = true)]
async fn a_commitment_is_the_services_own() {
    let (fake, node) = start();
    let hash = held(&fake, 1).await;
    fake.faults([Fault::LoseReply]);
    let commitment = node.commit(&hash).await.expect("committed");
    let seen = commitment.held.expect("held");
    assert_eq!(
        (seen.state, seen.paid, commitment.height),
        (InvoiceState::Accepted, Msat(60_000_000), HEIGHT)
    );
    assert_eq!(seen.lowest_expiry_height, Some(EXPIRY_HEIGHT));
    assert!(fake.world().ledger.entries[&hash].commit_deadline_unix.is_some());
    let kept_until = commitment.kept_until.expect("a deadline");
    let left = kept_until.since(fake.clock.now());
    assert!((3_585..=3_600).contains(&left.as_secs()), "{left:?}");
    // By this machine's clock, whatever the service's says.
    fake.service_ahead_ms.store(40_000, Ordering::SeqCst);
    let again = node
        .commit(&hash)
        .await
        .expect("committed")
        .kept_until
        .expect("a deadline");
    assert_eq!(kept_until.since(again).as_secs(), 40);
    fake.service_ahead_ms.store(0, Ordering::SeqCst);
    // Its deadline does not move: asked too late, it does not last for a dispense.
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(node.commit(&hash).await.expect("answered").held, None);
}

#[tokio::test(start_paused = true)]
async fn what_can_not_be_committed_is_refunded_and_never_dispensed() {
    let (fake, node) = start();
    let open = create(&fake, 1).await;
    assert_eq!(node.commit(&open).await.expect("answered").held, None);
    let hash = held(&fake, 2).await;
    fake.world().ledger.set(hash, HoldState::Settled);
    assert_eq!(node.commit(&hash).await.expect("answered").held, None);
    fake.world().ledger.set(hash, HoldState::Canceled);
    assert_eq!(node.commit(&hash).await.expect("answered").held, None);
    assert_eq!(node.commit(&PaymentHash([1; 32])).await.expect("answered").held, None);
    for (code, is_final) in [(Code::TooLate, true), (Code::Unavailable, false), (Code::Other, false)] {
        fake.world().ledger.fails = Some(Failure::new(code, "no"));
        let answer = node.commit(&hash).await;
        assert_eq!(
            answer.is_ok_and(|commitment| commitment.held.is_none()),
            is_final,
            "{code:?}"
        );
    }
    fake.faults(vec![Fault::LoseReply; 4]);
    assert_eq!(node.commit(&hash).await.expect_err("silent").kind, LnErrorKind::Timeout);
}

#[tokio::test(start_paused = true)]
async fn the_service_names_its_node() {
    let (fake, node) = start();
    assert_eq!(node.state().await.expect("state"), NodeState::ServerActive);
    let info = node.info().await.expect("info");
    assert_eq!(
        (info.pubkey, info.no_new, info.block_height),
        ("02".repeat(33), None, HEIGHT)
    );
    fake.world().ledger.info.node_pubkey = "03".repeat(33);
    assert_eq!(
        node.info().await.expect("info").pubkey,
        "03".repeat(33),
        "asked anew each time"
    );
    fake.world().ledger.info.node_pubkey = String::new();
    fake.world().ledger.info.trouble = Some("LND was not reached yet".into());
    let error = node.info().await.expect_err("nameless");
    assert_eq!(error.kind, LnErrorKind::NotReady);
    assert!(error.message.contains("LND was not reached yet"), "{error}");
    fake.world().ledger.fails = Some(Failure::new(Code::NotAllowed, "your key is not known here"));
    assert_eq!(node.info().await.expect_err("revoked").kind, LnErrorKind::Denied);
}

#[tokio::test(start_paused = true)]
async fn what_does_not_fit_stops_new_invoices_and_nothing_else() {
    let says = async |change: fn(&mut crate::nostr::method::ServiceInfo)| {
        let (fake, node) = start();
        change(&mut fake.world().ledger.info);
        node.info().await.expect("an answer").no_new.expect("a reason")
    };
    let why = says(|info| info.hold_expiry_delta = 12).await;
    assert!(why.contains("hold_expiry_delta is 18 here and 12"), "{why}");
    let why = says(|info| info.min_blocks_left = 13).await;
    assert!(why.contains("min_blocks_left is 12 here and 13"), "{why}");
    let why = says(|info| info.force_blocks_left = Some(6)).await;
    assert!(
        why.contains("force_blocks_left is 6 here") && why.contains("fewer than 6"),
        "{why}"
    );
    let why = says(|info| info.commit_deadline_seconds = 3_120).await;
    assert!(why.contains("3000 s here") && why.contains("3120 s"), "{why}");
    let why = says(|info| info.hold_deadline_seconds = 599).await;
    assert!(why.contains("600 s here") && why.contains("599 s"), "{why}");
    let why = says(|info| info.node_up = false).await;
    assert!(why.contains("does not say why"), "{why}");
    let why = says(|info| (info.can_create, info.trouble) = (false, Some("LND is still starting".into()))).await;
    assert!(why.ends_with("LND is still starting"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn a_wrong_clock_is_told() {
    let (fake, node) = start();
    fake.service_ahead_ms.store(46_000, Ordering::SeqCst);
    let why = node.info().await.expect("info").no_new.expect("a reason");
    assert!(why.contains("46 s behind"), "{why}");
    fake.service_ahead_ms.store(-30_000, Ordering::SeqCst);
    assert_eq!(node.info().await.expect("info").no_new, None, "only told");
}

#[tokio::test(start_paused = true)]
async fn whether_settled_money_is_there_is_the_services_word_and_an_older_one_has_none() {
    let (fake, node) = start();
    assert!(!node.info().await.expect("info").stores_resolutions, "an older service");
    fake.world().ledger.info.follows_funds = Some(true);
    assert!(node.info().await.expect("info").stores_resolutions);
    let hash = held(&fake, 1).await;
    let early = node.funds(&hash).await.expect_err("it is not settled");
    assert_eq!(early.kind, LnErrorKind::Other, "{early}");
    node.settle(&secret(1)).await.expect("settled");
    assert!(
        matches!(node.funds(&hash).await, Ok(FundsSeen::NotFollowed(_))),
        "left out"
    );
    for (told, seen) in [
        (Funds::Pending, FundsSeen::Pending(Vec::new())),
        (Funds::Final, FundsSeen::Final),
        (Funds::Lost, FundsSeen::Lost),
    ] {
        fake.world().ledger.funds = Some(told);
        assert_eq!(node.funds(&hash).await.expect("told"), seen);
    }
    fake.world().ledger.funds = Some(Funds::NotFollowed);
    assert!(matches!(node.funds(&hash).await, Ok(FundsSeen::NotFollowed(_))));
    let unknown = node.funds(&secret(9).hash()).await.expect_err("never made");
    assert_eq!(unknown.kind, LnErrorKind::NotFound);
}

#[tokio::test(start_paused = true)]
async fn questions_for_settled_money_leave_the_services_limit_to_customers() {
    let (fake, node) = start();
    let hash = held(&fake, 1).await;
    node.settle(&secret(1)).await.expect("settled");
    fake.world().ledger.funds = Some(Funds::Pending);
    let (begun, questions) = (tokio::time::Instant::now(), 100_u32);
    let asked = (0..questions).map(|_| node.funds(&hash));
    for seen in futures_util::future::join_all(asked).await {
        assert_eq!(seen.expect("told"), FundsSeen::Pending(Vec::new()));
    }
    let least = NodeTimings::default().funds * (questions - 1);
    assert!(begun.elapsed() >= least, "{:?}", begun.elapsed());
}
