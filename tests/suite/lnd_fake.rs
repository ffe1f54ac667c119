//! A server that speaks just enough of LND's gRPC to test the client against: a few scripted answers, no behaviour.
//!
//! It runs on a thread and a runtime of its own, so that stopping it closes every one of its sockets at once.
#![allow(clippy::expect_used)]

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use futures_util::StreamExt;
use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use tellerd::proto::chainrpc::BlockEpoch;
use tellerd::proto::chainrpc::chain_notifier_server::{ChainNotifier, ChainNotifierServer};
use tellerd::proto::invoicesrpc::invoices_server::{Invoices, InvoicesServer};
use tellerd::proto::invoicesrpc::*;
use tellerd::proto::lnrpc::lightning_server::{Lightning, LightningServer};
use tellerd::proto::lnrpc::state_server::{State, StateServer};
use tellerd::proto::lnrpc::*;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::{TcpListenerStream, UnboundedReceiverStream};
use tonic::codegen::BoxStream;
use tonic::transport::{Identity, Server, ServerTlsConfig};
use tonic::{Request, Response, Status};

/// A certificate shaped like LND's: self-signed, CA bit set, used as the end entity.
pub struct Certificate {
    pub pem: String,
    pub der: Vec<u8>,
    key_pem: String,
}

impl Certificate {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(vec!["localhost".to_owned()]).expect("names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("key");
        let certificate = params.self_signed(&key).expect("certificate");
        Self {
            pem: certificate.pem(),
            der: certificate.der().to_vec(),
            key_pem: key.serialize_pem(),
        }
    }
}

/// What the server answers, and what it saw.
#[derive(Default)]
pub struct Script {
    /// The macaroon that is asked for, in hex.
    pub macaroon: Mutex<String>,
    /// The failure that every invoice call answers.
    pub fail: Mutex<Option<Status>>,
    /// GetInfo never answers.
    pub hang: Mutex<bool>,
    pub synced: Mutex<bool>,
    pub channels: Mutex<Vec<Channel>>,
    /// The method of each call, and the values of its `macaroon` metadata.
    pub calls: Mutex<Vec<(&'static str, Vec<String>)>>,
    pub connections: Mutex<usize>,
    pub added: Mutex<Vec<AddHoldInvoiceRequest>>,
    /// The server's ends of the open streams. Dropped: the stream ends.
    pub watchers: Mutex<Vec<mpsc::UnboundedSender<Result<Invoice, Status>>>>,
    pub block_watchers: Mutex<Vec<mpsc::UnboundedSender<Result<BlockEpoch, Status>>>>,
}

/// An invoice of the given hash and state.
pub fn invoice(r_hash: Vec<u8>, state: invoice::InvoiceState) -> Invoice {
    Invoice {
        r_hash,
        value_msat: 1_000,
        state: state.into(),
        ..Invoice::default()
    }
}

#[derive(Clone)]
struct Service(Arc<Script>);

impl Service {
    /// Notes the call; checks the macaroon as LND does.
    fn enter<M>(&self, method: &'static str, request: Request<M>) -> Result<M, Status> {
        let values = request.metadata().get_all("macaroon").iter();
        let values: Vec<String> = values.map(|v| v.to_str().expect("text").to_owned()).collect();
        let matches = values == [self.0.macaroon.lock().expect("lock").clone()];
        self.0.calls.lock().expect("lock").push((method, values));
        if !matches && method != "GetState" {
            return Err(Status::unknown(
                "verification failed: signature mismatch after caveat verification",
            ));
        }
        Ok(request.into_inner())
    }

    fn scripted(&self) -> Result<(), Status> {
        self.0.fail.lock().expect("lock").clone().map_or(Ok(()), Err)
    }
}

#[tonic::async_trait]
impl State for Service {
    type SubscribeStateStream = BoxStream<SubscribeStateResponse>;

