//! Pseudo-terminals: a serial line without hardware, behind a symlink that host programs open.
//!
//! Called by the emulators. Must stay true: the host may open, close and open again; the symlink goes
//! when the line goes, and nothing but a symlink is ever replaced. Source: crates.md (ptys).

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustix::fs::OFlags;
use rustix::pty::OpenptFlags;
use rustix::termios::{OptionalActions, ioctl_tiocnxcl, tcgetattr, tcsetattr};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Interval, MissedTickBehavior, interval};

/// How long a line stays locked by a host that was killed.
const UNLOCK: Duration = Duration::from_millis(100);

/// The device's end of a line.
#[derive(Debug)]
pub struct Pty {
    device: AsyncFd<OwnedFd>,
    /// Kept open so that reads wait, and do not fail, while no host is there.
    host: OwnedFd,
    /// When to take off the lock of a host (`TIOCEXCL`). On a real line it ends with the host; here it would outlive a host
    /// that was killed, since this end keeps the line open. Hosts that lock the file too still exclude each other.
    unlock: Interval,
    /// Where the host's end is.
    target: PathBuf,
    link: PathBuf,
}

impl Pty {
    /// A new line; `link` becomes a symlink to the host's end. An old symlink there is replaced.
    ///
    /// # Errors
    /// When something else is at `link`, or the system has no more pseudo-terminals.
    pub fn open(link: &Path) -> io::Result<Self> {
        let device = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
        rustix::pty::grantpt(&device)?;
        rustix::pty::unlockpt(&device)?;
        let name = rustix::pty::ptsname(&device, Vec::new())?;
        let target = PathBuf::from(name.into_string().map_err(io::Error::other)?);
        let host = rustix::fs::open(
            &target,
            OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC,
            rustix::fs::Mode::empty(),
        )?;
        let mut settings = tcgetattr(&host)?;
        settings.make_raw();
        tcsetattr(&host, OptionalActions::Now, &settings)?;
        let flags = rustix::fs::fcntl_getfl(&device)?;
        rustix::fs::fcntl_setfl(&device, flags | OFlags::NONBLOCK)?;
        #[expect(
            deprecated,
            reason = "its successor is unsafe; an `OwnedFd` that is never taken out keeps that one's contract"
        )]
        let device = AsyncFd::new(device)?;
        place_link(&target, link)?;
        let mut unlock = interval(UNLOCK);
        unlock.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Ok(Self {
            device,
            host,
            unlock,
            target,
            link: link.to_owned(),
        })
    }

    /// The host's end, as the symlink says.
    #[must_use]
    pub fn target(&self) -> &Path {
        &self.target
    }
}

fn place_link(target: &Path, link: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(link) {
        Ok(there) if there.file_type().is_symlink() => std::fs::remove_file(link)?,
        Ok(_) => {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                format!("{} exists and is not a symlink", link.display()),
            ));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    std::os::unix::fs::symlink(target, link)
}

impl Drop for Pty {
    fn drop(&mut self) {
        // Only its own: another line may have taken the place.
        if std::fs::read_link(&self.link).is_ok_and(|target| target == self.target) {
            _ = std::fs::remove_file(&self.link);
        }
    }
}

impl AsyncRead for Pty {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        while self.unlock.poll_tick(cx).is_ready() {
            _ = ioctl_tiocnxcl(&self.host);
        }
        loop {
            let mut guard = ready!(self.device.poll_read_ready(cx))?;
            let read = guard.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), buf.initialize_unfilled())?));
            if let Ok(read) = read {
                buf.advance(read?);
                _ = ioctl_tiocnxcl(&self.host);
                return Poll::Ready(Ok(()));
            }
        }
    }
}

impl AsyncWrite for Pty {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            let mut guard = ready!(self.device.poll_write_ready(cx))?;
            if let Ok(written) = guard.try_io(|fd| Ok(rustix::io::write(fd.get_ref(), bytes)?)) {
                return Poll::Ready(written);
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio_serial::Parity;

    use super::*;
    use crate::hardware::{DeviceError, port};

    #[tokio::test]
    async fn a_host_opens_closes_and_opens_again() {
        let dir = tempfile::tempdir().expect("dir");
        let link = dir.path().join("line");
        let path = link.to_str().expect("path");
        let mut pty = Pty::open(&link).expect("pty");
        for round in 0..3u8 {
            let mut host = port::open(path, 9600, Parity::Even).expect("port");
            assert!(matches!(
                port::open(path, 9600, Parity::Even),
                Err(DeviceError::Open { .. })
            ));
            let sent = [0x03, 0x11, 0x13, 0x04, 0x0A, 0x0D, 0xFF, round];
            let mut got = [0; 8];
            host.write_all(&sent).await.expect("write");
            pty.read_exact(&mut got).await.expect("read");
            assert_eq!(got, sent);
            pty.write_all(&sent).await.expect("write");
            host.read_exact(&mut got).await.expect("read");
            assert_eq!(got, sent);
            // Stays in the line's buffer, and is gone when the next host opens it.
            pty.write_all(b"stale").await.expect("write");
        }
        drop(pty);
        assert!(std::fs::symlink_metadata(&link).is_err());
    }

    /// Shows something only when run without the right to open what is locked, not as root.
    #[tokio::test]
    async fn a_host_that_was_killed_before_its_first_byte_does_not_lock_the_line() {
        let dir = tempfile::tempdir().expect("dir");
        let link = dir.path().join("line");
        let mut pty = Pty::open(&link).expect("pty");
        let flags = OFlags::RDWR | OFlags::NOCTTY;
        let killed = rustix::fs::open(pty.target(), flags, rustix::fs::Mode::empty()).expect("host");
        rustix::termios::ioctl_tiocexcl(&killed).expect("lock");
        drop(killed);
        let opened = async {
            while port::open(link.to_str().expect("path"), 9600, Parity::None).is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let mut byte = [0];
        tokio::select! {
            () = opened => {}
            read = pty.read(&mut byte) => panic!("nobody sends: {read:?}"),
        }
    }

    #[tokio::test]
    async fn unplugged_is_the_end_of_the_file_for_the_host() {
        let dir = tempfile::tempdir().expect("dir");
        let link = dir.path().join("line");
        let pty = Pty::open(&link).expect("pty");
        let mut host = port::open(link.to_str().expect("path"), 9600, Parity::None).expect("port");
        drop(pty);
        assert!(matches!(host.read(&mut [0; 8]).await, Ok(0) | Err(_)));
    }

    #[tokio::test]
    async fn only_symlinks_are_replaced() {
        let dir = tempfile::tempdir().expect("dir");
        let link = dir.path().join("line");
        std::fs::write(&link, "precious").expect("file");
        let refused = Pty::open(&link).expect_err("refused");
        assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&link).expect("file"), b"precious");
        std::fs::remove_file(&link).expect("remove");
        std::os::unix::fs::symlink("/nowhere", &link).expect("link");
        let old = Pty::open(&link).expect("pty");
        let new = Pty::open(&link).expect("pty");
        drop(old);
        assert_eq!(std::fs::read_link(&link).expect("link"), new.target());
    }
}
