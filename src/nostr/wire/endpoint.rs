//! One party of the protocol: events in, messages out; messages in, signed events out.
//!
//! Owns the order of checks and everything that is remembered between events. Pure: the time, and what the store of seen
//! ids says, are passed in. What must stay true: [`Signed`] (signature), [`Endpoint::open`] (decryption, `authIdentifier`
//! is the sender, freshness), the store (replay), [`Endpoint::admit`], in this order, which the types enforce; only then
//! is there an [`Incoming`]. A piece of a message passes freshness and replay by itself, and `authIdentifier` once the
//! message is whole: only then is there one.

use std::fmt;
use std::num::NonZeroUsize;
use std::time::Duration;

use ::nostr::{Event, EventId, Keys, PublicKey};
use thiserror::Error;

use crate::nostr::field::BadField;
use crate::time::UnixMs;

use super::dropped::DropReason;
use super::envelope::{Plain, Reply, Request, RequestEnvelope};
use super::event::{self, Party, Role, SignError, Signed};
use super::keys::KeyCache;
use super::nip44::{self, Nip44Error, Version};
use super::shard::{self, Assembler, Shard, ShardLimits, TooLong};

/// Which times of making are believed. The ids of events must be remembered through it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Freshness {
    /// How old an event may be.
    pub past: Duration,
    /// How far in the future.
    pub future: Duration,
}

impl Default for Freshness {
    /// What strfry passes on (60 s old, 900 s ahead), and half a minute on the way: stricter would only make a client
    /// with a fast clock mute, because the ids are remembered anyway.
    fn default() -> Self {
        Self {
            past: Duration::from_secs(90),
            future: Duration::from_secs(900),
        }
    }
}

impl Freshness {
    /// Whether an event made at `created_at_unix` is fresh at `now`.
    pub fn check(&self, created_at_unix: u64, now: UnixMs) -> Result<(), DropReason> {
        let now = now.as_secs();
        if created_at_unix.saturating_add(self.past.as_secs()) < now {
            return Err(DropReason::TooOld);
        }
        if created_at_unix > now.saturating_add(self.future.as_secs()) {
            return Err(DropReason::TooNew);
        }
        Ok(())
    }

    /// Until then the event's id must be remembered; afterwards the event is too old. Unix seconds, inclusive.
    #[must_use]
    pub fn remember_until_unix(&self, created_at_unix: u64) -> u64 {
        created_at_unix.saturating_add(self.past.as_secs())
    }
}

/// What the store of seen ids says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sight {
    /// Never seen; it is remembered from now on, across restarts. Said once, however many relays bring the event.
    First,
    /// Seen before.
    Again,
    /// The store failed. The event has no effect.
    Unknown,
}

/// The bounds of an endpoint.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Which times are believed.
    pub freshness: Freshness,
    /// What may wait for its rest.
    pub shards: ShardLimits,
    /// The size of an event's JSON, going out. Below 65,536, which leaves room for the relay's own frame.
    pub event_bytes: usize,
    /// Peers whose keys are kept.
    pub cached_peers: NonZeroUsize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            freshness: Freshness::default(),
            shards: ShardLimits::default(),
            event_bytes: 60_000,
            cached_peers: NonZeroUsize::new(1024).unwrap_or(NonZeroUsize::MIN),
        }
    }
}

/// What is known of a message's last event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// Proven by the signature.
    pub sender: PublicKey,
    /// The encryption used; an answer uses the same.
    pub version: Version,
    /// Identifies it.
    pub event: EventId,
    /// The sender's clock, in Unix seconds.
    pub created_at_unix: u64,
}

/// A message that passed every check.
#[derive(Debug)]
pub enum Incoming {
    /// Asked by `origin.sender`. A bad field is to be answered with its error.
    Request {
        /// Where it is from.
        origin: Origin,
        /// To be repeated in the answer.
        request_id: Option<String>,
        /// What is asked.
        request: Result<Request, BadField>,
    },
    /// An answer or a push from the service.
    Reply {
        /// Where it is from.
        origin: Origin,
        /// What it says.
        reply: Reply,
    },
    /// A piece of a message; the rest is waited for.
    Piece {
        /// Where it is from.
        origin: Origin,
    },
}

/// An event that passed every check but one: whether it was seen before.
#[derive(Debug)]
pub struct Opened {
    origin: Origin,
    content: Content,
    remember_until_unix: u64,
}

#[derive(Debug)]
enum Content {
    Whole(Incoming),
    Piece(Shard),
}

impl Opened {
    /// Where it is from; `origin().event` is what the store is asked about.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// It is a piece of a long message.
    #[must_use]
    pub fn is_piece(&self) -> bool {
        matches!(self.content, Content::Piece(_))
    }

    /// What its answer has to repeat; not known of a piece.
    #[must_use]
    pub fn request_id(&self) -> Option<String> {
        match &self.content {
            Content::Whole(Incoming::Request { request_id, .. }) => request_id.clone(),
            _ => None,
        }
    }

    /// Until then, in Unix seconds, its id must be remembered.
    #[must_use]
    pub fn remember_until_unix(&self) -> u64 {
        self.remember_until_unix
    }
}

/// What an endpoint keeps between events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndpointFootprint {
    /// Bytes of messages that wait for their rest.
    pub shard_bytes: usize,
    /// Senders of those.
    pub shard_senders: usize,
    /// Peers whose keys are kept.
    pub cached_peers: usize,
}

