//! Generated input: nothing that comes from outside makes a decoder panic, and what goes out comes back.

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::nostr::method::Asked;
use crate::nostr::wire::envelope::Plain;
use crate::nostr::wire::nip44::ConversationKeys;

/// JSON whose names are likely to be ours.
fn json() -> impl Strategy<Value = Value> {
    let names = [
        "rpcName",
        "authIdentifier",
        "requestId",
        "body",
        "params",
        "status",
        "reason",
        "part",
        "index",
        "totalShards",
        "shardsId",
        "requests",
        "req",
        "hash",
        "preimage",
        "amount_sats",
        "memo",
        "expiry",
    ];
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<i32>().prop_map(|n| Value::from(f64::from(n) / 4.0)),
        (0_u64..40).prop_map(Value::from),
        "\\PC{0,12}".prop_map(Value::from),
        "[0-9a-f]{64}".prop_map(Value::from),
        prop_oneof![
            Just("createHoldInvoice"),
            Just("SettleHoldInvoice"),
            Just("BatchUser"),
            Just("OK")
        ]
        .prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 64, 8, move |inner| {
        let name = prop_oneof![
            proptest::sample::select(names.to_vec()).prop_map(str::to_owned),
            "\\PC{0,6}"
        ];
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..12).prop_map(Value::from),
            proptest::collection::hash_map(name, inner, 0..8).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn keys() -> ConversationKeys {
    ConversationKeys::derive(client().secret_key(), &server().public_key()).unwrap()
}

proptest! {
    #[test]
    fn bytes_are_an_event_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..500)) {
        let party = service().party();
        prop_assert!(Signed::from_json(&bytes, &party).is_err());
    }

    #[test]
    fn json_is_an_event_or_an_error(json in json()) {
        let party = service().party();
        prop_assert!(Signed::from_json(json.to_string().as_bytes(), &party).is_err());
    }

    #[test]
    fn contents_decrypt_or_are_an_error(text in any::<String>(), bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        use base64::Engine;
        let keys = keys();
        let _ = keys.decrypt(&text);
        for version in 0..4 {
            let payload = [&[version], bytes.as_slice()].concat();
            let _ = keys.decrypt(&base64::engine::general_purpose::STANDARD.encode(payload));
        }
        let _ = keys.decrypt(&format!("{{{text}"));
    }

    #[test]
    fn plaintexts_are_read_or_are_an_error(text in any::<String>(), json in json()) {
        let _ = Plain::read(&text);
        if let Ok(Plain::Request(envelope)) = Plain::read(&json.to_string())
            && let Ok(request) = envelope.request
        {
            let _ = Asked::read(&request);
        }
    }

    /// Rubbish from an authenticated caller, all the way in.
    #[test]
    fn any_json_sent_properly_is_taken_or_dropped(mut json in json(), v1 in any::<bool>(), named in any::<bool>()) {
        let version = if v1 { Version::V1 } else { Version::V2 };
        let is_request = json.get("rpcName").is_some();
        if named && let Some(object) = json.as_object_mut() {
            object.insert("authIdentifier".into(), client().public_key().to_hex().into());
        }
        let event = caller().seal(server().public_key(), version, &json.to_string(), NOW).unwrap().remove(0);
        let mut service = service();
        let signed = Signed::from_event(event, &service.party()).unwrap();
        match receive(&mut service, &signed, &mut Memory::default()) {
            Ok(Incoming::Request { request, .. }) => {
                prop_assert!(is_request && named);
                let _ = request.map(|request| Asked::read(&request));
            }
            Ok(Incoming::Reply { .. }) => prop_assert!(false, "a reply to a service"),
            Ok(Incoming::Piece { .. }) => {}
            Err(reason) => prop_assert!(!(is_request && named), "a request of an authenticated caller: {reason}"),
        }
    }

    #[test]
    fn any_text_round_trips(text in "\\PC{1,300}") {
        let keys = keys();
        for version in [Version::V1, Version::V2] {
            let content = keys.encrypt(version, &text).unwrap();
            prop_assert_eq!(keys.decrypt(&content), Ok((version, text.clone())));
        }
    }

    #[test]
    fn any_request_round_trips(input in json(), name in "[a-zA-Z]{1,64}", id in "\\PC{0,30}") {
        let Value::Object(input) = input else { return Ok(()) };
        let request = Request { rpc_name: name, input };
        let Ok(Plain::Request(read)) = Plain::read(&request.encode("ab", &id)) else { panic!("no request") };
        prop_assert_eq!(read.request.unwrap(), request);
        prop_assert_eq!((read.request_id, read.auth_identifier), (Some(id), Some("ab".to_owned())));
    }
}
