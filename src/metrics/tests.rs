//! The registry, its catalogue and the documentation agree.

use super::*;
use crate::api::SiteView;
use crate::cashout::ledger::Cassette;
use crate::ids::AtmId;
use crate::nostr::relays::{End, Published, Said, Watcher};

const PAGE: &str = include_str!("../../docs/METRICS.md");

fn atm(id: &str) -> AtmId {
    id.parse().unwrap()
}

fn lobby() -> Machines {
    let mut machines = Machines::default();
    machines.cassette(&atm("lobby"), &Cassette::loaded(1, Minor(2_000), 500), 3);
    machines.atm_state(&atm("lobby"), AtmState::Ready);
    machines
}

/// Everything that can be exported, at least once; with a machine called `lobby`.
fn all_touched() -> Metrics {
    let metrics = Metrics::new().unwrap();
    metrics.lnd_request(LndMethod::Settle, Err(LnErrorKind::Timeout), Duration::from_secs(10));
    metrics.http_request(Route::Healthz, 200);
    touch_nostr(&metrics);
    metrics
}

fn touch_nostr(metrics: &Metrics) {
    let relay = ::nostr::RelayUrl::parse("ws://127.0.0.1:7").unwrap();
    metrics.relay_connected(&relay, true);
    metrics.relay_reconnected(&relay);
    metrics.relay_said(&relay, Said::Notice);
    let took = Duration::from_millis(1);
    metrics.published(Published {
        end: End::Confirmed,
        took,
    });
    metrics.nostr_shards("out", 2);
    metrics.set_sites(&[site()]);
}

fn site() -> SiteView {
    let report = r#"{"version":"1","now_unix_ms":5,"waiting":[],"atms":[{"id":"annex","name":"l","state":"made up","reason":null,
        "open":[],"cassettes":[{"position":1,"denomination_minor":2000,"loaded":9,"delivered":1,"rejected":0,"retracted":0,
        "unaccounted":0,"remaining":8,"reserved":0}]}]}"#;
    SiteView {
        site: "kiosk".parse().unwrap(),
        down: false,
        heard_unix_ms: UnixMs(5_000),
        report: serde_json::from_str(report).unwrap(),
    }
}

#[test]
fn a_site_is_exported_with_closed_labels_while_it_is_a_site() {
    let metrics = all_touched();
    let text = metrics.render(&Machines::default());
    for line in [
        "tellerd_site_up{site=\"kiosk\"} 1",
        "tellerd_site_heard_timestamp_seconds{site=\"kiosk\"} 5",
        "tellerd_site_atm_state{atm=\"annex\",site=\"kiosk\",state=\"unknown\"} 1",
        "tellerd_site_cassette_notes{atm=\"annex\",position=\"1\",site=\"kiosk\"} 8",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    let down = SiteView { down: true, ..site() };
    metrics.set_sites(&[down]);
    assert!(
        metrics
            .render(&Machines::default())
            .contains("tellerd_site_up{site=\"kiosk\"} 0")
    );
    metrics.set_sites(&[]);
    assert!(!metrics.render(&Machines::default()).contains("kiosk"));
}

/// The cells of the table, back-quotes removed.
fn documented() -> Vec<Vec<String>> {
    let rows = PAGE
        .lines()
        .filter(|line| line.starts_with("| `tellerd_") || line.starts_with("| `process_"));
    rows.map(|row| {
        let cells = row.trim_matches('|').split('|');
        cells.map(|cell| cell.replace('`', "").trim().to_owned()).collect()
    })
    .collect()
}

#[test]
fn the_page_lists_the_catalogue() {
    let documented = documented();
    let told: Vec<&[String]> = documented.iter().map(|cells| &cells[..5]).collect();
    let made: Vec<Vec<String>> = Metrics::catalogue()
        .iter()
        .map(|family| {
            let labels = family.labels.join(", ");
            [family.name, family.kind.as_str(), family.unit, &labels, family.help]
                .map(str::to_owned)
                .to_vec()
        })
        .collect();
    assert_eq!(told, made);
    for cells in &documented {
        assert!(cells.len() == 6 && !cells[5].is_empty(), "when to worry? {cells:?}");
    }
}

#[test]
fn the_catalogue_is_what_is_exported() {
    let text = all_touched().render(&lobby());
    let mut exported: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
    let mut catalogue: Vec<String> = Metrics::catalogue()
        .iter()
        .map(|family| format!("{} {}", family.name, family.kind.as_str()))
        .collect();
    exported.sort_unstable();
    catalogue.sort_unstable();
    assert_eq!(exported, catalogue);
}

#[test]
fn every_family_is_exported_with_its_labels() {
    let text = all_touched().render(&lobby());
    for family in Metrics::catalogue() {
        let sample = match family.kind {
            Kind::Histogram(_) => format!("{}_sum", family.name),
            _ => family.name.to_owned(),
        };
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(&sample).filter(|rest| rest.starts_with(['{', ' '])))
            .unwrap_or_else(|| panic!("no sample of {sample}"));
        let mut exported: Vec<&str> = line.split('"').step_by(2).filter_map(label_name).collect();
        let mut labels = family.labels.to_vec();
        exported.sort_unstable();
        labels.sort_unstable();
        assert_eq!(exported, labels, "{sample}{line}");
    }
}

