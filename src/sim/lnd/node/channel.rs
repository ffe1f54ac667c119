//! The node's one channel, and what its peer has in it: it bounds what customers can pay. No fees.
//!
//! Called by the HTLCs that come and go, and by `ListChannels`. Must stay true: `capacity = own + peer's + held`.
//! Source: `Channel` in `lightning.proto` of lnd v0.21.2-beta; lnd asks for a reserve of a hundredth of the capacity.

use super::Node;
use super::record::{FailReason, Htlc, HtlcState, Outcome};

const RESERVE_PART: u64 = 100;

/// Money and HTLCs in the channel. The node begins with nothing on its own side.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Flow {
    /// HTLCs under way to the node.
    pub held_htlcs: u32,
    /// What they bring.
    pub held_msat: u64,
    /// What the node took so far.
    pub settled_msat: u64,
}

/// The channel now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Channel {
    /// All money in it.
    pub capacity_sat: u64,
    /// The node's.
    pub local_msat: u64,
    /// The peer's, without what is under way.
    pub remote_msat: u64,
    /// What each side has to keep.
    pub reserve_sat: u64,
    /// HTLCs that may be under way at once.
    pub max_htlcs: u32,
    /// HTLCs under way to the node, each with its invoice's hash.
    pub pending: Vec<([u8; 32], Htlc)>,
}

impl Node {
    /// The channel as it is.
    #[must_use]
    pub fn channel(&self) -> Channel {
        let settling = |htlc: &Htlc, hash| self.unresolved.contains(&(htlc.expiry_height, htlc.htlc_index, hash));
        let pending = self.invoices.values().flat_map(|record| {
            let under_way = record
                .htlcs
                .iter()
                .filter(|htlc| htlc.state == HtlcState::Accepted || settling(htlc, record.hash));
            under_way.map(|htlc| (record.hash.0, htlc.clone()))
        });
        Channel {
            capacity_sat: self.options.capacity_sat,
            local_msat: self.flow.settled_msat,
            remote_msat: self.remote_msat(),
            reserve_sat: self.options.capacity_sat / RESERVE_PART,
            max_htlcs: self.options.max_htlcs,
            pending: pending.collect(),
        }
    }

    fn remote_msat(&self) -> u64 {
        let capacity = self.options.capacity_sat.saturating_mul(1000);
        capacity.saturating_sub(self.flow.settled_msat.saturating_add(self.flow.held_msat))
    }

    /// Takes one more HTLC into the channel, or says why it has no room.
    pub(super) fn enter_channel(&mut self, amount_msat: u64) -> Result<(), FailReason> {
        if self.flow.held_htlcs >= self.options.max_htlcs {
            return Err(FailReason::ChannelFull);
        }
        let reserve = self.options.capacity_sat / RESERVE_PART;
        if amount_msat > self.remote_msat().saturating_sub(reserve.saturating_mul(1000)) {
            return Err(FailReason::NoBalance);
        }
        self.flow.held_htlcs += 1;
        self.flow.held_msat = self.flow.held_msat.saturating_add(amount_msat);
        Ok(())
    }

    /// Derives what is under way and what was taken from what the payers know.
    pub(super) fn restore_flow(&mut self) {
        for htlc in self.payments.values().flat_map(|payment| &payment.htlcs) {
            match htlc.outcome {
                Outcome::Held => {
                    self.flow.held_htlcs += 1;
                    self.flow.held_msat = self.flow.held_msat.saturating_add(htlc.amount_msat);
                }
                Outcome::Settled { .. } => {
                    self.flow.settled_msat = self.flow.settled_msat.saturating_add(htlc.amount_msat);
                }
                Outcome::Refunded { .. } => {}
            }
        }
    }

    /// An HTLC left the channel, with its money or without.
    pub(super) fn leave_channel(&mut self, amount_msat: u64, settled: bool) {
        self.flow.held_htlcs = self.flow.held_htlcs.saturating_sub(1);
        self.flow.held_msat = self.flow.held_msat.saturating_sub(amount_msat);
        if settled {
            self.flow.settled_msat = self.flow.settled_msat.saturating_add(amount_msat);
        }
    }
}
