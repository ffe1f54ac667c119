//! [`LndClient`]: the [`Lightning`] trait over LND's gRPC.
//!
//! Shared by `Arc`; called by the LND actor. What must stay true: every call ends within its deadline, no call
//! is repeated here (repeating is the actors' decision), and a failed call says what it means by its kind.
//! Connections live in the tokio runtime that first needed them, so the client must not outlive it in use.
//! Source: fact sheet sections 2 and 3.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::StreamExt;
use futures_util::future::try_join;
use futures_util::stream::unfold;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use tonic::transport::Channel;
use tonic::{Request, Response, Status, Streaming};

use super::classify::classify;
use super::endpoint::{EndpointError, LndConfig, LndEndpoint};
use super::link::{Link, Session};
use super::tls::flatten;
use super::{
    Commitment, FundsSeen, HoldInvoiceRequest, HtlcKey, InvoiceSnapshot, Lightning, LnError, LnErrorKind, NodeInfo,
    NodeState, Updates, convert, funds, request, version,
};
use crate::ids::{PaymentHash, Preimage};
use crate::proto::chainrpc::BlockEpoch;
use crate::proto::chainrpc::chain_notifier_client::ChainNotifierClient;
use crate::proto::invoicesrpc::invoices_client::InvoicesClient;
use crate::proto::invoicesrpc::{CancelInvoiceMsg, SettleInvoiceMsg, SubscribeSingleInvoiceRequest};
use crate::proto::lnrpc::lightning_client::LightningClient;
use crate::proto::lnrpc::state_client::StateClient;
use crate::proto::lnrpc::{GetDebugInfoRequest, GetInfoRequest, GetStateRequest};

/// How often LND is asked how it fares: it is near.
const PACE: Duration = Duration::from_secs(5);

/// A burst of thousands of stream opens makes an HTTP/2 server close the connection.
const OPENS_IN_FLIGHT: usize = 100;

/// How a call travels.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// The State service, which takes no macaroon.
    Open,
    Unary,
    /// As [`Lane::Unary`], for what is not necessary: a macaroon that does not allow it is as good as before.
    Optional,
    Stream,
}

/// LND over gRPC.
pub struct LndClient {
    pub(super) link: Link,
    address: String,
    pub(super) deadline: Duration,
    opens: Semaphore,
}

impl LndClient {
    /// A client for `config`. Neither connects nor reads a file: what is wrong there shows at the calls,
    /// for as long as it is wrong.
    ///
    /// # Errors
    /// An address or URI that can not be right.
    pub fn new(config: &LndConfig) -> Result<Self, EndpointError> {
        let endpoint = LndEndpoint::parse(&config.location)?;
        Ok(Self {
            address: endpoint.address.clone(),
            link: Link::new(endpoint, config.deadline, config.reconnect),
            deadline: config.deadline,
            opens: Semaphore::new(OPENS_IN_FLIGHT),
        })
    }

    /// LND's `host:port`, for logs.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }

