//! What the journal's payloads mean: one record is one event of one item.
//!
//! JSON, so that a record can be read without this program. Written by the actors through the
//! journal, folded by [`crate::store`]. A change of these types that alters the JSON needs a new
//! [`VERSION`] and a reader for the old one: the frozen bytes in the tests below must stay readable.

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::cashout::Event;
use crate::clients::ClientEvent;
use crate::hardware::ClearedNotes;
use crate::ids::{AtmId, CashOutId, ClientName, NostrKey, PaymentHash};
use crate::invoice::InvoiceEvent;
use crate::money::Minor;
use crate::time::UnixMs;

/// The version of the payload written now.
pub const VERSION: u8 = 1;

/// One event of one item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// When it was written.
    pub at: UnixMs,
    /// Whose event.
    #[serde(flatten)]
    pub body: Body,
}

/// The item and its event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "item")]
pub enum Body {
    /// Of a cash-out.
    CashOut {
        /// Which.
        id: CashOutId,
        /// What happened.
        event: Event,
    },
    /// Of an invoice.
    Invoice {
        /// Which.
        hash: PaymentHash,
        /// What happened.
        event: InvoiceEvent,
    },
    /// Of an ATM.
    Atm {
        /// Which.
        id: AtmId,
        /// What happened.
        event: AtmEvent,
    },
    /// The Lightning node whose invoices these are, written when it is first reached.
    Node {
        /// Its identity key.
        pubkey: String,
    },
    /// Of a client of the hold-invoice service.
    Client {
        /// Which.
        name: ClientName,
        /// What happened.
        event: ClientEvent,
    },
    /// An operator's order over Nostr, before anything is done for it.
    Order {
        /// The key that signed it.
        key: NostrKey,
        /// The name of that key in the configuration.
        by: ClientName,
        /// The method and its input, as JSON.
        order: String,
    },
}

impl Body {
    /// The item's kind and the event's name, as they stand in the journal.
    #[must_use]
    pub fn name(&self) -> (&'static str, &'static str) {
        match self {
            Self::CashOut { event, .. } => ("cash_out", event.name()),
            Self::Invoice { event, .. } => ("invoice", event.name()),
            Self::Atm { event, .. } => ("atm", event.name()),
            Self::Node { .. } => ("node", "first_reached"),
            Self::Client { event, .. } => ("client", event.name()),
            Self::Order { .. } => ("order", "received"),
        }
    }
}

/// What operators do to an ATM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum AtmEvent {
    /// A cassette was loaded and its notes counted.
    CassetteLoaded {
        /// Position, from 1.
        position: u8,
        /// Value of one note.
        denomination: Minor,
        /// Notes inside.
        notes: u32,
        /// Who counted.
        by: String,
    },
    /// No new customers until resumed.
    Drained {
        /// Who ordered it.
        by: String,
    },
    /// Customers may come again.
    Resumed {
        /// Who ordered it.
        by: String,
    },
    /// Its dispenser's path is about to be cleared.
    ClearBegun {
        /// The complaint that asks for it.
        complaint: String,
        /// The notes of an earlier clearing that the dispenser remembers still: they are booked already, and are
        /// not what this one moved.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        before: Option<Vec<ClearedNotes>>,
    },
    /// The path was cleared.
    Cleared {
        /// The notes that moved; none too when the device could not tell.
        notes: Vec<ClearedNotes>,
    },
}

impl AtmEvent {
    /// The event's name, as it stands in the journal.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::CassetteLoaded { .. } => "cassette_loaded",
            Self::Drained { .. } => "drained",
            Self::Resumed { .. } => "resumed",
            Self::ClearBegun { .. } => "clear_begun",
            Self::Cleared { .. } => "cleared",
        }
    }
}

/// A payload that this program can not read.
#[derive(Debug, Error)]
pub enum BadRecord {
    /// Written by a later version.
    #[error("record version {0} is newer than this program's {VERSION}: run the version that wrote it, or a later one")]
    Version(u8),
    /// Not the JSON it should be.
    #[error("the record's content is not valid: {0}")]
    Json(#[from] serde_json::Error),
}

impl Record {
    /// The payload for the journal.
    ///
    /// # Errors
    /// Never for values of these types; passed on instead of a panic.
    pub fn encode(&self) -> Result<Vec<u8>, BadRecord> {
        Ok(serde_json::to_vec(self)?)
    }

