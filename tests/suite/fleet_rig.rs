//! A whole fleet in one test: the actors of `tellerd run`, a simulated LND over TLS, emulated dispensers on ptys,
//! a journal on a disk that can fail, and the audit that each test ends with.
//!
//! Called by the fleet tests. What must stay true: the audit trusts the dispensers' and the node's own ledgers.

#![allow(clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tellerd::app;
use tellerd::cashout::{CashOut, Phase};
use tellerd::config::Config;
use tellerd::hardware::emulate::serve_on_pty;
use tellerd::hardware::puloon::driver::Variant;
use tellerd::hardware::puloon::emulator::{Emulator, EmulatorHandle, Fault, Setup, What};
use tellerd::ids::{AtmId, CashOutId};
use tellerd::journal::{Reader, SegmentFile, WrapFile};
use tellerd::metrics::{AtmState, Metrics};
use tellerd::money::{Funds, Minor};
use tellerd::record::{Body, Record};
use tellerd::sim::lnd::node::record::{InvoiceState, Payment};
use tellerd::sim::lnd::{Ledger, PayOptions, SimHandle, SimLnd, SimLndOptions};
use tellerd::sim::relay::{RelayHandle, RelayOptions};
use tellerd::{actors::fleet::Fleet, store};

/// No test waits longer than this for anything.
pub const LIMIT: Duration = Duration::from_secs(40);
/// Between two looks at something that tells no changes.
const LOOK: Duration = Duration::from_millis(10);

/// In the rig's folder.
const KEY_FILE: &str = "nostr.key";

/// What a test begins with.
pub struct Plan {
    pub machines: Vec<(&'static str, Setup)>,
    /// Lines of `[policy]`.
    pub policy: &'static str,
    /// Lines of `[supervision]`.
    pub supervision: &'static str,
    /// Lines of `[[atm]]`.
    pub limits: &'static str,
    /// Further sections.
    pub more: &'static str,
    /// The fleet is on Nostr, at a relay of the rig's own, with these further sections.
    pub on_nostr: Option<String>,
    /// The node is reachable from the start.
    pub lnd_up: bool,
    /// The node stores what finally becomes of HTLCs.
    pub final_resolutions: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            machines: vec![("left", machine())],
            policy: "",
            supervision: "",
            limits: "min_amount = '20.00'\nmax_amount = '500.00'",
            more: "",
            on_nostr: None,
            lnd_up: true,
            final_resolutions: true,
        }
    }
}

impl Plan {
    pub fn policy(policy: &'static str) -> Self {
        Self {
            policy,
            ..Self::default()
        }
    }
}

/// A loaded dispenser with quick motors.
pub fn machine() -> Setup {
    Setup {
        cassettes: [100, 100, -1, -1],
        ..Setup::default()
    }
}

/// A disk whose writes can be made to fail.
#[derive(Default)]
pub struct Disk {
    /// Writes that contain this fail as on a full disk; an empty text is in all.
    full_for: Mutex<Option<String>>,
    sync_fails: Mutex<bool>,
}

impl Disk {
    pub fn fill(&self, for_what: &str) {
        *self.full_for.lock().expect("lock") = Some(for_what.to_owned());
    }

    pub fn free(&self) {
        *self.full_for.lock().expect("lock") = None;
    }

    pub fn break_sync(&self) {
        *self.sync_fails.lock().expect("lock") = true;
    }
}

struct DiskFile(File, Arc<Disk>);

impl SegmentFile for DiskFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if let Some(what) = &*self.1.full_for.lock().expect("lock")
            && String::from_utf8_lossy(bytes).contains(what.as_str())
        {
            return Err(io::Error::from_raw_os_error(28));
        }
        self.0.append(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        if *self.1.sync_fails.lock().expect("lock") {
            return Err(io::Error::from_raw_os_error(5));
        }
        self.0.sync()
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.0.truncate(len)
    }
}

/// A running fleet.
pub struct Rig {
    pub fleet: Fleet,
    _up: app::Up,
    pub lnd: SimHandle,
    pub disk: Arc<Disk>,
    pub dispensers: BTreeMap<&'static str, EmulatorHandle>,
    /// Of a fleet that is on Nostr.
    pub relay: Option<RelayHandle>,
    /// Serves the node, if it is not served yet.
    lnd_later: Mutex<Option<Box<dyn FnOnce()>>>,
    dir: Arc<tempfile::TempDir>,
}

/// Runs a test on a fleet, then the audit.
pub fn run(plan: Plan, test: impl AsyncFnOnce(&Rig)) {
    let dir = Arc::new(tempfile::tempdir().expect("dir"));
    run_in(&dir, plan, async |rig| {
        test(rig).await;
        rig.audit().await;
    });
}

