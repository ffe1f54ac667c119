//! What became of one cash-out, as a line of the table: its notes by the emulator, its money by both nodes.
//!
//! Whether that may be is decided by [`crate::audit`].

use tellerd::money::Funds;
use tellerd::proto::lnrpc::invoice::InvoiceState;
use tellerd::proto::lnrpc::{LookupHtlcResolutionRequest, PaymentHash};
use tonic::Code;

use crate::audit::Fate;
use crate::rig::Net;

/// What finally became of an invoice's HTLC, by the merchant's node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Final {
    /// There never was one.
    None,
    /// Not known yet: the peer, or the chain, has still to be heard.
    Pending,
    /// The merchant has the money.
    Settled {
        /// The peer gave it, not the chain.
        offchain: bool,
    },
    /// The customer has it back.
    Failed,
}

/// One line of the table, from the third column on; `fate` is `None` when the customer was refused.
pub async fn row(net: &Net, fate: Option<&Fate>) -> String {
    let Some(fate) = fate else {
        return "refused | 0 | 0 | none | none | none | none |".to_owned();
    };
    let view = &fate.view;
    let says = match &view.reason {
        Some(reason) => format!("{}: {reason}", view.state),
        None => view.state.clone(),
    };
    let hash = hex::decode(&view.payment_hash).unwrap().try_into().unwrap();
    let invoice = fate.state().map_or("none", |state| state.as_str_name());
    let htlc = match at_merchant(net, hash).await.1 {
        Final::None => "none",
        Final::Pending => "pending",
        Final::Settled { offchain: true } => "settled",
        Final::Settled { offchain: false } => "settled on chain",
        Final::Failed => "failed",
    };
    let payment = fate
        .payments
        .first()
        .map_or("none", |payment| payment.status().as_str_name());
    let funds = view.funds.map_or("none", Funds::as_str);
    let (notes, loss) = (fate.notes(), view.loss_minor.0);
    format!("{says} | {notes} | {loss} | {funds} | {invoice} | {htlc} | {payment} |")
}

/// The invoice at the merchant's node, and the end of its HTLC.
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
        let one = match client
            .lookup_htlc_resolution(request)
            .await
            .map(tonic::Response::into_inner)
        {
            Ok(told) if told.settled => Final::Settled {
                offchain: told.offchain,
            },
            Ok(_) => Final::Failed,
            Err(status) if status.code() == Code::NotFound => Final::Pending,
            Err(status) => panic!("no word on an HTLC: {status}"),
        };
        assert!(all == Final::None, "a cash-out is paid with one HTLC");
        all = one;
    }
    (Some(invoice.state()), all)
}
