//! Ids of Nostr events that had an effect, kept until the events are too old to be believed; and sites' last reports.
//!
//! A sled of its own beside the state, `nostr`: it is not folded from the journal. Owned by one thread, because sled blocks; ids
//! that come together are made durable together. Asked by the Nostr gate. What must stay true: [`Seen::remember`] says
//! `true` once for an id, and only after a crash of this process could not make it say so again. (The death of the
//! machine may lose the last ids: sled's flush does not wait for the disk, facts/crates.md. The methods are idempotent
//! by payment hash; this is the second wall.) A clock that is set back brings no forgotten id back either: until the last
//! of them is too old again, events of its age are taken for seen.
//!
//! Trees: `ids` id -> until; `until` until + id, for forgetting; `sites` name -> report; `marks` what was forgotten.

use std::cell::Cell;
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::oneshot;

use super::table::{contained, gave_up};

/// Ids that are looked at together at most.
const BATCH: usize = 256;
/// While ids come in numbers, they are waited for so long: a flush costs several times what an id does.
const GATHER: Duration = Duration::from_millis(1);
/// Ids forgotten for each batch at most, so that forgetting never delays asking.
const FORGET: usize = 1024;

/// In `marks`: the latest time up to which a forgotten id had to be remembered.
const FORGOTTEN: &str = "forgotten_until";

/// Why it is not known whether an id was seen.
#[derive(Debug, Clone, Error)]
pub enum SeenError {
    /// sled refuses.
    #[error("the store of seen event ids: {0}")]
    Sled(#[from] sled::Error),
    /// The system refuses a thread.
    #[error("the thread of seen event ids: {0}")]
    Thread(String),
    /// Its thread has ended.
    #[error("the store of seen event ids has ended")]
    Gone,
}

enum Job {
    Remember(Remember),
    Keep { site: String, report: Vec<u8> },
}

struct Remember {
    id: [u8; 32],
    until_unix: u64,
    now_unix: u64,
    answer: oneshot::Sender<Result<bool, SeenError>>,
}

/// The store; clones share it.
#[derive(Clone)]
pub struct Seen {
    ids: sled::Tree,
    sites: sled::Tree,
    jobs: mpsc::Sender<Job>,
}

impl Seen {
    /// Opens `dir/nostr`. The caller holds the lock of `dir`. One that sled can not open is an error: begun anew it would
    /// let events act twice.
    ///
    /// # Errors
    /// When sled or the system refuses.
    pub fn open(dir: &Path) -> Result<Self, SeenError> {
        let config = sled::Config::new()
            .path(dir.join("nostr"))
            .cache_capacity(8 << 20)
            .flush_every_ms(None);
        let db = contained(|| config.open())?;
        let tree = |name: &str| contained(|| db.open_tree(name));
        let (ids, untils, sites, marks) = (tree("ids")?, tree("until")?, tree("sites")?, tree("marks")?);
        let (jobs, work) = mpsc::channel::<Job>();
        let book = Book {
            db,
            ids: ids.clone(),
            untils,
            sites: sites.clone(),
            marks,
            gave_up: Cell::new(false),
        };
        let run = move || serve(&work, |jobs| book.answer(jobs));
        let thread = std::thread::Builder::new().name("seen".into()).spawn(run);
        thread.map_err(|error| SeenError::Thread(error.to_string()))?;
        Ok(Self { ids, sites, jobs })
    }

    /// Whether the id was remembered before; a look that changes nothing.
    ///
    /// # Errors
    /// When sled can not tell.
    pub fn knows(&self, id: &[u8; 32]) -> Result<bool, SeenError> {
        Ok(contained(|| self.ids.contains_key(id))?)
    }

    /// Remembers the id until `until_unix` has passed (seconds); `true` when it was not known before.
    ///
    /// # Errors
    /// When it can not be remembered: the event must have no effect.
    pub async fn remember(&self, id: [u8; 32], until_unix: u64, now_unix: u64) -> Result<bool, SeenError> {
        let (answer, answered) = oneshot::channel();
        let job = Job::Remember(Remember {
            id,
            until_unix,
            now_unix,
            answer,
        });
        self.jobs.send(job).map_err(|_| SeenError::Gone)?;
        answered.await.map_err(|_| SeenError::Gone)?
    }

