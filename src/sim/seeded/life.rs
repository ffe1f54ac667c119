//! The lives of the daemon: the real actors, journal, store and drivers, brought up as `tellerd run` does, ended at any point.
//!
//! Faults: deaths by [`Gate`] and [`disk`]; a daemon that ends by itself when its journal can not be written; [`Kind::Panic`]: an
//! actor panics, half of the time while notes move, the journal's while a record waits. What must stay true: a life that is over
//! is dropped at once, with all its tasks, and nothing of it is kept but its files; the next one reads them as any start does.

use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::LocalSet;
use tokio::time::{Instant, sleep};

use super::chance::SeededEntropy;
use super::device::Stand;
use super::gate::Gate;
use super::node::Connection;
use super::plan::Kind;
use super::rules::Broken;
use super::scene::Scene;
use super::{SeededError, disk};
use crate::actors::fleet::Fleet;
use crate::app::{Instead, bring_up_with};
#[cfg(debug_assertions)]
use crate::cashout::{CashOut, Phase};
use crate::config::Config;
use crate::metrics::Metrics;
use crate::store;

/// All that is not the daemon.
pub struct World {
    /// What is true.
    pub scene: Arc<Scene>,
    /// The machines.
    pub stands: Vec<Stand>,
    /// The way to the present life.
    door: Mutex<Option<(Fleet, Gate)>>,
}

impl World {
    /// With nobody alive.
    #[must_use]
    pub fn new(scene: Arc<Scene>, stands: Vec<Stand>) -> Self {
        let door = Mutex::new(None);
        Self { scene, stands, door }
    }

    fn open(&self, door: Option<(Fleet, Gate)>) {
        *self.door.lock().unwrap_or_else(PoisonError::into_inner) = door;
    }

    /// Asks the daemon; `None` when there is none, or when it died over the question.
    pub async fn ask<T>(&self, question: impl AsyncFnOnce(Fleet) -> T) -> Option<T> {
        let door = self.door.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (fleet, gate) = door?;
        tokio::select! {
            biased;
            () = gate.died() => None,
            answer = question(fleet) => Some(answer),
        }
    }

    /// Ends the present life.
    pub fn kill(&self, why: &str) {
        let door = self.door.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((_, gate)) = door {
            gate.kill(why);
        }
    }
}

/// What stays the same over all lives.
pub struct Lives<'a> {
    /// The world.
    pub world: &'a Arc<World>,
    /// The configuration.
    pub config: &'a Config,
    /// Its folder.
    pub dir: &'a Path,
    /// Chance.
    pub entropy: Arc<SeededEntropy>,
    /// Made once: it costs.
    pub metrics: Metrics,
}

impl Lives<'_> {
    /// One life after the other, for ever.
    ///
    /// # Errors
    /// When the system or the configuration is the trouble, and not the daemon.
    pub async fn go_on(&self) -> Result<(), SeededError> {
        let scene = &self.world.scene;
        loop {
            let gate = Gate::new(Arc::clone(scene));
            scene.count(|figures| figures.lives += 1);
            scene.step("life", || "the daemon starts".to_owned());
            let life = LocalSet::new();
            life.run_until(self.live(&gate)).await?;
            self.world.open(None);
            // Its tasks end here, wherever they are.
            drop(life);
            let away = scene.draw("lives", |chance| match chance.per_mille(100) {
                true => chance.time(Duration::from_secs(1), Duration::from_secs(1800)),
                false => chance.time(Duration::from_millis(10), Duration::from_secs(20)),
            });
            sleep(away).await;
        }
    }

    async fn live(&self, gate: &Gate) -> Result<(), SeededError> {
        let scene = &self.world.scene;
        let opened = match store::open_in_memory(self.dir) {
            Ok(opened) => opened,
            Err(error) => {
                let (rule, found) = ("no_start", error.to_string());
                scene.broken(Broken { rule, found });
                return Ok(());
            }
        };
        let (state, records) = (opened.store.folded().clone(), opened.journal.last().seq);
        let now = scene.now();
        scene.look(|side| scene.books(|books| books.read_again(&state, records, now, side)));
        let pause = Arc::clone(scene);
        let lines = self.world.stands.iter();
        let instead = Instead {
            lnd: Some(Arc::new(Connection::new(Arc::clone(scene), gate.clone()))),
            outbox: None,
            ends: None,
            clock: Some(Arc::clone(&scene.clock) as _),
            entropy: Some(Arc::clone(&self.entropy) as _),
            lines: lines.map(|stand| (stand.atm.clone(), stand.line(gate))).collect(),
            one_thread: Some(Box::new(move || {
                pause.writes.notify_waiters();
                let time = pause.draw("pauses", |chance| chance.within(0, 6));
                Box::pin(sleep(Duration::from_millis(time)))
            })),
        };
        let wrap = disk::wrap(scene, gate);
        let up = match bring_up_with(self.config, opened, &self.metrics, wrap, instead) {
            Ok(up) => up,
            // Its first segment could not be written: the disk is full, or it died over it.
            Err(error) => {
                scene.step("life", || format!("ends at its start: {error}"));
                return Ok(());
            }
        };
        self.world.open(Some((up.fleet.clone(), gate.clone())));
        let panics = panics(scene, &up.fleet);
        tokio::select! {
            biased;
            () = gate.died() => {}
            why = up.fleet.journal_lost() => {
                scene.step("life", || format!("ends by itself: {why}"));
                gate.kill("by itself");
            }
            _ = up.supervisor_ended => {
                scene.broken(Broken { rule: "supervisor_died", found: "the supervisor is gone".to_owned() });
            }
            () = killed_sometime(scene, gate) => {}
            () = deadlines(scene) => {}
            () = panics => {}
        }
        Ok(())
    }
}

