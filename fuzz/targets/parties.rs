//! The service and its client that all targets use, and events that need no signing.

use std::sync::LazyLock;

use nostr::secp256k1::schnorr::Signature;
use nostr::{Event, EventId, Keys, Kind, PublicKey, Tag, Timestamp};
use tellerd::nostr::wire::event::KIND;
use tellerd::nostr::wire::{DropReason, Endpoint, Incoming, Limits, Role, Sight, Signed};
use tellerd::time::UnixMs;

/// When everything happens.
pub const NOW: UnixMs = UnixMs(1_700_000_010_000);

static SERVICE: LazyLock<Keys> = LazyLock::new(|| keys("02"));
static CLIENT: LazyLock<Keys> = LazyLock::new(|| keys("01"));

fn keys(byte: &str) -> Keys {
    Keys::parse(&byte.repeat(32)).expect("a key")
}

/// The client's keys.
pub fn client() -> &'static Keys {
    &CLIENT
}

/// The service's key.
pub fn service_key() -> PublicKey {
    SERVICE.public_key()
}

/// A service that knows its client.
pub fn service() -> Endpoint {
    Endpoint::new(SERVICE.clone(), Role::Service, Limits::default())
}

/// The client, who hears the service.
pub fn caller() -> Endpoint {
    let service = service_key();
    Endpoint::new(CLIENT.clone(), Role::Client { service }, Limits::default())
}

/// An event from one to the other, as if its signature had been checked.
pub fn event(from: PublicKey, to: PublicKey, content: String) -> Event {
    let (id, sig) = (EventId::all_zeros(), Signature::from_slice(&[0; 64]).expect("64 bytes"));
    let at = Timestamp::from_secs(NOW.as_secs());
    Event::new(id, from, at, Kind::Custom(KIND), [Tag::public_key(to)], content, sig)
}

/// All that happens to an event behind the signature.
///
/// # Errors
/// Why it is dropped.
pub fn receive(endpoint: &mut Endpoint, event: Event) -> Result<Incoming, DropReason> {
    let signed = Signed::from_verified(event, &endpoint.party())?;
    let opened = endpoint.open(&signed, true, NOW)?;
    endpoint.admit(opened, Sight::First, NOW)
}
