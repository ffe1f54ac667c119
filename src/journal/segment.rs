//! One segment file: its name, and reading it record by record.
//!
//! Called by the reader, which links segments to each other. Decides what is torn and what is damaged:
//! - fewer bytes than a header, or than the frame its valid header announces: torn;
//! - a bad frame that is zero from its start, or from a 512-byte boundary inside it, up to the end of the
//!   file: torn (the file had grown, its sectors had not reached the disk);
//! - everything else: damaged. So is a power cut that persisted a later sector of an unacknowledged batch
//!   and not an earlier one: that cannot be told from decay, and a human must look.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use super::frame::{self, BadHeader, FRAME_HEADER, HASH, SEGMENT_HEADER};
use super::{ChainHash, Position, ReadError, Record, TornTail};

const SECTOR: u64 = 512;
const EXTENSION: &str = ".seg";

/// A segment as the folder lists it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SegmentName {
    /// From the name.
    pub first_seq: u64,
    pub path: PathBuf,
}

/// The file of the segment that starts with record `first_seq`.
pub fn path_of(folder: &Path, first_seq: u64) -> PathBuf {
    folder.join(format!("{first_seq:020}{EXTENSION}"))
}

/// The segments of a folder in order. Files without the extension (set-aside ones among them) are not ours to judge.
pub fn list(folder: &Path) -> Result<Vec<SegmentName>, ReadError> {
    let io = |source| ReadError::Io {
        file: folder.to_path_buf(),
        source,
    };
    let mut names = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        let Some(stem) = path
            .file_name()
            .and_then(|n| n.to_str())
            .and_then(|n| n.strip_suffix(EXTENSION))
        else {
            continue;
        };
        let digits = stem.len() == 20 && stem.bytes().all(|b| b.is_ascii_digit());
        match stem.parse::<u64>() {
            Ok(first_seq) if digits && first_seq > 0 => names.push(SegmentName { first_seq, path }),
            _ => {
                let why = "the name of a segment is 20 digits".into();
                return Err(ReadError::Damaged {
                    file: path,
                    record: 0,
                    offset: 0,
                    why,
                });
            }
        }
    }
    names.sort();
    Ok(names)
}

/// What opening a segment found.
pub enum Opened {
    /// Its header is whole.
    Whole(Segment),
    /// Its header is not: the crash came while it was being created.
    TornHeader(TornTail),
}

/// What comes next in a segment.
pub enum Step {
    Record(Record),
    /// The file ends after the last record.
    End,
    /// The file ends in torn bytes.
    Torn(TornTail),
}

/// A segment being read.
pub struct Segment {
    path: PathBuf,
    input: BufReader<File>,
    /// Length when opened; a running writer may make the file longer.
    length: u64,
    /// Where the next frame starts.
    pub offset: u64,
    /// After the last record read; before the first one, what the header says.
    pub position: Position,
}

impl Segment {
    /// Opens the segment and reads its header, which must agree with the name.
    pub fn open(name: &SegmentName) -> Result<Opened, ReadError> {
        let io = |source| ReadError::Io {
            file: name.path.clone(),
            source,
        };
        let file = File::open(&name.path).map_err(io)?;
        let length = file.metadata().map_err(io)?.len();
        let mut segment = Segment {
            path: name.path.clone(),
            input: BufReader::with_capacity(64 * 1024, file),
            length,
            offset: 0,
            position: Position {
                seq: name.first_seq.saturating_sub(1),
                hash: ChainHash::GENESIS,
            },
        };
        if length < SEGMENT_HEADER as u64 {
            return Ok(Opened::TornHeader(segment.torn()));
        }
        let mut header = [0; SEGMENT_HEADER];
        segment.input.read_exact(&mut header).map_err(io)?;
        match frame::parse_segment_header(&header) {
            Ok((first_seq, after)) if first_seq == name.first_seq => {
                segment.offset = SEGMENT_HEADER as u64;
                segment.position.hash = after;
                Ok(Opened::Whole(segment))
            }
            Ok((first_seq, _)) => Err(segment.damaged(format!("its header says it starts at record {first_seq}"))),
            Err(BadHeader::Check) if segment.zero_from(0, SEGMENT_HEADER as u64)? => {
                Ok(Opened::TornHeader(segment.torn()))
            }
            Err(BadHeader::Check) => Err(segment.damaged("the segment's header does not match its check".into())),
            Err(BadHeader::Meaning(why)) => Err(segment.damaged(why)),
        }
    }

