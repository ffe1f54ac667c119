//! AddHoldInvoice: what LND accepts and what it fills in. Fact sheet, section 3.

use super::{Node, Refusal, hash_of};
use crate::ids::PaymentHash;
use crate::sim::lnd::node::record::{Cause, HistoryEntry, InvoiceRecord, InvoiceState};
use crate::time::UnixMs;

const DEFAULT_EXPIRY_S: i64 = 86_400;
const MAX_EXPIRY_S: i64 = 365 * 86_400;
const DEFAULT_CLTV: u32 = 80;
const MIN_CLTV: u64 = 24;
const MAX_MEMO_BYTES: usize = 1024;
/// A field of BOLT11 holds so many groups of 5 bits: 639 bytes.
const MAX_FIELD_GROUPS: usize = 1023;
const MAX_AMOUNT_SATS: u64 = 100_000 * SATS_PER_BTC;
const SATS_PER_BTC: u64 = 100_000_000;

/// `AddHoldInvoiceRequest` as it came.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AddHold {
    /// Payment hash.
    pub hash: Vec<u8>,
    /// Text for the wallet.
    pub memo: String,
    /// Empty, or 32 bytes that take the memo's place in the payment request.
    pub description_hash: Vec<u8>,
    /// Satoshi.
    pub value: i64,
    /// Millisatoshi, instead of `value`.
    pub value_msat: i64,
    /// Seconds; 0 or less means a day.
    pub expiry: i64,
    /// Blocks; 0 means 80.
    pub cltv_expiry: u64,
}

/// An accepted request, with the defaults filled in: what goes into the payment request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// Payment hash.
    pub hash: PaymentHash,
    /// Text for the wallet.
    pub memo: String,
    /// Takes the memo's place.
    pub description_hash: Option<[u8; 32]>,
    /// 0 means any amount.
    pub value_msat: u64,
    /// Seconds.
    pub expiry_s: u64,
    /// Blocks.
    pub cltv_expiry: u32,
    /// Payment secret.
    pub payment_addr: [u8; 32],
    /// When it was added.
    pub created_at: UnixMs,
}

impl Node {
    /// Adds an OPEN invoice. `encode` writes the payment request.
    pub fn add_hold(
        &mut self,
        request: &AddHold,
        payment_addr: [u8; 32],
        now: UnixMs,
        encode: impl FnOnce(&Terms) -> Result<String, String>,
    ) -> Result<InvoiceRecord, Refusal> {
        let terms = terms(request, payment_addr, now)?;
        let payment_request = encode(&terms).map_err(Refusal::Encode)?;
        if self.invoices.contains_key(&terms.hash) {
            return Err(Refusal::AlreadyExists);
        }
        let hash = terms.hash;
        self.add_index += 1;
        self.seq += 1;
        let record = InvoiceRecord {
            hash,
            add_index: self.add_index,
            settle_index: 0,
            memo: terms.memo,
            description_hash: terms.description_hash.map(hex::encode).unwrap_or_default(),
            value_msat: terms.value_msat,
            expiry_s: terms.expiry_s,
            cltv_expiry: terms.cltv_expiry,
            payment_request,
            payment_addr: hex::encode(payment_addr),
            created_at_unix_ms: now,
            preimage: None,
            state: InvoiceState::Open,
            paid_msat: 0,
            htlcs: Vec::new(),
            history: vec![HistoryEntry {
                seq: self.seq,
                at_unix_ms: now,
                state: InvoiceState::Open,
                cause: Cause::Added,
            }],
        };
        self.timers.insert((record.expires_at(), hash));
        self.invoices.insert(hash, record.clone());
        self.changes.invoices.insert(hash);
        self.changes.announced.push(record.clone());
        Ok(record)
    }
}

fn terms(request: &AddHold, payment_addr: [u8; 32], now: UnixMs) -> Result<Terms, Refusal> {
    let hash = hash_of(&request.hash)?;
    let asked_msat = asked_msat(request)?;
    if request.memo.len() > MAX_MEMO_BYTES {
        return Err(Refusal::MemoTooLarge(request.memo.len()));
    }
    let description_hash = match request.description_hash.as_slice() {
        [] => None,
        bytes => Some(
            bytes
                .try_into()
                .map_err(|_| Refusal::DescriptionHashLength(bytes.len()))?,
        ),
    };
    let value_msat = bounded_msat(asked_msat)?;
    let expiry = match request.expiry {
        ..=0 => DEFAULT_EXPIRY_S,
        s if s > MAX_EXPIRY_S => return Err(Refusal::ExpiryTooLong(go_float(s), go_float(MAX_EXPIRY_S))),
        s => s,
    };
    let cltv_expiry = match request.cltv_expiry {
        0 => DEFAULT_CLTV,
        delta if delta < MIN_CLTV => return Err(Refusal::CltvTooLow(delta)),
        delta => u32::from(u16::try_from(delta).map_err(|_| Refusal::CltvTooHigh(delta))?),
    };
    let groups = (request.memo.len() * 8).div_ceil(5);
    if description_hash.is_none() && groups > MAX_FIELD_GROUPS {
        return Err(Refusal::DescriptionTooLong(groups));
    }
    Ok(Terms {
        hash,
        memo: request.memo.clone(),
        description_hash,
        value_msat,
        expiry_s: expiry.unsigned_abs(),
        cltv_expiry,
        payment_addr,
        created_at: now,
    })
}

/// The amount as LND computes it: satoshi are multiplied without a look at the bounds of 64 bits.
fn asked_msat(request: &AddHold) -> Result<u64, Refusal> {
    if request.value != 0 && request.value_msat != 0 {
        return Err(Refusal::BothAmounts);
    }
    let sat = u64::try_from(request.value).map_err(|_| Refusal::NegativeAmount)?;
    let msat = u64::try_from(request.value_msat).map_err(|_| Refusal::NegativeAmount)?;
    Ok(if sat == 0 { msat } else { sat.wrapping_mul(1000) })
}

fn bounded_msat(msat: u64) -> Result<u64, Refusal> {
    let signed = msat.cast_signed();
    let sats = msat / 1000;
    match signed {
        ..0 => Err(Refusal::NegativeValue(signed)),
        _ if sats > MAX_AMOUNT_SATS => Err(Refusal::AmountTooLarge(btc(sats), btc(MAX_AMOUNT_SATS))),
        _ => Ok(msat),
    }
}

/// As btcd's library writes an amount.
fn btc(sats: u64) -> String {
    let (whole, rest) = (sats / SATS_PER_BTC, sats % SATS_PER_BTC);
    if rest == 0 {
        format!("{whole} BTC")
    } else {
        format!("{whole}.{rest:08} BTC")
    }
}

/// As Go writes a large number that it holds as a float: `3.1536e+07`.
fn go_float(number: i64) -> String {
    let text = format!("{:e}", number as f64);
    match text.split_once('e') {
        Some((digits, exponent)) => format!("{digits}e+{exponent:0>2}"),
        None => text,
    }
}
