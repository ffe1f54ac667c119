//! The course of a simulation: build, open, close, wait for open items, stop the daemons, audit.
//!
//! Called by the command line.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::costs::Costs;
use super::customer::customers;
use super::daemon::Daemon;
use super::keeper::{Keeper, kill_now_and_then};
use super::operator::Operator;
use super::place::Place;
use super::progress::{self, say};
use super::report::{Report, Run};
use super::scenario::Scenario;
use super::trouble::{trouble_disks, trouble_node};
use super::world::{Stand, World, read};
use super::{Options, Payments, SimulationError, Transport, machines, stage, system, words};
use crate::ids::{AtmId, ClientName};
use crate::sim::audit::{Evidence, Facts, Statement, judge, liveness};
use crate::sim::relay::RelayHandle;
use crate::time::{Clock, SystemClock};

/// How long open cash-outs may take to come to rest after the last customer.
const CLOSING: Duration = Duration::from_secs(30);
/// The same over relays, where an answer may be lost, and a site's report comes each half minute.
const CLOSING_NOSTR: Duration = Duration::from_secs(90);
/// How long the daemons may be away before their last words.
const LAST_WORDS: Duration = Duration::from_secs(30);
/// A hold may outlast its deadlines by the time the daemon is dead or ending.
const SLACK: Duration = Duration::from_secs(30);
/// The generators' names.
const KILLS: u64 = 3;
const SERVER_KILLS: u64 = 5;

/// Runs a simulation; `false` when the audit found a violation.
///
/// # Errors
/// When there is nothing to audit.
pub async fn simulate(options: Options) -> Result<bool, SimulationError> {
    let scenario = match &options.scenario {
        Some(path) => Scenario::load(path)?,
        None => Scenario::built_in()?,
    };
    machines::check_limits(&options)?;
    stage::sites(&options)?;
    fits(&options, &scenario)?;
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
        good = perform(&options, scenario, &place) => good,
        // The daemons end with the runtime that their keepers live in.
        () = interrupted() => Err(SimulationError::Own("interrupted".into())),
    };
    if options.keep.is_some() || !matches!(good, Ok(true)) {
        say(&format!(
            "Kept: {} (fleet.toml, daemon.log and data/ of each daemon, lnd/, machines/, last_words.json)",
            place.dir.display()
        ));
    } else if let Err(error) = std::fs::remove_dir_all(&place.dir) {
        say(&format!("{} can not be removed: {error}", place.dir.display()));
    }
    good
}

/// Whether the scenario can be played with these options.
fn fits(options: &Options, scenario: &Scenario) -> Result<(), SimulationError> {
    let own = |why: &str| Err(SimulationError::Own(why.into()));
    if scenario.nostr.is_some() && options.payments == Payments::Lnd {
        return own("the scenario has [relay] or [server], which are there with --payments nostr only");
    }
    if options.kills.is_some() && (options.payments == Payments::Nostr || scenario.disk.is_some()) {
        return own("--kills: one daemon with an LND and a good disk; not with --payments nostr, nor with [disk]");
    }
    if options.transport == Transport::Memory {
        if options.kills.is_some() || scenario.disk.is_some() {
            return own("--transport memory: the daemon is in this process; not with --kills, nor with [disk]");
        }
        if options.payments == Payments::Nostr {
            return own(
                "--transport memory: the daemon is in this process, and there is one; --payments nostr needs several",
            );
        }
        if scenario.daemon.kill_every.is_some() {
            return own(
                "--transport memory: the daemon is in this process and can not be killed; the scenario has daemon.kill_every",
            );
        }
    }
    Ok(())
}