/// As [`run`], in a folder that other lives have used, and without the audit.
pub fn run_in(dir: &Arc<tempfile::TempDir>, plan: Plan, test: impl AsyncFnOnce(&Rig)) {
    // What the actors say is shown with a test that fails.
    let log = tracing_subscriber::fmt().with_test_writer().with_ansi(false);
    let _ = log.with_env_filter("tellerd=debug").try_init();
    actix::System::new().block_on(async {
        let rig = Rig::bring_up(Arc::clone(dir), plan).await;
        test(&rig).await;
    });
}

impl Rig {
    async fn bring_up(dir: Arc<tempfile::TempDir>, plan: Plan) -> Self {
        let options = SimLndOptions {
            final_resolutions: plan.final_resolutions,
            ..SimLndOptions::default()
        };
        let sim = SimLnd::open(&dir.path().join("lnd"), &options).expect("sim");
        let listener = TcpListener::bind("127.0.0.1:0").expect("port");
        let address = listener.local_addr().expect("address");
        let lnd = sim.handle();
        let serve = Box::new(move || {
            tokio::spawn(sim.serve(listener));
        });
        let mut lnd_later: Option<Box<dyn FnOnce()>> = Some(serve);
        if plan.lnd_up {
            lnd_later.take().expect("there")();
        }
        let mut dispensers = BTreeMap::new();
        for (id, setup) in &plan.machines {
            let link = dir.path().join(id);
            dispensers.insert(*id, switch_on(setup.clone(), &link));
            until("the pty", async || link.exists()).await;
        }
        let disk = Arc::new(Disk::default());
        let relay = match plan.on_nostr {
            None => None,
            Some(_) => Some(RelayHandle::start(RelayOptions::default()).await.expect("relay")),
        };
        let config = config(dir.path(), address, relay.as_ref(), &plan);
        let opened = loop {
            match store::open(&config.data_dir) {
                Ok(opened) => break opened,
                // Threads of the life before are about to end.
                Err(error) if is_held(&error.to_string()) => tokio::time::sleep(LOOK).await,
                Err(error) => panic!("{error}"),
            }
        };
        let up = app::bring_up(&config, opened, &Metrics::new().expect("metrics"), wrap(&disk)).expect("actors");
        Self {
            fleet: up.fleet.clone(),
            _up: up,
            lnd,
            disk,
            dispensers,
            relay,
            lnd_later: Mutex::new(lnd_later),
            dir,
        }
    }

    /// The fleet's key on Nostr.
    pub fn service(&self) -> nostr::PublicKey {
        let secret = std::fs::read_to_string(self.dir.path().join(KEY_FILE)).expect("a key");
        nostr::Keys::parse(secret.trim()).expect("a key").public_key()
    }

    /// What stands in the journal by now.
    pub fn journal(&self) -> Vec<Body> {
        journal_in(&self.dir.path().join("data"))
    }

    /// Serves the node, after a start without.
    pub fn lnd_comes(&self) {
        self.lnd_later.lock().expect("lock").take().expect("not served yet")();
    }

    pub async fn state(&self, atm: &str) -> (AtmState, String) {
        let status = self.fleet.atm(&id(atm)).await.expect("status");
        (status.state, status.reason.unwrap_or_default())
    }

    pub async fn ready(&self, atm: &str) {
        self.stands(atm, AtmState::Ready, "").await;
    }

    /// Waits until a machine is in `state` for a reason that contains `reason`.
    pub async fn stands(&self, atm: &str, state: AtmState, reason: &str) {
        let what = format!("{atm} to be {state:?} because {reason:?}");
        until(&what, async || {
            let (now, why) = self.state(atm).await;
            now == state && why.contains(reason)
        })
        .await;
    }

    /// A customer asks for notes, at a machine that is or gets ready.
    pub async fn start(&self, atm: &str, minor: u64) -> CashOut {
        self.ready(atm).await;
        let cashout = self.fleet.start(&id(atm), Minor(minor)).await.expect("promised");
        assert_eq!(cashout.phase.name(), "awaiting_payment", "{cashout:?}");
        cashout
    }

    /// A paid cash-out of 60.00 whose dispenser lost its power after two notes, and remembers nothing.
    pub async fn unknown_outcome(&self, atm: &str) -> (CashOut, u64) {
        let power = Fault::PowerLost {
            after_notes: Some(2),
            serial_kept: false,
        };
        self.dispensers[atm].inject(power.next());
        let cashout = self.start(atm, 6000).await;
        let payment = self.pay(&cashout);
        until("no evidence", async || {
            let known = self.fleet.cashout(cashout.id).await.expect("cash-out");
            matches!(known.phase, Phase::OutcomeUnknown { no_evidence: true, .. })
        })
        .await;
        (cashout, payment)
    }

