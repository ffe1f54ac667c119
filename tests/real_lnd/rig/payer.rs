//! What a payer's node is asked to do: pay whole, in parts, too much, or never the whole.
//!
//! Where the money is, is told by the customer's own node: [`Net::payment`], and its channel's balance.

use sha2::{Digest, Sha256};
use tellerd::proto::lnrpc::payment::PaymentStatus;
use tellerd::proto::lnrpc::{Hop, HtlcAttempt, MppRecord, Payment, Route};
use tellerd::proto::routerrpc::router_client::RouterClient;
use tellerd::proto::routerrpc::{SendPaymentRequest, SendToRouteRequest, TrackPaymentRequest};
use tokio::task::JoinHandle;
use tonic::Status;

use super::node::{Authed, Node};
use super::{Net, until};

/// An invoice as a wallet reads it.
#[derive(Debug, Clone)]
pub struct Bill {
    pub hash: [u8; 32],
    pub payment_addr: [u8; 32],
    pub amount_msat: u64,
    pub min_final_cltv: u32,
}

impl Bill {
    /// Reads BOLT11.
    pub fn read(payment_request: &str) -> Self {
        let invoice: lightning_invoice::Bolt11Invoice = payment_request.parse().expect("BOLT11");
        Self {
            hash: *invoice.payment_hash().as_ref(),
            payment_addr: invoice.payment_secret().0,
            amount_msat: invoice.amount_milli_satoshis().unwrap_or_default(),
            min_final_cltv: u32::try_from(invoice.min_final_cltv_expiry_delta()).expect("blocks"),
        }
    }
}

/// The hash that a preimage settles.
pub fn hash_of(preimage: &[u8; 32]) -> [u8; 32] {
    Sha256::digest(preimage).into()
}

/// One HTLC that a test makes itself.
#[derive(Debug, Clone, Copy)]
pub struct Part {
    /// What it carries.
    pub amount_msat: u64,
    /// What it says that the whole set carries.
    pub total_msat: u64,
    /// Blocks to its expiry at the merchant.
    pub cltv: u32,
}

impl Node {
    async fn router(&self) -> RouterClient<Authed> {
        let channel = self.channel().await.expect("a payer's node answers");
        RouterClient::with_interceptor(channel, self.macaroon("admin.macaroon"))
    }

    /// Pays as a wallet does; the last state of the payment, once it is final. In HTLCs of at most
    /// `shard_msat` when that is given.
    pub async fn pay(&self, payment_request: &str, shard_msat: Option<u64>) -> JoinHandle<Result<Payment, Status>> {
        let mut router = self.router().await;
        let request = SendPaymentRequest {
            payment_request: payment_request.to_owned(),
            timeout_seconds: 60,
            fee_limit_msat: 1_000,
            max_parts: shard_msat.map_or(1, |_| 16),
            max_shard_size_msat: shard_msat.unwrap_or_default(),
            ..SendPaymentRequest::default()
        };
        tokio::spawn(async move {
            let mut updates = router.send_payment_v2(request).await?.into_inner();
            let mut last = None;
            while let Some(payment) = updates.message().await? {
                last = Some(payment);
            }
            last.ok_or_else(|| Status::unknown("the payment's stream ended without a word"))
        })
    }

    /// Sends one HTLC of the test's own making; what became of it, once that is known.
    pub async fn send_part(&self, bill: &Bill, part: Part) -> JoinHandle<Result<HtlcAttempt, Status>> {
        let mut router = self.router().await;
        let lane = self
            .channels()
            .await
            .into_iter()
            .find(|lane| lane.active)
            .expect("a channel");
        let height = self.info().await.expect("a payer's node answers").block_height;
        let amount = i64::try_from(part.amount_msat).expect("an amount");
        // A receiver refuses an expiry that a block found meanwhile would make too early; wallets add a few blocks.
        let expiry = height + part.cltv;
        let hop = Hop {
            chan_id: lane.chan_id,
            expiry,
            amt_to_forward_msat: amount,
            fee_msat: 0,
            pub_key: lane.remote_pubkey,
            mpp_record: Some(MppRecord {
                total_amt_msat: i64::try_from(part.total_msat).expect("an amount"),
                payment_addr: bill.payment_addr.to_vec(),
            }),
        };
        let route = Route {
            total_time_lock: expiry,
            hops: vec![hop],
            total_fees_msat: 0,
            total_amt_msat: amount,
        };
        let request = SendToRouteRequest {
            payment_hash: bill.hash.to_vec(),
            route: Some(route),
            skip_temp_err: true,
        };
        tokio::spawn(async move { Ok(router.send_to_route_v2(request).await?.into_inner()) })
    }

    /// A payment as this node sees it now; `None` when it knows none.
    pub async fn payment(&self, hash: [u8; 32]) -> Option<Payment> {
        let request = TrackPaymentRequest {
            payment_hash: hash.to_vec(),
            no_inflight_updates: false,
        };
        let mut updates = self.router().await.track_payment_v2(request).await.ok()?.into_inner();
        updates.message().await.ok()?
    }
}

impl Net {
    /// [`Node::pay`] of the customer.
    pub async fn pay(&self, payment_request: &str, shard_msat: Option<u64>) -> JoinHandle<Result<Payment, Status>> {
        self.customer.pay(payment_request, shard_msat).await
    }

    /// [`Node::send_part`] of the customer.
    pub async fn send_part(&self, bill: &Bill, part: Part) -> JoinHandle<Result<HtlcAttempt, Status>> {
        self.customer.send_part(bill, part).await
    }

    /// [`Node::payment`] of the customer.
    pub async fn payment(&self, hash: [u8; 32]) -> Option<Payment> {
        self.customer.payment(hash).await
    }

    /// Returns once the customer's node says so of the payment.
    pub async fn payment_is(&self, hash: [u8; 32], status: PaymentStatus) {
        let what = format!("the customer's payment is {status:?}");
        until(&what, async || {
            self.payment(hash)
                .await
                .is_some_and(|payment| payment.status() == status)
        })
        .await;
    }
}
