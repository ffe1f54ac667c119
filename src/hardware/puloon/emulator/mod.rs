//! An emulated LCDM-4000: the device's side of the line, for tests, the simulation and other host programs.
//!
//! Called by `tellerd emulate dispenser`, the simulation and the conformance tests. Must stay true: it is
//! written from the fact sheet, not from the driver, and its ledger is what physically happened,
//! whatever the host is told. Source: puloon-lcdm.md, sections B and C. Described in docs/EMULATOR.md.

pub mod ledger;
mod machine;
pub mod script;
mod serve;
mod wire;

use std::collections::HashMap;
use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;

pub use self::ledger::{Event, What, Witness};
pub use self::machine::CassetteTotals;
pub use self::script::{Fault, PlannedFault, ScriptError, Setup, Target};
use super::driver::Variant;

/// Why [`Emulator::serve`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// The other end is closed.
    HostLeft,
    /// A planned fault cut the line: drop the port, and serve a new one.
    Cut,
}

#[derive(Debug)]
struct State {
    machine: machine::Machine,
    faults: Vec<PlannedFault>,
    counts: HashMap<u8, u64>,
}

/// The machine. It outlives its line: serve a new port after the old one is gone.
#[derive(Debug, Clone)]
pub struct Emulator {
    serial_variant: bool,
    setup: Arc<Setup>,
    state: Arc<Mutex<State>>,
    /// It stands still at this command.
    still: watch::Sender<Option<Target>>,
}

/// Access to a running emulator.
#[derive(Debug, Clone)]
pub struct EmulatorHandle {
    emulator: Emulator,
}

impl Emulator {
    /// Switches a machine on.
    ///
    /// # Errors
    /// When the ledger's file can not be opened.
    pub fn new(variant: Variant, setup: Setup) -> io::Result<Self> {
        Self::witnessed(variant, setup, Witness::default())
    }

    /// As [`Emulator::new`], on a clock and with a witness of a simulation's own.
    ///
    /// # Errors
    /// As [`Emulator::new`]'s.
    pub fn witnessed(variant: Variant, setup: Setup, witness: Witness) -> io::Result<Self> {
        let serial_variant = variant == Variant::Serial;
        let state = State {
            machine: machine::Machine::new(serial_variant, &setup, witness)?,
            faults: setup.faults.clone(),
            counts: HashMap::new(),
        };
        Ok(Self {
            serial_variant,
            setup: Arc::new(setup),
            state: Arc::new(Mutex::new(state)),
            still: watch::Sender::new(None),
        })
    }

    /// To look inside and to interfere.
    #[must_use]
    pub fn handle(&self) -> EmulatorHandle {
        EmulatorHandle { emulator: self.clone() }
    }

    /// Answers the host on `port` until one of the two ends it. One call at a time.
    ///
    /// # Errors
    /// When the port or the ledger's file fails.
    pub async fn serve<P: AsyncRead + AsyncWrite + Unpin>(&self, port: P) -> io::Result<End> {
        serve::Line::new(self, port).serve().await
    }

    /// Returns once nobody holds it at `command`.
    async fn free(&self, command: u8) {
        let free = |held: &Option<Target>| held.is_none_or(|at| at.code() != command);
        // It has a sender as long as this is there.
        let _ = self.still.subscribe().wait_for(free).await;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn machine(&self) -> MachineGuard<'_> {
        MachineGuard(self.state())
    }
}

struct MachineGuard<'a>(MutexGuard<'a, State>);

impl Deref for MachineGuard<'_> {
    type Target = machine::Machine;

    fn deref(&self) -> &machine::Machine {
        &self.0.machine
    }
}

impl DerefMut for MachineGuard<'_> {
    fn deref_mut(&mut self) -> &mut machine::Machine {
        &mut self.0.machine
    }
}

impl EmulatorHandle {
    /// Looks at what happened since the start. The machine stands still meanwhile.
    pub fn read<T>(&self, look: impl FnOnce(&[Event]) -> T) -> T {
        look(self.emulator.machine().ledger.events())
    }

    /// What happened since the start.
    #[must_use]
    pub fn events(&self) -> Vec<Event> {
        self.emulator.machine().ledger.events().to_vec()
    }

    /// Where the notes of positions 1 to 4 are.
    #[must_use]
    pub fn totals(&self) -> [CassetteTotals; 4] {
        self.emulator.machine().totals()
    }

    /// Notes in the cassette at `position`; zero when there is none.
    #[must_use]
    pub fn remaining(&self, position: u8) -> u32 {
        let totals = self.totals();
        totals
            .iter()
            .find(|t| t.position == position)
            .map_or(0, |t| t.remaining)
    }

    /// Plans a fault.
    pub fn inject(&self, fault: PlannedFault) {
        self.emulator.state().faults.push(fault);
    }

    /// Lets the device stand still at commands of this kind: it acknowledges one, and neither acts nor answers until
    /// it is let go, which `None` does.
    pub fn hold_at(&self, command: Option<Target>) {
        self.emulator.still.send_replace(command);
    }

    /// Puts a cassette back with `notes` more notes.
    ///
    /// # Errors
    /// When there is no such position, or the ledger's file fails.
    pub fn refill(&self, position: u8, notes: u32) -> io::Result<()> {
        self.emulator.machine().refill(position, notes)
    }

    /// Someone opens the machine and clears the path: stuck notes go to the reject tray,
    /// a note at the exit counts as delivered.
    ///
    /// # Errors
    /// When the ledger's file fails.
    pub fn clear_jam(&self) -> io::Result<()> {
        self.emulator.machine().clear_jam()
    }
}
