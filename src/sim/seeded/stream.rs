//! The streams of the simulated node: invoices, blocks, HTLCs that end.
//!
//! Faults ([`Kind::Streams`]): a stream ends without a word, ends with an error, goes silent and breaks half a minute later (a
//! connection that is gone without a sign, until keep-alive notices), tells a thing twice, or tells it late (the order within one
//! stream stays, as in HTTP/2). What must stay true: a subscriber gets the present state first, and then every change, unless a
//! fault is drawn.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::stream::unfold;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::{Instant, sleep_until};

use super::plan::Kind;
use super::scene::Scene;
use crate::ids::PaymentHash;
use crate::lnd::{HtlcKey, InvoiceSnapshot, InvoiceState, LnError, LnErrorKind, Updates};
use crate::money::Msat;
use crate::sim::lnd::node::Resolution;
use crate::sim::lnd::node::record::{HtlcState, InvoiceRecord, InvoiceState as AtNode};

/// The node's only channel.
pub const CHANNEL: u64 = 77;
/// After this, keep-alive finds that a silent connection is dead.
const SILENCE: Duration = Duration::from_secs(30);

type Item<T> = (Instant, Result<T, LnError>);
type Subscriber<T> = UnboundedSender<Item<T>>;

/// Who listens to the node.
#[derive(Default)]
pub struct Streams {
    invoices: BTreeMap<PaymentHash, Vec<Subscriber<InvoiceSnapshot>>>,
    blocks: Vec<Subscriber<u32>>,
    finals: Vec<Subscriber<HtlcKey>>,
}

/// What a stream's error says.
fn broke(call: &'static str) -> LnError {
    LnError {
        call,
        kind: LnErrorKind::Unreachable,
        message: "h2 protocol error: error reading a body from connection".to_owned(),
    }
}

/// An invoice as the client tells it.
#[must_use]
pub fn snapshot(record: &InvoiceRecord) -> InvoiceSnapshot {
    let held = record.htlcs.iter().filter(|htlc| htlc.state == HtlcState::Accepted);
    let held: u64 = held.map(|htlc| htlc.amount_msat).sum();
    let (state, paid) = match record.state {
        AtNode::Open => (InvoiceState::Open, held),
        AtNode::Accepted => (InvoiceState::Accepted, held),
        AtNode::Settled => (InvoiceState::Settled, record.paid_msat),
        AtNode::Canceled => (InvoiceState::Canceled, record.paid_msat),
    };
    InvoiceSnapshot {
        hash: record.hash,
        state,
        amount: Msat(record.value_msat),
        paid: Msat(paid),
        payment_request: record.payment_request.clone(),
        lowest_expiry_height: record.lowest_expiry_height(),
    }
}

impl Streams {
    /// Follows one invoice; `now` is its state, if the node has it.
    pub fn invoice(
        &mut self,
        scene: &Scene,
        hash: PaymentHash,
        now: Option<&InvoiceRecord>,
    ) -> Updates<InvoiceSnapshot> {
        let (subscriber, items) = unbounded_channel();
        let heard = now.is_none_or(|record| tell(scene, &subscriber, &snapshot(record), "invoices"));
        if heard && now.is_none_or(|record| !record.state.is_final()) {
            self.invoices.entry(hash).or_default().push(subscriber);
        }
        updates(items)
    }

    /// Follows the chain from `height` on.
    pub fn blocks(&mut self, scene: &Scene, height: u32) -> Updates<u32> {
        let (subscriber, items) = unbounded_channel();
        if tell(scene, &subscriber, &height, "blocks") {
            self.blocks.push(subscriber);
        }
        updates(items)
    }

    /// Follows the ends of HTLCs.
    pub fn finals(&mut self) -> Updates<HtlcKey> {
        let (subscriber, items) = unbounded_channel();
        self.finals.push(subscriber);
        updates(items)
    }

    /// Tells what changed.
    pub fn publish(&mut self, scene: &Scene, announced: &[InvoiceRecord], finals: &[(u64, Resolution)]) {
        for record in announced {
            scene.step("node", || format!("{} is {:?}", record.memo, record.state));
            if let Some(subscribers) = self.invoices.get_mut(&record.hash) {
                let news = snapshot(record);
                subscribers.retain(|subscriber| tell(scene, subscriber, &news, "invoices"));
                if record.state.is_final() || subscribers.is_empty() {
                    self.invoices.remove(&record.hash);
                }
            }
        }
        for (htlc_index, _) in finals {
            let key = HtlcKey {
                chan_id: CHANNEL,
                htlc_index: *htlc_index,
            };
            self.finals.retain(|subscriber| tell(scene, subscriber, &key, "finals"));
        }
    }

    /// Tells of a new height.
    pub fn mined(&mut self, scene: &Scene, height: u32) {
        self.blocks
            .retain(|subscriber| tell(scene, subscriber, &height, "blocks"));
    }

    /// Every connection is cut.
    pub fn cut(&mut self) {
        let error = || (Instant::now(), Err(broke("stream")));
        for subscriber in self.invoices.values().flatten() {
            _ = subscriber.send(error());
        }
        for subscriber in &self.blocks {
            _ = subscriber.send((Instant::now(), Err(broke("stream"))));
        }
        for subscriber in &self.finals {
            _ = subscriber.send((Instant::now(), Err(broke("stream"))));
        }
        *self = Self::default();
    }
}

/// Tells one thing; false when the stream is over by it.
fn tell<T: Clone>(scene: &Scene, subscriber: &Subscriber<T>, news: &T, call: &'static str) -> bool {
    let share = scene.plan.lnd_per_mille;
    let usual = Duration::from_millis(scene.draw("way", |chance| chance.within(0, 5)));
    let now = Instant::now();
    if !scene.strikes(Kind::Streams, share) {
        return subscriber.send((now + usual, Ok(news.clone()))).is_ok();
    }
    scene.troubled_at_lnd(scene.now().plus(SILENCE));
    match scene.draw("stream", |chance| chance.within(0, 4)) {
        0 => false,
        1 => {
            _ = subscriber.send((now + usual, Err(broke(call))));
            false
        }
        2 => {
            _ = subscriber.send((now + SILENCE, Err(broke(call))));
            false
        }
        3 => {
            _ = subscriber.send((now + usual, Ok(news.clone())));
            subscriber.send((now + usual, Ok(news.clone()))).is_ok()
        }
        _ => {
            let late = Duration::from_millis(scene.draw("stream", |chance| chance.within(100, 20_000)));
            subscriber.send((now + late, Ok(news.clone()))).is_ok()
        }
    }
}

/// The subscriber's end. As the client's, it is over after an error.
fn updates<T: Send + 'static>(items: UnboundedReceiver<Item<T>>) -> Updates<T> {
    Box::pin(unfold(Some(items), |items| async {
        let mut items = items?;
        let (at, item) = items.recv().await?;
        sleep_until(at).await;
        let items = item.is_ok().then_some(items);
        Some((item, items))
    }))
}
