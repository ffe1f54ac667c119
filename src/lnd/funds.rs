//! What finally becomes of the HTLCs of a settled invoice: the client's part of following a settlement.
//!
//! Called by the client for the trait's methods of the same names. What must stay true: an HTLC without a resolution is
//! never taken for one with; "not stored" and "not allowed" are final words, every other failure is asked again.
//!
//! Source: lnd v0.21.2-beta, `rpcserver.go` (LookupHtlcResolution: NotFound while there is none, Unavailable when they are
//! not stored), `channeldb/channel.go` and `contractcourt/` (where they are written: when the commitment without the HTLC
//! is signed for, or the claim on chain is confirmed), `htlcswitch/htlcnotifier.go`. The events of finality are sent
//! whether resolutions are stored or not, after they are stored, and are lost while nobody listens.

use std::future::ready;

use futures_util::StreamExt;

use super::client::{Lane, LndClient, updates};
use super::{FundsSeen, HtlcKey, LnError, LnErrorKind, Updates, convert};
use crate::ids::PaymentHash;
use crate::proto::lnrpc::lightning_client::LightningClient;
use crate::proto::lnrpc::{self, LookupHtlcResolutionRequest, LookupHtlcResolutionResponse};
use crate::proto::routerrpc::router_client::RouterClient;
use crate::proto::routerrpc::{HtlcEvent, SubscribeHtlcEventsRequest, htlc_event::Event};

const LOOKUP: &str = "LookupHtlcResolution";
/// What a macaroon without the right is told; one that is not valid at all may be replaced by the next call.
const NO_RIGHT: &str = "permission denied";

async fn resolution(client: &LndClient, key: HtlcKey) -> Result<Option<LookupHtlcResolutionResponse>, LnError> {
    let message = LookupHtlcResolutionRequest {
        chan_id: key.chan_id,
        htlc_index: key.htlc_index,
    };
    let send = |channel, request| async move { LightningClient::new(channel).lookup_htlc_resolution(request).await };
    match client.call(LOOKUP, Lane::Unary, message, send).await {
        Ok(resolution) => Ok(Some(resolution)),
        Err(error) if error.kind == LnErrorKind::NotFound => Ok(None),
        Err(mut error) => {
            let advice = match error.kind {
                LnErrorKind::NotStored => "; set store-final-htlc-resolutions=true in lnd.conf and restart LND",
                LnErrorKind::Denied => "; bake a macaroon that allows /lnrpc.Lightning/LookupHtlcResolution too",
                _ => "",
            };
            error.message.push_str(advice);
            Err(error)
        }
    }
}

/// Asks for an HTLC that does not exist: "not found" is the good answer.
pub(super) async fn may_be_asked(client: &LndClient) -> Result<(), LnError> {
    let nobodys = HtlcKey {
        chan_id: 0,
        htlc_index: 0,
    };
    resolution(client, nobodys).await.map(|_| ())
}

/// What became of the HTLCs that settled the invoice.
pub(super) async fn of_invoice(client: &LndClient, hash: &PaymentHash) -> Result<FundsSeen, LnError> {
    let call = "LookupInvoice";
    let message = lnrpc::PaymentHash {
        r_hash: hash.0.to_vec(),
    };
    let send = |channel, request| async move { LightningClient::new(channel).lookup_invoice(request).await };
    let invoice = client.call(call, Lane::Unary, message, send).await?;
    let (mut waits_for, mut lost) = (Vec::new(), false);
    for key in convert::settled_htlcs(call, hash, &invoice)? {
        match resolution(client, key).await {
            Ok(Some(resolution)) => lost |= !resolution.settled,
            Ok(None) => waits_for.push(key),
            Err(error) => return never_told(error),
        }
    }
    Ok(match waits_for.is_empty() {
        _ if lost => FundsSeen::Lost,
        true => FundsSeen::Final,
        false => FundsSeen::Pending(waits_for),
    })
}

/// Whether asking again can help.
fn never_told(error: LnError) -> Result<FundsSeen, LnError> {
    match error.kind {
        LnErrorKind::NotStored => Ok(FundsSeen::NotFollowed(error.to_string())),
        LnErrorKind::Denied if error.message.contains(NO_RIGHT) => Ok(FundsSeen::NotFollowed(error.to_string())),
        _ => Err(error),
    }
}

