//! The one place that names concrete parts and puts them together: `tellerd run`.
//!
//! Called by the command line. What must stay true: the data directory is locked before anything else happens, the
//! port is taken before LND hears of us, and a daemon that can not work says why and ends.

mod nostr;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use actix::Actor;
use thiserror::Error;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot, watch};

use crate::actors::child::Post;
use crate::actors::clients;
use crate::actors::fleet::Fleet;
use crate::actors::funds;
use crate::actors::invoice_work::Turns;
use crate::actors::level::Level;
use crate::actors::lnd::LndStatus;
use crate::actors::nostr::gate::Gate;
use crate::actors::nostr::once::Orders;
use crate::actors::shared::{Seat, Shared, Terms};
use crate::actors::supervisor::{Foundations, Supervisor};
use crate::config::token::{Token, TokenError, load_or_create_token};
use crate::config::{AtmConfig, Config, Model, Payments, Variant};
use crate::entropy::{SharedEntropy, SystemEntropy};
use crate::hardware::device::{self, DeviceConfig};
use crate::hardware::port::{Connect, Line};
use crate::hardware::puloon;
use crate::http;
use crate::ids::AtmId;
use crate::journal::{Appender, OpenError, Options, Pause, WrapFile};
use crate::lnd::{EndpointError, Lightning, LndClient};
use crate::metrics::Metrics;
use crate::money::FixedRate;
use crate::nostr::outbox::Outbox;
use crate::store::{self, Follower, Opened, StateError, StoreError};
use crate::time::{SharedClock, SystemClock};
use nostr::{NostrError, OnNostr};

/// Changes that a slow follower may lag behind before it has to read anew.
const CHANGES: usize = 4096;
/// Ends of HTLCs that an invoice's actor may lag behind; it finds by asking what it missed.
const FINALS: usize = 1024;
/// Appends that may wait before the actors wait themselves.
const APPENDS: usize = 65_536;
/// How long an end that was asked for waits for a dispense under way. Longer than any device takes for one.
const LAST_DISPENSE: Duration = Duration::from_secs(90);

/// Why the daemon does not start, or ends by itself.
#[derive(Debug, Error)]
pub enum AppError {
    /// The data directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// The journal's writer.
    #[error(transparent)]
    Journal(#[from] OpenError),
    /// The journal takes no records any more, or the store does not follow it.
    #[error("the state can not be kept any more: {0}; start tellerd again")]
    StateLost(String),
    /// The API's token.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// What this daemon needs on Nostr.
    #[error(transparent)]
    Nostr(#[from] NostrError),
    /// LND's address.
    #[error("lnd: {0}")]
    Lnd(#[from] EndpointError),
    /// A site without its service; the configuration does not let it come to this.
    #[error("payments = \"nostr\" needs [site] and [nostr]")]
    NoService,
    /// The relays' thread is gone, so nobody can be reached any more.
    #[error("the thread of the relays died: start tellerd again")]
    LineDied,
    /// The API's address.
    #[error("http.listen: {address} can not be used: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system says.
        source: std::io::Error,
    },
    /// Open items of a machine that is not configured would be left alone.
    #[error(
        "ATM {atm} is not in the configuration but has open cash-outs ({open}): put it back, or resolve them first"
    )]
    Orphans {
        /// Which.
        atm: AtmId,
        /// Its open cash-outs.
        open: String,
    },
    /// The metrics contradict themselves.
    #[error("metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The system.
    #[error("{what}: {source}")]
    System {
        /// What was wanted of it.
        what: &'static str,
        /// What it says.
        source: std::io::Error,
    },
    /// The supervisor is gone, so nothing is looked after any more.
    #[error("the supervisor died: start tellerd again")]
    SupervisorDied,
}

fn system(what: &'static str) -> impl FnOnce(std::io::Error) -> AppError {
    move |source| AppError::System { what, source }
}

/// Runs the daemon on this thread until it is asked to end. `wrap` goes around each file of the journal.
///
/// # Errors
/// When it can not start, or can not go on.
pub fn run(config: Config, wrap: WrapFile, instead: Instead) -> Result<(), AppError> {
    actix::System::new().block_on(live(config, wrap, instead))
}

