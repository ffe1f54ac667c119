//! The world of one history as it really is: the node, what is durable, which notes left; and everything that happens, in order.
//!
//! Shared by all doubles. What must stay true: every step passes through here, so that rules are checked at each, and two runs of
//! one seed have the same steps; nothing here is ever read by the daemon but through its own calls, bytes and files.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use super::chance::Chance;
use super::plan::{Kind, Plan};
use super::rules::{Books, Broken};
use super::stream::Streams;
use crate::ids::PaymentHash;
use crate::lnd::NodeState;
use crate::sim::lnd::node::{Node, NodeOptions};
use crate::time::{Clock, UnixMs};

/// When every history begins.
const BEGINNING: UnixMs = UnixMs(1_700_000_000_000);
/// The chain then.
const HEIGHT: u32 = 800_000;

/// The wall clock of a history: it goes with tokio's paused one.
#[derive(Debug)]
pub struct SimClock(Instant);

impl Clock for SimClock {
    fn now(&self) -> UnixMs {
        BEGINNING.plus(self.0.elapsed())
    }
}

/// What happened, with its time.
pub type Trace = Vec<(UnixMs, String)>;

/// Counts of one history.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Figures {
    /// Everything that passed through the scene.
    pub steps: u64,
    /// Cash-outs that customers were promised.
    pub cashouts: u64,
    /// Records made durable.
    pub records: u64,
    /// Lives of the daemon.
    pub lives: u64,
    /// Faults by kind.
    pub faults: BTreeMap<&'static str, u64>,
    /// Cash-outs by their last state.
    pub ends: BTreeMap<String, u64>,
    /// The digest of all steps: equal for equal histories.
    pub digest: u64,
}

/// The node, and how it can be reached.
pub struct NodeSide {
    /// Its mind.
    pub node: Node,
    /// What it takes.
    pub state: NodeState,
    /// Nobody reaches it.
    pub away: bool,
    /// Since when it is out of sync with the chain: it knows of no block since.
    pub unsynced: Option<UnixMs>,
    /// The height that it tells.
    pub told: u32,
    /// Who listens.
    pub streams: Streams,
    /// Heights with their times, the newest last: what the daemon could know a moment ago.
    pub heights: Vec<(UnixMs, u32)>,
}

impl NodeSide {
    /// Blocks before LND gives the hold up by itself, as the chain has it, also once it did; `None` when nothing was ever held.
    #[must_use]
    pub fn blocks_left(&self, hash: &PaymentHash, hold_expiry_delta: u32) -> Option<i64> {
        let htlcs = self.node.invoice(hash)?.htlcs.iter();
        let expiry = htlcs.map(|htlc| htlc.expiry_height).min()?;
        Some(i64::from(expiry) - i64::from(hold_expiry_delta) - i64::from(self.node.height()))
    }
}

struct State {
    chance: BTreeMap<&'static str, Chance>,
    figures: Figures,
    trace: Option<Trace>,
    broken: Option<Broken>,
    deaths_left: u32,
}