/// One subscription, never renewed here. LND sends what happens to every HTLC of the node.
pub(super) async fn finals(client: &LndClient) -> Result<Updates<HtlcKey>, LnError> {
    let call = "SubscribeHtlcEvents";
    let send = |channel, request| async move { RouterClient::new(channel).subscribe_htlc_events(request).await };
    let stream = client.open(call, SubscribeHtlcEventsRequest {}, send).await?;
    let finals = updates(call, stream, |event| Ok(final_htlc(&event)));
    Ok(Box::pin(finals.filter_map(|event| ready(event.transpose()))))
}

/// The HTLC that is at its end by this event.
fn final_htlc(event: &HtlcEvent) -> Option<HtlcKey> {
    matches!(event.event, Some(Event::FinalHtlcEvent(_))).then_some(HtlcKey {
        chan_id: event.incoming_channel_id,
        htlc_index: event.incoming_htlc_id,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::lnrpc::{Invoice, InvoiceHtlc, InvoiceHtlcState, invoice::InvoiceState};
    use crate::proto::routerrpc::{FinalHtlcEvent, SettleEvent, SubscribedEvent};

    const HASH: PaymentHash = PaymentHash([3; 32]);

    fn htlc(htlc_index: u64, state: InvoiceHtlcState) -> InvoiceHtlc {
        InvoiceHtlc {
            chan_id: 77,
            htlc_index,
            state: state.into(),
            ..InvoiceHtlc::default()
        }
    }

    fn settled(htlcs: Vec<InvoiceHtlc>) -> Invoice {
        Invoice {
            r_hash: HASH.0.to_vec(),
            state: InvoiceState::Settled.into(),
            htlcs,
            ..Invoice::default()
        }
    }

    #[test]
    fn only_the_htlcs_that_settled_the_invoice_are_followed() {
        let first_try = htlc(0, InvoiceHtlcState::Canceled);
        let invoice = settled(vec![
            first_try,
            htlc(4, InvoiceHtlcState::Settled),
            htlc(7, InvoiceHtlcState::Settled),
        ]);
        let keys = convert::settled_htlcs("LookupInvoice", &HASH, &invoice).unwrap();
        let indexes: Vec<(u64, u64)> = keys.iter().map(|key| (key.chan_id, key.htlc_index)).collect();
        assert_eq!(indexes, [(77, 4), (77, 7)]);
    }

    #[test]
    fn an_answer_that_makes_no_sense_is_no_word_on_the_money() {
        let none = settled(vec![htlc(1, InvoiceHtlcState::Canceled)]);
        let open = Invoice {
            state: InvoiceState::Open.into(),
            ..settled(vec![htlc(1, InvoiceHtlcState::Settled)])
        };
        let other = Invoice {
            r_hash: vec![4; 32],
            ..settled(vec![htlc(1, InvoiceHtlcState::Settled)])
        };
        for (invoice, word) in [(none, "htlcs"), (open, "state"), (other, "r_hash")] {
            let error = convert::settled_htlcs("LookupInvoice", &HASH, &invoice).unwrap_err();
            assert!(error.message.starts_with(word), "{error}");
        }
    }

    #[test]
    fn only_a_lack_of_the_right_or_of_the_store_is_a_final_word() {
        let error = |kind, message: &str| LnError {
            call: LOOKUP,
            kind,
            message: message.to_owned(),
        };
        let told = |kind, message| matches!(never_told(error(kind, message)), Ok(FundsSeen::NotFollowed(_)));
        assert!(told(LnErrorKind::NotStored, "cannot lookup"));
        assert!(told(
            LnErrorKind::Denied,
            "LND does not let this macaroon do it: permission denied"
        ));
        assert!(!told(LnErrorKind::Denied, "verification failed: signature mismatch"));
        for kind in [
            LnErrorKind::Unreachable,
            LnErrorKind::Timeout,
            LnErrorKind::NotReady,
            LnErrorKind::Other,
        ] {
            assert!(!told(kind, "permission denied"), "{kind:?}");
        }
    }

    #[test]
    fn only_the_event_of_the_end_wakes() {
        let event = |event| HtlcEvent {
            incoming_channel_id: 77,
            incoming_htlc_id: 4,
            event: Some(event),
            ..HtlcEvent::default()
        };
        let (settled, offchain) = (false, true);
        let ended = event(Event::FinalHtlcEvent(FinalHtlcEvent { settled, offchain }));
        assert!(final_htlc(&ended).is_some(), "lost is an end too");
        assert_eq!(final_htlc(&event(Event::SettleEvent(SettleEvent {}))), None);
        assert_eq!(final_htlc(&event(Event::SubscribedEvent(SubscribedEvent {}))), None);
        assert_eq!(final_htlc(&HtlcEvent::default()), None);
    }
}
