//! What survives an actor's death: the notice that it died, its current address, and how often it may come back.
//!
//! actix does not restart an actor that panicked, and its mailbox is closed for good (facts/crates.md). So
//! the parent holds a factory, and each child holds a [`DownGuard`] that fires while it unwinds.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, RwLock};
use std::time::Duration;

use actix::{Actor, Addr, Message, Recipient};

use crate::ids::{AtmId, PaymentHash};
use crate::metrics::ActorKind;
use crate::time::UnixMs;

/// Between two looks for an actor that is being restarted.
const RETURN: Duration = Duration::from_millis(50);

/// Which child of the supervisor.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ChildId {
    /// The journal actor.
    Journal,
    /// The LND actor.
    Lnd,
    /// The Nostr actor.
    Nostr,
    /// The actor of an ATM's dispenser.
    Hardware(AtmId),
    /// The actor of an ATM.
    Atm(AtmId),
    /// The actor of a pending invoice.
    Invoice(PaymentHash),
}

impl ChildId {
    /// Its kind, for metrics.
    #[must_use]
    pub fn kind(&self) -> ActorKind {
        match self {
            Self::Journal => ActorKind::Journal,
            Self::Lnd => ActorKind::Lnd,
            Self::Nostr => ActorKind::Nostr,
            Self::Hardware(_) => ActorKind::Hardware,
            Self::Atm(_) => ActorKind::Atm,
            Self::Invoice(_) => ActorKind::Invoice,
        }
    }
}

impl fmt::Display for ChildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Journal => f.write_str("journal"),
            Self::Lnd => f.write_str("lnd"),
            Self::Nostr => f.write_str("nostr"),
            Self::Hardware(atm) => write!(f, "dispenser of {atm}"),
            Self::Atm(atm) => write!(f, "atm {atm}"),
            Self::Invoice(hash) => write!(f, "invoice {hash}"),
        }
    }
}

/// A child is gone, by panic or by its own stop.
#[derive(Debug, Clone, Message)]
#[rtype(result = "()")]
pub struct ChildDown {
    /// Which.
    pub child: ChildId,
    /// Which life of it.
    pub generation: u64,
    /// It had nothing left to do, and is not to come back.
    pub retired: bool,
}

/// Makes an actor panic: tests show with it that the rest goes on. Not in release builds.
#[cfg(debug_assertions)]
#[derive(Debug, Clone, Copy, Message)]
#[rtype(result = "()")]
pub struct Panic;

/// An actor that panics when told to.
#[cfg(debug_assertions)]
macro_rules! can_panic {
    ($actor:ty) => {
        impl actix::Handler<$crate::actors::child::Panic> for $actor {
            type Result = ();

            fn handle(&mut self, _: $crate::actors::child::Panic, _: &mut Self::Context) {
                panic!("a panic was ordered")
            }
        }
    };
}
#[cfg(not(debug_assertions))]
macro_rules! can_panic {
    ($actor:ty) => {};
}
pub(super) use can_panic;

/// Held by a child; tells the parent when it is dropped. The notice may be lost when the parent's mailbox is
/// full, so the parent also looks at [`Addr::connected`] from time to time.
#[derive(Debug)]
pub struct DownGuard {
    notice: ChildDown,
    parent: Recipient<ChildDown>,
}

impl DownGuard {
    /// A guard for one life of a child.
    #[must_use]
    pub fn new(child: ChildId, generation: u64, parent: Recipient<ChildDown>) -> Self {
        Self {
            notice: ChildDown {
                child,
                generation,
                retired: false,
            },
            parent,
        }
    }

    /// The child ends because it has nothing left to do.
    pub fn retire(&mut self) {
        self.notice.retired = true;
    }
}

impl Drop for DownGuard {
    fn drop(&mut self) {
        // Nothing else can be done with a failure here; the parent's look finds it.
        let _ = self.parent.try_send(self.notice.clone());
    }
}

/// The address of an actor that may be replaced by a new life of it.
#[derive(Debug)]
pub struct Post<A: Actor>(Arc<RwLock<Option<Addr<A>>>>);

impl<A: Actor> Clone for Post<A> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<A: Actor> Default for Post<A> {
    fn default() -> Self {
        Self(Arc::new(RwLock::new(None)))
    }
}

impl<A: Actor> Post<A> {
    /// Puts the address of a new life.
    pub fn set(&self, addr: Addr<A>) {
        *self.0.write().unwrap_or_else(std::sync::PoisonError::into_inner) = Some(addr);
    }

    /// The address, if there is a living actor.
    #[must_use]
    pub fn get(&self) -> Option<Addr<A>> {
        let addr = self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone();
        addr.filter(Addr::connected)
    }
}

impl<A: Actor<Context = actix::Context<A>>> Post<A> {
    /// The address, once there is a living actor.
    pub async fn there(&self) -> Addr<A> {
        loop {
            match self.get() {
                Some(addr) => return addr,
                None => tokio::time::sleep(RETURN).await,
            }
        }
    }
}

/// Restart intensity: at most `max` restarts within `within`, then no more. Pure.
#[derive(Debug, Clone)]
pub struct Restarts {
    max: u32,
    within: Duration,
    times: VecDeque<UnixMs>,
}

impl Restarts {
    /// With no restart so far.
    #[must_use]
    pub fn new(max: u32, within: Duration) -> Self {
        Self {
            max,
            within,
            times: VecDeque::new(),
        }
    }

    /// Counts a death at `now`: how long to wait before the next life, or `None` when there is to be none.
    pub fn next(&mut self, now: UnixMs) -> Option<Duration> {
        while self.times.front().is_some_and(|first| now.since(*first) > self.within) {
            self.times.pop_front();
        }
        let recent = u32::try_from(self.times.len()).unwrap_or(u32::MAX);
        if recent >= self.max {
            return None;
        }
        self.times.push_back(now);
        Some(Duration::from_millis(50).saturating_mul(1 << recent.min(6)))
    }

    /// Forgets all restarts: an operator put it into service again.
    pub fn forgive(&mut self) {
        self.times.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restarts_back_off_and_end_and_time_forgives() {
        let mut restarts = Restarts::new(2, Duration::from_secs(60));
        assert_eq!(restarts.next(UnixMs(0)), Some(Duration::from_millis(50)));
        assert_eq!(restarts.next(UnixMs(1)), Some(Duration::from_millis(100)));
        assert_eq!(restarts.next(UnixMs(2)), None);
        assert!(restarts.next(UnixMs(61_000)).is_some());
        assert!(restarts.next(UnixMs(61_001)).is_some());
        assert_eq!(restarts.next(UnixMs(61_002)), None);
        restarts.forgive();
        assert!(restarts.next(UnixMs(61_003)).is_some());
    }
}