/// `name` in `{name=` or `,name=`.
fn label_name(text: &str) -> Option<&str> {
    text.strip_suffix('=')?.strip_prefix(['{', ','])
}

#[test]
fn names_follow_the_conventions() {
    for family in Metrics::catalogue() {
        let name = family.name;
        assert!(name.starts_with("tellerd_") || name.starts_with("process_"), "{name}");
        assert_eq!(name.ends_with("_total"), family.kind == Kind::Counter, "{name}");
        if family.unit == "seconds" {
            assert!(name.trim_end_matches("_total").ends_with("_seconds"), "{name}");
        }
        if let Kind::Histogram(bounds) = family.kind {
            assert!(bounds.is_sorted_by(|a, b| a < b), "{name}");
        }
    }
}

#[test]
fn every_label_value_is_on_the_page() {
    fn named<L: Label>() {
        for label in L::ALL {
            let value = format!("`{}`", label.as_str());
            assert!(PAGE.contains(&value), "{value} is not in docs/METRICS.md");
        }
    }
    named::<Stage>();
    named::<StageOutcome>();
    named::<CashOutOutcome>();
    named::<FailureReason>();
    named::<AtmState>();
    named::<NoteKind>();
    named::<LndMethod>();
    named::<ActorKind>();
    named::<Route>();
}

