//! The command `tellerd emulate relay`, without its argument parsing.
//!
//! Called by the CLI. It prints to standard output what an operator would want to see.

use std::io::{self, Write};

use tokio::signal::unix::{SignalKind, signal};

use super::{RelayError, RelayHandle, RelayOptions};

/// Runs a relay until SIGINT or SIGTERM, and prints at the end what it did.
///
/// # Errors
/// When its port is taken.
pub async fn run_relay(options: RelayOptions) -> Result<(), RelayError> {
    let relay = RelayHandle::start(options).await?;
    let mut terminate = signal(SignalKind::terminate()).map_err(RelayError::Signal)?;
    // Whoever read it may have left; the relay goes on without.
    _ = writeln!(io::stdout(), "emulated relay on {}", relay.url());
    tokio::select! {
        pressed = tokio::signal::ctrl_c() => pressed.map_err(RelayError::Signal)?,
        _ = terminate.recv() => {}
    }
    _ = writeln!(io::stdout(), "{:?}", relay.counts());
    Ok(())
}
