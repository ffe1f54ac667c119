//! What the daemon cost in a simulation: idle before the first customer, and busy while they came.
//!
//! Kept by the runner, told in the report. What must stay true: idle is measured only when every machine is in service, and for long
//! enough that each was asked how it fares.

use std::fmt::Write as _;
use std::time::Duration;

use serde::Serialize;
use tokio::time::{Instant, sleep};

use super::SimulationError;
use super::meter::{Cost, Meter, Reading};
use super::world::World;

/// Below so many machines nothing is measured: it would be the daemon itself that is seen, not what each machine costs.
const LEAST: usize = 100;
/// How long it is measured idle: two rounds of asking all devices.
const IDLE: Duration = Duration::from_secs(10);
/// For all machines to come into service.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks whether they have.
const LOOK: Duration = Duration::from_millis(500);

/// The costs so far.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Costs {
    /// From the daemon's first answer to all machines in service, seconds.
    ready_s: Option<f64>,
    /// Before the first customer.
    idle: Option<Cost>,
    /// While customers came.
    busy: Option<Cost>,
    #[serde(skip)]
    meter: Option<Meter>,
    #[serde(skip)]
    busy_since: Option<Reading>,
    #[serde(skip)]
    machines: usize,
}

impl Costs {
    /// Nothing is measured without a meter, or of a small fleet.
    #[must_use]
    pub fn new(meter: Option<Meter>, world: &World) -> Self {
        let machines = world.stands.len();
        Self {
            meter: meter.filter(|_| machines >= LEAST),
            machines,
            ..Self::default()
        }
    }

    /// Waits until all machines are in service, then measures.
    ///
    /// # Errors
    /// When they are not for too long.
    pub async fn idle(&mut self, world: &World) -> Result<(), SimulationError> {
        let (Some(meter), Some(site)) = (&self.meter, world.sites.first()) else {
            return Ok(());
        };
        let begun = Instant::now();
        loop {
            let ready = site.api.ready().await;
            match &ready {
                Ok(ready) if ready.ready && ready.atms_in_service == self.machines => break,
                _ if begun.elapsed() > PATIENCE => {
                    let why = format!("not all machines came into service: {ready:?}");
                    return Err(SimulationError::Own(why));
                }
                _ => sleep(LOOK).await,
            }
        }
        self.ready_s = Some(begun.elapsed().as_secs_f64());
        let begun = meter.read();
        sleep(IDLE).await;
        self.idle = begun.and_then(|begun| meter.since(begun, self.machines));
        Ok(())
    }

    /// The first customer comes.
    pub fn busy_begins(&mut self) {
        self.busy_since = self.meter.as_ref().and_then(Meter::read);
    }

    /// The last customer came.
    pub fn busy_ends(&mut self) {
        if let (Some(meter), Some(begun)) = (&self.meter, self.busy_since) {
            self.busy = meter.since(begun, self.machines);
        }
    }

    /// For people; empty when nothing was measured.
    #[must_use]
    pub fn summary(&self, machines: usize) -> String {
        let mut text = String::new();
        for (when, cost) in [("idle", self.idle), ("busy", self.busy)] {
            let Some(cost) = cost else { continue };
            // Writing to a string does not fail.
            _ = writeln!(
                text,
                "  the daemon, {when}, for each 1,000 of {machines} machines: {:.1} MiB, {:.2} % of a core (in all {:.1} MiB, {:.1} %)",
                cost.memory_kib_per_1000_atms / 1024.0,
                cost.cpu_percent_per_1000_atms,
                cost.memory_kib as f64 / 1024.0,
                cost.cpu_percent,
            );
        }
        text
    }
}
