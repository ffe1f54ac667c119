//! The emulated machines, each behind its line: on a pseudo-terminal, or in memory.
//!
//! Called by the runner (are so many possible?) and the stage. What must stay true: every line is there before a daemon looks for
//! it; a machine in memory needs no file, so that there can be more of them than a process may have open.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write as _};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::sleep;

use super::place::Place;
use super::scenario::Scenario;
use super::setup::{self, DENOMINATIONS};
use super::world::Stand;
use super::{Options, SimulationError, Transport, system};
use crate::hardware::emulate::serve_on_pty;
use crate::hardware::memory;
use crate::hardware::port::Connect;
use crate::hardware::puloon::emulator::{Emulator, EmulatorHandle, Setup};
use crate::ids::AtmId;
use crate::money::Minor;

/// Open files of this process beside the machines'.
const FILES: u64 = 256;
/// Machines in memory: their names are numbered, and nobody has more.
const MOST: usize = 100_000;

/// The machines.
pub struct Started {
    /// Each with its inside, in the order of their names.
    pub machines: Vec<(AtmId, EmulatorHandle)>,
    /// The lines in memory; none on pseudo-terminals.
    pub lines: BTreeMap<AtmId, Connect>,
}

/// Whether this system has what so many machines need.
///
/// # Errors
/// What it has not.
pub fn check_limits(options: &Options) -> Result<(), SimulationError> {
    let atms = options.atms;
    let too_many = |why: String| Err(SimulationError::TooMany { atms, why });
    if atms == 0 {
        return Err(SimulationError::Own("--atms: at least one machine".into()));
    }
    if options.transport == Transport::Memory {
        return match atms {
            ..=MOST => Ok(()),
            _ => too_many(format!("at most {MOST} in memory")),
        };
    }
    let wanted = u64::try_from(atms).unwrap_or(u64::MAX);
    let terminals = std::fs::read_to_string("/proc/sys/kernel/pty/max");
    if let Some(most) = terminals.ok().and_then(|text| text.trim().parse::<u64>().ok())
        && wanted.saturating_add(16) > most
    {
        return too_many(format!(
            "this system has {most} pseudo-terminals (see --transport memory)"
        ));
    }
    let files = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    if let Some(most) = files
        && wanted.saturating_mul(4).saturating_add(FILES) > most
    {
        return too_many(format!(
            "a process may open {most} files here (ulimit -n), 4 for each machine and {FILES} are needed (see --transport memory)"
        ));
    }
    Ok(())
}

/// Switches them on; they are served by `tasks`.
///
/// # Errors
/// When a line or a file can not be had.
pub async fn start(
    transport: Transport,
    place: &Place,
    scenario: &Scenario,
    atms: &[AtmId],
    tasks: &mut JoinSet<String>,
) -> Result<Started, SimulationError> {
    let (mut started, mut lines) = (Vec::new(), BTreeMap::new());
    for atm in atms {
        let setup = Setup {
            ledger: (transport == Transport::Pty).then(|| place.ledger(atm)),
            ..setup_of(scenario)
        };
        let emulator = Emulator::new(setup::variant(atm), setup).map_err(system(format!("the dispenser of {atm}")))?;
        started.push((atm.clone(), emulator.handle()));
        let name = atm.clone();
        let ended = move |how: io::Result<()>| format!("the dispenser of {name} ended: {how:?}");
        match transport {
            Transport::Pty => {
                let line = place.line(atm);
                tasks.spawn(async move { ended(serve_on_pty(&emulator, &line).await) });
            }
            Transport::Memory => {
                let (connect, socket) = memory::line();
                lines.insert(atm.clone(), connect);
                tasks.spawn(async move { ended(memory::serve(&emulator, socket).await) });
            }
        }
    }
    if transport == Transport::Pty {
        wait_for_lines(place, atms, tasks).await?;
    }
    Ok(Started {
        machines: started,
        lines,
    })
}

fn setup_of(scenario: &Scenario) -> Setup {
    let machines = scenario.machines;
    let notes = i64::from(machines.notes);
    Setup {
        cassettes: DENOMINATIONS.map(|value| if value > Minor::ZERO { notes } else { -1 }),
        near_end_notes: machines.low_notes,
        note_ms: u64::try_from(machines.note_time.as_millis()).unwrap_or(u64::MAX),
        purge_ms: 100,
        ..Setup::default()
    }
}

async fn wait_for_lines(place: &Place, atms: &[AtmId], tasks: &mut JoinSet<String>) -> Result<(), SimulationError> {
    for atm in atms {
        let line = place.line(atm);
        while std::fs::symlink_metadata(&line).is_err() {
            if let Some(Ok(ended)) = tasks.try_join_next() {
                return Err(SimulationError::Own(ended));
            }
            sleep(Duration::from_millis(5)).await;
        }
    }
    Ok(())
}

/// Writes down what happened in machines that have no file, for whoever looks into the kept directory.
///
/// # Errors
/// When a file can not be written.
pub fn write_ledgers(place: &Place, stands: &[Stand]) -> Result<(), SimulationError> {
    for stand in stands {
        let path = place.ledger(&stand.atm);
        let written = stand.inside.read(|events| {
            let mut file = BufWriter::new(std::fs::File::create(&path)?);
            for event in events {
                serde_json::to_writer(&mut file, event)?;
                file.write_all(b"\n")?;
            }
            file.flush()
        });
        written.map_err(system(path.display().to_string()))?;
    }
    Ok(())
}
