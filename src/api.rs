//! What goes over the HTTP API: its JSON, for the server, the command line and simulated customers alike.
//!
//! Plain types; documented for other clients in docs/API.md. What must stay true: amounts are
//! integers in their smallest unit, times are Unix milliseconds, no preimage appears here.

use serde::{Deserialize, Serialize};

use crate::ids::{AtmId, CashOutId, ClientName, NostrKey};
use crate::money::{Currency, Funds, Minor, Msat};
use crate::time::UnixMs;

/// `POST /v1/cashouts`: a customer wants notes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartCashOut {
    /// At which machine.
    pub atm: AtmId,
    /// Value of the notes, in minor units.
    pub amount_minor: Minor,
}

/// A cash-out as its customer and its operator may see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CashOutView {
    /// Identifies it.
    pub id: CashOutId,
    /// The machine.
    pub atm: AtmId,
    /// The state's name: `quoted`, `awaiting_payment`, `held`, `dispensing`, `outcome_unknown`, `settling`,
    /// `canceling`, `completed`, `canceled`, `claim_owed`, `needs_operator`.
    pub state: String,
    /// Why it is in that state, where there is more to say.
    pub reason: Option<String>,
    /// `completed` or `canceled`: nothing will change any more, unless [`Self::funds`] are lost.
    pub ended: bool,
    /// What an operator is expected to do, if anything.
    pub operator_action: Option<String>,
    /// Value of the notes ordered.
    pub amount_minor: Minor,
    /// The operator's fee.
    pub fee_minor: Minor,
    /// Of all minor units.
    pub currency: Currency,
    /// What the customer pays.
    pub price_msat: Msat,
    /// What LND held or took of the customer, who may pay more than the price; zero before, and from an older daemon. It
    /// went back whole when the end is `canceled`.
    #[serde(default)]
    pub paid_msat: Msat,
    /// The invoice, BOLT11, once LND has it.
    pub payment_request: Option<String>,
    /// The invoice's payment hash, hex.
    pub payment_hash: String,
    /// When it was promised.
    pub created_unix_ms: UnixMs,
    /// From then on it is not to be paid any more.
    pub pay_by_unix_ms: UnixMs,
    /// When the state ends by itself, if it does.
    pub deadline_unix_ms: Option<UnixMs>,
    /// Value of the notes that left, as far as known.
    pub delivered_minor: Minor,
    /// What the customer is owed after the settlement.
    pub claim_minor: Minor,
    /// What the operator gave away.
    pub loss_minor: Minor,
    /// The payment was taken.
    pub settled: bool,
    /// Whether its money is there, once it was taken; not told by an older daemon.
    #[serde(default)]
    pub funds: Option<Funds>,
}

impl CashOutView {
    /// Nothing more happens by itself: it has ended, or only an operator can go on. Its stream of events ends here.
    #[must_use]
    pub fn at_rest(&self) -> bool {
        self.ended || matches!(self.state.as_str(), "claim_owed" | "needs_operator")
    }
}

/// `GET /v1/cashouts`: the newest first.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CashOutList {
    /// At most the asked number of them. For more, ask with `before` set to the last one's id.
    pub cashouts: Vec<CashOutView>,
}

/// An operator's word, for requests that need no more than the name of who orders it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ordered {
    /// Who.
    pub by: String,
}

/// `POST /v1/cashouts/ID/cancel`.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CancelCashOut {
    /// The operator who orders it; the customer when left out.
    #[serde(default)]
    pub by: Option<String>,
}

/// What an operator decided about an open item.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Decision {
    /// Of an unknown outcome: notes of this value, in minor units, reached the customer.
    DeliveredMinor(Minor),
    /// Of a claim: it was paid to the customer.
    ClaimPaid,
    /// Of an item that needs an operator: closed with the books as they are.
    Close,
}

/// `POST /v1/cashouts/ID/resolve`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResolveCashOut {
    /// Who decided.
    pub by: String,
    /// What.
    pub decision: Decision,
    /// In their words, kept in the journal.
    #[serde(default)]
    pub note: String,
}

/// Notes that were put into one cassette and counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoadedCassette {
    /// Position in the machine, from 1.
    pub position: u8,
    /// Value of one note.
    pub denomination_minor: Minor,
    /// Notes inside now.
    pub notes: u32,
}

/// `POST /v1/atms/ID/load`: the books of these cassettes start anew.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LoadCassettes {
    /// Who counted.
    pub by: String,
    /// What was counted.
    pub cassettes: Vec<LoadedCassette>,
}

