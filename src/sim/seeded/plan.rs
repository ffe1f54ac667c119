//! What a seed says about its history: machines, customers, policies, and which kinds of faults befall it.
//!
//! Pure. What must stay true: a plan depends on its seed alone; taking a kind of fault or some customers away leaves the rest of
//! the plan as it was (what then happens may differ: some parts share a generator), which is how a failing history is made
//! small. Each seed has a random part of the kinds only: faults that are always all there hide each other.

use std::collections::BTreeSet;
use std::time::Duration;

use super::chance::Chance;

/// A kind of fault. What each does is said at the top of the double that does it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Dispensers jam, run dry, lose power, answer late, twice, damaged or not at all (`device.rs`).
    Device,
    /// The daemon is killed between any two effects (`gate.rs`).
    Kill,
    /// It is killed while it writes, and what was not synced is lost or torn (`disk.rs`).
    TornWrite,
    /// The disk is full for a while (`disk.rs`).
    DiskFull,
    /// A sync fails (`disk.rs`).
    SyncFails,
    /// Calls and answers of LND take long, also longer than they are waited for (`node.rs`).
    LndLate,
    /// Calls and answers of LND are lost (`node.rs`).
    LndLost,
    /// Streams of LND end, break, go silent or tell things twice (`stream.rs`).
    Streams,
    /// LND is away, locked, or starting (`chain.rs`).
    LndRestart,
    /// LND is out of sync (`chain.rs`).
    OutOfSync,
    /// The payers' peer is away when a hold is settled (`chain.rs`).
    Peer,
    /// Many blocks come at once, past any window (`chain.rs`).
    Blocks,
    /// Actors panic; in builds with debug assertions only (`life.rs`).
    Panic,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::Device,
        Self::Kill,
        Self::TornWrite,
        Self::DiskFull,
        Self::SyncFails,
        Self::LndLate,
        Self::LndLost,
        Self::Streams,
        Self::LndRestart,
        Self::OutOfSync,
        Self::Peer,
        Self::Blocks,
        Self::Panic,
    ];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Kill => "kill",
            Self::TornWrite => "torn write",
            Self::DiskFull => "disk full",
            Self::SyncFails => "sync fails",
            Self::LndLate => "LND late",
            Self::LndLost => "LND lost",
            Self::Streams => "streams",
            Self::LndRestart => "LND restart",
            Self::OutOfSync => "out of sync",
            Self::Peer => "peer away",
            Self::Blocks => "blocks",
            Self::Panic => "panic",
        }
    }
}

/// The frame of one history.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Where all chance comes from.
    pub seed: u64,
    /// Machines.
    pub atms: usize,
    /// Customers of each.
    pub customers: u32,
    /// The kinds of faults that befall it.
    pub kinds: BTreeSet<Kind>,
    /// How often the daemon dies at most.
    pub deaths: u32,
    /// Of a thousand points at which it could die, it does at so many.
    pub death_per_mille: u32,
    /// Of a thousand dispenses so many meet a fault.
    pub device_per_mille: u32,
    /// Of a thousand calls to LND, or things told by it, so many meet one.
    pub lnd_per_mille: u32,
    /// Mean time between two blocks.
    pub block_time: Duration,
    /// `policy.payment_timeout`, `hold_deadline` and `unknown_deadline`.
    pub deadlines: [Duration; 3],
    /// Further lines of `[policy]`.
    pub policy: String,
    /// `journal.segment_bytes`.
    pub segment_bytes: u64,
    /// Notes in each cassette when it is full.
    pub notes: u32,
}

impl Plan {
    /// The seed's.
    #[must_use]
    pub fn of(seed: u64) -> Self {
        let mut chance = Chance::new(seed, "plan", 0);
        let kinds = Kind::ALL.into_iter().filter(|_| chance.per_mille(500)).collect();
        let seconds = |chance: &mut Chance, low, high| Duration::from_secs(chance.within(low, high));
        let min_blocks = chance.within(2, 14);
        let force_blocks = chance.within(1, min_blocks);
        let partial = match chance.within(0, 2) {
            0 => "partial = 'absorb'\nabsorb_limit = '50.00'\n",
            _ => "",
        };
        let unknown = match chance.within(0, 2) {
            0 => "unknown_at_deadline = 'settle'\n",
            _ => "",
        };
        let orders = chance.within(1, 3);
        Self {
            seed,
            atms: usize::try_from(chance.within(1, 3)).unwrap_or(1),
            customers: u32::try_from(chance.within(2, 9)).unwrap_or(2),
            kinds,
            deaths: u32::try_from(chance.within(1, 6)).unwrap_or(1),
            death_per_mille: u32::try_from(chance.within(2, 40)).unwrap_or(2),
            device_per_mille: u32::try_from(chance.within(100, 900)).unwrap_or(100),
            lnd_per_mille: u32::try_from(chance.within(5, 120)).unwrap_or(5),
            block_time: seconds(&mut chance, 20, 600),
            deadlines: [
                seconds(&mut chance, 20, 180),
                seconds(&mut chance, 30, 600),
                seconds(&mut chance, 60, 3600),
            ],
            policy: format!(
                "{partial}{unknown}max_orders = {orders}\nmin_blocks_left = {min_blocks}\nforce_blocks_left = {force_blocks}\n"
            ),
            segment_bytes: chance.within(4_096, 65_536),
            notes: u32::try_from(chance.within(20, 80)).unwrap_or(20),
        }
    }

    /// Whether this kind of fault befalls it.
    #[must_use]
    pub fn has(&self, kind: Kind) -> bool {
        self.kinds.contains(&kind)
    }

    /// The name of machine `index`.
    #[must_use]
    pub fn atm(index: usize) -> String {
        format!("atm-{}", index + 1)
    }

    /// The daemon's configuration.
    #[must_use]
    pub fn config(&self) -> String {
        let [payment, hold, unknown] = self.deadlines.map(|time| time.as_secs());
        let mut text = format!(
            "data_dir = 'data'\n[lnd]\naddress = '127.0.0.1:1'\ntls_cert = 'none'\nmacaroon = 'none'\ndeadline = '5s'\n\
             [policy]\npayment_timeout = '{payment}s'\nhold_deadline = '{hold}s'\nunknown_deadline = '{unknown}s'\n{}\
             [rate]\ncurrency = 'EUR'\nper_btc = '100000.00'\n[journal]\nsegment_bytes = {}\n",
            self.policy, self.segment_bytes
        );
        for index in 0..self.atms {
            let (id, notes) = (Self::atm(index), self.notes);
            let variant = if index % 2 == 0 { "standard" } else { "serial" };
            text += &format!(
                "[[atm]]\nid = '{id}'\nmodel = 'puloon-lcdm4000'\nvariant = '{variant}'\npath = '{id}'\n\
                 min_amount = '20.00'\nmax_amount = '500.00'\n[atm.timings]\nreply_ms = 3000\n\
                 [[atm.cassette]]\nposition = 1\ndenomination = '20.00'\nnotes = {notes}\n\
                 [[atm.cassette]]\nposition = 2\ndenomination = '50.00'\nnotes = {notes}\n"
            );
        }
        text
    }
}
