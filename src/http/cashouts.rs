//! Cash-outs: start, list, look at, cancel, resolve.

use actix_web::HttpResponse;
use actix_web::http::header;
use actix_web::web::Data;

use crate::actors::fleet::Fleet;
use crate::api::{CancelCashOut, CashOutList, Decision, ResolveCashOut, StartCashOut};
use crate::cashout::{CancelBy, CashOut, Resolution};
use crate::ids::CashOutId;

use super::problem::ApiError;
use super::request::{Id, Json, ListQuery, OptionalJson};
use crate::actors::views;

type Answer = Result<HttpResponse, ApiError>;

pub(super) async fn start(Json(wanted): Json<StartCashOut>, fleet: Data<Fleet>) -> Answer {
    let cashout = fleet.start(&wanted.atm, wanted.amount_minor).await?;
    let place = format!("/v1/cashouts/{}", cashout.id);
    let mut answer = HttpResponse::Created();
    answer.insert_header((header::LOCATION, place));
    Ok(answer.json(views::cashout(&cashout)))
}

pub(super) async fn list(query: ListQuery, fleet: Data<Fleet>) -> Answer {
    let found = fleet.cashouts(query.atm, query.before, query.limit).await?;
    let cashouts = found.iter().map(views::cashout).collect();
    Ok(HttpResponse::Ok().json(CashOutList { cashouts }))
}

pub(super) async fn show(Id(id): Id<CashOutId>, fleet: Data<Fleet>) -> Answer {
    shown(&fleet.cashout(id).await?)
}

pub(super) async fn cancel(
    Id(id): Id<CashOutId>,
    OptionalJson(order): OptionalJson<CancelCashOut>,
    fleet: Data<Fleet>,
) -> Answer {
    let by = order.by.map_or(CancelBy::Customer, CancelBy::Operator);
    shown(&fleet.cancel(id, by).await?)
}

pub(super) async fn resolve(Id(id): Id<CashOutId>, Json(word): Json<ResolveCashOut>, fleet: Data<Fleet>) -> Answer {
    let resolution = match word.decision {
        Decision::DeliveredMinor(value) => Resolution::Delivered(value),
        Decision::ClaimPaid => Resolution::ClaimPaid,
        Decision::Close => Resolution::Close,
    };
    shown(&fleet.resolve(id, word.by, resolution, word.note).await?)
}

fn shown(cashout: &CashOut) -> Answer {
    Ok(HttpResponse::Ok().json(views::cashout(cashout)))
}
