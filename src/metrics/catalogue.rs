//! Every metric family: name, kind, unit, help, labels. `docs/METRICS.md` says the same and when to worry.
//!
//! Called by [`super::Metrics`], which makes a family only from its entry here. What must stay true: names
//! follow the Prometheus conventions (prefix, base unit, `_total`), and no label takes unbounded values.

/// What a family is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Kind {
    /// Only grows; zero at the start of the process.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts observations up to each of these bounds.
    Histogram(&'static [f64]),
}

impl Kind {
    /// As in the exposition format.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram(_) => "histogram",
        }
    }
}

/// One metric family.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Family {
    /// Full name.
    pub name: &'static str,
    /// Its kind.
    pub kind: Kind,
    /// Of its values.
    pub unit: &'static str,
    /// One sentence.
    pub help: &'static str,
    /// Label names, in order.
    pub labels: &'static [&'static str],
}

/// From a local call to a customer who takes his time.
const STAGE_SECONDS: &[f64] = &[
    0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 180.0, 600.0, 3600.0,
];
/// Up to the default deadline of a call.
const CALL_SECONDS: &[f64] = &[0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// From a disk with a power-safe cache to a failing one.
const DISK_SECONDS: &[f64] = &[
    0.0001, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0,
];
const BATCH_RECORDS: &[f64] = &[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0];

const fn family(
    name: &'static str,
    kind: Kind,
    unit: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
) -> Family {
    Family {
        name,
        kind,
        unit,
        help,
        labels,
    }
}

/// All families, in the order of `docs/METRICS.md`.
pub(super) const CATALOGUE: &[Family] = &[
    family(
        "tellerd_stage_duration_seconds",
        Kind::Histogram(STAGE_SECONDS),
        "seconds",
        &["stage", "outcome"],
        "How long one stage of a cash-out took.",
    ),
    family(
        "tellerd_cashouts_total",
        Kind::Counter,
        "cash-outs",
        &["outcome"],
        "Cash-outs that came to an outcome.",
    ),
    family(
        "tellerd_failures_total",
        Kind::Counter,
        "failures",
        &["reason"],
        "What went wrong, once for each time.",
    ),
    family(
        "tellerd_invoices_pending",
        Kind::Gauge,
        "invoices",
        &["state"],
        "Invoices that are not at their end, by state.",
    ),
    family(
        "tellerd_cashouts_open",
        Kind::Gauge,
        "cash-outs",
        &["state"],
        "Cash-outs that are not at their end, by state.",
    ),
    family(
        "tellerd_held_sats",
        Kind::Gauge,
        "satoshi",
        &[],
        "Customers' money held by LND and neither settled nor canceled.",
    ),
    family(
        "tellerd_dispensed_unsettled_sats",
        Kind::Gauge,
        "satoshi",
        &[],
        "Held money for which notes already left the machine.",
    ),
    family(
        "tellerd_lowest_blocks_left",
        Kind::Gauge,
        "blocks",
        &[],
        "The fewest blocks any hold has before LND cancels it by itself; NaN when nothing is held.",
    ),
    family(
        "tellerd_oldest_hold_timestamp_seconds",
        Kind::Gauge,
        "seconds",
        &[],
        "Unix time at which the oldest hold began; NaN when nothing is held.",
    ),
    family(
        "tellerd_oldest_settling_timestamp_seconds",
        Kind::Gauge,
        "seconds",
        &[],
        "Unix time at which the oldest settlement was ordered that LND has not done; NaN when there is none.",
    ),
    family(
        "tellerd_settled_not_final_sats",
        Kind::Gauge,
        "satoshi",
        &[],
        "Money that LND calls settled and whose HTLCs are not at their end: it is not there yet.",
    ),
    family(
        "tellerd_settled_not_final_invoices",
        Kind::Gauge,
        "invoices",
        &[],
        "Invoices of that money.",
    ),
    family(
        "tellerd_oldest_settled_not_final_timestamp_seconds",
        Kind::Gauge,
        "seconds",
        &[],
        "Unix time at which the oldest of them was settled; NaN when there is none.",
    ),
    family(
        "tellerd_cassette_notes",
        Kind::Gauge,
        "notes",
        &["atm", "position", "kind"],
        "Notes of one cassette since it was last counted, by what became of them; reserved, retracted and unaccounted only above 0.",
    ),
    family(
        "tellerd_atm_state",
        Kind::Gauge,
        "boolean",
        &["atm", "state"],
        "1 for the state an ATM is in; the others are not exported.",
    ),
    family(
        "tellerd_atms",
        Kind::Gauge,
        "ATMs",
        &["state"],
        "ATMs of the configuration, by state.",
    ),
    family(
        "tellerd_lnd_connected",
        Kind::Gauge,
        "boolean",
        &[],
        "1 when LND answers.",
    ),
    family(
        "tellerd_lnd_synced",
        Kind::Gauge,
        "boolean",
        &[],
        "1 when LND is in sync with the chain.",
    ),
    family(
        "tellerd_lnd_stores_resolutions",
        Kind::Gauge,
        "boolean",
        &[],
        "1 when LND stores what finally becomes of HTLCs and tells it, so that settlements are followed.",
    ),
    family(
        "tellerd_lnd_block_height",
        Kind::Gauge,
        "blocks",
        &[],
        "The best block height LND told.",
    ),
    family(
        "tellerd_lnd_request_duration_seconds",
        Kind::Histogram(CALL_SECONDS),
        "seconds",
        &["method", "outcome"],
        "How long one call to LND took, by method and ok or the kind of error.",
    ),
    family(
        "tellerd_journal_append_duration_seconds",
        Kind::Histogram(DISK_SECONDS),
        "seconds",
        &[],
        "From handing in a record to its being durable.",
    ),
    family(
        "tellerd_journal_sync_duration_seconds",
        Kind::Histogram(DISK_SECONDS),
        "seconds",
        &[],
        "How long one sync to the disk took.",
    ),
    family(
        "tellerd_journal_batch_records",
        Kind::Histogram(BATCH_RECORDS),
        "records",
        &[],
        "Records made durable by one sync.",
    ),
    family(
        "tellerd_journal_records_total",
        Kind::Counter,
        "records",
        &[],
        "Records made durable.",
    ),
    family(
        "tellerd_journal_failures_total",
        Kind::Counter,
        "failures",
        &[],
        "Records that could not be made durable.",
    ),
    family(
        "tellerd_actor_restarts_total",
        Kind::Counter,
        "restarts",
        &["actor"],
        "Actors that died and were started again.",
    ),
    family(
        "tellerd_messages_refused_total",
        Kind::Counter,
        "messages",
        &["actor"],
        "Messages an actor did not take because its mailbox was full or it was dead.",
    ),
    family(
        "tellerd_conservation_drift_notes",
        Kind::Gauge,
        "notes",
        &[],
        "Notes too many or too few in the books of all cassettes.",
    ),
    family(
        "tellerd_conservation_drift_minor_units",
        Kind::Gauge,
        "minor units",
        &[],
        "Money too much or too little in the books of all finished cash-outs.",
    ),
    family(
        "tellerd_claims_owed_minor_units",
        Kind::Gauge,
        "minor units",
        &[],
        "What customers are owed after a partial dispense.",
    ),
    family(
        "tellerd_losses_booked_minor_units_total",
        Kind::Counter,
        "minor units",
        &[],
        "What the operator gave away since the start: by policy, or by notes that a clearing of the path pushed out.",
    ),
    family(
        "tellerd_http_requests_total",
        Kind::Counter,
        "requests",
        &["route", "status"],
        "HTTP requests answered, by route and status.",
    ),
    family(
        "tellerd_build_info",
        Kind::Gauge,
        "boolean",
        &["version"],
        "Always 1; the version is in the label.",
    ),
    family(
        "tellerd_nostr_request_duration_seconds",
        Kind::Histogram(CALL_SECONDS),
        "seconds",
        &["method", "outcome"],
        "From a request over Nostr that was proven to its answer; the outcome is ok or the answer's code.",
    ),
    family(
        "tellerd_nostr_events_dropped_total",
        Kind::Counter,
        "events",
        &["reason"],
        "Events of kind 21000 that got no answer.",
    ),
    family(
        "tellerd_nostr_shards_total",
        Kind::Counter,
        "pieces",
        &["direction"],
        "Pieces of messages that are too long for one event.",
    ),
    family(
        "tellerd_nostr_clock_skew_seconds",
        Kind::Gauge,
        "seconds",
        &[],
        "This machine's clock minus that of whom it talks to, the median over the last ones; negative when it is slow.",
    ),
    family(
        "tellerd_nostr_relay_connected",
        Kind::Gauge,
        "boolean",
        &["relay"],
        "Whether a relay is connected.",
    ),
    family(
        "tellerd_nostr_relay_reconnects_total",
        Kind::Counter,
        "connections",
        &["relay"],
        "Times that a relay was connected again.",
    ),
    family(
        "tellerd_nostr_relay_complaints_total",
        Kind::Counter,
        "messages",
        &["relay", "kind"],
        "What relays say beside events.",
    ),
    family(
        "tellerd_nostr_publish_duration_seconds",
        Kind::Histogram(CALL_SECONDS),
        "seconds",
        &["outcome"],
        "From an event handed to the relays until one took it (confirmed, or unconfirmed by a relay that never confirms), or none did (given_up).",
    ),
    family(
        "tellerd_site_up",
        Kind::Gauge,
        "boolean",
        &["site"],
        "Whether a site was heard of within two minutes.",
    ),
    family(
        "tellerd_site_heard_timestamp_seconds",
        Kind::Gauge,
        "seconds",
        &["site"],
        "Unix time at which a site was heard of last.",
    ),
    family(
        "tellerd_site_atm_state",
        Kind::Gauge,
        "boolean",
        &["site", "atm", "state"],
        "1 for the state of a site's machine, as it told; unknown while the site is down.",
    ),
    family(
        "tellerd_site_cassette_notes",
        Kind::Gauge,
        "notes",
        &["site", "atm", "position"],
        "Notes that should be in a cassette of a site, as it told.",
    ),
    family(
        "tellerd_site_waiting_cashouts",
        Kind::Gauge,
        "cash-outs",
        &["site"],
        "Cash-outs of a site that wait for an operator, as it told.",
    ),
    family(
        "process_cpu_seconds_total",
        Kind::Counter,
        "seconds",
        &[],
        "Time that processors spent on this process.",
    ),
    family(
        "process_resident_memory_bytes",
        Kind::Gauge,
        "bytes",
        &[],
        "Memory of this process that is in RAM.",
    ),
    family(
        "process_threads",
        Kind::Gauge,
        "threads",
        &[],
        "Threads of this process.",
    ),
    family(
        "process_open_fds",
        Kind::Gauge,
        "files",
        &[],
        "Open files, sockets and lines of this process.",
    ),
    family("process_max_fds", Kind::Gauge, "files", &[], "How many it may have."),
    family(
        "process_start_time_seconds",
        Kind::Gauge,
        "seconds",
        &[],
        "Unix time at which this process began.",
    ),
];
