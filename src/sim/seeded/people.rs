//! Customers and the operator of a simulated history.
//!
//! They talk to the daemon through the fleet's door, as the HTTP edge does, and see their wallets and the inside of the machines.
//! Customers pay at once, late, too much, in parts, in too few parts, or not at all; they cancel, also after they have paid. What
//! must stay true: one customer at a machine at a time; the operator counts what physically happened and says that.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::chain;
use super::device::Stand;
use super::life::World;
use crate::actors::fleet::{AtmOrder, AtmStatus};
use crate::cashout::ledger::Cassette;
use crate::cashout::{CancelBy, CashOut, Phase, Resolution};
use crate::ids::CashOutId;
use crate::metrics::AtmState;
use crate::money::Minor;
use crate::sim::audit::{Facts, Visit, physical};
use crate::sim::fleet::setup::{CASSETTES, DENOMINATIONS, rate};
use crate::sim::lnd::Ledger;
use crate::sim::lnd::node::record::{Money, PayOrder};

const SECOND: Duration = Duration::from_secs(1);
/// What customers ask for, in minor units.
const AMOUNTS: [u64; 8] = [2_000, 4_000, 5_000, 6_000, 9_000, 12_000, 14_000, 20_000];
const NAME: &str = "seeded operator";
/// A machine that was still for so long has nothing more to move.
const QUIET_MS: u64 = 5_000;

/// What customers were promised.
pub type Visits = Arc<Mutex<Vec<Visit>>>;

/// All customers of one machine, one after the other.
pub async fn customers(world: Arc<World>, index: usize, visits: Visits) {
    let Some(stand) = world.stands.get(index) else { return };
    let scene = &world.scene;
    let mut left = scene.plan.customers;
    // A machine that serves nobody for a day is not worth waiting for.
    let closes = Instant::now() + SECOND * 86_400;
    while left > 0 && Instant::now() < closes {
        sleep(scene.draw("customers", |chance| chance.around(SECOND * 20))).await;
        stand.plan_fault(scene);
        if visit(&world, stand, &visits).await {
            left -= 1;
        }
    }
}

async fn visit(world: &World, stand: &Stand, visits: &Visits) -> bool {
    let scene = &world.scene;
    let amount = scene.draw("customers", |chance| chance.pick(&AMOUNTS).copied());
    let Some(amount) = amount.map(Minor) else { return false };
    let asked_at = scene.now();
    let promised = world.ask(async |fleet| fleet.start(&stand.atm, amount).await).await;
    let cashout = match promised {
        Some(Ok(cashout)) => cashout,
        Some(Err(error)) => {
            scene.step("customer", || format!("turned away from {}: {error}", stand.atm));
            return false;
        }
        None => return false,
    };
    scene.step("customer", || format!("{} for {amount} at {}", cashout.id, stand.atm));
    scene.count(|figures| figures.cashouts += 1);
    let shown = cashout.payment_request.is_some();
    visits.lock().unwrap_or_else(PoisonError::into_inner).push(Visit {
        atm: stand.atm.clone(),
        id: cashout.id,
        hash: cashout.quote.hash.to_string(),
        amount,
        asked_at,
        shown_at: shown.then(|| scene.now()),
    });
    if shown {
        act(world, &cashout).await;
    }
    stay(world, cashout.id).await;
    true
}

/// What the customer does with the invoice.
async fn act(world: &World, cashout: &CashOut) {
    let scene = &world.scene;
    let (manner, timeout) = (
        scene.draw("customers", |chance| chance.within(0, 99)),
        scene.plan.deadlines[0],
    );
    let wait = scene.draw("customers", |chance| chance.time(Duration::ZERO, timeout * 6 / 5));
    let price = cashout.quote.price.0;
    let pay = |amount_msat: u64, parts: u32, missing_parts: u32| {
        let paid = scene.node(|side, now| {
            let record = side.node.invoice(&cashout.quote.hash)?;
            let order = PayOrder {
                hash: record.hash,
                payment_addr: record.payment_addr.clone(),
                amount_msat,
                parts,
                missing_parts,
                final_cltv_delta: record.cltv_expiry + 3,
                due_at_unix_ms: now,
            };
            Some(side.node.pay(order))
        });
        scene.step("pays", || format!("{} {amount_msat} msat: {paid:?}", cashout.id));
        chain::hurry(scene);
    };
    let cancel = async || {
        let canceled = world.ask(async |fleet| fleet.cancel(cashout.id, CancelBy::Customer).await);
        let canceled = canceled.await.map(|canceled| canceled.is_ok());
        scene.step("cancels", || format!("{}: {canceled:?}", cashout.id));
    };
    match manner {
        0..45 => pay(price, 1, 0),
        45..65 => {
            sleep(wait).await;
            pay(price, 1, 0);
        }
        65..72 => pay(price.saturating_mul(3) / 2, 1, 0),
        72..79 => pay(price, 3, 0),
        79..84 => pay(price, 3, 1),
        84..88 => pay(price / 2, 1, 0),
        88..92 => {
            pay(price, 1, 0);
            sleep(wait / 40).await;
            cancel().await;
        }
        92..96 => {
            sleep(wait / 4).await;
            cancel().await;
        }
        _ => {}
    }
}

