//! The [`Dispenser`] of the LCDM-4000 and its serial variant.
//!
//! Called by the dispenser actor through the trait, built by [`crate::hardware::device`].
//! Must stay true: a dispense leaves once; limits are checked before anything leaves; recovery asks only queries.
//! Source: puloon-lcdm.md, sections B and C.

use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncWrite};

use super::command::{Command, dispense_data, fault};
use super::evidence::{self, Mark};
use super::link::{Failed, Link};
use super::reply::{self, CASSETTES, LastStatus};
use super::timings::Timings;
use crate::hardware::{
    Capabilities, ClearedNotes, DeviceError, DeviceStatus, DispenseIntent, DispenseOrder, DispenseReport, Dispenser,
    Marker, Outcome, Recovery,
};

/// Most notes in one order unless configured otherwise. The device's own limit is 100 with rejects.
pub const MAX_NOTES: u32 = 40;

/// The dialect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Variant {
    /// 9600 8N1, no serial number, a reset without reply.
    #[default]
    Standard,
    /// 9600 8E1, each dispense has a serial number, a reset with two replies.
    Serial,
}

/// An LCDM-4000 on an open port.
#[derive(Debug)]
pub struct Puloon<P> {
    link: Link<P>,
    variant: Variant,
    max_notes: u32,
    timings: Timings,
}

impl<P: AsyncRead + AsyncWrite + Send + Unpin> Puloon<P> {
    /// A driver on a port that was just opened. `max_notes` is for one order, over all cassettes.
    pub fn new(port: P, variant: Variant, max_notes: u32, timings: Timings) -> Self {
        Self {
            link: Link::new(port, timings),
            variant,
            max_notes,
            timings,
        }
    }

    async fn ask(&mut self, command: Command) -> Result<Vec<u8>, DeviceError> {
        self.link
            .exchange(command, &[])
            .await
            .map_err(|failed| failed.into_error(command))
    }

    async fn last_status(&mut self) -> Result<LastStatus, DeviceError> {
        reply::last_status(&self.ask(Command::LastStatus).await?)
    }

    async fn last_serial(&mut self) -> Result<Option<u8>, DeviceError> {
        match self.variant {
            Variant::Standard => Ok(None),
            Variant::Serial => reply::last_serial(&self.ask(Command::LastSerial).await?).map(Some),
        }
    }

    /// Purges a path on which no note is, so that the last result is about a purge.
    async fn purge_clear_path(&mut self) -> Result<LastStatus, DeviceError> {
        let counts = reply::counts(Command::Purge, &self.ask(Command::Purge).await?)?;
        if counts.error != 0 {
            return Err(DeviceError::Fault(fault(counts.error)));
        }
        if counts.exit.iter().chain(&counts.reject).any(|notes| *notes != 0) {
            return Err(DeviceError::NotReady(format!(
                "notes were on a path that its sensors called clear: {:?} delivered, {:?} rejected",
                counts.exit, counts.reject
            )));
        }
        let last = self.last_status().await?;
        if last.about == Command::Purge.code() {
            Ok(last)
        } else {
            Err(DeviceError::NotReady(format!(
                "its last result is about command 0x{:02X} although a purge came last",
                last.about
            )))
        }
    }

    /// The notes of each cassette, when the order is within limits.
    fn notes(&self, order: &DispenseOrder) -> Result<[u8; CASSETTES], DeviceError> {
        let bad = |why: String| Err(DeviceError::BadOrder(why));
        let mut notes = [0; CASSETTES];
        let mut before = 0;
        for cassette in &order.cassettes {
            let position = cassette.position;
            let Some(slot) = usize::from(position).checked_sub(1).and_then(|i| notes.get_mut(i)) else {
                return bad(format!("it has no cassette {position}"));
            };
            if position <= before {
                return bad(format!("cassette {position} is not after cassette {before}"));
            }
            before = position;
            match u8::try_from(cassette.notes) {
                Ok(count @ 1..=100) => *slot = count,
                _ => return bad(format!("{} notes from cassette {position}", cassette.notes)),
            }
        }
        match order.notes() {
            0 => bad("no notes".into()),
            sum if sum > self.max_notes => bad(format!("{sum} notes, at most {} in one order", self.max_notes)),
            _ => Ok(notes),
        }
    }

    async fn deliver(&mut self, intent: &DispenseIntent, data: &[u8]) -> DispenseReport {
        let order = &intent.order;
        match self.link.exchange(Command::Dispense, data).await {
            Ok(data) => match reply::counts(Command::Dispense, &data) {
                Ok(counts) => evidence::report(order, &counts),
                Err(error) => DispenseReport::unknown(order, error.to_string()),
            },
            Err(Failed::NotSent(error)) => {
                evidence::nothing_moved(order, format!("the command did not leave: {error}"))
            }
            Err(Failed::Refused) => self.refused(intent).await,
            Err(Failed::Lost(error)) => DispenseReport::unknown(order, error.to_string()),
        }
    }

