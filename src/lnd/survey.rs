//! Asks a live node all that [`super::verdict`] judges, without touching an invoice or money.
//!
//! Called by `tellerd check`. What must stay true: every call is bounded by the configured deadline; calls that would change
//! something are asked with a hash of one byte, which no invoice has. LND checks the macaroon before it looks at the
//! call, so any answer of its own but a refusal says that the call is allowed.
//! Source: lnd v0.21.2-beta, `rpcperms/interceptor.go`, `lnrpc/invoicesrpc/invoices_server.go`, `rpcserver.go`.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::time::timeout;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request, Response, Status, Streaming};

use super::link::Session;
use super::permissions::{Call, PERMISSIONS};
use super::tls::flatten;
use super::verdict::{Access, Asked, ChannelFacts, ClockFacts, Facts, Identity};
use super::{LnErrorKind, LndClient, NodeState, classify, client, convert, macaroon, version};
use crate::money::Msat;
use crate::proto::chainrpc::{BlockEpoch, chain_notifier_client::ChainNotifierClient};
use crate::proto::invoicesrpc::invoices_client::InvoicesClient;
use crate::proto::invoicesrpc::{
    AddHoldInvoiceRequest, CancelInvoiceMsg, SettleInvoiceMsg, SubscribeSingleInvoiceRequest,
};
use crate::proto::lnrpc::lightning_client::LightningClient;
use crate::proto::lnrpc::{
    self, GetDebugInfoRequest, GetInfoRequest, GetInfoResponse, ListChannelsRequest, LookupHtlcResolutionRequest,
    PaymentHash, WalletBalanceRequest,
};
use crate::proto::routerrpc::{SubscribeHtlcEventsRequest, router_client::RouterClient};
use crate::time::{Clock, UnixMs};

/// Clocks that differ by less are near enough: the customer's wallet has minutes.
const CLOCK_BOUND: Duration = Duration::from_millis(CLOCK_BOUND_MS);
const CLOCK_BOUND_MS: u64 = 60_000;

/// What LND may answer at most, and its own command line takes: a large node's channels with all their HTLCs are long.
const MAX_ANSWER_BYTES: usize = 200 * 1024 * 1024;

/// The condition that LND names when it refuses a macaroon whose time is over.
const EXPIRED: &str = "macaroon has expired";

/// What LND says of a good macaroon that lacks the right.
const NO_RIGHT: &str = "permission denied";

impl LndClient {
    /// Looks at everything that can be asked of the node.
    pub async fn survey(&self, clock: &dyn Clock) -> Facts {
        let state = self.state_in_words().await;
        let asker = match &state {
            Ok(state) if *state >= NodeState::RpcActive => Some(self.asker().await),
            _ => None,
        };
        let (macaroon, asked) = match asker {
            None => (Ok(()), None),
            Some(Err(why)) => (Err(why), None),
            Some(Ok(asker)) => match asker.info(asker.macaroon.clone()).await {
                Err(status) if is_invalid(&status) => (Err(words(&status)), None),
                info => (Ok(()), Some(asker.all(info, clock).await)),
            },
        };
        Facts {
            address: self.address().to_owned(),
            at: clock.now(),
            state,
            macaroon,
            asked,
        }
    }

    async fn state_in_words(&self) -> Result<NodeState, String> {
        use super::Lightning;
        self.state().await.map_err(|error| error.message)
    }

    async fn asker(&self) -> Result<Asker, String> {
        let until = tokio::time::Instant::now() + self.deadline;
        let session = self.link.session(until).await?;
        Ok(Asker {
            macaroon: session.macaroon.clone()?,
            deadline: self.deadline,
            session,
        })
    }
}

/// One connection and one macaroon.
struct Asker {
    session: Arc<Session>,
    macaroon: AsciiMetadataValue,
    deadline: Duration,
}

impl Asker {
    async fn all(&self, info: Result<GetInfoResponse, Status>, clock: &dyn Clock) -> Asked {
        let (channels, settings, wallet, near) =
            tokio::join!(self.channels(), self.settings(&info), self.wallet(), self.clock(clock));
        let rights = PERMISSIONS.iter().map(|permission| async {
            let access = match permission.call {
                Call::GetInfo => access(&info),
                Call::ListChannels => access(&channels),
                Call::GetDebugInfo => settings.as_ref().map_or_else(Clone::clone, access),
                call => self.probe(call).await,
            };
            (permission.call, access)
        });
        Asked {
            rights: join_all(rights).await,
            excess: access(&wallet),
            clock: near,
            channels: channels.ok().map(|list| list.channels.iter().map(channel).collect()),
            hold_expiry_delta: settings
                .ok()
                .and_then(Result::ok)
                .and_then(|answer| convert::hold_expiry_delta(&answer)),
            info: info.map_err(|status| words(&status)).and_then(identity),
        }
    }

