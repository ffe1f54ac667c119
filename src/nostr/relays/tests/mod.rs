//! Tests of the connections against emulated relays on the loopback: what goes wrong is set, then a condition is
//! waited for.

mod rough;

use std::num::NonZeroUsize;

use ::nostr::EventBuilder;
use tokio::time::timeout;

use super::*;
use crate::nostr::wire::event::{self, KIND};
use crate::sim::relay::{RelayFaults, RelayHandle, RelayOptions};
use crate::time::{Clock, SystemClock};

/// For what takes milliseconds; only a test that fails waits so long.
const PATIENCE: Duration = Duration::from_secs(30);

async fn within<T>(what: impl Future<Output = T>) -> T {
    timeout(PATIENCE, what).await.expect("it takes too long")
}

/// Remembers what it hears.
#[derive(Default)]
struct Ears {
    said: watch::Sender<Vec<Said>>,
    ends: watch::Sender<Vec<End>>,
    connected: watch::Sender<(usize, usize)>,
}

impl Watcher for Ears {
    fn relay_connected(&self, _: &RelayUrl, connected: bool) {
        self.connected
            .send_modify(|(ups, downs)| if connected { *ups += 1 } else { *downs += 1 });
    }
    fn relay_said(&self, _: &RelayUrl, what: Said) {
        self.said.send_modify(|said| said.push(what));
    }
    fn published(&self, outcome: Published) {
        self.ends.send_modify(|ends| ends.push(outcome.end));
    }
}

/// A service or a client.
struct Party {
    keys: Keys,
    relays: Relays,
    arrived: mpsc::Receiver<Arrived>,
    ears: Arc<Ears>,
}

fn timings() -> Timings {
    let quick = |first, cap| Backoff {
        first: Duration::from_millis(first),
        cap: Duration::from_millis(cap),
    };
    Timings {
        connect: Duration::from_secs(5),
        reconnect: quick(10, 100),
        resubscribe: quick(10, 100),
        eose: Duration::from_secs(5),
        auth: Duration::from_secs(5),
        ok: Duration::from_millis(300),
        silent: Duration::from_millis(300),
        republish: quick(10, 100),
        slow_down: quick(10, 100),
        ..Timings::default()
    }
}

fn in_time() -> UnixMs {
    SystemClock.now().plus(PATIENCE)
}

impl Party {
    async fn with(relays: &[RelayUrl], room: NonZeroUsize) -> Self {
        let keys = Keys::generate();
        let (sender, arrived) = mpsc::channel(room.get());
        let ears = Arc::new(Ears::default());
        let settings = Settings {
            urls: relays.to_vec(),
            keys: keys.clone(),
            clock: Arc::new(SystemClock),
            timings: timings(),
        };
        let relays = Relays::start(settings, sender, ears.clone()).await.unwrap();
        Self {
            keys,
            relays,
            arrived,
            ears,
        }
    }

    /// Subscribed at all of them.
    async fn at(relays: &[&RelayHandle]) -> Self {
        let urls: Vec<_> = relays.iter().map(|relay| relay.url()).collect();
        let party = Self::with(&urls, NonZeroUsize::new(64).unwrap()).await;
        party.subscribed(urls.len() as u64).await;
        party
    }

    async fn subscribed(&self, epoch: u64) {
        within(self.relays.epoch().wait_for(|now| *now >= epoch)).await.unwrap();
    }

    fn event(&self, to: &Self, content: &str) -> Event {
        let now = SystemClock.now().as_secs();
        event::sign(&self.keys, to.keys.public_key(), content.to_owned(), now).unwrap()
    }

    async fn tell(&self, to: &Self, content: &str) -> Result<(), PublishError> {
        within(self.relays.publish(self.event(to, content), in_time())).await
    }

    async fn next(&mut self) -> String {
        within(self.arrived.recv()).await.unwrap().event.content
    }

    async fn heard(&self, what: Said) {
        let mut said = self.ears.said.subscribe();
        within(said.wait_for(|said| said.contains(&what))).await.unwrap();
    }

    fn last_end(&self) -> Option<End> {
        self.ears.ends.borrow().last().copied()
    }
}

async fn relay() -> RelayHandle {
    RelayHandle::start(RelayOptions::default()).await.unwrap()
}

/// A question and its answer. The same word in the same second would be the same event.
async fn converse(service: &mut Party, client: &mut Party, word: &str) {
    client.tell(service, word).await.unwrap();
    assert_eq!(service.next().await, word);
    let answer = format!("{word}, answered");
    service.tell(client, &answer).await.unwrap();
    assert_eq!(client.next().await, answer);
}

