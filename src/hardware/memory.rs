//! A serial line in memory: the same bytes between the same driver and the same emulator, without a pseudo-terminal.
//!
//! Called by simulations of fleets that are larger than a system has terminals. Must stay true: as with a real port, one host at
//! a time has it open; a host that opens it finds nothing of what came before; a device that goes away is a read of zero bytes.

use std::io;
use std::sync::Arc;

use tokio::io::DuplexStream;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use super::port::{Connect, Port};
use super::puloon::emulator::Emulator;

/// Bytes on their way in one direction, as in a terminal's buffer.
const BUFFER: usize = 4096;

/// The device's end: each time a host opens the line it gets a new connection.
#[derive(Debug)]
pub struct Socket(UnboundedReceiver<DuplexStream>);

/// A line, and the device's end of it.
#[must_use]
pub fn line() -> (Connect, Socket) {
    let (hosts, socket) = unbounded_channel();
    (Arc::new(move || connect(&hosts)), Socket(socket))
}

fn connect(hosts: &UnboundedSender<DuplexStream>) -> io::Result<Box<dyn Port>> {
    let (host, device) = tokio::io::duplex(BUFFER);
    let gone = |_| io::Error::new(io::ErrorKind::NotFound, "the device is gone");
    hosts.send(device).map_err(gone)?;
    Ok(Box::new(host))
}

/// Serves `emulator` to whoever opens the line, until dropped, or until nobody can open it any more.
///
/// # Errors
/// When the emulator's ledger fails.
pub async fn serve(emulator: &Emulator, mut socket: Socket) -> io::Result<()> {
    while let Some(host) = socket.0.recv().await {
        match emulator.serve(host).await {
            // The host has left while the device was speaking: its bytes go nowhere, as on a wire.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            ended => _ = ended?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;
    use crate::hardware::device::{DeviceConfig, Model, open};
    use crate::hardware::port::Line;
    use crate::hardware::puloon::driver::Variant;
    use crate::hardware::puloon::emulator::{Fault, PlannedFault, Setup, Target};

    #[tokio::test(start_paused = true)]
    async fn a_host_that_leaves_within_an_answer_may_come_back() {
        let (connect, socket) = line();
        let emulator = Emulator::new(Variant::Standard, Setup::default()).unwrap();
        emulator.handle().inject(PlannedFault {
            command: Target::Status,
            nth: None,
            fault: Fault::Late { ms: 20_000 },
        });
        let mut config = DeviceConfig {
            line: Line::Memory(connect),
            ..DeviceConfig::new(Model::PuloonLcdm4000, Variant::Standard, "")
        };
        config.timings.reply = Duration::from_secs(3);
        let host = async move {
            assert!(open(&config).await.unwrap().initialise().await.is_err(), "too late");
            // While it is at the late answer it hears nobody.
            let mut tries = 0;
            while open(&config).await.unwrap().initialise().await.is_err() {
                tries += 1;
                assert!(tries < 30);
            }
        };
        let served = async {
            tokio::join!(host, serve(&emulator, socket)).1.unwrap();
        };
        timeout(Duration::from_secs(120), served).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn the_real_driver_talks_to_the_emulator_and_opens_the_line_anew() {
        let (connect, socket) = line();
        let emulator = Emulator::new(Variant::Standard, Setup::default()).unwrap();
        let config = DeviceConfig {
            line: Line::Memory(connect),
            ..DeviceConfig::new(Model::PuloonLcdm4000, Variant::Standard, "")
        };
        let host = async move {
            for _ in 0..2 {
                let mut driver = open(&config).await.unwrap();
                let status = driver.initialise().await.unwrap();
                assert!(status.path_clear, "{status:?}");
            }
        };
        let served = async {
            tokio::join!(host, serve(&emulator, socket)).1.unwrap();
        };
        timeout(Duration::from_secs(60), served).await.unwrap();
    }
}
