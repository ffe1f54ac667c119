//! Turn-taking with an LCDM-4000: command, ACK, reply, host's ACK, EOT.
//!
//! Called by the driver only. Must stay true: only a query leaves more than once; a reply is only
//! accepted for the command it names; after anything but a clean end every further command fails
//! until the port is opened again, so that no command eats another's answer.
//! Source: puloon-lcdm.md, section B.

use std::collections::VecDeque;
use std::pin::pin;

use futures_util::FutureExt;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Duration, Instant, timeout, timeout_at};

use super::codec::{ACK, Decoded, EOT, Frame, NAK, SOH, decode, encode};
use super::command::{Class, Command};
use super::timings::Timings;
use crate::hardware::DeviceError;

/// How often a query is resent, and how often a corrupt reply is asked for again.
const RETRIES: u32 = 3;
/// Late frames that are acknowledged after opening before the link is given up.
const LATE_FRAMES: u32 = 16;
/// Bytes without a silence after which a device babbles; a frame has less than a hundred.
const BABBLE_BYTES: usize = 4 << 10;
/// Time without a silence after which a device babbles.
const BABBLE_TIME: Duration = Duration::from_secs(5);

/// Why a command has no reply.
#[derive(Debug)]
pub enum Failed {
    /// No byte of it left the host.
    NotSent(DeviceError),
    /// The device answered NAK.
    Refused,
    /// It left, and what became of it is not known.
    Lost(DeviceError),
}

impl Failed {
    /// For commands where the difference does not matter.
    pub fn into_error(self, command: Command) -> DeviceError {
        match self {
            Self::NotSent(error) | Self::Lost(error) => error,
            Self::Refused => DeviceError::Protocol {
                command: command.name(),
                detail: "the device answers NAK (0x15)".into(),
            },
        }
    }
}

enum Received {
    Frame(Frame),
    Corrupt(String),
    Silence,
}

enum Answer {
    Ack,
    Nak,
    Silence,
}

/// The host's end of the line, just opened.
#[derive(Debug)]
pub struct Link<P> {
    port: P,
    timings: Timings,
    input: VecDeque<u8>,
    /// The command after which the two ends may disagree about whose turn it is. Set while one runs,
    /// so that an abandoned future leaves it set.
    unclean: Option<&'static str>,
    /// A query was answered since the port was opened. Until then, late replies to commands
    /// of an earlier process are acknowledged and dropped.
    settled: bool,
}

impl<P: AsyncRead + AsyncWrite + Send + Unpin> Link<P> {
    /// A link on a port that was just opened.
    pub fn new(port: P, timings: Timings) -> Self {
        Self {
            port,
            timings,
            input: VecDeque::new(),
            unclean: None,
            settled: false,
        }
    }

    /// Sends a command and returns the data of its reply.
    pub async fn exchange(&mut self, command: Command, data: &[u8]) -> Result<Vec<u8>, Failed> {
        let resent = self.submit(command, data).await?;
        let reply = self.reply(command).await.map_err(Failed::Lost)?;
        let doubtful = resent || !self.settled;
        self.settled = true;
        if doubtful && self.unclean.is_none() && self.drain(self.timings.ack).await.is_err() {
            self.unclean = Some(command.name());
        }
        Ok(reply)
    }

    /// Sends a command that has no reply.
    pub async fn send(&mut self, command: Command, data: &[u8]) -> Result<(), Failed> {
        self.submit(command, data).await?;
        self.unclean = None;
        Ok(())
    }

    /// Waits for one more reply to the last command.
    pub async fn next_reply(&mut self, command: Command) -> Result<Vec<u8>, DeviceError> {
        if let Some(after) = self.unclean {
            return Err(DeviceError::OutOfSync(after));
        }
        self.unclean = Some(command.name());
        self.reply(command).await
    }

    /// Sends until it is acknowledged; returns whether it had to be resent.
    async fn submit(&mut self, command: Command, data: &[u8]) -> Result<bool, Failed> {
        self.begin(command).await.map_err(Failed::NotSent)?;
        let query = command.class() == Class::Query;
        let tries = if query { 1 + RETRIES } else { 1 };
        let bytes = encode(command, data);
        for attempt in 1..=tries {
            self.write(&bytes).await.map_err(Failed::Lost)?;
            match self.acknowledgement(command).await.map_err(Failed::Lost)? {
                Answer::Ack => return Ok(attempt > 1),
                Answer::Nak if attempt == tries => {
                    self.unclean = None;
                    return Err(Failed::Refused);
                }
                Answer::Nak | Answer::Silence => {}
            }
        }
        Err(Failed::Lost(timed_out(command, self.timings.ack * tries)))
    }

