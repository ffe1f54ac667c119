//! Proto -> domain for what LND answers.
//!
//! Called by the client for every answer and every stream item. What must stay true: no number from the
//! wire panics or is taken for something it is not; an answer that makes no sense is an error naming the field.
//! Source: fact sheet section 2; lnd v0.21.2-beta, `lnrpc/lightning.proto`, `lnrpc/stateservice.proto`.

use super::{HtlcKey, InvoiceSnapshot, InvoiceState, LnError, LnErrorKind, NodeInfo, NodeState};
use crate::ids::PaymentHash;
use crate::money::Msat;
use crate::proto::lnrpc::{self, InvoiceHtlcState, WalletState};

fn bad(call: &'static str, message: String) -> LnError {
    LnError {
        call,
        kind: LnErrorKind::Other,
        message,
    }
}

fn not_negative(call: &'static str, field: &str, value: i64) -> Result<u64, LnError> {
    u64::try_from(value).map_err(|_| bad(call, format!("{field}: LND answered {value}, which is negative")))
}

/// An invoice state by its number on the wire.
#[must_use]
pub(super) fn invoice_state(number: i32) -> InvoiceState {
    match lnrpc::invoice::InvoiceState::try_from(number) {
        Ok(lnrpc::invoice::InvoiceState::Open) => InvoiceState::Open,
        Ok(lnrpc::invoice::InvoiceState::Settled) => InvoiceState::Settled,
        Ok(lnrpc::invoice::InvoiceState::Canceled) => InvoiceState::Canceled,
        Ok(lnrpc::invoice::InvoiceState::Accepted) => InvoiceState::Accepted,
        Err(_) => InvoiceState::Unknown(number),
    }
}

/// A node's state by its number on the wire.
#[must_use]
pub(super) fn node_state(number: i32) -> NodeState {
    match WalletState::try_from(number) {
        Ok(WalletState::Locked) => NodeState::Locked,
        Ok(WalletState::Unlocked) => NodeState::Unlocked,
        Ok(WalletState::RpcActive) => NodeState::RpcActive,
        Ok(WalletState::ServerActive) => NodeState::ServerActive,
        Ok(WalletState::NonExisting | WalletState::WaitingToStart) | Err(_) => NodeState::NotStarted,
    }
}

/// LND's view of itself.
pub(super) fn node_info(call: &'static str, info: lnrpc::GetInfoResponse) -> Result<NodeInfo, LnError> {
    let chain = info.chains.into_iter().next();
    let network = chain
        .ok_or_else(|| bad(call, "chains: LND names no chain".to_owned()))?
        .network;
    Ok(NodeInfo {
        pubkey: info.identity_pubkey,
        alias: info.alias,
        version: info.version,
        network,
        block_height: info.block_height,
        synced_to_chain: info.synced_to_chain,
        stores_resolutions: info.store_final_htlc_resolutions,
        hold_expiry_delta: None,
        no_new: None,
    })
}

/// `invoices.holdexpirydelta` as it is in force; `None` when LND does not name it as a number.
pub(super) fn hold_expiry_delta(settings: &lnrpc::GetDebugInfoResponse) -> Option<u32> {
    settings.config.get("invoices.holdexpirydelta")?.parse().ok()
}

fn same_hash(call: &'static str, asked: &PaymentHash, r_hash: &[u8]) -> Result<PaymentHash, LnError> {
    let hash = <[u8; 32]>::try_from(r_hash).map(PaymentHash).map_err(|_| {
        let length = r_hash.len();
        bad(call, format!("r_hash: {length} bytes, 32 expected"))
    })?;
    if hash != *asked {
        return Err(bad(call, format!("r_hash: asked for {asked}, LND answered {hash}")));
    }
    Ok(hash)
}

