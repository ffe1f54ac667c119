//! A plaintext, properly encrypted: a request to a service with everything that is read out of it, or a reply.

#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;
use parties::{caller, client, event, receive, service, service_key};
use tellerd::nostr::method::{
    Asked, CommittedInvoice, CreatedInvoice, HoldInvoice, InvoiceStanding, ServiceInfo,
};
use tellerd::nostr::wire::nip44::ConversationKeys;
use tellerd::nostr::wire::{Incoming, Outcome, Version};

static CONVERSATION: LazyLock<ConversationKeys> =
    LazyLock::new(|| ConversationKeys::derive(client().secret_key(), &service_key()).expect("keys"));

fuzz_target!(|text: &str| {
    let content = CONVERSATION.encrypt(Version::V1, text).expect("version 1 takes any text");
    let asked = receive(&mut service(), event(client().public_key(), service_key(), content.clone()));
    if let Ok(Incoming::Request { request: Ok(request), .. }) = asked {
        if let Ok(Asked::One(call)) = Asked::read(&request) {
            let again = Asked::read(&call.request());
            assert_eq!(again, Ok(Asked::One(call)), "what was read is written so that it reads the same");
        }
    }
    let answered = receive(&mut caller(), event(service_key(), client().public_key(), content));
    if let Ok(Incoming::Reply { reply, .. }) = answered
        && let Outcome::Ok(fields) = reply.outcome
    {
        let _ = Outcome::responses(&fields);
        let _ = CreatedInvoice::read(&fields);
        let _ = CommittedInvoice::read(&fields);
        let _ = InvoiceStanding::read(&fields);
        let _ = HoldInvoice::read(&fields);
        let _ = ServiceInfo::read(&fields);
    }
});
