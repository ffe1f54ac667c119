//! One client's connection: frames pass from it to the relay and back, and some are changed on the way.
//!
//! Started by [`super::serve`]. Must stay true: what is not touched by a fault passes as it is and in order; what waits
//! is bounded.

use std::collections::{BTreeSet, HashSet};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::FuturesUnordered;
use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::io::DuplexStream;
use tokio::net::TcpStream;
use tokio::sync::broadcast;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::faults::{Dice, Timers, at};
use super::serve::{Order, Shared};
use super::{RelayCounts, RelayFaults};

/// Between proxy and relay.
const BUFFER: usize = 256 * 1024;
/// Events that wait on one connection; more are sent at once.
const WAITING: usize = 4_096;
/// Of one connection.
const EPHEMERAL: usize = 4_096;

type Later = Pin<Box<dyn Future<Output = String> + Send>>;

/// One connection.
pub(super) struct Session {
    shared: Arc<Shared>,
    dice: Dice,
    faults: RelayFaults,
    client: WebSocketStream<TcpStream>,
    relay: WebSocketStream<DuplexStream>,
    /// Ids of its open subscriptions.
    open: BTreeSet<String>,
    /// Ids of ephemeral events that are not answered yet.
    ephemeral: HashSet<String>,
    later: FuturesUnordered<Later>,
}

impl Session {
    /// Serves a client to its end.
    pub async fn run(shared: Arc<Shared>, number: u64, stream: TcpStream, from: SocketAddr) {
        // Small messages leave at once; without it they only leave late.
        _ = stream.set_nodelay(true);
        let client = match tokio_tungstenite::accept_async(stream).await {
            Ok(client) => client,
            Err(error) => return tracing::debug!(%error, "emulated relay: no websocket"),
        };
        let (ours, theirs) = tokio::io::duplex(BUFFER);
        let relay = shared.relay.clone();
        let session = Self {
            dice: Dice::new(shared.seed, number),
            faults: RelayFaults::default(),
            client,
            relay: WebSocketStream::from_raw_socket(ours, Role::Client, None).await,
            open: BTreeSet::new(),
            ephemeral: HashSet::new(),
            later: FuturesUnordered::new(),
            shared,
        };
        tokio::select! {
            ended = session.pass() => if let Err(error) = ended {
                tracing::debug!(%error, "emulated relay: connection lost");
            },
            // It ends a connection on which it understands nothing.
            _ = relay.take_connection(theirs, from) => {}
        }
    }

    async fn pass(mut self) -> Result<(), Error> {
        let mut faults = self.shared.faults.subscribe();
        let mut orders = self.shared.orders.subscribe();
        self.faults = *faults.borrow_and_update();
        let mut timers = Timers::draw(&mut self.dice, &self.faults);
        loop {
            tokio::select! {
                message = self.client.next() => match message.transpose()? {
                    Some(Message::Text(text)) => self.client_said(&text).await?,
                    Some(Message::Close(_)) | None => return Ok(()),
                    Some(_) => {}
                },
                message = self.relay.next() => match message.transpose()? {
                    Some(Message::Text(text)) => self.relay_said(&text).await?,
                    Some(Message::Close(_)) | None => return Ok(()),
                    Some(_) => {}
                },
                Some(text) = self.later.next(), if !self.later.is_empty() => self.deliver(text).await?,
                order = orders.recv() => match order {
                    Ok(Order::Cut) => break self.cut(),
                    Ok(Order::Close(words)) => self.close(&words).await?,
                    Ok(Order::Notice(words)) => self.notice(&words).await?,
                    Ok(Order::Say(text)) => self.say(text).await?,
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return Ok(()),
                },
                _ = faults.changed() => {
                    self.faults = *faults.borrow_and_update();
                    timers = Timers::draw(&mut self.dice, &self.faults);
                }
                () = at(timers.cut) => break self.cut(),
                () = at(timers.close) => {
                    timers.close = self.dice.next(self.faults.close_every);
                    self.close("error: closed for no reason").await?;
                }
                () = at(timers.notice) => {
                    timers.notice = self.dice.next(self.faults.notice_every);
                    self.notice("this relay has something to say").await?;
                }
            }
        }
        Ok(())
    }

    async fn say(&mut self, text: String) -> Result<(), Error> {
        self.client.send(Message::Text(text.into())).await?;
        self.count(|counts| counts.said += 1);
        Ok(())
    }

    /// Without a closing frame.
    fn cut(&self) {
        self.count(|counts| counts.cut += 1);
    }

