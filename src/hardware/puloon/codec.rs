//! Frames of the Puloon LCDM-4000, the host's side: bytes to frames and back, without I/O.
//!
//! Called by [`super::link`]. Must stay true: a frame is only accepted whole, with its ETX where the
//! length of this reply puts it (data bytes may equal any control byte) and its BCC right; no input panics.
//! Source: dispensers/puloon-lcdm.md, section B.

use super::command::Command;

/// "Received well."
pub const ACK: u8 = 0x06;
/// "Not received well."
pub const NAK: u8 = 0x15;
/// Ends an exchange; also the first byte of a host's frame.
pub const EOT: u8 = 0x04;
/// First byte of a device's frame.
pub const SOH: u8 = 0x01;
const STX: u8 = 0x02;
const ETX: u8 = 0x03;
const ID: u8 = 0x30;
/// Bytes before the data: start, id, STX, command.
const HEAD: usize = 4;
/// Bytes after the data: ETX, BCC.
const TAIL: usize = 2;

/// A device's reply, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The command it answers.
    pub command: Command,
    /// What is between command and ETX.
    pub data: Vec<u8>,
}

/// What some bytes are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decoded {
    /// The beginning of a frame.
    Incomplete,
    /// A frame, and how many bytes it took.
    Frame {
        /// The frame.
        frame: Frame,
        /// Its length on the line.
        length: usize,
    },
    /// Not a frame, whatever follows.
    Corrupt {
        /// The offset of the first byte that is wrong.
        offset: usize,
        /// What is wrong with it.
        why: String,
    },
}

/// The check byte: XOR of all bytes from the first one through ETX.
#[must_use]
pub fn bcc(bytes: &[u8]) -> u8 {
    bytes.iter().fold(0, |sum, byte| sum ^ byte)
}

/// A host's frame.
#[must_use]
pub fn encode(command: Command, data: &[u8]) -> Vec<u8> {
    let mut bytes = vec![EOT, ID, STX, command.code()];
    bytes.extend_from_slice(data);
    bytes.push(ETX);
    bytes.push(bcc(&bytes));
    bytes
}

/// Reads a device's frame from the start of `bytes`.
#[must_use]
pub fn decode(bytes: &[u8]) -> Decoded {
    for (offset, (got, want)) in bytes.iter().zip([SOH, ID, STX]).enumerate() {
        if *got != want {
            return corrupt(offset, format!("0x{got:02X} in place of 0x{want:02X}"));
        }
    }
    let Some(code) = bytes.get(HEAD - 1) else {
        return Decoded::Incomplete;
    };
    let Some(command) = Command::from_code(*code) else {
        return corrupt(HEAD - 1, format!("0x{code:02X} is not a command"));
    };
    let mut problem = Decoded::Incomplete;
    for length in command.reply_lengths() {
        match bytes.get(..*length) {
            Some(whole) => problem = check(command, whole),
            None => return Decoded::Incomplete,
        }
        if matches!(problem, Decoded::Frame { .. }) {
            break;
        }
    }
    problem
}

fn check(command: Command, whole: &[u8]) -> Decoded {
    let Some((sum, checked)) = whole.split_last() else {
        return Decoded::Incomplete;
    };
    let Some((etx, before)) = checked.split_last() else {
        return Decoded::Incomplete;
    };
    if *etx != ETX {
        return corrupt(before.len(), format!("0x{etx:02X} in place of ETX"));
    }
    let right = bcc(checked);
    if *sum != right {
        return corrupt(checked.len(), format!("check byte 0x{sum:02X}, computed 0x{right:02X}"));
    }
    Decoded::Frame {
        frame: Frame {
            command,
            data: before.get(HEAD..).unwrap_or_default().to_vec(),
        },
        length: whole.len(),
    }
}

fn corrupt(offset: usize, why: String) -> Decoded {
    Decoded::Corrupt { offset, why }
}

