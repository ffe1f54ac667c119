//! A Lightning node that costs next to nothing: what it was asked stays in memory, and nobody ever pays.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{StreamExt, stream};
use tellerd::ids::{PaymentHash, Preimage};
use tellerd::lnd::{
    Commitment, FundsSeen, HoldInvoiceRequest, HtlcKey, InvoiceSnapshot, InvoiceState, Lightning, LnError, NodeInfo,
    NodeState, Updates,
};
use tellerd::money::Msat;

const HEIGHT: u32 = 800_000;

#[derive(Default)]
pub struct Node(Mutex<HashMap<PaymentHash, InvoiceSnapshot>>);

/// The first thing, and then never another.
fn once<T: Send + 'static>(first: T) -> Updates<T> {
    Box::pin(stream::iter([Ok(first)]).chain(stream::pending()))
}

#[async_trait]
impl Lightning for Node {
    async fn state(&self) -> Result<NodeState, LnError> {
        Ok(NodeState::ServerActive)
    }

    async fn info(&self) -> Result<NodeInfo, LnError> {
        Ok(NodeInfo {
            pubkey: "02".repeat(33),
            alias: "memory".into(),
            version: "0".into(),
            network: "regtest".into(),
            block_height: HEIGHT,
            synced_to_chain: true,
            stores_resolutions: false,
            hold_expiry_delta: None,
            no_new: None,
        })
    }

    async fn add_hold_invoice(&self, request: &HoldInvoiceRequest) -> Result<String, LnError> {
        // As long as LND's.
        let payment_request = format!("lnbcrt{}{}", request.amount.0, request.hash.to_string().repeat(5));
        let snapshot = InvoiceSnapshot {
            hash: request.hash,
            state: InvoiceState::Open,
            amount: request.amount,
            paid: Msat(0),
            payment_request: payment_request.clone(),
            lowest_expiry_height: None,
        };
        self.0.lock().unwrap().insert(request.hash, snapshot);
        Ok(payment_request)
    }

    async fn settle(&self, _: &Preimage) -> Result<(), LnError> {
        Ok(())
    }

    async fn cancel(&self, _: &PaymentHash) -> Result<(), LnError> {
        Ok(())
    }

    async fn lookup(&self, hash: &PaymentHash) -> Result<Option<InvoiceSnapshot>, LnError> {
        Ok(self.0.lock().unwrap().get(hash).cloned())
    }

    async fn commit(&self, hash: &PaymentHash) -> Result<Commitment, LnError> {
        let held = self.lookup(hash).await?;
        Ok(Commitment {
            held,
            height: HEIGHT,
            kept_until: None,
        })
    }

    async fn rights(&self) -> Result<(), LnError> {
        Ok(())
    }

    async fn follows(&self) -> Result<(), LnError> {
        Ok(())
    }

    async fn funds(&self, _: &PaymentHash) -> Result<FundsSeen, LnError> {
        Ok(FundsSeen::Final)
    }

    async fn finals(&self) -> Result<Updates<HtlcKey>, LnError> {
        Ok(Box::pin(futures_util::stream::pending()))
    }

    fn pace(&self) -> Duration {
        Duration::from_secs(10)
    }

    async fn watch(&self, hash: &PaymentHash) -> Result<Updates<InvoiceSnapshot>, LnError> {
        Ok(match self.lookup(hash).await? {
            Some(snapshot) => once(snapshot),
            None => Box::pin(stream::pending()),
        })
    }

    async fn blocks(&self) -> Result<Updates<u32>, LnError> {
        Ok(once(HEIGHT))
    }
}
