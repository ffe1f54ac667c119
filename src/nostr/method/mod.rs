//! The methods: their names, what they take ([`input`], [`operator`]) and what they give ([`result`]).
//!
//! Used by the service to read calls and by its clients to write them. What must stay true: both spellings of a name are
//! one method; nothing is guessed, a bad or unknown field is an error that names it; no preimage and no token is printed.

pub mod input;
pub mod operator;
pub mod result;
#[cfg(test)]
mod tests;

use thiserror::Error;

use crate::api::SiteReport;
use crate::ids::{PaymentHash, Preimage};

use super::field::{self, BadField, Object};
use super::wire::{Code, Failure, Request};

pub use input::{CreateHoldInvoice, PairingToken};
pub use operator::OperatorCall;
pub use result::{CommittedInvoice, CreatedInvoice, Enrolled, HoldInvoice, HoldState, InvoiceStanding, ServiceInfo};

macro_rules! methods {
    ($($(#[$doc:meta])* $name:ident $word:literal)*) => {
        /// A method's name.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Method {
            $($(#[$doc])* $name,)*
        }

        impl Method {
            /// All of them.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The name in camelCase: what a client of ours sends, and the `requestId` of pushes.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $word,)*
                }
            }
        }
    };
}

methods! {
    /// Adds a hold invoice.
    CreateHoldInvoice "createHoldInvoice"
    /// Says that a dispense is about to start.
    CommitHoldInvoice "commitHoldInvoice"
    /// Takes the held money.
    SettleHoldInvoice "settleHoldInvoice"
    /// Gives it back.
    CancelHoldInvoice "cancelHoldInvoice"
    /// Where it stands.
    GetHoldInvoice "getHoldInvoice"
    /// Asks for pushes.
    SubscribeHoldInvoices "subscribeHoldInvoices"
    /// Who the service is, how its node fares, what this caller may do.
    GetServiceInfo "getServiceInfo"
    /// Binds the caller's key to an invitation.
    EnrollClient "enrollClient"
    /// A site tells how its machines fare.
    ReportSite "reportSite"
    /// An operator's view of all machines.
    ListAtms "listAtms"
    /// Of one machine.
    GetAtm "getAtm"
    /// Of the newest cash-outs.
    ListCashOuts "listCashOuts"
    /// Of one cash-out.
    GetCashOut "getCashOut"
    /// A machine takes no new customers.
    DrainAtm "drainAtm"
    /// A machine takes customers again.
    ResumeAtm "resumeAtm"
    /// Cassettes were filled and counted.
    LoadAtm "loadAtm"
    /// An operator decides about an open item.
    ResolveCashOut "resolveCashOut"
}

impl Method {
    /// The method of that name, in camelCase or PascalCase.
    #[must_use]
    pub fn of_name(name: &str) -> Option<Self> {
        let rest = name.get(1..)?;
        let same = |method: &Self| {
            let (first, after) = method.name().split_at(1);
            after == rest && name.get(..1).is_some_and(|c| c.eq_ignore_ascii_case(first))
        };
        Self::ALL.iter().copied().find(same)
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
    /// See [`Method::GetServiceInfo`].
    GetServiceInfo,
    /// See [`Method::EnrollClient`].
    EnrollClient(PairingToken),
    /// See [`Method::ReportSite`].
    ReportSite(Box<SiteReport>),
    /// What operators ask and order.
    Operator(OperatorCall),
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

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        let code = match refusal {
            Refusal::UnknownMethod(_) => Code::UnknownMethod,
            Refusal::NestedBatch | Refusal::Field(_) => Code::BadRequest,
        };
        Self::new(code, refusal.to_string())
    }
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
            Method::GetServiceInfo => {
                field::refuse_unknown(object, &[])?;
                Self::GetServiceInfo
            }
            Method::EnrollClient => Self::EnrollClient(PairingToken::read(object)?),
            Method::ReportSite => Self::ReportSite(Box::new(input::report(object)?)),
            Method::ListAtms
            | Method::GetAtm
            | Method::ListCashOuts
            | Method::GetCashOut
            | Method::DrainAtm
            | Method::ResumeAtm
            | Method::LoadAtm
            | Method::ResolveCashOut => Self::Operator(OperatorCall::read(method, object)?),
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
            Self::GetServiceInfo => Method::GetServiceInfo,
            Self::EnrollClient(_) => Method::EnrollClient,
            Self::ReportSite(_) => Method::ReportSite,
            Self::Operator(call) => call.method(),
        }
    }

    /// The request that asks for it.
    #[must_use]
    pub fn request(&self) -> Request {
        let one = |name: &str, value: String| Object::from_iter([(name.to_owned(), value.into())]);
        let input = match self {
            Self::CreateHoldInvoice(create) => create.fields(),
            Self::CommitHoldInvoice(hash) | Self::CancelHoldInvoice(hash) | Self::GetHoldInvoice(hash) => {
                one("hash", hash.to_string())
            }
            Self::SettleHoldInvoice(preimage) => one("preimage", preimage.clone().into()),
            Self::SubscribeHoldInvoices | Self::GetServiceInfo => Object::new(),
            Self::EnrollClient(token) => one("token", token.expose().to_owned()),
            Self::ReportSite(report) => input::report_fields(report),
            Self::Operator(call) => call.fields(),
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
