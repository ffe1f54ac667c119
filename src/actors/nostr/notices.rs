//! Who waits for a change of an invoice: calls that are being answered, and clients that asked for pushes.
//!
//! Owned by the Nostr actor; told of every change by the invoices' actors. What must stay true: bounded by the calls in
//! flight and the known clients; a waiter that is dropped leaves nothing behind.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::watch;

use crate::ids::{NostrKey, PaymentHash};
use crate::invoice::Invoice;
use crate::nostr::wire::Version;
use crate::time::UnixMs;

/// How long pushes go on after they were asked for. A client asks again before that, and after each restart.
pub(super) const SUBSCRIBED: Duration = Duration::from_secs(15 * 60);

type Board = RefCell<HashMap<PaymentHash, watch::Sender<Option<Invoice>>>>;

#[derive(Default)]
pub(super) struct Notices {
    waiting: Board,
    subscribed: RefCell<HashMap<NostrKey, (Version, UnixMs)>>,
}

/// A wait for one invoice's changes.
pub(super) struct Wait<'a> {
    board: &'a Board,
    hash: PaymentHash,
    changes: watch::Receiver<Option<Invoice>>,
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let mut board = self.board.borrow_mut();
        // The one being dropped is counted still.
        if board.get(&self.hash).is_some_and(|sender| sender.receiver_count() <= 1) {
            board.remove(&self.hash);
        }
    }
}

impl Wait<'_> {
    /// The invoice once it is as wanted, if that is within `limit`.
    pub async fn until(&mut self, limit: Duration, wanted: impl Fn(&Invoice) -> bool) -> Option<Invoice> {
        let met = self.changes.wait_for(|seen| seen.as_ref().is_some_and(&wanted));
        match tokio::time::timeout(limit, met).await {
            Ok(Ok(invoice)) => invoice.clone(),
            _ => None,
        }
    }
}

impl Notices {
    /// Changes from now on. Begin before the order whose effect is waited for.
    pub fn wait(&self, hash: PaymentHash) -> Wait<'_> {
        let mut board = self.waiting.borrow_mut();
        let changes = board
            .entry(hash)
            .or_insert_with(|| watch::Sender::new(None))
            .subscribe();
        Wait {
            board: &self.waiting,
            hash,
            changes,
        }
    }

    /// An invoice has changed.
    pub fn seen(&self, invoice: &Invoice) {
        if let Some(sender) = self.waiting.borrow().get(&invoice.spec.hash) {
            sender.send_replace(Some(invoice.clone()));
        }
    }

    /// This client asks for pushes; returns until when they go on.
    pub fn subscribe(&self, client: NostrKey, version: Version, now: UnixMs) -> UnixMs {
        let until = now.plus(SUBSCRIBED);
        let mut subscribed = self.subscribed.borrow_mut();
        subscribed.retain(|_, (_, until)| now < *until);
        subscribed.insert(client, (version, until));
        until
    }

    /// The encryption in which this client wants pushes, if it does.
    pub fn subscription(&self, client: &NostrKey, now: UnixMs) -> Option<Version> {
        let subscribed = self.subscribed.borrow();
        subscribed
            .get(client)
            .filter(|(_, until)| now < *until)
            .map(|(version, _)| *version)
    }
}
