//! The gate on its own: what a broken store of ids leads to, and how long an answer is published for.

use ::nostr::PublicKey;
use async_trait::async_trait;
use serde_json::json;

use super::*;
use crate::clients::{Book, ConfiguredClient, Limits};
use crate::nostr::wire::event;
use crate::nostr::wire::nip44::ConversationKeys;
use crate::time::ManualClock;

const NOW: UnixMs = UnixMs(1_700_000_000_000);

/// Keeps until when each event was to be published.
#[derive(Default)]
struct Ears(Mutex<Vec<UnixMs>>);

#[async_trait]
impl Outbox for Ears {
    async fn publish(&self, _: Event, until: UnixMs) -> Result<(), String> {
        locked(&self.0).push(until);
        Ok(())
    }
}

struct Rig {
    gate: Arc<Gate>,
    client: Keys,
    service: PublicKey,
    ears: Arc<Ears>,
    lost: Arc<watch::Sender<Option<String>>>,
    asked: Arc<Mutex<u32>>,
}

impl Rig {
    /// A gate that knows one client, who may ask `per_minute` times.
    fn new(seen: Seen, per_minute: u32) -> Self {
        let (keys, client) = (Keys::generate(), Keys::generate());
        let known = ConfiguredClient {
            name: "alice".parse().unwrap(),
            key: Some(key_of(&client.public_key())),
            limits: Limits {
                requests_per_minute: per_minute,
                ..Limits::NONE
            },
        };
        let roster = Roster::new(&[known], Limits::NONE, &[], &Book::default());
        let (ears, lost, asked) = (Arc::<Ears>::default(), Arc::default(), Arc::<Mutex<u32>>::default());
        let count = Arc::clone(&asked);
        let parts = Parts {
            keys: keys.clone(),
            roster: watch::channel(Arc::new(roster)).1,
            seen,
            clock: Arc::new(ManualClock::new(NOW)),
            metrics: Metrics::new().unwrap(),
            ask: Arc::new(move |_| {
                *locked(&count) += 1;
                Box::pin(async { Some(Outcome::batch(Vec::new())) })
            }),
            outbox: Arc::clone(&ears) as Arc<dyn Outbox>,
            lost: Arc::clone(&lost),
        };
        Self {
            gate: Arc::new(Gate::new(parts)),
            service: keys.public_key(),
            client,
            ears,
            lost,
            asked,
        }
    }

    /// An event of the client, made so many seconds after now.
    fn event(&self, ahead_seconds: u64, body: &serde_json::Value, rpc_name: &str) -> Event {
        let text = json!({
            "rpcName": rpc_name,
            "authIdentifier": self.client.public_key().to_hex(),
            "body": body,
        });
        let keys = ConversationKeys::derive(self.client.secret_key(), &self.service).unwrap();
        let content = keys.encrypt(Version::V2, &text.to_string()).unwrap();
        event::sign(&self.client, self.service, content, NOW.as_secs() + ahead_seconds).unwrap()
    }
}

#[tokio::test]
async fn an_id_that_can_not_be_remembered_ends_the_daemon() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::new(Seen::lost(dir.path()), 600);
    let asked = rig.gate.handle(rig.event(0, &json!({}), "getServiceInfo")).await;
    assert_eq!(asked, Err(DropReason::ReplayUnknown));
    assert!(rig.lost.borrow().is_some());
    assert_eq!(*locked(&rig.asked), 0);
}

#[tokio::test]
async fn an_answer_to_a_clock_that_is_ahead_is_published_no_longer_than_others() {
    let dir = tempfile::tempdir().unwrap();
    let rig = Rig::new(Seen::open(dir.path()).unwrap(), 600);
    let event = rig.event(890, &json!({}), "getServiceInfo");
    rig.gate.handle(event).await.unwrap();
    assert_eq!(*locked(&rig.ears.0), [NOW.plus(FRESH)]);
    assert!(rig.lost.borrow().is_none());
}

#[tokio::test]
async fn each_request_of_a_batch_counts() {
    let dir = tempfile::tempdir().unwrap();
    // 15 of them at once.
    let rig = Rig::new(Seen::open(dir.path()).unwrap(), 60);
    let ten = json!({"requests": vec![json!({"rpcName": "getServiceInfo"}); 10]});
    for asked in [1, 2, 2] {
        rig.gate.handle(rig.event(0, &ten, "BatchUser")).await.unwrap();
        assert_eq!(*locked(&rig.asked), asked);
    }
    let told = rig.gate.handle(rig.event(0, &json!({}), "getServiceInfo")).await;
    assert_eq!(told, Err(DropReason::RateLimited), "told a moment ago");
}
