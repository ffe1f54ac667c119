//! The beacon: a public event by which a service says that it lives and what it offers.
//!
//! Pure. Kind 30078 with the tag `["d","tellerd"]`; each one replaces the one before at the relays. Written by the
//! service, read by its clients. What must stay true: nothing secret is in it; what is read is believed only with a
//! valid signature, and only of the service asked for (its reader compares [`Event::pubkey`]).
//! Source: NIP-78, and Lightning.Pub's beacon of the same kind.

use ::nostr::{Event, EventBuilder, Keys, Kind, Tag, Timestamp};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::clients::Limits;
use crate::time::UnixMs;

/// The kind of beacons: application data, replaceable by its `d` tag.
pub const KIND: u16 = 30_078;
/// The `d` tag.
pub const IDENTIFIER: &str = "tellerd";
/// No beacon is longer.
const MAX_CONTENT_BYTES: usize = 4_096;

/// What a service says about itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Beacon {
    /// For people.
    pub name: String,
    /// Of its program.
    pub version: String,
    /// What it keeps of each invoice, in hundredths of a percent; missing when it does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fee_basis_points: Option<u32>,
    /// Of a client that has none of its own.
    pub limits: Limits,
    /// New invoices can be made now.
    pub can_create: bool,
    /// As LND names it: mainnet, regtest.
    pub network: String,
}

/// A beacon that cannot be written or read.
#[derive(Debug, Error)]
pub enum BeaconError {
    /// It is of another kind or has another `d` tag.
    #[error("the event is no beacon of a tellerd service")]
    NotABeacon,
    /// Nobody needs so much.
    #[error("the beacon is longer than {MAX_CONTENT_BYTES} bytes")]
    TooLong,
    /// Its content is something else.
    #[error("the beacon cannot be read or written")]
    Content(#[from] serde_json::Error),
    /// It could not be signed, or its signature is wrong.
    #[error("the beacon's signature")]
    Signature(#[from] ::nostr::event::Error),
}

/// The signed event for `beacon`.
///
/// # Errors
/// When it is too long.
pub fn sign(keys: &Keys, beacon: &Beacon, now: UnixMs) -> Result<Event, BeaconError> {
    let content = serde_json::to_string(beacon)?;
    if content.len() > MAX_CONTENT_BYTES {
        return Err(BeaconError::TooLong);
    }
    let event = EventBuilder::new(Kind::Custom(KIND), content)
        .tag(Tag::identifier(IDENTIFIER))
        .custom_created_at(Timestamp::from_secs(now.as_secs()))
        .build(keys.public_key());
    Ok(event.sign_with_keys(keys)?)
}

/// What the author of `event` says. Fields that are not known are ignored: services may be newer.
///
/// # Errors
/// When it is no beacon, or not signed by its author.
pub fn read(event: &Event) -> Result<Beacon, BeaconError> {
    if event.kind != Kind::Custom(KIND) || event.tags.identifier() != Some(IDENTIFIER) {
        return Err(BeaconError::NotABeacon);
    }
    if event.content.len() > MAX_CONTENT_BYTES {
        return Err(BeaconError::TooLong);
    }
    event.verify()?;
    Ok(serde_json::from_str(&event.content)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: UnixMs = UnixMs(1_700_000_000_999);

    fn beacon() -> Beacon {
        Beacon {
            name: "Hall 3".into(),
            version: "0.1.0".into(),
            fee_basis_points: None,
            limits: Limits {
                max_amount_sats: 1,
                max_held_sats: 2,
                max_open: 3,
                requests_per_minute: 4,
                sats_per_day: 5,
            },
            can_create: true,
            network: "regtest".into(),
        }
    }

    #[test]
    fn what_is_signed_can_be_read() {
        let keys = Keys::generate();
        for fee in [None, Some(150)] {
            let beacon = Beacon {
                fee_basis_points: fee,
                ..beacon()
            };
            let event = sign(&keys, &beacon, NOW).unwrap();
            assert_eq!(read(&event).unwrap(), beacon);
            assert_eq!(
                (event.pubkey, event.created_at.as_secs()),
                (keys.public_key(), 1_700_000_000)
            );
            assert_eq!(event.content.contains("fee_basis_points"), fee.is_some());
        }
    }

    #[test]
    fn others_are_refused() {
        let keys = Keys::generate();
        let event = sign(&keys, &beacon(), NOW).unwrap();
        let other = |kind: u16, identifier: &str, content: &str| {
            EventBuilder::new(Kind::Custom(kind), content)
                .tag(Tag::identifier(identifier))
                .sign_with_keys(&keys)
                .unwrap()
        };
        for not in [
            other(KIND, "Lightning.Pub", &event.content),
            other(1, IDENTIFIER, &event.content),
        ] {
            assert!(matches!(read(&not), Err(BeaconError::NotABeacon)));
        }
        for bad in ["", "null", "{}", "[1]", r#"{"name":1}"#] {
            assert!(matches!(
                read(&other(KIND, IDENTIFIER, bad)),
                Err(BeaconError::Content(_))
            ));
        }
        let long = "x".repeat(MAX_CONTENT_BYTES + 1);
        assert!(matches!(
            read(&other(KIND, IDENTIFIER, &long)),
            Err(BeaconError::TooLong)
        ));
        let mut forged = event;
        forged.content = forged.content.replace("true", "false");
        assert!(matches!(read(&forged), Err(BeaconError::Signature(_))));
    }

    #[test]
    fn a_newer_service_may_say_more() {
        let keys = Keys::generate();
        let mut value = serde_json::to_value(beacon()).unwrap();
        value["motto"] = "cash".into();
        let event = EventBuilder::new(Kind::Custom(KIND), value.to_string())
            .tag(Tag::identifier(IDENTIFIER))
            .sign_with_keys(&keys)
            .unwrap();
        assert_eq!(read(&event).unwrap(), beacon());
    }

    #[test]
    fn a_long_name_is_an_error() {
        let long = Beacon {
            name: "n".repeat(MAX_CONTENT_BYTES),
            ..beacon()
        };
        assert!(matches!(sign(&Keys::generate(), &long, NOW), Err(BeaconError::TooLong)));
    }
}
