//! The simulated LND over real TLS, seen by raw generated clients: answers, macaroons, streams, states, persistence.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use sha2::{Digest, Sha256};
use tellerd::proto::chainrpc::BlockEpoch;
use tellerd::proto::chainrpc::chain_notifier_client::ChainNotifierClient;
use tellerd::proto::invoicesrpc::invoices_client::InvoicesClient;
use tellerd::proto::invoicesrpc::{
    AddHoldInvoiceRequest, AddHoldInvoiceResp, CancelInvoiceMsg, SettleInvoiceMsg, SubscribeSingleInvoiceRequest,
};
use tellerd::proto::lnrpc::invoice::InvoiceState;
use tellerd::proto::lnrpc::lightning_client::LightningClient;
use tellerd::proto::lnrpc::state_client::StateClient;
use tellerd::proto::lnrpc::{
    GetInfoRequest, GetStateRequest, Invoice, PaymentHash, SubscribeStateRequest, WalletState,
};
use tellerd::proto::tellersim;
use tellerd::sim::lnd::control_client::{self, Macaroon};
use tellerd::sim::lnd::node::record::{FailReason, PaymentStatus};
use tellerd::sim::lnd::{
    ADMIN_MACAROON, Fault, PayOptions, READONLY_MACAROON, SimHandle, SimLnd, SimLndOptions, TLS_CERT,
};
use tellerd::time::{ManualClock, SystemClock, UnixMs};
use tokio::task::JoinHandle;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint};
use tonic::{Code, Request, Status, Streaming};

pub type Authed = InterceptedService<Channel, Macaroon>;

/// A served node with raw clients. Dropping it is like killing the process.
pub struct Rig {
    pub dir: tempfile::TempDir,
    pub handle: SimHandle,
    pub address: SocketAddr,
    serving: JoinHandle<()>,
    clients: Clients,
}

/// Clients on one connection, with the admin macaroon.
pub struct Clients {
    pub channel: Channel,
    pub invoices: InvoicesClient<Authed>,
    pub lightning: LightningClient<Authed>,
    pub state: StateClient<Channel>,
    pub chain: ChainNotifierClient<Authed>,
}

impl Clients {
    async fn connect(dir: &Path, address: SocketAddr) -> Self {
        let channel = control_client::channel(dir, address).await.unwrap();
        let macaroon = Macaroon::read(dir, ADMIN_MACAROON).unwrap();
        Self {
            invoices: InvoicesClient::with_interceptor(channel.clone(), macaroon.clone()),
            lightning: LightningClient::with_interceptor(channel.clone(), macaroon.clone()),
            chain: ChainNotifierClient::with_interceptor(channel.clone(), macaroon),
            state: StateClient::new(channel.clone()),
            channel,
        }
    }
}

impl std::ops::Deref for Rig {
    type Target = Clients;

    fn deref(&self) -> &Clients {
        &self.clients
    }
}

