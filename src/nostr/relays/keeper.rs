//! Keeps one relay connected and subscribed to, for ever.
//!
//! One task for each relay, started by [`super::Relays::start`]. It is the only one that connects, and the only one that
//! hears what the relay says besides events. What must stay true: it ends only when told to; no relay is asked
//! more often than the back-off allows.

use std::ops::ControlFlow;
use std::sync::Arc;

use ::nostr::message::MachineReadablePrefix;
use ::nostr::{ClientMessage, Filter, Kind, RelayMessage, SubscriptionId, Timestamp};
use nostr_sdk::RelayStatus;
use nostr_sdk::pool::RelayNotification;
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;

use super::link::{Link, shown};
use super::subscription::{Next, Subscription};
use super::{Said, Shared};
use crate::nostr::wire::event::KIND;

/// The name of the one subscription on each connection.
const SUBSCRIPTION: &str = "tellerd";

/// Connects `link` whenever it is not, until `stop`.
pub(super) async fn keep(link: Arc<Link>, shared: Arc<Shared>, mut stop: watch::Receiver<bool>) {
    let mut failures = 0;
    loop {
        let notes = link.relay.notifications();
        let connected = tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            connected = link.relay.try_connect(shared.timings.connect) => connected,
        };
        let was_good = match connected {
            // The pool also says Ok when it had nothing to do, which never happens here; nothing would be heard then.
            Ok(()) if !link.relay.is_connected() => false,
            Ok(()) => {
                let session = Session::new(&link, &shared);
                tokio::select! {
                    _ = stop.wait_for(|stop| *stop) => break,
                    was_good = session.run(notes) => was_good,
                }
            }
            Err(error) => {
                // Once: it may be down for days.
                if failures == 0 {
                    tracing::warn!(relay = %link.url(), error = %shown(&error.to_string()), "relay not reached");
                }
                false
            }
        };
        failures = if was_good { 0 } else { failures + 1_u32 };
        let delay = shared
            .timings
            .reconnect
            .delay(failures.saturating_sub(1), super::dice());
        tokio::select! {
            _ = stop.wait_for(|stop| *stop) => break,
            () = tokio::time::sleep(delay) => {}
        }
    }
    link.relay.disconnect();
}

/// One connection. Dropping it says that the connection has ended.
struct Session<'a> {
    link: &'a Link,
    shared: &'a Shared,
    id: SubscriptionId,
    subscription: Subscription,
    /// The subscription was in place.
    was_good: bool,
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        self.link.went_down();
        self.shared.watcher.relay_connected(self.link.url(), false);
        tracing::info!(relay = %self.link.url(), "relay disconnected");
    }
}

impl<'a> Session<'a> {
    fn new(link: &'a Link, shared: &'a Shared) -> Self {
        let turn = link.came_up();
        tracing::info!(relay = %link.url(), "relay connected");
        shared.watcher.relay_connected(link.url(), true);
        if turn > 1 {
            shared.watcher.relay_reconnected(link.url());
        }
        Self {
            link,
            shared,
            id: SubscriptionId::new(SUBSCRIPTION),
            subscription: Subscription::asked(&shared.timings, Instant::now()),
            was_good: false,
        }
    }

    /// Runs until the connection ends; returns whether it was of any use.
    async fn run(mut self, mut notes: broadcast::Receiver<RelayNotification>) -> bool {
        self.ask();
        loop {
            let timer = self.subscription.timer();
            let rings = async {
                match timer {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let next = tokio::select! {
                note = notes.recv() => match self.hear(note) {
                    ControlFlow::Continue(next) => next,
                    ControlFlow::Break(()) => return self.was_good,
                },
                () = rings => self.subscription.due(Instant::now()),
            };
            self.carry_out(next);
        }
    }

    fn carry_out(&mut self, next: Next) {
        match next {
            Next::Nothing => {}
            Next::Ask => self.ask(),
            Next::InPlace => {
                self.was_good = true;
                self.shared.epoch.send_modify(|epoch| *epoch += 1);
            }
        }
    }

    /// Asks for all events to the own key from a little before now on.
    fn ask(&self) {
        let since = self.shared.clock.now().as_secs();
        let since = since.saturating_sub(self.shared.timings.overlap.as_secs());
        let filter = Filter::new()
            .kind(Kind::Custom(KIND))
            .pubkey(self.shared.me)
            .since(Timestamp::from_secs(since));
        let request = ClientMessage::req(self.id.clone(), vec![filter]);
        // It fails only when the connection is about to end, or its queue is full, which is the same within seconds.
        if let Err(error) = self.link.relay.send_msg(request) {
            tracing::debug!(relay = %self.link.url(), %error, "not subscribed");
        }
    }

    fn hear(&mut self, note: Result<RelayNotification, broadcast::error::RecvError>) -> ControlFlow<(), Next> {
        use broadcast::error::RecvError;
        let now = Instant::now();
        ControlFlow::Continue(match note {
            Ok(RelayNotification::Message { message }) => self.hear_message(message, now),
            Ok(RelayNotification::Authenticated) => {
                self.link.authenticated();
                self.subscription.again(now)
            }
            Ok(RelayNotification::AuthenticationFailed) => {
                self.link.authenticated();
                self.say(Said::AuthFailed, "");
                Next::Nothing
            }
            Ok(RelayNotification::RelayStatus {
                status: RelayStatus::Disconnected | RelayStatus::Terminated | RelayStatus::Banned,
            })
            | Ok(RelayNotification::Shutdown)
            | Err(RecvError::Closed) => return ControlFlow::Break(()),
            Ok(_) => Next::Nothing,
            // A CLOSED may have been among what was missed. A lost OK is asked for again by whoever waits for it; a lost
            // end of the connection shows here.
            Err(RecvError::Lagged(_)) if self.link.relay.is_connected() => self.subscription.again(now),
            Err(RecvError::Lagged(_)) => return ControlFlow::Break(()),
        })
    }

    fn hear_message(&mut self, message: RelayMessage<'static>, now: Instant) -> Next {
        match message {
            RelayMessage::Ok {
                event_id,
                status,
                message,
            } => self.link.answered(event_id, status, &message),
            RelayMessage::EndOfStoredEvents(id) if *id == self.id => return self.subscription.placed(now),
            RelayMessage::Closed {
                subscription_id,
                message,
            } if *subscription_id == self.id => {
                self.say(Said::Closed, &message);
                let prefix = MachineReadablePrefix::parse(&message);
                let for_auth = matches!(prefix, Some(MachineReadablePrefix::AuthRequired));
                self.subscription.closed(for_auth, now, super::dice());
            }
            RelayMessage::Notice(words) => self.say(Said::Notice, &words),
            _ => {}
        }
        Next::Nothing
    }

    fn say(&self, what: Said, words: &str) {
        self.shared.watcher.relay_said(self.link.url(), what);
        tracing::debug!(relay = %self.link.url(), words = %shown(words), "relay said {what:?}");
    }
}
