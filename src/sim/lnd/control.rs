//! The control interface `tellersim.Control`: the customer's side, the chain, faults, the ledger.
//!
//! Called by tonic. Needs the admin macaroon; works in every state of the node and is spared by its faults.

use async_trait::async_trait;
use futures_util::{StreamExt, stream};
use std::time::Duration;
use tokio_stream::wrappers::UnboundedReceiverStream;
use tonic::{Request, Response, Status};

use super::connections::ConnectionId;
use super::front::{Answers, Method, Right};
use super::services::Services;
use super::{PayOptions, convert};
use crate::proto::tellersim::{
    AdvanceBlocksRequest, Chain, Fault, FaultAccepted, LedgerEntry, LedgerRequest, PayRequest, Payment, PaymentId,
    SetBlockIntervalRequest, control_server::Control,
};

const CONTROL: Method = Method {
    name: "Control",
    right: Right::Control,
};

#[async_trait]
impl Control for Services {
    type FollowPaymentStream = Answers<Payment>;
    type LedgerStream = Answers<LedgerEntry>;

    async fn pay(&self, request: Request<PayRequest>) -> Result<Response<Payment>, Status> {
        self.0.admit(CONTROL, request.metadata())?;
        let query = request.into_inner();
        let options = PayOptions {
            amount_msat: (query.amount_msat > 0).then_some(query.amount_msat),
            parts: query.parts,
            missing_parts: query.missing_parts,
            final_cltv_delta: (query.final_cltv_delta > 0).then_some(query.final_cltv_delta),
            after: Duration::from_millis(query.after_ms),
        };
        let id = self.0.pay(&query.payment_request, &options)?;
        let payment = if query.wait {
            self.0.ended_payment(id).await?
        } else {
            self.0.payment(id)?
        };
        Ok(Response::new(convert::payment(&payment)))
    }

    async fn get_payment(&self, request: Request<PaymentId>) -> Result<Response<Payment>, Status> {
        self.0.admit(CONTROL, request.metadata())?;
        let payment = self.0.payment(request.into_inner().id)?;
        Ok(Response::new(convert::payment(&payment)))
    }

    async fn follow_payment(&self, request: Request<PaymentId>) -> Result<Response<Self::FollowPaymentStream>, Status> {
        self.0.admit(CONTROL, request.metadata())?;
        let updates = UnboundedReceiverStream::new(self.0.watch_payment(request.into_inner().id)?);
        Ok(Response::new(
            updates
                .map(|update| update.map(|payment| convert::payment(&payment)))
                .boxed(),
        ))
    }

    async fn advance_blocks(&self, request: Request<AdvanceBlocksRequest>) -> Result<Response<Chain>, Status> {
        self.0.admit(CONTROL, request.metadata())?;
        let height = self.0.mine(request.into_inner().blocks)?;
        Ok(Response::new(Chain { height }))
    }

    async fn set_block_interval(&self, request: Request<SetBlockIntervalRequest>) -> Result<Response<Chain>, Status> {
        self.0.admit(CONTROL, request.metadata())?;
        self.0.block_interval_ms.send_replace(request.into_inner().interval_ms);
        let height = self.0.mine(0)?;
        Ok(Response::new(Chain { height }))
    }

    async fn inject_fault(&self, request: Request<Fault>) -> Result<Response<FaultAccepted>, Status> {
        self.0.admit(CONTROL, request.metadata())?;
        let connection = request.extensions().get::<ConnectionId>().copied();
        self.0.inject(convert::fault(request.into_inner())?, connection)?;
        Ok(Response::new(FaultAccepted {}))
    }

    async fn ledger(&self, request: Request<LedgerRequest>) -> Result<Response<Self::LedgerStream>, Status> {
        self.0.admit(CONTROL, request.metadata())?;
        let entries = convert::ledger(&self.0.ledger()?);
        Ok(Response::new(stream::iter(entries.into_iter().map(Ok)).boxed()))
    }
}
