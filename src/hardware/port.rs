//! Serial ports.
//!
//! Called by [`super::device`]. A line that is no serial port ([`Connect`]) is for simulations: the same bytes, in memory. Must stay true: a port is open once (exclusive), and what came before
//! it was opened is dropped. A read of zero bytes means unplugged; the links turn it into `LinkLost`.

use std::fmt;
use std::io;
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
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
            Self::Serial(path) => Ok(Box::new(open(path, baud, parity)?)),
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