/// The field `cassettes` that is wrong, and why, before any machine is asked whether it fits.
#[must_use]
pub fn cassettes_problem(cassettes: &[LoadedCassette]) -> Option<(String, &'static str)> {
    let mut seen = std::collections::BTreeSet::new();
    let wrong = |(i, cassette): (usize, &LoadedCassette)| {
        let what = match cassette {
            LoadedCassette { position: 0, .. } => ("position", "positions count from 1"),
            LoadedCassette {
                denomination_minor: Minor::ZERO,
                ..
            } => ("denomination_minor", "a note is worth more than nothing"),
            one if !seen.insert(one.position) => ("position", "it is given twice"),
            _ => return None,
        };
        Some((format!("cassettes[{i}].{}", what.0), what.1))
    };
    match cassettes {
        [] => Some(("cassettes".to_owned(), "at least one expected")),
        some => some.iter().enumerate().find_map(wrong),
    }
}

/// One cassette's books since it was last counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct CassetteView {
    /// Position in the machine, from 1.
    pub position: u8,
    /// Value of one note.
    pub denomination_minor: Minor,
    /// Notes counted in.
    pub loaded: u32,
    /// Notes delivered to customers.
    pub delivered: u32,
    /// Notes in the reject tray.
    pub rejected: u32,
    /// Notes taken back.
    pub retracted: u32,
    /// Notes whose fate nobody could tell.
    pub unaccounted: u32,
    /// Notes that should be inside.
    pub remaining: u32,
    /// Those of them that are promised to a customer.
    pub reserved: u32,
}

/// One machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AtmView {
    /// Its id.
    pub id: AtmId,
    /// Its name for people.
    pub name: String,
    /// `starting`, `ready`, `busy`, `draining` or `out_of_service`.
    pub state: String,
    /// Why it serves nobody, when it does not.
    pub reason: Option<String>,
    /// Its notes.
    pub cassettes: Vec<CassetteView>,
    /// Its cash-outs that have not ended.
    pub open: Vec<CashOutId>,
}

/// `GET /v1/atms`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AtmList {
    /// The daemon's own, by id.
    pub atms: Vec<AtmView>,
    /// Those of the sites that reach their payments through this daemon, by the sites' names.
    #[serde(default)]
    pub sites: Vec<SiteView>,
}

/// What a site tells its service from time to time (`reportSite`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SiteReport {
    /// The site's program and version.
    pub version: String,
    /// The site's clock.
    pub now_unix_ms: UnixMs,
    /// Its machines.
    pub atms: Vec<AtmView>,
    /// Its cash-outs that wait for an operator.
    pub waiting: Vec<WaitingItem>,
}

/// A cash-out that waits for an operator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WaitingItem {
    /// Which.
    pub id: CashOutId,
    /// At which machine.
    pub atm: AtmId,
    /// Its state's name.
    pub state: String,
    /// Why.
    pub reason: Option<String>,
    /// What an operator is expected to do.
    pub operator_action: Option<String>,
}

/// A site, as its service knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SiteView {
    /// Its name: that of its client key.
    pub site: ClientName,
    /// Unheard of for two minutes: what follows is old.
    pub down: bool,
    /// When it was heard last.
    pub heard_unix_ms: UnixMs,
    /// What it told then.
    pub report: SiteReport,
}

/// `POST /v1/clients`: a client is invited.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InviteClient {
    /// What it will be called.
    pub name: ClientName,
    /// Who invites it.
    pub by: String,
}

/// The answer: what the client is given, once. A secret until it was used.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invitation {
    /// `nprofile1…:token`: the service's key and relays, and the token.
    pub pairing: String,
    /// From then on it can not be used any more.
    pub until_unix_ms: UnixMs,
}

impl std::fmt::Debug for Invitation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Invitation(redacted)")
    }
}

/// A client of the hold-invoice service.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientView {
    /// Its name.
    pub name: ClientName,
    /// `active`, `invited`, `expired` (an invitation that nobody used), `revoked`, or `not_invited` (it has limits in
    /// the configuration, and nothing else yet).
    pub state: String,
    /// Its key, once known.
    pub key: Option<NostrKey>,
    /// Its key stands in the configuration, and so it can neither be invited nor revoked here.
    pub configured: bool,
    /// When its invitation ends, if it has one that was not used.
    pub invited_until_unix_ms: Option<UnixMs>,
}

/// `GET /v1/clients`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClientList {
    /// By name.
    pub clients: Vec<ClientView>,
}

/// `GET /readyz`: whether customers can be served; status 503 when not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadyView {
    /// All of it: the journal, LND and at least one machine.
    pub ready: bool,
    /// The journal takes records.
    pub journal: bool,
    /// LND can add invoices.
    pub lnd: bool,
    /// Machines that are ready or busy.
    pub atms_in_service: usize,
    /// All machines.
    pub atms: usize,
    /// What is missing, in sentences; empty when nothing is.
    pub reasons: Vec<String>,
}

/// The body of every answer that is not a success.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// A fixed word for programs, such as `atm_busy`.
    pub code: String,
    /// A sentence for people.
    pub message: String,
}
