//! Every metric of the daemon, in one registry.
//!
//! Owns the families of [`Metrics::catalogue`]. Called by the actors (typed methods) and the HTTP edge
//! ([`Metrics::render`]). What must stay true: no payment hash, cash-out id or other unbounded text is a
//! label, and `docs/METRICS.md` lists exactly what is exported (a test).

mod catalogue;
mod label;
mod machines;
mod nostr;
mod process;
mod register;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use prometheus::{
    Gauge, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, TextEncoder,
};

use crate::cashout::Phase;
use crate::invoice::InvoicePhase;
use crate::lnd::LnErrorKind;
use crate::money::Minor;
use crate::time::UnixMs;

pub use catalogue::{Family, Kind};
pub use label::{ActorKind, AtmState, CashOutOutcome, FailureReason, LndMethod, NoteKind, Route, Stage, StageOutcome};
pub use machines::Machines;

use label::{Children, Label};
use nostr::NostrFamilies;
use process::ProcessFamilies;
use register::Register;

/// All metrics; clones share them.
#[derive(Clone)]
pub struct Metrics(Arc<Families>);

struct Families {
    registry: Registry,
    stage: Children<Stage, Children<StageOutcome, Histogram>>,
    cashouts: Children<CashOutOutcome, IntCounter>,
    failures: Children<FailureReason, IntCounter>,
    invoices_pending: IntGaugeVec,
    cashouts_open: IntGaugeVec,
    held_sats: IntGauge,
    dispensed_unsettled_sats: IntGauge,
    lowest_blocks_left: Gauge,
    oldest_hold: Gauge,
    oldest_settling: Gauge,
    not_final_sats: IntGauge,
    not_final_invoices: IntGauge,
    oldest_not_final: Gauge,
    atms: IntGaugeVec,
    lnd_connected: IntGauge,
    lnd_synced: IntGauge,
    lnd_stores_resolutions: IntGauge,
    lnd_block_height: IntGauge,
    lnd_request: HistogramVec,
    lnd_request_ok: Children<LndMethod, Histogram>,
    journal_append: Histogram,
    journal_sync: Histogram,
    journal_batch: Histogram,
    journal_records: IntCounter,
    journal_failures: IntCounter,
    actor_restarts: Children<ActorKind, IntCounter>,
    messages_refused: Children<ActorKind, IntCounter>,
    drift_notes: IntGauge,
    drift_minor: IntGauge,
    claims_owed: IntGauge,
    losses_booked: IntCounter,
    http_requests: IntCounterVec,
    nostr: NostrFamilies,
    process: ProcessFamilies,
}

/// What is at stake now, over all invoices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Exposure {
    /// Held and neither settled nor canceled.
    pub held_sats: u64,
    /// The part of it for which notes already left a machine.
    pub dispensed_unsettled_sats: u64,
    /// Of the hold that LND would cancel first; negative when it should have by now.
    pub lowest_blocks_left: Option<i64>,
    /// When the oldest hold began.
    pub oldest_hold: Option<UnixMs>,
    /// When the oldest settlement was ordered that is not done.
    pub oldest_settling: Option<UnixMs>,
    /// Settled, and the money not there yet.
    pub not_final_sats: u64,
    /// The invoices of it.
    pub not_final_invoices: u64,
    /// When the oldest of them was settled.
    pub oldest_not_final: Option<UnixMs>,
}

