//! Bytes as a relay brings them: JSON of an event, its checks, and the decryption of any content.

#![no_main]

use libfuzzer_sys::fuzz_target;
use nostr::{Event, JsonUtil};
use parties::{client, event, receive, service, service_key};
use tellerd::nostr::wire::Signed;

fuzz_target!(|bytes: &[u8]| {
    let mut service = service();
    // No fuzzer finds a signature: so the same bytes again, as if it had been checked, and as a content.
    if let Ok(signed) = Signed::from_json(bytes, &service.party()) {
        let _ = service.open(&signed, true, parties::NOW);
    }
    if let Ok(parsed) = Event::from_json(bytes) {
        let _ = receive(&mut service, parsed);
    }
    if let Ok(content) = std::str::from_utf8(bytes) {
        let _ = receive(&mut service, event(client().public_key(), service_key(), content.to_owned()));
    }
});
