//! All that `tellerd run` starts, in this thread, and its configuration.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tellerd::actors::fleet::Fleet;
use tellerd::app::{self, Instead};
use tellerd::cashout::CashOut;
use tellerd::config::Config;
use tellerd::hardware::port::Connect;
use tellerd::ids::{AtmId, CashOutId};
use tellerd::journal::{SegmentFile, WrapFile};
use tellerd::metrics::Metrics;
use tellerd::money::Minor;
use tellerd::store;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use crate::machines::{NOTES, name};

/// What every customer wants: three notes.
pub const AMOUNT: Minor = Minor(6_000);
/// Of an ATM that is not ready yet.
const LOOK: Duration = Duration::from_millis(1);

/// A configuration of `atms` machines, whose lines are in `dir`.
pub fn text(lnd: &str, dir: &Path, atms: usize) -> String {
    let mut text = format!(
        "data_dir = \"data\"\n[http]\nlisten = \"127.0.0.1:0\"\n{lnd}\
         [rate]\ncurrency = \"EUR\"\nper_btc = \"95000.00\"\n[fee]\nfixed = \"1.00\"\n\
         [policy]\npayment_timeout = \"24h\"\n"
    );
    for index in 0..atms {
        let (id, path) = (name(index), dir.join(name(index).as_str()));
        // Writing to a text does not fail.
        let _ = write!(
            text,
            "[[atm]]\nid = \"{id}\"\nmodel = \"puloon-lcdm4000\"\nvariant = \"standard\"\npath = {path:?}\n\
             min_amount = \"20.00\"\nmax_amount = \"500.00\"\n\
             [[atm.cassette]]\nposition = 1\ndenomination = \"20.00\"\nnotes = {NOTES}\n\
             [[atm.cassette]]\nposition = 2\ndenomination = \"50.00\"\nnotes = {NOTES}\n\
             [atm.timings]\nack_ms = 150\nreply_ms = 60000\nreset_ms = 100\n"
        );
    }
    text
}

/// The syncs of the journal's file.
pub type Syncs = Arc<Mutex<Vec<(Instant, Instant)>>>;

struct Counted(File, Syncs);

impl SegmentFile for Counted {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0.append(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        let begun = Instant::now();
        self.0.sync()?;
        self.1.lock().unwrap().push((begun, Instant::now()));
        Ok(())
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.0.truncate(len)
    }
}

/// A running fleet.
pub struct Daemon {
    pub fleet: Fleet,
    pub syncs: Syncs,
    _up: app::Up,
}

/// Runs `work` beside a fleet that is configured by `text`, with its folder `dir` on the disk.
pub fn beside(
    dir: &Path,
    text: &str,
    lines: &BTreeMap<AtmId, Connect>,
    work: impl AsyncFnOnce(&Daemon) + Send + 'static,
) {
    let config = Config::parse(text, &dir.join("fleet.toml")).expect("a configuration");
    let lines = lines.clone();
    // Each with an arbiter of its own, which ends with it.
    let run = move || {
        actix::System::new().block_on(async move {
            let daemon = Daemon::start(&config, lines);
            work(&daemon).await;
        });
    };
    let actors = std::thread::Builder::new().name("actors".into()).spawn(run).unwrap();
    actors.join().unwrap();
}

impl Daemon {
    fn start(config: &Config, lines: BTreeMap<AtmId, Connect>) -> Self {
        let syncs = Syncs::default();
        let noted = Arc::clone(&syncs);
        let wrap: WrapFile = Arc::new(move |file| Box::new(Counted(file, Arc::clone(&noted))));
        let opened = store::open(&config.data_dir).expect("a data directory");
        let instead = Instead {
            lines,
            ..Instead::default()
        };
        let up = app::bring_up_with(config, opened, &Metrics::new().unwrap(), wrap, instead).expect("actors");
        Self {
            fleet: up.fleet.clone(),
            syncs,
            _up: up,
        }
    }

    /// The value of a metric.
    pub async fn metric(&self, name: &str) -> f64 {
        let text = self.fleet.metrics().await;
        let line = text.lines().find_map(|line| line.strip_prefix(name));
        line.map_or(0.0, |value| value.trim().parse().unwrap())
    }
}

/// A promise at a machine that is ready, or gets ready.
pub async fn promised(fleet: &Fleet, atm: &AtmId) -> CashOut {
    loop {
        match fleet.start(atm, AMOUNT).await {
            Ok(cashout) => return cashout,
            Err(_) => tokio::time::sleep(LOOK).await,
        }
    }
}

/// Returns once this cash-out is at its end and the money is there.
pub async fn final_end(changes: &mut Receiver<CashOut>, id: CashOutId) -> CashOut {
    loop {
        match changes.recv().await {
            Ok(cashout) if cashout.id == id && cashout.is_final() => return cashout,
            Ok(_) => {}
            Err(RecvError::Lagged(missed)) => panic!("{missed} changes were missed"),
            Err(RecvError::Closed) => panic!("the fleet has ended"),
        }
    }
}
