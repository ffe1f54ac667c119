//! Tests of the emulated relay by plain websockets, without the connections that it is made to test.

use std::net::SocketAddr;
use std::time::Duration;

use ::nostr::{Event, EventBuilder, JsonUtil, Keys, Kind};
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};

use super::*;

struct Peer(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Peer {
    async fn at(relay: &RelayHandle) -> Self {
        Self(connect_async(relay.url().to_string()).await.unwrap().0)
    }

    /// With a subscription to all of kind 21000.
    async fn listening(relay: &RelayHandle) -> Self {
        let mut peer = Self::at(relay).await;
        peer.say(json!(["REQ", "all", {"kinds": [21_000]}])).await;
        assert_eq!(peer.next().await, json!(["EOSE", "all"]));
        peer
    }

    async fn say(&mut self, message: Value) {
        self.0.send(Message::Text(message.to_string().into())).await.unwrap();
    }

    async fn publish(&mut self, event: &Event) {
        let event: Value = serde_json::from_str(&event.as_json()).unwrap();
        self.say(json!(["EVENT", event])).await;
    }

    /// The next message; `Null` when the connection has ended.
    async fn next(&mut self) -> Value {
        let message = timeout(Duration::from_secs(30), self.0.next()).await.expect("silence");
        match message {
            Some(Ok(Message::Text(text))) => serde_json::from_str(&text).unwrap_or(Value::String(text.to_string())),
            _ => Value::Null,
        }
    }

    async fn content(&mut self) -> String {
        let message = self.next().await;
        assert_eq!(message[0], "EVENT", "{message}");
        message[2]["content"].as_str().unwrap().to_owned()
    }
}

fn event(content: &str) -> Event {
    EventBuilder::new(Kind::Custom(21_000), content)
        .sign_with_keys(&Keys::generate())
        .unwrap()
}

fn ok(event: &Event) -> Value {
    json!(["OK", event.id.to_hex(), true, ""])
}

async fn with(faults: RelayFaults) -> RelayHandle {
    let options = RelayOptions {
        faults,
        ..RelayOptions::default()
    };
    RelayHandle::start(options).await.unwrap()
}

#[tokio::test]
async fn without_faults_everything_passes_in_order() {
    let relay = with(RelayFaults::default()).await;
    let (mut from, mut to) = (Peer::at(&relay).await, Peer::listening(&relay).await);
    // Far more than the crate's own 60 a minute.
    for n in 0..200 {
        let event = event(&n.to_string());
        from.publish(&event).await;
        assert_eq!(from.next().await, ok(&event));
        assert_eq!(to.content().await, n.to_string());
    }
    let counts = relay.counts();
    assert_eq!((counts.published, counts.delivered, counts.connections), (200, 200, 2));
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let relay = with(RelayFaults::default()).await;
    let options = RelayOptions {
        listen: relay.address(),
        ..RelayOptions::default()
    };
    let error = RelayHandle::start(options).await.err().unwrap();
    assert_eq!(
        error.to_string(),
        format!("the relay cannot listen on {}", relay.address())
    );
}

#[tokio::test]
async fn dropped_refused_and_unanswered() {
    let relay = with(RelayFaults {
        drop: 1.0,
        ..RelayFaults::default()
    })
    .await;
    let (mut from, mut to) = (Peer::at(&relay).await, Peer::listening(&relay).await);
    let dropped = event("dropped");
    from.publish(&dropped).await;
    assert_eq!(from.next().await, ok(&dropped));

    relay.set(RelayFaults {
        rate_limit: 1.0,
        ..RelayFaults::default()
    });
    let refused = event("refused");
    from.publish(&refused).await;
    assert_eq!(
        from.next().await,
        json!(["OK", refused.id.to_hex(), false, "rate-limited: slow down"])
    );

    for faults in [
        RelayFaults {
            lose_ok: 1.0,
            ..RelayFaults::default()
        },
        RelayFaults {
            no_ok: true,
            ..RelayFaults::default()
        },
    ] {
        relay.set(faults);
        from.publish(&event("unanswered")).await;
        assert_eq!(to.content().await, "unanswered", "and the two before did not come");
    }
    // What is not ephemeral is answered.
    let note = EventBuilder::text_note("x").sign_with_keys(&Keys::generate()).unwrap();
    from.publish(&note).await;
    assert_eq!(from.next().await, ok(&note));
    let counts = relay.counts();
    assert_eq!((counts.dropped, counts.rate_limited, counts.oks_lost), (1, 1, 2));
}

#[tokio::test]
async fn copies_come_at_once_and_later() {
    let relay = with(RelayFaults {
        duplicate: 1.0,
        delay_max: Duration::from_millis(5),
        ..RelayFaults::default()
    })
    .await;
    let (mut from, mut to) = (Peer::at(&relay).await, Peer::listening(&relay).await);
    from.publish(&event("copy")).await;
    for _ in 0..3 {
        assert_eq!(to.content().await, "copy");
    }
    assert_eq!((relay.counts().duplicated, relay.counts().delivered), (1, 3));
}

#[tokio::test]
async fn late_events_are_overtaken() {
    let relay = with(RelayFaults {
        delay: 0.5,
        delay_max: Duration::from_millis(50),
        ..RelayFaults::default()
    })
    .await;
    let (mut from, mut to) = (Peer::at(&relay).await, Peer::listening(&relay).await);
    for n in 0..50 {
        from.publish(&event(&format!("{n:02}"))).await;
    }
    let mut got = Vec::new();
    for _ in 0..50 {
        got.push(to.content().await);
    }
    assert!(!got.is_sorted());
    got.sort();
    assert!(got.iter().map(|n| n.parse::<usize>().unwrap()).eq(0..50));
    assert!(relay.counts().delayed > 0);
}

#[tokio::test]
async fn subscriptions_are_closed_and_refused() {
    let relay = with(RelayFaults::default()).await;
    let (mut from, mut to) = (Peer::at(&relay).await, Peer::listening(&relay).await);
    relay.close_subscriptions("error: bye");
    assert_eq!(to.next().await, json!(["CLOSED", "all", "error: bye"]));
    let lost = event("to nobody");
    from.publish(&lost).await;
    assert_eq!(from.next().await, ok(&lost));
    relay.notice("hello");
    assert_eq!(to.next().await, json!(["NOTICE", "hello"]));
    relay.say("garbage");
    assert_eq!(to.next().await, json!("garbage"));
    assert_eq!(from.next().await, json!(["NOTICE", "hello"]));

    relay.set(RelayFaults {
        refuse_subscription: 1.0,
        ..RelayFaults::default()
    });
    to.say(json!(["REQ", "all", {"kinds": [21_000]}])).await;
    assert_eq!(to.next().await, json!(["CLOSED", "all", "error: not today"]));
    assert_eq!(relay.counts().closed, 2);
}

#[tokio::test]
async fn connections_are_cut_by_order_and_by_time() {
    let relay = with(RelayFaults::default()).await;
    let mut peer = Peer::listening(&relay).await;
    relay.cut();
    assert_eq!(peer.next().await, Value::Null);
    let mut peer = Peer::listening(&relay).await;
    relay.set(RelayFaults {
        cut_every: Some(Duration::from_millis(1)),
        close_every: Some(Duration::from_secs(3_600)),
        ..RelayFaults::default()
    });
    assert_eq!(peer.next().await, Value::Null);
    assert_eq!(relay.counts().cut, 2);
}

#[tokio::test]
async fn an_outage_hangs_up_and_ends() {
    let relay = with(RelayFaults::default()).await;
    let mut peer = Peer::listening(&relay).await;
    relay.outage(Duration::from_secs(3_600));
    assert_eq!(peer.next().await, Value::Null);
    assert!(connect_async(relay.url().to_string()).await.is_err());
    relay.outage(Duration::ZERO);
    Peer::listening(&relay).await;
    assert!(relay.counts().hung_up > 0);

    relay.stop().await;
    assert!(connect_async(relay.url().to_string()).await.is_err());
    relay.restart().await.unwrap();
    Peer::listening(&relay).await;
    relay.set(RelayFaults {
        outage_every: Some(Duration::from_millis(1)),
        outage: Duration::ZERO,
        ..RelayFaults::default()
    });
    let outages = relay.until(|counts| counts.outages >= 5);
    timeout(Duration::from_secs(30), outages).await.unwrap();
}

#[tokio::test]
async fn who_is_not_known_is_asked() {
    let options = RelayOptions {
        nip42: true,
        ..RelayOptions::default()
    };
    let relay = RelayHandle::start(options).await.unwrap();
    let mut peer = Peer::at(&relay).await;
    peer.say(json!(["REQ", "all", {"kinds": [21_000]}])).await;
    assert_eq!(peer.next().await[0], "AUTH");
    assert_eq!(peer.next().await[0], "CLOSED");
    peer.publish(&event("x")).await;
    assert_eq!(peer.next().await[0], "AUTH");
    assert_eq!(peer.next().await[2], json!(false));
}

#[tokio::test]
async fn clients_that_speak_nonsense_do_not_hurt_others() {
    let relay = with(RelayFaults::default()).await;
    let mut good = Peer::listening(&relay).await;
    for nonsense in ["", "x", "[]", "[\"EVENT\"]", "{\"a\":1}", "[\"REQ\",7]"] {
        let mut bad = Peer::at(&relay).await;
        bad.0.send(Message::Text(nonsense.into())).await.unwrap();
    }
    // Not even a websocket.
    let raw: SocketAddr = relay.address();
    drop(TcpStream::connect(raw).await.unwrap());
    let event = event("fine");
    good.publish(&event).await;
    let mut heard = [good.next().await, good.next().await];
    heard.sort_by_key(|message| message[0].as_str().map(str::to_owned));
    assert_eq!((&heard[0][0], &heard[1]), (&json!("EVENT"), &ok(&event)));
}
