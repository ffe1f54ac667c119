//! What the service's answers mean to the actors. Pure.
//!
//! Used by the node. What must stay true: an answer about another invoice is an error; an invoice's text is believed only
//! after it was read; a failure whose effect is not known never reads as a final word.

use bitcoin::hashes::Hash;
use lightning_invoice::Bolt11Invoice;

use crate::ids::PaymentHash;
use crate::lnd::{
    Commitment, FundsSeen, HoldInvoiceRequest, InvoiceSnapshot, InvoiceState, LnError, LnErrorKind, NodeInfo,
};
use crate::money::{Funds, Msat};
use crate::nostr::caller::CallError;
use crate::nostr::method::input::{AMOUNT_SATS_MAX, EXPIRY_SECONDS_MAX};
use crate::nostr::method::{Call, CommittedInvoice, CreateHoldInvoice, HoldInvoice, HoldState, Method, ServiceInfo};
use crate::nostr::wire::Code;
use crate::time::UnixMs;

/// An identity key of a node: a compressed point in hexadecimal.
const PUBKEY_DIGITS: usize = 66;

/// The answer to a commit that ends in a refund.
pub(super) const NOTHING_HELD: Commitment = Commitment {
    held: None,
    height: 0,
    kept_until: None,
};

/// An error of `call`.
pub(super) fn say(call: &Call, kind: LnErrorKind, message: impl Into<String>) -> LnError {
    LnError {
        call: call.method().name(),
        kind,
        message: message.into(),
    }
}

/// An answer that is not to what was asked.
pub(super) fn about_another(call: &Call, hash: &PaymentHash) -> LnError {
    let message = format!("payment_hash: the service answered about {hash}");
    say(call, LnErrorKind::Other, message)
}

/// What a call without a result means.
pub(super) fn error(call: &Call, error: &CallError) -> LnError {
    let kind = match error {
        CallError::NoAnswer { .. } => LnErrorKind::Timeout,
        CallError::Busy => LnErrorKind::NotReady,
        CallError::Bad(_) | CallError::Seal(_) => LnErrorKind::Other,
        CallError::Failed(failure) => kind_of(failure.code),
    };
    say(call, kind, error.to_string())
}

fn kind_of(code: Code) -> LnErrorKind {
    match code {
        Code::BadRequest | Code::UnknownMethod => LnErrorKind::Invalid,
        Code::NotAllowed => LnErrorKind::Denied,
        Code::RateLimited | Code::Unavailable => LnErrorKind::NotReady,
        Code::NotFound => LnErrorKind::NotFound,
        Code::AlreadyExists => LnErrorKind::AlreadyExists,
        Code::StillOpen => LnErrorKind::StillOpen,
        Code::AlreadyCanceled => LnErrorKind::AlreadyCanceled,
        Code::AlreadySettled => LnErrorKind::AlreadySettled,
        Code::OverLimit | Code::TooLate | Code::Refused | Code::Other => LnErrorKind::Other,
    }
}

/// After this answer to a commit there is no hold that a dispense may rely on, and never will be.
pub(super) fn ends_the_hold(code: Code) -> bool {
    match code {
        Code::StillOpen
        | Code::AlreadyCanceled
        | Code::AlreadySettled
        | Code::TooLate
        | Code::NotFound
        | Code::Refused
        | Code::OverLimit => true,
        Code::BadRequest
        | Code::UnknownMethod
        | Code::NotAllowed
        | Code::RateLimited
        | Code::AlreadyExists
        | Code::Unavailable
        | Code::Other => false,
    }
}

/// After this answer to a create no invoice is to be had soon. Another one with this hash may be the site's own.
pub(super) fn ends_the_quote(code: Code) -> bool {
    !matches!(
        code,
        Code::RateLimited | Code::Unavailable | Code::NotAllowed | Code::AlreadyExists
    )
}

/// The input of createHoldInvoice.
pub(super) fn create(request: &HoldInvoiceRequest) -> Result<CreateHoldInvoice, LnError> {
    let invalid = |message: String| LnError {
        call: Method::CreateHoldInvoice.name(),
        kind: LnErrorKind::Invalid,
        message,
    };
    let amount_sats = request.amount.sat_floor();
    if !request.amount.0.is_multiple_of(1000) || !(1..=AMOUNT_SATS_MAX).contains(&amount_sats) {
        return Err(invalid(format!("{} is no amount in whole satoshi", request.amount)));
    }
    let expiry = request.expiry.as_secs().clamp(1, EXPIRY_SECONDS_MAX.into());
    Ok(CreateHoldInvoice {
        hash: request.hash,
        amount_sats,
        memo: request.memo.clone(),
        expiry_seconds: u32::try_from(expiry).unwrap_or(EXPIRY_SECONDS_MAX),
        cltv_expiry: Some(request.cltv_expiry),
    })
}

