//! Tests of the wire: vectors, the order of checks, pieces, generated input, and the page that describes it.

mod generated;
mod page;
mod pieces;
mod pipeline;
mod vectors;

use std::collections::BTreeSet;

use ::nostr::{EventId, Keys, PublicKey};

use super::*;
use crate::nostr::wire::shard::ShardLimits;
use crate::time::UnixMs;

/// The keys of `tests/vectors/nip44_v1.json`.
pub fn client() -> Keys {
    Keys::parse(&"01".repeat(32)).unwrap()
}

pub fn server() -> Keys {
    Keys::parse(&"02".repeat(32)).unwrap()
}

/// Just after the events of the vectors were made.
pub const NOW: UnixMs = UnixMs(1_700_000_010_000);

pub fn service() -> Endpoint {
    Endpoint::new(server(), Role::Service, Limits::default())
}

pub fn caller() -> Endpoint {
    let service = server().public_key();
    Endpoint::new(client(), Role::Client { service }, Limits::default())
}

/// Limits under which messages need pieces soon.
pub fn tight(event_bytes: usize) -> Limits {
    Limits {
        event_bytes,
        shards: ShardLimits::default(),
        ..Limits::default()
    }
}

/// Remembers in memory; knows everybody unless told otherwise.
#[derive(Default)]
pub struct Memory {
    pub seen: BTreeSet<EventId>,
    pub knows_nobody: bool,
    pub broken: bool,
    pub asked: usize,
}

impl Memory {
    fn sight(&mut self, event: EventId) -> Sight {
        self.asked += 1;
        match self.broken {
            true => Sight::Unknown,
            false if self.seen.insert(event) => Sight::First,
            false => Sight::Again,
        }
    }
}

/// All that happens to a signed event.
pub fn receive(endpoint: &mut Endpoint, signed: &Signed, memory: &mut Memory) -> Result<Incoming, DropReason> {
    let opened = endpoint.open(signed, !memory.knows_nobody, NOW)?;
    assert!(opened.remember_until_unix() >= NOW.as_secs());
    let sight = memory.sight(opened.origin().event);
    endpoint.admit(opened, sight, NOW)
}
