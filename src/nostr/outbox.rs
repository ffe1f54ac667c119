//! Where signed events go: the relays, or a test's ears.

use ::nostr::Event;
use async_trait::async_trait;

use super::relays::{PublishError, Relays};
use crate::time::UnixMs;

/// Publishes events.
#[async_trait]
pub trait Outbox: Send + Sync + 'static {
    /// Publishes `event`; tries until `until` has passed.
    ///
    /// # Errors
    /// Why nobody took it. It may have gone out all the same.
    async fn publish(&self, event: Event, until: UnixMs) -> Result<(), String>;
}

#[async_trait]
impl Outbox for Relays {
    async fn publish(&self, event: Event, until: UnixMs) -> Result<(), String> {
        Relays::publish(self, event, until).await.map_err(|error: PublishError| error.to_string())
    }
}