async fn live(config: Config, wrap: WrapFile, mut instead: Instead) -> Result<(), AppError> {
    let ends = instead.ends.take();
    let opened = store::open(&config.data_dir)?;
    greet(&opened);
    check_orphans(&opened, &config.atms)?;
    let token = config
        .http
        .token_file
        .as_deref()
        .map(load_or_create_token)
        .transpose()?;
    let listener = listen(config.http.listen)?;
    let metrics = Metrics::new()?;
    let up = bring_up_with(&config, opened, &metrics, wrap, instead)?;
    serve(up, metrics, listener, token, ends).await
}

/// The actors of a fleet, at work.
pub struct Up {
    /// The door to them.
    pub fleet: Fleet,
    /// Answers, with an error, when the supervisor is gone.
    pub supervisor_ended: oneshot::Receiver<()>,
    /// Answers, with an error, when the relays' thread is gone; `None` when this daemon is not on Nostr.
    pub line_ended: Option<oneshot::Receiver<()>>,
    /// What is asked over Nostr comes in here; `None` when this daemon is not there.
    pub gate: Option<Arc<Gate>>,
}

/// What tests and benchmarks put in the place of the world outside; by default nothing.
#[derive(Default)]
pub struct Instead {
    /// Of the LND.
    pub lnd: Option<Arc<dyn Lightning>>,
    /// Of the relays, for what the gate sends.
    pub outbox: Option<Arc<dyn Outbox>>,
    /// Of the machine's clock.
    pub clock: Option<SharedClock>,
    /// Of the system's random bytes.
    pub entropy: Option<SharedEntropy>,
    /// Of the serial ports of these machines, see [`crate::hardware::memory`].
    pub lines: BTreeMap<AtmId, Connect>,
    /// Of the threads of the journal and the store: all is done on this one, by tasks, with such pauses of the disk.
    pub one_thread: Option<Pause>,
    /// Of the signals that ask the daemon to end.
    pub ends: Option<mpsc::UnboundedReceiver<()>>,
}

/// Whoever asks the daemon to end.
enum Ends {
    Signals(Signal, Signal),
    MadeUp(mpsc::UnboundedReceiver<()>),
}

impl Ends {
    fn new(made_up: Option<mpsc::UnboundedReceiver<()>>) -> Result<Self, AppError> {
        if let Some(made_up) = made_up {
            return Ok(Self::MadeUp(made_up));
        }
        let of = |kind| signal(kind).map_err(system("signals"));
        Ok(Self::Signals(
            of(SignalKind::terminate())?,
            of(SignalKind::interrupt())?,
        ))
    }

    /// Returns when it is asked for, once more each time. Whoever can not ask any more wants it too.
    async fn asked(&mut self) {
        match self {
            Self::Signals(terminate, interrupt) => tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            },
            Self::MadeUp(ends) => _ = ends.recv().await,
        }
    }
}

/// Starts the actors. `wrap` goes around each file of the journal; tests let it fail.
///
/// # Errors
/// When the journal, LND's address or a thread can not be had.
pub fn bring_up(config: &Config, opened: Opened, metrics: &Metrics, wrap: WrapFile) -> Result<Up, AppError> {
    bring_up_with(config, opened, metrics, wrap, Instead::default())
}

/// As [`bring_up`], in a world that is partly made up.
///
/// # Errors
/// As [`bring_up`]'s.
pub fn bring_up_with(
    config: &Config,
    opened: Opened,
    metrics: &Metrics,
    wrap: WrapFile,
    instead: Instead,
) -> Result<Up, AppError> {
    let clock = instead.clock.unwrap_or_else(|| Arc::new(SystemClock));
    let entropy = instead.entropy.unwrap_or_else(|| Arc::new(SystemEntropy));
    let mut on_nostr = OnNostr::begin(config, &clock, metrics)?;
    let node: Arc<dyn Lightning> = match (&config.payments, &on_nostr) {
        (Payments::Lnd(lnd), _) => match instead.lnd {
            Some(made_up) => made_up,
            None => Arc::new(LndClient::new(lnd)?),
        },
        (Payments::Nostr(_), Some(on_nostr)) => on_nostr.node(config).ok_or(AppError::NoService)?,
        (Payments::Nostr(_), None) => return Err(AppError::NoService),
    };
    let recorded = clients::Recorded::of(opened.store.folded());
    let seats = seats(config, &instead.lines);
    let parts = (metrics.clone(), clock, entropy, seats);
    let shared = Arc::new(shared(config, parts, on_nostr.as_mut(), &recorded));
    let keeper = keeper(config, opened, metrics, wrap, &shared.journal_lost, instead.one_thread)?;
    let foundations = foundations(config, keeper, node);
    let (ended, supervisor_ended) = oneshot::channel();
    Supervisor::new(Arc::clone(&shared), foundations, ended).start();
    let fleet = Fleet::new(Arc::clone(&shared));
    let connected = on_nostr.map(|on_nostr| on_nostr.connect(&shared, &fleet, instead.outbox));
    let (gate, line_ended) = connected.transpose()?.unzip();
    Ok(Up {
        fleet,
        supervisor_ended,
        line_ended,
        gate,
    })
}