/// A message that could not be sent.
#[derive(Debug, Error)]
pub enum SealError {
    /// Encryption.
    #[error(transparent)]
    Nip44(#[from] Nip44Error),
    /// Signing.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// Too long even in pieces.
    #[error(transparent)]
    TooLong(#[from] TooLong),
    /// No random numbers from the system.
    #[error("no random numbers: {0}")]
    Random(#[from] getrandom::Error),
}

/// A party with its key.
pub struct Endpoint {
    keys: Keys,
    role: Role,
    limits: Limits,
    cache: KeyCache,
    shards: Assembler,
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({})", self.keys.public_key())
    }
}

impl Endpoint {
    /// The holder of `keys`.
    #[must_use]
    pub fn new(keys: Keys, role: Role, limits: Limits) -> Self {
        Self {
            cache: KeyCache::new(keys.secret_key().clone(), limits.cached_peers),
            shards: Assembler::new(limits.shards),
            keys,
            role,
            limits,
        }
    }

    /// For [`Signed`].
    #[must_use]
    pub fn party(&self) -> Party {
        Party {
            me: self.keys.public_key(),
            role: self.role,
        }
    }

    /// Decrypts and checks a signed event. Pieces of long messages are taken from a `known_sender` only, because they
    /// occupy memory.
    pub fn open(&mut self, signed: &Signed, known_sender: bool, now: UnixMs) -> Result<Opened, DropReason> {
        let undecryptable = |_: Nip44Error| DropReason::Undecryptable;
        let keys = self.cache.keys_for(&signed.sender()).map_err(undecryptable)?;
        let (version, text) = keys.decrypt(signed.content()).map_err(undecryptable)?;
        let origin = Origin {
            sender: signed.sender(),
            version,
            event: signed.id(),
            created_at_unix: signed.created_at_unix(),
        };
        let content = match Plain::read(&text)? {
            // A client's only sender is its service.
            Plain::Shard(_) if self.role == Role::Service && !known_sender => return Err(DropReason::ShardRefused),
            Plain::Shard(piece) => Content::Piece(piece),
            whole => Content::Whole(self.authentic(whole, origin)?),
        };
        let freshness = &self.limits.freshness;
        freshness.check(origin.created_at_unix, now)?;
        Ok(Opened {
            origin,
            content,
            remember_until_unix: freshness.remember_until_unix(origin.created_at_unix),
        })
    }

    /// The message of an opened event, once the store of seen ids has spoken.
    pub fn admit(&mut self, opened: Opened, sight: Sight, now: UnixMs) -> Result<Incoming, DropReason> {
        match sight {
            Sight::First => {}
            Sight::Again => return Err(DropReason::Replay),
            Sight::Unknown => return Err(DropReason::ReplayUnknown),
        }
        let origin = opened.origin;
        let piece = match opened.content {
            Content::Whole(incoming) => return Ok(incoming),
            Content::Piece(piece) => piece,
        };
        match self.shards.add(origin.sender, piece, now)? {
            Some(whole) => self.authentic(Plain::read(&whole)?, origin),
            None => Ok(Incoming::Piece { origin }),
        }
    }

    /// The message, if it fits this role and says truly who sent it.
    fn authentic(&self, plain: Plain, origin: Origin) -> Result<Incoming, DropReason> {
        match (self.role, plain) {
            (Role::Service, Plain::Request(envelope)) => {
                let RequestEnvelope {
                    auth_identifier,
                    request_id,
                    request,
                } = envelope;
                if auth_identifier.as_deref() != Some(origin.sender.to_hex().as_str()) {
                    return Err(DropReason::AuthMismatch);
                }
                Ok(Incoming::Request {
                    origin,
                    request_id,
                    request,
                })
            }
            (Role::Client { .. }, Plain::Reply(reply)) => Ok(Incoming::Reply { origin, reply }),
            (_, Plain::Shard(_)) => Err(DropReason::BadShard),
            _ => Err(DropReason::Unexpected),
        }
    }

    /// Signed events that carry `text` to `to`: one, or as many as its length needs.
    pub fn seal(&mut self, to: PublicKey, version: Version, text: &str, now: UnixMs) -> Result<Vec<Event>, SealError> {
        let created_at = now.as_secs();
        let content_room = self.limits.event_bytes.saturating_sub(event::overhead(created_at));
        let room = nip44::longest_plaintext(version, content_room);
        let keys = self.cache.keys_for(&to)?;
        let one = |plaintext: &str| -> Result<Event, SealError> {
            let content = keys.encrypt(version, plaintext)?;
            Ok(event::sign(&self.keys, to, content, created_at)?)
        };
        if text.len() <= room {
            return Ok(vec![one(text)?]);
        }
        let mut id = [0; 16];
        getrandom::fill(&mut id)?;
        let pieces = shard::split(text, room, &hex::encode(id))?;
        pieces.iter().map(|piece| one(&piece.encode())).collect()
    }

    /// What unfinished messages occupy, and the peers whose keys are kept.
    #[must_use]
    pub fn footprint(&self) -> EndpointFootprint {
        EndpointFootprint {
            shard_bytes: self.shards.waiting_bytes(),
            shard_senders: self.shards.waiting_senders(),
            cached_peers: self.cache.len(),
        }
    }

    /// Gives up unfinished messages that waited too long; returns how many.
    pub fn expire_shards(&mut self, now: UnixMs) -> usize {
        self.shards.expire(now)
    }
}
