//! The crash test: one cash-out, and the daemon aborts at each point it passes, one run for each point.
//!
//! The real binary runs as a child; LND, the dispenser and the customer are in this process and outlive it. After the
//! crash the daemon is started again, and the cash-out has to come to rest in a state that [`super::crash_audit`] allows.
//! CONTRIBUTING.md, "Crash points", tells how to run one point by hand.
#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeSet, VecDeque};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use rustix::process::Signal;
use tellerd::api::{AtmView, CashOutList, CashOutView, Decision, ResolveCashOut, StartCashOut};
use tellerd::hardware::puloon::driver::Variant;
use tellerd::hardware::puloon::emulator::{Fault, Setup};
use tellerd::money::{Funds, Minor};
use tellerd::sim::lnd::PayOptions;

use super::crash_audit::{Truth, violations};
use super::fleet_rig::journal_in;
use super::rig::{Daemon, Machine, Rig, breath};
use super::small_world;

/// Runs at the same time. Most of a run is waiting.
const PARALLEL: usize = 4;
/// For one life of the daemon, on a machine that is busy with others.
const PATIENCE: Duration = Duration::from_secs(45);
/// A cash-out without end is not tried any further.
const MOST_POINTS: usize = 200;
/// Enough to see what is wrong.
const MOST_FAULTS: usize = 4;

/// One kind of cash-out.
struct Life {
    variant: Variant,
    /// What befalls its first dispense.
    fault: Option<Fault>,
    amount: u64,
    /// How it ends when nothing crashes.
    end: &'static str,
    /// How it may end else.
    ends: &'static [&'static str],
    /// Crashes begin at this point; what comes before is the same in every life.
    from: &'static str,
    /// Points that have to be among those it crashed at.
    points: &'static [&'static str],
    /// How many they are at least.
    least: usize,
}

/// What came of one run.
#[derive(Default)]
struct Run {
    /// The points it crashed at.
    crashes: Vec<String>,
    /// The points that the first process passed.
    passed: Vec<String>,
    /// How it ended; `None` when there never was a cash-out.
    end: Option<String>,
}

/// The daemon's present life, as the world sees it.
enum Outcome {
    Died(ExitStatus),
    AtRest(Vec<CashOutView>, AtmView),
}

/// The customer pays once, when an invoice can be seen.
struct Customer<'a> {
    life: &'a Life,
    rig: &'a Rig,
    paid: bool,
}

impl Customer<'_> {
    fn pay(&mut self, invoice: &str) {
        if !self.paid {
            self.rig.lnd.pay(invoice, &PayOptions::default()).unwrap();
            self.paid = true;
        }
    }

    /// An invoice that LND had before the daemon died may have been shown.
    fn pay_what_lnd_knows(&mut self) {
        if let Some(invoice) = self.rig.lnd.ledger().unwrap().invoices.first() {
            self.pay(&invoice.payment_request);
        }
    }

    /// Does what customer and operator do, until the daemon dies or nothing happens by itself any more.
    async fn live(&mut self, daemon: &mut Daemon) -> Outcome {
        loop {
            if let Some(status) = daemon.ended() {
                self.pay_what_lnd_knows();
                return Outcome::Died(status);
            }
            if let Some(CashOutList { cashouts }) = daemon.get("/v1/cashouts").await {
                match cashouts.first() {
                    Some(cashout) if cashout.at_rest() && cashout.funds != Some(Funds::Pending) => {
                        if let Some(atm) = daemon.get("/v1/atms/atm1").await {
                            return end(daemon, cashouts, atm).await;
                        }
                    }
                    Some(cashout) => self.go_on(daemon, cashout).await,
                    None if daemon.is_ready().await => self.start(daemon).await,
                    None => {}
                }
            }
            breath().await;
        }
    }

    async fn start(&self, daemon: &Daemon) {
        let (atm, amount_minor) = ("atm1".parse().unwrap(), Minor(self.life.amount));
        // Whether it was started shows in the list.
        let _: Option<CashOutView> = daemon.post("/v1/cashouts", &StartCashOut { atm, amount_minor }).await;
    }

    async fn go_on(&mut self, daemon: &Daemon, cashout: &CashOutView) {
        if let Some(invoice) = &cashout.payment_request {
            self.pay(invoice);
        }
        let action = cashout.operator_action.as_deref().unwrap_or_default();
        if cashout.state == "outcome_unknown" && !action.starts_with("The dispenser is being asked") {
            let decision = Decision::DeliveredMinor(Truth::read(self.rig).delivered());
            let (by, note) = ("ada".to_owned(), "counted".to_owned());
            let path = format!("/v1/cashouts/{}/resolve", cashout.id);
            // Whether it was taken shows in the state.
            let _: Option<CashOutView> = daemon.post(&path, &ResolveCashOut { by, decision, note }).await;
        }
    }
}

