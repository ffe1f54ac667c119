//! Narrows a macaroon by one condition, as `lncli` does before each call. Pure.
//!
//! Called by `survey.rs`, which asks by it what LND's clock shows. What must stay true: a macaroon is only ever
//! narrowed, and no message holds one.
//! Source: the binary format of version 2 and the chain of HMACs of gopkg.in/macaroon.v2; the condition `time-before` with
//! a time of RFC 3339, of lnd v0.21.2-beta, `macaroons/constraints.go`.

use bitcoin::hashes::{Hash, HashEngine, Hmac, HmacEngine, sha256};

use crate::time::UnixMs;

const VERSION: u8 = 2;
const IDENTIFIER: u8 = 2;
const END: u8 = 0;
const SIGNATURE_BYTES: usize = 32;
/// Ends the caveats and begins the signature: its type and length.
const TAIL: [u8; 3] = [END, 6, 32];

/// `macaroon`, valid only while LND's clock is before `instant`. `None` when it is not a binary macaroon of version 2.
pub(super) fn valid_before(macaroon: &[u8], instant: UnixMs) -> Option<Vec<u8>> {
    narrow(macaroon, &format!("time-before {}", rfc3339(instant)))
}

fn narrow(macaroon: &[u8], condition: &str) -> Option<Vec<u8>> {
    let (head, signature) = macaroon.split_at_checked(macaroon.len().checked_sub(SIGNATURE_BYTES)?)?;
    let fields = head.strip_suffix(&TAIL)?;
    if fields.first() != Some(&VERSION) {
        return None;
    }
    let length = u8::try_from(condition.len()).ok().filter(|length| *length < 0x80)?;
    let mut narrowed = fields.to_vec();
    narrowed.extend([IDENTIFIER, length]);
    narrowed.extend(condition.as_bytes());
    narrowed.push(END);
    narrowed.extend(TAIL);
    narrowed.extend(hmac(signature, condition.as_bytes()));
    Some(narrowed)
}

fn hmac(key: &[u8], data: &[u8]) -> [u8; SIGNATURE_BYTES] {
    let mut engine = HmacEngine::<sha256::Hash>::new(key);
    engine.input(data);
    Hmac::<sha256::Hash>::from_engine(engine).to_byte_array()
}

/// UTC, to the second. By the civil calendar counted in eras of 400 years that begin in March.
fn rfc3339(instant: UnixMs) -> String {
    let seconds = instant.as_secs();
    let days = seconds / 86_400 + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 {
        from_march + 3
    } else {
        from_march - 9
    };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn times_as_date_prints_them() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (1_795_575_881, "2026-11-25T03:04:41Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(UnixMs(seconds * 1000)), text);
        }
    }

    /// What `lncli constrainmacaroon` made of a macaroon of a real node.
    #[test]
    fn narrowed_as_lncli_narrows() {
        let vector = include_str!("../../tests/vectors/macaroon.txt");
        let lines: Vec<Vec<u8>> = vector
            .lines()
            .skip(1)
            .map(|line| hex::decode(line).expect("hex"))
            .collect();
        let [base, narrowed] = lines.as_slice() else {
            panic!("two macaroons");
        };
        let condition = "time-before 2026-11-25T04:21:56.658509287Z";
        assert_eq!(narrow(base, condition).as_ref(), Some(narrowed));
        let ours = valid_before(base, UnixMs(0)).expect("version 2");
        assert!(
            ours.windows(32)
                .any(|bytes| bytes == b"time-before 1970-01-01T00:00:00Z")
        );
    }

    proptest! {
        /// It only grows by the condition, and its signature, which would open more, is not in it.
        #[test]
        fn whatever_the_file_holds(mut bytes in vec(any::<u8>(), 0..200), ends_well: bool, at: u64, key: [u8; 32]) {
            if ends_well {
                bytes.insert(0, VERSION);
                bytes.extend(TAIL);
                bytes.extend(key);
            }
            let narrowed = valid_before(&bytes, UnixMs(at));
            prop_assert!(narrowed.is_some() || !ends_well);
            if let Some(narrowed) = narrowed {
                let (head, signature) = bytes.split_at(bytes.len() - SIGNATURE_BYTES);
                prop_assert!(narrowed.starts_with(&head[..head.len() - TAIL.len()]));
                prop_assert!(!narrowed.windows(SIGNATURE_BYTES).any(|window| window == signature));
            }
        }
    }

    #[test]
    fn what_is_no_macaroon_stays_as_it_is() {
        let long = vec![2; 60];
        for bytes in [b"".as_slice(), &[0; 32], &[2; 34], &long] {
            assert_eq!(valid_before(bytes, UnixMs(0)), None);
        }
    }
}