/// The HTLCs that `asked` was settled with. `chan_id` is what LND's channel state calls the channel, as the key of final
/// resolutions is: both come from `OpenChannel.ShortChannelID`, whatever aliases the channel has beside it.
pub(super) fn settled_htlcs(
    call: &'static str,
    asked: &PaymentHash,
    invoice: &lnrpc::Invoice,
) -> Result<Vec<HtlcKey>, LnError> {
    same_hash(call, asked, &invoice.r_hash)?;
    let state = invoice_state(invoice.state);
    if state != InvoiceState::Settled {
        return Err(bad(call, format!("state: LND answered {state:?}, Settled expected")));
    }
    let settled = invoice
        .htlcs
        .iter()
        .filter(|htlc| InvoiceHtlcState::try_from(htlc.state) == Ok(InvoiceHtlcState::Settled));
    let keys: Vec<HtlcKey> = settled
        .map(|htlc| HtlcKey {
            chan_id: htlc.chan_id,
            htlc_index: htlc.htlc_index,
        })
        .collect();
    match keys.is_empty() {
        true => Err(bad(
            call,
            "htlcs: LND names no settled HTLC of a settled invoice".to_owned(),
        )),
        false => Ok(keys),
    }
}

/// The invoice `asked` for. An answer about another one is an error.
pub(super) fn snapshot(
    call: &'static str,
    asked: &PaymentHash,
    invoice: lnrpc::Invoice,
) -> Result<InvoiceSnapshot, LnError> {
    let hash = same_hash(call, asked, &invoice.r_hash)?;
    let state = invoice_state(invoice.state);
    Ok(InvoiceSnapshot {
        hash,
        state,
        amount: Msat(not_negative(call, "value_msat", invoice.value_msat)?),
        paid: paid(call, state, &invoice)?,
        lowest_expiry_height: lowest_expiry_height(call, &invoice.htlcs)?,
        payment_request: invoice.payment_request,
    })
}

fn accepted(htlcs: &[lnrpc::InvoiceHtlc]) -> impl Iterator<Item = &lnrpc::InvoiceHtlc> {
    htlcs
        .iter()
        .filter(|htlc| InvoiceHtlcState::try_from(htlc.state) == Ok(InvoiceHtlcState::Accepted))
}

/// `amt_paid_msat`; the sum of the held HTLCs while nothing is final and that field is not yet filled.
fn paid(call: &'static str, state: InvoiceState, invoice: &lnrpc::Invoice) -> Result<Msat, LnError> {
    let paid = not_negative(call, "amt_paid_msat", invoice.amt_paid_msat)?;
    if paid != 0 || !matches!(state, InvoiceState::Open | InvoiceState::Accepted) {
        return Ok(Msat(paid));
    }
    accepted(&invoice.htlcs)
        .try_fold(Msat::ZERO, |sum, htlc| sum.checked_add(Msat(htlc.amt_msat)))
        .ok_or_else(|| bad(call, "htlcs.amt_msat: the sum is too large".to_owned()))
}