    /// How many ids are remembered. Counts them one by one: for tests.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Keeps a site's last report for the next life.
    pub fn keep_site(&self, site: String, report: Vec<u8>) {
        // A report comes every half minute; without the thread the gate takes nothing any more anyway.
        let _ = self.jobs.send(Job::Keep { site, report });
    }

    /// The reports that were kept.
    ///
    /// # Errors
    /// When sled can not tell.
    pub fn sites(&self) -> Result<Vec<(String, Vec<u8>)>, SeenError> {
        let text = |key: sled::IVec| String::from_utf8_lossy(&key).into_owned();
        let read = |entry: sled::Result<(sled::IVec, sled::IVec)>| {
            let (site, report) = entry?;
            Ok((text(site), report.to_vec()))
        };
        Ok(contained(|| self.sites.iter().map(read).collect())?)
    }
}

/// Answers what comes, much of it together, until nobody asks any more, or until sled gave up: whoever asks later has no
/// answer, and the event no effect.
fn serve(work: &mpsc::Receiver<Job>, mut answer: impl FnMut(Vec<Job>) -> bool) {
    let mut busy = false;
    while let Ok(first) = work.recv() {
        if busy {
            std::thread::sleep(GATHER);
        }
        let jobs: Vec<Job> = std::iter::once(first).chain(work.try_iter().take(BATCH - 1)).collect();
        busy = jobs.len() > 1;
        if !answer(jobs) {
            tracing::error!(
                "sled gave up over the ids of seen events: nothing over Nostr has an effect until tellerd is restarted"
            );
            return;
        }
    }
}

struct Book {
    db: sled::Db,
    ids: sled::Tree,
    untils: sled::Tree,
    sites: sled::Tree,
    marks: sled::Tree,
    gave_up: Cell<bool>,
}

impl Book {
    /// Does them all. Whether sled can be asked further.
    fn answer(&self, jobs: Vec<Job>) -> bool {
        let mut asked = Vec::with_capacity(jobs.len());
        for job in jobs {
            match job {
                Job::Remember(job) => asked.push(job),
                Job::Keep { site, report } => {
                    if let Err(error) = self.ask(|| self.sites.insert(site, report)) {
                        tracing::error!(%error, "a site's report is not kept");
                    }
                }
            }
        }
        let now_unix = asked.iter().map(|job| job.now_unix).max().unwrap_or(0);
        let note = |job: Remember| (self.ask(|| self.note(&job)), job.answer);
        let noted: Vec<_> = asked.into_iter().map(note).collect();
        let kept = self.ask(|| self.forget(now_unix).and_then(|()| self.db.flush().map(drop)));
        for (first, answer) in noted {
            let told = match (&kept, first) {
                (Ok(()), first) => first.map_err(SeenError::from),
                (Err(error), _) => Err(SeenError::from(error.clone())),
            };
            // Whoever asked may be gone; then the event has no effect.
            let _ = answer.send(told);
        }
        !self.gave_up.get()
    }

    /// Asks sled, unless it gave up over an earlier question: what that left half done is not used again.
    fn ask<T>(&self, question: impl FnOnce() -> sled::Result<T>) -> sled::Result<T> {
        if self.gave_up.get() {
            return Err(sled::Error::Io(std::io::Error::other("sled gave up before")));
        }
        contained(question).inspect_err(|error| self.gave_up.set(gave_up(error)))
    }

    fn note(&self, job: &Remember) -> sled::Result<bool> {
        let until = job.until_unix.to_be_bytes();
        if self
            .marks
            .get(FORGOTTEN)?
            .is_some_and(|forgotten| until.as_slice() <= &*forgotten)
        {
            return Ok(false);
        }
        if self.ids.insert(job.id, &until)?.is_some() {
            return Ok(false);
        }
        self.untils.insert([&until[..], &job.id[..]].concat(), &[])?;
        Ok(true)
    }