/// Reads an invoice's text; it must be the one of `hash` over `amount`.
pub(super) fn check_invoice(text: &str, hash: &PaymentHash, amount: Msat) -> Result<Bolt11Invoice, String> {
    let invoice: Bolt11Invoice = text
        .parse()
        .map_err(|error| format!("invoice: the service answered no BOLT11 text: {error}"))?;
    let answered = PaymentHash(invoice.payment_hash().to_byte_array());
    if answered != *hash {
        return Err(format!("invoice: asked for {hash}, the service answered {answered}"));
    }
    match invoice.amount_milli_satoshis().map(Msat) {
        Some(asked) if asked == amount => Ok(invoice),
        Some(asked) => Err(format!("invoice: it is over {asked}, not {amount}")),
        None => Err("invoice: it is over any amount".to_owned()),
    }
}

/// Whether an invoice can be shown to a customer at `now`.
pub(super) fn check_payable(invoice: &Bolt11Invoice, cltv_expiry: u16, now: UnixMs) -> Result<(), String> {
    let delta = invoice.min_final_cltv_expiry_delta();
    if delta < u64::from(cltv_expiry) {
        return Err(format!("invoice: its final CLTV delta is {delta}, not {cltv_expiry}"));
    }
    if invoice.would_expire(std::time::Duration::from_millis(now.0)) {
        return Err("invoice: it has expired already".to_owned());
    }
    Ok(())
}

fn state(state: HoldState) -> InvoiceState {
    match state {
        HoldState::Open => InvoiceState::Open,
        HoldState::Accepted => InvoiceState::Accepted,
        HoldState::Settled => InvoiceState::Settled,
        HoldState::Canceled => InvoiceState::Canceled,
    }
}

fn msat(call: Method, sats: u64) -> Result<Msat, LnError> {
    sats.checked_mul(1000).map(Msat).ok_or_else(|| LnError {
        call: call.name(),
        kind: LnErrorKind::Other,
        message: format!("the service answered an amount of {sats} sat"),
    })
}

/// The invoice as the service sees it. Its text is empty when the service does not tell it.
pub(super) fn snapshot(invoice: HoldInvoice) -> Result<InvoiceSnapshot, LnError> {
    let call = Method::GetHoldInvoice;
    let amount = msat(call, invoice.amount_sats)?;
    let payment_request = invoice.invoice.unwrap_or_default();
    if !payment_request.is_empty() {
        check_invoice(&payment_request, &invoice.payment_hash, amount).map_err(|message| LnError {
            call: call.name(),
            kind: LnErrorKind::Other,
            message,
        })?;
    }
    Ok(InvoiceSnapshot {
        hash: invoice.payment_hash,
        state: match invoice.state {
            // The service will cancel it; until its node has, the customer does not have the money back.
            HoldState::Canceled if !invoice.done => InvoiceState::Open,
            known => state(known),
        },
        amount,
        paid: msat(call, invoice.amount_paid_sats)?,
        payment_request,
        lowest_expiry_height: invoice.htlc_expiry_height,
    })
}

/// What the service says of the money of an invoice that it has settled.
pub(super) fn funds(invoice: &HoldInvoice) -> Result<FundsSeen, LnError> {
    if invoice.state != HoldState::Settled {
        let call = Call::GetHoldInvoice(invoice.payment_hash);
        return Err(say(&call, LnErrorKind::Other, "state: SETTLED expected"));
    }
    Ok(match invoice.funds {
        Some(Funds::Pending) => FundsSeen::Pending(Vec::new()),
        Some(Funds::Final) => FundsSeen::Final,
        Some(Funds::Lost) => FundsSeen::Lost,
        Some(Funds::NotFollowed) => FundsSeen::NotFollowed("the service does not follow it".to_owned()),
        None => FundsSeen::NotFollowed("the service does not tell whether the money came".to_owned()),
    })
}

/// A commitment that the service has recorded, and keeps until `kept_until` by this machine's clock.
pub(super) fn commitment(committed: &CommittedInvoice, kept_until: UnixMs) -> Result<Commitment, LnError> {
    let paid = msat(Method::CommitHoldInvoice, committed.amount_paid_sats)?;
    Ok(Commitment {
        held: Some(InvoiceSnapshot {
            hash: committed.payment_hash,
            state: state(committed.state),
            amount: paid,
            paid,
            payment_request: String::new(),
            lowest_expiry_height: Some(committed.htlc_expiry_height),
        }),
        height: committed.block_height,
        kept_until: Some(kept_until),
    })
}

/// The service's node.
///
/// # Errors
/// A service that has never reached its node can not say which one it is.
pub(super) fn node_info(call: &Call, info: ServiceInfo, no_new: Option<String>) -> Result<NodeInfo, LnError> {
    let is_key = info.node_pubkey.len() == PUBKEY_DIGITS && hex::decode(&info.node_pubkey).is_ok();
    if !is_key {
        let trouble = info.trouble.unwrap_or_else(|| "it does not name its node".to_owned());
        return Err(say(
            call,
            LnErrorKind::NotReady,
            format!("the service is not ready: {trouble}"),
        ));
    }
    Ok(NodeInfo {
        stores_resolutions: info.follows_funds.unwrap_or(false),
        hold_expiry_delta: None,
        pubkey: info.node_pubkey,
        alias: info.name,
        version: info.version,
        network: info.network,
        block_height: info.block_height,
        // When not, `no_new` says why, in the service's words.
        synced_to_chain: info.can_create,
        no_new,
    })
}
