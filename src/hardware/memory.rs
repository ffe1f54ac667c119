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
            // On a wire the answer goes nowhere, and nobody tells the device.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            ended => _ = ended?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncWriteExt as _;
    use tokio::time::timeout;

    use super::*;
    use crate::hardware::device::{DeviceConfig, Model, open};
    use crate::hardware::port::Line;
    use crate::hardware::puloon::driver::Variant;
    use crate::hardware::puloon::emulator::Setup;

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

    #[tokio::test(start_paused = true)]
    async fn a_device_whose_host_left_before_the_answer_serves_the_next_one() {
        let (connect, socket) = line();
        let emulator = Emulator::new(Variant::Standard, Setup::default()).unwrap();
        let mut host = connect().unwrap();
        host.write_all(&[0x04, 0x30, 0x02, 0x50, 0x03, 0x65]).await.unwrap();
        drop(host);
        drop(connect);
        let served = serve(&emulator, socket);
        timeout(Duration::from_secs(60), served).await.unwrap().unwrap();
        assert_eq!(emulator.handle().events().len(), 1, "the command came in whole");
    }
}
