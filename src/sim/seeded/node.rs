//! The daemon's connection to the simulated node: [`Lightning`] on the rules of `sim::lnd::node`, with no bytes between.
//!
//! Faults: [`Kind::LndLate`]: a request or an answer takes up to half a minute, which is longer than the daemon waits, so that it
//! takes effect when nobody waits for it any more, also in the daemon's next life. [`Kind::LndLost`]: a request or an answer is
//! lost, at once or without a sign. What must stay true: an order that reached the node takes effect there whatever becomes of
//! the caller; errors are those of LND, told apart by the real table (`lnd/classify.rs`). Source: fact sheet on LND, section 3.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};
use tonic::{Code, Status};

use super::gate::Gate;
use super::plan::Kind;
use super::scene::{NodeSide, Scene};
use super::stream::{CHANNEL, snapshot};
use crate::ids::{PaymentHash, Preimage};
use crate::lnd::{
    Commitment, FundsSeen, HoldInvoiceRequest, HtlcKey, InvoiceSnapshot, Lightning, LnError, LnErrorKind, NodeInfo,
    NodeState, Updates, classify,
};
use crate::sim::lnd::node::record::{HtlcState, InvoiceState};
use crate::sim::lnd::node::{AddHold, Refusal};
use crate::time::UnixMs;

/// As `lnd.deadline` in the plan's configuration.
const DEADLINE: Duration = Duration::from_secs(5);
/// How often the daemon looks at the node, as the real client has it.
const PACE: Duration = Duration::from_secs(10);

/// For so long a call that is late or lost may be in the way.
const WORST: Duration = Duration::from_secs(30);

/// One life's connection.
pub struct Connection {
    scene: Arc<Scene>,
    gate: Gate,
}

/// What becomes of a call on its way.
struct Fate {
    there: Duration,
    back: Duration,
    request_lost: bool,
    answer_lost: bool,
}

fn error(call: &'static str, code: Code, message: &str) -> LnError {
    LnError {
        call,
        kind: classify(code, message),
        message: message.to_owned(),
    }
}

fn refused(call: &'static str, refusal: Refusal) -> LnError {
    let status = Status::from(refusal);
    error(call, status.code(), status.message())
}

/// What the node says to `call` in its present state, if it does not take it.
fn not_now(call: &'static str, side: &NodeSide) -> Option<LnError> {
    let text = match side.state {
        _ if side.away => return Some(error(call, Code::Unavailable, "tcp connect error: connection refused")),
        NodeState::RpcActive | NodeState::ServerActive => return None,
        NodeState::NotStarted => "waiting to start, RPC services not available",
        NodeState::Locked => "wallet locked, unlock it to enable full RPC access",
        NodeState::Unlocked => "the RPC server is in the process of starting up, but not yet ready to accept calls",
    };
    Some(error(call, Code::Unknown, text))
}

impl Connection {
    /// For the life behind `gate`.
    #[must_use]
    pub fn new(scene: Arc<Scene>, gate: Gate) -> Self {
        Self { scene, gate }
    }

    fn fate(&self) -> Fate {
        let scene = &self.scene;
        let way = || Duration::from_millis(scene.draw("way", |chance| chance.within(0, 8)));
        let mut fate = Fate {
            there: way(),
            back: way(),
            request_lost: false,
            answer_lost: false,
        };
        let share = scene.plan.lnd_per_mille;
        let (late, lost) = (scene.strikes(Kind::LndLate, share), scene.strikes(Kind::LndLost, share));
        if late || lost {
            scene.troubled_at_lnd(scene.now().plus(WORST));
        }
        if late {
            let late = scene.draw("late", |chance| {
                chance.time(Duration::from_millis(200), Duration::from_secs(30))
            });
            match scene.draw("late", |chance| chance.per_mille(500)) {
                true => fate.there = late,
                false => fate.back = late,
            }
        }
        if lost {
            match scene.draw("lost", |chance| chance.per_mille(500)) {
                true => fate.request_lost = true,
                false => fate.answer_lost = true,
            }
        }
        fate
    }

