//! Messages that are too long for one event: cut into pieces, and put together again.
//!
//! Called by `endpoint.rs`. What must stay true: pieces are cut between characters, or a piece is not valid text; what
//! waits for its rest is bounded in pieces, bytes, time and senders, whoever writes to us.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use ::nostr::PublicKey;
use serde_json::json;
use thiserror::Error;

use crate::nostr::field::{self, BadField, Object};
use crate::time::UnixMs;

use super::dropped::DropReason;

/// The most pieces of one message, both ways.
pub const MAX_PARTS: usize = 32;
const ID_BYTES: usize = 64;

/// One piece of a message.
#[derive(Clone, PartialEq, Eq)]
pub struct Shard {
    /// Its text.
    pub part: String,
    /// Its place, from 0.
    pub index: usize,
    /// How many there are.
    pub total: usize,
    /// The same in all pieces of one message.
    pub id: String,
}

impl fmt::Debug for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shard({} of {}, {} bytes)", self.index, self.total, self.part.len())
    }
}

impl Shard {
    /// The plaintext of the piece's event.
    #[must_use]
    pub fn encode(&self) -> String {
        json!({"part": self.part, "index": self.index, "totalShards": self.total, "shardsId": self.id}).to_string()
    }

    pub(super) fn read(object: &Object) -> Result<Self, BadField> {
        let most = MAX_PARTS as u64;
        let small = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        let total = field::whole(object, "totalShards", 1..=most)?;
        let index = field::whole(object, "index", 0..=total.saturating_sub(1))?;
        let id = field::text(object, "shardsId", ID_BYTES)?;
        if id.is_empty() {
            return Err(BadField::new("shardsId", "is empty"));
        }
        Ok(Self {
            part: field::text(object, "part", usize::MAX)?.to_owned(),
            index: small(index),
            total: small(total),
            id: id.to_owned(),
        })
    }
}

/// A message that can not be cut into at most [`MAX_PARTS`] pieces of the room given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the message needs more than {MAX_PARTS} pieces of {room} bytes")]
pub struct TooLong {
    /// Bytes of plaintext that one event takes.
    pub room: usize,
}

/// Cuts `text` so that the plaintext of each piece has at most `room` bytes.
pub fn split(text: &str, room: usize, id: &str) -> Result<Vec<Shard>, TooLong> {
    let widest = Shard {
        part: String::new(),
        index: MAX_PARTS,
        total: MAX_PARTS,
        id: id.to_owned(),
    };
    let room_for_part = room.checked_sub(widest.encode().len()).ok_or(TooLong { room })?;
    let mut parts = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let (part, after) = rest.split_at(fitting(rest, room_for_part));
        if part.is_empty() || parts.len() == MAX_PARTS {
            return Err(TooLong { room });
        }
        parts.push(part);
        rest = after;
    }
    let total = parts.len();
    let shard = |(index, part): (usize, &str)| Shard {
        part: part.to_owned(),
        index,
        total,
        id: id.to_owned(),
    };
    Ok(parts.into_iter().enumerate().map(shard).collect())
}

/// How many bytes of `text`, up to a character's end, take at most `room` bytes inside a JSON string.
fn fitting(text: &str, room: usize) -> usize {
    let mut used = 0;
    for (at, character) in text.char_indices() {
        used += escaped_len(character);
        if used > room {
            return at;
        }
    }
    text.len()
}

/// Bytes of `character` inside a JSON string as `serde_json` writes it.
fn escaped_len(character: char) -> usize {
    match character {
        '"' | '\\' | '\n' | '\r' | '\t' | '\u{8}' | '\u{c}' => 2,
        '\0'..='\u{1f}' => 6,
        other => other.len_utf8(),
    }
}

/// Bounds on what waits for its rest.
#[derive(Debug, Clone, Copy)]
pub struct ShardLimits {
    /// Bytes of one message.
    pub message_bytes: usize,
    /// Bytes of everything that waits.
    pub total_bytes: usize,
    /// Unfinished messages of one sender; one more displaces its oldest.
    pub messages_per_sender: usize,
    /// Senders with unfinished messages.
    pub senders: usize,
    /// A message is given up so long after its first piece.
    pub wait: Duration,
}

