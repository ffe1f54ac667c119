//! Round trips over the emulated relay on loopback: a client's call, the daemon's answer, the client's result.
//!
//! Each client has a key and a connection of its own. The journal is on disk and waits for it. The limit is the same
//! call to a service that answers at once whatever it is asked: all that the relay, the sockets and the encryption
//! take. Clients, relay and daemon share the machine's cores.

use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use ::nostr::{Keys, PublicKey, RelayUrl};
use tellerd::nostr::caller::{Caller, CallerTimings};
use tellerd::nostr::method::Call;
use tellerd::nostr::outbox::Outbox;
use tellerd::nostr::relays::{Arrived, Relays, Settings, Timings, Unwatched};
use tellerd::nostr::wire::{Endpoint, Incoming, Limits, Outcome, Reply, Role, Sight, Signed, Version};
use tellerd::sim::relay::{RelayHandle, RelayOptions};
use tellerd::time::{Clock, SystemClock};
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, oneshot};

use crate::clients;
use crate::daemon::{Daemon, NO_LND, Plan, service};
use crate::meter::percentiles;
use crate::node::Node;

const CLIENTS: u16 = 200;
/// Calls of the one client that is alone.
const ALONE: usize = 25;

/// One client's connection, and its ways to the daemon and to the echo.
struct Client {
    daemon: Caller,
    echo: Caller,
    _relays: Arc<Relays>,
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
}

pub fn run(rounds: usize) {
    let dir = tempfile::tempdir_in(Path::new(env!("CARGO_TARGET_TMPDIR"))).unwrap();
    let (relay, _stop) = relay();
    let keys = clients::keys(CLIENTS);
    let _daemon = Daemon::start(Plan {
        dir: dir.path(),
        relay: relay.as_str(),
        clients: &clients::configured(&keys),
        journal_in_memory: false,
        outbox: None,
        node: Some(Arc::new(Node::default())),
        lnd: NO_LND,
    });
    let echo = echo(relay.clone());
    println!("\nRound trip over a relay on loopback, journal with fdatasync, NIP-44 v2; ms");
    println!("| method | clients | calls | median | p99 | limit median | limit p99 | ratio of medians |");
    println!("|---|---|---|---|---|---|---|---|");
    runtime().block_on(async {
        let mut connected = Vec::new();
        for keys in &keys {
            connected.push(Arc::new(connect(keys, relay.clone(), echo).await));
            // The relay offers each event to each connection, so this one is alone there too.
            if connected.len() == 1 {
                table(&connected, rounds * ALONE, 0).await;
            }
        }
        table(&connected, rounds, 1 << 32).await;
    });
}

/// Both methods, for all `clients` at once, `calls` one after the other by each.
async fn table(clients: &[Arc<Client>], calls: usize, first: u64) {
    // Whatever is made at the first call is made before.
    ask(clients, 1, first + (1 << 31), |client, call| {
        (client.daemon.clone(), call)
    })
    .await;
    let echoed = ask(clients, calls, first, |client, call| (client.echo.clone(), call)).await;
    let created = ask(clients, calls, first, |client, call| (client.daemon.clone(), call)).await;
    let looked = ask(clients, calls, first, |client, call| {
        let Call::CreateHoldInvoice(create) = call else {
            panic!()
        };
        (client.daemon.clone(), Call::GetHoldInvoice(create.hash))
    });
    let looked = looked.await;
    let (limit, limit99) = percentiles(echoed);
    for (method, times) in [("createHoldInvoice", created), ("getHoldInvoice", looked)] {
        let all = times.len();
        let (median, p99) = percentiles(times);
        let ratio = limit / median;
        let clients = clients.len();
        println!("| {method} | {clients} | {all} | {median:.2} | {p99:.2} | {limit:.2} | {limit99:.2} | {ratio:.2} |");
    }
}

/// How long each call took.
async fn ask(
    clients: &[Arc<Client>],
    calls: usize,
    first: u64,
    way: impl Fn(&Client, Call) -> (Caller, Call) + Copy + 'static,
) -> Vec<Duration> {
    let one = |(n, client): (usize, &Arc<Client>)| {
        let client = Arc::clone(client);
        async move {
            let mut times = Vec::with_capacity(calls);
            for call in 0..calls {
                let hash = clients::hash(first + (n * calls + call) as u64);
                let (caller, call) = way(&client, clients::create(hash));
                let begun = Instant::now();
                caller.call(&call).await.expect("an answer");
                times.push(begun.elapsed());
            }
            times
        }
    };
    let all = futures_util::future::join_all(clients.iter().enumerate().map(one));
    all.await.into_iter().flatten().collect()
}

