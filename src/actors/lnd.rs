//! The LND actor: the only one that talks to the node, and the one that knows whether it can be talked to.
//!
//! Called by the invoice actors. It follows the node's state, identity, sync and height and publishes them as
//! [`LndStatus`]. What must stay true: no call goes to a node that is not the one whose invoices are in the
//! journal ("not found" at another node would read as "canceled"); no invoice is added while the node is out of
//! sync or not fully started.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use actix::{Actor, ActorContext, ActorFutureExt, AsyncContext, Context, Handler, Message, ResponseFuture, WrapFuture};
use futures_util::StreamExt;

use super::child::{DownGuard, can_panic};
use super::drive::write;
use super::funds;
use super::journal::Load;
pub use super::lnd_status::{LndStatus, NodeName};
use super::shared::Shared;
use crate::ids::{PaymentHash, Preimage};
use crate::lnd::backoff::Backoff;
use crate::lnd::{
    Commitment, HoldInvoiceRequest, InvoiceSnapshot, Lightning, LnError, LnErrorKind, NodeInfo, NodeState, Updates,
};
use crate::metrics::LndMethod;
use crate::record::Body;

/// The LND actor.
pub struct Lnd {
    node: Arc<dyn Lightning>,
    shared: Arc<Shared>,
    _guard: DownGuard,
}

impl Lnd {
    /// One life of it.
    #[must_use]
    pub fn new(node: Arc<dyn Lightning>, shared: Arc<Shared>, guard: DownGuard) -> Self {
        Self {
            node,
            shared,
            _guard: guard,
        }
    }
}

/// A call that was not made.
#[must_use]
pub fn unreachable(call: &'static str, why: impl Into<String>) -> LnError {
    LnError {
        call,
        kind: LnErrorKind::Unreachable,
        message: why.into(),
    }
}

pub(super) async fn measured<T>(
    shared: &Shared,
    method: LndMethod,
    call: impl Future<Output = Result<T, LnError>>,
) -> Result<T, LnError> {
    let begun = Instant::now();
    let answer = call.await;
    let outcome = answer.as_ref().map(drop).map_err(|error| error.kind);
    shared.metrics.lnd_request(method, outcome, begun.elapsed());
    answer
}

impl Actor for Lnd {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(super::MAILBOX);
        let monitor = monitor(Arc::clone(&self.node), Arc::clone(&self.shared));
        ctx.spawn(monitor.into_actor(self).map(|(), _, ctx| ctx.stop()));
    }
}

can_panic!(Lnd);

/// A call to the node, once it can be made.
#[derive(Message)]
#[rtype(result = "Result<T, LnError>")]
pub struct Call<T: Send + 'static> {
    /// Which, for the figures and for what must hold before it.
    pub method: LndMethod,
    /// The call itself.
    pub call: NodeCall<T>,
}

/// What to do with the node.
pub type NodeCall<T> = Box<dyn FnOnce(Arc<dyn Lightning>) -> Answer<T> + Send>;
/// The node's answer on its way.
pub type Answer<T> = Pin<Box<dyn Future<Output = Result<T, LnError>> + Send>>;

impl<T: Send + 'static> Handler<Call<T>> for Lnd {
    type Result = ResponseFuture<Result<T, LnError>>;

    fn handle(&mut self, Call { method, call }: Call<T>, _: &mut Self::Context) -> Self::Result {
        let refusal = self.shared.status.borrow().refusal(method);
        if let Some(why) = refusal {
            return Box::pin(async move { Err(unreachable(method.as_str(), why)) });
        }
        let (shared, answer) = (Arc::clone(&self.shared), call(Arc::clone(&self.node)));
        Box::pin(async move { measured(&shared, method, answer).await })
    }
}

impl Shared {
    /// Asks the LND actor to make one call.
    ///
    /// # Errors
    /// The node's, or [`LnErrorKind::Unreachable`] when the call was not made or its actor died over it.
    pub async fn ask_lnd<T: Send + 'static>(
        &self,
        method: LndMethod,
        call: impl FnOnce(Arc<dyn Lightning>) -> Answer<T> + Send + 'static,
    ) -> Result<T, LnError> {
        let Some(lnd) = self.lnd.get() else {
            return Err(unreachable(method.as_str(), "the LND actor is being restarted"));
        };
        let call = Box::new(call);
        match lnd.send(Call { method, call }).await {
            Ok(answer) => answer,
            Err(_) => Err(unreachable(method.as_str(), "the LND actor died over the call")),
        }
    }

    /// Nothing can be asked of LND from now on: why.
    pub(super) fn lnd_is_down(&self, why: &str) {
        let news = self.status.send_if_modified(|status| {
            let news = status.down.as_deref() != Some(why);
            status.down = Some(why.to_owned());
            news
        });
        if news {
            tracing::warn!(%why, "LND can not be used");
        }
        self.metrics.set_lnd_connected(false);
    }

    /// Returns once invoices can be looked up.
    pub async fn lnd_up(&self) {
        self.status.subscribe().wait_for(LndStatus::is_up).await;
    }

    /// Returns once invoices can be added.
    pub async fn lnd_can_add(&self) {
        self.status
            .subscribe()
            .wait_for(|status| status.can_add().is_ok())
            .await;
    }
}

