//! The course of a simulation: build, open, close, wait for open items, stop the daemon, audit.
//!
//! Called by the command line.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::client::Api;
use super::customer::customers;
use super::daemon::Daemon;
use super::operator::Operator;
use super::progress::{self, say};
use super::report::{Report, Run};
use super::scenario::Scenario;
use super::setup::{self, DENOMINATIONS, Place};
use super::world::{Figures, Stand, World, around, count, read};
use super::{Options, SimulationError, system};
use crate::api::CashOutView;
use crate::config::token::load_or_create_token;
use crate::hardware::emulate::serve_on_pty;
use crate::hardware::puloon::emulator::{Emulator, Setup};
use crate::ids::AtmId;
use crate::money::Minor;
use crate::sim::audit::{Evidence, Facts, Statement, judge, liveness};
use crate::sim::lnd::{Fault, SimLnd, SimLndOptions};
use crate::time::{Clock, SystemClock};

/// How long open cash-outs may take to come to rest after the last customer.
const CLOSING: Duration = Duration::from_secs(30);
/// How long the daemon may be away before its last words.
const LAST_WORDS: Duration = Duration::from_secs(30);
/// A hold may outlast its deadlines by the time the daemon is dead or ending.
const SLACK: Duration = Duration::from_secs(30);
/// Ports that are taken away between reserving and using them.
const PORTS: u32 = 5;
/// Open files of this process beside the machines'.
const FILES: u64 = 256;
/// The generators' names.
const KILLS: u64 = 3;
const RESTARTS: u64 = 4;

/// Runs a simulation; `false` when the audit found a violation.
///
/// # Errors
/// When there is nothing to audit.
pub async fn simulate(options: Options) -> Result<bool, SimulationError> {
    let scenario = match &options.scenario {
        Some(path) => Scenario::load(path)?,
        None => Scenario::built_in()?,
    };
    check_limits(options.atms)?;
    if let Some(path) = &options.report {
        // Now, and not after hours.
        std::fs::write(path, "").map_err(system(format!("--report {}", path.display())))?;
    }
    let dir = options.keep.clone().unwrap_or_else(|| {
        let name = format!("tellerd-simulation-{}-{}", std::process::id(), options.seed);
        std::env::temp_dir().join(name)
    });
    let place = Place::make(dir.clone()).map_err(system(dir.display().to_string()))?;
    introduce(&options, &scenario);
    let good = tokio::select! {
        good = stage(&options, scenario, &place) => good,
        // The daemon ends with the runtime that its keeper lives in.
        () = interrupted() => Err(SimulationError::Own("interrupted".into())),
    };
    if options.keep.is_some() || !matches!(good, Ok(true)) {
        say(&format!(
            "Kept: {} (fleet.toml, daemon.log, data/, lnd/, machines/, last_words.json)",
            place.dir.display()
        ));
    } else if let Err(error) = std::fs::remove_dir_all(&place.dir) {
        say(&format!("{} can not be removed: {error}", place.dir.display()));
    }
    good
}

fn introduce(options: &Options, scenario: &Scenario) {
    say(&format!(
        "Simulating {} cash-out ATMs for {} s (seed {}): {}.",
        options.atms,
        options.duration.as_secs(),
        options.seed,
        scenario.about
    ));
    say(
        "The daemon is a real `tellerd run` process. Around it: a simulated LND (gRPC over TLS), emulated dispensers on",
    );
    say("serial lines (pseudo-terminals), customers who pay hold invoices or do not, and an operator who clears jams.");
    say(
        "When the last customer is gone, every note that left a machine is compared with every satoshi that was taken.",
    );
}