fn settings(keys: &Keys, relay: RelayUrl) -> Settings {
    Settings {
        urls: vec![relay],
        keys: keys.clone(),
        clock: Arc::new(SystemClock),
        timings: Timings::default(),
    }
}

async fn connect(keys: &Keys, relay: RelayUrl, echo: PublicKey) -> Client {
    let (sender, mut arrived) = mpsc::channel::<Arrived>(64);
    let relays = Relays::start(settings(keys, relay), sender, Arc::new(Unwatched)).await;
    let relays = Arc::new(relays.expect("relays"));
    let mut listens = relays.epoch();
    listens.wait_for(|epoch| *epoch > 0).await.unwrap();
    let caller = |to: PublicKey| {
        let outbox = Arc::clone(&relays) as Arc<dyn Outbox>;
        let timings = CallerTimings {
            deadline: Duration::from_secs(30),
            give_up: Duration::from_secs(60),
        };
        Caller::new(keys.clone(), to, Version::V2, Arc::new(SystemClock), outbox, timings)
    };
    let client = Client {
        daemon: caller(service()),
        echo: caller(echo),
        _relays: Arc::clone(&relays),
    };
    let (daemon, echoed) = (client.daemon.clone(), client.echo.clone());
    tokio::spawn(async move {
        while let Some(Arrived { event, .. }) = arrived.recv().await {
            let of_echo = event.pubkey == echo;
            let heard = if of_echo { &echoed } else { &daemon }.incoming(event);
            heard.expect("a message");
        }
    });
    client
}

/// A relay in a thread of its own, until what is returned beside its address is dropped.
fn relay() -> (RelayUrl, oneshot::Sender<()>) {
    let (stop, stopped) = oneshot::channel::<()>();
    let (tell, told) = std::sync::mpsc::channel();
    thread::spawn(move || {
        runtime().block_on(async {
            let relay = RelayHandle::start(RelayOptions::default()).await.expect("a relay");
            tell.send(relay.url()).unwrap();
            let _ = stopped.await;
        });
    });
    (told.recv().unwrap(), stop)
}

/// A service in a thread of its own that answers every request with as much as an invoice. Returns its key.
fn echo(relay: RelayUrl) -> PublicKey {
    let keys = Keys::parse("0000000000000000000000000000000000000000000000000000000000eeeeee").unwrap();
    let key = keys.public_key();
    let (tell, told) = std::sync::mpsc::channel();
    thread::spawn(move || {
        runtime().block_on(async {
            let (sender, mut arrived) = mpsc::channel(1024);
            let relays = Relays::start(settings(&keys, relay), sender, Arc::new(Unwatched)).await;
            let relays = Arc::new(relays.expect("relays"));
            relays.epoch().wait_for(|epoch| *epoch > 0).await.unwrap();
            tell.send(()).unwrap();
            let mut endpoint = Endpoint::new(keys, Role::Service, Limits::default());
            while let Some(Arrived { event, .. }) = arrived.recv().await {
                let reply = echoed(&mut endpoint, event);
                let relays = Arc::clone(&relays);
                tokio::spawn(async move {
                    let until = SystemClock.now().plus(Duration::from_secs(30));
                    relays.publish(reply, until).await.expect("published");
                });
            }
        });
    });
    told.recv().unwrap();
    key
}

fn echoed(endpoint: &mut Endpoint, event: ::nostr::Event) -> ::nostr::Event {
    let now = SystemClock.now();
    let signed = Signed::from_verified(event, &endpoint.party()).unwrap();
    let opened = endpoint.open(&signed, true, now).unwrap();
    let Ok(Incoming::Request { origin, request_id, .. }) = endpoint.admit(opened, Sight::First, now) else {
        panic!("no request");
    };
    let outcome = Outcome::success(&serde_json::json!({ "invoice": "lnbcrt".repeat(70) })).unwrap();
    let text = Reply { request_id, outcome }.encode();
    endpoint
        .seal(origin.sender, origin.version, &text, now)
        .unwrap()
        .remove(0)
}
