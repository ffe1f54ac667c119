//! Following invoices and heights: by looking, sooner with pushes.

use std::time::Duration;

use futures_util::{FutureExt, StreamExt};
use tokio::time::{Instant, sleep};

use super::fake::{Fake, Fault};
use super::node::{create, start};
use crate::ids::PaymentHash;
use crate::lnd::{InvoiceState, Lightning, LnErrorKind};
use crate::nostr::method::{HoldState, Method};
use crate::nostr::wire::{Code, Failure};

fn times(fake: &Fake, method: Method) -> usize {
    fake.world().asked.iter().filter(|asked| **asked == method).count()
}

#[tokio::test(start_paused = true)]
async fn a_change_without_a_push_is_found() {
    let (fake, node) = start();
    let hash = create(&fake, 1).await;
    let mut watch = node.watch(&hash).await.expect("watch");
    let state = watch.next().await.expect("now").expect("open").state;
    assert_eq!(state, InvoiceState::Open);
    for (state, seen) in [
        (HoldState::Accepted, InvoiceState::Accepted),
        (HoldState::Settled, InvoiceState::Settled),
    ] {
        fake.world().ledger.set(hash, state);
        assert_eq!(watch.next().await.expect("goes on").expect("change").state, seen);
    }
}

#[tokio::test(start_paused = true)]
async fn a_push_makes_the_look_come_sooner_and_is_no_news_itself() {
    let (fake, node) = start();
    let hash = create(&fake, 1).await;
    let mut watch = node.watch(&hash).await.expect("watch");
    watch.next().await.expect("now").expect("open");
    let begun = Instant::now();
    assert!(watch.next().now_or_never().is_none());
    // Of another invoice, and of this one without a change.
    let other = create(&fake, 2).await;
    for pushed in [other, hash] {
        fake.caller().incoming(fake.push(pushed)).expect("taken");
    }
    tokio::select! {
        seen = watch.next() => panic!("nothing has changed: {seen:?}"),
        () = sleep(Duration::from_secs(1)) => {}
    }
    fake.world().ledger.set(hash, HoldState::Accepted);
    fake.caller().incoming(fake.push(hash)).expect("taken");
    let seen = watch.next().await.expect("goes on").expect("change");
    assert_eq!(seen.state, InvoiceState::Accepted);
    assert!(begun.elapsed() < Duration::from_secs(2), "before the next look was due");
}

#[tokio::test(start_paused = true)]
async fn looks_at_an_open_invoice_get_rarer() {
    let (fake, node) = start();
    let hash = create(&fake, 1).await;
    let mut watch = node.watch(&hash).await.expect("watch");
    watch.next().await.expect("now").expect("open");
    fake.take_asked();
    assert!(
        tokio::time::timeout(Duration::from_secs(60), watch.next())
            .await
            .is_err()
    );
    // At 2, 6, 14 and every 10 s from there on.
    assert_eq!(times(&fake, Method::GetHoldInvoice), 7);
}

#[tokio::test(start_paused = true)]
async fn all_watches_share_one_subscription_that_is_renewed() {
    let (fake, node) = start();
    let hashes = [create(&fake, 1).await, create(&fake, 2).await];
    let _blocks = node.blocks().await.expect("a connection");
    let mut both = futures_util::stream::select_all([
        node.watch(&hashes[0]).await.expect("watch"),
        node.watch(&hashes[1]).await.expect("watch"),
    ]);
    let mut follow = async |seconds| {
        let end = Instant::now() + Duration::from_secs(seconds);
        while let Ok(seen) = tokio::time::timeout_at(end, both.next()).await {
            seen.expect("goes on").expect("open");
        }
        std::mem::take(&mut fake.world().asked)
            .iter()
            .filter(|asked| **asked == Method::SubscribeHoldInvoices)
            .count()
    };
    assert_eq!(follow(290).await, 1);
    assert_eq!(follow(290).await, 1, "renewed after five minutes");
    let _blocks = node.blocks().await.expect("another connection");
    assert_eq!(follow(20).await, 1, "the service may have forgotten");
}

#[tokio::test(start_paused = true)]
async fn a_watch_ends_with_an_error_and_never_with_an_answer() {
    let (fake, node) = start();
    let mut unknown = node.watch(&PaymentHash([7; 32])).await.expect("watch");
    let error = unknown.next().await.expect("an error").expect_err("unknown");
    assert_eq!(error.kind, LnErrorKind::NotFound);
    assert!(unknown.next().await.is_none());
    let hash = create(&fake, 1).await;
    let mut watch = node.watch(&hash).await.expect("watch");
    watch.next().await.expect("now").expect("open");
    fake.faults(vec![Fault::LoseReply; 10]);
    let error = watch.next().await.expect("an error").expect_err("silent");
    assert_eq!(error.kind, LnErrorKind::Timeout);
    assert!(watch.next().await.is_none());
}

#[tokio::test(start_paused = true)]
async fn heights_come_at_a_pace_and_end_after_a_minute_of_silence() {
    let (fake, node) = start();
    let mut heights = node.blocks().await.expect("blocks");
    let begun = Instant::now();
    assert_eq!(heights.next().await.expect("now").expect("height"), 800_000);
    fake.world().ledger.info.block_height = 800_001;
    assert_eq!(heights.next().await.expect("later").expect("height"), 800_001);
    assert_eq!(begun.elapsed().as_secs(), 20);
    fake.faults([Fault::LoseReply, Fault::LoseReply]);
    heights.next().await.expect("in spite of losses").expect("height");
    let answered = Instant::now();
    fake.world().ledger.fails = Some(Failure::new(Code::Unavailable, "no"));
    heights.next().await.expect("an error").expect_err("silent");
    assert_eq!(answered.elapsed().as_secs(), 60);
    assert!(heights.next().await.is_none());
}