impl std::ops::DerefMut for Rig {
    fn deref_mut(&mut self) -> &mut Clients {
        &mut self.clients
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Rig {
    pub async fn new() -> Self {
        Self::open(tempfile::tempdir().unwrap(), &SimLndOptions::default()).await
    }

    pub async fn with_clock(clock: Arc<ManualClock>) -> Self {
        let options = SimLndOptions {
            clock,
            ..SimLndOptions::default()
        };
        Self::open(tempfile::tempdir().unwrap(), &options).await
    }

    pub async fn open(dir: tempfile::TempDir, options: &SimLndOptions) -> Self {
        let sim = SimLnd::open(dir.path(), options).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let serve = sim.serve(listener);
        let serving = tokio::spawn(async move { serve.await.unwrap() });
        let clients = Clients::connect(dir.path(), address).await;
        Self {
            handle: sim.handle(),
            address,
            serving,
            clients,
            dir,
        }
    }

    /// New connections, after a fault has cut the old ones.
    pub async fn reconnect(&mut self) {
        self.clients = Clients::connect(self.dir.path(), self.address).await;
    }

    /// Kills the node without a clean end and starts it again in its directory.
    async fn killed_and_started(mut self) -> Self {
        self.serving.abort();
        assert!((&mut self.serving).await.unwrap_err().is_cancelled());
        let dir = std::mem::replace(&mut self.dir, tempfile::tempdir().unwrap());
        Self::open(dir, &SimLndOptions::default()).await
    }

    pub async fn add(&mut self, n: u8) -> Result<AddHoldInvoiceResp, Status> {
        self.invoices
            .add_hold_invoice(request(n))
            .await
            .map(tonic::Response::into_inner)
    }

    pub async fn settle(&mut self, n: u8) -> Result<(), Status> {
        self.invoices
            .settle_invoice(SettleInvoiceMsg { preimage: vec![n; 32] })
            .await
            .map(drop)
    }

    pub async fn cancel(&mut self, n: u8) -> Result<(), Status> {
        self.invoices
            .cancel_invoice(CancelInvoiceMsg { payment_hash: hash(n) })
            .await
            .map(drop)
    }

    pub async fn lookup(&mut self, n: u8) -> Result<Invoice, Status> {
        self.lightning
            .lookup_invoice(PaymentHash { r_hash: hash(n) })
            .await
            .map(tonic::Response::into_inner)
    }

    pub async fn watch(&mut self, n: u8) -> Streaming<Invoice> {
        let request = SubscribeSingleInvoiceRequest { r_hash: hash(n) };
        self.invoices
            .subscribe_single_invoice(request)
            .await
            .unwrap()
            .into_inner()
    }

    /// Adds invoice `n` and pays it in full.
    pub async fn held(&mut self, n: u8) -> u64 {
        let invoice = self.add(n).await.unwrap().payment_request;
        self.handle.pay(&invoice, &PayOptions::default()).unwrap()
    }
}

pub fn hash(n: u8) -> Vec<u8> {
    Sha256::digest([n; 32]).to_vec()
}

pub fn request(n: u8) -> AddHoldInvoiceRequest {
    AddHoldInvoiceRequest {
        hash: hash(n),
        memo: "cash".into(),
        value: 1_000,
        ..AddHoldInvoiceRequest::default()
    }
}

pub async fn next_state(stream: &mut Streaming<Invoice>) -> Option<InvoiceState> {
    stream.message().await.unwrap().map(|invoice| invoice.state())
}

fn refused<T: std::fmt::Debug>(answer: Result<T, Status>, text: &str) {
    let status = answer.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::Unknown, text));
}

#[tokio::test]
async fn the_life_of_an_invoice() {
    let mut rig = Rig::new().await;
    let added = rig.add(1).await.unwrap();
    assert_eq!((added.add_index, added.payment_addr.len()), (1, 32));
    refused(rig.settle(1).await, "invoice still open");
    let payment = rig
        .handle
        .pay(
            &added.payment_request,
            &PayOptions {
                parts: 3,
                ..PayOptions::default()
            },
        )
        .unwrap();
    let held = rig.lookup(1).await.unwrap();
    assert_eq!(
        (held.state(), held.amt_paid_msat, held.htlcs.len()),
        (InvoiceState::Accepted, 1_000_000, 3)
    );
    assert!(held.r_preimage.is_empty());
    assert_eq!(held.htlcs[0].expiry_height, 850_000 + 80);
    rig.settle(1).await.unwrap();
    rig.settle(1).await.unwrap();
    refused(rig.cancel(1).await, "invoice already settled");
    let settled = rig.lookup(1).await.unwrap();
    assert_eq!(
        (settled.state(), settled.r_preimage, settled.settle_index),
        (InvoiceState::Settled, vec![1; 32], 1)
    );
    assert!(settled.settle_date > 0);
    assert_eq!(rig.handle.payment(payment).unwrap().status(), PaymentStatus::Succeeded);

    let payment = rig.held(2).await;
    rig.cancel(2).await.unwrap();
    rig.cancel(2).await.unwrap();
    refused(rig.settle(2).await, "invoice already canceled");
    let failed = PaymentStatus::Failed(FailReason::InvoiceCanceled);
    assert_eq!(rig.handle.payment(payment).unwrap().status(), failed);
}

