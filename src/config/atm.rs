//! `[[atm]]`: each machine of the fleet, its cassettes and its limits.
//!
//! Called by [`super::Config::load`]. What must stay true: no two ATMs share an id or a port (a symlink is
//! followed), and the limits leave at least one amount that the cassettes' denominations can make.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use super::reader::Section;
use super::value::{number, parsed, path, positive_amount, text};
use crate::ids::AtmId;
use crate::money::Minor;

/// More than any cassette holds: a larger count is a typing mistake.
pub const MOST_NOTES: u32 = 10_000;

/// A family of dispensers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Model {
    /// Puloon LCDM-4000: up to four cassettes.
    PuloonLcdm4000,
}

impl FromStr for Model {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "puloon-lcdm4000" => Ok(Self::PuloonLcdm4000),
            _ => Err(format!("`{text}` is not a model; known: puloon-lcdm4000")),
        }
    }
}

/// A variant of a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// As in the maker's manual.
    Standard,
    /// Each dispense command carries a serial number that can be read back.
    Serial,
}

impl FromStr for Variant {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "standard" => Ok(Self::Standard),
            "serial" => Ok(Self::Serial),
            _ => Err(format!("`{text}` is not a variant; known: standard, serial")),
        }
    }
}

/// One machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AtmConfig {
    /// Its name in the journal, the API and metrics.
    pub id: AtmId,
    /// Its name for people; the id when none is given.
    pub name: String,
    /// The dispenser.
    pub model: Model,
    /// Of the model.
    pub variant: Variant,
    /// Its serial port.
    pub path: PathBuf,
    /// The least a customer may ask for.
    pub min_amount: Minor,
    /// The most.
    pub max_amount: Minor,
    /// Most notes in one dispense order.
    pub max_notes: u32,
    /// At least one; positions differ.
    pub cassettes: Vec<CassetteConfig>,
    /// For emulators.
    pub timings: Timings,
}

/// `[[atm.cassette]]`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CassetteConfig {
    /// Position in the machine, from 1.
    pub position: u8,
    /// Value of one note; never zero.
    pub denomination: Minor,
    /// Notes inside at the first start; not used when the journal knows the cassette.
    pub notes: u32,
}

/// `[atm.timings]`, for emulators: replaces the driver's own waits where given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Timings {
    /// For the ACK of a command.
    pub ack: Option<Duration>,
    /// For the reply to a query.
    pub reply: Option<Duration>,
    /// For the reply to a reset.
    pub reset: Option<Duration>,
}

/// All ATMs. One that is wrong is noted and left out. `serves`: others' machines are this daemon's work, so that it
/// needs none of its own.
pub(super) fn fleet(root: &mut Section, serves: bool) -> Vec<AtmConfig> {
    let sections = root.sections("atm");
    if sections.is_empty() && !serves {
        root.mistake("atm", "missing: a fleet has at least one [[atm]]");
    }
    let mut ids: HashMap<AtmId, String> = HashMap::new();
    let mut ports: HashMap<PathBuf, String> = HashMap::new();
    let mut atms = Vec::new();
    for mut section in sections {
        let id: Option<AtmId> = section.required("id", parsed);
        let port = section.required("path", path(section.document.folder));
        section.unique("id", id.clone(), &mut ids);
        section.unique("path", port.as_deref().map(real), &mut ports);
        atms.extend(atm(section, id, port));
    }
    atms
}

/// What `path` stands for, as far as it exists.
fn real(path: &Path) -> PathBuf {
    if let Ok(real) = path.canonicalize() {
        return real;
    }
    let folder = path.parent().and_then(|folder| folder.canonicalize().ok());
    match (folder, path.file_name()) {
        (Some(folder), Some(name)) => folder.join(name),
        _ => path.to_owned(),
    }
}

fn atm(mut section: Section, id: Option<AtmId>, port: Option<PathBuf>) -> Option<AtmConfig> {
    let name = section.optional("name", text);
    let model = section.required("model", parsed);
    let variant = section.or("variant", parsed, Variant::Standard);
    let min_amount = section.required("min_amount", positive_amount);
    let max_amount = section.required("max_amount", positive_amount);
    let max_notes = section.or("max_notes", number(1..=100), 40);
    let timings = timings(section.section("timings"));
    let cassettes = cassettes(&mut section);
    if let (Some(min), Some(max)) = (min_amount, max_amount) {
        check_limits(&section, min, max, max_notes, &cassettes);
    }
    section.finish();
    let id = id?;
    Some(AtmConfig {
        name: name.unwrap_or_else(|| id.to_string()),
        id,
        model: model?,
        variant,
        path: port?,
        min_amount: min_amount?,
        max_amount: max_amount?,
        max_notes,
        cassettes,
        timings,
    })
}

fn cassettes(atm: &mut Section) -> Vec<CassetteConfig> {
    let sections = atm.sections("cassette");
    if sections.is_empty() {
        atm.mistake("cassette", "missing: an ATM has at least one [[atm.cassette]]");
    }
    let mut taken: HashMap<u8, String> = HashMap::new();
    let mut cassettes = Vec::new();
    for mut section in sections {
        let position = section.required("position", number(1..=4));
        let denomination = section.required("denomination", positive_amount);
        let notes = section.required("notes", number(0..=MOST_NOTES));
        section.unique("position", position, &mut taken);
        section.finish();
        if let (Some(position), Some(denomination), Some(notes)) = (position, denomination, notes) {
            cassettes.push(CassetteConfig {
                position,
                denomination,
                notes,
            });
        }
    }
    cassettes.sort_by_key(|cassette| cassette.position);
    cassettes
}

/// Notes limits between which no mix can lie. Says nothing of cassettes that are wrong themselves.
fn check_limits(section: &Section, min: Minor, max: Minor, max_notes: u32, cassettes: &[CassetteConfig]) {
    if min > max {
        section.mistake("min_amount", format!("{min} is above max_amount = {max}"));
        return;
    }
    let values = || cassettes.iter().map(|cassette| cassette.denomination);
    let (Some(smallest), Some(largest)) = (values().min(), values().max()) else {
        return;
    };
    if max < smallest {
        section.mistake("max_amount", format!("{max} is below the smallest note, {smallest}"));
    } else if largest.times(max_notes).is_some_and(|most| min > most) {
        let message = format!("{min} is more than max_notes = {max_notes} notes of {largest}");
        section.mistake("min_amount", message);
    } else {
        let step = values().fold(0, |a, b| gcd(a, b.0));
        if step > 0 && max.0 / step == (min.0 - 1) / step {
            let message = format!("no amount from {min} to {max} can be made of these notes");
            section.mistake("min_amount", message);
        }
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn timings(mut section: Section) -> Timings {
    let ms = |value: &toml::de::DeValue| number(1..=600_000_u64)(value).map(Duration::from_millis);
    let timings = Timings {
        ack: section.optional("ack_ms", ms),
        reply: section.optional("reply_ms", ms),
        reset: section.optional("reset_ms", ms),
    };
    section.finish();
    timings
}
