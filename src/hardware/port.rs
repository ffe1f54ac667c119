//! Serial ports.
//!
//! Called by [`super::device`]. Must stay true: a port is open once (exclusive), and what came before
//! it was opened is dropped. A read of zero bytes means unplugged; the links turn it into `LinkLost`.

use tokio_serial::{
    ClearBuffer, DataBits, FlowControl, Parity, SerialPort, SerialPortBuilderExt, SerialStream, StopBits,
};

use super::DeviceError;

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
