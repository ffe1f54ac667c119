//! A daemon's emulated disk, as who makes it ill and who keeps the daemon know it.
//!
//! Called by the troubles and by [`super::daemon`]. What must stay true: a daemon's end is excused by its disk only when
//! the disk was ill in that life.

use std::io;
use std::sync::{Mutex, PoisonError};

use super::place::Home;
use crate::sim::disk::{Disk, Health};

/// The disk under a daemon's journal.
#[derive(Debug)]
pub struct SickDisk {
    disk: Disk,
    /// Held by whoever makes it ill, until it is well again.
    pub alone: tokio::sync::Mutex<()>,
    /// The present illness, and the last one that the daemon may have met in this life.
    state: Mutex<(Health, Option<Health>)>,
}

impl SickDisk {
    /// A good one, commanded by a file of the daemon's home.
    #[must_use]
    pub fn new(home: &Home) -> Self {
        Self {
            disk: Disk::new(home.disk()),
            alone: tokio::sync::Mutex::default(),
            state: Mutex::default(),
        }
    }

    /// # Errors
    /// When it can not be commanded.
    pub fn fall_ill(&self, health: Health) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        *state = (health, Some(health));
        self.disk.set(health)
    }

    /// # Errors
    /// When it can not be commanded.
    pub fn recover(&self) -> io::Result<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.0 = Health::Good;
        self.disk.set(Health::Good)
    }

    /// A daemon lives; what the disk was before is not to blame for its end.
    pub fn is_used_anew(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.1 = (state.0 != Health::Good).then_some(state.0);
    }

    /// What the system said of the illness that the daemon may have ended of.
    #[must_use]
    pub fn errno(&self) -> Option<i32> {
        let state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.1.and_then(Health::errno)
    }
}
