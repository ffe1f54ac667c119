//! The bytes of a segment: its header and the frames of its records. Pure.
//!
//! Called by the segment reader and the writer. All integers are little-endian.
//! - segment header, 54 bytes: "TELLERDJ", format u16, first_seq u64, previous hash [32], check [4]
//! - frame: len u32, version u8, flags u8 (zero), seq u64, check [4]; payload [len]; hash [32]
//!
//! A check is the first 4 bytes of the sha256 of the header bytes before it. A record's hash is
//! sha256(previous hash, frame header with its check, payload). Frozen by `tests/suite/journal.rs`.

use sha2::{Digest, Sha256};

use super::{ChainHash, Position};

/// Longest payload of one record, in bytes.
pub const MAX_PAYLOAD: usize = 1024 * 1024;

const MAGIC: [u8; 8] = *b"TELLERDJ";
const FORMAT: u16 = 1;
const CHECK: usize = 4;

/// Length of a segment's header.
pub const SEGMENT_HEADER: usize = 8 + 2 + 8 + 32 + CHECK;
/// Length of a frame's header.
pub const FRAME_HEADER: usize = 4 + 1 + 1 + 8 + CHECK;
/// Length of the hash that ends a frame.
pub const HASH: usize = 32;

/// A frame's header, its check already verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// Payload length in bytes, at most [`MAX_PAYLOAD`].
    pub len: usize,
    pub version: u8,
    pub seq: u64,
}

/// Why a header is not one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BadHeader {
    /// The bytes do not match their check.
    Check,
    /// They do, but say something this version does not write.
    Meaning(String),
}

/// The header of the segment whose first record follows `after`.
pub fn segment_header(first_seq: u64, after: ChainHash) -> [u8; SEGMENT_HEADER] {
    let mut bytes = Vec::with_capacity(SEGMENT_HEADER);
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&FORMAT.to_le_bytes());
    bytes.extend_from_slice(&first_seq.to_le_bytes());
    bytes.extend_from_slice(&after.0);
    let sum = check(&bytes);
    bytes.extend_from_slice(&sum);
    let mut header = [0; SEGMENT_HEADER];
    header.copy_from_slice(&bytes);
    header
}

/// First sequence number and the hash before it.
pub fn parse_segment_header(header: &[u8; SEGMENT_HEADER]) -> Result<(u64, ChainHash), BadHeader> {
    let mut rest = checked(header)?;
    let magic = take::<8>(&mut rest)?;
    let format = u16::from_le_bytes(take(&mut rest)?);
    let first_seq = u64::from_le_bytes(take(&mut rest)?);
    let after = ChainHash(take(&mut rest)?);
    if magic != MAGIC {
        return Err(BadHeader::Meaning("not a tellerd journal segment".into()));
    }
    if format != FORMAT {
        return Err(BadHeader::Meaning(format!(
            "segment format {format}, this tellerd reads {FORMAT}"
        )));
    }
    Ok((first_seq, after))
}

/// Appends the frame of the record after `last` to `out` and returns its position.
/// `None` if the payload is longer than [`MAX_PAYLOAD`] or the numbers have run out; `out` is then unchanged.
pub fn encode(last: Position, version: u8, payload: &[u8], out: &mut Vec<u8>) -> Option<Position> {
    let len = u32::try_from(payload.len())
        .ok()
        .filter(|_| payload.len() <= MAX_PAYLOAD)?;
    let seq = last.seq.checked_add(1)?;
    let mut header = Vec::with_capacity(FRAME_HEADER);
    header.extend_from_slice(&len.to_le_bytes());
    header.extend_from_slice(&[version, 0]);
    header.extend_from_slice(&seq.to_le_bytes());
    let sum = check(&header);
    header.extend_from_slice(&sum);
    let hash = chain(last.hash, &header, payload);
    out.extend_from_slice(&header);
    out.extend_from_slice(payload);
    out.extend_from_slice(&hash.0);
    Some(Position { seq, hash })
}

/// Reads a frame's header.
pub fn parse_frame_header(header: &[u8; FRAME_HEADER]) -> Result<FrameHeader, BadHeader> {
    let mut rest = checked(header)?;
    let len = u32::from_le_bytes(take(&mut rest)?);
    let [version, flags] = take::<2>(&mut rest)?;
    let seq = u64::from_le_bytes(take(&mut rest)?);
    if flags != 0 {
        return Err(BadHeader::Meaning(format!("unknown flags {flags:#04x}")));
    }
    match usize::try_from(len) {
        Ok(len) if len <= MAX_PAYLOAD => Ok(FrameHeader { len, version, seq }),
        _ => Err(BadHeader::Meaning(format!(
            "payload of {len} bytes, the limit is {MAX_PAYLOAD}"
        ))),
    }
}

/// The hash of a record.
pub fn chain(previous: ChainHash, header: &[u8], payload: &[u8]) -> ChainHash {
    let digest = Sha256::new()
        .chain_update(previous.0)
        .chain_update(header)
        .chain_update(payload)
        .finalize();
    ChainHash(digest.into())
}

fn check(bytes: &[u8]) -> [u8; CHECK] {
    let digest: [u8; 32] = Sha256::digest(bytes).into();
    let [a, b, c, d, ..] = digest;
    [a, b, c, d]
}

/// The header without its check, if that is right.
fn checked(header: &[u8]) -> Result<&[u8], BadHeader> {
    match header.split_last_chunk::<CHECK>() {
        Some((body, sum)) if check(body) == *sum => Ok(body),
        _ => Err(BadHeader::Check),
    }
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N], BadHeader> {
    let (head, tail) = rest.split_first_chunk::<N>().ok_or(BadHeader::Check)?;
    *rest = tail;
    Ok(*head)
}
