//! Turn-taking against devices that do what they like.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{DuplexStream, ReadBuf, duplex};

use super::*;
use crate::hardware::puloon::driver::Variant;
use crate::hardware::puloon::emulator::{Emulator, Setup};

/// A port whose bytes never get out by flushing, as those of a converter that hangs.
struct Undrained(DuplexStream);

impl AsyncRead for Undrained {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Undrained {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        panic!("tcdrain would block the thread of all machines")
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_waits_until_bytes_are_on_the_wire() {
    let (host, device) = tokio::io::duplex(4096);
    let emulator = Emulator::new(Variant::Standard, Setup::default()).unwrap();
    let mut link = Link::new(Undrained(host), Timings::default());
    let asked = async {
        let status = link.exchange(Command::Status, &[]).await.unwrap();
        drop(link);
        status
    };
    let (status, _) = tokio::join!(asked, emulator.serve(device));
    assert!(!status.is_empty());
}

#[tokio::test(start_paused = true)]
async fn what_came_before_a_command_keeps_it_from_leaving() {
    let (host, mut device) = duplex(256);
    let emulator = Emulator::new(Variant::Standard, Setup::default()).unwrap();
    let mut link = Link::new(host, Timings::default());
    for _ in 0..2 {
        tokio::select! {
            end = emulator.serve(&mut device) => panic!("{end:?}"),
            reply = link.exchange(Command::Status, &[]) => drop(reply.unwrap()),
        }
    }
    device.write_all(&[SOH, 0x30]).await.unwrap();
    let refused = link.exchange(Command::Status, &[]).await;
    assert!(
        matches!(refused, Err(Failed::NotSent(DeviceError::OutOfSync("a late reply")))),
        "{refused:?}"
    );
    assert!(device.read(&mut [0; 8]).now_or_never().is_none(), "nothing left");
}

/// A device that sends the same byte as fast as it is read.
struct Babbler(u8);

impl AsyncRead for Babbler {
    fn poll_read(self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        buf.put_slice(&vec![self.0; buf.remaining()]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Babbler {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test(start_paused = true)]
async fn a_device_that_babbles_is_given_up_before_the_memory_is_full() {
    for settled in [false, true] {
        let mut link = Link::new(Babbler(0x55), Timings::default());
        link.settled = settled;
        let refused = link.exchange(Command::Status, &[]).await;
        assert!(
            matches!(
                refused,
                Err(Failed::NotSent(DeviceError::OutOfSync("bytes without end")))
            ),
            "{refused:?}"
        );
        assert!(link.quiet().await.is_err());
        assert!(link.input.len() < 2 * BABBLE_BYTES);
    }
}

#[tokio::test]
async fn a_device_that_sends_eot_without_end_is_not_waited_for() {
    let ack = Duration::from_millis(20);
    let timings = Timings {
        ack,
        ..Timings::default()
    };
    let mut link = Link::new(Babbler(EOT), timings);
    let answer = link.acknowledgement(Command::Status).await;
    assert!(matches!(answer, Ok(Answer::Silence)));
}

#[tokio::test(start_paused = true)]
async fn a_device_that_babbles_slowly_is_given_up_too() {
    let (host, mut device) = duplex(256);
    let babble = async {
        loop {
            tokio::time::sleep(Duration::from_millis(150)).await;
            device.write_all(&[0x55]).await.unwrap();
        }
    };
    let mut link = Link::new(host, Timings::default());
    let begun = Instant::now();
    tokio::select! {
        () = babble => unreachable!(),
        quiet = link.quiet() => assert!(matches!(quiet, Err(DeviceError::OutOfSync(_))), "{quiet:?}"),
    }
    assert!(begun.elapsed() < BABBLE_TIME + Duration::from_millis(150));
}
