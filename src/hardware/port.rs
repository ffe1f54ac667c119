//! Serial ports.
//!
//! Called by [`super::device`]. A line that is no serial port ([`Connect`]) is for simulations: the same bytes, in memory.
//! Must stay true: a port is open once (exclusive), and what came before it was opened is dropped; opening and closing one
//! delays no other machine. A read of zero bytes means unplugged; the links turn it into `LinkLost`.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_serial::{
    ClearBuffer, DataBits, FlowControl, Parity, SerialPort, SerialPortBuilderExt, SerialStream, StopBits,
};

use super::DeviceError;

/// What a driver talks over.
pub trait Port: AsyncRead + AsyncWrite + Send + Unpin {}

impl<P: AsyncRead + AsyncWrite + Send + Unpin> Port for P {}

/// Makes a new connection to a device, as often as its port is opened.
pub type Connect = Arc<dyn Fn() -> io::Result<Box<dyn Port>> + Send + Sync>;

/// Where a device is.
#[derive(Clone)]
pub enum Line {
    /// Behind a serial port of this path.
    Serial(String),
    /// In this process.
    Memory(Connect),
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Serial(path) => f.write_str(path),
            Self::Memory(_) => f.write_str("in memory"),
        }
    }
}

impl Line {
    /// Opens it.
    ///
    /// # Errors
    /// [`DeviceError::Open`] when it can not be opened, also when it is in use.
    pub fn open(&self, baud: u32, parity: Parity) -> Result<Box<dyn Port>, DeviceError> {
        match self {
            Self::Serial(path) => Ok(Box::new(Aside(Some(open(path, baud, parity)?)))),
            Self::Memory(connect) => connect().map_err(|source| DeviceError::Open {
                path: format!("{self:?}"),
                source,
            }),
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

/// How many bytes the kernel still holds for the device.
trait Unsent {
    fn unsent(&self) -> u32;
}

impl Unsent for SerialStream {
    fn unsent(&self) -> u32 {
        // A port that can not tell is gone, and has nothing to wait for.
        self.bytes_to_write().unwrap_or(0)
    }
}

/// A port that is closed on a thread of its own when the device has not taken all bytes: the kernel then waits for it up
/// to 30 s (tty_port.c, `closing_wait`), and all machines share a thread.
struct Aside<P: Unsent + Send + 'static>(Option<P>);

impl<P: Unsent + Send + 'static> Drop for Aside<P> {
    fn drop(&mut self) {
        if let Some(port) = self.0.take_if(|port| port.unsent() > 0) {
            // Without a thread it is closed here, late rather than never.
            let closer = std::thread::Builder::new().name("close".into());
            let _ = closer.spawn(move || drop(port));
        }
    }
}

impl<P: Unsent + Send + 'static> Aside<P> {
    /// The port; it is there until the drop.
    fn port(&mut self) -> io::Result<Pin<&mut P>>
    where
        P: Unpin,
    {
        let gone = || io::Error::from(io::ErrorKind::NotConnected);
        self.0.as_mut().map(Pin::new).ok_or_else(gone)
    }
}

impl<P: Unsent + AsyncRead + Send + Unpin + 'static> AsyncRead for Aside<P> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.port()?.poll_read(cx, into)
    }
}

impl<P: Unsent + AsyncWrite + Send + Unpin + 'static> AsyncWrite for Aside<P> {
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

    use super::*;

    struct Fake {
        unsent: u32,
        closed: mpsc::Sender<ThreadId>,
    }

    impl Unsent for Fake {
        fn unsent(&self) -> u32 {
            self.unsent
        }
    }

    impl Drop for Fake {
        fn drop(&mut self) {
            self.closed.send(thread::current().id()).unwrap();
        }
    }

    #[test]
    fn a_port_whose_device_takes_nothing_is_closed_on_another_thread() {
        let (closed, on) = mpsc::channel();
        for (unsent, here) in [(0, true), (7, false)] {
            let closed = closed.clone();
            drop(Aside(Some(Fake { unsent, closed })));
            assert_eq!(on.recv().unwrap() == thread::current().id(), here);
        }
    }
}
