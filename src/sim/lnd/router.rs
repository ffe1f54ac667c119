//! The simulated LND's `routerrpc.Router`: what happens to HTLCs. Its customers pay by the control interface instead.
//!
//! Called by tonic. Source: lnd v0.21.2-beta, `lnrpc/routerrpc/router_server.go` and `subscribe_events.go`: an event that
//! says that the subscription stands, then what happens from there on. Events of finality come whether resolutions are
//! stored or not.

use async_trait::async_trait;
use tonic::{Request, Response, Status};

use super::convert;
use super::engine::Engine;
use super::front::{Answers, HTLC_EVENTS};
use super::services::Services;
use crate::proto::lnrpc;
use crate::proto::routerrpc::{
    HtlcEvent, SendPaymentRequest, SendToRouteRequest, SubscribeHtlcEventsRequest, TrackPaymentRequest,
    router_server::Router,
};

fn not_simulated<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented(
        "the simulated customers pay by tellersim.Control",
    ))
}

#[async_trait]
impl Router for Services {
    type SubscribeHtlcEventsStream = Answers<HtlcEvent>;
    type SendPaymentV2Stream = Answers<lnrpc::Payment>;
    type TrackPaymentV2Stream = Answers<lnrpc::Payment>;

    async fn subscribe_htlc_events(
        &self,
        request: Request<SubscribeHtlcEventsRequest>,
    ) -> Result<Response<Self::SubscribeHtlcEventsStream>, Status> {
        let subscribe = |engine: &Engine, _| Ok(engine.watch_htlcs()?);
        self.0
            .stream(HTLC_EVENTS, request, subscribe, convert::htlc_event)
            .await
    }

    async fn send_payment_v2(
        &self,
        _: Request<SendPaymentRequest>,
    ) -> Result<Response<Self::SendPaymentV2Stream>, Status> {
        not_simulated()
    }

    async fn track_payment_v2(
        &self,
        _: Request<TrackPaymentRequest>,
    ) -> Result<Response<Self::TrackPaymentV2Stream>, Status> {
        not_simulated()
    }

    async fn send_to_route_v2(&self, _: Request<SendToRouteRequest>) -> Result<Response<lnrpc::HtlcAttempt>, Status> {
        not_simulated()
    }
}
