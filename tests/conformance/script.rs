//! What cases are written in: calls that answer with a line of text, the same for every node.
//!
//! Lines tell codes, texts, states and amounts. What differs from run to run (hashes, heights, times) is told relative
//! to what the case itself knows, or not at all.

use std::fmt::Debug;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tellerd::proto::chainrpc::chain_notifier_client::ChainNotifierClient;
use tellerd::proto::invoicesrpc::invoices_client::InvoicesClient;
use tellerd::proto::invoicesrpc::{
    AddHoldInvoiceRequest, AddHoldInvoiceResp, CancelInvoiceMsg, SettleInvoiceMsg, SubscribeSingleInvoiceRequest,
};
use tellerd::proto::lnrpc::lightning_client::LightningClient;
use tellerd::proto::lnrpc::state_client::StateClient;
use tellerd::proto::lnrpc::{
    GetInfoRequest, GetInfoResponse, GetStateRequest, Invoice, InvoiceHtlc, InvoiceHtlcState,
    LookupHtlcResolutionRequest, PaymentHash, WalletState,
};
use tellerd::sim::lnd::control_client::Macaroon;
use tokio::task::JoinHandle;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Response, Status, Streaming};

use super::{PATIENCE, Share, World};

/// A connection with a macaroon.
pub type Authed = InterceptedService<Channel, Macaroon>;

/// What an invoice costs unless a case says otherwise.
pub const PRICE_MSAT: u64 = 1_000_000;
/// Blocks to the expiry of an HTLC unless a case says otherwise.
pub const CLTV: u32 = 80;

/// A case's hands. Invoices are named by small numbers.
pub struct Script<'a> {
    pub world: &'a dyn World,
    case: u16,
    begun_at: u32,
}

/// The code and the text of an answer.
pub fn told<T>(answer: Result<T, Status>) -> String {
    match answer {
        Ok(_) => "OK".to_owned(),
        Err(status) => format!("{:?}: {}", status.code(), status.message()),
    }
}

