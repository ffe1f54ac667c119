//! How long the host waits for an LCDM-4000.
//!
//! Part of the device's configuration. Source: puloon-lcdm.md, section B; where it is silent, said at the field.

use std::time::Duration;

/// Waiting times of the link. The defaults are the sheet's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timings {
    /// From a command to its ACK, from a NAK to the repeated reply, from the host's ACK to EOT.
    pub ack: Duration,
    /// From the device's ACK to its reply.
    pub reply: Duration,
    /// Silence that ends a frame which is not complete: the whole frame's time in the LCDM-1000 manual.
    pub gap: Duration,
    /// After a reset without a reply.
    pub reset: Duration,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            ack: Duration::from_millis(500),
            reply: Duration::from_secs(60),
            gap: Duration::from_millis(200),
            reset: Duration::from_secs(2),
        }
    }
}
