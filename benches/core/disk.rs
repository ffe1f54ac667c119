//! The limits of the disk: files that are appended to and synced without anything around them.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

/// Bytes around a record's payload in a segment: header and hash.
pub const AROUND: usize = 18 + 32;
/// Payload of a record here, in bytes: about the mean of a cash-out's records.
pub const PAYLOAD: usize = 420;

/// A file that grows.
pub struct Raw(File);

impl Raw {
    pub fn new(path: &Path) -> Self {
        Self(File::options().append(true).create(true).open(path).unwrap())
    }

    /// Writes `bytes` and waits until they are durable.
    pub fn write(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).unwrap();
        self.0.sync_data().unwrap();
    }

    /// How many of `bytes` are made durable in a second, one after the other.
    pub fn per_second(&mut self, bytes: &[u8], during: Duration) -> f64 {
        let (begun, mut count) = (Instant::now(), 0_u32);
        while begun.elapsed() < during {
            self.write(bytes);
            count += 1;
        }
        f64::from(count) / begun.elapsed().as_secs_f64()
    }
}

type Waiting = (Vec<u8>, oneshot::Sender<()>);

/// Group commit and nothing else: a thread that writes and syncs all that waits. Ends with its last clone.
#[derive(Clone)]
pub struct Flusher(mpsc::UnboundedSender<Waiting>);

impl Flusher {
    pub fn start(path: &Path) -> (Self, JoinHandle<()>) {
        let (sender, mut queue) = mpsc::unbounded_channel::<Waiting>();
        let mut raw = Raw::new(path);
        let run = move || {
            while let Some((mut bytes, done)) = queue.blocking_recv() {
                let mut answers = vec![done];
                while let Ok((more, done)) = queue.try_recv() {
                    bytes.extend(more);
                    answers.push(done);
                }
                raw.write(&bytes);
                for done in answers {
                    let _ = done.send(());
                }
            }
        };
        let thread = std::thread::Builder::new().name("flusher".into()).spawn(run).unwrap();
        (Self(sender), thread)
    }

    /// Returns once a record of the usual size is durable.
    pub async fn flush(&self) {
        let (done, answer) = oneshot::channel();
        self.0.send((vec![b'x'; PAYLOAD + AROUND], done)).unwrap();
        answer.await.unwrap();
    }
}
