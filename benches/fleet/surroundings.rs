//! What is around the daemon: a simulated LND and the emulated machines, on one thread of their own.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::Path;
use std::sync::mpsc;
use std::thread;

use tellerd::hardware::memory;
use tellerd::hardware::port::Connect;
use tellerd::hardware::puloon::driver::Variant;
use tellerd::hardware::puloon::emulator::{Emulator, Setup};
use tellerd::ids::AtmId;
use tellerd::sim::lnd::{SimLnd, SimLndOptions};
use tokio::task::JoinSet;

pub fn name(index: usize) -> AtmId {
    format!("atm-{index:05}").parse().unwrap()
}

/// Starts them; returns the machines' lines and the port of the LND, whose files are in `dir`.
pub fn start(machines: usize, dir: &Path) -> (BTreeMap<AtmId, Connect>, u16) {
    let (ready, is_ready) = mpsc::channel();
    let dir = dir.to_owned();
    thread::Builder::new()
        .name("surroundings".into())
        .spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async move {
                let lnd = SimLnd::open(&dir, &SimLndOptions::default()).unwrap();
                let listener = TcpListener::bind("127.0.0.1:0").unwrap();
                let port = listener.local_addr().unwrap().port();
                let mut tasks = JoinSet::new();
                let serving = lnd.serve(listener);
                tasks.spawn(async move { serving.await.unwrap() });
                let mut lines = BTreeMap::new();
                for index in 0..machines {
                    let (connect, socket) = memory::line();
                    lines.insert(name(index), connect);
                    let emulator = Emulator::new(Variant::Standard, Setup::default()).unwrap();
                    tasks.spawn(async move { memory::serve(&emulator, socket).await.unwrap() });
                }
                // All of them wait for their hosts before anything is measured.
                for _ in 0..machines.min(1000) {
                    tokio::task::yield_now().await;
                }
                ready.send((lines, port)).unwrap();
                while tasks.join_next().await.is_some() {}
            });
        })
        .unwrap();
    is_ready.recv().unwrap()
}
