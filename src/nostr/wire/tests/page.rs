//! docs/NOSTR_RPC.md: its example decodes, and its lists are the code's.

use serde_json::Value;

use super::*;
use crate::nostr::method::{Asked, Call, CreatedInvoice, Method};

const PAGE: &str = include_str!("../../../../docs/NOSTR_RPC.md");

/// The fenced block below the line `marker`.
fn block(marker: &str) -> &'static str {
    let after = PAGE.split_once(marker).unwrap_or_else(|| panic!("no `{marker}`")).1;
    let body = after.split_once("```json\n").unwrap().1;
    body.split_once("\n```").unwrap().0
}

fn decoded(marker: &str, endpoint: &mut Endpoint) -> Incoming {
    let signed = Signed::from_json(block(marker).as_bytes(), &endpoint.party()).unwrap();
    receive(endpoint, &signed, &mut Memory::default()).unwrap()
}

#[test]
fn the_example_decodes() {
    let keys: Value = serde_json::from_str(block("**Keys**")).unwrap();
    assert_eq!(keys["client_secret"], client().secret_key().to_secret_hex());
    assert_eq!(keys["client_pubkey"], client().public_key().to_hex());
    assert_eq!(keys["service_secret"], server().secret_key().to_secret_hex());
    assert_eq!(keys["service_pubkey"], server().public_key().to_hex());
    let plaintext: Value = serde_json::from_str(block("**Plaintext of the request**")).unwrap();
    for (marker, version) in [
        ("**Event, version 1**", Version::V1),
        ("**Event, version 2**", Version::V2),
    ] {
        let Incoming::Request {
            origin,
            request_id,
            request,
        } = decoded(marker, &mut service())
        else {
            panic!("{marker}");
        };
        assert_eq!(origin.version, version);
        assert_eq!(plaintext["requestId"], *request_id.unwrap());
        let request = request.unwrap();
        assert_eq!(plaintext["rpcName"], *request.rpc_name);
        assert_eq!(plaintext["params"], Value::Object(request.input.clone()));
        assert!(matches!(
            Asked::read(&request),
            Ok(Asked::One(Call::CreateHoldInvoice(_)))
        ));
    }
    let plaintext: Value = serde_json::from_str(block("**Plaintext of the reply**")).unwrap();
    let Incoming::Reply { origin, reply } = decoded("**Event of the reply**", &mut caller()) else {
        panic!("no reply");
    };
    assert_eq!(origin.version, Version::V1);
    let Outcome::Ok(fields) = &reply.outcome else {
        panic!("{reply:?}");
    };
    CreatedInvoice::read(fields).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&reply.encode()).unwrap(), plaintext);
}

#[test]
fn the_page_lists_every_method_reason_and_code() {
    for method in Method::ALL {
        assert!(PAGE.contains(&format!("| {} |", method.name())), "{}", method.name());
    }
    for reason in DropReason::ALL {
        let row = format!("| {} | {reason} |", reason.as_str());
        assert!(PAGE.contains(&row), "{row}");
    }
    for (code, says) in Code::ALL {
        let row = format!("| {} | {says} |", code.as_str());
        assert!(PAGE.contains(&row), "{row}");
    }
}