/// Dies at some time, too, and not at an effect.
async fn killed_sometime(scene: &Scene, gate: &Gate) {
    let minute = Duration::from_secs(60);
    loop {
        sleep(scene.draw("killer", |chance| chance.around(minute * 4))).await;
        if scene.dies(Kind::Kill, 500) {
            return gate.kill("at some time");
        }
    }
}

/// Looks whether anything that is due is not done.
async fn deadlines(scene: &Scene) {
    let born = scene.now();
    loop {
        sleep(Duration::from_secs(10)).await;
        let quiet = scene.trouble().max(born);
        let heard = scene.lnd_trouble();
        scene.books(|books| books.in_time(quiet, heard, scene.now()));
    }
}

/// Lets an actor panic now and then.
#[cfg(debug_assertions)]
async fn panics(scene: &Scene, fleet: &Fleet) {
    use crate::actors::child::ChildId;
    let minute = Duration::from_secs(60);
    loop {
        sleep(scene.draw("panics", |chance| chance.around(minute * 3))).await;
        if !scene.strikes(Kind::Panic, 700) {
            continue;
        }
        if scene.draw("panics", |chance| chance.per_mille(500)) {
            notes_move(scene).await;
        }
        let names = super::device::names(&scene.plan);
        let open: Vec<_> = scene
            .books(|books| Ok(books.durable.invoices.keys().copied().collect()))
            .unwrap_or_default();
        let child = scene.draw("panics", |chance| match chance.within(0, 4) {
            0 => Some(ChildId::Journal),
            1 => Some(ChildId::Lnd),
            2 => chance.pick(&names).cloned().map(ChildId::Hardware),
            3 => chance.pick(&names).cloned().map(ChildId::Atm),
            _ => chance.pick(&open).copied().map(ChildId::Invoice),
        });
        if child == Some(ChildId::Journal) {
            // While a record waits for it.
            scene.writes.notified().await;
        }
        if let Some(child) = child {
            scene.step("panic", || child.to_string());
            scene.troubled(scene.now());
            fleet.make_panic(child).await;
        }
    }
}

/// Waits for the middle of a dispense, for some minutes.
#[cfg(debug_assertions)]
async fn notes_move(scene: &Scene) {
    let moves = |cashout: &CashOut| matches!(cashout.phase, Phase::Dispensing { .. });
    for _ in 0..1_000 {
        let step = scene.draw("panics", |chance| chance.within(50, 400));
        sleep(Duration::from_millis(step)).await;
        let moving = scene.books(|books| Ok(books.durable.cashouts.values().any(moves)));
        if moving == Some(true) {
            return;
        }
    }
}

#[cfg(not(debug_assertions))]
async fn panics(_: &Scene, _: &Fleet) {
    std::future::pending().await
}

/// How long the world may take to come to rest.
pub const REST: Duration = Duration::from_secs(12 * 3600);

/// Whether the time since `begun` is more than it may take.
#[must_use]
pub fn is_too_long(begun: Instant) -> bool {
    begun.elapsed() > REST
}