    async fn subscribe_state(
        &self,
        _: Request<SubscribeStateRequest>,
    ) -> Result<Response<Self::SubscribeStateStream>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn get_state(&self, request: Request<GetStateRequest>) -> Result<Response<GetStateResponse>, Status> {
        self.enter("GetState", request)?;
        Ok(Response::new(GetStateResponse {
            state: WalletState::ServerActive.into(),
        }))
    }
}

#[tonic::async_trait]
impl Lightning for Service {
    async fn get_info(&self, request: Request<GetInfoRequest>) -> Result<Response<GetInfoResponse>, Status> {
        self.enter("GetInfo", request)?;
        let hang = *self.0.hang.lock().expect("lock");
        if hang {
            std::future::pending::<()>().await;
        }
        Ok(Response::new(GetInfoResponse {
            alias: "fake".to_owned(),
            block_height: 800_000,
            synced_to_chain: *self.0.synced.lock().expect("lock"),
            chains: vec![Chain {
                network: "regtest".to_owned(),
            }],
            ..GetInfoResponse::default()
        }))
    }

    async fn lookup_invoice(&self, request: Request<PaymentHash>) -> Result<Response<Invoice>, Status> {
        let asked = self.enter("LookupInvoice", request)?;
        self.scripted()?;
        Ok(Response::new(invoice(asked.r_hash, invoice::InvoiceState::Open)))
    }

    async fn lookup_htlc_resolution(
        &self,
        _: Request<LookupHtlcResolutionRequest>,
    ) -> Result<Response<LookupHtlcResolutionResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn list_channels(
        &self,
        request: Request<ListChannelsRequest>,
    ) -> Result<Response<ListChannelsResponse>, Status> {
        self.enter("ListChannels", request)?;
        let channels = self.0.channels.lock().expect("lock").clone();
        Ok(Response::new(ListChannelsResponse { channels }))
    }

    async fn wallet_balance(
        &self,
        _: Request<WalletBalanceRequest>,
    ) -> Result<Response<WalletBalanceResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }

    async fn get_debug_info(&self, _: Request<GetDebugInfoRequest>) -> Result<Response<GetDebugInfoResponse>, Status> {
        Err(Status::unimplemented("not scripted"))
    }
}

#[tonic::async_trait]
impl Invoices for Service {
    type SubscribeSingleInvoiceStream = BoxStream<Invoice>;

    async fn subscribe_single_invoice(
        &self,
        request: Request<SubscribeSingleInvoiceRequest>,
    ) -> Result<Response<Self::SubscribeSingleInvoiceStream>, Status> {
        let asked = self.enter("SubscribeSingleInvoice", request)?;
        let (sender, receiver) = mpsc::unbounded_channel();
        let now = invoice(asked.r_hash, invoice::InvoiceState::Open);
        sender.send(Ok(now)).expect("receiver is below");
        self.0.watchers.lock().expect("lock").push(sender);
        Ok(Response::new(Box::pin(UnboundedReceiverStream::new(receiver))))
    }

    async fn cancel_invoice(&self, request: Request<CancelInvoiceMsg>) -> Result<Response<CancelInvoiceResp>, Status> {
        self.enter("CancelInvoice", request)?;
        self.scripted()?;
        Ok(Response::new(CancelInvoiceResp {}))
    }

    async fn add_hold_invoice(
        &self,
        request: Request<AddHoldInvoiceRequest>,
    ) -> Result<Response<AddHoldInvoiceResp>, Status> {
        let asked = self.enter("AddHoldInvoice", request)?;
        self.scripted()?;
        self.0.added.lock().expect("lock").push(asked);
        Ok(Response::new(AddHoldInvoiceResp {
            payment_request: "lnbcrt1fake".to_owned(),
            ..AddHoldInvoiceResp::default()
        }))
    }

    async fn settle_invoice(&self, request: Request<SettleInvoiceMsg>) -> Result<Response<SettleInvoiceResp>, Status> {
        self.enter("SettleInvoice", request)?;
        self.scripted()?;
        Ok(Response::new(SettleInvoiceResp {}))
    }
}

#[tonic::async_trait]
impl ChainNotifier for Service {
    type RegisterBlockEpochNtfnStream = BoxStream<BlockEpoch>;

