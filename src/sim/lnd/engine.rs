//! The simulated LND's heart: the pure node, its log and its subscribers under one mutex, as LND's invoice registry.
//!
//! Called by the services, the control interface and the in-process handle. Must stay true: a change is on disk
//! before anyone hears of it; a subscriber gets the current state and then every change, none lost between.

use std::collections::HashMap;
use std::hash::Hash;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tonic::Status;

use super::bolt11::Signer;
use super::connections::Connections;
use super::credentials::{Credentials, random};
use super::faults::{Comeback, Faults};
use super::log::Log;
use super::node::record::{Entry, InvoiceRecord, Money, PayOrder, Payment};
use super::node::{AddHold, Node, NodeOptions, Resolution};
use super::{Ledger, PayOptions, SimError, SimLndOptions};
use crate::ids::PaymentHash;
use crate::proto::lnrpc::WalletState;
use crate::time::{SharedClock, UnixMs};

/// More HTLCs than any wallet splits into.
const MAX_PARTS: u32 = 100;
/// All bitcoin there will ever be.
const MAX_MSAT: u64 = 21_000_000 * crate::money::MSAT_PER_BTC;
/// About two years of blocks.
const MAX_BLOCKS_AT_ONCE: u32 = 100_000;

/// The sending half of a stream.
type Subscriber<T> = UnboundedSender<Result<T, Status>>;
/// The receiving half of a stream.
pub(super) type Subscription<T> = UnboundedReceiver<Result<T, Status>>;

pub(super) struct Engine {
    registry: Mutex<Registry>,
    pub credentials: Credentials,
    pub signer: Signer,
    clock: SharedClock,
    /// LND's `invoices.holdexpirydelta`, for who asks what is configured.
    pub hold_expiry_delta: u32,
    pub state: watch::Sender<WalletState>,
    pub faults: Faults,
    pub connections: Connections,
    /// Restarts in progress, for the task that ends them.
    pub comebacks: UnboundedSender<Comeback>,
    pub block_interval_ms: watch::Sender<u64>,
    pub stop: watch::Sender<bool>,
}

/// What LND's registry mutex guards.
struct Registry {
    node: Node,
    /// `None` once closed, or after a write failed: nothing is answered from then on.
    log: Option<Log>,
    invoices: HashMap<PaymentHash, Vec<Subscriber<InvoiceRecord>>>,
    payments: HashMap<u64, Vec<Subscriber<Payment>>>,
    blocks: Vec<Subscriber<u32>>,
    htlcs: Vec<Subscriber<HtlcNews>>,
}

/// An event of SubscribeHtlcEvents.
#[derive(Debug, Clone, Copy)]
pub(super) enum HtlcNews {
    /// The first one.
    Subscribed,
    /// The preimage of this HTLC was handed to the peer.
    Settle(u64),
    /// This HTLC is at its end.
    Final(u64, Resolution),
}

