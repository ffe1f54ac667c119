//! `--kills N`: one daemon and one growing data directory, killed with SIGKILL as fast as its start can be verified.
//!
//! Called by the runner, in the place of a keeper. What must stay true: before each start the journal is whole, and the
//! state that the start will find is the fold of it; after each start the daemon says that it is ready. A kill falls
//! anywhere: into the work of a fleet, or soon after the process' start, when it may not be ready yet; a look right before
//! the kill tells.

use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rand::RngExt;
use serde::Serialize;
use tokio::time::{Instant, sleep, timeout};

use super::daemon::Daemon;
use super::keeper::verify;
use super::progress::say;
use super::world::{World, count};

/// A start that takes longer than this is a violation. The node may be restarting.
const READY: Duration = Duration::from_secs(60);
/// Between two looks.
const LOOK: Duration = Duration::from_millis(5);
/// From the daemon's being ready to the kill, at most.
const LIFE_MS: u64 = 1_900;
/// From the process' start to an early kill, at most.
const EARLY_MS: u64 = 300;
/// Of so many kills one is early.
const ONE_IN: u32 = 4;
/// How long an answer is waited for right before an early kill.
const GLANCE: Duration = Duration::from_secs(1);
/// A line for so many cycles.
const LINE: u64 = 25;
/// The generator's name.
const CYCLES: u64 = 6;

/// What the cycles came to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Cycles {
    /// Kills.
    pub kills: u64,
    /// Of them, those soon after the process' start, see [`EARLY_MS`].
    pub early: u64,
    /// Of those, the ones before which it did not say yet that it is ready: they fell into the start itself.
    pub before_ready: u64,
    /// Starts after which the daemon was ready.
    pub starts: u64,
    /// From the process' start to ready, ms: half within, and the longest.
    pub start_ms_p50: u64,
    /// The longest.
    pub start_ms_max: u64,
    /// For verifying the data directory, ms: the longest.
    pub verify_ms_max: u64,
    /// Records in the journal after the last kill.
    pub records: u64,
}

/// All measured so far.
#[derive(Debug, Default)]
pub struct Log {
    early: u64,
    before_ready: u64,
    kills: u64,
    starts_ms: Vec<u64>,
    verify_ms_max: u64,
    records: u64,
}

impl Log {
    /// The figures.
    #[must_use]
    pub fn figures(&self) -> Cycles {
        let mut sorted = self.starts_ms.clone();
        sorted.sort_unstable();
        Cycles {
            kills: self.kills,
            early: self.early,
            before_ready: self.before_ready,
            starts: sorted.len() as u64,
            start_ms_p50: sorted.get(sorted.len() / 2).copied().unwrap_or(0),
            start_ms_max: sorted.last().copied().unwrap_or(0),
            verify_ms_max: self.verify_ms_max,
            records: self.records,
        }
    }
}

impl Cycles {
    /// For people.
    #[must_use]
    pub fn line(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        _ = write!(
            text,
            "{} kills, {} of them within {EARLY_MS} ms of a start, of which {} before it was ready; {} starts verified: \
             ready after {} ms (half of them) to {} ms; {} records, verified within {} ms",
            self.kills,
            self.early,
            self.before_ready,
            self.starts,
            self.start_ms_p50,
            self.start_ms_max,
            self.records,
            self.verify_ms_max
        );
        text
    }
}

/// Kills `daemon`, which runs, `kills` times. Gives it back running; `None` when it can not be kept so.
pub async fn cycle(world: Arc<World>, mut daemon: Daemon, kills: u64, log: Arc<Mutex<Log>>) -> Option<Daemon> {
    let mut random = world.random(CYCLES, 0);
    let mut early = false;
    for done in 1..=kills {
        let most = if early { EARLY_MS } else { LIFE_MS };
        sleep(Duration::from_millis(random.random_range(0..most))).await;
        // No answer within that time is no word of being ready either.
        let before_ready = early && !timeout(GLANCE, is_ready(&daemon)).await.unwrap_or(false);
        kill(&world, &mut daemon).await;
        let begun = Instant::now();
        let records = verify(&world, &daemon).await;
        note(&log, |log| {
            log.kills = done;
            log.early += u64::from(early);
            log.before_ready += u64::from(before_ready);
            log.verify_ms_max = log.verify_ms_max.max(millis(begun));
            // `None` is told, and what was there before stays what has to be there after the next.
            let Some(records) = records else { return };
            if records < log.records {
                let found = format!("{records} records after kill {done}, {} before it", log.records);
                world.trouble("journal_damaged", found);
            }
            log.records = records;
        });
        early = done < kills && random.random_range(0..ONE_IN) == 0;
        if let Err(error) = daemon.begin() {
            world.trouble("daemon_ended", error.to_string());
            return None;
        }
        if !early {
            let ms = ready(&world, &mut daemon).await?;
            note(&log, |log| log.starts_ms.push(ms));
        }
        if done.is_multiple_of(LINE) || done == kills {
            note(&log, |log| say(&log.figures().line()));
        }
    }
    Some(daemon)
}

fn note(log: &Mutex<Log>, what: impl FnOnce(&mut Log)) {
    what(&mut log.lock().unwrap_or_else(PoisonError::into_inner));
}

/// After how many ms the process that was just started says that it is ready.
async fn ready(world: &World, daemon: &mut Daemon) -> Option<u64> {
    let begun = Instant::now();
    while begun.elapsed() < READY {
        if is_ready(daemon).await {
            return Some(millis(begun));
        }
        match daemon.has_ended().await {
            Ok(None) => sleep(LOOK).await,
            ended => {
                world.trouble("daemon_ended", format!("it ended at its start: {ended:?}"));
                return None;
            }
        }
    }
    let found = format!("{} s after its start it was not ready", READY.as_secs());
    world.trouble("not_ready", found);
    None
}

async fn is_ready(daemon: &Daemon) -> bool {
    daemon.api().ready().await.is_ok_and(|view| view.ready)
}

async fn kill(world: &World, daemon: &mut Daemon) {
    match daemon.has_ended().await {
        Ok(None) => {}
        ended => world.trouble("daemon_ended", format!("{} ended by itself: {ended:?}", daemon.name())),
    }
    if daemon.kill().await.is_ok() {
        count(&world.figures.kills);
    }
}

fn millis(begun: Instant) -> u64 {
    u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_tells_early_kills_from_those_before_ready() {
        let log = Log {
            kills: 500,
            early: 143,
            before_ready: 70,
            starts_ms: vec![998, 100, 139],
            verify_ms_max: 2_900,
            records: 38_546,
        };
        assert_eq!(
            log.figures().line(),
            "500 kills, 143 of them within 300 ms of a start, of which 70 before it was ready; 3 starts verified: ready \
             after 139 ms (half of them) to 998 ms; 38546 records, verified within 2900 ms"
        );
    }
}
