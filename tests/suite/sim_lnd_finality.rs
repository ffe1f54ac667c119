//! The simulated LND's LookupHtlcResolution and SubscribeHtlcEvents over real TLS: codes, texts, messages and their order.
//!
//! What must stay true: they are as in lnd v0.21.2-beta, `rpcserver.go` and `lnrpc/routerrpc/subscribe_events.go`.
#![allow(clippy::unwrap_used)]

use tellerd::proto::lnrpc::{GetInfoRequest, LookupHtlcResolutionRequest};
use tellerd::proto::routerrpc::htlc_event::{Event, EventType};
use tellerd::proto::routerrpc::router_client::RouterClient;
use tellerd::proto::routerrpc::{FinalHtlcEvent, HtlcEvent, SubscribeHtlcEventsRequest};
use tellerd::sim::lnd::control_client::Macaroon;
use tellerd::sim::lnd::{ADMIN_MACAROON, Fault, Finality, SimLndOptions};
use tonic::{Code, Status, Streaming};

use super::sim_lnd::Rig;

/// Of the invoice's first HTLC.
async fn key(rig: &mut Rig, n: u8) -> LookupHtlcResolutionRequest {
    let invoice = rig.lookup(n).await.unwrap();
    let htlc = &invoice.htlcs[0];
    LookupHtlcResolutionRequest {
        chan_id: htlc.chan_id,
        htlc_index: htlc.htlc_index,
    }
}

async fn resolution(rig: &mut Rig, key: LookupHtlcResolutionRequest) -> Result<(bool, bool), Status> {
    let answer = rig.lightning.lookup_htlc_resolution(key).await?.into_inner();
    Ok((answer.settled, answer.offchain))
}

async fn events(rig: &Rig) -> Streaming<HtlcEvent> {
    let macaroon = Macaroon::read(rig.dir.path(), ADMIN_MACAROON).unwrap();
    let mut router = RouterClient::with_interceptor(rig.channel.clone(), macaroon);
    let stream = router.subscribe_htlc_events(SubscribeHtlcEventsRequest {}).await;
    stream.unwrap().into_inner()
}

async fn next(events: &mut Streaming<HtlcEvent>) -> HtlcEvent {
    events.message().await.unwrap().unwrap()
}

fn is_final(event: &HtlcEvent, key: LookupHtlcResolutionRequest) -> Option<(bool, bool)> {
    let of = (event.incoming_channel_id, event.incoming_htlc_id);
    assert_eq!(of, (key.chan_id, key.htlc_index));
    match event.event {
        Some(Event::FinalHtlcEvent(FinalHtlcEvent { settled, offchain })) => Some((settled, offchain)),
        _ => None,
    }
}

#[tokio::test]
async fn an_htlc_has_no_resolution_until_it_is_at_its_end_and_an_event_then() {
    let mut rig = Rig::new().await;
    let mut events = events(&rig).await;
    assert!(
        matches!(next(&mut events).await.event, Some(Event::SubscribedEvent(_))),
        "first of all"
    );
    rig.held(1).await;
    let of_first = key(&mut rig, 1).await;
    let none = resolution(&mut rig, of_first).await.unwrap_err();
    assert_eq!((none.code(), none.message()), (Code::NotFound, "htlc unknown"));
    rig.handle.inject(Fault::Finality(Finality::Hold)).unwrap();
    rig.settle(1).await.unwrap();
    let none = resolution(&mut rig, of_first).await.unwrap_err();
    assert_eq!(none.code(), Code::NotFound, "SETTLED is LND's database only");
    rig.handle.inject(Fault::Finality(Finality::Release)).unwrap();
    assert_eq!(resolution(&mut rig, of_first).await.unwrap(), (true, true));
    let settled = next(&mut events).await;
    assert!(matches!(settled.event, Some(Event::SettleEvent(_))) && settled.event_type() == EventType::Receive);
    let ended = next(&mut events).await;
    assert_eq!(is_final(&ended, of_first), Some((true, true)));
    assert_eq!(ended.event_type(), EventType::Unknown);
    let elsewhere = LookupHtlcResolutionRequest {
        chan_id: of_first.chan_id + 1,
        ..of_first
    };
    assert_eq!(
        resolution(&mut rig, elsewhere).await.unwrap_err().code(),
        Code::NotFound
    );
}

#[tokio::test]
async fn a_canceled_htlc_and_one_that_timed_out_end_without_the_money() {
    let mut rig = Rig::new().await;
    let mut events = events(&rig).await;
    next(&mut events).await;
    rig.held(1).await;
    let of_first = key(&mut rig, 1).await;
    rig.cancel(1).await.unwrap();
    assert_eq!(resolution(&mut rig, of_first).await.unwrap(), (false, true));
    assert_eq!(is_final(&next(&mut events).await, of_first), Some((false, true)));

    rig.held(2).await;
    let of_second = key(&mut rig, 2).await;
    rig.handle.inject(Fault::Finality(Finality::Hold)).unwrap();
    rig.settle(2).await.unwrap();
    rig.handle.inject(Fault::Finality(Finality::Lose)).unwrap();
    assert_eq!(resolution(&mut rig, of_second).await.unwrap(), (false, false));
    assert_eq!(
        is_final(&next(&mut events).await, of_second),
        Some((false, false)),
        "nothing was handed over"
    );
}

#[tokio::test]
async fn a_node_that_stores_none_says_so_and_tells_of_the_end_all_the_same() {
    let options = SimLndOptions {
        final_resolutions: false,
        ..SimLndOptions::default()
    };
    let mut rig = Rig::open(tempfile::tempdir().unwrap(), &options).await;
    let mut events = events(&rig).await;
    next(&mut events).await;
    let info = rig.lightning.get_info(GetInfoRequest {}).await.unwrap();
    assert!(!info.get_ref().store_final_htlc_resolutions);
    rig.held(1).await;
    let of_first = key(&mut rig, 1).await;
    rig.settle(1).await.unwrap();
    let refused = resolution(&mut rig, of_first).await.unwrap_err();
    let text = "cannot lookup with flag --store-final-htlc-resolutions=false";
    assert_eq!((refused.code(), refused.message()), (Code::Unavailable, text));
    next(&mut events).await;
    assert_eq!(is_final(&next(&mut events).await, of_first), Some((true, true)));
}
