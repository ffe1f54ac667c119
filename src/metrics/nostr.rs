//! The families of what goes over Nostr, and of the sites that are heard there.
//!
//! Called by the gate, the relays' watcher and the Nostr actor. Labels: methods, codes and reasons are closed lists;
//! relays are those of the configuration, sites the clients of the service.

use std::time::Duration;

use ::nostr::RelayUrl;
use prometheus::{Gauge, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGaugeVec};

use super::register::Register;
use super::{Metrics, signed};
use crate::api::SiteView;
use crate::nostr::method::Method;
use crate::nostr::relays::{End, Published, Said, Watcher};
use crate::nostr::wire::{Code, DropReason};

pub(super) struct NostrFamilies {
    request: HistogramVec,
    /// Made once: the good answers are the many.
    request_ok: Vec<(Method, Histogram)>,
    dropped: Vec<(DropReason, IntCounter)>,
    shards: IntCounterVec,
    skew: Gauge,
    relay_connected: IntGaugeVec,
    relay_reconnects: IntCounterVec,
    relay_said: IntCounterVec,
    published: HistogramVec,
    site_up: IntGaugeVec,
    site_heard: IntGaugeVec,
    site_atm_state: IntGaugeVec,
    site_cassette_notes: IntGaugeVec,
    site_waiting: IntGaugeVec,
}

impl NostrFamilies {
    pub fn new(make: &Register) -> Result<Self, prometheus::Error> {
        let request = make.histograms("tellerd_nostr_request_duration_seconds")?;
        let dropped = make.counters("tellerd_nostr_events_dropped_total")?;
        let ok = |method: &Method| (*method, request.with_label_values(&[method.name(), "ok"]));
        let shards = make.counters("tellerd_nostr_shards_total")?;
        for direction in ["in", "out"] {
            // Exported from the start.
            drop(shards.with_label_values(&[direction]));
        }
        let reason = |reason: &DropReason| (*reason, dropped.with_label_values(&[reason.as_str()]));
        Ok(Self {
            request_ok: Method::ALL.iter().map(ok).collect(),
            dropped: DropReason::ALL.iter().map(reason).collect(),
            request,
            shards,
            skew: make.real_gauge("tellerd_nostr_clock_skew_seconds")?,
            relay_connected: make.gauges("tellerd_nostr_relay_connected")?,
            relay_reconnects: make.counters("tellerd_nostr_relay_reconnects_total")?,
            relay_said: make.counters("tellerd_nostr_relay_complaints_total")?,
            published: make.histograms("tellerd_nostr_publish_duration_seconds")?,
            site_up: make.gauges("tellerd_site_up")?,
            site_heard: make.gauges("tellerd_site_heard_timestamp_seconds")?,
            site_atm_state: make.gauges("tellerd_site_atm_state")?,
            site_cassette_notes: make.gauges("tellerd_site_cassette_notes")?,
            site_waiting: make.gauges("tellerd_site_waiting_cashouts")?,
        })
    }
}

impl Metrics {
    /// A request was answered: OK, or with a failure's code. `None` for a method that does not exist.
    pub fn nostr_request(&self, method: Option<Method>, failed: Option<Code>, took: Duration) {
        let families = &self.0.nostr;
        let known = families.request_ok.iter().find(|(known, _)| Some(*known) == method);
        match (known, failed) {
            (Some((_, ok)), None) => ok.observe(took.as_secs_f64()),
            _ => {
                let method = method.map_or("unknown", Method::name);
                let code = failed.map_or("ok", Code::as_str);
                families
                    .request
                    .with_label_values(&[method, code])
                    .observe(took.as_secs_f64());
            }
        }
    }

    /// An event got no answer.
    pub fn nostr_dropped(&self, reason: DropReason) {
        if let Some((_, counter)) = self.0.nostr.dropped.iter().find(|(known, _)| *known == reason) {
            counter.inc();
        }
    }

    /// Pieces of long messages came in or went out.
    pub fn nostr_shards(&self, direction: &'static str, pieces: usize) {
        let pieces = u64::try_from(pieces).unwrap_or(u64::MAX);
        self.0.nostr.shards.with_label_values(&[direction]).inc_by(pieces);
    }

    /// The own clock minus those of others, in seconds.
    pub fn set_nostr_skew(&self, seconds: f64) {
        self.0.nostr.skew.set(seconds);
    }

    /// All sites as they are now; those that are not among them are exported no more.
    pub fn set_sites(&self, sites: &[SiteView]) {
        let families = &self.0.nostr;
        for family in [
            &families.site_up,
            &families.site_heard,
            &families.site_atm_state,
            &families.site_cassette_notes,
            &families.site_waiting,
        ] {
            family.reset();
        }
        for view in sites {
            let site = view.site.as_str();
            families.site_up.with_label_values(&[site]).set(i64::from(!view.down));
            let heard = families.site_heard.with_label_values(&[site]);
            heard.set(signed(view.heard_unix_ms.as_secs()));
            let waiting = i64::try_from(view.report.waiting.len()).unwrap_or(i64::MAX);
            families.site_waiting.with_label_values(&[site]).set(waiting);
            for atm in &view.report.atms {
                let id = atm.id.as_str();
                // A machine of a site that is down is not known to be in any state.
                let state = if view.down { "unknown" } else { site_state(&atm.state) };
                families.site_atm_state.with_label_values(&[site, id, state]).set(1);
                for cassette in &atm.cassettes {
                    let labels = [site, id, &cassette.position.to_string()];
                    let notes = families.site_cassette_notes.with_label_values(&labels);
                    notes.set(i64::from(cassette.remaining));
                }
            }
        }
    }
}

impl Watcher for Metrics {
    fn relay_connected(&self, relay: &RelayUrl, connected: bool) {
        let gauge = self.0.nostr.relay_connected.with_label_values(&[relay.as_str()]);
        gauge.set(i64::from(connected));
    }

    fn relay_reconnected(&self, relay: &RelayUrl) {
        self.0.nostr.relay_reconnects.with_label_values(&[relay.as_str()]).inc();
    }

    fn relay_said(&self, relay: &RelayUrl, what: Said) {
        let kind = match what {
            Said::Notice => "notice",
            Said::Closed => "closed",
            Said::Refused => "refused",
            Said::RateLimited => "rate_limited",
            Said::AuthFailed => "auth_failed",
            Said::TooLong => "too_long",
        };
        self.0.nostr.relay_said.with_label_values(&[relay.as_str(), kind]).inc();
    }

    fn event_refused(&self, reason: DropReason) {
        self.nostr_dropped(reason);
    }

    fn published(&self, published: Published) {
        let outcome = match published.end {
            End::Confirmed => "confirmed",
            End::Unconfirmed => "unconfirmed",
            End::GivenUp => "given_up",
        };
        self.0
            .nostr
            .published
            .with_label_values(&[outcome])
            .observe(published.took.as_secs_f64());
    }
}

/// A site's word for a state as a label: outside data is never one.
fn site_state(word: &str) -> &'static str {
    use super::AtmState as S;
    let states = [S::Starting, S::Ready, S::Busy, S::Draining, S::OutOfService];
    let known = states.iter().map(|state| state.as_str()).find(|state| *state == word);
    known.unwrap_or("unknown")
}