#[tokio::test]
async fn question_and_answer_over_one_and_two_relays() {
    let (first, second) = (relay().await, relay().await);
    for relays in [&[&first][..], &[&first, &second]] {
        let (mut service, mut client) = (Party::at(relays).await, Party::at(relays).await);
        for word in ["one", "two", "three"] {
            converse(&mut service, &mut client, word).await;
        }
        assert_eq!(client.last_end(), Some(End::Confirmed));
        assert_eq!(service.relays.connected(), relays.len());
        assert!(service.arrived.try_recv().is_err() && client.arrived.try_recv().is_err());
        client.relays.stop().await;
        assert_eq!(client.relays.connected(), 0);
        assert_eq!(*client.ears.connected.borrow(), (relays.len(), relays.len()));
    }
}

#[tokio::test]
async fn a_relay_that_comes_back_is_used_again() {
    let relay = relay().await;
    let (mut service, mut client) = (Party::at(&[&relay]).await, Party::at(&[&relay]).await);
    for round in 2..5 {
        relay.restart().await.unwrap();
        service.subscribed(round).await;
        client.subscribed(round).await;
        converse(&mut service, &mut client, &format!("round {round}")).await;
    }
}

#[tokio::test]
async fn what_is_published_during_an_outage_goes_out_after_it() {
    let relay = relay().await;
    let (mut service, client) = (Party::at(&[&relay]).await, Party::at(&[&relay]).await);
    relay.stop().await;
    let mut connected = client.ears.connected.subscribe();
    within(connected.wait_for(|(_, downs)| *downs == 1)).await.unwrap();
    let event = client.event(&service, "late");
    let publish = client.relays.publish(event, in_time());
    let come_back = async {
        relay.restart().await.unwrap();
        service.subscribed(2).await;
    };
    let (published, ()) = within(async { tokio::join!(publish, come_back) }).await;
    published.unwrap();
    // The client may have been the first to come back: ephemeral events are for those who are there.
    client.tell(&service, "later").await.unwrap();
    let mut got = service.next().await;
    if got == "late" {
        got = service.next().await;
    }
    assert_eq!(got, "later");
}

#[tokio::test]
async fn one_of_two_relays_is_enough() {
    let (first, second) = (relay().await, relay().await);
    let both = [&first, &second];
    let (mut service, mut client) = (Party::at(&both).await, Party::at(&both).await);
    second.stop().await;
    converse(&mut service, &mut client, "by the first").await;
    second.restart().await.unwrap();
    service.subscribed(3).await;
    client.subscribed(3).await;
    first.stop().await;
    converse(&mut service, &mut client, "by the second").await;
}

#[tokio::test]
async fn a_closed_subscription_is_asked_for_again() {
    let relay = relay().await;
    let (mut service, mut client) = (Party::at(&[&relay]).await, Party::at(&[&relay]).await);
    let words = [
        "error: shutting down",
        "rate-limited: slow down",
        "",
        "blocked: no",
        "restricted: x",
    ];
    for (round, words) in (2..).zip(words) {
        relay.close_subscriptions(words);
        service.subscribed(round).await;
        client.subscribed(round).await;
        converse(&mut service, &mut client, &format!("round {round}")).await;
    }
    assert_eq!(
        service
            .ears
            .said
            .borrow()
            .iter()
            .filter(|s| **s == Said::Closed)
            .count(),
        5
    );
}

#[tokio::test]
async fn a_relay_that_refuses_subscriptions_is_asked_until_it_does_not() {
    let relay = relay().await;
    relay.set(RelayFaults {
        refuse_subscription: 1.0,
        ..RelayFaults::default()
    });
    let mut service = Party::with(&[relay.url()], NonZeroUsize::MIN).await;
    service.heard(Said::Closed).await;
    assert_eq!(*service.relays.epoch().borrow(), 0);
    relay.set(RelayFaults::default());
    service.subscribed(1).await;
    let client = Party::at(&[&relay]).await;
    client.tell(&service, "now").await.unwrap();
    assert_eq!(service.next().await, "now");
}

#[tokio::test]
async fn what_is_rate_limited_is_sent_again() {
    let relay = relay().await;
    let (mut service, client) = (Party::at(&[&relay]).await, Party::at(&[&relay]).await);
    relay.set(RelayFaults {
        rate_limit: 1.0,
        ..RelayFaults::default()
    });
    let (told, ()) = tokio::join!(client.tell(&service, "slowly"), async {
        client.heard(Said::RateLimited).await;
        relay.set(RelayFaults::default());
    });
    told.unwrap();
    assert_eq!(service.next().await, "slowly");
    assert_eq!(client.last_end(), Some(End::Confirmed));
}

