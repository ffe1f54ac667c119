//! The node's records as protobuf messages.
//!
//! Called by the services and the control interface. Total: every record has a message.

use super::engine::HtlcNews;
use super::node::record::{Htlc, HtlcState, InvoiceRecord, InvoiceState, Outcome, PayerHtlc, Payment, PaymentStatus};
use super::node::{Channel, Resolution};
use super::{Finality, Ledger, SimError};
use crate::proto::lnrpc::{self, invoice::InvoiceState as ProtoState};
use crate::proto::routerrpc::{FinalHtlcEvent, HtlcEvent, SettleEvent, SubscribedEvent, htlc_event};
use crate::proto::tellersim::{self, ledger_entry, payer_htlc, payment};
use crate::time::UnixMs;

/// The one channel of the node.
pub(super) const CHAN_ID: u64 = 850_000 << 40 | 1 << 16;

/// Bytes of text that this module knows to be hex.
pub(super) fn bytes(hex_text: &str) -> Vec<u8> {
    hex::decode(hex_text).unwrap_or_default()
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn seconds(at: UnixMs) -> i64 {
    signed(at.as_secs())
}

fn height(blocks: u32) -> i32 {
    i32::try_from(blocks).unwrap_or(i32::MAX)
}

fn state(state: InvoiceState) -> i32 {
    let state = match state {
        InvoiceState::Open => ProtoState::Open,
        InvoiceState::Accepted => ProtoState::Accepted,
        InvoiceState::Settled => ProtoState::Settled,
        InvoiceState::Canceled => ProtoState::Canceled,
    };
    state.into()
}

/// `lnrpc.Channel`: announced, with a peer that is always there.
pub(super) fn channel(channel: &Channel) -> lnrpc::Channel {
    let constraints = lnrpc::ChannelConstraints {
        chan_reserve_sat: channel.reserve_sat,
        max_pending_amt_msat: channel
            .capacity_sat
            .saturating_sub(channel.reserve_sat)
            .saturating_mul(1000),
        max_accepted_htlcs: channel.max_htlcs,
    };
    let pending = channel.pending.iter().map(|(hash, htlc)| lnrpc::Htlc {
        incoming: true,
        amount: signed(htlc.amount_msat / 1000),
        hash_lock: hash.to_vec(),
        expiration_height: htlc.expiry_height,
        htlc_index: htlc.htlc_index,
    });
    let pending: Vec<lnrpc::Htlc> = pending.collect();
    lnrpc::Channel {
        active: true,
        chan_id: CHAN_ID,
        capacity: signed(channel.capacity_sat),
        local_balance: signed(channel.local_msat / 1000),
        remote_balance: signed(channel.remote_msat / 1000),
        unsettled_balance: pending.iter().map(|htlc| htlc.amount).sum(),
        pending_htlcs: pending,
        local_constraints: Some(constraints),
        remote_constraints: Some(constraints),
        ..lnrpc::Channel::default()
    }
}

/// `lnrpc.Invoice`.
pub(super) fn invoice(record: &InvoiceRecord) -> lnrpc::Invoice {
    lnrpc::Invoice {
        memo: record.memo.clone(),
        r_preimage: record
            .preimage
            .as_ref()
            .map(|preimage| preimage.expose().to_vec())
            .unwrap_or_default(),
        r_hash: record.hash.0.to_vec(),
        value: signed(record.value_msat / 1000),
        creation_date: seconds(record.created_at_unix_ms),
        settle_date: record.settled_at().map(seconds).unwrap_or_default(),
        payment_request: record.payment_request.clone(),
        description_hash: bytes(&record.description_hash),
        expiry: signed(record.expiry_s),
        fallback_addr: String::new(),
        cltv_expiry: u64::from(record.cltv_expiry),
        route_hints: Vec::new(),
        private: record.private,
        add_index: record.add_index,
        settle_index: record.settle_index,
        amt_paid_sat: signed(record.paid_msat() / 1000),
        amt_paid_msat: signed(record.paid_msat()),
        state: state(record.state),
        htlcs: record.htlcs.iter().map(htlc).collect(),
        value_msat: signed(record.value_msat),
        is_keysend: false,
        payment_addr: bytes(&record.payment_addr),
        is_amp: false,
    }
}

fn htlc(htlc: &Htlc) -> lnrpc::InvoiceHtlc {
    let state = match htlc.state {
        HtlcState::Accepted => lnrpc::InvoiceHtlcState::Accepted,
        HtlcState::Settled => lnrpc::InvoiceHtlcState::Settled,
        HtlcState::Canceled => lnrpc::InvoiceHtlcState::Canceled,
    };
    lnrpc::InvoiceHtlc {
        chan_id: CHAN_ID,
        htlc_index: htlc.htlc_index,
        amt_msat: htlc.amount_msat,
        accept_height: height(htlc.accept_height),
        accept_time: seconds(htlc.accepted_at_unix_ms),
        resolve_time: htlc.resolved_at_unix_ms.map(seconds).unwrap_or_default(),
        expiry_height: height(htlc.expiry_height),
        state: state.into(),
        mpp_total_amt_msat: htlc.mpp_total_msat,
    }
}

/// `tellersim.Payment`.
pub(super) fn payment(payment: &Payment) -> tellersim::Payment {
    let money = payment.money();
    let (status, failure_reason) = match payment.status() {
        PaymentStatus::Waiting => (payment::Status::Waiting, ""),
        PaymentStatus::InFlight => (payment::Status::InFlight, ""),
        PaymentStatus::Succeeded => (payment::Status::Succeeded, ""),
        PaymentStatus::Failed(reason) => (payment::Status::Failed, reason.as_str()),
    };
    tellersim::Payment {
        id: payment.id,
        payment_hash: payment.order.hash.0.to_vec(),
        status: status.into(),
        amount_msat: payment.order.amount_msat,
        sent_msat: money.sent_msat,
        held_msat: money.held_msat,
        settled_msat: money.settled_msat,
        refunded_msat: money.refunded_msat,
        failure_reason: failure_reason.to_owned(),
        preimage: payment
            .preimage
            .as_ref()
            .map(|preimage| preimage.expose().to_vec())
            .unwrap_or_default(),
        due_at_unix_ms: payment.order.due_at_unix_ms.0,
        htlcs: payment.htlcs.iter().map(payer_htlc).collect(),
    }
}

fn payer_htlc(htlc: &PayerHtlc) -> tellersim::PayerHtlc {
    let (outcome, resolved, reason) = match htlc.outcome {
        Outcome::Held => (payer_htlc::Outcome::Held, UnixMs(0), ""),
        Outcome::Settled { at_unix_ms, .. } => (payer_htlc::Outcome::Settled, at_unix_ms, ""),
        Outcome::Refunded { at_unix_ms, reason } => (payer_htlc::Outcome::Refunded, at_unix_ms, reason.as_str()),
    };
    tellersim::PayerHtlc {
        amount_msat: htlc.amount_msat,
        sent_at_unix_ms: htlc.sent_at_unix_ms.0,
        outcome: outcome.into(),
        resolved_at_unix_ms: resolved.0,
        reason: reason.to_owned(),
        htlc_index: htlc.htlc_index.unwrap_or_default(),
    }
}

/// The ledger as the stream of [`tellersim::LedgerEntry`].
pub(super) fn ledger(ledger: &Ledger) -> Vec<tellersim::LedgerEntry> {
    let summary = tellersim::Summary {
        height: ledger.height,
        sent_msat: ledger.money.sent_msat,
        held_msat: ledger.money.held_msat,
        settled_msat: ledger.money.settled_msat,
        refunded_msat: ledger.money.refunded_msat,
    };
    let summary = std::iter::once(ledger_entry::Entry::Summary(summary));
    let invoices = ledger
        .invoices
        .iter()
        .map(|record| ledger_entry::Entry::Invoice(invoice_record(record)));
    let payments = ledger
        .payments
        .iter()
        .map(|record| ledger_entry::Entry::Payment(payment(record)));
    let entries = summary.chain(invoices).chain(payments);
    entries
        .map(|entry| tellersim::LedgerEntry { entry: Some(entry) })
        .collect()
}

fn invoice_record(record: &InvoiceRecord) -> tellersim::InvoiceRecord {
    let history = record.history.iter().map(|entry| tellersim::HistoryEntry {
        seq: entry.seq,
        at_unix_ms: entry.at_unix_ms.0,
        state: state(entry.state),
        cause: entry.cause.as_str().to_owned(),
    });
    tellersim::InvoiceRecord {
        invoice: Some(invoice(record)),
        history: history.collect(),
    }
}

/// What SubscribeHtlcEvents sends. The event of finality has no type there either.
pub(super) fn htlc_event(news: HtlcNews) -> HtlcEvent {
    use htlc_event::{Event, EventType};
    let (index, event_type, event) = match news {
        HtlcNews::Subscribed => {
            let event = Some(Event::SubscribedEvent(SubscribedEvent {}));
            return HtlcEvent {
                event,
                ..HtlcEvent::default()
            };
        }
        HtlcNews::Settle(index) => (index, EventType::Receive, Event::SettleEvent(SettleEvent {})),
        HtlcNews::Final(index, Resolution { settled, offchain }) => {
            let event = Event::FinalHtlcEvent(FinalHtlcEvent { settled, offchain });
            (index, EventType::Unknown, event)
        }
    };
    HtlcEvent {
        incoming_channel_id: CHAN_ID,
        incoming_htlc_id: index,
        event_type: event_type.into(),
        event: Some(event),
        ..HtlcEvent::default()
    }
}

/// A fault from its message.
pub(super) fn fault(fault: tellersim::Fault) -> Result<super::Fault, SimError> {
    use std::time::Duration;
    use tellersim::fault::Kind;
    use tellersim::finality::Order;

    let given = |text: String| (!text.is_empty()).then_some(text);
    Ok(
        match fault
            .kind
            .ok_or_else(|| SimError::BadFault("no kind of fault given".into()))?
        {
            Kind::Restart(restart) => super::Fault::Restart {
                down: Duration::from_millis(restart.down_ms),
                startup: Duration::from_millis(restart.startup_ms),
            },
            Kind::Hang(hang) => super::Fault::Hang {
                time: (hang.ms > 0).then(|| Duration::from_millis(hang.ms)),
                method: given(hang.method),
            },
            Kind::Release(_) => super::Fault::Release,
            Kind::DropStreams(drop) => super::Fault::DropStreams {
                error: given(drop.error),
            },
            Kind::SetState(set) => super::Fault::SetState(
                set.state
                    .try_into()
                    .map_err(|_| SimError::BadFault(format!("no state {}", set.state)))?,
            ),
            Kind::SetSynced(set) => super::Fault::Sync(set.synced),
            Kind::Finality(order) => super::Fault::Finality(match Order::try_from(order.order) {
                Ok(Order::Hold) => Finality::Hold,
                Ok(Order::Release) => Finality::Release,
                Ok(Order::Lose) => Finality::Lose,
                Err(_) => return Err(SimError::BadFault(format!("no order {}", order.order))),
            }),
            Kind::Slow(slow) => super::Fault::Slow(Duration::from_millis(slow.ms)),
            Kind::LoseReply(lose) => super::Fault::LoseReply {
                method: lose.method,
                count: lose.count,
            },
            Kind::Fail(fail) => super::Fault::Fail {
                method: fail.method,
                count: fail.count,
                code: fail.code,
                text: fail.text,
            },
        },
    )
}
