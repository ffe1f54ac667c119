//! What a caller sends as a macaroon, read as LND reads it, with its words for each fault of form.
//!
//! Called by [`super::front`] at each call. Must stay true: what passes here has the shape of a macaroon of version 2;
//! whether it is one of the node's is decided in [`super::credentials`]. Source: macaroon.v2 v2.0.0, `marshal-v2.go` and
//! `packet-v2.go`, for the format and the texts.

const VERSION: u8 = 2;
/// The first byte of an identifier: the bakery's version 3.
pub(super) const BAKERY: u8 = 3;
const LOCATION: u8 = 1;
const IDENTIFIER: u8 = 2;
const SIGNATURE: u8 = 6;
const SIGNATURE_BYTES: usize = 32;

/// The bytes of a macaroon sent as `text`, or LND's words about it.
pub(super) fn read(text: &[u8]) -> Result<Vec<u8>, String> {
    let bytes = from_hex(text)?;
    match bytes.first() {
        None => Err("empty macaroon data".to_owned()),
        Some(&VERSION) => match shape(&bytes) {
            Ok([BAKERY, ..]) => Ok(bytes),
            Ok(_) => Err("invalid ID".to_owned()),
            Err(why) => Err(format!("unmarshal v2: {why}")),
        },
        Some(_) => Err("cannot determine data format of binary-encoded macaroon".to_owned()),
    }
}

/// Pairs of digits, as Go reads them: the first that is none is named, then a last one alone.
fn from_hex(text: &[u8]) -> Result<Vec<u8>, String> {
    if let Some(byte) = text.iter().find(|byte| !byte.is_ascii_hexdigit()) {
        return Err(format!(
            "encoding/hex: invalid byte: U+{byte:04X} '{}'",
            char::from(*byte)
        ));
    }
    hex::decode(text).map_err(|_| "encoding/hex: odd length hex string".to_owned())
}

/// A field's kind and data; kind 0 ends a section.
type Field<'a> = (u8, &'a [u8]);

/// The identifier, when `bytes` are well formed.
fn shape(bytes: &[u8]) -> Result<&[u8], &'static str> {
    let mut rest = bytes.get(1..).unwrap_or_default();
    let header = section(&mut rest)?;
    let fields = match header.as_slice() {
        [(LOCATION, _), fields @ ..] => fields,
        fields => fields,
    };
    let [(IDENTIFIER, identifier)] = fields else {
        return Err("invalid macaroon header");
    };
    while !section(&mut rest)?.is_empty() {}
    match field(&mut rest)? {
        (SIGNATURE, data) if data.len() == SIGNATURE_BYTES => Ok(identifier),
        (SIGNATURE, _) => Err("signature has unexpected length"),
        _ => Err("unexpected field found instead of signature"),
    }
}

fn section<'a>(rest: &mut &'a [u8]) -> Result<Vec<Field<'a>>, &'static str> {
    let mut fields: Vec<Field<'a>> = Vec::new();
    loop {
        if rest.is_empty() {
            return Err("section extends past end of buffer");
        }
        match field(rest)? {
            (0, _) => return Ok(fields),
            (kind, _) if fields.last().is_some_and(|(last, _)| *last >= kind) => return Err("fields out of order"),
            field => fields.push(field),
        }
    }
}

fn field<'a>(rest: &mut &'a [u8]) -> Result<Field<'a>, &'static str> {
    let kind = number(rest)?;
    if kind == 0 {
        return Ok((0, &[]));
    }
    let length = number(rest)?;
    let (data, after) = rest
        .split_at_checked(length)
        .ok_or("field data extends past end of buffer")?;
    *rest = after;
    // Kinds above 6 do not exist; all that matters of them is that they are not these.
    Ok((u8::try_from(kind).unwrap_or(u8::MAX), data))
}

/// A number in groups of 7 bits, the lowest first.
fn number(rest: &mut &[u8]) -> Result<usize, &'static str> {
    let mut number: u32 = 0;
    for group in 0..5_u32 {
        let Some((byte, after)) = rest.split_first() else {
            return Err("varint value extends past end of buffer");
        };
        *rest = after;
        let bits = u32::from(byte & 0x7f);
        let shifted = bits
            .checked_shl(group * 7)
            .filter(|shifted| shifted >> (group * 7) == bits);
        number |= shifted.ok_or("varint value out of range")?;
        if byte & 0x80 == 0 {
            return usize::try_from(number).map_err(|_| "varint value out of range");
        }
    }
    Err("varint value out of range")
}

#[cfg(test)]
mod tests {
    use super::super::macaroon::bake;
    use super::*;

    #[test]
    fn what_is_made_can_be_read_and_nothing_shorter() {
        let made = bake("admin").expect("random bytes");
        assert_eq!(read(hex::encode(&made).as_bytes()).as_ref(), Ok(&made));
        for end in 1..made.len() {
            let cut = hex::encode(made.get(..end).expect("shorter"));
            let told = read(cut.as_bytes()).expect_err("cut short");
            assert!(told.starts_with("unmarshal v2: "), "{end}: {told}");
        }
    }

    #[test]
    fn shapes_that_are_none() {
        let signed = |head: &[u8]| [head, &[0, 0, 6, 32], &[9; 32]].concat();
        let rows: [(Vec<u8>, &str); 6] = [
            (signed(&[2, 2, 1, 7]), "invalid ID"),
            (signed(&[2, 1, 1, 7]), "unmarshal v2: invalid macaroon header"),
            (signed(&[2, 2, 1, 3, 1, 1, 3]), "unmarshal v2: fields out of order"),
            (
                vec![2, 2, 1, 3, 0, 0, 2, 0],
                "unmarshal v2: unexpected field found instead of signature",
            ),
            (
                vec![2, 2, 1, 3, 0, 0, 6, 1, 9],
                "unmarshal v2: signature has unexpected length",
            ),
            (
                vec![2, 0xff, 0xff, 0xff, 0xff, 0xff],
                "unmarshal v2: varint value out of range",
            ),
        ];
        for (bytes, told) in rows {
            assert_eq!(read(hex::encode(&bytes).as_bytes()), Err(told.to_owned()), "{bytes:?}");
        }
    }
}
