//! Frames as an LCDM-4000 reads and writes them. Pure.
//!
//! Called by the emulator's link only, and on purpose not shared with the driver: a mistake in one of
//! the two shows as a disagreement. Source: puloon-lcdm.md, sections B and C.

pub(super) const RECEIVED: u8 = 0x06;
pub(super) const NOT_RECEIVED: u8 = 0x15;
pub(super) const END: u8 = 0x04;
const HOST_START: u8 = 0x04;

/// A command's bytes, as far as they have come.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// More has to come.
    Partial,
    /// Not for this device, or damaged: NAK.
    Bad,
    /// A command and its data.
    Good(u8, Vec<u8>),
}

/// Data bytes of a command; `None` for one this device does not know.
fn data_length(command: u8, serial_variant: bool) -> Option<usize> {
    match command {
        0x44 | 0x50 | 0x51 | 0x55 => Some(0),
        0x67 if serial_variant => Some(0),
        0x52 if serial_variant => Some(7),
        0x52 => Some(15),
        0x5E => Some(8),
        _ => None,
    }
}

pub(super) fn read_request(bytes: &[u8], serial_variant: bool) -> Request {
    let head = [HOST_START, 0x30, 0x02];
    if bytes.iter().zip(head).any(|(got, want)| *got != want) {
        return Request::Bad;
    }
    let Some(command) = bytes.get(3) else {
        return Request::Partial;
    };
    let Some(data) = data_length(*command, serial_variant) else {
        return read_unknown(*command, bytes);
    };
    match (bytes.get(4..4 + data), bytes.get(4 + data), bytes.get(5 + data)) {
        (Some(body), Some(0x03), Some(sum)) if *sum == xor(bytes.get(..5 + data).unwrap_or_default()) => {
            Request::Good(*command, body.to_vec())
        }
        (_, _, Some(_)) => Request::Bad,
        _ => Request::Partial,
    }
}

/// The length is not known: the frame ends where ETX and a right check byte stand.
fn read_unknown(command: u8, bytes: &[u8]) -> Request {
    for etx in 4..bytes.len().saturating_sub(1) {
        let sum = xor(bytes.get(..=etx).unwrap_or_default());
        if bytes.get(etx) == Some(&0x03) && bytes.get(etx + 1) == Some(&sum) {
            return Request::Good(command, bytes.get(4..etx).unwrap_or_default().to_vec());
        }
    }
    if bytes.len() > 64 {
        Request::Bad
    } else {
        Request::Partial
    }
}

pub(super) fn answer(command: u8, data: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(data.len() + 6);
    frame.extend([0x01, 0x30, 0x02, command]);
    frame.extend(data);
    frame.push(0x03);
    frame.push(xor(&frame));
    frame
}

fn xor(bytes: &[u8]) -> u8 {
    let mut sum = 0;
    for byte in bytes {
        sum ^= byte;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str, serial: bool) -> Request {
        read_request(&hex::decode(line).expect("hex"), serial)
    }

    #[test]
    fn worked_frames() {
        assert_eq!(read("043002440371", false), Request::Good(0x44, vec![]));
        let Request::Good(0x52, data) = read("043002522322202020202020202020202020200346", false) else {
            panic!("not a dispense");
        };
        assert_eq!((data.len(), &data[..2]), (15, &[0x23, 0x22][..]));
        assert!(matches!(
            read("0430025223222020202028034e", true),
            Request::Good(0x52, _)
        ));
        assert_eq!(read("0430025003", false), Request::Partial);
        assert_eq!(read("043002500366", false), Request::Bad);
        assert_eq!(read("0431", false), Request::Bad);
        assert_eq!(hex::encode(answer(0x67, &[0x20, 0x27])), "0130026720270350");
    }

    #[test]
    fn a_command_not_known_is_read_to_its_end() {
        let mut frame = vec![0x04, 0x30, 0x02, 0x58, 0x31, 0x03];
        frame.push(xor(&frame));
        assert_eq!(read_request(&frame, false), Request::Good(0x58, vec![0x31]));
    }

    proptest::proptest! {
        #[test]
        fn no_input_panics(bytes in proptest::collection::vec(0..=255u8, 0..80), serial in 0..2u8) {
            _ = read_request(&bytes, serial == 1);
        }
    }
}
