//! The stage of one fault: one tellerd with a machine for each state, and a cash-out that stands in that state.
//!
//! What must stay true: a state is reached by what customers, operators and devices do, and it is read back from tellerd
//! before the fault comes. Slow notes, machines and an LND that stand still (SIGSTOP) keep it there.

use std::path::PathBuf;
use std::time::Duration;

use tellerd::api::{AtmView, CashOutView, Decision, Ordered, ResolveCashOut, StartCashOut};
use tellerd::hardware::puloon::driver::Variant;
use tellerd::hardware::puloon::emulator::{EmulatorHandle, Fault as Mishap, Setup, Target};
use tellerd::ids::CashOutId;
use tellerd::money::Minor;
use tokio::time::Instant;

use crate::rig::{Net, breath, until};
use crate::site::Machine;
use crate::teller::Teller;

/// Value of the notes of every cash-out, in minor units: three notes.
pub const AMOUNT: u64 = 6_000;

/// Machines that stand still at a command until LND can not be asked any more.
const STILL: [(State, Target); 3] = [
    (State::Held, Target::LastStatus),
    (State::Canceling, Target::LastStatus),
    (State::Settling, Target::Dispense),
];
/// The longest way from a fault to the rest of all cash-outs.
const PATIENCE: Duration = Duration::from_secs(120);

/// Where a cash-out stands when the fault comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Promised; AddHoldInvoice is on its way.
    Creating,
    /// The customer sees the invoice.
    AwaitingPayment,
    /// The payment is accepted; the order is not committed yet.
    Held,
    /// Notes are moving.
    Dispensing,
    /// All notes are out, but the device can not tell.
    OutcomeUnknown,
    /// SettleInvoice is on its way.
    Settling,
    /// CancelInvoice is on its way, for a payment that is held.
    Canceling,
}

impl State {
    /// One machine stands for each, in this order.
    pub const ALL: [Self; 7] = [
        Self::Creating,
        Self::AwaitingPayment,
        Self::Held,
        Self::Dispensing,
        Self::OutcomeUnknown,
        Self::Settling,
        Self::Canceling,
    ];

    /// Its name in tellerd's API.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Creating => "quoted",
            Self::AwaitingPayment => "awaiting_payment",
            Self::Held => "held",
            Self::Dispensing => "dispensing",
            Self::OutcomeUnknown => "outcome_unknown",
            Self::Settling => "settling",
            Self::Canceling => "canceling",
        }
    }

    /// Milliseconds for each note: what is to be overtaken by a fault is slow.
    const fn note_ms(self) -> u64 {
        match self {
            Self::Dispensing => 2_000,
            _ => 5,
        }
    }
}

/// One machine and its cash-out.
pub struct Cell {
    /// `atm1`, …
    pub atm: String,
    /// The promise, when there was one.
    pub id: Option<CashOutId>,
    /// The invoice as the customer sees it.
    pub request: Option<String>,
    /// The customer pays, or has paid.
    pub paid: bool,
}

/// All of them. A further machine, the last one, has nothing to do: it shows whether customers would be served.
pub struct Stage {
    pub teller: Teller,
    pub cells: Vec<Cell>,
}

impl Stage {
    /// Starts tellerd with `macaroon`; the machines are ready.
    pub async fn open(net: &Net, macaroon: PathBuf) -> Self {
        let machine = |note_ms| Machine {
            variant: Variant::Standard,
            setup: Setup {
                note_ms,
                ..Setup::default()
            },
        };
        let mut machines: Vec<Machine> = State::ALL.iter().map(|state| machine(state.note_ms())).collect();
        machines.push(machine(0));
        let teller = Teller::open(net, macaroon, &machines, "");
        let cell = |index| Cell {
            atm: format!("atm{}", index + 1),
            id: None,
            request: None,
            paid: false,
        };
        let cells = (0..State::ALL.len()).map(cell).collect();
        let stage = Self { teller, cells };
        for number in 1..=machines.len() {
            stage.teller.ready(&format!("atm{number}")).await;
        }
        stage
    }

    fn index(state: State) -> usize {
        State::ALL
            .iter()
            .position(|each| *each == state)
            .expect("it is one of all")
    }

    pub fn cell(&self, state: State) -> &Cell {
        &self.cells[Self::index(state)]
    }

    /// What tellerd says of the cell's cash-out now.
    pub async fn view(&self, state: State) -> Option<CashOutView> {
        let id = self.cell(state).id?;
        self.teller.daemon.get(&format!("/v1/cashouts/{id}")).await
    }

    /// Why the machine without work serves nobody, if it does not.
    pub async fn complaint(&self) -> Option<String> {
        let path = format!("/v1/atms/atm{}", State::ALL.len() + 1);
        let view: AtmView = self.teller.daemon.get(&path).await?;
        view.reason
    }

    /// Returns once the machine without work gives a reason that has `words` in it: that reason.
    pub async fn complains(&self, words: &str) -> String {
        until(
            &format!("tellerd names `{words}`\n{}", self.teller.daemon.last_words()),
            async || self.complaint().await.is_some_and(|why| why.contains(words)),
        )
        .await;
        self.complaint().await.unwrap_or_default()
    }

    async fn reaches(&self, state: State, name: &str) {
        let id = self.cell(state).id.expect("it was begun");
        self.teller.reaches(id, &[name]).await;
    }

