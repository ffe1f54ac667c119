//! A daemon's emulated disk, as who makes it ill and who keeps the daemon know it.
//!
//! Called by the troubles and by [`super::daemon`]. What must stay true: a daemon's end is excused by its disk only when
//! the disk was ill in that life.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::place::Home;
use crate::sim::disk::{Disk, Health};

/// The disk under a daemon's journal.
#[derive(Debug)]
pub struct SickDisk {
    disk: Disk,
    /// Held by whoever makes it ill, until it is well again.
    pub alone: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    health: Health,
    /// What the system said of all illnesses that the daemon may have met in this life.
    errnos: Vec<i32>,
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

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes it ill.
    ///
    /// # Errors
    /// When it can not be commanded.
    pub fn fall_ill(&self, health: Health) -> io::Result<()> {
        let mut state = self.state();
        state.health = health;
        state.errnos.extend(health.errno());
        self.disk.set(health)
    }

    /// Makes it well.
    ///
    /// # Errors
    /// When it can not be commanded.
    pub fn recover(&self) -> io::Result<()> {
        let mut state = self.state();
        state.health = Health::Good;
        self.disk.set(Health::Good)
    }

    /// A daemon is about to be started: what the disk was before is not to blame for its end.
    pub fn is_used_anew(&self) {
        let mut state = self.state();
        state.errnos = state.health.errno().into_iter().collect();
    }

    /// Whether these last words of a daemon name an illness that it may have met.
    #[must_use]
    pub fn is_to_blame(&self, words: &str) -> bool {
        let state = self.state();
        state
            .errnos
            .iter()
            .any(|errno| words.contains(&format!("(os error {errno})")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_illness_is_to_blame_in_the_life_that_may_have_met_it_only() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home {
            dir: dir.path().to_owned(),
        };
        let disk = SickDisk::new(&home);
        let words = "tellerd: the emulated disk: Read-only file system (os error 30)";
        assert!(!disk.is_to_blame(words));
        disk.fall_ill(Health::ReadOnly).unwrap();
        disk.is_used_anew();
        disk.recover().unwrap();
        disk.fall_ill(Health::SlowSync(std::time::Duration::ZERO)).unwrap();
        assert!(disk.is_to_blame(words), "also after another illness");
        assert!(!disk.is_to_blame("tellerd: I am tired (os error 28)"));
        disk.is_used_anew();
        assert!(!disk.is_to_blame(words), "this life never met it");
    }
}
