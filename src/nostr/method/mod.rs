//! The methods: their names, what they take ([`input`]) and what they give ([`result`]).
//!
//! Used by the service to read calls and by its client to write them. What must stay true: both spellings of a name are
//! one method; nothing is guessed, a bad or unknown field is an error that names it; no preimage is printed.

pub mod input;
pub mod result;
#[cfg(test)]
mod tests;

use thiserror::Error;

use crate::ids::{PaymentHash, Preimage};

use super::field::{self, BadField, Object};
use super::wire::Request;

pub use input::CreateHoldInvoice;
pub use result::{CommittedInvoice, CreatedInvoice, HoldInvoice, HoldState, InvoiceStanding};

/// A method's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Method {
    /// Adds a hold invoice.
    CreateHoldInvoice,
    /// Says that a dispense is about to start.
    CommitHoldInvoice,
    /// Takes the held money.
    SettleHoldInvoice,
    /// Gives it back.
    CancelHoldInvoice,
    /// Where it stands.
    GetHoldInvoice,
    /// Asks for pushes.
    SubscribeHoldInvoices,
}

impl Method {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::CreateHoldInvoice,
        Self::CommitHoldInvoice,
        Self::SettleHoldInvoice,
        Self::CancelHoldInvoice,
        Self::GetHoldInvoice,
        Self::SubscribeHoldInvoices,
    ];

    /// The name in camelCase: what a client of ours sends, and the `requestId` of pushes.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::CreateHoldInvoice => "createHoldInvoice",
            Self::CommitHoldInvoice => "commitHoldInvoice",
            Self::SettleHoldInvoice => "settleHoldInvoice",
            Self::CancelHoldInvoice => "cancelHoldInvoice",
            Self::GetHoldInvoice => "getHoldInvoice",
            Self::SubscribeHoldInvoices => "subscribeHoldInvoices",
        }
    }

    /// The method of that name, in camelCase or PascalCase.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        let rest = name.get(1..)?;
        let same = |method: &Self| {
            let (first, after) = method.name().split_at(1);
            after == rest && name.get(..1).is_some_and(|c| c.eq_ignore_ascii_case(first))
        };
        Self::ALL.into_iter().find(same)
    }
}

/// A method with its input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// See [`Method::CreateHoldInvoice`].
    CreateHoldInvoice(CreateHoldInvoice),
    /// See [`Method::CommitHoldInvoice`].
    CommitHoldInvoice(PaymentHash),
    /// See [`Method::SettleHoldInvoice`].
    SettleHoldInvoice(Preimage),
    /// See [`Method::CancelHoldInvoice`].
    CancelHoldInvoice(PaymentHash),
    /// See [`Method::GetHoldInvoice`].
    GetHoldInvoice(PaymentHash),
    /// See [`Method::SubscribeHoldInvoices`].
    SubscribeHoldInvoices,
}

/// A request that names no method, or not its fields. Its text is the `reason` of the answer.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Refusal {
    /// There is no such method.
    #[error("unknown method {0}")]
    UnknownMethod(String),
    /// A batch inside a batch.
    #[error("a batch can not hold another batch")]
    NestedBatch,
    /// A bad field.
    #[error(transparent)]
    Field(#[from] BadField),
}

impl Call {
    /// Reads one call.
    pub fn read(request: &Request) -> Result<Self, Refusal> {
        let method = Method::of_name(&request.rpc_name)
            .ok_or_else(|| Refusal::UnknownMethod(field::shown(&request.rpc_name)))?;
        let object = &request.input;
        Ok(match method {
            Method::CreateHoldInvoice => Self::CreateHoldInvoice(CreateHoldInvoice::read(object)?),
            Method::CommitHoldInvoice => Self::CommitHoldInvoice(input::hash_only(object)?),
            Method::SettleHoldInvoice => Self::SettleHoldInvoice(input::preimage_only(object)?),
            Method::CancelHoldInvoice => Self::CancelHoldInvoice(input::hash_only(object)?),
            Method::GetHoldInvoice => Self::GetHoldInvoice(input::hash_only(object)?),
            Method::SubscribeHoldInvoices => {
                field::refuse_unknown(object, &[])?;
                Self::SubscribeHoldInvoices
            }
        })
    }

    /// Its method.
    #[must_use]
    pub fn method(&self) -> Method {
        match self {
            Self::CreateHoldInvoice(_) => Method::CreateHoldInvoice,
            Self::CommitHoldInvoice(_) => Method::CommitHoldInvoice,
            Self::SettleHoldInvoice(_) => Method::SettleHoldInvoice,
            Self::CancelHoldInvoice(_) => Method::CancelHoldInvoice,
            Self::GetHoldInvoice(_) => Method::GetHoldInvoice,
            Self::SubscribeHoldInvoices => Method::SubscribeHoldInvoices,
        }
    }

    /// The request that asks for it.
    #[must_use]
    pub fn request(&self) -> Request {
        let input = match self {
            Self::CreateHoldInvoice(create) => create.fields(),
            Self::CommitHoldInvoice(hash) | Self::CancelHoldInvoice(hash) | Self::GetHoldInvoice(hash) => {
                Object::from_iter([("hash".to_owned(), hash.to_string().into())])
            }
            Self::SettleHoldInvoice(preimage) => {
                Object::from_iter([("preimage".to_owned(), String::from(preimage.clone()).into())])
            }
            Self::SubscribeHoldInvoices => Object::new(),
        };
        Request {
            rpc_name: self.method().name().into(),
            input,
        }
    }
}

/// What a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Asked {
    /// One call.
    One(Call),
    /// Several, each answered for itself, in this order.
    Batch(Vec<Result<Call, Refusal>>),
}

impl Asked {
    /// Reads a request, which may be a batch.
    pub fn read(request: &Request) -> Result<Self, Refusal> {
        let Some(entries) = request.entries() else {
            return Call::read(request).map(Self::One);
        };
        let read = |entry: Result<Request, BadField>| {
            let entry = entry?;
            match entry.entries() {
                Some(_) => Err(Refusal::NestedBatch),
                None => Call::read(&entry),
            }
        };
        Ok(Self::Batch(entries?.into_iter().map(read).collect()))
    }
}
