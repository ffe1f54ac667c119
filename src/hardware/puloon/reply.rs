//! What replies of the LCDM-4000 say, from their data bytes.
//!
//! Called by the driver. Must stay true: a byte outside its range is an error that names it, never a count.
//! Source: puloon-lcdm.md, section B.

use serde::{Deserialize, Serialize};

use super::command::{Command, OFFSET, fault};
use crate::hardware::{CassetteStatus, DeviceError, DeviceStatus};

/// Cassettes of an LCDM-4000.
pub const CASSETTES: usize = 4;
/// DVTL, DVTR, EJT, EXIT, RJT.
const PATH_SENSORS: u8 = 0x1F;
const NEAR_END: u8 = 0x08;
/// The code that reports few notes left: a notice, not a fault.
pub const NOTICE_NEAR_END: u8 = 0x25;

/// Result of a dispense or a purge: what the device counted for each cassette.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Error code without its offset; 0 is none.
    pub error: u8,
    /// Notes that passed EXIT.
    pub exit: [u8; CASSETTES],
    /// Notes in the reject tray.
    pub reject: [u8; CASSETTES],
}

/// The device's last result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastStatus {
    /// The command byte it is about; not checked, since a device without a last operation has no defined answer.
    pub about: u8,
    /// The result.
    pub counts: Counts,
}

struct Reader<'a> {
    command: Command,
    data: &'a [u8],
}

impl Reader<'_> {
    fn raw(&self, at: usize) -> Result<u8, DeviceError> {
        self.data.get(at).copied().ok_or_else(|| self.wrong(at, "is missing"))
    }

    fn number(&self, at: usize) -> Result<u8, DeviceError> {
        let byte = self.raw(at)?;
        byte.checked_sub(OFFSET)
            .ok_or_else(|| self.wrong(at, &format!("is 0x{byte:02X}, below 0x20")))
    }

    fn wrong(&self, at: usize, what: &str) -> DeviceError {
        DeviceError::Protocol {
            command: self.command.name(),
            detail: format!("byte {} of the frame {what}", at + 4),
        }
    }

    /// `error` is the offset of the error byte; then one reserved byte and EXIT, REJECT, TYPE of each cassette.
    fn counts(&self, error: usize) -> Result<Counts, DeviceError> {
        let mut counts = Counts {
            error: self.number(error)?,
            exit: [0; CASSETTES],
            reject: [0; CASSETTES],
        };
        for (i, (exit, reject)) in counts.exit.iter_mut().zip(&mut counts.reject).enumerate() {
            *exit = self.number(error + 2 + 3 * i)?;
            *reject = self.number(error + 3 + 3 * i)?;
        }
        Ok(counts)
    }
}

/// Data of the reply to a dispense or a purge.
pub fn counts(command: Command, data: &[u8]) -> Result<Counts, DeviceError> {
    Reader { command, data }.counts(0)
}

/// Data of the reply to [`Command::LastStatus`].
pub fn last_status(data: &[u8]) -> Result<LastStatus, DeviceError> {
    let reader = Reader {
        command: Command::LastStatus,
        data,
    };
    Ok(LastStatus {
        about: reader.raw(0)?,
        counts: reader.counts(1)?,
    })
}

/// The error code in the reply of a command that answers nothing else. Zero is none.
pub fn error_only(command: Command, data: &[u8]) -> Result<u8, DeviceError> {
    Reader { command, data }.number(0)
}

/// Data of the reply to [`Command::LastSerial`].
pub fn last_serial(data: &[u8]) -> Result<u8, DeviceError> {
    let reader = Reader {
        command: Command::LastSerial,
        data,
    };
    match reader.number(0)? {
        0 => Ok(reader.raw(1)?.wrapping_sub(OFFSET)),
        code => Err(DeviceError::Fault(fault(code))),
    }
}

/// Data of the reply to [`Command::Status`]. The longer form has one byte more before the cassettes;
/// no source says which of the two holds the sensors, so that a bit in either one counts.
pub fn status(data: &[u8]) -> Result<DeviceStatus, DeviceError> {
    let reader = Reader {
        command: Command::Status,
        data,
    };
    let error = reader.number(0)?;
    let first = data.len().saturating_sub(4 * CASSETTES);
    let mut sensors = 0;
    for at in 1..first {
        sensors |= reader.raw(at)? & PATH_SENSORS;
    }
    let mut cassettes = Vec::with_capacity(CASSETTES);
    for position in 1..=4u8 {
        let at = first + 4 * (usize::from(position) - 1);
        let kind = reader.raw(at + 1)?;
        if !(b'0'..=b'4').contains(&kind) {
            return Err(reader.wrong(at + 1, &format!("is 0x{kind:02X}, not a cassette type")));
        }
        cassettes.push(CassetteStatus {
            position,
            present: kind != b'0',
            near_end: reader.raw(at)? & NEAR_END != 0,
        });
    }
    Ok(DeviceStatus {
        fault: (error != 0 && error != NOTICE_NEAR_END).then(|| fault(error)),
        path_clear: sensors == 0,
        cassettes,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_status_say_the_same() {
        let long = hex::decode("20202020312020203220202030202020302020").expect("hex");
        let mut short = long.clone();
        short.remove(1);
        let status_long = status(&long).expect("status");
        assert_eq!(status_long, status(&short).expect("status"));
        assert!(status_long.path_clear && status_long.fault.is_none());
        let present: Vec<_> = status_long.cassettes.iter().map(|c| c.present).collect();
        assert_eq!(present, [true, true, false, false]);
    }

    #[test]
    fn sensors_near_end_and_errors_are_seen() {
        let mut data = hex::decode("202020312020203220202030202020302020").expect("hex");
        data[1] = 0x28;
        data[2] = 0x28;
        data[0] = 0x22;
        let seen = status(&data).expect("status");
        assert!(!seen.path_clear && seen.cassettes[0].near_end && !seen.cassettes[1].near_end);
        assert_eq!(seen.fault.map(|f| f.code), Some(2));
        data[3] = b'5';
        assert!(status(&data).is_err());
        assert!(status(&[]).is_err());
    }

    #[test]
    fn a_count_below_its_offset_is_refused() {
        let mut data = hex::decode("2030232031222032202030202030").expect("hex");
        let read = counts(Command::Purge, &data).expect("counts");
        assert_eq!((read.exit, read.reject), ([3, 2, 0, 0], [0; 4]));
        data[2] = 0x1F;
        assert!(counts(Command::Purge, &data).is_err());
    }
}
