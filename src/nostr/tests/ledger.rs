//! The fake service's books: hold invoices by the rules of docs/NOSTR_RPC.md, at a node that does as it is told.

use std::collections::HashMap;
use std::time::Duration;

use bitcoin::hashes::{Hash, sha256};
use bitcoin::secp256k1::{Secp256k1, SecretKey};
use lightning_invoice::{Currency, InvoiceBuilder, PaymentSecret};

use crate::clients::Limits;
use crate::ids::{PaymentHash, Preimage};
use crate::money::Funds;
use crate::nostr::method::{
    Call, CommittedInvoice, CreateHoldInvoice, CreatedInvoice, HoldInvoice, HoldState, InvoiceStanding, ServiceInfo,
};
use crate::nostr::wire::{Code, Failure, Outcome};
use crate::time::UnixMs;

pub const HEIGHT: u32 = 800_000;
pub const EXPIRY_HEIGHT: u32 = 800_080;

/// BOLT11 text of a node that exists only here.
pub fn bolt11(hash: PaymentHash, amount_msat: u64, made: UnixMs, expiry: Duration, cltv: u64) -> String {
    let key = SecretKey::from_slice(&[9; 32]).unwrap();
    InvoiceBuilder::new(Currency::Regtest)
        .description("cash".into())
        .payment_hash(sha256::Hash::from_byte_array(hash.0))
        .duration_since_epoch(Duration::from_millis(made.0))
        .min_final_cltv_expiry_delta(cltv)
        .payment_secret(PaymentSecret([5; 32]))
        .basic_mpp()
        .expiry_time(expiry)
        .amount_milli_satoshis(amount_msat)
        .build_signed(|message| Secp256k1::new().sign_ecdsa_recoverable(message, &key))
        .unwrap()
        .to_string()
}

#[derive(Debug, Clone)]
pub struct Entry {
    pub amount_sats: u64,
    pub state: HoldState,
    pub text: String,
    pub commit_deadline_unix: Option<u64>,
    /// Where it goes once the node has done it.
    pub ordered: Option<HoldState>,
}

/// What the service knows, and how its node behaves.
pub struct Ledger {
    pub entries: HashMap<PaymentHash, Entry>,
    pub info: ServiceInfo,
    /// The node does what it is told at once; else when [`Ledger::work`] is called.
    pub quick: bool,
    /// Answered to everything.
    pub fails: Option<Failure>,
    /// Answered of a settled invoice's money.
    pub funds: Option<Funds>,
    /// Answered instead of the invoice's own text.
    pub text: Option<String>,
}

impl Ledger {
    pub fn new() -> Self {
        Self {
            entries: HashMap::new(),
            info: info(),
            quick: true,
            funds: None,
            fails: None,
            text: None,
        }
    }

    /// The node does what was ordered.
    pub fn work(&mut self) {
        for entry in self.entries.values_mut() {
            entry.state = entry.ordered.take().unwrap_or(entry.state);
        }
    }

    pub fn set(&mut self, hash: PaymentHash, state: HoldState) {
        self.entries.get_mut(&hash).expect("created").state = state;
    }

    pub fn answer(&mut self, call: &Call, now: UnixMs) -> Result<Outcome, Failure> {
        if let Some(failure) = &self.fails {
            return Err(failure.clone());
        }
        let outcome = match call {
            Call::CreateHoldInvoice(create) => Outcome::success(&self.create(create, now)?),
            Call::CommitHoldInvoice(hash) => Outcome::success(&self.commit(*hash, now)?),
            Call::SettleHoldInvoice(preimage) => Outcome::success(&self.settle(preimage)?),
            Call::CancelHoldInvoice(hash) => Outcome::success(&self.cancel(*hash)?),
            Call::GetHoldInvoice(hash) => Outcome::success(&self.get(*hash)?),
            Call::SubscribeHoldInvoices => Ok(Outcome::Ok(serde_json::Map::new())),
            Call::GetServiceInfo => Outcome::success(&self.info),
            _ => return Err(Failure::new(Code::NotAllowed, "not for clients")),
        };
        Ok(outcome.expect("no reserved name"))
    }

    fn entry(&mut self, hash: PaymentHash) -> Result<&mut Entry, Failure> {
        let nobodys = || Failure::new(Code::NotFound, "you have no such invoice");
        self.entries.get_mut(&hash).ok_or_else(nobodys)
    }