    /// Pays as asked.
    pub fn pay(&self, cashout: &CashOut) -> u64 {
        self.pay_as(cashout, &PayOptions::default())
    }

    pub fn pay_as(&self, cashout: &CashOut, options: &PayOptions) -> u64 {
        let request = cashout.payment_request.as_ref().expect("an open invoice");
        self.lnd.pay(request, options).expect("sent")
    }

    /// The customer's payment, once it has ended.
    pub async fn ended(&self, payment: u64) -> Payment {
        let ended = tokio::time::timeout(LIMIT, self.lnd.ended_payment(payment)).await;
        ended.expect("the payment ends").expect("payment")
    }

    /// Waits until a cash-out is in the phase of this name.
    pub async fn reaches(&self, id: CashOutId, phase: &str) -> CashOut {
        let mut last = None;
        let waited = tokio::time::timeout(LIMIT, async {
            let mut changes = self.fleet.follow();
            loop {
                if let Ok(cashout) = self.fleet.cashout(id).await {
                    if cashout.phase.name() == phase {
                        return cashout;
                    }
                    last = Some(cashout);
                }
                // A change may have been before a restart of whoever tells of it: look now and then too.
                let _ = tokio::time::timeout(LOOK * 10, changes.recv()).await;
            }
        });
        let Ok(cashout) = waited.await else {
            let atms = self.fleet.atms().await;
            panic!("{id} does not get {phase}: {last:?}\n{atms:?}\n{:?}", self.lnd.ledger())
        };
        cashout
    }

    /// Waits until it is known of a settled cash-out whether its money is there.
    pub async fn funds(&self, id: CashOutId, funds: Funds) -> CashOut {
        let known = async || self.fleet.cashout(id).await.expect("cash-out");
        until(&format!("money of {id} to be {funds:?}"), async || {
            known().await.funds() == Some(funds)
        })
        .await;
        known().await
    }

    /// One whole cash-out that goes well.
    pub async fn serve(&self, atm: &str) {
        let cashout = self.start(atm, 6000).await;
        let payment = self.pay(&cashout);
        self.reaches(cashout.id, "completed").await;
        assert!(self.ended(payment).await.preimage.is_some());
    }

    /// A metric's value, as a scrape tells it.
    pub async fn metric(&self, name: &str) -> f64 {
        let scrape = self.fleet.metrics().await;
        let line = scrape.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|value| value.trim().parse().ok()).unwrap_or(0.0)
    }

    /// Notes and commands of one dispenser: delivered value, dispenses begun.
    pub fn physical(&self, atm: &str) -> (u64, usize) {
        let dispenser = &self.dispensers[atm];
        let value = dispenser
            .totals()
            .iter()
            .map(|t| u64::from(t.delivered) * if t.position == 1 { 2000 } else { 5000 })
            .sum();
        let begun =
            |event: &&tellerd::hardware::puloon::emulator::Event| matches!(event.what, What::DispenseStarted { .. });
        (value, dispenser.events().iter().filter(begun).count())
    }

    /// Compares what left the machines with what became of the money.
    pub async fn audit(&self) {
        let all = async || self.fleet.cashouts(None, None, 1000).await.expect("cash-outs");
        until("all money to be there or lost", async || {
            all().await.iter().all(|c| c.funds() != Some(Funds::Pending))
        })
        .await;
        let all = all().await;
        let ledger = self.lnd.ledger().expect("ledger");
        let at_lnd: BTreeMap<_, _> = ledger.invoices.iter().map(|i| (i.hash, i)).collect();
        for atm in self.dispensers.keys() {
            let (mut value, mut orders) = (0, 0);
            for cashout in all.iter().filter(|c| c.quote.atm == id(atm)) {
                let state = at_lnd.get(&cashout.quote.hash).map(|i| i.state);
                match &cashout.phase {
                    Phase::Completed | Phase::ClaimOwed => {
                        assert_eq!(state, Some(InvoiceState::Settled), "{cashout:?}");
                        // LND's word is not money: the payers say whether it came.
                        let paid = paid(&ledger, cashout);
                        assert!(paid >= cashout.quote.price.0, "only {paid} came: {cashout:?}");
                    }
                    Phase::Canceled { .. } if cashout.books.funds == Funds::Lost => {
                        assert_eq!(paid(&ledger, cashout), 0, "{cashout:?}");
                    }
                    Phase::Canceled { .. } => {
                        assert!(
                            matches!(state, None | Some(InvoiceState::Canceled)),
                            "{cashout:?} {state:?}"
                        );
                    }
                    Phase::NeedsOperator { .. } => {}
                    open => panic!("left {}: {cashout:?}", open.name()),
                }
                value += cashout.books.delivered.0;
                orders += cashout.orders as usize;
                assert_eq!(cashout.drift(), 0, "{cashout:?}");
            }
            let (left, begun) = self.physical(atm);
            assert_eq!(left, value, "what left {atm} and what the books say");
            assert!(begun <= orders, "{begun} dispenses for {orders} orders");
            let book = self.fleet.atm(&id(atm)).await.expect("atm").book;
            assert_eq!(book.notes.drift(), 0, "{book:?}");
        }
        let money = ledger.money;
        assert_eq!(money.held_msat, 0, "held by nobody's will: {ledger:?}");
        assert_eq!(money.sent_msat, money.settled_msat + money.refunded_msat);
        let pending = ledger.invoices.iter().filter(|i| !i.state.is_final());
        assert_eq!(pending.count(), 0, "{ledger:?}");
        let impossible = super::small_world::history::impossible(&self.journal());
        assert!(impossible.is_empty(), "{impossible:#?}");
    }
}

