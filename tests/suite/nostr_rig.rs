//! A hold-invoice service in one test: the actors of `tellerd run` with `[service]`, a simulated LND, an embedded relay,
//! and clients with keys of their own.
//!
//! Called by the Nostr tests. What must stay true: clients reach the service over the relay alone; what LND holds is read
//! from its own ledger.

#![allow(clippy::expect_used, clippy::panic)]

use std::net::TcpListener;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nostr::{Event, Keys, PublicKey};
use tellerd::actors::fleet::Fleet;
use tellerd::config::{Config, Payments};
use tellerd::ids::{PaymentHash, Preimage};
use tellerd::lnd::LndClient;
use tellerd::metrics::Metrics;
use tellerd::nostr::caller::{CallError, Caller, CallerTimings};
use tellerd::nostr::method::{Call, CreateHoldInvoice, CreatedInvoice, HoldInvoice, HoldState, InvoiceStanding};
use tellerd::nostr::outbox::Outbox;
use tellerd::nostr::relays::{Arrived, Relays, Settings, Timings, Unwatched};
use tellerd::nostr::wire::{Code, Version};
use tellerd::sim::lnd::node::record::InvoiceState;
use tellerd::sim::lnd::{PayOptions, SimHandle, SimLnd, SimLndOptions};
use tellerd::sim::relay::{RelayHandle, RelayOptions};
use tellerd::time::{SystemClock, UnixMs};
use tellerd::{app, store};

use super::fleet_rig::{Disk, is_held, until, wrap};

/// The test's two configured clients.
pub fn alice() -> Keys {
    Keys::parse(&"11".repeat(32)).expect("key")
}

pub fn bob() -> Keys {
    Keys::parse(&"22".repeat(32)).expect("key")
}

/// Lines of the configuration.
#[derive(Clone, Copy, Default)]
pub struct Plan {
    pub policy: &'static str,
    pub service: &'static str,
}

/// A running service.
pub struct Service {
    pub fleet: Fleet,
    _up: app::Up,
    pub lnd: SimHandle,
    /// Another program's way to the same LND.
    pub node: LndClient,
    pub relay: RelayHandle,
    pub disk: Arc<Disk>,
    pub key: PublicKey,
}

/// Runs a test on a service in `dir`, which other lives may have used.
pub fn run_in(dir: &Path, plan: Plan, test: impl AsyncFnOnce(&Service)) {
    let log = tracing_subscriber::fmt().with_test_writer().with_ansi(false);
    let _ = log.with_env_filter("tellerd=debug").try_init();
    actix::System::new().block_on(async {
        let service = Service::bring_up(dir, plan).await;
        test(&service).await;
    });
}

/// The same in a folder of its own.
pub fn run(plan: Plan, test: impl AsyncFnOnce(&Service)) {
    let dir = tempfile::tempdir().expect("dir");
    run_in(dir.path(), plan, test);
}

impl Service {
    async fn bring_up(dir: &Path, plan: Plan) -> Self {
        let sim = SimLnd::open(&dir.join("lnd"), &SimLndOptions::default()).expect("sim");
        let listener = TcpListener::bind("127.0.0.1:0").expect("port");
        let address = listener.local_addr().expect("address");
        let lnd = sim.handle();
        tokio::spawn(sim.serve(listener));
        let relay = RelayHandle::start(RelayOptions::default()).await.expect("relay");
        let text = format!(
            "data_dir = 'data'\n[lnd]\naddress = '{address}'\ntls_cert = 'lnd/tls.cert'\nmacaroon = 'lnd/admin.macaroon'\n\
             deadline = '2s'\n[policy]\n{}\n[rate]\ncurrency = 'EUR'\nper_btc = '95000.00'\n\
             [nostr]\nkey_file = 'nostr.key'\nrelays = ['{}']\n[service]\nrequests_per_minute = 60000\n{}\n\
             [[service.client]]\nname = 'alice'\nkey = '{}'\n[[service.client]]\nname = 'bob'\nkey = '{}'\n",
            plan.policy,
            relay.url(),
            plan.service,
            alice().public_key().to_hex(),
            bob().public_key().to_hex(),
        );
        let config = Config::parse(&text, &dir.join("fleet.toml")).expect("a configuration");
        let Payments::Lnd(node) = &config.payments else {
            panic!("an LND of its own")
        };
        let node = LndClient::new(node).expect("a client of LND");
        let disk = Arc::new(Disk::default());
        let up = bring_up(&config, &disk).await;
        let key = std::fs::read_to_string(dir.join("nostr.key")).expect("the key");
        let key = Keys::parse(key.trim()).expect("a key").public_key();
        let fleet = up.fleet.clone();
        until("LND", async || fleet.readiness().await.lnd.is_ok()).await;
        Self {
            fleet,
            _up: up,
            lnd,
            node,
            relay,
            disk,
            key,
        }
    }