fn check_limits(atms: usize) -> Result<(), SimulationError> {
    let too_many = |why: String| Err(SimulationError::TooMany { atms, why });
    let wanted = u64::try_from(atms).unwrap_or(u64::MAX);
    if wanted == 0 {
        return Err(SimulationError::Own("--atms: at least one machine".into()));
    }
    let terminals = std::fs::read_to_string("/proc/sys/kernel/pty/max");
    if let Some(most) = terminals.ok().and_then(|text| text.trim().parse::<u64>().ok())
        && wanted.saturating_add(16) > most
    {
        return too_many(format!("this system has {most} pseudo-terminals"));
    }
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    if let Some(most) = files
        && wanted.saturating_mul(4).saturating_add(FILES) > most
    {
        return too_many(format!(
            "a process may open {most} files here (ulimit -n), 4 for each machine and {FILES} are needed"
        ));
    }
    Ok(())
}

/// Everything between an empty work directory and the verdict.
async fn stage(options: &Options, scenario: Scenario, place: &Place) -> Result<bool, SimulationError> {
    let own = |error: String| SimulationError::Own(error);
    let atms: Result<Vec<AtmId>, _> = (0..options.atms).map(|index| setup::atm_name(index).parse()).collect();
    let atms = atms.map_err(|error: crate::ids::BadId| own(error.to_string()))?;
    let mut tasks = JoinSet::new();
    let (lnd, lnd_port) = start_lnd(place, &scenario, &mut tasks)?;
    let stands = start_machines(place, &scenario, &atms, &mut tasks).await?;
    let token = load_or_create_token(&place.token())?;
    let (daemon, api) = start_daemon(options, place, &scenario, &atms, lnd_port, token.expose()).await?;
    let world = Arc::new(World {
        scenario,
        seed: options.seed,
        rate: setup::rate().map_err(|error| own(error.to_string()))?,
        api,
        lnd: lnd.handle(),
        stands,
        visits: Mutex::default(),
        troubles: Mutex::default(),
        figures: Figures::default(),
        closed: watch::Sender::new(false),
    });
    let display = tokio::spawn(progress::show(Arc::clone(&world), options.duration));
    let played = play(options, &world, daemon, &mut tasks).await;
    display.abort();
    progress::done();
    let statement = played?;
    let words = serde_json::to_vec_pretty(&statement).map_err(|error| own(error.to_string()))?;
    std::fs::write(place.last_words(), words).map_err(system("last_words.json"))?;
    audit(options, &world, statement)
}

fn start_lnd(
    place: &Place,
    scenario: &Scenario,
    tasks: &mut JoinSet<String>,
) -> Result<(SimLnd, u16), SimulationError> {
    let sim_options = SimLndOptions {
        block_interval_ms: u64::try_from(scenario.lnd.block_interval.as_millis()).unwrap_or(u64::MAX),
        ..SimLndOptions::default()
    };
    let lnd = SimLnd::open(&place.lnd(), &sim_options)?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(system("a port for the simulated LND"))?;
    let address = listener.local_addr().map_err(system("the simulated LND's port"))?;
    let serving = lnd.serve(listener);
    tasks.spawn(async move { format!("the simulated LND ended: {:?}", serving.await) });
    Ok((lnd, address.port()))
}

async fn start_machines(
    place: &Place,
    scenario: &Scenario,
    atms: &[AtmId],
    tasks: &mut JoinSet<String>,
) -> Result<Vec<Stand>, SimulationError> {
    let mut stands = Vec::new();
    let machines = scenario.machines;
    for (index, atm) in atms.iter().enumerate() {
        let notes = DENOMINATIONS.map(|value| {
            if value > Minor::ZERO {
                i64::from(machines.notes)
            } else {
                -1
            }
        });
        let setup = Setup {
            cassettes: notes,
            near_end_notes: machines.low_notes,
            note_ms: u64::try_from(machines.note_time.as_millis()).unwrap_or(u64::MAX),
            purge_ms: 100,
            ledger: Some(place.ledger(atm)),
            ..Setup::default()
        };
        let emulator =
            Emulator::new(setup::variant(index), setup).map_err(system(format!("the dispenser of {atm}")))?;
        let inside = emulator.handle();
        let atm = atm.clone();
        let (line, name) = (place.line(&atm), atm.to_string());
        tasks.spawn(async move {
            format!(
                "the dispenser of {name} ended: {:?}",
                serve_on_pty(&emulator, &line).await
            )
        });
        stands.push(Stand { atm, inside });
    }
    // Every line is there before the daemon looks for it.
    for stand in &stands {
        let line = place.line(&stand.atm);
        while std::fs::symlink_metadata(&line).is_err() {
            if let Some(Ok(ended)) = tasks.try_join_next() {
                return Err(SimulationError::Own(ended));
            }
            sleep(Duration::from_millis(5)).await;
        }
    }
    Ok(stands)
}