/// Stands before the machine until it is the next one's turn, or for so long as anyone would.
async fn stay(world: &World, id: CashOutId) {
    let leaves = Instant::now() + world.scene.plan.deadlines.iter().sum::<Duration>();
    while Instant::now() < leaves {
        sleep(SECOND * 2).await;
        match world.ask(async |fleet| fleet.cashout(id).await).await {
            Some(Ok(now)) if rests(&now) => return,
            _ => {}
        }
    }
}

/// Nothing happens any more without a human.
#[must_use]
pub fn rests(cashout: &CashOut) -> bool {
    cashout.has_ended() || matches!(cashout.phase, Phase::ClaimOwed | Phase::NeedsOperator { .. })
}

/// The node's ledger, for the audit and the operator.
#[must_use]
pub fn ledger(world: &World) -> Ledger {
    world.scene.look(|side| {
        let payments = side.node.payments();
        Ledger {
            height: side.node.height(),
            money: payments.fold(Money::default(), |sum, payment| sum.plus(payment.money())),
            invoices: side.node.invoices().cloned().collect(),
            payments: side.node.payments().cloned().collect(),
        }
    })
}

/// Looks after the machines: decides what nobody can tell, pays claims, fills, resumes.
pub async fn operator(world: Arc<World>) {
    let mut left = BTreeSet::new();
    loop {
        let wait = world
            .scene
            .draw("operator", |chance| chance.time(SECOND * 5, SECOND * 90));
        sleep(wait).await;
        for stand in &world.stands {
            let status = world.ask(async |fleet| fleet.atm(&stand.atm).await).await;
            if let Some(Ok(status)) = status {
                for cashout in &status.open {
                    look_at(&world, stand, cashout, &mut left).await;
                }
                care(&world, stand, &status).await;
            }
        }
    }
}

async fn look_at(world: &World, stand: &Stand, cashout: &CashOut, left: &mut BTreeSet<CashOutId>) {
    let resolution = match &cashout.phase {
        Phase::OutcomeUnknown { .. } => {
            let early = world.scene.draw("operator", |chance| chance.per_mille(600));
            if early || physical::is_moving(&stand.machine(), world.scene.now(), QUIET_MS) {
                return;
            }
            // What went to the reject tray no decision tells: the machine is counted afterwards.
            stand.uncounted.store(true, Ordering::SeqCst);
            // The machine has no file that could fail.
            _ = stand.inside.clear_jam();
            let Ok(rate) = rate() else { return };
            let facts = Facts::find(&[stand.machine()], &ledger(world), rate);
            let delivered = facts.by_hash(&cashout.quote.hash.to_string());
            Resolution::Delivered(delivered.map_or(Minor::ZERO, |fact| fact.delivered()))
        }
        Phase::ClaimOwed if !left.contains(&cashout.id) => {
            if world.scene.draw("operator", |chance| chance.per_mille(300)) {
                left.insert(cashout.id);
                return;
            }
            Resolution::ClaimPaid
        }
        _ => return,
    };
    let (id, told) = (cashout.id, format!("{resolution:?}"));
    let resolved = world.ask(async |fleet| fleet.resolve(id, NAME.to_owned(), resolution, String::new()).await);
    let resolved = resolved.await.map(|resolved| resolved.map(|now| now.phase.name()));
    world.scene.step("operator", || format!("{id} {told}: {resolved:?}"));
}

/// Fills and resumes a machine that is low or out of service.
async fn care(world: &World, stand: &Stand, status: &AtmStatus) {
    let low = CASSETTES.iter().any(|position| stand.inside.remaining(*position) < 10);
    let unknown = status
        .open
        .iter()
        .any(|c| matches!(c.phase, Phase::OutcomeUnknown { .. }));
    let serviced = matches!(status.state, AtmState::OutOfService | AtmState::Draining);
    if unknown || !(low || serviced || stand.uncounted.load(Ordering::SeqCst)) {
        return;
    }
    let order = async |order: AtmOrder| {
        let done = world.ask(async |fleet| fleet.order(&stand.atm, NAME.to_owned(), order).await);
        matches!(done.await, Some(Ok(_)))
    };
    if !serviced {
        order(AtmOrder::Drain).await;
        return;
    }
    if physical::is_moving(&stand.machine(), world.scene.now(), QUIET_MS) || !order(AtmOrder::Drain).await {
        return;
    }
    _ = stand.inside.clear_jam();
    for position in CASSETTES {
        let missing = world.scene.plan.notes.saturating_sub(stand.inside.remaining(position));
        _ = stand.inside.refill(position, missing);
    }
    let values = (1..).zip(DENOMINATIONS).filter(|(_, value)| *value > Minor::ZERO);
    let counted = values
        .map(|(position, denomination)| Cassette::loaded(position, denomination, stand.inside.remaining(position)));
    if order(AtmOrder::Load(counted.collect())).await {
        stand.uncounted.store(false, Ordering::SeqCst);
        order(AtmOrder::Resume).await;
    }
}
