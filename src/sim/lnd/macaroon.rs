//! Macaroons of version 2: makes them, and reads the conditions that a client added to one.
//!
//! Called by the credentials and by [`super::front`] at each call. Must stay true: only who has a macaroon can narrow it, and
//! nobody can widen it. Source: the binary format and the chain of HMACs of gopkg.in/macaroon.v2; the words of lnd
//! v0.21.2-beta, seen at a running node. Of LND's conditions only `time-before` is known.

use bitcoin::hashes::{Hash, HashEngine, Hmac, HmacEngine, sha256};

use super::SimError;
use super::credentials::random;
use crate::time::UnixMs;

/// The end of all fields, then the signature's type and length.
const TAIL: [u8; 3] = [0, 6, 32];

/// A macaroon with nothing in it but who it is for.
pub(super) fn bake(role: &str) -> Result<Vec<u8>, SimError> {
    let identifier = [random::<16>()?.as_slice(), role.as_bytes()].concat();
    let mut bytes = vec![2];
    for (kind, field) in [(1, b"lnd".as_slice()), (2, &identifier)] {
        bytes.extend([kind, u8::try_from(field.len()).unwrap_or(u8::MAX)]);
        bytes.extend(field);
    }
    bytes.push(0);
    bytes.extend(TAIL);
    bytes.extend(random::<32>()?);
    Ok(bytes)
}

/// The conditions in `presented`, when it was made from `baked`.
pub(super) fn conditions(baked: &[u8], presented: &[u8]) -> Option<Vec<String>> {
    let (fields, signature) = split(baked)?;
    let (rest, presented_signature) = split(presented)?;
    let mut rest = rest.strip_prefix(fields)?;
    let mut signature = signature.to_vec();
    let mut conditions = Vec::new();
    while let [2, length, more @ ..] = rest {
        let (condition, more) = more.split_at_checked(usize::from(*length))?;
        rest = more.strip_prefix(&[0])?;
        let mut engine = HmacEngine::<sha256::Hash>::new(&signature);
        engine.input(condition);
        signature = Hmac::<sha256::Hash>::from_engine(engine).to_byte_array().to_vec();
        conditions.push(String::from_utf8_lossy(condition).into_owned());
    }
    (rest.is_empty() && signature == presented_signature).then_some(conditions)
}

/// What comes before the tail, and the signature.
fn split(macaroon: &[u8]) -> Option<(&[u8], &[u8])> {
    let (head, signature) = macaroon.split_at_checked(macaroon.len().checked_sub(32)?)?;
    Some((head.strip_suffix(&TAIL)?, signature))
}

/// LND's words when `condition` does not hold.
pub(super) fn hold(condition: &str, now: UnixMs) -> Result<(), String> {
    let refused = |why: &str| Err(format!("caveat \"{condition}\" not satisfied: {why}"));
    let Some(("time-before", instant)) = condition.split_once(' ') else {
        return refused("caveat not recognized");
    };
    match seconds(instant) {
        None => refused("it is not a time"),
        Some(instant) if now.as_secs() >= instant => refused("macaroon has expired"),
        Some(_) => Ok(()),
    }
}

/// Seconds since the epoch of a time of RFC 3339 in UTC, without its fraction.
fn seconds(text: &str) -> Option<u64> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let [year, month, day] = numbers(date, '-')?;
    let [hour, minute, second] = numbers(time.split('.').next()?, ':')?;
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let february = if leap(year) { 29 } else { 28 };
    let lengths = [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let month = Some(month).filter(|month| (1..=12).contains(month))?;
    let before: u64 = lengths
        .get(..usize::try_from(month.checked_sub(1)?).ok()?)?
        .iter()
        .sum();
    let years: u64 = (1970..year.min(3_000))
        .map(|year| if leap(year) { 366 } else { 365 })
        .sum();
    let days = years + before + day.checked_sub(1)?;
    Some(days * 86_400 + hour.min(24) * 3_600 + minute.min(60) * 60 + second.min(60))
}

fn numbers(text: &str, between: char) -> Option<[u64; 3]> {
    let numbers: Option<Vec<u64>> = text.split(between).map(|number| number.parse().ok()).collect();
    numbers?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_date() {
        for (text, expected) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2000-02-29T00:00:00Z", Some(951_782_400)),
            ("2026-11-25T03:04:41Z", Some(1_795_575_881)),
            ("2026-11-25T03:04:41.126664144Z", Some(1_795_575_881)),
            ("2026-11-25 03:04:41Z", None),
            ("2026-13-25T03:04:41Z", None),
            ("", None),
        ] {
            assert_eq!(seconds(text), expected, "{text}");
        }
    }

    #[test]
    fn a_macaroon_can_be_narrowed_but_nothing_else() {
        let baked = bake("admin").unwrap();
        assert_eq!(conditions(&baked, &baked), Some(Vec::new()));
        // Made by `lncli constrainmacaroon` from a macaroon of a real node, with one condition.
        let base = hex::decode(
            include_str!("../../../tests/vectors/macaroon.txt")
                .lines()
                .nth(1)
                .unwrap(),
        )
        .unwrap();
        let narrowed = hex::decode(
            include_str!("../../../tests/vectors/macaroon.txt")
                .lines()
                .nth(2)
                .unwrap(),
        )
        .unwrap();
        let found = conditions(&base, &narrowed).unwrap();
        assert_eq!(found.len(), 1, "{found:?}");
        assert!(found[0].starts_with("time-before 20"), "{found:?}");
        assert_eq!(conditions(&baked, &narrowed), None, "of another node");
        assert_eq!(conditions(&narrowed, &base), None, "wider");
        let mut forged = narrowed;
        *forged.last_mut().unwrap() ^= 1;
        assert_eq!(conditions(&base, &forged), None, "forged");
    }

    #[test]
    fn conditions_that_do_not_hold_are_told_as_lnd_tells_them() {
        let (late, early) = (UnixMs(1_795_575_881_000), UnixMs(1_795_575_880_999));
        let condition = "time-before 2026-11-25T03:04:41Z";
        assert_eq!(hold(condition, early), Ok(()));
        let words = format!("caveat \"{condition}\" not satisfied: macaroon has expired");
        assert_eq!(hold(condition, late), Err(words));
        assert!(hold("ipaddr 1.2.3.4", early).is_err());
    }
}