fn introduce(options: &Options, scenario: &Scenario) {
    let (atms, seed, about) = (options.atms, options.seed, &scenario.about);
    let time = match options.kills {
        Some(kills) => format!("until the daemon was killed {kills} times"),
        None => format!("for {} s", options.duration.as_secs()),
    };
    say(&format!(
        "Simulating {atms} cash-out ATMs {time} (seed {seed}): {about}."
    ));
    match options.payments {
        Payments::Lnd if options.transport == Transport::Memory => {
            say(
                "The daemon is on threads of this process. Around it: a simulated LND (gRPC over TLS), emulated dispensers on",
            );
            say("lines in memory, customers who pay hold invoices or do not, and an operator who clears jams.");
        }
        Payments::Lnd => {
            say(
                "The daemon is a real `tellerd run` process. Around it: a simulated LND (gRPC over TLS), emulated dispensers on",
            );
        }
        Payments::Nostr => {
            say(
                "Each site is a real `tellerd run` process, and so is the server with the node, which the sites reach over two",
            );
            say("emulated Nostr relays. Around them: a simulated LND (gRPC over TLS), emulated dispensers on");
        }
    }
    if options.transport == Transport::Pty {
        say(
            "serial lines (pseudo-terminals), customers who pay hold invoices or do not, and an operator who clears jams.",
        );
    }
    say(
        "When the last customer is gone, every note that left a machine is compared with every satoshi that was taken.",
    );
}

/// Everything between an empty work directory and the verdict.
async fn perform(options: &Options, scenario: Scenario, place: &Place) -> Result<bool, SimulationError> {
    let mut tasks = JoinSet::new();
    let stage::Crew {
        world,
        daemons,
        server,
        meter,
        lnd: _lnd,
    } = stage::set(options, scenario, place, &mut tasks).await?;
    let world = Arc::new(world);
    let mut costs = Costs::new(meter.filter(|_| world.scenario.daemon.kill_every.is_none()), &world);
    costs.idle(&world).await?;
    let display = tokio::spawn(progress::show(Arc::clone(&world), options.duration));
    let played = play(options, &world, (daemons, server), &mut tasks, &mut costs).await;
    display.abort();
    progress::done();
    let statement = played?;
    let words = serde_json::to_vec_pretty(&statement).map_err(|error| SimulationError::Own(error.to_string()))?;
    std::fs::write(place.last_words(), words).map_err(system("last_words.json"))?;
    let good = audit(options, &world, statement, costs)?;
    if options.transport == Transport::Memory && (options.keep.is_some() || !good) {
        machines::write_ledgers(place, &world.stands)?;
    }
    Ok(good)
}

/// From the first customer to the daemons' last words.
async fn play(
    options: &Options,
    world: &Arc<World>,
    (daemons, server): (Vec<Daemon>, Option<Daemon>),
    tasks: &mut JoinSet<String>,
    costs: &mut Costs,
) -> Result<Statement, SimulationError> {
    costs.busy_begins();
    let mut visitors = JoinSet::new();
    for index in 0..world.stands.len() {
        visitors.spawn(customers(Arc::clone(world), index));
    }
    let mut staff = JoinSet::new();
    for (index, site) in world.sites.iter().enumerate() {
        staff.spawn(Operator::new(Arc::clone(world), index, site.api.clone()).work());
    }
    bring_trouble(world, daemons.iter().chain(&server), &mut staff);
    let keepers = match options.kills {
        Some(kills) => cycle(world, daemons, kills),
        None => keep(world, daemons, server, &mut staff),
    };
    let begun = Instant::now();
    tokio::select! {
        () = sleep(options.duration), if options.kills.is_none() => {}
        () = world.closing() => {}
        Some(ended) = tasks.join_next() => world.trouble("simulation", ended.unwrap_or_else(|error| error.to_string())),
    }
    costs.busy_ends();
    world.closed.send_replace(true);
    world.lasted_s.store(begun.elapsed().as_secs(), Ordering::Relaxed);
    let closing = Instant::now() + closing(options.payments);
    _ = timeout_at(closing, async { while visitors.join_next().await.is_some() {} }).await;
    _ = timeout_at(closing, words::at_rest(world)).await;
    staff.shutdown().await;
    visitors.shutdown().await;
    let statement = timeout(LAST_WORDS, words::last_words(world)).await;
    join_all(keepers.into_iter().map(|keeper| keeper.end(world))).await;
    statement.map_err(|_| SimulationError::Own("a daemon gave no last words: see its log".into()))
}