#[tokio::test]
async fn refusals_have_lnds_codes_and_texts() {
    let mut rig = Rig::new().await;
    refused(rig.settle(1).await, "unable to locate invoice");
    refused(rig.cancel(1).await, "unable to locate invoice");
    for text in ["there are no existing invoices", "unable to locate invoice"] {
        let status = rig.lookup(1).await.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::NotFound, text));
        rig.add(9).await.ok();
    }
    let short = SettleInvoiceMsg { preimage: vec![1; 5] };
    refused(
        rig.invoices.settle_invoice(short).await,
        "invalid preimage length of 5, want 32",
    );
    rig.add(1).await.unwrap();
    refused(rig.add(1).await, "invoice with payment hash already exists");
    let both = AddHoldInvoiceRequest {
        value_msat: 5,
        ..request(2)
    };
    refused(
        rig.invoices.add_hold_invoice(both).await,
        "sat and msat arguments are mutually exclusive",
    );
    let low = AddHoldInvoiceRequest {
        cltv_expiry: 23,
        ..request(2)
    };
    refused(
        rig.invoices.add_hold_invoice(low).await,
        "CLTV delta of 23 must be greater than minimum of 24",
    );
}

#[tokio::test]
async fn a_payment_request_is_valid_bolt11_of_the_node() {
    use lightning_invoice::{Bolt11Invoice, Bolt11InvoiceDescriptionRef, Currency};
    let mut rig = Rig::new().await;
    let text = rig.invoices.add_hold_invoice(AddHoldInvoiceRequest {
        expiry: 600,
        cltv_expiry: 144,
        ..request(1)
    });
    let text = text.await.unwrap().into_inner().payment_request;
    assert!(text.starts_with("lnbcrt10u1"), "{text}");
    let invoice: Bolt11Invoice = text.parse().unwrap();
    assert_eq!(invoice.currency(), Currency::Regtest);
    assert_eq!(invoice.amount_milli_satoshis(), Some(1_000_000));
    assert_eq!(invoice.expiry_time(), Duration::from_secs(600));
    assert_eq!(invoice.min_final_cltv_expiry_delta(), 144);
    assert_eq!(invoice.payment_hash().to_string(), hex::encode(hash(1)));
    assert!(matches!(invoice.description(), Bolt11InvoiceDescriptionRef::Direct(text) if text.to_string() == "cash"));
    assert!(invoice.features().unwrap().supports_basic_mpp());
    let info = rig.lightning.get_info(GetInfoRequest {}).await.unwrap().into_inner();
    assert_eq!(invoice.recover_payee_pub_key().to_string(), info.identity_pubkey);
    assert_eq!(info.version, "0.21.2-beta commit=v0.21.2-beta");
    assert_eq!(
        (info.block_height, info.synced_to_chain, &*info.chains[0].network),
        (850_000, true, "regtest")
    );
}

#[tokio::test]
async fn the_certificate_has_lnds_shape_and_must_be_pinned() {
    let rig = Rig::new().await;
    let pem = std::fs::read(rig.dir.path().join(TLS_CERT)).unwrap();
    let tls = ClientTlsConfig::new()
        .domain_name("localhost")
        .ca_certificate(Certificate::from_pem(pem));
    let endpoint = Endpoint::from_shared(format!("https://{}", rig.address))
        .unwrap()
        .tls_config(tls)
        .unwrap();
    let error = endpoint.connect().await.unwrap_err();
    let source = std::error::Error::source(&error).unwrap();
    assert!(format!("{source:?}").contains("CaUsedAsEndEntity"), "{source:?}");

    let other = Rig::new().await;
    assert!(
        control_client::channel(other.dir.path(), rig.address).await.is_err(),
        "another node's certificate"
    );
}

