//! A whole daemon in a thread: all that `tellerd run` starts, with a made-up node or LND, and a made-up outbox on demand.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::thread;

use ::nostr::PublicKey;
use tellerd::actors::nostr::gate::Gate;
use tellerd::app::{self, Instead};
use tellerd::config::Config;
use tellerd::journal::{Options, SegmentFile, WrapFile};
use tellerd::lnd::Lightning;
use tellerd::metrics::Metrics;
use tellerd::nostr::outbox::Outbox;
use tellerd::store;
use tokio::sync::oneshot;

/// The service's secret key.
pub const SECRET: &str = "0000000000000000000000000000000000000000000000000000000000ffffff";

/// What a daemon begins with.
pub struct Plan<'a> {
    pub dir: &'a Path,
    pub relay: &'a str,
    /// Rows of `[[service.client]]`.
    pub clients: &'a str,
    pub journal_in_memory: bool,
    pub outbox: Option<Arc<dyn Outbox>>,
    /// In the place of the LND that `lnd` names.
    pub node: Option<Arc<dyn Lightning>>,
    /// The keys of `[lnd]`.
    pub lnd: &'a str,
}

/// Keys of `[lnd]` when a made-up node stands there.
pub const NO_LND: &str = "address = '127.0.0.1:1'\ntls_cert = 'none'\nmacaroon = 'none'";

/// A running one. Its actors end when it is dropped.
pub struct Daemon {
    pub gate: Arc<Gate>,
    pub metrics: Metrics,
    _stop: oneshot::Sender<()>,
}

/// A file that does not wait for any disk.
struct Memory(File);

impl SegmentFile for Memory {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.append(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.0.truncate(len)
    }
}

fn config(plan: &Plan) -> Config {
    let key_file = plan.dir.join("nostr.key");
    std::fs::write(&key_file, SECRET).unwrap();
    let owner_only = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&key_file, owner_only).unwrap();
    let sats = 2_100_000_000_000_000_u64;
    let text = format!(
        "data_dir = 'data'\n[lnd]\n{}\n[rate]\ncurrency = 'EUR'\nper_btc = '95000.00'\n\
         [nostr]\nkey_file = 'nostr.key'\nrelays = ['{}']\n\
         [service]\nmax_amount_sats = {sats}\nmax_held_sats = {sats}\nsats_per_day = {sats}\nmax_open = 100000\n\
         requests_per_minute = 60000\n{}",
        plan.lnd, plan.relay, plan.clients
    );
    Config::parse(&text, &plan.dir.join("fleet.toml")).expect("a configuration")
}

impl Daemon {
    /// Returns when its node can be asked for invoices.
    pub fn start(plan: Plan) -> Self {
        let (config, outbox, node) = (config(&plan), plan.outbox.clone(), plan.node.clone());
        let wrap: WrapFile = match plan.journal_in_memory {
            true => Arc::new(|file| Box::new(Memory(file))),
            false => Options::default().wrap,
        };
        let (stop, stopped) = oneshot::channel::<()>();
        let (started, up) = mpsc::channel();
        let metrics = Metrics::new().unwrap();
        let figures = metrics.clone();
        let run = move || {
            actix::System::new().block_on(async move {
                let instead = Instead {
                    lnd: node,
                    outbox,
                    ..Instead::default()
                };
                let opened = store::open(&config.data_dir).expect("a data directory");
                let up = app::bring_up_with(&config, opened, &figures, wrap, instead).expect("actors");
                while !up.fleet.metrics().await.contains("tellerd_lnd_connected 1") {
                    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
                }
                started.send(up.gate.clone().expect("a gate")).unwrap();
                let _ = stopped.await;
            });
        };
        thread::Builder::new().name("actors".into()).spawn(run).unwrap();
        Self {
            gate: up.recv().expect("a daemon that starts"),
            metrics,
            _stop: stop,
        }
    }
}

/// The service's public key.
pub fn service() -> PublicKey {
    ::nostr::Keys::parse(SECRET).unwrap().public_key()
}