    /// Checks that nothing is pending from an earlier command.
    async fn begin(&mut self, command: Command) -> Result<(), DeviceError> {
        if let Some(after) = self.unclean {
            return Err(DeviceError::OutOfSync(after));
        }
        if self.settled {
            self.until_silent(Duration::ZERO).await?;
            self.input.retain(|byte| *byte != EOT);
            if !self.input.is_empty() {
                self.unclean = Some("a late reply");
                return Err(DeviceError::OutOfSync("a late reply"));
            }
        } else if command.class() == Class::Query {
            self.drain(self.timings.gap).await?;
        } else {
            return Err(DeviceError::NotReady(
                "the port was just opened; a query has to come first".into(),
            ));
        }
        self.unclean = Some(command.name());
        Ok(())
    }

    async fn acknowledgement(&mut self, command: Command) -> Result<Answer, DeviceError> {
        let mut deadline = Instant::now() + self.timings.ack;
        let mut late = 0;
        loop {
            match self.byte(deadline).await? {
                None => return Ok(Answer::Silence),
                Some(ACK) => return Ok(Answer::Ack),
                Some(NAK) => return Ok(Answer::Nak),
                // Some may come without end.
                Some(EOT) if Instant::now() >= deadline => return Ok(Answer::Silence),
                Some(EOT) => {}
                Some(SOH) if !self.settled && late < LATE_FRAMES => {
                    late += 1;
                    self.input.push_front(SOH);
                    if let Received::Frame(_) = self.frame(deadline).await? {
                        self.write(&[ACK]).await?;
                        deadline = Instant::now() + self.timings.ack;
                    } else {
                        self.input.clear();
                    }
                }
                Some(byte) => {
                    return Err(DeviceError::Protocol {
                        command: command.name(),
                        detail: format!("byte 0 is 0x{byte:02X} in place of ACK (0x06)"),
                    });
                }
            }
        }
    }

    /// Waits for the reply and acknowledges it; asks for it again when it is corrupt.
    async fn reply(&mut self, command: Command) -> Result<Vec<u8>, DeviceError> {
        let started = Instant::now();
        let mut deadline = started + self.timings.reply;
        let (mut naks, mut late) = (0, 0);
        loop {
            let wrong = match self.frame(deadline).await? {
                Received::Frame(frame) if frame.command == command => {
                    if self.finish(&frame).await.unwrap_or(false) {
                        self.unclean = None;
                    }
                    return Ok(frame.data);
                }
                Received::Frame(_) if !self.settled && late < LATE_FRAMES => {
                    late += 1;
                    self.write(&[ACK]).await?;
                    deadline = Instant::now() + self.timings.reply;
                    continue;
                }
                Received::Frame(frame) => format!("byte 3 answers {}", frame.command.name()),
                Received::Corrupt(_) if naks < RETRIES => {
                    naks += 1;
                    self.quiet().await?;
                    self.write(&[NAK]).await?;
                    deadline = Instant::now() + self.timings.ack;
                    continue;
                }
                Received::Corrupt(why) => why,
                Received::Silence => return Err(timed_out(command, started.elapsed())),
            };
            return Err(DeviceError::Protocol {
                command: command.name(),
                detail: wrong,
            });
        }
    }

    /// Acknowledges `frame` and waits for EOT. Whether the exchange ended cleanly; what the frame says
    /// is known either way.
    async fn finish(&mut self, frame: &Frame) -> Result<bool, DeviceError> {
        for _ in 0..=RETRIES {
            self.write(&[ACK]).await?;
            match self.byte(Instant::now() + self.timings.ack).await? {
                Some(EOT) | None => return Ok(true),
                Some(SOH) => {
                    // The device did not see the ACK, or sends its reply twice.
                    self.input.push_front(SOH);
                    match self.frame(Instant::now()).await? {
                        Received::Frame(again) if again == *frame => {}
                        _ => return Ok(false),
                    }
                }
                Some(_) => return Ok(false),
            }
        }
        Ok(false)
    }