#[tokio::test]
async fn macaroons_are_checked_on_every_call_but_state() {
    let mut rig = Rig::new().await;
    let call = |request| {
        let mut client = LightningClient::new(rig.channel.clone());
        async move { client.get_info(request).await }
    };
    let with = |values: &[&[u8]]| {
        let mut request = Request::new(GetInfoRequest {});
        for value in values {
            request
                .metadata_mut()
                .append("macaroon", hex::encode(value).parse().unwrap());
        }
        request
    };
    let admin = std::fs::read(rig.dir.path().join(ADMIN_MACAROON)).unwrap();
    refused(call(with(&[])).await, "expected 1 macaroon, got 0");
    refused(call(with(&[&admin, &admin])).await, "expected 1 macaroon, got 2");
    let wrong = "verification failed: signature mismatch after caveat verification";
    let mut of_another_key = admin.clone();
    *of_another_key.last_mut().unwrap() ^= 1;
    refused(call(with(&[&of_another_key])).await, wrong);
    assert!(call(with(&[&admin])).await.is_ok());

    let readonly = Macaroon::read(rig.dir.path(), READONLY_MACAROON).unwrap();
    let mut lightning = LightningClient::with_interceptor(rig.channel.clone(), readonly.clone());
    let mut invoices = InvoicesClient::with_interceptor(rig.channel.clone(), readonly.clone());
    assert!(lightning.get_info(GetInfoRequest {}).await.is_ok());
    refused(invoices.add_hold_invoice(request(1)).await, "permission denied");
    refused(
        invoices.settle_invoice(SettleInvoiceMsg::default()).await,
        "permission denied",
    );
    refused(
        invoices.cancel_invoice(CancelInvoiceMsg::default()).await,
        "permission denied",
    );
    let mut control = tellersim::control_client::ControlClient::with_interceptor(rig.channel.clone(), readonly);
    refused(
        control
            .advance_blocks(tellersim::AdvanceBlocksRequest { blocks: 1 })
            .await,
        "permission denied",
    );
    assert_eq!(rig.lookup(1).await.unwrap_err().code(), Code::NotFound);
    let state = rig
        .state
        .get_state(GetStateRequest {})
        .await
        .unwrap()
        .into_inner()
        .state();
    assert_eq!(state, WalletState::ServerActive);
}

#[tokio::test]
async fn a_stream_begins_with_the_current_state_and_ends_after_a_final_one() {
    let mut rig = Rig::new().await;
    let invoice = rig.add(1).await.unwrap().payment_request;
    let mut early = rig.watch(1).await;
    assert_eq!(next_state(&mut early).await, Some(InvoiceState::Open));
    rig.handle.pay(&invoice, &PayOptions::default()).unwrap();
    assert_eq!(next_state(&mut early).await, Some(InvoiceState::Accepted));
    let mut late = rig.watch(1).await;
    assert_eq!(next_state(&mut late).await, Some(InvoiceState::Accepted));
    rig.settle(1).await.unwrap();
    for stream in [&mut early, &mut late] {
        assert_eq!(next_state(stream).await, Some(InvoiceState::Settled));
        assert_eq!(next_state(stream).await, None);
    }
    let mut after = rig.watch(1).await;
    assert_eq!(next_state(&mut after).await, Some(InvoiceState::Settled));
    assert_eq!(next_state(&mut after).await, None);
    let bad = SubscribeSingleInvoiceRequest { r_hash: vec![1] };
    refused(
        rig.invoices.subscribe_single_invoice(bad).await,
        "invalid hash length of 1, want 32",
    );
}

#[tokio::test]
async fn a_stream_of_an_unknown_hash_is_silent_until_it_is_added() {
    let mut rig = Rig::new().await;
    let mut invoices = rig.invoices.clone();
    let request = SubscribeSingleInvoiceRequest { r_hash: hash(1) };
    let early = tokio::spawn(async move { invoices.subscribe_single_invoice(request).await });
    // Another invoice's whole life passes on the same connection without a word on that stream.
    rig.held(2).await;
    let mut other = rig.watch(2).await;
    rig.cancel(2).await.unwrap();
    while next_state(&mut other).await.is_some() {}
    assert!(!early.is_finished());
    rig.add(1).await.unwrap();
    rig.cancel(1).await.unwrap();
    let mut early = early.await.unwrap().unwrap().into_inner();
    let mut seen = Vec::new();
    while let Some(state) = next_state(&mut early).await {
        seen.push(state);
    }
    assert_eq!(seen, [InvoiceState::Open, InvoiceState::Canceled]);
}

