//! Payment requests: writing them as the node, reading them as a customer's wallet. BOLT 11, regtest.
//!
//! Called by [`super::engine`]. Must stay true: what is written here can be read by any wallet.

use std::time::Duration;

use bitcoin::hashes::{Hash, sha256};
use bitcoin::secp256k1::{All, PublicKey, Secp256k1, SecretKey};
use lightning_invoice::{Bolt11Invoice, Currency, InvoiceBuilder, PaymentSecret};

use super::SimError;
use super::node::Terms;
use crate::ids::PaymentHash;

/// Signs with the node's key.
pub(super) struct Signer {
    curve: Secp256k1<All>,
    key: SecretKey,
    public: PublicKey,
}

/// What a wallet reads from a payment request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub hash: PaymentHash,
    pub payment_addr: String,
    /// `None` for any amount.
    pub amount_msat: Option<u64>,
    pub final_cltv_delta: u32,
}

impl Signer {
    pub fn new(key: SecretKey) -> Self {
        let curve = Secp256k1::new();
        let public = key.public_key(&curve);
        Self { curve, key, public }
    }

    /// The node's identity, hex.
    pub fn pubkey(&self) -> String {
        self.public.to_string()
    }

    /// The payment request for `terms`.
    pub fn encode(&self, terms: &Terms) -> Result<String, String> {
        let builder = InvoiceBuilder::new(Currency::Regtest);
        let builder = match terms.description_hash {
            Some(hash) => builder.description_hash(sha256::Hash::from_byte_array(hash)),
            None => builder.description(terms.memo.clone()),
        };
        let mut builder = builder
            .payment_hash(sha256::Hash::from_byte_array(terms.hash.0))
            .duration_since_epoch(Duration::from_millis(terms.created_at.0))
            .min_final_cltv_expiry_delta(u64::from(terms.cltv_expiry))
            .payment_secret(PaymentSecret(terms.payment_addr))
            .basic_mpp()
            .expiry_time(Duration::from_secs(terms.expiry_s));
        if terms.value_msat > 0 {
            builder = builder.amount_milli_satoshis(terms.value_msat);
        }
        let invoice = builder.build_signed(|message| self.curve.sign_ecdsa_recoverable(message, &self.key));
        invoice
            .map(|invoice| invoice.to_string())
            .map_err(|err| err.to_string())
    }

    /// Reads a payment request; it must be one of this node.
    pub fn decode(&self, text: &str) -> Result<Request, SimError> {
        let invoice: Bolt11Invoice = text
            .trim()
            .parse()
            .map_err(|err| SimError::BadOrder(format!("not a BOLT11 invoice: {err:?}")))?;
        if invoice.recover_payee_pub_key() != self.public {
            return Err(SimError::BadOrder("no route: the invoice is another node's".into()));
        }
        Ok(Request {
            hash: PaymentHash(invoice.payment_hash().to_byte_array()),
            payment_addr: hex::encode(invoice.payment_secret().0),
            amount_msat: invoice.amount_milli_satoshis(),
            final_cltv_delta: u32::try_from(invoice.min_final_cltv_expiry_delta()).unwrap_or(u32::MAX),
        })
    }
}
