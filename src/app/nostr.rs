//! Brings this daemon up on Nostr: key, relays, the gate, and at a site the way to its service.
//!
//! Called by `app.rs` around the start of the actors: what they need comes before it ([`OnNostr::begin`]), what needs
//! them after it ([`OnNostr::connect`]).

use std::sync::Arc;

use ::nostr::{Keys, PublicKey, RelayUrl};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use crate::actors::clients::ServiceIdentity;
use crate::actors::fleet::Fleet;
use crate::actors::nostr::gate::{Ask, Gate, GateDoor, Outgoing, Parts};
use crate::actors::nostr::line::{Hear, Line, LineError, Parties, Tell};
use crate::actors::nostr::report;
use crate::actors::nostr::sites::{Heard, Sites};
use crate::actors::shared::Shared;
use crate::config::key::{KeyError, load_or_create_key};
use crate::config::{Config, NostrConfig, Payments, SiteConfig};
use crate::ids::NostrKey;
use crate::lnd::Lightning;
use crate::metrics::Metrics;
use crate::nostr::beacon::Beacon;
use crate::nostr::caller::{Caller, CallerTimings};
use crate::nostr::node::{NodeTimings, NostrNode, SiteTerms};
use crate::nostr::outbox::Outbox;
use crate::nostr::wire::Version;
use crate::store::{Seen, SeenError};
use crate::time::SharedClock;

/// Pushes and reports that wait to go out.
const OUTGOING: usize = 1024;