    /// A client with a connection of its own.
    pub async fn client(&self, keys: Keys) -> Client {
        self.client_of(keys, Version::V2).await
    }

    pub async fn client_of(&self, keys: Keys, version: Version) -> Client {
        Client::connect(keys, self.key, &self.relay, version).await
    }

    pub fn state_at_lnd(&self, hash: PaymentHash) -> Option<InvoiceState> {
        let ledger = self.lnd.ledger().expect("ledger");
        ledger
            .invoices
            .iter()
            .find(|invoice| invoice.hash == hash)
            .map(|invoice| invoice.state)
    }

    /// Waits until LND's invoice is in this state.
    pub async fn reaches(&self, hash: PaymentHash, state: InvoiceState) {
        until(&format!("{hash} to be {state:?} at LND"), async || {
            self.state_at_lnd(hash) == Some(state)
        })
        .await;
    }

    /// A metric's value, as a scrape tells it.
    pub async fn metric(&self, name: &str) -> f64 {
        let scrape = self.fleet.metrics().await;
        let line = scrape.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|value| value.trim().parse().ok()).unwrap_or(0.0)
    }

    pub async fn dropped(&self, reason: &str) -> f64 {
        let name = format!("tellerd_nostr_events_dropped_total{{reason=\"{reason}\"}}");
        self.metric(&name).await
    }
}

