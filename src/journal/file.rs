//! The file under a segment being written, and creating one.
//!
//! Called by the writer thread and by `Journal::start`. [`SegmentFile`] is the seam at which tests
//! inject failing writes and syncs; everything else goes to the file system directly.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::segment::path_of;
use super::{Position, frame};

/// What the writer does with a segment. Writes go to the end of the file.
pub trait SegmentFile: Send {
    /// Appends all of `bytes`; on failure some of them may have been written.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()>;
    /// Makes everything appended durable.
    fn sync(&mut self) -> io::Result<()>;
    /// Cuts the file back to `len` bytes.
    fn truncate(&mut self, len: u64) -> io::Result<()>;
}

impl SegmentFile for File {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.write_all(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }
}

/// Puts a [`SegmentFile`] around each file opened for appending.
pub type WrapFile = Arc<dyn Fn(File) -> Box<dyn SegmentFile> + Send + Sync>;

/// The segment that is written to.
pub(super) struct Active {
    pub path: PathBuf,
    pub file: Box<dyn SegmentFile>,
    /// Its length in acknowledged bytes.
    pub len: u64,
}

/// Why a segment was not created.
pub(super) struct CreateError {
    pub path: PathBuf,
    pub source: io::Error,
    /// The unfinished file could not be removed again.
    pub left_behind: bool,
}

/// Creates the segment for the records after `last`, durable together with its directory entry.
pub(super) fn create(folder: &Path, last: Position, wrap: &WrapFile) -> Result<Active, CreateError> {
    let first_seq = last.seq.saturating_add(1);
    let path = path_of(folder, first_seq);
    let opened = OpenOptions::new().append(true).create_new(true).open(&path);
    let mut file = match opened {
        Ok(file) => wrap(file),
        Err(source) => {
            return Err(CreateError {
                path,
                source,
                left_behind: false,
            });
        }
    };
    let header = frame::segment_header(first_seq, last.hash);
    match file
        .append(&header)
        .and_then(|()| file.sync())
        .and_then(|()| sync_folder(folder))
    {
        Ok(()) => Ok(Active {
            path,
            file,
            len: header.len() as u64,
        }),
        Err(source) => {
            let left_behind = std::fs::remove_file(&path).is_err();
            Err(CreateError {
                path,
                source,
                left_behind,
            })
        }
    }
}

/// Opens a segment that ends cleanly at `len` for appending.
pub(super) fn reopen(path: &Path, len: u64, wrap: &WrapFile) -> io::Result<Active> {
    let file = OpenOptions::new().append(true).open(path)?;
    Ok(Active {
        path: path.to_path_buf(),
        file: wrap(file),
        len,
    })
}

/// Makes a folder's entries durable.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
