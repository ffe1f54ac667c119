//! The device's end of the line: takes commands, acknowledges, acts, answers, misbehaves as planned.
//!
//! Called by the emulator. Must stay true: while motors run nothing is read, so that a command sent
//! meanwhile is acknowledged when they stop. Source: puloon-lcdm.md, section B.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{sleep, timeout};

use super::ledger::What;
use super::script::Fault;
use super::wire::{END, NOT_RECEIVED, RECEIVED, Request, answer, read_request};
use super::{Emulator, End};

/// A host's frame comes within this time or is dropped.
const FRAME_MS: u64 = 200;
/// Bytes that the line does not take within this time are lost, as on a wire.
const WRITE_MS: u64 = 1000;
/// How often a reply is sent again on NAK.
const REPEATS: u32 = 3;

pub(super) struct Line<'a, P> {
    emulator: &'a Emulator,
    port: P,
    input: Vec<u8>,
}

impl<'a, P: AsyncRead + AsyncWrite + Unpin> Line<'a, P> {
    pub(super) fn new(emulator: &'a Emulator, port: P) -> Self {
        Self {
            emulator,
            port,
            input: Vec::new(),
        }
    }

    pub(super) async fn serve(mut self) -> io::Result<End> {
        loop {
            let Some((command, data)) = self.command().await? else {
                return Ok(End::HostLeft);
            };
            let faults = self.emulator.received(command)?;
            if let Some(end) = self.carry_out(command, &data, faults).await? {
                return Ok(end);
            }
        }
    }

    /// The next whole command; `None` when the other end is closed.
    async fn command(&mut self) -> io::Result<Option<(u8, Vec<u8>)>> {
        loop {
            // Anything but the start of a frame is left over from an exchange: an ACK too many.
            let start = self.input.iter().position(|byte| *byte == 0x04);
            self.input.drain(..start.unwrap_or(self.input.len()));
            match read_request(&self.input, self.emulator.serial_variant) {
                Request::Good(command, data) => {
                    let length = data.len() + 6;
                    self.input.drain(..length.min(self.input.len()));
                    return Ok(Some((command, data)));
                }
                Request::Bad => {
                    self.input.clear();
                    self.write(&[NOT_RECEIVED]).await?;
                }
                Request::Partial if self.input.is_empty() => {
                    if !self.more().await? {
                        return Ok(None);
                    }
                }
                Request::Partial => match timeout(Duration::from_millis(FRAME_MS), self.more()).await {
                    Ok(Ok(true)) => {}
                    Ok(Ok(false)) => return Ok(None),
                    Ok(Err(error)) => return Err(error),
                    Err(_) => self.input.clear(),
                },
            }
        }
    }

    async fn carry_out(&mut self, command: u8, data: &[u8], faults: Vec<Fault>) -> io::Result<Option<End>> {
        for fault in &faults {
            match fault {
                Fault::NoAck { carried_out } => {
                    if *carried_out {
                        self.act(command, data, &faults).await?;
                    }
                    return Ok(None);
                }
                Fault::Nak => {
                    self.write(&[NOT_RECEIVED]).await?;
                    return Ok(None);
                }
                _ => {}
            }
        }
        self.write(&[RECEIVED]).await?;
        for fault in &faults {
            if let Fault::AckThenSilent { carried_out } = fault {
                if *carried_out {
                    self.act(command, data, &faults).await?;
                }
                return Ok(None);
            }
        }
        if command == 0x44 && self.emulator.serial_variant {
            // One reply before the motors move, one after.
            if let Some(end) = self.answer(&answer(command, &[0x20]), &[]).await? {
                return Ok(Some(end));
            }
        }
        let Some(reply) = self.act(command, data, &faults).await? else {
            return Ok(None);
        };
        if command == 0x44 && !self.emulator.serial_variant {
            return Ok(None);
        }
        self.answer(&answer(command, &reply), &faults).await
    }