/// Brings the actors up on a disk that can fail; threads of a life before may have to end first.
pub async fn bring_up(config: &Config, disk: &Arc<Disk>) -> app::Up {
    // Twice the time of any other wait: what does not end then never will.
    for _ in 0..8_000 {
        let opened = match store::open(&config.data_dir) {
            Ok(opened) => opened,
            Err(error) if is_held(&error.to_string()) => {
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
            Err(error) => panic!("{error}"),
        };
        match app::bring_up(config, opened, &Metrics::new().expect("metrics"), wrap(disk)) {
            Ok(up) => return up,
            Err(error) if is_held(&error.to_string()) => tokio::time::sleep(Duration::from_millis(10)).await,
            Err(error) => panic!("{error}"),
        }
    }
    panic!("a life before does not let go of {}", config.data_dir.display());
}

/// Keeps the events it publishes, so that a test can publish one again.
struct Recorder {
    relays: Arc<Relays>,
    sent: Arc<Mutex<Vec<Event>>>,
}

#[async_trait::async_trait]
impl Outbox for Recorder {
    async fn publish(&self, event: Event, until: UnixMs) -> Result<(), String> {
        self.sent.lock().expect("lock").push(event.clone());
        Outbox::publish(&*self.relays, event, until).await
    }
}

/// A client of the service.
pub struct Client {
    pub caller: Caller,
    relays: Arc<Relays>,
    sent: Arc<Mutex<Vec<Event>>>,
}

impl Client {
    pub async fn connect(keys: Keys, service: PublicKey, relay: &RelayHandle, version: Version) -> Self {
        let settings = Settings {
            urls: vec![relay.url()],
            keys: keys.clone(),
            clock: Arc::new(SystemClock),
            timings: Timings::default(),
        };
        let (sender, mut arrived) = tokio::sync::mpsc::channel(64);
        let relays = Relays::start(settings, sender, Arc::new(Unwatched))
            .await
            .expect("relays");
        let relays = Arc::new(relays);
        let sent = Arc::default();
        let recorder = Recorder {
            relays: Arc::clone(&relays),
            sent: Arc::clone(&sent),
        };
        let timings = CallerTimings {
            deadline: Duration::from_secs(5),
            give_up: Duration::from_secs(30),
        };
        let clock = Arc::new(SystemClock);
        let caller = Caller::new(keys, service, version, clock, Arc::new(recorder), timings);
        let hears = caller.clone();
        actix::spawn(async move {
            while let Some(Arrived { event, .. }) = arrived.recv().await {
                let _ = hears.incoming(event);
            }
        });
        let mut epoch = relays.epoch();
        epoch.wait_for(|epoch| *epoch > 0).await.expect("connected");
        Self { caller, relays, sent }
    }

    /// The last event that was sent.
    pub fn last_sent(&self) -> Event {
        self.sent.lock().expect("lock").last().expect("sent").clone()
    }

    /// Publishes an event as it is.
    pub async fn publish(&self, event: Event) {
        let until = UnixMs(u64::MAX);
        Outbox::publish(&*self.relays, event, until).await.expect("published");
    }

    pub async fn create(&self, wanted: &CreateHoldInvoice) -> Result<CreatedInvoice, CallError> {
        let call = Call::CreateHoldInvoice(wanted.clone());
        self.caller.ask(&call, CreatedInvoice::read).await
    }

    pub async fn get(&self, hash: PaymentHash) -> Result<HoldInvoice, CallError> {
        self.caller.ask(&Call::GetHoldInvoice(hash), HoldInvoice::read).await
    }

    pub async fn settle(&self, preimage: &Preimage) -> Result<InvoiceStanding, CallError> {
        let call = Call::SettleHoldInvoice(preimage.clone());
        self.caller.ask(&call, InvoiceStanding::read).await
    }

    pub async fn cancel(&self, hash: PaymentHash) -> Result<InvoiceStanding, CallError> {
        self.caller
            .ask(&Call::CancelHoldInvoice(hash), InvoiceStanding::read)
            .await
    }

    /// Waits until the invoice is in this state at the service.
    pub async fn sees(&self, hash: PaymentHash, state: HoldState) -> HoldInvoice {
        let seen = Mutex::new(None);
        until(&format!("{hash} to be {state:?}"), async || {
            let now = self.get(hash).await.expect("an answer");
            let there = now.state == state;
            *seen.lock().expect("lock") = Some(now);
            there
        })
        .await;
        seen.into_inner().expect("lock").expect("seen")
    }

    /// A held invoice: made, and paid by a customer.
    pub async fn held(&self, service: &Service, preimage: &Preimage) -> (PaymentHash, u64) {
        let wanted = wanted(preimage, 21_000);
        let created = self.create(&wanted).await.expect("created");
        let payment = service.lnd.pay(&created.invoice, &PayOptions::default()).expect("sent");
        self.sees(wanted.hash, HoldState::Accepted).await;
        (wanted.hash, payment)
    }
}

pub fn preimage(byte: u8) -> Preimage {
    Preimage::from_bytes([byte; 32])
}

pub fn wanted(preimage: &Preimage, amount_sats: u64) -> CreateHoldInvoice {
    CreateHoldInvoice {
        hash: preimage.hash(),
        amount_sats,
        memo: "cash".into(),
        expiry_seconds: 600,
        cltv_expiry: None,
    }
}

/// The code of a call that must have failed at the service.
pub fn code<T: std::fmt::Debug>(answer: Result<T, CallError>) -> Code {
    match answer {
        Err(CallError::Failed(failure)) => failure.code,
        other => panic!("no failure of the service: {other:?}"),
    }
}