    /// Reads the next frame. Not to be called again after anything but a record.
    pub fn step(&mut self) -> Result<Step, ReadError> {
        let left = self.length.saturating_sub(self.offset);
        if left == 0 {
            return Ok(Step::End);
        }
        if left < FRAME_HEADER as u64 {
            return Ok(Step::Torn(self.torn()));
        }
        let mut bytes = [0; FRAME_HEADER];
        self.read(&mut bytes)?;
        let header = match frame::parse_frame_header(&bytes) {
            Ok(header) => header,
            Err(BadHeader::Check) => return self.torn_or(FRAME_HEADER as u64, "the header does not match its check"),
            Err(BadHeader::Meaning(why)) => return Err(self.damaged(why)),
        };
        let seq = self.position.seq.saturating_add(1);
        if header.seq != seq {
            return Err(self.damaged(format!("the record calls itself {}", header.seq)));
        }
        let size = (FRAME_HEADER + header.len + HASH) as u64;
        if left < size {
            return Ok(Step::Torn(self.torn()));
        }
        let mut payload = vec![0; header.len];
        self.read(&mut payload)?;
        let mut hash = [0; HASH];
        self.read(&mut hash)?;
        let hash = ChainHash(hash);
        if frame::chain(self.position.hash, &bytes, &payload) != hash {
            return self.torn_or(size, "the record does not match its hash");
        }
        self.offset += size;
        self.position = Position { seq, hash };
        Ok(Step::Record(Record {
            seq,
            hash,
            version: header.version,
            payload,
        }))
    }

    fn torn_or(&mut self, size: u64, why: &str) -> Result<Step, ReadError> {
        if self.zero_from(self.offset, size)? {
            Ok(Step::Torn(self.torn()))
        } else {
            Err(self.damaged(why.into()))
        }
    }

    /// Whether the frame of `size` bytes at `start` is zero from its start or from a sector inside it, and so is
    /// the rest of the file.
    fn zero_from(&mut self, start: u64, size: u64) -> Result<bool, ReadError> {
        let io = |source| ReadError::Io {
            file: self.path.clone(),
            source,
        };
        self.input.seek(SeekFrom::Start(start)).map_err(io)?;
        let mut input = (&mut self.input).take(self.length.saturating_sub(start));
        let (mut offset, mut zero_start, mut block) = (start, start, [0; 4096]);
        loop {
            let got = match input.read(&mut block) {
                Ok(0) => break,
                Ok(got) => got,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                Err(source) => return Err(io(source)),
            };
            if let Some(at) = block.iter().take(got).rposition(|byte| *byte != 0) {
                zero_start = offset + at as u64 + 1;
            }
            offset += got as u64;
        }
        let end = start.saturating_add(size).min(offset);
        Ok(zero_start == start || zero_start.next_multiple_of(SECTOR) < end)
    }

    fn read(&mut self, bytes: &mut [u8]) -> Result<(), ReadError> {
        self.input.read_exact(bytes).map_err(|source| ReadError::Io {
            file: self.path.clone(),
            source,
        })
    }

    fn torn(&self) -> TornTail {
        TornTail {
            file: self.path.clone(),
            offset: self.offset,
            bytes: self.length.saturating_sub(self.offset),
        }
    }

    /// Damage at the record that starts at the present offset.
    pub fn damaged(&self, why: String) -> ReadError {
        let record = self.position.seq.saturating_add(1);
        ReadError::Damaged {
            file: self.path.clone(),
            record,
            offset: self.offset,
            why,
        }
    }
}
