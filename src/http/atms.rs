//! Machines: list, look at, drain, resume, load.

use actix_web::HttpResponse;
use actix_web::web::Data;

use crate::actors::fleet::{AtmOrder, Fleet};
use crate::api::{AtmList, LoadCassettes, Ordered};
use crate::cashout::ledger::Cassette;
use crate::ids::AtmId;

use super::problem::ApiError;
use super::request::{Id, Json};
use crate::actors::views;

type Answer = Result<HttpResponse, ApiError>;

pub(super) async fn list(fleet: Data<Fleet>) -> Answer {
    let atms = fleet.atms().await.iter().map(views::atm).collect();
    Ok(HttpResponse::Ok().json(AtmList {
        atms,
        sites: fleet.sites(),
    }))
}

pub(super) async fn show(Id(id): Id<AtmId>, fleet: Data<Fleet>) -> Answer {
    let atm = fleet.atm(&id).await?;
    Ok(HttpResponse::Ok().json(views::atm(&atm)))
}

pub(super) async fn drain(Id(id): Id<AtmId>, Json(word): Json<Ordered>, fleet: Data<Fleet>) -> Answer {
    order(&fleet, &id, word.by, AtmOrder::Drain).await
}

pub(super) async fn resume(Id(id): Id<AtmId>, Json(word): Json<Ordered>, fleet: Data<Fleet>) -> Answer {
    order(&fleet, &id, word.by, AtmOrder::Resume).await
}

pub(super) async fn load(Id(id): Id<AtmId>, Json(word): Json<LoadCassettes>, fleet: Data<Fleet>) -> Answer {
    let counted = word.cassettes.iter();
    let cassettes = counted.map(|c| Cassette::loaded(c.position, c.denomination_minor, c.notes));
    order(&fleet, &id, word.by, AtmOrder::Load(cassettes.collect())).await
}

async fn order(fleet: &Fleet, id: &AtmId, by: String, order: AtmOrder) -> Answer {
    let atm = fleet.order(id, by, order).await?;
    Ok(HttpResponse::Ok().json(views::atm(&atm)))
}
