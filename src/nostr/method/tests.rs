//! Tests of the methods: what is refused and in which words, spellings, batches, round trips.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::nostr::wire::Outcome;
use input::AMOUNT_SATS_MAX;

fn request(name: &str, input: Value) -> Request {
    let input = input.as_object().expect("object").clone();
    Request {
        rpc_name: name.into(),
        input,
    }
}

fn create(change: impl Fn(&mut Object)) -> Result<Call, Refusal> {
    let mut input = json!({"hash": "ab".repeat(32), "amount_sats": 60_000, "memo": "ATM"});
    change(input.as_object_mut().unwrap());
    Call::read(&request("createHoldInvoice", input))
}

fn with(name: &str, value: Value) -> String {
    create(|input| _ = input.insert(name.into(), value.clone()))
        .unwrap_err()
        .to_string()
}

#[test]
fn create_takes_what_the_page_says() {
    let Ok(Call::CreateHoldInvoice(plain)) = create(|_| ()) else {
        panic!("refused");
    };
    assert_eq!(
        (plain.amount_sats, plain.expiry_seconds, plain.cltv_expiry),
        (60_000, 600, None)
    );
    let full = create(|input| {
        input.insert("expiry".into(), 60.into());
        input.insert("cltv_expiry".into(), 24.into());
        input.insert("amount_sats".into(), AMOUNT_SATS_MAX.into());
        input.insert("memo".into(), "ü".repeat(319).into());
    });
    let Ok(Call::CreateHoldInvoice(full)) = full else {
        panic!("{full:?}");
    };
    assert_eq!((full.expiry_seconds, full.cltv_expiry), (60, Some(24)));
}

#[test]
fn bad_amounts_are_refused() {
    let huge = json!(1e300);
    for bad in [
        json!(-1),
        json!(0),
        json!(0.5),
        json!(1.0),
        json!("1"),
        json!(AMOUNT_SATS_MAX + 1),
        huge,
        json!([]),
    ] {
        assert_eq!(
            with("amount_sats", bad),
            "amount_sats must be a whole number from 1 to 2100000000000000"
        );
    }
    let text = r#"{"amount_sats": 99999999999999999999999999}"#;
    assert!(
        with(
            "amount_sats",
            serde_json::from_str::<Value>(text).unwrap()["amount_sats"].clone()
        )
        .contains("whole")
    );
    assert_eq!(with("amount_sats", Value::Null), "amount_sats is missing");
}

#[test]
fn bad_hashes_are_refused_without_repeating_them() {
    let bad = [
        json!("ab".repeat(31)),
        json!("ab".repeat(33)),
        json!("a".repeat(63)),
        json!("zz".repeat(32)),
        json!(7),
    ];
    for value in bad {
        assert_eq!(with("hash", value.clone()), "hash must be 64 hexadecimal digits");
        let refused = Call::read(&request("settleHoldInvoice", json!({ "preimage": value }))).unwrap_err();
        assert_eq!(refused.to_string(), "preimage must be 64 hexadecimal digits");
    }
    for name in ["commitHoldInvoice", "cancelHoldInvoice", "getHoldInvoice"] {
        let refused = Call::read(&request(name, json!({}))).unwrap_err();
        assert_eq!(refused.to_string(), "hash is missing");
    }
}

#[test]
fn other_fields_have_bounds_too() {
    assert_eq!(with("memo", json!("ü".repeat(320))), "memo must have at most 639 bytes");
    assert_eq!(with("memo", Value::Null), "memo is missing");
    assert_eq!(
        with("expiry", json!(0)),
        "expiry must be a whole number from 1 to 31536000"
    );
    assert_eq!(
        with("cltv_expiry", json!(23)),
        "cltv_expiry must be a whole number from 24 to 65535"
    );
    assert_eq!(
        with("cltv_expiry", json!(65_536)),
        "cltv_expiry must be a whole number from 24 to 65535"
    );
    assert_eq!(with("expires", json!(60)), "expires is not a field of this method");
    let refused = Call::read(&request("subscribeHoldInvoices", json!({"hash": "x"}))).unwrap_err();
    assert_eq!(refused.to_string(), "hash is not a field of this method");
}

#[test]
fn both_spellings_are_one_method() {
    for &method in Method::ALL {
        let pascal = method.name()[..1].to_uppercase() + &method.name()[1..];
        assert_eq!(Method::of_name(method.name()), Some(method));
        assert_eq!(Method::of_name(&pascal), Some(method));
        assert_eq!(Method::of_name(&pascal.to_uppercase()), None);
    }
    for bad in [
        "",
        "c",
        "ü",
        "createholdinvoice",
        "createHoldInvoice ",
        "ƒreateHoldInvoice",
    ] {
        assert_eq!(Method::of_name(bad), None, "{bad}");
    }
    let refused = Call::read(&request("newInvoice", json!({}))).unwrap_err();
    assert_eq!(refused.to_string(), "unknown method newInvoice");
}