    async fn info(&self, macaroon: AsciiMetadataValue) -> Result<GetInfoResponse, Status> {
        let mut request = Request::new(GetInfoRequest {});
        request.metadata_mut().insert("macaroon", macaroon);
        let mut client = LightningClient::new(self.session.unary.clone());
        self.within(async { client.get_info(request).await.map(Response::into_inner) })
            .await
    }

    async fn channels(&self) -> Result<lnrpc::ListChannelsResponse, Status> {
        let send = |channel, request| async move {
            let mut client = LightningClient::new(channel).max_decoding_message_size(MAX_ANSWER_BYTES);
            client.list_channels(request).await
        };
        self.unary(ListChannelsRequest::default(), send).await
    }

    /// The configuration in force; else why it was not asked for.
    async fn settings(
        &self,
        info: &Result<GetInfoResponse, Status>,
    ) -> Result<Result<lnrpc::GetDebugInfoResponse, Status>, Access> {
        let not_asked = |why: &str| Err(Access::NotAsked(why.to_owned()));
        match info.as_ref().ok().and_then(|info| version::parse(&info.version)) {
            None => return not_asked("LND's version is not known"),
            Some(line) if !version::tells_its_settings(line) => {
                return not_asked("before LND 0.21 its answer brings the whole log");
            }
            Some(_) => {}
        }
        let send = |channel, request| async move { LightningClient::new(channel).get_debug_info(request).await };
        Ok(self.unary(GetDebugInfoRequest::default(), send).await)
    }

    async fn wallet(&self) -> Result<lnrpc::WalletBalanceResponse, Status> {
        let send = |channel, request| async move { LightningClient::new(channel).wallet_balance(request).await };
        self.unary(WalletBalanceRequest {}, send).await
    }

    /// Whether a call is allowed, by an answer that changes nothing.
    async fn probe(&self, call: Call) -> Access {
        let (nobodys, too_short) = (vec![0; 32], vec![0]);
        match call {
            Call::GetInfo | Call::ListChannels | Call::GetDebugInfo => Access::NotAsked("asked for its answer".into()),
            Call::LookupInvoice => {
                let send =
                    |channel, request| async move { LightningClient::new(channel).lookup_invoice(request).await };
                access(&self.unary(PaymentHash { r_hash: nobodys }, send).await)
            }
            Call::AddHoldInvoice => {
                let send =
                    |channel, request| async move { InvoicesClient::new(channel).add_hold_invoice(request).await };
                let message = AddHoldInvoiceRequest {
                    hash: too_short,
                    value_msat: 1_000,
                    ..AddHoldInvoiceRequest::default()
                };
                access(&self.unary(message, send).await)
            }
            Call::SettleInvoice => {
                let send = |channel, request| async move { InvoicesClient::new(channel).settle_invoice(request).await };
                access(&self.unary(SettleInvoiceMsg { preimage: too_short }, send).await)
            }
            Call::CancelInvoice => {
                let send = |channel, request| async move { InvoicesClient::new(channel).cancel_invoice(request).await };
                let message = CancelInvoiceMsg {
                    payment_hash: too_short,
                };
                access(&self.unary(message, send).await)
            }
            Call::SubscribeSingleInvoice => {
                let send = |channel, request| async move {
                    InvoicesClient::new(channel).subscribe_single_invoice(request).await
                };
                access(
                    &self
                        .first(SubscribeSingleInvoiceRequest { r_hash: too_short }, send)
                        .await,
                )
            }
            Call::RegisterBlockEpochNtfn => {
                let send = |channel, request| async move {
                    ChainNotifierClient::new(channel)
                        .register_block_epoch_ntfn(request)
                        .await
                };
                access(&self.first(BlockEpoch::default(), send).await)
            }
            Call::LookupHtlcResolution => {
                let send = |channel, request| async move {
                    LightningClient::new(channel).lookup_htlc_resolution(request).await
                };
                access(&self.unary(LookupHtlcResolutionRequest::default(), send).await)
            }
            Call::SubscribeHtlcEvents => {
                let send =
                    |channel, request| async move { RouterClient::new(channel).subscribe_htlc_events(request).await };
                access(&self.first(SubscribeHtlcEventsRequest {}, send).await)
            }
        }
    }