    /// One call: on its way, at the node, and back.
    async fn call<T: Send + 'static>(
        &self,
        call: &'static str,
        effect: impl FnOnce(&Scene, &mut NodeSide, UnixMs) -> Result<T, LnError> + Send + 'static,
    ) -> Result<T, LnError> {
        self.gate.pass(call).await;
        let fate = self.fate();
        // Whether the loss shows at once or only by the silence.
        let seen = self.scene.draw("lost", |chance| chance.per_mille(500));
        let (answer, answered) = oneshot::channel();
        let scene = Arc::clone(&self.scene);
        let travels = async move {
            sleep(fate.there).await;
            if fate.request_lost {
                return hold_back(answer, seen).await;
            }
            let told = scene.node(|side, now| match not_now(call, side) {
                Some(error) => Err(error),
                None => effect(&scene, side, now),
            });
            scene.step("call", || format!("{call}: {}", word(&told)));
            sleep(fate.back).await;
            if fate.answer_lost {
                return hold_back(answer, seen).await;
            }
            // Nobody may wait any more.
            _ = answer.send(told);
        };
        // It goes on when the daemon dies.
        tokio::spawn(travels);
        let answer = timeout(DEADLINE, answered).await;
        self.gate.pass(call).await;
        match answer {
            Ok(Ok(told)) => told,
            Ok(Err(_)) => Err(error(call, Code::Unavailable, "h2 protocol error: connection reset")),
            Err(_) => Err(error(call, Code::DeadlineExceeded, "Timeout expired")),
        }
    }
}

fn word<T>(told: &Result<T, LnError>) -> String {
    match told {
        Ok(_) => "ok".to_owned(),
        Err(error) => error.message.clone(),
    }
}

/// Keeps an answer that is lost: dropped, it shows that the connection is gone.
async fn hold_back<T>(answer: oneshot::Sender<T>, seen: bool) {
    if !seen {
        sleep(DEADLINE * 2).await;
    }
    drop(answer);
}

#[async_trait]
impl Lightning for Connection {
    async fn state(&self) -> Result<NodeState, LnError> {
        self.gate.pass("GetState").await;
        self.scene.look(|side| match side.away {
            true => Err(error(
                "GetState",
                Code::Unavailable,
                "tcp connect error: connection refused",
            )),
            false => Ok(side.state),
        })
    }

    async fn info(&self) -> Result<NodeInfo, LnError> {
        let info = |_: &Scene, side: &mut NodeSide, _| {
            Ok(NodeInfo {
                pubkey: "02".to_owned() + &"ab".repeat(32),
                alias: "seeded".to_owned(),
                version: "0.21.2-beta".to_owned(),
                network: "regtest".to_owned(),
                block_height: side.told,
                synced_to_chain: side.unsynced.is_none(),
                stores_resolutions: side.node.stores_resolutions(),
                hold_expiry_delta: None,
                no_new: None,
            })
        };
        self.call("GetInfo", info).await
    }

    async fn add_hold_invoice(&self, request: &HoldInvoiceRequest) -> Result<String, LnError> {
        const CALL: &str = "AddHoldInvoice";
        let hash = request.hash;
        let add = AddHold {
            hash: hash.0.to_vec(),
            memo: request.memo.clone(),
            value_msat: i64::try_from(request.amount.0).unwrap_or(i64::MAX),
            expiry: i64::try_from(request.expiry.as_secs()).unwrap_or(i64::MAX),
            cltv_expiry: u64::from(request.cltv_expiry),
            ..AddHold::default()
        };
        let effect = move |scene: &Scene, side: &mut NodeSide, now| {
            scene.books(|books| books.adds(&hash));
            let secret = crate::ids::Preimage::from_bytes(hash.0).hash().0;
            let added = side
                .node
                .add_hold(&add, secret, now, |terms| Ok(format!("lnseeded{}", terms.hash)));
            let added = added.map_err(|refusal| refused(CALL, refusal))?;
            match side.state {
                NodeState::ServerActive => Ok(added.payment_request),
                // The row is there; the call blocks until LND has started.
                _ => Err(error(CALL, Code::DeadlineExceeded, "Timeout expired")),
            }
        };
        self.call(CALL, effect).await
    }

    async fn settle(&self, preimage: &Preimage) -> Result<(), LnError> {
        const CALL: &str = "SettleInvoice";
        let preimage = preimage.clone();
        let effect = move |scene: &Scene, side: &mut NodeSide, now| {
            let hash = preimage.hash();
            if is_held(side, &hash) {
                scene.books(|books| books.settles(&hash));
            }
            let settled = side.node.settle(preimage.expose().as_slice(), now);
            settled.map_err(|refusal| refused(CALL, refusal))
        };
        done_if(LnErrorKind::AlreadySettled, self.call(CALL, effect).await)
    }

