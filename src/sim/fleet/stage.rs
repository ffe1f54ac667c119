//! Sets the stage: the simulated LND, the machines, the relays, and the daemons with their configurations.
//!
//! Called by the runner. What must stay true: all is there before the first customer comes; each daemon runs.

use std::collections::{BTreeMap, HashMap};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use ::nostr::{Keys, RelayUrl};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::client::Api;
use super::daemon::{Daemon, Port, Program};
use super::machines::{self, Started};
use super::meter::Meter;
use super::place::{Home, Place, write_secret};
use super::scenario::Scenario;
use super::setup::{self, SiteSetup, WayToServer};
use super::world::{Figures, OnNostr, Site, Stand, World};
use super::{Options, Payments, SimulationError, Transport, system};
use crate::config::token::load_or_create_token;
use crate::hardware::port::Connect;
use crate::ids::{AtmId, NostrKey};
use crate::sim::lnd::{SimLnd, SimLndOptions};
use crate::sim::relay::{RelayHandle, RelayOptions};

/// Relays; each daemon connects to all of them.
const RELAYS: u64 = 2;
/// Machines of a site, usually.
const USUAL: usize = 6;
/// Sites, usually, at most.
const SITES: usize = 8;
/// A report of a site has room for so many machines.
const MOST: usize = 64;

/// What runs in the beginning.
pub struct Crew {
    /// What all tasks share.
    pub world: World,
    /// The daemons with machines, in the order of `world.sites`.
    pub daemons: Vec<Daemon>,
    /// The sites' server.
    pub server: Option<Daemon>,
    /// Of the only daemon; `None` when there are several.
    pub meter: Option<Meter>,
    /// Ends with the simulation.
    pub lnd: SimLnd,
}

/// How many daemons have machines.
///
/// # Errors
/// When it can not be as asked.
pub fn sites(options: &Options) -> Result<usize, SimulationError> {
    let own = |why: String| Err(SimulationError::Own(why));
    let least = options.atms.div_ceil(MOST).max(1);
    match (options.payments, options.sites) {
        (Payments::Lnd, None) => Ok(1),
        (Payments::Lnd, Some(_)) => own("--sites: there are sites with --payments nostr only".into()),
        (Payments::Nostr, None) => Ok(options.atms.div_ceil(USUAL).clamp(1, SITES).max(least)),
        (Payments::Nostr, Some(sites)) if sites < least => {
            own(format!("--sites: at least {least}, a site has at most {MOST} machines"))
        }
        (Payments::Nostr, Some(sites)) if sites > options.atms => own("--sites: more sites than machines".into()),
        (Payments::Nostr, Some(sites)) => Ok(sites),
    }
}