#[tokio::test]
async fn blocks_come_one_by_one_after_the_current_height() {
    let mut rig = Rig::new().await;
    let mut blocks = rig
        .chain
        .register_block_epoch_ntfn(BlockEpoch::default())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(blocks.message().await.unwrap().unwrap().height, 850_000);
    assert_eq!(rig.handle.advance_blocks(3).unwrap(), 850_003);
    for height in 850_001..=850_003 {
        let block = blocks.message().await.unwrap().unwrap();
        assert_eq!((block.height, block.hash.len()), (height, 32));
    }
    rig.handle.set_block_interval(1);
    assert_eq!(blocks.message().await.unwrap().unwrap().height, 850_004);
    assert_eq!(blocks.message().await.unwrap().unwrap().height, 850_005);
}

#[tokio::test]
async fn a_hold_near_its_expiry_is_canceled_on_the_stream_too() {
    let mut rig = Rig::new().await;
    let payment = rig.held(1).await;
    let mut stream = rig.watch(1).await;
    rig.handle.advance_blocks(61).unwrap();
    assert_eq!(rig.lookup(1).await.unwrap().state(), InvoiceState::Accepted);
    rig.handle.advance_blocks(1).unwrap();
    assert_eq!(next_state(&mut stream).await, Some(InvoiceState::Accepted));
    assert_eq!(next_state(&mut stream).await, Some(InvoiceState::Canceled));
    assert_eq!(next_state(&mut stream).await, None);
    refused(rig.settle(1).await, "invoice already canceled");
    let payment = rig.handle.ended_payment(payment).await.unwrap();
    assert_eq!(payment.status(), PaymentStatus::Failed(FailReason::HoldExpired));
}

#[tokio::test]
async fn time_ends_open_invoices_and_parts_but_no_hold() {
    let clock = Arc::new(ManualClock::new(UnixMs(1_800_000_000_000)));
    let mut rig = Rig::with_clock(clock.clone()).await;
    rig.held(1).await;
    let partial = rig.add(2).await.unwrap().payment_request;
    let options = PayOptions {
        parts: 2,
        missing_parts: 1,
        ..PayOptions::default()
    };
    let part = rig.handle.pay(&partial, &options).unwrap();
    let mut open = rig.watch(2).await;
    assert_eq!(next_state(&mut open).await, Some(InvoiceState::Open));
    clock.advance(Duration::from_secs(120));
    let ended = rig.handle.ended_payment(part).await.unwrap();
    assert_eq!(ended.status(), PaymentStatus::Failed(FailReason::MppTimeout));
    assert_eq!(rig.lookup(2).await.unwrap().state(), InvoiceState::Open);
    clock.advance(Duration::from_secs(86_400));
    assert_eq!(next_state(&mut open).await, Some(InvoiceState::Canceled));
    assert_eq!(rig.lookup(1).await.unwrap().state(), InvoiceState::Accepted);
    let late = rig.handle.pay(&partial, &PayOptions::default()).unwrap();
    let late = rig.handle.ended_payment(late).await.unwrap();
    assert_eq!(late.status(), PaymentStatus::Failed(FailReason::InvoiceNotOpen));
}