#[test]
fn known_children_are_exported_from_the_start() {
    let text = Metrics::new().unwrap().render(&Machines::default());
    for line in [
        "tellerd_failures_total{reason=\"outcome_unknown\"} 0",
        "tellerd_cashouts_total{outcome=\"needs_operator\"} 0",
        "tellerd_cashouts_open{state=\"outcome_unknown\"} 0",
        "tellerd_invoices_pending{state=\"settling\"} 0",
        "tellerd_stage_duration_seconds_count{outcome=\"failed\",stage=\"total\"} 0",
        "tellerd_lowest_blocks_left NaN",
        "tellerd_nostr_shards_total{direction=\"in\"} 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
}

#[test]
fn values_arrive_where_they_belong() {
    let metrics = all_touched();
    metrics.stage_ended(Stage::Total, StageOutcome::Ok, Duration::from_millis(1_500));
    metrics.cashout_ended(CashOutOutcome::Completed);
    metrics.failed(FailureReason::OutcomeUnknown);
    metrics.set_cashouts_open([&Phase::Settling, &Phase::Settling, &Phase::Completed]);
    metrics.set_invoices_pending([&InvoicePhase::Open]);
    metrics.lnd_request(LndMethod::Info, Ok(()), Duration::from_millis(2));
    metrics.journal_synced(7, Duration::from_millis(3));
    metrics.actor_restarted(ActorKind::Atm);
    metrics.loss_booked(Minor(2_000));
    metrics.set_exposure(&Exposure {
        held_sats: 21,
        dispensed_unsettled_sats: 20,
        lowest_blocks_left: Some(-1),
        oldest_hold: Some(UnixMs(1_700_000_000_500)),
        oldest_settling: Some(UnixMs(1_700_000_001_000)),
        not_final_sats: 60_000,
        not_final_invoices: 2,
        oldest_not_final: None,
    });
    let text = metrics.clone().render(&lobby());
    for line in [
        "tellerd_stage_duration_seconds_sum{outcome=\"ok\",stage=\"total\"} 1.5",
        "tellerd_cashouts_total{outcome=\"completed\"} 1",
        "tellerd_failures_total{reason=\"outcome_unknown\"} 1",
        "tellerd_cashouts_open{state=\"settling\"} 2",
        "tellerd_cashouts_open{state=\"held\"} 0",
        "tellerd_invoices_pending{state=\"open\"} 1",
        "tellerd_lnd_request_duration_seconds_count{method=\"info\",outcome=\"ok\"} 1",
        "tellerd_lnd_request_duration_seconds_sum{method=\"settle\",outcome=\"timeout\"} 10",
        "tellerd_journal_records_total 7",
        "tellerd_actor_restarts_total{actor=\"atm\"} 1",
        "tellerd_losses_booked_minor_units_total 2000",
        "tellerd_held_sats 21",
        "tellerd_lowest_blocks_left -1",
        "tellerd_oldest_hold_timestamp_seconds 1700000000.5",
        "tellerd_oldest_settling_timestamp_seconds 1700000001",
        "tellerd_settled_not_final_sats 60000",
        "tellerd_settled_not_final_invoices 2",
        "tellerd_oldest_settled_not_final_timestamp_seconds NaN",
        "tellerd_cassette_notes{atm=\"lobby\",kind=\"reserved\",position=\"1\"} 3",
        "tellerd_atm_state{atm=\"lobby\",state=\"ready\"} 1",
        "tellerd_atms{state=\"ready\"} 1",
        "tellerd_atms{state=\"out_of_service\"} 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
    assert!(!text.contains("state=\"completed\""), "{text}");
}

/// A scrape of thousands of machines has no series that says nothing.
#[test]
fn of_a_machine_only_what_says_something_is_exported() {
    let mut machines = Machines::default();
    let mut empty = Cassette::loaded(2, Minor(5_000), 0);
    machines.cassette(&atm("hall"), &empty, 0);
    machines.atm_state(&atm("hall"), AtmState::Busy);
    let text = Metrics::new().unwrap().render(&machines);
    let about = |text: &str| text.lines().filter(|line| line.contains("atm=\"hall\"")).count();
    assert_eq!(about(&text), 5, "{text}");
    let none_left = "tellerd_cassette_notes{atm=\"hall\",kind=\"remaining\",position=\"2\"} 0";
    assert!(text.contains(none_left), "{text}");
    empty.unaccounted = 2;
    let mut machines = Machines::default();
    machines.cassette(&atm("hall"), &empty, 1);
    let text = Metrics::new().unwrap().render(&machines);
    for line in [
        "tellerd_cassette_notes{atm=\"hall\",kind=\"unaccounted\",position=\"2\"} 2",
        "tellerd_cassette_notes{atm=\"hall\",kind=\"reserved\",position=\"2\"} 1",
        "tellerd_atms{state=\"busy\"} 0",
    ] {
        assert!(text.lines().any(|found| found == line), "{line} is not in\n{text}");
    }
}

#[test]
fn the_process_tells_of_itself() {
    let text = Metrics::new().unwrap().render(&Machines::default());
    let value = |name: &str| -> f64 {
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("no {name}")).parse().unwrap()
    };
    for family in Metrics::catalogue().iter().filter(|f| f.name.starts_with("process_")) {
        assert!(value(family.name) > 0.0, "{}", family.name);
    }
    assert!(value("process_open_fds") <= value("process_max_fds"));
    // 2020; a clock of milliseconds would be far beyond 2100.
    assert!((1.577e9..4.1e9).contains(&value("process_start_time_seconds")));
}
