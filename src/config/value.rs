//! From one TOML value to one setting: whole numbers, durations, decimal amounts, paths.
//!
//! Called by the sections of the configuration. What must stay true: money never passes through
//! floating point, and a message says what was expected.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use toml::de::DeValue;

use crate::money::{BadAmount, Minor};

fn wrong_type(expected: &str, value: &DeValue) -> String {
    format!("{expected} expected, found {}", value.type_str())
}

/// Text that is not empty.
pub(crate) fn text(value: &DeValue) -> Result<String, String> {
    match value.as_str() {
        Some("") => Err("must not be empty".to_owned()),
        Some(text) => Ok(text.to_owned()),
        None => Err(wrong_type("a string", value)),
    }
}

/// `true` or `false`.
pub(crate) fn boolean(value: &DeValue) -> Result<bool, String> {
    value.as_bool().ok_or_else(|| wrong_type("true or false", value))
}

/// Text that `T` understands.
pub(crate) fn parsed<T: FromStr<Err: Display>>(value: &DeValue) -> Result<T, String> {
    text(value)?.parse().map_err(|error: T::Err| error.to_string())
}

/// A path; a relative one starts at `folder`.
pub(crate) fn path(folder: &Path) -> impl Fn(&DeValue) -> Result<PathBuf, String> {
    move |value| Ok(folder.join(text(value)?))
}

fn whole(value: &DeValue) -> Result<i64, String> {
    let integer = value.as_integer().ok_or_else(|| wrong_type("a whole number", value))?;
    let digits = integer.as_str();
    i64::from_str_radix(digits, integer.radix()).map_err(|_| format!("{integer} is out of range"))
}

/// A whole number within `range`.
pub(crate) fn number<T>(range: RangeInclusive<T>) -> impl Fn(&DeValue) -> Result<T, String>
where
    T: TryFrom<i64> + PartialOrd + Display,
{
    move |value| {
        let number = whole(value)?;
        let fits = T::try_from(number).ok().filter(|number| range.contains(number));
        fits.ok_or_else(|| format!("{number} is out of range: {} to {}", range.start(), range.end()))
    }
}

/// A duration as in `500ms`, `10s`, `3m`, `2h`: at least a millisecond, at most a year.
pub(crate) fn duration(value: &DeValue) -> Result<Duration, String> {
    let expected = "a duration such as \"500ms\", \"10s\", \"3m\" or \"2h\"";
    let text = value.as_str().ok_or_else(|| wrong_type(expected, value))?;
    let bad = || format!("`{text}` is not {expected}");
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        _ => return Err(bad()),
    };
    let number: u64 = number.parse().map_err(|_| bad())?;
    match number.checked_mul(unit_ms) {
        Some(ms @ 1..=31_536_000_000) => Ok(Duration::from_millis(ms)),
        _ => Err(format!("`{text}` is out of range: \"1ms\" to \"8760h\"")),
    }
}

/// Hundredths in a decimal text with at most two decimals: `1.5` is 150.
fn hundredths(text: &str) -> Result<u64, String> {
    let amount: Minor = text.parse().map_err(|error: BadAmount| error.to_string())?;
    Ok(amount.0)
}

/// A decimal text, or a whole number of units, in hundredths.
fn decimal(value: &DeValue) -> Result<u64, String> {
    if value.is_float() {
        return Err("a number with decimals must be quoted, as in \"20.00\": money is never floating point".to_owned());
    }
    if !value.is_integer() {
        let text = value.as_str();
        return hundredths(text.ok_or_else(|| wrong_type("an amount such as \"20.00\" or 20", value))?);
    }
    let units = whole(value)?;
    let hundredths = u64::try_from(units).ok().and_then(|units| units.checked_mul(100));
    hundredths.ok_or_else(|| format!("{units} is out of range"))
}

/// An amount of money in whole units, as minor units; zero is allowed.
pub(crate) fn amount(value: &DeValue) -> Result<Minor, String> {
    decimal(value).map(Minor)
}

/// An amount of money above zero.
pub(crate) fn positive_amount(value: &DeValue) -> Result<Minor, String> {
    match amount(value)? {
        Minor::ZERO => Err("must be more than zero".to_owned()),
        amount => Ok(amount),
    }
}

/// A percentage from 0 to 100, as basis points.
pub(crate) fn percent(value: &DeValue) -> Result<u32, String> {
    let basis_points = u32::try_from(decimal(value)?).ok().filter(|points| *points <= 10_000);
    basis_points.ok_or_else(|| "is more than 100 percent".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T>(toml: &str, parse: impl Fn(&DeValue) -> Result<T, String>) -> Result<T, String> {
        parse(DeValue::parse(toml).expect("TOML").get_ref())
    }

    #[test]
    fn durations_need_a_unit() {
        assert_eq!(read("'500ms'", duration), Ok(Duration::from_millis(500)));
        assert_eq!(read("'3m'", duration), Ok(Duration::from_secs(180)));
        assert_eq!(read("'2h'", duration), Ok(Duration::from_secs(7_200)));
        for bad in [
            "'10'",
            "'s'",
            "''",
            "'1d'",
            "'-1s'",
            "'1.5s'",
            "'0s'",
            "10",
            "'99999999999999999999s'",
        ] {
            assert!(read(bad, duration).is_err(), "{bad}");
        }
    }

    #[test]
    fn amounts_are_exact() {
        assert_eq!(read("'95000.00'", amount), Ok(Minor(9_500_000)));
        assert_eq!(read("'1.5'", amount), Ok(Minor(150)));
        assert_eq!(read("'0.07'", amount), Ok(Minor(7)));
        assert_eq!(read("20", amount), Ok(Minor(2_000)));
        assert_eq!(read("'184467440737095516.15'", amount), Ok(Minor(u64::MAX)));
        for bad in [
            "'184467440737095516.16'",
            "'1.005'",
            "'1.'",
            "'.5'",
            "'-1'",
            "'1e3'",
            "-1",
            "1.5",
            "true",
            "'٣'",
        ] {
            assert!(read(bad, amount).is_err(), "{bad}");
        }
        assert!(read("1.5", amount).unwrap_err().contains("never floating point"));
        assert_eq!(read("0", positive_amount), Err("must be more than zero".to_owned()));
    }

    #[test]
    fn percentages_are_basis_points() {
        assert_eq!(read("'1.50'", percent), Ok(150));
        assert_eq!(read("100", percent), Ok(10_000));
        assert!(read("'100.01'", percent).is_err());
    }

    #[test]
    fn numbers_stay_in_range() {
        assert_eq!(read("0x10", number(1..=80_u16)), Ok(16));
        assert!(read("81", number(1..=80_u16)).is_err());
        assert!(read("-1", number(0..=u32::MAX)).is_err());
        assert!(
            read("99999999999999999999", number(0..=u64::MAX))
                .unwrap_err()
                .contains("out of range")
        );
    }
}
