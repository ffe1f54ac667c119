//! The event: what is looked at before anything in it is believed, and how one is made.
//!
//! [`Signed`] can only be had by passing every check that needs no key of ours, so whoever holds one may decrypt it.
//! The checks are cheapest first, the signature last; they keep no state and may run on any thread. Called by
//! whoever holds the relays' sockets. Source: NIP-01.

use std::fmt;

use ::nostr::{Event, EventId, JsonUtil, Keys, Kind, PublicKey, Tag, TagKind, Timestamp, UnsignedEvent};
use thiserror::Error;

use super::dropped::DropReason;

/// The kind of requests, replies and pushes. Kinds 21001 to 21099 belong to CLINK and are never used.
pub const KIND: u16 = 21_000;
/// No relay carries larger events (strfry's default).
pub const MAX_EVENT_BYTES: usize = 65_536;

/// Which side of the protocol this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Takes requests from anybody.
    Service,
    /// Takes replies and pushes from one service.
    Client {
        /// Its key.
        service: PublicKey,
    },
}

/// Who is listening.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Party {
    /// The own key: events must be addressed to it.
    pub me: PublicKey,
    /// Which side.
    pub role: Role,
}

/// An event addressed to this party whose signature was checked.
#[derive(Clone, PartialEq, Eq)]
pub struct Signed(Event);

impl fmt::Debug for Signed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Signed({} from {})", self.0.id, self.0.pubkey)
    }
}

impl Signed {
    /// Checks an event's JSON.
    pub fn from_json(json: &[u8], party: &Party) -> Result<Self, DropReason> {
        if json.len() > MAX_EVENT_BYTES {
            return Err(DropReason::TooLarge);
        }
        let event = Event::from_json(json).map_err(|_| DropReason::Malformed)?;
        Self::from_event(event, party)
    }

    /// Checks an event that was parsed elsewhere.
    pub fn from_event(event: Event, party: &Party) -> Result<Self, DropReason> {
        let unproven = Self::from_verified(event, party)?;
        unproven.0.verify().map_err(|_| DropReason::BadSignature)?;
        Ok(unproven)
    }

    /// The same for an event whose id and signature the relay pool has checked already (nostr-relay-pool 0.44.3,
    /// `SharedState::verify_and_cache`): only for what [`crate::nostr::relays`] hands over.
    pub fn from_verified(event: Event, party: &Party) -> Result<Self, DropReason> {
        if event.content.len() > MAX_EVENT_BYTES {
            return Err(DropReason::TooLarge);
        }
        if event.kind != Kind::Custom(KIND) {
            return Err(DropReason::WrongKind);
        }
        let recipient = event.tags.iter().find(|tag| tag.kind() == TagKind::p());
        if recipient.and_then(Tag::content) != Some(party.me.to_hex().as_str()) {
            return Err(DropReason::WrongRecipient);
        }
        if let Role::Client { service } = party.role
            && event.pubkey != service
        {
            return Err(DropReason::WrongSender);
        }
        Ok(Self(event))
    }

    /// Whose signature it bears.
    #[must_use]
    pub fn sender(&self) -> PublicKey {
        self.0.pubkey
    }

    /// Identifies it.
    #[must_use]
    pub fn id(&self) -> EventId {
        self.0.id
    }

    /// When its sender says it was made, in Unix seconds.
    #[must_use]
    pub fn created_at_unix(&self) -> u64 {
        self.0.created_at.as_secs()
    }

    /// The encrypted payload.
    #[must_use]
    pub fn content(&self) -> &str {
        &self.0.content
    }
}

/// An event that could not be signed.
#[derive(Debug, Error)]
#[error("the event could not be signed: {0}")]
pub struct SignError(#[from] ::nostr::event::Error);

/// A signed event of kind 21000 to `to`.
pub fn sign(keys: &Keys, to: PublicKey, content: String, created_at_unix: u64) -> Result<Event, SignError> {
    let created_at = Timestamp::from_secs(created_at_unix);
    let event = UnsignedEvent::new(
        keys.public_key(),
        created_at,
        Kind::Custom(KIND),
        [Tag::public_key(to)],
        content,
    );
    Ok(event.sign_with_keys(keys)?)
}

/// How many bytes of an event's JSON are not its content.
#[must_use]
pub fn overhead(created_at_unix: u64) -> usize {
    let names = r#"{"id":"","pubkey":"","created_at":,"kind":21000,"tags":[["p",""]],"content":"","sig":""}"#;
    names.len() + 3 * 64 + 128 + created_at_unix.to_string().len()
}