#[test]
fn a_batch_answers_each_for_itself() {
    let get = Call::GetHoldInvoice(PaymentHash([7; 32]));
    let mut batch = Request::batch(vec![get.request(), request("x", json!({})), Request::batch(vec![])]);
    let list = batch.input["requests"].as_array_mut().unwrap();
    list.push(json!({"rpcName": "getHoldInvoice", "req": 5}));
    list.push(json!(5));
    list.push(json!({"rpcName": "getHoldInvoice"}));
    let Ok(Asked::Batch(calls)) = Asked::read(&batch) else {
        panic!("no batch");
    };
    assert_eq!(calls[0], Ok(get));
    let refusals: Vec<String> = calls[1..]
        .iter()
        .map(|call| call.as_ref().unwrap_err().to_string())
        .collect();
    assert_eq!(
        refusals,
        [
            "unknown method x",
            "a batch can not hold another batch",
            "requests[3].req must be an object",
            "requests[4] must be an object",
            "hash is missing",
        ]
    );
    let ten = Request::batch(vec![request("x", json!({})); 10]);
    assert!(Asked::read(&ten).is_ok());
    let eleven = Request::batch(vec![request("x", json!({})); 11]);
    assert_eq!(
        Asked::read(&eleven).unwrap_err().to_string(),
        "requests may hold at most 10"
    );
    assert_eq!(
        Asked::read(&request("batchUser", json!({"requests": 1})))
            .unwrap_err()
            .to_string(),
        "requests must be a list"
    );
}

#[test]
fn answers_to_a_batch_read_back() {
    let outcomes = vec![
        Outcome::success(&json!({"state": "OPEN"})).unwrap(),
        Outcome::Error(Failure::new(Code::NotFound, "no")),
    ];
    let Outcome::Ok(fields) = Outcome::batch(outcomes.clone()) else {
        panic!("error");
    };
    assert_eq!(
        Value::from(fields.clone()),
        json!({"responses": [{"status": "OK", "state": "OPEN"}, {"status": "ERROR", "code": "not_found", "reason": "no"}]})
    );
    assert_eq!(Outcome::responses(&fields).unwrap(), outcomes);
    let bad = json!({"responses": [{"status": "MAYBE"}]});
    let error = Outcome::responses(bad.as_object().unwrap()).unwrap_err();
    assert_eq!(error.to_string(), "responses[0].status must be OK or ERROR");
}

fn fields_of(result: &impl serde::Serialize) -> Object {
    match Outcome::success(result).expect("no reserved name") {
        Outcome::Ok(fields) => fields,
        Outcome::Error(failure) => panic!("{failure}"),
    }
}

#[test]
fn results_read_back_and_may_grow() {
    let (payment_hash, state) = (PaymentHash([0xab; 32]), HoldState::Canceled);
    let created = CreatedInvoice {
        invoice: "lnbc1".into(),
        payment_hash,
        expires_at_unix: 1_700_000_600,
        hold_deadline_seconds: 600,
    };
    let mut fields = fields_of(&created);
    fields.insert("new".into(), json!([1]));
    assert_eq!(CreatedInvoice::read(&fields), Ok(created));
    let committed = CommittedInvoice {
        payment_hash,
        state,
        commit_deadline_unix: 1_700_003_600,
        blocks_left: -3,
        amount_paid_sats: 70_000,
        htlc_expiry_height: 800_080,
        block_height: 800_065,
    };
    assert_eq!(CommittedInvoice::read(&fields_of(&committed)), Ok(committed));
    let standing = InvoiceStanding {
        payment_hash,
        state,
        done: false,
    };
    assert_eq!(Value::from(fields_of(&standing))["state"], "CANCELED");
    assert_eq!(InvoiceStanding::read(&fields_of(&standing)), Ok(standing));
    fields.insert("state".into(), "PAID".into());
    assert!(InvoiceStanding::read(&fields).is_err(), "an unknown state is no state");
}

proptest! {
    #[test]
    fn calls_round_trip(hash in any::<[u8; 32]>(), amount_sats in 1..=AMOUNT_SATS_MAX, memo in "\\PC{0,200}",
        expiry_seconds in 1..=input::EXPIRY_SECONDS_MAX, cltv_expiry in proptest::option::of(24..=u16::MAX)) {
        let hash_only = PaymentHash(hash);
        let create = CreateHoldInvoice { hash: hash_only, amount_sats, memo, expiry_seconds, cltv_expiry };
        for call in [
            Call::CreateHoldInvoice(create),
            Call::CommitHoldInvoice(hash_only),
            Call::SettleHoldInvoice(Preimage::from_bytes(hash)),
            Call::CancelHoldInvoice(hash_only),
            Call::GetHoldInvoice(hash_only),
            Call::SubscribeHoldInvoices,
        ] {
            prop_assert_eq!(Asked::read(&call.request()), Ok(Asked::One(call)));
        }
    }

    #[test]
    fn standings_round_trip(numbers in any::<[u32; 6]>(), known in any::<[bool; 5]>(), state in 0_usize..4) {
        let states = [HoldState::Open, HoldState::Accepted, HoldState::Settled, HoldState::Canceled];
        let some = |i: usize| known[i].then_some(u64::from(numbers[i]));
        let invoice = HoldInvoice {
            funds: Some(crate::money::Funds::Pending),
            payment_hash: PaymentHash([1; 32]),
            state: states[state],
            done: known[1],
            invoice: known[0].then(|| "lnbc1".to_owned()),
            amount_sats: u64::from(numbers[5]) + 1,
            amount_paid_sats: u64::from(numbers[5]),
            accepted_at_unix: some(0),
            settled_at_unix: some(1),
            htlc_expiry_height: known[2].then_some(numbers[2]),
            blocks_left: known[3].then_some(-i64::from(numbers[3])),
            hold_deadline_unix: some(4),
        };
        prop_assert_eq!(HoldInvoice::read(&fields_of(&invoice)), Ok(invoice));
    }
}