    /// A customer asks for notes; `false` when they are refused. The answer is not waited for when the promise shows before:
    /// it comes with the invoice.
    async fn promise(&mut self, state: State) -> bool {
        let cell = &self.cells[Self::index(state)];
        let (path, daemon) = (format!("/v1/atms/{}", cell.atm), &self.teller.daemon);
        let order = StartCashOut {
            atm: cell.atm.parse().unwrap(),
            amount_minor: Minor(AMOUNT),
        };
        let shows = async {
            loop {
                let view: Option<AtmView> = daemon.get(&path).await;
                if let Some(id) = view.and_then(|view| view.open.first().copied()) {
                    return id;
                }
                breath().await;
            }
        };
        let id = tokio::select! {
            begun = daemon.post::<CashOutView>("/v1/cashouts", &order) => begun.map(|view| view.id),
            id = shows => Some(id),
        };
        self.cells[Self::index(state)].id = id;
        id.is_some()
    }

    /// The customer pays, when there is an invoice and it was not paid before.
    pub async fn pay(&mut self, net: &Net, state: State) {
        let cell = &mut self.cells[Self::index(state)];
        if let (Some(request), false) = (&cell.request, cell.paid) {
            // How it ends is asked of the customer's node.
            drop(net.pay(request, None).await);
            cell.paid = true;
        }
    }

    fn machine(&self, state: State) -> &EmulatorHandle {
        &self.teller.site.machines[Self::index(state)]
    }

    /// Brings all but the first, last and last but one state about, each while nothing is wrong.
    pub async fn fill(&mut self, net: &Net) {
        for state in &State::ALL[1..] {
            assert!(self.promise(*state).await, "no promise for {state:?}");
        }
        for state in &State::ALL[1..] {
            let id = self.cell(*state).id.expect("it was begun");
            let view = self.teller.reaches(id, &["awaiting_payment"]).await;
            self.cells[Self::index(*state)].request = view.payment_request;
        }
        let (after_notes, serial_kept) = (None, false);
        let lost = Mishap::PowerLost {
            after_notes,
            serial_kept,
        };
        self.machine(State::OutcomeUnknown).inject(lost.next());
        self.pay(net, State::OutcomeUnknown).await;
        self.reaches(State::OutcomeUnknown, "outcome_unknown").await;
        for (state, still) in STILL {
            self.machine(state).hold_at(Some(still));
        }
        for state in [State::Held, State::Canceling, State::Settling, State::Dispensing] {
            self.pay(net, state).await;
        }
        for (state, name) in [
            (State::Held, "held"),
            (State::Canceling, "held"),
            (State::Dispensing, "dispensing"),
            (State::Settling, "dispensing"),
        ] {
            self.reaches(state, name).await;
        }
    }

    /// What only happens once LND can not do it any more: asked for, canceled, dispensed to the end.
    pub async fn overtake(&mut self) {
        self.promise(State::Creating).await;
        let cancel = format!(
            "/v1/cashouts/{}/cancel",
            self.cell(State::Canceling).id.expect("it was begun")
        );
        let canceled: Option<CashOutView> = self.teller.daemon.post(&cancel, &serde_json::json!({})).await;
        assert!(canceled.is_some(), "the customer can cancel");
        for (state, _) in STILL {
            self.machine(state).hold_at(None);
        }
        self.reaches(State::Settling, "settling").await;
    }

    /// Where each cash-out stands, in the order of [`State::ALL`].
    pub async fn states(&self) -> Vec<String> {
        let mut all = Vec::new();
        for state in State::ALL {
            let view = self.view(state).await;
            all.push(view.map_or_else(|| "refused".to_owned(), |view| view.state));
        }
        all
    }

    /// Takes every cash-out to its rest: open invoices are paid when `paying`, and an operator counts the notes where the
    /// device can not tell. Those of `except` are left alone.
    pub async fn rest(&mut self, net: &Net, paying: bool, except: &[State]) {
        let end = Instant::now() + PATIENCE;
        let mut moving = State::ALL.to_vec();
        moving.retain(|state| !except.contains(state));
        while !moving.is_empty() {
            let mut still = Vec::new();
            for state in moving {
                if !self.go_on(net, state, paying).await {
                    still.push(state);
                }
            }
            moving = still;
            let words = || self.teller.daemon.last_words();
            assert!(Instant::now() < end, "no rest for {moving:?}\n{}", words());
            breath().await;
        }
    }

    /// One step; whether it is at rest.
    async fn go_on(&mut self, net: &Net, state: State, paying: bool) -> bool {
        if self.cell(state).id.is_none() {
            return true;
        }
        let Some(view) = self.view(state).await else {
            return false;
        };
        if view.payment_request.is_some() {
            self.cells[Self::index(state)].request = view.payment_request.clone();
        }
        if view.state == "awaiting_payment" && paying {
            self.pay(net, state).await;
        }
        let action = view.operator_action.as_deref().unwrap_or_default();
        if view.state == "outcome_unknown" && !action.starts_with("The dispenser is being asked") {
            let counted = Minor(self.teller.cash_out(Self::index(state)));
            let order = ResolveCashOut {
                by: "ada".to_owned(),
                decision: Decision::DeliveredMinor(counted),
                note: "counted".to_owned(),
            };
            // Whether it was taken shows in the state.
            let path = format!("/v1/cashouts/{}/resolve", view.id);
            let _: Option<CashOutView> = self.teller.daemon.post(&path, &order).await;
        }
        view.at_rest()
    }

    /// The customer gives up on what can not be paid.
    pub async fn give_up(&self, state: State) {
        let id = self.cell(state).id.expect("it was begun");
        let path = format!("/v1/cashouts/{id}/cancel");
        let order = Ordered { by: "ada".to_owned() };
        let _: Option<CashOutView> = self.teller.daemon.post(&path, &order).await;
    }
}