    /// The device answered NAK. That is only believed when its counters say the same.
    async fn refused(&mut self, intent: &DispenseIntent) -> DispenseReport {
        let reason = match self.recover(intent).await {
            Ok(Recovery::Evidence(report)) if matches!(report.outcome, Outcome::NothingMoved { .. }) => return report,
            Ok(Recovery::Evidence(mut report)) => {
                report.outcome = Outcome::Unknown {
                    reason: "the device answered NAK, but its last result changed".into(),
                };
                return report;
            }
            Ok(Recovery::NoEvidence(why)) => why,
            Err(error) => error.to_string(),
        };
        DispenseReport::unknown(&intent.order, format!("the device answered NAK; {reason}"))
    }
}

/// The cassettes of which notes moved.
fn cleared(exit: &[u8; CASSETTES], reject: &[u8; CASSETTES]) -> Vec<ClearedNotes> {
    let notes = (1_u8..).zip(exit.iter().zip(reject));
    let moved = notes.filter(|(_, (exit, reject))| **exit > 0 || **reject > 0);
    let entry = |(position, (exit, reject)): (u8, (&u8, &u8))| ClearedNotes {
        position,
        delivered: u32::from(*exit),
        rejected: u32::from(*reject),
    };
    moved.map(entry).collect()
}

/// Whether `order` can be dispensed in this state.
fn ready(order: &DispenseOrder, status: &DeviceStatus) -> Result<(), DeviceError> {
    if let Some(fault) = &status.fault {
        return Err(DeviceError::NotReady(format!(
            "error 0x{:02X}, {}",
            fault.code, fault.text
        )));
    }
    if !status.path_clear {
        return Err(DeviceError::NotReady("a note is on the path".into()));
    }
    for asked in &order.cassettes {
        if !status
            .cassettes
            .iter()
            .any(|c| c.position == asked.position && c.present)
        {
            return Err(DeviceError::NotReady(format!("cassette {} is missing", asked.position)));
        }
    }
    Ok(())
}

#[async_trait]
impl<P: AsyncRead + AsyncWrite + Send + Unpin> Dispenser for Puloon<P> {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            model: "puloon-lcdm4000",
            cassettes: 4,
            max_notes: self.max_notes,
        }
    }

    async fn initialise(&mut self) -> Result<DeviceStatus, DeviceError> {
        let status = self.status().await?;
        self.last_serial().await?;
        Ok(status)
    }

    async fn status(&mut self) -> Result<DeviceStatus, DeviceError> {
        reply::status(&self.ask(Command::Status).await?)
    }

    async fn prepare(&mut self, order: &DispenseOrder) -> Result<Marker, DeviceError> {
        self.notes(order)?;
        let mut status = self.status().await?;
        if status.fault.is_some() && status.path_clear {
            // A cassette that gave nothing leaves its error behind until a purge, also for the other cassettes.
            self.purge_clear_path().await?;
            status = self.status().await?;
        }
        ready(order, &status)?;
        let mut last = self.last_status().await?;
        if evidence::is_ambiguous(order, &last) {
            last = self.purge_clear_path().await?;
        }
        let serial = self.last_serial().await?;
        Mark { last, serial }
            .write()
            .map_err(|error| DeviceError::NotReady(format!("its counters can not be written down: {error}")))
    }

    async fn dispense(&mut self, intent: &DispenseIntent) -> DispenseReport {
        let order = &intent.order;
        let notes = match self.notes(order) {
            Ok(notes) => notes,
            Err(error) => return evidence::nothing_moved(order, format!("the command did not leave: {error}")),
        };
        let serial = match (self.variant, Mark::read(&intent.marker).map(|mark| mark.serial)) {
            (Variant::Standard, Some(None)) => None,
            (Variant::Serial, Some(Some(serial))) => Some(serial.wrapping_add(1)),
            _ => return evidence::nothing_moved(order, "the command did not leave: its marker is not this driver's"),
        };
        self.deliver(intent, &dispense_data(notes, serial)).await
    }

    async fn recover(&mut self, intent: &DispenseIntent) -> Result<Recovery, DeviceError> {
        let Some(before) = Mark::read(&intent.marker) else {
            return Ok(Recovery::NoEvidence("the order's marker is not this driver's".into()));
        };
        let serial = self.last_serial().await?;
        let last = self.last_status().await?;
        Ok(evidence::recovery(&intent.order, &before, &last, serial))
    }

    async fn clear(&mut self) -> Result<Vec<ClearedNotes>, DeviceError> {
        let counts = reply::counts(Command::Purge, &self.ask(Command::Purge).await?)?;
        Ok(cleared(&counts.exit, &counts.reject))
    }

    async fn cleared(&mut self) -> Result<Option<Vec<ClearedNotes>>, DeviceError> {
        let last = self.last_status().await?;
        Ok((last.about == Command::Purge.code()).then(|| cleared(&last.counts.exit, &last.counts.reject)))
    }

    async fn reset(&mut self) -> Result<(), DeviceError> {
        let command = Command::Reset;
        if self.variant == Variant::Standard {
            let sent = self.link.send(command, &[]).await;
            sent.map_err(|failed| failed.into_error(command))?;
            tokio::time::sleep(self.timings.reset).await;
            return Ok(());
        }
        let before = self.ask(command).await?;
        let after = self.link.next_reply(command).await?;
        for data in [before, after] {
            match reply::error_only(command, &data)? {
                0 => {}
                code => return Err(DeviceError::Fault(fault(code))),
            }
        }
        Ok(())
    }
}
