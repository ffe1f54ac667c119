//! Reading the journal across its segments, each linked to the one before.
//!
//! Called by `Journal::open` from a position on, and by `tellerd journal verify | show | export` through
//! [`Reader`], which takes no lock and changes nothing. Beside a running daemon the last batch may be read
//! half written and then counts as a torn tail.

use std::path::Path;

use super::segment::{self, Opened, Segment, SegmentName, Step};
use super::{ChainHash, FOLDER, Position, ReadError, Record, TornTail};

/// The journal's records in order; after an error there are no more.
pub struct Reader {
    segments: std::vec::IntoIter<SegmentName>,
    count: usize,
    current: Option<Segment>,
    last: Position,
    /// The first segment's own word for the hash before it is taken: the caller knows a later hash.
    trust_first: bool,
    torn: Vec<TornTail>,
    tail: Option<Tail>,
    failed: bool,
}

/// How the last segment ends.
#[derive(Debug, Clone)]
pub(super) struct Tail {
    pub name: SegmentName,
    /// Length of what is intact, header included; 0 if the header is torn.
    pub intact: u64,
    pub torn: bool,
}

/// What [`Reader::verify`] found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Summary {
    /// Segment files.
    pub segments: usize,
    /// Intact records.
    pub records: u64,
    /// After the last one.
    pub last: Position,
    /// What crashes left behind.
    pub torn: Vec<TornTail>,
}

impl Reader {
    /// Opens the journal in the data directory `dir` for reading from its first record.
    pub fn open(dir: &Path) -> Result<Reader, ReadError> {
        Ok(Reader::over(segment::list(&dir.join(FOLDER))?, Position::START, false))
    }

    /// Starts in the segment that holds `from`, so that the caller can check its hash.
    pub(super) fn from(folder: &Path, from: Position) -> Result<Reader, ReadError> {
        let mut names = segment::list(folder)?;
        let before = names
            .partition_point(|name| name.first_seq <= from.seq)
            .saturating_sub(1);
        names.drain(..before);
        match names.first() {
            Some(first) if first.first_seq <= from.seq => {
                let start = Position {
                    seq: first.first_seq - 1,
                    hash: ChainHash::GENESIS,
                };
                Ok(Reader::over(names, start, true))
            }
            _ => Ok(Reader::over(names, Position::START, false)),
        }
    }

    fn over(names: Vec<SegmentName>, last: Position, trust_first: bool) -> Reader {
        let count = names.len();
        Reader {
            segments: names.into_iter(),
            count,
            current: None,
            last,
            trust_first,
            torn: Vec::new(),
            tail: None,
            failed: false,
        }
    }

    /// The last segment's file.
    pub(super) fn last_file(&self) -> Option<&Path> {
        self.segments.as_slice().last().map(|name| name.path.as_path())
    }

    /// After the last record read.
    pub fn reached(&self) -> Position {
        self.last
    }

    /// The torn tails met so far.
    pub fn torn(&self) -> &[TornTail] {
        &self.torn
    }

    /// The last position, how the last segment ends (if there is one), and the torn tails.
    pub(super) fn finish(self) -> (Position, Option<Tail>, Vec<TornTail>) {
        (self.last, self.tail, self.torn)
    }

    /// Reads everything and says what is there; the first damage is the error.
    pub fn verify(mut self) -> Result<Summary, ReadError> {
        let mut records = 0;
        for record in &mut self {
            record?;
            records += 1;
        }
        Ok(Summary {
            segments: self.count,
            records,
            last: self.last,
            torn: self.torn,
        })
    }

    fn read_next(&mut self) -> Result<Option<Record>, ReadError> {
        loop {
            let Some(current) = &mut self.current else {
                match self.segments.next() {
                    Some(name) => self.enter(name)?,
                    None => return Ok(None),
                }
                continue;
            };
            match current.step()? {
                Step::Record(record) => {
                    self.last = record.position();
                    if let Some(tail) = &mut self.tail {
                        tail.intact = current.offset;
                    }
                    return Ok(Some(record));
                }
                Step::End => self.current = None,
                Step::Torn(torn) => {
                    self.current = None;
                    self.note_torn(torn);
                }
            }
        }
    }

    fn enter(&mut self, name: SegmentName) -> Result<(), ReadError> {
        match Segment::open(&name)? {
            Opened::Whole(segment) => {
                let trusted = std::mem::take(&mut self.trust_first) && segment.position.seq == self.last.seq;
                if segment.position != self.last && !trusted {
                    return Err(self.unlinked(&segment));
                }
                self.last = segment.position;
                self.tail = Some(Tail {
                    name,
                    intact: segment.offset,
                    torn: false,
                });
                self.current = Some(segment);
            }
            // Its writer had acknowledged nothing in it, so nothing can follow it.
            Opened::TornHeader(torn)
                if self.segments.len() == 0 && self.last.seq.checked_add(1) == Some(name.first_seq) =>
            {
                self.tail = Some(Tail {
                    name,
                    intact: 0,
                    torn: true,
                });
                self.note_torn(torn);
            }
            Opened::TornHeader(torn) => {
                let why = "the segment's header is cut short, which no crash explains here".into();
                return Err(ReadError::Damaged {
                    file: torn.file,
                    record: name.first_seq,
                    offset: 0,
                    why,
                });
            }
        }
        Ok(())
    }

    fn note_torn(&mut self, torn: TornTail) {
        if let Some(tail) = &mut self.tail {
            tail.torn = true;
        }
        self.torn.push(torn);
    }

    /// The gap is where the previous segment ends; without one, at the head of this one.
    fn unlinked(&self, segment: &Segment) -> ReadError {
        let record = self.last.seq.saturating_add(1);
        let starts = segment.position.seq.saturating_add(1);
        match &self.tail {
            Some(tail) => {
                let what = if starts == record {
                    "has another hash for this place"
                } else {
                    "does not continue here"
                };
                let why = format!("the next segment starts at record {starts} and {what}");
                ReadError::Damaged {
                    file: tail.name.path.clone(),
                    record,
                    offset: tail.intact,
                    why,
                }
            }
            None => segment.damaged(format!(
                "the journal should start at record {record} and this is its first segment"
            )),
        }
    }
}

impl Iterator for Reader {
    type Item = Result<Record, ReadError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let next = self.read_next().transpose();
        self.failed = matches!(next, Some(Err(_)));
        next
    }
}
