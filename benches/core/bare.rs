//! The limit at LND: a bare tonic client of the same node, one connection for calls and one for streams.

use std::net::SocketAddr;

use tellerd::ids::{PaymentHash, Preimage};
use tellerd::proto::invoicesrpc::invoices_client::InvoicesClient;
use tellerd::proto::invoicesrpc::{AddHoldInvoiceRequest, SettleInvoiceMsg, SubscribeSingleInvoiceRequest};
use tellerd::proto::lnrpc::invoice::InvoiceState;
use tellerd::proto::lnrpc::lightning_client::LightningClient;
use tellerd::proto::lnrpc::{self, GetInfoRequest, LookupHtlcResolutionRequest};
use tellerd::sim::lnd::ADMIN_MACAROON;
use tellerd::sim::lnd::control_client::{Macaroon, channel};
use tonic::Streaming;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;

use crate::node::Node;

type Authed = InterceptedService<Channel, Macaroon>;

/// Clones share the connections.
#[derive(Clone)]
pub struct Bare {
    lightning: LightningClient<Authed>,
    invoices: InvoicesClient<Authed>,
    streams: InvoicesClient<Authed>,
}

impl Bare {
    pub async fn connect(node: &Node, address: SocketAddr) -> Self {
        let dir = node.dir();
        let macaroon = Macaroon::read(&dir, ADMIN_MACAROON).unwrap();
        let calls = channel(&dir, address).await.unwrap();
        let streams = channel(&dir, address).await.unwrap();
        Self {
            lightning: LightningClient::with_interceptor(calls.clone(), macaroon.clone()),
            invoices: InvoicesClient::with_interceptor(calls, macaroon.clone()),
            streams: InvoicesClient::with_interceptor(streams, macaroon),
        }
    }

    pub async fn add(&self, hash: PaymentHash, value_msat: u64) -> String {
        let request = AddHoldInvoiceRequest {
            hash: hash.0.to_vec(),
            memo: "ATM atm-00001 cash-out 01AAAAAAAAAAAAAA".into(),
            value_msat: i64::try_from(value_msat).unwrap(),
            expiry: 24 * 3600,
            cltv_expiry: 80,
            ..AddHoldInvoiceRequest::default()
        };
        let added = self.invoices.clone().add_hold_invoice(request).await.unwrap();
        added.into_inner().payment_request
    }

    pub async fn watch(&self, hash: PaymentHash) -> Streaming<lnrpc::Invoice> {
        let r_hash = hash.0.to_vec();
        let request = SubscribeSingleInvoiceRequest { r_hash };
        let opened = self.streams.clone().subscribe_single_invoice(request).await;
        opened.unwrap().into_inner()
    }

    pub async fn lookup(&self, hash: PaymentHash) -> lnrpc::Invoice {
        let r_hash = hash.0.to_vec();
        let request = lnrpc::PaymentHash { r_hash };
        let found = self.lightning.clone().lookup_invoice(request).await;
        found.unwrap().into_inner()
    }

    pub async fn info(&self) {
        self.lightning.clone().get_info(GetInfoRequest {}).await.unwrap();
    }

    pub async fn settle(&self, preimage: &Preimage) {
        let preimage = preimage.expose().to_vec();
        let message = SettleInvoiceMsg { preimage };
        self.invoices.clone().settle_invoice(message).await.unwrap();
    }

    /// Looks the invoice up and asks what became of its HTLCs; whether all are at their end.
    pub async fn has_its_money(&self, hash: PaymentHash) -> bool {
        let invoice = self.lookup(hash).await;
        for htlc in invoice.htlcs {
            let request = LookupHtlcResolutionRequest {
                chan_id: htlc.chan_id,
                htlc_index: htlc.htlc_index,
            };
            if self.lightning.clone().lookup_htlc_resolution(request).await.is_err() {
                return false;
            }
        }
        true
    }
}

/// Returns once the stream says that the money is held.
pub async fn held(stream: &mut Streaming<lnrpc::Invoice>) {
    while let Some(invoice) = stream.message().await.unwrap() {
        if invoice.state() == InvoiceState::Accepted {
            return;
        }
    }
    panic!("the stream ended before the payment was held");
}
