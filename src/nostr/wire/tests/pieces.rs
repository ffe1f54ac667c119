//! Messages in pieces: any text, any order, duplicates, gaps, and the bounds.

use std::time::Duration;

use ::nostr::JsonUtil;
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::nostr::wire::shard::{Assembler, MAX_PARTS, Shard, split};

fn sender(n: u8) -> PublicKey {
    PublicKey::from_byte_array([n; 32])
}

fn piece(id: &str, index: usize, total: usize, part: &str) -> Shard {
    Shard {
        part: part.into(),
        index,
        total,
        id: id.into(),
    }
}

/// Text with everything that is awkward in JSON or UTF-8.
fn awkward() -> impl Strategy<Value = String> {
    let unit = prop_oneof![
        Just("\"".to_owned()),
        Just("\\".to_owned()),
        Just("\u{0}\u{1f}\n".to_owned()),
        Just("\u{1d11e}".to_owned()),
        Just("漢ü".to_owned()),
        "[a-z]{1,8}",
        any::<char>().prop_map(String::from),
    ];
    proptest::collection::vec(unit, 1..400).prop_map(|units| units.concat())
}

proptest! {
    #[test]
    fn any_text_comes_together_in_any_order(
        text in awkward(),
        room in 140_usize..2000,
        order in any::<u64>(),
    ) {
        let escaped = json!(text).to_string().len();
        let Ok(pieces) = split(&text, room, &"ab".repeat(16)) else {
            prop_assert!(escaped > MAX_PARTS * (room - 100), "{escaped} bytes would have fit");
            return Ok(());
        };
        prop_assert!(pieces.len() <= MAX_PARTS);
        for piece in &pieces {
            prop_assert!(piece.encode().len() <= room);
        }
        let mut shuffled: Vec<_> = pieces.iter().enumerate().collect();
        shuffled.sort_by_key(|(i, _)| (*i as u64 + 1).wrapping_mul(order | 1).rotate_left(17));
        let mut assembler = Assembler::new(ShardLimits::default());
        let mut whole = None;
        let last = shuffled.len() - 1;
        for (n, (_, piece)) in shuffled.into_iter().enumerate() {
            prop_assert!(whole.is_none());
            whole = assembler.add(sender(1), piece.clone(), NOW).unwrap();
            if n < last {
                // A duplicate changes nothing.
                prop_assert_eq!(assembler.add(sender(1), piece.clone(), NOW).unwrap(), None);
            }
        }
        prop_assert_eq!(whole, Some(text));
        prop_assert_eq!((assembler.waiting_bytes(), assembler.waiting_senders()), (0, 0));
    }

    #[test]
    fn sealed_pieces_fit_and_come_together(text in awkward(), event_bytes in 900_usize..3000, v1 in any::<bool>()) {
        let version = if v1 { Version::V1 } else { Version::V2 };
        let mut server_side = Endpoint::new(server(), Role::Service, tight(event_bytes));
        let outcome = Outcome::success(&json!({ "memo": text })).unwrap();
        let sent = Reply { request_id: Some("r-1".into()), outcome };
        let sealed = server_side.seal(client().public_key(), version, &sent.clone().encode(), NOW);
        let Ok(events) = sealed else {
            prop_assert!(json!(text).to_string().len() > 3000);
            return Ok(());
        };
        let (mut client_side, mut gate) = (caller(), Memory::default());
        let mut got = None;
        for event in events.iter().rev() {
            let json = event.as_json();
            prop_assert!(json.len() <= event_bytes, "{} > {event_bytes}", json.len());
            let signed = Signed::from_json(json.as_bytes(), &client_side.party()).unwrap();
            if let Incoming::Reply { reply, origin } = receive(&mut client_side, &signed, &mut gate).unwrap() {
                prop_assert_eq!(origin.version, version);
                got = Some(reply);
            }
        }
        prop_assert_eq!(got, Some(sent));
    }

    #[test]
    fn whatever_comes_memory_stays_bounded(
        steps in proptest::collection::vec((0_u8..6, 0_u8..4, 0_usize..6, 1_usize..6, 0_usize..80, 0_u64..9000), 1..200),
    ) {
        let limits = ShardLimits {
            message_bytes: 100,
            total_bytes: 250,
            messages_per_sender: 2,
            senders: 3,
            wait: Duration::from_secs(30),
        };
        let mut assembler = Assembler::new(limits);
        let mut now = NOW;
        for (from, id, index, total, len, later) in steps {
            now = now.plus(Duration::from_millis(later));
            let shard = piece(&id.to_string(), index, total, &"x".repeat(len));
            let _ = assembler.add(sender(from), shard, now);
            prop_assert!(assembler.waiting_bytes() <= 250 && assembler.waiting_senders() <= 3);
        }
        assembler.expire(now.plus(Duration::from_secs(30)));
        prop_assert_eq!((assembler.waiting_bytes(), assembler.waiting_senders()), (0, 0));
    }
}

