//! Floods: thousands of events that mean no good, and a client that is served all the same.
//!
//! One relay is hostile and says whatever it likes, as fast as its socket takes it; the client is at another one. What
//! must stay true: each event that is dropped is counted by its reason, what is kept in memory stays bounded, and one
//! key that floods is told so while others are served.

#![allow(clippy::expect_used, clippy::panic)]

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use nostr::{Event, JsonUtil, Keys, PublicKey};
use serde_json::json;
use tellerd::app::{self, Up};
use tellerd::config::Config;
use tellerd::ids::Preimage;
use tellerd::journal::Options;
use tellerd::metrics::Metrics;
use tellerd::nostr::caller::{Caller, CallerTimings};
use tellerd::nostr::method::{Call, CreateHoldInvoice, CreatedInvoice, HoldInvoice, HoldState};
use tellerd::nostr::outbox::Outbox;
use tellerd::nostr::relays::{Arrived, Relays, Settings, Timings, Unwatched};
use tellerd::nostr::wire::shard::Shard;
use tellerd::nostr::wire::{Code, Endpoint, Incoming, Limits, Outcome, Role, Sight, Signed, Version, event};
use tellerd::sim::lnd::{PayOptions, SimHandle, SimLnd, SimLndOptions};
use tellerd::sim::relay::{RelayHandle, RelayOptions};
use tellerd::store;
use tellerd::time::{Clock, SystemClock};
use tokio::sync::mpsc;

use super::fleet_rig::until;

/// The relay's orders are lost when a connection is further behind.
const AT_ONCE: usize = 500;

/// A service, its node, and two relays.
struct Rig {
    up: Up,
    lnd: SimHandle,
    hostile: RelayHandle,
    good: RelayHandle,
    service: PublicKey,
    _dir: tempfile::TempDir,
}

fn keys(n: u16) -> Keys {
    Keys::parse(&format!("{n:064x}")).expect("a key")
}

fn kiosk() -> Keys {
    keys(1)
}

/// A client that turned bad.
fn mole() -> Keys {
    keys(2)
}

impl Rig {
    async fn bring_up(mole_per_minute: u32) -> Self {
        let dir = tempfile::tempdir().expect("dir");
        let sim = SimLnd::open(&dir.path().join("lnd"), &SimLndOptions::default()).expect("sim");
        let listener = TcpListener::bind("127.0.0.1:0").expect("port");
        let (address, lnd) = (listener.local_addr().expect("address"), sim.handle());
        tokio::spawn(sim.serve(listener));
        let relay = || async { RelayHandle::start(RelayOptions::default()).await.expect("relay") };
        let (hostile, good) = (relay().await, relay().await);
        let text = format!(
            "data_dir = 'data'\n[lnd]\naddress = '{address}'\ntls_cert = 'lnd/tls.cert'\nmacaroon = 'lnd/admin.macaroon'\n\
             [rate]\ncurrency = 'EUR'\nper_btc = '95000.00'\n\
             [nostr]\nkey_file = 'nostr.key'\nrelays = ['{}', '{}']\n[service]\n\
             [[service.client]]\nname = 'kiosk'\nkey = '{}'\nrequests_per_minute = 6000\n\
             [[service.client]]\nname = 'mole'\nkey = '{}'\nrequests_per_minute = {mole_per_minute}\n",
            hostile.url(),
            good.url(),
            kiosk().public_key(),
            mole().public_key()
        );
        let config = Config::parse(&text, &dir.path().join("fleet.toml")).expect("a configuration");
        let opened = store::open(&config.data_dir).expect("a data directory");
        let wrap = Options::default().wrap;
        let up = app::bring_up(&config, opened, &Metrics::new().expect("metrics"), wrap).expect("actors");
        let key = std::fs::read_to_string(dir.path().join("nostr.key")).expect("the key");
        let rig = Self {
            up,
            lnd,
            hostile,
            good,
            service: Keys::parse(key.trim()).expect("a key").public_key(),
            _dir: dir,
        };
        let up = [
            "tellerd_lnd_connected",
            &rig.connected(&rig.hostile),
            &rig.connected(&rig.good),
        ];
        until("node and relays", async || {
            let values = futures_util::future::join_all(up.iter().map(|name| rig.metric(name))).await;
            values.iter().all(|value| *value == 1.0)
        })
        .await;
        rig
    }

