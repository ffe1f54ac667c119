//! The disk of a simulated history: real files, whose writes and syncs fail or are cut short.
//!
//! Faults: [`Kind::TornWrite`]: the power fails within a write or before its sync, and some first bytes of it are kept, or all, or
//! none. [`Kind::DiskFull`]: for up to two minutes a write ends half way with "no space". [`Kind::SyncFails`]: a sync fails, and
//! some of its bytes are on the disk all the same; what is synced in this file from then on is not durable, whatever the system
//! says, because the kernel has dropped the pages. What must stay true: what was synced stays; a dead daemon writes nothing; each
//! synced record is told to the rules.

use std::fs::File;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::Duration;

use super::gate::Gate;
use super::plan::Kind;
use super::scene::Scene;
use crate::journal::{SegmentFile, WrapFile};
use crate::record::Record;

/// `ENOSPC` and `EIO`.
const FULL: i32 = 28;
const BROKEN: i32 = 5;
/// Sizes in `journal/frame.rs`: of a segment's header, a frame's header and its hash.
const SEGMENT: usize = 54;
const FRAME: usize = 18;
const HASH: usize = 32;

/// One segment's file.
struct DiskFile {
    file: File,
    scene: Arc<Scene>,
    gate: Gate,
    /// Length of what is synced, and all that is written.
    synced: u64,
    len: u64,
    unsynced: Vec<u8>,
    /// A sync of it failed.
    dropped: bool,
}

/// Puts the journal of one life on this disk.
#[must_use]
pub fn wrap(scene: &Arc<Scene>, gate: &Gate) -> WrapFile {
    let (scene, gate) = (Arc::clone(scene), gate.clone());
    Arc::new(move |file: File| -> Box<dyn SegmentFile> {
        let len = file.metadata().map_or(0, |metadata| metadata.len());
        Box::new(DiskFile {
            file,
            scene: Arc::clone(&scene),
            gate: gate.clone(),
            synced: len,
            len,
            unsynced: Vec::new(),
            dropped: false,
        })
    })
}

fn failed(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

impl DiskFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.len = self.len.saturating_add(bytes.len() as u64);
        Ok(())
    }

    /// Writes some of them.
    fn write_part(&mut self, bytes: &[u8]) -> io::Result<()> {
        let most = bytes.len() as u64;
        let kept = self.scene.draw("disk", |chance| chance.within(0, most));
        self.write(bytes.get(..usize::try_from(kept).unwrap_or(0)).unwrap_or_default())
    }

    /// The power is gone: of what was not synced some is lost.
    fn lose_power(&mut self, why: &str) -> io::Result<()> {
        let (synced, len) = (self.synced, self.len);
        let kept = self.scene.draw("disk", |chance| chance.within(synced, len));
        self.file.set_len(kept)?;
        self.gate.kill(why);
        Err(failed(BROKEN))
    }

    /// Tells the rules which records are written.
    fn tell_unsynced(&self) {
        let records = records(&self.unsynced);
        self.scene.books(|books| {
            books.unsynced = records;
            Ok(())
        });
    }
}

impl SegmentFile for DiskFile {
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        if !self.gate.at("before a write") {
            return Err(failed(BROKEN));
        }
        self.unsynced.extend_from_slice(bytes);
        self.tell_unsynced();
        let share = self.scene.plan.death_per_mille;
        if self.scene.dies(Kind::TornWrite, share) {
            self.write_part(bytes)?;
            return self.lose_power("within a write");
        }
        if self.scene.strikes(Kind::DiskFull, 10) {
            let time = self.scene.draw("disk", |chance| {
                chance.time(Duration::from_secs(1), Duration::from_secs(120))
            });
            self.scene.fill_disk(time);
        }
        if self.scene.disk_is_full() {
            self.write_part(bytes)?;
            return Err(failed(FULL));
        }
        self.write(bytes)
    }

    fn sync(&mut self) -> io::Result<()> {
        if !self.gate.at("before a sync") {
            return Err(failed(BROKEN));
        }
        let share = self.scene.plan.death_per_mille;
        if self.scene.dies(Kind::TornWrite, share) {
            return self.lose_power("before a sync");
        }
        if self.scene.strikes(Kind::SyncFails, 4) {
            self.scene.step("disk", || "a sync fails".to_owned());
            self.dropped = true;
            return Err(failed(BROKEN));
        }
        if self.dropped {
            return Ok(());
        }
        let bytes = std::mem::take(&mut self.unsynced);
        self.synced = self.len;
        for record in records(&bytes) {
            self.scene.step("durable", || describe(&record));
            self.scene.count(|figures| figures.records += 1);
            let now = self.scene.now();
            self.scene.look(|side| {
                self.scene.books(|books| books.synced(&record, now, side));
                self.scene.books(|books| books.told(&record, side));
            });
        }
        self.scene.books(|books| {
            books.unsynced.clear();
            Ok(())
        });
        // Killed here, it has told nobody yet.
        match self.gate.at("after a sync") {
            true => Ok(()),
            false => Err(failed(BROKEN)),
        }
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        if self.gate.is_dead() {
            return Err(failed(BROKEN));
        }
        self.file.set_len(len)?;
        self.len = len;
        self.synced = self.synced.min(len);
        self.unsynced.clear();
        self.scene.books(|books| {
            books.unsynced.clear();
            Ok(())
        });
        Ok(())
    }
}

fn describe(record: &Record) -> String {
    let (item, event) = record.body.name();
    format!("{item} {event}: {:?}", record.body)
}

/// The records in bytes that were appended together: whole frames, or a segment's header.
fn records(bytes: &[u8]) -> Vec<Record> {
    let mut found = Vec::new();
    let mut rest = bytes;
    if rest.starts_with(b"TELLERDJ") {
        rest = rest.get(SEGMENT..).unwrap_or_default();
    }
    while let Some(header) = rest.first_chunk::<FRAME>() {
        let len = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize;
        let Some(payload) = rest.get(FRAME..FRAME + len) else {
            break;
        };
        found.extend(Record::decode(header[4], payload));
        rest = rest.get(FRAME + len + HASH..).unwrap_or_default();
    }
    found
}
