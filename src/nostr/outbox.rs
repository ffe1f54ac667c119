//! Where signed events go: the relays, or a test's ears.

use ::nostr::Event;
use async_trait::async_trait;

use super::relays::{PublishError, Relays};
use crate::time::UnixMs;

/// Publishes events.
#[async_trait]
pub trait Outbox: Send + Sync + 'static {
    /// Hands `event` to the relays; after `until` it is of no use any more. The future may be dropped at any time: the
    /// answer can come before the relays are done with the question.
    ///
    /// # Errors
    /// Why it reached none of them, in words. `Ok` does not say that anybody has read it.
    async fn publish(&self, event: Event, until: UnixMs) -> Result<(), String>;
}

#[async_trait]
impl Outbox for Relays {
    async fn publish(&self, event: Event, until: UnixMs) -> Result<(), String> {
        Relays::publish(self, event, until)
            .await
            .map_err(|error: PublishError| error.to_string())
    }
}