/// Connects, follows, and connects again, for ever.
async fn monitor(node: Arc<dyn Lightning>, shared: Arc<Shared>) {
    let mut attempt = 0_u32;
    loop {
        let why = match connect(&*node, &shared).await {
            Ok(blocks) => {
                attempt = 0;
                tokio::select! {
                    biased;
                    why = follow(&*node, &shared, blocks) => why,
                    never = funds::relay(&*node, &shared) => match never {},
                }
            }
            Err(why) => why,
        };
        shared.lnd_is_down(&why);
        let random = shared.entropy.jitter();
        tokio::time::sleep(Backoff::NODE.delay(attempt, random)).await;
        attempt = attempt.saturating_add(1);
    }
}

/// Finds out that it is the right node and that it takes calls.
async fn connect(node: &dyn Lightning, shared: &Shared) -> Result<Option<Updates<u32>>, String> {
    let state = measured(shared, LndMethod::State, node.state())
        .await
        .map_err(|e| e.to_string())?;
    if state < NodeState::RpcActive {
        return Err(match state {
            NodeState::Locked => "LND's wallet is locked: unlock it".into(),
            _ => "LND is still starting".into(),
        });
    }
    let info = measured(shared, LndMethod::Info, node.info())
        .await
        .map_err(|e| e.to_string())?;
    recognise(shared, &info).await?;
    node.rights().await.map_err(|e| e.to_string())?;
    let blocks = match state {
        NodeState::ServerActive => Some(blocks(node, shared).await?),
        // LND refuses the stream of blocks while it starts, and takes settlements already: cash that is out must not wait.
        _ => None,
    };
    let no_follow = funds::obstacle(node, shared, &info, None).await;
    shared.status.send_modify(|status| {
        *status = LndStatus {
            epoch: status.epoch.saturating_add(1),
            down: None,
            height: info.block_height,
            active: state == NodeState::ServerActive,
            synced: info.synced_to_chain,
            node: Some(NodeName {
                pubkey: info.pubkey.clone(),
                network: info.network.clone(),
            }),
            hold_expiry_delta: info.hold_expiry_delta,
            no_new: no_new(&info, info.hold_expiry_delta, shared.terms.policy.hold_expiry_delta),
            no_follow: no_follow.clone(),
        };
    });
    funds::tell(shared, no_follow.as_deref());
    shared.metrics.set_lnd_connected(true);
    shared.metrics.set_lnd_synced(info.synced_to_chain);
    shared.metrics.set_lnd_block_height(info.block_height);
    tracing::info!(node = %info.alias, version = %info.version, network = %info.network, height = info.block_height, "LND is connected");
    Ok(blocks)
}

async fn blocks(node: &dyn Lightning, shared: &Shared) -> Result<Updates<u32>, String> {
    measured(shared, LndMethod::Blocks, node.blocks())
        .await
        .map_err(|e| e.to_string())
}

/// Why no invoice is to be added: the node's own reason, or that it would cancel holds before tellerd expects it to.
/// What is held goes on: it was promised; but a dispense is committed by the larger delta.
fn no_new(info: &NodeInfo, in_force: Option<u32>, configured: u32) -> Option<String> {
    let in_force = in_force.filter(|in_force| *in_force > configured);
    let too_early = in_force.map(|in_force| {
        format!(
            "LND cancels holds {in_force} blocks before they expire (invoices.holdexpirydelta), the configuration says \
             {configured}: set lnd.hold_expiry_delta = {in_force} and start tellerd again"
        )
    });
    info.no_new.clone().or(too_early)
}

/// The journal belongs to one node; the first one reached is it.
pub(super) async fn recognise(shared: &Shared, info: &NodeInfo) -> Result<(), String> {
    let journal = shared.journal.get().ok_or("the journal actor is being restarted")?;
    let known = journal.send(Load(Box::new(|folded, _| Ok(folded.node.clone())))).await;
    let known = known
        .map_err(|error| error.to_string())?
        .map_err(|error| error.to_string())?;
    match known {
        Some(known) if known == info.pubkey => Ok(()),
        Some(known) => Err(format!(
            "this LND is node {}, but the invoices in the journal are at node {known}: connect that one, or begin a new data directory",
            info.pubkey
        )),
        None => {
            let body = Body::Node {
                pubkey: info.pubkey.clone(),
            };
            write(shared.journal.clone(), body)
                .await
                .map_err(|error| error.to_string())
        }
    }
}