/// The length on the line of a reply with so many data bytes.
pub const fn line_length(data: usize) -> usize {
    HEAD + data + TAIL
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::hardware::puloon::command;

    #[test]
    fn worked_frames_of_the_sheet() {
        let cases = [
            (Command::Reset, vec![], "043002440371"),
            (Command::Status, vec![], "043002500365"),
            (Command::Purge, vec![], "043002510364"),
            (Command::LastStatus, vec![], "043002550360"),
            (Command::LastSerial, vec![], "043002670352"),
            (
                Command::Dispense,
                command::dispense_data([3, 2, 0, 0], None),
                "043002522322202020202020202020202020200346",
            ),
            (
                Command::Dispense,
                command::dispense_data([3, 2, 0, 0], Some(8)),
                "0430025223222020202028034e",
            ),
        ];
        for (command, data, line) in cases {
            assert_eq!(hex::encode(encode(command, &data)), line, "{}", command.name());
        }
    }

    /// As the device would frame it.
    fn device(command: Command, data: &[u8]) -> Vec<u8> {
        let mut bytes = vec![SOH, ID, STX, command.code()];
        bytes.extend_from_slice(data);
        bytes.push(ETX);
        bytes.push(bcc(&bytes));
        bytes
    }

    #[test]
    fn data_may_equal_control_bytes() {
        let bytes = device(Command::LastSerial, &[0x20, ETX]);
        let Decoded::Frame { frame, length } = decode(&bytes) else {
            panic!("not a frame");
        };
        assert_eq!((frame.data, length), (vec![0x20, ETX], 8));
        for data in [[ACK; 15], [EOT; 15], [ETX; 15]] {
            assert!(matches!(
                decode(&device(Command::LastStatus, &data)),
                Decoded::Frame { .. }
            ));
        }
    }

    #[test]
    fn both_lengths_of_status_are_frames() {
        for count in [18, 19] {
            let bytes = device(Command::Status, &vec![0x20; count]);
            assert!(matches!(decode(&bytes), Decoded::Frame { length, .. } if length == bytes.len()));
        }
    }

    #[test]
    fn a_corrupt_byte_is_named() {
        let mut bytes = device(Command::LastSerial, &[0x20, 0x27]);
        bytes[7] = 0;
        assert_eq!(
            decode(&bytes),
            Decoded::Corrupt {
                offset: 7,
                why: "check byte 0x00, computed 0x50".into()
            }
        );
        bytes[6] = 0x20;
        assert!(matches!(decode(&bytes), Decoded::Corrupt { offset: 6, .. }));
        assert!(matches!(decode(&[SOH, 0x50]), Decoded::Corrupt { offset: 1, .. }));
    }

    fn any_reply() -> impl Strategy<Value = Vec<u8>> {
        (0..Command::ALL.len(), proptest::collection::vec(0x20..0x80u8, 32)).prop_map(|(which, data)| {
            let command = Command::ALL[which];
            let length = command.reply_lengths()[0];
            device(command, &data[..length - line_length(0)])
        })
    }

    proptest! {
        #[test]
        fn no_input_panics(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            _ = decode(&bytes);
        }

        #[test]
        fn every_beginning_is_incomplete(bytes in any_reply()) {
            for end in 0..bytes.len() {
                prop_assert_eq!(decode(&bytes[..end]), Decoded::Incomplete);
            }
            let whole = matches!(decode(&bytes), Decoded::Frame { length, .. } if length == bytes.len());
            prop_assert!(whole);
        }

        #[test]
        fn one_wrong_byte_is_never_another_frame(bytes in any_reply(), at in any::<prop::sample::Index>(), flip in 1..=255u8) {
            let mut wrong = bytes.clone();
            wrong[at.index(bytes.len())] ^= flip;
            let is_frame = matches!(decode(&wrong), Decoded::Frame { .. });
            prop_assert!(!is_frame);
        }
    }
}
