//! Clients' keys and requests, known to the service by its configuration.

use std::fmt::Write;

use ::nostr::{Event, Keys, PublicKey};
use tellerd::ids::{PaymentHash, Preimage};
use tellerd::nostr::method::{Call, CreateHoldInvoice};
use tellerd::nostr::wire::{Endpoint, Limits, Role, Version};
use tellerd::time::{Clock, SystemClock};

/// `count` different keys, the same in each run.
pub fn keys(count: u16) -> Vec<Keys> {
    (1..=count)
        .map(|n| Keys::parse(&format!("{n:064x}")).unwrap())
        .collect()
}

/// The rows of `[[service.client]]`.
pub fn configured(keys: &[Keys]) -> String {
    let mut rows = String::new();
    for (n, keys) in keys.iter().enumerate() {
        write!(
            rows,
            "[[service.client]]\nname = 'c{n}'\nkey = '{}'\n",
            keys.public_key()
        )
        .unwrap();
    }
    rows
}

/// A new hash for each `n`.
pub fn hash(n: u64) -> PaymentHash {
    let mut bytes = [7; 32];
    bytes[..8].copy_from_slice(&n.to_be_bytes());
    Preimage::from_bytes(bytes).hash()
}

pub fn create(hash: PaymentHash) -> Call {
    Call::CreateHoldInvoice(CreateHoldInvoice {
        hash,
        amount_sats: 50_000,
        memo: "100.00 EUR at the kiosk in the hall".into(),
        expiry_seconds: 600,
        cltv_expiry: None,
    })
}

/// `count` signed and encrypted requests, one client after the other, with the hashes from `first` on.
pub fn requests(keys: &[Keys], service: PublicKey, version: Version, first: u64, count: usize) -> Vec<Event> {
    let endpoint = |keys: &Keys| {
        let hex = keys.public_key().to_hex();
        (
            hex,
            Endpoint::new(keys.clone(), Role::Client { service }, Limits::default()),
        )
    };
    let mut endpoints: Vec<(String, Endpoint)> = keys.iter().map(endpoint).collect();
    let now = SystemClock.now();
    let one = |n: usize| {
        let (hex, endpoint) = &mut endpoints[n % keys.len()];
        let text = create(hash(first + n as u64))
            .request()
            .encode(hex, &format!("request-{n:08}"));
        endpoint.seal(service, version, &text, now).unwrap().remove(0)
    };
    (0..count).map(one).collect()
}