#[tokio::test]
async fn an_answered_change_survives_a_kill() {
    let mut rig = Rig::new().await;
    for n in 1..=4 {
        rig.held(n).await;
    }
    rig.add(5).await.unwrap();
    let later = PayOptions {
        after: Duration::from_secs(3600),
        ..PayOptions::default()
    };
    let invoice = rig.lookup(5).await.unwrap().payment_request;
    let waiting = rig.handle.pay(&invoice, &later).unwrap();
    rig.settle(1).await.unwrap();
    rig.cancel(2).await.unwrap();
    rig.handle.advance_blocks(7).unwrap();
    let mut stream = rig.watch(3).await;
    assert_eq!(next_state(&mut stream).await, Some(InvoiceState::Accepted));
    let before = rig.handle.ledger().unwrap();

    let mut rig = rig.killed_and_started().await;
    assert!(
        !matches!(stream.message().await, Ok(Some(_))),
        "streams die with the process"
    );
    assert_eq!(rig.handle.ledger().unwrap(), before);
    assert_eq!(rig.handle.payment(waiting).unwrap().status(), PaymentStatus::Waiting);
    rig.settle(3).await.unwrap();
    refused(rig.add(1).await, "invoice with payment hash already exists");
    assert_eq!(rig.add(6).await.unwrap().add_index, 6);
    // The height rule still knows the hold: E = 850_080, delta 18, height 850_007.
    rig.handle.advance_blocks(55).unwrap();
    assert_eq!(rig.lookup(4).await.unwrap().state(), InvoiceState::Canceled);
}

#[tokio::test]
async fn credentials_and_identity_stay_over_restarts() {
    let mut rig = Rig::new().await;
    let read = |path: &Path, name| std::fs::read(path.join(name)).unwrap();
    let before = (read(rig.dir.path(), TLS_CERT), read(rig.dir.path(), ADMIN_MACAROON));
    let key = rig
        .lightning
        .get_info(GetInfoRequest {})
        .await
        .unwrap()
        .into_inner()
        .identity_pubkey;
    let mut rig = rig.killed_and_started().await;
    assert_eq!(
        (read(rig.dir.path(), TLS_CERT), read(rig.dir.path(), ADMIN_MACAROON)),
        before
    );
    assert_eq!(
        rig.lightning
            .get_info(GetInfoRequest {})
            .await
            .unwrap()
            .into_inner()
            .identity_pubkey,
        key
    );
}

#[tokio::test]
async fn the_control_interface_pays_mines_and_tells_the_ledger() {
    let mut rig = Rig::new().await;
    let mut control = control_client::connect(rig.dir.path(), rig.address).await.unwrap();
    let invoice = rig.add(1).await.unwrap().payment_request;
    let pay = |request: tellersim::PayRequest| tellersim::PayRequest {
        payment_request: invoice.clone(),
        ..request
    };
    let under = pay(tellersim::PayRequest {
        amount_msat: 999_999,
        wait: true,
        ..Default::default()
    });
    let under = control.pay(under).await.unwrap().into_inner();
    assert_eq!(under.status(), tellersim::payment::Status::Failed);
    assert_eq!(under.failure_reason, "INCORRECT_PAYMENT_DETAILS: amount too low");
    let over = pay(tellersim::PayRequest {
        amount_msat: 3_000_000,
        parts: 3,
        ..Default::default()
    });
    let over = control.pay(over).await.unwrap().into_inner();
    assert_eq!(
        (over.status(), over.held_msat),
        (tellersim::payment::Status::InFlight, 3_000_000)
    );
    let mut follow = control
        .follow_payment(tellersim::PaymentId { id: over.id })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(follow.message().await.unwrap().unwrap(), over);
    rig.settle(1).await.unwrap();
    let done = follow.message().await.unwrap().unwrap();
    assert_eq!(
        (done.status(), done.preimage.len()),
        (tellersim::payment::Status::Succeeded, 32)
    );
    assert_eq!(follow.message().await.unwrap(), None);
    assert_eq!(
        control
            .get_payment(tellersim::PaymentId { id: over.id })
            .await
            .unwrap()
            .into_inner(),
        done
    );
    let unknown = control.get_payment(tellersim::PaymentId { id: 99 }).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    let chain = control
        .advance_blocks(tellersim::AdvanceBlocksRequest { blocks: 2 })
        .await
        .unwrap()
        .into_inner();
    assert_eq!(chain.height, 850_002);
    let mut ledger = control.ledger(tellersim::LedgerRequest {}).await.unwrap().into_inner();
    let mut entries = Vec::new();
    while let Some(entry) = ledger.message().await.unwrap() {
        entries.push(entry.entry.unwrap());
    }
    use tellersim::ledger_entry::Entry;
    let [
        Entry::Summary(sum),
        Entry::Invoice(record),
        Entry::Payment(first),
        Entry::Payment(second),
    ] = &entries[..]
    else {
        panic!("{entries:?}")
    };
    assert_eq!(
        (sum.sent_msat, sum.settled_msat, sum.refunded_msat, sum.held_msat),
        (3_999_999, 3_000_000, 999_999, 0)
    );
    let causes: Vec<&str> = record.history.iter().map(|entry| entry.cause.as_str()).collect();
    assert_eq!(causes, ["added", "paid", "settle_call"]);
    assert_eq!((first, second), (&under, &done));
}

