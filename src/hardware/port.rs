//! Serial ports.
//!
//! Called by [`super::device`]. A line that is no serial port ([`Connect`]) is for simulations: the same bytes, in memory.
//! Must stay true: a port is open once (exclusive), and what came before it was opened is dropped; opening and closing one
//! delays no other machine, and the next opening waits for the closing. A read of zero bytes means unplugged; the links
//! turn it into `LinkLost`.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::Handle;
use tokio::sync::{Mutex, OwnedMutexGuard, oneshot};
use tokio::time::timeout;
use tokio_serial::{
    ClearBuffer, DataBits, FlowControl, Parity, SerialPort, SerialPortBuilderExt, SerialStream, StopBits,
};

use super::DeviceError;

/// How long an opening is waited for, and the closing before it. Later it is tried anew; the kernel lets a closing take 30 s
/// (tty_port.c, `closing_wait`).
const PATIENCE: Duration = Duration::from_secs(10);

/// What a driver talks over.
pub trait Port: AsyncRead + AsyncWrite + Send + Unpin {}

impl<P: AsyncRead + AsyncWrite + Send + Unpin> Port for P {}

/// Makes a new connection to a device, as often as its port is opened.
pub type Connect = Arc<dyn Fn() -> io::Result<Box<dyn Port>> + Send + Sync>;

/// Where a device is.
#[derive(Clone)]
pub enum Line {
    /// Behind a serial port.
    Serial(Tty),
    /// In this process.
    Memory(Connect),
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Serial(tty) => f.write_str(&tty.path),
            Self::Memory(_) => f.write_str("in memory"),
        }
    }
}

impl Line {
    /// The serial port of this path.
    #[must_use]
    pub fn serial(path: impl Into<String>) -> Self {
        Self::Serial(Tty {
            path: path.into(),
            turn: Arc::default(),
        })
    }

    /// Opens it.
    ///
    /// # Errors
    /// [`DeviceError::Open`] when it can not be opened, also when it is in use.
    pub async fn open(&self, baud: u32, parity: Parity) -> Result<Box<dyn Port>, DeviceError> {
        match self {
            Self::Serial(tty) => Ok(Box::new(tty.open(baud, parity).await?)),
            Self::Memory(connect) => connect().map_err(|source| DeviceError::Open {
                path: format!("{self:?}"),
                source,
            }),
        }
    }
}

/// A serial port; clones are the same one.
#[derive(Clone)]
pub struct Tty {
    path: String,
    /// Held from before it is opened until it is closed: an own closing that still waits would be "in use".
    turn: Arc<Mutex<()>>,
}

impl Tty {
    /// On a thread of its own: the system waits for a closing of this port, and a converter's driver for its answers.
    async fn open(&self, baud: u32, parity: Parity) -> Result<Aside<SerialStream>, DeviceError> {
        // What is unplugged is asked for again and again, and needs no thread for that: a look at the name asks no driver.
        std::fs::metadata(&self.path).map_err(|source| self.failed(source))?;
        let opened = async {
            let turn = Arc::clone(&self.turn).lock_owned().await;
            let (path, runtime, (tell, told)) = (self.path.clone(), Handle::current(), oneshot::channel());
            let open = move || {
                let _within = runtime.enter();
                // Nobody may wait any more; then it is closed again.
                let _ = tell.send(open(&path, baud, parity).map(|port| Aside::new(port, turn)));
            };
            // Not one of the runtime's: those are waited for when the daemon ends.
            let opener = std::thread::Builder::new().name("open".into()).spawn(open);
            opener.map_err(|error| self.failed(error))?;
            told.await
                .unwrap_or_else(|_| Err(self.failed(io::Error::other("its thread has ended"))))
        };
        let late = |_| {
            self.failed(io::Error::new(
                io::ErrorKind::TimedOut,
                "an opening or closing of it hangs",
            ))
        };
        timeout(PATIENCE, opened).await.map_err(late)?
    }

    fn failed(&self, source: io::Error) -> DeviceError {
        DeviceError::Open {
            path: self.path.clone(),
            source,
        }
    }
}

/// Opens `path` with 8 data bits, 1 stop bit and no flow control.
pub fn open(path: &str, baud: u32, parity: Parity) -> Result<SerialStream, DeviceError> {
    // Exclusive is tokio-serial's default: TIOCEXCL, and a lock that ends with the process.
    let opened = tokio_serial::new(path, baud)
        .data_bits(DataBits::Eight)
        .parity(parity)
        .stop_bits(StopBits::One)
        .flow_control(FlowControl::None)
        .open_native_async()
        .and_then(|port| {
            port.clear(ClearBuffer::All)?;
            Ok(port)
        });
    opened.map_err(|error| DeviceError::Open {
        path: path.to_owned(),
        source: error.into(),
    })
}

/// What is done to a port before it is closed.
trait Closing {
    /// Drops the bytes that the device has not taken.
    fn forget_unsent(&self);
}

