//! From configuration to an open [`Dispenser`].
//!
//! Called by the dispenser actor each time it (re)opens a port. The one place that names device families.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio_serial::Parity;

use super::port::Line;
use super::puloon::driver::{MAX_NOTES, Puloon, Variant};
use super::puloon::timings::Timings;
use super::{DeviceError, Dispenser};

const PULOON_LCDM4000: &str = "puloon-lcdm4000";

/// A model tellerd can drive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Model {
    /// Puloon LCDM-4000.
    PuloonLcdm4000,
}

/// A model or variant that does not exist.
#[derive(Debug, Error)]
#[error("`{name}` is not a {what}; known: {known}")]
pub struct UnknownName {
    name: String,
    what: &'static str,
    known: &'static str,
}

impl FromStr for Model {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        match name {
            PULOON_LCDM4000 => Ok(Self::PuloonLcdm4000),
            _ => Err(UnknownName {
                name: name.to_owned(),
                what: "dispenser model",
                known: PULOON_LCDM4000,
            }),
        }
    }
}

impl TryFrom<String> for Model {
    type Error = UnknownName;

    fn try_from(name: String) -> Result<Self, UnknownName> {
        name.parse()
    }
}

impl From<Model> for String {
    fn from(model: Model) -> Self {
        model.to_string()
    }
}

impl fmt::Display for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::PuloonLcdm4000 => PULOON_LCDM4000,
        })
    }
}

impl FromStr for Variant {
    type Err = UnknownName;

    fn from_str(name: &str) -> Result<Self, UnknownName> {
        match name {
            "standard" => Ok(Self::Standard),
            "serial" => Ok(Self::Serial),
            _ => Err(UnknownName {
                name: name.to_owned(),
                what: "variant",
                known: "standard, serial",
            }),
        }
    }
}

/// How one dispenser is reached.
#[derive(Debug, Clone)]
pub struct DeviceConfig {
    /// The device family.
    pub model: Model,
    /// Its dialect.
    pub variant: Variant,
    /// Where it is.
    pub line: Line,
    /// Most notes in one order, over all cassettes.
    pub max_notes: u32,
    /// Waiting times.
    pub timings: Timings,
}

impl DeviceConfig {
    /// The model's defaults on `path`.
    #[must_use]
    pub fn new(model: Model, variant: Variant, path: impl Into<String>) -> Self {
        Self {
            model,
            variant,
            line: Line::serial(path),
            max_notes: MAX_NOTES,
            timings: Timings::default(),
        }
    }
}

/// Opens the port. Nothing is sent: call [`Dispenser::initialise`] next.
///
/// # Errors
/// [`DeviceError::Open`] when the port can not be opened, also when it is in use.
pub async fn open(config: &DeviceConfig) -> Result<Box<dyn Dispenser>, DeviceError> {
    match config.model {
        Model::PuloonLcdm4000 => {
            let parity = match config.variant {
                Variant::Standard => Parity::None,
                Variant::Serial => Parity::Even,
            };
            let port = config.line.open(9600, parity).await?;
            Ok(Box::new(Puloon::new(
                port,
                config.variant,
                config.max_notes,
                config.timings,
            )))
        }
    }
}
