//! The metric label of a request.
//!
//! By method and path, not by what answered: requests refused at the gate are counted under their route too.

use crate::metrics::Route;

/// The route that `method` and `path` mean; [`Route::Unknown`] for anything else.
pub(super) fn route(method: &str, path: &str) -> Route {
    let parts: Vec<&str> = path.split('/').skip(1).collect();
    match (method, parts.as_slice()) {
        ("GET", ["metrics"]) => Route::Metrics,
        ("GET", ["healthz"]) => Route::Healthz,
        ("GET", ["readyz"]) => Route::Readyz,
        ("POST", ["v1", "cashouts"]) => Route::CashOutStart,
        ("GET", ["v1", "cashouts"]) => Route::CashOutList,
        ("GET", ["v1", "cashouts", _]) => Route::CashOutShow,
        ("GET", ["v1", "cashouts", _, "events"]) => Route::CashOutEvents,
        ("POST", ["v1", "cashouts", _, "cancel"]) => Route::CashOutCancel,
        ("POST", ["v1", "cashouts", _, "resolve"]) => Route::CashOutResolve,
        ("GET", ["v1", "atms"]) => Route::AtmList,
        ("GET", ["v1", "atms", _]) => Route::AtmShow,
        ("POST", ["v1", "atms", _, "drain"]) => Route::AtmDrain,
        ("POST", ["v1", "atms", _, "resume"]) => Route::AtmResume,
        ("POST", ["v1", "atms", _, "load"]) => Route::AtmLoad,
        ("GET", ["v1", "clients"]) => Route::ClientList,
        ("POST", ["v1", "clients"]) => Route::ClientInvite,
        ("POST", ["v1", "clients", _, "revoke"]) => Route::ClientRevoke,
        _ => Route::Unknown,
    }
}
