//! One customer transaction with all that surrounds it, as one small value: what is durable, what is in memory, what LND and
//! the dispenser really did.
//!
//! Called by the model. Must stay true: a value holds everything that later steps depend on, and nothing else.

use super::table::{Half, Id};

/// The invoice at LND.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Lnd {
    #[default]
    None,
    Open,
    Accepted,
    Settled,
    Canceled,
}

impl Lnd {
    pub fn is_final(self) -> bool {
        matches!(self, Self::Settled | Self::Canceled)
    }
}

/// Blocks before LND cancels a hold, as far as anybody decides by them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Window {
    /// Enough for a dispense.
    #[default]
    Plenty,
    /// Fewer than `min_blocks_left`.
    Short,
    /// Fewer than `force_blocks_left`.
    Forced,
    /// None: LND has canceled.
    Gone,
}

pub const EXPIRY_HEIGHT: u32 = 1_000;

impl Window {
    pub fn height(self) -> u32 {
        match self {
            Self::Plenty => 800,
            Self::Short => 974,
            Self::Forced => 979,
            Self::Gone => 982,
        }
    }
}

/// What really became of settled money.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Money {
    #[default]
    Pending,
    Final,
    Lost,
}

/// Calls that left for LND and did not reach it yet. They may do so after the daemon that made them is dead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Wire {
    pub add: bool,
    pub settle: bool,
    pub cancel: bool,
}

/// The effect Prepare of this life of the ATM's actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Prepare {
    #[default]
    Idle,
    /// The device was checked; the invoice's actor reads the hold at LND.
    Reading,
    /// The commitment of the hold is being written down.
    Recording,
    /// The invoice's actor has answered.
    Answered,
    /// The invoice's actor still reads the hold, but nobody waits for it any more.
    Orphan,
}

/// The effect Dispense of this life, and the dispenser's actor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Command {
    #[default]
    Idle,
    /// In the mailbox of the dispenser's actor.
    Handed,
    /// Bytes have left; the driver waits for the answer.
    Sent,
    /// Its result was offered; it is never started again.
    Over,
    /// As `Handed` and `Sent`, but the ATM's actor that waited is dead.
    HandedAlone,
    SentAlone,
}

/// What one dispense order did to notes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Motion {
    #[default]
    None,
    /// On the line, or under way.
    Commanded,
    /// So many notes left the machine.
    Done(u8),
}

impl Motion {
    pub fn notes(self) -> u8 {
        match self {
            Self::Done(notes) => notes,
            _ => 0,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Item {
    pub cashout: Half,
    pub invoice: Half,
    pub lnd: Lnd,
    pub window: Window,
    pub money: Money,
    pub wire: Wire,
    pub prepare: Prepare,
    /// The last check of the hold is not older than `CHECK_AGE`.
    pub fresh: bool,
    pub command: Command,
    pub motions: [Motion; 2],
    /// A notice with the invoice as it was, on its way to the ATM's actor; or one that it keeps unread.
    pub notice: Id,
    /// Only in a daemon that was broken on purpose: timers of the cash-out, of the invoice are not armed.
    pub unarmed: [bool; 2],
}

impl Item {
    /// Nothing moves, nothing will, and nobody listens for a result.
    pub fn device_is_idle(&self) -> bool {
        !self.motions.contains(&Motion::Commanded) && matches!(self.command, Command::Idle | Command::Over)
    }

    pub fn has_begun(&self) -> bool {
        self.cashout.state != 0
    }
}