/// What the payers of a cash-out have lost for good.
fn paid(ledger: &Ledger, cashout: &CashOut) -> u64 {
    let payments = ledger.payments.iter().filter(|p| p.order.hash == cashout.quote.hash);
    payments.map(|payment| payment.money().settled_msat).sum()
}

/// What stands in the journal of this data directory.
pub fn journal_in(data: &Path) -> Vec<Body> {
    let reader = Reader::open(data).expect("journal");
    let entries = reader.map(|entry| entry.expect("intact"));
    entries
        .map(|entry| Record::decode(entry.version, &entry.payload).expect("record").body)
        .collect()
}

/// Puts the journal on this disk.
pub fn wrap(disk: &Arc<Disk>) -> WrapFile {
    let on = Arc::clone(disk);
    Arc::new(move |file| -> Box<dyn SegmentFile> { Box::new(DiskFile(file, Arc::clone(&on))) })
}

/// The directory's lock, or sled's own.
pub fn is_held(error: &str) -> bool {
    error.contains("another tellerd") || error.contains("acquire lock")
}

pub fn id(atm: &str) -> AtmId {
    atm.parse().expect("an id")
}

pub fn switch_on(setup: Setup, link: &Path) -> EmulatorHandle {
    let emulator = Emulator::new(Variant::Standard, setup).expect("emulator");
    let (handle, link) = (emulator.handle(), link.to_owned());
    actix::spawn(async move {
        let served = serve_on_pty(&emulator, &link).await;
        eprintln!("the emulator ended: {served:?}");
    });
    handle
}

/// Waits for a condition of which nobody tells.
pub async fn until(what: &str, condition: impl AsyncFn() -> bool) {
    let waited = tokio::time::timeout(LIMIT, async {
        while !condition().await {
            tokio::time::sleep(LOOK).await;
        }
    });
    assert!(waited.await.is_ok(), "waited in vain for {what}");
}

fn config(dir: &Path, lnd: SocketAddr, relay: Option<&RelayHandle>, plan: &Plan) -> Config {
    let mut text = format!(
        "data_dir = 'data'\n[lnd]\naddress = '{lnd}'\ntls_cert = 'lnd/tls.cert'\nmacaroon = 'lnd/admin.macaroon'\n\
         deadline = '2s'\n[policy]\n{}\n[supervision]\n{}\n[rate]\ncurrency = 'EUR'\nper_btc = '95000.00'\n",
        plan.policy, plan.supervision
    );
    for (id, _) in &plan.machines {
        text += &format!(
            "[[atm]]\nid = '{id}'\nmodel = 'puloon-lcdm4000'\npath = '{id}'\n{}\n\
             [atm.timings]\nack_ms = 500\nreply_ms = 3000\nreset_ms = 10\n\
             [[atm.cassette]]\nposition = 1\ndenomination = '20.00'\nnotes = 100\n\
             [[atm.cassette]]\nposition = 2\ndenomination = '50.00'\nnotes = 100\n",
            plan.limits
        );
    }
    if let (Some(relay), Some(more)) = (relay, &plan.on_nostr) {
        text += &format!("[nostr]\nkey_file = '{KEY_FILE}'\nrelays = ['{}']\n{more}", relay.url());
    }
    text += plan.more;
    Config::parse(&text, &dir.join("fleet.toml")).expect("a configuration")
}
