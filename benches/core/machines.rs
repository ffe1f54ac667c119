//! Emulated dispensers that answer at once, on a thread of their own: on ptys, or on lines in memory.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use tellerd::hardware::memory;
use tellerd::hardware::port::Connect;
use tellerd::hardware::pty::Pty;
use tellerd::hardware::puloon::driver::Variant;
use tellerd::hardware::puloon::emulator::{Emulator, EmulatorHandle, Setup};
use tellerd::ids::AtmId;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::node::Thread;

/// Notes in each of two cassettes, more than any part takes.
pub const NOTES: u32 = 10_000;

/// The machines' thread.
pub struct Machines {
    thread: Thread,
    pub lines: BTreeMap<AtmId, Connect>,
    pub handles: Vec<EmulatorHandle>,
}

/// When the last dispense command began to come in.
pub type Begun = Arc<Mutex<Option<Instant>>>;

pub fn name(index: usize) -> AtmId {
    format!("atm-{index:05}").parse().unwrap()
}

fn emulator() -> Emulator {
    let setup = Setup {
        cassettes: [i64::from(NOTES), i64::from(NOTES), -1, -1],
        host_ack_ms: 100,
        ..Setup::default()
    };
    Emulator::new(Variant::Standard, setup).unwrap()
}

impl Machines {
    fn none() -> Self {
        Self {
            thread: Thread::start("machines"),
            lines: BTreeMap::new(),
            handles: Vec::new(),
        }
    }

    /// As many with lines in memory.
    pub fn in_memory(count: usize) -> Self {
        let mut machines = Self::none();
        for index in 0..count {
            let (connect, socket) = memory::line();
            let emulator = emulator();
            machines.handles.push(emulator.handle());
            machines.lines.insert(name(index), connect);
            machines.spawn(async move { memory::serve(&emulator, socket).await });
        }
        machines
    }

    /// As many on ptys, behind links of their names in `dir`.
    pub fn on_ptys(count: usize, dir: &Path) -> (Self, Begun) {
        let (mut machines, begun) = (Self::none(), Begun::default());
        for index in 0..count {
            let emulator = emulator();
            machines.handles.push(emulator.handle());
            let (link, begun) = (dir.join(name(index).as_str()), Arc::clone(&begun));
            let entered = machines.thread.enter();
            let mut pty = Pty::open(&link).unwrap();
            drop(entered);
            machines.spawn(async move {
                loop {
                    let port = Watched {
                        port: pty,
                        begun: Arc::clone(&begun),
                    };
                    emulator.serve(port).await?;
                    pty = Pty::open(&link)?;
                }
            });
        }
        (machines, begun)
    }

    fn spawn(&self, serving: impl Future<Output = io::Result<()>> + Send + 'static) {
        self.thread.spawn(async move { serving.await.unwrap() });
    }

    /// Notes that came out of all of them.
    pub fn delivered(&self) -> u32 {
        let totals = self.handles.iter().flat_map(EmulatorHandle::totals);
        totals.map(|cassette| cassette.delivered).sum()
    }
}

/// A line that notes when a dispense command comes in: EOT, id, STX, `R`.
pub struct Watched<P> {
    pub port: P,
    pub begun: Begun,
}

impl<P: AsyncRead + Unpin> AsyncRead for Watched<P> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.port).poll_read(cx, buf))?;
        let new = &buf.filled()[before..];
        if new.windows(4).any(|bytes| matches!(bytes, [0x04, _, 0x02, 0x52])) {
            *self.begun.lock().unwrap() = Some(Instant::now());
        }
        Poll::Ready(Ok(()))
    }
}

impl<P: AsyncWrite + Unpin> AsyncWrite for Watched<P> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.port).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.port).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.port).poll_shutdown(cx)
    }
}