impl Closing for SerialStream {
    fn forget_unsent(&self) {
        // A port that is gone has nothing to send.
        let _ = self.clear(ClearBuffer::Output);
    }
}

/// A port and its turn; the fields are dropped in this order.
struct Held<P: Closing> {
    port: P,
    _turn: OwnedMutexGuard<()>,
}

impl<P: Closing> Drop for Held<P> {
    fn drop(&mut self) {
        // A command that never left must not come late, after its outcome was decided. A driver without `flush_buffer` drops
        // nothing: there the closing waits until the bytes are out or given up, and the next opening, whose first question
        // finds out what happened, waits for the closing.
        self.port.forget_unsent();
    }
}

/// An open port that is closed on a thread of its own: the kernel waits for the device, and all machines share a thread.
struct Aside<P: Closing + Send + 'static>(Option<Held<P>>);

impl<P: Closing + Send + 'static> Drop for Aside<P> {
    fn drop(&mut self) {
        if let Some(held) = self.0.take() {
            // Without a thread it is closed here, late rather than never.
            let closer = std::thread::Builder::new().name("close".into());
            let _ = closer.spawn(move || drop(held));
        }
    }
}

impl<P: Closing + Send + 'static> Aside<P> {
    fn new(port: P, turn: OwnedMutexGuard<()>) -> Self {
        Self(Some(Held { port, _turn: turn }))
    }

    /// The port; it is there until the drop.
    fn port(&mut self) -> io::Result<Pin<&mut P>>
    where
        P: Unpin,
    {
        let gone = || io::Error::from(io::ErrorKind::NotConnected);
        self.0.as_mut().map(|held| Pin::new(&mut held.port)).ok_or_else(gone)
    }
}

impl<P: Closing + AsyncRead + Send + Unpin + 'static> AsyncRead for Aside<P> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.port()?.poll_read(cx, into)
    }
}

impl<P: Closing + AsyncWrite + Send + Unpin + 'static> AsyncWrite for Aside<P> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.port()?.poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.port()?.poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.port()?.poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread::{self, ThreadId};

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;
    use crate::hardware::pty::Pty;

    /// Tells what is done to it and where, and takes as long to close as it is let.
    struct Fake {
        told: mpsc::Sender<(&'static str, ThreadId)>,
        let_go: mpsc::Receiver<()>,
    }

    impl Closing for Fake {
        fn forget_unsent(&self) {
            self.told.send(("forget", thread::current().id())).unwrap();
        }
    }

    impl Drop for Fake {
        fn drop(&mut self) {
            self.told.send(("close", thread::current().id())).unwrap();
            self.let_go.recv().unwrap();
        }
    }

    #[tokio::test]
    async fn a_port_is_closed_on_another_thread_and_keeps_its_turn_until_then() {
        let (turn, (told, tells), (go, let_go)) = (Arc::new(Mutex::new(())), mpsc::channel(), mpsc::channel());
        let held = Arc::clone(&turn).lock_owned().await;
        drop(Aside::new(Fake { told, let_go }, held));
        let steps = [tells.recv().unwrap(), tells.recv().unwrap()];
        assert_eq!(steps.map(|(what, _)| what), ["forget", "close"]);
        assert!(steps.iter().all(|(_, on)| *on != thread::current().id()));
        assert!(turn.try_lock().is_err(), "still closing");
        go.send(()).unwrap();
        drop(turn.lock().await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_port_whose_closing_hangs_is_not_opened_and_not_waited_for() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let named = file.path().to_str().unwrap();
        let line = Line::serial(named);
        let Line::Serial(tty) = line.clone() else {
            unreachable!()
        };
        let _closing = tty.turn.lock_owned().await;
        let refused = line.open(9600, Parity::None).await.map(drop).unwrap_err();
        assert!(matches!(&refused, DeviceError::Open { path, source }
            if path == named && source.kind() == io::ErrorKind::TimedOut));
    }

    #[tokio::test]
    async fn a_serial_port_is_opened_again_right_after_it_was_closed() {
        let dir = tempfile::tempdir().unwrap();
        let link = dir.path().join("line");
        let mut device = Pty::open(&link).unwrap();
        let line = Line::serial(link.to_str().unwrap());
        for round in 0..20_u8 {
            let mut host = line.open(9600, Parity::None).await.unwrap();
            let mut got = [0; 2];
            host.write_all(&[7, round]).await.unwrap();
            device.read_exact(&mut got).await.unwrap();
            assert_eq!(got, [7, round]);
            device.write_all(&[round, 9]).await.unwrap();
            host.read_exact(&mut got).await.unwrap();
            assert_eq!(got, [round, 9]);
        }
    }

    #[tokio::test]
    async fn a_port_that_is_not_there_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let line = Line::serial(dir.path().join("none").to_str().unwrap());
        for _ in 0..2 {
            assert!(line.open(9600, Parity::None).await.is_err());
        }
    }
}