/// Everything, from an empty work directory. `tasks` run for as long as the simulation does.
///
/// # Errors
/// When something of it can not be had.
pub async fn set(
    options: &Options,
    scenario: Scenario,
    place: &Place,
    tasks: &mut JoinSet<String>,
) -> Result<Crew, SimulationError> {
    let own = |error: String| SimulationError::Own(error);
    let atms: Result<Vec<AtmId>, _> = (0..options.atms).map(|index| setup::atm_name(index).parse()).collect();
    let atms = atms.map_err(|error: crate::ids::BadId| own(error.to_string()))?;
    let (lnd, lnd_port) = start_lnd(place, &scenario, tasks)?;
    let Started { machines, lines } = machines::start(options.transport, place, &scenario, &atms, tasks).await?;
    let born = match options.payments {
        Payments::Lnd => start_one(options, place, &scenario, (atms, lines), lnd_port).await?,
        Payments::Nostr => start_sites(options, place, &scenario, &atms, lnd_port).await?,
    };
    let homes = |site: &Site| {
        site.atms
            .iter()
            .cloned()
            .zip(std::iter::repeat(site.api.clone()))
            .collect::<Vec<_>>()
    };
    let apis: HashMap<AtmId, Api> = born.sites.iter().flat_map(homes).collect();
    let stands = machines.into_iter().filter_map(|(atm, inside)| {
        let api = apis.get(&atm)?.clone();
        Some(Stand { atm, inside, api })
    });
    let world = World {
        scenario,
        seed: options.seed,
        rate: setup::rate().map_err(|error| own(error.to_string()))?,
        stands: stands.collect(),
        sites: born.sites,
        nostr: born.nostr,
        lnd: lnd.handle(),
        visits: Mutex::default(),
        troubles: Mutex::default(),
        figures: Figures::default(),
        faults: Mutex::default(),
        lasted_s: AtomicU64::new(0),
        cycles: Arc::default(),
        node_life: tokio::sync::Mutex::default(),
        node_sync: tokio::sync::Mutex::default(),
        closed: watch::Sender::new(false),
    };
    Ok(Crew {
        world,
        daemons: born.daemons,
        server: born.server,
        meter: born.meter,
        lnd,
    })
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

/// The daemons, up.
struct Born {
    sites: Vec<Site>,
    nostr: Option<OnNostr>,
    daemons: Vec<Daemon>,
    server: Option<Daemon>,
    meter: Option<Meter>,
}

async fn start_one(
    options: &Options,
    place: &Place,
    scenario: &Scenario,
    (atms, lines): (Vec<AtmId>, BTreeMap<AtmId, Connect>),
    lnd_port: u16,
) -> Result<Born, SimulationError> {
    let text = |port| setup::fleet_text(place, scenario, &atms, port, lnd_port);
    let program = match options.transport {
        Transport::Pty => Program::process(&options.program),
        Transport::Memory => Program::inside(&options.program, lines),
    };
    let inside = Meter::inside();
    let on_a_disk = scenario.disk.is_some();
    let (daemon, api) = start_daemon(program, ("the daemon", on_a_disk), place.only(), text).await?;
    let meter = daemon.process().map_or(inside, Meter::of);
    Ok(Born {
        sites: vec![Site { name: None, api, atms }],
        nostr: None,
        daemons: vec![daemon],
        server: None,
        meter: Some(meter),
    })
}

async fn start_sites(
    options: &Options,
    place: &Place,
    scenario: &Scenario,
    atms: &[AtmId],
    lnd_port: u16,
) -> Result<Born, SimulationError> {
    let mut relays = Vec::new();
    for index in 0..RELAYS {
        let relay = RelayOptions {
            seed: options.seed.wrapping_mul(RELAYS).wrapping_add(index),
            faults: scenario.nostr.unwrap_or_default().relay,
            ..RelayOptions::default()
        };
        relays.push(RelayHandle::start(relay).await?);
    }
    let urls: Vec<RelayUrl> = relays.iter().map(RelayHandle::url).collect();
    let setups = site_setups(place, sites(options)?)?;
    let key = make_key(&place.of("server"))?;
    let text = |port| setup::server_text(scenario, &setups, &urls, port, lnd_port);
    let (program, on_a_disk) = (|| Program::process(&options.program), scenario.disk.is_some());
    let (daemon, server) = start_daemon(program(), ("server", on_a_disk), place.of("server"), text).await?;
    let mut born = Born {
        sites: Vec::new(),
        nostr: None,
        daemons: Vec::new(),
        server: Some(daemon),
        meter: None,
    };
    for (index, setup) in setups.iter().enumerate() {
        let share = |index: usize| index * atms.len() / setups.len();
        let atms = atms.get(share(index)..share(index + 1)).unwrap_or_default();
        let home = place.of(setup.name.as_str());
        let way = match setup.key {
            Some(_) => WayToServer {
                service: key.to_string(),
                invited: false,
                relays: urls.clone(),
            },
            None => pair(&server, setup, &home, &urls).await?,
        };
        let text = |port| setup::site_text(place, scenario, atms, port, &way);
        let (daemon, api) = start_daemon(program(), (setup.name.as_str(), on_a_disk), home, text).await?;
        born.daemons.push(daemon);
        born.sites.push(Site {
            name: Some(setup.name.clone()),
            api,
            atms: atms.to_vec(),
        });
    }
    born.nostr = Some(OnNostr { server, relays });
    Ok(born)
}

/// The first site is invited, the others' keys are in the server's configuration.
fn site_setups(place: &Place, sites: usize) -> Result<Vec<SiteSetup>, SimulationError> {
    let mut setups = Vec::new();
    for number in 1..=sites {
        let name = format!("site-{number}");
        let key = match number {
            1 => None,
            _ => Some(make_key(&place.of(&name))?),
        };
        let name = name.parse();
        let name = name.map_err(|error: crate::ids::BadId| SimulationError::Own(error.to_string()))?;
        setups.push(SiteSetup { name, key });
    }
    Ok(setups)
}

/// Makes a daemon's key, before its first start.
fn make_key(home: &Home) -> Result<NostrKey, SimulationError> {
    let keys = Keys::generate();
    write_secret(&home.key(), &keys.secret_key().to_secret_hex()).map_err(system(home.key().display().to_string()))?;
    Ok(NostrKey(keys.public_key().to_bytes()))
}

/// Has a site invited by the server, as its operator would. It is told one of the relays only; the invitation has all.
async fn pair(server: &Api, setup: &SiteSetup, home: &Home, urls: &[RelayUrl]) -> Result<WayToServer, SimulationError> {
    let invited = server.invite(&setup.name, "simulated operator").await;
    let pairing = invited
        .map_err(|error| SimulationError::Own(format!("no invitation: {error}")))?
        .pairing;
    write_secret(&home.pairing(), &pairing).map_err(system(home.pairing().display().to_string()))?;
    let service = pairing.split(':').next().unwrap_or_default().to_owned();
    Ok(WayToServer {
        service,
        invited: true,
        relays: urls.iter().take(1).cloned().collect(),
    })
}

/// Writes a configuration and starts a daemon for the first time.
async fn start_daemon(
    program: Program,
    (name, on_a_disk): (&str, bool),
    home: Home,
    text: impl FnOnce(u16) -> String,
) -> Result<(Daemon, Api), SimulationError> {
    let log = home.log();
    let failed = |why: String| SimulationError::Daemon {
        why: format!("{name}: {why}"),
        log: log.clone(),
    };
    std::fs::create_dir_all(&home.dir).map_err(system(home.dir.display().to_string()))?;
    let token = load_or_create_token(&home.token())?;
    let port = Port::keep().map_err(system("a port for a daemon"))?;
    let config = home.config();
    std::fs::write(&config, text(port.number)).map_err(system(config.display().to_string()))?;
    let api = Api::new(port.number, token.expose()).map_err(|error| SimulationError::Client(error.to_string()))?;
    let mut daemon = Daemon::new(program, name.to_owned(), home, api.clone(), port);
    if on_a_disk {
        daemon.on_a_disk();
    }
    match daemon.start().await.map_err(|error| failed(error.to_string()))? {
        None => Ok((daemon, api)),
        Some(status) => Err(failed(format!("it ended at once ({status})"))),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn machines_are_spread_over_a_few_sites() {
        let options = |payments, atms, sites| Options {
            atms,
            transport: Transport::Pty,
            payments,
            sites,
            duration: Duration::ZERO,
            kills: None,
            seed: 1,
            scenario: None,
            report: None,
            keep: None,
            program: "tellerd".into(),
        };
        let nostr = |atms, wanted| sites(&options(Payments::Nostr, atms, wanted)).ok();
        assert_eq!(nostr(1, None), Some(1));
        assert_eq!(nostr(20, None), Some(4));
        assert_eq!(nostr(50, None), Some(8));
        assert_eq!(nostr(640, None), Some(10), "a report has room for 64 machines");
        assert_eq!(nostr(65, Some(1)), None);
        assert_eq!(nostr(3, Some(4)), None);
        assert_eq!(nostr(3, Some(3)), Some(3));
        assert_eq!(sites(&options(Payments::Lnd, 3, None)).ok(), Some(1));
        assert_eq!(sites(&options(Payments::Lnd, 3, Some(1))).ok(), None);
    }
}
