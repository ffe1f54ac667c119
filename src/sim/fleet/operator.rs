//! The simulated operator: comes when a machine is in trouble or low, counts notes, decides, pays claims.
//!
//! Run by the runner, one for each daemon with machines. What must stay true: it looks into machines (the emulators' ledgers) and at the node for what
//! happened, and tells the daemon; it empties a machine's path before it counts, so that what it counts is final.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;
use tokio::time::{Instant, sleep};

use super::client::{Api, ClientError};
use super::setup::{CASSETTES, DENOMINATIONS};
use super::world::{Stand, World, count};
use crate::api::{AtmView, CashOutView, Decision, LoadedCassette};
use crate::hardware::puloon::emulator::{Event, Fault, What};
use crate::ids::{AtmId, CashOutId};
use crate::money::Minor;
use crate::sim::audit::{Facts, physical};
use crate::time::{Clock, SystemClock};

const NAME: &str = "simulated operator";
const ROUND: Duration = Duration::from_millis(700);
/// A round is so much longer for each machine that is looked at: a larger fleet has a list that costs more.
const LOOK: Duration = Duration::from_millis(1);
/// A machine that was still for so long has nothing more to move.
const QUIET_MS: u64 = 1_500;
/// The generator's name.
const OPERATOR: u64 = 2;

/// What the operator has on its mind.
pub struct Operator {
    world: Arc<World>,
    api: Api,
    random: StdRng,
    /// Where its machines are among all.
    stands: HashMap<AtmId, usize>,
    /// Since when an item or a machine is in trouble.
    troubled: HashMap<String, Instant>,
    /// Machines being served, and whether the path is empty and the notes are in.
    serving: HashMap<AtmId, bool>,
    /// Claims that are left to their customers' patience.
    left: HashSet<CashOutId>,
}

impl Operator {
    /// For the machines of one daemon.
    #[must_use]
    pub fn new(world: Arc<World>, index: usize, api: Api) -> Self {
        let mine = world
            .sites
            .get(index)
            .map(|site| site.atms.iter().collect::<HashSet<_>>());
        let mine = mine.unwrap_or_default();
        let stands = world.stands.iter().enumerate();
        let stands = stands.filter(|(_, stand)| mine.contains(&stand.atm));
        let stands = stands.map(|(index, stand)| (stand.atm.clone(), index)).collect();
        Self {
            random: world.random(OPERATOR, index),
            stands,
            world,
            api,
            troubled: HashMap::new(),
            serving: HashMap::new(),
            left: HashSet::new(),
        }
    }

    /// Goes its rounds until dropped.
    pub async fn work(mut self) {
        let machines = u32::try_from(self.stands.len()).unwrap_or(u32::MAX);
        loop {
            sleep(ROUND + LOOK * machines).await;
            if let Err(error) = self.round().await {
                // The daemon is being killed and started: the next round comes.
                tracing::debug!(%error, "the operator gets no answer");
            }
        }
    }

    async fn round(&mut self) -> Result<(), ClientError> {
        let atms = self.api.atms().await?;
        let world = Arc::clone(&self.world);
        for atm in &atms {
            let Some(stand) = self.stands.get(&atm.id).and_then(|index| world.stands.get(*index)) else {
                continue;
            };
            for id in &atm.open {
                if atm.state != "busy" || atm.open.len() > 1 {
                    self.look_at(stand, *id).await?;
                }
            }
            self.care(stand, atm).await?;
        }
        Ok(())
    }

    /// Whether `what` was in trouble for as long as it takes to get there.
    fn has_arrived(&mut self, what: &str) -> bool {
        let since = *self.troubled.entry(what.to_owned()).or_insert_with(Instant::now);
        since.elapsed() >= self.world.scenario.operator.delay
    }

    async fn look_at(&mut self, stand: &Stand, id: CashOutId) -> Result<(), ClientError> {
        if self.left.contains(&id) {
            return Ok(());
        }
        let view = self.api.cashout(id).await?;
        let in_trouble = matches!(view.state.as_str(), "outcome_unknown" | "claim_owed");
        if !in_trouble || !self.has_arrived(id.as_str()) {
            return Ok(());
        }
        if view.state == "outcome_unknown" {
            return self.decide(stand, &view).await;
        }
        if self.random.random_range(0..100) < self.world.scenario.operator.claims_paid {
            self.tell(id, Decision::ClaimPaid).await
        } else {
            self.left.insert(id);
            Ok(())
        }
    }