/// Returns what `look` tells once it tells it; panics with the last it told when it does not come to that.
pub async fn until(what: &str, look: impl AsyncFn() -> Result<String, String>) -> String {
    let end = tokio::time::Instant::now() + PATIENCE;
    loop {
        match look().await {
            Ok(seen) => return seen,
            Err(seen) => assert!(tokio::time::Instant::now() < end, "{what}: still {seen}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

impl<'a> Script<'a> {
    /// The hands of case number `case`.
    pub async fn new(world: &'a dyn World, case: u16) -> Self {
        Self {
            world,
            case,
            begun_at: world.height().await,
        }
    }

    pub fn preimage(&self, n: u8) -> [u8; 32] {
        let mut preimage = [n; 32];
        preimage[..2].copy_from_slice(&self.case.to_be_bytes());
        preimage
    }

    pub fn hash(&self, n: u8) -> [u8; 32] {
        Sha256::digest(self.preimage(n)).into()
    }

    pub async fn channel(&self) -> Channel {
        self.world.channel().await.expect("the node listens")
    }

    async fn admin(&self) -> Macaroon {
        Macaroon::from_bytes(&self.world.macaroon("admin.macaroon").await)
    }

    pub async fn invoices(&self) -> InvoicesClient<Authed> {
        InvoicesClient::with_interceptor(self.channel().await, self.admin().await)
    }

    pub async fn lightning(&self) -> LightningClient<Authed> {
        LightningClient::with_interceptor(self.channel().await, self.admin().await)
    }

    pub async fn chain(&self) -> ChainNotifierClient<Authed> {
        ChainNotifierClient::with_interceptor(self.channel().await, self.admin().await)
    }

    pub fn request(&self, n: u8) -> AddHoldInvoiceRequest {
        AddHoldInvoiceRequest {
            hash: self.hash(n).to_vec(),
            value_msat: i64::try_from(PRICE_MSAT).expect("an amount"),
            cltv_expiry: CLTV.into(),
            ..AddHoldInvoiceRequest::default()
        }
    }

    pub async fn try_add(&self, request: AddHoldInvoiceRequest) -> Result<AddHoldInvoiceResp, Status> {
        let mut client = self.invoices().await;
        timed(client.add_hold_invoice(request)).await.map(Response::into_inner)
    }

    /// AddHoldInvoice with a change of the usual request.
    pub async fn add_with(&self, change: impl FnOnce(&mut AddHoldInvoiceRequest)) -> String {
        let mut request = self.request(1);
        change(&mut request);
        told(self.try_add(request).await)
    }

    /// Adds invoice `n`; its payment request.
    pub async fn add(&self, n: u8) -> String {
        self.try_add(self.request(n)).await.expect("added").payment_request
    }

    pub async fn settle(&self, n: u8) -> String {
        self.settle_with(&self.preimage(n)).await
    }

    pub async fn settle_with(&self, preimage: &[u8]) -> String {
        let request = SettleInvoiceMsg {
            preimage: preimage.to_vec(),
        };
        told(self.invoices().await.settle_invoice(request).await)
    }

    pub async fn cancel(&self, n: u8) -> String {
        self.cancel_with(&self.hash(n)).await
    }

    pub async fn cancel_with(&self, hash: &[u8]) -> String {
        let request = CancelInvoiceMsg {
            payment_hash: hash.to_vec(),
        };
        told(self.invoices().await.cancel_invoice(request).await)
    }

    pub async fn lookup_with(&self, hash: &[u8]) -> Result<Invoice, Status> {
        let request = PaymentHash { r_hash: hash.to_vec() };
        self.lightning()
            .await
            .lookup_invoice(request)
            .await
            .map(Response::into_inner)
    }

    pub async fn invoice(&self, n: u8) -> Invoice {
        self.lookup_with(&self.hash(n)).await.expect("a known invoice")
    }

    /// The invoice as LookupInvoice shows it.
    pub async fn look(&self, n: u8) -> String {
        match self.lookup_with(&self.hash(n)).await {
            Ok(invoice) => self.shown(&invoice),
            Err(status) => told(Err::<(), _>(status)),
        }
    }

    /// State, `amt_paid_msat`, and the HTLCs.
    pub fn shown(&self, invoice: &Invoice) -> String {
        let mut text = format!("{} paid {}", invoice.state().as_str_name(), invoice.amt_paid_msat);
        for htlc in &invoice.htlcs {
            text += &format!(", {}", self.htlc(htlc));
        }
        text
    }

    fn htlc(&self, htlc: &InvoiceHtlc) -> String {
        let state = InvoiceHtlcState::try_from(htlc.state).map_or("?", |state| state.as_str_name());
        let height = |height: i32| i64::from(height) - i64::from(self.begun_at);
        format!(
            "htlc {state} {} of {} at +{} to +{}",
            htlc.amt_msat,
            htlc.mpp_total_amt_msat,
            height(htlc.accept_height),
            height(htlc.expiry_height),
        )
    }

    /// Returns once LookupInvoice shows `text`, and with it.
    pub async fn becomes(&self, n: u8, text: &str) -> String {
        let look = async || {
            let shown = self.look(n).await;
            if shown.starts_with(text) { Ok(shown) } else { Err(shown) }
        };
        until(&format!("invoice {n} becomes {text}"), look).await
    }

    /// The payer sends the whole price of invoice `n` in one HTLC.
    pub async fn pay(&self, n: u8, payment_request: &str) {
        let whole = Share {
            total_msat: PRICE_MSAT,
            of: 1,
            cltv: CLTV,
        };
        self.world.send(payment_request, whole).await;
        self.becomes(n, "ACCEPTED").await;
    }

    /// Adds and pays invoice `n`.
    pub async fn held(&self, n: u8) {
        let request = self.add(n).await;
        self.pay(n, &request).await;
    }

    /// The payer sends an HTLC; what becomes of it at once: `in flight` once the node has it, else the failure.
    pub async fn send(&self, n: u8, payment_request: &str, share: Share) -> String {
        let before = self.world.sent(self.hash(n)).await.len();
        let known = self.invoice(n).await.htlcs.len();
        self.world.send(payment_request, share).await;
        let look = async || {
            let sent = self.world.sent(self.hash(n)).await;
            let last = sent.get(before).expect("it was sent").clone();
            let arrived = self.invoice(n).await.htlcs.len() > known;
            if last == "in flight" && !arrived {
                Err("on its way".to_owned())
            } else {
                Ok(last)
            }
        };
        until("what becomes of the HTLC", look).await
    }

    /// What the payer's HTLCs for invoice `n` came to, once none is in flight.
    pub async fn payer(&self, n: u8) -> String {
        let look = async || {
            let sent = self.world.sent(self.hash(n)).await;
            if sent.iter().any(|htlc| htlc == "in flight") {
                Err(sent.join(", "))
            } else {
                Ok(sent.join(", "))
            }
        };
        until(&format!("the payer's HTLCs for invoice {n}"), look).await
    }

    /// LookupHtlcResolution of the HTLCs of invoice `n`.
    pub async fn resolution(&self, n: u8) -> String {
        let mut all = Vec::new();
        for htlc in self.invoice(n).await.htlcs {
            let request = LookupHtlcResolutionRequest {
                chan_id: htlc.chan_id,
                htlc_index: htlc.htlc_index,
            };
            all.push(match self.lightning().await.lookup_htlc_resolution(request).await {
                Ok(answer) => {
                    let answer = answer.into_inner();
                    format!("final: settled {}, offchain {}", answer.settled, answer.offchain)
                }
                Err(status) => told(Err::<(), _>(status)),
            });
        }
        all.join(", ")
    }

    /// Returns once LookupHtlcResolution has one for each HTLC of invoice `n`.
    pub async fn finality(&self, n: u8) -> String {
        let look = async || {
            let told = self.resolution(n).await;
            if told.contains("NotFound") { Err(told) } else { Ok(told) }
        };
        until(&format!("the HTLCs of invoice {n} are final"), look).await
    }

    pub async fn info(&self) -> Result<GetInfoResponse, Status> {
        let mut client = self.lightning().await;
        client.get_info(GetInfoRequest {}).await.map(Response::into_inner)
    }

    /// LND's default `holdexpirydelta`: 18 blocks from v0.21 on, 12 before.
    pub async fn delta(&self) -> u32 {
        let version = self.info().await.expect("an answer").version;
        if version.starts_with("0.20") { 12 } else { 18 }
    }

    pub async fn state(&self) -> Option<WalletState> {
        let channel = self.world.channel().await?;
        let answer = StateClient::new(channel).get_state(GetStateRequest {}).await.ok()?;
        Some(answer.into_inner().state())
    }

    /// Returns once GetState tells this.
    pub async fn reaches(&self, wanted: WalletState) {
        let look = async || match self.state().await {
            Some(state) if state == wanted => Ok(String::new()),
            other => Err(format!("{other:?}")),
        };
        until(&format!("the node is {wanted:?}"), look).await;
    }

    /// SubscribeSingleInvoice; it may stay unanswered.
    pub async fn watch(&self, n: u8) -> Watch {
        let mut client = self.invoices().await;
        let request = SubscribeSingleInvoiceRequest {
            r_hash: self.hash(n).to_vec(),
        };
        Watch::Asked(tokio::spawn(async move {
            client.subscribe_single_invoice(request).await.map(Response::into_inner)
        }))
    }

    /// The next message of a stream, or its end.
    pub async fn next(&self, watch: &mut Watch) -> String {
        match next(watch).await {
            Ok(Some(invoice)) => self.shown(&invoice),
            Ok(None) => "end: OK".to_owned(),
            Err(status) => format!("end: {}", told(Err::<(), _>(status))),
        }
    }

    /// All messages to the end of a stream.
    pub async fn rest(&self, watch: &mut Watch) -> Vec<String> {
        let mut all = Vec::new();
        loop {
            all.push(self.next(watch).await);
            if all.last().is_some_and(|last| last.starts_with("end")) {
                return all;
            }
        }
    }
}

/// A SubscribeSingleInvoice.
pub enum Watch {
    /// No header of an answer has come, as far as anyone has looked.
    Asked(JoinHandle<Result<Streaming<Invoice>, Status>>),
    /// It flows.
    Flows(Box<Streaming<Invoice>>),
}

impl Watch {
    /// The headers of an answer have come.
    pub fn is_answered(&self) -> bool {
        match self {
            Self::Asked(asked) => asked.is_finished(),
            Self::Flows(_) => true,
        }
    }
}

async fn next(watch: &mut Watch) -> Result<Option<Invoice>, Status> {
    if let Watch::Asked(asked) = watch {
        let answer = timed(asked).await.expect("the call does not panic");
        *watch = Watch::Flows(Box::new(answer?));
    }
    match watch {
        Watch::Flows(stream) => timed(stream.message()).await,
        Watch::Asked(_) => unreachable!("answered above"),
    }
}

/// The output of `future`, which may take [`PATIENCE`].
pub async fn timed<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("nothing came within {PATIENCE:?}"))
}

/// `name: value` of anything.
pub fn named(name: &str, value: impl Debug) -> String {
    format!("{name}: {value:?}")
}