/// The list may be ahead of the points: an orderly end passes those that are left.
async fn end(daemon: &mut Daemon, cashouts: Vec<CashOutView>, atm: AtmView) -> Outcome {
    let status = daemon.terminate().await;
    if status.success() {
        Outcome::AtRest(cashouts, atm)
    } else {
        Outcome::Died(status)
    }
}

impl Life {
    fn rig(&self) -> Rig {
        let setup = Setup {
            cassettes: [50, 50, -1, -1],
            note_ms: 2,
            faults: self.fault.iter().map(|fault| fault.clone().next()).collect(),
            ..Setup::default()
        };
        let variant = self.variant;
        Rig::new(&[Machine { variant, setup }])
    }

    /// One cash-out; the daemon's n-th process aborts at point `crash_at[n]`, if it gets there.
    async fn run(&self, crash_at: &[String]) -> Result<Run, String> {
        let rig = self.rig();
        let mut customer = Customer {
            life: self,
            rig: &rig,
            paid: false,
        };
        let mut run = Run::default();
        loop {
            let log = rig.path(&format!("points-{}", run.crashes.len()));
            let at = crash_at.get(run.crashes.len());
            let mut variables = vec![("TELLERD_CRASH_LOG", log.to_string_lossy().into_owned())];
            variables.extend(at.map(|at| ("TELLERD_CRASH_AT", at.clone())));
            let mut daemon = rig.daemon(&variables);
            let outcome = tokio::time::timeout(PATIENCE, customer.live(&mut daemon)).await;
            let points = std::fs::read_to_string(&log).unwrap_or_default();
            let points: Vec<String> = points.lines().map(str::to_owned).collect();
            let failed = |what: &str| {
                let (crashes, words) = (run.crashes.join(", then "), daemon.last_words());
                format!("crash at {crash_at:?} ({crashes}): {what}\n{words}\n")
            };
            match outcome {
                Err(_) => return Err(failed("it does not come to rest")),
                Ok(Outcome::AtRest(cashouts, atm)) => {
                    let found = self.judge(&rig, &cashouts, &atm);
                    if !found.is_empty() {
                        return Err(failed(&found.join("; ")));
                    }
                    run.end = cashouts.first().map(|cashout| cashout.state.clone());
                    if run.crashes.is_empty() {
                        run.passed = points;
                    }
                    return Ok(run);
                }
                Ok(Outcome::Died(status)) if at.is_none() || status.signal() != Some(Signal::ABORT.as_raw()) => {
                    return Err(failed(&format!("tellerd ended by itself, {status}")));
                }
                Ok(Outcome::Died(_)) => {
                    run.crashes.extend(points.last().cloned());
                    if run.crashes.len() == 1 {
                        run.passed = points;
                    }
                }
            }
        }
    }

    fn judge(&self, rig: &Rig, cashouts: &[CashOutView], atm: &AtmView) -> Vec<String> {
        let mut found = violations(&Truth::read(rig), cashouts, atm);
        let end = cashouts.first().map_or("none", |cashout| cashout.state.as_str());
        if !self.ends.contains(&end) {
            found.push(format!("it ended as {end}, not as one of {:?}", self.ends));
        }
        found.extend(small_world::history::impossible(&journal_in(&rig.path("data"))));
        found
    }
}

