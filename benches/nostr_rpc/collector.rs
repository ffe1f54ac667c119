//! Stands in the place of the relays: keeps what the daemon sends, and bounds how much is asked at once.

use std::sync::{Arc, Mutex};

use ::nostr::Event;
use async_trait::async_trait;
use tellerd::nostr::outbox::Outbox;
use tellerd::time::UnixMs;
use tokio::sync::Semaphore;

/// Collects the replies, and lets one more request in for each.
pub struct Collector {
    pub replies: Mutex<Vec<Event>>,
    pub window: Semaphore,
}

#[async_trait]
impl Outbox for Collector {
    async fn publish(&self, event: Event, _: UnixMs) -> Result<(), String> {
        self.replies.lock().unwrap().push(event);
        self.window.add_permits(1);
        Ok(())
    }
}

impl Collector {
    /// One that lets so many requests in.
    pub fn new(at_once: usize) -> Arc<Self> {
        Arc::new(Self {
            replies: Mutex::default(),
            window: Semaphore::new(at_once),
        })
    }
}
