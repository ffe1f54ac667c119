//! A fleet that is operated over Nostr: who may do what, what the journal keeps of it, and orders that come twice.
#![allow(clippy::expect_used, clippy::panic)]

use std::sync::Arc;
use std::time::Duration;

use nostr::{Event, Keys};
use serde_json::{Value, json};
use tellerd::actors::child::ChildId;
use tellerd::hardware::puloon::emulator::Setup;
use tellerd::metrics::AtmState;
use tellerd::nostr::relays::{Relays, Settings, Timings, Unwatched};
use tellerd::nostr::wire::{Code, Endpoint, Failure, Incoming, Limits, Outcome, Request, Role, Sight, Signed, Version};
use tellerd::record::{AtmEvent, Body};
use tellerd::time::{Clock, SystemClock, UnixMs};
use tokio::sync::mpsc;

use crate::fleet_rig::{LIMIT, Plan, Rig, id, machine, run, until};

/// The operators' secret keys; the last one is nobody's.
const SECRETS: [&str; 4] = ["11", "22", "33", "44"];
const ROLES: [&str; 3] = ["viewer", "cash", "operator"];
/// How long an answer is waited for before it is asked for again.
const PATIENCE: Duration = Duration::from_millis(500);
const VIEWER: usize = 0;
const CASH: usize = 1;
const OPERATOR: usize = 2;
const STRANGER: usize = 3;

fn keys(who: usize) -> Keys {
    Keys::parse(&SECRETS[who].repeat(32)).expect("a key")
}

fn plan() -> Plan {
    let operator = |(n, role): (usize, &&str)| {
        let key = keys(n).public_key().to_hex();
        format!("[[operator]]\nname = 'the-{role}'\nkey = '{key}'\nrole = '{role}'\n")
    };
    Plan {
        on_nostr: Some(ROLES.iter().enumerate().map(operator).collect()),
        ..Plan::default()
    }
}

/// Somebody with a key and a connection to the fleet's relay.
struct Phone {
    endpoint: Endpoint,
    service: nostr::PublicKey,
    own: String,
    relays: Relays,
    arrived: mpsc::Receiver<tellerd::nostr::relays::Arrived>,
    asked: u32,
}

impl Phone {
    async fn new(rig: &Rig, who: usize) -> Self {
        let (keys, service) = (keys(who), rig.service());
        let settings = Settings {
            urls: vec![rig.relay.as_ref().expect("a relay").url()],
            keys: keys.clone(),
            clock: Arc::new(SystemClock),
            timings: Timings::default(),
        };
        let (sender, arrived) = mpsc::channel(64);
        let relays = Relays::start(settings, sender, Arc::new(Unwatched))
            .await
            .expect("relays");
        relays.epoch().wait_for(|times| *times > 0).await.expect("listening");
        Self {
            own: keys.public_key().to_hex(),
            endpoint: Endpoint::new(keys, Role::Client { service }, Limits::default()),
            service,
            relays,
            arrived,
            asked: 0,
        }
    }

    fn now() -> UnixMs {
        SystemClock.now()
    }

    fn event(&mut self, method: &str, input: &Value, request_id: &str) -> Event {
        let request = Request {
            rpc_name: method.into(),
            input: input.as_object().expect("an object").clone(),
        };
        let text = request.encode(&self.own, request_id);
        let mut events = self
            .endpoint
            .seal(self.service, Version::V2, &text, Self::now())
            .expect("sealed");
        events.pop().expect("one event")
    }

    async fn publish(&self, event: &Event) {
        let until = Self::now().plus(LIMIT);
        self.relays.publish(event.clone(), until).await.expect("published");
    }

