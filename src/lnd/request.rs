//! Domain -> proto for what tellerd asks of LND, refused here when LND would refuse or misread it.
//!
//! Called by the client before AddHoldInvoice. What must stay true: no any-amount invoice is ever asked for,
//! and no value reaches LND that LND would replace by a default of its own.
//! Source: fact sheet sections 2 and 3; BOLT 11 (a field holds at most 639 bytes).

use std::ops::RangeInclusive;

use super::{HoldInvoiceRequest, LnError, LnErrorKind};
use crate::proto::invoicesrpc::AddHoldInvoiceRequest;

/// Final CLTV deltas LND takes. (It reads 0 as 80.)
pub const CLTV_EXPIRY: RangeInclusive<u16> = 24..=65535;
/// Seconds an invoice may be payable; LND's bound is one year.
pub const EXPIRY_S: RangeInclusive<u64> = 1..=365 * 24 * 3600;
/// Bytes of memo that fit into BOLT 11.
pub const MEMO_BYTES: usize = 639;

/// The proto of `request`, or [`LnErrorKind::Invalid`] with the name of the field that is wrong.
/// A part of a second in `expiry` is dropped.
pub(super) fn add_hold_invoice(
    call: &'static str,
    request: &HoldInvoiceRequest,
) -> Result<AddHoldInvoiceRequest, LnError> {
    let invalid = |message: String| LnError {
        call,
        kind: LnErrorKind::Invalid,
        message,
    };
    let msat = request.amount.0;
    if msat == 0 {
        return Err(invalid("amount: zero would make an any-amount invoice".to_owned()));
    }
    let value_msat = i64::try_from(msat).map_err(|_| invalid(format!("amount: {msat} msat is too much")))?;
    let memo_bytes = request.memo.len();
    if memo_bytes > MEMO_BYTES {
        return Err(invalid(format!("memo: {memo_bytes} bytes, at most {MEMO_BYTES} fit")));
    }
    let seconds = request.expiry.as_secs();
    if !EXPIRY_S.contains(&seconds) {
        let (low, high) = EXPIRY_S.into_inner();
        return Err(invalid(format!("expiry: {seconds} s is not within {low} to {high} s")));
    }
    let expiry = i64::try_from(seconds).map_err(|_| invalid(format!("expiry: {seconds} s is too long")))?;
    if !CLTV_EXPIRY.contains(&request.cltv_expiry) {
        let (low, high) = CLTV_EXPIRY.into_inner();
        let blocks = request.cltv_expiry;
        return Err(invalid(format!(
            "cltv_expiry: {blocks} blocks is not within {low} to {high}"
        )));
    }
    Ok(AddHoldInvoiceRequest {
        memo: request.memo.clone(),
        hash: request.hash.0.to_vec(),
        value_msat,
        expiry,
        cltv_expiry: u64::from(request.cltv_expiry),
        private: request.private_route_hints,
        ..AddHoldInvoiceRequest::default()
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::ids::PaymentHash;
    use crate::money::Msat;

    fn good() -> HoldInvoiceRequest {
        HoldInvoiceRequest {
            hash: PaymentHash([7; 32]),
            amount: Msat(60_000_001),
            memo: "60.00 EUR at atm-1".to_owned(),
            expiry: Duration::from_millis(600_900),
            cltv_expiry: 80,
            private_route_hints: true,
        }
    }

    #[test]
    fn carries_every_field_and_nothing_else() {
        let proto = add_hold_invoice("AddHoldInvoice", &good()).expect("valid");
        let expected = AddHoldInvoiceRequest {
            memo: "60.00 EUR at atm-1".to_owned(),
            hash: vec![7; 32],
            value: 0,
            description_hash: Vec::new(),
            expiry: 600,
            fallback_addr: String::new(),
            cltv_expiry: 80,
            route_hints: Vec::new(),
            private: true,
            value_msat: 60_000_001,
        };
        assert_eq!(proto, expected);
    }

    #[test]
    fn limits_are_inside() {
        for change in [
            (|r: &mut HoldInvoiceRequest| r.amount = Msat(1)) as fn(&mut HoldInvoiceRequest),
            |r| r.amount = Msat(i64::MAX.unsigned_abs()),
            |r| r.memo = "m".repeat(639),
            |r| r.memo = String::new(),
            |r| r.expiry = Duration::from_secs(1),
            |r| r.expiry = Duration::from_secs(31_536_000),
            |r| r.cltv_expiry = 24,
            |r| r.cltv_expiry = 65535,
        ] {
            let mut request = good();
            change(&mut request);
            assert!(add_hold_invoice("AddHoldInvoice", &request).is_ok(), "{request:?}");
        }
    }

    #[test]
    fn names_the_field_that_is_wrong() {
        for (field, change) in [
            (
                "amount",
                (|r: &mut HoldInvoiceRequest| r.amount = Msat::ZERO) as fn(&mut HoldInvoiceRequest),
            ),
            ("amount", |r| r.amount = Msat(u64::MAX)),
            ("memo", |r| r.memo = "m".repeat(640)),
            ("memo", |r| r.memo = "ä".repeat(320)),
            ("expiry", |r| r.expiry = Duration::ZERO),
            ("expiry", |r| r.expiry = Duration::from_millis(999)),
            ("expiry", |r| r.expiry = Duration::from_secs(31_536_001)),
            ("expiry", |r| r.expiry = Duration::MAX),
            ("cltv_expiry", |r| r.cltv_expiry = 23),
            ("cltv_expiry", |r| r.cltv_expiry = 0),
        ] {
            let mut request = good();
            change(&mut request);
            let error = add_hold_invoice("AddHoldInvoice", &request).expect_err(field);
            assert_eq!(error.kind, LnErrorKind::Invalid);
            assert!(error.message.starts_with(&format!("{field}: ")), "{error}");
        }
    }
}
