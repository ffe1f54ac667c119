//! Requests and replies on a bad network.

use std::sync::atomic::Ordering;
use std::time::Duration;

use ::nostr::{EventId, Keys};
use proptest::prelude::*;

use super::fake::{Fake, Fault};
use crate::ids::PaymentHash;
use crate::nostr::caller::{CallError, CallerTimings};
use crate::nostr::method::{Call, HoldState, ServiceInfo};
use crate::nostr::wire::{Code, DropReason, Endpoint, Limits, Role, Version};

const BOTH: [Version; 2] = [Version::V1, Version::V2];
const ASK: Call = Call::GetServiceInfo;

#[tokio::test(start_paused = true)]
async fn lost_requests_and_replies_are_asked_for_again_with_new_events() {
    for version in BOTH {
        let (fake, caller) = Fake::start(version);
        fake.faults([Fault::LoseReply, Fault::LoseRequest, Fault::Refused]);
        let info = caller.ask(&ASK, ServiceInfo::read).await.expect("answered at last");
        assert_eq!(info.name, "town");
        let world = fake.world();
        let ids: Vec<EventId> = world.requests.iter().map(|event| event.id).collect();
        assert!(ids.len() == 2 && ids[0] != ids[1]);
        assert!(world.requests[0].created_at < world.requests[1].created_at);
        assert_eq!(caller.waiting(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_service_ends_the_call_and_leaves_nothing() {
    let (fake, caller) = Fake::start(Version::V2);
    fake.faults(vec![Fault::LoseReply; 10]);
    let error = caller.call(&ASK).await.expect_err("silent");
    assert_eq!(
        error.to_string(),
        "no answer within 16 s; is the service running, and is the clock of this machine right?"
    );
    assert_eq!((caller.waiting(), fake.world().requests.len()), (0, 4));
    fake.world().faults.clear();
    fake.faults(vec![Fault::Refused; 10]);
    let error = caller.call(&ASK).await.expect_err("no relay");
    assert_eq!(
        error.to_string(),
        "no answer within 16 s; the relays take no request: no relay is connected"
    );
}

#[tokio::test(start_paused = true)]
async fn a_relay_that_never_says_ok_holds_nothing_up() {
    let (fake, caller) = Fake::start(Version::V2);
    fake.faults([Fault::HangAndLose, Fault::Hang]);
    caller.call(&ASK).await.expect("answered the second time");
    assert_eq!(caller.waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_call_leaves_nothing() {
    let (fake, caller) = Fake::start(Version::V2);
    fake.faults([Fault::Keep]);
    let call = tokio::time::timeout(Duration::from_secs(1), caller.call(&ASK));
    assert!(call.await.is_err());
    assert_eq!(caller.waiting(), 0);
    let late = fake.world().kept.remove(0);
    assert_eq!(caller.incoming(late), Ok(()), "nobody waits for it");
}

#[tokio::test(start_paused = true)]
async fn replies_find_their_calls_in_any_order_and_number() {
    let (fake, caller) = Fake::start(Version::V1);
    let slow = |seconds| Fault::Slow(Duration::from_secs(seconds));
    fake.faults([slow(4), slow(2), Fault::Twice, Fault::WrongId, Fault::None]);
    let get = |n: u8| Call::GetHoldInvoice(PaymentHash([n; 32]));
    let (one, two, info) = (get(1), get(2), ASK);
    let (one, two, info) = tokio::join!(caller.call(&one), caller.call(&two), caller.call(&info));
    for failed in [one, two] {
        assert!(matches!(failed, Err(CallError::Failed(failure)) if failure.code == Code::NotFound));
    }
    assert_eq!(info.expect("info").get("name"), Some(&"town".into()));
    caller.call(&ASK).await.expect("the second time with the right id");
    assert_eq!(caller.waiting(), 0);
}

#[tokio::test(start_paused = true)]
async fn the_answer_to_an_earlier_event_of_a_call_counts() {
    let (fake, caller) = Fake::start(Version::V2);
    fake.faults([Fault::Slow(Duration::from_secs(7)), Fault::LoseReply]);
    caller.call(&ASK).await.expect("the first one, late");
    assert_eq!(fake.world().requests.len(), 2);
    assert_eq!(caller.skew_seconds(), Some(0), "made between question and arrival");
}

#[tokio::test(start_paused = true)]
async fn strangers_and_forged_events_answer_nothing() {
    for version in BOTH {
        let (fake, caller) = Fake::start(version);
        fake.faults([Fault::Keep]);
        let asking = {
            let caller = caller.clone();
            tokio::spawn(async move { caller.call(&ASK).await })
        };
        tokio::task::yield_now().await;
        let true_one = fake.world().kept.remove(0);
        let me = true_one.tags.public_keys().next().copied().expect("p");
        let mut stranger = Endpoint::new(Keys::generate(), Role::Service, Limits::default());
        let text = r#"{"status":"OK","requestId":"subscribeHoldInvoices"}"#;
        let foreign = stranger.seal(me, version, text, caller.now()).unwrap().remove(0);
        assert_eq!(caller.incoming(foreign), Err(DropReason::WrongSender));
        // The same id over another content: what a pool of relays that remembers ids lets through.
        let mut forged = true_one.clone();
        forged.content = fake.seal(r#"{"status":"ERROR","reason":"no"}"#).remove(0).content;
        assert_eq!(caller.incoming(forged), Err(DropReason::BadSignature));
        assert!(!asking.is_finished());
        assert_eq!(caller.incoming(true_one.clone()), Ok(()));
        asking.await.unwrap().expect("answered");
        assert_eq!(caller.incoming(true_one), Err(DropReason::Replay));
        let no_id = fake.seal(r#"{"status":"OK"}"#).remove(0);
        assert_eq!(caller.incoming(no_id), Err(DropReason::Unexpected));
    }
}

#[tokio::test(start_paused = true)]
async fn long_answers_come_in_pieces() {
    for version in BOTH {
        let tight = Limits {
            event_bytes: 1_500,
            ..Limits::default()
        };
        let (fake, caller) = Fake::start_with(version, tight, CallerTimings::default());
        fake.world().ledger.info.name = "\"ü\u{1F680}".repeat(400);
        fake.faults([Fault::Twice, Fault::None]);
        for _ in 0..2 {
            let info = caller.ask(&ASK, ServiceInfo::read).await.expect("put together");
            assert_eq!(info.name.chars().count(), 1200);
        }
        assert_eq!(fake.world().requests.len(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn errors_come_with_and_without_a_code() {
    let (fake, caller) = Fake::start(Version::V2);
    for (text, says) in [
        (
            r#"{"status":"ERROR","reason":"later","code":"unavailable","requestId":"ID"}"#,
            "later (unavailable)",
        ),
        (
            r#"{"status":"ERROR","reason":"no","code":"brand_new","requestId":"ID"}"#,
            "no (other)",
        ),
        (r#"{"status":"ERROR","reason":"no","requestId":"ID"}"#, "no (other)"),
        (r#"{"status":"ERROR","requestId":"ID"}"#, "no reason given (other)"),
    ] {
        fake.faults([Fault::Says(text)]);
        assert_eq!(caller.call(&ASK).await.expect_err("refused").to_string(), says);
    }
    fake.faults([Fault::Says(r#"{"status":"OK","requestId":"ID"}"#)]);
    let error = caller.ask(&ASK, ServiceInfo::read).await.expect_err("empty");
    assert!(matches!(error, CallError::Bad(_)), "{error}");
    fake.faults([Fault::Says(r#"{"status":"MAYBE","requestId":"ID"}"#)]);
    caller.call(&ASK).await.expect("asked again");
}

#[tokio::test(start_paused = true)]
async fn pushes_name_an_invoice_and_are_believed_in_nothing_else() {
    let (fake, caller) = Fake::start(Version::V1);
    let hash = super::node::create(&fake, 1).await;
    fake.world().ledger.set(hash, HoldState::Accepted);
    let mut pushes = caller.pushes();
    let push = fake.push(hash);
    assert_eq!(caller.incoming(push.clone()), Ok(()));
    assert_eq!(pushes.try_recv(), Ok(hash));
    assert_eq!(caller.incoming(push), Err(DropReason::Replay));
    let odd = r#"{"status":"OK","state":"SETTLED","requestId":"subscribeHoldInvoices"}"#;
    assert_eq!(caller.incoming(fake.seal(odd).remove(0)), Err(DropReason::Unexpected));
    assert!(pushes.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn a_service_with_another_clock_is_heard_and_its_skew_told() {
    let (fake, caller) = Fake::start(Version::V2);
    assert_eq!(caller.skew_seconds(), None);
    for ahead in [0, 70, -300, -80_000] {
        fake.service_ahead_ms.store(ahead * 1000, Ordering::SeqCst);
        // The service is as strict as the page says; a request from the future is taken up to 15 minutes.
        let answered = caller.call(&ASK).await;
        if ahead == -80_000 {
            assert!(matches!(answered, Err(CallError::NoAnswer { .. })));
        } else {
            answered.expect("heard");
            assert_eq!(caller.skew_seconds(), Some(ahead));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    /// Whatever is lost, as long as one request and its reply get through the call ends well.
    #[test]
    fn any_losses_but_the_last(lost in proptest::collection::vec(0_u8..4, 0..3)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(async {
            let (fake, caller) = Fake::start(Version::V2);
            let fault = |kind: &u8| match kind {
                0 => Fault::LoseRequest,
                1 => Fault::LoseReply,
                2 => Fault::Refused,
                _ => Fault::WrongId,
            };
            fake.faults(lost.iter().map(fault).chain([Fault::Twice]));
            caller.call(&ASK).await.expect("answered");
            assert_eq!(caller.waiting(), 0);
        });
    }
}
