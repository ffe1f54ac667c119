//! What operators ask and order over Nostr.
//!
//! What must stay true: an order is journaled with the key that signed it before anything is done for it, and that key
//! is named in the records of what it did; an order that is asked for again acts once.

use serde_json::{Value, json};

use super::once::OrderId;
use super::{Caller, Desk};
use crate::actors::drive::write;
use crate::actors::fleet::{AtmOrder, FleetError};
use crate::actors::views;
use crate::api::Decision;
use crate::cashout::Resolution;
use crate::cashout::ledger::Cassette;
use crate::clients::Role;
use crate::ids::{ClientName, NostrKey};
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

impl Desk {
    pub(super) async fn operate(&self, caller: &Caller, call: OperatorCall) -> Result<Value, Failure> {
        let name = caller.operator(call.least())?;
        if call.least() == Role::Viewer {
            return self.obey(String::new(), call).await;
        }
        let work = self.order(caller.key, name.clone(), call.clone());
        let Some(request_id) = caller.request_id.clone() else {
            return work.await;
        };
        let (key, place) = (caller.key, caller.place);
        let id = OrderId { key, request_id, place };
        self.shared.orders.once(id, &call, self.shared.clock.now(), work).await
    }

    /// Writes the order down, then does it.
    async fn order(&self, key: NostrKey, by: ClientName, call: OperatorCall) -> Result<Value, Failure> {
        let request = Call::Operator(call.clone()).request();
        let order = json!({"method": request.rpc_name, "input": request.input}).to_string();
        let signed = format!("{by} (nostr {key})");
        let written = write(self.shared.journal.clone(), Body::Order { key, by, order }).await;
        written.map_err(|error| Failure::new(Code::Unavailable, error.to_string()))?;
        self.obey(signed, call).await
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
