//! Commands of the LCDM-4000: codes, classes, reply lengths, request data, and the texts of its errors.
//!
//! Called by the codec, the link and the driver. Must stay true: what moves notes or motors is
//! [`Class::Motion`], and the link sends such a command once. Source: puloon-lcdm.md, sections B and C.

use super::codec::line_length;
use crate::hardware::Fault;

/// Counts, errors and the serial number are sent with this added.
pub const OFFSET: u8 = 0x20;

/// How often a command may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Changes nothing: may be resent.
    Query,
    /// Changes a setting: twice is as good as once.
    Repeatable,
    /// Moves something: leaves once.
    Motion,
}

/// A command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    /// 44.
    Reset,
    /// 50: error, sensors, cassettes.
    Status,
    /// 51: notes on the path go to the reject tray.
    Purge,
    /// 52.
    Dispense,
    /// 55: the result of the last operation.
    LastStatus,
    /// 5E: note lengths per cassette.
    NoteLengths,
    /// 67: the serial number of the last dispense (serial variant).
    LastSerial,
}

impl Command {
    /// Every command.
    pub const ALL: [Self; 7] = [
        Self::Reset,
        Self::Status,
        Self::Purge,
        Self::Dispense,
        Self::LastStatus,
        Self::NoteLengths,
        Self::LastSerial,
    ];

    /// Its byte in a frame.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Self::Reset => 0x44,
            Self::Status => 0x50,
            Self::Purge => 0x51,
            Self::Dispense => 0x52,
            Self::LastStatus => 0x55,
            Self::NoteLengths => 0x5E,
            Self::LastSerial => 0x67,
        }
    }

    /// The command of a byte, if this driver uses it.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|command| command.code() == code)
    }

    /// For messages.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Reset => "reset",
            Self::Status => "status",
            Self::Purge => "purge",
            Self::Dispense => "dispense",
            Self::LastStatus => "last status",
            Self::NoteLengths => "note lengths",
            Self::LastSerial => "last serial number",
        }
    }

    /// How often it may be sent.
    #[must_use]
    pub const fn class(self) -> Class {
        match self {
            Self::Status | Self::LastStatus | Self::LastSerial => Class::Query,
            Self::NoteLengths => Class::Repeatable,
            Self::Reset | Self::Purge | Self::Dispense => Class::Motion,
        }
    }

    /// Lengths of its reply on the line, ascending. The sources disagree on status.
    #[must_use]
    pub const fn reply_lengths(self) -> &'static [usize] {
        match self {
            Self::Reset | Self::NoteLengths => const { &[line_length(1)] },
            Self::Status => const { &[line_length(18), line_length(19)] },
            Self::Purge => const { &[line_length(14)] },
            Self::Dispense => const { &[line_length(23)] },
            Self::LastStatus => const { &[line_length(15)] },
            Self::LastSerial => const { &[line_length(2)] },
        }
    }
}

/// Data of a dispense. With a serial number: 7 bytes, without: 15.
#[must_use]
pub fn dispense_data(notes: [u8; 4], serial: Option<u8>) -> Vec<u8> {
    let mut data: Vec<u8> = notes.iter().map(|n| n.wrapping_add(OFFSET)).collect();
    data.extend([OFFSET; 2]);
    match serial {
        Some(serial) => data.push(serial.wrapping_add(OFFSET)),
        None => data.extend([OFFSET; 9]),
    }
    data
}

/// Data of [`Command::NoteLengths`]: two nibbles for each cassette, high one first. The unit is the device's own.
#[must_use]
pub fn note_lengths_data(lengths: [u8; 4]) -> Vec<u8> {
    lengths
        .iter()
        .flat_map(|length| [0x30 + (length >> 4), 0x30 + (length & 0x0F)])
        .collect()
}

/// What the device means by an error byte, its offset already subtracted. `None` for a code without a text.
fn known_text(code: u8) -> Option<&'static str> {
    Some(match code {
        0x00 => "no error",
        0x01 => "pick-up failure",
        0x02 => "jam between CHK and DVT",
        0x03 => "jam between DVT and EJT",
        0x04 => "jam between EJT and EXIT",
        0x05 => "note staying in EXIT",
        0x06 => "a note suspected as reject was ejected",
        0x07 => "count mismatch at EJT",
        0x08 => "a note to reject passed EJT",
        0x09 => "note too long at EJT",
        0x0A => "note too long at EXIT",
        0x0B => "notes on the path before the start",
        0x0C => "too many notes",
        0x0D => "too many rejects",
        0x0E => "purge ended abnormally",
        0x20 | 0x21 => "sensor trouble",
        0x22 => "solenoid trouble",
        0x23 => "motor or slit sensor trouble",
        0x24 => "a requested cassette is missing",
        0x25 => "near end of a cassette",
        0x26 => "no reject tray",
        0x30 => "undefined command",
        0x31 => "bad parameter",
        0x32..=0x34 => "download failure",
        0x35 => "EEPROM write failure",
        0x36 => "EEPROM checksum failure",
        0x40..=0x43 => "note from a cassette that was not asked",
        0x50 => "pick-up failure of cassette 1",
        0x51 => "pick-up failure of cassette 2",
        _ => return None,
    })
}

/// Whether the manual explains this code (its offset already subtracted).
#[must_use]
pub fn is_known(code: u8) -> bool {
    known_text(code).is_some()
}

/// A device's complaint in words; `code` has its offset already subtracted.
#[must_use]
pub fn fault(code: u8) -> Fault {
    let position = match code {
        0x40..=0x43 => Some(code - 0x3F),
        0x50 | 0x51 => Some(code - 0x4F),
        _ => None,
    };
    Fault {
        code,
        text: known_text(code)
            .unwrap_or("a code that the manual does not explain")
            .to_owned(),
        position,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cassettes_are_named_by_their_codes() {
        assert_eq!(fault(81).position, Some(2));
        assert_eq!(fault(80).position, Some(1));
        assert_eq!(fault(0x43).position, Some(4));
        assert_eq!(fault(1).position, None);
        assert!(!is_known(88));
    }

    #[test]
    fn all_that_moves_is_motion() {
        let motion = Command::ALL.into_iter().filter(|c| c.class() == Class::Motion);
        assert_eq!(
            motion.collect::<Vec<_>>(),
            [Command::Reset, Command::Purge, Command::Dispense]
        );
    }
}