    /// Asks LND what its clock shows, by two macaroons: one that ended a minute ago, one that ends in a minute.
    async fn clock(&self, clock: &dyn Clock) -> ClockFacts {
        let now = clock.now();
        let past = UnixMs(now.0.saturating_sub(CLOCK_BOUND_MS));
        let (past, future) = (self.narrowed(past), self.narrowed(now.plus(CLOCK_BOUND)));
        let (Some(past), Some(future)) = (past, future) else {
            return ClockFacts::Unknown("the macaroon is of another format".to_owned());
        };
        match tokio::join!(self.info(past), self.info(future)) {
            (Ok(_), _) => ClockFacts::Behind(CLOCK_BOUND),
            (Err(past), Ok(_)) if expired(&past) => ClockFacts::Near(CLOCK_BOUND),
            (Err(_), Err(future)) if expired(&future) => ClockFacts::Ahead(CLOCK_BOUND),
            (Err(status), Ok(_)) | (_, Err(status)) => ClockFacts::Unknown(words(&status)),
        }
    }

    fn narrowed(&self, instant: UnixMs) -> Option<AsciiMetadataValue> {
        let bytes = hex::decode(self.macaroon.as_bytes()).ok()?;
        let narrowed = macaroon::valid_before(&bytes, instant)?;
        let mut value = AsciiMetadataValue::try_from(hex::encode(narrowed)).ok()?;
        value.set_sensitive(true);
        Some(value)
    }

    async fn unary<M, T, F>(&self, message: M, send: impl FnOnce(Channel, Request<M>) -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        let answer = send(self.session.unary.clone(), self.request(message));
        self.within(async { answer.await.map(Response::into_inner) }).await
    }

    /// The first message of a stream, which is closed then.
    async fn first<M, T, F>(&self, message: M, send: impl FnOnce(Channel, Request<M>) -> F) -> Result<T, Status>
    where
        F: Future<Output = Result<Response<Streaming<T>>, Status>>,
    {
        let stream = send(self.session.streams.clone(), self.request(message));
        self.within(async {
            let first = stream.await?.into_inner().message().await?;
            first.ok_or_else(|| Status::cancelled("LND ended the stream"))
        })
        .await
    }

    fn request<M>(&self, message: M) -> Request<M> {
        let mut request = Request::new(message);
        request.metadata_mut().insert("macaroon", self.macaroon.clone());
        request
    }

    async fn within<T>(&self, answer: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
        let late = |_| Status::deadline_exceeded(format!("no answer within {} ms", self.deadline.as_millis()));
        timeout(self.deadline, answer).await.map_err(late)?
    }
}

/// What an answer tells of the right to ask.
fn access<T>(answer: &Result<T, Status>) -> Access {
    let Err(status) = answer else {
        return Access::Granted;
    };
    if client::is_transport(status) {
        return Access::Unclear(words(status));
    }
    match (classify(status.code(), status.message()), status.code()) {
        (LnErrorKind::Denied, _) => Access::Denied(words(status)),
        (LnErrorKind::NotReady | LnErrorKind::Timeout | LnErrorKind::Unreachable, _) | (_, Code::Unimplemented) => {
            Access::Unclear(words(status))
        }
        _ => Access::Granted,
    }
}

/// LND does not accept the macaroon for any call: it is expired, revoked, or another node's.
fn is_invalid(status: &Status) -> bool {
    access::<()>(&Err(status.clone())) == Access::Denied(words(status)) && !status.message().contains(NO_RIGHT)
}

fn expired(status: &Status) -> bool {
    status.message().contains(EXPIRED)
}

fn words(status: &Status) -> String {
    match std::error::Error::source(status) {
        Some(source) => flatten(source),
        None if status.message().is_empty() => status.code().to_string(),
        None => status.message().to_owned(),
    }
}

fn identity(info: GetInfoResponse) -> Result<Identity, String> {
    let seconds = u64::try_from(info.best_header_timestamp).unwrap_or_default();
    let node = convert::node_info("GetInfo", info).map_err(|error| error.message)?;
    Ok(Identity {
        node,
        best_header_at: UnixMs(seconds.saturating_mul(1000)),
    })
}

fn channel(channel: &lnrpc::Channel) -> ChannelFacts {
    let peers = channel.remote_constraints.unwrap_or_default();
    let incoming = || channel.pending_htlcs.iter().filter(|htlc| htlc.incoming);
    ChannelFacts {
        active: channel.active,
        private: channel.private,
        remote: sat(channel.remote_balance),
        reserve: Msat(peers.chan_reserve_sat.saturating_mul(1000)),
        max_pending: Msat(peers.max_pending_amt_msat),
        max_htlcs: peers.max_accepted_htlcs,
        pending_htlcs: u32::try_from(incoming().count()).unwrap_or(u32::MAX),
        pending: incoming().map(|htlc| sat(htlc.amount)).sum(),
    }
}

/// A negative balance makes no sense: nothing can be received with it.
fn sat(amount: i64) -> Msat {
    Msat(u64::try_from(amount).unwrap_or_default().saturating_mul(1000))
}