/// The crashes of the run for the `index`-th point: that point, in every third run followed by a second crash on the way
/// back, a little later each time.
fn crashes(index: usize, point: &str) -> Vec<String> {
    let mut crash_at = vec![point.to_owned()];
    if index.is_multiple_of(3) {
        crash_at.push((1 + index / 3 % 9).to_string());
    }
    crash_at
}

/// Runs `life` without a crash, then with a crash at each point from `life.from` on. Points that only come up in a run
/// with a crash are tried as well, until there are no new ones.
async fn crash_everywhere(life: &Life) {
    let calm = life.run(&[]).await.unwrap_or_else(|fault| panic!("{fault}"));
    assert_eq!(calm.end.as_deref(), Some(life.end));
    assert_eq!(out_of_order(&calm.passed), Vec::<String>::new());
    let from = calm
        .passed
        .iter()
        .position(|point| point.starts_with(life.from))
        .unwrap();
    let mut waiting: VecDeque<String> = calm.passed[from..].iter().cloned().collect();
    let mut known: BTreeSet<String> = calm.passed.into_iter().collect();
    let (mut running, mut crashed, mut faults) = (FuturesUnordered::new(), BTreeSet::new(), Vec::new());
    for started in 0..MOST_POINTS {
        if let Some(point) = waiting.pop_front() {
            let crash_at = crashes(started, &point);
            running.push(async move { life.run(&crash_at).await });
            if running.len() < PARALLEL && !waiting.is_empty() {
                continue;
            }
        }
        match running.next().await {
            None => break,
            Some(Err(fault)) => faults.push(fault),
            Some(Ok(run)) => {
                faults.extend(out_of_order(&run.passed));
                crashed.extend(run.crashes.into_iter().next());
                waiting.extend(run.passed.into_iter().filter(|point| known.insert(point.clone())));
            }
        }
        if faults.len() >= MOST_FAULTS {
            break;
        }
    }
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
    println!("crashed at {} points: {crashed:?}", crashed.len());
    let at = |name: &str| crashed.iter().any(|point| point.split('#').next() == Some(name));
    let missed: Vec<_> = life.points.iter().filter(|name| !at(name)).collect();
    assert!(missed.is_empty(), "no crash at {missed:?}, only at {crashed:?}");
    assert!(
        crashed.len() >= life.least,
        "only {} crashes: {crashed:?}",
        crashed.len()
    );
}

/// What has to be on disk before an effect starts.
const WRITE_BEFORE_ACT: [(&str, &str); 9] = [
    ("append cash_out quoted", "before OpenInvoice"),
    ("append invoice requested", "before Add"),
    ("append cash_out payment_held", "before Prepare"),
    ("append cash_out dispense_committed", "before Dispense"),
    ("append invoice committed", "before Dispense"),
    ("append cash_out dispense_reported", "before Settle"),
    ("append invoice settle_ordered", "after Settle"),
    ("append invoice settled_at_lnd", "before FollowFunds"),
    ("append cash_out invoice_settled", "before AwaitFunds"),
];

/// The pairs of [`WRITE_BEFORE_ACT`] whose effect came without its record.
fn out_of_order(passed: &[String]) -> Vec<String> {
    let first = |name: &str| passed.iter().position(|point| point.split('#').next() == Some(name));
    let wrong = |(record, effect): &&(&str, &str)| {
        first(effect).is_some_and(|effect| first(record).is_none_or(|record| effect < record))
    };
    let wrong = WRITE_BEFORE_ACT.iter().filter(wrong);
    wrong
        .map(|(record, effect)| format!("`{effect}` without `{record}` before it: {passed:?}"))
        .collect()
}