    fn connected(&self, relay: &RelayHandle) -> String {
        format!("tellerd_nostr_relay_connected{{relay=\"{}\"}}", relay.url())
    }

    async fn metric(&self, name: &str) -> f64 {
        let scrape = self.up.fleet.metrics().await;
        let value = scrape
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.map_or(0.0, |value| value.parse().expect("a number"))
    }

    async fn dropped(&self, reason: &str) -> usize {
        let name = format!("tellerd_nostr_events_dropped_total{{reason=\"{reason}\"}}");
        self.metric(&name).await as usize
    }

    /// Answers of all methods that ended so.
    async fn answered(&self, outcome: &str) -> usize {
        let scrape = self.up.fleet.metrics().await;
        let label = format!("outcome=\"{outcome}\"");
        let counts = scrape
            .lines()
            .filter(|line| line.starts_with("tellerd_nostr_request_duration_seconds_count") && line.contains(&label));
        let values = counts.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        values.sum::<f64>() as usize
    }

    /// A connection to the good relay, and what it brings.
    async fn connect(&self, keys: &Keys) -> (Relays, mpsc::Receiver<Arrived>) {
        let (sender, arrived) = mpsc::channel::<Arrived>(64);
        let settings = Settings {
            urls: vec![self.good.url()],
            keys: keys.clone(),
            clock: Arc::new(SystemClock),
            timings: Timings::default(),
        };
        let relays = Relays::start(settings, sender, Arc::new(Unwatched))
            .await
            .expect("relays");
        relays
            .epoch()
            .wait_for(|epoch| *epoch > 0)
            .await
            .expect("a subscription");
        (relays, arrived)
    }

    /// A client at the good relay.
    async fn client(&self, keys: Keys) -> Caller {
        let (relays, mut arrived) = self.connect(&keys).await;
        let outbox = Arc::new(relays) as Arc<dyn Outbox>;
        let timings = CallerTimings {
            deadline: Duration::from_secs(10),
            give_up: Duration::from_secs(40),
        };
        let caller = Caller::new(keys, self.service, Version::V2, Arc::new(SystemClock), outbox, timings);
        let hears = caller.clone();
        tokio::spawn(async move {
            while let Some(Arrived { event, .. }) = arrived.recv().await {
                let _ = hears.incoming(event);
            }
        });
        caller
    }

    /// The hostile relay brings these, as fast as its socket takes them.
    async fn bring(&self, texts: impl IntoIterator<Item = String>) {
        let (mut said, before) = (0, self.hostile.counts().said);
        for text in texts {
            self.hostile.say(&text);
            said += 1;
            if said % AT_ONCE == 0 {
                self.hostile.until(|counts| counts.said - before >= said as u64).await;
            }
        }
        self.hostile.until(|counts| counts.said - before >= said as u64).await;
    }

    /// An invoice from its making to its settlement.
    async fn pay_one(&self, kiosk: &Caller, n: u64) {
        let mut bytes = [3; 32];
        bytes[..8].copy_from_slice(&n.to_be_bytes());
        let preimage = Preimage::from_bytes(bytes);
        let hash = preimage.hash();
        let create = Call::CreateHoldInvoice(CreateHoldInvoice {
            hash,
            amount_sats: 1_000,
            memo: "notes".into(),
            expiry_seconds: 600,
            cltv_expiry: None,
        });
        let created = kiosk.ask(&create, CreatedInvoice::read).await.expect("an invoice");
        self.lnd.pay(&created.invoice, &PayOptions::default()).expect("sent");
        let state = async || {
            let get = kiosk.ask(&Call::GetHoldInvoice(hash), HoldInvoice::read).await;
            get.expect("an answer").state
        };
        until("the payment", async || state().await == HoldState::Accepted).await;
        kiosk.call(&Call::SettleHoldInvoice(preimage)).await.expect("settled");
        until("the settlement", async || state().await == HoldState::Settled).await;
    }
}