fn lowest_expiry_height(call: &'static str, htlcs: &[lnrpc::InvoiceHtlc]) -> Result<Option<u32>, LnError> {
    let mut lowest = None;
    for htlc in accepted(htlcs) {
        let height = u32::try_from(htlc.expiry_height).map_err(|_| {
            let height = htlc.expiry_height;
            bad(
                call,
                format!("htlcs.expiry_height: LND answered {height}, which is negative"),
            )
        })?;
        lowest = Some(lowest.map_or(height, |low: u32| low.min(height)));
    }
    Ok(lowest)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CALL: &str = "LookupInvoice";
    const HASH: PaymentHash = PaymentHash([3; 32]);

    fn htlc(state: i32, amt_msat: u64, expiry_height: i32) -> lnrpc::InvoiceHtlc {
        lnrpc::InvoiceHtlc {
            state,
            amt_msat,
            expiry_height,
            ..lnrpc::InvoiceHtlc::default()
        }
    }

    fn invoice(state: i32, amt_paid_msat: i64, htlcs: Vec<lnrpc::InvoiceHtlc>) -> lnrpc::Invoice {
        lnrpc::Invoice {
            r_hash: HASH.0.to_vec(),
            state,
            value_msat: 1_000,
            amt_paid_msat,
            htlcs,
            payment_request: "lnbcrt1".to_owned(),
            ..lnrpc::Invoice::default()
        }
    }

    #[test]
    fn invoice_states_by_number() {
        use InvoiceState::*;
        let states: Vec<_> = [0, 1, 2, 3, 4, -1, i32::MAX].map(invoice_state).to_vec();
        assert_eq!(
            states,
            [
                Open,
                Settled,
                Canceled,
                Accepted,
                Unknown(4),
                Unknown(-1),
                Unknown(i32::MAX)
            ]
        );
    }

    #[test]
    fn node_states_by_number() {
        use NodeState::*;
        let states: Vec<_> = [0, 1, 2, 3, 4, 255, 5, -1].map(node_state).to_vec();
        assert_eq!(
            states,
            [
                NotStarted,
                Locked,
                Unlocked,
                RpcActive,
                ServerActive,
                NotStarted,
                NotStarted,
                NotStarted
            ]
        );
    }

    #[test]
    fn a_held_invoice() {
        let htlcs = vec![
            htlc(2, 500, 10),
            htlc(0, 600, 800_090),
            htlc(0, 700, 800_080),
            htlc(1, 9, 11),
            htlc(7, 9, 12),
        ];
        let expected = InvoiceSnapshot {
            hash: HASH,
            state: InvoiceState::Accepted,
            amount: Msat(1_000),
            paid: Msat(1_300),
            payment_request: "lnbcrt1".to_owned(),
            lowest_expiry_height: Some(800_080),
        };
        assert_eq!(
            snapshot(CALL, &HASH, invoice(3, 1_300, htlcs)).expect("valid"),
            expected
        );
    }

    #[test]
    fn paid_is_summed_only_while_nothing_is_final() {
        let htlcs = || vec![htlc(0, 600, 1), htlc(0, 700, 1), htlc(2, 800, 1)];
        let paid = |state, amt_paid| {
            snapshot(CALL, &HASH, invoice(state, amt_paid, htlcs()))
                .expect("valid")
                .paid
        };
        assert_eq!(paid(0, 0), Msat(1_300), "open, in parts");
        assert_eq!(paid(3, 0), Msat(1_300), "accepted");
        assert_eq!(paid(3, 5), Msat(5), "LND's own number first");
        assert_eq!(paid(1, 0), Msat::ZERO, "settled");
        assert_eq!(paid(2, 0), Msat::ZERO, "canceled");
        assert_eq!(paid(9, 0), Msat::ZERO, "unknown");
    }

    #[test]
    fn without_held_htlcs_there_is_no_expiry_height() {
        let snapshot = snapshot(CALL, &HASH, invoice(1, 600, vec![htlc(1, 600, 800_080)])).expect("valid");
        assert_eq!(snapshot.lowest_expiry_height, None);
    }

    #[test]
    fn an_answer_that_makes_no_sense_names_the_field() {
        let with = |change: fn(&mut lnrpc::Invoice)| {
            let mut invoice = invoice(0, 0, Vec::new());
            change(&mut invoice);
            invoice
        };
        for (field, answer) in [
            ("r_hash", with(|i| i.r_hash = vec![3; 31])),
            ("r_hash", with(|i| i.r_hash = Vec::new())),
            ("r_hash", with(|i| i.r_hash = vec![4; 32])),
            ("value_msat", with(|i| i.value_msat = -1)),
            ("amt_paid_msat", with(|i| i.amt_paid_msat = i64::MIN)),
            ("htlcs.expiry_height", with(|i| i.htlcs = vec![htlc(0, 1, -1)])),
            (
                "htlcs.amt_msat",
                with(|i| i.htlcs = vec![htlc(0, u64::MAX, 1), htlc(0, 1, 1)]),
            ),
        ] {
            let error = snapshot(CALL, &HASH, answer).expect_err(field);
            assert_eq!(error.kind, LnErrorKind::Other);
            assert!(error.message.starts_with(&format!("{field}: ")), "{error}");
        }
    }

    #[test]
    fn node_info_needs_a_chain() {
        let mut info = lnrpc::GetInfoResponse {
            identity_pubkey: "02ab".to_owned(),
            block_height: 7,
            synced_to_chain: true,
            ..lnrpc::GetInfoResponse::default()
        };
        assert!(node_info("GetInfo", info.clone()).is_err());
        info.chains.push(lnrpc::Chain {
            network: "regtest".to_owned(),
        });
        let info = node_info("GetInfo", info).expect("valid");
        assert_eq!(
            (info.network.as_str(), info.block_height, info.synced_to_chain),
            ("regtest", 7, true)
        );
    }
}