/// What a cash-out passes when nothing goes wrong.
const WHOLE: &[&str] = &[
    "append node first_reached",
    "append atm cassette_loaded",
    "append cash_out quoted",
    "before OpenInvoice",
    "append invoice requested",
    "after OpenInvoice",
    "before Add",
    "after Add",
    "append invoice opened",
    "append cash_out invoice_opened",
    "before Watch",
    "after Watch",
    "before WatchInvoice",
    "after WatchInvoice",
    "append invoice accepted",
    "append cash_out payment_held",
    "before Prepare",
    "append invoice committed",
    "after Prepare",
    "append cash_out dispense_committed",
    "before Dispense",
    "after Dispense",
    "append cash_out dispense_reported",
    "before Settle",
    "append invoice settle_ordered",
    "after Settle",
    "append invoice settled_at_lnd",
    "append cash_out invoice_settled",
    "before FollowFunds",
    "after FollowFunds",
    "before AwaitFunds",
    "append invoice funds_seen",
    "append cash_out funds_seen",
];

#[tokio::test]
async fn a_crash_at_any_point_of_a_cashout_ends_well() {
    let life = Life {
        variant: Variant::Standard,
        fault: None,
        amount: 9_000,
        end: "completed",
        ends: &["completed", "canceled"],
        from: "append",
        points: WHOLE,
        least: 28,
    };
    crash_everywhere(&life).await;
}

#[tokio::test]
async fn a_crash_with_a_device_that_keeps_a_serial_number_ends_well() {
    let life = Life {
        variant: Variant::Serial,
        fault: None,
        amount: 9_000,
        end: "completed",
        ends: &["completed", "canceled"],
        from: "before Prepare",
        points: &[
            "after Prepare",
            "before Dispense",
            "after Dispense",
            "before Settle",
            "after Settle",
        ],
        least: 12,
    };
    crash_everywhere(&life).await;
}

#[tokio::test]
async fn a_crash_around_a_jam_before_the_first_note_gives_the_money_back() {
    let life = Life {
        variant: Variant::Standard,
        fault: Some(Fault::JamOnPath {
            after_notes: 0,
            hard: false,
        }),
        amount: 9_000,
        end: "canceled",
        ends: &["canceled"],
        from: "before Prepare",
        points: &["before Dispense", "after Dispense", "before Cancel", "after Cancel"],
        least: 12,
    };
    crash_everywhere(&life).await;
}

#[tokio::test]
async fn a_crash_around_a_jam_after_some_notes_leaves_a_claim() {
    let life = Life {
        variant: Variant::Standard,
        fault: Some(Fault::JamOnPath {
            after_notes: 2,
            hard: false,
        }),
        amount: 9_000,
        end: "claim_owed",
        ends: &["claim_owed", "canceled"],
        from: "before Prepare",
        points: &[
            "before Dispense",
            "after Dispense",
            "before Settle",
            "after Settle",
            "before Alert",
        ],
        least: 14,
    };
    crash_everywhere(&life).await;
}

#[tokio::test]
async fn a_crash_around_an_empty_cassette_never_pays_out_twice() {
    let life = Life {
        variant: Variant::Standard,
        // 100.00 are two notes of cassette 2, then five of cassette 1.
        fault: Some(Fault::Dry { position: 2, left: 0 }),
        amount: 10_000,
        end: "completed",
        ends: &["completed", "canceled"],
        from: "before Dispense",
        points: &[
            "after Dispense",
            "before Prepare",
            "after Prepare",
            "before Dispense",
            "before Settle",
        ],
        least: 14,
    };
    crash_everywhere(&life).await;
}

#[tokio::test]
async fn a_crash_around_a_power_cut_is_left_to_the_operator() {
    let life = Life {
        variant: Variant::Standard,
        fault: Some(Fault::PowerLost {
            after_notes: Some(2),
            serial_kept: false,
        }),
        amount: 9_000,
        end: "claim_owed",
        ends: &["claim_owed", "canceled"],
        from: "before Dispense",
        points: &[
            "after Dispense",
            "before Recover",
            "after Recover",
            "before Alert",
            "before Settle",
        ],
        least: 14,
    };
    crash_everywhere(&life).await;
}
