//! The limit: a bare tonic client, one connection, nothing written down.

use std::sync::Arc;

use tellerd::ids::Preimage;
use tellerd::proto::invoicesrpc::invoices_client::InvoicesClient;
use tellerd::proto::invoicesrpc::{AddHoldInvoiceRequest, CancelInvoiceMsg, SettleInvoiceMsg};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::rates::{Op, VALUE_SATS};
use crate::rig::{Authed, Net};

/// A client of the merchant's node.
pub struct Bare(InvoicesClient<Authed>);

impl Bare {
    pub async fn connect(net: &Net) -> Self {
        let channel = net.merchant.channel().await.unwrap();
        let macaroon = net.merchant.macaroon("admin.macaroon");
        Self(InvoicesClient::with_interceptor(channel, macaroon))
    }

    /// Does `op` with each preimage, `callers` at once; returns the invoices of new ones.
    pub async fn all(&self, op: Op, preimages: &[Preimage], callers: usize) -> Vec<String> {
        let (mut tasks, window) = (JoinSet::new(), Arc::new(Semaphore::new(callers)));
        for preimage in preimages {
            let turn = window.clone().acquire_owned().await.unwrap();
            let (client, preimage) = (self.0.clone(), preimage.clone());
            tasks.spawn(async move {
                let told = one(client, op, &preimage).await;
                drop(turn);
                told
            });
        }
        tasks.join_all().await.into_iter().flatten().collect()
    }
}

async fn one(mut client: InvoicesClient<Authed>, op: Op, preimage: &Preimage) -> Option<String> {
    let hash = preimage.hash().0.to_vec();
    match op {
        Op::Add => {
            let request = AddHoldInvoiceRequest {
                hash,
                memo: "100.00 EUR at the kiosk in the hall".into(),
                value: i64::try_from(VALUE_SATS).unwrap(),
                expiry: 600,
                cltv_expiry: 80,
                ..AddHoldInvoiceRequest::default()
            };
            let added = client.add_hold_invoice(request).await.unwrap();
            Some(added.into_inner().payment_request)
        }
        Op::Cancel => {
            let message = CancelInvoiceMsg { payment_hash: hash };
            client.cancel_invoice(message).await.unwrap();
            None
        }
        Op::Settle => {
            let preimage = preimage.expose().to_vec();
            client.settle_invoice(SettleInvoiceMsg { preimage }).await.unwrap();
            None
        }
    }
}
