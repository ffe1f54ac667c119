//! One relay, as the rest sees it: whether it is connected, what it answered, how fast it wants to be written to.
//!
//! Shared by the relay's keeper, which hears, and by all who publish. What must stay true: an answer reaches exactly
//! those who wait for that event's id on this relay; whoever stops waiting leaves nothing behind.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ::nostr::message::MachineReadablePrefix;
use ::nostr::{ClientMessage, Event, EventId, RelayUrl};
use nostr_sdk::Relay;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use super::{Said, Shared};

/// At most this much of a relay's words is repeated.
const WORDS_SHOWN: usize = 120;

/// A relay's words, short and printable.
pub(super) fn shown(words: &str) -> String {
    words
        .chars()
        .take(WORDS_SHOWN)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// Whether and since which turn the relay is connected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Life {
    pub connected: bool,
    /// Counts connections.
    pub turn: u64,
    /// Counts the times that the relay believed who we are, or did not.
    pub auths: u64,
}

/// How a relay took an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// It said so.
    Confirmed,
    /// It never says so.
    Unconfirmed,
}

/// The words of an OK.
struct Answer {
    accepted: bool,
    words: String,
}

/// When something may be written again.
#[derive(Default)]
struct Pace {
    /// In a row.
    limited: u32,
    until: Option<Instant>,
}

/// Who waits for answers.
#[derive(Default)]
struct Waiting {
    /// By event and ticket.
    tickets: BTreeMap<(EventId, u64), oneshot::Sender<Answer>>,
    /// Events for which nobody waits any more, the oldest first: a late answer is one too.
    late: VecDeque<EventId>,
}

/// So many late events are remembered.
const LATE: usize = 64;

/// One relay.
pub(super) struct Link {
    pub relay: Relay,
    life: watch::Sender<Life>,
    waiting: Mutex<Waiting>,
    tickets: AtomicU64,
    /// It has answered an event before.
    answers: AtomicBool,
    pace: Mutex<Pace>,
}

/// Removes who waits when it is dropped.
struct Ticket<'a> {
    link: &'a Link,
    key: (EventId, u64),
    answer: oneshot::Receiver<Answer>,
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let mut waiting = self.link.waiting();
        if waiting.tickets.remove(&self.key).is_some() {
            waiting.late.push_back(self.key.0);
            if waiting.late.len() > LATE {
                waiting.late.pop_front();
            }
        }
    }
}

/// What came of one sending.
enum Reply {
    Answer(Answer),
    Silence,
    Broken,
}

impl Link {
    pub fn new(relay: Relay) -> Self {
        Self {
            relay,
            life: watch::channel(Life::default()).0,
            waiting: Mutex::default(),
            tickets: AtomicU64::new(0),
            answers: AtomicBool::new(false),
            pace: Mutex::default(),
        }
    }

    pub fn url(&self) -> &RelayUrl {
        self.relay.url()
    }

    pub fn is_connected(&self) -> bool {
        self.life.borrow().connected
    }

    /// A connection was made; returns which.
    pub fn came_up(&self) -> u64 {
        self.life.send_modify(|life| {
            life.connected = true;
            life.turn += 1;
        });
        self.life.borrow().turn
    }

    pub fn went_down(&self) {
        self.life.send_modify(|life| life.connected = false);
    }

    /// NIP-42 came to an end.
    pub fn authenticated(&self) {
        self.life.send_modify(|life| life.auths += 1);
    }

    /// The relay answered an event.
    pub fn answered(&self, id: EventId, accepted: bool, words: &str) {
        let mut waiting = self.waiting();
        let all = (id, 0)..=(id, u64::MAX);
        let keys: Vec<_> = waiting.tickets.range(all).map(|(key, _)| *key).collect();
        if !keys.is_empty() || waiting.late.contains(&id) {
            self.answers.store(true, Ordering::Relaxed);
        }
        for key in keys {
            if let Some(waiter) = waiting.tickets.remove(&key) {
                let words = shown(words);
                // Whoever has just stopped waiting needs no answer.
                _ = waiter.send(Answer { accepted, words });
            }
        }
    }

    /// Sends `event` until the relay has taken it; `note` hears why it has not yet.
    pub async fn insist(&self, event: &Event, shared: &Shared, note: impl Fn(String)) -> Taken {
        let mut attempt = 0;
        loop {
            let mut life = self.life.subscribe();
            if !life.borrow_and_update().connected {
                note("not connected".into());
                // The sender is in `self`.
                _ = life.wait_for(|life| life.connected).await;
            }
            match self.offer(event, shared, &note).await {
                Ok(taken) => return taken,
                Err(words) => note(words),
            }
            let delay = shared.timings.republish.delay(attempt, super::dice());
            attempt = attempt.saturating_add(1);
            let turn = life.borrow().turn;
            tokio::select! {
                () = tokio::time::sleep(delay) => {}
                _ = life.wait_for(|life| life.connected && life.turn != turn) => {}
            }
        }
    }

