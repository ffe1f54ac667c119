//! The HTTP edge: probes, metrics, and the JSON API of docs/API.md.
//!
//! Started by the app. Handlers are thin: they read a request, ask the [`Fleet`], and turn its answer into the types
//! of [`crate::api`]. What must stay true: nothing passes `gate.rs` that changes something without the token, no web
//! page can drive the API through its visitor's browser, and every answer is counted and, when it is not a success, a
//! [`crate::api::Problem`].

mod atms;
mod cashouts;
mod clients;
mod events;
mod gate;
mod probes;
mod problem;
mod request;
mod route;
#[cfg(test)]
mod tests;

use std::net::TcpListener;

use actix_web::dev::Server;
use actix_web::middleware::{DefaultHeaders, from_fn};
use actix_web::web::{self, Data, ServiceConfig};
use actix_web::{App, HttpServer, Resource};

use crate::actors::fleet::Fleet;
use crate::config::token::Token;
use crate::metrics::Metrics;

use gate::Edge;
use problem::ApiError;

/// Customers at machines and a few operators: the work is done elsewhere.
const WORKERS: usize = 1;
/// Open event streams never end by themselves; nobody is to wait for them.
const SHUTDOWN_SECONDS: u64 = 2;
/// The largest body of a request.
const MOST_BYTES: usize = 16 * 1024;

/// Serves the API on `listener` until the server is stopped. Signals are left to the caller. Without a `token`,
/// whoever reaches the address may change things.
///
/// # Errors
/// When the address of `listener` can not be read or listened on.
pub fn serve(fleet: Fleet, metrics: Metrics, listener: TcpListener, token: Option<Token>) -> std::io::Result<Server> {
    let edge = Data::new(Edge {
        metrics,
        token,
        loopback: listener.local_addr()?.ip().is_loopback(),
    });
    let app = move || {
        App::new()
            .app_data(Data::new(fleet.clone()))
            .app_data(edge.clone())
            .wrap(from_fn(gate::gate))
            .wrap(DefaultHeaders::new().add(("Cache-Control", "no-store")))
            .configure(routes)
    };
    let server = HttpServer::new(app)
        .workers(WORKERS)
        .disable_signals()
        .shutdown_timeout(SHUTDOWN_SECONDS)
        .listen(listener)?;
    Ok(server.run())
}

fn routes(app: &mut ServiceConfig) {
    app.app_data(web::PayloadConfig::new(MOST_BYTES));
    app.service(resource("/metrics", GET).get(probes::metrics));
    let healthz = resource("/healthz", GET).get(probes::healthz);
    app.service(healthz.route(web::head().to(probes::healthz)));
    let readyz = resource("/readyz", GET).get(probes::readyz);
    app.service(readyz.route(web::head().to(probes::readyz)));
    let cashouts = resource("/v1/cashouts", "GET, POST");
    app.service(cashouts.get(cashouts::list).post(cashouts::start));
    app.service(resource("/v1/cashouts/{id}", GET).get(cashouts::show));
    app.service(resource("/v1/cashouts/{id}/events", GET).get(events::events));
    app.service(resource("/v1/cashouts/{id}/cancel", POST).post(cashouts::cancel));
    app.service(resource("/v1/cashouts/{id}/resolve", POST).post(cashouts::resolve));
    app.service(resource("/v1/atms", GET).get(atms::list));
    app.service(resource("/v1/atms/{id}", GET).get(atms::show));
    app.service(resource("/v1/atms/{id}/drain", POST).post(atms::drain));
    app.service(resource("/v1/atms/{id}/resume", POST).post(atms::resume));
    app.service(resource("/v1/atms/{id}/load", POST).post(atms::load));
    let clients = resource("/v1/clients", "GET, POST");
    app.service(clients.get(clients::list).post(clients::invite));
    app.service(resource("/v1/clients/{id}/revoke", POST).post(clients::revoke));
    app.default_service(web::to(|| async { Err::<&str, _>(ApiError::no_route()) }));
}

const GET: &str = "GET";
const POST: &str = "POST";

/// A resource that names the methods it knows to a request with another one.
fn resource(path: &str, allow: &'static str) -> Resource {
    let other = move || async move { Err::<&str, _>(ApiError::method(allow)) };
    Resource::new(path).default_service(web::to(other))
}