    async fn cancel(&self, hash: &PaymentHash) -> Result<(), LnError> {
        const CALL: &str = "CancelInvoice";
        let hash = *hash;
        let effect = move |scene: &Scene, side: &mut NodeSide, now| {
            if is_held(side, &hash) {
                scene.books(|books| books.cancels(&hash));
            }
            let canceled = side.node.cancel(&hash.0, now);
            canceled.map_err(|refusal| refused(CALL, refusal))
        };
        done_if(LnErrorKind::AlreadyCanceled, self.call(CALL, effect).await)
    }

    async fn lookup(&self, hash: &PaymentHash) -> Result<Option<InvoiceSnapshot>, LnError> {
        const CALL: &str = "LookupInvoice";
        let hash = *hash;
        let effect = move |scene: &Scene, side: &mut NodeSide, now| {
            scene.books(|books| {
                books.read.insert(hash, now);
                Ok(())
            });
            let found = side.node.lookup(&hash.0);
            found.map(snapshot).map_err(|refusal| refused(CALL, refusal))
        };
        match self.call(CALL, effect).await {
            Ok(found) => Ok(Some(found)),
            Err(error) if error.kind == LnErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn commit(&self, hash: &PaymentHash) -> Result<Commitment, LnError> {
        let held = self.lookup(hash).await?;
        Commitment::of(held, &self.info().await?)
    }

    async fn rights(&self) -> Result<(), LnError> {
        Ok(())
    }

    async fn follows(&self) -> Result<(), LnError> {
        self.call("LookupHtlcResolution", |_, _, _| Ok(())).await
    }

    async fn funds(&self, hash: &PaymentHash) -> Result<FundsSeen, LnError> {
        const CALL: &str = "LookupHtlcResolution";
        let hash = *hash;
        let effect = move |_: &Scene, side: &mut NodeSide, _| {
            let record = side.node.lookup(&hash.0).map_err(|refusal| refused(CALL, refusal))?;
            if record.state != InvoiceState::Settled {
                return Err(error(CALL, Code::Unknown, "state: it is not settled"));
            }
            let settled = record.htlcs.iter().filter(|htlc| htlc.state == HtlcState::Settled);
            let indexes: Vec<u64> = settled.map(|htlc| htlc.htlc_index).collect();
            let (mut waits_for, mut lost) = (Vec::new(), false);
            for htlc_index in indexes {
                let resolution = side.node.resolution(htlc_index);
                match resolution.map_err(|refusal| refused(CALL, refusal))? {
                    Some(resolution) => lost |= !resolution.settled,
                    None => waits_for.push(HtlcKey {
                        chan_id: CHANNEL,
                        htlc_index,
                    }),
                }
            }
            Ok(match waits_for.is_empty() {
                _ if lost => FundsSeen::Lost,
                true => FundsSeen::Final,
                false => FundsSeen::Pending(waits_for),
            })
        };
        self.call(CALL, effect).await
    }

    async fn finals(&self) -> Result<Updates<HtlcKey>, LnError> {
        self.call("SubscribeHtlcEvents", |_, side, _| Ok(side.streams.finals()))
            .await
    }

    fn pace(&self) -> Duration {
        PACE
    }

    async fn watch(&self, hash: &PaymentHash) -> Result<Updates<InvoiceSnapshot>, LnError> {
        let hash = *hash;
        let effect = move |scene: &Scene, side: &mut NodeSide, _| {
            let now = side.node.invoice(&hash).cloned();
            Ok(side.streams.invoice(scene, hash, now.as_ref()))
        };
        self.call("SubscribeSingleInvoice", effect).await
    }

    async fn blocks(&self) -> Result<Updates<u32>, LnError> {
        const CALL: &str = "RegisterBlockEpochNtfn";
        let effect = |scene: &Scene, side: &mut NodeSide, _| match side.state {
            NodeState::ServerActive => {
                let height = side.told;
                Ok(side.streams.blocks(scene, height))
            }
            _ => Err(error(
                CALL,
                Code::Unavailable,
                "chain notifier RPC is still in the process of starting",
            )),
        };
        self.call(CALL, effect).await
    }
}

fn is_held(side: &NodeSide, hash: &PaymentHash) -> bool {
    side.node
        .invoice(hash)
        .is_some_and(|record| record.state == InvoiceState::Accepted)
}

fn done_if(kind: LnErrorKind, result: Result<(), LnError>) -> Result<(), LnError> {
    match result {
        Err(error) if error.kind == kind => Ok(()),
        other => other,
    }
}
