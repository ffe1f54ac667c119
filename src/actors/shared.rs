//! What all actors of a fleet share: where to find each other, the clock, the books of figures, the rules.
//!
//! Made once by the app. What must stay true: a post outlives the actors that hold it, so nobody keeps an address.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::{Semaphore, broadcast, watch};

use super::atm::Atm;
use super::child::Post;
use super::clients::ServiceIdentity;
use super::hardware::{Hardware, Health};
use super::invoice_work::Turns;
use super::journal::Journal;
use super::level::Level;
use super::lnd::{Lnd, LndStatus};
use super::nostr::Nostr;
use super::nostr::gate::GateDoor;
use super::nostr::once::Orders;
use super::nostr::sites::Sites;
use super::supervisor::Supervisor;
use crate::cashout::quote::Fee;
use crate::cashout::{CashOut, Policy};
use crate::clients::{Operator, Roster};
use crate::config::AtmConfig;
use crate::entropy::SharedEntropy;
use crate::hardware::device::DeviceConfig;
use crate::ids::AtmId;
use crate::lnd::HtlcKey;
use crate::metrics::{Machines, Metrics};
use crate::money::{Currency, RateSource};
use crate::time::SharedClock;

/// The rules for new cash-outs.
pub struct Terms {
    /// For holds, partial dispenses and unknown outcomes.
    pub policy: Policy,
    /// How long a customer has for paying.
    pub payment_timeout: Duration,
    /// The price.
    pub rate: Box<dyn RateSource>,
    /// Of the notes and the fee.
    pub currency: Currency,
    /// The operator's fee.
    pub fee: Fee,
    /// Invoices tell of private channels.
    pub private_route_hints: bool,
}

/// One ATM's place in the fleet; it stays while its actors come and go.
pub struct Seat {
    /// What the operator configured.
    pub config: AtmConfig,
    /// How its dispenser is reached.
    pub device: DeviceConfig,
    /// Its actor.
    pub atm: Post<Atm>,
    /// Its dispenser's actor.
    pub hardware: Post<Hardware>,
    /// How its dispenser fares.
    pub health: watch::Sender<Health>,
    suspended: RwLock<Option<String>>,
}

impl Seat {
    /// A place for an ATM whose actors are not there yet.
    #[must_use]
    pub fn new(config: AtmConfig, device: DeviceConfig) -> Self {
        Self {
            config,
            device,
            atm: Post::default(),
            hardware: Post::default(),
            health: watch::Sender::new(Health::Starting),
            suspended: RwLock::default(),
        }
    }

    /// Why the supervisor keeps it out of service, if it does.
    #[must_use]
    pub fn suspended(&self) -> Option<String> {
        self.suspended.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes it out of service, or puts it back.
    pub fn suspend(&self, reason: Option<String>) {
        *self.suspended.write().unwrap_or_else(PoisonError::into_inner) = reason;
    }
}

/// What all actors share.
pub struct Shared {
    /// The journal's actor.
    pub journal: Post<Journal>,
    /// LND's actor.
    pub lnd: Post<Lnd>,
    /// How LND fares; written by its actor.
    pub status: Level<LndStatus>,
    /// HTLCs that are at their end at LND just now. Who lags asks LND at its own pace.
    pub finals: broadcast::Sender<HtlcKey>,
    /// Turns at asking what became of settled money, so that customers' calls come through.
    pub funds_turns: Semaphore,
    /// Turns at looking open invoices up and following them anew.
    pub watch_turns: Turns,
    /// Answers what is asked over Nostr, when this daemon is there.
    pub nostr: Post<Nostr>,
    /// The way out to the relays, when this daemon is on Nostr.
    pub gate: Option<GateDoor>,
    /// What sites told of themselves.
    pub sites: Mutex<Sites>,
    /// What operators ordered over Nostr lately.
    pub orders: Orders,
    /// The root.
    pub supervisor: Post<Supervisor>,
    /// The fleet.
    pub seats: BTreeMap<AtmId, Arc<Seat>>,
    /// The rules.
    pub terms: Terms,
    /// The time.
    pub clock: SharedClock,
    /// For ids, preimages and the jitter of waits.
    pub entropy: SharedEntropy,
    /// The figures.
    pub metrics: Metrics,
    /// The machines' notes as the journal told them last: told again while it can not be asked, as all other gauges are.
    pub noted: Mutex<Machines>,
    /// Every change of every cash-out.
    pub changes: broadcast::Sender<CashOut>,
    /// Why the journal takes no records any more, or the store does not follow it, until the daemon is started
    /// again; it then has to end.
    pub journal_lost: Arc<watch::Sender<Option<String>>>,
    /// The hold-invoice service for others, when there is one.
    pub service: Option<Arc<ServiceIdentity>>,
    /// Who may operate this daemon over Nostr.
    pub operators: Vec<Operator>,
    /// Who may do anything over Nostr; replaced after each durable change of the clients.
    pub roster: watch::Sender<Arc<Roster>>,
    /// Held while a change of the clients is decided and made durable.
    pub client_changes: tokio::sync::Mutex<()>,
    /// The daemon is about to end: no new customer, no new dispense.
    pub stopping: watch::Sender<bool>,
}
