//! Customers of one machine, one after the other.
//!
//! Run by the runner, one task for each machine. What must stay true: a customer knows what it was told over HTTP and
//! what its wallet says, nothing else; a daemon that is not there or refuses is an ordinary day.

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use tokio::time::{Instant, sleep};

use super::arrivals::Queue;
use super::client::{Api, ClientError};
use super::scenario::Behaviour;
use super::world::{Stand, World, choose, count};
use crate::api::CashOutView;
use crate::hardware::puloon::emulator::{Event, What};
use crate::sim::audit::Visit;
use crate::sim::lnd::PayOptions;
use crate::time::{Clock, SystemClock};

/// Before a customer tries a machine again that did not serve the one before.
const TURNED_AWAY: Duration = Duration::from_millis(600);
/// How often a customer looks at the screen.
const LOOK: Duration = Duration::from_millis(250);
/// The generator's name.
const CUSTOMERS: u64 = 1;

/// Serves customers at machine `index` until no more come.
pub async fn customers(world: Arc<World>, index: usize) {
    let Some(stand) = world.stands.get(index).cloned() else {
        return;
    };
    let mut random = world.random(CUSTOMERS, index);
    let mut planned_at = 0;
    let customers = &world.scenario.customers;
    let (mut queue, opened) = (Queue::new(&customers.arrivals, customers.pause), Instant::now());
    loop {
        let wait = queue.wait(&mut random, opened.elapsed());
        if !world.wait(wait).await {
            return;
        }
        plan_fault(&world, &stand, &mut random, &mut planned_at);
        if !visit(&world, &stand, &mut random).await && !world.wait(TURNED_AWAY).await {
            return;
        }
    }
}

/// Draws what befalls the next dispense, once for each dispense.
fn plan_fault(world: &World, stand: &Stand, random: &mut StdRng, planned_at: &mut u64) {
    let (draw, dice) = (choose(random, &world.scenario.faults, 100), random.random());
    let count = |events: &[Event]| events.iter().filter(|event| is_dispense(&event.what)).count() as u64;
    let dispenses = stand.inside.read(count);
    if dispenses + 1 == *planned_at {
        // The last one still waits for its dispense, which nobody paid for.
        return;
    }
    *planned_at = dispenses + 1;
    if let Some(kind) = draw {
        stand.inside.inject(kind.fault(dice, 3).next());
    }
}

fn is_dispense(what: &What) -> bool {
    matches!(what, What::DispenseStarted { .. })
}

/// One customer; `false` when the machine did not serve it.
async fn visit(world: &World, stand: &Stand, random: &mut StdRng) -> bool {
    let customers = &world.scenario.customers;
    let amounts = &customers.amounts;
    let amount = amounts.get(random.random_range(0..amounts.len().max(1))).copied();
    let sum = customers.shares.iter().map(|(_, share)| share).sum();
    let behaviour = choose(random, &customers.shares, sum).unwrap_or(Behaviour::PaysAtOnce);
    let mut manner = Manner::draw(random, world.scenario.daemon.payment_timeout);
    let Some(amount) = amount else { return false };
    let asked_at = SystemClock.now();
    let view = match stand.api.start(&stand.atm, amount).await {
        Ok(view) => view,
        Err(error) => {
            turned_away(world, &error);
            return false;
        }
    };
    count(&world.figures.started);
    world.remember(Visit {
        atm: stand.atm.clone(),
        id: view.id,
        hash: view.payment_hash.clone(),
        amount,
        asked_at,
        shown_at: view.payment_request.as_ref().map(|_| SystemClock.now()),
    });
    let Some(invoice) = view.payment_request.clone() else {
        return true;
    };
    act(world, &stand.api, behaviour, &mut manner, &view, &invoice).await;
    if behaviour == Behaviour::WalksAway {
        return true;
    }
    watch(world, &stand.api, &view).await;
    true
}

fn turned_away(world: &World, error: &ClientError) {
    match error {
        ClientError::Refused(problem) => {
            tracing::debug!(code = problem.code, "a customer was turned away: {}", problem.message);
            count(&world.figures.refused);
        }
        ClientError::Gone(_) => count(&world.figures.unanswered),
    }
}

/// The random part of a behaviour, drawn before anything is waited for.
struct Manner {
    hesitates: Duration,
    more_percent: u64,
    pays_before_canceling: bool,
    late: Duration,
}

impl Manner {
    fn draw(random: &mut StdRng, payment_timeout: Duration) -> Self {
        Self {
            hesitates: payment_timeout * random.random_range(10..=60_u32) / 100,
            more_percent: random.random_range(101..=150),
            pays_before_canceling: random.random(),
            late: payment_timeout + Duration::from_millis(random.random_range(200..=1500)),
        }
    }
}

/// What the customer does with the invoice.
async fn act(world: &World, api: &Api, behaviour: Behaviour, manner: &mut Manner, view: &CashOutView, invoice: &str) {
    let usual = PayOptions::default();
    let options = match behaviour {
        Behaviour::WalksAway => return,
        Behaviour::PaysAtOnce => usual,
        Behaviour::Hesitates => PayOptions {
            after: manner.hesitates,
            ..usual
        },
        Behaviour::PaysLate => PayOptions {
            after: manner.late,
            ..usual
        },
        Behaviour::Overpays => PayOptions {
            amount_msat: Some(view.price_msat.0.saturating_mul(manner.more_percent) / 100),
            ..usual
        },
        Behaviour::PaysInParts => PayOptions { parts: 3, ..usual },
        Behaviour::IncompleteParts => PayOptions {
            parts: 3,
            missing_parts: 1,
            ..usual
        },
        Behaviour::Cancels if manner.pays_before_canceling => usual,
        Behaviour::Cancels => {
            sleep(manner.hesitates / 2).await;
            return cancel(world, api, view).await;
        }
    };
    if let Err(error) = world.lnd.pay(invoice, &options) {
        world.trouble("simulation", format!("a wallet could not pay: {error}"));
    }
    if behaviour == Behaviour::Cancels {
        cancel(world, api, view).await;
    }
}

async fn cancel(world: &World, api: &Api, view: &CashOutView) {
    // Too late, or nobody there: the customer waits like the others.
    if let Err(error) = api.cancel(view.id).await {
        turned_away(world, &error);
    }
}

/// How often a customer looks: the more customers there are, the less often, so that looking is not what the daemon does.
fn between_looks(machines: usize, pause: Duration) -> Duration {
    let customers_a_second = machines as f64 / pause.as_secs_f64().max(1e-3);
    LOOK + Duration::from_millis(8).mul_f64(customers_a_second)
}

/// Stands before the machine until it is the next one's turn, or for so long as anyone would.
async fn watch(world: &World, api: &Api, view: &CashOutView) {
    let daemon = &world.scenario.daemon;
    let patience = daemon.payment_timeout + daemon.hold_deadline + daemon.unknown_deadline;
    let leaves = Instant::now() + patience;
    let look = between_looks(world.stands.len(), world.scenario.customers.pause);
    while Instant::now() < leaves {
        sleep(look).await;
        match api.cashout(view.id).await {
            Ok(now) if now.state == "completed" => return count(&world.figures.completed),
            Ok(now) if now.state == "canceled" => return count(&world.figures.canceled),
            Ok(now) if now.at_rest() => return,
            Ok(_) => {}
            Err(error) => turned_away(world, &error),
        }
    }
}
