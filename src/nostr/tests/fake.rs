//! A service and the network before it, in memory.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use ::nostr::{Event, EventId, Keys, PublicKey};
use async_trait::async_trait;
use tokio::time::{Instant, sleep};

use super::ledger::Ledger;
use crate::ids::PaymentHash;
use crate::nostr::caller::{Caller, CallerTimings};
use crate::nostr::method::{Asked, Method};
use crate::nostr::outbox::Outbox;
use crate::nostr::wire::{Endpoint, Incoming, Limits, Outcome, Reply, Role, Sight, Signed, Version};
use crate::time::{Clock, UnixMs};

/// A clock that goes with tokio's, which tests pause, and may be wrong.
pub struct TestClock {
    begun: Instant,
    pub ahead_ms: AtomicI64,
}

impl Clock for TestClock {
    fn now(&self) -> UnixMs {
        let gone = UnixMs(1_800_000_000_000).plus(self.begun.elapsed());
        UnixMs(gone.0.saturating_add_signed(self.ahead_ms.load(Ordering::SeqCst)))
    }
}

/// What happens to the next request, or to its reply.
#[derive(Debug, Clone)]
pub enum Fault {
    /// Nothing.
    None,
    /// No relay takes it.
    Refused,
    /// It never arrives.
    LoseRequest,
    /// It is done, and nobody hears of it.
    LoseReply,
    /// The reply's events come in reverse order, and all of them twice.
    Twice,
    /// The reply comes so much later.
    Slow(Duration),
    /// The reply is this text instead; `ID` in it stands for the requestId.
    Says(&'static str),
    /// The reply names another request.
    WrongId,
    /// The reply's event is kept for the test.
    Keep,
    /// The reply comes, and the relay never says whether it took the request.
    Hang,
    /// The same, and nothing comes.
    HangAndLose,
}

pub struct World {
    pub ledger: Ledger,
    pub faults: VecDeque<Fault>,
    /// The methods that were asked for, in order, whatever became of them.
    pub asked: Vec<Method>,
    pub requests: Vec<Event>,
    pub kept: Vec<Event>,
    endpoint: Endpoint,
    seen: BTreeSet<EventId>,
}

pub struct Fake {
    world: Mutex<World>,
    pub clock: Arc<TestClock>,
    /// The service's clock is so much ahead.
    pub service_ahead_ms: AtomicI64,
    client: PublicKey,
    caller: OnceLock<Caller>,
    version: Version,
}

impl Fake {
    /// A service, and its client.
    pub fn start(version: Version) -> (Arc<Self>, Caller) {
        Self::start_with(version, Limits::default(), CallerTimings::default())
    }

    pub fn start_with(version: Version, limits: Limits, timings: CallerTimings) -> (Arc<Self>, Caller) {
        let (keys, client) = (Keys::generate(), Keys::generate());
        let clock = Arc::new(TestClock {
            begun: Instant::now(),
            ahead_ms: AtomicI64::new(0),
        });
        let fake = Arc::new(Self {
            world: Mutex::new(World {
                ledger: Ledger::new(),
                faults: VecDeque::new(),
                asked: Vec::new(),
                requests: Vec::new(),
                kept: Vec::new(),
                endpoint: Endpoint::new(keys.clone(), Role::Service, limits),
                seen: BTreeSet::new(),
            }),
            clock: Arc::clone(&clock),
            service_ahead_ms: AtomicI64::new(0),
            client: client.public_key(),
            caller: OnceLock::new(),
            version,
        });
        let outbox = Arc::clone(&fake) as Arc<dyn Outbox>;
        let caller = Caller::new(client, keys.public_key(), version, clock, outbox, timings);
        fake.caller.set(caller.clone()).expect("once");
        (fake, caller)
    }

    pub fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().expect("lock")
    }

    pub fn faults(&self, faults: impl IntoIterator<Item = Fault>) {
        self.world().faults.extend(faults);
    }

    pub fn caller(&self) -> &Caller {
        self.caller.get().expect("started")
    }

