//! The golden vectors, in both directions.

use ::nostr::JsonUtil;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::*;
use crate::nostr::wire::nip44::{ConversationKeys, Nip44Error, content_len, longest_plaintext};

fn vectors() -> Value {
    serde_json::from_str(include_str!("../../../../tests/vectors/nip44_v1.json")).unwrap()
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap()
}

fn both_sides() -> [ConversationKeys; 2] {
    [
        ConversationKeys::derive(client().secret_key(), &server().public_key()).unwrap(),
        ConversationKeys::derive(server().secret_key(), &client().public_key()).unwrap(),
    ]
}

#[test]
fn keys_are_those_of_the_vectors() {
    let keys = &vectors()["keys"];
    assert_eq!(client().public_key().to_hex(), text(keys, "client_pubkey"));
    assert_eq!(server().public_key().to_hex(), text(keys, "server_pubkey"));
    for side in both_sides() {
        assert_eq!(hex::encode(side.v1_key()), text(keys, "conversation_key"));
    }
}

#[test]
fn version_1_encrypts_to_the_same_bytes() {
    let vectors = vectors();
    let cases = vectors["encrypt"].as_array().unwrap();
    let again = vectors["decrypt"].as_array().unwrap();
    for side in both_sides() {
        for case in cases {
            let nonce: [u8; 24] = hex::decode(text(case, "nonce")).unwrap().try_into().unwrap();
            assert_eq!(side.encrypt_v1(&nonce, text(case, "plaintext")), text(case, "payload"));
        }
        for case in again {
            let payload = STANDARD.decode(text(case, "v1")).unwrap();
            let nonce: [u8; 24] = payload[1..25].try_into().unwrap();
            assert_eq!(side.encrypt_v1(&nonce, text(case, "plaintext")), text(case, "v1"));
        }
    }
}

#[test]
fn both_versions_decrypt_and_encrypt() {
    for case in vectors()["decrypt"].as_array().unwrap() {
        let plaintext = text(case, "plaintext");
        for side in both_sides() {
            for (version, name) in [(Version::V1, "v1"), (Version::V2, "v2")] {
                let content = text(case, name);
                assert_eq!(side.decrypt(content), Ok((version, plaintext.to_owned())));
                assert_eq!(content_len(version, plaintext.len()), Some(content.len()));
                let made = side.encrypt(version, plaintext).unwrap();
                assert_ne!(made, content, "a fresh nonce");
                assert_eq!(both_sides()[0].decrypt(&made), Ok((version, plaintext.to_owned())));
            }
        }
    }
}

#[test]
fn version_1_comes_as_json_too() {
    let [side, _] = both_sides();
    for case in vectors()["decrypt"].as_array().unwrap() {
        let payload = STANDARD.decode(text(case, "v1")).unwrap();
        let form = |v: u8| {
            json!({"v": v, "nonce": STANDARD.encode(&payload[1..25]), "ciphertext": STANDARD.encode(&payload[25..])})
                .to_string()
        };
        assert_eq!(
            side.decrypt(&form(1)),
            Ok((Version::V1, text(case, "plaintext").to_owned()))
        );
        assert_eq!(side.decrypt(&form(2)), Err(Nip44Error::Version));
    }
    let short = json!({"v": 1, "nonce": "AAAA", "ciphertext": "AAAA"}).to_string();
    assert_eq!(side.decrypt(&short), Err(Nip44Error::Version));
    assert_eq!(side.decrypt("{}"), Err(Nip44Error::Json));
}

#[test]
fn broken_payloads_are_errors() {
    let [side, _] = both_sides();
    for bad in [
        "",
        "A",
        "AQ==",
        "Ag==",
        "AwAA",
        "AQABAgMEBQYHCAkKCwwNDg8QERITFBUW",
        "not base64!",
    ] {
        assert!(side.decrypt(bad).is_err(), "{bad}");
    }
    let unpadded = text(&vectors()["decrypt"][2], "v2").trim_end_matches('=').to_owned() + "A";
    assert!(side.decrypt(&unpadded).is_err());
}

/// Why the signature comes first: version 1 does not notice.
#[test]
fn a_flipped_bit_is_noticed_by_version_2_only() {
    let [side, _] = both_sides();
    let case = &vectors()["decrypt"][0];
    let flipped = |name: &str, at: usize| {
        let mut payload = STANDARD.decode(text(case, name)).unwrap();
        payload[at] ^= 1;
        side.decrypt(&STANDARD.encode(payload))
    };
    assert_eq!(flipped("v1", 25), Ok((Version::V1, "iello".into())));
    for at in 1..STANDARD.decode(text(case, "v2")).unwrap().len() {
        assert!(flipped("v2", at).is_err(), "byte {at}");
    }
}

#[test]
fn the_events_pass_every_check() {
    let vectors = vectors();
    let events = vectors["events"].as_array().unwrap();
    let plaintexts = [(Version::V1, 1), (Version::V2, 3)];
    for (event, (version, case)) in events.iter().zip(plaintexts) {
        let json = event.to_string();
        let signed = Signed::from_json(json.as_bytes(), &service().party()).unwrap();
        let expected = text(&vectors["decrypt"][case], "plaintext").to_owned();
        assert_eq!(both_sides()[1].decrypt(signed.content()), Ok((version, expected)));
    }
    let json = events[0].to_string();
    let signed = Signed::from_json(json.as_bytes(), &service().party()).unwrap();
    let incoming = receive(&mut service(), &signed, &mut Memory::default()).unwrap();
    let Incoming::Request {
        origin,
        request_id,
        request,
    } = incoming
    else {
        panic!("{incoming:?}");
    };
    assert_eq!((origin.sender, origin.version), (client().public_key(), Version::V1));
    assert_eq!(request_id.as_deref(), Some("abcdefghijklmnop"));
    assert_eq!(request.unwrap().rpc_name, "createHoldInvoice");
    // The other one is a reply, sent to a service.
    let signed = Signed::from_json(events[1].to_string().as_bytes(), &service().party()).unwrap();
    let dropped = receive(&mut service(), &signed, &mut Memory::default()).unwrap_err();
    assert_eq!(dropped, DropReason::Unexpected);
}

#[test]
fn sizes_are_known_before_anything_is_encrypted() {
    let [side, _] = both_sides();
    for len in (1..700).chain([1023, 1024, 1025, 8191, 8192, 8193, 40_000, 65_408]) {
        for version in [Version::V1, Version::V2] {
            let content = side.encrypt(version, &"x".repeat(len)).unwrap();
            assert_eq!(content_len(version, len), Some(content.len()), "{version:?} {len}");
            assert!(longest_plaintext(version, content.len()) >= len);
            assert!(longest_plaintext(version, content.len() - 1) < len);
        }
    }
    assert_eq!(content_len(Version::V2, 65_409), None);
    assert_eq!(longest_plaintext(Version::V2, usize::MAX), 65_408);
    for created_at in [0, 999_999_999, 1_700_000_000, u64::MAX] {
        let event = event::sign(&client(), server().public_key(), "AAAA".into(), created_at).unwrap();
        assert_eq!(event.as_json().len(), event::overhead(created_at) + 4);
    }
}
