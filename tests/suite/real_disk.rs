//! The daemon on a real disk that is full, or read-only: a small tmpfs in a mount namespace of its own.
//!
//! Needs the right to mount; without it the test says that it did not run. What the emulated disk of `src/sim/disk.rs` can
//! not show is shown here: sled's files are on the same disk, and it is met while it is opened. A running daemon keeps its
//! files open for writing, so Linux refuses to remount under it; there the emulated one has to do.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use tellerd::api::{CashOutList, CashOutView, StartCashOut};
use tellerd::hardware::puloon::driver::Variant;
use tellerd::hardware::puloon::emulator::Setup;
use tellerd::money::{Funds, Minor};
use tellerd::sim::lnd::PayOptions;

use super::rig::{Daemon, Machine, Rig, breath};

const LIMIT: Duration = Duration::from_secs(60);
const FULL: &str = "No space left on device";

/// A process that keeps the namespace, in which `data` of the rig is the small disk.
struct Disk {
    holder: Child,
    data: PathBuf,
}

impl Disk {
    /// `None` where nothing may be mounted.
    fn mount(data: PathBuf) -> Option<Self> {
        std::fs::create_dir_all(&data).unwrap();
        let script = "mount -t tmpfs -o size=8m tmpfs \"$0\" && touch \"$0/mounted\" && exec sleep 600";
        let mut holder = Command::new("unshare")
            .args(["--mount", "sh", "-c", script])
            .arg(&data)
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        loop {
            if holder.try_wait().unwrap().is_some() {
                return None;
            }
            let disk = Path::new("/proc").join(holder.id().to_string()).join("root");
            let inside = disk.join(data.strip_prefix("/").unwrap());
            if inside.join("mounted").exists() {
                return Some(Self { holder, data: inside });
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Words before a command that let it see the disk.
    fn within(&self) -> Vec<String> {
        ["nsenter", "--target", &self.holder.id().to_string(), "--mount"]
            .map(str::to_owned)
            .to_vec()
    }

    fn remount(&self, how: &str, data: &Path) {
        let words = self.within();
        let done = Command::new(&words[0])
            .args(&words[1..])
            .args(["mount", "-o", &format!("remount,{how}")])
            .arg(data)
            .status();
        assert!(done.unwrap().success(), "{how}");
    }

    /// To the last byte.
    fn fill(&self) {
        let mut filler = std::fs::File::create(self.data.join("filler")).unwrap();
        while filler.write_all(&[0; 4096]).is_ok() {}
    }

    fn free(&self) {
        std::fs::remove_file(self.data.join("filler")).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

async fn until(daemon: &mut Daemon, what: &str, condition: impl AsyncFn(&mut Daemon) -> bool) {
    let waited = tokio::time::timeout(LIMIT, async {
        while !condition(daemon).await {
            breath().await;
        }
    });
    let in_time = waited.await.is_ok();
    assert!(in_time, "waited in vain for {what}:\n{}", daemon.last_words());
}

async fn ask(daemon: &Daemon) -> Option<CashOutView> {
    let (atm, amount_minor) = ("atm1".parse().unwrap(), Minor(6_000));
    daemon.post("/v1/cashouts", &StartCashOut { atm, amount_minor }).await
}

/// A customer is served, at last.
async fn serve(rig: &Rig, daemon: &mut Daemon) {
    until(daemon, "a cash-out", async |daemon| {
        let Some(cashout) = ask(daemon).await else { return false };
        let invoice = cashout.payment_request.unwrap();
        rig.lnd.pay(&invoice, &PayOptions::default()).unwrap();
        true
    })
    .await;
    at_rest(daemon).await;
}

async fn cashouts(daemon: &Daemon) -> Option<Vec<CashOutView>> {
    Some(daemon.get::<CashOutList>("/v1/cashouts").await?.cashouts)
}

async fn at_rest(daemon: &mut Daemon) {
    until(daemon, "an end", async |daemon| {
        let rests = |c: &CashOutView| c.ended && c.funds != Some(Funds::Pending);
        cashouts(daemon).await.is_some_and(|all| all.iter().all(rests))
    })
    .await;
}

/// What left the machine is what the daemon says, and paid for.
async fn audit(rig: &Rig, daemon: &Daemon) -> u64 {
    let all = cashouts(daemon).await.unwrap();
    let said: u64 = all.iter().map(|c| c.delivered_minor.0).sum();
    let totals = rig.machines[0].totals().map(|totals| u64::from(totals.delivered));
    let left = totals[0] * 2_000 + totals[1] * 5_000;
    assert_eq!(said, left);
    let paid: u64 = all
        .iter()
        .filter(|c| c.state == "completed")
        .map(|c| c.price_msat.0)
        .sum();
    let money = rig.lnd.ledger().unwrap().money;
    assert_eq!((money.settled_msat, money.held_msat), (paid, 0));
    left
}

/// Starts it until it lives, as a service manager does: each refusal says what the system says.
async fn start(rig: &Rig, why: &str) -> Daemon {
    loop {
        let mut daemon = rig.daemon(&[]);
        until(&mut daemon, "a start", async |daemon| {
            daemon.is_ready().await || daemon.ended().is_some()
        })
        .await;
        match daemon.ended() {
            None => return daemon,
            Some(status) => {
                // Its last words may still be in the pipe.
                until(&mut daemon, why, async |daemon| daemon.log().contains(why)).await;
                assert_eq!(status.code(), Some(1));
            }
        }
    }
}

#[tokio::test]
async fn a_real_disk_that_is_full_or_read_only() {
    let machine = Machine {
        variant: Variant::Serial,
        setup: Setup {
            cassettes: [100, 100, -1, -1],
            ..Setup::default()
        },
    };
    let mut rig = Rig::new(&[machine]);
    let data = rig.path("data");
    let Some(disk) = Disk::mount(data.clone()) else {
        // Not by eprintln, which the test harness keeps to itself.
        writeln!(
            std::io::stderr(),
            "NOT RUN: a_real_disk_that_is_full_or_read_only: nothing may be mounted here"
        )
        .unwrap();
        return;
    };
    rig.under = disk.within();
    let mut daemon = start(&rig, FULL).await;
    serve(&rig, &mut daemon).await;
    let before = audit(&rig, &daemon).await;

    disk.fill();
    until(&mut daemon, FULL, async |daemon| {
        if let Some(invoice) = ask(daemon).await.and_then(|cashout| cashout.payment_request) {
            rig.lnd.pay(&invoice, &PayOptions::default()).unwrap();
        }
        daemon.log().contains(FULL) || daemon.ended().is_some()
    })
    .await;
    // Either it waits, and says so, or sled met the full disk first and ended it.
    match daemon.ended() {
        Some(status) => assert_eq!(status.code(), Some(1), "{}", daemon.last_words()),
        None => daemon.kill().await,
    }
    // On the full disk it starts or says why not; with room it starts.
    let mut daemon = rig.daemon(&[]);
    until(&mut daemon, "a start on a full disk", async |daemon| {
        daemon.log().contains("tellerd serves") || daemon.ended().is_some() && daemon.log().contains(FULL)
    })
    .await;
    if daemon.ended().is_none() {
        daemon.kill().await;
    }
    disk.free();
    let mut daemon = start(&rig, FULL).await;
    serve(&rig, &mut daemon).await;
    assert!(audit(&rig, &daemon).await > before);
    assert!(daemon.terminate().await.success());

    disk.remount("ro", &data);
    let mut refused = rig.daemon(&[]);
    until(&mut refused, "a refusal", async |daemon| {
        daemon.ended().is_some() && daemon.log().contains("Read-only file system")
    })
    .await;
    disk.remount("rw", &data);
    let mut daemon = start(&rig, "Read-only").await;
    serve(&rig, &mut daemon).await;
    audit(&rig, &daemon).await;
    assert!(daemon.terminate().await.success());
    let words = disk.within();
    for what in ["journal", "store"] {
        let verified = Command::new(&words[0])
            .args(&words[1..])
            .args([env!("CARGO_BIN_EXE_tellerd"), what, "verify", "--data"])
            .arg(&data)
            .output()
            .unwrap();
        assert!(verified.status.success(), "{verified:?}");
    }
}
