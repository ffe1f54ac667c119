//! Add, settle, cancel and look up, by state.

use super::*;

#[test]
fn settle_answers_by_state() {
    let rows = [
        ("ACCEPTED", Ok(()), InvoiceState::Settled),
        ("SETTLED", Ok(()), InvoiceState::Settled),
        ("OPEN", Err("invoice still open"), InvoiceState::Open),
        ("OPEN, partial", Err("invoice still open"), InvoiceState::Open),
        ("CANCELED", Err("invoice already canceled"), InvoiceState::Canceled),
    ];
    for (before, answer, after) in rows {
        let mut node = node_in(before);
        let got = node.settle(&preimage(1), START).map_err(|refusal| refusal.to_string());
        assert_eq!(got, answer.map_err(str::to_owned), "{before}");
        assert_eq!(state(&node, 1), after, "{before}");
    }
    let mut node = node_in("ACCEPTED");
    assert_eq!(
        node.settle(&preimage(2), START).unwrap_err().to_string(),
        "unable to locate invoice"
    );
    for len in [0, 31, 33] {
        let refusal = node.settle(&vec![1; len], START).unwrap_err();
        assert_eq!(
            refusal.to_string(),
            format!("invalid preimage length of {len}, want 32")
        );
    }
    assert_eq!(state(&node, 1), InvoiceState::Accepted);
}

#[test]
fn cancel_answers_by_state_and_fails_held_htlcs_back() {
    let rows = [
        ("OPEN", Ok(()), InvoiceState::Canceled),
        ("OPEN, partial", Ok(()), InvoiceState::Canceled),
        ("ACCEPTED", Ok(()), InvoiceState::Canceled),
        ("CANCELED", Ok(()), InvoiceState::Canceled),
        ("SETTLED", Err("invoice already settled"), InvoiceState::Settled),
    ];
    for (before, answer, after) in rows {
        let mut node = node_in(before);
        let got = node.cancel(&hash(1).0, at(5)).map_err(|refusal| refusal.to_string());
        assert_eq!(got, answer.map_err(str::to_owned), "{before}");
        assert_eq!(state(&node, 1), after, "{before}");
        for payment in node.payments() {
            let refunded = payment.status() == PaymentStatus::Failed(FailReason::InvoiceCanceled);
            assert_eq!(refunded, answer.is_ok(), "{before}");
        }
    }
    let mut node = node();
    assert_eq!(
        node.cancel(&hash(1).0, START).unwrap_err().to_string(),
        "unable to locate invoice"
    );
    assert_eq!(
        node.cancel(&[1; 8], START).unwrap_err().to_string(),
        "invalid hash length of 8, want 32"
    );
}

#[test]
fn add_refuses_what_lnd_refuses() {
    type Change = fn(&mut AddHold);
    let rows: [(Change, &str); 15] = [
        (|r| r.hash.truncate(31), "invalid hash length of 31, want 32"),
        (|r| r.hash.clear(), "invalid hash length of 0, want 32"),
        (|r| r.value = -1, "amount cannot be negative"),
        (|r| (r.value, r.value_msat) = (0, -1), "amount cannot be negative"),
        (|r| r.value_msat = 1, "sat and msat arguments are mutually exclusive"),
        (
            |r| r.cltv_expiry = 1,
            "CLTV delta of 1 must be greater than minimum of 24",
        ),
        (
            |r| r.cltv_expiry = 23,
            "CLTV delta of 23 must be greater than minimum of 24",
        ),
        (
            |r| r.cltv_expiry = 65_536,
            "CLTV delta of 65536 is too large, max accepted is: 65535",
        ),
        (
            |r| r.expiry = 31_536_001,
            "expiry of 3.1536001e+07 seconds greater than max expiry of 3.1536e+07 seconds",
        ),
        (
            |r| r.memo = "x".repeat(1025),
            "memo too large: 1025 bytes (maxsize=1024)",
        ),
        (
            |r| r.description_hash = vec![1],
            "description hash is 1 bytes, must be 32",
        ),
        (
            |r| r.value = i64::MAX,
            "payments of negative value are not allowed, value is -1000",
        ),
        (
            |r| r.value = 10_000_000_000_001,
            "invoice amount 100000.00000001 BTC is too large, max is 100000 BTC",
        ),
        (
            |r| r.memo = "x".repeat(640),
            "data length too big to fit within 10 bits: 1024",
        ),
        (|r| r.value = i64::MIN, "amount cannot be negative"),
    ];
    for (change, text) in rows {
        let mut node = node();
        let mut request = request(1);
        change(&mut request);
        assert_eq!(try_add(&mut node, &request, START).unwrap_err().to_string(), text);
        assert_eq!(node.invoices().count(), 0, "{text}");
    }
}

#[test]
fn add_refuses_a_known_hash_in_any_state() {
    for name in ["OPEN", "OPEN, partial", "ACCEPTED", "SETTLED", "CANCELED"] {
        let mut node = node_in(name);
        let before = node.lookup(&hash(1).0).unwrap().clone();
        let refusal = try_add(&mut node, &request(1), at(3)).unwrap_err();
        assert_eq!(
            refusal.to_string(),
            "invoice with payment hash already exists",
            "{name}"
        );
        assert_eq!(*node.lookup(&hash(1).0).unwrap(), before, "{name}");
    }
}

#[test]
fn add_fills_in_defaults_and_accepts_the_bounds() {
    let mut node = node();
    let record = add(&mut node, 1);
    assert_eq!(
        (record.expiry_s, record.cltv_expiry, record.value_msat),
        (86_400, 80, 1_000_000)
    );
    let negative = AddHold {
        expiry: -5,
        value: 0,
        ..request(2)
    };
    let record = try_add(&mut node, &negative, START).unwrap();
    assert_eq!(
        (record.expiry_s, record.value_msat),
        (86_400, 0),
        "value 0 is an any-amount invoice"
    );
    let bounds = AddHold {
        value: 0,
        value_msat: 1_500,
        cltv_expiry: 24,
        expiry: 31_536_000,
        memo: "x".repeat(639),
        ..request(3)
    };
    let record = try_add(&mut node, &bounds, START).unwrap();
    assert_eq!(
        (record.cltv_expiry, record.value_msat, record.add_index),
        (24, 1_500, 3)
    );
}

#[test]
fn lookup_of_an_unknown_hash_is_not_found() {
    let mut node = node();
    assert_eq!(node.lookup(&hash(1).0), Err(Refusal::NoInvoices));
    add(&mut node, 2);
    for unknown in [&hash(1).0[..], &[]] {
        assert_eq!(node.lookup(unknown), Err(Refusal::NotFound));
    }
    assert_eq!(
        node.lookup(&[1; 31]).unwrap_err().to_string(),
        "payment hash must be exactly 32 bytes, is instead 31"
    );
}