    async fn client_said(&mut self, text: &str) -> Result<(), Error> {
        let value: Value = serde_json::from_str(text).unwrap_or_default();
        let passes = match value[0].as_str() {
            Some("EVENT") => self.published(&value[1]).await?,
            Some("REQ") => self.requested(&value[1]).await?,
            Some("CLOSE") => {
                self.open.remove(value[1].as_str().unwrap_or_default());
                true
            }
            _ => true,
        };
        if passes {
            self.relay.send(Message::Text(text.into())).await?;
        }
        Ok(())
    }

    /// A client published an event; says whether it goes on to the relay.
    async fn published(&mut self, event: &Value) -> Result<bool, Error> {
        self.count(|counts| counts.published += 1);
        let id = event["id"].as_str().unwrap_or_default();
        let is_ephemeral = event["kind"]
            .as_u64()
            .is_some_and(|kind| (20_000..30_000).contains(&kind));
        let limited = self.dice.happens(self.faults.rate_limit);
        let dropped = self.dice.happens(self.faults.drop);
        if limited {
            self.count(|counts| counts.rate_limited += 1);
            self.tell(&json!(["OK", id, false, "rate-limited: slow down"])).await?;
        } else if dropped {
            self.count(|counts| counts.dropped += 1);
            if !(is_ephemeral && self.faults.no_ok) {
                self.tell(&json!(["OK", id, true, ""])).await?;
            }
        } else if is_ephemeral && self.ephemeral.len() < EPHEMERAL {
            self.ephemeral.insert(id.to_owned());
        }
        Ok(!limited && !dropped)
    }

    /// A client asks for a subscription; says whether the relay hears of it.
    async fn requested(&mut self, id: &Value) -> Result<bool, Error> {
        self.count(|counts| counts.requests += 1);
        if self.dice.happens(self.faults.refuse_subscription) {
            self.count(|counts| counts.closed += 1);
            self.tell(&json!(["CLOSED", id, "error: not today"])).await?;
            return Ok(false);
        }
        self.open.insert(id.as_str().unwrap_or_default().to_owned());
        Ok(true)
    }

    async fn relay_said(&mut self, text: &str) -> Result<(), Error> {
        let value: Value = serde_json::from_str(text).unwrap_or_default();
        match value[0].as_str() {
            Some("EVENT") => return self.event(text).await,
            Some("OK") => {
                let was_ephemeral = self.ephemeral.remove(value[1].as_str().unwrap_or_default());
                let lost = self.dice.happens(self.faults.lose_ok);
                if lost || (was_ephemeral && self.faults.no_ok && value[2] == json!(true)) {
                    self.count(|counts| counts.oks_lost += 1);
                    return Ok(());
                }
            }
            Some("CLOSED") => _ = self.open.remove(value[1].as_str().unwrap_or_default()),
            _ => {}
        }
        self.client.send(Message::Text(text.into())).await
    }

    /// The relay has an event for the client.
    async fn event(&mut self, text: &str) -> Result<(), Error> {
        let delayed = self.dice.happens(self.faults.delay);
        let duplicated = self.dice.happens(self.faults.duplicate);
        let (wait, again) = (
            self.dice.up_to(self.faults.delay_max),
            self.dice.up_to(self.faults.delay_max),
        );
        if duplicated {
            self.count(|counts| counts.duplicated += 1);
            self.deliver(text.to_owned()).await?;
            self.later(text, again);
        }
        if delayed && self.later.len() < WAITING {
            self.count(|counts| counts.delayed += 1);
            self.later(text, wait);
            return Ok(());
        }
        self.deliver(text.to_owned()).await
    }

    fn later(&self, text: &str, wait: Duration) {
        if self.later.len() < WAITING {
            let text = text.to_owned();
            self.later.push(Box::pin(async move {
                tokio::time::sleep(wait).await;
                text
            }));
        }
    }

    async fn deliver(&mut self, text: String) -> Result<(), Error> {
        self.count(|counts| counts.delivered += 1);
        self.client.send(Message::Text(text.into())).await
    }

    /// Closes all subscriptions of this client, here and at the relay.
    async fn close(&mut self, words: &str) -> Result<(), Error> {
        for id in std::mem::take(&mut self.open) {
            self.count(|counts| counts.closed += 1);
            let close = json!(["CLOSE", id]).to_string();
            self.relay.send(Message::Text(close.into())).await?;
            self.tell(&json!(["CLOSED", id, words])).await?;
        }
        Ok(())
    }

    async fn notice(&mut self, words: &str) -> Result<(), Error> {
        self.count(|counts| counts.notices += 1);
        self.tell(&json!(["NOTICE", words])).await
    }

    async fn tell(&mut self, message: &Value) -> Result<(), Error> {
        self.client.send(Message::Text(message.to_string().into())).await
    }

    fn count(&self, change: impl FnOnce(&mut RelayCounts)) {
        self.shared.count(change);
    }
}
