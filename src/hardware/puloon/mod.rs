//! Puloon LCDM-4000 and the variant with serial numbers (LCDM protocol with id 0x30).
//!
//! Owns the device's frames, commands and link, the driver and, apart from them, the emulator.
//! Called through [`crate::hardware::Dispenser`]. Source: dispensers/puloon-lcdm.md, sections B and C.

pub mod codec;
pub mod command;
pub mod driver;
pub mod emulator;
pub mod evidence;
pub mod link;
pub mod reply;
pub mod timings;