    /// One call, connecting included, within the deadline.
    pub(super) async fn call<M, T, F>(
        &self,
        call: &'static str,
        lane: Lane,
        message: M,
        send: impl FnOnce(Channel, Request<M>) -> F,
    ) -> Result<T, LnError>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let until = Instant::now() + self.deadline;
        let unreachable = |message| LnError {
            call,
            kind: LnErrorKind::Unreachable,
            message,
        };
        let session = self.link.session(until).await.map_err(unreachable)?;
        let mut request = Request::new(message);
        let channel = match lane {
            Lane::Stream => session.streams.clone(),
            Lane::Open | Lane::Unary | Lane::Optional => session.unary.clone(),
        };
        if lane != Lane::Open {
            let macaroon = session.macaroon.clone().map_err(|message| LnError {
                call,
                kind: LnErrorKind::Denied,
                message,
            })?;
            request.metadata_mut().insert("macaroon", macaroon);
        }
        match timeout_at(until, send(channel, request)).await {
            Ok(Ok(response)) => {
                self.link.answered(&session);
                Ok(response.into_inner())
            }
            Ok(Err(status)) => Err(self.refused(call, lane, &session, &status)),
            Err(_) => {
                self.link.timed_out(&session);
                Err(LnError {
                    call,
                    kind: LnErrorKind::Timeout,
                    message: format!("no answer from LND within {} ms", self.deadline.as_millis()),
                })
            }
        }
    }

    /// The error of `status`, and what it tells about the link.
    fn refused(&self, call: &'static str, lane: Lane, session: &Arc<Session>, status: &Status) -> LnError {
        let mut error = from_status(call, status);
        match error.kind {
            LnErrorKind::Unreachable => self.link.lost(session, &error.message),
            LnErrorKind::Denied if lane != Lane::Optional => {
                error.message = format!("LND does not let this macaroon do it: {}", error.message);
                self.link.denied(session);
            }
            _ => self.link.answered(session),
        }
        error
    }

    async fn get_info(&self) -> Result<NodeInfo, LnError> {
        let send = |channel, request| async move { LightningClient::new(channel).get_info(request).await };
        let answer = self.call("GetInfo", Lane::Unary, GetInfoRequest {}, send).await?;
        convert::node_info("GetInfo", answer)
    }

    /// The delta in force, as far as this version and this macaroon let it be read.
    async fn hold_expiry_delta(&self, node_version: &str) -> Option<u32> {
        version::parse(node_version).filter(|line| version::tells_its_settings(*line))?;
        let send = |channel, request| async move { LightningClient::new(channel).get_debug_info(request).await };
        let settings = self.call("GetDebugInfo", Lane::Optional, GetDebugInfoRequest::default(), send);
        convert::hold_expiry_delta(&settings.await.ok()?)
    }

    /// Opens a stream; the deadline counts until LND's first sign of it.
    pub(super) async fn open<M, T, F>(
        &self,
        call: &'static str,
        message: M,
        send: impl FnOnce(Channel, Request<M>) -> F,
    ) -> Result<Streaming<T>, LnError>
    where
        F: Future<Output = Result<Response<Streaming<T>>, Status>>,
    {
        let until = Instant::now() + self.deadline;
        let _turn = match timeout_at(until, self.opens.acquire()).await {
            Ok(permit) => permit,
            Err(_) => {
                return Err(LnError {
                    call,
                    kind: LnErrorKind::Timeout,
                    message: format!("{OPENS_IN_FLIGHT} streams are being opened already"),
                });
            }
        };
        self.call(call, Lane::Stream, message, send).await
    }
}

/// Only a status made on this side has a source: the transport's error. LND's own come without.
pub(super) fn is_transport(status: &Status) -> bool {
    std::error::Error::source(status).is_some()
}

/// The error of a failed call or stream.
fn from_status(call: &'static str, status: &Status) -> LnError {
    match std::error::Error::source(status) {
        Some(source) => LnError {
            call,
            kind: LnErrorKind::Unreachable,
            message: flatten(source),
        },
        None => LnError {
            call,
            kind: classify(status.code(), status.message()),
            message: status.message().to_owned(),
        },
    }
}

/// The items of `stream` up to its end or its first error: a broken tonic stream repeats its error for ever.
pub(super) fn updates<M, T>(
    call: &'static str,
    stream: Streaming<M>,
    convert: impl Fn(M) -> Result<T, LnError> + Send + 'static,
) -> Updates<T>
where
    M: Send + 'static,
    T: Send + 'static,
{
    Box::pin(unfold(Some((stream, convert)), move |rest| async move {
        let (mut stream, convert) = rest?;
        let item = match stream.next().await? {
            Ok(message) => convert(message),
            Err(status) => Err(from_status(call, &status)),
        };
        let rest = item.is_ok().then_some((stream, convert));
        Some((item, rest))
    }))
}

/// `Ok` when the call failed only because what it asks for is the case already.
fn done_if(kind: LnErrorKind, result: Result<(), LnError>) -> Result<(), LnError> {
    match result {
        Err(error) if error.kind == kind => Ok(()),
        other => other,
    }
}

#[async_trait]
impl Lightning for LndClient {
    async fn state(&self) -> Result<NodeState, LnError> {
        let send = |channel, request| async move { StateClient::new(channel).get_state(request).await };
        let answer = self.call("GetState", Lane::Open, GetStateRequest {}, send).await?;
        Ok(convert::node_state(answer.state))
    }

    async fn info(&self) -> Result<NodeInfo, LnError> {
        let info = self.get_info().await?;
        let hold_expiry_delta = self.hold_expiry_delta(&info.version).await;
        Ok(NodeInfo {
            hold_expiry_delta,
            ..info
        })
    }

    async fn add_hold_invoice(&self, request: &HoldInvoiceRequest) -> Result<String, LnError> {
        let call = "AddHoldInvoice";
        let message = request::add_hold_invoice(call, request)?;
        let send = |channel, request| async move { InvoicesClient::new(channel).add_hold_invoice(request).await };
        let answer = self.call(call, Lane::Unary, message, send).await?;
        if answer.payment_request.is_empty() {
            return Err(LnError {
                call,
                kind: LnErrorKind::Other,
                message: "payment_request: LND answered an empty text".to_owned(),
            });
        }
        Ok(answer.payment_request)
    }

