//! The machines of a simulated history: the real emulators on lines in memory, the daemon's bytes passing the gate.
//!
//! Faults ([`Kind::Device`]): those of `sim/fleet/fault.rs`, drawn for each dispense, and some for queries: a line that is cut, a
//! reply that does not come. [`Kind::Panic`]: the driver panics right after bytes have left. What must stay true: a machine goes on
//! when the daemon dies; what was written to it before stays written; each event of its ledger is told to the rules when it happens.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::gate::Gate;
use super::plan::{Kind, Plan};
use super::scene::Scene;
use crate::hardware::memory::{Socket, line, serve};
use crate::hardware::port::{Connect, Port};
use crate::hardware::puloon::driver::Variant;
use crate::hardware::puloon::emulator::{Emulator, EmulatorHandle, Event, Fault, Setup, Target, Witness};
use crate::ids::AtmId;
use crate::sim::audit::Machine;
use crate::sim::fleet::fault::FAULTS;
use crate::sim::fleet::setup::DENOMINATIONS;

/// One machine.
pub struct Stand {
    /// Its name.
    pub atm: AtmId,
    /// To look inside.
    pub inside: EmulatorHandle,
    connect: Connect,
    /// Someone had it open, and nobody has told since what is in it.
    pub uncounted: AtomicBool,
}

impl Stand {
    /// Machine `index`, and what serves its line.
    ///
    /// # Errors
    /// Never: it has no file.
    pub fn new(scene: &Arc<Scene>, index: usize, atm: AtmId) -> io::Result<(Self, impl Future<Output = ()> + use<>)> {
        let notes = i64::from(scene.plan.notes);
        let setup = Setup {
            cassettes: [notes, notes, -1, -1],
            note_ms: 80,
            purge_ms: 400,
            ..Setup::default()
        };
        let variant = if index.is_multiple_of(2) {
            Variant::Standard
        } else {
            Variant::Serial
        };
        let emulator = Emulator::witnessed(variant, setup, witness(scene, &atm))?;
        let (connect, socket) = line();
        let inside = emulator.handle();
        let stand = Self {
            atm,
            inside,
            connect,
            uncounted: AtomicBool::new(false),
        };
        Ok((stand, work(emulator, socket)))
    }

    /// For the audit.
    #[must_use]
    pub fn machine(&self) -> Machine {
        Machine {
            atm: self.atm.clone(),
            denominations: DENOMINATIONS,
            events: self.inside.events(),
            totals: self.inside.totals(),
        }
    }

    /// The line as the daemon behind `gate` has it.
    #[must_use]
    pub fn line(&self, gate: &Gate) -> Connect {
        let (connect, gate) = (Arc::clone(&self.connect), gate.clone());
        Arc::new(move || {
            let port = connect()?;
            let gate = gate.clone();
            Ok(Box::new(Gated { port, gate }))
        })
    }

    /// Draws what befalls the next dispense, and perhaps a query.
    pub fn plan_fault(&self, scene: &Scene) {
        if scene.strikes(Kind::Device, scene.plan.device_per_mille) {
            let (kind, dice) = scene.draw("device", |chance| (chance.pick(&FAULTS).copied(), chance.dice()));
            if let Some((_, kind)) = kind {
                let fault = match kind.fault(dice, 3) {
                    // Also one that is lost on its way back.
                    Fault::NoAck { .. } => Fault::NoAck {
                        carried_out: dice.is_multiple_of(2),
                    },
                    fault => fault,
                };
                self.inside.inject(fault.next());
            }
        }
        if scene.strikes(Kind::Device, scene.plan.device_per_mille / 4) {
            let fault = scene.draw("device", |chance| {
                let fault = match chance.within(0, 4) {
                    0 => Fault::AckThenSilent { carried_out: true },
                    1 => Fault::NoAck { carried_out: false },
                    2 => Fault::CutReply { after_bytes: 2 },
                    3 => Fault::BadChecksum { times: 1 },
                    _ => Fault::Late { ms: 4000 },
                };
                let target = [Target::Status, Target::LastStatus, Target::Purge, Target::LastSerial];
                let command = chance.pick(&target).copied().unwrap_or_default();
                crate::hardware::puloon::emulator::PlannedFault {
                    command,
                    nth: None,
                    fault,
                }
            });
            self.inside.inject(fault);
        }
    }
}

fn witness(scene: &Arc<Scene>, atm: &AtmId) -> Witness {
    let (of, atm) = (Arc::clone(scene), atm.clone());
    let on_event = move |event: &Event| {
        of.step("machine", || format!("{atm}: {:?}", event.what));
        let now = of.now();
        of.look(|side| of.books(|books| books.machine(&atm, &event.what, now, side)));
    };
    Witness {
        clock: Arc::clone(&scene.clock) as _,
        on_event: Arc::new(on_event),
    }
}

async fn work(emulator: Emulator, socket: Socket) {
    // Its ledger has no file that could fail.
    _ = serve(&emulator, socket).await;
}

/// The daemon's end of a line.
struct Gated {
    port: Box<dyn Port>,
    gate: Gate,
}

impl AsyncRead for Gated {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.port).poll_read(cx, buf)
    }
}

impl AsyncWrite for Gated {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if !self.gate.at("before bytes to a machine") {
            return Poll::Pending;
        }
        let written = Pin::new(&mut self.port).poll_write(cx, bytes);
        // They have left, whatever becomes of the daemon.
        if self.gate.driver_panics() {
            std::panic::resume_unwind(Box::new("a panic was ordered"));
        }
        match self.gate.at("after bytes to a machine") {
            true => written,
            false => Poll::Pending,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.port).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.port).poll_shutdown(cx)
    }
}

/// The names of all machines.
#[must_use]
pub fn names(plan: &Plan) -> Vec<AtmId> {
    (0..plan.atms)
        .filter_map(|index| Plan::atm(index).parse().ok())
        .collect()
}