    /// Reads a payload of `version`.
    ///
    /// # Errors
    /// When the version is not known or the content is not valid.
    pub fn decode(version: u8, payload: &[u8]) -> Result<Self, BadRecord> {
        if version != VERSION {
            return Err(BadRecord::Version(version));
        }
        Ok(serde_json::from_slice(payload)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cashout::{CancelBy, Resolution};
    use crate::invoice::{InvoiceSpec, Owner};

    /// Do not edit this test: data directories in the field hold these bytes.
    #[test]
    fn version_1_bytes_stay_readable() {
        let id = "01JD2M9K7Q8XWV3F";
        let frozen = [
            (
                format!(r#"{{"at":1,"item":"cash_out","id":"{id}","event":{{"type":"invoice_settled","paid":61000}}}}"#),
                Body::CashOut { id: id.parse().unwrap(), event: Event::InvoiceSettled { paid: crate::money::Msat(61_000), funds: crate::money::Funds::NotFollowed } },
            ),
            (
                format!(
                    r#"{{"at":1,"item":"cash_out","id":"{id}","event":{{"type":"cancel_requested","by":{{"operator":"ada"}}}}}}"#
                ),
                Body::CashOut {
                    id: id.parse().unwrap(),
                    event: Event::CancelRequested { by: CancelBy::Operator("ada".into()) },
                },
            ),
            (
                format!(
                    r#"{{"at":1,"item":"cash_out","id":"{id}","event":{{"type":"operator_resolved","by":"ada","resolution":{{"delivered":2000}},"note":"n"}}}}"#
                ),
                Body::CashOut {
                    id: id.parse().unwrap(),
                    event: Event::OperatorResolved {
                        by: "ada".into(),
                        resolution: Resolution::Delivered(Minor(2_000)),
                        note: "n".into(),
                    },
                },
            ),
            (
                format!(
                    r#"{{"at":1,"item":"invoice","hash":"{}","event":{{"type":"canceled_at_lnd"}}}}"#,
                    "07".repeat(32)
                ),
                Body::Invoice { hash: PaymentHash([7; 32]), event: InvoiceEvent::CanceledAtLnd },
            ),
            (
                r#"{"at":1,"item":"atm","id":"lobby","event":{"type":"cassette_loaded","position":1,"denomination":2000,"notes":9,"by":"ada"}}"#
                    .to_owned(),
                Body::Atm {
                    id: "lobby".parse().unwrap(),
                    event: AtmEvent::CassetteLoaded {
                        position: 1,
                        denomination: Minor(2_000),
                        notes: 9,
                        by: "ada".into(),
                    },
                },
            ),
            (
                r#"{"at":1,"item":"atm","id":"lobby","event":{"type":"clear_begun","complaint":"c"}}"#.to_owned(),
                Body::Atm { id: "lobby".parse().unwrap(), event: AtmEvent::ClearBegun { complaint: "c".into(), before: None } },
            ),
            (
                r#"{"at":1,"item":"atm","id":"lobby","event":{"type":"cleared","notes":[{"position":1,"delivered":0,"rejected":2}]}}"#
                    .to_owned(),
                Body::Atm {
                    id: "lobby".parse().unwrap(),
                    event: AtmEvent::Cleared { notes: vec![ClearedNotes { position: 1, delivered: 0, rejected: 2 }] },
                },
            ),
            (r#"{"at":1,"item":"node","pubkey":"02ab"}"#.to_owned(), Body::Node { pubkey: "02ab".into() }),
        ];
        for (bytes, body) in frozen {
            assert_same(&bytes, body);
        }
    }

    fn assert_same(bytes: &str, body: Body) {
        let record = Record { at: UnixMs(1), body };
        assert_eq!(Record::decode(1, bytes.as_bytes()).unwrap(), record);
        assert_eq!(String::from_utf8(record.encode().unwrap()).unwrap(), bytes);
    }

    /// Do not edit this test either.
    #[test]
    fn version_1_bytes_of_a_clients_invoice_stay_readable() {
        let requested = format!(
            concat!(
                r#"{{"at":1,"item":"invoice","hash":"{hash}","event":{{"type":"requested","spec":{{"hash":"{hash}","#,
                r#""owner":{{"remote":{{"client":"{key}","commit_ms":9,"force_blocks_left":6}}}},"amount":61000,"#,
                r#""memo":"m","pay_by":5,"hold_ms":4,"cltv_expiry":80,"hold_expiry_delta":18,"min_blocks_left":12,"#,
                r#""private_route_hints":false}}}}}}"#
            ),
            hash = "07".repeat(32),
            key = "02".repeat(32),
        );
        let spec = InvoiceSpec {
            hash: PaymentHash([7; 32]),
            owner: Owner::Remote {
                client: NostrKey([2; 32]),
                commit_ms: 9,
                force_blocks_left: 6,
            },
            amount: crate::money::Msat(61_000),
            memo: "m".into(),
            pay_by: UnixMs(5),
            hold_ms: 4,
            cltv_expiry: 80,
            hold_expiry_delta: 18,
            min_blocks_left: 12,
            private_route_hints: false,
        };
        let event = InvoiceEvent::Requested { spec };
        let hash = PaymentHash([7; 32]);
        assert_same(&requested, Body::Invoice { hash, event });
    }

    /// Nor this one: the time came later, and records without it stay as they are.
    #[test]
    fn version_1_bytes_of_a_settlement_stay_readable() {
        let hash = PaymentHash([7; 32]);
        for (bytes, at) in [("", None), (r#","at":5"#, Some(UnixMs(5)))] {
            let bytes = format!(
                r#"{{"at":1,"item":"invoice","hash":"{hash}","event":{{"type":"settled_at_lnd","paid":61000{bytes}}}}}"#
            );
            let paid = crate::money::Msat(61_000);
            let event = InvoiceEvent::SettledAtLnd {
                paid,
                at,
                follow: false,
            };
            assert_same(&bytes, Body::Invoice { hash, event });
        }
    }

    /// Nor this one: what became of settled money came later.
    #[test]
    fn version_1_bytes_of_followed_settlements_stay_readable() {
        use crate::money::{Funds, Msat};
        let (id, hash) = ("01JD2M9K7Q8XWV3F", PaymentHash([7; 32]));
        let of_invoice = |event: &str| format!(r#"{{"at":1,"item":"invoice","hash":"{hash}","event":{event}}}"#);
        let of_cashout = |event: &str| format!(r#"{{"at":1,"item":"cash_out","id":"{id}","event":{event}}}"#);
        let (paid, at) = (Msat(61_000), Some(UnixMs(5)));
        for (bytes, event) in [
            (
                r#"{"type":"settled_at_lnd","paid":61000,"at":5,"follow":true}"#,
                InvoiceEvent::SettledAtLnd { paid, at, follow: true },
            ),
            (
                r#"{"type":"funds_seen","funds":"lost","at":6}"#,
                InvoiceEvent::FundsSeen {
                    funds: Funds::Lost,
                    at: UnixMs(6),
                },
            ),
        ] {
            assert_same(&of_invoice(bytes), Body::Invoice { hash, event });
        }
        for (bytes, event) in [
            (
                r#"{"type":"invoice_settled","paid":61000,"funds":"pending"}"#,
                Event::InvoiceSettled {
                    paid,
                    funds: Funds::Pending,
                },
            ),
            (
                r#"{"type":"funds_seen","funds":"final"}"#,
                Event::FundsSeen { funds: Funds::Final },
            ),
        ] {
            let id = id.parse().unwrap();
            assert_same(&of_cashout(bytes), Body::CashOut { id, event });
        }
    }

    /// Nor this one.
    #[test]
    fn version_1_bytes_of_clients_and_orders_stay_readable() {
        let frozen = [
            (
                format!(
                    r#"{{"at":1,"item":"client","name":"kiosk","event":{{"type":"invited","token":"{}","until":9,"by":"ada"}}}}"#,
                    "01".repeat(32)
                ),
                Body::Client {
                    name: "kiosk".parse().unwrap(),
                    event: ClientEvent::Invited {
                        token: crate::ids::TokenHash([1; 32]),
                        until: UnixMs(9),
                        by: "ada".into(),
                    },
                },
            ),
            (
                format!(
                    r#"{{"at":1,"item":"client","name":"kiosk","event":{{"type":"enrolled","key":"{}","at":8}}}}"#,
                    "02".repeat(32)
                ),
                Body::Client {
                    name: "kiosk".parse().unwrap(),
                    event: ClientEvent::Enrolled {
                        key: NostrKey([2; 32]),
                        at: UnixMs(8),
                    },
                },
            ),
            (
                r#"{"at":1,"item":"client","name":"kiosk","event":{"type":"revoked","by":"ada"}}"#.to_owned(),
                Body::Client {
                    name: "kiosk".parse().unwrap(),
                    event: ClientEvent::Revoked { by: "ada".into() },
                },
            ),
            (
                format!(
                    r#"{{"at":1,"item":"order","key":"{}","by":"ada","order":"drainAtm"}}"#,
                    "02".repeat(32)
                ),
                Body::Order {
                    key: NostrKey([2; 32]),
                    by: "ada".parse().unwrap(),
                    order: "drainAtm".into(),
                },
            ),
        ];
        for (bytes, body) in frozen {
            assert_same(&bytes, body);
        }
    }

    #[test]
    fn a_later_version_is_refused_by_name() {
        let error = Record::decode(2, b"{}").unwrap_err();
        assert!(error.to_string().contains("record version 2"), "{error}");
    }
}
