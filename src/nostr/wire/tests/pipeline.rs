//! The order of checks, each reason for silence, and what an authenticated caller is told.

use ::nostr::{Event, EventBuilder, JsonUtil, Kind, Tag, Timestamp};
use serde_json::{Value, json};

use super::*;
use crate::nostr::field::Object;
use crate::nostr::wire::nip44::ConversationKeys;

const AT: u64 = NOW.0 / 1000;

fn request_text(auth: &str) -> String {
    json!({"rpcName": "getHoldInvoice", "authIdentifier": auth, "requestId": "r-1", "body": {"hash": "ab"}}).to_string()
}

fn own() -> String {
    client().public_key().to_hex()
}

fn encrypted(text: &str) -> String {
    let keys = ConversationKeys::derive(client().secret_key(), &server().public_key()).unwrap();
    keys.encrypt(Version::V2, text).unwrap()
}

/// An event of the client to the server around `text`.
fn event_of(text: &str, created_at: u64) -> Event {
    event::sign(&client(), server().public_key(), encrypted(text), created_at).unwrap()
}

fn offer(endpoint: &mut Endpoint, event: &Event, gate: &mut Memory) -> Result<Incoming, DropReason> {
    let signed = Signed::from_json(event.as_json().as_bytes(), &endpoint.party())?;
    receive(endpoint, &signed, gate)
}

fn offer_new(event: &Event) -> Result<Incoming, DropReason> {
    offer(&mut service(), event, &mut Memory::default())
}

fn built(kind: u16, tags: Vec<Tag>) -> Event {
    let content = encrypted(&request_text(&own()));
    let builder = EventBuilder::new(Kind::Custom(kind), content).tags(tags);
    let builder = builder.custom_created_at(Timestamp::from_secs(AT)).allow_self_tagging();
    builder.sign_with_keys(&client()).unwrap()
}

fn changed(event: &Event, change: impl Fn(&mut Value)) -> Event {
    let mut json: Value = serde_json::from_str(&event.as_json()).unwrap();
    change(&mut json);
    Event::from_json(json.to_string()).unwrap()
}

