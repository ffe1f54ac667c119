//! A rig for tests of the whole daemon: a simulated LND beside a [`Site`].

#![allow(clippy::unwrap_used, clippy::panic)]

use std::ops::{Deref, DerefMut};

use tellerd::sim::lnd::{ADMIN_MACAROON, SimHandle, SimLnd, SimLndOptions, TLS_CERT};
use tokio::task::JoinHandle;

pub use super::site::{Daemon, Machine, breath};
use super::site::{Lnd, Site};

/// The world around a daemon.
pub struct Rig {
    pub lnd: SimHandle,
    site: Site,
    serving: JoinHandle<()>,
}

impl Rig {
    /// Starts the world. Needs a runtime that goes on as long as the rig.
    pub fn new(machines: &[Machine]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let lnd_dir = dir.path().join("lnd");
        let sim = SimLnd::open(&lnd_dir, &SimLndOptions::default()).unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let lnd = Lnd {
            address: listener.local_addr().unwrap(),
            tls_cert: lnd_dir.join(TLS_CERT),
            macaroon: lnd_dir.join(ADMIN_MACAROON),
        };
        let served = sim.serve(listener);
        Self {
            lnd: sim.handle(),
            site: Site::new(dir, &lnd, machines, ""),
            serving: tokio::spawn(async move { served.await.unwrap() }),
        }
    }
}

impl Deref for Rig {
    type Target = Site;

    fn deref(&self) -> &Site {
        &self.site
    }
}

impl DerefMut for Rig {
    fn deref_mut(&mut self) -> &mut Site {
        &mut self.site
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        self.lnd.shutdown();
        self.serving.abort();
    }
}