    fn service_now(&self) -> UnixMs {
        let ahead = self.service_ahead_ms.load(Ordering::SeqCst);
        UnixMs(self.clock.now().0.saturating_add_signed(ahead))
    }

    /// Events of the service that carry `text`.
    pub fn seal(&self, text: &str) -> Vec<Event> {
        let now = self.service_now();
        self.world()
            .endpoint
            .seal(self.client, self.version, text, now)
            .expect("seal")
    }

    /// A push of where the invoice stands.
    pub fn push(&self, hash: PaymentHash) -> Event {
        let invoice = self.world().ledger.get(hash).expect("known");
        let reply = Reply {
            request_id: Some(Method::SubscribeHoldInvoices.name().into()),
            outcome: Outcome::success(&invoice).expect("no reserved name"),
        };
        self.seal(&reply.encode()).remove(0)
    }

    /// Which of these methods were asked for since the last time.
    pub fn take_asked(&self) -> Vec<Method> {
        std::mem::take(&mut self.world().asked)
    }

    /// What the service makes of an event: the id and the text of its reply.
    fn receive(&self, event: Event) -> Option<(String, String)> {
        let now = self.service_now();
        let mut world = self.world();
        let signed = Signed::from_event(event.clone(), &world.endpoint.party()).ok()?;
        world.requests.push(event);
        let opened = world.endpoint.open(&signed, true, now).ok()?;
        assert_eq!(opened.origin().version, self.version);
        let sight = match world.seen.insert(signed.id()) {
            true => Sight::First,
            false => Sight::Again,
        };
        let Ok(Incoming::Request {
            request_id, request, ..
        }) = world.endpoint.admit(opened, sight, now)
        else {
            return None;
        };
        let Ok(Asked::One(call)) = Asked::read(&request.expect("readable")) else {
            panic!("no call");
        };
        world.asked.push(call.method());
        let outcome = world.ledger.answer(&call, now).unwrap_or_else(Outcome::Error);
        let id = request_id.expect("requestId");
        let reply = Reply {
            request_id: Some(id.clone()),
            outcome,
        };
        Some((id, reply.encode()))
    }

    fn deliver(&self, events: impl IntoIterator<Item = Event>) {
        for event in events {
            // What is wrong with it is some tests' matter.
            let _ = self.caller().incoming(event);
        }
    }

    fn reply(&self, fault: Fault, id: &str, text: String) {
        match fault {
            Fault::LoseReply => {}
            Fault::Twice => {
                let events: Vec<Event> = self.seal(&text).into_iter().rev().collect();
                self.deliver(events.iter().chain(&events).cloned());
                self.deliver(self.seal(&text));
            }
            Fault::Says(other) => self.deliver(self.seal(&other.replace("ID", id))),
            Fault::WrongId => self.deliver(self.seal(&text.replace(id, "somebody else's"))),
            Fault::Keep => {
                let events = self.seal(&text);
                self.world().kept.extend(events);
            }
            _ => self.deliver(self.seal(&text)),
        }
    }
}

#[async_trait]
impl Outbox for Fake {
    async fn publish(&self, event: Event, until: UnixMs) -> Result<(), String> {
        assert!(until > self.clock.now(), "worth something");
        let fault = self.world().faults.pop_front().unwrap_or(Fault::None);
        match fault {
            Fault::Refused => return Err("no relay is connected".into()),
            Fault::LoseRequest => return Ok(()),
            Fault::HangAndLose => std::future::pending().await,
            _ => {}
        }
        let Some((id, text)) = self.receive(event) else {
            return Ok(());
        };
        if let Fault::Slow(by) = fault {
            // A reply that comes while another request is out.
            let (caller, events) = (self.caller().clone(), self.seal(&text));
            tokio::spawn(async move {
                sleep(by).await;
                events.into_iter().for_each(|event| _ = caller.incoming(event));
            });
            return Ok(());
        }
        let hangs = matches!(fault, Fault::Hang);
        self.reply(fault, &id, text);
        if hangs {
            std::future::pending::<()>().await;
        }
        Ok(())
    }
}
