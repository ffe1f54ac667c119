//! Reading fields out of a JSON object from outside, strictly, with errors that name the field.
//!
//! Used by the envelope and by the methods. What must stay true: an error never repeats a value, because a value may
//! be a preimage.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use thiserror::Error;

/// A JSON object.
pub type Object = Map<String, Value>;

/// At most this much of a foreign name is repeated in an error.
const NAME_SHOWN: usize = 40;
/// No id or name is longer.
const PARSED_BYTES: usize = 128;

/// A field that is missing, of the wrong type, or out of its range.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{field} {problem}")]
pub struct BadField {
    /// Its name, with a path when it is inside a list.
    pub field: String,
    /// What is wrong, as the rest of a sentence.
    pub problem: String,
}

impl BadField {
    /// `field` has `problem`.
    #[must_use]
    pub fn new(field: &str, problem: impl Into<String>) -> Self {
        Self {
            field: shown(field),
            problem: problem.into(),
        }
    }

    /// The same, of a field inside `outer`.
    #[must_use]
    pub fn inside(self, outer: &str) -> Self {
        Self {
            field: format!("{outer}.{}", self.field),
            problem: self.problem,
        }
    }
}

/// A name from outside, short and printable.
#[must_use]
pub fn shown(name: &str) -> String {
    name.chars().take(NAME_SHOWN).flat_map(char::escape_debug).collect()
}

/// Refuses fields that are not in `known`: a misspelt option must not silently become its default.
pub fn refuse_unknown(object: &Object, known: &[&str]) -> Result<(), BadField> {
    match object.keys().find(|name| !known.contains(&name.as_str())) {
        Some(name) => Err(BadField::new(name, "is not a field of this method")),
        None => Ok(()),
    }
}

/// The value of `name`; `null` counts as missing.
#[must_use]
pub fn value<'a>(object: &'a Object, name: &str) -> Option<&'a Value> {
    object.get(name).filter(|value| !value.is_null())
}

fn required<'a>(object: &'a Object, name: &str) -> Result<&'a Value, BadField> {
    value(object, name).ok_or_else(|| BadField::new(name, "is missing"))
}

/// A text of at most `max_bytes` bytes.
pub fn text<'a>(object: &'a Object, name: &str, max_bytes: usize) -> Result<&'a str, BadField> {
    let text = required(object, name)?
        .as_str()
        .ok_or_else(|| BadField::new(name, "must be a text"))?;
    if text.len() > max_bytes {
        return Err(BadField::new(name, format!("must have at most {max_bytes} bytes")));
    }
    Ok(text)
}

/// The same, or `None` when it is missing.
pub fn optional_text<'a>(object: &'a Object, name: &str, max_bytes: usize) -> Result<Option<&'a str>, BadField> {
    value(object, name).map(|_| text(object, name, max_bytes)).transpose()
}

/// An integer within `range`. `1.0` and `1e3` are not integers.
pub fn whole(object: &Object, name: &str, range: RangeInclusive<u64>) -> Result<u64, BadField> {
    let (low, high) = (range.start(), range.end());
    required(object, name)?
        .as_u64()
        .filter(|number| range.contains(number))
        .ok_or_else(|| BadField::new(name, format!("must be a whole number from {low} to {high}")))
}

/// The same, or `None` when it is missing.
pub fn optional_whole(object: &Object, name: &str, range: RangeInclusive<u64>) -> Result<Option<u64>, BadField> {
    value(object, name).map(|_| whole(object, name, range)).transpose()
}

/// An integer that may be negative.
pub fn signed(object: &Object, name: &str) -> Result<i64, BadField> {
    required(object, name)?
        .as_i64()
        .ok_or_else(|| BadField::new(name, "must be a whole number"))
}

/// 32 bytes as 64 hexadecimal digits.
pub fn hex32(object: &Object, name: &str) -> Result<[u8; 32], BadField> {
    let bad = || BadField::new(name, "must be 64 hexadecimal digits");
    let mut bytes = [0; 32];
    let digits = required(object, name)?.as_str().ok_or_else(bad)?;
    hex::decode_to_slice(digits, &mut bytes).map_err(|_| bad())?;
    Ok(bytes)
}

/// A text that reads as a `T`. Not for secrets: the error of `T` may repeat the text.
pub fn parsed<T: FromStr<Err: Display>>(object: &Object, name: &str) -> Result<T, BadField> {
    let text = text(object, name, PARSED_BYTES)?;
    text.parse()
        .map_err(|error: T::Err| BadField::new(name, format!("is not valid: {error}")))
}

/// The same, or `None` when it is missing.
pub fn optional_parsed<T: FromStr<Err: Display>>(object: &Object, name: &str) -> Result<Option<T>, BadField> {
    value(object, name).map(|_| parsed(object, name)).transpose()
}

/// A value of the API's type `T`, which `expected` describes.
pub fn typed<T: DeserializeOwned>(object: &Object, name: &str, expected: &str) -> Result<T, BadField> {
    let value = required(object, name)?.clone();
    serde_json::from_value(value).map_err(|_| BadField::new(name, format!("must be {expected}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn object(value: Value) -> Object {
        value.as_object().expect("object").clone()
    }

    #[test]
    fn only_integers_in_range_are_whole() {
        for bad in [
            json!(-1),
            json!(0),
            json!(1.5),
            json!(1.0),
            json!("7"),
            json!(11),
            json!(1e300),
            json!([7]),
            json!(true),
        ] {
            let error = whole(&object(json!({"n": bad})), "n", 1..=10).unwrap_err();
            assert_eq!(error.to_string(), "n must be a whole number from 1 to 10");
        }
        assert_eq!(whole(&object(json!({"n": 10})), "n", 1..=10), Ok(10));
        assert_eq!(
            optional_whole(&object(json!({"n": null})), "n", 1..=10),
            Ok(None),
            "null is missing"
        );
    }

    #[test]
    fn errors_show_foreign_names_short_and_printable() {
        let name = "\u{1b}[2J".repeat(100);
        let error = refuse_unknown(&object(json!({ name: 1 })), &["a"]).unwrap_err();
        assert!(error.field.len() < 400 && !error.field.contains('\u{1b}'), "{error}");
    }
}