    /// Does what the command says; `None` when the device can not answer any more.
    async fn act(&mut self, command: u8, data: &[u8], faults: &[Fault]) -> io::Result<Option<Vec<u8>>> {
        let emulator = self.emulator;
        emulator.free(command).await;
        match command {
            0x52 => {
                let mut run = emulator.machine().start(data, faults.to_vec())?;
                while emulator.machine().step(&mut run)? {
                    motors(emulator.setup.note_ms).await;
                }
                emulator.machine().end(&run)
            }
            0x51 => {
                motors(emulator.setup.purge_ms).await;
                emulator.machine().purge().map(Some)
            }
            0x44 => {
                motors(emulator.setup.purge_ms).await;
                emulator.machine().reset().map(Some)
            }
            0x50 => Ok(Some(emulator.machine().status())),
            0x55 => Ok(Some(emulator.machine().last_status())),
            0x67 if emulator.serial_variant => Ok(Some(emulator.machine().last_serial())),
            0x5E => Ok(Some(vec![0x20])),
            _ => Ok(Some(vec![0x50])),
        }
    }

    /// Sends a reply until the host has it or gives up.
    async fn answer(&mut self, frame: &[u8], faults: &[Fault]) -> io::Result<Option<End>> {
        let mut bad = 0;
        for fault in faults {
            match fault {
                Fault::Late { ms } => motors(*ms).await,
                Fault::Interim { bytes } => {
                    let bytes = hex::decode(bytes).map_err(io::Error::other)?;
                    self.write(&bytes).await?;
                }
                Fault::CutReply { after_bytes } => {
                    self.write(frame.get(..*after_bytes).unwrap_or(frame)).await?;
                    return Ok(Some(End::Cut));
                }
                Fault::BadChecksum { times } => bad = *times,
                _ => {}
            }
        }
        for sending in 0..=REPEATS {
            let mut bytes = frame.to_vec();
            if let Some(sum) = bytes.last_mut().filter(|_| sending < bad) {
                *sum ^= 0x55;
            }
            if sending == 0 && faults.contains(&Fault::DuplicateReply) {
                bytes.extend_from_slice(frame);
            }
            self.write(&bytes).await?;
            let wait = Duration::from_millis(self.emulator.setup.host_ack_ms);
            match timeout(wait, self.turn()).await {
                Ok(Ok(Some(RECEIVED))) => {
                    self.write(&[END]).await?;
                    return Ok(None);
                }
                Ok(Ok(Some(NOT_RECEIVED))) => {}
                Ok(Ok(Some(other))) => {
                    // The host went on without an ACK.
                    self.input.insert(0, other);
                    return Ok(None);
                }
                Ok(Ok(None)) => return Ok(Some(End::HostLeft)),
                Ok(Err(error)) => return Err(error),
                Err(_) => return Ok(None),
            }
        }
        Ok(None)
    }

    async fn turn(&mut self) -> io::Result<Option<u8>> {
        if self.input.is_empty() && !self.more().await? {
            return Ok(None);
        }
        Ok(Some(self.input.remove(0)))
    }

    async fn more(&mut self) -> io::Result<bool> {
        let mut chunk = [0; 64];
        let count = self.port.read(&mut chunk).await?;
        self.input.extend(chunk.iter().take(count));
        Ok(count > 0)
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let written = timeout(Duration::from_millis(WRITE_MS), async {
            self.port.write_all(bytes).await?;
            self.port.flush().await
        });
        written.await.unwrap_or(Ok(()))
    }
}

async fn motors(ms: u64) {
    if ms > 0 {
        sleep(Duration::from_millis(ms)).await;
    }
}

impl Emulator {
    /// Notes the command and takes the faults planned for it.
    fn received(&self, command: u8) -> io::Result<Vec<Fault>> {
        let mut state = self.state();
        state.machine.ledger.record(What::CommandReceived { command })?;
        let count = state.counts.entry(command).or_insert(0);
        *count += 1;
        let nth = *count;
        let mut taken = Vec::new();
        let mut unnumbered = false;
        state.faults.retain(|planned| {
            let mine = planned.command.code() == command;
            let now = match planned.nth {
                Some(planned) => planned == nth,
                None => mine && !std::mem::replace(&mut unnumbered, true),
            };
            if mine && now {
                taken.push(planned.fault.clone());
            }
            !(mine && now)
        });
        for fault in &taken {
            state
                .machine
                .ledger
                .record(What::FaultApplied { fault: fault.clone() })?;
        }
        Ok(taken)
    }
}