impl Metrics {
    /// All metrics, at zero.
    ///
    /// # Errors
    /// A family that contradicts its entry in the catalogue; a test shows that there is none.
    pub fn new() -> Result<Self, prometheus::Error> {
        let make = Register::new();
        let stage_family = make.histograms("tellerd_stage_duration_seconds")?;
        let cashouts = make.counters("tellerd_cashouts_total")?;
        let failures = make.counters("tellerd_failures_total")?;
        let restarts = make.counters("tellerd_actor_restarts_total")?;
        let refused = make.counters("tellerd_messages_refused_total")?;
        let lnd_request = make.histograms("tellerd_lnd_request_duration_seconds")?;
        let build = make.gauges("tellerd_build_info")?;
        build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
        let families = Families {
            stage: Children::new(|stage: Stage| {
                Children::new(|outcome: StageOutcome| {
                    stage_family.with_label_values(&[stage.as_str(), outcome.as_str()])
                })
            }),
            cashouts: each(&cashouts),
            failures: each(&failures),
            invoices_pending: make.gauges("tellerd_invoices_pending")?,
            cashouts_open: make.gauges("tellerd_cashouts_open")?,
            held_sats: make.gauge("tellerd_held_sats")?,
            dispensed_unsettled_sats: make.gauge("tellerd_dispensed_unsettled_sats")?,
            lowest_blocks_left: make.real_gauge("tellerd_lowest_blocks_left")?,
            oldest_hold: make.real_gauge("tellerd_oldest_hold_timestamp_seconds")?,
            oldest_settling: make.real_gauge("tellerd_oldest_settling_timestamp_seconds")?,
            not_final_sats: make.gauge("tellerd_settled_not_final_sats")?,
            not_final_invoices: make.gauge("tellerd_settled_not_final_invoices")?,
            oldest_not_final: make.real_gauge("tellerd_oldest_settled_not_final_timestamp_seconds")?,
            atms: make.gauges("tellerd_atms")?,
            lnd_connected: make.gauge("tellerd_lnd_connected")?,
            lnd_synced: make.gauge("tellerd_lnd_synced")?,
            lnd_stores_resolutions: make.gauge("tellerd_lnd_stores_resolutions")?,
            lnd_block_height: make.gauge("tellerd_lnd_block_height")?,
            lnd_request_ok: Children::new(|method: LndMethod| lnd_request.with_label_values(&[method.as_str(), "ok"])),
            lnd_request,
            journal_append: make.histogram("tellerd_journal_append_duration_seconds")?,
            journal_sync: make.histogram("tellerd_journal_sync_duration_seconds")?,
            journal_batch: make.histogram("tellerd_journal_batch_records")?,
            journal_records: make.counter("tellerd_journal_records_total")?,
            journal_failures: make.counter("tellerd_journal_failures_total")?,
            actor_restarts: each(&restarts),
            messages_refused: each(&refused),
            drift_notes: make.gauge("tellerd_conservation_drift_notes")?,
            drift_minor: make.gauge("tellerd_conservation_drift_minor_units")?,
            claims_owed: make.gauge("tellerd_claims_owed_minor_units")?,
            losses_booked: make.counter("tellerd_losses_booked_minor_units_total")?,
            http_requests: make.counters("tellerd_http_requests_total")?,
            nostr: NostrFamilies::new(&make)?,
            process: ProcessFamilies::new(&make)?,
            registry: make.into_registry(),
        };
        let metrics = Self(Arc::new(families));
        metrics.set_cashouts_open([]);
        metrics.set_invoices_pending([]);
        metrics.set_exposure(&Exposure::default());
        Ok(metrics)
    }

