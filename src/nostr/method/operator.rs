//! What operators ask and order over Nostr: the API's orders, as calls.
//!
//! Read by the service of any tellerd, written by `tellerd --via`. Names and units are those of docs/API.md.

use serde_json::{Value, json};

use crate::api::{Decision, LoadedCassette, cassettes_problem};
use crate::clients::Role;
use crate::ids::{AtmId, CashOutId};
use crate::nostr::field::{self, BadField, Object};

use super::Method;

/// The most cash-outs in one answer.
pub const LIST_MAX: u16 = 500;
/// How many when the caller does not say.
pub const LIST_DEFAULT: u16 = 50;
/// The longest note of an operator, as over HTTP.
const NOTE_BYTES: usize = 1024;

/// A call of an operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OperatorCall {
    /// See [`Method::ListAtms`].
    ListAtms,
    /// See [`Method::GetAtm`].
    GetAtm(AtmId),
    /// See [`Method::ListCashOuts`]: the newest first.
    ListCashOuts {
        /// Only of this machine.
        atm: Option<AtmId>,
        /// Only older ones.
        before: Option<CashOutId>,
        /// At most so many.
        limit: u16,
    },
    /// See [`Method::GetCashOut`].
    GetCashOut(CashOutId),
    /// See [`Method::DrainAtm`].
    DrainAtm(AtmId),
    /// See [`Method::ResumeAtm`].
    ResumeAtm(AtmId),
    /// See [`Method::LoadAtm`].
    LoadAtm {
        /// Which machine.
        atm: AtmId,
        /// What was counted.
        cassettes: Vec<LoadedCassette>,
    },
    /// See [`Method::ResolveCashOut`].
    ResolveCashOut {
        /// Which cash-out.
        cashout: CashOutId,
        /// What was decided.
        decision: Decision,
        /// In the operator's words.
        note: String,
    },
}

impl OperatorCall {
    /// `method` is one of an operator's.
    pub(super) fn read(method: Method, object: &Object) -> Result<Self, BadField> {
        let only = |known: &[&str]| field::refuse_unknown(object, known);
        Ok(match method {
            Method::GetAtm => {
                only(&["atm"])?;
                Self::GetAtm(field::parsed(object, "atm")?)
            }
            Method::ListCashOuts => {
                only(&["atm", "before", "limit"])?;
                let limit = field::optional_whole(object, "limit", 1..=LIST_MAX.into())?;
                Self::ListCashOuts {
                    atm: field::optional_parsed(object, "atm")?,
                    before: field::optional_parsed(object, "before")?,
                    limit: limit
                        .and_then(|limit| u16::try_from(limit).ok())
                        .unwrap_or(LIST_DEFAULT),
                }
            }
            Method::GetCashOut => {
                only(&["cashout"])?;
                Self::GetCashOut(field::parsed(object, "cashout")?)
            }
            Method::DrainAtm => {
                only(&["atm"])?;
                Self::DrainAtm(field::parsed(object, "atm")?)
            }
            Method::ResumeAtm => {
                only(&["atm"])?;
                Self::ResumeAtm(field::parsed(object, "atm")?)
            }
            Method::LoadAtm => {
                only(&["atm", "cassettes"])?;
                let atm = field::parsed(object, "atm")?;
                let expected = "a list of position, denomination_minor and notes";
                let cassettes: Vec<LoadedCassette> = field::typed(object, "cassettes", expected)?;
                match cassettes_problem(&cassettes) {
                    Some((field, problem)) => return Err(BadField::new(&field, format!("is not valid: {problem}"))),
                    None => Self::LoadAtm { atm, cassettes },
                }
            }
            Method::ResolveCashOut => {
                only(&["cashout", "decision", "note"])?;
                let decisions = "\"claim_paid\", \"close\" or {\"delivered_minor\": amount}";
                Self::ResolveCashOut {
                    cashout: field::parsed(object, "cashout")?,
                    decision: field::typed(object, "decision", decisions)?,
                    note: field::optional_text(object, "note", NOTE_BYTES)?
                        .unwrap_or_default()
                        .to_owned(),
                }
            }
            _ => {
                only(&[])?;
                Self::ListAtms
            }
        })
    }

    /// What a caller must be for it.
    #[must_use]
    pub fn least(&self) -> Role {
        match self {
            Self::ListAtms | Self::GetAtm(_) | Self::ListCashOuts { .. } | Self::GetCashOut(_) => Role::Viewer,
            Self::DrainAtm(_) | Self::ResumeAtm(_) | Self::LoadAtm { .. } => Role::Cash,
            Self::ResolveCashOut { .. } => Role::Operator,
        }
    }

    pub(super) fn method(&self) -> Method {
        match self {
            Self::ListAtms => Method::ListAtms,
            Self::GetAtm(_) => Method::GetAtm,
            Self::ListCashOuts { .. } => Method::ListCashOuts,
            Self::GetCashOut(_) => Method::GetCashOut,
            Self::DrainAtm(_) => Method::DrainAtm,
            Self::ResumeAtm(_) => Method::ResumeAtm,
            Self::LoadAtm { .. } => Method::LoadAtm,
            Self::ResolveCashOut { .. } => Method::ResolveCashOut,
        }
    }

    pub(super) fn fields(&self) -> Object {
        let value = match self {
            Self::ListAtms => json!({}),
            Self::GetAtm(atm) | Self::DrainAtm(atm) | Self::ResumeAtm(atm) => json!({ "atm": atm }),
            Self::ListCashOuts { atm, before, limit } => json!({"atm": atm, "before": before, "limit": limit}),
            Self::GetCashOut(cashout) => json!({ "cashout": cashout }),
            Self::LoadAtm { atm, cassettes } => json!({"atm": atm, "cassettes": cassettes}),
            Self::ResolveCashOut {
                cashout,
                decision,
                note,
            } => json!({"cashout": cashout, "decision": decision, "note": note}),
        };
        match value {
            Value::Object(fields) => fields,
            _ => Object::new(),
        }
    }
}