    async fn register_block_epoch_ntfn(
        &self,
        request: Request<BlockEpoch>,
    ) -> Result<Response<Self::RegisterBlockEpochNtfnStream>, Status> {
        self.enter("RegisterBlockEpochNtfn", request)?;
        let (sender, receiver) = mpsc::unbounded_channel();
        self.0.block_watchers.lock().expect("lock").push(sender);
        Ok(Response::new(Box::pin(UnboundedReceiverStream::new(receiver))))
    }
}

/// A running server. Dropped: stopped.
pub struct FakeLnd {
    pub address: SocketAddr,
    pub script: Arc<Script>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl FakeLnd {
    /// A server on a free port of 127.0.0.1 that asks for [`MACAROON`].
    pub fn start(certificate: &Certificate) -> Self {
        let script = Script::default();
        *script.macaroon.lock().expect("lock") = hex::encode(MACAROON);
        Self::start_at("127.0.0.1:0".parse().expect("address"), certificate, Arc::new(script))
    }

    /// A server at `address` with the script of an earlier one.
    pub fn start_at(address: SocketAddr, certificate: &Certificate, script: Arc<Script>) -> Self {
        let listener = TcpListener::bind(address).expect("bind");
        listener.set_nonblocking(true).expect("listener");
        let address = listener.local_addr().expect("address");
        let tls = ServerTlsConfig::new().identity(Identity::from_pem(&certificate.pem, &certificate.key_pem));
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("runtime");
        let seen = script.clone();
        let thread = std::thread::spawn(move || {
            runtime.block_on(async move {
                tokio::select! {
                    () = serve(listener, tls, seen) => {}
                    _ = stopped => {}
                }
            });
        });
        Self {
            address,
            script,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Closes every socket, then returns.
    pub fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("server thread");
        }
    }

    /// The macaroon metadata of each call of `method`.
    pub fn macaroons_of(&self, method: &str) -> Vec<Vec<String>> {
        let calls = self.script.calls.lock().expect("lock");
        let calls = calls.iter().filter(|(name, _)| *name == method);
        calls.map(|(_, values)| values.clone()).collect()
    }

    pub fn connections(&self) -> usize {
        *self.script.connections.lock().expect("lock")
    }

    pub fn fail_with(&self, status: Option<Status>) {
        *self.script.fail.lock().expect("lock") = status;
    }
}

impl Drop for FakeLnd {
    fn drop(&mut self) {
        self.stop();
    }
}

async fn serve(listener: TcpListener, tls: ServerTlsConfig, script: Arc<Script>) {
    let listener = tokio::net::TcpListener::from_std(listener).expect("listener");
    let counted = script.clone();
    let incoming = TcpListenerStream::new(listener).inspect(move |_| *counted.connections.lock().expect("lock") += 1);
    let service = Service(script);
    Server::builder()
        .tls_config(tls)
        .expect("tls")
        .add_service(StateServer::new(service.clone()))
        .add_service(LightningServer::new(service.clone()))
        .add_service(InvoicesServer::new(service.clone()))
        .add_service(ChainNotifierServer::new(service))
        .serve_with_incoming(incoming)
        .await
        .expect("serve");
}

/// The macaroon that [`FakeLnd::start`] asks for.
pub const MACAROON: &[u8] = b"\x02\x01\x03lnd\xff\x00good";

/// LND's two files in a folder of their own.
pub struct Files {
    folder: tempfile::TempDir,
}

impl Files {
    pub fn none() -> Self {
        Self {
            folder: tempfile::tempdir().expect("folder"),
        }
    }

    pub fn new(certificate: &Certificate, macaroon: &[u8]) -> Self {
        let files = Self::none();
        files.write_certificate(certificate);
        files.write_macaroon(macaroon);
        files
    }

    pub fn tls_cert(&self) -> PathBuf {
        self.folder.path().join("tls.cert")
    }

    pub fn macaroon(&self) -> PathBuf {
        self.folder.path().join("admin.macaroon")
    }

    pub fn write_certificate(&self, certificate: &Certificate) {
        write(&self.tls_cert(), certificate.pem.as_bytes());
    }

    pub fn write_macaroon(&self, macaroon: &[u8]) {
        write(&self.macaroon(), macaroon);
    }
}

fn write(path: &Path, contents: &[u8]) {
    std::fs::write(path, contents).expect("write");
}
