//! What operators ask and order over Nostr.
//!
//! What must stay true: an order is journaled with the key that signed it before anything is done for it, and that key
//! is named in the records of what it did.

use serde_json::{Value, json};

use super::{Caller, Desk};
use crate::actors::drive::write;
use crate::actors::fleet::{AtmOrder, FleetError};
use crate::actors::views;
use crate::api::Decision;
use crate::cashout::Resolution;
use crate::cashout::ledger::Cassette;
use crate::clients::Role;
use crate::nostr::method::{Call, OperatorCall};
use crate::nostr::wire::{Code, Failure};
use crate::record::Body;

impl From<FleetError> for Failure {
    fn from(error: FleetError) -> Self {
        let code = match error {
            FleetError::NoSuchAtm(_) | FleetError::NoSuchCashOut(_) => Code::NotFound,
            FleetError::Unavailable(_) => Code::Unavailable,
            _ => Code::Refused,
        };
        Self::new(code, error.to_string())
    }
}

/// What a caller must be for a call.
fn least(call: &OperatorCall) -> Role {
    match call {
        OperatorCall::ListAtms
        | OperatorCall::GetAtm(_)
        | OperatorCall::ListCashOuts { .. }
        | OperatorCall::GetCashOut(_) => Role::Viewer,
        OperatorCall::DrainAtm(_) | OperatorCall::ResumeAtm(_) | OperatorCall::LoadAtm { .. } => Role::Cash,
        OperatorCall::ResolveCashOut { .. } => Role::Operator,
    }
}

impl Desk {
    pub(super) async fn operate(&self, caller: &Caller, call: OperatorCall) -> Result<Value, Failure> {
        let least = least(&call);
        let name = caller.operator(least)?.clone();
        if least > Role::Viewer {
            let order = Call::Operator(call.clone()).request();
            let order = json!({"method": order.rpc_name, "input": order.input}).to_string();
            let (key, by) = (caller.key, name.clone());
            let written = write(self.shared.journal.clone(), Body::Order { key, by, order }).await;
            written.map_err(|error| Failure::new(Code::Unavailable, error.to_string()))?;
        }
        let by = format!("{name} (nostr {})", caller.key);
        self.obey(by, call).await
    }

    async fn obey(&self, by: String, call: OperatorCall) -> Result<Value, Failure> {
        let fleet = &self.fleet;
        let atm = |status| json!({ "atm": views::atm(&status) });
        Ok(match call {
            OperatorCall::ListAtms => {
                let atms: Vec<_> = fleet.atms().await.iter().map(views::atm).collect();
                json!({"atms": atms, "sites": fleet.sites()})
            }
            OperatorCall::GetAtm(id) => atm(fleet.atm(&id).await?),
            OperatorCall::ListCashOuts { atm, before, limit } => {
                let found = fleet.cashouts(atm, before, limit.into()).await?;
                let views: Vec<_> = found.iter().map(views::cashout).collect();
                json!({ "cashouts": views })
            }
            OperatorCall::GetCashOut(id) => json!({ "cashout": views::cashout(&fleet.cashout(id).await?) }),
            OperatorCall::DrainAtm(id) => atm(fleet.order(&id, by, AtmOrder::Drain).await?),
            OperatorCall::ResumeAtm(id) => atm(fleet.order(&id, by, AtmOrder::Resume).await?),
            OperatorCall::LoadAtm { atm: id, cassettes } => {
                let counted = cassettes.iter();
                let cassettes = counted.map(|c| Cassette::loaded(c.position, c.denomination_minor, c.notes));
                atm(fleet.order(&id, by, AtmOrder::Load(cassettes.collect())).await?)
            }
            OperatorCall::ResolveCashOut {
                cashout,
                decision,
                note,
            } => {
                let resolution = match decision {
                    Decision::DeliveredMinor(value) => Resolution::Delivered(value),
                    Decision::ClaimPaid => Resolution::ClaimPaid,
                    Decision::Close => Resolution::Close,
                };
                json!({ "cashout": views::cashout(&fleet.resolve(cashout, by, resolution, note).await?) })
            }
        })
    }
}