/// Follows blocks and state until something is wrong; returns what. Of a node that is still starting there are no blocks
/// yet: its height is then as old as the last look.
async fn follow(node: &dyn Lightning, shared: &Shared, mut heights: Option<Updates<u32>>) -> String {
    let mut probe = tokio::time::interval(node.pace());
    probe.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let height = async {
            match &mut heights {
                Some(heights) => heights.next().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // In this order, always: a simulation repeats it. Blocks are too rare to keep the probe from its turn.
            biased;
            block = height => match block {
                Some(Ok(height)) => {
                    shared.status.send_if_modified(|status| std::mem::replace(&mut status.height, height) != height);
                    shared.metrics.set_lnd_block_height(height);
                }
                Some(Err(error)) => return error.to_string(),
                None => return "LND ended the stream of blocks".into(),
            },
            _ = probe.tick() => {
                if let Err(why) = look(node, shared).await {
                    return why;
                }
                if heights.is_none() && shared.status.borrow().active {
                    match blocks(node, shared).await {
                        Ok(stream) => heights = Some(stream),
                        Err(why) => return why,
                    }
                }
            }
        }
    }
}

async fn look(node: &dyn Lightning, shared: &Shared) -> Result<(), String> {
    let state = measured(shared, LndMethod::State, node.state())
        .await
        .map_err(|e| e.to_string())?;
    let info = measured(shared, LndMethod::Info, node.info())
        .await
        .map_err(|e| e.to_string())?;
    recognise(shared, &info).await?;
    node.rights().await.map_err(|e| e.to_string())?;
    let before = shared.status.borrow().no_follow.clone();
    let no_follow = funds::obstacle(node, shared, &info, before.clone()).await;
    if no_follow != before {
        funds::tell(shared, no_follow.as_deref());
    }
    shared.status.send_if_modified(|status| {
        // A look at the settings that failed says nothing about them.
        let hold_expiry_delta = info.hold_expiry_delta.or(status.hold_expiry_delta);
        let now = LndStatus {
            active: state == NodeState::ServerActive,
            synced: info.synced_to_chain,
            hold_expiry_delta,
            no_new: no_new(&info, hold_expiry_delta, shared.terms.policy.hold_expiry_delta),
            no_follow: no_follow.clone(),
            height: status.height.max(info.block_height),
            ..status.clone()
        };
        let news = now != *status;
        *status = now;
        news
    });
    shared.metrics.set_lnd_synced(info.synced_to_chain);
    if state < NodeState::RpcActive {
        return Err("LND does not take calls any more".into());
    }
    Ok(())
}

/// An invoice as the node sees it.
pub(super) fn lookup(hash: PaymentHash) -> impl FnOnce(Arc<dyn Lightning>) -> Answer<Option<InvoiceSnapshot>> + Send {
    move |node| Box::pin(async move { node.lookup(&hash).await })
}

/// Adds an invoice.
pub(super) fn add(request: HoldInvoiceRequest) -> impl FnOnce(Arc<dyn Lightning>) -> Answer<String> + Send {
    move |node| Box::pin(async move { node.add_hold_invoice(&request).await })
}

/// Follows an invoice.
pub(super) fn watch(hash: PaymentHash) -> impl FnOnce(Arc<dyn Lightning>) -> Answer<Updates<InvoiceSnapshot>> + Send {
    move |node| Box::pin(async move { node.watch(&hash).await })
}

/// Settles an invoice.
pub(super) fn settle(preimage: Preimage) -> impl FnOnce(Arc<dyn Lightning>) -> Answer<()> + Send {
    move |node| Box::pin(async move { node.settle(&preimage).await })
}

/// Cancels an invoice.
pub(super) fn cancel(hash: PaymentHash) -> impl FnOnce(Arc<dyn Lightning>) -> Answer<()> + Send {
    move |node| Box::pin(async move { node.cancel(&hash).await })
}

/// Who the node is, read now.
pub(super) fn info() -> impl FnOnce(Arc<dyn Lightning>) -> Answer<NodeInfo> + Send {
    |node| Box::pin(async move { node.info().await })
}

/// Reads hold and height right before a dispense, and has the node keep the hold.
pub(super) fn commit(hash: PaymentHash) -> impl FnOnce(Arc<dyn Lightning>) -> Answer<Commitment> + Send {
    move |node| Box::pin(async move { node.commit(&hash).await })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_invoice_while_lnd_cancels_earlier_than_configured() {
        let node = |own: Option<&str>| NodeInfo {
            pubkey: String::new(),
            alias: String::new(),
            version: String::new(),
            network: String::new(),
            block_height: 0,
            synced_to_chain: true,
            stores_resolutions: true,
            hold_expiry_delta: None,
            no_new: own.map(str::to_owned),
        };
        for in_force in [None, Some(0), Some(12), Some(18)] {
            assert_eq!(no_new(&node(None), in_force, 18), None, "{in_force:?}");
        }
        let why = no_new(&node(None), Some(19), 18).expect("refused");
        for words in ["19 blocks", "says 18", "set lnd.hold_expiry_delta = 19"] {
            assert!(why.contains(words), "{why}");
        }
        assert_eq!(no_new(&node(Some("full")), Some(19), 18).as_deref(), Some("full"));
    }
}
