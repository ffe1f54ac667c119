//! tellerd with emulated machines at the merchant's node, and what its customers and its operator see of it.
//!
//! Notes are counted by the emulators, money by the two nodes; nothing that tellerd says is proof of either.

use std::path::{Path, PathBuf};

use tellerd::api::{AtmView, CancelCashOut, CashOutList, CashOutView, Decision, ResolveCashOut, StartCashOut};
use tellerd::hardware::puloon::emulator::What;
use tellerd::ids::CashOutId;
use tellerd::money::{Funds, Minor};

use crate::rig::{Net, process, until_or};
use crate::site::{Daemon, Lnd, Machine, Site};

/// Values of the notes in positions 1 and 2 of every machine.
pub const DENOMINATIONS: [u64; 2] = [2_000, 5_000];

/// A daemon and its world.
pub struct Teller {
    pub site: Site,
    pub daemon: Daemon,
}

impl Teller {
    /// Starts one at the merchant's node with `macaroon`, and with `more` lines of configuration, tables only.
    pub fn open(net: &Net, macaroon: PathBuf, machines: &[Machine], more: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("tellerd-site-").tempdir().unwrap();
        let lnd = Lnd {
            address: net.merchant.address(),
            tls_cert: net.merchant.dir().join("tls.cert"),
            macaroon,
        };
        let mut site = Site::new(dir, &lnd, machines, more);
        // Also when this process is killed.
        site.under = ["setpriv", "--pdeathsig", "KILL"].map(str::to_owned).to_vec();
        let daemon = site.daemon(&[]);
        Self { site, daemon }
    }

    /// `kill -9`, and the next life.
    pub async fn kill_and_start(&mut self) {
        self.daemon.kill().await;
        self.daemon = self.site.daemon(&[]);
    }

    /// Returns once the machine serves customers.
    pub async fn ready(&self, atm: &str) -> AtmView {
        let path = format!("/v1/atms/{atm}");
        self.seen(&format!("{atm} is ready"), async || {
            let view: AtmView = self.daemon.get(&path).await?;
            (serde_json::to_value(&view).unwrap()["state"] == "ready").then_some(view)
        })
        .await
    }

    /// A customer asks for notes worth `minor`; the cash-out with its invoice.
    pub async fn start(&self, atm: &str, minor: u64) -> CashOutView {
        let order = StartCashOut {
            atm: atm.parse().unwrap(),
            amount_minor: Minor(minor),
        };
        let begun: CashOutView = self.daemon.post("/v1/cashouts", &order).await.expect("a promise");
        // Under load it may not be payable any more when it is looked at.
        let path = format!("/v1/cashouts/{}", begun.id);
        self.seen(&format!("{} has an invoice", begun.id), async || {
            let view: CashOutView = self.daemon.get(&path).await?;
            view.payment_request.is_some().then_some(view)
        })
        .await
    }

    /// Returns once the cash-out is in one of `states`.
    pub async fn reaches(&self, id: CashOutId, states: &[&str]) -> CashOutView {
        let path = format!("/v1/cashouts/{id}");
        self.seen(&format!("{id} is one of {states:?}"), async || {
            let view: CashOutView = self.daemon.get(&path).await?;
            states.contains(&view.state.as_str()).then_some(view)
        })
        .await
    }

    /// An operator decides about a cash-out.
    pub async fn resolve(&self, id: CashOutId, decision: Decision) {
        let order = ResolveCashOut {
            by: "ada".to_owned(),
            decision,
            note: String::new(),
        };
        let path = format!("/v1/cashouts/{id}/resolve");
        self.daemon.post::<CashOutView>(&path, &order).await.expect("resolved");
    }

    /// The customer does not want to pay any more.
    pub async fn cancel(&self, id: CashOutId) {
        let path = format!("/v1/cashouts/{id}/cancel");
        let order = CancelCashOut::default();
        self.daemon.post::<CashOutView>(&path, &order).await.expect("canceled");
    }

    /// Returns once it is known that this became of the settled money.
    pub async fn funds_are(&self, id: CashOutId, funds: Funds) -> CashOutView {
        let path = format!("/v1/cashouts/{id}");
        self.seen(&format!("the funds of {id} are {funds:?}"), async || {
            let view: CashOutView = self.daemon.get(&path).await?;
            (view.funds == Some(funds)).then_some(view)
        })
        .await
    }

    /// All cash-outs, the newest first.
    pub async fn cashouts(&self) -> Vec<CashOutView> {
        let list = self.seen("the list of cash-outs", async || {
            self.daemon.get::<CashOutList>("/v1/cashouts").await
        });
        list.await.cashouts
    }

    /// The value of a metric without labels.
    pub async fn metric(&self, name: &str) -> Option<f64> {
        let text = self.seen("metrics", async || self.daemon.text("/metrics").await).await;
        let mut values = text
            .lines()
            .filter_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        values.next_back()
    }

    /// What `tellerd journal verify` says, beside the running daemon.
    pub async fn verify_journal(&self) -> Result<String, String> {
        let data = self.site.path("data").display().to_string();
        let arguments = ["journal", "verify", "--data", &data].map(str::to_owned);
        let program = Path::new(env!("CARGO_BIN_EXE_tellerd"));
        process::output(program, &arguments, &self.site.path("")).await
    }

    /// Value of the notes that left the machine `atm1`, `atm2`, …, counted from 0, in minor units.
    pub fn cash_out(&self, machine: usize) -> u64 {
        let events = self.site.machines[machine].events();
        let notes = events.iter().filter_map(|event| match event.what {
            What::NoteDelivered { position, .. } => Some(DENOMINATIONS[usize::from(position) - 1]),
            _ => None,
        });
        notes.sum()
    }

    /// Returns what `look` finds, once it finds it.
    async fn seen<T>(&self, what: &str, look: impl AsyncFn() -> Option<T>) -> T {
        let found = std::cell::RefCell::new(None);
        until_or(
            what,
            || self.daemon.last_words(),
            async || {
                let seen = look().await;
                let there = seen.is_some();
                *found.borrow_mut() = seen;
                there
            },
        )
        .await;
        found.into_inner().expect("it was found")
    }
}