/// The scene. Locks are taken in the order node, books, state, and never while a machine is locked that waits for one.
pub struct Scene {
    /// Its frame.
    pub plan: Plan,
    /// Its clock.
    pub clock: Arc<SimClock>,
    node: Mutex<NodeSide>,
    books: Mutex<Books>,
    state: Mutex<State>,
    calm: AtomicBool,
    disk_full_until: AtomicU64,
    trouble: AtomicU64,
    lnd_trouble: AtomicU64,
    /// Tells of records that are about to be written.
    pub writes: Notify,
    /// True once a rule is broken.
    pub over: watch::Sender<bool>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Scene {
    /// At the beginning of a history. Within a runtime whose time is paused.
    #[must_use]
    pub fn new(plan: Plan, traced: bool) -> Self {
        let options = NodeOptions::default();
        let deaths_left = plan.deaths;
        Self {
            plan,
            clock: Arc::new(SimClock(Instant::now())),
            node: Mutex::new(NodeSide {
                node: Node::new(options, HEIGHT),
                state: NodeState::ServerActive,
                away: false,
                unsynced: None,
                told: HEIGHT,
                streams: Streams::default(),
                heights: vec![(BEGINNING, HEIGHT)],
            }),
            books: Mutex::new(Books::default()),
            state: Mutex::new(State {
                chance: BTreeMap::new(),
                figures: Figures::default(),
                trace: traced.then(Trace::new),
                broken: None,
                deaths_left,
            }),
            calm: AtomicBool::new(false),
            disk_full_until: AtomicU64::new(0),
            trouble: AtomicU64::new(0),
            lnd_trouble: AtomicU64::new(0),
            writes: Notify::new(),
            over: watch::Sender::new(false),
        }
    }

    /// The time.
    #[must_use]
    pub fn now(&self) -> UnixMs {
        self.clock.now()
    }

    /// No more faults from now on.
    pub fn calm_down(&self) {
        self.calm.store(true, Ordering::SeqCst);
        self.step("calm", || "no more faults".to_owned());
    }

    /// Whether this kind of fault may happen now.
    #[must_use]
    pub fn may(&self, kind: Kind) -> bool {
        self.plan.has(kind) && !self.calm.load(Ordering::SeqCst)
    }

    /// Draws from the part's generator.
    pub fn draw<T>(&self, part: &'static str, draw: impl FnOnce(&mut Chance) -> T) -> T {
        let seed = self.plan.seed;
        let mut state = locked(&self.state);
        draw(state.chance.entry(part).or_insert_with(|| Chance::new(seed, part, 0)))
    }

    /// Whether a fault of this kind happens now, which it does in so many of a thousand cases. Counted when it does.
    pub fn strikes(&self, kind: Kind, per_mille: u32) -> bool {
        if !self.may(kind) || !self.draw(kind.name(), |chance| chance.per_mille(per_mille)) {
            return false;
        }
        self.struck(kind);
        true
    }

    /// Counts a fault.
    pub fn struck(&self, kind: Kind) {
        *locked(&self.state).figures.faults.entry(kind.name()).or_default() += 1;
    }

    /// Something happens.
    pub fn step(&self, what: &'static str, detail: impl FnOnce() -> String) {
        let now = self.now();
        let mut state = locked(&self.state);
        state.figures.steps += 1;
        let mut digest = state.figures.digest ^ now.0;
        for byte in what.bytes() {
            digest = (digest ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        state.figures.digest = digest;
        // The words cost too much for every history; two that are traced are compared by them.
        if let Some(trace) = &mut state.trace {
            trace.push((now, format!("{what}: {}", detail())));
        }
    }

    /// A rule is broken: the history ends here.
    pub fn broken(&self, broken: Broken) {
        self.step("BROKEN", || broken.to_string());
        locked(&self.state).broken.get_or_insert(broken);
        self.over.send_replace(true);
    }

    /// Whether the daemon may die once more, as a fault of `kind`; counted when it does.
    pub fn dies(&self, kind: Kind, per_mille: u32) -> bool {
        if locked(&self.state).deaths_left == 0 || !self.strikes(kind, per_mille) {
            return false;
        }
        let mut state = locked(&self.state);
        state.deaths_left = state.deaths_left.saturating_sub(1);
        true
    }

    /// Works on the figures.
    pub fn count(&self, count: impl FnOnce(&mut Figures)) {
        count(&mut locked(&self.state).figures);
    }

    /// Does something at the node, at its present time; what changes is told to who listens.
    pub fn node<T>(&self, act: impl FnOnce(&mut NodeSide, UnixMs) -> T) -> T {
        let now = self.now();
        let mut side = locked(&self.node);
        side.node.tick(now);
        let done = act(&mut side, now);
        side.node.tick(now);
        let (_, announced) = side.node.take_changes();
        let finals = side.node.take_finals();
        let side = &mut *side;
        side.streams.publish(self, &announced, &finals);
        done
    }

    /// Looks at the node, without effect.
    pub fn look<T>(&self, look: impl FnOnce(&NodeSide) -> T) -> T {
        look(&locked(&self.node))
    }

    /// Works on what is durable and what physically happened; a broken rule ends the history.
    pub fn books<T>(&self, work: impl FnOnce(&mut Books) -> Result<T, Broken>) -> Option<T> {
        let worked = work(&mut locked(&self.books));
        worked.map_err(|broken| self.broken(broken)).ok()
    }

    /// The disk takes nothing for so long.
    pub fn fill_disk(&self, time: Duration) {
        let until = self.now().plus(time);
        self.disk_full_until.store(until.0, Ordering::SeqCst);
        self.troubled(until);
    }

    /// Something keeps the daemon from its work until `until`.
    pub fn troubled(&self, until: UnixMs) {
        self.trouble.fetch_max(until.0, Ordering::SeqCst);
    }

    /// Something keeps it from LND until `until`.
    pub fn troubled_at_lnd(&self, until: UnixMs) {
        self.lnd_trouble.fetch_max(until.0, Ordering::SeqCst);
    }

    /// When nothing was in its way to LND any more.
    #[must_use]
    pub fn lnd_trouble(&self) -> UnixMs {
        UnixMs(self.lnd_trouble.load(Ordering::SeqCst))
    }

    /// When nothing was in the daemon's way any more.
    #[must_use]
    pub fn trouble(&self) -> UnixMs {
        UnixMs(self.trouble.load(Ordering::SeqCst))
    }

    /// Whether the disk takes nothing now.
    #[must_use]
    pub fn disk_is_full(&self) -> bool {
        !self.calm.load(Ordering::SeqCst) && self.now().0 < self.disk_full_until.load(Ordering::SeqCst)
    }

    /// Figures, what was broken, and the trace if there is one.
    #[must_use]
    pub fn result(&self) -> (Figures, Option<Broken>, Trace) {
        let mut state = locked(&self.state);
        let trace = state.trace.take().unwrap_or_default();
        (state.figures.clone(), state.broken.clone(), trace)
    }
}
