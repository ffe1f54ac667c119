//! Clients of the hold-invoice service: list, invite, revoke.
//!
//! What must stay true: an invitation is answered once, and never logged.

use actix_web::HttpResponse;
use actix_web::web::Data;

use crate::actors::fleet::Fleet;
use crate::api::{ClientList, InviteClient, Ordered};
use crate::ids::ClientName;

use super::problem::ApiError;
use super::request::{Id, Json};

type Answer = Result<HttpResponse, ApiError>;

pub(super) async fn list(fleet: Data<Fleet>) -> Answer {
    let clients = fleet.clients().await?;
    Ok(HttpResponse::Ok().json(ClientList { clients }))
}

pub(super) async fn invite(Json(word): Json<InviteClient>, fleet: Data<Fleet>) -> Answer {
    let invitation = fleet.invite(word.name, word.by).await?;
    Ok(HttpResponse::Created().json(invitation))
}

pub(super) async fn revoke(Id(name): Id<ClientName>, Json(word): Json<Ordered>, fleet: Data<Fleet>) -> Answer {
    let client = fleet.revoke(name, word.by).await?;
    Ok(HttpResponse::Ok().json(client))
}