/// As a relay brings an event.
fn brought(event: &Event) -> String {
    format!(r#"["EVENT","tellerd",{}]"#, event.as_json())
}

/// Makes events of one key for the service.
struct Sender {
    keys: Keys,
    service: PublicKey,
    endpoint: Endpoint,
}

impl Sender {
    fn new(keys: Keys, service: PublicKey) -> Self {
        let role = Role::Client { service };
        Self {
            endpoint: Endpoint::new(keys.clone(), role, Limits::default()),
            keys,
            service,
        }
    }

    fn says(&mut self, text: &str) -> Event {
        let now = SystemClock.now();
        let events = self.endpoint.seal(self.service, Version::V2, text, now);
        events.expect("sealed").remove(0)
    }

    fn asks(&mut self, id: usize) -> Event {
        let text = Call::GetServiceInfo
            .request()
            .encode(&self.keys.public_key().to_hex(), &format!("r{id}"));
        self.says(&text)
    }

    fn raw(&self, content: String, created_at_unix: u64) -> Event {
        event::sign(&self.keys, self.service, content, created_at_unix).expect("signed")
    }
}

const FORGED: usize = 3_000;
const MALFORMED: usize = 3_000;
const OVERSIZED: usize = 200;
const STRANGE: usize = 2_000;
const REPLAYED: usize = 500;
/// Of each kind that only a known key gets as far with.
const KNOWN: usize = 400;

/// Bad at first sight.
fn outside(mole: &mut Sender) -> Vec<String> {
    let mut forged = mole.asks(0);
    let mut texts = Vec::new();
    for n in 0..FORGED {
        forged.content = format!("forged {n}");
        texts.push(brought(&forged));
    }
    let shapes = [
        r#"{"kind":21000,"content":"x"}"#,
        "[1,2,{}]",
        r#"{"id":"00","pubkey":"11","created_at":-1,"kind":21000,"tags":[["p"]],"content":7,"sig":null}"#,
        "\"\\ud83d\"",
        "null",
    ];
    texts.extend((0..MALFORMED).map(|n| format!(r#"["EVENT","tellerd",{}]"#, shapes[n % shapes.len()])));
    let oversized = mole.raw("x".repeat(65_600), SystemClock.now().as_secs());
    texts.extend(std::iter::repeat_n(brought(&oversized), OVERSIZED));
    texts
}

/// Properly signed by a known key, and of no use.
fn inside(mole: &mut Sender) -> Vec<String> {
    let now = SystemClock.now().as_secs();
    let mut texts = Vec::new();
    for n in 0..KNOWN {
        texts.push(brought(&mole.raw(format!("AgAA{n:04}"), now)));
        texts.push(brought(&mole.says(&format!("[{n}]"))));
        texts.push(brought(&mole.says(&json!({"status": "OK", "n": n}).to_string())));
        let stolen = json!({"rpcName": "getServiceInfo", "authIdentifier": kiosk().public_key().to_hex(), "requestId": n.to_string()});
        texts.push(brought(&mole.says(&stolen.to_string())));
        let content = mole
            .says(&format!(
                "{{\"rpcName\":\"x\",\"authIdentifier\":\"{}\"}}",
                mole.keys.public_key()
            ))
            .content;
        texts.push(brought(&mole.raw(content, now - 3_600 - n as u64)));
        let half = Shard {
            part: "x".repeat(1_000),
            index: 0,
            total: 2,
            id: format!("half {n}"),
        };
        texts.push(brought(&mole.says(&half.encode())));
    }
    texts
}

#[test]
fn a_known_client_is_served_through_a_flood_and_every_drop_is_counted() {
    actix::System::new().block_on(async {
        let rig = Rig::bring_up(60_000).await;
        let kiosk = rig.client(kiosk()).await;
        rig.pay_one(&kiosk, 0).await;
        let mut mole = Sender::new(mole(), rig.service);
        let mut strangers: Vec<Sender> = (100..120).map(|n| Sender::new(keys(n), rig.service)).collect();
        let flood = async {
            rig.bring(outside(&mut mole)).await;
            let strange = (0..STRANGE).map(|n| brought(&strangers[n % 20].asks(n)));
            rig.bring(strange.collect::<Vec<_>>()).await;
            rig.bring(inside(&mut mole)).await;
            let once = mole.asks(1);
            rig.bring(std::iter::repeat_n(brought(&once), REPLAYED)).await;
            // The pool's verdict on the last event is known with the next message.
            rig.bring([r#"["NOTICE","that was all"]"#.to_owned()]).await;
            once
        };
        let served = async {
            let mut rounds = 0;
            loop {
                rounds += 1;
                rig.pay_one(&kiosk, rounds).await;
            }
        };
        let once = tokio::select! {
            once = flood => once,
            () = served => unreachable!("it never ends"),
        };
        rig.pay_one(&kiosk, 1 << 20).await;
        all_is_counted(&rig).await;
        // The relays' side has kept the copies to itself; the gate would not take them either.
        let gate = rig.up.gate.as_ref().expect("a gate");
        until("the event that came often", async || {
            gate.handle(once.clone()).await.is_err()
        })
        .await;
        let before = rig.dropped("replay").await;
        for _ in 0..REPLAYED {
            gate.arrive(once.clone()).await;
        }
        assert_eq!(rig.dropped("replay").await, before + REPLAYED);
        bounded(&rig).await;
    });
}

async fn all_is_counted(rig: &Rig) {
    let exactly = [
        ("bad_signature", FORGED),
        ("malformed", MALFORMED),
        ("too_large", OVERSIZED),
        ("undecryptable", KNOWN),
        ("not_json", KNOWN),
        ("unexpected", KNOWN),
        ("auth_mismatch", KNOWN),
        ("too_old", KNOWN),
    ];
    for (reason, count) in exactly {
        until(reason, async || rig.dropped(reason).await >= count).await;
        assert_eq!(rig.dropped(reason).await, count, "{reason}");
    }
    until("the strangers", async || {
        rig.dropped("strangers").await + rig.answered("not_allowed").await == STRANGE
    })
    .await;
    until("the half messages", async || {
        let taken = rig.metric("tellerd_nostr_shards_total{direction=\"in\"}").await as usize;
        taken + rig.dropped("rate_limited").await + rig.answered("rate_limited").await >= KNOWN
    })
    .await;
}

async fn bounded(rig: &Rig) {
    let gate = rig.up.gate.as_ref().expect("a gate");
    until("all answers", async || gate.footprint().busy == 0).await;
    let kept = gate.footprint();
    assert!(
        kept.endpoint.shard_bytes <= 2 * 1_000,
        "two messages of one sender: {kept:?}"
    );
    assert!(kept.endpoint.shard_senders <= 1, "{kept:?}");
    // Kiosk and mole, and the strangers that were looked into.
    assert!(kept.endpoint.cached_peers <= 2 + 20, "{kept:?}");
    assert!(kept.rates <= 2 && kept.told <= 1, "{kept:?}");
    let (pieces, answers) = (KNOWN, rig.answered("ok").await + rig.answered("not_allowed").await);
    assert!(
        kept.seen <= pieces + answers,
        "only what had an effect is remembered: {kept:?}"
    );
}

#[test]
fn a_known_key_that_floods_is_told_so_and_others_are_served() {
    actix::System::new().block_on(async {
        const EVENTS: usize = 2_000;
        let rig = Rig::bring_up(40).await;
        let kiosk = rig.client(kiosk()).await;
        let (_relays, mut hears) = rig.connect(&mole()).await;
        let mut sender = Sender::new(mole(), rig.service);
        let flood: Vec<String> = (0..EVENTS).map(|n| brought(&sender.asks(n))).collect();
        let told = async {
            loop {
                let Arrived { event, .. } = hears.recv().await.expect("a connection");
                let now = SystemClock.now();
                let signed = Signed::from_event(event, &sender.endpoint.party()).expect("a reply");
                let opened = sender.endpoint.open(&signed, true, now).expect("a reply");
                let admitted = sender.endpoint.admit(opened, Sight::First, now);
                if let Ok(Incoming::Reply { reply, .. }) = admitted
                    && let Outcome::Error(failure) = reply.outcome
                {
                    break failure.code;
                }
            }
        };
        let served = async {
            for n in 0..3 {
                rig.pay_one(&kiosk, n).await;
            }
        };
        let ((), code, ()) = futures_util::join!(rig.bring(flood), told, served);
        assert_eq!(code, Code::RateLimited);
        until("an end of each event", async || {
            let (told, silent) = (rig.answered("rate_limited").await, rig.dropped("rate_limited").await);
            silent > EVENTS / 2 && told + silent + rig.answered("ok").await >= EVENTS
        })
        .await;
        assert_eq!(rig.dropped("unanswered").await, 0);
    });
}