    /// Acknowledges and drops what an earlier command left behind, until nothing comes for `silence`.
    async fn drain(&mut self, silence: Duration) -> Result<(), DeviceError> {
        for _ in 0..LATE_FRAMES {
            self.until_silent(silence).await?;
            let bytes = self.input.make_contiguous();
            let frame = (0..bytes.len()).any(|at| {
                let rest = bytes.get(at..).unwrap_or_default();
                matches!(decode(rest), Decoded::Frame { .. })
            });
            self.input.clear();
            if !frame {
                return Ok(());
            }
            self.write(&[ACK]).await?;
        }
        Err(DeviceError::OutOfSync("late replies without end"))
    }

    /// Reads until nothing comes for `silence`. A device that never is silent takes neither time nor memory without end.
    async fn until_silent(&mut self, silence: Duration) -> Result<(), DeviceError> {
        let until = Instant::now() + BABBLE_TIME;
        while self.fill(Instant::now() + silence).await? {
            if self.input.len() > BABBLE_BYTES || Instant::now() >= until {
                return Err(DeviceError::OutOfSync("bytes without end"));
            }
        }
        Ok(())
    }

    /// Drops input until the device is silent.
    async fn quiet(&mut self) -> Result<(), DeviceError> {
        self.until_silent(self.timings.gap).await?;
        self.input.clear();
        Ok(())
    }

    /// The next frame; its first byte is waited for until `deadline`.
    async fn frame(&mut self, deadline: Instant) -> Result<Received, DeviceError> {
        loop {
            match decode(self.input.make_contiguous()) {
                Decoded::Frame { frame, length } => {
                    self.input.drain(..length.min(self.input.len()));
                    return Ok(Received::Frame(frame));
                }
                Decoded::Corrupt { offset, why } => return Ok(Received::Corrupt(format!("byte {offset}: {why}"))),
                Decoded::Incomplete => {}
            }
            let begun = !self.input.is_empty();
            let until = if begun {
                Instant::now() + self.timings.gap
            } else {
                deadline
            };
            if !self.fill(until).await? {
                return Ok(if begun {
                    Received::Corrupt(format!("byte {}: missing, the frame ends early", self.input.len()))
                } else {
                    Received::Silence
                });
            }
        }
    }

    async fn byte(&mut self, deadline: Instant) -> Result<Option<u8>, DeviceError> {
        if self.input.is_empty() && !self.fill(deadline).await? {
            return Ok(None);
        }
        Ok(self.input.pop_front())
    }

    /// Reads what comes until `deadline`; `false` when nothing came.
    async fn fill(&mut self, deadline: Instant) -> Result<bool, DeviceError> {
        let mut chunk = [0; 64];
        let read = self.port.read(&mut chunk);
        let read = match deadline <= Instant::now() {
            true => by_now(read).await,
            false => timeout_at(deadline, read).await.ok(),
        };
        match read {
            None => Ok(false),
            Some(Ok(0)) => Err(DeviceError::LinkLost("end of file: unplugged".into())),
            Some(Ok(count)) => {
                self.input.extend(chunk.iter().take(count));
                Ok(true)
            }
            Some(Err(error)) => Err(DeviceError::LinkLost(error.to_string())),
        }
    }

    /// Hands `bytes` to the port. It is not flushed: of a serial port that is `tcdrain`, which blocks the thread, and with it every
    /// machine of the fleet, until the last bit is on the wire.
    async fn write(&mut self, bytes: &[u8]) -> Result<(), DeviceError> {
        match timeout(self.timings.ack, self.port.write_all(bytes)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(DeviceError::LinkLost(error.to_string())),
            Err(_) => Err(DeviceError::LinkLost("the port takes no bytes".into())),
        }
    }
}

/// What `read` gives without waiting. A timer's shortest wait is a millisecond, and every command begins with this question. It is
/// asked twice: what has come shows when the reactor has looked at the port.
async fn by_now<T>(read: impl Future<Output = T>) -> Option<T> {
    let mut read = pin!(read);
    if let Some(done) = read.as_mut().now_or_never() {
        return Some(done);
    }
    tokio::task::yield_now().await;
    read.now_or_never()
}

fn timed_out(command: Command, after: Duration) -> DeviceError {
    DeviceError::Timeout {
        command: command.name(),
        after_ms: u64::try_from(after.as_millis()).unwrap_or(u64::MAX),
    }
}

#[cfg(test)]
#[path = "link_tests.rs"]
mod tests;
