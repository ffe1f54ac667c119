//! What befalls the node and the disks while customers come: which faults there are, and when.
//!
//! Read by the scenario, run by the runner: a task for each kind. What must stay true: a kind strikes at random times
//! of its own; what lasts is over before the next of its kind, and when customers no longer come.

use std::sync::Arc;
use std::time::Duration;

use rand::RngExt;
use rand::rngs::StdRng;

use super::sick_disk::SickDisk;
use super::world::{World, around};
use crate::config::reader::Section;
use crate::config::value::{duration, number};
use crate::proto::lnrpc::WalletState;
use crate::sim::disk::Health;
use crate::sim::lnd::{Fault, SimError};

/// What befalls the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NodeTrouble {
    /// It is restarted.
    Restart,
    /// Calls neither take effect nor answer.
    Hang,
    /// Every answer is late.
    Slow,
    /// All streams end, with an error or as at a shutdown.
    DropStreams,
    /// The wallet is locked: no service answers but that of the state.
    Lock,
    /// One call takes effect, and its connection breaks before the answer.
    LoseReply,
    /// It loses its source of blocks.
    OutOfSync,
    /// So many blocks come at once that every hold of now is past its window: after it was out of sync, or down.
    Jump,
}

/// All of them by their keys in `[lnd]`, with their names.
pub const NODE_TROUBLES: [(&str, NodeTrouble); 8] = [
    ("restart_every", NodeTrouble::Restart),
    ("hang_every", NodeTrouble::Hang),
    ("slow_every", NodeTrouble::Slow),
    ("drop_streams_every", NodeTrouble::DropStreams),
    ("lock_every", NodeTrouble::Lock),
    ("lose_reply_every", NodeTrouble::LoseReply),
    ("out_of_sync_every", NodeTrouble::OutOfSync),
    ("jump_every", NodeTrouble::Jump),
];

/// What befalls a disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DiskTrouble {
    /// No room.
    Full,
    /// Nothing can be written or cut.
    ReadOnly,
    /// Every sync takes long.
    SlowSync,
    /// A sync fails.
    FailedSync,
}

/// All of them by their keys in `[disk]`.
pub const DISK_TROUBLES: [(&str, DiskTrouble); 4] = [
    ("full_every", DiskTrouble::Full),
    ("read_only_every", DiskTrouble::ReadOnly),
    ("slow_sync_every", DiskTrouble::SlowSync),
    ("failed_sync_every", DiskTrouble::FailedSync),
];

/// `[lnd]`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LndTerms {
    /// Between two blocks.
    pub block_interval: Duration,
    /// What befalls it, and the mean time between two of a kind.
    pub troubles: Vec<(NodeTrouble, Duration)>,
    /// How long those last that last, about.
    pub lasts: Duration,
    /// The delay of an answer while it is slow.
    pub slow: Duration,
    /// Blocks of a jump.
    pub jump_blocks: u32,
}

/// `[disk]`
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct DiskTerms {
    /// What befalls a daemon's disk, and the mean time between two of a kind.
    pub troubles: Vec<(DiskTrouble, Duration)>,
    /// How long each lasts, about.
    pub lasts: Duration,
    /// The delay of a sync while syncs are slow.
    pub slow_sync: Duration,
}

/// The generators' names begin here.
const TROUBLES: u64 = 100;
/// Methods whose replies get lost; each is repeated by a daemon that can not know whether it took effect.
const REPEATED: [&str; 5] = [
    "AddHoldInvoice",
    "SettleInvoice",
    "CancelInvoice",
    "LookupInvoice",
    "GetInfo",
];

/// Reads `[lnd]`.
pub(super) fn lnd(mut section: Section) -> LndTerms {
    let terms = LndTerms {
        block_interval: section.or("block_interval", duration, Duration::from_secs(3)),
        troubles: troubles(&mut section, &NODE_TROUBLES),
        lasts: section.or("lasts", duration, Duration::from_secs(3)),
        slow: section.or("slow", duration, Duration::from_millis(500)),
        jump_blocks: section.or("jump_blocks", number(1..=1_000_u32), 70),
    };
    if terms.block_interval < Duration::from_secs(1) {
        section.mistake(
            "block_interval",
            "below \"1s\" every hold would be canceled by its height",
        );
    }
    section.finish();
    terms
}

/// Reads `[disk]`.
pub(super) fn disk(mut section: Section) -> DiskTerms {
    let terms = DiskTerms {
        troubles: troubles(&mut section, &DISK_TROUBLES),
        lasts: section.or("lasts", duration, Duration::from_secs(3)),
        slow_sync: section.or("slow_sync", duration, Duration::from_millis(300)),
    };
    section.finish();
    terms
}