    /// Every family, in the order of `docs/METRICS.md`.
    #[must_use]
    pub fn catalogue() -> &'static [Family] {
        catalogue::CATALOGUE
    }

    /// The answer to `GET /metrics`, text format 0.0.4.
    #[must_use]
    pub fn render(&self, machines: &Machines) -> String {
        let states = machines.states.iter().map(|state| state.as_str());
        set_counts(
            &self.0.atms,
            &AtmState::ALL.iter().map(|state| state.as_str()).collect::<Vec<_>>(),
            states,
        );
        self.0.process.read();
        let mut text = String::new();
        if let Err(error) = TextEncoder::new().encode_utf8(&self.0.registry.gather(), &mut text) {
            tracing::error!(%error, "metrics can not be rendered");
        }
        machines.write(&mut text);
        text
    }

    /// A stage ended.
    pub fn stage_ended(&self, stage: Stage, outcome: StageOutcome, took: Duration) {
        let observe = |child: &Histogram| child.observe(took.as_secs_f64());
        self.0.stage.with(stage, |outcomes| outcomes.with(outcome, observe));
    }

    /// A cash-out came to an outcome.
    pub fn cashout_ended(&self, outcome: CashOutOutcome) {
        self.0.cashouts.with(outcome, IntCounter::inc);
    }

    /// Something went wrong.
    pub fn failed(&self, reason: FailureReason) {
        self.0.failures.with(reason, IntCounter::inc);
    }

    /// The states of all invoices that are not at their end.
    pub fn set_invoices_pending<'a>(&self, states: impl IntoIterator<Item = &'a InvoicePhase>) {
        const NAMES: [&str; 6] = ["creating", "open", "accepted", "committed", "settling", "canceling"];
        let names = states.into_iter().map(InvoicePhase::name);
        set_counts(&self.0.invoices_pending, &NAMES, names);
    }

    /// The states of all cash-outs that are not at their end.
    pub fn set_cashouts_open<'a>(&self, phases: impl IntoIterator<Item = &'a Phase>) {
        const NAMES: [&str; 9] = [
            "quoted",
            "awaiting_payment",
            "held",
            "dispensing",
            "outcome_unknown",
            "settling",
            "canceling",
            "claim_owed",
            "needs_operator",
        ];
        set_counts(&self.0.cashouts_open, &NAMES, phases.into_iter().map(Phase::name));
    }

    /// What is at stake now.
    pub fn set_exposure(&self, exposure: &Exposure) {
        self.0.held_sats.set(signed(exposure.held_sats));
        self.0
            .dispensed_unsettled_sats
            .set(signed(exposure.dispensed_unsettled_sats));
        // NaN makes every comparison in an alert false, which zero would not.
        self.0
            .lowest_blocks_left
            .set(exposure.lowest_blocks_left.map_or(f64::NAN, |blocks| blocks as f64));
        let seconds = |at: Option<UnixMs>| at.map_or(f64::NAN, |at| Duration::from_millis(at.0).as_secs_f64());
        self.0.oldest_hold.set(seconds(exposure.oldest_hold));
        self.0.oldest_settling.set(seconds(exposure.oldest_settling));
        self.0.not_final_sats.set(signed(exposure.not_final_sats));
        self.0.not_final_invoices.set(signed(exposure.not_final_invoices));
        self.0.oldest_not_final.set(seconds(exposure.oldest_not_final));
    }

    /// Whether LND answers.
    pub fn set_lnd_connected(&self, connected: bool) {
        self.0.lnd_connected.set(i64::from(connected));
    }

    /// Whether LND is in sync with the chain.
    pub fn set_lnd_synced(&self, synced: bool) {
        self.0.lnd_synced.set(i64::from(synced));
    }

    /// Whether settlements can be followed at LND.
    pub fn set_lnd_stores_resolutions(&self, stores: bool) {
        self.0.lnd_stores_resolutions.set(i64::from(stores));
    }

    /// The best height LND told.
    pub fn set_lnd_block_height(&self, height: u32) {
        self.0.lnd_block_height.set(i64::from(height));
    }

    /// A call to LND was answered or given up.
    pub fn lnd_request(&self, method: LndMethod, outcome: Result<(), LnErrorKind>, took: Duration) {
        let seconds = took.as_secs_f64();
        match outcome {
            Ok(()) => self.0.lnd_request_ok.with(method, |child| child.observe(seconds)),
            Err(kind) => {
                let labels = [method.as_str(), kind.as_str()];
                self.0.lnd_request.with_label_values(&labels).observe(seconds);
            }
        }
    }

    /// A record became durable `took` after it was handed in.
    pub fn journal_appended(&self, took: Duration) {
        self.0.journal_append.observe(took.as_secs_f64());
    }

    /// One sync made `records` durable.
    pub fn journal_synced(&self, records: u32, took: Duration) {
        self.0.journal_sync.observe(took.as_secs_f64());
        self.0.journal_batch.observe(f64::from(records));
        self.0.journal_records.inc_by(u64::from(records));
    }

    /// A record could not be made durable.
    pub fn journal_failed(&self) {
        self.0.journal_failures.inc();
    }

    /// An actor was started again.
    pub fn actor_restarted(&self, actor: ActorKind) {
        self.0.actor_restarts.with(actor, IntCounter::inc);
    }

    /// An actor did not take a message.
    pub fn message_refused(&self, actor: ActorKind) {
        self.0.messages_refused.with(actor, IntCounter::inc);
    }

    /// How far the books are from balance, over the fleet.
    pub fn set_conservation_drift(&self, notes: u64, money: Minor) {
        self.0.drift_notes.set(signed(notes));
        self.0.drift_minor.set(signed(money.0));
    }

    /// What customers are owed, over the fleet.
    pub fn set_claims_owed(&self, claims: Minor) {
        self.0.claims_owed.set(signed(claims.0));
    }

    /// The operator gave `loss` away.
    pub fn loss_booked(&self, loss: Minor) {
        self.0.losses_booked.inc_by(loss.0);
    }

    /// A request was answered with `status`.
    pub fn http_request(&self, route: Route, status: u16) {
        let labels = [route.as_str(), &status.to_string()];
        self.0.http_requests.with_label_values(&labels).inc();
    }
}

/// A child for each value of a family's only label.
fn each<L: Label>(family: &IntCounterVec) -> Children<L, IntCounter> {
    Children::new(|label: L| family.with_label_values(&[label.as_str()]))
}

/// Sets how often each of `names` is in `found`; what is in neither list is at its end and not exported.
fn set_counts(family: &IntGaugeVec, names: &[&'static str], found: impl Iterator<Item = &'static str>) {
    let mut counts: BTreeMap<&str, i64> = names.iter().map(|name| (*name, 0)).collect();
    for name in found {
        if let Some(count) = counts.get_mut(name) {
            *count += 1;
        }
    }
    for (name, count) in counts {
        family.with_label_values(&[name]).set(count);
    }
}

/// Gauges are signed; no real amount comes near the bound.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
