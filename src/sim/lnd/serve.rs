//! Serving: the TLS port, the clock's ticks, the miner, the end of restarts.
//!
//! Called by the `emulate` command, `tellerd simulate` and tests. Must stay true: dropping the serving future is
//! like killing the process: the port is closed, connections are cut, the directory is free.

use std::net::TcpListener;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Identity, Server, ServerTlsConfig};

use super::connections::accept;
use super::engine::Engine;
use super::faults::Comeback;
use super::services::Services;
use super::{SimError, SimLnd};
use crate::proto::chainrpc::chain_notifier_server::ChainNotifierServer;
use crate::proto::invoicesrpc::invoices_server::InvoicesServer;
use crate::proto::lnrpc::{lightning_server::LightningServer, state_server::StateServer};
use crate::proto::routerrpc::router_server::RouterServer;
use crate::proto::tellersim::control_server::ControlServer;

/// How often the clock is looked at without a call.
const TICK: Duration = Duration::from_millis(50);

/// Closes the node when the serving future ends or is dropped.
struct Alive(Arc<Engine>);

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl SimLnd {
    /// Serves on `listener` until [`super::SimHandle::shutdown`]. Needs a tokio runtime of any kind. Once only.
    pub fn serve(&self, listener: TcpListener) -> impl Future<Output = Result<(), SimError>> + Send + use<> {
        let alive = Alive(self.engine.clone());
        let comebacks = self.comebacks.lock().unwrap_or_else(PoisonError::into_inner).take();
        async move {
            let engine = alive.0.clone();
            listener.set_nonblocking(true).map_err(SimError::Listen)?;
            let address = listener.local_addr().map_err(SimError::Listen)?;
            let listener = tokio::net::TcpListener::from_std(listener).map_err(SimError::Listen)?;
            let (accepted, incoming) = mpsc::channel(1);
            let server = router(&engine)?.serve_with_incoming(ReceiverStream::new(incoming));
            let mut stop = engine.stop.subscribe();
            tokio::select! {
                biased;
                _ = stop.wait_for(|stop| *stop) => Ok(()),
                served = server => served.map_err(SimError::from),
                () = accept(engine.clone(), listener, address, accepted) => Ok(()),
                ended = tick(&engine) => ended,
                () = mine(&engine) => Ok(()),
                () = end_restarts(&engine, comebacks) => Ok(()),
            }
        }
    }
}

fn router(engine: &Arc<Engine>) -> Result<tonic::transport::server::Router, SimError> {
    let services = Services(engine.clone());
    let identity = Identity::from_pem(&engine.credentials.cert_pem, &engine.credentials.key_pem);
    let router = Server::builder()
        .tls_config(ServerTlsConfig::new().identity(identity))?
        .add_service(InvoicesServer::new(services.clone()))
        .add_service(LightningServer::new(services.clone()))
        .add_service(StateServer::new(services.clone()))
        .add_service(ChainNotifierServer::new(services.clone()))
        .add_service(RouterServer::new(services.clone()))
        .add_service(ControlServer::new(services));
    Ok(router)
}

/// Ends only with the error that closed the node.
async fn tick(engine: &Engine) -> Result<(), SimError> {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        engine.tick()?;
    }
}

async fn mine(engine: &Engine) {
    let mut interval = engine.block_interval_ms.subscribe();
    loop {
        let ms = *interval.borrow_and_update();
        tokio::select! {
            changed = interval.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(Duration::from_millis(ms)), if ms > 0 => {
                if let Err(err) = engine.mine(1) {
                    tracing::warn!(%err, "simulated LND: mining");
                }
            }
        }
    }
}

async fn end_restarts(engine: &Arc<Engine>, comebacks: Option<UnboundedReceiver<Comeback>>) {
    let Some(mut comebacks) = comebacks else { return };
    let mut running = FuturesUnordered::new();
    loop {
        tokio::select! {
            comeback = comebacks.recv() => match comeback {
                Some(comeback) => running.push(engine.clone().come_back(comeback)),
                None => return,
            },
            Some(()) = running.next() => {}
        }
    }
}
