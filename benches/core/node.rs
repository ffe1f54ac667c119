//! The simulated LND, over TLS, on a thread of its own, and a tap on the wire before it.
//!
//! Its folder is in memory: its own syncs would take the disk's turns, on both sides of every comparison.

use std::net::{SocketAddr, TcpListener};
use std::ops::Deref;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use tellerd::sim::lnd::{ADMIN_MACAROON, PayOptions, SimHandle, SimLnd, SimLndOptions, TLS_CERT};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::runtime::Runtime;

/// A thread that runs tasks by itself. They end with it.
pub struct Thread(Option<Runtime>);

impl Thread {
    pub fn start(name: &str) -> Self {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).thread_name(name).enable_all().build();
        Self(Some(runtime.unwrap()))
    }
}

impl Deref for Thread {
    type Target = Runtime;

    fn deref(&self) -> &Runtime {
        self.0.as_ref().expect("there until it is dropped")
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        // Also by a task of another runtime, which must not wait.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

/// A running node.
pub struct Node {
    pub lnd: SimHandle,
    pub address: SocketAddr,
    dir: TempDir,
    _thread: Thread,
}

impl Node {
    pub fn start() -> Self {
        let dir = tempfile::tempdir_in("/dev/shm")
            .or_else(|_| tempfile::tempdir())
            .unwrap();
        let options = SimLndOptions {
            final_resolutions: true,
            max_htlcs: 100_000,
            capacity_sat: 2_000_000_000_000,
            ..SimLndOptions::default()
        };
        let sim = SimLnd::open(dir.path(), &options).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, lnd) = (listener.local_addr().unwrap(), sim.handle());
        let runtime = Thread::start("lnd");
        runtime.spawn(async move { sim.serve(listener).await.unwrap() });
        Self {
            lnd,
            address,
            dir,
            _thread: runtime,
        }
    }

    pub fn dir(&self) -> PathBuf {
        self.dir.path().to_owned()
    }

    /// `[lnd]` of a configuration, for this node or for a tap before it.
    pub fn section(&self, address: SocketAddr) -> String {
        let (cert, macaroon) = (self.dir().join(TLS_CERT), self.dir().join(ADMIN_MACAROON));
        format!("[lnd]\naddress = \"{address}\"\ntls_cert = {cert:?}\nmacaroon = {macaroon:?}\n")
    }

    /// The customer's money is held when this returns.
    pub async fn pay(&self, invoice: &str) -> u64 {
        let (lnd, invoice) = (self.lnd.clone(), invoice.to_owned());
        let paid = tokio::task::spawn_blocking(move || lnd.pay(&invoice, &PayOptions::default()));
        paid.await.unwrap().unwrap()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.lnd.shutdown();
    }
}

/// Passes bytes on between a client and the node, and notes when the node speaks.
pub struct Tap {
    pub address: SocketAddr,
    first: Arc<Mutex<Heard>>,
    _thread: Thread,
}

#[derive(Clone, Copy)]
enum Heard {
    Ignored,
    Awaited,
    At(Instant),
}

impl Tap {
    pub fn before(node: SocketAddr) -> Self {
        let runtime = Thread::start("tap");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let first = Arc::new(Mutex::new(Heard::Ignored));
        let heard = Arc::clone(&first);
        runtime.spawn(async move {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((client, _)) = listener.accept().await {
                let server = TcpStream::connect(node).await.unwrap();
                client.set_nodelay(true).unwrap();
                server.set_nodelay(true).unwrap();
                let ((from_client, to_client), (from_node, to_node)) = (client.into_split(), server.into_split());
                tokio::spawn(pass(from_client, to_node, None));
                tokio::spawn(pass(from_node, to_client, Some(Arc::clone(&heard))));
            }
        });
        Self {
            address,
            first,
            _thread: runtime,
        }
    }

    /// Listens from now on for the node's next bytes.
    pub fn listen(&self) {
        *self.first.lock().unwrap() = Heard::Awaited;
    }

    /// When they came.
    pub fn heard(&self) -> Instant {
        match *self.first.lock().unwrap() {
            Heard::At(at) => at,
            Heard::Ignored | Heard::Awaited => panic!("the node said nothing"),
        }
    }
}

async fn pass(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, heard: Option<Arc<Mutex<Heard>>>) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        if let Some(heard) = &heard {
            let mut heard = heard.lock().unwrap();
            if let Heard::Awaited = *heard {
                *heard = Heard::At(Instant::now());
            }
        }
        if to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}
