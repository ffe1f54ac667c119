//! What became of one cash-out: its notes by the emulator, its money by both nodes, and whether that may be.
//!
//! Called when everything is at rest. What must stay true: tellerd's own words count only where a loss has to be named.

use tellerd::api::CashOutView;
use tellerd::proto::lnrpc::invoice::InvoiceState;
use tellerd::proto::lnrpc::payment::PaymentStatus;
use tellerd::proto::lnrpc::{LookupHtlcResolutionRequest, PaymentHash};
use tonic::Code;

use super::stage::{AMOUNT, Stage, State};
use crate::rig::Net;
use crate::rig::payer::Bill;

/// What finally became of an invoice's HTLCs, by the merchant's node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Final {
    /// There never was one.
    None,
    /// Not known yet: some peer, or the chain, has still to be heard.
    Pending,
    /// The merchant has the money.
    Settled {
        /// The peer gave it, not the chain.
        offchain: bool,
    },
    /// The customer has it back.
    Failed,
}

/// One cash-out at rest.
pub struct Finding {
    pub view: Option<CashOutView>,
    /// In minor units.
    pub cash: u64,
    pub invoice: Option<InvoiceState>,
    pub htlcs: Final,
    pub payment: Option<PaymentStatus>,
    /// HTLCs of it in the channels of both nodes.
    pub in_channels: usize,
}

impl Finding {
    /// Asks everybody.
    pub async fn read(net: &Net, stage: &Stage, state: State) -> Self {
        let bill = stage.cell(state).request.as_deref().map(Bill::read);
        let (mut invoice, mut htlcs, mut payment, mut in_channels) = (None, Final::None, None, 0);
        if let Some(bill) = &bill {
            (invoice, htlcs) = at_merchant(net, bill.hash).await;
            payment = net.payment(bill.hash).await.map(|payment| payment.status());
            in_channels = in_flight(net, &bill.hash).await;
        }
        Self {
            view: stage.view(state).await,
            cash: stage.cash(state),
            invoice,
            htlcs,
            payment,
            in_channels,
        }
    }

    /// The merchant's price, in millisats, when it got it.
    pub fn earned_msat(&self) -> u64 {
        match (&self.view, self.payment) {
            (Some(view), Some(PaymentStatus::Succeeded)) => view.price_msat.0,
            _ => 0,
        }
    }

    /// Everything that must not be.
    pub fn wrong(&self) -> Vec<&'static str> {
        let (said, loss, claim) = self.view.as_ref().map_or(("", 0, 0), |view| {
            (view.state.as_str(), view.loss_minor.0, view.claim_minor.0)
        });
        let earned = matches!(self.htlcs, Final::Settled { .. }) && self.invoice == Some(InvoiceState::Settled);
        let named = said == "needs_operator" && loss == self.cash;
        let out = self.cash > 0;
        let rules = [
            (out && !earned && !named, "cash is out without money, and nobody is told"),
            (!out && earned, "money without cash"),
            (out && self.cash != AMOUNT, "not the notes that were ordered"),
            (self.in_channels > 0, "an HTLC is left in a channel"),
            (self.invoice == Some(InvoiceState::Accepted), "the invoice is still held"),
            (self.htlcs == Final::Pending, "the HTLCs have no final resolution"),
            (earned != (self.payment == Some(PaymentStatus::Succeeded)), "the nodes do not agree on the payment"),
            (
                !matches!(self.payment, None | Some(PaymentStatus::Succeeded | PaymentStatus::Failed)),
                "the customer's payment has no end",
            ),
            (said == "completed" && !(out && earned), "completed without cash or money"),
            (said == "canceled" && (out || earned), "canceled with cash or money"),
            (earned && loss > 0, "a loss that is none"),
            (claim > 0, "a claim for notes that are out"),
        ];
        rules.into_iter().filter_map(|(wrong, what)| wrong.then_some(what)).collect()
    }

    /// One line of the table, from the third column on.
    pub fn row(&self) -> String {
        let says = self.view.as_ref().map_or_else(
            || "refused".to_owned(),
            |view| match &view.reason {
                Some(reason) => format!("{}: {reason}", view.state),
                None => view.state.clone(),
            },
        );
        let invoice = self.invoice.map_or("none", |state| state.as_str_name());
        let htlcs = match self.htlcs {
            Final::None => "none",
            Final::Pending => "pending",
            Final::Settled { offchain: true } => "settled",
            Final::Settled { offchain: false } => "settled on chain",
            Final::Failed => "failed",
        };
        let payment = self.payment.map_or("none", |status| status.as_str_name());
        let loss = self.view.as_ref().map_or(0, |view| view.loss_minor.0);
        format!("{says} | {} | {loss} | {invoice} | {htlcs} | {payment}", self.cash)
    }
}

/// The invoice at the merchant's node, and the end of its HTLCs.
pub async fn at_merchant(net: &Net, hash: [u8; 32]) -> (Option<InvoiceState>, Final) {
    let mut client = net.merchant.lightning().await.expect("the merchant's node answers");
    let request = PaymentHash { r_hash: hash.to_vec() };
    let invoice = match client.lookup_invoice(request).await {
        Ok(invoice) => invoice.into_inner(),
        Err(status) if status.code() == Code::NotFound => return (None, Final::None),
        Err(status) => panic!("the invoice can not be looked up: {status}"),
    };
    let mut all = Final::None;
    for htlc in &invoice.htlcs {
        let request = LookupHtlcResolutionRequest {
            chan_id: htlc.chan_id,
            htlc_index: htlc.htlc_index,
        };
        let one = match client.lookup_htlc_resolution(request).await {
            Ok(told) => match told.into_inner() {
                told if told.settled => Final::Settled {
                    offchain: told.offchain,
                },
                _ => Final::Failed,
            },
            Err(status) if status.code() == Code::NotFound => Final::Pending,
            Err(status) => panic!("no word on an HTLC: {status}"),
        };
        // One cash-out is paid with one HTLC.
        assert!(all == Final::None || all == one, "parts with different ends");
        all = one;
    }
    (Some(invoice.state()), all)
}

/// HTLCs with this hash in the open channels of both nodes, as far as they run.
pub async fn in_flight(net: &Net, hash: &[u8; 32]) -> usize {
    let mut count = 0;
    for node in [&net.merchant, &net.customer].into_iter().filter(|node| node.is_running()) {
        let lanes = node.channels().await;
        let htlcs = lanes.iter().flat_map(|lane| &lane.pending_htlcs);
        count += htlcs.filter(|htlc| htlc.hash_lock == hash).count();
    }
    count
}
