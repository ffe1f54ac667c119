//! The hold-invoice service against clients that want what is not theirs.

use std::time::Duration;

use tellerd::lnd::{HoldInvoiceRequest, Lightning};
use tellerd::money::Msat;
use tellerd::nostr::wire::Code;
use tellerd::sim::lnd::node::record::InvoiceState;

use super::nostr_rig::{Plan, alice, code, preimage, run, wanted};

#[test]
fn an_invoice_that_lnd_has_from_another_program_becomes_no_clients() {
    run(Plan::default(), async |service| {
        let foreign = preimage(1);
        let request = HoldInvoiceRequest {
            hash: foreign.hash(),
            amount: Msat(1_000_000),
            memo: "a shop's".into(),
            expiry: Duration::from_secs(600),
            cltv_expiry: 80,
            private_route_hints: false,
        };
        service.node.add_hold_invoice(&request).await.unwrap();
        // Whoever was shown the invoice knows its hash and amount.
        let client = service.client(alice()).await;
        let taken = client.create(&wanted(&foreign, 1_000)).await;
        assert_eq!(code(taken), Code::AlreadyExists);
        assert_eq!(code(client.cancel(foreign.hash()).await), Code::NotFound);
        assert_eq!(service.state_at_lnd(foreign.hash()), Some(InvoiceState::Open));
    });
}