fn greet(opened: &Opened) {
    if let Some(aside) = &opened.set_aside {
        tracing::warn!(kept = %aside.display(), "the state store could not be used and was folded anew");
    }
    for torn in opened.journal.torn() {
        tracing::warn!(%torn, "torn by a crash, never acknowledged");
    }
    let state = opened.store.folded();
    tracing::info!(
        records = opened.journal.last().seq,
        replayed = opened.replayed,
        open_cashouts = state.cashouts.len(),
        open_invoices = state.invoices.len(),
        "the journal is read"
    );
}

fn check_orphans(opened: &Opened, atms: &[AtmConfig]) -> Result<(), AppError> {
    let known: BTreeSet<&AtmId> = atms.iter().map(|atm| &atm.id).collect();
    let cashouts = || opened.store.folded().cashouts.values();
    let Some(orphan) = cashouts().find(|c| !known.contains(&c.quote.atm)) else {
        return Ok(());
    };
    let atm = orphan.quote.atm.clone();
    let open: Vec<String> = cashouts()
        .filter(|c| c.quote.atm == atm)
        .map(|c| c.id.to_string())
        .collect();
    let open = open.join(", ");
    Err(AppError::Orphans { atm, open })
}

fn listen(address: SocketAddr) -> Result<TcpListener, AppError> {
    let failed = |source| AppError::Listen { address, source };
    let listener = TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

/// Who writes the journal and who follows it. Both end with the process, or with the thread they are tasks of; what is
/// acknowledged is durable.
fn keeper(
    config: &Config,
    opened: Opened,
    metrics: &Metrics,
    wrap: WrapFile,
    lost: &Arc<watch::Sender<Option<String>>>,
    one_thread: Option<Pause>,
) -> Result<(Appender, Follower), AppError> {
    let lost = Arc::clone(lost);
    let failed = move |error: StoreError| drop(lost.send_replace(Some(error.to_string())));
    let figures = metrics.clone();
    let options = Options {
        segment_bytes: config.journal.segment_bytes,
        queue: APPENDS,
        on_batch: Box::new(move |batch| {
            let records = u32::try_from(batch.records).unwrap_or(u32::MAX);
            figures.journal_synced(records, batch.sync);
        }),
        wrap,
    };
    if let Some(pause) = one_thread {
        let follower = Follower::here(opened.store, failed);
        let (appender, writer) = opened.journal.start_here(options, follower.sink(), pause)?;
        actix::spawn(writer);
        return Ok((appender, follower));
    }
    let (follower, _thread) = Follower::start(opened.store, failed).map_err(system("the store's thread"))?;
    let (appender, _thread) = opened.journal.start(options, follower.sink())?;
    Ok((appender, follower))
}

fn foundations(config: &Config, (appender, follower): (Appender, Follower), node: Arc<dyn Lightning>) -> Foundations {
    Foundations {
        appender,
        follower,
        node,
        nostr: config.nostr.clone(),
        supervision: config.supervision,
    }
}

/// The machines, each with its dispenser's line.
fn seats(config: &Config, lines: &BTreeMap<AtmId, Connect>) -> BTreeMap<AtmId, Arc<Seat>> {
    let seat = |atm: &AtmConfig| {
        let mut device = device(atm);
        if let Some(connect) = lines.get(&atm.id) {
            device.line = Line::Memory(Arc::clone(connect));
        }
        (atm.id.clone(), Arc::new(Seat::new(atm.clone(), device)))
    };
    config.atms.iter().map(seat).collect()
}

fn shared(
    config: &Config,
    (metrics, clock, entropy, seats): (Metrics, SharedClock, SharedEntropy, BTreeMap<AtmId, Arc<Seat>>),
    on_nostr: Option<&mut OnNostr>,
    recorded: &clients::Recorded,
) -> Shared {
    let service = on_nostr.as_ref().and_then(|on_nostr| on_nostr.identity.clone());
    let operators = config.nostr.as_ref().map(|nostr| nostr.operators.clone());
    let operators = operators.unwrap_or_default();
    let roster = clients::roster(service.as_deref(), &operators, recorded);
    let gate = on_nostr.as_ref().map(|on_nostr| on_nostr.door.clone());
    let sites = on_nostr.map(|on_nostr| std::mem::take(&mut on_nostr.sites));
    Shared {
        journal: Post::default(),
        lnd: Post::default(),
        status: Level::new(LndStatus::default()),
        nostr: Post::default(),
        gate,
        sites: Mutex::new(sites.unwrap_or_default()),
        orders: Orders::default(),
        supervisor: Post::default(),
        seats,
        terms: Terms {
            policy: config.policy.clone(),
            payment_timeout: config.payment_timeout,
            rate: Box::new(FixedRate(config.rate)),
            currency: config.rate.currency,
            fee: config.fee,
            private_route_hints: config.private_route_hints,
        },
        clock,
        entropy,
        metrics,
        noted: Mutex::default(),
        changes: broadcast::Sender::new(CHANGES),
        finals: broadcast::Sender::new(FINALS),
        funds_turns: Semaphore::new(funds::AT_ONCE),
        watch_turns: Turns::default(),
        journal_lost: Arc::new(watch::Sender::new(None)),
        service,
        operators,
        roster: watch::Sender::new(Arc::new(roster)),
        client_changes: tokio::sync::Mutex::default(),
        stopping: watch::Sender::new(false),
    }
}

/// The driver's settings for a configured machine.
fn device(atm: &AtmConfig) -> DeviceConfig {
    let model = match atm.model {
        Model::PuloonLcdm4000 => device::Model::PuloonLcdm4000,
    };
    let variant = match atm.variant {
        Variant::Standard => puloon::driver::Variant::Standard,
        Variant::Serial => puloon::driver::Variant::Serial,
    };
    let mut config = DeviceConfig::new(model, variant, atm.path.to_string_lossy());
    config.max_notes = atm.max_notes;
    config.timings.ack = atm.timings.ack.unwrap_or(config.timings.ack);
    config.timings.reply = atm.timings.reply.unwrap_or(config.timings.reply);
    config.timings.reset = atm.timings.reset.unwrap_or(config.timings.reset);
    config
}

/// Serves until a signal, or until something that is needed ends.
async fn serve(
    up: Up,
    metrics: Metrics,
    listener: TcpListener,
    token: Option<Token>,
    ends: Option<mpsc::UnboundedReceiver<()>>,
) -> Result<(), AppError> {
    let fleet = &up.fleet;
    let address = listener.local_addr().map_err(system("the API's address"))?;
    if token.is_none() {
        tracing::warn!("http.token_file is not set: whoever reaches {address} may change things");
    }
    let server = http::serve(fleet.clone(), metrics, listener, token).map_err(system("the API"))?;
    tracing::info!(%address, "tellerd serves");
    let mut ends = Ends::new(ends)?;
    let handle = server.handle();
    tokio::select! {
        served = server => return served.map_err(system("the API")),
        _ = up.supervisor_ended => return Err(AppError::SupervisorDied),
        () = line_ended(up.line_ended) => return Err(AppError::LineDied),
        why = fleet.journal_lost() => return Err(AppError::StateLost(why)),
        () = ends.asked() => {}
    }
    tracing::info!("asked to end: no new customers, waiting for dispenses under way");
    tokio::select! {
        () = fleet.stop() => {}
        () = tokio::time::sleep(LAST_DISPENSE) => tracing::warn!("a dispense is still under way; its outcome is read at the next start"),
        () = ends.asked() => {}
    }
    handle.stop(false).await;
    tracing::info!("ended");
    Ok(())
}

/// Answers when the relays' thread has ended, if there ever was one.
async fn line_ended(ended: Option<oneshot::Receiver<()>>) {
    match ended {
        // It is dropped, never sent.
        Some(ended) => _ = ended.await,
        None => std::future::pending().await,
    }
}