    fn create(&mut self, create: &CreateHoldInvoice, now: UnixMs) -> Result<CreatedInvoice, Failure> {
        let expiry = Duration::from_secs(create.expiry_seconds.into());
        let cltv = create.cltv_expiry.unwrap_or(80).into();
        let msat = create.amount_sats * 1000;
        let entry = self.entries.entry(create.hash).or_insert_with(|| Entry {
            amount_sats: create.amount_sats,
            state: HoldState::Open,
            text: bolt11(create.hash, msat, now, expiry, cltv),
            commit_deadline_unix: None,
            ordered: None,
        });
        if entry.amount_sats != create.amount_sats {
            return Err(Failure::new(Code::AlreadyExists, "another amount"));
        }
        Ok(CreatedInvoice {
            invoice: self.text.clone().unwrap_or_else(|| entry.text.clone()),
            payment_hash: create.hash,
            expires_at_unix: now.plus(expiry).as_secs(),
            hold_deadline_seconds: self.info.hold_deadline_seconds,
        })
    }

    fn commit(&mut self, hash: PaymentHash, now: UnixMs) -> Result<CommittedInvoice, Failure> {
        let until = now.as_secs() + self.info.commit_deadline_seconds;
        let entry = self.entry(hash)?;
        match entry.state {
            HoldState::Open => return Err(Failure::new(Code::StillOpen, "not paid")),
            HoldState::Canceled => return Err(Failure::new(Code::AlreadyCanceled, "canceled")),
            HoldState::Accepted | HoldState::Settled => {}
        }
        Ok(CommittedInvoice {
            payment_hash: hash,
            state: entry.state,
            commit_deadline_unix: *entry.commit_deadline_unix.get_or_insert(until),
            blocks_left: i64::from(EXPIRY_HEIGHT) - 18 - i64::from(HEIGHT),
            amount_paid_sats: entry.amount_sats,
            htlc_expiry_height: EXPIRY_HEIGHT,
            block_height: HEIGHT,
        })
    }

    fn settle(&mut self, preimage: &Preimage) -> Result<InvoiceStanding, Failure> {
        let hash = preimage.hash();
        let entry = self.entry(hash)?;
        match entry.state {
            HoldState::Open => return Err(Failure::new(Code::StillOpen, "not paid")),
            HoldState::Canceled => return Err(Failure::new(Code::AlreadyCanceled, "canceled")),
            HoldState::Accepted => entry.ordered = Some(HoldState::Settled),
            HoldState::Settled => {}
        }
        self.standing(hash)
    }

    fn cancel(&mut self, hash: PaymentHash) -> Result<InvoiceStanding, Failure> {
        let entry = self.entry(hash)?;
        match (entry.state, entry.ordered) {
            (HoldState::Settled, _) | (_, Some(HoldState::Settled)) => {
                return Err(Failure::new(Code::AlreadySettled, "settled, or will be"));
            }
            (HoldState::Canceled, _) => {}
            _ => entry.ordered = Some(HoldState::Canceled),
        }
        self.standing(hash)
    }

    fn standing(&mut self, payment_hash: PaymentHash) -> Result<InvoiceStanding, Failure> {
        if self.quick {
            self.work();
        }
        let state = self.entry(payment_hash)?.state;
        Ok(InvoiceStanding {
            payment_hash,
            state,
            done: is_end(state),
        })
    }

    pub fn get(&mut self, payment_hash: PaymentHash) -> Result<HoldInvoice, Failure> {
        let entry = self.entry(payment_hash)?.clone();
        let held = entry.state == HoldState::Accepted;
        let nothing_came = matches!(entry.state, HoldState::Open | HoldState::Canceled);
        Ok(HoldInvoice {
            funds: self.funds.filter(|_| entry.state == HoldState::Settled),
            payment_hash,
            state: entry.state,
            done: is_end(entry.state),
            amount_sats: entry.amount_sats,
            amount_paid_sats: if nothing_came { 0 } else { entry.amount_sats },
            accepted_at_unix: None,
            settled_at_unix: None,
            htlc_expiry_height: held.then_some(EXPIRY_HEIGHT),
            blocks_left: None,
            hold_deadline_unix: None,
            invoice: Some(self.text.clone().unwrap_or(entry.text)),
        })
    }
}

fn is_end(state: HoldState) -> bool {
    matches!(state, HoldState::Settled | HoldState::Canceled)
}

/// A service that fits [`super::node::TERMS`].
fn info() -> ServiceInfo {
    ServiceInfo {
        follows_funds: None,
        name: "town".into(),
        version: "tellerd 0.1.0".into(),
        node_pubkey: "02".repeat(33),
        network: "regtest".into(),
        block_height: HEIGHT,
        node_up: true,
        can_create: true,
        trouble: None,
        hold_expiry_delta: 18,
        min_blocks_left: 12,
        force_blocks_left: Some(3),
        cltv_expiry: 80,
        hold_deadline_seconds: 600,
        commit_deadline_seconds: 3_600,
        now_unix: 0,
        client: "corner".into(),
        limits: Limits {
            max_amount_sats: 1_000_000,
            max_held_sats: 1_000_000,
            max_open: 10,
            requests_per_minute: 600,
            sats_per_day: 100_000_000,
        },
    }
}
