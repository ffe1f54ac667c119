//! The actor of one dispenser: owns its port and its driver, and runs one command at a time.
//!
//! Called by the ATM's actor. It opens the port, again and again when it has to, and publishes how the device
//! fares as [`Health`]. What must stay true: nothing but what the ATM orders moves notes; a driver whose link is in
//! doubt is thrown away, never asked again.

use std::sync::Arc;
use std::time::Duration;

use actix::{
    Actor, ActorFutureExt, AsyncContext, AtomicResponse, Context, ContextFutureSpawner, Handler, Message, WrapFuture,
};
use tokio::time::Instant;

use super::child::{DownGuard, can_panic};
use super::shared::Seat;
use crate::entropy::SharedEntropy;
use crate::hardware::device::open;
use crate::hardware::{
    ClearedNotes, DeviceError, DeviceStatus, DispenseIntent, DispenseOrder, DispenseReport, Dispenser, Marker, Outcome,
    Recovery,
};
use crate::lnd::backoff::Backoff;

/// How often an idle device is asked how it fares. The first time comes after a random part of it, so that the devices of a
/// fleet that started together are not all asked in the same instant.
const PROBE: Duration = Duration::from_secs(5);

/// How a dispenser fares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// Not reached yet.
    Starting,
    /// An order is being dispensed; the device is asked how it fares when that is over.
    Moving,
    /// It answers.
    Answers(DeviceStatus),
    /// It can not be used: why.
    Trouble(String),
}

/// The actor of one dispenser.
pub struct Hardware {
    seat: Arc<Seat>,
    entropy: SharedEntropy,
    driver: Option<Box<dyn Dispenser>>,
    failures: u32,
    _guard: DownGuard,
}

impl Hardware {
    /// One life of it.
    #[must_use]
    pub fn new(seat: Arc<Seat>, entropy: SharedEntropy, guard: DownGuard) -> Self {
        Self {
            seat,
            entropy,
            driver: None,
            failures: 0,
            _guard: guard,
        }
    }

    /// Opens the port. The mailbox waits meanwhile.
    fn open(&mut self, ctx: &mut Context<Self>) {
        let device = self.seat.device.clone();
        let opened = async move {
            let mut driver = open(&device).await?;
            let status = driver.initialise().await?;
            Ok((driver, status))
        };
        let opened = opened
            .into_actor(self)
            .map(|opened: Result<_, DeviceError>, this, ctx| match opened {
                Ok((driver, status)) => {
                    this.driver = Some(driver);
                    this.failures = 0;
                    this.publish(Health::Answers(status));
                }
                Err(error) => this.give_up(&error.to_string(), ctx),
            });
        opened.wait(ctx);
    }

    /// Throws the driver away and opens the port anew after a while.
    fn give_up(&mut self, why: &str, ctx: &mut Context<Self>) {
        self.driver = None;
        self.publish(Health::Trouble(why.to_owned()));
        let wait = Backoff::CONNECT.delay(self.failures, self.entropy.jitter());
        ctx.run_later(wait, Self::open);
        self.failures = self.failures.saturating_add(1);
    }

    fn publish(&self, health: Health) {
        self.seat.health.send_if_modified(|known| {
            let news = *known != health;
            if news && let Health::Trouble(why) = &health {
                tracing::warn!(atm = %self.seat.config.id, %why, "the dispenser can not be used");
            }
            *known = health;
            news
        });
    }

    /// Takes back a driver after a command.
    fn finish<T>(&mut self, driver: Box<dyn Dispenser>, result: &Result<T, DeviceError>, ctx: &mut Context<Self>) {
        match result {
            Err(error) if breaks_link(error) => self.give_up(&error.to_string(), ctx),
            _ => self.driver = Some(driver),
        }
    }

    fn probe(&mut self, ctx: &mut Context<Self>) {
        let Some(mut driver) = self.driver.take() else { return };
        let asked = async move {
            let status = driver.status().await;
            (driver, status)
        };
        let asked = asked.into_actor(self).map(|(driver, status), this, ctx| {
            this.finish(driver, &status, ctx);
            if let Ok(status) = status {
                this.publish(Health::Answers(status));
            }
        });
        asked.wait(ctx);
    }

    /// Runs one command alone; nothing is asked of a port that is not open.
    fn ask<T: 'static>(
        &mut self,
        command: impl AsyncFnOnce(&mut dyn Dispenser) -> Result<T, DeviceError> + 'static,
    ) -> AtomicResponse<Self, Result<T, DeviceError>> {
        let driver = self.driver.take().ok_or_else(|| self.not_open());
        let work = async move {
            let mut driver = driver?;
            let result = command(&mut *driver).await;
            Ok((driver, result))
        };
        let done = work
            .into_actor(self)
            .map(|done: Result<_, DeviceError>, this: &mut Self, ctx| {
                let (driver, result) = done?;
                this.finish(driver, &result, ctx);
                result
            });
        AtomicResponse::new(Box::pin(done))
    }

    fn not_open(&self) -> DeviceError {
        match &*self.seat.health.borrow() {
            Health::Trouble(why) => DeviceError::LinkLost(why.clone()),
            _ => DeviceError::LinkLost("its port is not open yet".into()),
        }
    }
}