/// Writes the configuration and starts the daemon for the first time. Its port may be taken away meanwhile.
async fn start_daemon(
    options: &Options,
    place: &Place,
    scenario: &Scenario,
    atms: &[AtmId],
    lnd_port: u16,
    token: &str,
) -> Result<(Daemon, Api), SimulationError> {
    let failed = |why: String| SimulationError::Daemon { why, log: place.log() };
    let mut daemon = Daemon::new(options.program.clone(), place.clone());
    let mut why = String::new();
    for _ in 0..PORTS {
        let reserved = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|listener| listener.local_addr());
        let port = reserved.map_err(system("a port for the daemon"))?.port();
        let text = setup::config_text(place, scenario, atms, port, lnd_port);
        std::fs::write(place.config(), text).map_err(system("fleet.toml"))?;
        let api = Api::new(port, token).map_err(|error| SimulationError::Client(error.to_string()))?;
        match daemon.start(&api).await.map_err(|error| failed(error.to_string()))? {
            None => return Ok((daemon, api)),
            Some(status) => why = format!("it ended at once ({status})"),
        }
    }
    Err(failed(why))
}

/// From the first customer to the daemon's last words.
async fn play(
    options: &Options,
    world: &Arc<World>,
    daemon: Daemon,
    tasks: &mut JoinSet<String>,
) -> Result<Statement, SimulationError> {
    let mut visitors = JoinSet::new();
    for index in 0..world.stands.len() {
        visitors.spawn(customers(Arc::clone(world), index));
    }
    let operator = tokio::spawn(Operator::new(Arc::clone(world)).work());
    let restarts = tokio::spawn(restart_node(Arc::clone(world)));
    let (finish, finished) = oneshot::channel();
    let keeper = tokio::spawn(keep(Arc::clone(world), daemon, finished));
    tokio::select! {
        () = sleep(options.duration) => {}
        Some(ended) = tasks.join_next() => world.trouble("simulation", ended.unwrap_or_else(|error| error.to_string())),
    }
    world.closed.send_replace(true);
    let closing = Instant::now() + CLOSING;
    _ = timeout_at(closing, async { while visitors.join_next().await.is_some() {} }).await;
    _ = timeout_at(closing, at_rest(world)).await;
    restarts.abort();
    operator.abort();
    visitors.shutdown().await;
    let statement = timeout(LAST_WORDS, last_words(world)).await;
    // It ended by itself before; said already.
    _ = finish.send(());
    match keeper.await {
        Ok(Some(daemon)) => end(world, daemon).await,
        Ok(None) => {}
        Err(error) => world.trouble("simulation", error.to_string()),
    }
    statement.map_err(|_| SimulationError::Own("the daemon gave no last words: see its log".into()))
}

async fn interrupted() {
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminate.recv() => {}
    }
}

/// Until nothing happens any more without a human.
async fn at_rest(world: &World) {
    loop {
        if let Ok(cashouts) = world.api.cashouts().await
            && cashouts.iter().all(CashOutView::at_rest)
        {
            return;
        }
        sleep(Duration::from_millis(300)).await;
    }
}

