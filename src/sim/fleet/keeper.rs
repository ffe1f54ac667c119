//! Keeps the daemons running: kills them as the scenario says, starts them again, and has them end in the end.
//!
//! Called by the runner; one [`Keeper`] for each daemon. What must stay true: of daemons that share a killer one at most
//! is down at a time by its hand, and all are up again when customers no longer come; one that ends by itself is told, and
//! so is one that panicked and went on.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rand::RngExt;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::cycles::{Log, cycle};
use super::daemon::Daemon;
use super::world::{Figures, World, around, count};

/// What a service manager waits before it starts a daemon again that ended by itself.
const START_AGAIN: Duration = Duration::from_secs(1);

/// What the standard library writes of a panic, between the thread and the place.
const PANICKED: &str = " panicked at ";
/// The names of sled's own threads begin so.
const OF_SLED: [&str; 2] = ["'sled-io-", "'log flusher"];

/// Which of the figures counts the kills of a daemon.
pub type Figure = fn(&Figures) -> &AtomicU64;

/// Whoever orders a kill hears when the daemon is up again.
type Kill = oneshot::Sender<()>;

/// A daemon that is being kept.
pub struct Keeper {
    name: String,
    log: PathBuf,
    kills: mpsc::Sender<Kill>,
    finish: oneshot::Sender<()>,
    task: JoinHandle<Option<Daemon>>,
}

impl Keeper {
    /// Has the daemon, which runs, killed so many times, each start verified.
    #[must_use]
    pub fn cycle(world: &Arc<World>, daemon: Daemon, kills: u64, log: &Arc<Mutex<Log>>) -> Self {
        let (kill, _) = mpsc::channel(1);
        let (finish, finished) = oneshot::channel();
        let (name, its_log) = (daemon.name().to_owned(), daemon.log());
        let (world, log) = (Arc::clone(world), Arc::clone(log));
        let task = tokio::spawn(async move {
            let daemon = cycle(Arc::clone(&world), daemon, kills, log).await;
            // It is over by this, and not by the clock.
            world.closed.send_replace(true);
            // Until the last item is at rest.
            _ = finished.await;
            daemon
        });
        Self {
            name,
            log: its_log,
            kills: kill,
            finish,
            task,
        }
    }

    /// Keeps `daemon`, which runs.
    #[must_use]
    pub fn start(world: &Arc<World>, daemon: Daemon, figure: Figure) -> Self {
        let (kills, ordered) = mpsc::channel(1);
        let (finish, finished) = oneshot::channel();
        let (name, log) = (daemon.name().to_owned(), daemon.log());
        let task = tokio::spawn(keep(Arc::clone(world), daemon, figure, ordered, finished));
        Self {
            name,
            log,
            kills,
            finish,
            task,
        }
    }

    /// The door for [`kill_now_and_then`].
    #[must_use]
    pub fn kills(&self) -> mpsc::Sender<Kill> {
        self.kills.clone()
    }

    /// Asks the daemon to end, has its journal verified, and tells the panics of all its lives.
    pub async fn end(self, world: &World) {
        // It ended by itself before; said already.
        _ = self.finish.send(());
        match self.task.await {
            Ok(Some(daemon)) => end(world, daemon).await,
            Ok(None) => {}
            Err(error) => world.trouble("simulation", error.to_string()),
        }
        // Also of one that could not be kept running.
        tell_panics(world, &self.name, &self.log);
    }
}

/// Gives the daemon back in the end; `None` when it can not be kept running.
async fn keep(
    world: Arc<World>,
    mut daemon: Daemon,
    figure: Figure,
    mut ordered: mpsc::Receiver<Kill>,
    mut finished: oneshot::Receiver<()>,
) -> Option<Daemon> {
    loop {
        let mut up_again = None;
        tokio::select! {
            _ = &mut finished => return Some(daemon),
            Some(kill) = ordered.recv() => up_again = Some(kill),
            ended = daemon.ended() => match ended {
                Ok(status) if daemon.ended_of_its_disk(status) => count(&world.figures.disk_ends),
                ended => world.trouble("daemon_ended", format!("{} ended by itself: {ended:?}", daemon.name())),
            }
        }
        if up_again.is_some() {
            match daemon.kill().await {
                Ok(()) => count(figure(&world.figures)),
                Err(error) => tracing::debug!(%error, "it ended by itself before"),
            }
        }
        if !comes_up(&world, &mut daemon).await {
            return None;
        }
        if let Some(up_again) = up_again {
            // Nobody waits for it when the simulation is over.
            _ = up_again.send(());
        }
    }
}

/// Starts it as a service manager does: again, after a second, when its disk did not let it. `false` when it can not be
/// kept running.
async fn comes_up(world: &World, daemon: &mut Daemon) -> bool {
    loop {
        match daemon.start().await {
            Ok(None) => return true,
            Ok(Some(status)) if daemon.ended_of_its_disk(status) => {
                count(&world.figures.disk_ends);
                sleep(START_AGAIN).await;
            }
            Ok(Some(status)) => {
                let found = format!("{} ended at its start: {status}", daemon.name());
                world.trouble("daemon_ended", found);
                return false;
            }
            Err(error) => {
                world.trouble("daemon_ended", format!("{}: {error}", daemon.name()));
                return false;
            }
        }
    }
}

