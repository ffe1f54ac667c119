//! What is known of the node, and what may be asked of it by that.
//!
//! Written by the LND actor; read by all. What must stay true: nothing is added, and no cash let out, on a node of which it
//! is not known that it is the right one, fully started.

use crate::metrics::LndMethod;

/// What is known of the node now.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LndStatus {
    /// Counts connections: with a new one, every pending invoice is looked up again.
    pub epoch: u64,
    /// Connected to the right node, which takes calls; else why not.
    pub down: Option<String>,
    /// Its best height.
    pub height: u32,
    /// It has fully started.
    pub active: bool,
    /// It is in sync with the chain.
    pub synced: bool,
    /// Who it is, once it was reached.
    pub node: Option<NodeName>,
    /// Blocks before an HTLC's expiry at which it cancels a hold by itself, when it could be read from this connection.
    pub hold_expiry_delta: Option<u32>,
    /// Why else no invoice is to be added.
    pub no_new: Option<String>,
    /// Why settlements are not followed until the money is there, when they are not.
    pub no_follow: Option<String>,
}

/// A node's identity.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NodeName {
    /// Its identity key, hex.
    pub pubkey: String,
    /// `mainnet`, `testnet`, `regtest`, `simnet`, `signet`.
    pub network: String,
}

impl LndStatus {
    /// Calls about existing invoices can be made.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.epoch > 0 && self.down.is_none()
    }

    /// What is settled now is followed until the money is there; also when the node has just gone away.
    #[must_use]
    pub fn follows(&self) -> bool {
        self.epoch > 0 && self.no_follow.is_none()
    }

    /// An invoice can be added.
    ///
    /// # Errors
    /// Why not.
    pub fn can_add(&self) -> Result<(), String> {
        match self.down.as_ref().or(self.no_new.as_ref()) {
            Some(why) => Err(why.clone()),
            None if self.epoch == 0 => Err("LND was not reached yet".into()),
            None if !self.active => Err("LND is still starting".into()),
            None if !self.synced => Err("LND is not in sync with the chain".into()),
            None => Ok(()),
        }
    }

    /// The delta to reckon with for a hold that was promised with the `expected` one: LND may have been started with a larger.
    #[must_use]
    pub fn delta(&self, expected: u32) -> u32 {
        self.hold_expiry_delta
            .map_or(expected, |in_force| in_force.max(expected))
    }

    /// Why `method` must not be called now. A node that is still starting takes what ends a hold, but no cash goes out on one:
    /// it has not yet caught up with its channels.
    pub(super) fn refusal(&self, method: LndMethod) -> Option<String> {
        match method {
            LndMethod::AddHoldInvoice => self.can_add().err(),
            _ if !self.is_up() => Some(self.down.clone().unwrap_or_else(|| "LND was not reached yet".into())),
            LndMethod::Commit if !self.active => Some("LND is still starting".into()),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_against_new_invoices_lets_the_others_go_on() {
        let good = LndStatus {
            epoch: 1,
            active: true,
            synced: true,
            ..LndStatus::default()
        };
        assert_eq!(good.can_add(), Ok(()));
        let no_new = LndStatus {
            synced: false,
            no_new: Some("full".into()),
            ..good
        };
        assert_eq!(no_new.can_add(), Err("full".into()), "its own words first");
        assert!(no_new.is_up());
    }

    #[test]
    fn while_lnd_is_starting_holds_are_ended_and_no_cash_goes_out() {
        let starting = LndStatus {
            epoch: 1,
            synced: true,
            ..LndStatus::default()
        };
        for ends in [LndMethod::Settle, LndMethod::Cancel, LndMethod::Lookup] {
            assert_eq!(starting.refusal(ends), None);
        }
        for begins in [LndMethod::Commit, LndMethod::AddHoldInvoice] {
            assert_eq!(starting.refusal(begins).as_deref(), Some("LND is still starting"));
        }
        let active = LndStatus {
            active: true,
            ..starting
        };
        assert_eq!(active.refusal(LndMethod::Commit), None);
    }

    #[test]
    fn the_larger_delta_counts() {
        let status = |hold_expiry_delta| LndStatus {
            hold_expiry_delta,
            ..LndStatus::default()
        };
        for (in_force, counts) in [(None, 18), (Some(12), 18), (Some(40), 40)] {
            assert_eq!(status(in_force).delta(18), counts, "of what was promised with 18");
        }
    }
}