    /// Sends `event` once, or twice when the relay first wants to know who we are.
    async fn offer(&self, event: &Event, shared: &Shared, note: &impl Fn(String)) -> Result<Taken, String> {
        self.wait_for_pace(note).await;
        let before = *self.life.borrow();
        match self.send(event, shared).await? {
            Reply::Answer(answer) if wants_auth(&answer) => {
                self.wait_for_auth(before, shared).await?;
                let reply = self.send(event, shared).await?;
                self.judge(reply, shared)
            }
            reply => self.judge(reply, shared),
        }
    }

    /// What a reply means; its words when the event was not taken.
    fn judge(&self, reply: Reply, shared: &Shared) -> Result<Taken, String> {
        let answer = match reply {
            Reply::Answer(answer) => answer,
            Reply::Broken => return Err("the connection broke".into()),
            Reply::Silence if self.answers.load(Ordering::Relaxed) => return Err("it did not answer".into()),
            // What waits in the queue was not written.
            Reply::Silence if self.relay.queue() > 0 => return Err("its socket takes nothing".into()),
            Reply::Silence => return Ok(Taken::Unconfirmed),
        };
        match MachineReadablePrefix::parse(&answer.words) {
            _ if answer.accepted => {}
            Some(MachineReadablePrefix::Duplicate) => {}
            Some(MachineReadablePrefix::RateLimited) => {
                self.slow_down(shared);
                shared.watcher.relay_said(self.url(), Said::RateLimited);
                return Err(answer.words);
            }
            _ => {
                shared.watcher.relay_said(self.url(), Said::Refused);
                return Err(answer.words);
            }
        }
        *self.pace.lock().unwrap_or_else(PoisonError::into_inner) = Pace::default();
        Ok(Taken::Confirmed)
    }

    /// Writes `event` and waits for the answer.
    async fn send(&self, event: &Event, shared: &Shared) -> Result<Reply, String> {
        let mut life = self.life.subscribe();
        let before = *life.borrow_and_update();
        if !before.connected {
            return Err("not connected".into());
        }
        let mut ticket = self.ticket(event.id);
        self.relay
            .send_msg(ClientMessage::Event(Cow::Borrowed(event)))
            .map_err(|error| shown(&error.to_string()))?;
        let patience = if self.answers.load(Ordering::Relaxed) {
            shared.timings.ok
        } else {
            shared.timings.silent
        };
        Ok(tokio::select! {
            biased;
            answer = &mut ticket.answer => answer.map_or(Reply::Silence, Reply::Answer),
            _ = life.wait_for(|life| !life.connected || life.turn != before.turn) => Reply::Broken,
            () = tokio::time::sleep(patience) => Reply::Silence,
        })
    }

    fn ticket(&self, id: EventId) -> Ticket<'_> {
        let (sender, answer) = oneshot::channel();
        let key = (id, self.tickets.fetch_add(1, Ordering::Relaxed));
        self.waiting().tickets.insert(key, sender);
        Ticket {
            link: self,
            key,
            answer,
        }
    }

    /// Waits until the relay knows who we are. It may since have learnt it for another event.
    async fn wait_for_auth(&self, before: Life, shared: &Shared) -> Result<(), String> {
        let mut life = self.life.subscribe();
        let changed = life.wait_for(|life| *life != before);
        match tokio::time::timeout(shared.timings.auth, changed).await {
            Ok(Ok(life)) if life.connected => Ok(()),
            Ok(_) => Err("the connection broke".into()),
            Err(_) => Err("auth-required: and it did not answer to that".into()),
        }
    }

    /// Waits while the relay wants to be left alone.
    async fn wait_for_pace(&self, note: &impl Fn(String)) {
        let until = self.pace.lock().unwrap_or_else(PoisonError::into_inner).until;
        if let Some(until) = until.filter(|until| *until > Instant::now()) {
            note("rate-limited".into());
            // All who wait must not come back at once.
            let spread = Duration::from_millis(100).mul_f64(f64::from(super::dice()) / f64::from(u32::MAX));
            tokio::time::sleep_until(until + spread).await;
        }
    }

    fn slow_down(&self, shared: &Shared) {
        let mut pace = self.pace.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        // Of many that were refused together the first one counts.
        if pace.until.is_none_or(|until| until <= now) {
            pace.until = Some(now + shared.timings.slow_down.delay(pace.limited, super::dice()));
            pace.limited = pace.limited.saturating_add(1);
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn wants_auth(answer: &Answer) -> bool {
    let prefix = MachineReadablePrefix::parse(&answer.words);
    !answer.accepted && matches!(prefix, Some(MachineReadablePrefix::AuthRequired))
}