    /// The next answer, and to which request.
    async fn hears(&mut self) -> (String, Outcome) {
        loop {
            let next = tokio::time::timeout(LIMIT, self.arrived.recv())
                .await
                .expect("an answer");
            let event = next.expect("an event").event;
            let signed = Signed::from_event(event, &self.endpoint.party()).expect("signed by the service");
            let opened = self.endpoint.open(&signed, true, Self::now()).expect("opened");
            match self
                .endpoint
                .admit(opened, Sight::First, Self::now())
                .expect("admitted")
            {
                Incoming::Reply { reply, .. } => return (reply.request_id.expect("an id"), reply.outcome),
                Incoming::Piece { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Asks and hears.
    async fn asks_as(&mut self, request_id: &str, method: &str, input: Value) -> Result<Value, Failure> {
        let event = self.event(method, &input, request_id);
        // A daemon that is just starting may not listen yet.
        until("the fleet to be on Nostr", async || self.relays.connected() > 0).await;
        self.publish(&event).await;
        let outcome = loop {
            match self.hears().await {
                (id, outcome) if id == request_id => break outcome,
                // A late answer to what was asked twice.
                _ => {}
            }
        };
        match outcome {
            Outcome::Ok(fields) => Ok(fields.into()),
            Outcome::Error(failure) => Err(failure),
        }
    }

    /// The same, as clients do: again when there is no answer, because whoever answers is being restarted.
    async fn insists(&mut self, request_id: &str, method: &str, input: Value) -> Result<Value, Failure> {
        let asking = async {
            loop {
                let asked = self.asks_as(request_id, method, input.clone());
                if let Ok(answer) = tokio::time::timeout(PATIENCE, asked).await {
                    return answer;
                }
            }
        };
        tokio::time::timeout(LIMIT, asking).await.expect("an answer")
    }

    async fn asks(&mut self, method: &str, input: Value) -> Result<Value, Failure> {
        self.asked += 1;
        let request_id = format!("r-{}", self.asked);
        self.asks_as(&request_id, method, input).await
    }

    async fn is_refused(&mut self, method: &str, input: Value, code: Code, words: &str) {
        let failure = self.asks(method, input).await.expect_err(method);
        assert_eq!(failure.code, code, "{method}: {failure}");
        assert!(failure.reason.contains(words), "{method}: {failure}");
    }
}

/// The fleet listens.
async fn listening(rig: &Rig) {
    let relay = rig.relay.as_ref().expect("a relay");
    tokio::time::timeout(LIMIT, relay.until(|counts| counts.requests > 0))
        .await
        .expect("the fleet listens");
}

/// The orders in the journal: key and JSON.
fn orders(rig: &Rig) -> Vec<(String, Value)> {
    let order = |body| match body {
        Body::Order { key, order, .. } => Some((key.to_string(), serde_json::from_str(&order).expect("JSON"))),
        _ => None,
    };
    rig.journal().into_iter().filter_map(order).collect()
}

fn events(rig: &Rig) -> Vec<AtmEvent> {
    let event = |body| match body {
        Body::Atm { event, .. } => Some(event),
        _ => None,
    };
    rig.journal().into_iter().filter_map(event).collect()
}

fn load(notes: u32) -> Value {
    json!({"atm": "left", "cassettes": [{"position": 1, "denomination_minor": 2000, "notes": notes}]})
}

#[test]
fn each_role_may_do_what_those_before_it_may_and_a_stranger_nothing() {
    run(plan(), async |rig| {
        listening(rig).await;
        rig.serve("left").await;
        let left = json!({"atm": "left"});
        let cashout = rig.fleet.cashouts(None, None, 1).await.expect("one")[0].id;
        let close = json!({"cashout": cashout, "decision": "close"});
        let reads = [
            ("listAtms", json!({})),
            ("getAtm", left.clone()),
            ("listCashOuts", json!({})),
            ("getCashOut", json!({"cashout": cashout})),
        ];
        let changes = [
            ("drainAtm", left.clone()),
            ("resumeAtm", left.clone()),
            ("loadAtm", load(70)),
        ];
        for who in [VIEWER, CASH, OPERATOR, STRANGER] {
            let mut phone = Phone::new(rig, who).await;
            for (method, input) in reads.clone() {
                match who {
                    STRANGER => {
                        phone
                            .is_refused(method, input, Code::NotAllowed, "not an operator here")
                            .await
                    }
                    _ => _ = phone.asks(method, input).await.expect(method),
                }
            }
            for (method, input) in changes.clone() {
                match who {
                    STRANGER => {
                        phone
                            .is_refused(method, input, Code::NotAllowed, "not an operator")
                            .await
                    }
                    VIEWER => {
                        let words = "has the role viewer; that needs cash";
                        phone.is_refused(method, input, Code::NotAllowed, words).await;
                    }
                    _ => _ = phone.asks(method, input).await.expect(method),
                }
            }
            match who {
                OPERATOR => {
                    let words = "has ended: it is completed";
                    phone
                        .is_refused("resolveCashOut", close.clone(), Code::Refused, words)
                        .await;
                }
                STRANGER => {
                    phone
                        .is_refused("resolveCashOut", close.clone(), Code::NotAllowed, "not an operator")
                        .await;
                }
                _ => {
                    let words = "that needs operator";
                    phone
                        .is_refused("resolveCashOut", close.clone(), Code::NotAllowed, words)
                        .await;
                }
            }
            let service = phone.asks("getServiceInfo", json!({})).await.expect_err("no service");
            assert_eq!(service.code, Code::NotAllowed);
        }
        let asked: Vec<String> = orders(rig).into_iter().map(|(key, _)| key).collect();
        let of = |who: usize| keys(who).public_key().to_hex();
        let expected = [vec![of(CASH); 3], vec![of(OPERATOR); 4]].concat();
        assert_eq!(asked, expected, "what was not allowed is no order");
    });
}

#[test]
fn orders_act_and_stand_in_the_journal_with_their_key_before_their_effect() {
    run(plan(), async |rig| {
        listening(rig).await;
        rig.ready("left").await;
        let mut phone = Phone::new(rig, CASH).await;
        let left = json!({"atm": "left"});
        let drained = phone.asks("drainAtm", left.clone()).await.expect("drained");
        assert_eq!(drained["atm"]["state"], "draining", "{drained}");
        rig.stands("left", AtmState::Draining, "").await;
        let loaded = phone.asks("loadAtm", load(77)).await.expect("loaded");
        assert_eq!(loaded["atm"]["cassettes"][0]["remaining"], 77, "{loaded}");
        phone.asks("resumeAtm", left).await.expect("resumed");
        rig.serve("left").await;

        let key = keys(CASH).public_key().to_hex();
        let by = format!("the-cash (nostr {key})");
        let is = |body: &Body| match body {
            Body::Order { key: signed, by, order } => {
                assert_eq!((signed.to_string(), by.as_str()), (key.clone(), "the-cash"));
                let order: Value = serde_json::from_str(order).expect("JSON");
                Some(order["method"].as_str().expect("a method").to_owned())
            }
            Body::Atm { event, .. } => match event {
                AtmEvent::Drained { by: named } | AtmEvent::Resumed { by: named } => {
                    assert_eq!(*named, by);
                    Some(event.name().to_owned())
                }
                AtmEvent::CassetteLoaded { by: named, .. } => (*named == by).then(|| event.name().to_owned()),
                _ => None,
            },
            _ => None,
        };
        let course: Vec<String> = rig.journal().iter().filter_map(is).collect();
        let expected = [
            "drainAtm",
            "drained",
            "loadAtm",
            "cassette_loaded",
            "resumeAtm",
            "resumed",
        ];
        assert_eq!(course, expected);
        let (_, order) = &orders(rig)[1];
        assert_eq!(order["input"], load(77));
    });
}

#[test]
fn an_unknown_outcome_is_resolved_and_a_lost_answer_misleads_nobody() {
    let slow = Setup {
        note_ms: 5,
        ..machine()
    };
    let plan = Plan {
        machines: vec![("left", slow)],
        ..plan()
    };
    run(plan, async |rig| {
        listening(rig).await;
        let (cashout, payment) = rig.unknown_outcome("left").await;
        let mut phone = Phone::new(rig, OPERATOR).await;
        let seen = phone
            .asks("getCashOut", json!({"cashout": cashout.id}))
            .await
            .expect("seen");
        assert_eq!(seen["cashout"]["state"], "outcome_unknown", "{seen}");
        let action = seen["cashout"]["operator_action"].as_str().expect("an action");
        assert!(action.contains("tellerd resolve"), "{action}");
        let word = json!({"cashout": cashout.id, "decision": {"delivered_minor": 4000}, "note": "counted"});
        let first = phone
            .asks_as("once", "resolveCashOut", word.clone())
            .await
            .expect("resolved");
        rig.reaches(cashout.id, "claim_owed").await;
        assert!(rig.ended(payment).await.preimage.is_some());
        let again = phone
            .asks_as("once", "resolveCashOut", word)
            .await
            .expect("the same answer");
        assert_eq!(first, again);
        let paid = json!({"cashout": cashout.id, "decision": "claim_paid"});
        let first = phone
            .asks_as("paid", "resolveCashOut", paid.clone())
            .await
            .expect("paid");
        assert_eq!(first["cashout"]["state"], "completed", "{first}");
        let again = phone
            .asks_as("paid", "resolveCashOut", paid.clone())
            .await
            .expect("the same answer");
        assert_eq!(first, again);
        phone
            .is_refused("resolveCashOut", paid, Code::Refused, "has ended: it is completed")
            .await;
        let methods = orders(rig).len();
        assert_eq!(methods, 3, "two that acted, and one that could not");
    });
}

#[test]
fn lists_have_limits_and_what_is_not_there_is_not_found() {
    run(plan(), async |rig| {
        listening(rig).await;
        for _ in 0..3 {
            rig.serve("left").await;
        }
        let mut phone = Phone::new(rig, CASH).await;
        let page = phone.asks("listCashOuts", json!({"limit": 2})).await.expect("two");
        let ids = |page: &Value| -> Vec<String> {
            let list = page["cashouts"].as_array().expect("a list");
            list.iter()
                .map(|one| one["id"].as_str().expect("id").to_owned())
                .collect()
        };
        let newest = ids(&page);
        assert_eq!(newest.len(), 2);
        let rest = json!({"before": newest[1], "atm": "left"});
        let oldest = ids(&phone.asks("listCashOuts", rest).await.expect("one"));
        assert_eq!(oldest.len(), 1);
        assert!(!newest.contains(&oldest[0]) && newest[0] > newest[1] && newest[1] > oldest[0]);
        for (method, input, code, words) in [
            ("listCashOuts", json!({"limit": 0}), Code::BadRequest, "limit"),
            ("listCashOuts", json!({"limit": 501}), Code::BadRequest, "limit"),
            ("listCashOuts", json!({"page": 2}), Code::BadRequest, "page"),
            (
                "getAtm",
                json!({"atm": "nowhere"}),
                Code::NotFound,
                "no ATM is called nowhere",
            ),
            (
                "drainAtm",
                json!({"atm": "nowhere"}),
                Code::NotFound,
                "no ATM is called nowhere",
            ),
            ("getAtm", json!({}), Code::BadRequest, "atm is missing"),
            (
                "getCashOut",
                json!({"cashout": "00000000000000FF"}),
                Code::NotFound,
                "no cash-out",
            ),
            (
                "loadAtm",
                json!({"atm": "left", "cassettes": []}),
                Code::BadRequest,
                "at least one expected",
            ),
            ("loadAtm", load(100_000), Code::Refused, "holds at most"),
            ("sellAtm", json!({}), Code::UnknownMethod, "sellAtm"),
        ] {
            phone.is_refused(method, input, code, words).await;
        }
        let twice = json!({"atm": "left", "cassettes": [
            {"position": 1, "denomination_minor": 2000, "notes": 1},
            {"position": 1, "denomination_minor": 2000, "notes": 2},
        ]});
        phone
            .is_refused("loadAtm", twice, Code::BadRequest, "cassettes[1].position")
            .await;
    });
}

#[test]
fn an_order_that_is_asked_for_again_acts_once_and_a_replayed_event_not_at_all() {
    run(plan(), async |rig| {
        listening(rig).await;
        rig.ready("left").await;
        let mut phone = Phone::new(rig, CASH).await;
        let first = phone.asks_as("load-1", "loadAtm", load(50)).await.expect("loaded");
        // A customer comes between the order and its repetition: the notes delivered must not be counted in again.
        rig.serve("left").await;
        let again = phone
            .asks_as("load-1", "loadAtm", load(50))
            .await
            .expect("the same answer");
        assert_eq!(first, again);
        rig.fleet.make_panic(ChildId::Nostr).await;
        let restarts = "tellerd_actor_restarts_total{actor=\"nostr\"}";
        until("its death", async || rig.metric(restarts).await >= 1.0).await;
        let again = phone.insists("load-1", "loadAtm", load(50)).await.expect("still");
        assert_eq!(first, again);
        let now = phone.asks("getAtm", json!({"atm": "left"})).await.expect("the machine");
        assert!(now["atm"]["cassettes"][0]["remaining"].as_u64() < Some(50), "{now}");
        assert_eq!(orders(rig).len(), 1);
        // The same words of another key are another order, and so is another name of the same key.
        let mut boss = Phone::new(rig, OPERATOR).await;
        boss.asks_as("load-1", "loadAtm", load(50)).await.expect("loaded");
        assert_eq!(orders(rig).len(), 2);
        phone.asks_as("load-2", "loadAtm", load(50)).await.expect("loaded");
        assert_eq!(orders(rig).len(), 3);

        // Both at once: one effect, two answers.
        let left = json!({"atm": "left"});
        for _ in 0..2 {
            let event = phone.event("drainAtm", &left, "drain");
            phone.publish(&event).await;
        }
        let answers = [phone.hears().await, phone.hears().await];
        assert_eq!(answers[0], answers[1]);
        assert_eq!(answers[0].0, "drain");
        let drains = |rig: &Rig| events(rig).iter().filter(|event| event.name() == "drained").count();
        assert_eq!(drains(rig), 1);

        // What a relay has recorded and plays again, after the machine was resumed.
        let recorded = phone.event("drainAtm", &left, "recorded");
        phone.publish(&recorded).await;
        phone.hears().await.1.into_ok();
        phone.asks("resumeAtm", left.clone()).await.expect("resumed");
        rig.ready("left").await;
        // The replay comes over a connection that has not seen it; the answer to what comes after it shows that it
        // was looked at.
        let mut thief = Phone::new(rig, STRANGER).await;
        thief.publish(&recorded).await;
        thief
            .is_refused("listAtms", json!({}), Code::NotAllowed, "not an operator")
            .await;
        phone.asks("getAtm", left).await.expect("the machine");
        assert_eq!(drains(rig), 2);
        rig.serve("left").await;
    });
}

/// Unwraps an outcome.
trait IntoOk {
    fn into_ok(self);
}

impl IntoOk for Outcome {
    fn into_ok(self) {
        assert!(matches!(self, Self::Ok(_)), "{self:?}");
    }
}

#[test]
fn an_order_that_can_not_be_written_down_does_nothing() {
    let plan = Plan {
        supervision: "max_restarts = 0\nwithin = '1h'",
        ..plan()
    };
    run(plan, async |rig| {
        listening(rig).await;
        rig.ready("left").await;
        let mut phone = Phone::new(rig, CASH).await;
        let left = json!({"atm": "left"});
        let full = "\"item\":\"order\"";
        rig.disk.fill(full);
        for (method, input) in [("drainAtm", left.clone()), ("loadAtm", load(7))] {
            phone
                .is_refused(method, input, Code::Unavailable, "No space left")
                .await;
        }
        let before = events(rig);
        assert!(!before.iter().any(|event| event.name() == "drained"), "{before:?}");
        rig.ready("left").await;

        // Restarts are not forgiven either.
        until("the machine's actor to stay down", async || {
            rig.fleet.make_panic(ChildId::Atm(id("left"))).await;
            rig.state("left").await.0 == AtmState::OutOfService
        })
        .await;
        let (_, why) = rig.state("left").await;
        phone
            .is_refused("resumeAtm", left.clone(), Code::Unavailable, "No space left")
            .await;
        assert_eq!(rig.state("left").await, (AtmState::OutOfService, why));
        assert_eq!((events(rig), orders(rig).len()), (before, 0));

        rig.disk.free();
        // The same name: an order that did nothing is not remembered.
        let ids = phone.asked;
        let again = phone.asks_as(&format!("r-{ids}"), "resumeAtm", left).await;
        again.expect("resumed");
        rig.serve("left").await;
        assert_eq!(orders(rig).len(), 1);
    });
}