/// Keeps all daemons, and sets those on them who kill.
fn keep(world: &Arc<World>, daemons: Vec<Daemon>, server: Option<Daemon>, staff: &mut JoinSet<()>) -> Vec<Keeper> {
    let keep = |daemon| Keeper::start(world, daemon, |figures| &figures.kills);
    let mut keepers: Vec<Keeper> = daemons.into_iter().map(keep).collect();
    let doors = keepers.iter().map(Keeper::kills).collect();
    let every = world.scenario.daemon.kill_every;
    staff.spawn(kill_now_and_then(Arc::clone(world), doors, every, KILLS));
    if let Some(server) = server {
        let keeper = Keeper::start(world, server, |figures| &figures.server_kills);
        let every = world.scenario.nostr.and_then(|terms| terms.kill_server_every);
        staff.spawn(kill_now_and_then(
            Arc::clone(world),
            vec![keeper.kills()],
            every,
            SERVER_KILLS,
        ));
        keepers.push(keeper);
    }
    keepers
}

/// Has the only daemon killed so many times.
fn cycle(world: &Arc<World>, daemons: Vec<Daemon>, kills: u64) -> Vec<Keeper> {
    let keeper = |daemon| Keeper::cycle(world, daemon, kills, &world.cycles);
    daemons.into_iter().map(keeper).collect()
}

fn closing(payments: Payments) -> Duration {
    match payments {
        Payments::Lnd => CLOSING,
        Payments::Nostr => CLOSING_NOSTR,
    }
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

/// Sets those on the node and the daemons' disks who trouble them.
fn bring_trouble<'a>(world: &Arc<World>, daemons: impl Iterator<Item = &'a Daemon>, staff: &mut JoinSet<()>) {
    for (kind, every) in &world.scenario.lnd.troubles {
        staff.spawn(trouble_node(Arc::clone(world), *kind, *every));
    }
    let disks: Vec<_> = daemons.filter_map(Daemon::disk).collect();
    let troubles = world.scenario.disk.iter().flat_map(|disk| &disk.troubles);
    for (kind, every) in troubles {
        staff.spawn(trouble_disks(Arc::clone(world), disks.clone(), *kind, *every));
    }
}

/// Each site with its machines, as its server must show them.
fn expected_sites(world: &World) -> Vec<(ClientName, Vec<AtmId>)> {
    let named = world
        .sites
        .iter()
        .filter_map(|site| Some((site.name.clone()?, site.atms.clone())));
    named.collect()
}

fn audit(options: &Options, world: &World, statement: Statement, costs: Costs) -> Result<bool, SimulationError> {
    let evidence = Evidence {
        machines: world.stands.iter().map(Stand::machine).collect(),
        ledger: world.lnd.ledger()?,
        rate: world.rate,
        visits: world.visits.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        sites: expected_sites(world),
        statement,
    };
    let facts = Facts::of(&evidence);
    let mut verdict = judge(&evidence, &facts);
    let policy = world.scenario.daemon;
    let patience = match options.payments {
        Payments::Lnd => policy.hold_deadline + policy.unknown_deadline + SLACK,
        // All had the time to end, see `words::at_rest`.
        Payments::Nostr => Duration::ZERO,
    };
    let patience_ms = u64::try_from(patience.as_millis()).unwrap_or(u64::MAX);
    let idle = liveness(&evidence, &facts, SystemClock.now(), patience_ms);
    verdict.violations.extend(idle);
    verdict
        .violations
        .extend(world.troubles.lock().unwrap_or_else(PoisonError::into_inner).drain(..));
    let cycles = world.cycles.lock().unwrap_or_else(PoisonError::into_inner);
    let run = Run {
        seed: options.seed,
        duration_s: read(&world.lasted_s),
        transport: options.transport,
        payments: options.payments,
        costs,
        kills: read(&world.figures.kills),
        cycles: options.kills.map(|_| cycles.figures()),
        server_kills: read(&world.figures.server_kills),
        disk_ends: read(&world.figures.disk_ends),
        faults: world.happened().0,
        relays: world
            .nostr
            .iter()
            .flat_map(|nostr| nostr.relays.iter().map(RelayHandle::counts))
            .collect(),
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