/// The sheet's worst case: 40,000 quotes are 106,812 characters of base64 when cut by length alone.
#[test]
fn a_message_of_quotes_fits_the_relays() {
    let text = json!({ "memo": "\"".repeat(40_000) }).to_string();
    for version in [Version::V1, Version::V2] {
        let events = service().seal(client().public_key(), version, &text, NOW).unwrap();
        assert!(events.len() > 1 && events.iter().all(|event| event.as_json().len() <= 60_000));
    }
}

#[test]
fn a_missing_piece_is_waited_for_and_then_given_up() {
    let mut assembler = Assembler::new(ShardLimits::default());
    assert_eq!(assembler.add(sender(1), piece("a", 0, 2, "x"), NOW), Ok(None));
    assert_eq!(assembler.expire(NOW.plus(Duration::from_millis(29_999))), 0);
    let late = NOW.plus(Duration::from_secs(30));
    assert_eq!(
        assembler.add(sender(1), piece("a", 1, 2, "y"), late),
        Ok(None),
        "too late"
    );
    assert_eq!(assembler.waiting_bytes(), 1);
}

#[test]
fn pieces_that_contradict_each_other_end_the_message() {
    for bad in [piece("a", 0, 2, "other"), piece("a", 1, 3, "y"), piece("a", 7, 2, "y")] {
        let mut assembler = Assembler::new(ShardLimits::default());
        assembler.add(sender(1), piece("a", 0, 2, "x"), NOW).unwrap();
        assert_eq!(assembler.add(sender(1), bad, NOW), Err(DropReason::BadShard));
        assert_eq!((assembler.waiting_bytes(), assembler.waiting_senders()), (0, 0));
    }
}

#[test]
fn senders_do_not_meet() {
    let mut assembler = Assembler::new(ShardLimits {
        senders: 2,
        messages_per_sender: 2,
        ..ShardLimits::default()
    });
    let mut add = |from: u8, id: &str, index: usize| assembler.add(sender(from), piece(id, index, 2, id), NOW);
    assert_eq!(add(1, "a", 0), Ok(None));
    assert_eq!(
        add(2, "a", 1),
        Ok(None),
        "the same id of another sender is another message"
    );
    assert_eq!(add(3, "a", 0), Err(DropReason::ShardLimit));
    assert_eq!(add(1, "b", 0), Ok(None));
    assert_eq!(add(1, "c", 0), Ok(None), "displaces a");
    assert_eq!(add(1, "b", 1), Ok(Some("bb".into())));
    assert_eq!(add(1, "c", 1), Ok(Some("cc".into())));
    assert_eq!(add(2, "a", 0), Ok(Some("aa".into())));
}

#[test]
fn what_does_not_fit_is_an_error() {
    assert!(split("text", 10, "id").is_err(), "no room for the frame");
    assert!(split(&"x".repeat(10_000), 200, "id").is_err(), "too many pieces");
    let mut endpoint = Endpoint::new(server(), Role::Service, tight(0));
    assert!(endpoint.seal(client().public_key(), Version::V1, "{}", NOW).is_err());
}

/// A piece is checked by itself, and the whole once more.
#[test]
fn a_request_in_pieces_is_authenticated_as_a_whole() {
    let own = client().public_key().to_hex();
    for (auth, expected) in [(own.as_str(), None), ("ff", Some(DropReason::AuthMismatch))] {
        let text = json!({"rpcName": "x", "authIdentifier": auth, "body": {"memo": "y".repeat(500)}}).to_string();
        let mut client_side = Endpoint::new(client(), Role::Service, tight(900));
        let events = client_side
            .seal(server().public_key(), Version::V1, &text, NOW)
            .unwrap();
        let (mut service, mut gate, mut last) = (service(), Memory::default(), None);
        for event in events {
            let signed = Signed::from_event(event, &service.party()).unwrap();
            last = Some(receive(&mut service, &signed, &mut gate));
            let again = receive(&mut service, &signed, &mut gate).unwrap_err();
            assert_eq!(again, DropReason::Replay);
        }
        match (last.unwrap(), expected) {
            (Ok(Incoming::Request { request, .. }), None) => assert!(request.is_ok()),
            (Err(reason), Some(expected)) => assert_eq!(reason, expected),
            (other, _) => panic!("{other:?}"),
        }
    }
}
