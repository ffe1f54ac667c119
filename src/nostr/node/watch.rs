//! Following an invoice, and the height, at a service that may be silent.
//!
//! Used by the node. What must stay true: every change is found by looking, a push only makes the look come sooner; one
//! subscription serves all; a stream that ends, or ends with an error, is no answer.

use std::convert::Infallible;
use std::time::Duration;

use futures_util::stream::unfold;
use tokio::sync::broadcast::{self, error::RecvError};
use tokio::time::{Instant, sleep, sleep_until};

use crate::ids::PaymentHash;
use crate::lnd::{InvoiceSnapshot, InvoiceState, Lightning, LnError, LnErrorKind, Updates};
use crate::nostr::field::Object;
use crate::nostr::method::{Call, ServiceInfo};

use super::{NostrNode, answer};

/// Pushes come as quickly as somebody sends them; looks do not.
const BREATH: Duration = Duration::from_millis(500);
/// A subscription that failed is not asked for again before.
const RESUBSCRIBE: Duration = Duration::from_secs(30);
/// A subscription that is older, and brought no push of a change, is asked for again: the service may have been started
/// anew and forgotten it. A push alone may be lost on any day, so not more often.
const DOUBTED: Duration = Duration::from_secs(10);

struct Watch {
    node: NostrNode,
    hash: PaymentHash,
    pushes: broadcast::Receiver<PaymentHash>,
    last: Option<InvoiceSnapshot>,
    pause: Duration,
}

/// The invoice now, and each change of it.
pub(super) fn invoice(node: NostrNode, hash: PaymentHash) -> Updates<InvoiceSnapshot> {
    let watch = Watch {
        pushes: node.0.caller.pushes(),
        pause: node.0.timings.look,
        last: None,
        node,
        hash,
    };
    Box::pin(unfold(Some(watch), async |watch| {
        let mut watch = watch?;
        let item = watch.next().await;
        let rest = item.is_ok().then_some(watch);
        Some((item, rest))
    }))
}

impl Watch {
    /// The next change.
    async fn next(&mut self) -> Result<InvoiceSnapshot, LnError> {
        loop {
            let is_pushed = match self.last {
                Some(_) => self.wait().await,
                None => true,
            };
            let call = Call::GetHoldInvoice(self.hash);
            let seen = self.node.lookup(&self.hash).await?;
            let missing = || answer::say(&call, LnErrorKind::NotFound, "the service does not know it");
            let seen = seen.ok_or_else(missing)?;
            let timings = &self.node.0.timings;
            let is_news = self.last.as_ref() != Some(&seen);
            self.pause = match seen.state {
                InvoiceState::Open if is_news => timings.look,
                InvoiceState::Open => timings.slowest.min(self.pause * 2),
                _ => timings.look_held,
            };
            if is_news {
                if !is_pushed {
                    doubt_subscription(&self.node);
                }
                self.last = Some(seen.clone());
                return Ok(seen);
            }
        }
    }

    /// Until it is time to look again, or a push says so, which is then true.
    async fn wait(&mut self) -> bool {
        let due = Instant::now() + self.pause;
        let soonest = Instant::now() + BREATH.min(self.pause);
        tokio::select! {
            () = sleep_until(due) => false,
            () = pushed(&mut self.pushes, self.hash) => {
                sleep_until(soonest).await;
                true
            }
            never = subscribe(&self.node) => match never {},
        }
    }
}

/// Returns when there was a push for this invoice, or may have been.
async fn pushed(pushes: &mut broadcast::Receiver<PaymentHash>, wanted: PaymentHash) {
    loop {
        match pushes.recv().await {
            Ok(hash) if hash == wanted => return,
            Ok(_) => {}
            Err(RecvError::Lagged(_)) => return,
            // The node holds the sender.
            Err(RecvError::Closed) => return std::future::pending().await,
        }
    }
}

/// Runs beside a pause: it never delays a look, and a look may end it. The service may have it all the same.
async fn subscribe(node: &NostrNode) -> Infallible {
    subscribe_if_due(node).await;
    std::future::pending().await
}

/// Has the service push, if that is due and nobody else is at it. A failure is not told: looking finds everything too.
async fn subscribe_if_due(node: &NostrNode) {
    let Ok(mut subscribed) = node.0.subscribed.try_lock() else {
        return;
    };
    let now = Instant::now();
    let is_due = |at: Instant| now.saturating_duration_since(at) >= node.0.timings.subscription;
    if subscribed.is_some_and(|at| !is_due(at)) {
        return;
    }
    // Whoever drops this future has tried too.
    let again = node.0.timings.subscription.saturating_sub(RESUBSCRIBE);
    *subscribed = Some(now.checked_sub(again).unwrap_or(now));
    let nothing = |_: &Object| Ok(());
    match node.0.caller.ask(&Call::SubscribeHoldInvoices, nothing).await {
        Ok(()) => *subscribed = Some(now),
        Err(error) => tracing::debug!(%error, "the service does not push; it is asked instead"),
    }
}

/// A change came without a push.
fn doubt_subscription(node: &NostrNode) {
    // Whoever has the lock is asking already.
    if let Ok(mut subscribed) = node.0.subscribed.try_lock()
        && subscribed.is_some_and(|at| at.elapsed() >= DOUBTED)
    {
        *subscribed = None;
    }
}

struct Heights {
    node: NostrNode,
    /// When the service answered last.
    answered: Instant,
    first: bool,
}

/// The service's height at once and at each pace, up to a silence that is too long.
pub(super) fn heights(node: NostrNode) -> Updates<u32> {
    let heights = Heights {
        node,
        answered: Instant::now(),
        first: true,
    };
    Box::pin(unfold(Some(heights), async |heights| {
        let mut heights = heights?;
        let item = heights.next().await;
        let rest = item.is_ok().then_some(heights);
        Some((item, rest))
    }))
}

impl Heights {
    async fn next(&mut self) -> Result<u32, LnError> {
        let call = Call::GetServiceInfo;
        loop {
            if !std::mem::take(&mut self.first) {
                sleep(self.node.0.timings.pace).await;
            }
            match self.node.0.caller.ask(&call, ServiceInfo::read).await {
                Ok(info) => {
                    self.answered = Instant::now();
                    return Ok(info.block_height);
                }
                Err(error) if self.answered.elapsed() >= self.node.0.timings.silence => {
                    return Err(answer::error(&call, &error));
                }
                Err(error) => tracing::debug!(%error, "no height"),
            }
        }
    }
}
