//! A value that many follow: LND's status, for every invoice and machine.
//!
//! As `tokio::sync::watch`, which wakes its followers in a random order; here it is the order in which they began to wait, so
//! that a simulation can be repeated. What must stay true: a follower sees levels, not edges: the newest value, perhaps not all.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use futures_util::Stream;
use futures_util::stream::unfold;
use tokio::sync::Notify;

#[derive(Debug)]
struct Inner<T> {
    value: RwLock<T>,
    version: AtomicU64,
    changed: Notify,
}

/// The value, and who sets it.
#[derive(Debug)]
pub struct Level<T>(Arc<Inner<T>>);

/// Follows a [`Level`]; the last look counts.
#[derive(Debug)]
pub struct Follower<T> {
    inner: Arc<Inner<T>>,
    /// The version seen last.
    seen: u64,
}

impl<T> Inner<T> {
    fn read(&self) -> RwLockReadGuard<'_, T> {
        self.value.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Level<T> {
    /// With a first value.
    #[must_use]
    pub fn new(value: T) -> Self {
        Self(Arc::new(Inner {
            value: RwLock::new(value),
            version: AtomicU64::new(1),
            changed: Notify::new(),
        }))
    }

    /// The value now. Not to be held across an await.
    pub fn borrow(&self) -> RwLockReadGuard<'_, T> {
        self.0.read()
    }

    /// Changes it, and tells everyone.
    pub fn send_modify(&self, change: impl FnOnce(&mut T)) {
        self.send_if_modified(|value| {
            change(value);
            true
        });
    }

    /// Changes it; tells everyone when `change` says that it did. Returns what it says.
    pub fn send_if_modified(&self, change: impl FnOnce(&mut T) -> bool) -> bool {
        let mut value = self.0.value.write().unwrap_or_else(PoisonError::into_inner);
        let news = change(&mut value);
        if news {
            self.0.version.fetch_add(1, Ordering::Release);
        }
        drop(value);
        if news {
            self.0.changed.notify_waiters();
        }
        news
    }

    /// Follows it; the present value is news to a new follower's [`Follower::changed`] only when it changes.
    #[must_use]
    pub fn subscribe(&self) -> Follower<T> {
        let seen = self.0.version.load(Ordering::Acquire);
        let inner = Arc::clone(&self.0);
        Follower { inner, seen }
    }
}

impl<T> Follower<T> {
    /// The value now.
    pub fn borrow(&self) -> RwLockReadGuard<'_, T> {
        self.inner.read()
    }

    /// Answers when the value is another one than at the last look.
    pub async fn changed(&mut self) {
        let inner = Arc::clone(&self.inner);
        loop {
            // Waits from here on: a change between the look and the wait is not missed.
            let changed = inner.changed.notified();
            let version = inner.version.load(Ordering::Acquire);
            if version != self.seen {
                self.seen = version;
                return;
            }
            changed.await;
        }
    }

    /// Answers when the value is such.
    pub async fn wait_for(&mut self, such: impl Fn(&T) -> bool) {
        while !such(&self.inner.read()) {
            self.changed().await;
        }
    }
}

impl<T: Clone> Follower<T> {
    /// The present value, then each new one.
    pub fn stream(self) -> impl Stream<Item = T> {
        unfold((self, true), |(mut follower, first)| async move {
            if !first {
                follower.changed().await;
            }
            let value = follower.inner.read().clone();
            Some((value, (follower, false)))
        })
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt, StreamExt};

    use super::*;

    #[tokio::test]
    async fn followers_hear_of_changes_in_the_order_in_which_they_came() {
        let level = Level::new(0);
        let order = Arc::new(std::sync::Mutex::new(Vec::new()));
        let tasks: Vec<_> = (0..40)
            .map(|number| {
                let (mut follower, order) = (level.subscribe(), Arc::clone(&order));
                tokio::spawn(async move {
                    follower.wait_for(|value| *value == 2).await;
                    order.lock().unwrap().push(number);
                })
            })
            .collect();
        tokio::task::yield_now().await;
        level.send_modify(|value| *value = 1);
        tokio::task::yield_now().await;
        assert!(!level.send_if_modified(|_| false));
        level.send_modify(|value| *value = 2);
        futures_util::future::join_all(tasks).await;
        assert_eq!(*order.lock().unwrap(), (0..40).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_stream_begins_with_the_present_and_leaves_out_what_is_over() {
        let level = Level::new(1);
        let mut stream = Box::pin(level.subscribe().stream());
        assert_eq!(stream.next().await, Some(1));
        assert_eq!(stream.next().now_or_never(), None);
        level.send_modify(|value| *value = 2);
        level.send_modify(|value| *value = 3);
        assert_eq!(stream.next().await, Some(3));
        assert_eq!(stream.next().now_or_never(), None);
    }
}