#[tokio::test]
async fn a_relay_that_answers_nothing_is_believed() {
    let relay = relay().await;
    relay.set(RelayFaults {
        no_ok: true,
        ..RelayFaults::default()
    });
    let (mut service, mut client) = (Party::at(&[&relay]).await, Party::at(&[&relay]).await);
    converse(&mut service, &mut client, "hello").await;
    assert_eq!(client.last_end(), Some(End::Unconfirmed));
    assert_eq!(relay.counts().published, 2, "nothing was sent twice");
}

#[tokio::test]
async fn a_relay_that_used_to_answer_is_asked_until_it_does() {
    let relay = relay().await;
    let (mut service, mut client) = (Party::at(&[&relay]).await, Party::at(&[&relay]).await);
    converse(&mut service, &mut client, "hello").await;
    relay.set(RelayFaults {
        lose_ok: 1.0,
        ..RelayFaults::default()
    });
    let event = client.event(&service, "once");
    let publish = client.relays.publish(event, in_time());
    let (published, ()) = tokio::join!(within(publish), async {
        assert_eq!(service.next().await, "once");
        within(relay.until(|counts| counts.oks_lost >= 2)).await;
        relay.set(RelayFaults::default());
    });
    published.unwrap();
    assert_eq!(client.last_end(), Some(End::Confirmed));
    converse(&mut service, &mut client, "next").await;
}

#[tokio::test]
async fn a_relay_that_takes_and_drops_does_not_matter_beside_another() {
    let (bad, good) = (relay().await, relay().await);
    let both = [&bad, &good];
    let (mut service, mut client) = (Party::at(&both).await, Party::at(&both).await);
    bad.set(RelayFaults {
        drop: 1.0,
        ..RelayFaults::default()
    });
    for word in ["one", "two", "three"] {
        converse(&mut service, &mut client, word).await;
    }
    assert!(bad.counts().dropped > 0);
}

#[tokio::test]
async fn relays_that_ask_who_we_are_are_told_so() {
    let options = RelayOptions {
        nip42: true,
        ..RelayOptions::default()
    };
    let relay = RelayHandle::start(options).await.unwrap();
    let (mut service, mut client) = (Party::at(&[&relay]).await, Party::at(&[&relay]).await);
    converse(&mut service, &mut client, "it is me").await;
    relay.restart().await.unwrap();
    service.subscribed(2).await;
    client.subscribed(2).await;
    converse(&mut service, &mut client, "it is me again").await;
    assert!(!service.ears.said.borrow().contains(&Said::AuthFailed));
}

#[tokio::test]
async fn publishing_alone_makes_itself_known_too() {
    let options = RelayOptions {
        nip42: true,
        ..RelayOptions::default()
    };
    let relay = RelayHandle::start(options).await.unwrap();
    let mut service = Party::at(&[&relay]).await;
    // Not subscribed yet: the first event meets a relay that does not know its sender.
    let client = Party::with(&[relay.url()], NonZeroUsize::MIN).await;
    client.tell(&service, "first").await.unwrap();
    assert_eq!(service.next().await, "first");
}

#[tokio::test]
async fn copies_are_handed_over_once() {
    let (first, second) = (relay().await, relay().await);
    let both = [&first, &second];
    let (mut service, client) = (Party::at(&both).await, Party::at(&both).await);
    for relay in both {
        relay.set(RelayFaults {
            duplicate: 1.0,
            delay: 0.5,
            delay_max: Duration::from_millis(20),
            ..RelayFaults::default()
        });
    }
    let mut expected: Vec<String> = (0..20).map(|n| n.to_string()).collect();
    for word in &expected {
        client.tell(&service, word).await.unwrap();
    }
    let all_sent = async {
        for relay in both {
            relay.until(|counts| counts.delivered >= 20 * 3).await;
        }
    };
    let mut got = Vec::new();
    let ((), ()) = tokio::join!(within(all_sent), async {
        for _ in 0..20 {
            got.push(service.next().await);
        }
    });
    // Whatever was sent before this is behind it on neither socket.
    client.tell(&service, "last").await.unwrap();
    assert_eq!(service.next().await, "last");
    got.sort();
    expected.sort();
    assert_eq!(got, expected);
}

