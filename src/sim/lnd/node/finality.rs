//! What finally becomes of HTLCs: LND's SETTLED is its database, the money comes when the payer's peer hears of it.
//!
//! Called by the node's settle, tick and restore. Must stay true: an HTLC has a resolution exactly when its payer's money
//! is not held any more, so the payer's side alone is remembered in the log. Source: lnd v0.21.2-beta, `rpcserver.go`
//! (LookupHtlcResolution), `channeldb/channel.go`, `contractcourt/`, `lncfg/config.go` (16 blocks before the expiry of an
//! HTLC whose preimage it knows LND goes on chain).

use super::record::{FailReason, Htlc, HtlcState, Outcome};
use super::{Node, Refusal};
use crate::ids::{PaymentHash, Preimage};
use crate::time::UnixMs;

/// Blocks before its expiry at which a settled HTLC is claimed on chain: LND's `DefaultIncomingBroadcastDelta`.
const BROADCAST_DELTA: u32 = 16;

/// What became of an HTLC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resolution {
    /// The node has the money.
    pub settled: bool,
    /// By a commitment with the peer, not on chain.
    pub offchain: bool,
}

/// What the peer does that the payments come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Finality {
    /// It goes: what is settled from now on stays without resolution.
    Hold,
    /// It is back: what was settled meanwhile is final, and the next at once.
    Release,
    /// It is back, and what was settled meanwhile it took back on chain.
    Lose,
}

impl Resolution {
    /// `None` while the payer's money is held.
    fn of(outcome: Outcome) -> Option<Self> {
        match outcome {
            Outcome::Held => None,
            Outcome::Settled { on_chain, .. } => Some(Self {
                settled: true,
                offchain: !on_chain,
            }),
            Outcome::Refunded { reason, .. } => Some(Self {
                settled: false,
                offchain: reason != FailReason::TimedOutOnChain,
            }),
        }
    }
}

impl Node {
    /// Whether resolutions are stored.
    #[must_use]
    pub fn stores_resolutions(&self) -> bool {
        self.options.final_resolutions
    }

    /// As after a restart with or without `--store-final-htlc-resolutions`.
    pub fn store_resolutions(&mut self, store: bool) {
        self.options.final_resolutions = store;
    }

    /// LookupHtlcResolution of the one channel; `None`: it has none.
    pub fn resolution(&self, htlc_index: u64) -> Result<Option<Resolution>, Refusal> {
        match self.options.final_resolutions {
            true => Ok(self.resolutions.get(&htlc_index).copied()),
            false => Err(Refusal::NotStored),
        }
    }

    /// HTLCs that came to their end since the last call, in order.
    pub fn take_finals(&mut self) -> Vec<(u64, Resolution)> {
        std::mem::take(&mut self.changes.finals)
    }

    /// The peer goes or comes back.
    pub fn set_finality(&mut self, order: Finality, now: UnixMs) {
        self.peer_online = order != Finality::Hold;
        if order == Finality::Lose {
            for (_, index, hash) in std::mem::take(&mut self.unresolved) {
                self.end(hash, index, timed_out(now));
            }
        }
        self.tick(now);
    }

    /// An HTLC of an invoice that was just settled. Once its payer's node took it back on chain, LND's word is not money.
    pub(super) fn settle_htlc(&mut self, hash: PaymentHash, htlc: &Htlc, now: UnixMs) {
        if self.height >= htlc.expiry_height {
            self.end(hash, htlc.htlc_index, timed_out(now));
        } else if self.peer_online && self.watching {
            self.end(hash, htlc.htlc_index, settled(now, false));
        } else {
            self.unresolved.insert((htlc.expiry_height, htlc.htlc_index, hash));
        }
    }

    /// Ends the settled HTLCs that can end: those too close to their expiry on chain, the others when the peer is there.
    pub(super) fn finish_settled(&mut self, now: UnixMs) {
        while let Some((expiry, index, hash)) = self.unresolved.first().copied() {
            let on_chain = self.height >= expiry.saturating_sub(BROADCAST_DELTA);
            if !on_chain && !self.peer_online {
                return;
            }
            self.unresolved.remove(&(expiry, index, hash));
            self.end(hash, index, settled(now, on_chain));
        }
    }

    /// What is over and was not claimed, its payer's node takes back on chain: all that was held while the node was away, and
    /// a part of an incomplete set, which LND's own watch for heights leaves alone.
    pub(super) fn take_back(&mut self, now: UnixMs) {
        let held = self.invoices.values().flat_map(|record| {
            let over = |htlc: &&Htlc| htlc.state == HtlcState::Accepted && htlc.expiry_height <= self.height;
            let over = record.htlcs.iter().filter(over);
            over.map(|htlc| (record.hash, htlc.htlc_index))
        });
        let unclaimed = |(expiry, _, _): &(u32, u64, PaymentHash)| *expiry <= self.height;
        let unclaimed: Vec<_> = self.unresolved.iter().copied().filter(unclaimed).collect();
        let settled = unclaimed.iter().map(|(_, index, hash)| (*hash, *index));
        let over: Vec<_> = held.chain(settled).collect();
        for key in unclaimed {
            self.unresolved.remove(&key);
        }
        for (hash, index) in over {
            self.end(hash, index, timed_out(now));
        }
    }

    fn end(&mut self, hash: PaymentHash, index: u64, outcome: Outcome) {
        let Some(record) = self.invoices.get(&hash) else { return };
        let payment = record.htlcs.iter().find(|htlc| htlc.htlc_index == index);
        let (payment, preimage): (Option<u64>, Option<Preimage>) =
            (payment.map(|htlc| htlc.payment_id), record.preimage.clone());
        if let Some(payment) = payment {
            self.tell_payer(payment, index, outcome, preimage.as_ref());
        }
    }

    /// Notes what became of an HTLC: told to whoever listens in any case, kept when resolutions are stored.
    pub(super) fn resolved(&mut self, htlc_index: u64, outcome: Outcome) {
        let Some(resolution) = Resolution::of(outcome) else {
            return;
        };
        if self.options.final_resolutions {
            self.resolutions.insert(htlc_index, resolution);
        }
        self.changes.finals.push((htlc_index, resolution));
    }

    /// Derives what is not in the log: the peer of a process that was just started is there.
    pub(super) fn restore_finality(&mut self) {
        let payers = self.payments.values().flat_map(|payment| &payment.htlcs);
        let ended = payers.filter_map(|payer| Some((payer.htlc_index?, Resolution::of(payer.outcome)?)));
        self.resolutions = ended.collect();
        for record in self.invoices.values() {
            for htlc in record.htlcs.iter().filter(|htlc| htlc.state == HtlcState::Settled) {
                if !self.resolutions.contains_key(&htlc.htlc_index) {
                    self.unresolved
                        .insert((htlc.expiry_height, htlc.htlc_index, record.hash));
                }
            }
        }
    }
}

fn settled(at_unix_ms: UnixMs, on_chain: bool) -> Outcome {
    Outcome::Settled { at_unix_ms, on_chain }
}

fn timed_out(at_unix_ms: UnixMs) -> Outcome {
    Outcome::Refunded {
        at_unix_ms,
        reason: FailReason::TimedOutOnChain,
    }
}