    /// Counts what came out for a cash-out nobody can tell about.
    async fn decide(&mut self, stand: &Stand, view: &CashOutView) -> Result<(), ClientError> {
        if physical::is_moving(&stand.machine(), SystemClock.now(), QUIET_MS) {
            return Ok(());
        }
        self.open_machine(stand);
        let Ok(ledger) = self.world.lnd.ledger() else {
            return Ok(());
        };
        let facts = Facts::find(&[stand.machine()], &ledger, self.world.rate);
        let delivered = facts
            .by_hash(&view.payment_hash)
            .map_or(Minor::ZERO, |fact| fact.delivered());
        count(&self.world.figures.decided);
        self.tell(view.id, Decision::DeliveredMinor(delivered)).await
    }

    async fn tell(&self, id: CashOutId, decision: Decision) -> Result<(), ClientError> {
        match self.api.resolve(id, NAME, decision).await {
            // The device told after all, or the deadline was faster.
            Err(ClientError::Refused(problem)) => {
                tracing::debug!(%id, ?decision, problem.message, "the operator is not needed any more");
                Ok(())
            }
            other => other.map(drop),
        }
    }

    fn open_machine(&self, stand: &Stand) {
        if let Err(error) = stand.inside.clear_jam() {
            self.world
                .trouble("simulation", format!("{} can not be opened: {error}", stand.atm));
        }
    }

    /// Serves a machine that is low, dry, jammed or out of service: drain, empty the path, fill, count, resume.
    async fn care(&mut self, stand: &Stand, atm: &AtmView) -> Result<(), ClientError> {
        if !self.serving.contains_key(&atm.id) {
            let needed = atm.state == "out_of_service" || needs_notes(stand, self.world.scenario.machines.low_notes);
            if !needed {
                // What a start hides for a moment is still there after it.
                if atm.state != "starting" {
                    self.troubled.remove(atm.id.as_str());
                }
                return Ok(());
            }
            if !self.has_arrived(atm.id.as_str()) {
                return Ok(());
            }
            self.serving.insert(atm.id.clone(), false);
        }
        let busy = atm.state == "busy" || is_unknown(atm);
        if !matches!(atm.state.as_str(), "draining" | "out_of_service") || busy {
            self.api.order(&atm.id, "drain", NAME).await?;
            return Ok(());
        }
        if physical::is_moving(&stand.machine(), SystemClock.now(), QUIET_MS) {
            return Ok(());
        }
        if self.serving.get(&atm.id) == Some(&false) {
            // From here on nobody may start a cash-out before the count is told.
            self.api.order(&atm.id, "drain", NAME).await?;
            self.open_machine(stand);
            self.fill(stand);
            self.serving.insert(atm.id.clone(), true);
        }
        match self.api.load(&atm.id, NAME, counted(stand)).await {
            // A customer was faster.
            Err(ClientError::Refused(_)) => return Ok(()),
            other => other?,
        };
        self.api.order(&atm.id, "resume", NAME).await?;
        self.serving.remove(&atm.id);
        self.troubled.remove(atm.id.as_str());
        count(&self.world.figures.services);
        Ok(())
    }

    fn fill(&self, stand: &Stand) {
        let full = self.world.scenario.machines.notes;
        for position in CASSETTES {
            let missing = full.saturating_sub(stand.inside.remaining(position));
            if let Err(error) = stand.inside.refill(position, missing) {
                self.world
                    .trouble("simulation", format!("{} can not be filled: {error}", stand.atm));
            }
        }
    }
}

/// The machine serves nobody because an outcome is not known: nobody touches it before that is decided.
fn is_unknown(atm: &AtmView) -> bool {
    atm.reason
        .as_deref()
        .is_some_and(|why| why.contains("not known whether"))
}

/// Whether a cassette is low, or gives no more.
fn needs_notes(stand: &Stand, low: u32) -> bool {
    let low = CASSETTES
        .iter()
        .any(|position| stand.inside.remaining(*position) <= low);
    low || stand.inside.read(is_dry)
}

/// Whether a cassette gave no more, and was not filled since.
fn is_dry(events: &[Event]) -> bool {
    let last = events.iter().rev().find(|event| {
        let dry = matches!(
            event.what,
            What::FaultApplied {
                fault: Fault::Dry { .. }
            }
        );
        dry || matches!(event.what, What::Refilled { .. })
    });
    last.is_some_and(|event| matches!(event.what, What::FaultApplied { .. }))
}

/// What the operator counts.
fn counted(stand: &Stand) -> Vec<LoadedCassette> {
    let values = (1..).zip(DENOMINATIONS).filter(|(_, value)| *value > Minor::ZERO);
    let cassettes = values.map(|(position, denomination_minor)| LoadedCassette {
        position,
        denomination_minor,
        notes: stand.inside.remaining(position),
    });
    cassettes.collect()
}
