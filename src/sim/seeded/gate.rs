//! Between one life of the daemon and the world: when it is dead, nothing passes.
//!
//! Every effect of the daemon passes here before it takes place and after. Faults: [`Kind::Kill`], at any of these points and at
//! any time. What must stay true: after its death nothing that is left of a life reaches the world, until the life is dropped.

use std::sync::Arc;

use tokio::sync::watch;

use super::plan::Kind;
use super::scene::Scene;

/// One life's gate.
#[derive(Clone)]
pub struct Gate {
    scene: Arc<Scene>,
    dead: Arc<watch::Sender<bool>>,
}

impl Gate {
    /// For a life that begins.
    #[must_use]
    pub fn new(scene: Arc<Scene>) -> Self {
        let dead = Arc::new(watch::Sender::new(false));
        Self { scene, dead }
    }

    /// Whether this life is over.
    #[must_use]
    pub fn is_dead(&self) -> bool {
        *self.dead.borrow()
    }

    /// Ends this life.
    pub fn kill(&self, why: &str) {
        self.scene.step("killed", || why.to_owned());
        self.dead.send_replace(true);
    }

    /// A point at which the daemon may die. False when it is dead.
    pub fn at(&self, point: &str) -> bool {
        if !self.is_dead() && self.scene.dies(Kind::Kill, self.scene.plan.death_per_mille) {
            self.kill(point);
        }
        !self.is_dead()
    }

    /// Whether a driver panics now: in builds with debug assertions, as all panics that are ordered.
    #[must_use]
    pub fn driver_panics(&self) -> bool {
        let panics = cfg!(debug_assertions) && !self.is_dead() && self.scene.strikes(Kind::Panic, 2);
        if panics {
            self.scene.step("panic", || "a driver".to_owned());
            self.scene.troubled(self.scene.now());
        }
        panics
    }

    /// As [`Gate::at`]; never returns to a dead one.
    pub async fn pass(&self, point: &str) {
        if !self.at(point) {
            std::future::pending().await
        }
    }

    /// Answers when this life is over.
    pub async fn died(&self) {
        // The sender is in `self`, so the wait can not fail.
        _ = self.dead.subscribe().wait_for(|dead| *dead).await;
    }
}
