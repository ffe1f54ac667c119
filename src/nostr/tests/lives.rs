//! Whole lives of invoices, repeated as the actors repeat, over a network that does anything.

use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::fake::{Fake, Fault};
use super::node::{node, request, secret};
use crate::lnd::{Lightning, LnError, LnErrorKind};
use crate::nostr::method::HoldState;
use crate::nostr::wire::Version;

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        Just(Fault::None),
        Just(Fault::Refused),
        Just(Fault::LoseRequest),
        Just(Fault::LoseReply),
        Just(Fault::Twice),
        Just(Fault::WrongId),
        Just(Fault::Hang),
        Just(Fault::HangAndLose),
        Just(Fault::Says(
            r#"{"status":"ERROR","code":"unavailable","reason":"later","requestId":"ID"}"#
        )),
        (0_u64..40).prop_map(|seconds| Fault::Slow(Duration::from_secs(seconds))),
    ]
}

/// As the invoice actor does it.
async fn until_done<T>(call: impl AsyncFn() -> Result<T, LnError>) -> Result<T, LnError> {
    loop {
        match call().await {
            Err(error) if matches!(error.kind, LnErrorKind::Timeout | LnErrorKind::NotReady) => {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            done => return done,
        }
    }
}

async fn life(fake: Arc<Fake>, settles: bool) {
    let (node, hash) = (node(&fake), secret(1).hash());
    let state = || fake.world().ledger.entries[&hash].state;
    let text = until_done(async || node.add_hold_invoice(&request(1)).await).await;
    // The network may have been bad for longer than the invoice can be paid.
    let Ok(text) = text else {
        let seen = until_done(async || node.lookup(&hash).await).await.expect("asked");
        assert!(fake.caller().now().as_secs() > 1_800_000_000 + 120 && seen.is_some());
        return;
    };
    assert_eq!(fake.world().ledger.entries[&hash].text, text);
    fake.world().ledger.set(hash, HoldState::Accepted);
    let committed = until_done(async || node.commit(&hash).await).await.expect("answered");
    let recorded = fake.world().ledger.entries[&hash].commit_deadline_unix;
    let Some(until) = recorded.filter(|_| committed.held.is_some()) else {
        assert_eq!(committed.held, None, "no hold without a record of it");
        return;
    };
    assert!(
        until >= fake.caller().now().as_secs() + 3_000,
        "longer than an outcome may be unknown"
    );
    if settles {
        until_done(async || node.settle(&secret(1)).await)
            .await
            .expect("settled");
        assert_eq!(state(), HoldState::Settled);
        let error = until_done(async || node.cancel(&hash).await)
            .await
            .expect_err("settled");
        assert_eq!((error.kind, state()), (LnErrorKind::AlreadySettled, HoldState::Settled));
    } else {
        until_done(async || node.cancel(&hash).await).await.expect("canceled");
        assert_eq!(state(), HoldState::Canceled);
        let error = until_done(async || node.settle(&secret(1)).await)
            .await
            .expect_err("canceled");
        assert_eq!(
            (error.kind, state()),
            (LnErrorKind::AlreadyCanceled, HoldState::Canceled)
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    #[test]
    fn what_the_node_says_is_so(
        faults in proptest::collection::vec(fault(), 0..24),
        settles: bool,
        quick: bool,
        first_version: bool,
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let version = if first_version { Version::V1 } else { Version::V2 };
            let (fake, caller) = Fake::start(version);
            fake.faults(faults);
            fake.world().ledger.quick = quick;
            let worker = Arc::clone(&fake);
            let node_at_work = tokio::spawn(async move {
                loop {
                    tokio::time::sleep(Duration::from_secs(9)).await;
                    worker.world().ledger.work();
                }
            });
            life(fake, settles).await;
            node_at_work.abort();
            assert_eq!(caller.waiting(), 0);
        });
    }
}