    /// Forgets ids whose time has passed. The mark goes first, the entry by time last: a crash between leaves no id behind.
    fn forget(&self, now_unix: u64) -> sled::Result<()> {
        for entry in self.untils.range(..now_unix.to_be_bytes()).keys().take(FORGET) {
            let entry = entry?;
            // In order: the last one is the latest.
            if let Some((until, id)) = entry.split_at_checked(8) {
                self.marks.insert(FORGOTTEN, until)?;
                self.ids.remove(id)?;
            }
            self.untils.remove(entry)?;
        }
        Ok(())
    }
}

#[cfg(test)]
impl Seen {
    /// Whose thread has ended, as sled fails for good once it could not write.
    pub(crate) fn lost(dir: &Path) -> Self {
        let (jobs, _) = mpsc::channel();
        Self {
            jobs,
            ..Self::open(dir).unwrap()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn opened(dir: &Path) -> Seen {
        loop {
            match Seen::open(dir) {
                Ok(seen) => return seen,
                // The thread of the life before is about to let go of the folder.
                Err(error) if error.to_string().contains("lock") => tokio::task::yield_now().await,
                Err(error) => panic!("{error}"),
            }
        }
    }

    #[tokio::test]
    async fn an_id_is_new_once_across_lives_until_its_time_has_passed() {
        let dir = tempfile::tempdir().unwrap();
        let seen = opened(dir.path()).await;
        assert!(!seen.knows(&[1; 32]).unwrap());
        assert!(seen.remember([1; 32], 100, 50).await.unwrap());
        assert!(seen.knows(&[1; 32]).unwrap());
        assert!(!seen.remember([1; 32], 100, 51).await.unwrap());
        drop(seen);
        let seen = opened(dir.path()).await;
        assert!(
            !seen.remember([1; 32], 100, 100).await.unwrap(),
            "100 is within its time"
        );
        assert!(seen.remember([2; 32], 300, 101).await.unwrap());
        assert!(!seen.knows(&[1; 32]).unwrap(), "forgotten");
        assert!(seen.knows(&[2; 32]).unwrap());
    }

    #[tokio::test]
    async fn a_clock_set_back_makes_no_forgotten_id_new() {
        let dir = tempfile::tempdir().unwrap();
        let seen = opened(dir.path()).await;
        assert!(seen.remember([1; 32], 100, 50).await.unwrap());
        assert!(seen.remember([2; 32], 7_000, 6_910).await.unwrap(), "an hour ahead");
        assert!(!seen.knows(&[1; 32]).unwrap(), "forgotten");
        assert!(!seen.remember([1; 32], 100, 60).await.unwrap(), "and back");
        drop(seen);
        let seen = opened(dir.path()).await;
        assert!(!seen.remember([1; 32], 100, 60).await.unwrap());
        assert!(seen.remember([3; 32], 101, 61).await.unwrap(), "later ones are heard");
    }

    #[tokio::test]
    async fn one_of_many_at_once_is_first() {
        let dir = tempfile::tempdir().unwrap();
        let seen = opened(dir.path()).await;
        let all = (0..100_u8).map(|n| seen.remember([n % 10; 32], 100, 1));
        let firsts = futures_util::future::join_all(all).await;
        assert_eq!(firsts.into_iter().filter(|first| *first.as_ref().unwrap()).count(), 10);
    }

    #[tokio::test]
    async fn nothing_is_asked_of_sled_after_it_gave_up() {
        let dir = tempfile::tempdir().unwrap();
        let seen = opened(dir.path()).await;
        let (jobs, work) = mpsc::channel();
        let book = Book {
            db: sled::Config::new().temporary(true).open().unwrap(),
            ids: seen.ids.clone(),
            untils: seen.sites.clone(),
            sites: seen.sites.clone(),
            marks: seen.sites.clone(),
            gave_up: Cell::new(false),
        };
        let seen = Seen { jobs, ..seen };
        book.ask::<()>(|| panic!("a page is damaged")).unwrap_err();
        let thread = std::thread::spawn(move || serve(&work, |jobs| book.answer(jobs)));
        for told in [
            seen.remember([1; 32], 100, 50).await,
            seen.remember([2; 32], 100, 50).await,
        ] {
            told.unwrap_err();
        }
        thread.join().unwrap();
        let told = seen.remember([3; 32], 100, 50).await;
        assert!(matches!(told, Err(SeenError::Gone)), "{told:?}");
        assert!(!seen.knows(&[1; 32]).unwrap(), "nothing was written");
    }
}