#[tokio::test]
async fn a_wallet_refuses_what_it_can_not_pay() {
    let mut rig = Rig::new().await;
    let invoice = rig.add(1).await.unwrap().payment_request;
    let any = AddHoldInvoiceRequest { value: 0, ..request(2) };
    let any = rig
        .invoices
        .add_hold_invoice(any)
        .await
        .unwrap()
        .into_inner()
        .payment_request;
    let mut other = Rig::new().await;
    let foreign = other.add(1).await.unwrap().payment_request;
    let options = PayOptions::default();
    for (text, options) in [
        ("lnbcrt", options.clone()),
        (foreign.as_str(), options.clone()),
        (any.as_str(), options.clone()),
        (
            invoice.as_str(),
            PayOptions {
                parts: 101,
                ..options.clone()
            },
        ),
        (
            invoice.as_str(),
            PayOptions {
                parts: 2,
                missing_parts: 2,
                ..options.clone()
            },
        ),
        (
            invoice.as_str(),
            PayOptions {
                amount_msat: Some(u64::MAX),
                ..options.clone()
            },
        ),
    ] {
        assert!(rig.handle.pay(text, &options).is_err(), "{text} {options:?}");
    }
    assert!(
        rig.handle
            .pay(
                &any,
                &PayOptions {
                    amount_msat: Some(7),
                    ..options
                }
            )
            .is_ok()
    );
}