/// How often each kind strikes that strikes at all.
fn troubles<T: Copy>(section: &mut Section, kinds: &[(&'static str, T)]) -> Vec<(T, Duration)> {
    let mut found = Vec::new();
    for (key, kind) in kinds {
        let Some(every) = section.optional(key, duration) else {
            continue;
        };
        if every < Duration::from_secs(1) {
            section.mistake(key, "below \"1s\" it would never be over");
        }
        found.push((*kind, every));
    }
    found
}

impl NodeTrouble {
    fn name(self) -> &'static str {
        match self {
            Self::Restart => "lnd restarted",
            Self::Hang => "lnd hung",
            Self::Slow => "lnd slow",
            Self::DropStreams => "lnd streams dropped",
            Self::Lock => "lnd wallet locked",
            Self::LoseReply => "lnd reply lost",
            Self::OutOfSync => "lnd out of sync",
            Self::Jump => "lnd height jumped",
        }
    }
}

/// One kind of trouble with the node, again and again until no more customers come.
pub async fn trouble_node(world: Arc<World>, kind: NodeTrouble, every: Duration) {
    let mut random = world.random(TROUBLES + kind as u64, 0);
    while world.wait(around(&mut random, every)).await {
        let befallen = befall(&world, kind, &mut random).await;
        match befallen {
            Ok(()) => world.count_fault(kind.name()),
            Err(error) => world.trouble("simulation", format!("{}: {error}", kind.name())),
        }
    }
}

/// Begins it, and ends what lasts.
async fn befall(world: &World, kind: NodeTrouble, random: &mut StdRng) -> Result<(), SimError> {
    let (lnd, terms) = (&world.lnd, &world.scenario.lnd);
    let lasts = around(random, terms.lasts);
    match kind {
        NodeTrouble::Restart => restart(world, 0).await?,
        NodeTrouble::Hang => {
            lnd.inject(Fault::Hang {
                time: None,
                method: None,
            })?;
            world.wait(lasts).await;
            lnd.inject(Fault::Release)?;
        }
        NodeTrouble::Slow => {
            lnd.inject(Fault::Slow(terms.slow))?;
            world.wait(lasts).await;
            lnd.inject(Fault::Slow(Duration::ZERO))?;
        }
        NodeTrouble::DropStreams => {
            let error = random.random::<bool>().then(|| "simulated: stream broken".to_owned());
            lnd.inject(Fault::DropStreams { error })?;
        }
        NodeTrouble::Lock => {
            let _alone = world.node_life.lock().await;
            lnd.inject(Fault::SetState(WalletState::Locked))?;
            world.wait(lasts).await;
            for state in [WalletState::Unlocked, WalletState::RpcActive, WalletState::ServerActive] {
                lnd.inject(Fault::SetState(state))?;
                world.wait(Duration::from_millis(300)).await;
            }
        }
        NodeTrouble::LoseReply => {
            let method = REPEATED[random.random_range(0..REPEATED.len())].to_owned();
            lnd.inject(Fault::LoseReply { method, count: 1 })?;
        }
        NodeTrouble::OutOfSync => out_of_sync(world, lasts, 0).await?,
        // A chain does not jump before the eyes of a node that follows it: it was away, or cut off.
        NodeTrouble::Jump if random.random() => restart(world, terms.jump_blocks).await?,
        NodeTrouble::Jump => out_of_sync(world, lasts, terms.jump_blocks).await?,
    }
    Ok(())
}

/// Restarts the node; so many blocks came meanwhile.
async fn restart(world: &World, blocks: u32) -> Result<(), SimError> {
    let (down, startup) = (Duration::from_millis(800), Duration::from_millis(600));
    let _alone = world.node_life.lock().await;
    world.lnd.inject(Fault::Restart { down, startup })?;
    if blocks > 0 {
        world.lnd.advance_blocks(blocks)?;
    }
    tokio::time::sleep(down + startup).await;
    Ok(())
}

/// Cuts the node off from the chain; so many blocks come at its return.
async fn out_of_sync(world: &World, lasts: Duration, blocks: u32) -> Result<(), SimError> {
    let _alone = world.node_sync.lock().await;
    world.lnd.inject(Fault::Sync(false))?;
    world.wait(lasts).await;
    if blocks > 0 {
        world.lnd.advance_blocks(blocks)?;
    }
    world.lnd.inject(Fault::Sync(true))
}

/// One kind of trouble with one of the disks, again and again until no more customers come.
pub async fn trouble_disks(world: Arc<World>, disks: Vec<Arc<SickDisk>>, kind: DiskTrouble, every: Duration) {
    let mut random = world.random(TROUBLES + 50 + kind as u64, 0);
    while world.wait(around(&mut random, every)).await {
        let Some(disk) = disks.get(random.random_range(0..disks.len().max(1))) else {
            return;
        };
        let terms = world.scenario.disk.clone().unwrap_or_default();
        let (name, health) = match kind {
            DiskTrouble::Full => ("disk full", Health::Full),
            DiskTrouble::ReadOnly => ("disk read-only", Health::ReadOnly),
            DiskTrouble::SlowSync => ("disk slow to sync", Health::SlowSync(terms.slow_sync)),
            DiskTrouble::FailedSync => ("disk failed to sync", Health::FailedSync { cuts: random.random() }),
        };
        let lasts = around(&mut random, terms.lasts);
        // One illness at a time.
        let _alone = disk.alone.lock().await;
        let ill = disk.fall_ill(health);
        world.wait(lasts).await;
        match ill.and_then(|()| disk.recover()) {
            Ok(()) => world.count_fault(name),
            Err(error) => world.trouble("simulation", format!("{name}: {error}")),
        }
    }
}