#[tokio::test]
async fn forged_events_and_garbage_do_not_arrive_and_do_not_stop_good_ones() {
    let relay = relay().await;
    let (mut service, client) = (Party::at(&[&relay]).await, Party::at(&[&relay]).await);
    client.tell(&service, "genuine").await.unwrap();
    assert_eq!(service.next().await, "genuine");
    let say = |event: &Event| relay.say(&format!(r#"["EVENT","tellerd",{}]"#, event.as_json()));

    let mut bad_signature = client.event(&service, "bad signature");
    bad_signature.sig = client.event(&service, "other").sig;
    say(&bad_signature);
    // The pool has verified this id, and would let other content under it pass.
    let mut known_id = client.event(&service, "known id");
    client.relays.publish(known_id.clone(), in_time()).await.unwrap();
    assert_eq!(service.next().await, "known id");
    known_id.content = "forged".into();
    say(&known_id);
    let note = EventBuilder::text_note("x").tag(::nostr::Tag::public_key(service.keys.public_key()));
    say(&note.sign_with_keys(&client.keys).unwrap());
    let wrong_recipient = client.event(&client, "to somebody else");
    say(&wrong_recipient);
    relay.say(&"x".repeat(MESSAGE_BYTES + 1));
    for n in 0..300 {
        relay.say(&format!(r#"["EVENT","tellerd",{{"kind":{KIND},"n":{n}}}]"#));
        relay.say("\u{0}]]}{garbage");
        relay.notice("\u{1b}[2J");
    }
    service.heard(Said::TooLong).await;
    client.tell(&service, "good").await.unwrap();
    assert_eq!(service.next().await, "good");
    assert!(service.arrived.try_recv().is_err());
    assert_eq!(
        *service.ears.connected.borrow(),
        (1, 0),
        "the connection was good for all of it"
    );
}

#[tokio::test]
async fn a_slow_reader_loses_nothing() {
    let relay = relay().await;
    let mut service = Party::with(&[relay.url()], NonZeroUsize::MIN).await;
    service.subscribed(1).await;
    let client = Party::at(&[&relay]).await;
    let events: Vec<Event> = (0..200).map(|n| client.event(&service, &n.to_string())).collect();
    let all = events.into_iter().map(|event| client.relays.publish(event, in_time()));
    let published = within(futures_util::future::join_all(all)).await;
    assert!(published.iter().all(Result::is_ok));
    let mut got = std::collections::BTreeSet::new();
    while got.len() < 200 {
        assert!(got.insert(service.next().await));
    }
}

#[tokio::test]
async fn an_event_that_nobody_takes_names_each_relay() {
    let (down, limiting) = (relay().await, relay().await);
    down.stop().await;
    limiting.set(RelayFaults {
        rate_limit: 1.0,
        ..RelayFaults::default()
    });
    let client = Party::with(&[down.url(), limiting.url()], NonZeroUsize::MIN).await;
    client.subscribed(1).await;
    let event = client.event(&client, "x");
    let (published, ()) = tokio::join!(
        client
            .relays
            .publish(event.clone(), SystemClock.now().plus(Duration::from_secs(2))),
        client.heard(Said::RateLimited)
    );
    let error = published.unwrap_err().to_string();
    assert!(error.contains(&format!("{}: not connected", down.url())), "{error}");
    assert!(error.contains(&format!("{}: rate-limited", limiting.url())), "{error}");
    assert_eq!(client.last_end(), Some(End::GivenUp));
    let late = client.relays.publish(event, UnixMs(0)).await;
    assert!(matches!(late, Err(PublishError::NotTaken(_))));
}

#[tokio::test]
async fn what_no_relay_carries_is_not_tried() {
    let relay = relay().await;
    let client = Party::at(&[&relay]).await;
    let large = client.event(&client, &"x".repeat(MAX_EVENT_BYTES));
    let refused = client.relays.publish(large, in_time()).await;
    assert!(matches!(refused, Err(PublishError::TooLarge(_))));
    let fits = client.event(
        &client,
        &"x".repeat(MAX_EVENT_BYTES - event::overhead(SystemClock.now().as_secs())),
    );
    within(client.relays.publish(fits, in_time())).await.unwrap();
    assert_eq!(relay.counts().published, 1);
}

#[tokio::test]
async fn without_a_relay_there_is_nothing_to_start() {
    let settings = Settings {
        urls: Vec::new(),
        keys: Keys::generate(),
        clock: Arc::new(SystemClock),
        timings: Timings::default(),
    };
    let (sender, _arrived) = mpsc::channel(1);
    let started = Relays::start(settings, sender, Arc::new(Unwatched)).await;
    assert!(matches!(started, Err(RelayError::NoRelays)));
}

#[tokio::test]
async fn the_same_relay_twice_is_one_connection() {
    let relay = relay().await;
    let urls = [relay.url(), relay.url()];
    let party = Party::with(&urls, NonZeroUsize::MIN).await;
    party.subscribed(1).await;
    assert_eq!((party.relays.urls().count(), relay.counts().connections), (1, 1));
}