impl Default for ShardLimits {
    fn default() -> Self {
        Self {
            message_bytes: 512 * 1024,
            total_bytes: 8 * 1024 * 1024,
            messages_per_sender: 2,
            senders: 64,
            wait: Duration::from_secs(30),
        }
    }
}

/// The pieces of one message that have come.
struct Unfinished {
    id: String,
    since: UnixMs,
    parts: Vec<Option<String>>,
    bytes: usize,
}

impl Unfinished {
    fn finished(&self) -> Option<String> {
        let parts: Option<Vec<&str>> = self.parts.iter().map(Option::as_deref).collect();
        parts.map(|parts| parts.concat())
    }
}

/// Puts pieces together.
pub struct Assembler {
    limits: ShardLimits,
    by_sender: HashMap<PublicKey, Vec<Unfinished>>,
    bytes: usize,
}

impl fmt::Debug for Assembler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Assembler({} bytes of {} senders)", self.bytes, self.by_sender.len())
    }
}

impl Assembler {
    /// An empty one.
    #[must_use]
    pub fn new(limits: ShardLimits) -> Self {
        Self {
            limits,
            by_sender: HashMap::new(),
            bytes: 0,
        }
    }

    /// Takes a piece; returns the message when it was the last one missing.
    pub fn add(&mut self, sender: PublicKey, shard: Shard, now: UnixMs) -> Result<Option<String>, DropReason> {
        self.expire(now);
        let known = self.by_sender.get(&sender).map_or(0, Vec::len);
        if known == 0 && self.by_sender.len() >= self.limits.senders {
            return Err(DropReason::ShardLimit);
        }
        let waiting = self.by_sender.entry(sender).or_default();
        let place = waiting.iter().position(|one| one.id == shard.id);
        let place = place.unwrap_or_else(|| {
            if waiting.len() >= self.limits.messages_per_sender.max(1) {
                self.bytes = self.bytes.saturating_sub(waiting.remove(0).bytes);
            }
            waiting.push(Unfinished {
                id: shard.id.clone(),
                since: now,
                parts: vec![None; shard.total],
                bytes: 0,
            });
            waiting.len() - 1
        });
        let taken = place_part(&mut waiting[place], shard, &mut self.bytes, &self.limits);
        if !matches!(taken, Ok(None)) {
            self.bytes = self.bytes.saturating_sub(waiting.remove(place).bytes);
            if waiting.is_empty() {
                self.by_sender.remove(&sender);
            }
        }
        taken
    }

    /// Gives up messages that waited too long; returns how many.
    pub fn expire(&mut self, now: UnixMs) -> usize {
        let mut gone = 0;
        let (wait, bytes) = (self.limits.wait, &mut self.bytes);
        self.by_sender.retain(|_, waiting| {
            waiting.retain(|one| {
                let keep = now.since(one.since) < wait;
                if !keep {
                    *bytes = bytes.saturating_sub(one.bytes);
                    gone += 1;
                }
                keep
            });
            !waiting.is_empty()
        });
        gone
    }

    /// Bytes that wait for their rest.
    #[must_use]
    pub fn waiting_bytes(&self) -> usize {
        self.bytes
    }

    /// Senders with unfinished messages.
    #[must_use]
    pub fn waiting_senders(&self) -> usize {
        self.by_sender.len()
    }
}

/// Puts a piece in its place. An error means that the whole message is given up.
fn place_part(
    message: &mut Unfinished,
    shard: Shard,
    all_bytes: &mut usize,
    limits: &ShardLimits,
) -> Result<Option<String>, DropReason> {
    if message.parts.len() != shard.total {
        return Err(DropReason::BadShard);
    }
    let place = message.parts.get_mut(shard.index).ok_or(DropReason::BadShard)?;
    match place {
        Some(before) if *before == shard.part => return Ok(None),
        Some(_) => return Err(DropReason::BadShard),
        None => {}
    }
    let more = shard.part.len();
    if message.bytes + more > limits.message_bytes || *all_bytes + more > limits.total_bytes {
        return Err(DropReason::ShardLimit);
    }
    message.bytes += more;
    *all_bytes += more;
    *place = Some(shard.part);
    Ok(message.finished())
}
