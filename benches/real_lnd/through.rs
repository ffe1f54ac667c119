//! The whole daemon at the same node: signed and encrypted requests are handed to its gate, replies are collected.
//!
//! All of it takes part but the relays: NIP-44, roster, limits, seen ids, actors, journal with fdatasync, sled.

use std::sync::Arc;

use ::nostr::{Event, Keys};
use tellerd::ids::Preimage;
use tellerd::metrics::Machines;
use tellerd::nostr::method::{Call, CreateHoldInvoice};
use tellerd::nostr::wire::nip44::ConversationKeys;
use tellerd::nostr::wire::{Endpoint, Limits, Role, Version};
use tellerd::time::{Clock, SystemClock};
use tempfile::TempDir;

use crate::clients;
use crate::collector::Collector;
use crate::daemon::{Daemon, Plan, service};
use crate::rates::{Op, VALUE_SATS};
use crate::rig::Net;

const CLIENTS: u16 = 50;

/// A daemon at the merchant's node, and its clients.
pub struct Through {
    daemon: Daemon,
    collector: Arc<Collector>,
    keys: Vec<Keys>,
    _dir: TempDir,
}

impl Through {
    pub fn start(net: &Net) -> Self {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let keys = clients::keys(CLIENTS);
        let collector = Collector::new(0);
        let folder = net.merchant.dir();
        let lnd = format!(
            "address = '{}'\ntls_cert = {:?}\nmacaroon = {:?}",
            net.merchant.address(),
            folder.join("tls.cert"),
            net.merchant.macaroons().join("admin.macaroon")
        );
        let daemon = Daemon::start(Plan {
            dir: dir.path(),
            // Nobody listens there: nothing comes in but what is handed over below.
            relay: "ws://127.0.0.1:1",
            clients: &clients::configured(&keys),
            journal_in_memory: false,
            outbox: Some(collector.clone()),
            node: None,
            lnd: &lnd,
        });
        Self {
            daemon,
            collector,
            keys,
            _dir: dir,
        }
    }

    /// A figure of the daemon's own.
    pub fn metric(&self, line: &str) -> f64 {
        let scrape = self.daemon.metrics.render(&Machines::default());
        let found = scrape.lines().find_map(|one| one.strip_prefix(line));
        found.map_or(0.0, |value| value.trim().parse().unwrap())
    }

    /// The requests for `op` with each preimage, ready to be sent.
    pub fn requests(&self, op: Op, preimages: &[Preimage]) -> Vec<Event> {
        let role = Role::Client { service: service() };
        let endpoint = |keys: &Keys| Endpoint::new(keys.clone(), role, Limits::default());
        let mut endpoints: Vec<Endpoint> = self.keys.iter().map(endpoint).collect();
        let now = SystemClock.now();
        let one = |preimage: &Preimage| {
            // An invoice is its client's alone.
            let owner = usize::from(preimage.hash().0[0]) % self.keys.len();
            let hex = self.keys[owner].public_key().to_hex();
            let id = format!("{op:?}-{}", preimage.hash());
            let text = call(op, preimage).request().encode(&hex, &id);
            endpoints[owner]
                .seal(service(), Version::V2, &text, now)
                .unwrap()
                .remove(0)
        };
        preimages.iter().map(one).collect()
    }

    /// Hands them in, `callers` at once, until all are answered well; returns the invoices among the answers.
    pub async fn all(&self, requests: Vec<Event>, callers: usize) -> Vec<String> {
        self.collector.replies.lock().unwrap().clear();
        self.collector.window.add_permits(callers);
        let asked = requests.len();
        for event in requests {
            self.collector.window.acquire().await.unwrap().forget();
            self.daemon.gate.arrive(event).await;
        }
        let all = self.collector.window.acquire_many(u32::try_from(callers).unwrap());
        all.await.unwrap().forget();
        let replies = std::mem::take(&mut *self.collector.replies.lock().unwrap());
        assert_eq!(replies.len(), asked);
        replies.iter().filter_map(|reply| self.read(reply)).collect()
    }

    /// The invoice in a reply, if there is one. It has to be a good reply.
    fn read(&self, reply: &Event) -> Option<String> {
        let to = self
            .keys
            .iter()
            .find(|keys| reply.tags.public_keys().any(|key| *key == keys.public_key()));
        let conversation = ConversationKeys::derive(to.unwrap().secret_key(), &service()).unwrap();
        let (_, text) = conversation.decrypt(&reply.content).unwrap();
        let reply: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(reply["status"], "OK", "{text}");
        reply["invoice"].as_str().map(str::to_owned)
    }
}

fn call(op: Op, preimage: &Preimage) -> Call {
    match op {
        Op::Add => Call::CreateHoldInvoice(CreateHoldInvoice {
            hash: preimage.hash(),
            amount_sats: VALUE_SATS,
            memo: "100.00 EUR at the kiosk in the hall".into(),
            expiry_seconds: 600,
            cltv_expiry: None,
        }),
        Op::Cancel => Call::CancelHoldInvoice(preimage.hash()),
        Op::Settle => Call::SettleHoldInvoice(preimage.clone()),
    }
}