async fn last_words(world: &World) -> Statement {
    loop {
        if let (Ok(cashouts), Ok(atms)) = (world.api.cashouts().await, world.api.atms().await) {
            return Statement { cashouts, atms };
        }
        sleep(Duration::from_millis(200)).await;
    }
}

/// Kills the daemon as the scenario says, starts it again, and notices when it ends by itself. Gives it back in the
/// end; `None` when it can not be kept running.
async fn keep(world: Arc<World>, mut daemon: Daemon, mut finished: oneshot::Receiver<()>) -> Option<Daemon> {
    let mut random = world.random(KILLS, 0);
    loop {
        let kill = async {
            match world.scenario.daemon.kill_every {
                Some(every) if world.wait(around(&mut random, every)).await => {}
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = &mut finished => return Some(daemon),
            () = kill => {}
            ended = daemon.ended() => world.trouble("daemon_ended", format!("the daemon ended by itself: {ended:?}")),
        }
        // It may have ended by itself.
        if daemon.kill().await.is_ok() {
            count(&world.figures.kills);
        }
        match daemon.start(&world.api).await {
            Ok(None) => {}
            Ok(Some(status)) => {
                world.trouble("daemon_ended", format!("the daemon ended at its start: {status}"));
                return None;
            }
            Err(error) => {
                world.trouble("daemon_ended", error.to_string());
                return None;
            }
        }
    }
}

async fn restart_node(world: Arc<World>) {
    let mut random = world.random(RESTARTS, 0);
    let Some(every) = world.scenario.lnd.restart_every else {
        return;
    };
    while world.wait(around(&mut random, every)).await {
        let (down, startup) = (Duration::from_millis(800), Duration::from_millis(600));
        match world.lnd.inject(Fault::Restart { down, startup }) {
            Ok(()) => count(&world.figures.restarts),
            Err(error) => world.trouble("simulation", format!("the node can not be restarted: {error}")),
        }
    }
}

/// Asks the daemon to end, and has its journal verified.
async fn end(world: &World, mut daemon: Daemon) {
    match daemon.stop().await {
        Ok(Some(status)) if status.success() => {}
        Ok(Some(status)) => world.trouble("daemon_ended", format!("asked to end, it ended with {status}")),
        Ok(None) => world.trouble("daemon_ended", "asked to end, it did not"),
        Err(error) => world.trouble("daemon_ended", error.to_string()),
    }
    match daemon.verify_journal().await {
        Ok(None) => {}
        Ok(Some(told)) => world.trouble("journal_damaged", told),
        Err(error) => world.trouble("journal_damaged", error.to_string()),
    }
}

fn audit(options: &Options, world: &World, statement: Statement) -> Result<bool, SimulationError> {
    let evidence = Evidence {
        machines: world.stands.iter().map(Stand::machine).collect(),
        ledger: world.lnd.ledger()?,
        rate: world.rate,
        visits: world.visits.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        statement,
    };
    let facts = Facts::of(&evidence);
    let mut verdict = judge(&evidence, &facts);
    let policy = world.scenario.daemon;
    let patience = policy.hold_deadline + policy.unknown_deadline + SLACK;
    let patience_ms = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
    let idle = liveness(&evidence, &facts, SystemClock.now(), patience_ms);
    verdict.violations.extend(idle);
    verdict
        .violations
        .extend(world.troubles.lock().unwrap_or_else(PoisonError::into_inner).drain(..));
    let run = Run {
        seed: options.seed,
        duration_s: options.duration.as_secs(),
        kills: read(&world.figures.kills),
        faults: world.happened().0,
    };
    let report = Report::new(run, &evidence, &facts, verdict);
    say(&report.summary(&facts));
    if let Some(path) = &options.report {
        let json = serde_json::to_string_pretty(&report).map_err(|error| SimulationError::Own(error.to_string()))?;
        std::fs::write(path, json + "\n").map_err(system(path.display().to_string()))?;
        say(&format!("Report: {}", path.display()));
    }
    Ok(report.violations.is_empty())
}