/// After this the answer to a command may still come, so the port has to be opened anew.
fn breaks_link(error: &DeviceError) -> bool {
    match error {
        DeviceError::Open { .. }
        | DeviceError::LinkLost(_)
        | DeviceError::Timeout { .. }
        | DeviceError::Protocol { .. }
        | DeviceError::OutOfSync(_) => true,
        DeviceError::Fault(_) | DeviceError::NotReady(_) | DeviceError::BadOrder(_) => false,
    }
}

impl Actor for Hardware {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        ctx.set_mailbox_capacity(super::MAILBOX);
        self.open(ctx);
        let part = f64::from(self.entropy.jitter()) / f64::from(u32::MAX);
        ctx.run_later(PROBE.mul_f64(part), |this, ctx| {
            this.probe(ctx);
            ctx.run_interval(PROBE, Self::probe);
        });
    }
}

can_panic!(Hardware);

/// Make sure that an order can be dispensed, and read the counters before it.
#[derive(Debug, Message)]
#[rtype(result = "Result<Marker, DeviceError>")]
pub struct Prepare(pub DispenseOrder);

impl Handler<Prepare> for Hardware {
    type Result = AtomicResponse<Self, Result<Marker, DeviceError>>;

    fn handle(&mut self, Prepare(order): Prepare, _: &mut Self::Context) -> Self::Result {
        self.ask(async move |driver| driver.prepare(&order).await)
    }
}

/// Command an order. Once.
#[derive(Debug, Message)]
#[rtype(result = "DispenseReport")]
pub struct Dispense {
    /// The order.
    pub intent: DispenseIntent,
    /// The check before it is too old from then on; the order may have waited behind a slow answer.
    pub until: Instant,
}

impl Handler<Dispense> for Hardware {
    type Result = AtomicResponse<Self, DispenseReport>;

    fn handle(&mut self, Dispense { intent, until }: Dispense, _: &mut Self::Context) -> Self::Result {
        if Instant::now() >= until {
            let report = intent.not_commanded("the dispenser was busy until the check of the hold became too old");
            return AtomicResponse::new(Box::pin(async move { report }.into_actor(self)));
        }
        let driver = self.driver.take();
        if driver.is_some() {
            self.publish(Health::Moving);
        }
        let work = async move {
            let Some(mut driver) = driver else {
                let report = DispenseReport::unknown(&intent.order, "the port was not open when it was commanded");
                return (None, report);
            };
            let report = driver.dispense(&intent).await;
            (Some(driver), report)
        };
        let done = work.into_actor(self).map(|(driver, report), this: &mut Self, ctx| {
            match (driver, &report.outcome) {
                (Some(_), Outcome::Unknown { reason }) => this.give_up(reason, ctx),
                (Some(driver), _) => {
                    this.driver = Some(driver);
                    // A fault shows at once, before the next customer comes.
                    ctx.run_later(Duration::ZERO, Self::probe);
                }
                (None, _) => {}
            }
            report
        });
        AtomicResponse::new(Box::pin(done))
    }
}

/// Find out what became of an order.
#[derive(Debug, Message)]
#[rtype(result = "Result<Recovery, DeviceError>")]
pub struct Recover(pub DispenseIntent);

impl Handler<Recover> for Hardware {
    type Result = AtomicResponse<Self, Result<Recovery, DeviceError>>;

    fn handle(&mut self, Recover(intent): Recover, _: &mut Self::Context) -> Self::Result {
        self.ask(async move |driver| driver.recover(&intent).await)
    }
}

/// Clear the path, and reset a device whose error stays although its path is clear. Only when no outcome is open: it
/// overwrites evidence.
#[derive(Debug, Message)]
#[rtype(result = "Result<Vec<ClearedNotes>, DeviceError>")]
pub struct Clear;

impl Handler<Clear> for Hardware {
    type Result = AtomicResponse<Self, Result<Vec<ClearedNotes>, DeviceError>>;

    fn handle(&mut self, _: Clear, ctx: &mut Self::Context) -> Self::Result {
        // Runs when the command is over: nothing else does before.
        ctx.run_later(Duration::ZERO, Self::probe);
        self.ask(clear)
    }
}

async fn clear(driver: &mut dyn Dispenser) -> Result<Vec<ClearedNotes>, DeviceError> {
    let notes = driver.clear().await?;
    // What went wrong from here on shows in the device's status; the notes have to be booked.
    if let Ok(status) = driver.status().await
        && status.fault.is_some()
        && status.path_clear
        && let Err(error) = driver.reset().await
    {
        tracing::warn!(%error, "the reset after a clearing failed");
    }
    Ok(notes)
}

/// Ask which notes a clearing moved whose answer was lost.
#[derive(Debug, Message)]
#[rtype(result = "Result<Option<Vec<ClearedNotes>>, DeviceError>")]
pub struct Cleared;

impl Handler<Cleared> for Hardware {
    type Result = AtomicResponse<Self, Result<Option<Vec<ClearedNotes>>, DeviceError>>;

    fn handle(&mut self, _: Cleared, _: &mut Self::Context) -> Self::Result {
        self.ask(async move |driver| driver.cleared().await)
    }
}
