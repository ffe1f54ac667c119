//! Code generated from `proto/`. Nothing but [`crate::lnd`] and [`crate::sim`] looks inside.
#![allow(missing_docs, clippy::all, clippy::pedantic, clippy::restriction)]

/// `lnrpc`: Lightning, State.
pub mod lnrpc {
    tonic::include_proto!("lnrpc");
}

/// `invoicesrpc`: hold invoices.
pub mod invoicesrpc {
    tonic::include_proto!("invoicesrpc");
}

/// `chainrpc`: block heights.
pub mod chainrpc {
    tonic::include_proto!("chainrpc");
}

/// `routerrpc`: what becomes of HTLCs; payments, for the tests' customers.
pub mod routerrpc {
    tonic::include_proto!("routerrpc");
}

/// `tellersim`: control of the simulated LND.
pub mod tellersim {
    tonic::include_proto!("tellersim");
}