    async fn settle(&self, preimage: &Preimage) -> Result<(), LnError> {
        let message = SettleInvoiceMsg {
            preimage: preimage.expose().to_vec(),
        };
        let send = |channel, request| async move { InvoicesClient::new(channel).settle_invoice(request).await };
        let result = self.call("SettleInvoice", Lane::Unary, message, send).await;
        done_if(LnErrorKind::AlreadySettled, result.map(|_| ()))
    }

    async fn cancel(&self, hash: &PaymentHash) -> Result<(), LnError> {
        let message = CancelInvoiceMsg {
            payment_hash: hash.0.to_vec(),
        };
        let send = |channel, request| async move { InvoicesClient::new(channel).cancel_invoice(request).await };
        let result = self.call("CancelInvoice", Lane::Unary, message, send).await;
        done_if(LnErrorKind::AlreadyCanceled, result.map(|_| ()))
    }

    async fn lookup(&self, hash: &PaymentHash) -> Result<Option<InvoiceSnapshot>, LnError> {
        let call = "LookupInvoice";
        let message = crate::proto::lnrpc::PaymentHash {
            r_hash: hash.0.to_vec(),
        };
        let send = |channel, request| async move { LightningClient::new(channel).lookup_invoice(request).await };
        match self.call(call, Lane::Unary, message, send).await {
            Ok(invoice) => convert::snapshot(call, hash, invoice).map(Some),
            Err(error) if error.kind == LnErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// LND records no commitment: whether it still holds the payment, and its height, are all it has to say. Both are asked at
    /// once: the customer waits at the machine, and neither is worth more when it is the later one.
    async fn commit(&self, hash: &PaymentHash) -> Result<Commitment, LnError> {
        let (held, info) = try_join(self.lookup(hash), self.get_info()).await?;
        Commitment::of(held, &info)
    }

    /// Tries all three on an invoice that does not exist: "not found" is the good answer.
    async fn rights(&self) -> Result<(), LnError> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(|error| LnError {
            call: "LookupInvoice",
            kind: LnErrorKind::Other,
            message: format!("the system gives no random bytes: {error}"),
        })?;
        let (nobodys, secret) = (PaymentHash(bytes), Preimage::from_bytes(bytes));
        let errors = [
            self.lookup(&nobodys).await.err(),
            self.cancel(&nobodys).await.err(),
            self.settle(&secret).await.err(),
        ];
        let denied = errors.into_iter().flatten().find(|e| e.kind == LnErrorKind::Denied);
        denied.map_or(Ok(()), |mut error| {
            error.message.push_str("; bake one as `tellerd check --bake` says");
            Err(error)
        })
    }

    async fn follows(&self) -> Result<(), LnError> {
        funds::may_be_asked(self).await
    }

    async fn funds(&self, hash: &PaymentHash) -> Result<FundsSeen, LnError> {
        funds::of_invoice(self, hash).await
    }

    async fn finals(&self) -> Result<Updates<HtlcKey>, LnError> {
        funds::finals(self).await
    }

    fn pace(&self) -> Duration {
        PACE
    }

    /// One subscription, never renewed here: its end, or an error as its last item, says nothing about the
    /// invoice. For a hash that LND does not know LND stays silent, without even the stream's head, so this call
    /// then usually ends in [`LnErrorKind::Timeout`]: look the invoice up first.
    async fn watch(&self, hash: &PaymentHash) -> Result<Updates<InvoiceSnapshot>, LnError> {
        let call = "SubscribeSingleInvoice";
        let hash = *hash;
        let message = SubscribeSingleInvoiceRequest {
            r_hash: hash.0.to_vec(),
        };
        let send =
            |channel, request| async move { InvoicesClient::new(channel).subscribe_single_invoice(request).await };
        let stream = self.open(call, message, send).await?;
        Ok(updates(call, stream, move |invoice| {
            convert::snapshot(call, &hash, invoice)
        }))
    }

    /// One subscription, never renewed here: its end says only that heights are no longer known.
    async fn blocks(&self) -> Result<Updates<u32>, LnError> {
        let call = "RegisterBlockEpochNtfn";
        let send = |channel, request| async move {
            let mut client = ChainNotifierClient::new(channel);
            client.register_block_epoch_ntfn(request).await
        };
        let stream = self.open(call, BlockEpoch::default(), send).await?;
        Ok(updates(call, stream, |block| Ok(block.height)))
    }
}
