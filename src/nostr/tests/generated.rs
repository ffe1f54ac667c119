//! Generated input for everything that is read out of a message: no panic, an error names the field, and repeats no
//! secret that stood in it.

use ::nostr::{Event, EventBuilder, Keys, Kind, Tag};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::nostr::beacon;
use crate::nostr::field::{BadField, Object};
use crate::nostr::method::{
    Asked, Call, CommittedInvoice, CreatedInvoice, HoldInvoice, InvoiceStanding, PairingToken, Refusal, ServiceInfo,
};
use crate::nostr::wire::Request;

/// Stands for a preimage or a token in a wrong place.
const SECRET: &str = "5ec2e75ec2e75ec2e75ec2e75ec2e75ec2e75ec2e75ec2e75ec2e75ec2e75ec2";

/// Any JSON, often with the secret inside.
fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "\\PC{0,40}".prop_map(Value::from),
        Just(Value::from(SECRET)),
        Just(Value::from(format!("nprofile1xyz:{SECRET}"))),
    ];
    leaf.prop_recursive(3, 24, 6, |inner| {
        let names = prop_oneof![
            Just("rpcName"),
            Just("req"),
            Just("atms"),
            Just("position"),
            Just("delivered_minor")
        ];
        let name = prop_oneof![names.prop_map(str::to_owned), "\\PC{0,8}"];
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..12).prop_map(Value::from),
            proptest::collection::hash_map(name, inner, 0..6).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Each method with an input that it takes.
fn inputs() -> Vec<(&'static str, Value)> {
    let (hash, cashout) = ("ab".repeat(32), "01JD2M9K7Q8XWV3F");
    let cassette = json!({"position": 1, "denomination_minor": 2000, "notes": 100});
    let atm = json!({"id": "hall", "name": "Hall", "state": "ready", "reason": null, "cassettes": [], "open": []});
    let report = json!({"version": "1", "now_unix_ms": 1, "atms": [atm], "waiting": []});
    vec![
        (
            "createHoldInvoice",
            json!({"hash": hash, "amount_sats": 1, "memo": "", "expiry": 1, "cltv_expiry": 24}),
        ),
        ("CommitHoldInvoice", json!({ "hash": hash })),
        ("settleHoldInvoice", json!({ "preimage": hash })),
        ("cancelHoldInvoice", json!({ "hash": hash })),
        ("getHoldInvoice", json!({ "hash": hash })),
        ("subscribeHoldInvoices", json!({})),
        ("getServiceInfo", json!({})),
        ("enrollClient", json!({ "token": hash })),
        ("reportSite", json!({ "report": report })),
        ("listAtms", json!({})),
        ("getAtm", json!({"atm": "hall"})),
        ("listCashOuts", json!({"atm": "hall", "before": cashout, "limit": 1})),
        ("getCashOut", json!({ "cashout": cashout })),
        ("drainAtm", json!({"atm": "hall"})),
        ("resumeAtm", json!({"atm": "hall"})),
        ("loadAtm", json!({"atm": "hall", "cassettes": [cassette]})),
        (
            "resolveCashOut",
            json!({"cashout": cashout, "decision": "close", "note": "n"}),
        ),
    ]
}

fn object(value: Value) -> Object {
    match value {
        Value::Object(object) => object,
        other => panic!("no object: {other}"),
    }
}

/// `object` with one of its fields, or one more, changed; and that field's name.
fn changed(object: &Object, which: usize, value: Value) -> (String, Object) {
    let names: Vec<&String> = object.keys().collect();
    let name = names
        .get(which % (names.len() + 1))
        .map_or("extra", |name| name.as_str())
        .to_owned();
    let mut object = object.clone();
    object.insert(name.clone(), value);
    (name, object)
}

/// Names and ids are no secrets, and errors show them as they came.
fn shows_what_came(field: &str) -> bool {
    ["atm", "before", "cashout"].contains(&field)
}

fn told_of(error: &BadField, field: &str) {
    assert_eq!(error.field, field, "{error}");
    assert!(shows_what_came(field) || !error.to_string().contains(SECRET), "{error}");
}

type Reads = fn(&Object) -> Result<(), BadField>;

/// A result's reader, and a result that it takes.
fn results() -> Vec<(Reads, Value)> {
    let hash = "ab".repeat(32);
    vec![
        (
            |fields| CreatedInvoice::read(fields).map(drop),
            json!({"invoice": "lnbc1", "payment_hash": hash, "expires_at_unix": 1, "hold_deadline_seconds": 600}),
        ),
        (
            |fields| CommittedInvoice::read(fields).map(drop),
            json!({"payment_hash": hash, "state": "ACCEPTED", "commit_deadline_unix": 1, "blocks_left": -1,
                "amount_paid_sats": 1, "htlc_expiry_height": 1, "block_height": 1}),
        ),
        (
            |fields| InvoiceStanding::read(fields).map(drop),
            json!({"payment_hash": hash, "state": "SETTLED"}),
        ),
        (
            |fields| HoldInvoice::read(fields).map(drop),
            json!({"payment_hash": hash, "state": "OPEN", "invoice": "lnbc1", "amount_sats": 1, "amount_paid_sats": 0,
                "accepted_at_unix": 1, "settled_at_unix": 1, "htlc_expiry_height": 1, "blocks_left": 1,
                "hold_deadline_unix": 1}),
        ),
        (
            |fields| ServiceInfo::read(fields).map(drop),
            json!({"name": "n", "version": "v", "node_pubkey": "02", "network": "regtest", "block_height": 1,
                "node_up": true, "can_create": true, "trouble": "t", "hold_expiry_delta": 18, "min_blocks_left": 12,
                "cltv_expiry": 80, "hold_deadline_seconds": 600, "commit_deadline_seconds": 3900, "now_unix": 1,
                "client": "c", "limits": {"max_amount_sats": 1, "max_held_sats": 1, "max_open": 1,
                "requests_per_minute": 1, "sats_per_day": 1}}),
        ),
    ]
}

fn beacon_of(content: String, kind: u16, identifier: &str) -> Event {
    let event = EventBuilder::new(Kind::Custom(kind), content).tag(Tag::identifier(identifier));
    event.sign_with_keys(&Keys::parse(&"01".repeat(32)).unwrap()).unwrap()
}

#[test]
fn what_is_changed_below_is_taken_as_it_is() {
    for (name, input) in inputs() {
        let request = Request {
            rpc_name: name.into(),
            input: object(input),
        };
        assert!(Call::read(&request).is_ok(), "{name}: {:?}", Call::read(&request));
    }
    for (read, result) in results() {
        assert_eq!(read(&object(result)), Ok(()));
    }
}

proptest! {
    #[test]
    fn a_changed_field_of_any_method_is_taken_or_named(which in 0_usize..20, value in anything()) {
        for (name, input) in inputs() {
            let (field, input) = changed(&object(input), which, value.clone());
            match Call::read(&Request { rpc_name: name.into(), input }) {
                Ok(_) => prop_assert!(field != "extra", "{} took it", name),
                Err(Refusal::Field(error)) => told_of(&error, &field),
                Err(other) => prop_assert!(false, "{}: {}", name, other),
            }
        }
    }

    #[test]
    fn any_method_with_any_input_is_read_or_refused(name in "\\PC{0,70}", input in anything(), known in 0_usize..17) {
        let Value::Object(input) = input else { return Ok(()) };
        for rpc_name in [name, inputs()[known].0.to_owned()] {
            if let Err(refusal) = Asked::read(&Request { rpc_name, input: input.clone() }) {
                prop_assert!(!refusal.to_string().contains(SECRET) || input.keys().any(|key| key.contains(SECRET)));
            }
        }
    }

    #[test]
    fn each_entry_of_a_batch_is_read_for_itself(entries in proptest::collection::vec(anything(), 0..11), good in 0_usize..17) {
        let (name, req) = inputs().swap_remove(good);
        let mut list = entries.clone();
        list.push(json!({"rpcName": name, "req": req}));
        let input = object(json!({ "requests": list }));
        match Asked::read(&Request { rpc_name: "BatchUser".into(), input }) {
            Ok(Asked::Batch(calls)) => {
                prop_assert!(calls.len() == entries.len() + 1 && calls.len() <= 10);
                prop_assert!(calls.last().unwrap().is_ok(), "the others' faults are not its own");
                for (n, call) in calls.iter().enumerate() {
                    if let Err(Refusal::Field(error)) = call {
                        let inside = error.field.starts_with(&format!("requests[{n}]"));
                        prop_assert!(inside || entries[n].get("rpcName").is_some(), "{}", error);
                    }
                }
            }
            Ok(Asked::One(_)) => prop_assert!(false, "one call"),
            Err(error) => prop_assert!(entries.len() >= 10, "{}", error),
        }
    }

    #[test]
    fn a_changed_field_of_any_result_is_taken_or_named(which in 0_usize..20, value in anything()) {
        for (read, result) in results() {
            let (field, result) = changed(&object(result), which, value.clone());
            if let Err(error) = read(&result) {
                told_of(&error, &field);
            }
        }
    }

    #[test]
    fn any_content_is_a_beacon_or_an_error(value in anything(), text in "\\PC{0,60}", of_kind in any::<bool>()) {
        let kind = if of_kind { beacon::KIND } else { 30_079 };
        for content in [value.to_string(), text] {
            let read = beacon::read(&beacon_of(content, kind, beacon::IDENTIFIER));
            prop_assert!(read.is_err(), "a beacon has six fields");
        }
        prop_assert!(beacon::read(&beacon_of(value.to_string(), beacon::KIND, "other")).is_err());
    }

    #[test]
    fn a_token_is_64_digits_and_not_shown(text in "\\PC{0,70}", bytes in any::<[u8; 32]>()) {
        if let Some(token) = PairingToken::read_text(&text) {
            prop_assert_eq!(token.expose().to_lowercase(), text.to_lowercase());
        }
        let token = PairingToken::from_bytes(bytes);
        let shown = format!("{token:?}");
        prop_assert!(!shown.contains(token.expose()));
        let upper = PairingToken::read_text(&token.expose().to_uppercase()).map(|token| token.hash());
        prop_assert_eq!(upper, Some(token.hash()));
        prop_assert_eq!(PairingToken::read_text(&format!("{} ", token.expose())), None);
    }
}