/// Why this daemon can not be on Nostr.
#[derive(Debug, Error)]
pub enum NostrError {
    /// Its key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The relays' thread.
    #[error(transparent)]
    Line(#[from] LineError),
    /// The ids of events that had an effect.
    #[error(transparent)]
    Seen(#[from] SeenError),
    /// A relay's address.
    #[error("nostr.relays: {0} is not the address of a relay")]
    Relay(String),
    /// The service's key.
    #[error("site.service: {0} is not a key")]
    Service(NostrKey),
}

/// This daemon on Nostr, before its actors are there.
pub(super) struct OnNostr {
    pub config: NostrConfig,
    pub identity: Option<Arc<ServiceIdentity>>,
    pub door: GateDoor,
    pub sites: Sites,
    /// At a site: the way to its service.
    site: Option<(SiteConfig, PublicKey, Caller)>,
    keys: Keys,
    line: Line,
    seen: Seen,
    outgoing: mpsc::Receiver<Outgoing>,
}

impl OnNostr {
    /// Makes the key at the first start, and begins to connect to the relays. The caller holds the data directory's lock.
    pub fn begin(config: &Config, clock: &SharedClock, metrics: &Metrics) -> Result<Option<Self>, NostrError> {
        let Some(nostr) = config.nostr.clone() else {
            return Ok(None);
        };
        let keys = load_or_create_key(&nostr.key_file)?;
        let url = |text: &String| RelayUrl::parse(text).map_err(|_| NostrError::Relay(text.clone()));
        let urls = nostr.relays.iter().map(url).collect::<Result<_, _>>()?;
        let line = Line::start(&keys, urls, Arc::clone(clock), metrics)?;
        let seen = Seen::open(&config.data_dir)?;
        let site = match &config.payments {
            Payments::Lnd(_) => None,
            Payments::Nostr(site) => Some(way_to(site, &keys, &line, clock)?),
        };
        let (door, outgoing) = GateDoor::new(OUTGOING);
        Ok(Some(Self {
            identity: nostr.service.as_ref().map(|service| {
                Arc::new(ServiceIdentity {
                    key: NostrKey(keys.public_key().to_bytes()),
                    relays: nostr.relays.clone(),
                    clients: service.clients.clone(),
                    limits: service.limits,
                    invite_valid: service.invite_valid,
                })
            }),
            sites: remembered(&seen)?,
            config: nostr,
            door,
            site,
            keys,
            line,
            seen,
            outgoing,
        }))
    }

    /// The service as a node.
    pub fn node(&self, config: &Config) -> Option<Arc<dyn Lightning>> {
        let (_, _, caller) = self.site.as_ref()?;
        let terms = SiteTerms {
            hold_expiry_delta: config.policy.hold_expiry_delta,
            min_blocks_left: config.policy.min_blocks_left,
            force_blocks_left: config.policy.force_blocks_left,
            hold_ms: config.policy.hold_ms,
            unknown_ms: config.policy.unknown_ms,
        };
        Some(Arc::new(NostrNode::new(caller.clone(), terms, NodeTimings::default())))
    }

    /// Lets the world in, once the actors are there; returns its gate, and what answers when the relays' thread has
    /// ended. The gate's replies go to `outbox` instead of the relays if there is one.
    pub fn connect(
        self,
        shared: &Arc<Shared>,
        fleet: &Fleet,
        outbox: Option<Arc<dyn Outbox>>,
    ) -> Result<(Arc<Gate>, oneshot::Receiver<()>), NostrError> {
        let relays = || Arc::clone(&self.line.relays) as Arc<dyn Outbox>;
        let outbox = outbox.unwrap_or_else(relays);
        let gate = Arc::new(Gate::new(Parts {
            keys: self.keys,
            roster: shared.roster.subscribe(),
            seen: self.seen,
            clock: Arc::clone(&shared.clock),
            metrics: shared.metrics.clone(),
            ask: ask(shared),
            outbox,
            lost: Arc::clone(&shared.journal_lost),
        }));
        let hear = |(_, service, caller): &(SiteConfig, PublicKey, Caller)| {
            let caller = caller.clone();
            let hear: Hear = Box::new(move |event| caller.incoming(event));
            (*service, hear)
        };
        let parties = Parties {
            gate: Arc::clone(&gate),
            outgoing: self.outgoing,
            service: self.site.as_ref().map(hear),
            tell: self
                .config
                .service
                .as_ref()
                .map(|service| tell(service.name.clone(), shared)),
        };
        let ended = self.line.connect(parties)?;
        if let Some((site, _, caller)) = self.site {
            let (fleet, clock) = (fleet.clone(), Arc::clone(&shared.clock));
            // Ends with the process.
            drop(actix::spawn(async move {
                if let Some(file) = &site.pairing_file {
                    report::enroll(&caller, file).await;
                }
                report::report(fleet, caller, clock).await;
            }));
        }
        Ok((gate, ended))
    }
}

fn way_to(
    site: &SiteConfig,
    keys: &Keys,
    line: &Line,
    clock: &SharedClock,
) -> Result<(SiteConfig, PublicKey, Caller), NostrError> {
    let service = PublicKey::from_slice(&site.service.0).map_err(|_| NostrError::Service(site.service))?;
    let version = if site.nip44 == 1 { Version::V1 } else { Version::V2 };
    let timings = CallerTimings {
        deadline: site.deadline,
        give_up: site.deadline.saturating_mul(3),
    };
    let outbox = Arc::clone(&line.relays) as Arc<dyn Outbox>;
    let caller = Caller::new(keys.clone(), service, version, Arc::clone(clock), outbox, timings);
    Ok((site.clone(), service, caller))
}

/// The sites that a former life heard of. One that can not be read is heard of again soon.
fn remembered(seen: &Seen) -> Result<Sites, SeenError> {
    let mut sites = Sites::default();
    for (site, report) in seen.sites()? {
        if let (Ok(site), Ok(heard)) = (site.parse(), serde_json::from_slice::<Heard>(&report)) {
            sites.hear(site, heard);
        }
    }
    Ok(sites)
}

fn ask(shared: &Arc<Shared>) -> Ask {
    let post = shared.nostr.clone();
    Arc::new(move |question| {
        let post = post.clone();
        Box::pin(async move { post.get()?.send(question).await.ok() })
    })
}

/// What the service says of itself, while it knows its node.
fn tell(name: String, shared: &Arc<Shared>) -> Tell {
    // The thread that calls it ends with the actors, whose it must not keep.
    let shared = Arc::downgrade(shared);
    Box::new(move || {
        let shared = shared.upgrade()?;
        let status = shared.status.borrow();
        let network = status.node.as_ref()?.network.clone();
        Some(Beacon {
            name: name.clone(),
            version: concat!("tellerd ", env!("CARGO_PKG_VERSION")).to_owned(),
            fee_basis_points: Some(0),
            limits: shared.service.as_ref()?.limits,
            can_create: status.can_add().is_ok(),
            network,
        })
    })
}