/// Every reason, each brought about once.
#[test]
fn each_reason_for_silence_can_happen() {
    let good = event_of(&request_text(&own()), AT);
    let to_server = || Tag::public_key(server().public_key());
    let to_client = || Tag::public_key(client().public_key());
    let party = service().party();
    let mut happened = vec![
        Signed::from_json(&vec![b' '; 70_000], &party).unwrap_err(),
        Signed::from_json(b"{}", &party).unwrap_err(),
        offer_new(&built(21_001, vec![to_server()])).unwrap_err(),
        offer_new(&built(KIND, vec![to_client(), to_server()])).unwrap_err(),
    ];
    let stranger = event::sign(&Keys::generate(), client().public_key(), String::new(), AT).unwrap();
    happened.push(offer(&mut caller(), &stranger, &mut Memory::default()).unwrap_err());
    happened.push(offer_new(&changed(&good, |json| json["created_at"] = (AT + 1).into())).unwrap_err());
    let rubbish = event::sign(&client(), server().public_key(), "rubbish".into(), AT).unwrap();
    happened.push(offer_new(&rubbish).unwrap_err());
    let stranger = Keys::generate().public_key().to_hex();
    for (text, created_at) in [
        ("[1]".to_owned(), AT),
        (r#"{"status":"OK"}"#.to_owned(), AT),
        (request_text(&stranger), AT),
        (request_text(&own()), AT - 91),
        (request_text(&own()), AT + 901),
    ] {
        happened.push(offer_new(&event_of(&text, created_at)).unwrap_err());
    }
    let (mut endpoint, mut gate) = (service(), Memory::default());
    offer(&mut endpoint, &good, &mut gate).unwrap();
    happened.push(offer(&mut endpoint, &good, &mut gate).unwrap_err());
    let mut broken = Memory {
        broken: true,
        ..Memory::default()
    };
    happened.push(offer(&mut service(), &good, &mut broken).unwrap_err());
    let piece = |index: u64, total: u64| json!({"part": "x", "index": index, "totalShards": total, "shardsId": "a"});
    happened.push(offer_new(&event_of(&piece(2, 2).to_string(), AT)).unwrap_err());
    let mut closed = Memory {
        knows_nobody: true,
        ..Memory::default()
    };
    let first = event_of(&piece(0, 2).to_string(), AT);
    happened.push(offer(&mut service(), &first, &mut closed).unwrap_err());
    assert_eq!(closed.asked, 0, "not even remembered");
    let shards = ShardLimits {
        message_bytes: 0,
        ..ShardLimits::default()
    };
    let mut small = Endpoint::new(
        server(),
        Role::Service,
        Limits {
            shards,
            ..Limits::default()
        },
    );
    happened.push(offer(&mut small, &first, &mut Memory::default()).unwrap_err());
    let gates = [DropReason::Strangers, DropReason::RateLimited, DropReason::Unanswered];
    let wires = DropReason::ALL.iter().filter(|reason| !gates.contains(reason));
    assert!(happened.iter().eq(wires), "{happened:?}");
}

#[test]
fn the_first_check_that_fails_decides() {
    let mut gate = Memory::default();
    let stranger = Keys::generate().public_key().to_hex();
    let old_and_foreign = event_of(&request_text(&stranger), AT - 1000);
    let reason = |event: &Event, gate: &mut Memory| offer(&mut service(), event, gate).unwrap_err();
    assert_eq!(reason(&old_and_foreign, &mut gate), DropReason::AuthMismatch);
    let old = event_of(&request_text(&own()), AT - 1000);
    gate.seen.insert(old.id);
    assert_eq!(reason(&old, &mut gate), DropReason::TooOld);
    assert_eq!(gate.asked, 0, "nothing is remembered before all else is proven");
    let forged = changed(&old, |json| json["sig"] = "00".repeat(64).into());
    assert_eq!(reason(&forged, &mut gate), DropReason::BadSignature);
}

#[test]
fn freshness_ends_where_it_says() {
    for (created_at, fresh) in [
        (AT - 91, false),
        (AT - 90, true),
        (AT, true),
        (AT + 900, true),
        (AT + 901, false),
    ] {
        let event = event_of(&request_text(&own()), created_at);
        assert_eq!(offer_new(&event).is_ok(), fresh, "{created_at}");
    }
    let freshness = Freshness::default();
    let until = freshness.remember_until_unix(AT);
    assert!(freshness.check(AT, UnixMs(until * 1000)).is_ok());
    assert!(freshness.check(AT, UnixMs((until + 1) * 1000)).is_err());
    assert!(freshness.check(u64::MAX, UnixMs(0)).is_err());
}

#[test]
fn a_flipped_bit_anywhere_in_an_event_is_noticed() {
    let party = service().party();
    for version in [Version::V1, Version::V2] {
        let text = Request {
            rpc_name: "x".into(),
            input: Object::new(),
        }
        .encode(&own(), "r");
        let sealed = caller().seal(server().public_key(), version, &text, NOW).unwrap();
        let json = sealed[0].as_json().into_bytes();
        let whole = Signed::from_json(&json, &party).unwrap();
        for at in 0..json.len() {
            for bit in 0..8 {
                let mut bad = json.clone();
                bad[at] ^= 1 << bit;
                // A hexadecimal digit in capitals is the same digit: the event is then the same.
                if let Ok(signed) = Signed::from_json(&bad, &party) {
                    assert_eq!(signed, whole, "byte {at} bit {bit}");
                }
            }
        }
    }
}

#[test]
fn an_authenticated_caller_is_told_the_bad_field() {
    let cases = [
        (json!({"rpcName": 7}), Some("r-1"), "rpcName must be a text"),
        (
            json!({"rpcName": "x".repeat(65)}),
            Some("r-1"),
            "rpcName must have at most 64 bytes",
        ),
        (
            json!({"rpcName": "x", "body": "y"}),
            Some("r-1"),
            "body must be an object",
        ),
        (
            json!({"rpcName": "x", "body": {}, "params": [1]}),
            Some("r-1"),
            "params must be an object",
        ),
        (
            json!({"rpcName": "x", "requestId": 5}),
            None,
            "requestId must be a text",
        ),
    ];
    for (mut text, id, says) in cases {
        text["authIdentifier"] = own().into();
        if id.is_some() {
            text["requestId"] = "r-1".into();
        }
        let incoming = offer_new(&event_of(&text.to_string(), AT)).unwrap();
        let Incoming::Request {
            request_id, request, ..
        } = incoming
        else {
            panic!("{incoming:?}");
        };
        assert_eq!(request_id.as_deref(), id);
        assert_eq!(request.unwrap_err().to_string(), says);
    }
}

#[test]
fn input_is_the_body_or_else_the_params() {
    for (text, expected) in [
        (json!({"body": {"a": 1}, "params": {"a": 2}}), json!({"a": 1})),
        (
            json!({"body": {}, "params": {"a": 2}, "query": {"a": 3}}),
            json!({"a": 2}),
        ),
        (json!({"body": null, "params": {"a": 2}}), json!({"a": 2})),
        (json!({"params": {"a": 2}}), json!({"a": 2})),
        (json!({"query": {"a": 3}}), json!({})),
    ] {
        let mut text = text;
        text["rpcName"] = "x".into();
        text["authIdentifier"] = own().into();
        let Incoming::Request { request, .. } = offer_new(&event_of(&text.to_string(), AT)).unwrap() else {
            panic!("{text}");
        };
        assert_eq!(Value::Object(request.unwrap().input), expected);
    }
}

#[test]
fn a_reply_comes_back_in_the_version_of_the_request() {
    for version in [Version::V1, Version::V2] {
        let (mut client_side, mut server_side) = (caller(), service());
        let request = Request {
            rpc_name: "x".into(),
            input: Object::new(),
        };
        let text = request.encode(&own(), "r-9");
        let event = client_side
            .seal(server().public_key(), version, &text, NOW)
            .unwrap()
            .remove(0);
        let Incoming::Request { origin, request_id, .. } =
            offer(&mut server_side, &event, &mut Memory::default()).unwrap()
        else {
            panic!("no request");
        };
        let outcome = Outcome::success(&json!({"state": "OPEN"})).unwrap();
        let sent = Reply { request_id, outcome };
        let events = server_side
            .seal(origin.sender, origin.version, &sent.clone().encode(), NOW)
            .unwrap();
        let incoming = offer(&mut client_side, &events[0], &mut Memory::default()).unwrap();
        let Incoming::Reply { origin, reply } = incoming else {
            panic!("{incoming:?}");
        };
        assert_eq!((reply, origin.version), (sent, version));
    }
}

#[test]
fn results_may_not_use_the_names_around_them() {
    for name in envelope::RESERVED {
        assert!(Outcome::success(&json!({ *name: 1 })).is_err(), "{name}");
    }
    assert!(Outcome::success(&7).is_err());
    let empty = Reply {
        request_id: None,
        outcome: Outcome::success(&json!({})).unwrap(),
    };
    assert_eq!(empty.encode(), r#"{"status":"OK"}"#);
}

#[test]
fn nothing_printed_holds_an_input() {
    let input = Object::from_iter([("preimage".to_owned(), "5ec2e7".into())]);
    let request = Request {
        rpc_name: "settleHoldInvoice".into(),
        input,
    };
    let piece = shard::split(&request.encode(&own(), "r"), 200, "id").unwrap().remove(0);
    let printed = format!(
        "{request:?} {piece:?} {:?} {:?}",
        service(),
        Outcome::success(&json!({"a": "5ec2e7"}))
    );
    assert!(!printed.contains("5ec2e7"), "{printed}");
}