/// Kills one of these daemons after the other, until no more customers come. `every` is from one's coming up to the
/// next kill; `what` names the generator.
pub async fn kill_now_and_then(
    world: Arc<World>,
    daemons: Vec<mpsc::Sender<Kill>>,
    every: Option<Duration>,
    what: u64,
) {
    let mut random = world.random(what, 0);
    let Some(every) = every else { return };
    while world.wait(around(&mut random, every)).await {
        let chosen = daemons.get(random.random_range(0..daemons.len().max(1)));
        let (up_again, is_up) = oneshot::channel();
        if let Some(chosen) = chosen
            && chosen.send(up_again).await.is_ok()
        {
            // An error: it can not be kept running, which is told.
            _ = is_up.await;
        }
    }
}

async fn end(world: &World, mut daemon: Daemon) {
    let name = daemon.name().to_owned();
    match daemon.stop().await {
        Ok(Some(status)) if status.success() => {}
        Ok(Some(status)) => world.trouble("daemon_ended", format!("{name}: asked to end, it ended with {status}")),
        Ok(None) => world.trouble("daemon_ended", format!("{name}: asked to end, it did not")),
        Err(error) => world.trouble("daemon_ended", format!("{name}: {error}")),
    }
    verify(world, &daemon).await;
}

/// Has the journal of a daemon that does not run verified, and the state compared with it. How many records there are;
/// `None` when that is not known, which is told.
pub async fn verify(world: &World, daemon: &Daemon) -> Option<u64> {
    let verify = async |what| daemon.verify(what).await.unwrap_or_else(|error| Err(error.to_string()));
    if let Err(found) = verify("store").await {
        world.trouble("state_differs", format!("{}: {found}", daemon.name()));
    }
    let told = match verify("journal").await {
        Ok(told) => told,
        Err(found) => {
            world.trouble("journal_damaged", format!("{}: {found}", daemon.name()));
            return None;
        }
    };
    let records = records_in(&told);
    if records.is_none() {
        // Or nobody would ever miss a record.
        let found = format!("{}: journal verify gives no number of records: {told}", daemon.name());
        world.trouble("simulation", found);
    }
    records
}

/// Reads `N records intact`, at the start of a line.
fn records_in(told: &str) -> Option<u64> {
    told.lines()
        .find_map(|line| line.split_once(" records intact")?.0.parse().ok())
}

/// A supervisor starts again what panicked, so the daemon lives on, and its log alone says so.
fn tell_panics(world: &World, name: &str, log: &Path) {
    match std::fs::read(log) {
        Ok(text) => {
            for panic in panics_in(&String::from_utf8_lossy(&text)) {
                world.trouble("daemon_panicked", format!("{name}: {panic}"));
            }
        }
        Err(error) => world.trouble("simulation", format!("{}: {error}", log.display())),
    }
}

/// The first line of each panic: which thread, and where. None is ordered in a simulated fleet.
fn panics_in(log: &str) -> impl Iterator<Item = &str> {
    let told = log.lines().filter(|line| line.contains(PANICKED));
    told.filter(|line| !is_contained(line)).map(str::trim)
}

/// Whether the store made an error of it (`contained` in `src/store/table.rs`): the hook that writes to standard error
/// comes before that, so sled's panics over files that a SIGKILL left are in the log too. Those in sled's own threads are
/// contained by nobody.
fn is_contained(panic: &str) -> bool {
    let Some((thread, place)) = panic.split_once(PANICKED) else {
        return false;
    };
    let in_sled = place.split('/').any(|part| part.starts_with("sled-"));
    in_sled && !OF_SLED.iter().any(|own| thread.contains(own))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_is_found_among_the_lines_of_a_log() {
        let log = "2026-01-01T00:00:00Z  WARN tellerd: a child is down\n\n\
                   thread 'actix-rt|system:0|arbiter:1' (4711) panicked at src/actors/atm/mod.rs:70:13:\n\
                   the first event is the quote\n\
                   note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace\n\
                   thread 'main' panicked at /home/x/registry/src/index/tokio-1.0.0/src/a.rs:1:2:\nwhy\n";
        let found: Vec<&str> = panics_in(log).collect();
        let [first, second] = found[..] else {
            panic!("{found:?}")
        };
        assert!(first.starts_with("thread 'actix-rt") && first.ends_with("src/actors/atm/mod.rs:70:13:"));
        assert!(second.contains("tokio-1.0.0"));
        assert_eq!(panics_in("INFO tellerd: tellerd serves\n").count(), 0);
    }

    #[test]
    fn a_panic_of_sled_is_contained_but_in_its_own_threads() {
        let at = "panicked at /home/x/registry/src/index/sled-0.34.7/src/pagecache/a.rs:1:2:";
        let found = |thread: &str| panics_in(&format!("thread '{thread}' (7) {at}\nwhy")).count();
        assert_eq!(found("main"), 0);
        assert_eq!(found("journal"), 0);
        assert_eq!(found("sled-io-3"), 1);
        assert_eq!(found("log flusher"), 1);
    }

    #[test]
    fn the_number_of_records_is_read_or_missed() {
        assert_eq!(
            records_in("/data/journal\n12 records intact; last 12 with hash ab\n"),
            Some(12)
        );
        assert_eq!(records_in("12 records are intact\n"), None);
        assert_eq!(records_in(""), None);
    }
}