impl Engine {
    /// Opens or makes the directory.
    pub fn open(dir: &Path, options: &SimLndOptions, comebacks: UnboundedSender<Comeback>) -> Result<Self, SimError> {
        std::fs::create_dir_all(dir).map_err(super::log::LogError::io(dir))?;
        let node_options = NodeOptions {
            hold_expiry_delta: options.hold_expiry_delta,
            max_htlcs: options.max_htlcs,
            capacity_sat: options.capacity_sat,
            final_resolutions: options.final_resolutions,
        };
        let mut node = Node::new(node_options, options.start_height);
        let log = Log::open(dir, &mut node, Node::restore, |node| {
            node.restored();
            node.entries().collect()
        })?;
        let credentials = Credentials::open(dir)?;
        Ok(Self {
            registry: Mutex::new(Registry {
                node,
                log: Some(log),
                invoices: HashMap::new(),
                payments: HashMap::new(),
                blocks: Vec::new(),
                htlcs: Vec::new(),
            }),
            signer: Signer::new(credentials.node_key),
            credentials,
            clock: options.clock.clone(),
            hold_expiry_delta: options.hold_expiry_delta,
            state: watch::Sender::new(WalletState::ServerActive),
            faults: Faults::default(),
            connections: Connections::default(),
            comebacks,
            block_interval_ms: watch::Sender::new(options.block_interval_ms),
            stop: watch::Sender::new(false),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `act` on the node at the current time, and makes what changed durable and known.
    pub fn with<T>(&self, act: impl FnOnce(&mut Node, UnixMs) -> T) -> Result<T, SimError> {
        self.locked(|registry, now| act(&mut registry.node, now))
    }

    fn locked<T>(&self, act: impl FnOnce(&mut Registry, UnixMs) -> T) -> Result<T, SimError> {
        let mut registry = self.lock();
        if registry.log.is_none() {
            return Err(SimError::Closed);
        }
        let now = self.clock.now();
        registry.node.tick(now);
        registry.commit()?;
        let value = act(&mut registry, now);
        registry.node.tick(now);
        registry.commit()?;
        Ok(value)
    }

    /// Does what is due by now.
    pub fn tick(&self) -> Result<(), SimError> {
        self.with(|_, _| ())
    }

    /// AddHoldInvoice.
    pub fn add_hold(&self, request: &AddHold) -> Result<InvoiceRecord, Status> {
        let payment_addr = random::<32>().map_err(Status::from)?;
        Ok(self.with(|node, now| node.add_hold(request, payment_addr, now, |terms| self.signer.encode(terms)))??)
    }

    /// SettleInvoice.
    pub fn settle(&self, preimage: &[u8]) -> Result<(), Status> {
        Ok(self.with(|node, now| node.settle(preimage, now))??)
    }

    /// CancelInvoice.
    pub fn cancel(&self, hash: &[u8]) -> Result<(), Status> {
        Ok(self.with(|node, now| node.cancel(hash, now))??)
    }

    /// LookupInvoice.
    pub fn lookup(&self, hash: &[u8]) -> Result<InvoiceRecord, Status> {
        Ok(self.with(|node, _| node.lookup(hash).cloned())??)
    }

    /// SubscribeSingleInvoice: the current state, then changes up to a final one.
    pub fn watch_invoice(&self, hash: PaymentHash) -> Result<Subscription<InvoiceRecord>, SimError> {
        self.locked(|registry, _| {
            let (sender, receiver) = unbounded_channel();
            let current = registry.node.invoice(&hash).cloned();
            let ended = current.as_ref().is_some_and(|record| record.state.is_final());
            subscribe(&mut registry.invoices, hash, sender, current, ended);
            receiver
        })
    }

    /// Streams of invoices that somebody listens to.
    pub fn invoice_streams(&self) -> usize {
        let registry = self.lock();
        let streams = registry.invoices.values().flatten();
        streams.filter(|subscriber| !subscriber.is_closed()).count()
    }

    /// The current height, then each new one.
    pub fn watch_blocks(&self) -> Result<Subscription<u32>, SimError> {
        self.locked(|registry, _| {
            let (sender, receiver) = unbounded_channel();
            _ = sender.send(Ok(registry.node.height()));
            registry.blocks.retain(|subscriber| !subscriber.is_closed());
            registry.blocks.push(sender);
            receiver
        })
    }

    /// LookupHtlcResolution; `None` while it has none.
    pub fn resolution(&self, htlc_index: u64) -> Result<Option<Resolution>, Status> {
        Ok(self.with(|node, _| node.resolution(htlc_index))??)
    }

    /// SubscribeHtlcEvents.
    pub fn watch_htlcs(&self) -> Result<Subscription<HtlcNews>, SimError> {
        self.locked(|registry, _| {
            let (sender, receiver) = unbounded_channel();
            _ = sender.send(Ok(HtlcNews::Subscribed));
            registry.htlcs.retain(|subscriber| !subscriber.is_closed());
            registry.htlcs.push(sender);
            receiver
        })
    }

    /// A payment as it is, then each change up to its end.
    pub fn watch_payment(&self, id: u64) -> Result<Subscription<Payment>, SimError> {
        self.locked(|registry, _| {
            let (sender, receiver) = unbounded_channel();
            let current = registry.node.payment(id).cloned().ok_or(SimError::NoPayment(id))?;
            let ended = current.status().is_final();
            subscribe(&mut registry.payments, id, sender, Some(current), ended);
            Ok(receiver)
        })?
    }

    /// Pays an invoice as a customer's wallet.
    pub fn pay(&self, payment_request: &str, options: &PayOptions) -> Result<u64, SimError> {
        let request = self.signer.decode(payment_request)?;
        let bad = |text: &str| SimError::BadOrder(text.to_owned());
        let amount_msat = options.amount_msat.or(request.amount_msat);
        let amount_msat = amount_msat.ok_or_else(|| bad("the invoice has no amount: give one"))?;
        let parts = options.parts.max(1);
        if parts > MAX_PARTS || amount_msat < u64::from(parts) || amount_msat > MAX_MSAT {
            return Err(bad(
                "at most 100 parts, each of at least 1 msat, all below 21 million bitcoin",
            ));
        }
        if options.missing_parts >= parts {
            return Err(bad("at least one part must arrive"));
        }
        let order = PayOrder {
            hash: request.hash,
            payment_addr: request.payment_addr,
            amount_msat,
            parts,
            missing_parts: options.missing_parts,
            final_cltv_delta: options.final_cltv_delta.unwrap_or(request.final_cltv_delta),
            due_at_unix_ms: self.clock.now().plus(options.after),
        };
        self.with(|node, _| node.pay(order))
    }

    /// A payment as the customer sees it.
    pub fn payment(&self, id: u64) -> Result<Payment, SimError> {
        self.with(|node, _| node.payment(id).cloned())?
            .ok_or(SimError::NoPayment(id))
    }

    /// Waits until a payment has succeeded or failed.
    pub async fn ended_payment(&self, id: u64) -> Result<Payment, SimError> {
        let mut updates = self.watch_payment(id)?;
        while let Some(update) = updates.recv().await {
            match update {
                Ok(payment) if payment.status().is_final() => return Ok(payment),
                Ok(_) => {}
                Err(_) => break,
            }
        }
        Err(SimError::Closed)
    }

    /// The current time.
    pub fn now(&self) -> UnixMs {
        self.clock.now()
    }

    /// Mines blocks, one after the other; returns the new height.
    pub fn mine(&self, blocks: u32) -> Result<u32, SimError> {
        if blocks > MAX_BLOCKS_AT_ONCE {
            return Err(SimError::BadOrder(format!(
                "at most {MAX_BLOCKS_AT_ONCE} blocks at once"
            )));
        }
        self.locked(|registry, now| {
            for _ in 0..blocks {
                registry.node.mine(now);
                let height = registry.node.height();
                registry.blocks.retain(|subscriber| subscriber.send(Ok(height)).is_ok());
            }
            registry.node.height()
        })
    }

    /// Everything that happened.
    pub fn ledger(&self) -> Result<Ledger, SimError> {
        self.with(|node, _| Ledger {
            height: node.height(),
            money: node
                .payments()
                .fold(Money::default(), |sum, payment| sum.plus(payment.money())),
            invoices: node.invoices().cloned().collect(),
            payments: node.payments().cloned().collect(),
        })
    }

    /// The node enters a state of its life; the watchers of time and height run in SERVER_ACTIVE only.
    /// With `epoch`, only if the node has not gone down since.
    pub fn enter_state(&self, state: WalletState, epoch: Option<u64>) {
        let mut registry = self.lock();
        if epoch.is_some_and(|epoch| epoch != self.faults.epoch()) {
            return;
        }
        registry.node.set_watching(state == WalletState::ServerActive);
        self.state.send_replace(state);
        drop(registry);
        if let Err(err) = self.tick() {
            tracing::warn!(%err, "simulated LND");
        }
    }

    /// Ends every stream with `error`, or as LND's shutdown does: those of invoices with OK, those of blocks with an
    /// error. The customers' wallets are not the node's streams.
    pub fn drop_streams(&self, error: Option<&Status>) {
        let mut registry = self.lock();
        let invoices = std::mem::take(&mut registry.invoices);
        let blocks = std::mem::take(&mut registry.blocks);
        let htlcs = std::mem::take(&mut registry.htlcs);
        drop(registry);
        for subscriber in blocks {
            let shutdown = || Status::unknown("chain notifier shutting down");
            _ = subscriber.send(Err(error.cloned().unwrap_or_else(shutdown)));
        }
        let Some(error) = error else { return };
        for subscriber in invoices.into_values().flatten() {
            _ = subscriber.send(Err(error.clone()));
        }
        for subscriber in htlcs {
            _ = subscriber.send(Err(error.clone()));
        }
    }

    /// As if the process had been killed: no more answers, no connections; the directory is free for another.
    pub fn close(&self) {
        let mut registry = self.lock();
        registry.log = None;
        registry.payments.clear();
        drop(registry);
        // In this order: a killed process says nothing to its streams.
        self.connections.cut(None, true);
        self.drop_streams(None);
        self.faults.new_epoch();
    }
}

impl Registry {
    /// Writes what changed, then tells subscribers.
    fn commit(&mut self) -> Result<(), SimError> {
        let finals = self.node.take_finals();
        let (entries, announced) = self.node.take_changes();
        if entries.is_empty() {
            return Ok(());
        }
        let Some(log) = self.log.as_mut() else {
            return Err(SimError::Closed);
        };
        if let Err(err) = log.append(&entries) {
            tracing::error!(%err, "simulated LND: closed");
            self.log = None;
            return Err(err.into());
        }
        for record in announced {
            let ended = record.state.is_final();
            publish(&mut self.invoices, record.hash, &record, ended);
        }
        for entry in entries {
            if let Entry::Payment(payment) = entry {
                let ended = payment.status().is_final();
                publish(&mut self.payments, payment.id, &payment, ended);
            }
        }
        let news = finals.into_iter().flat_map(|(index, end)| {
            let handed = (end.settled && end.offchain).then_some(HtlcNews::Settle(index));
            handed.into_iter().chain([HtlcNews::Final(index, end)])
        });
        for news in news {
            self.htlcs.retain(|subscriber| subscriber.send(Ok(news)).is_ok());
        }
        Ok(())
    }
}

fn subscribe<K: Eq + Hash, T>(
    streams: &mut HashMap<K, Vec<Subscriber<T>>>,
    key: K,
    sender: Subscriber<T>,
    current: Option<T>,
    ended: bool,
) {
    if let Some(current) = current {
        _ = sender.send(Ok(current));
    }
    if !ended {
        let subscribers = streams.entry(key).or_default();
        subscribers.retain(|subscriber| !subscriber.is_closed());
        subscribers.push(sender);
    }
}

fn publish<K: Eq + Hash, T: Clone>(streams: &mut HashMap<K, Vec<Subscriber<T>>>, key: K, value: &T, ended: bool) {
    let Some(subscribers) = streams.get_mut(&key) else {
        return;
    };
    subscribers.retain(|subscriber| subscriber.send(Ok(value.clone())).is_ok());
    if ended || subscribers.is_empty() {
        streams.remove(&key);
    }
}
