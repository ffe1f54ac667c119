//! Keeps the daemons running: kills them as the scenario says, starts them again, and has them end in the end.
//!
//! Called by the runner; one [`Keeper`] for each daemon. What must stay true: of daemons that share a killer one at most
//! is down at a time by its hand, and all are up again when customers no longer come; one that ends by itself is told.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use rand::RngExt;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;

use super::daemon::Daemon;
use super::world::{Figures, World, around, count};

/// Which of the figures counts the kills of a daemon.
pub type Figure = fn(&Figures) -> &AtomicU64;

/// Whoever orders a kill hears when the daemon is up again.
type Kill = oneshot::Sender<()>;

/// A daemon that is being kept.
pub struct Keeper {
    kills: mpsc::Sender<Kill>,
    finish: oneshot::Sender<()>,
    task: JoinHandle<Option<Daemon>>,
}

impl Keeper {
    /// Keeps `daemon`, which runs.
    #[must_use]
    pub fn start(world: &Arc<World>, daemon: Daemon, figure: Figure) -> Self {
        let (kills, ordered) = mpsc::channel(1);
        let (finish, finished) = oneshot::channel();
        let task = tokio::spawn(keep(Arc::clone(world), daemon, figure, ordered, finished));
        Self { kills, finish, task }
    }

    /// The door for [`kill_now_and_then`].
    #[must_use]
    pub fn kills(&self) -> mpsc::Sender<Kill> {
        self.kills.clone()
    }

    /// Asks the daemon to end, and has its journal verified.
    pub async fn end(self, world: &World) {
        // It ended by itself before; said already.
        _ = self.finish.send(());
        match self.task.await {
            Ok(Some(daemon)) => end(world, daemon).await,
            Ok(None) => {}
            Err(error) => world.trouble("simulation", error.to_string()),
        }
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
            ended = daemon.ended() => {
                world.trouble("daemon_ended", format!("{} ended by itself: {ended:?}", daemon.name()));
            }
        }
        // It may have ended by itself.
        if daemon.kill().await.is_ok() {
            count(figure(&world.figures));
        }
        match daemon.start().await {
            Ok(None) => {}
            Ok(Some(status)) => {
                let found = format!("{} ended at its start: {status}", daemon.name());
                world.trouble("daemon_ended", found);
                return None;
            }
            Err(error) => {
                world.trouble("daemon_ended", format!("{}: {error}", daemon.name()));
                return None;
            }
        }
        if let Some(up_again) = up_again {
            // Nobody waits for it when the simulation is over.
            _ = up_again.send(());
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
    match daemon.verify_journal().await {
        Ok(None) => {}
        Ok(Some(told)) => world.trouble("journal_damaged", format!("{name}: {told}")),
        Err(error) => world.trouble("journal_damaged", format!("{name}: {error}")),
    }
}