#[tokio::test]
async fn calls_before_the_start_get_lnds_texts() {
    let mut rig = Rig::new().await;
    let texts = [
        (
            WalletState::WaitingToStart,
            "waiting to start, RPC services not available",
        ),
        (
            WalletState::Locked,
            "wallet locked, unlock it to enable full RPC access",
        ),
        (
            WalletState::Unlocked,
            "the RPC server is in the process of starting up, but not yet ready to accept calls",
        ),
    ];
    for (state, text) in texts {
        rig.handle.inject(Fault::SetState(state)).unwrap();
        let channel = control_client::channel(rig.dir.path(), rig.address).await.unwrap();
        let mut lightning = LightningClient::new(channel.clone());
        refused(lightning.get_info(GetInfoRequest {}).await, text);
        let mut client = StateClient::new(channel);
        let mut states = client
            .subscribe_state(SubscribeStateRequest {})
            .await
            .unwrap()
            .into_inner();
        assert_eq!(states.message().await.unwrap().unwrap().state(), state);
    }
    let mut states = StateClient::new(control_client::channel(rig.dir.path(), rig.address).await.unwrap());
    let mut states = states
        .subscribe_state(SubscribeStateRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!(states.message().await.unwrap().unwrap().state(), WalletState::Unlocked);
    rig.handle.inject(Fault::SetState(WalletState::ServerActive)).unwrap();
    assert_eq!(
        states.message().await.unwrap().unwrap().state(),
        WalletState::ServerActive
    );
    rig.add(1).await.unwrap();
}

#[tokio::test]
async fn from_rpc_active_on_holds_can_be_settled_but_an_add_blocks_after_its_effect() {
    let mut rig = Rig::new().await;
    rig.held(1).await;
    rig.held(2).await;
    rig.handle.inject(Fault::SetState(WalletState::RpcActive)).unwrap();
    rig.reconnect().await;
    // The watcher of heights is off: a settle rescues a hold that it would cancel.
    rig.handle.advance_blocks(70).unwrap();
    rig.settle(1).await.unwrap();
    let mut invoices = rig.invoices.clone();
    let blocked = tokio::spawn(async move { invoices.add_hold_invoice(request(3)).await });
    while rig.lookup(3).await.is_err() {
        tokio::task::yield_now().await;
    }
    assert!(!blocked.is_finished());
    // A second try meets the first one's row, also only once the node is up.
    let mut invoices = rig.invoices.clone();
    let retry = tokio::spawn(async move { invoices.add_hold_invoice(request(3)).await });
    rig.handle.inject(Fault::SetState(WalletState::ServerActive)).unwrap();
    blocked.await.unwrap().unwrap();
    refused(retry.await.unwrap(), "invoice with payment hash already exists");
    assert_eq!(rig.lookup(1).await.unwrap().state(), InvoiceState::Settled);
    assert_eq!(rig.lookup(2).await.unwrap().state(), InvoiceState::Canceled);
}

#[test]
fn it_serves_in_a_runtime_thread_of_its_own() {
    let dir = tempfile::tempdir().unwrap();
    let options = SimLndOptions {
        clock: Arc::new(SystemClock),
        ..SimLndOptions::default()
    };
    let sim = SimLnd::open(dir.path(), &options).unwrap();
    assert!(
        SimLnd::open(dir.path(), &options).is_err(),
        "one process for a directory"
    );
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (serve, handle) = (sim.serve(listener), sim.handle());
    let runtime = || {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap()
    };
    let thread = std::thread::spawn(move || runtime().block_on(serve));
    runtime().block_on(async {
        let mut control = control_client::connect(dir.path(), address).await.unwrap();
        control
            .advance_blocks(tellersim::AdvanceBlocksRequest { blocks: 1 })
            .await
            .unwrap();
    });
    assert_eq!(handle.ledger().unwrap().height, 850_001);
    handle.shutdown();
    thread.join().unwrap().unwrap();
    assert!(handle.ledger().is_err());
    let again = SimLnd::open(dir.path(), &options).unwrap();
    assert_eq!(again.handle().ledger().unwrap().height, 850_001);
}

#[tokio::test]
async fn the_pay_command_tells_success_from_money_back() {
    use tellerd::sim::lnd::command::{run_control, run_pay};
    let mut rig = Rig::new().await;
    let (dir, address) = (rig.dir.path().to_owned(), rig.address);
    for (n, succeeds) in [(1, true), (2, false)] {
        let invoice = rig.add(n).await.unwrap().payment_request;
        let dir = dir.clone();
        let paying = tokio::spawn(async move { run_pay(&dir, address, &invoice, &PayOptions::default()).await });
        let mut stream = rig.watch(n).await;
        while next_state(&mut stream).await != Some(InvoiceState::Accepted) {}
        if succeeds {
            // The customer's wallet waits through a broken connection.
            rig.handle.inject(Fault::SetState(WalletState::Locked)).unwrap();
            rig.handle.inject(Fault::SetState(WalletState::ServerActive)).unwrap();
            rig.reconnect().await;
            rig.settle(n).await.unwrap();
        } else {
            rig.cancel(n).await.unwrap();
        }
        assert_eq!(paying.await.unwrap().unwrap(), succeeds);
    }
    let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    for command in ["advance 2", "interval 0", "ledger", "payment 1", "slow 0"] {
        run_control(&dir, address, &words(command)).await.unwrap();
    }
    assert_eq!(rig.handle.ledger().unwrap().height, 850_002);
    assert!(
        run_control(&dir, address, &words("dance"))
            .await
            .unwrap_err()
            .to_string()
            .contains("advance BLOCKS")
    );
    assert!(run_control(&dir, address, &words("payment 77")).await.is_err());
}
